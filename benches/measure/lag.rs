//! From a commit on the site to the row in the store, at 0.33 s latency and five
//! changes a second.
//!
//! The floor of a re-fetching follower: half a poll interval of waiting and one
//! read, which here takes the latency. (On a real site the poll's answer is half
//! a round trip old, too, and an event is visible 0.15 s after its commit; that
//! makes the 0.8 s + T/2 of a real site.)

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;
use sgcache::entity::{DataType, EntityRef};
use sgcache::filter::FieldPath;
use sgcache::sim::{Sim, SimSettings, Site};
use sgcache::state::State;
use sgcache::store::{Fields, Store};
use sgcache::supervisor::Supervisor;
use sgcache::sync::Follower;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::rig::{self, Parts, Room, quantile};

const LATENCY: Duration = Duration::from_millis(330);
const CHANGES_PER_SECOND: u64 = 5;
const ENTITIES: usize = 20_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(30);

/// A change that is not readable yet.
struct Change {
    shot: EntityRef,
    text: String,
    committed: Instant,
}

type Open = Arc<Mutex<Vec<Change>>>;

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let settings = SimSettings { entities: ENTITIES, latency: LATENCY, ..SimSettings::default() };
    let sim = Sim::start(settings).await?;
    let parts = Parts::of(&sim.url()).await?;
    let room = Room::own()?;
    let (state, store) = (State::open(&room.path).await?, rig::store(options, &room.path).await?);
    let replica = parts.replica(&store, &state);
    let follower = Arc::new(Follower::start_up(replica.clone(), None).await?);
    rig::import(&replica).await?;
    let stop = CancellationToken::new();
    let (following, until) = (Arc::clone(&follower), stop.clone());
    let supervisor = Supervisor::new(parts.metrics.clone(), stop.clone());
    let following = tokio::spawn(async move { following.run(&supervisor, until).await });
    rig::wait_until_live(&replica).await?;

    let (polls, begun) = (parts.metrics.sync.polls.get(), Instant::now());
    let open = Open::default();
    let count = options.seconds * CHANGES_PER_SECOND;
    let (changed, seen) = tokio::join!(change(sim.site(), &open, count), watch(&store, &open, count));
    changed?;
    let interval = begun.elapsed().as_secs_f64() / (parts.metrics.sync.polls.get() - polls) as f64;
    stop.cancel();
    following.await??;
    sim.shutdown().await;

    let mut lags = seen?;
    lags.sort_by(f64::total_cmp);
    let mean = lags.iter().sum::<f64>() / lags.len() as f64;
    let (floor, promised) = (LATENCY.as_secs_f64() + interval / 2.0, 0.8 + interval / 2.0);
    println!(
        "lag: {} of {count} changes seen, a poll every {interval:.2} s: mean {mean:.2} s, p50 {:.2} s, p95 {:.2} s, max {:.2} s",
        lags.len(),
        quantile(&lags, 0.5),
        quantile(&lags, 0.95),
        quantile(&lags, 1.0),
    );
    println!(
        "lag floor of this site (one read + T/2): {floor:.2} s, mean / floor {:.2}; floor of a real site (0.8 s + T/2): {promised:.2} s, ratio {:.2}",
        mean / floor,
        mean / promised,
    );
    Ok(())
}

/// Changes one shot after the other.
async fn change(site: &Arc<Site>, open: &Open, count: u64) -> anyhow::Result<()> {
    let shots = site.read("Shot", &json!([]), &["id"]).map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
    let ids: Vec<i64> = shots.iter().filter_map(|shot| shot["id"].as_i64()).collect();
    let mut ticks = tokio::time::interval(Duration::from_millis(1000 / CHANGES_PER_SECOND));
    for (number, id) in (0..count).zip(ids.iter().cycle()) {
        ticks.tick().await;
        let text = format!("change {number} of the measurement.");
        let updated = site.update("Shot", *id, json!({"description": text}));
        updated.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
        let change = Change { shot: EntityRef::new("Shot", *id), text, committed: Instant::now() };
        open.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
    Ok(())
}

/// Looks for every open change in the store until all were seen; returns the
/// seconds that each took.
async fn watch(store: &Arc<dyn Store>, open: &Open, count: u64) -> anyhow::Result<Vec<f64>> {
    let fields = Fields::Only(vec![FieldPath::local("description", DataType::Text)]);
    let mut lags = Vec::new();
    let mut last_seen = Instant::now();
    while (lags.len() as u64) < count && last_seen.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK_EVERY).await;
        let keys: Vec<EntityRef> = with(open, |changes| changes.iter().map(|change| change.shot.clone()).collect());
        let rows = if keys.is_empty() { Vec::new() } else { store.get(&keys, &fields).await.context("a read")? };
        let now = Instant::now();
        with(open, |changes| {
            changes.retain(|change| {
                let seen = rows.iter().any(|row| row.key == change.shot && row.json().contains(&change.text));
                if seen {
                    lags.push((now - change.committed).as_secs_f64());
                    last_seen = now;
                }
                !seen
            });
        });
    }
    Ok(lags)
}

fn with<T>(open: &Open, act: impl FnOnce(&mut Vec<Change>) -> T) -> T {
    act(&mut open.lock().unwrap_or_else(PoisonError::into_inner))
}
