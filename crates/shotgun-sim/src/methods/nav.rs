//! The tree by which the web interface and Toolkit walk through a project.
//!
//! Two branches, as a stock project has them: Shots under their Sequence, Assets
//! under their type. Shapes, bucket rows and refusals are those of a live site that
//! other people probed and published; a group of entities is followed by one more
//! copy of the bucket of those without a group, as there. Which levels a project
//! has is a setting of the site that no request shows, so the root of all projects
//! and deeper levels are refused as not simulated.

use serde_json::{Value, json};

use crate::cell::Key;
use crate::world::World;
use crate::write::not_simulated;
use shotgun_model::api3::Fault;
use shotgun_model::entity::{EntityRef, EntityType, fold};

/// The code of a path that leads nowhere: this tree alone gives it.
const NOT_FOUND: i64 = 107;
/// The group of what has no group.
const NONE: &str = "__none__";

/// A kind of entity in the tree, and the field that groups it.
struct Branch {
    entity_type: &'static str,
    /// What the level is called.
    label: &'static str,
    field: &'static str,
    /// The type of the groups; none when they are the values of a list.
    group_type: Option<&'static str>,
    /// What a group is called.
    group: &'static str,
}

const BRANCHES: [Branch; 2] = [
    Branch { entity_type: "Asset", label: "Assets", field: "sg_asset_type", group_type: None, group: "Type" },
    Branch {
        entity_type: "Shot",
        label: "Shots",
        field: "sg_sequence",
        group_type: Some("Sequence"),
        group: "Sequence",
    },
];

/// Answers `nav_expand`: one level of the tree.
pub fn expand(world: &World, argument: &Value) -> Result<Value, Fault> {
    let Some(path) = argument.get("path").and_then(Value::as_str) else {
        return Err(Fault::malformed("nav_expand", "invalid/missing string 'path'"));
    };
    if argument.get("entity_fields").is_some_and(|fields| !fields.is_null()) {
        return Err(not_simulated("nav_expand with entity_fields"));
    }
    let (project, rest) = project_of(world, "nav_expand", path)?;
    let (label, reference, children) = level(world, project, path, &rest)?;
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    let parent = if rest.is_empty() { "/" } else { above };
    let seed = json!({"type": "Version", "field": "entity"});
    let preset = json!({"preset_name": "NAV_ENTRIES", "path": path, "seed": seed});
    Ok(json!({
        "label": label, "ref": reference, "parent_path": parent, "path": path,
        "target_entities": {"type": "Version", "additional_filter_presets": [preset]},
        "has_children": !children.is_empty(), "children": children}))
}

/// Returns what a level is called, what it stands for, and what is in it.
fn level(world: &World, project: Key, path: &str, rest: &[&str]) -> Result<(String, Value, Vec<Value>), Fault> {
    let Some((first, below)) = rest.split_first() else {
        let branches = BRANCHES.iter().map(|branch| {
            let reference = json!({"kind": "entity_type", "value": branch.entity_type});
            node(branch.label, reference, &format!("{path}/{}", branch.entity_type), true)
        });
        return Ok((name(world, project), kind_of(world, project), branches.collect()));
    };
    let Some(branch) = BRANCHES.iter().find(|branch| branch.entity_type == *first) else {
        return Err(lost(format!("Entity type provided is not part of the tree: {first}")));
    };
    let whole = json!({"kind": "entity_type", "value": branch.entity_type});
    match below {
        [] => Ok((branch.label.to_owned(), whole, branch.groups(world, project, path))),
        [field, ..] if *field != branch.field && *field != "id" => {
            Err(lost(format!("Unexpected field name in path: {field} (expecting {})", branch.field)))
        }
        [_, NONE] | [_, _, NONE] => {
            let label = match (branch.group_type, below.len()) {
                // The label is made of the last but one part of the path, whatever it is.
                (Some(_), 2) => format!("{} with no {NONE}", branch.label),
                _ => branch.ungrouped(),
            };
            Ok((label, branch.bucket(), branch.rows(world, project, path, |row| branch.group_of(world, row).is_none())))
        }
        [_, value] if branch.group_type.is_none() => {
            let wanted = |row| branch.group_of(world, row).as_deref() == Some(*value);
            let reference = json!({"kind": "list", "value": value});
            Ok(((*value).to_owned(), reference, branch.rows(world, project, path, wanted)))
        }
        [_, ty, id] if branch.group_type == Some(ty) => {
            let group = id.parse().ok().and_then(|id| world.key(&EntityRef::new(*ty, id)));
            let Some(group) = group.filter(|group| world.is_active(*group)) else {
                return Err(lost(format!("Unexpected result looking for {}: {id}: 0 found.", ty.to_lowercase())));
            };
            let wanted = |row| branch.group_of(world, row).as_deref() == Some(*id);
            Ok((name(world, group), kind_of(world, group), branch.rows(world, project, path, wanted)))
        }
        _ => Err(not_simulated(format!("nav_expand of {path}"))),
    }
}

