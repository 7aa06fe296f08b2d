//! Hands the documents of each minute to the outbox: what the read proxy answered, and how
//! the process is. Where no cluster takes reports, nothing is made.

use chrono::Utc;

use super::engine::Engine;
use super::instance::instance;
use crate::report::{Heartbeat, Wording, heartbeat_document, proxy_document};
use crate::server::StatusSnapshot;

/// Puts the documents of the minute that ends now.
pub async fn put(engine: &Engine, status: &StatusSnapshot) {
    let Some(delivery) = &engine.delivery else { return };
    let (at, wording, instance) = (Utc::now(), Wording::new(engine.online.config.shotgun.name()), instance());
    let mut documents = vec![heartbeat_document(&heartbeat(status), at, &instance, &wording)];
    documents.extend(proxy_document(&engine.ledger.take_minute(), at, &instance, &wording));
    if let Err(error) = delivery.outbox().put(&documents).await {
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
