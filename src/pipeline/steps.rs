//! One run in progress: its steps, what they found, and what that means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::context::{Context, visible};
use super::run_events::{Progress, RunEvent};
use super::runner::{JobContext, JobError, RunOrder, Runner};
use super::{Arguments, ErrorClass, JobSpec, Pipeline, Step, fingerprint};
use crate::budget::{self, RunLimits};
use crate::report::{Status, StepError, StepReport, StepResult, Verdict};
use crate::validate::SoFar;
use crate::yaml::{Document, Problems};

/// One run in progress.
pub(super) struct Run<'a> {
    runner: &'a Runner,
    pipeline: &'a Arc<Pipeline>,
    order: RunOrder,
    /// What the run may ask of the site.
    limits: Arc<RunLimits>,
    context: Context,
    deadline: Option<Instant>,
    results: BTreeMap<String, Arc<StepResult>>,
    reports: Vec<StepReport>,
    /// Ids of the steps that were left out, and have no result of an earlier run.
    left_out: BTreeSet<String>,
    /// Why the worst step so far ended as it did.
    reason: Option<(Status, String)>,
}

/// How a job ended.
struct Ended {
    outcome: Result<StepResult, JobError>,
    attempts: u32,
    stopped: Option<Status>,
}

/// What becomes of a step.
struct StepOutcome {
    status: Status,
    reason: Option<String>,
    result: StepResult,
    error: Option<StepError>,
    attempts: u32,
}

impl StepOutcome {
    fn without_result(status: Status, reason: impl Into<String>) -> StepOutcome {
        StepOutcome { status, reason: Some(reason.into()), result: StepResult::default(), error: None, attempts: 0 }
    }

    fn broken(error: JobError) -> StepOutcome {
        StepOutcome {
            error: Some(StepError { class: error.class.as_str().to_owned(), message: error.message.clone() }),
            ..StepOutcome::without_result(Status::Error, error.message)
        }
    }
}

