//! The state of a daemon, as five places show it, while its site is away and while rows
//! are wrong: `/readyz`, `/api/v1/status`, `sgcache status`, `/metrics` and the header of
//! the read proxy.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings, Site, Trouble};

use crate::program::{Place, Running};
use crate::waiting::until;

async fn following() -> (Place, Arc<Site>, SimHandle, Running) {
    let place = Place::new();
    // A request that hangs is over soon enough for a test, and each answer is old at once
    // when the site is away.
    place.edit("config.yaml", "timeout: 60s", "timeout: 2s");
    let site = Site::generated(5, 600);
    let listen = place.site.parse().expect("an address");
    let settings = SimSettings { listen, ..SimSettings::default() };
    let sim = Sim::serve(Arc::clone(&site), &settings).await.expect("the port is free");
    let daemon = place.daemon();
    (place, site, sim, daemon)
}

/// Waits until the health of the daemon has this code, and returns its status.
fn until_health(place: &Place, code: &str) -> Value {
    let mut found = Value::Null;
    place.until("/api/v1/status", |_, body| {
        found = serde_json::from_str(body).unwrap_or_default();
        found["health"]["code"] == code
    });
    found
}

/// The first line of `sgcache status`; every line of it fits a terminal.
fn first_line(place: &Place) -> String {
    let said = place.run(&["status"]).expect_code(0).stdout;
    for line in said.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    said.lines().next().expect("a line").to_owned()
}

fn metric(place: &Place, name: &str) -> f64 {
    let text = place.until("/metrics", |status, _| status == 200);
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("the metric");
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// How the read proxy says that it answered.
async fn header(place: &Place) -> String {
    let body = json!({"method_name": "read", "params": [
        {"script_name": "sgcache", "script_key": "sgcache-sim"},
        {"type": "Shot", "return_fields": ["code"], "filters": {"logical_operator": "and", "conditions": []},
         "return_only": "active", "paging": {"entities_per_page": 5, "current_page": 1}}]});
    let client = reqwest::Client::new();
    let answer = client.post(format!("http://{}/api3/json", place.api)).json(&body).send().await.expect("an answer");
    let said = answer.headers().get("x-sgcache").and_then(|said| said.to_str().ok());
    said.unwrap_or_default().to_owned()
}

async fn until_header(place: &Place, start: &str) {
    let asked = async {
        until(async || header(place).await.starts_with(start)).await;
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("the header in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_tells_the_same_of_an_outage() {
    let (place, site, _sim, _daemon) = following().await;
    let status = until_health(&place, "ok");
    assert!(status["sync"]["lag_seconds"].is_number(), "{status}");
    assert!(first_line(&place).starts_with("Healthy. All "));
    until_header(&place, "hit").await;
    assert_eq!(metric(&place, "sgcache_source_up"), 1.0);

    for trouble in [Trouble::Status(503), Trouble::Slow(Duration::from_secs(3600).into())] {
        site.troubles.next(u32::MAX, trouble);
        let status = until_health(&place, "site_away");
        assert_eq!(status["health"]["level"], "warn");
        assert_eq!(status["health"]["site"]["level"], "bad");
        // Neither a lag nor a freshness is made up.
        assert!(status["sync"]["lag_seconds"].is_null(), "{}", status["sync"]);
        assert!(status["types"].as_array().expect("types").iter().all(|ty| ty["lag_seconds"].is_null()));
        let ready = place.until("/readyz", |status, body| status == 200 && body.contains("site_away"));
        let ready: Value = serde_json::from_str(&ready).expect("JSON");
        assert_eq!(ready["health"]["title"], status["health"]["title"]);
        assert_eq!(ready["warnings"][0]["code"], "site_away");
        let title = "! The site does not answer. Reads go on from the cache; writes fail.";
        assert_eq!(first_line(&place), title);
        assert_eq!(metric(&place, "sgcache_source_up"), 0.0);
        assert!(["hit", "stale"].iter().any(|word| futures::executor::block_on(header(&place)).starts_with(word)));
        site.troubles.clear();
        let status = until_health(&place, "ok");
        assert!(status["sync"]["lag_seconds"].is_number(), "{status}");
        assert_eq!(metric(&place, "sgcache_source_up"), 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_that_another_process_found_is_known_to_the_daemon() {
    let (place, _site, _sim, _daemon) = following().await;
    until_health(&place, "ok");
    place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    place.run(&["job", "validateData", "--limit", "5000"]).expect_code(10);
    let status = until_health(&place, "drift_open");
    let run = &status["runs"][0];
    assert_eq!((&run["pipeline"], &run["drift"]), (&json!("validateData"), &json!(3)), "{run}");
    let types = status["types"].as_array().expect("types");
    let drifted = types.iter().filter(|ty| ty["drift_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0));
    let drifted: Vec<&str> = drifted.filter_map(|ty| ty["type"].as_str()).collect();
    assert!(!drifted.is_empty());
    let metrics = place.until("/metrics", |status, _| status == 200);
    for ty in drifted {
        let series = format!("sgcache_validation_drift_ratio{{entity_type=\"{ty}\"}} ");
        let line = metrics.lines().find(|line| line.starts_with(&series)).expect("the series");
        assert_ne!(line.rsplit(' ').next(), Some("0"), "{line}");
    }
    assert!(first_line(&place).starts_with("! "));
    place.run(&["job", "validateData", "--limit", "5000", "--repair"]).expect_code(0);
    until_health(&place, "ok");
}
