//! From `config.yaml` to the things that commands work with.
//!
//! [`Offline`] is what can be had without the site: state, store, and the schema
//! that the last contact with the site left in the state. [`Online`] asks the
//! site for its schema first and checks the entity configs against it; what
//! serves callers does not depend on the answer once it has something to serve.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, StoreSettings};
use crate::elastic;
use crate::entity::Timestamp;
use crate::entity_config::{EntityConfigFile, TypeLayout};
use crate::entity_config_files;
use crate::metrics::{Labels, Metrics};
use crate::schema::Schema;
use crate::shotgun::Client;
use crate::state::{State, TypeState};
use crate::store::elasticsearch::{ElasticsearchStore, IndexShape};
use crate::store::embedded::{EmbeddedSettings, EmbeddedStore};
use crate::store::{Store, StoreError, StoreErrorKind, TimedStore};
use crate::sync::{ClusterLease, SiteClock, WatchedStore};

use super::Failure;
use super::leadership;
use super::output::drawn;

/// Reads `config.yaml` where `-c`, the environment or the working directory say.
///
/// # Errors
///
/// Every problem of the file, drawn.
pub fn load_config(chosen: Option<&Path>) -> Result<Config, Failure> {
    let environment = environment();
    let path = config::locate(chosen, &environment);
    match Config::load(&path, &environment) {
        Ok((config, warnings)) => {
            if !warnings.is_empty() {
                eprintln!("{}", drawn(&warnings));
            }
            Ok(config)
        }
        Err(problems) => Err(Failure::problems(problems)),
    }
}

/// Returns the environment as text. A variable that is not UTF-8 belongs to another
/// program: ours are all ASCII, and nothing here could use its value.
pub fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Reads the entity configs beside `config.yaml`.
///
/// # Errors
///
/// Every problem of every file.
pub fn entity_config_files(config: &Config) -> Result<Vec<EntityConfigFile>, Failure> {
    let dir = config.entity_config_dir();
    let hint = "`sgcache job generateEntityConfigs Asset Shot` writes some";
    let (files, problems) =
        entity_config_files::read_all(&dir).map_err(|error| Failure::config(format!("{error}: {hint}")))?;
    if !problems.is_empty() {
        let lines: Vec<_> = problems.iter().map(|problem| format!("error: {problem}")).collect();
        return Err(Failure::config(lines.join("\n")));
    }
    if files.is_empty() {
        return Err(Failure::config(format!("{} holds no entity config: {hint}", dir.display())));
    }
    Ok(files)
}

/// Checks entity configs against a schema.
///
/// # Errors
///
/// Every problem of every file.
pub fn check_layouts(files: &[EntityConfigFile], schema: &Schema) -> Result<Vec<TypeLayout>, Failure> {
    let (mut layouts, mut lines) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| !TypeLayout::is_left_out(file, schema)) {
        match TypeLayout::check(file, schema) {
            Ok(layout) => layouts.push(layout),
            Err(problems) => lines.extend(problems.iter().map(|problem| format!("error: {problem}"))),
        }
    }
    if lines.is_empty() { Ok(layouts) } else { Err(Failure::config(lines.join("\n"))) }
}

/// Checks entity configs against a schema, and takes what the site has lost since the
/// last check from memory: the rest of such a type goes on, and heals when the site has
/// it again. What was never there is a mistake of the config.
///
/// # Errors
///
/// Every problem of every file.
pub async fn remembered_layouts(
    files: &[EntityConfigFile],
    schema: &Schema,
    state: &State,
) -> Result<Vec<TypeLayout>, Failure> {
    let (merged, lost) = schema.with_missing_from(&state.configured_schema().await?);
    let layouts = check_layouts(files, &merged)?;
    let needed: Vec<_> = layouts.iter().flat_map(TypeLayout::needed_fields).collect();
    let is_needed =
        |name: &&String| needed.iter().any(|(ty, field)| **name == *ty.as_str() || **name == format!("{ty}.{field}"));
    for name in lost.iter().filter(is_needed) {
        tracing::warn!("the site does not have `{name}` any more: it is not cached until it is back");
    }
    let left_out =
        |file| TypeLayout::lacking_fields(file, &merged).into_iter().chain(TypeLayout::derived_fields(file, &merged));
    for warning in files.iter().flat_map(left_out) {
        tracing::warn!("{warning}");
    }
    if !layouts.is_empty() {
        state.keep_configured_schema(&merged.restricted_to(needed)).await?;
    }
    Ok(layouts)
}

