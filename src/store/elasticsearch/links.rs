//! Rewrites links in stored rows: the one change that is not a fetched row.
//!
//! A rewritten document keeps its version and is written with `external_gte`: an
//! equal version is accepted, a row that was read meanwhile is newer and wins.
//! States are followed without limit, because searches rely on them. Names are
//! copies for people who look at the index; answers and conditions ask the
//! targets, so the copies may lag.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::{CachedType, LinkTarget, Referrers, Relinked, Result, RowState};
use super::document::{self, LinkChange, relink};
use super::search::{count, scan_step, search};
use super::targets::{Entry, Target};
use super::{Inner, dsl, fault};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{EntityRef, EntityType, Shape};

/// How many documents one step rewrites.
const STEP: usize = 1000;

/// How many rows get a new name at once; the rest keep their copy.
const MOST_RENAMED: u64 = 5000;

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
fn buried_links(targets: &[EntityRef]) -> Value {
    let refs: Vec<String> = targets.iter().map(ToString::to_string).collect();
    json!({"terms": {"_sg.retired_refs": refs}})
}

impl Inner {
    pub(super) async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        let targets = [target.clone()];
        let mut found = Referrers::default();
        for (entity_type, open) in self.open_types() {
            let any_link = dsl::any(vec![live_links(&open.cached, &targets), buried_links(&targets)]);
            let alive = json!({"terms": {"_sg.state": ["active", "retired"]}});
            let room = (limit - found.keys.len()) + 1;
            let body = json!({"query": dsl::all(vec![alive, any_link]), "_source": false, "size": room.min(90_000),
                "sort": [{"id": "asc"}]});
            let hits = search(&self.client, &self.names.write(&entity_type), &body).await?;
            found.keys.extend(hits.iter().map(|hit| EntityRef::new(entity_type.clone(), hit.entity_id())));
            if found.keys.len() > limit {
                found.keys.truncate(limit);
                found.more = true;
                break;
            }
        }
        Ok(found)
    }

    pub(super) async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        let keys = BTreeSet::from([target.key.clone()]);
        if let Some(known) = self.newest_truth(&target.key).await?
            && known.rv > target.rv.0
        {
            return Ok(Relinked { stale: true, ..Relinked::default() });
        }
        self.write_names(std::slice::from_ref(target), Entry::Told).await?;
        super::search::refresh(&self.client, [self.names.display_names()]).await?;
        let name = self.targets(&keys).await?.remove(&target.key).and_then(|known| known.name);
        let change = LinkChange { target: target.key.clone(), name, dead: target.state.is_dead() };
        self.rewrite(vec![change]).await
    }

    /// Returns what the own row or an earlier `relink` says; what links showed does not count.
    async fn newest_truth(&self, key: &EntityRef) -> Result<Option<Target>> {
        let told =
            super::search::Wanted { index: self.names.display_names(), id: Entry::Told.id(key), source: json!(true) };
        let own = self.is_open(&key.entity_type).then(|| super::search::Wanted {
            index: self.names.write(&key.entity_type),
            id: key.id.to_string(),
            source: json!(["_sg.rv"]),
        });
        let wanted: Vec<_> = [told].into_iter().chain(own).collect();
        let found = super::search::get_many(&self.client, &wanted).await?;
        let rv = |doc: document::Document| match doc.get("rv").and_then(Value::as_i64) {
            Some(rv) => rv,
            None => document::rv(&doc),
        };
        let newest = found.into_iter().flatten().map(rv).max();
        Ok(newest.map(|rv| Target { rv, ..Target::default() }))
    }

    /// Applies changes to every link they concern, in every type.
    pub(super) async fn rewrite(&self, changes: Vec<LinkChange>) -> Result<Relinked> {
        let mut relinked = Relinked::default();
        if changes.is_empty() {
            return Ok(relinked);
        }
        let _one_at_a_time = self.rewriting.lock().await;
        let keys = |wanted: fn(&LinkChange) -> bool| -> Vec<EntityRef> {
            changes.iter().filter(|change| wanted(change)).map(|change| change.target.clone()).collect()
        };
        let dead = keys(|change| change.dead);
        let alive = keys(|change| !change.dead);
        let named = keys(|change| !change.dead && change.name.is_some());
        for (entity_type, open) in self.open_types() {
            if link_fields(&open.cached).next().is_none() {
                continue;
            }
            let index = self.names.write(&entity_type);
            let states = dsl::any(vec![live_links(&open.cached, &dead), buried_links(&alive)]);
            relinked.rewritten += self.rewrite_type(&index, &states, &changes, u64::MAX).await?;
            if !named.is_empty() {
                let names = live_links(&open.cached, &named);
                let all = count(&self.client, &index, &names).await?;
                relinked.rewritten += self.rewrite_type(&index, &names, &changes, MOST_RENAMED).await?;
                relinked.pending += all.saturating_sub(MOST_RENAMED);
            }
        }
        Ok(relinked)
    }

    /// Rewrites the rows of one index that the query finds, at most `limit` of them.
    async fn rewrite_type(&self, index: &str, query: &Value, changes: &[LinkChange], limit: u64) -> Result<u64> {
        let (mut rewritten, mut seen, mut after) = (0, 0, -1);
        while seen < limit {
            let hits = scan_step(&self.client, index, query, &json!(true), after, STEP).await?;
            let Some(last) = hits.last() else { break };
            after = last.entity_id();
            seen += hits.len() as u64;
            let mut writes = Vec::new();
            for mut hit in hits {
                let mut changed = false;
                for change in changes {
                    changed |= relink(&mut hit.source, change);
                }
                if changed {
                    let source = Value::Object(hit.source).to_string();
                    writes.push(BulkOp::index(index, &hit.id, hit.version, VersionType::ExternalGte, source));
                }
            }
            rewritten += writes.len() as u64;
            self.write_rewritten(index, &writes).await?;
        }
        Ok(rewritten)
    }

    async fn write_rewritten(&self, index: &str, writes: &[BulkOp]) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        for outcome in self.client.bulk(writes, true).await? {
            if let ItemOutcome::StoreFault(reason) | ItemOutcome::Refused(reason) = outcome {
                return Err(fault::item_fault(&reason));
            }
        }
        super::search::refresh(&self.client, [index.to_owned()]).await
    }

    /// Returns those of the entities that links may not show.
    pub(super) async fn dead_among(&self, keys: &BTreeSet<EntityRef>) -> Result<Vec<EntityRef>> {
        let mut suspects = BTreeSet::new();
        let states = [RowState::Retired.as_str(), RowState::Absent.as_str()];
        let dead = json!({"terms": {"state": states}});
        let mut by_type: BTreeMap<&EntityType, Vec<i64>> = BTreeMap::new();
        for key in keys {
            by_type.entry(&key.entity_type).or_default().push(key.id);
        }
        by_type.retain(|entity_type, _| self.is_open(entity_type));
        let searches = by_type.into_iter().map(|(entity_type, ids)| async move {
            let query = dsl::all(vec![json!({"terms": {"_sg.state": states}}), dsl::ids(&ids)]);
            let body = json!({"query": query, "_source": false, "size": ids.len().min(90_000)});
            let hits = search(&self.client, &self.names.write(entity_type), &body).await?;
            let keys = hits.iter().map(|hit| EntityRef::new(entity_type.clone(), hit.entity_id()));
            Ok::<_, super::super::StoreError>(keys.collect::<Vec<_>>())
        });
        for found in futures::future::try_join_all(searches).await? {
            suspects.extend(found);
        }
        let told: Vec<String> = keys.iter().map(|key| Entry::Told.id(key)).collect();
        for some in told.chunks(5000) {
            let query = dsl::all(vec![dead.clone(), json!({"ids": {"values": some}})]);
            let body = json!({"query": query, "_source": ["type", "id"], "size": some.len()});
            let hits = search(&self.client, &self.names.display_names(), &body).await?;
            suspects.extend(hits.iter().filter_map(|hit| EntityRef::from_json(&Value::Object(hit.source.clone()))));
        }
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.targets(&suspects).await?;
        Ok(suspects.into_iter().filter(|key| known.get(key).is_some_and(Target::is_dead)).collect())
    }
}
