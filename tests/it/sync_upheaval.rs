//! A cache that outlives upheavals: mass disappearance, changed configs, another
//! history of the site, an absent site, and the loop as a whole.

use std::time::Duration;

use serde_json::json;
use sgcache::entity::{EntityRef, EntityType};
use sgcache::sim::Trouble;
use sgcache::state::{DirtyReasons, NewDirtyKey, SiteTime, TypeState};
use sgcache::supervisor::Supervisor;
use sgcache::sync::{KeyOutcome, Settings, Steps, SyncError};

use crate::sync_cache::{CONFIGS, Cache, create, empty_site, happen};
use crate::waiting::until;

fn shot() -> EntityType {
    EntityType::new("Shot")
}

/// Row 36 of mass disappearance: too many rows vanish at once.
#[tokio::test]
async fn a_mass_disappearance_waits_for_an_operator_and_ends_when_the_rows_return() {
    let site = empty_site();
    for index in 0..120 {
        create(&site, "Shot", json!({"code": format!("s{index}")}));
    }
    let cache = Cache::live(site).await;
    let marks: Vec<_> = cache
        .ids("Shot")
        .await
        .into_iter()
        .map(|id| sgcache::state::NewDirtyKey::new(EntityRef::new("Shot", id), sgcache::state::DirtyReasons::CHANGE))
        .collect();
    cache.state().mark(&marks, cache.tick(Duration::ZERO)).await.expect("marks");
    // Both lists are empty, three times: the first two are not believed.
    cache.site().troubles.next_of("read Shot", 6, Trouble::NoRows);
    for _ in 0..3 {
        cache.follower().step(cache.tick(Duration::from_secs(6))).await.expect("a step");
    }
    assert_eq!(cache.ids("Shot").await.len(), 120, "nothing is deleted");
    let record = cache.state().type_record(&shot()).await.expect("a record").expect("a type");
    assert!(record.breaker_since.is_some(), "the breaker is open");
    for _ in 0..12 {
        cache.follower().step(cache.tick(Duration::from_secs(10))).await.expect("a step");
    }
    cache.quiesce().await;
    let record = cache.state().type_record(&shot()).await.expect("a record").expect("a type");
    assert_eq!(record.breaker_since, None, "the rows are back");
    cache.assert_equal_to_site().await;
}

/// Row 41: an import is interrupted, the config changes, the import goes on.
#[tokio::test]
async fn a_changed_config_imports_only_its_type_again_and_in_place() {
    let site = empty_site();
    for index in 0..20 {
        create(&site, "Shot", json!({"code": format!("s{index}"), "sg_cut_in": index}));
        create(&site, "Task", json!({"content": format!("t{index}")}));
    }
    let mut cache = Cache::live(site).await;
    let mut configs = CONFIGS.to_vec();
    for (name, text) in &mut configs {
        if *name == "Shot" {
            *text = r#"{"fields": {"code": {}, "sg_cut_out": {}, "sg_cut_in": {}},
                "filters": [["sg_cut_in", "less_than", 10]]}"#;
        }
    }
    cache.configure(&configs).await;
    cache.site().requests.reset();
    cache.start(Steps::default()).await.expect("a start");
    assert_eq!(cache.replica().pending_imports().await.expect("types"), [shot()]);
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    assert_eq!(cache.ids("Shot").await.len(), 10);
    assert_eq!(cache.site().requests.of("read Task"), 0);
    cache.assert_equal_to_site().await;
}

