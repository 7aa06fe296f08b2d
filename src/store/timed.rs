//! [`TimedStore`]: counts and times what is asked of a store.
//!
//! One place for both backends, so that a call cannot be measured in one and
//! forgotten in the other. It decides nothing: every answer and every error goes
//! through unchanged. An `Unsupported` is an answer and counts as one.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Bucket, FetchedRow, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, ReadVersion, Referrers, Relinked,
    Result, Row, RowVersion, Store, StoreErrorKind, StoreMoment, StoredType, Verified,
};
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;
use crate::metrics::Metrics;

/// A store whose calls are counted and timed.
pub struct TimedStore {
    inner: Arc<dyn Store>,
    metrics: Metrics,
}

impl TimedStore {
    /// Measures the calls of a store.
    pub fn new(inner: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }

    async fn timed<T>(&self, operation: &str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let started = Instant::now();
        let outcome = call.await;
        let (store, took) = (&self.metrics.store, started.elapsed());
        match &outcome {
            Err(error) if error.kind() != StoreErrorKind::Unsupported => {
                store.failed(operation, reason(error.kind()), took);
            }
            _ => store.worked(operation, took),
        }
        outcome
    }
}

/// The value of the label `reason`.
fn reason(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Unavailable | StoreErrorKind::Locked => "unavailable",
        StoreErrorKind::Full => "full",
        StoreErrorKind::Refused | StoreErrorKind::NotLeader => "refused",
        _ => "other",
    }
}

#[async_trait]
impl Store for TimedStore {
    async fn ensure_type(&self, layout: &TypeLayout) -> Result<()> {
        self.timed("other", self.inner.ensure_type(layout)).await
    }

    async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        let outcomes = self.timed("bulk", self.inner.put(rows)).await?;
        let count = |result: &str, of: fn(&PutOutcome) -> bool| {
            self.metrics.store.bulk_items.add(&[result], outcomes.iter().filter(|outcome| of(outcome)).count() as u64);
        };
        count("written", |outcome| matches!(outcome, PutOutcome::Written));
        count("stale", |outcome| matches!(outcome, PutOutcome::Stale));
        count("refused", |outcome| matches!(outcome, PutOutcome::Refused(_)));
        Ok(outcomes)
    }

    async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
        self.timed("get", self.inner.get(keys, fields)).await
    }

    async fn find(&self, query: &Query) -> Result<Found> {
        self.timed("search", self.inner.find(query)).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.timed("count", self.inner.count(query)).await
    }

    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        self.timed("search", self.inner.referrers(target, limit)).await
    }

    async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        self.timed("other", self.inner.relink(target)).await
    }

    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        self.timed("scan", self.inner.digest(entity_type)).await
    }

    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.timed("scan", self.inner.scan(entity_type, after_id, limit)).await
    }

    async fn scan_inactive(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.timed("scan", self.inner.scan_inactive(entity_type, after_id, limit)).await
    }

    async fn highest_version(&self) -> Result<ReadVersion> {
        self.timed("scan", self.inner.highest_version()).await
    }

    async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        self.timed("other", self.inner.purge(scope)).await
    }

    async fn types(&self) -> Result<Vec<StoredType>> {
        self.timed("other", self.inner.types()).await
    }

    async fn verify(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Verified> {
        self.timed("scan", self.inner.verify(entity_type, after_id, limit)).await
    }

    async fn check(&self, whole: bool) -> Result<()> {
        self.timed("other", self.inner.check(whole)).await
    }

    async fn reset(&self) -> Result<()> {
        self.timed("other", self.inner.reset()).await
    }

    async fn moment(&self) -> Result<Option<StoreMoment>> {
        self.inner.moment().await
    }

    // Not counted: it is we who ask, every few seconds.
    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        self.timed("other", self.inner.corrupt(key, field, value)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{EmbeddedSettings, EmbeddedStore};

    #[tokio::test]
    async fn every_call_is_counted_once_and_failures_with_their_reason() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = EmbeddedStore::open(EmbeddedSettings::new(directory.path().join("store.sqlite"))).expect("a store");
        let metrics = Metrics::default();
        let store = TimedStore::new(Arc::new(store), metrics.clone());
        let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels).unwrap_or_default();

        assert_eq!(store.put(&[]).await.expect("nothing to write"), []);
        let unknown = EntityType::new("Shot");
        assert!(store.digest(&unknown).await.is_err());
        assert!(store.health().await.ok);

        assert_eq!(value("sgcache_store_operations_total", &[("operation", "bulk")]), 1.0);
        assert_eq!(value("sgcache_store_operations_total", &[("operation", "scan")]), 1.0);
        assert_eq!(value("sgcache_store_operation_duration_seconds", &[("operation", "scan")]), 1.0);
        let failed = [("operation", "scan"), ("reason", "other")];
        assert_eq!(value("sgcache_store_operation_errors_total", &failed), 1.0);
        assert_eq!(value("sgcache_store_operation_errors_total", &[("operation", "bulk")]), 0.0);
    }
}
