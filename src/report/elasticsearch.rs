//! Delivers the outbox to Elasticsearch.
//!
//! Streams are data streams where the server has them, else daily indices with
//! a read alias of the same name. Which it is, is tried once and remembered:
//! features of servers cannot be derived from their versions.
//!
//! Nothing is written before its template was accepted. A `create` without one
//! would silently make an ordinary index of that name, and the name would be
//! taken for good.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::documents::Stream;
use super::outbox::{Outbox, OutboxError, Waiting};
use super::templates;
use crate::elastic::{BulkOp, Call, Client, Error, ErrorKind, ItemOutcome};
use crate::retry::doubled;
use crate::supervisor::beat;

/// Documents of one request.
const BATCH: usize = 500;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long one delivery may take, besides the waits for the server.
const DELIVERY_BOUND: Duration = Duration::from_secs(300);
/// How much later than its pause a delivery may begin.
const PAUSE_SLACK: Duration = Duration::from_secs(60);
/// How soon documents are noticed that another process put in.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why the outbox could not be delivered now; what waits goes on waiting.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The server is away, or says no to all.
    #[error("reports are not delivered: {0}")]
    Server(#[from] Error),
    /// The server takes the request, and no document: an index is closed, rights are missing.
    #[error("reports are not delivered: {0}")]
    Store(String),
    /// The outbox itself cannot be used.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// How a server keeps a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As a data stream.
    DataStream,
    /// As daily indices behind an alias.
    Daily,
}

/// Delivers an outbox to one server.
pub struct Delivery {
    pub(super) client: Client,
    pub(super) prefix: String,
    outbox: Arc<Outbox>,
    layout: Mutex<Option<Layout>>,
    /// Indices of pipelines whose templates the server has.
    ready: Mutex<BTreeSet<(&'static str, String)>>,
}

impl Delivery {
    /// Returns a delivery into the streams `{prefix}-runs`, `{prefix}-validation`, `{prefix}-mismatch`,
    /// and into their indices `{prefix}-runs-{index}` and so on of pipelines that name one.
    pub fn new(client: Client, prefix: impl Into<String>, outbox: Arc<Outbox>) -> Self {
        Self { client, prefix: prefix.into(), outbox, layout: Mutex::default(), ready: Mutex::default() }
    }

    /// Returns what waits to be delivered.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Delivers for as long as the process runs, and once more, for at most `grace`, when it is cancelled.
    pub async fn run(&self, stop: CancellationToken, grace: Duration) {
        let mut failures = 0_u32;
        loop {
            beat(DELIVERY_BOUND).await;
            // Giving up in the middle is safe: what was sent and not settled is sent again.
            let Some(drained) = stop.run_until_cancelled(self.drain()).await else { break };
            let wait = match drained {
                Ok(()) => {
                    if failures > 0 {
                        info!(failures, "reports are delivered again");
                    }
                    failures = 0;
                    LOOK_AGAIN
                }
                Err(error) => {
                    if failures == 0 {
                        warn!(%error, "reports wait in the outbox");
                    }
                    failures += 1;
                    pause(failures)
                }
            };
            beat(wait.saturating_add(PAUSE_SLACK)).await;
            let woken = async {
                // While the server is away, new documents are no reason to retry earlier.
                if failures == 0 { self.outbox.filled().await } else { std::future::pending().await }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = woken => {}
            }
        }
        if failures == 0 {
            self.flush(grace).await;
        }
    }

    /// Delivers what waits now, for at most `limit`. What is left waits for the next process.
    pub async fn flush(&self, limit: Duration) {
        match tokio::time::timeout(limit, self.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "reports wait in the outbox"),
            Err(_) => warn!("reports wait in the outbox: the server took too long"),
        }
    }

    /// Delivers until nothing waits.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`]; what was not delivered waits on.
    pub async fn drain(&self) -> Result<(), DeliveryError> {
        // Other processes put documents in, too.
        self.outbox.show().await?;
        loop {
            let batch = self.next_batch().await?;
            if batch.is_empty() {
                return Ok(());
            }
            let layout = self.layout().await?;
            self.deliver(&batch, layout).await?;
        }
    }

    /// Returns how the server keeps the streams, after making sure that it knows their mappings.
    ///
    /// # Errors
    ///
    /// When the server is away or denies us templates.
    pub async fn layout(&self) -> Result<Layout, Error> {
        let mut known = self.layout.lock().await;
        if let Some(layout) = *known {
            return Ok(layout);
        }
        let layout = self.prepare().await?;
        info!(?layout, prefix = %self.prefix, "report streams are ready");
        *known = Some(layout);
        Ok(layout)
    }

    async fn next_batch(&self) -> Result<Vec<Waiting>, DeliveryError> {
        Ok(self.outbox.waiting(BATCH).await?)
    }

