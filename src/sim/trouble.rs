//! What goes wrong on demand, and the count of what was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One way in which a site fails to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An HTTP status with a page of HTML, as 502, 503 or 429.
    Status(u16),
    /// HTTP 200 with a page of HTML.
    Html,
    /// The JSON of the answer, cut in half.
    Truncated,
    /// The connection is closed in the middle of the answer.
    Dropped,
    /// The right answer, late.
    Slow(Duration),
    /// A fault of this code with these words.
    Fault(i64, String),
    /// A `read` that answers no rows, although there are some.
    NoRows,
}

/// Trouble that waits for its requests.
#[derive(Clone, Debug)]
struct Planned {
    trouble: Trouble,
    method: Option<String>,
    left: u32,
}

/// The trouble that the next requests meet.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<Vec<Planned>>);

impl Troubles {
    fn planned(&self) -> MutexGuard<'_, Vec<Planned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Troubles the next so many requests, whatever they ask.
    pub fn next(&self, requests: u32, trouble: Trouble) {
        self.planned().push(Planned { trouble, method: None, left: requests });
    }

    /// Troubles the next so many requests of a method: `read`, or
    /// `read EventLogEntry` for those of one type.
    pub fn next_of(&self, method: &str, requests: u32, trouble: Trouble) {
        self.planned().push(Planned { trouble, method: Some(method.to_owned()), left: requests });
    }

    /// Ends all trouble.
    pub fn clear(&self) {
        self.planned().clear();
    }

    /// Takes the trouble that this request meets.
    pub(super) fn take(&self, method: &str, entity_type: Option<&str>) -> Option<Trouble> {
        let full = entity_type.map(|ty| format!("{method} {ty}"));
        let mut planned = self.planned();
        let fits = |plan: &Planned| match &plan.method {
            None => true,
            Some(wanted) => wanted == method || Some(wanted) == full.as_ref(),
        };
        let at = planned.iter().position(fits)?;
        planned[at].left = planned[at].left.saturating_sub(1);
        let trouble = planned[at].trouble.clone();
        if planned[at].left == 0 {
            planned.remove(at);
        }
        Some(trouble)
    }
}

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
