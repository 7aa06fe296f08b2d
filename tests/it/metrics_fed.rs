//! No metric is declared and then forgotten: somebody feeds each, and a real run of
//! sync and validation moves those that are about them.

use std::path::Path;

use serde_json::json;
use sgcache::sync::Steps;
use sgcache::validate::Validator;

use crate::prometheus::repository;
use crate::sync_cache::{Cache, create, empty_site, to};

/// Declared for the shadow mode of the proxy, which compares nothing yet.
const NOT_YET: [&str; 1] = ["sgcache_proxy_shadow_comparisons_total"];

/// What feeds a metric.
const CALLS: [&str; 9] =
    ["set(", "inc(", "inc_by(", "add(", "observe(", "set_info(", "set_moment(", "local(", "with_label"];

/// The sources without the table itself and without tests.
fn sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, text);
        } else if name.ends_with(".rs") && name != "table.rs" && !name.contains("tests") {
            let whole = std::fs::read_to_string(&path).expect("a source");
            text.push_str(whole.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}

/// Names of the fields in the table, with their metrics.
fn declared() -> Vec<(String, String)> {
    let table = std::fs::read_to_string(repository("src/metrics/table.rs")).expect("the table");
    let mut found = Vec::new();
    let mut field = None;
    for line in table.lines().map(str::trim) {
        if let Some((name, rest)) = line.split_once(':')
            && rest.contains(" = ")
            && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
        {
            field = Some(name.to_owned());
        }
        if let (Some(name), Some((_, rest))) = (&field, line.split_once("\"sgcache_")) {
            let metric = rest.split('"').next().unwrap_or_default();
            found.push((name.clone(), format!("sgcache_{metric}")));
            field = None;
        }
    }
    found
}

#[test]
fn every_declared_metric_has_somebody_who_feeds_it() {
    let mut text = String::new();
    sources(&repository("src"), &mut text);
    let text: String = text.split_whitespace().collect();
    let declared = declared();
    assert!(declared.len() > 70, "only {} metrics were found in the table", declared.len());
    let fed = |field: &str| CALLS.iter().any(|call| text.contains(&format!(".{field}.{call}")));
    let hungry = declared.iter().filter(|(field, _)| !fed(field)).map(|(_, metric)| metric.as_str());
    let hungry: Vec<_> = hungry.filter(|metric| !NOT_YET.contains(metric)).collect();
    assert!(hungry.is_empty(), "declared and never fed: {hungry:?}");
}

#[tokio::test]
async fn a_run_without_errors_moves_every_metric_that_is_about_no_error() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    let mut held = cache.site().begin(cache.site().script());
    held.update("Shot", id, json!({"description": "late"})).expect("an update");
    create(cache.site(), "Task", json!({"content": "t", "entity": to("Shot", id)}));
    cache.quiesce().await;
    held.commit().expect("a commit");
    cache.quiesce().await;
    let layouts = cache.layouts().to_vec();
    let replica = cache.replica().clone();
    let mut cache = cache;
    cache.stop();
    let counted = Validator::new(replica.clone()).counts(&layouts, false).await.expect("a validation");
    drop(replica);
    assert_eq!(counted.drift, 0);
    cache.start(Steps::default()).await.expect("a start");
    let moved = [
        "sgcache_source_requests_total",
        "sgcache_source_received_bytes_total",
        "sgcache_source_event_id",
        "sgcache_sync_polls_total",
        "sgcache_sync_events_received_total",
        "sgcache_sync_batch_events",
        "sgcache_sync_event_gaps_total",
        "sgcache_sync_event_gap_lifetime_seconds",
        "sgcache_sync_fetch_duration_seconds",
        "sgcache_sync_checkpoint_timestamp_seconds",
        "sgcache_sync_last_poll_success_timestamp_seconds",
        "sgcache_sync_last_event_created_timestamp_seconds",
        "sgcache_leader_epoch",
        "sgcache_leader_active",
    ];
    let text = cache.metrics().render();
    for name in moved {
        let series = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
        let values: Vec<f64> = series.filter_map(|(_, value)| value.parse().ok()).collect();
        assert!(values.iter().any(|value| *value > 0.0), "{name} never moved: {values:?}");
    }
    for name in ["sgcache_sync_audit_missed_events_total", "sgcache_sync_recheck_unresolved_total"] {
        assert_eq!(cache.metrics().value(name, &[]), Some(0.0), "{name}");
    }
}
