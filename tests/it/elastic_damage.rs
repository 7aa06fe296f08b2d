//! Documents that were changed in the index behind the cache: each is an error that names
//! its row, or is found by the scrub, and is read again from the site.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sgcache::elastic::{BulkOp, Call, Client, ItemOutcome, Settings, VersionType};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::filter::{Query, Sort};
use sgcache::store::{Fields, StoreErrorKind};

use crate::servers::{TestIndices, elasticsearch};
use crate::sync_cache::{Cache, TestStore, create, empty_site};

const SCRUB: Duration = Duration::from_secs(601);

fn shot() -> EntityType {
    EntityType::new("Shot")
}

struct Rig {
    cache: Cache,
    ids: Vec<i64>,
    client: Client,
    indices: TestIndices,
}

impl Rig {
    async fn of_shots(url: &'static str, count: usize) -> Self {
        let indices = TestIndices::new(url);
        let site = empty_site();
        let ids = (0..count).map(|n| create(&site, "Shot", json!({"code": format!("shot{n}")}))).collect();
        let store = TestStore::Elasticsearch(url.to_owned(), indices.prefix().to_owned());
        let client = Client::new(&Settings::new([url])).expect("a client");
        Self { cache: Cache::live_on(site, store).await, ids, client, indices }
    }

    /// Writes a document anew with a change, as an operator may.
    async fn change(&self, id: i64, change: impl FnOnce(&mut Value)) {
        let index = self.indices.name("entity-shot-write");
        let stored = self.client.send(&Call::get(format!("/{index}/_doc/{id}"))).await.expect("a document");
        let mut stored: Value = stored.value().expect("JSON");
        change(&mut stored["_source"]);
        let version = stored["_version"].as_i64().expect("a version") + 1;
        let id = id.to_string();
        let write = BulkOp::index(&index, &id, version, VersionType::External, stored["_source"].to_string());
        assert_eq!(self.client.bulk(&[write], true).await.expect("an answer"), [ItemOutcome::Done]);
        let refresh = Call::post(format!("/{index}/_refresh"));
        self.client.send(&refresh).await.expect("a refresh");
    }

    async fn quarantined(&self) -> Vec<i64> {
        self.cache.state().quarantined(&shot()).await.expect("ids")
    }

    async fn is_whole_again(&self) {
        self.cache.quiesce().await;
        self.cache.assert_equal_to_site().await;
        assert!(self.quarantined().await.is_empty());
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_an_error_that_names_its_row_which_is_read_again() {
    let Some(url) = elasticsearch("elastic_damage") else { return };
    let rig = Rig::of_shots(url, 3).await;
    let (id, store) = (rig.ids[1], rig.cache.replica().store());
    let key = EntityRef::new("Shot", id);
    let paths = rig.cache.replica().tracked().layout(&shot()).expect("shots").paths();
    let by_name = paths.iter().find(|path| path.field == "sg_sequence").expect("a link").clone();
    let every = Query::all("Shot").fields(paths);
    let sorted = every.clone().order(vec![Sort { path: by_name, descending: false }]);
    for (field, value, how) in
        [("code", json!(12), "find"), ("description", json!(true), "sort"), ("sg_cut_in", json!(7.5), "get")]
    {
        rig.change(id, |document| document[field] = value.clone()).await;
        let error = match how {
            "find" => store.find(&every).await.err(),
            "sort" => store.find(&sorted).await.err(),
            _ => store.get(std::slice::from_ref(&key), &Fields::All).await.err(),
        };
        let error = error.unwrap_or_else(|| panic!("{field}: {how} answers"));
        assert_eq!((error.kind(), error.row()), (StoreErrorKind::Corrupt, Some(&key)), "{field}");
        assert!(error.to_string().contains(&format!("Shot:{id}")), "{error}");
        assert_eq!(rig.quarantined().await, [id], "{field}: no answer shows it");
        rig.is_whole_again().await;
    }
}

#[tokio::test]
async fn the_scrub_finds_documents_that_lack_something() {
    let Some(url) = elasticsearch("elastic_damage") else { return };
    let rig = Rig::of_shots(url, 6).await;
    rig.cache.step().await.expect("a step");
    let changes: [fn(&mut Map<String, Value>); 5] = [
        |document| drop(document.remove("code")),
        |document| drop(document.insert("code".into(), json!(12))),
        |document| drop(document.remove("_sg")),
        |document| drop(document["_sg"].as_object_mut().expect("an object").remove("rv")),
        |document| drop(document.remove("id")),
    ];
    for (id, change) in rig.ids.iter().zip(changes) {
        rig.change(*id, |document| change(document.as_object_mut().expect("an object"))).await;
    }
    rig.cache.tick(SCRUB);
    rig.cache.step().await.expect("a step");
    let damaged = rig.cache.metrics().value("sgcache_sync_damaged_rows_total", &[("entity_type", "other")]);
    assert_eq!(damaged, Some(changes.len() as f64));
    rig.is_whole_again().await;
}

/// A document that another program put into the index stands for no row, not for row 0.
#[tokio::test]
async fn a_document_of_another_program_is_no_row() {
    let Some(url) = elasticsearch("elastic_damage") else { return };
    let rig = Rig::of_shots(url, 2).await;
    let index = rig.indices.name("entity-shot-write");
    let foreign = json!({"code": "foreign", "_sg": {"state": "active", "rv": 1}}).to_string();
    let write = BulkOp::index(&index, "foreign", 1, VersionType::External, foreign);
    assert_eq!(rig.client.bulk(&[write], true).await.expect("an answer"), [ItemOutcome::Done]);
    rig.client.send(&Call::post(format!("/{index}/_refresh"))).await.expect("a refresh");
    let store = rig.cache.replica().store();
    let every = Query::all("Shot").fields(rig.cache.replica().tracked().layout(&shot()).expect("shots").paths());
    let found = store.find(&every).await.expect("rows").rows;
    assert_eq!(found.iter().map(|row| row.key.id).collect::<Vec<_>>(), rig.ids);
    assert_eq!(store.scan(&shot(), 0, 100).await.expect("rows").len(), 2);
    rig.is_whole_again().await;
}
