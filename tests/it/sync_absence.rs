//! Rows that the site does not show for a while, or not any more: what is believed,
//! when, and what comes back by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::state::DirtyReasons;
use sgcache::state::NewDirtyKey;
use sgcache::sync::{Settings, Steps};

use crate::sync_cache::{Cache, create, empty_site, happen};

/// The period of the fast scan.
const FAST: Duration = Duration::from_secs(300);

fn shot() -> EntityType {
    EntityType::new("Shot")
}

fn quarter_of_reads_is_empty(cache: &Cache) {
    happen(cache.site(), json!({"trouble": {"trouble": "no_rows", "method": "read", "chance": 0.25}}));
}

fn see_projects(cache: &Cache, projects: Value) {
    happen(cache.site(), json!({"permissions": {"script": "sgcache", "projects": projects}}));
}

async fn breaker_is_open(cache: &Cache) -> bool {
    cache.state().open_breakers().await.expect("breakers").iter().any(|open| open.entity_type == *"Shot")
}

async fn mark(cache: &Cache, ids: impl IntoIterator<Item = i64>) {
    let request = |id| NewDirtyKey::new(EntityRef::new("Shot", id), DirtyReasons::SCAN);
    let marks: Vec<_> = ids.into_iter().map(request).collect();
    cache.state().mark(&marks, cache.tick(Duration::ZERO)).await.expect("marks");
}

async fn step(cache: &Cache, times: usize, seconds: u64) {
    for _ in 0..times {
        cache.follower().step(cache.tick(Duration::from_secs(seconds))).await.expect("a step");
    }
}

/// A cache of as many shots in project 2, and one in project 1.
async fn two_projects(count: usize) -> (Cache, Vec<i64>) {
    let site = empty_site();
    let other = site.create("Project", json!({"name": "Two"})).expect("a project");
    let make = |n: usize| {
        let fields = json!({"code": format!("s{n}"), "project": {"type": "Project", "id": other}});
        site.create("Shot", fields).expect("a shot")
    };
    let hidden = (0..count).map(make).collect();
    create(&site, "Shot", json!({"code": "seen by all"}));
    (Cache::live(site).await, hidden)
}

