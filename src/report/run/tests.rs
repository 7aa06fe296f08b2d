//! Tests of the run record.

use chrono::{TimeZone, Utc};
use serde_json::{Value, json};

use super::super::result::*;
use super::*;

fn begun() -> RunReport {
    RunReport::begin(RunStart {
        run_id: "01J0000000000000000000000".into(),
        pipeline: "nightly-counts".into(),
        trigger: Trigger::Cron,
        scheduled_for: None,
        started_at: Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap(),
        attempt: 1,
        params: BTreeMap::new(),
        instance: "host:1".into(),
        definition_hash: "h".into(),
    })
}

fn step(status: Status) -> StepReport {
    StepReport {
        id: "counts".into(),
        job: "validateCounts".into(),
        status,
        attempts: 1,
        duration_seconds: 1.5,
        reason: None,
        error: None,
        result: StepResult { requests: 3, ..StepResult::default() },
    }
}

#[test]
fn a_run_that_never_ended_reads_interrupted() {
    let run = begun();
    assert!(run.is_running());
    assert_eq!(run.status, Status::Interrupted);
    assert_eq!(run.duration_seconds(), 0.0);
}

#[test]
fn a_run_is_as_bad_as_its_worst_step() {
    let end = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 8).unwrap();
    let mut run = begun();
    run.finish(end, vec![step(Status::Ok), step(Status::Drift), step(Status::Skipped)]);
    assert_eq!((run.status, run.requests), (Status::Drift, 9));
    assert_eq!(run.duration_seconds(), 8.0);

    run.finish(end, vec![]);
    assert_eq!(run.status, Status::Skipped);
}

#[test]
fn every_status_is_read_back_from_its_word() {
    for status in Status::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), Value::from(status.as_str()));
    }
    assert!(Status::ALL.is_sorted());
    assert_eq!("fine".parse::<Status>(), Err(UnknownStatus("fine".into())));
}

#[test]
fn totals_are_the_sums_over_the_types() {
    let mut shot = TypeResult { checked: 900, missing: 1, differs: 2, ..TypeResult::default() };
    shot.sum_up();
    let mut asset = TypeResult { checked: 100, extra: 1, touched: 4, ..TypeResult::default() };
    asset.sum_up();
    assert_eq!((shot.drift, shot.verdict), (3, Verdict::Drift));

    let mut result = StepResult::default();
    result.by_type.insert("Shot".into(), shot);
    result.by_type.insert("Asset".into(), asset);
    result.sum_up();
    assert_eq!((result.checked, result.drift, result.touched), (1000, 4, 4));
    assert_eq!(result.drift_ratio, 0.004);
}

#[test]
fn an_inconclusive_verdict_stays_inconclusive() {
    let mut ty = TypeResult { verdict: Verdict::Inconclusive, ..TypeResult::default() };
    ty.sum_up();
    assert_eq!(ty.verdict, Verdict::Inconclusive);
}

#[test]
fn differences_above_the_limit_are_noted_and_not_kept() {
    let mut result = StepResult::default();
    result.push_mismatch(mismatch(1), 1);
    assert!(!result.truncated);
    result.push_mismatch(mismatch(2), 1);
    assert_eq!((result.mismatches.len(), result.truncated), (1, true));
}

fn mismatch(id: i64) -> Mismatch {
    Mismatch {
        entity_type: "Shot".into(),
        id,
        field: Some("sg_status_list".into()),
        kind: MismatchKind::Differs,
        class: Some(MismatchClass::LostEvent),
        cached: json!("ip"),
        shotgun: json!("fin"),
        updated_at: None,
        updated_by: None,
        cache_rv: Some(7),
        action: Action::Reported,
    }
}

/// Other programs rely on these names.
#[test]
fn the_json_form_is_the_published_one() {
    let mut run = begun();
    let mut found = step(Status::Drift);
    found.result.push_mismatch(mismatch(1234), MISMATCH_LIMIT);
    run.finish(Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 8).unwrap(), vec![found]);

    let document = serde_json::to_value(&run).unwrap();
    assert_eq!(document["schema"], "sgcache.run/1");
    assert_eq!(document["trigger"], "cron");
    assert_eq!(document["started_at"], "2026-11-23T02:00:00Z");
    let result = &document["steps"][0]["result"];
    for name in [
        "checked",
        "missing",
        "extra",
        "differs",
        "drift",
        "drift_ratio",
        "repaired",
        "unresolved",
        "touched",
        "unverifiable",
        "requests",
        "duration_seconds",
        "stale_ratio_upper95",
        "by_type",
        "truncated",
    ] {
        assert!(result.get(name).is_some(), "{name} is missing from {result}");
    }
    assert_eq!(
        result["mismatches"][0],
        json!({"type": "Shot", "id": 1234, "field": "sg_status_list", "kind": "differs",
               "class": "lost_event", "cached": "ip", "shotgun": "fin", "updated_at": null,
               "updated_by": null, "cache_rv": 7, "action": "reported"})
    );
    assert_eq!(serde_json::from_value::<RunReport>(document).unwrap(), run);
}
