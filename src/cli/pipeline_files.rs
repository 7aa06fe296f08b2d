//! The pipeline files beside `config.yaml`, loaded for commands and for the daemon, and how
//! pipelines are chosen by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::Failure;
use super::engine::resolve_context;
use super::output::drawn;
use crate::config::Config;
use crate::entity_config::EntityConfigFile;
use crate::entity_config_files;
use crate::pipeline::{self, EntityCatalog, Loaded, Pipeline, ResolveContext, Typical};
use crate::report::history;
use crate::schema::Schema;
use crate::sim::stock_schema;
use crate::state::{RunFilter, State};

/// So many of the newest runs say how long one usually takes.
const USUAL_RUNS: usize = 50;

/// Loads every pipeline beside `config.yaml`.
///
/// # Errors
///
/// All problems of all files, drawn.
pub async fn load(config: &Config) -> Result<Vec<Arc<Pipeline>>, Failure> {
    let Loaded { pipelines, problems } = load_what_fits(config).await;
    if problems.has_errors() {
        return Err(Failure::problems(problems));
    }
    if !problems.is_empty() {
        eprintln!("{}", drawn(&problems));
    }
    Ok(pipelines)
}

/// Loads the pipelines of the files without errors.
pub async fn load_what_fits(config: &Config) -> Loaded {
    pipeline::load_what_fits(&config.pipelines_dir(), &resolve_context_with_entities(config).await)
}

/// Returns what pipelines are resolved against, with the types and fields that they may
/// name.
pub async fn resolve_context_with_entities(config: &Config) -> ResolveContext {
    let files = entity_config_files::read_all(&config.entity_config_dir()).map(|(files, _)| files).unwrap_or_default();
    let entities = catalog(&files, last_schema(config).await, false);
    ResolveContext { entities, ..resolve_context(config) }
}

/// Returns the schema that the site last showed, or that of a stock site. A state that
/// cannot be read is an error of the commands that need it.
pub async fn last_schema(config: &Config) -> Schema {
    let Ok(Some(state)) = open_state(config).await else { return stock_schema() };
    let kept = state.kept_schema(&config.shotgun.site).await.ok().flatten();
    kept.unwrap_or_else(stock_schema)
}

/// Returns what pipelines may name: what the entity configs hold, and a schema;
/// `None` while there is no entity config.
pub fn catalog(files: &[EntityConfigFile], schema: Schema, is_of_site: bool) -> Option<Arc<EntityCatalog>> {
    let fields = |file: &EntityConfigFile| file.config.fields.keys().cloned().collect();
    let cached: BTreeMap<_, _> = files.iter().map(|file| (file.entity_type.to_string(), fields(file))).collect();
    (!cached.is_empty()).then(|| Arc::new(EntityCatalog::new(cached, schema, is_of_site)))
}

/// Warns on stderr about files with errors, for commands that continue without them.
pub fn warn_about_files(loaded: &Loaded) {
    if loaded.problems.has_errors() {
        eprintln!("{}", drawn(&loaded.problems));
        eprintln!("warning: these files have errors; a running daemon keeps the pipelines it has loaded before");
    }
}

/// Chooses pipelines by name; without a name, every enabled one.
///
/// # Errors
///
/// Words about a name that is not there.
pub fn selected(pipelines: Vec<Arc<Pipeline>>, names: &[String]) -> Result<Vec<Arc<Pipeline>>, Failure> {
    if names.is_empty() {
        return Ok(pipelines.into_iter().filter(|pipeline| pipeline.enabled).collect());
    }
    names.iter().map(|name| pipeline::find(&pipelines, name).cloned().map_err(Failure::usage)).collect()
}

/// Chooses the pipelines of a daemon: the named ones, or all. Disabled ones are
/// among them, so that the daemon can say that they are disabled.
///
/// # Errors
///
/// Words about a name that is not there.
pub fn among(pipelines: Vec<Arc<Pipeline>>, names: &[String]) -> Result<Vec<Arc<Pipeline>>, Failure> {
    if names.is_empty() { Ok(pipelines) } else { selected(pipelines, names) }
}

/// Writes an instant in the time of a zone, with the name of the zone.
pub fn in_zone(time: Option<DateTime<Utc>>, zone: Tz) -> String {
    time.map_or_else(
        || "-".to_owned(),
        |at| format!("{} {}", at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S"), zone.name()),
    )
}

/// Returns how long runs of each pipeline usually take; nothing of a pipeline that has not
/// run, or where the state cannot be read.
pub async fn usual_durations(config: &Config, pipelines: &[Arc<Pipeline>]) -> BTreeMap<String, TimeDelta> {
    let mut durations = BTreeMap::new();
    let Ok(Some(state)) = open_state(config).await else { return durations };
    for pipeline in pipelines {
        let usual = usual_runs(&state, &pipeline.name).await;
        durations.extend(usual.map(|usual| (pipeline.name.clone(), usual.duration())));
    }
    durations
}

/// Returns what runs of a pipeline usually take, if it has run and its runs can be read.
pub async fn usual_runs(state: &State, name: &str) -> Option<Typical> {
    let filter = RunFilter { pipeline: Some(name.to_owned()), ..RunFilter::default() };
    Typical::of(&history::find(state, USUAL_RUNS, filter).await.ok()?)
}

/// Opens the state of a data directory; `None` before the first start.
///
/// # Errors
///
/// When the state is there and cannot be opened.
pub async fn open_state(config: &Config) -> Result<Option<State>, Failure> {
    let exists = config.data_dir.join("state.sqlite").exists();
    Ok(if exists { Some(State::open(&config.data_dir).await?) } else { None })
}
