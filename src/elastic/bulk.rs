//! Bulk requests: cut to size, each item judged, only the failed items repeated.
//!
//! Every operation here may be repeated without harm: writes carry external
//! versions, and a repeated `create` answers 409, which is fine. So an answer
//! that was lost, or that has more or fewer items than were sent, leads to the
//! same request again.

use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::call::Call;
use super::client::{Client, join_lines};
use super::error::{Error, ErrorKind, Result};
use super::item::{ItemOutcome, Verdict, judge};

const IN_FLIGHT: usize = 2;

/// One operation of a bulk request.
#[derive(Debug, Clone)]
pub struct BulkOp {
    action: String,
    source: Option<String>,
}

/// How the server compares a given version with the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionType {
    /// Wins over lower versions.
    External,
    /// Wins over lower and equal versions.
    ExternalGte,
}

impl VersionType {
    fn name(self) -> &'static str {
        match self {
            Self::External => "external",
            Self::ExternalGte => "external_gte",
        }
    }
}

impl BulkOp {
    /// Writes document `id` whole, as `version`. `source` is JSON in one line.
    pub fn index(index: &str, id: &str, version: i64, version_type: VersionType, source: String) -> Self {
        let meta = json!({"_index": index, "_id": id, "version": version, "version_type": version_type.name()});
        Self { action: json!({ "index": meta }).to_string(), source: Some(source) }
    }

    /// Writes document `id` unless there is one. `source` is JSON in one line.
    pub fn create(index: &str, id: &str, source: String) -> Self {
        Self { action: json!({"create": {"_index": index, "_id": id}}).to_string(), source: Some(source) }
    }

    /// Deletes document `id` unless it has a newer version than `version`.
    pub fn delete(index: &str, id: &str, version: i64) -> Self {
        let meta = json!({"_index": index, "_id": id, "version": version, "version_type": "external_gte"});
        Self { action: json!({ "delete": meta }).to_string(), source: None }
    }

    fn size(&self) -> usize {
        self.action.len() + self.source.as_ref().map_or(0, |source| source.len() + 1) + 1
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.action.as_str()).chain(self.source.as_deref())
    }
}

#[derive(Deserialize)]
struct BulkAnswer {
    items: Vec<Value>,
}

/// What became of one request.
enum Sent {
    Judged(Vec<Verdict>),
    TooLarge,
}

