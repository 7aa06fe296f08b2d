//! Reasons and warnings of snapshots that differ from a good one in one thing.

use chrono::{TimeDelta, TimeZone};

use super::*;

fn live() -> StatusSnapshot {
    let now = Utc.with_ymd_and_hms(2026, 11, 23, 10, 0, 0).unwrap();
    let mut status = StatusSnapshot::empty(now);
    status.store.up = true;
    status.sync.stall_after_seconds = 60;
    status.types = vec![TypeStatus { entity_type: "Shot".into(), state: TypeState::Live, ..TypeStatus::default() }];
    status.sync.last_poll_at = Some(now - TimeDelta::seconds(2));
    status
}

#[track_caller]
fn check(status: &StatusSnapshot, expected: &[(&str, &str)]) {
    let reasons = readiness(status);
    let found: Vec<_> = reasons.iter().map(|one| (one.code.as_str(), one.message.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_daemon_that_follows_the_site_with_every_type_live_is_ready() {
    check(&live(), &[]);
    let mut status = live();
    status.types[0].state = TypeState::Reimporting;
    check(&status, &[]);
}

#[test]
fn a_type_that_is_not_complete_is_a_reason_and_says_how_far_it_is() {
    let mut status = live();
    status.types[0].state = TypeState::Importing;
    status.types[0].import = Some(ImportProgress { done: 500, total: 18000 });
    check(&status, &[("type_not_live", "importing: 500 of 18000 rows")]);

    status.types[0].state = TypeState::Unhealthy;
    status.types[0].problem = Some("index closed".into());
    check(&status, &[("type_not_live", "unhealthy: index closed")]);
}

#[test]
fn a_type_that_lacks_a_field_is_a_warning_and_no_reason() {
    let mut status = live();
    status.types[0].state = TypeState::Degraded;
    status.types[0].problem = Some("`sg_cut` is not cached".into());
    check(&status, &[]);
    let found = warnings(&status);
    assert_eq!(
        (found[0].code.as_str(), found[0].message.as_str()),
        ("type_degraded", "degraded: `sg_cut` is not cached")
    );
}

#[test]
fn a_site_that_does_not_answer_is_a_reason_after_a_minute() {
    let mut status = live();
    status.sync.last_error = Some("timed out".into());
    status.sync.last_poll_at = Some(status.now - TimeDelta::seconds(60));
    check(&status, &[]);
    status.sync.last_poll_at = Some(status.now - TimeDelta::seconds(61));
    check(&status, &[("poll_failing", "the event log was last read 61 s ago: timed out")]);
    status.sync.last_poll_at = None;
    check(&status, &[("never_polled", "the event log was never read: timed out")]);
}

#[test]
fn a_cache_that_cannot_write_is_not_ready_and_a_failed_reload_is_a_warning() {
    let mut status = live();
    status.sync.write_problem = Some("there is no room left on the disk of `data_dir`".into());
    check(
        &status,
        &[(
            "not_writable",
            "what the site has changed cannot be written: there is no room left on the disk of `data_dir`",
        )],
    );
    let mut status = live();
    status.store.write_problem = Some("elasticsearch: sgcache-entity-shot takes no writes".into());
    check(
        &status,
        &[(
            "not_writable",
            "what the site has changed cannot be written: elasticsearch: sgcache-entity-shot takes no writes",
        )],
    );
    let mut status = live();
    status.config_problem = Some("pipelines/nightly.yaml:3: unknown key".into());
    check(&status, &[]);
    assert_eq!(warnings(&status)[0].code, "config_invalid");
}

#[test]
fn a_loop_that_does_not_run_is_a_reason_and_says_why() {
    let mut status = live();
    status.loops = vec![LoopStatus { name: "fetch".into(), restarts: 3, ..LoopStatus::default() }];
    check(&status, &[]);
    status.loops[0].state = LoopState::Restarting;
    status.loops[0].last_failure = Some("it panicked: index out of bounds".into());
    check(&status, &[("loop_down", "the loop is being started again: it panicked: index out of bounds")]);
    status.loops[0].state = LoopState::Stuck;
    status.loops[0].beat_age_seconds = 301.2;
    check(&status, &[("loop_down", "the loop gave no sign of life for 301 s")]);
}

#[test]
fn drift_is_no_reason() {
    let mut status = live();
    status.types[0].drift_ratio = Some(0.5);
    check(&status, &[]);
}

#[test]
fn a_fresh_daemon_gives_every_reason_at_once() {
    let status = StatusSnapshot::empty(live().now);
    let codes: Vec<_> = readiness(&status).into_iter().map(|one| one.code).collect();
    assert_eq!(codes, ["store_down", "no_types", "never_polled"]);
}

#[test]
fn a_process_that_waits_to_lead_says_for_whom_and_not_what_follows_from_that() {
    let mut status = StatusSnapshot::empty(live().now);
    status.store.up = true;
    let holder = "atlas, process 7 in /data, since 2026-11-23 09:00:00 UTC";
    let message = format!("another process leads and alone writes to the cluster: {holder}");
    status.waiting = Some(WaitingStatus { holder: Some(holder.into()), message: message.clone() });
    check(&status, &[("not_leader", &message)]);
    status.judge();
    assert!(!status.ready && status.health.title == format!("Waiting to lead: {message}."));
}
