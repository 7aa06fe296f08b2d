//! What a request outside of the JSON API may change: REST, uploads, downloads.
//!
//! Pure. What only reads is known by name, a REST write names its entity, and of
//! anything else nothing here knows what it changes.

use axum::http::Method;
use serde_json::{Map, Value};

use super::catalogue::Catalogue;
use super::write_effects::{Fields, Ids, WriteEffects, upload_target};
use crate::api3::{Create, Delete, FieldWrite, Revive, Update, UpdateMode};
use crate::entity::{EntityRef, EntityType};

/// Paths under `/api/v1` whose POST only reads, or changes nothing that is cached.
const REST_READS: &[&str] = &[
    "_search",
    "_summarize",
    "_text_search",
    "_expand",
    "auth/access_token",
    "multipart_abort",
    "follow",
    "unfollow",
    "test_connection",
];
/// Parts of a site under `/api/v1` of which nothing is cached.
const UNCACHED_PARTS: &[&str] = &["webhook", "preferences", "subscription_seat", "exports", "license_info"];
/// Steps of an upload before its end.
const UPLOAD_STEPS: &[&str] = &[
    "/upload/api_get_upload_link_info",
    "/upload/api_get_upload_link_for_part",
    "/upload/api_complete_multipart_upload",
];

/// Tells whether a request can change nothing that is cached.
pub(super) fn only_reads(method: &Method, path: &str) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || UPLOAD_STEPS.contains(&path) {
        return true;
    }
    let Some(rest) = rest_path(path) else { return false };
    let part = rest.split('/').next().unwrap_or_default();
    UNCACHED_PARTS.contains(&part) || REST_READS.iter().any(|name| rest == *name || rest.ends_with(&format!("/{name}")))
}

/// Returns what a request may have changed, from its path and its body. `body` is only
/// the beginning of a long one.
pub(super) fn effects(method: &Method, path: &str, query: &str, body: &[u8], catalogue: &Catalogue) -> WriteEffects {
    if path.starts_with("/upload/") {
        return upload_target(body).map_or_else(WriteEffects::anything, WriteEffects::of_upload);
    }
    let known = rest_path(path).and_then(|rest| of_rest(method, rest, query, body, catalogue));
    known.unwrap_or_else(WriteEffects::anything)
}

/// Returns what follows `/api/v1`, or another version of it.
fn rest_path(path: &str) -> Option<&str> {
    let (version, rest) = path.strip_prefix("/api/v")?.split_once('/')?;
    let is_version = version.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_version.then(|| rest.trim_matches('/'))
}

fn of_rest(method: &Method, rest: &str, query: &str, body: &[u8], catalogue: &Catalogue) -> Option<WriteEffects> {
    let segments: Vec<&str> = rest.split('/').collect();
    let mut effects = WriteEffects::default();
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["entity", "_batch"]) => batch(body, catalogue, &mut effects)?,
        ("POST", ["entity", slug]) => {
            let entity_type = type_of(slug, catalogue)?;
            let fields = fields(&serde_json::from_slice(body).ok()?)?;
            effects.create(&Create { entity_type, fields, return_fields: Vec::new() }, catalogue);
            // The answer goes by unread.
            effects = effects.with_results(None);
        }
        ("PUT", ["entity", slug, id]) => {
            let (entity_type, id) = (type_of(slug, catalogue)?, id.parse().ok()?);
            let fields = fields(&serde_json::from_slice(body).ok()?)?;
            effects.update(&Update { entity_type, id, fields }, catalogue);
        }
        ("DELETE", ["entity", slug, id]) => {
            let delete = Delete { entity_type: type_of(slug, catalogue)?, id: id.parse().ok()? };
            effects.delete(&delete);
        }
        ("POST", ["entity", slug, id]) if query.contains("revive=true") => {
            let revive = Revive { entity_type: type_of(slug, catalogue)?, id: id.parse().ok()? };
            effects.revive(&revive);
        }
        (_, ["entity", slug, id, .., "_upload"]) => {
            return Some(WriteEffects::of_upload(EntityRef::new(type_of(slug, catalogue)?, id.parse().ok()?)));
        }
        (_, ["entity", slug, id, "_update_last_accessed"]) => {
            let (ty, id) = (type_of(slug, catalogue)?, id.parse().ok()?);
            effects.push(ty, Ids::Only([id].into()), Fields::All, false);
        }
        (_, ["entity", slug, id, "relationships", field]) => {
            let (entity_type, id) = (type_of(slug, catalogue)?, id.parse().ok()?);
            let value: Value = serde_json::from_slice(body).ok()?;
            let value = value.get("data").cloned().unwrap_or(value);
            let write = FieldWrite { field: (*field).to_owned(), value, mode: UpdateMode::Set };
            effects.update(&Update { entity_type, id, fields: vec![write] }, catalogue);
        }
        _ => return None,
    }
    Some(effects)
}

