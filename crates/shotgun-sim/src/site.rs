//! The site itself, without HTTP: rows, event log, clock, accounts.
//!
//! Tests reach into it directly; everybody else asks over HTTP, which ends in
//! [`Site::answer`]. A read holds the rows shared, a write alone; what a write
//! changed, its event log entries included, is seen all at once.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufWriter};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde_json::{Map, Value, json};

use super::cell::Key;
use super::clock::SiteClock;
use super::edits::Edits;
use super::event::{Actor, EventIds, store};
use super::faults::Troubles;
use super::generate::{END, generate};
use super::readings::{Reading, ReadingError};
use super::requests::Requests;
use super::scenario::Scenario;
use super::schema::SiteSchema;
use super::snapshot::{self, SnapshotError};
use super::transaction::Transaction;
use super::world::{FIRST_EVENT, World};
use super::write::{Writer, plain};
use shotgun_model::api3::{Create, Fault, FieldWrite, Read, Update};
use shotgun_model::entity::{EntityType, EventId, Timestamp};

/// A simulated site.
pub struct Site {
    world: RwLock<World>,
    event_ids: Mutex<EventIds>,
    pub(super) sessions: Mutex<HashMap<String, Actor>>,
    /// Its clock.
    pub clock: SiteClock,
    /// What goes wrong on demand.
    pub troubles: Troubles,
    /// What was asked.
    pub requests: Requests,
    /// The most rows that one page may have.
    pub page_limit: u32,
    /// What is made to happen to its data.
    pub(super) scenario: Scenario,
    /// How long a thumbnail is a placeholder after its upload.
    pub thumbnail_delay: Duration,
    /// Whether clients upload files to the storage directly.
    pub direct_uploads: bool,
    /// The script that in-process writes are made as.
    script: Key,
}

/// How a site is made.
#[derive(Clone, Debug)]
pub struct SiteSettings {
    /// The name of its first script.
    pub script: String,
    /// The key of that script.
    pub key: String,
    /// The most rows that one page may have.
    pub page_limit: u32,
    /// The number of workers, each of which takes event ids in blocks of its own.
    pub workers: usize,
    /// The ids in a block.
    pub event_block: u32,
    /// How long a thumbnail is a placeholder after its upload.
    pub thumbnail_delay: Duration,
    /// Whether clients upload files to the storage directly.
    pub direct_uploads: bool,
}

impl Default for SiteSettings {
    fn default() -> Self {
        Self {
            script: "sgcache".into(),
            key: "sgcache-sim".into(),
            page_limit: 500,
            workers: 4,
            event_block: 32,
            thumbnail_delay: Duration::from_secs(5),
            direct_uploads: false,
        }
    }
}

impl Site {
    /// Makes a site that holds nothing but its first script; its events have one
    /// worker, so that their ids are dense unless a test makes gaps.
    pub fn empty() -> Arc<Self> {
        Self::with(&SiteSettings { workers: 1, ..SiteSettings::default() })
    }

    /// Makes a site without data.
    pub fn with(settings: &SiteSettings) -> Arc<Self> {
        Self::around(World::new(SiteSchema::standard()), settings)
    }

    /// Makes a site with about so many entities, and a history of the last edits.
    pub fn generated(seed: u64, entities: usize) -> Arc<Self> {
        Self::filled(&SiteSettings::default(), seed, entities)
    }

    /// Makes a site with data, its clock running.
    pub fn filled(settings: &SiteSettings, seed: u64, entities: usize) -> Arc<Self> {
        let mut world = World::new(SiteSchema::standard());
        if entities > 0 {
            generate(&mut world, seed, entities);
        }
        let site = Self::around(world, settings);
        if entities > 0 {
            site.clock.set(END);
            let mut edits = Edits::new(Arc::clone(&site), seed);
            for _ in 0..(entities / 20).clamp(20, 2_000) {
                site.clock.advance(Duration::from_secs(30));
                edits.step();
            }
            site.clock.run(0);
        }
        site
    }

    /// Makes a site of rows that exist already.
    fn around(mut world: World, settings: &SiteSettings) -> Arc<Self> {
        // A site that was saved has its script already.
        let script = script_with(&world, &settings.script, &settings.key);
        let script = script.unwrap_or_else(|| add_script(&mut world, &settings.script, &settings.key, true));
        if world.kept.committed.is_empty() {
            world.kept.committed = world.table(world.event_type).range(0, u32::MAX).map(|(id, _)| id).collect();
        }
        let last = world.table(world.event_type).last_id().unwrap_or(FIRST_EVENT - 1);
        Arc::new(Self {
            world: RwLock::new(world),
            event_ids: Mutex::new(EventIds::new(last, settings.workers, settings.event_block)),
            sessions: Mutex::new(HashMap::new()),
            clock: SiteClock::default(),
            troubles: Troubles::default(),
            requests: Requests::default(),
            page_limit: settings.page_limit.max(1),
            scenario: Scenario::default(),
            thumbnail_delay: settings.thumbnail_delay,
            direct_uploads: settings.direct_uploads,
            script,
        })
    }

