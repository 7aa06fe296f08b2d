//! The Elasticsearch store against a real server: what is special to it.
//!
//! What every store must do is in the conformance function; here is what can only
//! happen on a server: aliases and generations, names that are taken, faults.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sgcache::elastic::{Call, Client, Settings};
use sgcache::entity::{DataType, EntityRef, Timestamp};
use sgcache::entity_config::{LayoutField, TypeLayout};
use sgcache::filter::{Filter, Query, RawFilter};
use sgcache::store::elasticsearch::ElasticsearchStore;
use sgcache::store::{FetchedRow, LinkTarget, PurgeScope, PutOutcome, ReadVersion, RowState, Store, StoreErrorKind};

use crate::servers::{TestIndices, elasticsearch};

const SUITE: &str = "elastic_store";

pub fn settings(url: &str) -> Settings {
    let mut settings = Settings::new([url]);
    settings.retry.first_pause = Duration::from_millis(1);
    settings
}

pub fn layout(entity_type: &str, fields: &[(&str, DataType)]) -> TypeLayout {
    let field = |&(name, data_type): &(&str, DataType)| LayoutField {
        name: name.to_owned(),
        data_type,
        valid_types: vec![],
        mapping: None,
    };
    let mut fields: Vec<LayoutField> = fields.iter().map(field).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let hash = format!("{fields:?}");
    TypeLayout {
        entity_type: entity_type.into(),
        fields: fields.into(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash,
    }
}

fn shots() -> TypeLayout {
    layout("Shot", &[("code", DataType::Text), ("assets", DataType::MultiEntity), ("sg_sequence", DataType::Entity)])
}

fn shot(id: i64, rv: i64, code: &str) -> FetchedRow {
    row(&shots(), id, rv, RowState::Active, json!({"code": code, "assets": [], "sg_sequence": null}))
}

pub fn row(layout: &TypeLayout, id: i64, rv: i64, state: RowState, fields: Value) -> FetchedRow {
    let fields: Map<String, Value> = fields.as_object().unwrap().clone();
    let key = EntityRef::new(layout.entity_type.clone(), id);
    FetchedRow::from_site(layout, key, ReadVersion(rv), state, fields, Timestamp(1_700_000_000), None).unwrap()
}

pub fn link(entity_type: &str, id: i64, name: &str) -> Value {
    json!({"type": entity_type, "id": id, "name": name})
}

struct Fixture {
    store: ElasticsearchStore,
    client: Client,
    indices: TestIndices,
}

impl Fixture {
    async fn new(url: &'static str) -> Self {
        let indices = TestIndices::new(url);
        let store = ElasticsearchStore::open(&settings(url), indices.prefix()).await.unwrap();
        Self { store, client: Client::new(&settings(url)).unwrap(), indices }
    }

    async fn with(url: &'static str, layouts: &[&TypeLayout]) -> Self {
        let fixture = Self::new(url).await;
        for layout in layouts {
            fixture.store.ensure_type(layout).await.unwrap();
        }
        fixture
    }

    async fn call(&self, call: Call) -> Value {
        self.client.send(&call).await.unwrap().value().unwrap()
    }

    async fn index_of(&self, alias: &str) -> Vec<String> {
        let found = self.call(Call::get(format!("/_alias/{}", self.indices.name(alias)))).await;
        found.as_object().unwrap().keys().cloned().collect()
    }

    async fn codes(&self) -> Vec<Value> {
        let query = Query::all("Shot").fields(shots().paths());
        let found = self.store.find(&query).await.unwrap();
        found.rows.iter().map(|row| row.get("code").unwrap()).collect()
    }
}

#[tokio::test]
async fn active_rows_are_behind_an_alias_that_any_client_can_read() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let retired = row(&shots(), 2, 5, RowState::Retired, json!({"code": "b", "assets": [], "sg_sequence": null}));
    fixture.store.put(&[shot(1, 5, "a"), retired]).await.unwrap();
    let alias = fixture.indices.name("entity-shot");
    let found = fixture.call(Call::post(format!("/{alias}/_search")).search()).await;
    let sources: Vec<&Value> = found["hits"]["hits"].as_array().unwrap().iter().map(|hit| &hit["_source"]).collect();
    assert_eq!(sources.len(), 1);
    assert_eq!((&sources[0]["code"], &sources[0]["_sg"]["rv"]), (&json!("a"), &json!(5)));
}