/// Rows 42 and 43: the type changes while it is imported.
#[tokio::test]
async fn changes_during_an_import_are_neither_lost_nor_undone() {
    let site = empty_site();
    let ids: Vec<i64> = (0..60).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let gone = ids[3];
    site.retire("Shot", gone).expect("a retirement");
    let mut cache = Cache::of(site).await;
    let (writer, pages) = (cache.site().clone(), std::sync::atomic::AtomicUsize::new(0));
    let edited = ids.clone();
    let steps = Steps::with(move |name| {
        // Between the read of each page and its write, the site changes.
        if name == "write: before the store" {
            let page = pages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            match page {
                1 => drop(writer.retire("Shot", edited[0])),
                2 => drop(writer.revive("Shot", gone)),
                3..=9 => drop(writer.update("Shot", edited[page], json!({"description": format!("{page}")}))),
                _ => {}
            }
        }
        Ok(())
    });
    cache.start_with(steps, Settings::default(), 7).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_type_without_a_config_keeps_its_rows_for_a_day() {
    let site = empty_site();
    create(&site, "Task", json!({"content": "anim"}));
    let mut cache = Cache::live(site).await;
    let configs: Vec<_> = CONFIGS.iter().copied().filter(|(name, _)| *name != "Task").collect();
    cache.configure(&configs).await;
    cache.start(Steps::default()).await.expect("a start");
    let task = EntityType::new("Task");
    cache.quiesce().await;
    let state =
        async |cache: &Cache| cache.state().type_record(&task).await.expect("a record").map(|record| record.state);
    assert_eq!(state(&cache).await, Some(TypeState::Untracked));
    cache.tick(Duration::from_secs(25 * 3600));
    cache.step().await.expect("a step");
    assert_eq!(state(&cache).await, None);
    assert!(cache.store().types().await.expect("types").iter().all(|one| one.entity_type != task));
}

#[tokio::test]
async fn a_type_that_is_configured_again_is_imported_again() {
    let site = empty_site();
    let id = create(&site, "Task", json!({"content": "anim"}));
    let mut cache = Cache::live(site).await;
    let without: Vec<_> = CONFIGS.iter().copied().filter(|(name, _)| *name != "Task").collect();
    cache.configure(&without).await;
    cache.start(Steps::default()).await.expect("a start");
    cache.site().update("Task", id, json!({"content": "comp"})).expect("an update");
    cache.quiesce().await;
    cache.configure(CONFIGS).await;
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_directory_of_another_site_is_refused() {
    let mut cache = Cache::live(empty_site()).await;
    let position = cache.state().stream().await.expect("a stream");
    let high_water_mark = position.high_water_mark.expect("a position");
    cache
        .state()
        .begin_stream("https://other.example.com", high_water_mark, None, &[], None, SiteTime(0))
        .await
        .expect("a stream");
    let refused = cache.start(Steps::default()).await.expect_err("another site");
    assert!(matches!(refused, SyncError::OtherSite { .. }));
    assert!(
        refused.to_string().starts_with("this data directory follows https://other.example.com, not http://"),
        "{refused}"
    );
}

/// Row 50: another history under the same ids.
#[tokio::test]
async fn a_site_restored_from_a_backup_is_imported_again_in_place() {
    let site = empty_site();
    create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    let url = cache.client().site().to_owned();
    let high_water_mark = cache.state().stream().await.expect("a stream").high_water_mark.expect("a position");
    let later = sgcache::entity::EventId(high_water_mark.0 + 500);
    cache.state().begin_stream(&url, later, None, &[], None, SiteTime(0)).await.expect("a stream");
    cache.start(Steps::default()).await.expect("a start");
    assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 2);
    assert_eq!(cache.ids("Shot").await.len(), 1, "rows stay until they are read again");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 50 at work: the site is restored under a running follower.
#[tokio::test]
async fn a_restored_site_is_noticed_by_the_next_poll_and_read_again_in_place() {
    for edits_after in [0, 1, 40] {
        let site = empty_site();
        let id = create(&site, "Shot", json!({"code": "a"}));
        let cache = Cache::live(site).await;
        happen(cache.site(), json!({"backup": "before"}));
        cache.site().update("Shot", id, json!({"code": "lost"})).expect("an update");
        let lost = create(cache.site(), "Shot", json!({"code": "lost"}));
        cache.quiesce().await;
        happen(cache.site(), json!({"restore": "before"}));
        for number in 0..edits_after {
            // Ids are used again, up to the high-water mark and beyond.
            cache.site().update("Shot", id, json!({"description": format!("{number}")})).expect("an update");
        }
        let fresh = cache.state().fresh_as_of().await.expect("a moment");
        for _ in 0..2 {
            let error = cache.step().await.expect_err("another history");
            assert!(matches!(error, SyncError::History(_)), "{error}");
            assert_eq!(cache.state().fresh_as_of().await.expect("a moment"), fresh, "nothing is fresher than before");
        }
        cache.step().await.expect("the third poll decides");
        assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 2);
        assert_eq!(cache.state().fresh_as_of_type(&shot()).await.expect("a moment"), None, "nothing counts as fresh");
        assert_eq!(cache.ids("Shot").await, [id, lost], "rows stay until they are read again");
        cache.follower().import_pending().await.expect("an import");
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
}

/// A start asks for the newest entry, the oldest one and the one at the high-water mark;
/// that one of these answers is empty is not believed.
#[tokio::test]
async fn an_empty_answer_at_the_start_is_no_other_history() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    for position in 0..3 {
        cache.stop();
        // Otherwise the oldest entry is the newest, too.
        cache.site().update("Shot", id, json!({"code": format!("{position}")})).expect("an update");
        cache.site().update("Shot", id, json!({"sg_cut_in": position})).expect("an update");
        if position > 0 {
            cache.site().troubles.next_of("read EventLogEntry", position, Trouble::Slow(Duration::ZERO.into()));
        }
        cache.site().troubles.next_of("read EventLogEntry", 1, Trouble::NoRows);
        cache.start(Steps::default()).await.expect("a start");
        assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 1, "answer {position} was empty");
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
}

/// However often the log is answered without entries: they prove nothing.
/// Follows a site that answers the event log without entries, restarts meanwhile, and returns
/// why the start was refused; in the end the cache equals the site, of the same history.
async fn refusal_of_an_empty_log(refuses_counts: bool) -> SyncError {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    happen(cache.site(), json!({"trouble": {"trouble": "no_rows", "method": "read EventLogEntry"}}));
    if refuses_counts {
        let busy = json!({"fault": [104, "the site is busy"]});
        happen(cache.site(), json!({"trouble": {"trouble": busy, "method": "summarize"}}));
    }
    for _ in 0..10 {
        cache.step().await.expect_err("an empty answer");
    }
    cache.stop();
    let refused = cache.start(Steps::default()).await.expect_err("an empty answer");
    happen(cache.site(), json!("end_trouble"));
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.start(Steps::default()).await.expect("a start");
    cache.quiesce().await;
    assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 1);
    cache.assert_equal_to_site().await;
    refused
}

