//! Who asks, what they may see, and whether the site knows them.
//!
//! Credentials are known here by a keyed hash whose key is drawn at the start of
//! the process: nothing that is kept can be turned back into a secret. Whether a
//! credential is good the site says: the first request with it goes there, and
//! what came of it is remembered, for minutes when it was good, for seconds when
//! not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::Value;

use super::decide::Scope;
use super::reason::{Advice, Pass, Reason};
use super::settings::{CallerName, CallerRule};
use super::upstream::BufferedResponse;
use crate::api3::{Auth, Fault};

/// How long a credential that the site accepted is not asked about again.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// How long a refusal is repeated without asking.
const BAD_FOR: Duration = Duration::from_secs(10);
/// How long a credential that was good is believed while the site is down.
const GOOD_WHILE_DOWN: Duration = Duration::from_secs(8 * 3600);
/// More credentials than this are not remembered.
const MOST: usize = 10_000;
/// What the authentication object may hold besides the credentials.
const HARMLESS: &[&str] = &["session_uuid", "product", "reject_if_expired"];

/// The hash of a credential.
pub(super) type Digest = [u8; 32];

/// Somebody who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The hash of the credential.
    pub digest: Digest,
    /// For the access log: never a secret.
    pub name: String,
    /// What they may see.
    pub scope: Scope,
}

/// Whether the site knows a credential.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It does.
    Good,
    /// It does not; this is what it answered.
    Bad(Arc<BufferedResponse>),
    /// It was not asked lately.
    Unknown,
}

enum Seen {
    Good(Instant),
    Bad(Instant, Arc<BufferedResponse>),
}

/// The callers.
pub(super) struct Callers {
    key: hmac::Key,
    own: Digest,
    rules: Vec<CallerRule>,
    seen: Mutex<HashMap<Digest, Seen>>,
}

impl Callers {
    /// Makes the list of those who are answered; `own` are the credentials of the
    /// cache itself.
    pub fn new(own: &Auth, rules: Vec<CallerRule>) -> Self {
        let bytes: [u8; 32] = rand::random();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let own = digest(&key, &identity(own).unwrap_or_default());
        Self { key, own, rules, seen: Mutex::default() }
    }

