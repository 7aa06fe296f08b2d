//! Keys that must be read again, and the log of keys that were marked.
//!
//! Every transaction that marks has a generation. A read covers the marks whose
//! generation is not newer than the one it saw when it began, and clears no
//! others.

use std::collections::BTreeMap;
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::poll::{merged, since_of_new_marks};
use super::{Result, SiteTime, State, StateError};
use crate::entity::{EntityRef, EntityType, EventId};

/// Why a key is marked; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kinds(pub u16);

impl Kinds {
    /// The entity was created.
    pub const NEW: Self = Self(1);
    /// A field changed.
    pub const CHANGE: Self = Self(1 << 1);
    /// It was retired.
    pub const RETIRE: Self = Self(1 << 2);
    /// It was revived.
    pub const REVIVE: Self = Self(1 << 3);
    /// An entity on the other side of a link changed.
    pub const INVERSE: Self = Self(1 << 4);
    /// A scan found a difference.
    pub const SCAN: Self = Self(1 << 5);
    /// A validation found a difference.
    pub const REPAIR: Self = Self(1 << 6);
    /// A second look at a row that may have been read too early.
    pub const SETTLE: Self = Self(1 << 7);
    /// An import did not meet the row.
    pub const IMPORT: Self = Self(1 << 8);
    /// A write went through the proxy.
    pub const WRITE: Self = Self(1 << 9);
    /// The breaker holds its deletion.
    pub const HELD: Self = Self(1 << 10);
    /// It cannot be read or written; tried again from time to time.
    pub const QUARANTINED: Self = Self(1 << 11);
    /// The second look was in vain; this is the last one.
    pub const LAST: Self = Self(1 << 12);

    /// The kinds that stand for something that the event log or a write told.
    pub const TOLD: Self = Self(Self::NEW.0 | Self::CHANGE.0 | Self::RETIRE.0 | Self::REVIVE.0 | Self::WRITE.0);

    const NAMES: [(Self, &'static str); 9] = [
        (Self::NEW, "new"),
        (Self::CHANGE, "change"),
        (Self::RETIRE, "retire"),
        (Self::REVIVE, "revive"),
        (Self::INVERSE, "inverse"),
        (Self::SCAN, "scan"),
        (Self::REPAIR, "repair"),
        (Self::SETTLE, "settle"),
        (Self::IMPORT, "import"),
    ];

    /// Tells whether the sets have a kind in common.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the set without these.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the names of the kinds as metrics use them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(kind, _)| self.any(*kind)).map(|(_, name)| name)
    }