#[tokio::test]
async fn a_quarter_of_empty_answers_removes_no_row() {
    let site = empty_site();
    let mut ids = BTreeSet::new();
    for number in 0..30 {
        ids.insert(create(&site, "Shot", json!({"code": format!("s{number}")})));
        create(&site, "Asset", json!({"code": format!("a{number}"), "sg_status_list": "ip"}));
        create(&site, "Task", json!({"content": format!("t{number}")}));
    }
    let assets = 30;
    let cache = Cache::live(site).await;
    quarter_of_reads_is_empty(&cache);
    for round in 0..30 {
        for id in ids.iter().skip(round).take(3) {
            cache.site().update("Shot", *id, json!({"sg_cut_in": round})).expect("an update");
        }
        for id in 1..=3 {
            let status = if round % 2 == 0 { "wtg" } else { "ip" };
            cache.site().update("Asset", id, json!({"sg_status_list": status})).expect("an update");
        }
        // A poll, too, may be answered with an error of the rows that it lacks.
        let _ = cache.step().await;
        assert_eq!(cache.ids("Shot").await, Vec::from_iter(ids.clone()), "shots after round {round}");
        assert_eq!(cache.ids("Asset").await.len(), assets, "assets after round {round}");
    }
    happen(cache.site(), json!("end_trouble"));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn an_import_under_empty_answers_is_complete() {
    let site = empty_site();
    for number in 0..300 {
        create(&site, "Shot", json!({"code": format!("s{number}")}));
    }
    let mut cache = Cache::of(site).await;
    cache.start_with(Steps::default(), Settings::default(), 20).await.expect("a start");
    quarter_of_reads_is_empty(&cache);
    while cache.follower().import_pending().await.is_err() {}
    happen(cache.site(), json!("end_trouble"));
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await.len(), 300);
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn an_import_is_not_ended_by_empty_pages_of_a_site_that_refuses_to_count() {
    let site = empty_site();
    for number in 0..3 {
        create(&site, "Shot", json!({"code": format!("s{number}")}));
    }
    let cache = Cache::live(site).await;
    cache.state().new_incarnation().await.expect("an incarnation");
    happen(cache.site(), json!({"trouble": {"trouble": "no_rows", "method": "read Shot"}}));
    let busy = json!({"fault": [104, "the site is busy"]});
    happen(cache.site(), json!({"trouble": {"trouble": busy, "method": "summarize"}}));
    cache.follower().import_pending().await.expect_err("an empty answer");
    happen(cache.site(), json!("end_trouble"));
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn all_keys_that_an_answer_lacks_are_asked_for_again_even_if_they_fill_a_page() {
    let site = empty_site();
    let ids: Vec<i64> = (0..20).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let mut cache = Cache::live(site).await;
    cache.start_with(Steps::default(), Settings::default(), 10).await.expect("a start");
    happen(cache.site(), json!({"trouble": {"trouble": "no_rows", "method": "read Shot", "times": 2}}));
    let keys: Vec<_> = ids[..10].iter().map(|id| EntityRef::new("Shot", *id)).collect();
    cache.replica().refetch(&keys).await.expect("a read");
    assert_eq!(cache.ids("Shot").await, ids);
}

#[tokio::test]
async fn projects_that_are_hidden_for_twenty_seconds_lose_no_row() {
    let (cache, hidden) = two_projects(140).await;
    see_projects(&cache, json!([1]));
    // As the light scan does; the events of hidden projects are hidden, too.
    mark(&cache, hidden[..40].iter().copied()).await;
    step(&cache, 5, 2).await;
    mark(&cache, hidden[40..].iter().copied()).await;
    step(&cache, 5, 2).await;
    assert_eq!(cache.ids("Shot").await.len(), 141);
    see_projects(&cache, Value::Null);
    step(&cache, 20, 2).await;
    cache.quiesce().await;
    assert!(!breaker_is_open(&cache).await);
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_row_under_suspicion_is_not_vouched_for_and_holds_up_no_other() {
    let (cache, hidden) = two_projects(3).await;
    see_projects(&cache, json!([1]));
    let changed = NewDirtyKey::new(EntityRef::new("Shot", hidden[0]), DirtyReasons::CHANGE);
    cache.state().mark(&[changed], cache.tick(Duration::ZERO)).await.expect("a mark");
    step(&cache, 2, 2).await;
    let standing = cache.state().replication_status().await.expect("a standing");
    let shots = &standing.types[&shot()];
    assert_eq!(Vec::from_iter(shots.quarantined.clone()), [hidden[0]]);
    assert_eq!((shots.breaker, standing.is_marked(&shot())), (false, false));
    see_projects(&cache, Value::Null);
    cache.quiesce().await;
    let standing = cache.state().replication_status().await.expect("a standing");
    assert!(standing.types[&shot()].quarantined.is_empty());
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_few_rows_that_were_hidden_for_long_return_within_the_fast_period() {
    let (cache, hidden) = two_projects(20).await;
    see_projects(&cache, json!([1]));
    mark(&cache, hidden).await;
    step(&cache, 8, 10).await;
    assert_eq!(cache.ids("Shot").await.len(), 1, "three reads did not find them");
    see_projects(&cache, Value::Null);
    cache.tick(FAST);
    step(&cache, 1, 2).await;
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await.len(), 21);
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn what_vanished_before_the_breaker_opened_returns_when_it_closes() {
    let (cache, hidden) = two_projects(160).await;
    see_projects(&cache, json!([1]));
    mark(&cache, hidden[..40].iter().copied()).await;
    step(&cache, 8, 10).await;
    assert_eq!((cache.ids("Shot").await.len(), breaker_is_open(&cache).await), (121, false));
    mark(&cache, hidden[40..].iter().copied()).await;
    step(&cache, 8, 10).await;
    assert_eq!((cache.ids("Shot").await.len(), breaker_is_open(&cache).await), (121, true));
    see_projects(&cache, Value::Null);
    step(&cache, 8, 10).await;
    assert!(!breaker_is_open(&cache).await);
    assert_eq!(cache.ids("Shot").await.len(), 161, "without a scan");
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn what_vanished_before_the_breaker_opened_is_looked_for_when_it_opens() {
    let (cache, hidden) = two_projects(160).await;
    see_projects(&cache, json!([1]));
    mark(&cache, hidden[..40].iter().copied()).await;
    step(&cache, 8, 10).await;
    // The first project is back, another one is hidden: only the breaker knows of both.
    let third = cache.site().create("Project", json!({"name": "Three"})).expect("a project");
    let project = json!({"project": {"type": "Project", "id": third}});
    for id in &hidden[40..] {
        cache.site().update_silently("Shot", *id, project.clone()).expect("an update");
    }
    see_projects(&cache, json!([1, 2]));
    mark(&cache, hidden[40..].iter().copied()).await;
    step(&cache, 8, 10).await;
    assert_eq!((cache.ids("Shot").await.len(), breaker_is_open(&cache).await), (161, true));
}

#[tokio::test]
async fn a_retirement_shows_after_one_step_and_an_erasure_after_three_reads() {
    let site = empty_site();
    let ids: Vec<i64> = (0..5).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    cache.site().retire("Shot", ids[0]).expect("a retirement");
    cache.step().await.expect("a step");
    assert_eq!(cache.ids("Shot").await, ids[1..]);
    // Retired and erased between two polls: the event says what no list shows any more.
    cache.site().retire("Shot", ids[1]).expect("a retirement");
    happen(cache.site(), json!({"purge": {"type": "Shot", "id": ids[1]}}));
    cache.step().await.expect("a step");
    assert_eq!(cache.ids("Shot").await, ids[2..]);
    // Erased without an event.
    happen(cache.site(), json!({"purge": {"type": "Shot", "id": ids[2]}}));
    mark(&cache, [ids[2]]).await;
    step(&cache, 2, 10).await;
    assert_eq!(cache.ids("Shot").await, ids[2..], "two reads are not enough");
    step(&cache, 4, 10).await;
    assert_eq!(cache.ids("Shot").await, ids[3..]);
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_type_that_lost_its_only_row_is_empty_in_the_end() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    happen(cache.site(), json!({"purge": {"type": "Shot", "id": id}}));
    mark(&cache, [id]).await;
    step(&cache, 8, 10).await;
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(cache.ids("Shot").await.is_empty());
}

#[tokio::test]
async fn an_operator_confirms_a_mass_deletion_or_has_it_judged_anew() {
    let (cache, hidden) = two_projects(140).await;
    see_projects(&cache, json!([1]));
    mark(&cache, hidden.iter().copied()).await;
    step(&cache, 8, 10).await;
    assert!(breaker_is_open(&cache).await);
    let again = cache.state().reset_breaker(&shot(), cache.tick(Duration::ZERO)).await.expect("a reset");
    assert_eq!(again, 140);
    step(&cache, 8, 10).await;
    assert!(breaker_is_open(&cache).await, "they are still hidden");
    let confirmed = cache.state().confirm_deletions(&shot(), cache.tick(Duration::ZERO)).await.expect("a confirmation");
    assert_eq!(confirmed, 140);
    step(&cache, 2, 10).await;
    cache.quiesce().await;
    assert_eq!((cache.ids("Shot").await.len(), breaker_is_open(&cache).await), (1, false));
}
