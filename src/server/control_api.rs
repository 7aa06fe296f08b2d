//! The control API: what changes something, and what only an operator may see.
//!
//! Every request here shows the token of `control.json` in its `Authorization` header.
//! There are no cookies, and browsers add no bearer token by themselves, so a page of
//! another site cannot act here; one that has got hold of the token is refused by its
//! `Origin` all the same. `docs/reference/control-api.md` lists the routes.

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::control::Control;
use super::operation::{DeadLetterSelection, Operation, Refusal, RefusalKind, TriggerRequest};
use super::ops::Ops;
use super::refusal::refuse;
use crate::yaml;

/// The header with which a client names a request that it may have to repeat.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of an idempotency key.
const MAX_KEY_LENGTH: usize = 128;

/// Returns the routes, all behind the token.
pub(super) fn router(control: Control) -> Router<Ops> {
    Router::new()
        .route("/api/v1/pipelines/{name}/trigger", post(trigger))
        .route("/api/v1/pipelines/{name}/pause", post(pause))
        .route("/api/v1/pipelines/{name}/resume", post(resume))
        .route("/api/v1/runs/{id}/cancel", post(cancel))
        .route("/api/v1/runs/{id}/retry", post(retry))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/explain", post(explain))
        .route("/api/v1/dead-letters/{serial}", get(show_dead_letter))
        .route("/api/v1/dead-letters/retry", post(retry_dead_letters))
        .route("/api/v1/dead-letters/drop", post(drop_dead_letters))
        .route("/api/v1/breakers/{type}/confirm", post(confirm_deletions))
        .route("/api/v1/breakers/{type}/reset", post(reset_breaker))
        .route_layer(from_fn_with_state(control, check))
}

/// Hands on a request with the token that comes from no page of another site.
async fn check(State(control): State<Control>, request: Request, next: Next) -> Response {
    match refusal(&control, request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

fn refusal(control: &Control, headers: &HeaderMap) -> Option<Response> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let own_host = |origin: &str| origin.split_once("://").map(|(_, host)| host) == text(header::HOST);
    if text(header::ORIGIN).is_some_and(|origin| !own_host(origin)) {
        let message = "this request comes from a page of another site; only the status page itself may send it";
        return Some(refuse(StatusCode::FORBIDDEN, "foreign_origin", message));
    }
    let message = "this needs the token of control.json in the data directory, as `Authorization: Bearer TOKEN`";
    let is_accepted = control.accepts(text(header::AUTHORIZATION));
    (!is_accepted).then(|| refuse(StatusCode::UNAUTHORIZED, "unauthorized", message))
}

/// Performs an operation and answers with what came of it.
pub(super) async fn perform(ops: &Ops, operation: Operation) -> Response {
    let success = operation.success();
    match ops.perform(operation).await {
        Ok(answer) => (success, Json(answer)).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let (code, class) = refusal.kind.answer();
    if refusal.diagnostics.is_empty() {
        return refuse(code, class, &refusal.message);
    }
    let error = json!({"class": class, "message": refusal.message, "diagnostics": refusal.diagnostics});
    (code, Json(json!({"error": error}))).into_response()
}

/// A request that cannot be read.
struct BadRequest {
    class: &'static str,
    message: String,
}

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        refuse(StatusCode::BAD_REQUEST, self.class, &self.message)
    }
}

fn bad_body(error: impl std::fmt::Display) -> BadRequest {
    BadRequest { class: "bad_body", message: error.to_string() }
}

/// Reads a body; an empty one is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, BadRequest> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(bad_body)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, BadRequest> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=MAX_KEY_LENGTH).contains(&key.len()));
    let message = format!("the Idempotency-Key has to have 1 to {MAX_KEY_LENGTH} visible ASCII characters");
    key.map(|key| Some(key.to_owned())).ok_or(BadRequest { class: "bad_key", message })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    #[serde(default)]
    params: Map<String, Value>,
}

