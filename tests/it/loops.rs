//! Loops of a real daemon that panic, hang, or keep their thread: each is started again
//! and counted, or ends the process; nothing lives on without one of its loops.

use std::sync::Arc;

use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings, Site};

use crate::program::{Place, Running, get};
use crate::proxy_rig::{call_with_status, find, said};
use crate::servers::{TestIndices, blocking, elasticsearch};

/// The loops that can be started again.
const RESTARTED: &[&str] = &[
    "poll",
    "fetch",
    "backfill",
    "maintenance",
    "scheduler",
    "heartbeat",
    "recorder",
    "reload",
    "outbox",
    "store_health",
    "freshness",
    "api_listener",
    "ops_listener",
];

/// A daemon over a site, and the directory in which its loops find their faults.
struct Rig {
    place: Place,
    site: Arc<Site>,
    _sim: SimHandle,
    daemon: Running,
}

impl Rig {
    async fn start() -> Self {
        let place = Place::new();
        // Nothing listens there: reports wait in the outbox.
        let reports = "reports: { elasticsearch: { url: 'http://127.0.0.1:9', prefix: sgcache } }\nlisten:\n";
        place.edit("config.yaml", "listen:\n", reports);
        Self::start_at(place).await
    }

    async fn start_at(place: Place) -> Self {
        let site = Site::generated(1, 600);
        let settings = SimSettings { listen: place.site.parse().expect("an address"), ..SimSettings::default() };
        let sim = Sim::serve(Arc::clone(&site), &settings).await.expect("the port is free");
        let daemon = place.daemon_with(&FAULTS);
        Self { place, site, _sim: sim, daemon }
    }

    fn order(&self, name: &str, fault: &str) {
        self.place.order(name, fault);
    }

    fn until_restarted(&self, name: &str, reason: &str) {
        self.place.until_restarted(name, reason);
    }

    /// Changes a shot on the site and waits until the cache shows it.
    fn until_followed(&self, code: &str) {
        self.place.until("/readyz", |status, _| status == 200);
        self.site.update("Shot", 1, json!({"code": code})).expect("an update");
        let find = ["find", "Shot", "--filters", r#"[["id","is",1]]"#, "--fields", "code", "-o", "json"];
        self.place.until("/livez", |_, _| self.place.run(&find).expect_code(0).json()[0]["code"] == code);
    }
}

/// The environment in which a process finds the faults that a [`Place`] orders.
pub const FAULTS: [(&str, &str); 1] = [("SGCACHE_LOOP_FAULTS", "faults")];

impl Place {
    /// Orders what a loop meets at its next beat, or a thread or task at its next round.
    pub fn order(&self, name: &str, fault: &str) {
        // Written whole before the loop can see it.
        let (written, faults) = (self.path("order"), self.path("faults"));
        std::fs::create_dir_all(&faults).expect("a directory");
        std::fs::write(&written, fault).expect("a file");
        std::fs::rename(written, faults.join(name)).expect("a file");
    }

