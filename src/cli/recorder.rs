//! Writes down what the scheduler reports: the history of runs, the plan, and
//! what the status page shows of them.
//!
//! The scheduler does not wait for a disk, so its events are queued here and one
//! task writes them in their order. The queue is as long as the events that the
//! scheduler reports during one slow write, a few per second. It ends with the
//! scheduler, and everything in it is written before the daemon ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Failure;
use super::daemon::labels;
use super::engine::Engine;
use super::snapshot::Snapshots;
use super::task_gauges::TaskGauges;
use crate::pipeline::{Event, Observer, Outputs, Pipeline, PlanState};
use crate::server::Heartbeat;

/// Returns the observer for the scheduler, and the task that writes what it
/// reports.
pub(super) fn recorder(
    engine: &Arc<Engine>,
    pipelines: &[Arc<Pipeline>],
    plan: &PlanState,
    snapshots: &Arc<Snapshots>,
    heartbeat: &Heartbeat,
) -> (Observer, impl Future<Output = ()> + use<>) {
    let (queue, mut queued) = mpsc::unbounded_channel();
    let heartbeat = heartbeat.clone();
    let observer: Observer = Arc::new(move |event| {
        if let Event::Beat(_) = &event {
            heartbeat.beat();
        }
        // Without a receiver the process is ending and nothing is left to write to.
        let _ = queue.send(event);
    });
    let (engine, snapshots) = (Arc::clone(engine), Arc::clone(snapshots));
    let gauges = TaskGauges::new(engine.online.metrics.clone(), pipelines, plan);
    let mut outputs = outputs_of(pipelines);
    let record = async move {
        while let Some(event) = queued.recv().await {
            if let Event::Reloaded(pipelines) = &event {
                let layouts = engine.replica.configured();
                let types = layouts.iter().map(|layout| layout.entity_type.as_str());
                engine.online.metrics.relabel(&labels(types, pipelines));
                outputs = outputs_of(pipelines);
            }
            if let Err(failure) = write(&engine, &outputs, &event).await {
                tracing::error!(error = %failure.message, "the history could not be written");
            }
            gauges.note(&event);
            snapshots.note(&event).await;
        }
    };
    (observer, record)
}

fn outputs_of(pipelines: &[Arc<Pipeline>]) -> BTreeMap<String, Outputs> {
    pipelines.iter().map(|pipeline| (pipeline.name.clone(), pipeline.outputs)).collect()
}

async fn write(engine: &Engine, outputs: &BTreeMap<String, Outputs>, event: &Event) -> Result<(), Failure> {
    match event {
        Event::Started(report) => engine.remember(report).await,
        Event::Ended(report) => engine.keep(report, outputs.get(&report.pipeline).copied().unwrap_or_default()).await,
        Event::Planned(plan) => {
            let plan = serde_json::to_value(plan).map_err(|error| Failure::internal(error.to_string()))?;
            Ok(engine.online.state.set_plan(&plan).await?)
        }
        Event::Skipped { .. }
        | Event::Queued { .. }
        | Event::ClockJump(_)
        | Event::Paused { .. }
        | Event::Reloaded(_)
        | Event::Beat(_) => Ok(()),
    }
}
