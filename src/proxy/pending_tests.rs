//! Tests of pending writes: which reads depend on which writes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::pending_writes::Dependency;
use super::tests::{asked, catalogue, find};
use super::write_effects::{Fields, Ids, WriteEffects};
use super::*;
use crate::entity::EntityType;

/// What a read does while the write is pending: `serve`, `unless` it shows an entity
/// that was written, or `pending_write`.
fn outcome(method: &str, write: Value, read: Value) -> String {
    let known = catalogue();
    let results = json!([{"type": "Shot", "id": 9}, {"type": "Sequence", "id": 9}]);
    let mut effects = WriteEffects::of_request(method, &write, &known).with_results(Some(&results));
    if let Some(revived) = effects.revived.take() {
        effects.revive_unlisted(&revived, &known);
    }
    let write = PendingWrite::new(effects.effects, effects.everything);
    let pending_writes = PendingWrites::new([Arc::new(write)]);
    let catalogue = Catalogue { pending_writes, ..known };
    match decide(&asked("read", read), &Scope::Full, &catalogue) {
        Decision::Serve(serve) => match *serve {
            Serve::Read(plan) if plan.writes.unless_any.is_some() => "unless".into(),
            _ => "serve".into(),
        },
        Decision::Pass(pass) => pass.reason.to_string(),
    }
}

fn update(ty: &str, id: i64, field: &str, value: Value) -> Value {
    json!({"type": ty, "id": id, "fields": [{"field_name": field, "value": value}]})
}

fn delete(ty: &str, id: i64) -> Value {
    json!({"type": ty, "id": id})
}

#[test]
fn a_read_depends_only_on_fields_that_an_update_may_have_changed() {
    let status = || update("Shot", 1, "sg_status_list", json!("ip"));
    let cases = [
        (json!([["id", "is", 2]]), json!(["sg_status_list"]), "serve"),
        (json!([["id", "in", [2, 3]]]), json!([]), "serve"),
        (json!([["id", "is", 1]]), json!(["code", "assets"]), "serve"),
        (json!([["id", "is", 1]]), json!(["sg_status_list"]), "unless"),
        (json!([]), json!(["code"]), "serve"),
        (json!([["code", "is", "a"]]), json!(["sg_status_list"]), "unless"),
        (json!([["sg_status_list", "is", "ip"]]), json!([]), "pending_write"),
        (json!([["sg_status_list", "is", "ip"], ["id", "is", 2]]), json!([]), "serve"),
    ];
    for (filters, fields, expected) in cases {
        let found = outcome("update", status(), find("Shot", filters.clone(), fields.clone()));
        assert_eq!(found, expected, "{filters} {fields}");
    }
    // Measures follow from each other.
    let cut = update("Shot", 1, "cut_in", json!(4));
    assert_eq!(outcome("update", cut, find("Shot", json!([["cut_in", "is", 4]]), json!([]))), "pending_write");
}

#[test]
fn a_name_and_a_link_are_seen_from_the_other_side() {
    let rename = || update("Sequence", 1, "code", json!("x"));
    let recolour = || update("Sequence", 1, "done", json!(true));
    let shots = |filters: Value, fields: Value| find("Shot", filters, fields);
    assert_eq!(outcome("update", rename(), shots(json!([]), json!(["sg_sequence"]))), "unless");
    assert_eq!(outcome("update", rename(), shots(json!([]), json!(["assets"]))), "serve");
    let by_id = json!([["sg_sequence", "is", {"type": "Sequence", "id": 1}]]);
    assert_eq!(outcome("update", rename(), shots(by_id, json!(["code"]))), "serve");
    let by_name = json!([["sg_sequence.Sequence.code", "is", "x"]]);
    assert_eq!(outcome("update", rename(), shots(by_name, json!([]))), "pending_write");
    assert_eq!(outcome("update", recolour(), shots(json!([]), json!(["sg_sequence"]))), "serve");
    assert_eq!(outcome("update", recolour(), shots(json!([]), json!(["sg_sequence.Sequence.done"]))), "unless");
    // A link that nothing cached shows from the other side.
    let relink = update("Shot", 1, "sg_sequence", json!({"type": "Sequence", "id": 2}));
    assert_eq!(outcome("update", relink, find("Sequence", json!([]), json!(["code"]))), "serve");
}

