//! The embedded store: one SQLite file, nothing to install.
//!
//! Per entity type there is a narrow table with the short fields that filters and
//! orders use, a table with the documents as JSON text, and a table with the
//! elements of its lists of links; one table for all types holds what is known
//! of link targets (name, dead or alive). Columns of the first that queries ask for
//! are kept in memory (`memory`, which learns from `changes` what was written); there a filter
//! becomes rows (`plan`, `passes`) and a page of ids (`order`). Documents are touched
//! only after the page is chosen (`fetch`). What is asked again before anything has
//! changed has its answer already (`result_cache`).
//!
//! One thread owns the only connection that writes, and makes checkpoints when it
//! has nothing else to do: an automatic checkpoint inside of a commit takes up to
//! 145 ms. Readers are a pool of read-only connections.
//!
//! `synchronous` is FULL. The state of sync is another file, which may forget a
//! mark as soon as `put` has returned; a store that lost its last commits in a
//! power cut would then miss rows for good.

mod result_cache;
mod changes;
mod column;
mod connection;
mod definitions;
mod error;
mod fetch;
mod layouts;
mod maintain;
mod memory;
mod migrate;
mod order;
mod predicates;
mod plan;
mod put;
mod targets;
mod verify;
mod writer;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{
    Bucket, FetchedRow, Fields, Found, Health, LinkTarget, PurgeScope, PutOutcome, ReadVersion, Referrers, Relinked,
    Result, Row, RowVersion, Store, StoreError, StoreErrorKind, StoreMoment, StoredType, Verified,
};
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::Query;
use crate::private_files::{self, FileIdentity};
use error::wrap;
use layouts::{Layouts, Shared};
use memory::{Memory, Needs, NewNames, Snapshot};
use plan::Finder;
use result_cache::{AsOf, ResultCache};
use writer::Writer;

/// How to open an embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The file, `store.sqlite` in the data directory; made when it is missing.
    pub path: PathBuf,
    /// How many queries may run at once.
    pub readers: usize,
    /// How long to wait for another process that is writing.
    pub busy_timeout: Duration,
    /// The largest size of the file; unlimited when `None`.
    pub max_bytes: Option<u64>,
    /// How many bytes of columns are kept in memory for queries; an eighth of it more
    /// is for answers.
    pub memory: usize,
}

/// How many bytes of columns are kept in memory by default.
pub const DEFAULT_MEMORY: usize = 512 << 20;

impl EmbeddedSettings {
    /// Returns the defaults for a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let busy_timeout = Duration::from_secs(10);
        let readers = cores.clamp(2, 8);
        Self { path: path.into(), readers, busy_timeout, max_bytes: None, memory: DEFAULT_MEMORY }
    }
}

/// A store in one SQLite file.
pub struct EmbeddedStore {
    settings: EmbeddedSettings,
    writer: Writer,
    idle: Arc<Idle>,
    permits: Arc<Semaphore>,
    shared: Arc<Shared>,
    memory: Arc<Memory>,
    results: Arc<ResultCache>,
    /// The file that is open, `None` while it is being replaced.
    opened: Mutex<Option<FileIdentity>>,
}

impl EmbeddedStore {
    /// Opens a store, or makes an empty one.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Newer`] for a file of a newer version of this program,
    /// [`StoreErrorKind::Locked`], [`StoreErrorKind::Refused`] and
    /// [`StoreErrorKind::Corrupt`] when the file cannot be used.
    pub fn open(settings: EmbeddedSettings) -> Result<Self> {
        let connection = connection::open_writer(&settings)?;
        Self::with(connection, settings)
    }

    /// Puts the files aside, which cannot be opened, and makes an empty store.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`].
    pub fn open_anew(settings: EmbeddedSettings) -> Result<Self> {
        let (connection, _) = connection::replace(&settings)?;
        Self::with(connection, settings)
    }

