//! The admin endpoint: what a test orders from a running site, over HTTP.
//!
//! It has a listener of its own, on this machine only, so that the addresses of
//! the site stay those of a site. It asks for no credentials: who can reach it can
//! change everything. A web page in a browser of this machine must not; requests
//! with an `Origin` are refused.
//!
//! | request | does |
//! |---|---|
//! | `GET /state` | shows rows, event log, clock, troubles and the count of requests |
//! | `GET /metrics` | shows the counts of requests, and of what was not simulated, to Prometheus |
//! | `POST /reset` | makes the site what it was when it started |
//! | `POST /faults` | begins a plan, as `--faults FILE` does; `DELETE` ends all trouble |
//! | `POST /do` | makes one step happen, or a list of them in order |

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scenario::{Action, Plan, remembered, types_with_rows};
use super::serving::Serving;
use super::site::Site;
use config_file::{Document, Problems};

/// Begins to listen.
///
/// # Errors
///
/// When the address is not of this machine alone, or cannot be listened on.
pub(super) async fn serve(listen: SocketAddr, site: Arc<Site>) -> io::Result<Serving> {
    if !listen.ip().is_loopback() {
        let words = format!("the admin endpoint listens on loopback only, not on {listen}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    }
    let listener = TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    Ok(Serving::begin(listener, addr, router(site)))
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/state", get(state))
        .route("/metrics", get(metrics))
        .route("/reset", post(reset))
        .route("/faults", post(begin_plan).delete(end_trouble))
        .route("/do", post(perform))
        .layer(DefaultBodyLimit::max(config_file::MAX_BYTES))
        .layer(middleware::from_fn(refuse_browsers))
        .with_state(site)
}

async fn refuse_browsers(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refusal(StatusCode::FORBIDDEN, "the admin endpoint is not for web pages");
    }
    next.run(request).await
}

fn refusal(status: StatusCode, words: impl Into<String>) -> Response {
    (status, axum::Json(json!({"error": words.into()}))).into_response()
}

async fn state(State(site): State<Arc<Site>>) -> Response {
    site.catch_up();
    let types: serde_json::Map<_, _> =
        types_with_rows(&site).into_iter().map(|(name, count)| (name.to_string(), json!(count))).collect();
    let shown = json!({
        "now": site.clock.now(),
        "entities": site.entities(),
        "types": types,
        "last_event_id": site.last_event_id().0,
        "requests": site.requests.all(),
        "troubles": site.troubles.waiting(),
        "steps": site.scenario.agenda.len(),
        "open_transactions": site.scenario.open().keys().collect::<Vec<_>>(),
        "remembered_changes": remembered(&site.rows()),
    });
    axum::Json(shown).into_response()
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], site.requests.to_prometheus()).into_response()
}

async fn reset(State(site): State<Arc<Site>>) -> Response {
    let started = Instant::now();
    let work = tokio::task::spawn_blocking(move || site.perform(&Action::Reset));
    match work.await {
        Ok(Ok(_)) => axum::Json(json!({"seconds": started.elapsed().as_secs_f64()})).into_response(),
        Ok(Err(error)) => refusal(StatusCode::CONFLICT, error.to_string()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn begin_plan(State(site): State<Arc<Site>>, body: Bytes) -> Response {
    match document(&body).and_then(|document| Plan::of(&document)) {
        Ok(plan) => {
            site.follow(plan);
            site.catch_up();
            axum::Json(json!({"troubles": site.troubles.waiting(), "steps": site.scenario.agenda.len()}))
                .into_response()
        }
        Err(problems) => refusal(StatusCode::BAD_REQUEST, problems.render(false)),
    }
}

async fn end_trouble(State(site): State<Arc<Site>>) -> Response {
    site.troubles.clear();
    site.scenario.agenda.clear();
    StatusCode::NO_CONTENT.into_response()
}

async fn perform(State(site): State<Arc<Site>>, body: Bytes) -> Response {
    let actions = match document(&body).and_then(|document| actions(&document)) {
        Ok(actions) => actions,
        Err(problems) => return refusal(StatusCode::BAD_REQUEST, problems.render(false)),
    };
    let work = tokio::task::spawn_blocking(move || {
        let mut results = Vec::new();
        for action in &actions {
            results.push(site.perform(action).map_err(|error| (results.len(), error.to_string()))?);
        }
        Ok::<_, (usize, String)>(results)
    });
    match work.await {
        Ok(Ok(results)) => axum::Json(json!({"results": results})).into_response(),
        Ok(Err((done, words))) => {
            (StatusCode::CONFLICT, axum::Json(json!({"error": words, "done": done}))).into_response()
        }
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Reads a body, which may be JSON or YAML.
fn document(body: &[u8]) -> Result<Document, Problems> {
    if body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[") {
        return Document::json("body", body);
    }
    Document::yaml("body", body)
}

fn actions(document: &Document) -> Result<Vec<Action>, Problems> {
    let mut problems = Problems::new();
    let actions = match document.value() {
        list @ Value::Array(_) => decode(document, list, &mut problems),
        one => decode(document, one, &mut problems).map(|action| vec![action]),
    };
    problems.finish(actions).map(|(actions, _)| actions)
}

fn decode<T: DeserializeOwned>(document: &Document, value: &Value, problems: &mut Problems) -> Option<T> {
    document.decode("", value, problems)
}