#[test]
fn what_appears_or_vanishes_is_in_no_list_until_it_is_read() {
    let create = || json!({"type": "Shot", "fields": [{"field_name": "code", "value": "a"}], "return_fields": ["id"]});
    assert_eq!(outcome("create", create(), find("Shot", json!([]), json!(["code"]))), "pending_write");
    assert_eq!(outcome("create", create(), find("Shot", json!([["id", "is", 2]]), json!(["code"]))), "serve");
    assert_eq!(outcome("create", create(), find("Shot", json!([["id", "is", 9]]), json!(["code"]))), "pending_write");
    assert_eq!(outcome("create", create(), find("Sequence", json!([]), json!(["code"]))), "serve");
    assert_eq!(outcome("delete", delete("Shot", 1), find("Shot", json!([]), json!(["code"]))), "unless");
    assert_eq!(outcome("delete", delete("Shot", 1), find("Shot", json!([["id", "is", 2]]), json!([]))), "serve");
    let linked = |filters: Value, fields: Value| find("Shot", filters, fields);
    assert_eq!(outcome("delete", delete("Sequence", 1), linked(json!([]), json!(["sg_sequence"]))), "unless");
    assert_eq!(outcome("delete", delete("Sequence", 1), linked(json!([]), json!(["code"]))), "serve");
    let empty = json!([["sg_sequence", "is", null]]);
    assert_eq!(outcome("delete", delete("Sequence", 1), linked(empty, json!([]))), "pending_write");
    let other = json!([["sg_sequence", "is", {"type": "Sequence", "id": 2}]]);
    // The rows of the answer are looked at: none of them links to the retired entity.
    assert_eq!(outcome("delete", delete("Sequence", 1), linked(other, json!([]))), "unless");
    // Rows that were read meanwhile lack the link to what is revived.
    assert_eq!(outcome("revive", delete("Sequence", 1), linked(json!([]), json!(["sg_sequence"]))), "pending_write");
    assert_eq!(outcome("revive", delete("Sequence", 1), linked(json!([]), json!(["code"]))), "serve");
    assert_eq!(outcome("work_schedule_update", json!({}), find("Asset", json!([]), json!([]))), "pending_write");
}

#[test]
fn a_write_that_is_visible_holds_nothing_back() {
    let write = Arc::new(PendingWrite::new(Vec::new(), true));
    let pending_writes = PendingWrites::new([Arc::clone(&write)]);
    let catalogue = Catalogue { pending_writes: pending_writes.clone(), ..catalogue() };
    let read = asked("read", find("Shot", json!([]), json!([])));
    assert!(matches!(decide(&read, &Scope::Full, &catalogue), Decision::Pass(_)));
    let down = Catalogue { site_is_down: true, ..catalogue.clone() };
    let Decision::Serve(serve) = decide(&read, &Scope::Full, &down) else { panic!("nothing becomes unreadable") };
    assert!(matches!(*serve, Serve::Read(plan) if plan.writes.is_unconfirmed));
    write.end();
    assert!(matches!(decide(&read, &Scope::Full, &catalogue), Decision::Serve(_)));
    let Decision::Serve(serve) = decide(&read, &Scope::Full, &down) else { panic!("an older answer") };
    assert!(matches!(*serve, Serve::Read(plan) if !plan.writes.is_unconfirmed));
    assert_eq!(pending_writes.without_visible().dependency(&question(), &catalogue), Dependency::None);
}

fn question() -> Question {
    let Decision::Serve(serve) = decide(&asked("read", find("Shot", json!([]), json!([]))), &Scope::Full, &catalogue())
    else {
        panic!("it is served")
    };
    let Serve::Read(plan) = *serve else { panic!("a read") };
    Question::clone(&plan.question)
}

