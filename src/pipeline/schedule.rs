//! [`Schedule`]: when a pipeline is due, in wall-clock time of a zone.
//!
//! A time that does not exist (the gap of a spring night) is run at the first
//! instant that does; a time that exists twice is run once. croner decides
//! both; occurrences are always searched forwards, so that "the latest until
//! now" and "the next after now" can never disagree about such a night.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use super::CatchUp;

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
    crons: Vec<Cron>,
}

impl Schedule {
    /// Returns a schedule of parsed cron lines without jitter.
    ///
    /// # Errors
    ///
    /// The index of the line that cannot be used, and why.
    pub fn new(written: Vec<String>, seconds: bool, timezone: Tz) -> Result<Schedule, (usize, String)> {
        let mut crons = Vec::new();
        for (at, line) in written.iter().enumerate() {
            crons.push(parse_cron(line, seconds).map_err(|reason| (at, reason))?);
        }
        let schedule = Schedule {
            written,
            timezone,
            jitter: Duration::ZERO,
            offset: Duration::ZERO,
            catch_up: CatchUp::Once,
            catch_up_window: Duration::from_secs(6 * 3600),
            crons,
        };
        for (at, cron) in schedule.crons.iter().enumerate() {
            if schedule.next_of(cron, DateTime::UNIX_EPOCH).is_none() {
                return Err((at, "this date never comes".to_owned()));
            }
        }
        Ok(schedule)
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
        let times = self.crons.iter().filter_map(|cron| self.next_of(cron, time));
        times.min()
    }

    /// Returns the latest occurrence in `from..=until`; `from` itself is one.
    pub fn latest_between(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> DateTime<Utc> {
        let mut span = TimeDelta::hours(1);
        while until - span > from {
            // Looking back a little first keeps this short after a long time
            // off, also for a schedule of every second.
            if let Some(found) = self.last_in(until - span, until) {
                return found;
            }
            span = span * 8;
        }
        self.last_in(from, until).unwrap_or(from)
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

    /// Returns the schedule in words: `At 02:30. (Europe/Paris)`.
    pub fn describe(&self) -> String {
        let lines: Vec<String> = self.crons.iter().map(Cron::describe).collect();
        format!("{} ({})", lines.join(" "), self.timezone)
    }

    fn last_in(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut latest = None;
        let mut at = after;
        while let Some(next) = self.next_after(at).filter(|next| *next <= until) {
            latest = Some(next);
            at = next;
        }
        latest
    }

    fn next_of(&self, cron: &Cron, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = TimeDelta::from_std(self.offset).unwrap_or_default();
        let local = (time - offset).with_timezone(&self.timezone);
        let next = cron.find_next_occurrence(&local, false).ok()?;
        Some(next.with_timezone(&Utc) + offset)
    }
}

fn parse_cron(line: &str, seconds: bool) -> Result<Cron, String> {
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
    let rule = match seconds {
        true => Seconds::Required,
        false => Seconds::Disallowed,
    };
    CronParser::builder()
        .seconds(rule)
        .year(Year::Disallowed)
        .build()
        .parse(line)
        .map_err(|error| error.to_string().trim_end_matches('.').to_lowercase())
}
