//! Several daemons over one Elasticsearch: one leads, the others wait, and what a
//! replaced leader still writes loses. What is right is what the simulated site holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings};
use tokio::sync::watch;

use crate::elastic_proxy::{Fault, Proxy};
use crate::loops::FAULTS;
use crate::program::{Ended, Place, Running};
use crate::proxy_rig::{call, find, said};
use crate::servers::{TestIndices, blocking, elasticsearch};
use crate::waiting::block_until;

const SUITE: &str = "elastic_lease";
/// Long enough that a busy machine renews it in time.
const SHORT: &str = "4s";
/// No test waits for its end.
const LONG: &str = "600s";

/// The types that are cached.
const TYPES: [&str; 6] = ["Asset", "Project", "Sequence", "Shot", "Step", "Task"];

/// A host: a directory with the configuration, adapted to the cluster and the site.
fn host(url: &str, indices: &TestIndices, site: &SimHandle, lease: &str) -> Place {
    let place = Place::new();
    let prefix = indices.prefix();
    let store =
        format!("store:\n  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0\n  lease: {lease}");
    place.edit("config.yaml", "store:\n  kind: embedded", &store);
    place.edit("config.yaml", &place.site, &site.url().replace("http://", ""));
    // Thirty types would be thirty imports after each take-over.
    for entry in std::fs::read_dir(place.path("entityConfig")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if !TYPES.iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name)) {
            std::fs::remove_file(path).expect("a file");
        }
    }
    place
}

async fn site() -> SimHandle {
    Sim::start(SimSettings { entities: 800, ..Default::default() }).await.expect("a site")
}

/// Starts a daemon that is to wait, and waits until it says for which process.
fn waiting(host: &Place, leader: &Running) -> Running {
    let running = host.start(&["pipelines", "run"]);
    waits_for(host, leader);
    running
}

fn waits_for(host: &Place, leader: &Running) {
    let holder = format!("process {} in ", leader.pid());
    host.until("/readyz", |status, body| status == 503 && body.contains("not_leader") && body.contains(&holder));
}

fn leads(host: &Place) {
    host.until("/readyz", |status, _| status == 200);
}

/// Waits until the rows in the cluster are those of the site; changes of the site may be told
/// in another order than they were made.
fn becomes_equal(url: &str, indices: &TestIndices, site: &SimHandle) {
    block_until(|| codes_of_cluster(url, indices) == codes_of_site(site));
}

fn ids(site: &SimHandle) -> Vec<i64> {
    codes_of_site(site).into_keys().collect()
}

fn codes_of_site(site: &SimHandle) -> BTreeMap<i64, String> {
    let shots = site.site().read("Shot", &json!([]), &["code"]).expect("shots");
    shots.iter().map(|shot| code(&shot["id"], &shot["code"])).collect()
}

fn codes_of_cluster(url: &str, indices: &TestIndices) -> BTreeMap<i64, String> {
    hits(url, indices).iter().map(|hit| code(&hit["_source"]["id"], &hit["_source"]["code"])).collect()
}

/// Returns the epoch in which a row was written.
fn epoch(url: &str, indices: &TestIndices, id: i64) -> i64 {
    let hits = hits(url, indices);
    let hit = hits.iter().find(|hit| hit["_source"]["id"] == id).expect("the row");
    hit["_version"].as_i64().expect("a version") >> 40
}

/// Asks the cluster itself, past every process of ours.
fn hits(url: &str, indices: &TestIndices) -> Vec<Value> {
    let index = format!("{url}/{}", indices.name("entity-shot"));
    let found: Value = blocking(async move {
        let client = reqwest::Client::new();
        let refreshed = client.post(format!("{index}/_refresh")).send().await.expect("an answer");
        refreshed.error_for_status().expect("refreshed");
        let found = client.get(format!("{index}/_search?size=1000&version=true")).send().await.expect("an answer");
        found.json().await.expect("JSON")
    });
    found["hits"]["hits"].as_array().expect("hits").clone()
}

fn code(id: &Value, code: &Value) -> (i64, String) {
    (id.as_i64().expect("an id"), code.as_str().expect("a code").to_owned())
}

fn held_writes(proxy: &Proxy, word: &str) -> usize {
    proxy.log().iter().filter(|line| line.contains(word)).count()
}

fn rename(site: &SimHandle, id: i64, code: &str) {
    site.site().update("Shot", id, json!({ "code": code })).expect("an update");
}

/// Reads the code of a shot through a daemon; returns also what was done.
fn read(host: &Place, id: i64) -> (String, Value) {
    let asked = find("Shot", json!([["id", "is", id]]), &["code"]);
    let (headers, answer) = ask(host, "read", asked);
    (said(&headers), answer["results"]["entities"][0]["code"].clone())
}

