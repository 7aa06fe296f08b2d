//! Occurrences in nights in which clocks change: named cases, and random lines
//! compared with an implementation that steps from minute to minute.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

use super::at;
use crate::pipeline::Schedule;

fn occurrences(line: &str, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let schedule = Schedule::new(vec![line.to_owned()], false, zone).expect("a cron line");
    let mut found = Vec::new();
    let mut time = from;
    while let Some(next) = schedule.next_after(time).filter(|next| *next <= until) {
        found.push(next);
        time = next;
    }
    found
}

#[test]
fn a_time_that_does_not_exist_is_due_at_the_end_of_the_gap_and_one_that_exists_twice_at_its_first() {
    let paris = chrono_tz::Europe::Paris;
    let lord_howe = chrono_tz::Australia::Lord_Howe;
    let spring = ("2027-03-27T23:00:00Z", "2027-03-28T04:00:00Z");
    let autumn = ("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z");
    let table = [
        ("30 2,14 * * *", paris, spring, "03:00+02"),
        ("30 2,14 * * *", paris, autumn, "02:30+02"),
        ("15,45 2 * * *", paris, spring, "03:00+02"),
        ("15,45 2 * * *", paris, autumn, "02:15+02 02:45+02"),
        ("*/30 2 * * *", paris, spring, "03:00+02"),
        ("*/30 2 * * *", paris, autumn, "02:00+02 02:30+02"),
        ("30 2-23/4 * * *", paris, spring, "03:00+02"),
        ("30 2-23/4 * * *", paris, autumn, "02:30+02"),
        ("0 1-3 * * *", paris, spring, "01:00+01 03:00+02"),
        ("0 1-3 * * *", paris, autumn, "01:00+02 02:00+02 03:00+01"),
        // What is due in every hour follows elapsed time, however it is written.
        ("30 * * * *", paris, spring, "00:30+01 01:30+01 03:30+02 04:30+02 05:30+02"),
        ("0 0-23 * * *", paris, autumn, "01:00+02 02:00+02 02:00+01 03:00+01 04:00+01 05:00+01"),
        // Half an hour is left out in October and comes twice in April.
        (
            "15,45 1-2 * * *",
            lord_howe,
            ("2026-10-03T13:30:00Z", "2026-10-03T17:00:00Z"),
            "01:15+1030 01:45+1030 02:30+11 02:45+11",
        ),
        (
            "15,45 1-2 * * *",
            lord_howe,
            ("2027-04-03T13:00:00Z", "2027-04-03T17:00:00Z"),
            "01:15+11 01:45+11 02:15+1030 02:45+1030",
        ),
    ];
    for (line, zone, (from, until), expected) in table {
        let found = occurrences(line, zone, at(from), at(until));
        let shown: Vec<String> =
            found.iter().map(|due| due.with_timezone(&zone).format("%H:%M%z").to_string()).collect();
        let shown = shown.join(" ");
        let full = expected.split(' ').map(|time| if time.len() == 8 { format!("{time}00") } else { time.to_owned() });
        assert_eq!(shown, full.collect::<Vec<_>>().join(" "), "{line} in {zone}");
    }
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(bound)).expect("below a u32")
    }

    /// A field of a cron line, as text and as the values that it allows.
    fn field(&mut self, low: u32, high: u32) -> (String, Vec<u32>) {
        let span = high - low + 1;
        let (a, b) = (low + self.below(span), low + self.below(span));
        let (first, last, step) = (a.min(b), a.max(b), 1 + self.below(span / 2));
        match self.below(5) {
            0 => ("*".to_owned(), (low..=high).collect()),
            1 => (format!("*/{step}"), (low..=high).step_by(step as usize).collect()),
            2 => (format!("{first}-{last}"), (first..=last).collect()),
            3 => (format!("{first}-{last}/{step}"), (first..=last).step_by(step as usize).collect()),
            _ => (format!("{a},{b}"), vec![a, b]),
        }
    }
}

/// A line that this test understands by itself.
struct Line {
    text: String,
    minutes: Vec<u32>,
    hours: Vec<u32>,
    /// Days of the month, or of the week with 0 for Sunday.
    days: Option<Vec<u32>>,
    weekdays: Option<Vec<u32>>,
}

