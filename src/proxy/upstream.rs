//! Requests that go to the site: sent as they came, answered as they came back.
//!
//! The site's 503 and 429 are waited out, because the official client does not try
//! again after them; nothing else is repeated. Identical reads in flight are sent
//! once. The answer is never looked into here.
//!
//! Callers have slots for what is at the site at the same time, uploads and the questions
//! of the proxy itself their own: no caller can keep the proxy from asking whether a
//! credential is good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use reqwest::Url;

use super::callers::Digest;
use super::in_flight::{InFlight, InFlightRequests};
use super::memory::{MemoryBudget, OutOfMemory};
use super::settings::Settings;
use super::slots::{Slot, Slots, UploadSlot};
use crate::api3;
use crate::entity::Timestamp;
use crate::metrics::Metrics;
use crate::retry::retry_after;
use crate::server::{Connection, Peer, Refusals};
use crate::shotgun;
use crate::shotgun::SiteHealth;
use crate::sync::{Replica, SiteClock};

/// Without an older answer a silent site is waited for this many times as long.
const WITHOUT_OLDER_ANSWER: u32 = 15;
/// Asks nothing but whether the site answers.
const PROBE: &str = r#"{"method_name": "info", "params": []}"#;
/// Questions of the proxy itself that are at the site at the same time.
const OWN_SLOTS: usize = 16;
/// A probe waits at least this long, however short the patience of readers is.
const MIN_PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A request on its way to the site.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// Where it came from; `None` for a question of the proxy itself.
    pub connection: Option<Arc<Connection>>,
}

impl Outgoing {
    /// Makes a question of the proxy itself.
    pub fn own(target: &str, content_type: HeaderValue) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type)]);
        Self { method: Method::POST, target: target.to_owned(), headers, connection: None }
    }

    /// Returns who asks, as far as the network tells.
    pub fn peer(&self) -> Option<Peer> {
        self.connection.as_ref().map(|connection| connection.peer())
    }
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
#[error("{words}")]
pub(super) struct Unreachable {
    /// Why.
    pub words: String,
    /// Whether the site cannot have acted on the request: no connection came about, or it
    /// never had all of it.
    pub never_sent: bool,
    /// Whether the reason lies on this side, whatever the site does: a bound of this process,
    /// or a caller who did not send the rest of an upload.
    pub at_limit: bool,
}

impl Unreachable {
    /// The site may have seen the request.
    pub fn unknown(words: impl Into<String>) -> Self {
        Self { words: words.into(), never_sent: false, at_limit: false }
    }

    /// The request did not leave.
    fn never_sent(words: impl Into<String>) -> Self {
        Self { words: words.into(), never_sent: true, at_limit: false }
    }

    /// There is no slot, or no room for the answer; counts the refusal.
    fn at_limit(metrics: &Metrics, reason: &str, never_sent: bool, words: String) -> Self {
        Refusals::of(metrics, "api").count(reason);
        Self { words, never_sent, at_limit: true }
    }
}

/// The site, as the proxy reaches it; clones share everything.
#[derive(Clone)]
pub(super) struct Upstream(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    site: Url,
    /// Slots for calls, which are in memory, for bodies that callers still send, and for
    /// questions of the proxy itself.
    slots: Slots,
    upload_slots: Slots,
    own_slots: Slots,
    memory: MemoryBudget,
    settings: Arc<Settings>,
    clock: SiteClock,
    health: SiteHealth,
    metrics: Metrics,
    in_flight: InFlightRequests,
}

impl Upstream {
    /// Prepares the way to the site that the replica follows; nothing is sent.
    ///
    /// # Errors
    ///
    /// When the certificate authority cannot be read.
    pub fn new(
        site: &shotgun::Settings,
        settings: Arc<Settings>,
        memory: MemoryBudget,
        replica: &Replica,
    ) -> Result<Self, shotgun::Error> {
        // Bytes go through as they are: nothing is unpacked, no redirect is followed.
        let http = shotgun::http_client(site, |builder| builder.no_gzip().read_timeout(settings.max_answer_silence))?;
        Ok(Self(Arc::new(Inner {
            http,
            site: shotgun::address(site)?,
            slots: Slots::new(settings.max_upstream),
            upload_slots: Slots::new(settings.max_uploads),
            own_slots: Slots::new(OWN_SLOTS),
            memory,
            settings,
            clock: replica.clock().clone(),
            health: replica.client().health().clone(),
            metrics: replica.metrics().clone(),
            in_flight: InFlightRequests::default(),
        })))
    }

