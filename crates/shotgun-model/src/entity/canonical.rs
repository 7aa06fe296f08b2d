//! The canonical form of a row: when two reads of an entity are the same.
//!
//! The site may answer one unchanged row in several ways: keys in another order,
//! links in another order, a link with `valid` or without, floats as strings,
//! image URLs signed anew at every read. The canonical form removes these and
//! nothing else. Link names are not part of it: a name belongs to the target and
//! changes without a change of the row.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{DataType, EntityRef, FieldValue, Link};

/// 128 bits over the canonical form of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowHash(pub u128);

impl RowHash {
    /// Returns the upper 32 bits, which digests sum up per bucket of ids.
    pub fn short(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// Reads the 32 hexadecimal digits that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for RowHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a row hash"))
    }
}

/// Returns the canonical form of one field value.
///
/// A value that its data type does not allow is kept as it is: the comparison
/// then shows it.
pub fn canonical_json(data_type: DataType, value: &Value) -> Value {
    match data_type {
        DataType::Image => canonical_image(value),
        DataType::Url => canonical_url(value),
        _ => match FieldValue::from_json(data_type, value) {
            Ok(FieldValue::Link(link)) => bare(&link),
            Ok(FieldValue::Links(mut links)) => {
                links.sort_by(|a, b| a.target.cmp(&b.target));
                links.dedup_by(|a, b| a.target == b.target);
                links.iter().map(bare).collect()
            }
            Ok(FieldValue::Float(number)) => FieldValue::Float(rounded(number)).to_json(),
            Ok(parsed) => parsed.to_json(),
            Err(_) => value.clone(),
        },
    }
}

/// Returns the hash of a row over the given fields.
///
/// `fields` are names with data types, sorted by name by the caller, so that the
/// same layout always gives the same bytes. A field that the row lacks counts as
/// null; the module that fetched the row has checked that none is missing.
pub fn row_hash<'a>(fields: impl Iterator<Item = (&'a str, DataType)>, row: &Map<String, Value>) -> RowHash {
    let mut hasher = RowHasher::default();
    for (name, data_type) in fields {
        let value = row.get(name).unwrap_or(&Value::Null);
        match FieldValue::from_json(data_type, value) {
            Ok(parsed) => hasher.field(name, data_type, &parsed),
            Err(_) => hasher.odd(name, data_type, value),
        }
    }
    hasher.finish()
}

/// Makes the hash of a row, field by field in the order of their names.
#[derive(Default)]
pub struct RowHasher {
    /// The canonical form: names, and values behind a byte that tells their kind.
    bytes: Vec<u8>,
}

impl RowHasher {
    /// Takes in a value.
    pub fn field(&mut self, name: &str, data_type: DataType, value: &FieldValue) {
        if data_type.is_volatile() {
            return;
        }
        self.text(name);
        match value {
            FieldValue::Null => self.bytes.push(0),
            FieldValue::Bool(value) => self.bytes.extend([1, u8::from(*value)]),
            FieldValue::Int(number) => self.tagged(2, &number.to_le_bytes()),
            FieldValue::Float(number) => self.tagged(3, &rounded(*number).to_le_bytes()),
            FieldValue::Text(text) => {
                self.bytes.push(4);
                self.text(text);
            }
            FieldValue::Date(day) => self.tagged(5, day.to_string().as_bytes()),
            FieldValue::DateTime(moment) => self.tagged(6, &moment.0.to_le_bytes()),
            FieldValue::Link(link) => {
                self.bytes.push(7);
                self.target(&link.target);
            }
            FieldValue::Links(links) => {
                let mut targets: Vec<_> = links.iter().map(|link| &link.target).collect();
                targets.sort();
                targets.dedup();
                self.tagged(8, &targets.len().to_le_bytes());
                targets.into_iter().for_each(|target| self.target(target));
            }
            FieldValue::Json(value) => self.json(data_type, value),
        }
    }

