//! Who asks, what they may see, and whether the site knows them.
//!
//! A caller is found by the name in its credential (`api.callers`), which proves nothing:
//! whether the credential is good the site says (`credential_proof`), and what it said
//! last is remembered here (`credential_cache`) and, for outages, in the state. Digests
//! of credentials are keyed with a key that survives a restart (`credential_key`); those
//! of requests with one that does not, because nothing of them is kept.
//!
//! The token of a session names its owner only to the site: it has the scope of the login
//! or script whose session it is (`session_bindings`, `session_owner`). The site is asked
//! about a token only after it has accepted it, so a wrong token causes no question.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use ring::hmac;
use serde_json::json;

pub(super) use super::credential::Digest;
use super::credential::{self, Credential};
use super::credential_cache::{CredentialCache, CredentialStatus, RecordChange};
use super::credential_key;
use super::credential_proof::Proof;
use super::decide::Scope;
use super::reason::{Advice, Pass, Reason};
use super::session_bindings::SessionBindings;
use super::session_owner;
use super::settings::{CallerName, CallerRule, Settings};
use super::upstream::{BufferedResponse, Outgoing, Unreachable, Upstream};
use crate::api3::{self, Auth};
use crate::shotgun::Client;
use crate::state::{CredentialRecord, SiteTime, State, StateError};
use crate::sync::SiteClock;

/// Headers in which no site finds a credential, or another request than that of the body.
/// With any other header an answer proves nothing about the credential of the body.
const PLAIN_HEADERS: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "locale",
    "pragma",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];
/// The method that answers with the token of a new session.
pub(super) const SESSION_METHOD: &str = "get_session_token";
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
    /// Whose rights the site applies, where that is known.
    pub owner: Option<CallerName>,
    /// Whether the credential is the token of a session: then the owner is the site's word.
    pub is_session: bool,
}

