//! What is known of every row: version, state, hash; and its sums per bucket.
//!
//! A bucket holds the ids of one thousand: how many active rows, and the sum of
//! their short hashes. Both change in the transaction that changes the row.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Result, SiteTime, State};
use crate::entity::{EntityType, EventId, RowHash, RowState, Timestamp};

/// The ids in one bucket.
const BUCKET: i64 = 1000;

/// The number under which a state is kept in the file.
fn code(state: RowState) -> i64 {
    match state {
        RowState::Active => 0,
        RowState::Retired => 1,
        RowState::Absent => 2,
        RowState::Filtered => 3,
    }
}

fn from_code(code: i64) -> rusqlite::Result<RowState> {
    match code {
        0 => Ok(RowState::Active),
        1 => Ok(RowState::Retired),
        2 => Ok(RowState::Absent),
        3 => Ok(RowState::Filtered),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    }
}

/// What is known of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct RowMeta {
    /// The version of the newest read of it.
    pub rv: i64,
    /// What that read said.
    pub state: RowState,
    /// Its `updated_at`.
    pub updated_at: Option<Timestamp>,
    /// The hash of its canonical form.
    pub hash: RowHash,
    /// A hash of its display name, so that a rename is noticed.
    pub name: u32,
    /// The last event that led to a read of it.
    pub last_event: Option<EventId>,
    /// When it was last read.
    pub read_at: SiteTime,
}

/// The active rows of one thousand ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketCount {
    /// The ids divided by 1,000, rounded down.
    pub bucket: i64,
    /// How many active rows.
    pub count: u64,
    /// The sum of their short hashes.
    pub sum: i64,
}

