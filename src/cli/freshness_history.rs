//! How fresh each type was in the last 24 hours, a quarter of an hour at a time.
//!
//! The level of a quarter is the worst that was seen in it; a quarter of which nothing is
//! known, because no daemon ran, says so. Pure; the times only say where a level is drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Quarters of an hour in a day.
const QUARTERS: usize = 96;
const QUARTER_SECONDS: i64 = 900;

/// How fresh a type was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreshnessLevel {
    /// Equal to the site up to a moment this long ago.
    Age(Duration),
    /// Being imported.
    Importing,
    /// Not served: not complete, or older than may be given.
    NotServed,
}

impl FreshnessLevel {
    /// Returns its digit in a strip: 0 at most 2 s old, 1 at most 5 s, 2 at most 30 s, 3
    /// older, 4 not served, 5 being imported. [`UNKNOWN`] is the one of no knowledge.
    fn digit(self) -> u8 {
        match self {
            Self::Age(age) if age <= Duration::from_secs(2) => b'0',
            Self::Age(age) if age <= Duration::from_secs(5) => b'1',
            Self::Age(age) if age <= Duration::from_secs(30) => b'2',
            Self::Age(_) => b'3',
            Self::NotServed => b'4',
            Self::Importing => b'5',
        }
    }
}

/// The digit of a quarter of which nothing is known.
const UNKNOWN: u8 = b'6';

/// Higher is worse: an import is worse than an age of 30 s, and better than not to serve.
fn badness(digit: u8) -> u8 {
    match digit {
        UNKNOWN => 0,
        b'0'..=b'2' => digit - b'0' + 1,
        b'5' => 4,
        b'3' => 5,
        _ => 6,
    }
}

/// The levels of every type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FreshnessHistory {
    /// By type: for each quarter, by its number since 1970, the digit of its level.
    types: BTreeMap<String, BTreeMap<i64, char>>,
}

impl FreshnessHistory {
    /// Takes note of a level, and tells whether that changed anything.
    pub fn note(&mut self, entity_type: &str, at: DateTime<Utc>, level: FreshnessLevel) -> bool {
        let quarter = at.timestamp().div_euclid(QUARTER_SECONDS);
        let levels = self.types.entry(entity_type.to_owned()).or_default();
        let known = levels.get(&quarter).map_or(UNKNOWN, |known| *known as u8);
        if badness(level.digit()) <= badness(known) {
            return false;
        }
        levels.insert(quarter, level.digit() as char);
        while levels.len() > QUARTERS {
            levels.pop_first();
        }
        true
    }

    /// Forgets every type but these.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.types.retain(|name, _| is_known(name));
    }

    /// Returns the digits of a type, oldest first; the last one is the quarter of `now`.
    pub fn strip(&self, entity_type: &str, now: DateTime<Utc>) -> String {
        let newest = now.timestamp().div_euclid(QUARTER_SECONDS);
        let levels = self.types.get(entity_type);
        let digit = |quarter| levels.and_then(|levels| levels.get(&quarter).copied()).unwrap_or(UNKNOWN as char);
        (newest - QUARTERS as i64 + 1..=newest).map(digit).collect()
    }

    /// Returns the end of the last quarter of a strip.
    pub fn strip_end(now: DateTime<Utc>) -> DateTime<Utc> {
        let end = (now.timestamp().div_euclid(QUARTER_SECONDS) + 1) * QUARTER_SECONDS;
        DateTime::from_timestamp(end, 0).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_quarter_has_its_worst_level_and_a_gap_is_unknown() {
        let begin: DateTime<Utc> = "2026-03-01T10:05:00Z".parse().expect("a moment");
        let age = |seconds| FreshnessLevel::Age(Duration::from_secs(seconds));
        let mut history = FreshnessHistory::default();
        assert!(history.note("Shot", begin, FreshnessLevel::Importing));
        assert!(!history.note("Shot", begin, age(1)), "the quarter had an import");
        assert!(history.note("Shot", begin + TimeDelta::minutes(15), age(1)));
        assert!(history.note("Shot", begin + TimeDelta::minutes(16), age(4)));
        assert!(!history.note("Shot", begin + TimeDelta::minutes(17), age(0)));
        let text = serde_json::to_string(&history).expect("JSON");
        let mut history: FreshnessHistory = serde_json::from_str(&text).expect("the same");
        // Two quarters without a daemon.
        let now = begin + TimeDelta::minutes(60);
        history.note("Shot", now, FreshnessLevel::NotServed);
        let strip = history.strip("Shot", now);
        assert_eq!((strip.len(), &strip[91..]), (96, "51664"));
        assert_eq!(FreshnessHistory::strip_end(now).to_rfc3339(), "2026-03-01T11:15:00+00:00");
        assert_eq!(history.strip("Task", now), "6".repeat(96));
        for minute in 0..3000 {
            history.note("Shot", now + TimeDelta::minutes(minute), age(60));
        }
        assert_eq!(history.strip("Shot", now + TimeDelta::minutes(2999)), "3".repeat(96));
        assert!(serde_json::to_string(&history).expect("JSON").len() < 2000, "one day is kept");
        history.retain(|name| name != "Shot");
        assert_eq!(history, FreshnessHistory::default());
    }
}
