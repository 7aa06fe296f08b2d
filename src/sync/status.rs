//! What can be said about the cache at this moment.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Replica, Result};
use crate::entity::{EntityType, EventId};
use crate::state::{DeadKind, SiteTime, TypeRecord, TypeState, Unreadable};

/// The state of the whole cache.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The site.
    pub site: String,
    /// The time of the site.
    pub now: SiteTime,
    /// The highest event id seen.
    pub high_water_mark: Option<EventId>,
    /// Counts the histories of the site.
    pub incarnation: i64,
    /// Everything visible at this moment is in the cache.
    pub fresh_as_of: Option<SiteTime>,
    /// Age of the oldest event whose row is not in the cache yet; zero when caught
    /// up.
    pub lag_seconds: f64,
    /// Marked keys by kind.
    pub marks: Vec<(&'static str, u64)>,
    /// Open ranges of missing event ids, and the ids in them.
    pub gaps: (usize, i64),
    /// Dead letters by kind.
    pub dead: Vec<(DeadKind, u64)>,
    /// The share of event ids that the script sees; `None` when not measured.
    pub event_view: Option<f64>,
    /// The types.
    pub types: Vec<TypeStatus>,
    /// How polling goes; `None` in a process that does not poll.
    pub poll: Option<PollStatus>,
}

/// The state of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeStatus {
    /// The type.
    pub entity_type: EntityType,
    /// What can be said about its rows.
    pub state: TypeState,
    /// Active rows.
    pub rows: u64,
    /// Everything visible at this moment is in its rows; `None` unless live.
    pub fresh_as_of: Option<SiteTime>,
    /// Rows imported and rows to expect, while an import runs.
    pub import: Option<(u64, Option<u64>)>,
    /// Since when its deletions wait for an operator.
    pub breaker_since: Option<SiteTime>,
    /// Keys that the cache does not vouch for.
    pub quarantined: usize,
    /// Configured fields that are not cached, with the reason: the site does not
    /// have them as configured. [`super::WHOLE`] stands for the whole type.
    pub lacking: BTreeMap<String, String>,
}

/// How polling goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PollStatus {
    /// Polls that worked.
    pub polls: u64,
    /// Failures since the last poll that worked.
    pub failures: u32,
    /// The last failure, while there is one.
    pub error: Option<String>,
    /// Since when polls fail, while they do.
    pub failing_since: Option<SiteTime>,
    /// When the last poll worked.
    pub last_success: Option<SiteTime>,
    /// Whether the credentials were refused, so that polling nearly stopped.
    pub denied: bool,
}

impl Replica {
    /// Returns what can be said about the cache now.
    ///
    /// # Errors
    ///
    /// Only when the state cannot be read.
    pub async fn status(&self) -> Result<Status> {
        let state = self.state();
        let now = self.now();
        let stream = state.stream().await?;
        let gaps = state.gaps().await?;
        let lag_seconds = state.oldest_open_event().await?.map_or(0.0, |created| now.since(created).as_secs_f64());
        let mut types = Vec::new();
        let records = state.types().await?;
        for layout in self.tracked().layouts() {
            let record = records.iter().find(|record| record.entity_type == layout.entity_type);
            types.push(self.type_status(&layout.entity_type, record).await?);
        }
        for record in records.iter().filter(|record| !self.tracked().follows(&record.entity_type)) {
            types.push(self.type_status(&record.entity_type, Some(record)).await?);
        }
        Ok(Status {
            site: self.client().site().to_owned(),
            now,
            high_water_mark: stream.high_water_mark,
            incarnation: stream.incarnation,
            fresh_as_of: state.fresh_as_of().await?,
            lag_seconds,
            marks: state.mark_counts().await?,
            gaps: (gaps.len(), gaps.ids()),
            dead: state.dead_counts().await?,
            event_view: stream.event_view,
            types,
            poll: None,
        })
    }

    async fn type_status(&self, entity_type: &EntityType, record: Option<&TypeRecord>) -> Result<TypeStatus> {
        let lacking = self.lacking().remove(entity_type).unwrap_or_default();
        let state = match record.map_or(TypeState::Absent, |record| record.state) {
            TypeState::Live if !lacking.is_empty() => TypeState::Degraded,
            state => state,
        };
        Ok(TypeStatus {
            entity_type: entity_type.clone(),
            state,
            lacking,
            rows: self.state().active_count(entity_type).await?,
            fresh_as_of: self.state().fresh_as_of_type(entity_type).await?,
            import: record.and_then(|record| record.import.as_ref()).map(|import| (import.rows, import.expected)),
            breaker_since: record.and_then(|record| record.breaker_since),
            quarantined: self.state().quarantined(entity_type).await?.len(),
        })
    }

    /// Sets the gauges that show the state; returns it.
    pub(super) async fn measure_status(&self) -> Result<Status> {
        let status = self.status().await?;
        let sync = &self.metrics().sync;
        sync.lag_current.set(status.lag_seconds);
        self.metrics().source.clock_offset.set(self.clock().ahead_of_local());
        for (kind, count) in &status.marks {
            sync.marks.set(&[kind], *count as f64);
        }
        for (kind, count) in &status.dead {
            sync.dead_letters.set(&[kind.as_str()], *count as f64);
        }
        for kind in Unreadable::ALL {
            sync.unreadable.set(&[kind.as_str()], kind.count() as f64);
        }
        sync.incarnation.set(status.incarnation as f64);
        for one in &status.types {
            let name = one.entity_type.as_str();
            if let Some(fresh) = one.fresh_as_of {
                sync.fresh_as_of.set(&[name], fresh.0 as f64 / 1000.0);
            }
            sync.deletion_breaker_open.set(&[name], f64::from(u8::from(one.breaker_since.is_some())));
            sync.quarantined.set(&[name], one.quarantined as f64);
            sync.fields_lacking.set(&[name], one.lacking.len() as f64);
            self.metrics().store.entities.set(&[name], one.rows as f64);
        }
        if let Some(visible) = self.state().visible_event().await? {
            sync.visible_event_id.set(visible.0 as f64);
        }
        Ok(status)
    }
}
