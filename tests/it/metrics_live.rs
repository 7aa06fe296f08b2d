//! The dashboards over a real Prometheus that scrapes a daemon at work.
//!
//! The work is made up here, through the same calls that the real loops use;
//! what is tested is the way from a call to a panel.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use sgcache::metrics::{Labels, Metrics, seconds};
use sgcache::report::{
    Action, CheckKind, Mismatch, MismatchClass, MismatchKind, RunReport, RunStart, Status, StepReport, StepResult,
    Trigger, TypeResult, prometheus::record,
};
use sgcache::server::{Bound, Control, Ops, StatusSnapshot};
use tokio_util::sync::CancellationToken;

use crate::grafana_dashboards::DASHBOARDS;
use crate::prometheus::{Prometheus, assert_all_have_data, run_dashboard};

/// What happens in a tenth of a second.
fn work(metrics: &Metrics, step: u64) {
    let now = Utc::now();
    let took = Duration::from_millis(30 + step % 7 * 100);
    for method in ["event_poll", "fetch", "find", "validate"] {
        metrics.source.answered(method, took, 2000);
    }
    metrics.source.retries.inc(&["fetch"]);
    metrics.source.throttle_wait.inc_by(0.01);
    metrics.source.event_id.set(1000.0 + step as f64);
    metrics.sync.visible_event_id.set(998.0 + step as f64);
    metrics.leader.active.set(1.0);
    metrics.sync.polled(now, 3);
    metrics.sync.lag.observe(1.3);
    metrics.sync.lag_current.set(0.4);
    metrics.sync.events_applied.inc(&["Shot", "change"]);
    metrics.sync.events_skipped.inc(&["not_cached_type"]);
    metrics.sync.rows.inc(&["Shot", "written"]);
    metrics.sync.marks.set(&["change"], 2.0);
    metrics.sync.fetch_duration.observe(0.4);
    for ty in ["Shot", "Asset"] {
        metrics.sync.fresh_as_of.set_moment(&[ty], now);
        metrics.store.entities.set(&[ty], 18000.0);
        metrics.imports.entities.add(&[ty], 50);
    }
    metrics.store.up.set(1.0);
    metrics.store.size.set(4e7);
    for operation in ["get", "search", "count", "bulk", "refresh", "scan", "other"] {
        metrics.store.worked(operation, Duration::from_millis(1));
    }
    metrics.scheduler.last_tick.set(seconds(now));
}

/// A run of a pipeline that found one stale shot.
fn run(metrics: &Metrics) -> RunReport {
    let now = Utc::now();
    let task = ["nightly", "data"];
    metrics.tasks.next_run.set_moment(&task, now + TimeDelta::hours(1));
    metrics.tasks.expected_interval.set(&task, 3600.0);
    let mut result = StepResult { kind: Some(CheckKind::Sample), ..StepResult::default() };
    for ty in ["Shot", "Asset"] {
        let mut counts = TypeResult {
            checked: 500,
            differs: u64::from(ty == "Shot"),
            site_count: Some(18000),
            cache_count: Some(18000),
            stale_ratio_upper95: Some(0.006),
            ..TypeResult::default()
        };
        counts.sum_up();
        result.by_type.insert(ty.into(), counts);
    }
    result.sum_up();
    result.mismatches = vec![Mismatch {
        entity_type: "Shot".into(),
        id: 7,
        field: Some("code".into()),
        kind: MismatchKind::Differs,
        class: Some(MismatchClass::LostEvent),
        cached: "a".into(),
        shotgun: "b".into(),
        updated_at: None,
        updated_by: None,
        cache_rv: None,
        action: Action::Reported,
    }];
    let mut report = RunReport::begin(RunStart {
        run_id: "R".into(),
        pipeline: "nightly".into(),
        trigger: Trigger::Cron,
        scheduled_for: Some(now),
        started_at: now,
        attempt: 1,
        params: Default::default(),
        instance: "host:1".into(),
        definition_hash: String::new(),
    });
    let step = StepReport {
        id: "data".into(),
        job: "validateData".into(),
        status: Status::Drift,
        attempts: 1,
        duration_seconds: 2.0,
        reason: None,
        error: None,
        result,
    };
    report.finish(now + TimeDelta::seconds(2), vec![step]);
    report
}

/// Panels over something that does not happen here.
const NOT_FED: &[&str] = &[
    "Age of gaps",
    "Answer time",
    "Answered within",
    "From the cache",
    "Median answer time",
    "Started late by",
    "Time since the last poll",
];

#[tokio::test]
async fn every_panel_has_data() {
    let labels = Labels::new(["Shot", "Asset"]).with_task("nightly", "data");
    let metrics = Metrics::new(&labels);
    let bound = Bound::open("listen.ops", "127.0.0.1:0").await.unwrap();
    let address = bound.address();
    let Some(prometheus) = Prometheus::scraping(&[address.to_string()]).await else { return };

    let status = || async { StatusSnapshot::empty(Utc::now()) };
    let ops = Ops::new(metrics.clone(), Control::new(address), status);
    let stop = CancellationToken::new();
    let (router, until, counted) = (ops.router(), stop.clone(), metrics.clone());
    let served = tokio::spawn(async move { bound.serve(router, &counted, until).await });
    let worker = {
        let (metrics, stop) = (metrics.clone(), stop.clone());
        tokio::spawn(async move {
            for step in 0.. {
                work(&metrics, step);
                let pause = tokio::time::sleep(Duration::from_millis(100));
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        })
    };
    prometheus.wait_for_scrapes(3).await;
    record(&metrics, &run(&metrics));
    prometheus.wait_for_scrapes(7).await;

    for name in DASHBOARDS {
        assert_all_have_data(&run_dashboard(&prometheus, name).await, NOT_FED);
    }
    // The stale shot is 0.2 % of the sample: the one thing that is wrong here.
    assert_eq!(prometheus.alerts().await, ["SgcacheDrift"]);

    stop.cancel();
    worker.await.unwrap();
    served.await.unwrap();
}
