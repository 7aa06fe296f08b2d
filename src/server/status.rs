//! What the ops listener shows, and when it calls itself ready.
//!
//! A [`StatusSnapshot`] is plain data that the daemon fills in; its JSON form
//! is the answer of `/api/v1/status`, what `sgcache status` prints and what the
//! status page draws. Whether the daemon is ready follows from it alone.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::details::{DriftCard, Outcome, SetApart};
use super::health::{Health, health};
use crate::report::Status;
use crate::report::ledger::Ledger;
use crate::supervisor::{LoopState, LoopStatus};

/// The schema name of the status document.
pub const SCHEMA: &str = "sgcache.status/2";

/// Everything about a daemon at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusSnapshot {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// When the snapshot was taken.
    pub now: DateTime<Utc>,
    /// When the process started.
    pub started_at: DateTime<Utc>,
    /// Version of sgcache.
    pub version: String,
    /// Host and process.
    pub instance: String,
    /// Address of the site, without credentials.
    pub site: String,
    /// Hash of the configuration in use; empty where none is loaded.
    pub config_hash: String,
    /// The time zone of `config.yaml`, by its IANA name.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Whether `/readyz` says yes; filled in by the listener.
    pub ready: bool,
    /// Why it says no; filled in by the listener.
    pub reasons: Vec<Reason>,
    /// How it is, in words; filled in by the listener.
    #[serde(default)]
    pub health: Health,
    /// What the read proxy may answer; `None` without an api listener.
    #[serde(default)]
    pub serving: Option<Serving>,
    /// What the read proxy has given today; `None` where that is not counted.
    #[serde(default)]
    pub ledger: Option<Ledger>,
    /// What is wrong with the files on disk since the last reload failed, one line
    /// per problem; `None` while they are in use.
    #[serde(default)]
    pub config_problem: Option<String>,
    /// Why it does not lead, where several hosts share the store; `None` while it does.
    #[serde(default)]
    pub waiting: Option<WaitingStatus>,
    /// The event loop.
    pub sync: SyncStatus,
    /// The loops of the process.
    #[serde(default)]
    pub loops: Vec<LoopStatus>,
    /// Every configured entity type.
    pub types: Vec<TypeStatus>,
    /// The end of the last quarter of an hour in `types[].strip`; `None` without strips.
    #[serde(default)]
    pub strips_until: Option<DateTime<Utc>>,
    /// Entities that differed in the last runs, newest first.
    #[serde(default)]
    pub drift_cards: Vec<DriftCard>,
    /// What is set apart so that the rest goes on.
    #[serde(default)]
    pub set_apart: SetApart,
    /// Every pipeline.
    pub pipelines: Vec<PipelineStatus>,
    /// The last runs, newest first.
    pub runs: Vec<RunSummary>,
    /// The store.
    pub store: StoreStatus,
}

impl StatusSnapshot {
    /// Returns a snapshot of a daemon that knows nothing yet.
    pub fn empty(now: DateTime<Utc>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            now,
            started_at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: String::new(),
            site: String::new(),
            config_hash: String::new(),
            timezone: None,
            ready: false,
            reasons: Vec::new(),
            health: Health::default(),
            serving: None,
            ledger: None,
            config_problem: None,
            waiting: None,
            sync: SyncStatus::default(),
            loops: Vec::new(),
            types: Vec::new(),
            strips_until: None,
            drift_cards: Vec::new(),
            set_apart: SetApart::default(),
            pipelines: Vec::new(),
            runs: Vec::new(),
            store: StoreStatus::default(),
        }
    }

    /// Fills in `ready`, `reasons` and `health`.
    pub fn judge(&mut self) {
        self.health = health(self);
        self.reasons = readiness(self);
        self.ready = self.reasons.is_empty();
    }
}

/// Why a process does not lead, although it would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// Who leads: host, process, data directory, and since when; `None` where that is not known.
    pub holder: Option<String>,
    /// The reason, for a person.
    pub message: String,
}

/// How old an answer of the read proxy may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// Seconds, while the site answers.
    pub max_age_seconds: u64,
    /// Seconds, while it does not.
    pub stale_if_error_seconds: u64,
}

/// The event loop.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncStatus {
    /// Whether this process follows the site.
    pub following: bool,
    /// When the event log was last read; `None` if it never was.
    pub last_poll_at: Option<DateTime<Utc>>,
    /// What the last poll failed with; `None` when it worked.
    pub last_error: Option<String>,
    /// Polls that failed since the last one that worked.
    pub poll_failures: u32,
    /// Since when polls fail; `None` while they work.
    pub failing_since: Option<DateTime<Utc>>,
    /// Whether the site refused the credentials of sgcache.
    pub denied: bool,
    /// Why nothing can be written; `None` while it can.
    pub write_problem: Option<String>,
    /// Seconds that the cache is behind the site, 0 when caught up; `None` while that is
    /// not known, because the site does not answer.
    pub lag_seconds: Option<f64>,
    /// The lag of the last minutes, oldest first.
    pub lag_history: Vec<LagPoint>,
    /// A poll that is older than this does not count as succeeding.
    pub stall_after_seconds: u64,
    /// Highest event log id seen.
    pub event_id: Option<i64>,
    /// Highest event log id with no open mark at or below it.
    pub visible_event_id: Option<i64>,
    /// Events received since the start.
    pub events_received: u64,
    /// Keys marked and not read again yet, by kind.
    pub marks: BTreeMap<String, u64>,
    /// Ranges of event log ids still asked for.
    pub gaps_open: u64,
    /// What was refused for good, by kind.
    pub dead_letters: BTreeMap<String, u64>,
    /// Epoch of the lease.
    pub epoch: i64,
}

