//! What the bounds of the api listener refuse: each with its status, with words that name
//! the bound, and counted once by its reason.
//!
//! The two refusals of one address, 429, cannot be had from this machine, whose address
//! has no bound of its own: tests beside their code show them.

use std::time::Duration;

use serde_json::json;
use sgcache::proxy::{ConnectionBounds, Settings};
use sgcache::sim::Trouble;

use crate::hostile::{CONFIGS, Raw, body, filled, head};
use crate::proxy_rig::{Rig, call_with_status, find, written};
use crate::waiting::until;

/// How often something was refused for this reason.
fn refusals(rig: &Rig, reason: &str) -> f64 {
    rig.counted("sgcache_listener_refusals_total", &[("listener", "api"), ("reason", reason)])
}

/// Waits for the first refusal for this reason; the count may follow the last byte.
async fn until_counted(rig: &Rig, reason: &str) {
    until(async || refusals(rig, reason) >= 1.0).await;
    assert_eq!(refusals(rig, reason), 1.0, "{reason}");
}

async fn rig(settings: Settings) -> Rig {
    Rig::start(filled(), written(CONFIGS), settings).await
}

fn with_bounds(bounds: ConnectionBounds) -> Settings {
    Settings { connections: bounds, ..Settings::default() }
}

/// Sends bytes on a new connection; checks status and words of the answer, that the
/// connection is closed, and the count.
async fn check(rig: &Rig, sent: &[u8], status: u16, reason: &str, words: &str) {
    assert_eq!(refusals(rig, reason), 0.0, "{reason}");
    let mut peer = Raw::open(&rig.url).await;
    peer.send(sent).await;
    let (answered, said) = peer.answer().await.expect("an answer");
    assert_eq!(answered, status, "{reason}: {said}");
    assert!(said.contains(words), "{reason}: {said}");
    peer.closed().await;
    until_counted(rig, reason).await;
}

/// A call that the site does not answer.
fn endless_call() -> Vec<u8> {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": "read", "params": [auth, find("Task", json!([]), &["id"])]}).to_string();
    format!("{}{body}", head(body.len())).into_bytes()
}

