//! What decisions of the proxy depend on and what changes by itself: how far the cache
//! follows the site, the schema, and which writes are pending.
//!
//! The replication status is read from the state off the threads that serve, a few
//! times a second, and every few milliseconds while a task waits for it to move on; on
//! a host beside the leader's it is read from the cluster. An old one is harmless: it
//! makes the cache look older than it is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, stored};
use super::effect_lookup::EffectLookup;
use super::ledger_feed;
use super::pending_writes::{PendingWrite, PendingWrites};
use super::settings::Settings;
use super::site_lag::{SiteLag, WriteNumber};
use super::write_confirmation::{Refetcher, Touched, again_after_panics};
use super::write_effects::{Effect, Fields, Ids, WriteEffects};
use super::written_values::WrittenValues;
use crate::entity::{EntityRef, EntityType};
use crate::report::ledger::Recorder;
use crate::schema::Schema;
use crate::state::{DirtyReasons, NewDirtyKey, ReplicationStatus, StateError};
use crate::store;
use crate::supervisor::beat;
use crate::sync::{ClusterChannel, Replica, Tracked};

/// How often the status is read while no task waits for it, and while one does.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);
const BUSY_INTERVAL: Duration = Duration::from_millis(5);
/// The same where the leader is another process: it writes no more often.
const CLUSTER_IDLE_INTERVAL: Duration = Duration::from_millis(1000);
const CLUSTER_BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// How often the schema is read, besides after an event about it.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(600);
/// The acknowledgement of further writes waits until some of these are visible.
const MAX_PENDING_WRITES: usize = 1_000;
/// One that remembers more than this counts as several.
const BYTES_PER_PENDING_WRITE: usize = 64 << 10;
/// ... but not longer than this.
const LONGEST_BACKPRESSURE: Duration = Duration::from_secs(30);
/// More keys of writes than this are not taken over from before a restart one by one.
const MAX_RESTORED_KEYS: usize = 10_000;
/// The name in the state of the last poll before a write whose keys only the event log
/// names.
const UNLISTED: &str = "proxy/unlisted_write";
/// How long a round may take, besides the waits for the site and the cluster.
const ROUND_BOUND: Duration = Duration::from_secs(120);

/// Makes the loop that follows the site poll and read at once.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who says how fresh the rows are, and reads keys again that a write touched.
pub enum Leader {
    /// This process: the state knows, and the loop that follows the site can be woken.
    Here(Wake),
    /// Another one, over the same cluster.
    Elsewhere(Arc<ClusterChannel>),
    /// This process while it holds the lease of the cluster, else another one.
    Leased(Wake, Arc<ClusterChannel>),
}

