//! Finds what no event told: ids, `updated_at` and names of a type, compared with
//! what is known. A scan never deletes or writes; it marks keys.
//!
//! Compared in full are rows of a type without `updated_at`, such as replies, and
//! retired rows: what links to those shows in no event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use super::name_hash::hash_of_name;
use super::{Replica, Result};
use crate::api3::Read;
use crate::entity::{EntityRef, EntityType, RowState, Timestamp};
use crate::entity_config::TypeLayout;
use crate::filter::{Only, RawFilter, RawLeaf};
use crate::schema::display_name_field;
use crate::shotgun::{Answer, Purpose};
use crate::state::{DirtyReasons, NewDirtyKey, RowMeta, Sweep};
use crate::store::display_name;

/// `updated_at` is set before a transaction commits.
const OVERLAP_SECONDS: i64 = 600;

/// Rows that vanished within this time are looked for once more by every fast scan.
const ABSENT_FOR: Duration = Duration::from_secs(3600);
const ABSENT_AT_MOST: usize = 200;

/// How much of a type a scan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScanKind {
    /// The rows updated last, the newest ids, and what vanished lately.
    Fast,
    /// Every id, `updated_at` and name.
    Light,
    /// Every field of the retired rows.
    Retired,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Rows that the site showed.
    pub rows: u64,
    /// Rows that the cache lacks.
    pub missing: u64,
    /// Rows that only the cache has.
    pub extra: u64,
    /// Rows with another `updated_at` or name.
    pub differs: u64,
}

impl Scanned {
    /// Returns the number of keys that were marked.
    pub fn found(&self) -> u64 {
        self.missing + self.extra + self.differs
    }
}

impl Replica {
    /// Scans a type and marks what differs.
    ///
    /// # Errors
    ///
    /// Nothing is marked then.
    pub async fn scan(&self, entity_type: &EntityType, kind: ScanKind) -> Result<Scanned> {
        let before = self.state().generation().await?;
        let (scanned, marks) = match kind {
            ScanKind::Fast => self.compare_newest(entity_type).await?,
            ScanKind::Light => self.compare_all(entity_type, RowState::Active, DirtyReasons::SCAN).await?,
            ScanKind::Retired => self.compare_all(entity_type, RowState::Retired, DirtyReasons::SCAN).await?,
        };
        self.note_silent(entity_type, &marks, before).await?;
        self.state().mark(&marks, self.now()).await?;
        Ok(scanned)
    }

    /// Counts the keys of which no event told, neither before `generation` nor
    /// since.
    pub(super) async fn note_silent(
        &self,
        entity_type: &EntityType,
        marks: &[NewDirtyKey],
        generation: i64,
    ) -> Result<()> {
        let touched: BTreeSet<i64> = self.state().touched_since(entity_type, generation).await?.into_iter().collect();
        let marked: BTreeSet<i64> = self.state().marked_ids(entity_type).await?.into_iter().collect();
        let silent = marks.iter().filter(|mark| !touched.contains(&mark.key.id) && !marked.contains(&mark.key.id));
        self.metrics().sync.silent_changes.add(&[entity_type.as_str()], silent.count() as u64);
        Ok(())
    }

    /// Makes the comparison that a change on the way of an entity filter asked
    /// for.
    pub(super) async fn sweep(&self, sweep: &Sweep) -> Result<()> {
        // An event told of it, so freshness waits for the rows.
        let (_, marks) =
            self.compare_all(&sweep.entity_type, RowState::Active, DirtyReasons::SCAN | DirtyReasons::CHANGE).await?;
        self.step("sweep: compared")?;
        Ok(self.state().finish_sweep(sweep, &marks, self.now()).await?)
    }

    /// Compares every row of the active or of the retired list.
    async fn compare_all(
        &self,
        entity_type: &EntityType,
        state: RowState,
        kinds: DirtyReasons,
    ) -> Result<(Scanned, Vec<NewDirtyKey>)> {
        let layout = self.layout(entity_type)?;
        let mut read = request(&layout, layout.raw_filter.clone(), self.client().page_size());
        let whole = state == RowState::Retired || layout.field("updated_at").is_none();
        if whole {
            read.fields = layout.field_names();
        }
        read.only = if state == RowState::Retired { Only::Retired } else { Only::Active };
        let (mut scanned, mut marks, mut last_id) = (Scanned::default(), Vec::new(), 0);
        loop {
            let page: Answer = self.page_after(&read, last_id, Purpose::Scan).await?;
            let last = page.last_id().filter(|_| page.has_next_page);
            let range = (last_id + 1, last.unwrap_or(i64::MAX));
            let known = self.state().rows_in(entity_type, state, range, usize::MAX >> 1).await?;
            let differing = compare(&layout, &page, &known, Extent { complete: true, whole }, &mut scanned);
            let mark = |id| NewDirtyKey::new(EntityRef::new(entity_type.clone(), id), kinds);
            marks.extend(differing.into_iter().map(mark));
            match last {
                Some(last) => last_id = last,
                None => return Ok((scanned, marks)),
            }
        }
    }

