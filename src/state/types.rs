//! The entity types that are followed, and how far their imports are.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{Result, SiteTime, State, StateError, Unreadable};
use crate::entity::EntityType;

/// How far a segment of an import has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStep {
    /// Which segment.
    pub index: usize,
    /// The highest id that is imported.
    pub last_id: i64,
    /// Whether the segment is at its end.
    pub done: bool,
}

/// What can be said about the rows of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TypeState {
    /// Nothing is stored that could be relied on.
    Absent,
    /// An import runs or was interrupted.
    Importing,
    /// The rows follow the site.
    Live,
    /// The rows follow the site, and some of their fields are not followed.
    Degraded,
    /// No entity config names the type any more.
    Untracked,
}

impl TypeState {
    /// Returns the word used in the file and in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Importing => "importing",
            Self::Live => "live",
            Self::Degraded => "degraded",
            Self::Untracked => "untracked",
        }
    }

    /// Reads the word of a type; of one that is not known nothing can be relied on.
    pub(super) fn parse(entity_type: &EntityType, word: &str) -> Self {
        let all = [Self::Absent, Self::Importing, Self::Live, Self::Degraded, Self::Untracked];
        all.into_iter().find(|state| state.as_str() == word).unwrap_or_else(|| {
            Unreadable::Type.note(entity_type, "its state is an unknown word");
            Self::Absent
        })
    }
}

/// One type.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeRecord {
    /// The type.
    pub entity_type: EntityType,
    /// What can be said about its rows.
    pub state: TypeState,
    /// The layout that the rows have, or get by the running import.
    pub layout_hash: String,
    /// The running import.
    pub import: Option<ImportState>,
    /// Since when no entity config names it.
    pub untracked_since: Option<SiteTime>,
    /// Since when its deletions are held.
    pub breaker_since: Option<SiteTime>,
}

/// An import that runs or was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportState {
    /// Rows with an older version were not met by this import.
    pub lo_rv: i64,
    /// Parts of the range of ids, imported side by side.
    pub segments: Vec<Segment>,
    /// Rows imported so far.
    pub rows: u64,
    /// Rows to expect.
    pub expected: Option<u64>,
    /// Set once all segments are done and the rows that the import did not meet are
    /// marked, to the number of the last complete poll: the type is live when every
    /// mark of that time is cleared.
    #[serde(default)]
    pub confirm_poll: Option<i64>,
}

/// A part of the range of ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Ids up to this one are imported or belong to another segment.
    pub last_id: i64,
    /// The highest id of the segment; `None` for all the rest.
    pub end: Option<i64>,
    /// Whether everything is imported.
    pub done: bool,
    /// Whether these are the retired rows.
    #[serde(default)]
    pub retired: bool,
}

/// What is known of the rows of a type.
const ROW_TABLES: &[&str] = &["rowmeta", "buckets", "absences", "suspected", "dead", "types"];
/// What events announce of them.
const EVENT_TABLES: &[&str] = &["marks", "touched", "sweeps"];

