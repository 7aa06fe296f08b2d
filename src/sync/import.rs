//! Fills a type with everything the site has, while it changes.
//!
//! Pages follow the last id, so that nothing that comes or goes can shift them;
//! the range of ids is divided into segments that are read side by side. Each
//! page is written under the version of its own read, so events, repairs and
//! other imports may write the same rows at the same time. Rows that were known
//! before and not met are read again by id before they go, or stay gone. The retired
//! rows, a list of their own, are one more segment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

use super::absence::Findings;
use super::activity::FinishedImport;
use super::reads_in_flight::ReadInFlight;
use super::write::{Said, Written};
use super::{Replica, Result, SyncError};
use crate::api3::{Read, RowText};
use crate::budget;
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::{Only, RawSort};
use crate::shotgun::{Answer, ErrorKind, Purpose};
use crate::state::{DirtyReasons, ImportState, NewDirtyKey, Segment, SegmentStep, TypeState};
use crate::store::RowState;
use crate::supervisor;

/// The smallest page, however slow the site is.
const SMALLEST_PAGE: u32 = 50;
const MOST_SEGMENTS: i64 = 32;

/// Tells somebody how far an import is.
pub type Progress = Arc<dyn Fn(&ImportProgress) + Send + Sync>;

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportProgress {
    /// The type.
    pub entity_type: EntityType,
    /// Rows imported so far, those of an interrupted run included.
    pub rows: u64,
    /// Rows to expect.
    pub expected: Option<u64>,
    /// Whether everything is copied.
    pub done: bool,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rows read and written.
    pub rows: u64,
    /// Rows that were known before, were not met, and are being read again.
    pub unmet: u64,
}

/// Where it is noted how far an import is, so that the next one goes on there.
#[derive(Clone)]
enum Record {
    /// In the record of the type, in the transaction of each page.
    OfType,
    /// Beside it, after each page, because the type stays live: a crash repeats a page.
    OfRebuild(Arc<Mutex<Rebuild>>),
}

/// A rebuild that runs or was interrupted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rebuild {
    layout_hash: String,
    import: ImportState,
}

impl Rebuild {
    /// The name under which the state keeps that of a type.
    fn name(entity_type: &EntityType) -> String {
        format!("rebuild/{entity_type}")
    }
}

/// One import at work.
#[derive(Clone)]
struct Job {
    replica: Replica,
    layout: Arc<TypeLayout>,
    record: Record,
    rows: Arc<AtomicU64>,
    pages: Arc<AtomicU64>,
    expected: Option<u64>,
    progress: Option<Progress>,
}

/// An import or a rebuild as it was when this process began with it.
struct Begun<'a> {
    entity_type: &'a EntityType,
    rebuild: bool,
    resumed: bool,
    /// Rows that were copied before.
    rows: u64,
    lo_rv: i64,
    started: Instant,
}

/// What was copied.
struct Copied {
    /// Rows, those before an interruption included.
    rows: u64,
    /// Pages since then.
    pages: u64,
}

impl Replica {
    /// Returns the types whose rows do not fit their layout or are not complete.
    pub async fn pending_imports(&self) -> Result<Vec<EntityType>> {
        let mut pending = Vec::new();
        for layout in self.tracked().layouts() {
            let record = self.state().type_record(&layout.entity_type).await?;
            let copied = record.as_ref().is_some_and(|record| {
                let confirming = record.import.as_ref().is_some_and(|import| import.confirm_poll.is_some());
                let state = matches!(record.state, TypeState::Live | TypeState::Degraded);
                record.layout_hash == layout.hash && (state || record.state == TypeState::Importing && confirming)
            });
            if !copied {
                pending.push(layout.entity_type.clone());
            }
        }
        Ok(pending)
    }

