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
use reqwest::Url;
use tokio::sync::Semaphore;

use super::callers::Digest;
use super::memory::{MemoryBudget, OutOfMemory};
use crate::entity::Timestamp;
use crate::metrics::Metrics;
use crate::retry::retry_after;
use crate::shotgun;
use crate::sync::SiteClock;

/// The longest answer that is held in memory whole.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How long a request waits until fewer are in flight.
const SLOT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a site that is down is tried by reads that have another answer.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// The longest silence in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(600);

/// How many requests may be in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Calls, and requests without a body.
    pub max_calls: usize,
    /// Requests whose bodies their callers still send.
    pub max_uploads: usize,
}

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
    /// When the question was asked, or before.
    pub asked_at: Instant,
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
    site: Url,
    /// Slots for calls, which are in memory, and for bodies that callers still send.
    slots: Semaphore,
    upload_slots: Semaphore,
    memory: MemoryBudget,
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
        limits: Limits,
        memory: MemoryBudget,
        upstream_retry_timeout: Duration,
        clock: SiteClock,
        metrics: Metrics,
    ) -> Result<Self, shotgun::Error> {
        // Bytes go through as they are: nothing is unpacked, no redirect is followed.
        let http = shotgun::http_client(site, |builder| builder.no_gzip().read_timeout(SILENCE))?;
        let address = shotgun::address(site)?;
        let slots = Semaphore::new(limits.max_calls.max(1));
        let upload_slots = Semaphore::new(limits.max_uploads.max(1));
        let (down, in_flight) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner {
            http,
            site: address,
            slots,
            upload_slots,
            memory,
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
            // Also when this panics: the key would give its error to every later caller.
            let _landed = Landed { upstream: &upstream, key };
            upstream.send_buffered(&outgoing, body, patient).await.map(Arc::new)
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
        let asked_at = Instant::now();
        let response = self.send_with_retry(outgoing, body, patient).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(response).await?;
        Ok(BufferedResponse { status, headers, body, asked_at })
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
            let response = self.send(outgoing, body.clone().into(), &self.0.slots).await?;
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

    /// Sends a request whose body its caller still sends, once.
    pub async fn send_upload(
        &self,
        outgoing: &Outgoing,
        body: reqwest::Body,
    ) -> Result<reqwest::Response, Unreachable> {
        self.send(outgoing, body, &self.0.upload_slots).await
    }

    /// Sends a request without a body, once.
    pub async fn send_empty(&self, outgoing: &Outgoing) -> Result<reqwest::Response, Unreachable> {
        self.send(outgoing, reqwest::Body::default(), &self.0.slots).await
    }

    /// The slot is given back with the head of the answer: a caller who takes its rest
    /// slowly holds up only itself.
    async fn send(
        &self,
        outgoing: &Outgoing,
        body: reqwest::Body,
        slots: &Semaphore,
    ) -> Result<reqwest::Response, Unreachable> {
        let inner = &*self.0;
        let url = address(&inner.site, &outgoing.target)?;
        let slot = tokio::time::timeout(SLOT_TIMEOUT, slots.acquire()).await;
        let busy = |_| Unreachable("as many requests to it are in flight as there may be".to_owned());
        let _slot = slot.map_err(busy)?.map_err(|error| Unreachable(error.to_string()))?;
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

    /// Reads an answer into memory, as long as there is room for it.
    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, Unreachable> {
        let out_of_memory = |error: OutOfMemory| Unreachable(format!("there is no room for its answer: {error}"));
        let mut reservation = self.0.memory.reserve(0).map_err(out_of_memory)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Unreachable(format!("its answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20)));
            }
            let before = body.capacity();
            body.extend_from_slice(&chunk);
            reservation.grow(body.capacity() - before).map_err(out_of_memory)?;
        }
        Ok(reservation.holding(body))
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

/// Returns the address of a target at the site.
///
/// A target decides on path and query, never on the host, and not on what lies above
/// the path of the site: `*`, `@host/`, `/../..` are refused.
fn address(site: &Url, target: &str) -> Result<Url, Unreachable> {
    let refused = || Unreachable("the request names no path below it".to_owned());
    if !target.starts_with('/') {
        return Err(refused());
    }
    let url = Url::parse(&format!("{}{target}", site.as_str().trim_end_matches('/'))).map_err(|_| refused())?;
    let same_place =
        url.origin() == site.origin() && (url.username(), url.password()) == (site.username(), site.password());
    let above = site.path().trim_end_matches('/');
    let is_below = url.path().strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    if !same_place || !is_below {
        return Err(refused());
    }
    Ok(url)
}

/// Takes a request out of those that others may join.
struct Landed<'a> {
    upstream: &'a Upstream,
    key: Digest,
}

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        lock(&self.upstream.0.in_flight).remove(&self.key);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_target_names_another_host_or_leaves_the_site() {
        let at = |site: &str, target: &str| {
            let url = address(&Url::parse(site).expect("an address"), target);
            url.map_or_else(|_| "refused".to_owned(), String::from)
        };
        assert_eq!(at("https://site", "/a/b?c=d"), "https://site/a/b?c=d");
        assert_eq!(at("https://site/prefix", "/a"), "https://site/prefix/a");
        assert_eq!(at("https://site", "//evil/a"), "https://site//evil/a");
        for target in ["*", "@evil/", ".evil/", ":1@evil/", "", "evil", "/../../x\u{0}"] {
            let answer = at("https://site/prefix", target);
            assert!(answer == "refused" || answer.starts_with("https://site/prefix/"), "{target}: {answer}");
        }
        assert_eq!(at("https://site", "*"), "refused");
        assert_eq!(at("https://site/prefix", "/../x"), "refused");
    }
}
