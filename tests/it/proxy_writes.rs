//! Reads beside writes that go through the proxy: every answer is the site's, and what
//! no pending write can change does not wait.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sgcache::entity_config::EntityConfigFile;
use sgcache::proxy::Settings;
use sgcache::sim::faults::Latency;
use sgcache::sim::{Site, Trouble};

use crate::proxy_rig::{Rig, find, said, written};
use crate::waiting::until;

const CONFIGS: &[(&str, &str)] = &[
    ("Project", r#"{"fields": {"name": {}, "archived": {}}}"#),
    ("Sequence", r#"{"fields": {"code": {}, "project": {}, "shots": {}, "updated_at": {}}}"#),
    (
        "Shot",
        r#"{"fields": {"code": {}, "sg_status_list": {}, "sg_cut_in": {}, "sg_sequence": {}, "project": {},
            "assets": {}, "tasks": {}, "updated_at": {}, "task_template": {}}}"#,
    ),
    ("Asset", r#"{"fields": {"code": {}, "shots": {}, "project": {}, "sg_status_list": {}, "tasks": {}}}"#),
    (
        "Task",
        r#"{"fields": {"content": {}, "sg_status_list": {}, "entity": {}, "project": {}, "upstream_tasks": {},
            "downstream_tasks": {}, "start_date": {}, "due_date": {}, "duration": {}, "template_task": {}}}"#,
    ),
    ("Version", r#"{"fields": {"code": {}, "entity": {}, "sg_task": {}, "project": {}}}"#),
];

pub fn to(ty: &str, id: i64) -> Value {
    json!({"type": ty, "id": id})
}

/// Some of everything, with ids that are known.
pub fn filled() -> std::sync::Arc<Site> {
    let site = Site::empty();
    site.clock.run(0);
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    for name in ["q1", "q2"] {
        site.create("Sequence", json!({"code": name, "project": to("Project", 1)})).expect("a sequence");
    }
    for number in 1..=6 {
        let sequence = to("Sequence", 1 + number % 2);
        let shot = json!({"code": format!("s{number}"), "project": to("Project", 1), "sg_sequence": sequence});
        site.create("Shot", shot).expect("a shot");
        site.create("Asset", json!({"code": format!("a{number}"), "project": to("Project", 1)})).expect("an asset");
        let task = json!({"content": format!("t{number}"), "project": to("Project", 1), "entity": to("Shot", number)});
        site.create("Task", task).expect("a task");
        let version = json!({"code": format!("v{number}"), "project": to("Project", 1), "entity": to("Shot", number),
            "sg_task": to("Task", number)});
        site.create("Version", version).expect("a version");
    }
    site
}

/// The entity configs of what [`filled`] makes.
pub fn configs() -> Vec<EntityConfigFile> {
    written(CONFIGS)
}

async fn rig() -> Rig {
    Rig::start(filled(), configs(), Settings::default()).await
}

fn update(ty: &str, id: i64, field: &str, value: Value) -> (&'static str, Value) {
    ("update", json!({"type": ty, "id": id, "fields": [{"field_name": field, "value": value}]}))
}

/// One write as programs send it. The site may refuse it.
fn write(rng: &mut SmallRng) -> (&'static str, Value) {
    let id = rng.random_range(1..=7);
    let status = *["wtg", "ip", "fin"].choose(rng).expect("a status");
    let ty = *["Shot", "Asset", "Task"].choose(rng).expect("a type");
    let text = format!("n{}", rng.random_range(0..1000));
    match rng.random_range(0..16) {
        0 | 1 => update(ty, id, "sg_status_list", json!(status)),
        2 => update("Shot", id, "sg_cut_in", json!(rng.random_range(0..50))),
        3 => update("Shot", id, "code", json!(text)),
        4 => update("Sequence", 1 + id % 2, "code", json!(text)),
        5 => update("Task", id, "content", json!(text)),
        6 => update("Shot", id, "sg_sequence", to("Sequence", rng.random_range(1..=2))),
        7 => update("Shot", id, "assets", json!([to("Asset", rng.random_range(1..=6)), to("Asset", id)])),
        8 => update("Task", id, "entity", to("Shot", rng.random_range(1..=6))),
        9 => update("Task", id, "upstream_tasks", json!([to("Task", rng.random_range(1..=6))])),
        10 => update("Version", id, "sg_task", to("Task", rng.random_range(1..=6))),
        11 => {
            ("delete", json!({"type": *["Shot", "Task", "Asset", "Sequence"].choose(rng).expect("a type"), "id": id}))
        }
        12 | 13 => {
            ("revive", json!({"type": *["Shot", "Task", "Asset", "Sequence"].choose(rng).expect("a type"), "id": id}))
        }
        14 => {
            let fields = json!([{"field_name": "code", "value": text}, {"field_name": "project", "value": to("Project", 1)},
                {"field_name": "sg_sequence", "value": to("Sequence", 1)}]);
            ("create", json!({"type": "Shot", "fields": fields, "return_fields": ["id"]}))
        }
        _ => {
            let one = |(method, mut argument): (&str, Value)| {
                argument["request_type"] = method.into();
                argument
            };
            let items =
                [update("Shot", id, "sg_cut_in", json!(7)), update("Task", id, "sg_status_list", json!(status))];
            ("batch", Value::Array(items.into_iter().map(one).collect()))
        }
    }
}

