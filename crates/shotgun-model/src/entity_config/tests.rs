//! Tests of generation and of the check against a schema.

use std::path::Path;

use serde_json::json;

use super::super::{EntityConfigFile, TypeLayout};
use super::*;
use crate::schema::{EntitySchema, FieldSchema};

fn schema() -> Schema {
    let types = [
        ("id", DataType::Number),
        ("code", DataType::Text),
        ("updated_at", DataType::DateTime),
        ("open_notes_count", DataType::Summary),
        ("viewed_by_current_user", DataType::List),
        ("splits", DataType::Serializable),
    ];
    let fields = types.map(|(name, ty)| (name.to_owned(), FieldSchema::new(ty, name))).into();
    let shot = EntitySchema { entity_type: "Shot".into(), display_name: "Shot".into(), visible: true, fields };
    Schema { types: [("Shot".into(), shot)].into() }
}

fn check(text: &str) -> Result<TypeLayout, Vec<String>> {
    let file = EntityConfigFile::parse(Path::new("entityConfig/Shot.json"), text.to_owned()).expect("valid JSON");
    TypeLayout::check(&file, &schema()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn generation_leaves_out_what_cannot_be_kept_fresh() {
    let config = generate(&schema(), &"Shot".into(), &Exclusions::default()).expect("the type exists");
    assert_eq!(config.fields.keys().collect::<Vec<_>>(), ["code", "updated_at"]);
    assert!(!Exclusions::default().takes_type(&"AssetShotConnection".into()));
}

#[test]
fn what_the_site_derives_from_other_entities_is_neither_generated_nor_cached() {
    let mut schema = schema();
    let shot = schema.types.get_mut("Shot").expect("the type");
    shot.fields.insert("time_logs_sum".to_owned(), FieldSchema::new(DataType::Duration, "Time Logged"));
    let config = generate(&schema, &"Shot".into(), &Exclusions::default()).expect("the type exists");
    assert_eq!(config.fields.keys().collect::<Vec<_>>(), ["code", "updated_at"]);
    assert_eq!(derived_fields(&schema, &"Shot".into()), ["Shot.time_logs_sum"]);

    let text = "{\"fields\": {\n  \"code\": {},\n  \"time_logs_sum\": {}\n}}";
    let file = EntityConfigFile::parse(Path::new("Shot.json"), text.to_owned()).expect("valid JSON");
    let layout = TypeLayout::check(&file, &schema).expect("a layout without it");
    assert_eq!(layout.field_names(), ["code", "updated_at"]);
    let warnings = TypeLayout::derived_fields(&file, &schema);
    assert!(warnings[0].to_string().starts_with("Shot.json:3: Shot.time_logs_sum is not cached"), "{warnings:?}");
}

#[test]
fn every_problem_is_named_with_its_line_and_the_nearest_name() {
    let problems = check(
        "{\"fields\": {\n  \"cod\": {},\n  \"open_notes_count\": {}\n},\n\"filters\": [[\"code\", \"less_than\", \"a\"]]}",
    );
    let problems = problems.expect_err("three problems");
    assert_eq!(problems[0], "entityConfig/Shot.json:2: Shot has no field `cod` on the site; did you mean `code`?");
    assert!(
        problems[1].starts_with("entityConfig/Shot.json:3: Shot.open_notes_count cannot be cached"),
        "{problems:?}"
    );
    assert!(problems[2].starts_with("entityConfig/Shot.json:5: Shot.code's 'text' data type"), "{problems:?}");
}

#[test]
fn an_optional_config_goes_without_what_the_site_lacks() {
    let text = "{\"optional\": true, \"fields\": {\n  \"code\": {},\n  \"cod\": {}\n}}";
    let parse = |path: &str| EntityConfigFile::parse(Path::new(path), text.to_owned()).expect("valid JSON");
    let shot = parse("entityConfig/Shot.json");
    let layout = TypeLayout::check(&shot, &schema()).expect("a layout without the field");
    assert_eq!(layout.field_names(), ["code", "updated_at"]);
    let lacking = TypeLayout::lacking_fields(&shot, &schema());
    let lacking: Vec<_> = lacking.iter().map(ToString::to_string).collect();
    assert_eq!(lacking, ["entityConfig/Shot.json:3: the site has no field `Shot.cod`: it is not cached"]);
    assert!(!TypeLayout::is_left_out(&shot, &schema()));

    let booking = parse("entityConfig/Booking.json");
    assert!(TypeLayout::is_left_out(&booking, &schema()));
    let lacking = TypeLayout::lacking_fields(&booking, &schema());
    assert!(lacking[0].to_string().contains("the site has no entity type `Booking`"), "{lacking:?}");
    let strict = EntityConfigFile::parse(Path::new("Booking.json"), r#"{"fields": {}}"#.to_owned()).expect("JSON");
    assert!(!TypeLayout::is_left_out(&strict, &schema()) && TypeLayout::lacking_fields(&strict, &schema()).is_empty());
}

#[test]
fn the_event_log_is_neither_generated_nor_cached() {
    let entry = EntitySchema { entity_type: "EventLogEntry".into(), ..schema().types["Shot"].clone() };
    let schema = Schema { types: [("EventLogEntry".into(), entry)].into() };
    let path = Path::new("entityConfig/EventLogEntry.json");
    let file = EntityConfigFile::parse(path, r#"{"fields": {"code": {}}}"#.to_owned()).expect("valid JSON");
    let problems = TypeLayout::check(&file, &schema).expect_err("a problem");
    let expected = "entityConfig/EventLogEntry.json:1: `EventLogEntry` cannot be cached: ";
    assert!(problems.len() == 1 && problems[0].to_string().starts_with(expected), "{problems:?}");
    let refused = generate(&schema, &"EventLogEntry".into(), &Exclusions::default()).expect_err("a refusal");
    assert!(refused.starts_with("`EventLogEntry` cannot be cached: "), "{refused}");
}

#[test]
fn the_hash_changes_with_fields_and_filters_only() {
    let hash = |text: &str| check(text).expect("a good config").hash;
    let base = hash(r#"{"fields": {"code": {}}}"#);
    assert_eq!(base, hash(r#"{"filters": [], "fields": {"code": {}, "updated_at": {}}}"#));
    assert_ne!(base, hash(r#"{"fields": {}}"#));
    assert_ne!(base, hash(r#"{"fields": {"code": {}}, "filters": [["id", "greater_than", 5]]}"#));
    assert_ne!(base, hash(r#"{"fields": {"code": {"mapping": {"type": "keyword"}}}}"#));
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    let error = EntityConfigFile::parse(Path::new("Shot.json"), "{\n \"feilds\": {}}".into()).expect_err("a typo");
    assert!(error.to_string().starts_with("Shot.json:2:9: unknown field `feilds`"), "{error}");
    assert_eq!(json!(EntityConfig::default()), json!({"fields": {}}));
}
