//! What a store is asked besides queries: digests, scans, purges, health.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{
    BUCKET_SIZE, Bucket, Health, PurgeScope, ReadVersion, Result, RowState, RowVersion, StoreError, StoreErrorKind,
    StoredType,
};
use super::document::{Document, written};
use super::search::{Hit, aggregate, scan, scan_step};
use super::types::OpenType;
use super::{Inner, dsl, fault, version};
use crate::elastic::{BulkOp, Call, ItemOutcome};
use crate::entity::{EntityRef, EntityType, FieldValue, RowHash, Timestamp};

/// Buckets that one aggregation returns; servers refuse more than 65,536.
const MOST_BUCKETS: i64 = 10_000;

impl Inner {
    /// Sums of 32-bit numbers come back as doubles, exact below 2^53: 1,000 of them are far below.
    pub(super) async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        self.open_type(entity_type)?;
        let index = self.names.read(entity_type);
        let mut buckets = Vec::new();
        let mut first = 0;
        while let Some(next) = self.first_id_from(&index, first).await? {
            let first_id = next.div_euclid(BUCKET_SIZE) * BUCKET_SIZE;
            let end = first_id + MOST_BUCKETS * BUCKET_SIZE;
            let body = json!({"size": 0, "query": {"range": {"id": {"gte": first_id, "lt": end}}}, "aggs": {"buckets": {
                "histogram": {"field": "id", "interval": BUCKET_SIZE, "min_doc_count": 1},
                "aggs": {"sum": {"sum": {"field": "_sg.hash32"}}}}}});
            let found = aggregate(&self.client, &index, &body).await?;
            // Without them every row would seem to be missing.
            let found = found.get("buckets").and_then(|found| found["buckets"].as_array()).ok_or_else(|| {
                let message = format!("elasticsearch: the answer about {index} has no buckets");
                StoreError::new(StoreErrorKind::Fault, message)
            })?;
            buckets.extend(found.iter().map(bucket));
            first = end;
        }
        Ok(buckets)
    }

    async fn first_id_from(&self, index: &str, first: i64) -> Result<Option<i64>> {
        let hits = scan_step(&self.client, index, &dsl::everything(), &json!(false), first - 1, 1).await?;
        hits.first().map(Hit::entity_id).transpose()
    }

    pub(super) async fn scan(
        &self,
        entity_type: &EntityType,
        query: Value,
        after: i64,
        limit: usize,
    ) -> Result<Vec<RowVersion>> {
        self.open_type(entity_type)?;
        let source = json!(["_sg.rv", "_sg.state", "_sg.hash", "updated_at"]);
        let index = self.names.write(entity_type);
        let hits = scan(&self.client, &index, &query, &source, after, limit).await?;
        hits.iter().map(row_version).collect()
    }

    pub(super) async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        match scope {
            PurgeScope::Type(entity_type) => self.purge_type(entity_type).await,
            PurgeScope::Tombstones { older_than } => {
                let mut purged = 0;
                for entity_type in self.open_types().keys() {
                    purged += self.purge_tombstones(entity_type, *older_than).await?;
                }
                Ok(purged)
            }
        }
    }

    async fn purge_type(&self, entity_type: &EntityType) -> Result<u64> {
        self.open_type(entity_type)?;
        let _one_at_a_time = self.changing.lock().await;
        let rows = super::search::count(&self.client, &self.names.write(entity_type), &dsl::everything()).await?;
        // What is known of its entities as targets of links stays.
        self.keep_names(entity_type).await?;
        for index in self.generation_names(entity_type).await? {
            self.delete_index(&index).await?;
        }
        self.closed(entity_type);
        Ok(rows)
    }

    /// Each delete carries the version that was seen, so a newer row stays.
    async fn purge_tombstones(&self, entity_type: &EntityType, older_than: Timestamp) -> Result<u64> {
        let index = self.names.write(entity_type);
        let old = dsl::all(vec![
            json!({"terms": {"_sg.state": ["absent", "filtered"]}}),
            json!({"range": {"_sg.fetched_at": {"lt": older_than.to_string()}}}),
        ]);
        let mut purged = 0;
        let mut after = -1;
        loop {
            let hits = scan_step(&self.client, &index, &old, &json!(false), after, 5000).await?;
            let Some(last) = hits.last() else { break };
            after = last.entity_id()?;
            let deletes: Vec<BulkOp> = hits.iter().map(|hit| BulkOp::delete(&index, &hit.id, hit.version)).collect();
            for outcome in self.client.bulk(&deletes, true).await? {
                match outcome {
                    ItemOutcome::Done => purged += 1,
                    ItemOutcome::Stale => {}
                    ItemOutcome::Refused(reason) | ItemOutcome::StoreFault(reason) => {
                        return Err(fault::item_fault(&reason));
                    }
                }
            }
        }
        if purged > 0 {
            super::search::refresh(&self.client, [index]).await?;
        }
        Ok(purged)
    }

    /// The greatest number of an aggregation is a double; a version that is a little too
    /// high does no harm.
    pub(super) async fn highest_version(&self) -> Result<ReadVersion> {
        let mut highest = 0.0_f64;
        for (index, field) in [(self.names.any_entity_index(), "_sg.rv"), (self.names.display_names(), "rv")] {
            let refresh = Call::post(format!("/{index}/_refresh")).param("ignore_unavailable", true).accept(&[404]);
            self.client.send(&refresh).await?;
            let call = Call::post(format!("/{index}/_search"))
                .param("ignore_unavailable", true)
                .param("allow_partial_search_results", false)
                .json(&json!({"size": 0, "aggs": {"rv": {"max": {"field": field}}}}))
                .search();
            let found: Value = self.client.send(&call).await?.value()?;
            highest = highest.max(found.pointer("/aggregations/rv/value").and_then(Value::as_f64).unwrap_or(0.0));
        }
        Ok(ReadVersion(highest.ceil() as i64))
    }

    pub(super) async fn stored_types(&self) -> Result<Vec<StoredType>> {
        self.load_types().await?;
        let stored = |open: &Arc<OpenType>| StoredType {
            entity_type: open.cached.entity_type.clone(),
            layout_hash: open.cached.hash.clone(),
        };
        Ok(self.open_types().values().map(stored).collect())
    }

    pub(super) async fn health(&self) -> Health {
        self.check().await.unwrap_or_else(|error| Health { message: error.to_string(), ..Health::default() })
    }

    async fn check(&self) -> Result<Health> {
        let server = self.client.server().await?;
        let indices = self.names.any_entity_index();
        let call = Call::get(format!("/_cluster/health/{indices}")).param("level", "indices").accept(&[408]);
        let health = self.client.send(&call).await?.value()?;
        let (mut missing, mut written) = (Vec::new(), Vec::new());
        let aliases = Call::get(format!("/{indices}/_alias")).param("allow_no_indices", true).accept(&[404]);
        let described: BTreeMap<String, Value> = self.client.send(&aliases).await?.json().unwrap_or_default();
        for entity_type in self.open_types().keys() {
            let alias = self.names.write(entity_type);
            let of_type = described.iter().find(|(_, index)| index["aliases"].get(&alias).is_some());
            match of_type {
                Some((index, _)) => written.push(index.as_str()),
                None => missing.push(alias),
            }
        }
        let status = health["status"].as_str().unwrap_or("unknown").to_owned();
        let ok = status != "red" && missing.is_empty();
        let mut message = format!("{server} at {}, {status}", self.client.urls().join(", "));
        if !missing.is_empty() {
            message.push_str(&format!("; missing: {}", missing.join(", ")));
        }
        let write_problem = self.write_block(&indices, &written).await;
        Ok(Health { ok, message, bytes: self.bytes(&indices).await, write_problem, is_lost: false })
    }

    /// Returns the block that keeps one of these indices from being written, set by an
    /// operator or by a server whose disk is full. Without a write nothing else shows it.
    /// Not every account, and not every service, may ask.
    async fn write_block(&self, indices: &str, written: &[&str]) -> Option<String> {
        let call = Call::get(format!("/_cluster/state/blocks/{indices}")).param("filter_path", "blocks");
        let state = self.client.send(&call).await.ok()?.value().ok()?;
        let indices = written.iter().map(|index| (*index, state.pointer(&format!("/blocks/indices/{index}"))));
        let cluster = ("the cluster", state.pointer("/blocks/global"));
        std::iter::once(cluster).chain(indices).find_map(|(place, blocks)| {
            let stops_writes = |block: &&Value| {
                block["levels"].as_array().is_some_and(|levels| levels.iter().any(|level| level == "write"))
            };
            let block = blocks?.as_object()?.values().find(stops_writes)?;
            let words = block["description"].as_str().unwrap_or("a block of writes");
            Some(format!("elasticsearch: {place} takes no writes: {words}; remove the block, see `index.blocks`"))
        })
    }

    /// The size on disk; not every account may ask for it.
    async fn bytes(&self, indices: &str) -> Option<u64> {
        let call = Call::get(format!("/{indices}/_stats/store")).param("filter_path", "_all.primaries.store");
        let answer = self.client.send(&call).await.ok()?.value().ok()?;
        answer.pointer("/_all/primaries/store/size_in_bytes").and_then(Value::as_u64)
    }

    pub(super) async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        let refuse = |message: String| StoreError::new(StoreErrorKind::Refused, message);
        let open = self.open_type(&key.entity_type)?;
        let data_type = open.cached.data_type(field).filter(|_| field != "id");
        let data_type = data_type.ok_or_else(|| refuse(format!("`{}.{field}` is not cached", key.entity_type)))?;
        FieldValue::from_json(data_type, &value).map_err(|error| refuse(format!("{key}.{field}: {error}")))?;
        let index = self.names.write(&key.entity_type);
        let hits = scan_step(&self.client, &index, &dsl::ids(&[key.id]), &json!(true), -1, 1).await?;
        let hit = hits.into_iter().next().ok_or_else(|| refuse(format!("{key} is not stored")))?;
        let mut document: Document = hit.source;
        document.insert(field.to_owned(), written(data_type, &value));
        let source = Value::Object(document).to_string();
        let (version, version_type) = version::after(hit.version);
        let write = BulkOp::index(&index, &hit.id, version, version_type, source);
        match self.client.bulk(&[write], true).await?.into_iter().next() {
            Some(ItemOutcome::Done) => super::search::refresh(&self.client, [index]).await,
            other => Err(refuse(format!("{key} was not changed: {other:?}"))),
        }
    }
}

fn bucket(bucket: &Value) -> Bucket {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    Bucket {
        number: number(&bucket["key"]) as i64 / BUCKET_SIZE,
        count: bucket["doc_count"].as_u64().unwrap_or_default(),
        sum: number(&bucket["sum"]["value"]) as u64,
    }
}

/// What cannot be read becomes what no stored row has (version 0): the comparison with the
/// state then finds that the row differs, quarantines it and has it read again.
fn row_version(hit: &Hit) -> Result<RowVersion> {
    let bookkeeping = |field: &str| hit.source.get("_sg").and_then(|sg| sg.get(field));
    let text = |field: &str| bookkeeping(field).and_then(Value::as_str);
    let updated_at = hit.source.get("updated_at").and_then(Value::as_str);
    Ok(RowVersion {
        id: hit.entity_id()?,
        rv: ReadVersion(bookkeeping("rv").and_then(Value::as_i64).unwrap_or_default()),
        state: text("state").and_then(RowState::parse).unwrap_or(RowState::Absent),
        hash: text("hash").and_then(RowHash::parse).unwrap_or(RowHash(0)),
        updated_at: updated_at.and_then(Timestamp::parse),
    })
}
