//! One poll of the event log: its start, and everything it leads to in one
//! transaction.
//!
//! Dirty keys, gaps and high-water mark are committed together and before anything is read
//! again: whatever happens afterwards, the marks are the work that is left.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};

use super::as_of::AsOf;
use super::dead_letters::{NewDead, put_dead};
use super::dirty::{DirtyCommit, DirtyReasons, NewDirtyKey, ROWS_BEHIND, next_gen, put_marks, since_of_new_marks};
use super::gaps::Gaps;
use super::stream::{Fingerprint, parse_fingerprint, render_fingerprint};
use super::{Result, SiteTime, State, StateError};
use crate::entity::{EntityType, EventId};

/// How often a type is compared at most because of entries about its filter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the log of marked keys is kept.
const TOUCHED_KEPT: Duration = Duration::from_secs(3 * 3600);

/// A poll that is about to be sent.
#[derive(Clone, Debug)]
pub struct PollStart {
    /// Its number; it grows with every poll of every process.
    pub number: i64,
    /// The highest id seen; everything above is asked for.
    pub high_water_mark: EventId,
    /// The gaps to ask for, ascending.
    pub gaps: Vec<(i64, i64)>,
    /// When the poll was started.
    pub started: SiteTime,
    /// When the newest entry that earlier polls brought was created, by the site.
    pub event_created: Option<SiteTime>,
    /// The entry at the high-water mark, by which the history of the site is recognised.
    pub fingerprint: Option<Fingerprint>,
    /// An entry below the high-water mark that became visible after the one there, or with it.
    pub late_entry: Option<Fingerprint>,
}

/// What a poll brought.
#[derive(Clone, Debug)]
pub struct PollCommit {
    /// The poll.
    pub poll: PollStart,
    /// The ids of the entries, ascending.
    pub ids: Vec<i64>,
    /// Whether the page was full: there may be more, and the poll proves nothing
    /// about the present.
    pub full: bool,
    /// The newest entry.
    pub newest: Option<Fingerprint>,
    /// The newest of the entries that fill gaps.
    pub late_entry: Option<Fingerprint>,
    /// When the newest entry was created.
    pub event_created: Option<SiteTime>,
    /// The keys to read again.
    pub marks: Vec<NewDirtyKey>,
    /// Entries that could not be understood.
    pub dead: Vec<NewDead>,
    /// Types of which every id has to be compared, with the delay before it.
    pub sweeps: Vec<(EntityType, Duration)>,
    /// Whether the schema has to be read again.
    pub schema_due: bool,
    /// The time of the site.
    pub now: SiteTime,
}

/// What a committed poll did to the gaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PollCommitted {
    /// The high-water mark now.
    pub high_water_mark: EventId,
    /// New ranges.
    pub gaps_opened: usize,
    /// How long the ids that came were missing.
    pub filled: Vec<Duration>,
    /// Ranges that were given up.
    pub given_up: usize,
    /// Open ranges, missing ids, and the age of the oldest range.
    pub open: (usize, i64, Duration),
    /// Ids that were seen before; they were marked once more, which is harmless.
    pub repeated: usize,
}

/// A comparison of all ids of a type that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The type.
    pub entity_type: EntityType,
    /// The generation that it was last asked for in.
    pub generation: i64,
    /// It answers the requests that were due at this time.
    pub due: SiteTime,
}

