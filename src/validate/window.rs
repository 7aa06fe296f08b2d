//! Which keys the event log touched while two sides were read.

use std::collections::BTreeSet;

use super::Result;
use crate::entity::EntityType;
use crate::state::State;

/// Opened before the first read of a comparison; asked after the poll that
/// follows the last one.
pub struct Window {
    entity_type: EntityType,
    generation: i64,
    marked: Vec<i64>,
}

impl Window {
    /// Notes what is marked now.
    pub async fn open(state: &State, entity_type: &EntityType) -> Result<Self> {
        // The generation first: a mark made between the two is in both.
        let generation = state.generation().await?;
        let marked = state.marked_ids(entity_type).await?;
        Ok(Self { entity_type: entity_type.clone(), generation, marked })
    }

    /// Returns the ids that were marked when the window was opened or since, and
    /// those in quarantine.
    pub async fn touched(&self, state: &State) -> Result<BTreeSet<i64>> {
        let mut touched: BTreeSet<i64> = self.marked.iter().copied().collect();
        touched.extend(state.touched_since(&self.entity_type, self.generation).await?);
        touched.extend(state.quarantined(&self.entity_type).await?);
        Ok(touched)
    }
}
