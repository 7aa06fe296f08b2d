//! From a set of rows to the ids of a page.

use std::cmp::Ordering;
use std::collections::HashMap;

use rusqlite::OptionalExtension;

use super::super::Result;
use super::layouts::Tables;
use super::memory::{NO_NUMBER, Slots, Target, Values};
use super::plan::{Finder, is_id};
use crate::filter::{FieldPath, Hop, Query, Sort};

/// What a row sorts by; nothing comes last in both directions.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Key<'a> {
    Whole(i64),
    Fraction(f64),
    Text(&'a str),
    Name(String),
}

/// Where the keys of rows stand.
enum End<'a> {
    Ids(&'a [i64]),
    Values(&'a Values),
}

/// The ids of a page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    pub(super) ids: Vec<i64>,
    pub(super) has_next: bool,
}

impl<'a> Finder<'a> {
    /// Returns the page of a query among the rows that it finds.
    pub(super) fn page(&self, query: &Query, found: &Slots) -> Result<Page> {
        let tables = self.layouts.tables(&query.entity_type)?;
        let rows = self.rows(tables)?;
        let offset = usize::try_from(query.page.offset()).unwrap_or(usize::MAX);
        let size = usize::try_from(query.page.size).unwrap_or(usize::MAX);
        let id_of = |slot: u32| rows.ids()[slot as usize];
        let keys = effective(&query.order);
        let mut ids: Vec<i64> = if keys.is_empty() && rows.is_ordered() {
            found.iter().skip(offset).take(size.saturating_add(1)).map(id_of).collect()
        } else {
            let sorted = found.iter().map(|slot| (id_of(slot), slot)).collect::<Vec<_>>();
            let columns = keys.iter().map(|key| self.keys(tables, &key.path, &sorted)).collect::<Result<Vec<_>>>()?;
            let mut positions: Vec<u32> = (0..sorted.len() as u32).collect();
            let compare = |a: &u32, b: &u32| {
                let (a, b) = (*a as usize, *b as usize);
                let by_keys = keys.iter().zip(&columns).map(|(key, values)| compared(key, &values[a], &values[b]));
                by_keys.fold(Ordering::Equal, Ordering::then).then_with(|| sorted[a].0.cmp(&sorted[b].0))
            };
            let end = offset.saturating_add(size).saturating_add(1);
            if end < positions.len() {
                positions.select_nth_unstable_by(end, compare);
                positions.truncate(end);
            }
            positions.sort_unstable_by(compare);
            positions.into_iter().skip(offset).map(|position| sorted[position as usize].0).collect()
        };
        let has_next = ids.len() > size;
        ids.truncate(size);
        Ok(Page { ids, has_next })
    }

    /// Returns what each of the rows sorts by.
    fn keys(&self, tables: &Tables, path: &FieldPath, rows: &[(i64, u32)]) -> Result<Vec<Option<Key<'a>>>> {
        let mut names = HashMap::new();
        if path.is_local() {
            let end = self.end(tables, path)?;
            return rows.iter().map(|(_, slot)| self.key(&end, *slot, &mut names)).collect();
        }
        let mut keys = Vec::with_capacity(rows.len());
        for (_, slot) in rows {
            keys.push(match self.follow(tables, &path.hops, *slot)? {
                Some((tables, slot)) => self.key(&self.end(tables, path)?, slot, &mut names)?,
                None => None,
            });
        }
        Ok(keys)
    }

    /// Returns the row to which single links lead.
    fn follow<'t>(&'t self, tables: &'t Tables, hops: &[Hop], slot: u32) -> Result<Option<(&'t Tables, u32)>> {
        let (mut tables, mut slot) = (tables, slot);
        for hop in hops {
            let Values::Links(links, _) = self.values(tables, &hop.field)? else { return Ok(None) };
            tables = self.layouts.tables(&hop.entity_type)?;
            let target = links.value(slot).filter(|(ty, _)| *ty == tables.number);
            let Some((_, id)) = target else { return Ok(None) };
            let rows = self.rows(tables)?;
            let end = rows.slot(*id).filter(|slot| rows.active().contains(*slot));
            let Some(end) = end else { return Ok(None) };
            // Orders go through a few targets, or through very many.
            if self.dead(tables.number)?.contains(id) {
                return Ok(None);
            }
            slot = end;
        }
        Ok(Some((tables, slot)))
    }

    /// Returns what rows of a type sort by.
    fn end(&self, tables: &Tables, path: &FieldPath) -> Result<End<'a>> {
        Ok(if is_id(path) {
            End::Ids(self.rows(tables)?.ids())
        } else {
            End::Values(self.values(tables, &path.field)?)
        })
    }

    fn key(&self, end: &End<'a>, slot: u32, names: &mut HashMap<Target, Option<String>>) -> Result<Option<Key<'a>>> {
        let values = match end {
            End::Ids(ids) => return Ok(ids.get(slot as usize).map(|id| Key::Whole(*id))),
            End::Values(values) => values,
        };
        Ok(match values {
            Values::Whole(values) => {
                values.get(slot as usize).filter(|value| **value != NO_NUMBER).map(|value| Key::Whole(*value))
            }
            Values::Fractions(values) => {
                values.get(slot as usize).filter(|value| !value.is_nan()).map(|value| Key::Fraction(*value))
            }
            Values::Texts(texts) => texts.value(slot).map(|text| Key::Text(text)),
            Values::Links(links, _) => match links.value(slot) {
                None => None,
                Some(target) => {
                    if !names.contains_key(target) {
                        names.insert(*target, self.name(*target)?);
                    }
                    names.get(target).cloned().flatten().map(Key::Name)
                }
            },
        })
    }

    /// Returns the folded name of a live target.
    fn name(&self, (ty, id): Target) -> Result<Option<String>> {
        let sql = "SELECT nullif(folded, '') FROM targets WHERE type = ?1 AND id = ?2 AND dead = 0";
        let mut statement = self.reader.prepare_cached(sql)?;
        Ok(statement.query_row([ty, id], |row| row.get(0)).optional()?.flatten())
    }
}

/// Returns the keys that decide; behind the id nothing is left to decide.
fn effective(order: &[Sort]) -> Vec<&Sort> {
    let mut keys: Vec<&Sort> = Vec::new();
    for key in order.iter().filter(|key| key.path.data_type.is_sortable() && !key.path.is_multi()) {
        let ends = key.path.is_local() && is_id(&key.path);
        // Rows come by id anyway.
        if !(ends && keys.is_empty() && !key.descending) {
            keys.push(key);
        }
        if ends {
            break;
        }
    }
    keys
}

fn compared(key: &Sort, a: &Option<Key<'_>>, b: &Option<Key<'_>>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let ordering = a.partial_cmp(b).unwrap_or(Ordering::Equal);
            if key.descending { ordering.reverse() } else { ordering }
        }
    }
}