impl<'a> Run<'a> {
    pub fn new(runner: &'a Runner, pipeline: &'a Arc<Pipeline>, order: RunOrder, context: Context) -> Run<'a> {
        Run {
            limits: runner.limits_of(pipeline),
            runner,
            pipeline,
            order,
            context,
            deadline: pipeline.timeout.map(|limit| Instant::now() + limit),
            results: BTreeMap::new(),
            reports: Vec::new(),
            left_out: BTreeSet::new(),
            reason: None,
        }
    }

    /// Tells whether a step is not among those that were chosen.
    pub fn leaves_out(&self, step: &Step) -> bool {
        self.order.steps.leaves_out(&step.id)
    }

    /// Leaves out a step that was not chosen: its result of an earlier run stands for it,
    /// or an empty one.
    pub fn leave_out(&mut self, step: &Step) {
        let choice = &self.order.steps;
        let carried = choice.carried.iter().find(|report| report.id == step.id).cloned();
        if carried.is_none() {
            self.left_out.insert(step.id.clone());
        }
        let report = match (carried, &choice.carried_from) {
            // What it took was spent by that run.
            (Some(report), Some(run)) => StepReport {
                attempts: 0,
                duration_seconds: 0.0,
                reason: Some(format!("left out: its result is that of run {run}")),
                result: StepResult { requests: 0, ..report.result },
                ..report
            },
            _ => StepReport {
                id: step.id.clone(),
                job: step.job.to_owned(),
                status: Status::Skipped,
                attempts: 0,
                duration_seconds: 0.0,
                reason: Some("left out: it was not chosen".to_owned()),
                error: None,
                result: StepResult::default(),
            },
        };
        self.add(report);
    }

    /// Lets later steps see the result of one that has ended.
    fn add(&mut self, report: StepReport) {
        if self.runner.observer.is_some() {
            self.observed(report.clone());
        }
        self.context.add_step(&report.id, report.status, visible(&report.result));
        self.results.insert(report.id.clone(), Arc::new(report.result.clone()));
        self.reports.push(report);
    }

    /// Says to the observer what a step found, and that it has ended.
    fn observed(&self, mut report: StepReport) {
        let run_id = self.order.run_id.as_str();
        for mismatch in std::mem::take(&mut report.result.mismatches) {
            self.runner.observed(&RunEvent::Drift { run_id, step: &report.id, mismatch: &mismatch });
        }
        self.runner.observed(&RunEvent::StepFinished { run_id, step: &report });
    }

    /// Runs one step, or says why it does not run; within a span, as the run is.
    pub async fn step(&mut self, step: &Step) {
        let span = tracing::info_span!("step", step = step.id.as_str(), job = step.job);
        self.run_step(step).instrument(span).await;
    }

    async fn run_step(&mut self, step: &Step) {
        let started = Instant::now();
        let mut spec = None;
        let end = match self.prepare(step) {
            Err(early) => *early,
            Ok((prepared, with)) => {
                tracing::info!(job = step.job, "step started");
                let (run_id, job) = (self.order.run_id.as_str(), step.job);
                self.runner.observed(&RunEvent::StepStarted { run_id, step: &step.id, job, with: &with });
                let end = self.execute(step, &prepared).await;
                spec = Some(prepared);
                end
            }
        };
        let duration_seconds = started.elapsed().as_secs_f64();
        let status = end.status;
        log_end(&end, duration_seconds);
        self.note_reason(step, &end);
        self.add(StepReport {
            id: step.id.clone(),
            job: step.job.to_owned(),
            status: end.status,
            attempts: end.attempts,
            duration_seconds,
            reason: end.reason,
            error: end.error,
            result: end.result,
        });
        if let (Some(JobSpec::Repair(repair)), Status::Ok) = (spec, status)
            && repair.verify
        {
            self.conclude_repaired(&repair.from);
        }
    }

    /// Tells whether a step found drift that is still there.
    pub fn drifted(&self) -> bool {
        self.reports.iter().any(|step| step.status == Status::Drift)
    }

    /// Ends the run: its steps, why it ended as it did, and what hooks can see.
    pub fn into_parts(self) -> (Vec<StepReport>, Option<String>, Context) {
        (self.reports, self.reason.map(|(_, reason)| reason), self.context)
    }

    fn note_reason(&mut self, step: &Step, end: &StepOutcome) {
        let Some(reason) = &end.reason else { return };
        let worse = self.reason.as_ref().is_none_or(|(status, _)| end.status > *status);
        if worse {
            self.reason = Some((end.status, format!("{}: {reason}", step.id)));
        }
    }

    /// Decides whether a step runs, and with what arguments.
    fn prepare(&self, step: &Step) -> Result<(JobSpec, Value), Box<StepOutcome>> {
        if let Some(status) = self.stopped() {
            return Err(Box::new(StepOutcome::without_result(status, "the run was stopped")));
        }
        if let Some(need) = step.needs.iter().find(|need| !self.has_result(need)) {
            let reason = format!("`{need}` has no result");
            return Err(Box::new(StepOutcome::without_result(Status::Skipped, reason)));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let reason = "the run had used up its time";
            return Err(Box::new(StepOutcome::without_result(Status::Timeout, reason)));
        }
        if let Some(requests) = self.limits.exhausted_at() {
            let reason = format!("the run had used up its budget of {requests} requests");
            return Err(Box::new(StepOutcome::without_result(Status::Skipped, reason)));
        }
        let broken = |error| Box::new(StepOutcome::broken(error));
        if let Some(when) = &step.when
            && !self.holds(when, self.context.value()).map_err(broken)?
        {
            let reason = format!("`{when}` does not hold");
            return Err(Box::new(StepOutcome::without_result(Status::Skipped, reason)));
        }
        let (mut spec, rendered) = self.spec(step).map_err(broken)?;
        if let JobSpec::Repair(repair) = &mut spec
            && repair.from.is_empty()
        {
            repair.from = self.drifted_ids();
        }
        Ok((spec, rendered))
    }

    fn has_result(&self, id: &str) -> bool {
        if self.left_out.contains(id) {
            return true;
        }
        let report = self.reports.iter().find(|report| report.id == id);
        report.is_some_and(|report| report.status.worked())
    }

    fn drifted_ids(&self) -> Vec<String> {
        let drifted = self.reports.iter().filter(|step| step.status == Status::Drift);
        drifted.map(|step| step.id.clone()).collect()
    }

    fn stopped(&self) -> Option<Status> {
        if self.runner.shutdown.is_cancelled() {
            Some(Status::Interrupted)
        } else if self.order.cancel.is_cancelled() {
            Some(Status::Cancelled)
        } else {
            None
        }
    }

    /// Renders the arguments of a step. Problems have no place here: the file
    /// was checked when it was loaded, only values can be wrong now.
    fn spec(&self, step: &Step) -> Result<(JobSpec, Value), JobError> {
        let written = match &step.arguments {
            Arguments::Given(spec) => return Ok((JobSpec::clone(spec), Value::Null)),
            Arguments::Written(written) => written,
        };
        let invalid = |message: String| JobError::new(ErrorClass::Invalid, message);
        let rendered = self.runner.templates.render("", written, self.context.value()).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(|(_, error)| error.to_string()).collect();
            invalid(all.join("; "))
        })?;
        let text = rendered.to_string();
        let document = Document::json(&format!("arguments of `{}`", step.id), text.as_bytes())
            .map_err(|problems| invalid(problems.to_string()))?;
        let mut problems = Problems::new();
        let spec = JobSpec::parse(step.job, &document, "", &rendered, &mut problems);
        spec.map(|spec| (spec, rendered)).ok_or_else(|| invalid(problems.to_string()))
    }

    fn holds(&self, expression: &str, context: &Value) -> Result<bool, JobError> {
        match self.runner.templates.evaluate(expression, context) {
            Ok(Value::Bool(answer)) => Ok(answer),
            Ok(other) => {
                let message = format!("`{expression}` gives {other}, not true or false");
                Err(JobError::new(ErrorClass::Invalid, message))
            }
            Err(error) => {
                let message = format!("`{expression}`: {error}");
                Err(JobError::new(ErrorClass::Invalid, message))
            }
        }
    }

    async fn execute(&self, step: &Step, spec: &JobSpec) -> StepOutcome {
        let ended = self.within_limits(step, spec).await;
        let attempts = ended.attempts;
        let mut end = match (ended.stopped, ended.outcome) {
            (Some(Status::Timeout), outcome) => stopped(outcome, Status::Timeout, "ran out of its time"),
            (Some(Status::Warn), outcome) => stopped(outcome, Status::Warn, &self.exhausted()),
            // It was cancelled after it had done all of its work: that is its result.
            (Some(_), Ok(result)) => self.judge(step, result),
            (Some(status), outcome) => stopped(outcome, status, "was stopped"),
            (None, Ok(result)) => self.judge(step, result),
            (None, Err(error)) => StepOutcome::broken(error),
        };
        end.attempts = attempts;
        end
    }

    fn exhausted(&self) -> String {
        let requests = self.limits.exhausted_at().unwrap_or_default();
        format!("budget: the run has used up its {requests} requests")
    }

    /// Runs a job until it ends, its time or its budget is used up, or it is cancelled. One
    /// that does not stop within the grace is dropped.
    async fn within_limits(&self, step: &Step, spec: &JobSpec) -> Ended {
        let cancel = CancellationToken::new();
        let attempts = AtomicU32::new(0);
        let work = self.attempts(step, spec, &cancel, &attempts);
        tokio::pin!(work);
        let stopped = tokio::select! {
            outcome = &mut work => {
                let attempts = attempts.load(Ordering::Relaxed);
                return Ended { outcome, attempts, stopped: None };
            }
            () = sleep_until(self.limit_of(step)) => Status::Timeout,
            () = self.limits.exhausted() => Status::Warn,
            () = self.order.cancel.cancelled() => Status::Cancelled,
            () = self.runner.shutdown.cancelled() => Status::Interrupted,
        };
        cancel.cancel();
        let late = tokio::time::timeout(self.runner.grace, &mut work).await;
        let gone = JobError::new(ErrorClass::Timeout, "did not stop after its cancellation");
        Ended { outcome: late.unwrap_or(Err(gone)), attempts: attempts.load(Ordering::Relaxed), stopped: Some(stopped) }
    }

    fn limit_of(&self, step: &Step) -> Option<Instant> {
        let own = step.timeout.map(|limit| Instant::now() + limit);
        match (own, self.deadline) {
            (Some(own), Some(deadline)) => Some(own.min(deadline)),
            (own, deadline) => own.or(deadline),
        }
    }

    async fn attempts(
        &self,
        step: &Step,
        spec: &JobSpec,
        cancel: &CancellationToken,
        attempts: &AtomicU32,
    ) -> Result<StepResult, JobError> {
        loop {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed) + 1;
            let error = match self.attempt(step, spec, cancel, attempt).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let retry = &self.pipeline.retry;
            if cancel.is_cancelled() || !retry.again(error.class, attempt) {
                return Err(error);
            }
            let wait = jittered(retry.wait_before(attempt + 1), &self.order.run_id, attempt);
            tracing::warn!(class = %error.class, %error, attempt, ?wait, "trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return Err(error),
            }
        }
    }

    /// Runs a job once, in a task of its own so that a panic stays there.
    async fn attempt(
        &self,
        step: &Step,
        spec: &JobSpec,
        cancel: &CancellationToken,
        attempt: u32,
    ) -> Result<StepResult, JobError> {
        let context = JobContext {
            run_id: self.order.run_id.clone(),
            pipeline: self.pipeline.clone(),
            step: step.id.clone(),
            trigger: self.order.trigger,
            attempt,
            results: self.results.clone(),
            cancel: cancel.clone(),
            so_far: self.so_far(step),
        };
        let (execute, spec) = (self.runner.execute.clone(), spec.clone());
        let work = budget::scope(Arc::clone(&self.limits), async move { execute(spec, context).await });
        let task = tokio::spawn(work.in_current_span());
        let ended = AbortOnDropHandle::new(task).await;
        ended.unwrap_or_else(|error| {
            let message = match error.try_into_panic() {
                Ok(panic) => format!("panicked: {}", crate::supervisor::panic_text(&*panic)),
                Err(error) => format!("ended early: {error}"),
            };
            Err(JobError::new(ErrorClass::Internal, message))
        })
    }

    /// Returns where a job notes what it has found, so that it is seen meanwhile.
    fn so_far(&self, step: &Step) -> SoFar {
        let Some(observer) = self.runner.observer.clone() else { return SoFar::default() };
        let (run_id, step, job) = (self.order.run_id.clone(), step.id.clone(), step.job);
        SoFar::seen_by(move |so_far, types| {
            observer(&RunEvent::Progress(Progress::of((&run_id, &step, job), so_far, types)));
        })
    }

    /// Says what a result means.
    fn judge(&self, step: &Step, result: StepResult) -> StepOutcome {
        let context = self.context.judging(visible(&result));
        let (status, reason) = match self.meaning(step, &result, &context) {
            Ok(meaning) => meaning,
            Err(error) => {
                return StepOutcome { result, ..StepOutcome::broken(error) };
            }
        };
        StepOutcome { status, reason, result, error: None, attempts: 0 }
    }

    fn meaning(&self, step: &Step, result: &StepResult, context: &Value) -> Result<(Status, Option<String>), JobError> {
        if let Some(expression) = &step.fail_when
            && self.holds(expression, context)?
        {
            let repaired = result.unresolved == 0 && result.repaired > 0 && result.repaired >= result.drift;
            let status = if repaired { Status::Repaired } else { Status::Drift };
            return Ok((status, Some(format!("`{expression}` holds"))));
        }
        if let Some(expression) = &step.warn_when
            && self.holds(expression, context)?
        {
            return Ok((Status::Warn, Some(format!("`{expression}` holds"))));
        }
        let mut types = result.by_type.iter();
        let unclear = types.find(|(_, ty)| ty.verdict == Verdict::Inconclusive);
        if let Some((entity_type, ty)) = unclear {
            let problem = ty.problem.as_deref().unwrap_or("sync was not healthy enough to tell");
            let reason = format!("{entity_type}: {problem}");
            return Ok((Status::Warn, Some(reason)));
        }
        if result.looked_at_nothing() {
            return Ok((Status::Ok, Some("nothing was compared: no entity was chosen".to_owned())));
        }
        Ok((Status::Ok, None))
    }

    /// After a verified repair: the steps whose every mismatch it covers count
    /// as repaired.
    fn conclude_repaired(&mut self, from: &[String]) {
        let Some(repair) = self.reports.last().map(|report| report.result.clone()) else {
            return;
        };
        if repair.unresolved > 0 {
            return;
        }
        let drifted = |step: &&mut StepReport| step.status == Status::Drift && from.contains(&step.id);
        let steps: Vec<&mut StepReport> = self.reports.iter_mut().filter(drifted).collect();
        if steps.is_empty() || repair.repaired < to_repair(&steps) {
            return;
        }
        for step in steps {
            step.status = Status::Repaired;
            self.context.add_step(&step.id, step.status, visible(&step.result));
        }
        if let Some((status @ Status::Drift, _)) = &mut self.reason {
            *status = Status::Repaired;
        }
    }
}