    /// Imports a type, or goes on with an import that was interrupted. The type is
    /// live once the marks that are open at the end are cleared.
    ///
    /// # Errors
    ///
    /// What is imported stays; the next call goes on.
    pub async fn import(&self, entity_type: &EntityType, progress: Option<Progress>) -> Result<Imported> {
        let layout = self.layout(entity_type)?;
        self.store().ensure_type(&layout).await?;
        self.step("import: room made")?;
        let started = Instant::now();
        let record = self.state().type_record(entity_type).await?;
        let interrupted = record
            .filter(|record| record.state == TypeState::Importing && record.layout_hash == layout.hash)
            .and_then(|record| record.import);
        let resumed = interrupted.is_some();
        let import = match interrupted {
            Some(import) => import,
            None => {
                let import = self.plan_import(&layout).await?;
                self.state().begin_import(entity_type, &layout.hash, &import).await?;
                self.step("import: begun")?;
                import
            }
        };
        let begun = Begun { entity_type, rebuild: false, resumed, rows: import.rows, lo_rv: import.lo_rv, started };
        let copied = self.copy(&layout, import, Record::OfType, progress).await?;
        let mut unmet = self.mark_unmet(&layout, begun.lo_rv).await?;
        // Rows that the state knows nothing of are served like any other.
        unmet += self.quarantine_leftovers(entity_type).await?;
        let poll = self.state().stream().await?.complete_poll;
        self.state().confirm_import(entity_type, poll).await?;
        self.step("import: copied")?;
        Ok(self.note_finished(begun, copied, unmet))
    }

    /// Reads every row of a live type again, in place: readers see the old row
    /// until the new one is there. A rebuild that was interrupted goes on where it was.
    ///
    /// # Errors
    ///
    /// What was read stays; the type was never less than live.
    pub async fn rebuild(&self, entity_type: &EntityType, progress: Option<Progress>) -> Result<Imported> {
        let layout = self.layout(entity_type)?;
        self.store().ensure_type(&layout).await?;
        let started = Instant::now();
        let name = Rebuild::name(entity_type);
        let kept: Option<Option<Rebuild>> = self.state().kept(&name).await?;
        let interrupted = kept.flatten().filter(|rebuild| rebuild.layout_hash == layout.hash);
        let resumed = interrupted.is_some();
        let rebuild = match interrupted {
            Some(rebuild) => rebuild,
            None => {
                let import = self.plan_import(&layout).await?;
                let rebuild = Rebuild { layout_hash: layout.hash.clone(), import };
                self.state().keep(&name, &rebuild).await?;
                rebuild
            }
        };
        let import = rebuild.import.clone();
        let begun = Begun { entity_type, rebuild: true, resumed, rows: import.rows, lo_rv: import.lo_rv, started };
        let record = Record::OfRebuild(Arc::new(Mutex::new(rebuild)));
        let copied = self.copy(&layout, import, record, progress).await?;
        let unmet = self.mark_unmet(&layout, begun.lo_rv).await?;
        self.state().keep(&name, &None::<Rebuild>).await?;
        Ok(self.note_finished(begun, copied, unmet))
    }

    /// Takes note of an import or a rebuild that came to its end.
    fn note_finished(&self, begun: Begun<'_>, Copied { rows, pages }: Copied, unmet: u64) -> Imported {
        let done = FinishedImport {
            entity_type: begun.entity_type.clone(),
            rebuild: begun.rebuild,
            resumed: begun.resumed,
            rows,
            new_rows: rows - begun.rows,
            pages,
            page_size: self.client().page_size(),
            unmet,
            lo_rv: begun.lo_rv,
            took: begun.started.elapsed(),
        };
        self.note_activity(|activity| activity.note_import(done));
        Imported { rows, unmet }
    }

    /// Divides the range of ids. The last segment has no end: ids above it may
    /// come without an event.
    async fn plan_import(&self, layout: &TypeLayout) -> Result<ImportState> {
        // Before the questions below, so that no answer of theirs is newer.
        let lo_rv = self.state().next_rv().await?;
        let expected = self.count_rows(&layout.entity_type, layout.raw_filter.clone(), Purpose::Import).await?;
        let newest = Read {
            order: vec![RawSort { path: "id".into(), descending: true }],
            ..Read::new(layout.entity_type.clone(), layout.raw_filter.clone(), 1)
        };
        let answer: Answer = self.heard(self.client().read(&newest, Purpose::Import).await?);
        let last = answer.last_id().unwrap_or(0);
        let page = i64::from(self.client().page_size());
        let rows = expected.and_then(|rows| i64::try_from(rows).ok()).unwrap_or(last).max(1);
        let count = (rows / (page * 2)).clamp(1, MOST_SEGMENTS);
        let bound = |index: i64| last * index / count;
        let segment = |index: i64| {
            let end = (index + 1 < count).then(|| bound(index + 1));
            Segment { last_id: bound(index), end, done: false, retired: false }
        };
        let retired = Segment { last_id: 0, end: None, done: false, retired: true };
        let segments = (0..count).map(segment).chain([retired]).collect();
        Ok(ImportState { lo_rv, segments, rows: 0, expected, confirm_poll: None })
    }

