//! Brings what a read showed into the store: the one way by which rows change.
//!
//! Order matters: rows first, then names in links, then one transaction that
//! makes it known and clears the marks. A crash in between leaves the marks, the
//! read is repeated, and its version makes the repetition harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::absence::{Evidence, Findings, Verdict, is_doubtful, is_retired_by_event, judge};
use super::key_change::{KeyChange, changes};
use super::name_hash::hash_of_name;
use super::reads_in_flight::ReadInFlight;
use super::recheck::{Proof, Shown, expected_targets};
use super::{Replica, Result, SyncError};
use crate::entity::{EntityRef, EntityType, EventId, Timestamp};
use crate::entity_config::TypeLayout;
use crate::shotgun::Purpose;
use crate::state::{
    Announcement, AsOf, DeadKind, DirtyKey, DirtyReasons, Expected, ExpectedField, Finish, NewDirtyKey, Postponed,
    RowDone,
};
use crate::state::{RowMeta, RowOutcome, SegmentStep};
use crate::store::{FetchedRow, LinkTarget, PutOutcome, ReadVersion, RowError, RowState, StoreErrorKind};

/// How many rows that link to a retired or revived entity are read again; with
/// more of them their types are compared as a whole.
pub(super) const REFERRERS_LIMIT: usize = 5_000;
/// How long a row waits that the store refused for a newer one which nobody knows.
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);
/// How long a held deletion waits before it is looked at again.
const HELD_FOR: Duration = Duration::from_secs(60);

/// What the site said of a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The row, from the list of active or of retired ones.
    Row(RowState, Box<str>),
    /// It is in the list of active or of retired ones, but the filter of the entity
    /// config leaves it out.
    Filtered(RowState, Box<str>),
    /// It is in no list.
    Absent,
}

/// One read and what it showed.
pub(super) struct Written<'a> {
    pub(super) layout: &'a TypeLayout,
    pub(super) token: ReadInFlight,
    pub(super) said: Vec<(i64, Said)>,
    /// The marks that led to the read; those of the keys that it covers take their
    /// place.
    pub(super) marks: &'a [DirtyKey],
    /// Whether rows that are known to be stored already may stay unwritten.
    pub(super) suppress: bool,
    /// Whether the answers that lack rows showed others.
    pub(super) whole: bool,
    /// Whether a comparison found the same before.
    pub(super) compared: bool,
    /// What it is for; what it leads to is asked with the same priority.
    pub(super) purpose: Purpose,
    /// The step of an import.
    pub(super) segment: Option<SegmentStep>,
}

impl<'a> Written<'a> {
    /// Makes the record of a read that no mark led to.
    pub(super) fn unmarked(layout: &'a TypeLayout, token: ReadInFlight, findings: Findings) -> Self {
        let Findings { said, whole } = findings;
        let said = said.into_iter().collect();
        Self {
            layout,
            token,
            said,
            marks: &[],
            suppress: false,
            whole,
            compared: false,
            purpose: Purpose::Fetch,
            segment: None,
        }
    }
}

/// The rows of a read on their way, sorted by what happens to them.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) rows: Vec<FetchedRow>,
    put: Vec<usize>,
    unchanged: BTreeSet<i64>,
    held: Vec<i64>,
    pub(super) suspected: BTreeMap<i64, Duration>,
    pub(super) refused: BTreeMap<i64, (DeadKind, String)>,
    /// What the rows prove, for keys of which something was announced.
    proofs: BTreeMap<i64, Proof>,
    /// Rows that may be older than what the store has: they are not written.
    pub(super) older: BTreeSet<i64>,
}

