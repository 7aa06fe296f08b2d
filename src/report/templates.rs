//! Mappings of the report streams, and how they are put on a server.
//!
//! Only fields that dashboards filter or sum are mapped; the rest is kept and
//! not indexed (`dynamic: false`), so that no document is ever refused for a
//! field that it has more.

use serde_json::{Value, json};

use super::documents::Stream;
use crate::metrics::PASS_REASONS;

/// Version of the mappings, in `_meta.sgcache.format`.
const FORMAT: u32 = 1;

/// Above Elastic's own templates, which have 100 to 200.
const PRIORITY: u32 = 500;

/// Returns name and body of the component template that every stream shares.
pub(super) fn base(prefix: &str) -> (String, Value) {
    let properties = json!({
        "@timestamp": {"type": "date"},
        "message": {"type": "text"},
        "ecs": {"properties": {"version": keyword()}},
        "event": {"properties": {
            "kind": keyword(), "category": keyword(), "type": keyword(), "action": keyword(),
            "outcome": keyword(), "module": keyword(), "dataset": keyword(),
            "start": {"type": "date"}, "end": {"type": "date"}, "duration": {"type": "long"},
            "reason": keyword(),
        }},
        "error": {"properties": {"type": keyword(), "message": {"type": "text"}}},
        "service": {"properties": {"name": keyword(), "version": keyword(), "id": keyword()}},
        "sgcache": {"properties": {
            "site": keyword(), "pipeline": keyword(), "task": keyword(),
            "run": {"properties": {"id": keyword()}},
            "entity": {"properties": {
                "type": keyword(), "id": {"type": "long"}, "ref": keyword(),
            }},
        }},
    });
    let settings = json!({"index": {"auto_expand_replicas": "0-1"}});
    (format!("{prefix}-report-base"), component(properties, settings))
}

/// Returns name and body of the component template of one stream.
pub(super) fn fields(prefix: &str, stream: Stream) -> (String, Value) {
    let own = match stream {
        Stream::Runs => json!({
            "run": {"properties": {
                "status": keyword(), "trigger": keyword(), "config_hash": keyword(),
                "attempt": {"type": "integer"}, "scheduled_at": {"type": "date"},
                "delay_ms": {"type": "long"},
            }},
            "steps": {"properties": {
                "id": keyword(), "job": keyword(), "status": keyword(),
                "attempts": {"type": "integer"}, "duration_ms": {"type": "long"},
            }},
            "counts": longs(&["checked", "mismatched", "repaired", "failed", "written"]),
            "source": longs(&["requests"]),
            "report": {"type": "object", "enabled": false},
        }),
        Stream::Validation => {
            let mut validation = longs(&[
                "source_count",
                "cache_count",
                "difference",
                "checked",
                "mismatched",
                "missing",
                "extra",
                "differs",
                "names",
                "repaired",
                "transient",
                "touched",
                "unverifiable",
            ]);
            validation["properties"]["kind"] = keyword();
            validation["properties"]["verdict"] = keyword();
            validation["properties"]["ratio"] = json!({"type": "double"});
            validation["properties"]["stale_ratio_upper95"] = json!({"type": "double"});
            json!({"validation": validation})
        }
        Stream::Proxy => proxy_fields(),
        Stream::Heartbeat => {
            let mut heartbeat =
                longs(&["uptime_s", "source_event_id", "visible_event_id", "marks", "entities", "epoch"]);
            heartbeat["properties"]["state"] = keyword();
            heartbeat["properties"]["code"] = keyword();
            heartbeat["properties"]["fresh_as_of"] = json!({"type": "date"});
            heartbeat["properties"]["lag_s"] = json!({"type": "double"});
            json!({"heartbeat": heartbeat})
        }
        Stream::Sync => sync_fields(),
        Stream::Import => {
            let mut import = longs(&["entities", "pages", "page_size", "unmet", "lo_rv"]);
            import["properties"]["rate_per_s"] = json!({"type": "double"});
            import["properties"]["resumed"] = json!({"type": "boolean"});
            json!({"import": import})
        }
        Stream::Mismatch => json!({
            "mismatch": {"properties": {
                "kind": keyword(), "class": keyword(), "field": keyword(), "action": keyword(),
                "source_value": keyword(), "cache_value": keyword(), "question": keyword(),
                "source_updated_at": {"type": "date", "ignore_malformed": true},
                "source_updated_by": keyword(), "cache_rv": {"type": "long"},
            }},
        }),
    };
    let name = format!("{prefix}-report-{}", stream.as_str());
    (name, component(json!({"sgcache": {"properties": own}}), json!({})))
}

