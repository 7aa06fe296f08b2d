//! Reads again what writes have changed, so that they become visible in the cache.
//!
//! Each write has a task of its own that ends it ([`PendingWrite::end`]). Order is
//! known by what follows what, never by time: the keys are dirty in the state before
//! the caller learns of the acknowledgement, and a dirty key becomes clean only by a
//! read that began afterwards. Where only the event log names what was changed, and while
//! the site shows rows that are behind its writes (`site_lag`), a poll with a higher number
//! than any that was started before has to be complete first, and what it named read with
//! proof.
//!
//! Reads of one type are shared: what is written while one is under way goes into the
//! next, so that any number of writes costs two requests per round trip and type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::freshness::{FreshnessTracker, LeaderPlace};
use super::pending_writes::PendingWrite;
use super::site_lag::WriteNumber;
use crate::entity::{EntityRef, EntityType, ids_by_type};
use crate::state::ReplicationStatus;
use crate::sync::{ClusterChannel, Replica};

/// Reads of one type side by side.
const READS_IN_FLIGHT: usize = 2;
/// Pauses after a read that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause between two looks at what the leader has taken over.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// What has to be read before a write is visible.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    /// The keys that are known.
    pub keys: Vec<EntityRef>,
    /// The cached types that it may have changed.
    pub types: BTreeSet<EntityType>,
    /// The number of the last poll that may have been sent before the write.
    pub after: i64,
    /// Whether the event log names further keys of these types.
    pub is_unlisted: bool,
    /// Its number.
    pub number: WriteNumber,
}

/// Reads keys again, several writes with one request.
pub(super) struct Refetcher {
    replica: Replica,
    queues: Mutex<BTreeMap<EntityType, Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    in_flight: usize,
}

/// A write that waits until its keys of one type are read.
struct Waiting {
    ids: BTreeSet<i64>,
    done: oneshot::Sender<()>,
    /// How long it pauses if some cannot be read yet.
    pause: Duration,
}

impl Refetcher {
    pub fn new(replica: Replica) -> Self {
        Self { replica, queues: Mutex::default() }
    }

    /// Returns when every key was read by a read that began after the call, however
    /// long the site is away.
    pub async fn read(self: &Arc<Self>, keys: impl IntoIterator<Item = EntityRef>) {
        let reads = ids_by_type(keys).into_iter().map(|(ty, ids)| self.read_type(ty, ids));
        futures::future::join_all(reads).await;
    }

    async fn read_type(self: &Arc<Self>, entity_type: EntityType, ids: BTreeSet<i64>) {
        while self.enqueue(&entity_type, &ids).await.is_err() {
            // The task that read them panicked: the keys are still dirty.
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    fn enqueue(self: &Arc<Self>, entity_type: &EntityType, ids: &BTreeSet<i64>) -> oneshot::Receiver<()> {
        let (done, read) = oneshot::channel();
        self.put(entity_type, Waiting { ids: ids.clone(), done, pause: FIRST_PAUSE });
        read
    }

    fn put(self: &Arc<Self>, entity_type: &EntityType, waiting: Waiting) {
        let mut queues = self.queues();
        let queue = queues.entry(entity_type.clone()).or_default();
        queue.waiting.push(waiting);
        if queue.in_flight < READS_IN_FLIGHT {
            queue.in_flight += 1;
            let slot = Slot { refetcher: Arc::clone(self), entity_type: entity_type.clone(), is_taken: true };
            tokio::spawn(slot.work());
        }
    }

    /// Has the rest of the keys read after a pause, without a slot: a row that the site
    /// does not show yet holds up no write of another.
    fn put_later(self: &Arc<Self>, entity_type: EntityType, waiting: Waiting) {
        let refetcher = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(waiting.pause).await;
            let pause = (waiting.pause * 2).min(LONGEST_PAUSE);
            refetcher.put(&entity_type, Waiting { pause, ..waiting });
        });
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<EntityType, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads keys and returns those that are to be read again.
    async fn refetch(&self, entity_type: &EntityType, ids: &BTreeSet<i64>) -> BTreeSet<i64> {
        let left = match self.replica.refetch_now(entity_type, &ids.iter().copied().collect::<Vec<_>>()).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%entity_type, %error, "what a write changed could not be read again yet");
                ids.clone()
            }
        };
        // Another process leads: what waits for the keys asks that one.
        if left.is_empty() || !self.replica.may_write() {
            return BTreeSet::new();
        }
        self.without_quarantined(entity_type, left).await
    }

    /// Leaves out what the cache does not vouch for anyway.
    async fn without_quarantined(&self, entity_type: &EntityType, mut ids: BTreeSet<i64>) -> BTreeSet<i64> {
        let Ok(status) = self.replica.state().replication_status().await else { return ids };
        match status.types.get(entity_type).filter(|_| self.replica.tracked().follows(entity_type)) {
            Some(known) => ids.retain(|id| !known.quarantined.contains(id)),
            None if self.replica.tracked().follows(entity_type) => ids.clear(),
            None => {}
        }
        ids
    }
}

/// One of the reads of a type; given back also when it panics.
struct Slot {
    refetcher: Arc<Refetcher>,
    entity_type: EntityType,
    is_taken: bool,
}

