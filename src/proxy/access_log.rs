//! The access log: one line per call, who asked what, how much was given, and by whom.
//! Never a key, never a value. The ledger is counted from the same lines.
//!
//! Lines go through a thread of their own, so that no caller waits for the disk; it
//! sleeps between two looks, so that not every call has to wake it. A file that has
//! grown too long becomes `audit.ndjson.1`.
//!
//! A panic of the thread costs the line in hand, which is counted as dropped, and begins
//! its work anew; after [`MAX_PANICS`] of them without a line written between, the thread
//! ends, which [`AccessLog::ended`] shows: calls that leave no line any more are a
//! failure of the process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use super::envelope::Asked;
use super::ledger_feed;
use super::reason::Pass;
use crate::metrics::Metrics;
use crate::private_files;
use crate::report::ledger::Recorder;
use crate::supervisor::{meet_on_thread, panic_text};

/// Lines that wait for the disk at most; what is more is counted.
const QUEUE: usize = 8192;
/// How long a line may wait for others.
const GATHER: Duration = Duration::from_millis(50);
/// A file longer than this is rotated.
const LONGEST: u64 = 64 << 20;
/// So many panics without a line written between, and the thread ends.
const MAX_PANICS: u32 = 5;
/// Its name in `sgcache_loop_restarts_total` and among the fault points.
const NAME: &str = "access_log";
/// What is shown when the thread has ended.
pub(super) const ENDED: &str = "the thread that writes the access log and counts for the ledger has ended";

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
    ended: CancellationToken,
}

impl AccessLog {
    /// Begins to write to `audit.ndjson` in a directory, and to count in a ledger.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(directory: &Path, ledger: Arc<Recorder>, metrics: &Metrics) -> io::Result<Self> {
        let path = directory.join("audit.ndjson");
        let file = open_file(&path)?;
        let (lines, receiver) = sync_channel(QUEUE);
        let (ended, metrics) = (CancellationToken::new(), metrics.clone());
        let ends = ended.clone().drop_guard();
        let length = file.metadata().map_or(0, |meta| meta.len());
        let mut writer =
            Writer { path, out: BufWriter::new(file), length, ledger, in_hand: None, is_counted: false, written: 0 };
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || {
            let _ends = ends;
            writer.keep_writing(&receiver, &metrics);
        })?;
        Ok(Self { lines: Some(lines), thread: Some(thread), ended })
    }

    /// Waits until the thread has ended: no line is written any more.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
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

/// What the thread works with.
struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    length: u64,
    ledger: Arc<Recorder>,
    /// The line that is being written, for as long as it is not in the buffer.
    in_hand: Option<Entry>,
    /// Whether the ledger has it.
    is_counted: bool,
    /// Lines written since the last panic.
    written: u64,
}

impl Writer {
    /// Writes until the handle is dropped; begins anew after a panic.
    fn keep_writing(&mut self, receiver: &Receiver<Entry>, metrics: &Metrics) {
        let mut panics = 0;
        while panics < MAX_PANICS {
            let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.write(receiver))) else { return };
            panics = if std::mem::take(&mut self.written) > 0 { 1 } else { panics + 1 };
            let reason = panic_text(&*panic);
            tracing::error!(reason, panics, "the thread that writes the access log panicked: it begins anew");
            metrics.loops.restarts.inc(&[NAME, "panic"]);
            // Dropped, so that a line that cannot be written is not met again.
            if self.in_hand.take().is_some() {
                metrics.proxy.audit_dropped.inc();
                if !self.is_counted {
                    ledger_feed::note_uncounted(&self.ledger);
                }
            }
        }
        tracing::error!("{ENDED}");
    }

    fn write(&mut self, receiver: &Receiver<Entry>) {
        // What a panic left in the buffer.
        self.flush();
        while let Ok(first) = receiver.recv() {
            std::thread::sleep(GATHER);
            let mut next = Some(first);
            while let Some(entry) = next {
                self.add(entry);
                next = receiver.try_recv().ok();
            }
            // Nobody waits, so what was said is on its way to the disk.
            self.flush();
            self.rotate_when_long();
        }
    }

    fn add(&mut self, entry: Entry) {
        self.is_counted = false;
        let entry = self.in_hand.insert(entry);
        meet_on_thread(NAME);
        ledger_feed::count(&self.ledger, entry);
        self.is_counted = true;
        let written = serde_json::to_string(entry).map_err(io::Error::from).and_then(|line| {
            self.length += line.len() as u64 + 1;
            writeln!(self.out, "{line}")
        });
        if let Err(error) = written {
            tracing::error!(%error, path = %self.path.display(), "the access log could not be written");
        }
        self.in_hand = None;
        self.written += 1;
    }

    fn flush(&mut self) {
        if let Err(error) = self.out.flush() {
            tracing::error!(%error, path = %self.path.display(), "the access log could not be written");
        }
    }

    fn rotate_when_long(&mut self) {
        if self.length <= LONGEST {
            return;
        }
        let rotated = std::fs::rename(&self.path, self.path.with_extension("ndjson.1"));
        match rotated.and_then(|()| open_file(&self.path)) {
            Ok(file) => (self.out, self.length) = (BufWriter::new(file), 0),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the access log could not be rotated");
            }
        }
    }
}
