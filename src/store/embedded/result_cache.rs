//! The result cache: answers of one moment of the file, for repeated queries.
//!
//! Farms ask the same thing thousands of times a minute. Within one moment the same
//! query has the same answer, and every transaction that can change one writes a
//! record of changes or makes the layouts anew: while both numbers stand still,
//! nothing has happened. When either moves, everything is forgotten, which costs
//! nothing that has to be found out.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashlink::LinkedHashMap;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Row};
use rustc_hash::FxHasher;

use super::super::{Found, Result};
use crate::filter::Query;

/// A moment of the file: two are the same when no commit in between changed an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AsOf {
    /// The number of the newest record of changes.
    pub seq: i64,
    /// Of the layouts.
    pub generation: i64,
}

impl AsOf {
    /// Returns the present moment: one statement sees one.
    pub(super) fn now(reader: &Connection) -> Result<Self> {
        let sql = "SELECT (SELECT max(seq) FROM changes), (SELECT value FROM generation)";
        let now = |row: &Row<'_>| Ok(Self { seq: row.get(0)?, generation: row.get(1)? });
        Ok(reader.prepare_cached(sql)?.query_row([], now)?)
    }
}

/// What is not text in an answer, about: the query, and the key of each row.
const PER_ANSWER: usize = 600;
const PER_ROW: usize = 64;

/// Answers that were given, all as of one moment.
#[derive(Debug)]
pub(super) struct ResultCache {
    known: Mutex<Known>,
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct Known {
    as_of: AsOf,
    /// By the hash of the query, least recently used first; of two queries with the
    /// same hash, the later stays.
    answers: LinkedHashMap<u64, Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    query: Query,
    found: Arc<Found>,
    bytes: usize,
}

impl ResultCache {
    /// Makes an empty collection that grows to so many bytes, about.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { known: Mutex::default(), most_bytes }
    }

    /// Returns the answer that a query had at this very moment, if it was asked.
    pub(super) fn get(&self, as_of: AsOf, query: &Query) -> Option<Arc<Found>> {
        let mut known = self.lock();
        if known.as_of != as_of {
            return None;
        }
        let hash = hash(query);
        let kept = known.answers.get(&hash).filter(|kept| kept.query == *query)?;
        let found = Arc::clone(&kept.found);
        known.answers.to_back(&hash);
        Some(found)
    }

    /// Forgets everything: another file has moments of its own.
    pub(super) fn forget(&self) {
        *self.lock() = Known::default();
    }

    /// Keeps the answer that a query has at a moment, unless a later one was seen.
    pub(super) fn keep(&self, as_of: AsOf, query: &Query, found: &Arc<Found>) {
        let bytes = found.rows.iter().map(|row| row.json().len() + PER_ROW).sum::<usize>() + PER_ANSWER;
        let mut known = self.lock();
        if as_of < known.as_of || bytes > self.most_bytes / 8 {
            return;
        }
        if as_of > known.as_of {
            *known = Known { as_of, ..Known::default() };
        }
        let kept = Kept { query: query.clone(), found: Arc::clone(found), bytes };
        known.bytes += bytes;
        if let Some(replaced) = known.answers.insert(hash(query), kept) {
            known.bytes -= replaced.bytes;
        }
        while known.bytes > self.most_bytes {
            let Some((_, oldest)) = known.answers.pop_front() else { break };
            known.bytes -= oldest.bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

/// Returns a hash of what tells most queries apart.
fn hash(query: &Query) -> u64 {
    struct Text(FxHasher);
    impl Write for Text {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(FxHasher::default());
    (query.entity_type.as_str(), query.page.size, query.page.number, query.fields.len()).hash(&mut text.0);
    // Never fails, as the text takes everything.
    let _ = write!(text, "{:?}", query.filter);
    text.0.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::EntityRef;
    use crate::filter::Filter;
    use crate::store::Row;

    fn of(id: i64) -> (Query, Arc<Found>) {
        let row = Row::from_text(EntityRef::new("Shot", id), "x".repeat(1_000));
        (Query::all("Shot").filter(Filter::ids([id])), Arc::new(Found { rows: vec![row], has_next_page: false }))
    }

    #[test]
    fn an_answer_is_of_its_moment_only() {
        let answers = ResultCache::new(1 << 20);
        let [first, second] = [(1, 1), (2, 1)].map(|(seq, generation)| AsOf { seq, generation });
        let (query, found) = of(1);
        answers.keep(first, &query, &found);
        assert_eq!(answers.get(first, &query), Some(Arc::clone(&found)));
        assert_eq!(answers.get(second, &query), None);
        assert_eq!(answers.get(first, &of(2).0), None);
        // One who began earlier and ends later brings nothing back.
        answers.keep(second, &of(2).0, &of(2).1);
        answers.keep(first, &query, &found);
        assert_eq!((answers.get(first, &query), answers.get(second, &query)), (None, None));
        let layouts = AsOf { seq: 2, generation: 2 };
        assert_eq!(answers.get(layouts, &of(2).0), None);
    }

    #[test]
    fn answers_take_no_more_room_than_they_may() {
        let answers = ResultCache::new(20_000);
        let as_of = AsOf { seq: 1, generation: 1 };
        for id in 1..=50 {
            answers.keep(as_of, &of(id).0, &of(id).1);
            assert!(answers.get(as_of, &of(id).0).is_some(), "the newest is kept");
            assert!(answers.lock().bytes <= 20_000);
            // What is asked again and again stays, whatever passes by.
            assert!(answers.get(as_of, &of(1).0).is_some());
        }
        let kept: usize = answers.lock().answers.values().map(|kept| kept.bytes).sum();
        assert_eq!(kept, answers.lock().bytes);
        let (query, _) = of(51);
        let large = Found { rows: (1..=3).flat_map(|id| of(id).1.rows.clone()).collect(), has_next_page: false };
        answers.keep(as_of, &query, &Arc::new(large));
        assert_eq!(answers.get(as_of, &query), None, "one answer does not push all others out");
        assert!(answers.get(as_of, &of(50).0).is_some());
    }
}
