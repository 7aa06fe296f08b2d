//! Compares whole rows, a few at a time, until everything had its turn: what the
//! site shows, what sync remembers, and what the store really holds.
//!
//! It finds what nothing else does: a value that changed while `updated_at` did
//! not, and a stored row that is no longer the one that was written. Like a scan
//! it only marks keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Replica, Result};
use crate::api3::Read;
use crate::entity::{EntityRef, EntityType, RowHash};
use crate::entity_config::TypeLayout;
use crate::shotgun::{Answer, Purpose};
use crate::state::{DirtyReasons, NewDirtyKey, TypeState};
use crate::store::get_undamaged;

/// Where the scrub stands, under this name in the state.
const PLACE: &str = "scrub";

/// What a scrub found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Rows that were compared.
    pub rows: u64,
    /// Rows that are not as on the site, or on one side only.
    pub silent: u64,
    /// Stored rows that are not what sync had written.
    pub damaged: u64,
}

impl Replica {
    /// Compares the next rows, as many as the settings say.
    ///
    /// # Errors
    ///
    /// As [`Replica::scrub_rows`].
    pub async fn scrub(&self) -> Result<Scrubbed> {
        self.scrub_rows(u64::from(self.settings().scrub_rows)).await
    }

    /// Compares the next `rows` rows, where the last call ended, and marks what differs.
    ///
    /// # Errors
    ///
    /// What was marked stays; the next call begins at the same place.
    pub async fn scrub_rows(&self, rows: u64) -> Result<Scrubbed> {
        let mut scrubbed = Scrubbed::default();
        let types: Vec<EntityType> = self.live_types().await?;
        let (name, mut after): (String, i64) = self.state().cursor(PLACE).await?.unwrap_or_default();
        let mut index = types.iter().position(|ty| *ty.as_str() >= *name).unwrap_or(0);
        if types.get(index).is_none_or(|ty| *ty != *name) {
            after = 0;
        }
        // Each type once: the one that it began within has a beginning that comes last.
        let turns = types.len() + usize::from(after > 0);
        for _ in 0..turns {
            let wanted = rows.saturating_sub(scrubbed.rows);
            let Some(entity_type) = types.get(index).filter(|_| wanted > 0) else { break };
            let end = self.scrub_type(entity_type, after, wanted, &mut scrubbed).await?;
            if end.is_none() {
                index = (index + 1) % types.len();
            }
            after = end.unwrap_or(0);
            self.state().keep(PLACE, &(types[index].as_str(), after)).await?;
        }
        Ok(scrubbed)
    }

    /// Returns the types whose rows follow the site in their present layout.
    ///
    /// # Errors
    ///
    /// When the state cannot be read.
    pub async fn live_types(&self) -> Result<Vec<EntityType>> {
        let records = self.state().types().await?;
        let live = |layout: &&Arc<TypeLayout>| {
            let record = records.iter().find(|record| record.entity_type == layout.entity_type);
            record.is_some_and(|record| record.state == TypeState::Live && record.layout_hash == layout.hash)
        };
        Ok(self.tracked().layouts().filter(live).map(|layout| layout.entity_type.clone()).collect())
    }

    /// Compares at least `wanted` rows above an id, if there are as many; returns
    /// the last id, `None` at the end of the type.
    async fn scrub_type(
        &self,
        entity_type: &EntityType,
        mut after: i64,
        wanted: u64,
        scrubbed: &mut Scrubbed,
    ) -> Result<Option<i64>> {
        let layout = self.layout(entity_type)?;
        let enough = scrubbed.rows + wanted;
        let size = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.client().page_size());
        let read = Read::new(entity_type.clone(), layout.raw_filter.clone(), size).fields(layout.field_names());
        loop {
            let generation = self.state().generation().await?;
            let page: Answer = self.page_after(&read, after, Purpose::Scan).await?;
            let last = page.last_id().filter(|_| page.has_next_page);
            let range = (after + 1, last.unwrap_or(i64::MAX));
            let (silent, damaged) = self.compare_page(&layout, &page, range).await?;
            scrubbed.rows += page.rows.len() as u64;
            scrubbed.silent += silent.len() as u64;
            scrubbed.damaged += damaged.len() as u64;
            self.note_silent(entity_type, &silent, generation).await?;
            self.metrics().sync.damaged.add(&[entity_type.as_str()], damaged.len() as u64);
            if !damaged.is_empty() {
                tracing::error!(%entity_type, rows = damaged.len(), "stored rows are not what was written: they are read again");
            }
            self.state().mark(&[silent, damaged].concat(), self.now()).await?;
            match last {
                Some(last) if scrubbed.rows < enough => after = last,
                last => return Ok(last),
            }
        }
    }

    /// Returns the marks for rows that differ from the site, and those for rows
    /// that are damaged. What is marked already is left out.
    async fn compare_page(
        &self,
        layout: &TypeLayout,
        page: &Answer,
        (first, last): (i64, i64),
    ) -> Result<(Vec<NewDirtyKey>, Vec<NewDirtyKey>)> {
        let entity_type = &layout.entity_type;
        let shown: BTreeMap<i64, RowHash> =
            page.rows.iter().filter_map(|row| Some((Answer::id(row)?, layout.row_hash(row)))).collect();
        let known = self.state().active_rows(entity_type, first, last, usize::MAX >> 1).await?;
        let stored = self.stored_hashes(layout, known.keys().copied()).await?;
        // Asked last: whatever is written in between is marked, or was before.
        let again = self.state().rows(entity_type, &known.keys().copied().collect::<Vec<_>>()).await?;
        let marked: BTreeSet<i64> = self.state().marked_ids(entity_type).await?.into_iter().collect();
        let (mut silent, mut damaged) = (Vec::new(), Vec::new());
        let ids: BTreeSet<i64> = shown.keys().chain(known.keys()).copied().collect();
        for id in ids.into_iter().filter(|id| !marked.contains(id)) {
            let key = EntityRef::new(entity_type.clone(), id);
            let hash = known.get(&id).map(|meta| meta.hash);
            if shown.get(&id).copied() != hash {
                silent.push(NewDirtyKey::new(key, DirtyReasons::SCAN));
            } else if stored.get(&id).copied() != hash && again.get(&id) == known.get(&id) {
                // Written in any case, although nothing seems to have changed.
                damaged.push(NewDirtyKey::new(key, DirtyReasons::REPAIR));
            }
        }
        Ok((silent, damaged))
    }

    /// Returns the hashes of what the store answers for these rows.
    async fn stored_hashes(
        &self,
        layout: &TypeLayout,
        ids: impl Iterator<Item = i64>,
    ) -> Result<BTreeMap<i64, RowHash>> {
        let keys: Vec<EntityRef> = ids.map(|id| EntityRef::new(layout.entity_type.clone(), id)).collect();
        let mut hashes = BTreeMap::new();
        for chunk in keys.chunks(500) {
            let rows = get_undamaged(self.store().as_ref(), chunk).await?;
            hashes.extend(rows.iter().map(|row| (row.key.id, layout.row_hash(&row.fields()))));
        }
        Ok(hashes)
    }
}
