//! Stored documents that this program did not write so: a value that cannot be read, a
//! field or the bookkeeping that is missing.
//!
//! An index can be changed from outside, or restored in part, and a mapping lets more pass
//! than fields hold (`code: 12`). Such a value is damage of its row and never null: the error
//! names the row, which is quarantined and read again from the site. What answers need
//! is looked at whenever it is read; the rest is found by [`Inner::verify`].

use serde_json::{Value, json};

use super::super::{CachedType, ReadVersion, Result, Verified};
use super::document::{self, Document};
use super::search::{Hit, scan, search};
use super::{Inner, dsl};
use crate::entity::{EntityType, FieldValue, RowHash};

/// Documents without `id` that one round of the scrub finds at most; the next finds more.
const MAX_WITHOUT_ID: usize = 1_000;

/// Returns which of the cached fields that a document holds cannot be read, and why.
pub(super) fn unreadable(cached: &CachedType, document: &Document) -> Option<String> {
    document.iter().find_map(|(field, value)| {
        let data_type = cached.data_type(field)?;
        let error = FieldValue::from_json(data_type, value).err()?;
        Some(format!("`{field}`: {error}"))
    })
}

/// Returns what is wrong with a whole document.
fn damage(cached: &CachedType, hit: &Hit) -> Option<String> {
    let document = &hit.source;
    if document.get("id").and_then(Value::as_i64) != hit.entity_id().ok() {
        return Some(format!("`id` is not that of the document `{}`", hit.id));
    }
    let bookkeeping = |field: &str| document.get("_sg").and_then(|sg| sg.get(field));
    let hash = bookkeeping("hash").and_then(Value::as_str).and_then(RowHash::parse);
    if bookkeeping("rv").and_then(Value::as_i64).map(ReadVersion).is_none() || hash.is_none() {
        return Some("`_sg` cannot be read".into());
    }
    let Some(state) = document::state(document) else { return Some("its state is unknown".into()) };
    if !state.has_document() {
        return None;
    }
    if let Err(error) = document::retired_links(document) {
        return Some(error.to_string());
    }
    let missing = cached.fields.keys().find(|field| !document.contains_key(*field));
    missing.map(|field| format!("`{field}` is missing")).or_else(|| unreadable(cached, document))
}

impl Inner {
    /// See [`super::super::Store::verify`]: every document is read whole.
    pub(super) async fn verify(&self, entity_type: &EntityType, after: i64, limit: usize) -> Result<Verified> {
        let open = self.open_type(entity_type)?;
        let index = self.names.write(entity_type);
        let mut hits = scan(&self.client, &index, &dsl::everything(), &json!(true), after, limit).await?;
        let (last, rows) = (hits.last().map(Hit::entity_id).transpose()?, hits.len() as u64);
        if after <= 0 {
            // A walk by id does not meet them.
            let without_id = json!({"bool": {"must_not": [{"exists": {"field": "id"}}]}});
            hits.extend(search(&self.client, &index, &json!({"query": without_id, "size": MAX_WITHOUT_ID})).await?);
        }
        let damaged = |hit: &Hit| damage(&open.cached, hit).map(|reason| Ok((hit.entity_id()?, reason)));
        Ok(Verified { last, rows, damaged: hits.iter().filter_map(damaged).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::DataType;

    fn shots() -> CachedType {
        let fields = [("code", DataType::Text), ("shots", DataType::MultiEntity)];
        let fields = fields.map(|(name, data_type)| (name.to_owned(), data_type)).into();
        CachedType { entity_type: "Shot".into(), fields, partial: false, hash: String::new() }
    }

    /// The damage of a document that is whole except for one change.
    fn damage_of(change: impl FnOnce(&mut Document)) -> Option<String> {
        let whole = json!({"id": 7, "code": "a", "shots": [],
            "_sg": {"rv": 5, "state": "active", "hash": RowHash(3).to_string()}});
        let Value::Object(mut source) = whole else { unreachable!("an object") };
        change(&mut source);
        let hit = json!({"_id": "7", "_version": 1, "_source": source});
        damage(&shots(), &serde_json::from_value(hit).expect("a hit"))
    }

    #[test]
    fn what_is_missing_or_cannot_be_read_is_named() {
        assert_eq!(damage_of(|_| ()), None);
        let set = |field: &'static str, value: Value| damage_of(move |row| drop(row.insert(field.to_owned(), value)));
        assert!(set("code", json!(12)).is_some_and(|words| words.contains("`code`")));
        assert!(set("shots", json!([{"id": 1}])).is_some_and(|words| words.contains("`shots`")));
        assert_eq!(set("id", json!(8)).as_deref(), Some("`id` is not that of the document `7`"));
        let without = |field: &'static str| damage_of(move |row| drop(row.remove(field)));
        assert_eq!(without("code").as_deref(), Some("`code` is missing"));
        assert_eq!(without("_sg").as_deref(), Some("`_sg` cannot be read"));
        let state = json!({"rv": 5, "state": "odd", "hash": RowHash(3).to_string()});
        assert_eq!(set("_sg", state).as_deref(), Some("its state is unknown"));
    }
}
