//! One judgement of a daemon: how it is, in a sentence, and what needs a person.
//!
//! Pure: everything follows from a [`StatusSnapshot`]. The status page, `sgcache
//! status` and `/readyz` all say these words, so they agree at every moment. The
//! highest level wins; within a level the first finding gives the sentence and the
//! others are what needs attention besides. Whether requests may be routed here is
//! another question, which `readiness` answers.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::status::{StatusSnapshot, TypeState, type_message};
use crate::report::Status;
use crate::supervisor::LoopState;

/// A cache that is further behind its site is called so.
const BEHIND_SECONDS: f64 = 5.0;
/// Findings that are shown besides the first.
const MAX_NEEDS: usize = 5;

/// How bad something is; higher is worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    #[default]
    Ok,
    /// Not complete yet, and working on it.
    Busy,
    /// Answers go on; a person should look.
    Warn,
    /// Answers or data are missing.
    Bad,
}

impl Level {
    /// Returns the word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Busy => "busy",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One of the four answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// How bad it is.
    pub level: Level,
    /// The answer in a sentence without a full stop.
    pub text: String,
}

/// Something that needs a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable word, for example `site_away`.
    pub code: String,
    /// What is the matter and what to do.
    pub text: String,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
}

/// How a daemon is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The highest level of all findings.
    pub level: Level,
    /// The code of the first finding of that level; `ok` without one.
    pub code: String,
    /// What is the matter, in one or two sentences.
    pub title: String,
    /// Since when, where that is known.
    pub since: Option<DateTime<Utc>>,
    /// Whether reads are answered, and from when the answers are.
    pub reads: Answer,
    /// Whether the site takes writes.
    #[serde(default)]
    pub writes: Answer,
    /// Whether the site answers.
    pub site: Answer,
    /// Whether rows are known to be wrong.
    pub drift: Answer,
    /// What else needs a person, worst first.
    pub needs: Vec<Finding>,
}

/// Judges a snapshot.
pub fn health(status: &StatusSnapshot) -> Health {
    let mut findings = findings(status);
    // Stable: within a level the order of the list stays.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let first = findings.first().cloned();
    let (level, code, title, since) = match first {
        Some(first) => (first.level, first.code, first.text, first.since),
        None => (Level::Ok, "ok".to_owned(), healthy(status), None),
    };
    let needs = findings.into_iter().skip(1).take(MAX_NEEDS).collect();
    Health {
        level,
        code,
        title,
        since,
        reads: reads(status),
        writes: writes(status),
        site: site(status),
        drift: drift(status),
        needs,
    }
}

fn healthy(status: &StatusSnapshot) -> String {
    let behind = status.sync.lag_seconds.map_or_else(String::new, |lag| format!(", {lag:.1} s behind"));
    match status.types.len() {
        1 => format!("Healthy. The one type follows the site{behind}."),
        types => format!("Healthy. All {types} types follow the site{behind}."),
    }
}

