//! Completion in shells: the program itself is asked for what may follow, so that the names
//! of pipelines, entity types and runs are among it.
//!
//! The shell calls the program with `COMPLETE` set at every press of a key, so nothing here
//! opens a store or asks the site, and a directory without a configuration completes nothing.

use std::path::PathBuf;

use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;

use super::context::environment;
use super::failure::Failure;
use crate::config;
use crate::pipeline::read_documents;

/// What a shell sets to ask for completion.
const VARIABLE: &str = "COMPLETE";

/// Answers a shell that asks, and ends the process then.
pub(super) fn answer_shell(command: fn() -> clap::Command) {
    CompleteEnv::with_factory(command).var(VARIABLE).complete();
}

/// Prints what a shell reads at its start, so that it asks this program.
///
/// # Errors
///
/// When the script cannot be made for the shell.
pub(super) fn print_script(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer = shells.completer(&name).ok_or_else(|| Failure::usage(format!("no completion for {name}")))?;
    let write = completer.write_registration(VARIABLE, "sgcache", "sgcache", "sgcache", &mut std::io::stdout());
    write.map_err(|error| Failure::internal(format!("the script cannot be printed: {error}")))?;
    Ok(0)
}

/// Completes names of pipelines.
pub(super) fn pipelines() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let (documents, _) = read_documents(&directory().join("pipelines"));
        let named = documents.iter().filter_map(|document| {
            let value = document.value();
            let candidate = CompletionCandidate::new(value.get("name")?.as_str()?);
            let help = value.get("description").and_then(serde_json::Value::as_str);
            Some(candidate.help(help.map(|help| help.to_owned().into())))
        });
        named.collect()
    })
}

/// Completes configured entity types.
pub(super) fn entity_types() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let entries = std::fs::read_dir(directory().join("entityConfig"));
        let names = entries.into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_config = path.extension().is_some_and(|end| end == "json");
            let name = path.file_stem()?.to_str()?.to_owned();
            is_config.then(|| CompletionCandidate::new(name))
        });
        names.collect()
    })
}

/// The directory of `config.yaml`: that of `-c` is not known here, the environment's is.
fn directory() -> PathBuf {
    let path = config::locate(None, &environment());
    path.parent().map(PathBuf::from).unwrap_or_default()
}
