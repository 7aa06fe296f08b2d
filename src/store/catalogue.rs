//! What is cached, as far as the answerability of a query depends on it.
//!
//! Both backends ask here before they plan a query, so that they refuse the same
//! queries for the same reasons.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Result, StoreError};
use crate::entity::{DataType, EntityType, FieldValue, Shape};
use crate::entity_config::TypeLayout;
use crate::filter::{FieldPath, Filter, Hop, Leaf, Query, Test};

/// What a store remembers of a layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CachedType {
    /// The type.
    pub entity_type: EntityType,
    /// The cached fields, without `type` and `id`.
    pub fields: BTreeMap<String, DataType>,
    /// Whether the entity config has a filter, so that entities are missing.
    pub partial: bool,
    /// The hash of the layout.
    pub hash: String,
}

impl CachedType {
    /// Takes from a layout what a store has to remember.
    pub fn of(layout: &TypeLayout) -> Self {
        Self {
            entity_type: layout.entity_type.clone(),
            fields: layout.fields.iter().map(|field| (field.name.clone(), field.data_type)).collect(),
            partial: !layout.filter.is_everything(),
            hash: layout.hash.clone(),
        }
    }

    /// Returns the data type of a field; `id` is always there.
    pub fn data_type(&self, field: &str) -> Option<DataType> {
        if field == "id" { Some(DataType::Number) } else { self.fields.get(field).copied() }
    }
}

/// The cached types by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// The types.
    pub types: BTreeMap<EntityType, CachedType>,
}

impl Catalogue {
    /// Returns a type.
    ///
    /// # Errors
    ///
    /// [`super::StoreErrorKind::UnknownType`].
    pub fn get(&self, entity_type: &EntityType) -> Result<&CachedType> {
        self.types.get(entity_type).ok_or_else(|| StoreError::unknown_type(entity_type))
    }

    /// Checks that a query can be answered as the site would, and returns its
    /// whole filter: with the condition on archived projects, where it is asked
    /// for.
    ///
    /// # Errors
    ///
    /// [`super::StoreErrorKind::Unsupported`] with the first reason, or
    /// [`super::StoreErrorKind::UnknownType`] for the type of the rows.
    pub fn check(&self, query: &Query) -> Result<Filter> {
        let entity_type = &query.entity_type;
        let cached = self.get(entity_type)?;
        let mut filter = query.filter.clone();
        if !query.include_archived_projects && *entity_type != "Project" {
            if cached.data_type("project") != Some(DataType::Entity) {
                return Err(StoreError::unsupported(format!(
                    "`{entity_type}.project` is not cached, so archived projects cannot be left out"
                )));
            }
            filter = filter.and(not_archived());
        }
        for leaf in filter.leaves() {
            self.check_path(entity_type, &leaf.path)?;
            check_test(leaf)?;
        }
        let effective = query.order.iter().filter(|key| key.path.data_type.is_sortable() && !key.path.is_multi());
        for path in effective.map(|key| &key.path).chain(query.fields.iter().filter(|path| !path.is_multi())) {
            self.check_path(entity_type, path)?;
        }
        Ok(filter)
    }

    /// Checks that a path stays within what is cached.
    ///
    /// # Errors
    ///
    /// [`super::StoreErrorKind::Unsupported`] with the reason.
    pub fn check_path(&self, entity_type: &EntityType, path: &FieldPath) -> Result<()> {
        let mut owner = self.get(entity_type)?;
        for hop in &path.hops {
            check_field(owner, &hop.field)?;
            let Some(next) = self.types.get(&hop.entity_type) else {
                return Err(StoreError::unsupported(format!("`{}` is not cached (path `{path}`)", hop.entity_type)));
            };
            if next.partial {
                return Err(StoreError::unsupported(format!(
                    "`{}` is cached in part only (path `{path}`)",
                    hop.entity_type
                )));
            }
            owner = next;
        }
        let data_type = check_field(owner, &path.field)?;
        if data_type == path.data_type {
            return Ok(());
        }
        Err(StoreError::unsupported(format!(
            "`{}.{}` is cached as `{data_type}` and asked for as `{}`",
            owner.entity_type, path.field, path.data_type
        )))
    }
}

fn check_field(owner: &CachedType, field: &str) -> Result<DataType> {
    owner
        .data_type(field)
        .ok_or_else(|| StoreError::unsupported(format!("`{}.{field}` is not cached", owner.entity_type)))
}

/// Refuses what the header of `filter::eval` gives no meaning to.
fn check_test(leaf: &Leaf) -> Result<()> {
    let shape = leaf.path.data_type.shape();
    let links = matches!(shape, Shape::Link | Shape::Links);
    let fits = match &leaf.test {
        Test::Within(_) => return Err(StoreError::unsupported(format!("`{}` is relative to now", leaf.path))),
        Test::Empty => shape != Shape::Opaque,
        // `type_is null` arrives as this.
        Test::OneOf(values) if links => values.is_empty(),
        Test::OneOf(_) => !matches!(shape, Shape::Presence | Shape::Opaque),
        Test::Less(_) | Test::Greater(_) | Test::Between(..) => {
            matches!(shape, Shape::Int | Shape::Float | Shape::Date | Shape::DateTime)
        }
        Test::Text(..) => shape == Shape::Text,
        Test::LinkTo(_) | Test::LinkType(_) | Test::LinkName(..) => links,
    };
    if fits {
        return Ok(());
    }
    Err(StoreError::unsupported(format!("`{}` ({}) cannot be filtered this way", leaf.path, leaf.path.data_type)))
}

/// The site leaves out the entities of archived projects; entities without a
/// project stay.
fn not_archived() -> Filter {
    let hop = Hop { field: "project".into(), multi: false, entity_type: "Project".into() };
    let path = FieldPath { hops: vec![hop], field: "archived".into(), data_type: DataType::Checkbox };
    Filter::Leaf(Leaf { path, negated: true, test: Test::OneOf(vec![FieldValue::Bool(true)]) })
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
