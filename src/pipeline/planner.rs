//! [`Planner`]: decides what starts, from nothing but the time that is passed in.
//!
//! Pure: no clock, no task, no file. The owner feeds it instants, starts
//! what it says, tells it when a run ends, and keeps its [`PlanState`], so that
//! occurrences missed while sgcache was down can be made up for. Missed
//! occurrences are made up for by one run, never by all of them: a validation
//! reads today's state. A pipeline that is new, changed or was disabled starts
//! with its next occurrence; only our own downtime is caught up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{BlackoutAction, CatchUp, Pauses, Pipeline, Policy, Schedule};

/// A start that is later than this counts as missed and caught up.
const LATE: TimeDelta = TimeDelta::seconds(60);
/// Runs that catch up start this far apart, so that they do not come at once.
const SPACING: TimeDelta = TimeDelta::seconds(30);
/// Ticks further apart than this mean that the clock jumped or we stood still.
const JUMP: TimeDelta = TimeDelta::milliseconds(2500);
/// An occurrence handled further in the future than this was a clock gone wrong.
const IMPLAUSIBLE: TimeDelta = TimeDelta::days(1);

/// What must survive a restart: when each pipeline is due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanState {
    /// The plan of each scheduled pipeline, by name.
    pub pipelines: BTreeMap<String, PlanEntry>,
}

/// The plan of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The [`Pipeline::schedule_hash`] that it was made for.
    pub hash: String,
    /// The next occurrence, or the one that waits for its turn.
    pub next_at: Option<DateTime<Utc>>,
    /// The latest occurrence that was started or left out.
    pub last_handled_at: Option<DateTime<Utc>>,
}

/// What the planner says at a tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Start this pipeline now, and tell [`Planner::finished`] when it ended.
    Start {
        /// The pipeline.
        pipeline: String,
        /// The occurrence that the run is for.
        scheduled_for: DateTime<Utc>,
    },
    /// This occurrence is left out.
    Skip {
        /// The pipeline.
        pipeline: String,
        /// The occurrence.
        scheduled_for: DateTime<Utc>,
        /// Why.
        reason: SkipReason,
    },
    /// This occurrence waits until what is in its way has ended.
    Queue {
        /// The pipeline.
        pipeline: String,
        /// The occurrence.
        scheduled_for: DateTime<Utc>,
        /// What is in its way.
        behind: String,
    },
    /// The run of the pipeline that goes on is to be stopped; this occurrence waits for its
    /// end, and starts then.
    Replace {
        /// The pipeline.
        pipeline: String,
        /// The occurrence.
        scheduled_for: DateTime<Utc>,
    },
    /// The clock jumped, or the process stood still.
    ClockJump {
        /// By how many milliseconds; negative when it went back.
        milliseconds: i64,
    },
}

/// Why an occurrence is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// It is too long ago.
    Missed,
    /// The run before it has not ended.
    Running,
    /// Another pipeline of its group runs.
    GroupBusy(String),
    /// Another process of the data directory runs it, or one of this group.
    OtherProcess(Option<String>),
    /// Another host leads, and runs it.
    NotLeader(String),
    /// A newer occurrence took its place in the queue.
    Superseded,
    /// The pipeline is paused.
    Paused,
    /// It is too late after the hours in which it must not start.
    Blackout(String),
    /// It is due in hours in which nothing may be due.
    InBlackout(String),
}

impl SkipReason {
    /// Returns the word for metrics and reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            SkipReason::Missed => "missed",
            SkipReason::Running => "running",
            SkipReason::GroupBusy(_) | SkipReason::OtherProcess(Some(_)) => "group_busy",
            SkipReason::OtherProcess(None) => "running",
            SkipReason::NotLeader(_) => "not_leader",
            SkipReason::Superseded => "superseded",
            SkipReason::Paused => "paused",
            SkipReason::Blackout(_) | SkipReason::InBlackout(_) => "blackout",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkipReason::Missed => f.write_str("it was missed too long ago"),
            SkipReason::Running => f.write_str("the run before it has not ended"),
            SkipReason::GroupBusy(other) => write!(f, "`{other}` of the same group runs"),
            SkipReason::OtherProcess(None) => f.write_str("another process runs it"),
            SkipReason::OtherProcess(Some(group)) => write!(f, "another process runs one of the group `{group}`"),
            SkipReason::NotLeader(words) => f.write_str(words),
            SkipReason::Superseded => f.write_str("a newer occurrence took its place"),
            SkipReason::Paused => f.write_str("it is paused"),
            SkipReason::Blackout(name) => write!(f, "the blackout `{name}` was too long for its catch_up_window"),
            SkipReason::InBlackout(name) => write!(f, "the blackout `{name}` skips what is due in it"),
        }
    }
}

