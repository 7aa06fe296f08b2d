//! Registers what `table` declares, and remembers it.
//!
//! A wrong declaration (a name twice, buckets out of order) is a mistake in
//! this crate that every test would hit, so it panics with the name in it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use super::family::{Axis, Counters, Family, Gauges, Histograms, Labels, Relabel};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// One declared metric.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its full name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its label names, in order.
    pub labels: Vec<&'static str>,
    /// Its help text.
    pub help: &'static str,
}

/// The value that a gauge has before it was set.
#[derive(Debug, Clone, Copy)]
pub enum First {
    /// Zero.
    Zero,
    /// One.
    One,
    /// Not a number: nothing is known yet, and every comparison is false.
    Unknown,
    /// The moment at which the process started.
    Start,
}

impl First {
    fn value(self) -> f64 {
        match self {
            First::Zero => 0.0,
            First::One => 1.0,
            First::Unknown => f64::NAN,
            First::Start => seconds(Utc::now()),
        }
    }
}

/// Returns a moment in seconds since 1970, the unit of `_timestamp_seconds` gauges.
pub fn seconds(moment: DateTime<Utc>) -> f64 {
    moment.timestamp_micros() as f64 / 1e6
}

/// Every family whose label sets follow the configuration.
pub struct Families {
    labels: Arc<RwLock<Labels>>,
    families: Vec<Box<dyn Relabel>>,
}

impl Families {
    /// Makes `labels` the known ones.
    pub fn relabel(&self, labels: &Labels) {
        let mut known = self.labels.write();
        let old = std::mem::replace(&mut *known, labels.clone());
        for family in &self.families {
            family.relabel(&old, labels);
        }
    }
}

/// Collects declarations.
pub struct Registrar {
    registry: Registry,
    declared: Vec<Declared>,
    families: Families,
}

impl Registrar {
    pub(super) fn new(labels: &Labels) -> Self {
        let labels = Arc::new(RwLock::new(labels.clone()));
        let families = Families { labels, families: Vec::new() };
        Self { registry: Registry::new(), declared: Vec::new(), families }
    }

    pub(super) fn finish(self) -> (Registry, Vec<Declared>, Families) {
        (self.registry, self.declared, self.families)
    }

    /// Adds the `process_*` metrics where the system has them.
    pub(super) fn process(&mut self) {
        #[cfg(target_os = "linux")]
        {
            let process = prometheus::process_collector::ProcessCollector::for_self();
            // Fails only when it is registered twice, and this registry is new.
            let _ = self.registry.register(Box::new(process));
        }
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> IntCounter {
        self.add(name, Kind::Counter, &[], help, IntCounter::new(name, help))
    }

    pub(super) fn seconds_counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.add(name, Kind::Counter, &[], help, Counter::new(name, help))
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, first: First) -> Gauge {
        let gauge = self.add(name, Kind::Gauge, &[], help, Gauge::new(name, help));
        gauge.set(first.value());
        gauge
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(name, Kind::Histogram, &[], help, Histogram::with_opts(opts))
    }

    pub(super) fn counters(&mut self, name: &'static str, help: &'static str, axes: &[Axis]) -> Counters {
        let labels = label_names(axes);
        let vector = IntCounterVec::new(Opts::new(name, help), &labels);
        let vector = self.add(name, Kind::Counter, &labels, help, vector);
        self.family(Family::new(vector, axes, 0.0, &self.families.labels))
    }

    pub(super) fn gauges(&mut self, name: &'static str, help: &'static str, axes: &[Axis], first: First) -> Gauges {
        let labels = label_names(axes);
        let vector = GaugeVec::new(Opts::new(name, help), &labels);
        let vector = self.add(name, Kind::Gauge, &labels, help, vector);
        self.family(Family::new(vector, axes, first.value(), &self.families.labels))
    }

    pub(super) fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        axes: &[Axis],
        buckets: &[f64],
    ) -> Histograms {
        let labels = label_names(axes);
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let vector = HistogramVec::new(opts, &labels);
        let vector = self.add(name, Kind::Histogram, &labels, help, vector);
        self.family(Family::new(vector, axes, 0.0, &self.families.labels))
    }

    fn family<V>(&mut self, family: Family<V>) -> Family<V>
    where
        Family<V>: Relabel + Clone + 'static,
    {
        self.families.families.push(Box::new(family.clone()));
        family
    }

    fn add<C: Collector + Clone + 'static>(
        &mut self,
        name: &'static str,
        kind: Kind,
        labels: &[&'static str],
        help: &'static str,
        made: prometheus::Result<C>,
    ) -> C {
        let registered = made.and_then(|metric| {
            self.registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        });
        self.declared.push(Declared { name, kind, labels: labels.to_vec(), help });
        registered.unwrap_or_else(|error| panic!("metric {name} is declared wrongly: {error}"))
    }
}

fn label_names(axes: &[Axis]) -> Vec<&'static str> {
    axes.iter().flat_map(|axis| axis.names()).collect()
}

/// Declares a struct of metrics; the doc comment of each is its help text.
macro_rules! metrics {
    (
        $(#[doc = $about:literal])+
        struct $noun:ident {
            $(
                $(#[doc = $help:literal])+
                $field:ident: $type:ty = $make:ident($name:literal $(, $argument:expr)*);
            )+
        }
    ) => {
        $(#[doc = $about])+
        pub struct $noun {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl $noun {
            pub(super) fn declare(registrar: &mut $crate::metrics::declare::Registrar) -> Self {
                Self {
                    $($field: registrar.$make($name, concat!($($help),+).trim() $(, $argument)*),)+
                }
            }
        }
    };
}

pub(super) use metrics;
