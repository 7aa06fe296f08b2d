//! One stored value, small: a row is a short list of these.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::{FieldId, TypeId};
use shotgun_model::entity::{DataType, Day, FieldValue, Timestamp};

/// Points to a row of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(TypeId, u32)", into = "(TypeId, u32)")]
pub struct Key {
    /// The type of the row.
    pub ty: TypeId,
    /// Its id.
    pub id: u32,
}

impl From<(TypeId, u32)> for Key {
    fn from((ty, id): (TypeId, u32)) -> Self {
        Self { ty, id }
    }
}

impl From<Key> for (TypeId, u32) {
    fn from(key: Key) -> Self {
        (key.ty, key.id)
    }
}

/// A stored value. Links are keys; their names belong to their targets.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub enum Cell {
    /// No value.
    #[default]
    #[serde(rename = "n")]
    Null,
    /// A checkbox.
    #[serde(rename = "b")]
    Bool(bool),
    /// A whole number; of an image, the id of its attachment.
    #[serde(rename = "i")]
    Int(i64),
    /// A number with a fraction.
    #[serde(rename = "f")]
    Float(f64),
    /// A text, never empty.
    #[serde(rename = "t")]
    Text(Box<str>),
    /// A day.
    #[serde(rename = "d")]
    Date(Day),
    /// A moment.
    #[serde(rename = "m")]
    Moment(Timestamp),
    /// One link.
    #[serde(rename = "l")]
    Link(Key),
    /// A list of links, never empty.
    #[serde(rename = "k")]
    Links(Box<[Key]>),
    /// Anything else, as JSON text.
    #[serde(rename = "j")]
    Json(Box<str>),
}

/// A value in its place within a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// The field.
    pub field: FieldId,
    /// Its value, never null.
    pub cell: Cell,
}

static NULL: Cell = Cell::Null;

impl Cell {
    /// Returns the null that missing slots stand for.
    pub fn null() -> &'static Self {
        &NULL
    }

    /// Makes a text; an empty one is null.
    pub fn text(text: &str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text.into()) }
    }

    /// Makes a list of links; an empty one is null.
    pub fn links(keys: Vec<Key>) -> Self {
        if keys.is_empty() { Self::Null } else { Self::Links(keys.into()) }
    }

    /// Returns the keys that the cell points to.
    pub fn keys(&self) -> &[Key] {
        match self {
            Self::Link(key) => std::slice::from_ref(key),
            Self::Links(keys) => keys,
            _ => &[],
        }
    }

    /// Returns the text of a text cell.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value of a cell that holds no link.
    pub fn to_value(&self, data_type: DataType) -> FieldValue {
        match self {
            Self::Null if data_type == DataType::Checkbox => FieldValue::Bool(false),
            Self::Null | Self::Link(_) | Self::Links(_) => FieldValue::Null,
            Self::Bool(value) => FieldValue::Bool(*value),
            // An image is present or not; its address is made when it is read.
            Self::Int(value) if data_type == DataType::Image => FieldValue::Json((*value).into()),
            Self::Int(value) => FieldValue::Int(*value),
            Self::Float(value) => FieldValue::Float(*value),
            Self::Text(text) => FieldValue::Text(text.to_string()),
            Self::Date(day) => FieldValue::Date(*day),
            Self::Moment(moment) => FieldValue::DateTime(*moment),
            Self::Json(text) => FieldValue::Json(serde_json::from_str(text).unwrap_or_default()),
        }
    }

    /// Makes a cell of a value that holds no link.
    pub fn from_value(value: FieldValue) -> Self {
        match value {
            FieldValue::Null | FieldValue::Link(_) | FieldValue::Links(_) | FieldValue::Json(Value::Null) => Self::Null,
            // A checkbox is never null: unset and false are one thing.
            FieldValue::Bool(false) => Self::Null,
            FieldValue::Bool(true) => Self::Bool(true),
            FieldValue::Int(value) => Self::Int(value),
            FieldValue::Float(value) => Self::Float(value),
            FieldValue::Text(text) => Self::text(&text),
            FieldValue::Date(day) => Self::Date(day),
            FieldValue::DateTime(moment) => Self::Moment(moment),
            FieldValue::Json(value) => Self::Json(value.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_small() {
        assert!(size_of::<Slot>() <= 32, "{} bytes", size_of::<Slot>());
    }
}
