//! What the proxy knows from moment to moment: how fresh the cache is, and which
//! writes went through that are not read again yet.
//!
//! The standing is read from the state off the threads that serve, a few times a
//! second, and every few milliseconds while somebody waits for it to move on; on a
//! host beside the leader's it is read from the board. An old one is harmless: it
//! makes the cache look older than it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, PendingWrites, stored};
use super::settings::Settings;
use super::write_effects::WriteEffects;
use crate::entity::EntityRef;
use crate::schema::Schema;
use crate::state::{Kinds, MarkRequest, ReplicationStatus, SiteTime, StateError};
use crate::store;
use crate::sync::{Board, Replica, Tracked};

/// How often the standing is read while nobody waits.
const CALM: Duration = Duration::from_millis(200);
/// How often it is read while somebody waits.
const BUSY: Duration = Duration::from_millis(5);
/// The same where the leader is another process: it writes no more often.
const BOARD_CALM: Duration = Duration::from_millis(1000);
const BOARD_BUSY: Duration = Duration::from_millis(50);
/// How often the schema is read, besides after an event about it.
const SCHEMA_EVERY: Duration = Duration::from_secs(600);

/// Makes the loop that follows the site poll and read at once.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who says how fresh the rows are, and reads keys again that a write touched.
pub enum Leader {
    /// This process: the state knows, and the loop that follows the site can be poked.
    Here(Wake),
    /// Another one, over the same cluster.
    Elsewhere(Arc<Board>),
}

/// What the proxy knows from moment to moment.
pub(super) struct FreshnessTracker {
    replica: Replica,
    settings: Arc<Settings>,
    leader: Leader,
    /// Writes whose keys the leader has not taken yet.
    handed: tokio::sync::Mutex<Vec<Handed>>,
    standing: watch::Sender<Arc<ReplicationStatus>>,
    schema: Mutex<Arc<Schema>>,
    stored: Mutex<(Arc<Tracked>, Arc<store::Catalogue>)>,
    pending_writes: Mutex<PendingWrites>,
    writes: AtomicU64,
    waiting: AtomicUsize,
    hurry: Notify,
}

/// A write on its way to the leader.
#[derive(Clone)]
struct Handed {
    /// The number of the write.
    write: u64,
    effects: WriteEffects,
    /// The document that tells the leader; `None` until it is written.
    id: Option<String>,
}

/// Nothing is ever read again as late as this.
const FOR_EVER: SiteTime = SiteTime(i64::MAX);
/// About so many writes the leader is asked each time; without a leader there may be many.
const ASKED_AT_ONCE: usize = 100;
/// How far the clock of the leader may be ahead of ours. Both are behind the site's,
/// by a second, the resolution of its answers, and half a round trip.
const SKEW: Duration = Duration::from_secs(2);

impl FreshnessTracker {
    /// Reads the standing for the first time.
    ///
    /// What a write before this start changed is read again once a poll that began
    /// afterwards is complete; until then everything is pending.
    pub async fn new(
        replica: Replica,
        schema: Schema,
        settings: Arc<Settings>,
        leader: Leader,
    ) -> Result<Self, StateError> {
        let (standing, all) = match &leader {
            Leader::Here(_) => {
                let standing = replica.state().replication_status().await?;
                let complete = standing.complete_as_of;
                (standing, complete)
            }
            // Until the leader was heard, not even the time of the site is known.
            Leader::Elsewhere(_) => (ReplicationStatus::default(), Some(FOR_EVER)),
        };
        let pending_writes = PendingWrites { all, ..PendingWrites::default() };
        let tracked = replica.tracked();
        let catalogue = Arc::new(stored(tracked.layouts().map(|layout| &**layout)));
        Ok(Self {
            settings,
            leader,
            handed: tokio::sync::Mutex::default(),
            standing: watch::Sender::new(Arc::new(standing)),
            schema: Mutex::new(Arc::new(schema)),
            stored: Mutex::new((tracked, catalogue)),
            pending_writes: Mutex::new(pending_writes),
            writes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            hurry: Notify::new(),
            replica,
        })
    }

