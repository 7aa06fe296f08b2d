//! The api listener: every path and every method of a site.
//!
//! `POST …/api3/json` below any prefix is read and decided on; everything else goes
//! to the site as it came. Requests are bounded in length and in the memory that
//! all of them take together, so that no caller can starve the others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::State;
use axum::http::request;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::BytesMut;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::access_log::AccessLog;
use super::address_cache::AddressCache;
use super::callers::Callers;
use super::decide::{Asked, Scope};
use super::freshness::{FreshnessTracker, Leader};
use super::memory::{MemoryBudget, OutOfMemory, ReceivingBody, Reservation};
use super::plan_cache::PlanCache;
use super::reason::Pass;
use super::schema_cache::SchemaCache;
use super::settings::Settings;
use super::shadow::{OnDifference, Shadow};
use super::slots::Slots;
use super::upstream::{Outgoing, Unreachable, Upstream};
use super::verification::Verifications;
use super::{access_log, call, costly, decide, ledger_feed, passthrough};
use crate::api3;
use crate::report::ledger::Recorder;
use crate::schema::Schema;
use crate::server::{BodyCut, Connection, Peer, Refusals};
use crate::shotgun;
use crate::state::{ReplicationStatus, StateError};
use crate::supervisor::ending;
use crate::sync::Replica;

/// The content type of answers.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// Says what was done with a request.
pub(super) const SAID: HeaderName = HeaderName::from_static("x-sgcache");
/// The moment up to which an answer from the cache equals the site.
pub(super) const FRESH: HeaderName = HeaderName::from_static("x-sgcache-fresh-as-of");

/// Longer requests are read on a thread of their own, so many at once.
const LARGE_REQUEST_BYTES: usize = 64 << 10;
const MAX_READING: usize = 2;
/// How long the rest of a refused request is read and dropped.
const LINGER: Duration = Duration::from_secs(2);
/// `Retry-After` of what a bound refuses, in seconds.
const SHORTLY: HeaderValue = HeaderValue::from_static("1");

/// How often it is looked whether a probe is due.
const PROBE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The longest time from the first to the last byte of a JSON request: 32 MiB in it need
/// half a megabit per second.
const BODY_TOTAL_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a proxy cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The settings of the site do not work.
    #[error(transparent)]
    Site(#[from] shotgun::Error),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The access log cannot be written.
    #[error("the access log of the api listener (`audit.ndjson`) cannot be written: {0}")]
    AccessLog(#[from] std::io::Error),
}

/// What a proxy is made of.
pub struct Parts<'a> {
    /// The site, the store and the state.
    pub replica: Replica,
    /// The schema of the site.
    pub schema: Schema,
    /// How the site is reached, with the credentials of the cache.
    pub site: &'a shotgun::Settings,
    /// What can be set.
    pub settings: Settings,
    /// Who says how fresh the rows are.
    pub leader: Leader,
    /// Directory of the access log; `None` writes none.
    pub access_log: Option<&'a Path>,
    /// Where calls are counted, across restarts; only with an access log.
    pub ledger: Arc<Recorder>,
    /// Called with each difference that shadow mode sees.
    pub differences: Option<OnDifference>,
}

/// The read proxy; clones share everything.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

/// What every call works with.
pub(super) struct Inner {
    pub settings: Arc<Settings>,
    pub freshness: Arc<FreshnessTracker>,
    pub shadow: Arc<Shadow>,
    pub callers: Callers,
    pub upstream: Upstream,
    pub schemas: SchemaCache,
    pub plans: PlanCache,
    pub addresses: Arc<AddressCache>,
    pub verifications: Verifications,
    pub access_log: Option<AccessLog>,
    pub memory: MemoryBudget,
    reading: Slots,
    pub costly: costly::Turns,
}

