//! Rows on their way into a store and out of it.
//!
//! A site sometimes leaves a requested key out of a row, for example after a
//! field was deleted or a right was taken away. Stored as null it would turn a
//! whole column empty, so a [`FetchedRow`] cannot be made of such a row.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::entity::{
    DataType, EntityRef, EntityType, EventId, FieldValue, RowHash, RowHasher, RowState, Timestamp, ValueError, pick,
    read_json, signed_url,
};
use crate::entity_config::{LayoutField, TypeLayout};
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
    body: Arc<Body>,
    hash: RowHash,
    fetched_at: Timestamp,
    last_event: Option<EventId>,
}

/// The fields of a row: their text as the site wrote it, and their values, read
/// once for everybody who needs them.
#[derive(Debug, Default)]
struct Body {
    text: String,
    fields: Arc<[LayoutField]>,
    values: Vec<Result<FieldValue, ValueError>>,
    doc: OnceLock<Map<String, Value>>,
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Body {
    fn value(&self, name: &str) -> Option<&FieldValue> {
        let index = self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok()?;
        self.values.get(index)?.as_ref().ok()
    }
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
    /// The row is no JSON object.
    #[error("the site answered no row for {key}: {reason}")]
    Unreadable {
        /// What was asked for.
        key: EntityRef,
        /// What is wrong with it.
        reason: String,
    },
}

impl FetchedRow {
    /// Makes a row of the JSON object that the site answered.
    ///
    /// `state` tells from which list it came, active or retired; for the other
    /// states the row is ignored. Keys beyond the layout are dropped.
    ///
    /// # Errors
    ///
    /// [`RowError`] when the row is of another entity or lacks a field of the
    /// layout.
    pub fn from_text(
        layout: &TypeLayout,
        key: EntityRef,
        rv: ReadVersion,
        state: RowState,
        row: &str,
        fetched_at: Timestamp,
        last_event: Option<EventId>,
    ) -> Result<Self, RowError> {
        if !state.has_document() {
            return Ok(Self::without_document(key, rv, state, fetched_at, last_event));
        }
        let (body, hash) = body(layout, &key, row)?;
        Ok(Self { key, rv, state, body: Arc::new(body), hash, fetched_at, last_event })
    }

    /// Makes a row of a parsed object; see [`FetchedRow::from_text`].
    ///
    /// # Errors
    ///
    /// See [`FetchedRow::from_text`].
    pub fn from_site(
        layout: &TypeLayout,
        key: EntityRef,
        rv: ReadVersion,
        state: RowState,
        row: Map<String, Value>,
        fetched_at: Timestamp,
        last_event: Option<EventId>,
    ) -> Result<Self, RowError> {
        Self::from_text(layout, key, rv, state, &Value::Object(row).to_string(), fetched_at, last_event)
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
        Self { key, rv, state, body: Arc::default(), hash: RowHash(0), fetched_at, last_event }
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
        self.body.doc.get_or_init(|| match self.body.text.as_str() {
            "" => Map::new(),
            text => serde_json::from_str(text).expect("every value was read when the row was made"),
        })
    }

    /// Returns the same as a JSON text, the fields in the order of their names;
    /// empty without a document.
    pub fn text(&self) -> &str {
        &self.body.text
    }

