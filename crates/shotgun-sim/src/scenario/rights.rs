//! What a script may see and do, when it may not see and do everything.
//!
//! A real site drops fields silently that the script may not see, answers only
//! the entities of its projects, and refuses writes to all others. Rights change
//! the request before it is answered; what a link leads to is shown with its name,
//! for every caller, because no source says that it is hidden.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cell::Key;
use crate::event::Actor;
use crate::site::Site;
use crate::world::World;
use crate::write::not_simulated;
use shotgun_model::api3::{Fault, Request};
use shotgun_model::entity::EntityRef;

/// The rights of one script.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// The name of the script.
    pub script: String,
    /// The only projects whose entities it sees; `null` for all.
    #[serde(default)]
    pub projects: Option<Vec<i64>>,
    /// Fields that it does not see, as `Shot.sg_cut_in`.
    #[serde(default)]
    pub hidden_fields: BTreeSet<String>,
    /// Entity types that it does not see at all.
    #[serde(default)]
    pub hidden_types: BTreeSet<String>,
    /// Its key is not accepted any more.
    #[serde(default)]
    pub revoked: bool,
}

/// The rights of the scripts that are limited.
#[derive(Debug, Default)]
pub(crate) struct Rights(RwLock<HashMap<Key, Permissions>>);

impl Rights {
    /// Limits a script, or lets it do everything again.
    pub fn set(&self, script: Key, permissions: Permissions) {
        self.0.write().insert(script, permissions);
    }

    /// Lets every script do everything again.
    pub fn clear(&self) {
        self.0.write().clear();
    }

    fn of(&self, user: Key) -> Option<Permissions> {
        self.0.read().get(&user).cloned()
    }
}

impl Site {
    /// Returns the request as the rights of the one who asks leave it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it may not be made at all.
    pub(crate) fn permitted<'r>(&self, actor: &Actor, request: &'r Request) -> Result<Cow<'r, Request>, Fault> {
        let Some(rights) = self.scenario.rights.of(actor.sudo.unwrap_or(actor.user)) else {
            return Ok(Cow::Borrowed(request));
        };
        if rights.revoked {
            let words = format!("Can't authenticate script '{}'", rights.script);
            return Err(Fault::new(Fault::AUTHENTICATION, words));
        }
        match request.method.as_str() {
            "read" | "summarize" => Ok(Cow::Owned(limited(&self.rows(), &rights, request))),
            "create" | "update" | "delete" | "revive" => {
                may_write(&self.rows(), &rights, &request.method, &request.argument)?;
                Ok(Cow::Borrowed(request))
            }
            "batch" => {
                for item in request.argument.as_array().into_iter().flatten() {
                    may_write(&self.rows(), &rights, "batch", item)?;
                }
                Ok(Cow::Borrowed(request))
            }
            // What these show would have to be cut down too, in ways that no source tells.
            "activity_stream" | "note_thread_contents" | "query_display_name_cache" | "followers" | "following" => {
                Err(not_simulated(format!("{} by a script with limited rights", request.method)))
            }
            _ => Ok(Cow::Borrowed(request)),
        }
    }
}

/// Returns a question without what is hidden from the one who asks.
fn limited(world: &World, rights: &Permissions, request: &Request) -> Request {
    let mut request = request.clone();
    let entity_type = request.argument["type"].as_str().unwrap_or_default().to_owned();
    if let Some(Value::Array(fields)) = request.argument.get_mut("return_fields") {
        fields.retain(|field| !is_hidden(rights, &entity_type, field.as_str().unwrap_or_default()));
    }
    let condition = if rights.hidden_types.contains(&entity_type) {
        Some(json!({"path": "id", "relation": "in", "values": [-1]}))
    } else {
        rights.projects.as_ref().and_then(|projects| within(world, &entity_type, projects))
    };
    if let Some(condition) = condition {
        let own = request.argument["filters"].take();
        let conditions = if own.is_null() { json!([condition]) } else { json!([condition, own]) };
        request.argument["filters"] = json!({"logical_operator": "and", "conditions": conditions});
    }
    request
}

/// Tells whether a field, or the end of a dotted one, is hidden.
fn is_hidden(rights: &Permissions, entity_type: &str, path: &str) -> bool {
    let parts: Vec<_> = path.split('.').collect();
    let (owner, field) = match parts.as_slice() {
        [.., owner, field] => (*owner, *field),
        _ => (entity_type, path),
    };
    rights.hidden_fields.contains(&format!("{owner}.{field}"))
}

/// The condition that leaves only the entities of some projects; `None` for types
/// without one.
fn within(world: &World, entity_type: &str, projects: &[i64]) -> Option<Value> {
    if entity_type == "Project" {
        return Some(
            json!({"path": "id", "relation": "in", "values": in_or_none(projects.iter().copied().map(Value::from))}),
        );
    }
    let ty = world.layout.type_id(entity_type)?;
    world.layout.ty(ty).project?;
    let links = projects.iter().map(|id| json!({"type": "Project", "id": id}));
    let inside = json!({"path": "project", "relation": "in", "values": in_or_none(links)});
    if world.layout.ty(ty).needs_project {
        return Some(inside);
    }
    // What belongs to no project is seen by everybody.
    let outside = json!({"path": "project", "relation": "is", "values": [null]});
    Some(json!({"logical_operator": "or", "conditions": [inside, outside]}))
}

/// A list of values that is never empty, which no relation accepts.
fn in_or_none(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let values: Vec<_> = values.collect();
    if values.is_empty() { vec![json!(-1)] } else { values }
}

fn may_write(world: &World, rights: &Permissions, method: &str, argument: &Value) -> Result<(), Fault> {
    let Some(projects) = &rights.projects else { return Ok(()) };
    let project = match EntityRef::from_json(argument) {
        Some(target) => world.key(&target).and_then(|key| world.project(key)).map(|key| i64::from(key.id)),
        None => argument["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|write| write["field_name"] == "project")
            .and_then(|write| write["value"]["id"].as_i64()),
    };
    let Some(project) = project.filter(|project| !projects.contains(project)) else { return Ok(()) };
    let entity_type = argument["type"].as_str().unwrap_or_default();
    let words = format!(
        "CRUD ERROR #4.1: Entity {entity_type} of Project {project} can not be edited by this user. Rule: {}",
        rights.script
    );
    Err(Fault::data(method, words))
}
