//! [`UnnotedWrite`]: a write on its way, until what it may have changed is pending.
//!
//! A task that sends a write may panic before it has noted what the site has answered. The
//! site may have made the write all the same, so anything may have changed then: every read
//! goes to the site until the event log, as far as it goes after the panic, is read.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::freshness::FreshnessTracker;
use super::pending_writes::PendingWrite;
use super::site_lag::WriteNumber;
use super::write_confirmation::{Touched, again_after_panics};
use super::write_effects::WriteEffects;

/// A write of which nothing is noted yet; dropped like that, it may have changed anything.
pub(super) struct UnnotedWrite(Option<Arc<FreshnessTracker>>);

impl UnnotedWrite {
    /// Begins before the write is sent.
    pub fn new(tracker: &Arc<FreshnessTracker>) -> Self {
        Self(Some(Arc::clone(tracker)))
    }

    /// Ends, once the write is pending or known not to be made.
    pub fn noted(mut self) {
        self.0 = None;
    }
}

impl Drop for UnnotedWrite {
    fn drop(&mut self) {
        let (Some(tracker), Ok(runtime)) = (self.0.take(), Handle::try_current()) else { return };
        tracing::error!("a write ended before it was noted: anything may have changed");
        let number = tracker.site_lag().send(&WriteEffects::anything());
        let write = Arc::new(PendingWrite::new(Vec::new(), true));
        tracker.insert(&write);
        let confirm = move || Arc::clone(&tracker).confirm_anything(Arc::clone(&write), number);
        runtime.spawn(again_after_panics(confirm));
    }
}

impl FreshnessTracker {
    async fn confirm_anything(self: Arc<Self>, write: Arc<PendingWrite>, number: WriteNumber) {
        let after = self.make_dirty(&[], true).await;
        let touched = Touched { keys: Vec::new(), types: self.every_type(), after, is_unlisted: true, number };
        self.confirm(write, touched).await;
    }
}
