//! What happens before the first poll: whose log it is, and where to begin.

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use super::poll::{FINGERPRINT_FIELDS, created_at, fingerprint};
use super::{Replica, Result, SyncError};
use crate::api3::Read;
use crate::entity::{EntityType, EventId, Timestamp};
use crate::filter::{RawFilter, RawLeaf, RawSort};
use crate::shotgun::{Answer, Purpose};
use crate::state::{ROWS_BEHIND, Stream};

/// Looks that have to agree before a log is given up.
const LOOKS: u32 = 3;

impl Replica {
    /// Makes sure that the position fits the site: begins the stream, or starts a
    /// new incarnation when the log is not the one that was followed, or no longer
    /// holds what was missed.
    pub(super) async fn check_stream(&self) -> Result<()> {
        let stream = self.check_site().await?;
        let Some(high_water_mark) = stream.high_water_mark else {
            return self.begin_stream().await;
        };
        if let Some(reason) = self.confirmed_stream_problem(&stream, high_water_mark).await? {
            tracing::error!(%high_water_mark, reason, "the event log cannot be continued: every type is imported again");
            let incarnation = self.state().new_incarnation().await?;
            self.metrics().sync.incarnation.set(incarnation as f64);
            self.metrics().sync.gaps_resolved.inc(&["resync"]);
            self.begin_stream().await?;
        }
        Ok(())
    }

    /// Makes sure that the state is that of the configured site; returns the position.
    pub(super) async fn check_site(&self) -> Result<Stream> {
        let stream = self.state().stream().await?;
        let configured = self.client().site();
        if !stream.site.is_empty() && stream.site != configured {
            return Err(SyncError::OtherSite { known: stream.site, configured: configured.to_owned() });
        }
        Ok(stream)
    }

