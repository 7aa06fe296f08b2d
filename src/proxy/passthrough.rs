//! Everything that is no call of the JSON API: uploads, downloads, pictures, REST.
//!
//! Streamed both ways, with the caller's own credentials. What may have changed
//! something is taken note of before the caller learns that it worked.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderValue, Request, Response};
use futures::{StreamExt, stream};

use super::listener::{Inner, SAID, connection_of, read_beginning, refuse, unavailable};
use super::pending_writes::PendingWrites;
use super::reason::Reason;
use super::rest_effects;
use super::upstream::{Outgoing, Unreachable, forwarded};

/// Of a longer body so much is waited for before it goes on to the site, and looked at.
/// A shorter one is like a call: it takes no place of those who still send.
const BEGINNING_BYTES: usize = 64 << 10;

/// Streams a request to the site and its answer back.
pub(super) async fn pass(proxy: &Arc<Inner>, request: Request<Body>) -> Response<Body> {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let target = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let changes = !rest_effects::only_reads(&parts.method, &path);
    let connection = connection_of(&parts);
    let outgoing = Outgoing { method: parts.method, target, headers: parts.headers, connection };
    let mut frames = body.into_data_stream();
    let (beginning, is_all) = match read_beginning(proxy, outgoing.peer(), &mut frames, BEGINNING_BYTES).await {
        Ok(read) => read,
        Err(refusal) => return refuse(proxy, refusal),
    };
    let sent = match is_all {
        true => proxy.upstream.send_once(&outgoing, beginning.clone()).await,
        false => upload(proxy, &outgoing, beginning.clone(), frames).await,
    };
    let unchanged = match &sent {
        Ok(response) => response.status().is_client_error(),
        Err(why) => why.never_sent,
    };
    if changes && !unchanged {
        let catalogue = proxy.freshness.catalogue(PendingWrites::default(), 0, false);
        let looked_at = &beginning[..beginning.len().min(BEGINNING_BYTES)];
        let effects = rest_effects::effects(&outgoing.method, &path, &query, looked_at, &catalogue);
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

/// Sends a body as it comes; one that hardly moves may be cut off for others.
async fn upload(
    proxy: &Inner,
    outgoing: &Outgoing,
    beginning: Bytes,
    frames: BodyDataStream,
) -> Result<reqwest::Response, Unreachable> {
    let slot = proxy.upstream.upload_slot(outgoing).await?;
    let rest = stream::unfold((frames, Arc::clone(&slot)), |(mut frames, slot)| async {
        let frame = tokio::select! {
            frame = frames.next() => frame?,
            () = slot.cut() => Err(axum::Error::new(CutOff)),
        };
        slot.arrived(frame.as_ref().map_or(0, Bytes::len));
        Some((frame, (frames, slot)))
    });
    let body = stream::once(async { Ok(beginning) }).chain(rest);
    proxy.upstream.send_upload(slot, outgoing, reqwest::Body::wrap_stream(body)).await
}

/// Why an upload ended early.
#[derive(Debug, thiserror::Error)]
#[error("the upload hardly moved while others needed its place (`api.max_uploads`)")]
struct CutOff;

/// Hands an answer of the site through as it arrives.
pub(super) fn answer(response: reqwest::Response) -> Response<Body> {
    let mut through = Response::new(Body::empty());
    *through.status_mut() = response.status();
    *through.headers_mut() = forwarded(response.headers());
    through.headers_mut().insert(SAID, HeaderValue::from_static("pass; reason=path"));
    *through.body_mut() = Body::from_stream(response.bytes_stream());
    through
}
