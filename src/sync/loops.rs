//! The loops of the process that follows the site.
//!
//! Four of them side by side: polling, fetching, backfilling, maintenance. Each backs
//! off on its own, none waits for another, and each finishes what it has begun before
//! it ends. A supervisor restarts one that panics or hangs; when it gives one up, all
//! end together, so that another process, or a new start, can take the lead.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::follower::RefusedWrite;
use super::maintenance::MaintenanceSchedule;
use super::{Follower, PollStatus, Polled, Result, SyncError};
use crate::retry::doubled;
use crate::supervisor::{Loop, LoopFailed, Supervisor, beat};

/// After so many refusals polling nearly stops.
const DENIED_AFTER: u32 = 3;
const DENIED_PAUSE: Duration = Duration::from_secs(300);
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// How long a round of each loop may take, besides the waits for the site, which the
/// client announces.
const POLL_BOUND: Duration = Duration::from_secs(120);
const FETCH_BOUND: Duration = Duration::from_secs(300);
const BACKFILL_BOUND: Duration = Duration::from_secs(600);
const MAINTENANCE_BOUND: Duration = Duration::from_secs(600);
/// How much later than its pause a loop may wake.
const PAUSE_SLACK: Duration = Duration::from_secs(60);

impl Follower {
    /// Follows until `stop` is cancelled. Failures of the site or the store are
    /// waited out.
    ///
    /// # Errors
    ///
    /// [`LoopFailed`] when a loop keeps failing by a fault of this program.
    pub async fn run(self: &Arc<Self>, supervisor: &Supervisor, stop: CancellationToken) -> Result<(), LoopFailed> {
        // Dropped, and with it whatever still runs, however this ends.
        let mut loops = JoinSet::new();
        for name in [Loop::Poll, Loop::Fetch, Loop::Backfill, Loop::Maintenance] {
            let (follower, supervisor, stop) = (Arc::clone(self), supervisor.clone(), stop.clone());
            let supervised = async move {
                let body = || {
                    let (follower, stop) = (Arc::clone(&follower), stop.clone());
                    async move { follower.run_loop(name, &stop).await }
                };
                supervisor.run(name, &stop, body).await
            };
            loops.spawn(supervised.in_current_span());
        }
        while let Some(ended) = loops.join_next().await {
            match ended {
                Ok(outcome) => outcome?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(())
    }

    async fn run_loop(&self, name: Loop, stop: &CancellationToken) {
        if name == Loop::Poll {
            return self.poll_loop(stop).await;
        }
        beat(Duration::MAX).await;
        let mut checked = self.checked.subscribe();
        tokio::select! {
            // An error means that the follower is gone.
            _ = checked.wait_for(|checked| *checked) => {}
            () = stop.cancelled() => return,
        }
        match name {
            Loop::Fetch => self.fetch_loop(stop).await,
            Loop::Backfill => self.backfill_loop(stop).await,
            _ => self.maintenance_loop(stop).await,
        }
    }

    /// Checks the event log until the site has answered. Nothing is read before: a log
    /// that cannot be continued has every type imported again.
    async fn check_until_answered(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !*self.checked.borrow() && !stop.is_cancelled() {
            beat(POLL_BOUND).await;
            let checked = tokio::select! {
                checked = self.replica.check_stream() => checked,
                () = stop.cancelled() => return,
            };
            match checked {
                Ok(()) => {
                    self.checked.send_replace(true);
                }
                Err(error) => {
                    self.note_failure(&error);
                    failures += 1;
                    warn("the event log cannot be checked", &error, failures);
                    wait(stop, self.pause_after(&error, failures), self.poked.notified()).await;
                }
            }
        }
    }

    /// Returns how long to wait after so many failures to read the event log.
    fn pause_after(&self, error: &SyncError, failures: u32) -> Duration {
        if error.is_denied() && failures >= DENIED_AFTER {
            return DENIED_PAUSE;
        }
        self.backoff(error, failures)
    }

    /// Returns how long to wait after so many failures: at least as long as the site
    /// asked for.
    fn backoff(&self, error: &SyncError, failures: u32) -> Duration {
        backoff(self.replica.settings().backoff_max, error.retry_after(), failures)
    }

    async fn poll_loop(&self, stop: &CancellationToken) {
        self.check_until_answered(stop).await;
        let settings = self.replica.settings().clone();
        let mut pause = settings.poll_min;
        let mut failures = 0;
        while !stop.is_cancelled() {
            beat(POLL_BOUND).await;
            // Whatever a dropped poll or fetch left undone is still marked.
            let polled = tokio::select! {
                polled = self.replica.poll() => polled,
                () = stop.cancelled() => return,
            };
            self.note_poll(&polled);
            match polled {
                Ok(polled) => {
                    failures = 0;
                    if polled.marked > 0 {
                        self.marked.notify_one();
                    }
                    if polled.full {
                        continue;
                    }
                    pause =
                        if polled.entries > 0 { settings.poll_min } else { settings.poll_max.min(pause.mul_f64(1.3)) };
                    wait(stop, jittered(pause), self.poked.notified()).await;
                }
                Err(error) => {
                    failures += 1;
                    warn("polling failed", &error, failures);
                    wait(stop, self.pause_after(&error, failures), self.poked.notified()).await;
                }
            }
        }
    }

    fn note_poll(&self, polled: &Result<Polled>) {
        match polled {
            Ok(_) => {
                self.note_written(Loop::Poll);
                let mut status = self.poll_status.lock();
                let polls = status.polls + 1;
                *status = PollStatus { polls, last_success: Some(self.replica.now()), ..PollStatus::default() };
            }
            Err(error) => self.note_failure(error),
        }
    }

    fn note_failure(&self, error: &SyncError) {
        self.note_refused(Loop::Poll, error);
        let mut status = self.poll_status.lock();
        status.failures += 1;
        status.failing_since.get_or_insert(self.replica.now());
        status.error = Some(error.to_string());
        status.denied = error.is_denied() && status.failures >= DENIED_AFTER;
    }

    /// Takes note of a failure that keeps everything from being written.
    fn note_refused(&self, name: Loop, error: &SyncError) {
        if error.is_write_refused() {
            let refused = RefusedWrite { by_state: matches!(error, SyncError::State(_)), message: error.to_string() };
            self.refused_writes.lock().insert(name, refused);
        }
    }

    /// Takes note that a loop has written what it had to write.
    fn note_written(&self, name: Loop) {
        self.refused_writes.lock().remove(&name);
    }

    async fn fetch_loop(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            beat(FETCH_BOUND).await;
            let fetched = tokio::select! {
                fetched = self.replica.fetch_due() => fetched,
                () = stop.cancelled() => return,
            };
            match fetched {
                Ok(fetched) => {
                    failures = 0;
                    if fetched.read > 0 {
                        self.note_written(Loop::Fetch);
                    } else {
                        wait(stop, self.until_next_mark().await, self.marked.notified()).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.note_refused(Loop::Fetch, &error);
                    warn("fetching failed", &error, failures);
                    wait(stop, self.backoff(&error, failures), std::future::pending()).await;
                }
            }
        }
    }

    /// Returns how long the fetch loop may sleep unless it is woken: other processes
    /// mark keys, too.
    async fn until_next_mark(&self) -> Duration {
        let longest = Duration::from_secs(1);
        match self.replica.state().next_due().await {
            Ok(Some(due)) => due.since(self.replica.now()).clamp(Duration::from_millis(50), longest),
            _ => longest,
        }
    }

    async fn backfill_loop(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            beat(BACKFILL_BOUND).await;
            let imported = tokio::select! {
                imported = self.import_side_by_side() => imported,
                // Pages that were written stay written, and a restart goes on there.
                () = stop.cancelled() => return,
            };
            match imported {
                Ok(()) => {
                    failures = 0;
                    self.note_written(Loop::Backfill);
                    wait(stop, MAINTENANCE_INTERVAL, std::future::pending()).await;
                }
                Err(error) => {
                    failures += 1;
                    self.note_refused(Loop::Backfill, &error);
                    warn("an import failed", &error, failures);
                    wait(stop, self.backoff(&error, failures), std::future::pending()).await;
                }
            }
        }
    }

    /// Imports what is not complete. A type that fails does not stop the others.
    async fn import_side_by_side(&self) -> Result<()> {
        use futures::stream::{self, StreamExt};
        let pending = self.replica.pending_imports().await?;
        let at_once = self.replica.settings().imports_at_once.max(1);
        let imports = stream::iter(pending).map(|entity_type| {
            let (replica, progress) = (self.replica.clone(), self.progress.clone());
            async move { replica.import(&entity_type, progress).await.map(|_| ()) }
        });
        let outcomes: Vec<Result<()>> = imports.buffer_unordered(at_once).collect().await;
        outcomes.into_iter().collect()
    }

    async fn maintenance_loop(&self, stop: &CancellationToken) {
        tokio::join!(self.keep_maintaining(stop), self.keep_measuring(stop));
    }

    /// Shows the state in the metrics. Beside the maintenance, which waits for a site that is
    /// away: what is shown does not.
    async fn keep_measuring(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            match self.replica.measure_status().await {
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    warn("the state could not be shown in the metrics", &error, failures);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(STATUS_INTERVAL) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn keep_maintaining(&self, stop: &CancellationToken) {
        let (mut schedule, mut failures) = (MaintenanceSchedule::default(), 0);
        while !stop.is_cancelled() {
            beat(MAINTENANCE_BOUND).await;
            let done = tokio::select! {
                done = self.replica.maintain(&mut schedule) => done,
                () = stop.cancelled() => return,
            };
            match done {
                Ok(()) => {
                    failures = 0;
                    self.note_written(Loop::Maintenance);
                    wait(stop, MAINTENANCE_INTERVAL, std::future::pending()).await;
                }
                Err(error) => {
                    failures += 1;
                    self.note_refused(Loop::Maintenance, &error);
                    warn("maintenance failed", &error, failures);
                    wait(stop, self.backoff(&error, failures), std::future::pending()).await;
                }
            }
        }
    }
}

/// Returns a pause that doubles with each failure up to `longest`; what the site asked for
/// has no such bound.
fn backoff(longest: Duration, asked: Option<Duration>, failures: u32) -> Duration {
    let bound = doubled(Duration::from_secs(1), failures.saturating_sub(1), longest);
    let pause = bound.div_f64(2.0) + bound.div_f64(2.0).mul_f64(rand::rng().random::<f64>());
    pause.max(asked.unwrap_or_default())
}

/// Sleeps until the time is over, the loop is woken, or everything ends.
async fn wait(stop: &CancellationToken, pause: Duration, woken: impl Future<Output = ()>) {
    beat(pause.saturating_add(PAUSE_SLACK)).await;
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = woken => {}
        () = stop.cancelled() => {}
    }
}

/// One line when it begins, then one for each doubling.
fn warn(what: &'static str, error: &SyncError, failures: u32) {
    if failures.is_power_of_two() {
        tracing::warn!(%error, failures, "{what}");
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * rand::rng().random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_up_to_its_bound_and_is_never_shorter_than_the_site_asked_for() {
        let (longest, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        for failures in [1, 2, 5, 7, 100] {
            let bound = Duration::from_secs(1 << (failures - 1).min(6)).min(longest);
            let pause = backoff(longest, None, failures);
            assert!((bound / 2..=bound).contains(&pause), "{failures}: {pause:?}");
            assert_eq!(backoff(longest, Some(hour), failures), hour);
        }
    }
}
