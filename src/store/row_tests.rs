//! Tests of rows on their way in and out.

use proptest::prelude::*;
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

/// Returns what becomes of a row whose `code`, and whose `sg_data`, a value of any
/// shape, are these texts.
fn fetch_text(code: &str, data: &str) -> Result<FetchedRow, RowError> {
    let mut layout = layout();
    let field =
        |name: &str, data_type| LayoutField { name: name.into(), data_type, valid_types: vec![], mapping: None };
    layout.fields = [field("code", DataType::Text), field("sg_data", DataType::Serializable)].into();
    let text = format!(r#"{{"type":"Shot","id":7,"code":{code},"sg_data":{data}}}"#);
    let (key, rv) = (EntityRef::new("Shot", 7), ReadVersion::new(2, 5));
    FetchedRow::from_text(&layout, key, rv, RowState::Active, &text, Timestamp(0), None)
}

#[test]
fn what_not_every_reader_could_read_is_refused_with_the_field() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let refused = [
        (r#""a\ud83d""#, "null"),
        ("null", r#"{"x":"\udc00"}"#),
        ("null", "1e999"),
        ("null", "[123456789012345678901234567890]"),
        ("null", deep(65).as_str()),
    ]
    .map(|(code, data)| (code.to_owned(), data.to_owned()));
    for (code, data) in refused {
        let error = fetch_text(&code, &data).expect_err("it is refused");
        assert!(matches!(error, RowError::Unreadable { .. }), "{code} {data}: {error}");
        let field = if data == "null" { "`code`" } else { "`sg_data`" };
        assert!(error.to_string().contains(field), "{error}");
    }
    let kept = [
        (r#""\ud83d\ude00 \u0000 \n""#, "null"),
        ("null", r#"{"x":1,"x":2}"#),
        ("null", "[18446744073709551615,-9223372036854775808,9007199254740993,0.1e-7]"),
        ("null", "{\"a\":\n [1,\r\n 2]}"),
    ];
    for (code, data) in kept {
        let row = fetch_text(code, data).expect("it is kept");
        let whole: Value = serde_json::from_str(row.text()).expect("JSON");
        assert_eq!(Value::Object(row.doc().clone()), whole, "{code} {data}");
    }
    assert!(fetch_text("null", &deep(64)).is_ok());
}

proptest! {
    /// Whatever is taken in is the same to whoever reads the text, the tree, or the
    /// single value.
    #[test]
    fn what_is_taken_in_is_read_alike_by_everybody(code in value_text(), data in value_text()) {
        if let Ok(row) = fetch_text(&code, &data) {
            let whole: Value = serde_json::from_str(row.text()).expect("JSON");
            prop_assert_eq!(&Value::Object(row.doc().clone()), &whole);
            let answered = Row::from_text(row.key().clone(), row.text());
            prop_assert_eq!(&Value::Object(answered.fields()), &whole);
            let data: Value = serde_json::from_str(&data).expect("JSON");
            prop_assert_eq!(&whole["sg_data"], &data);
        }
    }
}

/// Texts that are JSON values, or nearly.
fn value_text() -> impl Strategy<Value = String> {
    let string = r#"("[a-z]{0,3}(\\\\u(d83d|dc00|0000|00e9)|\\\\n|\\\\\\\\)?[a-z]?")"#;
    let leaf = prop_oneof![
        Just("null".to_owned()),
        string.prop_map(|text: String| text.replace("\\\\", "\\")),
        "-?[0-9]{1,25}(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,4})?".prop_map(String::from),
    ];
    leaf.prop_recursive(4, 30, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(("[ab]", inner), 0..4).prop_map(|items| {
                let items: Vec<_> = items.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", items.join(", "))
            }),
        ]
    })
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