#[tokio::test]
async fn an_index_of_that_name_that_is_not_ours_is_left_alone() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::new(url).await;
    for taken in ["names", "entity-shot", "entity-asset-write", "entity-task-000001"] {
        let name = fixture.indices.name(taken);
        fixture.call(Call::put(format!("/{name}")).json(&json!({"mappings": {"_meta": {"theirs": 1}}}))).await;
        let entity_type = taken.split('-').nth(1).map_or("Shot".to_owned(), |t| t[..1].to_uppercase() + &t[1..]);
        let error = fixture.store.ensure_type(&layout(&entity_type, &[])).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("index {name} was not made by sgcache")) && text.contains("`prefix`"), "{text}");
        fixture.call(Call::get(format!("/{name}"))).await;
        fixture.call(Call::delete(format!("/{name}"))).await;
    }
}

#[tokio::test]
async fn a_new_field_is_added_in_place_and_a_changed_one_makes_a_new_generation() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let absent = FetchedRow::absent(EntityRef::new("Shot", 3), ReadVersion(9), Timestamp(0), None);
    fixture.store.put(&[shot(1, 5, "12"), shot(2, 6, "b"), absent]).await.unwrap();
    let first = fixture.index_of("entity-shot-write").await;

    let more = layout(
        "Shot",
        &[
            ("code", DataType::Text),
            ("assets", DataType::MultiEntity),
            ("sg_sequence", DataType::Entity),
            ("sg_cut_in", DataType::Number),
        ],
    );
    fixture.store.ensure_type(&more).await.unwrap();
    assert_eq!(fixture.index_of("entity-shot-write").await, first);
    assert_eq!(fixture.codes().await, ["12", "b"]);

    // `code` becomes a number, `assets` goes.
    let other = layout("Shot", &[("code", DataType::Number), ("sg_sequence", DataType::Entity)]);
    fixture.store.ensure_type(&other).await.unwrap();
    let second = fixture.index_of("entity-shot-write").await;
    assert_eq!(second, [fixture.indices.name("entity-shot-000002")]);
    assert_eq!(fixture.index_of("entity-shot").await, second);
    assert!(fixture.client.send(&Call::get(format!("/{}", first[0]))).await.is_err(), "the old generation is gone");
    let found = fixture.store.find(&Query::all("Shot").fields(other.paths())).await.unwrap();
    let codes: Vec<Value> = found.rows.iter().map(|row| row.get("code").unwrap()).collect();
    // A number is kept, what is none must be read again.
    assert_eq!(codes, [json!("12"), Value::Null]);
    // Versions came along: a late write of the past stays a loser, tombstones too.
    let scanned = fixture.store.scan(&"Shot".into(), 0, 10).await.unwrap();
    assert_eq!(scanned.iter().map(|row| row.rv.0).collect::<Vec<_>>(), [5, 6, 9]);
    let late = row(&other, 3, 8, RowState::Active, json!({"code": 1, "sg_sequence": null}));
    assert_eq!(fixture.store.put(&[late]).await.unwrap(), [PutOutcome::Stale]);
}

#[tokio::test]
async fn a_generation_that_was_never_finished_is_removed_at_the_next_start() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    fixture.store.put(&[shot(1, 5, "a")]).await.unwrap();
    let current = fixture.index_of("entity-shot-write").await.remove(0);
    let described = fixture.call(Call::get(format!("/{current}/_mapping"))).await;
    let leftover = fixture.indices.name("entity-shot-000007");
    let body = json!({"mappings": {"_meta": described[&current]["mappings"]["_meta"]}});
    fixture.call(Call::put(format!("/{leftover}")).json(&body)).await;
    fixture.call(Call::put(format!("/{current}/_settings")).json(&json!({"index.blocks.write": true}))).await;

    fixture.store.ensure_type(&shots()).await.unwrap();

    assert!(fixture.client.send(&Call::get(format!("/{leftover}"))).await.is_err());
    assert_eq!(fixture.store.put(&[shot(1, 6, "b")]).await.unwrap(), [PutOutcome::Written]);
    assert_eq!(fixture.codes().await, ["b"]);
}

