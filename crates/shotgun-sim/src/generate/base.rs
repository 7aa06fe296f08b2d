//! What a studio has once: statuses, steps, departments, people, tags, storages.

use rand::Rng;

use super::words::{DEPARTMENTS, FILE_TYPES, FIRST_NAMES, LAST_NAMES, STEPS, TAGS};
use super::{Cells, Studio};
use crate::cell::{Cell, Key};
use crate::schema::STATUSES;

pub(super) fn fill(studio: &mut Studio<'_>) {
    statuses(studio);
    let departments = departments(studio);
    people(studio, &departments);
    groups(studio);
    steps(studio);
    files(studio);
    templates(studio);
    for tag in TAGS {
        let tag = studio.put_stamped("Tag", vec![("name", Cell::text(tag))]);
        studio.tags.push(tag);
    }
    software(studio);
}

fn statuses(studio: &mut Studio<'_>) {
    for (code, name) in STATUSES {
        let color = format!("{},{},{}", code.len() * 40, 120, name.len() * 10 % 256);
        let cells = vec![
            ("code", Cell::text(code)),
            ("name", Cell::text(name)),
            ("bg_color", Cell::text(&color)),
            ("system", Cell::Bool(true)),
        ];
        studio.put_stamped("Status", cells);
    }
}

fn departments(studio: &mut Studio<'_>) -> Vec<Key> {
    let departments = DEPARTMENTS.iter().enumerate().map(|(order, (name, code))| {
        let cells = vec![
            ("name", Cell::text(name)),
            ("code", Cell::text(code)),
            ("list_order", Cell::Int(order as i64)),
            ("sg_status_list", Cell::text("act")),
        ];
        studio.put_stamped("Department", cells)
    });
    departments.collect()
}

fn people(studio: &mut Studio<'_>, departments: &[Key]) {
    for number in 0..(studio.entities / 600).clamp(12, 900) {
        let (first, last) = (studio.one_of(&FIRST_NAMES), studio.one_of(&LAST_NAMES));
        let login = format!("user{number:03}");
        let department = studio.one_of(departments);
        let status = if studio.chance(92) { "act" } else { "dis" };
        let cells = vec![
            ("firstname", Cell::text(first)),
            ("lastname", Cell::text(last)),
            ("name", Cell::Text(format!("{first} {last}").into())),
            ("login", Cell::text(&login)),
            ("email", Cell::Text(format!("{login}@example.com").into())),
            ("department", Cell::Link(department)),
            ("sg_status_list", Cell::text(status)),
            ("email_notes", Cell::Bool(true)),
            ("language", Cell::text("en")),
        ];
        let person = studio.put_stamped("HumanUser", cells);
        studio.people.push(person);
    }
}

fn groups(studio: &mut Studio<'_>) {
    for code in ["Artists", "Supervisors", "Coordinators", "Vendors"] {
        let mut users: Vec<Key> = (0..8).filter_map(|_| studio.person()).collect();
        users.sort_unstable();
        users.dedup();
        let group =
            studio.put_stamped("Group", vec![("code", Cell::text(code)), ("users", Cell::links(users.clone()))]);
        studio.connect("GroupUserConnection", ("group", group), "user", &users);
    }
}

fn steps(studio: &mut Studio<'_>) {
    for (order, (entity_type, code, short)) in STEPS.into_iter().enumerate() {
        let color = format!("{},{},{}", order * 25, 200 - order * 15, 90);
        let cells = vec![
            ("code", Cell::text(code)),
            ("short_name", Cell::text(short)),
            ("entity_type", Cell::text(entity_type)),
            ("list_order", Cell::Int(order as i64 + 1)),
            ("color", Cell::text(&color)),
        ];
        let step = studio.put_stamped("Step", cells);
        if entity_type == "Shot" { &mut studio.shot_steps } else { &mut studio.asset_steps }.push((step, short));
    }
}

fn files(studio: &mut Studio<'_>) {
    for code in FILE_TYPES {
        let short: String = code.chars().filter(|c| c.is_ascii_uppercase()).collect();
        let ty = studio
            .put_stamped("PublishedFileType", vec![("code", Cell::text(code)), ("short_name", Cell::text(&short))]);
        studio.file_types.push(ty);
    }
    let uuid = format!("{:032x}", studio.rng.random::<u128>());
    let cells: Cells = vec![
        ("code", Cell::text("primary")),
        ("linux_path", Cell::text("/mnt/projects")),
        ("mac_path", Cell::text("/Volumes/projects")),
        ("windows_path", Cell::text("P:\\projects")),
        ("uuid", Cell::text(&uuid)),
    ];
    studio.storage = Some(studio.put_stamped("LocalStorage", cells));
}

/// What Toolkit reads at its start.
fn software(studio: &mut Studio<'_>) {
    for (code, engine) in [("Maya", "tk-maya"), ("Nuke", "tk-nuke"), ("Houdini", "tk-houdini")] {
        let cells = vec![
            ("code", Cell::text(code)),
            ("engine", Cell::text(engine)),
            ("group_default", Cell::Bool(true)),
            ("sg_status_list", Cell::text("act")),
        ];
        studio.put_stamped("Software", cells);
    }
}

fn templates(studio: &mut Studio<'_>) {
    for (code, shots) in [("Film VFX - Shot", true), ("Film VFX - Asset", false)] {
        let entity_type = Cell::text(if shots { "Shot" } else { "Asset" });
        let template =
            studio.put_stamped("TaskTemplate", vec![("code", Cell::text(code)), ("entity_type", entity_type)]);
        studio.templates.push(template);
        let steps = if shots { studio.shot_steps.clone() } else { studio.asset_steps.clone() };
        for (step, short) in steps {
            let cells = vec![
                ("content", Cell::text(short)),
                ("step", Cell::Link(step)),
                ("task_template", Cell::Link(template)),
                ("sg_status_list", Cell::text("wtg")),
            ];
            studio.put_stamped("Task", cells);
        }
    }
}
