//! The tests of a filter on the values of one column.

use std::collections::{BTreeSet, HashSet};

use memchr::memmem;
use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, params};

use super::super::{Result, StoreError};
use super::column::{Column, operand};
use super::layouts::Tables;
use super::memory::{Codes, NO_CODE, NO_NUMBER, Slots, Target, Values};
use super::plan::{Finder, column, is_id};
use crate::entity::{EntityRef, FieldValue, Shape};
use crate::filter::{FieldPath, Test, TextMatch};

impl Finder<'_> {
    /// Returns those of `from` whose own value passes a test.
    pub(super) fn passes(&self, tables: &Tables, path: &FieldPath, test: &Test, from: &Slots) -> Result<Slots> {
        if is_id(path) {
            return self.ids_pass(tables, path, test, from);
        }
        let column = column(tables, &path.field)?;
        if column.shape() == Shape::Links {
            return self.elements_pass(tables, column, path, test, from);
        }
        match self.values(tables, &path.field)? {
            Values::Whole(values) => whole_pass(values, path, test, from),
            Values::Fractions(values) => fractions_pass(values, path, test, from),
            Values::Texts(texts) => texts_pass(texts, path, test, from),
            Values::Links(links, types) => self.links_pass(links, types, path, test, from),
        }
    }

    fn ids_pass(&self, tables: &Tables, path: &FieldPath, test: &Test, from: &Slots) -> Result<Slots> {
        let rows = self.rows(tables)?;
        let Test::OneOf(values) = test else {
            return whole_pass(rows.ids(), path, test, from);
        };
        let mut found = self.none(tables)?;
        let slots = values.iter().filter_map(whole).filter_map(|id| rows.slot(id));
        slots.filter(|slot| from.contains(*slot)).for_each(|slot| found.insert(slot));
        Ok(found)
    }

    fn links_pass(
        &self,
        links: &Codes<Target>,
        types: &BTreeSet<i64>,
        path: &FieldPath,
        test: &Test,
        from: &Slots,
    ) -> Result<Slots> {
        let mut wanted: Vec<u32> = Vec::new();
        match test {
            Test::Empty => {
                wanted.push(NO_CODE);
                for ty in types {
                    wanted.extend(self.dead(*ty)?.iter().filter_map(|id| links.code(&(*ty, *id))));
                }
            }
            Test::LinkTo(targets) => {
                for target in targets.iter().map(|target| self.target(target)) {
                    if !self.is_dead(target)? {
                        wanted.extend(links.code(&target));
                    }
                }
            }
            Test::LinkType(wanted_type) => {
                let number = self.layouts.number(wanted_type.as_str());
                let dead = self.dead(number)?;
                let codes = (0..).zip(links.distinct());
                let of_type = codes.filter(|(_, (ty, id))| *ty == number && !dead.contains(id));
                wanted.extend(of_type.map(|(code, _)| code));
            }
            Test::LinkName(how, needle) => {
                for ty in types {
                    self.each_name(*ty, |id, name| {
                        if how.holds(name, needle) {
                            wanted.extend(links.code(&(*ty, id)));
                        }
                    })?;
                }
            }
            Test::OneOf(values) if values.is_empty() => {}
            _ => return meaningless(path),
        }
        Ok(links.having(from, &wanted))
    }

    /// Hands over the folded name of every live target of a type.
    fn each_name(&self, ty: i64, mut take: impl FnMut(i64, &str)) -> Result<()> {
        let sql = "SELECT id, folded FROM targets WHERE type = ?1 AND dead = 0 AND folded IS NOT NULL";
        let mut statement = self.reader.prepare_cached(sql)?;
        let mut found = statement.query([ty])?;
        while let Some(row) = found.next()? {
            take(row.get(0)?, row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        }
        Ok(())
    }

    fn elements_pass(
        &self,
        tables: &Tables,
        column: &Column,
        path: &FieldPath,
        test: &Test,
        from: &Slots,
    ) -> Result<Slots> {
        let mut wanted: Box<dyn FnMut(Target) -> Result<bool>> = match test {
            Test::Empty => Box::new(|_| Ok(true)),
            Test::LinkTo(targets) => return self.elements_are(tables, column, targets, from),
            Test::LinkType(ty) => {
                let number = self.layouts.number(ty.as_str());
                Box::new(move |(ty, _)| Ok(ty == number))
            }
            Test::LinkName(how, needle) => Box::new(move |target| self.is_named(target, *how, needle)),
            Test::OneOf(values) if values.is_empty() => return self.none(tables),
            _ => return meaningless(path),
        };
        let rows = self.rows(tables)?;
        let mut found = self.none(tables)?;
        let sql = format!("SELECT type, target, id FROM {} WHERE field = ?1", tables.links());
        let mut statement = self.reader.prepare_cached(&sql)?;
        let mut elements = statement.query([column.number])?;
        // Elements come by their target.
        let mut last: Option<(Target, bool)> = None;
        while let Some(row) = elements.next()? {
            let target = (row.get(0)?, row.get(1)?);
            let passes = match last {
                Some((known, passes)) if known == target => passes,
                _ => wanted(target)? && !self.dead(target.0)?.contains(&target.1),
            };
            last = Some((target, passes));
            if passes && let Some(slot) = rows.slot(row.get(2)?).filter(|slot| from.contains(*slot)) {
                found.insert(slot);
            }
        }
        if *test != Test::Empty {
            return Ok(found);
        }
        let mut empty = from.clone();
        empty.take_away(&found);
        Ok(empty)
    }

    fn elements_are(&self, tables: &Tables, column: &Column, targets: &[EntityRef], from: &Slots) -> Result<Slots> {
        let rows = self.rows(tables)?;
        let mut found = self.none(tables)?;
        let sql = format!("SELECT id FROM {} WHERE field = ?1 AND type = ?2 AND target = ?3", tables.links());
        let mut statement = self.reader.prepare_cached(&sql)?;
        for (ty, id) in targets.iter().map(|target| self.target(target)) {
            if self.is_dead((ty, id))? {
                continue;
            }
            for id in statement.query_map([column.number, ty, id], |row| row.get(0))? {
                if let Some(slot) = rows.slot(id?).filter(|slot| from.contains(*slot)) {
                    found.insert(slot);
                }
            }
        }
        Ok(found)
    }

    fn is_named(&self, (ty, id): Target, how: TextMatch, needle: &str) -> Result<bool> {
        let sql = "SELECT folded FROM targets WHERE type = ?1 AND id = ?2 AND folded IS NOT NULL";
        let mut statement = self.reader.prepare_cached(sql)?;
        let name: Option<String> = statement.query_row(params![ty, id], |row| row.get(0)).optional()?;
        Ok(name.is_some_and(|name| how.holds(&name, needle)))
    }

    fn target(&self, target: &EntityRef) -> Target {
        (self.layouts.number(target.entity_type.as_str()), target.id)
    }
}