impl State {
    /// Numbers a poll and says what to ask for; `None` before [`State::begin_stream`].
    pub async fn begin_poll(&self, now: SiteTime, max_gaps: usize) -> Result<Option<PollStart>> {
        self.write(move |transaction| {
            let sql = "UPDATE stream SET polls_started = polls_started + 1 WHERE frontier IS NOT NULL
                RETURNING polls_started, frontier, event_created, fingerprint, late_entry";
            let read = |row: &rusqlite::Row<'_>| {
                let known: (Option<i64>, Option<String>, Option<String>) = (row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get(0)?, row.get(1)?, known))
            };
            let Some((number, high_water_mark, (created, known, late))) =
                transaction.query_row(sql, [], read).optional()?
            else {
                return Ok(None);
            };
            let gaps = Gaps::load(transaction)?.turn(max_gaps).iter().map(|gap| (gap.lo, gap.hi)).collect();
            let event_created = created.map(SiteTime);
            let fingerprint = known.as_deref().map(parse_fingerprint).transpose()?;
            let late_entry = late.as_deref().map(parse_fingerprint).transpose()?;
            let high_water_mark = EventId(high_water_mark);
            Ok(Some(PollStart { number, high_water_mark, gaps, started: now, event_created, fingerprint, late_entry }))
        })
        .await
    }

    /// Commits a poll: dirty keys, gaps, high-water mark, dead letters, all or nothing.
    pub async fn commit_poll(&self, commit: PollCommit) -> Result<PollCommitted> {
        self.write(move |transaction| {
            let (committed, unasked) = move_gaps(transaction, &commit)?;
            let since = since_of_new_marks(transaction, commit.poll.started)?;
            let marking =
                DirtyCommit { generation: next_gen(transaction)?, since, poll: commit.poll.number, at: commit.now };
            put_marks(transaction, &commit.marks, marking)?;
            for (entity_type, delay) in &commit.sweeps {
                put_sweep(transaction, entity_type, marking, together(commit.now.after(*delay)))?;
            }
            for dead in &commit.dead {
                put_dead(transaction, dead, commit.now)?;
            }
            let here = AsOf { at: commit.poll.started, poll: commit.poll.number };
            let complete = unasked.map_or(here, |unasked| here.min(unasked));
            store_position(transaction, &commit, committed.high_water_mark, complete)?;
            let old = commit.now.before(TOUCHED_KEPT);
            transaction.prepare_cached("DELETE FROM touched WHERE at < ?1")?.execute([old.0])?;
            Ok(committed)
        })
        .await
    }

    /// Asks for a comparison of all ids of a type.
    pub async fn request_sweep(&self, entity_type: &EntityType, now: SiteTime) -> Result<()> {
        let entity_type = entity_type.clone();
        self.write(move |transaction| {
            let since = since_of_new_marks(transaction, now)?;
            let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: now };
            put_sweep(transaction, &entity_type, marking, now)
        })
        .await
    }

    /// Returns the comparisons that are due. While a row may be older than its entries,
    /// so may be the lists that are compared: then they wait, for a while.
    pub async fn due_sweeps(&self, now: SiteTime) -> Result<Vec<Sweep>> {
        self.read(move |connection| {
            let stuck = DirtyReasons::QUARANTINED | DirtyReasons::DELETION_STOPPED;
            let sql = "SELECT EXISTS (SELECT 1 FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0)";
            let waits = connection.query_row(sql, params![DirtyReasons::UNPROVEN.0, stuck.0], |row| row.get(0))?;
            let due = if waits { now.before(ROWS_BEHIND) } else { now };
            let sql = "SELECT type, max(gen) FROM sweeps WHERE due_at <= ?1 GROUP BY type ORDER BY min(due_at)";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([due.0], |row| {
                Ok(Sweep { entity_type: EntityType::new(row.get::<_, String>(0)?), generation: row.get(1)?, due })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Ends a comparison, with the keys that differ marked. Requests that were not due
    /// when it began, or were made meanwhile, stay: what they are about may not have been
    /// in the lists yet.
    pub async fn finish_sweep(&self, sweep: &Sweep, found: &[NewDirtyKey], now: SiteTime) -> Result<()> {
        let sweep = sweep.clone();
        let found = found.to_vec();
        self.write(move |transaction| {
            let answered = params![sweep.entity_type.as_str(), sweep.generation, sweep.due.0];
            let sql = "SELECT min(since), min(since_poll) FROM sweeps WHERE type = ?1 AND gen <= ?2 AND due_at <= ?3";
            let as_of = |row: &rusqlite::Row<'_>| {
                let (at, poll): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
                Ok(at.zip(poll).map(|(at, poll)| AsOf { at: SiteTime(at), poll }))
            };
            let since = transaction.query_row(sql, answered, as_of)?;
            let since = since.map_or_else(|| since_of_new_marks(transaction, now), Ok)?;
            let marking = DirtyCommit { generation: next_gen(transaction)?, since, poll: 0, at: now };
            put_marks(transaction, &found, marking)?;
            let sql = "DELETE FROM sweeps WHERE type = ?1 AND gen <= ?2 AND due_at <= ?3";
            transaction.execute(sql, answered)?;
            Ok(())
        })
        .await
    }
}

/// Moves gaps and high-water mark; the second value is when a gap that this poll left out was
/// last asked for.
fn move_gaps(transaction: &Transaction<'_>, commit: &PollCommit) -> Result<(PollCommitted, Option<AsOf>)> {
    let high_water_mark: Option<i64> = transaction.query_row("SELECT frontier FROM stream", [], |row| row.get(0))?;
    let Some(high_water_mark) = high_water_mark else {
        return Err(StateError::malformed("position", "a poll was committed before the stream began"));
    };
    let old = Gaps::load(transaction)?;
    let mut gaps = old.clone();
    let repeated = commit.ids.iter().filter(|id| **id <= high_water_mark && !old.contains(**id)).count();
    let asked: Vec<i64> = commit.poll.gaps.iter().map(|(lo, _)| *lo).collect();
    let here = AsOf { at: commit.poll.started, poll: commit.poll.number };
    gaps.asked(&asked, here);
    let unasked = gaps.oldest_question(&asked).filter(|_| !commit.full);
    let (head, filled) = gaps.advance(high_water_mark, &commit.ids, here);
    let given_up = gaps.give_up(head, commit.now);
    gaps.store(&old, transaction)?;
    let oldest = gaps.iter().map(|gap| gap.first_seen).min();
    let committed = PollCommitted {
        high_water_mark: EventId(head),
        gaps_opened: gaps.iter().filter(|gap| gap.lo > high_water_mark).count(),
        filled,
        given_up,
        open: (gaps.len(), gaps.ids(), oldest.map_or(Duration::ZERO, |first| commit.now.since(first))),
        repeated,
    };
    Ok((committed, unasked))
}

fn store_position(
    transaction: &Transaction<'_>,
    commit: &PollCommit,
    high_water_mark: EventId,
    complete: AsOf,
) -> Result<()> {
    let newest = commit.newest.as_ref().filter(|newest| newest.id == high_water_mark);
    let fingerprint = newest.map(render_fingerprint).transpose()?;
    let late = commit.late_entry.as_ref().map(render_fingerprint).transpose()?;
    // An entry that is seen in a later poll than a late one is of a later moment.
    let sql = "UPDATE stream SET late_entry = iif(?6, ?5, coalesce(?5, late_entry)), frontier = ?1,
        fingerprint = coalesce(?2, fingerprint),
        event_created = max(coalesce(event_created, ?3), coalesce(?3, event_created)),
        schema_due = max(schema_due, ?4), schema_changes = schema_changes + ?4";
    let created = commit.event_created.map(|moment| moment.0);
    transaction.prepare_cached(sql)?.execute(params![
        high_water_mark.0,
        fingerprint,
        created,
        commit.schema_due,
        late,
        high_water_mark > commit.poll.high_water_mark,
    ])?;
    if !commit.full {
        let sql = "UPDATE stream SET poll_done = max(poll_done, ?1)";
        transaction.prepare_cached(sql)?.execute([commit.poll.number])?;
        // The number decides which poll is the newer one: its moment is only shown, and
        // may be earlier when the clock of the site was set back.
        let sql = "UPDATE stream SET complete_poll = ?1, complete_as_of = ?2
            WHERE complete_as_of IS NULL OR complete_poll < ?1";
        transaction.prepare_cached(sql)?.execute(params![complete.poll, complete.at.0])?;
    }
    Ok(())
}

/// The end of the interval in which a moment lies: requests of one interval are one
/// comparison, so a type is compared at most that often.
fn together(due: SiteTime) -> SiteTime {
    let step = SWEEP_INTERVAL.as_millis() as i64;
    SiteTime(due.0.div_euclid(step).saturating_add(1).saturating_mul(step))
}

/// Asks for a comparison; requests that are due together are one.
pub(super) fn put_sweep(
    transaction: &Transaction<'_>,
    entity_type: &EntityType,
    marking: DirtyCommit,
    due: SiteTime,
) -> Result<()> {
    let since = marking.since;
    let values = params![entity_type.as_str(), marking.generation, since.at.0, due.0, since.poll];
    let sql = "UPDATE sweeps SET gen = ?2, since = min(since, ?3), since_poll = min(since_poll, ?5)
        WHERE type = ?1 AND due_at = ?4";
    if transaction.prepare_cached(sql)?.execute(values)? == 0 {
        let sql = "INSERT INTO sweeps (type, gen, since, due_at, since_poll) VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}
