//! Who is identified as what, and how long an acceptance holds.

use std::time::Instant;

use axum::http::StatusCode;
use serde_json::Value;

use super::super::settings::Limits;
use super::*;

fn auth(value: &Value) -> Auth {
    Auth::from_wire(value).expect("an object")
}

fn farm(key: &str) -> Auth {
    Auth::script("farm", key)
}

fn settings() -> Settings {
    let limits = Limits { types: Some(["Shot".into()].into()), ..Limits::default() };
    let rules = vec![
        CallerRule { name: CallerName::Script("farm".into()), limits },
        CallerRule { name: CallerName::Login("td".into()), limits: Limits::default() },
    ];
    Settings { callers: rules, ..Settings::default() }
}

async fn callers_in(directory: &std::path::Path, settings: &Settings) -> Callers {
    let state = State::open(directory).await.expect("a state");
    Callers::new(&Auth::script("sgcache", "key"), settings, state, SiteClock::default()).await
}

fn answer(body: &str) -> Arc<BufferedResponse> {
    let (status, headers, body) = (StatusCode::OK, HeaderMap::new(), body.to_owned().into());
    Arc::new(BufferedResponse { status, headers, body, asked_at: Instant::now() })
}

const ROWS: &str = r#"{"results":{"entities":[]}}"#;
const REFUSAL: &str = r#"{"exception":true,"error_code":102,"message":"no"}"#;

#[tokio::test]
async fn only_the_own_key_and_mapped_callers_see_the_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let callers = callers_in(directory.path(), &settings()).await;
    let cases = [
        (json!({"script_name": "sgcache", "script_key": "key"}), "full"),
        (json!({"script_name": "sgcache", "script_key": "key", "session_uuid": "u", "product": "rv"}), "full"),
        (json!({"script_name": "sgcache", "script_key": "other"}), "nothing"),
        (json!({"script_name": "farm", "script_key": "x"}), "limited"),
        (json!({"user_login": "td", "user_password": "x"}), "full"),
        (json!({"user_login": "joe", "user_password": "x"}), "nothing"),
        (json!({"script_name": "td", "script_key": "x"}), "nothing"),
        (json!({"session_token": "t"}), "nothing"),
        (json!({"session_token": "t", "sudo_as_login": "td"}), "nothing"),
        (json!({"script_name": "sgcache", "script_key": "key", "sudo_as_login": "td"}), "full"),
        (json!({"script_name": "sgcache", "script_key": "key", "sudo_as_login": "joe"}), "nothing"),
        (json!({"script_name": "sgcache", "script_key": "key", "sudo_as_login": null}), "nothing"),
        (json!({"user_login": "td", "user_password": "x", "sudo_as_login": "td"}), "nothing"),
        (json!({"script_name": "sgcache", "script_key": "key", "user_login": "td"}), "nothing"),
        (json!({"script_name": "sgcache", "script_key": "key", "session_token": "t"}), "nothing"),
        (json!({"user_login": "td", "user_password": "x", "auth_token": "1"}), "nothing"),
        (json!({"script_name": "farm", "script_key": null}), "nothing"),
        (json!({"script_name": "farm"}), "nothing"),
        (json!({}), "nothing"),
    ];
    for (value, expected) in cases {
        let scope = match callers.identify(Some(&auth(&value))).scope {
            Scope::Full => "full",
            Scope::Limited(_) => "limited",
            Scope::Nothing(_) => "nothing",
        };
        assert_eq!(scope, expected, "{value}");
    }
}

#[tokio::test]
async fn a_successful_answer_accepts_and_the_later_question_counts() {
    let directory = tempfile::tempdir().expect("a directory");
    let callers = callers_in(directory.path(), &settings()).await;
    let caller = callers.identify(Some(&farm("x")));
    let (early, late) = (answer(ROWS), answer(REFUSAL));
    for body in ["{}", r#"{"exception":true,"error_code":104,"message":"a fault"}"#] {
        callers.learn(&caller, "read", &answer(body)).await;
        assert!(matches!(callers.check(&caller, None), Err(Unverified::Pass(_))), "{body}");
    }
    callers.learn(&caller, "info", &answer(ROWS)).await;
    assert!(matches!(callers.check(&caller, None), Err(Unverified::Pass(_))));
    callers.learn(&caller, "read", &late).await;
    assert!(matches!(callers.check(&caller, None), Err(Unverified::Refused(_))));
    callers.learn(&caller, "read", &early).await;
    assert!(matches!(callers.check(&caller, None), Err(Unverified::Refused(_))), "an older answer came later");
    callers.learn(&caller, "read", &answer(ROWS)).await;
    assert!(callers.check(&caller, None).is_ok());
    callers.learn(&caller, "read", &late).await;
    assert!(callers.check(&caller, None).is_ok(), "an older refusal came later");
    let other = callers.identify(Some(&farm("y")));
    assert!(callers.check(&other, None).is_err() && callers.check(&other, Some(None)).is_err());
    assert!(!format!("{caller:?}").contains("\"x\""));
}

