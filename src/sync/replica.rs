//! The site, the store and the state as one.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use super::activity::SyncActivity;
use super::lease::{ClusterLease, Leadership, LeaseGuard};
use super::lease_document::configured_types;
use super::reads_in_flight::{ReadInFlight, ReadsInFlight};
use super::recheck::Unprovable;
use super::schema_drift::Followed;
use super::steps::Steps;
use super::writes_in_progress::WritesInProgress;
use super::{Result, ScheduledScans, Settings, SiteClock, SyncError, Tracked, WatchedStore};
use crate::entity::EntityType;
use crate::entity_config::TypeLayout;
use crate::metrics::Metrics;
use crate::shotgun::{Answer, Client};
use crate::state::{Finish, Finished, ReadToken, SiteTime, State};
use crate::store::Store;

/// The site, the store and the state; clones share everything. Several processes
/// may have one over the same files.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    client: Client,
    store: Arc<dyn Store>,
    state: State,
    metrics: Metrics,
    settings: Settings,
    clock: SiteClock,
    followed: RwLock<Followed>,
    scheduled_scans: RwLock<ScheduledScans>,
    import_slots: Arc<Semaphore>,
    steps: Steps,
    unprovable: Unprovable,
    /// Types that the site has counted.
    counted_types: Mutex<BTreeSet<EntityType>>,
    reads_in_flight: ReadsInFlight,
    writes_in_progress: WritesInProgress,
    lost_marks: AtomicU32,
    /// When the last poll began whose answer showed all that there was.
    last_whole_poll: Mutex<Option<SiteTime>>,
    activity: Mutex<SyncActivity>,
    /// Set once the versions of this process are above those in the store.
    versions: OnceCell<()>,
    /// Where the store is a cluster's: who of those that share it may write.
    lease: OnceLock<ClusterLease>,
}

impl Replica {
    /// Puts the parts together; nothing is sent or written.
    pub fn new(
        client: Client,
        store: Arc<dyn Store>,
        state: State,
        layouts: Vec<TypeLayout>,
        metrics: Metrics,
        settings: Settings,
    ) -> Self {
        Self::with_steps(client, store, state, layouts, metrics, settings, Steps::default())
    }

    /// Puts the parts together with a hook that can stop between two effects.
    pub fn with_steps(
        client: Client,
        store: Arc<dyn Store>,
        state: State,
        layouts: Vec<TypeLayout>,
        metrics: Metrics,
        settings: Settings,
        steps: Steps,
    ) -> Self {
        let followed = RwLock::new(Followed::new(layouts));
        let import_slots = Arc::new(Semaphore::new(settings.imports_in_flight.max(1)));
        let (clock, unprovable) = (SiteClock::default(), Unprovable::default());
        let store: Arc<dyn Store> = Arc::new(WatchedStore::new(store, state.clone(), clock.clone()));
        let lost_marks = AtomicU32::new(0);
        Self(Arc::new(Inner {
            client,
            store,
            state,
            metrics,
            settings,
            clock,
            followed,
            scheduled_scans: RwLock::default(),
            import_slots,
            steps,
            unprovable,
            counted_types: Mutex::default(),
            reads_in_flight: ReadsInFlight::default(),
            writes_in_progress: WritesInProgress::default(),
            lost_marks,
            last_whole_poll: Mutex::default(),
            activity: Mutex::default(),
            versions: OnceCell::new(),
            lease: OnceLock::new(),
        }))
    }

    /// Shares the store with other hosts from now on: a lease says which of them writes.
    #[must_use]
    pub fn sharing(self, lease: ClusterLease) -> Self {
        lease.set_configured(configured_types(&self.configured()));
        // Fails only where the replica has one already.
        let _ = self.0.lease.set(lease);
        self
    }

    /// Returns the lease of a store that is shared with other hosts.
    pub fn lease(&self) -> Option<&ClusterLease> {
        self.0.lease.get()
    }

    /// Tells whether this process may write to the store now.
    pub fn may_write(&self) -> bool {
        self.lease().is_none_or(ClusterLease::is_held)
    }

    /// Takes the right to write to the store, with a new epoch of versions if asked for;
    /// `None` where it is not shared.
    pub(super) async fn acquire_lease(&self, new_epoch: bool) -> Result<Option<LeaseGuard>> {
        let Some(lease) = self.lease() else { return Ok(None) };
        Ok(Some(lease.acquire(self.state(), self.store().as_ref(), new_epoch).await?))
    }

    /// Returns the client of the site.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Returns the state.
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Returns the clock of the site.
    pub fn clock(&self) -> &SiteClock {
        &self.0.clock
    }

    /// Returns the time of the site.
    pub fn now(&self) -> SiteTime {
        self.0.clock.now()
    }

    /// Returns the followed types.
    pub fn tracked(&self) -> Arc<Tracked> {
        self.followed(|followed| Arc::clone(&followed.tracked))
    }

