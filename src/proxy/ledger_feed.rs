//! From a call that was answered to the ledger: what is counted, why in words that are
//! the same for every row, and which requests are kept for advice.
//!
//! Runs on the thread of the access log, so no caller waits for it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::access_log::Entry;
use super::envelope::Asked;
use super::reason::{Advice, Pass, Reason};
use crate::metrics::READ_METHODS;
use crate::report::ledger::{Answer, Cause, Change, Example, FLUSH_INTERVAL, Read, Recorder};
use crate::state::State;

/// Counts a call.
pub(super) fn count(recorder: &Recorder, entry: &Entry) {
    let pass = entry.pass.as_ref();
    if !READ_METHODS.contains(&entry.method.as_str()) {
        return;
    }
    let cause = pass.map(|pass| cause(pass, entry));
    let answer = match (entry.decision, pass, &cause) {
        ("hit", ..) => Answer::Cache { stale: false },
        ("stale", ..) => Answer::Cache { stale: true },
        ("pass", ..) if entry.status >= 500 => Answer::Failed,
        ("pass", Some(pass), Some(cause)) => Answer::Site { reason: pass.reason.as_str(), cause },
        // Refused to the caller: not a read.
        _ => return,
    };
    let example = match (&answer, &cause) {
        (Answer::Site { .. }, Some(Cause { change: Some(_), .. })) => {
            entry.asked.as_ref().map(|asked| example(asked, &entry.caller))
        }
        _ => None,
    };
    let read = Read {
        at: entry.at,
        method: &entry.method,
        entity_type: entry.entity_type.as_deref(),
        caller: &entry.caller,
        answer,
        milliseconds: entry.milliseconds,
    };
    recorder.read(&read, example.as_ref());
}

/// Writes what was counted to the state, every few seconds and once at the end.
pub(super) async fn keep(recorder: &Recorder, state: &State, stop: &CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(FLUSH_INTERVAL)).await.is_none();
        if let Err(error) = recorder.flush(state).await {
            tracing::warn!(%error, "what the proxy has answered could not be written to the state yet");
        }
        if stopped {
            return;
        }
    }
}

/// Returns the time under which a call is counted, by the clock of this machine: it is
/// shown, and nothing follows from it.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Counts a call for which there was no room in the access log.
pub(super) fn note_uncounted(recorder: &Recorder) {
    recorder.uncounted(now(), 1);
}

fn cause(pass: &Pass, entry: &Entry) -> Cause {
    let change = pass.advice.as_ref().and_then(|advice| change(advice, &entry.caller));
    let remedy = pass.advice.as_ref().map(ToString::to_string);
    Cause { label: label(pass, entry), remedy, change }
}

fn change(advice: &Advice, caller: &str) -> Option<Change> {
    Some(match advice {
        Advice::AddType(ty) => Change::CacheType { entity_type: ty.to_string() },
        Advice::AddField(ty, field) => Change::CacheField { entity_type: ty.to_string(), field: field.clone() },
        Advice::DropFilter(ty) => Change::DropFilters { entity_type: ty.to_string() },
        Advice::ChooseSemantics(semantics) => Change::ChooseSemantics { semantics: semantics.to_string() },
        Advice::MapCaller => Change::MapCaller { caller: caller.to_owned() },
        Advice::Wait => return None,
    })
}

/// The reason in words. Details that name a row, a moment, or a text of the caller are
/// replaced: each of them would be a reason of its own.
fn label(pass: &Pass, entry: &Entry) -> String {
    let ty = entry.entity_type.as_deref().unwrap_or("the type");
    match pass.reason {
        Reason::SignedUrl => format!("a picture or file of {ty} has an address that expires"),
        Reason::Stale => format!("{ty} was older in the cache than `api.max_age`"),
        Reason::PendingWrite => "rows just written were not read again yet".to_owned(),
        Reason::Unverified => format!("the credential of {} was not verified lately", entry.caller),
        Reason::UnknownCaller => format!("{} has no scope in `api.callers`", entry.caller),
        Reason::UnknownField => format!("the site, as last seen, lacks a field of {ty} or the type"),
        Reason::UnknownParameter => "a parameter that sgcache does not know".to_owned(),
        Reason::Malformed => "a request that the site would refuse".to_owned(),
        Reason::PerUser => format!("a field of {ty} differs from user to user"),
        Reason::TooLarge => "more rows per page than the site gives".to_owned(),
        Reason::Store => "the store could not answer".to_owned(),
        _ => pass.detail.clone(),
    }
}

