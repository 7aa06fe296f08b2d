//! The second look at suspects, and the repair of what it confirms.
//!
//! A repair is a targeted read through the ordinary write path: versioned,
//! idempotent, and unable to remove anything without having asked for it. The
//! difference stays in the report.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::diff::{FieldDiff, differences};
use super::window::Window;
use super::{Result, TypeFindings, Validator};
use crate::entity::{EntityRef, Timestamp};
use crate::entity_config::TypeLayout;
use crate::filter::Only;
use crate::report::{Action, Mismatch, MismatchClass, MismatchKind};
use crate::shotgun::{Answer, Purpose};
use crate::store::get_undamaged;

/// An entity that looked different once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    pub id: i64,
    pub kind: MismatchKind,
}

/// The rows of some ids on both sides.
pub(super) struct BothSides {
    pub site: BTreeMap<i64, Map<String, Value>>,
    pub cache: BTreeMap<i64, Map<String, Value>>,
}

/// How an entity differs now.
enum Difference {
    Missing(Map<String, Value>),
    Extra(Map<String, Value>),
    Fields(Vec<FieldDiff>, Map<String, Value>, Map<String, Value>),
}

impl BothSides {
    fn difference(&self, layout: &TypeLayout, only: Option<&[String]>, id: i64) -> Option<Difference> {
        match (self.cache.get(&id), self.site.get(&id)) {
            (None, Some(site)) => Some(Difference::Missing(site.clone())),
            (Some(cache), None) => Some(Difference::Extra(cache.clone())),
            (Some(cache), Some(site)) => {
                let fields = differences(layout, only, cache, site);
                (!fields.is_empty()).then(|| Difference::Fields(fields, cache.clone(), site.clone()))
            }
            (None, None) => None,
        }
    }

    /// Returns the ids among these that differ, with the kind of difference.
    pub fn suspects(&self, layout: &TypeLayout, only: Option<&[String]>, ids: &BTreeSet<i64>) -> Vec<Suspect> {
        let kind = |id: &i64| {
            let kind = match self.difference(layout, only, *id)? {
                Difference::Missing(_) => MismatchKind::Missing,
                Difference::Extra(_) => MismatchKind::Extra,
                Difference::Fields(..) => MismatchKind::Differs,
            };
            Some(Suspect { id: *id, kind })
        };
        ids.iter().filter_map(kind).collect()
    }
}

impl Validator {
    /// Reads entities on both sides: the cache first, so that a change in between
    /// shows as touched by the poll that follows.
    pub(super) async fn both_sides(&self, layout: &TypeLayout, ids: &[i64]) -> Result<BothSides> {
        let mut sides = BothSides { site: BTreeMap::new(), cache: BTreeMap::new() };
        for chunk in ids.chunks(self.client.page_size() as usize) {
            let keys: Vec<_> = chunk.iter().map(|id| EntityRef::new(layout.entity_type.clone(), *id)).collect();
            // A damaged row is quarantined by now, and looked at again.
            for row in get_undamaged(self.store.as_ref(), &keys).await? {
                sides.cache.insert(row.key.id, row.fields());
            }
            self.count_request();
            let fields = layout.field_names();
            let (ty, filter) = (&layout.entity_type, &layout.raw_filter);
            let answer = self.client.read_ids(ty, chunk, filter, fields, Only::Active, Purpose::Validate).await?;
            for row in answer.rows {
                if let Some(id) = Answer::id(&row) {
                    sides.site.insert(id, row);
                }
            }
        }
        Ok(sides)
    }

