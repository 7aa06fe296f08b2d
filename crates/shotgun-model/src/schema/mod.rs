//! What a site says about its entity types and fields.
//!
//! Parsed from `schema_read` and rendered back to it; checks filters, orders and
//! field lists against it. How a schema is fetched is not known here.

mod derived;
mod resolve;
mod wire;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::entity::{DataType, EntityType};

pub use derived::{DEPENDENCIES, Dependency, Derivation, dependency};
pub use resolve::{FaultKind, FilterFault};
pub use wire::SchemaError;

/// The entity types of a site, or those that the reader may see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// The types by name.
    pub types: BTreeMap<EntityType, EntitySchema>,
}

/// One entity type.
#[derive(Clone, Debug, PartialEq)]
pub struct EntitySchema {
    /// The type.
    pub entity_type: EntityType,
    /// The name that the site shows for it.
    pub display_name: String,
    /// Whether the site shows it.
    pub visible: bool,
    /// The fields by name.
    pub fields: BTreeMap<String, FieldSchema>,
}

/// One field of an entity type.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldSchema {
    /// The data type of its values.
    pub data_type: DataType,
    /// The name that the site shows.
    pub display_name: String,
    /// Text that explains the field.
    pub description: String,
    /// Whether programs may write it.
    pub editable: bool,
    /// Whether the web form asks for it.
    pub mandatory: bool,
    /// Whether the site keeps its values unique.
    pub unique: bool,
    /// Whether the site shows it.
    pub visible: bool,
    /// The types that a link may point to; empty for other data types.
    pub valid_types: Vec<EntityType>,
    /// The values of a list or status list.
    pub valid_values: Vec<String>,
    /// The names that the site shows for the values of a status list.
    pub display_values: BTreeMap<String, String>,
    /// The value that `create` gives when none is named.
    pub default: Value,
    /// The properties of `schema_read` beyond those above, as they came.
    pub properties: Map<String, Value>,
}

impl FieldSchema {
    /// Makes a plain editable field without a default.
    pub fn new(data_type: DataType, display_name: impl Into<String>) -> Self {
        Self {
            data_type,
            display_name: display_name.into(),
            description: String::new(),
            editable: true,
            mandatory: false,
            unique: false,
            visible: true,
            valid_types: Vec::new(),
            valid_values: Vec::new(),
            display_values: BTreeMap::new(),
            default: Value::Null,
            properties: Map::new(),
        }
    }
}

impl Schema {
    /// Returns an entity type.
    pub fn entity(&self, entity_type: &EntityType) -> Option<&EntitySchema> {
        self.types.get(entity_type)
    }

    /// Returns a field of an entity type.
    pub fn field(&self, entity_type: &EntityType, field: &str) -> Option<&FieldSchema> {
        self.types.get(entity_type)?.fields.get(field)
    }

    /// Returns the schema with the types and fields of another one that it lacks, and
    /// which these are, as `Type` or `Type.field`.
    #[must_use]
    pub fn with_missing_from(&self, other: &Self) -> (Self, Vec<String>) {
        let (mut merged, mut missing) = (self.clone(), Vec::new());
        for (name, entity) in &other.types {
            let Some(known) = merged.types.get_mut(name) else {
                missing.push(name.to_string());
                merged.types.insert(name.clone(), entity.clone());
                continue;
            };
            for (field, schema) in &entity.fields {
                if !known.fields.contains_key(field) {
                    missing.push(format!("{name}.{field}"));
                    known.fields.insert(field.clone(), schema.clone());
                }
            }
        }
        (merged, missing)
    }

    /// Returns the schema of these fields alone.
    #[must_use]
    pub fn restricted_to(&self, fields: impl IntoIterator<Item = (EntityType, String)>) -> Self {
        let mut restricted = Self::default();
        for (entity_type, field) in fields {
            let Some(entity) = self.types.get(&entity_type) else { continue };
            let Some(schema) = entity.fields.get(&field) else { continue };
            let empty = || EntitySchema { fields: BTreeMap::new(), ..entity.clone() };
            restricted.types.entry(entity_type).or_insert_with(empty).fields.insert(field, schema.clone());
        }
        restricted
    }

    /// Returns the names of all types, sorted.
    pub fn type_names(&self) -> impl Iterator<Item = &str> {
        self.types.keys().map(EntityType::as_str)
    }
}

/// Returns the field that holds the display name of an entity of this type: what
/// `name` in a link shows.
///
/// The public schema does not tell it; the list is the one of a stock site.
pub fn display_name_field(entity_type: &EntityType) -> &'static str {
    match entity_type.as_str() {
        "Project" | "Department" | "Tag" | "HumanUser" | "ClientUser" | "Icon" | "Page" | "Status" => "name",
        "Task" | "Reply" => "content",
        "Note" => "subject",
        "Ticket" | "Delivery" | "ActionMenuItem" => "title",
        "ApiUser" => "firstname",
        "Attachment" | "PermissionRuleSet" => "display_name",
        "EventLogEntry" => "description",
        _ => "code",
    }
}
