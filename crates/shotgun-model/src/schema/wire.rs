//! The `schema_read` and `schema_entity_read` documents, both ways.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{EntitySchema, FieldSchema, Schema};
use crate::entity::{DataType, EntityType};

/// Why a document is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the schema of the site is malformed at {place}")]
pub struct SchemaError {
    /// The type and field, `Shot.code`.
    pub place: String,
}

impl Schema {
    /// Reads the answers of `schema_read` and `schema_entity_read`.
    ///
    /// Types that only one of the two names are kept: connection types are listed
    /// by the second without being visible.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] when a type or a field is not an object or lacks its data type.
    pub fn from_wire(fields: &Value, entities: &Value) -> Result<Self, SchemaError> {
        let mut types = BTreeMap::new();
        for (name, blocks) in object(fields, "schema_read")? {
            let about = entities.get(name);
            let schema = EntitySchema {
                entity_type: EntityType::new(name),
                display_name: about.and_then(|a| text(a, "name")).unwrap_or_else(|| name.clone()),
                visible: about.is_none_or(|a| flag(a, "visible", true)),
                fields: EntitySchema::fields_from_wire(name, blocks)?,
            };
            types.insert(EntityType::new(name), schema);
        }
        Ok(Self { types })
    }

    /// Returns the answer of `schema_read`.
    pub fn to_wire(&self) -> Value {
        self.types
            .values()
            .map(|ty| (ty.entity_type.as_str().to_owned(), ty.fields_to_wire(None)))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Returns the answer of `schema_entity_read`.
    pub fn entities_to_wire(&self) -> Value {
        let about = |ty: &EntitySchema| json!({"name": fixed(ty.display_name.as_str()), "visible": fixed(ty.visible)});
        self.types.values().map(|ty| (ty.entity_type.as_str().to_owned(), about(ty))).collect::<Map<_, _>>().into()
    }
}

impl EntitySchema {
    /// Reads the answer of `schema_field_read`.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] when a field is not an object or lacks its data type.
    pub fn fields_from_wire(entity_type: &str, blocks: &Value) -> Result<BTreeMap<String, FieldSchema>, SchemaError> {
        let mut fields = BTreeMap::new();
        for (name, block) in object(blocks, entity_type)? {
            let field =
                FieldSchema::from_wire(block).ok_or_else(|| SchemaError { place: format!("{entity_type}.{name}") })?;
            fields.insert(name.clone(), field);
        }
        Ok(fields)
    }

    /// Returns the answer of `schema_field_read`, of one field when it is named.
    pub fn fields_to_wire(&self, only: Option<&str>) -> Value {
        let wanted = self.fields.iter().filter(|(name, _)| only.is_none_or(|only| only == name.as_str()));
        wanted.map(|(name, field)| (name.clone(), field.to_wire(&self.entity_type))).collect::<Map<_, _>>().into()
    }
}

impl FieldSchema {
    fn from_wire(block: &Value) -> Option<Self> {
        let data_type: DataType = text(block, "data_type")?.parse().ok()?;
        let properties = block.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        let list = |key: &str| -> Vec<String> {
            let values = properties.get(key).and_then(|p| p.get("value")).and_then(Value::as_array);
            values
                .map(|values| values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
                .unwrap_or_default()
        };
        let displays = properties.get("display_values").and_then(|p| p.get("value")).and_then(Value::as_object);
        let display_values = displays
            .map(|map| map.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or(k).to_owned())).collect())
            .unwrap_or_default();
        Some(Self {
            data_type,
            display_name: text(block, "name").unwrap_or_default(),
            description: text(block, "description").unwrap_or_default(),
            editable: flag(block, "editable", true),
            mandatory: flag(block, "mandatory", false),
            unique: flag(block, "unique", false),
            visible: flag(block, "visible", true),
            valid_types: list("valid_types").into_iter().map(EntityType::new).collect(),
            valid_values: list("valid_values"),
            display_values,
            default: properties.get("default_value").and_then(|p| p.get("value")).cloned().unwrap_or_default(),
            properties,
        })
    }

    fn to_wire(&self, owner: &EntityType) -> Value {
        let mut properties = self.properties.clone();
        let mut set = |key: &str, value: Value, editable: bool| {
            properties.insert(key.to_owned(), json!({"value": value, "editable": editable}));
        };
        set("default_value", self.default.clone(), matches!(self.data_type, DataType::List | DataType::StatusList));
        if matches!(self.data_type, DataType::Entity | DataType::MultiEntity | DataType::Addressing) {
            set("valid_types", self.valid_types.iter().map(|ty| ty.as_str()).collect(), true);
        }
        if matches!(self.data_type, DataType::List | DataType::StatusList) {
            set("valid_values", self.valid_values.iter().map(String::as_str).collect(), true);
        }
        if self.data_type == DataType::StatusList {
            set("display_values", json!(self.display_values), false);
            set("hidden_values", json!([]), false);
        }
        if self.data_type == DataType::Text {
            set("regex_validation", json!(""), true);
            set("regex_validation_enabled", Value::Null, true);
        }
        if !properties.contains_key("summary_default") {
            properties.insert("summary_default".into(), json!({"value": "none", "editable": true}));
        }
        json!({
            "name": {"value": self.display_name, "editable": true},
            "description": {"value": self.description, "editable": true},
            "custom_metadata": {"value": "", "editable": true},
            "data_type": fixed(self.data_type.as_str()),
            "entity_type": fixed(owner.as_str()),
            "editable": fixed(self.editable),
            "mandatory": fixed(self.mandatory),
            "unique": fixed(self.unique),
            "visible": fixed(self.visible),
            "ui_value_displayable": fixed(true),
            "properties": properties,
        })
    }
}

fn fixed(value: impl Into<Value>) -> Value {
    json!({"value": value.into(), "editable": false})
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, SchemaError> {
    value.as_object().ok_or_else(|| SchemaError { place: place.to_owned() })
}

fn text(block: &Value, key: &str) -> Option<String> {
    block.get(key)?.get("value")?.as_str().map(str::to_owned)
}

fn flag(block: &Value, key: &str, absent: bool) -> bool {
    block.get(key).and_then(|b| b.get("value")).and_then(Value::as_bool).unwrap_or(absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_survives_the_wire() {
        let mut status = FieldSchema::new(DataType::StatusList, "Status");
        status.valid_values = vec!["wtg".into(), "ip".into()];
        status.display_values = [("wtg".to_owned(), "Waiting".to_owned())].into();
        status.default = json!("wtg");
        let mut link = FieldSchema::new(DataType::Entity, "Sequence");
        link.valid_types = vec!["Sequence".into()];
        let fields = [("sg_status_list".to_owned(), status), ("sg_sequence".to_owned(), link)].into();
        let shot = EntitySchema { entity_type: "Shot".into(), display_name: "Plan".into(), visible: true, fields };
        let schema = Schema { types: [(EntityType::new("Shot"), shot)].into() };

        let wire = schema.to_wire();
        let read = Schema::from_wire(&wire, &schema.entities_to_wire());

        assert_eq!(read.as_ref().map(Schema::to_wire), Ok(wire));
        let status = read.as_ref().ok().and_then(|s| s.field(&"Shot".into(), "sg_status_list"));
        assert_eq!(status.map(|f| (f.valid_values.len(), f.default.clone())), Some((2, json!("wtg"))));
    }

    #[test]
    fn a_field_without_a_data_type_is_named() {
        let error = Schema::from_wire(&json!({"Shot": {"code": {}}}), &json!({}));
        assert_eq!(error, Err(SchemaError { place: "Shot.code".into() }));
    }
}
