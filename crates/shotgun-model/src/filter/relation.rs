//! The relations of the filter language and which data types allow which.
//!
//! The matrix is the one that the live engine lists in its own error texts;
//! relations that only documents mention are not in it.

use std::fmt;
use std::str::FromStr;

use crate::entity::{DataType, Shape};

macro_rules! relations {
    ($($variant:ident $name:literal),+ $(,)?) => {
        /// A relation of the filter language, by its wire name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs)] // The names are Shotgun's own.
        pub enum Relation { $($variant),+ }

        impl Relation {
            /// Every relation that any source mentions.
            pub const EVERY: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

relations! {
    Is "is", IsNot "is_not", In "in", NotIn "not_in",
    LessThan "less_than", GreaterThan "greater_than", Between "between", NotBetween "not_between",
    Contains "contains", NotContains "not_contains", StartsWith "starts_with", EndsWith "ends_with",
    InLast "in_last", NotInLast "not_in_last", InNext "in_next", NotInNext "not_in_next",
    InCalendarDay "in_calendar_day", InCalendarWeek "in_calendar_week",
    InCalendarMonth "in_calendar_month", InCalendarYear "in_calendar_year",
    TypeIs "type_is", TypeIsNot "type_is_not",
    NameIs "name_is", NameContains "name_contains", NameNotContains "name_not_contains",
    NameStartsWith "name_starts_with", NameEndsWith "name_ends_with",
}

use Relation::*;

const TEXT: &[Relation] = &[Is, IsNot, In, NotIn, Contains, NotContains, StartsWith, EndsWith];
const NUMBER: &[Relation] = &[Is, IsNot, In, NotIn, LessThan, GreaterThan, Between];
const DATE: &[Relation] = &[
    Is,
    IsNot,
    In,
    NotIn,
    LessThan,
    GreaterThan,
    Between,
    InLast,
    NotInLast,
    InNext,
    NotInNext,
    InCalendarDay,
    InCalendarWeek,
    InCalendarMonth,
    InCalendarYear,
];
const EQUAL: &[Relation] = &[Is, IsNot];
const CHOICE: &[Relation] = &[Is, IsNot, In, NotIn];
const LINK: &[Relation] = &[Is, IsNot, In, NotIn, TypeIs, TypeIsNot, NameIs, NameContains, NameNotContains];
const ADDRESSING: &[Relation] = &[
    Is,
    IsNot,
    In,
    Contains,
    NotContains,
    TypeIs,
    TypeIsNot,
    NameContains,
    NameNotContains,
    NameStartsWith,
    NameEndsWith,
];
const JSONB: &[Relation] = &[Is, IsNot, Contains, NotContains];

impl Relation {
    /// Returns the relations that a data type allows, in the site's words.
    pub fn allowed(data_type: DataType) -> &'static [Self] {
        match data_type {
            DataType::Addressing => ADDRESSING,
            DataType::Jsonb => JSONB,
            DataType::TagList => LINK,
            DataType::Text | DataType::SystemTaskType => TEXT,
            _ if !data_type.is_filterable() => &[],
            _ => match data_type.shape() {
                Shape::Text | Shape::ExactText => CHOICE,
                Shape::Int | Shape::Float => NUMBER,
                Shape::Date | Shape::DateTime => DATE,
                Shape::Bool | Shape::Presence => EQUAL,
                Shape::Link | Shape::Links => LINK,
                Shape::Opaque => &[],
            },
        }
    }

    /// Tells whether the relation is the complement of [`Relation::positive`].
    pub fn is_negative(self) -> bool {
        self.positive() != self
    }

    /// Returns the relation without its negation.
    pub fn positive(self) -> Self {
        match self {
            IsNot => Is,
            NotIn => In,
            NotBetween => Between,
            NotContains => Contains,
            NotInLast => InLast,
            NotInNext => InNext,
            TypeIsNot => TypeIs,
            NameNotContains => NameContains,
            other => other,
        }
    }
}

/// A word that is no relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown relation `{0}`")]
pub struct UnknownRelation(pub String);

impl FromStr for Relation {
    type Err = UnknownRelation;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::EVERY.iter().find(|relation| relation.as_str() == name);
        found.copied().ok_or_else(|| UnknownRelation(name.to_owned()))
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
