//! Entries and rows of the site that are no JSON, or none that can be kept: each
//! stands alone, and what is beside it is followed.

use std::time::Duration;

use serde_json::json;
use sgcache::entity::{EntityRef, EntityType};
use sgcache::sim::{Rule, Trouble};
use sgcache::state::DeadKind;
use sgcache::store::Fields;

use crate::sync_cache::{Cache, create, empty_site};

/// What stands in the place of a marker: half a surrogate pair, a byte that is not
/// UTF-8, a bare line end, a number too large.
const UNREADABLE: &[&[u8]] = &[b"a\\ud83d", b"\xff", b"\n", b"\",\"x\":1e999,\"y\":\""];

fn shot() -> EntityType {
    EntityType::new("Shot")
}

/// Puts bytes in the place of a text in what the site answers to a method.
fn spoil(cache: &Cache, method: &str, from: &str, to: &[u8]) {
    let trouble = Trouble::Replaced { from: from.to_owned(), to: to.to_vec() };
    let rule = Rule { method: Some(method.to_owned()), ..Rule::always(trouble) };
    cache.site().troubles.order(rule, cache.site().clock.now());
}

async fn followed(count: usize) -> (Cache, Vec<i64>) {
    let site = empty_site();
    let ids = (0..count).map(|n| create(&site, "Shot", json!({"code": format!("shot{n}")}))).collect();
    (Cache::live(site).await, ids)
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_read_without_its_values_and_stops_nothing() {
    for spoiled in UNREADABLE {
        let (cache, ids) = followed(6).await;
        spoil(&cache, "read EventLogEntry", "MARKED", spoiled);
        for (n, id) in ids.iter().enumerate() {
            let text = if n == 3 { "MARKED".to_owned() } else { format!("clean {n}") };
            cache.site().update("Shot", *id, json!({"description": text})).expect("an update");
        }
        for _ in 0..4 {
            cache.step().await.expect("a step");
        }
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
        assert!(cache.state().dead(10).await.expect("dead letters").is_empty(), "{spoiled:?}");
        let seen = cache.state().stream().await.expect("a stream").high_water_mark;
        assert_eq!(seen, Some(cache.site().last_event_id()), "{spoiled:?}");
    }
}

#[tokio::test]
async fn an_entry_of_which_only_the_id_can_be_read_is_a_dead_letter_with_that_id() {
    let (cache, ids) = followed(3).await;
    spoil(&cache, "read EventLogEntry", "sg_cut_in", b"\xff");
    cache.site().update("Shot", ids[0], json!({"description": "before"})).expect("an update");
    cache.site().update("Shot", ids[1], json!({"sg_cut_in": 7})).expect("an update");
    let unreadable = cache.site().last_event_id();
    cache.site().update("Shot", ids[2], json!({"description": "after"})).expect("an update");
    for _ in 0..4 {
        cache.step().await.expect("a step");
    }
    cache.quiesce().await;
    let rows = cache.cached(cache.replica().tracked().layout(&shot()).expect("shots")).await;
    assert_eq!((&rows[&ids[0]]["description"], &rows[&ids[2]]["description"]), (&json!("before"), &json!("after")));
    let dead = cache.state().dead(10).await.expect("dead letters");
    let dead: Vec<_> = dead.into_iter().map(|dead| (dead.kind, dead.key)).collect();
    assert_eq!(dead, [(DeadKind::Event, EntityRef::new("EventLogEntry", unreadable.0))]);
}

#[tokio::test]
async fn a_site_of_which_nothing_can_be_read_is_not_asked_for_ever_smaller_pages() {
    let (cache, ids) = followed(1).await;
    cache.site().update("Shot", ids[0], json!({"description": "x"})).expect("an update");
    let trouble = Rule { method: Some("read EventLogEntry".into()), ..Rule::always(Trouble::Html) };
    cache.site().troubles.order(trouble, cache.site().clock.now());
    let polls = || {
        let labels = [("method", "event_poll")];
        cache.metrics().value("sgcache_source_requests_total", &labels).expect("a counter")
    };
    let before = polls();
    cache.step().await.expect_err("the site answers HTML");
    assert!(polls() - before <= 2.0, "{} requests", polls() - before);
}

#[tokio::test]
async fn a_row_that_cannot_be_kept_is_quarantined_and_never_stored_without_its_fields() {
    for spoiled in &UNREADABLE[..3] {
        let (cache, ids) = followed(3).await;
        cache.site().update("Shot", ids[1], json!({"description": "MARKED"})).expect("an update");
        cache.site().update("Shot", ids[2], json!({"description": "clean"})).expect("an update");
        spoil(&cache, "read Shot", "MARKED", spoiled);
        for _ in 0..8 {
            // Reads that break are tried again before one row is blamed.
            drop(cache.step().await);
        }
        let keys = [EntityRef::new("Shot", ids[1]), EntityRef::new("Shot", ids[2])];
        let rows = cache.replica().store().get(&keys, &Fields::All).await.expect("rows");
        assert_eq!(rows[0].get("code"), Some(json!("shot1")), "{spoiled:?}: as it was before");
        assert_eq!(rows[1].get("description"), Some(json!("clean")), "{spoiled:?}");
        assert_eq!(cache.state().quarantined(&shot()).await.expect("ids"), [ids[1]], "{spoiled:?}");
        cache.site().troubles.clear();
        cache.tick(Duration::from_secs(24 * 3600));
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
}

/// Whether it is newer than what is known of it cannot be told.
#[tokio::test]
async fn a_row_that_left_the_filter_and_cannot_be_read_is_quarantined() {
    for spoiled in &UNREADABLE[..3] {
        let site = empty_site();
        let ids = ["tree", "rock"].map(|code| create(&site, "Asset", json!({"code": code})));
        let cache = Cache::live(site).await;
        spoil(&cache, "read Asset", "MARKED", spoiled);
        for (id, text) in [(ids[0], "MARKED"), (ids[1], "clean")] {
            let left = json!({"sg_status_list": "omt", "code": text});
            cache.site().update("Asset", id, left).expect("an update");
        }
        for _ in 0..8 {
            // Reads that break are tried again before one row is blamed.
            drop(cache.step().await);
        }
        let dead = cache.state().dead(10).await.expect("dead letters");
        let keys: Vec<_> = dead.into_iter().map(|dead| dead.key).collect();
        assert_eq!(keys, [EntityRef::new("Asset", ids[0])], "{spoiled:?}");
        assert!(cache.ids("Asset").await.contains(&ids[0]), "{spoiled:?}: as it was before");
        cache.site().troubles.clear();
        cache.tick(std::time::Duration::from_secs(24 * 3600));
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
        assert_eq!(cache.ids("Asset").await, Vec::<i64>::new(), "{spoiled:?}");
    }
}

#[tokio::test]
async fn links_follow_the_retirement_and_the_revival_of_an_entity_that_cannot_be_read() {
    let site = empty_site();
    let sequence = create(&site, "Sequence", json!({"code": "010"}));
    let link = json!({"type": "Sequence", "id": sequence});
    let linked = create(&site, "Shot", json!({"code": "linked", "sg_sequence": link}));
    let cache = Cache::live(site).await;
    let layout = cache.replica().tracked().layout(&shot()).expect("shots").clone();
    spoil(&cache, "read Sequence", "MARKED", b"\xff");
    cache.site().update("Sequence", sequence, json!({"code": "MARKED"})).expect("an update");
    for is_active in [false, true] {
        match is_active {
            false => drop(cache.site().retire("Sequence", sequence).expect("a retirement")),
            true => drop(cache.site().revive("Sequence", sequence).expect("a revival")),
        }
        for _ in 0..10 {
            drop(cache.step().await);
        }
        let dead = cache.state().quarantined(&EntityType::new("Sequence")).await.expect("ids");
        assert_eq!(dead, [sequence], "active: {is_active}");
        let rows = cache.cached(&layout).await;
        assert_eq!(rows[&linked]["sg_sequence"]["id"] == json!(sequence), is_active, "{:?}", rows[&linked]);
    }
}

#[tokio::test]
async fn a_row_is_not_fresh_while_it_shows_a_link_to_a_retired_entity_that_cannot_be_read() {
    // The site refuses the read, or the row cannot be kept.
    let spoiled = Trouble::Replaced { from: "MARKED".to_owned(), to: UNREADABLE[0].to_vec() };
    for trouble in [busy(), spoiled] {
        let site = empty_site();
        let sequence = create(&site, "Sequence", json!({"code": "MARKED"}));
        let link = json!({"type": "Sequence", "id": sequence});
        let linked = create(&site, "Shot", json!({"code": "linked", "sg_sequence": link}));
        let cache = Cache::live(site).await;
        let layout = cache.replica().tracked().layout(&shot()).expect("shots").clone();
        let rule = Rule { answers: Some(EntityRef::new("Sequence", sequence)), ..Rule::always(trouble.clone()) };
        cache.site().troubles.order(rule, cache.site().clock.now());
        cache.site().retire("Sequence", sequence).expect("a retirement");
        let retired = cache.tick(Duration::ZERO);
        let mut shows_link = true;
        for _ in 0..10 {
            drop(cache.step().await);
            shows_link = !cache.cached(&layout).await[&linked]["sg_sequence"].is_null();
            let status = cache.state().replication_status().await.expect("a status");
            let fresh = status.fresh_as_of(&shot()).expect("freshness");
            assert!(!shows_link || fresh <= retired, "{trouble:?}: fresh {} ms after it", fresh.0 - retired.0);
        }
        assert!(!shows_link, "{trouble:?}");
        let quarantined = cache.state().quarantined(&EntityType::new("Sequence")).await.expect("ids");
        assert_eq!(quarantined, [sequence], "{trouble:?}");
    }
}

#[tokio::test]
async fn one_refusal_loses_no_name_of_an_entity_whose_type_is_not_cached() {
    let site = empty_site();
    let person = site.create("HumanUser", json!({"name": "Ann", "login": "ann"})).expect("a person");
    let link = json!([{"type": "HumanUser", "id": person}]);
    let task = create(&site, "Task", json!({"content": "anim", "task_assignees": link}));
    let cache = Cache::live(site).await;
    let refused = Rule { method: Some("read HumanUser".into()), times: Some(1), ..Rule::always(busy()) };
    cache.site().troubles.order(refused, cache.site().clock.now());
    cache.site().update("HumanUser", person, json!({"name": "Anna"})).expect("a rename");
    for _ in 0..4 {
        drop(cache.step().await);
    }
    let rows = cache.store().get(&[EntityRef::new("Task", task)], &Fields::All).await.expect("a row");
    assert_eq!(rows[0].get("task_assignees").expect("links")[0]["name"], "Anna");
}

/// What a site in trouble refuses requests with.
fn busy() -> Trouble {
    Trouble::Fault(104, "the site is busy".to_owned())
}
