//! Rows 38, 45, 47 and 48 of the fault matrix: an index that is dropped, clocks that
//! jump, pages that the site is too slow for, a key that is not accepted any more.

use serde_json::json;
use sgcache::shotgun::ErrorKind;
use sgcache::sync::{Settings, Steps, SyncError};

use crate::servers::{TestIndices, elasticsearch};
use crate::sync_cache::{Cache, TestStore, create, empty_site, happen};

// Row 47: large pages time out, small ones do not.
#[tokio::test]
async fn pages_that_the_site_is_too_slow_for_are_read_in_smaller_ones() {
    let site = empty_site();
    for number in 0..300 {
        create(&site, "Shot", json!({"code": format!("s{number}")}));
    }
    let mut cache = Cache::of(site).await;
    let slow = json!({"trouble": {"trouble": {"status": 504}, "method": "read Shot", "page_above": 100}});
    happen(cache.site(), slow);
    cache.start_with(Steps::default(), Settings::default(), 500).await.expect("a start");
    cache.follower().import_pending().await.expect("an import that ends");
    happen(cache.site(), json!("end_trouble"));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert_eq!(cache.ids("Shot").await.len(), 300);
}

// Row 45: the clock of the site is set back and forth, by hours and by minutes.
#[tokio::test]
async fn a_clock_that_jumps_loses_no_change() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let start = cache.site().clock.now();
    for (round, jump) in [-7_200_i64, 7_200, 300, -300, 86_400].into_iter().enumerate() {
        let moment = sgcache::entity::Timestamp(cache.site().clock.now().0 + jump);
        cache.site().clock.set(moment);
        cache.site().update("Shot", id, json!({"code": format!("round {round}")})).expect("an update");
        let made = create(cache.site(), "Shot", json!({"code": "new"}));
        if round % 2 == 1 {
            cache.site().retire("Shot", made).expect("a retirement");
        }
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
    assert_ne!(cache.site().clock.now(), start);
    // Types that are not named to the metrics are counted together.
    let silent = cache.metrics().value("sgcache_sync_silent_changes_total", &[("entity_type", "other")]);
    assert_eq!(silent, Some(0.0), "every change was told of");
}

// Row 48: the key is revoked; what is there stays there, and a new key goes on.
#[tokio::test]
async fn a_revoked_key_deletes_nothing_and_its_return_needs_nobody() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    happen(cache.site(), json!({"permissions": {"script": "sgcache", "revoked": true}}));
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    for _ in 0..5 {
        let error = cache.step().await.expect_err("nobody is let in");
        assert!(matches!(&error, SyncError::Site(site) if site.kind() == ErrorKind::Denied), "{error}");
    }
    assert_eq!(cache.ids("Shot").await, [id], "it is served as long as it may be");
    happen(cache.site(), json!({"permissions": {"script": "sgcache"}}));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

// Row 38: somebody drops an index behind our back.
#[tokio::test]
async fn an_index_that_was_dropped_is_filled_again() {
    let Some(url) = elasticsearch("sync_trouble") else { return };
    let indices = TestIndices::new(url);
    let site = empty_site();
    for code in ["a", "b"] {
        create(&site, "Shot", json!({"code": code}));
    }
    let store = TestStore::Elasticsearch(url.to_owned(), indices.prefix().to_owned());
    let mut cache = Cache::live_on(site, store).await;
    let http = reqwest::Client::new();
    let behind = http.get(format!("{url}/_alias/{}", indices.name("entity-shot"))).send().await.expect("an answer");
    let behind: serde_json::Value = behind.json().await.expect("JSON");
    let index = behind.as_object().and_then(|found| found.keys().next()).expect("an index").clone();
    http.delete(format!("{url}/{index}")).send().await.expect("an answer").error_for_status().expect("a drop");

    create(cache.site(), "Shot", json!({"code": "c"}));
    let mut said = String::new();
    while !said.contains("the index is gone; the type must be imported again") {
        said = cache.step().await.map_or_else(|error| error.to_string(), |_| String::new());
    }
    cache.start(Steps::default()).await.expect("a second start");
    assert_eq!(cache.replica().pending_imports().await.expect("imports"), ["Shot"]);
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

// The same without a server: the file of the store is gone, that of the state is not.
#[tokio::test]
async fn a_store_that_was_removed_is_filled_again() {
    let site = empty_site();
    create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    cache.remove_store();
    cache.start(Steps::default()).await.expect("a second start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// A version far above those of a new state.
const OLD_EPOCH: i64 = 400_000 << 40;

async fn outlive_the_state(store: TestStore) {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live_on(site, store).await;
    cache.state().begin_epoch(OLD_EPOCH).await.expect("an epoch");
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.quiesce().await;
    cache.remove_state();
    cache.site().update("Shot", id, json!({"code": "c"})).expect("an update");
    cache.start(Steps::default()).await.expect("a second start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

// The state is lost, the store is not: new versions begin above the stored ones.
#[tokio::test]
async fn a_new_state_starts_above_the_versions_in_the_store() {
    outlive_the_state(TestStore::Embedded).await;
    let Some(url) = elasticsearch("sync_trouble") else { return };
    let indices = TestIndices::new(url);
    outlive_the_state(TestStore::Elasticsearch(url.to_owned(), indices.prefix().to_owned())).await;
}

// Another process writes with higher versions: what the store refuses is not done.
#[tokio::test]
async fn a_row_that_the_store_refuses_as_stale_stays_dirty_and_costs_few_reads() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    let (client, everything) = (cache.client(), sgcache::filter::RawFilter::everything());
    let (fields, only) = (cache.layout("Shot").field_names(), sgcache::filter::Only::Active);
    let purpose = sgcache::shotgun::Purpose::Fetch;
    let answer: sgcache::shotgun::Answer =
        client.read_ids(&"Shot".into(), &[id], &everything, fields, only, purpose).await.expect("an answer");
    let row = answer.rows.into_iter().next().expect("a row");
    let key = sgcache::entity::EntityRef::new("Shot", id);
    let now = cache.site().clock.now();
    let version = sgcache::store::ReadVersion(OLD_EPOCH);
    let state = sgcache::state::RowState::Active;
    let row = sgcache::store::FetchedRow::from_site(cache.layout("Shot"), key, version, state, row, now, None);
    cache.store().put(&[row.expect("a row")]).await.expect("a row of another process");
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.site().requests.reset();
    for _ in 0..10 {
        cache.step().await.expect("a step");
    }
    assert_eq!(cache.state().marked_ids(&"Shot".into()).await.expect("ids"), [id], "it is not taken for done");
    assert!(cache.metrics().value("sgcache_sync_version_conflicts_total", &[]) >= Some(1.0));
    assert!(cache.site().requests.of("read Shot") <= 6, "{}", cache.site().requests.of("read Shot"));
    cache.start(Steps::default()).await.expect("a second start");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Of two reads of a key the newer one may store its row first. That the store refuses
/// the older row then is no conflict with another process, and nothing waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn reads_of_one_key_side_by_side_are_no_conflict() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let keys = [sgcache::entity::EntityRef::new("Shot", id)];
    for round in 0..40 {
        cache.site().update("Shot", id, json!({"code": format!("a{round}")})).expect("an update");
        let reads = (0..8).map(|_| {
            let (replica, keys) = (cache.replica().clone(), keys.clone());
            tokio::spawn(async move { replica.refetch(&keys).await.expect("a read") })
        });
        futures::future::join_all(reads).await;
    }
    assert_eq!(cache.metrics().value("sgcache_sync_version_conflicts_total", &[]).unwrap_or(0.0), 0.0);
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}
