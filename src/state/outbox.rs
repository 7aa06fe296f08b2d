//! Documents about runs that wait to be delivered to another server.
//!
//! Rows here are texts: what a document means, and which streams there are, is known to
//! `report`. The table is bounded by the caller's limit. When it is full, refused
//! documents are dropped first, then those of the streams that the caller ranks lowest.

use rusqlite::{Connection, params};

use super::{Result, State};

/// A document to put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxDocument {
    /// The name of its stream, and behind a `/` that of an index of it.
    pub stream: String,
    /// Its id, unique in its stream.
    pub id: String,
    /// What it is about, in milliseconds since 1970.
    pub at_millis: i64,
    /// The document as JSON in one line.
    pub source: String,
    /// Documents of a low rank are dropped before those of a high one.
    pub rank: u8,
}

/// A document that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDocument {
    /// Its place in the queue.
    pub seq: i64,
    /// The name of its stream, and behind a `/` that of an index of it.
    pub stream: String,
    /// Its id.
    pub id: String,
    /// What it is about, in milliseconds since 1970.
    pub at_millis: i64,
    /// The document as JSON in one line.
    pub source: String,
}

/// A document that the server refuses for what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDocument {
    /// Its place in the queue.
    pub seq: i64,
    /// The name of its stream.
    pub stream: String,
    /// Its id.
    pub id: String,
    /// The server's words.
    pub reason: String,
}

impl State {
    /// Puts documents in, all or none, and returns how many old ones were dropped to
    /// stay within `limit`. Those that wait already are left as they are.
    pub async fn put_documents(&self, documents: Vec<OutboxDocument>, limit: u64) -> Result<u64> {
        self.write(move |transaction| {
            let sql = "INSERT OR IGNORE INTO outbox (stream, id, at, document, rank) VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut insert = transaction.prepare_cached(sql)?;
            for one in &documents {
                insert.execute(params![one.stream, one.id, one.at_millis, one.source, one.rank])?;
            }
            drop_excess(transaction, limit)
        })
        .await
    }

    /// Returns the oldest waiting documents of these streams, at most `number`.
    /// Documents of other streams, of a newer version of this program, go on waiting.
    pub async fn waiting_documents(&self, streams: &[&'static str], number: usize) -> Result<Vec<WaitingDocument>> {
        let streams = serde_json::json!(streams).to_string();
        self.read(move |connection| {
            let sql = "SELECT seq, stream, id, at, document FROM outbox
                WHERE refused IS NULL AND substr(stream, 1, instr(stream || '/', '/') - 1)
                IN (SELECT value FROM json_each(?1)) ORDER BY seq LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![streams, number as i64], |row| {
                let (seq, stream, id) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(WaitingDocument { seq, stream, id, at_millis: row.get(3)?, source: row.get(4)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Removes delivered documents, and sets refused ones apart with the reason.
    pub async fn finish_documents(&self, delivered: Vec<i64>, refused: Vec<(i64, String)>) -> Result<()> {
        self.write(move |transaction| {
            for seq in &delivered {
                transaction.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
            }
            for (seq, reason) in &refused {
                let sql = "UPDATE outbox SET refused = ?2 WHERE seq = ?1";
                transaction.prepare_cached(sql)?.execute(params![seq, reason])?;
            }
            Ok(())
        })
        .await
    }

    /// Returns the refused documents, oldest first.
    pub async fn refused_documents(&self) -> Result<Vec<RefusedDocument>> {
        self.read(|connection| {
            let sql = "SELECT seq, stream, id, refused FROM outbox WHERE refused IS NOT NULL ORDER BY seq";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(RefusedDocument { seq: row.get(0)?, stream: row.get(1)?, id: row.get(2)?, reason: row.get(3)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Counts the waiting documents.
    pub async fn count_waiting_documents(&self) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT count(*) FROM outbox WHERE refused IS NULL";
            Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }
}

/// Drops what exceeds the limit; returns how many documents that were.
fn drop_excess(connection: &Connection, limit: u64) -> Result<u64> {
    let number: i64 = connection.prepare_cached("SELECT count(*) FROM outbox")?.query_row([], |row| row.get(0))?;
    let excess = number as u64 - limit.min(number as u64);
    if excess == 0 {
        return Ok(0);
    }
    let sql = "DELETE FROM outbox WHERE seq IN (
        SELECT seq FROM outbox ORDER BY refused IS NULL, rank, seq LIMIT ?1)";
    Ok(connection.prepare_cached(sql)?.execute([excess as i64])? as u64)
}
