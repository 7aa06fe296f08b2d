//! A cache of a simulated site that is followed step by step, on one clock.
//!
//! Nothing sleeps: a step moves the clock of the site and of the follower on and
//! does what is due.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sgcache::api3::Auth;
use sgcache::elastic;
use sgcache::entity::{Timestamp, canonical_json};
use sgcache::entity_config::{EntityConfigFile, TypeLayout};
use sgcache::filter::{Only, Query};
use sgcache::metrics::Metrics;
use sgcache::retry::RetryPolicy;
use sgcache::shotgun::{self, Client};
use sgcache::sim::{Action, Sim, SimHandle, SimSettings, Site};
use sgcache::state::{SiteTime, State, TypeState};
use sgcache::store::elasticsearch::ElasticsearchStore;
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::store::{Store, StoreErrorKind};
use sgcache::sync::{Follower, Replica, Settings, Steps, SyncError};

/// Where the clock starts.
const BEGIN: i64 = 1_700_000_000;

/// The entity configs of the tests: own filters, deep filters, both sides of links.
pub const CONFIGS: &[(&str, &str)] = &[
    ("Project", r#"{"fields": {"name": {}, "archived": {}, "sg_status": {}}}"#),
    ("Sequence", r#"{"fields": {"code": {}, "shots": {}, "assets": {}, "sg_status_list": {}, "project": {}}}"#),
    (
        "Shot",
        r#"{"fields": {"code": {}, "sg_sequence": {}, "assets": {}, "tasks": {}, "sg_versions": {}, "sg_status_list": {},
            "sg_cut_in": {}, "description": {}, "project": {}, "created_by": {}}}"#,
    ),
    (
        "Asset",
        r#"{"fields": {"code": {}, "shots": {}, "sg_asset_type": {}, "sg_status_list": {}},
        "filters": [["sg_status_list", "is_not", "omt"]]}"#,
    ),
    (
        "Task",
        r#"{"fields": {"content": {}, "entity": {}, "sg_status_list": {}, "start_date": {}, "task_assignees": {}}}"#,
    ),
    (
        "Version",
        r#"{"fields": {"code": {}, "entity": {}, "sg_task": {}, "sg_status_list": {}},
            "filters": [["entity.Shot.sg_sequence.Sequence.sg_status_list", "is_not", "omt"]]}"#,
    ),
];

/// The store that a test runs on; opened again after a crash.
#[derive(Clone)]
pub enum TestStore {
    /// In the data directory.
    Embedded,
    /// At this server, under this prefix.
    Elasticsearch(String, String),
}

impl TestStore {
    async fn open(&self, directory: &Path) -> Arc<dyn Store> {
        match self {
            Self::Embedded => {
                let settings = EmbeddedSettings::new(directory.join("store.sqlite"));
                match EmbeddedStore::open(settings.clone()) {
                    // As the daemon does.
                    Err(error) if error.kind() == StoreErrorKind::Corrupt => {
                        Arc::new(EmbeddedStore::open_anew(settings).expect("a store"))
                    }
                    opened => Arc::new(opened.expect("a store")),
                }
            }
            Self::Elasticsearch(url, prefix) => {
                let settings = elastic::Settings::new([url.as_str()]);
                Arc::new(ElasticsearchStore::open(&settings, prefix).await.expect("a store"))
            }
        }
    }
}

/// A site and its cache.
pub struct Cache {
    sim: SimHandle,
    directory: tempfile::TempDir,
    kind: TestStore,
    store: Option<Arc<dyn Store>>,
    follower: Option<Follower>,
    layouts: Vec<TypeLayout>,
    metrics: Metrics,
    now: AtomicI64,
}

/// A site with one project, whose id is 1.
pub fn empty_site() -> Arc<Site> {
    let site = Site::empty();
    site.clock.set(Timestamp(BEGIN));
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    site
}

impl Cache {
    /// Starts a site over HTTP, without a follower yet.
    pub async fn of(site: Arc<Site>) -> Self {
        Self::on(site, TestStore::Embedded).await
    }

    /// As [`Cache::of`], on another store.
    pub async fn on(site: Arc<Site>, kind: TestStore) -> Self {
        let sim = Sim::serve(site, &SimSettings::default()).await.expect("a site");
        let directory = tempfile::tempdir().expect("a directory");
        let now = AtomicI64::new(BEGIN * 1000);
        let metrics = Metrics::default();
        let mut cache = Self { sim, directory, kind, store: None, follower: None, layouts: Vec::new(), metrics, now };
        cache.configure(CONFIGS).await;
        cache
    }

    /// Starts a site, imports everything and steps until nothing is left to do.
    pub async fn live(site: Arc<Site>) -> Self {
        Self::live_on(site, TestStore::Embedded).await
    }

    /// As [`Cache::live`], on another store.
    pub async fn live_on(site: Arc<Site>, kind: TestStore) -> Self {
        let mut cache = Self::on(site, kind).await;
        cache.start(Steps::default()).await.expect("a start");
        cache.follower().import_pending().await.expect("an import");
        cache.quiesce().await;
        cache
    }

