//! The data types of Shotgun fields and what each can do.
//!
//! Facts: `read` encodings, filterability and sortability per data type, as the
//! site documents and shows them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The data type of a field, as `schema_read` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The names are Shotgun's own.
pub enum DataType {
    Text,
    Number,
    Integer,
    Float,
    Currency,
    Percent,
    Duration,
    Timecode,
    Footage,
    Checkbox,
    Date,
    DateTime,
    List,
    StatusList,
    Color,
    Entity,
    MultiEntity,
    Addressing,
    TagList,
    EntityType,
    Uuid,
    Serializable,
    Jsonb,
    Password,
    Summary,
    Calculated,
    PivotColumn,
    UrlTemplate,
    SystemTaskType,
    Url,
    Image,
    /// A data type that this program does not know.
    Unknown,
}

/// How the values of a data type are held and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string, compared without case.
    Text,
    /// A string, compared with case.
    ExactText,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Float,
    /// A boolean; never null.
    Bool,
    /// A day without a zone, `2014-08-08`.
    Date,
    /// A moment in UTC with whole seconds, `2014-08-08T19:53:50Z`.
    DateTime,
    /// One link or null.
    Link,
    /// A list of links, never null.
    Links,
    /// Present or not; the value itself is never compared.
    Presence,
    /// Anything; stored as it came, never filtered.
    Opaque,
}

const NAMES: [(DataType, &str); 31] = [
    (DataType::Text, "text"),
    (DataType::Number, "number"),
    (DataType::Integer, "integer"),
    (DataType::Float, "float"),
    (DataType::Currency, "currency"),
    (DataType::Percent, "percent"),
    (DataType::Duration, "duration"),
    (DataType::Timecode, "timecode"),
    (DataType::Footage, "footage"),
    (DataType::Checkbox, "checkbox"),
    (DataType::Date, "date"),
    (DataType::DateTime, "date_time"),
    (DataType::List, "list"),
    (DataType::StatusList, "status_list"),
    (DataType::Color, "color"),
    (DataType::Entity, "entity"),
    (DataType::MultiEntity, "multi_entity"),
    (DataType::Addressing, "addressing"),
    (DataType::TagList, "tag_list"),
    (DataType::EntityType, "entity_type"),
    (DataType::Uuid, "uuid"),
    (DataType::Serializable, "serializable"),
    (DataType::Jsonb, "jsonb"),
    (DataType::Password, "password"),
    (DataType::Summary, "summary"),
    (DataType::Calculated, "calculated"),
    (DataType::PivotColumn, "pivot_column"),
    (DataType::UrlTemplate, "url_template"),
    (DataType::SystemTaskType, "system_task_type"),
    (DataType::Url, "url"),
    (DataType::Image, "image"),
];

impl DataType {
    /// Returns the name that `schema_read` uses.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(ty, _)| *ty == self).map_or("unknown", |(_, name)| name)
    }

    /// Returns the names of all known types.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// Returns how values of this type are held and compared.
    pub fn shape(self) -> Shape {
        match self {
            Self::Text | Self::List | Self::StatusList | Self::Color | Self::SystemTaskType => Shape::Text,
            Self::EntityType | Self::Uuid | Self::Footage => Shape::ExactText,
            Self::Number | Self::Integer | Self::Percent | Self::Duration | Self::Timecode => Shape::Int,
            Self::Float | Self::Currency => Shape::Float,
            Self::Checkbox => Shape::Bool,
            Self::Date => Shape::Date,
            Self::DateTime => Shape::DateTime,
            Self::Entity => Shape::Link,
            Self::MultiEntity | Self::Addressing => Shape::Links,
            Self::Image => Shape::Presence,
            _ => Shape::Opaque,
        }
    }

    /// Tells whether the site computes the value at every read, so that no event
    /// announces a change of it: such fields are never cached.
    pub fn is_volatile(self) -> bool {
        matches!(self, Self::Summary | Self::Calculated | Self::PivotColumn | Self::Password)
    }

    /// Tells whether a filter may name a field of this type at all.
    pub fn is_filterable(self) -> bool {
        !self.is_volatile() && !matches!(self, Self::Url | Self::Serializable | Self::UrlTemplate | Self::Unknown)
    }

    /// Tells whether a sort by a field of this type has an effect; the site
    /// ignores the others without a word.
    pub fn is_sortable(self) -> bool {
        !matches!(self.shape(), Shape::Links | Shape::Presence | Shape::Opaque)
    }
}

impl FromStr for DataType {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(NAMES.iter().find(|(_, known)| *known == name).map_or(Self::Unknown, |(ty, _)| *ty))
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
