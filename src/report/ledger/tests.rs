//! The ledger over a real state file: what is counted adds up across handles, is bounded,
//! and is worth what the text says.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::state::State;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a moment")
}

fn hit(at: DateTime<Utc>, caller: &str) -> Read<'_> {
    let answer = Answer::Cache { stale: false };
    Read { at, method: "read", entity_type: Some("Shot"), caller, answer, milliseconds: 1.0 }
}

fn pass<'a>(at: DateTime<Utc>, cause: &'a Cause, milliseconds: f64) -> Read<'a> {
    let answer = Answer::Site { reason: "uncached_field", cause };
    Read { at, method: "read", entity_type: Some("Shot"), caller: "script farm", answer, milliseconds }
}

#[tokio::test]
async fn counts_add_up_across_processes_and_hours() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path()).await.expect("a state");
    let cause = Cause { label: "`Shot.sg_x` is not cached".to_owned(), ..Cause::default() };
    let begin = at("2026-03-01T10:30:00Z");
    for hour in 0..3 {
        // Each hour is counted by another process, and the second one writes in two parts.
        let recorder = Recorder::default();
        let now = begin + TimeDelta::hours(hour);
        recorder.read(&hit(now, "script farm"), None);
        recorder.flush(&state).await.expect("a write");
        recorder.read(&hit(now, "script review"), None);
        recorder.read(&pass(now, &cause, 100.0), None);
        recorder.write_made(now);
        recorder.write_visible(now, Duration::from_millis(400));
        recorder.flush(&state).await.expect("a write");
    }
    let last = Recorder::default();
    last.read(&hit(begin + TimeDelta::hours(2), "script farm"), None);
    let window = Window { since: begin, until: begin + TimeDelta::hours(2) };
    let sum = ledger(&last, &state, window).await.expect("a ledger");
    assert_eq!((sum.reads, sum.hits, sum.passes), (10, 7, 3), "with what is not stored yet");
    assert_eq!(sum.hit_ratio, Some(0.7));
    assert_eq!(sum.reasons[0].calls, 3);
    assert!((sum.reasons[0].gain - 0.3).abs() < 1e-9);
    assert_eq!((sum.writes.count, sum.writes.visible_max_seconds), (3, Some(0.4)));
    assert_eq!(sum.callers[0].caller, "script farm");
    assert_eq!(sum.per_hour.iter().map(|hour| hour.hits).collect::<Vec<_>>(), [2, 2, 3]);
    let shorter = Window { since: begin + TimeDelta::hours(2), until: begin + TimeDelta::hours(2) };
    let sum = ledger(&last, &state, shorter).await.expect("a ledger");
    assert_eq!((sum.hits, sum.passes), (3, 1), "one hour alone");
    let longer = Window { since: begin - TimeDelta::days(30), until: begin + TimeDelta::hours(2) };
    let sum = ledger(&last, &state, longer).await.expect("a ledger");
    assert_eq!((sum.hits, sum.passes), (7, 3), "from the buckets of days");
}

#[tokio::test]
async fn hits_are_worth_the_last_known_median_of_the_site() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path()).await.expect("a state");
    let recorder = Recorder::default();
    let begin = at("2026-03-01T10:00:00Z");
    let window = Window { since: begin, until: begin + TimeDelta::hours(3) };
    for _ in 0..10 {
        recorder.read(&hit(begin, "script farm"), None);
    }
    let sum = ledger(&recorder, &state, window).await.expect("a ledger");
    assert_eq!(sum.saved_seconds, None, "the site was never asked");
    let cause = Cause::default();
    // One answer that took long does not make the hits worth more.
    for ms in [200.0, 200.0, 200.0, 200.0, 60_000.0] {
        recorder.read(&pass(begin + TimeDelta::hours(1), &cause, ms), None);
    }
    recorder.read(&hit(begin + TimeDelta::hours(2), "script farm"), None);
    recorder.flush(&state).await.expect("a write");
    let sum = ledger(&recorder, &state, window).await.expect("a ledger");
    let saved = sum.saved_seconds.expect("known now");
    let exact = 11.0 * (0.200 - 0.001);
    assert!((saved / exact - 1.0).abs() < 0.06, "{saved} is not {exact}");
    assert_eq!(sum.callers[0].saved_seconds, Some(saved), "one caller has all of it");
    assert_eq!(sum.slowest[0].ms, 60_000.0);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path()).await.expect("a state");
    let recorder = Recorder::default();
    let begin = at("2026-03-01T00:00:00Z");
    for index in 0..1000 {
        let cause = Cause { label: format!("{index} {}", "x".repeat(5000)), ..Cause::default() };
        let caller = format!("script {index}");
        let read = Read { caller: &caller, ..pass(begin, &cause, 1.0) };
        let argument = serde_json::json!({"type": "Shot", "return_fields": ["x".repeat(index)]});
        let example = Example { method: "read".to_owned(), caller: caller.clone(), argument };
        recorder.read(&read, Some(&example));
    }
    for hour in 0..400 {
        recorder.read(&hit(begin + TimeDelta::hours(hour), "script farm"), None);
    }
    recorder.flush(&state).await.expect("a write");
    let kept: std::collections::BTreeMap<String, serde_json::Value> =
        state.kept_between("ledger/", "ledger/~").await.expect("values");
    assert_eq!(kept.keys().filter(|name| name.starts_with("ledger/hour/")).count(), 336);
    let longest = kept.values().map(|value| value.to_string().len()).max().expect("a value");
    assert!(longest < 128 << 10, "{longest} bytes");
    let window = Window { since: begin, until: begin + TimeDelta::days(100) };
    let sum = ledger(&recorder, &state, window).await.expect("a ledger");
    assert_eq!((sum.passes, sum.hits), (1000, 400), "nothing is lost, only told apart less");
    assert_eq!(sum.reasons.iter().map(|reason| reason.calls).sum::<u64>(), 1000);
    let (listed, unlisted) = examples(&state, window).await.expect("requests");
    assert_eq!(listed.iter().map(|(_, calls)| calls).sum::<u64>() + unlisted, 1000);
}
