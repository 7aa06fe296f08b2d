//! [`Pauses`]: pipelines that an operator has stopped from starting by themselves.
//!
//! Kept in the state, so that they outlive a restart and can be set with or
//! without a running daemon, which reads them with every tick. What was due
//! during a pause is not caught up, also when the pause ended while no daemon ran:
//! therefore pauses that have ended are remembered for as long as an occurrence
//! can be caught up.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::state::{State, StateError};

/// The name under which the state keeps the pauses that were not ended.
const CURRENT: &str = "pauses";
/// The name under which it keeps those that were.
const ENDED: &str = "ended_pauses";
/// The longest `catch_up_window`: what was due before that is never caught up.
const REMEMBERED: TimeDelta = TimeDelta::days(366);
/// Ended pauses that are remembered at most, over all pipelines.
const MAX_ENDED: usize = 10_000;

/// One pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it began.
    pub since: DateTime<Utc>,
    /// When it ends by itself; `None` when it lasts until it is ended.
    pub until: Option<DateTime<Utc>>,
    /// Why, in the words of the operator.
    pub reason: String,
}

/// The pauses there are, and those that have ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    current: BTreeMap<String, Pause>,
    /// Pipeline and pause; `until` is when it ended.
    ended: Vec<(String, Pause)>,
}

impl Pauses {
    /// Returns the pauses that the state keeps.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn load(state: &State) -> Result<Pauses, StateError> {
        let current = state.kept(CURRENT).await?.unwrap_or_default();
        Ok(Pauses { current, ended: state.kept(ENDED).await?.unwrap_or_default() })
    }

    /// Writes them into the state.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub async fn save(&self, state: &State) -> Result<(), StateError> {
        state.keep(ENDED, &self.ended).await?;
        state.keep(CURRENT, &self.current).await
    }

    /// Returns the pause of a pipeline that holds now.
    pub fn of(&self, pipeline: &str, now: DateTime<Utc>) -> Option<&Pause> {
        self.current.get(pipeline).filter(|pause| pause.until.is_none_or(|until| now < until))
    }

    /// Returns a pause that held at `time`, also one that has ended since.
    pub fn covering(&self, pipeline: &str, time: DateTime<Utc>) -> Option<&Pause> {
        let ended = self.ended.iter().filter(|(name, _)| name == pipeline).map(|(_, pause)| pause);
        let mut all = self.current.get(pipeline).into_iter().chain(ended);
        all.find(|pause| pause.since <= time && pause.until.is_none_or(|until| time < until))
    }

    /// Pauses a pipeline, in place of an older pause.
    pub fn set(&mut self, pipeline: &str, pause: Pause) {
        self.retire(pipeline, pause.since);
        self.current.insert(pipeline.to_owned(), pause);
    }

    /// Ends a pause; tells whether one held.
    pub fn end(&mut self, pipeline: &str, now: DateTime<Utc>) -> bool {
        let held = self.of(pipeline, now).is_some();
        self.retire(pipeline, now);
        held
    }

    /// Moves the pause of a pipeline to those that have ended, at the latest now.
    fn retire(&mut self, pipeline: &str, now: DateTime<Utc>) {
        if let Some(mut pause) = self.current.remove(pipeline) {
            let ended_at = pause.until.map_or(now, |until| until.min(now));
            pause.until = Some(ended_at);
            self.ended.push((pipeline.to_owned(), pause));
        }
        let recent = |until: DateTime<Utc>| now - until < REMEMBERED;
        self.ended.retain(|(_, pause)| pause.until.is_some_and(recent));
        let surplus = self.ended.len().saturating_sub(MAX_ENDED);
        self.ended.drain(..surplus);
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
