//! Writes that went through the proxy and are not visible in the cache yet, and which
//! answers they can change.
//!
//! Pure. Whether a write has become visible is a flag that `write_confirmation` sets;
//! nothing here compares moments. A read depends on a pending write only where its
//! answer can differ with it:
//!
//! - it asks for other entities by id, or uses none of the fields that the write may
//!   have changed: no dependency;
//! - it uses them only in what it shows or sorts by, and the entities that were written
//!   are not among its rows: which rows those are the cache knows, as no condition
//!   depends on the write ([`Dependency::IfAny`]);
//! - its conditions exclude the values that were written: then the entity can only have
//!   left the answer, and again the cache knows whether it is there;
//! - else it may depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::catalogue::Catalogue;
use super::question::{self, Question};
use super::write_effects::{Effect, Fields, Ids};
use crate::entity::{EntityRef, EntityType, Shape};
use crate::filter::{FieldPath, Filter, Leaf, Test};

/// A write that is not visible in the cache yet.
#[derive(Debug)]
pub struct PendingWrite {
    effects: Vec<Effect>,
    everything: bool,
    is_visible: AtomicBool,
}

impl PendingWrite {
    /// Makes a pending write from what it may have changed; `everything` leaves no
    /// answer out.
    pub fn new(effects: Vec<Effect>, everything: bool) -> Self {
        Self { effects, everything, is_visible: AtomicBool::new(false) }
    }

    /// Ends it: what it changed was read by a read that began after it.
    pub fn end(&self) {
        self.is_visible.store(true, Ordering::SeqCst);
    }

    fn moved_dependencies(&self) -> Option<BTreeSet<i64>> {
        if self.everything {
            return None;
        }
        moved_dependencies(&self.effects)
    }

    /// Tells whether it has ended.
    pub fn is_visible(&self) -> bool {
        self.is_visible.load(Ordering::SeqCst)
    }
}

/// The pending writes at one moment: a read depends on those that were acknowledged
/// before it, not on later ones.
#[derive(Clone, Debug, Default)]
pub struct PendingWrites(Arc<[Arc<PendingWrite>]>);

/// Whether an answer depends on pending writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Dependency {
    /// It does not.
    None,
    /// It does if any row of the query passes this filter as well.
    IfAny(Filter),
    /// It may.
    Possible,
}

impl PendingWrites {
    /// Collects pending writes.
    pub fn new(writes: impl IntoIterator<Item = Arc<PendingWrite>>) -> Self {
        Self(writes.into_iter().collect())
    }

    /// Returns these and one more.
    #[must_use]
    pub fn with(&self, write: Arc<PendingWrite>) -> Self {
        Self::new(self.0.iter().cloned().chain([write]))
    }

    /// Returns those that have not ended.
    #[must_use]
    pub fn without_visible(&self) -> Self {
        Self::new(self.0.iter().filter(|write| !write.is_visible()).cloned())
    }

    /// Returns the Tasks whose dependencies may have changed: with what the cached rows
    /// show, they are all that may depend on one. `None` where it may be any Task. New
    /// Tasks of a template depend on each other only.
    pub fn moved_dependencies(&self) -> Option<BTreeSet<i64>> {
        let mut ids = BTreeSet::new();
        for write in self.0.iter().filter(|write| !write.is_visible()) {
            ids.extend(write.moved_dependencies()?);
        }
        Some(ids)
    }

    /// Returns the entities of a type of which these fields may be changed: what links were
    /// made is in no cached row yet.
    pub fn changed(&self, entity_type: &EntityType, fields: &Fields) -> Vec<Ids> {
        let mut ids = Vec::new();
        for write in self.0.iter().filter(|write| !write.is_visible()) {
            if write.everything {
                return vec![Ids::All];
            }
            let changes = |effect: &&Effect| {
                effect.entity_type == *entity_type && (effect.lifecycle || effect.fields.meet(fields))
            };
            ids.extend(write.effects.iter().filter(changes).map(|effect| effect.ids.clone()));
        }
        ids
    }

