//! Crashes between any two steps of sync: the end is the same as without.
//!
//! A hook stops everything at the n-th step, for every n. Then the same files are
//! opened again, the site goes on, and in the end the cache must equal the site.
//! A step stands between two effects: a request, a write to the store, a
//! transaction of the state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde_json::json;
use sgcache::sim::Site;
use sgcache::sync::{Settings, Steps, Stopped, SyncError};

use crate::servers;
use crate::sync_cache::{Cache, TestStore, create, empty_site, to};

/// Pages this small make several segments and pages of everything.
const PAGE: u32 = 3;

/// A site with a few of everything.
fn site() -> Arc<Site> {
    let site = empty_site();
    // Each of some hundred starts reads the schema.
    let used =
        ["Shot", "Task", "Asset", "Version", "Sequence", "Project", "HumanUser", "ApiUser", "Group", "EventLogEntry"];
    site.edit_schema(|schema| schema.types.retain(|ty, _| used.contains(&ty.as_str())));
    let sequence = create(&site, "Sequence", json!({"code": "010"}));
    for index in 0..4 {
        let link = to("Sequence", sequence);
        let id = create(&site, "Shot", json!({"code": format!("s{index}"), "sg_sequence": link}));
        create(&site, "Task", json!({"content": "anim", "entity": to("Shot", id)}));
    }
    create(&site, "Asset", json!({"code": "tree"}));
    create(&site, "Version", json!({"code": "v1", "entity": to("Shot", 1)}));
    site
}

/// What happens on the site while it is followed, two things per round.
fn edit(site: &Site, round: usize) {
    match round {
        0 => {
            site.update("Shot", 1, json!({"code": "renamed", "sg_cut_in": 7})).expect("an update");
            site.update("Sequence", 1, json!({"sg_status_list": "omt"})).expect("an update");
        }
        1 => {
            site.retire("Shot", 2).expect("a retirement");
            create(site, "Shot", json!({"code": "new"}));
        }
        _ => {
            site.revive("Shot", 2).expect("a revival");
            site.update("Asset", 1, json!({"sg_status_list": "omt"})).expect("an update");
        }
    }
}

const ROUNDS: usize = 3;

/// Imports and follows; `round` says which edits were made already.
async fn drive(cache: &mut Cache, steps: Steps, round: &mut usize) -> Result<(), SyncError> {
    cache.start_with(steps, Settings::default(), PAGE).await?;
    cache.follower().import_pending().await?;
    while *round < ROUNDS {
        edit(cache.site(), *round);
        *round += 1;
        cache.follower().step(cache.tick(Duration::from_secs(6))).await?;
    }
    for _ in 0..2 {
        cache.follower().step(cache.tick(Duration::from_secs(6))).await?;
    }
    Ok(())
}

/// Stops at the n-th step and at every later one, as a dead process does.
fn stopping_at(last: usize) -> (Steps, Arc<AtomicUsize>) {
    let passed = Arc::new(AtomicUsize::new(0));
    let count = passed.clone();
    let steps = Steps::with(move |name| {
        let step = count.fetch_add(1, Ordering::Relaxed);
        if step >= last { Err(Stopped(name)) } else { Ok(()) }
    });
    (steps, passed)
}

async fn crash_at(last: usize, kind: TestStore) -> Option<&'static str> {
    let mut cache = Cache::on(site(), kind).await;
    let (steps, _) = stopping_at(last);
    let mut round = 0;
    let stopped = match drive(&mut cache, steps, &mut round).await {
        Err(SyncError::Stopped(Stopped(name))) => Some(name),
        Err(error) => panic!("step {last}: {error}"),
        Ok(()) => None,
    };
    cache.stop();
    drive(&mut cache, Steps::default(), &mut round).await.expect("a second start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    stopped
}

async fn number_of_steps() -> usize {
    let mut cache = Cache::of(site()).await;
    let (steps, passed) = stopping_at(usize::MAX);
    drive(&mut cache, steps, &mut 0).await.expect("a run without a crash");
    passed.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_step_changes_nothing_in_the_end() {
    let steps = number_of_steps().await;
    assert!(steps > 60, "only {steps} steps: the hook has lost its places");
    println!("{steps} steps");
    let mut places = std::collections::BTreeSet::new();
    let crashes = stream::iter(0..steps).map(|last| tokio::spawn(crash_at(last, TestStore::Embedded)));
    let mut crashes = crashes.buffer_unordered(4);
    while let Some(stopped) = crashes.next().await {
        places.extend(stopped.expect("a run that ends as without a crash"));
    }
    for place in ["start: led", "poll: read", "poll: committed", "fetch: read", "write: stored", "import: copied"] {
        assert!(places.contains(place), "never stopped at `{place}`: {places:?}");
    }
}

#[tokio::test]
async fn a_crash_changes_nothing_on_elasticsearch_either() {
    let Some(url) = servers::elasticsearch("crash") else { return };
    let steps = number_of_steps().await;
    for last in (0..steps).step_by(13) {
        let indices = servers::TestIndices::new(url);
        crash_at(last, TestStore::Elasticsearch(url.to_owned(), indices.prefix().to_owned())).await;
    }
}
