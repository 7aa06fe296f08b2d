//! [`Supervisor`]: keeps the loops of a process running, and knows how they are.
//!
//! A loop is a future that ends only when the process does. One that panics, ends
//! early or gives no sign of life within its own bound is ended and started again,
//! with a growing pause, a log line and a count. One that keeps failing, or cannot be
//! ended or started again, is given up: [`Supervisor::failed`] then tells the process
//! to end, because a process that lives on without one of its loops looks healthy and
//! is not. What a loop does is not known here.
//!
//! Loops beat with [`beat`]; code far below a loop that is about to wait for something
//! slow and legitimate announces that with [`working`]. Both find their loop through
//! the task, so nothing has to be handed down, and do nothing outside of a loop.

mod fault;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use fault::Faults;
use watched::Watched;

pub use fault::meet_on_thread;
pub use watched::{LoopState, LoopStatus, beat, ending, inherit, working};

use crate::metrics::Metrics;

/// The pause before the first restart; it doubles with each one in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So many failures in a row, and the loop is given up.
const MAX_FAILURES: u32 = 6;
/// A loop that ran for so long has recovered: its failures are counted anew.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);
/// How long a loop without a sign of life may take to end once it is cancelled.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// How often the thread that guards the process looks.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);

/// The loops that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loop {
    /// Reads the event log.
    Poll,
    /// Reads dirty keys again.
    Fetch,
    /// Imports types that are not complete.
    Backfill,
    /// Scans, purges, checks the schema.
    Maintenance,
    /// Decides which pipeline runs when, and runs it.
    Scheduler,
    /// Gives the scheduler its instants.
    Heartbeat,
    /// Writes the history and the plan.
    Recorder,
    /// Takes over changed files.
    Reload,
    /// Delivers reports.
    Outbox,
    /// Measures the store.
    StoreHealth,
    /// Keeps what the proxy decides by up to date.
    Freshness,
    /// Publishes the status of the leader for other hosts.
    ClusterPublisher,
    /// Serves callers.
    ApiListener,
    /// Serves operators.
    OpsListener,
}

impl Loop {
    /// Every loop.
    pub const ALL: [Loop; 14] = [
        Loop::Poll,
        Loop::Fetch,
        Loop::Backfill,
        Loop::Maintenance,
        Loop::Scheduler,
        Loop::Heartbeat,
        Loop::Recorder,
        Loop::Reload,
        Loop::Outbox,
        Loop::StoreHealth,
        Loop::Freshness,
        Loop::ClusterPublisher,
        Loop::ApiListener,
        Loop::OpsListener,
    ];

    /// Returns its name in metrics, status and logs.
    pub fn name(self) -> &'static str {
        match self {
            Loop::Poll => "poll",
            Loop::Fetch => "fetch",
            Loop::Backfill => "backfill",
            Loop::Maintenance => "maintenance",
            Loop::Scheduler => "scheduler",
            Loop::Heartbeat => "heartbeat",
            Loop::Recorder => "recorder",
            Loop::Reload => "reload",
            Loop::Outbox => "outbox",
            Loop::StoreHealth => "store_health",
            Loop::Freshness => "freshness",
            Loop::ClusterPublisher => "cluster_publisher",
            Loop::ApiListener => "api_listener",
            Loop::OpsListener => "ops_listener",
        }
    }
}

/// A loop was given up: the process must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {} loop was given up after {failures} failures, the last: {reason}", name.name())]
pub struct LoopFailed {
    /// The loop.
    pub name: Loop,
    /// How often it failed in a row.
    pub failures: u32,
    /// What happened last.
    pub reason: String,
}

/// Keeps loops running; clones share everything.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    shutdown: CancellationToken,
    faults: Faults,
    loops: Mutex<BTreeMap<Loop, Arc<Watched>>>,
    failed: watch::Sender<Option<LoopFailed>>,
}

/// Why a loop is not running any more.
enum End {
    Panicked(String),
    /// By itself, for the reason that it gave.
    Ended(Option<String>),
    Stuck(Duration),
}

impl End {
    /// Returns the value of the label `reason`.
    fn label(&self) -> &'static str {
        match self {
            End::Panicked(_) => "panic",
            End::Ended(_) => "ended",
            End::Stuck(_) => "stuck",
        }
    }

    fn words(&self) -> String {
        match self {
            End::Panicked(text) => format!("it panicked: {text}"),
            End::Ended(None) => "it ended by itself".to_owned(),
            End::Ended(Some(reason)) => reason.clone(),
            End::Stuck(silence) => format!("it gave no sign of life for {} s", silence.as_secs()),
        }
    }
}

impl Supervisor {
    /// Returns a supervisor of no loops; after `shutdown` an end is no failure.
    pub fn new(metrics: Metrics, shutdown: CancellationToken) -> Self {
        let (faults, loops, failed) = (Faults::from_environment(), Mutex::default(), watch::Sender::new(None));
        Self(Arc::new(Inner { metrics, shutdown, faults, loops, failed }))
    }

