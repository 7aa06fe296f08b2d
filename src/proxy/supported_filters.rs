//! Which conditions the cache may answer: those that the scenarios prove on both
//! stores, by data type, relation and form of the operands.
//!
//! `tests/it/scenarios.rs` holds this table against the scenario files. What
//! a site does beyond it (`starts_with ""`, `not_in [""]`, a null among links)
//! no source tells, so it is not here.

use serde_json::Value;

use super::settings::Semantics;
use crate::entity::DataType;
use crate::filter::{FieldPath, Relation};

/// The columns of the table: data types that behave alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Column {
    Text,
    Whole,
    Float,
    Date,
    DateTime,
    Checkbox,
    Image,
    Choice,
    Exact,
    Link,
    Links,
}

impl Column {
    /// Returns the column of a data type; `None` for those of which no source
    /// shows how they are filtered.
    pub fn of(data_type: DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Text => Self::Text,
            DataType::Number | DataType::Percent | DataType::Duration | DataType::Timecode => Self::Whole,
            DataType::Float => Self::Float,
            DataType::Date => Self::Date,
            DataType::DateTime => Self::DateTime,
            DataType::Checkbox => Self::Checkbox,
            DataType::Image => Self::Image,
            DataType::List | DataType::StatusList | DataType::Color => Self::Choice,
            DataType::EntityType | DataType::Uuid => Self::Exact,
            DataType::Entity => Self::Link,
            DataType::MultiEntity => Self::Links,
            _ => return None,
        })
    }
}

/// The form of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Form {
    Null,
    Empty,
    Text,
    Number,
    Bool,
    Link,
    Other,
}

impl Form {
    /// Returns the form of an operand.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(text) if text.is_empty() => Self::Empty,
            // Whether the site sanitises `<` in operands as it does in values is
            // not known.
            Value::String(text) if text.contains('<') => Self::Other,
            Value::String(_) => Self::Text,
            Value::Object(object) if object.contains_key("type") && object.contains_key("id") => Self::Link,
            _ => Self::Other,
        }
    }
}

/// Tells whether scenarios prove a condition.
pub fn is_supported(data_type: DataType, relation: Relation, values: &[Value]) -> bool {
    let Some(column) = Column::of(data_type) else { return false };
    values.iter().all(|value| is_accepted(column, value) && is_supported_form(column, relation, Form::of(value)))
}

/// Tells whether every site accepts an operand of its form.
///
/// Whole numbers of a site have 32 bits: some refuse others, and some refuse a fraction
/// even where it is zero. A leap second is a moment to some parsers and refused by
/// others.
fn is_accepted(column: Column, value: &Value) -> bool {
    match (column, value) {
        (Column::Whole, Value::Number(number)) => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        (Column::DateTime, Value::String(text)) => {
            !text.split(':').nth(2).is_some_and(|seconds| seconds.starts_with("60"))
        }
        _ => true,
    }
}

/// Tells whether scenarios prove a relation with operands of this form.
pub fn is_supported_form(column: Column, relation: Relation, form: Form) -> bool {
    use Column as C;
    use Form as F;
    use Relation as R;
    match relation {
        R::Is | R::IsNot => match column {
            C::Text | C::Choice => matches!(form, F::Text | F::Null) || (column == C::Text && form == F::Empty),
            C::Whole | C::Float => matches!(form, F::Number | F::Null),
            C::Date | C::DateTime => matches!(form, F::Text | F::Null),
            C::Checkbox => form == F::Bool,
            C::Image => form == F::Null,
            C::Exact => form == F::Text,
            C::Link | C::Links => matches!(form, F::Link | F::Null),
        },
        R::In | R::NotIn => match column {
            C::Text | C::Choice | C::Exact | C::Date | C::DateTime => form == F::Text,
            C::Whole | C::Float => form == F::Number,
            C::Link | C::Links => form == F::Link,
            C::Checkbox | C::Image => false,
        },
        R::LessThan | R::GreaterThan | R::Between => match column {
            C::Whole | C::Float => form == F::Number,
            C::Date | C::DateTime => form == F::Text,
            _ => false,
        },
        R::Contains => column == C::Text && matches!(form, F::Text | F::Empty),
        R::NotContains | R::StartsWith | R::EndsWith => column == C::Text && form == F::Text,
        R::InLast | R::NotInLast | R::InNext | R::NotInNext => {
            matches!(column, C::Date | C::DateTime) && matches!(form, F::Number | F::Text)
        }
        R::InCalendarDay | R::InCalendarWeek | R::InCalendarMonth | R::InCalendarYear => {
            matches!(column, C::Date | C::DateTime) && form == F::Number
        }
        R::TypeIs | R::TypeIsNot | R::NameIs | R::NameContains | R::NameNotContains => {
            matches!(column, C::Link | C::Links) && form == F::Text
        }
        R::NotBetween | R::NameStartsWith | R::NameEndsWith => false,
    }
}

/// Returns the reading that a condition depends on, where sources disagree.
pub fn semantics(path: &FieldPath, relation: Relation, values: &[Value]) -> Option<Semantics> {
    let deep = !path.is_local();
    let null = values.first().is_some_and(Value::is_null);
    let ambiguous_negation = relation.is_negative() != (relation == Relation::IsNot && null);
    match relation {
        Relation::InLast | Relation::NotInLast | Relation::InNext | Relation::NotInNext
            if values.get(1).and_then(Value::as_str) != Some("HOUR") =>
        {
            Some(Semantics::RelativeDays)
        }
        // Whether it holds for rows without a value is disputed in every unit.
        Relation::NotInNext => Some(Semantics::RelativeDays),
        Relation::InCalendarWeek => Some(Semantics::Week),
        Relation::IsNot if null && path.is_multi() => Some(Semantics::ListNotNull),
        _ if deep && path.data_type == DataType::Checkbox && !is_surely_true(relation, values) => {
            Some(Semantics::DeepCheckbox)
        }
        Relation::Is if deep && null => Some(Semantics::DeepNegation),
        _ if deep && ambiguous_negation => Some(Semantics::DeepNegation),
        _ => None,
    }
}

/// `is true` fails behind an empty link in every reading.
fn is_surely_true(relation: Relation, values: &[Value]) -> bool {
    relation == Relation::Is && values.first() == Some(&Value::Bool(true))
}

/// Returns the reading that an order by a field depends on.
pub fn order_semantics(data_type: DataType) -> Option<Semantics> {
    match data_type {
        DataType::Text => Some(Semantics::TextOrder),
        DataType::List | DataType::StatusList | DataType::Color | DataType::Entity => Some(Semantics::LinkOrder),
        _ => None,
    }
}
