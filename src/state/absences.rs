//! Rows that the site stops showing: suspected absences, deletions within the last
//! minutes, and the deletion circuit breaker of each type.
//!
//! A suspected absence is a row that one read did not find although it was there
//! before. It counts reads, each of them after a later complete poll than the one
//! before, so that one disturbance of the site counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::dirty::{DirtyCommit, DirtyReasons, NewDirtyKey, next_gen, put_marks, since_of_new_marks};
use super::{Result, SiteTime, State};
use crate::entity::{EntityRef, EntityType};

/// Deletions are counted over this time.
const WINDOW: Duration = Duration::from_secs(600);
/// A suspected absence of as many reads counts as a deletion to come.
const REPEATED: i64 = 2;

/// What is known of a row that reads do not find any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspectedAbsence {
    /// Reads without the row, each after a later complete poll.
    pub reads: u32,
    /// Whether a poll was completed since the last of them.
    pub poll_since: bool,
    /// Whether an operator confirmed that the row may go.
    pub confirmed: bool,
}

/// A deletion circuit breaker that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    /// The type.
    pub entity_type: EntityType,
    /// Since when.
    pub since: SiteTime,
    /// Keys whose deletion waits, ascending.
    pub held: Vec<i64>,
    /// Rows that reads did not find and whose absence is not confirmed.
    pub suspected: u64,
    /// Active rows in the cache, those among the held and suspected included.
    pub active: u64,
}