impl Replica {
    /// Writes the rows of a read and ends it.
    ///
    /// # Errors
    ///
    /// Marks stay as they are; the read may be repeated.
    pub(super) async fn write(&self, read: Written<'_>) -> Result<Vec<KeyChange>> {
        let ids: Vec<i64> = read.said.iter().map(|(id, _)| *id).collect();
        let known = self.state().rows(&read.token.entity_type, &ids).await?;
        // Also of an import or a repair: what they show clears marks, too. A mark that is
        // newer than the read stays and is not compared.
        let mut marks = self.state().marks_of(&read.token.entity_type, &ids).await?;
        marks.retain(|mark| mark.generation <= read.token.generation);
        let read = Written { marks: &marks, ..read };
        let mut sorted = self.sort(&read, &known).await?;
        self.step("write: before the store")?;
        let _in_progress = self.writes_in_progress().begin(&read.token, sorted.rows.iter().map(|row| row.key().id));
        let outcomes = self.put(&sorted).await?;
        self.step("write: stored")?;
        for (index, outcome) in sorted.put.iter().zip(&outcomes) {
            if let PutOutcome::Refused(reason) = outcome {
                sorted.refused.insert(sorted.rows[*index].key().id, (DeadKind::Write, reason.clone()));
            }
        }
        let stale: BTreeSet<i64> = sorted
            .put
            .iter()
            .zip(&outcomes)
            .filter(|(_, o)| **o == PutOutcome::Stale)
            .map(|(index, _)| sorted.rows[*index].key().id)
            .collect();
        let superseded = self.writes_in_progress().superseded(self.state(), &read.token, &stale).await?;
        let mut finish = Finish { segment: read.segment, ..Finish::new((*read.token).clone(), self.now()) };
        self.follow_links(&read, &sorted, &known, &stale, &mut finish).await?;
        self.follow_dependencies(&read, &sorted, &known, &mut finish).await?;
        for mark in read.marks.iter().filter(|mark| sorted.refused.contains_key(&mark.key.id)) {
            self.follow_quarantined(mark, &mut finish).await?;
        }
        self.step("write: links follow")?;
        self.conclude(&read, &mut sorted, (&stale, &superseded), &mut finish);
        let rechecked = finish.marks.iter().filter(|mark| mark.kinds.any(DirtyReasons::UNPROVEN));
        let rechecked: BTreeSet<i64> = rechecked.map(|mark| mark.key.id).collect();
        let finished = self.finish(finish).await?;
        self.step("write: finished")?;
        let changes = changes(&read, &sorted, &stale, known);
        self.measure(&read, &changes, &finished, &rechecked);
        self.watch_breaker(&read.token.entity_type, &sorted).await?;
        Ok(changes)
    }

    /// Makes rows of the answers and decides which of them are written.
    async fn sort(&self, read: &Written<'_>, known: &BTreeMap<i64, RowMeta>) -> Result<Sorted> {
        let mut sorted = self.judge_absences(read, known).await?;
        let events: BTreeMap<i64, _> = read.marks.iter().map(|mark| (mark.key.id, mark.last_event)).collect();
        let fetched_at = self.now().timestamp();
        let rv = ReadVersion(read.token.rv);
        for (id, said) in &read.said {
            if sorted.held.contains(id) || sorted.suspected.contains_key(id) {
                continue;
            }
            let key = EntityRef::new(read.token.entity_type.clone(), *id);
            let event = events.get(id).copied().flatten();
            let row = match said {
                Said::Row(state, row) => FetchedRow::from_text(read.layout, key, rv, *state, row, fetched_at, event),
                said if said.state() == RowState::Filtered => Ok(FetchedRow::filtered(key, rv, fetched_at, event)),
                Said::Filtered(..) | Said::Absent => Ok(FetchedRow::absent(key, rv, fetched_at, event)),
            };
            match row {
                Ok(row) => sorted.rows.push(row),
                Err(RowError::MissingField { key, field }) => return self.refuse_answer(read, &key, &field).await,
                Err(error @ (RowError::OtherEntity { .. } | RowError::Unreadable { .. })) => {
                    sorted.refused.insert(*id, (DeadKind::Row, error.to_string()));
                }
            }
        }
        self.compare_expected(read, known, &mut sorted).await?;
        self.suppress(read, &mut sorted).await?;
        Ok(sorted)
    }

