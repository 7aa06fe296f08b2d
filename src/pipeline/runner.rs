//! [`Runner`]: runs the steps of a pipeline and makes a report of it.
//!
//! It knows the order of steps, conditions, retries, time limits and what a
//! result means; what a job does is an [`Execute`] function. A run always ends
//! with a report, also when a job panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::context::{Context, RunFacts};
use super::run_events::{RunEvent, RunObserver};
use super::steps::Run;
use super::{Alarm, BlackoutAction, Deliver, ErrorClass, JobSpec, Pipeline, Previous, ResolveContext, RunBudget, Site};
use crate::budget::RunLimits;
use crate::report::{HookReport, RunReport, RunStart, Status, StepReport, StepResult, Trigger, new_run_id};
use crate::validate::SoFar;
use crate::yaml::{Templates, did_you_mean};

/// Does a job. It should stop soon after `JobContext::cancel` is cancelled, with
/// [`JobError::stopped`]; a result says that the work was done.
pub type Execute = Arc<dyn Fn(JobSpec, JobContext) -> BoxFuture<'static, Result<StepResult, JobError>> + Send + Sync>;

/// Finds out how the last run of a pipeline ended, by its name.
pub type PreviousSource = Arc<dyn Fn(String) -> BoxFuture<'static, Option<Previous>> + Send + Sync>;

/// Says what time it is, for reports and expressions.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Why a job broke.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct JobError {
    /// The kind of failure: decides about another attempt and the exit code.
    pub class: ErrorClass,
    /// What happened, for a person, without secrets.
    pub message: String,
    /// What a job that was stopped had found and done by then.
    pub so_far: Option<Box<StepResult>>,
}

impl JobError {
    /// Returns an error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> JobError {
        JobError { class, message: message.into(), so_far: None }
    }

    /// Returns how a job ends that was stopped before its work was done.
    pub fn stopped(so_far: StepResult) -> JobError {
        JobError { so_far: Some(Box::new(so_far)), ..JobError::new(ErrorClass::Internal, "was stopped") }
    }
}

/// What a job may know about the run it is part of.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// ULID of the run.
    pub run_id: String,
    /// The pipeline.
    pub pipeline: Arc<Pipeline>,
    /// Id of the step.
    pub step: String,
    /// What started the run.
    pub trigger: Trigger,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The results of the steps before, with their mismatches, by step id.
    pub results: BTreeMap<String, Arc<StepResult>>,
    /// Cancelled when the job should stop.
    pub cancel: CancellationToken,
    /// What it has found by now.
    pub so_far: SoFar,
}

/// Which steps of a run do their work.
#[derive(Debug, Clone, Default)]
pub struct StepChoice {
    /// Ids of those that do; `None` for all. The others count as met where a step needs them.
    pub chosen: Option<BTreeSet<String>>,
    /// Ended steps of an earlier run, whose results stand for those that are left out.
    pub carried: Vec<StepReport>,
    /// That run.
    pub carried_from: Option<String>,
}

impl StepChoice {
    /// Returns the choice of a step and all that run after it.
    ///
    /// # Errors
    ///
    /// Words about an id that no step has.
    pub fn starting_at(pipeline: &Pipeline, id: &str) -> Result<StepChoice, String> {
        StepChoice::only(pipeline, &[id.to_owned()])?;
        let ids = pipeline.steps.iter().map(|step| step.id.clone());
        Ok(StepChoice { chosen: Some(ids.skip_while(|step| step != id).collect()), ..StepChoice::default() })
    }

    /// Returns the same choice, with the results of an earlier run for the steps before.
    ///
    /// # Errors
    ///
    /// As [`StepChoice::starting_at`], or when that run has no result of a step before.
    pub fn resuming(pipeline: &Pipeline, id: &str, earlier: RunReport) -> Result<StepChoice, String> {
        let choice = StepChoice::starting_at(pipeline, id)?;
        let has_ended = |id: &str| earlier.steps.iter().any(|step| step.id == id);
        let before = pipeline.steps.iter().take_while(|step| step.id != id);
        if let Some(missing) = before.map(|step| &step.id).find(|id| !has_ended(id)) {
            return Err(format!("run {} has no result of the step `{missing}`: go on there", earlier.run_id));
        }
        Ok(StepChoice { carried: earlier.steps, carried_from: Some(earlier.run_id), ..choice })
    }

