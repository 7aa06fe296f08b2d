//! When periodic work was done last, kept over restarts.
//!
//! A daemon that is restarted every hour still does what is due once an hour: what
//! counts is the time since the work was done, the time without a daemon included,
//! because the site went on. The moments are of the site's clock and decide nothing
//! but when to look again. A clock that was set back begins the period anew; one that
//! was set forward makes the next look come early.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Result;
use crate::state::{SiteTime, State};

/// Where the moments are, under this name in the state.
const PLACE: &str = "maintenance";

/// The moments of the last time, by the name of the work.
#[derive(Clone, Debug, Default)]
pub(super) struct Periods {
    done: BTreeMap<String, SiteTime>,
    loaded: bool,
    /// Whether a first period began that is not kept yet.
    begun: bool,
}

impl Periods {
    /// Loads the moments once, and keeps those of first periods that began since the last
    /// call: a daemon that never runs for a whole period must not begin it anew each time.
    pub(super) async fn load(&mut self, state: &State) -> Result<()> {
        if std::mem::take(&mut self.begun) {
            state.keep(PLACE, &self.done).await?;
        }
        if !self.loaded {
            let kept: BTreeMap<String, SiteTime> = state.cursor(PLACE).await?.unwrap_or_default();
            self.done.extend(kept);
            self.loaded = true;
        }
        Ok(())
    }

    /// Tells whether a period is over. The first one began at `first`; a zero period
    /// never ends.
    pub(super) fn is_due(&mut self, work: &str, every: Duration, first: SiteTime, now: SiteTime) -> bool {
        if every.is_zero() {
            return false;
        }
        self.begun |= !self.done.contains_key(work);
        let last = self.done.entry(work.to_owned()).or_insert(first);
        *last = (*last).min(now);
        now.since(*last) >= every
    }

    /// Begins the next period for the time of this process.
    pub(super) fn begin(&mut self, work: &str, now: SiteTime) {
        self.done.insert(work.to_owned(), now);
    }

    /// Begins the next period: the work is done. What failed is due again.
    pub(super) async fn done(&mut self, work: &str, now: SiteTime, state: &State) -> Result<()> {
        self.done.insert(work.to_owned(), now);
        Ok(state.keep(PLACE, &self.done).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_period_goes_on_over_a_restart_and_ends_only_with_the_work() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        let hour = Duration::from_secs(3600);
        let at = |minutes: i64| SiteTime(minutes * 60_000);
        let mut periods = Periods::default();
        periods.load(&state).await.expect("nothing yet");
        assert!(!periods.is_due("scan", hour, at(0), at(0)));
        assert!(periods.is_due("scan", hour, at(5), at(60)), "the first period began with the first question");
        assert!(periods.is_due("scan", hour, at(60), at(61)), "it was not done");
        periods.done("scan", at(61), &state).await.expect("it is kept");
        for minutes in [70, 110] {
            periods = Periods::default();
            periods.load(&state).await.expect("the moments");
            assert!(!periods.is_due("scan", hour, at(minutes), at(minutes)));
        }
        assert!(periods.is_due("scan", hour, at(121), at(121)));
    }

    #[test]
    fn a_clock_that_was_set_back_begins_the_period_anew() {
        let (mut periods, minute) = (Periods::default(), Duration::from_secs(60));
        let mut due = |at| periods.is_due("scan", minute, SiteTime(at), SiteTime(at));
        assert_eq!([due(500_000), due(5_000), due(64_999), due(65_000)], [false, false, false, true]);
    }
}