    /// Returns the keyed hash of some bytes.
    pub fn digest(&self, bytes: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in bytes {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        to_digest(context.sign().as_ref())
    }

    /// Tells who asks with these credentials.
    pub fn identify(&self, auth: Option<&Auth>) -> Caller {
        let stranger = |name: String, why: &str| Caller {
            digest: Digest::default(),
            name,
            scope: Scope::Nothing(Pass::new(Reason::UnknownCaller, why).advise(Advice::MapCaller)),
        };
        let Some(auth) = auth else {
            return stranger("nobody".into(), "the request has no credentials");
        };
        let name = shown(auth);
        if auth.sudo_as_login().is_some() {
            return stranger(name, "the caller acts in the name of somebody else");
        }
        let Some(identity) = identity(auth) else {
            return stranger(name, "the credentials are of a kind that only the site can judge");
        };
        let digest = digest(&self.key, &identity);
        if digest == self.own {
            return Caller { digest, name, scope: Scope::Full };
        }
        let wanted = match (auth.script_name(), auth.user_login()) {
            (Some(script), None) => CallerName::Script(script.to_owned()),
            (_, login) => CallerName::Login(login.unwrap_or_default().to_owned()),
        };
        match self.rules.iter().find(|rule| rule.name == wanted) {
            Some(rule) if rule.limits.is_full() => Caller { digest, name, scope: Scope::Full },
            Some(rule) => Caller { digest, name, scope: Scope::Limited(rule.limits.clone()) },
            None => {
                let why = format!("{wanted} is neither the script of the cache nor mapped to a scope");
                Caller { digest, ..stranger(name, &why) }
            }
        }
    }

    /// Tells whether the site knows a credential.
    pub fn known(&self, digest: &Digest, site_is_down: bool) -> Known {
        let good_for = if site_is_down { GOOD_WHILE_DOWN } else { GOOD_FOR };
        match self.seen().get(digest) {
            Some(Seen::Good(at)) if at.elapsed() < good_for => Known::Good,
            Some(Seen::Bad(at, answer)) if at.elapsed() < BAD_FOR => Known::Bad(Arc::clone(answer)),
            _ => Known::Unknown,
        }
    }

    /// Learns from what the site answered to somebody who is mapped.
    pub fn learn(&self, caller: &Caller, answer: &Arc<BufferedResponse>) {
        if matches!(caller.scope, Scope::Nothing(_)) || !answer.status.is_success() {
            return;
        }
        let Ok(body) = serde_json::from_slice::<Head>(&answer.body) else { return };
        let seen = if body.error_code == Some(Fault::AUTHENTICATION) {
            Seen::Bad(Instant::now(), Arc::clone(answer))
        } else {
            Seen::Good(Instant::now())
        };
        let mut all = self.seen();
        if all.len() >= MOST {
            all.retain(|_, seen| matches!(seen, Seen::Good(at) if at.elapsed() < GOOD_WHILE_DOWN));
        }
        if all.len() < MOST {
            all.insert(caller.digest, seen);
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Digest, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of an answer that tells a refusal.
#[derive(serde::Deserialize)]
struct Head {
    #[serde(default)]
    error_code: Option<i64>,
}

/// Returns what identifies a caller, or `None` when only the site can tell: session
/// tokens, second factors, several kinds at once, keys that nothing here knows.
fn identity(auth: &Auth) -> Option<Vec<u8>> {
    let Value::Object(object) = auth.to_wire() else { return None };
    let mut kept: Vec<(&String, &Value)> = object.iter().filter(|(key, _)| !HARMLESS.contains(&key.as_str())).collect();
    kept.sort_by_key(|(key, _)| key.as_str());
    let names: Vec<&str> = kept.iter().map(|(key, _)| key.as_str()).collect();
    let script = names == ["script_key", "script_name"];
    let person = names == ["user_login", "user_password"];
    let texts = kept.iter().all(|(_, value)| value.is_string());
    ((script || person) && texts).then(|| {
        Value::from_iter(kept.into_iter().map(|(k, v)| Value::from(vec![k.as_str().into(), v.clone()])))
            .to_string()
            .into_bytes()
    })
}

fn shown(auth: &Auth) -> String {
    let name = match (auth.user_login(), auth.script_name(), auth.session_token()) {
        (Some(login), ..) => format!("login {login}"),
        (None, Some(script), _) => format!("script {script}"),
        (None, None, Some(_)) => "a session".to_owned(),
        _ => "nobody".to_owned(),
    };
    match auth.sudo_as_login() {
        Some(login) => format!("{name} as {login}"),
        None => name,
    }
}

fn digest(key: &hmac::Key, bytes: &[u8]) -> Digest {
    to_digest(hmac::sign(key, bytes).as_ref())
}

fn to_digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&bytes[..32]);
    digest
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::super::settings::Limits;
    use super::*;

    fn auth(value: Value) -> Auth {
        Auth::from_wire(&value).expect("an object")
    }

    fn callers() -> Callers {
        let limits = Limits { types: Some(["Shot".into()].into()), ..Limits::default() };
        let rules = vec![
            CallerRule { name: CallerName::Script("farm".into()), limits },
            CallerRule { name: CallerName::Login("td".into()), limits: Limits::default() },
        ];
        Callers::new(&Auth::script("sgcache", "key"), rules)
    }

    fn scope(value: Value) -> &'static str {
        match callers().identify(Some(&auth(value))).scope {
            Scope::Full => "full",
            Scope::Limited(_) => "limited",
            Scope::Nothing(_) => "nothing",
        }
    }

    #[test]
    fn only_the_own_key_and_mapped_callers_see_the_cache() {
        assert_eq!(scope(json!({"script_name": "sgcache", "script_key": "key"})), "full");
        let extra = json!({"script_name": "sgcache", "script_key": "key", "session_uuid": "u", "product": "rv"});
        assert_eq!(scope(extra), "full");
        assert_eq!(scope(json!({"script_name": "sgcache", "script_key": "other"})), "nothing");
        assert_eq!(scope(json!({"script_name": "farm", "script_key": "x"})), "limited");
        assert_eq!(scope(json!({"user_login": "td", "user_password": "x"})), "full");
        assert_eq!(scope(json!({"user_login": "joe", "user_password": "x"})), "nothing");
        assert_eq!(scope(json!({"session_token": "t"})), "nothing");
        assert_eq!(scope(json!({"script_name": "sgcache", "script_key": "key", "sudo_as_login": "td"})), "nothing");
        assert_eq!(scope(json!({"script_name": "sgcache", "script_key": "key", "user_login": "td"})), "nothing");
        assert_eq!(scope(json!({"user_login": "td", "user_password": "x", "auth_token": "1"})), "nothing");
        assert_eq!(scope(json!({})), "nothing");
    }

    fn answer(body: Value) -> Arc<BufferedResponse> {
        Arc::new(BufferedResponse { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_string().into() })
    }

    #[test]
    fn the_site_says_who_is_good() {
        let callers = callers();
        let caller = callers.identify(Some(&Auth::script("farm", "x")));
        assert!(matches!(callers.known(&caller.digest, false), Known::Unknown));
        callers.learn(&caller, &answer(json!({"exception": true, "error_code": 102, "message": "no"})));
        assert!(matches!(callers.known(&caller.digest, false), Known::Bad(_)));
        callers.learn(&caller, &answer(json!({"exception": true, "error_code": 104, "message": "a fault"})));
        assert!(matches!(callers.known(&caller.digest, false), Known::Good));
        let other = callers.identify(Some(&Auth::script("farm", "y")));
        assert!(matches!(callers.known(&other.digest, true), Known::Unknown));
        assert!(!format!("{caller:?}").contains("\"x\""));
    }
}