    /// Returns the choice of these steps.
    ///
    /// # Errors
    ///
    /// Words about an id that no step has.
    pub fn only(pipeline: &Pipeline, ids: &[String]) -> Result<StepChoice, String> {
        let known: Vec<&str> = pipeline.steps.iter().map(|step| step.id.as_str()).collect();
        if let Some(id) = ids.iter().find(|id| !known.contains(&id.as_str())) {
            let help = did_you_mean(id, &known).map_or(String::new(), |help| format!(" ({help})"));
            return Err(format!("`{}` has no step `{id}`{help}", pipeline.name));
        }
        Ok(StepChoice { chosen: Some(ids.iter().cloned().collect()), ..StepChoice::default() })
    }

    pub(super) fn leaves_out(&self, id: &str) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| !chosen.contains(id))
    }
}

/// What is asked for: one run.
#[derive(Debug, Clone)]
pub struct RunOrder {
    /// ULID of the run.
    pub run_id: String,
    /// What started it.
    pub trigger: Trigger,
    /// The occurrence it is for.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// What the occurrence waited for before.
    pub waited_for: Option<String>,
    /// The value of every parameter, from [`super::Params::resolve`].
    pub params: BTreeMap<String, Value>,
    /// Which steps do their work.
    pub steps: StepChoice,
    /// Cancelled to stop this run.
    pub cancel: CancellationToken,
}

impl RunOrder {
    /// Returns an order with a new run id and nothing else.
    pub fn new(trigger: Trigger) -> RunOrder {
        RunOrder {
            run_id: new_run_id(),
            trigger,
            scheduled_for: None,
            waited_for: None,
            params: BTreeMap::new(),
            steps: StepChoice::default(),
            cancel: CancellationToken::new(),
        }
    }
}

/// Runs pipelines.
#[derive(Clone)]
pub struct Runner {
    pub(super) execute: Execute,
    pub(super) templates: Templates,
    pub(super) shutdown: CancellationToken,
    /// How long a job may take to stop after its cancellation.
    pub(super) grace: Duration,
    clock: Clock,
    deliver: Option<Deliver>,
    previous: Option<PreviousSource>,
    pub(super) observer: Option<RunObserver>,
    site: Site,
    timezone: Tz,
    instance: String,
}

impl Runner {
    /// Returns a runner. `instance` names host and process in reports; once
    /// `shutdown` is cancelled, runs end as interrupted.
    pub fn new(
        execute: Execute,
        resolve_context: &ResolveContext,
        instance: impl Into<String>,
        shutdown: CancellationToken,
    ) -> Runner {
        Runner {
            execute,
            templates: resolve_context.templates.clone(),
            shutdown,
            grace: Duration::from_secs(10),
            clock: Arc::new(Utc::now),
            deliver: None,
            previous: None,
            observer: None,
            site: resolve_context.site.clone(),
            timezone: resolve_context.timezone,
            instance: instance.into(),
        }
    }

    /// Takes the time from another clock than that of the machine.
    pub fn with_clock(mut self, clock: Clock) -> Runner {
        self.clock = clock;
        self
    }

    /// Sets how hooks deliver messages; without it they deliver none.
    pub fn with_delivery(mut self, deliver: Deliver) -> Runner {
        self.deliver = Some(deliver);
        self
    }

    /// Looks up how the run before ended, for hooks and expressions. The history
    /// knows it of every process, so nothing of it is kept here.
    pub fn with_previous(mut self, previous: PreviousSource) -> Runner {
        self.previous = Some(previous);
        self
    }

