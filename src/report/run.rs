//! The record of a run, schema `sgcache.run/1`.
//!
//! Plain data: printed by `-o json`, kept in the run history, sent to
//! Elasticsearch and summed into metrics. The field names are relied on by
//! other programs, so a rename here is a new schema version.
//!
//! Entity types and ids are plain text and numbers on purpose: a report may
//! outlive the configuration that it speaks of.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result::{Action, Mismatch, StepResult};

/// The schema name that every report carries.
pub const SCHEMA: &str = "sgcache.run/1";

/// Returns a new run id: a ULID, so that ids sort by the time they were made.
pub fn new_run_id() -> String {
    ulid::Ulid::new().to_string()
}

/// Returns the id of an occurrence of a schedule: always the same one, so that an
/// occurrence is in the history once, and sorts by when it was due.
fn occurrence_id(pipeline: &str, scheduled_for: DateTime<Utc>) -> String {
    let milliseconds = scheduled_for.timestamp_millis();
    let name = xxhash_rust::xxh3::xxh3_128(format!("{pipeline} {milliseconds}").as_bytes());
    ulid::Ulid::from_parts(milliseconds.unsigned_abs(), name).to_string()
}

/// How a step or a run ended, ordered from best to worst.
///
/// `Drift` and `Error` are two statements, never one: the data differ, or the
/// job broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Did not run, for a stated reason.
    Skipped,
    /// Ran and found nothing to say.
    Ok,
    /// Found drift, repaired it and verified that it is gone.
    Repaired,
    /// Ran, and something should be looked at.
    Warn,
    /// Ran, and the cache differs from the site.
    Drift,
    /// Ended on request.
    Cancelled,
    /// Ended because the process did; also the status of a run that never got to its end.
    Interrupted,
    /// Ran out of its time.
    Timeout,
    /// Broke.
    Error,
}

impl Status {
    /// Every status, best first.
    pub const ALL: [Status; 9] = [
        Status::Skipped,
        Status::Ok,
        Status::Repaired,
        Status::Warn,
        Status::Drift,
        Status::Cancelled,
        Status::Interrupted,
        Status::Timeout,
        Status::Error,
    ];

    /// Returns the word used in JSON, YAML and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Skipped => "skipped",
            Status::Ok => "ok",
            Status::Repaired => "repaired",
            Status::Warn => "warn",
            Status::Drift => "drift",
            Status::Cancelled => "cancelled",
            Status::Interrupted => "interrupted",
            Status::Timeout => "timeout",
            Status::Error => "error",
        }
    }

    /// Returns whether the run did its work, whatever the data looked like.
    pub fn worked(self) -> bool {
        matches!(self, Status::Ok | Status::Repaired | Status::Warn | Status::Drift)
    }

    /// Returns whether the run broke, as opposed to finding something or being stopped.
    pub fn failed(self) -> bool {
        matches!(self, Status::Timeout | Status::Error)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let found = Status::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// A word that is no [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown status `{0}`")]
pub struct UnknownStatus(pub String);

/// What started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The schedule of the pipeline.
    Cron,
    /// A person or a script on the command line.
    Cli,
    /// The control API of the daemon.
    Api,
    /// A pipeline that runs for as long as the daemon does.
    Continuous,
    /// A continuous-integration job.
    Ci,
}

impl Trigger {
    /// Returns the word used in JSON, YAML and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Cron => "cron",
            Trigger::Cli => "cli",
            Trigger::Api => "api",
            Trigger::Continuous => "continuous",
            Trigger::Ci => "ci",
        }
    }
}

impl std::fmt::Display for Trigger {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.as_str())
    }
}

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// ULID of the run.
    pub run_id: String,
    /// Name of the pipeline, or of the job when it was started alone.
    pub pipeline: String,
    /// What started it.
    pub trigger: Trigger,
    /// When the schedule wanted it to start; `None` when nothing was scheduled.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// The pipeline, the blackout or the process that it waited for before it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for: Option<String>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<DateTime<Utc>>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How it ended. Reads `interrupted` until [`RunReport::finish`] was called,
    /// because that is what it is if the process dies now.
    pub status: Status,
    /// Why it ended that way, for a person; `None` when the status says it all.
    pub reason: Option<String>,
    /// The resolved parameters, without secrets.
    pub params: BTreeMap<String, Value>,
    /// One report per step, in the order of the definition.
    pub steps: Vec<StepReport>,
    /// What the hooks of the pipeline did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookReport>,
    /// Requests sent to the site.
    pub requests: u64,
    /// Host and process that ran it.
    pub instance: String,
    /// Version of sgcache.
    pub version: String,
    /// Hash of the definition that ran; empty for a job without a pipeline.
    pub definition_hash: String,
}

/// What is known about a run before it starts.
#[derive(Debug, Clone)]
pub struct RunStart {
    /// ULID of the run, from [`new_run_id`].
    pub run_id: String,
    /// Name of the pipeline or job.
    pub pipeline: String,
    /// What started it.
    pub trigger: Trigger,
    /// When the schedule wanted it to start.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// When it starts.
    pub started_at: DateTime<Utc>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The resolved parameters, without secrets.
    pub params: BTreeMap<String, Value>,
    /// Host and process.
    pub instance: String,
    /// Hash of the definition.
    pub definition_hash: String,
}