impl Line {
    fn random(random: &mut Random) -> Line {
        let (minute, minutes) = random.field(0, 59);
        let (hour, hours) = random.field(0, 23);
        let mut text = format!("{minute} {hour} ");
        let (mut days, mut weekdays) = (None, None);
        match random.below(4) {
            0 => {
                let (from, to) = (1 + random.below(15), 16 + random.below(16));
                days = Some((from..=to).collect());
                write!(text, "{from}-{to} * *").expect("text");
            }
            1 => {
                let (from, to) = (random.below(3), 3 + random.below(4));
                weekdays = Some((from..=to).collect());
                write!(text, "* * {from}-{to}").expect("text");
            }
            _ => text.push_str("* * *"),
        }
        Line { text, minutes, hours, days, weekdays }
    }

    fn matches(&self, time: NaiveDateTime) -> bool {
        let allowed = |set: &Option<Vec<u32>>, value| set.as_ref().is_none_or(|set| set.contains(&value));
        self.minutes.contains(&time.minute())
            && self.hours.contains(&time.hour())
            && allowed(&self.days, time.day())
            && allowed(&self.weekdays, time.weekday().num_days_from_sunday())
    }

    fn is_due_in_every_hour(&self) -> bool {
        (0..24).all(|hour| self.hours.contains(&hour))
    }

    /// Steps through a time minute by minute, as an observer of a wall clock would.
    fn watched(&self, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let minute = TimeDelta::minutes(1);
        // A day earlier, so that an hour that comes twice is seen as such.
        let mut time = from - TimeDelta::days(1);
        let mut latest_shown = time.with_timezone(&zone).naive_local();
        let mut due = Vec::new();
        while time < until {
            time += minute;
            let shown = time.with_timezone(&zone).naive_local();
            let mut passed = latest_shown + minute;
            let mut is_due = self.is_due_in_every_hour() && self.matches(shown);
            while !self.is_due_in_every_hour() && passed <= shown {
                is_due |= self.matches(passed);
                passed += minute;
            }
            latest_shown = latest_shown.max(shown);
            if is_due && time > from {
                due.push(time);
            }
        }
        due
    }
}

/// The days of twenty years in which the clocks of a zone change.
fn days_of_change(zone: Tz) -> Vec<DateTime<Utc>> {
    let day = |number| at("2021-01-01T00:00:00Z") + TimeDelta::days(number);
    let offset = |time: DateTime<Utc>| zone.offset_from_utc_datetime(&time.naive_utc()).fix();
    (0..20 * 365).map(day).filter(|time| offset(*time) != offset(*time + TimeDelta::days(1))).collect()
}

#[test]
fn random_lines_are_due_when_an_observer_of_the_wall_clock_sees_them() {
    let zones = [
        chrono_tz::Europe::Paris,
        chrono_tz::Europe::London,
        chrono_tz::America::New_York,
        chrono_tz::America::St_Johns,
        chrono_tz::America::Santiago,
        chrono_tz::Africa::Casablanca,
        chrono_tz::Asia::Beirut,
        chrono_tz::Asia::Kathmandu,
        chrono_tz::Australia::Lord_Howe,
        chrono_tz::Antarctica::Troll,
    ];
    let mut random = Random(0x5eed);
    for zone in zones {
        let mut days = days_of_change(zone);
        days.push(at("2031-06-15T00:00:00Z"));
        for day in days {
            let line = Line::random(&mut random);
            let from = day - TimeDelta::minutes(i64::from(random.below(600)));
            let until = day + TimeDelta::hours(40);
            let (found, watched) = (occurrences(&line.text, zone, from, until), line.watched(zone, from, until));
            assert_eq!(found, watched, "`{}` in {zone} from {from}", line.text);
            // The same from an instant within, where the hour may come twice.
            let within = day + TimeDelta::minutes(i64::from(random.below(1440)));
            let found = occurrences(&line.text, zone, within, until);
            let rest: Vec<_> = watched.into_iter().filter(|due| *due > within).collect();
            assert_eq!(found, rest, "`{}` in {zone} from {within}", line.text);
        }
    }
}
