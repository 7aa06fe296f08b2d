//! Plans a query: the filter tree becomes one statement that returns ids.
//!
//! The meaning of every construct is in the header of `filter::eval`. SQL has a
//! third truth value where a column is null; it counts as false where a condition
//! is wanted, and every complement is written `IS NOT TRUE`, never `NOT`.
//!
//! A path over a link becomes `link IN (SELECT id ...)`: SQLite runs the inner
//! query once and can go from its result through the index of the link to the
//! rows, where a correlated `EXISTS` would have to visit every row of the outer
//! type.

use rusqlite::types::Value as Sql;

use super::super::{Result, StoreError};
use super::column::Column;
use super::layouts::{Layouts, Tables};
use super::test_sql;
use crate::entity::Shape;
use crate::filter::{FieldPath, Filter, Hop, Leaf, Only, Query, Sort, Test};

/// A statement with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// The text.
    pub text: String,
    /// The parameters, `?1` first.
    pub parameters: Vec<Sql>,
}

/// Returns the statement that finds the ids of a page, and of one row more.
pub(super) fn ids(layouts: &Layouts, query: &Query, filter: &Filter) -> Result<Statement> {
    let mut planner = Planner::new(layouts);
    let tables = layouts.tables(&query.entity_type)?;
    let condition = planner.rows(tables, query.only, filter)?;
    let order = planner.order(tables, &query.order)?;
    let limit = planner.bind(Sql::Integer(i64::from(query.page.size) + 1));
    let offset = planner.bind(Sql::Integer(i64::try_from(query.page.offset()).unwrap_or(i64::MAX)));
    let text = format!(
        "SELECT a.id FROM {} a WHERE {condition} ORDER BY {order} LIMIT {limit} OFFSET {offset}",
        tables.rows()
    );
    Ok(Statement { text, parameters: planner.parameters })
}

/// Returns the statement that counts.
pub(super) fn count(layouts: &Layouts, query: &Query, filter: &Filter) -> Result<Statement> {
    let mut planner = Planner::new(layouts);
    let tables = layouts.tables(&query.entity_type)?;
    let condition = planner.rows(tables, query.only, filter)?;
    let text = format!("SELECT count(*) FROM {} a WHERE {condition}", tables.rows());
    Ok(Statement { text, parameters: planner.parameters })
}

/// The row that a condition is about: its alias and its tables.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The alias of the narrow table.
    pub alias: &'a str,
    /// The tables of the type.
    pub tables: &'a Tables,
}

impl Place<'_> {
    /// Returns the column of a field. The catalogue has checked that it exists.
    pub(super) fn column(&self, field: &str) -> Result<Column> {
        let missing = || StoreError::unsupported(format!("`{}.{field}` is not cached", self.tables.entity_type()));
        self.tables.column(field).cloned().ok_or_else(missing)
    }

    /// Returns the number of the type and the id in a link column, as SQL.
    pub(super) fn link(&self, column: &Column) -> (String, String) {
        let (ty, id) = column.link_names();
        (format!("{}.{ty}", self.alias), format!("{}.{id}", self.alias))
    }
}

/// Builds one statement.
pub(super) struct Planner<'a> {
    /// What there is.
    pub layouts: &'a Layouts,
    parameters: Vec<Sql>,
    aliases: usize,
}

impl<'a> Planner<'a> {
    fn new(layouts: &'a Layouts) -> Self {
        Self { layouts, parameters: Vec::new(), aliases: 0 }
    }

    /// Makes a value a parameter and returns its place.
    pub(super) fn bind(&mut self, value: Sql) -> String {
        self.parameters.push(value);
        format!("?{}", self.parameters.len())
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("b{}", self.aliases)
    }

    fn rows(&mut self, tables: &'a Tables, only: Only, filter: &Filter) -> Result<String> {
        // The second form of the condition lets SQLite use the small index of rows
        // that are not active.
        let state = match only {
            Only::Active => "a.state = 0",
            Only::Retired => "a.state = 1 AND a.state <> 0",
        };
        let condition = self.filter(Place { alias: "a", tables }, filter)?;
        Ok(format!("{state} AND {condition}"))
    }

