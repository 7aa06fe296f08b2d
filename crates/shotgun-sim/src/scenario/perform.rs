//! Makes things happen to the site.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Action, Begin, Call, Permissions, Plan, RawEvent, Retention, WriteSpec, Writes};
use crate::cell::{Cell, Key};
use crate::event::Actor;
use crate::load::{LoadError, by_type};
use crate::readings::ReadingError;
use crate::site::{Site, change, creation};
use crate::table::Row;
use crate::transaction::Write;
use shotgun_model::api3::{Fault, Request};
use shotgun_model::entity::{EntityRef, EntityType, Timestamp};

/// Why something could not be made to happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The site refused it.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// Nothing goes by this name.
    #[error("the site has no {what} `{name}`")]
    Missing {
        /// What was looked for.
        what: &'static str,
        /// The name that was given.
        name: String,
    },
    /// A reading that there is not.
    #[error(transparent)]
    Reading(#[from] ReadingError),
    /// Rows that cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A snapshot that cannot be written.
    #[error("cannot save the site: {0}")]
    Snapshot(String),
    /// The site does not remember its start.
    #[error("the start of the site was not recorded: it has no admin endpoint and no plan")]
    NoStart,
}

fn missing(what: &'static str, name: impl Into<String>) -> ActionError {
    ActionError::Missing { what, name: name.into() }
}

impl Site {
    /// Begins a plan: its troubles wait for requests, its steps for their times.
    pub fn follow(&self, plan: Plan) {
        let now = self.clock.now();
        if let Some(seed) = plan.seed {
            self.troubles.reseed(seed);
        }
        if let Some(latency) = plan.latency {
            self.troubles.delay(latency);
        }
        if plan.rate_limit.is_some() {
            self.troubles.limit(plan.rate_limit);
        }
        plan.requests.into_iter().for_each(|rule| self.troubles.order(rule, now));
        let seconds = |at: Duration| Timestamp(now.0.saturating_add(i64::try_from(at.as_secs()).unwrap_or(i64::MAX)));
        let steps = plan.steps.into_iter().map(|step| (seconds(step.at), step.actions));
        self.scenario.agenda.add(steps.flat_map(|(at, actions)| actions.into_iter().map(move |action| (at, action))));
    }

    /// Makes the steps whose time has come. One that cannot be made is reported in the
    /// log and leaves the others as they are.
    pub fn catch_up(self: &Arc<Self>) {
        while let Some(action) = self.scenario.agenda.take_due(self.clock.now()) {
            if let Err(error) = self.perform(&action) {
                tracing::warn!(%error, ?action, "a step of the plan could not be made");
                self.requests.fail_step();
            }
        }
    }

    /// Makes one thing happen, and returns what there is to say about it.
    ///
    /// # Errors
    ///
    /// [`ActionError`]; then nothing has happened.
    pub fn perform(self: &Arc<Self>, action: &Action) -> Result<Value, ActionError> {
        match action {
            Action::Advance(by) => self.advance(*by),
            Action::StopClock(at) => self.clock.set(*at),
            Action::RunClock(offset) => self.clock.run(offset.0),
            Action::Write(writes) => return self.make_writes(writes),
            Action::Begin(begin) => return Ok(self.begin_named(begin)),
            Action::Commit(name) => self.take_open(name)?.commit()?,
            Action::RollBack(name) => self.take_open(name)?.roll_back(),
            Action::BurnIds(count) => {
                let worker = self.event_ids().next_worker();
                self.event_ids().take(worker, *count);
            }
            Action::IdBlocks(blocks) => self.event_ids().reshape(blocks.workers, blocks.block),
            Action::Backup(name) => self.backup(name),
            Action::Restore(name) if self.restore(name) => {}
            Action::Restore(name) => return Err(missing("backup", name)),
            Action::Reset if self.reset() => {}
            Action::Reset => return Err(ActionError::NoStart),
            Action::Load(rows) => return self.load_inline(rows),
            Action::Save(path) => self.save_snapshot(path).map_err(|error| ActionError::Snapshot(error.to_string()))?,
            Action::Retention(retention) => return Ok(json!({"removed": self.trim_log(*retention)})),
            Action::Purge(target) => self.purge(target)?,
            Action::Event(event) => return Ok(json!({"id": self.put_event(event)})),
            Action::Lag(lag) => self.scenario.replica.set(*lag, &self.rows()),
            Action::Permissions(permissions) => self.limit_script(permissions)?,
            Action::Call(call) => return self.call(call),
            Action::Trouble(rule) => self.troubles.order((**rule).clone(), self.clock.now()),
            Action::RateLimit(limit) => self.troubles.limit(limit.clone()),
            Action::Latency(latency) => self.troubles.delay(*latency),
            Action::Reading(readings) => {
                for (name, value) in readings {
                    self.set_reading(name, value)?;
                }
            }
            Action::EndTrouble => self.troubles.clear(),
        }
        Ok(Value::Null)
    }

