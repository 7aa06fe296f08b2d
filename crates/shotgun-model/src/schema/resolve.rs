//! Checks filters, orders and field lists against a schema.
//!
//! The words of the refusals are those of a site. What no source settles is
//! refused as [`FaultKind::Unproven`]: the simulated site says that it does not
//! simulate it, and the cache passes the query on.

use serde_json::Value;

use super::{EntitySchema, Schema};
use crate::entity::{DataType, EntityRef, EntityType, FieldValue, Shape, fold};
use crate::filter::{
    FieldPath, Filter, Hop, Leaf, RawFilter, RawLeaf, RawSort, Relation, Sort, Test, TextMatch, Unit, Window,
};

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterFault {
    /// What kind of refusal it is.
    pub kind: FaultKind,
    /// The words of the site, without the `API read() ` in front.
    pub message: String,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The path names a field or type that does not exist.
    UnknownPath,
    /// The data type does not know the relation, or cannot be filtered at all.
    Relation,
    /// The operands have the wrong number or form.
    Operand,
    /// A site has an answer, but no source tells which.
    Unproven,
}

type Result<T> = std::result::Result<T, FilterFault>;

fn refuse<T>(kind: FaultKind, message: impl Into<String>) -> Result<T> {
    Err(FilterFault { kind, message: message.into() })
}

impl Schema {
    /// Checks a filter for rows of `entity_type`.
    ///
    /// # Errors
    ///
    /// [`FilterFault`] for the first condition that does not fit.
    pub fn filter(&self, entity_type: &EntityType, raw: &RawFilter) -> Result<Filter> {
        match raw {
            RawFilter::Group { any, conditions } => {
                let conditions = conditions.iter().map(|c| self.filter(entity_type, c)).collect::<Result<Vec<_>>>()?;
                Ok(if *any { Filter::any(conditions) } else { Filter::All(conditions) })
            }
            RawFilter::Leaf(leaf) => Ok(Filter::Leaf(self.leaf(entity_type, leaf)?)),
        }
    }

    fn leaf(&self, entity_type: &EntityType, raw: &RawLeaf) -> Result<Leaf> {
        let Some(path) = self.path(entity_type, &raw.path) else {
            return refuse(FaultKind::UnknownPath, format!("{entity_type}.{} doesn't exist:\n{}", raw.path, ruby(raw)));
        };
        let relation = self.relation(entity_type, &path, raw)?;
        let positive = relation.positive();
        let (test, flipped) = operands(&path, positive, &raw.values)?;
        Ok(Leaf { path, negated: relation.is_negative() != flipped, test })
    }

    fn relation(&self, entity_type: &EntityType, path: &FieldPath, raw: &RawLeaf) -> Result<Relation> {
        let data_type = path.data_type;
        if !data_type.is_filterable() {
            let message = format!("{entity_type}.{path}'s '{data_type}' data type cannot be used in a filter.");
            return refuse(FaultKind::Relation, message);
        }
        let allowed = Relation::allowed(data_type);
        match raw.relation.parse::<Relation>() {
            Ok(relation) if allowed.contains(&relation) => Ok(relation),
            _ => {
                let names: Vec<_> = allowed.iter().map(|r| format!("\"{r}\"")).collect();
                let message = format!(
                    "{entity_type}.{path}'s '{data_type}' data type doesn't support '{}' 'relation'. Valid relations: [{}]",
                    raw.relation,
                    names.join(", ")
                );
                refuse(FaultKind::Relation, message)
            }
        }
    }

    /// Finds the field that a path names, or `None` when a field or type on the
    /// way does not exist.
    pub fn path(&self, entity_type: &EntityType, text: &str) -> Option<FieldPath> {
        let mut owner: &EntitySchema = self.entity(entity_type)?;
        let mut hops = Vec::new();
        let mut parts = text.split('.');
        loop {
            let name = parts.next()?;
            let field = owner.fields.get(name)?;
            let Some(next) = parts.next() else {
                return Some(FieldPath { hops, field: name.to_owned(), data_type: field.data_type });
            };
            let multi = match field.data_type.shape() {
                Shape::Link => false,
                Shape::Links => true,
                _ => return None,
            };
            owner = self.entity(&EntityType::new(next))?;
            hops.push(Hop { field: name.to_owned(), multi, entity_type: owner.entity_type.clone() });
        }
    }

    /// Keeps the fields of a list that exist; the site drops the others without a
    /// word. `type` and `id` are in every row and never in the result.
    pub fn fields(&self, entity_type: &EntityType, names: &[String]) -> Vec<FieldPath> {
        let wanted = names.iter().filter(|name| !matches!(name.as_str(), "type" | "id"));
        wanted.filter_map(|name| self.path(entity_type, name)).collect()
    }

