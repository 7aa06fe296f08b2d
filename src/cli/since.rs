//! The `--since` of reports: the beginning of a window of time.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::report::ledger::Window;
use crate::yaml::parse_duration;

/// The beginning of a window: a day in the zone of `config.yaml`, or a time ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Midnight.
    Today,
    /// This long ago.
    Ago(TimeDelta),
}

impl Since {
    /// Reads `today`, or a duration such as `7d`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for `clap`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "today" {
            return Ok(Self::Today);
        }
        let duration = parse_duration(text).map_err(|error| format!("{error}; or `today`"))?;
        TimeDelta::from_std(duration).map(Self::Ago).map_err(|_| "that is longer than anything is kept".to_owned())
    }

    /// Returns the window from there until now.
    pub fn window(self, now: DateTime<Utc>, zone: Tz) -> Window {
        match self {
            Self::Today => Window::today(now, zone),
            Self::Ago(time) => {
                Window { since: now.checked_sub_signed(time).unwrap_or(DateTime::UNIX_EPOCH), until: now }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_at_local_midnight_or_a_time_ago() {
        let now: DateTime<Utc> = "2026-03-01T22:30:00Z".parse().expect("a moment");
        let since = |text: &str, zone: Tz| Since::parse(text).expect("a window").window(now, zone).since.to_rfc3339();
        assert_eq!(since("today", chrono_tz::Europe::Paris), "2026-02-28T23:00:00+00:00");
        assert_eq!(since("today", chrono_tz::Asia::Tokyo), "2026-03-01T15:00:00+00:00");
        assert_eq!(since("7d", chrono_tz::UTC), "2026-02-22T22:30:00+00:00");
        assert!(Since::parse("yesterday").is_err_and(|error| error.contains("today")));
    }
}
