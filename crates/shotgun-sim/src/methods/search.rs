//! The search by name that web pages and tools complete words with.
//!
//! Every word must be part of the name, or of the name of what the entity is
//! linked to; the shortest name comes first.

use serde_json::{Value, json};

use super::fields;
use crate::cell::Key;
use crate::read::Scope;
use crate::rpc::{refused, type_id};
use crate::world::World;
use shotgun_model::api3::Fault;
use shotgun_model::entity::{EntityType, Timestamp, fold};
use shotgun_model::filter::{Only, RawFilter};

const METHOD: &str = "query_display_name_cache";
/// The fewest letters that are searched for.
const SHORTEST: usize = 3;
/// The most matches when no other number is asked for: what the vendor's other
/// interface gives.
const DEFAULT_MAX_RESULTS: usize = 25;

/// Finds entities by their names.
pub fn run(world: &World, argument: &Value, now: Timestamp) -> Result<Value, Fault> {
    let text = argument.get("text").and_then(Value::as_str).unwrap_or_default();
    if text.chars().count() < SHORTEST {
        return Err(Fault::malformed(METHOD, format!("'text' must have at least {SHORTEST} characters: {text:?}")));
    }
    let Some(types) = argument.get("entity_types").and_then(Value::as_object) else {
        return Err(Fault::malformed(METHOD, "invalid/missing object 'entity_types'"));
    };
    let terms: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<String> = terms.iter().map(|term| fold(term)).collect();
    let projects: Vec<i64> = ids(argument.get("project_ids"));
    let most = argument.get("max_results").and_then(Value::as_u64).map_or(DEFAULT_MAX_RESULTS, |limit| limit as usize);

    let mut found = Vec::new();
    for (name, filter) in types {
        find(world, &EntityType::new(name), filter, now, &words, &mut found)?;
    }
    found.retain(|key: &Key| projects.is_empty() || projects.contains(&project_id(world, *key).unwrap_or_default()));
    found.sort_by_cached_key(|key| {
        let name = world.display_name(*key).unwrap_or_default();
        (name.chars().count(), fold(&name), *key)
    });
    found.truncate(most);
    let matches: Value = found.into_iter().map(|key| show(world, key)).collect();
    Ok(json!({"matches": matches, "terms": terms}))
}

fn ids(value: Option<&Value>) -> Vec<i64> {
    let ids = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ids.iter().filter_map(Value::as_i64).collect()
}

fn find(
    world: &World,
    entity_type: &EntityType,
    filter: &Value,
    now: Timestamp,
    words: &[String],
    found: &mut Vec<Key>,
) -> Result<(), Fault> {
    let ty = type_id(world, METHOD, entity_type)?;
    let raw = RawFilter::from_wire(filter).map_err(|error| Fault::malformed(METHOD, error))?;
    let filter = world.schema.filter(entity_type, &raw).map_err(|fault| refused(METHOD, fault))?.at(now);
    let scope = Scope { ty, filter: &filter, only: Only::Active, include_archived_projects: true };
    scope.walk(world, false, |key| {
        let name = fold(&world.display_name(key).unwrap_or_default());
        let other = link(world, key).map(|link| fold(&world.display_name(link).unwrap_or_default()));
        let other = other.unwrap_or_default();
        if words.iter().all(|word| name.contains(word.as_str()) || other.contains(word.as_str())) {
            found.push(key);
        }
        true
    });
    Ok(())
}

/// Returns what the entity is linked to, such as the Shot of a Task.
fn link(world: &World, key: Key) -> Option<Key> {
    let target = *world.named(key, "entity").keys().first()?;
    world.is_active(target).then_some(target)
}

fn project_id(world: &World, key: Key) -> Option<i64> {
    world.project(key).map(|project| i64::from(project.id))
}

fn show(world: &World, key: Key) -> Value {
    let links = match link(world, key) {
        Some(target) => json!([world.layout.ty(target.ty).name.as_str(), world.display_name(target)]),
        None => json!(["", ""]),
    };
    let image = fields(world, key, &["image".to_owned()]).remove("image").unwrap_or_default();
    json!({
        "id": key.id, "type": world.layout.ty(key.ty).name.as_str(), "name": world.display_name(key),
        "project_id": project_id(world, key), "image": image, "links": links,
        "status": world.named(key, "sg_status_list").as_text()})
}
