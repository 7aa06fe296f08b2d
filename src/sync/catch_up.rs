//! Waiting until the cache has caught up with a moment, for jobs beside a daemon
//! or without one.

use std::time::{Duration, Instant};

use super::follower::Lead;
use super::{Replica, Result, SyncError};
use crate::state::{DirtyReasons, StateError};

/// How often the state is looked at while another process does the work.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// By how much the first answers of the site may set its clock back, which shows whole
/// seconds: what was due is due again that much later.
const CLOCK_STEP: Duration = Duration::from_secs(1);

impl Replica {
    /// Returns once a poll that began after this call has seen everything there
    /// was and all that it or earlier polls told of is in the store. Keys that
    /// cannot be read or whose deletion is held are not waited for. Polling goes on
    /// meanwhile: what looks unproven is often explained by a later entry.
    ///
    /// Where another process leads, it is waited for; else this call does the
    /// polling and fetching itself.
    ///
    /// # Errors
    ///
    /// [`SyncError::TimedOut`] after `patience`.
    pub async fn advance(&self, patience: Duration) -> Result<()> {
        self.advance_until(patience, DirtyReasons::default()).await
    }

    /// As [`Replica::advance`], and the keys that are dirty for one of these reasons are read,
    /// but those that have to wait for their next read.
    ///
    /// # Errors
    ///
    /// [`SyncError::TimedOut`] after `patience`.
    pub async fn advance_until(&self, patience: Duration, read: DirtyReasons) -> Result<()> {
        let asked = Instant::now();
        // Polls with a higher number begin after this moment.
        let started = self.state().stream().await?.polls_started;
        let (mut target, mut polled) = (None, None);
        loop {
            match Lead::take(self, false).await {
                Ok(lead) => {
                    let worked = self.work_towards(started, &mut polled).await;
                    drop(lead);
                    worked?;
                }
                Err(SyncError::State(StateError::Locked { .. })) => {}
                Err(error) => return Err(error),
            }
            let due = self.now().after(CLOCK_STEP);
            if self.has_reached(started, &mut target).await? && !self.state().has_due(read, due).await? {
                return Ok(());
            }
            if asked.elapsed() >= patience {
                let seconds = patience.as_secs();
                let message = format!("the cache did not catch up with the site within {seconds} s");
                return Err(SyncError::TimedOut(message));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Does what the leader would do; `polled` is when it last polled here.
    async fn work_towards(&self, started: i64, polled: &mut Option<Instant>) -> Result<()> {
        if self.state().stream().await?.high_water_mark.is_none() {
            self.check_stream().await?;
        }
        if polled.is_none_or(|polled| polled.elapsed() >= self.settings().poll_min) {
            loop {
                self.poll().await?;
                if self.state().stream().await?.poll_done > started {
                    break;
                }
            }
            *polled = Some(Instant::now());
        }
        let mut target = None;
        loop {
            // Also when nothing is left to wait for: keys that were put aside, and
            // that an event marked again, hold up nobody and are read all the same.
            let fetched = self.fetch_due().await?;
            if fetched.read == 0 || self.has_reached(started, &mut target).await? {
                return Ok(());
            }
        }
    }

    /// Tells whether the first poll after `started` that saw everything there was left
    /// nothing to read. It is kept in `target`, with the one up to which gaps were asked
    /// for, too.
    async fn has_reached(&self, started: i64, target: &mut Option<(i64, i64)>) -> Result<bool> {
        if target.is_none() {
            let stream = self.state().stream().await?;
            let complete = stream.complete_as_of.is_some() && stream.poll_done > started;
            *target = complete.then_some((stream.poll_done, stream.complete_poll));
        }
        match *target {
            Some((poll, complete)) => Ok(self.state().open_marks(poll, complete).await? == 0),
            None => Ok(false),
        }
    }
}