/// Where the leader is now.
pub(super) enum LeaderPlace<'a> {
    /// In this process.
    Here(&'a Wake),
    /// In another one.
    Elsewhere(&'a Arc<ClusterChannel>),
}

/// What decisions depend on and what changes by itself.
pub(super) struct FreshnessTracker {
    replica: Replica,
    settings: Arc<Settings>,
    leader: Leader,
    ledger: Arc<Recorder>,
    refetcher: Arc<Refetcher>,
    site_lag: SiteLag,
    /// With the version of the leader's notice, or of the newest read where this process
    /// leads in turn with others; zero where it alone leads.
    status: watch::Sender<(i64, Arc<ReplicationStatus>)>,
    /// With the number of noticed changes that it holds, where that is known.
    schema: Mutex<(Arc<Schema>, Option<i64>)>,
    /// Whether a request needs a schema that holds every noticed change.
    schema_wanted: AtomicBool,
    stored: Mutex<(Arc<Tracked>, Arc<store::Catalogue>)>,
    pending: Mutex<PendingWrites>,
    /// Counts the writes that have become visible.
    visible: watch::Sender<u64>,
    room: Arc<Semaphore>,
    writes: AtomicU64,
    waiting: AtomicUsize,
    refresh_now: Notify,
}

impl FreshnessTracker {
    /// Reads the replication status for the first time.
    pub async fn new(
        replica: Replica,
        schema: Schema,
        settings: Arc<Settings>,
        leader: Leader,
        ledger: Arc<Recorder>,
    ) -> Result<Self, StateError> {
        let status = match &leader {
            Leader::Here(_) => replica.state().replication_status().await?,
            // Until a notice of the leader was read, or the lease was taken, nothing is known.
            Leader::Elsewhere(_) | Leader::Leased(..) => ReplicationStatus::default(),
        };
        let tracked = replica.tracked();
        let catalogue = Arc::new(stored(tracked.layouts().map(|layout| &**layout)));
        Ok(Self {
            settings,
            leader,
            ledger,
            refetcher: Arc::new(Refetcher::new(replica.clone())),
            site_lag: SiteLag::default(),
            status: watch::Sender::new((0, Arc::new(status))),
            // It was read before the status here.
            schema: Mutex::new((Arc::new(schema), None)),
            schema_wanted: AtomicBool::new(false),
            stored: Mutex::new((tracked, catalogue)),
            pending: Mutex::default(),
            visible: watch::Sender::new(0),
            room: Arc::new(Semaphore::new(MAX_PENDING_WRITES)),
            writes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            refresh_now: Notify::new(),
            replica,
        })
    }

    /// Takes over the writes that were pending when the process ended: their keys are
    /// dirty in the state. Where there were none, nothing is pending.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn restore(self: &Arc<Self>) -> Result<(), StateError> {
        if let Leader::Elsewhere(_) = &self.leader {
            self.restore_elsewhere();
            return Ok(());
        }
        let state = self.replica.state();
        let keys = state.dirty_by_writes(MAX_RESTORED_KEYS).await?;
        let status = self.replication_status();
        let unlisted = state.kept::<i64>(UNLISTED).await?.filter(|after| status.complete_poll <= *after);
        let everything = unlisted.is_some() || keys.len() == MAX_RESTORED_KEYS;
        if keys.is_empty() && !everything {
            return Ok(());
        }
        let all = |key: &EntityRef| Effect {
            entity_type: key.entity_type.clone(),
            ids: Ids::Only([key.id].into()),
            fields: Fields::All,
            values: WrittenValues::default(),
            lifecycle: true,
        };
        let effects = if everything { Vec::new() } else { keys.iter().map(all).collect() };
        let after = unlisted.unwrap_or(status.polls_started);
        let types = match everything {
            true => self.every_type(),
            false => keys.iter().map(|key| key.entity_type.clone()).collect(),
        };
        let touched = Touched {
            keys,
            types,
            after,
            is_unlisted: everything,
            number: self.site_lag.send(&WriteEffects::default()),
        };
        self.add(PendingWrite::new(effects, everything), touched);
        Ok(())
    }

    /// What was handed to the leader before this process started is in its notices,
    /// two after the newest one at the latest.
    fn restore_elsewhere(self: &Arc<Self>) {
        for ty in self.every_type() {
            let (entity_type, values) = (ty.clone(), WrittenValues::default());
            let effect = Effect { entity_type, ids: Ids::All, fields: Fields::All, values, lifecycle: true };
            let write = Arc::new(PendingWrite::new(vec![effect], false));
            self.insert(&write);
            let tracker = Arc::clone(self);
            let end = move || Arc::clone(&tracker).end_elsewhere(Arc::clone(&write), ty.clone());
            tokio::spawn(again_after_panics(end));
        }
    }

    async fn end_elsewhere(self: Arc<Self>, write: Arc<PendingWrite>, ty: EntityType) {
        let Leader::Elsewhere(channel) = &self.leader else { return };
        let first = self.published(channel).await;
        self.until(|seen, _| seen > first).await;
        let second = first.max(self.status.borrow().0);
        self.until(|seen, status| seen > second && !status.unread.contains_key(&ty)).await;
        self.end(&write);
    }

    /// Returns the site, the store and the state.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Returns where the leader is now; with a lease that may change at any moment.
    pub(super) fn leader_place(&self) -> LeaderPlace<'_> {
        match &self.leader {
            Leader::Here(wake) => LeaderPlace::Here(wake),
            Leader::Leased(wake, _) if self.replica.may_write() => LeaderPlace::Here(wake),
            Leader::Elsewhere(channel) | Leader::Leased(_, channel) => LeaderPlace::Elsewhere(channel),
        }
    }

    pub(super) fn refetcher(&self) -> &Arc<Refetcher> {
        &self.refetcher
    }

    pub(super) fn site_lag(&self) -> &SiteLag {
        &self.site_lag
    }

    /// Makes the loop that follows the site go on at once after an outage.
    pub fn site_is_back(&self) {
        if let LeaderPlace::Here(wake) = self.leader_place() {
            wake();
        }
    }

    /// Returns how many writes went through: reads that began under different
    /// numbers may have different answers.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Returns the writes that are acknowledged and not visible in the cache yet.
    pub fn pending_writes(&self) -> PendingWrites {
        lock(&self.pending).clone()
    }

    /// Returns what is known of every type.
    pub fn replication_status(&self) -> Arc<ReplicationStatus> {
        Arc::clone(&self.status.borrow().1)
    }

    /// Returns everything that a decision depends on.
    pub fn catalogue(&self, pending_writes: PendingWrites, max_page: u32, site_is_down: bool) -> Catalogue {
        let standing = self.replication_status();
        let (schema, changes) = lock(&self.schema).clone();
        Catalogue {
            schema,
            schema_is_current: changes == Some(standing.schema_changes),
            stored: self.stored(),
            standing,
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

    /// Begins to watch the status and the pending writes.
    pub fn watch(&self) -> Watch<'_> {
        Watch { freshness: self, status: self.status.subscribe(), visible: self.visible.subscribe() }
    }

    /// Asks the cached rows what a write changes besides what it names.
    pub async fn look_up(&self, effects: &mut WriteEffects) {
        if effects.lookups.is_empty() {
            return;
        }
        let catalogue = self.catalogue(PendingWrites::default(), 0, false);
        let (store, state) = (self.replica.store().as_ref(), self.replica.state());
        let (pending, may_lag) = (self.pending_writes(), self.site_lag.is_suspected());
        EffectLookup { store, state, catalogue: &catalogue, pending, may_lag }.resolve(effects).await;
    }

    /// Takes note of a write that the site has acknowledged, or may have made.
    ///
    /// When this returns, no read that begins later is answered from rows that may
    /// lack the write, and neither is one after a restart.
    pub async fn acknowledge(self: &Arc<Self>, number: WriteNumber, mut effects: WriteEffects) {
        let acknowledged = Instant::now();
        self.ledger.write_made(ledger_feed::now());
        self.name_revived(&mut effects).await;
        self.store_older(&mut effects).await;
        self.look_up(&mut effects).await;
        let keys = self.known(&effects.keys());
        let room = self.room_for(effects.bytes()).await;
        if room.is_none() {
            // Any number of them may pile up: what takes memory is in the state and in the
            // event log.
            effects.forget_details();
        }
        let types = match effects.everything {
            true => self.every_type(),
            false => self.followed_types(&effects),
        };
        self.site_lag.acknowledge(number, &mut effects);
        let write = PendingWrite::new(std::mem::take(&mut effects.effects), effects.everything);
        let write = Arc::new(write);
        self.insert(&write);
        let after = self.make_dirty(&keys, effects.unlisted).await;
        let keys = if room.is_some() { keys } else { Vec::new() };
        let touched = Touched { keys, types, after, is_unlisted: effects.unlisted, number };
        let tracker = Arc::clone(self);
        tokio::spawn(async move {
            tracker.confirm_surely(&write, touched).await;
            tracker.ledger.write_visible(ledger_feed::now(), acknowledged.elapsed());
            drop(room);
        });
    }

    /// Waits until the cached rows can tell what a write has changed besides what it names.
    /// Rows that the site showed before the write may be stored yet; those that are read
    /// later on show the write.
    async fn store_older(&self, effects: &mut WriteEffects) {
        let LeaderPlace::Here(_) = self.leader_place() else { return };
        let catalogue = self.catalogue(PendingWrites::default(), 0, false);
        let types = effects.lookups.iter().flat_map(|lookup| lookup.types(&catalogue)).collect();
        if tokio::time::timeout(self.max_delay(), self.replica.stored(&types)).await.is_err() {
            effects.forget_details();
        }
    }

    /// Waits until a write that takes so many bytes may become pending; `None` when that
    /// took too long.
    async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let places = bytes.div_ceil(BYTES_PER_PENDING_WRITE).clamp(1, MAX_PENDING_WRITES);
        let places = Arc::clone(&self.room).acquire_many_owned(u32::try_from(places).ok()?);
        tokio::time::timeout(LONGEST_BACKPRESSURE, places).await.ok()?.ok()
    }

    /// Returns how long the acknowledgement of a revival may wait for the site.
    pub(super) fn max_delay(&self) -> Duration {
        self.settings.upstream_retry_timeout
    }

    /// Returns where calls are counted.
    pub fn ledger(&self) -> &Recorder {
        &self.ledger
    }

    fn add(self: &Arc<Self>, write: PendingWrite, touched: Touched) {
        let write = Arc::new(write);
        self.insert(&write);
        let tracker = Arc::clone(self);
        tokio::spawn(async move { tracker.confirm_surely(&write, touched).await });
    }

    /// Makes a write pending: from now on no read is answered from rows that may lack it.
    pub(super) fn insert(&self, write: &Arc<PendingWrite>) {
        let mut pending = lock(&self.pending);
        *pending = pending.with(Arc::clone(write));
        drop(pending);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a write: whoever waits for it looks again.
    pub(super) fn end(&self, write: &PendingWrite) {
        write.end();
        let mut pending = lock(&self.pending);
        *pending = pending.without_visible();
        drop(pending);
        self.visible.send_modify(|count| *count += 1);
    }

    pub(super) fn every_type(&self) -> BTreeSet<EntityType> {
        self.replica.tracked().layouts().map(|layout| layout.entity_type.clone()).collect()
    }

    fn followed_types(&self, effects: &WriteEffects) -> BTreeSet<EntityType> {
        let tracked = self.replica.tracked();
        let types = effects.effects.iter().map(|effect| &effect.entity_type);
        types.filter(|ty| tracked.follows(ty)).cloned().collect()
    }

    /// Returns the keys whose rows are followed.
    pub(super) fn followed(&self, keys: &[EntityRef]) -> Vec<EntityRef> {
        let tracked = self.replica.tracked();
        keys.iter().filter(|key| tracked.follows(&key.entity_type)).cloned().collect()
    }

    /// Returns the keys of which the cache holds a row or shows a name.
    fn known(&self, keys: &BTreeSet<EntityRef>) -> Vec<EntityRef> {
        let tracked = self.replica.tracked();
        let known = |key: &&EntityRef| tracked.follows(&key.entity_type) || tracked.names(&key.entity_type);
        keys.iter().filter(known).cloned().collect()
    }

    /// Makes keys dirty, so that also a restart reads them again; returns the number of
    /// the last poll that may have been sent before.
    pub(super) async fn make_dirty(&self, keys: &[EntityRef], unlisted: bool) -> i64 {
        if let LeaderPlace::Elsewhere(_) = self.leader_place() {
            return 0;
        }
        let made = self.try_make_dirty(keys, unlisted).await;
        made.unwrap_or_else(|error| {
            // The write stays pending all the same; only after a restart it would not be.
            tracing::error!(%error, "the keys of a write could not be made dirty in the state");
            self.replication_status().polls_started
        })
    }

    async fn try_make_dirty(&self, keys: &[EntityRef], unlisted: bool) -> Result<i64, StateError> {
        let after = self.mark(keys, DirtyReasons::WRITE).await?;
        if unlisted {
            self.replica.state().keep(UNLISTED, &after).await?;
        }
        Ok(after)
    }

    /// Makes keys dirty for these reasons; a poll with a number above the returned one
    /// begins later.
    pub(super) async fn mark(&self, keys: &[EntityRef], reasons: DirtyReasons) -> Result<i64, StateError> {
        let requests: Vec<_> = keys.iter().map(|key| NewDirtyKey::new(key.clone(), reasons)).collect();
        self.replica.state().mark(&requests, self.replica.now()).await
    }

    /// Waits until the status, with the version of the leader's notice, is as wanted.
    pub(super) async fn until(&self, wanted: impl Fn(i64, &ReplicationStatus) -> bool) {
        let mut status = self.status.subscribe();
        let _waiting = Waiting::new(&self.waiting);
        self.refresh_now.notify_one();
        // Fails only when the tracker is gone, and with it whoever waits.
        drop(status.wait_for(|(version, status)| wanted(*version, status)).await);
    }

    /// Keeps the status and the schema up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let (mut schema_read, mut due) = (Instant::now(), false);
        while !stop.is_cancelled() {
            beat(ROUND_BOUND).await;
            self.refresh().await;
            let status = self.replication_status();
            // An event about the schema is followed by a read of it; then it is new.
            let changed = due && !status.schema_due;
            due = status.schema_due;
            let is_wanted = !due && self.schema_wanted.swap(false, Ordering::SeqCst);
            if changed || is_wanted || schema_read.elapsed() > SCHEMA_INTERVAL {
                self.read_schema(status.schema_changes).await;
                schema_read = Instant::now();
            }
            let (busy, idle) = match self.leader_place() {
                LeaderPlace::Here(_) => (BUSY_INTERVAL, IDLE_INTERVAL),
                LeaderPlace::Elsewhere(_) => (CLUSTER_BUSY_INTERVAL, CLUSTER_IDLE_INTERVAL),
            };
            let pause = if self.waiting.load(Ordering::SeqCst) > 0 { busy } else { idle };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.refresh_now.notified(), if pause == idle => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn refresh(&self) {
        if let LeaderPlace::Elsewhere(channel) = self.leader_place() {
            return self.refresh_from(channel).await;
        }
        match self.own_status().await {
            Ok((version, status)) => self.show(version, status),
            Err(error) => tracing::warn!(%error, "the replication status could not be read"),
        }
    }

    async fn own_status(&self) -> Result<(i64, ReplicationStatus), StateError> {
        let state = self.replica.state();
        let version = match &self.leader {
            // Before the status, as a leader does that publishes it: tasks that began to wait
            // under another leader go on under this one.
            Leader::Leased(..) => state.newest_version().await?,
            Leader::Here(_) | Leader::Elsewhere(_) => 0,
        };
        Ok((version, state.replication_status().await?))
    }

    /// Reads what the leader published. What cannot be read grows old, and is then not
    /// served any more.
    async fn refresh_from(&self, channel: &ClusterChannel) {
        match channel.read().await {
            Ok(Some((version, notice))) => {
                // The site has passed the moment at which it was published.
                self.replica.clock().observe(Some(notice.now.timestamp()));
                self.show(version, notice.standing);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "what the leader published could not be read"),
        }
    }

    fn show(&self, version: i64, status: ReplicationStatus) {
        self.status.send_if_modified(|known| {
            let changed = known.0 != version || *known.1 != status;
            *known = (version, Arc::new(status));
            changed
        });
    }

    /// Reads the schema; `changes` is how many changes of it were noticed before.
    async fn read_schema(&self, changes: i64) {
        match self.replica.client().schema().await {
            Ok(schema) => {
                let mut known = lock(&self.schema);
                // The same allocation where nothing changed: cached plans stay good.
                if *known.0 != schema {
                    known.0 = Arc::new(schema);
                }
                known.1 = Some(changes);
            }
            Err(error) => tracing::warn!(%error, "the schema could not be read again"),
        }
    }

    /// Returns the schema; a new one is another allocation.
    pub fn schema(&self) -> Arc<Schema> {
        Arc::clone(&lock(&self.schema).0)
    }

    /// Has the schema read, unless it holds every noticed change: a request depends on it.
    pub fn want_schema(&self) {
        let is_current = lock(&self.schema).1 == Some(self.replication_status().schema_changes);
        if !is_current && !self.schema_wanted.swap(true, Ordering::SeqCst) {
            self.refresh_now.notify_one();
        }
    }
}

/// Watches the status and the pending writes: what was seen is not waited for again.
pub(super) struct Watch<'a> {
    freshness: &'a FreshnessTracker,
    status: watch::Receiver<(i64, Arc<ReplicationStatus>)>,
    visible: watch::Receiver<u64>,
}

impl Watch<'_> {
    /// Returns the status of now.
    pub fn see(&mut self) -> Arc<ReplicationStatus> {
        self.visible.mark_unchanged();
        Arc::clone(&self.status.borrow_and_update().1)
    }

    /// Waits until the status is another one than was seen, at most until the
    /// deadline; tells whether it is.
    pub async fn changed(&mut self, deadline: Instant) -> bool {
        let _waiting = Waiting::new(&self.freshness.waiting);
        self.freshness.refresh_now.notify_one();
        matches!(tokio::time::timeout_at(deadline, self.status.changed()).await, Ok(Ok(())))
    }

    /// Waits until a pending write has become visible that was not seen to be.
    pub async fn write_visible(&mut self) {
        if self.visible.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Counts a task that waits, until dropped.
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
