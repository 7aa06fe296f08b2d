//! The store on Elasticsearch 7.17 to 9 and OpenSearch.
//!
//! One index per entity type behind two aliases (`names`), strict mappings
//! (`mapping`), whole documents written with the read version as external version
//! (`write`). No script, no x-pack, no point in time, no `_update`, no
//! `*_by_query`: every server of these lines answers what is used here.
//!
//! What shapes this code:
//!
//! - `GET` by id ignores the filter of an alias, a search does not. So a get looks
//!   at `_sg.state` itself, and searches go through the alias of active rows.
//! - A server cannot join. A condition on a linked entity is answered in two
//!   steps (`plan`); display names are asked of their targets at every answer and
//!   every condition on names (`targets`), because copies grow old.
//! - Links to retired entities are moved out of their fields by the write that learns of
//!   the retirement (`links`), so that no search has to know of it.
//! - A refresh costs as much as indexing a page of rows. Puts that run side by side
//!   share one, and the searches for their consequences (`settle`).
//! - The server compares a write either with a version or with a sequence number.
//!   So there is room for rewrites between two versions of reads (`version`).
//! - A `put` that fails may have stored some of its rows: there are no
//!   transactions. Versions make repeating it harmless.

mod admin;
mod damage;
mod document;
mod dsl;
mod fault;
mod find;
mod generation;
mod joined_rows;
mod links;
mod mapping;
mod names;
mod plan;
mod search;
mod group_commit;
mod seen_names;
mod targets;
mod types;
mod version;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{
    Bucket, FetchedRow, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, ReadVersion, Referrers, Relinked,
    Result, Row, RowState, RowVersion, Store, StoreErrorKind, StoredType, Verified,
};
use crate::elastic::{Client, Settings};
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;
pub use mapping::IndexShape;
use names::Names;

/// A store on a server or cluster. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct ElasticsearchStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    names: Names,
    shape: IndexShape,
    types: types::Known,
    shown: seen_names::SeenNames,
    group_commit: group_commit::GroupCommit,
    /// One change of an index at a time.
    changing: tokio::sync::Mutex<()>,
}

impl ElasticsearchStore {
    /// Opens the store whose names begin with `prefix`, and learns which types it has.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses the credentials, or holds an
    /// index of ours that a newer version wrote.
    pub async fn open(settings: &Settings, prefix: &str) -> Result<Self> {
        Self::open_shaped(settings, prefix, IndexShape::default()).await
    }

    /// The same, with new indices of another shape.
    ///
    /// # Errors
    ///
    /// See [`ElasticsearchStore::open`].
    pub async fn open_shaped(settings: &Settings, prefix: &str, shape: IndexShape) -> Result<Self> {
        Self::open_with(Client::new(settings)?, prefix, shape).await
    }

    /// The same with a client that may have a guard: whatever would change an index is
    /// asked of it first, and refused as [`StoreErrorKind::NotLeader`].
    ///
    /// # Errors
    ///
    /// See [`ElasticsearchStore::open`].
    pub async fn open_with(client: Client, prefix: &str, shape: IndexShape) -> Result<Self> {
        let inner = Inner {
            client,
            names: Names::new(prefix),
            shape,
            types: types::Known::default(),
            shown: seen_names::SeenNames::default(),
            group_commit: group_commit::GroupCommit::default(),
            changing: tokio::sync::Mutex::default(),
        };
        let server = inner.client.server().await?;
        tracing::debug!(%server, prefix, "opened the store");
        inner.load_types().await?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl ElasticsearchStore {
    /// Asks, and asks again when the answer is a fault and another process has changed a type meanwhile.
    async fn ask<'a, T>(
        &'a self,
        types: &[&EntityType],
        ask: impl Fn(&'a Inner) -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        self.inner.know(types.iter().copied()).await?;
        match ask(&self.inner).await {
            // The error tells more than one of the look at the types would.
            Err(error) if error.kind() == StoreErrorKind::Fault && self.inner.load_types().await.unwrap_or(false) => {
                ask(&self.inner).await
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl Store for ElasticsearchStore {
    async fn ensure_type(&self, layout: &TypeLayout) -> Result<()> {
        self.inner.ensure_type(layout).await
    }

    async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        self.inner.put(rows).await
    }

    async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
        let types: BTreeSet<&EntityType> = keys.iter().map(|key| &key.entity_type).collect();
        let types: Vec<&EntityType> = types.into_iter().collect();
        self.ask(&types, |inner| Box::pin(inner.get(keys, fields))).await
    }

    async fn find(&self, query: &Query) -> Result<Found> {
        self.ask(&[&query.entity_type], |inner| Box::pin(inner.find(query))).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.ask(&[&query.entity_type], |inner| Box::pin(inner.count(query))).await
    }

    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        self.ask(&[], |inner| Box::pin(inner.referrers(target, limit))).await
    }

    async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        self.ask(&[], |inner| Box::pin(inner.relink(target))).await
    }

    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        self.ask(&[entity_type], |inner| Box::pin(inner.digest(entity_type))).await
    }

    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.ask(&[entity_type], |inner| Box::pin(inner.scan(entity_type, dsl::everything(), after_id, limit))).await
    }

    async fn scan_inactive(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        let inactive = || dsl::not(json!({"term": {"_sg.state": RowState::Active.as_str()}}));
        self.ask(&[entity_type], |inner| Box::pin(inner.scan(entity_type, inactive(), after_id, limit))).await
    }

    async fn verify(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Verified> {
        self.ask(&[entity_type], |inner| Box::pin(inner.verify(entity_type, after_id, limit))).await
    }

    async fn highest_version(&self) -> Result<ReadVersion> {
        self.inner.highest_version().await
    }

    async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        self.inner.load_types().await?;
        self.inner.purge(scope).await
    }

    async fn types(&self) -> Result<Vec<StoredType>> {
        self.inner.stored_types().await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        self.inner.know([&key.entity_type].into_iter()).await?;
        self.inner.corrupt(key, field, value).await
    }
}