    /// Returns the values of the fields that a store has for the type, in the
    /// order of their names.
    ///
    /// # Errors
    ///
    /// Why the row cannot be filtered by that layout: the first field that it
    /// lacks or whose value the data type does not allow. Stores refuse such a row.
    pub fn values<'a>(&'a self, layout: &super::CachedType) -> Result<Vec<Cow<'a, FieldValue>>, String> {
        let mut own = self.body.fields.iter().zip(&self.body.values).peekable();
        let value = |(name, data_type): (&String, &DataType)| {
            while own.next_if(|(field, _)| field.name < *name).is_some() {}
            let Some((field, value)) = own.next_if(|(field, _)| field.name == *name) else {
                return Err(format!("{} was read before `{name}` was configured", self.key));
            };
            let typed = if field.data_type == *data_type {
                value.as_ref().map(Cow::Borrowed).map_err(ValueError::clone)
            } else {
                FieldValue::from_json(*data_type, self.doc().get(name).unwrap_or(&Value::Null)).map(Cow::Owned)
            };
            typed.map_err(|error| format!("{}.{name}: {error}", self.key))
        };
        layout.fields.iter().map(value).collect()
    }

    /// Returns the hash over the fields; zero without a document.
    pub fn hash(&self) -> RowHash {
        self.hash
    }

    /// Returns the time of the site at the read.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// Returns the event that caused the read of the row, if one did.
    pub fn last_event(&self) -> Option<EventId> {
        self.last_event
    }

    /// Returns the field `updated_at`, where the row has it.
    pub fn updated_at(&self) -> Option<Timestamp> {
        match self.body.value("updated_at")? {
            FieldValue::DateTime(moment) => Some(*moment),
            _ => None,
        }
    }

    /// Returns the name that links to this entity show, where the row tells it.
    pub fn display_name(&self) -> Option<&str> {
        let text = |field: &str| match self.body.value(field) {
            Some(FieldValue::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        name_among(&self.key.entity_type, text)
    }

    /// Returns why the row cannot be stored under a layout; see
    /// [`FetchedRow::values`].
    pub fn problem(&self, layout: &super::CachedType) -> Option<String> {
        if self.state.has_document() { self.values(layout).err() } else { None }
    }
}

/// Takes the fields of a layout out of a row and reads their values.
fn body(layout: &TypeLayout, key: &EntityRef, row: &str) -> Result<(Body, RowHash), RowError> {
    let fields = &layout.fields;
    let place = |name: &str| match name {
        "id" => Some(fields.len()),
        "type" => Some(fields.len() + 1),
        _ => fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok(),
    };
    let picked = pick(row.as_bytes(), fields.len() + 2, place)
        .map_err(|error| RowError::Unreadable { key: key.clone(), reason: error.to_string() })?;
    check_key(key, picked[fields.len()], picked[fields.len() + 1])?;
    let mut hasher = RowHasher::default();
    let mut values = Vec::with_capacity(fields.len());
    let mut text = String::with_capacity(row.len());
    text.push('{');
    for (field, raw) in fields.iter().zip(picked) {
        let Some(raw) = raw else {
            return Err(RowError::MissingField { key: key.clone(), field: field.name.clone() });
        };
        if text.len() > 1 {
            text.push(',');
        }
        let unsigned = signed_url::strip(field.data_type, raw);
        let raw = unsigned.as_deref().unwrap_or(raw);
        // Names of fields are words; the site has no others.
        text.extend(["\"", &field.name, "\":", raw]);
        let value = read_value(field, raw).map_err(|reason| RowError::Unreadable {
            key: key.clone(),
            reason: format!("`{}`: {reason}", field.name),
        })?;
        match &value {
            Ok(value) => hasher.field(&field.name, field.data_type, value),
            Err(odd) => hasher.odd(&field.name, field.data_type, &odd.json),
        }
        let value = value.map_err(|odd| odd.error);
        values.push(value);
    }
    text.push('}');
    Ok((Body { text, fields: fields.clone(), values, doc: OnceLock::new() }, hasher.finish()))
}

/// A value that its data type does not allow.
struct OddValue {
    json: Value,
    error: ValueError,
}

/// Reads a value that was cut out of a row; the error says why it would not be the
/// same to every reader.
fn read_value(field: &LayoutField, raw: &str) -> Result<Result<FieldValue, OddValue>, String> {
    match FieldValue::from_text(field.data_type, raw) {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(OddValue { json: read_json(raw)?, error })),
    }
}

fn check_key(key: &EntityRef, id: Option<&str>, name: Option<&str>) -> Result<(), RowError> {
    let other = |found: &str| Err(RowError::OtherEntity { key: key.clone(), found: found.to_owned() });
    let same_type =
        |text: &str| serde_json::from_str::<String>(text).is_ok_and(|name| name == key.entity_type.as_str());
    match (id, name) {
        (Some(id), _) if id.parse() != Ok(key.id) => other(id),
        (_, Some(name)) if !same_type(name) => other(name),
        _ => Ok(()),
    }
}

/// Returns the name that links to an entity show, where its row tells it.
///
/// The site makes it of the field that `schema::display_name_field` names, and
/// keeps the same text in `cached_display_name`. For some types it adds to the
/// field (`bot 1.0`, `#12: title`): there the second is taken first.
pub fn display_name<'a>(entity_type: &EntityType, doc: &'a Map<String, Value>) -> Option<&'a str> {
    name_among(entity_type, |field| doc.get(field).and_then(Value::as_str))
}

fn name_among<'a>(entity_type: &EntityType, text: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    let text = |field: &str| text(field).filter(|text| !text.is_empty());
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
    /// Shared: the same row is given to many callers.
    json: Arc<str>,
}

impl Row {
    /// Makes a row of its fields; `type` and `id` are added.
    pub fn new(key: EntityRef, mut fields: Map<String, Value>) -> Self {
        fields.insert("id".into(), key.id.into());
        fields.insert("type".into(), key.entity_type.as_str().into());
        Self { json: Value::Object(fields).to_string().into(), key }
    }

    /// Makes a row of the text of a JSON object that has `type` and `id` in it;
    /// not checked.
    pub fn from_text(key: EntityRef, json: impl Into<Arc<str>>) -> Self {
        Self { key, json: json.into() }
    }

    /// Returns the whole object as JSON text, ready to be put into an answer.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns the fields, without `type` and `id`.
    ///
    /// # Panics
    ///
    /// When a store made the row of a text that is not an object: it checks what it
    /// reads.
    pub fn fields(&self) -> Map<String, Value> {
        let mut fields: Map<String, Value> = serde_json::from_str(&self.json).expect("a row of a store is an object");
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

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
