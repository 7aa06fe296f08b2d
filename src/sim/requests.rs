//! The count of what was asked, and of what was not simulated.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

/// What was counted since the start.
#[derive(Debug, Default)]
struct Counts {
    /// By method, and by method and entity type.
    asked: BTreeMap<(String, Option<String>), u64>,
    /// By the method that was refused.
    refused: BTreeMap<String, u64>,
    failed_steps: u64,
}

/// How often each method was asked.
#[derive(Debug, Default)]
pub struct Requests(Mutex<Counts>);

impl Requests {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock()
    }

    pub(super) fn note(&self, method: &str, entity_type: Option<&str>) {
        let mut counts = self.counts();
        *counts.asked.entry((method.to_owned(), None)).or_default() += 1;
        if let Some(entity_type) = entity_type {
            *counts.asked.entry((method.to_owned(), Some(entity_type.to_owned()))).or_default() += 1;
        }
    }

    /// Counts a request that was refused because it is not simulated.
    pub(super) fn refuse(&self, method: &str) {
        *self.counts().refused.entry(method.to_owned()).or_default() += 1;
    }

    /// Counts a step of a plan that could not be made.
    pub(super) fn fail_step(&self) {
        self.counts().failed_steps += 1;
    }

    /// Returns the counts in the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// When the text cannot be made, which takes a name that is no label.
    pub fn to_prometheus(&self) -> prometheus::Result<String> {
        let registry = Registry::new();
        let by_method = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["method"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let asked = by_method("sgcache_sim_requests_total", "Requests by method.")?;
        let refused = by_method(
            "sgcache_sim_not_simulated_total",
            "Requests that were refused because no source shows what a site answers.",
        )?;
        let counts = self.counts();
        for ((method, entity_type), count) in &counts.asked {
            if entity_type.is_none() {
                asked.with_label_values(&[method]).inc_by(*count);
            }
        }
        for (method, count) in &counts.refused {
            refused.with_label_values(&[method]).inc_by(*count);
        }
        if counts.failed_steps > 0 {
            let help = "Steps of fault plans that could not be made.";
            let failed_steps = IntCounter::new("sgcache_sim_failed_steps_total", help)?;
            failed_steps.inc_by(counts.failed_steps);
            registry.register(Box::new(failed_steps))?;
        }
        TextEncoder::new().encode_to_string(&registry.gather())
    }

    /// Returns how often a method was asked: `read`, or `read Shot` for those of
    /// one type; `not simulated` counts what the site refused to simulate, and with
    /// a method behind it what it refused of that method.
    pub fn of(&self, method: &str) -> u64 {
        self.all().get(method).copied().unwrap_or_default()
    }

    /// Returns every count by its name.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let counts = self.counts();
        let asked = counts.asked.iter().map(|((method, entity_type), count)| match entity_type {
            Some(entity_type) => (format!("{method} {entity_type}"), *count),
            None => (method.clone(), *count),
        });
        let refused = counts.refused.iter().map(|(method, count)| (format!("not simulated {method}"), *count));
        let sums = [("not simulated", counts.refused.values().sum()), ("failed step", counts.failed_steps)];
        let sums = sums.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count));
        asked.chain(refused).chain(sums).collect()
    }

    /// Begins to count from zero.
    pub fn reset(&self) {
        *self.counts() = Counts::default();
    }
}
