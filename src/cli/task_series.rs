//! [`TaskSeries`]: which series of pipelines there are in the metrics. Those of a
//! pipeline that was removed stay until its run has ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::metrics::{Labels, Metrics};
use crate::pipeline::{Event, Pipeline};

/// Keeps the labels of the metrics in step with the pipelines.
pub struct TaskSeries {
    metrics: Metrics,
    entity_types: EntityTypes,
    known: Mutex<Known>,
}

/// Returns the entity types that are configured now.
pub type EntityTypes = Box<dyn Fn() -> Vec<String> + Send + Sync>;

struct Known {
    current: Vec<Arc<Pipeline>>,
    /// Removed, and still running.
    leaving: Vec<Arc<Pipeline>>,
    running: BTreeSet<String>,
}

impl TaskSeries {
    /// Starts with pipelines whose series exist.
    pub fn new(metrics: Metrics, entity_types: EntityTypes, pipelines: &[Arc<Pipeline>]) -> Self {
        let known = Known { current: pipelines.to_vec(), leaving: Vec::new(), running: BTreeSet::new() };
        Self { metrics, entity_types, known: Mutex::new(known) }
    }

    /// Takes note of what happened; the end of a run must be in the metrics by then.
    pub fn note(&self, event: &Event) {
        // A panic elsewhere leaves a series too many, never a torn list.
        let mut known = self.known.lock();
        match event {
            Event::Started(report) => drop(known.running.insert(report.pipeline.clone())),
            Event::Ended(report) => {
                known.running.remove(&report.pipeline);
                let before = known.leaving.len();
                known.leaving.retain(|pipeline| pipeline.name != report.pipeline);
                if known.leaving.len() != before {
                    self.relabel(&known);
                }
            }
            Event::Reloaded(pipelines) => {
                known.replace(pipelines);
                self.relabel(&known);
            }
            _ => {}
        }
    }

    fn relabel(&self, known: &Known) {
        let all: Vec<Arc<Pipeline>> = known.current.iter().chain(&known.leaving).cloned().collect();
        self.metrics.relabel(&labels((self.entity_types)().iter().map(String::as_str), &all));
    }
}

impl Known {
    fn replace(&mut self, pipelines: &[Arc<Pipeline>]) {
        let old = std::mem::replace(&mut self.current, pipelines.to_vec());
        self.leaving.extend(old);
        let (current, running) = (&self.current, &self.running);
        let is_gone = |name: &str| current.iter().all(|pipeline| pipeline.name != name);
        self.leaving.retain(|pipeline| running.contains(&pipeline.name) && is_gone(&pipeline.name));
    }
}

/// Returns the labels of every series of these types and pipelines.
pub fn labels<'a>(entity_types: impl Iterator<Item = &'a str>, pipelines: &[Arc<Pipeline>]) -> Labels {
    let mut labels = Labels::new(entity_types);
    for pipeline in pipelines {
        for step in pipeline.steps.iter().chain(&pipeline.on_drift) {
            labels = labels.with_task(&pipeline.name, &step.id);
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{JobSpec, PruneReportsArgs};
    use crate::report::RunReport;

    fn pipeline(name: &str) -> Arc<Pipeline> {
        let spec = JobSpec::PruneReports(PruneReportsArgs::default());
        Arc::new(Pipeline { name: name.to_owned(), ..Pipeline::single(spec, None, None) })
    }

    #[test]
    fn the_series_of_a_removed_pipeline_stay_until_its_run_has_ended() {
        let all = [pipeline("goes"), pipeline("stays")];
        let metrics = Metrics::new(&labels(["Shot"].into_iter(), &all));
        let series = TaskSeries::new(metrics.clone(), Box::new(|| vec!["Shot".to_owned()]), &all);
        let shown = || metrics.render().contains("pipeline=\"goes\"");
        series.note(&Event::Started(Box::new(RunReport::of_schedule("goes"))));
        series.note(&Event::Reloaded(vec![all[1].clone()]));
        assert!(shown(), "it still runs");
        series.note(&Event::Ended(Box::new(RunReport::of_schedule("goes"))));
        assert!(!shown() && metrics.render().contains("pipeline=\"stays\""));
    }
}
