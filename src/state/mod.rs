//! What sync must remember: one SQLite file, `state.sqlite` in the data directory.
//!
//! One file per noun; every function is one transaction. Nothing here knows
//! Shotgun, stores or the local clock: moments are passed in as [`SiteTime`],
//! the time of the site.
//!
//! Every function is asynchronous: SQLite waits for disks and for other
//! processes, and the threads that serve the network must not. `State::read` and
//! `State::write` are the only ways to a connection; they hand the work to a
//! thread of the blocking pool. A caller that stops waiting changes nothing: what
//! has begun is committed whole, what has not begun does nothing.
//!
//! The file is shared by processes (the daemon and jobs beside it), so order is
//! made by transactions here: a read takes its version and the generation of
//! marks that it covers in one of them ([`State::begin_read`]).

mod absences;
mod as_of;
mod credentials;
mod dead_letters;
mod error;
mod expected;
mod fresh;
mod gaps;
mod history;
mod leader;
mod locks;
mod dirty;
mod outbox;
mod poll;
mod reads;
mod rows;
mod schema;
mod stream;
mod tables;
mod types;
mod unreadable;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Mutex;

pub use absences::{OpenBreaker, SuspectedAbsence};
pub use as_of::AsOf;
pub use credentials::CredentialRecord;
pub use dead_letters::{Dead, DeadKind, NewDead};
pub use dirty::{DirtyKey, DirtyReasons, NewDirtyKey, Postponed, ROWS_BEHIND};
pub use error::{Result, StateError};
pub use expected::{Announcement, EntryTime, Expected, ExpectedField, ExpectedLink, LIFE, MAX_VALUES};
pub use fresh::{ReplicationStatus, TypeReplicationStatus};
pub use gaps::{Gap, Gaps};
pub use history::{KeptValues, RunFilter, RunRow, SKIPPED_OCCURRENCE};
pub use leader::LeaderLock;
pub use locks::ProcessLock;
pub use outbox::{OutboxDocument, RefusedDocument, WaitingDocument};
pub use poll::{PollCommit, PollCommitted, PollStart, Sweep};
pub use reads::{Cleared, Finish, Finished, ReadToken, RowDone, RowOutcome};
pub use rows::{BucketCount, RowMeta};

pub use crate::entity::RowState;
pub use stream::{Fingerprint, Stream};
pub use types::{ImportState, Segment, SegmentStep, TypeRecord, TypeState};
pub use unreadable::Unreadable;

use crate::entity::Timestamp;
use crate::private_files::{self, FileIdentity};

/// A moment of the site's clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SiteTime(pub i64);

impl SiteTime {
    /// Returns the moment that much later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the moment that much earlier.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns the time since `earlier`, zero when that lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the moment in whole seconds, rounded down.
    pub fn timestamp(self) -> Timestamp {
        Timestamp(self.0.div_euclid(1000))
    }
}

impl From<Timestamp> for SiteTime {
    fn from(moment: Timestamp) -> Self {
        Self(moment.0.saturating_mul(1000))
    }
}

/// A handle on the state file; clones share it.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    /// The file that the connections have open.
    opened: Option<FileIdentity>,
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "State({})", self.0.directory.display())
    }
}

/// The name of the file in the data directory.
const FILE: &str = "state.sqlite";

impl State {
    /// Opens `state.sqlite` in `directory` and creates both if need be.
    ///
    /// # Errors
    ///
    /// [`StateError::Newer`] when a newer version of this program wrote the file:
    /// it is left as it is.
    pub async fn open(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        on_blocking_thread(move || Self::open_files(&directory)).await
    }

    fn open_files(directory: &Path) -> Result<Self> {
        private_files::create_directory(directory)
            .map_err(|source| StateError::Directory { path: directory.to_owned(), source })?;
        let path = directory.join(FILE);
        if path.exists() {
            tables::refuse_newer(&path)?;
        }
        let mut writer = connect(&path)?;
        tables::migrate(&mut writer, &path)?;
        let reader = connect(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        let shared = |connection| Arc::new(Mutex::new(connection));
        let (writer, reader) = (shared(writer), shared(reader));
        let opened = private_files::identity(&path);
        Ok(Self(Arc::new(Inner { directory: directory.to_owned(), opened, writer, reader })))
    }

    /// Returns what is wrong when the file that is written is no longer the one of that name:
    /// nothing fails then, and all that is written is lost with this process.
    pub async fn lost_file(&self) -> Option<String> {
        let (path, opened) = (self.0.directory.join(FILE), self.0.opened);
        let looked = on_blocking_thread(move || Ok((private_files::identity(&path), path))).await;
        // Only a process that ends cannot look.
        let (found, path) = looked.ok()?;
        let words = "was removed or replaced while it was in use: put it back, or restart sgcache to import anew";
        (found != opened).then(|| format!("{} {words}", path.display()))
    }

    /// Returns the data directory.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Runs `change` in one transaction that is on disk when this returns.
    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut connection = Arc::clone(&self.0.writer).lock_owned().await;
        on_blocking_thread(move || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let made = change(&transaction)?;
            transaction.commit()?;
            Ok(made)
        })
        .await
    }

    /// Runs `query` on one consistent view of everything committed so far.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut connection = Arc::clone(&self.0.reader).lock_owned().await;
        on_blocking_thread(move || query(&*connection.transaction()?)).await
    }
}

/// Runs `work` where waiting for a disk delays no other task.
async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            // An open transaction was rolled back when it was dropped.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StateError::Stopping),
        },
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let unusable = |source| StateError::Directory { path: path.to_owned(), source };
    private_files::create_database(path).map_err(unusable)?;
    let connection = Connection::open(path).map_err(|source| StateError::Open { path: path.to_owned(), source })?;
    connection.busy_timeout(Duration::from_secs(20))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A mark that was committed must survive a power cut: it is the only trace
    // of an event that will not be read again.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

#[cfg(test)]
mod tests;
