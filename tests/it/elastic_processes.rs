//! Several processes on one set of indices: each is a store of its own here.

use serde_json::{Value, json};
use sgcache::entity::{DataType, EntityRef, FieldValue};
use sgcache::entity_config::TypeLayout;
use sgcache::filter::{FieldPath, Filter, Leaf, Query, Test, TextMatch};
use sgcache::store::elasticsearch::ElasticsearchStore;
use sgcache::store::{FetchedRow, LinkTarget, PurgeScope, PutOutcome, ReadVersion, RowState, Store, StoreErrorKind};

use crate::elastic_store::{layout, link, row, settings};
use crate::servers::{TestIndices, elasticsearch};
use crate::store_world::ids;

const SUITE: &str = "several processes on one Elasticsearch";

async fn open(indices: &TestIndices, url: &str) -> ElasticsearchStore {
    ElasticsearchStore::open(&settings(url), indices.prefix()).await.unwrap()
}

fn shots() -> TypeLayout {
    layout("Shot", &[("code", DataType::Text), ("assets", DataType::MultiEntity)])
}

fn shot(id: i64, rv: i64, assets: Value) -> FetchedRow {
    row(&shots(), id, rv, RowState::Active, json!({"code": format!("s{id}"), "assets": assets}))
}

async fn all(store: &ElasticsearchStore) -> Vec<Value> {
    let rows = store.find(&Query::all("Shot").fields(shots().paths())).await.unwrap().rows;
    rows.iter().map(|row| row.get("assets").unwrap()).collect()
}

async fn linking_to(store: &ElasticsearchStore, test: Test) -> Vec<i64> {
    let path = FieldPath::local("assets", DataType::MultiEntity);
    let filter = Filter::Leaf(Leaf { path, negated: false, test });
    ids(&store.find(&Query::all("Shot").filter(filter)).await.unwrap())
}

#[tokio::test]
async fn rewriters_of_the_same_rows_do_not_undo_each_other() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let first = open(&indices, url).await;
    first.ensure_type(&shots()).await.unwrap();
    let second = open(&indices, url).await;
    let both = json!([link("Asset", 1, "one"), link("Asset", 2, "two")]);
    let rows: Vec<FetchedRow> = (1..=200).map(|id| shot(id, 5, both.clone())).collect();
    first.put(&rows).await.unwrap();
    for round in 0..4 {
        let state = if round % 2 == 0 { RowState::Retired } else { RowState::Active };
        let told = |id| LinkTarget { key: EntityRef::new("Asset", id), name: None, state, rv: ReadVersion(10 + round) };
        let (one, two) = (told(1), told(2));
        let (one, two) = tokio::join!(first.relink(&one), second.relink(&two));
        assert!(!one.unwrap().stale && !two.unwrap().stale);
        // Not what answers hide, but what searches find.
        let linked = linking_to(&second, Test::LinkTo(vec![EntityRef::new("Asset", 1)])).await.len()
            + linking_to(&second, Test::LinkTo(vec![EntityRef::new("Asset", 2)])).await.len();
        assert_eq!(linked, if state == RowState::Retired { 0 } else { 400 }, "round {round}");
    }
    assert!(all(&first).await.iter().all(|assets| *assets == both));
    // However often its links were rewritten, a row is as new as its read.
    assert_eq!(second.put(&[shot(1, 5, json!([]))]).await.unwrap(), [PutOutcome::Stale]);
    assert_eq!(second.put(&[shot(1, 6, json!([]))]).await.unwrap(), [PutOutcome::Written]);
}

#[tokio::test]
async fn a_process_notices_that_another_one_changed_or_removed_a_type() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let reader = open(&indices, url).await;
    let writer = open(&indices, url).await;
    writer.ensure_type(&shots()).await.unwrap();
    writer.put(&[shot(1, 5, json!([]))]).await.unwrap();
    assert_eq!(all(&reader).await.len(), 1, "a type that was made after the start");

    // `code` becomes a number, `assets` goes: the reader must not search what is no more.
    writer.ensure_type(&layout("Shot", &[("code", DataType::Number)])).await.unwrap();
    let stale = Filter::Leaf(Leaf {
        path: FieldPath::local("assets", DataType::MultiEntity),
        negated: true,
        test: Test::LinkTo(vec![EntityRef::new("Asset", 1)]),
    });
    let query = Query::all("Shot").filter(stale);
    let begun = std::time::Instant::now();
    while reader.find(&query).await.is_ok() {
        assert!(begun.elapsed().as_secs() < 30, "the reader never looked again");
    }
    assert_eq!(reader.find(&query).await.unwrap_err().kind(), StoreErrorKind::Unsupported);

    writer.purge(&PurgeScope::Type("Shot".into())).await.unwrap();
    assert_eq!(reader.count(&Query::all("Shot")).await.unwrap_err().kind(), StoreErrorKind::UnknownType);
}

#[tokio::test]
async fn names_that_no_row_tells_are_there_for_other_processes_and_outlive_a_type() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let writer = open(&indices, url).await;
    let assets = layout("Asset", &[("code", DataType::Text)]);
    writer.ensure_type(&shots()).await.unwrap();
    writer.ensure_type(&assets).await.unwrap();
    let named = |needle: &str| Test::LinkName(TextMatch::Is, needle.to_owned());
    let to = |id, name: &str| json!([link("Asset", id, name)]);
    let own = row(&assets, 2, 5, RowState::Active, json!({"code": "own name"}));
    let puts = [vec![shot(1, 5, to(1, "no row")), shot(2, 5, to(2, "seen"))], vec![own], vec![shot(3, 6, to(3, "x"))]];
    for put in futures::future::join_all(puts.iter().map(|rows| writer.put(rows))).await {
        put.unwrap();
    }
    let reader = open(&indices, url).await;
    assert_eq!(linking_to(&reader, named("no row")).await, [1]);
    assert_eq!(linking_to(&reader, named("own name")).await, [2]);
    assert_eq!(linking_to(&reader, named("seen")).await, [0; 0]);
    assert_eq!(all(&reader).await, [to(1, "no row"), to(2, "own name"), to(3, "x")]);

    writer.purge(&PurgeScope::Type("Asset".into())).await.unwrap();
    let reader = open(&indices, url).await;
    assert_eq!(linking_to(&reader, named("own name")).await, [2]);
    assert_eq!(all(&reader).await[1], to(2, "own name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_side_by_side_are_each_visible_when_they_return() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let store = open(&indices, url).await;
    store.ensure_type(&shots()).await.unwrap();
    let put = |number: i64| {
        let store = store.clone();
        async move {
            let rows: Vec<FetchedRow> = (1..=20).map(|id| shot(number * 100 + id, 5, json!([]))).collect();
            assert_eq!(store.put(&rows).await.unwrap(), vec![PutOutcome::Written; 20]);
            let own = Filter::Leaf(Leaf {
                path: FieldPath::local("id", DataType::Number),
                negated: false,
                test: Test::Between(FieldValue::Int(number * 100), FieldValue::Int(number * 100 + 99)),
            });
            assert_eq!(store.count(&Query::all("Shot").filter(own)).await.unwrap(), 20, "put {number}");
        }
    };
    let running: Vec<_> = (0..12).map(|number| tokio::spawn(put(number))).collect();
    for (number, put) in running.into_iter().enumerate() {
        // One that is given up must not take the others with it.
        if number == 3 {
            put.abort();
        } else {
            put.await.unwrap();
        }
    }
}