/// Makes the client of the configured site.
///
/// # Errors
///
/// When the certificate authority cannot be read.
pub fn client(config: &Config, metrics: &Metrics) -> Result<Client, Failure> {
    Ok(Client::new(config.shotgun.client(), metrics.clone())?)
}

/// Opens the configured store. With a lease it is written only while that is held; without
/// one the caller only reads, or is alone.
///
/// # Errors
///
/// When it is away, locked, or written by a newer version.
pub async fn open_store(
    config: &Config,
    metrics: &Metrics,
    lease: Option<&ClusterLease>,
) -> Result<Arc<dyn Store>, Failure> {
    let store: Arc<dyn Store> = match &config.store {
        StoreSettings::Embedded { memory } => {
            let file = config.data_dir.join("store.sqlite");
            Arc::new(open_embedded(EmbeddedSettings { memory: *memory, ..EmbeddedSettings::new(file) })?)
        }
        StoreSettings::Elasticsearch(settings) => {
            let shape = IndexShape { shards: settings.shards, replicas: settings.replicas };
            let client = elastic::Client::new(&settings.transport()).map_err(StoreError::from)?;
            let client = match lease {
                Some(lease) => client.guarded(lease.write_guard()),
                None => client,
            };
            Arc::new(ElasticsearchStore::open_with(client, &settings.prefix, shape).await?)
        }
    };
    Ok(Arc::new(TimedStore::new(store, metrics.clone())))
}

/// Opens the embedded store. A file that SQLite cannot open is moved away: everything
/// in it is on the site, and the daemon reads it again.
fn open_embedded(settings: EmbeddedSettings) -> Result<EmbeddedStore, Failure> {
    match EmbeddedStore::open(settings.clone()) {
        Err(error) if error.kind() == StoreErrorKind::Corrupt => {
            tracing::error!(%error, "the store begins anew, and everything is read again from the site");
            Ok(EmbeddedStore::open_anew(settings)?)
        }
        opened => Ok(opened?),
    }
}

/// What can be had without the site.
pub struct Offline {
    /// The rows.
    pub store: Arc<dyn Store>,
    /// The schema as the site last showed it.
    pub schema: Schema,
    /// The configured types.
    pub layouts: Vec<TypeLayout>,
    /// The time of the site as far as it is known without asking: that of the last
    /// complete poll. Windows around now are answered as of then.
    pub now: Timestamp,
}

impl Offline {
    /// Opens state and store of a data directory that a daemon or a job filled
    /// before.
    ///
    /// # Errors
    ///
    /// Also when nothing was imported yet.
    pub async fn open(chosen: Option<&Path>) -> Result<Self, Failure> {
        let config = load_config(chosen)?;
        let files = entity_config_files(&config)?;
        if !config.data_dir.join("state.sqlite").exists() {
            let dir = config.data_dir.display();
            return Err(Failure::config(format!(
                "nothing is cached in {dir} yet: start `sgcache pipelines run` first"
            )));
        }
        let state = State::open(&config.data_dir).await?;
        let Some(schema) = state.kept_schema(client(&config, &Metrics::default())?.site()).await? else {
            return Err(Failure::config("the site was never reached: start `sgcache pipelines run` first"));
        };
        let (schema, _) = schema.with_missing_from(&state.configured_schema().await?);
        let layouts = check_layouts(&files, &schema)?;
        let store = open_store(&config, &Metrics::default(), None).await?;
        // A damaged row that a command meets is read again by the daemon.
        let store = Arc::new(WatchedStore::new(store, state.clone(), SiteClock::default()));
        // Before the first poll nothing is complete, and no window can be answered right.
        let complete = state.stream().await?.complete_as_of;
        let now = complete.map_or_else(|| Timestamp::from(chrono::Utc::now()), |at| at.timestamp());
        Ok(Self { store, schema, layouts, now })
    }
}

