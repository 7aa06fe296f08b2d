//! Who asks, what they may see, and whether the site knows them.
//!
//! A caller is found by the name in its credential (`api.callers`), which proves nothing:
//! whether the credential is good the site says (`credential_proof`), and what it said
//! last is remembered here (`credential_cache`) and, for outages, in the state. Digests
//! of credentials are keyed with a key that survives a restart (`credential_key`); those
//! of requests with one that does not, because nothing of them is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use ring::hmac;
use serde_json::json;

pub(super) use super::credential::Digest;
use super::credential::{self, Credential};
use super::credential_cache::{CredentialCache, CredentialStatus, RecordChange};
use super::credential_key;
use super::credential_proof::Proof;
use super::decide::Scope;
use super::reason::{Advice, Pass, Reason};
use super::settings::{CallerRule, Settings};
use super::upstream::{BufferedResponse, Outgoing, Unreachable, Upstream};
use crate::api3::{self, Auth};
use crate::state::{CredentialRecord, SiteTime, State, StateError};
use crate::sync::SiteClock;

/// Headers with which a site may take a request for that of another caller, or read
/// another request in it.
const IDENTIFYING_HEADERS: &[&str] =
    &["authorization", "cookie", "content-encoding", "x-http-method-override", "x-sg-session-token"];
/// How long a question about a credential may take while an older answer is at hand.
const OUTAGE_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long any other one may take.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The digest of the credential; zeros for callers that the cache does not answer.
    pub digest: Digest,
    /// For the access log: never a secret.
    pub name: String,
    /// What they may see.
    pub scope: Scope,
}

impl Caller {
    /// Returns the scope as the state records it: an acceptance holds for that scope.
    fn scope_record(&self) -> String {
        match &self.scope {
            Scope::Full => "full".to_owned(),
            // A hash that changes between builds only costs another question.
            Scope::Limited(limits) => format!("{:016x}", xxhash_rust::xxh3::xxh3_64(format!("{limits:?}").as_bytes())),
            Scope::Nothing(_) => "nothing".to_owned(),
        }
    }
}

/// The callers that the cache answers, and their credentials.
pub(super) struct Callers {
    credential_key: hmac::Key,
    request_key: hmac::Key,
    own: Option<Digest>,
    rules: Vec<CallerRule>,
    credentials: CredentialCache,
    clock: SiteClock,
    /// Locked while a record changes: a removal is never overtaken by an older record.
    recording: tokio::sync::Mutex<State>,
}

impl Callers {
    /// Reads what is known from before; `own` is the credential of the replica.
    pub async fn new(own: &Auth, settings: &Settings, state: State, clock: SiteClock) -> Self {
        let (credential_key, is_kept) = credential_key::load(state.directory());
        let records = match state.credential_records().await {
            Ok(records) if is_kept => records,
            // Under another key: they match no credential.
            Ok(_) => {
                if let Err(error) = state.clear_credentials().await {
                    tracing::warn!(%error, "records of credentials under another key could not be removed");
                }
                Vec::new()
            }
            Err(error) => {
                tracing::warn!(%error, "records of credentials could not be read");
                Vec::new()
            }
        };
        let own = Credential::of(own).map(|own| own.digest(&credential_key));
        let request_key: [u8; 32] = rand::random();
        Self {
            credentials: CredentialCache::new(settings.verify_every, own, records),
            request_key: hmac::Key::new(hmac::HMAC_SHA256, &request_key),
            rules: settings.callers.clone(),
            recording: tokio::sync::Mutex::new(state),
            credential_key,
            own,
            clock,
        }
    }

    /// Returns the keyed hash of parts of a request.
    pub fn request_digest(&self, parts: &[&[u8]]) -> Digest {
        credential::digest(&self.request_key, parts)
    }

    /// Tells who asks with these credentials.
    pub fn identify(&self, auth: Option<&Auth>) -> Caller {
        let unknown = |name: String, why: &str| Caller {
            digest: Digest::default(),
            name,
            scope: Scope::Nothing(Pass::new(Reason::UnknownCaller, why).advise(Advice::MapCaller)),
        };
        let Some(auth) = auth else {
            return unknown("anonymous".into(), "the request has no credentials");
        };
        let name = display_name(auth);
        let Some(credential) = Credential::of(auth) else {
            return unknown(name, "only the site can judge credentials of this kind");
        };
        let digest = credential.digest(&self.credential_key);
        if self.own == Some(digest) {
            return Caller { digest, name, scope: Scope::Full };
        }
        match self.rules.iter().find(|rule| rule.name == credential.name) {
            Some(rule) if rule.limits.is_full() => Caller { digest, name, scope: Scope::Full },
            Some(rule) => Caller { digest, name, scope: Scope::Limited(rule.limits.clone()) },
            None => {
                let why = format!("{} is neither the script of the cache nor in `api.callers`", credential.name);
                unknown(name, &why)
            }
        }
    }

    /// Checks that the site accepted the credential of a caller lately.
    ///
    /// `outage` is given while the site does not answer: the moment up to which the replica
    /// followed it.
    ///
    /// # Errors
    ///
    /// The refusal of the site, or why the request goes to the site.
    pub fn check(&self, caller: &Caller, outage: Option<Option<SiteTime>>) -> Result<(), Unverified> {
        if let Scope::Nothing(pass) = &caller.scope {
            return Err(Unverified::Pass(pass.clone()));
        }
        match self.credentials.status(&caller.digest) {
            CredentialStatus::Accepted => Ok(()),
            CredentialStatus::Refused(answer) => Err(Unverified::Refused(answer)),
            CredentialStatus::Unverified => match outage {
                Some(until) if self.credentials.was_accepted(&caller.digest, &caller.scope_record(), until) => Ok(()),
                _ => {
                    let words = "the site has not accepted this credential within `api.verify_every`";
                    Err(Unverified::Pass(Pass::new(Reason::Unverified, words)))
                }
            },
        }
    }

