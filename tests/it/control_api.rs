//! The control API of a real daemon over HTTP, its effects seen through the command line
//! and the state file; and the live stream.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::server::Control;
use sgcache::state::{DeadKind, DirtyReasons, Finish, NewDead, NewDirtyKey, Postponed, SiteTime, State};

use crate::program::{Place, Running};
use crate::waiting::Wait;

/// An operator with the token of a running daemon.
struct Operator {
    base: String,
    token: String,
    client: Client,
}

impl Operator {
    fn of(place: &Place) -> Self {
        let control = Control::read(&place.path("data")).expect("a daemon runs");
        Self { base: format!("http://{}/api/v1", place.ops), token: control.token, client: Client::new() }
    }

    fn request(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(path).json(&body)).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.client.get(format!("{}{path}", self.base))).await
    }

    async fn trigger(&self, key: &str, params: Value) -> (StatusCode, Value) {
        let request = self.request("/pipelines/nightly-counts/trigger").header("Idempotency-Key", key);
        answer(request.json(&json!({"params": params}))).await
    }

    /// Waits until a run has ended and returns its report.
    async fn ended(&self, run_id: &str) -> Value {
        let wait = Wait::begin();
        loop {
            let (code, report) = self.get(&format!("/runs/{run_id}")).await;
            if code == StatusCode::OK && !report["finished_at"].is_null() {
                return report;
            }
            wait.again(|| format!("{code} {report}")).await;
        }
    }
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

fn class((code, body): &(StatusCode, Value)) -> (u16, &str) {
    (code.as_u16(), body["error"]["class"].as_str().unwrap_or_default())
}

