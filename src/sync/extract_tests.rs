//! Tests of what an event log entry marks, whatever its shape.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::entity::DataType;
use crate::entity_config::{LayoutField, TypeLayout};
use crate::filter::{FieldPath, Filter, Hop, Leaf, RawFilter, Test};
use crate::state::{Announcement, ExpectedField, ExpectedLink};

fn layout(name: &str, fields: &[(&str, DataType, &[&str])], filter: Filter) -> TypeLayout {
    let field = |(name, data_type, targets): &(&str, DataType, &[&str])| LayoutField {
        name: (*name).to_owned(),
        data_type: *data_type,
        valid_types: targets.iter().map(EntityType::new).collect(),
        mapping: None,
    };
    let fields = fields.iter().map(field).collect();
    let raw_filter = RawFilter::everything();
    TypeLayout { entity_type: EntityType::new(name), fields, filter, raw_filter, hash: String::new() }
}

/// Shot, Task and Sequence; of the Tasks only those under a Sequence with a code.
fn tracked() -> Tracked {
    let hop = |field: &str, name: &str| Hop { field: field.into(), multi: false, entity_type: EntityType::new(name) };
    let path = FieldPath {
        hops: vec![hop("entity", "Shot"), hop("sg_sequence", "Sequence")],
        field: "code".into(),
        data_type: DataType::Text,
    };
    let filter = Filter::Leaf(Leaf { path, negated: true, test: Test::Empty });
    Tracked::new([
        layout(
            "Shot",
            &[
                ("code", DataType::Text, &[]),
                ("created_by", DataType::Entity, &["HumanUser"]),
                ("sg_sequence", DataType::Entity, &["Sequence"]),
                ("tasks", DataType::MultiEntity, &["Task"]),
            ],
            Filter::everything(),
        ),
        layout("Sequence", &[("shots", DataType::MultiEntity, &["Shot"])], Filter::everything()),
        layout("Task", &[("entity", DataType::Entity, &["Shot"])], filter),
    ])
}

/// Writes down what is announced about a field; of the other side in brackets.
fn announced(name: &str, field: &ExpectedField) -> String {
    let words = match &field.announced {
        Announcement::Value { value, .. } => format!("{name}={value}"),
        Announcement::Links(links) => {
            let one = |link: &ExpectedLink| format!("{name}{}{}", if link.present { "+" } else { "-" }, link.target);
            links.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        Announcement::Active(active) => format!("active={active}"),
        Announcement::Change => format!("{name} changed"),
        Announcement::Edit => format!("{name} edited"),
        Announcement::NoLinkTo(target) => format!("no link to {target}"),
    };
    if field.own { format!(" {words}") } else { format!(" [{words}]") }
}

/// Reads an entry and writes down what it asks for.
fn check(mut entry: Value, expected: &str) {
    if let Some(fields) = entry.as_object_mut() {
        fields.insert("created_at".to_owned(), json!("2024-03-13T15:30:00Z"));
    }
    let found = extract(entry.as_object().expect("an object"), &tracked());
    let mut words: Vec<String> = Vec::new();
    for mark in &found.marks {
        let kinds: Vec<_> = mark.kinds.names().collect();
        let wait = if mark.delay.is_zero() { String::new() } else { format!(" +{}s", mark.delay.as_secs()) };
        let seen: Vec<_> = mark.expected.fields.iter().map(|(name, field)| announced(name, field)).collect();
        let again = mark.expected.read_again_after.map(|after| format!(" again +{after}s")).unwrap_or_default();
        let affects: Vec<_> = mark.affects.iter().map(|ty| format!(" affects {ty}")).collect();
        words.push(format!("{} {}{wait}{}{again}{}", mark.key, kinds.join("|"), seen.concat(), affects.concat()));
    }
    words.extend(found.sweeps.iter().map(|(entity_type, _)| format!("sweep {entity_type}")));
    words.extend(found.schema_due.then(|| "schema".to_owned()));
    words.extend(found.dead.map(|dead| format!("dead {}", dead.key)));
    words.extend(found.skipped.map(|reason| format!("skip {reason}")));
    assert_eq!(words.join("; "), expected);
}

#[test]
fn a_change_marks_its_entity_with_the_value_it_announced() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Change", "attribute_name": "code",
            "entity": {"type": "Shot", "id": 3, "name": "x"},
            "meta": {"type": "attribute_change", "entity_type": "Shot", "entity_id": 3, "new_value": "b"}}),
        r#"Shot:3 change code="b""#,
    );
}

#[test]
fn a_retired_entity_is_found_through_the_metadata() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Change", "attribute_name": "code", "entity": null,
            "meta": {"entity_type": "Shot", "entity_id": 3, "new_value": "b"}}),
        r#"Shot:3 change code="b""#,
    );
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Retirement", "entity": null,
            "meta": {"class_name": "Shot", "id": 3, "display_name": "x"}}),
        "Shot:3 retire active=false affects Sequence affects Task; sweep Task",
    );
}