    /// Looks at suspects again, notes what is confirmed, and repairs it when that
    /// is wanted.
    pub(super) async fn confirm_and_repair(
        &self,
        layout: &TypeLayout,
        only: Option<&[String]>,
        suspects: Vec<Suspect>,
        repair: bool,
        findings: &mut TypeFindings,
    ) -> Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let suspected = suspects.len() as u64;
        let confirmed = self.confirm(layout, only, suspects).await?;
        let drifted: BTreeSet<i64> = confirmed.iter().map(|mismatch| mismatch.id).collect();
        findings.result.transient += suspected.saturating_sub(drifted.len() as u64);
        for id in &drifted {
            match confirmed.iter().find(|mismatch| mismatch.id == *id).map(|mismatch| mismatch.kind) {
                Some(MismatchKind::Missing) => findings.result.missing += 1,
                Some(MismatchKind::Extra) => findings.result.extra += 1,
                _ => findings.result.differs += 1,
            }
        }
        findings.mismatches.extend(confirmed);
        if repair && !drifted.is_empty() {
            self.repair(layout, only, &drifted, findings, true).await?;
        }
        Ok(())
    }

    async fn confirm(
        &self,
        layout: &TypeLayout,
        only: Option<&[String]>,
        suspects: Vec<Suspect>,
    ) -> Result<Vec<Mismatch>> {
        let window = Window::open(&self.state, &layout.entity_type).await?;
        self.confirm_pause().await?;
        let ids: Vec<i64> = suspects.iter().map(|suspect| suspect.id).collect();
        let sides = self.both_sides(layout, &ids).await?;
        self.past_polls(1).await?;
        let touched = window.touched(&self.state).await?;
        let versions = self.state.rows(&layout.entity_type, &ids).await?;
        let mut confirmed = Vec::new();
        for suspect in suspects.iter().filter(|suspect| !touched.contains(&suspect.id)) {
            let found = sides.difference(layout, only, suspect.id);
            if sides.site.get(&suspect.id).is_some_and(|row| self.is_in_grace_period(row)) {
                continue;
            }
            // A stored row that sync does not remember but that equals the site by
            // now is no drift for a reader; the next write puts the memory right.
            let Some(found) = found else { continue };
            let rv = versions.get(&suspect.id).map(|row| row.rv);
            confirmed.extend(mismatches(layout, suspect.id, found, rv));
        }
        Ok(confirmed)
    }

    /// Tells whether the site updated an entity a moment ago.
    fn is_in_grace_period(&self, site: &Map<String, Value>) -> bool {
        let updated = site.get("updated_at").and_then(Value::as_str).and_then(Timestamp::parse);
        updated.is_some_and(|at| self.replica.now().since(at.into()) < self.settings.settle)
    }

    /// Reads entities again and, to `verify`, compares what the check compared, no more:
    /// other fields may differ for reasons of their own. Without `verify` every one
    /// counts as repaired.
    async fn repair(
        &self,
        layout: &TypeLayout,
        only: Option<&[String]>,
        ids: &BTreeSet<i64>,
        findings: &mut TypeFindings,
        verify: bool,
    ) -> Result<()> {
        let keys: Vec<_> = ids.iter().map(|id| EntityRef::new(layout.entity_type.clone(), *id)).collect();
        self.replica.refetch(&keys).await?;
        if !verify {
            findings.result.repaired += ids.len() as u64;
            findings.mismatches.iter_mut().for_each(|mismatch| mismatch.action = Action::Repaired);
            return Ok(());
        }
        let wanted: Vec<i64> = ids.iter().copied().collect();
        let window = Window::open(&self.state, &layout.entity_type).await?;
        let sides = self.both_sides(layout, &wanted).await?;
        self.past_polls(1).await?;
        let touched = window.touched(&self.state).await?;
        for id in ids {
            // What changed meanwhile is read again by its own mark.
            let repaired = touched.contains(id) || sides.difference(layout, only, *id).is_none();
            let action = if repaired { Action::Repaired } else { Action::Unresolved };
            findings.result.repaired += u64::from(repaired);
            findings.result.unresolved += u64::from(!repaired);
            for mismatch in findings.mismatches.iter_mut().filter(|mismatch| mismatch.id == *id) {
                mismatch.action = action;
            }
        }
        Ok(())
    }
}