fn log_end(end: &StepOutcome, duration_seconds: f64) {
    let StepOutcome { status, reason, result, error, .. } = end;
    let (checked, drift, requests) = (result.checked, result.drift, result.requests);
    match error {
        Some(StepError { class, message }) => {
            tracing::error!(%status, duration_seconds, class, error = message, requests, "step ended");
        }
        None => tracing::info!(%status, duration_seconds, checked, drift, requests, reason, "step ended"),
    }
}

/// The number of entities that must be repaired for these steps: several steps
/// can have found the same one.
fn to_repair(steps: &[&mut StepReport]) -> u64 {
    let mut entities = BTreeSet::new();
    let mut unnamed = 0;
    for step in steps {
        let result = &step.result;
        let own: BTreeSet<(&str, i64)> =
            result.mismatches.iter().map(|one| (one.entity_type.as_str(), one.id)).collect();
        unnamed += result.drift.saturating_sub(own.len() as u64);
        entities.extend(own);
    }
    entities.len() as u64 + unnamed
}

/// A step that was stopped, with what it had found by then.
fn stopped(outcome: Result<StepResult, JobError>, status: Status, reason: &str) -> StepOutcome {
    let result = outcome.unwrap_or_else(|error| error.so_far.map(|so_far| *so_far).unwrap_or_default());
    StepOutcome { result, ..StepOutcome::without_result(status, reason) }
}

async fn sleep_until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

/// Full jitter: anything up to the wait, so that many do not return together.
/// The run id is random enough to choose.
fn jittered(wait: Duration, run_id: &str, attempt: u32) -> Duration {
    let part = fingerprint(&format!("{run_id} {attempt}")) % 1000;
    wait.mul_f64(part as f64 / 999.0)
}