    /// Decides how the site behaves where sources disagree; rows that are there
    /// already stay as they are.
    ///
    /// # Errors
    ///
    /// [`ReadingError`] with what would be right.
    pub fn set_reading(&self, name: &str, value: &str) -> Result<(), ReadingError> {
        let mut world = self.rows_mut();
        let before = world.readings;
        let reading = world.readings.set(name, value)?;
        let turned = before.second(reading) != world.readings.second(reading);
        if reading == Reading::FileDependency
            && turned
            && let Some(ty) = world.layout.type_id("PublishedFileDependency")
        {
            world.layout.turn_connection(ty);
        }
        Ok(())
    }

    /// Makes a site of the rows of a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when it is not the whole of one.
    pub fn from_snapshot(settings: &SiteSettings, input: &mut impl BufRead) -> Result<Arc<Self>, SnapshotError> {
        let mut world = World::new(SiteSchema::standard());
        snapshot::load(&mut world, input)?;
        Ok(Self::around(world, settings))
    }

    #[cfg(test)]
    pub(super) fn of_world(world: World) -> Arc<Self> {
        Self::around(world, &SiteSettings::default())
    }

    /// Writes every row to a file, which is whole or not there.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save_snapshot(&self, path: &Path) -> Result<(), SnapshotError> {
        let partial = path.with_extension("partial");
        snapshot::save(&self.rows(), &mut BufWriter::new(File::create(&partial)?))?;
        Ok(std::fs::rename(&partial, path)?)
    }

    pub(super) fn rows(&self) -> RwLockReadGuard<'_, World> {
        self.world.read()
    }

    pub(super) fn rows_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write()
    }

    pub(super) fn event_ids(&self) -> MutexGuard<'_, EventIds> {
        self.event_ids.lock()
    }

    /// Adds a script with its key. One that `logs` nothing changes entities
    /// without a trace in the event log.
    pub fn add_script(&self, name: &str, key: &str, logs: bool) -> Actor {
        let user = add_script(&mut self.rows_mut(), name, key, logs);
        Actor { user, sudo: None, logs, session: None }
    }

    /// Returns who in-process writes are made as.
    pub fn script(&self) -> Actor {
        Actor { user: self.script, sudo: None, logs: true, session: None }
    }

    /// Returns a person as the one who writes.
    pub fn person(&self, id: i64) -> Option<Actor> {
        let world = self.rows();
        let user = world.key(&shotgun_model::entity::EntityRef::new("HumanUser", id))?;
        Some(Actor { user, sudo: None, logs: true, session: None })
    }

    /// Runs writes in one transaction: all of them or none.
    ///
    /// # Errors
    ///
    /// The [`Fault`] of the first write that was refused.
    pub fn write<T>(&self, actor: Actor, work: impl FnOnce(&mut Writer<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let worker = self.event_ids().next_worker();
        self.write_at(worker, Vec::new(), self.clock.now(), actor, work)
    }

    /// Runs writes with event ids that were taken before, and more if they are
    /// not enough. A transaction that is refused burns the ids it would have used.
    pub(super) fn write_at<T>(
        &self,
        worker: usize,
        mut taken: Vec<u32>,
        now: Timestamp,
        actor: Actor,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut world = self.rows_mut();
        world.begin();
        let mut writer = Writer::new(&mut world, actor.clone(), now);
        let outcome = work(&mut writer);
        let entries = std::mem::take(&mut writer.entries);
        let more = entries.len().saturating_sub(taken.len());
        taken.extend(self.event_ids().take(worker, more));
        if outcome.is_ok() {
            store(&mut world, entries, &taken, &actor, now);
            let touched = world.keep();
            self.scenario.replica.note(&world, &touched, self.clock.now_millis());
        } else {
            world.roll_back();
        }
        outcome
    }

    /// Runs writes, counts their entries, and takes them back.
    pub(super) fn rehearse(
        &self,
        now: Timestamp,
        actor: Actor,
        work: impl FnOnce(&mut Writer<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut world = self.rows_mut();
        world.begin();
        let mut writer = Writer::new(&mut world, actor, now);
        let outcome = work(&mut writer).map(|()| writer.entries.len());
        world.roll_back();
        outcome
    }

    /// Begins a transaction that stays open, unseen, until it is committed or
    /// rolled back.
    pub fn begin(self: &Arc<Self>, actor: Actor) -> Transaction {
        Transaction::new(Arc::clone(self), actor)
    }

    /// Creates an entity from an object of values and returns its id.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of the site.
    pub fn create(&self, entity_type: &str, fields: Value) -> Result<i64, Fault> {
        self.create_as(self.script(), entity_type, fields)
    }

    /// Creates an entity in the name of a user.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_as(&self, actor: Actor, entity_type: &str, fields: Value) -> Result<i64, Fault> {
        let request = creation(entity_type, fields);
        self.write(actor, |writer| writer.create(&request, None)).map(|key| i64::from(key.id))
    }

    /// Changes an entity; lists of links become the given ones.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn update(&self, entity_type: &str, id: i64, fields: Value) -> Result<(), Fault> {
        self.update_as(self.script(), entity_type, id, fields)
    }

    /// Changes an entity in the name of a user.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn update_as(&self, actor: Actor, entity_type: &str, id: i64, fields: Value) -> Result<(), Fault> {
        let request = change(entity_type, id, fields);
        self.write(actor, |writer| writer.update(&request)).map(|_| ())
    }

    /// Changes an entity without a trace in the event log, as scripts do whose
    /// events are switched off.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn update_silently(&self, entity_type: &str, id: i64, fields: Value) -> Result<(), Fault> {
        self.update_as(Actor { logs: false, ..self.script() }, entity_type, id, fields)
    }

    /// Retires an entity; false when it is retired already.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it never existed.
    pub fn retire(&self, entity_type: &str, id: i64) -> Result<bool, Fault> {
        self.write(self.script(), |writer| writer.delete(&EntityType::new(entity_type), id))
    }

    /// Revives an entity; false when it is not retired.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it never existed.
    pub fn revive(&self, entity_type: &str, id: i64) -> Result<bool, Fault> {
        self.write(self.script(), |writer| writer.revive(&EntityType::new(entity_type), id))
    }

    /// Reads every active row that passes `filters`, written as the lists of the
    /// Python client, in the order of ids: as it is committed, however far a copy of
    /// the site is behind.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of the site.
    pub fn read(&self, entity_type: &str, filters: &Value, fields: &[&str]) -> Result<Vec<Map<String, Value>>, Fault> {
        let filter =
            shotgun_model::filter::RawFilter::from_lists(filters, false).map_err(|e| Fault::malformed("read", e))?;
        let argument = json!({
            "type": entity_type, "return_fields": fields, "filters": filter.to_wire(), "return_only": "active",
            "paging": {"entities_per_page": u32::MAX, "current_page": 1}});
        let answer = self.read_from(&self.rows(), Read::from_wire(&argument)?, None)?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        shotgun_model::api3::ReadAnswer::from_wire(answer)
            .map(|answer| answer.entities)
            .map_err(|words| Fault::malformed("read", words))
    }

    /// Returns the id of the newest entry of the event log that can be seen; 0
    /// when there is none.
    pub fn last_event_id(&self) -> EventId {
        let world = self.rows();
        EventId(world.table(world.event_type).last_id().map_or(0, i64::from))
    }

    /// Returns the number of active rows of a type.
    pub fn count(&self, entity_type: &str) -> usize {
        let world = self.rows();
        world.layout.type_id(entity_type).map_or(0, |ty| world.table(ty).active)
    }

    /// Returns the number of active entities of all types; entries of the event log
    /// are none.
    pub fn entities(&self) -> usize {
        let world = self.rows();
        world.active_rows() - world.table(world.event_type).active
    }
}