    /// Compares the rows with what was announced, and takes out those that may be older.
    async fn compare_expected(
        &self,
        read: &Written<'_>,
        known: &BTreeMap<i64, RowMeta>,
        sorted: &mut Sorted,
    ) -> Result<()> {
        let marks: BTreeMap<i64, &DirtyKey> = read.marks.iter().map(|mark| (mark.key.id, mark)).collect();
        let said: BTreeMap<i64, &Said> = read.said.iter().map(|(id, said)| (*id, said)).collect();
        let targets: Vec<_> = marks.values().flat_map(|mark| expected_targets(&mark.expected)).collect();
        let gone = self.gone_targets(targets).await?;
        let types = |name: &str| read.layout.field(name).map(|field| field.data_type);
        let now = self.now();
        let (mut proofs, mut older, mut unreadable) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        for row in &sorted.rows {
            let id = row.key().id;
            let filtered = match said.get(&id) {
                Some(Said::Filtered(state, text)) => match serde_json::from_str(text) {
                    Ok(row) => Some((*state, row)),
                    // Nothing could be compared with it.
                    Err(error) => {
                        unreadable.insert(id, (DeadKind::Row, format!("{}: {error}", row.key())));
                        continue;
                    }
                },
                _ => None,
            };
            let (state, doc) = match &filtered {
                Some((state, row)) => (*state, Some(row)),
                None => (row.state(), Some(row.doc()).filter(|_| row.state().has_document())),
            };
            let stamp =
                |row: &serde_json::Map<_, _>| row.get("updated_at").and_then(Value::as_str).and_then(Timestamp::parse);
            let shown = Shown { state, row: doc, updated_at: doc.and_then(stamp), before: known.get(&id), now };
            let announced = marks.get(&id).map(|mark| &mark.expected).filter(|expected| !expected.fields.is_empty());
            let proof = match announced {
                Some(expected) => shown.prove(expected, &types, &gone),
                // An import may follow on a site that was restored from a backup.
                None if read.segment.is_some() => continue,
                None => shown.prove(&shown.not_older(), &types, &gone),
            };
            self.unprovable().learn(&read.layout.entity_type, &proof);
            // What the store has of a damaged row is no better.
            let damaged = marks.get(&id).is_some_and(|mark| mark.kinds.any(DirtyReasons::REPAIR));
            if !damaged && shown.keeps_stored(&proof) {
                older.insert(id);
            }
            proofs.insert(id, proof);
        }
        sorted.rows.retain(|row| !older.contains(&row.key().id) && !unreadable.contains_key(&row.key().id));
        sorted.refused.append(&mut unreadable);
        (sorted.proofs, sorted.older) = (proofs, older);
        Ok(())
    }

    /// Returns the entities of these that are known to be retired or absent: the site
    /// shows no links to them.
    pub(super) async fn gone_targets(&self, targets: Vec<EntityRef>) -> Result<BTreeSet<EntityRef>> {
        let mut by_type: BTreeMap<EntityType, Vec<i64>> = BTreeMap::new();
        for target in targets {
            by_type.entry(target.entity_type).or_default().push(target.id);
        }
        let mut gone = BTreeSet::new();
        for (entity_type, ids) in by_type {
            let known = self.state().rows(&entity_type, &ids).await?;
            let dead = known.iter().filter(|(_, meta)| meta.state.is_dead());
            gone.extend(dead.map(|(id, _)| EntityRef::new(entity_type.clone(), *id)));
        }
        Ok(gone)
    }

    /// A key that was asked for is missing in the answer: a field was deleted or
    /// hidden. As null it would empty a whole column, so nothing is written.
    async fn refuse_answer<T>(&self, read: &Written<'_>, key: &EntityRef, field: &str) -> Result<T> {
        self.hide(key, field);
        self.state().request_schema().await?;
        self.state().abandon(&read.token).await?;
        let message = format!("the site left `{field}` out of {key}");
        Err(SyncError::Schema { entity_type: key.entity_type.clone(), message })
    }

