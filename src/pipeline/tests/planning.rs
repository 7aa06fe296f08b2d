//! Tests of the planner: a tick and what it says.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{at, pipeline, resolve_context};
use crate::pipeline::*;
use crate::yaml::{Document, Problems};

/// A pipeline with this schedule and concurrency.
fn planned(name: &str, schedule: &str, concurrency: &str) -> Arc<Pipeline> {
    pipeline(&format!(
        "name: {name}\nschedule: {{ {schedule} }}\nconcurrency: {{ {concurrency} }}\n\
         steps: [{{ id: a, job: purge }}]\n"
    ))
}

fn planner(pipelines: &[Arc<Pipeline>], now: &str) -> Planner {
    Planner::new(pipelines, &PlanState::default(), at(now))
}

/// What happens at a tick, one line per decision.
fn tick(planner: &mut Planner, now: &str) -> Vec<String> {
    said(planner.tick(at(now)))
}

fn said(decisions: Vec<Decision>) -> Vec<String> {
    let short = |time: DateTime<Utc>| time.format("%d %H:%M:%S").to_string();
    decisions
        .into_iter()
        .filter_map(|decision| match decision {
            Decision::Start { pipeline, scheduled_for } => {
                Some(format!("start {pipeline} for {}", short(scheduled_for)))
            }
            Decision::Skip { pipeline, scheduled_for, reason } => {
                Some(format!("skip {pipeline} for {}: {reason}", short(scheduled_for)))
            }
            Decision::Queue { pipeline, scheduled_for, behind } => {
                Some(format!("queue {pipeline} for {} behind {behind}", short(scheduled_for)))
            }
            Decision::Replace { pipeline, scheduled_for } => {
                Some(format!("replace {pipeline} by {}", short(scheduled_for)))
            }
            Decision::ClockJump { .. } => None,
        })
        .collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_pipeline_starts_when_it_is_due_and_only_once() {
    let nightly = planned("nightly", "cron: '30 2 * * *', timezone: UTC", "policy: skip");
    let mut planner = planner(&[nightly], "2026-01-10T02:29:58Z");
    assert_eq!(tick(&mut planner, "2026-01-10T02:29:59Z"), NOTHING);
    assert_eq!(tick(&mut planner, "2026-01-10T02:30:00Z"), ["start nightly for 10 02:30:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T02:30:01Z"), NOTHING);
    planner.finished("nightly");
    assert_eq!(tick(&mut planner, "2026-01-10T02:30:02Z"), NOTHING);
    assert_eq!(planner.next_runs()["nightly"], at("2026-01-11T02:30:00Z"));
}

/// Ticks every 10 s through a night and tells the starts in local time.
fn starts_of_the_night(cron: &str, evening: &str) -> Vec<String> {
    let nightly = planned("nightly", &format!("cron: '{cron}'"), "policy: skip");
    let mut planner = planner(&[nightly], evening);
    let mut starts = Vec::new();
    for step in 0..(12 * 360) {
        let now = at(evening) + TimeDelta::seconds(10 * step);
        for decision in planner.tick(now) {
            if let Decision::Start { scheduled_for, .. } = decision {
                starts.push(scheduled_for.with_timezone(&chrono_tz::Europe::Paris).to_rfc3339());
                planner.finished("nightly");
            }
        }
    }
    starts
}

#[test]
fn a_nightly_run_happens_once_in_every_night() {
    let spring = starts_of_the_night("30 2 * * *", "2026-03-28T18:00:00Z");
    assert_eq!(spring, ["2026-03-29T03:00:00+02:00"]);
    let autumn = starts_of_the_night("30 2 * * *", "2026-10-24T18:00:00Z");
    assert_eq!(autumn, ["2026-10-25T02:30:00+02:00"]);
    let winter = starts_of_the_night("30 2 * * *", "2026-01-10T18:00:00Z");
    assert_eq!(winter, ["2026-01-11T02:30:00+01:00"]);
}

#[test]
fn a_freeze_of_four_seconds_gives_one_run() {
    let schedule = "cron: '* * * * * *', seconds: true, timezone: UTC";
    let mut planner = planner(&[planned("p", schedule, "policy: skip")], "2026-01-10T00:00:00Z");
    assert_eq!(tick(&mut planner, "2026-01-10T00:00:01Z"), ["start p for 10 00:00:01"]);
    planner.finished("p");
    let decisions = planner.tick(at("2026-01-10T00:00:05Z"));
    assert!(decisions.contains(&Decision::ClockJump { milliseconds: 4000 }));
    assert_eq!(said(decisions), ["start p for 10 00:00:05"]);
}

#[test]
fn a_run_that_is_due_while_the_last_one_runs_is_left_out_or_waits() {
    let schedule = "cron: '* * * * *', timezone: UTC";
    let skips = planned("skips", schedule, "policy: skip");
    let waits = planned("waits", schedule, "policy: queue");
    let mut planner = planner(&[skips, waits], "2026-01-10T00:00:30Z");
    assert_eq!(
        tick(&mut planner, "2026-01-10T00:01:00Z"),
        ["start skips for 10 00:01:00", "start waits for 10 00:01:00"]
    );
    assert_eq!(
        tick(&mut planner, "2026-01-10T00:02:00Z"),
        ["skip skips for 10 00:02:00: the run before it has not ended", "queue waits for 10 00:02:00 behind waits",]
    );
    // Of several the newest waits.
    assert_eq!(
        tick(&mut planner, "2026-01-10T00:03:00Z"),
        [
            "skip waits for 10 00:02:00: a newer occurrence took its place",
            "skip skips for 10 00:03:00: the run before it has not ended",
            "queue waits for 10 00:03:00 behind waits",
        ]
    );
    planner.finished("waits");
    assert_eq!(tick(&mut planner, "2026-01-10T00:03:01Z"), ["start waits for 10 00:03:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T00:03:02Z"), NOTHING);
}

#[test]
fn pipelines_of_one_group_never_run_together() {
    let schedule = "cron: '0 1 * * *', timezone: UTC";
    let a = planned("a", schedule, "group: heavy");
    let b = planned("b", schedule, "group: heavy, policy: queue");
    let c = planned("c", schedule, "group: heavy");
    let d = planned("d", schedule, "policy: skip");
    let mut planner = planner(&[a.clone(), b.clone(), c, d], "2026-01-10T00:00:00Z");
    assert_eq!(
        tick(&mut planner, "2026-01-10T01:00:00Z"),
        [
            "start a for 10 01:00:00",
            "queue b for 10 01:00:00 behind a",
            "skip c for 10 01:00:00: `a` of the same group runs",
            "start d for 10 01:00:00",
        ]
    );
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:01Z"), NOTHING);
    assert_eq!(planner.begin(&b), Err(SkipReason::GroupBusy("a".to_owned())));
    planner.finished("a");
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:02Z"), ["start b for 10 01:00:00"]);
    assert!(planner.begin(&a).is_err());
    planner.finished("b");
    assert_eq!(planner.begin(&a), Ok(()));
}

/// Starts again at `restart` with the plan of a process that ended at `end`.
fn after_downtime(pipelines: &[Arc<Pipeline>], end: &str, restart: &str) -> Planner {
    let stored = planner(pipelines, end).state();
    let kept = serde_json::to_string(&stored).expect("JSON");
    let stored = serde_json::from_str(&kept).expect("a plan");
    Planner::new(pipelines, &stored, at(restart))
}

#[test]
fn what_was_missed_while_down_is_made_up_for_once_within_the_window() {
    let schedule = "cron: '0 * * * *', timezone: UTC, catch_up: once, catch_up_window: 30m";
    let hourly = [planned("hourly", schedule, "policy: skip")];
    let mut soon = after_downtime(&hourly, "2026-01-10T00:30:00Z", "2026-01-10T05:20:00Z");
    assert_eq!(tick(&mut soon, "2026-01-10T05:20:00Z"), ["start hourly for 10 05:00:00"]);
    assert_eq!(tick(&mut soon, "2026-01-10T05:20:01Z"), NOTHING);
    let mut late = after_downtime(&hourly, "2026-01-10T00:30:00Z", "2026-01-10T05:40:00Z");
    assert_eq!(tick(&mut late, "2026-01-10T05:40:00Z"), ["skip hourly for 10 05:00:00: it was missed too long ago"]);
    assert_eq!(late.next_runs()["hourly"], at("2026-01-10T06:00:00Z"));
}

#[test]
fn catch_up_skip_leaves_out_what_was_missed_but_not_what_is_a_little_late() {
    let schedule = "cron: '0 * * * *', timezone: UTC, catch_up: skip";
    let hourly = [planned("hourly", schedule, "policy: skip")];
    let mut down = after_downtime(&hourly, "2026-01-10T00:30:00Z", "2026-01-10T01:10:00Z");
    assert_eq!(tick(&mut down, "2026-01-10T01:10:00Z"), ["skip hourly for 10 01:00:00: it was missed too long ago"]);
    let mut brief = after_downtime(&hourly, "2026-01-10T00:59:58Z", "2026-01-10T01:00:20Z");
    assert_eq!(tick(&mut brief, "2026-01-10T01:00:20Z"), ["start hourly for 10 01:00:00"]);
}

#[test]
fn runs_that_catch_up_start_apart() {
    let schedule = "cron: '0 1 * * *', timezone: UTC";
    let all = ["a", "b", "c"].map(|name| planned(name, schedule, "policy: skip"));
    let mut planner = after_downtime(&all, "2026-01-10T00:30:00Z", "2026-01-10T02:00:00Z");
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:00Z"), ["start a for 10 01:00:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:01Z"), NOTHING);
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:30Z"), ["start b for 10 01:00:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T02:01:00Z"), ["start c for 10 01:00:00"]);
}

#[test]
fn a_new_a_changed_and_a_reenabled_pipeline_catch_nothing_up() {
    let old = planned("p", "cron: '0 1 * * *', timezone: UTC", "policy: skip");
    let stored = planner(&[old], "2026-01-10T00:30:00Z").state();
    let changed = planned("p", "cron: '15 1 * * *', timezone: UTC", "policy: skip");
    let new = planned("q", "cron: '0 1 * * *', timezone: UTC", "policy: skip");
    let mut planner = Planner::new(&[changed, new], &stored, at("2026-01-10T02:00:00Z"));
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:00Z"), NOTHING);
    assert_eq!(planner.next_runs()["p"], at("2026-01-11T01:15:00Z"));
    assert_eq!(planner.next_runs()["q"], at("2026-01-11T01:00:00Z"));
}

#[test]
fn a_queued_occurrence_survives_a_restart() {
    let schedule = "cron: '0 1 * * *', timezone: UTC";
    let all = [planned("a", schedule, "group: heavy"), planned("b", schedule, "group: heavy, policy: queue")];
    let mut first = planner(&all, "2026-01-10T00:00:00Z");
    tick(&mut first, "2026-01-10T01:00:00Z");
    let mut second = Planner::new(&all, &first.state(), at("2026-01-10T01:00:10Z"));
    assert_eq!(tick(&mut second, "2026-01-10T01:00:10Z"), ["start b for 10 01:00:00"]);
}

#[test]
fn a_clock_that_goes_back_repeats_nothing_and_stops_nothing() {
    let hourly = planned("hourly", "cron: '0 * * * *', timezone: UTC", "policy: skip");
    let mut planner = planner(&[hourly], "2026-01-10T00:30:00Z");
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:00Z"), ["start hourly for 10 01:00:00"]);
    planner.finished("hourly");
    // An hour back: the occurrence of 01:00 comes again and is not run again.
    assert_eq!(tick(&mut planner, "2026-01-10T00:00:10Z"), NOTHING);
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:01Z"), NOTHING);
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:00Z"), ["start hourly for 10 02:00:00"]);
    planner.finished("hourly");
    // Ten years ahead and back: what was "handled" there is not believed.
    tick(&mut planner, "2036-01-10T02:00:00Z");
    planner.finished("hourly");
    tick(&mut planner, "2026-01-10T02:30:00Z");
    assert_eq!(tick(&mut planner, "2026-01-10T03:00:00Z"), ["start hourly for 10 03:00:00"]);
}

#[test]
fn reloading_keeps_what_is_unchanged_and_replans_the_rest() {
    let schedule = "cron: '0 1 * * *', timezone: UTC";
    let all = ["a", "b", "c"].map(|name| planned(name, schedule, "policy: skip"));
    let mut planner = planner(&all, "2026-01-10T00:30:00Z");
    let changed = planned("b", "cron: '0 3 * * *', timezone: UTC", "policy: skip");
    planner.reload(&[all[0].clone(), changed], at("2026-01-10T00:45:00Z"));
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:00Z"), ["start a for 10 01:00:00"]);
    assert_eq!(planner.next_runs()["b"], at("2026-01-10T03:00:00Z"));
    assert!(!planner.next_runs().contains_key("c"));
}

#[tokio::test]
async fn the_heartbeat_beats() {
    let mut heartbeat = Heartbeat::start().await.expect("started");
    let first = heartbeat.next().await.expect("a beat");
    let second = heartbeat.next().await.expect("another beat");
    assert!(second > first);
    heartbeat.stop().await;
}

#[test]
fn a_paused_pipeline_leaves_out_what_is_due_and_makes_up_for_nothing() {
    let hourly = planned("hourly", "cron: '0 * * * *', timezone: UTC, catch_up_window: 6h", "policy: skip");
    let mut planner = planner(std::slice::from_ref(&hourly), "2026-01-10T00:30:00Z");
    let mut pauses = Pauses::default();
    let until = Some(at("2026-01-10T02:30:00Z"));
    pauses.set("hourly", Pause { since: at("2026-01-10T00:30:00Z"), until, reason: "move".into() });
    planner.set_pauses(pauses);
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:00Z"), ["skip hourly for 10 01:00:00: it is paused"]);
    assert_eq!(tick(&mut planner, "2026-01-10T02:00:00Z"), ["skip hourly for 10 02:00:00: it is paused"]);
    assert_eq!(tick(&mut planner, "2026-01-10T02:30:00Z"), NOTHING);
    assert_eq!(planner.begin(&hourly), Ok(()), "who asks by hand knows what they do");
    planner.finished("hourly");
    assert_eq!(tick(&mut planner, "2026-01-10T03:00:00Z"), ["start hourly for 10 03:00:00"]);
}

#[test]
fn what_is_due_in_a_blackout_starts_after_it_unless_that_is_too_late() {
    let with = |name: &str, window: &str| {
        pipeline(&format!(
            "name: {name}\nschedule: {{ cron: '15 9 * * *', timezone: UTC, catch_up_window: {window} }}\n\
             blackout: dailies\nsteps: [{{ id: a, job: purge }}]\n"
        ))
    };
    // Monday; the dailies are from 09:00 to 10:30 UTC.
    let mut planner = planner(&[with("patient", "6h"), with("urgent", "30m")], "2026-01-12T09:00:00Z");
    let queued = ["queue patient for 12 09:15:00 behind dailies", "queue urgent for 12 09:15:00 behind dailies"];
    assert_eq!(tick(&mut planner, "2026-01-12T09:15:00Z"), queued);
    assert_eq!(tick(&mut planner, "2026-01-12T09:45:00Z"), NOTHING);
    let late = "skip urgent for 12 09:15:00: the blackout `dailies` was too long for its catch_up_window";
    assert_eq!(tick(&mut planner, "2026-01-12T09:45:01Z"), [late]);
    assert_eq!(tick(&mut planner, "2026-01-12T10:30:00Z"), ["start patient for 12 09:15:00"]);
}

#[test]
fn what_was_due_during_a_pause_is_not_caught_up_after_a_restart() {
    let hourly = planned("hourly", "cron: '0 * * * *', timezone: UTC, catch_up_window: 12h", "policy: skip");
    let all = std::slice::from_ref(&hourly);
    let restarted = |pause: (&str, &str), restart: &str| {
        let stored = planner(all, "2026-01-10T00:30:00Z").state();
        let mut pauses = Pauses::default();
        pauses.set("hourly", Pause { since: at(pause.0), until: None, reason: "move".into() });
        assert!(pauses.end("hourly", at(pause.1)));
        let mut planner = Planner::new(all, &stored, at(restart));
        planner.set_pauses(pauses);
        tick(&mut planner, restart)
    };
    let whole = restarted(("2026-01-10T00:40:00Z", "2026-01-10T04:30:00Z"), "2026-01-10T04:40:00Z");
    assert_eq!(whole, ["skip hourly for 10 04:00:00: it is paused"]);
    // One occurrence before the pause was missed for another reason: it is caught up.
    let later = restarted(("2026-01-10T01:40:00Z", "2026-01-10T04:30:00Z"), "2026-01-10T04:40:00Z");
    assert_eq!(later, ["start hourly for 10 01:00:00"]);
    let earlier = restarted(("2026-01-10T00:40:00Z", "2026-01-10T02:30:00Z"), "2026-01-10T04:40:00Z");
    assert_eq!(earlier, ["start hourly for 10 04:00:00"]);
}

#[test]
fn a_plan_is_made_anew_when_config_yaml_decides_otherwise() {
    let text = "name: p\nschedule: { cron: '0 1 * * *' }\nblackout: dailies\nsteps: [{ id: a, job: purge }]\n";
    let document = crate::yaml::Document::yaml("p.yaml", text.as_bytes()).expect("valid YAML");
    let with = |change: fn(&mut ResolveContext)| {
        let mut context = super::resolve_context();
        change(&mut context);
        resolve(&document, &context, &mut crate::yaml::Problems::new()).expect("a valid file")
    };
    let before = with(|_| {});
    let due: [fn(&mut ResolveContext); 5] = [
        |context| context.timezone = chrono_tz::Asia::Tokyo,
        |context| context.defaults.catch_up = CatchUp::Skip,
        |context| context.defaults.catch_up_window = std::time::Duration::from_secs(60),
        |context| context.blackouts.get_mut("dailies").expect("dailies").duration *= 2,
        |context| {
            let noon = Schedule::new(vec!["0 12 * * *".into()], false, chrono_tz::UTC).expect("a schedule");
            context.blackouts.get_mut("dailies").expect("dailies").begins = noon;
        },
    ];
    for (at, change) in due.into_iter().enumerate() {
        let after = with(change);
        assert_ne!(after.schedule_hash, before.schedule_hash, "change {at}");
        assert_ne!(after.hash, before.hash, "change {at}");
    }
    // What does not decide when it is due changes the definition, not the plan.
    let patient = with(|context| context.defaults.retry.attempts = 9);
    assert_eq!(patient.schedule_hash, before.schedule_hash);
    assert_ne!(patient.hash, before.hash);

    let tokyo = with(due[0]);
    let mut planner = Planner::new(&[Arc::new(before)], &PlanState::default(), at("2026-01-10T12:00:00Z"));
    planner.reload(&[Arc::new(tokyo)], at("2026-01-10T12:00:00Z"));
    assert_eq!(planner.next_runs()["p"], at("2026-01-10T16:00:00Z"));
}

#[test]
fn a_blackout_of_every_second_is_looked_up_at_once() {
    let begins = Schedule::new(vec!["* * * * * *".into()], true, chrono_tz::UTC).expect("a schedule");
    let month = std::time::Duration::from_secs(31 * 86_400);
    let blackout = Blackout { name: "always".into(), begins, duration: month, action: BlackoutAction::Defer };
    let now = at("2026-01-10T12:00:00Z");
    assert_eq!(blackout.until(now), Some(now + TimeDelta::days(31)));
}

#[test]
fn a_start_that_another_process_keeps_back_waits_or_is_left_out() {
    let schedule = "cron: '0 1 * * *', timezone: UTC";
    let all = [planned("skips", schedule, "policy: skip"), planned("waits", schedule, "policy: queue")];
    let mut planner = planner(&all, "2026-01-10T00:00:00Z");
    let due = at("2026-01-10T01:00:00Z");
    assert_eq!(planner.tick(due).len(), 2);
    let elsewhere = || SkipReason::OtherProcess(Some("heavy".to_owned()));
    let skipped = said(planner.put_back("skips", due, elsewhere()).into_iter().collect());
    assert_eq!(skipped, ["skip skips for 10 01:00:00: another process runs one of the group `heavy`"]);
    let queued = said(planner.put_back("waits", due, elsewhere()).into_iter().collect());
    assert_eq!(queued, ["queue waits for 10 01:00:00 behind another process runs one of the group `heavy`"]);
    // It is tried again with every tick, and announced once.
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:01Z"), ["start waits for 10 01:00:00"]);
    assert_eq!(planner.put_back("waits", due, elsewhere()), None);
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:02Z"), ["start waits for 10 01:00:00"]);
    planner.finished("waits");
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:03Z"), NOTHING);
}

#[test]
fn a_run_is_replaced_by_the_next_occurrence_and_one_of_its_group_is_waited_for() {
    let often = planned("often", "cron: '* * * * *', timezone: UTC", "policy: replace, group: heavy");
    let other = planned("other", "cron: '3 1 * * *', timezone: UTC", "policy: queue, group: heavy");
    let mut planner = planner(&[often, other], "2026-01-10T00:59:58Z");
    assert_eq!(tick(&mut planner, "2026-01-10T01:00:00Z"), ["start often for 10 01:00:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T01:01:00Z"), ["replace often by 10 01:01:00"]);
    // It is asked to stop once.
    assert_eq!(tick(&mut planner, "2026-01-10T01:01:01Z"), NOTHING);
    planner.finished("often");
    assert_eq!(tick(&mut planner, "2026-01-10T01:01:02Z"), ["start often for 10 01:01:00"]);
    planner.finished("often");
    tick(&mut planner, "2026-01-10T01:02:00Z");
    planner.finished("often");
    let due = tick(&mut planner, "2026-01-10T01:03:00Z");
    assert_eq!(due, ["start often for 10 01:03:00", "queue other for 10 01:03:00 behind often"]);
    planner.finished("often");
    assert_eq!(tick(&mut planner, "2026-01-10T01:03:01Z"), ["start other for 10 01:03:00"]);
    assert_eq!(tick(&mut planner, "2026-01-10T01:04:00Z"), ["queue often for 10 01:04:00 behind other"]);
}

#[test]
fn a_blackout_that_skips_leaves_out_what_is_due_in_it() {
    let mut context = resolve_context();
    context.blackouts.get_mut("dailies").expect("dailies").action = BlackoutAction::Skip;
    let text = "name: p\nschedule: { cron: '30 * * * *', catch_up_window: 6h }\nblackout: dailies\n\
                steps: [{ id: a, job: purge }]\n";
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    let pipeline = Arc::new(resolve(&document, &context, &mut Problems::new()).expect("a valid file"));
    // Monday, ten to half past eleven in Paris.
    let mut planner = planner(&[pipeline], "2026-01-12T08:59:00Z");
    let skipped = "skip p for 12 09:30:00: the blackout `dailies` skips what is due in it";
    assert_eq!(tick(&mut planner, "2026-01-12T09:30:00Z"), [skipped]);
    assert_eq!(tick(&mut planner, "2026-01-12T10:30:00Z"), ["start p for 12 10:30:00"]);
}

#[test]
fn of_a_thousand_pipelines_due_in_one_second_each_starts_or_follows_its_policy() {
    let policy = |number: usize| ["skip", "queue", "replace"][number % 3];
    let group = |number: usize| if number.is_multiple_of(10) { ", group: shared" } else { "" };
    let pipelines: Vec<_> = (0..1000)
        .map(|n| {
            planned(&format!("p{n}"), "cron: '0 1 * * *', timezone: UTC", &format!("policy: {}{}", policy(n), group(n)))
        })
        .collect();
    let mut planner = planner(&pipelines, "2026-01-10T00:59:59Z");
    let lines = tick(&mut planner, "2026-01-10T01:00:00Z");
    let count = |word: &str| lines.iter().filter(|line| line.starts_with(word)).count();
    // One of the hundred of the group starts; 34 of the 100 are of the policy skip, the first among them.
    assert_eq!((count("start"), count("queue"), count("skip")), (901, 66, 33));
}
