//! Dead letters: what could not be understood, read or written, kept and retried.

use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

use super::dirty::{DirtyCommit, DirtyReasons, NewDirtyKey, next_gen, put_marks, since_of_new_marks};
use super::{Result, SiteTime, State};
use crate::entity::{EntityRef, EntityType, signed_url};

/// Payloads are cut at this size.
const PAYLOAD_LIMIT: usize = 64 * 1024;

/// What a dead letter is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadKind {
    /// An event log entry that names no key.
    Event,
    /// A row that is not as the schema says.
    Row,
    /// A key that makes every read of it fail.
    Read,
    /// A row that the store refuses.
    Write,
    /// A stored row that is not as it was written.
    Stored,
}

impl DeadKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Event, Self::Row, Self::Read, Self::Write, Self::Stored];

    /// Returns the word used in the file, in metrics and in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Row => "row",
            Self::Read => "read",
            Self::Write => "write",
            Self::Stored => "stored",
        }
    }
}

/// A dead letter to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDead {
    /// What it is about.
    pub kind: DeadKind,
    /// The key, or `EventLogEntry` and its id.
    pub key: EntityRef,
    /// What was received, as JSON.
    pub payload: String,
    /// What was wrong, without secrets.
    pub error: String,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dead {
    /// Its number.
    pub serial: i64,
    /// What it is about.
    pub kind: DeadKind,
    /// The key, or `EventLogEntry` and its id.
    pub key: EntityRef,
    /// What was received, as JSON, cut at 64 KB.
    pub payload: String,
    /// What was wrong.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub first_at: SiteTime,
    /// When it failed last.
    pub last_at: SiteTime,
}

impl Dead {
    /// Returns how long to wait before the next try, after so many of them.
    pub fn retry_after(attempts: u32) -> Duration {
        let minutes = match attempts {
            0 | 1 => 1,
            2 => 5,
            3 => 30,
            4 => 6 * 60,
            _ => 24 * 60,
        };
        Duration::from_secs(minutes * 60)
    }
}