impl State {
    /// Returns what is known of the rows among `ids` that earlier reads did not
    /// find.
    pub async fn suspected_absences(
        &self,
        entity_type: &EntityType,
        ids: &[i64],
    ) -> Result<BTreeMap<i64, SuspectedAbsence>> {
        let ids = ids.to_vec();
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT reads, poll < (SELECT poll_done FROM stream), confirmed FROM suspected
                WHERE type = ?1 AND id = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut found = BTreeMap::new();
            for id in ids {
                let mut rows = statement.query(params![entity_type.as_str(), id])?;
                if let Some(row) = rows.next()? {
                    found.insert(
                        id,
                        SuspectedAbsence { reads: row.get(0)?, poll_since: row.get(1)?, confirmed: row.get(2)? },
                    );
                }
            }
            Ok(found)
        })
        .await
    }

    /// Tells whether the deletions of the last ten minutes and the absences that were
    /// suspected repeatedly stay within 50 rows or two of a hundred.
    pub async fn is_within_deletion_limit(&self, entity_type: &EntityType, now: SiteTime) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let expected = repeated_suspicions(connection, &entity_type)?;
            let deletions = recent_deletions(connection, &entity_type, now)? + expected;
            Ok(deletions <= deletion_limit(connection, &entity_type)?)
        })
        .await
    }

    /// Asks whether as many more active rows of a type may vanish without being
    /// retired, and notes that they do.
    ///
    /// Within ten minutes 50 rows or two of a hundred may; more is a fault until
    /// an operator says otherwise ([`State::confirm_deletions`]).
    pub async fn may_vanish(&self, entity_type: &EntityType, count: u64, now: SiteTime) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let recent = recent_deletions(transaction, &entity_type, now)?;
            if recent + count as i64 > deletion_limit(transaction, &entity_type)? {
                return Ok(false);
            }
            note_deletions(transaction, &entity_type, now, count as i64)?;
            Ok(true)
        })
        .await
    }

    /// Returns the rows of a type that are absent and were read at `since` or later.
    pub async fn absent_since(&self, entity_type: &EntityType, since: SiteTime, limit: usize) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT id FROM rowmeta WHERE type = ?1 AND state = 2 AND read_at >= ?2 ORDER BY read_at DESC
                LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![entity_type.as_str(), since.0, limit as i64];
            let rows = statement.query_map(values, |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Opens the breaker of a type; returns false when it was open already. What
    /// vanished within the window before is marked to be read again.
    pub async fn open_breaker(&self, entity_type: &EntityType, now: SiteTime) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let sql = "UPDATE types SET breaker_since = ?2 WHERE type = ?1 AND breaker_since IS NULL";
            let opened = transaction.execute(sql, params![entity_type.as_str(), now.0])? > 0;
            if opened {
                reread_absent(transaction, &entity_type, now.before(WINDOW), now)?;
            }
            Ok(opened)
        })
        .await
    }

    /// Closes the breaker of a type once no deletion waits and no absence is
    /// suspected repeatedly; returns whether it did. What vanished since shortly
    /// before it opened is marked to be read again.
    pub async fn close_breaker(&self, entity_type: &EntityType, now: SiteTime) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let since = breaker_since(transaction, &entity_type)?;
            let waiting = held(transaction, &entity_type)? > 0 || repeated_suspicions(transaction, &entity_type)? > 0;
            let Some(since) = since.filter(|_| !waiting) else { return Ok(false) };
            transaction.execute("UPDATE types SET breaker_since = NULL WHERE type = ?1", [entity_type.as_str()])?;
            reread_absent(transaction, &entity_type, since.before(WINDOW), now)?;
            Ok(true)
        })
        .await
    }

    /// Counts the keys of a type whose deletion is held.
    pub async fn held(&self, entity_type: &EntityType) -> Result<u64> {
        let entity_type = entity_type.clone();
        self.read(move |connection| Ok(held(connection, &entity_type)? as u64)).await
    }

    /// Returns the breakers that are open, sorted by type.
    pub async fn open_breakers(&self) -> Result<Vec<OpenBreaker>> {
        self.read(move |connection| {
            let sql = "SELECT type, breaker_since FROM types WHERE breaker_since IS NOT NULL ORDER BY type";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let open = rows.collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
            open.into_iter().map(|(name, since)| load_open(connection, &name, SiteTime(since))).collect()
        })
        .await
    }

    /// Lets the held deletions and suspected absences of a type become deletions with
    /// the next read that shows them in no list, and returns how many there are: an
    /// operator has looked at them.
    pub async fn confirm_deletions(&self, entity_type: &EntityType, now: SiteTime) -> Result<u64> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let name = entity_type.as_str();
            let sql = "INSERT INTO suspected (type, id, reads, poll, first_at, confirmed)
                SELECT type, id, 0, 0, ?3, 0 FROM marks WHERE type = ?1 AND kinds & ?2 <> 0
                ON CONFLICT (type, id) DO NOTHING";
            transaction.execute(sql, params![name, DirtyReasons::DELETION_STOPPED.0, now.0])?;
            let confirmed = transaction.execute("UPDATE suspected SET confirmed = 1 WHERE type = ?1", [name])?;
            let sql = "UPDATE marks SET due_at = ?3, kinds = kinds & ~?2 WHERE type = ?1
                AND id IN (SELECT id FROM suspected WHERE type = ?1)";
            transaction.execute(sql, params![name, DirtyReasons::DELETION_STOPPED.0, now.0])?;
            // The confirmed deletions do not use up what others may.
            note_deletions(transaction, &entity_type, now, -(confirmed as i64))?;
            transaction.execute("UPDATE types SET breaker_since = NULL WHERE type = ?1", [name])?;
            Ok(confirmed as u64)
        })
        .await
    }

    /// Begins the judgement of a type anew, and returns how many keys are read
    /// again at once: its deletions and suspicions are forgotten, what vanished in
    /// the window and what is held is looked for again.
    pub async fn reset_breaker(&self, entity_type: &EntityType, now: SiteTime) -> Result<u64> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let name = entity_type.as_str();
            let since = breaker_since(transaction, &entity_type)?.unwrap_or(now);
            let sql = "UPDATE marks SET due_at = ?3, kinds = kinds & ~?2 WHERE type = ?1
                AND (kinds & ?2 <> 0 OR id IN (SELECT id FROM suspected WHERE type = ?1))";
            let due = transaction.execute(sql, params![name, DirtyReasons::DELETION_STOPPED.0, now.0])?;
            transaction.execute("DELETE FROM suspected WHERE type = ?1", [name])?;
            transaction.execute("DELETE FROM absences WHERE type = ?1", [name])?;
            transaction.execute("UPDATE types SET breaker_since = NULL WHERE type = ?1", [name])?;
            Ok(due as u64 + reread_absent(transaction, &entity_type, since.before(WINDOW), now)?)
        })
        .await
    }
}

/// Counts one more read that did not find these rows.
pub(super) fn suspect_absences(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    ids: &[i64],
    now: SiteTime,
) -> Result<()> {
    let sql = "INSERT INTO suspected (type, id, reads, poll, first_at, confirmed)
            VALUES (?1, ?2, 1, (SELECT poll_done FROM stream), ?3, 0)
        ON CONFLICT (type, id) DO UPDATE SET reads = reads + (excluded.poll > poll), poll = excluded.poll";
    let mut statement = transaction.prepare_cached(sql)?;
    for id in ids {
        statement.execute(params![entity_type.as_str(), id, now.0])?;
    }
    Ok(())
}

