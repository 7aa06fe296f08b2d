//! Finds the rows of a query, in order, one page of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::cell::{Cell, Key};
use super::plan;
use super::schema::{FieldId, Role, TypeId};
use super::world::World;
use crate::entity::{FieldValue, Shape, fold};
use crate::filter::{Filter, Only, Query, Sort, matches};

/// The rows of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The rows, in order.
    pub rows: Vec<Key>,
    /// Whether more rows follow.
    pub has_next_page: bool,
    /// The number of all rows; only when it was asked for.
    pub total: Option<usize>,
}

/// Which rows of a type a question is about.
pub struct Scope<'q> {
    /// The type.
    pub ty: TypeId,
    /// The filter, without windows around now.
    pub filter: &'q Filter,
    /// Active or retired rows.
    pub only: Only,
    /// Whether entities of archived projects are in it.
    pub include_archived_projects: bool,
}

impl Scope<'_> {
    fn wants(&self, world: &World, key: Key, retired: bool) -> bool {
        if retired != (self.only == Only::Retired) {
            return false;
        }
        let visible = self.include_archived_projects || !in_archived_project(world, key);
        visible && (self.filter.is_everything() || matches(self.filter, &world, key))
    }

    /// Calls `each` with every row, in the order of ids, until it returns false.
    pub fn walk(&self, world: &World, descending: bool, mut each: impl FnMut(Key) -> bool) {
        let ids = plan::candidates(world, self.ty, self.filter);
        let table = world.table(self.ty);
        let key = |id| Key { ty: self.ty, id };
        let ranges: Box<dyn Iterator<Item = &(u32, u32)>> =
            if descending { Box::new(ids.0.iter().rev()) } else { Box::new(ids.0.iter()) };
        for (first, last) in ranges {
            let rows = table.range(*first, *last);
            let rows: Box<dyn Iterator<Item = _>> = if descending { Box::new(rows.rev()) } else { Box::new(rows) };
            for (id, row) in rows {
                if self.wants(world, key(id), row.retired) && !each(key(id)) {
                    return;
                }
            }
        }
    }
}

fn in_archived_project(world: &World, key: Key) -> bool {
    let Some(project) = world.project(key) else { return false };
    world.named(project, "archived") == &Cell::Bool(true)
}

/// Finds the rows of a query. `count` asks for the number of all of them.
pub fn find(world: &World, ty: TypeId, query: &Query, count: bool) -> Found {
    let scope = Scope {
        ty,
        filter: &query.filter,
        only: query.only,
        include_archived_projects: query.include_archived_projects,
    };
    match by_id_only(&query.order) {
        Some(descending) => find_by_id(world, &scope, query, descending, count),
        None => find_sorted(world, &scope, query),
    }
}

/// Tells whether only the id decides the order, and in which direction.
fn by_id_only(order: &[Sort]) -> Option<bool> {
    match order.first() {
        None => Some(false),
        Some(first) if first.path.is_local() && first.path.field == "id" => Some(first.descending),
        Some(_) => None,
    }
}

fn find_by_id(world: &World, scope: &Scope<'_>, query: &Query, descending: bool, count: bool) -> Found {
    let (offset, size) = (query.page.offset() as usize, query.page.size as usize);
    let mut found = Found::default();
    let mut seen = 0usize;
    scope.walk(world, descending, |key| {
        seen += 1;
        if seen > offset && found.rows.len() < size {
            found.rows.push(key);
        } else if seen > offset {
            found.has_next_page = true;
        }
        count || !found.has_next_page
    });
    found.total = count.then_some(seen);
    found
}

/// A value that rows are sorted by; without a value they come last, whatever the
/// direction.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum SortKey<'w> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'w, str>),
}

fn find_sorted(world: &World, scope: &Scope<'_>, query: &Query) -> Found {
    let mut rows: Vec<(Vec<Option<SortKey<'_>>>, Key)> = Vec::new();
    scope.walk(world, false, |key| {
        rows.push((query.order.iter().map(|sort| sort_key(world, key, sort)).collect(), key));
        true
    });
    let order = |a: &(Vec<Option<SortKey<'_>>>, Key), b: &(Vec<Option<SortKey<'_>>>, Key)| {
        let keys = query.order.iter().zip(a.0.iter().zip(&b.0));
        let first = keys.map(|(sort, (a, b))| compare(a.as_ref(), b.as_ref(), sort.descending));
        first.into_iter().find(|ordering| ordering.is_ne()).unwrap_or_else(|| a.1.id.cmp(&b.1.id))
    };
    let total = rows.len();
    let start = (query.page.offset() as usize).min(total);
    let end = start.saturating_add(query.page.size as usize).min(total);
    // Only the rows up to the end of the page are put in order.
    if end > 0 && end < total {
        rows.select_nth_unstable_by(end - 1, order);
        rows.truncate(end);
    }
    rows.sort_unstable_by(order);
    Found {
        rows: rows[start..end].iter().map(|(_, key)| *key).collect(),
        has_next_page: end < total,
        total: Some(total),
    }
}

fn compare(a: Option<&SortKey<'_>>, b: Option<&SortKey<'_>>, descending: bool) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let ordering = a.partial_cmp(b).unwrap_or(Ordering::Equal);
            if descending { ordering.reverse() } else { ordering }
        }
    }
}

fn sort_key<'w>(world: &'w World, key: Key, sort: &Sort) -> Option<SortKey<'w>> {
    let mut here = key;
    for hop in &sort.path.hops {
        let field = world.layout.field_id(here.ty, &hop.field)?;
        here = *world.links(here, field).first()?;
        if world.layout.ty(here.ty).name != hop.entity_type || !world.is_active(here) {
            return None;
        }
    }
    let field = world.layout.field_id(here.ty, &sort.path.field)?;
    value_key(world, here, field)
}

fn value_key(world: &World, key: Key, field: FieldId) -> Option<SortKey<'_>> {
    let info = world.layout.field(key.ty, field);
    let shape = info.data_type.shape();
    if info.role == Role::Stored && shape != Shape::Link {
        return match world.cell(key, field) {
            Cell::Null if shape == Shape::Bool => Some(SortKey::Bool(false)),
            Cell::Null | Cell::Link(_) | Cell::Links(_) | Cell::Json(_) => None,
            Cell::Bool(value) => Some(SortKey::Bool(*value)),
            Cell::Int(number) => Some(SortKey::Int(*number)),
            Cell::Float(number) => Some(SortKey::Float(*number)),
            Cell::Moment(moment) => Some(SortKey::Int(moment.0)),
            Cell::Date(day) => Some(SortKey::Int(day.midnight().0)),
            Cell::Text(text) if shape == Shape::Text => Some(SortKey::Text(fold(text).into())),
            Cell::Text(text) => Some(SortKey::Text(Cow::Borrowed(text))),
        };
    }
    if shape == Shape::Link {
        let target = *world.links(key, field).first()?;
        let name = world.display_name(target).filter(|name| !name.is_empty() && world.is_active(target))?;
        return Some(SortKey::Text(fold(&name).into()));
    }
    match world.value(key, field) {
        FieldValue::Int(number) => Some(SortKey::Int(number)),
        FieldValue::Text(text) => Some(SortKey::Text(fold(&text).into())),
        _ => None,
    }
}
