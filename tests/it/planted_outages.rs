//! Faults that begin, last and end, at real daemons: the alerts that a real Prometheus fires for
//! each are exactly these, and end with it. The rules are scaled as in `planted_faults`.

use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use sgcache::sim::{SimHandle, Trouble};

use crate::cli_faults::SmallDisk;
use crate::elastic_proxy::Proxy;
use crate::loops::FAULTS;
use crate::planted_faults::{ask, clears, fires, scaled_rules};
use crate::program::Place;
use crate::prometheus::{Prometheus, program};
use crate::proxy_rig::find;
use crate::servers::{TestIndices, elasticsearch};
use crate::sync_cache::happen;
use crate::waiting::until;

const SUITE: &str = "planted_outages";
const ENTITIES: usize = 600;
/// More than may vanish at once.
const SHOTS: usize = 120;
/// Callers that wait for a site at the same time.
const MAX_CALLERS: usize = 40;

async fn idle() {}

/// Changes some shots on the site.
fn edit(site: &SimHandle, text: &str) {
    let shots = site.site().read("Shot", &json!([]), &["id"]).expect("shots");
    assert!(!shots.is_empty(), "a site without shots");
    for shot in shots.iter().take(5) {
        let id = shot["id"].as_i64().expect("an id");
        site.site().update("Shot", id, json!({"description": text})).expect("an update");
    }
}

/// Changes shots again and again.
fn edits(site: &SimHandle) -> impl AsyncFnMut() {
    let mut round = 0;
    async move || {
        round += 1;
        edit(site, &format!("round {round}"));
    }
}

async fn metrics(place: &Place) -> String {
    let url = format!("http://{}/metrics", place.ops);
    reqwest::get(url).await.expect("an answer").text().await.expect("text")
}

async fn read(place: &Place, entity_type: &str) -> u16 {
    ask(place, "read", find(entity_type, json!([]), &["id"])).await
}

/// Asks what the cache answers, or does not, as often.
async fn read_often(place: &Place, entity_type: &str, times: usize) {
    let reads = (0..times).map(|_| read(place, entity_type));
    futures::stream::iter(reads).buffer_unordered(4).collect::<Vec<_>>().await;
}

async fn write(place: &Place) -> u16 {
    ask(place, "create", json!({"type": "Shot", "fields": [{"field_name": "code", "value": "x"}]})).await
}

/// The site takes requests and answers none.
async fn site_hangs(prometheus: &Prometheus, place: &Place, site: &SimHandle) {
    site.site().troubles.next(u32::MAX, Trouble::Slow(Duration::from_secs(3600).into()));
    let expected = [
        "SgcacheServingStale",
        "SgcacheSourceErrors",
        "SgcacheSyncStalled",
        "SgcacheTypeNotFresh",
        "SgcacheWritesFailing",
    ];
    // A write waits long for its answer: others begin meanwhile.
    let mut asking = FuturesUnordered::new();
    let callers = async || {
        if asking.len() < MAX_CALLERS {
            asking.push(async { (read(place, "Shot").await, write(place).await) });
        }
        asking.next().now_or_never();
    };
    fires(prometheus, place, &expected, callers).await;
    drop(asking);
    site.site().troubles.clear();
    clears(prometheus, place, &expected, idle).await;
}

/// The event log shows its entries late.
async fn events_come_late(prometheus: &Prometheus, place: &Place, site: &SimHandle) {
    happen(site.site(), json!({"lag": {"of": "events", "by": "40s"}}));
    fires(prometheus, place, &["SgcacheEventsLate"], edits(site)).await;
    happen(site.site(), json!({"lag": {"of": "events", "by": "0s"}}));
    // What was late is caught up with at once then, and counts as behind meanwhile.
    fires(prometheus, place, &[], edits(site)).await;
}

/// Reads of many rows that were changed show none of them, as when rights are lost.
async fn rows_disappear(prometheus: &Prometheus, place: &Place, site: &SimHandle) {
    site.site().troubles.next_of("read Shot", u32::MAX, Trouble::NoRows);
    for shot in site.site().read("Shot", &json!([]), &["id"]).expect("shots") {
        let id = shot["id"].as_i64().expect("an id");
        site.site().update("Shot", id, json!({"description": "hidden"})).expect("an update");
    }
    // Until an operator decides, shots are asked of the site.
    let expected = ["SgcacheDeletionBreakerOpen", "SgcacheTypeNotFresh"];
    fires(prometheus, place, &expected, idle).await;
    site.site().troubles.clear();
    clears(prometheus, place, &expected, idle).await;
}

/// The scheduler hangs until its supervisor starts it again, which is an alert of its own.
async fn scheduler_stalls(prometheus: &Prometheus, place: &Place) {
    place.order("scheduler", "stall");
    fires(prometheus, place, &["SgcacheSchedulerStalled"], idle).await;
    fires(prometheus, place, &["SgcacheLoopRestarted"], idle).await;
}