#[tokio::test]
async fn a_store_that_is_opened_again_knows_its_types() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    fixture.store.put(&[shot(1, 5, "a")]).await.unwrap();
    let again = ElasticsearchStore::open(&settings(url), fixture.indices.prefix()).await.unwrap();
    assert_eq!(again.count(&Query::all("Shot")).await.unwrap(), 1);
    let types = again.types().await.unwrap();
    assert_eq!(types[0].layout_hash, shots().hash);
    assert_eq!(again.count(&Query::all("Task")).await.unwrap_err().kind(), StoreErrorKind::UnknownType);
}

#[tokio::test]
async fn an_index_of_a_newer_version_is_refused() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let current = fixture.index_of("entity-shot-write").await.remove(0);
    let described = fixture.call(Call::get(format!("/{current}/_mapping"))).await;
    let mut meta = described[&current]["mappings"]["_meta"].clone();
    meta["sgcache"]["format"] = json!(99);
    fixture.call(Call::put(format!("/{current}/_mapping")).json(&json!({"_meta": meta}))).await;
    let error = ElasticsearchStore::open(&settings(url), fixture.indices.prefix()).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Newer, "{error}");
    assert_eq!(fixture.store.ensure_type(&shots()).await.unwrap_err().kind(), StoreErrorKind::Newer);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_fails_and_refuses_no_row() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let current = fixture.index_of("entity-shot-write").await.remove(0);
    let set = |setting: Value| Call::put(format!("/{current}/_settings")).json(&setting);

    assert_eq!(fixture.store.health().await.write_problem, None);
    fixture.call(set(json!({"index.blocks.write": true}))).await;
    // Before anything is written: an idle site must not hide it.
    let health = fixture.store.health().await;
    let problem = health.write_problem.expect("a problem");
    assert!(health.ok && problem.contains(&current) && problem.contains("index write"), "{problem}");
    let blocked = fixture.store.put(&[shot(1, 5, "a")]).await.unwrap_err();
    assert_eq!(blocked.kind(), StoreErrorKind::Refused, "{blocked}");

    fixture.call(set(json!({"index.blocks.write": null, "index.blocks.read_only_allow_delete": true}))).await;
    let full = fixture.store.put(&[shot(1, 5, "a")]).await.unwrap_err();
    assert_eq!(full.kind(), StoreErrorKind::Full, "{full}");

    assert!(fixture.store.health().await.write_problem.is_some());
    fixture.call(set(json!({"index.blocks.read_only_allow_delete": null}))).await;
    assert_eq!(fixture.store.health().await.write_problem, None);
    assert_eq!(fixture.store.put(&[shot(1, 5, "a")]).await.unwrap(), [PutOutcome::Written]);

    fixture.call(Call::delete(format!("/{current}"))).await;
    let gone = fixture.store.put(&[shot(2, 5, "a")]).await.unwrap_err();
    assert!(gone.to_string().contains("the index is gone; the type must be imported again"), "{gone}");
    let health = fixture.store.health().await;
    assert!(!health.ok && health.message.contains("missing: "), "{health:?}");
}

