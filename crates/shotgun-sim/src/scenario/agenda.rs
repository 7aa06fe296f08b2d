//! What is still to happen, by the clock of the site.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Action;
use shotgun_model::entity::Timestamp;

/// Steps that wait for their time.
#[derive(Debug)]
pub struct Agenda {
    /// In the order of their times; those of one moment in the order written.
    steps: Mutex<Vec<(Timestamp, Action)>>,
    /// The time of the first step, so that a request asks without a lock.
    next: AtomicI64,
}

impl Default for Agenda {
    fn default() -> Self {
        Self { steps: Mutex::default(), next: AtomicI64::new(i64::MAX) }
    }
}

impl Agenda {
    fn steps(&self) -> MutexGuard<'_, Vec<(Timestamp, Action)>> {
        self.steps.lock()
    }

    fn note_next(&self, steps: &[(Timestamp, Action)]) {
        self.next.store(steps.first().map_or(i64::MAX, |(at, _)| at.0), Ordering::Relaxed);
    }

    /// Adds steps.
    pub fn add(&self, new: impl IntoIterator<Item = (Timestamp, Action)>) {
        let mut steps = self.steps();
        steps.extend(new);
        steps.sort_by_key(|(at, _)| *at);
        self.note_next(&steps);
    }

    /// Forgets every step.
    pub fn clear(&self) {
        let mut steps = self.steps();
        steps.clear();
        self.note_next(&steps);
    }

    /// Returns when the next step is to be made, if it is not later than `until`.
    pub fn next_until(&self, until: Timestamp) -> Option<Timestamp> {
        let next = self.next.load(Ordering::Relaxed);
        (next <= until.0 && next != i64::MAX).then_some(Timestamp(next))
    }

    /// Takes the next step that is due.
    pub fn take_due(&self, now: Timestamp) -> Option<Action> {
        self.next_until(now)?;
        let mut steps = self.steps();
        let due = steps.first().is_some_and(|(at, _)| *at <= now);
        let step = due.then(|| steps.remove(0).1);
        self.note_next(&steps);
        step
    }

    /// Returns the number of steps that wait.
    pub fn len(&self) -> usize {
        self.steps().len()
    }
}
