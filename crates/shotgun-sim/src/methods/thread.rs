//! A note with its replies and attachments, in the order in which they came.
//!
//! The words of the client say that the newest comes first; its sample and its
//! live tests have the note first, and so it is here.

use serde_json::{Map, Value, json};

use super::{extra_fields, fields, linked};
use crate::cell::{Cell, Key};
use crate::event::link;
use crate::world::World;
use shotgun_model::api3::Fault;
use shotgun_model::entity::Timestamp;

/// Reads the thread of a note.
pub fn read(world: &World, argument: &Value) -> Result<Value, Fault> {
    let method = "note_thread_contents";
    let about = json!({"note": {"type": "Note", "id": argument.get("note_id")}});
    let note = linked(world, method, &about, "note")?;
    let mut rest = [list(world, note, "replies"), list(world, note, "attachments")].concat();
    rest.sort_by_key(|key| (created_at(world, *key), *key));
    let all = std::iter::once(note).chain(rest);
    Ok(all.map(|key| Value::from(show(world, argument, key))).collect())
}

fn list(world: &World, note: Key, field: &str) -> Vec<Key> {
    world.layout.field_id(note.ty, field).map(|field| world.live_links(note, field)).unwrap_or_default()
}

fn created_at(world: &World, key: Key) -> Option<Timestamp> {
    match world.named(key, "created_at") {
        Cell::Moment(moment) => Some(*moment),
        _ => None,
    }
}

fn show(world: &World, argument: &Value, key: Key) -> Map<String, Value> {
    let entity_type = world.layout.ty(key.ty).name.as_str();
    let mut shown = fields(world, key, &extra_fields(argument, entity_type));
    shown.insert("id".into(), key.id.into());
    shown.insert("type".into(), entity_type.into());
    shown.insert("created_at".into(), created_at(world, key).map(Timestamp::to_meta).into());
    if entity_type != "Attachment" {
        shown.insert("content".into(), json!(world.named(key, "content").as_text()));
    }
    // A reply has an author, everything else a maker.
    let by = if entity_type == "Reply" { "user" } else { "created_by" };
    shown.insert(by.into(), world.named(key, by).keys().first().map(|user| person(world, *user, by)).into());
    shown
}

fn person(world: &World, user: Key, role: &str) -> Value {
    let mut shown = link(world, user);
    if role == "user" {
        shown["image"] = fields(world, user, &["image".to_owned()]).remove("image").unwrap_or_default();
    }
    shown
}
