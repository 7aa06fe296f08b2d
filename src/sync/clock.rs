//! The time of the site, as far as its answers tell it.
//!
//! Nothing is decided by it but pauses: it is shown, and it goes on with the monotonic
//! clock of this machine. The `Date` header has whole seconds and is older than the
//! answer by half a round trip, so each good answer gives a moment that the site has
//! passed; the latest such bound of the last minutes counts. The result is not ahead of
//! the site, which is the safe side: freshness is understated, never overstated.
//!
//! One host of a site may have a wrong clock. An answer that is far from the others
//! changes nothing; only when all answers agree on another time for a while has the
//! clock of the site been set, back or forth ([`SiteClock::take_correction`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::entity::Timestamp;
use crate::state::SiteTime;

/// An answer that is further than this from the known time is not believed at once; in
/// milliseconds.
const MAX_JUMP: i64 = 5_000;
/// The median of the first answers is the time from which the clock goes on.
const FIRST_ANSWERS: usize = 5;
/// How long all answers must agree on another time, in milliseconds.
const CONFIRMED_AFTER: i64 = 30_000;
/// How long a bound counts, and how far apart they are kept, in milliseconds: clocks of
/// two machines drift apart by milliseconds in this time.
const BOUND_COUNTS_FOR: i64 = 600_000;
const BOUND_EVERY: i64 = 10_000;

/// The clock of the site; clones share it.
#[derive(Clone, Debug)]
pub struct SiteClock {
    origin: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The first offsets from the monotonic clock to that of the site, in milliseconds.
    first: Vec<i64>,
    /// The highest offset of each ten seconds, with the monotonic moment of the first.
    bounds: VecDeque<(i64, i64)>,
    /// Offsets of answers that disagree, since the last one that agreed.
    others: VecDeque<(i64, i64)>,
    /// The latest moment that was given out: time does not run backwards by itself.
    latest: i64,
    /// How far the clock was set since this was asked last, in milliseconds.
    correction: i64,
    /// Set by tests and by single steps: time stands still there.
    held: Option<SiteTime>,
}

impl Default for SiteClock {
    fn default() -> Self {
        Self { origin: Instant::now(), inner: Arc::default() }
    }
}

impl SiteClock {
    /// Returns the time of the site, at most.
    pub fn now(&self) -> SiteTime {
        let monotonic = elapsed(self.origin);
        let mut inner = self.inner.lock();
        if let Some(held) = inner.held {
            return held;
        }
        // Only until the first answer of the site, before which nothing is decided.
        let now = inner.offset().map_or_else(local_millis, |offset| monotonic + offset);
        inner.latest = inner.latest.max(now);
        SiteTime(if inner.first.is_empty() { now } else { inner.latest })
    }

    /// Takes in the `Date` of an answer that has just arrived.
    pub fn observe(&self, server_time: Option<Timestamp>) {
        let mut inner = self.inner.lock();
        // Where time is held the monotonic clock goes on without it: the two have no offset.
        if let Some(server_time) = server_time.filter(|_| inner.held.is_none()) {
            inner.observe(elapsed(self.origin), SiteTime::from(server_time).0);
        }
    }

    /// Returns by how much the site's clock was set since the last call, if it was: the
    /// moments that are kept move along.
    pub fn take_correction(&self) -> Option<i64> {
        let correction = std::mem::take(&mut self.inner.lock().correction);
        (correction != 0).then_some(correction)
    }

    /// Makes time stand still at this moment.
    pub fn hold(&self, now: SiteTime) {
        self.inner.lock().held = Some(now);
    }

    /// Returns the clock of the site minus that of this machine, in seconds.
    pub fn ahead_of_local(&self) -> f64 {
        (self.now().0 - local_millis()) as f64 / 1000.0
    }
}

impl Inner {
    fn offset(&self) -> Option<i64> {
        if self.first.len() < FIRST_ANSWERS {
            return median(self.first.clone());
        }
        self.bounds.iter().map(|(_, offset)| *offset).max()
    }

    fn observe(&mut self, monotonic: i64, site: i64) {
        let offset = site - monotonic;
        if self.first.len() < FIRST_ANSWERS {
            self.first.push(offset);
            // What was given out before may have been that of a wrong answer.
            self.latest = i64::MIN;
            let settled = median(self.first.clone()).unwrap_or(offset);
            self.bounds = [(monotonic, settled)].into();
            return;
        }
        let known = self.offset().unwrap_or(offset);
        if (offset - known).abs() <= MAX_JUMP {
            self.others.clear();
            self.note_bound(monotonic, offset);
            return;
        }
        let agrees = self.others.back().is_none_or(|(_, other)| (offset - other).abs() <= MAX_JUMP);
        if !agrees {
            self.others.clear();
        }
        self.others.push_back((monotonic, offset));
        let since = self.others.front().map_or(monotonic, |(at, _)| *at);
        if monotonic - since >= CONFIRMED_AFTER {
            let offset = median(self.others.drain(..).map(|(_, offset)| offset).collect()).unwrap_or(offset);
            self.correction += offset - known;
            self.latest = i64::MIN;
            self.bounds = [(monotonic, offset)].into();
        }
    }

