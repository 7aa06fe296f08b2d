//! A reverse proxy that makes faults between the code under test and a real server.
//!
//! A fault is planned for the next request whose path contains a text; everything
//! else is forwarded. No fake server: a fake agrees with whoever wrote it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What the proxy does to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers by itself; the server never sees the request.
    Answer { status: u16, headers: Vec<(&'static str, &'static str)>, body: &'static str },
    /// Forwards, and breaks the connection before the reply: the server has done it.
    LoseReply,
    /// Forwards, and breaks the connection in the middle of the reply.
    CutReply,
    /// Forwards once the value is true, as a network that delays a packet.
    Hold(tokio::sync::watch::Receiver<bool>),
    /// Never answers.
    Hang,
    /// Takes the first operations out of a bulk request and answers 429 for them.
    RefuseItems(usize),
    /// Forwards, and adds an item to the bulk answer.
    ExtraItem,
    /// Answers 413 with an empty body when the request is longer.
    RefuseBodiesAbove(usize),
}

/// A running proxy.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    target: String,
    client: reqwest::Client,
    plan: Mutex<Vec<Planned>>,
    log: Mutex<Vec<String>>,
    away: AtomicBool,
}

struct Planned {
    path: &'static str,
    fault: Fault,
    times: usize,
}

impl Proxy {
    /// Starts a proxy in front of `target`.
    pub async fn before(target: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            plan: Mutex::default(),
            log: Mutex::default(),
            away: AtomicBool::new(false),
        });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, task }
    }

    /// Plans `fault` for the next `times` requests whose path contains `path`.
    pub fn plan(&self, path: &'static str, times: usize, fault: Fault) {
        self.shared.plan.lock().unwrap().push(Planned { path, fault, times });
    }

    /// Breaks every connection without an answer, until told otherwise.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    /// Returns one line per request: method, path, number of lines of the body, fault.
    pub fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        let position = plan.iter().position(|planned| path.contains(planned.path))?;
        let planned = &mut plan[position];
        planned.times -= 1;
        let fault = planned.fault.clone();
        if planned.times == 0 {
            plan.remove(position);
        }
        Some(fault)
    }

    async fn forward(&self, parts: &axum::http::request::Parts, body: Bytes) -> (u16, Bytes) {
        let mut headers = parts.headers.clone();
        headers.remove("host");
        headers.remove("content-length");
        headers.remove("accept-encoding");
        let url = format!("{}{}", self.target, parts.uri);
        let request = self.client.request(parts.method.clone(), url).headers(headers).body(body);
        let answer = request.send().await.expect("the real server answers");
        (answer.status().as_u16(), answer.bytes().await.unwrap())
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.away.load(Ordering::Relaxed) {
        return broken(Bytes::new());
    }
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let lines = body.iter().filter(|&&byte| byte == b'\n').count();
    let fault = shared.next_fault(parts.uri.path());
    shared.log.lock().unwrap().push(format!("{} {} {lines} {fault:?}", parts.method, parts.uri.path()));
    match fault {
        None => {
            let (status, bytes) = shared.forward(&parts, body).await;
            answer(status, &[], bytes)
        }
        Some(Fault::Answer { status, headers, body }) => answer(status, &headers, Bytes::from_static(body.as_bytes())),
        Some(Fault::Hold(mut released)) => {
            released.wait_for(|released| *released).await.expect("the test releases it");
            let (status, bytes) = shared.forward(&parts, body).await;
            shared.log.lock().unwrap().push(format!("held, then {status}: {}", String::from_utf8_lossy(&bytes)));
            answer(status, &[], bytes)
        }
        Some(Fault::LoseReply) => {
            shared.forward(&parts, body).await;
            broken(Bytes::new())
        }
        Some(Fault::CutReply) => {
            let (_, bytes) = shared.forward(&parts, body).await;
            broken(bytes.slice(..bytes.len() / 2))
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::RefuseItems(count)) => refuse_items(&shared, &parts, body, count).await,
        Some(Fault::ExtraItem) => {
            let (status, bytes) = shared.forward(&parts, body).await;
            let mut value: Value = serde_json::from_slice(&bytes).unwrap();
            value["items"].as_array_mut().unwrap().push(json!({"index": {"status": 200}}));
            answer(status, &[], value.to_string().into())
        }
        Some(Fault::RefuseBodiesAbove(limit)) if body.len() > limit => answer(413, &[], Bytes::new()),
        Some(Fault::RefuseBodiesAbove(_)) => {
            let (status, bytes) = shared.forward(&parts, body).await;
            answer(status, &[], bytes)
        }
    }
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: Bytes) -> Response {
    let mut builder = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Body::from(body)).unwrap()
}

/// An answer that promises more than it gives, and then a closed connection.
fn broken(beginning: Bytes) -> Response {
    let parts = vec![Ok(beginning), Err(std::io::Error::other("planned fault"))];
    Response::builder()
        .header("content-length", "1000000")
        .body(Body::from_stream(futures::stream::iter(parts)))
        .unwrap()
}

/// The server really does not get the refused operations.
async fn refuse_items(shared: &Shared, parts: &axum::http::request::Parts, body: Bytes, count: usize) -> Response {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let kept: String = lines[2 * count..].iter().map(|line| format!("{line}\n")).collect();
    let mut items: Vec<Value> = Vec::new();
    for _ in 0..count {
        items.push(json!({"index": {"status": 429,
            "error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}}));
    }
    if !kept.is_empty() {
        let (_, bytes) = shared.forward(parts, kept.into()).await;
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        items.extend(value["items"].as_array().unwrap().iter().cloned());
    }
    answer(200, &[], json!({"errors": true, "items": items}).to_string().into())
}
