//! [`Outlook::forecast`]: what the planner is going to decide about a pipeline.
//!
//! The planner itself is asked, at every instant at which it can decide something, so
//! that a forecast and the night that follows cannot disagree about a rule. What nothing
//! can know before, how long runs take, comes from earlier runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Decision, Pauses, Pipeline, PlanState, Planner, SkipReason};

/// Instants that one forecast looks at: the pipelines of a group may be due every second.
const MAX_INSTANTS: usize = 20_000;
/// Occurrences in a row that may be skipped before a forecast ends.
const MAX_SKIPPED: usize = 500;

/// What a forecast goes by.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// Every pipeline.
    pub pipelines: &'a [Arc<Pipeline>],
    /// The plan that the scheduler stored last.
    pub plan: &'a PlanState,
    /// The pauses there are.
    pub pauses: &'a Pauses,
    /// How long runs take, by pipeline; one that is not here ends at once.
    pub durations: &'a BTreeMap<String, TimeDelta>,
    /// The runs that go on, with the instants at which they are expected to end.
    pub running: &'a BTreeMap<String, DateTime<Utc>>,
}

/// What becomes of one occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// When it is due.
    pub due: DateTime<Utc>,
    /// When it starts, or why it does not.
    pub outcome: Result<DateTime<Utc>, SkipReason>,
    /// The pipeline or the blackout that it waits for first.
    pub waits_for: Option<String>,
}

impl Outlook<'_> {
    /// Returns what becomes of the occurrences of a pipeline from `now` on, up to the
    /// start number `starts`.
    pub fn forecast(&self, name: &str, now: DateTime<Utc>, starts: usize) -> Vec<Expected> {
        let mut simulation = Simulation::new(self, name, now);
        let mut at = now;
        for _ in 0..MAX_INSTANTS {
            simulation.step(at);
            let (started, skipped) = simulation.counts();
            if started >= starts || skipped >= MAX_SKIPPED {
                break;
            }
            let Some(next) = simulation.next_instant(at) else { break };
            at = next;
        }
        simulation.found
    }
}

struct Simulation<'a> {
    name: &'a str,
    planner: Planner,
    durations: &'a BTreeMap<String, TimeDelta>,
    /// The runs that go on, with their ends.
    running: BTreeMap<String, DateTime<Utc>>,
    /// What the occurrences of the pipeline wait for.
    waits: BTreeMap<DateTime<Utc>, String>,
    found: Vec<Expected>,
}

impl<'a> Simulation<'a> {
    fn new(outlook: &Outlook<'a>, name: &'a str, now: DateTime<Utc>) -> Simulation<'a> {
        let group = outlook.pipelines.iter().find(|it| it.name == name).and_then(|it| it.group.as_ref());
        let concerns = |it: &&Arc<Pipeline>| it.name == name || (group.is_some() && it.group.as_ref() == group);
        let pipelines: Vec<Arc<Pipeline>> = outlook.pipelines.iter().filter(concerns).cloned().collect();
        let mut planner = Planner::new(&pipelines, outlook.plan, now);
        planner.set_pauses(outlook.pauses.clone());
        let mut running = BTreeMap::new();
        for pipeline in &pipelines {
            if let Some(end) = outlook.running.get(&pipeline.name)
                && planner.begin(pipeline).is_ok()
            {
                running.insert(pipeline.name.clone(), *end);
            }
        }
        Simulation { name, planner, durations: outlook.durations, running, waits: BTreeMap::new(), found: Vec::new() }
    }

    /// Ends what has ended and lets the planner decide.
    fn step(&mut self, now: DateTime<Utc>) {
        let (ended, running) = std::mem::take(&mut self.running).into_iter().partition(|(_, end)| *end <= now);
        self.running = running;
        let ended: BTreeMap<String, DateTime<Utc>> = ended;
        ended.keys().for_each(|name| self.planner.finished(name));
        for decision in self.planner.tick(now) {
            self.note(decision, now);
        }
    }

    fn note(&mut self, decision: Decision, now: DateTime<Utc>) {
        match decision {
            Decision::Start { pipeline, scheduled_for } => {
                if pipeline == self.name {
                    self.found(scheduled_for, Ok(now));
                }
                // The scheduler looks once a second, so nothing that runs is shorter.
                let shortest = TimeDelta::seconds(1);
                let takes = self.durations.get(&pipeline).copied().unwrap_or(shortest).max(shortest);
                self.running.insert(pipeline, now.checked_add_signed(takes).unwrap_or(DateTime::<Utc>::MAX_UTC));
            }
            Decision::Skip { pipeline, scheduled_for, reason } if pipeline == self.name => {
                self.found(scheduled_for, Err(reason));
            }
            Decision::Queue { pipeline, scheduled_for, behind } if pipeline == self.name => {
                self.waits.insert(scheduled_for, behind);
            }
            // A run that is stopped ends soon; the scheduler looks once a second.
            Decision::Replace { pipeline, .. } => {
                self.running.insert(pipeline, now + TimeDelta::seconds(1));
            }
            Decision::Skip { .. } | Decision::Queue { .. } | Decision::ClockJump { .. } => {}
        }
    }

    fn found(&mut self, due: DateTime<Utc>, outcome: Result<DateTime<Utc>, SkipReason>) {
        let waits_for = self.waits.remove(&due);
        self.found.push(Expected { due, outcome, waits_for });
    }

    /// The number of starts, and of the skipped occurrences since the last one.
    fn counts(&self) -> (usize, usize) {
        let started = self.found.iter().filter(|found| found.outcome.is_ok()).count();
        (started, self.found.iter().rev().take_while(|found| found.outcome.is_err()).count())
    }

    fn next_instant(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = self.running.values().min().copied();
        [self.planner.next_wake(now), end].into_iter().flatten().filter(|at| *at > now).min()
    }
}
