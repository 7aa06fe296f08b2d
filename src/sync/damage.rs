//! [`WatchedStore`]: whoever meets a damaged row has it read again.
//!
//! A store names the row that it cannot read as it was written. Here, between the
//! store and everybody who reads it, that row is quarantined: no answer shows it, and
//! the loop that follows the site reads it again, as soon as the site answers. The
//! error goes on to the reader, who has no row for it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::SiteClock;
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;
use crate::state::State;
use crate::store::{
    Bucket, FetchedRow, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, ReadVersion, Referrers, Relinked,
    Result, Row, RowVersion, Store, StoreMoment, StoredType, Verified,
};

/// A store whose damaged rows are quarantined when they are met.
pub struct WatchedStore {
    inner: Arc<dyn Store>,
    state: State,
    clock: SiteClock,
}

impl WatchedStore {
    /// Watches a store.
    pub fn new(inner: Arc<dyn Store>, state: State, clock: SiteClock) -> Self {
        Self { inner, state, clock }
    }

    async fn noted<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && let Some(row) = error.row()
        {
            let damaged = [(row.clone(), error.to_string())];
            match self.state.quarantine_stored(&damaged, self.clock.now()).await {
                Ok(fresh) if fresh.is_empty() => {}
                Ok(_) => tracing::error!(%row, %error, "a damaged row was quarantined"),
                // The reader has the first error; the next one who meets the row tries again.
                Err(failed) => tracing::error!(%row, error = %failed, "a damaged row could not be quarantined"),
            }
        }
        outcome
    }
}

#[async_trait]
impl Store for WatchedStore {
    async fn ensure_type(&self, layout: &TypeLayout) -> Result<()> {
        self.noted(self.inner.ensure_type(layout).await).await
    }

    async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        self.noted(self.inner.put(rows).await).await
    }

    async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
        self.noted(self.inner.get(keys, fields).await).await
    }

    async fn find(&self, query: &Query) -> Result<Found> {
        self.noted(self.inner.find(query).await).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.noted(self.inner.count(query).await).await
    }

    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        self.noted(self.inner.referrers(target, limit).await).await
    }

    async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        self.noted(self.inner.relink(target).await).await
    }

    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        self.noted(self.inner.digest(entity_type).await).await
    }

    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.noted(self.inner.scan(entity_type, after_id, limit).await).await
    }

    async fn scan_inactive(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.noted(self.inner.scan_inactive(entity_type, after_id, limit).await).await
    }

    async fn highest_version(&self) -> Result<ReadVersion> {
        self.inner.highest_version().await
    }

    async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        self.noted(self.inner.purge(scope).await).await
    }

    async fn types(&self) -> Result<Vec<StoredType>> {
        self.inner.types().await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn verify(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Verified> {
        self.noted(self.inner.verify(entity_type, after_id, limit).await).await
    }

    async fn check(&self, whole: bool) -> Result<()> {
        self.inner.check(whole).await
    }

    async fn reset(&self) -> Result<()> {
        self.inner.reset().await
    }

    async fn moment(&self) -> Result<Option<StoreMoment>> {
        self.inner.moment().await
    }

    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        self.noted(self.inner.corrupt(key, field, value).await).await
    }
}