    /// Says to `observer` what happens during runs.
    pub fn with_observer(mut self, observer: RunObserver) -> Runner {
        self.observer = Some(observer);
        self
    }

    /// Says an event to the observer, if there is one.
    pub fn observed(&self, event: &RunEvent<'_>) {
        self.observer.iter().for_each(|observer| observer(event));
    }

    /// Sets how long a job may take to stop after its cancellation (10 s).
    pub fn with_grace(mut self, grace: Duration) -> Runner {
        self.grace = grace;
        self
    }

    /// Returns the token whose cancelling ends all runs as interrupted.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Returns the report of a run that has just started and not ended, for the
    /// history to hold until it has.
    pub fn begin(&self, pipeline: &Pipeline, order: &RunOrder) -> RunReport {
        let report = RunReport::begin(RunStart {
            run_id: order.run_id.clone(),
            pipeline: pipeline.name.clone(),
            trigger: order.trigger,
            scheduled_for: order.scheduled_for,
            started_at: (self.clock)(),
            attempt: 1,
            params: order.params.clone(),
            instance: self.instance.clone(),
            definition_hash: pipeline.hash.clone(),
        });
        RunReport { waited_for: order.waited_for.clone(), ..report }
    }

    /// Runs a pipeline to its end, within a span: its id tells which run a log line is of.
    pub async fn run(&self, pipeline: &Arc<Pipeline>, order: RunOrder) -> RunReport {
        let (run_id, trigger) = (order.run_id.as_str(), order.trigger.as_str());
        let span = tracing::info_span!("run", run_id, pipeline = pipeline.name.as_str(), trigger);
        self.run_steps(pipeline, order).instrument(span).await
    }

    async fn run_steps(&self, pipeline: &Arc<Pipeline>, order: RunOrder) -> RunReport {
        let mut report = self.begin(pipeline, &order);
        let zone = pipeline.schedule().map_or(self.timezone, |schedule| schedule.timezone);
        let previous = match &self.previous {
            Some(source) => source(pipeline.name.clone()).await,
            None => None,
        };
        let facts = RunFacts {
            run_id: order.run_id.clone(),
            trigger: order.trigger,
            scheduled_for: order.scheduled_for,
            started_at: report.started_at,
            previous,
        };
        let context = Context::new((pipeline.name.as_str(), &pipeline.labels), &self.site, &order.params, &facts, zone);
        tracing::info!(pipeline = %pipeline.name, run_id = order.run_id, trigger = %order.trigger, "run started");
        let (run_id, trigger) = (order.run_id.as_str(), order.trigger);
        self.observed(&RunEvent::RunStarted { run_id, pipeline: &pipeline.name, trigger });
        let mut run = Run::new(self, pipeline, order, context);
        for step in &pipeline.steps {
            if run.leaves_out(step) { run.leave_out(step) } else { run.step(step).await }
        }
        if run.drifted() {
            for step in &pipeline.on_drift {
                run.step(step).await;
            }
        }
        let (steps, reason, context) = run.into_parts();
        report.finish((self.clock)(), steps);
        report.reason = reason;
        self.fire_hooks(pipeline, context, facts.previous.as_ref(), &mut report).await;
        let (status, run_id, reason) = (report.status, report.run_id.as_str(), report.reason.as_deref());
        tracing::info!(pipeline = %pipeline.name, run_id, %status, reason, "run ended");
        self.observed(&RunEvent::RunFinished { report: &report });
        report
    }

    /// Returns what a run of the pipeline may ask of the site, its blackouts included.
    pub(super) fn limits_of(&self, pipeline: &Arc<Pipeline>) -> Arc<RunLimits> {
        let RunBudget { max_requests, max_rps } = pipeline.budget;
        let (clock, pipeline) = (Arc::clone(&self.clock), Arc::clone(pipeline));
        let pause = move || {
            let now = clock();
            let pausing = pipeline.blackouts.iter().filter(|blackout| blackout.action == BlackoutAction::Pause);
            let end = pausing.filter_map(|blackout| blackout.until(now)).max()?;
            (end - now).to_std().ok()
        };
        RunLimits::new(max_requests, max_rps, Box::new(pause))
    }

