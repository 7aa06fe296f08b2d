//! The listener: `POST …/api3/json`, and the one path of the REST API that is simulated
//! (`rest_auth`); every other path is that of a file.
//!
//! The official client keeps its connection, never expects the site to close it,
//! and pays 40 ms for an answer in two writes: so answers carry their length and
//! Nagle's algorithm is off.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request as HttpRequest, Response, StatusCode, header};
use axum::serve::ListenerExt;
use futures::stream::{self, Stream, StreamExt};
use serde_json::Value;
use tokio::net::TcpListener;

use super::faults::{Asked, Trouble};
use super::methods::is_broken;
use super::rest_auth;
use super::serving::Serving;
use super::site::Site;
use super::upload;
use shotgun_model::api3::{Fault, PATH, Request};

/// The longest request that is read.
const LONGEST_REQUEST: usize = 64 << 20;
/// Begins to listen.
pub(super) async fn serve(listen: SocketAddr, site: Arc<Site>) -> io::Result<Serving> {
    let listener = TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    site.rows_mut().media_host = format!("http://{addr}");
    let listener = listener.tap_io(|stream| {
        // Without it answers still arrive, only later.
        let _ = stream.set_nodelay(true);
    });
    Ok(Serving::begin(listener, addr, Router::new().fallback(handle).with_state(site)))
}

async fn handle(State(site): State<Arc<Site>>, request: HttpRequest<Body>) -> Response<Body> {
    if request.method() == Method::POST && request.uri().path().ends_with(rest_auth::PATH) {
        return rest_auth::serve(&site, request).await;
    }
    if !request.uri().path().ends_with(PATH) {
        return upload::serve(&site, request).await;
    }
    if request.method() != Method::POST {
        return page(StatusCode::METHOD_NOT_ALLOWED, "POST only");
    }
    let Ok(body) = to_bytes(request.into_body(), LONGEST_REQUEST).await else {
        return page(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long");
    };
    let request = Request::parse(&body);
    let (method, entity_type) = names(&request);
    site.requests.note(&method, entity_type.as_deref());
    site.catch_up();
    let delay = site.troubles.latency();
    pause(delay.before).await;
    let page = request.as_ref().ok().and_then(|request| request.argument["paging"]["entities_per_page"].as_u64());
    let (entity_type, now) = (entity_type.as_deref(), site.clock.now());
    let auth = request.as_ref().ok().and_then(|request| request.auth.clone());
    let asked = Asked { method: &method, entity_type, page, now, auth: auth.as_ref(), answer: None };
    let mut response = match site.troubles.take(&asked) {
        None => untroubled(&site, request, asked).await,
        Some(trouble) => troubled(&site, request, trouble).await,
    };
    let now = site.clock.now().to_chrono().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(now) = HeaderValue::from_str(&now) {
        response.headers_mut().insert(header::DATE, now);
    }
    pause(delay.after).await;
    response
}

/// Waits, but for nothing not even for the next turn of the timer.
pub(super) async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

fn names(request: &Result<Request, Fault>) -> (String, Option<String>) {
    match request {
        Ok(request) => {
            let entity_type = request.argument.get("type").and_then(Value::as_str);
            (request.method.clone(), entity_type.map(str::to_owned))
        }
        Err(_) => ("malformed".to_owned(), None),
    }
}

async fn answer(site: &Arc<Site>, request: Result<Request, Fault>) -> Vec<u8> {
    let site = Arc::clone(site);
    // A long scan must not hold up the connections of others.
    let work = tokio::task::spawn_blocking(move || site.answer(&request));
    work.await.unwrap_or_else(|error| {
        Fault::new(Fault::DATA, format!("internal error: {error}")).to_wire().to_string().into()
    })
}

/// Answers, unless the answer itself is what meets trouble.
async fn untroubled(site: &Arc<Site>, request: Result<Request, Fault>, asked: Asked<'_>) -> Response<Body> {
    let body = answer(site, request.clone()).await;
    if site.troubles.look_at_answers()
        && let Ok(answer) = serde_json::from_slice::<Value>(&body)
        && let Some(trouble) = site.troubles.take(&Asked { answer: Some(&answer), ..asked })
    {
        return troubled(site, request, trouble).await;
    }
    if is_broken(&body) { page(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong") } else { json(body) }
}

async fn troubled(site: &Arc<Site>, request: Result<Request, Fault>, trouble: Trouble) -> Response<Body> {
    match trouble {
        Trouble::Status(code) => page(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY), "try again later"),
        Trouble::Busy { status, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut response = page(status, "too many requests");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
            response
        }
        Trouble::Html => page(StatusCode::OK, "down for maintenance"),
        Trouble::Truncated => {
            let whole = answer(site, request).await;
            json(whole[..whole.len() / 2].to_vec())
        }
        Trouble::Dropped => {
            let whole = answer(site, request).await;
            broken_off(whole[..whole.len() / 2].to_vec(), whole.len())
        }
        Trouble::DroppedBefore => broken_off(Vec::new(), 100),
        Trouble::Stalled => {
            let whole = answer(site, request).await;
            partial(
                stream::iter([Ok(Bytes::from(whole[..whole.len() / 2].to_vec()))]).chain(stream::pending()),
                whole.len(),
            )
        }
        Trouble::Slow(latency) => {
            let delay = site.troubles.draw(latency);
            pause(delay.before).await;
            let answer = answer(site, request).await;
            pause(delay.after).await;
            json(answer)
        }
        Trouble::Fault(code, words) => json(Fault::new(code, words).to_wire().to_string().into_bytes()),
        Trouble::Answer { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            with_type(status, "application/json; charset=utf-8", body.into_bytes())
        }
        Trouble::Replaced { from, to } => json(replaced(&answer(site, request).await, from.as_bytes(), &to)),
        Trouble::NoRows => json(br#"{"results":{"entities":[],"paging_info":{"has_next_page":false}}}"#.to_vec()),
    }
}

/// Returns the bytes with every occurrence of `from` replaced.
fn replaced(body: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut last = 0;
    for at in memchr::memmem::find_iter(body, from) {
        out.extend_from_slice(&body[last..at]);
        out.extend_from_slice(to);
        last = at + from.len();
    }
    out.extend_from_slice(&body[last..]);
    out
}

/// A connection that is closed before the whole of an answer was sent.
fn broken_off(sent: Vec<u8>, whole: usize) -> Response<Body> {
    partial(stream::iter([Ok(Bytes::from(sent)), Err(io::Error::from(io::ErrorKind::ConnectionReset))]), whole)
}

/// An answer of which not all parts come.
fn partial(parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static, whole: usize) -> Response<Body> {
    let mut response = json(Vec::new());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(whole));
    *response.body_mut() = Body::from_stream(parts);
    response
}

fn json(body: Vec<u8>) -> Response<Body> {
    with_type(StatusCode::OK, "application/json; charset=utf-8", body)
}

fn page(status: StatusCode, words: &str) -> Response<Body> {
    let body = format!("<html><head><title>{status}</title></head><body><h1>{words}</h1></body></html>");
    with_type(status, "text/html; charset=utf-8", body.into_bytes())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
