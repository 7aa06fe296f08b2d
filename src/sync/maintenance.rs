//! Everything besides polling, fetching and importing that has to happen now and
//! then.

use std::time::Duration;

use super::audit::Suspects;
use super::periods::Periods;
use super::scan::ScanKind;
use super::schema_drift::WHOLE;
use super::{Replica, Result, SyncError};
use crate::entity::EntityType;
use crate::state::{DirtyReasons, SiteTime, TypeState};
use crate::store::PurgeScope;

/// A filter around now moves with the clock of the site.
const TIME_FILTERS_EVERY: Duration = Duration::from_secs(3600);
const UNTRACKED_EVERY: Duration = Duration::from_secs(60);
const TOMBSTONES_EVERY: Duration = Duration::from_secs(3600);
const STREAM_EVERY: Duration = Duration::from_secs(600);
/// The structure of the store's files is read whole, a gigabyte in a second.
const FILES_EVERY: Duration = Duration::from_secs(3600);

/// Where the regular work stands.
#[derive(Clone, Debug, Default)]
pub(super) struct MaintenanceSchedule {
    /// Work that a start does in any case.
    since_start: Periods,
    /// Work whose periods go on over restarts.
    kept: Periods,
    suspects: Suspects,
}

impl MaintenanceSchedule {
    /// Tells whether work that a start does in any case is due, and begins its next
    /// period.
    fn is_due_since_start(&mut self, work: &str, every: Duration, now: SiteTime) -> bool {
        let due = self.since_start.is_due(work, every, now, now);
        if due {
            self.since_start.begin(work, now);
        }
        due
    }
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
        schedule.kept.load(self.state()).await?;
        let schema_due = schedule.is_due_since_start("schema", settings.schema_every, now);
        if schema_due || self.state().stream().await?.schema_due {
            outcome.note(self.check_schema().await)?;
        }
        let lacking = self.lacking();
        let stopped = |ty: &EntityType| lacking.get(ty).is_some_and(|fields| fields.contains_key(WHOLE));
        for sweep in self.state().due_sweeps(now).await?.into_iter().filter(|sweep| !stopped(&sweep.entity_type)) {
            outcome.note(self.sweep(&sweep).await)?;
        }
        outcome.note(self.conclude_imports().await)?;
        if schedule.is_due_since_start("untracked", UNTRACKED_EVERY, now) {
            outcome.note(self.forget_untracked().await)?;
        }
        if schedule.is_due_since_start("stream", STREAM_EVERY, now) {
            outcome.note(self.check_stream().await)?;
        }
        let kept = &mut schedule.kept;
        if kept.is_due("time filters", TIME_FILTERS_EVERY, now, now) {
            for entity_type in self.tracked().filtered_by_time() {
                self.state().request_sweep(entity_type, now).await?;
            }
            kept.done("time filters", now, self.state()).await?;
        }
        if kept.is_due("tombstones", TOMBSTONES_EVERY, now, now) {
            let purged = self.purge_tombstones(now).await;
            outcome.note(self.begin_next_period("tombstones", purged, kept, now).await)?;
        }
        outcome.note(self.audit_due(schedule, now).await)?;
        outcome.note(self.scan_due(schedule, now).await)?;
        outcome.note(self.scrub_due(schedule, now).await)?;
        outcome.end()
    }

    /// Compares the next rows with the site and with what was written, as far as no
    /// pipeline does that.
    async fn scrub_due(&self, schedule: &mut MaintenanceSchedule, now: SiteTime) -> Result<()> {
        let (settings, scheduled) = (self.settings(), self.scheduled_scans());
        if !schedule.kept.is_due("scrub", settings.scrub_every, now, now) {
            return Ok(());
        }
        let mut outcome = Outcome::default();
        if !scheduled.columns {
            let whole = schedule.is_due_since_start("files", FILES_EVERY, now);
            outcome.note(self.check_store(whole).await.map(|_| ()))?;
            outcome.note(self.verify_rows(u64::from(settings.verify_rows)).await.map(|_| ()))?;
        }
        let scrubbed = match scheduled.full {
            true => Ok(()),
            false => self.scrub().await.map(|_| ()),
        };
        outcome.note(self.begin_next_period("scrub", scrubbed, &mut schedule.kept, now).await)?;
        outcome.end()
    }

    /// Begins the next period of work that was done.
    async fn begin_next_period(
        &self,
        work: &str,
        outcome: Result<()>,
        kept: &mut Periods,
        now: SiteTime,
    ) -> Result<()> {
        outcome?;
        kept.done(work, now, self.state()).await
    }

    async fn audit_due(&self, schedule: &mut MaintenanceSchedule, now: SiteTime) -> Result<()> {
        schedule.suspects = self.conclude_audit(std::mem::take(&mut schedule.suspects)).await?;
        if schedule.kept.is_due("audit", self.settings().audit_every, now, now) {
            schedule.suspects = self.audit().await?;
            schedule.kept.done("audit", now, self.state()).await?;
        }
        Ok(())
    }

    /// Scans the types whose turn it is. They do not all begin their first periods at
    /// once, so that the requests are spread.
    async fn scan_due(&self, schedule: &mut MaintenanceSchedule, now: SiteTime) -> Result<()> {
        let (settings, scheduled) = (self.settings(), self.scheduled_scans());
        let all = [
            (ScanKind::Fast, "fast", settings.fast_scan_every, scheduled.fast),
            (ScanKind::Light, "light", settings.light_scan_every, scheduled.light),
            (ScanKind::Retired, "retired", settings.retired_scan_every, scheduled.retired),
        ];
        let kinds = all.into_iter().filter(|(.., is_scheduled)| !is_scheduled);
        let types = self.live_types().await?;
        let mut outcome = Outcome::default();
        for (kind, name, every, _) in kinds {
            for (index, entity_type) in types.iter().enumerate() {
                let first = now.before(every * u32::try_from(index).unwrap_or(0) / types.len().max(1) as u32);
                let work = format!("{name} scan of {entity_type}");
                if schedule.kept.is_due(&work, every, first, now) {
                    let scanned = self.scan(entity_type, kind).await.map(|_| ());
                    outcome.note(self.begin_next_period(&work, scanned, &mut schedule.kept, now).await)?;
                }
            }
        }
        outcome.end()
    }

    /// Declares types live whose import is copied and confirmed: every mark that
    /// was open at its end is cleared.
    pub(super) async fn conclude_imports(&self) -> Result<()> {
        for record in self.state().types().await? {
            let confirm = record.import.as_ref().and_then(|import| import.confirm_poll);
            let Some(until) = confirm.filter(|_| record.state == TypeState::Importing) else {
                continue;
            };
            let kinds = DirtyReasons::FROM_EVENT | DirtyReasons::IMPORT;
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
