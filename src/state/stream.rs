//! Where the reader of the event log stands.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::gaps::Gaps;
use super::{AsOf, Result, SiteTime, State, StateError};
use crate::entity::EventId;

/// Every column with a moment of the site's clock that something waits for.
const MOMENTS: [&str; 8] = [
    "UPDATE stream SET complete_as_of = complete_as_of + ?1",
    "UPDATE gaps SET first_seen = first_seen + ?1, last_asked = last_asked + ?1",
    "UPDATE marks SET since = since + ?1, due_at = due_at + ?1",
    "UPDATE sweeps SET since = since + ?1, due_at = due_at + ?1",
    "UPDATE touched SET since = since + ?1, at = at + ?1",
    "UPDATE reads SET at = at + ?1",
    "UPDATE absences SET at = at + ?1",
    "UPDATE dead SET first_at = first_at + ?1, last_at = last_at + ?1, next_due = next_due + ?1",
];

/// What identifies the entry at the high-water mark: another site, or one restored from
/// a backup, has another entry under the same id, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The id of the entry.
    pub id: EventId,
    /// Its `created_at`, as the site wrote it.
    pub created_at: String,
    /// Its type.
    pub event_type: String,
}

/// The position in the event log of the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// The URL of the site that is followed; empty before the first start.
    pub site: String,
    /// Counts the histories of the site: a restored or exchanged site starts a
    /// new one.
    pub incarnation: i64,
    /// The highest event id seen; `None` before the first start.
    pub high_water_mark: Option<EventId>,
    /// The entry at the high-water mark.
    pub fingerprint: Option<Fingerprint>,
    /// An entry below it that became visible later, or at the same time.
    pub late_entry: Option<Fingerprint>,
    /// The epoch of read versions.
    pub epoch: i64,
    /// The newest generation of marks.
    pub gen_now: i64,
    /// The number of the last poll that was started.
    pub polls_started: i64,
    /// The number of the last poll that saw everything there was; 0 before one.
    pub poll_done: i64,
    /// The number of the newest poll up to which everything was seen, gaps included.
    pub complete_poll: i64,
    /// Everything that was visible on the site at this moment has been seen.
    pub complete_as_of: Option<SiteTime>,
    /// When the newest event seen was created.
    pub event_created: Option<SiteTime>,
    /// Whether an event asked for a fresh schema.
    pub schema_due: bool,
    /// The share of event ids that are visible to us, measured at the first start.
    pub event_view: Option<f64>,
}

impl State {
    /// Returns the position.
    pub async fn stream(&self) -> Result<Stream> {
        self.read(move |connection| {
            let sql = "SELECT site, incarnation, frontier, fingerprint, epoch, gen, polls_started, poll_done,
                complete_as_of, event_created, schema_due, event_view, complete_poll, late_entry FROM stream";
            let (mut stream, fingerprint, late_entry) = connection.query_row(sql, [], |row| {
                let stream = Stream {
                    site: row.get(0)?,
                    incarnation: row.get(1)?,
                    high_water_mark: row.get::<_, Option<i64>>(2)?.map(EventId),
                    fingerprint: None,
                    late_entry: None,
                    epoch: row.get(4)?,
                    gen_now: row.get(5)?,
                    polls_started: row.get(6)?,
                    poll_done: row.get(7)?,
                    complete_poll: row.get(12)?,
                    complete_as_of: row.get::<_, Option<i64>>(8)?.map(SiteTime),
                    event_created: row.get::<_, Option<i64>>(9)?.map(SiteTime),
                    schema_due: row.get(10)?,
                    event_view: row.get(11)?,
                };
                Ok((stream, row.get::<_, Option<String>>(3)?, row.get::<_, Option<String>>(13)?))
            })?;
            stream.fingerprint = fingerprint.as_deref().map(parse_fingerprint).transpose()?;
            stream.late_entry = late_entry.as_deref().map(parse_fingerprint).transpose()?;
            Ok(stream)
        })
        .await
    }

    /// Sets the position for the first time, or anew after [`State::new_incarnation`]:
    /// the highest visible id, its entry, and every lower id that is missing.
    pub async fn begin_stream(
        &self,
        site: &str,
        high_water_mark: EventId,
        fingerprint: Option<&Fingerprint>,
        missing: &[(i64, i64)],
        event_view: Option<f64>,
        now: SiteTime,
    ) -> Result<()> {
        let site = site.to_owned();
        let mut gaps = Gaps::default();
        for (lo, hi) in missing {
            gaps.open(*lo, *hi, AsOf { at: now, poll: 0 });
        }
        let fingerprint = fingerprint.map(render_fingerprint).transpose()?;
        self.write(move |transaction| {
            gaps.store(&Gaps::load(transaction)?, transaction)?;
            let sql =
                "UPDATE stream SET site = ?1, frontier = ?2, fingerprint = ?3, event_view = ?4, late_entry = NULL";
            transaction.execute(sql, params![site, high_water_mark.0, fingerprint, event_view])?;
            Ok(())
        })
        .await
    }

    /// Starts a new history of the site: position and gaps are forgotten, and
    /// every type has to be imported again, in place. Rows stay.
    pub async fn new_incarnation(&self) -> Result<i64> {
        self.write(move |transaction| {
            transaction.execute("DELETE FROM gaps", [])?;
            // What was announced belongs to another history.
            transaction.execute("UPDATE marks SET expected = NULL", [])?;
            transaction.execute("UPDATE types SET state = 'absent', import = NULL WHERE state <> 'untracked'", [])?;
            let sql = "UPDATE stream SET incarnation = incarnation + 1, frontier = NULL, fingerprint = NULL, late_entry = NULL,
                complete_as_of = NULL, event_created = NULL, poll_done = 0, complete_poll = 0 RETURNING incarnation";
            Ok(transaction.query_row(sql, [], |row| row.get(0))?)
        })
        .await
    }

    /// Moves every kept moment along with the clock of the site, which was set by so many
    /// milliseconds: pauses end when they would have, and ages stay what they were.
    pub async fn move_moments(&self, by: i64) -> Result<()> {
        self.write(move |transaction| {
            for statement in MOMENTS {
                transaction.execute(statement, [by])?;
            }
            Ok(())
        })
        .await
    }

    /// Notes that the schema was read again.
    pub async fn schema_refreshed(&self) -> Result<()> {
        self.write(move |transaction| {
            transaction.execute("UPDATE stream SET schema_due = 0", [])?;
            Ok(())
        })
        .await
    }

    /// Asks for a fresh schema.
    pub async fn request_schema(&self) -> Result<()> {
        self.write(move |transaction| {
            transaction.execute("UPDATE stream SET schema_due = 1, schema_changes = schema_changes + 1", [])?;
            Ok(())
        })
        .await
    }

    /// Returns the open gaps.
    pub async fn gaps(&self) -> Result<Gaps> {
        self.read(Gaps::load).await
    }
}

pub(super) fn render_fingerprint(fingerprint: &Fingerprint) -> Result<String> {
    serde_json::to_string(fingerprint).map_err(|error| StateError::malformed("fingerprint", error))
}

pub(super) fn parse_fingerprint(text: &str) -> Result<Fingerprint> {
    serde_json::from_str(text).map_err(|error| StateError::malformed("fingerprint", error))
}
