//! Which credentials the site accepted or refused, and how long that is believed.
//!
//! - Accepted: for `api.verify_every` after the question was *sent*. Use does not renew
//!   it, only another question that the site answered. From three quarters of that time
//!   on, one question of our own renews the credential beside the callers, so that those
//!   who use it all the time never wait for the site.
//! - Refused: the refusal is repeated for seconds, to that credential alone.
//! - While the site does not answer, a credential that it accepted up to
//!   [`MAX_OUTAGE_AGE`] before is believed, also across a restart ([`CredentialRecord`]),
//!   and the replica's own credential unless it was refused: the rows were read with it.
//!
//! No decision here uses a wall clock. Within a process ages are monotonic. A record
//! from before a restart holds a moment of the site's clock, and it is compared with
//! another one: the moment up to which the replica followed the site. So it says "accepted
//! at most eight hours before the outage began"; how long outages may be served is
//! bounded by the age of the rows (`api.stale_if_error`), and once more by the time since
//! this process started.
//!
//! Wrong credentials have a bound of their own, so that no number of them makes a good
//! one be forgotten.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::unsync::Cache;

use super::credential::Digest;
use super::credential_proof::Proof;
use super::upstream::BufferedResponse;
use crate::state::{CredentialRecord, SiteTime};

/// How long a refusal is repeated without asking.
const REFUSAL_REPEATED_FOR: Duration = Duration::from_secs(10);
/// The oldest acceptance that is believed while the site does not answer.
const MAX_OUTAGE_AGE: Duration = Duration::from_secs(8 * 3600);
/// How long a question that the site did not answer stands for the next ones.
const OUTAGE_BELIEVED_FOR: Duration = Duration::from_secs(30);
/// How often an acceptance is written to the state at most.
const RECORD_EVERY: Duration = Duration::from_secs(60);
/// Good credentials that are remembered.
const MAX_ACCEPTED: usize = 10_000;
/// Refusals that are remembered.
const MAX_REFUSED: usize = 2_000;
/// Longer refusals are not repeated from memory.
const MAX_REFUSAL_BYTES: usize = 4 << 10;

/// What is known of a credential.
#[derive(Clone, Debug)]
pub(super) enum CredentialStatus {
    /// The site accepted it within `api.verify_every`.
    Accepted,
    /// The site refused it within seconds; this is what it answered.
    Refused(Arc<BufferedResponse>),
    /// The site was not asked lately.
    Unverified,
}

/// What has to be done in the state after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordChange {
    Keep,
    Put,
    Remove,
}

struct Accepted {
    asked_at: Instant,
    /// No question of our own is sent before this moment.
    renew_after: Instant,
    recorded_at: Option<Instant>,
}

struct Refused {
    asked_at: Instant,
    answer: Option<Arc<BufferedResponse>>,
}

struct Inner {
    accepted: Cache<Digest, Accepted>,
    refused: Cache<Digest, Refused>,
    /// Credentials that were accepted before the start of this process.
    records: HashMap<Digest, CredentialRecord>,
    /// When the last question about a credential went unanswered.
    unanswered: Cache<Digest, Instant>,
    own_is_refused: bool,
}

/// The credentials that the site was asked about.
pub(super) struct CredentialCache {
    verify_every: Duration,
    own: Option<Digest>,
    started: Instant,
    inner: Mutex<Inner>,
}

