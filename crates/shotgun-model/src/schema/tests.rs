//! Tests of filters against a small schema.

use serde_json::{Value, json};

use super::*;
use crate::schema::FieldSchema;

fn schema() -> Schema {
    let field = |name: &str, data_type| (name.to_owned(), FieldSchema::new(data_type, name));
    let shot = [
        field("id", DataType::Number),
        field("code", DataType::Text),
        field("sg_status_list", DataType::StatusList),
        field("sg_cut_in", DataType::Number),
        field("created_at", DataType::DateTime),
        field("image", DataType::Image),
        field("sg_link", DataType::Url),
        field("sg_done", DataType::Checkbox),
        field("sg_sequence", DataType::Entity),
        field("assets", DataType::MultiEntity),
    ];
    let sequence = [field("id", DataType::Number), field("code", DataType::Text)];
    let entity = |name: &str, fields: Vec<(String, FieldSchema)>| EntitySchema {
        entity_type: name.into(),
        display_name: name.into(),
        visible: true,
        fields: fields.into_iter().collect(),
    };
    let types =
        [("Shot".into(), entity("Shot", shot.into())), ("Sequence".into(), entity("Sequence", sequence.into()))];
    Schema { types: types.into() }
}

fn resolve(filter: Value) -> Result<String> {
    let raw = RawFilter::from_lists(&json!([filter]), false).expect("well-formed lists");
    schema().filter(&"Shot".into(), &raw).map(|filter| filter.to_string())
}

#[track_caller]
fn check(filter: Value, expected: &str) {
    assert_eq!(resolve(filter), Ok(format!("({expected})")));
}

#[track_caller]
fn check_fault(filter: Value, kind: FaultKind, words: &str) {
    let fault = resolve(filter).expect_err("the filter does not fit");
    assert_eq!(fault.kind, kind, "{}", fault.message);
    assert!(fault.message.contains(words), "{}", fault.message);
}

#[test]
fn negations_are_complements_of_positive_tests() {
    check(json!(["code", "is_not", "A"]), r#"not code OneOf([Text("a")])"#);
    check(json!(["code", "is_not", null]), "not code Empty");
    check(json!(["assets", "name_not_contains", "B"]), r#"not assets LinkName(Contains, "b")"#);
    check(json!(["created_at", "not_in_last", 2, "DAY"]), "not created_at Within(Last(2, Day))");
}

#[test]
fn empty_texts_follow_the_site() {
    check(json!(["code", "is", ""]), "code Empty");
    check(json!(["code", "contains", ""]), "not code Empty");
    check(json!(["code", "not_contains", ""]), "code Empty");
    check(json!(["code", "in", [""]]), "code OneOf([])");
    check_fault(json!(["code", "in", [null]]), FaultKind::Operand, "does not accept [null]");
}

#[test]
fn deep_paths_need_every_hop() {
    check(
        json!(["sg_sequence.Sequence.code", "starts_with", "0"]),
        r#"sg_sequence.Sequence.code Text(StartsWith, "0")"#,
    );
    let fault = resolve(json!(["sg_sequence.Sequence.cod", "is", "x"])).expect_err("no such field");
    assert_eq!(fault.kind, FaultKind::UnknownPath);
    assert_eq!(
        fault.message,
        "Shot.sg_sequence.Sequence.cod doesn't exist:\n{\"values\"=>[\"x\"], \"path\"=>\"sg_sequence.Sequence.cod\", \"relation\"=>\"is\"}"
    );
}

#[test]
fn refusals_use_the_words_of_the_site() {
    check_fault(json!(["code", "less_than", "x"]), FaultKind::Relation, "Shot.code's 'text' data type doesn't support");
    check_fault(json!(["sg_link", "is", null]), FaultKind::Relation, "'url' data type cannot be used in a filter.");
    check_fault(json!(["id", "in", []]), FaultKind::Operand, "'in' 'relation' expects at least a 1-element array: []");
    check_fault(json!(["sg_done", "is", null]), FaultKind::Operand, "does not accept [null]");
    check_fault(json!(["sg_sequence", "is", {"id": 5}]), FaultKind::Operand, "does not accept");
}

#[test]
fn what_no_source_settles_is_unproven() {
    check_fault(json!(["sg_cut_in", "between", 5, 1]), FaultKind::Unproven, "not established");
    check_fault(json!(["sg_sequence", "in", [null]]), FaultKind::Unproven, "not established");
    check_fault(json!(["image", "is", "x"]), FaultKind::Unproven, "not established");
}

#[test]
fn ends_of_a_span_of_time_may_be_given_in_either_order() {
    let expected = resolve(json!(["created_at", "between", "2024-01-01", "2024-02-01"]));
    assert_eq!(resolve(json!(["created_at", "between", "2024-02-01", "2024-01-01"])), expected);
    check(json!(["sg_cut_in", "between", null, 5]), "sg_cut_in OneOf([])");
}

#[test]
fn what_a_site_has_lost_is_taken_from_what_is_remembered() {
    let before = schema();
    let named = ["code", "sg_cut_in"].map(|field| (EntityType::new("Shot"), field.to_owned()));
    let remembered = before.restricted_to(named.into_iter().chain([(EntityType::new("Sequence"), "code".to_owned())]));
    let mut now = before.clone();
    now.types.get_mut("Shot").expect("a type").fields.remove("sg_cut_in");
    now.types.get_mut("Shot").expect("a type").fields.remove("sg_link");
    now.types.remove("Sequence");
    let (merged, missing) = now.with_missing_from(&remembered);
    assert_eq!(missing, ["Sequence", "Shot.sg_cut_in"]);
    let shot = EntityType::new("Shot");
    assert!(merged.field(&shot, "sg_cut_in").is_some() && merged.field(&shot, "sg_link").is_none());
}
