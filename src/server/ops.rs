//! The ops listener: metrics, health, status, control.
//!
//! Reads are open on loopback and need a token beyond it (`access`); what changes
//! something wants the token of `control`.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::Utc;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::access::{self, Guard, OpsAccess};
use super::control::Control;
use super::page;
use super::refusal::{not_found, refuse};
use super::status::StatusSnapshot;
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::report::{RunReport, Status};
use crate::supervisor::{LoopState, Supervisor};

type StatusSource = Arc<dyn Fn() -> BoxFuture<'static, StatusSnapshot> + Send + Sync>;
type RunsSource = Arc<dyn Fn(RunsQuery) -> BoxFuture<'static, Vec<RunReport>> + Send + Sync>;
type Triggered = BoxFuture<'static, Result<String, TriggerRefused>>;
type Cancelled = BoxFuture<'static, Result<bool, TriggerRefused>>;
type CancelSink = Arc<dyn Fn(String) -> Cancelled + Send + Sync>;
type TriggerSink = Arc<dyn Fn(TriggerRequest) -> Triggered + Send + Sync>;

/// Which runs are asked for; all parts have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsQuery {
    /// Of this pipeline or job.
    pub pipeline: Option<String>,
    /// That ended like this.
    pub status: Option<Status>,
    /// At most this many, newest first; 50 unless said otherwise.
    pub limit: Option<usize>,
    /// Only this run.
    #[serde(skip)]
    pub run_id: Option<String>,
}

/// A request to start a pipeline now.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRequest {
    /// The pipeline.
    pub pipeline: String,
    /// Parameters that differ from the defaults.
    pub params: Map<String, Value>,
}

/// Why a pipeline is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerRefused {
    /// There is no such pipeline.
    #[error("{0}")]
    Unknown(String),
    /// It cannot run now: it runs already, its group does, or it is disabled.
    #[error("{0}")]
    Refused(String),
    /// A parameter is wrong.
    #[error("{0}")]
    BadParams(String),
    /// The daemon is stopping, or not ready to run anything.
    #[error("{0}")]
    Unavailable(String),
}

impl TriggerRefused {
    fn answer(&self) -> (StatusCode, &'static str) {
        match self {
            TriggerRefused::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_pipeline"),
            TriggerRefused::Refused(_) => (StatusCode::CONFLICT, "cannot_start"),
            TriggerRefused::BadParams(_) => (StatusCode::BAD_REQUEST, "bad_params"),
            TriggerRefused::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        }
    }
}

/// Everything that the ops listener shows and hands on.
#[derive(Clone)]
pub struct Ops {
    metrics: Metrics,
    control: Control,
    access: Arc<OpsAccess>,
    supervisor: Option<Supervisor>,
    status: StatusSource,
    runs: RunsSource,
    trigger: TriggerSink,
    cancel: CancelSink,
}

