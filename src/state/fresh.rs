//! How fresh the cache is: the moment up to which it is known to equal the site.
//!
//! Every change whose event was visible at that moment is stored. It is the
//! moment of the last poll that saw everything there was, or, while marks that
//! an event or a write led to are open, the moment of the last such poll before
//! the oldest of them. Changes without events have a guarantee of their own: the
//! periods of scans.

use rusqlite::{Connection, params};

use super::{Kinds, Result, SiteTime, State, TypeState};
use crate::entity::EntityType;

impl State {
    /// Returns the moment up to which everything that is live equals the site, or
    /// `None` before the first complete poll.
    pub fn fresh_as_of(&self) -> Result<Option<SiteTime>> {
        self.read(|connection| {
            let live = "SELECT type FROM types WHERE state IN ('live', 'degraded')";
            let sql = format!(
                "SELECT min(since) FROM (
                    SELECT since FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0 AND type IN ({live})
                    UNION ALL SELECT since FROM sweeps WHERE type IN ({live}))"
            );
            let values = params![Kinds::TOLD.0, Kinds::QUARANTINED.0];
            let oldest: Option<i64> = connection.query_row(&sql, values, |row| row.get(0))?;
            bounded(connection, oldest)
        })
    }

    /// Returns the moment up to which a type equals the site, or `None` when it is
    /// not live.
    pub fn fresh_as_of_type(&self, entity_type: &EntityType) -> Result<Option<SiteTime>> {
        let record = self.type_record(entity_type)?;
        if !record.is_some_and(|record| matches!(record.state, TypeState::Live | TypeState::Degraded)) {
            return Ok(None);
        }
        self.read(|connection| {
            let sql = "SELECT min(since) FROM (
                SELECT since FROM marks WHERE type = ?3 AND kinds & ?1 <> 0 AND kinds & ?2 = 0
                UNION ALL SELECT since FROM sweeps WHERE type = ?3)";
            let values = params![Kinds::TOLD.0, Kinds::QUARANTINED.0, entity_type.as_str()];
            let oldest: Option<i64> = connection.query_row(sql, values, |row| row.get(0))?;
            bounded(connection, oldest)
        })
    }

    /// Returns when the oldest event whose row is not stored yet was created.
    pub fn oldest_open_event(&self) -> Result<Option<SiteTime>> {
        self.read(|connection| {
            let sql = "SELECT min(event_created) FROM marks WHERE kinds & ?1 <> 0 AND kinds & ?2 = 0";
            let values = params![Kinds::TOLD.0, Kinds::QUARANTINED.0];
            let oldest: Option<i64> = connection.query_row(sql, values, |row| row.get(0))?;
            Ok(oldest.map(SiteTime))
        })
    }
}

fn bounded(connection: &Connection, oldest_mark: Option<i64>) -> Result<Option<SiteTime>> {
    let sql = "SELECT complete_as_of FROM stream";
    let complete: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(complete.map(|complete| SiteTime(oldest_mark.map_or(complete, |mark| mark.min(complete)))))
}
