//! Proof of identity over real connections: whatever a site answers to whatever was sent
//! before, no wrong credential reads a row from the cache, and the right one does.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sgcache::entity::Timestamp;
use sgcache::proxy::{ApiListener, CallerName, CallerRule, Leader, Limits, Parts, Proxy, Settings};
use sgcache::shotgun;
use sgcache::sim::faults::Rule;
use sgcache::sim::{Site, Trouble};
use tokio_util::sync::CancellationToken;

use crate::proxy_rig::{Rig, call_with_status, find, said, written};
use crate::waiting::until;

pub const CONFIGS: &[(&str, &str)] = &[
    ("Project", r#"{"fields": {"name": {}, "archived": {}}}"#),
    ("Shot", r#"{"fields": {"code": {}, "project": {}}}"#),
];
/// What no answer to a wrong credential may hold: the name of a row.
pub const ROW: &str = "secret_shot";

pub fn site() -> Arc<Site> {
    let site = Site::empty();
    site.create("Project", json!({"name": "Demo"})).expect("a project");
    let fields = json!({"code": ROW, "project": {"type": "Project", "id": 1}});
    site.create("Shot", fields).expect("a shot");
    let person = json!({"login": "td", "password_proxy": "td-word", "name": "T D"});
    site.create("HumanUser", person).expect("a person");
    site.add_script("farm", "farm-key", true);
    site
}

pub fn settings() -> Settings {
    let rule = |name| CallerRule { name, limits: Limits::default() };
    let callers = vec![rule(CallerName::Script("farm".into())), rule(CallerName::Login("td".into()))];
    Settings { callers, upstream_retry_timeout: Duration::ZERO, ..Settings::default() }
}

pub fn shots() -> Value {
    find("Shot", json!([]), &["code"])
}

/// The kinds of credentials; a wrong one of each, and of four a right one.
pub const KINDS: &[&str] = &["script", "login", "session_token", "sudo_as_login", "sso", "two_factor"];

pub fn wrong(kind: &str, secret: &str) -> Value {
    match kind {
        "script" => json!({"script_name": "farm", "script_key": secret}),
        "login" | "sso" => json!({"user_login": "td", "user_password": secret}),
        "session_token" => json!({"session_token": secret}),
        "sudo_as_login" => json!({"script_name": "farm", "script_key": secret, "sudo_as_login": "td"}),
        _ => json!({"user_login": "td", "user_password": secret, "auth_token": "123456"}),
    }
}

pub async fn right(rig: &Rig, kind: &str) -> Option<Value> {
    match kind {
        "script" => Some(json!({"script_name": "farm", "script_key": "farm-key"})),
        "login" => Some(json!({"user_login": "td", "user_password": "td-word"})),
        "session_token" => Some(session(rig, json!({"user_login": "td", "user_password": "td-word"})).await),
        "sudo_as_login" => Some(json!({"script_name": "farm", "script_key": "farm-key", "sudo_as_login": "td"})),
        _ => None,
    }
}

/// Opens a session at the site itself.
async fn session(rig: &Rig, auth: Value) -> Value {
    session_at(&rig.site_url, auth).await
}

async fn session_at(url: &str, auth: Value) -> Value {
    let (status, _, answer) = call_with_status(url, auth, "get_session_token", Value::Null).await;
    assert_eq!(status, 200, "{answer}");
    json!({"session_token": answer["results"]["session_id"]})
}

/// Questions to the site about the owner of a session.
const OWNER_QUESTION: &str = "auth/access_token";

/// What is sent before, and whether a successful answer to it proves the credential.
const SENT: &[(&str, bool)] = &[
    ("info", false),
    ("read", true),
    ("summarize", true),
    ("schema_read", true),
    ("create", true),
    ("update", true),
    ("delete", true),
    ("revive", true),
    ("batch", true),
    ("schema_entity_read", true),
    ("schema_field_read", true),
    ("follow", false),
    ("no_such_method", false),
    ("get_session_token", false),
    ("preferences_read", false),
    ("read with a cookie", false),
    ("read with an authorization", false),
    ("read with more", false),
    ("GET /api/v1/entity/shots", false),
    ("POST /upload/upload_file", false),
];

/// The answers of the site: its own, faults, and what no client expects.
fn answers(proves: bool, thorough: bool) -> Vec<Option<Trouble>> {
    let answer = |status, body: &str| Some(Trouble::Answer { status, body: body.to_owned() });
    let mut all = vec![None, Some(Trouble::Html), Some(Trouble::Dropped), Some(Trouble::Truncated)];
    all.extend((100..=111).map(|code| Some(Trouble::Fault(code, "no".into()))));
    if thorough {
        for body in ["", "{}", "[]", r#"{"results":null}"#, r#"{"results":{}}"#, r#"{"results":{"entities":[]}"#] {
            all.push(answer(200, body));
        }
        all.push(answer(200, r#"{"results":{"entities":[]},"exception":true,"error_code":104}"#));
        let rows = r#"{"results":{"entities":[],"summaries":{},"type":"Shot","id":1}}"#;
        all.extend([301, 302, 401, 403, 404, 429, 500, 503].map(|status| answer(status, rows)));
    }
    if !proves {
        all.push(answer(200, r#"{"results":{"entities":[],"summaries":{},"type":"Shot","id":1}}"#));
        all.push(answer(200, r#"{"results":true}"#));
    }
    all
}

/// Makes the next request with a secret meet a trouble, or all of them.
pub fn order(rig: &Rig, secret: &str, trouble: Trouble, times: Option<u64>) {
    let rule = Rule { credential: Some(secret.to_owned()), times, ..Rule::always(trouble) };
    rig.site().troubles.order(rule, Timestamp(0));
}

async fn send(http: &reqwest::Client, rig: &Rig, what: &str, auth: &Value) {
    let filters = json!({"logical_operator": "and", "conditions": []});
    let argument = match what {
        "summarize" => json!({"type": "Shot", "filters": filters, "summaries": [{"field": "id", "type": "count"}]}),
        "schema_read" => json!({}),
        "create" => json!({"type": "Shot", "fields": [], "return_fields": []}),
        "update" => json!({"type": "Shot", "id": 1, "fields": []}),
        "delete" | "revive" => json!({"type": "Shot", "id": 999}),
        "schema_entity_read" => json!({}),
        "schema_field_read" => json!({"type": "Shot"}),
        "follow" => json!({"user": {"type": "HumanUser", "id": 1}, "entity": {"type": "Shot", "id": 1}}),
        "batch" => json!([{"request_type": "delete", "type": "Shot", "id": 999}]),
        _ => shots(),
    };
    let request = match what.split_once(' ') {
        Some(("GET", path)) => http.get(format!("{}{path}", rig.url)).query(&[("key", auth.to_string())]),
        Some(("POST", path)) => http.post(format!("{}{path}", rig.url)).body(auth.to_string()),
        parts => {
            let mut body = json!({"method_name": parts.map_or(what, |(method, _)| method), "params": [auth, argument]});
            let request = http.post(format!("{}/api3/json", rig.url));
            let request = match parts {
                Some((_, "with a cookie")) => request.header("cookie", "_session_id=of-another"),
                Some((_, "with an authorization")) => request.header("authorization", "Bearer of-another"),
                Some(_) => {
                    body["params"] = json!([auth, argument, {"script_name": "of-another"}]);
                    request
                }
                None => request,
            };
            request.json(&body)
        }
    };
    // A connection that the site breaks off is broken off here, too.
    if let Ok(response) = request.send().await {
        let _ = response.text().await;
    }
}

pub async fn read(http: &reqwest::Client, rig: &Rig, auth: &Value) -> (String, String) {
    let body = json!({"method_name": "read", "params": [auth, shots()]});
    let sent = http.post(format!("{}/api3/json", rig.url)).json(&body).send().await.expect("an answer");
    (said(sent.headers()), sent.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_to_anything_opens_the_cache_to_a_wrong_credential() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let mut number = 0;
    for kind in KINDS {
        for (sent, proves) in SENT {
            // Kinds that are never answered need no more than a sample.
            // The simulated site troubles calls of the JSON API only.
            let is_call = !sent.starts_with("GET ") && !sent.starts_with("POST ");
            let answers = if is_call { answers(*proves, !matches!(*kind, "sso" | "two_factor")) } else { vec![None] };
            for trouble in answers {
                number += 1;
                let secret = format!("wrong-{number}");
                let auth = wrong(kind, &secret);
                let context = format!("{kind}, {sent}, {trouble:?}");
                if let Some(trouble) = trouble {
                    // Where a header may hold another credential, the proxy asks a question of its
                    // own, for one row, which meets no answer to that.
                    let page_above = sent.starts_with("read with").then_some(10);
                    let (credential, times) = (Some(secret.clone()), Some(1));
                    let rule = Rule { credential, page_above, times, ..Rule::always(trouble) };
                    rig.site().troubles.order(rule, Timestamp(0));
                }
                send(&http, &rig, sent, &auth).await;
                // Neither while the site fails for it, nor when it answers again.
                order(&rig, &secret, Trouble::Status(503), Some(2));
                for _ in 0..2 {
                    let (how, text) = read(&http, &rig, &auth).await;
                    assert!(!text.contains(ROW), "{context}: {how} {text}");
                }
                rig.site().troubles.clear();
                let (how, text) = read(&http, &rig, &auth).await;
                assert!(!text.contains(ROW) && how != "hit" && how != "stale", "{context}: {how} {text}");
            }
        }
        assert_eq!(rig.site().requests.of(OWNER_QUESTION), 0, "{kind}: asked about a wrong token");
        if let Some(auth) = right(&rig, kind).await {
            let (first, rows) = read(&http, &rig, &auth).await;
            let expected = if *kind == "session_token" { "unknown_caller" } else { "unverified" };
            assert!(first == expected && rows.contains(ROW), "{kind}: {first} {rows}");
            // Calls before whose answers were lost may have written something; until a poll
            // has seen the contrary, the site answers. Whose a session is, is asked beside
            // the caller.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            let (second, again) = loop {
                let answer = read(&http, &rig, &auth).await;
                let is_passing = matches!(answer.0.as_str(), "pending_write" | "unknown_caller" | "unverified");
                if !is_passing || std::time::Instant::now() > deadline {
                    break answer;
                }
            };
            assert!(second == "hit" && again.contains(ROW), "{kind}: {second} {again}");
            rig.site().requests.reset();
        }
    }
    println!("{number} wrong credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_not_good_because_the_site_takes_no_passwords() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    order(&rig, "td", Trouble::Fault(110, "no passwords here".into()), None);
    let auth = json!({"user_login": "td", "user_password": "anything"});
    for _ in 0..3 {
        let (_, headers, answer) = call_with_status(&rig.url, auth.clone(), "read", shots()).await;
        assert_eq!(answer["error_code"], 110, "{answer}");
        assert!(matches!(said(&headers).as_str(), "unverified" | "refused"), "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_two_readers_take_for_different_ones_are_not_learned() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    rig.site().add_script("other", "other-key", true);
    let argument = shots();
    // A site that takes the first of two keys would answer for `other`.
    let rows = json!({"results": {"entities": []}}).to_string();
    order(&rig, "forged", Trouble::Answer { status: 200, body: rows }, Some(1));
    let body = format!(
        r#"{{"method_name":"read","params":[{{"script_name":"other","script_key":"other-key",
            "script_name":"farm","script_key":"forged"}},{argument}]}}"#
    );
    let sent = reqwest::Client::new().post(format!("{}/api3/json", rig.url)).body(body).send().await;
    assert_eq!(said(sent.expect("an answer").headers()), "malformed");
    let forged = json!({"script_name": "farm", "script_key": "forged"});
    rig.site().troubles.clear();
    let (_, headers, answer) = call_with_status(&rig.url, forged, "read", argument).await;
    assert_eq!((said(&headers).as_str(), &answer["error_code"]), ("unverified", &json!(102)));
}

/// Reads, and tells whether the site decided that the credential is not good; until then
/// it must be a hit.
async fn is_refused(http: &reqwest::Client, rig: &Rig, auth: &Value) -> bool {
    let (how, text) = read(http, rig, auth).await;
    let is_refused = how == "refused" || how == "unverified";
    assert!(if is_refused { !text.contains(ROW) } else { how == "hit" }, "{how} {text}");
    is_refused
}

/// Replaces the key of the script `farm` on the site, as revoking it does.
pub fn revoke(rig: &Rig) {
    let found = rig.site().read("ApiUser", &json!([["firstname", "is", "farm"]]), &["firstname"]).expect("a script");
    let id = found[0]["id"].as_i64().expect("an id");
    rig.site().update_silently("ApiUser", id, json!({"salted_password": "another-key"})).expect("a new key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_whatever_it_sends_meanwhile() {
    let settings = Settings { verify_every: Duration::from_millis(500), ..settings() };
    let rig = Rig::start(site(), written(CONFIGS), settings).await;
    let http = reqwest::Client::new();
    let farm = right(&rig, "script").await.expect("a credential");
    until(async || read(&http, &rig, &farm).await.0 == "hit").await;
    revoke(&rig);
    // Hits and answers of methods that need no login go on all the time: only the refusal
    // of a question ends the loop.
    while !is_refused(&http, &rig, &farm).await {
        for what in ["info", "no_such_method", "GET /api/v1/entity/shots"] {
            send(&http, &rig, what, &farm).await;
        }
    }
    let (how, text) = read(&http, &rig, &farm).await;
    assert!(!text.contains(ROW), "{how} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_in_use_is_renewed_before_its_time_is_over() {
    let settings = Settings { verify_every: Duration::from_secs(2), ..settings() };
    let rig = Rig::start(site(), written(CONFIGS), settings).await;
    let (http, farm) = (reqwest::Client::new(), right(&rig, "script").await.expect("a credential"));
    // On a machine that stalls for the last quarter of the time, a read goes to the site
    // after all, and it begins anew.
    'anew: loop {
        until(async || read(&http, &rig, &farm).await.0 == "hit").await;
        rig.site().requests.reset();
        while rig.site().requests.of("read Shot") == 0 {
            if read(&http, &rig, &farm).await.0 != "hit" {
                continue 'anew;
            }
        }
        break;
    }
}

/// Another process over the same data directory, as after a restart.
async fn restarted(rig: &Rig, settings: Settings) -> (String, CancellationToken) {
    let site = shotgun::Settings::new(rig.site_url.clone(), sgcache::api3::Auth::script("sgcache", "sgcache-sim"));
    let schema = rig.replica.client().schema().await.expect("a schema");
    let parts = Parts {
        replica: rig.replica.clone(),
        schema,
        site: &site,
        settings: settings.clone(),
        leader: Leader::Here(Arc::new(|| {})),
        access_log: None,
        ledger: Default::default(),
        differences: None,
    };
    let proxy = Proxy::new(parts).await.expect("a proxy");
    let listener = ApiListener::bind(([127, 0, 0, 1], 0).into(), &settings).await.expect("a free port");
    let (url, stop) = (format!("http://{}", listener.address()), CancellationToken::new());
    let (router, serving, running) = (proxy.router(), stop.clone(), stop.clone());
    let metrics = rig.metrics.clone();
    tokio::spawn(async move { listener.serve(router, &metrics, serving).await });
    tokio::spawn(async move { proxy.run(running).await });
    // A poll after the start shows that no write is on its way any more.
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    until(async || stale_or_not(&url, &own).await.0 == "hit").await;
    (url, stop)
}

async fn stale_or_not(url: &str, auth: &Value) -> (String, HeaderMap, Value) {
    let (_, headers, answer) = call_with_status(url, auth.clone(), "read", shots()).await;
    (said(&headers), headers, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_good_before_a_restart_is_answered_while_the_site_is_away() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let http = reqwest::Client::new();
    let mut credentials = Vec::new();
    for kind in ["script", "login", "session_token", "sudo_as_login"] {
        let auth = right(&rig, kind).await.expect("a credential");
        until(async || read(&http, &rig, &auth).await.0 == "hit").await;
        credentials.push((kind, auth));
    }
    // Whose a session is, is recorded beside the caller.
    let is_recorded = |records: Vec<sgcache::state::CredentialRecord>| {
        records.len() >= credentials.len() && records.iter().any(|record| record.session_owner.is_some())
    };
    until(async || is_recorded(rig.replica.state().credential_records().await.expect("records"))).await;
    let (url, stop) = restarted(&rig, settings()).await;
    rig.site().troubles.next(u32::MAX, Trouble::Status(503));
    for (kind, auth) in credentials {
        let (how, headers, answer) = stale_or_not(&url, &auth).await;
        assert_eq!(how, "stale", "{kind}: {headers:?} {answer}");
        assert_eq!(answer["results"]["entities"][0]["code"], ROW);
        let (how, _, answer) = stale_or_not(&url, &wrong(kind, "wrong")).await;
        let is_passed = how == "unverified" || (kind == "session_token" && how == "unknown_caller");
        assert!(is_passed && !answer.to_string().contains(ROW), "{kind}: {how} {answer}");
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_does_not_make_an_outage_for_a_revoked_key() {
    // A process that has just started knows the credential from the record of the last one.
    for trouble in [Trouble::Status(500), Trouble::DroppedBefore] {
        let rig = Rig::start(site(), written(CONFIGS), settings()).await;
        let (http, farm) = (reqwest::Client::new(), right(&rig, "script").await.expect("a credential"));
        until(async || read(&http, &rig, &farm).await.0 == "hit").await;
        let (url, stop) = restarted(&rig, settings()).await;
        revoke(&rig);
        // The request itself fails, and every other question is answered.
        order(&rig, "farm", trouble, Some(1));
        let (how, _, answer) = stale_or_not(&url, &farm).await;
        assert!(how == "refused" && !answer.to_string().contains(ROW), "{how} {answer}");
        stop.cancel();
    }
}

/// Settings in which a login sees Shots and nothing else, and other logins nothing.
fn limited_login() -> Settings {
    let limits = Limits { types: Some(["Shot".into()].into()), ..Limits::default() };
    Settings { callers: vec![CallerRule { name: CallerName::Login("td".into()), limits }], ..settings() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_scope_of_its_owner() {
    let rig = Rig::start(site(), written(CONFIGS), limited_login()).await;
    let person = json!({"login": "joe", "password_proxy": "joe-word", "name": "J"});
    rig.site().create("HumanUser", person).expect("a person");
    let http = reqwest::Client::new();
    let login = json!({"user_login": "td", "user_password": "td-word"});
    let sudo = json!({"script_name": "sgcache", "script_key": "sgcache-sim", "sudo_as_login": "td"});
    let sessions = [session(&rig, login.clone()).await, session(&rig, sudo.clone()).await];
    for auth in sessions.into_iter().chain([sudo]) {
        until(async || read(&http, &rig, &auth).await.0 == "hit").await;
        let (_, headers, _) =
            call_with_status(&rig.url, auth.clone(), "read", find("Project", json!([]), &["name"])).await;
        assert_eq!(said(&headers), "scope", "{auth}");
    }
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let own = session(&rig, own).await;
    until(async || read(&http, &rig, &own).await.0 == "hit").await;
    let (_, headers, _) = call_with_status(&rig.url, own, "read", find("Project", json!([]), &["name"])).await;
    assert_eq!(said(&headers), "hit");

    let other = session(&rig, json!({"user_login": "joe", "user_password": "joe-word"})).await;
    rig.site().requests.reset();
    while rig.site().requests.of("read HumanUser") == 0 {
        assert_eq!(read(&http, &rig, &other).await.0, "unknown_caller");
    }
    for _ in 0..5 {
        assert_eq!(read(&http, &rig, &other).await.0, "unknown_caller");
    }
    assert_eq!(rig.site().requests.of(OWNER_QUESTION), 1);
    let joe = json!({"script_name": "sgcache", "script_key": "sgcache-sim", "sudo_as_login": "joe"});
    for _ in 0..3 {
        assert_eq!(read(&http, &rig, &joe).await.0, "unknown_caller");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_opened_here_belongs_to_the_caller_who_opened_it() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let http = reqwest::Client::new();
    let login = right(&rig, "login").await.expect("a credential");
    let early = session_at(&rig.url, login.clone()).await;
    until(async || read(&http, &rig, &login).await.0 == "hit").await;
    let auth = session_at(&rig.url, login.clone()).await;
    let (how, rows) = read(&http, &rig, &auth).await;
    assert!(how == "unverified" && rows.contains(ROW), "{how} {rows}");
    assert_eq!(read(&http, &rig, &auth).await.0, "hit");
    assert_eq!(rig.site().requests.of(OWNER_QUESTION), 0);
    // Before the site had accepted the password elsewhere, its answer proved nothing here.
    assert_eq!(read(&http, &rig, &early).await.0, "unknown_caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_is_refused() {
    let settings = Settings { verify_every: Duration::from_millis(500), ..settings() };
    let rig = Rig::start(site(), written(CONFIGS), settings).await;
    let http = reqwest::Client::new();
    let auth = right(&rig, "session_token").await.expect("a credential");
    until(async || read(&http, &rig, &auth).await.0 == "hit").await;
    rig.site().end_sessions();
    until(async || is_refused(&http, &rig, &auth).await).await;
    let (how, text) = read(&http, &rig, &auth).await;
    assert!(!text.contains(ROW), "{how} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_does_not_say_whose_a_session_is_answers_itself() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let rule = Rule {
        method: Some(OWNER_QUESTION.to_owned()),
        ..Rule::always(Trouble::Answer { status: 400, body: r#"{"errors":[]}"#.to_owned() })
    };
    rig.site().troubles.order(rule, Timestamp(0));
    let http = reqwest::Client::new();
    let auth = right(&rig, "session_token").await.expect("a credential");
    while rig.site().requests.of(OWNER_QUESTION) == 0 {
        assert_eq!(read(&http, &rig, &auth).await.0, "unknown_caller");
    }
    let (how, rows) = read(&http, &rig, &auth).await;
    assert!(how == "unknown_caller" && rows.contains(ROW), "{how} {rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_first_requests_of_a_credential_one_goes_to_the_site() {
    let rig = Rig::start(site(), written(CONFIGS), Settings { patience: Duration::from_secs(60), ..settings() }).await;
    rig.site().requests.reset();
    let farm = right(&rig, "script").await.expect("a credential");
    let reads = (0..40).map(|number| {
        let argument = find("Shot", json!([["id", "less_than", 1000 + number]]), &["code"]);
        call_with_status(&rig.url, farm.clone(), "read", argument)
    });
    let answers = futures::future::join_all(reads).await;
    let passed = answers.iter().filter(|(_, headers, _)| said(headers) == "unverified").count();
    let served = answers.iter().filter(|(_, headers, _)| said(headers) == "hit").count();
    assert_eq!((passed, served), (1, 39));
    assert!(answers.iter().all(|(status, _, answer)| *status == 200 && answer.to_string().contains(ROW)));
    assert_eq!(rig.site().requests.of("read Shot"), 1);

    // A wrong one is refused as often as before, and by one question.
    rig.site().requests.reset();
    let wrong = wrong("script", "no-key");
    let reads = (0..40).map(|number| {
        let argument = find("Shot", json!([["id", "less_than", 1000 + number]]), &["code"]);
        call_with_status(&rig.url, wrong.clone(), "read", argument)
    });
    for (_, _, answer) in futures::future::join_all(reads).await {
        assert!(!answer.to_string().contains(ROW) && answer["exception"] == true, "{answer}");
    }
    assert_eq!(rig.site().requests.of("read Shot"), 1);
}
