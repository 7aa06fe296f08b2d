//! Every kind of edit that people make to a site, by name.

use serde_json::{Value, json};
use sgcache::sim::Site;

use crate::sync_cache::{create, to};

/// What the edits are made to.
pub struct Made {
    pub sequences: Vec<i64>,
    pub shots: Vec<i64>,
    pub assets: Vec<i64>,
    pub tasks: Vec<i64>,
    pub versions: Vec<i64>,
}

/// Makes a few entities of each type that are linked with each other.
pub fn fill(site: &Site) -> Made {
    let many =
        |name: &str, field: &str| (0..4).map(|n| create(site, name, json!({field: format!("{name} {n}")}))).collect();
    let mut made = Made {
        sequences: many("Sequence", "code"),
        shots: many("Shot", "code"),
        assets: many("Asset", "code"),
        tasks: Vec::new(),
        versions: Vec::new(),
    };
    for (index, shot) in made.shots.iter().enumerate() {
        let sequence = to("Sequence", made.sequences[index % 2]);
        let assets = json!([to("Asset", made.assets[index]), to("Asset", made.assets[(index + 1) % 4])]);
        site.update("Shot", *shot, json!({"sg_sequence": sequence, "assets": assets})).expect("an update");
        made.tasks.push(create(site, "Task", json!({"content": "task", "entity": to("Shot", *shot)})));
        made.versions.push(create(site, "Version", json!({"code": "version", "entity": to("Shot", *shot)})));
    }
    made
}

/// Every kind of edit, by name.
pub type Edit = (&'static str, fn(&Site, &Made));

pub const EDITS: &[Edit] = &[
    ("a scalar", |site, made| update(site, "Shot", made.shots[0], json!({"code": "renamed"}))),
    ("several scalars", |site, made| {
        update(site, "Shot", made.shots[1], json!({"code": "b", "sg_cut_in": 5, "description": "text"}));
    }),
    ("a scalar and back", |site, made| {
        update(site, "Shot", made.shots[2], json!({"description": "there"}));
        update(site, "Shot", made.shots[2], json!({"description": null}));
    }),
    ("a field that is not cached", |site, made| update(site, "Task", made.tasks[0], json!({"color": "200,1,1"}))),
    ("a list", |site, made| update(site, "Shot", made.shots[0], json!({"assets": [to("Asset", made.assets[2])]}))),
    ("the other side of a list", |site, made| {
        update(site, "Asset", made.assets[3], json!({"shots": [to("Shot", made.shots[0]), to("Shot", made.shots[1])]}));
    }),
    ("a link", |site, made| {
        update(site, "Shot", made.shots[0], json!({"sg_sequence": to("Sequence", made.sequences[2])}));
    }),
    ("a list of the other side of a link", |site, made| {
        update(site, "Sequence", made.sequences[3], json!({"shots": [to("Shot", made.shots[1])]}));
    }),
    ("a creation with links", |site, made| {
        let fields = json!({"code": "new", "project": to("Project", 1),
            "sg_sequence": to("Sequence", made.sequences[0]), "assets": [to("Asset", made.assets[0])]});
        drop(site.create("Shot", fields));
    }),
    ("a task", |site, made| {
        let fields = json!({"content": "new", "project": to("Project", 1), "entity": to("Shot", made.shots[3])});
        drop(site.create("Task", fields));
    }),
    ("a retirement", |site, made| drop(site.retire("Shot", made.shots[3]))),
    ("a revival", |site, made| drop(site.revive("Shot", made.shots[3]))),
    ("a retirement of a link target", |site, made| drop(site.retire("Asset", made.assets[1]))),
    ("a revival of a link target", |site, made| drop(site.revive("Asset", made.assets[1]))),
    ("a retirement and a revival", |site, made| {
        drop(site.retire("Task", made.tasks[1]));
        drop(site.revive("Task", made.tasks[1]));
    }),
    ("a rename of a link target", |site, made| update(site, "Asset", made.assets[0], json!({"code": "hero"}))),
    ("a rename of a person", |site, _| {
        if let Ok(people) = site.read("HumanUser", &json!([]), &["name"])
            && let Some(id) = people.first().and_then(|person| person["id"].as_i64())
        {
            update(site, "HumanUser", id, json!({"firstname": "Ada"}));
        }
    }),
    ("a status that hides a row", |site, made| update(site, "Asset", made.assets[2], json!({"sg_status_list": "omt"}))),
    ("a retirement of a hidden row", |site, made| drop(site.retire("Asset", made.assets[2]))),
    ("a revival of a hidden row", |site, made| drop(site.revive("Asset", made.assets[2]))),
    ("a status that shows a row", |site, made| update(site, "Asset", made.assets[2], json!({"sg_status_list": "ip"}))),
    ("a filter over links hides rows", |site, made| {
        update(site, "Sequence", made.sequences[1], json!({"sg_status_list": "omt"}));
    }),
    ("a filter over links shows rows", |site, made| {
        update(site, "Sequence", made.sequences[1], json!({"sg_status_list": "ip"}));
    }),
];

/// Changes an entity; what the site refuses was no change.
pub fn update(site: &Site, entity_type: &str, id: i64, fields: Value) {
    drop(site.update(entity_type, id, fields));
}
