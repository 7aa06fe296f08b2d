//! Who follows the site: one process per data directory.
//!
//! The lock belongs to the open file, so the system frees it when the process
//! ends, however it ends.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::PathBuf;

use super::{Result, State, StateError, on_blocking_thread};
use crate::private_files;

/// The bits of a read version below its epoch.
const EPOCH_SHIFT: u32 = 40;
/// Where the name of the data directory is kept.
const MEMBER: &str = "cluster/member";

/// The right to follow the site; given back when it is dropped.
#[derive(Debug)]
pub struct LeaderLock {
    file: File,
}

impl Drop for LeaderLock {
    fn drop(&mut self) {
        // Closing the file frees the lock in any case.
        let _ = self.file.unlock();
    }
}

impl State {
    /// Takes the right to follow the site for this data directory.
    ///
    /// # Errors
    ///
    /// [`StateError::Locked`] when another process, or another handle of this
    /// one, has it.
    pub async fn lead(&self) -> Result<LeaderLock> {
        let path = self.directory().join("leader.lock");
        on_blocking_thread(move || lock_file(path)).await
    }

    /// Tells whether some process follows the site for this data directory.
    pub async fn is_led(&self) -> bool {
        matches!(self.lead().await, Err(StateError::Locked { .. }))
    }

    /// Tells whether this process follows the site for this data directory, or polls
    /// it for a job just now.
    pub async fn is_led_here(&self) -> bool {
        let path = self.directory().join("leader.lock");
        let noted = tokio::fs::read_to_string(path).await.unwrap_or_default();
        noted.trim() == std::process::id().to_string() && self.is_led().await
    }

    /// Starts a new epoch of read versions, above that of the highest version in the
    /// store, and returns it. The state may be older than the store, or new beside it;
    /// its versions would be refused by the rows that it has forgotten.
    pub async fn begin_epoch(&self, highest: i64) -> Result<i64> {
        let floor = (highest >> EPOCH_SHIFT) + 1;
        self.write(move |transaction| {
            let sql = "UPDATE stream SET epoch = max(epoch + 1, ?1), seq = 0 RETURNING epoch";
            Ok(transaction.query_row(sql, [floor], |row| row.get(0))?)
        })
        .await
    }

    /// Enters an epoch that was reserved for this data directory, unless a higher one has
    /// begun: no read gets a version of an earlier one any more.
    pub async fn enter_epoch(&self, epoch: i64) -> Result<()> {
        self.write(move |transaction| {
            let sql = "UPDATE stream SET epoch = ?1, seq = 0 WHERE epoch < ?1";
            transaction.execute(sql, [epoch])?;
            Ok(())
        })
        .await
    }

    /// Returns the random name by which this data directory is known among those that
    /// share a cluster; the first call gives it one.
    pub async fn member_name(&self) -> Result<String> {
        let fresh = format!("\"{}\"", ulid::Ulid::new());
        let name: String = self
            .write(move |transaction| {
                let sql = "INSERT INTO kept (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
                transaction.execute(sql, [MEMBER, &fresh])?;
                let sql = "SELECT value FROM kept WHERE name = ?1";
                Ok(transaction.query_row(sql, [MEMBER], |row| row.get(0))?)
            })
            .await?;
        Ok(name.trim_matches('"').to_owned())
    }

    /// Returns the version of the newest read.
    pub async fn newest_version(&self) -> Result<i64> {
        self.read(move |connection| {
            Ok(connection.query_row("SELECT (epoch << 40) | seq FROM stream", [], |row| row.get(0))?)
        })
        .await
    }
}

fn lock_file(path: PathBuf) -> Result<LeaderLock> {
    let directory = |source| StateError::Directory { path: path.clone(), source };
    let file = private_files::open(&path, File::options().read(true).write(true)).map_err(directory)?;
    match file.try_lock() {
        Ok(()) => {
            note_owner(&file);
            Ok(LeaderLock { file })
        }
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(directory(source)),
    }
}

/// Writes the process id into the lock file, for a person who looks for it.
fn note_owner(mut file: &File) {
    // The lock holds without it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
}