fn batch(body: &[u8], catalogue: &Catalogue, effects: &mut WriteEffects) -> Option<()> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let mut creates = false;
    for request in body.get("requests")?.as_array()? {
        let entity_type = type_of(request.get("entity")?.as_str()?, catalogue)?;
        let id = || request.get("record_id").and_then(Value::as_i64);
        let fields = || fields(request.get("data").unwrap_or(&Value::Object(Map::new())));
        match request.get("request_type")?.as_str()? {
            "create" => {
                creates = true;
                effects.create(&Create { entity_type, fields: fields()?, return_fields: Vec::new() }, catalogue);
            }
            "update" => effects.update(&Update { entity_type, id: id()?, fields: fields()? }, catalogue),
            "delete" => effects.delete(&Delete { entity_type, id: id()? }),
            _ => return None,
        }
    }
    if creates {
        *effects = std::mem::take(effects).with_results(None);
    }
    Some(())
}

/// Reads a flat object of fields; a list of links may say how it is changed.
fn fields(body: &Value) -> Option<Vec<FieldWrite>> {
    let write = |(name, value): (&String, &Value)| {
        let mode = match value.get("multi_entity_update_mode").and_then(Value::as_str) {
            None | Some("set") => UpdateMode::Set,
            Some("add") => UpdateMode::Add,
            Some(_) => UpdateMode::Remove,
        };
        let value = value.get("value").filter(|_| value.get("multi_entity_update_mode").is_some()).unwrap_or(value);
        FieldWrite { field: name.clone(), value: value.clone(), mode }
    };
    Some(body.as_object()?.iter().map(write).collect())
}

/// Finds the entity type of a path: `Shot`, `shots`, `published_files`.
fn type_of(slug: &str, catalogue: &Catalogue) -> Option<EntityType> {
    let plain = slug.replace('_', "").to_lowercase();
    let fits = |name: &&EntityType| {
        let name = name.as_str().replace('_', "").to_lowercase();
        let plural = match name.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{name}s"),
        };
        plain == name || plain == plural || plain == format!("{name}s") || plain == format!("{name}es")
    };
    catalogue.schema.types.keys().find(fits).cloned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::catalogue;
    use super::*;

    #[test]
    fn what_only_reads_is_known_by_its_name() {
        let reads = [
            "/api/v1/entity/shots/_search",
            "/api/v1/entity/Shot/_summarize",
            "/api/v1/entity/_text_search",
            "/api/v1/hierarchy/_search",
            "/api/v1/hierarchy/_expand",
            "/api/v1/auth/access_token",
            "/api/v1.1/auth/access_token",
            "/api/v1/entity/human_users/1/follow",
            "/api/v1/webhook/hooks",
            "/upload/api_get_upload_link_info",
        ];
        for path in reads {
            assert!(only_reads(&Method::POST, path), "{path}");
        }
        for path in
            ["/api/v1/entity/shots", "/api/v1/entity/_batch", "/api/v1/entity/shots/1", "/upload/publish_upload"]
        {
            assert!(!only_reads(&Method::POST, path), "{path}");
            assert!(only_reads(&Method::GET, path), "{path}");
        }
    }

    #[test]
    fn a_rest_write_names_its_entity() {
        let catalogue = catalogue();
        let keys = |method: Method, path: &str, query: &str, body: &str| {
            let effects = effects(&method, path, query, body.as_bytes(), &catalogue);
            let keys: Vec<String> = effects.keys().iter().map(ToString::to_string).collect();
            (keys.join(" "), effects.everything)
        };
        assert_eq!(keys(Method::PUT, "/api/v1/entity/shots/5", "", r#"{"code": "a"}"#), ("Shot:5".into(), false));
        assert_eq!(keys(Method::DELETE, "/api/v1/entity/Sequence/7", "", ""), ("Sequence:7".into(), false));
        assert_eq!(keys(Method::POST, "/api/v1/entity/shots/5", "revive=true", ""), ("Shot:5".into(), false));
        let create = r#"{"code": "a", "assets": [{"type": "Asset", "id": 3}]}"#;
        assert!(!keys(Method::POST, "/api/v1/entity/shots", "", create).1);
        let batch = r#"{"requests": [{"request_type": "update", "entity": "Shot", "record_id": 4, "data": {"code": "b"}},
            {"request_type": "delete", "entity": "Asset", "record_id": 6}]}"#;
        assert_eq!(keys(Method::POST, "/api/v1/entity/_batch", "", batch), ("Asset:6 Shot:4".into(), false));
        // What is not understood may have changed anything.
        assert!(keys(Method::PUT, "/api/v1/entity/things/5", "", "{}").1);
        assert!(keys(Method::PUT, "/api/v1/entity/shots/5", "", "{\"code\": ").1);
        assert!(keys(Method::POST, "/something", "", "").1);
    }
}
