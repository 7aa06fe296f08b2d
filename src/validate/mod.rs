//! Comparing the cache with the site.
//!
//! A site cannot be stopped for a comparison, and its two sides are read at two
//! moments. So nothing is decided from one difference: keys that the event log
//! touched between the first read and the next poll are left out, and what still
//! differs is read again after further polls. Only a difference that outlives
//! this, of a key that nothing touched, is drift. Totals are never retried until
//! they agree by luck.
//!
//! Schedules, sinks and YAML are not known here.

mod bound;
mod counts;
mod data;
mod diff;
mod names;
mod repair;
mod sample;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::{Mutex, MutexGuard};

use crate::entity_config::TypeLayout;
use crate::metrics::Metrics;
use crate::report::{CheckKind, MISMATCH_LIMIT, Mismatch, StepResult, TypeResult, Verdict};
use crate::shotgun::{self, Client};
use crate::state::{State, StateError, TypeState};
use crate::store::{Store, StoreError};
use crate::sync::{Replica, SyncError};

pub use bound::stale_ratio_upper95;
pub use data::DataCheck;
pub use diff::{FieldDiff, differences};
pub use sample::{Sample, Selection};

/// How many types are compared at once: they share the polls that they wait for.
const TYPES_AT_ONCE: usize = 8;

/// Compares the cache with the site, and repairs what differs.
#[derive(Clone)]
pub struct Validator {
    client: Client,
    store: Arc<dyn Store>,
    state: State,
    replica: Replica,
    metrics: Metrics,
    settings: Settings,
    requests: Arc<AtomicU64>,
    so_far: SoFar,
}

/// What a job has found by now, for the report of one that is stopped before its
/// end. Clones share it.
#[derive(Clone, Default)]
pub struct SoFar {
    found: Arc<Mutex<StepResult>>,
    /// Types that are looked at in all.
    types: Arc<AtomicUsize>,
    seen_by: Option<Arc<Watch>>,
}

/// Receives what was found by now, and how many types are looked at in all.
type Watch = dyn Fn(&StepResult, usize) + Send + Sync;

/// Shows what was found.
impl fmt::Debug for SoFar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(out)
    }
}

impl SoFar {
    /// Shows each change to `watch`, which must not wait.
    pub fn seen_by(watch: impl Fn(&StepResult, usize) + Send + Sync + 'static) -> Self {
        Self { seen_by: Some(Arc::new(watch)), ..Self::default() }
    }

    /// Says how many types are looked at.
    pub fn expect(&self, types: usize) {
        self.types.store(types, Ordering::Relaxed);
        self.change(|_| {});
    }

    /// Replaces what was found by now.
    pub fn set(&self, result: StepResult) {
        self.change(|found| *found = result);
    }

    /// Changes what was found by now.
    pub fn change(&self, change: impl FnOnce(&mut StepResult)) {
        let mut found = self.lock();
        change(&mut found);
        if let Some(watch) = &self.seen_by {
            watch(&found, self.types.load(Ordering::Relaxed));
        }
    }

    /// Returns what was found by now.
    pub fn take(&self) -> StepResult {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, StepResult> {
        // A panic elsewhere leaves a report of less, never a torn one.
        self.found.lock()
    }
}

/// How patient a validation is.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Polls that must pass before a suspect is looked at again.
    pub confirm_polls: u32,
    /// The least time between the two looks, so that events that the site writes
    /// late can arrive.
    pub confirm_pause: Duration,
    /// How long to wait for a poll and for the refetches that it caused.
    pub patience: Duration,
    /// Entities that the site updated within this time are left out.
    pub settle: Duration,
    /// Mismatches that are named at most.
    pub locate: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            confirm_polls: 2,
            confirm_pause: Duration::from_secs(4),
            patience: Duration::from_secs(120),
            settle: Duration::ZERO,
            locate: MISMATCH_LIMIT,
        }
    }
}

/// Why a validation could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ValidateError {
    /// The site gave no answer.
    #[error(transparent)]
    Site(#[from] shotgun::Error),
    /// The store gave no answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The event log could not be followed meanwhile.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// None of the types is complete.
    #[error("none of these types is imported yet: `sgcache pipelines run` or `sgcache job import` does that")]
    NotImported,
    /// The filter, fields or order do not fit the type.
    #[error("{0}")]
    Selection(String),
}

/// The result of everything here.
pub type Result<T, E = ValidateError> = std::result::Result<T, E>;

/// What was found about one type.
#[derive(Debug, Default)]
struct TypeFindings {
    result: TypeResult,
    mismatches: Vec<Mismatch>,
}

impl TypeFindings {
    /// Nothing can be said while a type is not complete; `problem` says why and what
    /// to do.
    fn inconclusive(problem: String) -> Self {
        let verdict = Verdict::Inconclusive;
        let result = TypeResult { verdict, problem: Some(problem), ..TypeResult::default() };
        Self { result, mismatches: Vec::new() }
    }
}

impl Validator {
    /// Makes a validator of a replica.
    pub fn new(replica: Replica) -> Self {
        Self {
            client: replica.client().clone(),
            store: Arc::clone(replica.store()),
            state: replica.state().clone(),
            metrics: replica.metrics().clone(),
            replica,
            settings: Settings::default(),
            requests: Arc::default(),
            so_far: SoFar::default(),
        }
    }

    /// Notes there what is found, type by type.
    pub fn noting(&self, so_far: &SoFar) -> Self {
        Self { so_far: so_far.clone(), ..self.clone() }
    }

