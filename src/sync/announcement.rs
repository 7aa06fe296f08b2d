//! What an event log entry announces about the row of a key that it names.
//!
//! Pure. The values are never stored: a row that was read is compared with them
//! (`recheck`), because it may come from a replica that is behind the event log.
//!
//! - A change of a field with values of its own announces the value; one of a list of
//!   links announces the elements that came and went.
//! - On the other side of a link `meta` names the entity that was edited and the entry's
//!   `entity` the one that shows it: only that one is announced something, and its
//!   `updated_at` does not move.
//! - A creation shows as a whole or not at all, and a script may set its `updated_at` to
//!   any moment: there only values count.
//! - What cannot be compared, such as an image, shows in `updated_at` alone.

use serde_json::{Map, Value};

use super::tracked::Tracked;
use crate::entity::{DataType, EntityRef, EventId, Shape, Timestamp};
use crate::schema::display_name_field;
use crate::state::{Announcement, DirtyReasons, EntryTime, Expected, ExpectedField, ExpectedLink, LIFE};

/// A created or revived entity is read once more after this time in any case: some sites
/// fill in its links in a second step.
const SECOND_STEP_AFTER: u64 = 5;

/// One entry, as far as announcements need it.
pub(super) struct Entry<'a> {
    /// The whole entry.
    pub(super) entry: &'a Map<String, Value>,
    /// Its metadata.
    pub(super) meta: &'a Map<String, Value>,
    /// Its id.
    pub(super) id: EventId,
    /// The field that it is about.
    pub(super) attribute: Option<&'a str>,
    /// What happened to the entity.
    pub(super) kinds: DirtyReasons,
}

impl Entry<'_> {
    /// Returns what the entry announces about a key that it is directly about.
    pub(super) fn announces(&self, key: &EntityRef, tracked: &Tracked) -> Expected {
        let mut expected = Expected::default();
        let created = self.entry.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse);
        let Some(created) = created else {
            return expected;
        };
        let at = (created.0, self.id);
        if self.meta.contains_key("actual_attribute_changed") {
            self.other_side(key, at, tracked, &mut expected);
            return expected;
        }
        match self.life() {
            Some(active) => expected.announce(LIFE, ExpectedField::new(at, Announcement::Active(active))),
            None => self.edit(key, at, tracked, &mut expected),
        }
        if self.kinds.any(DirtyReasons::NEW | DirtyReasons::REVIVE) {
            expected.read_again_after = Some(SECOND_STEP_AFTER);
        }
        expected
    }

    /// Returns whether the entity is active afterwards, where the entry is about that.
    fn life(&self) -> Option<bool> {
        match self.kinds {
            kinds if kinds.any(DirtyReasons::NEW | DirtyReasons::REVIVE) => Some(true),
            kinds if kinds.any(DirtyReasons::RETIRE) => Some(false),
            _ if self.attribute == Some(LIFE) => self.meta.get("new_value").map(Value::is_null),
            _ => None,
        }
    }

    /// Tells whether the entry is one of those that make up a creation.
    fn is_in_create(&self) -> bool {
        self.meta.get("in_create") == Some(&Value::Bool(true))
    }

    fn edit(&self, key: &EntityRef, at: EntryTime, tracked: &Tracked, expected: &mut Expected) {
        let Some(name) = self.attribute else {
            return;
        };
        let in_create = self.is_in_create();
        if !in_create {
            expected.note_edit(at.0);
        }
        let announced = match self.comparable(key, name, at, tracked) {
            Some(announced) => announced,
            None if in_create || !tracked.follows(&key.entity_type) => return,
            None if is_cached(key, name, tracked) => Announcement::Change,
            // Nothing of it is cached but the moment.
            None if is_cached(key, "updated_at", tracked) => Announcement::Edit,
            None => return,
        };
        let own = !in_create && tracked.follows(&key.entity_type);
        expected.announce(name, ExpectedField { own, ..ExpectedField::new(at, announced) });
    }

    fn other_side(&self, key: &EntityRef, at: EntryTime, tracked: &Tracked, expected: &mut Expected) {
        let shows = self.entry.get("entity").and_then(EntityRef::from_json).is_some_and(|entity| entity == *key);
        let announced = self.attribute.filter(|_| shows);
        if let Some((name, announced)) =
            announced.and_then(|name| Some((name, self.comparable(key, name, at, tracked)?)))
        {
            expected.announce(name, ExpectedField { own: false, ..ExpectedField::new(at, announced) });
        }
    }

    /// Returns what a row must show, where the field is cached and can be compared.
    fn comparable(&self, key: &EntityRef, name: &str, at: EntryTime, tracked: &Tracked) -> Option<Announcement> {
        let data_type = data_type(key, name, tracked)?;
        match data_type.shape() {
            Shape::Links => {
                let links = |name: &str, present: bool| {
                    let listed = self.meta.get(name).and_then(Value::as_array).into_iter().flatten();
                    let link = move |target| ExpectedLink { target, present, at, returned: false };
                    listed.filter_map(EntityRef::from_json).map(link).collect::<Vec<_>>()
                };
                let links = [links("added", true), links("removed", false)].concat();
                (!links.is_empty()).then_some(Announcement::Links(links))
            }
            Shape::Presence | Shape::Opaque => None,
            _ => {
                let value = self.meta.get("new_value")?.clone();
                let in_create = self.is_in_create();
                // An empty field of a new row tells nothing, and a link to a retired entity
                // looks like one until that is revived.
                if in_create && value.is_null() {
                    return None;
                }
                // A creation has no value before.
                let before = self.meta.get("old_value").filter(|_| !in_create).cloned();
                let before = before.unwrap_or(Value::Object(Map::new()));
                Some(Announcement::Value { value, before: vec![before] })
            }
        }
    }
}

fn data_type(key: &EntityRef, name: &str, tracked: &Tracked) -> Option<DataType> {
    if let Some(layout) = tracked.layout(&key.entity_type) {
        return layout.field(name).map(|field| field.data_type);
    }
    // Of a type that is only linked to the name is kept.
    let is_name = name == display_name_field(&key.entity_type) || name == "cached_display_name";
    is_name.then_some(DataType::Text)
}

fn is_cached(key: &EntityRef, name: &str, tracked: &Tracked) -> bool {
    tracked.layout(&key.entity_type).is_some_and(|layout| layout.field(name).is_some())
}
