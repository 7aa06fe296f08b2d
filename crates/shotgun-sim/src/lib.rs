//! The simulated Shotgun site.
//!
//! A site of its own right behind `/api3/json`: the standard schema, every
//! relation, both sides of links, retirement with its cascades, an event log
//! whose ids are reserved early and seen late, a data set of realistic shape and
//! people who edit it. It shares the vocabulary (`shotgun-model`) with the cache and
//! nothing else; what it does not simulate it refuses with `not simulated: …`.
//!
//! Decisions where no source settles how a site behaves: a retired Shot takes its
//! Tasks along as it takes its Versions; the other side of a link change keeps its
//! `updated_at`; connection rows stay when one end is retired; a delete of a
//! Project that has entities is refused.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod admin;
mod attach;
mod cell;
mod clock;
pub mod command;
mod edits;
mod encode;
mod event;
pub mod faults;
mod files;
mod form_data;
mod generate;
mod http;
mod journal;
mod auxiliary_state;
mod links;
mod load;
mod methods;
mod plan;
mod preset;
mod presets;
mod read;
mod readings;
mod requests;
mod rest_auth;
mod retire;
mod rpc;
pub mod scenario;
mod schema;
mod site;
mod snapshot;
mod summarize;
mod table;
mod transaction;
mod upload;
mod schema_edits;
mod serving;
mod value;
mod world;
mod write;

use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use shotgun_model::entity::Timestamp;

pub use clock::SiteClock;
pub use edits::Edits;
pub use event::Actor;
pub use faults::{Rule, Trouble, Troubles};
pub use load::{LoadError, Loaded, Rows, read as read_rows};
pub use preset::Preset;
pub use readings::{READINGS, Reading, ReadingError};
pub use requests::Requests;
pub use scenario::{Action, ActionError, Plan, Step};
pub use site::{Site, SiteSettings};
pub use snapshot::SnapshotError;
pub use transaction::Transaction;

/// Returns the schema of a stock site, as the simulated one shows it.
pub fn stock_schema() -> shotgun_model::schema::Schema {
    schema::SiteSchema::standard().public
}

/// How a simulated site is started.
#[derive(Clone, Debug)]
pub struct SimSettings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The number of entities that are generated; 0 for an empty site.
    pub entities: usize,
    /// What the generated data and the edits depend on.
    pub seed: u64,
    /// Live edits per second; 0 for none.
    pub edits_per_second: f64,
    /// What every answer is delayed by.
    pub latency: Duration,
    /// The name of the script that may log in.
    pub script: String,
    /// Its key.
    pub key: String,
    /// The most rows that one page may have.
    pub page_limit: u32,
    /// Where the admin endpoint listens, on this machine only; `None` for none.
    pub admin: Option<SocketAddr>,
    /// The clock stands still at this moment; `None` for the real time.
    pub clock: Option<Timestamp>,
    /// What goes wrong from the start.
    pub plan: Plan,
    /// The snapshot that the site is made of, instead of generated data.
    pub snapshot: Option<PathBuf>,
    /// How the site behaves where sources disagree: names and values.
    pub readings: Vec<(String, String)>,
    /// Files and folders with rows that are added.
    pub load: Vec<PathBuf>,
    /// Rows that known programs expect.
    pub preset: Option<Preset>,
    /// How long a thumbnail is a placeholder after its upload.
    pub thumbnail_delay: Duration,
    /// Whether clients upload files to the storage directly.
    pub direct_uploads: bool,
}

impl Default for SimSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            entities: 0,
            seed: 1,
            edits_per_second: 0.0,
            latency: Duration::ZERO,
            script: "sgcache".into(),
            key: "sgcache-sim".into(),
            page_limit: 500,
            admin: None,
            clock: None,
            plan: Plan::default(),
            snapshot: None,
            readings: Vec::new(),
            load: Vec::new(),
            preset: None,
            thumbnail_delay: SiteSettings::default().thumbnail_delay,
            direct_uploads: false,
        }
    }
}

/// Starts simulated sites.
pub struct Sim;

impl Sim {
    /// Makes the site, generates its data and begins to listen.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on, or data cannot be loaded.
    pub async fn start(settings: SimSettings) -> io::Result<SimHandle> {
        let wanted = settings.clone();
        let made = tokio::task::spawn_blocking(move || make(&wanted)).await.map_err(io::Error::other)?;
        Self::serve(made?, &settings).await
    }

