//! Serves a router at a bound address, within bounds that no peer can use to shut out
//! the others: see [`ConnectionBounds`].
//!
//! `axum::serve` has no bound on connections, heads or silence, so the connections of
//! `hyper` are driven here. Its own timeout for heads also ends connections that wait
//! for a next request, which the official client of Shotgun does not take well;
//! [`Connections`] keeps the two apart.
//!
//! Every connection has TCP_NODELAY: an answer written in two pieces would otherwise
//! cost a client 40 ms.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::{Admitted, CloseReason, Connection, ConnectionBounds, Connections, MAX_HEAD_BYTES, NoRoom};
use super::stream::{AnswerBody, RequestBody, Stream, Transport};
use crate::metrics::Metrics;
use crate::supervisor::beat;

/// How often connections are looked at; timeouts are as exact as this.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long one look may take.
const SWEEP_BOUND: Duration = Duration::from_secs(30);
/// How long accepting waits after a failure, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that is being closed may still take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An answer before, or instead of, a request: the connection is closed after it.
fn last_answer(status: &str, words: &str) -> String {
    let body = format!("sgcache: {words}\n");
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Returns the reason in the metrics, and what the peer is answered.
fn no_room(why: NoRoom) -> (&'static str, String) {
    match why {
        NoRoom::OfListener => {
            let words = "every connection is in use; try again shortly";
            ("connections", last_answer("503 Service Unavailable", words))
        }
        NoRoom::OfPeer => {
            let words = "this address has as many connections in use as it may; use fewer";
            ("peer_connections", last_answer("429 Too Many Requests", words))
        }
    }
}

/// Counts what one listener refuses.
#[derive(Clone)]
pub struct Refusals {
    metrics: Metrics,
    listener: &'static str,
}

impl Refusals {
    /// Counts for a listener: `api` or `ops`.
    pub fn of(metrics: &Metrics, listener: &'static str) -> Self {
        Self { metrics: metrics.clone(), listener }
    }

    /// Counts one refusal, by why.
    pub fn count(&self, reason: &str) {
        self.metrics.listeners.refusals.inc(&[self.listener, reason]);
    }

    fn count_close(&self, reason: CloseReason) {
        match reason {
            CloseReason::HeadTimeout => self.count("head_timeout"),
            CloseReason::BodyTimeout => self.count("body_timeout"),
            CloseReason::Evicted => self.count("evicted"),
            // The usual end of a connection.
            CloseReason::Idle => {}
        }
    }

    /// Counts a head that could not be read; everything else that ends a connection
    /// early is its peer, who has left.
    fn count_end(&self, ended: Result<(), hyper::Error>) {
        match ended {
            Err(error) if error.is_parse_too_large() => self.count("head_too_large"),
            Err(error) if error.is_parse() => self.count("head_malformed"),
            _ => {}
        }
    }
}

/// A bound address, and what is granted there.
pub struct HttpServer {
    /// Where connections come in.
    pub listener: TcpListener,
    /// How they are encrypted.
    pub tls: Option<TlsAcceptor>,
    /// What is granted.
    pub bounds: ConnectionBounds,
}

impl HttpServer {
    /// Serves until `stop`, then finishes the requests under way.
    pub async fn serve(&self, router: Router, refusals: Refusals, stop: CancellationToken) {
        let connections = Arc::new(Connections::new(self.bounds));
        let shortest = self.bounds.head_timeout.min(self.bounds.body_timeout).min(self.bounds.idle_timeout);
        let interval = (shortest / 4).clamp(Duration::from_millis(1), MAX_SWEEP_INTERVAL);
        let sweeper = sweep(Arc::clone(&connections), interval);
        let serving = async {
            let tasks = TaskTracker::new();
            self.accept(&connections, &router, &refusals, &tasks, &stop).await;
            tasks.close();
            tasks.wait().await;
        };
        tokio::select! {
            () = serving => {}
            () = sweeper => {}
        }
    }

    async fn accept(
        &self,
        connections: &Arc<Connections>,
        router: &Router,
        refusals: &Refusals,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A peer that has left again, or too many open files: then others yield.
                    tracing::warn!(%error, "a connection could not be accepted");
                    connections.make_room(Instant::now());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // A connection that refuses the option is slower, not wrong.
            let _ = stream.set_nodelay(true);
            match connections.admit(address, Instant::now()) {
                Ok(admitted) => {
                    let refusals = refusals.clone();
                    let connection = serve(stream, self.tls.clone(), admitted, router.clone(), refusals, stop.clone());
                    tasks.spawn(connection);
                }
                Err(why) => {
                    let (reason, answer) = no_room(why);
                    refusals.count(reason);
                    // Best effort: what does not fit into an empty send buffer is not sent.
                    if self.tls.is_none() {
                        drop(stream.try_write(answer.as_bytes()));
                    }
                }
            }
        }
    }
}

