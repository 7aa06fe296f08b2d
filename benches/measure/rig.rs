//! What every section needs: a site, a replica of it, and what processes cost.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use sgcache::api3::Auth;
use sgcache::elastic::{self, Call};
use sgcache::entity_config::TypeLayout;
use sgcache::entity_config_files;
use sgcache::metrics::{Labels, Metrics};
use sgcache::schema::Schema;
use sgcache::shotgun::{self, Client};
use sgcache::state::{State, TypeState};
use sgcache::store::Store;
use sgcache::store::elasticsearch::ElasticsearchStore;
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::supervisor::Supervisor;
use sgcache::sync::{Follower, Replica, Settings};
use tokio_util::sync::CancellationToken;

use super::Options;

/// A site in a process of its own.
pub struct Site {
    child: Child,
    pub url: String,
}

impl Site {
    /// Starts `sgcache sim` without edits and waits until it answers.
    pub fn start(entities: usize, latency: Duration) -> anyhow::Result<Self> {
        let (entities, latency) = (entities.to_string(), format!("{}ms", latency.as_millis()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sgcache"));
        command.args(["sim", "--listen", "127.0.0.1:0", "--edits", "0", "--entities", &entities]);
        let mut child = command.args(["--latency", &latency]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned);
        match url {
            Some(url) => Ok(Self { child, url }),
            None => {
                child.kill()?;
                bail!("the site said `{line}`")
            }
        }
    }

    pub fn cost(&self) -> Cost {
        Cost::of(&self.child.id().to_string())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub peak_mb: u64,
    /// What is held now apart from mapped files, whose pages count as resident.
    pub own_mb: u64,
    pub cpu_seconds: f64,
}

impl Cost {
    /// Reads /proc; zeros where there is none.
    pub fn of(process: &str) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let status = read("status");
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
        };
        // The name of the program may hold spaces; it ends with a parenthesis.
        let stat = read("stat");
        let numbers = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: f64 = numbers.filter_map(|number| number.parse::<f64>().ok()).sum();
        Self { peak_mb: megabytes("VmHWM:"), own_mb: megabytes("RssAnon:"), cpu_seconds: ticks / 100.0 }
    }

    pub fn own() -> Self {
        Self::of("self")
    }
}

/// What is known of a site, before anything is stored.
pub struct Parts {
    pub client: Client,
    pub schema: Schema,
    pub layouts: Vec<TypeLayout>,
    pub metrics: Metrics,
}

impl Parts {
    /// Asks the site for its schema and checks the shipped entity configs.
    pub async fn of(url: &str) -> anyhow::Result<Self> {
        let (files, problems) =
            entity_config_files::read_all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/entityConfig")))?;
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem.into());
        }
        let metrics = Metrics::new(&Labels::new(files.iter().map(|file| &file.entity_type)));
        let settings = shotgun::Settings::new(url, Auth::script("sgcache", "sgcache-sim"));
        let client = Client::new(settings, metrics.clone())?;
        let schema = client.schema().await?;
        let layouts: Result<Vec<_>, _> = files.iter().map(|file| TypeLayout::check(file, &schema)).collect();
        let layouts = layouts.map_err(|problems| anyhow!("{problems:?}"))?;
        Ok(Self { client, schema, layouts, metrics })
    }

    pub fn replica(&self, store: &Arc<dyn Store>, state: &State) -> Replica {
        let (client, layouts, metrics) = (self.client.clone(), self.layouts.clone(), self.metrics.clone());
        Replica::new(client, Arc::clone(store), state.clone(), layouts, metrics, Settings::default())
    }

    /// Returns the requests answered so far for a purpose.
    pub fn requests(&self, method: &str) -> f64 {
        self.metrics.value("sgcache_source_requests_total", &[("method", method)]).unwrap_or_default()
    }
}

/// Where a section keeps its files: the given directory, or one that goes.
pub struct Room {
    pub path: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Room {
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        match &options.data {
            Some(path) => {
                std::fs::create_dir_all(path)?;
                Ok(Self { path: path.clone(), _own: None })
            }
            None => Self::own(),
        }
    }

    pub fn own() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        Ok(Self { path: directory.path().to_owned(), _own: Some(directory) })
    }
}

const PREFIX: &str = "sgcache-bench";

/// Opens the store that the options choose.
pub async fn store(options: &Options, directory: &Path) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match &options.elasticsearch {
        Some(url) => Arc::new(ElasticsearchStore::open(&elastic::Settings::new([url.as_str()]), PREFIX).await?),
        None => Arc::new(EmbeddedStore::open(EmbeddedSettings::new(directory.join("store.sqlite")))?),
    })
}

/// Opens the store that the options choose, without what an earlier run left on a server.
pub async fn empty_store(options: &Options, directory: &Path) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(url) = &options.elasticsearch {
        let client = elastic::Client::new(&elastic::Settings::new([url.as_str()]))?;
        let listed = client.send(&Call::get(format!("/{PREFIX}-*/_alias"))).await?.value()?;
        for index in listed.as_object().into_iter().flatten().map(|(name, _)| name) {
            client.send(&Call::delete(format!("/{index}"))).await?;
        }
    }
    store(options, directory).await
}

/// Returns the CPU seconds that the server has used; zero without one.
pub async fn server_cpu(options: &Options) -> anyhow::Result<f64> {
    let Some(url) = &options.elasticsearch else { return Ok(0.0) };
    let client = elastic::Client::new(&elastic::Settings::new([url.as_str()]))?;
    let stats = client.send(&Call::get("/_nodes/stats/process")).await?.value()?;
    let nodes = stats["nodes"].as_object().into_iter().flatten();
    let milliseconds = nodes.filter_map(|(_, node)| node.pointer("/process/cpu/total_in_millis")?.as_u64());
    Ok(milliseconds.sum::<u64>() as f64 / 1e3)
}

/// Imports everything as the daemon does and returns the number of rows.
pub async fn import(replica: &Replica) -> anyhow::Result<u64> {
    let at_once = replica.settings().imports_at_once;
    let imports = stream::iter(replica.pending_imports().await?).map(|entity_type| {
        let replica = replica.clone();
        async move { replica.import(&entity_type, None).await.map(|imported| imported.rows) }
    });
    let rows: Vec<u64> = imports.buffer_unordered(at_once).try_collect().await?;
    Ok(rows.iter().sum())
}

/// Imports everything and follows until every type is live; then lets go.
pub async fn go_live(parts: &Parts, store: &Arc<dyn Store>, state: &State) -> anyhow::Result<u64> {
    let replica = parts.replica(store, state);
    let follower = Arc::new(Follower::start_up(replica.clone(), None).await?);
    let rows = import(&replica).await?;
    let stop = CancellationToken::new();
    let wait = async {
        let live = wait_until_live(&replica).await;
        stop.cancel();
        live
    };
    let supervisor = Supervisor::new(parts.metrics.clone(), stop.clone());
    let (ended, live) = tokio::join!(follower.run(&supervisor, stop.clone()), wait);
    ended?;
    live.map(|()| rows)
}

/// Waits until every type is live.
pub async fn wait_until_live(replica: &Replica) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !replica.state().types().await?.iter().all(|record| record.state == TypeState::Live) {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("a type is not live after two minutes");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Returns a quantile of sorted numbers.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
