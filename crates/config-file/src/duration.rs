//! Durations as people write them: `500ms`, `30s`, `5m`, `1h 30m`, `7d`.
//!
//! Months and years are refused: they have no fixed length, and `1M` beside
//! `1m` is a mistake waiting to happen. No duration is longer than
//! [`MAX_DURATION`]: far below what an instant or a sum of a few durations can
//! hold, so that nothing that was read here can overflow later.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// The longest duration that can be written: about ten years.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);

/// Reads a duration such as `90s`, `1h 30m` or `7d`.
///
/// # Errors
///
/// Words for a person: what is wrong and what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let calendar = trimmed.contains('M')
        || ["month", "year", "y"].iter().any(|unit| trimmed.contains(unit) && !trimmed.contains("day"));
    if calendar {
        return Err(format!("`{text}` uses months or years, which have no fixed length (`m` is minutes)"));
    }
    if trimmed != "0" && trimmed.parse::<f64>().is_ok() {
        return Err(format!("`{text}` has no unit: write `{trimmed}s`, `{trimmed}m`, ..."));
    }
    let too_long = || format!("`{text}` is longer than {}, the longest duration", format_duration(MAX_DURATION));
    match humantime::parse_duration(trimmed) {
        Ok(duration) if duration > MAX_DURATION => Err(too_long()),
        Ok(duration) => Ok(duration),
        Err(humantime::DurationError::NumberOverflow) => Err(too_long()),
        Err(_) => Err(format!("`{text}` is not a duration such as `30s`, `5m` or `1h 30m`")),
    }
}

/// Writes a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let days = duration.as_secs() / 86_400;
    match duration == Duration::from_secs(days * 86_400) && days > 0 {
        // humantime would write months and years, which are not read.
        true => format!("{days}d"),
        false => humantime::format_duration(duration).to_string(),
    }
}

/// Deserializes a duration (`#[serde(deserialize_with = "yaml::duration")]`).
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

/// Deserializes a duration that may be missing; wants `#[serde(default)]` too.
pub fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) => parse_duration(&text).map(Some).map_err(D::Error::custom),
        None => Ok(None),
    }
}
