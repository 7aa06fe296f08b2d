//! Takes over changed pipelines and entity configs while the daemon runs: on SIGHUP, on
//! request of the control API, and soon after a file was changed.
//!
//! All or nothing: with one mistake in one file the old set stays. Files are
//! looked at every few seconds rather than watched, because that works on network
//! shares too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::Utc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};

use super::Failure;
use super::context::{entity_config_files, load_config, remembered_layouts};
use super::engine::Engine;
use super::pipeline_files::{among, load};
use super::status_report::StatusReporter;
use crate::config::Config;
use crate::metrics::seconds;
use crate::pipeline::{self, Command, Pipeline};
use crate::supervisor::beat;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a look and a reload may take.
const ROUND_BOUND: Duration = Duration::from_secs(120);

/// Names, times and sizes of the files that a reload reads.
type Look = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// What is in use after a reload.
pub struct Reloaded {
    /// Pipelines, the disabled ones included.
    pub pipelines: usize,
    /// Entity types.
    pub types: usize,
    /// Keys of `config.yaml` that have changed and are used after a restart only.
    pub needs_restart: Vec<&'static str>,
}

/// Takes over the files of a daemon.
pub struct Reloader {
    engine: Arc<Engine>,
    snapshots: Arc<StatusReporter>,
    /// The pipelines that were chosen on the command line; none means all.
    names: Vec<String>,
    commands: mpsc::Sender<Command>,
    /// Two reloads at once could end with the older files in use.
    turn: Mutex<()>,
}

impl Reloader {
    /// Returns the reloader of a daemon that runs the pipelines `names`.
    pub fn new(
        engine: &Arc<Engine>,
        snapshots: &Arc<StatusReporter>,
        names: Vec<String>,
        commands: mpsc::Sender<Command>,
    ) -> Arc<Self> {
        let (engine, snapshots) = (Arc::clone(engine), Arc::clone(snapshots));
        Arc::new(Self { engine, snapshots, names, commands, turn: Mutex::new(()) })
    }

    /// Reloads until the daemon stops.
    pub async fn watch(&self) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => return tracing::error!(%error, "changed pipelines will not be taken over"),
        };
        let config = self.engine.online.config.clone();
        let (mut used, mut before) = (look(&config), look(&config));
        loop {
            beat(ROUND_BOUND).await;
            let asked = tokio::select! {
                () = self.engine.shutdown.cancelled() => return,
                hangup = hangups.recv() => hangup.is_some(),
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = look(&config);
            // A file that is still being written has changed again by the next look.
            let is_complete = now == before;
            before.clone_from(&now);
            if asked || (is_complete && now != used) {
                used = now;
                // Logged and shown by the reload itself.
                let _ = self.reload().await;
            }
        }
    }

    /// Takes over the files as they are now, all or nothing.
    ///
    /// # Errors
    ///
    /// What is wrong with the files; the configuration loaded before stays in use then.
    pub async fn reload(&self) -> Result<Reloaded, Failure> {
        let _turn = self.turn.lock().await;
        let about = &self.engine.online.metrics.about;
        match self.read().await {
            Ok((pipelines, reloaded)) => {
                tracing::info!(pipelines = reloaded.pipelines, "took over the configuration");
                about.config_valid.set(1.0);
                about.config_reloaded.set(seconds(Utc::now()));
                self.snapshots.reloaded(None);
                // Fails only when the daemon is stopping.
                let _ = self.commands.send(Command::Reload { pipelines }).await;
                Ok(reloaded)
            }
            Err(failure) => {
                about.config_valid.set(0.0);
                // In the log as a field, so that a log in JSON stays JSON.
                tracing::error!(problems = %failure, "the configuration loaded before stays in use");
                self.snapshots.reloaded(Some(failure.to_string()));
                Err(failure)
            }
        }
    }

    async fn read(&self) -> Result<(Vec<Arc<Pipeline>>, Reloaded), Failure> {
        let engine = &self.engine;
        let old = &engine.online.config;
        let config = load_config(Some(&old.path))?;
        let pipelines = among(load(&config).await?, &self.names)?;
        follow_entity_configs(engine, &config).await?;
        engine.notifiers.replace(config.notifiers.clone());
        show_config(engine, &config);
        let needs_restart = needs_restart(old, &config);
        if !needs_restart.is_empty() {
            tracing::warn!(keys = needs_restart.join(", "), "these keys of config.yaml are used after a restart");
        }
        let types = engine.replica.configured().len();
        let reloaded = Reloaded { pipelines: pipelines.len(), types, needs_restart };
        Ok((pipelines, reloaded))
    }
}

/// Follows the types of changed entity configs: new ones are imported, changed ones
/// imported again in place, and the rows of those without a config go after a day.
async fn follow_entity_configs(engine: &Engine, config: &Config) -> Result<(), Failure> {
    let files = entity_config_files(config)?;
    let online = &engine.online;
    let schema = match online.client.schema().await {
        Ok(schema) => schema,
        // While the site is away its last schema decides; it is read again soon.
        Err(_) => online.state.kept_schema(online.client.site()).await?.unwrap_or_else(|| online.schema.clone()),
    };
    let layouts = remembered_layouts(&files, &schema, &online.state).await?;
    if layouts != engine.replica.configured() {
        let types = layouts.len();
        let followed = engine.replica.follow_layouts(layouts, &schema).await;
        followed.map_err(|error| Failure::internal(error.to_string()))?;
        tracing::info!(types, "took over the entity configs");
    }
    Ok(())
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("data_dir", old.data_dir != new.data_dir),
        ("shotgun", old.shotgun != new.shotgun),
        ("store", old.store != new.store),
        ("listen", old.listen != new.listen),
        ("reports", old.reports != new.reports),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

fn look(config: &Config) -> Look {
    let folders = [config.pipelines_dir(), config.entity_config_dir()];
    let listing = folders.into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut paths: Vec<PathBuf> = listing.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.push(config.path.clone());
    paths.sort();
    let seen = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let size = metadata.as_ref().map_or(0, std::fs::Metadata::len);
        (path, metadata.and_then(|metadata| metadata.modified().ok()), size)
    };
    paths.into_iter().map(seen).collect()
}

/// Shows in the metrics which `config.yaml` is in use.
pub fn show_config(engine: &Engine, config: &Config) {
    let text = std::fs::read_to_string(&config.path).unwrap_or_default();
    engine.online.metrics.about.config_info.set_info(&[&format!("{:016x}", pipeline::fingerprint(&text))]);
}
