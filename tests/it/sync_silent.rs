//! Changes that no event tells of, and events that nobody delivers: what scans,
//! the scrub and the audit find by themselves, in their periods.

use std::time::Duration;

use serde_json::json;
use sgcache::entity::{EntityRef, EntityType};
use sgcache::sim::{Actor, Site};
use sgcache::state::SiteTime;
use sgcache::sync::{ScanKind, Settings, Steps};

use crate::sync_cache::{CONFIGS, Cache, create, empty_site, happen, to};

const FAST: Duration = Duration::from_secs(300);
const LIGHT: Duration = Duration::from_secs(3600);

fn shot() -> EntityType {
    EntityType::new("Shot")
}

/// A script whose events are switched off.
fn silent(site: &Site) -> Actor {
    Actor { logs: false, ..site.script() }
}

fn erase(cache: &Cache, entity_type: &str, id: i64) {
    happen(cache.site(), json!({"purge": {"type": entity_type, "id": id}}));
}

fn silent_changes(cache: &Cache) -> f64 {
    let labels = [("entity_type", "other")];
    cache.metrics().value("sgcache_sync_silent_changes_total", &labels).expect("a counter")
}

async fn of_shots(count: usize) -> (Cache, Vec<i64>) {
    let site = empty_site();
    let ids = (0..count).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    cache.tick(Duration::from_secs(60));
    (cache, ids)
}

/// Lets a period pass and everything that is then due be done.
async fn pass(cache: &Cache, period: Duration) {
    cache.tick(period);
    cache.step().await.expect("a step");
    cache.quiesce().await;
}

/// Row 18: a script without events changes a thousand rows.
#[tokio::test]
async fn a_thousand_silent_changes_are_found_within_the_fast_period_and_counted() {
    let (cache, ids) = of_shots(1000).await;
    for id in &ids {
        cache.site().update_silently("Shot", *id, json!({"sg_cut_in": 7})).expect("an update");
    }
    pass(&cache, FAST).await;
    cache.assert_equal_to_site().await;
    assert_eq!(silent_changes(&cache), 1000.0);
    assert_eq!(cache.replica().scan(&shot(), ScanKind::Light).await.expect("a scan").found(), 0);
}

/// Row 19: rows that a script creates silently, dated long ago.
#[tokio::test]
async fn silent_creations_of_long_ago_are_found_by_their_ids() {
    let (cache, mut ids) = of_shots(3).await;
    let fields = json!({"code": "old", "project": to("Project", 1), "updated_at": "2019-03-01T10:00:00Z"});
    ids.push(cache.site().create_as(silent(cache.site()), "Shot", fields).expect("a shot"));
    pass(&cache, FAST).await;
    assert_eq!(cache.ids("Shot").await, ids);
    cache.assert_equal_to_site().await;
}

/// Row 20: a script retires rows and dates others back, silently.
#[tokio::test]
async fn silent_retirements_and_dates_set_back_are_found_by_the_light_scan() {
    let (cache, ids) = of_shots(4).await;
    let back = json!({"updated_at": "2019-03-01T10:00:00Z"});
    cache.site().update_silently("Shot", ids[0], back).expect("an update");
    cache.site().write(silent(cache.site()), |writer| writer.delete(&shot(), ids[1])).expect("a retirement");
    pass(&cache, FAST).await;
    assert_eq!(cache.ids("Shot").await, ids, "the newest rows show nothing of it");
    pass(&cache, LIGHT).await;
    assert_eq!(cache.ids("Shot").await, [ids[0], ids[2], ids[3]]);
    cache.assert_equal_to_site().await;
}

/// A silent revival, and a retired row that is erased from the trash.
#[tokio::test]
async fn the_list_of_retired_rows_is_kept_right_without_events() {
    let (cache, ids) = of_shots(4).await;
    for id in &ids[..3] {
        cache.site().retire("Shot", *id).expect("a retirement");
    }
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    cache.site().write(silent(cache.site()), |writer| writer.revive(&shot(), ids[0])).expect("a revival");
    erase(&cache, "Shot", ids[1]);
    let found = cache.replica().scan(&shot(), ScanKind::Retired).await.expect("a scan");
    assert_eq!((found.rows, found.extra), (1, 2));
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await, [ids[0], ids[3]]);
    cache.assert_equal_to_site().await;
    cache.assert_retired_equal_to_site().await;
}

