//! What is asked of a site or of a store: rows of one type.

use super::{FieldPath, Filter};
use crate::entity::EntityType;

/// A question for rows of one entity type.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The type of the rows.
    pub entity_type: EntityType,
    /// Which rows.
    pub filter: Filter,
    /// The fields to return besides `type` and `id`.
    pub fields: Vec<FieldPath>,
    /// The order, most significant first; the id, ascending, is always the last.
    pub order: Vec<Sort>,
    /// Which part of the result.
    pub page: Page,
    /// Active or retired rows.
    pub only: Only,
    /// Whether entities of archived projects are returned; the site does so
    /// by default.
    pub include_archived_projects: bool,
}

impl Query {
    /// Asks for every active row of a type, ids only, in one endless page.
    pub fn all(entity_type: impl Into<EntityType>) -> Self {
        Self {
            entity_type: entity_type.into(),
            filter: Filter::everything(),
            fields: Vec::new(),
            order: Vec::new(),
            page: Page::everything(),
            only: Only::Active,
            include_archived_projects: true,
        }
    }

    /// Asks with this filter.
    pub fn filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Asks for these fields.
    pub fn fields(self, fields: Vec<FieldPath>) -> Self {
        Self { fields, ..self }
    }

    /// Asks for this order.
    pub fn order(self, order: Vec<Sort>) -> Self {
        Self { order, ..self }
    }

    /// Asks for this page.
    pub fn page(self, page: Page) -> Self {
        Self { page, ..self }
    }
}

/// One key of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The field; links sort by the display name of their target.
    pub path: FieldPath,
    /// Whether greater values come first. Rows without a value are last in both
    /// directions.
    pub descending: bool,
}

/// A page of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows per page, at least 1.
    pub size: u32,
    /// The number of the page, counted from 1.
    pub number: u32,
}

impl Page {
    /// Returns the first page of this size.
    pub fn first(size: u32) -> Self {
        Self { size, number: 1 }
    }

    /// Returns the page that holds everything.
    pub fn everything() -> Self {
        Self::first(u32::MAX)
    }

    /// Returns the number of rows before the page.
    pub fn offset(self) -> u64 {
        u64::from(self.size) * u64::from(self.number.saturating_sub(1))
    }
}

/// Active or retired rows; the site never mixes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Only {
    /// Rows that are not retired.
    #[default]
    Active,
    /// Retired rows.
    Retired,
}

impl Only {
    /// Returns the word of the wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}