    /// Learns from the answer to a request of a caller; call it only for requests that
    /// [`is_plain`] holds for.
    pub async fn learn(&self, caller: &Caller, method: &str, answer: &Arc<BufferedResponse>) {
        if matches!(caller.scope, Scope::Nothing(_)) {
            return;
        }
        let proof = Proof::of(method, answer.status, &answer.body);
        let change = self.credentials.note(&caller.digest, proof, answer);
        if change != RecordChange::Keep {
            self.record(caller, change).await;
        }
    }

    /// Writes a change to the state. What was refused since is not written any more.
    async fn record(&self, caller: &Caller, change: RecordChange) {
        let state = self.recording.lock().await;
        let accepted = matches!(self.credentials.status(&caller.digest), CredentialStatus::Accepted);
        let (digest, scope, accepted_at) = (caller.digest, caller.scope_record(), self.clock.now());
        let done = match change {
            RecordChange::Put if accepted => {
                state.put_credential(&CredentialRecord { digest, accepted_at, scope }).await
            }
            // A task of its own: a caller who leaves does not leave the record.
            RecordChange::Remove => {
                let state = state.clone();
                let removal = tokio::spawn(async move { state.remove_credential(&digest).await });
                removal.await.unwrap_or(Err(StateError::Stopping))
            }
            RecordChange::Put | RecordChange::Keep => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the record of a credential could not be changed");
        }
    }

    /// Tells whether the caller should have its credential renewed now; of those who ask at
    /// the same time, one is told to.
    pub fn claim_renewal(&self, caller: &Caller) -> bool {
        self.credentials.claim_renewal(&caller.digest)
    }

    /// Asks the site about a credential with a question of our own, which takes nothing
    /// from the request but the credential and an entity type that the caller may read.
    pub async fn renew(&self, upstream: &Upstream, caller: &Caller, auth: &Auth, entity_type: &str) {
        let asked = self.ask(upstream, auth, entity_type, RENEWAL_TIMEOUT).await;
        match asked {
            Ok(answer) => self.learn(caller, "read", &answer).await,
            Err(_) => self.credentials.note_unanswered(&caller.digest),
        }
    }

    /// Tells whether the site really does not answer questions with this credential.
    ///
    /// A request of the caller's own that failed does not show that: some requests fail
    /// on a site that is well, and a credential that was revoked must not profit from them.
    pub async fn confirms_outage(&self, upstream: &Upstream, caller: &Caller, auth: &Auth, ty: &str) -> bool {
        if self.credentials.is_unanswered(&caller.digest) {
            return true;
        }
        match self.ask(upstream, auth, ty, OUTAGE_CHECK_TIMEOUT).await {
            Ok(answer) if !answer.status.is_server_error() => {
                self.learn(caller, "read", &answer).await;
                matches!(self.credentials.status(&caller.digest), CredentialStatus::Accepted)
            }
            _ => {
                self.credentials.note_unanswered(&caller.digest);
                true
            }
        }
    }

    async fn ask(
        &self,
        upstream: &Upstream,
        auth: &Auth,
        entity_type: &str,
        timeout: Duration,
    ) -> Result<Arc<BufferedResponse>, Unreachable> {
        let Some(credential) = Credential::of(auth) else {
            return Err(Unreachable::unknown("only the site can judge credentials of this kind"));
        };
        // No entity has the id 0, so the answer is as short as can be.
        let filters = json!({"logical_operator": "and",
            "conditions": [{"path": "id", "relation": "is", "values": [0]}]});
        let argument = json!({"type": entity_type, "return_fields": ["id"], "filters": filters,
            "return_only": "active", "paging": {"entities_per_page": 1, "current_page": 1}});
        let body = json!({"method_name": "read", "params": [credential.to_auth(), argument]});
        let headers = HeaderMap::from_iter([(axum::http::header::CONTENT_TYPE, super::listener::JSON)]);
        let outgoing = Outgoing { method: Method::POST, target: api3::PATH.to_owned(), headers };
        let sent = upstream.send_buffered(&outgoing, body.to_string().into(), false);
        let answer = tokio::time::timeout(timeout, sent).await;
        answer.unwrap_or_else(|_| Err(Unreachable::unknown("no answer in time"))).map(Arc::new)
    }
}

/// Why a caller is not answered from the cache.
#[derive(Debug)]
pub(super) enum Unverified {
    /// The site refused the credential; this is what it answered.
    Refused(Arc<BufferedResponse>),
    /// The site answers.
    Pass(Pass),
}

/// Tells whether the site can have read nothing but the credential of the body in a
/// request with these headers.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    !IDENTIFYING_HEADERS.iter().any(|name| headers.contains_key(*name))
}

fn display_name(auth: &Auth) -> String {
    let name = match (auth.user_login(), auth.script_name(), auth.session_token()) {
        (Some(login), ..) => format!("login {login}"),
        (None, Some(script), _) => format!("script {script}"),
        (None, None, Some(_)) => "session".to_owned(),
        _ => "anonymous".to_owned(),
    };
    match auth.sudo_as_login() {
        Some(login) => format!("{name} as {login}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::http::StatusCode;
    use serde_json::Value;

    use super::super::settings::{CallerName, Limits};
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
            (json!({"script_name": "sgcache", "script_key": "key", "sudo_as_login": "td"}), "nothing"),
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
        let (good, revoked) =
            (farm("s3cr3t-good"), Auth::from_wire(&json!({"user_login": "td", "user_password": "x"})));
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
}