    async fn deliver(&self, batch: &[Waiting], layout: Layout) -> Result<(), DeliveryError> {
        for one in batch {
            if let Some(index) = &one.index {
                self.prepare_index(one.stream, index, layout).await?;
            }
        }
        let write = |one: &Waiting| {
            let index = self.index_of(one, layout);
            BulkOp::create(&index, &one.id, one.source.clone())
        };
        let operations: Vec<_> = batch.iter().map(write).collect();
        let outcomes = self.client.bulk(&operations, false).await?;
        let (mut delivered, mut refused, mut fault) = (Vec::new(), Vec::new(), None);
        for (one, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                // Stale: an earlier attempt had arrived, only its answer had not.
                ItemOutcome::Done | ItemOutcome::Stale => delivered.push(one.seq),
                ItemOutcome::Refused(reason) => {
                    warn!(stream = one.stream.as_str(), id = %one.id, reason, "report refused");
                    refused.push((one.seq, reason));
                }
                ItemOutcome::StoreFault(reason) => fault = Some(reason),
            }
        }
        self.outbox.finish(delivered, refused).await?;
        match fault {
            None => Ok(()),
            Some(reason) => {
                // An operator may have removed streams and templates together.
                *self.layout.lock().await = None;
                self.ready.lock().await.clear();
                Err(DeliveryError::Store(reason))
            }
        }
    }

    /// The day is that of the document, so that a repeated delivery meets the first one.
    fn index_of(&self, one: &Waiting, layout: Layout) -> String {
        let name = templates::stream_name(&self.prefix, one.stream, one.index.as_deref());
        match layout {
            Layout::DataStream => name,
            Layout::Daily => format!("{name}-{}", one.at.format("%Y.%m.%d")),
        }
    }

    /// Puts the template of a pipeline's own index, once: nothing may be written before.
    async fn prepare_index(&self, stream: Stream, index: &str, layout: Layout) -> Result<(), Error> {
        let mut ready = self.ready.lock().await;
        let key = (stream.as_str(), index.to_owned());
        if ready.contains(&key) {
            return Ok(());
        }
        let (name, body) = match layout {
            Layout::DataStream => templates::data_stream(&self.prefix, stream, Some(index)),
            Layout::Daily => templates::daily(&self.prefix, stream, Some(index)),
        };
        self.client.send(&Call::put(template_path(&name)).json(&body)).await?;
        ready.insert(key);
        Ok(())
    }

    async fn prepare(&self) -> Result<Layout, Error> {
        self.put_component(templates::base(&self.prefix)).await?;
        for stream in Stream::ALL {
            self.put_component(templates::fields(&self.prefix, stream)).await?;
        }
        let layout = if self.has_daily_indices().await? || !self.takes_data_streams().await? {
            Layout::Daily
        } else {
            Layout::DataStream
        };
        if layout == Layout::Daily {
            for stream in Stream::ALL {
                let (name, body) = templates::daily(&self.prefix, stream, None);
                self.client.send(&Call::put(template_path(&name)).json(&body)).await?;
            }
        }
        Ok(layout)
    }

    /// An alias of that name was made by an earlier, older server: the name is taken.
    async fn has_daily_indices(&self) -> Result<bool, Error> {
        let name = format!("{}-{}", self.prefix, Stream::Runs.as_str());
        let call = Call::get(format!("/_alias/{name}")).accept(&[404]);
        Ok(self.client.send(&call).await?.is_success())
    }

    /// Any refusal but one of rights means that the server has no data streams.
    async fn takes_data_streams(&self) -> Result<bool, Error> {
        for stream in Stream::ALL {
            let (name, body) = templates::data_stream(&self.prefix, stream, None);
            match self.client.send(&Call::put(template_path(&name)).json(&body)).await {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Refused | ErrorKind::NotFound) => {
                    info!(%error, "the server has no data streams, using daily indices");
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn put_component(&self, (name, body): (String, serde_json::Value)) -> Result<(), Error> {
        self.client.send(&Call::put(format!("/_component_template/{name}")).json(&body)).await?;
        Ok(())
    }
}

fn template_path(name: &str) -> String {
    format!("/_index_template/{name}")
}

/// Doubles from failure to failure, and is jittered so that many caches do not come back at once.
fn pause(failures: u32) -> Duration {
    doubled(FIRST_PAUSE, failures.saturating_sub(1), LONGEST_PAUSE).mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        assert!(pause(1) <= FIRST_PAUSE);
        assert!(pause(3) >= Duration::from_secs(2) && pause(3) <= Duration::from_secs(4));
        for failures in [7, 100, u32::MAX] {
            assert!(pause(failures) >= LONGEST_PAUSE / 2 && pause(failures) <= LONGEST_PAUSE);
        }
    }
}
