//! The filter tree, its syntaxes, and queries.
//!
//! A filter arrives as a [`RawFilter`] (the wire form or the list syntax of the
//! Python client), is checked against the schema by `schema`, and is from then on
//! a [`Filter`]: a tree that cannot name an unknown field or relation. Three
//! readers evaluate the same tree: `eval` here, SQL and Elasticsearch in
//! `store`. This module knows neither backends nor HTTP.
//!
//! Every negative relation of Shotgun is the complement of its positive one,
//! rows without a value included; so a leaf is a positive [`Test`] and a flag.

mod eval;
mod path;
mod query;
mod raw;
mod relation;
mod reading;
mod window;

use std::collections::BTreeSet;
use std::fmt;

use crate::entity::{EntityRef, EntityType, FieldValue, Timestamp};

pub use eval::{Rows, compare, matches, resolve_links};
pub use path::{FieldPath, Hop};
pub use query::{Only, Page, Query, Sort};
pub use raw::{RawFilter, RawLeaf, RawSort, SyntaxError, parse_fields, parse_order};
pub use reading::Readings;
pub use relation::Relation;
pub use window::{Unit, Window};

/// A filter that fits the schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every condition holds; none at all means every row.
    All(Vec<Filter>),
    /// One condition holds. Never empty: an empty group matches every row and is
    /// an empty [`Filter::All`].
    Any(Vec<Filter>),
    /// One condition.
    Leaf(Leaf),
}

/// One condition of a filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Leaf {
    /// The field, reached through links or not.
    pub path: FieldPath,
    /// Whether the rows that fail [`Leaf::test`] are wanted.
    pub negated: bool,
    /// The condition on the value.
    pub test: Test,
}

/// A condition on the value of a field.
///
/// Texts are folded already ([`crate::entity::fold`]) where the data type ignores
/// case. No test but [`Test::Empty`] holds for a row without a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// There is no value, no live link, or an empty list.
    Empty,
    /// The value is one of these; with no value, nothing matches. Never links.
    OneOf(Vec<FieldValue>),
    /// The value is smaller.
    Less(FieldValue),
    /// The value is greater.
    Greater(FieldValue),
    /// The value lies between the two, both included, the smaller one first.
    Between(FieldValue, FieldValue),
    /// The text relates to the needle.
    Text(TextMatch, String),
    /// A link points to one of these.
    LinkTo(Vec<EntityRef>),
    /// A link points to an entity of this type.
    LinkType(EntityType),
    /// The display name of a linked entity relates to the needle.
    LinkName(TextMatch, String),
    /// The moment or day lies in a window around now; see [`Filter::at`].
    Within(Window),
}

/// How a text is compared with a needle; both are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// The texts are equal.
    Is,
    /// The needle occurs in the text.
    Contains,
    /// The text begins with the needle.
    StartsWith,
    /// The text ends with the needle.
    EndsWith,
}

impl TextMatch {
    /// Compares a folded text with a folded needle.
    pub fn holds(self, text: &str, needle: &str) -> bool {
        match self {
            Self::Is => text == needle,
            Self::Contains => text.contains(needle),
            Self::StartsWith => text.starts_with(needle),
            Self::EndsWith => text.ends_with(needle),
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::everything()
    }
}

impl Filter {
    /// Returns the filter that every row passes.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Combines conditions with `or`; none at all matches every row, as on the
    /// site.
    pub fn any(conditions: Vec<Self>) -> Self {
        if conditions.is_empty() { Self::everything() } else { Self::Any(conditions) }
    }

    /// Combines two filters with `and`.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::All(a), b) if a.is_empty() => b,
            (a, Self::All(b)) if b.is_empty() => a,
            (Self::All(mut a), Self::All(b)) => {
                a.extend(b);
                Self::All(a)
            }
            (a, b) => Self::All(vec![a, b]),
        }
    }

    /// Makes the condition `id in [...]`.
    pub fn ids(ids: impl IntoIterator<Item = i64>) -> Self {
        Self::id(Test::OneOf(ids.into_iter().map(FieldValue::Int).collect()))
    }

    /// Makes the condition `id > after`.
    pub fn id_after(after: i64) -> Self {
        Self::id(Test::Greater(FieldValue::Int(after)))
    }

    /// Makes the condition that the id lies in `first..=last`.
    pub fn id_between(first: i64, last: i64) -> Self {
        Self::id(Test::Between(FieldValue::Int(first), FieldValue::Int(last)))
    }

    fn id(test: Test) -> Self {
        Self::Leaf(Leaf { path: FieldPath::id(), negated: false, test })
    }

    /// Returns the only ids that can pass, where a condition that always applies names
    /// them.
    pub fn only_ids(&self) -> Option<BTreeSet<i64>> {
        match self {
            Self::All(conditions) => conditions.iter().find_map(Self::only_ids),
            Self::Leaf(Leaf { path, negated: false, test: Test::OneOf(values) })
                if path.is_local() && path.field == "id" =>
            {
                let id = |value: &FieldValue| if let FieldValue::Int(id) = value { Some(*id) } else { None };
                values.iter().map(id).collect()
            }
            Self::Any(_) | Self::Leaf(_) => None,
        }
    }

    /// Tells whether every row passes because nothing is asked.
    pub fn is_everything(&self) -> bool {
        match self {
            Self::All(conditions) => conditions.iter().all(Self::is_everything),
            Self::Any(conditions) => conditions.iter().any(Self::is_everything),
            Self::Leaf(_) => false,
        }
    }

    /// Returns every condition of the tree, from left to right.
    pub fn leaves(&self) -> Vec<&Leaf> {
        match self {
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().flat_map(Self::leaves).collect(),
            Self::Leaf(leaf) => vec![leaf],
        }
    }

    /// Returns the filter with every window around `now` as absolute bounds.
    ///
    /// `now` is the time of the site, never the local clock.
    pub fn at(&self, now: Timestamp) -> Self {
        match self {
            Self::All(conditions) => Self::All(conditions.iter().map(|c| c.at(now)).collect()),
            Self::Any(conditions) => Self::Any(conditions.iter().map(|c| c.at(now)).collect()),
            Self::Leaf(leaf) => Self::Leaf(leaf.at(now)),
        }
    }
}

impl Leaf {
    fn at(&self, now: Timestamp) -> Self {
        let Test::Within(window) = &self.test else {
            return self.clone();
        };
        let (first, last) = window.bounds(self.path.data_type, now);
        Self { path: self.path.clone(), negated: self.negated, test: Test::Between(first, last) }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (conditions, word) = match self {
            Self::Leaf(leaf) => {
                let sign = if leaf.negated { "not " } else { "" };
                return write!(f, "{sign}{} {:?}", leaf.path, leaf.test);
            }
            Self::All(conditions) => (conditions, " and "),
            Self::Any(conditions) => (conditions, " or "),
        };
        f.write_str("(")?;
        for (index, condition) in conditions.iter().enumerate() {
            if index > 0 {
                f.write_str(word)?;
            }
            write!(f, "{condition}")?;
        }
        f.write_str(")")
    }
}