fn ask(host: &Place, method: &str, argument: Value) -> (reqwest::header::HeaderMap, Value) {
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    blocking(async move { call(&format!("http://{}", host.api), own, method, argument).await })
}

/// A daemon that waits answers from the cluster as the leader says, and what is written
/// through it is seen at once by its callers and soon by those of the leader.
fn serves_while_it_waits(leader: &Place, waiting: &Place, site: &SimHandle) {
    let id = ids(site)[2];
    block_until(|| read(waiting, id).0 == "hit");
    let argument = json!({"type": "Shot", "id": id, "fields": [{"field_name": "code", "value": "through it"}]});
    assert_eq!(ask(waiting, "update", argument).1["results"]["code"], "through it");
    assert_eq!(read(waiting, id).1, "through it");
    for host in [waiting, leader] {
        block_until(|| read(host, id) == ("hit".to_owned(), json!("through it")));
    }
}

fn refused(ended: Ended, leader: &Running) {
    let holder = format!("process {} in ", leader.pid());
    ended.expect_code(69).says(&["another process leads and alone writes to the cluster", &holder]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_waits_and_takes_over_from_one_that_was_killed() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, site) = (TestIndices::new(url), site().await);
    let [one, two] = [(); 2].map(|()| host(url, &indices, &site, SHORT));
    tokio::task::block_in_place(|| {
        let first = one.daemon();
        let second = waiting(&two, &first);
        two.until("/livez", |status, _| status == 200);
        let status = two.run(&["status"]).expect_code(0).stdout;
        let status = status.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(status.contains("Waiting to lead") && status.contains(&format!("process {}", first.pid())), "{status}");
        serves_while_it_waits(&one, &two, &site);
        for job in [&["import"][..], &["rebuild", "Shot"], &["validateData", "--repair"]] {
            refused(two.run(&[&["job"], job].concat()), &first);
        }

        first.kill();
        let id = ids(&site)[0];
        rename(&site, id, "while no process leads");
        leads(&two);
        rename(&site, ids(&site)[1], "under the new leader");
        becomes_equal(url, &indices, &site);
        let third = waiting(&one, &second);
        assert_eq!(third.terminate().0, Some(0));
        let (code, log) = second.terminate();
        assert_eq!((code, log.matches("this process waits to lead").count()), (Some(0), 1), "{log}");
    });
    assert_eq!(codes_of_cluster(url, &indices), codes_of_site(&site));
    site.shutdown().await;
}

