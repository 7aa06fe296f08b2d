//! The api listener: every path and every method of a site.
//!
//! `POST …/api3/json` below any prefix is read and decided on; everything else goes
//! to the site as it came. Requests are bounded in length and in the memory that
//! all of them take together, so that no caller can starve the others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::BytesMut;
use futures::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::access_log::AccessLog;
use super::callers::Callers;
use super::freshness::{FreshnessTracker, Leader};
use super::plan_cache::PlanCache;
use super::schema_cache::SchemaCache;
use super::settings::Settings;
use super::shadow::{OnDifference, Shadow};
use super::upstream::{Outgoing, Upstream};
use super::{call, passthrough};
use crate::api3;
use crate::schema::Schema;
use crate::server::BodyCut;
use crate::shotgun;
use crate::state::{ReplicationStatus, StateError};
use crate::sync::Replica;

/// The content type of answers.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// Says what was done with a request.
pub(super) const SAID: HeaderName = HeaderName::from_static("x-sgcache");
/// The moment up to which an answer from the cache equals the site.
pub(super) const FRESH: HeaderName = HeaderName::from_static("x-sgcache-fresh-as-of");

/// The memory that requests may take together, in KiB.
const BODIES_KIB: usize = 256 << 10;
/// The longest silence in the middle of a request.
const SILENCE: Duration = Duration::from_secs(60);

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
    pub access_log: Option<AccessLog>,
    bodies: Semaphore,
}

impl Proxy {
    /// Puts a proxy together; nothing is sent.
    ///
    /// # Errors
    ///
    /// See [`ProxyError`].
    pub async fn new(parts: Parts<'_>) -> Result<Self, ProxyError> {
        let Parts { replica, schema, site, settings, leader, access_log, differences } = parts;
        let clock = replica.clock().clone();
        let upstream = Upstream::new(
            site,
            settings.max_upstream,
            settings.upstream_retry_timeout,
            clock,
            replica.metrics().clone(),
        )?;
        let schemas = SchemaCache::new(replica.state().clone()).await;
        let callers = Callers::new(&site.auth, settings.callers.clone());
        let settings = Arc::new(settings);
        let shadow = Arc::new(Shadow::new(replica.state(), differences).await);
        let freshness = Arc::new(FreshnessTracker::new(replica, schema, Arc::clone(&settings), leader).await?);
        let access_log = access_log.map(AccessLog::open).transpose()?;
        let plans = PlanCache::default();
        let bodies = Semaphore::new(BODIES_KIB);
        Ok(Self(Arc::new(Inner { settings, freshness, shadow, callers, upstream, schemas, plans, access_log, bodies })))
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
        tokio::join!(ask, self.0.freshness.run(stop.clone()));
    }
}

async fn handle(State(proxy): State<Arc<Inner>>, request: Request<Body>) -> Response<Body> {
    let in_flight = &proxy.freshness.replica().metrics().proxy.in_flight;
    in_flight.inc();
    let _done = Done(in_flight.clone());
    let path = request.uri().path().trim_end_matches('/');
    let is_json = path.ends_with(api3::PATH) && request.method() == Method::POST && request.uri().query().is_none();
    if !is_json {
        return passthrough::pass(&proxy, request).await;
    }
    let (parts, body) = request.into_parts();
    let outgoing = Outgoing { method: parts.method, target: api3::PATH.to_owned(), headers: parts.headers };
    match read(&proxy, body).await {
        Ok((body, _room)) => call::json(&proxy, outgoing, body).await,
        Err(status) => page(status, "the request is too long, or did not arrive"),
    }
}

/// Ends a request in flight, also when its caller has left.
struct Done(prometheus::Gauge);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Reads a body into memory, as long as there is room for it.
async fn read(proxy: &Inner, body: Body) -> Result<(Bytes, Option<SemaphorePermit<'_>>), StatusCode> {
    let most = proxy.settings.max_request_bytes;
    if body.size_hint().lower() > most as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut whole = BytesMut::new();
    let mut room: Option<SemaphorePermit<'_>> = None;
    let mut frames = body.into_data_stream();
    loop {
        let frame = tokio::time::timeout(SILENCE, frames.next()).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match BodyCut::cause(&error) {
            Some(_) => StatusCode::REQUEST_TIMEOUT,
            None => StatusCode::BAD_REQUEST,
        })?;
        if whole.len() + frame.len() > most {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let kib = u32::try_from(frame.len() / 1024).unwrap_or(u32::MAX);
        let more = proxy.bodies.acquire_many(kib).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        whole.extend_from_slice(&frame);
    }
    Ok((whole.freeze(), room))
}

/// An answer of our own that is no JSON: the official client shows its status.
pub(super) fn page(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("sgcache: {words}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
