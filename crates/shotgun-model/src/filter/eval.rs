//! Local evaluation of a filter: what a row must be to pass it.
//!
//! The simulated site answers with it, and the property tests hold both stores
//! against it, so the rules stand here in full:
//!
//! - a link to a retired entity counts as no link;
//! - a path through single links that ends nowhere has no value: `is null` and
//!   every negation hold, nothing else does, not even `is false` on a checkbox;
//! - a path through a list of links asks whether some element passes, elements of
//!   another type left out; its negation is the negation of that whole question;
//! - only `is null` holds for a row without a value, and negations include it.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{FieldPath, Filter, Leaf, Readings, Sort, Test};
use crate::entity::{DataType, EntityRef, FieldValue, Link, Shape, fold};

/// The rows that a filter is evaluated over.
pub trait Rows<'a> {
    /// A handle of one row.
    type Row: Copy;

    /// Returns an active row, or `None` when there is none of that id.
    fn row(&self, target: &EntityRef) -> Option<Self::Row>;

    /// Returns what a row points to.
    fn key(&self, row: Self::Row) -> EntityRef;

    /// Returns the value of a field of a row; links to retired entities may be in
    /// it. A field that the row does not have is [`FieldValue::Null`].
    fn value(&self, row: Self::Row, field: &str) -> Cow<'a, FieldValue>;

    /// Tells whether the entity is known to be retired or gone.
    fn is_retired(&self, target: &EntityRef) -> bool;

    /// Returns the display name of a target; `link` holds the one that came with
    /// the link, for targets that are not in these rows.
    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>>;

    /// Returns how disputed rules are read.
    fn readings(&self) -> Readings {
        Readings::default()
    }
}

/// Tells whether a row passes a filter.
///
/// Windows around now must have been made absolute by [`Filter::at`]; one that
/// was not matches nothing.
pub fn matches<'a, R: Rows<'a>>(filter: &Filter, rows: &R, row: R::Row) -> bool {
    match filter {
        Filter::All(conditions) => conditions.iter().all(|condition| matches(condition, rows, row)),
        Filter::Any(conditions) => conditions.iter().any(|condition| matches(condition, rows, row)),
        Filter::Leaf(leaf) => disputed(leaf, rows, row).unwrap_or_else(|| leaf_holds(leaf, rows, row) != leaf.negated),
    }
}

fn leaf_holds<'a, R: Rows<'a>>(leaf: &Leaf, rows: &R, row: R::Row) -> bool {
    let reached = reach(&leaf.path, rows, row);
    if reached.is_empty() {
        return !leaf.path.is_multi() && leaf.test == Test::Empty;
    }
    reached.into_iter().any(|row| value_passes(&leaf.test, &leaf.path, rows, &rows.value(row, &leaf.path.field)))
}

/// Decides a condition that is read another way than by default.
fn disputed<'a, R: Rows<'a>>(leaf: &Leaf, rows: &R, row: R::Row) -> Option<bool> {
    let readings = rows.readings();
    if leaf.path.is_local() || readings == Readings::default() {
        return None;
    }
    let reached = reach(&leaf.path, rows, row);
    if leaf.path.is_multi() {
        let asks_for_value = readings.not_null_needs_value && leaf.negated && leaf.test == Test::Empty;
        let has_value = |row| !value_passes(&leaf.test, &leaf.path, rows, &rows.value(row, &leaf.path.field));
        return asks_for_value.then(|| reached.into_iter().any(has_value));
    }
    if !reached.is_empty() {
        return None;
    }
    if readings.no_match_through_retired && leads_to_retired(&leaf.path, rows, row) {
        return Some(false);
    }
    let Test::OneOf(values) = &leaf.test else { return None };
    match (values.as_slice(), leaf.negated) {
        ([FieldValue::Bool(false)], false) if readings.false_behind_empty_link => Some(true),
        ([FieldValue::Bool(true)], true) if readings.not_true_needs_link => Some(false),
        _ => None,
    }
}

/// Tells whether a path ends because an entity on it is retired.
fn leads_to_retired<'a, R: Rows<'a>>(path: &FieldPath, rows: &R, row: R::Row) -> bool {
    let mut here = row;
    for hop in &path.hops {
        let value = rows.value(here, &hop.field);
        let Some(link) = value.links().first() else { return false };
        if rows.is_retired(&link.target) {
            return true;
        }
        let Some(next) = rows.row(&link.target) else { return false };
        here = next;
    }
    false
}

/// Follows the hops of a path and returns every row at its end.
fn reach<'a, R: Rows<'a>>(path: &FieldPath, rows: &R, row: R::Row) -> Vec<R::Row> {
    let mut here = vec![row];
    for hop in &path.hops {
        let mut next = Vec::new();
        for row in here {
            let value = rows.value(row, &hop.field);
            let targets = value.links().iter().map(|link| &link.target);
            let wanted = targets.filter(|target| target.entity_type == hop.entity_type);
            next.extend(wanted.filter(|target| !rows.is_retired(target)).filter_map(|target| rows.row(target)));
        }
        here = next;
    }
    here
}