/// Decides what starts when.
#[derive(Debug)]
pub struct Planner {
    entries: BTreeMap<String, Entry>,
    /// Running pipelines with their groups.
    running: BTreeMap<String, Option<String>>,
    last_tick: Option<DateTime<Utc>>,
    pauses: Pauses,
}

#[derive(Debug)]
struct Entry {
    pipeline: Arc<Pipeline>,
    next_at: Option<DateTime<Utc>>,
    handled: Option<DateTime<Utc>>,
    waiting: Option<Waiting>,
    /// The occurrence that last waited for another process, and was announced.
    put_back: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Waiting {
    scheduled_for: DateTime<Utc>,
    not_before: DateTime<Utc>,
    announced: bool,
}

impl Planner {
    /// Returns a planner of these pipelines that continues a stored plan.
    /// Those that are disabled or have no schedule are not planned.
    pub fn new(pipelines: &[Arc<Pipeline>], stored: &PlanState, now: DateTime<Utc>) -> Planner {
        let mut planner =
            Planner { entries: BTreeMap::new(), running: BTreeMap::new(), last_tick: None, pauses: Pauses::default() };
        planner.replace(pipelines, stored, now);
        planner
    }

    /// Takes over who is paused.
    pub fn set_pauses(&mut self, pauses: Pauses) {
        self.pauses = pauses;
    }

    /// Takes over changed definitions; what runs goes on under the old ones.
    pub fn reload(&mut self, pipelines: &[Arc<Pipeline>], now: DateTime<Utc>) {
        let stored = self.state();
        self.replace(pipelines, &stored, now);
    }

    fn replace(&mut self, pipelines: &[Arc<Pipeline>], stored: &PlanState, now: DateTime<Utc>) {
        self.entries.clear();
        for pipeline in pipelines.iter().filter(|pipeline| pipeline.enabled) {
            let Some(schedule) = pipeline.schedule() else {
                continue;
            };
            let known = stored.pipelines.get(&pipeline.name);
            let entry = match known.filter(|entry| entry.hash == pipeline.schedule_hash) {
                Some(entry) => Entry {
                    pipeline: pipeline.clone(),
                    next_at: entry.next_at.or_else(|| schedule.next_after(now)),
                    handled: entry.last_handled_at,
                    waiting: None,
                    put_back: None,
                },
                None => Entry {
                    pipeline: pipeline.clone(),
                    next_at: schedule.next_after(now),
                    handled: None,
                    waiting: None,
                    put_back: None,
                },
            };
            self.entries.insert(pipeline.name.clone(), entry);
        }
    }

    /// Returns what must be stored. Occurrences in the queue count as not yet
    /// handled, so that they are found again after a restart.
    pub fn state(&self) -> PlanState {
        let plan = |entry: &Entry| PlanEntry {
            hash: entry.pipeline.schedule_hash.clone(),
            next_at: match &entry.waiting {
                Some(waiting) => Some(waiting.scheduled_for),
                None => entry.next_at,
            },
            last_handled_at: entry.handled,
        };
        PlanState { pipelines: self.entries.iter().map(|(name, entry)| (name.clone(), plan(entry))).collect() }
    }

    /// Returns when each pipeline is due next.
    pub fn next_runs(&self) -> BTreeMap<String, DateTime<Utc>> {
        self.entries.iter().filter_map(|(name, entry)| entry.next_at.map(|next| (name.clone(), next))).collect()
    }

    /// Returns the next instant at which a tick can decide something, apart from the
    /// ends of runs: something is due, a catch-up may start, or a blackout ends.
    pub(super) fn next_wake(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let of_entry = |entry: &Entry| {
            let waiting = entry.waiting.as_ref();
            let not_before = waiting.map(|waiting| waiting.not_before).filter(|at| *at > now);
            let blackouts = entry.pipeline.blackouts.iter().filter(|_| waiting.is_some());
            let ends = blackouts.filter_map(|blackout| blackout.until(now)).max();
            [entry.next_at.filter(|at| *at > now), not_before, ends].into_iter().flatten().min()
        };
        self.entries.values().filter_map(of_entry).min()
    }

    /// Says what happens now.
    pub fn tick(&mut self, now: DateTime<Utc>) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.notice_jump(now, &mut decisions);
        self.collect_due(now, &mut decisions);
        self.start_waiting(now, &mut decisions);
        decisions
    }

