//! The rows of one type in memory: ids, states, and the columns that were asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OptionalExtension, Row};
use rustc_hash::FxHashMap;

use super::super::column::Column;
use super::super::layouts::Tables;
use super::super::put::number_of;
use super::slots::Slots;
use super::values::Values;
use crate::store::{Result, RowState};

/// The rows of a type. A row keeps its slot; slots of rows that are gone are in
/// neither set of states.
#[derive(Debug, Default)]
pub(in super::super) struct TypeRows {
    ids: Vec<i64>,
    /// The slots by id, once a row came whose id is below that of one before.
    by_id: Option<FxHashMap<i64, u32>>,
    active: Slots,
    retired: Slots,
    columns: BTreeMap<i64, Loaded>,
}

/// A column, and when it was used last.
#[derive(Debug)]
struct Loaded {
    values: Values,
    used: AtomicU64,
}

impl TypeRows {
    /// Returns the ids by slot.
    pub(in super::super) fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Tells whether slots are in the order of ids.
    pub(in super::super) fn is_ordered(&self) -> bool {
        self.by_id.is_none()
    }

    /// Returns the slot of an id.
    pub(in super::super) fn slot(&self, id: i64) -> Option<u32> {
        match &self.by_id {
            Some(by_id) => by_id.get(&id).copied(),
            None => self.ids.binary_search(&id).ok().map(|slot| slot as u32),
        }
    }

    /// Returns the active rows.
    pub(in super::super) fn active(&self) -> &Slots {
        &self.active
    }

    /// Returns the retired rows.
    pub(in super::super) fn retired(&self) -> &Slots {
        &self.retired
    }

    /// Returns a column by its number.
    pub(in super::super) fn column(&self, number: i64) -> Option<&Values> {
        self.columns.get(&number).map(|loaded| &loaded.values)
    }

    /// Notes that columns are used at a moment, and tells whether all are there.
    pub(super) fn touch(&self, numbers: &BTreeSet<i64>, moment: u64) -> bool {
        let touch = |number| self.columns.get(number).map(|loaded| loaded.used.store(moment, Ordering::Relaxed));
        numbers.iter().all(|number| touch(number).is_some())
    }

    /// Reads the rows of a type without any column.
    pub(super) fn read(reader: &Connection, tables: &Tables) -> Result<Self> {
        let mut rows = Self::default();
        let mut statement = reader.prepare(&format!("SELECT id, state FROM {} ORDER BY id", tables.rows()))?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let slot = rows.ids.len() as u32;
            rows.ids.push(row.get(0)?);
            rows.set_state(slot, row.get(1)?);
        }
        Ok(rows)
    }

    /// Reads the columns among `numbers` that are not there, with one look at each row.
    pub(super) fn load(
        &mut self,
        reader: &Connection,
        tables: &Tables,
        numbers: &BTreeSet<i64>,
        moment: u64,
    ) -> Result<()> {
        let missing = |column: &&Column| numbers.contains(&column.number) && !self.columns.contains_key(&column.number);
        let missing: Vec<&Column> = tables.columns().iter().filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: String = missing.iter().flat_map(|column| column.names()).map(|name| format!(", {name}")).collect();
        let mut columns: Vec<Values> = missing.iter().map(|column| Values::new(column.shape())).collect();
        let mut statement = reader.prepare(&format!("SELECT id{names} FROM {} ORDER BY id", tables.rows()))?;
        let mut found = statement.query([])?;
        let mut next = 0;
        while let Some(row) = found.next()? {
            let id: i64 = row.get(0)?;
            // Nearly always the slot behind the last one; rows that are gone leave empty slots.
            let slot = if self.ids.get(next as usize) == Some(&id) { Some(next) } else { self.slot(id) };
            // Memory is as new as this transaction: every row has a slot.
            let Some(slot) = slot else { continue };
            next = slot + 1;
            let mut at = 1;
            for (values, column) in columns.iter_mut().zip(&missing) {
                values.take(slot as usize, row, at)?;
                at += column.names().len();
            }
        }
        for (column, values) in missing.into_iter().zip(columns) {
            self.columns.insert(column.number, Loaded { values, used: AtomicU64::new(moment) });
        }
        Ok(())
    }

    /// Reads some rows again.
    pub(super) fn refresh(&mut self, reader: &Connection, tables: &Tables, ids: &BTreeSet<i64>) -> Result<()> {
        self.columns.retain(|number, _| tables.columns().iter().any(|column| column.number == *number));
        let loaded: Vec<&Column> =
            tables.columns().iter().filter(|column| self.columns.contains_key(&column.number)).collect();
        let names: String = loaded.iter().flat_map(|column| column.names()).map(|name| format!(", {name}")).collect();
        let sql = format!("SELECT id, state{names} FROM {} WHERE id = ?1", tables.rows());
        let mut statement = reader.prepare_cached(&sql)?;
        for id in ids {
            let slot = self.slot(*id);
            let there = statement.query_row([id], |row| self.take(slot, *id, row, &loaded)).optional()?;
            if let (None, Some(slot)) = (there, slot) {
                self.active.remove(slot);
                self.retired.remove(slot);
            }
        }
        self.columns.retain(|_, loaded| !loaded.values.is_littered());
        Ok(())
    }

    fn take(&mut self, slot: Option<u32>, id: i64, row: &Row<'_>, loaded: &[&Column]) -> rusqlite::Result<()> {
        let slot = slot.unwrap_or_else(|| self.append(id));
        self.set_state(slot, row.get(1)?);
        let mut at = 2;
        for column in loaded {
            if let Some(loaded) = self.columns.get_mut(&column.number) {
                loaded.values.take(slot as usize, row, at)?;
            }
            at += column.names().len();
        }
        Ok(())
    }

    fn append(&mut self, id: i64) -> u32 {
        let slot = self.ids.len() as u32;
        if self.by_id.is_none() && self.ids.last().is_some_and(|last| *last > id) {
            self.by_id = Some(self.ids.iter().copied().zip(0..).collect());
        }
        if let Some(by_id) = &mut self.by_id {
            by_id.insert(id, slot);
        }
        self.ids.push(id);
        slot
    }

    fn set_state(&mut self, slot: u32, state: i64) {
        self.active.cover(slot);
        self.retired.cover(slot);
        self.active.remove(slot);
        self.retired.remove(slot);
        if state == number_of(RowState::Active) {
            self.active.insert(slot);
        } else if state == number_of(RowState::Retired) {
            self.retired.insert(slot);
        }
    }

    /// Returns the columns with the moment of their last use.
    pub(super) fn used(&self) -> impl Iterator<Item = (i64, u64)> {
        self.columns.iter().map(|(number, loaded)| (*number, loaded.used.load(Ordering::Relaxed)))
    }

    /// Lets a column go.
    pub(super) fn drop_column(&mut self, number: i64) {
        self.columns.remove(&number);
    }

    /// Returns about how much room it takes.
    pub(super) fn bytes(&self) -> usize {
        let columns: usize = self.columns.values().map(|loaded| loaded.values.bytes()).sum();
        let by_id = self.by_id.as_ref().map_or(0, |by_id| by_id.capacity() * 17);
        columns + by_id + self.ids.capacity() * 8 + self.active.bytes() + self.retired.bytes()
    }
}
