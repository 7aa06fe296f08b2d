//! When a user last opened a project.

use serde_json::{Value, json};

use crate::cell::Key;
use crate::event::Actor;
use crate::world::World;
use crate::write::not_simulated;
use shotgun_model::api3::Fault;
use shotgun_model::entity::{EntityRef, Timestamp};

const METHOD: &str = "update_project_last_accessed_by_current_user";

/// Notes that a person is in a project now. The official client takes the first
/// element of the answer, so it is a list.
pub fn touch(world: &mut World, actor: &Actor, argument: &Value, now: Timestamp) -> Result<Value, Fault> {
    let project = existing(world, "Project", argument, "project_id")?;
    let given = argument.get("user_id").is_some_and(|id| !id.is_null());
    let user = if given { existing(world, "HumanUser", argument, "user_id")? } else { actor.user };
    if world.layout.ty(user.ty).name != "HumanUser" {
        return Err(not_simulated(format!("{METHOD} by a script, without a user")));
    }
    world.kept.accesses.insert((project, user), now);
    Ok(json!([{"type": "Project", "id": project.id, "last_accessed_by_current_user": now}]))
}

fn existing(world: &World, entity_type: &str, argument: &Value, parameter: &str) -> Result<Key, Fault> {
    let Some(id) = argument.get(parameter).and_then(Value::as_i64) else {
        return Err(Fault::malformed(METHOD, format!("invalid/missing integer '{parameter}'")));
    };
    let key = world.key(&EntityRef::new(entity_type, id)).filter(|key| world.row(*key).is_some());
    key.ok_or_else(|| {
        Fault::data(METHOD, format!("CRUD ERROR #3: Entity of type [{entity_type}] with id={id} does not exist."))
    })
}