impl CredentialCache {
    /// Begins with what was recorded before; `own` is the credential of the replica.
    pub fn new(verify_every: Duration, own: Option<Digest>, records: Vec<CredentialRecord>) -> Self {
        let inner = Inner {
            accepted: Cache::new(MAX_ACCEPTED),
            refused: Cache::new(MAX_REFUSED),
            records: records.into_iter().map(|record| (record.digest, record)).collect(),
            unanswered: Cache::new(MAX_REFUSED),
            own_is_refused: false,
        };
        Self { verify_every, own, started: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Returns what is known of a credential.
    pub fn status(&self, digest: &Digest) -> CredentialStatus {
        let inner = self.lock();
        if let Some(accepted) = inner.accepted.get(digest) {
            return if accepted.asked_at.elapsed() < self.verify_every {
                CredentialStatus::Accepted
            } else {
                CredentialStatus::Unverified
            };
        }
        match inner.refused.get(digest) {
            Some(Refused { asked_at, answer: Some(answer) }) if asked_at.elapsed() < REFUSAL_REPEATED_FOR => {
                CredentialStatus::Refused(Arc::clone(answer))
            }
            _ => CredentialStatus::Unverified,
        }
    }

    /// Tells whether a credential was good when the site last answered. `followed_until`
    /// is the moment up to which the replica followed the site.
    pub fn was_accepted(&self, digest: &Digest, scope: &str, followed_until: Option<SiteTime>) -> bool {
        let inner = self.lock();
        if inner.accepted.get(digest).is_some_and(|accepted| accepted.asked_at.elapsed() < MAX_OUTAGE_AGE) {
            return true;
        }
        if self.own.as_ref() == Some(digest) {
            return !inner.own_is_refused;
        }
        let recent = |record: &CredentialRecord| {
            let age = followed_until.map(|until| until.since(record.accepted_at));
            record.scope == scope && age.is_some_and(|age| age < MAX_OUTAGE_AGE)
        };
        self.started.elapsed() < MAX_OUTAGE_AGE && inner.records.get(digest).is_some_and(recent)
    }

    /// Tells whether the caller should ask the site about an accepted credential now; true
    /// for one of concurrent callers.
    pub fn claim_renewal(&self, digest: &Digest) -> bool {
        let (every, now) = (self.verify_every, Instant::now());
        match self.lock().accepted.get_mut(digest) {
            Some(mut accepted) if accepted.renew_after <= now => {
                accepted.renew_after = now + every / 16;
                true
            }
            _ => false,
        }
    }

    /// Notes that the site did not answer a question about a credential.
    pub fn note_unanswered(&self, digest: &Digest) {
        self.lock().unanswered.insert(*digest, Instant::now());
    }

    /// Tells whether the site lately did not answer a question about a credential.
    pub fn is_unanswered(&self, digest: &Digest) -> bool {
        self.lock().unanswered.get(digest).is_some_and(|at| at.elapsed() < OUTAGE_BELIEVED_FOR)
    }

    /// Learns from an answer; of two, that to the later question counts.
    pub fn note(&self, digest: &Digest, proof: Proof, answer: &Arc<BufferedResponse>) -> RecordChange {
        match proof {
            Proof::Accepted => self.note_accepted(digest, answer.asked_at),
            Proof::Refused => self.note_refused(digest, answer),
            Proof::Absent => RecordChange::Keep,
        }
    }

    fn note_accepted(&self, digest: &Digest, asked_at: Instant) -> RecordChange {
        let inner = &mut *self.lock();
        if inner.refused.get(digest).is_some_and(|refused| refused.asked_at >= asked_at) {
            return RecordChange::Keep;
        }
        let known = inner.accepted.get(digest).map(|known| (known.asked_at, known.recorded_at));
        if known.is_some_and(|(known, _)| known >= asked_at) {
            return RecordChange::Keep;
        }
        let recorded_at = known.and_then(|(_, at)| at).filter(|at| at.elapsed() < RECORD_EVERY);
        inner.refused.remove(digest);
        inner.unanswered.remove(digest);
        inner.own_is_refused &= self.own.as_ref() != Some(digest);
        let renew_after = asked_at + self.verify_every * 3 / 4;
        let recorded = recorded_at.or_else(|| Some(Instant::now()));
        inner.accepted.insert(*digest, Accepted { asked_at, renew_after, recorded_at: recorded });
        if recorded_at.is_some() { RecordChange::Keep } else { RecordChange::Put }
    }

    fn note_refused(&self, digest: &Digest, answer: &Arc<BufferedResponse>) -> RecordChange {
        let inner = &mut *self.lock();
        let asked_at = answer.asked_at;
        if inner.accepted.get(digest).is_some_and(|accepted| accepted.asked_at > asked_at) {
            return RecordChange::Keep;
        }
        let was_accepted = inner.accepted.remove(digest).is_some();
        let was_recorded = inner.records.remove(digest).is_some();
        inner.unanswered.remove(digest);
        inner.own_is_refused |= self.own.as_ref() == Some(digest);
        let answer = (answer.body.len() <= MAX_REFUSAL_BYTES).then(|| Arc::clone(answer));
        inner.refused.insert(*digest, Refused { asked_at, answer });
        if was_accepted || was_recorded { RecordChange::Remove } else { RecordChange::Keep }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change here is whole before anything in it can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};

    use super::*;

    fn digest(number: usize) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn what_is_remembered_of_credentials_is_bounded() {
        let cache = CredentialCache::new(Duration::from_secs(300), None, Vec::new());
        let answer = BufferedResponse {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Default::default(),
            asked_at: Instant::now(),
        };
        let answer = Arc::new(answer);
        for number in 0..3 * MAX_REFUSED {
            cache.note(&digest(number), Proof::Refused, &answer);
            cache.note_unanswered(&digest(number));
        }
        let lengths = |inner: &Inner| (inner.accepted.len(), inner.refused.len(), inner.unanswered.len());
        assert_eq!(lengths(&cache.lock()), (0, MAX_REFUSED, MAX_REFUSED), "refused ones take no place of good ones");
        for number in 0..2 * MAX_ACCEPTED {
            cache.note(&digest(3 * MAX_REFUSED + number), Proof::Accepted, &answer);
        }
        assert_eq!(cache.lock().accepted.len(), MAX_ACCEPTED);
    }
}
