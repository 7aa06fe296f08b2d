//! What a start finds: a state, a store, or rows of the site that are older than the rest.
//! The rows of the simulated site are the truth.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sgcache::entity::EntityRef;
use sgcache::sim::{Rule, Site, Trouble};
use sgcache::state::{DirtyReasons, NewDirtyKey, TypeState};
use sgcache::sync::Steps;

use crate::observed::Observed;
use crate::sync_cache::{Cache, create, empty_site, happen, to};

async fn assert_right(observed: &Observed) {
    let differences = observed.differences(true).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Compares what counts as fresh with the history of the site.
async fn assert_fresh(observed: &Observed) {
    let differences = observed.fresh_differences().await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Steps as the daemon does, and looks after each at what counts as fresh.
async fn follow(observed: &Observed, steps: usize) {
    let cache = &observed.cache;
    for _ in 0..steps {
        cache.step().await.expect("a step");
        cache.follower().import_pending().await.expect("an import");
        assert_fresh(observed).await;
    }
}

/// The same where reads fail, which are made again with the next step.
async fn follow_failing(observed: &Observed, steps: usize) {
    for _ in 0..steps {
        drop(observed.cache.step().await);
        drop(observed.cache.follower().import_pending().await);
        assert_fresh(observed).await;
    }
}

/// Returns the store as it is now, from a stop in between.
async fn copied_store(cache: &mut Cache) -> Vec<u8> {
    cache.stop();
    let store = fs::read(cache.directory().join("store.sqlite")).expect("the file of the store");
    cache.start(Steps::default()).await.expect("a start");
    store
}

/// Stops the cache, puts an older store back, and starts it again.
async fn put_back_store(cache: &mut Cache, older: Vec<u8>) {
    cache.remove_store();
    fs::write(cache.directory().join("store.sqlite"), older).expect("an older file");
    cache.start(Steps::default()).await.expect("a start");
}

#[tokio::test]
async fn rows_that_only_the_store_has_are_not_served_after_the_state_was_lost() {
    let site = empty_site();
    let ids: Vec<i64> = (0..3).map(|n| create(&site, "Shot", json!({"code": format!("{n}")}))).collect();
    let mut observed = Observed::of(Cache::live(site).await);
    observed.cache.remove_state();
    observed.edit(|site| drop(site.retire("Shot", ids[1]))).await;
    observed.edit(|site| drop(happen(site, json!({"purge": to("Shot", ids[2])})))).await;
    observed.cache.start(Steps::default()).await.expect("a start");
    follow(&observed, 30).await;
    assert_right(&observed).await;
}

#[tokio::test]
async fn an_import_at_a_site_whose_rows_are_behind_its_event_log_is_read_again() {
    let site = empty_site();
    let shot = create(&site, "Shot", json!({"code": "before"}));
    let mut observed = Observed::of(Cache::of(site).await);
    happen(observed.cache.site(), json!({"lag": {"of": "rows", "by": "3s"}}));
    observed.cache.tick(Duration::from_secs(10));
    observed.edit(|site| drop(site.update("Shot", shot, json!({"code": "after"})))).await;
    observed.cache.start(Steps::default()).await.expect("a start");
    observed.cache.follower().import_pending().await.expect("an import");
    follow(&observed, 10).await;
    assert_right(&observed).await;
}

#[tokio::test]
async fn a_dirty_row_of_an_older_store_is_written_although_it_is_as_the_state_knows_it() {
    let site = empty_site();
    let shot = create(&site, "Shot", json!({"code": "a"}));
    let mut observed = Observed::of(Cache::live(site).await);
    let older = copied_store(&mut observed.cache).await;
    observed.edit(|site| drop(site.update("Shot", shot, json!({"code": "b"})))).await;
    observed.cache.quiesce().await;
    // Made dirty by an event that changes nothing that is cached.
    observed.edit(|site| drop(site.update("Shot", shot, json!({"sg_cut_out": 7})))).await;
    observed.cache.replica().poll().await.expect("a poll");
    put_back_store(&mut observed.cache, older).await;
    follow(&observed, 5).await;
    assert_right(&observed).await;
}

/// The older store hides the links to what was retired then, in rows that are as they were.
#[tokio::test]
async fn links_to_a_revived_row_are_shown_although_an_older_store_knows_it_as_retired() {
    let site = empty_site();
    let sequence = create(&site, "Sequence", json!({"code": "s"}));
    let shot = create(&site, "Shot", json!({"code": "a", "sg_sequence": to("Sequence", sequence)}));
    let asset = create(&site, "Asset", json!({"code": "hero", "shots": [to("Shot", shot)]}));
    let mut observed = Observed::of(Cache::live(site).await);
    observed.edit(|site| drop(site.retire("Asset", asset))).await;
    observed.cache.quiesce().await;
    let older = copied_store(&mut observed.cache).await;
    observed.edit(|site| drop(site.revive("Asset", asset))).await;
    // Its own filter hides it, the link to it does not.
    observed.edit(|site| drop(site.update("Asset", asset, json!({"sg_status_list": "omt"})))).await;
    observed.cache.quiesce().await;
    assert_right(&observed).await;
    put_back_store(&mut observed.cache, older).await;
    follow(&observed, 5).await;
    assert_right(&observed).await;
}

/// A restored site gives ids again, of which the cache knows that they are gone.
#[tokio::test]
async fn links_to_an_id_that_is_used_again_are_not_hidden_in_what_counts_as_fresh() {
    let site = empty_site();
    let shot = create(&site, "Shot", json!({"code": "a"}));
    create(&site, "Task", json!({"content": "first", "entity": to("Shot", shot)}));
    let mut observed = Observed::of(Cache::live(site).await);
    happen(observed.cache.site(), json!({"backup": "latest"}));
    let task = |site: &Arc<Site>| {
        create(site, "Task", json!({"content": "t", "entity": to("Shot", shot)}));
    };
    observed.edit(task).await;
    observed.cache.quiesce().await;
    observed.edit(|site| drop(happen(site, json!({"restore": "latest"})))).await;
    follow_failing(&observed, 60).await;
    assert_right(&observed).await;
    observed.edit(task).await;
    happen(observed.cache.site(), json!({"trouble": {"trouble": {"status": 503}, "method": "read Task"}}));
    follow_failing(&observed, 5).await;
    happen(observed.cache.site(), json!("end_trouble"));
    observed.cache.quiesce().await;
    assert_right(&observed).await;
}

/// A row that its filter shows is not taken for filtered because of one answer without rows.
#[tokio::test]
async fn a_new_row_is_not_filtered_by_one_empty_answer() {
    let mut observed = Observed::of(Cache::live(empty_site()).await);
    create(observed.cache.site(), "Asset", json!({"code": "known"}));
    observed.cache.quiesce().await;
    observed.edit(|site| assert!(create(site, "Asset", json!({"code": "new"})) > 0)).await;
    let rule = json!({"trouble": "no_rows", "method": "read Asset", "times": 1});
    happen(observed.cache.site(), json!({"trouble": rule}));
    follow_failing(&observed, 10).await;
    assert_right(&observed).await;
}

/// A dirty row that the state knows as filtered is not served from an older store.
#[tokio::test]
async fn a_dirty_row_that_its_filter_hides_is_not_served_from_an_older_store() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "hero"}));
    let mut observed = Observed::of(Cache::live(site).await);
    let older = copied_store(&mut observed.cache).await;
    observed.edit(|site| drop(site.update("Asset", asset, json!({"sg_status_list": "omt"})))).await;
    observed.cache.quiesce().await;
    observed.edit(|site| drop(site.update("Asset", asset, json!({"description": "not cached"})))).await;
    observed.cache.replica().poll().await.expect("a poll");
    put_back_store(&mut observed.cache, older).await;
    happen(observed.cache.site(), json!({"trouble": {"trouble": {"status": 503}, "method": "read Asset"}}));
    follow_failing(&observed, 5).await;
    happen(observed.cache.site(), json!("end_trouble"));
    follow_failing(&observed, 5).await;
    assert_right(&observed).await;
}

