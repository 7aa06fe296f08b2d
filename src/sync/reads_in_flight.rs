//! The reads of this process whose rows are not stored yet.
//!
//! The site may have answered them before a write that was acknowledged since: what they
//! show is stored although it is older. Who asks the cached rows what a write has changed
//! waits for these reads first ([`ReadsInFlight::stored`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::entity::EntityType;
use crate::state::ReadToken;

/// Every read between its begin and the end of its write to the store.
#[derive(Clone, Default)]
pub(super) struct ReadsInFlight(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By version, of which no two reads have the same.
    types: Mutex<BTreeMap<i64, EntityType>>,
    ended: Notify,
}

impl ReadsInFlight {
    /// Notes a read that is about to be sent.
    pub fn begin(&self, token: ReadToken) -> ReadInFlight {
        self.0.types.lock().insert(token.rv, token.entity_type.clone());
        ReadInFlight { token, reads: self.clone() }
    }

    /// Returns when the reads of these types that have begun by now are stored, or failed.
    pub async fn stored(&self, types: &BTreeSet<EntityType>) {
        let concerned = |ty: &EntityType| types.contains(ty);
        let begun: BTreeSet<i64> =
            self.0.types.lock().iter().filter(|(_, ty)| concerned(ty)).map(|(version, _)| *version).collect();
        loop {
            // Before the look: an end between the two wakes it.
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !begun.iter().any(|version| self.0.types.lock().contains_key(version)) {
                return;
            }
            ended.await;
        }
    }
}

/// A read in flight, until it is dropped: hold it until the store has its rows.
pub(super) struct ReadInFlight {
    token: ReadToken,
    reads: ReadsInFlight,
}

impl Deref for ReadInFlight {
    type Target = ReadToken;

    fn deref(&self) -> &ReadToken {
        &self.token
    }
}

impl Drop for ReadInFlight {
    fn drop(&mut self) {
        self.reads.0.types.lock().remove(&self.token.rv);
        self.reads.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn token(entity_type: &str, rv: i64) -> ReadToken {
        ReadToken { entity_type: entity_type.into(), rv, generation: 0 }
    }

    #[tokio::test]
    async fn only_reads_that_began_before_are_waited_for() {
        let reads = ReadsInFlight::default();
        let shots = ["Shot".into()].into();
        let (first, _task) = (reads.begin(token("Shot", 1)), reads.begin(token("Task", 2)));
        let mut stored = Box::pin(reads.stored(&shots));
        assert!(stored.as_mut().now_or_never().is_none());
        let _later = reads.begin(token("Shot", 3));
        drop(first);
        stored.await;
        assert!(reads.stored(&shots).now_or_never().is_none(), "the later one began before this");
        assert!(reads.stored(&["Note".into()].into()).now_or_never().is_some());
    }
}
