//! Revivals through the proxy: what shows the revived entity again is named by the site
//! before the caller learns that it worked, and nothing else waits.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::proxy::Settings;
use sgcache::sim::Trouble;

use crate::proxy_rig::{Rig, find, said};
use crate::proxy_writes::{configs, filled, to};
use crate::waiting::until;

fn of_shot(ty: &str, shot: i64, fields: &[&str]) -> Value {
    find(ty, json!([["entity", "is", to("Shot", shot)]]), fields)
}

/// Retires an entity and has a Version read that loses its link to it.
async fn retire(rig: &Rig, key: Value, version: i64) {
    rig.call("delete", key).await;
    let fields = json!([{"field_name": "code", "value": "read again"}]);
    rig.call("update", json!({"type": "Version", "id": version, "fields": fields})).await;
    let asked = find("Version", json!([["id", "is", version]]), &["code", "sg_task"]);
    until(async || {
        let (headers, answer) = rig.call("read", asked.clone()).await;
        assert_eq!(answer["results"]["entities"][0]["sg_task"], Value::Null, "{answer}");
        said(&headers) == "hit"
    })
    .await;
}

/// The event log is not read: only the acknowledgement can have named the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_revival_holds_back_only_what_shows_it_again() {
    let mut rig = Rig::start(filled(), configs(), Settings::default()).await;
    let versions = |shot| of_shot("Version", shot, &["code", "sg_task"]);
    let tasks = |shot| of_shot("Task", shot, &["content", "sg_status_list"]);
    rig.stop_following().await;
    retire(&rig, to("Task", 1), 1).await;
    rig.call("revive", to("Task", 1)).await;
    let shots = find("Shot", json!([]), &["code", "sg_status_list"]);
    for asked in [tasks(1), tasks(2), versions(2), shots] {
        let (headers, answer) = rig.call("read", asked.clone()).await;
        assert_eq!(said(&headers), "hit", "{asked}");
        assert_eq!(answer, rig.direct("read", asked).await);
    }
    let (_, answer) = rig.call("read", versions(1)).await;
    assert_eq!(answer["results"]["entities"][0]["sg_task"]["id"], 1, "{answer}");
}

/// What is retired and revived along with a Shot is named level by level.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_revived_along_is_named_as_well() {
    let mut rig = Rig::start(filled(), configs(), Settings::default()).await;
    let versions = find("Version", json!([]), &["code", "sg_task", "entity"]);
    // Another Shot's Version shows a Task that goes along with this one.
    let relink = json!({"type": "Version", "id": 2, "fields": [{"field_name": "sg_task", "value": to("Task", 1)}]});
    rig.call("update", relink).await;
    let relinked = find("Version", json!([["id", "is", 2]]), &["sg_task"]);
    until(async || said(&rig.call("read", relinked.clone()).await.0) == "hit").await;
    rig.stop_following().await;
    retire(&rig, to("Shot", 1), 2).await;
    rig.call("revive", to("Shot", 1)).await;
    for asked in [versions, find("Task", json!([]), &["content", "entity"]), find("Sequence", json!([]), &["shots"])] {
        let (_, answer) = rig.call("read", asked.clone()).await;
        assert_eq!(answer, rig.direct("read", asked.clone()).await, "{asked}");
    }
    let (headers, _) = rig.call("read", of_shot("Task", 2, &["content"])).await;
    assert_eq!(said(&headers), "hit");
}

/// Where the site does not say which rows show it, whole types wait for the event log.
#[tokio::test(flavor = "multi_thread")]
async fn a_revival_that_cannot_be_looked_into_holds_back_its_types() {
    let settings = Settings { upstream_retry_timeout: Duration::from_secs(1), ..Settings::default() };
    let mut rig = Rig::start(filled(), configs(), settings).await;
    let versions = of_shot("Version", 1, &["code", "sg_task"]);
    rig.stop_following().await;
    retire(&rig, to("Task", 1), 1).await;
    rig.site().troubles.next_of("read Version", u32::MAX, Trouble::Status(500));
    rig.call("revive", to("Task", 1)).await;
    rig.site().troubles.clear();
    let (headers, answer) = rig.call("read", versions.clone()).await;
    assert_eq!(said(&headers), "pending_write");
    assert_eq!(answer, rig.direct("read", versions).await);
}