async fn trigger(
    State(ops): State<Ops>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BadRequest> {
    let TriggerBody { params } = read(&body)?;
    let idempotency_key = idempotency_key(&headers)?;
    let request = TriggerRequest { pipeline, params, idempotency_key, resumed: None };
    Ok(perform(&ops, Operation::Trigger(request)).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    reason: String,
    #[serde(rename = "for")]
    duration: Option<String>,
    until: Option<DateTime<Utc>>,
}

impl PauseBody {
    fn end(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, String> {
        match (&self.duration, self.until) {
            (Some(_), Some(_)) => Err("`for` and `until` exclude each other".to_owned()),
            (None, Some(until)) if until <= now => Err("the end of the pause lies in the past".to_owned()),
            (None, until) => Ok(until),
            (Some(duration), None) => {
                let duration = yaml::parse_duration(duration).map_err(|error| format!("`for`: {error}"))?;
                let end = chrono::TimeDelta::from_std(duration).ok().and_then(|length| now.checked_add_signed(length));
                end.map(Some).ok_or_else(|| "the pause is too long: leave `for` out for one without an end".to_owned())
            }
        }
    }
}

async fn pause(State(ops): State<Ops>, Path(pipeline): Path<String>, body: Bytes) -> Result<Response, BadRequest> {
    let body: PauseBody = read(&body)?;
    let until = body.end(Utc::now()).map_err(bad_body)?;
    Ok(perform(&ops, Operation::Pause { pipeline, until, reason: body.reason }).await)
}

async fn resume(State(ops): State<Ops>, Path(pipeline): Path<String>) -> Response {
    perform(&ops, Operation::Resume { pipeline }).await
}

async fn cancel(State(ops): State<Ops>, Path(run_id): Path<String>) -> Response {
    perform(&ops, Operation::Cancel { run_id }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody {
    from: Option<String>,
}

async fn retry(
    State(ops): State<Ops>,
    Path(run_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, BadRequest> {
    let RetryBody { from } = read(&body)?;
    let idempotency_key = idempotency_key(&headers)?;
    Ok(perform(&ops, Operation::Retry { run_id, from, idempotency_key }).await)
}

async fn reload(State(ops): State<Ops>) -> Response {
    perform(&ops, Operation::Reload).await
}

async fn explain(State(ops): State<Ops>, body: Bytes) -> Response {
    perform(&ops, Operation::Explain { request: body.to_vec() }).await
}

async fn show_dead_letter(State(ops): State<Ops>, serial: Result<Path<i64>, PathRejection>) -> Response {
    match serial {
        Ok(Path(serial)) => perform(&ops, Operation::ShowDeadLetter { serial }).await,
        Err(_) => {
            let message = "a dead letter is named by the number that /api/v1/dead-letters shows";
            refused(&Refusal::new(RefusalKind::UnknownDeadLetter, message))
        }
    }
}

async fn retry_dead_letters(State(ops): State<Ops>, body: Bytes) -> Result<Response, BadRequest> {
    Ok(perform(&ops, Operation::RetryDeadLetters(selection(&body)?)).await)
}

async fn drop_dead_letters(State(ops): State<Ops>, body: Bytes) -> Result<Response, BadRequest> {
    Ok(perform(&ops, Operation::DropDeadLetters(selection(&body)?)).await)
}

fn selection(body: &Bytes) -> Result<DeadLetterSelection, BadRequest> {
    let selection = serde_json::from_slice(body).ok();
    let is_empty = |selection: &DeadLetterSelection| match selection {
        DeadLetterSelection::Serials(chosen) => chosen.serials.is_empty(),
        DeadLetterSelection::All(chosen) => !chosen.all,
        DeadLetterSelection::Kind(_) => false,
    };
    let words = r#"expected {"serials": [NUMBER, ..]}, {"kind": "event|row|read|write|stored"} or {"all": true}"#;
    selection.filter(|selection| !is_empty(selection)).ok_or_else(|| bad_body(words))
}

async fn confirm_deletions(State(ops): State<Ops>, Path(entity_type): Path<String>) -> Response {
    perform(&ops, Operation::ConfirmDeletions { entity_type }).await
}

async fn reset_breaker(State(ops): State<Ops>, Path(entity_type): Path<String>) -> Response {
    perform(&ops, Operation::ResetBreaker { entity_type }).await
}
