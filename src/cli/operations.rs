//! What the control API asks of the daemon, performed.
//!
//! Pipelines and their runs are in `runs`; what is done about dead letters and stopped
//! deletions is in `repairs`, which the commands that work on the data directory alone
//! call as well.

mod runs;

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use super::Failure;
use super::engine::Engine;
use super::explain;
use super::reload::Reloader;
use super::repairs;
use super::status_report::StatusReporter;
use crate::pipeline::Command;
use crate::server::{Operation, Refusal, RefusalKind};
use crate::state::StateError;

/// Performs operations.
pub(super) struct Operator {
    engine: Arc<Engine>,
    snapshots: Arc<StatusReporter>,
    reloader: Arc<Reloader>,
    commands: mpsc::Sender<Command>,
    /// Held while something is read, changed and written back: pauses, idempotency keys.
    turn: Mutex<()>,
}

impl Operator {
    /// Returns an operator that hands commands to the scheduler.
    pub fn new(
        engine: &Arc<Engine>,
        snapshots: &Arc<StatusReporter>,
        reloader: &Arc<Reloader>,
        commands: mpsc::Sender<Command>,
    ) -> Arc<Self> {
        let (engine, snapshots, reloader) = (Arc::clone(engine), Arc::clone(snapshots), Arc::clone(reloader));
        Arc::new(Self { engine, snapshots, reloader, commands, turn: Mutex::new(()) })
    }

    /// Performs one operation and returns the document of the answer.
    ///
    /// # Errors
    ///
    /// Why it was not performed.
    pub async fn perform(&self, operation: Operation) -> Result<Value, Refusal> {
        let state = &self.engine.online.state;
        match operation {
            Operation::Trigger(request) => self.trigger(request).await,
            Operation::Retry { run_id, from, idempotency_key } => self.retry(&run_id, from, idempotency_key).await,
            Operation::ListPipelines { name } => self.list_pipelines(name.as_deref()).await,
            Operation::ExplainPipeline { name, starts } => self.explain_pipeline(&name, starts).await,
            Operation::Cancel { run_id } => self.cancel(run_id).await,
            Operation::Pause { pipeline, until, reason } => self.pause(&pipeline, until, reason).await,
            Operation::Resume { pipeline } => self.resume(&pipeline).await,
            Operation::Reload => self.reload().await,
            Operation::Explain { request } => Ok(explain::document(&self.engine, &request).await?),
            Operation::ListDeadLetters { kind, limit } => Ok(repairs::list(state, kind, limit).await?),
            Operation::ShowDeadLetter { serial } => repairs::show(state, serial).await,
            Operation::RetryDeadLetters(chosen) => {
                let answer = repairs::retry(state, &chosen).await?;
                self.wake();
                Ok(answer)
            }
            Operation::DropDeadLetters(chosen) => repairs::drop(state, &chosen).await,
            Operation::ListBreakers => Ok(repairs::breakers(state).await?),
            Operation::ConfirmDeletions { entity_type } => self.close_breaker(&entity_type, true).await,
            Operation::ResetBreaker { entity_type } => self.close_breaker(&entity_type, false).await,
        }
    }

    async fn close_breaker(&self, entity_type: &str, confirmed: bool) -> Result<Value, Refusal> {
        let answer = repairs::close_breaker(&self.engine.online.state, entity_type, confirmed).await?;
        self.wake();
        Ok(answer)
    }

    async fn reload(&self) -> Result<Value, Refusal> {
        let reloaded = self.reloader.reload().await;
        let restart = "these keys of config.yaml are used after a restart";
        reloaded
            .map(|loaded| {
                serde_json::json!({
                    "pipelines": loaded.pipelines, "types": loaded.types,
                    "needs_restart": loaded.needs_restart,
                    "note": (!loaded.needs_restart.is_empty()).then_some(restart),
                })
            })
            .map_err(|failure| Refusal {
                diagnostics: failure.diagnostics(),
                ..Refusal::new(RefusalKind::InvalidConfig, failure.to_string())
            })
    }

    /// Lets the follower look for dirty keys now instead of with its next poll.
    fn wake(&self) {
        if let Some(follower) = self.engine.following.follower() {
            follower.wake();
        }
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Refusal::new(RefusalKind::Internal, failure.message)
    }
}
