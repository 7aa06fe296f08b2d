//! [`Explanation`]: when a pipeline runs next and why, and why past occurrences did not.
//!
//! Facts in, data out: no file, no state, no clock. The command line draws it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::{
    BlackoutAction, CatchUp, ClockChange, Expected, Outlook, Pause, Pipeline, Policy, RunBudget, Schedule, SkipReason,
    Start,
};
use crate::report::{RunReport, Trigger};
use crate::yaml::format_duration;

/// Past occurrences that are shown.
const PAST: usize = 10;
/// Starts that are later than this are shown with their delay.
const LATE: TimeDelta = TimeDelta::seconds(60);

/// What an explanation is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What the forecast goes by.
    pub outlook: Outlook<'a>,
    /// The history of the pipeline, newest first, with occurrences that did not run.
    pub history: &'a [RunReport],
    /// The zone of a pipeline without a schedule.
    pub timezone: Tz,
    /// The present.
    pub now: DateTime<Utc>,
    /// How many starts are forecast.
    pub starts: usize,
}

/// When a pipeline runs and why.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Its name.
    pub pipeline: String,
    /// What it is for.
    pub description: String,
    /// The zone of its schedule.
    pub timezone: String,
    /// When it starts, in words.
    pub starts: String,
    /// Its cron lines.
    pub cron: Vec<String>,
    /// What else decides about its starts: jitter, overlap, blackouts, catch-up.
    pub rules: Vec<Rule>,
    /// What it does now; why it does not start by itself, if so.
    pub state: String,
    /// How long its runs take.
    pub typical: Option<Typical>,
    /// What becomes of the next occurrences.
    pub next: Vec<NextOccurrence>,
    /// What became of the last ones, newest first.
    pub past: Vec<PastOccurrence>,
}

/// One thing that decides about starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The key of the file, without its section.
    pub name: &'static str,
    /// What it does here.
    pub effect: String,
}

/// What runs that did their work took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Typical {
    /// The number of runs.
    pub runs: usize,
    /// The median of their durations.
    pub median_seconds: f64,
    /// The longest one.
    pub longest_seconds: f64,
    /// The median of the requests that they sent to the site.
    pub median_requests: u64,
}

/// What is expected of one occurrence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NextOccurrence {
    /// When it is due.
    pub due: DateTime<Utc>,
    /// The same in the zone of the schedule, RFC 3339.
    pub local: String,
    /// When it starts; `None` when it is skipped.
    pub starts_at: Option<DateTime<Utc>>,
    /// Why it starts later, or not at all, or at another time than the cron line names.
    pub remarks: Vec<String>,
}

/// What became of one occurrence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastOccurrence {
    /// When it was due.
    pub due: DateTime<Utc>,
    /// The same in the zone of the schedule, RFC 3339.
    pub local: String,
    /// The status of its run; `skipped`, `running`, or `no run` when nothing is known of it.
    pub status: String,
    /// Its run, if there was one.
    pub run_id: Option<String>,
    /// How long that took.
    pub duration_seconds: Option<f64>,
    /// Why it did not run, ran late, or ended as it did.
    pub remarks: Vec<String>,
}

impl Explanation {
    /// Explains a pipeline.
    pub fn of(pipeline: &Pipeline, facts: &Facts<'_>) -> Explanation {
        let schedule = pipeline.schedule();
        let zone = schedule.map_or(facts.timezone, |schedule| schedule.timezone);
        let pause = facts.outlook.pauses.of(&pipeline.name, facts.now);
        let next = match schedule {
            Some(schedule) if pipeline.enabled => next_of(pipeline, schedule, facts),
            _ => Vec::new(),
        };
        Explanation {
            pipeline: pipeline.name.clone(),
            description: pipeline.description.clone(),
            timezone: zone.name().to_owned(),
            starts: pipeline.starts(),
            cron: schedule.map(|schedule| schedule.written.clone()).unwrap_or_default(),
            rules: schedule.map(|schedule| rules(pipeline, schedule, facts)).unwrap_or_default(),
            state: state(pipeline, pause, facts),
            typical: Typical::of(facts.history),
            next,
            past: schedule.map(|schedule| past(pipeline, schedule, facts)).unwrap_or_default(),
        }
    }
}

