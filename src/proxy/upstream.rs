//! Requests that go to the site: sent as they came, answered as they came back.
//!
//! The site's 503 and 429 are waited out, because the official client does not try
//! again after them; nothing else is repeated. Identical reads in flight are sent
//! once. The answer is never looked into here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use super::callers::Digest;
use crate::entity::Timestamp;
use crate::metrics::Metrics;
use crate::retry::retry_after;
use crate::shotgun;
use crate::sync::SiteClock;

/// The longest answer that is held in memory whole.
const MOST_BYTES: usize = 256 << 20;
/// How often a site that is down is tried by reads that have another answer.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// The longest silence in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(600);

/// A request on its way to the site.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
}

/// A whole answer of the site.
#[derive(Clone, Debug)]
pub(super) struct BufferedResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The site gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(pub String);

type InFlight = Shared<BoxFuture<'static, Result<Arc<BufferedResponse>, Unreachable>>>;

/// The site, as the proxy reaches it; clones share everything.
#[derive(Clone)]
pub(super) struct Upstream(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    site: String,
    slots: Semaphore,
    upstream_retry_timeout: Duration,
    clock: SiteClock,
    metrics: Metrics,
    /// When a site that is down may be tried again; `None` while it is well.
    down: Mutex<Option<Instant>>,
    in_flight: Mutex<HashMap<Digest, InFlight>>,
}

impl Upstream {
    /// Prepares the way to the site; nothing is sent.
    ///
    /// # Errors
    ///
    /// When the certificate authority cannot be read.
    pub fn new(
        site: &shotgun::Settings,
        slots: usize,
        upstream_retry_timeout: Duration,
        clock: SiteClock,
        metrics: Metrics,
    ) -> Result<Self, shotgun::Error> {
        // Bytes go through as they are: nothing is unpacked, no redirect is followed.
        let http = shotgun::http_client(site, |builder| builder.no_gzip().read_timeout(SILENCE))?;
        let address = site.site.trim_end_matches('/').to_owned();
        let slots = Semaphore::new(slots.max(1));
        let (down, in_flight) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner {
            http,
            site: address,
            slots,
            upstream_retry_timeout,
            clock,
            metrics,
            down,
            in_flight,
        })))
    }

    /// Tells whether a read that has another answer should try the site all the
    /// same; of a site that is down, one read every two seconds does.
    pub fn is_worth_trying(&self) -> bool {
        let mut down = lock(&self.0.down);
        match *down {
            None => true,
            Some(next) if next <= Instant::now() => {
                *down = Some(Instant::now() + TRY_EVERY);
                true
            }
            Some(_) => false,
        }
    }

    /// Sends a request once for everybody who asks the same at this moment.
    pub async fn coalesce(
        &self,
        key: Digest,
        outgoing: Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<Arc<BufferedResponse>, Unreachable> {
        let request = {
            let mut in_flight = lock(&self.0.in_flight);
            match in_flight.get(&key) {
                Some(request) => {
                    self.0.metrics.proxy.coalesced.inc();
                    request.clone()
                }
                None => {
                    let request = self.start(key, outgoing, body, patient);
                    in_flight.insert(key, request.clone());
                    request
                }
            }
        };
        request.await
    }

    /// The request is a task of its own: it goes on when its first caller leaves, and
    /// nobody joins one that has landed.
    fn start(&self, key: Digest, outgoing: Outgoing, body: Bytes, patient: bool) -> InFlight {
        let upstream = self.clone();
        let task = tokio::spawn(async move {
            let landed = upstream.send_buffered(&outgoing, body, patient).await;
            lock(&upstream.0.in_flight).remove(&key);
            landed.map(Arc::new)
        });
        task.map(|landed| landed.unwrap_or_else(|error| Err(Unreachable(error.to_string())))).boxed().shared()
    }

    /// Sends a request and reads the whole answer. Patient ones wait out what the
    /// site cannot do now.
    pub async fn send_buffered(
        &self,
        outgoing: &Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<BufferedResponse, Unreachable> {
        let response = self.send_with_retry(outgoing, body, patient).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(response).await.map_err(|error| self.failed(&error))?;
        let body = body.ok_or_else(|| Unreachable(format!("its answer is longer than {} MiB", MOST_BYTES >> 20)))?;
        Ok(BufferedResponse { status, headers, body })
    }

    /// Sends a request; the answer is read by whoever gets it.
    pub async fn send_with_retry(
        &self,
        outgoing: &Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<reqwest::Response, Unreachable> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            let response = self.send(outgoing, body.clone().into()).await?;
            let busy = matches!(response.status().as_u16(), 429 | 503);
            let wait = retry_after(response.headers()).unwrap_or(pause);
            if !busy || !patient || begun.elapsed() + wait > self.0.upstream_retry_timeout {
                return Ok(response);
            }
            self.0.metrics.source.retries.inc(&["proxy"]);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Sends a request once.
    pub async fn send(&self, outgoing: &Outgoing, body: reqwest::Body) -> Result<reqwest::Response, Unreachable> {
        let inner = &*self.0;
        let _slot = inner.slots.acquire().await.map_err(|error| Unreachable(error.to_string()))?;
        let url = format!("{}{}", inner.site, outgoing.target);
        let request = inner.http.request(outgoing.method.clone(), url).headers(forwarded(&outgoing.headers)).body(body);
        let begun = Instant::now();
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        inner.clock.observe(date(response.headers()));
        let failing = matches!(response.status().as_u16(), 502..=504);
        *lock(&inner.down) = failing.then(|| Instant::now() + TRY_EVERY);
        if failing {
            inner.metrics.source.failed("proxy", "http_5xx", begun.elapsed());
        } else {
            let length = response.content_length().unwrap_or_default();
            inner.metrics.source.answered("proxy", begun.elapsed(), length);
        }
        Ok(response)
    }

    fn failed(&self, error: &reqwest::Error) -> Unreachable {
        *lock(&self.0.down) = Some(Instant::now() + TRY_EVERY);
        let reason = if error.is_timeout() { "timeout" } else { "connect" };
        self.0.metrics.source.failed("proxy", reason, Duration::ZERO);
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            words = inner.to_string();
            source = inner.source();
        }
        Unreachable(words)
    }
}

/// Reads an answer; `None` when it is too long to be held.
async fn read(mut response: reqwest::Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(body.freeze()))
}

/// Headers that belong to one connection, and the name of this host.
const OWN: &[&str] = &[
    "host",
    "connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
    "keep-alive",
    "proxy-connection",
];

/// Returns the headers that go through, in either direction.
pub(super) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut through = headers.clone();
    for name in OWN {
        through.remove(*name);
    }
    through
}

fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let moment = chrono::DateTime::parse_from_rfc2822(headers.get(header::DATE)?.to_str().ok()?).ok()?;
    Some(Timestamp(moment.timestamp()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
