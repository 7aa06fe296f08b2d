//! Who follows what.
//!
//! A site also makes people follow what they are assigned to, by their settings;
//! here they follow only what `follow` names.

use serde_json::{Value, json};

use super::linked;
use crate::cell::Key;
use crate::event::link;
use crate::world::World;
use shotgun_model::api3::Fault;
use shotgun_model::entity::EntityRef;

/// The code of an answer that a site gives as HTTP 500.
const BROKEN: i64 = 500;

/// Tells whether an answer is one that a site breaks down over.
pub(crate) fn is_broken(body: &[u8]) -> bool {
    // The keys of a fault are sorted, so its code comes first.
    body.starts_with(format!("{{\"error_code\":{BROKEN},").as_bytes())
}

/// Makes a person follow an entity, or no longer.
pub fn set(world: &mut World, argument: &Value, follow: bool) -> Result<Value, Fault> {
    let (method, done) = if follow { ("follow", "followed") } else { ("unfollow", "unfollowed") };
    let user = person(world, method, argument)?;
    let entity = linked(world, method, argument, "entity")?;
    if follow {
        world.kept.follows.insert((user, entity));
    } else {
        world.kept.follows.remove(&(user, entity));
    }
    Ok(json!({done: true, "user": argument["user"], "entity": argument["entity"]}))
}

fn person(world: &World, method: &str, argument: &Value) -> Result<Key, Fault> {
    let user = linked(world, method, argument, "user")?;
    if world.layout.ty(user.ty).name == "HumanUser" {
        return Ok(user);
    }
    Err(Fault::malformed(method, format!("'user' must be a HumanUser: {}", argument["user"])))
}

/// Lists the people who follow an entity. A site answers HTTP 500 for one that it
/// does not have.
pub fn followers(world: &World, argument: &Value) -> Result<Value, Fault> {
    let entity = linked(world, "followers", argument, "entity").map_err(|fault| Fault { code: BROKEN, ..fault })?;
    let follows = world.kept.follows.iter().filter(|(user, followed)| *followed == entity && world.is_active(*user));
    Ok(follows.map(|(user, _)| link(world, *user)).collect())
}

/// Lists what a person follows, of one project or type when that is asked for.
pub fn following(world: &World, argument: &Value) -> Result<Value, Fault> {
    let user = person(world, "following", argument)?;
    let project = argument.get("project").and_then(EntityRef::from_json).map(|project| world.key(&project));
    let entity_type = argument.get("entity_type").and_then(Value::as_str);
    let wanted = |entity: Key| {
        world.is_active(entity)
            && entity_type.is_none_or(|wanted| world.layout.ty(entity.ty).name.as_str() == wanted)
            && project.is_none_or(|project| world.project(entity) == project)
    };
    let follows = world.kept.follows.iter().filter(|(follower, entity)| *follower == user && wanted(*entity));
    Ok(follows.map(|(_, entity)| json!({"type": world.layout.ty(entity.ty).name.as_str(), "id": entity.id})).collect())
}
