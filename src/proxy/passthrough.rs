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
use super::slots::{Slot, UploadSlot};
use super::unnoted_write::UnnotedWrite;
use super::upstream::{Outgoing, Unreachable, forwarded};

/// The beginning of a longer body: it is read, and looked at, before the rest goes to the site.
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
    // Before the write has a task of its own: a caller who leaves until then leaves nothing.
    let sending = match is_all {
        true => proxy.upstream.slot(&outgoing).await.map(|slot| Sending::Whole(slot, beginning)),
        false => proxy.upstream.upload_slot(&outgoing).await.map(|slot| Sending::Upload(slot, beginning, frames)),
    };
    let sent = match sending {
        Ok(sending) if changes => send_and_note(proxy, outgoing, sending, path.clone(), query).await,
        Ok(sending) => send(proxy, &outgoing, sending).await,
        Err(why) => Err(why),
    };
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

/// A request that has its slot.
enum Sending {
    /// With all of its body.
    Whole(Slot, Bytes),
    /// With the beginning of its body, and the rest as it comes.
    Upload(Arc<UploadSlot>, Bytes, BodyDataStream),
}

impl Sending {
    fn beginning(&self) -> Bytes {
        let (Self::Whole(_, beginning) | Self::Upload(_, beginning, _)) = self;
        beginning.clone()
    }
}

/// Sends what may change something, in a task of its own: a caller who leaves does not
/// leave a write unnoted. What is still being sent ends with its caller.
async fn send_and_note(
    proxy: &Arc<Inner>,
    outgoing: Outgoing,
    sending: Sending,
    path: String,
    query: String,
) -> Result<reqwest::Response, Unreachable> {
    let shared = Arc::clone(proxy);
    let task = tokio::spawn(async move {
        let (unnoted, beginning) = (UnnotedWrite::new(&shared.freshness), sending.beginning());
        let sent = send(&shared, &outgoing, sending).await;
        let unchanged = match &sent {
            Ok(response) => response.status().is_client_error(),
            Err(why) => why.never_sent,
        };
        if !unchanged {
            let catalogue = shared.freshness.catalogue(PendingWrites::default(), 0, false);
            let looked_at = &beginning[..beginning.len().min(BEGINNING_BYTES)];
            let effects = rest_effects::effects(&outgoing.method, &path, &query, looked_at, &catalogue);
            let number = shared.freshness.site_lag().send(&effects);
            shared.freshness.acknowledge(number, effects).await;
        }
        unnoted.noted();
        sent
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "proxy request task panicked");
        Err(Unreachable::unknown("the request failed inside of sgcache"))
    })
}

/// Sends a request; an upload that hardly moves may be cut off for others.
async fn send(proxy: &Inner, outgoing: &Outgoing, sending: Sending) -> Result<reqwest::Response, Unreachable> {
    let (slot, beginning, frames) = match sending {
        Sending::Whole(slot, body) => return proxy.upstream.send_once(slot, outgoing, body).await,
        Sending::Upload(slot, beginning, frames) => (slot, beginning, frames),
    };
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