#[tokio::test]
async fn a_log_that_is_answered_without_entries_is_no_other_history() {
    let refused = refusal_of_an_empty_log(false).await;
    assert!(matches!(refused, SyncError::EmptyPage { .. }), "{refused}");
}

/// Nor does a refused count say that there are none.
#[tokio::test]
async fn a_log_without_entries_whose_count_is_refused_is_no_other_history() {
    let refused = refusal_of_an_empty_log(true).await;
    assert!(matches!(refused, SyncError::Unconfirmed(_)), "{refused}");
}

/// One answer without the entry at the high-water mark is not believed.
#[tokio::test]
async fn an_incomplete_answer_is_no_other_history() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    cache.site().troubles.next_of("read EventLogEntry", 1, Trouble::NoRows);
    cache.step().await.expect_err("an empty answer");
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.quiesce().await;
    assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 1);
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_site_that_is_away_costs_nothing_but_time() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    let fresh = cache.state().fresh_as_of().await.expect("a moment");
    for trouble in [Trouble::Status(503), Trouble::Html, Trouble::Truncated, Trouble::Dropped] {
        // An answer that cannot be read is asked for once more, for the ids alone.
        let requests = if matches!(trouble, Trouble::Html | Trouble::Truncated) { 2 } else { 1 };
        cache.site().troubles.next(requests, trouble);
        cache.step().await.expect_err("the site is away");
    }
    assert_eq!(cache.state().fresh_as_of().await.expect("a moment"), fresh, "it does not pretend");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(cache.metrics().value("sgcache_sync_poll_errors_total", &[("reason", "decode")]) >= Some(2.0));
}

