//! Documents of each minute: what the read proxy answered, what following the site did, and
//! how the process is.
//!
//! They are for charts; the lists behind them (callers, requests, causes in words) stay in
//! the ledger of the host.
//!
//! A minute is what came since the last document; the last one of a process is shorter.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// What following the site did within a minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncMinute {
    /// The lowest event id that came.
    pub first_event_id: Option<i64>,
    /// The highest event id that came.
    pub last_event_id: Option<i64>,
    /// Polls of the event log.
    pub polls: u64,
    /// Entries that came.
    pub events: u64,
    /// Entries that ask for nothing here.
    pub skipped: u64,
    /// Entries that became dead letters.
    pub failed: u64,
    /// Keys that became dirty.
    pub marked: u64,
    /// Rows read again, by what became of them.
    pub rows: BTreeMap<&'static str, u64>,
    /// From the creation of an event to its row in the cache; `None` where none came.
    pub lag: Option<LagSummary>,
    /// The mean of a poll, in milliseconds.
    pub poll_ms: Option<f64>,
    /// The mean of a fetch, in milliseconds.
    pub fetch_ms: Option<f64>,
    /// The mean of a write into the store, in milliseconds.
    pub store_ms: Option<f64>,
    /// Gaps in the event log that are open at its end.
    pub gaps_open: u64,
}

/// Lags in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LagSummary {
    /// The shortest.
    pub min: u64,
    /// The mean.
    pub avg: f64,
    /// What 95 of 100 do not exceed.
    pub p95: u64,
    /// The longest.
    pub max: u64,
}

/// An import of a type that came to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// The type.
    pub entity_type: String,
    /// Whether the type was live meanwhile.
    pub rebuild: bool,
    /// Whether it went on where another one was interrupted.
    pub resumed: bool,
    /// Rows of the type that were imported.
    pub entities: u64,
    /// Those since an interruption.
    pub new_entities: u64,
    /// Pages since an interruption.
    pub pages: u64,
    /// The largest page.
    pub page_size: u32,
    /// Rows that were known and not met: they are read again.
    pub unmet: u64,
    /// The read version above which its rows are.
    pub lo_rv: i64,
    /// How long it took, since an interruption.
    pub took: Duration,
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

/// Returns the document of what following the site did within a minute that ended at `at`;
/// `None` where it asked nothing.
pub fn sync_document(minute: &SyncMinute, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Option<Document> {
    let reread: u64 = minute.rows.values().sum();
    if minute.polls + reread == 0 {
        return None;
    }
    let rows = |outcome: &str| minute.rows.get(outcome).copied().unwrap_or_default();
    let lag = minute.lag.map(|lag| json!({"min": lag.min, "avg": lag.avg, "p95": lag.p95, "max": lag.max}));
    let body = json!({"event": {"kind": "metric", "dataset": "sgcache.sync", "type": ["info"]},
    "sgcache": {"sync": {
        "first_event_id": minute.first_event_id, "last_event_id": minute.last_event_id,
        "polls": minute.polls, "events": minute.events, "skipped": minute.skipped, "failed": minute.failed,
        "marked": minute.marked, "reread": reread, "written": rows("written"), "unchanged": rows("unchanged"),
        "stale": rows("stale"), "absent": rows("absent"), "filtered": rows("filtered"), "refused": rows("refused"),
        "lag_ms": lag, "poll_ms": minute.poll_ms, "fetch_ms": minute.fetch_ms, "store_ms": minute.store_ms,
        "gaps_open": minute.gaps_open,
    }}});
    Some(document(Stream::Sync, body, at, instance, wording))
}

/// Returns the document of an import that ended before `at`.
pub fn import_document(import: &ImportReport, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Document {
    let seconds = import.took.as_secs_f64();
    let nanoseconds = u64::try_from(import.took.as_nanos()).unwrap_or(u64::MAX);
    let action = if import.rebuild { "rebuild" } else { "import" };
    let body = json!({"event": {
        "kind": "event", "dataset": "sgcache.import", "type": ["end"],
        "action": action, "outcome": "success", "duration": nanoseconds,
    },
    "sgcache": {"entity": {"type": import.entity_type}, "import": {
        "entities": import.entities, "pages": import.pages, "page_size": import.page_size,
        "rate_per_s": (seconds > 0.0).then(|| import.new_entities as f64 / seconds),
        "resumed": import.resumed, "unmet": import.unmet, "lo_rv": import.lo_rv,
    }}});
    document(Stream::Import, body, at, instance, wording)
}

fn document(stream: Stream, mut body: Value, at: DateTime<Utc>, instance: &str, wording: &Wording) -> Document {
    wrap(&mut body, wording, at, env!("CARGO_PKG_VERSION"), instance);
    Document { stream, index: None, id: Ulid::new().to_string(), at, body }
}
