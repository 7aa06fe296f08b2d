//! Compares the store with what the state knows of it, without the site.
//!
//! The two are different files, or one is a cluster: an older copy may be put back,
//! a file removed, an index dropped, a bit flipped. What is found is quarantined and
//! read again from the site; a type that lacks much or everything is imported again
//! in place.
//!
//! At the start every type is compared by the sums of its buckets, and by the states of
//! its inactive rows, which decide which links are shown. A running scrub
//! repeats that, and verifies rows one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::{Replica, Result};
use crate::entity::{EntityRef, EntityType, RowState};
use crate::state::{DirtyReasons, NewDirtyKey, RowMeta, TypeState};
use crate::store::{BUCKET_SIZE, LinkTarget, ReadVersion, RowVersion, StoreErrorKind};

/// Where the verification of rows stands, under this name in the state.
const PLACE: &str = "verify";
/// Rows that are verified in one piece; readers wait for nothing meanwhile.
const PIECE: usize = 1_000;
/// What is wrong with a row that the state does not know.
const UNKNOWN: &str = "the store has it, and nothing is known of it";
const ANOTHER_STATE: &str = "the store has another state of it";
/// With more damaged rows than this, and than one in twenty, a type is imported
/// again.
const MOST_READ_ALONE: usize = 500;

/// What a check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Rows that were quarantined, to be read again.
    pub quarantined: u64,
    /// Types that are imported again.
    pub imported_again: Vec<EntityType>,
}

/// Rows that are compared together.
#[derive(Clone, Copy)]
enum Part {
    /// The active rows of a bucket.
    Bucket(i64),
    /// The rows that are retired, filtered or absent.
    Inactive,
}

/// A row that is not in the store as the state knows it.
#[derive(PartialEq, Eq)]
struct Differing {
    /// Its version in the state.
    known: Option<i64>,
    /// Its version in the store.
    stored: Option<i64>,
    reason: String,
}

impl Replica {
    /// Compares the files of the store with those that were opened, `whole` their
    /// structure too, then every type by the sums of its buckets.
    ///
    /// # Errors
    ///
    /// When the store or the state fails; what was found before stays.
    pub async fn check_store(&self, whole: bool) -> Result<Integrity> {
        self.compare_store(whole, true).await
    }

    /// Does the same before anything is written: dirty rows are compared, too, because one
    /// that is as the state knows it would not be written again.
    pub(super) async fn check_store_at_start(&self) -> Result<Integrity> {
        self.compare_store(true, false).await
    }

    async fn compare_store(&self, whole: bool, written: bool) -> Result<Integrity> {
        if let Err(error) = self.store().check(whole).await {
            if error.kind() != StoreErrorKind::Corrupt {
                return Err(error.into());
            }
            tracing::error!(%error, "the store begins anew, and everything is read again from the site");
            self.store().reset().await?;
        }
        let stored: BTreeSet<EntityType> = self.store().types().await?.into_iter().map(|one| one.entity_type).collect();
        let mut found = Integrity::default();
        for record in self.state().types().await? {
            let complete = matches!(record.state, TypeState::Live | TypeState::Degraded);
            // An import goes on where it was, over the rows that it has written so far, or
            // begins, over those of another history of the site.
            let interrupted = !written && matches!(record.state, TypeState::Importing | TypeState::Absent);
            if !(complete || interrupted) || !self.tracked().follows(&record.entity_type) {
                continue;
            }
            if !stored.contains(&record.entity_type) {
                tracing::error!(entity_type = %record.entity_type, "the store has lost the type: it is imported again");
                self.state().forget_rows(&record.entity_type).await?;
                self.step("types: forgotten")?;
                found.imported_again.push(record.entity_type);
                continue;
            }
            let mut differing = self.differing_rows(&record.entity_type, written).await?;
            let copied = record.import.as_ref().is_some_and(|import| import.confirm_poll.is_some());
            if interrupted && !copied {
                // The import meets the others, or quarantines them at its end.
                differing.retain(|_, reason| reason != UNKNOWN);
            }
            self.quarantine_rows(&record.entity_type, differing, &mut found).await?;
        }
        Ok(found)
    }

    /// Verifies the next rows, where the last call ended.
    ///
    /// # Errors
    ///
    /// As [`Replica::check_store`].
    pub async fn verify_rows(&self, rows: u64) -> Result<Integrity> {
        let mut found = Integrity::default();
        let types = self.live_types().await?;
        let (name, mut after): (String, i64) = self.state().cursor(PLACE).await?.unwrap_or_default();
        let mut index = types.iter().position(|ty| *ty.as_str() >= *name).unwrap_or(0);
        if types.get(index).is_none_or(|ty| *ty != *name) {
            after = 0;
        }
        let (mut left, mut ends) = (rows, 0);
        while let Some(entity_type) = types.get(index).filter(|_| left > 0 && ends <= types.len()) {
            let verified = self.store().verify(entity_type, after, PIECE).await?;
            left = left.saturating_sub(verified.rows);
            self.quarantine_rows(entity_type, verified.damaged.into_iter().collect(), &mut found).await?;
            match verified.last {
                Some(last) => after = last,
                None => (index, after, ends) = ((index + 1) % types.len(), 0, ends + 1),
            }
            self.state().keep(PLACE, &(types[index].as_str(), after)).await?;
        }
        Ok(found)
    }

