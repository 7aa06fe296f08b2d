//! The value of one field, and its JSON form both ways.

use std::fmt;

use serde_json::{Map, Value};

use super::{DataType, Day, EntityRef, Shape, Timestamp};

/// A link to an entity, with the display name that came along.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// What the link points to.
    pub target: EntityRef,
    /// The display name of the target at the time of the read.
    pub name: Option<String>,
}

impl Link {
    /// Reads `{type, id, name}`; a link without a type or an id is `None`.
    pub fn from_json(value: &Value) -> Option<Self> {
        let target = EntityRef::from_json(value)?;
        Some(Self { target, name: value.get("name").and_then(Value::as_str).map(str::to_owned) })
    }

    /// Returns the form of `read`: `{"id", "name", "type"}`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("id".into(), self.target.id.into());
        object.insert("name".into(), self.name.clone().map_or(Value::Null, Value::String));
        object.insert("type".into(), self.target.entity_type.as_str().into());
        Value::Object(object)
    }
}

/// The value of a field, as its data type allows.
///
/// Dates and moments are parsed, so that two spellings of one moment are equal;
/// statuses, list values and colours are texts.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum FieldValue {
    /// No value.
    #[default]
    Null,
    /// A checkbox.
    Bool(bool),
    /// Number, duration, percent, timecode.
    Int(i64),
    /// Float, currency.
    Float(f64),
    /// Any text; never empty, since the site stores an empty text as null.
    Text(String),
    /// A day.
    Date(Day),
    /// A moment.
    DateTime(Timestamp),
    /// One link.
    Link(Link),
    /// A list of links, in the order of the site.
    Links(Vec<Link>),
    /// What the data type does not let us look into: url, image, serializable.
    Json(Value),
}

/// Why a JSON value cannot be the value of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a value of data type `{data_type}`, found {found}")]
pub struct ValueError {
    /// The data type of the field.
    pub data_type: DataType,
    /// The value that was there, shortened.
    pub found: String,
}

impl FieldValue {
    /// Reads the JSON form that `read` answers and `create` accepts.
    ///
    /// Empty texts become null, a null checkbox becomes false, a null list of
    /// links becomes empty, numeric strings become numbers: as on the site.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when the JSON cannot be a value of `data_type`.
    pub fn from_json(data_type: DataType, value: &Value) -> Result<Self, ValueError> {
        let parsed = match data_type.shape() {
            Shape::Links => return links(value).ok_or_else(|| mismatch(data_type, value)),
            Shape::Bool => checkbox(value),
            _ if value.is_null() => Some(Self::Null),
            Shape::Text | Shape::ExactText => value.as_str().map(Self::text),
            Shape::Int => integer(value).map(Self::Int),
            Shape::Float => float(value).map(Self::Float),
            Shape::Date => value.as_str().and_then(Day::parse).map(Self::Date),
            Shape::DateTime => value.as_str().and_then(Timestamp::parse).map(Self::DateTime),
            Shape::Link => Link::from_json(value).map(Self::Link),
            Shape::Presence | Shape::Opaque => Some(Self::Json(value.clone())),
        };
        parsed.ok_or_else(|| mismatch(data_type, value))
    }

    /// Makes a text value; an empty text is null.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Null } else { Self::Text(text) }
    }

    /// Returns the JSON form that `read` answers.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Self::Text(text) => text.as_str().into(),
            Self::Date(day) => day.to_string().into(),
            Self::DateTime(moment) => moment.to_string().into(),
            Self::Link(link) => link.to_json(),
            Self::Links(links) => links.iter().map(Link::to_json).collect(),
            Self::Json(value) => value.clone(),
        }
    }

    /// Tells whether there is no value: null, or an empty list of links.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Links(links) => links.is_empty(),
            _ => false,
        }
    }

    /// Returns the links that the value holds: none, one or many.
    pub fn links(&self) -> &[Link] {
        match self {
            Self::Link(link) => std::slice::from_ref(link),
            Self::Links(links) => links,
            _ => &[],
        }
    }
}

fn links(value: &Value) -> Option<FieldValue> {
    if value.is_null() {
        return Some(FieldValue::Links(Vec::new()));
    }
    let items = value.as_array()?;
    items.iter().map(Link::from_json).collect::<Option<Vec<_>>>().map(FieldValue::Links)
}

fn checkbox(value: &Value) -> Option<FieldValue> {
    match value {
        Value::Null => Some(FieldValue::Bool(false)),
        Value::Bool(value) => Some(FieldValue::Bool(*value)),
        Value::String(text) if text == "true" => Some(FieldValue::Bool(true)),
        Value::String(text) if text == "false" => Some(FieldValue::Bool(false)),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn whole(number: f64) -> Option<i64> {
    // Inside ±2^53 the conversion is exact.
    let exact = number.fract() == 0.0 && number.abs() < 9.0e15;
    exact.then_some(number as i64)
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

pub(super) fn mismatch(data_type: DataType, value: &Value) -> ValueError {
    let mut found = value.to_string();
    if found.chars().count() > 80 {
        found = found.chars().take(79).chain(['…']).collect();
    }
    ValueError { data_type, found }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            other => other.to_json().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(data_type: DataType, value: Value) -> Result<Value, ValueError> {
        FieldValue::from_json(data_type, &value).map(|value| value.to_json())
    }

    #[test]
    fn empty_values_are_those_of_the_site() {
        assert_eq!(read(DataType::Text, json!("")), Ok(Value::Null));
        assert_eq!(read(DataType::Checkbox, Value::Null), Ok(json!(false)));
        assert_eq!(read(DataType::MultiEntity, Value::Null), Ok(json!([])));
        assert_eq!(read(DataType::Entity, Value::Null), Ok(Value::Null));
    }

    #[test]
    fn numbers_are_coerced_as_the_site_does() {
        assert_eq!(read(DataType::Number, json!("12")), Ok(json!(12)));
        assert_eq!(read(DataType::Float, json!("25.0")), Ok(json!(25.0)));
        assert!(read(DataType::Number, json!(1.5)).is_err());
    }

    #[test]
    fn a_link_without_a_type_is_refused_with_its_text() {
        let error = read(DataType::Entity, json!({"id": 4})).map_err(|error| error.to_string());
        assert_eq!(error, Err(r#"expected a value of data type `entity`, found {"id":4}"#.into()));
    }
}
