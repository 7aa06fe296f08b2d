//! The loops that run pipelines: the heartbeat and the scheduler.
//!
//! A scheduler that is started again continues from the stored plan, with the
//! definitions that were in use; runs that ended with it are closed in the history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::engine::Engine;
use crate::pipeline::{self, Command, Event, Heartbeat, Observer, Pauses, Pipeline, PlanState, Previous};
use crate::report::{self, RunReport};
use crate::state::State;
use crate::supervisor::beat;

/// How long runs may take to end once the daemon is told to stop.
const PATIENCE: Duration = Duration::from_secs(25);
/// How soon the next instant must come; there is one per second.
const HEARTBEAT_BOUND: Duration = Duration::from_secs(30);

/// Runs pipelines.
pub(super) struct Scheduler {
    engine: Arc<Engine>,
    /// The definitions in use: those of the last reload.
    pipelines: Arc<Mutex<Vec<Arc<Pipeline>>>>,
    overrides: BTreeMap<String, String>,
    observer: Observer,
    pauses: watch::Receiver<Option<Pauses>>,
    beats: tokio::sync::Mutex<mpsc::Receiver<DateTime<Utc>>>,
    commands: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    drained: Arc<AtomicBool>,
}

/// What a scheduler listens to.
pub(super) struct Inputs {
    /// Who is paused.
    pub pauses: watch::Receiver<Option<Pauses>>,
    /// Its instants.
    pub beats: mpsc::Receiver<DateTime<Utc>>,
    /// What is asked of it.
    pub commands: mpsc::Receiver<Command>,
}

impl Scheduler {
    /// Returns a scheduler of these pipelines, and whether every run had ended by
    /// itself when it stopped, which is false before.
    pub fn new(
        engine: &Arc<Engine>,
        pipelines: Vec<Arc<Pipeline>>,
        overrides: BTreeMap<String, String>,
        observer: Observer,
        inputs: Inputs,
    ) -> (Arc<Self>, Arc<AtomicBool>) {
        let pipelines = Arc::new(Mutex::new(pipelines));
        let in_use = Arc::clone(&pipelines);
        let observer: Observer = Arc::new(move |event| {
            if let Event::Reloaded(pipelines) = &event {
                in_use.lock().clone_from(pipelines);
            }
            observer(event);
        });
        let drained = Arc::new(AtomicBool::new(false));
        let scheduler = Self {
            engine: Arc::clone(engine),
            pipelines,
            overrides,
            observer,
            pauses: inputs.pauses,
            beats: tokio::sync::Mutex::new(inputs.beats),
            commands: tokio::sync::Mutex::new(inputs.commands),
            drained: Arc::clone(&drained),
        };
        (Arc::new(scheduler), drained)
    }

    /// Runs pipelines until the shutdown.
    pub async fn run(&self) {
        match self.begin().await {
            Ok(daemon) => {
                let (mut beats, mut commands) = (self.beats.lock().await, self.commands.lock().await);
                let drained = daemon.run(&mut beats, &mut commands, PATIENCE).await;
                self.drained.store(drained, Ordering::Relaxed);
            }
            // Ending early, it is started again.
            Err(failure) => tracing::error!(error = %failure.message, "the plan cannot be continued"),
        }
    }

    async fn begin(&self) -> Result<pipeline::Daemon, Failure> {
        let pipelines = self.pipelines.lock().clone();
        let stored = stored_plan(&self.engine.online.state).await?;
        let previous = restore(&self.engine, &pipelines).await?;
        let (runner, observer) = (self.engine.runner.clone(), Arc::clone(&self.observer));
        let pauses = self.pauses.clone();
        let overrides = self.overrides.clone();
        let daemon = pipeline::Daemon::new(runner, pipelines, &stored, Utc::now(), overrides, observer);
        Ok(daemon.with_previous(previous).with_pauses(Arc::new(move || pauses.borrow().clone())))
    }
}

/// Returns the plan that the last scheduler left.
pub(super) async fn stored_plan(state: &State) -> Result<PlanState, Failure> {
    Ok(state.plan().await?.and_then(|plan| serde_json::from_value(plan).ok()).unwrap_or_default())
}

/// Reads which pipelines are paused; `None` when the state cannot be read.
pub(super) async fn read_pauses(state: &State) -> Option<Pauses> {
    Pauses::load(state)
        .await
        .inspect_err(|error| tracing::warn!(%error, "the pauses of pipelines could not be read"))
        .ok()
}

/// Hands on an instant per second, with the pauses of that moment, until `stop`.
pub(super) async fn give_instants(
    beats: mpsc::Sender<DateTime<Utc>>,
    pauses: watch::Sender<Option<Pauses>>,
    state: State,
    stop: CancellationToken,
) {
    let mut heartbeat = match Heartbeat::start().await {
        Ok(heartbeat) => heartbeat,
        // Ending early, it is started again.
        Err(error) => return tracing::error!(%error, "the heartbeat does not start"),
    };
    loop {
        beat(HEARTBEAT_BOUND).await;
        tokio::select! {
            () = stop.cancelled() => break,
            now = heartbeat.next() => match now {
                Some(now) => {
                    pauses.send_replace(read_pauses(&state).await);
                    // A full channel means that the scheduler is busy with the last beat.
                    let _ = beats.try_send(now);
                }
                None => break,
            },
        }
    }
    heartbeat.stop().await;
}

/// Fills the gauges about last runs from the history, closes runs that ended without a
/// report, and returns how the last run of each pipeline ended.
async fn restore(engine: &Engine, pipelines: &[Arc<Pipeline>]) -> Result<BTreeMap<String, Previous>, Failure> {
    let mut previous = BTreeMap::new();
    for pipeline in pipelines {
        let rows = engine.online.state.runs(1, Some(&pipeline.name)).await?;
        let Some(mut report) = rows.into_iter().find_map(|row| serde_json::from_value::<RunReport>(row.report).ok())
        else {
            continue;
        };
        match report.finished_at {
            Some(finished_at) => {
                report::prometheus::restore(&engine.online.metrics, &report);
                previous.insert(pipeline.name.clone(), Previous { status: report.status, finished_at });
            }
            None => {
                // It ran when the process, or the scheduler, before this one died.
                report.finished_at = Some(Utc::now());
                report.reason = Some("the daemon ended before the run did".to_owned());
                engine.remember(&report).await?;
            }
        }
    }
    Ok(previous)
}
