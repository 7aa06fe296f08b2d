//! Moments and days as Shotgun writes them.
//!
//! `read` gives `2015-07-09T19:33:37Z`, event metadata `2015-07-09 19:33:37 UTC`;
//! filters may also hold offsets, fractions and bare dates. All end here as whole
//! seconds in UTC, without a clock.

use std::fmt;

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC, in whole seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads any form that Shotgun writes or accepts; a bare date is midnight.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Some(Self(moment.timestamp()));
        }
        let bare = text.strip_suffix(" UTC").unwrap_or(text);
        for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
            if let Ok(moment) = NaiveDateTime::parse_from_str(bare, format) {
                return Some(Self(moment.and_utc().timestamp()));
            }
        }
        Day::parse(bare).map(Day::midnight)
    }

    /// Returns the moment as a `chrono` value.
    pub fn to_chrono(self) -> DateTime<Utc> {
        Utc.timestamp_opt(self.0, 0).single().unwrap_or_default()
    }

    /// Returns the form of event metadata, `2015-07-09 19:33:37 UTC`.
    pub fn to_meta(self) -> String {
        self.to_chrono().format("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    /// Returns the day, in UTC, that holds this moment.
    pub fn day(self) -> Day {
        Day(self.to_chrono().date_naive())
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(moment: DateTime<Utc>) -> Self {
        Self(moment.timestamp())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_chrono().format("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a date and time")))
    }
}

/// A day without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub NaiveDate);

impl Day {
    /// Reads `YYYY-MM-DD`, the only form of a date field.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 10 && text.is_char_boundary(4);
        digits.then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten().map(Self)
    }

    /// Returns the first second of the day in UTC.
    pub fn midnight(self) -> Timestamp {
        Timestamp(self.0.and_time(chrono::NaiveTime::MIN).and_utc().timestamp())
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_form_is_the_same_second() {
        let expected = Timestamp::parse("2015-07-13T21:54:01Z");
        assert!(expected.is_some());
        for form in ["2015-07-13 21:54:01 UTC", "2015-07-13T23:54:01+02:00", "2015-07-13T21:54:01.9Z"] {
            assert_eq!(Timestamp::parse(form), expected, "{form}");
        }
        assert_eq!(expected.map(|t| t.to_string()).as_deref(), Some("2015-07-13T21:54:01Z"));
    }

    #[test]
    fn a_bare_date_is_midnight_and_nonsense_is_refused() {
        assert_eq!(Timestamp::parse("2015-07-13"), Timestamp::parse("2015-07-13T00:00:00Z"));
        assert_eq!(Timestamp::parse("2015-13-13"), None);
        assert_eq!(Day::parse("2015-7-13"), None);
    }
}