    /// Tells whether the site counts as down: who has an older answer gives it at once.
    pub fn is_down(&self) -> bool {
        self.0.health.is_open(self.0.settings.patience)
    }

    /// Tells whether the site has been down for so long that a request without another
    /// answer is not worth its wait either.
    pub fn is_given_up(&self) -> bool {
        self.is_down_for(self.last_patience())
    }

    /// Tells whether the site has been down for so long, without an answer between.
    pub fn is_down_for(&self, duration: Duration) -> bool {
        let open = self.0.health.open_since(self.0.settings.patience);
        open.is_some_and(|since| since.elapsed() >= duration)
    }

    /// Returns how long the site may be silent before a request without another answer
    /// is given up.
    fn last_patience(&self) -> Duration {
        self.0.settings.patience * WITHOUT_OLDER_ANSWER
    }

    /// Asks a site that is down, in turns, whether it is back; tells whether it is.
    pub async fn probe(&self) -> bool {
        let inner = &*self.0;
        if !inner.health.take_probe(inner.settings.patience) {
            return false;
        }
        let Ok(url) = address(&inner.site, api3::PATH) else { return false };
        let probe = inner.http.post(url).header(header::CONTENT_TYPE, "application/json").body(PROBE);
        let attempt = inner.health.begin();
        match probe.timeout(inner.settings.patience.max(MIN_PROBE_TIMEOUT)).send().await {
            Ok(response) if !is_gateway_failure(response.status()) => {
                attempt.answered();
                true
            }
            failed => {
                attempt.failed();
                if let Some(pause) = failed.ok().and_then(|response| retry_after(response.headers())) {
                    inner.health.probe_after(pause);
                }
                false
            }
        }
    }

    /// Sends a request once for all who ask the same at this moment.
    pub fn coalesce(&self, key: Digest, outgoing: Outgoing, body: Bytes, patient: bool) -> InFlight {
        let upstream = self.clone();
        let request = async move { upstream.send_buffered(&outgoing, body, patient).await.map(Arc::new) };
        let (joined, answer) = self.0.in_flight.join(key, || request);
        if joined {
            self.0.metrics.proxy.coalesced.inc();
        }
        answer
    }

    /// Asks a question of the proxy itself, once.
    ///
    /// # Errors
    ///
    /// When the site has not answered for `timeout`; [`Unreachable::at_limit`] when it was
    /// not asked, or there was no room for its answer.
    pub async fn ask(
        &self,
        outgoing: &Outgoing,
        body: Bytes,
        timeout: Duration,
    ) -> Result<BufferedResponse, Unreachable> {
        let slot = self.0.own_slots.take(None, timeout).await.ok_or_else(|| self.busy(CALLS))?;
        let asked_at = Instant::now();
        let answer = async {
            let response = self.send(outgoing, body.into(), Place::Call(slot)).await?;
            self.buffer(outgoing, response, asked_at).await
        };
        let answer = tokio::time::timeout(timeout, answer).await;
        answer.unwrap_or_else(|_| Err(Unreachable::unknown("no answer in time")))
    }

