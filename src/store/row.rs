//! Rows on their way into a store and out of it.
//!
//! A site sometimes leaves a requested key out of a row, for example after a
//! field was deleted or a right was taken away. Stored as null it would turn a
//! whole column empty, so a [`FetchedRow`] cannot be made of such a row.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::entity::{EntityRef, EntityType, EventId, FieldValue, RowHash, RowState, Timestamp};
use crate::entity_config::TypeLayout;
use crate::schema;

/// The place of a read in the order of all reads, taken before the request is
/// sent: the epoch of the leader, 40 bits of sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadVersion(pub i64);

impl ReadVersion {
    /// Makes a version of an epoch and a number within it.
    pub fn new(epoch: i64, sequence: i64) -> Self {
        Self(epoch << 40 | sequence)
    }

    /// Returns the epoch.
    pub fn epoch(self) -> i64 {
        self.0 >> 40
    }

    /// Returns the number within the epoch.
    pub fn sequence(self) -> i64 {
        self.0 & ((1 << 40) - 1)
    }
}

impl fmt::Display for ReadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch(), self.sequence())
    }
}

/// A row as one read of the site showed it: the only thing that a store takes.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedRow {
    key: EntityRef,
    rv: ReadVersion,
    state: RowState,
    /// Shared: a row is handed from sync to a store and to its writer.
    doc: Arc<Map<String, Value>>,
    hash: RowHash,
    fetched_at: Timestamp,
    last_event: Option<EventId>,
}

/// Why an answer of the site is not a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A field that was asked for is not in the row.
    #[error("the site left `{field}` out of {key}")]
    MissingField {
        /// The row.
        key: EntityRef,
        /// The field.
        field: String,
    },
    /// The row is that of another entity.
    #[error("the site answered {found} when asked for {key}")]
    OtherEntity {
        /// What was asked for.
        key: EntityRef,
        /// The type and id of the answer.
        found: String,
    },
}

impl FetchedRow {
    /// Makes a row of what the site answered.
    ///
    /// `state` tells from which list it came, active or retired; for the other
    /// states the row is ignored. Keys beyond the layout are dropped.
    ///
    /// # Errors
    ///
    /// [`RowError`] when the row is of another entity or lacks a field of the
    /// layout.
    pub fn from_site(
        layout: &TypeLayout,
        key: EntityRef,
        rv: ReadVersion,
        state: RowState,
        mut row: Map<String, Value>,
        fetched_at: Timestamp,
        last_event: Option<EventId>,
    ) -> Result<Self, RowError> {
        if !state.has_document() {
            return Ok(Self::without_document(key, rv, state, fetched_at, last_event));
        }
        check_key(&key, &row)?;
        if let Some(field) = layout.fields.iter().find(|field| !row.contains_key(&field.name)) {
            return Err(RowError::MissingField { key, field: field.name.clone() });
        }
        row.retain(|name, _| layout.field(name).is_some());
        let hash = layout.row_hash(&row);
        Ok(Self { key, rv, state, doc: Arc::new(row), hash, fetched_at, last_event })
    }

    /// Makes the row of an entity that the site has neither active nor retired.
    pub fn absent(key: EntityRef, rv: ReadVersion, fetched_at: Timestamp, last_event: Option<EventId>) -> Self {
        Self::without_document(key, rv, RowState::Absent, fetched_at, last_event)
    }

    /// Makes the row of an entity that the filter of its config leaves out.
    pub fn filtered(key: EntityRef, rv: ReadVersion, fetched_at: Timestamp, last_event: Option<EventId>) -> Self {
        Self::without_document(key, rv, RowState::Filtered, fetched_at, last_event)
    }

    fn without_document(
        key: EntityRef,
        rv: ReadVersion,
        state: RowState,
        fetched_at: Timestamp,
        last_event: Option<EventId>,
    ) -> Self {
        Self { key, rv, state, doc: Arc::default(), hash: RowHash(0), fetched_at, last_event }
    }

    /// Returns the type and the id.
    pub fn key(&self) -> &EntityRef {
        &self.key
    }

