//! Everything besides polling, fetching and importing that has to happen now and
//! then.

use std::collections::BTreeMap;
use std::time::Duration;

use super::audit::Suspects;
use super::scan::ScanKind;
use super::schema_drift::WHOLE;
use super::{Replica, Result, SyncError};
use crate::entity::EntityType;
use crate::state::{Kinds, SiteTime, TypeState};
use crate::store::PurgeScope;

/// A filter around now moves with the clock of the site.
const TIME_FILTERS_EVERY: Duration = Duration::from_secs(3600);
const UNTRACKED_EVERY: Duration = Duration::from_secs(60);
const TOMBSTONES_EVERY: Duration = Duration::from_secs(3600);
const STREAM_EVERY: Duration = Duration::from_secs(600);

/// When the regular work was done last.
#[derive(Clone, Debug, Default)]
pub(super) struct MaintenanceSchedule {
    untracked: Option<SiteTime>,
    schema: Option<SiteTime>,
    time_filters: Option<SiteTime>,
    tombstones: Option<SiteTime>,
    stream: Option<SiteTime>,
    scrub: Option<SiteTime>,
    audit: Option<SiteTime>,
    scans: BTreeMap<(ScanKind, EntityType), Option<SiteTime>>,
    suspects: Suspects,
}

/// Tells whether a period is over, and begins the next one. The first period
/// begins with the first question.
fn is_due(last: &mut Option<SiteTime>, every: Duration, now: SiteTime) -> bool {
    if every.is_zero() {
        return false;
    }
    let due = last.is_some_and(|last| now.since(last) >= every);
    if due || last.is_none() {
        *last = Some(now);
    }
    due
}

/// The first failure of several pieces of work that do not depend on each other.
#[derive(Default)]
struct Outcome(Option<SyncError>);

impl Outcome {
    /// Takes note of one piece. A test that stops the world stops at once.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(stopped @ SyncError::Stopped(_)) => Err(stopped),
            Err(error) => {
                self.0.get_or_insert(error);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn end(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Replica {
    /// Does what is due. What fails does not keep the rest from being done.
    ///
    /// # Errors
    ///
    /// The first error, after everything was tried.
    pub(super) async fn maintain(&self, schedule: &mut MaintenanceSchedule) -> Result<()> {
        let now = self.now();
        let settings = self.settings();
        let mut outcome = Outcome::default();
        let schema_due = is_due(&mut schedule.schema, settings.schema_every, now);
        if schema_due || self.state().stream().await?.schema_due {
            outcome.note(self.check_schema().await)?;
        }
        let lacking = self.lacking();
        let stopped = |ty: &EntityType| lacking.get(ty).is_some_and(|fields| fields.contains_key(WHOLE));
        for sweep in self.state().due_sweeps(now).await?.into_iter().filter(|sweep| !stopped(&sweep.entity_type)) {
            outcome.note(self.sweep(&sweep).await)?;
        }
        outcome.note(self.conclude_imports().await)?;
        if is_due(&mut schedule.untracked, UNTRACKED_EVERY, now) {
            outcome.note(self.forget_untracked().await)?;
        }
        if is_due(&mut schedule.stream, STREAM_EVERY, now) {
            outcome.note(self.check_stream().await)?;
        }
        if is_due(&mut schedule.time_filters, TIME_FILTERS_EVERY, now) {
            for entity_type in self.tracked().filtered_by_time() {
                self.state().request_sweep(entity_type, now).await?;
            }
        }
        if is_due(&mut schedule.tombstones, TOMBSTONES_EVERY, now) {
            outcome.note(self.purge_tombstones(now).await)?;
        }
        outcome.note(self.audit_due(schedule, now).await)?;
        outcome.note(self.scan_due(schedule, now).await)?;
        if is_due(&mut schedule.scrub, settings.scrub_every, now) {
            outcome.note(self.scrub().await.map(|_| ()))?;
        }
        outcome.end()
    }

    async fn audit_due(&self, schedule: &mut MaintenanceSchedule, now: SiteTime) -> Result<()> {
        schedule.suspects = self.conclude_audit(std::mem::take(&mut schedule.suspects)).await?;
        if is_due(&mut schedule.audit, self.settings().audit_every, now) {
            schedule.suspects = self.audit().await?;
        }
        Ok(())
    }

    /// Scans the types whose turn it is. They do not all begin their periods at
    /// once, so that the requests are spread.
    async fn scan_due(&self, schedule: &mut MaintenanceSchedule, now: SiteTime) -> Result<()> {
        let settings = self.settings();
        let kinds = [
            (ScanKind::Fast, settings.fast_scan_every),
            (ScanKind::Light, settings.light_scan_every),
            (ScanKind::Retired, settings.retired_scan_every),
        ];
        let types = self.live_types().await?;
        let mut outcome = Outcome::default();
        for (kind, every) in kinds {
            for (index, entity_type) in types.iter().enumerate() {
                let first = now.before(every * u32::try_from(index).unwrap_or(0) / types.len().max(1) as u32);
                let last = schedule.scans.entry((kind, entity_type.clone())).or_insert(Some(first));
                if is_due(last, every, now) {
                    outcome.note(self.scan(entity_type, kind).await.map(|_| ()))?;
                }
            }
        }
        outcome.end()
    }

    /// Declares types live whose import is copied and confirmed: every mark that
    /// was open at its end is cleared.
    pub(super) async fn conclude_imports(&self) -> Result<()> {
        for record in self.state().types().await? {
            let confirm = record.import.as_ref().and_then(|import| import.confirm_until);
            let Some(until) = confirm.filter(|_| record.state == TypeState::Importing) else {
                continue;
            };
            let kinds = Kinds::TOLD | Kinds::IMPORT;
            if !self.state().has_marks_until(&record.entity_type, kinds, until).await? {
                self.state().set_live(&record.entity_type).await?;
                tracing::info!(entity_type = %record.entity_type, "live");
            }
        }
        Ok(())
    }

    async fn purge_tombstones(&self, now: SiteTime) -> Result<()> {
        let keep = self.settings().keep_tombstones;
        let older_than = now.before(keep).timestamp();
        self.store().purge(&PurgeScope::Tombstones { older_than }).await?;
        self.state().purge_tombstones(now, keep).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_begins_with_the_first_question() {
        let (mut last, minute) = (None, Duration::from_secs(60));
        let mut due = |at| is_due(&mut last, minute, SiteTime(at));
        assert_eq!([due(5_000), due(64_999), due(65_000), due(65_001)], [false, false, true, false]);
    }
}