impl Proxy {
    /// Puts a proxy together; nothing is sent.
    ///
    /// # Errors
    ///
    /// See [`ProxyError`].
    pub async fn new(parts: Parts<'_>) -> Result<Self, ProxyError> {
        let Parts { replica, schema, site, settings, leader, access_log, ledger, differences } = parts;
        let (settings, metrics) = (Arc::new(settings), replica.metrics().clone());
        let memory = MemoryBudget::new(settings.max_memory_bytes);
        let upstream = Upstream::new(site, Arc::clone(&settings), memory.clone(), &replica)?;
        let schemas = SchemaCache::new(replica.state().clone()).await;
        let (state, clock) = (replica.state().clone(), replica.clock().clone());
        let callers = Callers::new(&site.auth, &settings, state, clock).await;
        let shadow = Arc::new(Shadow::new(replica.state(), differences).await?);
        let freshness =
            Arc::new(FreshnessTracker::new(replica, schema, Arc::clone(&settings), leader, Arc::clone(&ledger)).await?);
        freshness.restore().await?;
        let access_log = access_log.map(|directory| AccessLog::open(directory, ledger, &metrics)).transpose()?;
        let plans = PlanCache::default();
        let reading = Slots::new(MAX_READING);
        let costly = costly::Turns::new(settings.max_reading_wait);
        Ok(Self(Arc::new(Inner {
            settings,
            freshness,
            shadow,
            callers,
            upstream,
            schemas,
            plans,
            addresses: Arc::default(),
            verifications: Verifications::default(),
            access_log,
            memory,
            reading,
            costly,
        })))
    }

    /// Returns the routes.
    pub fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(Arc::clone(&self.0))
    }

    /// Returns what is known of every type.
    pub fn replication_status(&self) -> Arc<ReplicationStatus> {
        self.0.freshness.replication_status()
    }

    /// Keeps what decisions depend on up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        // The size of a page is part of decisions, so it is asked for before the first
        // caller does; a site that never answers must not keep the rest from beginning.
        let ask = stop.run_until_cancelled(self.0.schemas.info(&self.0.upstream));
        let (freshness, state) = (&self.0.freshness, self.0.freshness.replica().state());
        let counted = ledger_feed::keep(freshness.ledger(), state, &stop);
        let kept = async { tokio::join!(ask, freshness.run(stop.clone()), self.probe(&stop), counted) };
        tokio::select! {
            _ = kept => {}
            // A loop that ends again and again is given up, and with it the process.
            () = self.access_log_ended() => ending(access_log::ENDED),
        }
    }

    async fn access_log_ended(&self) {
        match &self.0.access_log {
            Some(access_log) => access_log.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Probes a site that is down, so that no reader has to; when it is back, following
    /// goes on at once.
    async fn probe(&self, stop: &CancellationToken) {
        loop {
            let probed = stop.run_until_cancelled(async {
                tokio::time::sleep(PROBE_CHECK_INTERVAL).await;
                self.0.upstream.probe().await
            });
            match probed.await {
                Some(true) => self.0.freshness.site_is_back(),
                Some(false) => {}
                None => return,
            }
        }
    }
}

async fn handle(State(proxy): State<Arc<Inner>>, request: Request<Body>) -> Response<Body> {
    let in_flight = &proxy.freshness.replica().metrics().proxy.in_flight;
    in_flight.inc();
    let _done = Done(in_flight.clone());
    // `OPTIONS *` and the like name no path, and must not become a part of an address.
    if !request.uri().path().starts_with('/') {
        return page(StatusCode::BAD_REQUEST, "a request names a path that begins with `/`");
    }
    let path = request.uri().path().trim_end_matches('/');
    let is_json = path.ends_with(api3::PATH) && request.method() == Method::POST && request.uri().query().is_none();
    if !is_json {
        return passthrough::pass(&proxy, request).await;
    }
    let (parts, body) = request.into_parts();
    let connection = connection_of(&parts);
    let (method, headers) = (parts.method, parts.headers);
    let outgoing = Outgoing { method, target: api3::PATH.to_owned(), headers, connection };
    let answered = async {
        let body = read(&proxy, outgoing.peer(), body).await?;
        // The memory of what was read is counted until the call has ended.
        let (asked, _tree) = read_large(&proxy, outgoing.peer(), &body).await?.unzip();
        Ok::<_, Refusal>(call::json(&proxy, outgoing, body, asked).await)
    };
    answered.await.unwrap_or_else(|refusal| refuse(&proxy, refusal))
}

/// Returns the connection of a request.
pub(super) fn connection_of(parts: &request::Parts) -> Option<Arc<Connection>> {
    parts.extensions.get().cloned()
}

/// Answers, and counts, that a request is not taken in.
pub(super) fn refuse(proxy: &Inner, refusal: Refusal) -> Response<Body> {
    if let Some(reason) = refusal.reason() {
        Refusals::of(proxy.freshness.replica().metrics(), "api").count(reason);
    }
    refusal.answer()
}

/// Ends a request in flight, also when its caller has left.
struct Done(prometheus::Gauge);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Why a request is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the request is longer than {} MiB (`api.max_request_mib`)", .0 >> 20)]
    TooLong(usize),
    #[error(transparent)]
    TooSlow(BodyCut),
    #[error("the request did not arrive within {} s", BODY_TOTAL_TIMEOUT.as_secs())]
    TricklesIn,
    #[error("the request ended before all of it had arrived")]
    Incomplete,
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("as many long requests are being read as there may be; try again shortly")]
    Busy,
}

