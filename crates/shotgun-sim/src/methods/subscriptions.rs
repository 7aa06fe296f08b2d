//! The subscriptions of people. Nothing depends on them here.

use serde_json::{Value, json};

use crate::world::World;
use shotgun_model::api3::Fault;
use shotgun_model::entity::EntityRef;

/// Lists the subscriptions that were given.
pub fn read(world: &World) -> Value {
    let each = world.kept.subscriptions.iter();
    each.map(|(id, subscription)| json!({"humanUserId": id, "subscription": subscription})).collect()
}

/// Gives people their subscriptions, all of them or none.
pub fn create(world: &mut World, argument: &Value) -> Result<Value, Fault> {
    let method = "user_subscriptions_create";
    let Some(users) = argument.get("users").and_then(Value::as_array) else {
        return Err(Fault::malformed(method, "invalid/missing array 'users'"));
    };
    let mut given = Vec::new();
    for user in users {
        let Some(id) = user.get("humanUserId").and_then(Value::as_i64) else {
            return Err(Fault::malformed(method, format!("invalid/missing integer 'humanUserId': {user}")));
        };
        if world.key(&EntityRef::new("HumanUser", id)).is_none_or(|key| world.row(key).is_none()) {
            let words = format!("CRUD ERROR #3: Entity of type [HumanUser] with id={id} does not exist.");
            return Err(Fault::data(method, words));
        }
        given.push((id, user.get("subscription").cloned().unwrap_or_default()));
    }
    world.kept.subscriptions.extend(given);
    Ok(json!({"status": "success"}))
}
