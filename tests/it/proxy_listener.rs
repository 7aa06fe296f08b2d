//! The api listener over real connections: what it answers, what it hands through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sgcache::entity::{EntityRef, Timestamp};
use sgcache::proxy::{ApiListener, CallerName, CallerRule, ConnectionBounds, Limits, Mode, Settings, Tls, shadow};
use sgcache::sim::{Site, Trouble};
use sgcache::store::{FetchedRow, ReadVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::proxy_rig::{Rig, call, call_with_status, find, said, shipped, written};
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

async fn rig(settings: Settings) -> Rig {
    Rig::start(filled(), written(CONFIGS), settings).await
}

pub fn filled() -> Arc<Site> {
    let site = Site::empty();
    site.clock.run(0);
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    let project = json!({"type": "Project", "id": 1});
    for number in 0..5 {
        let fields = json!({"code": format!("sh{number}"), "project": project, "sg_cut_in": number});
        site.create("Shot", fields).expect("a shot");
    }
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_answered_with_its_age_and_the_rest_by_the_site() {
    let rig = rig(Settings::default()).await;
    let asked = find("Shot", json!([["code", "is", "SH1"]]), &["code", "sg_cut_in", "project"]);
    let (headers, answer) = rig.call("read", asked.clone()).await;
    assert_eq!(said(&headers), "hit");
    assert_eq!(answer, rig.direct("read", asked).await);
    assert!(headers["x-sgcache-fresh-as-of"].to_str().is_ok_and(|moment| moment.ends_with('Z')), "{headers:?}");
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert!(headers.contains_key("content-length"));

    assert_eq!(rig.find("Shot", json!([]), &["code", "image"]).await.0, "hit");
    assert_eq!(rig.find("Task", json!([]), &["id"]).await.0, "uncached_type");
    assert_eq!(rig.find("Shot", json!([]), &["description"]).await.0, "uncached_field");
    assert_eq!(rig.counted("sgcache_proxy_passthrough_total", &[("reason", "uncached_type")]), 1.0);
    assert!(rig.counted("sgcache_proxy_cache_hits_total", &[("method", "read")]) >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_and_statuses_are_those_of_the_site() {
    let rig = rig(Settings::default()).await;
    for (method, argument) in [
        ("read", find("Shot", json!([["nothing", "is", 1]]), &[])),
        ("read", find("Shot", json!([["code", "in", []]]), &[])),
        ("read", json!({"type": "Shot"})),
        ("no_such_method", json!({})),
        ("delete", json!({"type": "Shot", "id": 1_000_000})),
    ] {
        let (_, answer) = rig.call(method, argument.clone()).await;
        assert_eq!(answer["exception"], true, "{answer}");
        assert_eq!(answer, rig.direct(method, argument).await);
    }
    let sent = reqwest::get(format!("{}/no/such/page", rig.url)).await.expect("an answer");
    let direct = reqwest::get(format!("{}/no/such/page", rig.site_url)).await.expect("an answer");
    assert_eq!(sent.status(), direct.status());
    assert_eq!(sent.headers()["x-sgcache"], "pass; reason=path");
    assert_eq!(sent.text().await.expect("a body"), direct.text().await.expect("a body"));
    let broken = reqwest::Client::new().post(format!("{}/api3/json", rig.url)).body("{not json").send().await;
    let broken: Value = broken.expect("an answer").json().await.expect("JSON");
    assert_eq!(broken["error_code"], 103);
}

#[tokio::test(flavor = "multi_thread")]
async fn info_and_any_prefix_are_answered_as_by_the_site() {
    let rig = rig(Settings::default()).await;
    let body = r#"{"method_name": "info", "params": []}"#;
    let ask = |url: String| async move {
        let sent = reqwest::Client::new().post(url).body(body).send().await.expect("an answer");
        (said(sent.headers()), sent.text().await.expect("a body"))
    };
    let (how, through) = ask(format!("{}/some/prefix/api3/json", rig.url)).await;
    assert_eq!(how, "hit");
    assert_eq!(through, ask(format!("{}/api3/json", rig.site_url)).await.1);
}

/// A row comes and goes while its type is read: what an answer says of it in several
/// places is of one moment all the same.
pub async fn while_a_row_comes_and_goes(rig: &Rig, look: impl AsyncFn()) {
    let (replica, stop) = (rig.replica.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let writer = tokio::spawn(async move {
        let (key, layout) =
            (EntityRef::new("Shot", 6), replica.tracked().layout(&"Shot".into()).expect("shots").clone());
        let mut fields: Map<String, Value> = layout.field_names().into_iter().map(|name| (name, Value::Null)).collect();
        fields.insert("assets".into(), json!([]));
        while !stopped.load(Ordering::Relaxed) {
            let rv = async || ReadVersion(replica.state().next_rv().await.expect("a version"));
            let (fields, active) = (fields.clone(), sgcache::store::RowState::Active);
            let row = FetchedRow::from_site(&layout, key.clone(), rv().await, active, fields, Timestamp(0), None);
            replica.store().put(&[row.expect("a row")]).await.expect("a write");
            let gone = FetchedRow::absent(key.clone(), rv().await, Timestamp(0), None);
            replica.store().put(&[gone]).await.expect("a write");
        }
    });
    look().await;
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("a writer");
}

/// Reads counted pages; returns how many the cache has answered.
pub async fn read_counted_pages(rig: &Rig, times: usize) -> usize {
    let mut asked = find("Shot", json!([]), &["code"]);
    asked["return_paging_info"] = true.into();
    asked["return_paging_info_without_counts"] = false.into();
    let mut hits = 0;
    for _ in 0..times {
        let (headers, answer) = rig.call("read", asked.clone()).await;
        hits += usize::from(said(&headers) == "hit");
        let results = &answer["results"];
        let rows = results["entities"].as_array().expect("rows").len();
        assert_eq!(results["paging_info"]["entity_count"], rows, "{}", said(&headers));
    }
    hits
}

/// Asks for summaries of several values; returns how many the cache has answered.
pub async fn summarize_in_parts(rig: &Rig, times: usize) -> usize {
    let filters = json!({"logical_operator": "and", "conditions": []});
    let summaries = json!([{"field": "id", "type": "count"}, {"field": "code", "type": "record_count"}]);
    let asked = json!({"type": "Shot", "filters": filters, "summaries": summaries});
    let mut hits = 0;
    for _ in 0..times {
        let (headers, answer) = rig.call("summarize", asked.clone()).await;
        hits += usize::from(said(&headers) == "hit");
        let values = &answer["results"]["summaries"];
        assert!(values["id"].is_number() && values["id"] == values["code"], "{}: {values}", said(&headers));
    }
    hits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_and_its_count_are_of_one_moment() {
    let rig = rig(Settings::default()).await;
    while_a_row_comes_and_goes(&rig, async || assert!(read_counted_pages(&rig, 400).await > 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_values_of_a_summary_are_of_one_moment() {
    let rig = rig(Settings::default()).await;
    while_a_row_comes_and_goes(&rig, async || assert!(summarize_in_parts(&rig, 400).await > 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_schemas_and_both_pagings_equal_the_site() {
    let rig = rig(Settings::default()).await;
    let summary = |field: &str, kind: &str| {
        json!({"type": "Shot", "summaries": [{"field": field, "type": kind}],
        "filters": {"logical_operator": "and", "conditions": []}})
    };
    for (field, kind) in [
        ("id", "count"),
        ("sg_cut_in", "sum"),
        ("sg_cut_in", "maximum"),
        ("sg_cut_in", "minimum"),
        ("code", "record_count"),
        ("sg_sequence", "count"),
        ("created_at", "latest"),
    ] {
        let (headers, answer) = rig.call("summarize", summary(field, kind)).await;
        assert_eq!(
            (said(&headers).as_str(), answer),
            ("hit", rig.direct("summarize", summary(field, kind)).await),
            "{kind}"
        );
    }
    for flag in ["return_paging_info", "return_paging_info_without_counts"] {
        for page in [1, 2, 3, 9] {
            let mut asked = find("Shot", json!([]), &["code"]);
            asked["paging"] = json!({"entities_per_page": 2, "current_page": page});
            asked["return_paging_info"] = false.into();
            asked["return_paging_info_without_counts"] = false.into();
            asked[flag] = true.into();
            let (headers, answer) = rig.call("read", asked.clone()).await;
            assert_eq!((said(&headers).as_str(), answer), ("hit", rig.direct("read", asked).await), "{flag} {page}");
        }
    }
    let field = json!({"type": "Shot", "field_name": "code"});
    for expected in ["schema_unread", "hit"] {
        let (headers, answer) = rig.call("schema_field_read", field.clone()).await;
        assert_eq!((said(&headers).as_str(), answer), (expected, rig.direct("schema_field_read", field.clone()).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_a_row_without_credentials_that_the_site_accepts() {
    let limits = Limits { types: Some(["Shot".into()].into()), ..Limits::default() };
    let rule = CallerRule { name: CallerName::Script("farm".into()), limits };
    let rig = rig(Settings { callers: vec![rule], ..Settings::default() }).await;
    rig.site().add_script("farm", "farm-key", true);
    let asked = find("Shot", json!([]), &["code"]);
    let with = |auth: Value, asked: Value| call(&rig.url, auth, "read", asked);

    for auth in [
        json!({"script_name": "farm", "script_key": "wrong"}),
        json!({"script_name": "sgcache", "script_key": "x"}),
        json!({}),
    ] {
        for _ in 0..3 {
            let (_, answer) = with(auth.clone(), asked.clone()).await;
            assert_eq!((&answer["exception"], &answer["error_code"]), (&json!(true), &json!(102)), "{answer}");
        }
    }
    let farm = json!({"script_name": "farm", "script_key": "farm-key"});
    let (headers, first) = with(farm.clone(), asked.clone()).await;
    assert_eq!(said(&headers), "unverified");
    let (headers, second) = with(farm.clone(), asked.clone()).await;
    assert_eq!((said(&headers).as_str(), &first), ("hit", &second));
    let (headers, _) = with(farm.clone(), find("Asset", json!([]), &["code"])).await;
    assert_eq!(said(&headers), "scope");
    let sudo = json!({"script_name": "sgcache", "script_key": "sgcache-sim", "sudo_as_login": "nobody"});
    let (headers, answer) = with(sudo, asked).await;
    assert_eq!((said(&headers).as_str(), &answer["exception"]), ("unknown_caller", &json!(true)));
    let (place, mut audit) = (rig.directory.path().join("audit.ndjson"), String::new());
    while !audit.contains(r#""reason":"unknown_caller""#) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        audit = std::fs::read_to_string(&place).expect("an audit");
    }
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let of_farm: Vec<_> = lines.iter().filter(|line| line["decision"] == "hit" && line["rows"] != 0).collect();
    assert!(of_farm.iter().any(|line| line["method"] == "read" && line["entity_type"] == "Shot"), "{audit}");
    assert!(!audit.contains("farm-key") && !audit.contains("sgcache-sim"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_busy_for_a_moment_is_waited_out() {
    let rig = rig(Settings::default()).await;
    rig.site().troubles.next_of("read Task", 1, Trouble::Status(503));
    let (how, _) = rig.find("Task", json!([]), &["id"]).await;
    assert_eq!(how, "uncached_type");
    rig.site().troubles.next_of("read Task", 1, Trouble::Status(429));
    assert_eq!(rig.find("Task", json!([]), &["id"]).await.0, "uncached_type");
    rig.site().troubles.next_of("read Task", 1, Trouble::Status(500));
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let (status, ..) = call_with_status(&rig.url, auth.clone(), "read", find("Task", json!([]), &["id"])).await;
    assert_eq!(status, 500);
    // A pause longer than the proxy waits is handed on to the caller, and the site is not
    // asked again before it is over.
    let busy = Trouble::Busy { status: 429, retry_after: Duration::from_secs(3600) };
    rig.site().troubles.next_of("read Task", 1, busy);
    rig.site().requests.reset();
    let (status, headers, _) = call_with_status(&rig.url, auth, "read", find("Task", json!([]), &["id"])).await;
    assert_eq!((status, headers["retry-after"].to_str().ok()), (429, Some("3600")));
    assert_eq!(rig.site().requests.of("read Task"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_down_is_stood_in_for_and_comes_back() {
    let rig = rig(Settings { max_age: std::time::Duration::ZERO, ..Settings::default() }).await;
    let asked = find("Shot", json!([]), &["code"]);
    // With no age allowed at all, everything passes; so everything is verified, too.
    let (headers, before) = rig.call("read", asked.clone()).await;
    assert_eq!(said(&headers), "stale");
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    rig.site().troubles.next(u32::MAX, Trouble::Status(503));
    let (headers, during) = call(&rig.url, own.clone(), "read", asked.clone()).await;
    assert!(headers["x-sgcache"].to_str().is_ok_and(|said| said.starts_with("stale; age=")), "{headers:?}");
    assert_eq!(before, during);
    rig.site().troubles.clear();
    let (headers, after) = rig.call("read", asked).await;
    assert_eq!(before, after);
    assert!(matches!(said(&headers).as_str(), "stale"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_mode_pass_the_site_answers_everything() {
    let site = Site::empty();
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    let rig = Rig::begin(site, written(CONFIGS), Settings { mode: Mode::Pass, ..Settings::default() }).await;
    assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "mode");
    let create = json!({"type": "Shot", "fields": [{"field_name": "code", "value": "new"},
        {"field_name": "project", "value": {"type": "Project", "id": 1}}], "return_fields": ["id"]});
    let (headers, answer) = rig.call("create", create).await;
    assert_eq!((said(&headers).as_str(), answer["results"]["code"].as_str()), ("mode", Some("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn shadow_mode_finds_what_the_cache_has_wrong() {
    let settings = Settings { mode: Mode::Shadow, shadow_share: 1.0, ..Settings::default() };
    let rig = Rig::begin(filled(), written(CONFIGS), settings).await;
    rig.followed().await;
    let compared = |result| rig.counted("sgcache_proxy_shadow_comparisons_total", &[("result", result)]);
    while compared("equal") == 0.0 {
        let (how, found) = rig.find("Shot", json!([]), &["code", "sg_cut_in"]).await;
        assert_eq!((how.as_str(), found.len()), ("mode", 5));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(compared("different"), 0.0);
    let key = EntityRef::new("Shot", 3);
    let signed = "https://files/a?X-Amz-Signature=5ecret";
    rig.replica.store().corrupt(&key, "code", json!(signed)).await.expect("a corruption");
    while compared("different") == 0.0 {
        rig.find("Shot", json!([["code", "is_not", signed.replace('a', "b")]]), &["code", "sg_cut_in"]).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let record = shadow::kept(rig.replica.state()).await.expect("a record");
    assert!(record.classes.keys().eq(["values"]), "{record:?}");
    assert_eq!(record.examples[0].argument["type"], "Shot");
    assert_eq!(rig.differences.lock().expect("a list")[0], record.examples[0]);
    let shown = format!("{record:?}");
    assert!(shown.contains("X-Amz-Signature=***") && !shown.contains("5ecret"), "{shown}");
}

#[tokio::test]
async fn an_address_beyond_this_machine_needs_encryption() {
    let open = |settings: Settings| async move { ApiListener::bind(([0, 0, 0, 0], 0).into(), &settings).await };
    let refused = open(Settings::default()).await.err().expect("a refusal");
    assert!(refused.to_string().contains("api.tls"), "{refused}");
    assert!(open(Settings { insecure: true, ..Settings::default() }).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_its_key_make_it_https() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(file("key.pem"))
        .arg("-out")
        .arg(file("cert.pem"))
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        return crate::servers::skipped("proxy_listener", "there is no openssl to make a certificate with");
    }
    let tls = Some(Tls { certificate: file("cert.pem"), key: file("key.pem") });
    let bounds = ConnectionBounds { head_timeout: Duration::from_secs(2), ..ConnectionBounds::default() };
    let settings = Settings { tls, connections: bounds, ..Settings::default() };
    let rig = Rig::begin(filled(), written(CONFIGS), settings).await;
    let certificate = std::fs::read(file("cert.pem")).expect("a certificate");
    let certificate = reqwest::Certificate::from_pem(&certificate).expect("a certificate");
    let client = reqwest::Client::builder().add_root_certificate(certificate).build().expect("a client");
    let info = client.post(format!("{}/api3/json", rig.url)).body(r#"{"method_name": "info", "params": []}"#);
    let info: Value = info.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(info["version"], json!([8, 89, 0]));
    assert!(rig.url.starts_with("https://"));
    // The handshake is part of the first head: a peer that does not begin it is closed.
    let mut silent = TcpStream::connect(rig.url.trim_start_matches("https://")).await.expect("a connection");
    let closed = tokio::time::timeout(Duration::from_secs(60), silent.read(&mut [0; 16])).await;
    assert_eq!(closed.expect("it is closed").expect("an end"), 0);
    let labels = [("listener", "api"), ("reason", "head_timeout")];
    until(async || rig.counted("sgcache_listener_refusals_total", &labels) >= 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_read_in_flight_is_sent_once() {
    let rig = rig(Settings::default()).await;
    rig.site().requests.reset();
    let slow = sgcache::sim::faults::Latency::Fixed(std::time::Duration::from_millis(300));
    rig.site().troubles.next_of("read Task", 1, Trouble::Slow(slow));
    let reads = (0..8).map(|_| rig.find("Task", json!([]), &["id"]));
    futures::future::join_all(reads).await;
    let sent = rig.site().requests.of("read Task") as f64;
    let shared = rig.counted("sgcache_proxy_coalesced_total", &[]);
    assert_eq!(sent + shared, 8.0, "each was sent or shared");
    assert!(shared > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished_before_the_end() {
    let rig = rig(Settings::default()).await;
    let slow = sgcache::sim::faults::Latency::Fixed(std::time::Duration::from_millis(300));
    rig.site().troubles.next_of("read Task", 1, Trouble::Slow(slow));
    let (url, own) = (rig.url.clone(), json!({"script_name": "sgcache", "script_key": "sgcache-sim"}));
    let read = tokio::spawn(async move { call(&url, own, "read", find("Task", json!([]), &["id"])).await });
    until(async || rig.counted("sgcache_proxy_in_flight", &[]) >= 1.0).await;
    rig.shutdown().await;
    let (headers, answer) = read.await.expect("an answer");
    assert_eq!((said(&headers).as_str(), answer["results"]["entities"].is_array()), ("uncached_type", true));
}

/// A `read` as it is written to a connection.
fn request(address: &str, argument: &Value) -> String {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let body = json!({"method_name": "read", "params": [auth, argument]}).to_string();
    format!("POST /api3/json HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_are_slow_hold_up_nobody_and_lose_nothing() {
    let site = filled();
    for number in 0..400 {
        site.create("Shot", json!({"code": format!("long{number:0200}"), "project": {"type": "Project", "id": 1}}))
            .expect("a shot");
    }
    let rig = Rig::start(site, written(CONFIGS), Settings::default()).await;
    let address = rig.url.trim_start_matches("http://");
    let question = request(address, &find("Shot", json!([]), &["code", "project"]));
    let (begun, rest) = question.split_at(question.len() - 100);

    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(begun.as_bytes()).await.expect("half a request");
        slow.push(stream);
    }
    // Asks, and does not listen, until nobody takes its questions any more.
    let deaf = TcpSocket::new_v4().expect("a socket");
    deaf.set_recv_buffer_size(4096).expect("a size");
    deaf.set_send_buffer_size(4096).expect("a size");
    let mut deaf = deaf.connect(address.parse().expect("an address")).await.expect("a connection");
    let mut sent = 0;
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(300), deaf.write(&question.as_bytes()[sent % question.len()..]))
            .await
    {
        sent += written.expect("a connection");
    }
    assert_eq!(rig.find("Shot", json!([]), &["code"]).await.0, "hit");

    for mut stream in slow {
        stream.write_all(rest.as_bytes()).await.expect("the other half");
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
    deaf.shutdown().await.expect("no more questions");
    let mut heard = String::new();
    deaf.read_to_string(&mut heard).await.expect("answers");
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), sent / question.len());
}

/// Head and body that are written apart wait for each other on a network.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_written_in_one_piece() {
    let rig = rig(Settings::default()).await;
    let address = rig.url.trim_start_matches("http://");
    let request = request(address, &find("Shot", json!([]), &["code", "project"]));
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    for _ in 0..20 {
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut piece = vec![0; 1 << 16];
        let length = stream.read(&mut piece).await.expect("an answer");
        let text = std::str::from_utf8(&piece[..length]).expect("a text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        assert!(head.contains("x-sgcache: hit") && head.contains(&format!("content-length: {}", body.len())), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_long_takes_no_memory() {
    let rig = rig(Settings { max_request_bytes: 4096, ..Settings::default() }).await;
    let long = find("Shot", json!([["code", "is", "x".repeat(5000)]]), &[]);
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    assert_eq!(call_with_status(&rig.url, auth, "read", long).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_configuration_serves_a_generated_site() {
    let rig = Rig::start(Site::generated(3, 1500), shipped(), Settings::default()).await;
    let asked = find(
        "Task",
        json!([["entity.Shot.sg_sequence.Sequence.code", "starts_with", "s"]]),
        &["content", "entity", "entity.Shot.sg_sequence", "task_assignees", "project"],
    );
    let (headers, answer) = rig.call("read", asked.clone()).await;
    assert_eq!((said(&headers).as_str(), answer), ("hit", rig.direct("read", asked).await));
}
