//! How a command fails: an exit code and words for a person.

use std::fmt;
use std::process::ExitCode;

use super::output::drawn;
use crate::shotgun;
use crate::state::StateError;
use crate::store::{StoreError, StoreErrorKind};
use crate::yaml::Problems;

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// The exit code; the list is in the README.
    pub code: u8,
    /// What went wrong, several lines when there are several things.
    pub message: String,
    /// What is wrong with files, to be drawn with their lines.
    problems: Option<Box<Problems>>,
}

impl Failure {
    /// The program itself is wrong.
    pub const INTERNAL: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// The site or the store is away.
    pub const UNAVAILABLE: u8 = 69;
    /// Another process holds what is needed.
    pub const LOCKED: u8 = 75;
    /// The credentials were refused.
    pub const DENIED: u8 = 77;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;

    /// Makes a failure.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problems: None }
    }

    /// Makes a failure of the program itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Self::INTERNAL, message)
    }

    /// Makes a failure of the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Self::USAGE, message)
    }

    /// Makes a failure of the configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Self::CONFIG, message)
    }

    /// Makes a failure of files that have errors.
    pub fn problems(problems: Problems) -> Self {
        Self { problems: Some(Box::new(problems.clone())), ..Self::config(problems.to_string()) }
    }

    /// Returns one object per mistake in files; none when the failure is of another kind.
    pub fn diagnostics(&self) -> Vec<serde_json::Value> {
        let documents = self.problems.as_ref().map(|problems| problems.to_json());
        documents.and_then(|documents| documents.as_array().cloned()).unwrap_or_default()
    }

    /// Prints the message and returns the exit code.
    pub fn report(&self) -> ExitCode {
        match &self.problems {
            Some(problems) => eprintln!("{}", drawn(problems)),
            None => eprintln!("{self}"),
        }
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Diagnostics have words of their own for how bad they are.
        if self.message.starts_with("error") || self.problems.is_some() {
            return f.write_str(self.message.trim_end());
        }
        write!(f, "error: {}", self.message)
    }
}

impl From<shotgun::Error> for Failure {
    fn from(error: shotgun::Error) -> Self {
        use shotgun::ErrorKind::{Denied, Fault, Settings, Tls};
        let code = match error.kind() {
            Denied => Self::DENIED,
            _ if error.is_forbidden() => Self::DENIED,
            Settings | Tls => Self::CONFIG,
            Fault => Self::INTERNAL,
            _ => Self::UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let code = match error {
            _ if error.is_locked() => Self::LOCKED,
            StateError::Newer { .. } | StateError::Directory { .. } => Self::CONFIG,
            StateError::Open { .. } | StateError::Sqlite(_) => Self::UNAVAILABLE,
            _ => Self::INTERNAL,
        };
        Self::new(code, with_causes(&error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match error.kind() {
            StoreErrorKind::Unavailable
            | StoreErrorKind::Full
            | StoreErrorKind::Refused
            | StoreErrorKind::Corrupt
            | StoreErrorKind::Fault => Self::UNAVAILABLE,
            StoreErrorKind::Locked | StoreErrorKind::NotLeader => Self::LOCKED,
            StoreErrorKind::Newer => Self::CONFIG,
            StoreErrorKind::Unsupported | StoreErrorKind::UnknownType => Self::USAGE,
        };
        Self::new(code, with_causes(&error))
    }
}

/// Joins an error with its causes, leaving out those it repeats.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
