//! The gauges about scheduled tasks: when they run next, how often they should,
//! and whether they run now.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;

use crate::metrics::Metrics;
use crate::pipeline::{Event, Pipeline, PlanState, SkipReason};

/// Keeps the gauges; a task is a step of a pipeline.
pub struct TaskGauges {
    metrics: Metrics,
    steps: BTreeMap<String, Vec<String>>,
}

impl TaskGauges {
    /// Sets what the definitions tell.
    pub fn new(metrics: Metrics, pipelines: &[Arc<Pipeline>], plan: &PlanState) -> Self {
        let ids =
            |pipeline: &Pipeline| pipeline.steps.iter().chain(&pipeline.on_drift).map(|step| step.id.clone()).collect();
        let steps = pipelines.iter().map(|pipeline| (pipeline.name.clone(), ids(pipeline))).collect();
        let gauges = Self { metrics, steps };
        for pipeline in pipelines {
            // The longest of the next pauses: a schedule of weekdays has long ones.
            let next = pipeline.next_runs(Utc::now(), 8);
            let longest = next.windows(2).map(|pair| (pair[1] - pair[0]).num_seconds()).max();
            if let Some(seconds) = longest {
                gauges.each(&pipeline.name, |task| gauges.metrics.tasks.expected_interval.set(task, seconds as f64));
            }
        }
        gauges.planned(plan);
        gauges
    }

    /// Takes note of what happened.
    pub fn note(&self, event: &Event) {
        match event {
            Event::Started(report) => self.running(&report.pipeline, true),
            Event::Ended(report) => self.running(&report.pipeline, false),
            Event::Skipped { pipeline, reason, .. } => {
                let reason = match reason {
                    SkipReason::Running | SkipReason::GroupBusy(_) => "overlap",
                    SkipReason::Missed => "missed",
                    SkipReason::Superseded => "other",
                };
                self.each(pipeline, |[pipeline, step]| self.metrics.tasks.skipped.inc(&[pipeline, step, reason]));
            }
            Event::Planned(plan) => self.planned(plan),
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
        for step in self.steps.get(pipeline).map(Vec::as_slice).unwrap_or_default() {
            set(&[pipeline, step]);
        }
    }
}
