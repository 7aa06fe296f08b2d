//! [`Outbox`]: documents that wait to be delivered, kept in the state.
//!
//! They are put there when a run ends and leave when the server has them. So a server
//! that is away neither fails a run nor loses its record, and a process that dies in
//! between repeats at most a delivery that changes nothing.
//!
//! The outbox is bounded. When it is full, refused documents are dropped first, then the
//! oldest mismatches, then validations, and runs last; every one is counted.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::Notify;

use super::documents::{Document, Stream};
use crate::metrics::Metrics;
use crate::state::{OutboxDocument, RefusedDocument, State, StateError, WaitingDocument};

/// Why the outbox could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the outbox of reports: {0}")]
pub struct OutboxError(#[from] StateError);

type Result<T> = std::result::Result<T, OutboxError>;

/// A document that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its place in the queue.
    pub seq: i64,
    /// Where it goes.
    pub stream: Stream,
    /// The pipeline's own index of that stream.
    pub index: Option<String>,
    /// Its id.
    pub id: String,
    /// When it is about.
    pub at: DateTime<Utc>,
    /// The document as JSON in one line.
    pub source: String,
}

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    state: State,
    metrics: Metrics,
    limit: u64,
    filled: Notify,
}

impl Outbox {
    /// Returns the outbox in the state, of at most `limit` documents.
    pub fn new(state: State, limit: u64, metrics: Metrics) -> Self {
        Self { state, metrics, limit, filled: Notify::new() }
    }

    /// Puts documents in, all or none. Those that wait already are left as they are.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub async fn put(&self, documents: &[Document]) -> Result<()> {
        let rows = documents.iter().map(row).collect();
        let dropped = self.state.put_documents(rows, self.limit).await?;
        self.metrics.reports.dropped.add(&["full"], dropped);
        self.show().await?;
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something was put in by this process.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Returns the oldest waiting documents, at most `number`. One that cannot be
    /// understood is refused, with the reason, and holds up no other.
    ///
    /// # Errors
    ///
    /// When the state cannot be read or written.
    pub async fn waiting(&self, number: usize) -> Result<Vec<Waiting>> {
        let names = Stream::ALL.map(Stream::as_str);
        loop {
            let (mut waiting, mut refused) = (Vec::new(), Vec::new());
            for found in self.state.waiting_documents(&names, number).await? {
                let seq = found.seq;
                match understand(found) {
                    Ok(one) => waiting.push(one),
                    Err(reason) => refused.push((seq, reason)),
                }
            }
            if refused.is_empty() {
                return Ok(waiting);
            }
            tracing::warn!(number = refused.len(), "documents in the outbox cannot be read and are refused");
            self.finish(Vec::new(), refused).await?;
        }
    }

    /// Takes out what was delivered, and sets apart what was refused, with the reason.
    ///
    /// # Errors
    ///
    /// When the state cannot be written; then the same is delivered again, which changes nothing.
    pub async fn finish(&self, delivered: Vec<i64>, refused: Vec<(i64, String)>) -> Result<()> {
        let (sent, dropped) = (delivered.len() as u64, refused.len() as u64);
        self.state.finish_documents(delivered, refused).await?;
        self.metrics.reports.documents.inc_by(sent);
        self.metrics.reports.dropped.add(&["refused"], dropped);
        self.show().await
    }

    /// Returns what was refused, oldest first.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn refused(&self) -> Result<Vec<RefusedDocument>> {
        Ok(self.state.refused_documents().await?)
    }

    /// Returns the number of waiting documents, those of other processes included.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn len(&self) -> Result<u64> {
        Ok(self.state.count_waiting_documents().await?)
    }

    /// Returns whether nothing waits.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Shows in the metrics how many documents wait.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn show(&self) -> Result<()> {
        self.metrics.reports.outbox.set(self.len().await? as f64);
        Ok(())
    }
}

fn row(document: &Document) -> OutboxDocument {
    let rank = match document.stream {
        Stream::Runs => 2,
        Stream::Validation | Stream::Import => 1,
        // Of a minute or a mismatch there are many: they make room first.
        Stream::Mismatch | Stream::Proxy | Stream::Heartbeat | Stream::Sync => 0,
    };
    OutboxDocument {
        stream: match &document.index {
            // A program of before leaves it alone, as it does streams that it does not know.
            Some(index) => format!("{}/{index}", document.stream.as_str()),
            None => document.stream.as_str().to_owned(),
        },
        id: document.id.clone(),
        at_millis: document.at.timestamp_millis(),
        source: Value::to_string(&document.body),
        rank,
    }
}

