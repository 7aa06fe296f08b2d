//! The types that are followed, and which events of other types matter to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::entity::{EntityType, Shape};
use crate::entity_config::TypeLayout;
use crate::filter::{Filter, Test};
use crate::schema::{DEPENDENCIES, Dependency, display_name_field};

/// The layouts of all followed types and what follows from them.
#[derive(Clone, Debug, Default)]
pub struct Tracked {
    layouts: BTreeMap<EntityType, Arc<TypeLayout>>,
    /// Types that no layout has and some link points to: their names are kept.
    targets: BTreeSet<EntityType>,
    /// For a type, the types that links of it may point to.
    points_to: BTreeMap<EntityType, BTreeSet<EntityType>>,
    /// (type, field) on the way of an entity filter, and the types it filters.
    filters: BTreeMap<(EntityType, String), BTreeSet<EntityType>>,
    /// Types whose retirement or revival can change an entity filter's result.
    lifecycles: BTreeMap<EntityType, BTreeSet<EntityType>>,
}

impl Tracked {
    /// Derives everything from the layouts.
    pub fn new(layouts: impl IntoIterator<Item = TypeLayout>) -> Self {
        let layouts: BTreeMap<_, _> =
            layouts.into_iter().map(|layout| (layout.entity_type.clone(), Arc::new(layout))).collect();
        let mut tracked = Self { layouts, ..Self::default() };
        for layout in tracked.layouts.clone().values() {
            tracked.take_links(layout);
            tracked.take_filter(layout);
        }
        tracked
    }

    fn take_links(&mut self, layout: &TypeLayout) {
        let links = layout.fields.iter().filter(|field| matches!(field.data_type.shape(), Shape::Link | Shape::Links));
        let targets: BTreeSet<_> = links.flat_map(|field| field.valid_types.iter().cloned()).collect();
        let uncached = targets.iter().filter(|target| !self.layouts.contains_key(*target));
        self.targets.extend(uncached.cloned());
        self.points_to.insert(layout.entity_type.clone(), targets);
    }

    /// A filter over `entity.Shot.sg_sequence.Sequence.code` of a Task depends on
    /// (Shot, sg_sequence), (Sequence, code) and on which of them are retired.
    fn take_filter(&mut self, layout: &TypeLayout) {
        for leaf in layout.filter.leaves() {
            let hops = &leaf.path.hops;
            for (index, hop) in hops.iter().enumerate() {
                let field = hops.get(index + 1).map_or(&leaf.path.field, |next| &next.field);
                let dependency = (hop.entity_type.clone(), field.clone());
                self.filters.entry(dependency).or_default().insert(layout.entity_type.clone());
                self.lifecycles.entry(hop.entity_type.clone()).or_default().insert(layout.entity_type.clone());
            }
        }
    }

    /// Returns the layout of a followed type.
    pub fn layout(&self, entity_type: &EntityType) -> Option<&Arc<TypeLayout>> {
        self.layouts.get(entity_type)
    }

    /// Returns every layout, sorted by type.
    pub fn layouts(&self) -> impl Iterator<Item = &Arc<TypeLayout>> {
        self.layouts.values()
    }

    /// Tells whether rows of the type are stored.
    pub fn follows(&self, entity_type: &EntityType) -> bool {
        self.layouts.contains_key(entity_type)
    }

    /// Tells whether links of stored rows point to the type, which is not stored.
    pub fn names(&self, entity_type: &EntityType) -> bool {
        self.targets.contains(entity_type)
    }

    /// Tells whether links of rows of `holder` may point to `target`.
    pub fn may_link(&self, holder: &EntityType, target: &EntityType) -> bool {
        self.points_to.get(holder).is_some_and(|targets| targets.contains(target))
    }

    /// Returns the dependencies of cached derived fields on entities of a type.
    pub fn dependencies_on(&self, source: &EntityType) -> impl Iterator<Item = &'static Dependency> {
        DEPENDENCIES.iter().filter(move |dependency| {
            *source == *dependency.source
                && self.layouts.values().any(|layout| layout.field(dependency.field).is_some())
        })
    }

    /// Tells whether rows of a type have the derived field of a dependency.
    pub fn shows(&self, holder: &EntityType, dependency: &Dependency) -> bool {
        self.layout(holder).is_some_and(|layout| layout.field(dependency.field).is_some())
    }

    /// Tells whether cached derived fields follow from a field of entities of a type.
    pub fn derives_from(&self, source: &EntityType, field: &str) -> bool {
        self.dependencies_on(source).any(|dependency| dependency.source_fields.contains(&field))
    }

    /// Returns the followed types whose rows may link to entities of a type.
    pub fn holders(&self, target: &EntityType) -> Vec<EntityType> {
        self.layouts.keys().filter(|holder| self.may_link(holder, target)).cloned().collect()
    }

    /// Returns the followed types whose entity filter depends on a field.
    pub fn filtered_by(&self, entity_type: &EntityType, field: &str) -> BTreeSet<EntityType> {
        let mut types = self.filters.get(&(entity_type.clone(), field.to_owned())).cloned().unwrap_or_default();
        // A link's name may be what a filter looks at.
        if field == display_name_field(entity_type) || field == "cached_display_name" {
            types.extend(self.filtered_by_name(entity_type));
        }
        types
    }

    fn filtered_by_name(&self, target: &EntityType) -> impl Iterator<Item = EntityType> {
        let by_name = |layout: &&Arc<TypeLayout>| {
            let named = |leaf: &&crate::filter::Leaf| matches!(leaf.test, Test::LinkName(..));
            layout.filter.leaves().iter().any(named) && self.may_link(&layout.entity_type, target)
        };
        self.layouts.values().filter(by_name).map(|layout| layout.entity_type.clone()).collect::<Vec<_>>().into_iter()
    }

    /// Returns the followed types whose entity filter looks at entities of a type
    /// that can be retired.
    pub fn filtered_by_life_of(&self, entity_type: &EntityType) -> BTreeSet<EntityType> {
        let mut types = self.lifecycles.get(entity_type).cloned().unwrap_or_default();
        // `sg_sequence is Sequence 5` and `sg_sequence is_not None` change, too, when
        // the target of the link is retired.
        for layout in self.layouts.values().filter(|layout| !layout.filter.is_everything()) {
            let linking = |leaf: &&crate::filter::Leaf| {
                layout.field(&leaf.path.field).is_none_or(|field| field.valid_types.contains(entity_type))
                    && matches!(leaf.path.data_type.shape(), Shape::Link | Shape::Links)
            };
            if layout.filter.leaves().iter().any(linking) {
                types.insert(layout.entity_type.clone());
            }
        }
        types
    }

    /// Returns the followed types whose filter changes with the clock alone.
    pub fn filtered_by_time(&self) -> impl Iterator<Item = &EntityType> {
        let moves = |filter: &Filter| filter.leaves().iter().any(|leaf| matches!(leaf.test, Test::Within(_)));
        self.layouts.values().filter(move |layout| moves(&layout.filter)).map(|layout| &layout.entity_type)
    }
}
