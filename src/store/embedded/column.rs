//! The columns of the narrow table: which a field has, and what stands in them.
//!
//! Texts are folded where the data type ignores case, days are counted from the
//! year 1, moments in seconds from 1970, a link is the number of its type and an
//! id, a picture is 1 when there is one. So comparing columns is comparing
//! values, and the order of the bytes of a text is the order of its characters.

use chrono::Datelike;
use rusqlite::types::Value as Sql;

use crate::entity::{DataType, FieldValue, Shape, fold};

/// One field of a type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column {
    /// The field.
    pub field: String,
    /// Its number within the type.
    pub number: i64,
    /// Its data type.
    pub data_type: DataType,
}

impl Column {
    /// How the field is held.
    pub(super) fn shape(&self) -> Shape {
        self.data_type.shape()
    }

    /// The column of a scalar or a picture.
    pub(super) fn name(&self) -> String {
        format!("c{}_{}", self.number, plain(&self.field))
    }

    /// The columns of a link: the number of the type, the id.
    pub(super) fn link_names(&self) -> (String, String) {
        let name = self.name();
        (format!("{name}_t"), format!("{name}_i"))
    }

    /// The names of the columns in the narrow table: none for lists of links,
    /// which have a table of their own, and for what filters cannot name.
    pub(super) fn names(&self) -> Vec<String> {
        match self.shape() {
            Shape::Links | Shape::Opaque => Vec::new(),
            Shape::Link => {
                let (ty, id) = self.link_names();
                vec![ty, id]
            }
            _ => vec![self.name()],
        }
    }

    /// The names with their types, for the definition of the table.
    pub(super) fn definitions(&self) -> Vec<String> {
        let sql_type = match self.shape() {
            Shape::Text | Shape::ExactText => "TEXT",
            Shape::Float => "REAL",
            _ => "INTEGER",
        };
        self.names().into_iter().map(|name| format!("{name} {sql_type}")).collect()
    }
}

/// Returns the value of a scalar or a picture as it stands in its column.
pub(super) fn stored(data_type: DataType, value: &FieldValue) -> Sql {
    match value {
        FieldValue::Text(text) if data_type.shape() == Shape::Text => Sql::Text(fold(text)),
        other => operand(other),
    }
}

/// Returns the operand of a test, which is folded already.
pub(super) fn operand(value: &FieldValue) -> Sql {
    match value {
        FieldValue::Null | FieldValue::Link(_) | FieldValue::Links(_) => Sql::Null,
        FieldValue::Bool(flag) => Sql::Integer(i64::from(*flag)),
        FieldValue::Int(number) => Sql::Integer(*number),
        FieldValue::Float(number) => Sql::Real(*number),
        FieldValue::Text(text) => Sql::Text(text.clone()),
        FieldValue::Date(day) => Sql::Integer(i64::from(day.0.num_days_from_ce())),
        FieldValue::DateTime(moment) => Sql::Integer(moment.0),
        FieldValue::Json(_) => Sql::Integer(1),
    }
}

/// Keeps what may stand in a name without quotes. SQLite ignores case in names,
/// Shotgun does not: the number before the name keeps them apart.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}
