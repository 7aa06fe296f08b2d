//! From a filter to rows: sets of slots, combined.
//!
//! The meaning of every construct is in the header of `filter::eval`. A condition
//! is asked only about the rows that the others left over; cheap ones come first.
//! A path over a link is walked from its end: the rows there that pass, then the
//! rows that link to one of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension};
use rustc_hash::FxHashSet;

use super::super::{Result, StoreError};
use super::column::Column;
use super::layouts::{Layouts, Tables};
use super::memory::{Held, Names, Needs, Slots, Target, TypeRows, Values};
use super::result_cache::AsOf;
use crate::entity::{EntityType, Shape};
use crate::filter::{FieldPath, Filter, Hop, Leaf, Only, Query, Test};

/// Up to so many targets are looked up one by one; beyond, their type is walked through.
const FEW: usize = 64;

/// Returns the columns that a query looks at to filter and to order.
pub(super) fn needs(layouts: &Layouts, query: &Query) -> Result<Needs> {
    let filter = layouts.catalogue.check(query)?;
    let mut needs = Needs::from([(layouts.tables(&query.entity_type)?.number, BTreeSet::new())]);
    let sorted = query.order.iter().map(|key| &key.path);
    for path in filter.leaves().into_iter().map(|leaf| &leaf.path).chain(sorted) {
        let mut tables = layouts.tables(&query.entity_type)?;
        for hop in &path.hops {
            need(&mut needs, tables, &hop.field);
            // An order through what is not cached is ignored or was refused.
            let Ok(next) = layouts.tables(&hop.entity_type) else { break };
            tables = next;
            needs.entry(tables.number).or_default();
        }
        need(&mut needs, tables, &path.field);
    }
    Ok(needs)
}

fn need(needs: &mut Needs, tables: &Tables, field: &str) {
    let column = tables.column(field).filter(|column| !column.names().is_empty());
    needs.entry(tables.number).or_default().extend(column.map(|column| column.number));
}

/// Answers filters over one moment.
pub(super) struct Finder<'a> {
    pub(super) reader: &'a Connection,
    pub(super) layouts: &'a Layouts,
    held: &'a Held,
    /// Targets that are retired or absent, by type, as far as they were asked for.
    dead: RefCell<BTreeMap<i64, Rc<FxHashSet<i64>>>>,
}

impl<'a> Finder<'a> {
    /// Makes a finder; `held` has what [`needs`] said.
    pub(super) fn new(reader: &'a Connection, layouts: &'a Layouts, held: &'a Held) -> Self {
        Self { reader, layouts, held, dead: RefCell::default() }
    }

    /// Returns the rows that pass the filter of a query.
    pub(super) fn matching(&self, query: &Query) -> Result<Slots> {
        let filter = self.layouts.catalogue.check(query)?;
        let tables = self.layouts.tables(&query.entity_type)?;
        let rows = self.rows(tables)?;
        let from = match query.only {
            Only::Active => rows.active(),
            Only::Retired => rows.retired(),
        };
        self.narrow(tables, &filter, from.clone())
    }

    /// Returns the moment that is looked at.
    pub(super) fn as_of(&self) -> AsOf {
        AsOf { seq: self.held.seq(), generation: self.layouts.generation() }
    }

