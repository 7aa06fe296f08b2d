//! Everything that is no call of the JSON API: uploads, downloads, pictures, REST.
//!
//! Streamed both ways, with the caller's own credentials. What may have changed
//! something is taken note of before the caller learns that it worked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Request, Response};
use futures::StreamExt;

use super::listener::{Inner, SAID, unavailable};
use super::pending_writes::PendingWrites;
use super::reason::Reason;
use super::rest_effects;
use super::upstream::{Outgoing, forwarded};
use super::write_effects::WriteEffects;

/// The beginning of a form that is looked at.
const LOOKED_AT: usize = 64 << 10;

/// The beginning of a body, kept while it goes by.
#[derive(Clone, Default)]
struct Beginning(Arc<Mutex<Vec<u8>>>);

impl Beginning {
    fn note(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LOOKED_AT.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Returns what the request may have changed.
    fn effects(&self, proxy: &Inner, method: &Method, path: &str, query: &str) -> WriteEffects {
        let catalogue = proxy.freshness.catalogue(PendingWrites::default(), 0, false);
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rest_effects::effects(method, path, query, &body, &catalogue)
    }
}

/// Streams a request to the site and its answer back.
pub(super) async fn pass(proxy: &Arc<Inner>, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let target = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let (method, changes) = (parts.method.clone(), !rest_effects::only_reads(&parts.method, &path));
    let outgoing = Outgoing { method: parts.method, target, headers: parts.headers };
    let beginning = Beginning::default();
    let sent = if body.size_hint().exact() == Some(0) {
        proxy.upstream.send_empty(&outgoing).await
    } else {
        let body = stream(body, changes.then(|| beginning.clone()));
        proxy.upstream.send_upload(&outgoing, body).await
    };
    let unchanged = match &sent {
        Ok(response) => response.status().is_client_error(),
        Err(why) => why.never_sent,
    };
    if changes && !unchanged {
        let effects = beginning.effects(proxy, &method, &path, &query);
        let number = proxy.freshness.site_lag().send(&effects);
        proxy.freshness.acknowledge(number, effects).await;
    }
    let response = match sent {
        Ok(response) => answer(response),
        Err(gone) => unavailable(&gone),
    };
    let method = if path.starts_with("/upload/") { "upload" } else { "other" };
    let metrics = &proxy.freshness.replica().metrics().proxy;
    metrics.requests.inc(&[method]);
    metrics.passthrough.inc(&[Reason::Path.as_str()]);
    metrics.duration.observe(&[method, "source"], begun.elapsed().as_secs_f64());
    response
}

fn stream(body: Body, beginning: Option<Beginning>) -> reqwest::Body {
    let frames = body.into_data_stream().inspect(move |frame| {
        if let (Some(beginning), Ok(bytes)) = (&beginning, frame) {
            beginning.note(bytes);
        }
    });
    reqwest::Body::wrap_stream(frames)
}

/// Hands an answer of the site through as it arrives.
pub(super) fn answer(response: reqwest::Response) -> Response<Body> {
    let mut through = Response::new(Body::empty());
    *through.status_mut() = response.status();
    *through.headers_mut() = forwarded(response.headers());
    through.headers_mut().insert(SAID, HeaderValue::from_static("pass; reason=path"));
    *through.body_mut() = Body::from_stream(response.bytes_stream());
    through
}
