//! A read of the site: its version before it is sent, its effect afterwards.
//!
//! The order of reads is the order of their versions, over all processes. A read
//! that was begun and not finished may still write its rows; as long as that is
//! possible for a row, an unchanged row has to be written too, or the late write
//! would bring back an older state ([`Finished`], [`State::may_suppress`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};

use super::absences::{end_suspicions, suspect_absences};
use super::as_of::AsOf;
use super::dead_letters::{Dead, DeadKind, NewDead, forget_dead, put_dead};
use super::dirty::{
    DirtyCommit, DirtyReasons, NewDirtyKey, Postponed, next_gen, put_marks, put_off, since_of_new_marks,
};
use super::poll::put_sweep;
use super::rows::{BucketChange, RowMeta, change_buckets, load_meta, store_meta};
use super::types::{self, ImportState, SegmentStep};
use super::{Result, SiteTime, State};
use crate::entity::{EntityRef, EntityType, EventId, RowHash, RowState, Timestamp};

/// Reads that never finished are forgotten after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A read of one entity type that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadToken {
    /// The type that is read.
    pub entity_type: EntityType,
    /// The version of every row that it returns: `epoch << 40 | seq`.
    pub rv: i64,
    /// The newest generation of marks that it covers.
    pub generation: i64,
}

/// What a store made of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOutcome {
    /// The row is stored.
    Written,
    /// It was the stored row already and was not written.
    Unchanged,
    /// The store has a newer one.
    Stale,
}

/// One row that a read returned.
#[derive(Clone, Debug, PartialEq)]
pub struct RowDone {
    /// Its id.
    pub id: i64,
    /// What the store made of it.
    pub outcome: RowOutcome,
    /// What the site said about it.
    pub state: RowState,
    /// Its `updated_at`.
    pub updated_at: Option<Timestamp>,
    /// The hash of its canonical form; zero without a row.
    pub hash: RowHash,
    /// A hash of its display name.
    pub name: u32,
}

/// Everything that a read leads to, committed at once.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The read.
    pub token: ReadToken,
    /// The rows that the store acknowledged.
    pub rows: Vec<RowDone>,
    /// Keys whose marks were answered without a row to keep.
    pub seen: Vec<i64>,
    /// Rows that the read did not find and whose absence is not believed yet. They
    /// stay as they are, and are in quarantine.
    pub suspected: Vec<i64>,
    /// Marks that stay, for later.
    pub postponed: Vec<Postponed>,
    /// Marks to make, such as second looks.
    pub marks: Vec<NewDirtyKey>,
    /// Rows that could not be read or written.
    pub dead: Vec<NewDead>,
    /// The progress of an import.
    pub segment: Option<SegmentStep>,
    /// Types of which every id has to be compared, and up to where they are complete.
    pub sweeps: Vec<(EntityType, Option<AsOf>)>,
    /// The time of the site.
    pub now: SiteTime,
}

impl Finish {
    /// Begins the record of a read without effects.
    pub fn new(token: ReadToken, now: SiteTime) -> Self {
        Self {
            token,
            rows: Vec::new(),
            seen: Vec::new(),
            suspected: Vec::new(),
            postponed: Vec::new(),
            marks: Vec::new(),
            dead: Vec::new(),
            segment: None,
            sweeps: Vec::new(),
            now,
        }
    }

    /// Adds a key that cannot be read or written to the dead letters; it is tried again from
    /// time to time, and nothing waits for it.
    pub fn quarantine(&mut self, key: EntityRef, kind: DeadKind, payload: String, error: String, attempts: u32) {
        let delay = Dead::retry_after(attempts + 1);
        self.marks.push(NewDirtyKey { delay, ..NewDirtyKey::new(key.clone(), DirtyReasons::QUARANTINED) });
        self.postponed.push(Postponed { key: key.clone(), delay, add: DirtyReasons::QUARANTINED });
        self.dead.push(NewDead { kind, key, payload, error });
    }
}

/// A mark that a read cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The id.
    pub id: i64,
    /// Why it was marked.
    pub kinds: DirtyReasons,
    /// How many events had led to it.
    pub events: u32,
    /// When the oldest of them was created.
    pub event_created: Option<SiteTime>,
}

/// What a finished read did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// Marks that are gone.
    pub cleared: Vec<Cleared>,
    /// Rows whose hash or state is another than before, with what was known.
    pub changed: Vec<(i64, Option<RowMeta>)>,
    /// Rows that were stored late, over a newer state that had not been written;
    /// they are marked again.
    pub conflicts: Vec<i64>,
    /// The import after this step.
    pub import: Option<ImportState>,
}

