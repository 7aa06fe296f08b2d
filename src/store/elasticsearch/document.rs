//! Rows as documents and back.
//!
//! A document is the row as the site answered it, plus `id`, plus `_ref` in every
//! link, plus `_sg`. Three spellings are changed on the way in, because the server
//! would not compare them as we do: an empty text is null, a moment is written in
//! UTC, a link keeps only `type`, `id` and `name`.
//!
//! A link to a retired entity is moved out of its field into `_sg.retired_links`:
//! it then counts as no link in every search, and comes back with a revival.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::{CachedType, FetchedRow, RowState};
use super::mapping::LONGEST_INDEXED;
use crate::entity::{DataType, EntityRef, FieldValue, Link, Shape, Timestamp};

/// A document as it lies in `_source`.
pub(super) type Document = Map<String, Value>;

/// Returns the document of a row as JSON text; `values` are those of the cached fields in their order.
pub(super) fn of_row(row: &FetchedRow, cached: &CachedType, values: &[Cow<'_, FieldValue>]) -> String {
    // What is not changed on the way in stays as the site wrote it.
    let written: BTreeMap<&str, &RawValue> = match row.text() {
        "" => BTreeMap::new(),
        text => serde_json::from_str(text).expect("every value was read when the row was made"),
    };
    let (mut unindexed, mut has) = (Vec::new(), Vec::new());
    let mut text = String::with_capacity(row.text().len() + 512);
    text.push('{');
    for ((name, data_type), value) in cached.fields.iter().zip(values) {
        let raw = written.get(name.as_str()).map_or("null", |raw| raw.get());
        if matches!(&**value, FieldValue::Text(long) if is_too_long(*data_type, long)) {
            unindexed.push(name.as_str());
        }
        if data_type.shape() == Shape::Presence && raw != "null" {
            has.push(name.as_str());
        }
        // Names of fields are words; the site has no others.
        text.extend(["\"", name, "\":"]);
        push_value(&mut text, *data_type, value, raw);
        text.push(',');
    }
    let bookkeeping = json!({
        "rv": row.rv().0,
        "state": row.state().as_str(),
        "hash": row.hash().to_string(),
        "hash32": row.hash().short(),
        "fetched_at": row.fetched_at().to_string(),
        "last_event": row.last_event(),
        "unindexed": unindexed,
        "has": has,
    });
    text.push_str(&format!("\"id\":{},\"_sg\":{bookkeeping}}}", row.key().id));
    text
}

fn push_value(text: &mut String, data_type: DataType, value: &FieldValue, raw: &str) {
    match (data_type.shape(), value) {
        (_, FieldValue::Link(link)) => push_link(text, link),
        (_, FieldValue::Links(links)) => {
            text.push('[');
            for (at, link) in links.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                push_link(text, link);
            }
            text.push(']');
        }
        (_, FieldValue::DateTime(moment)) => text.push_str(&format!("\"{moment}\"")),
        (Shape::Bool, FieldValue::Null) => text.push_str("false"),
        (Shape::Text | Shape::ExactText, FieldValue::Null) => text.push_str("null"),
        // A document is one line of a request, however the site wrote it.
        _ if raw.contains(['\n', '\r']) => {
            let value: Value = serde_json::from_str(raw).expect("every value was read when the row was made");
            text.push_str(&value.to_string());
        }
        _ => text.push_str(raw),
    }
}

fn push_link(text: &mut String, link: &Link) {
    let (name, entity_type) = (Value::from(link.name.as_deref()), link.target.entity_type.as_str());
    let (target, id) = (&link.target, link.target.id);
    text.push_str(&format!("{{\"type\":\"{entity_type}\",\"id\":{id},\"name\":{name},\"_ref\":\"{target}\"}}"));
}

/// Returns a value in the form that the index compares.
pub(super) fn written(data_type: DataType, value: &Value) -> Value {
    match (data_type.shape(), value) {
        (Shape::Text | Shape::ExactText, Value::String(text)) if text.is_empty() => Value::Null,
        (Shape::DateTime, Value::String(text)) => {
            Timestamp::parse(text).map_or_else(|| value.clone(), |moment| moment.to_string().into())
        }
        (Shape::Bool, Value::Null) => Value::Bool(false),
        (Shape::Link, Value::Object(_)) => written_link(value),
        (Shape::Links, Value::Array(links)) => links.iter().map(written_link).collect(),
        _ => value.clone(),
    }
}