impl State {
    /// Returns every known type, sorted by name.
    pub async fn types(&self) -> Result<Vec<TypeRecord>> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT type, state, layout_hash, import, untracked_since, breaker_since FROM types ORDER BY type",
            )?;
            let rows = statement.query_map([], from_row)?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(rows.into_iter().map(parse_import).collect())
        })
        .await
    }

    /// Returns one type; `None` when it was never followed.
    pub async fn type_record(&self, entity_type: &EntityType) -> Result<Option<TypeRecord>> {
        let entity_type = entity_type.clone();
        self.read(move |connection| load(connection, &entity_type)).await
    }

    /// Begins or restarts an import of a type in place.
    pub async fn begin_import(&self, entity_type: &EntityType, layout_hash: &str, import: &ImportState) -> Result<()> {
        let entity_type = entity_type.clone();
        let layout_hash = layout_hash.to_owned();
        let import = render(import)?;
        self.write(move |transaction| {
            let sql = "INSERT INTO types (type, state, layout_hash, import) VALUES (?1, 'importing', ?2, ?3)
                ON CONFLICT (type) DO UPDATE SET state = 'importing', layout_hash = ?2, import = ?3,
                    untracked_since = NULL";
            transaction.execute(sql, params![entity_type.as_str(), layout_hash, import])?;
            Ok(())
        })
        .await
    }

    /// Ends the copying of an import: the type is live once every mark up to
    /// the complete poll of this number is cleared.
    pub async fn confirm_import(&self, entity_type: &EntityType, poll: i64) -> Result<()> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let Some(mut import) = load(transaction, &entity_type)?.and_then(|record| record.import) else {
                return Ok(());
            };
            import.confirm_poll = Some(poll);
            let sql = "UPDATE types SET import = ?2 WHERE type = ?1";
            transaction.execute(sql, params![entity_type.as_str(), render(&import)?])?;
            Ok(())
        })
        .await
    }

    /// Declares a type live: its import is complete and confirmed.
    pub async fn set_live(&self, entity_type: &EntityType) -> Result<()> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let sql = "UPDATE types SET state = 'live', import = NULL WHERE type = ?1 AND state = 'importing'";
            transaction.execute(sql, [entity_type.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Sets the state of a type that is known already.
    pub async fn set_type_state(&self, entity_type: &EntityType, state: TypeState) -> Result<()> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let sql = "UPDATE types SET state = ?2 WHERE type = ?1";
            transaction.execute(sql, [entity_type.as_str(), state.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Notes that no entity config names the type any more; the first moment
    /// stays.
    pub async fn set_untracked(&self, entity_type: &EntityType, now: SiteTime) -> Result<()> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let sql = "UPDATE types SET state = 'untracked', import = NULL,
                untracked_since = coalesce(untracked_since, ?2) WHERE type = ?1";
            transaction.execute(sql, params![entity_type.as_str(), now.0])?;
            transaction.execute("DELETE FROM marks WHERE type = ?1", [entity_type.as_str()])?;
            transaction.execute("DELETE FROM sweeps WHERE type = ?1", [entity_type.as_str()])?;
            transaction.execute("DELETE FROM suspected WHERE type = ?1", [entity_type.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Forgets everything about a type, rows included.
    pub async fn forget_type(&self, entity_type: &EntityType) -> Result<()> {
        self.forget(entity_type, &[ROW_TABLES, EVENT_TABLES].concat()).await
    }

    /// Forgets the rows of a type that the store has lost. What the event log announced of
    /// them stays: an import from a site whose rows are behind its log has to be read again.
    pub async fn forget_rows(&self, entity_type: &EntityType) -> Result<()> {
        self.forget(entity_type, ROW_TABLES).await
    }

    async fn forget(&self, entity_type: &EntityType, tables: &[&'static str]) -> Result<()> {
        let (entity_type, tables) = (entity_type.clone(), tables.to_vec());
        self.write(move |transaction| {
            for table in tables {
                transaction.execute(&format!("DELETE FROM {table} WHERE type = ?1"), [entity_type.as_str()])?;
            }
            Ok(())
        })
        .await
    }
}

/// Moves a segment of a running import on.
pub(super) fn step_import(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    step: SegmentStep,
    rows: u64,
) -> Result<Option<ImportState>> {
    let Some(mut import) = load(transaction, entity_type)?.and_then(|record| record.import) else {
        return Ok(None);
    };
    if let Some(segment) = import.segments.get_mut(step.index) {
        segment.last_id = segment.last_id.max(step.last_id);
        segment.done |= step.done;
    }
    import.rows += rows;
    let sql = "UPDATE types SET import = ?2 WHERE type = ?1";
    transaction.prepare_cached(sql)?.execute(params![entity_type.as_str(), render(&import)?])?;
    Ok(Some(import))
}

pub(super) fn load(connection: &Connection, entity_type: &EntityType) -> Result<Option<TypeRecord>> {
    let sql = "SELECT type, state, layout_hash, import, untracked_since, breaker_since FROM types WHERE type = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row([entity_type.as_str()], from_row).optional()?.map(parse_import))
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<(TypeRecord, Option<String>)> {
    let entity_type = EntityType::new(row.get::<_, String>(0)?);
    let record = TypeRecord {
        state: TypeState::parse(&entity_type, &row.get::<_, String>(1)?),
        entity_type,
        layout_hash: row.get(2)?,
        import: None,
        untracked_since: row.get::<_, Option<i64>>(4)?.map(SiteTime),
        breaker_since: row.get::<_, Option<i64>>(5)?.map(SiteTime),
    };
    Ok((record, row.get(3)?))
}

/// Adds the import. When it cannot be read, what is imported is not known, and the
/// import begins anew.
fn parse_import((mut record, import): (TypeRecord, Option<String>)) -> TypeRecord {
    match import.as_deref().map(serde_json::from_str).transpose() {
        Ok(import) => record.import = import,
        Err(error) => {
            Unreadable::Type.note(&record.entity_type, error);
            record.state = TypeState::Absent;
        }
    }
    record
}

fn render(import: &ImportState) -> Result<String> {
    serde_json::to_string(import).map_err(|error| StateError::malformed("import", error))
}