impl Refusal {
    /// Returns the name in the metrics; `None` for what the server counts, or the peer
    /// did by itself.
    fn reason(self) -> Option<&'static str> {
        match self {
            Self::TooLong(_) => Some("too_large"),
            Self::TricklesIn => Some("body_timeout"),
            Self::OutOfMemory(OutOfMemory::Total) => Some("memory"),
            Self::OutOfMemory(OutOfMemory::OfPeer) => Some("peer_memory"),
            Self::Busy => Some("busy"),
            Self::TooSlow(_) | Self::Incomplete => None,
        }
    }

    /// The connection is closed, because the rest of the request is not read.
    fn answer(self) -> Response<Body> {
        let status = match self {
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) | Self::TricklesIn => StatusCode::REQUEST_TIMEOUT,
            Self::Incomplete => StatusCode::BAD_REQUEST,
            Self::OutOfMemory(OutOfMemory::OfPeer) => StatusCode::TOO_MANY_REQUESTS,
            Self::OutOfMemory(OutOfMemory::Total) | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = page(status, &self.to_string());
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, SHORTLY);
        }
        response
    }
}

/// Reads a body into memory, as long as there is room for it.
async fn read(proxy: &Inner, peer: Option<Peer>, body: Body) -> Result<Bytes, Refusal> {
    let most = proxy.settings.max_request_bytes;
    let is_too_long = body.size_hint().lower() > most as u64;
    let mut frames = body.into_data_stream();
    let received = if is_too_long {
        Err(Refusal::TooLong(most))
    } else {
        receive_in_time(proxy.memory.receive(peer), &mut frames, most).await
    };
    if received.is_err() {
        linger(&mut frames).await;
    }
    received
}

/// A caller in the middle of sending would see a broken connection instead of the answer, so
/// what it sends meanwhile is read and dropped, for a bounded time.
async fn linger(frames: &mut BodyDataStream) {
    let rest = async { while frames.next().await.is_some_and(|frame| frame.is_ok()) {} };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Receives a body within [`BODY_TOTAL_TIMEOUT`]: one that arrives byte by byte is never
/// silent for long, and would hold its memory for days.
async fn receive_in_time(receiving: ReceivingBody, frames: &mut BodyDataStream, most: usize) -> Result<Bytes, Refusal> {
    let received = tokio::time::timeout(BODY_TOTAL_TIMEOUT, receive(receiving, frames, most)).await;
    received.unwrap_or(Err(Refusal::TricklesIn))
}

async fn receive(receiving: ReceivingBody, frames: &mut BodyDataStream, most: usize) -> Result<Bytes, Refusal> {
    let (whole, is_complete) = receive_some(&receiving, frames, most + 1).await?;
    if !is_complete || whole.len() > most {
        return Err(Refusal::TooLong(most));
    }
    Ok(receiving.complete().holding(whole))
}

/// Receives at least `least` bytes, or the whole body; tells whether that is all.
async fn receive_some(
    receiving: &ReceivingBody,
    frames: &mut BodyDataStream,
    least: usize,
) -> Result<(BytesMut, bool), Refusal> {
    let mut received = BytesMut::new();
    while received.len() < least {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = receiving.cut() => return Err(Refusal::OutOfMemory(OutOfMemory::Total)),
        };
        let Some(frame) = frame else { return Ok((received, true)) };
        let frame = frame.map_err(|error| BodyCut::cause(&error).map_or(Refusal::Incomplete, Refusal::TooSlow))?;
        let before = received.capacity();
        received.extend_from_slice(&frame);
        receiving.grow(frame.len(), received.capacity() - before)?;
    }
    Ok((received, false))
}

