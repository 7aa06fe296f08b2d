//! Two rows of one entity, compared field by field.
//!
//! Pure. Values are equal when their canonical forms are
//! ([`crate::entity::canonical_json`]); link names are no part of a row.

use serde_json::{Map, Value};

use crate::entity::{canonical_json, signed_url};
use crate::entity_config::{LayoutField, TypeLayout};

/// A field whose value differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDiff {
    /// The name of the field.
    pub field: String,
    /// The value in the cache, as it is stored.
    pub cached: Value,
    /// The value on the site, as it was read.
    pub shotgun: Value,
}

/// Compares the fields of a layout, all of them or the named ones, and returns
/// those that differ.
pub fn differences(
    layout: &TypeLayout,
    only: Option<&[String]>,
    cached: &Map<String, Value>,
    shotgun: &Map<String, Value>,
) -> Vec<FieldDiff> {
    let wanted = |field: &&LayoutField| only.is_none_or(|names| names.contains(&field.name));
    layout.fields.iter().filter(wanted).filter_map(|field| difference(field, cached, shotgun)).collect()
}

fn difference(field: &LayoutField, cached: &Map<String, Value>, shotgun: &Map<String, Value>) -> Option<FieldDiff> {
    if field.data_type.is_volatile() {
        return None;
    }
    let cached = cached.get(&field.name).unwrap_or(&Value::Null);
    let shotgun = shotgun.get(&field.name).unwrap_or(&Value::Null);
    let same = canonical_json(field.data_type, cached) == canonical_json(field.data_type, shotgun);
    (!same).then(|| FieldDiff { field: field.name.clone(), cached: shown(cached), shotgun: shown(shotgun) })
}

/// Returns a value as reports show it: a signed address opens a file.
fn shown(value: &Value) -> Value {
    signed_url::redact_value(value.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::entity::DataType;

    #[test]
    fn a_difference_shows_no_signature_of_an_address() {
        let field = LayoutField {
            name: "description".into(),
            data_type: DataType::Text,
            valid_types: Vec::new(),
            mapping: None,
        };
        let row = |text: &str| Map::from_iter([("description".to_owned(), json!(text))]);
        let (cached, site) = (row("https://files/a?X-Amz-Signature=5ecret"), row("https://files/b?token=5ecret"));
        let found = difference(&field, &cached, &site).expect("a difference");
        assert_eq!(
            (&found.cached, &found.shotgun),
            (&json!("https://files/a?X-Amz-Signature=***"), &json!("https://files/b?token=***"))
        );
        let other = row("https://files/a?X-Amz-Signature=another");
        assert!(difference(&field, &cached, &other).is_some(), "what is shown alike may differ");
    }
}
