//! [`RunLimits`]: what one run may ask of the site, within the budget of all.
//!
//! A run that has used up its requests gets no error: its next request never starts, and
//! the code that runs it, which waits for [`RunLimits::exhausted`], ends it with what it
//! has found. The limits belong to the task of the run ([`scope`]); a task that it spawns
//! takes them over by [`inherit`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A pause is looked at again after this time: the clock of the machine may be set.
const PAUSE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

tokio::task_local! {
    static CURRENT: Arc<RunLimits>;
}

/// Returns how long the run has to wait from now on; `None` when it may go on.
pub type PauseCheck = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// The limits of one run.
pub struct RunLimits {
    max_requests: Option<u64>,
    /// The time between the starts of two requests.
    interval: Option<Duration>,
    pause: PauseCheck,
    requests: AtomicU64,
    next_start: Mutex<Option<Instant>>,
    is_paused: AtomicBool,
    exhausted: CancellationToken,
}

impl RunLimits {
    /// Returns limits on the number of requests and on those per second; `pause` is asked
    /// before each request.
    pub fn new(max_requests: Option<u64>, max_rps: Option<f64>, pause: PauseCheck) -> Arc<RunLimits> {
        let interval = max_rps.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64(1.0 / rate));
        Arc::new(RunLimits {
            max_requests,
            interval,
            pause,
            requests: AtomicU64::new(0),
            next_start: Mutex::default(),
            is_paused: AtomicBool::new(false),
            exhausted: CancellationToken::new(),
        })
    }

    /// Waits until the run has used up its requests and needs one more.
    pub async fn exhausted(&self) {
        self.exhausted.cancelled().await;
    }

    /// Returns the number of requests that are used up; `None` while there are some left.
    pub fn exhausted_at(&self) -> Option<u64> {
        self.max_requests.filter(|_| self.exhausted.is_cancelled())
    }

    async fn admit(&self) {
        self.wait_for_pause().await;
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        if self.max_requests.is_some_and(|most| before >= most) {
            self.exhausted.cancel();
            std::future::pending::<()>().await;
        }
        if let Some(start) = self.take_start() {
            tokio::time::sleep_until(start).await;
        }
    }

    async fn wait_for_pause(&self) {
        while let Some(pause) = (self.pause)() {
            if !self.is_paused.swap(true, Ordering::Relaxed) {
                tracing::info!(?pause, "the requests of the run wait");
            }
            tokio::time::sleep(pause.min(PAUSE_CHECK_INTERVAL)).await;
        }
        if self.is_paused.swap(false, Ordering::Relaxed) {
            tracing::info!("the requests of the run go on");
        }
    }

    /// Takes the next start of a request.
    fn take_start(&self) -> Option<Instant> {
        let interval = self.interval?;
        let mut next = self.next_start.lock();
        let start = next.unwrap_or_else(Instant::now).max(Instant::now());
        *next = Some(start + interval);
        Some(start)
    }
}

/// Waits until the run of this task may send a request; outside of a run not at all.
pub async fn admit() {
    if let Ok(limits) = CURRENT.try_with(Arc::clone) {
        limits.admit().await;
    }
}

/// Runs work under the limits of a run.
pub async fn scope<F: Future>(limits: Arc<RunLimits>, work: F) -> F::Output {
    CURRENT.scope(limits, work).await
}

/// Gives a task that a run spawns the limits of the run.
pub fn inherit<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Arc::clone).ok();
    async move {
        match current {
            Some(limits) => scope(limits, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn without_pause() -> PauseCheck {
        Box::new(|| None)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance_also_those_of_spawned_tasks() {
        let limits = RunLimits::new(None, Some(4.0), without_pause());
        let began = Instant::now();
        let work = async {
            admit().await;
            tokio::spawn(inherit(admit())).await.expect("it ends");
            admit().await;
        };
        scope(limits, work).await;
        assert_eq!(began.elapsed(), Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_after_the_last_one_never_starts_and_is_noticed() {
        let limits = RunLimits::new(Some(2), None, without_pause());
        scope(Arc::clone(&limits), async { (admit().await, admit().await) }).await;
        assert!(limits.exhausted().now_or_never().is_none(), "two are allowed, and nothing else was needed");
        let third = tokio::time::timeout(Duration::from_secs(3600), scope(Arc::clone(&limits), admit()));
        assert!(third.await.is_err());
        assert_eq!(limits.exhausted_at(), Some(2));
        // What is not part of the run is not held up.
        admit().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_requests_until_it_is_over() {
        let end = Instant::now() + Duration::from_secs(95);
        let pause = move || end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        let limits = RunLimits::new(None, None, Box::new(pause));
        scope(limits, admit()).await;
        assert_eq!(Instant::now(), end);
    }
}