    /// Uses other settings.
    pub fn with_settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Leaves out what the site updated within this time, and names at most so
    /// many mismatches.
    pub fn limited(&self, settle: Duration, locate: u32) -> Self {
        let locate = usize::try_from(locate).unwrap_or(usize::MAX);
        Self { settings: Settings { settle, locate, ..self.settings.clone() }, ..self.clone() }
    }

    /// Compares the number of active entities of these types per thousand ids,
    /// and names the ids where they differ.
    ///
    /// # Errors
    ///
    /// When the site, the store or the event log gives no answer.
    pub async fn counts(&self, layouts: &[TypeLayout], repair: bool) -> Result<StepResult> {
        self.each(layouts, CheckKind::Count, |layout| async move { self.count_type(&layout, repair).await }).await
    }

    /// Compares the field values of some entities of these types.
    ///
    /// # Errors
    ///
    /// When the site, the store or the event log gives no answer, or a filter does
    /// not fit a type.
    pub async fn data(&self, layouts: &[TypeLayout], check: &DataCheck) -> Result<StepResult> {
        let each = |layout: TypeLayout| async move { self.check_type(&layout, check).await };
        let mut result = self.each(layouts, CheckKind::Sample, each).await?;
        if check.sample.is_random() {
            result.stale_ratio_upper95 = stale_ratio_upper95(result.drift, result.checked);
        }
        Ok(result)
    }

    async fn each<F>(
        &self,
        layouts: &[TypeLayout],
        kind: CheckKind,
        check: impl Fn(TypeLayout) -> F,
    ) -> Result<StepResult>
    where
        F: Future<Output = Result<TypeFindings>>,
    {
        let started = Instant::now();
        let before = self.requests.load(Ordering::Relaxed);
        // Where no process follows the site, the cache is as old as the last process
        // that did.
        self.so_far.expect(layouts.len());
        self.past_polls(1).await?;
        let mut result = StepResult { kind: Some(kind), ..StepResult::default() };
        let current: Vec<TypeLayout> = layouts.iter().map(|layout| self.replica.current(layout)).collect();
        let named = current.into_iter().map(|layout| {
            let name = layout.entity_type.to_string();
            let check = &check;
            async move {
                let started = Instant::now();
                let findings = check(layout).await;
                if let Ok(findings) = &findings {
                    self.note(&name, kind, findings);
                }
                (name, started.elapsed(), findings)
            }
        });
        let mut found: Vec<_> = futures::stream::iter(named).buffer_unordered(TYPES_AT_ONCE).collect().await;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        names::drop_explained(found.iter_mut().filter_map(|(_, _, findings)| findings.as_mut().ok()));
        for (name, took, findings) in found {
            let mut findings = findings?;
            findings.result.duration_seconds = took.as_secs_f64();
            findings.result.sum_up();
            result.by_type.insert(name, findings.result);
            for mismatch in findings.mismatches {
                result.push_mismatch(mismatch, self.settings.locate);
            }
        }
        result.sum_up();
        if !result.by_type.is_empty() && result.by_type.values().all(|ty| ty.verdict == Verdict::Inconclusive) {
            return Err(ValidateError::NotImported);
        }
        result.requests = self.requests.load(Ordering::Relaxed) - before;
        result.duration_seconds = started.elapsed().as_secs_f64();
        Ok(result)
    }

    /// Adds what was found about a type to what is reported of a check that is
    /// stopped before all types are done.
    fn note(&self, name: &str, kind: CheckKind, findings: &TypeFindings) {
        let mut result = findings.result.clone();
        result.sum_up();
        self.so_far.change(|so_far| {
            so_far.kind = Some(kind);
            so_far.by_type.insert(name.to_owned(), result);
            for mismatch in &findings.mismatches {
                so_far.push_mismatch(mismatch.clone(), self.settings.locate);
            }
            so_far.sum_up();
        });
    }

    /// Returns why a difference would mean nothing, and what to do about it; `None`
    /// when the type is complete.
    async fn not_ready(&self, layout: &TypeLayout) -> Result<Option<String>> {
        let ty = &layout.entity_type;
        let remedy = format!("`sgcache pipelines run` or `sgcache job import {ty}` does that");
        let Some(record) = self.state.type_record(ty).await? else {
            return Ok(Some(format!("not imported yet: {remedy}")));
        };
        Ok(match record.state {
            TypeState::Degraded => {
                Some("the site no longer has what its entity config needs: see `sgcache status`".into())
            }
            TypeState::Live if record.layout_hash == layout.hash => None,
            TypeState::Importing => {
                let rows = record.import.map_or(0, |import| import.rows);
                Some(format!(
                    "its import has come to {rows} rows: `sgcache pipelines run` or `sgcache job import {ty}` goes on"
                ))
            }
            TypeState::Absent => Some(format!("not imported yet: {remedy}")),
            TypeState::Live | TypeState::Untracked => {
                Some(format!("not imported since its entity config or the site's schema changed: {remedy}"))
            }
        })
    }

    /// Waits until everything that was visible in the event log when this was
    /// called has left its marks.
    async fn past_polls(&self, polls: u32) -> Result<()> {
        for _ in 0..polls {
            self.replica.advance(self.settings.patience).await?;
        }
        Ok(())
    }

    async fn confirm_pause(&self) -> Result<()> {
        tokio::time::sleep(self.settings.confirm_pause).await;
        self.past_polls(self.settings.confirm_polls).await
    }

    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}
