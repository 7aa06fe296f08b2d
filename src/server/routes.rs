//! The ops listener: metrics, health, status, runs.
//!
//! Reads are open on loopback and need a token beyond it (`access`); what changes
//! something is in `control_api`.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::{self, Guard};
use super::operation::Operation;
use super::ops::{Ops, RunsQuery};
use super::refusal::{not_found, refuse};
use super::status::StatusSnapshot;
use super::{control_api, events, page};
use crate::metrics::CONTENT_TYPE;
use crate::report::{self, RunReport};
use crate::state::DeadKind;
use crate::supervisor::LoopState;

/// Starts that an explanation forecasts unless another number is asked for, and at most.
const STARTS: usize = 10;
const MAX_STARTS: usize = 100;
/// Dead letters that a list holds unless another limit is asked for.
const DEAD_LETTERS: usize = 100;
/// Lines of a log in one answer: more than one of its two files holds.
const MAX_LOG_LINES: usize = 20_000;

impl Ops {
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
            .route("/api/v1/pipelines", get(pipelines))
            .route("/api/v1/pipelines/{name}", get(pipeline))
            .route("/api/v1/pipelines/{name}/explain", get(explain_pipeline))
            .route("/api/v1/runs", get(runs))
            .route("/api/v1/runs/{id}", get(run))
            .route("/api/v1/runs/{id}/log", get(run_log))
            .route("/api/v1/events", get(events::events))
            .route("/api/v1/dead-letters", get(dead_letters))
            .route("/api/v1/breakers", get(breakers))
            .merge(control_api::router(self.control.clone()))
            .fallback(not_found)
            .with_state(self)
            .layer(from_fn_with_state(guard, access::check))
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

async fn pipelines(State(ops): State<Ops>) -> Response {
    control_api::perform(&ops, Operation::ListPipelines { name: None }).await
}

async fn pipeline(State(ops): State<Ops>, Path(name): Path<String>) -> Response {
    control_api::perform(&ops, Operation::ListPipelines { name: Some(name) }).await
}

/// How far an explanation looks ahead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    next: Option<usize>,
}

async fn explain_pipeline(
    State(ops): State<Ops>,
    Path(name): Path<String>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(ExplainQuery { next })) => {
            let starts = next.unwrap_or(STARTS).min(MAX_STARTS);
            control_api::perform(&ops, Operation::ExplainPipeline { name, starts }).await
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, "bad_query", &error.body_text()),
    }
}

/// The answer of `/api/v1/runs`.
#[derive(Serialize)]
struct Runs {
    now: chrono::DateTime<Utc>,
    runs: Vec<RunReport>,
}

async fn runs(State(ops): State<Ops>, query: Result<Query<RunsQuery>, QueryRejection>) -> Response {
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

/// Which lines of a log are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// The number of the first line.
    from: Option<u64>,
    /// Only the newest lines, up to this many.
    last: Option<usize>,
}

async fn run_log(
    State(ops): State<Ops>,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad_query", &error.body_text()),
    };
    let Some(data_dir) = &ops.data_dir else {
        return refuse(StatusCode::NOT_FOUND, "unknown_run", "this process runs no pipelines and keeps no logs");
    };
    match report::run_log::read(data_dir, &id, query.from.unwrap_or(0), MAX_LOG_LINES).await {
        Ok(mut page) => {
            let surplus = query.last.map_or(0, |last| page.lines.len().saturating_sub(last));
            page.lines.drain(..surplus);
            Json(page).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal", &format!("the log of run `{id}`: {error}")),
    }
}

/// Which dead letters are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLettersQuery {
    kind: Option<DeadKind>,
    limit: Option<usize>,
}

async fn dead_letters(State(ops): State<Ops>, query: Result<Query<DeadLettersQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(DeadLettersQuery { kind, limit })) => {
            let limit = limit.unwrap_or(DEAD_LETTERS);
            control_api::perform(&ops, Operation::ListDeadLetters { kind, limit }).await
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, "bad_query", &error.body_text()),
    }
}

async fn breakers(State(ops): State<Ops>) -> Response {
    control_api::perform(&ops, Operation::ListBreakers).await
}
