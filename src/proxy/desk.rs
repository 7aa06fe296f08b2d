//! What the proxy knows from moment to moment: how fresh the cache is, and which
//! writes went through that are not read again yet.
//!
//! The standing is read from the state off the threads that serve, a few times a
//! second, and every few milliseconds while somebody waits for it to move on. An
//! old one is harmless: it makes the cache look older than it is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::catalogue::{Catalogue, Held, stored};
use super::effects::Effects;
use super::settings::Settings;
use crate::schema::Schema;
use crate::state::{Kinds, MarkRequest, Standing, StateError};
use crate::store;
use crate::sync::{Replica, Tracked};

/// How often the standing is read while nobody waits.
const CALM: Duration = Duration::from_millis(200);
/// How often it is read while somebody waits.
const BUSY: Duration = Duration::from_millis(5);
/// How often the schema is read, besides after an event about it.
const SCHEMA_EVERY: Duration = Duration::from_secs(600);

/// Makes the loop that follows the site poll and read at once.
pub type Poke = Arc<dyn Fn() + Send + Sync>;

/// What the proxy knows from moment to moment.
pub(super) struct Desk {
    replica: Replica,
    settings: Arc<Settings>,
    poke: Poke,
    standing: watch::Sender<Arc<Standing>>,
    schema: Mutex<Arc<Schema>>,
    stored: Mutex<(Arc<Tracked>, Arc<store::Catalogue>)>,
    held: Mutex<Held>,
    writes: AtomicU64,
    waiting: AtomicUsize,
    hurry: Notify,
}

impl Desk {
    /// Reads the standing for the first time.
    ///
    /// What a write before this start changed is read again once a poll that began
    /// afterwards is complete; until then everything is held.
    pub fn new(replica: Replica, schema: Schema, settings: Arc<Settings>, poke: Poke) -> Result<Self, StateError> {
        let standing = replica.state().standing()?;
        let held = Held { all: standing.complete_as_of, ..Held::default() };
        let tracked = replica.tracked();
        let catalogue = Arc::new(stored(tracked.layouts().map(|layout| &**layout)));
        Ok(Self {
            settings,
            poke,
            standing: watch::Sender::new(Arc::new(standing)),
            schema: Mutex::new(Arc::new(schema)),
            stored: Mutex::new((tracked, catalogue)),
            held: Mutex::new(held),
            writes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            hurry: Notify::new(),
            replica,
        })
    }

    /// Returns the site, the store and the state.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Returns how many writes went through: reads that began under different
    /// numbers may have different answers.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Returns the writes that are not read again yet, as of now.
    pub fn held(&self) -> Held {
        lock(&self.held).clone()
    }

    /// Returns everything that a decision depends on.
    pub fn catalogue(&self, held: Held, max_page: u32, site_is_down: bool) -> Catalogue {
        Catalogue {
            schema: lock(&self.schema).clone(),
            stored: self.stored(),
            standing: self.standing.borrow().clone(),
            held,
            now: self.replica.now(),
            settings: Arc::clone(&self.settings),
            max_page,
            site_is_down,
        }
    }

    fn stored(&self) -> Arc<store::Catalogue> {
        let tracked = self.replica.tracked();
        let mut known = lock(&self.stored);
        if !Arc::ptr_eq(&known.0, &tracked) {
            let catalogue = Arc::new(stored(tracked.layouts().map(|layout| &**layout)));
            *known = (tracked, catalogue);
        }
        Arc::clone(&known.1)
    }

    /// Begins to watch the standing.
    pub fn watch(&self) -> Watch<'_> {
        Watch { desk: self, standing: self.standing.subscribe() }
    }

    /// Takes note of a write that the site has acknowledged, or may have made.
    ///
    /// When this returns, no read that begins later is answered from rows that may
    /// lack the write.
    pub async fn acknowledge(&self, effects: &Effects) {
        let now = self.replica.now();
        {
            let mut held = lock(&self.held);
            let at = |known: Option<&mut crate::state::SiteTime>| known.map_or(now, |known| now.max(*known));
            for ty in &effects.rows {
                let at = at(held.rows.get_mut(ty));
                held.rows.insert(ty.clone(), at);
            }
            for ty in &effects.names {
                let at = at(held.names.get_mut(ty));
                held.names.insert(ty.clone(), at);
            }
            if effects.all {
                held.all = held.all.max(Some(now));
            }
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.mark(effects).await;
        (self.poke)();
    }

    async fn mark(&self, effects: &Effects) {
        let tracked = self.replica.tracked();
        let keys = effects.keys.iter().filter(|key| tracked.follows(&key.entity_type)).cloned();
        let marks: Vec<_> = keys.map(|key| MarkRequest::new(key, Kinds::WRITE)).collect();
        if marks.is_empty() {
            return;
        }
        let (state, now) = (self.replica.state().clone(), self.replica.now());
        let marked = tokio::task::spawn_blocking(move || state.mark(&marks, now)).await;
        // The hold stays all the same: an event about the write ends it.
        match marked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the keys of a write could not be marked"),
            Err(error) => tracing::error!(%error, "the keys of a write could not be marked"),
        }
    }

    /// Keeps the standing and the schema up to date until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let (mut schema_read, mut due) = (Instant::now(), false);
        while !stop.is_cancelled() {
            self.refresh().await;
            let standing = self.standing.borrow().clone();
            // An event about the schema is followed by a read of it; then it is new.
            let changed = due && !standing.schema_due;
            due = standing.schema_due;
            if changed || schema_read.elapsed() > SCHEMA_EVERY {
                self.read_schema().await;
                schema_read = Instant::now();
            }
            let pause = if self.waiting.load(Ordering::SeqCst) > 0 { BUSY } else { CALM };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified(), if pause == CALM => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn refresh(&self) {
        let state = self.replica.state().clone();
        let read = tokio::task::spawn_blocking(move || state.standing()).await;
        match read {
            Ok(Ok(standing)) => {
                self.standing.send_if_modified(|known| {
                    let changed = **known != standing;
                    *known = Arc::new(standing);
                    changed
                });
            }
            Ok(Err(error)) => tracing::warn!(%error, "the standing of the cache could not be read"),
            Err(error) => tracing::warn!(%error, "the standing of the cache could not be read"),
        }
    }

    async fn read_schema(&self) {
        match self.replica.client().schema().await {
            Ok(schema) => *lock(&self.schema) = Arc::new(schema),
            Err(error) => tracing::warn!(%error, "the schema could not be read again"),
        }
    }

    /// Returns the schema; a new one is another allocation.
    pub fn schema(&self) -> Arc<Schema> {
        lock(&self.schema).clone()
    }
}

/// Watches the standing: what was seen is not waited for again.
pub(super) struct Watch<'a> {
    desk: &'a Desk,
    standing: watch::Receiver<Arc<Standing>>,
}

impl Watch<'_> {
    /// Returns the standing of now.
    pub fn see(&mut self) -> Arc<Standing> {
        self.standing.borrow_and_update().clone()
    }

    /// Waits until the standing is another one than was seen, at most until the
    /// deadline; tells whether it is.
    pub async fn changed(&mut self, deadline: Instant) -> bool {
        let _waiting = Waiting::new(&self.desk.waiting);
        self.desk.hurry.notify_one();
        matches!(tokio::time::timeout_at(deadline, self.standing.changed()).await, Ok(Ok(())))
    }
}

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What these locks guard is replaced whole, so a panic elsewhere cannot tear it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
