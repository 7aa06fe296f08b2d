//! Turns finished runs into metrics.
//!
//! Counters grow with every run handed in. Gauges tell about the last one, and
//! are all that [`restore`] sets: after a restart they come from the run history.
//! The label `task` is the id of the step in its pipeline.

use std::collections::{BTreeMap, BTreeSet};

use super::result::{Action, CheckKind, Mismatch, MismatchClass, MismatchKind, StepResult, TypeResult, Verdict, ratio};
use super::run::{RunReport, StepReport};
use crate::metrics::{Metrics, seconds};

/// Adds a finished run to the metrics.
pub fn record(metrics: &Metrics, report: &RunReport) {
    if let Some(planned) = report.scheduled_for {
        let delay = (report.started_at - planned).as_seconds_f64().max(0.0);
        metrics.tasks.schedule_delay.observe(&[&report.pipeline], delay);
    }
    for step in &report.steps {
        count_step(metrics, report, step);
    }
    restore(metrics, report);
}

/// Sets the gauges that tell about the last run from a run of the history.
///
/// Hand in the runs oldest first.
pub fn restore(metrics: &Metrics, report: &RunReport) {
    let Some(finished_at) = report.finished_at else { return };
    for step in report.steps.iter().filter(|step| step.ran()) {
        let task = [report.pipeline.as_str(), step.id.as_str()];
        metrics.tasks.last_completion.set_moment(&task, finished_at);
        metrics.tasks.last_duration.set(&task, step.duration_seconds);
        if step.status.worked() {
            metrics.tasks.last_success.set_moment(&task, finished_at);
        }
        if let Some(kind) = step.result.kind {
            for (ty, result) in &step.result.by_type {
                show_type(metrics, ty, kind, result, seconds(finished_at));
            }
        }
    }
}

fn count_step(metrics: &Metrics, report: &RunReport, step: &StepReport) {
    if !step.ran() {
        return;
    }
    let task = [report.pipeline.as_str(), step.id.as_str()];
    metrics.tasks.runs.inc(&task);
    if step.status.failed() {
        metrics.tasks.failures.inc(&task);
    }
    if step.result.drift > 0 {
        metrics.tasks.drifts.inc(&task);
    }
    if let Some(kind) = step.result.kind {
        count_types(metrics, kind, &step.result);
    }
    count_causes(metrics, &step.result);
}

fn count_types(metrics: &Metrics, kind: CheckKind, result: &StepResult) {
    let validation = &metrics.validation;
    let deleted = deletions(&result.mismatches, Action::Repaired);
    let stuck = deletions(&result.mismatches, Action::Unresolved);
    for (ty, counts) in &result.by_type {
        validation.checked.add(&[ty, kind.as_str()], counts.checked);
        validation.mismatches.add(&[ty, "missing"], counts.missing);
        validation.mismatches.add(&[ty, "extra"], counts.extra);
        validation.mismatches.add(&[ty, "differs"], counts.differs);
        validation.mismatches.add(&[ty, "name"], counts.names);
        validation.transient.add(&[ty], counts.transient);
        let gone = deleted.get(ty.as_str()).copied().unwrap_or(0).min(counts.repaired);
        validation.repairs.add(&[ty, "delete"], gone);
        validation.repairs.add(&[ty, "upsert"], counts.repaired - gone);
        let gone = stuck.get(ty.as_str()).copied().unwrap_or(0).min(counts.unresolved);
        validation.repair_failures.add(&[ty, "delete"], gone);
        validation.repair_failures.add(&[ty, "upsert"], counts.unresolved - gone);
    }
}

/// Counts entities, not fields: one entity with three stale fields is one mismatch.
fn count_causes(metrics: &Metrics, result: &StepResult) {
    let mut counted: BTreeSet<(&str, i64, &str)> = BTreeSet::new();
    for one in &result.mismatches {
        let class = one.class.map_or("other", MismatchClass::as_str);
        if counted.insert((&one.entity_type, one.id, class)) {
            metrics.validation.mismatch_classes.inc(&[&one.entity_type, class]);
        }
    }
}

