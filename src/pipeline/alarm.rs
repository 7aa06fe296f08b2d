//! [`Alarms`]: which pipelines are stalled. A continuous one is while it makes no progress
//! for `stall_after`, one with a schedule while no run of it works for `overdue_after`.
//!
//! Pure: how long a pipeline has been silent is passed in. An alarm is raised once and
//! ends once, also over a restart: the owner keeps this value.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Pipeline, Start};
use crate::yaml::format_duration;

/// The pipelines that are stalled, and since when this is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Alarms(BTreeMap<String, DateTime<Utc>>);

/// A pipeline is stalled from now on, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// It is, after a silence of this length.
    Stalled(Duration),
    /// It goes on.
    Recovered,
}

impl Pipeline {
    /// Returns the silence after which it is stalled; `None` when no silence is too long.
    pub fn stall_limit(&self) -> Option<Duration> {
        match &self.start {
            Start::Continuous(continuous) => Some(continuous.stall_after),
            Start::Scheduled(schedule) => schedule.overdue_after,
            Start::Manual => None,
        }
    }

    /// Returns in words what it has not done for too long.
    pub(super) fn stalled_words(&self, silence: Duration) -> String {
        let silence = format_duration(Duration::from_secs(silence.as_secs()));
        match self.start {
            Start::Continuous(_) => format!("no successful poll for {silence}"),
            _ => format!("no run has worked for {silence}"),
        }
    }
}

impl Alarms {
    /// Returns what changes for a pipeline that has been silent for so long.
    pub fn check(&mut self, pipeline: &Pipeline, silence: Duration, now: DateTime<Utc>) -> Option<Alarm> {
        let is_stalled = pipeline.enabled && pipeline.stall_limit().is_some_and(|limit| silence >= limit);
        match (is_stalled, self.0.contains_key(&pipeline.name)) {
            (true, false) => {
                self.0.insert(pipeline.name.clone(), now);
                Some(Alarm::Stalled(silence))
            }
            (false, true) => {
                self.0.remove(&pipeline.name);
                Some(Alarm::Recovered)
            }
            _ => None,
        }
    }

    /// Tells whether a pipeline is known to be stalled.
    pub fn is_raised(&self, pipeline: &str) -> bool {
        self.0.contains_key(pipeline)
    }

    /// Forgets pipelines that are gone, without an end of their alarms.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_known(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{JobSpec, PurgeArgs, Schedule};

    #[test]
    fn an_alarm_is_raised_once_and_ends_once_also_over_a_restart() {
        let now = DateTime::UNIX_EPOCH;
        let mut pipeline = Pipeline::single(JobSpec::Purge(PurgeArgs::default()), None, None);
        let silence = |seconds| Duration::from_secs(seconds);
        let mut alarms = Alarms::default();
        assert_eq!(alarms.check(&pipeline, silence(u64::MAX >> 1), now), None, "on request only");
        let mut schedule = Schedule::new(vec!["@daily".to_owned()], false, chrono_tz::UTC).expect("a cron line");
        schedule.overdue_after = Some(silence(100));
        pipeline.start = Start::Scheduled(schedule);
        assert_eq!(alarms.check(&pipeline, silence(99), now), None);
        assert_eq!(alarms.check(&pipeline, silence(100), now), Some(Alarm::Stalled(silence(100))));
        let kept = serde_json::to_string(&alarms).expect("plain data");
        let mut alarms: Alarms = serde_json::from_str(&kept).expect("the same");
        assert_eq!(alarms.check(&pipeline, silence(200), now), None);
        assert_eq!(alarms.check(&pipeline, silence(3), now), Some(Alarm::Recovered));
        assert_eq!(alarms.check(&pipeline, silence(3), now), None);
        // One that is disabled while it is stalled is not waited for any more.
        alarms.check(&pipeline, silence(100), now);
        pipeline.enabled = false;
        assert_eq!(alarms.check(&pipeline, silence(300), now), Some(Alarm::Recovered));
    }
}