    /// Follows other layouts from now on; [`super::Follower`] brings the store in
    /// line with its next step.
    pub fn set_layouts(&self, layouts: Vec<TypeLayout>) {
        if let Some(lease) = self.lease() {
            lease.set_configured(configured_types(&layouts));
        }
        self.followed_mut(|followed| *followed = Followed::new(layouts));
    }

    /// Leaves scans to the schedules of pipelines from now on.
    pub fn set_scheduled_scans(&self, scans: ScheduledScans) {
        *self.0.scheduled_scans.write().unwrap_or_else(PoisonError::into_inner) = scans;
    }

    /// Returns the scans that are left to the schedules of pipelines.
    pub(super) fn scheduled_scans(&self) -> ScheduledScans {
        *self.0.scheduled_scans.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn followed<T>(&self, look: impl FnOnce(&Followed) -> T) -> T {
        look(&self.0.followed.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn followed_mut<T>(&self, change: impl FnOnce(&mut Followed) -> T) -> T {
        change(&mut self.0.followed.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the layout of a type.
    pub(super) fn layout(&self, entity_type: &EntityType) -> Result<Arc<TypeLayout>> {
        let found = self.tracked().layout(entity_type).cloned();
        found.ok_or_else(|| SyncError::NotTracked(entity_type.clone()))
    }

    /// Passes a step of the crash test.
    pub(super) fn step(&self, name: &'static str) -> Result<()> {
        Ok(self.0.steps.pass(name)?)
    }

    /// Returns how many polls in a row did not show the entry at the high-water mark.
    pub(super) fn lost_marks(&self) -> &AtomicU32 {
        &self.0.lost_marks
    }

    /// Returns what was done since the last call.
    pub fn take_activity(&self) -> SyncActivity {
        std::mem::take(&mut self.0.activity.lock())
    }

    pub(super) fn note_activity(&self, note: impl FnOnce(&mut SyncActivity)) {
        note(&mut self.0.activity.lock());
    }

    /// Takes note of a poll that began at `began`, or of one that left entries for later; returns
    /// what was noted before it.
    pub(super) fn note_whole_poll(&self, began: Option<SiteTime>) -> Option<SiteTime> {
        std::mem::replace(&mut self.0.last_whole_poll.lock(), began)
    }

    /// Returns the fields whose announcements do not show.
    pub(super) fn unprovable(&self) -> &Unprovable {
        &self.0.unprovable
    }

    /// Returns the types that the site has counted.
    pub(super) fn counted_types(&self) -> &Mutex<BTreeSet<EntityType>> {
        &self.0.counted_types
    }

    pub(super) fn writes_in_progress(&self) -> &WritesInProgress {
        &self.0.writes_in_progress
    }

    pub(super) fn import_slots(&self) -> Arc<Semaphore> {
        self.0.import_slots.clone()
    }

    /// Takes in the time of an answer.
    pub(super) fn heard<R>(&self, answer: Answer<R>) -> Answer<R> {
        self.0.clock.observe(answer.server_time);
        answer
    }

    /// Starts a new epoch of versions: what another process has not written yet loses.
    pub(super) async fn begin_epoch(&self) -> Result<i64> {
        if self.lease().is_some() {
            // The lease has reserved it.
            return Ok(self.state().stream().await?.epoch);
        }
        let highest = self.store().highest_version().await?;
        let epoch = self.state().begin_epoch(highest.0).await?;
        self.0.versions.get_or_init(|| async {}).await;
        Ok(epoch)
    }

    /// Takes the version of a read. Before the first one it makes sure that the store
    /// has none that is higher: the state may be lost, or older than the store.
    pub(super) async fn begin_read(&self, entity_type: &EntityType) -> Result<ReadInFlight> {
        Ok(self.0.reads_in_flight.begin(self.next_version(entity_type).await?))
    }

    async fn next_version(&self, entity_type: &EntityType) -> Result<ReadToken> {
        if let Some(lease) = self.lease() {
            // The epochs of the lease are above those in the store, and no version may be
            // above the lease.
            return match lease.leadership() {
                Leadership::Here => Ok(self.state().begin_read(entity_type, self.now()).await?),
                Leadership::Elsewhere(why) => Err(SyncError::NotLeader(Box::new(why))),
            };
        }
        let above = || async {
            let highest = self.store().highest_version().await?;
            if highest.0 > self.state().newest_version().await? {
                tracing::warn!(highest = highest.0, "the store has newer versions than the state: a new epoch begins");
                self.state().begin_epoch(highest.0).await?;
            }
            Ok::<(), SyncError>(())
        };
        self.0.versions.get_or_try_init(above).await?;
        Ok(self.state().begin_read(entity_type, self.now()).await?)
    }

    /// Returns when no row of these types can be stored any more that the site may have
    /// answered before this call; but for rows that other processes read.
    pub async fn stored(&self, types: &BTreeSet<EntityType>) {
        self.0.reads_in_flight.stored(types).await;
    }

    /// Commits a finished read.
    pub(super) async fn finish(&self, finish: Finish) -> Result<Finished> {
        Ok(self.state().finish(finish).await?)
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Replica({} in {})", self.client().site(), self.state().directory().display())
    }
}