    /// Returns the rows of a type that are not in the store as the state knows them,
    /// with what is wrong. While rows are `written` beside this, those are left out.
    async fn differing_rows(&self, entity_type: &EntityType, written: bool) -> Result<BTreeMap<i64, String>> {
        let stored = self.store().digest(entity_type).await?;
        let known = self.state().buckets(entity_type).await?;
        let stored: BTreeSet<_> = stored.iter().map(|one| (one.number, one.count, one.sum)).collect();
        let known: BTreeSet<_> = known.iter().map(|one| (one.bucket, one.count, one.sum.unsigned_abs())).collect();
        let buckets: BTreeSet<i64> = stored.symmetric_difference(&known).map(|(number, ..)| *number).collect();
        let parts = buckets.into_iter().map(Part::Bucket).chain([Part::Inactive]);
        let (mut differing, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for part in parts {
            let first = self.differing_in(entity_type, part).await?;
            if first.is_empty() {
                continue;
            }
            // A row is written to the store first and to the state afterwards: what a
            // write was about to make known is known at the second look, or is marked.
            let second = self.differing_in(entity_type, part).await?;
            versions.extend(first.iter().map(|(id, row)| (*id, row.stored)));
            let marked: BTreeSet<i64> = self.state().marked_ids(entity_type).await?.into_iter().collect();
            let (dirty, clean): (Vec<_>, Vec<_>) = first
                .into_iter()
                .filter(|(id, seen)| second.get(id) == Some(seen))
                .partition(|(id, _)| marked.contains(id));
            differing.extend(clean.into_iter().map(|(id, differing)| (id, differing.reason)));
            if !written {
                differing.extend(self.older_rows(entity_type, dirty).await?);
            }
        }
        versions.retain(|id, _| differing.contains_key(id));
        self.show_links(entity_type, versions).await?;
        Ok(differing)
    }

    /// Shows or hides the links to these entities as the state knows them: that a row is
    /// quarantined says nothing of the rows that link to it. The site shows no links to what
    /// is retired, so that those to an entity of which nothing is known are right as they were read.
    async fn show_links(&self, entity_type: &EntityType, stored: BTreeMap<i64, Option<i64>>) -> Result<()> {
        let ids: Vec<i64> = stored.keys().copied().collect();
        let known = self.state().rows(entity_type, &ids).await?;
        for (id, stored) in stored {
            let (state, rv) = match known.get(&id) {
                Some(known) => (known.state, known.rv),
                None => (RowState::Active, stored.unwrap_or_default()),
            };
            let key = EntityRef::new(entity_type.clone(), id);
            self.store().relink(&LinkTarget { key, name: None, state, rv: ReadVersion(rv) }).await?;
        }
        Ok(())
    }

    /// Returns those of the dirty rows at a start that are older in the store than the state
    /// knows. The others were written when the process ended, and the state does not know it:
    /// they are served as they are, and written again even if they are as it knows them.
    async fn older_rows(
        &self,
        entity_type: &EntityType,
        dirty: Vec<(i64, Differing)>,
    ) -> Result<impl Iterator<Item = (i64, String)>> {
        let (newer, older): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|(_, row)| row.stored > row.known);
        let repair =
            |(id, _): &(i64, _)| NewDirtyKey::new(EntityRef::new(entity_type.clone(), *id), DirtyReasons::REPAIR);
        self.state().mark(&newer.iter().map(repair).collect::<Vec<_>>(), self.now()).await?;
        Ok(older.into_iter().map(|(id, row)| (id, row.reason)))
    }

    /// Returns the rows of a part that differ.
    async fn differing_in(&self, entity_type: &EntityType, part: Part) -> Result<BTreeMap<i64, Differing>> {
        let bucket = match part {
            Part::Bucket(bucket) => bucket,
            Part::Inactive => return self.differing_inactive(entity_type).await,
        };
        let (first, last) = (bucket * BUCKET_SIZE, bucket * BUCKET_SIZE + BUCKET_SIZE - 1);
        let known = self.state().bucket_rows(entity_type, bucket).await?;
        let stored = self.store().scan(entity_type, first - 1, BUCKET_SIZE as usize).await?;
        let stored: BTreeMap<i64, RowVersion> =
            stored.into_iter().filter(|row| row.id <= last).map(|row| (row.id, row)).collect();
        let ids: BTreeSet<i64> = known.keys().chain(stored.keys()).copied().collect();
        // An older store has rows as active that are known as filtered, retired or absent now.
        let inactive: Vec<i64> = stored.keys().filter(|id| !known.contains_key(id)).copied().collect();
        let inactive = self.state().rows(entity_type, &inactive).await?;
        let differs = |id: i64| {
            let reason = match difference(known.get(&id), stored.get(&id))? {
                UNKNOWN if inactive.contains_key(&id) => ANOTHER_STATE,
                reason => reason,
            };
            let known = known.get(&id).or_else(|| inactive.get(&id)).map(|row| row.rv);
            let stored = stored.get(&id).map(|row| row.rv.0);
            Some((id, Differing { known, stored, reason: reason.to_owned() }))
        };
        Ok(ids.into_iter().filter_map(differs).collect())
    }

