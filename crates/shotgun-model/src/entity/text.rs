//! Field values straight from JSON text.
//!
//! The same values as [`FieldValue::from_json`] makes, without a tree of maps in
//! between for what fills rows: texts and links.

use serde::Deserialize;
use serde_json::Value;

use super::value::{ValueError, mismatch};
use super::{DataType, EntityRef, EntityType, FieldValue, Link, Shape};

/// A link without anything beside these, which would go unread.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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
            None => match read_json(text) {
                Ok(value) => Self::from_json(data_type, &value),
                Err(_) => Err(mismatch(data_type, &Value::from(text))),
            },
        }
    }
}

/// How deep the value of a field may be nested: every reader of whole rows and
/// answers gets through it, whatever stands around it.
const MAX_DEPTH: usize = 64;

/// Reads a JSON text that was cut out of a row, or says why it would not be the same
/// value to every reader.
///
/// Cutting checks no more than brackets and quotes. Refused here are half surrogate
/// pairs, which no UTF-8 text can hold, numbers that are not finite, whole numbers
/// beyond 64 bits, which some readers would round, and values nested too deep.
pub fn read_json(text: &str) -> Result<Value, String> {
    let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let depth = depth_of(text)?;
    if depth > MAX_DEPTH {
        return Err(format!("it is nested {depth} levels deep, up to {MAX_DEPTH} are kept"));
    }
    Ok(value)
}

/// Returns how deep a valid JSON text is nested.
fn depth_of(text: &str) -> Result<usize, String> {
    let (mut depth, mut deepest, mut quoted) = (0_usize, 0, false);
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth -= 1,
            b'-' | b'0'..=b'9' if !quoted => {
                let rest = &text[at..];
                let number = &rest[..rest.find(|c: char| !"+-.eE0123456789".contains(c)).unwrap_or(rest.len())];
                let whole = !number.contains(['.', 'e', 'E']);
                if whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Err(format!("the number {number} is beyond 64 bits"));
                }
                at += number.len() - 1;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(deepest)
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
