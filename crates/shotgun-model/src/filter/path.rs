//! Paths to fields: `code`, `entity.Shot.sg_sequence.Sequence.code`.

use std::fmt;

use crate::entity::{DataType, EntityType};

/// A field of an entity, or of an entity that it links to.
///
/// Made by `schema`, which knows that every hop exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath {
    /// The links to follow, first one first; empty for a field of the row itself.
    pub hops: Vec<Hop>,
    /// The field at the end.
    pub field: String,
    /// Its data type.
    pub data_type: DataType,
}

/// One step of a path: the link that is followed and the type it must lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The link field.
    pub field: String,
    /// Whether it holds a list of links.
    pub multi: bool,
    /// The only type of target that is followed.
    pub entity_type: EntityType,
}

impl FieldPath {
    /// Makes the path of a field of the row itself.
    pub fn local(field: impl Into<String>, data_type: DataType) -> Self {
        Self { hops: Vec::new(), field: field.into(), data_type }
    }

    /// Makes the path of the id of the row itself.
    pub fn id() -> Self {
        Self::local("id", DataType::Number)
    }

    /// Tells whether a list of links lies on the way.
    pub fn is_multi(&self) -> bool {
        self.hops.iter().any(|hop| hop.multi)
    }

    /// Tells whether the path ends at a field of the row itself.
    pub fn is_local(&self) -> bool {
        self.hops.is_empty()
    }

    /// Returns the path without its first hop: what remains to be asked of the
    /// entity that the hop leads to.
    pub fn rest(&self) -> Self {
        Self { hops: self.hops.get(1..).unwrap_or_default().to_vec(), ..self.clone() }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hop in &self.hops {
            write!(f, "{}.{}.", hop.field, hop.entity_type)?;
        }
        f.write_str(&self.field)
    }
}
