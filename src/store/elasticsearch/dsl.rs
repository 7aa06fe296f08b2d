//! One condition on a row's own field, in the query language of the server.
//!
//! Pure. Everything stands in filter context: nothing is scored. Texts are
//! compared on `.ci`, with needles that the filter has folded already. What a
//! condition on a linked entity needs beforehand is in `plan`.

use serde_json::{Value, json};

use super::mapping::LONGEST_INDEXED;
use crate::entity::{DataType, EntityRef, FieldValue, Shape};
use crate::filter::{Test, TextMatch};

/// The most terms that one `terms` query takes.
pub(super) const MOST_TERMS: usize = 65_536;

/// Why a condition cannot be answered here.
pub(super) type Reason = String;

/// Returns the query for rows whose field passes a test.
///
/// # Errors
///
/// The reason why the server cannot answer it.
pub(super) fn field_query(name: &str, data_type: DataType, test: &Test) -> Result<Value, Reason> {
    match data_type.shape() {
        Shape::Link | Shape::Links => link_query(name, test),
        Shape::Presence => presence_query(name, test),
        Shape::Opaque => Err(format!("`{name}` is of data type `{data_type}`, which is not indexed")),
        Shape::Text => scalar_query(&format!("{name}.ci"), name, test),
        _ => scalar_query(name, name, test),
    }
}

/// Returns the query for rows whose id passes a test.
pub(super) fn id_query(test: &Test) -> Result<Value, Reason> {
    scalar_query("id", "id", test)
}

/// `indexed` is the name to compare with, `stored` the one to ask for a value.
fn scalar_query(indexed: &str, stored: &str, test: &Test) -> Result<Value, Reason> {
    Ok(match test {
        Test::Empty => not(any(vec![exists(stored), json!({"term": {"_sg.unindexed": stored}})])),
        Test::OneOf(values) => terms(indexed, values.iter().map(FieldValue::to_json).collect()),
        Test::Less(bound) => json!({"range": {indexed: {"lt": bound.to_json()}}}),
        Test::Greater(bound) => json!({"range": {indexed: {"gt": bound.to_json()}}}),
        Test::Between(first, last) => {
            json!({"range": {indexed: {"gte": first.to_json(), "lte": last.to_json()}}})
        }
        Test::Text(how, needle) => text_query(indexed, *how, needle)?,
        Test::LinkTo(_) | Test::LinkType(_) | Test::LinkName(..) => nothing(),
        Test::Within(_) => return Err("a window around now was not made absolute".to_owned()),
    })
}

fn link_query(name: &str, test: &Test) -> Result<Value, Reason> {
    Ok(match test {
        Test::Empty => not(exists(&format!("{name}._ref"))),
        Test::LinkTo(targets) => refs(name, targets),
        Test::LinkType(entity_type) => json!({"term": {format!("{name}.type"): entity_type.as_str()}}),
        // The present name may differ from the copy in the row: `plan` asks the targets.
        Test::LinkName(..) => return Err(format!("the names in `{name}` are copies")),
        _ => nothing(),
    })
}

fn presence_query(name: &str, test: &Test) -> Result<Value, Reason> {
    match test {
        Test::Empty => Ok(not(json!({"term": {"_sg.has": name}}))),
        _ => Err(format!("`{name}` can only be asked for being there")),
    }
}

pub(super) fn text_query(indexed: &str, how: TextMatch, needle: &str) -> Result<Value, Reason> {
    if needle.chars().count() > LONGEST_INDEXED / 4 && how != TextMatch::Is {
        return Err("the text to look for is too long".to_owned());
    }
    Ok(match how {
        TextMatch::Is => json!({"term": {indexed: needle}}),
        TextMatch::StartsWith => json!({"prefix": {indexed: needle}}),
        TextMatch::Contains => json!({"wildcard": {indexed: {"value": format!("*{}*", escape(needle))}}}),
        TextMatch::EndsWith => json!({"wildcard": {indexed: {"value": format!("*{}", escape(needle))}}}),
    })
}

