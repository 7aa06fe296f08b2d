//! `create`, `update`, `delete`, `revive` and `batch`.

use serde_json::Value;

use super::Fault;
use super::read::{entity_type, names};
use crate::entity::EntityType;

/// A value to be written to a field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldWrite {
    /// The field.
    pub field: String,
    /// The value.
    pub value: Value,
    /// How a list of links is changed.
    pub mode: UpdateMode,
}

/// How a list of links is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpdateMode {
    /// The list becomes the value.
    #[default]
    Set,
    /// The links of the value are added.
    Add,
    /// The links of the value are removed.
    Remove,
}

/// The argument of `create`.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// The type of the new entity.
    pub entity_type: EntityType,
    /// Its values.
    pub fields: Vec<FieldWrite>,
    /// Fields to answer besides those written.
    pub return_fields: Vec<String>,
}

/// The argument of `update`.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type of the entity.
    pub entity_type: EntityType,
    /// Its id.
    pub id: i64,
    /// The values to change.
    pub fields: Vec<FieldWrite>,
}

/// The argument of `delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The type of the entity.
    pub entity_type: EntityType,
    /// Its id.
    pub id: i64,
}

/// The argument of `revive`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revive {
    /// The type of the entity.
    pub entity_type: EntityType,
    /// Its id.
    pub id: i64,
}

/// One request of a `batch`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum BatchItem {
    Create(Create),
    Update(Update),
    Delete(Delete),
}

impl Create {
    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for a missing type or malformed fields.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        Ok(Self {
            entity_type: entity_type("create", argument)?,
            fields: FieldWrite::list("create", argument)?,
            return_fields: names(argument.get("return_fields")),
        })
    }
}

impl Update {
    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for a missing type or id, or malformed fields.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        Ok(Self {
            entity_type: entity_type("update", argument)?,
            id: id("update", argument)?,
            fields: FieldWrite::list("update", argument)?,
        })
    }
}

impl Delete {
    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for a missing type or id.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        Ok(Self { entity_type: entity_type("delete", argument)?, id: id("delete", argument)? })
    }
}

impl Revive {
    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for a missing type or id.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        Ok(Self { entity_type: entity_type("revive", argument)?, id: id("revive", argument)? })
    }
}

impl BatchItem {
    /// Reads the argument of `batch`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for an argument that is not a list, or a malformed request in it.
    pub fn list(argument: &Value) -> Result<Vec<Self>, Fault> {
        let items = argument.as_array().ok_or_else(|| Fault::malformed("batch", "expects an array of requests"))?;
        items.iter().map(Self::from_wire).collect()
    }

    fn from_wire(item: &Value) -> Result<Self, Fault> {
        match item.get("request_type").and_then(Value::as_str) {
            Some("create") => Create::from_wire(item).map(Self::Create),
            Some("update") => Update::from_wire(item).map(Self::Update),
            Some("delete") => Delete::from_wire(item).map(Self::Delete),
            _ => Err(Fault::malformed("batch", format!("invalid/missing string 'request_type': {item}"))),
        }
    }
}

impl FieldWrite {
    fn list(method: &str, argument: &Value) -> Result<Vec<Self>, Fault> {
        let items = argument.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| Self::from_wire(method, item)).collect()
    }

    fn from_wire(method: &str, item: &Value) -> Result<Self, Fault> {
        let Some(field) = item.get("field_name").and_then(Value::as_str) else {
            return Err(Fault::malformed(method, format!("invalid/missing string 'field_name': {item}")));
        };
        let mode = match item.get("multi_entity_update_mode").and_then(Value::as_str) {
            None | Some("set") => UpdateMode::Set,
            Some("add") => UpdateMode::Add,
            Some("remove") => UpdateMode::Remove,
            Some(other) => {
                return Err(Fault::malformed(method, format!("invalid 'multi_entity_update_mode': {other}")));
            }
        };
        Ok(Self { field: field.to_owned(), value: item.get("value").cloned().unwrap_or_default(), mode })
    }
}

fn id(method: &str, argument: &Value) -> Result<i64, Fault> {
    argument.get("id").and_then(Value::as_i64).ok_or_else(|| Fault::malformed(method, "invalid/missing integer 'id'"))
}
