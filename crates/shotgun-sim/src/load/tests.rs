//! What seeds and dumps become.

use serde_json::json;

use super::*;
use crate::Site;
use shotgun_model::schema::FieldSchema;

fn rows(text: Value) -> Vec<Rows> {
    let Value::Object(types) = text else { panic!("types") };
    let list = |rows: Value| {
        rows.as_array().expect("rows").iter().map(|row| row.as_object().expect("a row").clone()).collect()
    };
    types.into_iter().map(|(entity_type, given)| Rows { entity_type, rows: list(given) }).collect()
}

#[test]
fn a_seed_names_what_it_links_to_and_both_sides_know() {
    let site = Site::empty();
    let seed = rows(json!({
        "Shot": [{"code": "s1", "project": "Demo", "assets": ["hero"]}, {"id": 40, "code": "s2", "project": "Demo"}],
        "Asset": [{"code": "Hero", "project": "Demo", "shots": [{"type": "Shot", "id": 40}]}],
        "Task": [{"content": "anim", "entity": {"type": "Shot", "name": "s1"}, "project": {"type": "Project", "id": 7}}],
        "Project": [{"id": 7, "name": "Demo"}]}));
    let loaded = site.load(&seed).expect("rows");
    assert_eq!((loaded.rows, loaded.links_to_nothing), (5, 0));
    let shots =
        site.read("Shot", &json!([]), &["code", "project", "assets", "tasks", "sg_status_list"]).expect("shots");
    let hero = json!([{"id": 1, "name": "Hero", "type": "Asset"}]);
    assert_eq!((&shots[0]["assets"], &shots[1]["assets"]), (&hero, &hero));
    assert_eq!(shots[0]["tasks"][0]["name"], "anim");
    assert_eq!((&shots[0]["sg_status_list"], &shots[1]["id"]), (&json!("wtg"), &json!(40)));
    assert_eq!(site.count("AssetShotConnection"), 2);
    assert_eq!(site.last_event_id().0, 0, "nothing is logged");
    assert_eq!(site.create("Shot", json!({"code": "s3", "project": {"type": "Project", "id": 7}})), Ok(41));
}

#[test]
fn a_dump_may_have_fields_that_the_site_does_not_know() {
    let site = Site::empty();
    let dump = rows(json!({"Shot": [
        {"type": "Shot", "id": 5, "code": "x", "sg_odd": 3, "sg_sequence": {"type": "Sequence", "id": 9, "name": "q"}}]}));
    let loaded = site.load(&dump).expect("rows");
    assert_eq!(loaded.unknown_fields, [("Shot.sg_odd".to_owned(), 1)].into());
    assert_eq!(loaded.links_to_nothing, 1);
    assert_eq!(site.read("Shot", &json!([]), &["sg_sequence"]).expect("shots")[0]["sg_sequence"], Value::Null);
}

#[test]
fn fields_of_the_site_that_was_dumped_can_be_added() {
    let site = Site::empty();
    let other = Site::empty();
    other.rows_mut().add_field(0, "sg_unused", FieldSchema::new(DataType::Text, "Unused"));
    let shot = other.rows().layout.type_id("Shot").expect("Shot");
    other.rows_mut().add_field(shot, "sg_odd", FieldSchema::new(DataType::Number, "Odd"));
    let schema = other.rows().schema.to_wire();
    assert_eq!(site.add_fields(&schema), Ok(2));
    let dump = rows(json!({"Shot": [{"id": 5, "code": "x", "sg_odd": 3}]}));
    assert!(site.load(&dump).expect("rows").unknown_fields.is_empty());
    assert_eq!(site.read("Shot", &json!([["sg_odd", "is", 3]]), &["sg_odd"]).expect("shots").len(), 1);
}

#[test]
fn rows_that_are_wrong_leave_nothing_behind() {
    let site = Site::empty();
    let wrong = |text: Value| site.load(&rows(text)).expect_err("a refusal").to_string();
    assert_eq!(wrong(json!({"Spaceship": []})), "Spaceship: the site has no such entity type");
    let twice = json!({"Tag": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]});
    assert_eq!(wrong(twice), "Tag with id 1: the id is taken");
    let nobody = json!({"Tag": [{"name": "a"}], "Shot": [{"code": "x", "project": "Nowhere"}]});
    assert_eq!(wrong(nobody), "Shot with code \"x\": project: no Project has the name `Nowhere`");
    assert_eq!(site.count("Tag"), 0);
}
