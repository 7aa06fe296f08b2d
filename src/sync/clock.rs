//! The time of the site, as far as its answers tell it.
//!
//! The `Date` header has whole seconds and is older than the answer by half a
//! round trip, so each answer gives a moment that the site has passed. The
//! latest such bound is kept, carried forward by the monotonic clock of this
//! machine. The result is never ahead of the site, which is the safe side:
//! freshness is understated, never overstated.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::entity::Timestamp;
use crate::state::SiteTime;

/// A site that falls back by more than this has had its clock set.
const SET_BACK: i64 = 5_000;

/// The clock of the site; clones share it.
#[derive(Clone, Debug)]
pub struct SiteClock(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// Milliseconds from the monotonic clock to that of the site.
    offset: Option<i64>,
    /// Set by tests and by single steps: time stands still there.
    held: Option<SiteTime>,
}

impl Default for SiteClock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { origin: Instant::now(), offset: None, held: None })))
    }
}

impl SiteClock {
    /// Returns the time of the site, at most.
    pub fn now(&self) -> SiteTime {
        self.with(|inner| {
            if let Some(held) = inner.held {
                return held;
            }
            let monotonic = elapsed(inner.origin);
            // Only until the first answer of the site, before which nothing is decided.
            SiteTime(monotonic + inner.offset.unwrap_or_else(|| local_millis() - monotonic))
        })
    }

    /// Takes in the `Date` of an answer that has just arrived.
    pub fn observe(&self, server_time: Option<Timestamp>) {
        let Some(server_time) = server_time else {
            return;
        };
        self.with(|inner| {
            let bound = SiteTime::from(server_time).0 - elapsed(inner.origin);
            inner.offset = Some(match inner.offset {
                Some(known) if bound > known - SET_BACK => known.max(bound),
                _ => bound,
            });
        });
    }

    /// Makes time stand still at this moment.
    pub fn hold(&self, now: SiteTime) {
        self.with(|inner| inner.held = Some(now));
    }

    /// Returns the clock of the site minus that of this machine, in seconds.
    pub fn ahead_of_local(&self) -> f64 {
        (self.now().0 - local_millis()) as f64 / 1000.0
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn elapsed(origin: Instant) -> i64 {
    i64::try_from(origin.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn local_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_long_on_its_way_does_not_set_the_clock_back() {
        let clock = SiteClock::default();
        clock.observe(Some(Timestamp(1_000)));
        clock.observe(Some(Timestamp(998)));
        assert!(clock.now() >= SiteTime(1_000_000));
        clock.observe(Some(Timestamp(900)));
        assert!(clock.now() < SiteTime(950_000), "the site's own clock was set back");
    }
}