#[tokio::test]
async fn links_to_a_retired_entity_vanish_with_its_row_and_come_back_with_it() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let assets = layout("Asset", &[("code", DataType::Text)]);
    let fixture = Fixture::with(url, &[&shots(), &assets]).await;
    let asset = |rv, state, code: &str| row(&assets, 7, rv, state, json!({"code": code}));
    let linking = |id, rv| {
        row(
            &shots(),
            id,
            rv,
            RowState::Active,
            json!({"code": "s", "sg_sequence": null,
            "assets": [link("Asset", 7, "old"), link("Asset", 8, "other")]}),
        )
    };
    let shown = async || {
        let rows = fixture.store.find(&Query::all("Shot").fields(shots().paths())).await.unwrap().rows;
        rows.iter()
            .map(|row| {
                let links = row.get("assets").unwrap();
                links.as_array().unwrap().iter().map(|link| link["name"].as_str().unwrap().to_owned()).collect()
            })
            .collect::<Vec<Vec<String>>>()
    };
    fixture.store.put(&[linking(1, 10), asset(11, RowState::Active, "hero")]).await.unwrap();
    assert_eq!(shown().await, [["hero", "other"]]);

    fixture.store.put(&[asset(12, RowState::Retired, "hero")]).await.unwrap();
    assert_eq!(shown().await, [["other"]]);
    // A row that was read before the retirement and arrives after it.
    fixture.store.put(&[linking(2, 5)]).await.unwrap();
    assert_eq!(shown().await, [["other"], ["other"]]);
    let referrers = fixture.store.referrers(&EntityRef::new("Asset", 7), 1).await.unwrap();
    assert!(referrers.more && referrers.keys == [EntityRef::new("Shot", 1)], "{referrers:?}");

    fixture.store.put(&[asset(13, RowState::Active, "hero 2")]).await.unwrap();
    assert_eq!(shown().await, [["hero 2", "other"], ["hero 2", "other"]]);
    let versions = fixture.store.scan(&"Shot".into(), 0, 9).await.unwrap();
    assert_eq!(versions.iter().map(|row| row.rv.0).collect::<Vec<_>>(), [10, 5]);
}

#[tokio::test]
async fn a_relink_reaches_links_to_types_that_are_not_cached() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let linking = row(
        &shots(),
        1,
        10,
        RowState::Active,
        json!({"code": "s", "assets": [],
        "sg_sequence": link("Sequence", 7, "old")}),
    );
    fixture.store.put(&[linking]).await.unwrap();
    let target = |rv, name: &str, state| LinkTarget {
        key: EntityRef::new("Sequence", 7),
        name: Some(name.to_owned()),
        state,
        rv: ReadVersion(rv),
    };
    let relinked = fixture.store.relink(&target(12, "new", RowState::Active)).await.unwrap();
    assert_eq!((relinked.stale, relinked.rewritten), (false, 1));
    assert!(fixture.store.relink(&target(11, "late", RowState::Active)).await.unwrap().stale);
    let alias = fixture.indices.name("entity-shot");
    let found = fixture.call(Call::post(format!("/{alias}/_search")).search()).await;
    assert_eq!(found["hits"]["hits"][0]["_source"]["sg_sequence"]["name"], "new");

    fixture.store.relink(&target(13, "new", RowState::Retired)).await.unwrap();
    let rows = fixture.store.find(&Query::all("Shot").fields(shots().paths())).await.unwrap().rows;
    assert_eq!(rows[0].get("sg_sequence"), Some(Value::Null));
}

#[tokio::test]
async fn a_purge_removes_old_tombstones_and_a_whole_type() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let fixture = Fixture::with(url, &[&shots()]).await;
    let absent = |id, at| FetchedRow::absent(EntityRef::new("Shot", id), ReadVersion(5), Timestamp(at), None);
    fixture.store.put(&[shot(1, 5, "a"), absent(2, 1000), absent(3, 3000)]).await.unwrap();
    let purged = fixture.store.purge(&PurgeScope::Tombstones { older_than: Timestamp(2000) }).await.unwrap();
    assert_eq!(purged, 1);
    let ids: Vec<i64> = fixture.store.scan(&"Shot".into(), 0, 9).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(ids, [1, 3]);
    assert_eq!(fixture.store.purge(&PurgeScope::Type("Shot".into())).await.unwrap(), 2);
    assert_eq!(fixture.store.count(&Query::all("Shot")).await.unwrap_err().kind(), StoreErrorKind::UnknownType);
    fixture.store.ensure_type(&shots()).await.unwrap();
    assert_eq!(fixture.store.count(&Query::all("Shot")).await.unwrap(), 0);
}

#[tokio::test]
async fn an_unreachable_server_is_told_at_the_start() {
    let error = ElasticsearchStore::open(&settings("http://127.0.0.1:9"), "sgcache").await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("http://127.0.0.1:9") && error.to_string().contains("Connection refused"));
}
