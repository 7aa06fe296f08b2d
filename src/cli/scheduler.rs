//! The loops that run pipelines: the heartbeat and the scheduler.
//!
//! A scheduler that is started again continues from the stored plan, with the
//! definitions that were in use; runs that ended with it are reported as interrupted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::engine::{Engine, claim};
use super::leadership;
use crate::pipeline::{
    self, ClaimSource, Command, Event, Heartbeat, Observer, Pauses, Pipeline, PlanState, SkipReason,
};
use crate::report::{self, RunReport, history};
use crate::state::{State, StateError, Unreadable};
use crate::supervisor::beat;

/// How long runs may take to end once the daemon stops.
const PATIENCE: Duration = Duration::from_secs(25);
/// How soon the next instant must come; there is one per second.
const HEARTBEAT_BOUND: Duration = Duration::from_secs(30);

/// Runs pipelines.
pub(super) struct Scheduler {
    engine: Arc<Engine>,
    /// The definitions in use: those of the last reload.
    pipelines: Arc<Mutex<Vec<Arc<Pipeline>>>>,
    unfinished: Arc<UnfinishedRuns>,
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
        let unfinished = Arc::<UnfinishedRuns>::default();
        let noted = Arc::clone(&unfinished);
        let observer: Observer = Arc::new(move |event| {
            if let Event::Reloaded(pipelines) = &event {
                in_use.lock().clone_from(pipelines);
            }
            noted.note(&event);
            observer(event);
        });
        let drained = Arc::new(AtomicBool::new(false));
        let scheduler = Self {
            engine: Arc::clone(engine),
            pipelines,
            unfinished,
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
        for lost in self.unfinished.take_interrupted(Utc::now()) {
            (self.observer)(Event::Ended(Box::new(lost)));
        }
        let (runner, observer) = (self.engine.runner.clone(), Arc::clone(&self.observer));
        let pauses = self.pauses.clone();
        let overrides = self.overrides.clone();
        let daemon = pipeline::Daemon::new(runner, pipelines, &stored, Utc::now(), overrides, observer);
        let claims = claims(&self.engine);
        Ok(daemon.with_claims(claims).with_pauses(Arc::new(move || pauses.borrow().clone())))
    }
}

/// The runs of this process that have begun and not ended. A scheduler that breaks off
/// takes its runs with it, and nothing else would report their end as long as the
/// process, which owns them, lives.
#[derive(Default)]
struct UnfinishedRuns(Mutex<BTreeMap<String, RunReport>>);

impl UnfinishedRuns {
    fn note(&self, event: &Event) {
        match event {
            Event::Started(report) => drop(self.0.lock().insert(report.run_id.clone(), RunReport::clone(report))),
            Event::Ended(report) => drop(self.0.lock().remove(&report.run_id)),
            _ => {}
        }
    }

    /// Returns the reports of runs that will not end by themselves any more.
    fn take_interrupted(&self, now: DateTime<Utc>) -> Vec<RunReport> {
        let lost = std::mem::take(&mut *self.0.lock());
        let close = |report| RunReport {
            finished_at: Some(now),
            reason: Some("the scheduler ended before the run did".to_owned()),
            ..report
        };
        lost.into_values().map(close).collect()
    }
}

/// Claims pipelines among all processes of the data directory, and leaves them to the
/// leader where several hosts share the store.
fn claims(engine: &Engine) -> ClaimSource {
    let (state, replica) = (engine.online.state.clone(), engine.replica.clone());
    Arc::new(move |pipeline| {
        let (state, waiting) = (state.clone(), leadership::waiting(&replica));
        Box::pin(async move {
            match waiting {
                Some(waiting) => Err(SkipReason::NotLeader(waiting.message)),
                None => Ok(Box::new(claim(&state, &pipeline).await?) as Box<dyn Send>),
            }
        })
    })
}

/// Returns the plan that the last scheduler left.
pub(super) async fn stored_plan(state: &State) -> Result<PlanState, Failure> {
    let anew = |error: &dyn std::fmt::Display| {
        Unreadable::Plan.note("the plan of the scheduler: what is due is planned anew", error);
        PlanState::default()
    };
    match state.plan().await {
        Ok(Some(plan)) => Ok(serde_json::from_value(plan).unwrap_or_else(|error| anew(&error))),
        Ok(None) => Ok(PlanState::default()),
        Err(error @ StateError::Malformed { .. }) => Ok(anew(&error)),
        Err(error) => Err(error.into()),
    }
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

/// Ends the runs of processes that died, and fills the gauges about last runs from
/// the history.
pub(super) async fn restore(engine: &Engine, pipelines: &[Arc<Pipeline>]) -> Result<(), Failure> {
    let state = &engine.online.state;
    history::close_abandoned(state).await?;
    for pipeline in pipelines {
        if let Some(report) = history::last_finished(state, &pipeline.name).await? {
            report::prometheus::restore(&engine.online.metrics, &report);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn runs_that_a_scheduler_took_with_it_are_interrupted_once() {
        let (runs, lost, ended) = (
            UnfinishedRuns::default(),
            Box::new(RunReport::of_schedule("lost")),
            Box::new(RunReport::of_schedule("ended")),
        );
        runs.note(&Event::Started(lost.clone()));
        runs.note(&Event::Started(ended.clone()));
        runs.note(&Event::Ended(ended));
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(5);
        let interrupted = runs.take_interrupted(now);
        let [report] = &interrupted[..] else { panic!("{interrupted:?}") };
        assert_eq!((&report.run_id, report.status), (&lost.run_id, Status::Interrupted));
        assert_eq!(report.finished_at, Some(now));
        assert!(runs.take_interrupted(now).is_empty());
    }
}