fn whole(value: &FieldValue) -> Option<i64> {
    match operand(value) {
        Sql::Integer(number) => Some(number),
        _ => None,
    }
}

fn whole_pass(values: &[i64], path: &FieldPath, test: &Test, from: &Slots) -> Result<Slots> {
    let there = |value: i64| value != NO_NUMBER;
    Ok(match test {
        Test::Empty => from.passing(values, |value| !there(value)),
        Test::OneOf(wanted) => {
            let wanted: Vec<i64> = wanted.iter().filter_map(whole).collect();
            match wanted[..] {
                [] => Slots::none(values.len()),
                [only] => from.passing(values, |value| value == only),
                _ => {
                    let wanted: HashSet<i64> = wanted.into_iter().collect();
                    from.passing(values, |value| wanted.contains(&value))
                }
            }
        }
        Test::Less(bound) => match whole(bound) {
            Some(bound) => from.passing(values, |value| there(value) & (value < bound)),
            None => Slots::none(values.len()),
        },
        Test::Greater(bound) => match whole(bound) {
            Some(bound) => from.passing(values, |value| value > bound),
            None => Slots::none(values.len()),
        },
        Test::Between(first, last) => match whole(first).zip(whole(last)) {
            Some((first, last)) => from.passing(values, |value| there(value) & (value >= first) & (value <= last)),
            None => Slots::none(values.len()),
        },
        _ => return meaningless(path),
    })
}

fn fractions_pass(values: &[f64], path: &FieldPath, test: &Test, from: &Slots) -> Result<Slots> {
    let number = |value: &FieldValue| match value {
        FieldValue::Float(number) => *number,
        // Nothing is compared with what is no number.
        _ => f64::NAN,
    };
    Ok(match test {
        Test::Empty => from.passing(values, f64::is_nan),
        Test::OneOf(wanted) => {
            let wanted: Vec<f64> = wanted.iter().map(number).collect();
            from.passing(values, |value| wanted.contains(&value))
        }
        Test::Less(bound) => {
            let bound = number(bound);
            from.passing(values, |value| value < bound)
        }
        Test::Greater(bound) => {
            let bound = number(bound);
            from.passing(values, |value| value > bound)
        }
        Test::Between(first, last) => {
            let (first, last) = (number(first), number(last));
            from.passing(values, |value| value >= first && value <= last)
        }
        _ => return meaningless(path),
    })
}

fn texts_pass(texts: &Codes<Box<str>>, path: &FieldPath, test: &Test, from: &Slots) -> Result<Slots> {
    match test {
        Test::Empty => Ok(texts.having(from, &[NO_CODE])),
        Test::OneOf(values) => {
            let wanted = values.iter().filter_map(|value| match value {
                FieldValue::Text(text) => texts.code(text.as_str()),
                _ => None,
            });
            Ok(texts.having(from, &wanted.collect::<Vec<_>>()))
        }
        Test::Text(TextMatch::Is, needle) => {
            Ok(texts.having(from, &texts.code(needle.as_str()).into_iter().collect::<Vec<_>>()))
        }
        Test::Text(TextMatch::Contains, needle) => {
            let finder = memmem::Finder::new(needle);
            Ok(texts_holding(texts, from, |text| finder.find(text.as_bytes()).is_some()))
        }
        Test::Text(how, needle) => Ok(texts_holding(texts, from, |text| how.holds(text, needle))),
        _ => meaningless(path),
    }
}

/// Looks at each distinct text once, or at the texts of the rows when those are fewer.
fn texts_holding(texts: &Codes<Box<str>>, from: &Slots, holds: impl Fn(&str) -> bool) -> Slots {
    if from.count() < texts.distinct().len() {
        let of_code = |code| texts.by_code(code).is_some_and(|text| holds(text));
        return from.passing(texts.codes(), of_code);
    }
    let wanted: Vec<u32> = (0..).zip(texts.distinct()).filter(|(_, text)| holds(text)).map(|(code, _)| code).collect();
    texts.having(from, &wanted)
}

/// The catalogue refuses these before they come here.
fn meaningless<T>(path: &FieldPath) -> Result<T> {
    Err(StoreError::unsupported(format!("`{path}` ({}) cannot be filtered this way", path.data_type)))
}
