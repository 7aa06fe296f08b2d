//! What is left of a layout when the site no longer has everything in it.
//!
//! Pure: the schema is handed in. A field that is gone, hidden or computed from
//! now on is left out; one of another data type takes it; a filter that cannot be
//! evaluated any more leaves nothing to follow.

use std::collections::BTreeMap;

use super::layout::layout_hash;
use super::{LayoutField, TypeLayout};
use crate::schema::Schema;

/// A layout as far as the site allows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// What can be cached.
    pub layout: TypeLayout,
    /// The configured fields that cannot, each with the reason.
    pub lacking: BTreeMap<String, String>,
}

impl TypeLayout {
    /// Fits the layout to the schema. `is_hidden` tells of fields that the schema has
    /// and answers have not.
    ///
    /// # Errors
    ///
    /// Why the type cannot be followed at all: it is gone, or its filter needs
    /// something that is gone.
    pub fn fit(&self, schema: &Schema, is_hidden: impl Fn(&str) -> bool) -> Result<Fitted, String> {
        let entity_type = &self.entity_type;
        if schema.entity(entity_type).is_none() {
            return Err(format!("the site has no entity type `{entity_type}` any more"));
        }
        let filter = schema
            .filter(entity_type, &self.raw_filter)
            .map_err(|fault| format!("its filter cannot be evaluated any more: {}", fault.message))?;
        let (mut fields, mut lacking) = (Vec::new(), BTreeMap::new());
        for field in self.fields.iter() {
            let reason = match schema.field(entity_type, &field.name) {
                None => "the site does not have it any more",
                Some(found) if found.data_type.is_volatile() => "the site computes it at every read now",
                Some(_) if is_hidden(&field.name) => "the site leaves it out of its answers",
                Some(found) => {
                    let (data_type, valid_types) = (found.data_type, found.valid_types.clone());
                    fields.push(LayoutField { data_type, valid_types, ..field.clone() });
                    continue;
                }
            };
            lacking.insert(field.name.clone(), reason.to_owned());
        }
        let hash = layout_hash(&fields, &self.raw_filter);
        let layout = Self { fields: fields.into(), filter, hash, ..self.clone() };
        Ok(Fitted { layout, lacking })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::entity::{DataType, EntityType};
    use crate::entity_config::EntityConfigFile;
    use crate::schema::{EntitySchema, FieldSchema};

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        let entity_type = EntityType::new("Shot");
        let fields = fields.iter().map(|(name, ty)| ((*name).to_owned(), FieldSchema::new(*ty, *name))).collect();
        let entity =
            EntitySchema { entity_type: entity_type.clone(), display_name: "Shot".into(), visible: true, fields };
        Schema { types: [(entity_type, entity)].into() }
    }

    /// Fits `code` and `cut`, both text, with a filter over `code`.
    fn check(now: &[(&str, DataType)], hidden: &str) -> String {
        let text = r#"{"fields": {"code": {}, "cut": {}}, "filters": [["code", "is_not", "x"]]}"#;
        let file = EntityConfigFile::parse(Path::new("Shot.json"), text.to_owned()).expect("a config");
        let before = schema(&[("code", DataType::Text), ("cut", DataType::Text)]);
        let layout = TypeLayout::check(&file, &before).expect("a layout");
        match layout.fit(&schema(now), |field| field == hidden) {
            Err(problem) => problem,
            Ok(fitted) => {
                let fields: Vec<_> =
                    fitted.layout.fields.iter().map(|field| format!("{} {}", field.name, field.data_type)).collect();
                let same = if fitted.layout.hash == layout.hash { "same" } else { "other" };
                format!("{} ({same}); lacking {:?}", fields.join(", "), fitted.lacking)
            }
        }
    }

    #[test]
    fn a_schema_as_before_changes_nothing() {
        let found = check(&[("code", DataType::Text), ("cut", DataType::Text)], "");
        assert_eq!(found, "code text, cut text (same); lacking {}");
    }

    #[test]
    fn a_field_that_is_gone_hidden_or_computed_is_left_out_with_the_reason() {
        let gone = check(&[("code", DataType::Text)], "");
        assert_eq!(gone, r#"code text (other); lacking {"cut": "the site does not have it any more"}"#);
        let hidden = check(&[("code", DataType::Text), ("cut", DataType::Text)], "cut");
        assert_eq!(hidden, r#"code text (other); lacking {"cut": "the site leaves it out of its answers"}"#);
        let computed = check(&[("code", DataType::Text), ("cut", DataType::Calculated)], "");
        assert_eq!(computed, r#"code text (other); lacking {"cut": "the site computes it at every read now"}"#);
    }

    #[test]
    fn a_field_of_another_data_type_takes_it() {
        let number = check(&[("code", DataType::Text), ("cut", DataType::Number)], "");
        assert_eq!(number, "code text, cut number (other); lacking {}");
    }

    #[test]
    fn without_its_type_or_what_its_filter_needs_nothing_can_be_followed() {
        let filter = check(&[("cut", DataType::Text)], "");
        assert!(filter.starts_with("its filter cannot be evaluated any more: "), "{filter}");
        let text = r#"{"fields": {"code": {}}}"#;
        let file = EntityConfigFile::parse(Path::new("Shot.json"), text.to_owned()).expect("a config");
        let layout = TypeLayout::check(&file, &schema(&[("code", DataType::Text)])).expect("a layout");
        let gone = layout.fit(&Schema::default(), |_| false).expect_err("no such type");
        assert_eq!(gone, "the site has no entity type `Shot` any more");
    }
}