impl Caller {
    /// Tells whether only the site knows whose session this is.
    pub fn is_unbound_session(&self) -> bool {
        self.is_session && self.owner.is_none()
    }

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
    own_name: Option<CallerName>,
    rules: Vec<CallerRule>,
    credentials: CredentialCache,
    sessions: SessionBindings,
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
        let own = Credential::of(own);
        let own_name = own.as_ref().and_then(Credential::owner);
        let own = own.map(|own| own.digest(&credential_key));
        let owners = records.iter().filter_map(|record| Some((record.digest, record.session_owner.as_ref()?)));
        let owners = owners.filter_map(|(digest, owner)| Some((digest, owner.parse().ok()?)));
        let request_key: [u8; 32] = rand::random();
        Self {
            sessions: SessionBindings::recorded(owners),
            credentials: CredentialCache::new(settings.verify_every, own, records),
            request_key: hmac::Key::new(hmac::HMAC_SHA256, &request_key),
            rules: settings.callers.clone(),
            recording: tokio::sync::Mutex::new(state),
            credential_key,
            own,
            own_name,
            clock,
        }
    }

    /// Returns the keyed hash of parts of a request.
    pub fn request_digest(&self, parts: &[&[u8]]) -> Digest {
        credential::digest(&self.request_key, parts)
    }

    /// Tells who asks with these credentials.
    pub fn identify(&self, auth: Option<&Auth>) -> Caller {
        let Some(auth) = auth else {
            return unknown("anonymous".into(), "the request has no credentials");
        };
        let name = display_name(auth);
        let Some(credential) = Credential::of(auth) else {
            return unknown(name, "only the site can judge credentials of this kind");
        };
        let digest = credential.digest(&self.credential_key);
        if let Credential::Session { .. } = credential {
            return self.identify_session(digest);
        }
        let owner = credential.owner();
        let scope = match &owner {
            _ if self.own == Some(digest) => Scope::Full,
            Some(owner) => self.mapped_scope(owner),
            None => unknown_caller("only the site can judge credentials of this kind"),
        };
        Caller { digest, name, scope, owner, is_session: false }
    }

    /// Tells whose session a token is.
    fn identify_session(&self, digest: Digest) -> Caller {
        match self.sessions.owner(&digest) {
            Some(owner) => {
                let is_own = self.own_name.as_ref() == Some(&owner);
                let scope = if is_own { Scope::Full } else { self.mapped_scope(&owner) };
                Caller { digest, name: format!("session of {owner}"), scope, owner: Some(owner), is_session: true }
            }
            None => {
                let scope = unknown_caller("the site has not said yet whose session this is");
                Caller { digest, name: "session".to_owned(), scope, owner: None, is_session: true }
            }
        }
    }

    /// Returns what `api.callers` lets a script or a login see.
    fn mapped_scope(&self, owner: &CallerName) -> Scope {
        match self.rules.iter().find(|rule| rule.name == *owner) {
            Some(rule) if rule.limits.is_full() => Scope::Full,
            Some(rule) => Scope::Limited(rule.limits.clone()),
            None => unknown_caller(format!("{owner} is neither the script of the cache nor in `api.callers`")),
        }
    }

    /// Tells whether a caller that was identified before would be the same now.
    pub fn is_current(&self, caller: &Caller) -> bool {
        !caller.is_session || self.sessions.owner(&caller.digest) == caller.owner
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
        if !self.is_bound(caller, outage.is_some()) {
            let words = "the site has not said lately whose session this is";
            return Err(Unverified::Pass(Pass::new(Reason::Unverified, words)));
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

    /// Tells whether the scope of a caller still is that of the owner of its session.
    fn is_bound(&self, caller: &Caller, is_outage: bool) -> bool {
        let holds = |owner| self.sessions.holds(&caller.digest, owner, is_outage);
        !caller.is_session || caller.owner.as_ref().is_some_and(holds)
    }

    /// Learns from the answer to a request of a caller; call it only for requests that
    /// [`is_plain`] holds for.
    pub async fn learn(&self, caller: &Caller, method: &str, answer: &Arc<BufferedResponse>) {
        let is_unmapped = matches!(caller.scope, Scope::Nothing(_));
        // Whether a token is good counts before it is known whose it is.
        if is_unmapped && !caller.is_session {
            return;
        }
        if method == SESSION_METHOD {
            self.note_session(caller, answer);
        }
        let proof = Proof::of(method, answer.status, &answer.body);
        let change = self.credentials.note(&caller.digest, proof, answer);
        if change != RecordChange::Keep && !is_unmapped {
            self.record(caller, change).await;
        }
    }

    /// Binds the token that the site gave to a caller whose credential is known to be good.
    fn note_session(&self, caller: &Caller, answer: &BufferedResponse) {
        let is_good = matches!(self.credentials.status(&caller.digest), CredentialStatus::Accepted);
        let owner = caller.owner.clone().filter(|_| is_good && self.is_bound(caller, false));
        if let (Some(owner), Some(token)) = (owner, session_owner::token_of(answer)) {
            let digest = Credential::Session { token }.digest(&self.credential_key);
            self.sessions.bind(digest, owner, answer.asked_at);
        }
    }

    /// Tells whether the caller should have the site asked now whose session its token is;
    /// true for one of concurrent callers.
    pub fn claim_binding(&self, caller: &Caller) -> bool {
        caller.is_session
            && matches!(self.credentials.status(&caller.digest), CredentialStatus::Accepted)
            && self.sessions.claim_question(&caller.digest)
    }

    /// Asks the site whose session a token is, and remembers what it says.
    pub async fn bind(&self, upstream: &Upstream, client: &Client, auth: &Auth) {
        let Some(Credential::Session { token }) = Credential::of(auth) else { return };
        let asked_at = Instant::now();
        let Some(owner) = session_owner::ask(upstream, client, &token).await else { return };
        let digest = Credential::Session { token }.digest(&self.credential_key);
        self.sessions.bind(digest, owner, asked_at);
        let caller = self.identify_session(digest);
        if !matches!(caller.scope, Scope::Nothing(_)) {
            self.record(&caller, RecordChange::Put).await;
        }
    }

    /// Writes a change to the state. What was refused since is not written any more.
    async fn record(&self, caller: &Caller, change: RecordChange) {
        let state = self.recording.lock().await;
        let accepted = matches!(self.credentials.status(&caller.digest), CredentialStatus::Accepted);
        let (digest, scope, accepted_at) = (caller.digest, caller.scope_record(), self.clock.now());
        let done = match change {
            RecordChange::Put if accepted => {
                let session_owner = caller.owner.as_ref().filter(|_| caller.is_session).map(ToString::to_string);
                state.put_credential(&CredentialRecord { digest, accepted_at, scope, session_owner }).await
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

    /// Tells whether the caller should have its credential renewed now; true for
    /// one of concurrent callers.
    pub fn claim_renewal(&self, caller: &Caller) -> bool {
        self.credentials.claim_renewal(&caller.digest)
    }

    /// Asks the site about a credential with a question of our own, which takes nothing
    /// from the request but the credential and an entity type that the caller may read.
    pub async fn renew(&self, upstream: &Upstream, caller: &Caller, auth: &Auth, entity_type: &str) {
        let asked = self.ask(upstream, auth, entity_type, RENEWAL_TIMEOUT).await;
        match asked {
            Ok(answer) => self.learn(caller, "read", &answer).await,
            Err(why) if why.at_limit => {}
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
            // A bound of this process is no silence of the site, nor is one slow answer.
            Err(why) if why.at_limit || !upstream.is_down() => false,
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
        let outgoing = Outgoing::own(api3::PATH, super::listener::JSON);
        upstream.ask(&outgoing, body.to_string().into(), timeout).await.map(Arc::new)
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
    headers.keys().all(|name| PLAIN_HEADERS.contains(&name.as_str()))
}

/// A caller that the cache knows nothing of.
fn unknown(name: String, why: &str) -> Caller {
    Caller { digest: Digest::default(), name, scope: unknown_caller(why), owner: None, is_session: false }
}

fn unknown_caller(why: impl Into<String>) -> Scope {
    Scope::Nothing(Pass::new(Reason::UnknownCaller, why).advise(Advice::MapCaller))
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
#[path = "callers_tests.rs"]
mod tests;