fn findings(status: &StatusSnapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |level, code: &str, text: String, since| {
        findings.push(Finding { level, code: code.to_owned(), text, since });
    };
    let sync = &status.sync;
    if let Some(limit) = status.serving.as_ref().map(|serving| serving.stale_if_error_seconds)
        && sync.failing_since.is_some()
        && oldest(status).is_some_and(|at| (status.now - at).num_seconds() > i64::try_from(limit).unwrap_or(i64::MAX))
    {
        let text = format!("The site is away and rows are older than {}: reads are refused.", Span(limit as f64));
        find(Level::Bad, "not_serving", text, sync.failing_since);
    }
    if !status.store.up {
        let problem = status.store.problem.as_deref().unwrap_or("it has not answered yet");
        find(Level::Bad, "store_down", format!("The store does not answer: {problem}"), None);
    }
    if let Some(problem) = &sync.write_problem {
        find(Level::Bad, "not_writable", format!("Rows cannot be written, so the cache falls behind: {problem}"), None);
    }
    if sync.denied {
        let text = "The site refuses the script of sgcache: check `shotgun.script` and `shotgun.key`.".to_owned();
        find(Level::Bad, "denied", text, sync.failing_since);
    }
    if let Some(waiting) = &status.waiting {
        // A process that knows no leader should be one.
        let level = if waiting.holder.is_some() { Level::Busy } else { Level::Warn };
        find(level, "not_leader", format!("Waiting to lead: {}.", waiting.message), None);
        return findings;
    }
    for ty in status.types.iter().filter(|ty| ty.state == TypeState::Unhealthy) {
        find(Level::Bad, "type_unhealthy", format!("{}: {}", ty.entity_type, type_message(ty)), None);
    }
    for one in status.loops.iter().filter(|one| one.state != LoopState::Running) {
        let why = one.last_failure.as_deref().unwrap_or("it gave no sign of life");
        find(Level::Bad, "loop_down", format!("The loop `{}` does not run: {why}", one.name), None);
    }
    if let (Some(error), false) = (&sync.last_error, sync.denied) {
        let text = match sync.last_poll_at {
            None => format!("The event log was never read: {error}"),
            Some(_) => "The site does not answer. Reads go on from the cache; writes fail.".to_owned(),
        };
        find(Level::Warn, "site_away", text, sync.failing_since);
    }
    for ty in status.types.iter().filter(|ty| ty.drift_ratio.is_some_and(|ratio| ratio > 0.0)) {
        let text = format!("{}: rows differ from the site: `sgcache job validateData --repair`", ty.entity_type);
        find(Level::Warn, "drift_open", text, ty.validated_at);
    }
    if let Some(lag) = sync.lag_seconds.filter(|lag| *lag > BEHIND_SECONDS && sync.failing_since.is_none()) {
        find(Level::Warn, "behind", format!("The cache is {} behind the site.", Span(lag)), None);
    }
    for ty in status.types.iter().filter(|ty| ty.state == TypeState::Live && ty.problem.is_some()) {
        find(Level::Warn, "deletions_held", format!("{}: {}", ty.entity_type, type_message(ty)), None);
    }
    let dead: u64 = sync.dead_letters.values().sum();
    if dead > 0 {
        let text = format!("{dead} rows or entries could not be read or stored: `sgcache deadLetters list`");
        find(Level::Warn, "dead_letters", text, None);
    }
    for ty in status.types.iter().filter(|ty| ty.state == TypeState::Degraded) {
        find(Level::Warn, "type_degraded", format!("{}: {}", ty.entity_type, type_message(ty)), None);
    }
    if let Some(problem) = &status.config_problem {
        let text = format!("The files on disk have errors, the pipelines loaded before stay in use: {problem}");
        find(Level::Warn, "reload_failed", text, None);
    }
    for pipeline in &status.pipelines {
        if let Some(last @ (Status::Error | Status::Timeout)) = pipeline.last_status {
            let text = format!("The last run of {} ended as {last}: `sgcache pipelines history`", pipeline.name);
            find(Level::Warn, "run_failed", text, pipeline.last_finished_at);
        }
    }
    let unfinished = |state| matches!(state, TypeState::New | TypeState::Importing);
    let importing = status.types.iter().filter(|ty| unfinished(ty.state)).count();
    if importing > 0 || status.types.is_empty() {
        let text = match status.types.len() {
            0 => "Starting: no entity type is known yet.".to_owned(),
            all => format!("Importing: {} of {all} types are complete.", all - importing),
        };
        find(Level::Busy, "importing", text, None);
    } else if sync.last_poll_at.is_none() && sync.last_error.is_none() {
        find(Level::Busy, "starting", "Starting: the event log was not read yet.".to_owned(), None);
    }
    findings
}

