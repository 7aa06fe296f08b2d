//! Displayed names in links, compared as a reader sees them.
//!
//! A name belongs to the target of a link: it changes without a change of the row
//! that holds the link, so it is in no hash and in no comparison of values. A wrong
//! one is reported once, at its target, however many links show it; and not at all
//! when the target's own row differs, because then that is the difference.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::repair::BothSides;
use super::window::Window;
use super::{Result, TypeFindings, Validator};
use crate::entity::{EntityRef, EntityType, Link, Shape};
use crate::entity_config::{LayoutField, TypeLayout};
use crate::report::{Action, Mismatch, MismatchClass, MismatchKind};
use crate::schema::display_name_field;
use crate::state::State;

/// A target whose name the two sides show differently.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WrongName {
    /// A row that links to it.
    row: i64,
    cached: Option<String>,
    shotgun: String,
}

/// Wrong names by target.
pub(super) type WrongNames = BTreeMap<EntityRef, WrongName>;

/// Which targets the event log touched meanwhile, of every type that links of a
/// layout may point to.
pub(super) struct TargetWindow(Vec<(EntityType, Window)>);

impl TargetWindow {
    pub async fn open(state: &State, layout: &TypeLayout) -> Result<Self> {
        let types: BTreeSet<_> = links(layout, None).flat_map(|field| field.valid_types.iter().cloned()).collect();
        let mut windows = Vec::new();
        for ty in types {
            let window = Window::open(state, &ty).await?;
            windows.push((ty, window));
        }
        Ok(Self(windows))
    }

    /// Leaves out the targets that were touched: they may be renamed right now.
    pub async fn drop_touched(&self, state: &State, names: &mut WrongNames) -> Result<()> {
        for (entity_type, window) in &self.0 {
            if names.keys().any(|target| target.entity_type == *entity_type) {
                let touched = window.touched(state).await?;
                names.retain(|target, _| target.entity_type != *entity_type || !touched.contains(&target.id));
            }
        }
        Ok(())
    }
}

fn links<'a>(layout: &'a TypeLayout, only: Option<&'a [String]>) -> impl Iterator<Item = &'a LayoutField> {
    let wanted = move |field: &&LayoutField| only.is_none_or(|names| names.contains(&field.name));
    let is_link = |field: &&LayoutField| matches!(field.data_type.shape(), Shape::Link | Shape::Links);
    layout.fields.iter().filter(is_link).filter(wanted)
}

/// Returns the names of the targets in a field.
fn names_in(row: &Map<String, Value>, field: &str) -> BTreeMap<EntityRef, Option<String>> {
    let value = row.get(field).unwrap_or(&Value::Null);
    let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    items.iter().filter_map(Link::from_json).map(|link| (link.target, link.name)).collect()
}

impl BothSides {
    /// Returns the targets that links of these rows show under another name than
    /// the site. Links that only one side has are a matter of values.
    pub fn wrong_names(&self, layout: &TypeLayout, only: Option<&[String]>, ids: &BTreeSet<i64>) -> WrongNames {
        let mut wrong = WrongNames::new();
        for id in ids {
            let (Some(cache), Some(site)) = (self.cache.get(id), self.site.get(id)) else { continue };
            for field in links(layout, only) {
                let mut cached = names_in(cache, &field.name);
                for (target, shown) in names_in(site, &field.name) {
                    let (Some(cached), Some(shotgun)) = (cached.remove(&target), shown) else { continue };
                    if cached.as_ref() != Some(&shotgun) {
                        wrong.entry(target).or_insert(WrongName { row: *id, cached, shotgun });
                    }
                }
            }
        }
        wrong
    }
}

impl Validator {
    /// Looks at wrong names again, notes what is confirmed, and repairs it when that
    /// is wanted.
    pub(super) async fn confirm_names(
        &self,
        layout: &TypeLayout,
        only: Option<&[String]>,
        suspects: WrongNames,
        repair: bool,
        findings: &mut TypeFindings,
    ) -> Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let targets = TargetWindow::open(&self.state, layout).await?;
        self.confirm_pause().await?;
        let mut confirmed = self.names_again(layout, only, &suspects).await?;
        targets.drop_touched(&self.state, &mut confirmed).await?;
        findings.result.transient += suspects.len().saturating_sub(confirmed.len()) as u64;
        findings.result.names += confirmed.len() as u64;
        let mut repaired = None;
        if repair && !confirmed.is_empty() {
            self.replica.refresh_names(&confirmed.keys().cloned().collect::<Vec<_>>()).await?;
            let left = self.names_again(layout, only, &confirmed).await?;
            repaired = Some(confirmed.keys().filter(|target| !left.contains_key(*target)).cloned().collect());
        }
        for (target, name) in confirmed {
            let action = action_of(repaired.as_ref(), &target);
            findings.result.repaired += u64::from(action == Action::Repaired);
            findings.result.unresolved += u64::from(action == Action::Unresolved);
            findings.mismatches.push(mismatch(&target, name, action));
        }
        Ok(())
    }

    /// Compares the rows that showed these names once more, and returns those of
    /// the names that are still wrong.
    async fn names_again(
        &self,
        layout: &TypeLayout,
        only: Option<&[String]>,
        suspects: &WrongNames,
    ) -> Result<WrongNames> {
        let rows: BTreeSet<i64> = suspects.values().map(|name| name.row).collect();
        let window = Window::open(&self.state, &layout.entity_type).await?;
        let sides = self.both_sides(layout, &rows.iter().copied().collect::<Vec<_>>()).await?;
        self.past_polls(1).await?;
        let touched = window.touched(&self.state).await?;
        let rows: BTreeSet<i64> = rows.difference(&touched).copied().collect();
        let mut wrong = sides.wrong_names(layout, only, &rows);
        wrong.retain(|target, _| suspects.contains_key(target));
        Ok(wrong)
    }
}

fn action_of(repaired: Option<&BTreeSet<EntityRef>>, target: &EntityRef) -> Action {
    match repaired {
        None => Action::Reported,
        Some(repaired) if repaired.contains(target) => Action::Repaired,
        Some(_) => Action::Unresolved,
    }
}

fn mismatch(target: &EntityRef, name: WrongName, action: Action) -> Mismatch {
    Mismatch {
        entity_type: target.entity_type.to_string(),
        id: target.id,
        field: Some(display_name_field(&target.entity_type).to_owned()),
        kind: MismatchKind::Name,
        class: Some(MismatchClass::Name),
        cached: name.cached.map_or(Value::Null, Value::String),
        shotgun: name.shotgun.into(),
        updated_at: None,
        updated_by: None,
        cache_rv: None,
        action,
    }
}

/// Drops the wrong names of targets whose own row was found to differ.
pub(super) fn drop_explained<'a>(all: impl Iterator<Item = &'a mut TypeFindings>) {
    let mut all: Vec<_> = all.collect();
    let rows = all.iter().flat_map(|findings| &findings.mismatches).filter(|one| one.kind != MismatchKind::Name);
    let explained: BTreeSet<(String, i64)> = rows.map(|one| (one.entity_type.clone(), one.id)).collect();
    for findings in &mut all {
        let TypeFindings { result, mismatches } = &mut **findings;
        mismatches.retain(|one| {
            let drop = one.kind == MismatchKind::Name && explained.contains(&(one.entity_type.clone(), one.id));
            if drop {
                result.names -= 1;
                result.repaired -= u64::from(one.action == Action::Repaired);
                result.unresolved -= u64::from(one.action == Action::Unresolved);
            }
            !drop
        });
    }
}
