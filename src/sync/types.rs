//! Brings the known types in line with the configured ones.

use super::{Replica, Result};
use crate::store::PurgeScope;

impl Replica {
    /// Makes room in the store for every followed type. One that the store has lost,
    /// because its index was dropped or its file removed, is imported again.
    pub(super) async fn make_room(&self) -> Result<()> {
        let known = self.state().types().await?;
        let stored = self.store().types().await?;
        for layout in self.tracked().layouts() {
            let mut record = known.iter().find(|record| record.entity_type == layout.entity_type);
            let entity_type = &layout.entity_type;
            // Also a type that is being imported; the others were compared before.
            if record.is_some() && !stored.iter().any(|one| one.entity_type == *entity_type) {
                tracing::error!(%entity_type, "the store has lost the type: it is imported again");
                self.state().forget_rows(entity_type).await?;
                self.step("types: forgotten")?;
                record = None;
            }
            // A changed layout gets its room when its import begins.
            if record.is_none_or(|record| record.layout_hash == layout.hash) {
                self.store().ensure_type(layout).await?;
            }
        }
        Ok(())
    }

    /// Notes which types no entity config names any more: their rows go after
    /// a period in which a mistake can be undone.
    pub(super) async fn forget_untracked(&self) -> Result<()> {
        let tracked = self.tracked();
        let now = self.now();
        for record in self.state().types().await?.iter().filter(|record| !tracked.follows(&record.entity_type)) {
            let entity_type = &record.entity_type;
            self.state().set_untracked(entity_type, now).await?;
            let since = record.untracked_since.unwrap_or(now);
            if now.since(since) < self.settings().forget_untracked_after {
                continue;
            }
            let rows = self.store().purge(&PurgeScope::Type(entity_type.clone())).await?;
            self.step("types: purged")?;
            self.state().forget_type(entity_type).await?;
            tracing::info!(%entity_type, rows, "no entity config names the type: its rows are gone");
        }
        Ok(())
    }
}
