//! The rows of one entity type, in the order of their ids.

use super::cell::{Cell, Slot};
use super::schema::FieldId;

/// One row: the fields that have a value, sorted by field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    slots: Vec<Slot>,
    /// Whether the row is retired.
    pub retired: bool,
}

impl Row {
    /// Makes a row of values that are sorted by field.
    pub fn of(slots: Vec<Slot>, retired: bool) -> Self {
        Self { slots, retired }
    }

    /// Returns the value of a field; null when it has none.
    pub fn cell(&self, field: FieldId) -> &Cell {
        match self.slots.binary_search_by_key(&field, |slot| slot.field) {
            Ok(at) => &self.slots[at].cell,
            Err(_) => Cell::null(),
        }
    }

    /// Sets a field and returns its former value.
    pub fn set(&mut self, field: FieldId, cell: Cell) -> Cell {
        match self.slots.binary_search_by_key(&field, |slot| slot.field) {
            Ok(at) if cell == Cell::Null => self.slots.remove(at).cell,
            Ok(at) => std::mem::replace(&mut self.slots[at].cell, cell),
            Err(_) if cell == Cell::Null => Cell::Null,
            Err(at) => {
                self.slots.insert(at, Slot { field, cell });
                Cell::Null
            }
        }
    }

    /// Returns the fields that have a value.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Gives back the memory that growing left over.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

/// The rows of one type. Ids are dense, but for those that were never used.
#[derive(Clone, Debug)]
pub struct Table {
    first: u32,
    rows: Vec<Option<Row>>,
    /// The id that the next row gets.
    pub next: u32,
    /// The number of rows that are not retired.
    pub active: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::starting_at(1)
    }
}

impl Table {
    /// Makes a table whose ids begin at `first`.
    pub fn starting_at(first: u32) -> Self {
        Self { first, rows: Vec::new(), next: first, active: 0 }
    }

    /// Lets the ids begin earlier, which is possible while there is no row.
    pub fn make_room(&mut self, first: u32) {
        if self.rows.is_empty() {
            self.first = self.first.min(first);
        }
    }

    fn index(&self, id: u32) -> Option<usize> {
        id.checked_sub(self.first).map(|at| at as usize)
    }

    /// Returns a row, retired or not.
    pub fn get(&self, id: u32) -> Option<&Row> {
        self.rows.get(self.index(id)?)?.as_ref()
    }

    /// Returns a row to change it. Its retirement is changed by [`Self::retire`].
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Row> {
        let at = self.index(id)?;
        self.rows.get_mut(at)?.as_mut()
    }

    /// Puts a row in its place; an id below the first one is ignored.
    pub fn insert(&mut self, id: u32, row: Row) {
        let Some(at) = self.index(id) else { return };
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, || None);
        }
        self.active += usize::from(!row.retired);
        self.rows[at] = Some(row);
        self.next = self.next.max(id + 1);
    }

    /// Takes a row out, as if it had never been; its id is not used again.
    pub fn take(&mut self, id: u32) -> Option<Row> {
        let at = self.index(id)?;
        let row = self.rows.get_mut(at)?.take()?;
        self.active -= usize::from(!row.retired);
        Some(row)
    }

    /// Retires or revives a row and tells whether that changed it.
    pub fn retire(&mut self, id: u32, retired: bool) -> bool {
        let Some(row) = self.get_mut(id).filter(|row| row.retired != retired) else {
            return false;
        };
        row.retired = retired;
        if retired {
            self.active -= 1;
        } else {
            self.active += 1;
        }
        true
    }

    /// Returns the rows with ids in `first..=last`, in order.
    pub fn range(&self, first: u32, last: u32) -> impl DoubleEndedIterator<Item = (u32, &Row)> {
        let from = first.max(self.first);
        let start = ((from - self.first) as usize).min(self.rows.len());
        let end = match last.checked_sub(self.first) {
            Some(at) => (at as usize + 1).clamp(start, self.rows.len()),
            None => start,
        };
        let base = self.first + start as u32;
        let numbered = self.rows[start..end].iter().enumerate();
        numbered.filter_map(move |(at, row)| Some((base + at as u32, row.as_ref()?)))
    }

    /// Returns the id of the last row.
    pub fn last_id(&self) -> Option<u32> {
        self.range(0, u32::MAX).next_back().map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_sees_exactly_its_ids() {
        let mut table = Table::starting_at(100);
        for id in [100, 101, 105] {
            table.insert(id, Row::default());
        }
        let ids = |first, last| table.range(first, last).map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(0, u32::MAX), [100, 101, 105]);
        assert_eq!(ids(101, 104), [101]);
        assert_eq!(ids(0, 99), [] as [u32; 0]);
        assert_eq!(ids(106, 300), [] as [u32; 0]);
        assert_eq!(table.last_id(), Some(105));
    }

    #[test]
    fn a_null_takes_no_place_in_a_row() {
        let mut row = Row::default();
        row.set(7, Cell::Int(1));
        row.set(3, Cell::Bool(true));
        assert_eq!(row.set(7, Cell::Null), Cell::Int(1));
        assert_eq!((row.slots().len(), row.cell(3), row.cell(7)), (1, &Cell::Bool(true), &Cell::Null));
    }
}
