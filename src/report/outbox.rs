//! Documents that wait to be delivered, in a table of the state file.
//!
//! They are put there when a run ends, in its transaction if the caller has
//! one, and leave when the server has them. So a server that is away neither
//! fails a run nor loses its record, and a process that dies in between repeats
//! at most a delivery that changes nothing.
//!
//! The table is bounded. When it is full, what was refused goes first, then the
//! oldest mismatches, then validations, and runs last; every one is counted.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::Value;
use tokio::sync::Notify;

use super::documents::{Document, Stream};
use crate::metrics::Metrics;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS outbox (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    stream   TEXT NOT NULL,
    id       TEXT NOT NULL,
    at       INTEGER NOT NULL,  -- milliseconds
    document TEXT NOT NULL,
    refused  TEXT,
    UNIQUE (stream, id)
) STRICT";

/// Why the outbox could not be used.
#[derive(Debug, thiserror::Error)]
#[error("outbox: {0}")]
pub struct OutboxError(#[from] rusqlite::Error);

type Result<T> = std::result::Result<T, OutboxError>;

/// A document that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its place in the queue.
    pub seq: i64,
    /// Where it goes.
    pub stream: Stream,
    /// Its id.
    pub id: String,
    /// When it is about.
    pub at: DateTime<Utc>,
    /// The document as JSON in one line.
    pub source: String,
}

/// A document that the server refuses for what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDocument {
    /// Its place in the queue.
    pub seq: i64,
    /// The stream.
    pub stream: String,
    /// Its id.
    pub id: String,
    /// What the server said.
    pub reason: String,
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    connection: Mutex<Connection>,
    metrics: Metrics,
    limit: u64,
    filled: Notify,
}