fn value_passes<'a, R: Rows<'a>>(test: &Test, path: &FieldPath, rows: &R, value: &FieldValue) -> bool {
    if matches!(path.data_type.shape(), Shape::Link | Shape::Links) {
        return links_pass(test, rows, value.links());
    }
    match test {
        Test::Empty => value.is_empty(),
        Test::OneOf(wanted) => {
            let value = comparable(path.data_type, value);
            wanted.iter().any(|wanted| order(&value, wanted) == Some(Ordering::Equal))
        }
        Test::Less(bound) => order(value, bound) == Some(Ordering::Less),
        Test::Greater(bound) => order(value, bound) == Some(Ordering::Greater),
        Test::Between(first, last) => {
            let above = matches!(order(value, first), Some(Ordering::Greater | Ordering::Equal));
            above && matches!(order(value, last), Some(Ordering::Less | Ordering::Equal))
        }
        Test::Text(how, needle) => match value {
            FieldValue::Text(text) => how.holds(&fold(text), needle),
            _ => false,
        },
        Test::LinkTo(_) | Test::LinkType(_) | Test::LinkName(..) | Test::Within(_) => false,
    }
}

fn links_pass<'a, R: Rows<'a>>(test: &Test, rows: &R, links: &[Link]) -> bool {
    let mut live = links.iter().filter(|link| !rows.is_retired(&link.target));
    match test {
        Test::Empty => live.next().is_none(),
        Test::LinkTo(targets) => live.any(|link| targets.contains(&link.target)),
        Test::LinkType(entity_type) => live.any(|link| link.target.entity_type == *entity_type),
        Test::LinkName(how, needle) => {
            live.any(|link| rows.display_name(link).is_some_and(|name| how.holds(&fold(&name), needle)))
        }
        _ => false,
    }
}

/// Returns the value in the form that tests and sorts compare: texts folded
/// where the data type ignores case.
fn comparable(data_type: DataType, value: &FieldValue) -> FieldValue {
    match value {
        FieldValue::Text(text) if data_type.shape() == Shape::Text => FieldValue::Text(fold(text)),
        other => other.clone(),
    }
}

/// Compares two values of one data type; `None` when one of them is null.
fn order(a: &FieldValue, b: &FieldValue) -> Option<Ordering> {
    match (a, b) {
        (FieldValue::Bool(a), FieldValue::Bool(b)) => Some(a.cmp(b)),
        (FieldValue::Int(a), FieldValue::Int(b)) => Some(a.cmp(b)),
        (FieldValue::Float(a), FieldValue::Float(b)) => a.partial_cmp(b),
        (FieldValue::Text(a), FieldValue::Text(b)) => Some(a.cmp(b)),
        (FieldValue::Date(a), FieldValue::Date(b)) => Some(a.cmp(b)),
        (FieldValue::DateTime(a), FieldValue::DateTime(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Compares two rows in the order of a query; the id is the last key, and rows
/// without a value come last in both directions.
pub fn compare<'a, R: Rows<'a>>(keys: &[Sort], rows: &R, a: R::Row, b: R::Row) -> Ordering {
    for key in keys.iter().filter(|key| key.path.data_type.is_sortable()) {
        let ordering = match (sort_value(key, rows, a), sort_value(key, rows, b)) {
            (FieldValue::Null, FieldValue::Null) => Ordering::Equal,
            (FieldValue::Null, _) => Ordering::Greater,
            (_, FieldValue::Null) => Ordering::Less,
            (a, b) => {
                let ordering = order(&a, &b).unwrap_or(Ordering::Equal);
                if key.descending { ordering.reverse() } else { ordering }
            }
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    rows.key(a).id.cmp(&rows.key(b).id)
}

fn sort_value<'a, R: Rows<'a>>(key: &Sort, rows: &R, row: R::Row) -> FieldValue {
    // A sort through a list of links has no meaning; the site ignores it.
    if key.path.is_multi() {
        return FieldValue::Null;
    }
    let Some(row) = reach(&key.path, rows, row).into_iter().next() else {
        return FieldValue::Null;
    };
    let value = rows.value(row, &key.path.field);
    match &*value {
        FieldValue::Link(link) if rows.is_retired(&link.target) => FieldValue::Null,
        FieldValue::Link(link) => {
            rows.display_name(link).map_or(FieldValue::Null, |name| FieldValue::text(fold(&name)))
        }
        other => comparable(key.path.data_type, other),
    }
}

/// Returns the value of a path as `read` answers it, or `None` when the site
/// leaves the key out (a path through a list of links).
///
/// Links lose retired targets and carry the present display name.
pub fn resolve_links<'a, R: Rows<'a>>(path: &FieldPath, rows: &R, row: R::Row) -> Option<FieldValue> {
    if path.is_multi() {
        return None;
    }
    let Some(row) = reach(path, rows, row).into_iter().next() else {
        return Some(FieldValue::Null);
    };
    let named = |link: &Link| Link { target: link.target.clone(), name: rows.display_name(link).map(Cow::into_owned) };
    Some(match rows.value(row, &path.field).into_owned() {
        FieldValue::Link(link) if rows.is_retired(&link.target) => FieldValue::Null,
        FieldValue::Link(link) => FieldValue::Link(named(&link)),
        FieldValue::Links(links) => {
            FieldValue::Links(links.iter().filter(|link| !rows.is_retired(&link.target)).map(named).collect())
        }
        other => other,
    })
}