/// The first answers of a site may set the clock back: what a scan has found is due a moment
/// later then.
#[tokio::test]
async fn a_job_waits_for_what_it_found_and_what_is_due_in_a_moment() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    let replica = cache.replica().clone();
    cache.site().update_silently("Shot", id, json!({"code": "b"})).expect("an update");
    replica.clock().hold(cache.tick(Duration::from_secs(2)));
    cache.stop();
    let shot = EntityRef::new("Shot", id);
    let found = NewDirtyKey { delay: Duration::from_millis(500), ..NewDirtyKey::new(shot, DirtyReasons::SCAN) };
    replica.state().mark(&[found], replica.now()).await.expect("a mark");
    let waits = replica.advance_until(Duration::ZERO, DirtyReasons::SCAN).await.expect_err("it is not read yet");
    assert!(matches!(waits, SyncError::TimedOut(_)), "{waits}");
    replica.clock().hold(cache.tick(Duration::from_secs(1)));
    replica.advance_until(Duration::ZERO, DirtyReasons::SCAN).await.expect("it is read");
    assert_eq!(replica.state().marks(1).await.expect("marks"), []);
}

#[tokio::test]
async fn a_job_beside_nobody_catches_up_by_itself() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let mut cache = Cache::live(site).await;
    let replica = cache.replica().clone();
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    cache.tick(Duration::from_secs(2));
    replica.clock().hold(cache.tick(Duration::ZERO));
    let led = replica.advance(Duration::ZERO).await.expect_err("the follower leads and does not move");
    assert!(matches!(led, SyncError::TimedOut(_)), "{led}");
    cache.stop();
    replica.advance(Duration::from_secs(60)).await.expect("nobody leads");
    drop(replica);
    cache.start(Steps::default()).await.expect("a start");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_repair_writes_even_what_seems_unchanged() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    let cache = Cache::live(site).await;
    let key = EntityRef::new("Shot", id);
    cache.store().corrupt(&key, "code", json!("broken")).await.expect("a fault by hand");
    cache.site().update("Shot", id, json!({"code": "a"})).expect("an update");
    let changes = cache.replica().refetch(&[key]).await.expect("a read");
    assert_eq!(changes[0].outcome, KeyOutcome::Same, "the state knew the right row all along");
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_rebuild_reads_everything_again_while_the_type_stays_live() {
    let site = empty_site();
    let ids: Vec<i64> = (0..40).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let cache = Cache::live(site).await;
    for id in &ids {
        cache.store().corrupt(&EntityRef::new("Shot", *id), "code", json!("broken")).await.expect("a fault by hand");
    }
    let rebuilt = cache.replica().rebuild(&shot(), None).await.expect("a rebuild");
    assert_eq!((rebuilt.rows, rebuilt.unmet), (40, 0));
    cache.assert_equal_to_site().await;
}

/// Rows 32 and 33: the script loses the right to see half of the projects, and gets
/// it back.
#[tokio::test]
async fn a_right_that_was_taken_away_deletes_nothing_and_its_return_needs_nobody() {
    let site = empty_site();
    let other = site.create("Project", json!({"name": "Two"})).expect("a project");
    for index in 0..80 {
        let fields = json!({"code": format!("s{index}"), "project": {"type": "Project", "id": other}});
        site.create("Shot", fields).expect("a shot");
    }
    create(&site, "Shot", json!({"code": "seen by all"}));
    let cache = Cache::live(site).await;
    let limit = |projects: serde_json::Value| json!({"permissions": {"script": "sgcache", "projects": projects}});
    happen(cache.site(), limit(json!([1])));
    cache.tick(Duration::from_secs(3600));
    for _ in 0..6 {
        cache.follower().step(cache.tick(Duration::from_secs(10))).await.expect("a step");
    }
    assert_eq!(cache.ids("Shot").await.len(), 81, "nothing is deleted");
    let record = cache.state().type_record(&shot()).await.expect("a record").expect("a type");
    assert!(record.breaker_since.is_some(), "an operator is told");

    happen(cache.site(), limit(serde_json::Value::Null));
    cache.tick(Duration::from_secs(3600));
    for _ in 0..12 {
        cache.follower().step(cache.tick(Duration::from_secs(10))).await.expect("a step");
    }
    cache.quiesce().await;
    let record = cache.state().type_record(&shot()).await.expect("a record").expect("a type");
    assert_eq!(record.breaker_since, None);
    cache.assert_equal_to_site().await;
}

