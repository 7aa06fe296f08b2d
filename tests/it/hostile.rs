//! Peers that mean harm, or are broken: whatever they do, callers beside them are
//! answered. Attackers write raw bytes to real connections; nothing is measured in
//! time, every wait is for an event.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::proxy::{ConnectionBounds, Settings};
use sgcache::sim::Site;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy_rig::{Rig, find, said, written};

const CONFIGS: &[(&str, &str)] = &[
    ("Project", r#"{"fields": {"name": {}, "archived": {}}}"#),
    ("Sequence", r#"{"fields": {"code": {}, "project": {}, "shots": {}}}"#),
    (
        "Shot",
        r#"{"fields": {"code": {}, "sg_status_list": {}, "sg_cut_in": {}, "sg_sequence": {}, "project": {},
            "assets": {}, "image": {}, "created_at": {}}}"#,
    ),
    ("Asset", r#"{"fields": {"code": {}, "shots": {}, "project": {}}}"#),
];

/// A connection whose bytes are written by hand.
struct Raw(TcpStream);

impl Raw {
    async fn open(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    /// Sends bytes; a peer that was cut off does not mind.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Reads one answer: its status and its body.
    async fn answer(&mut self) -> Option<(u16, String)> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if length.is_none_or(|length: usize| body.len() >= length) {
                    let status = head.split(' ').nth(1)?.parse().ok()?;
                    return Some((status, body.to_owned()));
                }
            }
            let mut part = [0; 16 << 10];
            match self.0.read(&mut part).await {
                Ok(read) if read > 0 => bytes.extend_from_slice(&part[..read]),
                _ => return None,
            }
        }
    }

    /// Waits until the other side closes.
    async fn closed(&mut self) {
        let mut part = [0; 4096];
        while self.0.read(&mut part).await.is_ok_and(|read| read > 0) {}
    }
}

fn filled() -> std::sync::Arc<Site> {
    let site = Site::empty();
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    for number in 0..5 {
        let fields = json!({"code": format!("{number:03}"), "project": {"type": "Project", "id": 1}});
        site.create("Shot", fields).expect("a shot");
    }
    site
}

async fn rig(bounds: ConnectionBounds) -> Rig {
    Rig::start(filled(), written(CONFIGS), Settings { connections: bounds, ..Settings::default() }).await
}

fn body() -> String {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    json!({"method_name": "read", "params": [auth, find("Shot", json!([]), &["code"])]}).to_string()
}

fn head(length: usize) -> String {
    format!("POST /api3/json HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
}

fn request() -> Vec<u8> {
    format!("{}{}", head(body().len()), body()).into_bytes()
}

fn is_answered(answer: Option<(u16, String)>) -> bool {
    let Some((200, body)) = answer else { return false };
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    body["results"]["entities"].as_array().is_some_and(|rows| rows.len() == 5)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_on_every_connection_shuts_out_nobody() {
    let rig = rig(ConnectionBounds { max_connections: 32, ..ConnectionBounds::default() }).await;
    let mut waiting = Raw::open(&rig.url).await;
    waiting.send(&request()).await;
    assert!(is_answered(waiting.answer().await));
    let mut attackers = Vec::new();
    for _ in 0..100 {
        let mut attacker = Raw::open(&rig.url).await;
        attacker.send(b"POST /api3/json HTTP/1.1\r\nhost: loc").await;
        attackers.push(attacker);
        if attackers.len() % 10 == 0 {
            assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit", "a new connection");
        }
    }
    waiting.send(&request()).await;
    assert!(is_answered(waiting.answer().await), "a connection that waited for its next request was kept");
    // Those that had to yield have ended: the first of them, at least.
    attackers[0].closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_yield_to_new_ones() {
    let rig = rig(ConnectionBounds { max_connections: 16, ..ConnectionBounds::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut one = Raw::open(&rig.url).await;
        one.send(&request()).await;
        assert!(is_answered(one.answer().await));
        idle.push(one);
    }
    idle[0].closed().await;
    let newest = idle.last_mut().expect("a connection");
    newest.send(&request()).await;
    assert!(is_answered(newest.answer().await), "the one used last was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_is_answered_408_and_an_idle_connection_is_kept() {
    let head_timeout = Duration::from_millis(100);
    let rig = rig(ConnectionBounds { head_timeout, ..ConnectionBounds::default() }).await;
    let mut idle = Raw::open(&rig.url).await;
    idle.send(&request()).await;
    assert!(is_answered(idle.answer().await));
    for begun in [&b"POST /api3/json HTTP/1.1\r\n"[..], b""] {
        let mut slow = Raw::open(&rig.url).await;
        slow.send(begun).await;
        let (status, words) = slow.answer().await.expect("an answer");
        assert_eq!(status, 408, "{words}");
        assert!(words.contains("took too long"), "{words}");
        slow.closed().await;
    }
    idle.send(&request()).await;
    assert!(is_answered(idle.answer().await));
    // The next head on a connection has its bound, too.
    idle.send(b"POST ").await;
    assert_eq!(idle.answer().await.map(|(status, _)| status), Some(408));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_answered_408() {
    let body_timeout = Duration::from_millis(100);
    let rig = rig(ConnectionBounds { body_timeout, ..ConnectionBounds::default() }).await;
    let mut slow = Raw::open(&rig.url).await;
    slow.send(head(1000).as_bytes()).await;
    slow.send(b"{\"method_name\"").await;
    let (status, words) = slow.answer().await.expect("an answer");
    assert_eq!(status, 408, "{words}");
    slow.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_too_long_is_refused() {
    let rig = rig(ConnectionBounds::default()).await;
    let mut long = Raw::open(&rig.url).await;
    let line = format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(64 << 10));
    long.send(line.as_bytes()).await;
    assert_eq!(long.answer().await.map(|(status, _)| status), Some(431));
    let mut many = Raw::open(&rig.url).await;
    let lines: String = (0..1000).map(|number| format!("x{number}: y\r\n")).collect();
    many.send(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes()).await;
    assert_eq!(many.answer().await.map(|(status, _)| status), Some(431));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_ahead_are_answered_in_order() {
    let rig = rig(ConnectionBounds::default()).await;
    let mut ahead = Raw::open(&rig.url).await;
    ahead.send(&request().repeat(20)).await;
    let mut answers = 0;
    let mut bytes = String::new();
    while answers < 20 {
        let mut part = vec![0; 64 << 10];
        let read = ahead.0.read(&mut part).await.expect("answers");
        assert!(read > 0, "closed after {answers} answers");
        bytes.push_str(&String::from_utf8_lossy(&part[..read]));
        answers = bytes.matches("HTTP/1.1 200").count();
    }
    let (headers, _) = rig.call("read", find("Shot", json!([]), &["code"])).await;
    assert_eq!(said(&headers), "hit");
}
