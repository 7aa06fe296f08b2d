//! One poll of the event log: one request, one transaction.
//!
//! New entries and missing ids are asked for in the same request: what two
//! requests show at two moments could hide an entry between them. The answer,
//! ordered by id, is a complete prefix of what was asked for.
//!
//! The entry at the high-water mark is asked for as well. A site that was restored from a
//! backup does not have it, or has another one under its id: then nothing is committed,
//! so that freshness stops, and after a few such answers the history is checked. The same goes
//! for an entry of a long transaction that became visible later: a backup in between has the
//! one at the high-water mark, and not what the transaction wrote.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::event_page::EventPage;
use super::extract::extract;
use super::{Replica, Result, SyncError};
use crate::api3::{PagingInfo, Read};
use crate::entity::{EventId, Timestamp};
use crate::filter::{RawFilter, RawLeaf, RawSort};
use crate::shotgun::Answer;
use crate::state::{Fingerprint, NewDirtyKey, PollCommit, PollCommitted, PollStart, SiteTime};

/// The fields of an entry that mean something to us.
pub(super) const ENTRY_FIELDS: [&str; 7] =
    ["id", "event_type", "attribute_name", "meta", "entity", "user", "created_at"];

/// The fields of an entry by which it is recognised. Users have typed none of them, so they can
/// always be read.
pub(super) const FINGERPRINT_FIELDS: [&str; 3] = ["id", "event_type", "created_at"];

/// An entry that appears so long after others were written was in a long transaction.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// So many polls in a row without the entry at the high-water mark are believed.
const LOST_AFTER: u32 = 3;

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
    pub high_water_mark: EventId,
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
        if let Some(by) = self.clock().take_correction() {
            tracing::warn!(seconds = by / 1000, "the clock of the site was set");
            self.state().move_moments(by).await?;
            // By the old clock.
            self.note_whole_poll(None);
        }
        let (started, clock) = (self.now(), Instant::now());
        let Some(poll) = self.state().begin_poll(started, self.settings().max_gaps).await? else {
            // A poll that has no position begins the stream.
            self.begin_stream().await?;
            return Ok(Polled { full: true, ..Polled::default() });
        };
        self.step("poll: begun")?;
        let mut page = self.read_event_page(&poll).await?;
        if !self.is_same_history(&poll, &mut page.entries, page.full) {
            return self.check_history(poll.high_water_mark).await;
        }
        self.step("poll: read")?;
        let polled = self.commit(poll, page).await?;
        self.note_activity(|activity| activity.polls.add(clock.elapsed()));
        self.step("poll: committed")?;
        Ok(polled)
    }

    /// Takes the entry at the high-water mark out of an answer and tells whether it is the
    /// known one. A full page that ends before it says nothing.
    fn is_same_history(&self, poll: &PollStart, entries: &mut Vec<Map<String, Value>>, full: bool) -> bool {
        let reached = !full || entries.last().and_then(Answer::id) >= Some(poll.high_water_mark.0);
        let shows_late = shows_late_entry(poll, entries, full);
        let at = entries.iter().position(|entry| Answer::id(entry) == Some(poll.high_water_mark.0));
        // Where the stream began, the entry at the high-water mark is to be read like others.
        let unread = poll.gaps.iter().any(|(lo, hi)| (*lo..=*hi).contains(&poll.high_water_mark.0));
        let found = at.map(|at| if unread { entries[at].clone() } else { entries.remove(at) });
        // Of an entry that could not be read there is no fingerprint.
        let of_high_water_mark = |known: &&Fingerprint| reached && known.id == poll.high_water_mark;
        let Some(known) = poll.fingerprint.as_ref().filter(of_high_water_mark) else {
            return shows_late;
        };
        let same = shows_late && found.as_ref().and_then(fingerprint).is_some_and(|found| found == *known);
        if same {
            self.lost_marks().store(0, Ordering::Relaxed);
        }
        same
    }

    /// Checks the history once several polls in a row did not show the entry at the
    /// high-water mark: an answer may be incomplete, or of a replica that is behind.
    async fn check_history(&self, high_water_mark: EventId) -> Result<Polled> {
        if self.lost_marks().fetch_add(1, Ordering::Relaxed) + 1 < LOST_AFTER {
            return Err(SyncError::History(high_water_mark));
        }
        self.lost_marks().store(0, Ordering::Relaxed);
        let before = self.state().stream().await?.incarnation;
        self.check_stream().await?;
        if self.state().stream().await?.incarnation == before {
            return Err(SyncError::History(high_water_mark));
        }
        Ok(Polled { full: true, ..Polled::default() })
    }

    async fn commit(&self, poll: PollStart, page: EventPage) -> Result<Polled> {
        let EventPage { entries, full, unreadable, .. } = page;
        let now = self.now();
        let tracked = self.tracked();
        let unread = unreadable.iter().map(|dead| dead.key.id);
        let ids: Vec<i64> = entries.iter().filter_map(Answer::id).chain(unread).collect();
        let (number, began, newest) = (poll.number, poll.started, entries.last());
        let fills_gap = |entry: &&Map<String, Value>| {
            let id = Answer::id(entry);
            let in_gap = poll.gaps.iter().any(|(lo, hi)| id >= Some(*lo) && id <= Some(*hi));
            in_gap && id < Some(poll.high_water_mark.0)
        };
        let late = entries.iter().rev().find(fills_gap);
        let mut commit = PollCommit {
            poll,
            ids,
            full,
            newest: newest.and_then(fingerprint),
            late_entry: late.and_then(fingerprint),
            event_created: entries.iter().filter_map(created_at).max(),
            marks: Vec::new(),
            dead: unreadable.into_iter().collect(),
            sweeps: Vec::new(),
            schema_due: false,
            now,
        };
        let sync = &self.metrics().sync;
        sync.events_failed.add(&["malformed"], commit.dead.len() as u64);
        let mut skipped = 0;
        for entry in &entries {
            let mut found = extract(entry, &tracked);
            if is_late(entry, commit.poll.event_created) {
                found.marks.iter_mut().for_each(|mark| mark.expected.set_late());
            }
            // What was there before the stream began was not waited for: no lag is known of it.
            if commit.poll.event_created.is_none() && Answer::id(entry) <= Some(commit.poll.high_water_mark.0) {
                found.marks.iter_mut().for_each(|mark| mark.event_created = None);
            }
            if let Some(reason) = found.skipped {
                sync.events_skipped.inc(&[reason]);
                skipped += 1;
            }
            if found.dead.is_some() {
                sync.events_failed.inc(&["malformed"]);
            }
            commit.marks.extend(found.marks);
            commit.sweeps.extend(found.sweeps);
            commit.dead.extend(found.dead);
            commit.schema_due |= found.schema_due;
        }
        self.hold_back_links(&mut commit.marks).await?;
        let (marked, failed) = (commit.marks.len(), commit.dead.len());
        let committed = self.state().commit_poll(commit).await?;
        sync.polled(now.timestamp().to_chrono(), entries.len());
        // Only now: a commit that failed has the same entries asked for again.
        if let Some(asked) = self.note_whole_poll((!full).then_some(began)) {
            // The poll before this one would have shown them, had the site shown them then.
            let lateness = |created: SiteTime| asked.since(created).as_secs_f64();
            entries.iter().filter_map(created_at).map(lateness).for_each(|late| sync.event_lateness.observe(late));
        }
        self.note_activity(|activity| {
            activity.note_events(entries.iter().filter_map(Answer::id));
            activity.skipped += skipped;
            activity.failed += failed as u64;
            activity.marked += marked as u64;
        });
        self.note_gaps(&committed);
        Ok(Polled { number, entries: entries.len(), full, marked, high_water_mark: committed.high_water_mark })
    }

    /// Holds back the types that may link to what is known as retired or absent and may be
    /// there again, as after the site was restored and gives its ids again: the store hides
    /// links to it until it is read.
    async fn hold_back_links(&self, marks: &mut [NewDirtyKey]) -> Result<()> {
        let tracked = self.tracked();
        let gone = self.gone_targets(marks.iter().map(|mark| mark.key.clone()).collect()).await?;
        for mark in marks.iter_mut().filter(|mark| gone.contains(&mark.key)) {
            mark.affects = tracked.holders(&mark.key.entity_type);
        }
        Ok(())
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
        self.metrics().source.event_id.set(committed.high_water_mark.0 as f64);
    }
}

