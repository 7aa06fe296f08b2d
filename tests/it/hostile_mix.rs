//! Many hostile connections at once on a real daemon: callers beside them are answered,
//! and the memory of the process stays within the bound that SECURITY.md states.
//!
//! ```text
//! ulimit -n 20000
//! SGCACHE_TEST_HOSTILE=5000 cargo test --test it hostile_mix -- --nocapture
//! ```
//!
//! is the long form; it prints how long the callers waited.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::program::Place;
use crate::proxy_rig::{find, said};

/// Kinds of hostile connections, and the one of those that end at once.
const KINDS: usize = 7;
const LEAVES: usize = 5;
/// Hostile connections in an everyday run.
const CONNECTIONS: usize = 300;
/// How many of them arrive in a second.
const ARRIVALS: usize = 500;
const CALLERS: usize = 4;
/// How many calls each caller makes in a second, as long as connections arrive and a second more.
const CALLS: usize = 50;
const MAX_MEMORY_MIB: usize = 64;
/// What arrives of a long body. All of them together are more than the bound.
const STOPPED_BODY_BYTES: usize = 5 << 20;
const STORE_MEMORY_MIB: usize = 16;
/// What the process takes with nothing to do, in a build without optimisation.
const BASE_MIB: usize = 200;

/// What a hostile connection sends before it says nothing more.
fn hostile(number: usize) -> Vec<u8> {
    let head = |length: usize| {
        format!(
            "POST /api3/json HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    match number % KINDS {
        // Half a head; a long body that stops; a request whose answer is never read.
        0 => b"POST /api3/json HTTP/1.1\r\nhost: loc".to_vec(),
        1 => format!("{}{}", head(8 << 20), " ".repeat(STOPPED_BODY_BYTES)).into_bytes(),
        2 => format!("{}{}", head(2), "{}").repeat(20).into_bytes(),
        // A small body that would become a large tree; one that is deep.
        3 => {
            let bomb = format!("[{}0]", "{\"\":0},".repeat(100_000));
            format!("{}{bomb}", head(bomb.len())).into_bytes()
        }
        // An upload that stops; a read that only the site can answer, whose caller leaves.
        4 => {
            let head = "POST /upload/publish_file HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000\r\n\r\n";
            format!("{head}{}", " ".repeat(100_000)).into_bytes()
        }
        LEAVES => {
            let argument = find("Task", json!([["id", "is", number]]), &["content"]);
            let body = json!({"method_name": "read", "params": [{"script_name": "x", "script_key": "y"}, argument]});
            format!("{}{body}", head(body.to_string().len())).into_bytes()
        }
        _ => {
            let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
            format!("{}{deep}", head(deep.len())).into_bytes()
        }
    }
}

async fn attack(address: String, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    // The other side may cut it off in the middle.
    let _ = stream.write_all(&hostile(number)).await;
    (number % KINDS != LEAVES).then_some(stream)
}

/// Reads the same list again and again, `calls` times; returns how long each read took.
/// Every one is answered from the cache: what the site takes says nothing about this process.
async fn call_honestly(api: String, calls: usize) -> Vec<Duration> {
    let client = reqwest::Client::new();
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let argument = find("Shot", json!([["id", "less_than", 6]]), &["code"]);
    let body = json!({"method_name": "read", "params": [auth, argument]});
    let mut waited = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CALLS as u32);
    while waited.len() < calls {
        pace.tick().await;
        let begun = Instant::now();
        let answer = client.post(format!("http://{api}/api3/json")).json(&body).send().await.expect("an answer");
        let headers = answer.headers().clone();
        let answer: Value = answer.json().await.expect("JSON");
        // The first ones prove the credential at the site, until the proxy knows that the
        // types are complete. From then on every call is answered from the cache.
        let is_hit = said(&headers) == "hit";
        assert!(is_hit || waited.is_empty(), "{headers:?}");
        if is_hit {
            waited.push(begun.elapsed());
        }
        assert_eq!(answer["results"]["entities"].as_array().map(Vec::len), Some(5), "{answer}");
    }
    waited
}

/// Runs the callers in a thread of their own: what the attack takes of the runtime of this
/// test is no part of what they wait.
fn call_beside(api: &str, calls: usize) -> std::thread::JoinHandle<Vec<Duration>> {
    let api = api.to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let callers = (0..CALLERS).map(|_| call_honestly(api.clone(), calls));
        runtime.block_on(futures::future::join_all(callers)).concat()
    })
}

/// Returns the largest resident memory that a process had so far, in MiB.
fn peak_memory_mib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") / 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beside_many_hostile_connections_are_answered_within_the_memory_bound() {
    let connections = std::env::var("SGCACHE_TEST_HOSTILE").ok().and_then(|text| text.parse().ok());
    let connections: usize = connections.unwrap_or(CONNECTIONS);
    let place = Place::new();
    place.edit("config.yaml", "listen:\n", &format!("api: {{ max_memory_mib: {MAX_MEMORY_MIB} }}\nlisten:\n"));
    place.edit("config.yaml", "  kind: embedded\n", &format!("  kind: embedded\n  memory_mib: {STORE_MEMORY_MIB}\n"));
    let _site = place.sim(3000, 0.0);
    let daemon = place.daemon();

    let callers = call_beside(&place.api, (connections / ARRIVALS + 1) * CALLS);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / ARRIVALS as u32);
    let mut attacks = Vec::with_capacity(connections);
    for number in 0..connections {
        pace.tick().await;
        attacks.push(tokio::spawn(attack(place.api.clone(), number)));
    }
    // The hostile connections stay open until the callers are done.
    let mut waited =
        tokio::task::spawn_blocking(move || callers.join()).await.expect("a thread").expect("every call is answered");
    let held = futures::future::join_all(attacks).await;
    assert_eq!(held.len(), connections);

    waited.sort_unstable();
    let p99 = waited[waited.len() * 99 / 100];
    let peak = peak_memory_mib(daemon.pid());
    println!("{connections} hostile connections: p99 {p99:?} of {} calls, peak memory {peak} MiB", waited.len());
    let bound = BASE_MIB + MAX_MEMORY_MIB + STORE_MEMORY_MIB * 9 / 8 + connections * 32 / 1024;
    assert!(peak <= bound, "{peak} MiB, more than {bound}");
}
