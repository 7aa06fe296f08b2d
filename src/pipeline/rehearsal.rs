//! [`rehearse`]: runs the `tests` of a pipeline file. No site, no store, no waiting.
//!
//! The real planner and the real runner do the work; only what jobs answer and what time
//! it is are given. Time is tokio's paused clock, in a runtime of its own: waits of
//! retries, time limits and jobs that take hours pass at once, in the right order.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::cron::first_instant;
use super::load::resolve;
use super::test_file::{Answer, ExpectFile, TestFile};
use super::{
    Alarms, Deliver, Delivered, Execute, HookTarget, JobError, Outlook, Pauses, Pipeline, PlanState, Previous,
    PreviousSource, ResolveContext, RunOrder, Runner, Start, exit_code,
};
use crate::budget;
use crate::report::{RunReport, StepResult, Trigger};
use crate::yaml::{Diagnostic, Document, Moment, Problems, Templates, has_template, join};

/// The present of a test that names none: a Monday.
const DEFAULT_NOW: &str = "2026-01-05 00:00";
/// The id of every rehearsed run, so that messages are always the same.
const RUN_ID: &str = "00000000000000000000000000";

/// How one test ended.
#[derive(Debug)]
pub struct Rehearsal {
    /// The pipeline.
    pub pipeline: String,
    /// The test.
    pub test: String,
    /// Which expectations were not met, each with its place; empty when all were.
    pub differences: Problems,
}

/// What a rehearsed run did.
struct Observed {
    report: RunReport,
    /// Jobs below `on_drift` that ran, then hooks that fired.
    actions: Vec<String>,
    /// The messages of hooks.
    messages: Vec<String>,
}

/// Runs the tests of a file whose names contain `filter`.
pub fn rehearse(
    document: &Document,
    pipeline: &Arc<Pipeline>,
    context: &ResolveContext,
    filter: &str,
) -> Vec<Rehearsal> {
    let mut rehearsals = Vec::new();
    for (at, test) in tests_of(document).into_iter().enumerate() {
        let Some(test) = test.filter(|test| test.name.contains(filter)) else { continue };
        let mut differences = Problems::new();
        let context = &ResolveContext { templates: Templates::new(&test.env), ..context.clone() };
        let pipeline = match in_environment(document, pipeline, context) {
            Ok(pipeline) => pipeline,
            Err(message) => {
                let diagnostic = document.at(&format!("/tests/{at}"), "SG0902", message);
                document.report(&mut differences, diagnostic);
                rehearsals.push(Rehearsal { pipeline: pipeline.name.clone(), test: test.name, differences });
                continue;
            }
        };
        let pipeline = &pipeline;
        let zone = zone_of(pipeline, context);
        let checker = Checker { document, test: &test, zone, pointer: format!("/tests/{at}/expect") };
        checker.check_schedule(pipeline, &mut differences);
        if test.expect.needs_run() {
            match observe(pipeline, context, &test) {
                Ok(observed) => checker.check_run(&observed, &mut differences),
                Err(message) => {
                    let diagnostic = document.at(&format!("/tests/{at}"), "SG0902", message);
                    document.report(&mut differences, diagnostic);
                }
            }
        }
        rehearsals.push(Rehearsal { pipeline: pipeline.name.clone(), test: test.name, differences });
    }
    rehearsals
}

/// Returns the pipeline as it is in the environment of a test, which decides what is
/// rendered when the file is loaded.
fn in_environment(
    document: &Document,
    pipeline: &Arc<Pipeline>,
    context: &ResolveContext,
) -> Result<Arc<Pipeline>, String> {
    let written = document.value();
    let mut rendered =
        ["/labels", "/params", "/outputs/elasticsearch"].into_iter().filter_map(|at| written.pointer(at));
    if !rendered.any(|part| has_template(&part.to_string())) {
        return Ok(Arc::clone(pipeline));
    }
    let mut problems = Problems::new();
    resolve(document, context, &mut problems).map(Arc::new).ok_or_else(|| {
        let first = problems.sorted().first().map(|one| one.message.clone()).unwrap_or_default();
        format!("the file cannot be read in the environment of the test: {first}")
    })
}

/// Returns the tests of a file, `None` for those that cannot be read: the check of the
/// file has reported these.
pub(super) fn tests_of(document: &Document) -> Vec<Option<TestFile>> {
    let written = document.value().get("tests").and_then(Value::as_array);
    written.into_iter().flatten().map(|test| serde_json::from_value(test.clone()).ok()).collect()
}

impl TestFile {
    /// The present of the test, in the zone of the schedule.
    fn now(&self, zone: Tz) -> DateTime<Utc> {
        match self.now.unwrap_or_else(|| Moment::parse(DEFAULT_NOW).expect("the constant is a time")) {
            Moment::Instant(instant) => instant.to_utc(),
            Moment::WallClock(time) => first_instant(time, zone).unwrap_or_else(|| time.and_utc()),
        }
    }

    /// The parameters that it sets, as they would be typed.
    pub(super) fn overrides(&self) -> BTreeMap<String, String> {
        let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.set.iter().map(|(name, value)| (name.clone(), written(value))).collect()
    }
}

