//! Brings the known types in line with the configured ones.

use super::{Replica, Result};
use crate::entity_config::TypeLayout;
use crate::schema::Schema;
use crate::state::TypeState;
use crate::store::PurgeScope;

impl Replica {
    /// Makes room in the store for every followed type.
    pub(super) async fn make_room(&self) -> Result<()> {
        let known = self.state().types()?;
        for layout in self.tracked().layouts() {
            let record = known.iter().find(|record| record.entity_type == layout.entity_type);
            // A changed layout gets its room when its import begins.
            if record.is_none_or(|record| record.layout_hash == layout.hash) {
                self.store().ensure_type(layout).await?;
            }
        }
        Ok(())
    }

    /// Puts types aside that no entity config names any more: their rows go after
    /// a period in which a mistake can be undone.
    pub(super) async fn forget_untracked(&self) -> Result<()> {
        let tracked = self.tracked();
        let now = self.now();
        for record in self.state().types()?.iter().filter(|record| !tracked.follows(&record.entity_type)) {
            let entity_type = &record.entity_type;
            self.state().set_untracked(entity_type, now)?;
            let since = record.untracked_since.unwrap_or(now);
            if now.since(since) < self.settings().forget_untracked_after {
                continue;
            }
            let rows = self.store().purge(&PurgeScope::Type(entity_type.clone())).await?;
            self.step("types: purged")?;
            self.state().forget_type(entity_type)?;
            tracing::info!(%entity_type, rows, "no entity config names the type: its rows are gone");
        }
        Ok(())
    }

    /// Reads the schema and stops types whose fields are not as configured; a type
    /// that fits again goes on.
    pub(super) async fn check_schema(&self) -> Result<()> {
        let schema = self.client().schema().await?;
        for layout in self.tracked().layouts() {
            let entity_type = &layout.entity_type;
            let problem = schema_problem(layout, &schema);
            let state = self.state().type_record(entity_type)?.map(|record| record.state);
            match (problem, state) {
                (Some(problem), Some(TypeState::Live)) => {
                    tracing::error!(%entity_type, problem, "the site changed a cached field: the type is not followed");
                    self.state().set_type_state(entity_type, TypeState::Degraded)?;
                }
                (None, Some(TypeState::Degraded)) => {
                    tracing::info!(%entity_type, "the fields are as configured again");
                    self.state().set_type_state(entity_type, TypeState::Live)?;
                }
                _ => {}
            }
        }
        Ok(self.state().schema_refreshed()?)
    }
}

/// Returns the first field that the site does not have as it is configured.
fn schema_problem(layout: &TypeLayout, schema: &Schema) -> Option<String> {
    if schema.entity(&layout.entity_type).is_none() {
        return Some(format!("the type `{}` is gone", layout.entity_type));
    }
    layout.fields.iter().find_map(|field| match schema.field(&layout.entity_type, &field.name) {
        None => Some(format!("the field `{}` is gone", field.name)),
        Some(found) if found.data_type != field.data_type => {
            Some(format!("the field `{}` is now a {}", field.name, found.data_type))
        }
        Some(_) => None,
    })
}