impl State {
    /// Returns what is known of a row.
    pub async fn row(&self, entity_type: &EntityType, id: i64) -> Result<Option<RowMeta>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| load_meta(connection, &entity_type, id)).await
    }

    /// Returns what is known of these rows; those never read are left out.
    pub async fn rows(&self, entity_type: &EntityType, ids: &[i64]) -> Result<BTreeMap<i64, RowMeta>> {
        let entity_type = entity_type.clone();
        let ids = ids.to_vec();
        self.read(move |connection| {
            let mut known = BTreeMap::new();
            for id in &ids {
                if let Some(meta) = load_meta(connection, &entity_type, *id)? {
                    known.insert(*id, meta);
                }
            }
            Ok(known)
        })
        .await
    }

    /// Returns the buckets of a type that have active rows, ascending.
    pub async fn buckets(&self, entity_type: &EntityType) -> Result<Vec<BucketCount>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT bucket, count, sum FROM buckets WHERE type = ?1 AND count > 0 ORDER BY bucket";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([entity_type.as_str()], |row| {
                Ok(BucketCount { bucket: row.get(0)?, count: row.get::<_, i64>(1)? as u64, sum: row.get(2)? })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the active rows of a bucket.
    pub async fn bucket_rows(&self, entity_type: &EntityType, bucket: i64) -> Result<BTreeMap<i64, RowMeta>> {
        self.active_rows(entity_type, bucket * BUCKET, bucket * BUCKET + BUCKET - 1, BUCKET as usize).await
    }

    /// Returns at most `limit` active rows with `first <= id <= last`, ascending.
    pub async fn active_rows(
        &self,
        entity_type: &EntityType,
        first: i64,
        last: i64,
        limit: usize,
    ) -> Result<BTreeMap<i64, RowMeta>> {
        self.rows_in(entity_type, RowState::Active, (first, last), limit).await
    }

    /// Returns at most `limit` rows in a state with ids between these two, both
    /// included, ascending.
    pub async fn rows_in(
        &self,
        entity_type: &EntityType,
        state: RowState,
        (first, last): (i64, i64),
        limit: usize,
    ) -> Result<BTreeMap<i64, RowMeta>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT rv, state, updated_at, hash, last_event, read_at, name, id FROM rowmeta
                WHERE type = ?1 AND id BETWEEN ?2 AND ?3 AND state = ?5 ORDER BY id LIMIT ?4";
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![entity_type.as_str(), first, last, limit as i64, code(state)];
            let rows = statement.query_map(values, |row| Ok((row.get(7)?, from_row(row)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the ids of up to `3 * each` rows in a state that are none of `others`:
    /// those that follow the first of `others`, and the newest and oldest of the type.
    pub async fn neighbours(
        &self,
        entity_type: &EntityType,
        state: RowState,
        others: BTreeSet<i64>,
        each: usize,
    ) -> Result<BTreeSet<i64>> {
        let first = others.first().copied().unwrap_or(0);
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT id FROM rowmeta WHERE type = ?1 AND state = ?2 AND id > ?3 ORDER BY id";
            let (upwards, downwards) = (sql.to_owned(), format!("{sql} DESC"));
            let mut found = BTreeSet::new();
            for (sql, after) in [(&upwards, first), (&downwards, 0), (&upwards, 0)] {
                let enough = found.len() + each;
                let mut statement = connection.prepare_cached(sql)?;
                let mut rows = statement.query(params![entity_type.as_str(), code(state), after])?;
                while found.len() < enough
                    && let Some(row) = rows.next()?
                {
                    found.extend(Some(row.get(0)?).filter(|id| !others.contains(id)));
                }
            }
            Ok(found)
        })
        .await
    }

    /// Returns the ids of active, retired and absent rows that were last read before the
    /// version `rv`, ascending, at most `limit` after `after`.
    pub async fn rows_older_than(
        &self,
        entity_type: &EntityType,
        rv: i64,
        after: i64,
        limit: usize,
    ) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT id FROM rowmeta WHERE type = ?1 AND id > ?2 AND state IN (0, 1, 2) AND rv < ?3
                ORDER BY id LIMIT ?4";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![entity_type.as_str(), after, rv, limit as i64], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the highest id of a type, zero without one, and its newest
    /// `updated_at`.
    pub async fn newest(&self, entity_type: &EntityType) -> Result<(i64, Option<Timestamp>)> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let name = entity_type.as_str();
            let sql = "SELECT coalesce(max(id), 0) FROM rowmeta WHERE type = ?1";
            let id = connection.query_row(sql, [name], |row| row.get(0))?;
            let sql = "SELECT max(updated_at) FROM rowmeta WHERE type = ?1";
            let newest: Option<i64> = connection.query_row(sql, [name], |row| row.get(0))?;
            Ok((id, newest.map(Timestamp)))
        })
        .await
    }

    /// Returns the number of active rows of a type.
    pub async fn active_count(&self, entity_type: &EntityType) -> Result<u64> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT coalesce(sum(count), 0) FROM buckets WHERE type = ?1";
            Ok(connection.query_row(sql, [entity_type.as_str()], |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    /// Forgets tombstones that are older than `keep`; they only guard against
    /// writes that were on their way when the entity went.
    pub async fn purge_tombstones(&self, now: SiteTime, keep: Duration) -> Result<u64> {
        let old = now.before(keep);
        self.write(move |transaction| {
            transaction.execute("DELETE FROM absences WHERE at < ?1", [old.0])?;
            let sql = "DELETE FROM rowmeta WHERE state IN (2, 3) AND read_at < ?1";
            Ok(transaction.execute(sql, [old.0])? as u64)
        })
        .await
    }
}

/// The change of the buckets of one type.
#[derive(Default)]
pub(super) struct BucketChange(BTreeMap<i64, (i64, i64)>);

impl BucketChange {
    /// Takes one row out and puts another one in.
    pub(super) fn replace(&mut self, id: i64, old: Option<&RowMeta>, new: &RowMeta) {
        let share = |meta: &RowMeta| match meta.state {
            RowState::Active => (1, i64::from(meta.hash.short())),
            _ => (0, 0),
        };
        let (gone, come) = (old.map_or((0, 0), share), share(new));
        if gone != come {
            let bucket = self.0.entry(id.div_euclid(BUCKET)).or_default();
            bucket.0 += come.0 - gone.0;
            bucket.1 += come.1 - gone.1;
        }
    }
}

pub(super) fn change_buckets(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    change: &BucketChange,
) -> Result<()> {
    let sql = "INSERT INTO buckets (type, bucket, count, sum) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (type, bucket) DO UPDATE SET count = count + ?3, sum = sum + ?4";
    let mut statement = transaction.prepare_cached(sql)?;
    for (bucket, (count, sum)) in &change.0 {
        statement.execute(params![entity_type.as_str(), bucket, count, sum])?;
    }
    Ok(())
}

pub(super) fn load_meta(connection: &Connection, entity_type: &EntityType, id: i64) -> Result<Option<RowMeta>> {
    let sql = "SELECT rv, state, updated_at, hash, last_event, read_at, name FROM rowmeta WHERE type = ?1 AND id = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![entity_type.as_str(), id], from_row).optional()?)
}

pub(super) fn store_meta(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    id: i64,
    meta: &RowMeta,
) -> Result<()> {
    let sql = "INSERT INTO rowmeta (type, id, rv, state, updated_at, hash, last_event, read_at, name)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (type, id) DO UPDATE SET rv = ?3, state = ?4, updated_at = ?5, hash = ?6,
            last_event = coalesce(?7, last_event), read_at = ?8, name = ?9";
    transaction.prepare_cached(sql)?.execute(params![
        entity_type.as_str(),
        id,
        meta.rv,
        code(meta.state),
        meta.updated_at.map(|moment| moment.0),
        meta.hash.0.to_be_bytes(),
        meta.last_event.map(|event| event.0),
        meta.read_at.0,
        meta.name,
    ])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<RowMeta> {
    Ok(RowMeta {
        rv: row.get(0)?,
        state: from_code(row.get(1)?)?,
        updated_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
        hash: RowHash(u128::from_be_bytes(row.get(3)?)),
        last_event: row.get::<_, Option<i64>>(4)?.map(EventId),
        read_at: SiteTime(row.get(5)?),
        name: row.get(6)?,
    })
}
