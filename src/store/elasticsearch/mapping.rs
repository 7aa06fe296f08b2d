//! How the fields of a type are mapped, and what else an index is created with.
//!
//! Strict: a field that is not mapped is a bug of ours and must show, never a
//! silent new mapping. No `nested`: an array of links flattens, and every
//! relation of Shotgun tests one property per element, so `_ref`, `type` and
//! `name` with several values each answer all of them. No script, no x-pack type:
//! every server from 7.17 to 9 and every OpenSearch takes these mappings.

use serde_json::{Map, Value, json};

use super::super::CachedType;
use crate::entity::Shape;
use crate::entity_config::{LayoutField, TypeLayout};

/// The version of the layout of documents. Raise it when older documents cannot be read any more.
///
/// 1: the version of a document is that of its read. 2: room for rewrites between two (`version`).
pub(super) const FORMAT: u64 = 2;

/// Longer texts are kept but not indexed: a term of Lucene holds 32,766 bytes.
pub(super) const LONGEST_INDEXED: usize = 8191;

/// How a new index is spread over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    /// Its primary shards.
    pub shards: u32,
    /// Copies of each; `None` is one where there is a second node.
    pub replicas: Option<u32>,
}

impl Default for IndexShape {
    fn default() -> Self {
        Self { shards: 1, replicas: None }
    }
}

/// Returns the body that creates a generation of a type.
pub(super) fn index_body(layout: &TypeLayout, shape: IndexShape) -> Value {
    json!({ "settings": settings(shape), "mappings": mappings(layout) })
}

/// Returns the mapping of a type, with our own record in `_meta`.
pub(super) fn mappings(layout: &TypeLayout) -> Value {
    json!({ "dynamic": "strict", "_meta": { "sgcache": meta(layout) }, "properties": properties(layout) })
}

/// Returns what we remember about an index in the index itself.
pub(super) fn meta(layout: &TypeLayout) -> Value {
    json!({
        "format": FORMAT,
        "cached": CachedType::of(layout),
        "own_mapping": own_mapping(layout),
        "sgcache_version": env!("CARGO_PKG_VERSION"),
    })
}

/// Returns the fields whose mapping is the user's: nothing is known about how they can be searched.
pub(super) fn own_mapping(layout: &TypeLayout) -> Vec<String> {
    layout.fields.iter().filter(|field| field.mapping.is_some()).map(|field| field.name.clone()).collect()
}

/// Returns the body that creates the index of display names.
pub(super) fn names_body(shape: IndexShape) -> Value {
    json!({
        "settings": settings(shape),
        "mappings": {
            "dynamic": "strict",
            "_meta": {"sgcache": {"format": FORMAT, "names": true}},
            "properties": {
                "type": {"type": "keyword"},
                "id": {"type": "long"},
                "name": text(),
                "state": {"type": "keyword"},
                "rv": {"type": "long"},
                "entry": {"type": "keyword"},
            },
        },
    })
}

fn settings(shape: IndexShape) -> Value {
    let mut settings = json!({
        "number_of_shards": shape.shards,
        // Written out, because an index without an explicit value stops refreshing
        // when it has not been searched for 30 seconds.
        "refresh_interval": "1s",
        "max_result_window": 100_000,
        "index.gc_deletes": "1h",
        "index.mapping.total_fields.limit": 5000,
        "analysis": { "normalizer": { "sg_ci": { "type": "custom", "filter": ["lowercase"] } } },
    });
    match shape.replicas {
        Some(replicas) => settings["number_of_replicas"] = replicas.into(),
        None => settings["auto_expand_replicas"] = "0-1".into(),
    }
    settings
}

fn properties(layout: &TypeLayout) -> Value {
    let mut properties = Map::new();
    properties.insert("id".into(), json!({"type": "long"}));
    properties.insert("_sg".into(), bookkeeping());
    for field in layout.fields.iter() {
        properties.insert(field.name.clone(), field_mapping(field));
    }
    properties.into()
}