/// Row 21: the second of two changes in one second, without an event.
#[tokio::test]
async fn a_silent_change_in_the_second_of_a_told_one_is_found_by_the_scrub() {
    let (cache, ids) = of_shots(3).await;
    cache.site().update("Shot", ids[1], json!({"description": "told"})).expect("an update");
    cache.step().await.expect("a step");
    let told = cache.shown(cache.layout("Shot")).await[&ids[1]]["updated_at"].clone();
    let hidden = json!({"description": "not told"});
    cache.site().update_silently("Shot", ids[1], hidden).expect("an update");
    cache.site().update_silently("Shot", ids[1], json!({"updated_at": told})).expect("an update");
    cache.quiesce().await;
    assert_eq!(cache.replica().scan(&shot(), ScanKind::Light).await.expect("a scan").found(), 0);
    pass(&cache, Duration::from_secs(600)).await;
    cache.assert_equal_to_site().await;
    assert_eq!(silent_changes(&cache), 1.0);
}

/// Row 22: replies are erased for good, and have no `updated_at`.
#[tokio::test]
async fn erased_and_changed_replies_are_found_by_the_light_scan() {
    let site = empty_site();
    let note = create(&site, "Note", json!({"subject": "hello"}));
    let reply = |n: i32| site.create("Reply", json!({"content": format!("r{n}"), "entity": to("Note", note)}));
    let replies: Vec<i64> = (0..5).map(|n| reply(n).expect("a reply")).collect();
    let mut cache = Cache::of(site).await;
    let configs = [CONFIGS, &[("Reply", r#"{"fields": {"content": {}, "entity": {}}}"#)]].concat();
    cache.configure(&configs).await;
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    assert!(cache.layout("Reply").field("updated_at").is_none());

    erase(&cache, "Reply", replies[0]);
    erase(&cache, "Reply", replies[3]);
    cache.site().update_silently("Reply", replies[4], json!({"content": "other"})).expect("an update");
    pass(&cache, LIGHT).await;
    assert_eq!(cache.ids("Reply").await, [replies[1], replies[2], replies[4]]);
    cache.assert_equal_to_site().await;
}

/// Row 23: what the site computes at every read is no value to keep.
#[tokio::test]
async fn a_computed_field_cannot_be_cached() {
    let cache = Cache::of(empty_site()).await;
    let schema = cache.client().schema().await.expect("a schema");
    let computed =
        schema.entity(&shot()).expect("shots").fields.iter().find(|(_, field)| field.data_type.is_volatile());
    let (name, _) = computed.expect("a computed field");
    let text = format!(r#"{{"fields": {{"code": {{}}, "{name}": {{}}}}}}"#);
    let file = sgcache::entity_config::EntityConfigFile::parse(std::path::Path::new("Shot.json"), text);
    let problems = sgcache::entity_config::TypeLayout::check(&file.expect("a config"), &schema).expect_err("refused");
    assert!(problems[0].message.contains("computes"), "{}", problems[0]);
}

/// Row 24: a task moves two hundred others, and events tell of half of them.
#[tokio::test]
async fn side_effects_of_which_half_is_told_arrive_within_the_fast_period() {
    let site = empty_site();
    let tasks: Vec<i64> = (0..200).map(|n| create(&site, "Task", json!({"content": format!("t{n}")}))).collect();
    let cache = Cache::live(site).await;
    cache.tick(Duration::from_secs(60));
    for (index, id) in tasks.iter().enumerate() {
        let moved = json!({"start_date": "2026-12-01"});
        let site = cache.site();
        let done =
            if index % 2 == 0 { site.update("Task", *id, moved) } else { site.update_silently("Task", *id, moved) };
        done.expect("an update");
    }
    cache.quiesce().await;
    pass(&cache, FAST).await;
    cache.assert_equal_to_site().await;
    assert_eq!(silent_changes(&cache), 100.0);
}

/// Row 29: a filter around now moves with the clock.
#[tokio::test]
async fn rows_leave_a_filter_around_now_when_their_time_is_over() {
    let site = empty_site();
    create(&site, "Task", json!({"content": "soon over"}));
    let mut cache = Cache::of(site).await;
    let recent = r#"{"fields": {"content": {}}, "filters": [["created_at", "in_last", 1, "DAY"]]}"#;
    cache.configure(&[("Task", recent)]).await;
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    assert_eq!(cache.ids("Task").await.len(), 1);
    pass(&cache, Duration::from_secs(72 * 3600)).await;
    assert!(cache.ids("Task").await.is_empty());
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_renamed_person_without_an_event_is_found_by_the_light_scan() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "tree"}));
    let id = create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let cache = Cache::live(site).await;
    let dated = cache.shown(cache.layout("Asset")).await[&asset]["updated_at"].clone();
    cache.tick(Duration::from_secs(60));
    cache.site().update_silently("Asset", asset, json!({"code": "oak"})).expect("an update");
    cache.site().update_silently("Asset", asset, json!({"updated_at": dated})).expect("an update");
    pass(&cache, LIGHT).await;
    cache.assert_equal_to_site().await;
    let rows = cache.store().get(&[EntityRef::new("Shot", id)], &sgcache::store::Fields::All).await.expect("a row");
    assert_eq!(rows[0].get("assets").expect("links")[0]["name"], "oak");
}

#[tokio::test]
async fn a_stored_row_that_is_not_what_was_written_is_found_and_mended() {
    let (cache, ids) = of_shots(5).await;
    let key = EntityRef::new("Shot", ids[2]);
    cache.store().corrupt(&key, "code", json!("spoiled")).await.expect("a fault by hand");
    let scrubbed = cache.replica().scrub().await.expect("a scrub");
    assert_eq!((scrubbed.silent, scrubbed.damaged), (0, 1));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    let damaged = cache.metrics().value("sgcache_sync_damaged_rows_total", &[("entity_type", "other")]);
    assert_eq!(damaged, Some(1.0));
    assert_eq!(cache.replica().scrub().await.expect("a scrub").damaged, 0);
}

#[tokio::test]
async fn the_scrub_goes_on_where_it_ended_and_begins_again() {
    let site = empty_site();
    let shots: Vec<i64> = (0..10).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let tasks: Vec<i64> = (0..4).map(|n| create(&site, "Task", json!({"content": format!("t{n}")}))).collect();
    let mut cache = Cache::live(site).await;
    cache.start_with(Steps::default(), Settings { scrub_rows: 5, ..Settings::default() }, 5).await.expect("a start");
    let spoiled =
        [EntityRef::new("Shot", shots[1]), EntityRef::new("Shot", shots[8]), EntityRef::new("Task", tasks[3])];
    for key in &spoiled {
        let field = if key.entity_type == *"Task" { "content" } else { "code" };
        cache.store().corrupt(key, field, json!("spoiled")).await.expect("a fault by hand");
    }
    let mut found = Vec::new();
    for _ in 0..6 {
        found.push(cache.replica().scrub().await.expect("a scrub").damaged);
        cache.quiesce().await;
    }
    assert_eq!(found.iter().sum::<u64>(), 3, "each once: {found:?}");
    assert!(found.iter().filter(|count| **count > 0).count() >= 2, "not all at once: {found:?}");
    cache.assert_equal_to_site().await;
}

/// Entries that the poll loop never saw: nothing else looks for them here.
#[tokio::test]
async fn an_entry_that_polling_missed_is_found_by_the_audit() {
    let (mut cache, ids) = of_shots(3).await;
    let never = Duration::ZERO;
    let settings =
        Settings { fast_scan_every: never, light_scan_every: never, scrub_every: never, ..Settings::default() };
    cache.start_with(Steps::default(), settings, 500).await.expect("a start");
    cache.step().await.expect("a step");
    cache.tick(Duration::from_secs(120));
    cache.site().update("Shot", ids[1], json!({"description": "missed"})).expect("an update");
    let url = cache.client().site().to_owned();
    let head = cache.site().last_event_id();
    cache.state().begin_stream(&url, head, None, &[], None, SiteTime(0)).await.expect("a jump of the high-water mark");
    cache.site().update("Shot", ids[2], json!({"description": "seen"})).expect("an update");
    cache.quiesce().await;
    let missed = |cache: &Cache| cache.metrics().value("sgcache_sync_audit_missed_events_total", &[]);
    assert_eq!(missed(&cache), Some(0.0));
    cache.tick(Duration::from_secs(300));
    for _ in 0..3 {
        cache.step().await.expect("a step");
    }
    assert_eq!(missed(&cache), Some(1.0));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// A daemon that never runs for as long as the period of a scan.
#[tokio::test]
async fn restarts_in_every_period_keep_no_scan_from_its_turn() {
    let (mut cache, ids) = of_shots(3).await;
    cache.site().write(silent(cache.site()), |writer| writer.delete(&shot(), ids[1])).expect("a retirement");
    for _ in 0..2 {
        cache.tick(Duration::from_secs(40 * 60));
        cache.start(Steps::default()).await.expect("a start");
        // Seconds: too few for a period to pass, enough to read what a scan found.
        cache.step().await.expect("a step");
        cache.quiesce().await;
    }
    assert_eq!(cache.ids("Shot").await, [ids[0], ids[2]], "the light scan is due after an hour");
}