async fn sweep(connections: Arc<Connections>, interval: Duration) {
    loop {
        // Accepting has no rounds of its own; this loop of the same task has.
        beat(SWEEP_BOUND).await;
        tokio::time::sleep(interval).await;
        connections.close_overdue(Instant::now());
    }
}

/// Serves one connection until its peer closes it, or until it is to be closed.
async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    admitted: Admitted,
    router: Router,
    refusals: Refusals,
    stop: CancellationToken,
) {
    let connection = Arc::clone(admitted.connection());
    let transport = match tls {
        None => Transport::Plain(stream),
        Some(tls) => tokio::select! {
            // One without TLS, or one that was cut off, gets no answer.
            accepted = tls.accept(stream) => match accepted {
                Ok(stream) => Transport::Tls(Box::new(stream)),
                Err(_) => return,
            },
            reason = connection.closed() => return refusals.count_close(reason),
            () = stop.cancelled() => return,
        },
    };
    let stream = TokioIo::new(Stream { transport, connection: Arc::clone(&connection) });
    let answering = Arc::clone(&connection);
    let service = service_fn(move |request| answer(router.clone(), request, &answering));
    let mut http =
        http1::Builder::new().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES).serve_connection(stream, service);
    let reason = tokio::select! {
        ended = &mut http => return refusals.count_end(ended),
        reason = connection.closed() => reason,
        () = stop.cancelled() => {
            Pin::new(&mut http).graceful_shutdown();
            tokio::select! {
                _ = &mut http => return,
                reason = connection.closed() => reason,
            }
        }
    };
    refusals.count_close(reason);
    if connection.is_in_request() {
        // The reader of the body has the reason now, and answers it.
        Pin::new(&mut http).graceful_shutdown();
        // A peer that does not take the answer does without.
        let _ = tokio::time::timeout(LAST_WORDS, &mut http).await;
    } else if reason == CloseReason::HeadTimeout || (reason == CloseReason::Evicted && connection.is_reading_head()) {
        let mut stream = http.into_parts().io.into_inner();
        let answer = last_answer("408 Request Timeout", "the head of the request took too long");
        // As above.
        let _ = tokio::time::timeout(LAST_WORDS, stream.write_all(answer.as_bytes())).await;
    }
}

type Answer = BoxFuture<'static, Result<Response<AnswerBody>, Infallible>>;

/// Lets the router answer a request, whose connection it finds among the extensions.
fn answer(router: Router, request: Request<Incoming>, connection: &Arc<Connection>) -> Answer {
    connection.head_ended(!request.body().is_end_stream());
    let connection = Arc::clone(connection);
    let mut request = request.map(|body| Body::new(RequestBody { body, connection: Arc::clone(&connection) }));
    request.extensions_mut().insert(Arc::clone(&connection));
    Box::pin(async move {
        let response = TowerToHyperService::new(router).call(request).await?;
        Ok(response.map(|body| AnswerBody { body, connection }))
    })
}