    /// Takes other entity configs from the next start on.
    pub async fn configure(&mut self, configs: &[(&str, &str)]) {
        let schema = self.client().schema().await.expect("a schema");
        let layout = |(name, text): &(&str, &str)| {
            let file =
                EntityConfigFile::parse(Path::new(&format!("{name}.json")), (*text).to_owned()).expect("a config");
            TypeLayout::check(&file, &schema).expect("a config that fits the site")
        };
        self.layouts = configs.iter().map(layout).collect();
    }

    pub fn client(&self) -> Client {
        self.client_of(500)
    }

    fn client_of(&self, page_size: u32) -> Client {
        let auth = Auth::script("sgcache", "sgcache-sim");
        let retry = RetryPolicy::once();
        let settings = shotgun::Settings { retry, page_size, ..shotgun::Settings::new(self.sim.url(), auth) };
        Client::new(settings, self.metrics.clone()).expect("a client")
    }

    /// Starts a follower over the files that there are.
    pub async fn start(&mut self, steps: Steps) -> Result<(), SyncError> {
        // Time passes here with requests only: nothing may wait for the next one.
        let settings = Settings { poll_min: Duration::ZERO, ..Settings::default() };
        self.start_with(steps, settings, 500).await
    }

    /// Starts a follower with other settings and page size.
    pub async fn start_with(&mut self, steps: Steps, settings: Settings, page_size: u32) -> Result<(), SyncError> {
        self.stop();
        let store = self.kind.open(self.directory.path()).await;
        self.store = Some(store.clone());
        let state = State::open(self.directory.path()).await.expect("a state");
        let (layouts, metrics) = (self.layouts.clone(), self.metrics.clone());
        let client = self.client_of(page_size);
        let replica = Replica::with_steps(client, store, state, layouts, metrics, settings, steps);
        replica.clock().hold(SiteTime(self.now.load(Ordering::Relaxed)));
        self.follower = Some(Follower::start_up(replica, None).await?);
        Ok(())
    }

    /// Starts a follower on the real clock and hands it out.
    pub async fn detached(&mut self, settings: Settings) -> Arc<Follower> {
        let store = self.kind.open(self.directory.path()).await;
        let state = State::open(self.directory.path()).await.expect("a state");
        let (layouts, metrics) = (self.layouts.clone(), self.metrics.clone());
        let replica = Replica::new(self.client(), store, state, layouts, metrics, settings);
        Arc::new(Follower::start_up(replica, None).await.expect("a start"))
    }

    /// Opens the state beside, or without, a follower.
    pub async fn open_state(&self) -> State {
        State::open(self.directory.path()).await.expect("a state")
    }

    /// Lets go of everything in memory.
    pub fn stop(&mut self) {
        self.follower = None;
        self.store = None;
    }

    /// Returns the data directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Removes the files of the embedded store.
    pub fn remove_store(&mut self) {
        self.remove_files("store.sqlite");
    }

    /// Removes the files of the state.
    pub fn remove_state(&mut self) {
        self.remove_files("state.sqlite");
    }