/// Returns per type how many extra entities ended with `action`.
fn deletions(mismatches: &[Mismatch], action: Action) -> BTreeMap<&str, u64> {
    let mut per_type = BTreeMap::new();
    for one in mismatches {
        if one.kind == MismatchKind::Extra && one.action == action {
            *per_type.entry(one.entity_type.as_str()).or_default() += 1;
        }
    }
    per_type
}

/// Shows the last validation of a type. Drift that was repaired and verified does not stand
/// any more, so it is counted and not shown.
fn show_type(metrics: &Metrics, ty: &str, kind: CheckKind, result: &TypeResult, ended: f64) {
    if result.verdict == Verdict::Inconclusive {
        return;
    }
    let validation = &metrics.validation;
    let standing = result.drift.saturating_sub(result.repaired);
    validation.drift_ratio.set(&[ty], ratio(standing, result.checked));
    validation.last_success.set(&[ty, kind.as_str()], ended);
    if let Some(bound) = result.stale_ratio_upper95 {
        validation.stale_ratio_upper95.set(&[ty], bound);
    }
    if let (Some(site), Some(cache)) = (result.site_count, result.cache_count) {
        validation.count_difference.set(&[ty], cache as f64 - site as f64);
    }
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone, Utc};
    use serde_json::Value;

    use super::super::run::{RunStart, Status, StepError, Trigger};
    use super::*;
    use crate::metrics::Labels;

    fn metrics() -> Metrics {
        Metrics::new(&Labels::new(["Shot", "Asset"]).with_task("nightly", "data"))
    }

    fn run(status: Status, result: StepResult) -> RunReport {
        let started_at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 3).unwrap();
        let mut report = RunReport::begin(RunStart {
            run_id: "R".into(),
            pipeline: "nightly".into(),
            trigger: Trigger::Cron,
            scheduled_for: Some(started_at - TimeDelta::seconds(3)),
            started_at,
            attempt: 1,
            params: BTreeMap::new(),
            instance: "host:1".into(),
            definition_hash: String::new(),
        });
        let error = status.failed().then(|| StepError { class: "upstream".into(), message: "the site is away".into() });
        let step = StepReport {
            id: "data".into(),
            job: "validateData".into(),
            status,
            attempts: 1,
            duration_seconds: 8.5,
            reason: None,
            error,
            result,
        };
        report.finish(started_at + TimeDelta::seconds(9), vec![step]);
        report
    }

    fn drifted() -> StepResult {
        let mut shot = TypeResult {
            checked: 1000,
            missing: 1,
            extra: 1,
            differs: 2,
            repaired: 3,
            unresolved: 1,
            site_count: Some(1000),
            cache_count: Some(999),
            stale_ratio_upper95: Some(0.0063),
            ..TypeResult::default()
        };
        shot.sum_up();
        let one = |id, field: Option<&str>, kind, class, action| Mismatch {
            entity_type: "Shot".into(),
            id,
            field: field.map(str::to_owned),
            kind,
            class,
            cached: Value::Null,
            shotgun: Value::Null,
            updated_at: None,
            updated_by: None,
            cache_rv: None,
            action,
        };
        let lost = Some(MismatchClass::LostEvent);
        let mut result = StepResult {
            kind: Some(CheckKind::Sample),
            mismatches: vec![
                one(1, Some("code"), MismatchKind::Differs, lost, Action::Repaired),
                one(1, Some("sg_status_list"), MismatchKind::Differs, lost, Action::Repaired),
                one(2, None, MismatchKind::Extra, None, Action::Repaired),
            ],
            ..StepResult::default()
        };
        result.by_type.insert("Shot".into(), shot);
        result.sum_up();
        result
    }

    #[track_caller]
    fn check(metrics: &Metrics, series: &str, labels: &[(&str, &str)], expected: f64) {
        assert_eq!(metrics.value(series, labels), Some(expected), "{series} {labels:?}");
    }

    #[test]
    fn drift_and_failure_are_counted_apart() {
        let metrics = metrics();
        record(&metrics, &run(Status::Drift, drifted()));
        record(&metrics, &run(Status::Error, StepResult::default()));
        check(&metrics, "sgcache_task_runs_total", &[("task", "data")], 2.0);
        check(&metrics, "sgcache_task_drifts_total", &[("task", "data")], 1.0);
        check(&metrics, "sgcache_task_failures_total", &[("task", "data")], 1.0);
        check(&metrics, "sgcache_task_schedule_delay_seconds", &[], 2.0);
    }

    #[test]
    fn the_numbers_of_a_validation_arrive_per_type() {
        let metrics = metrics();
        record(&metrics, &run(Status::Drift, drifted()));
        let shot = ("entity_type", "Shot");
        let checked = "sgcache_validation_entities_checked_total";
        check(&metrics, checked, &[shot, ("kind", "sample")], 1000.0);
        let mismatches = "sgcache_validation_mismatches_total";
        check(&metrics, mismatches, &[shot, ("kind", "differs")], 2.0);
        check(&metrics, mismatches, &[shot, ("kind", "extra")], 1.0);
        let classes = "sgcache_validation_mismatch_classes_total";
        check(&metrics, classes, &[shot, ("class", "lost_event")], 1.0);
        check(&metrics, "sgcache_repair_entities_total", &[shot, ("action", "delete")], 1.0);
        check(&metrics, "sgcache_repair_entities_total", &[shot, ("action", "upsert")], 2.0);
        check(&metrics, "sgcache_repair_failures_total", &[shot, ("action", "upsert")], 1.0);
        check(&metrics, "sgcache_validation_drift_ratio", &[shot], 0.001);
        check(&metrics, "sgcache_validation_count_difference", &[shot], -1.0);
        check(&metrics, "sgcache_validation_stale_ratio_upper95", &[shot], 0.0063);
    }

    #[test]
    fn an_inconclusive_validation_leaves_the_last_word_to_the_one_before() {
        let metrics = metrics();
        record(&metrics, &run(Status::Drift, drifted()));
        let mut result = drifted();
        for ty in result.by_type.values_mut() {
            (ty.verdict, ty.drift) = (Verdict::Inconclusive, 500);
        }
        record(&metrics, &run(Status::Warn, result));
        check(&metrics, "sgcache_validation_drift_ratio", &[("entity_type", "Shot")], 0.001);
    }

    #[test]
    fn a_failed_run_does_not_move_the_last_success() {
        let metrics = metrics();
        let good = run(Status::Ok, StepResult::default());
        record(&metrics, &good);
        let mut bad = run(Status::Timeout, StepResult::default());
        bad.finished_at = bad.finished_at.map(|at| at + TimeDelta::hours(1));
        record(&metrics, &bad);
        let (success, end) = (good.finished_at.unwrap(), bad.finished_at.unwrap());
        let task = [("task", "data")];
        check(&metrics, "sgcache_task_last_success_timestamp_seconds", &task, seconds(success));
        check(&metrics, "sgcache_task_last_completion_timestamp_seconds", &task, seconds(end));
    }

    #[test]
    fn the_history_sets_the_gauges_and_counts_nothing() {
        let metrics = metrics();
        let report = run(Status::Drift, drifted());
        restore(&metrics, &report);
        check(&metrics, "sgcache_task_runs_total", &[("task", "data")], 0.0);
        check(&metrics, "sgcache_validation_drift_ratio", &[("entity_type", "Shot")], 0.001);
        let ended = seconds(report.finished_at.unwrap());
        let task = [("task", "data")];
        check(&metrics, "sgcache_task_last_success_timestamp_seconds", &task, ended);
    }
}