/// What a transaction wrote that ended after the backup is gone, and the newest entry is not.
#[tokio::test]
async fn a_restored_backup_from_before_the_end_of_a_transaction_is_another_history() {
    let site = empty_site();
    let shots: Vec<i64> = (0..2).map(|n| create(&site, "Shot", json!({"code": format!("{n}")}))).collect();
    let mut observed = Observed::of(Cache::live(site).await);
    happen(observed.cache.site(), json!({"begin": {"name": "long", "ids": 3}}));
    let writes = json!([{"update": {"type": "Shot", "id": shots[0], "fields": {"description": "written"}}}]);
    happen(observed.cache.site(), json!({"write": {"writes": writes, "transaction": "long"}}));
    observed.edit(|site| drop(site.update("Shot", shots[1], json!({"description": "newest"})))).await;
    follow(&observed, 3).await;
    happen(observed.cache.site(), json!({"backup": "latest"}));
    observed.edit(|site| drop(happen(site, json!({"commit": "long"})))).await;
    follow(&observed, 10).await;
    observed.edit(|site| drop(happen(site, json!({"restore": "latest"})))).await;
    follow_failing(&observed, 60).await;
    assert_right(&observed).await;
}

/// The ids of the lost entries are used again, and one entry cannot be read.
#[tokio::test]
async fn a_restored_backup_is_another_history_also_around_an_entry_that_cannot_be_read() {
    let site = empty_site();
    let shots: Vec<i64> = (0..2).map(|n| create(&site, "Shot", json!({"code": format!("{n}")}))).collect();
    let mut observed = Observed::of(Cache::live(site).await);
    happen(observed.cache.site(), json!({"backup": "latest"}));
    observed.edit(|site| drop(site.update("Shot", shots[0], json!({"description": "lost"})))).await;
    follow(&observed, 10).await;
    observed.edit(|site| drop(happen(site, json!({"restore": "latest"})))).await;
    let spoiled = Trouble::Replaced { from: "MARKED".to_owned(), to: b"\xff".to_vec() };
    let rule = Rule { method: Some("read EventLogEntry".into()), ..Rule::always(spoiled) };
    observed.cache.site().troubles.order(rule, observed.cache.site().clock.now());
    for description in ["a", "b", "MARKED", "c"] {
        observed.edit(|site| drop(site.update("Shot", shots[1], json!({"description": description})))).await;
    }
    follow_failing(&observed, 60).await;
    assert_right(&observed).await;
}