/// One read as programs send it.
fn read(rng: &mut SmallRng) -> Value {
    let id = rng.random_range(1..=7);
    let by_id = json!([["id", "is", id]]);
    match rng.random_range(0..14) {
        0 => find("Shot", by_id, &["code", "sg_status_list", "sg_sequence", "assets", "tasks", "updated_at"]),
        1 => find("Shot", json!([["sg_sequence", "is", to("Sequence", 1)]]), &["code", "sg_cut_in"]),
        2 => find("Shot", json!([["sg_status_list", "is", "ip"]]), &["code"]),
        3 => find("Shot", json!([]), &["sg_sequence.Sequence.code", "code"]),
        4 => find("Shot", json!([["assets", "is", to("Asset", id)]]), &["assets"]),
        5 => find("Task", by_id, &["content", "entity", "sg_status_list", "upstream_tasks", "downstream_tasks"]),
        6 => find("Task", json!([["entity", "is", to("Shot", id)]]), &["content", "sg_status_list", "entity"]),
        7 => find("Task", json!([["entity.Shot.sg_status_list", "is", "fin"]]), &["content", "entity.Shot.code"]),
        8 => find("Asset", json!([["id", "in", [id, id + 1]]]), &["code", "shots", "sg_status_list", "tasks"]),
        9 => find("Sequence", json!([]), &["code", "shots"]),
        10 => find("Version", json!([]), &["code", "sg_task", "entity"]),
        11 => find("Version", json!([["sg_task.Task.sg_status_list", "is_not", "fin"]]), &["sg_task.Task.content"]),
        12 => find("Task", json!([["content", "contains", "n"]]), &["content", "start_date", "due_date"]),
        _ => find("Version", json!([["entity", "is", to("Shot", id)]]), &["entity", "sg_task"]),
    }
}