    /// Returns the site, the store and the state.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Returns how many writes went through: reads that began under different
    /// numbers may have different answers.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Returns the writes that are not read again yet, as of now.
    pub async fn pending_writes(&self) -> PendingWrites {
        // In this order: what leaves the one is in the other before.
        let waiting = self.handed.lock().await;
        let mut pending_writes = lock(&self.pending_writes).clone();
        for handed in waiting.iter() {
            let WriteEffects { rows, names, all, .. } = &handed.effects;
            pending_writes.rows.extend(rows.iter().map(|ty| (ty.clone(), FOR_EVER)));
            pending_writes.names.extend(names.iter().map(|ty| (ty.clone(), FOR_EVER)));
            pending_writes.all = if *all { Some(FOR_EVER) } else { pending_writes.all };
        }
        pending_writes
    }

    /// Returns what is known of every type.
    pub fn replication_status(&self) -> Arc<ReplicationStatus> {
        self.standing.borrow().clone()
    }

    /// Returns everything that a decision depends on.
    pub fn catalogue(&self, pending_writes: PendingWrites, max_page: u32, site_is_down: bool) -> Catalogue {
        Catalogue {
            schema: lock(&self.schema).clone(),
            stored: self.stored(),
            standing: self.standing.borrow().clone(),
            pending_writes,
            now: self.replica.now(),
            settings: Arc::clone(&self.settings),
            max_page,
            site_is_down,
        }
    }

    fn stored(&self) -> Arc<store::Catalogue> {
        let tracked = self.replica.tracked();
        let mut known = lock(&self.stored);
        if !Arc::ptr_eq(&known.0, &tracked) {
            let catalogue = Arc::new(stored(tracked.layouts().map(|layout| &**layout)));
            *known = (tracked, catalogue);
        }
        Arc::clone(&known.1)
    }