    /// Returns why the log cannot be continued, once several looks at different times have
    /// all found that: an answer may come from a replica that is behind.
    async fn confirmed_stream_problem(
        &self,
        stream: &Stream,
        high_water_mark: EventId,
    ) -> Result<Option<&'static str>> {
        let mut pause = self.settings().poll_min;
        let (mut problems, mut unproven) = (0, 0);
        loop {
            match self.stream_problem(stream, high_water_mark).await {
                Ok(None) => return Ok(None),
                Ok(Some(reason)) => {
                    problems += 1;
                    if problems == LOOKS {
                        return Ok(Some(reason));
                    }
                    tracing::warn!(%high_water_mark, reason, "the event log looks like another one: looking again");
                }
                Err(error @ (SyncError::History(_) | SyncError::EmptyPage { .. } | SyncError::Unconfirmed(_))) => {
                    unproven += 1;
                    if unproven == LOOKS {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Returns why the log cannot be continued from the high-water mark, as one look shows it. An
    /// answer without entries proves nothing: only one that shows others does.
    async fn stream_problem(&self, stream: &Stream, high_water_mark: EventId) -> Result<Option<&'static str>> {
        let unproven = || SyncError::History(high_water_mark);
        let Some(head) = self.newest_entry().await? else {
            return Ok((high_water_mark.0 > 0).then_some("the log is empty"));
        };
        let head_id = Answer::id(&head).ok_or_else(unproven)?;
        if head_id < high_water_mark.0 {
            return Ok(Some("the newest entry is older than the last one seen"));
        }
        let lowest = self.entry_after(0).await?.as_ref().and_then(Answer::id).ok_or_else(unproven)?;
        if high_water_mark.0 < lowest - 1 {
            return Ok(Some("entries that were never seen are gone from the log"));
        }
        let Some(known) = &stream.fingerprint else {
            return Ok(None);
        };
        let at = self.entry_after(known.id.0 - 1).await?.ok_or_else(unproven)?;
        let same = fingerprint(&at).is_some_and(|found| found == *known);
        if !same {
            return Ok(Some("the entry at the high-water mark is another one"));
        }
        let Some(late) = &stream.late_entry else { return Ok(None) };
        let at = self.entry_after(late.id.0 - 1).await?.ok_or_else(unproven)?;
        let same = fingerprint(&at).is_some_and(|found| found == *late);
        Ok((!same).then_some("an entry that became visible late is gone, or another one"))
    }

    /// Takes the newest entry as the high-water mark and registers every missing id below
    /// it: an entry may still appear there. The entries of the last two minutes are
    /// registered as well: an import may read rows that are older than these.
    pub(super) async fn begin_stream(&self) -> Result<()> {
        let head = self.newest_entry().await?;
        let high_water_mark = head.as_ref().and_then(Answer::id).unwrap_or(0);
        let lowest = self.entry_after(0).await?.as_ref().and_then(Answer::id).unwrap_or(high_water_mark);
        let search = self.settings().gap_search;
        let first = (high_water_mark - search + 1).max(lowest).max(1);
        let mut seen = self.event_ids(first, high_water_mark).await?;
        let whole = high_water_mark - first + 1 == search;
        let view = whole.then(|| density(&seen, first, first + search / 2));
        let unproven_from = match head.as_ref().and_then(created_at) {
            Some(newest) => self.first_entry_since(newest.before(ROWS_BEHIND).timestamp().0).await?,
            None => None,
        };
        seen.retain(|id| unproven_from.is_none_or(|first| *id < first));
        let missing = missing_ranges(&seen, first, high_water_mark);
        let newest = head.as_ref().and_then(fingerprint);
        let now = self.now();
        let site = self.client().site();
        self.state().begin_stream(site, EventId(high_water_mark), newest.as_ref(), &missing, view, now).await?;
        self.state().keep(super::audit::FOLLOWED_SINCE, &now).await?;
        self.step("start: stream begun")?;
        if view.is_some_and(|view| view < 0.9) {
            tracing::warn!(visible = view, "the script does not see every event: give it a role that does");
        }
        tracing::info!(high_water_mark, gaps = missing.len(), "following the event log");
        Ok(())
    }

    /// Reads the ids of a range, a page of ids per request.
    async fn event_ids(&self, first: i64, last: i64) -> Result<Vec<i64>> {
        let size = i64::from(self.client().page_size());
        let starts: Vec<i64> = (first..=last).step_by(usize::try_from(size).unwrap_or(500)).collect();
        let pages = stream::iter(starts).map(|lo| async move {
            let hi = (lo + size - 1).min(last);
            let filter = id_leaf("between", vec![lo.into(), hi.into()]);
            let read = Read { order: by_id(false), ..Read::new("EventLogEntry", filter, self.client().page_size()) };
            self.client().read(&read, Purpose::EventPoll).await
        });
        let pages: Vec<Answer> = pages.buffered(4).try_collect().await?;
        Ok(pages.into_iter().flat_map(|page| self.heard(page).rows).filter_map(|row| Answer::id(&row)).collect())
    }

    /// Reads the newest entry; `None` when the log is empty, by its count, too.
    async fn newest_entry(&self) -> Result<Option<Map<String, Value>>> {
        let read = Read { order: by_id(true), ..entries() };
        let answer = self.heard(self.client().read(&read, Purpose::EventPoll).await?);
        if let Some(entry) = answer.rows.into_iter().next() {
            return Ok(Some(entry));
        }
        let entity_type = EntityType::new("EventLogEntry");
        match self.count_rows(&entity_type, RawFilter::everything(), Purpose::EventPoll).await? {
            Some(0) => Ok(None),
            Some(count) => Err(SyncError::EmptyPage { entity_type, after: 0, count }),
            // A site in trouble refuses counts, too.
            None => Err(SyncError::Unconfirmed(entity_type)),
        }
    }

    /// Returns the lowest id of the entries that were written after a moment.
    async fn first_entry_since(&self, seconds: i64) -> Result<Option<i64>> {
        let since = vec![Timestamp(seconds).to_string().into()];
        let filter =
            RawFilter::Leaf(RawLeaf { path: "created_at".into(), relation: "greater_than".into(), values: since });
        let read = Read { order: by_id(false), ..Read::new("EventLogEntry", filter, 1) };
        let answer: Answer = self.heard(self.client().read(&read, Purpose::EventPoll).await?);
        Ok(answer.rows.first().and_then(Answer::id))
    }

    /// Reads the first entry with a higher id; `None` when there is none, by the count, too.
    async fn entry_after(&self, id: i64) -> Result<Option<Map<String, Value>>> {
        let page: Answer = self.page_after(&entries(), id, Purpose::EventPoll).await?;
        Ok(page.rows.into_iter().next())
    }
}

fn entries() -> Read {
    Read::new("EventLogEntry", RawFilter::everything(), 1).fields(FINGERPRINT_FIELDS.map(str::to_owned).to_vec())
}

fn by_id(descending: bool) -> Vec<RawSort> {
    vec![RawSort { path: "id".into(), descending }]
}

fn id_leaf(relation: &str, values: Vec<Value>) -> RawFilter {
    RawFilter::Leaf(RawLeaf { path: "id".into(), relation: relation.into(), values })
}

/// Returns the ranges of `first..=last` without the ids seen, which ascend.
fn missing_ranges(seen: &[i64], first: i64, last: i64) -> Vec<(i64, i64)> {
    let mut missing = Vec::new();
    let mut next = first;
    for id in seen.iter().copied().chain([last + 1]) {
        if id > next {
            missing.push((next, id - 1));
        }
        next = next.max(id + 1);
    }
    missing
}

/// Returns the share of ids seen in the older part, where reserved ids have been
/// used long ago.
fn density(seen: &[i64], first: i64, end: i64) -> f64 {
    let count = seen.iter().filter(|id| (first..end).contains(*id)).count();
    count as f64 / (end - first).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_below_the_newest_entry_that_is_missing_is_a_gap() {
        assert_eq!(missing_ranges(&[3, 4, 7, 10], 1, 10), [(1, 2), (5, 6), (8, 9)]);
        assert_eq!(missing_ranges(&[1, 2], 1, 2), []);
        assert_eq!(missing_ranges(&[], 1, 0), []);
    }

    #[test]
    fn a_script_that_sees_half_of_the_events_shows_in_the_density() {
        let seen: Vec<i64> = (1..=100).step_by(2).collect();
        assert!((density(&seen, 1, 51) - 0.5).abs() < 0.01);
    }
}
