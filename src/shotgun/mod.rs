//! The client of a Shotgun site.
//!
//! Speaks `/api3/json` with one script's credentials: reads, summaries and
//! schemas, each through the request budget, with a timeout, bounded retries and
//! a classified error. Stores, sync and jobs are not known here. No error, log or
//! metric ever holds the key.

mod answer;
mod client;
mod error;
pub mod health;

use std::path::PathBuf;
use std::time::Duration;

use crate::api3::Auth;
use crate::budget::Priority;
use crate::retry::RetryPolicy;

pub use answer::{Answer, Info};
pub use client::{Client, address, http_client};
pub use error::{Error, ErrorKind};
pub use health::SiteHealth;

/// How long a poll of the event log may take.
const POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// How a site is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the site, `https://studio.shotgrid.autodesk.com`; a path is
    /// kept, as for a site behind a proxy.
    pub site: String,
    /// The credentials of the script.
    pub auth: Auth,
    /// Requests per second, all work together; zero is no limit.
    pub max_rps: f64,
    /// Requests in flight, all work together.
    pub max_concurrency: usize,
    /// Rows per page, at most what the site allows.
    pub page_size: u32,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// A private certificate authority, in PEM form.
    pub ca_certificate: Option<PathBuf>,
    /// How reads are tried again.
    pub retry: RetryPolicy,
}

impl Settings {
    /// Makes settings with defaults for everything but the address and the
    /// credentials.
    pub fn new(site: impl Into<String>, auth: Auth) -> Self {
        Self {
            site: site.into(),
            auth,
            max_rps: 0.0,
            max_concurrency: 6,
            page_size: 500,
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            ca_certificate: None,
            retry: RetryPolicy::default(),
        }
    }
}

/// What a request is for: decides its priority, its retries and its label in the
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Purpose {
    EventPoll,
    Fetch,
    Import,
    Scan,
    Validate,
    Schema,
    Info,
    Proxy,
}

impl Purpose {
    /// How many purposes there are.
    const COUNT: usize = Self::Proxy as usize + 1;

    /// Returns the value of the label `method`.
    pub fn label(self) -> &'static str {
        match self {
            Self::EventPoll => "event_poll",
            Self::Fetch => "fetch",
            Self::Import => "import",
            Self::Scan => "scan",
            Self::Validate => "validate",
            Self::Schema => "schema_read",
            Self::Info => "info",
            Self::Proxy => "proxy",
        }
    }

    fn priority(self) -> Priority {
        match self {
            Self::Proxy => Priority::Interactive,
            Self::EventPoll | Self::Fetch | Self::Schema | Self::Info => Priority::Follow,
            Self::Import | Self::Scan | Self::Validate => Priority::Background,
        }
    }

    /// Returns how long one request may take at most: a poll is small, and following goes
    /// on only after it.
    fn longest(self) -> Option<Duration> {
        (self == Self::EventPoll).then_some(POLL_TIMEOUT)
    }

    /// The poll loop has its own backoff; trying again inside a poll would only
    /// hide from it that the site is away.
    fn retries(self) -> bool {
        self != Self::EventPoll
    }
}

#[cfg(test)]
mod tests;