    /// Tells how often a loop was started again.
    pub fn restarts(&self, name: &str, reason: &str) -> u64 {
        let (_, text) = get(&format!("http://{}/metrics", self.ops)).expect("metrics");
        let series = format!("sgcache_loop_restarts_total{{loop=\"{name}\",reason=\"{reason}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).expect("the series");
        line.parse().expect("a number")
    }

    pub fn until_restarted(&self, name: &str, reason: &str) {
        self.until("/livez", |_, _| self.restarts(name, reason) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_loop_that_panics_once_is_started_again_and_the_rest_goes_on() {
    let rig = Rig::start().await;
    let (_, live) = get(&format!("http://{}/livez", rig.place.ops)).expect("an answer");
    let live: Value = serde_json::from_str(&live).expect("JSON");
    let names: Vec<&str> =
        live["loops"].as_array().expect("loops").iter().filter_map(|one| one["name"].as_str()).collect();
    for name in RESTARTED {
        assert!(names.contains(name), "/livez does not know `{name}`: {names:?}");
    }
    // It takes the loops that follow the site with it: their panics would not be counted.
    rig.order("scheduler", "panic");
    rig.until_restarted("scheduler", "panic");
    rig.until_followed("seen after the panic of the scheduler");
    for name in RESTARTED.iter().filter(|name| **name != "scheduler") {
        rig.order(name, "panic");
    }
    for name in RESTARTED {
        rig.until_restarted(name, "panic");
    }
    rig.until_followed("seen after every panic");
    let (code, said) = rig.daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("fault point of the poll loop"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publisher_of_the_leader_that_panics_is_started_again() {
    let Some(url) = elasticsearch("loops") else { return };
    let (place, indices) = (Place::new(), TestIndices::new(url));
    let prefix = indices.prefix();
    let store = format!("store:\n  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0");
    place.edit("config.yaml", "store:\n  kind: embedded", &store);
    let rig = Rig::start_at(place).await;
    rig.order("cluster_publisher", "panic");
    rig.until_restarted("cluster_publisher", "panic");
    rig.until_followed("seen after the panic");
    assert_eq!(rig.daemon.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thread_that_writes_the_store_begins_anew_after_a_panic() {
    let rig = Rig::start().await;
    rig.order("store_writer", "panic");
    rig.until_followed("written before or after the panic");
    rig.until_followed("written after the panic");
    assert!(!rig.place.path("faults/store_writer").exists(), "the fault was not met");
    let (code, said) = rig.daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("it begins anew"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_store_cannot_be_written_any_more_is_not_ready_and_ends() {
    let rig = Rig::start().await;
    rig.order("store_writer", "panic always");
    rig.site.update("Shot", 1, json!({"code": "never seen"})).expect("an update");
    let words = "the thread that writes the store has ended";
    rig.place.until("/readyz", |status, answer| status == 503 && answer.contains(words));
    let (code, said) = rig.daemon.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the store_health loop was given up"), "{said}");
}

/// Asks the proxy for something; tells what the access log has of such calls.
fn call_and_count(place: &Place) -> usize {
    let body = json!({"method_name": "info", "params": [{}]});
    let sent = reqwest::Client::new().post(format!("http://{}/api3/json", place.api)).json(&body).send();
    // No answer when the process ends meanwhile.
    let _ = blocking(sent);
    let log = std::fs::read_to_string(place.path("data/audit.ndjson")).expect("the access log");
    log.lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thread_of_the_access_log_begins_anew_after_a_panic() {
    let rig = Rig::start().await;
    rig.order("access_log", "panic");
    rig.place.until("/livez", |_, _| call_and_count(&rig.place) >= 3);
    assert_eq!(rig.place.restarts("access_log", "panic"), 1);
    let (_, text) = get(&format!("http://{}/metrics", rig.place.ops)).expect("metrics");
    assert!(text.contains("\nsgcache_proxy_audit_dropped_total 1\n"), "the line in hand is counted: {text}");
    let (code, said) = rig.daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("fault point of the access_log thread") && said.contains("it begins anew"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_log_calls_any_more_is_not_ready_and_ends() {
    let rig = Rig::start().await;
    rig.order("access_log", "panic always");
    let words = "the thread that writes the access log and counts for the ledger has ended";
    rig.place.until("/readyz", |status, answer| {
        call_and_count(&rig.place);
        status == 503 && answer.contains(words)
    });
    let (code, said) = rig.daemon.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the freshness loop was given up") && said.contains(words), "{said}");
}

/// Calls the proxy; returns the status, what it did, and the answer.
fn call(place: &Place, method: &str, argument: Value) -> (u16, String, Value) {
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let url = format!("http://{}", place.api);
    let (status, headers, answer) = blocking(async move { call_with_status(&url, own, method, argument).await });
    (status, said(&headers), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_task_panics_before_it_is_noted_is_not_hidden_by_the_cache() {
    let rig = Rig::start().await;
    let shot = || call(&rig.place, "read", find("Shot", json!([["id", "is", 1]]), &["code"]));
    rig.place.until("/readyz", |_, _| shot().1 == "hit");
    rig.order("write_note", "panic");
    let fields = json!([{"field_name": "code", "value": "made all the same"}]);
    let (status, ..) = call(&rig.place, "update", json!({"type": "Shot", "id": 1, "fields": fields}));
    assert_eq!(status, 503);
    let (_, how, answer) = shot();
    assert_eq!(answer["results"]["entities"][0]["code"], "made all the same", "{how}");
    rig.place.until("/readyz", |_, _| shot().1 == "hit");
    assert_eq!(shot().2["results"]["entities"][0]["code"], "made all the same");
    let (code, said) = rig.daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("anything may have changed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_hangs_is_started_again() {
    let rig = Rig::start().await;
    rig.order("fetch", "hang");
    rig.until_restarted("fetch", "stuck");
    rig.until_followed("seen after the silence");
    assert_eq!(rig.daemon.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_keeps_panicking_ends_the_process() {
    let rig = Rig::start().await;
    rig.order("poll", "panic always");
    let (code, said) = rig.daemon.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the poll loop was given up") && said.contains("fault point of the poll loop"), "{said}");
    // In order: the next one finds the lead free.
    std::fs::remove_file(rig.place.path("faults/poll")).expect("a file");
    let daemon = rig.place.daemon();
    assert_eq!(daemon.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_keeps_its_thread_for_ever_ends_the_process() {
    let rig = Rig::start().await;
    rig.order("maintenance", "block");
    let (code, said) = rig.daemon.wait();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the maintenance loop"), "{said}");
}