/// Opens connections whose calls wait for the site, and waits until they do.
async fn waiting_calls(rig: &Rig, count: usize) -> Vec<Raw> {
    let endless = Trouble::Slow(Duration::from_secs(3600).into());
    rig.site().troubles.next_of("read Task", u32::MAX, endless);
    let mut waiting = Vec::new();
    for number in 1..=count {
        let mut call = Raw::open(&rig.url).await;
        call.send(&endless_call()).await;
        waiting.push(call);
        // Before it is being answered, it would yield to the next one.
        until(async || rig.counted("sgcache_proxy_in_flight", &[]) >= number as f64).await;
    }
    waiting
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_long_and_malformed_requests_are_refused() {
    let short = Duration::from_millis(50);
    let bounds = ConnectionBounds { head_timeout: short, body_timeout: short, ..ConnectionBounds::default() };
    let rig = rig(Settings { max_request_bytes: 1 << 20, ..with_bounds(bounds) }).await;
    check(&rig, b"POST /api3/json HTTP/1.1\r\nhost: loc", 408, "head_timeout", "took too long").await;
    let stopped = format!("{}{{\"method", head(1000));
    check(&rig, stopped.as_bytes(), 408, "body_timeout", "no byte of the request arrived").await;
    check(&rig, head(2 << 20).as_bytes(), 413, "too_large", "`api.max_request_mib`").await;
    let long_head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    check(&rig, long_head.as_bytes(), 431, "head_too_large", "").await;
    check(&rig, b"\0\0\r\n\r\n", 400, "head_malformed", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_which_there_is_no_memory_is_refused() {
    let rig = rig(Settings { max_memory_bytes: 1 << 20, ..Settings::default() }).await;
    let long = format!("{}{}", head(3 << 20), " ".repeat(3 << 20));
    check(&rig, long.as_bytes(), 503, "memory", "`api.max_memory_mib`").await;
}

/// The head of a body without a length, and some of its chunks; the last one is missing.
fn chunked(chunk: usize, chunks: usize) -> String {
    let head = "POST /api3/json HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    head.to_owned() + &format!("{chunk:x}\r\n{}\r\n", " ".repeat(chunk)).repeat(chunks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_small_chunks_without_an_end_is_counted_and_bounded() {
    let rig = rig(Settings { max_memory_bytes: 1 << 20, ..Settings::default() }).await;
    check(&rig, chunked(500, 4000).as_bytes(), 503, "memory", "`api.max_memory_mib`").await;
    let rig = self::rig(Settings { max_request_bytes: 64 << 10, ..Settings::default() }).await;
    check(&rig, chunked(500, 200).as_bytes(), 413, "too_large", "`api.max_request_mib`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_becomes_more_than_there_is_memory_is_refused_before_it_is_built() {
    let rig = rig(Settings { max_memory_bytes: 16 << 20, ..Settings::default() }).await;
    let bomb = format!("[{}0]", "{\"\":0},".repeat(50_000));
    let body = json!({"method_name": "create"}).to_string().replace('}', &format!(r#","params":[{{}},{bomb}]}}"#));
    check(&rig, format!("{}{body}", head(body.len())).as_bytes(), 503, "memory", "`api.max_memory_mib`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_site_for_which_there_is_no_memory_is_refused() {
    let rig = rig(Settings { max_memory_bytes: 1 << 20, ..Settings::default() }).await;
    let long = Trouble::Answer { status: 200, body: " ".repeat(3 << 20) };
    rig.site().troubles.next_of("read Task", 1, long);
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": "read", "params": [auth, find("Task", json!([]), &["id"])]});
    let client = reqwest::Client::new();
    let answer = client.post(format!("{}/api3/json", rig.url)).json(&body).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().expect("a value")));
    let words = answer.text().await.expect("words");
    assert!(words.contains("no room for the answer of the site"), "{words}");
    until_counted(&rig, "memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_site_that_is_too_long_or_stalls_is_given_up_and_its_memory_is_free() {
    let silence = Duration::from_millis(200);
    let settings = Settings { max_answer_silence: silence, max_answer_bytes: 1 << 20, ..Settings::default() };
    let rig = rig(settings).await;
    let long = Trouble::Answer { status: 200, body: " ".repeat(2 << 20) };
    for (trouble, words) in [(long, "its answer is longer than 1 MiB"), (Trouble::Stalled, "timed out")] {
        rig.site().troubles.next_of("read Task", 1, trouble);
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let asked = find("Task", json!([]), &["id"]);
        let answer = call_with_status(&rig.url, auth, "read", asked);
        let (status, _, answer) = tokio::time::timeout(Duration::from_secs(60), answer).await.expect("it is given up");
        let said = answer.as_str().unwrap_or_default();
        assert!(status == 503 && said.contains(words), "{status} {answer}");
    }
    assert_eq!(rig.find("Task", json!([]), &["id"]).await.0, "uncached_type");
}

/// Of a long read by an unknown caller only the envelope is read: not even its type
/// gets into the access log.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_read_by_an_unknown_caller_is_not_parsed() {
    let rig = rig(Settings::default()).await;
    let lines = |caller: &str| {
        let text = std::fs::read_to_string(rig.directory.path().join("audit.ndjson")).expect("an access log");
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.rfind(|line| line["caller"] == format!("script {caller}"))
    };
    let client = reqwest::Client::new();
    let long = find("Shot", json!([["code", "is", "x".repeat(100 << 10)]]), &["code"]);
    for (caller, expected) in [("unmapped", json!(null)), ("sgcache", json!("Shot"))] {
        let auth = json!({"script_name": caller, "script_key": "sgcache-sim"});
        let body = json!({"method_name": "read", "params": [auth, long]});
        client.post(format!("{}/api3/json", rig.url)).json(&body).send().await.expect("an answer");
        let mut line = None;
        until(async || {
            line = lines(caller);
            line.is_some()
        })
        .await;
        let line = line.expect("a line");
        assert_eq!((&line["method"], &line["entity_type"]), (&json!("read"), &expected), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_those_that_are_being_answered_is_refused() {
    let rig = rig(with_bounds(ConnectionBounds { max_connections: 2, ..ConnectionBounds::default() })).await;
    let _waiting = waiting_calls(&rig, 2).await;
    check(&rig, b"", 503, "connections", "every connection is in use").await;
    // Each of them is answered, not only those that the listener finds ready.
    for _ in 0..100 {
        let refused = Raw::open(&rig.url).await.answer().await;
        assert_eq!(refused.map(|(status, _)| status), Some(503));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_that_yields_to_another_connection_is_counted() {
    let rig = rig(with_bounds(ConnectionBounds { max_connections: 2, ..ConnectionBounds::default() })).await;
    let _waiting = waiting_calls(&rig, 1).await;
    let mut half = Raw::open(&rig.url).await;
    half.send(b"POST /api3/json HTTP/1.1\r\nhost: loc").await;
    let _next = Raw::open(&rig.url).await;
    half.closed().await;
    // An idle connection of an earlier request, where there still is one, yields as well.
    until(async || refusals(&rig, "evicted") >= 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_finds_no_slot_to_the_site_is_refused_and_says_so() {
    let settings = Settings { max_upstream: 1, max_slot_wait: Duration::from_millis(20), ..Settings::default() };
    let rig = rig(settings).await;
    let _waiting = waiting_calls(&rig, 1).await;
    let call = json!({"type": "Note", "return_fields": ["id"], "paging": {"entities_per_page": 5, "current_page": 1},
        "filters": {"logical_operator": "and", "conditions": []}});
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": "read", "params": [auth, call]});
    let client = reqwest::Client::new();
    let answer = client.post(format!("{}/api3/json", rig.url)).json(&body).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().expect("a value")));
    let words = answer.text().await.expect("words");
    assert!(words.contains("`api.max_upstream`") && !words.contains("cannot be reached"), "{words}");
    until_counted(&rig, "site_busy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_finds_no_slot_to_the_site_is_refused_and_says_so() {
    let settings = Settings { max_uploads: 1, max_slot_wait: Duration::from_millis(20), ..Settings::default() };
    let rig = rig(settings).await;
    let begun = b"POST /upload/publish_file HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let (mut one, mut other) = (Raw::open(&rig.url).await, Raw::open(&rig.url).await);
    for upload in [&mut one, &mut other] {
        upload.send(begun).await;
        // Only what is longer than a call takes the place of an upload.
        upload.send(&[b' '; 100_000]).await;
    }
    // Whichever came first has the slot for as long as it does not end.
    let refused = tokio::select! {
        refused = one.answer() => refused,
        refused = other.answer() => refused,
    };
    let (status, words) = refused.expect("an answer");
    assert!(status == 503 && words.contains("`api.max_uploads`"), "{status} {words}");
    until_counted(&rig, "site_busy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_that_does_not_get_its_turn_to_be_read_is_refused() {
    let rig = rig(Settings { max_reading_wait: Duration::ZERO, ..Settings::default() }).await;
    let padded = body().replacen('{', &format!("{{{}", " ".repeat(4 << 20)), 1);
    let client = reqwest::Client::new();
    // Two are read at a time: of many that arrive together, some find no turn.
    let refused = loop {
        let calls = (0..16).map(|_| client.post(format!("{}/api3/json", rig.url)).body(padded.clone()).send());
        let answers = futures::future::join_all(calls).await;
        let refused: Vec<_> =
            answers.into_iter().map(|one| one.expect("an answer")).filter(|one| one.status() != 200).collect();
        if !refused.is_empty() {
            break refused;
        }
    };
    let count = refused.len() as f64;
    for answer in refused {
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"1".parse().expect("a value")));
        let words = answer.text().await.expect("words");
        assert!(words.contains("long requests are being read"), "{words}");
    }
    assert_eq!(refusals(&rig, "busy"), count);
}