    /// Returns the rows that are inactive in both, and differ, or retired or absent in the
    /// store and not known. What only the state has does no harm: the store may forget
    /// tombstones earlier.
    async fn differing_inactive(&self, entity_type: &EntityType) -> Result<BTreeMap<i64, Differing>> {
        let (mut differing, mut after) = (BTreeMap::new(), 0);
        loop {
            let stored = self.store().scan_inactive(entity_type, after, PIECE).await?;
            let Some(last) = stored.last() else { return Ok(differing) };
            after = last.id;
            let ids: Vec<i64> = stored.iter().map(|row| row.id).collect();
            let known = self.state().rows(entity_type, &ids).await?;
            for row in stored {
                let known = known.get(&row.id);
                if let Some(reason) = inactive_difference(known, &row) {
                    let known = known.map(|known| known.rv);
                    differing.insert(row.id, Differing { known, stored: Some(row.rv.0), reason: reason.to_owned() });
                }
            }
        }
    }

    async fn quarantine_rows(
        &self,
        entity_type: &EntityType,
        rows: BTreeMap<i64, String>,
        found: &mut Integrity,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let active = usize::try_from(self.state().active_count(entity_type).await?).unwrap_or(usize::MAX);
        if rows.len() > MOST_READ_ALONE.max(active / 20) {
            let reason = format!("{} of its stored rows are not as they were written", rows.len());
            return self.import_again(entity_type, &reason, found).await;
        }
        found.quarantined += self.quarantine_stored(entity_type, rows).await?;
        Ok(())
    }

    /// Quarantines what is in the store and was not written by the import that ends here,
    /// as after the state was lost: no answer shows it until the site was asked for it.
    pub(super) async fn quarantine_leftovers(&self, entity_type: &EntityType) -> Result<u64> {
        let leftovers = self.differing_rows(entity_type, true).await?;
        self.quarantine_stored(entity_type, leftovers).await
    }

    async fn quarantine_stored(&self, entity_type: &EntityType, rows: BTreeMap<i64, String>) -> Result<u64> {
        if rows.is_empty() {
            return Ok(0);
        }
        let key = |(id, reason)| (EntityRef::new(entity_type.clone(), id), reason);
        let rows: Vec<_> = rows.into_iter().map(key).collect();
        let fresh = self.state().quarantine_stored(&rows, self.now()).await?;
        if let Some(first) = fresh.first() {
            let reason = rows.iter().find(|(key, _)| key == first).map(|(_, reason)| reason.as_str());
            tracing::error!(%entity_type, rows = fresh.len(), %first, reason, "damaged rows were quarantined");
        }
        self.metrics().sync.damaged.add(&[entity_type.as_str()], fresh.len() as u64);
        Ok(fresh.len() as u64)
    }

    /// Has a type imported again: it is not served until that is complete.
    async fn import_again(&self, entity_type: &EntityType, reason: &str, found: &mut Integrity) -> Result<()> {
        tracing::error!(%entity_type, reason, "the type is imported again");
        self.state().set_type_state(entity_type, TypeState::Absent).await?;
        found.imported_again.push(entity_type.clone());
        Ok(())
    }
}

/// Returns why an active row in the store is not the one that is known; `None` when
/// it is, and for rows that neither side has as active.
fn difference(known: Option<&RowMeta>, stored: Option<&RowVersion>) -> Option<&'static str> {
    let stored = stored.filter(|row| row.state == RowState::Active);
    match (known, stored) {
        (Some(_), None) => Some("the store has lost it"),
        (None, Some(_)) => Some(UNKNOWN),
        (Some(known), Some(stored)) if known.hash != stored.hash => Some("the store has another version of it"),
        _ => None,
    }
}

/// Returns why an inactive row in the store is not the one that is known.
fn inactive_difference(known: Option<&RowMeta>, stored: &RowVersion) -> Option<&'static str> {
    let Some(known) = known else { return Some(UNKNOWN).filter(|_| stored.state.is_dead()) };
    let same = known.state == stored.state && (!stored.state.has_document() || known.hash == stored.hash);
    // The sums of active rows tell of the others.
    Some(ANOTHER_STATE).filter(|_| known.state != RowState::Active && !same)
}
