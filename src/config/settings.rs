//! What `config.yaml` was resolved to: [`Config`] and its parts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono_tz::Tz;

use super::Secret;
use crate::elastic::{self, Auth};
use crate::entity_config::Exclusions;
use crate::pipeline::{Blackout, Defaults};
use crate::proxy;
use crate::report::Notifier;
use crate::server::OpsAccess;
use crate::shotgun;

/// Everything that `config.yaml` and the environment say.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub path: PathBuf,
    /// The directory it lies in; relative paths start here.
    pub directory: PathBuf,
    /// The time zone of schedules that name none.
    pub timezone: Tz,
    /// Where state, store and reports are kept.
    pub data_dir: PathBuf,
    /// The site that is followed.
    pub shotgun: ShotgunSettings,
    /// Where rows are kept.
    pub store: StoreSettings,
    /// Where the daemon listens.
    pub listen: ListenSettings,
    /// What the read proxy answers, and whom.
    pub api: proxy::Settings,
    /// Where reports go, besides the local history.
    pub reports: ReportSettings,
    /// What generated entity configs leave out.
    pub generate: Exclusions,
    /// Whom pipelines may notify.
    pub notifiers: BTreeMap<String, Notifier>,
    /// Hours in which pipelines that name them do not start.
    pub blackouts: BTreeMap<String, Blackout>,
    /// What applies to all pipelines.
    pub pipelines: PipelineSettings,
}

impl Config {
    /// Returns the directory of the entity configs.
    pub fn entity_config_dir(&self) -> PathBuf {
        self.directory.join("entityConfig")
    }

    /// Returns the directory of the pipelines.
    pub fn pipelines_dir(&self) -> PathBuf {
        self.directory.join("pipelines")
    }
}

/// How the site is reached and how much of it may be used.
#[derive(Debug, Clone, PartialEq)]
pub struct ShotgunSettings {
    /// Its URL without a path, such as `https://studio.shotgrid.autodesk.com`.
    pub site: String,
    /// The name of the script user.
    pub script: String,
    /// Its key.
    pub key: Secret,
    /// Requests per second, all work together.
    pub max_rps: f64,
    /// Requests in flight, all work together.
    pub max_concurrency: usize,
    /// Rows per page of a read.
    pub page_size: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// A private certificate authority, in PEM form.
    pub ca_certificate: Option<PathBuf>,
}

impl ShotgunSettings {
    /// Returns the settings of the client that talks to this site.
    pub fn client(&self) -> shotgun::Settings {
        let auth = crate::api3::Auth::script(self.script.as_str(), self.key.expose());
        shotgun::Settings {
            max_rps: self.max_rps,
            max_concurrency: self.max_concurrency,
            page_size: u32::try_from(self.page_size).unwrap_or(500),
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            ca_certificate: self.ca_certificate.clone(),
            ..shotgun::Settings::new(self.site.as_str(), auth)
        }
    }

    /// Returns the host name of the site, which names it in messages.
    pub fn name(&self) -> &str {
        let rest = self.site.split("://").nth(1).unwrap_or(&self.site);
        let host = rest.split(['/', ':']).next().unwrap_or(rest);
        host.split_once(".shotgrid.").or_else(|| host.split_once(".shotgunstudio.")).map_or(host, |(studio, _)| studio)
    }
}

/// Where rows are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreSettings {
    /// In an SQLite file in the data directory; so many bytes of its columns may be
    /// kept in memory.
    Embedded {
        /// Up to this many bytes.
        memory: usize,
    },
    /// In indices of a cluster.
    Elasticsearch(ElasticsearchSettings),
}

/// How an Elasticsearch or OpenSearch cluster is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct ElasticsearchSettings {
    /// Its nodes; one is enough.
    pub urls: Vec<String>,
    /// What every index name starts with.
    pub prefix: String,
    /// How requests are authenticated.
    pub auth: Auth,
    /// A private certificate authority, in PEM form.
    pub ca_certificate: Option<PathBuf>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Primary shards of a new index.
    pub shards: u32,
    /// Copies of each shard of a new index; `None` is one where there is a second node.
    pub replicas: Option<u32>,
    /// How long a leader that is gone keeps others from leading.
    pub lease: Duration,
}

impl ElasticsearchSettings {
    /// Returns the settings of the transport to this cluster. `timeout` is that
    /// of a bulk request; smaller requests get less.
    pub fn transport(&self) -> elastic::Settings {
        let auth = self.auth.clone();
        let timeouts = elastic::Timeouts {
            search: self.timeout / 2,
            bulk: self.timeout,
            other: self.timeout.min(Duration::from_secs(10)),
        };
        let ca_certificate = self.ca_certificate.clone();
        elastic::Settings { auth, ca_certificate, timeouts, ..elastic::Settings::new(self.urls.clone()) }
    }
}

/// Where the daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenSettings {
    /// Metrics, health, status and the control API.
    pub ops: SocketAddr,
    /// The read proxy (`/api3/json`).
    pub api: SocketAddr,
    /// What the ops listener asks of requests.
    pub ops_access: OpsAccess,
}

/// Where run reports go, besides the local history and `/metrics`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReportSettings {
    /// A cluster that receives one document per run and one per mismatch.
    pub elasticsearch: Option<ElasticsearchSettings>,
}

/// What applies to all pipelines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PipelineSettings {
    /// What a pipeline that does not say otherwise gets.
    pub defaults: Defaults,
    /// How long runs are remembered.
    pub history: HistorySettings,
}

/// How long runs are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// Runs kept per pipeline, whatever their age.
    pub keep_runs: u32,
    /// Days that runs are kept.
    pub keep_days: u32,
    /// Days that runs with drift or errors are kept.
    pub keep_failed_days: u32,
}

impl Default for HistorySettings {
    fn default() -> HistorySettings {
        HistorySettings { keep_runs: 200, keep_days: 90, keep_failed_days: 365 }
    }
}