impl Typical {
    /// Returns what the runs that did their work took; `None` without any.
    pub fn of(history: &[RunReport]) -> Option<Typical> {
        let worked = |report: &&RunReport| !report.is_running() && report.status.worked();
        let runs: Vec<&RunReport> = history.iter().filter(worked).collect();
        let mut durations: Vec<f64> = runs.iter().map(|report| report.duration_seconds()).collect();
        let mut requests: Vec<u64> = runs.iter().map(|report| report.requests).collect();
        durations.sort_by(f64::total_cmp);
        requests.sort_unstable();
        Some(Typical {
            runs: runs.len(),
            median_seconds: *durations.get(runs.len() / 2)?,
            longest_seconds: *durations.last()?,
            median_requests: *requests.get(runs.len() / 2)?,
        })
    }

    /// Returns the median of their durations.
    pub fn duration(&self) -> TimeDelta {
        TimeDelta::milliseconds((self.median_seconds * 1000.0) as i64)
    }
}

fn rules(pipeline: &Pipeline, schedule: &Schedule, facts: &Facts<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add = |name, effect| rules.push(Rule { name, effect });
    if !schedule.jitter.is_zero() {
        let (part, whole) = (format_duration(schedule.offset), format_duration(schedule.jitter));
        add("jitter", format!("always {part} after the cron line, a fixed part of {whole}"));
    }
    let window = format_duration(schedule.catch_up_window);
    add(
        "catch_up",
        match schedule.catch_up {
            CatchUp::Once => format!("once: one run makes up for what was missed in the last {window}"),
            CatchUp::Skip => "skip: what was missed while no daemon ran is skipped".to_owned(),
        },
    );
    let members: Vec<String> = others_of_group(pipeline, facts).map(|other| format!("`{other}`")).collect();
    let beside = match (&pipeline.group, members.as_slice()) {
        (Some(group), []) => format!(" or another pipeline of the group `{group}`"),
        (Some(group), members) => format!(" or another of the group `{group}` ({})", members.join(", ")),
        (None, _) => String::new(),
    };
    let policy = match pipeline.policy {
        Policy::Skip => "skip: skipped",
        Policy::Queue => "queue: waits",
        Policy::Replace => "replace: stops the run before, or waits",
    };
    add("concurrency", format!("{policy} while it{beside} runs"));
    for blackout in &pipeline.blackouts {
        let (begins, lasts) = (blackout.begins.describe(), format_duration(blackout.duration));
        let effect = match blackout.action {
            BlackoutAction::Defer => "starts after it",
            BlackoutAction::Skip => "what is due in it is skipped",
            BlackoutAction::Pause => "starts after it, and what runs waits",
        };
        add("blackout", format!("`{}`: {begins} for {lasts}; {effect}", blackout.name));
    }
    if let Some(limit) = schedule.overdue_after {
        add("overdue_after", format!("alarm without a run that worked for {}", format_duration(limit)));
    }
    let RunBudget { max_requests, max_rps } = pipeline.budget;
    if let Some(most) = max_requests {
        add("budget", format!("at most {most} requests per run; one that needs more ends as warn"));
    }
    if let Some(rate) = max_rps {
        add("budget", format!("at most {rate} requests per second"));
    }
    rules
}

fn others_of_group<'a>(pipeline: &'a Pipeline, facts: &Facts<'a>) -> impl Iterator<Item = &'a str> {
    let same = |other: &&'a std::sync::Arc<Pipeline>| {
        other.enabled && other.name != pipeline.name && pipeline.group.is_some() && other.group == pipeline.group
    };
    facts.outlook.pipelines.iter().filter(same).map(|other| other.name.as_str())
}

