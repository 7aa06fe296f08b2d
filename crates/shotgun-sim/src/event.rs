//! Event log entries: what a write says about itself.
//!
//! Shapes as recorded on real sites: one Change per field, marked `in_create` when
//! the value came with the creation; a row on the other side of every link that
//! changed, whose `meta` names the entity that was really edited; a Change of
//! `retirement_date` next to each Retirement. Entries become rows at commit, with
//! ids that were reserved before, so their ids are not in the order of commits.

use serde_json::{Map, Value, json};

use super::cell::{Cell, Key};
use super::table::Row;
use super::world::World;
use shotgun_model::entity::{DataType, FieldValue, Timestamp};

/// Who writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Actor {
    /// The person or script.
    pub user: Key,
    /// The script that acts in the name of the person.
    pub sudo: Option<Key>,
    /// Whether the site logs what this one does.
    pub logs: bool,
    /// The session that the client named.
    pub session: Option<String>,
}

/// One entry before it has an id.
#[derive(Clone, Debug)]
pub struct Entry {
    event_type: String,
    attribute: Option<String>,
    /// What the entry is about.
    pub entity: Key,
    meta: Map<String, Value>,
    /// The place, in the same transaction, of the entry of the field that was
    /// really written.
    original: Option<usize>,
}

/// How a value changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// From one value to another.
    Value(Value, Value),
    /// Links that came and went.
    Links(Vec<Key>, Vec<Key>),
}

impl Change {
    fn describe(&self, world: &World, meta: &mut Map<String, Value>) {
        match self {
            Self::Value(old, new) => {
                meta.insert("old_value".into(), old.clone());
                meta.insert("new_value".into(), new.clone());
            }
            Self::Links(added, removed) => {
                let links = |keys: &[Key]| keys.iter().map(|key| link(world, *key)).collect::<Value>();
                meta.insert("added".into(), links(added));
                meta.insert("removed".into(), links(removed));
            }
        }
    }
}