    /// Begins to listen for a site that exists already.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn serve(site: Arc<Site>, settings: &SimSettings) -> io::Result<SimHandle> {
        if let Some(at) = settings.clock {
            site.clock.set(at);
        }
        let mut plan = settings.plan.clone();
        plan.latency = plan.latency.or(Some(settings.latency.into()));
        if settings.admin.is_some() || settings.plan != Plan::default() {
            site.set_start(plan.clone());
        }
        site.follow(plan);
        let listener = http::serve(settings.listen, Arc::clone(&site)).await?;
        let admin = match settings.admin {
            Some(at) => Some(admin::serve(at, Arc::clone(&site)).await?),
            None => None,
        };
        let edits = (settings.edits_per_second > 0.0)
            .then(|| tokio::spawn(work(Arc::clone(&site), settings.seed, settings.edits_per_second)));
        Ok(SimHandle { site, admin, listener, edits })
    }
}

/// Makes the site with its data.
fn make(settings: &SimSettings) -> io::Result<Arc<Site>> {
    let site_settings = SiteSettings {
        script: settings.script.clone(),
        key: settings.key.clone(),
        page_limit: settings.page_limit,
        thumbnail_delay: settings.thumbnail_delay,
        direct_uploads: settings.direct_uploads,
        ..SiteSettings::default()
    };
    let site = match &settings.snapshot {
        None => Site::filled(&site_settings, settings.seed, settings.entities),
        Some(path) => {
            let file = File::open(path).map_err(|error| in_file(path, error))?;
            let mut input = BufReader::with_capacity(1 << 20, file);
            Site::from_snapshot(&site_settings, &mut input).map_err(|error| in_file(path, error))?
        }
    };
    if let Some(at) = settings.clock {
        site.clock.set(at);
    }
    for (name, value) in &settings.readings {
        site.set_reading(name, value).map_err(io::Error::other)?;
    }
    for path in &settings.load {
        if let Some(schema) = load::read_schema(path).map_err(io::Error::other)? {
            site.add_fields(&schema).map_err(|error| in_file(path, error))?;
        }
        let loaded = site.load(&read_rows(path).map_err(io::Error::other)?).map_err(|error| in_file(path, error))?;
        log_loaded(path, &loaded);
    }
    if let Some(preset) = settings.preset {
        preset.fill(&site).map_err(io::Error::other)?;
    }
    Ok(site)
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Says what of the rows the site could not take.
fn log_loaded(path: &Path, loaded: &Loaded) {
    let Loaded { rows, unknown_fields, links_to_nothing } = loaded;
    tracing::info!(path = %path.display(), rows, links_to_nothing, "loaded rows");
    for (field, values) in unknown_fields {
        tracing::warn!(path = %path.display(), field, values, "the site has no such field");
    }
}

/// Makes edits at a rate, until it is stopped.
async fn work(site: Arc<Site>, seed: u64, per_second: f64) {
    let edits = Arc::new(Mutex::new(Edits::new(site, seed)));
    // Above a hundred a second, several edits are made at each tick.
    let period = Duration::from_secs_f64((1.0 / per_second).max(0.01));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut owed = 0.0;
    loop {
        ticks.tick().await;
        owed += per_second * period.as_secs_f64();
        let (count, edits) = (owed as u64, Arc::clone(&edits));
        owed -= count as f64;
        let step = move || {
            let mut edits = edits.lock();
            (0..count).for_each(|_| edits.step());
        };
        if tokio::task::spawn_blocking(step).await.is_err() {
            return;
        }
    }
}

/// A running site.
pub struct SimHandle {
    site: Arc<Site>,
    admin: Option<serving::Serving>,
    listener: serving::Serving,
    edits: Option<JoinHandle<()>>,
}

impl SimHandle {
    /// Returns where the site listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr
    }

    /// Returns the address that clients are given.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Returns the address of the admin endpoint.
    pub fn admin_url(&self) -> Option<String> {
        self.admin.as_ref().map(|admin| format!("http://{}", admin.addr))
    }

    /// Returns the site, to reach into it.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops the edits and the listener.
    pub async fn shutdown(self) {
        if let Some(edits) = self.edits {
            edits.abort();
        }
        if let Some(admin) = self.admin {
            admin.shutdown().await;
        }
        self.listener.shutdown().await;
    }
}

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;
