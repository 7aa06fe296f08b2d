//! What a test orders from a running site: faults, time, transactions, reset.
//! The rows of the fault matrix that a site causes, each by its number.

use serde_json::{Value, json};
use sgcache::entity::Timestamp;
use sgcache::sim::{Sim, SimHandle, SimSettings};

/// A site with its admin endpoint, the clock standing still.
pub struct Ordered {
    sim: SimHandle,
    http: reqwest::Client,
}

const START: &str = "2026-01-05T09:00:00Z";

impl Ordered {
    async fn start() -> Self {
        Self::with(SimSettings::default()).await
    }

    async fn with(settings: SimSettings) -> Self {
        let admin = Some(([127, 0, 0, 1], 0).into());
        let settings = SimSettings { admin, clock: Timestamp::parse(START), ..settings };
        let sim = Sim::start(settings).await.expect("a free port");
        Self { sim, http: reqwest::Client::new() }
    }

    /// Orders steps; the answer is what they returned.
    async fn order(&self, steps: Value) -> Value {
        let (status, answer) = self.admin("do", &steps.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer["results"].clone()
    }

    async fn admin(&self, path: &str, body: &str) -> (u16, Value) {
        let url = format!("{}/{path}", self.sim.admin_url().expect("an admin endpoint"));
        let answer = self.http.post(url).body(body.to_owned()).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn state(&self) -> Value {
        let url = format!("{}/state", self.sim.admin_url().expect("an admin endpoint"));
        self.http.get(url).send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn post(&self, method: &str, argument: Value) -> reqwest::Result<reqwest::Response> {
        let login = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let body = json!({"method_name": method, "params": [login, argument]});
        self.http.post(format!("{}/api3/json", self.sim.url())).body(body.to_string()).send().await
    }

    async fn call(&self, method: &str, argument: Value) -> Value {
        self.post(method, argument).await.expect("an answer").json().await.expect("JSON")
    }

    /// Reads a field of every entity of a type, in the order of ids.
    async fn read(&self, entity_type: &str, field: &str) -> Vec<Value> {
        let answer = self.call("read", page(entity_type, field, 500)).await;
        let rows = answer["results"]["entities"].as_array().unwrap_or_else(|| panic!("{answer}"));
        rows.iter().map(|row| row[field].clone()).collect()
    }

    async fn events(&self) -> Vec<i64> {
        self.read("EventLogEntry", "id").await.iter().map(|id| id.as_i64().expect("an id")).collect()
    }
}

fn page(entity_type: &str, field: &str, size: u32) -> Value {
    json!({"type": entity_type, "return_fields": [field], "paging": {"entities_per_page": size, "current_page": 1}})
}

fn project(name: &str) -> Value {
    json!({"write": {"writes": [{"create": {"type": "Project", "fields": {"name": name}}}]}})
}

fn shot(code: &str) -> Value {
    let fields = json!({"code": code, "project": {"type": "Project", "id": 1}});
    json!({"create": {"type": "Shot", "fields": fields}})
}

fn rename(id: i64, code: &str) -> Value {
    json!({"update": {"type": "Shot", "id": id, "fields": {"code": code}}})
}

#[tokio::test]
async fn what_is_not_simulated_is_counted_by_method() {
    let site = Ordered::start().await;
    site.call("nav_expand", json!({"path": "/"})).await;
    site.call("spaceship_launch", json!({})).await;
    site.call("spaceship_launch", json!({})).await;
    site.read("Project", "name").await;
    let url = format!("{}/metrics", site.sim.admin_url().expect("an admin endpoint"));
    let text = site.http.get(url).send().await.expect("an answer").text().await.expect("text");
    let counts: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        counts,
        [
            "sgcache_sim_not_simulated_total{method=\"nav_expand\"} 1",
            "sgcache_sim_not_simulated_total{method=\"spaceship_launch\"} 2",
            "sgcache_sim_requests_total{method=\"nav_expand\"} 1",
            "sgcache_sim_requests_total{method=\"read\"} 1",
            "sgcache_sim_requests_total{method=\"spaceship_launch\"} 2",
        ]
    );
    assert_eq!(site.state().await["requests"]["not simulated spaceship_launch"], 2);
}

#[tokio::test]
async fn the_admin_endpoint_is_off_unless_asked_for_and_on_this_machine_only() {
    let sim = Sim::start(SimSettings::default()).await.expect("a free port");
    assert_eq!(sim.admin_url(), None);
    sim.shutdown().await;
    let everywhere = SimSettings { admin: Some(([0, 0, 0, 0], 0).into()), ..SimSettings::default() };
    let refused = Sim::start(everywhere).await.err().expect("no loopback");
    assert_eq!(refused.to_string(), "the admin endpoint listens on loopback only, not on 0.0.0.0:0");
}

#[tokio::test]
async fn a_web_page_orders_nothing() {
    let site = Ordered::start().await;
    let url = format!("{}/reset", site.sim.admin_url().expect("an admin endpoint"));
    let answer = site.http.post(url).header("Origin", "https://example.com").send().await.expect("an answer");
    assert_eq!(answer.status(), 403);
}

/// Rows 1, 3 and 5: ids held for hours, ids that nobody uses, commits in the other order.
#[tokio::test]
async fn transactions_commit_when_they_are_told_to_and_their_ids_are_older() {
    let site = Ordered::start().await;
    let dense = json!({"id_blocks": {"workers": 1, "block": 1}});
    site.order(json!([dense, project("Demo"), {"write": {"writes": [shot("a"), shot("b")]}}])).await;
    let held = site.order(json!([{"begin": {"name": "slow", "ids": 20}}, {"begin": {"name": "other"}}])).await;
    let first = held[0]["event_ids"][0].as_i64().expect("an id");
    site.order(json!([
        {"write": {"transaction": "slow", "writes": [rename(1, "slow")]}},
        {"write": {"transaction": "other", "writes": [rename(1, "other")]}},
        {"burn_ids": 40000},
        {"commit": "other"},
        {"write": {"writes": [rename(2, "late")]}},
        {"advance": "6h"},
    ]))
    .await;
    assert_eq!(site.read("Shot", "code").await, ["other", "late"]);
    assert!(!site.events().await.contains(&first), "the slow transaction is not seen");
    let gap = site.events().await.windows(2).map(|pair| pair[1] - pair[0]).max().expect("events");
    assert!(gap > 40_000, "{gap}");
    site.order(json!([{"commit": "slow"}])).await;
    assert_eq!(site.read("Shot", "code").await, ["slow", "late"]);
    assert!(site.events().await.contains(&first));
    assert!(!site.events().await.contains(&(first + 19)), "unused ids are never seen");
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_was_never_there() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("a")]}}])).await;
    let (events, state) = (site.events().await, site.state().await);
    let steps = json!([
        {"begin": {"name": "t"}},
        {"write": {"transaction": "t", "writes": [shot("x{n}")], "repeat": 30}},
        {"roll_back": "t"}]);
    site.order(steps).await;
    assert_eq!(site.events().await, events);
    assert_eq!(site.state().await["types"], state["types"]);
    let (status, answer) = site.admin("do", r#"[{"commit": "t"}]"#).await;
    assert_eq!((status, &answer["error"]), (409, &json!("the site has no transaction `t`")));
}