/// Runs the pipeline of a test on a thread of its own, which has a clock of its own.
fn observe(pipeline: &Arc<Pipeline>, context: &ResolveContext, test: &TestFile) -> Result<Observed, String> {
    let params = pipeline.params.resolve(&test.overrides()).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        all.join("; ")
    })?;
    let task = || -> Result<Observed, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        runtime.block_on(rehearsed(pipeline, context, test, params))
    };
    std::thread::scope(|scope| scope.spawn(task).join()).unwrap_or_else(|_| Err("the rehearsal panicked".to_owned()))
}

async fn rehearsed(
    pipeline: &Arc<Pipeline>,
    context: &ResolveContext,
    test: &TestFile,
    params: BTreeMap<String, Value>,
) -> Result<Observed, String> {
    let zone = zone_of(pipeline, context);
    let (now, began) = (test.now(zone), tokio::time::Instant::now());
    let clock = move || now + TimeDelta::from_std(began.elapsed()).unwrap_or_default();
    let messages = Arc::new(Mutex::new(Vec::new()));
    let runner = Runner::new(answers(pipeline, test)?, context, "rehearsal", CancellationToken::new())
        .with_clock(Arc::new(clock))
        .with_delivery(collect_messages(&messages))
        .with_previous(previous(test, now));
    if let Some(silence) = test.stalled_for {
        return Ok(rehearsed_alarm(&runner, pipeline, silence, now, &messages).await);
    }
    let pipeline = Arc::new(pipeline.once());
    let is_due = test.trigger.is_none_or(|trigger| trigger == Trigger::Cron) && pipeline.schedule().is_some();
    let order = RunOrder {
        run_id: RUN_ID.to_owned(),
        scheduled_for: is_due.then_some(now),
        params,
        ..RunOrder::new(test.trigger.unwrap_or(if is_due { Trigger::Cron } else { Trigger::Cli }))
    };
    // What is rehearsed does not happen: its failures are no lines of a log.
    let report = runner.run(&pipeline, order).with_subscriber(NoSubscriber::default()).await;
    let reactions = report.steps.iter().filter(|step| step.ran());
    let reactions = reactions.filter(|step| pipeline.on_drift.iter().any(|reaction| reaction.id == step.id));
    let mut actions: Vec<String> = reactions.map(|step| step.job.clone()).collect();
    actions.extend(report.hooks.iter().map(|hook| hook.target.clone()));
    let messages = std::mem::take(&mut *messages.lock());
    Ok(Observed { report, actions, messages })
}

/// Lets a pipeline do nothing for a while, and go on.
async fn rehearsed_alarm(
    runner: &Runner,
    pipeline: &Pipeline,
    silence: Duration,
    now: DateTime<Utc>,
    messages: &Mutex<Vec<String>>,
) -> Observed {
    let (mut alarms, mut actions) = (Alarms::default(), Vec::new());
    for silence in [silence, Duration::ZERO] {
        let Some(alarm) = alarms.check(pipeline, silence, now) else { continue };
        actions.extend(runner.fire_alarm(pipeline, alarm).await.into_iter().map(|hook| hook.target));
    }
    let mut report = runner.begin(pipeline, &RunOrder::new(Trigger::Cron));
    report.finish(now, Vec::new());
    Observed { report, actions, messages: std::mem::take(&mut *messages.lock()) }
}

/// Lets every job answer what the test says; those that it does not name find nothing.
fn answers(pipeline: &Pipeline, test: &TestFile) -> Result<Execute, String> {
    let mut answers = BTreeMap::new();
    let nothing = serde_json::Map::new();
    for step in pipeline.steps.iter().chain(&pipeline.on_drift) {
        let written = test.results.get(&step.id).unwrap_or(&nothing);
        let answer = Answer::read(step.job, written).map_err(|error| format!("results of `{}`: {error}", step.id))?;
        answers.insert(step.id.clone(), answer);
    }
    let answers = Arc::new(answers);
    Ok(Arc::new(move |_, context| {
        let answers = Arc::clone(&answers);
        async move {
            let Some(answer) = answers.get(&context.step) else { return Ok(StepResult::default()) };
            let work = async {
                tokio::time::sleep(answer.takes).await;
                // As far as the budget of the run allows them, and as slowly.
                for _ in 0..answer.result.requests {
                    budget::admit().await;
                }
            };
            tokio::select! {
                () = work => {}
                () = context.cancel.cancelled() => return Err(JobError::stopped(answer.result.clone())),
            }
            match &answer.failure {
                Some((class, message, fails)) if fails.is_none_or(|fails| context.attempt <= fails) => {
                    Err(JobError::new(*class, message.clone()))
                }
                _ => Ok(answer.result.clone()),
            }
        }
        .boxed()
    }))
}

/// Collects the messages of hooks; the report has their targets.
fn collect_messages(messages: &Arc<Mutex<Vec<String>>>) -> Deliver {
    let messages = Arc::clone(messages);
    Arc::new(move |notice| {
        if let HookTarget::Notify(_) = notice.target {
            messages.lock().push(notice.message);
        }
        async { Ok(Delivered::Sent) }.boxed()
    })
}

