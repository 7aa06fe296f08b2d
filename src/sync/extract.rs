//! What one event log entry means: keys to read again, never values to store.
//!
//! Pure and total: no entry makes it fail. DirtyCommit too much costs a read, marking
//! too little loses a change, so every key that an entry names is taken:
//!
//! - `entity` and the ids in `meta` differ on the other side of a link change:
//!   there `meta` names the entity that was edited, `entity` the one that shows
//!   it;
//! - `entity` is null once its target is retired, also in older entries: only
//!   `meta` remembers;
//! - a cascade shows as a change of `retirement_date` and nothing else, so the
//!   attribute never decides whether a key counts;
//! - the keys in added, removed, old and new values are the other sides.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use super::announcement::Entry;
use super::tracked::Tracked;
use crate::entity::{EntityRef, EntityType, EventId, Timestamp};
use crate::schema::display_name_field;
use crate::state::{DeadKind, DirtyReasons, NewDead, NewDirtyKey, SiteTime};

/// More linked keys than this in one entry become a comparison of all ids.
const LINKED_LIMIT: usize = 50;
/// Entries about a filter come in groups; one comparison serves them all.
const SWEEP_DELAY: Duration = Duration::from_secs(5);
/// A new thumbnail is a placeholder for about forty seconds: seconds until its row is
/// read again.
const TRANSIENT_FOR: u64 = 45;

/// What an entry asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// The keys to read again.
    pub marks: Vec<NewDirtyKey>,
    /// Types of which every id has to be compared, and how long to wait.
    pub sweeps: Vec<(EntityType, Duration)>,
    /// Whether the schema may have changed.
    pub schema_due: bool,
    /// The entry itself, when nobody can tell what it is about.
    pub dead: Option<NewDead>,
    /// Why nothing follows, by the words of the metrics.
    pub skipped: Option<&'static str>,
}

/// What the type of an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    /// The entity type in the middle of `Shotgun_<Type>_<Action>`.
    entity_type: Option<EntityType>,
    kinds: DirtyReasons,
    lifecycle: bool,
    /// Whether the site itself wrote the entry.
    own: bool,
}

/// Reads an entry.
pub fn extract(entry: &Map<String, Value>, tracked: &Tracked) -> Extracted {
    let id = EventId(entry.get("id").and_then(Value::as_i64).unwrap_or(0));
    let empty = Map::new();
    let meta = entry.get("meta").and_then(Value::as_object).unwrap_or(&empty);
    let attribute = text(entry, "attribute_name").or_else(|| text(meta, "attribute_name"));
    let subject = subject(entry, meta, attribute);
    let direct = direct_keys(entry, meta, &subject);
    let linked = linked_keys(meta);
    let mut found = Extracted::default();
    if subject.entity_type.as_ref().is_some_and(is_schema) || direct.iter().any(|key| is_schema(&key.entity_type)) {
        found.schema_due = true;
        return found;
    }
    if direct.is_empty() && linked.is_empty() {
        return nothing_named(entry, id, &subject, found);
    }
    let inverse = meta.contains_key("actual_attribute_changed");
    let transient = meta.get("is_transient") == Some(&Value::Bool(true));
    let about = Entry { entry, meta, id, attribute, kinds: subject.kinds };
    for key in &direct {
        note_filters(&mut found, tracked, key, attribute, subject.lifecycle);
        let kinds = if inverse { subject.kinds | DirtyReasons::INVERSE } else { subject.kinds };
        let follows = tracked.follows(&key.entity_type);
        let named = tracked.names(&key.entity_type) && matters_uncached(key, attribute, &subject, tracked);
        if follows || named {
            let mut mark = NewDirtyKey::new(key.clone(), kinds);
            mark.expected = about.announces(key, tracked);
            if transient && follows {
                mark.expected.read_again_after = mark.expected.read_again_after.max(Some(TRANSIENT_FOR));
            }
            let derives = attribute.is_some_and(|field| tracked.derives_from(&key.entity_type, field));
            if subject.lifecycle || derives {
                // Links to it come and go, and derived fields change, in rows that the
                // entry does not name.
                mark.affects = tracked.holders(&key.entity_type);
            }
            found.marks.push(mark);
        }
    }
    mark_linked(&mut found, &direct, linked, tracked);
    if found.marks.is_empty() && found.sweeps.is_empty() {
        found.skipped = Some("not_cached_type");
    }
    with_origin(found, entry, id)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn subject(entry: &Map<String, Value>, meta: &Map<String, Value>, attribute: Option<&str>) -> Subject {
    let event_type = text(entry, "event_type").unwrap_or_default();
    let own = event_type.starts_with("Shotgun_");
    // Types may hold underscores; actions do not.
    let parts = event_type.strip_prefix("Shotgun_").and_then(|rest| rest.rsplit_once('_'));
    let (name, action) = parts.unwrap_or(("", ""));
    let (kinds, mut lifecycle) = match (action, text(meta, "type")) {
        ("New", _) | (_, Some("new_entity")) => (DirtyReasons::NEW, false),
        ("Retirement", _) | (_, Some("entity_retirement")) => (DirtyReasons::RETIRE, true),
        ("Revival", _) | (_, Some("entity_revival")) => (DirtyReasons::REVIVE, true),
        _ => (DirtyReasons::CHANGE, false),
    };
    lifecycle |= matches!(attribute, Some("retirement_date" | "archived"));
    let entity_type = Some(name).filter(|name| !name.is_empty()).map(EntityType::new);
    Subject { entity_type, kinds, lifecycle, own }
}

/// Keys that the entry is about.
fn direct_keys(entry: &Map<String, Value>, meta: &Map<String, Value>, subject: &Subject) -> BTreeSet<EntityRef> {
    let mut keys = BTreeSet::new();
    keys.extend(entry.get("entity").and_then(EntityRef::from_json));
    if let (Some(name), Some(id)) = (text(meta, "entity_type"), meta.get("entity_id").and_then(Value::as_i64)) {
        keys.insert(EntityRef::new(name, id));
    }
    // Old entries of retirements and revivals have the id in this place only.
    if subject.kinds.any(DirtyReasons::RETIRE | DirtyReasons::REVIVE)
        && let (Some(name), Some(id)) = (&subject.entity_type, meta.get("id").and_then(Value::as_i64))
    {
        keys.insert(EntityRef::new(name.clone(), id));
    }
    keys
}

/// Keys inside of the values that the entry tells.
fn linked_keys(meta: &Map<String, Value>) -> BTreeSet<EntityRef> {
    let mut keys = BTreeSet::new();
    for name in ["added", "removed", "old_value", "new_value"] {
        collect_keys(meta.get(name).unwrap_or(&Value::Null), &mut keys, 4);
    }
    keys
}

/// Collects every object with `type` and `id`, at most so many levels deep.
fn collect_keys(value: &Value, keys: &mut BTreeSet<EntityRef>, depth: usize) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys, depth - 1)),
        Value::Object(object) => match EntityRef::from_json(value) {
            Some(key) => {
                keys.insert(key);
            }
            None => object.values().for_each(|item| collect_keys(item, keys, depth - 1)),
        },
        _ => {}
    }
}