/// Rows 18 to 20 and 22: what leaves no trace in the event log.
#[tokio::test]
async fn silent_writes_and_hard_deletes_leave_no_event() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("a"), shot("b")]}}])).await;
    let before = site.events().await;
    site.order(json!([
        {"write": {"silently": true, "writes": [rename(1, "quiet"), {"retire": {"type": "Shot", "id": 2}},
            {"create": {"type": "Shot", "fields": {"code": "old", "updated_at": "2019-01-01T00:00:00Z",
                "project": {"type": "Project", "id": 1}}}}]}},
        {"purge": {"type": "Shot", "id": 1}},
    ]))
    .await;
    assert_eq!(site.events().await, before);
    assert_eq!(site.read("Shot", "code").await, ["old"]);
    assert_eq!(site.read("Shot", "updated_at").await, ["2019-01-01T00:00:00Z"]);
}

/// Rows 25 and 26: the event is seen before its row, or the row before its event.
#[tokio::test]
async fn rows_or_events_can_be_seen_late() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("a")]}}])).await;
    let events = site.events().await.len();
    site.order(json!([{"lag": {"of": "rows", "by": "3s"}}, {"write": {"writes": [rename(1, "b"), shot("new")]}}]))
        .await;
    assert!(site.events().await.len() > events);
    assert_eq!(site.read("Shot", "code").await, ["a"]);
    site.order(json!({"advance": "2s"})).await;
    assert_eq!(site.read("Shot", "code").await, ["a"]);
    site.order(json!({"advance": "1s"})).await;
    assert_eq!(site.read("Shot", "code").await, ["b", "new"]);

    let events = site.events().await.len();
    site.order(json!([{"lag": {"of": "events", "by": "3s"}}, {"write": {"writes": [rename(1, "c")]}}])).await;
    assert_eq!(site.read("Shot", "code").await, ["c", "new"]);
    assert_eq!(site.events().await.len(), events);
    site.order(json!({"advance": "3s"})).await;
    assert!(site.events().await.len() > events);
}