fn about(world: &World, key: Key, kind: &str) -> Map<String, Value> {
    let target = world.reference(key);
    let pairs = [
        ("type", Value::from(kind)),
        ("entity_type", Value::from(target.entity_type.as_str())),
        ("entity_id", Value::from(target.id)),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Entry {
    /// The entity was created.
    pub fn created(world: &World, key: Key) -> Self {
        Self::plain(world, key, "New", about(world, key, "new_entity"))
    }

    /// A field of the entity was written.
    pub fn changed(
        world: &World,
        key: Key,
        field: &str,
        data_type: DataType,
        change: &Change,
        in_create: bool,
    ) -> Self {
        let mut meta = about(world, key, "attribute_change");
        meta.insert("attribute_name".into(), field.into());
        meta.insert("field_data_type".into(), data_type.as_str().into());
        change.describe(world, &mut meta);
        if in_create {
            meta.insert("in_create".into(), true.into());
        }
        Self { attribute: Some(field.to_owned()), ..Self::plain(world, key, "Change", meta) }
    }

    /// A field of `key` follows one of `edited`, whose entry is at `original`.
    pub fn followed(
        world: &World,
        key: Key,
        field: &str,
        edited: (Key, &str, DataType),
        change: &Change,
        original: usize,
        in_create: bool,
    ) -> Self {
        let (editor, written, data_type) = edited;
        let mut entry = Self::changed(world, editor, written, data_type, change, in_create);
        let actual = format!("{}.{written}", world.layout.ty(editor.ty).name);
        entry.meta.insert("attribute_name".into(), field.into());
        entry.meta.insert("actual_attribute_changed".into(), actual.into());
        entry.event_type = format!("Shotgun_{}_Change", world.layout.ty(key.ty).name);
        Self { attribute: Some(field.to_owned()), entity: key, original: Some(original), ..entry }
    }

    /// The retirement date of the entity was set, or removed.
    pub fn retirement_date(world: &World, key: Key, old: Option<Timestamp>, new: Option<Timestamp>) -> Self {
        let mut meta = about(world, key, "attribute_change");
        meta.insert("attribute_name".into(), "retirement_date".into());
        meta.insert("old_value".into(), old.map(Timestamp::to_meta).into());
        meta.insert("new_value".into(), new.map(Timestamp::to_meta).into());
        Self { attribute: Some("retirement_date".into()), ..Self::plain(world, key, "Change", meta) }
    }

    /// The entity was retired.
    pub fn retired(world: &World, key: Key, at: Timestamp) -> Self {
        let mut meta = Self::lifecycle(world, key, "entity_retirement");
        meta.insert("retirement_date".into(), at.to_meta().into());
        Self::plain(world, key, "Retirement", meta)
    }

    /// The entity was revived.
    pub fn revived(world: &World, key: Key) -> Self {
        Self::plain(world, key, "Revival", Self::lifecycle(world, key, "entity_revival"))
    }

    fn lifecycle(world: &World, key: Key, kind: &str) -> Map<String, Value> {
        let mut meta = about(world, key, kind);
        let target = world.reference(key);
        meta.insert("class_name".into(), target.entity_type.as_str().into());
        meta.insert("display_name".into(), world.display_name(key).into());
        meta.insert("id".into(), target.id.into());
        meta
    }

    fn plain(world: &World, key: Key, action: &str, meta: Map<String, Value>) -> Self {
        let event_type = format!("Shotgun_{}_{action}", world.layout.ty(key.ty).name);
        Self { event_type, attribute: None, entity: key, meta, original: None }
    }

    /// Adds a word of its own to the metadata.
    pub fn noting(mut self, name: &str, value: Value) -> Self {
        self.meta.insert(name.to_owned(), value);
        self
    }

    fn description(&self, world: &World, who: &str) -> String {
        let name = world.display_name(self.entity).unwrap_or_default();
        let entity_type = &world.layout.ty(self.entity.ty).name;
        match &self.attribute {
            Some(attribute) => format!("{who} changed \"{attribute}\" on {entity_type} {name}"),
            None => format!("{who}: {} {entity_type} {name}", self.event_type.rsplit('_').next().unwrap_or_default()),
        }
    }
}

/// A link as event metadata shows it.
pub fn link(world: &World, key: Key) -> Value {
    let target = world.reference(key);
    let mut object = json!({
        "id": target.id, "name": world.display_name(key), "type": target.entity_type.as_str(), "valid": "valid"});
    if let Some(status) = world.named(key, "sg_status_list").as_text() {
        object["status"] = status.into();
    }
    object
}

/// A value as event metadata shows it: moments as `… UTC`, links as objects,
/// passwords as stars.
pub fn meta_value(world: &World, data_type: DataType, cell: &Cell) -> Value {
    match cell {
        Cell::Link(key) => link(world, *key),
        Cell::Moment(moment) => moment.to_meta().into(),
        Cell::Null if data_type == DataType::Checkbox => false.into(),
        _ if data_type == DataType::Password => "*******".into(),
        Cell::Int(number) => (*number).into(),
        other => match other.to_value(data_type) {
            FieldValue::Json(value) => value,
            value => value.to_json(),
        },
    }
}

/// Puts entries into the log under the given ids, one for each.
pub fn store(world: &mut World, entries: Vec<Entry>, ids: &[u32], actor: &Actor, at: Timestamp) {
    let ty = world.event_type;
    let who = world.display_name(actor.user).unwrap_or_default().into_owned();
    let project_type = world.layout.type_id("Project");
    let sudo = actor.sudo.map(|script| link(world, script));
    for (entry, id) in entries.into_iter().zip(ids) {
        let project =
            if project_type == Some(entry.entity.ty) { Some(entry.entity) } else { world.project(entry.entity) };
        let description = entry.description(world, &who);
        let Entry { event_type, attribute, entity, mut meta, original } = entry;
        if let Some(original) = original.and_then(|at| ids.get(at)) {
            meta.insert("original_event_log_entry_id".into(), (*original).into());
        }
        if let Some(sudo) = &sudo {
            meta.insert("sudo_actual_user".into(), sudo.clone());
        }
        let cells = [
            ("event_type", Cell::text(&event_type)),
            ("attribute_name", attribute.map_or(Cell::Null, |name| Cell::text(&name))),
            ("entity", Cell::Link(entity)),
            ("project", project.map_or(Cell::Null, Cell::Link)),
            ("user", Cell::Link(actor.user)),
            ("created_at", Cell::Moment(at)),
            ("session_uuid", actor.session.as_deref().map_or(Cell::Null, Cell::text)),
            ("description", Cell::text(&description)),
            ("meta", Cell::Json(Value::Object(meta).to_string().into())),
        ];
        let mut row = Row::default();
        for (name, cell) in cells {
            if let Some(field) = world.layout.field_id(ty, name) {
                row.set(field, cell);
            }
        }
        row.shrink();
        world.insert(Key { ty, id: *id }, row);
        world.kept.committed.push(*id);
    }
}

/// The ids of the event log: each worker of the site takes them in blocks, ahead
/// of their use, as real sites do.
#[derive(Clone, Debug)]
pub struct EventIds {
    next_block: u32,
    block: u32,
    workers: Vec<(u32, u32)>,
    turn: usize,
}

impl EventIds {
    /// Starts after `last` with this many workers and ids per block.
    pub fn new(last: u32, workers: usize, block: u32) -> Self {
        Self { next_block: last + 1, block: block.max(1), workers: vec![(0, 0); workers.max(1)], turn: 0 }
    }

    /// Makes sure that ids up to `last` are not handed out.
    pub fn pass(&mut self, last: u32) {
        if last >= self.next_block {
            self.next_block = last + 1;
            self.workers.fill((0, 0));
        }
    }

    /// Changes the number of workers and the ids per block; what the workers hold
    /// of their blocks stays unused.
    pub fn reshape(&mut self, workers: usize, block: u32) {
        *self = Self::new(self.next_block - 1, workers, block);
    }

    /// Returns the worker that handles the next write: one after the other.
    pub fn next_worker(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.workers.len();
        self.turn
    }

    /// Takes ids for a worker.
    pub fn take(&mut self, worker: usize, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.take_one(worker)).collect()
    }

    fn take_one(&mut self, worker: usize) -> u32 {
        let slot = worker % self.workers.len();
        if self.workers[slot].0 >= self.workers[slot].1 {
            self.workers[slot] = (self.next_block, self.next_block + self.block);
            self.next_block += self.block;
        }
        self.workers[slot].0 += 1;
        self.workers[slot].0 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_their_ids_in_blocks() {
        let mut ids = EventIds::new(100, 2, 32);
        assert_eq!(ids.take(0, 2), [101, 102]);
        assert_eq!(ids.take(1, 1), [133]);
        assert_eq!(ids.take(0, 30).last(), Some(&132));
        assert_eq!(ids.take(0, 1), [165]);
    }
}
