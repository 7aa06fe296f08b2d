//! Filter presets: questions that no filter can put, such as the newest Version
//! of each Shot.
//!
//! The newest is looked for among the rows that pass the filters of the request.
//! Groups are those of the documentation: a Version belongs to its `entity`, a
//! PublishedFile to its Version.

use std::collections::HashMap;

use serde_json::Value;

use super::cell::{Cell, Key};
use super::read::find;
use super::schema::TypeId;
use super::world::World;
use super::write::not_simulated;
use shotgun_model::api3::Fault;
use shotgun_model::entity::EntityRef;
use shotgun_model::filter::{Filter, Only, Page, Query};

/// What decides between two rows of a group: the higher wins.
type Rank = (i64, i64, u32);

/// Narrows a query to what its presets leave.
pub fn narrow(world: &World, ty: TypeId, presets: &Value, query: Query) -> Result<Query, Fault> {
    let refuse = |words: String| Err(Fault::malformed("read", format!("'additional_filter_presets' {words}")));
    let Some(presets) = presets.as_array() else {
        return refuse(format!("must be an array: {presets}"));
    };
    let mut latest = 0;
    let mut narrowed = query;
    for preset in presets {
        let Some(name) = preset.get("preset_name").and_then(Value::as_str) else {
            return refuse(format!("invalid/missing string 'preset_name': {preset}"));
        };
        latest += usize::from(name == "LATEST");
        if latest > 1 {
            return refuse("more than one 'LATEST'".to_owned());
        }
        let entity_type = world.layout.ty(ty).name.as_str();
        let ids = match (entity_type, name) {
            ("Version", "CUT_SHOT_VERSIONS") => cut_versions(world, ty, preset)?,
            ("Cut" | "Version" | "PublishedFile", "LATEST") => newest(world, ty, preset, &narrowed)?,
            _ => return refuse(format!("unknown preset '{name}' for {entity_type}")),
        };
        narrowed.filter = narrowed.filter.and(Filter::ids(ids));
    }
    Ok(narrowed)
}

/// Returns the Versions of the Shots that a Cut shows.
fn cut_versions(world: &World, ty: TypeId, preset: &Value) -> Result<Vec<i64>, Fault> {
    let Some(id) = preset.get("cut_id").and_then(Value::as_i64) else {
        return Err(Fault::malformed("read", format!("invalid/missing integer 'cut_id': {preset}")));
    };
    let Some(cut) = world.key(&EntityRef::new("Cut", id)).filter(|cut| world.is_active(*cut)) else {
        return Ok(Vec::new());
    };
    let items = world.layout.field_id(cut.ty, "cut_items").map(|field| world.live_links(cut, field));
    let items = items.unwrap_or_default();
    let shots: Vec<Key> = items.iter().flat_map(|item| world.named(*item, "shot").keys()).copied().collect();
    let shown = |version: &Key| world.named(*version, "entity").keys().first().is_some_and(|shot| shots.contains(shot));
    let versions = world.table(ty).range(0, u32::MAX).map(|(id, _)| Key { ty, id });
    Ok(versions.filter(shown).map(|version| i64::from(version.id)).collect())
}

/// Returns the highest row of each group among those that the query finds.
fn newest(world: &World, ty: TypeId, preset: &Value, query: &Query) -> Result<Vec<i64>, Fault> {
    let entity_type = world.layout.ty(ty).name.as_str();
    let by = preset.get("latest_by").and_then(Value::as_str).unwrap_or_default();
    let rank: fn(&World, Key) -> Rank = match (entity_type, by) {
        ("Cut", "REVISION_NUMBER") => {
            // Every Cut with the highest number, not one of them.
            let all = rows(world, ty, query);
            let number = |key: &Key| number(world, *key, "revision_number");
            let highest = all.iter().map(number).max();
            return Ok(all.iter().filter(|key| Some(number(key)) == highest).map(|key| i64::from(key.id)).collect());
        }
        ("Version" | "PublishedFile", "ENTITIES_CREATED_AT") => |world, key| (0, created(world, key), key.id),
        ("Version", "BY_PIPELINE_STEP_NUMBER_AND_ENTITIES_CREATED_AT") => {
            |world, key| (step_order(world, key), created(world, key), key.id)
        }
        ("PublishedFile", "VERSION_NUMBER") => {
            |world, key| (number(world, key, "version_number"), created(world, key), key.id)
        }
        _ => {
            let words = format!("unknown 'latest_by' for {entity_type}: {preset}");
            return Err(Fault::malformed("read", format!("'additional_filter_presets' {words}")));
        }
    };
    if query.only == Only::Retired {
        return Err(not_simulated("LATEST among retired rows"));
    }
    let group = if entity_type == "Version" { "entity" } else { "version" };
    let mut best: HashMap<Option<Key>, (Rank, Key)> = HashMap::new();
    for key in rows(world, ty, query) {
        let group = world.named(key, group).keys().first().copied();
        let candidate = (rank(world, key), key);
        let held = best.entry(group).or_insert(candidate);
        *held = (*held).max(candidate);
    }
    Ok(best.into_values().map(|(_, key)| i64::from(key.id)).collect())
}

fn rows(world: &World, ty: TypeId, query: &Query) -> Vec<Key> {
    let all = Query { page: Page::everything(), order: Vec::new(), ..query.clone() };
    find(world, ty, &all, false).rows
}

fn number(world: &World, key: Key, field: &str) -> i64 {
    match world.named(key, field) {
        Cell::Int(number) => *number,
        _ => i64::MIN,
    }
}

fn created(world: &World, key: Key) -> i64 {
    match world.named(key, "created_at") {
        Cell::Moment(moment) => moment.0,
        _ => i64::MIN,
    }
}

/// Returns the place, in the pipeline, of the step of a Version's task.
fn step_order(world: &World, version: Key) -> i64 {
    let task = world.named(version, "sg_task").keys().first();
    let step = task.and_then(|task| world.named(*task, "step").keys().first());
    step.map_or(i64::MIN, |step| number(world, *step, "list_order"))
}