    /// Compares the rows updated since shortly before the newest known update, and
    /// the ids above the highest known one.
    async fn compare_newest(&self, entity_type: &EntityType) -> Result<(Scanned, Vec<NewDirtyKey>)> {
        let layout = self.layout(entity_type)?;
        let (max_id, newest) = self.state().newest(entity_type).await?;
        let mut conditions = vec![leaf("id", "greater_than", max_id.into())];
        if let (Some(newest), Some(_)) = (newest, layout.field("updated_at")) {
            // An `updated_at` in the future, which a script may write, hides nothing.
            let newest = newest.min(self.now().timestamp());
            let since = Timestamp(newest.0 - OVERLAP_SECONDS).to_string();
            conditions.push(leaf("updated_at", "greater_than", since.into()));
        }
        // A row that a change of rights hid comes back without an event.
        let absent = self.state().absent_since(entity_type, self.now().before(ABSENT_FOR), ABSENT_AT_MOST).await?;
        if !absent.is_empty() {
            let values = absent.into_iter().map(Value::from).collect();
            conditions.push(RawFilter::Leaf(RawLeaf { path: "id".into(), relation: "in".into(), values }));
        }
        let either = RawFilter::Group { any: true, conditions };
        let filter = RawFilter::Group { any: false, conditions: vec![either, layout.raw_filter.clone()] };
        let (mut scanned, mut marks, mut last_id) = (Scanned::default(), Vec::new(), 0);
        loop {
            let read = request(&layout, filter.clone(), self.client().page_size());
            let page = self.heard(self.client().read_after(&read, last_id, Purpose::Scan).await?);
            let ids: Vec<i64> = page.rows.iter().filter_map(Answer::id).collect();
            let mut known = self.state().rows(entity_type, &ids).await?;
            known.retain(|_, meta| meta.state == RowState::Active);
            let differing = compare(&layout, &page, &known, Extent::default(), &mut scanned);
            let mark = |id| NewDirtyKey::new(EntityRef::new(entity_type.clone(), id), DirtyReasons::SCAN);
            marks.extend(differing.into_iter().map(mark));
            match page.last_id() {
                Some(last) if page.has_next_page => last_id = last,
                _ => return Ok((scanned, marks)),
            }
        }
    }
}

fn request(layout: &TypeLayout, filter: RawFilter, size: u32) -> Read {
    let compared = ["updated_at", "cached_display_name", display_name_field(&layout.entity_type)];
    let fields = compared.into_iter().filter(|name| layout.field(name).is_some()).map(str::to_owned).collect();
    Read::new(layout.entity_type.clone(), filter, size).fields(fields)
}

/// How much a page shows.
#[derive(Clone, Copy, Default)]
struct Extent {
    /// Every row of its range, so that a known row which it lacks is one too many.
    complete: bool,
    /// Every field.
    whole: bool,
}

/// Tells whether a row shows what is known of it.
fn is_same(layout: &TypeLayout, row: &Map<String, Value>, known: &RowMeta, whole: bool) -> bool {
    if whole {
        return layout.row_hash(row) == known.hash;
    }
    let updated_at = row.get("updated_at").and_then(Value::as_str).and_then(Timestamp::parse);
    updated_at == known.updated_at && hash_of_name(display_name(&layout.entity_type, row)) == known.name
}

fn leaf(path: &str, relation: &str, value: Value) -> RawFilter {
    RawFilter::Leaf(RawLeaf { path: path.into(), relation: relation.into(), values: vec![value] })
}

/// Returns the ids that differ.
fn compare(
    layout: &TypeLayout,
    page: &Answer,
    known: &BTreeMap<i64, RowMeta>,
    extent: Extent,
    scanned: &mut Scanned,
) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    let mut differing = Vec::new();
    for row in &page.rows {
        let Some(id) = Answer::id(row) else { continue };
        seen.insert(id);
        scanned.rows += 1;
        match known.get(&id) {
            None => scanned.missing += 1,
            Some(meta) if !is_same(layout, row, meta, extent.whole) => scanned.differs += 1,
            Some(_) => continue,
        }
        differing.push(id);
    }
    if extent.complete {
        let extra = known.keys().filter(|id| !seen.contains(id)).copied();
        let before = differing.len();
        differing.extend(extra);
        scanned.extra += (differing.len() - before) as u64;
    }
    differing
}
