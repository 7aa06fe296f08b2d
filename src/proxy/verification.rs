//! [`Verifications`]: the first requests of a credential that nothing is known of.
//!
//! A farm begins with hundreds of requests at the same time, and all of them would go to
//! the site, because none is proved yet. Here the first one goes, and the others wait for
//! its answer: when that proves the credential, the cache answers them. A request waits
//! for one answer and within a bound, so that answers which prove nothing delay no request
//! for long. What is asked plays no part: nothing about the cache shows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::credential::Digest;

/// The credentials whose first request is at the site. One entry for each request in
/// flight at most.
#[derive(Default)]
pub(super) struct Verifications(Mutex<HashMap<Digest, watch::Receiver<bool>>>);

/// The right to be the first request of a credential; the others go on when it is dropped.
pub(super) struct FirstRequest<'a> {
    verifications: &'a Verifications,
    digest: Digest,
    /// Sent `true` when the request was answered; dropped without it when its caller left.
    answered: watch::Sender<bool>,
}

impl FirstRequest<'_> {
    /// Lets the others go on: the answer is known, whatever it proves.
    pub fn answered(self) {
        self.answered.send_replace(true);
    }
}

impl Drop for FirstRequest<'_> {
    fn drop(&mut self) {
        self.verifications.lock().remove(&self.digest);
    }
}

impl Verifications {
    /// Becomes the first request of a credential, or waits for the answer to the one that
    /// is. `None`: there is an answer, or `patience` is over.
    pub async fn begin(&self, digest: Digest, patience: Duration) -> Option<FirstRequest<'_>> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let mut answered = match self.claim(digest) {
                Ok(first) => return Some(first),
                Err(answered) => answered,
            };
            let answer = async move { answered.wait_for(|answered| *answered).await.is_ok() };
            match tokio::time::timeout_at(deadline, answer).await {
                Ok(true) | Err(_) => return None,
                // Its caller left before the answer: another one is the first.
                Ok(false) => {}
            }
        }
    }

    fn claim(&self, digest: Digest) -> Result<FirstRequest<'_>, watch::Receiver<bool>> {
        let mut known = self.lock();
        if let Some(answered) = known.get(&digest) {
            return Err(answered.clone());
        }
        let (answered, receiver) = watch::channel(false);
        known.insert(digest, receiver);
        Ok(FirstRequest { verifications: self, digest, answered })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIAL: Digest = [7; 32];
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn of_many_requests_one_is_the_first_and_the_others_wait_for_its_answer() {
        let all = Verifications::default();
        let first = all.begin(CREDENTIAL, LONG).await.expect("the first");
        let others = futures::future::join_all((0..20).map(|_| all.begin(CREDENTIAL, LONG)));
        let (others, ()) = tokio::join!(others, async { first.answered() });
        assert!(others.iter().all(Option::is_none));
        assert!(all.lock().is_empty());
    }

    #[tokio::test]
    async fn when_the_first_leaves_before_its_answer_another_one_is_the_first() {
        let all = Verifications::default();
        let first = all.begin(CREDENTIAL, LONG).await.expect("the first");
        let (next, ()) = tokio::join!(all.begin(CREDENTIAL, LONG), async { drop(first) });
        assert!(next.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_no_longer_than_its_patience() {
        let all = Verifications::default();
        let _first = all.begin(CREDENTIAL, LONG).await.expect("the first");
        assert!(all.begin(CREDENTIAL, Duration::from_secs(2)).await.is_none());
        assert!(all.begin([8; 32], LONG).await.is_some(), "another credential is not held up");
    }
}
