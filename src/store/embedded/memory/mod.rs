//! The columns of the narrow tables that queries asked for, and the names that
//! answers showed, in memory.
//!
//! SQLite has no index on them: each would be paid for by every write, and a look
//! at a column in memory is faster than the way through an index. A column comes
//! in with the first query that needs it (about 0.1 s for a million rows), is kept
//! as new as the file, and leaves when others need the room.
//!
//! Several processes write the file. Every transaction that writes rows tells in
//! `changes` which; a query that finds memory behind reads just those rows again.
//! The lock is taken before the transaction of the query begins, so memory is
//! never newer than what the transaction sees: once it has caught up, ids that are
//! found here and documents that are read there are of one moment.

mod names;
mod rows;
mod slots;
mod values;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard};
use rusqlite::Connection;

use super::super::Result;
use super::changes::{self, Change};
use super::layouts::{Layouts, Tables};

pub(super) use names::{Named, Names};
pub(super) use rows::TypeRows;
pub(super) use slots::Slots;
pub(super) use values::{Codes, NO_CODE, NO_NUMBER, Target, Values};

/// The columns that a query needs: their numbers by the number of the type. A
/// type without columns needs ids and states.
pub(super) type Needs = BTreeMap<i64, BTreeSet<i64>>;

/// What is in memory, shared by all readers.
#[derive(Debug)]
pub(super) struct Memory {
    held: RwLock<Held>,
    /// Counts queries, to know which column was used last.
    moments: AtomicU64,
    /// How much room columns may take.
    most_bytes: usize,
}

/// The rows and columns of one moment of the file.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The number of the last change that is in here.
    seq: i64,
    types: BTreeMap<i64, TypeRows>,
    names: Names,
}

impl Memory {
    /// Returns an empty memory that grows to so many bytes.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { held: RwLock::default(), moments: AtomicU64::default(), most_bytes }
    }

    /// Runs `answer` over a snapshot and what is in memory of that very moment; names
    /// that it had to ask for are kept.
    ///
    /// `begin` opens the snapshot; `needs` says which columns it takes.
    pub(super) fn over<S, T>(
        &self,
        begin: impl Fn() -> Result<S>,
        needs: impl Fn(&S) -> Result<Needs>,
        answer: impl Fn(&S, &Held) -> Result<(T, NewNames)>,
    ) -> Result<T>
    where
        S: Snapshot,
    {
        let moment = self.moments.fetch_add(1, Ordering::Relaxed) + 1;
        let held = self.held.read();
        if let Some(answer) = self.as_it_is(held, moment, &begin, &needs, &answer)? {
            return Ok(answer);
        }
        let mut held = self.held.write();
        let snapshot = begin()?;
        let needed = needs(&snapshot)?;
        held.prepare(&snapshot, &needed, moment)?;
        held.make_room(self.most_bytes, moment);
        let (answer, names) = answer(&snapshot, &held)?;
        held.names.keep(names, self.most_bytes / 4);
        Ok(answer)
    }

    fn as_it_is<S, T>(
        &self,
        held: RwLockReadGuard<'_, Held>,
        moment: u64,
        begin: &impl Fn() -> Result<S>,
        needs: &impl Fn(&S) -> Result<Needs>,
        answer: &impl Fn(&S, &Held) -> Result<(T, NewNames)>,
    ) -> Result<Option<T>>
    where
        S: Snapshot,
    {
        let snapshot = begin()?;
        let needed = needs(&snapshot)?;
        if held.seq != changes::newest(snapshot.connection())? || !held.has(&needed, moment) {
            return Ok(None);
        }
        let (seq, (answer, names)) = (held.seq, answer(&snapshot, &held)?);
        drop(held);
        self.keep(seq, names);
        Ok(Some(answer))
    }

    /// Forgets everything: another file has moments of its own.
    pub(super) fn forget(&self) {
        *self.held.write() = Held::default();
    }

    /// Keeps names of a moment, unless memory has moved on or a reader holds it.
    fn keep(&self, seq: i64, names: NewNames) {
        if names.is_empty() {
            return;
        }
        if let Some(mut held) = self.held.try_write()
            && held.seq == seq
        {
            held.names.keep(names, self.most_bytes / 4);
        }
    }
}

/// Names that were not in memory.
pub(super) type NewNames = Vec<(Target, Named)>;

/// One moment of the file.
pub(super) trait Snapshot {
    /// The connection, inside of a transaction.
    fn connection(&self) -> &Connection;
    /// The tables at that moment.
    fn layouts(&self) -> &Layouts;
}