#[test]
fn the_other_side_of_a_link_marks_both_sides() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Change", "attribute_name": "tasks",
            "entity": {"type": "Shot", "id": 3},
            "meta": {"actual_attribute_changed": "Task.entity", "original_event_log_entry_id": 8,
                "entity_type": "Task", "entity_id": 5, "attribute_name": "tasks", "new_value": {"type": "Shot", "id": 4}}}),
        "Shot:3 change|inverse; Task:5 change|inverse; Shot:4 inverse",
    );
}

#[test]
fn added_and_removed_links_are_marked_where_they_show_it() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Sequence_Change", "attribute_name": "shots",
            "entity": {"type": "Sequence", "id": 1}, "meta": {"entity_type": "Sequence", "entity_id": 1,
                "added": [{"type": "Shot", "id": 3}], "removed": [{"type": "Shot", "id": 4}, {"type": "Tag", "id": 7}]}}),
        "Sequence:1 change shots+Shot:3 shots-Shot:4 shots-Tag:7; Shot:3 inverse; Shot:4 inverse",
    );
}

#[test]
fn a_cascade_that_shows_as_a_retirement_date_marks_its_entity() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Task_Change", "attribute_name": "retirement_date", "entity": null,
            "meta": {"type": "attribute_change", "entity_type": "Task", "entity_id": 5, "new_value": null}}),
        "Task:5 change active=true affects Shot",
    );
}

#[test]
fn a_change_on_the_way_of_an_entity_filter_compares_the_filtered_type() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Change", "attribute_name": "sg_sequence",
            "entity": {"type": "Shot", "id": 3}, "meta": {"entity_type": "Shot", "entity_id": 3}}),
        "Shot:3 change sg_sequence changed; sweep Task",
    );
    check(
        json!({"id": 9, "event_type": "Shotgun_Sequence_Revival", "entity": {"type": "Sequence", "id": 1}, "meta": {}}),
        "Sequence:1 revive active=true again +5s affects Shot; sweep Task",
    );
}

#[test]
fn a_rename_of_a_type_that_is_only_linked_to_marks_its_name() {
    let entry = |attribute: &str| {
        json!({"id": 9, "event_type": "Shotgun_HumanUser_Change", "attribute_name": attribute,
            "entity": {"type": "HumanUser", "id": 2}, "meta": {"entity_type": "HumanUser", "entity_id": 2}})
    };
    check(entry("name"), "HumanUser:2 change");
    check(entry("email"), "skip not_cached_type");
}

#[test]
fn a_transient_thumbnail_is_looked_at_again() {
    check(
        json!({"id": 9, "event_type": "Shotgun_Shot_Change", "attribute_name": "image",
            "entity": {"type": "Shot", "id": 3},
            "meta": {"entity_type": "Shot", "entity_id": 3, "new_value": 77, "is_transient": true}}),
        "Shot:3 change again +45s",
    );
}

#[test]
fn a_column_event_asks_for_the_schema() {
    check(
        json!({"id": 9, "event_type": "Shotgun_DisplayColumn_Change", "attribute_name": "data_type",
            "entity": {"type": "DisplayColumn", "id": 2836},
            "meta": {"entity_type": "DisplayColumn", "entity_id": 2836}}),
        "schema",
    );
}

#[test]
fn odd_entries_are_ignored_with_a_reason_or_kept_as_dead_letters() {
    check(json!({"id": 9, "event_type": "Toolkit_App_Startup", "entity": null, "meta": null}), "skip no_entity");
    check(json!({"id": 9, "event_type": "Shotgun_Preferences_Change", "meta": {"pref": "x"}}), "skip no_entity");
    check(json!({"id": 9, "event_type": "Shotgun_A_B_C_D_New", "meta": null}), "dead EventLogEntry:9");
    check(json!({"id": 9, "event_type": "Shotgun_Shot_Change", "meta": "text", "entity": "x"}), "dead EventLogEntry:9");
    check(json!({"id": 9, "event_type": 7}), "skip no_entity");
    check(json!({}), "skip no_entity");
}

#[test]
fn more_links_than_a_hand_can_hold_become_a_comparison() {
    let added: Vec<_> = (1..=60).map(|id| json!({"type": "Shot", "id": id})).collect();
    check(
        json!({"id": 9, "event_type": "Shotgun_Sequence_Change", "entity": {"type": "Sequence", "id": 1},
            "meta": {"entity_type": "Sequence", "entity_id": 1, "added": added}}),
        "Sequence:1 change; sweep Shot",
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(Shot|Task|type|Shotgun_.{0,9}|New)".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let key = "(type|id|entity|meta|entity_id|entity_type|added|new_value|event_type|attribute_name)";
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_entry_makes_it_fail_and_none_is_dropped_in_silence(entry in any_json()) {
        if let Value::Object(entry) = entry {
            let found = extract(&entry, &tracked());
            let told = found.schema_due || found.dead.is_some() || found.skipped.is_some();
            prop_assert!(told || !found.marks.is_empty() || !found.sweeps.is_empty());
        }
    }
}
