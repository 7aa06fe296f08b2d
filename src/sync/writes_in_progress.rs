//! The rows that reads of this process are writing now.
//!
//! Two reads of one key may be under way: the newer one stores its row first, and the
//! store refuses the older. Only a refusal for a row that no read of this process wrote
//! is a conflict, and the state learns of a row after the store has it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::entity::EntityType;
use crate::state::{ReadToken, Result, State};

/// Every write between its begin and the end of its transaction in the state.
#[derive(Clone, Default)]
pub(super) struct WritesInProgress(Arc<Mutex<Vec<Write>>>);

struct Write {
    entity_type: EntityType,
    /// The read version, of which no two reads have the same.
    rv: i64,
    ids: BTreeSet<i64>,
}

impl WritesInProgress {
    /// Notes a write until the guard is dropped: begin before the store has any row of
    /// it, drop after the state knows them.
    pub fn begin(&self, read: &ReadToken, ids: impl IntoIterator<Item = i64>) -> WriteGuard {
        let (entity_type, ids) = (read.entity_type.clone(), ids.into_iter().collect());
        self.0.lock().push(Write { entity_type, rv: read.rv, ids });
        WriteGuard { writes: self.clone(), rv: read.rv }
    }

    /// Returns which of the rows of a read that the store refused a newer read of this
    /// process has written: one that the state knows of, or is about to.
    pub async fn superseded(&self, state: &State, read: &ReadToken, stale: &BTreeSet<i64>) -> Result<BTreeSet<i64>> {
        // In this order: a write that is not in progress any more is in the state.
        let mut superseded = stale.clone();
        superseded.retain(|id| self.has_newer(read, *id));
        let others: Vec<i64> = stale.difference(&superseded).copied().collect();
        if !others.is_empty() {
            let known = state.rows(&read.entity_type, &others).await?;
            superseded.extend(known.iter().filter(|(_, meta)| meta.rv > read.rv).map(|(id, _)| *id));
        }
        Ok(superseded)
    }

    /// Tells whether a read that began after `read` is writing the key.
    fn has_newer(&self, read: &ReadToken, id: i64) -> bool {
        let newer = |write: &Write| write.entity_type == read.entity_type && write.rv > read.rv;
        self.0.lock().iter().any(|write| newer(write) && write.ids.contains(&id))
    }
}

/// A write in progress.
pub(super) struct WriteGuard {
    writes: WritesInProgress,
    rv: i64,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        self.writes.0.lock().retain(|write| write.rv != self.rv);
    }
}
