//! Field values straight from JSON text.
//!
//! The same values as [`FieldValue::from_json`] makes, without a tree of maps in
//! between for what fills rows: texts and links.

use serde::Deserialize;
use serde_json::Value;

use super::value::ValueError;
use super::{DataType, EntityRef, EntityType, FieldValue, Link, Shape};

#[derive(Deserialize)]
struct LinkText {
    #[serde(rename = "type")]
    entity_type: EntityType,
    id: i64,
    #[serde(default)]
    name: Option<String>,
}

impl From<LinkText> for Link {
    fn from(link: LinkText) -> Self {
        Self { target: EntityRef { entity_type: link.entity_type, id: link.id }, name: link.name }
    }
}

impl FieldValue {
    /// Reads the JSON text of a value that `read` answers.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when the text cannot be a value of `data_type`.
    pub fn from_text(data_type: DataType, text: &str) -> Result<Self, ValueError> {
        match quickly(data_type.shape(), text) {
            Some(value) => Ok(value),
            None => Self::from_json(data_type, &value(text)),
        }
    }
}

/// Returns the JSON value of a text; what is no JSON is the text itself.
pub(crate) fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// Reads the usual form of a value; `None` leaves the others to the long way.
fn quickly(shape: Shape, text: &str) -> Option<FieldValue> {
    match (shape, text.as_bytes().first()?) {
        (Shape::Text | Shape::ExactText, b'"') => serde_json::from_str::<String>(text).ok().map(FieldValue::text),
        (Shape::Link, b'{') => serde_json::from_str::<LinkText>(text).ok().map(|link| FieldValue::Link(link.into())),
        (Shape::Links, b'[') => {
            let links: Vec<LinkText> = serde_json::from_str(text).ok()?;
            Some(FieldValue::Links(links.into_iter().map(Link::from).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_and_tree_give_the_same_value_for_every_data_type() {
        let values = [
            json!(null),
            json!(""),
            json!("12"),
            json!("a \"quoted\" \u{e9}"),
            json!("2024-02-29"),
            json!("2024-02-29T10:00:00Z"),
            json!(true),
            json!(12),
            json!(1.5),
            json!({"type": "Shot", "id": 4}),
            json!({"type": "Shot", "id": 4, "name": null, "valid": "valid"}),
            json!({"id": 4}),
            json!([]),
            json!([{"type": "Shot", "id": 4, "name": "x"}, {"type": "Asset", "id": 1, "name": "y"}]),
            json!([{"type": "Shot"}]),
            json!({"url": "https://a/b?c", "name": "b", "link_type": "web"}),
        ];
        for data_type in DataType::names().filter_map(|name| name.parse::<DataType>().ok()) {
            for value in &values {
                let tree = FieldValue::from_json(data_type, value);
                assert_eq!(FieldValue::from_text(data_type, &value.to_string()), tree, "{data_type} {value}");
            }
        }
    }
}