    /// Moves the clock on, and makes each step at its own time.
    fn advance(self: &Arc<Self>, by: Duration) {
        let seconds = |from: Timestamp, to: Timestamp| Duration::from_secs(u64::try_from(to.0 - from.0).unwrap_or(0));
        let mut now = self.clock.now();
        let end_millis = self.clock.now_millis().saturating_add(i64::try_from(by.as_millis()).unwrap_or(0));
        let end = Timestamp(end_millis.div_euclid(1000));
        while let Some(next) = self.scenario.agenda.next_until(end) {
            self.clock.advance(seconds(now, next));
            now = Timestamp(now.0.max(next.0));
            self.catch_up();
        }
        let rest = end_millis.saturating_sub(self.clock.now_millis());
        self.clock.advance(Duration::from_millis(u64::try_from(rest).unwrap_or(0)));
    }

    fn actor(&self, writes: &Writes) -> Result<Actor, ActionError> {
        let actor = match writes.person {
            None => self.script(),
            Some(id) => self.person(id).ok_or_else(|| missing("person", id.to_string()))?,
        };
        Ok(Actor { logs: actor.logs && !writes.silently, ..actor })
    }

    fn make_writes(self: &Arc<Self>, spec: &Writes) -> Result<Value, ActionError> {
        let mut writes = Vec::new();
        for number in 1..=spec.repeat {
            for write in &spec.writes {
                writes.push(self.plan_write(write, number)?);
            }
        }
        let created: Vec<_> = writes.iter().filter_map(Write::created).map(|id| json!(id)).collect();
        match &spec.transaction {
            Some(name) => {
                let mut open = self.scenario.open();
                open.get_mut(name).ok_or_else(|| missing("transaction", name))?.attempt_all(writes)?;
            }
            None => self.write(self.actor(spec)?, |writer| writes.iter().try_for_each(|write| write.run(writer)))?,
        }
        Ok(json!({"created": created}))
    }

    /// Makes a write of what was written, with the id that it will have.
    fn plan_write(&self, write: &WriteSpec, number: u32) -> Result<Write, ActionError> {
        let fields = |fields: &Map<String, Value>| numbered(&Value::Object(fields.clone()), number);
        Ok(match write {
            WriteSpec::Create { entity_type, fields: values } => {
                let mut world = self.rows_mut();
                let ty = world.layout.type_id(entity_type).ok_or_else(|| missing("entity type", entity_type))?;
                Write::Create(creation(entity_type, fields(values)), world.take_id(ty))
            }
            WriteSpec::Update { entity_type, id, fields: values } => {
                Write::Update(change(entity_type, *id, fields(values)))
            }
            WriteSpec::Retire(target) => Write::Retire(target.entity_type.clone(), target.id),
            WriteSpec::Revive(target) => Write::Revive(target.entity_type.clone(), target.id),
        })
    }

    fn load_inline(&self, rows: &Value) -> Result<Value, ActionError> {
        let wrong = |message| LoadError { place: "load".into(), message };
        let loaded = self.load(&by_type(rows.clone(), "rows").map_err(wrong)?)?;
        Ok(json!({
            "rows": loaded.rows, "unknown_fields": loaded.unknown_fields, "links_to_nothing": loaded.links_to_nothing}))
    }

    fn begin_named(self: &Arc<Self>, begin: &Begin) -> Value {
        let mut transaction = self.begin(self.script());
        transaction.reserve(begin.worker, begin.ids);
        let ids: Vec<_> = transaction.event_ids().iter().map(|id| json!(id.0)).collect();
        self.scenario.open().insert(begin.name.clone(), transaction);
        json!({"event_ids": ids})
    }

    fn take_open(&self, name: &str) -> Result<crate::Transaction, ActionError> {
        self.scenario.open().remove(name).ok_or_else(|| missing("transaction", name))
    }