    fn filter(&mut self, place: Place<'_>, filter: &Filter) -> Result<String> {
        let (conditions, word, none) = match filter {
            Filter::Leaf(leaf) => return self.leaf(place, leaf),
            Filter::All(conditions) => (conditions, " AND ", "1"),
            Filter::Any(conditions) => (conditions, " OR ", "0"),
        };
        let parts = conditions.iter().map(|condition| self.filter(place, condition)).collect::<Result<Vec<_>>>()?;
        Ok(if parts.is_empty() { none.to_owned() } else { format!("({})", parts.join(word)) })
    }

    fn leaf(&mut self, place: Place<'_>, leaf: &Leaf) -> Result<String> {
        // Over single links, "no value" is also true when the path ends nowhere:
        // it is the complement of reaching a value.
        let nowhere_counts = leaf.test == Test::Empty && !leaf.path.is_local() && !leaf.path.is_multi();
        let condition = if nowhere_counts {
            let reached = self.reach(place, &leaf.path.hops, &|planner, end| {
                let empty = test_sql::condition(planner, end, &leaf.path, &Test::Empty)?;
                Ok(complement(&empty))
            })?;
            complement(&reached)
        } else {
            self.reach(place, &leaf.path.hops, &|planner, end| {
                test_sql::condition(planner, end, &leaf.path, &leaf.test)
            })?
        };
        Ok(if leaf.negated { complement(&condition) } else { condition })
    }

    /// Returns the condition that some row at the end of the hops passes `test`.
    fn reach(
        &mut self,
        place: Place<'_>,
        hops: &[Hop],
        test: &dyn Fn(&mut Self, Place<'_>) -> Result<String>,
    ) -> Result<String> {
        let Some((hop, rest)) = hops.split_first() else {
            return test(self, place);
        };
        let next = self.layouts.tables(&hop.entity_type)?;
        let alias = self.alias();
        let inner = self.reach(Place { alias: &alias, tables: next }, rest, test)?;
        let dead = test_sql::dead(&next.number.to_string(), &format!("{alias}.id"));
        let ids = format!(
            "SELECT {alias}.id FROM {} {alias} WHERE {alias}.state = 0 AND {inner} AND NOT {dead}",
            next.rows()
        );
        let column = place.column(&hop.field)?;
        if column.shape() == Shape::Links {
            let (links, field, ty) = (place.tables.links(), column.number, next.number);
            return Ok(format!(
                "{}.id IN (SELECT l.id FROM {links} l WHERE l.field = {field} AND l.type = {ty} AND l.target IN ({ids}))",
                place.alias
            ));
        }
        let (ty, id) = place.link(&column);
        Ok(format!("({ty} = {} AND {id} IN ({ids}))", next.number))
    }

    fn order(&mut self, tables: &'a Tables, order: &[Sort]) -> Result<String> {
        let place = Place { alias: "a", tables };
        let mut keys = Vec::new();
        for key in order.iter().filter(|key| key.path.data_type.is_sortable() && !key.path.is_multi()) {
            let direction = if key.descending { "DESC" } else { "ASC" };
            keys.push(format!("{} {direction} NULLS LAST", self.sort_key(place, &key.path.hops, &key.path)?));
            if key.path.is_local() && key.path.field == "id" {
                return Ok(keys.join(", "));
            }
        }
        keys.push("a.id".to_owned());
        Ok(keys.join(", "))
    }

    /// Returns the value that a path sorts by.
    fn sort_key(&mut self, place: Place<'_>, hops: &[Hop], path: &FieldPath) -> Result<String> {
        let Some((hop, rest)) = hops.split_first() else {
            return test_sql::sort_value(place, path);
        };
        let next = self.layouts.tables(&hop.entity_type)?;
        let alias = self.alias();
        let inner = self.sort_key(Place { alias: &alias, tables: next }, rest, path)?;
        let dead = test_sql::dead(&next.number.to_string(), &format!("{alias}.id"));
        let (ty, id) = place.link(&place.column(&hop.field)?);
        Ok(format!(
            "(SELECT {inner} FROM {} {alias} WHERE {alias}.id = {id} AND {ty} = {} AND {alias}.state = 0 AND NOT {dead})",
            next.rows(),
            next.number
        ))
    }
}

/// Returns the complement of a condition, true where the condition is null.
fn complement(condition: &str) -> String {
    format!("(({condition}) IS NOT TRUE)")
}
