//! What a decision depends on besides the request: the schema, what is stored,
//! how fresh it is, which writes are pending. One moment of it all.

use std::sync::Arc;
use std::time::Duration;

use super::pending_writes::PendingWrites;
use super::settings::Settings;
use crate::entity::EntityType;
use crate::entity_config::TypeLayout;
use crate::schema::Schema;
use crate::state::{ReplicationStatus, SiteTime};
use crate::store;

/// Everything that a decision depends on, at one moment.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The schema of the site, as last read.
    pub schema: Arc<Schema>,
    /// Whether no change of the schema was noticed since it was read.
    pub schema_is_current: bool,
    /// The types and fields that are stored.
    pub stored: Arc<store::Catalogue>,
    /// What can be said about the stored rows.
    pub standing: Arc<ReplicationStatus>,
    /// Writes that went through and are not visible in the cache yet.
    pub pending_writes: PendingWrites,
    /// The time of the site.
    pub now: SiteTime,
    /// What can be set.
    pub settings: Arc<Settings>,
    /// The most rows that a page of the site may have.
    pub max_page: u32,
    /// Whether the site is down, so that older answers are better than none.
    pub site_is_down: bool,
}

impl Catalogue {
    /// Returns the oldest answer about a type that may be given now.
    pub fn max_age(&self, entity_type: &EntityType) -> Duration {
        if self.site_is_down { self.settings.stale_if_error(entity_type) } else { self.settings.max_age }
    }
}

/// Returns what a store that has these layouts can answer.
pub fn stored<'a>(layouts: impl IntoIterator<Item = &'a TypeLayout>) -> store::Catalogue {
    let cached = layouts.into_iter().map(|layout| (layout.entity_type.clone(), store::CachedType::of(layout)));
    store::Catalogue { types: cached.collect() }
}
