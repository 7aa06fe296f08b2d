//! Every metric that sgcache exports.
//!
//! `table` declares them all: name, labels, help. `family` keeps labels inside
//! their fixed sets, `declare` registers, `log` counts log lines. Who measures
//! what is not known here.
//!
//! Facts from outside that shape this module:
//!
//! - A labelled metric without children exports nothing at all, not even its
//!   help, so `rate()` alerts would be blind and `absent()` would misfire.
//!   Every known label set is therefore created at the start.
//! - A counter starts at zero, a moment must not: zero is 1970, and
//!   `time() - x` would fire at once. Moments start at the start of the process
//!   where an alert wants to fire if nothing ever happens, and at `NaN`, which
//!   compares false, where there is nothing to tell yet.
//! - Prometheus sets the labels `job` and `instance` itself. Ours are called
//!   `pipeline`, `task` and `entity_type`.

mod declare;
mod family;
mod log;
mod record;
mod table;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use prometheus::{Registry, TextEncoder};

pub use declare::seconds;
pub use declare::{Declared, Kind};
pub use family::{Counters, Family, Gauges, Histograms, Labels, OTHER, Vector};
pub use log::CountLog;
pub use table::{
    About, Imports, Leader, Listeners, Loops, PASS_REASONS, Proxy, READ_METHODS, Reports, Scheduler, Source, Store,
    Sync, Tasks, Validation,
};

/// The content type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A cheap handle on every metric; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<All>);

/// Every metric, by the noun that it measures.
pub struct All {
    /// The site's API as we use it.
    pub source: Source,
    /// The event loop.
    pub sync: Sync,
    /// The store behind the cache.
    pub store: Store,
    /// Comparisons with the site, and repairs.
    pub validation: Validation,
    /// Imports of whole entity types.
    pub imports: Imports,
    /// Scheduled tasks.
    pub tasks: Tasks,
    /// The scheduler itself.
    pub scheduler: Scheduler,
    /// Both listeners.
    pub listeners: Listeners,
    /// The api listener.
    pub proxy: Proxy,
    /// Documents about runs on their way to Elasticsearch.
    pub reports: Reports,
    /// The lease on the site.
    pub leader: Leader,
    /// The loops of this process.
    pub loops: Loops,
    /// This process and its configuration.
    pub about: About,
    registry: Registry,
    declared: Vec<Declared>,
    families: declare::Families,
}

impl Deref for Metrics {
    type Target = All;

    fn deref(&self) -> &All {
        &self.0
    }
}

/// Metrics without entity types and tasks, for tests and one-off commands.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Labels::default())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Metrics({} declared)", self.declared.len())
    }
}

impl Metrics {
    /// Creates every metric, and with it every series that `labels` makes known.
    pub fn new(labels: &Labels) -> Self {
        let mut registrar = declare::Registrar::new(labels);
        let source = Source::declare(&mut registrar);
        let sync = Sync::declare(&mut registrar);
        let store = Store::declare(&mut registrar);
        let validation = Validation::declare(&mut registrar);
        let imports = Imports::declare(&mut registrar);
        let tasks = Tasks::declare(&mut registrar);
        let scheduler = Scheduler::declare(&mut registrar);
        let listeners = Listeners::declare(&mut registrar);
        let proxy = Proxy::declare(&mut registrar);
        let reports = Reports::declare(&mut registrar);
        let leader = Leader::declare(&mut registrar);
        let loops = Loops::declare(&mut registrar);
        let about = About::declare(&mut registrar);
        about.build_info.set_info(&about_build());
        registrar.process();
        let (registry, declared, families) = registrar.finish();
        Self(Arc::new(All {
            source,
            sync,
            store,
            validation,
            imports,
            tasks,
            scheduler,
            listeners,
            proxy,
            reports,
            leader,
            loops,
            about,
            registry,
            declared,
            families,
        }))
    }

    /// Makes `labels` the known ones: new series start, those of types and tasks
    /// that left the configuration disappear.
    pub fn relabel(&self, labels: &Labels) {
        self.families.relabel(labels);
    }

    /// Returns every metric in the text format 0.0.4.
    ///
    /// Takes no lock that a measuring thread holds for longer than one addition.
    pub fn render(&self) -> String {
        let started = Instant::now();
        let text = TextEncoder::new().encode_to_string(&self.registry.gather());
        self.about.scrape_duration_seconds.set(started.elapsed().as_secs_f64());
        text.unwrap_or_else(|error| format!("# metrics cannot be written as text: {error}\n"))
    }

    /// Returns what is declared, for the checks of dashboards and rules.
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// Returns the value of one series, a histogram's number of observations;
    /// `None` when there is no such series.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metric = family.get_metric().iter().find(|metric| {
            let has = |name: &str, value: &str| {
                metric.get_label().iter().any(|pair| pair.name() == name && pair.value() == value)
            };
            labels.iter().all(|(name, value)| has(name, value))
        })?;
        Some(match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
            prometheus::proto::MetricType::HISTOGRAM => metric.get_histogram().get_sample_count() as f64,
            _ => metric.get_gauge().get_value(),
        })
    }
}

/// Version, revision and compiler, as far as the build knows them.
fn about_build() -> [&'static str; 3] {
    [
        env!("CARGO_PKG_VERSION"),
        option_env!("SGCACHE_REVISION").unwrap_or("unknown"),
        option_env!("SGCACHE_RUSTC").unwrap_or("unknown"),
    ]
}

#[cfg(test)]
mod tests;