/// Nothing writes the row again: the import has passed it.
#[tokio::test]
async fn a_row_of_an_older_store_is_not_served_after_an_import_that_is_not_confirmed() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "hero"}));
    create(&site, "Asset", json!({"code": "other"}));
    let mut observed = Observed::of(Cache::live(site).await);
    let older = copied_store(&mut observed.cache).await;
    observed.edit(|site| drop(site.retire("Asset", asset))).await;
    observed.cache.quiesce().await;
    observed.cache.state().new_incarnation().await.expect("an incarnation");
    follow(&observed, 1).await;
    let record = observed.cache.state().type_record(&"Asset".into()).await.expect("a type").expect("a known type");
    assert_eq!(record.state, TypeState::Importing);
    put_back_store(&mut observed.cache, older).await;
    follow(&observed, 5).await;
    assert_right(&observed).await;
}

/// The import does not meet what its filter hides, and the state knows it already.
#[tokio::test]
async fn a_dirty_row_that_its_filter_hides_is_not_served_after_an_import_over_an_older_store() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "hero"}));
    create(&site, "Asset", json!({"code": "other"}));
    let mut observed = Observed::of(Cache::live(site).await);
    let older = copied_store(&mut observed.cache).await;
    observed.edit(|site| drop(site.update("Asset", asset, json!({"sg_status_list": "omt"})))).await;
    observed.cache.quiesce().await;
    observed.cache.state().new_incarnation().await.expect("an incarnation");
    let rule = json!({"trouble": {"trouble": {"status": 503}, "method": "read Asset"}});
    happen(observed.cache.site(), rule);
    follow_failing(&observed, 1).await;
    observed.edit(|site| drop(site.update("Asset", asset, json!({"description": "not cached"})))).await;
    follow_failing(&observed, 1).await;
    put_back_store(&mut observed.cache, older).await;
    happen(observed.cache.site(), json!("end_trouble"));
    follow_failing(&observed, 20).await;
    assert_right(&observed).await;
}

/// No list that an import reads shows what its filter hides.
#[tokio::test]
async fn links_to_a_hidden_row_that_a_restored_site_has_again_are_shown() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "hero"}));
    create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let mut observed = Observed::of(Cache::live(site).await);
    observed.edit(|site| drop(site.update("Asset", asset, json!({"sg_status_list": "omt"})))).await;
    observed.cache.quiesce().await;
    happen(observed.cache.site(), json!({"backup": "latest"}));
    observed.edit(|site| drop(site.retire("Asset", asset))).await;
    observed.cache.quiesce().await;
    assert_right(&observed).await;
    observed.edit(|site| drop(happen(site, json!({"restore": "latest"})))).await;
    follow_failing(&observed, 60).await;
    assert_right(&observed).await;
}

/// A site in trouble does not hide the links to a row that no read has seen yet.
#[tokio::test]
async fn a_hidden_row_of_which_nothing_is_known_is_not_absent_by_empty_answers() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "hero", "sg_status_list": "omt"}));
    create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let mut cache = Cache::of(site).await;
    // No entry that a start reads is about it, and the import does not meet it.
    cache.tick(Duration::from_secs(600));
    create(cache.site(), "Asset", json!({"code": "other"}));
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    assert_eq!(cache.state().row(&"Asset".into(), asset).await.expect("a row"), None);
    let observed = Observed::of(cache);
    let dirty = NewDirtyKey::new(EntityRef::new("Asset", asset), DirtyReasons::CHANGE);
    observed.cache.state().mark(&[dirty], observed.cache.tick(Duration::ZERO)).await.expect("a mark");
    happen(observed.cache.site(), json!({"trouble": {"trouble": "no_rows", "method": "read Asset"}}));
    follow_failing(&observed, 30).await;
    happen(observed.cache.site(), json!("end_trouble"));
    follow_failing(&observed, 30).await;
    assert_right(&observed).await;
}
