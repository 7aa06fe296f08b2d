//! Why the state could not be read or written.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// The result of everything here.
pub type Result<T, E = StateError> = std::result::Result<T, E>;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path} (`data_dir`)")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The reason of the system.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason of SQLite.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "{path} was written by a newer sgcache (format {found}, this one knows {known}): \
         use that version, or another data_dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The newest format known here.
        known: i64,
    },
    /// Another process follows the site for this directory.
    #[error("another sgcache follows this data directory ({path} is locked)")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Something stored cannot be understood.
    #[error("the state holds a malformed {what}: {message}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The process ends; nothing was read or written.
    #[error("this process is stopping: the state is no longer read or written")]
    Stopping,
    /// SQLite failed.
    #[error("state.sqlite cannot be read or written: {}", words(.0))]
    Sqlite(#[from] rusqlite::Error),
}

impl StateError {
    /// Tells whether nothing can be written until an operator acts: a full disk, a
    /// read-only file, a broken disk.
    pub fn is_write_refused(&self) -> bool {
        use ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        let (Self::Sqlite(source) | Self::Open { source, .. }) = self else {
            return false;
        };
        matches!(source.sqlite_error_code(), Some(DiskFull | ReadOnly | SystemIoFailure | CannotOpen))
    }

    /// Tells whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        let (Self::Sqlite(source) | Self::Open { source, .. }) = self else {
            return false;
        };
        source.sqlite_error_code() == Some(ErrorCode::DiskFull)
    }

    /// Tells whether another process has it.
    pub fn is_locked(&self) -> bool {
        match self {
            Self::Locked { .. } => true,
            Self::Sqlite(source) | Self::Open { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
            _ => false,
        }
    }

    pub(super) fn malformed(what: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Malformed { what, message: error.to_string() }
    }
}

/// Says what SQLite means, and what can be done about it.
fn words(error: &rusqlite::Error) -> String {
    let meaning = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "there is no room left on the disk of `data_dir`; make room, nothing stored is lost"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process is writing to it; stop it, or try again"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "this user may not write to `data_dir`"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "the file is damaged; stop sgcache, move state.sqlite, state.sqlite-wal and state.sqlite-shm out of \
             `data_dir`, and start it: every type is imported anew"
        }
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}