/// Returns a request without the values of its conditions.
fn example(asked: &Asked, caller: &str) -> Example {
    let mut argument = asked.request.argument.clone();
    if let Some(object) = argument.as_object_mut() {
        if let Some(filters) = object.get_mut("filters") {
            without_values(filters);
        }
        // Every page of a query is one request.
        if let Some(page) = object.get_mut("paging").and_then(|paging| paging.get_mut("current_page")) {
            *page = json!(1);
        }
    }
    Example { method: asked.request.method.clone(), caller: caller.to_owned(), argument }
}

fn without_values(filter: &mut Value) {
    let Some(object) = filter.as_object_mut() else { return };
    if let Some(conditions) = object.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.iter_mut().for_each(without_values);
    }
    // These name types, which are no data of a production.
    let names_types = matches!(object.get("relation").and_then(Value::as_str), Some("type_is" | "type_is_not"));
    if let Some(values) = object.get_mut("values").filter(|_| !names_types) {
        *values = stand_in(values);
    }
}

/// Returns a value of the same kind: what the cache supports depends on the kind alone.
fn stand_in(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(_) => json!(1),
        Value::String(text) => json!(text_stand_in(text)),
        Value::Array(items) => {
            let mut distinct: Vec<Value> = Vec::new();
            for item in items.iter().map(stand_in) {
                if !distinct.contains(&item) {
                    distinct.push(item);
                }
            }
            Value::Array(distinct)
        }
        Value::Object(object) => {
            let id = object.get("id").map(stand_in);
            let kept = [("type", object.get("type").cloned()), ("id", id)];
            Value::Object(
                kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>(),
            )
        }
    }
}

fn text_stand_in(text: &str) -> &str {
    let is_date = text.len() >= 10 && text.bytes().take(10).all(|byte| byte.is_ascii_digit() || byte == b'-');
    match text {
        "HOUR" | "DAY" | "WEEK" | "MONTH" | "YEAR" => text,
        _ if is_date && text.contains('T') => "2000-01-01T00:00:00Z",
        _ if is_date => "2000-01-01",
        _ => "x",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_keeps_the_form_of_a_request_and_no_value() {
        let body = json!({"method_name": "read", "params": [{"script_name": "farm", "script_key": "k3y"}, {
            "type": "Shot", "return_fields": ["code", "sg_x"], "paging": {"entities_per_page": 500, "current_page": 7},
            "filters": {"logical_operator": "and", "conditions": [
                {"path": "code", "relation": "in", "values": ["secret one", "secret two"]},
                {"path": "project", "relation": "is", "values": [{"type": "Project", "id": 70, "name": "Hush"}]},
                {"path": "created_at", "relation": "greater_than", "values": ["2026-03-01T10:00:00Z"]},
                {"path": "due", "relation": "in_last", "values": [2, "WEEK"]},
                {"path": "entity", "relation": "type_is", "values": ["Asset"]}]}}]});
        let asked = Asked::parse(body.to_string().as_bytes()).expect("a request");
        let example = example(&asked, "script farm");
        let conditions = example.argument["filters"]["conditions"].as_array().expect("conditions");
        let values: Vec<&Value> = conditions.iter().map(|condition| &condition["values"]).collect();
        let expected = [
            json!(["x"]),
            json!([{"type": "Project", "id": 1}]),
            json!(["2000-01-01T00:00:00Z"]),
            json!([1, "WEEK"]),
            json!(["Asset"]),
        ];
        assert_eq!(values, expected.iter().collect::<Vec<_>>());
        assert_eq!(example.argument["paging"], json!({"entities_per_page": 500, "current_page": 1}));
        let text = serde_json::to_string(&example).expect("JSON");
        assert!(!text.contains("secret") && !text.contains("Hush") && !text.contains("k3y"), "{text}");
    }
}
