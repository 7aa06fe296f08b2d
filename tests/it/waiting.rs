//! Waiting for what another process, task or thread does: a look, a pause, a look. A wait
//! without a pause takes the processor from what it waits for, and one without an end hides
//! which test it belongs to.

use std::panic::Location;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);
/// Far more than anything takes on the slowest machine.
const LONGEST: Duration = Duration::from_secs(300);

/// A wait that goes on.
pub struct Wait {
    since: Instant,
    place: &'static Location<'static>,
}

impl Wait {
    #[track_caller]
    pub fn begin() -> Self {
        Self { since: Instant::now(), place: Location::caller() }
    }

    /// Blocks for a pause; `seen` is what the last look has shown.
    pub fn pause(&self, seen: impl FnOnce() -> String) {
        self.check(seen);
        std::thread::sleep(PAUSE);
    }

    /// Waits for a pause; `seen` is what the last look has shown.
    pub async fn again(&self, seen: impl FnOnce() -> String) {
        self.check(seen);
        tokio::time::sleep(PAUSE).await;
    }

    fn check(&self, seen: impl FnOnce() -> String) {
        assert!(self.since.elapsed() < LONGEST, "in vain for {LONGEST:?} at {}: {}", self.place, seen());
    }
}

/// Blocks until it is so.
#[track_caller]
pub fn block_until(mut is_so: impl FnMut() -> bool) {
    let wait = Wait::begin();
    while !is_so() {
        wait.pause(|| "not yet".to_owned());
    }
}

/// Waits until it is so.
#[track_caller]
pub fn until(mut is_so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let wait = Wait::begin();
    async move {
        while !is_so().await {
            wait.again(|| "not yet".to_owned()).await;
        }
    }
}
