//! How fresh the cache is: the moment up to which it is known to equal the site.
//!
//! Every change whose event was visible at that moment is stored. It is the
//! moment of the last poll that saw everything there was, or, while marks that
//! an event or a write led to are open, the moment of the last such poll before
//! the oldest of them. Changes without events have a guarantee of their own: the
//! periods of scans.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{AsOf, DirtyReasons, Result, SiteTime, State, TypeState};
use crate::entity::{EntityType, EventId};

/// What can be said about every type at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Everything that was visible at this moment is marked or stored; only shown.
    pub complete_as_of: Option<SiteTime>,
    /// The same as the number of a poll; 0 before the first complete one.
    #[serde(default)]
    pub complete_poll: i64,
    /// The number of the poll that was started last: a higher one begins later.
    #[serde(default)]
    pub polls_started: i64,
    /// The followed types.
    pub types: BTreeMap<EntityType, TypeReplicationStatus>,
    /// Types with open marks that an event or a write led to: everything visible
    /// at the given moment is in their rows.
    pub marked: BTreeMap<EntityType, SiteTime>,
    /// The same, with the marks of entities that are linked to a changed one.
    pub unread: BTreeMap<EntityType, SiteTime>,
    /// By the type of `unread`: everything that polls up to this number saw is in the
    /// rows.
    #[serde(default)]
    pub unread_polls: BTreeMap<EntityType, i64>,
    /// Whether an event announced a change of the schema that was not read yet.
    pub schema_due: bool,
    /// How often a change of the schema was noticed: a schema whose read began after this
    /// number was seen holds all of them.
    #[serde(default)]
    pub schema_changes: i64,
}

/// What can be said about one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeReplicationStatus {
    /// Its state.
    pub state: TypeState,
    /// The layout that its rows have.
    pub layout_hash: String,
    /// Whether its deletions wait for an operator.
    pub breaker: bool,
    /// Keys in quarantine.
    pub quarantined: BTreeSet<i64>,
}

impl TypeReplicationStatus {
    /// Tells whether every row follows the site, with every field.
    pub fn is_live(&self) -> bool {
        self.state == TypeState::Live
    }
}

impl ReplicationStatus {
    /// Returns the moment up to which rows of a type, or the names of uncached
    /// entities of a type, equal the site.
    pub fn fresh_as_of(&self, entity_type: &EntityType) -> Option<SiteTime> {
        let complete = self.complete_as_of?;
        Some(self.marked.get(entity_type).map_or(complete, |since| complete.min(*since)))
    }

    /// Returns the moment up to which rows of a type, also of those that only link
    /// to what was changed, equal the site.
    pub fn read_as_of(&self, entity_type: &EntityType) -> Option<SiteTime> {
        let complete = self.complete_as_of?;
        Some(self.unread.get(entity_type).map_or(complete, |since| complete.min(*since)))
    }

    /// Returns the number of the newest poll whose entries, and everything that
    /// followed from them, are in the rows of a type. A write that was acknowledged
    /// when `polls_started` was lower than this number is in them, too.
    pub fn read_through(&self, entity_type: &EntityType) -> i64 {
        self.unread_polls.get(entity_type).map_or(self.complete_poll, |poll| self.complete_poll.min(*poll))
    }

    /// Tells whether an event or a write marked keys of a type that are not read
    /// again yet.
    pub fn is_marked(&self, entity_type: &EntityType) -> bool {
        self.marked.contains_key(entity_type)
    }
}

/// What the status takes from the one row of `stream`.
type StreamRow = (Option<i64>, i64, i64, bool, i64);

impl State {
    /// Returns the moment up to which everything that is live equals the site, or
    /// `None` before the first complete poll.
    pub async fn fresh_as_of(&self) -> Result<Option<SiteTime>> {
        self.read(move |connection| {
            let live = live_types(connection)?;
            let open = marked_types(connection, DirtyReasons::FROM_EVENT)?;
            let oldest = open.iter().filter(|(ty, _)| live.contains(*ty)).map(|(_, since)| since.at).min();
            bounded(connection, oldest)
        })
        .await
    }