    /// Sorts out the rows that the read did not find: those whose absence is not believed
    /// yet, and known ones that would vanish although too many do.
    async fn judge_absences(&self, read: &Written<'_>, known: &BTreeMap<i64, RowMeta>) -> Result<Sorted> {
        let entity_type = &read.token.entity_type;
        let doubtful = read.said.iter().filter(|(id, said)| is_doubtful(said, known.get(id)));
        let doubtful: BTreeMap<i64, &Said> = doubtful.map(|(id, said)| (*id, said)).collect();
        let mut sorted = Sorted::default();
        if doubtful.is_empty() {
            return Ok(sorted);
        }
        let ids: Vec<i64> = doubtful.keys().copied().collect();
        let before = self.state().suspected_absences(entity_type, &ids).await?;
        let mut vanishing = Vec::new();
        for (id, said) in doubtful {
            let mark = read.marks.iter().find(|mark| mark.key.id == id);
            let evidence = Evidence {
                whole: read.whole,
                filtered: matches!(said, Said::Filtered(..)),
                unknown: !known.contains_key(&id),
                announced: mark.is_some_and(|mark| !mark.expected.fields.is_empty()),
                retired_by_event: is_retired_by_event(mark),
                compared: read.compared,
                before: before.get(&id).copied(),
            };
            match judge(&evidence) {
                Verdict::Suspected(pause) => {
                    sorted.suspected.insert(id, pause);
                }
                Verdict::Believed => {
                    let was_active = known.get(&id).is_some_and(|meta| meta.state == RowState::Active);
                    vanishing.extend(Some(id).filter(|_| was_active && *said == Said::Absent));
                }
            }
        }
        if self.may_not_vanish(entity_type, vanishing.len()).await? {
            sorted.held = vanishing;
        }
        Ok(sorted)
    }

    /// Tells whether as many active rows may not vanish, because too many do.
    async fn may_not_vanish(&self, entity_type: &EntityType, count: usize) -> Result<bool> {
        if count == 0 {
            return Ok(false);
        }
        let open = self.state().type_record(entity_type).await?.is_some_and(|record| record.breaker_since.is_some());
        Ok(open || !self.state().may_vanish(entity_type, count as u64, self.now()).await?)
    }

    /// Leaves out the rows that the store has already, where that is safe.
    async fn suppress(&self, read: &Written<'_>, sorted: &mut Sorted) -> Result<()> {
        let ids: Vec<i64> = sorted.rows.iter().map(|row| row.key().id).collect();
        let safe = if read.suppress { self.state().may_suppress(&read.token, &ids).await? } else { BTreeMap::new() };
        // In a shared store a write of an earlier leader may still arrive, and would win over
        // a row that only the present one knows to be unchanged.
        let epoch = self.lease().map(|_| ReadVersion(read.token.rv).epoch());
        let is_own = |meta: &RowMeta| epoch.is_none_or(|epoch| ReadVersion(meta.rv).epoch() == epoch);
        // A revived row may be the same as before its retirement, which no read has to have
        // seen, while rows that link to it were read meanwhile and lost the link.
        let revived: BTreeSet<i64> =
            read.marks.iter().filter(|mark| mark.was_revived()).map(|mark| mark.key.id).collect();
        for (index, row) in sorted.rows.iter().enumerate() {
            let id = row.key().id;
            let same =
                |meta: &RowMeta| meta.hash == row.hash() && meta.state == row.state() && meta.name == name_hash(row);
            if safe.get(&id).is_some_and(|meta| is_own(meta) && same(meta)) && !revived.contains(&id) {
                sorted.unchanged.insert(id);
            } else {
                sorted.put.push(index);
            }
        }
        Ok(())
    }

