//! How many series a large studio has: 200 entity types and 100 pipelines.
//!
//! The bound of a metric follows from its labels: every fixed label has at most
//! [`MAX_FIXED`] values.

use std::collections::BTreeMap;

use sgcache::metrics::{Declared, Kind, Labels, Metrics};

const TYPES: usize = 200;
const PIPELINES: usize = 100;
/// Values of one fixed label: `method`, `reason` and the like.
const MAX_FIXED: usize = 32;
/// Series of the whole process; a Prometheus takes a hundred times as many without effort.
const MAX_SERIES: usize = 40_000;

/// The label sets of each metric, buckets taken as one.
fn label_sets(metrics: &Metrics) -> BTreeMap<&'static str, usize> {
    let text = metrics.render();
    let count = |declared: &Declared| {
        let ending = if declared.kind == Kind::Histogram { "_count" } else { "" };
        let name = format!("{}{ending}", declared.name);
        let is_of = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        (declared.name, text.lines().filter(is_of).count())
    };
    metrics.declared().iter().map(count).collect()
}

#[test]
fn the_series_of_a_large_studio_are_bounded() {
    let labels = Labels::new((0..TYPES).map(|index| format!("CustomEntity{index:03}")));
    let labels = (0..PIPELINES).fold(labels, |labels, index| labels.with_task(format!("pipeline-{index:03}"), "only"));
    let metrics = Metrics::new(&labels);
    let before = label_sets(&metrics);
    for declared in metrics.declared() {
        let factor = |label: &&str| match *label {
            "entity_type" => TYPES,
            "pipeline" => PIPELINES,
            // With its pipeline.
            "task" => 1,
            _ => MAX_FIXED,
        };
        let bound: usize = declared.labels.iter().map(factor).product();
        let found = before[declared.name];
        assert!(found <= bound, "{}: {found} label sets, more than {bound}", declared.name);
    }
    let series = metrics.render().lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= MAX_SERIES, "{series} series");

    // What is not configured is one more value, however many names it has.
    for index in 0..500 {
        metrics.sync.events_applied.inc(&[&format!("Unknown{index}"), "change"]);
        metrics.tasks.runs.inc(&[&format!("unknown-{index}"), "only"]);
    }
    let after = label_sets(&metrics);
    let grown: BTreeMap<_, _> = after.iter().filter(|(name, count)| before[*name] != **count).collect();
    let by_one = [("sgcache_sync_events_applied_total", 1), ("sgcache_task_runs_total", 1)];
    let expected = by_one.map(|(name, more)| (name, before[name] + more));
    assert_eq!(grown.into_iter().map(|(name, count)| (*name, *count)).collect::<Vec<_>>(), expected);
}