fn written_link(link: &Value) -> Value {
    let Some(target) = EntityRef::from_json(link) else { return Value::Null };
    let name = link.get("name").cloned().unwrap_or(Value::Null);
    json!({"type": target.entity_type.as_str(), "id": target.id, "name": name, "_ref": target.to_string()})
}

/// Lucene counts in UTF-16, so do we.
fn is_too_long(data_type: DataType, text: &str) -> bool {
    let is_text = matches!(data_type.shape(), Shape::Text | Shape::ExactText);
    is_text && text.len() > LONGEST_INDEXED && text.encode_utf16().count() > LONGEST_INDEXED
}

/// Returns a value as `read` answers it.
pub(super) fn read_value(data_type: DataType, value: &Value) -> Value {
    match data_type.shape() {
        Shape::Link | Shape::Links => without_refs(value),
        _ => value.clone(),
    }
}

fn without_refs(value: &Value) -> Value {
    match value {
        Value::Array(links) => links.iter().map(without_refs).collect(),
        Value::Object(link) => {
            let mut link = link.clone();
            link.remove("_ref");
            Value::Object(link)
        }
        other => other.clone(),
    }
}

/// Returns the state that a document says.
pub(super) fn state(document: &Document) -> Option<RowState> {
    document.get("_sg")?.get("state")?.as_str().and_then(RowState::parse)
}

/// Returns the version that a document says, `None` where it cannot be read.
pub(super) fn rv(document: &Document) -> Option<i64> {
    document.get("_sg")?.get("rv")?.as_i64()
}

/// The links that were moved out of the fields of a document cannot be read: were the
/// document written anew, they would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`_sg.retired_links` cannot be read")]
pub(super) struct UnreadableLinks;

type Changed = std::result::Result<bool, UnreadableLinks>;

/// What is to be done to the links to one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkChange {
    pub(super) target: EntityRef,
    /// The name to show; `None` leaves the one that is there.
    pub(super) name: Option<String>,
    /// Whether the entity is retired or absent.
    pub(super) dead: bool,
}

/// Applies a change to every link in a document and tells whether anything changed.
///
/// # Errors
///
/// Nothing has changed then.
pub(super) fn relink(document: &mut Document, change: &LinkChange) -> Changed {
    if change.dead { retire(document, &change.target) } else { revive(document, change) }
}

/// Moves the links to a dead entity out of their fields.
fn retire(document: &mut Document, target: &EntityRef) -> Changed {
    move_links(document, target, true)
}

/// Puts links to a living entity back where they were, and its name into all of them.
fn revive(document: &mut Document, change: &LinkChange) -> Changed {
    let mut changed = move_links(document, &change.target, false)?;
    if let Some(name) = &change.name {
        changed |= rename(document, &change.target.to_string(), name);
    }
    Ok(changed)
}

/// A link of a field as the site gave it: in the field, or out of it.
struct Place {
    link: Value,
    retired: bool,
}

/// Moves every link to `target` out of its field, or back, and tells whether any moved.
///
/// `at` in `retired_links` is the position among all links of the field, the removed
/// ones included, so that any order of retirements and revivals ends as it began.
fn move_links(document: &mut Document, target: &EntityRef, retire: bool) -> Changed {
    let reference = target.to_string();
    let mut retired: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (field, entry) in retired_links(document)? {
        retired.entry(field).or_default().push(entry);
    }
    let (mut kept, mut changed) = (Vec::new(), false);
    // Neither `id` nor a value that is not of links is ever touched: nothing in it moves.
    for (field, value) in document.iter_mut().filter(|(field, _)| *field != "_sg") {
        let mut places = places(value, retired.remove(field).unwrap_or_default());
        let mut moved = false;
        for place in places.iter_mut().filter(|place| is_link_to(&place.link, &reference) && place.retired != retire) {
            place.retired = retire;
            moved = true;
        }
        changed |= moved;
        for (at, place) in places.iter().enumerate().filter(|(_, place)| place.retired) {
            kept.push(json!({"field": field, "at": at, "link": place.link}));
        }
        if moved {
            let mut live = places.into_iter().filter(|place| !place.retired).map(|place| place.link);
            match value {
                Value::Array(links) => *links = live.collect(),
                single => *single = live.next().unwrap_or(Value::Null),
            }
        }
    }
    // Of fields that the document has no more.
    kept.extend(retired.into_values().flatten());
    if changed {
        set_retired_links(document, kept);
    }
    Ok(changed)
}