fn zone_of(pipeline: &Pipeline, context: &ResolveContext) -> Tz {
    pipeline.schedule().map_or(context.timezone, |schedule| schedule.timezone)
}

fn previous(test: &TestFile, now: DateTime<Utc>) -> PreviousSource {
    let previous = test.previous.map(|status| Previous { status, finished_at: now });
    Arc::new(move |_| async move { previous }.boxed())
}

/// Compares what a test expects with what was observed.
struct Checker<'a> {
    document: &'a Document,
    test: &'a TestFile,
    zone: Tz,
    /// Where the expectations stand.
    pointer: String,
}

impl Deref for Checker<'_> {
    type Target = ExpectFile;

    fn deref(&self) -> &ExpectFile {
        &self.test.expect
    }
}

impl Checker<'_> {
    fn check_schedule(&self, pipeline: &Arc<Pipeline>, differences: &mut Problems) {
        let Some(expected) = &self.next_runs else { return };
        let mut pipeline = Pipeline::clone(pipeline);
        if let (true, Start::Scheduled(schedule)) = (self.ignore_jitter, &mut pipeline.start) {
            *schedule = schedule.clone().with_jitter(std::time::Duration::ZERO, "");
        }
        let name = pipeline.name.clone();
        let pipelines = [Arc::new(pipeline)];
        let (plan, pauses, durations, running) =
            (PlanState::default(), Pauses::default(), BTreeMap::new(), BTreeMap::new());
        let outlook =
            Outlook { pipelines: &pipelines, plan: &plan, pauses: &pauses, durations: &durations, running: &running };
        let forecast = outlook.forecast(&name, self.test.now(self.zone), expected.len());
        let starts: Vec<DateTime<Utc>> = forecast.into_iter().filter_map(|found| found.outcome.ok()).collect();
        for (at, wanted) in expected.iter().enumerate() {
            let local = starts.get(at).map(|start| start.with_timezone(&self.zone));
            let is_met = match wanted {
                Moment::Instant(instant) => local.is_some_and(|local| local == *instant),
                Moment::WallClock(time) => local.is_some_and(|local| local.naive_local() == *time),
            };
            if is_met {
                continue;
            }
            let found = local.map_or_else(|| "never".to_owned(), |local| format!("at {}", local.to_rfc3339()));
            let diagnostic =
                self.diagnostic(&format!("next_runs/{at}"), format!("run {} starts {found}, not at {wanted}", at + 1));
            self.document.report(differences, diagnostic.label(format!("starts {found}")));
        }
    }

    fn check_run(&self, observed: &Observed, differences: &mut Problems) {
        let report = &observed.report;
        let reason = report.reason.as_deref();
        let mut compare = |key: &str, wanted: Option<String>, found: String, why: Option<&str>| {
            let Some(wanted) = wanted.filter(|wanted| *wanted != found) else { return };
            let message = format!("`{}` is `{found}`, not `{wanted}`", key.replace('/', "."));
            let diagnostic = self.diagnostic(key, message).label(format!("found `{found}`"));
            self.document.report(differences, diagnostic.help(why.map(|why| format!("the reason: {why}"))));
        };
        compare("status", self.status.map(|status| status.to_string()), report.status.to_string(), reason);
        compare("reason", self.reason.clone(), reason.unwrap_or_default().to_owned(), None);
        let code = exit_code(report, false);
        compare("exit_code", self.exit_code.map(|code| code.to_string()), code.to_string(), reason);
        for (id, wanted) in &self.steps {
            let step = report.steps.iter().find(|step| step.id == *id);
            let found = step.map_or_else(|| "not run".to_owned(), |step| step.status.to_string());
            let why = step.and_then(|step| step.reason.as_deref());
            compare(&join("steps", id), Some(wanted.to_string()), found, why);
        }
        let list = |words: &[String]| format!("[{}]", words.join(", "));
        compare("actions", self.actions.as_deref().map(list), list(&observed.actions), reason);
        self.check_messages(&observed.messages, differences);
    }

    fn check_messages(&self, found: &[String], differences: &mut Problems) {
        let Some(wanted) = &self.messages else { return };
        for (at, wanted) in wanted.iter().enumerate().filter(|(at, wanted)| found.get(*at) != Some(wanted)) {
            let received =
                found.get(at).map_or_else(|| "nothing".to_owned(), |received| format!("`{}`", received.trim_end()));
            let message = format!("message {} is {received}, not `{}`", at + 1, wanted.trim_end());
            self.document.report(differences, self.diagnostic(&format!("messages/{at}"), message));
        }
        for received in found.iter().skip(wanted.len()) {
            let message = format!("a message was not expected: `{}`", received.trim_end());
            self.document.report(differences, self.diagnostic("messages", message));
        }
    }

    fn diagnostic(&self, key: &str, message: String) -> Diagnostic {
        let message = format!("the test `{}` fails: {message}", self.test.name);
        self.document.at(&format!("{}/{key}", self.pointer), "SG0901", message)
    }
}
