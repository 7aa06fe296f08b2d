//! [`Moment`]: a point in time as people write it in files: an instant with its offset,
//! or a time of the wall clock in a zone that follows from elsewhere.

use std::fmt;

use chrono::{DateTime, FixedOffset, NaiveDateTime};
use serde::{Deserialize, Deserializer, de::Error};

/// A point in time as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// `2026-11-24T08:00:00+01:00`.
    Instant(DateTime<FixedOffset>),
    /// `2026-11-24 08:00`, in the zone that applies there.
    WallClock(NaiveDateTime),
}

/// How a time of the wall clock may be written.
const WALL_CLOCK: [&str; 4] = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];

impl Moment {
    /// Reads a moment.
    ///
    /// # Errors
    ///
    /// Words for a person: what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Moment, String> {
        if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
            return Ok(Moment::Instant(instant));
        }
        let wall_clock = WALL_CLOCK.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        wall_clock
            .map(Moment::WallClock)
            .ok_or_else(|| format!("`{text}` is not a time such as `2026-11-24 08:00` or `2026-11-24T08:00:00+01:00`"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Instant(instant) => f.write_str(&instant.to_rfc3339()),
            Moment::WallClock(time) => write!(f, "{}", time.format("%Y-%m-%d %H:%M:%S")),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        let text = String::deserialize(deserializer)?;
        Moment::parse(&text).map_err(D::Error::custom)
    }
}