    /// Claims a pipeline for a run that was asked for by hand.
    ///
    /// # Errors
    ///
    /// What is in its way.
    pub fn begin(&mut self, pipeline: &Pipeline) -> Result<(), SkipReason> {
        match self.obstacle(&pipeline.name, pipeline.group.as_deref()) {
            Some(reason) => Err(reason),
            None => {
                let group = pipeline.group.clone();
                self.running.insert(pipeline.name.clone(), group);
                Ok(())
            }
        }
    }

    /// Takes back a start that another process stands in the way of: the occurrence
    /// waits or is left out, as the policy says.
    pub fn put_back(&mut self, name: &str, scheduled_for: DateTime<Utc>, reason: SkipReason) -> Option<Decision> {
        self.running.remove(name);
        let entry = self.entries.get_mut(name)?;
        if entry.pipeline.policy == Policy::Skip {
            return Some(skip(name, scheduled_for, reason));
        }
        let announced = entry.put_back.replace(scheduled_for) == Some(scheduled_for);
        entry.waiting.get_or_insert(Waiting { scheduled_for, not_before: scheduled_for, announced: true });
        let behind = reason.to_string();
        (!announced).then(|| Decision::Queue { pipeline: name.to_owned(), scheduled_for, behind })
    }

    /// Notes that the run of a pipeline has ended.
    pub fn finished(&mut self, pipeline: &str) {
        self.running.remove(pipeline);
    }

    fn notice_jump(&mut self, now: DateTime<Utc>, decisions: &mut Vec<Decision>) {
        let gap = self.last_tick.map(|last| now - last);
        self.last_tick = Some(now);
        let Some(gap) = gap.filter(|gap| *gap > JUMP || *gap < TimeDelta::zero()) else {
            return;
        };
        decisions.push(Decision::ClockJump { milliseconds: gap.num_milliseconds() });
        if gap < TimeDelta::zero() {
            self.replan_from(now);
        }
    }

    /// After the clock went back the plan lies too far ahead. What was handled
    /// is not handled twice, unless that lies too far ahead to be believed.
    fn replan_from(&mut self, now: DateTime<Utc>) {
        for entry in self.entries.values_mut() {
            entry.handled = entry.handled.filter(|handled| *handled < now + IMPLAUSIBLE);
            let from = entry.handled.map_or(now, |handled| handled.max(now));
            let schedule = entry.pipeline.schedule();
            entry.next_at = schedule.and_then(|schedule| schedule.next_after(from));
        }
    }

    fn collect_due(&mut self, now: DateTime<Utc>, decisions: &mut Vec<Decision>) {
        let mut caught_up = 0;
        for (name, entry) in &mut self.entries {
            let Some(due) = entry.next_at.filter(|next| *next <= now) else {
                continue;
            };
            let pipeline = entry.pipeline.clone();
            let Some(schedule) = pipeline.schedule() else {
                continue;
            };
            let newest = schedule.latest_between(due, now);
            entry.next_at = schedule.next_after(now);
            // A pause may have begun and ended while sgcache was down: what was due
            // during it is left out all the same.
            let Some(latest) = latest_outside_pauses(schedule, &self.pauses, name, (due, newest)) else {
                entry.handled = Some(newest);
                decisions.push(skip(name, newest, SkipReason::Paused));
                continue;
            };
            let late = now - latest;
            if missed(schedule, late) {
                entry.handled = Some(latest);
                decisions.push(skip(name, latest, SkipReason::Missed));
                continue;
            }
            let mut not_before = now;
            if late > LATE {
                not_before = now + SPACING * caught_up;
                caught_up += 1;
            }
            let newer = Waiting { scheduled_for: latest, not_before, announced: false };
            if let Some(older) = entry.waiting.replace(newer) {
                decisions.push(skip(name, older.scheduled_for, SkipReason::Superseded));
            }
        }
    }

