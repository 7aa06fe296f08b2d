//! Sentences of a judgement, for snapshots that differ from a healthy one in one thing.

use chrono::{TimeDelta, TimeZone, Utc};

use super::super::status::{PipelineStatus, Serving, TypeStatus};
use super::*;

fn well() -> StatusSnapshot {
    let now = Utc.with_ymd_and_hms(2026, 11, 23, 10, 0, 0).unwrap();
    let mut status = StatusSnapshot::empty(now);
    status.store.up = true;
    status.serving = Some(Serving { max_age_seconds: 30, stale_if_error_seconds: 28_800 });
    let ty = |name: &str| TypeStatus {
        entity_type: name.into(),
        state: TypeState::Live,
        fresh_as_of: Some(now - TimeDelta::milliseconds(600)),
        lag_seconds: Some(0.0),
        ..TypeStatus::default()
    };
    status.types = vec![ty("Shot"), ty("Task")];
    status.sync.last_poll_at = Some(now - TimeDelta::milliseconds(700));
    status.sync.lag_seconds = Some(0.6);
    status
}

fn away(seconds: i64) -> StatusSnapshot {
    let mut status = well();
    status.sync.last_error = Some("connection refused".into());
    status.sync.failing_since = Some(status.now - TimeDelta::seconds(seconds));
    status.sync.last_poll_at = Some(status.now - TimeDelta::seconds(seconds));
    status.sync.lag_seconds = None;
    for ty in &mut status.types {
        ty.fresh_as_of = Some(status.now - TimeDelta::seconds(seconds));
        ty.lag_seconds = None;
    }
    status
}

#[track_caller]
fn check(status: &StatusSnapshot, level: Level, code: &str, title: &str) -> Health {
    let health = health(status);
    assert_eq!((health.level, health.code.as_str(), health.title.as_str()), (level, code, title));
    health
}

#[test]
fn a_healthy_daemon_says_so_in_one_sentence() {
    let health = check(&well(), Level::Ok, "ok", "Healthy. All 2 types follow the site, 0.6 s behind.");
    assert_eq!(health.reads, Answer { level: Level::Ok, text: "from the cache, 0.6 s old".into() });
    assert_eq!(health.site.text, "answers, event log read 0.7 s ago");
    assert_eq!(health.writes, Answer { level: Level::Ok, text: "accepted by the site".into() });
    assert_eq!(health.drift.text, "not known: nothing was compared yet");
    assert!(health.needs.is_empty());
}

#[test]
fn the_first_poll_that_fails_is_a_warning_and_no_number_is_made_up() {
    let title = "The site does not answer. Reads go on from the cache; writes fail.";
    let health = check(&away(3), Level::Warn, "site_away", title);
    assert_eq!(health.since, away(3).sync.failing_since);
    assert_eq!(health.writes, Answer { level: Level::Bad, text: "fail while the site does not answer".into() });
    assert_eq!(health.reads.text, "from the cache, 3.0 s old; allowed until 8 h");
    assert_eq!(
        (health.site.level, health.site.text.as_str()),
        (Level::Bad, "connection refused (event log last read 3.0 s ago)")
    );
}

#[test]
fn an_outage_beyond_what_is_allowed_is_bad() {
    let title = "The site is away and rows are older than 8 h: reads are refused.";
    let health = check(&away(28_801), Level::Bad, "not_serving", title);
    assert_eq!(health.reads.text, "refused for what is older than 8 h");
    assert_eq!(health.needs[0].code, "site_away");
}

#[test]
fn the_worst_comes_first_and_the_others_need_attention_too() {
    let mut status = well();
    status.config_problem = Some("pipelines/a.yaml:3: unknown key".into());
    status.types[1].drift_ratio = Some(0.1);
    status.types[1].validated_at = Some(status.now);
    status.store.up = false;
    let health = check(&status, Level::Bad, "store_down", "The store does not answer: it has not answered yet");
    let codes: Vec<_> = health.needs.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["drift_open", "reload_failed"]);
    assert_eq!((health.drift.level, health.drift.text.as_str()), (Level::Warn, "rows of Task differ from the site"));
}

#[test]
fn refused_credentials_are_told_apart_from_a_site_that_is_away() {
    let mut status = away(5);
    status.sync.denied = true;
    check(
        &status,
        Level::Bad,
        "denied",
        "The site refuses the script of sgcache: check `shotgun.script` and `shotgun.key`.",
    );
}

#[test]
fn each_fault_has_a_code_of_its_own() {
    let fault = |code: &str, level: Level, break_it: &dyn Fn(&mut StatusSnapshot)| {
        let mut status = well();
        break_it(&mut status);
        let health = health(&status);
        assert_eq!((health.code.as_str(), health.level), (code, level), "{health:?}");
    };
    fault("not_writable", Level::Bad, &|status| status.sync.write_problem = Some("disk full".into()));
    fault("type_unhealthy", Level::Bad, &|status| status.types[0].state = TypeState::Unhealthy);
    fault("behind", Level::Warn, &|status| status.sync.lag_seconds = Some(5.1));
    fault("deletions_held", Level::Warn, &|status| status.types[0].problem = Some("deletions are held".into()));
    fault("dead_letters", Level::Warn, &|status| {
        status.sync.dead_letters.insert("row".into(), 1);
    });
    fault("type_degraded", Level::Warn, &|status| status.types[0].state = TypeState::Degraded);
    fault("run_failed", Level::Warn, &|status| {
        status.pipelines = vec![PipelineStatus { last_status: Some(Status::Error), ..PipelineStatus::default() }];
    });
    fault("importing", Level::Busy, &|status| status.types[0].state = TypeState::Importing);
    fault("starting", Level::Busy, &|status| status.sync.last_poll_at = None);
}

#[test]
fn spans_are_short() {
    let spans = [0.64, 12.0, 720.0, 28_800.0, 300_000.0].map(|seconds| Span(seconds).to_string());
    assert_eq!(spans, ["0.6 s", "12 s", "12 min", "8 h", "3 d"]);
}