/// Ends the suspicions of rows whose state is known again.
pub(super) fn end_suspicions(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    ids: impl Iterator<Item = i64>,
) -> Result<()> {
    let sql = "SELECT EXISTS (SELECT 1 FROM suspected WHERE type = ?1)";
    let any: bool = transaction.prepare_cached(sql)?.query_row([entity_type.as_str()], |row| row.get(0))?;
    // An import passes thousands of rows, of which hardly one is suspected.
    if any {
        let mut statement = transaction.prepare_cached("DELETE FROM suspected WHERE type = ?1 AND id = ?2")?;
        for id in ids {
            statement.execute(params![entity_type.as_str(), id])?;
        }
    }
    Ok(())
}

fn recent_deletions(connection: &Connection, entity_type: &EntityType, now: SiteTime) -> Result<i64> {
    let sql = "SELECT coalesce(sum(count), 0) FROM absences WHERE type = ?1 AND at >= ?2";
    let values = params![entity_type.as_str(), now.before(WINDOW).0];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}

fn note_deletions(transaction: &Transaction<'_>, entity_type: &EntityType, now: SiteTime, count: i64) -> Result<()> {
    let sql = "INSERT INTO absences (type, at, count) VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(sql)?.execute(params![entity_type.as_str(), now.0, count])?;
    Ok(())
}

fn deletion_limit(connection: &Connection, entity_type: &EntityType) -> Result<i64> {
    Ok((active(connection, entity_type)? / 50).max(50))
}

fn active(connection: &Connection, entity_type: &EntityType) -> Result<i64> {
    let sql = "SELECT coalesce(sum(count), 0) FROM buckets WHERE type = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([entity_type.as_str()], |row| row.get(0))?)
}

fn repeated_suspicions(connection: &Connection, entity_type: &EntityType) -> Result<i64> {
    // With a key that was neither active nor retired nothing is deleted.
    let sql = "SELECT count(*) FROM suspected s WHERE type = ?1 AND reads >= ?2
        AND EXISTS (SELECT 1 FROM rowmeta r WHERE r.type = s.type AND r.id = s.id AND r.state IN (0, 1))";
    Ok(connection.prepare_cached(sql)?.query_row(params![entity_type.as_str(), REPEATED], |row| row.get(0))?)
}

fn held(connection: &Connection, entity_type: &EntityType) -> Result<i64> {
    let sql = "SELECT count(*) FROM marks WHERE type = ?1 AND kinds & ?2 <> 0";
    Ok(connection
        .prepare_cached(sql)?
        .query_row(params![entity_type.as_str(), DirtyReasons::DELETION_STOPPED.0], |row| row.get(0))?)
}

fn breaker_since(connection: &Connection, entity_type: &EntityType) -> Result<Option<SiteTime>> {
    let sql = "SELECT breaker_since FROM types WHERE type = ?1";
    let since: Option<Option<i64>> = connection.query_row(sql, [entity_type.as_str()], |row| row.get(0)).optional()?;
    Ok(since.flatten().map(SiteTime))
}

fn load_open(connection: &Connection, name: &str, since: SiteTime) -> Result<OpenBreaker> {
    let entity_type = EntityType::new(name);
    let sql = "SELECT id FROM marks WHERE type = ?1 AND kinds & ?2 <> 0 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let held = statement.query_map(params![name, DirtyReasons::DELETION_STOPPED.0], |row| row.get(0))?;
    let held = held.collect::<rusqlite::Result<_>>()?;
    let sql = "SELECT count(*) FROM suspected WHERE type = ?1";
    let suspected: i64 = connection.query_row(sql, [name], |row| row.get(0))?;
    let active = active(connection, &entity_type)?;
    Ok(OpenBreaker { entity_type, since, held, suspected: suspected as u64, active: active as u64 })
}

/// Marks what is absent and was read at `since` or later; returns how many rows.
fn reread_absent(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    since: SiteTime,
    now: SiteTime,
) -> Result<u64> {
    let sql = "SELECT id FROM rowmeta WHERE type = ?1 AND state = 2 AND read_at >= ?2";
    let ids: Vec<i64> = {
        let mut statement = transaction.prepare_cached(sql)?;
        let rows = statement.query_map(params![entity_type.as_str(), since.0], |row| row.get(0))?;
        rows.collect::<rusqlite::Result<_>>()?
    };
    let request = |id: &i64| NewDirtyKey::new(EntityRef::new(entity_type.clone(), *id), DirtyReasons::SCAN);
    let requests: Vec<_> = ids.iter().map(request).collect();
    let since = since_of_new_marks(transaction, now)?;
    let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: now };
    put_marks(transaction, &requests, marking)?;
    Ok(requests.len() as u64)
}
