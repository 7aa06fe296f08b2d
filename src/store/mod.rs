//! Where rows are kept: SQLite or Elasticsearch.
//!
//! One trait, [`Store`], and everything that both backends share: what goes in
//! ([`FetchedRow`], which only a row read from the site can become), what comes
//! out ([`Row`], links named), which queries can be answered ([`Catalogue`]) and
//! how things fail ([`StoreError`]). Events, jobs, the site and what sync has to
//! remember are not known here.
//!
//! Three rules hold for every backend:
//!
//! - A row is overwritten only by a higher [`ReadVersion`]; the same one is stale.
//!   Deletions are rows too, so that a late write of the past stays a loser.
//! - A link shows the present name of its target: that of the target's own row
//!   where the type is cached ([`display_name`]), else the name that the newest
//!   answer of the site showed. A target known to be retired or absent vanishes
//!   from links, in answers and in filters alike.
//! - Filters mean what the header of `filter::eval` says. What cannot be answered
//!   that way is [`StoreErrorKind::Unsupported`], never a guess.

mod answer;
mod catalogue;
pub mod elasticsearch;
pub mod embedded;
mod error;
mod row;
mod timed;

use async_trait::async_trait;
use serde_json::Value;

use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;

pub use answer::{
    BUCKET_SIZE, Bucket, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, Referrers, Relinked, RowVersion,
    StoreMoment, StoredType, Verified,
};
pub use catalogue::{CachedType, Catalogue};
pub use error::{Result, StoreError, StoreErrorKind};
pub use row::{FetchedRow, ReadVersion, Row, RowError, display_name};
pub use timed::TimedStore;

pub use crate::entity::RowState;

/// A replica of rows of the site.
///
/// Every call that names an entity type for which [`Store::ensure_type`] was
/// never called fails with [`StoreErrorKind::UnknownType`], except that `put`
/// and `get` do so only when a key of that type is among the given ones.
#[async_trait]
pub trait Store: Send + Sync {
    /// Makes room for a type, or changes the room there is to a new layout,
    /// without losing a row.
    ///
    /// Fields that the new layout adds have no value in rows that were read
    /// before; such rows must be read again by the module that changed the layout.
    async fn ensure_type(&self, layout: &TypeLayout) -> Result<()>;

    /// Writes rows; one outcome for each, in the same order.
    ///
    /// When it returns, everything written survives a crash and is visible to the
    /// next call. When it fails, nothing is stored where there are transactions;
    /// Elasticsearch may have some of the rows, and putting them again is harmless.
    async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>>;

    /// Returns the active ones of these rows, in the order of `keys`.
    async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>>;

    /// Returns a page of rows.
    ///
    /// Windows around now must be absolute already (`Filter::at`). A field that
    /// is reached through a list of links is left out of the rows, as on the
    /// site.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Unsupported`] with the reason when the store cannot
    /// answer the query as the site would: a field that is not cached, a path
    /// over a type that is not cached or cached in part.
    async fn find(&self, query: &Query) -> Result<Found>;

    /// Returns how many rows `find` would return in one endless page.
    async fn count(&self, query: &Query) -> Result<u64>;

    /// Returns the rows, active or retired, that hold a link to the target.
    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers>;

    /// Puts a new display name or state of an entity into every link to it.
    ///
    /// Loses to anything newer that the store knows of the target, and never
    /// changes the version or the hash of a row.
    async fn relink(&self, target: &LinkTarget) -> Result<Relinked>;

    /// Returns count and sum of the row hashes of active rows per bucket of ids,
    /// by number; empty buckets are left out.
    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>>;

    /// Returns what is known of rows in every state, by id, from the first id
    /// above `after_id`.
    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>>;

    /// Returns what is known of rows that are retired, filtered or absent, as
    /// [`Store::scan`] does.
    async fn scan_inactive(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>>;

    /// Returns the highest version that anything stored has: a row in any state, or a
    /// name in links. Reads with a version up to it are refused as stale.
    async fn highest_version(&self) -> Result<ReadVersion>;

    /// Removes rows for good and returns how many. Retired rows go only with their
    /// whole type: the site still answers them.
    async fn purge(&self, scope: &PurgeScope) -> Result<u64>;

    /// Returns the types that are stored, by name.
    async fn types(&self) -> Result<Vec<StoredType>>;

    /// Tells whether the store works. Never fails: a failure is the answer.
    async fn health(&self) -> Health;

    /// Compares rows, from the first id above `after_id`, with what was written, by
    /// what the store holds of them twice or with a checksum.
    ///
    /// A server that checks its own files has nothing to compare.
    async fn verify(&self, _entity_type: &EntityType, _after_id: i64, _limit: usize) -> Result<Verified> {
        Ok(Verified::default())
    }

    /// Checks that the files are those that were opened, and if asked for, their whole
    /// structure, which reads all of them.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Corrupt`] when they are damaged, or not those that were
    /// opened. [`Store::reset`] is the remedy.
    async fn check(&self, _whole: bool) -> Result<()> {
        Ok(())
    }

    /// Puts damaged files aside and begins with an empty store: no type is known
    /// afterwards. Does nothing where a server keeps the files.
    async fn reset(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the present moment, where the store counts its writes.
    async fn moment(&self) -> Result<Option<StoreMoment>> {
        Ok(None)
    }

    /// Changes a stored value behind the back of versions and hashes.
    ///
    /// For tests and the demo only: this is how a replica goes wrong that nothing
    /// but a validation finds. `value` must fit the data type of the field.
    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()>;
}

/// Returns the active ones of these rows that can be read, whole, in the order of
/// `keys`; damaged ones are left out.
///
/// For comparisons: one damaged row must not keep the others from being compared.
///
/// # Errors
///
/// Every failure that is not one row's.
pub async fn get_undamaged(store: &dyn Store, keys: &[EntityRef]) -> Result<Vec<Row>> {
    let mut keys = keys.to_vec();
    loop {
        let error = match store.get(&keys, &Fields::All).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        let before = keys.len();
        keys.retain(|key| Some(key) != error.row());
        // Also a damaged target of a link fails a read.
        if keys.len() == before {
            return Err(error);
        }
    }
}