    /// Begins to watch the standing.
    pub fn watch(&self) -> Watch<'_> {
        Watch { freshness: self, standing: self.standing.subscribe() }
    }

    /// Takes note of a write that the site has acknowledged, or may have made.
    ///
    /// When this returns, no read that begins later is answered from rows that may
    /// lack the write.
    pub async fn acknowledge(&self, effects: &WriteEffects) {
        match &self.leader {
            Leader::Here(poke) => {
                self.hold(effects, self.replica.now());
                self.writes.fetch_add(1, Ordering::SeqCst);
                self.mark(effects).await;
                poke();
            }
            Leader::Elsewhere(board) => {
                self.hold(effects, self.replica.now().after(SKEW));
                let write = self.writes.fetch_add(1, Ordering::SeqCst);
                self.hand_over(board, Handed { write, effects: effects.clone(), id: None }).await;
            }
        }
    }

    /// Holds what a write may have changed until it is read as of a later moment.
    fn hold(&self, effects: &WriteEffects, until: SiteTime) {
        let mut pending_writes = lock(&self.pending_writes);
        for ty in &effects.rows {
            let at = pending_writes.rows.entry(ty.clone()).or_insert(until);
            *at = until.max(*at);
        }
        for ty in &effects.names {
            let at = pending_writes.names.entry(ty.clone()).or_insert(until);
            *at = until.max(*at);
        }
        if effects.all {
            pending_writes.all = pending_writes.all.max(Some(until));
        }
    }

    /// Returns the keys of a write that are followed.
    fn followed(&self, effects: &WriteEffects) -> Vec<EntityRef> {
        let tracked = self.replica.tracked();
        effects.keys.iter().filter(|key| tracked.follows(&key.entity_type)).cloned().collect()
    }

    /// Tells the leader of a write; what it may have changed is pending until the
    /// leader has marked its keys, and then until they are read again.
    async fn hand_over(&self, board: &Board, handed: Handed) {
        if !self.followed(&handed.effects).is_empty() {
            self.handed.lock().await.push(handed.clone());
            self.tell(board, handed).await;
        }
    }

    async fn tell(&self, board: &Board, told: Handed) {
        match board.hand_over(&self.followed(&told.effects)).await {
            Ok(id) => {
                let mut handed = self.handed.lock().await;
                handed.iter_mut().filter(|one| one.write == told.write).for_each(|one| one.id = Some(id.clone()));
            }
            Err(error) => tracing::warn!(%error, "the leader could not be told of a write, its effects stay pending"),
        }
    }

    /// Looks which writes the leader has taken over since it wrote `standing`.
    async fn settle(&self, board: &Board, standing: &ReplicationStatus) {
        let waiting = self.handed.lock().await.clone();
        for told in waiting.into_iter().take(ASKED_AT_ONCE) {
            let Some(id) = &told.id else {
                self.tell(board, told).await;
                continue;
            };
            match board.is_taken(id).await {
                Ok(true) => {
                    // Only a later standing knows the marks, and one without them has read the keys.
                    let until = self.replica.now().after(SKEW).max(standing.complete_as_of.unwrap_or_default());
                    self.hold(&told.effects, until);
                    self.handed.lock().await.retain(|one| one.write != told.write);
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the leader could not be asked about a write"),
            }
        }
    }

    async fn mark(&self, effects: &WriteEffects) {
        let marks: Vec<_> = self.followed(effects).into_iter().map(|key| MarkRequest::new(key, Kinds::WRITE)).collect();
        if marks.is_empty() {
            return;
        }
        // The hold stays all the same: an event about the write ends it.
        if let Err(error) = self.replica.state().mark(&marks, self.replica.now()).await {
            tracing::error!(%error, "the keys of a write could not be marked");
        }
    }

    /// Keeps the standing and the schema up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let (mut schema_read, mut due) = (Instant::now(), false);
        while !stop.is_cancelled() {
            self.refresh().await;
            let standing = self.standing.borrow().clone();
            // An event about the schema is followed by a read of it; then it is new.
            let changed = due && !standing.schema_due;
            due = standing.schema_due;
            if changed || schema_read.elapsed() > SCHEMA_EVERY {
                self.read_schema().await;
                schema_read = Instant::now();
            }
            let (busy, calm) = match &self.leader {
                Leader::Here(_) => (BUSY, CALM),
                Leader::Elsewhere(_) => (BOARD_BUSY, BOARD_CALM),
            };
            let pause = if self.waiting.load(Ordering::SeqCst) > 0 { busy } else { calm };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified(), if pause == calm => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn refresh(&self) {
        if let Leader::Elsewhere(board) = &self.leader {
            return self.look(board).await;
        }
        match self.replica.state().replication_status().await {
            Ok(standing) => self.show(standing),
            Err(error) => tracing::warn!(%error, "the standing of the cache could not be read"),
        }
    }

    /// Reads what the leader wrote. What cannot be read grows old, and is then not
    /// served any more.
    async fn look(&self, board: &Board) {
        match board.read().await {
            Ok(Some(notice)) => {
                // It was written a moment ago, so the site has passed this moment.
                self.replica.clock().observe(Some(notice.now.timestamp()));
                self.begin();
                self.settle(board, &notice.standing).await;
                self.show(notice.standing);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "what the leader wrote could not be read"),
        }
    }

    /// Holds writes before this start no longer than until they are read.
    fn begin(&self) {
        let now = self.replica.now();
        let mut pending_writes = lock(&self.pending_writes);
        if pending_writes.all == Some(FOR_EVER) {
            pending_writes.all = Some(now.after(SKEW));
        }
    }

    fn show(&self, standing: ReplicationStatus) {
        self.standing.send_if_modified(|known| {
            let changed = **known != standing;
            *known = Arc::new(standing);
            changed
        });
    }

    async fn read_schema(&self) {
        match self.replica.client().schema().await {
            Ok(schema) => *lock(&self.schema) = Arc::new(schema),
            Err(error) => tracing::warn!(%error, "the schema could not be read again"),
        }
    }

    /// Returns the schema; a new one is another allocation.
    pub fn schema(&self) -> Arc<Schema> {
        lock(&self.schema).clone()
    }
}

/// Watches the standing: what was seen is not waited for again.
pub(super) struct Watch<'a> {
    freshness: &'a FreshnessTracker,
    standing: watch::Receiver<Arc<ReplicationStatus>>,
}

impl Watch<'_> {
    /// Returns the standing of now.
    pub fn see(&mut self) -> Arc<ReplicationStatus> {
        self.standing.borrow_and_update().clone()
    }

    /// Waits until the standing is another one than was seen, at most until the
    /// deadline; tells whether it is.
    pub async fn changed(&mut self, deadline: Instant) -> bool {
        let _waiting = Waiting::new(&self.freshness.waiting);
        self.freshness.hurry.notify_one();
        matches!(tokio::time::timeout_at(deadline, self.standing.changed()).await, Ok(Ok(())))
    }
}

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What these locks guard is replaced whole, so a panic elsewhere cannot tear it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
