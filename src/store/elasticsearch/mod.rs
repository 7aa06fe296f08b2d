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
//! - Links to retired entities are moved out of their fields by whoever learns of
//!   the retirement (`links`), so that no search has to know of it.
//! - A `put` that fails may have stored some of its rows: there are no
//!   transactions. Versions make repeating it harmless.

mod admin;
mod document;
mod dsl;
mod fault;
mod find;
mod generation;
mod island;
mod links;
mod mapping;
mod names;
mod plan;
mod search;
mod targets;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Bucket, CachedType, Catalogue, FetchedRow, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, ReadVersion,
    Referrers, Relinked, Result, Row, RowVersion, Store, StoredType,
};
use crate::elastic::{Call, Client, Settings};
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;
use names::Names;

/// A store on a server or cluster. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct ElasticsearchStore {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    names: Names,
    types: RwLock<BTreeMap<EntityType, OpenType>>,
    /// What the index of names holds already, so that it is not written again and again.
    known_names: Mutex<HashMap<EntityRef, (String, ReadVersion)>>,
    /// One rewriter of links at a time: two would undo each other at equal versions.
    rewriting: tokio::sync::Mutex<()>,
    /// One change of an index at a time.
    changing: tokio::sync::Mutex<()>,
}

/// A type that has an index.
#[derive(Debug, Clone)]
struct OpenType {
    cached: CachedType,
    /// Fields with a mapping of the user's own.
    own_mapping: BTreeSet<String>,
}

/// Our record in the `_meta` of an index.
#[derive(Debug, Clone, Deserialize)]
struct Meta {
    format: u64,
    cached: CachedType,
    #[serde(default)]
    own_mapping: BTreeSet<String>,
}

impl Meta {
    /// Reads the record of an index, given its mapping; `None` when the index is not ours.
    fn of(mapping: &Value) -> Option<Self> {
        serde_json::from_value(mapping.pointer("/_meta/sgcache")?.clone()).ok()
    }
}

impl ElasticsearchStore {
    /// Opens the store whose names begin with `prefix`, and learns which types it has.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, refuses the credentials, or holds an
    /// index of ours that a newer version wrote.
    pub async fn open(settings: &Settings, prefix: &str) -> Result<Self> {
        let inner = Inner {
            client: Client::new(settings)?,
            names: Names::new(prefix),
            types: RwLock::default(),
            known_names: Mutex::default(),
            rewriting: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        let server = inner.client.server().await?;
        tracing::debug!(%server, prefix, "opened the store");
        inner.load_types().await?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// Reads which types there are from the indices themselves.
    async fn load_types(&self) -> Result<()> {
        let call = Call::get(format!("/{}-write/_mapping", self.names.any_entity_index()))
            .param("allow_no_indices", true)
            .accept(&[404]);
        let answer = self.client.send(&call).await?;
        if !answer.is_success() {
            return Ok(());
        }
        let indices: BTreeMap<String, Value> = answer.json()?;
        for (index, description) in indices {
            let Some(meta) = Meta::of(&description["mappings"]) else { continue };
            generation::check_format(&index, &meta)?;
            self.opened(meta);
        }
        Ok(())
    }

    fn opened(&self, meta: Meta) {
        let mut types = self.types.write().unwrap_or_else(PoisonError::into_inner);
        types.insert(meta.cached.entity_type.clone(), OpenType { cached: meta.cached, own_mapping: meta.own_mapping });
    }

    fn closed(&self, entity_type: &EntityType) {
        self.types.write().unwrap_or_else(PoisonError::into_inner).remove(entity_type);
    }

    fn open_types(&self) -> BTreeMap<EntityType, OpenType> {
        self.types.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_type(&self, entity_type: &EntityType) -> Result<OpenType> {
        let types = self.types.read().unwrap_or_else(PoisonError::into_inner);
        types.get(entity_type).cloned().ok_or_else(|| super::StoreError::unknown_type(entity_type))
    }

    fn is_open(&self, entity_type: &EntityType) -> bool {
        self.types.read().unwrap_or_else(PoisonError::into_inner).contains_key(entity_type)
    }

    fn catalogue(&self) -> Catalogue {
        let types = self.open_types().into_iter().map(|(name, open)| (name, open.cached));
        Catalogue { types: types.collect() }
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
        self.inner.get(keys, fields).await
    }

    async fn find(&self, query: &Query) -> Result<Found> {
        self.inner.find(query).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        self.inner.referrers(target, limit).await
    }

    async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        self.inner.relink(target).await
    }

    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        self.inner.digest(entity_type).await
    }

    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        self.inner.scan(entity_type, after_id, limit).await
    }

    async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        self.inner.purge(scope).await
    }

    async fn types(&self) -> Result<Vec<StoredType>> {
        self.inner.stored_types().await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        self.inner.corrupt(key, field, value).await
    }
}