    fn start_waiting(&mut self, now: DateTime<Utc>, decisions: &mut Vec<Decision>) {
        for name in self.waiting_in_order(now) {
            let Some(entry) = self.entries.get(&name) else {
                continue;
            };
            let pipeline = entry.pipeline.clone();
            let obstacle = self.hold(&pipeline, now).or_else(|| self.obstacle(&name, pipeline.group.as_deref()));
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            let Some(mut waiting) = entry.waiting.take() else {
                continue;
            };
            let scheduled_for = waiting.scheduled_for;
            match obstacle {
                None => {
                    entry.handled = Some(scheduled_for);
                    self.running.insert(name.clone(), pipeline.group.clone());
                    decisions.push(Decision::Start { pipeline: name, scheduled_for });
                }
                Some(reason) if !waits(&pipeline, &reason, now - scheduled_for) => {
                    entry.handled = Some(scheduled_for);
                    decisions.push(skip(&name, scheduled_for, reason));
                }
                Some(SkipReason::Running) if pipeline.policy == Policy::Replace => {
                    if !waiting.announced {
                        decisions.push(Decision::Replace { pipeline: name, scheduled_for });
                    }
                    waiting.announced = true;
                    entry.waiting = Some(waiting);
                }
                Some(reason) => {
                    if !waiting.announced {
                        decisions.push(Decision::Queue {
                            behind: match reason {
                                SkipReason::GroupBusy(other) | SkipReason::Blackout(other) => other,
                                _ => name.clone(),
                            },
                            pipeline: name,
                            scheduled_for,
                        });
                    }
                    waiting.announced = true;
                    entry.waiting = Some(waiting);
                }
            }
        }
    }

    /// The names of those whose turn it is, the longest waiting first.
    fn waiting_in_order(&self, now: DateTime<Utc>) -> Vec<String> {
        let mut waiting: Vec<(DateTime<Utc>, &String)> = self
            .entries
            .iter()
            .filter_map(|(name, entry)| entry.waiting.as_ref().map(|waiting| (waiting, name)))
            .filter(|(waiting, _)| waiting.not_before <= now)
            .map(|(waiting, name)| (waiting.scheduled_for, name))
            .collect();
        waiting.sort();
        waiting.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// What keeps a pipeline from starting although nothing of it runs.
    fn hold(&self, pipeline: &Pipeline, now: DateTime<Utc>) -> Option<SkipReason> {
        if self.pauses.of(&pipeline.name, now).is_some() {
            return Some(SkipReason::Paused);
        }
        let mut holding = pipeline.blackouts.iter().filter(|blackout| blackout.until(now).is_some());
        let first = holding.next()?;
        // Of several that hold now, one that skips decides.
        let skips = |blackout: &&super::Blackout| blackout.action == BlackoutAction::Skip;
        match std::iter::once(first).chain(holding).find(skips) {
            Some(blackout) => Some(SkipReason::InBlackout(blackout.name.clone())),
            None => Some(SkipReason::Blackout(first.name.clone())),
        }
    }

    fn obstacle(&self, name: &str, group: Option<&str>) -> Option<SkipReason> {
        if self.running.contains_key(name) {
            return Some(SkipReason::Running);
        }
        let group = group?;
        let same = |other: &Option<String>| other.as_deref() == Some(group);
        let (other, _) = self.running.iter().find(|(_, group)| same(group))?;
        Some(SkipReason::GroupBusy(other.clone()))
    }
}

/// Returns the latest of the occurrences from `first` to `last` that no pause
/// covers.
fn latest_outside_pauses(
    schedule: &Schedule,
    pauses: &Pauses,
    pipeline: &str,
    (first, last): (DateTime<Utc>, DateTime<Utc>),
) -> Option<DateTime<Utc>> {
    let mut latest = last;
    // Every pause found ends before the one found before began, so this ends.
    while let Some(pause) = pauses.covering(pipeline, latest) {
        if pause.since <= first {
            return None;
        }
        let before = pause.since.checked_sub_signed(TimeDelta::nanoseconds(1))?;
        latest = schedule.latest_between(first, before);
    }
    Some(latest)
}

/// Tells whether an occurrence waits for what is in its way.
fn waits(pipeline: &Pipeline, reason: &SkipReason, late: TimeDelta) -> bool {
    match reason {
        SkipReason::Paused | SkipReason::InBlackout(_) => false,
        SkipReason::Blackout(_) => pipeline.schedule().is_some_and(|schedule| late <= window(schedule)),
        _ => pipeline.policy != Policy::Skip,
    }
}

fn window(schedule: &Schedule) -> TimeDelta {
    TimeDelta::from_std(schedule.catch_up_window).unwrap_or(TimeDelta::MAX)
}

fn missed(schedule: &Schedule, late: TimeDelta) -> bool {
    late > LATE && (schedule.catch_up == CatchUp::Skip || late > window(schedule))
}

fn skip(pipeline: &str, scheduled_for: DateTime<Utc>, reason: SkipReason) -> Decision {
    Decision::Skip { pipeline: pipeline.to_owned(), scheduled_for, reason }
}
