//! Digests, scans, purges, health: what looks at whole types.

use rusqlite::{Connection, Transaction, params};

use super::super::{Bucket, Health, PurgeScope, ReadVersion, Result, RowVersion, StoreError, StoreErrorKind};
use super::changes;
use super::layouts::{Layouts, Tables, bump};
use super::put::state_of;
use crate::entity::{DataType, RowHash, Timestamp};

/// See [`super::super::Store::digest`].
pub(super) fn digest(reader: &Connection, tables: &Tables) -> Result<Vec<Bucket>> {
    // Grouping in SQL would sort the type once more; ids come in order anyway.
    let sql = format!("SELECT id, hash FROM {} WHERE state = 0 ORDER BY id", tables.rows());
    let mut statement = reader.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut buckets: Vec<Bucket> = Vec::new();
    while let Some(row) = found.next()? {
        let (number, hash) = (Bucket::of(row.get(0)?), hash_of(row.get(1)?));
        if buckets.last().is_none_or(|last| last.number != number) {
            buckets.push(Bucket { number, count: 0, sum: 0 });
        }
        if let Some(bucket) = buckets.last_mut() {
            bucket.count += 1;
            bucket.sum += u64::from(hash.short());
        }
    }
    Ok(buckets)
}

/// See [`super::super::Store::scan`].
pub(super) fn scan(
    reader: &Connection,
    tables: &Tables,
    condition: &str,
    after_id: i64,
    limit: usize,
) -> Result<Vec<RowVersion>> {
    let updated = tables.column("updated_at").filter(|column| column.data_type == DataType::DateTime);
    let updated = updated.map_or_else(|| "NULL".to_owned(), |column| column.name());
    let rows = tables.rows();
    let sql =
        format!("SELECT id, rv, state, hash, {updated} FROM {rows} WHERE {condition} id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = reader.prepare_cached(&sql)?;
    let mut found = statement.query(params![after_id, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut versions = Vec::new();
    while let Some(row) = found.next()? {
        let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a row of the store has an unknown state");
        versions.push(RowVersion {
            id: row.get(0)?,
            rv: ReadVersion(row.get(1)?),
            state: state_of(row.get(2)?).ok_or_else(damaged)?,
            hash: hash_of(row.get(3)?),
            updated_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        });
    }
    Ok(versions)
}

/// See [`super::super::Store::highest_version`].
pub(super) fn highest_version(reader: &Connection, layouts: &Layouts) -> Result<ReadVersion> {
    let of_names = "SELECT coalesce(max(max(name_rv, state_rv)), 0) FROM targets";
    let mut highest: i64 = reader.query_row(of_names, [], |row| row.get(0))?;
    for stored in layouts.stored() {
        let rows = layouts.tables(&stored.entity_type)?.rows();
        let sql = format!("SELECT coalesce(max(rv), 0) FROM {rows}");
        highest = highest.max(reader.query_row(&sql, [], |row| row.get(0))?);
    }
    Ok(ReadVersion(highest))
}

fn hash_of(bytes: [u8; 16]) -> RowHash {
    RowHash(u128::from_be_bytes(bytes))
}

/// See [`super::super::Store::purge`].
pub(super) fn purge(transaction: &Transaction<'_>, layouts: &Layouts, scope: &PurgeScope) -> Result<u64> {
    match scope {
        PurgeScope::Type(entity_type) => purge_type(transaction, layouts.tables(entity_type)?),
        PurgeScope::Tombstones { older_than } => {
            let mut removed = 0;
            for tables in layouts.all() {
                removed += purge_tombstones(transaction, tables, *older_than)?;
            }
            Ok(removed)
        }
    }
}

fn purge_type(transaction: &Transaction<'_>, tables: &Tables) -> Result<u64> {
    let (rows, docs, links) = (tables.rows(), tables.docs(), tables.links());
    let removed: i64 = transaction.query_row(&format!("SELECT count(*) FROM {rows}"), [], |row| row.get(0))?;
    transaction.execute_batch(&format!("DROP TABLE {rows}; DROP TABLE {docs}; DROP TABLE {links};"))?;
    transaction.execute("UPDATE types SET layout = NULL WHERE number = ?1", [tables.number])?;
    transaction.execute("UPDATE targets SET own = 0, kept = 0 WHERE type = ?1", [tables.number])?;
    changes::note_everything(transaction, tables.number)?;
    bump(transaction)?;
    Ok(removed.unsigned_abs())
}

fn purge_tombstones(transaction: &Transaction<'_>, tables: &Tables, older_than: Timestamp) -> Result<u64> {
    let rows = tables.rows();
    // The states that have no document. `state <> 0` lets the index be used.
    let gone = format!("SELECT id FROM {rows} WHERE state <> 0 AND state IN (2, 3) AND fetched < ?2");
    let forget = format!("UPDATE targets SET own = 0, kept = 0 WHERE type = ?1 AND id IN ({gone}) RETURNING id");
    let mut statement = transaction.prepare(&forget)?;
    let forgotten = statement.query_map(params![tables.number, older_than.0], |row| row.get(0))?;
    changes::note(transaction, tables.number, forgotten.collect::<rusqlite::Result<Vec<i64>>>()?.into_iter())?;
    let delete = format!("DELETE FROM {rows} WHERE id IN ({gone}) AND ?1 = ?1");
    Ok(transaction.execute(&delete, params![tables.number, older_than.0])? as u64)
}

/// See [`super::super::Store::health`].
pub(super) fn health(reader: &Connection, layouts: &Layouts) -> Result<Health> {
    let pragma = |name: &str| reader.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let bytes = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    let types = layouts.all().count();
    let message = format!("SQLite {}, {types} entity types", rusqlite::version());
    Ok(Health { ok: true, message, bytes: Some(bytes.unsigned_abs()), ..Health::default() })
}