#[test]
fn a_list_that_excludes_what_was_written_depends_only_on_what_it_showed() {
    let sequence = |id: i64| json!({"type": "Sequence", "id": id});
    let of = |id: i64| find("Shot", json!([["sg_sequence", "is", sequence(id)]]), json!(["code"]));
    let moved = || update("Shot", 1, "sg_sequence", sequence(2));
    assert_eq!(outcome("update", moved(), of(2)), "pending_write");
    assert_eq!(outcome("update", moved(), of(3)), "unless", "it may have been there before");
    let other = json!([["sg_sequence", "is", sequence(3)], ["id", "is", 5]]);
    assert_eq!(outcome("update", moved(), find("Shot", other, json!([]))), "serve");
    let not = json!([["sg_sequence", "is_not", sequence(3)]]);
    assert_eq!(outcome("update", moved(), find("Shot", not, json!([]))), "pending_write");
    let behind = json!([["sg_sequence.Sequence.code", "is", "x"]]);
    assert_eq!(outcome("update", moved(), find("Shot", behind, json!([]))), "pending_write");
    let removed = || update("Shot", 1, "sg_sequence", Value::Null);
    assert_eq!(outcome("update", removed(), of(3)), "unless");
    let without = json!([["sg_sequence", "is", null]]);
    assert_eq!(outcome("update", removed(), find("Shot", without, json!([]))), "pending_write");

    let with_status = |status: &str| find("Shot", json!([["sg_status_list", "is", status]]), json!(["code"]));
    let approved = || update("Shot", 1, "sg_status_list", json!("Apr"));
    assert_eq!(outcome("update", approved(), with_status("apr")), "pending_write", "case does not count");
    assert_eq!(outcome("update", approved(), with_status("ip")), "unless");

    let create = || {
        let fields = [("code", json!("a")), ("sg_sequence", sequence(2))];
        let fields: Vec<_> =
            fields.into_iter().map(|(field, value)| json!({"field_name": field, "value": value})).collect();
        json!({"type": "Shot", "fields": fields, "return_fields": ["id"]})
    };
    assert_eq!(outcome("create", create(), of(2)), "pending_write");
    assert_eq!(outcome("create", create(), of(3)), "serve", "it was nowhere before");
    // A text may be stored in another form than it was sent in.
    let named = json!([["code", "is", "b"]]);
    assert_eq!(outcome("create", create(), find("Shot", named, json!([]))), "pending_write");
}

#[test]
fn a_pending_write_names_the_rows_that_show_a_link_soon() {
    let list = update("Shot", 7, "assets", json!([{"type": "Asset", "id": 1}]));
    let changed = |method: &str, write: Value, field: &str| {
        let effects = WriteEffects::of_request(method, &write, &catalogue());
        let write = PendingWrite::new(effects.effects, effects.everything);
        let fields = Fields::Only([field.to_owned()].into());
        PendingWrites::new([Arc::new(write)]).changed(&EntityType::new("Shot"), &fields)
    };
    assert_eq!(changed("update", list.clone(), "assets"), [Ids::Only([7].into())]);
    assert_eq!(changed("update", list, "code"), []);
    assert_eq!(changed("invented", json!({}), "assets"), [Ids::All]);
}

#[test]
fn what_a_write_remembers_is_counted_and_can_be_forgotten() {
    let known = catalogue();
    let size = |method: &str, argument: &Value, results: &Value| {
        WriteEffects::of_request(method, argument, &known).with_results(Some(results)).bytes()
    };
    let text = "a".repeat(100_000);
    let shot = json!({"type": "Shot", "id": 1, "code": text});
    assert!(size("update", &update("Shot", 1, "code", json!(text)), &shot) > 100_000, "what the site answered");
    let assets: Vec<_> = (1..=1_000).map(|id| json!({"type": "Asset", "id": id})).collect();
    let links = update("Shot", 1, "assets", json!(assets));
    assert!(size("update", &links, &json!({"type": "Shot", "id": 1})) > 16_000, "the links that were written");
    let item = |id| {
        let mut item = update("Shot", id, "code", json!("b"));
        item["request_type"] = json!("update");
        item
    };
    let items: Vec<_> = (1..=1_000).map(item).collect();
    assert!(size("batch", &json!(items), &json!([])) > 64_000, "the keys of a batch");

    let mut effects = WriteEffects::of_request("update", &links, &known);
    effects.forget_details();
    assert_eq!((effects.bytes(), effects.everything, effects.unlisted), (0, true, true));
}
