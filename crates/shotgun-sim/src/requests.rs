//! The count of what was asked, and of what was not simulated.

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::{Mutex, MutexGuard};

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

    /// Returns the counts in the text format of Prometheus: counters by method, each
    /// only when it was counted.
    pub fn to_prometheus(&self) -> String {
        let counts = self.counts();
        let mut text = String::new();
        if counts.failed_steps > 0 {
            let help = "Steps of fault plans that could not be made.";
            counter(&mut text, "sgcache_sim_failed_steps_total", help, [(None, counts.failed_steps)]);
        }
        let help = "Requests that were refused because no source shows what a site answers.";
        let refused = counts.refused.iter().map(|(method, count)| (Some(method.as_str()), *count));
        counter(&mut text, "sgcache_sim_not_simulated_total", help, refused);
        let asked = counts.asked.iter().filter(|((_, entity_type), _)| entity_type.is_none());
        let asked = asked.map(|((method, _), count)| (Some(method.as_str()), *count));
        counter(&mut text, "sgcache_sim_requests_total", "Requests by method.", asked);
        text
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

/// Adds a counter with its samples, each with its method; nothing without a sample.
fn counter<'m>(text: &mut String, name: &str, help: &str, samples: impl IntoIterator<Item = (Option<&'m str>, u64)>) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes every line");
    line(format_args!("# HELP {name} {help}"));
    line(format_args!("# TYPE {name} counter"));
    for (method, count) in samples {
        match method {
            // Methods come from requests: they may hold anything.
            Some(method) => {
                let method = method.replace('\\', r"\\").replace('\n', r"\n").replace('"', "\\\"");
                line(format_args!("{name}{{method=\"{method}\"}} {count}"));
            }
            None => line(format_args!("{name} {count}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_samples_whose_methods_cannot_break_out_of_their_label() {
        let requests = Requests::default();
        assert_eq!(requests.to_prometheus(), "");
        requests.note("read", Some("Shot"));
        requests.note("read", None);
        requests.note("a\"b\\c\nd", None);
        requests.refuse("export_page");
        requests.fail_step();
        let expected = [
            "# HELP sgcache_sim_failed_steps_total Steps of fault plans that could not be made.",
            "# TYPE sgcache_sim_failed_steps_total counter",
            "sgcache_sim_failed_steps_total 1",
            "# HELP sgcache_sim_not_simulated_total \
             Requests that were refused because no source shows what a site answers.",
            "# TYPE sgcache_sim_not_simulated_total counter",
            "sgcache_sim_not_simulated_total{method=\"export_page\"} 1",
            "# HELP sgcache_sim_requests_total Requests by method.",
            "# TYPE sgcache_sim_requests_total counter",
            r#"sgcache_sim_requests_total{method="a\"b\\c\nd"} 1"#,
            "sgcache_sim_requests_total{method=\"read\"} 2",
        ];
        assert_eq!(requests.to_prometheus().lines().collect::<Vec<_>>(), expected);
    }
}
