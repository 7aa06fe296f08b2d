//! Pipelines and their runs: start, stop, pause.
//!
//! A trigger with an idempotency key starts one run however often it is repeated: the key
//! is kept in the state with what it started, also over a restart. The newest
//! [`MAX_KEYS`] are known, by number and not by age, so that no clock decides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::super::pipeline_outlook::PipelineOutlook;
use super::Operator;
use crate::pipeline::{self, Command, Pause, Pauses, Pipeline, TriggerError};
use crate::report::{Trigger, history};
use crate::server::{Refusal, RefusalKind, Resumed, TriggerRequest};
use crate::yaml;

/// The name under which the state keeps idempotency keys.
const KEYS: &str = "idempotency_keys";
/// Idempotency keys that are known.
const MAX_KEYS: usize = 1000;

/// What a key started.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StartedByKey {
    key: String,
    pipeline: String,
    params: Map<String, Value>,
    #[serde(default)]
    resumed: Option<Resumed>,
    run_id: String,
}

impl Operator {
    pub(super) async fn trigger(&self, request: TriggerRequest) -> Result<Value, Refusal> {
        let Some(key) = request.idempotency_key.clone() else {
            let run_id = self.start(&request).await?;
            return Ok(json!({"run_id": run_id}));
        };
        let TriggerRequest { pipeline, params, resumed, .. } = &request;
        let state = &self.engine.online.state;
        let _turn = self.turn.lock().await;
        let mut known: VecDeque<StartedByKey> = state.kept(KEYS).await?.unwrap_or_default();
        if let Some(started) = known.iter().find(|started| started.key == key) {
            if (&started.pipeline, &started.params, &started.resumed) != (pipeline, params, resumed) {
                let message = format!(
                    "this idempotency key started run `{}` of `{}` with other parameters: use a new key",
                    started.run_id, started.pipeline
                );
                return Err(Refusal::new(RefusalKind::KeyReused, message));
            }
            return Ok(json!({"run_id": started.run_id, "repeated": true}));
        }
        let run_id = self.start(&request).await?;
        let TriggerRequest { pipeline, params, resumed, .. } = request;
        known.push_back(StartedByKey { key, pipeline, params, resumed, run_id: run_id.clone() });
        known.drain(..known.len().saturating_sub(MAX_KEYS));
        state.keep(KEYS, &known).await?;
        Ok(json!({"run_id": run_id}))
    }

    pub(super) async fn retry(
        &self,
        run_id: &str,
        from: Option<String>,
        idempotency_key: Option<String>,
    ) -> Result<Value, Refusal> {
        let report = history::run(&self.engine.online.state, run_id).await?;
        let report = report.ok_or_else(|| unknown_run(run_id))?;
        if report.definition_hash.is_empty() {
            let message = format!("run {run_id} is one of the job `{}` alone, not of a pipeline", report.pipeline);
            return Err(Refusal::new(RefusalKind::NotRetryable, message));
        }
        let params = report.params.into_iter().collect();
        let resumed = from.map(|step| Resumed { run_id: run_id.to_owned(), step });
        self.trigger(TriggerRequest { pipeline: report.pipeline, params, idempotency_key, resumed }).await
    }

    async fn start(&self, request: &TriggerRequest) -> Result<String, Refusal> {
        let TriggerRequest { pipeline, params, resumed, .. } = request;
        let resumed = match resumed {
            Some(Resumed { run_id, step }) => {
                let report = history::run(&self.engine.online.state, run_id).await?;
                let report = report.ok_or_else(|| unknown_run(run_id))?;
                if report.is_running() {
                    let message = format!("run `{run_id}` has not ended: its results cannot be used yet");
                    return Err(Refusal::new(RefusalKind::CannotStart, message));
                }
                Some((step.clone(), Box::new(report)))
            }
            None => None,
        };
        let written = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let set: BTreeMap<_, _> = params.iter().map(|(name, value)| (name.clone(), written(value))).collect();
        let (answer, answered) = oneshot::channel();
        let pipeline = pipeline.clone();
        self.send(Command::Trigger { pipeline, set, trigger: Trigger::Api, resumed, answer }).await?;
        answered.await.map_err(|_| stopping())?.map_err(|error| match error {
            TriggerError::Unknown(words) => Refusal::new(RefusalKind::UnknownPipeline, words),
            TriggerError::Refused(words) => Refusal::new(RefusalKind::CannotStart, words),
            TriggerError::Params(words) => Refusal::new(RefusalKind::BadParams, words),
        })
    }