impl Outbox {
    /// Opens the outbox in the SQLite file at `path`, creating its table if need be.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or written.
    pub fn open(path: &Path, limit: u64, metrics: Metrics) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        // The file belongs to `state`, which uses the same mode.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.execute_batch(TABLE)?;
        let outbox = Self { connection: Mutex::new(connection), metrics, limit, filled: Notify::new() };
        outbox.show()?;
        Ok(outbox)
    }

    /// Puts documents in, all or none. Those that wait already are left as they are.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn put(&self, documents: &[Document]) -> Result<()> {
        {
            let mut connection = self.connection();
            let transaction = connection.transaction()?;
            let dropped = put_in(&transaction, documents, self.limit)?;
            transaction.commit()?;
            self.metrics.reports.dropped.add(&["full"], dropped);
        }
        self.show()?;
        self.wake();
        Ok(())
    }

    /// Tells the sender that there is something to send.
    pub fn wake(&self) {
        self.filled.notify_one();
    }

    /// Waits until something was put in by this process.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Returns the oldest waiting documents, at most `number`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn waiting(&self, number: usize) -> Result<Vec<Waiting>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT seq, stream, id, at, document FROM outbox
             WHERE refused IS NULL ORDER BY seq LIMIT ?1",
        )?;
        let rows = statement.query_map([number as i64], |row| {
            let stream: String = row.get(1)?;
            // A stream of a newer version: it waits for that version.
            let Some(stream) = Stream::parse(&stream) else { return Ok(None) };
            let (seq, id, source) = (row.get(0)?, row.get(2)?, row.get(4)?);
            let at = DateTime::from_timestamp_millis(row.get(3)?).unwrap_or_default();
            Ok(Some(Waiting { seq, stream, id, at, source }))
        })?;
        let found: rusqlite::Result<Vec<_>> = rows.collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Takes out what was delivered, and sets aside what was refused, with the reason.
    ///
    /// # Errors
    ///
    /// When the file cannot be written; then the same is delivered again, which changes nothing.
    pub fn settle(&self, delivered: &[i64], refused: &[(i64, String)]) -> Result<()> {
        {
            let mut connection = self.connection();
            let transaction = connection.transaction()?;
            for seq in delivered {
                transaction.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
            }
            for (seq, reason) in refused {
                transaction
                    .prepare_cached("UPDATE outbox SET refused = ?2 WHERE seq = ?1")?
                    .execute(params![seq, reason])?;
            }
            transaction.commit()?;
        }
        self.metrics.reports.documents.inc_by(delivered.len() as u64);
        self.metrics.reports.dropped.add(&["refused"], refused.len() as u64);
        self.show()?;
        Ok(())
    }

    /// Returns what was refused, oldest first.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn refused(&self) -> Result<Vec<RefusedDocument>> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT seq, stream, id, refused FROM outbox WHERE refused IS NOT NULL ORDER BY seq")?;
        let rows = statement.query_map([], |row| {
            let (seq, stream, id, reason) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(RefusedDocument { seq, stream, id, reason })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns the number of waiting documents.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn len(&self) -> Result<u64> {
        let connection = self.connection();
        let number: i64 = connection
            .prepare_cached("SELECT count(*) FROM outbox WHERE refused IS NULL")?
            .query_row([], |row| row.get(0))?;
        Ok(number as u64)
    }

    /// Returns whether nothing waits.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn show(&self) -> Result<()> {
        self.metrics.reports.outbox.set(self.len()? as f64);
        Ok(())
    }

    /// Reads through poison: every change is one transaction.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts documents in inside the caller's transaction; returns how many old ones had to go.
///
/// For the transaction that ends a run, on a connection to the same file. Call
/// [`Outbox::wake`] after its commit.
///
/// # Errors
///
/// When the file cannot be written.
pub fn put_in(connection: &Connection, documents: &[Document], limit: u64) -> Result<u64> {
    let mut insert =
        connection.prepare_cached("INSERT OR IGNORE INTO outbox (stream, id, at, document) VALUES (?1, ?2, ?3, ?4)")?;
    for one in documents {
        let line = Value::to_string(&one.body);
        insert.execute(params![one.stream.as_str(), one.id, one.at.timestamp_millis(), line])?;
    }
    let number: i64 = connection.prepare_cached("SELECT count(*) FROM outbox")?.query_row([], |row| row.get(0))?;
    let excess = number as u64 - limit.min(number as u64);
    if excess == 0 {
        return Ok(0);
    }
    let removed = connection
        .prepare_cached(
            "DELETE FROM outbox WHERE seq IN (
                 SELECT seq FROM outbox
                 ORDER BY refused IS NULL,
                          CASE stream WHEN 'runs' THEN 2 WHEN 'validation' THEN 1 ELSE 0 END,
                          seq
                 LIMIT ?1)",
        )?
        .execute([excess as i64])?;
    Ok(removed as u64)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use serde_json::json;

    use super::*;

    struct Case {
        outbox: Outbox,
        metrics: Metrics,
        folder: tempfile::TempDir,
    }

    fn outbox(limit: u64) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let path = folder.path().join("state.sqlite");
        let outbox = Outbox::open(&path, limit, metrics.clone()).unwrap();
        Case { outbox, metrics, folder }
    }

    fn document(stream: Stream, id: &str) -> Document {
        let at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap();
        Document { stream, id: id.into(), at, body: json!({"id": id}) }
    }

    fn ids(outbox: &Outbox) -> Vec<String> {
        outbox.waiting(100).unwrap().into_iter().map(|one| one.id).collect()
    }

    #[test]
    fn documents_leave_when_they_were_delivered_and_not_before() {
        let case = outbox(10);
        case.outbox.put(&[document(Stream::Runs, "a-0"), document(Stream::Mismatch, "a-0")]).unwrap();
        let waiting = case.outbox.waiting(100).unwrap();
        assert_eq!(waiting.len(), 2);
        assert_eq!(waiting[0].source, r#"{"id":"a-0"}"#);
        assert_eq!(case.metrics.reports.outbox.get(), 2.0);

        case.outbox.settle(&[waiting[0].seq], &[]).unwrap();
        assert_eq!(case.outbox.waiting(100).unwrap(), waiting[1..]);
        assert_eq!(case.metrics.reports.documents.get(), 1);
        assert_eq!(case.metrics.reports.outbox.get(), 1.0);
    }

    #[test]
    fn a_report_that_is_put_in_twice_waits_once() {
        let case = outbox(10);
        case.outbox.put(&[document(Stream::Runs, "a-0")]).unwrap();
        case.outbox.put(&[document(Stream::Runs, "a-0")]).unwrap();
        assert_eq!(case.outbox.len().unwrap(), 1);
    }

    #[test]
    fn documents_survive_the_process() {
        let case = outbox(10);
        case.outbox.put(&[document(Stream::Runs, "a-0")]).unwrap();
        drop(case.outbox);
        let path = case.folder.path().join("state.sqlite");
        let metrics = Metrics::default();
        let again = Outbox::open(&path, 10, metrics.clone()).unwrap();
        assert_eq!(ids(&again), ["a-0"]);
        assert_eq!(metrics.reports.outbox.get(), 1.0);
    }

    #[test]
    fn a_full_outbox_gives_up_mismatches_before_runs_and_counts_them() {
        let case = outbox(3);
        case.outbox.put(&[document(Stream::Runs, "r1")]).unwrap();
        case.outbox.put(&[document(Stream::Mismatch, "m1")]).unwrap();
        case.outbox.put(&[document(Stream::Validation, "v1")]).unwrap();
        case.outbox.put(&[document(Stream::Mismatch, "m2")]).unwrap();
        assert_eq!(ids(&case.outbox), ["r1", "v1", "m2"]);
        case.outbox.put(&[document(Stream::Runs, "r2"), document(Stream::Runs, "r3")]).unwrap();
        assert_eq!(ids(&case.outbox), ["r1", "r2", "r3"]);
        case.outbox.put(&[document(Stream::Runs, "r4")]).unwrap();
        assert_eq!(ids(&case.outbox), ["r2", "r3", "r4"]);
        let dropped = case.metrics.value("sgcache_report_dropped_total", &[("reason", "full")]);
        assert_eq!(dropped, Some(4.0));
    }

    #[test]
    fn a_refused_document_blocks_nothing_and_can_be_looked_at() {
        let case = outbox(3);
        case.outbox.put(&[document(Stream::Runs, "r1"), document(Stream::Runs, "r2")]).unwrap();
        let bad = case.outbox.waiting(1).unwrap().remove(0);
        case.outbox.settle(&[], &[(bad.seq, "not a date".into())]).unwrap();
        assert_eq!(ids(&case.outbox), ["r2"]);
        let refused = case.outbox.refused().unwrap();
        assert_eq!((refused[0].id.as_str(), refused[0].reason.as_str()), ("r1", "not a date"));
        // And it is the first to go when the outbox is full.
        case.outbox.put(&[document(Stream::Runs, "r3"), document(Stream::Runs, "r4")]).unwrap();
        assert!(case.outbox.refused().unwrap().is_empty());
        assert_eq!(ids(&case.outbox), ["r2", "r3", "r4"]);
    }

    #[test]
    fn documents_of_a_run_are_rolled_back_with_it() {
        let case = outbox(3);
        let path = case.folder.path().join("state.sqlite");
        let mut connection = Connection::open(path).unwrap();
        let transaction = connection.transaction().unwrap();
        put_in(&transaction, &[document(Stream::Runs, "r1")], 3).unwrap();
        drop(transaction);
        assert!(case.outbox.is_empty().unwrap());
    }
}