    /// Returns the version of the read.
    pub fn rv(&self) -> ReadVersion {
        self.rv
    }

    /// Returns the state.
    pub fn state(&self) -> RowState {
        self.state
    }

    /// Returns the fields of the layout as the site answered them, without `type`
    /// and `id`; empty unless the state has a document.
    pub fn doc(&self) -> &Map<String, Value> {
        &self.doc
    }

    /// Returns the hash over the fields; zero without a document.
    pub fn hash(&self) -> RowHash {
        self.hash
    }

    /// Returns the time of the site at the read.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// Returns the event that made somebody read the row, if one did.
    pub fn last_event(&self) -> Option<EventId> {
        self.last_event
    }

    /// Returns the field `updated_at`, where the row has it.
    pub fn updated_at(&self) -> Option<Timestamp> {
        self.doc.get("updated_at").and_then(Value::as_str).and_then(Timestamp::parse)
    }

    /// Returns the name that links to this entity show, where the row tells it.
    pub fn display_name(&self) -> Option<&str> {
        display_name(&self.key.entity_type, &self.doc)
    }
}

fn check_key(key: &EntityRef, row: &Map<String, Value>) -> Result<(), RowError> {
    let other = |found: &Value| RowError::OtherEntity { key: key.clone(), found: found.to_string() };
    match row.get("id") {
        Some(id) if id.as_i64() != Some(key.id) => return Err(other(id)),
        _ => {}
    }
    match row.get("type") {
        Some(name) if name.as_str() != Some(key.entity_type.as_str()) => Err(other(name)),
        _ => Ok(()),
    }
}

/// Returns the name that links to an entity show, where its row tells it.
///
/// The site makes it of the field that `schema::display_name_field` names, and
/// keeps the same text in `cached_display_name`. For some types it adds to the
/// field (`bot 1.0`, `#12: title`): there the second is taken first.
pub fn display_name<'a>(entity_type: &EntityType, doc: &'a Map<String, Value>) -> Option<&'a str> {
    let text = |field: &str| doc.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (own, cached) = (schema::display_name_field(entity_type), "cached_display_name");
    match entity_type.as_str() {
        "ApiUser" | "Delivery" => text(cached).or_else(|| text(own)),
        _ => text(own).or_else(|| text(cached)),
    }
}

/// A row as a store answers it: one JSON object as `read` would return it, links
/// named, `type` and `id` included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The type and the id.
    pub key: EntityRef,
    json: String,
}

impl Row {
    /// Makes a row of its fields; `type` and `id` are added.
    pub fn new(key: EntityRef, mut fields: Map<String, Value>) -> Self {
        fields.insert("id".into(), key.id.into());
        fields.insert("type".into(), key.entity_type.as_str().into());
        Self { json: Value::Object(fields).to_string(), key }
    }

    /// Makes a row of the text of a JSON object that has `type` and `id` in it;
    /// not checked.
    pub fn from_text(key: EntityRef, json: String) -> Self {
        Self { key, json }
    }

    /// Returns the whole object as JSON text, ready to be put into an answer.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns the fields, without `type` and `id`.
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields: Map<String, Value> = serde_json::from_str(&self.json).unwrap_or_default();
        fields.remove("type");
        fields.remove("id");
        fields
    }

    /// Returns a field by its path; `None` when it was not asked for.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.fields().remove(path)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.json).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl FetchedRow {
    /// Returns why the row cannot be filtered by the layout it is stored under:
    /// the first field that it lacks or whose value the data type does not allow.
    /// Stores refuse such a row.
    pub fn problem(&self, layout: &super::CachedType) -> Option<String> {
        if !self.state.has_document() {
            return None;
        }
        for (name, data_type) in &layout.fields {
            let Some(value) = self.doc.get(name) else {
                return Some(format!("{} was read before `{name}` was configured", self.key));
            };
            if let Err(error) = FieldValue::from_json(*data_type, value) {
                return Some(format!("{}.{name}: {error}", self.key));
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