fn is_schema(entity_type: &EntityType) -> bool {
    let name = entity_type.as_str();
    matches!(name, "DisplayColumn" | "EntityType" | "Field") || name.starts_with("Schema")
}

fn is_name(entity_type: &EntityType, attribute: Option<&str>) -> bool {
    attribute.is_some_and(|name| name == "cached_display_name" || name == display_name_field(entity_type))
}

/// Tells whether a change of an entity whose type is not cached shows in cached rows.
fn matters_uncached(key: &EntityRef, attribute: Option<&str>, subject: &Subject, tracked: &Tracked) -> bool {
    let derived = attribute.is_some_and(|field| tracked.derives_from(&key.entity_type, field));
    subject.lifecycle || derived || is_name(&key.entity_type, attribute)
}

/// An entry that names no key. The site's own entries always should, except for
/// those about preferences; anybody else may write what they like.
fn nothing_named(entry: &Map<String, Value>, id: EventId, subject: &Subject, mut found: Extracted) -> Extracted {
    let about_entity = subject.own && subject.entity_type.as_ref().is_some_and(|ty| *ty != *"Preferences");
    if !about_entity {
        found.skipped = Some("no_entity");
        return found;
    }
    let key = EntityRef::new("EventLogEntry", id.0);
    let payload = Value::Object(entry.clone()).to_string();
    let error = "the entry names no entity".to_owned();
    found.dead = Some(NewDead { kind: DeadKind::Event, key, payload, error });
    found
}

fn note_filters(found: &mut Extracted, tracked: &Tracked, key: &EntityRef, attribute: Option<&str>, lifecycle: bool) {
    let mut types = attribute.map(|field| tracked.filtered_by(&key.entity_type, field)).unwrap_or_default();
    if lifecycle {
        types.extend(tracked.filtered_by_life_of(&key.entity_type));
    }
    for entity_type in types {
        if !found.sweeps.iter().any(|(known, _)| *known == entity_type) {
            found.sweeps.push((entity_type, SWEEP_DELAY));
        }
    }
}

/// The other sides of a link: rows that may show the change in a field of theirs.
fn mark_linked(found: &mut Extracted, direct: &BTreeSet<EntityRef>, linked: BTreeSet<EntityRef>, tracked: &Tracked) {
    let shows = |key: &&EntityRef| direct.iter().any(|edited| tracked.may_link(&key.entity_type, &edited.entity_type));
    let others: Vec<_> = linked.difference(direct).filter(shows).collect();
    if others.len() <= LINKED_LIMIT {
        let mark = |key: &&EntityRef| NewDirtyKey::new((*key).clone(), DirtyReasons::INVERSE);
        found.marks.extend(others.iter().map(mark));
        return;
    }
    let types: BTreeSet<_> = others.iter().map(|key| key.entity_type.clone()).collect();
    found.sweeps.extend(types.into_iter().map(|entity_type| (entity_type, SWEEP_DELAY)));
}

fn with_origin(mut found: Extracted, entry: &Map<String, Value>, id: EventId) -> Extracted {
    let created = text(entry, "created_at").and_then(Timestamp::parse).map(SiteTime::from);
    for mark in &mut found.marks {
        mark.events = Some((id, id));
        mark.event_count = 1;
        mark.event_created = created;
    }
    found
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
