//! [`Blackout`]: hours in which pipelines do not start, or ask nothing, named in `config.yaml`.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::Schedule;
use super::job_arguments::one_or_many;
use crate::yaml::{self, Key, Shape, optional, required};

/// Hours in which a pipeline that names them does not start. Too late after them is later
/// than `catch_up_window`.
#[derive(Debug, Clone)]
pub struct Blackout {
    /// Its name.
    pub name: String,
    /// When it begins.
    pub begins: Schedule,
    /// How long it lasts.
    pub duration: Duration,
    /// What becomes of what is due, and of what runs.
    pub action: BlackoutAction,
}

/// What a blackout does to the pipelines that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlackoutAction {
    /// What is due starts after it, if that is not too late.
    #[default]
    Defer,
    /// What is due is left out.
    Skip,
    /// What is due starts after it, and what runs sends no request until then.
    Pause,
}

impl BlackoutAction {
    /// Every action, in the spelling of YAML.
    pub const NAMES: [&'static str; 3] = ["defer", "skip", "pause"];

    /// Returns the word used in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            BlackoutAction::Defer => "defer",
            BlackoutAction::Skip => "skip",
            BlackoutAction::Pause => "pause",
        }
    }
}

impl Blackout {
    /// Returns a stand-in for one whose definition has an error, for checks of what
    /// names it.
    pub fn unreadable(name: String) -> Blackout {
        let begins = Schedule::new(vec!["@yearly".to_owned()], false, chrono_tz::UTC);
        let begins = begins.expect("a nickname is a cron line");
        Blackout { name, begins, duration: MIN_DURATION, action: BlackoutAction::default() }
    }

    /// Returns everything that decides when it holds, for comparison.
    pub fn fingerprint(&self) -> String {
        let (begins, action) = (self.begins.fingerprint(), self.action.as_str());
        format!("{} {begins} for {:?} {action}", self.name, self.duration)
    }

    /// Returns when the hours that hold now are over.
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let duration = TimeDelta::from_std(self.duration).ok()?;
        // All last equally long, so the one that began last ends last.
        let begun = self.begins.last_in(now.checked_sub_signed(duration)?, now)?;
        begun.checked_add_signed(duration)
    }
}

/// A blackout that lasts no longer holds nothing up: the scheduler ticks every second.
const MIN_DURATION: Duration = Duration::from_secs(1);
/// Longer stops are pauses, which say who stops what and why.
const MAX_DURATION: Duration = Duration::from_secs(31 * 86_400);

/// One entry of `blackouts` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct BlackoutFile {
    #[serde(deserialize_with = "one_or_many")]
    pub cron: Vec<String>,
    #[serde(deserialize_with = "yaml::duration")]
    pub duration: Duration,
    pub timezone: Option<String>,
    #[serde(default)]
    pub action: BlackoutAction,
}

/// The keys of an entry of `blackouts`.
pub const BLACKOUT_KEYS: &[Key] = &[
    required("cron", Shape::OneOrMany(&Shape::Text)),
    required("duration", Shape::DurationBetween(MIN_DURATION, MAX_DURATION)),
    optional("timezone", Shape::Text),
    optional("action", Shape::Choice(&BlackoutAction::NAMES)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hours_of_a_blackout_begin_and_end_with_its_duration() {
        let begins =
            Schedule::new(vec!["0 10 * * MON-FRI".into()], false, chrono_tz::Europe::Paris).expect("a schedule");
        let dailies = Blackout {
            name: "dailies".into(),
            begins,
            duration: Duration::from_secs(90 * 60),
            action: BlackoutAction::Defer,
        };
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("an instant");
        // Monday; Paris is one hour ahead of UTC in winter.
        let table = [
            ("2026-01-12T08:59:59Z", None),
            ("2026-01-12T09:00:00Z", Some("2026-01-12T10:30:00Z")),
            ("2026-01-12T10:29:59Z", Some("2026-01-12T10:30:00Z")),
            ("2026-01-12T10:30:00Z", None),
            ("2026-01-11T09:30:00Z", None),
        ];
        for (now, until) in table {
            assert_eq!(dailies.until(at(now)), until.map(at), "{now}");
        }
    }
}
