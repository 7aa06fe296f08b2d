//! Working days: Monday to Friday, and the days that a user made an exception.
//!
//! A rule for a person counts more than one for a project, and that more than one
//! for the studio. Weeks of projects and people are not simulated, and tasks do
//! not move when a rule changes.

use chrono::{Datelike, Days, Weekday};
use serde_json::{Map, Value, json};

use super::linked;
use crate::auxiliary_state::{Whose, WorkDay};
use crate::cell::Key;
use crate::world::World;
use crate::write::not_simulated;
use shotgun_model::api3::Fault;
use shotgun_model::entity::{Day, EntityRef};

/// The most days that one request may ask for.
const LONGEST: i64 = 3_660;

/// Tells of each day in a range whether it is worked, and why.
pub fn read(world: &World, argument: &Value) -> Result<Value, Fault> {
    let method = "work_schedule_read";
    let (first, last) = (day(method, argument, "start_date")?, day(method, argument, "end_date")?);
    if (last.0 - first.0).num_days() > LONGEST {
        return Err(not_simulated(format!("{method} of more than {LONGEST} days")));
    }
    let project = party(world, method, argument, "project")?;
    let user = party(world, method, argument, "user")?;
    let rules = [
        (user.map(Whose::User), "USER_EXCEPTION"),
        (project.map(Whose::Project), "PROJECT_EXCEPTION"),
        (Some(Whose::Studio), "STUDIO_EXCEPTION"),
    ];
    let mut days = Map::new();
    let mut here = first.0;
    while here <= last.0 {
        let rule =
            rules.iter().find_map(|(whose, reason)| Some((world.kept.days.get(&(Day(here), (*whose)?))?, reason)));
        let shown = match rule {
            Some((rule, reason)) => {
                json!({"working": rule.working, "description": rule.description, "reason": reason})
            }
            None => {
                let working = !matches!(here.weekday(), Weekday::Sat | Weekday::Sun);
                json!({"working": working, "description": null, "reason": "STUDIO_WORK_WEEK"})
            }
        };
        days.insert(Day(here).to_string(), shown);
        let Some(next) = here.checked_add_days(Days::new(1)) else { break };
        here = next;
    }
    Ok(days.into())
}

/// Makes a day an exception and returns the rule.
pub fn update(world: &mut World, argument: &Value) -> Result<Value, Fault> {
    let method = "work_schedule_update";
    let date = day(method, argument, "date")?;
    let Some(working) = argument.get("working").and_then(Value::as_bool) else {
        return Err(Fault::malformed(method, "invalid/missing boolean 'working'"));
    };
    if argument.get("recalculate_field").is_some_and(|field| !field.is_null()) {
        return Err(not_simulated(format!("{method} with recalculate_field")));
    }
    let project = party(world, method, argument, "project")?;
    let user = party(world, method, argument, "user")?;
    let whose = match (project, user) {
        (None, None) => Whose::Studio,
        (Some(project), None) => Whose::Project(project),
        (None, Some(user)) => Whose::User(user),
        (Some(_), Some(_)) => return Err(Fault::malformed(method, "'project' and 'user' exclude each other")),
    };
    let description = argument.get("description").and_then(Value::as_str).map(str::to_owned);
    world.kept.days.insert((date, whose), WorkDay { working, description: description.clone() });
    let shown = |key: Option<Key>| key.map(|key| link(world, key));
    Ok(json!({
        "date": date.to_string(), "working": working, "description": description,
        "project": shown(project), "user": shown(user)}))
}

fn link(world: &World, key: Key) -> Value {
    let EntityRef { entity_type, id } = world.reference(key);
    json!({"id": id, "name": world.display_name(key), "type": entity_type.as_str()})
}

fn day(method: &str, argument: &Value, parameter: &str) -> Result<Day, Fault> {
    let day = argument.get(parameter).and_then(Value::as_str).and_then(Day::parse);
    day.ok_or_else(|| Fault::malformed(method, format!("invalid/missing date '{parameter}'")))
}

fn party(world: &World, method: &str, argument: &Value, parameter: &str) -> Result<Option<Key>, Fault> {
    if argument.get(parameter).is_none_or(Value::is_null) {
        return Ok(None);
    }
    linked(world, method, argument, parameter).map(Some)
}
