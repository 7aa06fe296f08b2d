//! Tests of the metrics, and the naming rules that promtool does not know.

use std::collections::BTreeSet;

use super::*;

fn labels() -> Labels {
    Labels::new(["Shot", "Asset"]).with_task("nightly-counts", "validateCounts")
}

/// Every series of the exposition, without its value.
fn series(metrics: &Metrics) -> BTreeSet<String> {
    let text = metrics.render();
    let lines = text.lines().filter(|line| line.starts_with("sgcache_"));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

/// Set at the start, when they are known, and bounded by the configuration.
const ON_DEMAND: [&str; 3] = ["sgcache_store_info", "sgcache_config_info", "sgcache_validation_rotation_cycle_seconds"];

#[test]
fn every_metric_is_there_at_the_first_scrape() {
    let text = Metrics::new(&labels()).render();
    for declared in Metrics::default().declared() {
        let present = text.contains(&format!("# HELP {} ", declared.name));
        assert_eq!(present, !ON_DEMAND.contains(&declared.name), "{}", declared.name);
    }
    assert!(text.contains(r#"sgcache_sync_rows_total{entity_type="Shot",outcome="stale"} 0"#));
    let failures = r#"sgcache_task_failures_total{pipeline="nightly-counts",task="validateCounts"} 0"#;
    assert!(text.contains(failures));
    assert!(text.contains("process_resident_memory_bytes"));
}

#[test]
fn no_moment_starts_in_1970() {
    let text = Metrics::new(&labels()).render();
    for line in text.lines().filter(|line| line.contains("_timestamp_seconds")) {
        if line.starts_with('#') {
            continue;
        }
        let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!(value.is_nan() || value > 1.7e9, "{line}");
    }
}

#[test]
fn an_unknown_label_value_becomes_other() {
    let metrics = Metrics::new(&labels());
    metrics.sync.rows.inc(&["CustomEntity47", "written"]);
    metrics.sync.rows.inc(&["Shot", "wriggled"]);
    metrics.tasks.runs.inc(&["nobody", "knows"]);
    let rows = "sgcache_sync_rows_total";
    assert_eq!(metrics.value(rows, &[("entity_type", OTHER), ("outcome", "written")]), Some(1.0));
    assert_eq!(metrics.value(rows, &[("entity_type", "Shot"), ("outcome", OTHER)]), Some(1.0));
    let runs = "sgcache_task_runs_total";
    assert_eq!(metrics.value(runs, &[("pipeline", OTHER), ("task", OTHER)]), Some(1.0));
    assert!(!metrics.render().contains("CustomEntity47"));
}

#[test]
fn series_follow_the_configuration_and_keep_their_values() {
    let metrics = Metrics::new(&labels());
    metrics.imports.entities.add(&["Shot"], 7);
    metrics.relabel(&Labels::new(["Shot", "Version"]));

    let name = "sgcache_import_entities_total";
    assert_eq!(metrics.value(name, &[("entity_type", "Shot")]), Some(7.0));
    assert_eq!(metrics.value(name, &[("entity_type", "Version")]), Some(0.0));
    assert_eq!(metrics.value(name, &[("entity_type", "Asset")]), None);
    assert!(!series(&metrics).iter().any(|one| one.contains("nightly-counts")));
}

#[test]
fn an_info_metric_has_one_series() {
    let metrics = Metrics::default();
    metrics.about.config_info.set_info(&["one"]);
    metrics.about.config_info.set_info(&["two"]);
    assert_eq!(metrics.value("sgcache_config_info", &[("config_hash", "one")]), None);
    assert_eq!(metrics.value("sgcache_config_info", &[("config_hash", "two")]), Some(1.0));
}

#[test]
fn recording_what_happened_moves_what_belongs_together() {
    let metrics = Metrics::new(&labels());
    let took = std::time::Duration::from_millis(330);
    metrics.source.answered("find", took, 1000);
    metrics.source.failed("event_poll", "timeout", took);
    let value = |name, labels: &[_]| metrics.value(name, labels).unwrap();
    assert_eq!(value("sgcache_source_requests_total", &[("method", "find")]), 1.0);
    assert_eq!(value("sgcache_source_received_bytes_total", &[]), 1000.0);
    assert_eq!(value("sgcache_source_up", &[]), 0.0);
    let timeouts = [("method", "event_poll"), ("reason", "timeout")];
    assert_eq!(value("sgcache_source_request_errors_total", &timeouts), 1.0);
}

/// The rules that `promtool check metrics` has, and those that it lacks.
#[test]
fn names_and_labels_follow_the_conventions() {
    let metrics = Metrics::default();
    let mut seen = BTreeSet::new();
    for Declared { name, kind, labels, help } in metrics.declared() {
        assert!(seen.insert(*name), "{name} twice");
        assert!(name.starts_with("sgcache_"), "{name}: prefix");
        let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
        assert!(name.chars().all(plain), "{name}: characters");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}: suffix _total");
        if *kind == Kind::Histogram {
            let unit = ["_seconds", "_bytes", "_events"].iter().any(|unit| name.ends_with(unit));
            assert!(unit, "{name}: a histogram ends in its unit");
        }
        for unit in ["_percent", "_ms", "_millis", "_minutes", "_hours", "_kb", "_mb"] {
            assert!(!name.contains(unit), "{name}: {unit} is no base unit");
        }
        for taken in ["_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(taken), "{name}: {taken} belongs to histograms");
        }
        assert!(help.ends_with('.') && help.len() > 15, "{name}: help {help:?}");
        for label in labels {
            let taken = ["job", "instance", "type", "env", "service", "region", "stage", "le"];
            assert!(!taken.contains(label), "{name}: label {label} is taken");
        }
    }
    assert!(seen.len() > 80, "only {} metrics", seen.len());
}

#[test]
fn log_lines_are_counted_by_level() {
    use tracing_subscriber::layer::SubscriberExt;

    let metrics = Metrics::default();
    let subscriber = tracing_subscriber::registry().with(CountLog::new(metrics.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::error!("broken");
        tracing::warn!("bent");
        tracing::warn!("bent again");
    });
    let count = |level| metrics.value("sgcache_log_messages_total", &[("level", level)]);
    assert_eq!((count("error"), count("warn"), count("info")), (Some(1.0), Some(2.0), Some(0.0)));
}
