//! [`Schedule`]: when a pipeline is due: cron lines in the wall-clock time of a zone,
//! moved by a fixed offset.
//!
//! Occurrences are always searched forwards, so that "the latest until now" and
//! "the next after now" can never disagree about a night in which clocks change;
//! what is due in such a night is the business of [`super::cron`].

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::CatchUp;
use super::cron::{ClockChange, CronLine};

/// No zone moves its clocks by more in the course of a year.
const CLOCKS_MOVE_BY: TimeDelta = TimeDelta::hours(3);

/// When a pipeline is due.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The cron lines, as written.
    pub written: Vec<String>,
    /// The zone that they are meant in.
    pub timezone: Tz,
    /// How far starts may be spread; this pipeline's part is [`Schedule::offset`].
    pub jitter: Duration,
    /// What every occurrence is moved by: fixed for a site and a pipeline.
    pub offset: Duration,
    /// What happens to missed occurrences.
    pub catch_up: CatchUp,
    /// How old a missed occurrence may be to be made up for.
    pub catch_up_window: Duration,
    /// Without a run that worked for so long the pipeline counts as stalled; `None` is never.
    pub overdue_after: Option<Duration>,
    lines: Vec<CronLine>,
}

impl Schedule {
    /// Returns a schedule of parsed cron lines without jitter.
    ///
    /// # Errors
    ///
    /// The index of the line that cannot be used, and why.
    pub fn new(written: Vec<String>, seconds: bool, timezone: Tz) -> Result<Schedule, (usize, String)> {
        if written.is_empty() {
            return Err((0, "is missing: the list is empty".to_owned()));
        }
        let mut lines = Vec::new();
        for (at, line) in written.iter().enumerate() {
            lines.push(CronLine::parse(line, seconds).map_err(|reason| (at, reason))?);
        }
        Ok(Schedule {
            written,
            timezone,
            jitter: Duration::ZERO,
            offset: Duration::ZERO,
            catch_up: CatchUp::Once,
            catch_up_window: Duration::from_secs(6 * 3600),
            overdue_after: None,
            lines,
        })
    }

    /// Spreads starts: `key` decides which part of `jitter` this one gets.
    pub fn with_jitter(mut self, jitter: Duration, key: &str) -> Schedule {
        let seconds = jitter.as_secs();
        self.jitter = jitter;
        self.offset = match seconds {
            0 => Duration::ZERO,
            seconds => Duration::from_secs(super::fingerprint(key) % seconds),
        };
        self
    }

    /// Returns the first occurrence after `time`.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = TimeDelta::from_std(self.offset).ok()?;
        let moved = time.checked_sub_signed(offset)?;
        let next = self.lines.iter().filter_map(|line| line.next_after(moved, self.timezone)).min()?;
        next.checked_add_signed(offset)
    }

    /// Returns the latest occurrence in `from..=until`; `from` itself is one.
    pub fn latest_between(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> DateTime<Utc> {
        // `last_in` looks after its first bound, and `from` is an occurrence itself.
        self.last_in(from, until).unwrap_or(from)
    }

    /// Returns the latest occurrence in `after < time <= until`.
    pub fn last_in(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Looking back a little first keeps this short after a long time off, also
        // for a schedule of every second.
        let mut span = TimeDelta::minutes(1);
        while let Some(start) = until.checked_sub_signed(span).filter(|start| *start > after) {
            if let Some(found) = self.walk(start, until) {
                return Some(found);
            }
            span = span * 8;
        }
        self.walk(after, until)
    }

    /// Returns the next `count` occurrences after `time`.
    pub fn next_runs(&self, time: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        let mut runs = Vec::new();
        let mut at = time;
        while runs.len() < count {
            let Some(next) = self.next_after(at) else {
                break;
            };
            runs.push(next);
            at = next;
        }
        runs
    }

    /// Returns what a change of clocks has to do with an occurrence.
    pub fn clock_change(&self, occurrence: DateTime<Utc>) -> Option<ClockChange> {
        let due = occurrence.checked_sub_signed(TimeDelta::from_std(self.offset).ok()?)?;
        let before = due.checked_sub_signed(TimeDelta::seconds(1))?;
        let mut of_lines = self.lines.iter().filter(|line| line.next_after(before, self.timezone) == Some(due));
        of_lines.find_map(|line| line.clock_change(due, self.timezone))
    }

    /// Returns the only occurrence of a day that one line names, without jitter, if the clocks
    /// that change at `change` skip or repeat its time.
    pub fn moved_by(&self, line: usize, change: DateTime<Utc>) -> Option<(DateTime<Utc>, ClockChange)> {
        let line = self.lines.get(line)?;
        let day = |time: DateTime<Utc>| time.with_timezone(&self.timezone).date_naive();
        let mut at = change - CLOCKS_MOVE_BY;
        while let Some(due) = line.next_after(at, self.timezone).filter(|due| *due <= change) {
            at = due;
            let moved = line.clock_change(due, self.timezone).filter(|moved| *moved != ClockChange::Both);
            let Some(moved) = moved else { continue };
            let others =
                std::iter::successors(Some(due - TimeDelta::hours(30)), |at| line.next_after(*at, self.timezone));
            let mut that_day =
                others.skip(1).skip_while(|other| day(*other) < day(due)).take_while(|other| day(*other) == day(due));
            let is_only = that_day.next() == Some(due) && that_day.next().is_none();
            if is_only {
                return Some((due, moved));
            }
        }
        None
    }

    /// Returns everything that decides when it is due, for comparison.
    pub fn fingerprint(&self) -> String {
        let (zone, offset) = (self.timezone, self.offset.as_secs());
        let window = self.catch_up_window.as_secs();
        format!("{:?} {zone} +{offset}s {:?} {window}s", self.written, self.catch_up)
    }

    /// Returns the schedule in words: `At 02:30. (Europe/Paris)`.
    pub fn describe(&self) -> String {
        let lines: Vec<String> = self.lines.iter().map(CronLine::describe).collect();
        format!("{} ({})", lines.join(" "), self.timezone)
    }

    fn walk(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut latest = None;
        let mut at = after;
        while let Some(next) = self.next_after(at).filter(|next| *next <= until) {
            latest = Some(next);
            at = next;
        }
        latest
    }
}
