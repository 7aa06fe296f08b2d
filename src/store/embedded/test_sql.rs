//! The tests of a filter as SQL conditions on the columns of one row.

use rusqlite::types::Value as Sql;

use super::super::{Result, StoreError};
use super::column::{Column, operand};
use super::plan::{Place, Planner};
use crate::entity::{EntityRef, FieldValue, Shape};
use crate::filter::{FieldPath, Test, TextMatch};

/// More operands than this become one parameter: SQLite has a limit of them.
const MANY: usize = 100;

/// Returns the condition that the row at `place` passes a test.
pub(super) fn condition(planner: &mut Planner<'_>, place: Place<'_>, path: &FieldPath, test: &Test) -> Result<String> {
    if path.field == "id" {
        return scalar(planner, &format!("{}.id", place.alias), test, path);
    }
    let column = place.column(&path.field)?;
    match column.shape() {
        Shape::Link => {
            let (ty, id) = place.link(&column);
            single_link(planner, &ty, &id, test, path)
        }
        Shape::Links => list_of_links(planner, place, &column, test, path),
        _ => scalar(planner, &format!("{}.{}", place.alias, column.name()), test, path),
    }
}

/// Returns the condition that a target is known to be retired or absent.
pub(super) fn dead(ty: &str, id: &str) -> String {
    format!("EXISTS (SELECT 1 FROM targets x WHERE x.type = {ty} AND x.id = {id} AND x.dead = 1)")
}

/// Returns the value that a row sorts by: the column, or the folded name of the
/// target of a link.
pub(super) fn sort_value(place: Place<'_>, path: &FieldPath) -> Result<String> {
    if path.field == "id" {
        return Ok(format!("{}.id", place.alias));
    }
    let column = place.column(&path.field)?;
    if column.shape() != Shape::Link {
        return Ok(format!("{}.{}", place.alias, column.name()));
    }
    let (ty, id) = place.link(&column);
    Ok(format!("(SELECT nullif(x.folded, '') FROM targets x WHERE x.type = {ty} AND x.id = {id} AND x.dead = 0)"))
}

fn scalar(planner: &mut Planner<'_>, column: &str, test: &Test, path: &FieldPath) -> Result<String> {
    Ok(match test {
        Test::Empty => format!("{column} IS NULL"),
        Test::OneOf(values) => one_of(planner, column, values),
        Test::Less(bound) => format!("{column} < {}", planner.bind(operand(bound))),
        Test::Greater(bound) => format!("{column} > {}", planner.bind(operand(bound))),
        Test::Between(first, last) => {
            format!("{column} BETWEEN {} AND {}", planner.bind(operand(first)), planner.bind(operand(last)))
        }
        Test::Text(how, needle) => text(planner, column, *how, needle),
        Test::LinkTo(_) | Test::LinkType(_) | Test::LinkName(..) | Test::Within(_) => return meaningless(path),
    })
}

fn one_of(planner: &mut Planner<'_>, column: &str, values: &[FieldValue]) -> String {
    if values.is_empty() {
        return "0".to_owned();
    }
    if values.len() > MANY && values.iter().all(|value| matches!(value, FieldValue::Int(_) | FieldValue::Text(_))) {
        let list: serde_json::Value = values.iter().map(FieldValue::to_json).collect();
        return format!("{column} IN (SELECT value FROM json_each({}))", planner.bind(Sql::Text(list.to_string())));
    }
    let places: Vec<_> = values.iter().map(|value| planner.bind(operand(value))).collect();
    format!("{column} IN ({})", places.join(", "))
}

fn text(planner: &mut Planner<'_>, column: &str, how: TextMatch, needle: &str) -> String {
    // No LIKE: it has wildcards to escape and folds ASCII by itself.
    let length = needle.chars().count();
    let place = planner.bind(Sql::Text(needle.to_owned()));
    match how {
        TextMatch::Is => format!("{column} = {place}"),
        TextMatch::Contains => format!("instr({column}, {place}) > 0"),
        TextMatch::StartsWith => match end_of_prefix(needle) {
            // A range can use an index, a function cannot.
            Some(end) => format!("({column} >= {place} AND {column} < {})", planner.bind(Sql::Text(end))),
            None => format!("substr({column}, 1, {length}) = {place}"),
        },
        TextMatch::EndsWith if length == 0 => format!("{column} >= {place}"),
        TextMatch::EndsWith => format!("substr({column}, -{length}) = {place}"),
    }
}

/// Returns the first text after all texts with this prefix.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    let last = kept.pop()?;
    let after = ((last as u32 + 1)..=(char::MAX as u32)).find_map(char::from_u32)?;
    kept.push(after);
    Some(kept)
}

fn single_link(planner: &mut Planner<'_>, ty: &str, id: &str, test: &Test, path: &FieldPath) -> Result<String> {
    if *test == Test::Empty {
        return Ok(format!("({id} IS NULL OR {})", dead(ty, id)));
    }
    let condition = link(planner, ty, id, test, path)?;
    Ok(format!("({condition} AND NOT {})", dead(ty, id)))
}

fn list_of_links(
    planner: &mut Planner<'_>,
    place: Place<'_>,
    column: &Column,
    test: &Test,
    path: &FieldPath,
) -> Result<String> {
    let (alias, links, field) = (place.alias, place.tables.links(), column.number);
    let dead = dead("l.type", "l.target");
    if *test == Test::Empty {
        return Ok(format!(
            "NOT EXISTS (SELECT 1 FROM {links} l WHERE l.id = {alias}.id AND l.field = {field} AND NOT {dead})"
        ));
    }
    let condition = link(planner, "l.type", "l.target", test, path)?;
    Ok(format!("{alias}.id IN (SELECT l.id FROM {links} l WHERE l.field = {field} AND {condition} AND NOT {dead})"))
}

/// Returns the condition on one link that is not null.
fn link(planner: &mut Planner<'_>, ty: &str, id: &str, test: &Test, path: &FieldPath) -> Result<String> {
    Ok(match test {
        Test::LinkTo(targets) => link_to(planner, ty, id, targets),
        Test::LinkType(wanted) => format!("{ty} = {}", planner.layouts.number(wanted.as_str())),
        Test::LinkName(how, needle) => {
            let named = text(planner, "x.folded", *how, needle);
            format!("EXISTS (SELECT 1 FROM targets x WHERE x.type = {ty} AND x.id = {id} AND {named})")
        }
        Test::OneOf(values) if values.is_empty() => "0".to_owned(),
        _ => return meaningless(path),
    })
}

fn link_to(planner: &mut Planner<'_>, ty: &str, id: &str, targets: &[EntityRef]) -> String {
    let mut types: Vec<_> = targets.iter().map(|target| &target.entity_type).collect();
    types.sort();
    types.dedup();
    let mut parts = Vec::new();
    for wanted in types {
        let of_type = targets.iter().filter(|target| target.entity_type == *wanted);
        let ids: Vec<_> = of_type.map(|target| FieldValue::Int(target.id)).collect();
        let number = planner.layouts.number(wanted.as_str());
        parts.push(format!("({ty} = {number} AND {})", one_of(planner, id, &ids)));
    }
    if parts.is_empty() { "0".to_owned() } else { format!("({})", parts.join(" OR ")) }
}

/// The catalogue refuses these before they come here.
fn meaningless<T>(path: &FieldPath) -> Result<T> {
    Err(StoreError::unsupported(format!("`{path}` ({}) cannot be filtered this way", path.data_type)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_character() {
        assert_eq!(end_of_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(end_of_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(end_of_prefix("\u{10ffff}"), None);
    }
}
