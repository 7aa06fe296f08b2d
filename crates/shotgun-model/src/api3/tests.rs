//! Tests of the wire form against requests captured from the official client.

use super::*;

/// `find("Shot", [...], order=[...], page=2, limit=25)` of shotgun_api3 3.10.3.
fn captured() -> Value {
    json!({"method_name": "read", "params": [
        {"script_name": "bot", "script_key": "secret-key"},
        {"type": "Shot", "return_fields": ["code", "project"],
         "filters": {"logical_operator": "and", "conditions": [
            {"path": "code", "relation": "in", "values": ["a", "b"]},
            {"logical_operator": "or", "conditions": [{"path": "id", "relation": "in", "values": [1, 2]}]}]},
         "return_only": "retired", "paging": {"entities_per_page": 25, "current_page": 2},
         "include_archived_projects": false,
         "sorts": [{"field_name": "code", "direction": "desc"}, {"field_name": "id", "direction": "asc"}],
         "api_return_image_urls": true, "return_paging_info_without_counts": false}]})
}

#[test]
fn a_captured_read_survives_both_ways() {
    let wire = captured();
    let request = Request::parse(wire.to_string().as_bytes()).expect("a request");
    assert_eq!(request.to_wire(), wire);
    let read = Read::from_wire(&request.argument).expect("a read");
    assert_eq!(read.to_wire(), request.argument);
}

#[test]
fn credentials_are_never_printed() {
    let request = Request::parse(captured().to_string().as_bytes()).expect("a request");
    let printed = format!("{request:?}");
    assert!(printed.contains("bot") && printed.contains("***"), "{printed}");
    assert!(!printed.contains("secret-key"), "{printed}");
}

#[test]
fn a_page_that_is_no_integer_is_refused_in_the_words_of_a_site() {
    let mut wire = captured();
    wire["params"][1]["paging"] = json!({"current_page": "foo", "entities_per_page": 1});
    let fault = Read::from_wire(&wire["params"][1]).expect_err("the page is a text");
    assert_eq!(fault.code, 103);
    assert_eq!(
        fault.message,
        "API read() invalid/missing integer 'paging' 'current_page':\n{\"current_page\"=>\"foo\", \"entities_per_page\"=>1}"
    );
}

#[test]
fn answers_are_results_faults_or_bare_objects() {
    assert_eq!(results(json!({"results": null})), Ok(Value::Null));
    assert_eq!(results(json!({"version": [8, 0, 0]})), Ok(json!({"version": [8, 0, 0]})));
    let fault = Fault::new(102, "Can't authenticate script 'bot'");
    assert_eq!(results(fault.to_wire()), Err(fault));
    assert!(ReadAnswer::from_wire(json!({"entities": null})).is_err());
}

#[test]
fn a_summarize_survives_both_ways() {
    let wire = json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []},
        "summaries": [{"field": "id", "type": "count"}],
        "grouping": [{"field": "id", "type": "thousands", "direction": "asc"}]});
    assert_eq!(Summarize::from_wire(&wire).map(|s| s.to_wire()), Ok(wire.clone()));
    assert_eq!(Summarize::count_by_thousands("Shot", crate::filter::RawFilter::everything()).to_wire(), wire);
}
