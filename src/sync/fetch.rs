//! Marked keys become rows: one read per entity type, never one per entity.
//!
//! A key that the filtered read does not return is looked for among the retired
//! rows, then without the filter; only what is nowhere is absent, and whether that
//! is believed is decided in `absence`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};

use super::write::{Said, Written};
use super::{KeyChange, KeyOutcome, Replica, Result, SyncError};
use crate::api3::RowText;
use crate::entity::{EntityRef, EntityType, ids_by_type};
use crate::entity_config::TypeLayout;
use crate::filter::{Only, RawFilter};
use crate::shotgun::{self, Answer, ErrorKind, Purpose};
use crate::state::{DirtyKey, DirtyReasons, Postponed, TypeState};
use crate::store::RowState;

/// What one round of fetching did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Marked keys that were due.
    pub due: usize,
    /// Keys that were read.
    pub read: usize,
}

/// Who is to blame for a read that the site refuses.
enum Blame {
    Key,
    Type(String),
    Site,
}

/// How long the next read of a key waits that the site refused or that broke its answer.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(2);

impl Replica {
    /// Reads the marked keys that are due, most urgent first, and writes what the
    /// site says. Half of the reads are kept for the newest marks, so that a bulk
    /// of older ones does not hold up what somebody has just done.
    ///
    /// # Errors
    ///
    /// The first error of any chunk; the others were finished. Marks that were not
    /// read stay.
    pub async fn fetch_due(&self) -> Result<Fetched> {
        let size = self.client().page_size() as usize;
        let in_flight = self.settings().fetches_in_flight.max(1);
        let reserved = in_flight / 2;
        let now = self.now();
        let turn = self.state().due_marks(now, size * (in_flight - reserved)).await?;
        let mut newest = Vec::new();
        if turn.len() == size * (in_flight - reserved) {
            let known: BTreeSet<EntityRef> = turn.iter().map(|mark| mark.key.clone()).collect();
            newest = self.state().newest_marks(now, size * reserved).await?;
            newest.retain(|mark| !known.contains(&mark.key));
        }
        let due = turn.len() + newest.len();
        // The newest begin first, should there be more chunks than reads.
        let (newest, turn) = (by_type(newest), by_type(turn));
        let chunks: Vec<_> = newest.values().chain(turn.values()).flat_map(|marks| marks.chunks(size)).collect();
        let reads: Vec<_> = chunks.into_iter().map(|marks| self.fetch_chunk(marks)).collect();
        let rounds = stream::iter(reads).buffer_unordered(in_flight);
        let results: Vec<Result<usize>> = rounds.collect().await;
        let mut read = 0;
        for result in results {
            read += result?;
        }
        Ok(Fetched { due, read })
    }

    /// Reads one chunk of one type; what fails is divided until the key that makes
    /// it fail is alone.
    async fn fetch_chunk(&self, marks: &[DirtyKey]) -> Result<usize> {
        let Some(first) = marks.first() else {
            return Ok(0);
        };
        let entity_type = &first.key.entity_type;
        let Some(layout) = self.tracked().layout(entity_type).cloned() else {
            return self.fetch_names(entity_type, marks).await;
        };
        if let Some(delay) = self.must_wait(&layout).await? {
            let keys: Vec<EntityRef> = marks.iter().map(|mark| mark.key.clone()).collect();
            self.state().defer(&keys, delay, self.now()).await?;
            return Ok(0);
        }
        let mut parts = vec![marks];
        let mut read = 0;
        while let Some(part) = parts.pop() {
            let error = match self.fetch_part(&layout, part, Purpose::Fetch).await {
                Ok(_) => {
                    read += part.len();
                    continue;
                }
                Err(SyncError::Site(error)) => error,
                Err(error) => return Err(error),
            };
            match self.blame(&layout, part, &error).await? {
                Blame::Key if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
                // One refusal may be that of a site in trouble: what the event announced would
                // stay undone in the rows that link to the key.
                Blame::Key if part[0].attempts == 0 => self.put_off(part, REFUSED_FOR).await?,
                Blame::Key => self.quarantine_key(&part[0], &error).await?,
                Blame::Type(message) => {
                    self.state().request_schema().await?;
                    self.put_off(part, Duration::from_secs(30)).await?;
                    return Err(SyncError::Schema { entity_type: entity_type.clone(), message });
                }
                Blame::Site => return Err(error.into()),
            }
        }
        Ok(read)
    }

