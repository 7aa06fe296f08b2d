//! Tests of rows on their way in and out.

use serde_json::json;

use super::*;
use crate::entity::DataType;
use crate::entity_config::LayoutField;
use crate::filter::{Filter, RawFilter};
use crate::store::CachedType;

fn layout() -> TypeLayout {
    let field =
        |name: &str, data_type| LayoutField { name: name.into(), data_type, valid_types: vec![], mapping: None };
    TypeLayout {
        entity_type: "Shot".into(),
        fields: [field("code", DataType::Text), field("sg_cut_in", DataType::Number)].into(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: "1".into(),
    }
}

fn fetch(row: Value) -> Result<FetchedRow, RowError> {
    let row = row.as_object().expect("an object").clone();
    let (key, rv) = (EntityRef::new("Shot", 7), ReadVersion::new(2, 5));
    FetchedRow::from_site(&layout(), key, rv, RowState::Active, row, Timestamp(0), None)
}

#[test]
fn a_row_without_a_requested_field_is_named() {
    let error = fetch(json!({"type": "Shot", "id": 7, "code": "a"})).map_err(|error| error.to_string());
    assert_eq!(error.err().as_deref(), Some("the site left `sg_cut_in` out of Shot:7"));
    let error = fetch(json!({"type": "Shot", "id": 8, "code": "a", "sg_cut_in": 1})).map_err(|e| e.to_string());
    assert_eq!(error.err().as_deref(), Some("the site answered 8 when asked for Shot:7"));
}

#[test]
fn a_row_holds_the_fields_of_its_layout_and_nothing_else() {
    let row = fetch(json!({"type": "Shot", "id": 7, "code": "a", "sg_cut_in": null, "more": 1})).expect("a whole row");
    assert_eq!(Value::Object(row.doc().clone()), json!({"code": "a", "sg_cut_in": null}));
    assert_eq!(row.hash(), layout().row_hash(row.doc()));
    assert_eq!((row.rv().epoch(), row.rv().sequence(), row.rv().to_string()), (2, 5, "2.5".into()));
}

#[test]
fn a_value_that_its_data_type_does_not_allow_is_a_problem() {
    let row = fetch(json!({"code": "a", "sg_cut_in": "many"})).expect("a whole row");
    let problem = row.problem(&CachedType::of(&layout()));
    assert_eq!(problem.as_deref(), Some("Shot:7.sg_cut_in: expected a value of data type `number`, found \"many\""));
}

#[test]
fn links_show_the_field_that_names_the_type() {
    let name = |entity_type: &str, doc: Value| {
        display_name(&entity_type.into(), doc.as_object().expect("an object")).map(str::to_owned)
    };
    assert_eq!(name("Task", json!({"content": "Comp", "cached_display_name": "old"})).as_deref(), Some("Comp"));
    assert_eq!(name("Step", json!({"code": "Light", "cached_display_name": null})).as_deref(), Some("Light"));
    assert_eq!(
        name("ApiUser", json!({"firstname": "bot", "cached_display_name": "bot 1.0"})).as_deref(),
        Some("bot 1.0")
    );
    assert_eq!(name("Shot", json!({"code": ""})), None);
}

#[test]
fn a_row_is_one_object_with_type_and_id() {
    let fields = json!({"code": "a"}).as_object().expect("an object").clone();
    let row = Row::new(EntityRef::new("Shot", 7), fields.clone());
    assert_eq!(row.json(), r#"{"code":"a","id":7,"type":"Shot"}"#);
    assert_eq!((row.fields(), row.get("code")), (fields, Some(json!("a"))));
    assert_eq!(serde_json::to_value(&row).ok(), serde_json::from_str(row.json()).ok());
}