impl Branch {
    /// The entities of the project that are wanted, or the word that there are none.
    fn rows(&self, world: &World, project: Key, path: &str, wanted: impl Fn(Key) -> bool) -> Vec<Value> {
        let rows = active(world, project, self.entity_type).into_iter().filter(|row| wanted(*row));
        let rows =
            rows.map(|row| node(&name(world, row), kind_of(world, row), &format!("{path}/id/{}", row.id), false));
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() { vec![self.nothing()] } else { rows }
    }

    /// The groups of the level, whether or not anything is in them.
    fn groups(&self, world: &World, project: Key, path: &str) -> Vec<Value> {
        let path = format!("{path}/{}", self.field);
        let Some(group_type) = self.group_type else {
            let list = world.schema.entity(&EntityType::new(self.entity_type)).and_then(|ty| ty.fields.get(self.field));
            let values = list.map(|field| field.valid_values.as_slice()).unwrap_or_default();
            let groups = values
                .iter()
                .map(|value| node(value, json!({"kind": "list", "value": value}), &format!("{path}/{value}"), true));
            return groups.chain([self.without(&path)]).collect();
        };
        let path = format!("{path}/{group_type}");
        let groups = active(world, project, group_type).into_iter();
        let group = |row: Key| node(&name(world, row), kind_of(world, row), &format!("{path}/{}", row.id), true);
        let groups: Vec<_> = groups.flat_map(|row| [group(row), self.without(&path)]).collect();
        if groups.is_empty() { vec![self.nothing()] } else { groups }
    }

    fn without(&self, path: &str) -> Value {
        node(&self.ungrouped(), self.bucket(), &format!("{path}/{NONE}"), true)
    }

    /// What the bucket of those without a group is called.
    fn ungrouped(&self) -> String {
        format!("{} with no {}", self.label, self.group)
    }

    fn bucket(&self) -> Value {
        match self.group_type {
            Some(_) => json!({"kind": "entity_type", "value": self.entity_type}),
            None => json!({"kind": "list", "value": NONE}),
        }
    }

    fn nothing(&self) -> Value {
        let label = format!("No {}", self.label);
        json!({"label": label, "ref": {"kind": "empty", "value": null}, "has_children": false})
    }

    /// The group that a row is in: a value, or the id of an entity.
    fn group_of(&self, world: &World, row: Key) -> Option<String> {
        let cell = world.named(row, self.field);
        match self.group_type {
            None => cell.as_text().map(str::to_owned),
            Some(_) => cell.keys().first().filter(|group| world.is_active(**group)).map(|group| group.id.to_string()),
        }
    }
}

/// Answers `nav_search`: where an entity is in the tree, or entities of a name.
pub fn search(world: &World, argument: &Value) -> Result<Value, Fault> {
    let refuse = |words: &str| Err(Fault::malformed("nav_search", words));
    let Some(root) = argument.get("root_path").and_then(Value::as_str) else {
        return refuse("invalid/missing string 'root_path'");
    };
    let Some(criteria) = argument.get("search_criteria").and_then(Value::as_object) else {
        return refuse("search_criteria must be a hash");
    };
    if root != "/" {
        project_of(world, "nav_search", root)?;
    }
    let mut found = Vec::new();
    match (criteria.get("entity"), criteria.get("search_string").and_then(Value::as_str)) {
        (Some(entity), None) => {
            let Some(target) = EntityRef::from_json(entity) else {
                return refuse("invalid/missing entity 'entity'");
            };
            if !BRANCHES.iter().any(|branch| target.entity_type == *branch.entity_type) {
                return Err(not_simulated(format!("nav_search for a {}", target.entity_type)));
            }
            found.extend(world.key(&target).filter(|key| world.is_active(*key)));
        }
        (None, Some(words)) => {
            let words = fold(words);
            for branch in &BRANCHES {
                let Some(ty) = world.layout.type_id(branch.entity_type) else { continue };
                found.extend(world.active_keys(ty).filter(|key| fold(&name(world, *key)).contains(&words)));
            }
        }
        _ => return refuse("search_criteria size must be 1"),
    }
    found.sort_by_cached_key(|key| (fold(&name(world, *key)), *key));
    let places = found.into_iter().filter_map(|key| place(world, key));
    let inside = |path: &str| root == "/" || path == root || path.starts_with(&format!("{root}/"));
    Ok(places.filter(|(path, _)| inside(path)).map(|(_, place)| place).collect())
}