/// Takes the meaning from `*`, `?` and `\`.
fn escape(needle: &str) -> String {
    let mut escaped = String::with_capacity(needle.len());
    for c in needle.chars() {
        if matches!(c, '*' | '?' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Returns the query for rows that link to one of the targets.
pub(super) fn refs(field: &str, targets: &[EntityRef]) -> Value {
    terms(&format!("{field}._ref"), targets.iter().map(|target| target.to_string().into()).collect())
}

/// Returns the query for rows that link to one of the ids of a type.
///
/// From some thousand ids on, numbers are several times faster than references;
/// but in a list of links the type of one element meets the id of another.
pub(super) fn refs_of_type(field: &str, multi: bool, entity_type: &str, ids: &[i64]) -> Value {
    if !multi && ids.len() > 5000 {
        let typed = json!({"term": {format!("{field}.type"): entity_type}});
        return all(vec![typed, terms(&format!("{field}.id"), ids.iter().map(|&id| id.into()).collect())]);
    }
    terms(&format!("{field}._ref"), ids.iter().map(|id| format!("{entity_type}:{id}").into()).collect())
}

/// Returns the query for rows with these ids.
pub(super) fn ids(ids: &[i64]) -> Value {
    terms("id", ids.iter().map(|&id| id.into()).collect())
}

fn terms(field: &str, values: Vec<Value>) -> Value {
    let mut chunks: Vec<Value> = values.chunks(MOST_TERMS).map(|chunk| json!({"terms": {field: chunk}})).collect();
    match chunks.len() {
        0 => nothing(),
        1 => chunks.remove(0),
        _ => any(chunks),
    }
}

/// Returns the body of a search for ids and nothing else: they come from a column, no document is opened.
pub(super) fn ids_only(query: Value, size: usize) -> Value {
    json!({"query": query, "size": size, "sort": ["_doc"], "_source": false, "stored_fields": "_none_",
        "docvalue_fields": ["id"]})
}

/// Every row.
pub(super) fn everything() -> Value {
    json!({"match_all": {}})
}

/// No row.
pub(super) fn nothing() -> Value {
    json!({"match_none": {}})
}

/// Rows with a value.
pub(super) fn exists(field: &str) -> Value {
    json!({"exists": {"field": field}})
}

/// Rows that all of the queries find.
pub(super) fn all(mut queries: Vec<Value>) -> Value {
    match queries.len() {
        0 => everything(),
        1 => queries.remove(0),
        _ => json!({"bool": {"filter": queries}}),
    }
}

/// Rows that at least one of the queries finds.
pub(super) fn any(mut queries: Vec<Value>) -> Value {
    match queries.len() {
        0 => nothing(),
        1 => queries.remove(0),
        _ => json!({"bool": {"should": queries, "minimum_should_match": 1}}),
    }
}

/// Rows that the query does not find.
pub(super) fn not(query: Value) -> Value {
    json!({"bool": {"must_not": [query]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(data_type: DataType, test: Test) -> Value {
        field_query("f", data_type, &test).unwrap_or_else(Value::String)
    }

    #[test]
    fn texts_are_compared_without_case_and_with_wildcards_escaped() {
        let contains = Test::Text(TextMatch::Contains, "a*b?c\\".into());
        assert_eq!(query(DataType::Text, contains), json!({"wildcard": {"f.ci": {"value": r"*a\*b\?c\\*"}}}));
        let one_of = Test::OneOf(vec![FieldValue::Text("ip".into())]);
        assert_eq!(query(DataType::StatusList, one_of.clone()), json!({"terms": {"f.ci": ["ip"]}}));
        assert_eq!(query(DataType::EntityType, one_of), json!({"terms": {"f": ["ip"]}}));
    }

    #[test]
    fn links_are_found_by_target_and_type() {
        let to = Test::LinkTo(vec![EntityRef::new("Shot", 7)]);
        assert_eq!(query(DataType::MultiEntity, to), json!({"terms": {"f._ref": ["Shot:7"]}}));
        assert_eq!(query(DataType::Entity, Test::LinkType("Shot".into())), json!({"term": {"f.type": "Shot"}}));
    }

    #[test]
    fn an_empty_list_of_wanted_values_finds_nothing() {
        assert_eq!(query(DataType::Number, Test::OneOf(vec![])), json!({"match_none": {}}));
    }

    #[test]
    fn more_values_than_the_server_takes_are_split() {
        let many: Vec<i64> = (0..70_000).collect();
        let split = ids(&many);
        assert_eq!(split["bool"]["should"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_not_indexed_is_named() {
        assert_eq!(
            query(DataType::Serializable, Test::Empty),
            json!("`f` is of data type `serializable`, which is not indexed")
        );
    }
}