    /// Returns the name of every kind that metrics know.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().map(|(_, name)| name)
    }

    /// What is read first: 0 is what an event or a write told, 1 its side effects, 2 the
    /// rest.
    fn priority(self) -> i64 {
        if self.any(Self::TOLD) {
            return 0;
        }
        if self.any(Self(Self::INVERSE.0 | Self::SETTLE.0)) { 1 } else { 2 }
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A key to mark, and what is known of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkRequest {
    /// The key.
    pub key: EntityRef,
    /// Why.
    pub kinds: Kinds,
    /// The first and the last event that led to it.
    pub events: Option<(EventId, EventId)>,
    /// How many events led to it.
    pub event_count: u32,
    /// When the first of these events was created.
    pub event_created: Option<SiteTime>,
    /// How long to wait before the read.
    pub delay: Duration,
    /// Values that events announced, by field, with the event: a row that does
    /// not show them may have been read too early.
    pub expected: Expected,
}

/// Announced values by field, each with the event that announced it.
pub type Expected = BTreeMap<String, (EventId, Value)>;

/// More announced values than this are not remembered.
const EXPECTED_LIMIT: usize = 8;

fn merge_expected(known: &mut Expected, other: &Expected) {
    for (field, (event, value)) in other {
        let newer = known.get(field).is_none_or(|(known, _)| known < event);
        if newer && (known.len() < EXPECTED_LIMIT || known.contains_key(field)) {
            known.insert(field.clone(), (*event, value.clone()));
        }
    }
}

impl MarkRequest {
    /// Asks for a read at once, for this reason.
    pub fn new(key: EntityRef, kinds: Kinds) -> Self {
        Self {
            key,
            kinds,
            events: None,
            event_count: 0,
            event_created: None,
            delay: Duration::ZERO,
            expected: Expected::new(),
        }
    }

    /// Takes in another request for the same key.
    pub(super) fn merge(&mut self, other: &Self) {
        self.kinds |= other.kinds;
        self.delay = self.delay.min(other.delay);
        self.event_count += other.event_count;
        merge_expected(&mut self.expected, &other.expected);
        self.events = match (self.events, other.events) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        self.event_created = match (self.event_created, other.event_created) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// A key that must be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The key.
    pub key: EntityRef,
    /// The generation of the newest reason.
    pub generation: i64,
    /// All reasons.
    pub kinds: Kinds,
    /// Everything that was visible at this moment is in the stored row.
    pub since: SiteTime,
    /// The newest event that led to it.
    pub last_event: Option<EventId>,
    /// When the oldest event that led to it was created.
    pub event_created: Option<SiteTime>,
    /// How many events led to it.
    pub events: u32,
    /// Values that these events announced.
    pub expected: Expected,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it may be read.
    pub due_at: SiteTime,
}

/// A mark that is put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The key.
    pub key: EntityRef,
    /// How long.
    pub delay: Duration,
    /// Kinds to add: [`Kinds::HELD`] or [`Kinds::QUARANTINED`].
    pub add: Kinds,
}

/// What all marks of one transaction share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marking {
    pub(super) generation: i64,
    pub(super) since: SiteTime,
    pub(super) poll: i64,
    pub(super) at: SiteTime,
}

const COLUMNS: &str = "type, id, gen, kinds, since, last_event, event_created, events, attempts, due_at, expected";

impl State {
    /// Marks keys outside of a poll.
    pub async fn mark(&self, requests: &[MarkRequest], now: SiteTime) -> Result<()> {
        let requests = requests.to_vec();
        self.write(move |transaction| {
            let since = since_of_new_marks(transaction, now)?;
            let marking = Marking { generation: next_gen(transaction)?, since, poll: 0, at: now };
            put_marks(transaction, &requests, marking)
        })
        .await
    }

