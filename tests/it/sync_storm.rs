//! Event logs at their worst: repeated, shuffled, malformed and flooded.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType, EventId};
use sgcache::state::{DeadKind, DirtyReasons, NewDirtyKey, SiteTime};
use sgcache::store::Fields;
use sgcache::sync::{Settings, Steps};

use crate::sync_cache::{Cache, create, empty_site, happen, to};

/// Row 8: the same page of the log is delivered three times.
#[tokio::test]
async fn a_page_of_entries_delivered_three_times_changes_nothing_more() {
    let site = empty_site();
    let ids: Vec<i64> = (0..5).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    let high_water_mark = cache.state().stream().await.expect("a stream").high_water_mark.expect("a position");
    for id in &ids {
        cache.site().update("Shot", *id, json!({"sg_cut_in": 7})).expect("an update");
    }
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    let url = cache.client().site().to_owned();
    for _ in 0..2 {
        cache
            .state()
            .begin_stream(&url, high_water_mark, None, &[], None, SiteTime(0))
            .await
            .expect("a position set back");
        cache.site().requests.reset();
        let step = cache.step().await.expect("a step");
        assert_eq!((step.polled.entries, step.fetched.read), (5, 5));
        assert_eq!(cache.site().requests.of("read Shot"), 1, "one read for all");
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
    assert_eq!(cache.state().stream().await.expect("a stream").high_water_mark, Some(cache.site().last_event_id()));
}

/// Row 9: entries appear in any order, up to ten minutes late.
#[tokio::test]
async fn entries_in_any_order_and_ten_minutes_late_end_with_the_site() {
    let site = empty_site();
    let ids: Vec<i64> = (0..4).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    let mut held = Vec::new();
    for n in 0..12 {
        let mut one = cache.site().begin(cache.site().script());
        let id = ids[n % ids.len()];
        one.update("Shot", id, json!({"description": format!("late {n}"), "sg_cut_in": n})).expect("an update");
        held.push(one);
    }
    // A fixed shuffle: 5 and 12 have no common factor.
    let mut order: Vec<_> = held.into_iter().enumerate().collect();
    order.sort_by_key(|(n, _)| n * 5 % 12);
    for (_, one) in order {
        cache.tick(Duration::from_secs(50));
        cache.step().await.expect("a step");
        one.commit().expect("a commit");
    }
    cache.quiesce().await;
    assert!(cache.state().gaps().await.expect("gaps").is_empty());
    cache.assert_equal_to_site().await;
}

/// Row 52: one key changes five times a second for ten minutes, polled every 2 s.
#[tokio::test]
async fn a_hot_key_is_read_once_a_poll_and_is_never_behind_it() {
    let site = empty_site();
    let hot = create(&site, "Shot", json!({"code": "hot"}));
    let cache = Cache::live(site).await;
    let key = EntityRef::new("Shot", hot);
    cache.quiesce().await;
    cache.site().requests.reset();
    let polls = 300;
    for poll in 0..polls {
        for change in 0..10 {
            cache.site().update("Shot", hot, json!({"sg_cut_in": poll * 10 + change})).expect("an update");
        }
        cache.tick(Duration::from_secs(2));
        cache.step().await.expect("a step");
        let stored = cache.store().get(std::slice::from_ref(&key), &Fields::All).await.expect("a row");
        assert_eq!(stored[0].get("sg_cut_in"), Some(json!(poll * 10 + 9)));
    }
    // Beside it, scans of the whole type, every few minutes.
    let reads = cache.site().requests.of("read Shot");
    assert!(reads <= polls + 10, "{reads} reads");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 51: entries of any shape.
#[tokio::test]
async fn entries_that_nobody_understands_are_kept_and_block_nothing() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let site = cache.site();
    let entries: [(&str, Option<&str>, Option<Value>); 9] = [
        ("Toolkit_App_Startup", None, None),
        ("SG_RV_Session_Validate_Success", None, Some(json!({"type": "rv"}))),
        ("CRS_PlaylistShare_Create", None, Some(json!({"playlist_id": 7}))),
        ("Shotgun_Attachment_View", None, Some(json!({"type": "attachment_view"}))),
        ("Shotgun_Shot_Change", Some("code"), None),
        ("Shotgun_My_Own_Kind_Of_Change", None, Some(json!({"entity_type": 5, "entity_id": "x"}))),
        ("Shotgun_", None, Some(json!([1, {"type": "Shot"}]))),
        ("", None, Some(json!("text"))),
        ("Shotgun_Shot_Retirement", None, Some(json!({"id": "no number"}))),
    ];
    let log = |name: &str, attribute: Option<&str>, meta: Option<Value>| {
        happen(site, json!({"event": {"event_type": name, "attribute_name": attribute, "meta": meta}}));
        site.last_event_id()
    };
    let logged: Vec<EventId> = entries.into_iter().map(|(name, attribute, meta)| log(name, attribute, meta)).collect();
    site.update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert_eq!(cache.state().stream().await.expect("a stream").high_water_mark, Some(site.last_event_id()));
    let dead = cache.state().dead(20).await.expect("dead letters");
    assert!(dead.iter().all(|one| one.kind == DeadKind::Event), "{dead:?}");
    // The site's own entries about an entity, without any: kept for a person to see.
    let kept: Vec<i64> = dead.iter().map(|one| one.key.id).collect();
    assert_eq!(kept, [logged[3].0, logged[4].0, logged[5].0, logged[8].0]);
    assert!(dead[1].payload.contains("Shotgun_Shot_Change"), "{dead:?}");
}

/// Row 35: one row cannot be stored.
#[tokio::test]
async fn a_row_that_the_store_refuses_is_put_aside_alone() {
    let site = empty_site();
    let ids: Vec<i64> = (0..6).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    site.update("Shot", ids[2], json!({"description": "7"})).expect("an update");
    let cache = Cache::live(site).await;
    // Only one row has a value that is now of another kind than configured.
    cache.site().convert_to_number("Shot", "description");
    for id in &ids {
        cache.site().update("Shot", *id, json!({"sg_cut_in": 7})).expect("an update");
    }
    cache.step().await.expect("a step");
    let dead = cache.state().dead(10).await.expect("dead letters");
    assert_eq!(dead.iter().map(|one| (one.kind, one.key.id)).collect::<Vec<_>>(), [(DeadKind::Write, ids[2])]);
    assert!(dead[0].error.contains("description"), "{}", dead[0].error);
    assert_eq!(cache.state().quarantined(&EntityType::new("Shot")).await.expect("ids"), [ids[2]]);
    let (cached, shown) = (cache.cached(cache.layout("Shot")).await, cache.shown(cache.layout("Shot")).await);
    let differ: Vec<i64> = ids.iter().copied().filter(|id| cached[id] != shown[id]).collect();
    assert_eq!(differ, [ids[2]], "everything else is as on the site");
}

/// Row 53 in small: what somebody has just done does not wait for a bulk.
#[tokio::test]
async fn a_fresh_change_does_not_wait_behind_a_bulk_of_old_ones() {
    let site = empty_site();
    let ids: Vec<i64> = (0..120).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let mut cache = Cache::live(site).await;
    cache.start_with(Steps::default(), Settings::default(), 10).await.expect("a start");
    let bulk: Vec<_> =
        ids.iter().map(|id| NewDirtyKey::new(EntityRef::new("Shot", *id), DirtyReasons::CHANGE)).collect();
    cache.state().mark(&bulk, cache.tick(Duration::ZERO)).await.expect("marks");
    let last = ids[ids.len() - 1];
    cache.site().update("Shot", last, json!({"description": "fresh"})).expect("an update");
    cache.step().await.expect("a step");
    let cached = cache.cached(cache.layout("Shot")).await;
    assert_eq!(cached[&last]["description"], "fresh");
    assert!(cache.state().marks(1000).await.expect("marks").len() > 50, "most of the bulk still waits");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 15 in small: who comes back with many children costs few requests.
#[tokio::test]
async fn a_revival_with_many_children_is_followed_in_few_requests() {
    let site = empty_site();
    let shot = create(&site, "Shot", json!({"code": "a"}));
    for n in 0..80 {
        create(&site, "Version", json!({"code": format!("v{n}"), "entity": to("Shot", shot)}));
        create(&site, "Task", json!({"content": format!("t{n}"), "entity": to("Shot", shot)}));
    }
    let cache = Cache::live(site).await;
    cache.site().retire("Shot", shot).expect("a retirement");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    cache.site().revive("Shot", shot).expect("a revival");
    cache.site().requests.reset();
    cache.quiesce().await;
    let asked = cache.site().requests.of("read");
    assert!(asked < 100, "{asked} requests for 161 rows");
    cache.assert_equal_to_site().await;
}