/// Takes the late entry that was asked for out of an answer and tells whether it is the known
/// one. A full page that ends before it says nothing.
fn shows_late_entry(poll: &PollStart, entries: &mut Vec<Map<String, Value>>, full: bool) -> bool {
    let Some(late) = &poll.late_entry else { return true };
    let reached = !full || entries.last().and_then(Answer::id) >= Some(late.id.0);
    let at = entries.iter().position(|entry| Answer::id(entry) == Some(late.id.0));
    let found = at.map(|at| entries.remove(at));
    !reached || found.as_ref().and_then(fingerprint).is_some_and(|found| found == *late)
}

/// Asks for everything above an id and for the missing ids.
pub(super) fn request(poll: &PollStart, above: i64, size: u32, fields: &[&str]) -> Read {
    let leaf = |relation: &str, values: Vec<Value>| {
        RawFilter::Leaf(RawLeaf { path: "id".into(), relation: relation.into(), values })
    };
    let mut conditions = vec![leaf("greater_than", vec![above.into()])];
    conditions.extend(poll.gaps.iter().map(|(lo, hi)| leaf("between", vec![(*lo).into(), (*hi).into()])));
    let filter = RawFilter::Group { any: true, conditions };
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    let order = vec![RawSort { path: "id".into(), descending: false }];
    Read { order, paging_info: PagingInfo::None, ..Read::new("EventLogEntry", filter, size).fields(fields) }
}

/// Returns the entries by id. A full page in another order would hide entries
/// behind its end.
pub(super) fn in_order(answer: Answer, full: bool) -> Result<Vec<Map<String, Value>>> {
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

/// Tells whether an entry became visible long after it was written: entries that were
/// written later are known already.
fn is_late(entry: &Map<String, Value>, known: Option<SiteTime>) -> bool {
    let created = created_at(entry);
    created.zip(known).is_some_and(|(created, known)| known.since(created) > LATE_AFTER)
}

pub(super) fn created_at(entry: &Map<String, Value>) -> Option<SiteTime> {
    entry.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse).map(SiteTime::from)
}
