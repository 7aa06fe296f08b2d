//! A cache that follows a site: what the fault matrix demands, step by step.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::sim::Trouble;
use sgcache::state::{DeadKind, DirtyReasons, NewDirtyKey, RowState};
use sgcache::sync::{KeyOutcome, SyncError};

use crate::sync_cache::{Cache, create, empty_site, to};

fn shot() -> EntityType {
    EntityType::new("Shot")
}

#[tokio::test]
async fn an_import_and_the_changes_after_it_arrive() {
    let site = empty_site();
    let sequence = create(&site, "Sequence", json!({"code": "010"}));
    let first = create(&site, "Shot", json!({"code": "010_0010", "sg_sequence": to("Sequence", sequence)}));
    let cache = Cache::live(site).await;
    cache.assert_equal_to_site().await;

    let second = create(cache.site(), "Shot", json!({"code": "010_0020", "sg_sequence": to("Sequence", sequence)}));
    cache.site().update("Shot", first, json!({"sg_status_list": "ip", "sg_cut_in": 1001})).expect("an update");
    cache.step().await.expect("a step");
    assert_eq!(cache.ids("Shot").await, [first, second]);
    cache.assert_equal_to_site().await;

    cache.site().retire("Shot", first).expect("a retirement");
    cache.step().await.expect("a step");
    assert_eq!(cache.ids("Shot").await, [second]);
    cache.site().revive("Shot", first).expect("a revival");
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await, [first, second]);
    cache.assert_equal_to_site().await;
}

/// Row 1: ids that one worker holds for hours are used late.
#[tokio::test]
async fn an_id_that_was_reserved_for_hours_is_not_lost() {
    let cache = Cache::live(empty_site()).await;
    let id = create(cache.site(), "Shot", json!({"code": "a"}));
    cache.quiesce().await;
    let mut held = cache.site().begin(cache.site().script());
    held.update("Shot", id, json!({"description": "late"})).expect("an update");
    create(cache.site(), "Shot", json!({"code": "b"}));
    cache.quiesce().await;
    assert!(!cache.state().gaps().await.expect("gaps").is_empty(), "the reserved ids are open");
    cache.tick(Duration::from_secs(6 * 3600));
    cache.step().await.expect("a step");
    held.commit().expect("a commit");
    cache.quiesce().await;
    assert!(cache.state().gaps().await.expect("gaps").is_empty());
    cache.assert_equal_to_site().await;
}

/// Row 2: a large transaction commits long after its ids were taken.
#[tokio::test]
async fn a_large_transaction_that_commits_late_arrives_whole() {
    let cache = Cache::live(empty_site()).await;
    let mut held = cache.site().begin(cache.site().script());
    for index in 0..60 {
        held.create("Shot", json!({"code": format!("late_{index}"), "project": to("Project", 1)})).expect("a shot");
    }
    for index in 0..5 {
        create(cache.site(), "Shot", json!({"code": format!("early_{index}")}));
        cache.step().await.expect("a step");
    }
    cache.tick(Duration::from_secs(90));
    held.commit().expect("a commit");
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await.len(), 65);
    cache.assert_equal_to_site().await;
}

/// Row 3: a rollback burns ids; the gap stays, and a poll stays one request.
#[tokio::test]
async fn rolled_back_ids_stay_one_gap_in_one_request() {
    let cache = Cache::live(empty_site()).await;
    let mut held = cache.site().begin(cache.site().script());
    for index in 0..40 {
        held.create("Shot", json!({"code": format!("{index}"), "project": to("Project", 1)})).expect("a shot");
    }
    held.roll_back();
    create(cache.site(), "Shot", json!({"code": "after"}));
    cache.quiesce().await;
    let gaps = cache.state().gaps().await.expect("gaps");
    assert_eq!(gaps.len(), 1);
    cache.site().requests.reset();
    cache.step().await.expect("a step");
    assert_eq!(cache.site().requests.of("read EventLogEntry"), 1);
    cache.assert_equal_to_site().await;
}