/// Rows 31 to 33 and 48.
#[tokio::test]
async fn a_script_loses_rights_and_gets_them_back() {
    let site = Ordered::start().await;
    let other = json!({"create": {"type": "Shot", "fields": {"code": "b", "project": {"type": "Project", "id": 2}}}});
    site.order(json!([project("One"), project("Two"), {"write": {"writes": [shot("a"), other]}}])).await;
    site.order(json!({"permissions": {"script": "sgcache", "projects": [1], "hidden_fields": ["Shot.code"]}})).await;
    assert_eq!(site.read("Shot", "id").await, [1]);
    assert_eq!(site.read("Project", "name").await, ["One"]);
    assert_eq!(site.read("Shot", "code").await, [Value::Null], "the key is not in the answer");
    let count = json!({"type": "Shot", "summaries": [{"field": "id", "type": "count"}]});
    assert_eq!(site.call("summarize", count).await["results"]["summaries"]["id"], 1);
    let write = json!({"type": "Shot", "id": 2, "fields": [{"field_name": "code", "value": "x"}]});
    let refused = site.call("update", write).await;
    assert!(refused["message"].as_str().expect("a fault").contains("can not be edited by this user"), "{refused}");

    site.order(json!({"permissions": {"script": "sgcache", "revoked": true}})).await;
    assert_eq!(site.call("read", page("Shot", "code", 10)).await["error_code"], 102);
    site.order(json!({"permissions": {"script": "sgcache"}})).await;
    assert_eq!(site.read("Shot", "code").await, ["a", "b"]);
}

