//! Rewrites links in stored rows: the one change that is not a fetched row.
//!
//! A rewritten document is written with the version after the one that was seen
//! (`version`): a row that was read meanwhile is newer and wins, and of two
//! rewriters, also in two processes, the second one loses and looks again. After
//! the last rewrite it is asked once more what holds of the targets, so that
//! a writer that decided on an older state corrects it. States are followed without
//! limit, because searches rely on them. Names are copies for people who look at
//! the index; answers and conditions ask the targets, so the copies may lag.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::{CachedType, LinkTarget, Referrers, Relinked, Result, StoreError, StoreErrorKind};
use super::document::{self, LinkChange, relink};
use super::search::{count, scan_step, search};
use super::targets::Entry;
use super::{Inner, dsl, fault, version};
use crate::elastic::{BulkOp, ItemOutcome};
use crate::entity::{EntityRef, EntityType, Shape};

/// How many documents one step rewrites.
const STEP: usize = 1000;

/// How many rows get a new name at once; the rest keep their copy.
const MOST_RENAMED: u64 = 5000;

/// How often rewriting begins again because others rewrote the same rows.
const MOST_ROUNDS: u32 = 20;

/// Returns the fields of a type that hold links.
pub(super) fn link_fields(cached: &CachedType) -> impl Iterator<Item = &str> {
    let is_link = |shape: Shape| matches!(shape, Shape::Link | Shape::Links);
    cached.fields.iter().filter(move |(_, ty)| is_link(ty.shape())).map(|(name, _)| name.as_str())
}

/// Rows of a type with a live link to one of the targets.
fn live_links(cached: &CachedType, targets: &[EntityRef]) -> Value {
    dsl::any(link_fields(cached).map(|field| dsl::refs(field, targets)).collect())
}

/// Rows of a type whose link to one of the targets is out of its field.
fn retired_links(targets: &[EntityRef]) -> Value {
    let refs: Vec<String> = targets.iter().map(ToString::to_string).collect();
    json!({"terms": {"_sg.retired_refs": refs}})
}

