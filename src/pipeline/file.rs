//! A pipeline file as it is written: serde types and the shape to check it by.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::job_arguments::one_or_many;
use super::params::{PARAM, Param};
use super::test_file::TESTS;
use super::{CATCH_UP_WINDOW, CatchUp, LIMIT, Policy, RETRY_KEYS, RetryFile};
use crate::yaml::{self, Key, Shape, optional, required};

/// The whole file. An entry of a list is `None` when it does not fit the shape, which
/// has reported it: the places of the others stay right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct PipelineFile {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub enabled: Option<bool>,
    pub continuous: Option<ContinuousFile>,
    pub schedule: Option<ScheduleFile>,
    pub concurrency: Option<ConcurrencyFile>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub timeout: Option<Duration>,
    pub retry: Option<RetryFile>,
    #[serde(default)]
    pub params: BTreeMap<String, Param>,
    pub steps: Vec<Option<StepFile>>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub blackout: Vec<String>,
    #[serde(default)]
    pub budget: super::RunBudget,
    pub outputs: Option<OutputsFile>,
    #[serde(default)]
    pub on_drift: Vec<Option<ReactionFile>>,
    #[serde(default)]
    pub on_error: Vec<Option<ReactionFile>>,
    #[serde(default)]
    pub on_success: Vec<Option<ReactionFile>>,
    #[serde(default)]
    pub always: Vec<Option<ReactionFile>>,
    #[serde(default)]
    pub on_stalled: Vec<Option<ReactionFile>>,
    #[serde(default)]
    pub on_recovered: Vec<Option<ReactionFile>>,
    /// Read where they are run.
    #[serde(default)]
    pub tests: Value,
}

/// `continuous`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct ContinuousFile {
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub max_interval: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub stall_after: Option<Duration>,
    pub restart: Option<RestartFile>,
}

/// `continuous.restart`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct RestartFile {
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub initial: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub max: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub reset_after: Option<Duration>,
}

/// `schedule`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct ScheduleFile {
    #[serde(deserialize_with = "one_or_many")]
    pub cron: Vec<String>,
    pub timezone: Option<String>,
    #[serde(default)]
    pub seconds: bool,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub jitter: Option<Duration>,
    pub catch_up: Option<CatchUp>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub catch_up_window: Option<Duration>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub overdue_after: Option<Duration>,
}

/// `concurrency`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct ConcurrencyFile {
    pub policy: Option<super::Policy>,
    pub group: Option<String>,
}

/// One entry of `steps`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct StepFile {
    pub id: String,
    pub job: String,
    #[serde(default, deserialize_with = "one_or_many")]
    pub needs: Vec<String>,
    pub when: Option<String>,
    #[serde(default)]
    pub with: Value,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub timeout: Option<Duration>,
    pub warn_when: Option<String>,
    pub fail_when: Option<String>,
}

/// One entry of `on_drift`, `on_error`, `on_success` or `always`: a job, a notifier
/// to notify, or an address to fetch. Only `on_drift` knows jobs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct ReactionFile {
    pub job: Option<String>,
    #[serde(default)]
    pub with: Value,
    pub notify: Option<String>,
    pub ping: Option<String>,
    pub message: Option<String>,
    #[serde(default)]
    pub every: super::Every,
}

/// `outputs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct OutputsFile {
    pub prometheus: Option<bool>,
    pub elasticsearch: Option<ElasticsearchOutputFile>,
    pub file: Option<FileOutputFile>,
}

/// `outputs.file`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct FileOutputFile {
    pub path: String,
}

/// `outputs.elasticsearch`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the shipped pipelines explain each key")]
pub struct ElasticsearchOutputFile {
    pub detail: Option<super::Detail>,
    pub index: Option<String>,
}

const DAY: Duration = Duration::from_secs(86_400);
/// Waits of loops: never a busy loop, never a loop that seems dead.
const INTERVAL: Shape = Shape::DurationBetween(Duration::from_millis(100), DAY);
const RESTART: Shape = Shape::DurationBetween(Duration::from_millis(1), DAY);

