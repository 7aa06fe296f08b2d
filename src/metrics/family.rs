//! Metrics with labels, kept inside their known label sets.
//!
//! Cardinality is decided here and nowhere else: a value that is not in the
//! fixed set of its label becomes `other`, so neither a typing error nor a site
//! with 600 entity types can flood Prometheus.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec};

/// What a value outside its set becomes.
pub const OTHER: &str = "other";

/// The label values that come from the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    entity_types: BTreeSet<String>,
    tasks: BTreeSet<(String, String)>,
}

impl Labels {
    /// Returns labels for these entity types and no tasks.
    pub fn new<T: ToString>(entity_types: impl IntoIterator<Item = T>) -> Self {
        let entity_types = entity_types.into_iter().map(|ty| ty.to_string()).collect();
        Self { entity_types, tasks: BTreeSet::new() }
    }

    /// Adds a task of a pipeline.
    #[must_use]
    pub fn with_task(mut self, pipeline: impl ToString, task: impl ToString) -> Self {
        self.tasks.insert((pipeline.to_string(), task.to_string()));
        self
    }

    fn knows_pipeline(&self, pipeline: &str) -> bool {
        self.tasks.iter().any(|(known, _)| known == pipeline)
    }

    fn knows_task(&self, pipeline: &str, task: &str) -> bool {
        self.tasks.iter().any(|(of, known)| of == pipeline && known == task)
    }
}