    async fn fire_hooks(
        &self,
        pipeline: &Pipeline,
        mut context: Context,
        previous: Option<&Previous>,
        report: &mut RunReport,
    ) {
        let Some(deliver) = &self.deliver else { return };
        context.ended(report.status, report.reason.as_deref());
        let mut reports = Vec::new();
        for hook in pipeline.hooks.after(report.status, previous) {
            reports.extend(hook.fire(deliver, &self.templates, &context, report).await);
        }
        report.hooks = reports;
    }

    /// Fires the hooks of an alarm, and returns what became of them.
    pub async fn fire_alarm(&self, pipeline: &Pipeline, alarm: Alarm) -> Vec<HookReport> {
        let trigger = if pipeline.continuous().is_some() { Trigger::Continuous } else { Trigger::Cron };
        let (hooks, status, words, silence) = match alarm {
            Alarm::Stalled(silence) => {
                let words = format!("stalled: {}", pipeline.stalled_words(silence));
                tracing::warn!(pipeline = %pipeline.name, reason = words, "a pipeline is stalled");
                (&pipeline.hooks.on_stalled, Status::Error, words, silence)
            }
            Alarm::Recovered => {
                tracing::info!(pipeline = %pipeline.name, "a pipeline is not stalled any more");
                (&pipeline.hooks.on_recovered, Status::Ok, "recovered".to_owned(), Duration::ZERO)
            }
        };
        let Some(deliver) = &self.deliver else { return Vec::new() };
        let mut report = self.begin(pipeline, &RunOrder::new(trigger));
        (report.status, report.reason, report.finished_at) = (status, Some(words.clone()), Some(report.started_at));
        let facts = RunFacts {
            run_id: report.run_id.clone(),
            trigger,
            scheduled_for: None,
            started_at: report.started_at,
            previous: None,
        };
        let labels = (pipeline.name.as_str(), &pipeline.labels);
        let mut context = Context::new(labels, &self.site, &pipeline.params.sample(), &facts, self.timezone);
        context.stalled(if status == Status::Ok { "recovered" } else { "stalled" }, &words, silence);
        let mut reports = Vec::new();
        for hook in hooks {
            reports.extend(hook.fire(deliver, &self.templates, &context, &report).await);
        }
        reports
    }

    /// Runs one job, as a pipeline of its own.
    pub async fn run_job(&self, pipeline: Pipeline, order: RunOrder) -> RunReport {
        self.run(&Arc::new(pipeline), order).await
    }
}

/// Returns the exit code of a finished run (documented in the README).
pub fn exit_code(report: &RunReport, deny_warnings: bool) -> u8 {
    match report.status {
        Status::Ok | Status::Repaired => 0,
        Status::Warn if deny_warnings => 11,
        Status::Warn => 0,
        Status::Drift => 10,
        Status::Skipped => 12,
        Status::Timeout => 124,
        Status::Cancelled => 130,
        Status::Interrupted => 143,
        Status::Error => {
            let broken = report.steps.iter().find(|step| step.status == Status::Error);
            let error = broken.and_then(|step| step.error.as_ref());
            match error.map(|error| ErrorClass::from_name(&error.class)) {
                Some(ErrorClass::Unavailable | ErrorClass::RateLimited | ErrorClass::Timeout | ErrorClass::Store) => 69,
                Some(ErrorClass::Denied) => 77,
                Some(ErrorClass::Invalid) => 78,
                Some(ErrorClass::Internal) | None => 1,
            }
        }
    }
}

/// Returns the exit code of several finished runs: that of the worst.
pub fn worst_exit_code(reports: &[RunReport], deny_warnings: bool) -> u8 {
    let worst = reports.iter().max_by_key(|report| report.status);
    worst.map_or(12, |report| exit_code(report, deny_warnings))
}