    /// Returns how long rows of a type must wait: while it cannot be followed, and
    /// until the import with a changed layout has made room for them.
    async fn must_wait(&self, layout: &TypeLayout) -> Result<Option<Duration>> {
        Ok(match self.state().type_record(&layout.entity_type).await? {
            Some(record) if record.state == TypeState::Degraded => Some(Duration::from_secs(30)),
            Some(record) if record.layout_hash != layout.hash => Some(Duration::from_secs(2)),
            _ => None,
        })
    }

    /// Reads keys of one type and writes what the site says; false when some stay as
    /// they are: their absence is not believed yet, or what was read may be older.
    async fn fetch_part(&self, layout: &TypeLayout, marks: &[DirtyKey], purpose: Purpose) -> Result<bool> {
        let started = Instant::now();
        let ids: Vec<i64> = marks.iter().map(|mark| mark.key.id).collect();
        let token = self.begin_read(&layout.entity_type).await?;
        self.step("fetch: begun")?;
        let findings = match self.read_surely(layout, &ids, purpose).await {
            Ok(findings) => findings,
            Err(error) => {
                self.state().abandon(&token).await?;
                return Err(error);
            }
        };
        self.step("fetch: read")?;
        // A repair is asked for because the store cannot be believed.
        let suppress = !marks.iter().any(|mark| mark.kinds.any(DirtyReasons::REPAIR));
        let changes =
            self.write(Written { marks, suppress, purpose, ..Written::unmarked(layout, token, findings) }).await?;
        let took = started.elapsed();
        self.metrics().sync.fetch_duration.observe(took.as_secs_f64());
        self.note_activity(|activity| activity.fetches.add(took));
        let undecided = |change: &KeyChange| {
            matches!(change.outcome, KeyOutcome::Held | KeyOutcome::Suspected | KeyOutcome::Unproven)
        };
        Ok(!changes.iter().any(undecided))
    }

    /// Asks the site for keys, in every list there is; one that is in none is
    /// [`Said::Absent`].
    pub(super) async fn read_keys(
        &self,
        layout: &TypeLayout,
        ids: &[i64],
        purpose: Purpose,
    ) -> Result<BTreeMap<i64, Said>, shotgun::Error> {
        let fields = layout.field_names();
        let mut said: BTreeMap<i64, Said> = BTreeMap::new();
        let lists = [(Only::Active, RowState::Active), (Only::Retired, RowState::Retired)];
        for (only, state) in lists {
            let missing = without(ids, &said);
            let client = self.client();
            let answer: Answer<RowText> = client
                .read_ids(&layout.entity_type, &missing, &layout.raw_filter, fields.clone(), only, purpose)
                .await?;
            // What was not asked for cannot be trusted to be an answer.
            let rows = self.heard(answer).rows.into_iter().filter(|row| missing.contains(&row.id));
            said.extend(rows.map(|row| (row.id, Said::Row(state, row.text))));
        }
        if !layout.filter.is_everything() {
            for (only, state) in lists {
                let missing = without(ids, &said);
                let (everything, client) = (RawFilter::everything(), self.client());
                // Not stored, but compared with what its entries announced.
                let answer: Answer<RowText> =
                    client.read_ids(&layout.entity_type, &missing, &everything, fields.clone(), only, purpose).await?;
                let rows = self.heard(answer).rows.into_iter().filter(|row| missing.contains(&row.id));
                said.extend(rows.map(|row| (row.id, Said::Filtered(state, row.text))));
            }
        }
        for id in ids {
            said.entry(*id).or_insert(Said::Absent);
        }
        Ok(said)
    }

    /// Finds out whether the keys, the type or the site make a read fail, by a read
    /// of the same form that can return nothing.
    async fn blame(&self, layout: &TypeLayout, marks: &[DirtyKey], error: &shotgun::Error) -> Result<Blame> {
        let refused = matches!(error.kind(), ErrorKind::Fault | ErrorKind::Rejected);
        let breaks = matches!(error.kind(), ErrorKind::Server | ErrorKind::Timeout | ErrorKind::Malformed);
        if !refused && !breaks {
            return Ok(Blame::Site);
        }
        if breaks && marks.iter().any(|mark| mark.attempts < 2) {
            self.put_off(marks, REFUSED_FOR).await?;
            return Ok(Blame::Site);
        }
        let (fields, filter) = (layout.field_names(), &layout.raw_filter);
        let client = self.client();
        let control: Result<Answer, _> =
            client.read_ids(&layout.entity_type, &[0], filter, fields, Only::Active, Purpose::Fetch).await;
        Ok(match control {
            Ok(_) => Blame::Key,
            Err(control) if matches!(control.kind(), ErrorKind::Fault | ErrorKind::Rejected) => {
                Blame::Type(control.detail().to_owned())
            }
            Err(_) => Blame::Site,
        })
    }

