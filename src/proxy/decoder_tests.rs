//! The decoder of requests meets what nobody sends on purpose. `fuzz/` does the same
//! for hours.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{catalogue, find, json_value};
use super::*;

/// Decides on a body, and on what it may change.
fn swallow(body: &[u8], catalogue: &Catalogue) {
    if let Ok(asked) = Asked::parse(body) {
        decide(&asked, &Scope::Full, catalogue);
        let limits = Limits { projects: Some([1].into()), ..Limits::default() };
        decide(&asked, &Scope::Limited(limits), catalogue);
        write_effects::WriteEffects::of_request(&asked.request.method, &asked.request.argument, catalogue);
    }
}

fn body(method: &str, argument: Value) -> Value {
    json!({"method_name": method, "params": [{"script_name": "s", "script_key": "k"}, argument]})
}

/// Requests as the client sends them.
fn usual() -> Vec<Value> {
    let filters = json!([["code", "contains", "a"], ["sg_sequence.Sequence.code", "in", ["x", "y"]],
        ["project", "is", {"type": "Project", "id": 1}], ["created_at", "in_last", 3, "DAY"]]);
    let summarize = json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []},
        "summaries": [{"field": "id", "type": "count"}], "grouping": [{"field": "code", "type": "exact", "direction": "asc"}]});
    let batch = json!([{"request_type": "create", "type": "Shot", "fields": [{"field_name": "code", "value": "x"}]},
        {"request_type": "delete", "type": "Shot", "id": 3}]);
    vec![
        body("read", find("Shot", filters, json!(["code", "assets", "sg_sequence.Sequence.code"]))),
        body("summarize", summarize),
        body("batch", batch),
        body("schema_field_read", json!({"type": "Shot", "field_name": "code"})),
        body("info", Value::Null),
    ]
}

/// Every place in a value, by its pointer.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, inner)| places(inner, format!("{at}/{key}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, inner)| places(inner, format!("{at}/{n}"), found)),
        _ => {}
    }
    found.push(at);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_never_more_than_a_request_or_none(bytes in vec(any::<u8>(), 0..300)) {
        swallow(&bytes, &catalogue());
    }

    #[test]
    fn a_request_with_something_else_in_one_place_is_decided_on(
        which in 0..5_usize, place in any::<prop::sample::Index>(), other in json_value(),
    ) {
        let mut request = usual().swap_remove(which);
        let mut found = Vec::new();
        places(&request, String::new(), &mut found);
        *request.pointer_mut(&found[place.index(found.len())]).expect("a place") = other;
        swallow(request.to_string().as_bytes(), &catalogue());
    }

    #[test]
    fn a_request_with_damaged_bytes_is_decided_on(
        which in 0..5_usize, damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = usual().swap_remove(which).to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let end = end.index(bytes.len());
        let catalogue = catalogue();
        swallow(&bytes, &catalogue);
        swallow(&bytes[..end], &catalogue);
    }
}
