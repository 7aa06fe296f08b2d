//! Names and values of Shotgun data: entity types, references, field values.
//!
//! This is the vocabulary that every other module speaks. It knows no files, no
//! network and no clock; what a field of a given [`DataType`] may hold, how it
//! looks in JSON and when two values are the same is decided here and nowhere
//! else.

mod canonical;
mod data_type;
mod pick;
mod row_state;
pub mod signed_url;
mod text;
mod time;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use canonical::{RowHash, RowHasher, canonical_json, row_hash};
pub use data_type::{DataType, Shape};
pub use pick::pick;
pub use row_state::RowState;
pub use text::read_json;
pub use time::{Day, Timestamp};
pub use value::{FieldValue, Link, ValueError};

/// The name of an entity type, such as `Shot`. Case matters, as on the site.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntityType(Arc<str>);

impl EntityType {
    /// Names an entity type. Whether the site has it is not checked.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Arc::from(name.as_ref()))
    }

    /// Returns the name as Shotgun spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the type is a connection entity, such as
    /// `AssetShotConnection`: rows that hold one link of a many-to-many pair.
    pub fn is_connection(&self) -> bool {
        self.0.ends_with("Connection") || self.0.ends_with("Dependency")
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for EntityType {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl PartialEq<str> for EntityType {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for EntityType {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl std::borrow::Borrow<str> for EntityType {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Points to one entity: its type and its id, `Shot:1286`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityRef {
    /// The type of the entity.
    #[serde(rename = "type")]
    pub entity_type: EntityType,
    /// Its id, unique within the type; the site counts from 1.
    pub id: i64,
}

impl EntityRef {
    /// Makes a reference from a type and an id.
    pub fn new(entity_type: impl Into<EntityType>, id: i64) -> Self {
        Self { entity_type: entity_type.into(), id }
    }

    /// Reads a JSON object with `type` and `id`; other keys are ignored, as the
    /// site ignores them. Anything else is `None`.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        let object = value.as_object()?;
        let name = object.get("type")?.as_str()?;
        Some(Self::new(name, object.get("id")?.as_i64()?))
    }
}

impl fmt::Display for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.entity_type, self.id)
    }
}

impl fmt::Debug for EntityRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the ids of each type among the keys.
pub fn ids_by_type(keys: impl IntoIterator<Item = EntityRef>) -> BTreeMap<EntityType, BTreeSet<i64>> {
    let mut by_type: BTreeMap<EntityType, BTreeSet<i64>> = BTreeMap::new();
    for key in keys {
        by_type.entry(key.entity_type).or_default().insert(key.id);
    }
    by_type
}

/// The id of an `EventLogEntry`. Ids grow, but not in the order of commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub i64);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Folds the case of a text the way every filter, sort and index of ours does.
///
/// All text relations of the site ignore case. The folding is one code point to
/// one code point, as Lucene's lowercase filter does it, so that local
/// evaluation, SQLite and Elasticsearch agree on every string.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(fold_char).collect()
}

fn fold_char(c: char) -> char {
    // The only code point whose full lower case is longer than one: Lucene maps
    // it to a plain i.
    if c == '\u{130}' {
        return 'i';
    }
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_maps_one_character_to_one() {
        assert_eq!(fold("ÉLAN İstanbul ΣΑΣ ẞ"), "élan istanbul σασ ß");
    }

    #[test]
    fn a_reference_ignores_the_other_keys_of_a_link() {
        let link = serde_json::json!({"type": "Shot", "id": 3, "name": "x", "valid": "valid"});
        assert_eq!(EntityRef::from_json(&link), Some(EntityRef::new("Shot", 3)));
        assert_eq!(EntityRef::from_json(&serde_json::json!({"id": 3})), None);
    }
}