impl RunReport {
    /// Returns what the run found and did not repair.
    pub fn open_mismatches(&self) -> impl Iterator<Item = &Mismatch> {
        let all = self.steps.iter().flat_map(|step| &step.result.mismatches);
        all.filter(|mismatch| matches!(mismatch.action, Action::Reported | Action::Unresolved))
    }

    /// Returns the report of a run that has just started.
    pub fn begin(start: RunStart) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            run_id: start.run_id,
            pipeline: start.pipeline,
            trigger: start.trigger,
            scheduled_for: start.scheduled_for,
            waited_for: None,
            started_at: start.started_at,
            finished_at: None,
            attempt: start.attempt,
            status: Status::Interrupted,
            reason: None,
            params: start.params,
            steps: Vec::new(),
            hooks: Vec::new(),
            requests: 0,
            instance: start.instance,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            definition_hash: start.definition_hash,
        }
    }

    /// Returns the record of an occurrence that did not run, for the history.
    pub fn skipped_occurrence(
        pipeline: &str,
        scheduled_for: DateTime<Utc>,
        reason: String,
        now: DateTime<Utc>,
        instance: String,
    ) -> Self {
        let mut report = Self::begin(RunStart {
            run_id: occurrence_id(pipeline, scheduled_for),
            pipeline: pipeline.to_owned(),
            trigger: Trigger::Cron,
            scheduled_for: Some(scheduled_for),
            started_at: now,
            attempt: 1,
            params: BTreeMap::new(),
            instance,
            definition_hash: String::new(),
        });
        report.finish(now, Vec::new());
        report.reason = Some(reason);
        report
    }

    /// Returns whether this is an occurrence that did not run, as opposed to a run all
    /// of whose steps were skipped.
    pub fn is_skipped_occurrence(&self) -> bool {
        self.status == Status::Skipped && self.scheduled_for.is_some() && self.steps.is_empty()
    }

    /// Ends the run with what its steps did: the status is the worst of theirs
    /// (`skipped` when there is none), the requests are their sum.
    pub fn finish(&mut self, finished_at: DateTime<Utc>, steps: Vec<StepReport>) {
        self.finished_at = Some(finished_at);
        self.status = steps.iter().map(|step| step.status).max().unwrap_or(Status::Skipped);
        self.requests = steps.iter().map(|step| step.result.requests).sum();
        self.steps = steps;
    }

    /// Returns whether the run has not ended yet.
    pub fn is_running(&self) -> bool {
        self.finished_at.is_none()
    }

    /// Returns how long the run took; zero while it runs or if the clock went backwards.
    pub fn duration_seconds(&self) -> f64 {
        let Some(finished_at) = self.finished_at else {
            return 0.0;
        };
        (finished_at - self.started_at).as_seconds_f64().max(0.0)
    }

    /// Returns every mismatch of every step with the job that found it.
    pub fn mismatches(&self) -> impl Iterator<Item = (&StepReport, &Mismatch)> {
        self.steps.iter().flat_map(|step| step.result.mismatches.iter().map(move |one| (step, one)))
    }
}

/// The record of one step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Id of the step in its pipeline; the job's name when it was started alone.
    pub id: String,
    /// Kind of job, as `sgcache job` takes it.
    pub job: String,
    /// How it ended.
    pub status: Status,
    /// How often it was tried; zero when it was skipped.
    pub attempts: u32,
    /// How long it took, all attempts together.
    pub duration_seconds: f64,
    /// Why it ended as it did, or why it did not run; `None` when there is nothing to say.
    #[serde(default)]
    pub reason: Option<String>,
    /// What broke it; `None` unless it broke.
    pub error: Option<StepError>,
    /// What it found and did; all zero when it did not get that far.
    pub result: StepResult,
}

impl StepReport {
    /// Tells whether its job was started, or broke before that: a step that was
    /// skipped, or that a stopped run never came to, is no run and no failure.
    pub fn ran(&self) -> bool {
        self.status != Status::Skipped && (self.attempts > 0 || self.status == Status::Error)
    }
}

/// What one hook did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReport {
    /// The receiver: `notify:NAME`, or `ping`.
    pub target: String,
    /// What was said.
    pub message: String,
    /// Why it did not arrive.
    pub error: Option<String>,
}

/// What broke a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// Stable word that names the kind of failure, as `explain-error` knows it.
    pub class: String,
    /// What happened, for a person, without secrets.
    pub message: String,
}

#[cfg(test)]
impl RunReport {
    /// Returns the report of a run that a schedule has started, for tests.
    pub(crate) fn of_schedule(pipeline: &str) -> Self {
        Self::begin(RunStart {
            run_id: new_run_id(),
            pipeline: pipeline.to_owned(),
            trigger: Trigger::Cron,
            scheduled_for: None,
            started_at: DateTime::UNIX_EPOCH,
            attempt: 1,
            params: BTreeMap::new(),
            instance: String::new(),
            definition_hash: String::new(),
        })
    }
}

#[cfg(test)]
mod tests;
