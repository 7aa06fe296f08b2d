//! A transaction that stays open: what it wrote is invisible until it commits.
//!
//! As on a real site its event ids are reserved while it runs, so those of a long
//! one are lower than those of writes that were made, and seen, after it began;
//! rolled back, they stay a gap for ever.
//!
//! Writes are tried at once, so that a refusal comes at once, and made for good
//! at commit.

use std::sync::Arc;

use serde_json::Value;

use super::event::Actor;
use super::site::{Site, change, creation};
use super::write::Writer;
use shotgun_model::api3::{Create, Fault, Update};
use shotgun_model::entity::{EntityType, EventId, Timestamp};

/// An open transaction. Dropped without a commit it is rolled back.
pub struct Transaction {
    site: Arc<Site>,
    actor: Actor,
    began: Timestamp,
    worker: usize,
    writes: Vec<Write>,
    event_ids: Vec<u32>,
}

/// One write of a transaction.
#[derive(Clone)]
pub(super) enum Write {
    /// A creation under an id that was taken before.
    Create(Create, u32),
    /// A change.
    Update(Update),
    /// A retirement.
    Retire(EntityType, i64),
    /// A revival.
    Revive(EntityType, i64),
}

impl Write {
    /// Returns the id that the write creates.
    pub fn created(&self) -> Option<u32> {
        match self {
            Self::Create(_, id) => Some(*id),
            _ => None,
        }
    }

    /// Makes the write.
    pub fn run(&self, writer: &mut Writer<'_>) -> Result<(), Fault> {
        match self {
            Self::Create(request, id) => writer.create(request, Some(*id)).map(|_| ()),
            Self::Update(request) => writer.update(request).map(|_| ()),
            Self::Retire(entity_type, id) => writer.delete(entity_type, *id).map(|_| ()),
            Self::Revive(entity_type, id) => writer.revive(entity_type, *id).map(|_| ()),
        }
    }
}

impl Transaction {
    pub(super) fn new(site: Arc<Site>, actor: Actor) -> Self {
        let worker = site.event_ids().next_worker();
        let began = site.clock.now();
        Self { site, actor, began, worker, writes: Vec::new(), event_ids: Vec::new() }
    }

    /// Creates an entity and returns its id, which cannot be read yet.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of the site; what was written before stays.
    pub fn create(&mut self, entity_type: &str, fields: Value) -> Result<i64, Fault> {
        let request = creation(entity_type, fields);
        let id = {
            let mut world = self.site.rows_mut();
            let ty = world.layout.type_id(entity_type);
            let ty = ty.ok_or_else(|| super::write::unknown_type(&world, "create"))?;
            world.take_id(ty)
        };
        self.attempt(Write::Create(request, id))?;
        Ok(i64::from(id))
    }

    /// Changes an entity.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn update(&mut self, entity_type: &str, id: i64, fields: Value) -> Result<(), Fault> {
        self.attempt(Write::Update(change(entity_type, id, fields)))
    }

    /// Retires an entity.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn retire(&mut self, entity_type: &str, id: i64) -> Result<(), Fault> {
        self.attempt(Write::Retire(EntityType::new(entity_type), id))
    }

    /// Revives an entity.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn revive(&mut self, entity_type: &str, id: i64) -> Result<(), Fault> {
        self.attempt(Write::Revive(EntityType::new(entity_type), id))
    }

    fn attempt(&mut self, write: Write) -> Result<(), Fault> {
        self.attempt_all(vec![write])
    }

    /// Takes event ids before there is anything to write, of a worker if it is said.
    pub(super) fn reserve(&mut self, worker: Option<usize>, ids: usize) {
        self.worker = worker.unwrap_or(self.worker);
        self.event_ids.extend(self.site.event_ids().take(self.worker, ids));
    }

    /// Tries writes, all or none.
    pub(super) fn attempt_all(&mut self, more: Vec<Write>) -> Result<(), Fault> {
        let before = self.writes.len();
        self.writes.extend(more);
        let writes = &self.writes;
        let rehearsed =
            self.site.rehearse(self.began, self.actor.clone(), |writer| writes.iter().try_for_each(|w| w.run(writer)));
        match rehearsed {
            Ok(entries) => {
                let more = entries.saturating_sub(self.event_ids.len());
                let ids = self.site.event_ids().take(self.worker, more);
                self.event_ids.extend(ids);
                Ok(())
            }
            Err(fault) => {
                self.writes.truncate(before);
                Err(fault)
            }
        }
    }

    /// Returns the event ids that are reserved so far.
    pub fn event_ids(&self) -> Vec<EventId> {
        self.event_ids.iter().map(|id| EventId(i64::from(*id))).collect()
    }

    /// Makes the writes seen, all at once.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the write of another request has made one of them impossible;
    /// then none is made.
    pub fn commit(self) -> Result<(), Fault> {
        let Self { site, actor, began, worker, writes, event_ids } = self;
        site.write_at(worker, event_ids, began, actor, |writer| writes.iter().try_for_each(|write| write.run(writer)))
    }

    /// Forgets the writes. Their ids, of entities and events, are not used again.
    pub fn roll_back(self) {}
}