/// Returns the path of an entity, and how a search shows it.
fn place(world: &World, key: Key) -> Option<(String, Value)> {
    let project = world.project(key)?;
    let branch = BRANCHES.iter().find(|branch| world.layout.ty(key.ty).name == *branch.entity_type)?;
    let root = format!("/Project/{}", project.id);
    let level = format!("{root}/{}", branch.entity_type);
    let (step, label) = match (branch.group_of(world, key), branch.group_type) {
        // Unlike the paths of the tree itself, this one does not name the type.
        (None, _) => (NONE.to_owned(), branch.ungrouped()),
        (Some(value), None) => (value.clone(), value),
        (Some(id), Some(ty)) => {
            let group = *world.named(key, branch.field).keys().first()?;
            (format!("{ty}/{id}"), name(world, group))
        }
    };
    let group = format!("{level}/{}/{step}", branch.field);
    let path = format!("{group}/id/{}", key.id);
    let shown = json!({
        "label": name(world, key), "incremental_path": [root, level, group, path],
        "path_label": format!("{} > {label}", branch.label),
        "ref": {"id": key.id, "type": branch.entity_type}, "project_id": project.id});
    Some((path, shown))
}

fn project_of<'p>(world: &World, method: &str, path: &'p str) -> Result<(Key, Vec<&'p str>), Fault> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some("Project"), Some(id)) => {
            let project = id.parse().ok().and_then(|id| world.key(&EntityRef::new("Project", id)));
            let project = project.filter(|project| world.is_active(*project));
            let project =
                project.ok_or_else(|| lost(format!("Unexpected result looking for project: {id}: 0 found.")))?;
            Ok((project, parts.collect()))
        }
        _ => Err(not_simulated(format!("{method} of {path}"))),
    }
}

/// Returns the entities of a project that are not retired, by name.
fn active(world: &World, project: Key, entity_type: &str) -> Vec<Key> {
    let Some(ty) = world.layout.type_id(entity_type) else { return Vec::new() };
    let mut rows: Vec<_> = world.active_keys(ty).filter(|row| world.project(*row) == Some(project)).collect();
    rows.sort_by_cached_key(|row| (fold(&name(world, *row)), *row));
    rows
}

fn node(label: &str, reference: Value, path: &str, has_children: bool) -> Value {
    json!({"label": label, "ref": reference, "path": path, "has_children": has_children})
}

fn kind_of(world: &World, key: Key) -> Value {
    let target = world.reference(key);
    json!({"kind": "entity", "value": {"type": target.entity_type.as_str(), "id": target.id}})
}

fn name(world: &World, key: Key) -> String {
    world.display_name(key).unwrap_or_default().into_owned()
}

