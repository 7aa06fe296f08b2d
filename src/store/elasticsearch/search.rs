//! The few calls that read documents: search, scan, get many.
//!
//! A search goes through the alias of active rows unless it says otherwise. A get
//! by id ignores the filter of an alias, so the caller looks at `_sg.state`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Result, StoreError, StoreErrorKind};
use super::document::Document;
use super::{dsl, fault};
use crate::elastic::{Call, Client};
use crate::entity::{EntityRef, EntityType};

/// The most rows that `from` and `size` may reach; a setting of every index.
pub(super) const WINDOW: usize = 100_000;

/// How many rows one step of a scan takes.
const STEP: usize = 5000;

/// One document that a search found.
#[derive(Debug, Deserialize)]
pub(super) struct Hit {
    #[serde(rename = "_id", default)]
    pub(super) id: String,
    #[serde(rename = "_version", default)]
    pub(super) version: i64,
    #[serde(rename = "_source", default)]
    pub(super) source: Document,
    /// Values taken from columns, each a list.
    #[serde(default)]
    pub(super) fields: Document,
}

impl Hit {
    /// Returns the id of the entity, which is the id of its document and its field `id`.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Corrupt`] for a document that is not of an entity.
    pub(super) fn entity_id(&self) -> Result<i64> {
        let id = self.column("id").first().and_then(Value::as_i64);
        id.or_else(|| self.id.parse().ok()).ok_or_else(|| {
            let message = format!("the document `{}` has no id of an entity: delete it from its index", self.id);
            StoreError::new(StoreErrorKind::Corrupt, message)
        })
    }

    /// Returns the key of the entity; see [`Self::entity_id`].
    pub(super) fn key(&self, entity_type: &EntityType) -> Result<EntityRef> {
        Ok(EntityRef::new(entity_type.clone(), self.entity_id()?))
    }

