//! One poll of the event log: one request, one transaction.
//!
//! New entries and missing ids are asked for in the same request: what two
//! requests show at two moments could hide an entry between them. The answer,
//! ordered by id, is a complete prefix of what was asked for.

use serde_json::{Map, Value};

use super::extract::extract;
use super::{Replica, Result, SyncError};
use crate::api3::{PagingInfo, Read};
use crate::entity::{EventId, Timestamp};
use crate::filter::{RawFilter, RawLeaf, RawSort};
use crate::shotgun::{Answer, Purpose};
use crate::state::{Fingerprint, PollCommit, PollCommitted, PollStart, SiteTime};

/// The fields of an entry that mean something to us.
pub(super) const ENTRY_FIELDS: [&str; 7] =
    ["id", "event_type", "attribute_name", "meta", "entity", "user", "created_at"];

/// What a poll brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Polled {
    /// The number of the poll.
    pub number: i64,
    /// Entries received.
    pub entries: usize,
    /// Whether there may be more, so that the next poll should follow at once.
    pub full: bool,
    /// Keys marked.
    pub marked: usize,
    /// The highest id seen.
    pub frontier: EventId,
}

impl Replica {
    /// Polls once and commits what came.
    ///
    /// # Errors
    ///
    /// Nothing was committed then, and the next poll asks for the same again.
    pub async fn poll(&self) -> Result<Polled> {
        let polled = self.try_poll().await;
        if let Err(error) = &polled {
            self.metrics().sync.poll_failed(error.label());
        }
        polled
    }

    async fn try_poll(&self) -> Result<Polled> {
        let started = self.now();
        let Some(poll) = self.state().begin_poll(started, self.settings().max_gaps).await? else {
            // A poll that has no position begins the stream.
            self.begin_stream().await?;
            return Ok(Polled { full: true, ..Polled::default() });
        };
        self.step("poll: begun")?;
        let size = self.client().page_size();
        let answer = self.heard(self.client().read(&request(&poll, size), Purpose::EventPoll).await?);
        let full = answer.has_next_page;
        let entries = in_order(answer, full)?;
        self.step("poll: read")?;
        let polled = self.commit(poll, &entries, full).await?;
        self.step("poll: committed")?;
        Ok(polled)
    }

    async fn commit(&self, poll: PollStart, entries: &[Map<String, Value>], full: bool) -> Result<Polled> {
        let now = self.now();
        let tracked = self.tracked();
        let ids: Vec<i64> = entries.iter().filter_map(Answer::id).collect();
        let (number, newest) = (poll.number, entries.last());
        let mut commit = PollCommit {
            poll,
            ids,
            full,
            newest: newest.and_then(fingerprint),
            event_created: entries.iter().filter_map(created_at).max(),
            marks: Vec::new(),
            dead: Vec::new(),
            sweeps: Vec::new(),
            schema_due: false,
            now,
        };
        let sync = &self.metrics().sync;
        for entry in entries {
            let found = extract(entry, &tracked);
            if let Some(reason) = found.skipped {
                sync.events_skipped.inc(&[reason]);
            }
            if found.dead.is_some() {
                sync.events_failed.inc(&["malformed"]);
            }
            commit.marks.extend(found.marks);
            commit.sweeps.extend(found.sweeps);
            commit.dead.extend(found.dead);
            commit.schema_due |= found.schema_due;
        }
        let marked = commit.marks.len();
        let committed = self.state().commit_poll(commit).await?;
        sync.polled(now.timestamp().to_chrono(), entries.len());
        self.note_gaps(&committed);
        Ok(Polled { number, entries: entries.len(), full, marked, frontier: committed.frontier })
    }

    fn note_gaps(&self, committed: &PollCommitted) {
        let sync = &self.metrics().sync;
        sync.gaps.inc_by(committed.gaps_opened as u64);
        for open in &committed.filled {
            sync.gap_lifetime.observe(open.as_secs_f64());
            sync.gaps_resolved.inc(&["arrived"]);
        }
        for _ in 0..committed.given_up {
            sync.gaps_resolved.inc(&["retired"]);
        }
        let (ranges, ids, age) = committed.open;
        sync.gaps_open.set(ranges as f64);
        sync.gap_ids.set(ids as f64);
        sync.gap_oldest_age.set(age.as_secs_f64());
        self.metrics().source.event_id.set(committed.frontier.0 as f64);
    }
}

/// Asks for everything above the frontier and for the missing ids.
fn request(poll: &PollStart, size: u32) -> Read {
    let leaf = |relation: &str, values: Vec<Value>| {
        RawFilter::Leaf(RawLeaf { path: "id".into(), relation: relation.into(), values })
    };
    let mut conditions = vec![leaf("greater_than", vec![poll.frontier.0.into()])];
    conditions.extend(poll.gaps.iter().map(|(lo, hi)| leaf("between", vec![(*lo).into(), (*hi).into()])));
    let filter = RawFilter::Group { any: true, conditions };
    let fields = ENTRY_FIELDS.map(str::to_owned).to_vec();
    let order = vec![RawSort { path: "id".into(), descending: false }];
    Read { order, paging_info: PagingInfo::None, ..Read::new("EventLogEntry", filter, size).fields(fields) }
}

/// Returns the entries by id. A full page in another order would hide entries
/// behind its end.
fn in_order(answer: Answer, full: bool) -> Result<Vec<Map<String, Value>>> {
    let mut entries = answer.rows;
    let ordered = entries.windows(2).all(|pair| Answer::id(&pair[0]) < Answer::id(&pair[1]));
    if ordered {
        return Ok(entries);
    }
    if full {
        let message = "a full page of the event log is not in the order of ids".to_owned();
        return Err(SyncError::Schema { entity_type: "EventLogEntry".into(), message });
    }
    entries.sort_by_key(Answer::id);
    entries.dedup_by_key(|entry| Answer::id(entry));
    Ok(entries)
}

pub(super) fn fingerprint(entry: &Map<String, Value>) -> Option<Fingerprint> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = EventId(Answer::id(entry)?);
    Some(Fingerprint { id, created_at: text("created_at"), event_type: text("event_type") })
}

fn created_at(entry: &Map<String, Value>) -> Option<SiteTime> {
    entry.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse).map(SiteTime::from)
}
