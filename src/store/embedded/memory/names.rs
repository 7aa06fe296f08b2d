//! Names of entities, as links show them, that answers asked for.
//!
//! Only those that the own row of the entity decides: whatever changes one is a
//! write of that row, a `relink` or a purge, and those are listed in `changes`. Names
//! that came along in links change without, and are asked of SQLite every time.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::values::Target;

/// Names take more room than this, with all that belongs to them, about so often.
const BYTES: usize = 96;

/// What links show of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Named {
    /// The name as JSON text; `None` without one.
    pub(in super::super) name: Option<Box<str>>,
    /// Whether the target is retired or absent, so that links leave it out.
    pub(in super::super) dead: bool,
}

/// The names that are in memory.
#[derive(Debug, Default)]
pub(in super::super) struct Names(FxHashMap<Target, Named>);

impl Names {
    /// Returns what is known of a target.
    pub(in super::super) fn get(&self, target: Target) -> Option<&Named> {
        self.0.get(&target)
    }

    /// Keeps names, as long as all of them take no more than `most_bytes`.
    pub(super) fn keep(&mut self, names: Vec<(Target, Named)>, most_bytes: usize) {
        if (self.0.len() + names.len()) * BYTES > most_bytes {
            self.0.clear();
        }
        if names.len() * BYTES <= most_bytes {
            self.0.extend(names);
        }
    }

    /// Forgets some names of a type.
    pub(super) fn forget(&mut self, ty: i64, ids: &BTreeSet<i64>) {
        if ids.len() < self.0.len() {
            ids.iter().for_each(|id| drop(self.0.remove(&(ty, *id))));
        } else {
            self.0.retain(|(other, id), _| *other != ty || !ids.contains(id));
        }
    }

    /// Forgets the names of a type.
    pub(super) fn forget_type(&mut self, ty: i64) {
        self.0.retain(|(other, _), _| *other != ty);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Tells whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