/// Row 49: the daemon was away for longer than the site keeps its events.
#[tokio::test]
async fn events_that_are_no_longer_kept_lead_to_an_import_in_place() {
    let site = empty_site();
    let ids: Vec<i64> = (0..5).map(|n| create(&site, "Shot", json!({"code": format!("s{n}")}))).collect();
    let mut cache = Cache::live(site).await;
    cache.stop();
    cache.tick(Duration::from_secs(200 * 24 * 3600));
    cache.site().update("Shot", ids[0], json!({"code": "missed"})).expect("an update");
    cache.site().retire("Shot", ids[1]).expect("a retirement");
    for index in 0..20 {
        cache.site().update("Shot", ids[2], json!({"sg_cut_in": index})).expect("an update");
    }
    happen(cache.site(), json!({"retention": {"keep": 5}}));
    cache.start(Steps::default()).await.expect("a start");
    assert_eq!(cache.state().stream().await.expect("a stream").incarnation, 2);
    assert_eq!(cache.ids("Shot").await, ids, "rows stay until they are read again");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

/// Row 44: a second daemon over the same directory is refused, and takes over with
/// a higher epoch when the first one is gone.
#[tokio::test]
async fn of_two_daemons_one_leads() {
    let mut cache = Cache::live(empty_site()).await;
    let epoch = cache.state().stream().await.expect("a stream").epoch;
    let second = sgcache::sync::Follower::start_up(cache.replica().clone(), None).await.expect_err("a second leader");
    assert!(matches!(second, SyncError::State(sgcache::state::StateError::Locked { .. })), "{second}");
    create(cache.site(), "Shot", json!({"code": "a"}));
    cache.start(Steps::default()).await.expect("a start");
    assert!(cache.state().stream().await.expect("a stream").epoch > epoch);
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn the_loop_imports_follows_and_ends_when_it_is_told_to() {
    let site = empty_site();
    let id = create(&site, "Shot", json!({"code": "a"}));
    site.clock.run(0);
    let mut cache = Cache::of(site).await;
    let settings =
        Settings { poll_min: Duration::from_millis(10), poll_max: Duration::from_millis(20), ..Settings::default() };
    let (follower, stop) = (cache.detached(settings).await, tokio_util::sync::CancellationToken::new());
    let running = tokio::spawn({
        let (follower, stop) = (follower.clone(), stop.clone());
        let supervisor = Supervisor::new(follower.replica().metrics().clone(), stop.clone());
        async move { follower.run(&supervisor, stop).await.expect("no loop fails") }
    });
    let replica = follower.replica().clone();
    for (name, _) in CONFIGS {
        let record = async || replica.state().type_record(&EntityType::new(*name)).await.expect("a record");
        until(async || record().await.is_some_and(|record| record.state == TypeState::Live)).await;
    }
    cache.site().update("Shot", id, json!({"code": "b"})).expect("an update");
    replica.advance(Duration::from_secs(60)).await.expect("the loop follows");
    let rows = replica.store().get(&[EntityRef::new("Shot", id)], &sgcache::store::Fields::All).await.expect("a row");
    assert_eq!(rows[0].get("code"), Some(json!("b")));
    let status = follower.status().await.expect("a status");
    assert!(status.fresh_as_of.is_some() && status.poll.is_some_and(|poll| poll.polls > 0));
    stop.cancel();
    running.await.expect("a clean end");
}