    /// Copies all segments.
    async fn copy(
        &self,
        layout: &Arc<TypeLayout>,
        import: ImportState,
        record: Record,
        progress: Option<Progress>,
    ) -> Result<Copied> {
        let name = layout.entity_type.as_str();
        let metrics = &self.metrics().imports;
        metrics.running.set(&[name], 1.0);
        let job = Job {
            replica: self.clone(),
            layout: layout.clone(),
            record,
            rows: Arc::new(AtomicU64::new(import.rows)),
            pages: Arc::default(),
            expected: import.expected,
            progress,
        };
        job.tell(false);
        let workers = self.settings().imports_in_flight.max(1);
        let mut waiting = import.segments.into_iter().enumerate().filter(|(_, segment)| !segment.done);
        let mut running: JoinSet<Result<()>> = JoinSet::new();
        for (index, segment) in waiting.by_ref().take(workers) {
            running.spawn(inherited(job.clone().copy_segment(index, segment)));
        }
        let mut outcome = Ok(());
        while let Some(ended) = running.join_next().await {
            let ended = ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
            if ended.is_err() {
                // The others finish their page; nothing new is begun.
                outcome = outcome.and(ended);
                continue;
            }
            if outcome.is_ok()
                && let Some((index, segment)) = waiting.next()
            {
                running.spawn(inherited(job.clone().copy_segment(index, segment)));
            }
        }
        metrics.running.set(&[name], 0.0);
        outcome?;
        metrics.remaining.set(&[name], 0.0);
        job.tell(true);
        Ok(Copied { rows: job.rows.load(Ordering::Relaxed), pages: job.pages.load(Ordering::Relaxed) })
    }

    /// Marks the rows that were known before the import and that it did not meet; absent ones,
    /// too: after the site was restored one may be there again, with links to it, although
    /// its filter hides it from the import.
    async fn mark_unmet(&self, layout: &TypeLayout, lo_rv: i64) -> Result<u64> {
        let (mut after, mut unmet) = (0, 0);
        loop {
            let ids = self.state().rows_older_than(&layout.entity_type, lo_rv, after, 5_000).await?;
            let Some(last) = ids.last().copied() else {
                return Ok(unmet);
            };
            let key = |id: &i64| EntityRef::new(layout.entity_type.clone(), *id);
            let marks: Vec<_> = ids.iter().map(|id| NewDirtyKey::new(key(id), DirtyReasons::IMPORT)).collect();
            self.state().mark(&marks, self.now()).await?;
            unmet += ids.len() as u64;
            after = last;
        }
    }
}

/// Gives a spawned task the beats of its loop and the limits of its run.
fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    supervisor::inherit(budget::inherit(work))
}

impl Job {
    /// Copies one segment: while a page is written the next one is read.
    async fn copy_segment(self, index: usize, segment: Segment) -> Result<()> {
        let (mut last_id, mut size) = (segment.last_id, self.replica.client().page_size());
        let mut writing: Option<JoinHandle<Result<()>>> = None;
        let outcome = loop {
            let (token, page) = match self.next_page(&segment, last_id, &mut size).await {
                Ok(read) => read,
                Err(error) => break Err(error),
            };
            let done = !page.has_next_page;
            last_id = page.last_id().unwrap_or(last_id).max(last_id);
            // Steps of a segment have an order, so one page waits for the other.
            if let Err(error) = written(writing.take()).await {
                self.replica.state().abandon(&token).await?;
                break Err(error);
            }
            let step = SegmentStep { index, last_id, done };
            writing = Some(tokio::spawn(inherited(self.clone().write_page(segment.retired, token, page, step))));
            if done {
                break Ok(());
            }
        };
        outcome.and(written(writing).await)
    }