fn daemon() -> (Place, Running, Running) {
    let place = Place::new();
    let sim = place.sim(600, 0.0);
    let daemon = place.daemon();
    (place, sim, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_with_a_key_starts_one_run_however_often_it_is_repeated() {
    let (place, _sim, daemon) = daemon();
    let operator = Operator::of(&place);
    let types = json!({"types": ["Shot"]});
    // Two at the same time, as a client that ran into its timeout sends them.
    let (one, other) = tokio::join!(operator.trigger("k 1", types.clone()), operator.trigger("k 1", types.clone()));
    assert_eq!((one.0, other.0), (StatusCode::ACCEPTED, StatusCode::ACCEPTED), "{one:?} {other:?}");
    let run_id = one.1["run_id"].as_str().expect("a run").to_owned();
    assert_eq!(other.1["run_id"], run_id.as_str());
    assert_eq!([&one.1, &other.1].iter().filter(|answer| answer["repeated"] == true).count(), 1);
    let report = operator.ended(&run_id).await;
    assert_eq!((&report["status"], &report["trigger"]), (&json!("ok"), &json!("api")));
    let logged = place.run(&["pipelines", "logs", &run_id, "-o", "json"]).expect_code(0).json();
    let all = logged.as_array().expect("lines");
    assert!(all.len() > 1, "{logged}");
    let (_, log) = operator.get(&format!("/runs/{run_id}/log")).await;
    assert_eq!((&log["lines"], &log["next"]), (&logged, &json!(all.len())));
    let (_, newest) = operator.get(&format!("/runs/{run_id}/log?last=1")).await;
    assert_eq!(newest["lines"], json!([all[all.len() - 1]]));
    let (_, rest) = operator.get(&format!("/runs/{run_id}/log?from=1")).await;
    assert_eq!(rest["lines"], Value::from(&all[1..]));
    assert_eq!(class(&operator.trigger("k 1", json!({})).await), (422, "key_reused"));
    assert_eq!(class(&operator.trigger(&"k".repeat(129), json!({})).await), (400, "bad_key"));
    assert_eq!(daemon.terminate().0, Some(0));

    let _daemon = place.daemon();
    let operator = Operator::of(&place);
    let repeated = operator.trigger("k 1", types).await;
    assert_eq!(repeated, (StatusCode::ACCEPTED, json!({"run_id": run_id, "repeated": true})), "after a restart");

    let (code, again) = operator.post(&format!("/runs/{run_id}/retry"), json!({})).await;
    assert_eq!(code, StatusCode::ACCEPTED, "{again}");
    let second = operator.ended(again["run_id"].as_str().expect("a run")).await;
    assert_ne!(second["run_id"], run_id.as_str());
    assert_eq!(second["params"]["types"], json!(["Shot"]), "with the parameters of the first");
    let history = place.run(&["pipelines", "history", "nightly-counts", "-o", "json"]).expect_code(0).json();
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history}");

    assert_eq!(class(&operator.post("/runs/01K/retry", json!({})).await), (404, "unknown_run"));
    assert_eq!(class(&operator.post("/runs/01K/cancel", json!({})).await), (404, "unknown_run"));
    assert_eq!(class(&operator.post(&format!("/runs/{run_id}/cancel"), json!({})).await), (409, "not_running"));
    assert_eq!(class(&operator.post("/pipelines/nightli-counts/trigger", json!({})).await), (404, "unknown_pipeline"));
    assert_eq!(class(&operator.post("/pipelines/sync/trigger", json!({})).await), (409, "cannot_start"));
    let wrong = operator.post("/pipelines/nightly-counts/trigger", json!({"params": {"typos": 1}})).await;
    assert_eq!(class(&wrong), (400, "bad_params"));
    let report = place.run(&["job", "validateCounts", "Shot", "-o", "json"]).expect_code(0).json();
    let alone = format!("/runs/{}/retry", report["run_id"].as_str().expect("a run"));
    assert_eq!(class(&operator.post(&alone, json!({})).await), (409, "not_retryable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pauses_reloads_and_explanations_do_what_the_commands_do() {
    let (place, _sim, _daemon) = daemon();
    let operator = Operator::of(&place);
    let pause = json!({"reason": "maintenance", "for": "2h"});
    let (code, paused) = operator.post("/pipelines/nightly-counts/pause", pause).await;
    assert_eq!((code, &paused["pause"]["reason"]), (StatusCode::OK, &json!("maintenance")), "{paused}");
    let listed = place.run(&["pipelines", "list"]).expect_code(0).stdout;
    assert!(listed.contains("paused"), "{listed}");
    let is_paused = |body: &str| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        let all = status["pipelines"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["name"] == "nightly-counts" && one["paused"] == true)
    };
    place.until("/api/v1/status", |_, body| is_paused(body));
    let (code, resumed) = operator.post("/pipelines/nightly-counts/resume", json!({})).await;
    assert_eq!((code, resumed["was_paused"].as_bool()), (StatusCode::OK, Some(true)));
    place.until("/api/v1/status", |code, body| code == 200 && !is_paused(body));
    for wrong in
        [json!({}), json!({"reason": "x", "for": "2 parsecs"}), json!({"reason": "x", "until": "2001-01-01T00:00:00Z"})]
    {
        assert_eq!(class(&operator.post("/pipelines/sync/pause", wrong).await), (400, "bad_body"));
    }
    let other = operator.post("/pipelines/nightly-count/resume", json!({})).await;
    assert_eq!(class(&other), (404, "unknown_pipeline"));
    assert!(other.1["error"]["message"].as_str().is_some_and(|words| words.contains("nightly-counts")), "{}", other.1);

    let (code, reloaded) = operator.post("/reload", json!({})).await;
    assert_eq!((code, &reloaded["pipelines"]), (StatusCode::OK, &json!(5)), "{reloaded}");
    std::fs::write(place.path("pipelines/mine.yaml"), "name: mine\nstep: []\n").expect("a file");
    let refused = operator.post("/reload", json!({})).await;
    assert_eq!(class(&refused), (422, "invalid_config"));
    let checked = place.run(&["pipelines", "validate", "--format", "json"]).expect_code(78).json();
    assert_eq!(refused.1["error"]["diagnostics"], checked["diagnostics"]);
    let unknown_key = &refused.1["error"]["diagnostics"][1];
    assert_eq!((&unknown_key["code"], &unknown_key["line"]), (&json!("SG0201"), &json!(2)), "{}", refused.1);
    std::fs::remove_file(place.path("pipelines/mine.yaml")).expect("a removal");

    let request = json!({"method_name": "read", "params": [
        {"script_name": "sgcache", "script_key": "sgcache-sim"},
        {"type": "Shot", "filters": {"logical_operator": "and", "conditions": []}, "return_fields": ["id", "code"],
         "return_only": "active", "paging": {"current_page": 1, "entities_per_page": 5}},
    ]});
    let (code, served) = operator.post("/explain", request.clone()).await;
    assert_eq!((code, &served["decision"]), (StatusCode::OK, &json!("serve")), "{served}");
    let (_, passed) = operator.post("/explain", json!({"method_name": "read"})).await;
    assert_eq!(passed["decision"], "pass", "{passed}");
    std::fs::write(place.path("request.json"), request.to_string()).expect("a file");
    let words = place.run(&["explain", "--request", "request.json", "-o", "json"]).expect_code(0).json();
    assert_eq!((&words["decision"], &words["filter"]), (&served["decision"], &served["filter"]));
}

/// Makes a dead letter of a row that the site does show, as a fault of the past leaves it.
pub async fn leave_dead_letter(state: &State, key: &EntityRef, error: &str) {
    let now = SiteTime(1_000_000);
    state.mark(&[NewDirtyKey::new(key.clone(), DirtyReasons::CHANGE)], now).await.expect("a dirty key");
    let read = state.begin_read(&EntityType::new("Shot"), now).await.expect("a read");
    let dead =
        vec![NewDead { kind: DeadKind::Read, key: key.clone(), payload: r#"{"id":1}"#.into(), error: error.into() }];
    let delay = Duration::from_secs(360_000_000);
    let postponed = vec![Postponed { key: key.clone(), delay, add: DirtyReasons::QUARANTINED }];
    state.finish(Finish { dead, postponed, ..Finish::new(read, now) }).await.expect("a finish");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_stopped_deletions_are_decided_over_the_api() {
    let (place, sim, _daemon) = daemon();
    // Nothing is read again by itself while the site is away.
    sim.signal("STOP");
    let operator = Operator::of(&place);
    let state = State::open(&place.path("data")).await.expect("a state");
    let shots = place.run(&["find", "Shot", "--fields", "code", "-o", "json"]).expect_code(0).json();
    let ids: Vec<i64> = shots.as_array().expect("rows").iter().filter_map(|shot| shot["id"].as_i64()).collect();
    leave_dead_letter(&state, &EntityRef::new("Shot", ids[0]), "Fault 104").await;
    leave_dead_letter(&state, &EntityRef::new("Shot", ids[1]), "Fault 105").await;
    let (code, listed) = operator.get("/dead-letters?kind=read&limit=1").await;
    assert_eq!((code, &listed["total"]), (StatusCode::OK, &json!(2)), "{listed}");
    let serial = listed["dead_letters"][0]["serial"].as_i64().expect("a number");
    assert_eq!(listed["dead_letters"][0]["error"], "Fault 104");
    assert!(listed["dead_letters"][0].get("payload").is_none(), "what was received is for operators only");
    let path = format!("{}/dead-letters/{serial}", operator.base);
    assert_eq!(answer(operator.client.get(&path)).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(answer(operator.client.get(&path).bearer_auth(&operator.token)).await.1["payload"], r#"{"id":1}"#);
    for wrong in [json!({}), json!({"all": false}), json!({"serials": []}), json!({"serials": [1], "all": true})] {
        assert_eq!(class(&operator.post("/dead-letters/drop", wrong).await), (400, "bad_body"));
    }
    let unknown = operator.post("/dead-letters/retry", json!({"serials": [4711]})).await;
    assert_eq!(class(&unknown), (404, "unknown_dead_letter"));
    let (_, dropped) = operator.post("/dead-letters/drop", json!({"serials": [serial]})).await;
    assert_eq!(dropped["dropped"], 1);
    let (_, retried) = operator.post("/dead-letters/retry", json!({"kind": "read"})).await;
    assert_eq!(retried["refetched"], 1, "{retried}");

    let shot = EntityType::new("Shot");
    let stopped: Vec<_> = ids[2..4]
        .iter()
        .map(|id| NewDirtyKey::new(EntityRef::new("Shot", *id), DirtyReasons::DELETION_STOPPED))
        .collect();
    for action in ["confirm", "reset"] {
        state.mark(&stopped, SiteTime(5_000)).await.expect("dirty keys");
        state.open_breaker(&shot, SiteTime(5_000)).await.expect("an open circuit breaker");
        let (_, open) = operator.get("/breakers").await;
        let commanded = place.run(&["breaker", "show", "-o", "json"]).expect_code(0).json();
        assert_eq!((&open["breakers"], open["breakers"][0]["held"].as_array().map(Vec::len)), (&commanded, Some(2)));
        let (code, closed) = operator.post(&format!("/breakers/Shot/{action}"), json!({})).await;
        assert_eq!((code, &closed["entity_type"]), (StatusCode::OK, &json!("Shot")), "{closed}");
        assert_eq!(operator.get("/breakers").await.1["breakers"], json!([]));
    }
    assert_eq!(class(&operator.post("/breakers/Shot/confirm", json!({})).await), (409, "breaker_closed"));

    // With the site back, the daemon refetches what was retried, and the letter goes.
    sim.signal("CONT");
    place.until("/api/v1/dead-letters", |_, body| body.contains("\"total\":0"));
    let after = place.run(&["find", "Shot", "--fields", "code", "-o", "json"]).expect_code(0).json();
    assert_eq!(after, shots, "rows that the site shows stay, also after a confirmation");
}

/// Reads server-sent events as they come.
struct Stream {
    answer: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(place: &Place) -> Self {
        let answer = Client::new().get(format!("http://{}/api/v1/events", place.ops)).send().await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// Returns the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.collect::<String>()
                };
                let found = (field("event"), serde_json::from_str(&field("data")).expect("JSON"));
                self.text = rest.to_owned();
                return Some(found);
            }
            let bytes = self.answer.chunk().await.expect("a stream")?;
            self.text.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }

    async fn run(&mut self, pipeline: &str) -> Value {
        loop {
            let (name, document) = self.next().await.expect("the stream goes on");
            if name == "run" && document["pipeline"] == pipeline {
                return document;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_the_status_arrive_live_until_the_daemon_stops() {
    let (place, _sim, daemon) = daemon();
    let operator = Operator::of(&place);
    let mut stream = Stream::open(&place).await;
    let (name, status) = stream.next().await.expect("an event");
    assert_eq!((name.as_str(), &status["schema"]), ("status", &json!("sgcache.status/2")));
    let (_, started) = operator.trigger("live", json!({"types": ["Shot"]})).await;
    let begun = stream.run("nightly-counts").await;
    assert_eq!((&begun["run_id"], &begun["finished_at"]), (&started["run_id"], &Value::Null));
    let ended = stream.run("nightly-counts").await;
    assert_eq!((&ended["run_id"], &ended["status"]), (&started["run_id"], &json!("ok")));
    let (name, status) = stream.next().await.expect("an event");
    assert_eq!((name.as_str(), &status["runs"][0]["run_id"]), ("status", &started["run_id"]), "at once");

    let mut others = Vec::new();
    let full = loop {
        let answer = Client::new().get(format!("{}/events", operator.base)).send().await.expect("an answer");
        if !answer.status().is_success() {
            break answer;
        }
        others.push(answer);
        assert!(others.len() <= 32, "the number of streams is bounded");
    };
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);

    // Open streams do not keep it from stopping.
    assert_eq!(daemon.terminate().0, Some(0));
    while stream.next().await.is_some() {}
}
