//! Windows of time around now: `in_last 2 DAY`, `in_calendar_month -1`.
//!
//! Bounds are absolute and in UTC. DAY and larger units include today, as the
//! site does; the reference marks the exact bounds as unproven, so the cache
//! passes such queries on where the bound could matter.

use std::str::FromStr;

use chrono::{Datelike, Days, Months, NaiveDate};

use crate::entity::{DataType, Day, FieldValue, Timestamp};

/// A unit of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unit {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Unit {
    /// Returns the word of the wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK",
            Self::Month => "MONTH",
            Self::Year => "YEAR",
        }
    }
}

impl FromStr for Unit {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let units = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];
        units.into_iter().find(|unit| unit.as_str() == word).ok_or(())
    }
}

/// A span of time that moves with the clock of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many units up to now.
    Last(u32, Unit),
    /// The next so many units from now.
    Next(u32, Unit),
    /// A whole day, week, month or year: 0 is the current one, -1 the one before.
    /// Weeks begin on Monday.
    Calendar(Unit, i32),
}

impl Window {
    /// Returns the first and the last value inside, for a date or a date_time
    /// field.
    pub fn bounds(self, data_type: DataType, now: Timestamp) -> (FieldValue, FieldValue) {
        let (first, last) = self.moments(now);
        if data_type == DataType::Date {
            return (FieldValue::Date(first.day()), FieldValue::Date(last.day()));
        }
        (FieldValue::DateTime(first), FieldValue::DateTime(last))
    }

    fn moments(self, now: Timestamp) -> (Timestamp, Timestamp) {
        let today = now.day().0;
        match self {
            Self::Last(count, Unit::Hour) => (Timestamp(now.0 - i64::from(count) * 3600), now),
            Self::Next(count, Unit::Hour) => (now, Timestamp(now.0 + i64::from(count) * 3600)),
            Self::Last(count, unit) => (start(shift(today, unit, -i64::from(count))), end(today)),
            Self::Next(count, unit) => (start(today), end(shift(today, unit, i64::from(count)))),
            Self::Calendar(unit, offset) => {
                let first = shift(beginning(today, unit), unit, i64::from(offset));
                let next = shift(first, unit, 1);
                (start(first), Timestamp(start(next).0 - 1))
            }
        }
    }
}

fn start(day: NaiveDate) -> Timestamp {
    Day(day).midnight()
}

fn end(day: NaiveDate) -> Timestamp {
    Timestamp(start(day).0 + 86_399)
}

fn beginning(day: NaiveDate, unit: Unit) -> NaiveDate {
    let first = match unit {
        Unit::Hour | Unit::Day => Some(day),
        Unit::Week => day.checked_sub_days(Days::new(u64::from(day.weekday().num_days_from_monday()))),
        Unit::Month => day.with_day(1),
        Unit::Year => NaiveDate::from_ymd_opt(day.year(), 1, 1),
    };
    first.unwrap_or(day)
}

/// Moves a day; a result outside the calendar stays where it was.
fn shift(day: NaiveDate, unit: Unit, count: i64) -> NaiveDate {
    let months = match unit {
        Unit::Month => count,
        Unit::Year => count.saturating_mul(12),
        Unit::Week => return shift_days(day, count.saturating_mul(7)),
        Unit::Day | Unit::Hour => return shift_days(day, count),
    };
    let size = Months::new(u32::try_from(months.unsigned_abs()).unwrap_or(u32::MAX));
    let moved = if months < 0 { day.checked_sub_months(size) } else { day.checked_add_months(size) };
    moved.unwrap_or(day)
}

fn shift_days(day: NaiveDate, count: i64) -> NaiveDate {
    let size = Days::new(count.unsigned_abs());
    let moved = if count < 0 { day.checked_sub_days(size) } else { day.checked_add_days(size) };
    moved.unwrap_or(day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(window: Window, data_type: DataType, expected: [&str; 2]) {
        let now = Timestamp::parse("2024-03-13T15:30:00Z").expect("a moment");
        let (first, last) = window.bounds(data_type, now);
        assert_eq!([first.to_json(), last.to_json()], expected.map(serde_json::Value::from));
    }

    #[test]
    fn days_and_larger_units_include_today() {
        check(Window::Last(1, Unit::Day), DataType::DateTime, ["2024-03-12T00:00:00Z", "2024-03-13T23:59:59Z"]);
        check(Window::Next(1, Unit::Month), DataType::Date, ["2024-03-13", "2024-04-13"]);
        check(Window::Last(2, Unit::Hour), DataType::DateTime, ["2024-03-13T13:30:00Z", "2024-03-13T15:30:00Z"]);
    }

    #[test]
    fn calendar_windows_are_whole() {
        check(Window::Calendar(Unit::Week, 0), DataType::Date, ["2024-03-11", "2024-03-17"]);
        check(Window::Calendar(Unit::Month, -1), DataType::DateTime, ["2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z"]);
        check(Window::Calendar(Unit::Year, 1), DataType::Date, ["2025-01-01", "2025-12-31"]);
    }
}
