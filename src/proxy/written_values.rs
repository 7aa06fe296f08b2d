//! The values that a write gave to fields, where the site stores them as they were sent:
//! links, lists of links that were set whole, and statuses. Texts, numbers and dates are
//! left out, because a site may store them in another form.
//!
//! Pure. They tell which lists a written entity cannot have come into: a Task that was
//! moved to one Shot is among the Tasks of no other.

use std::collections::BTreeMap;

use serde_json::Value;

use super::catalogue::Catalogue;
use crate::api3::{FieldWrite, UpdateMode};
use crate::entity::{DataType, EntityRef, EntityType, FieldValue, Shape, fold};
use crate::filter::{Filter, Leaf, Test};

/// The value of each field that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenValues(BTreeMap<String, Written>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Links(Vec<EntityRef>),
    Status(String),
}

impl WrittenValues {
    /// Takes what is known of the fields of a write.
    pub fn of(entity_type: &EntityType, fields: &[FieldWrite], catalogue: &Catalogue) -> Self {
        let mut values = BTreeMap::new();
        for written in fields.iter().filter(|written| written.mode == UpdateMode::Set) {
            // A field that is written twice has one of the values.
            let once = fields.iter().filter(|other| other.field == written.field).count() == 1;
            let schema = catalogue.schema.field(entity_type, &written.field);
            let value = schema.filter(|_| once).and_then(|schema| Written::of(schema.data_type, &written.value));
            values.extend(value.map(|value| (written.field.clone(), value)));
        }
        Self(values)
    }

    /// The value of one field that links to one of these entities.
    pub fn link(field: &str, targets: impl IntoIterator<Item = EntityRef>) -> Self {
        Self([(field.to_owned(), Written::Links(targets.into_iter().collect()))].into())
    }

    /// Returns roughly what they take in memory, in bytes.
    pub fn bytes(&self) -> usize {
        let written = self.0.iter().map(|(name, written)| match written {
            Written::Links(links) => name.len() + links.len() * size_of::<EntityRef>(),
            Written::Status(status) => name.len() + status.len(),
        });
        written.sum()
    }

    /// Tells whether a row with these values can pass a filter; its other fields may have
    /// any value.
    pub fn may_pass(&self, filter: &Filter) -> bool {
        match filter {
            Filter::All(conditions) => conditions.iter().all(|condition| self.may_pass(condition)),
            Filter::Any(conditions) => conditions.iter().any(|condition| self.may_pass(condition)),
            Filter::Leaf(Leaf { path, negated: false, test }) if path.is_local() => {
                self.0.get(&path.field).is_none_or(|written| written.may_pass(test))
            }
            Filter::Leaf(_) => true,
        }
    }
}

impl Written {
    fn of(data_type: DataType, value: &Value) -> Option<Self> {
        if data_type == DataType::StatusList {
            return value.as_str().filter(|status| !status.is_empty()).map(|status| Self::Status(fold(status)));
        }
        if !matches!(data_type.shape(), Shape::Link | Shape::Links) {
            return None;
        }
        let one = std::slice::from_ref(value);
        let links = value.as_array().map_or(one, Vec::as_slice).iter().filter(|link| !link.is_null());
        links.map(EntityRef::from_json).collect::<Option<Vec<_>>>().map(Self::Links)
    }

    fn may_pass(&self, test: &Test) -> bool {
        match (self, test) {
            // A link to a retired entity passes none of these, and no test on what is there.
            (Self::Links(links), Test::LinkTo(targets)) => links.iter().any(|link| targets.contains(link)),
            (Self::Links(links), Test::LinkType(ty)) => links.iter().any(|link| link.entity_type == *ty),
            (Self::Status(status), Test::OneOf(wanted)) => {
                wanted.iter().any(|value| !matches!(value, FieldValue::Text(text) if text != status))
            }
            (Self::Status(status), Test::Text(how, needle)) => how.holds(status, needle),
            (Self::Status(_), Test::Empty) => false,
            _ => true,
        }
    }
}