    /// Returns the moment up to which a type equals the site, or `None` when it is
    /// not live.
    pub async fn fresh_as_of_type(&self, entity_type: &EntityType) -> Result<Option<SiteTime>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| {
            if !live_types(connection)?.contains(&entity_type) {
                return Ok(None);
            }
            let open = marked_types(connection, DirtyReasons::FROM_EVENT)?;
            bounded(connection, open.get(&entity_type).map(|since| since.at))
        })
        .await
    }

    /// Returns what can be said about every type now.
    pub async fn replication_status(&self) -> Result<ReplicationStatus> {
        self.read(move |connection| {
            let sql = "SELECT complete_as_of, complete_poll, polls_started, schema_due, schema_changes FROM stream";
            let (complete, complete_poll, polls_started, schema_due, schema_changes): StreamRow = connection
                .prepare_cached(sql)?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
            let unread = marked_types(connection, DirtyReasons::FROM_EVENT | DirtyReasons::INVERSE)?;
            Ok(ReplicationStatus {
                complete_as_of: complete.map(SiteTime),
                complete_poll,
                polls_started,
                types: type_statuses(connection)?,
                marked: times(&marked_types(connection, DirtyReasons::FROM_EVENT)?),
                unread: times(&unread),
                unread_polls: unread.into_iter().map(|(ty, since)| (ty, since.poll)).collect(),
                schema_due,
                schema_changes,
            })
        })
        .await
    }

    /// Returns the newest event up to which every row that an event announced is in the
    /// store: the one before the first of an open mark, or the high-water mark. Stuck keys do not
    /// hold it up.
    pub async fn visible_event(&self) -> Result<Option<EventId>> {
        self.read(move |connection| {
            let sql =
                "SELECT coalesce((SELECT min(first_event) - 1 FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0),
                frontier) FROM stream";
            let (announced, stuck) = (
                DirtyReasons::FROM_EVENT | DirtyReasons::INVERSE,
                DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED,
            );
            let visible: Option<i64> = connection.query_row(sql, params![announced.0, stuck.0], |row| row.get(0))?;
            Ok(visible.map(EventId))
        })
        .await
    }

    /// Returns when the oldest event whose row is not stored yet was created.
    pub async fn oldest_open_event(&self) -> Result<Option<SiteTime>> {
        self.read(move |connection| {
            let sql = "SELECT min(event_created) FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0";
            let values = params![DirtyReasons::FROM_EVENT.0, DirtyReasons::QUARANTINED.0];
            let oldest: Option<i64> = connection.query_row(sql, values, |row| row.get(0))?;
            Ok(oldest.map(SiteTime))
        })
        .await
    }
}

fn type_statuses(connection: &Connection) -> Result<BTreeMap<EntityType, TypeReplicationStatus>> {
    let mut types = BTreeMap::new();
    let mut statement = connection.prepare_cached("SELECT type, state, layout_hash, breaker_since FROM types")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let entity_type = EntityType::new(row.get::<_, String>(0)?);
        let standing = TypeReplicationStatus {
            state: TypeState::parse(&entity_type, &row.get::<_, String>(1)?),
            layout_hash: row.get(2)?,
            breaker: row.get::<_, Option<i64>>(3)?.is_some(),
            quarantined: BTreeSet::new(),
        };
        types.insert(entity_type, standing);
    }
    let sql = "SELECT type, id FROM dead WHERE kind <> 'event' UNION SELECT type, id FROM suspected";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(standing) = types.get_mut(row.get::<_, String>(0)?.as_str()) {
            standing.quarantined.insert(row.get(1)?);
        }
    }
    Ok(types)
}

fn times(types: &BTreeMap<EntityType, AsOf>) -> BTreeMap<EntityType, SiteTime> {
    types.iter().map(|(ty, since)| (ty.clone(), since.at)).collect()
}

/// Returns since when each type has open marks of these kinds, or waits for what follows
/// from open marks of other types.
fn marked_types(connection: &Connection, kinds: DirtyReasons) -> Result<BTreeMap<EntityType, AsOf>> {
    let sql = "SELECT type, min(since), min(since_poll) FROM (
        SELECT type, since, since_poll FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0
        UNION ALL SELECT c.type, m.since, m.since_poll FROM consequences c
            JOIN marks m ON m.type = c.cause_type AND m.id = c.cause_id WHERE m.kinds & ?1 <> 0 AND m.kinds & ?3 = 0
        UNION ALL SELECT type, since, since_poll FROM sweeps) GROUP BY type";
    let mut statement = connection.prepare_cached(sql)?;
    let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
    let rows = statement.query_map(params![kinds.0, DirtyReasons::QUARANTINED.0, stuck.0], |row| {
        let since = AsOf { at: SiteTime(row.get(1)?), poll: row.get(2)? };
        Ok((EntityType::new(row.get::<_, String>(0)?), since))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn live_types(connection: &Connection) -> Result<BTreeSet<EntityType>> {
    let mut statement = connection.prepare_cached("SELECT type FROM types WHERE state IN ('live', 'degraded')")?;
    let rows = statement.query_map([], |row| Ok(EntityType::new(row.get::<_, String>(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn bounded(connection: &Connection, oldest_mark: Option<SiteTime>) -> Result<Option<SiteTime>> {
    let sql = "SELECT complete_as_of FROM stream";
    let complete: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(complete.map(|complete| oldest_mark.map_or(SiteTime(complete), |mark| mark.min(SiteTime(complete)))))
}
