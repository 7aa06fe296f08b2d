//! The methods of `/api3/json` beyond reading and writing rows.
//!
//! One file per subject. Each checks its request, changes the world or reads from
//! it, and answers in the documented shape; what no source describes is refused as
//! not simulated.

mod access;
mod follow;
mod nav;
mod page;
mod preferences;
mod schedule;
mod schema;
mod search;
mod stream;
mod subscriptions;
mod thread;

use serde_json::{Map, Value, json};

use super::cell::Key;
use super::encode::{Encoder, columns};
use super::event::Actor;
use super::site::Site;
use super::world::World;
use super::write::not_simulated;
use shotgun_model::api3::Fault;
use shotgun_model::entity::EntityRef;

pub(super) use follow::is_broken;

/// Answers a method.
///
/// # Errors
///
/// A [`Fault`] in the words of the site, or that the method is not simulated.
pub(super) fn run(site: &Site, actor: &Actor, method: &str, argument: &Value) -> Result<Value, Fault> {
    match method {
        "schema_read" => schema::read(&site.rows(), argument),
        "schema_entity_read" => schema::read_entities(&site.rows()),
        "schema_field_read" => schema::read_fields(&site.rows(), argument),
        "schema_field_create" => schema::create(site, actor, argument),
        "schema_field_update" => schema::update(site, actor, argument),
        "schema_field_delete" => schema::delete(site, actor, argument),
        "follow" => follow::set(&mut site.rows_mut(), argument, true),
        "unfollow" => follow::set(&mut site.rows_mut(), argument, false),
        "followers" => follow::followers(&site.rows(), argument),
        "following" => follow::following(&site.rows(), argument),
        "activity_stream" => stream::read(&site.rows(), argument),
        "note_thread_contents" => thread::read(&site.rows(), argument),
        "query_display_name_cache" => search::run(&site.rows(), argument, site.clock.now()),
        "nav_expand" => nav::expand(&site.rows(), argument),
        "nav_search" => nav::search(&site.rows(), argument),
        "preferences_read" => Ok(preferences::read(argument)),
        "work_schedule_read" => schedule::read(&site.rows(), argument),
        "work_schedule_update" => schedule::update(&mut site.rows_mut(), argument),
        "export_page" => page::export(argument),
        "user_subscriptions_read" => Ok(subscriptions::read(&site.rows())),
        "user_subscriptions_create" => subscriptions::create(&mut site.rows_mut(), argument),
        "update_project_last_accessed_by_current_user" => {
            access::touch(&mut site.rows_mut(), actor, argument, site.clock.now())
        }
        other => Err(not_simulated(other)),
    }
}

/// Finds the entity that a parameter links to, retired or not.
fn linked(world: &World, method: &str, argument: &Value, parameter: &str) -> Result<Key, Fault> {
    let Some(target) = argument.get(parameter).and_then(EntityRef::from_json) else {
        return Err(Fault::malformed(method, format!("invalid/missing entity '{parameter}'")));
    };
    let key = world.key(&target).filter(|key| world.row(*key).is_some());
    key.ok_or_else(|| {
        let EntityRef { entity_type, id } = target;
        Fault::data(method, format!("CRUD ERROR #3: Entity of type [{entity_type}] with id={id} does not exist."))
    })
}

/// Shows an entity as activity does: id, name, status and type.
fn card(world: &World, key: Key) -> Map<String, Value> {
    let target = world.reference(key);
    let status = world.named(key, "sg_status_list").as_text();
    let pairs = [
        ("id", json!(target.id)),
        ("name", json!(world.display_name(key))),
        ("status", json!(status)),
        ("type", json!(target.entity_type.as_str())),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads fields of an entity as `read` shows them; unknown ones are left out.
fn fields(world: &World, key: Key, names: &[String]) -> Map<String, Value> {
    let mut out = Vec::new();
    Encoder::new(world).row(&mut out, key, &columns(world, key.ty, names));
    let row: Value = serde_json::from_slice(&out).unwrap_or_default();
    let Value::Object(row) = row else { return Map::new() };
    row.into_iter().filter(|(name, _)| names.contains(name)).collect()
}

/// Returns the fields that a request asks for beyond those that it always gets.
fn extra_fields(argument: &Value, entity_type: &str) -> Vec<String> {
    let names = argument.get("entity_fields").and_then(|by_type| by_type.get(entity_type));
    let names = names.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
