//! What an operator can ask of the daemon over the control API, and why it may refuse.
//!
//! Plain data: `control_api` makes an [`Operation`] of a request, the process behind the
//! listener performs it. Nothing here knows how.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::state::DeadKind;

/// A request to start a pipeline now.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRequest {
    /// The pipeline.
    pub pipeline: String,
    /// Parameters that differ from the defaults.
    pub params: Map<String, Value>,
    /// Names this request: repeated with the same key, it starts nothing again.
    pub idempotency_key: Option<String>,
    /// Goes on after an earlier run; `None` runs every step.
    pub resumed: Option<Resumed>,
}

/// Where a run goes on after an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The earlier run, whose results stand for the steps before.
    pub run_id: String,
    /// The first step that runs.
    pub step: String,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum DeadLetterSelection {
    /// Those with these numbers.
    Serials(Serials),
    /// Those of one kind.
    Kind(OfKind),
    /// Every one.
    All(All),
}

/// Dead letters by number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serials {
    /// The numbers that the list shows.
    pub serials: Vec<i64>,
}

/// Dead letters by kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfKind {
    /// Their kind.
    pub kind: DeadKind,
}

/// Every dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct All {
    /// Has to be true: an empty body selects nothing.
    pub all: bool,
}

/// What is asked of the process.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Start a pipeline. Answered with `run_id`.
    Trigger(TriggerRequest),
    /// Start the pipeline of a run again with the parameters of that run. Answered with `run_id`.
    Retry {
        /// The run.
        run_id: String,
        /// The first step that runs; `None` for all of them.
        from: Option<String>,
        /// As in [`TriggerRequest`].
        idempotency_key: Option<String>,
    },
    /// Stop a run. Answered with `run_id`.
    Cancel {
        /// The run.
        run_id: String,
    },
    /// Keep a pipeline from starting by itself.
    Pause {
        /// The pipeline.
        pipeline: String,
        /// When the pause ends by itself; `None` is never.
        until: Option<DateTime<Utc>>,
        /// Why, shown wherever the pause is.
        reason: String,
    },
    /// End a pause.
    Resume {
        /// The pipeline.
        pipeline: String,
    },
    /// List the pipelines, or show one.
    ListPipelines {
        /// Only this one.
        name: Option<String>,
    },
    /// Say when a pipeline starts next, and why past occurrences did not run.
    ExplainPipeline {
        /// The pipeline.
        name: String,
        /// How many starts are forecast.
        starts: usize,
    },
    /// Take over the files as they are now.
    Reload,
    /// Say what the proxy would do with a request.
    Explain {
        /// The body of a request to `/api3/json`.
        request: Vec<u8>,
    },
    /// List dead letters, oldest first.
    ListDeadLetters {
        /// Only of this kind.
        kind: Option<DeadKind>,
        /// Up to this many.
        limit: usize,
    },
    /// Show a dead letter with the data that was received.
    ShowDeadLetter {
        /// Its number.
        serial: i64,
    },
    /// Refetch the entities of dead letters.
    RetryDeadLetters(DeadLetterSelection),
    /// Forget dead letters.
    DropDeadLetters(DeadLetterSelection),
    /// List the types whose deletions are stopped, with the ids.
    ListBreakers,
    /// Apply the stopped deletions of a type.
    ConfirmDeletions {
        /// Entity type.
        entity_type: String,
    },
    /// Read the disappeared entities of a type again and decide again.
    ResetBreaker {
        /// Entity type.
        entity_type: String,
    },
}

impl Operation {
    /// Returns the code of a success: 202 for what has only begun.
    pub(super) fn success(&self) -> StatusCode {
        match self {
            Operation::Trigger(_) | Operation::Retry { .. } | Operation::Cancel { .. } => StatusCode::ACCEPTED,
            _ => StatusCode::OK,
        }
    }
}

/// The class of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such pipeline.
    UnknownPipeline,
    /// There is no such run.
    UnknownRun,
    /// There is no such dead letter.
    UnknownDeadLetter,
    /// No deletion of this type is stopped.
    BreakerClosed,
    /// The pipeline cannot run now: it runs already, its group does, or it is disabled.
    CannotStart,
    /// The run is not one that this process runs.
    NotRunning,
    /// The run was not one of a pipeline.
    NotRetryable,
    /// A parameter is wrong, or no step has the id that is named.
    BadParams,
    /// The idempotency key was used for another request before.
    KeyReused,
    /// The files have errors; the configuration loaded before stays in use.
    InvalidConfig,
    /// The process is stopping, or does not run anything.
    Unavailable,
    /// What the operation needs cannot be read or written.
    Internal,
}

impl RefusalKind {
    pub(super) fn answer(self) -> (StatusCode, &'static str) {
        match self {
            RefusalKind::UnknownPipeline => (StatusCode::NOT_FOUND, "unknown_pipeline"),
            RefusalKind::UnknownRun => (StatusCode::NOT_FOUND, "unknown_run"),
            RefusalKind::UnknownDeadLetter => (StatusCode::NOT_FOUND, "unknown_dead_letter"),
            RefusalKind::BreakerClosed => (StatusCode::CONFLICT, "breaker_closed"),
            RefusalKind::CannotStart => (StatusCode::CONFLICT, "cannot_start"),
            RefusalKind::NotRunning => (StatusCode::CONFLICT, "not_running"),
            RefusalKind::NotRetryable => (StatusCode::CONFLICT, "not_retryable"),
            RefusalKind::BadParams => (StatusCode::BAD_REQUEST, "bad_params"),
            RefusalKind::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"),
            RefusalKind::InvalidConfig => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_config"),
            RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            RefusalKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

/// Why an operation was not performed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Its class.
    pub kind: RefusalKind,
    /// The reason and the remedy, for a person.
    pub message: String,
    /// One object per mistake of the files, as `sgcache pipelines validate --format json` prints them.
    pub diagnostics: Vec<Value>,
}

impl Refusal {
    /// Returns a refusal without diagnostics.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), diagnostics: Vec::new() }
    }
}
