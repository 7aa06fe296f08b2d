//! The log of a run: what was logged while it ran, one JSON object per line, in
//! `run-logs/` of the data directory. Read by every process that has the directory,
//! also while the run goes on.
//!
//! A log is two files, `RUN.ndjson` and, once that was full, `RUN.older.ndjson`: a
//! continuous run lasts for weeks, and its newest lines count. Lines are numbered, so a
//! reader goes on where it was whatever was dropped meanwhile, and sees a gap.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;

use crate::entity::Timestamp;
use crate::state::{State, StateError};

/// The directory of the logs, in the data directory.
pub const RUN_LOG_DIRECTORY: &str = "run-logs";
const NEWER_END: &str = ".ndjson";
const OLDER_END: &str = ".older.ndjson";

/// One line of the log of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number within the run, from 0. Numbers between two lines that are not there are
    /// lines that were dropped or could not be written.
    pub number: u64,
    /// When it was logged, by the clock of this machine.
    pub at: DateTime<Utc>,
    /// `error`, `warn` or `info`.
    pub level: String,
    /// The step that logged it; `None` for lines about the run itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What happened.
    pub message: String,
    /// Values, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// Some lines of a log, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// The number to read from next.
    pub next: u64,
}

/// Returns up to `limit` lines of the log of a run, from the line with the number `from`
/// on. A run without a log, and a text that is not the id of a run, have no lines.
///
/// # Errors
///
/// When the log is there and cannot be read.
pub async fn read(data_dir: &Path, run_id: &str, from: u64, limit: usize) -> io::Result<LogPage> {
    let Some(paths) = LogPaths::of(data_dir, run_id) else { return Ok(LogPage { lines: Vec::new(), next: from }) };
    let lines = tokio::task::spawn_blocking(move || paths.lines(from, limit)).await.map_err(io::Error::other)??;
    let next = lines.last().map_or(from, |line| line.number + 1);
    Ok(LogPage { lines, next })
}

/// Removes the logs of runs that began before a moment, are not in the history any more,
/// and have no process that runs them; returns how many runs that were.
///
/// # Errors
///
/// When the data directory or the state cannot be read. A log that cannot be removed
/// stays, with a warning.
pub async fn prune(state: &State, before: Timestamp) -> Result<u64, StateError> {
    let directory = state.directory().join(RUN_LOG_DIRECTORY);
    let failed = |source| StateError::Directory { path: directory.clone(), source };
    // Before the history: a run that begins meanwhile is newer than the moment.
    let begun = begun_before(&directory, before).map_err(failed)?;
    let known = state.run_ids().await?;
    let mut removed = 0;
    for run_id in begun.difference(&known) {
        if state.is_run_owned(run_id).await? {
            continue;
        }
        match LogPaths::of(state.directory(), run_id).map_or(Ok(()), |paths| paths.remove()) {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(%error, run_id, "the log of a run cannot be removed"),
        }
    }
    Ok(removed)
}

/// Returns the runs with a log that began before a moment: the time is in the id.
fn begun_before(directory: &Path, before: Timestamp) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let is_before = |id: &Ulid| i64::try_from(id.timestamp_ms() / 1000).is_ok_and(|begun| begun < before.0);
    let run_id = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let id = Ulid::from_string(name.to_str()?.split('.').next()?).ok()?;
        is_before(&id).then(|| id.to_string())
    };
    Ok(entries.filter_map(|entry| run_id(entry.ok()?)).collect())
}

/// The files of one log.
#[derive(Debug, Clone)]
pub(super) struct LogPaths {
    /// The file that is written to.
    pub newer: PathBuf,
    /// The file before it.
    pub older: PathBuf,
}

impl LogPaths {
    /// Returns the files of a run; `None` for what is not the id of a run, which could
    /// name any file.
    pub(super) fn of(data_dir: &Path, run_id: &str) -> Option<LogPaths> {
        let id = Ulid::from_string(run_id).ok()?;
        let file = |end: &str| data_dir.join(RUN_LOG_DIRECTORY).join(format!("{id}{end}"));
        Some(LogPaths { newer: file(NEWER_END), older: file(OLDER_END) })
    }

    fn lines(&self, from: u64, limit: usize) -> io::Result<Vec<LogLine>> {
        // Opened in this order, a file that is renamed meanwhile is read twice and not
        // missed; the numbers tell.
        let newer = open(&self.newer)?;
        let older = open(&self.older)?;
        let mut lines: Vec<LogLine> = Vec::new();
        for file in [older, newer].into_iter().flatten() {
            for line in parse(file)? {
                let is_next = lines.last().is_none_or(|last| last.number < line.number);
                if is_next && line.number >= from && lines.len() < limit {
                    lines.push(line);
                }
            }
        }
        Ok(lines)
    }

    fn remove(&self) -> io::Result<()> {
        for path in [&self.older, &self.newer] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Returns the lines of a file. A last line that is being written, or that a crash cut
/// off, is not one yet.
fn parse(mut file: File) -> io::Result<Vec<LogLine>> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}
