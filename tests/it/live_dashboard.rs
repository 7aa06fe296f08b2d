//! The overview dashboard over a real Prometheus that scraped a real run: site
//! and daemon as two processes with the shipped configuration, and the shipped
//! validations triggered by hand.

use std::time::Instant;

use serde_json::json;

use crate::program::{Place, get};
use crate::prometheus::{Prometheus, assert_all_have_data, program, run_dashboard};

#[tokio::test]
async fn every_query_of_the_overview_returns_data_from_a_real_run() {
    if program("SGCACHE_TEST_PROMETHEUS", "live_dashboard").is_none() {
        return;
    }
    let place = Place::new();
    let _sim = place.sim(3000, 5.0);
    let _daemon = place.daemon();
    let began = Instant::now();
    let prometheus = Prometheus::scraping(std::slice::from_ref(&place.ops)).await.expect("a Prometheus");
    prometheus.wait_for_scrapes(3).await;
    for pipeline in ["nightly-counts", "sampled-data"] {
        let report = place.run(&["pipelines", "trigger", pipeline, "-o", "json"]).expect_code(0).json();
        assert_eq!(report["status"], json!("ok"), "{report}");
    }
    let scrapes = u32::try_from(began.elapsed().as_secs()).expect("a short run") + 4;
    prometheus.wait_for_scrapes(scrapes).await;
    let answers = run_dashboard(&prometheus, "overview").await;
    assert_all_have_data(&answers, &[]);
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
}