    /// Takes in a value that its data type does not allow.
    pub fn odd(&mut self, name: &str, data_type: DataType, value: &Value) {
        if !data_type.is_volatile() {
            self.text(name);
            self.json(data_type, value);
        }
    }

    /// Returns the hash of everything taken in.
    pub fn finish(self) -> RowHash {
        RowHash(xxhash_rust::xxh3::xxh3_128(&self.bytes))
    }

    fn json(&mut self, data_type: DataType, value: &Value) {
        self.bytes.push(9);
        self.text(&canonical_json(data_type, value).to_string());
    }

    fn target(&mut self, target: &EntityRef) {
        self.text(target.entity_type.as_str());
        self.bytes.extend(target.id.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend(text.len().to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend(bytes);
    }
}

/// Removes what a float loses on its way through a text.
fn rounded(number: f64) -> f64 {
    let rounded = (number * 1e6).round() / 1e6;
    if rounded == 0.0 { 0.0 } else { rounded }
}

fn bare(link: &Link) -> Value {
    let mut object = Map::new();
    object.insert("id".into(), link.target.id.into());
    object.insert("type".into(), link.target.entity_type.as_str().into());
    Value::Object(object)
}

/// Signed URLs differ at every read: only the path says which picture it is.
fn canonical_image(value: &Value) -> Value {
    match value.as_str() {
        None => Value::Null,
        Some(url) if url.contains("/images/status/transient/") => "pending".into(),
        Some(url) => url_path(url).into(),
    }
}

fn canonical_url(value: &Value) -> Value {
    let Value::Object(object) = value else {
        return value.clone();
    };
    let mut kept = object.clone();
    if let Some(Value::String(url)) = object.get("url") {
        kept.insert("url".into(), url_path(url).into());
    }
    Value::Object(kept)
}

fn url_path(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hash(row: Value) -> RowHash {
        let fields = [
            ("assets", DataType::MultiEntity),
            ("code", DataType::Text),
            ("fps", DataType::Float),
            ("image", DataType::Image),
            ("sg_sequence", DataType::Entity),
        ];
        row_hash(fields.into_iter(), row.as_object().expect("an object"))
    }

    #[test]
    fn what_the_site_says_in_two_ways_hashes_the_same() {
        let one = hash(json!({"code": "a", "fps": 24.0, "image": "https://m/1.png?X-Amz-Signature=1",
            "assets": [{"type": "Asset", "id": 2, "name": "x"}, {"type": "Asset", "id": 1, "name": "y"}],
            "sg_sequence": {"type": "Sequence", "id": 7, "name": "old"}}));
        let two = hash(json!({"sg_sequence": {"name": "new", "id": 7, "type": "Sequence", "valid": "valid"},
            "assets": [{"type": "Asset", "id": 1}, {"type": "Asset", "id": 2}],
            "image": "https://m/1.png?X-Amz-Signature=2", "fps": "24.0000001", "code": "a"}));
        assert_eq!(one, two);
    }

    #[test]
    fn every_kind_of_change_changes_the_hash() {
        let base = json!({"code": "a", "fps": 24.0, "image": null, "assets": [], "sg_sequence": null});
        let changes = [
            json!({"code": "A"}),
            json!({"fps": 24.00001}),
            json!({"image": "https://m/2.png"}),
            json!({"assets": [{"type": "Asset", "id": 1}]}),
            json!({"sg_sequence": {"type": "Sequence", "id": 7}}),
        ];
        for change in changes {
            let mut row = base.clone();
            for (key, value) in change.as_object().expect("an object") {
                row[key] = value.clone();
            }
            assert_ne!(hash(base.clone()), hash(row), "{change}");
        }
    }

    #[test]
    fn a_hash_survives_its_text_form() {
        let value = hash(json!({}));
        assert_eq!(RowHash::parse(&value.to_string()), Some(value));
    }
}
