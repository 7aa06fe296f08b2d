//! Documents of each minute: what the read proxy answered, and how the process is.
//!
//! Both are for charts; the lists behind them (callers, requests, causes in words) stay in
//! the ledger of the host.
//!
//! A minute is what came since the last document; the last one of a process is shorter.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use ulid::Ulid;

use super::documents::{Document, Stream, Wording, wrap};
use super::ledger::{Bucket, Latencies, MethodCounts};

/// How a process is.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// `ok`, `busy`, `warn` or `bad`.
    pub level: String,
    /// The code of the health, such as `site_away`.
    pub code: String,
    /// The moment up to which every served type equals the site.
    pub fresh_as_of: Option<DateTime<Utc>>,
    /// Seconds that the cache is behind; `None` where that is not known.
    pub lag_seconds: Option<f64>,
    /// The highest event id that was seen.
    pub event_id: Option<i64>,
    /// The highest event id below which everything is in the rows.
    pub visible_event_id: Option<i64>,
    /// Rows to read again.
    pub dirty: u64,
    /// Rows in the cache.
    pub rows: u64,
    /// Epoch of the lease.
    pub epoch: i64,
}

/// Returns the document of what the proxy answered within a minute that ended at `at`;
/// `None` where it was asked nothing.
pub fn proxy_document(bucket: &Bucket, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Option<Document> {
    let (hits, passes) = bucket.reads();
    let writes = &bucket.writes;
    if hits + passes + bucket.failed + writes.count + writes.failed == 0 {
        return None;
    }
    let mut reasons = Map::new();
    for pass in &bucket.passes {
        let calls = reasons.get(&pass.reason).and_then(Value::as_u64).unwrap_or_default();
        reasons.insert(pass.reason.clone(), (calls + pass.calls).into());
    }
    let read = bucket.methods.get("read");
    let median = |of: fn(&MethodCounts) -> &Latencies| read.and_then(|counts| of(counts).quantile(0.5));
    let body = json!({"event": {"kind": "metric", "dataset": "sgcache.proxy", "type": ["info"]},
    "sgcache": {"proxy": {
        "reads": hits + passes, "hits": hits, "passes": passes, "failed": bucket.failed,
        "stale_hits": bucket.stale_hits,
        "hit_ratio": (hits + passes > 0).then(|| hits as f64 / (hits + passes) as f64),
        "reasons": reasons,
        "cache_p50_ms": median(|counts| &counts.cache), "site_p50_ms": median(|counts| &counts.site),
        "writes": writes.count, "writes_failed": writes.failed,
        "visible_max_ms": (writes.visible.count() > 0).then_some(writes.visible.max_ms),
    }}});
    Some(document(Stream::Proxy, body, at, instance, wording))
}

/// Returns the document of a heartbeat.
pub fn heartbeat_document(beat: &Heartbeat, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Document {
    let body = json!({"event": {"kind": "state", "dataset": "sgcache.heartbeat", "type": ["info"]},
    "sgcache": {"heartbeat": {
        "uptime_s": beat.uptime_seconds, "state": beat.level, "code": beat.code,
        "fresh_as_of": beat.fresh_as_of, "lag_s": beat.lag_seconds, "source_event_id": beat.event_id,
        "visible_event_id": beat.visible_event_id, "marks": beat.dirty, "entities": beat.rows,
        "epoch": beat.epoch,
    }}});
    document(Stream::Heartbeat, body, at, instance, wording)
}

fn document(stream: Stream, mut body: Value, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Document {
    wrap(&mut body, wording, at, env!("CARGO_PKG_VERSION"), instance);
    Document { stream, index: None, id: Ulid::new().to_string(), at, body }
}