    fn with(connection: Connection, settings: EmbeddedSettings) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.current(&connection).map_err(wrap("read the layouts of"))?;
        Ok(Self {
            writer: Writer::start(connection, Arc::clone(&shared))?,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(settings.readers.max(1))),
            memory: Arc::new(Memory::new(settings.memory)),
            results: Arc::new(ResultCache::new(settings.memory / 8)),
            opened: Mutex::new(private_files::identity(&settings.path)),
            shared,
            settings,
        })
    }

    /// Runs a closure over one snapshot of the file.
    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &Layouts) -> Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.on_reader(move |reader| {
            let moment = Moment::begin(reader, &shared)?;
            work(&moment.transaction, &moment.layouts)
        })
        .await
    }

    /// Answers over one snapshot of the file and what is in memory of it.
    async fn query<T>(
        &self,
        needs: impl Fn(&Layouts) -> Result<Needs> + Send + 'static,
        answer: impl Fn(&Finder<'_>) -> Result<(T, NewNames)> + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
    {
        let (shared, memory) = (Arc::clone(&self.shared), Arc::clone(&self.memory));
        self.on_reader(move |reader| over_snapshot(reader, &shared, &memory, needs, answer)).await
    }

    fn opened(&self) -> MutexGuard<'_, Option<FileIdentity>> {
        self.opened.lock()
    }

    /// Runs a closure on a reader of the pool.
    async fn on_reader<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let closed = || StoreError::new(StoreErrorKind::Unavailable, "the store is closed");
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        let (idle, settings) = (Arc::clone(&self.idle), self.settings.clone());
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let reader = match idle.take() {
                Some(reader) => reader,
                None => connection::open_reader(&settings)?,
            };
            let answer = work(&reader);
            idle.give_back(reader);
            answer
        });
        task.await
            .map_err(|error| StoreError::new(StoreErrorKind::Fault, "a query of the store broke").because(error))?
    }
}

/// Answers over one snapshot of the file and what is in memory of it.
fn over_snapshot<T>(
    reader: &Connection,
    shared: &Shared,
    memory: &Memory,
    needs: impl Fn(&Layouts) -> Result<Needs>,
    answer: impl Fn(&Finder<'_>) -> Result<(T, NewNames)>,
) -> Result<T> {
    memory.over(
        || Moment::begin(reader, shared),
        |moment: &Moment<'_>| needs(&moment.layouts),
        |moment, held| answer(&Finder::new(&moment.transaction, &moment.layouts, held)),
    )
}

/// Finds the page of a query, and keeps it for the next caller with the same query.
fn find(finder: &Finder<'_>, query: &Query, results: &ResultCache) -> Result<(Arc<Found>, NewNames)> {
    let found = finder.matching(query)?;
    let (page, names) = fetch::page(finder, query, finder.page(query, &found)?)?;
    let page = Arc::new(page);
    results.keep(finder.as_of(), query, &page);
    Ok((page, names))
}

/// Idle readers.
#[derive(Default)]
struct Idle(Mutex<Vec<Connection>>);

impl Idle {
    fn take(&self) -> Option<Connection> {
        self.0.lock().pop()
    }

    fn give_back(&self, reader: Connection) {
        self.0.lock().push(reader);
    }

    fn clear(&self) {
        self.0.lock().clear();
    }
}

/// One moment of the file: a read transaction, and the tables in it.
struct Moment<'c> {
    transaction: Transaction<'c>,
    layouts: Arc<Layouts>,
}

impl<'c> Moment<'c> {
    fn begin(reader: &'c Connection, shared: &Shared) -> Result<Self> {
        let transaction = reader.unchecked_transaction().map_err(wrap("read"))?;
        let layouts = shared.current(&transaction).map_err(wrap("read"))?;
        Ok(Self { transaction, layouts })
    }
}