/// Makes the creation of an entity from an object of values.
pub(super) fn creation(entity_type: &str, fields: Value) -> Create {
    Create { entity_type: EntityType::new(entity_type), fields: writes(fields), return_fields: Vec::new() }
}

/// Makes the change of an entity from an object of values.
pub(super) fn change(entity_type: &str, id: i64, fields: Value) -> Update {
    Update { entity_type: EntityType::new(entity_type), id, fields: writes(fields) }
}

fn writes(fields: Value) -> Vec<FieldWrite> {
    let Value::Object(fields) = fields else { return Vec::new() };
    fields.into_iter().map(|(name, value)| plain(&name, value)).collect()
}

/// Finds an active script with this name and key.
fn script_with(world: &World, name: &str, key: &str) -> Option<Key> {
    let ty = world.layout.type_id("ApiUser")?;
    world.active_keys(ty).find(|script| {
        let is = |field, wanted| world.named(*script, field).as_text() == Some(wanted);
        is("firstname", name) && is("salted_password", key)
    })
}

/// Puts the row of a script in its place.
fn add_script(world: &mut World, name: &str, key: &str, logs: bool) -> Key {
    use super::cell::Cell;
    let ty = world.layout.type_id("ApiUser").expect("the standard schema has scripts");
    let script = Key { ty, id: world.take_id(ty) };
    world.insert(script, super::table::Row::default());
    let cells = [
        ("firstname", Cell::text(name)),
        ("salted_password", Cell::text(key)),
        ("generate_event_log_entries", if logs { Cell::Bool(true) } else { Cell::Null }),
    ];
    for (field, cell) in cells {
        if let Some(field) = world.layout.field_id(ty, field) {
            world.set(script, field, cell);
        }
    }
    script
}