    pub(super) async fn put_off(&self, marks: &[DirtyKey], delay: Duration) -> Result<()> {
        let off = |mark: &DirtyKey| Postponed { key: mark.key.clone(), delay, add: DirtyReasons::default() };
        let postponed: Vec<_> = marks.iter().map(off).collect();
        Ok(self.state().postpone(&postponed, self.now()).await?)
    }

    /// Reads those of these keys that are dirty and due, at once and before all other work:
    /// the caller of a write waits for them. A key that is dirty no longer, or by no write
    /// any more, was read after it became so. Returns those that cannot be read yet, or were
    /// and are not stored: they wait for the pause of their reread, which is part of the
    /// evidence that the next read is newer.
    ///
    /// # Errors
    ///
    /// When the site or the store fails; the keys stay dirty.
    pub async fn refetch_now(&self, entity_type: &EntityType, ids: &[i64]) -> Result<BTreeSet<i64>> {
        let layout = self.tracked().layout(entity_type).cloned();
        let mut left = BTreeSet::new();
        for chunk in ids.chunks(self.client().page_size() as usize) {
            let now = self.now();
            let marks = self.state().marks_of(entity_type, chunk).await?;
            let (marks, paused): (Vec<_>, Vec<_>) = marks.into_iter().partition(|mark| mark.due_at <= now);
            left.extend(paused.iter().filter(|mark| mark.kinds.any(DirtyReasons::WRITE)).map(|mark| mark.key.id));
            let are_read = match &layout {
                _ if marks.is_empty() => true,
                Some(layout) if self.must_wait(layout).await?.is_some() => false,
                Some(layout) => self.fetch_part(layout, &marks, Purpose::Proxy).await?,
                None => self.fetch_names(entity_type, &marks).await? > 0,
            };
            if !are_read {
                let open = self.state().marks_of(entity_type, chunk).await?.into_iter();
                let waits = open.filter(|mark| mark.kinds.any(DirtyReasons::WRITE) || mark.due_at <= now);
                left.extend(waits.map(|mark| mark.key.id));
            }
        }
        Ok(left)
    }

    /// Reads keys again at once and writes them in any case, even when nothing
    /// seems to have changed: what validation and repair use.
    ///
    /// # Errors
    ///
    /// [`SyncError::NotTracked`] for a key of another type; the keys before it
    /// were read.
    pub async fn refetch(&self, keys: &[EntityRef]) -> Result<Vec<KeyChange>> {
        let mut changes = Vec::new();
        for (entity_type, ids) in ids_by_type(keys.iter().cloned()) {
            let layout = self.layout(&entity_type)?;
            let ids: Vec<i64> = ids.into_iter().collect();
            for chunk in ids.chunks(self.client().page_size() as usize) {
                let token = self.begin_read(&entity_type).await?;
                let findings = match self.read_surely(&layout, chunk, Purpose::Validate).await {
                    Ok(findings) => findings,
                    Err(error) => {
                        self.state().abandon(&token).await?;
                        return Err(error);
                    }
                };
                let read = Written { compared: true, ..Written::unmarked(&layout, token, findings) };
                changes.extend(self.write(read).await?);
            }
        }
        Ok(changes)
    }
}

fn by_type(marks: Vec<DirtyKey>) -> BTreeMap<EntityType, Vec<DirtyKey>> {
    let mut by_type: BTreeMap<EntityType, Vec<DirtyKey>> = BTreeMap::new();
    for mark in marks {
        by_type.entry(mark.key.entity_type.clone()).or_default().push(mark);
    }
    by_type
}

fn without(ids: &[i64], said: &BTreeMap<i64, Said>) -> Vec<i64> {
    ids.iter().copied().filter(|id| !said.contains_key(id)).collect()
}
