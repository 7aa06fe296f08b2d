//! The count of what was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often each method was asked.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<String, u64>>);

impl Requests {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, method: &str, entity_type: Option<&str>) {
        let mut counts = self.counts();
        *counts.entry(method.to_owned()).or_default() += 1;
        if let Some(entity_type) = entity_type {
            *counts.entry(format!("{method} {entity_type}")).or_default() += 1;
        }
    }

    /// Returns how often a method was asked: `read`, or `read Shot` for those of
    /// one type; `not simulated` counts what the site refused to simulate.
    pub fn of(&self, method: &str) -> u64 {
        self.counts().get(method).copied().unwrap_or_default()
    }

    /// Returns every count.
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.counts().clone()
    }

    /// Begins to count from zero.
    pub fn reset(&self) {
        self.counts().clear();
    }
}
