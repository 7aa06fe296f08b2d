//! [`CronLine`]: one cron line, and the instants at which it is due in a zone.
//!
//! croner knows the calendar (which dates and times match a line) and is asked
//! about naive times only; what a change of the UTC offset means is decided here:
//!
//! - a line that is due in chosen hours names times of the wall clock. A time that
//!   does not exist (the gap of a spring night) is due at the end of the gap, a
//!   time that exists twice is due at its first. Several times of one gap fall on
//!   the same instant, which is due once;
//! - a line that is due in every hour (`*/15 * * * *`, `0 * * * *`) repeats, so it
//!   follows elapsed time: it is due whenever the wall clock shows a time that
//!   matches, in both passes of an hour that exists twice.
//!
//! How a line is written does not matter: `*/30 2 * * *` is `0,30 2 * * *`.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// No zone has ever moved its clocks by more than a day at once, nor twice in two.
const TRANSITION_SPAN: TimeDelta = TimeDelta::hours(26);
/// Transitions that a search may pass: decades of two a year.
const MAX_TRANSITIONS: usize = 128;

/// What a change of the UTC offset has to do with an instant at which a line is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockChange {
    /// The wall clock skips the time that the line names; it is due at the end of the gap.
    Gap(NaiveDateTime),
    /// The wall clock shows this time twice, and the line is due at the first one only.
    First,
    /// The wall clock shows this time twice, and the line, which repeats, is due at both.
    Both,
}

/// One parsed cron line.
#[derive(Debug, Clone)]
pub(super) struct CronLine {
    cron: Cron,
    follows_elapsed_time: bool,
}

impl CronLine {
    /// Parses five fields, or six when `seconds` is the first.
    ///
    /// # Errors
    ///
    /// What is wrong, to be read after "the cron line".
    pub fn parse(line: &str, seconds: bool) -> Result<CronLine, String> {
        let fields = line.split_whitespace().count();
        let nickname = line.trim().starts_with('@');
        let wanted = if seconds { 6 } else { 5 };
        if !nickname && fields != wanted {
            let hint = match (seconds, fields) {
                (false, 6) => "; for a field of seconds set `seconds: true`",
                (true, 5) => "; with `seconds: true` the first field is seconds",
                _ => "",
            };
            return Err(format!("has {fields} fields, {wanted} are needed{hint}"));
        }
        let rule = if seconds { Seconds::Required } else { Seconds::Disallowed };
        let parser = CronParser::builder().seconds(rule).year(Year::Disallowed).build();
        let cron = parser.parse(line).map_err(|error| {
            let words = error.to_string().trim_end_matches('.').to_lowercase();
            format!("cannot be read: {}", words.trim_start_matches("component error: "))
        })?;
        let follows_elapsed_time = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        let parsed = CronLine { cron, follows_elapsed_time };
        match parsed.next_naive(DateTime::UNIX_EPOCH.naive_utc(), false) {
            Some(_) => Ok(parsed),
            None => Err("names a date that never comes".to_owned()),
        }
    }

    /// Returns the line in words: `At 02:30.`
    pub fn describe(&self) -> String {
        self.cron.describe()
    }

    /// Returns the first instant after `time` at which the line is due in `zone`;
    /// `None` when there is none within the calendar that chrono knows.
    pub fn next_after(&self, time: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        match self.follows_elapsed_time {
            true => self.next_elapsed(time, zone),
            false => self.next_wall_clock(time, zone),
        }
    }

    /// Returns what a change of clocks has to do with `due`, an instant at which the line
    /// is due in `zone`.
    pub fn clock_change(&self, due: DateTime<Utc>, zone: Tz) -> Option<ClockChange> {
        let after = offset_at(due, zone);
        let naive = to_naive(due, after)?;
        let is_ambiguous = zone.from_local_datetime(&naive).single().is_none();
        if self.follows_elapsed_time {
            return is_ambiguous.then_some(ClockChange::Both);
        }
        let gap = after - offset_at(due - TimeDelta::seconds(1), zone);
        let skipped = naive.checked_sub_signed(gap).filter(|_| gap > TimeDelta::zero());
        if let Some(named) = self.next_naive(skipped.unwrap_or(naive), true).filter(|named| *named < naive) {
            return Some(ClockChange::Gap(named));
        }
        is_ambiguous.then_some(ClockChange::First)
    }

    fn next_wall_clock(&self, time: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let mut naive = to_naive(time, offset_at(time, zone))?;
        // Later wall-clock times are never due earlier, so the first one that is
        // due after `time` is the answer. In the second pass of an hour, the times
        // ahead were due in the first one already.
        loop {
            naive = self.next_naive(naive, false)?;
            let due = first_instant(naive, zone)?;
            if due > time {
                return Some(due);
            }
        }
    }

    fn next_elapsed(&self, time: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let (mut from, mut inclusive) = (time, false);
        for _ in 0..MAX_TRANSITIONS {
            let offset = offset_at(from, zone);
            let naive = self.next_naive(to_naive(from, offset)?, inclusive)?;
            let due = to_instant(naive, offset)?;
            // With another offset a matching time can lie only close to one of the
            // two ends: in between the wall clock shows what does not match.
            let near = due.min(from + TRANSITION_SPAN);
            let far = near.max(due - TRANSITION_SPAN);
            inclusive = true;
            if offset_at(near, zone) != offset {
                from = transition(from, near, zone);
            } else if offset_at(far, zone) != offset {
                from = far;
            } else if offset_at(due, zone) != offset {
                from = transition(far, due, zone);
            } else {
                return Some(due);
            }
        }
        None
    }

    /// Returns the first matching wall-clock time after `naive`, or from it on.
    fn next_naive(&self, naive: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        let found = self.cron.find_next_occurrence(&naive.and_utc(), inclusive).ok()?;
        Some(found.naive_utc())
    }
}

/// Returns the instant at which the wall clock shows this time first, or the end of
/// the gap that leaves it out.
pub(super) fn first_instant(naive: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    let first = zone.from_local_datetime(&naive).earliest();
    let shown = first.or_else(|| GapInfo::new(&naive, &zone)?.end)?;
    Some(shown.with_timezone(&Utc))
}

fn offset_at(time: DateTime<Utc>, zone: Tz) -> TimeDelta {
    let offset = zone.offset_from_utc_datetime(&time.naive_utc()).fix();
    TimeDelta::seconds(i64::from(offset.local_minus_utc()))
}

fn to_naive(time: DateTime<Utc>, offset: TimeDelta) -> Option<NaiveDateTime> {
    time.naive_utc().checked_add_signed(offset)
}

fn to_instant(naive: NaiveDateTime, offset: TimeDelta) -> Option<DateTime<Utc>> {
    Some(naive.checked_sub_signed(offset)?.and_utc())
}

/// Returns the first seconds with another UTC offset in `from..until`.
pub(super) fn transitions(zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let mut found = Vec::new();
    let mut at = from;
    while at < until {
        let next = (at + TimeDelta::days(1)).min(until);
        if offset_at(at, zone) != offset_at(next, zone) {
            found.push(transition(at, next, zone));
        }
        at = next;
    }
    found
}

/// Returns the first second with the offset of `after`, which has another one than
/// `before`. Between the two lies one transition.
fn transition(before: DateTime<Utc>, after: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let offset = offset_at(before, zone);
    let (mut low, mut high) = (before.timestamp(), after.timestamp());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let at = DateTime::from_timestamp(middle, 0).unwrap_or(after);
        if offset_at(at, zone) == offset { low = middle } else { high = middle }
    }
    DateTime::from_timestamp(high, 0).unwrap_or(after)
}
