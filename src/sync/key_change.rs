//! What a read did to each key that it covered, and counting it. `write` does it.

use std::collections::{BTreeMap, BTreeSet};

use super::Replica;
use super::write::{Said, Sorted, Written};
use crate::entity::EntityRef;
use crate::state::{DirtyReasons, Finished, RowMeta};
use crate::store::{FetchedRow, RowState};

/// What became of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChange {
    /// The key.
    pub key: EntityRef,
    /// What became of it.
    pub outcome: KeyOutcome,
    /// What was known of it before.
    pub before: Option<RowMeta>,
    /// What the site says of it.
    pub state: RowState,
}

/// What became of a key that was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOutcome {
    /// It was written, and is another row or in another state than before.
    Changed,
    /// It was written or left alone, and is as before.
    Same,
    /// The store has a newer row.
    Stale,
    /// It cannot be stored, for the given reason.
    Refused(String),
    /// It would vanish together with too many others; an operator has to look.
    Held,
    /// It may be older than the row that the store has, which stays; it is read again.
    Unproven,
    /// It was not found, which is not believed yet.
    Suspected,
}

impl Said {
    /// Returns the state of the row that is stored. No list shows one that is retired and that
    /// its filter leaves out, nor a link to it, so that it is absent like one that is gone.
    pub(super) fn state(&self) -> RowState {
        match self {
            Self::Row(state, _) => *state,
            Self::Filtered(RowState::Active, _) => RowState::Filtered,
            Self::Filtered(..) | Self::Absent => RowState::Absent,
        }
    }
}

/// Returns what became of each key of a read, in the order of the read.
pub(super) fn changes(
    read: &Written<'_>,
    sorted: &Sorted,
    stale: &BTreeSet<i64>,
    mut known: BTreeMap<i64, RowMeta>,
) -> Vec<KeyChange> {
    let rows: BTreeMap<i64, &FetchedRow> = sorted.rows.iter().map(|row| (row.key().id, row)).collect();
    let change = |(id, said): &(i64, Said)| {
        let key = EntityRef::new(read.token.entity_type.clone(), *id);
        let before = known.remove(id);
        let state = said.state();
        let outcome = match (rows.get(id), sorted.refused.get(id)) {
            (_, Some((_, reason))) => KeyOutcome::Refused(reason.clone()),
            (None, None) if sorted.suspected.contains_key(id) => KeyOutcome::Suspected,
            (None, None) if sorted.older.contains(id) => KeyOutcome::Unproven,
            (None, None) => KeyOutcome::Held,
            (Some(_), None) if stale.contains(id) => KeyOutcome::Stale,
            (Some(row), None) => match &before {
                Some(meta) if meta.hash == row.hash() && meta.state == state => KeyOutcome::Same,
                _ => KeyOutcome::Changed,
            },
        };
        KeyChange { key, outcome, before, state }
    };
    read.said.iter().map(change).collect()
}

impl Replica {
    /// Counts what became of the rows; events of rows that are read again, because they
    /// may be older, are not in the cache yet.
    pub(super) fn measure(
        &self,
        read: &Written<'_>,
        changes: &[KeyChange],
        finished: &Finished,
        rechecked: &BTreeSet<i64>,
    ) {
        let name = read.token.entity_type.as_str();
        let sync = &self.metrics().sync;
        for change in changes {
            let outcome = match (&change.outcome, change.state) {
                (KeyOutcome::Refused(_) | KeyOutcome::Held | KeyOutcome::Suspected, _) => "refused",
                (KeyOutcome::Stale | KeyOutcome::Unproven, _) => "stale",
                (_, RowState::Absent) => "absent",
                (_, RowState::Filtered) => "filtered",
                (KeyOutcome::Changed, _) => "written",
                (KeyOutcome::Same, _) => "unchanged",
            };
            sync.rows.inc(&[name, outcome]);
            // The rows of an import are in its own document.
            if read.segment.is_none() {
                self.note_activity(|activity| *activity.rows.entry(outcome).or_default() += 1);
            }
        }
        let now = self.now();
        for cleared in &finished.cleared {
            let operation = match cleared.kinds {
                kinds if kinds.any(DirtyReasons::NEW) => "create",
                kinds if kinds.any(DirtyReasons::RETIRE) => "retire",
                kinds if kinds.any(DirtyReasons::REVIVE) => "revive",
                kinds if kinds.any(DirtyReasons::CHANGE) => "change",
                _ => "link",
            };
            sync.events_applied.add(&[name, operation], u64::from(cleared.events));
            let applied = cleared.kinds.any(DirtyReasons::FROM_EVENT) && !rechecked.contains(&cleared.id);
            if let Some(created) = cleared.event_created.filter(|_| applied) {
                let lag = now.since(created);
                sync.lag.observe(lag.as_secs_f64());
                self.note_activity(|activity| activity.lag.add(lag));
                sync.last_event_created.set(created.timestamp().0 as f64);
            }
        }
    }
}
