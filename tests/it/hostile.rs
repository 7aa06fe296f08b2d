//! Peers that mean harm, or are broken: whatever they do, callers beside them are
//! answered. Attackers write raw bytes to real connections; nothing is measured in
//! time, every wait is for an event.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::proxy::{ConnectionBounds, Settings};
use sgcache::sim::{Site, Trouble};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy_credentials::order;
use crate::proxy_rig::{Rig, find, said, written};
use crate::waiting::until;

pub const CONFIGS: &[(&str, &str)] = &[
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
pub struct Raw(TcpStream);

impl Raw {
    pub async fn open(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    /// Sends bytes; a peer that was cut off does not mind.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Reads one answer: its status and its body.
    pub async fn answer(&mut self) -> Option<(u16, String)> {
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
    pub async fn closed(&mut self) {
        let mut part = [0; 4096];
        while self.0.read(&mut part).await.is_ok_and(|read| read > 0) {}
    }
}

pub fn filled() -> std::sync::Arc<Site> {
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

pub fn body() -> String {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    json!({"method_name": "read", "params": [auth, find("Shot", json!([]), &["code"])]}).to_string()
}

pub fn head(length: usize) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn long_bodies_that_arrive_together_and_stop_do_not_stop_the_others() {
    let settings = Settings { max_memory_bytes: 64 << 20, ..Settings::default() };
    let rig = Rig::start(filled(), written(CONFIGS), settings).await;
    let mut attackers = Vec::new();
    for _ in 0..16 {
        let mut attacker = Raw::open(&rig.url).await;
        attacker.send(head(32 << 20).as_bytes()).await;
        attacker.send(&vec![b' '; 3 << 20]).await;
        attackers.push(attacker);
    }
    for _ in 0..20 {
        assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit");
    }
    // An honest long body finds room: those that stand still are cut off.
    let padded = body().replacen('{', &format!("{{{}", " ".repeat(8 << 20)), 1);
    let client = reqwest::Client::new();
    loop {
        let sent = client.post(format!("{}/api3/json", rig.url)).body(padded.clone()).send().await.expect("an answer");
        if sent.status() == 200 {
            let answer: Value = sent.json().await.expect("JSON");
            assert_eq!(answer["results"]["entities"].as_array().map(Vec::len), Some(5));
            break;
        }
        assert_eq!(sent.status(), 503);
        assert_eq!(sent.headers()["retry-after"], "1");
    }
}

/// Bodies that hold all the memory for long bodies and then arrive byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn long_bodies_that_trickle_in_stop_neither_short_nor_long_requests() {
    let settings = Settings { max_memory_bytes: 16 << 20, ..Settings::default() };
    let rig = Rig::start(filled(), written(CONFIGS), settings).await;
    for _ in 0..8 {
        let mut attacker = Raw::open(&rig.url).await;
        attacker.send(head(8 << 20).as_bytes()).await;
        attacker.send(&vec![b' '; 3 << 20]).await;
        tokio::spawn(async move {
            while attacker.0.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    for _ in 0..20 {
        assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit");
    }
    let padded = body().replacen('{', &format!("{{{}", " ".repeat(4 << 20)), 1);
    let client = reqwest::Client::new();
    let served = async {
        let send = || client.post(format!("{}/api3/json", rig.url)).body(padded.clone()).send();
        while send().await.expect("an answer").status() != 200 {}
    };
    tokio::time::timeout(Duration::from_secs(60), served).await.expect("an honest long body finds room");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stop_do_not_stop_calls_that_go_to_the_site() {
    let settings = Settings { max_upstream: 4, max_uploads: 4, ..Settings::default() };
    let rig = Rig::start(filled(), written(CONFIGS), settings).await;
    let mut uploads = Vec::new();
    for _ in 0..64 {
        let mut upload = Raw::open(&rig.url).await;
        upload.send(b"POST /upload/publish_file HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc").await;
        uploads.push(upload);
    }
    until(async || rig.counted("sgcache_proxy_in_flight", &[]) >= 64.0).await;
    assert_eq!(rig.find("Task", json!([]), &["id"]).await.0, "uncached_type");
    let page = reqwest::get(format!("{}/some/picture", rig.url)).await.expect("an answer");
    assert_eq!(page.status(), 404, "the site has answered");
}

/// Uploads that take every place and then send a byte now and then.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_trickle_in_stop_neither_uploads_nor_writes() {
    let settings = Settings { max_uploads: 4, ..Settings::default() };
    let rig = Rig::start(filled(), written(CONFIGS), settings).await;
    for begun in [100, 100_000].repeat(4) {
        let mut upload = Raw::open(&rig.url).await;
        upload.send(b"POST /upload/publish_file HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n").await;
        upload.send(&vec![b' '; begun]).await;
        tokio::spawn(async move {
            while upload.0.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    until(async || rig.counted("sgcache_proxy_in_flight", &[]) >= 8.0).await;
    let http = reqwest::Client::new();
    for (path, length) in [("/api/v1/entity/shots", 100), ("/upload/publish_file", 1 << 20)] {
        let sent = http.post(format!("{}{path}", rig.url)).body(vec![b' '; length]).send().await.expect("an answer");
        assert_ne!(sent.status(), 503, "{path}");
    }
}

/// Callers who ask what the site answers slowly, and leave.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_give_their_slots_back() {
    let rig = Rig::start(filled(), written(CONFIGS), Settings { max_upstream: 2, ..Settings::default() }).await;
    order(&rig, "left-key", Trouble::Slow(Duration::from_secs(600).into()), None);
    let auth = json!({"script_name": "left", "script_key": "left-key"});
    let mut attackers = Vec::new();
    for number in 0..12 {
        let argument = match number % 3 {
            // Of those that may change something, only what was sent is followed to its end.
            0 => json!({"method_name": "create", "params": [auth, {"type": "Note", "fields": [], "n": number}]}),
            _ => json!({"method_name": "read", "params": [auth, find("Task", json!([["id", "is", number]]), &["id"])]}),
        };
        let mut attacker = Raw::open(&rig.url).await;
        let body = argument.to_string();
        if number % 3 > 0 {
            attacker.send(format!("{}{body}", head(body.len())).as_bytes()).await;
        }
        attackers.push((attacker, body));
    }
    until(async || rig.site().requests.of("read Task") >= 2).await;
    for (attacker, body) in attackers.iter_mut().step_by(3) {
        attacker.send(format!("{}{body}", head(body.len())).as_bytes()).await;
    }
    until(async || rig.counted("sgcache_proxy_in_flight", &[]) >= 12.0).await;
    drop(attackers);
    assert_eq!(rig.find("Task", json!([]), &["id"]).await.0, "uncached_type");
    until(async || rig.counted("sgcache_proxy_in_flight", &[]) == 0.0).await;
    assert_eq!(rig.site().requests.of("create Note"), 0, "what was not sent is not sent any more");
}

/// Any peer could have the site taken for one that is down.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_is_no_failure_of_the_site() {
    let body_timeout = Duration::from_millis(200);
    let rig = rig(ConnectionBounds { body_timeout, ..ConnectionBounds::default() }).await;
    let mut upload = Raw::open(&rig.url).await;
    upload.send(b"POST /upload/publish_file HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await;
    // So much that it has begun to go to the site.
    upload.send(&[b' '; 100_000]).await;
    let (_, words) = upload.answer().await.expect("an answer");
    assert!(words.contains("no byte of the request arrived") && !words.contains("cannot be reached"), "{words}");
    for reason in ["connect", "timeout"] {
        let labels = [("method", "proxy"), ("reason", reason)];
        assert_eq!(rig.counted("sgcache_source_request_errors_total", &labels), 0.0, "{reason}");
    }
    assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit", "nothing can have changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_becomes_much_more_than_its_length_is_not_built() {
    let rig = rig(ConnectionBounds::default()).await;
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let many = format!("[{}0]", r#"{"":0},"#.repeat(300_000));
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    for argument in [many, deep] {
        for method in ["read", "summarize", "create", "batch", "nonsense"] {
            let body = format!(r#"{{"method_name": "{method}", "params": [{auth}, {argument}]}}"#);
            let sent = reqwest::Client::new().post(format!("{}/api3/json", rig.url)).body(body).send().await;
            let answer = sent.expect("an answer").text().await.expect("a body");
            assert!(answer.contains("exception"), "{method}: {answer}");
        }
        assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit", "and nothing waits for it");
    }
    let ids: Vec<i64> = (1..=1_000_000).collect();
    let (how, found) = rig.find("Shot", json!([["id", "in", ids]]), &["code"]).await;
    assert_eq!((how.as_str(), found.len()), ("hit", 5), "a list of a million ids is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_conditions_as_deep_as_sites_take_them_are_answered() {
    let rig = rig(ConnectionBounds::default()).await;
    let mut group = json!({"path": "id", "relation": "greater_than", "values": [0]});
    for _ in 0..265 {
        group = json!({"logical_operator": "and", "conditions": [group]});
    }
    let mut argument = find("Shot", json!([]), &["code"]);
    argument["filters"] = group;
    let (headers, answer) = rig.call("read", argument.clone()).await;
    assert_eq!(said(&headers), "hit");
    assert_eq!(answer["results"]["entities"].as_array().map(Vec::len), Some(5), "{answer}");
    assert_eq!(rig.direct("read", argument).await["results"]["entities"].as_array().map(Vec::len), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_name_no_path_are_refused() {
    let rig = rig(ConnectionBounds::default()).await;
    for target in ["*", "http://other.example/", "/../../x"] {
        let mut odd = Raw::open(&rig.url).await;
        odd.send(format!("OPTIONS {target} HTTP/1.1\r\nhost: other.example\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
        let (status, words) = odd.answer().await.expect("an answer");
        assert!(matches!(status, 400 | 404 | 405), "{target}: {status} {words}");
    }
}

/// A peer that asks for much and takes none of it, as one does whose machine has died:
/// nothing it does ends the connection.
#[tokio::test(flavor = "multi_thread")]
async fn peers_that_take_no_answer_are_closed_and_hold_up_no_one() {
    const PEERS: usize = 20;
    let site = filled();
    let long = json!({"code": "x".repeat(200_000), "project": {"type": "Project", "id": 1}});
    site.update("Shot", 1, long).expect("an update");
    let bounds = ConnectionBounds { body_timeout: Duration::from_millis(200), ..ConnectionBounds::default() };
    let rig = Rig::start(site, written(CONFIGS), Settings { connections: bounds, ..Settings::default() }).await;
    let mut dead = Vec::new();
    for _ in 0..PEERS {
        let mut peer = Raw::open(&rig.url).await;
        // More answers than the buffers of both sides hold.
        peer.send(&request().repeat(100)).await;
        dead.push(peer);
    }
    let labels = [("listener", "api"), ("reason", "body_timeout")];
    while rig.counted("sgcache_listener_refusals_total", &labels) < PEERS as f64 {
        let mut honest = Raw::open(&rig.url).await;
        honest.send(&request()).await;
        assert!(is_answered(honest.answer().await));
    }
}

/// Peers that take long answers byte by byte: each would stay in memory for days.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_hardly_taken_hold_no_memory_that_others_need() {
    let site = filled();
    for id in 1..=5 {
        site.update("Shot", id, json!({"code": "x".repeat(2 << 20)})).expect("an update");
    }
    let rig = Rig::start(site, written(CONFIGS), Settings { max_memory_bytes: 32 << 20, ..Settings::default() }).await;
    for _ in 0..4 {
        let mut attacker = Raw::open(&rig.url).await;
        attacker.send(&request()).await;
        tokio::spawn(async move {
            while attacker.0.read_exact(&mut [0]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    // Three of them fit. The fourth is refused, or is served instead of one that has hardly
    // taken anything by then.
    let refused = |reason| rig.counted("sgcache_listener_refusals_total", &[("listener", "api"), ("reason", reason)]);
    until(async || refused("memory") + refused("evicted") > 0.0).await;
    let http = reqwest::Client::new();
    let send = || http.post(format!("{}/api3/json", rig.url)).body(body()).send();
    until(async || send().await.expect("an answer").status() == 200).await;
    until(async || refused("evicted") > 0.0).await;
}