    fn note_bound(&mut self, monotonic: i64, offset: i64) {
        match self.bounds.back_mut().filter(|(at, _)| monotonic - *at < BOUND_EVERY) {
            Some((_, bound)) => *bound = offset.max(*bound),
            None => self.bounds.push_back((monotonic, offset)),
        }
        while self.bounds.len() > 1 && self.bounds.front().is_some_and(|(at, _)| monotonic - at > BOUND_COUNTS_FOR) {
            self.bounds.pop_front();
        }
    }
}

fn median(mut offsets: Vec<i64>) -> Option<i64> {
    offsets.sort_unstable();
    // The lower one of two: understated freshness does no harm.
    offsets.get(offsets.len().saturating_sub(1) / 2).copied()
}

fn elapsed(origin: Instant) -> i64 {
    i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock after its first answers, at the monotonic moment 1 s.
    fn running(site: i64) -> Inner {
        let mut inner = Inner::default();
        (0..FIRST_ANSWERS).for_each(|_| inner.observe(1_000, site));
        inner
    }

    /// Observes an answer and returns the time of the site.
    fn after(inner: &mut Inner, monotonic: i64, site: i64) -> i64 {
        inner.observe(monotonic, site);
        monotonic + inner.offset().expect("an offset")
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_does_not_set_the_clock_back() {
        let mut inner = running(1_000_000);
        assert_eq!(after(&mut inner, 2_000, 999_000), 1_001_000);
        assert_eq!(after(&mut inner, 3_000, 1_002_500), 1_002_500);
    }

    #[test]
    fn a_wrong_date_for_seconds_changes_nothing() {
        let mut inner = running(1_000_000);
        for monotonic in (1_100..4_100).step_by(100) {
            assert_eq!(after(&mut inner, monotonic, 1_000_000 + 7_200_000), 999_000 + monotonic);
        }
        assert_eq!(after(&mut inner, 4_200, 1_003_200), 1_003_200);
        assert!(inner.others.is_empty() && inner.correction == 0);
    }

    #[test]
    fn a_host_that_is_always_wrong_changes_nothing_among_others() {
        let mut inner = running(1_000_000);
        for monotonic in (2_000..100_000).step_by(1_000) {
            inner.observe(monotonic, monotonic + 999_000 - 3_600_000);
            assert_eq!(after(&mut inner, monotonic + 500, monotonic + 999_500), monotonic + 999_500);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_followed_when_all_answers_agree() {
        let mut inner = running(10_000_000);
        let site = |monotonic: i64| 10_000_000 - 7_200_000 + monotonic;
        assert_eq!(after(&mut inner, 20_000, site(20_000)), 10_019_000);
        assert_eq!(after(&mut inner, 49_000, site(49_000)), 10_048_000);
        assert_eq!(after(&mut inner, 50_000, site(50_000)), site(50_000));
        assert_eq!(inner.correction, -7_199_000);
    }

    #[test]
    fn answers_do_not_set_a_clock_that_is_held() {
        let clock = SiteClock::default();
        clock.hold(SiteTime(7_000));
        (0..FIRST_ANSWERS).for_each(|_| clock.observe(Timestamp::parse("2023-11-14T22:13:20Z")));
        assert!(clock.inner.lock().first.is_empty());
        assert_eq!((clock.now(), clock.take_correction()), (SiteTime(7_000), None));
    }

    #[test]
    fn a_wrong_first_answer_is_outvoted() {
        let mut inner = Inner::default();
        inner.observe(0, 9_000_000);
        inner.observe(0, 1_000_000);
        assert_eq!(after(&mut inner, 0, 1_000_000), 1_000_000);
    }

    #[test]
    fn time_does_not_run_backwards_between_answers() {
        let clock = SiteClock::default();
        (0..FIRST_ANSWERS).for_each(|_| clock.observe(Some(Timestamp(1_000))));
        let first = clock.now();
        clock.observe(Some(Timestamp(998)));
        assert!(clock.now() >= first && clock.now().0 < 1_010_000);
    }
}
