//! Writes of which only the event log names every effect, an unknown method and a creation
//! with a template: what they hold back, and that the next complete poll ends it.

use serde_json::{Value, json};
use sgcache::proxy::Settings;
use sgcache::sim::Trouble;

use crate::proxy_rig::{Rig, find, said};
use crate::proxy_writes::{configs, filled, to};
use crate::waiting::until;

/// Starts a rig before a site with a template of two Tasks; returns the template.
async fn rig() -> (Rig, Value) {
    let site = filled();
    let template = to("TaskTemplate", site.create("TaskTemplate", json!({"code": "lookdev"})).expect("a template"));
    for content in ["model", "light"] {
        site.create("Task", json!({"content": content, "task_template": template})).expect("a Task of a template");
    }
    (Rig::start(site, configs(), Settings::default()).await, template)
}

/// Calls a method that the cache does not know: it renames a Shot, moves a Task and
/// retires an Asset before it answers.
async fn call_unknown_method(rig: &Rig) {
    let answer = Trouble::Answer { status: 200, body: r#"{"results":true}"#.into() };
    rig.site().troubles.next_of("conform_project", 1, answer);
    rig.site().update("Shot", 1, json!({"code": "conformed"})).expect("an update");
    rig.site().update("Task", 1, json!({"entity": to("Shot", 2)})).expect("an update");
    assert!(rig.site().retire("Asset", 3).expect("an Asset"));
    rig.call("conform_project", json!({"project": 1})).await;
}

/// Creates a Shot with a template; returns its id.
async fn create_with_template(rig: &Rig, template: &Value) -> i64 {
    let fields = json!([{"field_name": "code", "value": "with tasks"}, {"field_name": "project", "value": to("Project", 1)},
        {"field_name": "task_template", "value": template}]);
    let (_, answer) = rig.call("create", json!({"type": "Shot", "fields": fields, "return_fields": []})).await;
    answer["results"]["id"].as_i64().expect("an id")
}

fn tasks_of(shot: i64) -> Value {
    find("Task", json!([["entity", "is", to("Shot", shot)]]), &["content", "entity"])
}

fn every_type() -> [Value; 5] {
    [
        find("Shot", json!([]), &["code", "tasks", "assets"]),
        find("Task", json!([]), &["content", "entity"]),
        find("Asset", json!([]), &["code", "shots"]),
        find("Sequence", json!([]), &["code", "shots"]),
        find("Version", json!([]), &["code", "entity", "sg_task"]),
    ]
}

/// Reads through the proxy; the answer must be what the site has committed.
async fn how_answered(rig: &Rig, asked: &Value) -> String {
    let (headers, answer) = rig.call("read", asked.clone()).await;
    assert_eq!(answer, rig.direct("read", asked.clone()).await, "{asked}");
    said(&headers)
}

async fn until_hit(rig: &Rig, asked: &Value) {
    until(async || how_answered(rig, asked).await == "hit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_holds_everything_back_until_the_log_was_read() {
    let (mut rig, _) = rig().await;
    call_unknown_method(&rig).await;
    for asked in every_type() {
        until_hit(&rig, &asked).await;
    }
    rig.stop_following().await;
    rig.site().revive("Asset", 3).expect("an Asset");
    call_unknown_method(&rig).await;
    for asked in every_type() {
        assert_eq!(how_answered(&rig, &asked).await, "pending_write", "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tasks_of_a_template_are_in_every_answer() {
    let (rig, template) = rig().await;
    let shot = create_with_template(&rig, &template).await;
    until_hit(&rig, &tasks_of(shot)).await;
    let (_, found) = rig.find("Task", json!([["entity", "is", to("Shot", shot)]]), &["content"]).await;
    assert_eq!(found.len(), 2, "the site made the Tasks of the template");
    for asked in every_type() {
        until_hit(&rig, &asked).await;
    }
}

/// The event log is not read: only what the new Tasks can change waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_template_holds_back_only_what_its_tasks_can_change() {
    let (mut rig, template) = rig().await;
    rig.stop_following().await;
    let shot = create_with_template(&rig, &template).await;
    let cases = [
        (tasks_of(shot), "pending_write"),
        (find("Task", json!([]), &["content"]), "pending_write"),
        (find("Shot", json!([["id", "is", shot]]), &["tasks"]), "pending_write"),
        (tasks_of(2), "hit"),
        (find("Task", json!([["id", "is", 1]]), &["content", "entity"]), "hit"),
        (find("Shot", json!([["id", "is", 1]]), &["code", "tasks"]), "hit"),
        (find("Version", json!([]), &["code", "entity", "sg_task"]), "hit"),
        (find("Asset", json!([]), &["code", "shots"]), "hit"),
    ];
    for (asked, expected) in cases {
        assert_eq!(how_answered(&rig, &asked).await, expected, "{asked}");
    }
}