/// Programs begin to ask for what is not cached.
async fn hit_ratio_falls(prometheus: &Prometheus, place: &Place) {
    read_often(place, "Shot", 1200).await;
    // The last minute is without those hits.
    let hits = format!("sum(increase(sgcache_proxy_cache_hits_total{{instance=\"{}\"}}[60s]))", place.ops);
    prometheus.wait_for_value("hits of a minute", &hits, || 0.0).await;
    read_often(place, "Icon", 1100).await;
    fires(prometheus, place, &["SgcacheHitRatioFallen"], idle).await;
    read_often(place, "Shot", 2500).await;
    clears(prometheus, place, &["SgcacheHitRatioFallen"], idle).await;
}

/// Another program holds the store.
async fn store_is_held(prometheus: &Prometheus, place: &Place, site: &SimHandle) {
    let holder = rusqlite::Connection::open(place.path("data/store.sqlite")).expect("a database");
    holder.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let expected = ["SgcacheStoreWritesFailing", "SgcacheSyncBehind", "SgcacheTypeNotFresh"];
    fires(prometheus, place, &expected, edits(site)).await;
    drop(holder);
    clears(prometheus, place, &expected, idle).await;
}

/// The disk of the data directory is full.
async fn disk_is_full(prometheus: &Prometheus, disk: &SmallDisk, site: &SimHandle) {
    disk.fill();
    let long = "x".repeat(4000);
    let mut round = 0;
    let edits = async || {
        round += 1;
        edit(site, &format!("{round} {long}"));
    };
    let expected = ["SgcacheStateNotWritable", "SgcacheSyncStalled", "SgcacheTypeNotFresh"];
    fires(prometheus, &disk.place, &expected, edits).await;
    disk.free();
    clears(prometheus, &disk.place, &expected, idle).await;
}

/// The Elasticsearch that is the store goes away.
async fn cluster_goes_away(prometheus: &Prometheus, place: &Place, site: &SimHandle, cluster: &Proxy) {
    cluster.set_away(true);
    let expected = ["SgcacheNoLeader", "SgcacheStoreDown", "SgcacheTypeNotFresh"];
    // A write that fails before the store is known to be away is an alert of its own, after minutes.
    let known = async || metrics(place).await.contains("\nsgcache_store_up 0\n");
    until(known).await;
    fires(prometheus, place, &expected, edits(site)).await;
    cluster.set_away(false);
    clears(prometheus, place, &expected, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `cargo test --test it planted_outages -- --ignored`"]
async fn each_fault_that_lasts_fires_exactly_its_alerts_until_it_ends() {
    if program("SGCACHE_TEST_PROMETHEUS", SUITE).is_none() {
        return;
    }
    let Some(url) = elasticsearch(SUITE) else { return };
    let (cluster, indices) = (Proxy::before(url).await, TestIndices::new(url));
    let [hung, late, bare, stalled, asked, held, full, clustered] = [(); 8].map(|()| Place::new());
    hung.edit("config.yaml", "timeout: 60s", "timeout: 4s");
    let store =
        format!("store:\n  kind: elasticsearch\n  url: {}\n  prefix: {}\n  replicas: 0", cluster.url, indices.prefix());
    clustered.edit("config.yaml", "store:\n  kind: embedded", &store);
    let sites =
        [&hung, &late, &bare, &stalled, &asked, &held, &full, &clustered].map(|place| place.site_here(ENTITIES));
    let sites = futures::future::join_all(sites).await;
    let projects = sites[2].site().read("Project", &json!([]), &["id"]).expect("projects");
    for number in 0..SHOTS {
        let fields = json!({"code": format!("shot {number}"), "project": {"type": "Project", "id": projects[0]["id"]}});
        sites[2].site().create("Shot", fields).expect("a shot");
    }
    let targets: Vec<String> =
        [&hung, &late, &bare, &stalled, &asked, &held, &full, &clustered].map(|place| place.ops.clone()).to_vec();
    let disk = std::thread::spawn(|| SmallDisk::start(full));
    let _daemons = std::thread::scope(|scope| {
        let places = [&hung, &late, &bare, &stalled, &asked, &held, &clustered];
        let started = places.map(|place| scope.spawn(|| place.daemon_with(&FAULTS)));
        started.map(|daemon| daemon.join().expect("a daemon"))
    });
    let disk = disk.join().expect("a daemon, where a disk can be mounted");
    assert_eq!(read(&hung, "Shot").await, 200);
    let prometheus = Prometheus::with_rules(&targets, &scaled_rules()).await.expect("a Prometheus");
    prometheus.wait_for_scrapes(3).await;
    futures::join!(
        site_hangs(&prometheus, &hung, &sites[0]),
        events_come_late(&prometheus, &late, &sites[1]),
        rows_disappear(&prometheus, &bare, &sites[2]),
        scheduler_stalls(&prometheus, &stalled),
        hit_ratio_falls(&prometheus, &asked),
        store_is_held(&prometheus, &held, &sites[5]),
        async {
            if let Some(disk) = &disk {
                disk_is_full(&prometheus, disk, &sites[6]).await;
            }
        },
        cluster_goes_away(&prometheus, &clustered, &sites[7], &cluster),
    );
    if let Some(disk) = disk {
        assert_eq!(disk.end(), Some(0));
    }
}