    /// The values of a column that was asked for.
    pub(super) fn column(&self, field: &str) -> &[Value] {
        self.fields.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The entities to which links are out of their fields.
    pub(super) fn retired_refs(&self) -> impl Iterator<Item = &str> {
        let refs = self.source.get("_sg").and_then(|sg| sg.get("retired_refs")).and_then(Value::as_array);
        refs.into_iter().flatten().filter_map(Value::as_str)
    }
}

#[derive(Deserialize)]
struct SearchAnswer {
    hits: Hits,
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards", default)]
    shards: Shards,
    #[serde(default)]
    aggregations: BTreeMap<String, Value>,
}

#[derive(Deserialize, Default)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize, Default)]
struct Shards {
    #[serde(default)]
    failed: u32,
}

/// Runs one search of `index` with this body.
pub(super) async fn search(client: &Client, index: &str, body: &Value) -> Result<Vec<Hit>> {
    Ok(run(client, index, body).await?.hits.hits)
}

/// Runs one search and returns what it aggregates.
pub(super) async fn aggregate(client: &Client, index: &str, body: &Value) -> Result<BTreeMap<String, Value>> {
    Ok(run(client, index, body).await?.aggregations)
}

async fn run(client: &Client, index: &str, body: &Value) -> Result<SearchAnswer> {
    let call = Call::post(format!("/{index}/_search"))
        .param("track_total_hits", false)
        .param("allow_partial_search_results", false)
        .json(body)
        .search();
    let answer: SearchAnswer = client.send(&call).await?.json()?;
    whole(answer, index)
}

fn whole(answer: SearchAnswer, index: &str) -> Result<SearchAnswer> {
    if answer.timed_out || answer.shards.failed > 0 {
        let message = format!("elasticsearch: a search of {index} was answered in part only");
        return Err(StoreError::new(StoreErrorKind::Unavailable, message));
    }
    Ok(answer)
}

/// One search among several.
pub(super) struct Search {
    pub(super) index: String,
    pub(super) body: Value,
}

/// Runs several searches in one call and returns the hits of each.
pub(super) async fn msearch(client: &Client, searches: &[Search]) -> Result<Vec<Vec<Hit>>> {
    #[derive(Deserialize)]
    struct Answers {
        responses: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        error: Value,
        #[serde(default)]
        status: u64,
        #[serde(default)]
        hits: Hits,
        #[serde(default)]
        timed_out: bool,
        #[serde(rename = "_shards", default)]
        shards: Shards,
    }
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = String::new();
    for search in searches {
        let header = json!({"index": search.index, "allow_partial_search_results": false});
        let mut body = search.body.clone();
        body["track_total_hits"] = false.into();
        lines.push_str(&format!("{header}\n{body}\n"));
    }
    let answers: Answers = client.send(&Call::post("/_msearch").raw(lines).search()).await?.json()?;
    let found = answers.responses.into_iter().zip(searches).map(|(answer, search)| {
        if !answer.error.is_null() {
            return Err(fault::search_fault(&search.index, answer.status, &answer.error));
        }
        let One { hits, timed_out, shards, .. } = answer;
        Ok(whole(SearchAnswer { hits, timed_out, shards, aggregations: BTreeMap::new() }, &search.index)?.hits.hits)
    });
    found.collect()
}

/// Returns every document that the query finds, by id, in steps; `source` as in a search.
///
/// Ids are unique and never change, so a row that exists throughout is seen
/// exactly once, without a point in time or a scroll.
pub(super) async fn scan(
    client: &Client,
    index: &str,
    query: &Value,
    source: &Value,
    after: i64,
    limit: usize,
) -> Result<Vec<Hit>> {
    let mut found: Vec<Hit> = Vec::new();
    let mut after = after;
    while found.len() < limit {
        let step = STEP.min(limit - found.len());
        let hits = scan_step(client, index, query, source, after, step).await?;
        let is_last = hits.len() < step;
        if let Some(hit) = hits.last() {
            after = hit.entity_id()?;
        }
        found.extend(hits);
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// Returns the next documents by id, each with its version. Documents without `id`, which
/// are damaged, are not among them: no step would lead past them.
pub(super) async fn scan_step(
    client: &Client,
    index: &str,
    query: &Value,
    source: &Value,
    after: i64,
    size: usize,
) -> Result<Vec<Hit>> {
    let query = dsl::all(vec![query.clone(), json!({"range": {"id": {"gt": after}}})]);
    let body = json!({"query": query, "_source": source, "version": true, "size": size, "sort": [{"id": "asc"}]});
    search(client, index, &body).await
}

/// Returns how many rows the query finds.
pub(super) async fn count(client: &Client, index: &str, query: &Value) -> Result<u64> {
    #[derive(Deserialize)]
    struct Count {
        count: u64,
    }
    let call = Call::post(format!("/{index}/_count")).json(&json!({ "query": query })).search();
    Ok(client.send(&call).await?.json::<Count>()?.count)
}

/// One document to get: index or alias, id, and which fields.
pub(super) struct Wanted {
    pub(super) index: String,
    pub(super) id: String,
    pub(super) source: Value,
}

/// Gets documents by id, as they are now and not as of the last refresh; `None` for those that are not there.
pub(super) async fn get_many(client: &Client, wanted: &[Wanted]) -> Result<Vec<Option<Document>>> {
    #[derive(Deserialize)]
    struct Answer {
        docs: Vec<Got>,
    }
    #[derive(Deserialize)]
    struct Got {
        #[serde(default)]
        found: bool,
        #[serde(rename = "_source", default)]
        source: Document,
        error: Option<Value>,
    }
    let mut documents = Vec::with_capacity(wanted.len());
    for step in wanted.chunks(STEP) {
        let docs: Vec<Value> =
            step.iter().map(|w| json!({"_index": w.index, "_id": w.id, "_source": w.source})).collect();
        let call = Call::post("/_mget").json(&json!({ "docs": docs })).search();
        let answer: Answer = client.send(&call).await?.json()?;
        for (got, w) in answer.docs.into_iter().zip(step) {
            if let Some(error) = got.error {
                return Err(fault::search_fault(&format!("{}/{}", w.index, w.id), 0, &error));
            }
            documents.push(got.found.then_some(got.source));
        }
    }
    Ok(documents)
}

/// Makes what was written to these indices visible to searches.
pub(super) async fn refresh(client: &Client, indices: impl IntoIterator<Item = String>) -> Result<()> {
    let indices: Vec<String> = indices.into_iter().collect();
    // The first line of a request is limited to 4 kB.
    for some in indices.chunks(40) {
        client.send(&Call::post(format!("/{}/_refresh", some.join(","))).patient().repeatable()).await?;
    }
    Ok(())
}
