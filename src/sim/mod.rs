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

mod cell;
mod clock;
mod encode;
mod event;
mod http;
mod links;
mod plan;
mod read;
mod retire;
mod rpc;
mod schema;
mod site;
mod summarize;
mod table;
mod transaction;
mod trouble;
mod value;
mod world;
mod write;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use clock::SiteClock;
pub use event::Actor;
pub use site::Site;
pub use transaction::Transaction;
pub use trouble::{Requests, Trouble, Troubles};

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
        let site_settings = site::SiteSettings {
            script: settings.script.clone(),
            key: settings.key.clone(),
            page_limit: settings.page_limit,
            ..site::SiteSettings::default()
        };
        let site = Site::with(&site_settings);
        Self::serve(site, &settings).await
    }

    /// Begins to listen for a site that exists already.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub async fn serve(site: Arc<Site>, settings: &SimSettings) -> io::Result<SimHandle> {
        let listener = http::Listener::start(settings.listen, Arc::clone(&site), settings.latency).await?;
        Ok(SimHandle { site, listener })
    }
}

/// A running site.
pub struct SimHandle {
    site: Arc<Site>,
    listener: http::Listener,
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

    /// Returns the site, to reach into it.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Stops the edits and the listener.
    pub async fn shutdown(self) {
        self.listener.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
