//! Why the state could not be read or written.

use std::path::PathBuf;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}")]
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
    /// SQLite failed.
    #[error("the state cannot be read or written")]
    Sqlite(#[from] rusqlite::Error),
}

impl StateError {
    /// Tells whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        let (Self::Sqlite(source) | Self::Open { source, .. }) = self else {
            return false;
        };
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    pub(super) fn malformed(what: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Malformed { what, message: error.to_string() }
    }
}