fn is_link_to(link: &Value, reference: &str) -> bool {
    link.get("_ref").and_then(Value::as_str) == Some(reference)
}

/// Returns every link of a field in the order of the site.
fn places(value: &Value, mut retired_links: Vec<Value>) -> Vec<Place> {
    let live = match value {
        Value::Array(links) => links.as_slice(),
        Value::Object(_) => std::slice::from_ref(value),
        _ => &[],
    };
    let mut places: Vec<Place> = live.iter().map(|link| Place { link: link.clone(), retired: false }).collect();
    retired_links.sort_by_key(|entry| entry["at"].as_u64());
    for mut entry in retired_links {
        let at = entry["at"].as_u64().map_or(places.len(), |at| (at as usize).min(places.len()));
        places.insert(at, Place { link: entry["link"].take(), retired: true });
    }
    places
}

fn rename(document: &mut Document, reference: &str, name: &str) -> bool {
    let mut changed = false;
    for (_, value) in document.iter_mut().filter(|(field, _)| *field != "_sg") {
        let links: &mut [Value] = match value {
            Value::Array(links) => links,
            Value::Object(_) => std::slice::from_mut(value),
            _ => continue,
        };
        for link in links.iter_mut().filter(|link| link.get("_ref").and_then(Value::as_str) == Some(reference)) {
            if link["name"] != name {
                link["name"] = name.into();
                changed = true;
            }
        }
    }
    changed
}

/// Returns the links that were moved out of the fields of a document, with their fields.
pub(super) fn retired_links(document: &Document) -> std::result::Result<Vec<(String, Value)>, UnreadableLinks> {
    let Some(entries) = document.get("_sg").and_then(|sg| sg.get("retired_links")) else { return Ok(Vec::new()) };
    let with_field = |entry: &Value| {
        let field = entry.get("field")?.as_str()?;
        EntityRef::from_json(entry.get("link")?)?;
        Some((field.to_owned(), entry.clone()))
    };
    let entries = entries.as_array().ok_or(UnreadableLinks)?;
    entries.iter().map(|entry| with_field(entry).ok_or(UnreadableLinks)).collect()
}