impl Client {
    /// Sends the operations and says for each, in their order, what became of it.
    ///
    /// With `require_alias` the index of each operation must be an alias, so that
    /// a missing one is an error and not a new index of that name. Items that the
    /// server could not take now are repeated; what is left after the last
    /// attempt is a [`ItemOutcome::StoreFault`].
    ///
    /// # Errors
    ///
    /// When a request as a whole failed for good: then nothing is known about its
    /// items, and repeating them is harmless.
    pub async fn bulk(&self, operations: &[BulkOp], require_alias: bool) -> Result<Vec<ItemOutcome>> {
        let mut outcomes: Vec<Option<ItemOutcome>> = vec![None; operations.len()];
        let mut pending: Vec<usize> = (0..operations.len()).collect();
        let mut attempt = 0;
        while !pending.is_empty() {
            let chunks = self.bulk_limits().chunks(&pending, |position| operations[position].size());
            let round = self.round(operations, chunks, require_alias).await?;
            pending.clear();
            let last_attempt = attempt + 1 >= self.attempts();
            let mut busy = false;
            for (position, verdict) in round {
                match verdict {
                    Some(Verdict::Final(outcome)) => outcomes[position] = Some(outcome),
                    Some(Verdict::Retry(reason)) if last_attempt => {
                        outcomes[position] = Some(ItemOutcome::StoreFault(reason));
                    }
                    Some(Verdict::Retry(_)) => {
                        busy = true;
                        pending.push(position);
                    }
                    None => pending.push(position),
                }
            }
            pending.sort_unstable();
            if busy {
                attempt += 1;
                self.bulk_limits().overloaded();
                tracing::debug!(attempt, items = pending.len(), "bulk items refused for now, trying again");
                self.pause(attempt, None).await;
            }
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(ItemOutcome::Done)).collect())
    }

    /// Sends all chunks, a few at a time. A position without a verdict was not taken for its size.
    async fn round(
        &self,
        operations: &[BulkOp],
        chunks: Vec<Vec<usize>>,
        require_alias: bool,
    ) -> Result<Vec<(usize, Option<Verdict>)>> {
        let requests = chunks.into_iter().map(|chunk| async move {
            let sent = self.request(operations, &chunk, require_alias).await;
            (chunk, sent)
        });
        let mut running = futures::stream::iter(requests).buffer_unordered(IN_FLIGHT);
        let mut results = Vec::new();
        while let Some((chunk, sent)) = running.next().await {
            match sent? {
                Sent::Judged(verdicts) => {
                    results.extend(chunk.into_iter().zip(verdicts.into_iter().map(Some)));
                }
                Sent::TooLarge if chunk.len() == 1 => {
                    let reason = "status 413: the document is larger than the server takes".to_owned();
                    results.push((chunk[0], Some(Verdict::Final(ItemOutcome::Refused(reason)))));
                }
                Sent::TooLarge => results.extend(chunk.into_iter().map(|position| (position, None))),
            }
        }
        Ok(results)
    }

    /// Sends one request, again when its answer does not fit what was sent.
    async fn request(&self, operations: &[BulkOp], chunk: &[usize], require_alias: bool) -> Result<Sent> {
        let lines: Vec<&str> = chunk.iter().flat_map(|&position| operations[position].lines()).collect();
        let body = join_lines(&lines);
        let bytes = body.len();
        let call = Call::post("/_bulk")
            .param("require_alias", require_alias)
            // The rest of an item repeats what was sent.
            .param("filter_path", "items.*.status,items.*.error")
            .raw(body)
            .patient()
            .repeatable();
        let mut attempt = 1;
        loop {
            let answer = match self.send(&call).await {
                Ok(answer) => answer,
                Err(error) => return self.failed(error, bytes),
            };
            match read(&answer, chunk.len()) {
                Ok(verdicts) => {
                    self.bulk_limits().worked();
                    return Ok(Sent::Judged(verdicts));
                }
                Err(error) if attempt >= self.attempts() => {
                    return Err(error.with_attempts(attempt));
                }
                Err(_) => self.pause(attempt, None).await,
            }
            attempt += 1;
        }
    }

    fn failed(&self, error: Error, bytes: usize) -> Result<Sent> {
        match error.kind() {
            ErrorKind::TooLarge => {
                self.bulk_limits().too_large(bytes);
                return Ok(Sent::TooLarge);
            }
            ErrorKind::Overloaded | ErrorKind::Timeout => self.bulk_limits().overloaded(),
            _ => {}
        }
        Err(error)
    }
}

fn read(answer: &Answer, sent: usize) -> Result<Vec<Verdict>> {
    let BulkAnswer { items } = answer.json()?;
    // ES 7.10.2 and 7.11.1 could answer more items than were sent (logstash guards against it too).
    if items.len() != sent {
        let reason = format!("the answer has {} items, {sent} were sent", items.len());
        return Err(Error::new(ErrorKind::Malformed, reason).with_call(answer.call.clone()));
    }
    Ok(items.iter().map(judge).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_one_or_two_lines() {
        let write = BulkOp::index("shots-write", "7", 1 << 40, VersionType::External, r#"{"id":7}"#.into());
        assert_eq!(
            write.lines().collect::<Vec<_>>(),
            [
                r#"{"index":{"_id":"7","_index":"shots-write","version":1099511627776,"version_type":"external"}}"#,
                r#"{"id":7}"#
            ]
        );
        let delete = BulkOp::delete("shots-write", "7", 5);
        assert_eq!(delete.lines().count(), 1);
        assert_eq!(delete.size(), join_lines(&delete.lines().collect::<Vec<_>>()).len());
        assert_eq!(write.size(), join_lines(&write.lines().collect::<Vec<_>>()).len());
    }
}