impl State {
    /// Returns the dead letters, oldest first.
    pub async fn dead(&self, limit: usize) -> Result<Vec<Dead>> {
        self.read(move |connection| {
            let sql = "SELECT serial, kind, type, id, payload, error, attempts, first_at, last_at FROM dead
                ORDER BY serial LIMIT ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([limit as i64], |row| {
                let word: String = row.get(1)?;
                let Some(kind) = DeadKind::ALL.into_iter().find(|kind| kind.as_str() == word) else {
                    let words = format!("`{word}` is not the kind of a dead letter");
                    return Err(rusqlite::Error::FromSqlConversionFailure(1, Type::Text, words.into()));
                };
                Ok(Dead {
                    serial: row.get(0)?,
                    kind,
                    key: EntityRef::new(row.get::<_, String>(2)?.as_str(), row.get(3)?),
                    payload: row.get(4)?,
                    error: row.get(5)?,
                    attempts: row.get(6)?,
                    first_at: SiteTime(row.get(7)?),
                    last_at: SiteTime(row.get(8)?),
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Counts the dead letters of each kind.
    pub async fn dead_counts(&self) -> Result<Vec<(DeadKind, u64)>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached("SELECT count(*) FROM dead WHERE kind = ?1")?;
            let mut counts = Vec::new();
            for kind in DeadKind::ALL {
                counts.push((kind, statement.query_row([kind.as_str()], |row| row.get::<_, i64>(0))? as u64));
            }
            Ok(counts)
        })
        .await
    }

    /// Returns the keys of a type in quarantine: they cannot be
    /// read or written, or the last read did not find them.
    pub async fn quarantined(&self, entity_type: &EntityType) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT id FROM dead WHERE type = ?1 AND kind <> 'event'
                UNION SELECT id FROM suspected WHERE type = ?1 ORDER BY id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([entity_type.as_str()], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Quarantines rows that are damaged in the store, each with what is wrong, and has
    /// them read again from the site; returns the rows that were not quarantined
    /// before.
    pub async fn quarantine_stored(&self, rows: &[(EntityRef, String)], now: SiteTime) -> Result<Vec<EntityRef>> {
        let rows = rows.to_vec();
        self.write(move |transaction| {
            let since = since_of_new_marks(transaction, now)?;
            let (mut fresh, mut requests) = (Vec::new(), Vec::new());
            for (key, error) in rows {
                let sql = "SELECT EXISTS (SELECT 1 FROM dead WHERE kind = 'stored' AND type = ?1 AND id = ?2),
                    EXISTS (SELECT 1 FROM marks WHERE type = ?1 AND id = ?2)";
                let (known, dirty): (bool, bool) = transaction
                    .prepare_cached(sql)?
                    .query_row(params![key.entity_type.as_str(), key.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
                if !known {
                    let dead = NewDead { kind: DeadKind::Stored, key: key.clone(), payload: String::new(), error };
                    put_dead(transaction, &dead, now)?;
                    // What follows from an event about the row is still to come.
                    let apart = if dirty { DirtyReasons::default() } else { DirtyReasons::QUARANTINED };
                    requests.push(NewDirtyKey::new(key.clone(), DirtyReasons::REPAIR | apart));
                    fresh.push(key);
                }
            }
            if !fresh.is_empty() {
                let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: now };
                put_marks(transaction, &requests, marking)?;
            }
            Ok(fresh)
        })
        .await
    }

    /// Has the entities of dead letters read again, at once; returns how many. An event log
    /// entry cannot be read again by its key.
    pub async fn retry_dead(&self, letters: &[Dead]) -> Result<usize> {
        let rows: Vec<&Dead> = letters.iter().filter(|letter| letter.kind != DeadKind::Event).collect();
        let requests: Vec<_> = rows.iter().map(|row| NewDirtyKey::new(row.key.clone(), DirtyReasons::REPAIR)).collect();
        // Due since the last attempt: the follower need not wait for the time of the next one.
        if let Some(since) = rows.iter().map(|row| row.last_at).min() {
            self.mark(&requests, since).await?;
        }
        Ok(rows.len())
    }

    /// Deletes a dead letter; tells whether it was there.
    pub async fn drop_dead(&self, serial: i64) -> Result<bool> {
        self.write(move |transaction| Ok(transaction.execute("DELETE FROM dead WHERE serial = ?1", [serial])? > 0))
            .await
    }
}

pub(super) fn put_dead(transaction: &Transaction<'_>, dead: &NewDead, now: SiteTime) -> Result<()> {
    let sql = "INSERT INTO dead (kind, type, id, payload, error, attempts, first_at, last_at, next_due)
            VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6, ?7)
        ON CONFLICT (kind, type, id) DO UPDATE SET payload = ?4, error = ?5, attempts = attempts + 1, last_at = ?6,
            next_due = ?7";
    // What could not be applied is quoted as it came, signed addresses included.
    let (payload, error) = (signed_url::redact(&dead.payload), signed_url::redact(&dead.error));
    let mut end = payload.len().min(PAYLOAD_LIMIT);
    while !payload.is_char_boundary(end) {
        end -= 1;
    }
    let due = now.after(Dead::retry_after(1));
    let entity_type = dead.key.entity_type.as_str();
    let values = params![dead.kind.as_str(), entity_type, dead.key.id, &payload[..end], error, now.0, due.0];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Deletes the dead letters of a key that was read and written after all.
pub(super) fn forget_dead(transaction: &Transaction<'_>, entity_type: &EntityType, id: i64) -> Result<()> {
    let sql = "DELETE FROM dead WHERE type = ?1 AND id = ?2 AND kind <> 'event'";
    let deleted = transaction.prepare_cached(sql)?.execute(params![entity_type.as_str(), id])?;
    if deleted > 0 {
        tracing::info!(%entity_type, id, "a dead letter came back to life");
    }
    Ok(())
}
