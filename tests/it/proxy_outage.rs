//! Bad days: the site hangs, errs, goes away and comes back, and the daemon is killed
//! under its readers and writers.
//!
//! The tests with the unmodified Python client run when SGCACHE_TEST_PYTHON names a
//! Python that has shotgun_api3.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sgcache::proxy::Settings;
use sgcache::sim::faults::Latency;
use sgcache::sim::{Site, Trouble};

use crate::program::Place;
use crate::proxy_rig::{Rig, call_with_status, find, shipped, written};
use crate::servers::python;
use crate::waiting::{Wait, until};

const SUITE: &str = "proxy_outage";

/// A program of Python that is spoken to line by line.
struct Spoken {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Spoken {
    /// Starts a program.
    fn start(python: &str, script: &str, arguments: &[&str]) -> Self {
        let path = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the Python runs");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines }
    }

    /// Waits for a line; everything that is said before is shown.
    fn expect(&mut self, word: &str) {
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            println!("{line}");
            if line == word {
                return;
            }
        }
        panic!("it ended before it said `{word}`");
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("stdin")).expect("a line");
    }

    /// Waits for the end, which must be a good one, and returns what was said.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let said: Vec<String> = self.lines.map(|line| line.expect("text")).collect();
        let said = said.join("\n");
        let status = self.child.wait().expect("an end");
        assert!(status.success(), "{status}: {said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_works_on_while_the_site_is_away() {
    let Some(python) = python(SUITE) else { return };
    // Every answer is too old at once, unless the site cannot be asked.
    let settings = Settings { max_age: Duration::ZERO, ..Settings::default() };
    let rig = Rig::start(Site::generated(3, 1000), shipped(), settings).await;
    let url = rig.url.clone();
    let start = tokio::task::spawn_blocking(move || {
        let mut client = Spoken::start(&python, "outage.py", &[&url]);
        client.expect("ready");
        client
    });
    let mut client = start.await.expect("a client");
    rig.site().troubles.next(u32::MAX, Trouble::Status(503));
    let away = tokio::task::spawn_blocking(move || {
        client.go_on();
        client.expect("away");
        client
    });
    let mut client = away.await.expect("a client without a site");
    rig.site().troubles.clear();
    // A cache that follows again has made up for what it could not ask.
    rig.followed().await;
    let back = tokio::task::spawn_blocking(move || {
        client.go_on();
        client.expect("back");
        client.go_on();
        client.end()
    });
    back.await.expect("a client with a site");
}

#[test]
fn a_daemon_that_is_killed_loses_no_write_that_was_acknowledged() {
    let Some(python) = python(SUITE) else { return };
    let place = Place::new();
    let _sim = place.sim(600, 0.0);
    let mut daemon = place.daemon();
    let seconds = std::env::var("SGCACHE_TEST_SECONDS").unwrap_or_else(|_| "12".to_owned());
    let until = Instant::now() + Duration::from_secs(seconds.parse().expect("seconds"));
    let url = format!("http://{}", place.api);
    let mut client = Spoken::start(&python, "read_your_writes.py", &[&url, &seconds]);
    client.expect("ready");
    let mut kills = 0;
    while Instant::now() < until {
        // SIGKILL, in the middle of whatever eight threads have asked for.
        drop(daemon);
        daemon = place.daemon();
        kills += 1;
        let served = |_: u16, text: &str| {
            let hits = text.lines().filter(|line| line.starts_with("sgcache_proxy_cache_hits_total{"));
            hits.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() > 200.0
                || Instant::now() > until
        };
        place.until("/metrics", served);
    }
    println!("killed {kills} times: {}", client.end());
}

/// A site with a few Shots.
fn shots() -> std::sync::Arc<Site> {
    let site = Site::empty();
    site.clock.run(0);
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    for number in 1..=4 {
        let shot = json!({"code": format!("s{number}"), "project": {"type": "Project", "id": 1}});
        site.create("Shot", shot).expect("a shot");
    }
    site
}

