//! The simulated Shotgun site.
//!
//! A site of its own right behind `/api3/json`: the standard schema, every
//! relation, both sides of links, retirement with its cascades, an event log
//! whose ids are reserved early and seen late, a data set of realistic shape and
//! people who edit it. It shares the vocabulary with the rest of the crate and
//! nothing else; what it does not simulate it refuses with `not simulated: …`.
//!
//! Decisions where no source settles how a site behaves: a retired Shot takes its
//! Tasks along as it takes its Versions; the other side of a link change keeps its
//! `updated_at`; connection rows stay when one end is retired; a delete of a
//! Project that has entities is refused.

mod admin;
mod cell;
mod clock;
mod edits;
mod encode;
mod event;
pub mod faults;
mod generate;
mod http;
mod journal;
mod links;
mod plan;
mod read;
mod requests;
mod retire;
mod rpc;
pub mod scenario;
mod schema;
mod site;
mod summarize;
mod table;
mod transaction;
mod upset;
mod value;
mod world;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::entity::Timestamp;

pub use clock::SiteClock;
pub use edits::Edits;
pub use event::Actor;
pub use faults::{Rule, Trouble, Troubles};
pub use requests::Requests;
pub use scenario::{Action, ActionError, Plan, Step};
pub use site::{Site, SiteSettings};
pub use transaction::Transaction;

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
    /// When the address cannot be listened on.
    pub async fn start(settings: SimSettings) -> io::Result<SimHandle> {
        let site_settings = SiteSettings {
            script: settings.script.clone(),
            key: settings.key.clone(),
            page_limit: settings.page_limit,
            ..SiteSettings::default()
        };
        let (seed, entities) = (settings.seed, settings.entities);
        let made = tokio::task::spawn_blocking(move || Site::filled(&site_settings, seed, entities));
        Self::serve(made.await.map_err(io::Error::other)?, &settings).await
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
        let listener = http::Listener::start(settings.listen, Arc::clone(&site)).await?;
        let admin = match settings.admin {
            Some(at) => Some(admin::Endpoint::start(at, Arc::clone(&site)).await?),
            None => None,
        };
        let edits = (settings.edits_per_second > 0.0)
            .then(|| tokio::spawn(work(Arc::clone(&site), settings.seed, settings.edits_per_second)));
        Ok(SimHandle { site, admin, listener, edits })
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
            let mut edits = edits.lock().unwrap_or_else(PoisonError::into_inner);
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
    admin: Option<admin::Endpoint>,
    listener: http::Listener,
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
mod tests;
