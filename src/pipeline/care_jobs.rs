//! What the jobs `scan` and `deadLetters` do: they find what no event reports, or what could
//! not be applied, have it read again, and wait for that.

use std::collections::BTreeMap;

use super::job_arguments::{DeadLettersArgs, ScanArgs, ScanMode};
use super::jobs::{Jobs, PATIENCE, invalid};
use super::runner::JobError;
use crate::entity::EntityType;
use crate::report::StepResult;
use crate::shotgun::Purpose;
use crate::state::DirtyReasons;
use crate::sync::ScanKind;
use crate::validate::SoFar;

impl Jobs {
    pub(super) async fn scan(&self, args: &ScanArgs, so_far: &SoFar) -> Result<StepResult, JobError> {
        let asked = self.replica.client().requests(Purpose::Scan);
        let mut result = match args.mode {
            ScanMode::Fast => self.scan_types(args, ScanKind::Fast, so_far).await?,
            ScanMode::Light => self.scan_types(args, ScanKind::Light, so_far).await?,
            ScanMode::Retired => self.scan_types(args, ScanKind::Retired, so_far).await?,
            ScanMode::Full => self.scrub(args.rows).await?,
            ScanMode::Columns => self.check_columns(args.rows).await?,
        };
        if result.drift > 0 {
            // What was found is dirty now: it counts when it has been read again.
            self.replica.advance_until(PATIENCE, DirtyReasons::SCAN | DirtyReasons::REPAIR).await?;
        }
        result.requests = self.replica.client().requests(Purpose::Scan) - asked;
        Ok(result)
    }

    async fn scan_types(&self, args: &ScanArgs, kind: ScanKind, so_far: &SoFar) -> Result<StepResult, JobError> {
        let live = self.replica.live_types().await?;
        for layout in self.types(&args.types)?.iter().filter(|_| !args.types.is_empty()) {
            if !live.contains(&layout.entity_type) {
                let ty = &layout.entity_type;
                return Err(invalid(format!("{ty} is not imported yet: `sgcache job import {ty}` does that")));
            }
        }
        let is_wanted =
            |ty: &&EntityType| args.types.is_empty() || args.types.iter().any(|name| **ty == *name.as_str());
        let mut result = StepResult::default();
        so_far.expect(live.iter().filter(is_wanted).count());
        for entity_type in live.iter().filter(is_wanted) {
            let scanned = self.replica.scan(entity_type, kind).await?;
            let ty = result.by_type.entry(entity_type.to_string()).or_default();
            (ty.checked, ty.missing) = (scanned.rows, scanned.missing);
            (ty.extra, ty.differs) = (scanned.extra, scanned.differs);
            ty.sum_up();
            result.sum_up();
            if scanned.found() > 0 {
                let (missing, extra, differs) = (scanned.missing, scanned.extra, scanned.differs);
                tracing::info!(%entity_type, missing, extra, differs, "the scan found what no event reports");
            }
            so_far.set(result.clone());
        }
        Ok(result)
    }

    async fn scrub(&self, rows: Option<u32>) -> Result<StepResult, JobError> {
        let rows = rows.unwrap_or(self.replica.settings().scrub_rows);
        let scrubbed = self.replica.scrub_rows(u64::from(rows)).await?;
        let differs = scrubbed.silent + scrubbed.damaged;
        let mut result = StepResult { checked: scrubbed.rows, differs, drift: differs, ..StepResult::default() };
        result.outputs.insert("damaged".into(), scrubbed.damaged.into());
        Ok(result)
    }

    async fn check_columns(&self, rows: Option<u32>) -> Result<StepResult, JobError> {
        let mut found = self.replica.check_store(true).await?;
        let rows = rows.unwrap_or(self.replica.settings().verify_rows);
        let verified = self.replica.verify_rows(u64::from(rows)).await?;
        found.quarantined += verified.quarantined;
        found.imported_again.extend(verified.imported_again);
        let damaged = found.quarantined;
        let mut result = StepResult { differs: damaged, drift: damaged, ..StepResult::default() };
        result.outputs.insert("damaged".into(), damaged.into());
        let again: Vec<String> = found.imported_again.iter().map(ToString::to_string).collect();
        if !again.is_empty() {
            result.outputs.insert("imported_again".into(), again.into());
        }
        Ok(result)
    }

    /// Counts the dead letters per kind; those that are left are unresolved.
    pub(super) async fn dead_letters(&self, args: &DeadLettersArgs) -> Result<StepResult, JobError> {
        let state = self.replica.state();
        let mut result = StepResult::default();
        if args.retry {
            let before = state.dead(usize::MAX >> 1).await?;
            let retried = state.retry_dead(&before).await?;
            if retried > 0 {
                self.replica.advance_until(PATIENCE, DirtyReasons::SCAN | DirtyReasons::REPAIR).await?;
            }
            let left = state.dead(usize::MAX >> 1).await?.len();
            result.repaired = before.len().saturating_sub(left) as u64;
            result.outputs.insert("refetched".into(), retried.into());
        }
        let counts: BTreeMap<String, u64> =
            state.dead_counts().await?.into_iter().map(|(kind, count)| (kind.as_str().to_owned(), count)).collect();
        result.unresolved = counts.values().sum();
        result.outputs.extend(counts.into_iter().map(|(kind, count)| (kind, count.into())));
        Ok(result)
    }
}