/// Row 4: more entries than a page holds.
#[tokio::test]
async fn more_entries_than_a_page_leave_no_false_gap() {
    let cache = Cache::live(empty_site()).await;
    for index in 0..400 {
        create(cache.site(), "Shot", json!({"code": format!("{index}")}));
    }
    let step = cache.step().await.expect("a step");
    assert!(step.polled.full);
    cache.quiesce().await;
    assert!(cache.state().gaps().await.expect("gaps").is_empty());
    assert_eq!(cache.state().stream().await.expect("a stream").high_water_mark, Some(cache.site().last_event_id()));
    cache.assert_equal_to_site().await;
}

/// Row 5: two transactions on one row commit in the opposite order of their ids.
#[tokio::test]
async fn commits_in_the_opposite_order_of_their_ids_end_with_the_last_one() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let mut first = cache.site().begin(cache.site().script());
    first.update("Shot", id, json!({"description": "first"})).expect("an update");
    let mut second = cache.site().begin(cache.site().script());
    second.update("Shot", id, json!({"description": "second"})).expect("an update");
    second.commit().expect("a commit");
    cache.step().await.expect("a step");
    first.commit().expect("a commit");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Rows 6 and 7: links that come and go within a tick.
#[tokio::test]
async fn links_added_and_removed_in_one_tick_end_as_on_the_site() {
    let site = empty_site();
    let assets: Vec<i64> = (0..3).map(|n| create(&site, "Asset", json!({"code": format!("a{n}")}))).collect();
    let id = create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", assets[0])]}));
    let cache = Cache::live(site).await;
    let links = |ids: &[i64]| json!({"assets": ids.iter().map(|id| to("Asset", *id)).collect::<Vec<Value>>()});
    cache.site().update("Shot", id, links(&assets[1..])).expect("an update");
    cache.site().update("Shot", id, links(&assets)).expect("an update");
    cache.site().update("Shot", id, links(&assets[2..])).expect("an update");
    cache.step().await.expect("a step");
    cache.assert_equal_to_site().await;
}

/// Row 10: an entity that came and went before anybody looked.
#[tokio::test]
async fn an_entity_that_came_and_went_between_two_polls_leaves_nothing() {
    let cache = Cache::live(empty_site()).await;
    let id = create(cache.site(), "Shot", json!({"code": "a"}));
    cache.site().retire("Shot", id).expect("a retirement");
    cache.quiesce().await;
    assert!(cache.ids("Shot").await.is_empty());
    assert!(cache.state().dead(10).await.expect("dead letters").is_empty());
    cache.assert_equal_to_site().await;
}

/// Row 11: retired, revived, retired within one tick.
#[tokio::test]
async fn a_life_of_ups_and_downs_within_a_tick_ends_right() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    for _ in 0..2 {
        cache.site().retire("Shot", id).expect("a retirement");
        cache.site().revive("Shot", id).expect("a revival");
    }
    cache.site().retire("Shot", id).expect("a retirement");
    cache.step().await.expect("a step");
    assert!(cache.ids("Shot").await.is_empty());
    cache.site().revive("Shot", id).expect("a revival");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 11 again: no read ever saw the target retired, but one of a row that links to it
/// was made meanwhile, and lost the link.
#[tokio::test]
async fn a_link_comes_back_with_a_target_that_no_read_saw_retired() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "tree"}));
    let shot = create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let cache = Cache::live(site).await;
    cache.site().retire("Asset", asset).expect("a retirement");
    cache.site().update("Shot", shot, json!({"description": "read meanwhile"})).expect("an update");
    cache.site().troubles.next_of("read Asset", 1, sgcache::sim::Trouble::Dropped);
    cache.step().await.expect_err("the target is not read");
    let state = cache.state().row(&"Asset".into(), asset).await.expect("a row").expect("a known row").state;
    assert_eq!(state, sgcache::state::RowState::Active, "its retirement was never seen");
    cache.site().revive("Asset", asset).expect("a revival");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Rows 12 to 14: what a Shot takes along, and what comes back with it.