fn set_retired_links(document: &mut Document, retired_links: Vec<Value>) {
    if let Some(Value::Object(bookkeeping)) = document.get_mut("_sg") {
        let refs: Vec<Value> = retired_links.iter().map(|entry| entry["link"]["_ref"].clone()).collect();
        bookkeeping.insert("retired_refs".into(), refs.into());
        bookkeeping.insert("retired_links".into(), retired_links.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ReadVersion;
    use super::*;
    use crate::entity_config::{LayoutField, TypeLayout};
    use crate::filter::{Filter, RawFilter};

    fn document(value: Value) -> Document {
        value.as_object().expect("an object").clone()
    }

    fn shot() -> Document {
        let link =
            |id: i64| json!({"type": "Asset", "id": id, "name": format!("a{id}"), "_ref": format!("Asset:{id}")});
        document(json!({"id": 1, "parent": link(2), "assets": [link(1), link(2), link(3)], "_sg": {"state": "active"}}))
    }

    fn change(dead: bool, name: Option<&str>) -> LinkChange {
        LinkChange { target: EntityRef::new("Asset", 2), name: name.map(str::to_owned), dead }
    }

    #[test]
    fn links_to_a_retired_entity_vanish_and_come_back_in_their_place() {
        let mut shot = shot();
        let before = shot.clone();
        assert_eq!(relink(&mut shot, &change(true, None)), Ok(true));
        assert_eq!(shot["parent"], Value::Null);
        assert_eq!(shot["assets"].as_array().map(Vec::len), Some(2));
        assert_eq!(shot["_sg"]["retired_refs"], json!(["Asset:2", "Asset:2"]));
        assert_eq!(relink(&mut shot, &change(true, None)), Ok(false));

        assert_eq!(relink(&mut shot, &change(false, None)), Ok(true));
        assert_eq!((&shot["parent"], &shot["assets"]), (&before["parent"], &before["assets"]));
        assert_eq!(shot["_sg"]["retired_refs"], json!([]));
    }

    #[test]
    fn two_retired_entities_come_back_in_any_order() {
        let mut shot = shot();
        let before = shot["assets"].clone();
        let of = |id, dead| LinkChange { target: EntityRef::new("Asset", id), name: None, dead };
        for change in [of(2, true), of(1, true), of(2, false), of(3, true), of(1, false), of(3, false)] {
            assert_eq!(relink(&mut shot, &change), Ok(true), "{change:?}");
        }
        assert_eq!(shot["assets"], before);
    }

    #[test]
    fn hidden_links_that_cannot_be_read_are_never_written_over() {
        let unreadable = [
            json!({}),
            json!([{"at": 0}]),
            json!([{"field": 3, "at": 0, "link": {"type": "Asset", "id": 9}}]),
            json!([{"field": "assets", "at": 0}]),
        ];
        for links in unreadable {
            let mut shot = shot();
            shot["_sg"]["retired_links"] = links;
            let before = shot.clone();
            assert_eq!(relink(&mut shot, &change(true, None)), Err(UnreadableLinks));
            assert_eq!(shot, before);
        }
    }

    #[test]
    fn a_rename_reaches_every_link_and_nothing_else() {
        let mut shot = shot();
        assert_eq!(relink(&mut shot, &change(false, Some("new"))), Ok(true));
        assert_eq!((&shot["parent"]["name"], &shot["assets"][1]["name"]), (&json!("new"), &json!("new")));
        assert_eq!(shot["assets"][0]["name"], "a1");
        assert_eq!(relink(&mut shot, &change(false, Some("new"))), Ok(false));
    }

    #[test]
    fn values_are_written_in_the_form_that_is_compared() {
        assert_eq!(written(DataType::Text, &json!("")), Value::Null);
        assert_eq!(written(DataType::DateTime, &json!("2015-07-13T23:54:01+02:00")), json!("2015-07-13T21:54:01Z"));
        let link = written(DataType::Entity, &json!({"type": "Shot", "id": 7, "name": "x", "valid": "valid"}));
        assert_eq!(link, json!({"type": "Shot", "id": 7, "name": "x", "_ref": "Shot:7"}));
        assert_eq!(read_value(DataType::Entity, &link), json!({"type": "Shot", "id": 7, "name": "x"}));
    }

    #[test]
    fn a_row_is_one_line_with_what_the_index_compares() {
        let fields = [
            ("assets", DataType::MultiEntity),
            ("code", DataType::Text),
            ("image", DataType::Image),
            ("list", DataType::Serializable),
            ("updated_at", DataType::DateTime),
        ];
        let field = |(name, data_type): &(&str, DataType)| LayoutField {
            name: (*name).to_owned(),
            data_type: *data_type,
            valid_types: vec![],
            mapping: None,
        };
        let layout = TypeLayout {
            entity_type: "Shot".into(),
            fields: fields.iter().map(field).collect(),
            filter: Filter::everything(),
            raw_filter: RawFilter::everything(),
            hash: "1".into(),
        };
        let text = "{\"id\": 7,\n\"code\": \"\", \"list\": {\n\"b\": 1.50},\n\"image\": \"u\",
            \"updated_at\": \"2015-07-13T23:54:01+02:00\", \"assets\": [{\"type\": \"Asset\", \"id\": 2, \"name\": \"é\\\"\"}]}";
        let key = EntityRef::new("Shot", 7);
        let row = FetchedRow::from_text(&layout, key, ReadVersion(5), RowState::Active, text, Timestamp(0), None);
        let (row, cached) = (row.expect("a row"), CachedType::of(&layout));
        let written = of_row(&row, &cached, &row.values(&cached).expect("values"));
        assert!(!written.contains('\n'), "{written}");
        let document: Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(document["code"], Value::Null);
        assert_eq!(document["list"], json!({"b": 1.5}));
        assert_eq!(document["updated_at"], "2015-07-13T21:54:01Z");
        assert_eq!(document["assets"], json!([{"type": "Asset", "id": 2, "name": "é\"", "_ref": "Asset:2"}]));
        assert_eq!((&document["id"], &document["_sg"]["has"]), (&json!(7), &json!(["image"])));
    }

    #[test]
    fn a_text_that_is_too_long_for_the_index_is_noted() {
        assert!(is_too_long(DataType::Text, &"x".repeat(8192)));
        assert!(!is_too_long(DataType::Text, &"é".repeat(8191)));
        assert!(!is_too_long(DataType::Serializable, &"x".repeat(9000)));
    }
}