/// The lag at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LagPoint {
    /// When.
    pub at: DateTime<Utc>,
    /// How far behind.
    pub seconds: f64,
}

/// What may be said about a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeState {
    /// Configured, and nothing was read yet.
    #[default]
    New,
    /// Being imported for the first time.
    Importing,
    /// Complete, and following the site.
    Live,
    /// Complete, and a changed configuration is being imported in place.
    Reimporting,
    /// Following the site without some of its configured fields, which the site does
    /// not have any more.
    Degraded,
    /// The store or the site refuses it.
    Unhealthy,
    /// No longer configured, and about to be removed.
    Untracked,
}

impl TypeState {
    /// Returns the word used in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            TypeState::New => "new",
            TypeState::Importing => "importing",
            TypeState::Live => "live",
            TypeState::Reimporting => "reimporting",
            TypeState::Degraded => "degraded",
            TypeState::Unhealthy => "unhealthy",
            TypeState::Untracked => "untracked",
        }
    }
}

/// One entity type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TypeStatus {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// What may be said about it.
    pub state: TypeState,
    /// Active rows in the store.
    pub rows: u64,
    /// The moment up to which it is known to equal the site.
    pub fresh_as_of: Option<DateTime<Utc>>,
    /// Seconds that it is behind the rest of the cache, 0 when caught up; `None` while that
    /// is not known.
    pub lag_seconds: Option<f64>,
    /// Rows imported and rows to import, while an import runs.
    pub import: Option<ImportProgress>,
    /// Share of drifted entities found by the last validation and not repaired.
    pub drift_ratio: Option<f64>,
    /// When it was last validated.
    pub validated_at: Option<DateTime<Utc>>,
    /// Why it is unhealthy, or what an operator should look at.
    pub problem: Option<String>,
    /// How fresh it was in the last 24 hours, one digit per quarter of an hour, oldest
    /// first: 0 at most 2 s old, 1 at most 5 s, 2 at most 30 s, 3 older, 4 not served, 5
    /// being imported, 6 not known. Empty where no history is kept.
    #[serde(default)]
    pub strip: String,
}

/// How far an import has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Rows imported.
    pub done: u64,
    /// Rows on the site when the import began.
    pub total: u64,
}

/// One pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// When it starts, in short: its first cron line, `all the time` or `on request`.
    pub schedule: Option<String>,
    /// The same in words.
    #[serde(default)]
    pub schedule_words: Option<String>,
    /// Whether it runs now.
    pub running: bool,
    /// The run that goes on, if one is known.
    #[serde(default)]
    pub run_id: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether it starts by itself.
    #[serde(default)]
    pub enabled: bool,
    /// The time zone of its schedule, by its IANA name.
    #[serde(default)]
    pub timezone: Option<String>,
    /// When it runs next.
    pub next_run: Option<DateTime<Utc>>,
    /// How its last run ended.
    pub last_status: Option<Status>,
    /// When its last run ended.
    pub last_finished_at: Option<DateTime<Utc>>,
    /// How its last runs ended, oldest first, at most 30.
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
}

impl PipelineStatus {
    /// Returns the word for what it does now, the same in every command and page.
    pub fn state(&self) -> &'static str {
        match (self.running, self.paused, self.enabled) {
            (true, ..) => "running",
            (_, true, _) => "paused",
            (.., false) => "disabled",
            _ => "idle",
        }
    }
}

/// One run in the list of the last ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// ULID of the run.
    pub run_id: String,
    /// Pipeline or job.
    pub pipeline: String,
    /// What started it.
    pub trigger: crate::report::Trigger,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<DateTime<Utc>>,
    /// How it ended.
    pub status: Status,
    /// Why, for a person.
    pub reason: Option<String>,
    /// Entities compared, drifted and repaired, and rows written, all steps together.
    pub checked: u64,
    /// Entities that drifted.
    pub drift: u64,
    /// Drifted entities that were repaired.
    pub repaired: u64,
    /// Rows written.
    pub written: u64,
}

impl From<&crate::report::RunReport> for RunSummary {
    fn from(report: &crate::report::RunReport) -> Self {
        let results = || report.steps.iter().map(|step| &step.result);
        Self {
            run_id: report.run_id.clone(),
            pipeline: report.pipeline.clone(),
            trigger: report.trigger,
            started_at: report.started_at,
            finished_at: report.finished_at,
            status: report.status,
            reason: report.reason.clone(),
            checked: results().map(|result| result.checked).sum(),
            drift: results().map(|result| result.drift).sum(),
            repaired: results().map(|result| result.repaired).sum(),
            written: results().map(|result| result.written).sum(),
        }
    }
}

