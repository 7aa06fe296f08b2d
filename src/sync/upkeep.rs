//! Everything besides polling, fetching and importing that has to happen now and
//! then.

use std::time::Duration;

use super::scan::ScanKind;
use super::{Replica, Result};
use crate::state::{Kinds, SiteTime, TypeState};
use crate::store::PurgeScope;

/// A filter around now moves with the clock of the site.
const TIME_FILTERS_EVERY: Duration = Duration::from_secs(3600);
const UNTRACKED_EVERY: Duration = Duration::from_secs(60);
const TOMBSTONES_EVERY: Duration = Duration::from_secs(3600);
const STREAM_EVERY: Duration = Duration::from_secs(600);

/// When the regular work was done last.
#[derive(Clone, Debug, Default)]
pub(super) struct Upkeep {
    untracked: Option<SiteTime>,
    schema: Option<SiteTime>,
    time_filters: Option<SiteTime>,
    light: Option<SiteTime>,
    fast: Option<SiteTime>,
    tombstones: Option<SiteTime>,
    stream: Option<SiteTime>,
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

impl Replica {
    /// Does what is due, in the order of urgency.
    pub(super) async fn upkeep(&self, upkeep: &mut Upkeep) -> Result<()> {
        let now = self.now();
        for sweep in self.state().due_sweeps(now)? {
            self.sweep(&sweep).await?;
        }
        self.conclude_imports()?;
        if is_due(&mut upkeep.untracked, UNTRACKED_EVERY, now) {
            self.forget_untracked().await?;
        }
        let schema_due = is_due(&mut upkeep.schema, self.settings().schema_every, now);
        if schema_due || self.state().stream()?.schema_due {
            self.check_schema().await?;
        }
        if is_due(&mut upkeep.stream, STREAM_EVERY, now) {
            self.check_stream().await?;
        }
        if is_due(&mut upkeep.time_filters, TIME_FILTERS_EVERY, now) {
            for entity_type in self.tracked().filtered_by_time() {
                self.state().request_sweep(entity_type, now)?;
            }
        }
        if is_due(&mut upkeep.tombstones, TOMBSTONES_EVERY, now) {
            self.purge_tombstones(now).await?;
        }
        if is_due(&mut upkeep.light, self.settings().light_scan_every, now) {
            self.scan_all(ScanKind::Light).await?;
        } else if is_due(&mut upkeep.fast, self.settings().fast_scan_every, now) {
            self.scan_all(ScanKind::Fast).await?;
        }
        Ok(())
    }

    /// Declares types live whose import is copied and confirmed: every mark that
    /// was open at its end is cleared.
    pub(super) fn conclude_imports(&self) -> Result<()> {
        for record in self.state().types()? {
            let confirm = record.import.as_ref().and_then(|import| import.confirm_until);
            let Some(until) = confirm.filter(|_| record.state == TypeState::Importing) else {
                continue;
            };
            let kinds = Kinds::TOLD | Kinds::IMPORT;
            if !self.state().has_marks_until(&record.entity_type, kinds, until)? {
                self.state().set_live(&record.entity_type)?;
                tracing::info!(entity_type = %record.entity_type, "live");
            }
        }
        Ok(())
    }

    async fn scan_all(&self, kind: ScanKind) -> Result<()> {
        for layout in self.tracked().layouts() {
            let record = self.state().type_record(&layout.entity_type)?;
            if record.is_some_and(|record| record.state == TypeState::Live) {
                self.scan(&layout.entity_type, kind).await?;
            }
        }
        Ok(())
    }

    async fn purge_tombstones(&self, now: SiteTime) -> Result<()> {
        let keep = self.settings().keep_tombstones;
        let older_than = now.before(keep).timestamp();
        self.store().purge(&PurgeScope::Tombstones { older_than }).await?;
        self.state().purge_tombstones(now, keep)?;
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