/// What is needed to follow or check the site.
pub struct Online {
    /// What `config.yaml` says.
    pub config: Config,
    /// What sync remembers.
    pub state: State,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// Which of the processes that share the store may write; `None` where it is not shared.
    pub lease: Option<ClusterLease>,
    /// The site.
    pub client: Client,
    /// The schema as the site showed it last.
    pub schema: Schema,
    /// The configured types.
    pub layouts: Vec<TypeLayout>,
    /// Every metric.
    pub metrics: Metrics,
}

/// What a process needs of the site at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteAtStart {
    /// It works with the site: only an outage is waited out, by its jobs.
    Required,
    /// It answers callers: where complete types are stored it starts without the site.
    OptionalWithTypes,
    /// The same over rows that another process keeps.
    Optional,
}

/// How long a start that does not need the site waits for it: callers wait as long.
const START_PATIENCE: Duration = Duration::from_secs(2);

impl Online {
    /// Asks the site for its schema and opens state and store.
    ///
    /// # Errors
    ///
    /// See the parts: each names what to change.
    pub async fn open(config: Config, site: SiteAtStart) -> Result<Self, Failure> {
        let files = entity_config_files(&config)?;
        let metrics = Metrics::new(&Labels::new(files.iter().map(|file| &file.entity_type)));
        Self::with(config, files, metrics, site).await
    }

    /// Does the same without entity configs, for the job that writes them.
    ///
    /// # Errors
    ///
    /// As [`Online::open`].
    pub async fn without_layouts(config: Config) -> Result<Self, Failure> {
        Self::with(config, Vec::new(), Metrics::default(), SiteAtStart::Required).await
    }

    /// Does the same with entity configs and metrics that the caller has made.
    ///
    /// # Errors
    ///
    /// As [`Online::open`].
    pub async fn with(
        config: Config,
        files: Vec<EntityConfigFile>,
        metrics: Metrics,
        site: SiteAtStart,
    ) -> Result<Self, Failure> {
        let client = client(&config, &metrics)?;
        let state = State::open(&config.data_dir).await?;
        let schema = match site {
            SiteAtStart::OptionalWithTypes if !has_complete_type(&state, &files).await? => {
                required(&client, &state).await?
            }
            SiteAtStart::Required => required(&client, &state).await?,
            SiteAtStart::OptionalWithTypes | SiteAtStart::Optional => optional(&client, &state).await?,
        };
        let layouts = remembered_layouts(&files, &schema, &state).await?;
        let lease = leadership::lease(&config, &state).await?;
        let store = open_store(&config, &metrics, lease.as_ref()).await?;
        Ok(Self { config, state, store, lease, client, schema, layouts, metrics })
    }
}

/// Tells whether some configured type was imported whole.
async fn has_complete_type(state: &State, files: &[EntityConfigFile]) -> Result<bool, Failure> {
    let complete =
        state.types().await?.into_iter().filter(|ty| matches!(ty.state, TypeState::Live | TypeState::Degraded));
    Ok(complete.into_iter().any(|ty| files.iter().any(|file| file.entity_type == ty.entity_type)))
}

/// Asks the site for its schema. While the site is away, the one that it last
/// showed has to do: what is cached is not lost.
async fn required(client: &Client, state: &State) -> Result<Schema, Failure> {
    match client.schema().await {
        Ok(schema) => {
            state.keep_schema(client.site(), &schema).await?;
            Ok(schema)
        }
        Err(error) if error.kind().is_transient() => match state.kept_schema(client.site()).await? {
            Some(schema) => {
                tracing::warn!(%error, "the site is away, going on with its last schema");
                Ok(schema)
            }
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Asks the site for its schema, but waits for it no longer than callers would. With
/// the last one everything stored can be served, also while the site refuses the
/// script: sync goes on asking and reads the schema when the site answers.
async fn optional(client: &Client, state: &State) -> Result<Schema, Failure> {
    let Some(kept) = state.kept_schema(client.site()).await? else { return required(client, state).await };
    let reason = match tokio::time::timeout(START_PATIENCE, client.schema()).await {
        Ok(Ok(schema)) => {
            state.keep_schema(client.site(), &schema).await?;
            return Ok(schema);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", START_PATIENCE.as_secs()),
    };
    tracing::warn!(reason, "the site gives no schema: serving what is stored, and asking again");
    state.request_schema().await?;
    Ok(kept)
}
