//! The access log: one line per call, who asked what, how much was given, and by whom.
//! Never a key, never a value. The ledger is counted from the same lines.
//!
//! Lines go through a thread of their own, so that no caller waits for the disk; it
//! sleeps between two looks, so that not every call has to wake it. A file that has
//! grown too long becomes `audit.ndjson.1`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

use super::envelope::Asked;
use super::ledger_feed;
use super::reason::Pass;
use crate::private_files;
use crate::report::ledger::Recorder;

/// Lines that wait for the disk at most; what is more is counted.
const QUEUE: usize = 8192;
/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(50);
/// A file longer than this is rotated.
const LONGEST: u64 = 64 << 20;

/// One call.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    /// When, by the clock of this machine.
    #[serde(serialize_with = "milliseconds")]
    pub at: DateTime<Utc>,
    pub caller: String,
    pub method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_type: Option<String>,
    /// `hit`, `stale`, `pass` or `refused`.
    pub decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Rows given from the cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
    pub status: u16,
    pub milliseconds: f64,
    /// Why the site was asked; for the ledger.
    #[serde(skip)]
    pub pass: Option<Pass>,
    /// What was asked, where it is short and the site answered; for the ledger.
    #[serde(skip)]
    pub asked: Option<Arc<Asked>>,
}

fn milliseconds<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Takes lines; when it is dropped, all of them are in the file.
pub(super) struct AccessLog {
    lines: Option<SyncSender<Entry>>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Begins to write to `audit.ndjson` in a directory, and to count in a ledger.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(directory: &Path, ledger: Arc<Recorder>) -> io::Result<Self> {
        let path = directory.join("audit.ndjson");
        let file = open_file(&path)?;
        let (lines, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&path, file, &receiver, &ledger))?;
        Ok(Self { lines: Some(lines), thread: Some(thread) })
    }

    /// Writes a line; tells whether there was room for it.
    pub fn record(&self, entry: Entry) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.try_send(entry).is_ok())
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    private_files::open(path, OpenOptions::new().append(true))
}

fn write(path: &PathBuf, file: File, receiver: &Receiver<Entry>, ledger: &Recorder) {
    let mut length = file.metadata().map_or(0, |meta| meta.len());
    let mut out = BufWriter::new(file);
    while let Ok(first) = receiver.recv() {
        std::thread::sleep(GATHER);
        let mut next = Some(first);
        while let Some(entry) = next {
            ledger_feed::count(ledger, &entry);
            let line = serde_json::to_string(&entry).unwrap_or_default();
            length += line.len() as u64 + 1;
            if let Err(error) = writeln!(out, "{line}") {
                tracing::error!(%error, path = %path.display(), "the access log could not be written");
            }
            next = receiver.try_recv().ok();
        }
        // Nobody waits, so what was said is on its way to the disk.
        if let Err(error) = out.flush() {
            tracing::error!(%error, path = %path.display(), "the access log could not be written");
        }
        if length > LONGEST {
            match std::fs::rename(path, path.with_extension("ndjson.1")).and_then(|()| open_file(path)) {
                Ok(file) => (out, length) = (BufWriter::new(file), 0),
                Err(error) => tracing::error!(%error, path = %path.display(), "the access log could not be rotated"),
            }
        }
    }
}