/// Rows 49 to 51 and 60: the log is trimmed, odd entries, a restored backup.
#[tokio::test]
async fn the_event_log_forgets_and_holds_what_nobody_understands() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("s{n}")], "repeat": 20}}])).await;
    let all = site.events().await;
    site.order(json!([{"retention": {"keep": 5}}, {"event": {"event_type": "A_B_C_D_E_F"}},
        {"event": {"event_type": "Shotgun_Shot_Change", "attribute_name": "code", "entity": {"type": "Shot", "id": 99},
            "meta": {"type": "attribute_change", "entity_type": "Shot", "entity_id": 99}}}]))
        .await;
    let kept = site.events().await;
    assert_eq!(kept[..5], all[all.len() - 5..]);
    assert_eq!(kept.len(), 7);
    assert_eq!(site.read("EventLogEntry", "meta").await[5], Value::Null);
    assert_eq!(site.read("EventLogEntry", "entity").await[6], Value::Null);

    site.order(json!([{"backup": "night"}, {"write": {"writes": [rename(1, "lost"), shot("lost")]}}])).await;
    let lost = site.events().await;
    site.order(json!([{"restore": "night"}])).await;
    assert_eq!((site.events().await, site.read("Shot", "code").await.len()), (kept, 20));
    site.order(json!([{"write": {"writes": [shot("again"), rename(2, "other history")]}}])).await;
    assert!(lost.contains(site.events().await.last().expect("an event")), "ids are used again");
    assert_eq!(site.read("Shot", "code").await[20], "again");
}

