//! The loop of the one process that follows the site.
//!
//! Four loops side by side: polling, fetching, importing, maintenance. Each backs off
//! on its own, none waits for another, and each finishes what it has begun before
//! it ends. [`Follower::step`] does the same work once, for tests and single runs.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::import::Progress;
use super::maintenance::MaintenanceSchedule;
use super::{Fetched, PollStatus, Polled, Replica, Result, Status, SyncError};
use crate::state::{LeaderLock, SiteTime};

/// After so many refusals polling nearly stops.
const DENIED_AFTER: u32 = 3;
const DENIED_PAUSE: Duration = Duration::from_secs(300);
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);
const STATUS_EVERY: u32 = 5;

/// Follows the site; at most one per data directory.
pub struct Follower {
    replica: Replica,
    _lock: LeaderLock,
    progress: Option<Progress>,
    /// Whether the site has shown that its event log can be continued.
    checked: bool,
    poll_status: Mutex<PollStatus>,
    /// Tells the fetch loop that there are marks, the poll loop that somebody
    /// cannot wait.
    marked: Notify,
    poked: Notify,
    stepped: tokio::sync::Mutex<MaintenanceSchedule>,
}

/// What a single step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The poll.
    pub polled: Polled,
    /// The fetching after it.
    pub fetched: Fetched,
}

impl Follower {
    /// Takes the lead, checks that the event log can be followed from where the
    /// state stands, and makes room for the types.
    ///
    /// # Errors
    ///
    /// [`crate::state::StateError::Locked`] when another process leads;
    /// [`SyncError::OtherSite`] when the directory belongs to another site.
    pub async fn start_up(replica: Replica, progress: Option<Progress>) -> Result<Self> {
        let lock = replica.state().lead().await?;
        replica.check_stream().await?;
        Self::lead(replica, lock, progress, true).await
    }

    /// Does the same without the site: [`Follower::run`] checks the event log as soon
    /// as the site answers. For a process that serves what it has in the meantime.
    ///
    /// # Errors
    ///
    /// As [`Follower::start_up`].
    pub async fn take_lead(replica: Replica, progress: Option<Progress>) -> Result<Self> {
        let lock = replica.state().lead().await?;
        replica.check_site().await?;
        Self::lead(replica, lock, progress, false).await
    }

    async fn lead(replica: Replica, lock: LeaderLock, progress: Option<Progress>, checked: bool) -> Result<Self> {
        replica.metrics().leader.active.set(1.0);
        let epoch = replica.state().begin_epoch(replica.now()).await?;
        replica.metrics().leader.epoch.set(epoch as f64);
        replica.step("start: led")?;
        replica.make_room().await?;
        replica.forget_untracked().await?;
        Ok(Self {
            replica,
            _lock: lock,
            progress,
            checked,
            poll_status: Mutex::default(),
            marked: Notify::new(),
            poked: Notify::new(),
            stepped: tokio::sync::Mutex::default(),
        })
    }

    /// Returns what is followed.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Makes the loop poll and fetch at once: something was written.
    pub fn poke(&self) {
        self.poked.notify_one();
        self.marked.notify_one();
    }

