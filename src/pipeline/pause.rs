//! [`Pauses`]: pipelines that somebody has stopped from starting by themselves.
//!
//! Kept in the state, so that they outlive a restart and can be set with or
//! without a running daemon, which looks at them with every beat. What was due
//! during a pause is not made up for: whoever pauses wants quiet, not a queue.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::state::{State, StateError};

/// The name under which the state keeps them.
const KEPT: &str = "pauses";

/// One pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: DateTime<Utc>,
    /// When it ends by itself; `None` when somebody must end it.
    pub until: Option<DateTime<Utc>>,
    /// Why, in the words of whoever paused.
    pub reason: String,
}

/// The pauses there are, by the name of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses(BTreeMap<String, Pause>);

impl Pauses {
    /// Returns the pauses that the state keeps.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub fn load(state: &State) -> Result<Pauses, StateError> {
        Ok(state.kept(KEPT)?.unwrap_or_default())
    }

    /// Writes them into the state.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        state.keep(KEPT, self)
    }

    /// Returns the pause of a pipeline that holds now.
    pub fn of(&self, pipeline: &str, now: DateTime<Utc>) -> Option<&Pause> {
        self.0.get(pipeline).filter(|pause| pause.until.is_none_or(|until| now < until))
    }

    /// Pauses a pipeline, in place of an older pause.
    pub fn set(&mut self, pipeline: &str, pause: Pause) {
        self.0.insert(pipeline.to_owned(), pause);
    }

    /// Ends a pause; tells whether one held.
    pub fn end(&mut self, pipeline: &str, now: DateTime<Utc>) -> bool {
        let held = self.of(pipeline, now).is_some();
        self.0.remove(pipeline);
        held
    }
}

impl Pause {
    /// Returns it in words: `paused until 2026-11-23 10:00:00 UTC: maintenance`.
    pub fn describe(&self) -> String {
        let until = self.until.map(|until| format!(" until {}", until.format("%Y-%m-%d %H:%M:%S UTC")));
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("paused{}{reason}", until.unwrap_or_default())
    }
}
