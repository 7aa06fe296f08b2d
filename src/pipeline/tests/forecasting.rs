//! Forecasts, compared with a planner that is asked every second as the scheduler does.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{at, pipeline};
use crate::pipeline::*;

/// Three pipelines of one group, one of them with a blackout, and one beside it.
fn group() -> Vec<Arc<Pipeline>> {
    let file = |name: &str, cron: &str, rest: &str| {
        pipeline(&format!(
            "name: {name}\nschedule: {{ cron: {cron}, catch_up_window: 2h }}\n{rest}\nsteps: [{{ id: a, job: purge }}]\n"
        ))
    };
    vec![
        file("nightly", "['30 2 * * *', '15 10 * * *']", "concurrency: { policy: queue, group: g }\nblackout: dailies"),
        file("often", "'0 */2 * * *'", "concurrency: { policy: skip, group: g }"),
        file("long", "'0 1 * * *'", "concurrency: { policy: queue, group: g }"),
        file("alone", "'*/7 * * * *'", ""),
    ]
}

fn takes(minutes: &[(&str, i64)]) -> BTreeMap<String, TimeDelta> {
    minutes.iter().map(|(name, minutes)| ((*name).to_owned(), TimeDelta::minutes(*minutes))).collect()
}

/// An occurrence, and when it starts or why not.
type Decided = (DateTime<Utc>, Result<DateTime<Utc>, SkipReason>);

/// What happens to the occurrences of a pipeline when a planner ticks every second.
fn by_seconds(
    pipelines: &[Arc<Pipeline>],
    pauses: &Pauses,
    durations: &BTreeMap<String, TimeDelta>,
    name: &str,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
) -> Vec<Decided> {
    let mut planner = Planner::new(pipelines, &PlanState::default(), from);
    planner.set_pauses(pauses.clone());
    let mut ends: Vec<(DateTime<Utc>, String)> = Vec::new();
    let (mut found, mut now) = (Vec::new(), from);
    while now <= until {
        for (_, ended) in ends.extract_if(.., |(end, _)| *end <= now) {
            planner.finished(&ended);
        }
        for decision in planner.tick(now) {
            match decision {
                Decision::Start { pipeline, scheduled_for } => {
                    ends.push((now + durations[&pipeline], pipeline.clone()));
                    if pipeline == name {
                        found.push((scheduled_for, Ok(now)));
                    }
                }
                Decision::Skip { pipeline, scheduled_for, reason } if pipeline == name => {
                    found.push((scheduled_for, Err(reason)));
                }
                _ => {}
            }
        }
        now += TimeDelta::seconds(1);
    }
    found
}

#[test]
fn a_forecast_is_what_a_planner_decides_that_is_asked_every_second() {
    let pipelines = group();
    let mut pauses = Pauses::default();
    let pause = Pause {
        since: at("2026-10-23T12:00:00Z"),
        until: Some(at("2026-10-24T08:10:00Z")),
        reason: "storage is moved".to_owned(),
    };
    pauses.set("nightly", pause);
    let durations = takes(&[("nightly", 50), ("often", 35), ("long", 130), ("alone", 9)]);
    let (from, until) = (at("2026-10-23T13:00:00Z"), at("2026-10-26T13:00:00Z"));
    let (plan, running) = (PlanState::default(), BTreeMap::new());
    let outlook =
        Outlook { pipelines: &pipelines, plan: &plan, pauses: &pauses, durations: &durations, running: &running };
    for pipeline in &pipelines {
        let forecast: Vec<_> = outlook.forecast(&pipeline.name, from, 1000).into_iter().collect();
        let forecast: Vec<_> = forecast.into_iter().map(|found| (found.due, found.outcome)).collect();
        let real = by_seconds(&pipelines, &pauses, &durations, &pipeline.name, (from, until));
        assert!(real.len() > 2, "{}: {real:?}", pipeline.name);
        assert_eq!(forecast[..real.len()], real[..], "{}", pipeline.name);
    }
}

#[test]
fn a_forecast_catches_up_what_the_stored_plan_has_not_handled() {
    let pipelines = group();
    let nightly = &pipelines[0];
    let (pauses, durations, running) = (Pauses::default(), BTreeMap::new(), BTreeMap::new());
    let due = at("2026-10-23T00:30:00Z");
    let stored = PlanEntry { hash: nightly.schedule_hash.clone(), next_at: Some(due), last_handled_at: None };
    let plan = PlanState { pipelines: [("nightly".to_owned(), stored)].into() };
    let outlook =
        Outlook { pipelines: &pipelines, plan: &plan, pauses: &pauses, durations: &durations, running: &running };
    let first =
        |now: &str| outlook.forecast("nightly", at(now), 1).into_iter().next().map(|found| (found.due, found.outcome));
    assert_eq!(first("2026-10-23T01:00:00Z"), Some((due, Ok(at("2026-10-23T01:00:00Z")))));
    assert_eq!(first("2026-10-23T03:00:00Z"), Some((due, Err(SkipReason::Missed))));
}

#[test]
fn an_occurrence_knows_what_a_change_of_clocks_does_to_it() {
    let (paris, lord_howe) = (chrono_tz::Europe::Paris, chrono_tz::Australia::Lord_Howe);
    let naive = |text: &str| text.parse().expect("a time");
    let gap = |text: &str| Some(ClockChange::Gap(naive(text)));
    let table = [
        ("30 2 * * *", paris, "2027-03-28T01:00:00Z", gap("2027-03-28T02:30:00")),
        ("15,45 2 * * *", paris, "2027-03-28T01:00:00Z", gap("2027-03-28T02:15:00")),
        // 02:00 is in the gap, 03:00 is not: both are this instant.
        ("0 1-3 * * *", paris, "2027-03-28T01:00:00Z", gap("2027-03-28T02:00:00")),
        ("0 1-3 * * *", paris, "2027-03-28T00:00:00Z", None),
        ("0 3 * * *", paris, "2027-03-28T01:00:00Z", None),
        ("*/15 * * * *", paris, "2027-03-28T01:00:00Z", None),
        ("30 2 * * *", paris, "2026-10-25T00:30:00Z", Some(ClockChange::First)),
        ("30 2 * * *", paris, "2026-10-26T01:30:00Z", None),
        ("0 3 * * *", paris, "2026-10-25T02:00:00Z", None),
        ("*/15 * * * *", paris, "2026-10-25T00:30:00Z", Some(ClockChange::Both)),
        ("*/15 * * * *", paris, "2026-10-25T01:30:00Z", Some(ClockChange::Both)),
        ("15,45 1-2 * * *", lord_howe, "2026-10-03T15:30:00Z", gap("2026-10-04T02:15:00")),
        ("15,45 1-2 * * *", lord_howe, "2027-04-03T14:45:00Z", Some(ClockChange::First)),
    ];
    for (line, zone, due, expected) in table {
        let schedule = Schedule::new(vec![line.to_owned()], false, zone).expect("a cron line");
        let before = at(due) - TimeDelta::seconds(1);
        assert_eq!(schedule.next_after(before), Some(at(due)), "{line} is due at {due}");
        assert_eq!(schedule.clock_change(at(due)), expected, "{line} at {due}");
        let jittered = schedule.with_jitter(std::time::Duration::from_secs(600), "a key");
        let offset = TimeDelta::from_std(jittered.offset).expect("small");
        assert!(!offset.is_zero());
        assert_eq!(jittered.clock_change(at(due) + offset), expected, "{line} at {due} with jitter");
    }
}