    /// Runs a loop in the background until the shutdown.
    pub fn spawn<F>(&self, name: Loop, body: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let stop = supervisor.0.shutdown.clone();
            // The code that ends the process learns of a failure from `failed`.
            let _ = supervisor.run(name, &stop, body).await;
        })
    }

    /// Runs a loop that cannot be started again, such as one that owns its listener.
    pub fn spawn_once(&self, name: Loop, body: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let supervisor = self.clone();
        tokio::spawn(async move {
            let watched = supervisor.watch(name);
            let (Ok(end) | Err(end)) = supervisor.attend(&watched, body).await;
            if !supervisor.0.shutdown.is_cancelled() {
                supervisor.count(name, &end);
                supervisor.give_up(name, 1, end.words());
            }
        })
    }

    /// Runs a loop until `stop` is cancelled; then waits for its end.
    ///
    /// # Errors
    ///
    /// [`LoopFailed`] when it was given up.
    pub async fn run<F>(&self, name: Loop, stop: &CancellationToken, body: impl Fn() -> F) -> Result<(), LoopFailed>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let watched = self.watch(name);
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let (end, is_over) = match self.attend(&watched, body()).await {
                Ok(end) => (end, true),
                Err(end) => (end, false),
            };
            if stop.is_cancelled() || self.0.shutdown.is_cancelled() {
                return Ok(());
            }
            failures = if began.elapsed() >= RECOVERED_AFTER { 1 } else { failures + 1 };
            self.count(name, &end);
            if !is_over || failures >= MAX_FAILURES {
                return Err(self.give_up(name, failures, end.words()));
            }
            let pause = pause_after(failures);
            tracing::error!(
                name = name.name(),
                reason = end.words(),
                failures,
                ?pause,
                "a loop failed: starting it again"
            );
            watched.restarting(end.words());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
                () = self.0.shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Ends the process at once, from a thread of its own, when a loop stays silent
    /// although it was cancelled. A loop that keeps its thread can keep the whole
    /// runtime with it: then nothing in there could even notice.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn guard_process(&self) -> std::io::Result<()> {
        let inner = Arc::downgrade(&self.0);
        let watch = move || {
            while let Some(inner) = inner.upgrade() {
                let silent = inner.loops.lock().values().find_map(|watched| watched.words_when_lost());
                if let Some(words) = silent {
                    tracing::error!("the process ends: {words}");
                    std::process::exit(1);
                }
                drop(inner);
                std::thread::sleep(WATCHDOG_INTERVAL);
            }
        };
        std::thread::Builder::new().name("watchdog".into()).spawn(watch).map(|_| ())
    }

    /// Returns how every loop is.
    pub fn status(&self) -> Vec<LoopStatus> {
        self.0.loops.lock().iter().map(|(name, watched)| watched.status(name.name())).collect()
    }

    /// Waits until a loop was given up.
    pub async fn failed(&self) -> LoopFailed {
        let mut failed = self.0.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|failed| failed.clone()) {
            Ok(Some(failed)) => failed,
            // The sender lives in this supervisor.
            _ => std::future::pending().await,
        }
    }

    /// Runs a loop once, in a task of its own so that a panic stays there. `Err` when
    /// it could not even be ended.
    async fn attend(
        &self,
        watched: &Arc<Watched>,
        body: impl Future<Output = ()> + Send + 'static,
    ) -> Result<End, End> {
        watched.begin();
        let mut task =
            AbortOnDropHandle::new(tokio::spawn(watched::scope(Arc::clone(watched), body).in_current_span()));
        let silence = tokio::select! {
            ended = &mut task => return Ok(match ended {
                Ok(()) => End::Ended(watched.ending()),
                Err(error) => {
                    error.try_into_panic().map_or(End::Ended(None), |panic| End::Panicked(panic_text(&*panic)))
                }
            }),
            silence = watched.overdue() => silence,
        };
        task.abort();
        match tokio::time::timeout(ABORT_PATIENCE, task).await {
            Ok(_) => Ok(End::Stuck(silence)),
            // It holds its thread, and perhaps locks: there can be no second one.
            Err(_) => Err(End::Stuck(silence)),
        }
    }

    fn watch(&self, name: Loop) -> WatchGuard<'_> {
        let watched = Arc::new(Watched::new(name.name(), self.0.faults.clone()));
        self.0.loops.lock().insert(name, Arc::clone(&watched));
        WatchGuard { supervisor: self, name, watched }
    }

    fn count(&self, name: Loop, end: &End) {
        self.0.metrics.loops.restarts.inc(&[name.name(), end.label()]);
    }

    fn give_up(&self, name: Loop, failures: u32, reason: String) -> LoopFailed {
        let failed = LoopFailed { name, failures, reason };
        tracing::error!(reason = %failed, "the process cannot go on");
        self.0.failed.send_if_modified(|known| known.is_none().then(|| *known = Some(failed.clone())).is_some());
        failed
    }
}

/// Takes a loop out of the list when it is not wanted any more.
struct WatchGuard<'a> {
    supervisor: &'a Supervisor,
    name: Loop,
    watched: Arc<Watched>,
}

impl std::ops::Deref for WatchGuard<'_> {
    type Target = Arc<Watched>;

    fn deref(&self) -> &Arc<Watched> {
        &self.watched
    }
}

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        let mut loops = self.supervisor.0.loops.lock();
        // The successor of a loop may have begun already.
        if loops.get(&self.name).is_some_and(|known| Arc::ptr_eq(known, &self.watched)) {
            loops.remove(&self.name);
        }
    }
}

fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_PAUSE)
}

/// Returns the words of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests;
