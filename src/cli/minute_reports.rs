//! Hands the documents of each minute to the outbox: what the read proxy answered, what
//! following the site did, and how the process is; and those of imports, which a process
//! without minutes makes as well. Where no cluster takes reports, nothing is made.

use chrono::Utc;

use super::engine::Engine;
use super::instance::instance;
use crate::report::{
    Document, Heartbeat, ImportReport, LagSummary, SyncMinute, Wording, heartbeat_document, import_document,
    proxy_document, sync_document,
};
use crate::server::StatusSnapshot;
use crate::sync::{FinishedImport, SyncActivity};

/// Puts the documents of the minute that ends now.
pub async fn put(engine: &Engine, status: &StatusSnapshot) {
    if engine.delivery.is_none() {
        return;
    }
    let (at, wording, instance) = (Utc::now(), Wording::new(engine.online.config.shotgun.name()), instance());
    let mut documents = vec![heartbeat_document(&heartbeat(status), at, &instance, &wording)];
    documents.extend(proxy_document(&engine.ledger.take_minute(), at, &instance, &wording));
    let activity = engine.replica.take_activity();
    documents.extend(sync_document(&sync_minute(&activity, status.sync.gaps_open), at, &instance, &wording));
    documents.extend(activity.imports.iter().map(|one| import_document(&import(one), at, &instance, &wording)));
    put_all(engine, &documents).await;
}

/// Puts the documents of what this process imported since the last minute.
pub async fn put_imports(engine: &Engine) {
    let (at, wording, instance) = (Utc::now(), Wording::new(engine.online.config.shotgun.name()), instance());
    let imports = engine.replica.take_activity().imports;
    let documents: Vec<_> = imports.iter().map(|one| import_document(&import(one), at, &instance, &wording)).collect();
    if !documents.is_empty() {
        put_all(engine, &documents).await;
    }
}

fn sync_minute(activity: &SyncActivity, gaps_open: u64) -> SyncMinute {
    let lag = &activity.lag;
    let summary = lag.mean_ms().zip(lag.p95_ms());
    SyncMinute {
        first_event_id: activity.first_event,
        last_event_id: activity.last_event,
        polls: activity.polls.count,
        events: activity.events,
        skipped: activity.skipped,
        failed: activity.failed,
        marked: activity.marked,
        rows: activity.rows.clone(),
        lag: summary.map(|(avg, p95)| LagSummary { min: lag.min_ms, avg, p95, max: lag.max_ms }),
        poll_ms: activity.polls.mean_ms(),
        fetch_ms: activity.fetches.mean_ms(),
        store_ms: activity.stored.mean_ms(),
        gaps_open,
    }
}

fn import(done: &FinishedImport) -> ImportReport {
    ImportReport {
        entity_type: done.entity_type.to_string(),
        rebuild: done.rebuild,
        resumed: done.resumed,
        entities: done.rows,
        new_entities: done.new_rows,
        pages: done.pages,
        page_size: done.page_size,
        unmet: done.unmet,
        lo_rv: done.lo_rv,
        took: done.took,
    }
}

async fn put_all(engine: &Engine, documents: &[Document]) {
    let Some(delivery) = &engine.delivery else { return };
    if let Err(error) = delivery.outbox().put(documents).await {
        tracing::error!(%error, "the documents of a minute are lost to Elasticsearch");
    }
}

fn heartbeat(status: &StatusSnapshot) -> Heartbeat {
    let (health, sync) = (&status.health, &status.sync);
    Heartbeat {
        uptime_seconds: u64::try_from((status.now - status.started_at).num_seconds()).unwrap_or_default(),
        level: health.level.as_str().to_owned(),
        code: health.code.clone(),
        fresh_as_of: status.types.iter().filter_map(|ty| ty.fresh_as_of).min(),
        lag_seconds: sync.lag_seconds,
        event_id: sync.event_id,
        visible_event_id: sync.visible_event_id,
        dirty: sync.marks.values().sum(),
        rows: status.types.iter().map(|ty| ty.rows).sum(),
        epoch: sync.epoch,
    }
}