fn proxy_fields() -> Value {
    let mut proxy = longs(&["reads", "hits", "passes", "failed", "stale_hits", "writes", "writes_failed"]);
    for name in ["hit_ratio", "cache_p50_ms", "site_p50_ms", "visible_max_ms"] {
        proxy["properties"][name] = json!({"type": "double"});
    }
    // One field per reason: the names are those of a fixed list.
    proxy["properties"]["reasons"] = longs(PASS_REASONS);
    json!({"proxy": proxy})
}

/// Returns the name of a stream, or of a pipeline's own index of it.
pub(super) fn stream_name(prefix: &str, stream: Stream, index: Option<&str>) -> String {
    match index {
        Some(index) => format!("{prefix}-{}-{index}", stream.as_str()),
        None => format!("{prefix}-{}", stream.as_str()),
    }
}

fn sync_fields() -> Value {
    let mut sync = longs(&[
        "first_event_id",
        "last_event_id",
        "polls",
        "events",
        "skipped",
        "failed",
        "marked",
        "reread",
        "written",
        "unchanged",
        "stale",
        "absent",
        "filtered",
        "refused",
        "gaps_open",
    ]);
    for name in ["poll_ms", "fetch_ms", "store_ms"] {
        sync["properties"][name] = json!({"type": "double"});
    }
    sync["properties"]["lag_ms"] = longs(&["min", "p95", "max"]);
    sync["properties"]["lag_ms"]["properties"]["avg"] = json!({"type": "double"});
    json!({"sync": sync})
}

/// Returns name and body of the index template that makes a data stream.
pub(super) fn data_stream(prefix: &str, stream: Stream, index: Option<&str>) -> (String, Value) {
    let name = stream_name(prefix, stream, index);
    let mut body = index_template(prefix, stream, index, json!({}));
    body["index_patterns"] = json!([name]);
    body["data_stream"] = json!({});
    (name, body)
}

/// Returns name and body of the index template that makes daily indices behind an alias.
pub(super) fn daily(prefix: &str, stream: Stream, index: Option<&str>) -> (String, Value) {
    let name = stream_name(prefix, stream, index);
    let mut body = index_template(prefix, stream, index, json!({"aliases": {&name: {}}}));
    body["index_patterns"] = json!([format!("{name}-2*")]);
    (name, body)
}

fn index_template(prefix: &str, stream: Stream, index: Option<&str>, template: Value) -> Value {
    let mut meta = meta();
    if let Some(index) = index {
        // By this the index is found again when no pipeline names it any more. The name of
        // the template alone could be that of an installation with a longer prefix.
        meta["sgcache"]["of"] = json!({"prefix": prefix, "stream": stream.as_str(), "index": index});
    }
    json!({
        "priority": PRIORITY,
        "composed_of": [base(prefix).0, fields(prefix, stream).0],
        "template": template,
        "_meta": meta,
    })
}

fn component(properties: Value, settings: Value) -> Value {
    let mappings = json!({"dynamic": false, "properties": properties});
    json!({"template": {"settings": settings, "mappings": mappings}, "_meta": meta()})
}

fn meta() -> Value {
    json!({"sgcache": {"format": FORMAT}})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": 1024})
}

fn longs(names: &[&str]) -> Value {
    let fields = names.iter().map(|name| (name.to_string(), json!({"type": "long"})));
    json!({"properties": fields.collect::<serde_json::Map<_, _>>()})
}
