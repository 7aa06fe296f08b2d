//! What changed, so that it can be taken back: one transaction that is refused, or
//! everything since a mark.
//!
//! A mark costs nothing but the schema, whatever the size of the site; going back
//! to it costs what has changed since. A copy of the rows would cost their number.

use super::auxiliary_state::AuxiliaryState;
use super::cell::{Cell, Key};
use super::schema::{FieldId, SiteSchema};
use super::table::Row;

/// How to take back one change.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    /// A row that was not there.
    Inserted(Key),
    /// A row that was there.
    Removed(Key, Box<Row>),
    /// The former value of a field.
    Set(Key, FieldId, Cell),
    /// Whether the row was retired before.
    Retired(Key, bool),
    /// With what the row was retired before.
    RetiredWith(Key, Option<Key>),
}

impl Undo {
    /// Returns the row that changed.
    pub fn key(&self) -> Key {
        match self {
            Self::Inserted(key)
            | Self::Removed(key, _)
            | Self::Set(key, ..)
            | Self::Retired(key, _)
            | Self::RetiredWith(key, _) => *key,
        }
    }
}

/// A moment in the history of the rows.
#[derive(Clone, Debug)]
pub(super) struct Savepoint {
    /// The number of changes before it.
    pub at: usize,
    /// The ids that the next rows of each type get.
    pub next: Vec<u32>,
    /// What was kept beside the rows.
    pub kept: AuxiliaryState,
    /// The schema of that moment.
    pub schema: SiteSchema,
}

/// The changes, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    changes: Vec<Undo>,
    /// Where the transaction in progress began.
    open: Option<usize>,
    /// Whether changes are kept when their transaction is over.
    pub keeps: bool,
}

impl Journal {
    /// Notes a change, if a transaction may roll it back.
    pub fn note(&mut self, change: Undo) {
        if self.keeps || self.open.is_some() {
            self.changes.push(change);
        }
    }

    /// Begins a transaction.
    pub fn begin(&mut self) {
        self.open = Some(self.changes.len());
    }

    /// Ends a transaction and returns the rows that it changed.
    pub fn end(&mut self) -> Vec<Key> {
        let from = self.open.take().unwrap_or(self.changes.len());
        let mut keys: Vec<_> = self.changes[from..].iter().map(Undo::key).collect();
        keys.sort_unstable();
        keys.dedup();
        if !self.keeps {
            self.changes.clear();
        }
        keys
    }

    /// Takes out the changes of the transaction in progress, newest first.
    pub fn abandon(&mut self) -> Vec<Undo> {
        let from = self.open.take().unwrap_or(self.changes.len());
        self.take_from(from)
    }

    /// Takes out the changes since a moment, newest first.
    pub fn take_from(&mut self, from: usize) -> Vec<Undo> {
        let mut changes = self.changes.split_off(from.min(self.changes.len()));
        changes.reverse();
        changes
    }

    /// Returns the number of changes so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }
}
