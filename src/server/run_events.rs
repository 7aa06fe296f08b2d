//! [`RunEvents`]: hands runs, as they begin and end, to every open stream.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use super::status::RunSummary;

/// Streams at the same time.
pub(super) const MAX_STREAMS: usize = 32;
/// Runs that a slow reader may be behind.
const MAX_QUEUED_RUNS: usize = 64;

/// Takes runs as they begin and end, and hands them to every stream.
#[derive(Clone, Debug)]
pub struct RunEvents {
    runs: broadcast::Sender<RunSummary>,
    streams: Arc<Semaphore>,
}

impl Default for RunEvents {
    fn default() -> Self {
        Self { runs: broadcast::Sender::new(MAX_QUEUED_RUNS), streams: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

impl RunEvents {
    /// Hands out a run that has begun or ended.
    pub fn publish(&self, run: RunSummary) {
        // Without a reader there is nothing to do.
        let _ = self.runs.send(run);
    }

    /// Returns the runs from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<RunSummary> {
        self.runs.subscribe()
    }

    /// Returns the right to a stream, for as long as it is kept; `None` when too many are open.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
