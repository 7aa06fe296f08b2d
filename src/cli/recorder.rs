//! Writes down what the scheduler reports: the history of runs, the plan, and
//! what the status page shows of them.
//!
//! The scheduler does not wait for a disk, so its events are queued here and one
//! loop writes them in their order. The queue is as long as the events that the
//! scheduler reports during one slow write, a few per second. The loop ends with the
//! scheduler, and everything in the queue is written before the daemon ends.
//!
//! Runs of other processes on the same data directory (`sgcache job`, `run --once`) are
//! found in the history and count in the metrics and the status like own ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Failure;
use super::alarm_watch::AlarmWatch;
use super::engine::Engine;
use super::instance::instance;
use super::pipelines::diff;
use super::service_manager;
use super::status_report::StatusReporter;
use super::task_gauges::TaskGauges;
use super::task_series::TaskSeries;
use crate::pipeline::{Event, Observer, Outputs, Pipeline, PlanState, scheduled_scans};
use crate::report::{RunReport, history, prometheus};
use crate::supervisor::beat;

/// Runs that ended last and are looked at for those of other processes; more do not end
/// between two beats.
const RECENT: usize = 100;
/// How long it may take to write one event.
const WRITE_BOUND: Duration = Duration::from_secs(120);

/// Takes the events of the scheduler from a queue, also after it was started again: what
/// is in the queue is not lost.
pub(super) struct Recorder {
    engine: Arc<Engine>,
    snapshots: Arc<StatusReporter>,
    series: TaskSeries,
    gauges: TaskGauges,
    alarms: AlarmWatch,
    queued: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    outputs: Mutex<BTreeMap<String, Outputs>>,
    /// Finished runs that the metrics know.
    counted: Mutex<BTreeSet<String>>,
}

impl Recorder {
    /// Returns the observer for the scheduler, and the recorder of what it reports.
    ///
    /// # Errors
    ///
    /// When the history cannot be read.
    pub async fn new(
        engine: &Arc<Engine>,
        pipelines: &[Arc<Pipeline>],
        plan: &PlanState,
        snapshots: &Arc<StatusReporter>,
    ) -> Result<(Observer, Arc<Self>), Failure> {
        let (queue, queued) = mpsc::unbounded_channel();
        let observer: Observer = Arc::new(move |event| {
            // Without a receiver the process is ending and nothing is left to write to.
            let _ = queue.send(event);
        });
        let replica = engine.replica.clone();
        let types = move || replica.configured().iter().map(|layout| layout.entity_type.to_string()).collect();
        diff::remember(&engine.online.state, pipelines).await?;
        engine.replica.set_scheduled_scans(scheduled_scans(pipelines));
        let recorder = Self {
            engine: Arc::clone(engine),
            snapshots: Arc::clone(snapshots),
            series: TaskSeries::new(engine.online.metrics.clone(), Box::new(types), pipelines),
            gauges: TaskGauges::new(engine.online.metrics.clone(), pipelines, plan),
            alarms: AlarmWatch::new(&engine.online.state, pipelines).await?,
            queued: tokio::sync::Mutex::new(queued),
            outputs: Mutex::new(outputs_of(pipelines)),
            counted: Mutex::new(engine.online.state.finished_run_ids(RECENT).await?.into_iter().collect()),
        };
        Ok((observer, Arc::new(recorder)))
    }

    /// Writes events until the scheduler is gone.
    pub async fn run(&self) {
        let mut queued = self.queued.lock().await;
        loop {
            beat(Duration::MAX).await;
            let Some(event) = queued.recv().await else { return };
            beat(WRITE_BOUND).await;
            self.record(&event).await;
        }
    }

    async fn record(&self, event: &Event) {
        if let Event::Reloaded(pipelines) = event {
            // What still runs of a removed pipeline reports as it did before.
            self.outputs.lock().extend(outputs_of(pipelines));
            self.engine.replica.set_scheduled_scans(scheduled_scans(pipelines));
        }
        if let Err(failure) = self.write(event).await {
            tracing::error!(error = %failure.message, "the history could not be written");
        }
        if let Event::Beat(_) = event
            && let Err(failure) = self.count_others().await
        {
            tracing::error!(error = %failure.message, "the history could not be read");
        }
        self.series.note(event);
        self.gauges.note(event);
        self.alarms.note(&self.engine, event).await;
        self.snapshots.note(event).await;
        if let Event::Beat(_) = event {
            service_manager::alive();
        }
    }

    /// Counts the runs that other processes have ended since the last time.
    async fn count_others(&self) -> Result<(), Failure> {
        let state = &self.engine.online.state;
        let ended = state.finished_run_ids(RECENT).await?;
        let known = std::mem::take(&mut *self.counted.lock());
        for run_id in ended.iter().rev().filter(|run_id| !known.contains(*run_id)) {
            let Some(report) = history::run(state, run_id).await? else { continue };
            prometheus::record(&self.engine.online.metrics, &report);
            self.snapshots.note(&Event::Ended(Box::new(report))).await;
        }
        self.counted.lock().extend(ended);
        Ok(())
    }

    async fn write(&self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::Started(report) => self.engine.begin(report).await,
            Event::Ended(report) => {
                self.counted.lock().insert(report.run_id.clone());
                let outputs = self.outputs.lock().get(&report.pipeline).cloned().unwrap_or_default();
                self.engine.keep(report, &outputs).await
            }
            Event::Planned(plan) => {
                let plan = serde_json::to_value(plan).map_err(|error| Failure::internal(error.to_string()))?;
                Ok(self.engine.online.state.set_plan(&plan).await?)
            }
            Event::Skipped { pipeline, scheduled_for, reason } => {
                let (now, reason) = (Utc::now(), reason.to_string());
                let skipped = RunReport::skipped_occurrence(pipeline, *scheduled_for, reason, now, instance());
                Ok(history::remember(&self.engine.online.state, &skipped).await?)
            }
            Event::Reloaded(pipelines) => Ok(diff::remember(&self.engine.online.state, pipelines).await?),
            Event::Queued { .. } | Event::ClockJump(_) | Event::Paused { .. } | Event::Beat(_) => Ok(()),
        }
    }
}

fn outputs_of(pipelines: &[Arc<Pipeline>]) -> BTreeMap<String, Outputs> {
    pipelines.iter().map(|pipeline| (pipeline.name.clone(), pipeline.outputs.clone())).collect()
}