    /// Tells on what of them an answer depends.
    pub fn dependency(&self, question: &Question, catalogue: &Catalogue) -> Dependency {
        let mut conditions = Vec::new();
        for write in self.0.iter().filter(|write| !write.is_visible()) {
            if write.everything {
                return Dependency::Possible;
            }
            for effect in &write.effects {
                let reading = Reading { question, catalogue, effect };
                if reading.collect(&mut conditions).is_err() {
                    return Dependency::Possible;
                }
            }
        }
        match conditions.is_empty() {
            true => Dependency::None,
            false => Dependency::IfAny(Filter::any(conditions)),
        }
    }
}

/// The answer depends on the effect, and no condition on rows can tell otherwise.
struct Depends;

/// One query, looked at for one effect.
struct Reading<'a> {
    question: &'a Question,
    catalogue: &'a Catalogue,
    effect: &'a Effect,
}

impl Reading<'_> {
    /// Adds the conditions under which a row of the answer depends on the effect.
    fn collect(&self, conditions: &mut Vec<Filter>) -> Result<(), Depends> {
        self.as_row(conditions)?;
        if matches!(self.effect.ids, Ids::From(_)) {
            // Whatever links to a new entity was written as well.
            return Ok(());
        }
        for leaf in self.question.query.filter.leaves() {
            self.in_filter(leaf)?;
        }
        for path in self.filtered_implicitly() {
            if self.reaches(path) || self.names(path) {
                return Err(Depends);
            }
        }
        for path in self.shown() {
            self.in_answer(path, conditions)?;
        }
        Ok(())
    }

    /// The entities that were written as rows of the answer.
    fn as_row(&self, conditions: &mut Vec<Filter>) -> Result<(), Depends> {
        let query = &self.question.query;
        if query.entity_type != self.effect.entity_type || self.asks_for_others() {
            return Ok(());
        }
        let leaves = query.filter.leaves();
        let tested = leaves.iter().map(|leaf| &leaf.path).chain(self.filtered_implicitly());
        let tested = tested.map(first_field).any(|field| self.effect.fields.touch(field));
        if tested && self.effect.values.may_pass(&query.filter) {
            return Err(Depends);
        }
        if tested && (self.appears() || matches!(self.effect.ids, Ids::From(_))) {
            return Ok(());
        }
        let shows = self.shown().map(first_field).any(|field| self.effect.fields.touch(field));
        if !tested && !shows && !self.effect.lifecycle {
            return Ok(());
        }
        // A row that appears is not in the cache yet; one that vanishes still is.
        match &self.effect.ids {
            Ids::Only(ids) if !self.appears() => {
                conditions.push(Filter::ids(ids.iter().copied()));
                Ok(())
            }
            _ => Err(Depends),
        }
    }

    /// A retirement changes no field, a creation or a revival brings all of them.
    fn appears(&self) -> bool {
        self.effect.lifecycle && self.effect.fields.touch("created_at")
    }

    /// Tells whether the query names ids, and none that the effect is about.
    fn asks_for_others(&self) -> bool {
        let Some(asked) = self.question.query.filter.only_ids() else { return false };
        match &self.effect.ids {
            Ids::All => asked.is_empty(),
            Ids::From(first) => asked.iter().all(|id| id < first),
            Ids::Only(ids) => asked.is_disjoint(ids),
        }
    }

    /// A condition on something behind a link.
    fn in_filter(&self, leaf: &Leaf) -> Result<(), Depends> {
        if self.reaches(&leaf.path) {
            return Err(Depends);
        }
        let independent = match &leaf.test {
            Test::LinkTo(targets) => {
                !self.effect.lifecycle || !targets.iter().any(|target| self.effect.touches(target))
            }
            // A new name is still a link of the same type.
            Test::Empty | Test::LinkType(_) => !self.effect.lifecycle,
            _ => false,
        };
        if !independent && self.names(&leaf.path) { Err(Depends) } else { Ok(()) }
    }

    /// Something that is shown, sorted by or summed up.
    fn in_answer(&self, path: &FieldPath, conditions: &mut Vec<Filter>) -> Result<(), Depends> {
        let (reaches, names) = (self.reaches(path), self.names(path));
        if !reaches && !names {
            return Ok(());
        }
        // Rows that link to what was written directly can be found in the cache.
        let through = match path.hops.as_slice() {
            [] => Some(path.field.as_str()),
            [hop] if reaches && !names && !hop.multi => Some(hop.field.as_str()),
            _ => None,
        };
        match (&self.effect.ids, through.and_then(|field| self.linked(field))) {
            (Ids::Only(ids), Some(link)) => {
                conditions.push(link_to(link, &self.effect.entity_type, ids));
                Ok(())
            }
            _ => Err(Depends),
        }
    }

    /// Returns a link of the row itself that the store can be asked about.
    fn linked(&self, field: &str) -> Option<FieldPath> {
        let root = &self.question.query.entity_type;
        let data_type = self.catalogue.stored.types.get(root)?.data_type(field)?;
        matches!(data_type.shape(), Shape::Link | Shape::Links).then(|| FieldPath::local(field, data_type))
    }

    /// Tells whether a path leads through entities that were written, over a field
    /// that may have changed.
    fn reaches(&self, path: &FieldPath) -> bool {
        let ty = &self.effect.entity_type;
        let next = |index: usize| path.hops.get(index + 1).map_or(&path.field, |hop| &hop.field);
        let mut hops = path.hops.iter().enumerate().filter(|(_, hop)| hop.entity_type == *ty);
        hops.any(|(index, _)| self.effect.lifecycle || self.effect.fields.touch(next(index)))
    }

    /// Tells whether a path ends at a link that may show the name, or the
    /// retirement, of an entity that was written.
    fn names(&self, path: &FieldPath) -> bool {
        let ty = &self.effect.entity_type;
        let changes = self.effect.lifecycle || self.effect.fields.touch_name(ty);
        let is_link = matches!(path.data_type.shape(), Shape::Link | Shape::Links);
        let root = &self.question.query.entity_type;
        changes && is_link && question::targets(self.catalogue, root, path).contains(ty)
    }

    /// What is shown or sorted by. A summary names its fields nowhere but among those
    /// that are looked at.
    fn shown(&self) -> Box<dyn Iterator<Item = &FieldPath> + '_> {
        let query = &self.question.query;
        match query.fields.is_empty() && query.order.is_empty() {
            true => Box::new(self.question.needs.paths.iter()),
            false => Box::new(query.fields.iter().chain(query.order.iter().map(|key| &key.path))),
        }
    }

    /// What is tested although the filter does not say so: whether the project of a
    /// row is archived.
    fn filtered_implicitly(&self) -> impl Iterator<Item = &FieldPath> {
        let applies = !self.question.query.include_archived_projects;
        let paths = self.question.needs.paths.iter();
        paths.filter(move |path| applies && path.field == "archived" && path.hops.len() == 1)
    }
}