    async fn put(&self, sorted: &Sorted) -> Result<Vec<PutOutcome>> {
        if sorted.put.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<FetchedRow> = sorted.put.iter().map(|index| sorted.rows[*index].clone()).collect();
        let started = Instant::now();
        let outcomes = self.store().put(&rows).await?;
        self.note_activity(|activity| activity.stored.add(started.elapsed()));
        Ok(outcomes)
    }

    /// Brings a new name or state of an entity into the links to it, and marks the
    /// rows that show or hide such a link.
    async fn follow_links(
        &self,
        read: &Written<'_>,
        sorted: &Sorted,
        known: &BTreeMap<i64, RowMeta>,
        stale: &BTreeSet<i64>,
        finish: &mut Finish,
    ) -> Result<()> {
        // What an import brings was retired before anything that links to it was read.
        let importing = read.segment.is_some();
        let mut revived = Vec::new();
        for index in &sorted.put {
            let row = &sorted.rows[*index];
            let id = row.key().id;
            if stale.contains(&id) || sorted.refused.contains_key(&id) {
                continue;
            }
            let before = known.get(&id);
            let was_dead = before.is_some_and(|meta| meta.state.is_dead());
            let turned = before.is_some() && was_dead != row.state().is_dead();
            let renamed = before.is_some_and(|meta| meta.name != name_hash(row)) && row.state().has_document();
            let mark = read.marks.iter().find(|mark| mark.key == *row.key());
            // What the store has of it is not what the state knows, in links to it neither.
            let damaged = mark.is_some_and(|mark| mark.kinds.any(DirtyReasons::REPAIR));
            if turned || renamed || damaged || (before.is_none() && row.state().is_dead() && !importing) {
                let name = row.display_name().map(str::to_owned);
                let target = LinkTarget { key: row.key().clone(), name, state: row.state(), rv: row.rv() };
                self.store().relink(&target).await?;
            }
            let since = mark.map(|mark| mark.since);
            if turned && row.state().is_dead() {
                self.mark_referrers(row.key(), since, DirtyReasons::INVERSE, finish).await?;
            } else if has_come_back(before, row, read.marks) {
                revived.push((row.key().clone(), since));
            }
        }
        self.mark_revived_links(&revived, read.purpose, finish).await
    }

    /// Marks the rows whose derived fields follow from what was read: from rows that
    /// changed, and from those of events, because what they follow from need not be
    /// cached. What an import brings was there before what is derived from it.
    async fn follow_dependencies(
        &self,
        read: &Written<'_>,
        sorted: &Sorted,
        known: &BTreeMap<i64, RowMeta>,
        finish: &mut Finish,
    ) -> Result<()> {
        if read.segment.is_some() {
            return Ok(());
        }
        let is_new = |row: &&FetchedRow| {
            let before = known.get(&row.key().id);
            before.is_none_or(|meta| meta.hash != row.hash() || meta.state != row.state())
        };
        let changed = sorted.put.iter().map(|index| &sorted.rows[*index]).filter(is_new).map(|row| row.key().id);
        let told = read.marks.iter().filter(|mark| mark.kinds.any(DirtyReasons::FROM_EVENT)).map(|mark| mark.key.id);
        let ids: BTreeSet<i64> = changed.chain(told).collect();
        let first = finish.marks.len();
        self.mark_dependents(&read.token.entity_type, &Vec::from_iter(ids), finish).await?;
        let since = read.marks.iter().map(|mark| mark.since).reduce(AsOf::min);
        finish.marks[first..].iter_mut().for_each(|mark| mark.since = since);
        Ok(())
    }