    /// Returns the names that are in memory.
    pub(super) fn names(&self) -> &'a Names {
        self.held.names()
    }

    /// Returns the rows of a type.
    pub(super) fn rows(&self, tables: &Tables) -> Result<&'a TypeRows> {
        self.held.rows(tables).ok_or_else(|| missing(tables.entity_type(), "id"))
    }

    /// Returns a column with its values.
    pub(super) fn values(&self, tables: &Tables, field: &str) -> Result<&'a Values> {
        let number = column(tables, field)?.number;
        self.rows(tables)?.column(number).ok_or_else(|| missing(tables.entity_type(), field))
    }

    /// Returns those of `from` that pass.
    fn narrow(&self, tables: &Tables, filter: &Filter, from: Slots) -> Result<Slots> {
        match filter {
            Filter::Leaf(leaf) => self.leaf(tables, leaf, from),
            Filter::All(conditions) => {
                let mut conditions: Vec<&Filter> = conditions.iter().collect();
                conditions.sort_by_key(|condition| cost(condition));
                conditions.into_iter().try_fold(from, |left, condition| self.narrow(tables, condition, left))
            }
            Filter::Any(conditions) => {
                let mut open = from;
                let mut found = self.none(tables)?;
                for condition in conditions {
                    let passed = self.narrow(tables, condition, open.clone())?;
                    open.take_away(&passed);
                    found.add(&passed);
                }
                Ok(found)
            }
        }
    }

    fn leaf(&self, tables: &Tables, leaf: &Leaf, from: Slots) -> Result<Slots> {
        if from.is_empty() {
            return Ok(from);
        }
        // Over single links, "no value" is also true when the path ends nowhere:
        // it is the complement of reaching a value.
        let nowhere_counts = leaf.test == Test::Empty && !leaf.path.is_local() && !leaf.path.is_multi();
        let reached = self.reach(tables, &leaf.path.hops, leaf, nowhere_counts, &from)?;
        if leaf.negated == nowhere_counts {
            return Ok(reached);
        }
        let mut others = from;
        others.take_away(&reached);
        Ok(others)
    }

    /// Returns those of `from` from which the hops lead to a row that passes the
    /// test, or fails it when `fails`.
    fn reach(&self, tables: &Tables, hops: &[Hop], leaf: &Leaf, fails: bool, from: &Slots) -> Result<Slots> {
        let Some((hop, rest)) = hops.split_first() else {
            let passed = self.passes(tables, &leaf.path, &leaf.test, from)?;
            if !fails {
                return Ok(passed);
            }
            let mut failed = from.clone();
            failed.take_away(&passed);
            return Ok(failed);
        };
        let next = self.layouts.tables(&hop.entity_type)?;
        let mut ends = self.reach(next, rest, leaf, fails, self.rows(next)?.active())?;
        self.apply_retirements(next, &mut ends)?;
        if column(tables, &hop.field)?.shape() == Shape::Links {
            return self.with_elements(tables, column(tables, &hop.field)?, next, &ends, from);
        }
        let Values::Links(links, _) = self.values(tables, &hop.field)? else {
            return Err(missing(tables.entity_type(), &hop.field));
        };
        let rows = self.rows(next)?;
        let wanted: Vec<u32> = if ends.count() < links.distinct().len() {
            let ids = ends.iter().map(|slot| rows.ids()[slot as usize]);
            ids.filter_map(|id| links.code(&(next.number, id))).collect()
        } else {
            let ends_there =
                |(ty, id): &Target| *ty == next.number && rows.slot(*id).is_some_and(|slot| ends.contains(slot));
            (0..).zip(links.distinct()).filter(|(_, target)| ends_there(target)).map(|(code, _)| code).collect()
        };
        Ok(links.having(from, &wanted))
    }

    /// Returns those of `from` whose list has an element among `ends`.
    fn with_elements(
        &self,
        tables: &Tables,
        column: &Column,
        next: &Tables,
        ends: &Slots,
        from: &Slots,
    ) -> Result<Slots> {
        let (rows, targets) = (self.rows(tables)?, self.rows(next)?);
        let mut found = self.none(tables)?;
        let mut keep = |id: i64| {
            if let Some(slot) = rows.slot(id).filter(|slot| from.contains(*slot)) {
                found.insert(slot);
            }
        };
        if ends.count() <= FEW {
            let sql = format!("SELECT id FROM {} WHERE field = ?1 AND type = ?2 AND target = ?3", tables.links());
            let mut statement = self.reader.prepare_cached(&sql)?;
            for slot in ends.iter() {
                let end = targets.ids()[slot as usize];
                let ids = statement.query_map([column.number, next.number, end], |row| row.get(0))?;
                ids.into_iter().try_for_each(|id| id.map(&mut keep))?;
            }
            return Ok(found);
        }
        let sql = format!("SELECT target, id FROM {} WHERE field = ?1 AND type = ?2", tables.links());
        let mut statement = self.reader.prepare_cached(&sql)?;
        let mut elements = statement.query([column.number, next.number])?;
        while let Some(row) = elements.next()? {
            if targets.slot(row.get(0)?).is_some_and(|slot| ends.contains(slot)) {
                keep(row.get(1)?);
            }
        }
        Ok(found)
    }

    /// Takes rows away that are known to be retired or absent.
    fn apply_retirements(&self, tables: &Tables, slots: &mut Slots) -> Result<()> {
        let rows = self.rows(tables)?;
        if slots.count() <= FEW {
            for slot in slots.clone().iter() {
                if self.is_dead((tables.number, rows.ids()[slot as usize]))? {
                    slots.remove(slot);
                }
            }
            return Ok(());
        }
        let dead = self.dead(tables.number)?;
        dead.iter().filter_map(|id| rows.slot(*id)).for_each(|slot| slots.remove(slot));
        Ok(())
    }

    /// Tells whether a target is known to be retired or absent.
    pub(super) fn is_dead(&self, (ty, id): Target) -> Result<bool> {
        if let Some(known) = self.dead.borrow().get(&ty) {
            return Ok(known.contains(&id));
        }
        let sql = "SELECT 1 FROM targets WHERE type = ?1 AND id = ?2 AND dead = 1";
        let found = self.reader.prepare_cached(sql)?.query_row([ty, id], |_| Ok(())).optional()?;
        Ok(found.is_some())
    }

    /// Returns the targets of a type that are known to be retired or absent.
    pub(super) fn dead(&self, ty: i64) -> Result<Rc<FxHashSet<i64>>> {
        if let Some(known) = self.dead.borrow().get(&ty) {
            return Ok(Rc::clone(known));
        }
        let mut statement = self.reader.prepare_cached("SELECT id FROM targets WHERE type = ?1 AND dead = 1")?;
        let ids = statement.query_map([ty], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let ids = Rc::new(ids);
        self.dead.borrow_mut().insert(ty, Rc::clone(&ids));
        Ok(ids)
    }

    /// Returns the empty set of rows of a type.
    pub(super) fn none(&self, tables: &Tables) -> Result<Slots> {
        Ok(Slots::none(self.rows(tables)?.ids().len()))
    }
}

/// Returns the column of a field. The catalogue has checked that it exists.
pub(super) fn column<'t>(tables: &'t Tables, field: &str) -> Result<&'t Column> {
    tables.column(field).ok_or_else(|| missing(tables.entity_type(), field))
}

fn missing(entity_type: &EntityType, field: &str) -> StoreError {
    StoreError::unsupported(format!("`{entity_type}.{field}` is not cached"))
}

/// Returns how much work a condition is, compared with others.
fn cost(filter: &Filter) -> u8 {
    let Filter::Leaf(Leaf { path, test, .. }) = filter else { return 5 };
    match (path.is_local(), path.data_type.shape(), test) {
        (true, ..) if is_id(path) => 0,
        (_, Shape::Links, _) => 4,
        (false, ..) => 3,
        (_, _, Test::Text(..) | Test::LinkName(..)) => 2,
        _ => 1,
    }
}

/// Tells whether a path ends at the id.
pub(super) fn is_id(path: &FieldPath) -> bool {
    path.field == "id"
}