/// The store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `embedded` or `elasticsearch`.
    pub kind: String,
    /// File or address, without credentials.
    pub location: String,
    /// Name and version of the software behind it.
    pub version: String,
    /// Whether it answers.
    pub up: bool,
    /// What it fails with.
    pub problem: Option<String>,
    /// Why it takes no writes, although it answers.
    #[serde(default)]
    pub write_problem: Option<String>,
    /// Its size, if it can tell.
    pub size_bytes: Option<u64>,
    /// Documents about runs that wait to be delivered.
    pub reports_waiting: u64,
}

/// Why the daemon is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable word: `store_down`, `type_not_live`, `never_polled`, `poll_failing`, `no_types`,
    /// `loop_down`, `not_writable`, `not_leader`.
    pub code: String,
    /// What it is about, for example the entity type.
    pub subject: String,
    /// What to know about it.
    pub message: String,
}

/// Returns every reason why the daemon is not ready; none means that it is.
///
/// A failing validation is none: the cache still answers, and says how fresh it is.
pub fn readiness(status: &StatusSnapshot) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut because = |code: &str, subject: &str, message: String| {
        reasons.push(Reason { code: code.into(), subject: subject.into(), message });
    };
    if !status.store.up {
        let problem = status.store.problem.as_deref().unwrap_or("it has not answered yet");
        because("store_down", &status.store.kind, format!("the store does not answer: {problem}"));
    }
    if let Some(problem) = status.sync.write_problem.as_ref().or(status.store.write_problem.as_ref()) {
        because("not_writable", &status.store.kind, format!("what the site has changed cannot be written: {problem}"));
    }
    for one in status.loops.iter().filter(|one| one.state != LoopState::Running) {
        because("loop_down", &one.name, loop_message(one));
    }
    if let Some(waiting) = &status.waiting {
        because("not_leader", waiting.holder.as_deref().unwrap_or(&status.store.kind), waiting.message.clone());
        // What is not complete or not read here follows from that.
        return reasons;
    }
    if status.types.is_empty() {
        because("no_types", "entityConfig", "no entity type is configured".into());
    }
    for ty in &status.types {
        let serving = [TypeState::Live, TypeState::Degraded, TypeState::Reimporting, TypeState::Untracked];
        if !serving.contains(&ty.state) {
            because("type_not_live", &ty.entity_type, type_message(ty));
        }
    }
    let stall_after = i64::try_from(status.sync.stall_after_seconds).unwrap_or(i64::MAX);
    match status.sync.last_poll_at {
        None => {
            let error = status.sync.last_error.as_deref().unwrap_or("no poll has ended yet");
            because("never_polled", &status.site, format!("the event log was never read: {error}"));
        }
        Some(at) if (status.now - at).num_seconds() > stall_after => {
            let age = (status.now - at).num_seconds();
            let error = status.sync.last_error.as_deref().unwrap_or("no error was reported");
            let message = format!("the event log was last read {age} s ago: {error}");
            because("poll_failing", &status.site, message);
        }
        Some(_) => {}
    }
    reasons
}

/// Returns what an operator should know about a daemon that answers all the same:
/// types that lack some of their fields, files that could not be loaded again.
pub fn warnings(status: &StatusSnapshot) -> Vec<Reason> {
    // Before it is a reason: the first poll that fails is known at once.
    let away = status.sync.last_error.as_ref().filter(|_| status.sync.last_poll_at.is_some());
    let away = away.map(|error| Reason {
        code: "site_away".into(),
        subject: status.site.clone(),
        message: format!("the site does not answer: {error}"),
    });
    let degraded = status.types.iter().filter(|ty| ty.state == TypeState::Degraded);
    let reason = |ty: &TypeStatus| Reason {
        code: "type_degraded".into(),
        subject: ty.entity_type.clone(),
        message: type_message(ty),
    };
    let config = status.config_problem.as_ref().map(|problem| Reason {
        code: "config_invalid".into(),
        subject: "config.yaml and pipelines".into(),
        message: format!("the files on disk have errors, the pipelines loaded before stay in use: {problem}"),
    });
    away.into_iter().chain(degraded.map(reason)).chain(config).collect()
}

fn loop_message(one: &LoopStatus) -> String {
    let failure = one.last_failure.as_deref().unwrap_or("no failure was reported");
    match one.state {
        LoopState::Stuck => format!("the loop gave no sign of life for {:.0} s", one.beat_age_seconds),
        LoopState::Restarting | LoopState::Running => format!("the loop is being started again: {failure}"),
    }
}

pub(super) fn type_message(ty: &TypeStatus) -> String {
    match (&ty.problem, ty.import) {
        (Some(problem), _) => format!("{}: {problem}", ty.state.as_str()),
        (None, Some(import)) => {
            format!("{}: {} of {} rows", ty.state.as_str(), import.done, import.total)
        }
        (None, None) => ty.state.as_str().to_owned(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
