//! The gauges about scheduled tasks: when they run next, how often they should,
//! and whether they run now.
//!
//! An expected interval is set only for steps that run in every run of their
//! pipeline. Hooks and conditional steps rightly do not run for weeks, so an alert
//! about overdue tasks must not see an interval of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::Utc;
use parking_lot::RwLock;

use crate::metrics::Metrics;
use crate::pipeline::{Event, Pipeline, PlanState, SkipReason};

/// Keeps the gauges; a task is a step of a pipeline.
pub struct TaskGauges {
    metrics: Metrics,
    steps: RwLock<BTreeMap<String, Vec<String>>>,
}

impl TaskGauges {
    /// Sets what follows from the definitions.
    pub fn new(metrics: Metrics, pipelines: &[Arc<Pipeline>], plan: &PlanState) -> Self {
        let gauges = Self { metrics, steps: RwLock::default() };
        gauges.define(pipelines);
        gauges.planned(plan);
        gauges
    }

    fn define(&self, pipelines: &[Arc<Pipeline>]) {
        let ids =
            |pipeline: &Pipeline| pipeline.steps.iter().chain(&pipeline.on_drift).map(|step| step.id.clone()).collect();
        let steps = pipelines.iter().map(|pipeline| (pipeline.name.clone(), ids(pipeline))).collect();
        // A panic elsewhere cannot leave a map torn.
        *self.steps.write() = steps;
        for pipeline in pipelines {
            // The longest of the next pauses: a schedule of weekdays has long ones.
            let next = pipeline.next_runs(Utc::now(), 8);
            let longest = next.windows(2).map(|pair| (pair[1] - pair[0]).num_seconds()).max();
            let Some(seconds) = longest else { continue };
            for step in unconditional_steps(pipeline) {
                self.metrics.tasks.expected_interval.set(&[&pipeline.name, step], seconds as f64);
            }
        }
    }

    /// Updates the gauges after an event of the scheduler.
    pub fn note(&self, event: &Event) {
        match event {
            Event::Started(report) => self.running(&report.pipeline, true),
            Event::Ended(report) => self.running(&report.pipeline, false),
            Event::Skipped { pipeline, reason, .. } => {
                let reason = match reason {
                    SkipReason::Running | SkipReason::GroupBusy(_) | SkipReason::OtherProcess(_) => "overlap",
                    SkipReason::Missed => "missed",
                    SkipReason::Paused => "paused",
                    SkipReason::Blackout(_) | SkipReason::InBlackout(_) => "blackout",
                    SkipReason::NotLeader(_) | SkipReason::Superseded => "other",
                };
                self.each(pipeline, |[pipeline, step]| self.metrics.tasks.skipped.inc(&[pipeline, step, reason]));
            }
            Event::Planned(plan) => self.planned(plan),
            Event::Paused { pipeline, paused } => {
                self.each(pipeline, |task| self.metrics.tasks.paused.set(task, f64::from(u8::from(*paused))));
            }
            Event::Reloaded(pipelines) => self.define(pipelines),
            Event::Beat(now) => self.metrics.scheduler.last_tick.set(now.timestamp() as f64),
            Event::ClockJump(_) => self.metrics.scheduler.clock_jumps.inc(),
            Event::Queued { .. } => {}
        }
    }

    fn running(&self, pipeline: &str, running: bool) {
        self.each(pipeline, |task| self.metrics.tasks.running.set(task, f64::from(u8::from(running))));
    }

    fn planned(&self, plan: &PlanState) {
        for (pipeline, entry) in &plan.pipelines {
            if let Some(next) = entry.next_at {
                self.each(pipeline, |task| self.metrics.tasks.next_run.set_moment(task, next));
            }
        }
    }

    fn each(&self, pipeline: &str, set: impl Fn(&[&str; 2])) {
        let steps = self.steps.read();
        for step in steps.get(pipeline).map(Vec::as_slice).unwrap_or_default() {
            set(&[pipeline, step]);
        }
    }
}

/// Returns the ids of the steps that run whenever their pipeline does: those without
/// a condition that need only such steps.
fn unconditional_steps(pipeline: &Pipeline) -> BTreeSet<&str> {
    let mut unconditional = BTreeSet::new();
    // Steps are in the order in which they run, so what a step needs comes before it.
    for step in &pipeline.steps {
        if step.when.is_none() && step.needs.iter().all(|id| unconditional.contains(id.as_str())) {
            unconditional.insert(step.id.as_str());
        }
    }
    unconditional
}
