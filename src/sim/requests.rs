//! The count of what was asked, and of what was not simulated.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

/// Counts the refusals; after it, the method that was refused.
const NOT_SIMULATED: &str = "not simulated";
/// Counts the steps of plans that could not be made.
const FAILED_STEP: &str = "failed step";

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

    /// Counts a request that was refused because it is not simulated.
    pub(super) fn refuse(&self, method: &str) {
        self.note(NOT_SIMULATED, Some(method));
    }

    /// Counts a step that could not be made.
    pub(super) fn fail_step(&self) {
        self.note(FAILED_STEP, None);
    }

    /// Returns the counts in the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// When the text cannot be made, which takes a name that is no label.
    pub fn to_prometheus(&self) -> prometheus::Result<String> {
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let asked = counter("sgcache_sim_requests_total", "Requests by method.", &["method"])?;
        let refused = counter(
            "sgcache_sim_not_simulated_total",
            "Requests that were refused because no source shows what a site answers.",
            &["method"],
        )?;
        let failed = counter("sgcache_sim_failed_steps_total", "Steps of fault plans that could not be made.", &[])?;
        for (what, count) in self.counts().iter() {
            match what.split_once(' ') {
                None => asked.with_label_values(&[what]).inc_by(*count),
                _ if what == FAILED_STEP => failed.with_label_values::<&str>(&[]).inc_by(*count),
                Some(_) if what.starts_with(NOT_SIMULATED) => {
                    let method = what[NOT_SIMULATED.len()..].trim_start();
                    if !method.is_empty() {
                        refused.with_label_values(&[method]).inc_by(*count);
                    }
                }
                // Counts of one entity type, and the sum of the refusals, are in the others.
                Some(_) => {}
            }
        }
        let registry = Registry::new();
        for counts in [asked, refused, failed] {
            registry.register(Box::new(counts))?;
        }
        TextEncoder::new().encode_to_string(&registry.gather())
    }

    /// Returns how often a method was asked: `read`, or `read Shot` for those of
    /// one type; `not simulated` counts what the site refused to simulate, and with
    /// a method behind it what it refused of that method.
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