impl Inner {
    pub(super) async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        let targets = [target.clone()];
        let mut found = Referrers::default();
        for (entity_type, open) in self.open_types().iter() {
            let any_link = dsl::any(vec![live_links(&open.cached, &targets), retired_links(&targets)]);
            let alive = json!({"terms": {"_sg.state": ["active", "retired"]}});
            let room = (limit - found.keys.len()) + 1;
            let body = json!({"query": dsl::all(vec![alive, any_link]), "size": room.min(90_000), "sort": [{"id": "asc"}],
                "_source": false, "stored_fields": "_none_", "docvalue_fields": ["id"]});
            let hits = search(&self.client, &self.names.write(entity_type), &body).await?;
            for hit in &hits {
                found.keys.push(hit.key(entity_type)?);
            }
            if found.keys.len() > limit {
                found.keys.truncate(limit);
                found.more = true;
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        if self.newest_truth(&target.key).await?.is_some_and(|newest| newest > target.rv.0) {
            return Ok(Relinked { stale: true, ..Relinked::default() });
        }
        self.write_names(std::slice::from_ref(target), Entry::Relinked).await?;
        super::search::refresh(&self.client, [self.names.display_names()]).await?;
        self.bring_in_line(&BTreeSet::from([target.key.clone()]), true).await
    }

    /// Returns the version of what the own row or an earlier `relink` says; what links showed does not count.
    async fn newest_truth(&self, key: &EntityRef) -> Result<Option<i64>> {
        let relinked = super::search::Wanted {
            index: self.names.display_names(),
            id: Entry::Relinked.id(key),
            source: json!(true),
        };
        let own = self.is_open(&key.entity_type).then(|| super::search::Wanted {
            index: self.names.write(&key.entity_type),
            id: key.id.to_string(),
            source: json!(["_sg.rv"]),
        });
        let wanted: Vec<_> = [relinked].into_iter().chain(own).collect();
        let found = super::search::get_many(&self.client, &wanted).await?;
        // One that cannot be read says nothing; its document has the version all the same, so
        // that nothing older is written over it.
        let rv = |doc: document::Document| doc.get("rv").and_then(Value::as_i64).or_else(|| document::rv(&doc));
        let newest = found.into_iter().flatten().filter_map(rv).max();
        Ok(newest)
    }

    /// Brings every link to these entities in line with what is known of them: their state, and their name if asked.
    pub(super) async fn bring_in_line(&self, keys: &BTreeSet<EntityRef>, rename: bool) -> Result<Relinked> {
        let mut relinked = Relinked::default();
        if keys.is_empty() {
            return Ok(relinked);
        }
        let mut changes = self.changes(keys, rename).await?;
        for _ in 0..MOST_ROUNDS {
            let undisturbed = self.rewrite(&changes, &mut relinked).await?;
            let now = self.changes(keys, rename).await?;
            if undisturbed && now == changes {
                return Ok(relinked);
            }
            changes = now;
        }
        let message = format!("elasticsearch: links to {} entities are rewritten by others all the time", keys.len());
        Err(StoreError::new(StoreErrorKind::Unavailable, message))
    }

    /// Returns what has to hold of links to these entities.
    async fn changes(&self, keys: &BTreeSet<EntityRef>, rename: bool) -> Result<Vec<LinkChange>> {
        let mut known = self.targets(keys).await?;
        let change = |key: &EntityRef| {
            let target = known.remove(key).unwrap_or_default();
            let dead = target.is_dead();
            LinkChange { target: key.clone(), name: target.name.filter(|_| rename), dead }
        };
        Ok(keys.iter().map(change).collect())
    }

    /// Applies changes to every link they concern, in every type, and tells whether no write was lost.
    async fn rewrite(&self, changes: &[LinkChange], relinked: &mut Relinked) -> Result<bool> {
        let keys = |wanted: fn(&LinkChange) -> bool| -> Vec<EntityRef> {
            changes.iter().filter(|change| wanted(change)).map(|change| change.target.clone()).collect()
        };
        let dead = keys(|change| change.dead);
        let alive = keys(|change| !change.dead);
        let named = keys(|change| !change.dead && change.name.is_some());
        relinked.pending = 0;
        let mut undisturbed = true;
        for (entity_type, open) in self.open_types().iter() {
            if link_fields(&open.cached).next().is_none() {
                continue;
            }
            let index = self.names.write(entity_type);
            let states = dsl::any(vec![live_links(&open.cached, &dead), retired_links(&alive)]);
            undisturbed &= self.rewrite_type((entity_type, &index), &states, changes, u64::MAX, relinked).await?;
            if !named.is_empty() {
                let names = live_links(&open.cached, &named);
                let all = count(&self.client, &index, &names).await?;
                undisturbed &=
                    self.rewrite_type((entity_type, &index), &names, changes, MOST_RENAMED, relinked).await?;
                relinked.pending += all.saturating_sub(MOST_RENAMED);
            }
        }
        Ok(undisturbed)
    }

    /// Rewrites the rows of one index that the query finds, at most `limit` of them.
    async fn rewrite_type(
        &self,
        (entity_type, index): (&EntityType, &str),
        query: &Value,
        changes: &[LinkChange],
        limit: u64,
        relinked: &mut Relinked,
    ) -> Result<bool> {
        let (mut undisturbed, mut seen, mut after) = (true, 0, -1);
        while seen < limit {
            let hits = scan_step(&self.client, index, query, &json!(true), after, STEP).await?;
            let Some(last) = hits.last() else { break };
            after = last.entity_id()?;
            seen += hits.len() as u64;
            let mut writes = Vec::new();
            for mut hit in hits {
                let (key, mut changed) = (hit.key(entity_type)?, false);
                for change in changes {
                    changed |= relink(&mut hit.source, change).map_err(|error| StoreError::damaged(&key, error))?;
                }
                if changed {
                    let source = Value::Object(hit.source).to_string();
                    let (version, version_type) = version::after(hit.version);
                    writes.push(BulkOp::index(index, &hit.id, version, version_type, source));
                }
            }
            undisturbed &= self.write_rewritten(index, &writes, relinked).await?;
        }
        Ok(undisturbed)
    }

    async fn write_rewritten(&self, index: &str, writes: &[BulkOp], relinked: &mut Relinked) -> Result<bool> {
        if writes.is_empty() {
            return Ok(true);
        }
        let mut undisturbed = true;
        for outcome in self.client.bulk(writes, true).await? {
            match outcome {
                ItemOutcome::Done => relinked.rewritten += 1,
                ItemOutcome::Stale => undisturbed = false,
                ItemOutcome::StoreFault(reason) | ItemOutcome::Refused(reason) => {
                    return Err(fault::item_fault(&reason));
                }
            }
        }
        super::search::refresh(&self.client, [index.to_owned()]).await?;
        Ok(undisturbed)
    }
}
