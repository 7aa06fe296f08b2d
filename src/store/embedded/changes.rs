//! Which rows were written, for readers that keep a part of them in memory.
//!
//! One record for each type that a transaction wrote to, in the same transaction.
//! Only the newest are kept: a reader that is behind them reads everything again.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Transaction, params};

use super::super::Result;

/// How many records are kept, at least.
const KEPT: i64 = 4_096;

/// The table. Ids lie in it as eight bytes each; none at all means every row.
pub(super) const TABLE: &str =
    "CREATE TABLE changes (seq INTEGER PRIMARY KEY, type INTEGER NOT NULL, ids BLOB NOT NULL);
INSERT INTO changes VALUES (1, -1, x'');";

/// What became of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These rows were written.
    Rows(BTreeSet<i64>),
    /// Rows were removed, or the whole type.
    Everything,
}

/// Notes that rows of a type were written.
pub(super) fn note(transaction: &Transaction<'_>, ty: i64, ids: impl Iterator<Item = i64>) -> Result<()> {
    let bytes: Vec<u8> = ids.flat_map(i64::to_le_bytes).collect();
    if bytes.is_empty() { Ok(()) } else { record(transaction, ty, &bytes) }
}

/// Notes that everything that is known of a type is worth nothing any more.
pub(super) fn note_everything(transaction: &Transaction<'_>, ty: i64) -> Result<()> {
    record(transaction, ty, &[])
}

fn record(transaction: &Transaction<'_>, ty: i64, ids: &[u8]) -> Result<()> {
    transaction.prepare_cached("INSERT INTO changes (type, ids) VALUES (?1, ?2)")?.execute(params![ty, ids])?;
    let seq = transaction.last_insert_rowid();
    if seq % (KEPT / 16) == 0 {
        transaction.prepare_cached("DELETE FROM changes WHERE seq <= ?1")?.execute([seq - KEPT])?;
    }
    Ok(())
}

/// Returns the number of the newest record.
pub(super) fn newest(reader: &Connection) -> Result<i64> {
    let newest = reader.prepare_cached("SELECT max(seq) FROM changes")?.query_row([], |row| row.get(0))?;
    Ok(newest)
}

/// Returns what was written after a record, by the number of the type; `None` when
/// not all of it is kept any more.
pub(super) fn after(reader: &Connection, seq: i64) -> Result<Option<BTreeMap<i64, Change>>> {
    let oldest: i64 = reader.prepare_cached("SELECT min(seq) FROM changes")?.query_row([], |row| row.get(0))?;
    if oldest > seq + 1 {
        return Ok(None);
    }
    let mut changes: BTreeMap<i64, Change> = BTreeMap::new();
    let mut statement = reader.prepare_cached("SELECT type, ids FROM changes WHERE seq > ?1 ORDER BY seq")?;
    let mut found = statement.query([seq])?;
    while let Some(row) = found.next()? {
        let (ty, bytes) = (row.get(0)?, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        let mut ids = bytes.chunks_exact(8).filter_map(|id| id.try_into().ok()).map(i64::from_le_bytes).peekable();
        let change = changes.entry(ty).or_insert_with(|| Change::Rows(BTreeSet::new()));
        match change {
            Change::Rows(_) if ids.peek().is_none() => *change = Change::Everything,
            Change::Rows(known) => known.extend(ids),
            Change::Everything => {}
        }
    }
    Ok(Some(changes))
}
