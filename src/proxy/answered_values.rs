//! What the site answered to a write about the entities that were written: the values of
//! their fields, and whether they are active.
//!
//! Pure. A read of the site that began after the acknowledgement shows the same, unless
//! another program has written since, or the site answers reads from a copy of its rows
//! that is behind (`site_lag`). Values of which a site computes the form at every read
//! (files, images) are left out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::entity::{DataType, EntityRef, Shape, canonical_json};

/// The name that stands for whether an entity is active.
pub(super) const LIFE: &str = "";

/// One part of a write: a request, or an item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A creation: the answer names the entity.
    Created,
    /// An update: the answer names the entity.
    Updated,
    /// A retirement.
    Retired(EntityRef),
    /// A revival.
    Revived(EntityRef),
}

/// What an answer says of one entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The entity.
    pub key: EntityRef,
    /// Whether it is active, where the write was about that.
    pub is_active: Option<bool>,
    /// The values of the fields that were written.
    pub values: BTreeMap<String, Value>,
}

impl Answered {
    /// Reads the results of a write, one of each part; nothing where they do not fit.
    pub fn of(parts: &[Part], results: &[Value]) -> Vec<Self> {
        if parts.len() != results.len() {
            return Vec::new();
        }
        parts.iter().zip(results).filter_map(|(part, result)| Self::of_part(part, result)).collect()
    }

    /// Tells whether the answer says something of a field, or of whether it is active.
    pub(super) fn tells(&self, field: &str) -> bool {
        if field == LIFE { self.is_active.is_some() } else { self.values.contains_key(field) }
    }

    /// Leaves out what another write may change.
    pub(super) fn leave_out(&mut self, touches: impl Fn(&str) -> bool, lifecycle: bool) {
        if lifecycle {
            self.is_active = None;
        }
        self.values.retain(|name, _| !lifecycle && !touches(name));
    }

    fn of_part(part: &Part, result: &Value) -> Option<Self> {
        let life =
            |key: &EntityRef, is_active| Self { key: key.clone(), is_active: Some(is_active), values: BTreeMap::new() };
        let is_active = match part {
            Part::Retired(key) => return Some(life(key, false)),
            Part::Revived(key) => return Some(life(key, true)),
            Part::Created => Some(true),
            Part::Updated => None,
        };
        let fields = result.as_object()?.iter().filter(|(name, _)| !matches!(name.as_str(), "type" | "id"));
        let values = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        Some(Self { key: EntityRef::from_json(result)?, is_active, values })
    }
}

/// Tells whether two reads show the same value; `None` where that cannot be compared.
pub(super) fn is_same(data_type: DataType, answered: &Value, shown: &Value) -> Option<bool> {
    let is_hidden = |link: &Value| link.get("valid").is_some_and(|valid| valid != "valid");
    let answered = match (data_type.shape(), answered) {
        (Shape::Presence | Shape::Opaque, _) => return None,
        // A link to a retired entity is in the answer and in no row.
        (Shape::Link, link) if is_hidden(link) => return None,
        (Shape::Links, Value::Array(links)) => {
            Value::Array(links.iter().filter(|link| !is_hidden(link)).cloned().collect())
        }
        (_, value) => value.clone(),
    };
    Some(canonical_json(data_type, &answered) == canonical_json(data_type, shown))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_part_of_a_batch_is_answered_in_its_place() {
        let shot = EntityRef::new("Shot", 7);
        let parts = [Part::Updated, Part::Retired(shot.clone()), Part::Created];
        let results = [
            json!({"type": "Task", "id": 3, "sg_status_list": "ip"}),
            json!(true),
            json!({"type": "Version", "id": 9, "code": "v"}),
        ];
        let answered = Answered::of(&parts, &results);
        assert_eq!((&answered[0].key, answered[0].is_active), (&EntityRef::new("Task", 3), None));
        assert_eq!(answered[0].values["sg_status_list"], "ip");
        assert_eq!((&answered[1].key, answered[1].is_active), (&shot, Some(false)));
        assert_eq!((&answered[2].key, answered[2].is_active), (&EntityRef::new("Version", 9), Some(true)));
        assert_eq!(Answered::of(&parts, &results[..2]), []);
    }

    #[test]
    fn links_are_compared_without_their_names_and_without_retired_targets() {
        let link = |id: i64, valid: &str| json!({"type": "Task", "id": id, "name": "a", "valid": valid});
        let shown = json!([{"type": "Task", "id": 1, "name": "b"}]);
        let same = |answered: Value| is_same(DataType::MultiEntity, &answered, &shown);
        assert_eq!(same(json!([link(1, "valid"), link(2, "retired")])), Some(true));
        assert_eq!(same(json!([link(2, "valid")])), Some(false));
        assert_eq!(is_same(DataType::Url, &json!("a"), &json!("b")), None);
    }
}