/// Receives the beginning of a body that goes on to the site as it comes, or all of a
/// short one; tells whether it is all.
pub(super) async fn read_beginning(
    proxy: &Inner,
    peer: Option<Peer>,
    frames: &mut BodyDataStream,
    least: usize,
) -> Result<(Bytes, bool), Refusal> {
    let receiving = proxy.memory.receive(peer);
    let received = tokio::time::timeout(BODY_TOTAL_TIMEOUT, receive_some(&receiving, frames, least)).await;
    match received.unwrap_or(Err(Refusal::TricklesIn)) {
        Ok((beginning, is_all)) => Ok((receiving.complete().holding(beginning), is_all)),
        Err(refusal) => {
            linger(frames).await;
            Err(refusal)
        }
    }
}

type Parsed = (Result<Asked, Pass>, Reservation);

/// Reads what a long request asks, away from the threads that serve the network; of a
/// read by someone unknown only its envelope. `None` for a short request.
async fn read_large(proxy: &Arc<Inner>, peer: Option<Peer>, body: &Bytes) -> Result<Option<Parsed>, Refusal> {
    if body.len() <= LARGE_REQUEST_BYTES {
        return Ok(None);
    }
    let (shared, body) = (Arc::clone(proxy), body.clone());
    let read = move || {
        let tree = api3::json::measure(&body).bytes.min(api3::json::MAX_TREE_BYTES);
        let reservation = shared.memory.reserve(peer, tree)?;
        let asked = Asked::parse_if(&body, |method, auth| {
            let is_unknown = matches!(shared.callers.identify(auth).scope, Scope::Nothing(_));
            !(is_unknown && decide::is_read(method))
        });
        Ok((asked, reservation))
    };
    let read = proxy.reading.run_blocking(peer, proxy.settings.max_reading_wait, read).await;
    read.ok_or(Refusal::Busy)?.map(Some)
}

/// An answer of our own that is no JSON: the official client shows its status.
pub(super) fn page(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("sgcache: {words}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Answers that the site gave nothing; when to come back, where only a bound of this
/// process is in the way.
pub(super) fn unavailable(why: &Unreachable) -> Response<Body> {
    if !why.at_limit {
        return page(StatusCode::SERVICE_UNAVAILABLE, &format!("the site cannot be reached: {why}"));
    }
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, &why.words);
    response.headers_mut().insert(header::RETRY_AFTER, SHORTLY);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_more_than_its_part_is_answered_429() {
        let budget = MemoryBudget::new(1 << 20);
        let peer = Some(Peer::of(([10, 0, 0, 1], 1).into()));
        let mut frames = Body::from(vec![b' '; 600 << 10]).into_data_stream();
        let refusal = receive_in_time(budget.receive(peer), &mut frames, 1 << 20).await.expect_err("a refusal");
        assert_eq!(refusal.reason(), Some("peer_memory"));
        let answer = refusal.answer();
        assert_eq!(
            (answer.status(), answer.headers().get("retry-after")),
            (StatusCode::TOO_MANY_REQUESTS, Some(&SHORTLY))
        );
        assert!(refusal.to_string().contains("one address"), "{refusal}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_in_ends_with_408() {
        let budget = MemoryBudget::new(1 << 20);
        // Never silent for as long as `api.body_timeout`, and never complete.
        let drops = futures::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(50)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
        });
        let mut frames = Body::from_stream(drops).into_data_stream();
        let begun = tokio::time::Instant::now();
        let refusal = receive_in_time(budget.receive(None), &mut frames, 1 << 20).await.expect_err("a refusal");
        // The clock of the test moves by what is waited for, and by nothing else.
        assert_eq!((refusal, begun.elapsed()), (Refusal::TricklesIn, Duration::from_secs(600)));
        assert_eq!(refusal.answer().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
