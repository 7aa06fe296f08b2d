//! Finds the rows of a query, in order, one page of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::cell::{Cell, Key};
use super::plan;
use super::schema::{FieldId, Role, TypeId};
use super::world::World;
use shotgun_model::entity::{FieldValue, Shape, fold};
use shotgun_model::filter::{Filter, Only, Query, Sort, matches};

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

/// A link to a retired project is an empty one, so the row is in none.
fn in_archived_project(world: &World, key: Key) -> bool {
    let Some(project) = world.project(key).filter(|project| world.is_active(*project)) else { return false };
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Site;
    use shotgun_model::entity::EntityType;
    use shotgun_model::filter::{Page, RawFilter, RawSort, compare};

    /// Finds the rows by the slow and simple way.
    fn plainly(world: &World, ty: TypeId, query: &Query) -> Vec<Key> {
        let keys = world.table(ty).range(0, u32::MAX).filter(|(_, row)| !row.retired).map(|(id, _)| Key { ty, id });
        let mut rows: Vec<_> = keys.filter(|key| matches(&query.filter, &world, *key)).collect();
        if query.order.first().is_some_and(|sort| sort.path.field == "id" && sort.descending) {
            rows.reverse();
        } else {
            rows.sort_by(|a, b| compare(&query.order, &world, *a, *b));
        }
        rows.into_iter().skip(query.page.offset() as usize).take(query.page.size as usize).collect()
    }

    #[track_caller]
    fn check(site: &Site, entity_type: &str, filters: Value, order: Value) {
        let world = site.rows();
        let entity_type = EntityType::new(entity_type);
        let ty = world.layout.type_id(entity_type.as_str()).expect("a type");
        let raw = RawFilter::from_lists(&filters, false).expect("filters");
        let filter = world.schema.filter(&entity_type, &raw).expect("a filter");
        let order = world.schema.order(&entity_type, &RawSort::list(&order).expect("an order"));
        for number in [1, 2, 40] {
            let query = Query::all(entity_type.clone()).filter(filter.clone()).order(order.clone());
            let query = query.page(Page { size: 25, number });
            assert_eq!(find(&world, ty, &query, false).rows, plainly(&world, ty, &query), "page {number} of {filters}");
        }
        let everything = Query::all(entity_type).filter(filter).order(order);
        assert!(!find(&world, ty, &everything, true).rows.is_empty(), "{filters} finds nothing");
    }

    #[test]
    fn the_fast_ways_find_what_the_plain_one_finds() {
        let site = Site::generated(21, 6_000);
        let some = |ty: &str, filter: Value| site.read(ty, &filter, &[]).expect("rows")[0]["id"].clone();
        let project = json!({"type": "Project", "id": 1});
        let shot = json!({"type": "Shot", "id": some("Shot", json!([["assets", "is_not", null]]))});
        let asset = json!({"type": "Asset", "id": some("Asset", json!([["shots", "is_not", null]]))});
        let sequence = json!({"type": "Sequence", "id": some("Sequence", json!([["shots", "is_not", null]]))});
        check(&site, "Task", json!([]), json!([]));
        check(&site, "Task", json!([["id", "greater_than", 50]]), json!(["-id"]));
        check(&site, "Task", json!([["id", "in", [5, 900, 3]]]), json!([]));
        check(&site, "Task", json!([["project", "is", project], ["id", "less_than", 600]]), json!(["-updated_at"]));
        check(&site, "Task", json!([["entity", "is", shot]]), json!(["content", "-id"]));
        check(&site, "Shot", json!([["assets", "is", asset]]), json!(["sg_sequence", "code"]));
        check(&site, "Asset", json!([["shots", "is", shot]]), json!([]));
        check(&site, "Sequence", json!([["shots", "is", shot]]), json!([]));
        check(&site, "Shot", json!([["sg_sequence", "is_not", sequence]]), json!(["-sg_sequence.Sequence.code"]));
        check(&site, "Shot", json!([["sg_sequence", "in", [sequence]]]), json!(["-description"]));
        let either = json!([{"filter_operator": "any", "filters": [["id", "between", 1, 9], ["entity", "is", shot]]}]);
        check(&site, "Task", either, json!(["-due_date", "sg_status_list"]));
        let mixed = json!([{"filter_operator": "any", "filters": [["id", "is", 4], ["content", "contains", "m"]]}]);
        check(&site, "Task", mixed, json!(["created_by", "duration"]));
        check(&site, "Version", json!([["entity.Shot.code", "contains", "1"]]), json!(["-user", "code"]));
        check(&site, "EventLogEntry", json!([["id", "greater_than", 1_000_100]]), json!(["-created_at"]));
    }
}