    fn trim_log(&self, retention: Retention) -> usize {
        let mut world = self.rows_mut();
        let ty = world.event_type;
        let rows: Vec<_> = world.table(ty).range(0, u32::MAX).map(|(id, _)| Key { ty, id }).collect();
        let now = self.clock.now();
        let old = |key: &Key, age: Duration| match world.named(*key, "created_at") {
            Cell::Moment(at) => now.0 - at.0 > i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
            _ => true,
        };
        let gone: Vec<_> = match retention {
            Retention::Keep(count) => rows[..rows.len().saturating_sub(count)].to_vec(),
            Retention::Younger(age) => rows.into_iter().filter(|key| old(key, age)).collect(),
        };
        gone.iter().for_each(|key| drop(world.remove(*key)));
        let ids: HashSet<u32> = gone.iter().map(|key| key.id).collect();
        world.kept.committed.retain(|id| !ids.contains(id));
        self.scenario.replica.note(&world, &gone, self.clock.now_millis());
        gone.len()
    }

    fn purge(&self, target: &EntityRef) -> Result<(), ActionError> {
        let mut world = self.rows_mut();
        let key = world.key(target).filter(|key| world.row(*key).is_some());
        let key = key.ok_or_else(|| missing("entity", target.to_string()))?;
        world.remove(key);
        self.scenario.replica.note(&world, &[key], self.clock.now_millis());
        Ok(())
    }

    /// Adds an entry to the event log, and returns its id.
    pub(crate) fn put_event(&self, event: &RawEvent) -> u32 {
        let mut world = self.rows_mut();
        let worker = self.event_ids().next_worker();
        let id = self.event_ids().take(worker, 1).first().copied().unwrap_or_default();
        let now = self.clock.now();
        let link = |target: &Option<EntityRef>| {
            target.as_ref().and_then(|target| world.key(target)).map_or(Cell::Null, Cell::Link)
        };
        let text = |text: &Option<String>| text.as_deref().map_or(Cell::Null, Cell::text);
        let meta = if event.meta.is_null() { Cell::Null } else { Cell::Json(event.meta.to_string().into()) };
        let cells = [
            ("event_type", Cell::text(&event.event_type)),
            ("attribute_name", text(&event.attribute_name)),
            ("description", text(&event.description)),
            ("session_uuid", text(&event.session_uuid)),
            ("entity", link(&event.entity)),
            ("project", link(&event.project)),
            ("user", link(&event.user)),
            ("created_at", Cell::Moment(event.created_at.unwrap_or(now))),
            ("meta", meta),
        ];
        let ty = world.event_type;
        let mut row = Row::default();
        for (name, cell) in cells {
            if let Some(field) = world.layout.field_id(ty, name) {
                row.set(field, cell);
            }
        }
        world.insert(Key { ty, id }, row);
        world.kept.committed.push(id);
        self.scenario.replica.note(&world, &[Key { ty, id }], self.clock.now_millis());
        id
    }

    fn limit_script(&self, permissions: &Permissions) -> Result<(), ActionError> {
        let script = self.script_named(&permissions.script);
        let script = script.ok_or_else(|| missing("script", &permissions.script))?;
        self.scenario.rights.set(script, permissions.clone());
        Ok(())
    }

    fn script_named(&self, name: &str) -> Option<Key> {
        let world = self.rows();
        let ty = world.layout.type_id("ApiUser")?;
        world.active_keys(ty).find(|key| world.named(*key, "firstname").as_text() == Some(name))
    }

    fn call(&self, call: &Call) -> Result<Value, ActionError> {
        let request = Request { method: call.method.clone(), auth: None, argument: call.argument.clone() };
        let answer = self.run_as(self.script(), &request)?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }
}

/// Puts the number of a repeated write where a text says `{n}`.
fn numbered(value: &Value, number: u32) -> Value {
    match value {
        Value::String(text) if text.contains("{n}") => text.replace("{n}", &number.to_string()).into(),
        Value::Array(items) => items.iter().map(|item| numbered(item, number)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), numbered(value, number))).collect())
        }
        other => other.clone(),
    }
}

/// Returns the types that are written, for the state of the endpoint.
pub(crate) fn types_with_rows(site: &Site) -> Vec<(EntityType, usize)> {
    let world = site.rows();
    let types = world.layout.types.iter().enumerate();
    let counted = types.map(|(ty, info)| (info.name.clone(), world.table(ty as u16).active));
    counted.filter(|(_, count)| *count > 0).collect()
}
