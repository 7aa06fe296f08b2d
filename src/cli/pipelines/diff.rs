//! `sgcache pipelines diff`: the files compared with what the daemon has loaded.
//!
//! The daemon writes down what it runs, at its start and after every reload; so the
//! comparison is possible, too, when files have errors or no daemon runs any more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::context::load_config;
use super::super::output::{self, Output};
use super::super::pipeline_files::{load_what_fits, open_state, warn_about_files};
use super::super::{Failure, status};
use crate::pipeline::{Pipeline, leaves, without_addresses};
use crate::state::{State, StateError};

/// The name under which the state keeps what the daemon has loaded.
const LOADED: &str = "loaded_pipelines";
/// The exit code of differences with `--exit-code`.
const DIFFERENT: u8 = 10;

#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Exit with 10 if anything differs
    #[arg(long)]
    exit_code: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What is kept of a pipeline that was loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Loaded {
    hash: String,
    written: Value,
}

/// How a pipeline differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Difference {
    pipeline: String,
    change: Change,
    /// Only with [`Change::Changed`].
    keys: Vec<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    /// There is a file, and it is not loaded.
    Added,
    /// It is loaded, and there is no file.
    Removed,
    /// Both, with other values.
    Changed,
}

/// A value that differs; `null` is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Key {
    key: String,
    loaded: Value,
    file: Value,
}

/// Writes down what the daemon has loaded.
///
/// # Errors
///
/// When the state cannot be written.
pub async fn remember(state: &State, pipelines: &[Arc<Pipeline>]) -> Result<(), StateError> {
    let loaded: BTreeMap<&str, Loaded> =
        pipelines.iter().map(|pipeline| (pipeline.name.as_str(), Loaded::of(pipeline))).collect();
    state.keep(LOADED, &loaded).await
}

pub async fn run(args: &DiffArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let files = load_what_fits(&config).await;
    warn_about_files(&files);
    let kept: Option<BTreeMap<String, Loaded>> = match open_state(&config).await? {
        Some(state) => state.kept(LOADED).await?,
        None => None,
    };
    let dir = config.data_dir.display();
    let Some(loaded) = kept else {
        return Err(Failure::new(Failure::UNAVAILABLE, format!("no daemon has loaded pipelines on {dir}")));
    };
    if status::of_daemon(&config).await.is_none() {
        eprintln!("note: no daemon runs on {dir}: compared with what the last one had loaded");
    }
    let files = files.pipelines.iter().map(|pipeline| (pipeline.name.clone(), Loaded::of(pipeline))).collect();
    let found = differences(&loaded, &files);
    match args.output {
        Output::Table => print!("{}", text(&found)),
        Output::Json => println!("{}", json!(found)),
        Output::Ndjson => found.iter().for_each(|one| println!("{}", json!(one))),
    }
    Ok(if args.exit_code && !found.is_empty() { DIFFERENT } else { 0 })
}

impl Loaded {
    fn of(pipeline: &Arc<Pipeline>) -> Loaded {
        Loaded { hash: pipeline.hash.clone(), written: without_addresses(&pipeline.written) }
    }
}

fn differences(loaded: &BTreeMap<String, Loaded>, files: &BTreeMap<String, Loaded>) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, before) in loaded {
        let (change, keys) = match files.get(name) {
            None => (Change::Removed, Vec::new()),
            Some(file) if file.hash == before.hash => continue,
            Some(file) => (Change::Changed, changed_keys(&before.written, &file.written)),
        };
        found.push(Difference { pipeline: name.clone(), change, keys });
    }
    let added = files.keys().filter(|name| !loaded.contains_key(*name));
    found.extend(added.map(|name| Difference { pipeline: name.clone(), change: Change::Added, keys: Vec::new() }));
    found.sort_by(|a, b| a.pipeline.cmp(&b.pipeline));
    found
}

fn changed_keys(loaded: &Value, file: &Value) -> Vec<Key> {
    let by_key = |value| leaves(value).into_iter().map(|leaf| (leaf.key, leaf.value)).collect::<BTreeMap<_, _>>();
    let (loaded, file) = (by_key(loaded), by_key(file));
    let mut keys: Vec<&String> = loaded.keys().chain(file.keys()).collect();
    keys.sort();
    keys.dedup();
    let value = |of: &BTreeMap<String, Value>, key: &String| of.get(key).cloned().unwrap_or_default();
    let changed = keys.into_iter().filter(|key| loaded.get(*key) != file.get(*key));
    changed.map(|key| Key { key: key.clone(), loaded: value(&loaded, key), file: value(&file, key) }).collect()
}

fn text(found: &[Difference]) -> String {
    if found.is_empty() {
        return "the files are what is loaded\n".to_owned();
    }
    let mut lines = Vec::new();
    for difference in found {
        let words = match (difference.change, difference.keys.is_empty()) {
            (Change::Added, _) => "only in the files",
            (Change::Removed, _) => "only loaded",
            (Change::Changed, true) => "changed by config.yaml: its defaults, blackouts or time zone",
            (Change::Changed, false) => "changed",
        };
        lines.push(format!("{}: {words}", difference.pipeline));
        for Key { key, loaded, file } in &difference.keys {
            lines.extend((!loaded.is_null()).then(|| format!("  - {key}: {}", output::cell(loaded))));
            lines.extend((!file.is_null()).then(|| format!("  + {key}: {}", output::cell(file))));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}
