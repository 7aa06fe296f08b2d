//! The dashboards over a real Prometheus that scraped a real run: site and daemon as two
//! processes with the shipped configuration, reads through the proxy, and the shipped
//! validations triggered by hand. Then some rows are damaged and the site goes silent, so
//! that nothing moves any more, and the panels are compared with what the API says.

use std::time::Instant;

use serde_json::{Value, json};

use crate::grafana_dashboards::DASHBOARDS;
use crate::program::{Place, get};
use crate::prometheus::{Prometheus, assert_all_have_data, dashboard, program, run_dashboard, substituted};
use crate::proxy_rig::{call_with_status, find};

/// Panels over something that does not happen in this run.
const NOT_HAPPENED: &[&str] = &["Started late by", "Age of gaps"];

#[tokio::test(flavor = "multi_thread")]
async fn every_query_returns_data_from_a_real_run_and_says_what_the_api_says() {
    if program("SGCACHE_TEST_PROMETHEUS", "live_dashboard").is_none() {
        return;
    }
    let place = Place::new();
    let sim = place.sim(3000, 5.0);
    let _daemon = place.daemon();
    let began = Instant::now();
    let prometheus = Prometheus::scraping(std::slice::from_ref(&place.ops)).await.expect("a Prometheus");
    prometheus.wait_for_scrapes(3).await;
    for _ in 0..5 {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let shots = find("Shot", json!([]), &["code"]);
        let (status, ..) = call_with_status(&format!("http://{}", place.api), auth, "read", shots).await;
        assert_eq!(status, 200);
    }
    for pipeline in ["nightly-counts", "sampled-data"] {
        let report = place.run(&["pipelines", "trigger", pipeline, "-o", "json"]).expect_code(0).json();
        assert_eq!(report["status"], json!("ok"), "{report}");
    }
    let scrapes = u32::try_from(began.elapsed().as_secs()).expect("a short run") + 4;
    prometheus.wait_for_scrapes(scrapes).await;
    for name in DASHBOARDS {
        assert_all_have_data(&run_dashboard(&prometheus, name).await, NOT_HAPPENED);
    }
    let (_, metrics) = get(&format!("http://{}/metrics", place.ops)).expect("metrics");
    // What a scrape shows at zero from the start has moved, where something happened.
    for name in ["sgcache_store_up ", "sgcache_store_size_bytes ", "sgcache_source_up ", "sgcache_sync_polls_total "] {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        assert!(!line.ends_with(" 0"), "{line}");
    }
    for name in [
        "sgcache_store_entities{",
        "sgcache_sync_events_applied_total{",
        "sgcache_sync_rows_total{",
        "sgcache_import_entities_total{",
        "sgcache_validation_entities_checked_total{",
        "sgcache_task_runs_total{",
        "sgcache_store_operations_total{",
        "sgcache_source_requests_total{",
    ] {
        let moved = metrics.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
        assert!(moved, "{name} stayed at zero");
    }
    place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    place.run(&["job", "validateData", "--limit", "5000"]).expect_code(10);
    place.until("/api/v1/status", |_, body| body.contains("\"code\":\"drift_open\""));
    sim.signal("STOP");
    place.until("/api/v1/status", |_, body| body.contains("\"code\":\"site_away\""));
    agree(&prometheus, &place).await;
}

type Read = fn(&Value) -> f64;

/// What a panel shows, by dashboard and title with legend, and where the status document says it.
const SAID_TWICE: [(&str, &str, Read); 10] = [
    ("overview", "Site", |_| 0.0),
    ("overview", "Store", |_| 1.0),
    ("overview", "Drifted types", |status| {
        types(status).iter().filter(|ty| ty["drift_ratio"].as_f64() > Some(0.0)).count() as f64
    }),
    ("overview", "Dead letters", |status| {
        status["sync"]["dead_letters"].as_object().expect("kinds").values().map(number).sum()
    }),
    ("overview", "Files", |_| 1.0),
    ("sync", "Position: seen", |status| number(&status["sync"]["event_id"])),
    ("sync", "Position: visible", |status| number(&status["sync"]["visible_event_id"])),
    ("sync", "Dirty keys and gaps: gaps", |status| number(&status["sync"]["gaps_open"])),
    ("store", "Rows", |status| types(status).iter().map(|ty| number(&ty["rows"])).sum()),
    ("store", "Size", |status| number(&status["store"]["size_bytes"])),
];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn types(status: &Value) -> &Vec<Value> {
    status["types"].as_array().expect("types")
}

/// Compares panels with the status document of a daemon whose site is away. What is left to
/// do may still move, so that the document is read again each time.
async fn agree(prometheus: &Prometheus, place: &Place) {
    let status =
        || -> Value { serde_json::from_str(&place.until("/api/v1/status", |code, _| code == 200)).expect("JSON") };
    let before = status();
    assert!(
        types(&before).iter().any(|ty| number(&ty["rows"]) > 0.0 && ty["drift_ratio"].as_f64() > Some(0.0)),
        "{before}"
    );
    for (name, panel, value) in SAID_TWICE {
        let (title, legend) = panel.split_once(": ").unwrap_or((panel, ""));
        let dashboard = dashboard(name);
        let panels = dashboard["panels"].as_array().expect("panels");
        let found = panels.iter().find(|panel| panel["title"] == title).expect("the panel");
        let targets = found["targets"].as_array().expect("queries");
        let target = targets.iter().find(|one| legend.is_empty() || one["legendFormat"] == legend).expect("the query");
        let expr = substituted(target["expr"].as_str().expect("a query"));
        prometheus.wait_for_value(&format!("{name}, {panel}"), &expr, || value(&status())).await;
    }
}