fn understand(found: WaitingDocument) -> std::result::Result<Waiting, String> {
    let WaitingDocument { seq, stream, id, at_millis, source } = found;
    let (stream, index) = match stream.split_once('/') {
        Some((stream, index)) => (stream, Some(index.to_owned())),
        None => (stream.as_str(), None),
    };
    let stream = Stream::parse(stream).ok_or_else(|| format!("there is no stream `{stream}`"))?;
    let at = DateTime::from_timestamp_millis(at_millis).ok_or_else(|| format!("{at_millis} is not a time"))?;
    Ok(Waiting { seq, stream, index, id, at, source })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use serde_json::json;

    use super::*;

    struct Case {
        outbox: Outbox,
        metrics: Metrics,
        folder: tempfile::TempDir,
    }

    async fn outbox(limit: u64) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let state = State::open(folder.path()).await.unwrap();
        Case { outbox: Outbox::new(state, limit, metrics.clone()), metrics, folder }
    }

    fn document(stream: Stream, id: &str) -> Document {
        let at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap();
        Document { stream, index: None, id: id.into(), at, body: json!({"id": id}) }
    }

    async fn ids(outbox: &Outbox) -> Vec<String> {
        outbox.waiting(100).await.unwrap().into_iter().map(|one| one.id).collect()
    }

    #[tokio::test]
    async fn documents_leave_when_they_were_delivered_and_not_before() {
        let case = outbox(10).await;
        case.outbox.put(&[document(Stream::Runs, "a-0"), document(Stream::Mismatch, "a-0")]).await.unwrap();
        let waiting = case.outbox.waiting(100).await.unwrap();
        assert_eq!(waiting.len(), 2);
        assert_eq!(waiting[0].source, r#"{"id":"a-0"}"#);
        assert_eq!(case.metrics.reports.outbox.get(), 2.0);

        case.outbox.finish(vec![waiting[0].seq], vec![]).await.unwrap();
        assert_eq!(case.outbox.waiting(100).await.unwrap(), waiting[1..]);
        assert_eq!(case.metrics.reports.documents.get(), 1);
        assert_eq!(case.metrics.reports.outbox.get(), 1.0);
    }

    #[tokio::test]
    async fn a_report_that_is_put_in_twice_waits_once() {
        let case = outbox(10).await;
        case.outbox.put(&[document(Stream::Runs, "a-0")]).await.unwrap();
        case.outbox.put(&[document(Stream::Runs, "a-0")]).await.unwrap();
        assert_eq!(case.outbox.len().await.unwrap(), 1);
    }

    #[tokio::test]
    async fn documents_survive_the_process() {
        let case = outbox(10).await;
        case.outbox.put(&[document(Stream::Runs, "a-0")]).await.unwrap();
        drop(case.outbox);
        let metrics = Metrics::default();
        let again = Outbox::new(State::open(case.folder.path()).await.unwrap(), 10, metrics.clone());
        again.show().await.unwrap();
        assert_eq!(ids(&again).await, ["a-0"]);
        assert_eq!(metrics.reports.outbox.get(), 1.0);
    }

    #[tokio::test]
    async fn a_full_outbox_gives_up_mismatches_before_runs_and_counts_them() {
        let case = outbox(3).await;
        case.outbox.put(&[document(Stream::Runs, "r1")]).await.unwrap();
        case.outbox.put(&[document(Stream::Mismatch, "m1")]).await.unwrap();
        case.outbox.put(&[document(Stream::Validation, "v1")]).await.unwrap();
        case.outbox.put(&[document(Stream::Mismatch, "m2")]).await.unwrap();
        assert_eq!(ids(&case.outbox).await, ["r1", "v1", "m2"]);
        case.outbox.put(&[document(Stream::Runs, "r2"), document(Stream::Runs, "r3")]).await.unwrap();
        assert_eq!(ids(&case.outbox).await, ["r1", "r2", "r3"]);
        case.outbox.put(&[document(Stream::Runs, "r4")]).await.unwrap();
        assert_eq!(ids(&case.outbox).await, ["r2", "r3", "r4"]);
        let dropped = case.metrics.value("sgcache_report_dropped_total", &[("reason", "full")]);
        assert_eq!(dropped, Some(4.0));
    }

    #[tokio::test]
    async fn a_refused_document_blocks_nothing_and_can_be_looked_at() {
        let case = outbox(3).await;
        case.outbox.put(&[document(Stream::Runs, "r1"), document(Stream::Runs, "r2")]).await.unwrap();
        let bad = case.outbox.waiting(1).await.unwrap().remove(0);
        case.outbox.finish(vec![], vec![(bad.seq, "not a date".into())]).await.unwrap();
        assert_eq!(ids(&case.outbox).await, ["r2"]);
        let refused = case.outbox.refused().await.unwrap();
        assert_eq!((refused[0].id.as_str(), refused[0].reason.as_str()), ("r1", "not a date"));
        // And it is the first to go when the outbox is full.
        case.outbox.put(&[document(Stream::Runs, "r3"), document(Stream::Runs, "r4")]).await.unwrap();
        assert!(case.outbox.refused().await.unwrap().is_empty());
        assert_eq!(ids(&case.outbox).await, ["r2", "r3", "r4"]);
    }

    #[tokio::test]
    async fn documents_that_cannot_be_understood_hold_up_no_other() {
        let case = outbox(100).await;
        case.outbox.put(&[document(Stream::Runs, "r1"), document(Stream::Runs, "r2")]).await.unwrap();
        let stored = rusqlite::Connection::open(case.folder.path().join("state.sqlite")).unwrap();
        stored.execute("UPDATE outbox SET at = 9223372036854775807 WHERE id = 'r1'", []).unwrap();
        // Of a newer version: more of them than one batch holds.
        for id in 0..3 {
            let sql = "INSERT INTO outbox (seq, stream, id, at, document) VALUES (?1, 'later', ?1, 0, '{}')";
            stored.execute(sql, [-id]).unwrap();
        }
        let waiting = case.outbox.waiting(2).await.unwrap();
        assert_eq!(waiting.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["r2"]);
        let refused = case.outbox.refused().await.unwrap();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].reason, "9223372036854775807 is not a time");
    }
}