    fn remove_files(&mut self, prefix: &str) {
        self.stop();
        for entry in std::fs::read_dir(self.directory.path()).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)) {
                std::fs::remove_file(path).expect("a removal");
            }
        }
    }

    pub fn site(&self) -> &Arc<Site> {
        self.sim.site()
    }

    /// Tells whether a follower runs.
    pub fn is_started(&self) -> bool {
        self.follower.is_some()
    }

    pub fn follower(&self) -> &Follower {
        self.follower.as_ref().expect("a started follower")
    }

    pub fn replica(&self) -> &Replica {
        self.follower().replica()
    }

    pub fn state(&self) -> &State {
        self.replica().state()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        self.store.as_ref().expect("a started store")
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Moves both clocks on and returns the moment.
    pub fn tick(&self, by: Duration) -> SiteTime {
        self.site().clock.advance(by);
        let millis = i64::try_from(by.as_millis()).expect("a short time");
        SiteTime(self.now.fetch_add(millis, Ordering::Relaxed) + millis)
    }

    /// Makes one step, two seconds later.
    pub async fn step(&self) -> Result<sgcache::sync::Step, SyncError> {
        self.follower().step(self.tick(Duration::from_secs(2))).await
    }

    /// Steps until no mark, no sweep and no import is left.
    pub async fn quiesce(&self) {
        for _ in 0..200 {
            let step = self.follower().step(self.tick(Duration::from_secs(7))).await.expect("a step");
            let marks = self.state().marks(1).await.expect("marks");
            let sweeps = self.state().due_sweeps(SiteTime(i64::MAX)).await.expect("sweeps");
            let types = self.state().types().await.expect("types");
            let importing = types.iter().any(|record| record.state == TypeState::Importing);
            if marks.is_empty() && sweeps.is_empty() && !importing && !step.polled.full {
                return;
            }
        }
        panic!("never quiet: {:?}", self.follower().status().await);
    }

    /// Returns the cached rows of a type, canonical, by id.
    pub async fn cached(&self, layout: &TypeLayout) -> BTreeMap<i64, Map<String, Value>> {
        self.cached_of(layout, Only::Active).await
    }

    async fn cached_of(&self, layout: &TypeLayout, only: Only) -> BTreeMap<i64, Map<String, Value>> {
        let mut query = Query::all(layout.entity_type.clone()).fields(layout.paths());
        query.only = only;
        let found = self.store().find(&query).await.expect("rows");
        found.rows.iter().map(|row| (row.key.id, canonical(layout, &row.fields()))).collect()
    }

    /// Returns the rows of a type that the site shows through the filter.
    pub async fn shown(&self, layout: &TypeLayout) -> BTreeMap<i64, Map<String, Value>> {
        self.shown_of(layout, Only::Active).await
    }

    async fn shown_of(&self, layout: &TypeLayout, only: Only) -> BTreeMap<i64, Map<String, Value>> {
        let read = sgcache::api3::Read::new(layout.entity_type.clone(), layout.raw_filter.clone(), 500);
        let mut read = read.fields(layout.field_names());
        read.only = only;
        let (mut rows, mut last) = (BTreeMap::new(), 0);
        loop {
            let page = self.client().read_after(&read, last, shotgun::Purpose::Validate).await.expect("a page");
            last = page.last_id().unwrap_or(last);
            rows.extend(page.rows.iter().filter_map(|row| Some((shotgun::Answer::id(row)?, canonical(layout, row)))));
            if !page.has_next_page {
                return rows;
            }
        }
    }

    /// Checks that the cache equals the site, and that state and store agree.
    pub async fn assert_equal_to_site(&self) {
        for layout in &self.layouts {
            let name = &layout.entity_type;
            assert_eq!(self.cached(layout).await, self.shown(layout).await, "rows of {name}");
            let (cached, shown) = (self.cached_of(layout, Only::Retired), self.shown_of(layout, Only::Retired));
            let (cached, shown): (Vec<_>, Vec<_>) =
                (cached.await.into_keys().collect(), shown.await.into_keys().collect());
            assert_eq!(cached, shown, "retired rows of {name}");
            let buckets = self.state().buckets(name).await.expect("buckets");
            let known: Vec<_> = buckets.iter().map(|one| (one.bucket, one.count, one.sum)).collect();
            let digest = self.store().digest(name).await.expect("a digest");
            let stored: Vec<_> = digest.iter().map(|one| (one.number, one.count, one.sum as i64)).collect();
            assert_eq!(known, stored, "sums of {name} in state and store");
            for row in self.store().scan(name, 0, 100_000).await.expect("versions") {
                let meta = self.state().row(name, row.id).await.expect("a row").expect("a known row");
                let known = (meta.hash, meta.state.as_str(), meta.updated_at);
                assert_eq!(known, (row.hash, row.state.as_str(), row.updated_at), "{name} {}", row.id);
            }
            let record = self.state().type_record(name).await.expect("a type").expect("a followed type");
            assert_eq!(record.state, TypeState::Live, "{name}");
        }
    }

    /// Checks that retired rows are as on the site, field by field. What links to
    /// them shows in no event: it takes a scan.
    pub async fn assert_retired_equal_to_site(&self) {
        for layout in &self.layouts {
            let (cached, shown) = (self.cached_of(layout, Only::Retired), self.shown_of(layout, Only::Retired));
            assert_eq!(cached.await, shown.await, "retired rows of {}", layout.entity_type);
        }
    }

    /// Returns the layouts of all types.
    pub fn layouts(&self) -> &[TypeLayout] {
        &self.layouts
    }

    /// Returns the layout of a type.
    pub fn layout(&self, name: &str) -> &TypeLayout {
        self.layouts.iter().find(|layout| layout.entity_type == *name).expect("a configured type")
    }

    /// Returns the ids of the cached rows of a type.
    pub async fn ids(&self, name: &str) -> Vec<i64> {
        self.cached(self.layout(name)).await.into_keys().collect()
    }
}

fn canonical(layout: &TypeLayout, row: &Map<String, Value>) -> Map<String, Value> {
    let field = |field: &sgcache::entity_config::LayoutField| {
        let value = row.get(&field.name).unwrap_or_else(|| panic!("a row without {}", field.name));
        (field.name.clone(), canonical_json(field.data_type, value))
    };
    layout.fields.iter().map(field).collect()
}

/// Makes something happen to a site, in the words of its admin endpoint.
pub fn happen(site: &Arc<Site>, action: Value) -> Value {
    let action: Action = serde_json::from_value(action).expect("an action");
    site.perform(&action).expect("something that can happen")
}

/// A link for `create` and `update`.
pub fn to(entity_type: &str, id: i64) -> Value {
    json!({"type": entity_type, "id": id})
}

/// Creates an entity of the demo project.
pub fn create(site: &Site, entity_type: &str, mut fields: Value) -> i64 {
    fields["project"] = to("Project", 1);
    site.create(entity_type, fields).expect("an entity")
}