#[tokio::test]
async fn cascades_of_a_retirement_and_of_a_revival_are_followed() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let task = create(&site, "Task", json!({"content": "anim", "entity": to("Shot", id)}));
    let asset = create(&site, "Asset", json!({"code": "tree", "shots": [to("Shot", id)]}));
    create(&site, "Version", json!({"code": "v1", "entity": to("Shot", id), "sg_task": to("Task", task)}));
    let cache = Cache::live(site).await;
    cache.assert_equal_to_site().await;

    cache.site().retire("Shot", id).expect("a retirement");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    cache.site().update("Asset", asset, json!({"code": "old tree"})).expect("an update");
    cache.quiesce().await;
    cache.site().revive("Shot", id).expect("a revival");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;

    cache.site().retire("Task", task).expect("a retirement");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// What was retired before the import is not known at all when it comes back.
#[tokio::test]
async fn links_to_an_entity_that_was_retired_before_the_import_return_with_it() {
    let site = empty_site();
    let (shot, asset) = (create(&site, "Shot", json!({"code": "a"})), create(&site, "Asset", json!({"code": "tree"})));
    site.update("Shot", shot, json!({"assets": [to("Asset", asset)]})).expect("an update");
    site.retire("Asset", asset).expect("a retirement");
    let cache = Cache::live(site).await;
    cache.assert_equal_to_site().await;
    cache.site().revive("Asset", asset).expect("a revival");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 16: a rename of something that many rows link to reads none of them again.
#[tokio::test]
async fn a_rename_shows_in_every_link_without_reading_the_linking_rows() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "tree"}));
    for index in 0..30 {
        create(&site, "Shot", json!({"code": format!("s{index}"), "assets": [to("Asset", asset)]}));
    }
    let cache = Cache::live(site).await;
    cache.site().requests.reset();
    cache.site().update("Asset", asset, json!({"code": "oak"})).expect("an update");
    cache.quiesce().await;
    assert_eq!(cache.site().requests.of("read Shot"), 0);
    let layout = cache.layout("Shot");
    let query = sgcache::filter::Query::all("Shot").fields(layout.paths());
    let rows = cache.store().find(&query).await.expect("rows").rows;
    assert_eq!(rows.len(), 30);
    for row in rows {
        assert_eq!(row.get("assets").expect("links")[0]["name"], "oak");
    }
    cache.assert_equal_to_site().await;
}

/// A rename of a type that is not cached reaches the links, too.
#[tokio::test]
async fn a_renamed_person_shows_in_links_although_people_are_not_cached() {
    let site = empty_site();
    let person = site.create("HumanUser", json!({"name": "Ann", "login": "ann"})).expect("a person");
    let task = create(&site, "Task", json!({"content": "anim", "task_assignees": [to("HumanUser", person)]}));
    let cache = Cache::live(site).await;
    let assignee = async || {
        let key = EntityRef::new("Task", task);
        let rows = cache.store().get(&[key], &sgcache::store::Fields::All).await.expect("a row");
        rows[0].get("task_assignees").expect("links")[0].get("name").cloned()
    };
    assert_eq!(assignee().await, Some(json!("Ann")));
    cache.site().update("HumanUser", person, json!({"name": "Anna"})).expect("a rename");
    cache.quiesce().await;
    assert_eq!(assignee().await, Some(json!("Anna")));
    cache.assert_equal_to_site().await;
}

/// Row 17: the other side of a link change.
#[tokio::test]
async fn both_sides_of_a_link_follow_a_change_of_one() {
    let site = empty_site();
    let shots: Vec<i64> = (0..2).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let task = create(&site, "Task", json!({"content": "anim", "entity": to("Shot", shots[0])}));
    let sequence = create(&site, "Sequence", json!({"code": "010", "shots": [to("Shot", shots[0])]}));
    let cache = Cache::live(site).await;
    cache.site().update("Task", task, json!({"entity": to("Shot", shots[1])})).expect("an update");
    cache.site().update("Sequence", sequence, json!({"shots": [to("Shot", shots[1])]})).expect("an update");
    cache.step().await.expect("a step");
    cache.assert_equal_to_site().await;
}