impl Held {
    /// Returns the number of the last change that is in here.
    pub(super) fn seq(&self) -> i64 {
        self.seq
    }

    /// Returns the names that are in memory.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the rows of a type that was among the needs.
    pub(super) fn rows(&self, tables: &Tables) -> Option<&TypeRows> {
        self.types.get(&tables.number)
    }

    fn has(&self, needs: &Needs, moment: u64) -> bool {
        needs.iter().all(|(ty, columns)| self.types.get(ty).is_some_and(|rows| rows.touch(columns, moment)))
    }

    /// Makes memory as new as the snapshot and brings in what is needed. What
    /// fails half-way is not kept.
    fn prepare(&mut self, snapshot: &impl Snapshot, needs: &Needs, moment: u64) -> Result<()> {
        let prepared = self.follow(snapshot).and_then(|()| self.load(snapshot, needs, moment));
        if prepared.is_err() {
            self.types.clear();
            self.names.clear();
        }
        prepared
    }

    fn follow(&mut self, snapshot: &impl Snapshot) -> Result<()> {
        let (reader, layouts) = (snapshot.connection(), snapshot.layouts());
        let newest = changes::newest(reader)?;
        if self.seq == newest {
            return Ok(());
        }
        match changes::after(reader, self.seq)? {
            _ if self.types.is_empty() && self.names.is_empty() => {}
            // They are not kept for ever.
            None => {
                self.types.clear();
                self.names.clear();
            }
            Some(changes) => {
                for (ty, change) in changes {
                    self.apply(reader, layouts, ty, change)?;
                }
            }
        }
        self.seq = newest;
        Ok(())
    }

    fn apply(&mut self, reader: &Connection, layouts: &Layouts, ty: i64, change: Change) -> Result<()> {
        match &change {
            Change::Rows(ids) => self.names.forget(ty, ids),
            Change::Everything => self.names.forget_type(ty),
        }
        let Some(rows) = self.types.get_mut(&ty) else { return Ok(()) };
        match (change, layouts.all().find(|tables| tables.number == ty)) {
            // Reading all of them at once is quicker than many one by one.
            (Change::Rows(ids), Some(tables)) if ids.len() * 4 < rows.ids().len() + 4_000 => {
                rows.refresh(reader, tables, &ids)
            }
            _ => {
                self.types.remove(&ty);
                Ok(())
            }
        }
    }

    fn load(&mut self, snapshot: &impl Snapshot, needs: &Needs, moment: u64) -> Result<()> {
        for tables in snapshot.layouts().all() {
            let Some(columns) = needs.get(&tables.number) else { continue };
            let rows = match self.types.entry(tables.number) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(TypeRows::read(snapshot.connection(), tables)?),
            };
            rows.load(snapshot.connection(), tables, columns, moment)?;
            rows.touch(columns, moment);
        }
        Ok(())
    }

    /// Lets the columns go that were not used for longest. Those of this moment stay.
    fn make_room(&mut self, most_bytes: usize, moment: u64) {
        let mut bytes: usize = self.types.values().map(TypeRows::bytes).sum();
        while bytes > most_bytes {
            let columns =
                self.types.iter().flat_map(|(ty, rows)| rows.used().map(|(number, used)| (used, *ty, number)));
            let Some((_, ty, number)) = columns.filter(|(used, ..)| *used < moment).min() else { return };
            if let Some(rows) = self.types.get_mut(&ty) {
                let before = rows.bytes();
                rows.drop_column(number);
                bytes -= before - rows.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment of a file without types.
    struct Empty(Connection, Layouts);

    impl Snapshot for Empty {
        fn connection(&self) -> &Connection {
            &self.0
        }

        fn layouts(&self) -> &Layouts {
            &self.1
        }
    }

    #[test]
    fn a_moment_begins_while_memory_cannot_move_on() {
        let memory = Memory::new(0);
        let mut began = 0;
        let count = std::cell::Cell::new(0);
        for _ in 0..2 {
            let begin = || {
                assert!(memory.held.try_write().is_none(), "a writer could bring memory beyond this moment");
                count.set(count.get() + 1);
                let connection = Connection::open_in_memory()?;
                connection.execute_batch(changes::TABLE)?;
                Ok(Empty(connection, Layouts::default()))
            };
            let seen = memory.over(begin, |_| Ok(Needs::new()), |_, held| Ok((held.seq, NewNames::new())));
            assert_eq!(seen.expect("an answer"), 1);
            began = count.get();
        }
        assert_eq!(began, 3, "once more where memory was behind");
    }
}
