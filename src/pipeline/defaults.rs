//! What applies to a pipeline that does not say otherwise, and the small types
//! that pipelines and `pipelines.defaults` of `config.yaml` share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry::doubled;
use crate::yaml::{self, Key, Shape, optional};

/// Why a job broke, in the words that `retry.on` and reports use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The site or the network did not answer.
    Unavailable,
    /// The site asked for fewer requests.
    RateLimited,
    /// An answer or the job took too long.
    Timeout,
    /// The site or the store refused the credentials or the permission.
    Denied,
    /// The request makes no sense: an unknown type, field or relation.
    Invalid,
    /// The store failed.
    Store,
    /// A bug, a panic, anything else.
    Internal,
}

impl ErrorClass {
    /// Every class, in the spelling of YAML.
    pub const NAMES: [&'static str; 7] =
        ["unavailable", "rate_limited", "timeout", "denied", "invalid", "store", "internal"];

    /// Returns the word used in YAML and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Unavailable => "unavailable",
            ErrorClass::RateLimited => "rate_limited",
            ErrorClass::Timeout => "timeout",
            ErrorClass::Denied => "denied",
            ErrorClass::Invalid => "invalid",
            ErrorClass::Store => "store",
            ErrorClass::Internal => "internal",
        }
    }

    /// Returns the class that a report names, `Internal` for an unknown word.
    pub fn from_name(name: &str) -> ErrorClass {
        use ErrorClass as C;
        [C::Unavailable, C::RateLimited, C::Timeout, C::Denied, C::Invalid, C::Store]
            .into_iter()
            .find(|class| class.as_str() == name)
            .unwrap_or(C::Internal)
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to an occurrence that was missed while sgcache was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// One run makes up for all of them, within the window.
    #[default]
    Once,
    /// They are gone.
    Skip,
}

/// How often and after what a step is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// The wait before the second attempt; doubles with each one.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// The classes of failure that are worth another attempt.
    pub on: Vec<ErrorClass>,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts: 3,
            initial: Duration::from_secs(5),
            max: Duration::from_secs(120),
            on: vec![ErrorClass::Unavailable, ErrorClass::RateLimited, ErrorClass::Timeout],
        }
    }
}

impl Retry {
    /// Returns the longest wait before attempt `next` (2 is the first retry).
    pub fn wait_before(&self, next: u32) -> Duration {
        doubled(self.initial, next.saturating_sub(2), self.max)
    }

    /// Tells whether a failure of this class is worth another attempt after
    /// `attempts` of them.
    pub fn again(&self, class: ErrorClass, attempts: u32) -> bool {
        attempts < self.attempts && self.on.contains(&class)
    }
}

/// `retry` as written; what is left out comes from the defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryFile {
    attempts: Option<u32>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    initial: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    max: Option<Duration>,
    on: Option<Vec<ErrorClass>>,
}

impl RetryFile {
    /// Fills in what is not written.
    pub fn over(self, defaults: &Retry) -> Retry {
        Retry {
            attempts: self.attempts.unwrap_or(defaults.attempts),
            initial: self.initial.unwrap_or(defaults.initial),
            max: self.max.unwrap_or(defaults.max),
            on: self.on.unwrap_or_else(|| defaults.on.clone()),
        }
    }
}

/// How long runs, steps and silences may last.
pub const LIMIT: Shape = Shape::DurationBetween(Duration::from_millis(1), Duration::from_secs(31 * 86_400));
/// How old a missed occurrence may be to be caught up.
pub const CATCH_UP_WINDOW: Shape = Shape::DurationBetween(Duration::ZERO, Duration::from_secs(366 * 86_400));
const RETRY_WAIT: Shape = Shape::DurationBetween(Duration::ZERO, Duration::from_secs(86_400));

/// The keys of `retry`.
pub const RETRY_KEYS: &[Key] = &[
    optional("attempts", Shape::Integer(1, 20)),
    optional("initial", RETRY_WAIT),
    optional("max", RETRY_WAIT),
    optional("on", Shape::List(&Shape::Choice(&ErrorClass::NAMES))),
];

/// What applies to every pipeline that does not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// The longest a run may take.
    pub timeout: Duration,
    /// How steps are tried again.
    pub retry: Retry,
    /// What happens to missed occurrences.
    pub catch_up: CatchUp,
    /// How old a missed occurrence may be to be made up for.
    pub catch_up_window: Duration,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            timeout: Duration::from_secs(3600),
            retry: Retry::default(),
            catch_up: CatchUp::Once,
            catch_up_window: Duration::from_secs(6 * 3600),
        }
    }
}

/// `pipelines.defaults` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultsFile {
    #[serde(deserialize_with = "yaml::optional_duration")]
    timeout: Option<Duration>,
    retry: Option<RetryFile>,
    catch_up: Option<CatchUp>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    catch_up_window: Option<Duration>,
}

impl DefaultsFile {
    /// Fills in what is not written.
    pub fn resolve(self) -> Defaults {
        let built_in = Defaults::default();
        Defaults {
            timeout: self.timeout.unwrap_or(built_in.timeout),
            retry: self.retry.unwrap_or_default().over(&built_in.retry),
            catch_up: self.catch_up.unwrap_or(built_in.catch_up),
            catch_up_window: self.catch_up_window.unwrap_or(built_in.catch_up_window),
        }
    }
}

/// The keys of `pipelines.defaults`.
pub const DEFAULTS_KEYS: &[Key] = &[
    optional("timeout", LIMIT),
    optional("retry", Shape::Object(RETRY_KEYS)),
    optional("catch_up", Shape::Choice(&["once", "skip"])),
    optional("catch_up_window", CATCH_UP_WINDOW),
];
