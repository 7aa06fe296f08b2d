//! `tests` of a pipeline file as they are written: serde types and their shape.
//!
//! A test rehearses one run: what its jobs answer is given, what becomes of it is expected.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ErrorClass;
use crate::report::{Status, StepResult, Trigger};
use crate::yaml::{self, Key, Moment, Shape, optional, required};

/// One entry of `tests`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    pub name: String,
    /// The present: of the schedule and of the run.
    pub now: Option<Moment>,
    pub trigger: Option<Trigger>,
    /// Parameters, as `--set` takes them.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How the run before ended, for hooks with `every: change`.
    pub previous: Option<Status>,
    /// For how long the pipeline does nothing, before it goes on: rehearses its alarm in
    /// place of a run.
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub stalled_for: Option<Duration>,
    /// What the jobs answer, by step id: the keys of a [`StepResult`] and of [`Answer`].
    #[serde(default)]
    pub results: BTreeMap<String, Map<String, Value>>,
    pub expect: ExpectFile,
}

/// `expect` of a test: what is left out is not looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectFile {
    pub next_runs: Option<Vec<Moment>>,
    pub ignore_jitter: bool,
    pub status: Option<Status>,
    pub reason: Option<String>,
    pub exit_code: Option<u8>,
    pub steps: BTreeMap<String, Status>,
    /// Jobs below `on_drift` that ran, then hooks that fired: `notify:NAME` or `ping`.
    pub actions: Option<Vec<String>>,
    /// The messages to notifiers, in the order of the hooks.
    pub messages: Option<Vec<String>>,
}

impl ExpectFile {
    /// Tells whether anything is expected that only a run can show.
    pub fn needs_run(&self) -> bool {
        let judged = self.status.is_some() || self.reason.is_some() || self.exit_code.is_some();
        judged || !self.steps.is_empty() || self.actions.is_some() || self.messages.is_some()
    }
}

/// What a job does when a rehearsal runs it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it finds in the end.
    pub result: StepResult,
    /// How long each attempt takes.
    pub takes: Duration,
    /// How it fails, and how often before it works; `None` is every time.
    pub failure: Option<(ErrorClass, String, Option<u32>)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Behaviour {
    #[serde(deserialize_with = "yaml::optional_duration")]
    takes: Option<Duration>,
    error: Option<ErrorClass>,
    message: Option<String>,
    fails: Option<u32>,
}

impl Answer {
    /// Reads what a test says about a step; totals that follow from others are filled in.
    ///
    /// # Errors
    ///
    /// What serde says about a value that does not fit.
    pub fn read(job: &str, written: &Map<String, Value>) -> Result<Answer, serde_json::Error> {
        let value = Value::Object(written.clone());
        let behaviour = Behaviour::deserialize(&value)?;
        let mut result = StepResult::deserialize(&value)?;
        fill_in(job, written, &mut result);
        let failure = behaviour.error.map(|class| {
            let message = behaviour.message.unwrap_or_else(|| format!("rehearsed failure: {class}"));
            (class, message, behaviour.fails)
        });
        Ok(Answer { result, takes: behaviour.takes.unwrap_or_default(), failure })
    }
}

/// Sets the totals that a job would have computed, unless they are written. A job that
/// compares has compared something, unless it is written that it has not.
fn fill_in(job: &str, written: &Map<String, Value>, result: &mut StepResult) {
    use crate::report::CheckKind::{Count, Sample};
    use crate::report::result::ratio;
    result.kind = match job {
        "validateCounts" => Some(Count),
        "validateData" => Some(Sample),
        _ => None,
    };
    let is_written = |key: &str| written.contains_key(key);
    if !result.by_type.is_empty() {
        result.by_type.values_mut().for_each(crate::report::TypeResult::sum_up);
        let mut sums = result.clone();
        sums.sum_up();
        for (key, total, sum) in [
            ("checked", &mut result.checked, sums.checked),
            ("missing", &mut result.missing, sums.missing),
            ("extra", &mut result.extra, sums.extra),
            ("differs", &mut result.differs, sums.differs),
            ("repaired", &mut result.repaired, sums.repaired),
            ("unresolved", &mut result.unresolved, sums.unresolved),
            ("written", &mut result.written, sums.written),
        ] {
            if !is_written(key) {
                *total = sum;
            }
        }
    }
    if result.kind.is_some() && !is_written("checked") && result.checked == 0 {
        result.checked = 1;
    }
    if !is_written("drift") {
        result.drift = result.missing + result.extra + result.differs + result.names;
    }
    if !is_written("drift_ratio") {
        result.drift_ratio = ratio(result.drift, result.checked);
    }
}

const COUNT: Shape = Shape::Integer(0, i64::MAX);
const STATUS: Shape =
    Shape::Choice(&["skipped", "ok", "repaired", "warn", "drift", "cancelled", "interrupted", "timeout", "error"]);

const OF_TYPE: &[Key] = &[
    optional("checked", COUNT),
    optional("missing", COUNT),
    optional("extra", COUNT),
    optional("differs", COUNT),
    optional("repaired", COUNT),
    optional("unresolved", COUNT),
    optional("written", COUNT),
    optional("verdict", Shape::Choice(&["ok", "drift", "inconclusive"])),
    optional("problem", Shape::Text),
];

const RESULT: &[Key] = &[
    optional("takes", Shape::Duration),
    optional("error", Shape::Choice(&ErrorClass::NAMES)),
    optional("message", Shape::Text),
    optional("fails", Shape::Integer(1, 100)),
    optional("checked", COUNT),
    optional("missing", COUNT),
    optional("extra", COUNT),
    optional("differs", COUNT),
    optional("names", COUNT),
    optional("drift", COUNT),
    optional("drift_ratio", Shape::NumberBetween(0.0, f64::MAX)),
    optional("repaired", COUNT),
    optional("unresolved", COUNT),
    optional("touched", COUNT),
    optional("unverifiable", COUNT),
    optional("written", COUNT),
    optional("requests", COUNT),
    optional("stale_ratio_upper95", Shape::NumberBetween(0.0, 1.0)),
    optional("truncated", Shape::Bool),
    optional("outputs", Shape::Map(&Shape::Any)),
    optional("by_type", Shape::Map(&Shape::Object(OF_TYPE))),
];

const EXPECT: &[Key] = &[
    optional("next_runs", Shape::List(&Shape::Moment)),
    optional("ignore_jitter", Shape::Bool),
    optional("status", STATUS),
    optional("reason", Shape::Text),
    optional("exit_code", Shape::Integer(0, 255)),
    optional("steps", Shape::Map(&STATUS)),
    optional("actions", Shape::List(&Shape::Text)),
    optional("messages", Shape::List(&Shape::Text)),
];

/// What `tests` may contain.
pub const TESTS: Shape = Shape::List(&Shape::Object(&[
    required("name", Shape::Text),
    optional("now", Shape::Moment),
    optional("trigger", Shape::Choice(&["cron", "cli", "api", "continuous", "ci"])),
    optional("set", Shape::Map(&Shape::Any)),
    optional("env", Shape::Map(&Shape::Text)),
    optional("previous", STATUS),
    optional("stalled_for", Shape::Duration),
    optional("results", Shape::Map(&Shape::Object(RESULT))),
    required("expect", Shape::Object(EXPECT)),
]));
