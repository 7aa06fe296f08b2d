//! The circuit breaker of the site: whether it answers, as everything that asks it
//! finds out together.
//!
//! The follower and the proxy of one process share one [`SiteHealth`]. It is fed by
//! attempts: each says when it began and how it ended. Silence counts before it ends:
//! an attempt that has waited longer than the patience, while nothing that began after
//! it was answered, shows a site that accepts and never answers.
//!
//! | state | when | what callers do |
//! |---|---|---|
//! | closed | the last answer is newer than the last failure, and no silence | ask |
//! | open | a failure after the last answer, or silence | those with an older answer give it |
//! | half-open | open, and a probe is due | one probe in the background, the others as open |
//!
//! Durations are of the monotonic clock. Which requests are worth sending to a site
//! that is open is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::retry::LONGEST_ASKED;

/// How often a site that does not answer is probed.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Whether the site answers; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SiteHealth(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Attempts without an end, by number.
    waiting: BTreeMap<u64, Instant>,
    started: u64,
    last_answer: Option<Instant>,
    /// Since when every attempt that ended has failed.
    failing_since: Option<Instant>,
    last_probe: Option<Instant>,
    /// The site asked not to be probed before this moment (`Retry-After`).
    probe_after: Option<Instant>,
}

/// A request on its way. Dropped without an end, it says nothing about the site.
#[derive(Debug)]
pub struct Attempt {
    health: SiteHealth,
    number: u64,
    /// When it began.
    pub began: Instant,
}

impl SiteHealth {
    /// Begins an attempt.
    pub fn begin(&self) -> Attempt {
        let mut inner = self.lock();
        inner.started += 1;
        let (number, began) = (inner.started, Instant::now());
        inner.waiting.insert(number, began);
        Attempt { health: self.clone(), number, began }
    }

    /// Returns since when the site has given no answer to something that it was asked,
    /// if that is `patience` ago or it failed outright; `None` while it answers.
    pub fn open_since(&self, patience: Duration) -> Option<Instant> {
        let inner = self.lock();
        let silent = inner.silent_since().filter(|since| since.elapsed() >= patience);
        match (inner.failing_since, silent) {
            (Some(failing), Some(silent)) => Some(failing.min(silent)),
            (failing, silent) => failing.or(silent),
        }
    }

    /// Tells whether the site counts as down.
    pub fn is_open(&self, patience: Duration) -> bool {
        self.open_since(patience).is_some()
    }

    /// Takes the right to probe a site that is down; one every [`PROBE_INTERVAL`].
    pub fn take_probe(&self, patience: Duration) -> bool {
        if !self.is_open(patience) {
            return false;
        }
        let mut inner = self.lock();
        let due = inner.last_probe.is_none_or(|last| last.elapsed() >= PROBE_INTERVAL)
            && inner.probe_after.is_none_or(|moment| Instant::now() >= moment);
        if due {
            inner.last_probe = Some(Instant::now());
        }
        due
    }

    /// Puts the next probe off: the site said when to come back.
    pub fn probe_after(&self, pause: Duration) {
        self.lock().probe_after = Instant::now().checked_add(pause.min(LONGEST_ASKED));
    }

    /// Waits until an attempt is hopeless: it has waited for `patience`, and for as long
    /// nothing else was answered. A slow answer of a site that is well is waited for.
    pub async fn hopeless(&self, attempt: &Attempt, patience: Duration) {
        loop {
            let last_sign = self.lock().last_answer.map_or(attempt.began, |answer| answer.max(attempt.began));
            if last_sign.elapsed() >= patience {
                return;
            }
            tokio::time::sleep_until(last_sign + patience).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete in itself, so a panic elsewhere cannot tear it.
        self.0.lock()
    }
}

impl Inner {
    /// Returns when the oldest attempt began that nothing newer was answered after.
    fn silent_since(&self) -> Option<Instant> {
        // An attempt that began at the very instant of an answer was not answered by it.
        let unanswered = |began: &&Instant| self.last_answer.is_none_or(|answer| **began >= answer);
        self.waiting.values().find(unanswered).copied()
    }
}

impl Attempt {
    /// The site answered, whatever it said.
    pub fn answered(self) {
        let mut inner = self.health.lock();
        inner.last_answer = Some(Instant::now());
        inner.failing_since = None;
        inner.probe_after = None;
    }

    /// The site could not be reached, did not answer in time, or its gateway said that
    /// it is away.
    pub fn failed(self) {
        let mut inner = self.health.lock();
        let began = self.began;
        inner.failing_since.get_or_insert(began);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.health.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_opens_the_circuit_before_any_request_ends() {
        let health = SiteHealth::default();
        health.begin().answered();
        let silent = health.begin();
        after(1).await;
        assert!(!health.is_open(PATIENCE));
        after(1).await;
        assert!(health.is_open(PATIENCE));
        // An answer to anything that began later shows that the site lives.
        let later = health.begin();
        after(1).await;
        later.answered();
        assert!(!health.is_open(PATIENCE), "a slow request is not silence");
        after(10).await;
        assert!(!health.is_open(PATIENCE));
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_opens_it_at_once_and_an_answer_closes_it() {
        let health = SiteHealth::default();
        health.begin().failed();
        assert!(health.is_open(PATIENCE));
        assert!(health.take_probe(PATIENCE));
        assert!(!health.take_probe(PATIENCE), "one probe at a time");
        after(2).await;
        assert!(health.take_probe(PATIENCE));
        health.begin().answered();
        assert!(!health.is_open(PATIENCE) && !health.take_probe(PATIENCE));
        health.begin().failed();
        health.probe_after(Duration::from_secs(120));
        after(119).await;
        assert!(!health.take_probe(PATIENCE), "the site asked for a longer pause");
        after(1).await;
        assert!(health.take_probe(PATIENCE));
        health.begin().answered();
        // What nobody waits for any more says nothing.
        drop(health.begin());
        after(60).await;
        assert!(!health.is_open(PATIENCE));
    }

    #[tokio::test(start_paused = true)]
    async fn only_silence_of_the_whole_site_makes_a_request_hopeless() {
        let health = SiteHealth::default();
        let slow = health.begin();
        for _ in 0..5 {
            after(20).await;
            health.begin().answered();
        }
        let hopeless = health.hopeless(&slow, Duration::from_secs(30));
        tokio::pin!(hopeless);
        assert!(futures::poll!(&mut hopeless).is_pending(), "others are answered");
        after(30).await;
        hopeless.await;
    }
}