/// Returns the Tasks whose dependencies the effects may have changed, `None` for any.
pub(super) fn moved_dependencies(effects: &[Effect]) -> Option<BTreeSet<i64>> {
    let shows = |effect: &Effect| effect.lifecycle || effect.fields.touch("downstream_tasks");
    let of_tasks: Vec<_> = effects.iter().filter(|effect| effect.entity_type == *"Task" && shows(effect)).collect();
    let connections = effects.iter().any(|effect| effect.entity_type == *"TaskDependency");
    let (mut ids, mut appear) = (BTreeSet::new(), false);
    for effect in &of_tasks {
        if let Ids::Only(some) = &effect.ids {
            ids.extend(some);
            appear |= effect.lifecycle;
        }
    }
    // What a Task takes along that appears or vanishes are the links to it, wherever.
    let any = of_tasks.iter().any(|effect| effect.ids == Ids::All && (effect.lifecycle || !appear));
    (!(any || connections && ids.is_empty())).then_some(ids)
}

/// Returns the field of the row itself that a path begins with.
fn first_field(path: &FieldPath) -> &str {
    path.hops.first().map_or(&path.field, |hop| &hop.field)
}

fn link_to(path: FieldPath, entity_type: &EntityType, ids: &BTreeSet<i64>) -> Filter {
    let targets = ids.iter().map(|id| EntityRef::new(entity_type.clone(), *id)).collect();
    Filter::Leaf(Leaf { path, negated: false, test: Test::LinkTo(targets) })
}