    /// Marks the rows that link to an entity which was retired, for these reasons; `since`
    /// is that of the mark of the entity.
    pub(super) async fn mark_referrers(
        &self,
        target: &EntityRef,
        since: Option<AsOf>,
        kinds: DirtyReasons,
        finish: &mut Finish,
    ) -> Result<()> {
        let tracked = self.tracked();
        let found = match self.store().referrers(target, REFERRERS_LIMIT).await {
            Ok(found) => found,
            // Reads hide dead links in any case; this is about their stored form.
            Err(error) if error.kind() == StoreErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if found.more {
            let holders = tracked.layouts().map(|layout| &layout.entity_type);
            let holders = holders.filter(|holder| tracked.may_link(holder, &target.entity_type));
            finish.sweeps.extend(holders.map(|holder| (holder.clone(), since)));
        }
        let followed = found.keys.into_iter().filter(|key| tracked.follows(&key.entity_type));
        let mut expected = Expected::default();
        let no_link = ExpectedField::new((0, EventId(0)), Announcement::NoLinkTo(target.clone()));
        expected.announce(&target.to_string(), ExpectedField { own: false, ..no_link });
        let mark = |key| NewDirtyKey { expected: expected.clone(), since, ..NewDirtyKey::new(key, kinds) };
        finish.marks.extend(followed.map(mark));
        Ok(())
    }

    /// Fills in what the final transaction has to know.
    fn conclude(
        &self,
        read: &Written<'_>,
        sorted: &mut Sorted,
        (stale, superseded): (&BTreeSet<i64>, &BTreeSet<i64>),
        finish: &mut Finish,
    ) {
        let marks: BTreeMap<i64, &DirtyKey> = read.marks.iter().map(|mark| (mark.key.id, mark)).collect();
        for row in &sorted.rows {
            let id = row.key().id;
            // What a newer read of this process wrote is concluded by that one.
            if sorted.refused.contains_key(&id) || superseded.contains(&id) {
                continue;
            }
            finish.rows.push(RowDone {
                id,
                outcome: match () {
                    () if stale.contains(&id) => RowOutcome::Stale,
                    () if sorted.unchanged.contains(&id) => RowOutcome::Unchanged,
                    () => RowOutcome::Written,
                },
                state: row.state(),
                updated_at: row.updated_at(),
                hash: row.hash(),
                name: name_hash(row),
            });
        }
        let nothing = Expected::default();
        for (id, proof) in std::mem::take(&mut sorted.proofs) {
            if sorted.refused.contains_key(&id) || superseded.contains(&id) {
                continue;
            }
            self.metrics().sync.recheck_unresolved.inc_by(proof.given_up as u64);
            let key = EntityRef::new(read.token.entity_type.clone(), id);
            let mark = marks.get(&id).copied();
            let expected = mark.map_or(&nothing, |mark| &mark.expected);
            let mut again = self.unprovable().reread(&key, mark, expected, proof);
            // A write is not in the cache before a read that began after it is.
            if let Some(again) = again.as_mut().filter(|_| sorted.older.contains(&id) && mark.is_some_and(is_written)) {
                again.kinds |= DirtyReasons::WRITE;
            }
            finish.marks.extend(again);
        }
        finish.seen.extend(&sorted.older);
        // The store has a row that nobody here has read: written by another process, or
        // forgotten by the state. To take the refusal for success would keep it for good.
        for id in stale.difference(superseded) {
            let key = EntityRef::new(read.token.entity_type.clone(), *id);
            finish
                .marks
                .push(NewDirtyKey { delay: CONFLICT_PAUSE, ..NewDirtyKey::new(key.clone(), DirtyReasons::REPAIR) });
            finish.postponed.push(Postponed { key, delay: CONFLICT_PAUSE, add: DirtyReasons::default() });
            self.metrics().sync.version_conflicts.inc();
        }
        for id in &sorted.held {
            let key = EntityRef::new(read.token.entity_type.clone(), *id);
            finish
                .marks
                .push(NewDirtyKey { delay: HELD_FOR, ..NewDirtyKey::new(key.clone(), DirtyReasons::DELETION_STOPPED) });
            finish.postponed.push(Postponed { key, delay: HELD_FOR, add: DirtyReasons::DELETION_STOPPED });
        }
        for (id, delay) in &sorted.suspected {
            finish.suspected.push(*id);
            finish.marks.push(look_for_again(&read.token.entity_type, *id, *delay, marks.get(id).copied()));
        }
        for (id, (kind, reason)) in &sorted.refused {
            let key = EntityRef::new(read.token.entity_type.clone(), *id);
            let payload =
                read.said.iter().find(|(said, _)| said == id).map(|(_, said)| payload(said)).unwrap_or_default();
            let attempts = marks.get(id).map_or(0, |mark| mark.attempts);
            finish.quarantine(key, *kind, payload, reason.clone(), attempts);
        }
    }

    /// Opens the deletion circuit breaker of a type when too many rows vanish or
    /// are about to, and closes it when the rows are back.
    async fn watch_breaker(&self, entity_type: &EntityType, sorted: &Sorted) -> Result<()> {
        let (state, now) = (self.state(), self.now());
        let open = state.type_record(entity_type).await?.is_some_and(|record| record.breaker_since.is_some());
        let suspected = !sorted.suspected.is_empty();
        if !sorted.held.is_empty() || suspected && !state.is_within_deletion_limit(entity_type, now).await? {
            if state.open_breaker(entity_type, now).await? {
                let rows = sorted.held.len() + sorted.suspected.len();
                tracing::error!(%entity_type, rows, "deletion circuit breaker opened: `sgcache breaker show` lists the rows");
            }
        } else if open && state.close_breaker(entity_type, now).await? {
            tracing::info!(%entity_type, "deletion circuit breaker closed: the rows are back");
        }
        Ok(())
    }
}

/// Tells whether a row was retired before and is not now: as it was known, as an event says
/// although no read ever saw it retired, or, for one that is not known at all, because
/// no creation explains it. Rows that were read meanwhile have lost their links to it.
fn has_come_back(before: Option<&RowMeta>, row: &FetchedRow, marks: &[DirtyKey]) -> bool {
    // Links to a row that its own filter hides are shown.
    if row.state().is_dead() {
        return false;
    }
    let mark = marks.iter().find(|mark| mark.key == *row.key());
    match before {
        Some(meta) => meta.state == RowState::Retired || mark.is_some_and(DirtyKey::was_revived),
        None => mark.is_some_and(|mark| !mark.kinds.any(DirtyReasons::NEW) || mark.was_revived()),
    }
}

fn is_written(mark: &DirtyKey) -> bool {
    mark.kinds.any(DirtyReasons::WRITE)
}

/// Asks for the next read of a row that was not found. Only that it was to be
/// written in any case, that a write is pending, and what its events announced, is
/// kept of the reasons.
fn look_for_again(entity_type: &EntityType, id: i64, delay: Duration, mark: Option<&DirtyKey>) -> NewDirtyKey {
    let repair = mark.is_some_and(|mark| mark.kinds.any(DirtyReasons::REPAIR));
    let mut kinds = if repair { DirtyReasons::SCAN | DirtyReasons::REPAIR } else { DirtyReasons::SCAN };
    if mark.is_some_and(|mark| !mark.expected.fields.is_empty()) {
        kinds |= DirtyReasons::UNPROVEN;
    }
    if mark.is_some_and(is_written) {
        kinds |= DirtyReasons::WRITE;
    }
    NewDirtyKey {
        delay,
        events: mark.and_then(|mark| mark.last_event).map(|event| (event, event)),
        expected: mark.map(|mark| mark.expected.clone()).unwrap_or_default(),
        since: mark.map(|mark| mark.since),
        ..NewDirtyKey::new(EntityRef::new(entity_type.clone(), id), kinds)
    }
}

fn payload(said: &Said) -> String {
    match said {
        Said::Row(_, row) => row.to_string(),
        Said::Filtered(..) | Said::Absent => String::new(),
    }
}

fn name_hash(row: &FetchedRow) -> u32 {
    hash_of_name(row.display_name())
}