impl Snapshot for Moment<'_> {
    fn connection(&self) -> &Connection {
        &self.transaction
    }

    fn layouts(&self) -> &Layouts {
        &self.layouts
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn ensure_type(&self, layout: &TypeLayout) -> Result<()> {
        let cached = super::CachedType::of(layout);
        self.writer.run(move |transaction, layouts| migrate::ensure_type(transaction, layouts, &cached)).await
    }

    async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        let rows = rows.to_vec();
        self.writer.run_grouped(move |transaction, layouts| put::put(transaction, layouts, &rows)).await
    }

    async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
        let (keys, fields) = (keys.to_vec(), fields.clone());
        self.read(move |reader, layouts| fetch::get(reader, layouts, &keys, &fields)).await
    }

    async fn find(&self, query: &Query) -> Result<Found> {
        let (query, shared) = (query.clone(), Arc::clone(&self.shared));
        let (memory, results) = (Arc::clone(&self.memory), Arc::clone(&self.results));
        let found = self.on_reader(move |reader| match results.get(AsOf::now(reader)?, &query) {
            Some(known) => Ok(known),
            None => {
                let needs = |layouts: &Layouts| plan::needs(layouts, &query);
                over_snapshot(reader, &shared, &memory, needs, |finder| find(finder, &query, &results))
            }
        });
        Ok(Arc::unwrap_or_clone(found.await?))
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let (query, asked) = (query.clone(), query.clone());
        let answer = move |finder: &Finder<'_>| {
            let found = finder.matching(&query)?;
            Ok((found.count() as u64, NewNames::new()))
        };
        let needs = move |layouts: &Layouts| plan::needs(layouts, &asked);
        self.query(needs, answer).await
    }

    async fn referrers(&self, target: &EntityRef, limit: usize) -> Result<Referrers> {
        let target = target.clone();
        let answer = move |finder: &Finder<'_>| Ok((targets::referrers(finder, &target, limit)?, NewNames::new()));
        self.query(|layouts| Ok(targets::links(layouts)), answer).await
    }

    async fn relink(&self, target: &LinkTarget) -> Result<Relinked> {
        let target = target.clone();
        self.writer.run_grouped(move |transaction, layouts| targets::relink(transaction, layouts, &target)).await
    }

    async fn digest(&self, entity_type: &EntityType) -> Result<Vec<Bucket>> {
        let entity_type = entity_type.clone();
        self.read(move |reader, layouts| maintain::digest(reader, layouts.tables(&entity_type)?)).await
    }

    async fn scan(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        let entity_type = entity_type.clone();
        self.read(move |reader, layouts| maintain::scan(reader, layouts.tables(&entity_type)?, "", after_id, limit))
            .await
    }

    async fn scan_inactive(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Vec<RowVersion>> {
        let (entity_type, inactive) = (entity_type.clone(), "state <> 0 AND");
        self.read(move |reader, layouts| {
            maintain::scan(reader, layouts.tables(&entity_type)?, inactive, after_id, limit)
        })
        .await
    }

    async fn highest_version(&self) -> Result<ReadVersion> {
        self.read(maintain::highest_version).await
    }

    async fn purge(&self, scope: &PurgeScope) -> Result<u64> {
        let scope = scope.clone();
        self.writer.run(move |transaction, layouts| maintain::purge(transaction, layouts, &scope)).await
    }

    async fn types(&self) -> Result<Vec<StoredType>> {
        self.read(|_, layouts| Ok(layouts.stored())).await
    }

    async fn health(&self) -> Health {
        if self.writer.has_ended() {
            let message = "the thread that writes the store has ended".to_owned();
            return Health { message, is_lost: true, ..Health::default() };
        }
        self.read(maintain::health)
            .await
            .unwrap_or_else(|error| Health { message: error.to_string(), ..Health::default() })
    }

    async fn verify(&self, entity_type: &EntityType, after_id: i64, limit: usize) -> Result<Verified> {
        let entity_type = entity_type.clone();
        let verify = move |reader: &Connection, layouts: &Layouts| {
            verify::verify(reader, layouts, layouts.tables(&entity_type)?, after_id, limit)
        };
        self.read(verify).await
    }

    async fn check(&self, whole: bool) -> Result<()> {
        let opened = *self.opened();
        let path = self.settings.path.clone();
        let found = tokio::task::spawn_blocking(move || private_files::identity(&path)).await.ok().flatten();
        if found.is_none() || found != opened {
            let path = self.settings.path.display();
            let words = format!("{path} is not the file that was opened: it was removed or replaced");
            return Err(StoreError::new(StoreErrorKind::Corrupt, words));
        }
        if whole { self.read(verify::check_file).await } else { Ok(()) }
    }

    async fn reset(&self) -> Result<()> {
        // A reader of the old file must not bring anything of it into what is shared.
        let readers = u32::try_from(self.settings.readers.max(1)).unwrap_or(u32::MAX);
        let closed = |_| StoreError::new(StoreErrorKind::Unavailable, "the store is closed");
        let _all = self.permits.acquire_many(readers).await.map_err(closed)?;
        self.idle.clear();
        *self.opened() = None;
        let settings = self.settings.clone();
        let opened = self.writer.replace(move || connection::replace(&settings)).await?;
        self.memory.forget();
        self.results.forget();
        *self.opened() = opened;
        Ok(())
    }

    async fn moment(&self) -> Result<Option<StoreMoment>> {
        let as_of = self.on_reader(AsOf::now).await?;
        Ok(Some(StoreMoment { writes: as_of.seq, layouts: as_of.generation }))
    }

    async fn corrupt(&self, key: &EntityRef, field: &str, value: Value) -> Result<()> {
        let (key, field) = (key.clone(), field.to_owned());
        self.writer.run(move |transaction, layouts| put::corrupt(transaction, layouts, &key, &field, value)).await
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