    /// Reads the page after an id, in smaller ones when the site takes too long.
    async fn next_page(
        &self,
        segment: &Segment,
        after: i64,
        size: &mut u32,
    ) -> Result<(ReadInFlight, Answer<RowText>)> {
        loop {
            let token = self.replica.begin_read(&self.layout.entity_type).await?;
            self.replica.step("import: page begun")?;
            let error = match self.read_page(segment, after, *size).await {
                Ok(page) => return Ok((token, page)),
                Err(error) => error,
            };
            self.replica.state().abandon(&token).await?;
            match &error {
                SyncError::Site(site) if site.kind() == ErrorKind::Timeout && *size > SMALLEST_PAGE => {
                    *size = (*size / 2).max(SMALLEST_PAGE);
                }
                _ => return Err(error),
            }
        }
    }

    async fn write_page(
        self,
        retired: bool,
        token: ReadInFlight,
        page: Answer<RowText>,
        step: SegmentStep,
    ) -> Result<()> {
        let state = if retired { RowState::Retired } else { RowState::Active };
        let said: Vec<_> = page.rows.into_iter().map(|row| (row.id, Said::Row(state, row.text))).collect();
        let count = if retired { 0 } else { said.len() as u64 };
        let segment = matches!(self.record, Record::OfType).then_some(step);
        let read = Written { segment, ..Written::unmarked(&self.layout, token, Findings::of_rows(said)) };
        self.replica.write(read).await?;
        self.note(step, count).await?;
        self.rows.fetch_add(count, Ordering::Relaxed);
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.replica.metrics().imports.entities.add(&[self.layout.entity_type.as_str()], count);
        self.tell(false);
        Ok(())
    }

    /// Notes that a page of a rebuild is written.
    async fn note(&self, step: SegmentStep, rows: u64) -> Result<()> {
        let Record::OfRebuild(rebuild) = &self.record else { return Ok(()) };
        let noted = {
            // A panic elsewhere leaves a page to repeat, never a torn record.
            let mut rebuild = rebuild.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(segment) = rebuild.import.segments.get_mut(step.index) {
                (segment.last_id, segment.done) = (step.last_id, step.done);
            }
            rebuild.import.rows += rows;
            rebuild.clone()
        };
        Ok(self.replica.state().keep(&Rebuild::name(&self.layout.entity_type), &noted).await?)
    }

    async fn read_page(&self, segment: &Segment, after: i64, size: u32) -> Result<Answer<RowText>> {
        let slots = self.replica.import_slots();
        // Closed only when the process ends.
        let _slot = slots.acquire().await;
        let mut filter = self.layout.raw_filter.clone();
        if let Some(end) = segment.end {
            let bound = crate::filter::RawLeaf {
                path: "id".into(),
                relation: "less_than".into(),
                values: vec![Value::from(end + 1)],
            };
            filter = crate::filter::RawFilter::Group {
                any: false,
                conditions: vec![crate::filter::RawFilter::Leaf(bound), filter],
            };
        }
        let read = Read::new(self.layout.entity_type.clone(), filter, size).fields(self.layout.field_names());
        let read = Read { only: if segment.retired { Only::Retired } else { Only::Active }, ..read };
        self.replica.page_after(&read, after, Purpose::Import).await
    }

    fn tell(&self, done: bool) {
        let rows = self.rows.load(Ordering::Relaxed);
        let remaining = self.expected.unwrap_or(rows).saturating_sub(rows);
        let entity_type = self.layout.entity_type.clone();
        self.replica.metrics().imports.remaining.set(&[entity_type.as_str()], remaining as f64);
        if let Some(progress) = &self.progress {
            progress(&ImportProgress { entity_type, rows, expected: self.expected, done });
        }
    }
}

/// Waits for a page that is being written.
async fn written(page: Option<JoinHandle<Result<()>>>) -> Result<()> {
    match page {
        None => Ok(()),
        Some(page) => page.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())),
    }
}