const CONTINUOUS: &[Key] = &[
    optional("interval", INTERVAL),
    optional("max_interval", INTERVAL),
    optional("stall_after", LIMIT),
    optional(
        "restart",
        Shape::Object(&[optional("initial", RESTART), optional("max", RESTART), optional("reset_after", RESTART)]),
    ),
];

const SCHEDULE: &[Key] = &[
    required("cron", Shape::OneOrMany(&Shape::Text)),
    optional("timezone", Shape::Text),
    optional("seconds", Shape::Bool),
    optional("jitter", Shape::DurationBetween(Duration::ZERO, DAY)),
    optional("catch_up", Shape::Choice(&["once", "skip"])),
    optional("catch_up_window", CATCH_UP_WINDOW),
    optional("overdue_after", CATCH_UP_WINDOW),
];

const STEP: &[Key] = &[
    required("id", Shape::Text),
    required("job", Shape::Text),
    optional("needs", Shape::OneOrMany(&Shape::Text)),
    optional("when", Shape::Text),
    optional("with", Shape::Map(&Shape::Any)),
    optional("timeout", LIMIT),
    optional("warn_when", Shape::Text),
    optional("fail_when", Shape::Text),
];

/// What the file may contain.
pub const SHAPE: Shape = Shape::Object(&[
    required("name", Shape::Text),
    optional("description", Shape::Text),
    optional("labels", Shape::Map(&Shape::Text)),
    optional("enabled", Shape::Bool),
    optional("continuous", Shape::Object(CONTINUOUS)),
    optional("schedule", Shape::Object(SCHEDULE)),
    optional(
        "concurrency",
        Shape::Object(&[optional("policy", Shape::Choice(&Policy::NAMES)), optional("group", Shape::Text)]),
    ),
    optional("timeout", LIMIT),
    optional("retry", Shape::Object(RETRY_KEYS)),
    optional("params", Shape::Map(&PARAM)),
    optional(
        "budget",
        Shape::Object(&[
            optional("max_requests", Shape::Integer(1, 100_000_000)),
            optional("max_rps", Shape::NumberBetween(0.01, 1000.0)),
        ]),
    ),
    required("steps", Shape::List(&Shape::Object(STEP))),
    optional(
        "outputs",
        Shape::Object(&[
            optional("prometheus", Shape::Bool),
            optional(
                "elasticsearch",
                Shape::Object(&[
                    optional("detail", Shape::Choice(&["drift", "summary"])),
                    optional("index", Shape::Text),
                ]),
            ),
            optional("file", Shape::Object(&[required("path", Shape::Text)])),
        ]),
    ),
    optional("blackout", Shape::OneOrMany(&Shape::Text)),
    optional(
        "on_drift",
        Shape::List(&Shape::Object(&[
            optional("job", Shape::Choice(&["repair"])),
            optional("with", Shape::Map(&Shape::Any)),
            NOTIFY,
            PING,
            MESSAGE,
            EVERY,
        ])),
    ),
    optional("on_error", HOOKS),
    optional("on_success", HOOKS),
    optional("always", HOOKS),
    optional("on_stalled", ALARM_HOOKS),
    optional("on_recovered", ALARM_HOOKS),
    optional("tests", TESTS),
]);

const NOTIFY: Key = optional("notify", Shape::Text);
const PING: Key = optional("ping", Shape::Text);
const MESSAGE: Key = optional("message", Shape::Text);
const EVERY: Key = optional("every", Shape::Choice(&["run", "change"]));
/// An alarm is raised once, so there is no `every`.
const ALARM_HOOKS: Shape = Shape::List(&Shape::Object(&[NOTIFY, PING, MESSAGE]));
const HOOKS: Shape = Shape::List(&Shape::Object(&[NOTIFY, PING, MESSAGE, EVERY]));