/// What the store knows about a row; the one object beside the fields.
fn bookkeeping() -> Value {
    json!({"properties": {
        "rv": {"type": "long"},
        "state": {"type": "keyword"},
        "hash": {"type": "keyword"},
        // The part of the hash that digests sum up: servers cannot xor without scripts.
        "hash32": {"type": "long"},
        "fetched_at": {"type": "date", "format": "strict_date_optional_time"},
        "last_event": {"type": "long"},
        // Fields whose text is too long for the index.
        "unindexed": {"type": "keyword"},
        // Fields that are only ever asked for being there.
        "has": {"type": "keyword"},
        // Links to retired entities, out of their fields until a revival.
        "retired_refs": {"type": "keyword"},
        "retired_links": {"type": "object", "enabled": false},
    }})
}

/// Returns the mapping of one field: the user's own, or that of its data type.
pub(super) fn field_mapping(field: &LayoutField) -> Value {
    if let Some(mapping) = &field.mapping {
        return mapping.clone();
    }
    match field.data_type.shape() {
        Shape::Text => text(),
        Shape::ExactText => json!({"type": "keyword", "ignore_above": LONGEST_INDEXED}),
        Shape::Int => json!({"type": "long"}),
        // Not `float`: equality of what was read would break.
        Shape::Float => json!({"type": "double"}),
        // A checkbox is never null.
        Shape::Bool => json!({"type": "boolean", "null_value": false}),
        Shape::Date => json!({"type": "date", "format": "strict_date"}),
        Shape::DateTime => json!({"type": "date", "format": "strict_date_optional_time"}),
        Shape::Link | Shape::Links => link(),
        Shape::Presence | Shape::Opaque => json!({"type": "object", "enabled": false}),
    }
}

/// Case stays in the value and is folded in `.ci`, which filters and sorts use.
fn text() -> Value {
    json!({"type": "keyword", "ignore_above": LONGEST_INDEXED, "fields": {"ci": folded()}})
}

fn folded() -> Value {
    json!({"type": "keyword", "normalizer": "sg_ci", "ignore_above": LONGEST_INDEXED})
}

fn link() -> Value {
    json!({"properties": {
        "type": {"type": "keyword"},
        "id": {"type": "long"},
        "name": {"type": "keyword", "ignore_above": LONGEST_INDEXED, "fields": {"ci": folded()}},
        // `Shot:123`, added by us; one term per link.
        "_ref": {"type": "keyword"},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::DataType;

    fn mapping_of(data_type: DataType) -> Value {
        let field = LayoutField { name: "f".into(), data_type, valid_types: vec![], mapping: None };
        field_mapping(&field)
    }

    #[test]
    fn a_new_index_has_the_shape_that_was_asked_for() {
        let usual = settings(IndexShape::default());
        assert_eq!((&usual["number_of_shards"], &usual["auto_expand_replicas"]), (&json!(1), &json!("0-1")));
        let shaped = settings(IndexShape { shards: 3, replicas: Some(2) });
        assert_eq!((&shaped["number_of_shards"], &shaped["number_of_replicas"]), (&json!(3), &json!(2)));
        assert_eq!(shaped.get("auto_expand_replicas"), None);
    }

    #[test]
    fn every_data_type_has_a_mapping_that_all_servers_take() {
        assert_eq!(mapping_of(DataType::StatusList)["fields"]["ci"]["normalizer"], "sg_ci");
        assert_eq!(mapping_of(DataType::Timecode), json!({"type": "long"}));
        assert_eq!(mapping_of(DataType::Currency), json!({"type": "double"}));
        assert_eq!(mapping_of(DataType::MultiEntity)["properties"]["_ref"]["type"], "keyword");
        assert_eq!(mapping_of(DataType::Image), json!({"type": "object", "enabled": false}));
        assert_eq!(mapping_of(DataType::Unknown), json!({"type": "object", "enabled": false}));
    }

    #[test]
    fn a_mapping_of_the_user_replaces_ours() {
        let field = LayoutField {
            name: "code".into(),
            data_type: DataType::Text,
            valid_types: vec![],
            mapping: Some(json!({"type": "text"})),
        };
        assert_eq!(field_mapping(&field), json!({"type": "text"}));
    }
}