fn mismatches(layout: &TypeLayout, id: i64, found: Difference, rv: Option<i64>) -> Vec<Mismatch> {
    let whole = |kind, class, cached: Value, shotgun: Value| Mismatch {
        entity_type: layout.entity_type.to_string(),
        id,
        field: None,
        kind,
        class: Some(class),
        cached,
        shotgun,
        updated_at: None,
        updated_by: None,
        cache_rv: rv,
        action: Action::Reported,
    };
    let membership = if layout.filter.is_everything() { MismatchClass::NoEvent } else { MismatchClass::Membership };
    match found {
        Difference::Missing(site) => {
            let mut mismatch = whole(MismatchKind::Missing, membership, Value::Null, label(layout, &site));
            (mismatch.updated_at, mismatch.updated_by) = last_change(&site);
            vec![mismatch]
        }
        Difference::Extra(cache) => vec![whole(MismatchKind::Extra, membership, label(layout, &cache), Value::Null)],
        Difference::Fields(fields, cache, site) => {
            let moved = cache.get("updated_at") != site.get("updated_at");
            let class = if moved { MismatchClass::NoEvent } else { MismatchClass::Silent };
            let (updated_at, updated_by) = last_change(&site);
            let of_field = |diff: FieldDiff| Mismatch {
                field: Some(diff.field),
                updated_at: updated_at.clone(),
                updated_by: updated_by.clone(),
                ..whole(MismatchKind::Differs, class, diff.cached, diff.shotgun)
            };
            fields.into_iter().map(of_field).collect()
        }
    }
}

/// Names an entity that one side lacks, so that a person knows which it is.
fn label(layout: &TypeLayout, row: &Map<String, Value>) -> Value {
    let field = crate::schema::display_name_field(&layout.entity_type);
    let name = row.get("cached_display_name").filter(|name| !name.is_null()).or_else(|| row.get(field));
    name.cloned().unwrap_or_default()
}

/// Returns the fields in which a check found differences: of those that it agreed on or
/// left out nothing is claimed, so nothing is verified. A row that was missing or too
/// many is compared by being there. `None` is every field: a row differs in one that is
/// not known.
fn compared_fields(mismatches: &[Mismatch]) -> Option<Vec<String>> {
    let is_suspected = |mismatch: &Mismatch| mismatch.kind == MismatchKind::Differs && mismatch.field.is_none();
    if mismatches.iter().any(is_suspected) {
        return None;
    }
    let fields: BTreeSet<&String> = mismatches.iter().filter_map(|mismatch| mismatch.field.as_ref()).collect();
    Some(fields.into_iter().cloned().collect())
}

fn last_change(site: &Map<String, Value>) -> (Option<String>, Option<String>) {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    (text(site.get("updated_at")), text(site.get("updated_by").and_then(|user| user.get("name"))))
}

impl Validator {
    /// Repairs what an earlier validation found, at most `most` entities, and
    /// compares each once more when `verify` is set.
    ///
    /// # Errors
    ///
    /// When the site, the store or the event log gives no answer.
    pub async fn repair_found(
        &self,
        layouts: &[TypeLayout],
        found: &[Mismatch],
        most: usize,
        verify: bool,
    ) -> Result<crate::report::StepResult> {
        let mut result = crate::report::StepResult::default();
        let mut left = most;
        let (names, found): (Vec<Mismatch>, Vec<Mismatch>) =
            found.iter().cloned().partition(|mismatch| mismatch.kind == MismatchKind::Name);
        for layout in layouts {
            let layout = &self.replica.current(layout);
            let name = layout.entity_type.as_str();
            let mine = found.iter().filter(|mismatch| mismatch.entity_type == name);
            let ids: BTreeSet<i64> = mine.clone().map(|mismatch| mismatch.id).take(left).collect();
            if ids.is_empty() {
                continue;
            }
            left -= ids.len();
            let mismatches: Vec<_> = mine.filter(|mismatch| ids.contains(&mismatch.id)).cloned().collect();
            let compared = compared_fields(&mismatches);
            let mut findings = TypeFindings { mismatches, ..TypeFindings::default() };
            self.repair(layout, compared.as_deref(), &ids, &mut findings, verify).await?;
            result.by_type.insert(name.to_owned(), findings.result);
            result.mismatches.extend(findings.mismatches);
        }
        for mut mismatch in names.into_iter().take(left) {
            let target = EntityRef::new(mismatch.entity_type.as_str(), mismatch.id);
            let is_repaired = !self.replica.refresh_names(&[target]).await?.is_empty();
            mismatch.action = if is_repaired { Action::Repaired } else { Action::Unresolved };
            let ty = result.by_type.entry(mismatch.entity_type.clone()).or_default();
            ty.repaired += u64::from(is_repaired);
            ty.unresolved += u64::from(!is_repaired);
            result.mismatches.push(mismatch);
        }
        result.repaired = result.by_type.values().map(|ty| ty.repaired).sum();
        result.unresolved = result.by_type.values().map(|ty| ty.unresolved).sum();
        Ok(result)
    }
}