    /// Keeps the keys of an order that have an effect; the site ignores the
    /// others.
    pub fn order(&self, entity_type: &EntityType, raw: &[RawSort]) -> Vec<Sort> {
        let known = raw.iter().filter_map(|sort| Some((self.path(entity_type, &sort.path)?, sort.descending)));
        known
            .filter(|(path, _)| path.data_type.is_sortable() && !path.is_multi())
            .map(|(path, descending)| Sort { path, descending })
            .collect()
    }
}

/// Reads the operands of a positive relation. The flag says that the test found
/// is the complement of what was asked (`contains ""` means "has a value").
fn operands(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<(Test, bool)> {
    arity(path, relation, values)?;
    let shape = path.data_type.shape();
    if matches!(path.data_type, DataType::Jsonb | DataType::TagList | DataType::Footage | DataType::Integer) {
        return unproven(path, relation, values);
    }
    let positive = |test| Ok((test, false));
    match (relation, shape) {
        (Relation::InLast | Relation::InNext, _) => positive(Test::Within(relative(path, relation, values)?)),
        (Relation::InCalendarDay, _) => positive(Test::Within(calendar(path, relation, Unit::Day, values)?)),
        (Relation::InCalendarWeek, _) => positive(Test::Within(calendar(path, relation, Unit::Week, values)?)),
        (Relation::InCalendarMonth, _) => positive(Test::Within(calendar(path, relation, Unit::Month, values)?)),
        (Relation::InCalendarYear, _) => positive(Test::Within(calendar(path, relation, Unit::Year, values)?)),
        (Relation::TypeIs, _) => positive(match values[0].as_str() {
            Some(name) => Test::LinkType(EntityType::new(name)),
            None if values[0].is_null() => Test::OneOf(Vec::new()),
            None => return bad_operand(path, relation, values),
        }),
        (Relation::NameIs, _) => text_test(path, relation, values, Test::LinkName, TextMatch::Is),
        (Relation::NameContains, _) => text_test(path, relation, values, Test::LinkName, TextMatch::Contains),
        (Relation::Contains, Shape::Text) => text_test(path, relation, values, Test::Text, TextMatch::Contains),
        (Relation::StartsWith, Shape::Text) => text_test(path, relation, values, Test::Text, TextMatch::StartsWith),
        (Relation::EndsWith, Shape::Text) => text_test(path, relation, values, Test::Text, TextMatch::EndsWith),
        (Relation::Is, Shape::Link | Shape::Links) if values[0].is_null() => positive(Test::Empty),
        (Relation::Is | Relation::In, Shape::Link | Shape::Links) => positive(link_test(path, relation, values)?),
        (Relation::Is, Shape::Presence) if values[0].is_null() => positive(Test::Empty),
        (Relation::Is, _) => positive(equal_test(path, relation, values)?),
        (Relation::In, _) => positive(one_of_test(path, relation, values)?),
        (Relation::LessThan, _) => positive(Test::Less(bound(path, relation, values, 0)?)),
        (Relation::GreaterThan, _) => positive(Test::Greater(bound(path, relation, values, 0)?)),
        (Relation::Between, _) => positive(between(path, relation, values)?),
        _ => unproven(path, relation, values),
    }
}

fn arity(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<()> {
    let fits = match relation {
        Relation::In => !values.is_empty(),
        Relation::Between | Relation::InLast | Relation::InNext => values.len() == 2,
        _ => values.len() == 1,
    };
    if fits {
        return Ok(());
    }
    let shown = Value::from(values.to_vec());
    let words = match relation {
        Relation::In => format!("'in' 'relation' expects at least a 1-element array: {shown}"),
        Relation::Between | Relation::InLast | Relation::InNext => {
            format!("'{relation}' 'relation' expects a 2-element array: {shown}")
        }
        _ => format!("'{relation}' 'relation' expects a 1-element array: {shown}"),
    };
    refuse(FaultKind::Operand, format!("{path}: {words}"))
}

fn bad_operand<T>(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<T> {
    let shown = Value::from(values.to_vec());
    let message = format!("'{relation}' 'relation' on '{path}' ('{}') does not accept {shown}", path.data_type);
    refuse(FaultKind::Operand, message)
}

fn unproven<T>(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<T> {
    let shown = Value::from(values.to_vec());
    let message = format!("'{relation}' {shown} on '{path}' ('{}') is not established", path.data_type);
    refuse(FaultKind::Unproven, message)
}

fn text_test(
    path: &FieldPath,
    relation: Relation,
    values: &[Value],
    make: fn(TextMatch, String) -> Test,
    how: TextMatch,
) -> Result<(Test, bool)> {
    match values[0].as_str() {
        // An empty needle asks for a value, whatever it is.
        Some("") => Ok((Test::Empty, true)),
        Some(needle) => Ok((make(how, fold(needle)), false)),
        None => unproven(path, relation, values),
    }
}

fn link_test(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<Test> {
    if values.iter().any(Value::is_null) {
        return unproven(path, relation, values);
    }
    let targets: Option<Vec<_>> = values.iter().map(EntityRef::from_json).collect();
    targets.map(Test::LinkTo).map_or_else(|| bad_operand(path, relation, values), Ok)
}

fn equal_test(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<Test> {
    let value = &values[0];
    let shape = path.data_type.shape();
    match shape {
        Shape::Presence => return unproven(path, relation, values),
        Shape::Bool if value.is_null() => return bad_operand(path, relation, values),
        Shape::ExactText if path.data_type == DataType::Uuid && value.is_null() => {
            return bad_operand(path, relation, values);
        }
        _ => {}
    }
    Ok(match scalar(path, relation, values, 0)? {
        FieldValue::Null => Test::Empty,
        value => Test::OneOf(vec![value]),
    })
}

fn one_of_test(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<Test> {
    if values.iter().any(Value::is_null) {
        // The site refuses null in a list of texts; for the other types no source
        // tells.
        let text = path.data_type == DataType::Text;
        return if text { bad_operand(path, relation, values) } else { unproven(path, relation, values) };
    }
    let mut wanted = Vec::new();
    for index in 0..values.len() {
        // `in [""]` matches nothing.
        match scalar(path, relation, values, index)? {
            FieldValue::Null => {}
            value => wanted.push(value),
        }
    }
    Ok(Test::OneOf(wanted))
}

fn between(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<Test> {
    if values.iter().any(Value::is_null) {
        return Ok(Test::OneOf(Vec::new()));
    }
    let (first, last) = (bound(path, relation, values, 0)?, bound(path, relation, values, 1)?);
    let reversed = match (&first, &last) {
        (FieldValue::Int(a), FieldValue::Int(b)) => a > b,
        (FieldValue::Float(a), FieldValue::Float(b)) => a > b,
        (FieldValue::Date(a), FieldValue::Date(b)) if a > b => return Ok(Test::Between(last, first)),
        (FieldValue::DateTime(a), FieldValue::DateTime(b)) if a > b => return Ok(Test::Between(last, first)),
        _ => false,
    };
    if reversed { unproven(path, relation, values) } else { Ok(Test::Between(first, last)) }
}

fn bound(path: &FieldPath, relation: Relation, values: &[Value], index: usize) -> Result<FieldValue> {
    if values[index].is_null() {
        return unproven(path, relation, values);
    }
    scalar(path, relation, values, index)
}

/// Reads an operand in the form that tests compare.
fn scalar(path: &FieldPath, relation: Relation, values: &[Value], index: usize) -> Result<FieldValue> {
    let parsed = match FieldValue::from_json(path.data_type, &values[index]) {
        Ok(value) => value,
        Err(_) => return bad_operand(path, relation, values),
    };
    Ok(match parsed {
        FieldValue::Text(text) if path.data_type.shape() == Shape::Text => FieldValue::Text(fold(&text)),
        other => other,
    })
}

fn relative(path: &FieldPath, relation: Relation, values: &[Value]) -> Result<Window> {
    let count = values[0].as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
    let unit = values[1].as_str().and_then(|word| word.parse::<Unit>().ok());
    match (count, unit, relation) {
        (Some(count), Some(unit), Relation::InLast) => Ok(Window::Last(count, unit)),
        (Some(count), Some(unit), _) => Ok(Window::Next(count, unit)),
        _ => bad_operand(path, relation, values),
    }
}

fn calendar(path: &FieldPath, relation: Relation, unit: Unit, values: &[Value]) -> Result<Window> {
    let offset = values[0].as_i64().and_then(|offset| i32::try_from(offset).ok());
    offset.map(|offset| Window::Calendar(unit, offset)).map_or_else(|| bad_operand(path, relation, values), Ok)
}

/// Prints a condition the way the site's Ruby does.
fn ruby(leaf: &RawLeaf) -> String {
    let values = Value::from(leaf.values.clone()).to_string().replace("\":", "\"=>");
    format!("{{\"values\"=>{values}, \"path\"=>{:?}, \"relation\"=>{:?}}}", leaf.path, leaf.relation)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