/// Row 27: a row moves out of its filter and back through a field of its own.
#[tokio::test]
async fn a_row_that_leaves_its_filter_leaves_the_cache_and_returns() {
    let site = empty_site();
    let id = create(&site, "Asset", json!({"code": "tree"}));
    let cache = Cache::live(site).await;
    for (status, present) in [("omt", false), ("ip", true), ("omt", false)] {
        cache.site().update("Asset", id, json!({"sg_status_list": status})).expect("an update");
        cache.quiesce().await;
        assert_eq!(cache.ids("Asset").await.len(), usize::from(present), "{status}");
        cache.assert_equal_to_site().await;
    }
    let row = cache.state().row(&EntityType::new("Asset"), id).await.expect("a row").expect("a known row");
    assert_eq!(row.state, RowState::Filtered);
}

/// Row 28: what a deep filter looks at changes, the filtered rows do not.
#[tokio::test]
async fn a_change_on_the_way_of_a_deep_filter_moves_the_filtered_rows() {
    let site = empty_site();
    let sequence = create(&site, "Sequence", json!({"code": "010"}));
    let id = create(&site, "Shot", json!({"code": "a", "sg_sequence": to("Sequence", sequence)}));
    create(&site, "Version", json!({"code": "v1", "entity": to("Shot", id)}));
    let cache = Cache::live(site).await;
    assert_eq!(cache.ids("Version").await.len(), 1);
    for (status, present) in [("omt", 0), ("ip", 1)] {
        cache.site().update("Sequence", sequence, json!({"sg_status_list": status})).expect("an update");
        cache.step().await.expect("a step");
        let fresh = cache.state().fresh_as_of_type(&EntityType::new("Version")).await.expect("a moment");
        let now = cache.tick(Duration::ZERO);
        assert!(fresh < Some(now), "freshness waits for the comparison");
        cache.quiesce().await;
        assert_eq!(cache.ids("Version").await.len(), present, "{status}");
        cache.assert_equal_to_site().await;
    }
}

/// Row 35, and 59: what the site leaves out or denies is not deleted.
#[tokio::test]
async fn an_empty_answer_for_many_keys_deletes_nothing() {
    let site = empty_site();
    let ids: Vec<i64> = (0..30).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    for id in &ids {
        cache.site().update("Shot", *id, json!({"sg_cut_in": 7})).expect("an update");
    }
    cache.site().troubles.next_of("read Shot", 2, Trouble::NoRows);
    cache.step().await.expect("a step");
    assert_eq!(cache.ids("Shot").await.len(), 30);
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 60: an event for a row that no read returns.
#[tokio::test]
async fn an_event_for_a_phantom_ends_without_a_row() {
    let cache = Cache::live(empty_site()).await;
    let phantom = EntityRef::new("Shot", 4711);
    let mark = sgcache::state::NewDirtyKey::new(phantom, sgcache::state::DirtyReasons::NEW);
    cache.state().mark(&[mark], cache.tick(Duration::ZERO)).await.expect("a mark");
    cache.quiesce().await;
    assert!(cache.ids("Shot").await.is_empty());
    cache.assert_equal_to_site().await;
}

/// Row 25: the event is visible, the row is not yet.
#[tokio::test]
async fn a_row_that_was_read_too_early_is_read_again() {
    let cache = Cache::live(empty_site()).await;
    create(cache.site(), "Shot", json!({"code": "a"}));
    // A replica of the site that lags: the first reads of the key find nothing.
    cache.site().troubles.next_of("read Shot", 2, Trouble::NoRows);
    cache.step().await.expect("a step");
    assert!(cache.ids("Shot").await.is_empty());
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await.len(), 1);
    cache.assert_equal_to_site().await;
}