impl Slot {
    /// Takes what is to be read next, or gives the slot back. Both under one lock: keys
    /// that come between the two would wait for a read that does not begin.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut queues = self.refetcher.queues();
        let queue = queues.entry(self.entity_type.clone()).or_default();
        if queue.waiting.is_empty() {
            queue.in_flight = queue.in_flight.saturating_sub(1);
            self.is_taken = false;
            return None;
        }
        Some(std::mem::take(&mut queue.waiting))
    }

    async fn work(mut self) {
        while let Some(waiting) = self.next() {
            let ids = waiting.iter().flat_map(|waiting| &waiting.ids).copied().collect();
            let left = self.refetcher.refetch(&self.entity_type, &ids).await;
            for mut waiting in waiting {
                waiting.ids.retain(|id| left.contains(id));
                if waiting.ids.is_empty() {
                    // Fails where the task that waited is gone.
                    let _ = waiting.done.send(());
                } else {
                    self.refetcher.put_later(self.entity_type.clone(), waiting);
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(queue) = self.refetcher.queues().get_mut(&self.entity_type).filter(|_| self.is_taken) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
    }
}

impl FreshnessTracker {
    /// Ends a write, also where the task that does so panics: then another one does.
    pub(super) async fn confirm_surely(self: &Arc<Self>, write: &Arc<PendingWrite>, touched: Touched) {
        again_after_panics(|| Arc::clone(self).confirm(Arc::clone(write), touched.clone())).await;
    }

    /// Ends a write as soon as everything that it changed was read.
    pub(super) async fn confirm(self: Arc<Self>, write: Arc<PendingWrite>, touched: Touched) {
        if let LeaderPlace::Here(wake) = self.leader_place() {
            if touched.is_unlisted {
                wake();
            }
            self.refetcher().read(touched.keys.iter().cloned()).await;
            let (store, tracked) = (self.replica().store().as_ref(), self.replica().tracked());
            if self.site_lag().may_lag(touched.number, store, &tracked).await || touched.is_unlisted {
                wake();
                self.logged(&touched).await;
                self.site_lag().compare_again(touched.number, store, &tracked).await;
            }
        }
        // Also where the lease was lost on the way: the new leader reads the keys then.
        if let LeaderPlace::Elsewhere(channel) = self.leader_place() {
            self.confirm_elsewhere(&Arc::clone(channel), &touched).await;
        }
        self.site_lag().end(touched.number);
        self.end(&write);
    }

    /// Returns when everything that the event log says of a write is read, with proof that
    /// the rows are newer than its entries.
    async fn logged(&self, touched: &Touched) {
        let is_read = |status: &ReplicationStatus, ty: &EntityType| {
            // What is not served from the cache anyway is not waited for.
            let is_served = status.types.get(ty).is_some_and(|known| known.is_live() && !known.breaker);
            !is_served || status.read_through(ty) > touched.after
        };
        let leads = || self.replica().may_write();
        self.until(|_, status| {
            !leads() || status.complete_poll > touched.after && touched.types.iter().all(|ty| is_read(status, ty))
        })
        .await;
    }

    /// Hands the keys to the leader and waits until it has read them: a notice that it
    /// composed after it had taken them shows them as dirty until then.
    async fn confirm_elsewhere(&self, channel: &ClusterChannel, touched: &Touched) {
        let followed = self.followed(&touched.keys);
        let mut types: BTreeSet<EntityType> = followed.iter().map(|key| key.entity_type.clone()).collect();
        if !followed.is_empty() {
            self.forward_invalidations(channel, &followed).await;
        }
        if touched.is_unlisted {
            types.extend(touched.types.iter().cloned());
        }
        if types.is_empty() {
            return;
        }
        let version = self.published(channel).await;
        for ty in &types {
            self.until(|seen, status| seen > version && !status.unread.contains_key(ty)).await;
        }
        if touched.is_unlisted {
            let started = self.replication_status().polls_started;
            for ty in &types {
                self.until(|_, status| status.read_through(ty) > started).await;
            }
        }
    }

    async fn forward_invalidations(&self, channel: &ClusterChannel, keys: &[EntityRef]) {
        let id = loop {
            match channel.forward_invalidations(keys).await {
                Ok(id) => break id,
                Err(error) => tracing::warn!(%error, "the leader could not be told of a write, it stays pending"),
            }
            tokio::time::sleep(LONGEST_PAUSE).await;
        };
        loop {
            match channel.is_consumed(&id).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the leader could not be asked about a write"),
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    /// Returns the version of the newest notice: later ones were composed later.
    pub(super) async fn published(&self, channel: &ClusterChannel) -> i64 {
        loop {
            match channel.read().await {
                Ok(Some((version, _))) => return version,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "what the leader published could not be read"),
            }
            tokio::time::sleep(LEADER_PAUSE * 10).await;
        }
    }
}

/// Begins a task until it ends without a panic.
pub(super) async fn again_after_panics<F>(task: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(task()).await {
        // At the end of the process it is cancelled instead.
        if !error.is_panic() {
            return;
        }
        tracing::error!(%error, "the confirmation of a write panicked and begins again");
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again() {
        let begun = Arc::new(AtomicU32::new(0));
        let task = || {
            let begun = Arc::clone(&begun);
            async move { assert!(begun.fetch_add(1, Ordering::SeqCst) == 2, "not the third time") }
        };
        again_after_panics(task).await;
        assert_eq!(begun.load(Ordering::SeqCst), 3);
    }
}