impl State {
    /// Takes the version of a read that is about to be sent.
    pub async fn begin_read(&self, entity_type: &EntityType, now: SiteTime) -> Result<ReadToken> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let sql = "UPDATE stream SET seq = seq + 1 RETURNING (epoch << 40) | seq, gen";
            let mut next = transaction.prepare_cached(sql)?;
            let (rv, generation) = next.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let values = params![rv, entity_type.as_str(), now.0];
            transaction.prepare_cached("INSERT INTO reads (rv, type, at) VALUES (?1, ?2, ?3)")?.execute(values)?;
            let old = now.before(FORGOTTEN_AFTER);
            transaction.prepare_cached("DELETE FROM reads WHERE at < ?1")?.execute([old.0])?;
            Ok(ReadToken { entity_type, rv, generation })
        })
        .await
    }

    /// Takes a version alone, for something that is no read of rows.
    pub async fn next_rv(&self) -> Result<i64> {
        self.write(move |transaction| {
            let sql = "UPDATE stream SET seq = seq + 1 RETURNING (epoch << 40) | seq";
            Ok(transaction.query_row(sql, [], |row| row.get(0))?)
        })
        .await
    }

    /// Ends a read that wrote nothing and never will.
    pub async fn abandon(&self, token: &ReadToken) -> Result<()> {
        let token = token.clone();
        self.write(move |transaction| end_read(transaction, &token)).await
    }

    /// Returns the known state of the rows that may be left unwritten when the
    /// read shows them unchanged: no other read that may still write a row older
    /// than this read can be stored over what the store has.
    pub async fn may_suppress(&self, token: &ReadToken, ids: &[i64]) -> Result<BTreeMap<i64, RowMeta>> {
        let token = token.clone();
        let ids = ids.to_vec();
        self.read(move |connection| {
            let sql = "SELECT max(rv) FROM reads WHERE type = ?1 AND rv <> ?2";
            let values = params![token.entity_type.as_str(), token.rv];
            let open: Option<i64> = connection.query_row(sql, values, |row| row.get(0))?;
            let mut known = BTreeMap::new();
            for id in &ids {
                let meta = load_meta(connection, &token.entity_type, *id)?;
                if let Some(meta) = meta.filter(|meta| open.is_none_or(|open| open < meta.rv)) {
                    known.insert(*id, meta);
                }
            }
            Ok(known)
        })
        .await
    }

    /// Commits what a read led to: row states, buckets, cleared marks, import
    /// progress, dead letters.
    pub async fn finish(&self, finish: Finish) -> Result<Finished> {
        self.write(move |transaction| {
            let mut finished = Finished::default();
            let mut not_applied = Vec::new();
            let mut buckets = BucketChange::default();
            let marked = has_marks(transaction, &finish.token.entity_type)?;
            for row in &finish.rows {
                let last_event = if marked { last_event(transaction, &finish.token, row.id)? } else { None };
                if !apply_row(transaction, &finish, row, last_event, &mut buckets, &mut finished)? {
                    not_applied.push(row.id);
                }
            }
            change_buckets(transaction, &finish.token.entity_type, &buckets)?;
            let kept: BTreeSet<i64> = finish.postponed.iter().map(|one| one.key.id).chain(not_applied).collect();
            // An import passes thousands of rows that are not dirty.
            let answered = finish.seen.iter().chain(&finish.suspected).copied();
            let answered = finish.rows.iter().map(|row| row.id).chain(answered);
            for id in answered.filter(|id| marked && !kept.contains(id)) {
                finished.cleared.extend(clear_mark(transaction, &finish.token, id)?);
                forget_dead(transaction, &finish.token.entity_type, id)?;
            }
            let known = finish.rows.iter().filter(|row| row.outcome != RowOutcome::Stale).map(|row| row.id);
            end_suspicions(transaction, &finish.token.entity_type, known)?;
            suspect_absences(transaction, &finish.token.entity_type, &finish.suspected, finish.now)?;
            put_requests(transaction, &finish, &finished)?;
            forget_consequences(transaction, &finish.token.entity_type)?;
            put_off(transaction, &finish.postponed, finish.now)?;
            for dead in &finish.dead {
                put_dead(transaction, dead, finish.now)?;
            }
            if let Some(step) = &finish.segment {
                // What there is to expect was counted without the retired ones.
                let rows = finish.rows.iter().filter(|row| row.state == RowState::Active).count() as u64;
                finished.import = types::step_import(transaction, &finish.token.entity_type, *step, rows)?;
            }
            end_read(transaction, &finish.token)?;
            Ok(finished)
        })
        .await
    }
}

fn end_read(transaction: &Transaction<'_>, token: &ReadToken) -> Result<()> {
    transaction.prepare_cached("DELETE FROM reads WHERE rv = ?1")?.execute([token.rv])?;
    Ok(())
}

