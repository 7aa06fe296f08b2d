//! The simulated site over HTTP, as a plain client sees it.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings, Trouble};

async fn start() -> SimHandle {
    Sim::start(SimSettings::default()).await.expect("a free port")
}

async fn post(sim: &SimHandle, body: Value) -> reqwest::Result<reqwest::Response> {
    reqwest::Client::new().post(format!("{}/api3/json", sim.url())).body(body.to_string()).send().await
}

fn request(method: &str, argument: Value) -> Value {
    json!({"method_name": method, "params": [{"script_name": "sgcache", "script_key": "sgcache-sim"}, argument]})
}

fn read(entity_type: &str) -> Value {
    let paging = json!({"entities_per_page": 10, "current_page": 1});
    request("read", json!({"type": entity_type, "return_fields": ["code"], "paging": paging}))
}

#[tokio::test]
async fn info_needs_no_login_and_says_that_the_site_is_simulated() {
    let sim = start().await;
    let answer = post(&sim, json!({"method_name": "info", "params": []})).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json; charset=utf-8");
    assert!(answer.headers().contains_key("content-length"));
    let info: Value = answer.json().await.expect("JSON");
    assert_eq!(info["sgcache_sim"], true);
    assert_eq!(info["api_max_entities_per_page"], 500);
    sim.shutdown().await;
}

#[tokio::test]
async fn the_date_of_an_answer_is_that_of_the_site() {
    let sim = start().await;
    sim.site().clock.set(sgcache::entity::Timestamp::parse("2015-07-09T19:33:37Z").expect("a moment"));
    let answer = post(&sim, read("Shot")).await.expect("an answer");
    assert_eq!(answer.headers()["date"], "Thu, 09 Jul 2015 19:33:37 GMT");
    sim.shutdown().await;
}

#[tokio::test]
async fn what_is_written_is_read_and_every_request_is_counted() {
    let sim = start().await;
    let project = sim.site().create("Project", json!({"name": "Demo"})).expect("a project");
    let fields = json!([{"field_name": "code", "value": "東京_010"},
        {"field_name": "project", "value": {"type": "Project", "id": project}}]);
    let create = request("create", json!({"type": "Shot", "fields": fields, "return_fields": ["id"]}));
    let created: Value = post(&sim, create).await.expect("an answer").json().await.expect("JSON");
    let project = json!({"id": project, "name": "Demo", "type": "Project"});
    assert_eq!(created["results"], json!({"code": "東京_010", "project": project, "id": 1, "type": "Shot"}));
    let answer: Value = post(&sim, read("Shot")).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["results"]["entities"], json!([{"code": "東京_010", "id": 1, "type": "Shot"}]));
    let requests = &sim.site().requests;
    assert_eq!((requests.of("read"), requests.of("read Shot"), requests.of("create")), (1, 1, 1));
    sim.shutdown().await;
}

#[tokio::test]
async fn wrong_keys_are_a_fault_with_status_200() {
    let sim = start().await;
    let auth = json!({"script_name": "sgcache", "script_key": "guess"});
    let answer = post(&sim, json!({"method_name": "schema_read", "params": [auth]})).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let fault: Value = answer.json().await.expect("JSON");
    assert_eq!(fault["error_code"], 102);
    sim.shutdown().await;
}

#[tokio::test]
async fn trouble_comes_when_it_was_ordered_and_then_ends() {
    let sim = start().await;
    let troubles = &sim.site().troubles;
    troubles.next(1, Trouble::Status(503));
    assert_eq!(post(&sim, read("Shot")).await.expect("an answer").status(), 503);

    troubles.next(1, Trouble::Html);
    let answer = post(&sim, read("Shot")).await.expect("an answer");
    assert!(answer.text().await.expect("a body").starts_with("<html>"));

    troubles.next(1, Trouble::Truncated);
    let answer = post(&sim, read("Shot")).await.expect("an answer");
    assert!(answer.json::<Value>().await.is_err());

    troubles.next(1, Trouble::Dropped);
    let dropped = match post(&sim, read("Shot")).await {
        Ok(answer) => answer.bytes().await.is_err(),
        Err(_) => true,
    };
    assert!(dropped);

    troubles.next_of("read EventLogEntry", 1, Trouble::Fault(104, "no".into()));
    troubles.next_of("read", 1, Trouble::Slow(Duration::from_millis(1).into()));
    assert_eq!(post(&sim, read("Shot")).await.expect("an answer").status(), 200);
    let fault: Value = post(&sim, read("EventLogEntry")).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(fault["message"], "no");

    let answer: Value = post(&sim, read("Shot")).await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["results"]["entities"], json!([]));
    sim.shutdown().await;
}

#[tokio::test]
async fn other_addresses_are_not_found() {
    let sim = start().await;
    let answer = reqwest::get(format!("{}/page/1", sim.url())).await.expect("an answer");
    assert_eq!(answer.status(), 404);
    sim.shutdown().await;
}
