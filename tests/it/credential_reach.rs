//! What a credential reaches that the site has not accepted, or not lately: no method is
//! answered to it, no request of another caller carries it along, and no answer but one
//! that proves it keeps it good.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::Timestamp;
use sgcache::proxy::Settings;
use sgcache::sim::Trouble;
use sgcache::sim::faults::{Latency, Rule};

use crate::proxy_credentials::{CONFIGS, KINDS, ROW, order, read, revoke, right, settings, shots, site, wrong};
use crate::proxy_rig::{Rig, call_with_status, find, said, written};
use crate::waiting::until;

/// Calls of every method that needs a login and that the cache answers.
fn calls() -> Vec<(&'static str, Value)> {
    let filters = json!({"logical_operator": "and", "conditions": []});
    let count = json!({"type": "Shot", "filters": filters, "summaries": [{"field": "id", "type": "count"}]});
    vec![
        ("read", shots()),
        ("summarize", count),
        ("schema_read", json!({})),
        ("schema_entity_read", json!({})),
        ("schema_field_read", json!({"type": "Shot"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_is_answered_to_a_credential_that_is_not_proved() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    for (method, argument) in calls() {
        // The schema has to be read once before the cache has it.
        for _ in 0..2 {
            call_with_status(&rig.url, own.clone(), method, argument.clone()).await;
        }
        let (_, headers, _) = call_with_status(&rig.url, own.clone(), method, argument.clone()).await;
        assert_eq!(said(&headers), "hit", "{method}");
        for kind in KINDS {
            let auth = wrong(kind, &format!("wrong-{kind}-{method}"));
            for _ in 0..2 {
                let (_, headers, answer) = call_with_status(&rig.url, auth.clone(), method, argument.clone()).await;
                let is_cached = ["hit", "stale"].contains(&said(&headers).as_str());
                assert!(!is_cached && answer["exception"] == true, "{kind} {method}: {headers:?} {answer}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_credential_does_not_share_the_request_of_a_right_one() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let http = reqwest::Client::new();
    for kind in ["script", "login", "session_token", "sudo_as_login"] {
        let (right, wrong) = (right(&rig, kind).await.expect("a credential"), wrong(kind, "wrong"));
        rig.site().requests.reset();
        // The same question; that of the right one is at the site for a while.
        order(&rig, "", Trouble::Slow(Duration::from_millis(500).into()), Some(1));
        let first = read(&http, &rig, &right);
        let second = async {
            until(async || rig.site().requests.of("read Shot") > 0).await;
            read(&http, &rig, &wrong).await
        };
        let ((_, rows), (how, answer)) = tokio::join!(first, second);
        assert!(rows.contains(ROW), "{kind}: {rows}");
        assert!(!answer.contains(ROW) && how != "hit", "{kind}: {how} {answer}");
        // Nor has it learned anything from that answer.
        let (how, answer) = read(&http, &rig, &wrong).await;
        assert!(!answer.contains(ROW) && how != "hit", "{kind}: {how} {answer}");
        rig.site().troubles.clear();
    }
}

/// A site may find another credential, or another request, in a header: its answer must
/// prove nothing of the credential in the body.
#[tokio::test(flavor = "multi_thread")]
async fn no_header_carries_a_wrong_credential_along() {
    let rig = Rig::start(site(), written(CONFIGS), settings()).await;
    let http = reqwest::Client::new();
    let rows = format!(r#"{{"results":{{"entities":[{{"type":"Shot","id":1,"code":"{ROW}"}}]}}}}"#);
    for header in ["x-sg-session-token", "x-http-method-override", "authorization", "cookie", "x-of-this-site"] {
        for plain_first in [false, true] {
            let secret = format!("wrong-{header}-{plain_first}");
            let auth = wrong("script", &secret);
            rig.site().requests.reset();
            rig.site().troubles.delay(Latency::Fixed(Duration::from_millis(300)));
            let with_header = async {
                let body = json!({"method_name": "read", "params": [auth, shots()]});
                let request = http.post(format!("{}/api3/json", rig.url)).header(header, "of-another").json(&body);
                request.send().await.expect("an answer").text().await.expect("a body")
            };
            // What the site finds in the header is good.
            let good = || {
                let trouble = Rule::always(Trouble::Answer { status: 200, body: rows.clone() });
                // Not the question of the proxy itself, which has no such header.
                let rule = Rule { credential: Some(secret.clone()), page_above: Some(10), times: Some(1), ..trouble };
                rig.site().troubles.order(rule, Timestamp(0));
            };
            let arrived = async || until(async || rig.site().requests.of("read Shot") > 0).await;
            let (how, text) = if plain_first {
                let after = async {
                    arrived().await;
                    with_header.await
                };
                let (plain, shown) = tokio::join!(read(&http, &rig, &auth), after);
                assert!(!shown.contains(ROW), "{header}: {shown}");
                // Its own question may have been asked as well, so requests are not counted.
                let shared = rig.counted("sgcache_proxy_coalesced_total", &[]);
                assert_eq!(shared, 0.0, "{header}: it shared the answer to another");
                plain
            } else {
                good();
                let after = async {
                    arrived().await;
                    read(&http, &rig, &auth).await
                };
                let (shown, after) = tokio::join!(with_header, after);
                assert!(shown.contains(ROW), "{header}: the site has answered that one: {shown}");
                after
            };
            assert!(!text.contains(ROW) && how != "hit", "{header}, {plain_first}: {how} {text}");
            rig.site().troubles.delay(Latency::NONE);
            rig.site().troubles.clear();
            for _ in 0..3 {
                let (how, text) = read(&http, &rig, &auth).await;
                assert!(!text.contains(ROW) && how != "hit", "{header}, {plain_first}: {how} {text}");
            }
        }
    }
    // A right one is proved by a question of the proxy itself.
    let body = json!({"method_name": "read", "params": [right(&rig, "script").await, shots()]});
    until(async || {
        let request = http.post(format!("{}/api3/json", rig.url)).header("x-of-this-site", "1").json(&body);
        said(request.send().await.expect("an answer").headers()) == "hit"
    })
    .await;
}

/// The bounds of the proxy are no silence of the site, by which a key would live on.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_a_free_slot_is_no_outage_for_a_revoked_key() {
    let settings = Settings { max_upstream: 1, verify_every: Duration::from_millis(500), ..settings() };
    let rig = Rig::start(site(), written(CONFIGS), settings).await;
    let (http, farm) = (reqwest::Client::new(), right(&rig, "script").await.expect("a credential"));
    until(async || read(&http, &rig, &farm).await.0 == "hit").await;
    // The only slot is taken by the question of another caller, for as long as this goes on.
    order(&rig, "slow-key", Trouble::Slow(Duration::from_secs(600).into()), None);
    let body =
        json!({"method_name": "read", "params": [wrong("script", "slow-key"), find("Task", json!([]), &["id"])]});
    let slow = tokio::spawn(http.post(format!("{}/api3/json", rig.url)).json(&body).send());
    until(async || rig.site().requests.of("read Task") > 0).await;
    revoke(&rig);
    loop {
        let (how, text) = read(&http, &rig, &farm).await;
        if how != "hit" {
            assert!(["refused", "unverified"].contains(&how.as_str()) && !text.contains(ROW), "{how} {text}");
            break;
        }
    }
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_ends_when_no_answer_renews_it_although_it_is_used() {
    let settings = Settings { verify_every: Duration::from_secs(1), ..settings() };
    let rig = Rig::start(site(), written(CONFIGS), settings).await;
    let http = reqwest::Client::new();
    let farm = right(&rig, "script").await.expect("a credential");
    until(async || read(&http, &rig, &farm).await.0 == "hit").await;
    revoke(&rig);
    // Every question meets a fault that says nothing about the key.
    order(&rig, "farm", Trouble::Fault(104, "no".into()), None);
    rig.site().requests.reset();
    loop {
        let (how, text) = read(&http, &rig, &farm).await;
        if how == "unverified" {
            assert!(!text.contains(ROW), "{text}");
            break;
        }
        assert_eq!(how, "hit", "{text}");
        // One question in each sixteenth of the last quarter of its time.
        let asked = rig.site().requests.of("read Shot");
        assert!(asked < 20, "it was asked {asked} times and goes on");
    }
    let (how, text) = read(&http, &rig, &farm).await;
    assert!(how == "unverified" && !text.contains(ROW), "{how} {text}");
}