/// A link of the row comes and goes while the old leader hangs, which changes no date of the
/// row: the new leader finds it as it knows it, and the write of the old one, which shows the
/// state between, arrives last.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_leader_still_writes_after_a_take_over_loses() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, site, proxy) = (TestIndices::new(url), site().await, Proxy::before(url).await);
    let (old, new) = (host(&proxy.url, &indices, &site, SHORT), host(url, &indices, &site, SHORT));
    let shot = ids(&site)[0];
    let assets = site.site().read("Asset", &json!([]), &["shots"]).expect("assets");
    let is_linked = |shots: &Value| shots.to_string().contains(&format!("\"id\":{shot},"));
    let unlinked = assets.iter().find(|asset| !is_linked(&asset["shots"])).expect("an asset of other shots");
    let (asset, shots) = (unlinked["id"].as_i64().expect("an id"), unlinked["shots"].clone());
    let link = |shots: &Value| site.site().update("Asset", asset, json!({ "shots": shots })).expect("an update");
    let (release, held) = watch::channel(false);
    let (zombie, leader) = tokio::task::block_in_place(|| {
        let before = new.daemon();
        assert_eq!(before.terminate().0, Some(0));
        let zombie = old.daemon();
        let leader = waiting(&new, &zombie);
        becomes_equal(url, &indices, &site);
        let epoch_before = epoch(url, &indices, shot);
        proxy.plan("_bulk", 2, Fault::Hold(held));
        let mut more = shots.as_array().cloned().unwrap_or_default();
        more.push(json!({"type": "Shot", "id": shot}));
        link(&Value::from(more));
        // The row of the asset and that of the shot.
        block_until(|| held_writes(&proxy, "Hold") == 2);
        zombie.signal("STOP");
        link(&shots);
        leads(&new);
        block_until(|| epoch(url, &indices, shot) > epoch_before);
        (zombie, leader)
    });

    release.send(true).expect("the proxy waits");
    tokio::task::block_in_place(|| {
        block_until(|| held_writes(&proxy, "held, then") == 2);
    });
    let hits = hits(url, &indices);
    let row = hits.iter().find(|hit| hit["_source"]["id"] == shot).expect("the row");
    let linked = row["_source"]["assets"].to_string().contains(&format!("\"id\":{asset},"));
    assert!(!linked, "{row} {:?}", proxy.log().last());

    tokio::task::block_in_place(|| {
        zombie.signal("CONT");
        waits_for(&old, &leader);
        rename(&site, ids(&site)[1], "after the wake");
        becomes_equal(url, &indices, &site);
        let (code, log) = zombie.terminate();
        assert_eq!((code, log.matches("the lease is lost").count()), (Some(0), 1), "{log}");
        assert_eq!(leader.terminate().0, Some(0));
    });
    assert_eq!(codes_of_cluster(url, &indices), codes_of_site(&site));
    site.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_renewal_panics_takes_the_lease_again() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, site) = (TestIndices::new(url), site().await);
    let one = host(url, &indices, &site, SHORT);
    tokio::task::block_in_place(|| {
        let leader = one.daemon_with(&FAULTS);
        becomes_equal(url, &indices, &site);
        one.order("lease_renewal", "panic");
        block_until(|| !one.path("faults/lease_renewal").exists());
        rename(&site, ids(&site)[0], "written under the lease that came after");
        becomes_equal(url, &indices, &site);
        let (code, log) = leader.terminate();
        assert_eq!(code, Some(0), "{log}");
        let words = "its renewal panicked: fault point of the lease_renewal thread";
        assert!(log.contains("the lease is lost") && log.contains(words), "{log}");
    });
    site.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_in_order_is_replaced_at_once() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, site) = (TestIndices::new(url), site().await);
    let [one, two] = [(); 2].map(|()| host(url, &indices, &site, LONG));
    tokio::task::block_in_place(|| {
        // A job without a daemon leads for itself, and gives the lease back.
        one.run(&["job", "import", "Shot"]).expect_code(0);
        let first = two.daemon();
        let second = waiting(&one, &first);
        // Beside the daemon of their own data directory, jobs share its lease.
        two.run(&["job", "rebuild", "Shot"]).expect_code(0);
        assert_eq!(first.terminate().0, Some(0));
        leads(&one);
        // A crash leaves the lease to its data directory, where no process can hold it any more.
        second.kill();
        let third = one.daemon();
        assert_eq!(third.terminate().0, Some(0));
    });
    site.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_other_entity_configs_is_refused_while_the_leader_lives() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let (indices, site) = (TestIndices::new(url), site().await);
    let [one, two] = [(); 2].map(|()| host(url, &indices, &site, SHORT));
    two.edit("entityConfig/Shot.json", "\"cut_duration\": {},", "");
    std::fs::remove_file(two.path("entityConfig/Step.json")).expect("a file");
    tokio::task::block_in_place(|| {
        let leader = one.daemon();
        let (code, said) = two.start(&["pipelines", "run"]).wait();
        assert_eq!(code, Some(78), "{said}");
        let words = ["`Shot`: field `cut_duration` is only there", "`Step` is only there", "entityConfig/"];
        for word in words.into_iter().chain([format!("process {} in", leader.pid()).as_str()]) {
            assert!(said.contains(word), "`{word}` is not in:\n{said}");
        }
        leads(&one);

        // Without a leader the new configuration is taken over.
        assert_eq!(leader.terminate().0, Some(0));
        let leader = two.daemon();
        let (code, said) = one.start(&["pipelines", "run"]).wait();
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("`Shot`: field `cut_duration` is only here"), "{said}");
        // Changed under the leader, the other host follows.
        two.edit("entityConfig/Shot.json", "\"fields\": {", "\"fields\": {\n    \"cut_duration\": {},");
        std::fs::copy(one.path("entityConfig/Step.json"), two.path("entityConfig/Step.json")).expect("a file");
        leader.hang_up();
        let second = until_waiting(&one, &leader);
        assert_eq!(second.terminate().0, Some(0));
        assert_eq!(leader.terminate().0, Some(0));
    });
    site.shutdown().await;
}

/// Starts a daemon until it is let wait: until the leader says with its lease what it has
/// just taken over, it is refused.
fn until_waiting(host: &Place, leader: &Running) -> Running {
    loop {
        let mut running = host.start(&["pipelines", "run"]);
        let holder = format!("process {} in ", leader.pid());
        let mut ended = false;
        host.until("/readyz", |status, body| {
            ended = running.has_ended();
            ended
                || (status == 503
                    && body.contains(&holder)
                    && body.contains("alone writes")
                    && !body.contains("differ"))
        });
        if !ended {
            return running;
        }
    }
}