    /// Returns the marks that are due, most urgent first.
    pub async fn due_marks(&self, now: SiteTime, limit: usize) -> Result<Vec<Mark>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM marks WHERE due_at <= ?1 ORDER BY prio, since, type, id LIMIT ?2");
            collect(connection, &sql, params![now.0, limit as i64])
        })
        .await
    }

    /// Returns the marks that are due for something that an event or a write told
    /// of, newest first: what somebody waits for while a bulk of others is read.
    pub async fn newest_marks(&self, now: SiteTime, limit: usize) -> Result<Vec<Mark>> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM marks WHERE prio = 0 AND due_at <= ?1 AND kinds & ?3 = 0
                ORDER BY gen DESC, type, id LIMIT ?2"
            );
            let stuck = Kinds::QUARANTINED | Kinds::HELD;
            collect(connection, &sql, params![now.0, limit as i64, stuck.0])
        })
        .await
    }

    /// Returns every mark, for status and tests.
    pub async fn marks(&self, limit: usize) -> Result<Vec<Mark>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM marks ORDER BY type, id LIMIT ?1");
            collect(connection, &sql, params![limit as i64])
        })
        .await
    }

    /// Returns when the next mark becomes due.
    pub async fn next_due(&self) -> Result<Option<SiteTime>> {
        self.read(move |connection| {
            let due: Option<i64> = connection.query_row("SELECT min(due_at) FROM marks", [], |row| row.get(0))?;
            Ok(due.map(SiteTime))
        })
        .await
    }

    /// Counts the marks by kind; a mark of two kinds counts in both.
    pub async fn mark_counts(&self) -> Result<Vec<(&'static str, u64)>> {
        let counted: Vec<(i64, i64)> = self
            .read(move |connection| {
                let mut statement = connection.prepare_cached("SELECT kinds, count(*) FROM marks GROUP BY kinds")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        let count = |name| {
            let of_kind = |kinds: i64| Kinds(kinds as u16).names().any(|known| known == name);
            counted.iter().filter(|(kinds, _)| of_kind(*kinds)).map(|(_, count)| *count as u64).sum()
        };
        Ok(Kinds::all_names().map(|name| (name, count(name))).collect())
    }

    /// Counts the open marks that the poll `poll`, an earlier one or a write before
    /// the moment `before` told of; stuck keys do not count.
    pub async fn open_marks(&self, poll: i64, before: SiteTime) -> Result<u64> {
        self.read(move |connection| {
            let sql = "SELECT count(*) FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0
                AND (since < ?4 OR poll BETWEEN 1 AND ?3)";
            let stuck = Kinds::QUARANTINED | Kinds::HELD;
            let values = params![Kinds::TOLD.0, stuck.0, poll, before.0];
            Ok(connection.query_row(sql, values, |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    /// Tells whether a type has open marks of these kinds for something that
    /// happened up to a moment; stuck keys do not count.
    pub async fn has_marks_until(&self, entity_type: &EntityType, kinds: Kinds, until: SiteTime) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM marks
                WHERE type = ?1 AND kinds & ?2 <> 0 AND kinds & ?3 = 0 AND since <= ?4)";
            let stuck = Kinds::QUARANTINED | Kinds::HELD;
            let values = params![entity_type.as_str(), kinds.0, stuck.0, until.0];
            Ok(connection.query_row(sql, values, |row| row.get(0))?)
        })
        .await
    }

    /// Returns the newest generation; what is marked from now on has a newer one.
    pub async fn generation(&self) -> Result<i64> {
        self.read(move |connection| Ok(connection.query_row("SELECT gen FROM stream", [], |row| row.get(0))?)).await
    }

    /// Returns the ids of a type that are marked now.
    pub async fn marked_ids(&self, entity_type: &EntityType) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT id FROM marks WHERE type = ?1 AND kinds <> ?2 ORDER BY id")?;
            let rows = statement.query_map(params![entity_type.as_str(), Kinds::REPAIR.0], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Returns the ids of a type that were marked after `generation`, whether they
    /// were read since or not. Repairs do not count: they follow from a
    /// comparison and say nothing about the site. The log reaches back three hours.
    pub async fn touched_since(&self, entity_type: &EntityType, generation: i64) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT DISTINCT id FROM touched WHERE type = ?1 AND gen > ?2 AND kinds <> ?3 ORDER BY id";
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![entity_type.as_str(), generation, Kinds::REPAIR.0];
            let rows = statement.query_map(values, |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Tells whether a key was marked at a moment or later, whether it was read
    /// since or not. The log reaches back three hours.
    pub async fn was_touched(&self, key: &EntityRef, since: SiteTime) -> Result<bool> {
        let key = key.clone();
        self.read(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM touched WHERE type = ?1 AND id = ?2 AND at >= ?3)";
            let values = params![key.entity_type.as_str(), key.id, since.0];
            Ok(connection.query_row(sql, values, |row| row.get(0))?)
        })
        .await
    }

    /// Puts marks off that cannot be read now through no fault of theirs.
    pub async fn defer(&self, keys: &[EntityRef], delay: Duration, now: SiteTime) -> Result<()> {
        let keys = keys.to_vec();
        self.write(move |transaction| {
            let mut statement =
                transaction.prepare_cached("UPDATE marks SET due_at = ?3 WHERE type = ?1 AND id = ?2")?;
            for key in &keys {
                statement.execute(params![key.entity_type.as_str(), key.id, now.after(delay).0])?;
            }
            Ok(())
        })
        .await
    }

    /// Puts marks off after a failure, and counts the attempt.
    pub async fn postpone(&self, postponed: &[Postponed], now: SiteTime) -> Result<()> {
        let postponed = postponed.to_vec();
        self.write(move |transaction| put_off(transaction, &postponed, now)).await
    }
}

pub(super) fn put_off(transaction: &Transaction<'_>, postponed: &[Postponed], now: SiteTime) -> Result<()> {
    let sql = "UPDATE marks SET due_at = ?3, attempts = attempts + 1, kinds = kinds | ?4
        WHERE type = ?1 AND id = ?2";
    let mut statement = transaction.prepare_cached(sql)?;
    for one in postponed {
        let due = now.after(one.delay);
        statement.execute(params![one.key.entity_type.as_str(), one.key.id, due.0, one.add.0])?;
    }
    Ok(())
}

/// Takes the generation of this transaction.
pub(super) fn next_gen(transaction: &Transaction<'_>) -> Result<i64> {
    let mut statement = transaction.prepare_cached("UPDATE stream SET gen = gen + 1 RETURNING gen")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Writes marks and their log.
pub(super) fn put_marks(transaction: &Transaction<'_>, requests: &[MarkRequest], marking: Marking) -> Result<()> {
    let sql = "INSERT INTO marks (type, id, gen, kinds, since, poll, first_event, last_event, event_created, events,
            attempts, due_at, prio, expected) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12, ?13)
        ON CONFLICT (type, id) DO UPDATE SET gen = ?3, kinds = (kinds | ?4), since = min(since, ?5),
            poll = max(poll, ?6), first_event = min(coalesce(first_event, ?7), coalesce(?7, first_event)),
            last_event = max(coalesce(last_event, ?8), coalesce(?8, last_event)),
            event_created = min(coalesce(event_created, ?9), coalesce(?9, event_created)), events = events + ?10,
            due_at = min(due_at, ?11), prio = min(prio, ?12), expected = coalesce(?13, expected)";
    let mut mark = transaction.prepare_cached(sql)?;
    let sql = "INSERT INTO touched (gen, type, id, kinds, since, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut touch = transaction.prepare_cached(sql)?;
    for (key, request) in merged(requests) {
        let entity_type = key.entity_type.as_str();
        let due = marking.at.after(request.delay);
        mark.execute(params![
            entity_type,
            key.id,
            marking.generation,
            request.kinds.0,
            marking.since.0,
            marking.poll,
            request.events.map(|(first, _)| first.0),
            request.events.map(|(_, last)| last.0),
            request.event_created.map(|moment| moment.0),
            request.event_count,
            due.0,
            request.kinds.priority(),
            expected_of(transaction, &request)?,
        ])?;
        let since = marking.since.0;
        touch.execute(params![marking.generation, entity_type, key.id, request.kinds.0, since, marking.at.0])?;
    }
    Ok(())
}

/// Returns the announced values that a mark has after a request, as JSON; `None`
/// leaves them as they are.
fn expected_of(transaction: &Transaction<'_>, request: &MarkRequest) -> Result<Option<String>> {
    if request.expected.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT expected FROM marks WHERE type = ?1 AND id = ?2";
    let key = params![request.key.entity_type.as_str(), request.key.id];
    let known: Option<Option<String>> = transaction.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?;
    let mut expected: Expected = known.flatten().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    merge_expected(&mut expected, &request.expected);
    serde_json::to_string(&expected).map(Some).map_err(|error| StateError::malformed("mark", error))
}

fn collect(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Mark>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark {
        key: EntityRef::new(row.get::<_, String>(0)?.as_str(), row.get(1)?),
        generation: row.get(2)?,
        kinds: Kinds(row.get(3)?),
        since: SiteTime(row.get(4)?),
        last_event: row.get::<_, Option<i64>>(5)?.map(EventId),
        event_created: row.get::<_, Option<i64>>(6)?.map(SiteTime),
        events: row.get(7)?,
        attempts: row.get(8)?,
        due_at: SiteTime(row.get(9)?),
        // What cannot be read expects nothing: at worst a second look is missed.
        expected: row
            .get::<_, Option<String>>(10)?
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default(),
    })
}