fn lost(words: String) -> Fault {
    Fault::new(NOT_FOUND, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{call, fault, project, shot, site, to};

    fn expand(site: &crate::Site, path: &str) -> Value {
        call(site, "nav_expand", json!({"path": path, "seed_entity_field": null, "entity_fields": null}))["results"]
            .take()
    }

    /// Each child of a level: its label and its path.
    fn children(node: &Value) -> Vec<(&str, &str)> {
        let children = node["children"].as_array().expect("children").iter();
        children
            .map(|child| (child["label"].as_str().expect("a label"), child["path"].as_str().unwrap_or_default()))
            .collect()
    }

    // Published probes of a live site: POST /hierarchy/_expand and its finding 064.
    #[test]
    fn a_project_has_its_assets_and_shots_by_group() {
        let site = site();
        let top = expand(&site, "/Project/1");
        assert_eq!(top["ref"], json!({"kind": "entity", "value": {"type": "Project", "id": 1}}));
        assert_eq!((&top["parent_path"], &top["has_children"]), (&json!("/"), &json!(true)));
        assert_eq!(top["target_entities"]["type"], "Version");
        assert_eq!(children(&top), [("Assets", "/Project/1/Asset"), ("Shots", "/Project/1/Shot")]);

        let loose = shot(&site, "loose");
        assert_eq!(children(&expand(&site, "/Project/1/Shot")), [("No Shots", "")], "no group hides every row");
        let sequence = site.create("Sequence", json!({"code": "seq01", "project": project()})).expect("a sequence");
        site.create("Sequence", json!({"code": "seq02", "project": project()})).expect("a sequence");
        let code = json!({"code": "010", "project": project(), "sg_sequence": to("Sequence", sequence)});
        let inside = site.create("Shot", code).expect("a shot");
        let groups = "/Project/1/Shot/sg_sequence/Sequence";
        let bucket = ("Shots with no Sequence", format!("{groups}/__none__"));
        let bucket = (bucket.0, bucket.1.as_str());
        let (one, two) = (format!("{groups}/1"), format!("{groups}/2"));
        let shots = expand(&site, "/Project/1/Shot");
        assert_eq!(children(&shots), [("seq01", one.as_str()), bucket, ("seq02", &two), bucket]);
        assert_eq!(children(&expand(&site, &one)), [("010", format!("{one}/id/{inside}").as_str())]);
        assert_eq!(children(&expand(&site, &two)), [("No Shots", "")]);
        let rest = expand(&site, bucket.1);
        assert_eq!(children(&rest), [("loose", format!("{}/id/{loose}", bucket.1).as_str())]);
        let other = expand(&site, "/Project/1/Shot/sg_sequence/__none__");
        assert_eq!(other["label"], "Shots with no __none__");
        assert_eq!(other["children"][0]["label"], "loose");

        let assets = expand(&site, "/Project/1/Asset");
        let last = assets["children"].as_array().and_then(|children| children.last()).expect("a bucket");
        assert_eq!(last["ref"], json!({"kind": "list", "value": "__none__"}));
        assert_eq!(last["label"], "Assets with no Type");
    }

    #[test]
    fn a_search_tells_where_an_entity_is() {
        let site = site();
        let sequence = site.create("Sequence", json!({"code": "seq01", "project": project()})).expect("a sequence");
        let code = json!({"code": "010", "project": project(), "sg_sequence": to("Sequence", sequence)});
        let id = site.create("Shot", code).expect("a shot");
        let place = json!([{
            "label": "010", "path_label": "Shots > seq01", "ref": {"type": "Shot", "id": id}, "project_id": 1,
            "incremental_path": [
                "/Project/1", "/Project/1/Shot", "/Project/1/Shot/sg_sequence/Sequence/1",
                "/Project/1/Shot/sg_sequence/Sequence/1/id/1"]}]);
        let search = |root: &str, criteria: Value| {
            let argument = json!({"root_path": root, "seed_entity_field": null, "search_criteria": criteria});
            call(&site, "nav_search", argument)["results"].take()
        };
        assert_eq!(search("/Project/1", json!({"entity": to("Shot", id)})), place);
        assert_eq!(search("/", json!({"search_string": "01"})), place);
        assert_eq!(search("/Project/1/Asset", json!({"search_string": "01"})), json!([]));
        shot(&site, "loose");
        let loose = search("/Project/1", json!({"search_string": "LOOSE"}));
        assert_eq!(loose[0]["incremental_path"][2], "/Project/1/Shot/sg_sequence/__none__");
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused() {
        let site = site();
        for (path, words) in [
            ("/Project/9", "Unexpected result looking for project: 9: 0 found."),
            ("/Project/1/Shot/nope/x", "Unexpected field name in path: nope (expecting sg_sequence)"),
            ("/Project/1/Task", "Entity type provided is not part of the tree: Task"),
        ] {
            assert_eq!(fault(&site, "nav_expand", json!({"path": path})), (NOT_FOUND, words.to_owned()));
        }
        for path in ["/", "/Project/1/Shot/id/7"] {
            let (_, words) = fault(&site, "nav_expand", json!({"path": path}));
            assert_eq!(words, format!("not simulated: nav_expand of {path}"));
        }
        let bad = |criteria: Value| {
            fault(&site, "nav_search", json!({"root_path": "/Project/1", "search_criteria": criteria})).1
        };
        assert_eq!(bad(json!({"Shot": 862})), "API nav_search() search_criteria size must be 1");
        assert_eq!(bad(json!("Shot")), "API nav_search() search_criteria must be a hash");
    }
}
