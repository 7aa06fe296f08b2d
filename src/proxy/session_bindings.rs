//! Whose the tokens of sessions are, and how long that is believed.
//!
//! A token says nothing of its owner; the site does (`session_owner`). What it said is
//! believed for [`BINDING_LIFETIME`], because a login can be renamed; from three quarters
//! of that time on one caller has the site asked again. Whether the token itself is still
//! good is not decided here: that is `credential_cache`, as for every other credential.
//!
//! A binding from before a restart ([`SessionBindings::recorded`]) counts only while the
//! site does not answer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;

use super::credential::Digest;
use super::settings::CallerName;

/// How long the site's word about the owner of a token is believed.
const BINDING_LIFETIME: Duration = Duration::from_secs(3600);
/// How long after a question about a token no other one is sent.
const QUESTION_PAUSE: Duration = Duration::from_secs(120);
/// Tokens whose owner is remembered.
const MAX_BINDINGS: usize = 10_000;

#[derive(Clone)]
struct Binding {
    owner: CallerName,
    /// When the site was asked; `None` before the start of this process.
    asked_at: Option<Instant>,
}

struct Inner {
    bindings: Cache<Digest, Binding>,
    /// When the last question about a token was sent.
    questions: Cache<Digest, Instant>,
}

/// The owners of session tokens, by the digest of the token.
pub(super) struct SessionBindings(Mutex<Inner>);

impl SessionBindings {
    /// Begins with what was recorded before the start of this process.
    pub fn recorded(records: impl Iterator<Item = (Digest, CallerName)>) -> Self {
        let mut bindings = Cache::new(MAX_BINDINGS);
        for (digest, owner) in records {
            bindings.insert(digest, Binding { owner, asked_at: None });
        }
        Self(Mutex::new(Inner { bindings, questions: Cache::new(MAX_BINDINGS) }))
    }

    /// Returns the owner that the site last named, however long ago.
    pub fn owner(&self, digest: &Digest) -> Option<CallerName> {
        self.lock().bindings.get(digest).map(|binding| binding.owner.clone())
    }

    /// Tells whether a token belongs to this owner, as far as the site's word is still
    /// believed.
    pub fn holds(&self, digest: &Digest, owner: &CallerName, is_outage: bool) -> bool {
        self.lock().bindings.get(digest).is_some_and(|binding| {
            let is_fresh = binding.asked_at.is_some_and(|at| at.elapsed() < BINDING_LIFETIME);
            binding.owner == *owner && (is_fresh || is_outage)
        })
    }

    /// Remembers what the site said about the owner of a token when it was asked then.
    pub fn bind(&self, digest: Digest, owner: CallerName, asked_at: Instant) {
        self.lock().bindings.insert(digest, Binding { owner, asked_at: Some(asked_at) });
    }

    /// Tells whether the caller should ask the site about a token now; true for
    /// one of concurrent callers.
    pub fn claim_question(&self, digest: &Digest) -> bool {
        let mut inner = self.lock();
        let asked_at = inner.bindings.get(digest).and_then(|binding| binding.asked_at);
        let is_due = asked_at.is_none_or(|at| at.elapsed() >= BINDING_LIFETIME * 3 / 4);
        if !is_due || inner.questions.get(digest).is_some_and(|at| at.elapsed() < QUESTION_PAUSE) {
            return false;
        }
        inner.questions.insert(*digest, Instant::now());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change here is whole before anything in it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str) -> CallerName {
        CallerName::Login(name.into())
    }

    #[test]
    fn a_binding_ends_and_is_asked_for_again_before() {
        let bindings = SessionBindings::recorded(std::iter::empty());
        let (token, other) = ([1; 32], [2; 32]);
        assert!(bindings.claim_question(&token) && !bindings.claim_question(&token), "one of those who ask");
        bindings.bind(token, login("td"), Instant::now());
        assert!(bindings.holds(&token, &login("td"), false) && !bindings.holds(&token, &login("joe"), true));
        assert!(!bindings.holds(&other, &login("td"), true) && bindings.owner(&other).is_none());
        let Some(long_ago) = Instant::now().checked_sub(BINDING_LIFETIME) else { return };
        bindings.bind(other, login("td"), long_ago);
        assert!(!bindings.holds(&other, &login("td"), false) && bindings.holds(&other, &login("td"), true));
        assert!(bindings.claim_question(&other));
        bindings.bind(other, login("renamed"), Instant::now());
        assert!(bindings.holds(&other, &login("renamed"), false) && !bindings.holds(&other, &login("td"), true));
    }

    #[test]
    fn a_binding_from_before_a_restart_counts_only_in_an_outage() {
        let bindings = SessionBindings::recorded(std::iter::once(([1; 32], login("td"))));
        assert!(!bindings.holds(&[1; 32], &login("td"), false) && bindings.holds(&[1; 32], &login("td"), true));
        assert!(bindings.claim_question(&[1; 32]));
    }
}