fn reads(status: &StatusSnapshot) -> Answer {
    let Some(serving) = &status.serving else {
        return Answer { level: Level::Ok, text: "no read proxy is configured (`listen.api`)".to_owned() };
    };
    let Some(oldest) = oldest(status) else {
        return Answer { level: Level::Busy, text: "from the site until the import is complete".to_owned() };
    };
    let age = (status.now - oldest).max(TimeDelta::zero()).as_seconds_f64();
    let (usual, limit) = (serving.max_age_seconds as f64, serving.stale_if_error_seconds as f64);
    if status.sync.failing_since.is_none() && age <= usual {
        return Answer { level: Level::Ok, text: format!("from the cache, {} old", Span(age)) };
    }
    if status.sync.failing_since.is_none() {
        let text = format!("from the site for types that are more than {} old", Span(usual));
        return Answer { level: Level::Warn, text };
    }
    match age <= limit {
        true => {
            let text = format!("from the cache, {} old; allowed until {}", Span(age), Span(limit));
            Answer { level: Level::Warn, text }
        }
        false => Answer { level: Level::Bad, text: format!("refused for what is older than {}", Span(limit)) },
    }
}

/// Writes go to the site, so they fail as soon as it does.
fn writes(status: &StatusSnapshot) -> Answer {
    let sync = &status.sync;
    if sync.last_error.is_some() {
        return Answer { level: Level::Bad, text: "fail while the site does not answer".to_owned() };
    }
    if sync.last_poll_at.is_none() {
        return Answer { level: Level::Busy, text: "not known yet".to_owned() };
    }
    let visible = status.ledger.as_ref().and_then(|ledger| ledger.writes.visible_p50_seconds);
    let text = match visible {
        Some(seconds) => format!("accepted by the site, in every answer after {}", Span(seconds)),
        None => "accepted by the site".to_owned(),
    };
    Answer { level: Level::Ok, text }
}

/// The moment up to which every type that is served equals the site.
fn oldest(status: &StatusSnapshot) -> Option<DateTime<Utc>> {
    status.types.iter().filter_map(|ty| ty.fresh_as_of).min()
}

fn site(status: &StatusSnapshot) -> Answer {
    let sync = &status.sync;
    let read = sync.last_poll_at.map(|at| Span((status.now - at).max(TimeDelta::zero()).as_seconds_f64()));
    match (&sync.last_error, read) {
        (None, Some(read)) => Answer { level: Level::Ok, text: format!("answers, event log read {read} ago") },
        (None, None) => Answer { level: Level::Busy, text: "not asked yet".to_owned() },
        (Some(error), read) => {
            let read = read.map_or_else(|| "never".to_owned(), |read| format!("{read} ago"));
            Answer { level: Level::Bad, text: format!("{error} (event log last read {read})") }
        }
    }
}

fn drift(status: &StatusSnapshot) -> Answer {
    let compared = status.types.iter().filter(|ty| ty.validated_at.is_some()).count();
    let drifted = status.types.iter().filter(|ty| ty.drift_ratio.is_some_and(|ratio| ratio > 0.0));
    let drifted: Vec<&str> = drifted.map(|ty| ty.entity_type.as_str()).collect();
    match (drifted.as_slice(), compared) {
        ([], 0) => Answer { level: Level::Ok, text: "not known: nothing was compared yet".to_owned() },
        ([], some) => {
            Answer { level: Level::Ok, text: format!("none in the {some} of {} types compared", status.types.len()) }
        }
        (names, _) => Answer { level: Level::Warn, text: format!("rows of {} differ from the site", names.join(", ")) },
    }
}

/// Seconds for people: `0.6 s`, `12 s`, `12 min`, `8 h`, `3 d`.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s < 10.0 => write!(f, "{s:.1} s"),
            s if s < 120.0 => write!(f, "{s:.0} s"),
            s if s < 7_200.0 => write!(f, "{:.0} min", s / 60.0),
            s if s < 172_800.0 => write!(f, "{:.0} h", s / 3_600.0),
            s => write!(f, "{:.0} d", s / 86_400.0),
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