/// Row 26: the row was there before its event.
#[tokio::test]
async fn a_row_that_was_there_before_its_event_is_only_read_again() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    cache.site().update_silently("Shot", id, json!({"code": "b"})).expect("an update");
    let changes = cache.replica().refetch(&[EntityRef::new("Shot", id)]).await.expect("a read");
    assert_eq!(changes[0].outcome, KeyOutcome::Changed);
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 34: one key makes every read of it fail.
#[tokio::test]
async fn a_key_that_makes_every_read_fail_is_put_aside_alone_and_returns() {
    let site = empty_site();
    let ids: Vec<i64> = (0..8).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    for id in &ids {
        cache.site().update("Shot", *id, json!({"sg_cut_in": 7})).expect("an update");
    }
    // Each read is followed by one that can return nothing, to find out who is to blame.
    let refuse = |times: usize| {
        for _ in 0..times {
            let words = "API read() something is wrong with this row";
            cache.site().troubles.next_of("read Shot", 1, Trouble::Fault(104, words.into()));
            cache.site().troubles.next_of("read Shot", 1, Trouble::Slow(Duration::ZERO.into()));
        }
    };
    // The chunk fails, then the parts with the first key in them: four, two, one.
    refuse(4);
    cache.step().await.expect("a step");
    assert!(cache.state().quarantined(&shot()).await.expect("ids").is_empty(), "one refusal is not confirmed");
    refuse(1);
    cache.step().await.expect("a step");
    assert_eq!(cache.state().quarantined(&shot()).await.expect("ids"), [ids[0]]);
    let dead = cache.state().dead(10).await.expect("dead letters");
    assert_eq!((dead.len(), dead[0].kind), (1, DeadKind::Read));
    let (cached, shown) = (cache.cached(cache.layout("Shot")).await, cache.shown(cache.layout("Shot")).await);
    let differ: Vec<i64> = ids.iter().copied().filter(|id| cached[id] != shown[id]).collect();
    assert_eq!(differ, [ids[0]], "everything else is as on the site");
    cache.tick(Duration::from_secs(60));
    cache.quiesce().await;
    assert!(cache.state().dead(10).await.expect("dead letters").is_empty());
    cache.assert_equal_to_site().await;
}

/// A fault of the whole type is no fault of its keys.
#[tokio::test]
async fn a_type_that_cannot_be_read_puts_no_key_aside() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    let words = "API read() Shot.code doesn't exist";
    cache.site().troubles.next_of("read Shot", 2, Trouble::Fault(103, words.into()));
    let refused = cache.step().await.expect_err("a refused type");
    assert!(matches!(refused, SyncError::Schema { .. }), "{refused}");
    assert!(cache.state().dead(10).await.expect("dead letters").is_empty());
    cache.tick(Duration::from_secs(30));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn the_visible_event_is_the_one_before_the_first_that_is_not_in_the_rows() {
    let site = empty_site();
    let shot = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let before = cache.state().stream().await.expect("a stream").high_water_mark;
    assert_eq!(cache.state().visible_event().await.expect("an id"), before);
    cache.tick(Duration::from_secs(5));
    cache.site().update("Shot", shot, json!({"code": "b"})).expect("an update");
    // A row that is only read once more holds up nothing.
    let other = NewDirtyKey::new(EntityRef::new("Shot", shot + 1), DirtyReasons::RECHECK);
    cache.state().mark(&[other], cache.replica().now()).await.expect("a mark");
    cache.replica().poll().await.expect("a poll");
    let high_water_mark = cache.state().stream().await.expect("a stream").high_water_mark;
    assert!(high_water_mark > before);
    assert_eq!(cache.state().visible_event().await.expect("an id"), before);
    cache.quiesce().await;
    assert_eq!(cache.state().visible_event().await.expect("an id"), high_water_mark);
}