impl Ops {
    /// Returns a listener that shows `metrics` and whatever `status` returns.
    pub fn new<F>(metrics: Metrics, control: Control, status: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = StatusSnapshot> + Send + 'static,
    {
        let nothing = "this process does not run pipelines";
        Self {
            metrics,
            control,
            access: Arc::default(),
            supervisor: None,
            status: Arc::new(move || Box::pin(status())),
            runs: Arc::new(|_| Box::pin(async { Vec::new() })),
            trigger: Arc::new(move |_| Box::pin(async move { Err(TriggerRefused::Unavailable(nothing.into())) })),
            cancel: Arc::new(|_| Box::pin(async { Ok(false) })),
        }
    }

    /// Makes `/livez` know every loop of a supervisor.
    #[must_use]
    pub fn with_supervisor(mut self, supervisor: Supervisor) -> Self {
        self.supervisor = Some(supervisor);
        self
    }

    /// Asks this of requests; without it, only that they name this machine.
    #[must_use]
    pub fn with_access(mut self, access: OpsAccess) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// Answers `/api/v1/runs` from here.
    #[must_use]
    pub fn with_runs<F>(mut self, runs: impl Fn(RunsQuery) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<RunReport>> + Send + 'static,
    {
        self.runs = Arc::new(move |query| Box::pin(runs(query)));
        self
    }

    /// Hands requests to start a pipeline to `trigger`, which returns the run id.
    #[must_use]
    pub fn with_trigger<F>(mut self, trigger: impl Fn(TriggerRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, TriggerRefused>> + Send + 'static,
    {
        self.trigger = Arc::new(move |request| Box::pin(trigger(request)));
        self
    }

    /// Hands the ids of runs that are to stop to `cancel`, which tells whether such a run
    /// goes on in this process.
    #[must_use]
    pub fn with_cancel<F>(mut self, cancel: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<bool, TriggerRefused>> + Send + 'static,
    {
        self.cancel = Arc::new(move |run_id| Box::pin(cancel(run_id)));
        self
    }

    /// Returns the routes.
    pub fn router(self) -> Router {
        let guard = Guard { access: Arc::clone(&self.access), control: self.control.clone() };
        Router::new()
            .route("/", get(page::index))
            .route("/page/{file}", get(page::file))
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/api/v1/status", get(status))
            .route("/api/v1/runs", get(runs))
            .route("/api/v1/runs/{id}", get(run))
            .route("/api/v1/runs/{id}/cancel", post(cancel))
            .route("/api/v1/pipelines/{name}/trigger", post(trigger))
            .fallback(not_found)
            .with_state(self)
            .layer(from_fn_with_state(guard, access::check))
    }

    async fn snapshot(&self) -> StatusSnapshot {
        let mut snapshot = (self.status)().await;
        snapshot.judge();
        snapshot
    }
}

/// Written on a thread of its own: hundreds of series take a moment, and no request waits for it.
async fn metrics(State(ops): State<Ops>) -> Response {
    let text = tokio::task::spawn_blocking(move || ops.metrics.render()).await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error.to_string()),
    }
}

async fn livez(State(ops): State<Ops>) -> Response {
    let loops = ops.supervisor.map(|supervisor| supervisor.status()).unwrap_or_default();
    let live = loops.iter().all(|one| one.state != LoopState::Stuck);
    let code = if live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"live": live, "loops": loops});
    (code, Json(body)).into_response()
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let snapshot = ops.snapshot().await;
    let code = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let warnings = super::status::warnings(&snapshot);
    let health = json!({"level": snapshot.health.level, "code": snapshot.health.code, "title": snapshot.health.title});
    let body = json!({"ready": snapshot.ready, "reasons": snapshot.reasons, "warnings": warnings, "health": health});
    (code, Json(body)).into_response()
}

async fn status(State(ops): State<Ops>) -> Json<StatusSnapshot> {
    Json(ops.snapshot().await)
}

/// The answer of `/api/v1/runs`.
#[derive(Serialize)]
struct Runs {
    now: chrono::DateTime<Utc>,
    runs: Vec<RunReport>,
}

async fn runs(
    State(ops): State<Ops>,
    query: Result<Query<RunsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => {
            let runs = (ops.runs)(query).await;
            Json(Runs { now: Utc::now(), runs }).into_response()
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, "bad_query", &error.body_text()),
    }
}

async fn run(State(ops): State<Ops>, Path(id): Path<String>) -> Response {
    let query = RunsQuery { run_id: Some(id.clone()), ..RunsQuery::default() };
    match (ops.runs)(query).await.into_iter().find(|run| run.run_id == id) {
        Some(run) => Json(run).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "unknown_run", &format!("there is no run `{id}`")),
    }
}

/// The body of a trigger; an empty body means no parameters.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    #[serde(default)]
    params: Map<String, Value>,
}

async fn trigger(
    State(ops): State<Ops>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    if let Some(refused) = without_token(&ops, &headers) {
        return refused;
    }
    let body = match parse_body(&body) {
        Ok(body) => body,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad_body", &error.to_string()),
    };
    match (ops.trigger)(TriggerRequest { pipeline, params: body.params }).await {
        Ok(run_id) => (StatusCode::ACCEPTED, Json(json!({"run_id": run_id}))).into_response(),
        Err(refused) => {
            let (code, class) = refused.answer();
            refuse(code, class, &refused.to_string())
        }
    }
}

async fn cancel(State(ops): State<Ops>, Path(run_id): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refused) = without_token(&ops, &headers) {
        return refused;
    }
    match (ops.cancel)(run_id.clone()).await {
        Ok(true) => (StatusCode::ACCEPTED, Json(json!({"run_id": run_id}))).into_response(),
        Ok(false) => refuse(StatusCode::CONFLICT, "not_running", &format!("run `{run_id}` does not run here")),
        Err(refused) => {
            let (code, class) = refused.answer();
            refuse(code, class, &refused.to_string())
        }
    }
}

/// Refuses what changes something without the token of the data directory.
fn without_token(ops: &Ops, headers: &HeaderMap) -> Option<Response> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let message = "this needs the token of control.json in the data directory";
    (!ops.control.accepts(shown)).then(|| refuse(StatusCode::UNAUTHORIZED, "unauthorized", message))
}

fn parse_body(body: &[u8]) -> Result<TriggerBody, serde_json::Error> {
    if body.is_empty() { Ok(TriggerBody::default()) } else { serde_json::from_slice(body) }
}
