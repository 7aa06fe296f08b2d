//! The activity of an entity: what the event log says about it and about what is
//! linked to it, newest first.
//!
//! Reported are creations and retirements of the entity and of entities that link to
//! it, replies to its notes, and changes of its own fields. Which changes a site
//! leaves out is in no source.

use serde_json::{Value, json};

use super::{card, extra_fields, fields, linked};
use crate::cell::{Cell, Key};
use crate::world::World;
use shotgun_model::api3::Fault;
use shotgun_model::entity::{EntityRef, FieldValue, Timestamp};

/// The number of updates when no other is asked for.
const DEFAULT_LIMIT: usize = 500;
/// The links by which an entity belongs to the activity of another one.
const LINKS: [&str; 3] = ["entity", "note_links", "project"];

/// Reads the activity of an entity.
pub fn read(world: &World, argument: &Value) -> Result<Value, Fault> {
    let method = "activity_stream";
    let about = json!({"entity": {"type": argument.get("type"), "id": argument.get("id")}});
    let entity = linked(world, method, &about, "entity")?;
    let bound = |name: &str| argument.get(name).and_then(Value::as_i64);
    let (above, below) = (bound("min_id").unwrap_or(0), bound("max_id").unwrap_or(i64::MAX));
    let most = bound("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);

    let numbered = world.kept.committed.iter().enumerate().map(|(at, id)| (at as i64 + 1, *id));
    let asked = numbered.rev().filter(|(number, _)| *number > above && *number < below);
    let updates: Vec<Value> =
        asked.filter_map(|(number, id)| update(world, argument, entity, number, id)).take(most).collect();
    let EntityRef { entity_type, id } = world.reference(entity);
    Ok(json!({
        "entity_type": entity_type.as_str(), "entity_id": id,
        "latest_update_id": updates.first().map(|update| update["id"].clone()),
        "earliest_update_id": updates.last().map(|update| update["id"].clone()),
        "updates": updates}))
}

/// Returns what one entry of the event log means for the activity of `subject`.
fn update(world: &World, argument: &Value, subject: Key, number: i64, entry: u32) -> Option<Value> {
    let entry = Key { ty: world.event_type, id: entry };
    let about = *world.named(entry, "entity").keys().first()?;
    let action = world.named(entry, "event_type").as_text()?.rsplit('_').next()?;
    let kind = match action {
        "New" if concerns(world, subject, about) => "create",
        "New" if answers(world, subject, about) => "create_reply",
        "Retirement" if concerns(world, subject, about) => "delete",
        "Change" if about == subject => "update",
        _ => return None,
    };
    let Cell::Json(meta) = world.named(entry, "meta") else { return None };
    let meta: Value = serde_json::from_str(meta).ok()?;
    let derived = meta.get("in_create").is_some() || meta.get("actual_attribute_changed").is_some();
    if kind == "update" && (derived || meta["attribute_name"] == "retirement_date") {
        return None;
    }
    let mut primary = card(world, about);
    primary.extend(fields(world, about, &extra_fields(argument, world.layout.ty(about.ty).name.as_str())));
    let created_by = world.named(entry, "user").keys().first().map(|user| person(world, *user));
    Some(json!({
        "id": number, "update_type": kind, "meta": meta, "primary_entity": primary, "read": false,
        "created_at": moment(world, entry).map(Timestamp::to_meta), "created_by": created_by}))
}

fn concerns(world: &World, subject: Key, entity: Key) -> bool {
    if world.layout.ty(entity.ty).name.is_connection() {
        return false;
    }
    let links_to_it = |field: &&str| world.named(entity, field).keys().contains(&subject);
    entity == subject || LINKS.iter().any(links_to_it)
}

/// Tells whether an entity is a reply to a note about `subject`.
fn answers(world: &World, subject: Key, entity: Key) -> bool {
    let note = world.named(entity, "entity").keys().first();
    world.layout.ty(entity.ty).name == "Reply" && note.is_some_and(|note| concerns(world, subject, *note))
}

fn person(world: &World, user: Key) -> Value {
    let mut shown = card(world, user);
    // The number of the picture, as text, in the one sample there is.
    let image = match world.named(user, "image") {
        Cell::Int(attachment) => Value::from(attachment.to_string()),
        _ => Value::Null,
    };
    shown.insert("image".into(), image);
    shown.into()
}

fn moment(world: &World, entry: Key) -> Option<Timestamp> {
    let field = world.layout.field_id(entry.ty, "created_at")?;
    match world.value(entry, field) {
        FieldValue::DateTime(moment) => Some(moment),
        _ => None,
    }
}
