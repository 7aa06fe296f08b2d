//! Finds what no event told: ids and `updated_at` of a type, compared with what
//! is known. A scan never deletes or writes; it marks keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Replica, Result};
use crate::api3::Read;
use crate::entity::{EntityRef, EntityType, RowState, Timestamp};
use crate::entity_config::TypeLayout;
use crate::filter::{RawFilter, RawLeaf};
use crate::shotgun::{Answer, Purpose};
use crate::state::{Kinds, MarkRequest, RowMeta, Sweep};

/// `updated_at` is set before a transaction commits.
const OVERLAP_SECONDS: i64 = 600;

/// How much of a type a scan looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanKind {
    /// The rows updated last and the newest ids.
    Fast,
    /// Every id and `updated_at`.
    Light,
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
    /// Rows with another `updated_at`.
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
        let before = self.state().generation()?;
        let (scanned, marks) = match kind {
            ScanKind::Fast => self.compare_newest(entity_type).await?,
            ScanKind::Light => self.compare_all(entity_type, Kinds::SCAN).await?,
        };
        // What an event told of meanwhile is no silent change.
        let touched: BTreeSet<i64> = self.state().touched_since(entity_type, before)?.into_iter().collect();
        let marked: BTreeSet<i64> = self.state().marked_ids(entity_type)?.into_iter().collect();
        let silent = marks.iter().filter(|mark| !touched.contains(&mark.key.id) && !marked.contains(&mark.key.id));
        self.metrics().sync.silent_changes.add(&[entity_type.as_str()], silent.count() as u64);
        self.state().mark(&marks, self.now())?;
        Ok(scanned)
    }

    /// Makes the comparison that a change on the way of an entity filter asked
    /// for.
    pub(super) async fn sweep(&self, sweep: &Sweep) -> Result<()> {
        // An event told of it, so freshness waits for the rows.
        let (_, marks) = self.compare_all(&sweep.entity_type, Kinds::SCAN | Kinds::CHANGE).await?;
        self.step("sweep: compared")?;
        Ok(self.state().finish_sweep(sweep, &marks, self.now())?)
    }

    async fn compare_all(&self, entity_type: &EntityType, kinds: Kinds) -> Result<(Scanned, Vec<MarkRequest>)> {
        let layout = self.layout(entity_type)?;
        let mut scanned = Scanned::default();
        let mut marks = Vec::new();
        let mut last_id = 0;
        loop {
            let read = request(&layout, layout.raw_filter.clone(), self.client().page_size());
            let page = self.heard(self.client().read_after(&read, last_id, Purpose::Scan).await?);
            let last = page.last_id().filter(|_| page.has_next_page);
            let known =
                self.state().active_rows(entity_type, last_id + 1, last.unwrap_or(i64::MAX), usize::MAX >> 1)?;
            let differing = compare(&layout, &page, &known, true, &mut scanned);
            marks.extend(
                differing.into_iter().map(|id| MarkRequest::new(EntityRef::new(entity_type.clone(), id), kinds)),
            );
            match last {
                Some(last) => last_id = last,
                None => return Ok((scanned, marks)),
            }
        }
    }

    /// Compares the rows updated since shortly before the newest known update, and
    /// the ids above the highest known one.
    async fn compare_newest(&self, entity_type: &EntityType) -> Result<(Scanned, Vec<MarkRequest>)> {
        let layout = self.layout(entity_type)?;
        let (max_id, newest) = self.state().newest(entity_type)?;
        let mut conditions = vec![leaf("id", "greater_than", max_id.into())];
        if let (Some(newest), Some(_)) = (newest, layout.field("updated_at")) {
            let since = Timestamp(newest.0 - OVERLAP_SECONDS).to_string();
            conditions.push(leaf("updated_at", "greater_than", since.into()));
        }
        let either = RawFilter::Group { any: true, conditions };
        let filter = RawFilter::Group { any: false, conditions: vec![either, layout.raw_filter.clone()] };
        let (mut scanned, mut marks, mut last_id) = (Scanned::default(), Vec::new(), 0);
        loop {
            let read = request(&layout, filter.clone(), self.client().page_size());
            let page = self.heard(self.client().read_after(&read, last_id, Purpose::Scan).await?);
            let ids: Vec<i64> = page.rows.iter().filter_map(Answer::id).collect();
            let mut known = self.state().rows(entity_type, &ids)?;
            known.retain(|_, meta| meta.state == RowState::Active);
            let differing = compare(&layout, &page, &known, false, &mut scanned);
            let mark = |id| MarkRequest::new(EntityRef::new(entity_type.clone(), id), Kinds::SCAN);
            marks.extend(differing.into_iter().map(mark));
            match page.last_id() {
                Some(last) if page.has_next_page => last_id = last,
                _ => return Ok((scanned, marks)),
            }
        }
    }
}

fn request(layout: &TypeLayout, filter: RawFilter, size: u32) -> Read {
    let mut fields = vec!["id".to_owned()];
    fields.extend(layout.field("updated_at").map(|field| field.name.clone()));
    Read::new(layout.entity_type.clone(), filter, size).fields(fields)
}

fn leaf(path: &str, relation: &str, value: Value) -> RawFilter {
    RawFilter::Leaf(RawLeaf { path: path.into(), relation: relation.into(), values: vec![value] })
}

/// Returns the ids that differ. `complete` says that the page shows every row of
/// its range, so that a known row which it lacks is one too many.
fn compare(
    layout: &TypeLayout,
    page: &Answer,
    known: &BTreeMap<i64, RowMeta>,
    complete: bool,
    scanned: &mut Scanned,
) -> Vec<i64> {
    let timed = layout.field("updated_at").is_some();
    let mut seen = BTreeSet::new();
    let mut differing = Vec::new();
    for row in &page.rows {
        let Some(id) = Answer::id(row) else { continue };
        seen.insert(id);
        scanned.rows += 1;
        let updated_at = row.get("updated_at").and_then(Value::as_str).and_then(Timestamp::parse);
        match known.get(&id) {
            None => scanned.missing += 1,
            Some(meta) if timed && meta.updated_at != updated_at => scanned.differs += 1,
            Some(_) => continue,
        }
        differing.push(id);
    }
    if complete {
        let extra = known.keys().filter(|id| !seen.contains(id)).copied();
        let before = differing.len();
        differing.extend(extra);
        scanned.extra += (differing.len() - before) as u64;
    }
    differing
}