/// Whatever is written, a read that begins after the acknowledgement is answered with
/// what the site has committed.
async fn read_what_is_written(seed: u64) -> usize {
    let rig = rig().await;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut hits = 0;
    for step in 0..60 {
        // Answers of the site take their time, so that reads meet writes that are pending.
        let delay = if rng.random_bool(0.5) { Latency::Fixed(Duration::from_millis(20)) } else { Latency::NONE };
        rig.site().troubles.delay(delay);
        let (method, argument) = write(&mut rng);
        rig.call(method, argument.clone()).await;
        for _ in 0..rng.random_range(1..4) {
            let asked = read(&mut rng);
            let (headers, answer) = rig.call("read", asked.clone()).await;
            rig.site().troubles.delay(Latency::NONE);
            let committed = rig.direct("read", asked.clone()).await;
            assert_eq!(answer, committed, "seed {seed} step {step}: {method} {argument}, then {asked}: {headers:?}");
            hits += usize::from(said(&headers) == "hit");
            rig.site().troubles.delay(delay);
        }
    }
    rig.site().troubles.delay(Latency::NONE);
    rig.shutdown().await;
    hits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_shows_every_write_that_was_acknowledged_before_it() {
    let mut hits = 0;
    for seed in 1..=6 {
        hits += read_what_is_written(seed).await;
    }
    assert!(hits > 200, "the cache answered {hits} of about 700 reads");
}

/// While the site does not answer the read that would end a pending write, only reads
/// that may depend on it go to the site.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_write_can_change_waits_for_it() {
    let mut rig = rig().await;
    rig.stop_following().await;
    let never = Trouble::Slow(Latency::Fixed(Duration::from_secs(600)));
    rig.site().troubles.next_of("read Shot", 1, never);
    let (method, argument) = update("Shot", 1, "sg_status_list", json!("fin"));
    rig.call(method, argument).await;
    // The read that ends the pending write has begun; later ones are answered.
    until(async || rig.site().troubles.waiting() == 0).await;
    let cases = [
        ("Shot", json!([["id", "is", 1]]), &["sg_status_list"][..], "pending_write"),
        ("Shot", json!([]), &["sg_status_list"], "pending_write"),
        ("Shot", json!([["sg_status_list", "is", "fin"]]), &["code"], "pending_write"),
        ("Task", json!([]), &["entity.Shot.sg_status_list"], "pending_write"),
        ("Shot", json!([["id", "is", 2]]), &["sg_status_list"], "hit"),
        ("Shot", json!([["id", "is", 1]]), &["code", "sg_sequence"], "hit"),
        ("Shot", json!([["code", "is", "s2"]]), &["sg_status_list"], "hit"),
        ("Task", json!([]), &["entity"], "hit"),
        ("Task", json!([["entity", "is", to("Shot", 2)]]), &["entity.Shot.sg_status_list"], "hit"),
        ("Asset", json!([]), &["code", "sg_status_list"], "hit"),
    ];
    for (ty, filters, fields, expected) in cases {
        let asked = find(ty, filters, fields);
        let (headers, answer) = rig.call("read", asked.clone()).await;
        assert_eq!(said(&headers), expected, "{asked}");
        assert_eq!(answer, rig.direct("read", asked).await);
    }
}

/// A clock of the site that runs hours ahead for one answer changes nothing: what was
/// before what is decided by numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_date_does_not_hide_a_write() {
    let rig = rig().await;
    rig.site().clock.run(7200);
    rig.direct("read", find("Shot", json!([]), &["code"])).await;
    rig.find("Icon", json!([]), &["id"]).await;
    rig.site().clock.run(0);
    for number in 0..5 {
        let (method, argument) = update("Shot", 1, "code", json!(format!("after{number}")));
        rig.call(method, argument).await;
        let (_, found) = rig.find("Shot", json!([["id", "is", 1]]), &["code"]).await;
        assert_eq!(found[0]["code"], format!("after{number}"));
    }
}

/// A request that never reached the site, or that it refused, changed nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_holds_nothing_back() {
    let mut rig = rig().await;
    rig.stop_following().await;
    let (method, argument) = update("Shot", 1, "sg_cut_in", json!("no number"));
    let (_, answer) = rig.call(method, argument).await;
    assert_eq!(answer["exception"], true, "{answer}");
    rig.site().troubles.next_of("update", 1, Trouble::Fault(104, "no".into()));
    let (method, argument) = update("Shot", 1, "sg_cut_in", json!(3));
    rig.call(method, argument).await;
    rig.site().troubles.next_of("read Shot", u32::MAX, Trouble::Status(500));
    assert_eq!(rig.find("Shot", json!([["id", "is", 1]]), &["sg_cut_in"]).await.0, "hit");
}

/// A row that another program has written since is not taken for one of a site that lags.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_past_the_proxy_makes_no_later_one_wait_for_the_event_log() {
    let mut rig = rig().await;
    let until_hit = async |rig: &Rig, id: i64| {
        let asked = find("Shot", json!([["id", "is", id]]), &["code"]);
        let mut code = Value::Null;
        until(async || {
            let (headers, answer) = rig.call("read", asked.clone()).await;
            code = answer["results"]["entities"][0]["code"].clone();
            said(&headers) == "hit"
        })
        .await;
        code
    };
    rig.site().troubles.next_of("read Shot", u32::MAX, Trouble::Status(503));
    let (method, argument) = update("Shot", 1, "code", json!("mine"));
    rig.call(method, argument).await;
    rig.site().update("Shot", 1, json!({"code": "another's"})).expect("an update");
    rig.site().troubles.clear();
    assert_eq!(until_hit(&rig, 1).await, "another's");
    rig.stop_following().await;
    let (method, argument) = update("Shot", 2, "code", json!("mine"));
    rig.call(method, argument).await;
    assert_eq!(until_hit(&rig, 2).await, "mine");
}