/// What the pipeline does now, or why it does not start by itself.
fn state(pipeline: &Pipeline, pause: Option<&Pause>, facts: &Facts<'_>) -> String {
    let running = facts.history.iter().find(|report| report.is_running());
    if let Some(run) = running {
        return format!("running since {} (run {})", run.started_at.format("%Y-%m-%d %H:%M:%S UTC"), run.run_id);
    }
    if !pipeline.enabled {
        return "disabled: `enabled: false` in its file; it starts on request only with `run --once`".to_owned();
    }
    match (pause, &pipeline.start) {
        (Some(pause), _) => pause.describe(),
        (None, Start::Manual) => "idle: it has no schedule and starts on request".to_owned(),
        (None, _) => "idle".to_owned(),
    }
}

fn next_of(pipeline: &Pipeline, schedule: &Schedule, facts: &Facts<'_>) -> Vec<NextOccurrence> {
    let expected = facts.outlook.forecast(&pipeline.name, facts.now, facts.starts);
    let occurrence = |expected: &Expected| NextOccurrence {
        due: expected.due,
        local: expected.due.with_timezone(&schedule.timezone).to_rfc3339(),
        starts_at: expected.outcome.as_ref().ok().copied(),
        remarks: remarks(pipeline, schedule, facts, expected),
    };
    expected.iter().map(occurrence).collect()
}

fn remarks(pipeline: &Pipeline, schedule: &Schedule, facts: &Facts<'_>, expected: &Expected) -> Vec<String> {
    let mut remarks: Vec<String> = clock_remark(schedule, expected.due).into_iter().collect();
    match &expected.outcome {
        // Whether something still runs then depends on how long runs take.
        Err(reason @ (SkipReason::Running | SkipReason::GroupBusy(_))) => {
            remarks.push(format!("probably skipped: {reason}"));
        }
        Err(reason) => remarks.push(format!("skipped: {reason}")),
        Ok(start) if *start > expected.due.max(facts.now) => {
            remarks.push(delayed(pipeline, schedule.timezone, facts, expected, *start));
        }
        Ok(_) if expected.due <= facts.now => {
            remarks.push("was due and has not run: a daemon that runs starts it now".to_owned());
        }
        Ok(_) => {}
    }
    remarks
}

/// Says what an occurrence waits for, and until when as far as that is known.
fn delayed(pipeline: &Pipeline, zone: Tz, facts: &Facts<'_>, expected: &Expected, start: DateTime<Utc>) -> String {
    let start = start.with_timezone(&zone).format("%H:%M:%S");
    let waits_for = expected.waits_for.as_deref().unwrap_or(&pipeline.name);
    if pipeline.blackouts.iter().any(|blackout| blackout.name == waits_for) {
        return format!("starts at {start}, after the blackout `{waits_for}`");
    }
    let outlook = &facts.outlook;
    match (outlook.durations.contains_key(waits_for), outlook.running.contains_key(waits_for)) {
        (true, _) => format!("waits for `{waits_for}`, which usually ends by {start}"),
        (false, true) => format!("waits for `{waits_for}`, which runs now"),
        (false, false) => format!("waits for `{waits_for}`, which is due at the same time"),
    }
}

fn clock_remark(schedule: &Schedule, due: DateTime<Utc>) -> Option<String> {
    let shown = due.checked_sub_signed(TimeDelta::from_std(schedule.offset).ok()?)?.with_timezone(&schedule.timezone);
    let shown = shown.format("%H:%M");
    Some(match schedule.clock_change(due)? {
        ClockChange::Gap(named) => {
            format!("clocks go forward: {} does not exist, runs at {shown}", named.format("%H:%M"))
        }
        ClockChange::First => format!("clocks go back: {shown} comes twice, runs once, at the first"),
        ClockChange::Both => format!("clocks go back: {shown} comes twice, runs at both"),
    })
}