/// Rows 45 and 46, and the rows about large pages, certain rows and lost answers.
#[tokio::test]
async fn a_plan_is_followed_by_the_clock_of_the_site() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("a"), shot("b")]}}])).await;
    let plan = "
        seed: 3
        requests:
          - {trouble: {status: 503}, from: 1m, until: 31m}
          - {trouble: {fault: [104, no luck]}, answers: {type: Shot, id: 2}, until: 1m}
          - {trouble: {busy: {status: 429, retry_after: 7s}}, page_above: 100, times: 1}
        steps:
          - at: 10m
            do: [{write: {writes: [{update: {type: Shot, id: 1, fields: {code: during}}}]}}]
          - at: 40m
            do: [{run_clock: -2h}]";
    let (status, answer) = site.admin("faults", plan).await;
    assert_eq!((status, answer), (200, json!({"troubles": 3, "steps": 2})));
    assert_eq!(site.call("read", page("Shot", "code", 10)).await["message"], "no luck");
    let busy = site.post("read", page("Project", "name", 500)).await.expect("an answer");
    assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (429, &"7".parse().expect("a header")));
    site.order(json!({"advance": "1m"})).await;
    assert_eq!(site.post("read", page("Shot", "code", 10)).await.expect("an answer").status(), 503);
    site.order(json!({"advance": "30m"})).await;
    assert_eq!(site.read("Shot", "code").await, ["during", "b"]);
    assert_eq!(site.read("Shot", "updated_at").await[0], "2026-01-05T09:10:00Z", "made at its own time");
    site.order(json!({"advance": "20m"})).await;
    let ahead = site.sim.site().clock.now().0 - chrono::Utc::now().timestamp();
    assert!((-7_200..=-5_900).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_has_happened_and_one_dropped_before_has_not() {
    let site = Ordered::start().await;
    site.order(json!([project("Demo"), {"write": {"writes": [shot("a")]}}])).await;
    let write = |code: &str| json!({"type": "Shot", "id": 1, "fields": [{"field_name": "code", "value": code}]});
    for (trouble, code, after) in [("dropped_before", "b", "a"), ("dropped_after_commit", "c", "c")] {
        site.order(json!({"trouble": {"trouble": trouble, "method": "update", "times": 1}})).await;
        let lost = match site.post("update", write(code)).await {
            Ok(answer) => answer.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(lost, "{trouble}");
        assert_eq!(site.read("Shot", "code").await, [after], "{trouble}");
    }
}

/// Row 30, and everything else that the site's own methods do.
#[tokio::test]
async fn a_step_can_call_any_method_of_the_site() {
    let site = Ordered::start().await;
    let argument = json!({"type": "Project", "fields": [{"field_name": "name", "value": "Demo"}]});
    let made = site.order(json!({"call": {"method": "create", "argument": argument}})).await;
    assert_eq!(made[0]["results"]["name"], "Demo");
    let (status, answer) = site.admin("do", r#"{"call": {"method": "tea"}}"#).await;
    assert_eq!(status, 409, "{answer}");
}

#[tokio::test]
async fn a_reset_takes_back_everything_and_is_quick() {
    let plan =
        serde_json::from_value(json!({"requests": [{"trouble": "html", "skip": 1, "times": 1}]})).expect("a plan");
    let site = Ordered::with(SimSettings { entities: 2_000, plan, ..SimSettings::default() }).await;
    let before = site.state().await;
    let mut shown = Vec::new();
    for _ in 0..2 {
        let made = site.order(json!([project("Demo"), {"write": {"writes": [shot("x{n}")], "repeat": 200}}])).await;
        site.order(json!([{"write": {"writes": [{"retire": {"type": "Shot", "id": 1}}]}}, {"retention": {"keep": 1}},
            {"begin": {"name": "t"}}, {"advance": "3h"}, {"backup": "later"}]))
            .await;
        let events = site.events().await;
        assert!(
            site.post("info", Value::Null).await.expect("a page").text().await.expect("text").starts_with("<html>")
        );
        shown.push((made, events, site.read("Shot", "code").await));
        let (status, answer) = site.admin("reset", "").await;
        assert_eq!(status, 200, "{answer}");
        let mut after = site.state().await;
        // Reads after the reset are counted again; nothing else differs.
        after["requests"] = before["requests"].clone();
        assert_eq!(after, before);
    }
    assert_eq!(shown[0], shown[1], "the same steps have the same results");
}

#[tokio::test]
async fn a_wrong_plan_is_refused_with_its_place() {
    let site = Ordered::start().await;
    let (status, answer) = site.admin("faults", "requests:\n  - {trouble: html, tiems: 3}\n").await;
    let words = answer["error"].as_str().expect("words");
    assert_eq!(status, 400);
    assert!(words.contains("unknown field `tiems`") && words.contains("body:2"), "{words}");
}

#[tokio::test]
async fn a_saved_site_begins_where_it_was_saved() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("site.snapshot");
    let site = Ordered::with(SimSettings { entities: 1_000, ..SimSettings::default() }).await;
    site.order(json!([{"load": {"Tag": [{"id": 5_000, "name": "loaded"}]}}, {"save": file}])).await;
    let again = Ordered::with(SimSettings { snapshot: Some(file), ..SimSettings::default() }).await;
    let shown = |state: Value| (state["types"].clone(), state["last_event_id"].clone());
    assert_eq!(shown(again.state().await), shown(site.state().await));
    let tag = json!({"write": {"writes": [{"create": {"type": "Tag", "fields": {"name": "new"}}}]}});
    assert_eq!(again.order(tag.clone()).await, site.order(tag).await);
    assert!(again.read("Tag", "name").await.contains(&json!("loaded")));
    let newest = again.events().await;
    let ids: std::collections::BTreeSet<_> = newest.iter().collect();
    assert_eq!(ids.len(), newest.len(), "no event id is used twice");
}

#[tokio::test]
async fn tables_of_a_page_export_are_loaded() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("Project.csv"), "Id,Project Name\n70,\"Demo, the \"\"first\"\"\"\n")
        .expect("a file");
    let shots =
        r#"[{"type": "Shot", "id": 12, "code": "x", "project": {"type": "Project", "id": 70, "name": "Demo"}}]"#;
    std::fs::write(dir.path().join("dump.json"), shots).expect("a file");
    let site = Ordered::with(SimSettings { load: vec![dir.path().to_owned()], ..SimSettings::default() }).await;
    let project = json!({"type": "Project", "id": 70, "name": "Demo, the \"first\""});
    assert_eq!(site.read("Shot", "project").await, [project]);
    std::fs::write(dir.path().join("Spaceship.json"), "[{\"id\": 1}]").expect("a file");
    let settings = SimSettings { load: vec![dir.path().to_owned()], ..SimSettings::default() };
    let refused = Sim::start(settings).await.err().expect("an unknown type").to_string();
    assert!(refused.ends_with("Spaceship: the site has no such entity type"), "{refused}");
}
