//! The schema that the site showed last: with it a start does not depend on the site.

use serde_json::{Value, json};

use super::{Result, State, StateError};
use crate::schema::Schema;

/// The name under which it is kept.
const KEPT: &str = "schema";
/// The name under which the part of it is kept that entity configs were checked with.
const CONFIGURED: &str = "configured schema";

impl State {
    /// Keeps the schema of a site.
    pub async fn keep_schema(&self, site: &str, schema: &Schema) -> Result<()> {
        let kept = json!({"site": site, "fields": schema.to_wire(), "entities": schema.entities_to_wire()});
        self.keep(KEPT, &kept).await
    }

    /// Returns the schema of this site as it was kept last; `None` before the first
    /// one, and where the kept one is that of another site.
    ///
    /// # Errors
    ///
    /// Also when what is kept is not a schema.
    pub async fn kept_schema(&self, site: &str) -> Result<Option<Schema>> {
        let Some(kept) = self.kept::<Value>(KEPT).await? else { return Ok(None) };
        // Earlier versions did not write the site; a data directory had one all the same.
        if kept.get("site").is_some_and(|known| known != site) {
            return Ok(None);
        }
        let read = Schema::from_wire(&kept["fields"], &kept["entities"]);
        read.map(Some).map_err(|error| StateError::malformed("schema", error))
    }

    /// Keeps the part of the schema that the entity configs name.
    pub async fn keep_configured_schema(&self, schema: &Schema) -> Result<()> {
        self.keep(CONFIGURED, &json!({"fields": schema.to_wire(), "entities": schema.entities_to_wire()})).await
    }

    /// Returns the types and fields that entity configs named when they were last
    /// checked; empty before.
    ///
    /// # Errors
    ///
    /// Also when what is kept is not a schema.
    pub async fn configured_schema(&self) -> Result<Schema> {
        let Some(kept) = self.kept::<Value>(CONFIGURED).await? else { return Ok(Schema::default()) };
        let read = Schema::from_wire(&kept["fields"], &kept["entities"]);
        read.map_err(|error| StateError::malformed("schema", error))
    }
}