/// What became of the last occurrences since the history of the pipeline begins.
fn past(pipeline: &Pipeline, schedule: &Schedule, facts: &Facts<'_>) -> Vec<PastOccurrence> {
    let by_occurrence: BTreeMap<DateTime<Utc>, &RunReport> =
        facts.history.iter().filter_map(|report| Some((report.scheduled_for?, report))).collect();
    let Some(begin) = by_occurrence.keys().next().copied() else { return Vec::new() };
    let before = begin - TimeDelta::seconds(1);
    let mut found = Vec::new();
    let mut until = facts.now;
    while found.len() < PAST {
        // An occurrence of an older definition of the schedule is in the history only.
        let of_schedule = schedule.last_in(before, until);
        let of_history = by_occurrence.range(..=until).next_back().map(|(due, _)| *due);
        let Some(due) = of_schedule.max(of_history) else { break };
        let mut occurrence = match by_occurrence.get(&due) {
            Some(report) => recorded(report, schedule.timezone),
            None => unrecorded(pipeline, due, schedule.timezone, facts),
        };
        occurrence.due = due;
        found.push(occurrence);
        let Some(earlier) = due.checked_sub_signed(TimeDelta::nanoseconds(1)) else { break };
        until = earlier;
    }
    found
}

fn recorded(report: &RunReport, zone: Tz) -> PastOccurrence {
    let due = report.scheduled_for.unwrap_or(report.started_at);
    let mut remarks = Vec::new();
    let late = report.started_at - due;
    if !report.is_skipped_occurrence() && late > LATE {
        let late = late.to_std().map(|late| format_duration(std::time::Duration::from_secs(late.as_secs())));
        let waited = report.waited_for.as_ref().map(|other| match other.contains(' ') {
            // What another process keeps back says so in a sentence.
            true => format!(": {other}"),
            false => format!(": it waited for `{other}`"),
        });
        remarks.push(format!("started {} late{}", late.unwrap_or_default(), waited.unwrap_or_default()));
    }
    remarks.extend(report.reason.clone());
    let ended = !report.is_running();
    PastOccurrence {
        due,
        local: due.with_timezone(&zone).to_rfc3339(),
        status: if ended { report.status.to_string() } else { "running".to_owned() },
        run_id: (!report.is_skipped_occurrence()).then(|| report.run_id.clone()),
        duration_seconds: (ended && !report.is_skipped_occurrence()).then(|| report.duration_seconds()),
        remarks,
    }
}

/// An occurrence that left no trace: why, as far as it is known.
fn unrecorded(pipeline: &Pipeline, due: DateTime<Utc>, zone: Tz, facts: &Facts<'_>) -> PastOccurrence {
    let planned = facts.outlook.plan.pipelines.get(&pipeline.name).and_then(|entry| entry.next_at);
    // What was missed is made up for by the run of the next occurrence that is known of.
    let mut newer = facts.history.iter().rev();
    let newer = newer.find(|report| report.scheduled_for.is_some_and(|newer| newer > due));
    let late = |report: &&RunReport| report.scheduled_for.is_some_and(|due| report.started_at - due > LATE);
    let caught_up = newer.filter(|report| report.trigger == Trigger::Cron).filter(late);
    let reason = match (facts.outlook.pauses.covering(&pipeline.name, due), caught_up) {
        (Some(pause), _) => pause.describe(),
        _ if planned.is_some_and(|next| next <= due) => "no daemon has run since".to_owned(),
        (None, Some(run)) if !run.is_skipped_occurrence() => {
            format!("no daemon ran; run {} made up for it", run.run_id)
        }
        _ => "no daemon ran, or the schedule was another one".to_owned(),
    };
    PastOccurrence {
        due,
        local: due.with_timezone(&zone).to_rfc3339(),
        status: "no run".to_owned(),
        run_id: None,
        duration_seconds: None,
        remarks: vec![reason],
    }
}