const CONFIGS: &[(&str, &str)] = &[
    ("Project", r#"{"fields": {"name": {}}}"#),
    ("Shot", r#"{"fields": {"code": {}, "description": {}, "project": {}}}"#),
];

async fn rig(settings: Settings) -> Rig {
    Rig::start(shots(), written(CONFIGS), settings).await
}

fn describe(id: i64, text: &str) -> Value {
    json!({"type": "Shot", "id": id, "fields": [{"field_name": "description", "value": text}]})
}

/// What the proxy says it did, in full, and the rows; whatever the status is.
async fn ask(rig: &Rig, id: i64) -> (u16, String, Value) {
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let asked = find("Shot", json!([["id", "is", id]]), &["code", "description"]);
    let (status, headers, answer) = call_with_status(&rig.url, own, "read", asked).await;
    let said = headers.get("x-sgcache").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    (status, said, answer["results"]["entities"][0].clone())
}

async fn write(rig: &Rig, id: i64, text: &str) -> u16 {
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    call_with_status(&rig.url, own, "update", describe(id, text)).await.0
}

/// Takes requests and never answers, for whoever asks from now on.
fn hang(rig: &Rig) {
    rig.site().troubles.next(u32::MAX, Trouble::Slow(Latency::Fixed(Duration::from_secs(3600))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_hangs_is_down_and_its_slots_are_given_back() {
    let patience = Duration::from_millis(100);
    let settings = Settings { max_age: Duration::ZERO, patience, max_upstream: 2, ..Settings::default() };
    let mut rig = rig(settings).await;
    // What follows the site would notice, too, that it is down, and that it is back.
    rig.stop_following().await;
    hang(&rig);
    // More readers than slots, one after the other: each would wait for ever.
    for _ in 0..6 {
        let (status, said, row) = ask(&rig, 1).await;
        assert!(status == 200 && said.starts_with("stale; age="), "{said}");
        assert_eq!(row["code"], "s1");
    }
    // A question that the cache cannot answer is given up, too.
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    for _ in 0..3 {
        let (status, ..) = call_with_status(&rig.url, own.clone(), "read", find("Icon", json!([]), &["id"])).await;
        assert_eq!(status, 503);
    }
    // A site that is down is not asked by readers any more: probes do that for all of them.
    rig.site().requests.reset();
    for _ in 0..20 {
        assert!(ask(&rig, 1).await.1.starts_with("stale; age="));
    }
    assert_eq!(rig.site().requests.of("read Shot"), 0);
    rig.site().troubles.clear();
    // The probes in the background notice, and requests go through again.
    let asked = find("Icon", json!([]), &["id"]);
    until(async || call_with_status(&rig.url, own.clone(), "read", asked.clone()).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_unknown_fate_is_said_and_makes_nothing_unreadable() {
    let settings = Settings { upstream_retry_timeout: Duration::ZERO, ..Settings::default() };
    let rig = rig(settings).await;
    // Committed, but the caller and the proxy never learn of it.
    rig.site().troubles.next_of("update", 1, Trouble::Dropped);
    rig.site().troubles.next_of("read", u32::MAX, Trouble::Status(503));
    rig.site().troubles.next_of("info", u32::MAX, Trouble::Status(503));
    assert_ne!(write(&rig, 1, "lost").await, 200);
    // Until the site is known to be away, it is asked.
    let (status, said, row) = ask(&rig, 1).await;
    assert!(status == 200 && said.starts_with("stale; age=") && said.ends_with("; unconfirmed-write"), "{said}");
    assert_eq!(row["code"], "s1");
    let (status, said, _) = ask(&rig, 2).await;
    assert!(status == 200 && !said.contains("unconfirmed-write"), "another entity is not concerned: {said}");
    rig.site().troubles.clear();
    let wait = Wait::begin();
    loop {
        let (status, said, row) = ask(&rig, 1).await;
        assert_eq!(status, 200);
        if said.starts_with("hit") {
            let committed = rig.site().read("Shot", &json!([["id", "is", 1]]), &["description"]).expect("a read");
            assert_eq!(row["description"], committed[0]["description"]);
            break;
        }
        wait.again(|| said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_never_reached_the_site_changes_nothing() {
    let mut rig = rig(Settings::default()).await;
    rig.stop_following().await;
    rig.take_site_away().await;
    assert_eq!(write(&rig, 1, "never").await, 503);
    let (status, said, row) = ask(&rig, 1).await;
    assert!(status == 200 && said.starts_with("hit; age=") && !said.contains("unconfirmed"), "{said}");
    assert_eq!(row["description"], Value::Null);
}