    /// Waits for a slot at the site.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub async fn slot(&self, outgoing: &Outgoing) -> Result<Slot, Unreachable> {
        let slot = self.0.slots.take(outgoing.peer(), self.0.settings.max_slot_wait).await;
        slot.ok_or_else(|| self.busy(CALLS))
    }

    /// Waits for the slot of a body that its caller still sends.
    ///
    /// # Errors
    ///
    /// When there is none in time.
    pub async fn upload_slot(&self, outgoing: &Outgoing) -> Result<Arc<UploadSlot>, Unreachable> {
        let slot = self.0.upload_slots.take_for_upload(outgoing.peer(), self.0.settings.max_slot_wait).await;
        slot.map(Arc::new).ok_or_else(|| self.busy("uploads are in flight as there may be (`api.max_uploads`)"))
    }

    fn busy(&self, bound: &str) -> Unreachable {
        let words = format!("as many {bound}; try again shortly");
        Unreachable::at_limit(&self.0.metrics, "site_busy", true, words)
    }

    /// Sends a request and reads the whole answer. Patient ones wait out what the
    /// site cannot do now.
    pub async fn send_buffered(
        &self,
        outgoing: &Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<BufferedResponse, Unreachable> {
        let slot = self.slot(outgoing).await?;
        self.send_buffered_in(slot, outgoing, body, patient).await
    }

    /// Like [`Upstream::send_buffered`], in a slot that was waited for before.
    pub async fn send_buffered_in(
        &self,
        slot: Slot,
        outgoing: &Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<BufferedResponse, Unreachable> {
        let asked_at = Instant::now();
        let response = self.send_with_retry(slot, outgoing, body, patient).await?;
        self.buffer(outgoing, response, asked_at).await
    }

    async fn buffer(
        &self,
        outgoing: &Outgoing,
        response: reqwest::Response,
        asked_at: Instant,
    ) -> Result<BufferedResponse, Unreachable> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.read(outgoing.peer(), response).await?;
        Ok(BufferedResponse { status, headers, body, asked_at })
    }

    /// Sends a request; the answer is read by whoever gets it.
    pub async fn send_with_retry(
        &self,
        slot: Slot,
        outgoing: &Outgoing,
        body: Bytes,
        patient: bool,
    ) -> Result<reqwest::Response, Unreachable> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(500);
        let (mut slot, mut answered) = (Some(slot), false);
        loop {
            let sent = async {
                let slot = match slot.take() {
                    Some(slot) => slot,
                    None => self.slot(outgoing).await?,
                };
                self.send(outgoing, body.clone().into(), Place::Call(slot)).await
            };
            // An attempt before may have reached more than the gateway.
            let response = sent.await.map_err(|why| Unreachable { never_sent: why.never_sent && !answered, ..why })?;
            answered = true;
            let busy = matches!(response.status().as_u16(), 429 | 503);
            let wait = retry_after(response.headers()).unwrap_or(pause);
            if !busy || !patient || begun.elapsed() + wait > self.0.settings.upstream_retry_timeout {
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
        slot: Arc<UploadSlot>,
        outgoing: &Outgoing,
        body: reqwest::Body,
    ) -> Result<reqwest::Response, Unreachable> {
        self.send(outgoing, body, Place::Upload(slot)).await
    }

    /// Sends a request whose body is here, or that has none, once.
    pub async fn send_once(
        &self,
        slot: Slot,
        outgoing: &Outgoing,
        body: Bytes,
    ) -> Result<reqwest::Response, Unreachable> {
        self.send(outgoing, body.into(), Place::Call(slot)).await
    }

    /// The slot is given back with the head of the answer: a caller who takes its rest
    /// slowly holds up only itself. A request whose body is here is given up when the
    /// whole site has been silent for too long; an upload takes the time of its caller.
    async fn send(
        &self,
        outgoing: &Outgoing,
        body: reqwest::Body,
        place: Place,
    ) -> Result<reqwest::Response, Unreachable> {
        let inner = &*self.0;
        let url = address(&inner.site, &outgoing.target)?;
        let request = inner.http.request(outgoing.method.clone(), url).headers(forwarded(&outgoing.headers)).body(body);
        let begun = Instant::now();
        let sent = match &place {
            Place::Call(_) => self.send_bounded(request).await,
            Place::Upload(_) => request.send().await.map_err(Failure::Http),
        };
        drop(place);
        let response = sent.map_err(|failure| self.failed(&failure))?;
        inner.clock.observe(date(response.headers()));
        if is_gateway_failure(response.status()) {
            inner.health.begin().failed();
            if let Some(pause) = retry_after(response.headers()) {
                inner.health.probe_after(pause);
            }
            inner.metrics.source.failed("proxy", "http_5xx", begun.elapsed());
        } else {
            inner.health.begin().answered();
            let length = response.content_length().unwrap_or_default();
            inner.metrics.source.answered("proxy", begun.elapsed(), length);
        }
        Ok(response)
    }

    /// Waits for the head of an answer; the attempt counts as silence meanwhile.
    async fn send_bounded(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        let attempt = self.0.health.begin();
        tokio::select! {
            sent = request.send() => sent.map_err(Failure::Http),
            () = self.0.health.hopeless(&attempt, self.last_patience()) => Err(Failure::Silence),
        }
    }

    /// Reads an answer into memory, as long as there is room for it.
    async fn read(&self, peer: Option<Peer>, mut response: reqwest::Response) -> Result<Bytes, Unreachable> {
        let out_of_memory = |error: OutOfMemory| {
            let words = format!("there is no room for the answer of the site: {error}");
            Unreachable::at_limit(&self.0.metrics, "memory", false, words)
        };
        let mut reservation = self.0.memory.reserve(peer, 0).map_err(out_of_memory)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&Failure::Http(error)))? {
            if body.len() + chunk.len() > self.0.settings.max_answer_bytes {
                let most = self.0.settings.max_answer_bytes >> 20;
                return Err(Unreachable::unknown(format!("its answer is longer than {most} MiB")));
            }
            let before = body.capacity();
            body.extend_from_slice(&chunk);
            reservation.grow(body.capacity() - before).map_err(out_of_memory)?;
        }
        Ok(reservation.holding(body))
    }

    fn failed(&self, failure: &Failure) -> Unreachable {
        if let Failure::Http(error) = failure
            && let Some(words) = upload_error(error)
        {
            // Of a request that is not whole the site makes nothing: otherwise anyone could
            // have every read wait for what an upload that ended early might have changed.
            return Unreachable { words, never_sent: true, at_limit: true };
        }
        self.0.health.begin().failed();
        let Failure::Http(error) = failure else {
            self.0.metrics.source.failed("proxy", "timeout", self.last_patience());
            return Unreachable::unknown(format!("it has not answered for {} s", self.last_patience().as_secs()));
        };
        let reason = if error.is_timeout() { "timeout" } else { "connect" };
        self.0.metrics.source.failed("proxy", reason, Duration::ZERO);
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            words = inner.to_string();
            source = inner.source();
        }
        Unreachable { words, never_sent: error.is_connect(), at_limit: false }
    }
}

/// Returns why the body of an upload could not be read from its caller, if that is why the
/// request failed: it says nothing about the site.
fn upload_error(error: &reqwest::Error) -> Option<String> {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |error| error.source());
    causes.find(|error| error.is::<axum::Error>()).map(ToString::to_string)
}

/// What a request holds while it is at the site.
enum Place {
    /// Its body is in memory, or there is none.
    Call(#[expect(dead_code, reason = "held, not looked at")] Slot),
    /// Its caller still sends it.
    Upload(#[expect(dead_code, reason = "held, not looked at")] Arc<UploadSlot>),
}

/// The bound of what calls take.
const CALLS: &str = "requests to the site are in flight as there may be (`api.max_upstream`)";

/// Why no answer came.
enum Failure {
    /// The connection, or its end.
    Http(reqwest::Error),
    /// The site accepts and does not answer, this request or any other.
    Silence,
}

/// Tells whether a gateway says that the site behind it is away.
fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

/// Returns the address of a target at the site.
///
/// A target decides on path and query, never on the host, and not on what lies above
/// the path of the site: `*`, `@host/`, `/../..` are refused.
fn address(site: &Url, target: &str) -> Result<Url, Unreachable> {
    let refused = || Unreachable::never_sent("the request names no path below it");
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
