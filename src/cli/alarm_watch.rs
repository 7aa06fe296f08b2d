//! Raises the alarms of pipelines: looks with every beat of the scheduler how long each has
//! been silent, and fires `on_stalled` and `on_recovered`.
//!
//! Which alarms are raised is kept in the state, so that a restart repeats none. Delivery
//! takes its time, so it is a task of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;

use super::Failure;
use super::engine::Engine;
use super::leadership;
use crate::pipeline::{Alarm, Alarms, Event, Pipeline, Start};
use crate::report::{Status, history};
use crate::state::{RunFilter, State};

/// Where the raised alarms are, under this name in the state.
const PLACE: &str = "alarms";

pub(super) struct AlarmWatch {
    began: DateTime<Utc>,
    inner: Mutex<Inner>,
}

struct Inner {
    pipelines: Vec<Arc<Pipeline>>,
    alarms: Alarms,
    paused: BTreeSet<String>,
    /// When a run of each pipeline worked last.
    worked: BTreeMap<String, DateTime<Utc>>,
}

impl AlarmWatch {
    /// Goes on with the alarms that are raised.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn new(state: &State, pipelines: &[Arc<Pipeline>]) -> Result<AlarmWatch, Failure> {
        let mut worked = BTreeMap::new();
        for pipeline in pipelines {
            worked.extend(last_worked(state, &pipeline.name).await?.map(|at| (pipeline.name.clone(), at)));
        }
        let alarms = state.cursor(PLACE).await?.unwrap_or_default();
        let inner = Inner { pipelines: pipelines.to_vec(), alarms, paused: BTreeSet::new(), worked };
        Ok(AlarmWatch { began: Utc::now(), inner: Mutex::new(inner) })
    }

    /// Takes note of what happened, and raises or ends alarms with each beat.
    pub async fn note(&self, engine: &Engine, event: &Event) {
        match event {
            Event::Ended(report) if report.status.worked() => {
                let at = report.finished_at.unwrap_or_else(Utc::now);
                self.inner.lock().worked.insert(report.pipeline.clone(), at);
            }
            Event::Paused { pipeline, paused: true } => drop(self.inner.lock().paused.insert(pipeline.clone())),
            Event::Paused { pipeline, .. } => drop(self.inner.lock().paused.remove(pipeline)),
            Event::Reloaded(pipelines) => {
                let mut inner = self.inner.lock();
                inner.pipelines.clone_from(pipelines);
                inner.alarms.retain(|name| pipelines.iter().any(|pipeline| pipeline.name == name));
            }
            Event::Beat(now) => self.check(engine, *now).await,
            _ => {}
        }
    }

    async fn check(&self, engine: &Engine, now: DateTime<Utc>) {
        // Another host leads, and its daemon raises them.
        if leadership::waiting(&engine.replica).is_some() {
            return;
        }
        let (raised, alarms) = self.changes(engine, now);
        if raised.is_empty() {
            return;
        }
        if let Err(error) = engine.online.state.keep(PLACE, &alarms).await {
            tracing::warn!(%error, "the raised alarms could not be kept, a restart may repeat them");
        }
        for (pipeline, alarm) in raised {
            let runner = engine.runner.clone();
            tokio::spawn(async move { runner.fire_alarm(&pipeline, alarm).await });
        }
    }

    fn changes(&self, engine: &Engine, now: DateTime<Utc>) -> (Vec<(Arc<Pipeline>, Alarm)>, Alarms) {
        let mut inner = self.inner.lock();
        let mut raised = Vec::new();
        for pipeline in inner.pipelines.clone() {
            if inner.paused.contains(&pipeline.name) {
                continue;
            }
            let since_start = (now - self.began).to_std().unwrap_or_default();
            let since_work = match &pipeline.start {
                Start::Continuous(_) => since_poll(engine),
                _ => inner.worked.get(&pipeline.name).map(|at| (now - *at).to_std().unwrap_or_default()),
            };
            let silence = match since_work {
                Some(silence) => silence,
                // A start is no sign of life.
                None if inner.alarms.is_raised(&pipeline.name) => continue,
                None => since_start,
            };
            raised.extend(inner.alarms.check(&pipeline, silence, now).map(|alarm| (pipeline, alarm)));
        }
        (raised, inner.alarms.clone())
    }
}

/// Returns the time since the last poll that worked; `None` before the first one.
fn since_poll(engine: &Engine) -> Option<Duration> {
    let last = engine.following.follower()?.poll_status().last_success?;
    Some(engine.replica.now().since(last))
}

async fn last_worked(state: &State, pipeline: &str) -> Result<Option<DateTime<Utc>>, Failure> {
    let worked = Status::ALL.into_iter().filter(|status| status.worked());
    let filter = RunFilter {
        pipeline: Some(pipeline.to_owned()),
        statuses: worked.map(|status| status.to_string()).collect(),
        ..RunFilter::default()
    };
    Ok(history::find(state, 1, filter).await?.first().and_then(|report| report.finished_at))
}
