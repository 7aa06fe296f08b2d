//! `GET /api/v1/events`: the status and the runs as server-sent events.
//!
//! `event: status` carries the document of `/api/v1/status`, at once and then every two
//! seconds; `event: run` the summary of a run that has begun (without `finished_at`) or
//! ended, followed by a fresh status. A reader that is too slow misses runs and finds
//! them in the next status. The number of streams is bounded, because each of them takes
//! snapshots; readers beyond it poll.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::ops::Ops;
use super::refusal::refuse;
use super::run_events::MAX_STREAMS;
use super::status::RunSummary;

/// How often a stream carries the status.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// Done when the listener stops: a stream has no end of its own.
#[derive(Clone)]
pub(super) struct Stop(pub CancellationToken);

/// One reader.
struct Reader {
    ops: Ops,
    runs: broadcast::Receiver<RunSummary>,
    due: Interval,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Answers with a stream that ends with its reader or with the listener.
pub(super) async fn events(State(ops): State<Ops>, Extension(Stop(stop)): Extension<Stop>) -> Response {
    let Some(permit) = ops.events().permit() else {
        let message = format!("{MAX_STREAMS} streams are open already: poll /api/v1/status instead");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", &message);
    };
    let mut due = tokio::time::interval(STATUS_INTERVAL);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let runs = ops.events().subscribe();
    Sse::new(stream(Reader { ops, runs, due, stop, _permit: permit })).into_response()
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                run = self.runs.recv() => match run {
                    Ok(run) => {
                        self.due.reset_immediately();
                        return named("run", &run);
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.due.tick() => return named("status", &self.ops.snapshot().await),
            }
        }
    }
}

/// Returns an event; `None`, which ends the stream, for a document that is not JSON.
fn named(name: &str, document: &impl serde::Serialize) -> Option<Event> {
    let event = Event::default().event(name).json_data(document);
    event.inspect_err(|error| tracing::error!(%error, event = name, "an event is not JSON")).ok()
}
