//! Keys that must be read again, and the log of keys that were marked.
//!
//! Every transaction that marks has a generation. A read covers the marks whose
//! generation is not newer than the one it saw when it began, and clears no
//! others.

use std::collections::BTreeMap;
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use super::as_of::AsOf;
use super::expected::Expected;
use super::{Result, SiteTime, State, StateError};
use crate::entity::{EntityRef, EntityType, EventId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

/// Why a key is marked; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DirtyReasons(pub u16);

impl DirtyReasons {
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
    /// It is read once more, although nothing says that the row is old.
    pub const RECHECK: Self = Self(1 << 7);
    /// An import did not meet the row.
    pub const IMPORT: Self = Self(1 << 8);
    /// A write went through the proxy.
    pub const WRITE: Self = Self(1 << 9);
    /// The deletion circuit breaker stops its deletion.
    pub const DELETION_STOPPED: Self = Self(1 << 10);
    /// It cannot be read or written; tried again from time to time.
    pub const QUARANTINED: Self = Self(1 << 11);
    /// The row was read, and does not show what its entries announced: it may be
    /// older than they are.
    pub const UNPROVEN: Self = Self(1 << 12);

    /// The reasons that stand for a change which the event log or a write announced;
    /// freshness does not pass them.
    pub const FROM_EVENT: Self =
        Self(Self::NEW.0 | Self::CHANGE.0 | Self::RETIRE.0 | Self::REVIVE.0 | Self::WRITE.0 | Self::UNPROVEN.0);

    const NAMES: [(Self, &'static str); 10] = [
        (Self::NEW, "new"),
        (Self::CHANGE, "change"),
        (Self::RETIRE, "retire"),
        (Self::REVIVE, "revive"),
        (Self::INVERSE, "inverse"),
        (Self::SCAN, "scan"),
        (Self::REPAIR, "repair"),
        (Self::RECHECK, "recheck"),
        (Self::UNPROVEN, "unproven"),
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

    /// What is read first: 0 is what an event or a write announced, 1 its side effects, 2 the
    /// rest.
    fn priority(self) -> i64 {
        if self.any(Self::FROM_EVENT) {
            return 0;
        }
        if self.any(Self(Self::INVERSE.0 | Self::RECHECK.0)) { 1 } else { 2 }
    }
}

impl BitOr for DirtyReasons {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for DirtyReasons {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A key to mark, and what is known of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDirtyKey {
    /// The key.
    pub key: EntityRef,
    /// Why.
    pub kinds: DirtyReasons,
    /// The first and the last event that led to it.
    pub events: Option<(EventId, EventId)>,
    /// How many events led to it.
    pub event_count: u32,
    /// When the first of these events was created.
    pub event_created: Option<SiteTime>,
    /// How long to wait before the read.
    pub delay: Duration,
    /// What these events announced: a row that does not show it may be older.
    pub expected: Expected,
    /// Up to where the row is known to be complete; `None` is up to the last complete
    /// poll. What follows from another dirty key takes it over from that key, so that
    /// nothing counts as read before its consequences are.
    pub since: Option<AsOf>,
    /// Types whose rows may have to be read again in consequence, once this key was
    /// read: until then they are no fresher than it is.
    pub affects: Vec<EntityType>,
}

impl NewDirtyKey {
    /// Asks for a read at once, for this reason.
    pub fn new(key: EntityRef, kinds: DirtyReasons) -> Self {
        Self {
            key,
            kinds,
            events: None,
            event_count: 0,
            event_created: None,
            delay: Duration::ZERO,
            expected: Expected::default(),
            since: None,
            affects: Vec::new(),
        }
    }

    /// Takes in another request for the same key.
    pub(super) fn merge(&mut self, other: &Self) {
        self.kinds |= other.kinds;
        self.delay = self.delay.min(other.delay);
        self.event_count += other.event_count;
        self.expected.merge(&other.expected);
        self.affects.extend(other.affects.iter().cloned());
        self.since = match (self.since, other.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
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
pub struct DirtyKey {
    /// The key.
    pub key: EntityRef,
    /// The generation of the newest reason.
    pub generation: i64,
    /// All reasons.
    pub kinds: DirtyReasons,
    /// Up to where the stored row is complete.
    pub since: AsOf,
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

impl DirtyKey {
    /// Tells whether an event reported a revival, with or without an entry of its own.
    pub fn was_revived(&self) -> bool {
        let silent = !self.kinds.any(DirtyReasons::NEW) && self.expected.active() == Some(true);
        self.kinds.any(DirtyReasons::REVIVE) || silent
    }

    /// Tells whether an event reported a retirement, with or without an entry of its own.
    pub fn was_retired(&self) -> bool {
        self.kinds.any(DirtyReasons::RETIRE) || self.expected.active() == Some(false)
    }
}

/// A mark that is put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponed {
    /// The key.
    pub key: EntityRef,
    /// How long.
    pub delay: Duration,
    /// Reasons to add: [`DirtyReasons::DELETION_STOPPED`] or [`DirtyReasons::QUARANTINED`].
    pub add: DirtyReasons,
}

/// What all marks of one transaction share.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirtyCommit {
    pub(super) generation: i64,
    pub(super) since: AsOf,
    pub(super) poll: i64,
    pub(super) at: SiteTime,
}

const COLUMNS: &str = "type, id, gen, kinds, since, last_event, event_created, events, attempts, due_at, expected,
    since_poll";

impl State {
    /// Marks keys outside of a poll. A poll with a number above the returned one
    /// begins after this call.
    pub async fn mark(&self, requests: &[NewDirtyKey], now: SiteTime) -> Result<i64> {
        let requests = requests.to_vec();
        self.write(move |transaction| {
            let since = since_of_new_marks(transaction, now)?;
            let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: now };
            put_marks(transaction, &requests, marking)?;
            Ok(transaction.query_row("SELECT polls_started FROM stream", [], |row| row.get(0))?)
        })
        .await
    }

    /// Returns the marks of these keys of a type.
    pub async fn marks_of(&self, entity_type: &EntityType, ids: &[i64]) -> Result<Vec<DirtyKey>> {
        let ids: std::collections::BTreeSet<i64> = ids.iter().copied().collect();
        let (Some(first), Some(last)) = (ids.first().copied(), ids.last().copied()) else {
            return Ok(Vec::new());
        };
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM marks WHERE type = ?1 AND id BETWEEN ?2 AND ?3");
            let mut marks = collect(connection, &sql, params![entity_type.as_str(), first, last])?;
            marks.retain(|mark| ids.contains(&mark.key.id));
            Ok(marks)
        })
        .await
    }

    /// Returns the marks that are due, most urgent first.
    pub async fn due_marks(&self, now: SiteTime, limit: usize) -> Result<Vec<DirtyKey>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM marks WHERE due_at <= ?1 ORDER BY prio, since, type, id LIMIT ?2");
            collect(connection, &sql, params![now.0, limit as i64])
        })
        .await
    }

    /// Returns the marks that are due for a change that an event or a write
    /// announced, newest first: what callers wait for while a bulk of others is read.
    pub async fn newest_marks(&self, now: SiteTime, limit: usize) -> Result<Vec<DirtyKey>> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM marks WHERE prio = 0 AND due_at <= ?1 AND kinds & ?3 = 0
                ORDER BY gen DESC, type, id LIMIT ?2"
            );
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            collect(connection, &sql, params![now.0, limit as i64, stuck.0])
        })
        .await
    }

    /// Returns every mark, for status and tests.
    pub async fn marks(&self, limit: usize) -> Result<Vec<DirtyKey>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM marks ORDER BY type, id LIMIT ?1");
            collect(connection, &sql, params![limit as i64])
        })
        .await
    }

    /// Returns the ids of a type whose marks are due, at most `limit`.
    pub async fn due_ids(&self, entity_type: &EntityType, now: SiteTime, limit: usize) -> Result<Vec<i64>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT id FROM marks WHERE type = ?1 AND due_at <= ?2 AND kinds & ?3 = 0 ORDER BY id LIMIT ?4";
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![entity_type.as_str(), now.0, stuck.0, limit as i64];
            let rows = statement.query_map(values, |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Tells whether keys are dirty for one of these reasons and due by then; stuck keys do
    /// not count.
    pub async fn has_due(&self, kinds: DirtyReasons, by: SiteTime) -> Result<bool> {
        self.read(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0 AND due_at <= ?3)";
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            Ok(connection.prepare_cached(sql)?.query_row(params![kinds.0, stuck.0, by.0], |row| row.get(0))?)
        })
        .await
    }

    /// Returns the keys that writes through the proxy have touched and that were not
    /// read again yet.
    pub async fn dirty_by_writes(&self, limit: usize) -> Result<Vec<EntityRef>> {
        self.read(move |connection| {
            let sql = "SELECT type, id FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0 LIMIT ?3";
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![DirtyReasons::WRITE.0, DirtyReasons::QUARANTINED.0, limit as i64];
            let rows = statement
                .query_map(values, |row| Ok(EntityRef::new(row.get::<_, String>(0)?.as_str(), row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
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
            let of_kind = |kinds: i64| DirtyReasons(kinds as u16).names().any(|known| known == name);
            counted.iter().filter(|(kinds, _)| of_kind(*kinds)).map(|(_, count)| *count as u64).sum()
        };
        Ok(DirtyReasons::all_names().map(|name| (name, count(name))).collect())
    }

    /// Counts the open marks that the poll `poll` or an earlier one found, a write
    /// before the poll `complete` was complete, and those that followed from them;
    /// stuck keys do not count.
    pub async fn open_marks(&self, poll: i64, complete: i64) -> Result<u64> {
        self.read(move |connection| {
            let sql = "SELECT count(*) FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0
                AND (since_poll < ?4 OR poll BETWEEN 1 AND ?3)";
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            let announced = DirtyReasons::FROM_EVENT | DirtyReasons::INVERSE;
            let values = params![announced.0, stuck.0, poll, complete];
            Ok(connection.query_row(sql, values, |row| row.get::<_, i64>(0))? as u64)
        })
        .await
    }

    /// Tells whether a type has open marks of these kinds that were made before the
    /// next complete poll after `poll`; stuck keys do not count.
    pub async fn has_marks_until(&self, entity_type: &EntityType, kinds: DirtyReasons, poll: i64) -> Result<bool> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM marks
                WHERE type = ?1 AND kinds & ?2 <> 0 AND kinds & ?3 = 0 AND since_poll <= ?4)";
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            let values = params![entity_type.as_str(), kinds.0, stuck.0, poll];
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
            let rows = statement.query_map(params![entity_type.as_str(), DirtyReasons::REPAIR.0], |row| row.get(0))?;
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
            let values = params![entity_type.as_str(), generation, DirtyReasons::REPAIR.0];
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
pub(super) fn put_marks(transaction: &Transaction<'_>, requests: &[NewDirtyKey], marking: DirtyCommit) -> Result<()> {
    let sql = "INSERT INTO marks (type, id, gen, kinds, since, poll, first_event, last_event, event_created, events,
            attempts, due_at, prio, expected, since_poll)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, ?11, ?12, ?13, ?14)
        ON CONFLICT (type, id) DO UPDATE SET gen = ?3, kinds = (kinds | ?4), since = min(since, ?5),
            poll = max(poll, ?6), first_event = min(coalesce(first_event, ?7), coalesce(?7, first_event)),
            last_event = max(coalesce(last_event, ?8), coalesce(?8, last_event)),
            event_created = min(coalesce(event_created, ?9), coalesce(?9, event_created)), events = events + ?10,
            due_at = min(due_at, ?11), prio = min(prio, ?12), expected = coalesce(?13, expected),
            since_poll = min(since_poll, ?14)";
    let mut mark = transaction.prepare_cached(sql)?;
    let sql = "INSERT INTO touched (gen, type, id, kinds, since, since_poll, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut touch = transaction.prepare_cached(sql)?;
    let sql = "INSERT OR IGNORE INTO consequences (cause_type, cause_id, type) VALUES (?1, ?2, ?3)";
    let mut affect = transaction.prepare_cached(sql)?;
    for (key, request) in merged(requests) {
        let entity_type = key.entity_type.as_str();
        let due = due_at(&request, marking.at);
        let since = request.since.map_or(marking.since, |since| since.min(marking.since));
        mark.execute(params![
            entity_type,
            key.id,
            marking.generation,
            request.kinds.0,
            since.at.0,
            marking.poll,
            request.events.map(|(first, _)| first.0),
            request.events.map(|(_, last)| last.0),
            request.event_created.map(|moment| moment.0),
            request.event_count,
            due.0,
            request.kinds.priority(),
            expected_of(transaction, &request)?,
            since.poll,
        ])?;
        let (generation, kinds) = (marking.generation, request.kinds.0);
        touch.execute(params![generation, entity_type, key.id, kinds, since.at.0, since.poll, marking.at.0])?;
        for affected in &request.affects {
            affect.execute(params![entity_type, key.id, affected.as_str()])?;
        }
    }
    Ok(())
}

/// Returns when a key is due. Rechecks are due on whole seconds, so that those of many
/// polls share one request.
fn due_at(request: &NewDirtyKey, now: SiteTime) -> SiteTime {
    let due = now.after(request.delay);
    match request.kinds.any(DirtyReasons::UNPROVEN) {
        true => SiteTime(due.0.saturating_add(999).div_euclid(1000) * 1000),
        false => due,
    }
}

/// Returns what a mark expects after a request, as JSON; `None` leaves it as it is.
fn expected_of(transaction: &Transaction<'_>, request: &NewDirtyKey) -> Result<Option<String>> {
    if request.expected.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT expected FROM marks WHERE type = ?1 AND id = ?2";
    let key = params![request.key.entity_type.as_str(), request.key.id];
    let known: Option<Option<String>> = transaction.prepare_cached(sql)?.query_row(key, |row| row.get(0)).optional()?;
    let mut expected = Expected::parse(&request.key, known.flatten().as_deref());
    expected.merge(&request.expected);
    serde_json::to_string(&expected).map(Some).map_err(|error| StateError::malformed("mark", error))
}

fn collect(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<DirtyKey>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(values, from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<DirtyKey> {
    let key = EntityRef::new(row.get::<_, String>(0)?.as_str(), row.get(1)?);
    Ok(DirtyKey {
        expected: Expected::parse(&key, row.get::<_, Option<String>>(10)?.as_deref()),
        key,
        generation: row.get(2)?,
        kinds: DirtyReasons(row.get(3)?),
        since: AsOf { at: SiteTime(row.get(4)?), poll: row.get(11)? },
        last_event: row.get::<_, Option<i64>>(5)?.map(EventId),
        event_created: row.get::<_, Option<i64>>(6)?.map(SiteTime),
        events: row.get(7)?,
        attempts: row.get(8)?,
        due_at: SiteTime(row.get(9)?),
    })
}

/// How far the rows of a site may be behind its event log: as long as rereads go on.
pub const ROWS_BEHIND: Duration = Duration::from_secs(120);
/// How long before the first complete poll a change may have happened that is found now:
/// the stream begins with the entries of [`ROWS_BEHIND`], whose times are whole seconds.
const BEFORE_FIRST_POLL: Duration = ROWS_BEHIND.saturating_add(Duration::from_secs(10));

/// Returns what has been seen: a change that is found now happened later.
pub(super) fn since_of_new_marks(transaction: &Transaction<'_>, now: SiteTime) -> Result<AsOf> {
    let sql = "SELECT complete_as_of, complete_poll FROM stream";
    let (known, poll): (Option<i64>, i64) = transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let at = known.map_or_else(|| now.before(BEFORE_FIRST_POLL), SiteTime);
    Ok(AsOf { at: at.min(now), poll })
}

/// Merges requests for the same key.
fn merged(marks: &[NewDirtyKey]) -> BTreeMap<&EntityRef, NewDirtyKey> {
    let mut merged: BTreeMap<_, NewDirtyKey> = BTreeMap::new();
    for mark in marks {
        match merged.get_mut(&mark.key) {
            Some(known) => known.merge(mark),
            None => {
                merged.insert(&mark.key, mark.clone());
            }
        }
    }
    merged
}
