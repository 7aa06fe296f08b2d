//! Durations as people write them: `500ms`, `30s`, `5m`, `1h 30m`, `7d`.
//!
//! Months and years are refused: they have no fixed length, and `1M` beside
//! `1m` is a mistake waiting to happen.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

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
    humantime::parse_duration(trimmed)
        .map_err(|_| format!("`{text}` is not a duration such as `30s`, `5m` or `1h 30m`"))
}

/// Writes a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
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
