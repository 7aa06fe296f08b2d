//! Proves that the poll loop misses nothing: the latest part of the event log is
//! read once more, by time and not by id, and every entry in it must have led to
//! what it asks for.
//!
//! An entry counts as seen when its id is neither above the high-water mark nor in a gap,
//! and when every followed key that it names was marked or read since it was
//! written. What seems missed gets a second look after the next complete poll; what is
//! missed then is counted, and its keys are marked.

use serde_json::{Map, Value};

use super::extract::extract;
use super::poll::ENTRY_FIELDS;
use super::{Replica, Result};
use crate::api3::Read;
use crate::entity::Timestamp;
use crate::filter::{RawFilter, RawLeaf};
use crate::shotgun::{Answer, Purpose};
use crate::state::{NewDirtyKey, SiteTime};

/// How far back an audit looks.
const WINDOW_SECONDS: i64 = 15 * 60;
/// Clocks of whole seconds, and a time of the site that is never ahead.
const SLACK_SECONDS: i64 = 60;
/// Entries before this moment were not followed; under this name in the state.
pub(super) const FOLLOWED_SINCE: &str = "followed since";

/// Entries that seemed missed, until a later poll had its chance.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// Polls with a higher number began after the entries were read.
    poll: i64,
    entries: Vec<Map<String, Value>>,
}

impl Replica {
    /// Reads the latest entries and returns those that seem missed.
    pub(super) async fn audit(&self) -> Result<Suspects> {
        let Some(since) = self.state().kept::<SiteTime>(FOLLOWED_SINCE).await? else {
            // A directory of an older version: what came before is not judged.
            self.state().keep(FOLLOWED_SINCE, &self.now()).await?;
            return Ok(Suspects::default());
        };
        let now = self.now().timestamp();
        let first = Timestamp((now.0 - WINDOW_SECONDS).max(since.timestamp().0 + SLACK_SECONDS));
        let leaf = RawLeaf {
            path: "created_at".into(),
            relation: "greater_than".into(),
            values: vec![first.to_string().into()],
        };
        let fields = ENTRY_FIELDS.map(str::to_owned).to_vec();
        let read = Read::new("EventLogEntry", RawFilter::Leaf(leaf), self.client().page_size()).fields(fields);
        let (mut entries, mut last_id) = (Vec::new(), 0);
        loop {
            let page = self.heard(self.client().read_after(&read, last_id, Purpose::Scan).await?);
            let next = page.last_id().filter(|_| page.has_next_page);
            entries.extend(page.rows);
            match next {
                Some(last) => last_id = last,
                None => break,
            }
        }
        let poll = self.state().stream().await?.polls_started;
        Ok(Suspects { poll, entries: self.unseen(entries).await? })
    }

    /// Looks at suspects again once a poll that began after their audit has ended;
    /// until then they are handed back.
    pub(super) async fn conclude_audit(&self, suspects: Suspects) -> Result<Suspects> {
        if suspects.entries.is_empty() {
            return Ok(Suspects::default());
        }
        if self.state().stream().await?.poll_done <= suspects.poll {
            return Ok(suspects);
        }
        let missed = self.unseen(suspects.entries).await?;
        let tracked = self.tracked();
        let marks: Vec<NewDirtyKey> = missed.iter().flat_map(|entry| extract(entry, &tracked).marks).collect();
        if !missed.is_empty() {
            let (first, count) = (missed.first().and_then(Answer::id), missed.len());
            tracing::error!(first, count, "entries of the event log were missed: what they name is read again");
            self.metrics().sync.audit_missed.inc_by(count as u64);
        }
        self.state().mark(&marks, self.now()).await?;
        Ok(Suspects::default())
    }

    /// Returns the entries that have not led to what they ask for.
    async fn unseen(&self, entries: Vec<Map<String, Value>>) -> Result<Vec<Map<String, Value>>> {
        let high_water_mark = self.state().stream().await?.high_water_mark.map_or(0, |id| id.0);
        let gaps = self.state().gaps().await?;
        let mut unseen = Vec::new();
        for entry in entries {
            let known = Answer::id(&entry).is_some_and(|id| id <= high_water_mark && !gaps.contains(id));
            if !known || !self.has_marked(&entry).await? {
                unseen.push(entry);
            }
        }
        Ok(unseen)
    }

    /// Tells whether every followed key that an entry names was marked or read
    /// since the entry was written.
    async fn has_marked(&self, entry: &Map<String, Value>) -> Result<bool> {
        let tracked = self.tracked();
        let created = entry.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse);
        let Some(created) = created else { return Ok(true) };
        let since = SiteTime::from(Timestamp(created.0 - SLACK_SECONDS));
        for mark in extract(entry, &tracked).marks.iter().filter(|mark| tracked.follows(&mark.key.entity_type)) {
            let touched = self.state().was_touched(&mark.key, since).await?;
            if !touched && !self.was_read(mark, created.into()).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Rows of a type that came into the configuration later were read by its
    /// import; of a type that is not complete nothing can be said.
    async fn was_read(&self, mark: &NewDirtyKey, since: SiteTime) -> Result<bool> {
        let read = self.state().row(&mark.key.entity_type, mark.key.id).await?.is_some_and(|row| row.read_at >= since);
        Ok(read || !self.live_types().await?.contains(&mark.key.entity_type))
    }
}