/// Where the values of a label come from.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    /// A fixed set.
    Fixed(&'static str, &'static [&'static str]),
    /// Label `entity_type`, from the entity configs.
    EntityType,
    /// Labels `pipeline` and `task`.
    Task,
    /// Label `pipeline`.
    Pipeline,
    /// One value at a time, for `_info` metrics.
    Free(&'static str),
}

impl Axis {
    /// The label names of this axis.
    pub fn names(self) -> Vec<&'static str> {
        match self {
            Axis::Fixed(name, _) | Axis::Free(name) => vec![name],
            Axis::EntityType => vec!["entity_type"],
            Axis::Task => vec!["pipeline", "task"],
            Axis::Pipeline => vec!["pipeline"],
        }
    }

    /// Every value set that exists from the start.
    fn sets(self, labels: &Labels) -> Vec<Vec<String>> {
        match self {
            Axis::Fixed(_, values) => values.iter().map(|value| vec![value.to_string()]).collect(),
            Axis::EntityType => labels.entity_types.iter().map(|ty| vec![ty.clone()]).collect(),
            Axis::Task => labels.tasks.iter().map(|(of, task)| vec![of.clone(), task.clone()]).collect(),
            Axis::Pipeline => {
                let names: BTreeSet<_> = labels.tasks.iter().map(|(of, _)| of.clone()).collect();
                names.into_iter().map(|name| vec![name]).collect()
            }
            Axis::Free(_) => Vec::new(),
        }
    }

    /// Replaces what is not known by `other`.
    fn resolve(self, values: &mut [&str], labels: &Labels) {
        let known = match self {
            Axis::Fixed(_, set) => set.contains(&values[0]),
            Axis::EntityType => labels.entity_types.contains(values[0]),
            Axis::Task => labels.knows_task(values[0], values[1]),
            Axis::Pipeline => labels.knows_pipeline(values[0]),
            Axis::Free(_) => true,
        };
        if !known {
            values.fill(OTHER);
        }
    }
}

/// The kinds of labelled metrics.
pub trait Vector: Clone {
    /// One series.
    type Child;
    /// Returns the series with these label values, creating it.
    fn child(&self, values: &[&str]) -> Self::Child;
    /// Creates the series with its first value.
    fn create(&self, values: &[&str], first: f64);
    /// Removes the series.
    fn remove(&self, values: &[&str]);
    /// Removes every series.
    fn clear(&self);
}

impl Vector for IntCounterVec {
    type Child = IntCounter;
    fn child(&self, values: &[&str]) -> IntCounter {
        self.with_label_values(values)
    }
    fn create(&self, values: &[&str], _first: f64) {
        self.with_label_values(values);
    }
    // Fails only for a series that is not there, which is what was asked for.
    fn remove(&self, values: &[&str]) {
        let _ = self.remove_label_values(values);
    }
    fn clear(&self) {
        self.reset();
    }
}

impl Vector for GaugeVec {
    type Child = Gauge;
    fn child(&self, values: &[&str]) -> Gauge {
        self.with_label_values(values)
    }
    fn create(&self, values: &[&str], first: f64) {
        self.with_label_values(values).set(first);
    }
    fn remove(&self, values: &[&str]) {
        let _ = self.remove_label_values(values);
    }
    fn clear(&self) {
        self.reset();
    }
}

impl Vector for HistogramVec {
    type Child = Histogram;
    fn child(&self, values: &[&str]) -> Histogram {
        self.with_label_values(values)
    }
    fn create(&self, values: &[&str], _first: f64) {
        self.with_label_values(values);
    }
    fn remove(&self, values: &[&str]) {
        let _ = self.remove_label_values(values);
    }
    fn clear(&self) {
        self.reset();
    }
}

/// A metric with labels.
#[derive(Clone)]
pub struct Family<V> {
    vector: V,
    axes: Arc<[Axis]>,
    first: f64,
    labels: Arc<RwLock<Labels>>,
}

/// Counters with labels.
pub type Counters = Family<IntCounterVec>;
/// Gauges with labels.
pub type Gauges = Family<GaugeVec>;
/// Histograms with labels.
pub type Histograms = Family<HistogramVec>;

impl<V: Vector> Family<V> {
    /// Wraps `vector`, whose label names are those of `axes`, and creates its series.
    pub(super) fn new(vector: V, axes: &[Axis], first: f64, labels: &Arc<RwLock<Labels>>) -> Self {
        let family = Self { vector, axes: axes.into(), first, labels: labels.clone() };
        for set in family.sets(&read(labels)) {
            family.create(&set);
        }
        family
    }

    /// Returns the series of these label values, in the order of the declaration.
    ///
    /// # Panics
    ///
    /// When the number of values is not the declared one.
    pub fn at(&self, values: &[&str]) -> V::Child {
        let mut values = values.to_vec();
        let labels = read(&self.labels);
        let mut rest = values.as_mut_slice();
        for axis in self.axes.iter() {
            let (own, others) = rest.split_at_mut(axis.names().len());
            axis.resolve(own, &labels);
            rest = others;
        }
        self.vector.child(&values)
    }

    fn create(&self, set: &[String]) {
        self.vector.create(&as_strs(set), self.first);
    }

    /// The product of the sets of all axes.
    fn sets(&self, labels: &Labels) -> BTreeSet<Vec<String>> {
        let mut sets = BTreeSet::from([Vec::new()]);
        for axis in self.axes.iter() {
            let mut longer = BTreeSet::new();
            for start in &sets {
                for end in axis.sets(labels) {
                    longer.insert([start.as_slice(), &end].concat());
                }
            }
            sets = longer;
        }
        sets
    }
}

impl Counters {
    /// Adds one.
    pub fn inc(&self, values: &[&str]) {
        self.at(values).inc();
    }

    /// Adds `number`.
    pub fn add(&self, values: &[&str], number: u64) {
        self.at(values).inc_by(number);
    }
}

impl Gauges {
    /// Sets the value.
    pub fn set(&self, values: &[&str], value: f64) {
        self.at(values).set(value);
    }

    /// Makes this the only series, with value 1: what an `_info` metric is.
    pub fn set_info(&self, values: &[&str]) {
        self.vector.clear();
        self.at(values).set(1.0);
    }
}

impl Histograms {
    /// Adds an observation.
    pub fn observe(&self, values: &[&str], value: f64) {
        self.at(values).observe(value);
    }
}

/// A family whose label sets follow the configuration.
pub trait Relabel: Send + Sync {
    /// Creates and removes series so that `new` instead of `old` are the known ones.
    fn relabel(&self, old: &Labels, new: &Labels);
}

impl<V: Vector + Send + Sync> Relabel for Family<V> {
    fn relabel(&self, old: &Labels, new: &Labels) {
        let (before, after) = (self.sets(old), self.sets(new));
        for gone in before.difference(&after) {
            self.vector.remove(&as_strs(gone));
        }
        for added in after.difference(&before) {
            self.create(added);
        }
    }
}

fn as_strs(set: &[String]) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

/// Reads through poison: label sets are replaced whole, so they are never half changed.
fn read(labels: &RwLock<Labels>) -> parking_lot::RwLockReadGuard<'_, Labels> {
    labels.read()
}
