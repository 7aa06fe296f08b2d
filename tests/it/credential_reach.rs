//! What a credential reaches that the site has not accepted, or not lately: no method is
//! answered to it, no request of another caller carries it along, and no answer but one
//! that proves it keeps it good.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::proxy::Settings;
use sgcache::sim::Trouble;

use crate::proxy_credentials::{CONFIGS, KINDS, ROW, order, read, revoke, right, settings, shots, site, wrong};
use crate::proxy_rig::{Rig, call_with_status, said, written};
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