#[tokio::test]
async fn an_acceptance_ends_and_one_caller_renews_it_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let none = Settings { verify_every: Duration::ZERO, ..settings() };
    let callers = callers_in(directory.path(), &none).await;
    let caller = callers.identify(Some(&farm("x")));
    callers.learn(&caller, "read", &answer(ROWS)).await;
    assert!(callers.check(&caller, None).is_err(), "its time is over");
    assert!(callers.check(&caller, Some(None)).is_ok(), "the site does not answer");

    let short = Settings { verify_every: Duration::from_secs(8), ..settings() };
    let ago = |seconds: u64| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("uptime");
    let asked = |asked_at| Arc::new(BufferedResponse { asked_at, ..BufferedResponse::clone(&answer(ROWS)) });
    let callers = callers_in(directory.path(), &short).await;
    callers.learn(&caller, "read", &asked(ago(2))).await;
    assert!(callers.check(&caller, None).is_ok() && !callers.claim_renewal(&caller));
    let callers = callers_in(directory.path(), &short).await;
    callers.learn(&caller, "read", &asked(ago(7))).await;
    // Answers that prove nothing do not put the renewal off.
    callers.learn(&caller, "info", &answer(ROWS)).await;
    callers.learn(&caller, "read", &answer(r#"{"exception":true,"error_code":104,"message":"a fault"}"#)).await;
    // No assertion on `check`: on a slow machine the last second may be over.
    let claims = (0..5).filter(|_| callers.claim_renewal(&caller)).count();
    assert_eq!(claims, 1);
}

#[tokio::test]
async fn wrong_keys_do_not_make_a_good_one_be_forgotten() {
    let directory = tempfile::tempdir().expect("a directory");
    let callers = callers_in(directory.path(), &settings()).await;
    let good = callers.identify(Some(&farm("good")));
    callers.learn(&good, "read", &answer(ROWS)).await;
    for number in 0..12_000 {
        let wrong = callers.identify(Some(&farm(&number.to_string())));
        callers.learn(&wrong, "read", &answer(REFUSAL)).await;
    }
    assert!(callers.check(&good, None).is_ok());
}

#[tokio::test]
async fn after_a_restart_the_accepted_are_known_while_the_site_does_not_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let (good, revoked) = (farm("s3cr3t-good"), Auth::from_wire(&json!({"user_login": "td", "user_password": "x"})));
    let revoked = revoked.expect("an object");
    let own = Auth::script("sgcache", "key");
    let (callers, now) = (callers_in(directory.path(), &settings()).await, SiteClock::default().now());
    for auth in [&good, &revoked] {
        callers.learn(&callers.identify(Some(auth)), "read", &answer(ROWS)).await;
    }
    callers.learn(&callers.identify(Some(&revoked)), "read", &answer(REFUSAL)).await;
    for entry in std::fs::read_dir(directory.path()).expect("a directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(9).any(|bytes| bytes == b"s3cr3t-go"), "a secret on the disk");
    }

    let directory = directory.path();
    let soon = now.after(Duration::from_secs(3600));
    assert!(is_known_later(directory, &settings(), &good, soon).await);
    assert!(is_known_later(directory, &settings(), &own, soon).await);
    assert!(!is_known_later(directory, &settings(), &farm("wrong"), soon).await);
    assert!(!is_known_later(directory, &settings(), &revoked, soon).await);
    let late = now.after(Duration::from_secs(9 * 3600));
    assert!(!is_known_later(directory, &settings(), &good, late).await, "too long before");
    let mut other = settings();
    other.callers[0].limits.types = None;
    assert!(!is_known_later(directory, &other, &good, soon).await, "another scope");
    std::fs::remove_file(directory.join(credential_key::FILE_NAME)).expect("a file");
    assert!(!is_known_later(directory, &settings(), &good, soon).await, "another key");
    assert!(is_known_later(directory, &settings(), &own, soon).await);
}

/// Restarts, and tells whether a credential is known while the site does not answer.
async fn is_known_later(directory: &std::path::Path, settings: &Settings, auth: &Auth, until: SiteTime) -> bool {
    let callers = callers_in(directory, settings).await;
    let caller = callers.identify(Some(auth));
    assert!(callers.check(&caller, None).is_err(), "the site answers, so it is asked");
    callers.check(&caller, Some(Some(until))).is_ok()
}

#[tokio::test]
async fn the_own_credential_is_known_in_an_outage_unless_it_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let callers = callers_in(directory.path(), &settings()).await;
    let own = callers.identify(Some(&Auth::script("sgcache", "key")));
    assert!(callers.check(&own, None).is_err() && callers.check(&own, Some(None)).is_ok());
    let long = format!(r#"{{"exception":true,"error_code":102,"message":"{}"}}"#, "x".repeat(5000));
    callers.learn(&own, "read", &answer(&long)).await;
    assert!(callers.check(&own, Some(None)).is_err());
    callers.learn(&own, "read", &answer(ROWS)).await;
    assert!(callers.check(&own, None).is_ok());
}