/// Tells whether keys of the type are marked; every dead row, too, has a mark.
fn has_marks(transaction: &Transaction<'_>, entity_type: &EntityType) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM marks WHERE type = ?1)";
    Ok(transaction.query_row(sql, [entity_type.as_str()], |row| row.get(0))?)
}

/// Takes in what is known of a row now. `false` says that nothing is: another writer
/// stored a newer row and has not said so yet, or never will.
fn apply_row(
    transaction: &Transaction<'_>,
    finish: &Finish,
    row: &RowDone,
    last_event: Option<EventId>,
    buckets: &mut BucketChange,
    finished: &mut Finished,
) -> Result<bool> {
    let token = &finish.token;
    let old = load_meta(transaction, &token.entity_type, row.id)?;
    let newest = old.as_ref().is_none_or(|old| old.rv < token.rv);
    match (row.outcome, newest) {
        (RowOutcome::Written, false) => finished.conflicts.push(row.id),
        (RowOutcome::Stale, true) => return Ok(false),
        (RowOutcome::Stale | RowOutcome::Unchanged, false) => {}
        (RowOutcome::Written | RowOutcome::Unchanged, true) => {
            let meta = RowMeta {
                rv: token.rv,
                state: row.state,
                updated_at: row.updated_at,
                hash: row.hash,
                name: row.name,
                last_event,
                read_at: finish.now,
            };
            buckets.replace(row.id, old.as_ref(), &meta);
            store_meta(transaction, &token.entity_type, row.id, &meta)?;
            if old.as_ref().is_none_or(|old| old.hash != meta.hash || old.state != meta.state) {
                finished.changed.push((row.id, old));
            }
        }
    }
    Ok(true)
}

fn last_event(transaction: &Transaction<'_>, token: &ReadToken, id: i64) -> Result<Option<EventId>> {
    let sql = "SELECT last_event FROM marks WHERE type = ?1 AND id = ?2";
    let found: Option<Option<i64>> = transaction
        .prepare_cached(sql)?
        .query_row(params![token.entity_type.as_str(), id], |row| row.get(0))
        .optional()?;
    Ok(found.flatten().map(EventId))
}

/// Deletes a mark that the read covers. A mark that was renewed meanwhile keeps
/// only what came after the read began.
fn clear_mark(transaction: &Transaction<'_>, token: &ReadToken, id: i64) -> Result<Option<Cleared>> {
    let key = params![token.entity_type.as_str(), id, token.generation];
    let sql = "DELETE FROM marks WHERE type = ?1 AND id = ?2 AND gen <= ?3 RETURNING kinds, events, event_created";
    let cleared = transaction
        .prepare_cached(sql)?
        .query_row(key, |row| {
            let event_created = row.get::<_, Option<i64>>(2)?.map(SiteTime);
            Ok(Cleared { id, kinds: DirtyReasons(row.get(0)?), events: row.get(1)?, event_created })
        })
        .optional()?;
    if cleared.is_none() {
        let sql = "UPDATE marks SET attempts = 0,
            since = coalesce((SELECT min(t.since) FROM touched t
                WHERE t.type = ?1 AND t.id = ?2 AND t.gen > ?3), since),
            since_poll = coalesce((SELECT min(t.since_poll) FROM touched t
                WHERE t.type = ?1 AND t.id = ?2 AND t.gen > ?3), since_poll)
            WHERE type = ?1 AND id = ?2";
        transaction.prepare_cached(sql)?.execute(key)?;
    }
    Ok(cleared)
}

/// Ends the wait for consequences of keys that are not marked any more: what follows
/// from them is marked itself.
fn forget_consequences(transaction: &Transaction<'_>, cause: &EntityType) -> Result<()> {
    let sql = "DELETE FROM consequences WHERE cause_type = ?1 AND NOT EXISTS
        (SELECT 1 FROM marks m WHERE m.type = cause_type AND m.id = cause_id)";
    transaction.prepare_cached(sql)?.execute([cause.as_str()])?;
    Ok(())
}

/// Makes the marks that the read asks for, and those for rows that were stored
/// over a newer state.
fn put_requests(transaction: &Transaction<'_>, finish: &Finish, finished: &Finished) -> Result<()> {
    let mut requests = finish.marks.clone();
    for id in &finished.conflicts {
        let key = EntityRef::new(finish.token.entity_type.clone(), *id);
        requests.push(NewDirtyKey::new(key, DirtyReasons::CHANGE));
    }
    if requests.is_empty() && finish.sweeps.is_empty() {
        return Ok(());
    }
    let since = since_of_new_marks(transaction, finish.now)?;
    let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: finish.now };
    for (entity_type, known) in &finish.sweeps {
        let since = known.map_or(since, |known| known.min(since));
        put_sweep(transaction, entity_type, DirtyCommit { since, ..marking }, finish.now)?;
    }
    put_marks(transaction, &requests, marking)
}
