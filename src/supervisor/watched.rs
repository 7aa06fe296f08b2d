//! What is known of one loop: its state and until when it has to beat again.
//!
//! Deadlines are monotonic, so a jump of the clock neither hides a loop that hangs nor
//! invents one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::Instrument;

use super::fault::Faults;

/// After so long without a sign of life the process is ended from outside of the runtime.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// How soon after its start a loop has to beat for the first time.
const FIRST_BEAT: Duration = Duration::from_secs(60);
/// How often deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after its deadline a loop counts as late only: after a process stood still
/// as a whole, every loop is late for a moment.
const GRACE: Duration = Duration::from_secs(2);

tokio::task_local! {
    static CURRENT: Arc<Watched>;
}

/// Beats for the loop of this task: it works, and will beat again within `bound`.
/// `Duration::MAX` is no bound. Outside of a loop nothing happens.
pub async fn beat(bound: Duration) {
    let Ok(watched) = CURRENT.try_with(Arc::clone) else { return };
    watched.beat(bound);
    watched.faults.meet(watched.name, |bound| watched.beat(bound)).await;
}

/// Announces that something may take up to `bound` from now and is not stuck. Outside of a loop
/// nothing happens.
pub fn working(bound: Duration) {
    // Not in a loop: there is no watchdog.
    let _ = CURRENT.try_with(|watched| watched.extend(bound));
}

/// Says why the loop of this task is about to end by itself: its supervisor shows that as
/// the failure. Outside of a loop nothing happens.
pub fn ending(reason: impl Into<String>) {
    // Not in a loop: there is no supervisor.
    let _ = CURRENT.try_with(|watched| watched.known.lock().ending = Some(reason.into()));
}

/// Makes the beats of a task that a loop spawns those of the loop, and its log lines those
/// of the same run.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let work = work.in_current_span();
    let current = CURRENT.try_with(Arc::clone).ok();
    async move {
        match current {
            Some(watched) => CURRENT.scope(watched, work).await,
            None => work.await,
        }
    }
}

/// Runs a future as the body of a loop.
pub(super) async fn scope(watched: Arc<Watched>, body: impl Future<Output = ()>) {
    CURRENT.scope(watched, body).await;
}

/// Whether a loop runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoopState {
    /// It runs.
    #[default]
    Running,
    /// It failed and is about to be started again.
    Restarting,
    /// It has not beaten within its bound.
    Stuck,
}

/// How a loop is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoopStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub state: LoopState,
    /// Seconds since its last beat.
    pub beat_age_seconds: f64,
    /// How often it was started again.
    pub restarts: u32,
    /// Why, the last time; `None` when it never failed.
    pub last_failure: Option<String>,
}

/// One loop, as its supervisor sees it.
pub(super) struct Watched {
    pub name: &'static str,
    faults: Faults,
    known: Mutex<Known>,
}

struct Known {
    beaten: Instant,
    /// `None` while there is no bound.
    deadline: Option<Instant>,
    is_restarting: bool,
    restarts: u32,
    last_failure: Option<String>,
    /// Why it is about to end by itself, where it said so.
    ending: Option<String>,
}

impl Watched {
    pub fn new(name: &'static str, faults: Faults) -> Self {
        let (deadline, last_failure, ending) = (None, None, None);
        let known = Known { beaten: Instant::now(), deadline, is_restarting: false, restarts: 0, last_failure, ending };
        Self { name, faults, known: Mutex::new(known) }
    }

    /// Takes note of a start.
    pub fn begin(&self) {
        let mut known = self.known.lock();
        (known.is_restarting, known.ending) = (false, None);
        drop(known);
        self.beat(FIRST_BEAT);
    }

    /// Returns why it has ended by itself, where it said so.
    pub fn ending(&self) -> Option<String> {
        self.known.lock().ending.clone()
    }

    /// Takes note of a failure after which it is started again.
    pub fn restarting(&self, reason: String) {
        let mut known = self.known.lock();
        known.is_restarting = true;
        known.restarts += 1;
        known.last_failure = Some(reason);
    }

    pub fn beat(&self, bound: Duration) {
        let mut known = self.known.lock();
        known.beaten = Instant::now();
        known.deadline = known.beaten.checked_add(bound);
    }

    fn extend(&self, bound: Duration) {
        let mut known = self.known.lock();
        let until = Instant::now().checked_add(bound);
        known.deadline = match (known.deadline, until) {
            (Some(deadline), Some(until)) => Some(deadline.max(until)),
            _ => None,
        };
    }

    /// Waits until the loop is late for good; returns how long it has been silent.
    pub async fn overdue(&self) -> Duration {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let known = self.known.lock();
            if known.deadline.is_some_and(|deadline| deadline.elapsed() >= GRACE) {
                return known.beaten.elapsed();
            }
        }
    }

    /// Returns words about a loop that should have been ended and started again long ago.
    pub fn words_when_lost(&self) -> Option<String> {
        let known = self.known.lock();
        let late = known.deadline.filter(|_| !known.is_restarting)?.elapsed();
        (late >= LOST_AFTER).then(|| {
            let silence = known.beaten.elapsed().as_secs();
            format!("the {} loop gave no sign of life for {silence} s and cannot be ended", self.name)
        })
    }

    pub fn status(&self, name: &str) -> LoopStatus {
        let known = self.known.lock();
        let state = match known.deadline {
            _ if known.is_restarting => LoopState::Restarting,
            Some(deadline) if !deadline.elapsed().is_zero() => LoopState::Stuck,
            _ => LoopState::Running,
        };
        LoopStatus {
            name: name.to_owned(),
            state,
            beat_age_seconds: known.beaten.elapsed().as_secs_f64(),
            restarts: known.restarts,
            last_failure: known.last_failure.clone(),
        }
    }
}
