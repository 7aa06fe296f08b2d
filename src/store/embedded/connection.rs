//! Opening the file: pragmas, the format version, refusals that say why.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use crate::private_files::{self, FileIdentity, identity};

use super::super::{Result, StoreError, StoreErrorKind};
use super::EmbeddedSettings;
use super::error::wrap;
use super::{changes, definitions};

/// The version of the tables, in `user_version`.
///
/// 1: indexes on the narrow tables. 2: none, and `changes`. 3: documents may have a
/// checksum, which earlier versions cannot read.
const FORMAT: i64 = 3;

/// The bytes `sgca`, in `application_id`: this file is ours.
const APPLICATION: i64 = 0x7367_6361;

const PAGE_SIZE: i64 = 4096;

/// Opens the connection that writes, and makes the tables of a new file.
pub(super) fn open_writer(settings: &EmbeddedSettings) -> Result<Connection> {
    // SQLite finds what is wrong with the path, too, and says it better.
    let _ = private_files::create_database(&settings.path);
    let connection = Connection::open(&settings.path).map_err(|error| located(settings, wrap("open")(error)))?;
    prepare(&connection, settings).map_err(|error| located(settings, error))?;
    Ok(connection)
}

/// Renames the files, over those that were renamed before, and makes an empty
/// one. No connection may have them open.
pub(super) fn replace(settings: &EmbeddedSettings) -> Result<(Connection, Option<FileIdentity>)> {
    for suffix in ["", "-wal", "-shm"] {
        let named = |name: &str| {
            let mut path = settings.path.clone().into_os_string();
            path.push(name);
            PathBuf::from(path)
        };
        let (from, to) = (named(suffix), named(&format!(".damaged{suffix}")));
        match std::fs::rename(&from, &to) {
            Ok(()) => tracing::error!(from = %from.display(), to = %to.display(), "damaged file renamed"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let words = format!("cannot move {} to {}: {error}", from.display(), to.display());
                return Err(StoreError::new(StoreErrorKind::Refused, words).because(error));
            }
        }
    }
    let connection = open_writer(settings)?;
    Ok((connection, identity(&settings.path)))
}

/// Opens a connection that only reads.
pub(super) fn open_reader(settings: &EmbeddedSettings) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&settings.path, flags).map_err(wrap("open"))?;
    tune(&connection, settings).and_then(|()| map(&connection)).map_err(wrap("open"))?;
    Ok(connection)
}

fn prepare(connection: &Connection, settings: &EmbeddedSettings) -> Result<()> {
    connection.busy_timeout(settings.busy_timeout)?;
    check_format(connection)?;
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    // The answer is the mode that was reached; on a file system that cannot do
    // WAL it is another one, and everything still works, slower.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 10_000)?;
    tune(connection, settings)?;
    if let Some(bytes) = settings.max_bytes {
        connection
            .query_row(&format!("PRAGMA max_page_count = {}", bytes / PAGE_SIZE.unsigned_abs()), [], |_| Ok(()))?;
    }
    create(connection)?;
    // Without these nothing could be read that says what else there is.
    definitions::check(connection, std::iter::empty())
}

fn tune(connection: &Connection, settings: &EmbeddedSettings) -> rusqlite::Result<()> {
    connection.busy_timeout(settings.busy_timeout)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(())
}

/// Lets a reader take pages from the system's cache without copying them.
fn map(connection: &Connection) -> rusqlite::Result<()> {
    // The answer is the size that was granted.
    connection.query_row("PRAGMA mmap_size = 2147483648", [], |_| Ok(())).or_else(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        other => Err(other),
    })
}

fn check_format(connection: &Connection) -> Result<()> {
    let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let (format, application) = (pragma("user_version")?, pragma("application_id")?);
    if application != APPLICATION && (application != 0 || format != 0) {
        return Err(StoreError::new(StoreErrorKind::Refused, "the file belongs to another program"));
    }
    if format > FORMAT {
        let message = format!(
            "the file was written by a newer sgcache (format {format}, this one knows {FORMAT}): use that version, or another data_dir"
        );
        return Err(StoreError::new(StoreErrorKind::Newer, message));
    }
    Ok(())
}

fn create(connection: &Connection) -> Result<()> {
    let transaction = rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
    let format: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match format {
        0 => transaction.execute_batch(definitions::TABLES)?,
        1 => drop_indexes(&transaction)?,
        2 => {}
        _ => return Ok(()),
    }
    if format < 2 {
        transaction.execute_batch(changes::TABLE)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    Ok(transaction.commit()?)
}

/// Takes the indexes away that narrow tables had before their columns were kept in
/// memory.
fn drop_indexes(transaction: &rusqlite::Transaction<'_>) -> Result<()> {
    let mut statement = transaction.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND name GLOB 'row_*_by_*' AND sql IS NOT NULL",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    for name in names {
        transaction.execute(&format!("DROP INDEX {name}"), [])?;
    }
    Ok(())
}

fn located(settings: &EmbeddedSettings, error: StoreError) -> StoreError {
    StoreError::new(error.kind(), format!("{}: {error}", settings.path.display())).because(error)
}
