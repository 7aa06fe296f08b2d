//! Tests of what is refused before it is planned.

use super::*;
use crate::filter::{Sort, Unit, Window};
use crate::store::StoreErrorKind;

fn catalogue() -> Catalogue {
    let cached = |name: &str, partial: bool, fields: &[(&str, DataType)]| {
        let fields = fields.iter().map(|(name, data_type)| ((*name).to_owned(), *data_type)).collect();
        (EntityType::new(name), CachedType { entity_type: name.into(), fields, partial, hash: String::new() })
    };
    let shot = [("code", DataType::Text), ("sg_sequence", DataType::Entity), ("project", DataType::Entity)];
    let types = [
        cached("Shot", false, &shot),
        cached("Sequence", false, &[("code", DataType::Text), ("episode", DataType::Entity)]),
        cached("Episode", true, &[("code", DataType::Text)]),
    ];
    Catalogue { types: types.into() }
}

fn path(hops: &[(&str, &str)], field: &str, data_type: DataType) -> FieldPath {
    let hop = |(field, ty): &(&str, &str)| Hop { field: (*field).into(), multi: false, entity_type: (*ty).into() };
    FieldPath { hops: hops.iter().map(hop).collect(), field: field.into(), data_type }
}

#[track_caller]
fn check(path: FieldPath, test: Test, expected: &str) {
    let query = Query::all("Shot").filter(Filter::Leaf(Leaf { path, negated: false, test }));
    let error = catalogue().check(&query).expect_err("the query cannot be answered");
    assert_eq!((error.kind(), error.to_string().as_str()), (StoreErrorKind::Unsupported, expected));
}

#[test]
fn what_is_not_cached_is_passed_on() {
    let text = DataType::Text;
    check(path(&[], "description", text), Test::Empty, "`Shot.description` is not cached");
    let project = path(&[("project", "Project")], "name", text);
    check(project, Test::Empty, "`Project` is not cached (path `project.Project.name`)");
    let episode = path(&[("sg_sequence", "Sequence"), ("episode", "Episode")], "code", text);
    check(episode, Test::Empty, "`Episode` is cached in part only (path `sg_sequence.Sequence.episode.Episode.code`)");
    check(path(&[], "code", DataType::List), Test::Empty, "`Shot.code` is cached as `text` and asked for as `list`");
}

#[test]
fn tests_without_a_meaning_are_passed_on() {
    let code = path(&[], "code", DataType::Text);
    check(code.clone(), Test::Less(FieldValue::text("a")), "`code` (text) cannot be filtered this way");
    check(code, Test::Within(Window::Last(1, Unit::Day)), "`code` is relative to now");
}

#[test]
fn orders_and_fields_are_looked_at_too() {
    let deep = path(&[("project", "Project")], "name", DataType::Text);
    let order = Query::all("Shot").order(vec![Sort { path: deep.clone(), descending: true }]);
    assert!(catalogue().check(&order).is_err());
    assert!(catalogue().check(&Query::all("Shot").fields(vec![deep])).is_err());
    let archived = Query { include_archived_projects: false, ..Query::all("Sequence") };
    let reason = catalogue().check(&archived).map_err(|error| error.to_string());
    assert_eq!(reason, Err("`Sequence.project` is not cached, so archived projects cannot be left out".to_owned()));
    assert_eq!(catalogue().check(&Query::all("Asset")).map_err(|e| e.kind()), Err(StoreErrorKind::UnknownType));
}