    pub(super) async fn cancel(&self, run_id: String) -> Result<Value, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Cancel { run_id: run_id.clone(), answer }).await?;
        if answered.await.map_err(|_| stopping())? {
            return Ok(json!({"run_id": run_id}));
        }
        match history::run(&self.engine.online.state, &run_id).await? {
            None => Err(unknown_run(&run_id)),
            Some(run) if run.is_running() => {
                let message = format!("run `{run_id}` is not one of the daemon: stop its process ({})", run.instance);
                Err(Refusal::new(RefusalKind::NotRunning, message))
            }
            Some(run) => {
                Err(Refusal::new(RefusalKind::NotRunning, format!("run `{run_id}` has ended: {}", run.status)))
            }
        }
    }

    async fn send(&self, command: Command) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| stopping())
    }

    pub(super) async fn pause(
        &self,
        pipeline: &str,
        until: Option<DateTime<Utc>>,
        reason: String,
    ) -> Result<Value, Refusal> {
        let pause = Pause { since: Utc::now(), until, reason };
        let document = json!({"pipeline": pipeline, "pause": pause});
        self.change_pauses(pipeline, |pauses| pauses.set(pipeline, pause)).await?;
        Ok(document)
    }

    pub(super) async fn resume(&self, pipeline: &str) -> Result<Value, Refusal> {
        let was_paused = self.change_pauses(pipeline, |pauses| pauses.end(pipeline, Utc::now())).await?;
        Ok(json!({"pipeline": pipeline, "was_paused": was_paused}))
    }

    pub(super) async fn list_pipelines(&self, name: Option<&str>) -> Result<Value, Refusal> {
        let snapshot = self.snapshots.take().await;
        let Some(name) = name else { return Ok(json!({"pipelines": snapshot.pipelines})) };
        self.pipeline(name)?;
        let found = snapshot.pipelines.iter().find(|pipeline| pipeline.name == name);
        let gone = || Refusal::new(RefusalKind::UnknownPipeline, format!("`{name}` came with a reload just now"));
        found.map(yaml::to_json).ok_or_else(gone)
    }

    pub(super) async fn explain_pipeline(&self, name: &str, starts: usize) -> Result<Value, Refusal> {
        let (pipelines, pipeline) = (self.snapshots.pipelines(), self.pipeline(name)?);
        let (config, state) = (&self.engine.online.config, &self.engine.online.state);
        let outlook = PipelineOutlook::read(state, config.timezone, &pipelines, Utc::now()).await?;
        Ok(yaml::to_json(&outlook.explain(&pipeline, &pipelines, starts)))
    }

    fn pipeline(&self, name: &str) -> Result<Arc<Pipeline>, Refusal> {
        let found = pipeline::find(&self.snapshots.pipelines(), name).cloned();
        found.map_err(|words| Refusal::new(RefusalKind::UnknownPipeline, words))
    }

    /// Changes the pauses that the scheduler reads with its next beat.
    async fn change_pauses<T>(&self, pipeline: &str, change: impl FnOnce(&mut Pauses) -> T) -> Result<T, Refusal> {
        self.pipeline(pipeline)?;
        let state = &self.engine.online.state;
        let _turn = self.turn.lock().await;
        let mut pauses = Pauses::load(state).await?;
        let changed = change(&mut pauses);
        pauses.save(state).await?;
        Ok(changed)
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "the daemon is stopping")
}

fn unknown_run(run_id: &str) -> Refusal {
    Refusal::new(RefusalKind::UnknownRun, format!("there is no run `{run_id}`: see `sgcache pipelines history`"))
}