    /// Returns what can be said about the cache and the loop now.
    ///
    /// # Errors
    ///
    /// Only when the state cannot be read.
    pub async fn status(&self) -> Result<Status> {
        let poll = self.poll_status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Status { poll: Some(poll), ..self.replica.status().await? })
    }

    /// Imports everything that is not complete; returns the number of types.
    ///
    /// # Errors
    ///
    /// The first error; the next call goes on where it was.
    pub async fn import_pending(&self) -> Result<usize> {
        let pending = self.replica.pending_imports().await?;
        for entity_type in &pending {
            self.replica.import(entity_type, self.progress.clone()).await?;
        }
        Ok(pending.len())
    }

    /// Polls once, fetches what is due and does the maintenance, at the given moment of
    /// the site; the clock stands still there.
    ///
    /// # Errors
    ///
    /// The first one; the same step can be made again.
    pub async fn step(&self, now: SiteTime) -> Result<Step> {
        self.replica.clock().hold(now);
        let polled = self.replica.poll().await?;
        let mut schedule = self.stepped.lock().await;
        self.replica.maintain(&mut schedule).await?;
        let fetched = self.replica.fetch_due().await?;
        self.replica.conclude_imports().await?;
        Ok(Step { polled, fetched })
    }

    /// Follows until `stop` is cancelled. Failures of the site or the store are
    /// waited out.
    pub async fn run(&self, stop: CancellationToken) {
        if !self.checked {
            self.check_until_answered(&stop).await;
        }
        tokio::join!(
            self.poll_loop(&stop),
            self.fetch_loop(&stop),
            self.import_loop(&stop),
            self.maintenance_loop(&stop)
        );
        self.replica.metrics().leader.active.set(0.0);
    }

    /// Checks the event log until the site has answered. Nothing is read before: a log
    /// that cannot be continued has every type imported again.
    async fn check_until_answered(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let checked = tokio::select! {
                checked = self.replica.check_stream() => checked,
                () = stop.cancelled() => return,
            };
            let Err(error) = checked else { return };
            self.note_failure(&error);
            failures += 1;
            warn("the event log cannot be checked", &error, failures);
            wait(stop, self.pause_after(&error, failures), self.poked.notified()).await;
        }
    }

    /// Returns how long to wait after so many failures to read the event log.
    fn pause_after(&self, error: &SyncError, failures: u32) -> Duration {
        if error.is_denied() && failures >= DENIED_AFTER {
            return DENIED_PAUSE;
        }
        backoff(failures, self.replica.settings().backoff_max)
    }

    async fn poll_loop(&self, stop: &CancellationToken) {
        let settings = self.replica.settings().clone();
        let mut pause = settings.poll_min;
        let mut failures = 0;
        while !stop.is_cancelled() {
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
                let mut status = self.poll_status.lock().unwrap_or_else(PoisonError::into_inner);
                let polls = status.polls + 1;
                *status = PollStatus { polls, last_success: Some(self.replica.now()), ..PollStatus::default() };
            }
            Err(error) => self.note_failure(error),
        }
    }

    fn note_failure(&self, error: &SyncError) {
        let mut status = self.poll_status.lock().unwrap_or_else(PoisonError::into_inner);
        status.failures += 1;
        status.error = Some(error.to_string());
        status.denied = error.is_denied() && status.failures >= DENIED_AFTER;
    }

    async fn fetch_loop(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let fetched = tokio::select! {
                fetched = self.replica.fetch_due() => fetched,
                () = stop.cancelled() => return,
            };
            match fetched {
                Ok(fetched) => {
                    failures = 0;
                    if fetched.read == 0 {
                        wait(stop, self.until_next_mark().await, self.marked.notified()).await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn("fetching failed", &error, failures);
                    wait(stop, backoff(failures, self.replica.settings().backoff_max), std::future::pending()).await;
                }
            }
        }
    }

    /// Returns how long the fetch loop may sleep when nobody wakes it: other
    /// processes mark keys, too.
    async fn until_next_mark(&self) -> Duration {
        let longest = Duration::from_secs(1);
        match self.replica.state().next_due().await {
            Ok(Some(due)) => due.since(self.replica.now()).clamp(Duration::from_millis(50), longest),
            _ => longest,
        }
    }

    async fn import_loop(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let imported = tokio::select! {
                imported = self.import_side_by_side() => imported,
                // Pages that were written stay written, and a restart goes on there.
                () = stop.cancelled() => return,
            };
            match imported {
                Ok(()) => {
                    failures = 0;
                    wait(stop, MAINTENANCE_INTERVAL, std::future::pending()).await;
                }
                Err(error) => {
                    failures += 1;
                    warn("an import failed", &error, failures);
                    wait(stop, backoff(failures, self.replica.settings().backoff_max), std::future::pending()).await;
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
        let (mut schedule, mut failures, mut round) = (MaintenanceSchedule::default(), 0, 0);
        while !stop.is_cancelled() {
            let done = tokio::select! {
                done = self.replica.maintain(&mut schedule) => done,
                () = stop.cancelled() => return,
            };
            round += 1;
            let shown =
                if round % STATUS_EVERY == 1 { self.replica.measure_status().await.map(|_| ()) } else { Ok(()) };
            match done.and(shown) {
                Ok(()) => {
                    failures = 0;
                    wait(stop, MAINTENANCE_INTERVAL, std::future::pending()).await;
                }
                Err(error) => {
                    failures += 1;
                    warn("maintenance failed", &error, failures);
                    wait(stop, backoff(failures, self.replica.settings().backoff_max), std::future::pending()).await;
                }
            }
        }
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Follower({:?})", self.replica)
    }
}

/// Sleeps until the time is over, somebody calls, or everything ends.
async fn wait(stop: &CancellationToken, pause: Duration, call: impl Future<Output = ()>) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = call => {}
        () = stop.cancelled() => {}
    }
}

/// One line when it begins, then one for each doubling.
fn warn(what: &'static str, error: &SyncError, failures: u32) {
    if failures.is_power_of_two() {
        tracing::warn!(%error, failures, "{what}");
    }
}

fn backoff(failures: u32, longest: Duration) -> Duration {
    let doubled = Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let bound = doubled.min(longest);
    bound.div_f64(2.0) + bound.div_f64(2.0).mul_f64(rand::rng().random::<f64>())
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * rand::rng().random::<f64>())
}
