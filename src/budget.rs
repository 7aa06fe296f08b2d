//! The request budget of the site, shared by priority.
//!
//! A site is shared with artists, so everything that sgcache asks of it goes
//! through one budget of requests in flight and requests per second. Waiting
//! requests are served by priority, and neither background work nor callers who wait
//! can take the last places: following the event log waits for no import, and not for
//! a farm that writes without end.

mod run_limits;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use run_limits::{PauseCheck, RunLimits, admit, inherit, scope};

/// Who is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Imports, scans and validation.
    Background,
    /// Following the event log, and repairs.
    Follow,
    /// A caller waits for the answer.
    Interactive,
}

/// The budget; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Mutex<State>>);

struct State {
    max_in_flight: usize,
    background: Share,
    interactive: Share,
    follow: Share,
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
    timer_set: bool,
    serial: u64,
    waiting: BinaryHeap<Waiter>,
}

/// The places that one priority may take and has taken.
struct Share {
    max: usize,
    in_flight: usize,
}

impl Share {
    fn of(max: usize) -> Self {
        Self { max: max.max(1), in_flight: 0 }
    }
}

struct Waiter {
    priority: Priority,
    serial: Reverse<u64>,
    go: oneshot::Sender<()>,
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.priority, self.serial).cmp(&(other.priority, other.serial))
    }
}

/// The right to have one request in flight, until dropped.
pub struct Permit {
    budget: Budget,
    priority: Priority,
    /// How long the request waited for it.
    pub waited: Duration,
}

impl Budget {
    /// Makes a budget of requests in flight and per second; a rate of
    /// zero or less is no limit.
    ///
    /// Background work gets all but two places, callers who wait all but one; each gets
    /// one at least.
    pub fn new(max_in_flight: usize, per_second: f64) -> Self {
        let max_in_flight = max_in_flight.max(1);
        let state = State {
            max_in_flight,
            background: Share::of(max_in_flight.saturating_sub(2)),
            interactive: Share::of(max_in_flight - 1),
            follow: Share::of(max_in_flight),
            per_second,
            tokens: per_second.max(1.0),
            filled_at: Instant::now(),
            timer_set: false,
            serial: 0,
            waiting: BinaryHeap::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a place.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let asked = Instant::now();
        let (go, gone) = oneshot::channel();
        {
            let mut state = self.state();
            state.serial += 1;
            let serial = Reverse(state.serial);
            state.waiting.push(Waiter { priority, serial, go });
        }
        // Made before the wait: when this future is dropped after its turn came,
        // dropping the guard gives the place back.
        let mut queued = QueuedTurn { budget: self.clone(), priority, gone: Some(gone) };
        self.serve();
        if let Some(gone) = &mut queued.gone {
            // The sender lives in the queue until it fires; the queue lives in us.
            let _ = gone.await;
        }
        queued.gone = None;
        Permit { budget: self.clone(), priority, waited: asked.elapsed() }
    }

    /// Returns the number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state holds only numbers: a panic elsewhere cannot leave it torn.
        self.0.lock()
    }

    fn serve(&self) {
        let mut state = self.state();
        state.refill();
        let mut deferred = Vec::new();
        while state.in_flight() < state.max_in_flight {
            let Some(waiter) = state.waiting.pop() else { break };
            if waiter.go.is_closed() {
                continue;
            }
            let share = state.share(waiter.priority);
            if share.in_flight >= share.max {
                deferred.push(waiter);
                continue;
            }
            if !state.take_token() {
                deferred.push(waiter);
                self.wake_when_refilled(&mut state);
                break;
            }
            if waiter.go.send(()).is_ok() {
                state.share(waiter.priority).in_flight += 1;
            }
        }
        state.waiting.extend(deferred);
    }

    fn wake_when_refilled(&self, state: &mut State) {
        if state.timer_set {
            return;
        }
        state.timer_set = true;
        let missing = Duration::from_secs_f64((1.0 - state.tokens).max(0.0) / state.per_second);
        let budget = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(missing).await;
            budget.state().timer_set = false;
            budget.serve();
        });
    }

    fn release(&self, priority: Priority) {
        {
            let mut state = self.state();
            let share = state.share(priority);
            share.in_flight = share.in_flight.saturating_sub(1);
        }
        self.serve();
    }
}

impl State {
    fn in_flight(&self) -> usize {
        self.background.in_flight + self.interactive.in_flight + self.follow.in_flight
    }

    fn share(&mut self, priority: Priority) -> &mut Share {
        match priority {
            Priority::Background => &mut self.background,
            Priority::Follow => &mut self.follow,
            Priority::Interactive => &mut self.interactive,
        }
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.filled_at).as_secs_f64() * self.per_second;
        self.filled_at = now;
        self.tokens = (self.tokens + earned).min(self.per_second.max(1.0));
    }

    fn take_token(&mut self) -> bool {
        if self.per_second <= 0.0 {
            return true;
        }
        let has = self.tokens >= 1.0 - 1e-9;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.release(self.priority);
    }
}

/// A place in the queue; gives back a turn that came but was not taken.
struct QueuedTurn {
    budget: Budget,
    priority: Priority,
    gone: Option<oneshot::Receiver<()>>,
}

impl Drop for QueuedTurn {
    fn drop(&mut self) {
        let Some(mut gone) = self.gone.take() else { return };
        gone.close();
        if gone.try_recv().is_ok() {
            self.budget.release(self.priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn background_work_leaves_places_for_following() {
        let budget = Budget::new(4, 0.0);
        let _first = budget.acquire(Priority::Background).await;
        let _second = budget.acquire(Priority::Background).await;
        assert!(budget.acquire(Priority::Background).now_or_never().is_none());
        let _poll = budget.acquire(Priority::Follow).await;
        assert_eq!(budget.in_flight(), 3);
    }

    #[tokio::test]
    async fn callers_who_wait_leave_a_place_for_following() {
        let budget = Budget::new(2, 0.0);
        let _caller = budget.acquire(Priority::Interactive).await;
        let mut next = Box::pin(budget.acquire(Priority::Interactive));
        assert!((&mut next).now_or_never().is_none());
        let poll = budget.acquire(Priority::Follow).now_or_never().expect("a place, although a caller waits");
        assert_eq!(budget.in_flight(), 2);
        drop(poll);
        assert!((&mut next).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_higher_priority_goes_first() {
        let budget = Budget::new(1, 0.0);
        let held = budget.acquire(Priority::Follow).await;
        let mut low = Box::pin(budget.acquire(Priority::Background));
        assert!((&mut low).now_or_never().is_none());
        let mut high = Box::pin(budget.acquire(Priority::Interactive));
        assert!((&mut high).now_or_never().is_none());
        drop(held);
        assert!((&mut low).now_or_never().is_none());
        drop(high.await);
        drop(low.await);
        assert_eq!(budget.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_no_place_taken() {
        let budget = Budget::new(1, 0.0);
        let held = budget.acquire(Priority::Follow).await;
        let mut waiting = Box::pin(budget.acquire(Priority::Follow));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        // Its turn has come, but it is not polled any more.
        drop(waiting);
        assert_eq!(budget.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let budget = Budget::new(10, 5.0);
        let start = Instant::now();
        for _ in 0..15 {
            budget.acquire(Priority::Follow).await;
        }
        // Five at once from the full bucket, ten more at five per second.
        assert!((1.9..2.2).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    }
}
