//! The values of one column in memory, one for each slot.
//!
//! They are what stands in the narrow table (`column`). Texts and links are
//! numbers of distinct values: a test looks at each distinct value once, and the
//! rows are then compared by number.

use std::collections::BTreeSet;
use std::hash::Hash;

use indexmap::{Equivalent, IndexSet};
use rusqlite::Row;
use rustc_hash::FxBuildHasher;

use super::slots::Slots;
use crate::entity::Shape;

/// No value, among whole numbers.
pub(in super::super) const NO_NUMBER: i64 = i64::MIN;

/// No value, among numbers of distinct values.
pub(in super::super) const NO_CODE: u32 = u32::MAX;

/// What a link points to: number of the type, id.
pub(in super::super) type Target = (i64, i64);

/// The values of a column.
#[derive(Clone, Debug)]
pub(in super::super) enum Values {
    /// Whole numbers, flags, days, moments, presence; [`NO_NUMBER`] without.
    Whole(Vec<i64>),
    /// Fractions; not a number without.
    Fractions(Vec<f64>),
    /// Texts.
    Texts(Codes<Box<str>>),
    /// Links, and the types that they point to.
    Links(Codes<Target>, BTreeSet<i64>),
}

/// Values by number.
#[derive(Clone, Debug)]
pub(in super::super) struct Codes<T> {
    codes: Vec<u32>,
    distinct: IndexSet<T, FxBuildHasher>,
    /// The room of the distinct values themselves, beyond their places.
    heap: usize,
}

impl<T> Default for Codes<T> {
    fn default() -> Self {
        Self { codes: Vec::new(), distinct: IndexSet::default(), heap: 0 }
    }
}

impl<T: Hash + Eq> Codes<T> {
    /// Returns the distinct values; some may be in no row any more.
    pub(in super::super) fn distinct(&self) -> impl ExactSizeIterator<Item = &T> {
        self.distinct.iter()
    }

    /// Returns the number of a value.
    pub(in super::super) fn code<Q: Hash + Equivalent<T> + ?Sized>(&self, value: &Q) -> Option<u32> {
        self.distinct.get_index_of(value).map(|code| code as u32)
    }

    /// Returns the value of a row.
    pub(in super::super) fn value(&self, slot: u32) -> Option<&T> {
        self.by_code(self.codes.get(slot as usize).copied()?)
    }

    /// Returns the value with a number; [`NO_CODE`] has none.
    pub(in super::super) fn by_code(&self, code: u32) -> Option<&T> {
        self.distinct.get_index(code as usize)
    }

    /// Returns the number of the value of each row.
    pub(in super::super) fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Returns those of `from` whose value has one of these numbers.
    pub(in super::super) fn having(&self, from: &Slots, wanted: &[u32]) -> Slots {
        match wanted {
            [] => Slots::none(self.codes.len()),
            [only] => from.passing(&self.codes, |code| code == *only),
            several => {
                let mut table = vec![false; self.distinct.len()];
                for code in several {
                    if let Some(wanted) = table.get_mut(*code as usize) {
                        *wanted = true;
                    }
                }
                let mut found = from.passing(&self.codes, |code| table.get(code as usize).copied().unwrap_or(false));
                if several.contains(&NO_CODE) {
                    found.add(&from.passing(&self.codes, |code| code == NO_CODE));
                }
                found
            }
        }
    }

    /// Two words for each distinct value, its hash, and its place in the table.
    fn bytes(&self) -> usize {
        self.heap + self.codes.capacity() * 4 + self.distinct.capacity() * 34
    }

    fn put(&mut self, slot: usize, code: Option<usize>) {
        place(&mut self.codes, slot, code.map_or(NO_CODE, |code| code as u32), NO_CODE);
    }
}

fn place<T: Copy>(values: &mut Vec<T>, slot: usize, value: T, none: T) {
    if slot >= values.len() {
        values.resize(slot + 1, none);
    }
    values[slot] = value;
}

impl Values {
    /// Returns an empty column for values of a shape.
    pub(in super::super) fn new(shape: Shape) -> Self {
        match shape {
            Shape::Text | Shape::ExactText => Self::Texts(Codes::default()),
            Shape::Float => Self::Fractions(Vec::new()),
            Shape::Link => Self::Links(Codes::default(), BTreeSet::new()),
            Shape::Int | Shape::Bool | Shape::Date | Shape::DateTime | Shape::Presence => Self::Whole(Vec::new()),
            // Neither has a column in the narrow table.
            Shape::Links | Shape::Opaque => Self::Whole(Vec::new()),
        }
    }

    /// Takes the value of a row over, from the column of the result at `at` and the
    /// one behind it.
    pub(in super::super) fn take(&mut self, slot: usize, row: &Row<'_>, at: usize) -> rusqlite::Result<()> {
        match self {
            Self::Whole(values) => place(values, slot, row.get::<_, Option<i64>>(at)?.unwrap_or(NO_NUMBER), NO_NUMBER),
            Self::Fractions(values) => {
                place(values, slot, row.get::<_, Option<f64>>(at)?.unwrap_or(f64::NAN), f64::NAN)
            }
            Self::Texts(texts) => {
                let text = row.get_ref(at)?.as_str_or_null()?;
                // Most texts are known: only new ones are copied.
                let code = text.map(|text| match texts.distinct.get_index_of(text) {
                    Some(known) => known,
                    None => {
                        // The text, and what an allocation costs.
                        texts.heap += text.len() + 16;
                        texts.distinct.insert_full(text.into()).0
                    }
                });
                texts.put(slot, code);
            }
            Self::Links(links, types) => {
                let target = row.get::<_, Option<i64>>(at)?.zip(row.get::<_, Option<i64>>(at + 1)?);
                types.extend(target.map(|(ty, _)| ty));
                let code = target.map(|target| links.distinct.insert_full(target).0);
                links.put(slot, code);
            }
        }
        Ok(())
    }

    /// Tells whether values without a row take most of the room.
    pub(in super::super) fn is_littered(&self) -> bool {
        let (rows, distinct) = match self {
            Self::Texts(texts) => (texts.codes.len(), texts.distinct.len()),
            Self::Links(links, _) => (links.codes.len(), links.distinct.len()),
            Self::Whole(_) | Self::Fractions(_) => return false,
        };
        distinct > 2 * rows + 1_000
    }

    /// Returns about how much room it takes.
    pub(in super::super) fn bytes(&self) -> usize {
        match self {
            Self::Whole(values) => values.capacity() * 8,
            Self::Fractions(values) => values.capacity() * 8,
            Self::Texts(texts) => texts.bytes(),
            Self::Links(links, _) => links.bytes(),
        }
    }
}
