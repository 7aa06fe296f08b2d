//! Retirement and revival, with what goes along.
//!
//! A Shot takes its Versions with it, and work takes its Tasks, a Task its
//! dependencies, a template its template tasks. They return with it: the rows
//! that went along get a Change of `retirement_date` and no Revival of their own.
//! Links to a retired row stay stored and read as empty.

use super::cell::Key;
use super::event::Entry;
use super::readings::Reading;
use super::schema::{FieldId, TypeId};
use super::write::{Writer, not_simulated};
use shotgun_model::api3::Fault;
use shotgun_model::entity::EntityType;

impl Writer<'_> {
    /// Retires an entity; false when it is retired already.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it never existed.
    pub fn delete(&mut self, entity_type: &EntityType, id: i64) -> Result<bool, Fault> {
        let method = "delete";
        let ty = self.type_of(method, entity_type)?;
        let key = self.existing(method, ty, id)?;
        if !self.world.is_active(key) {
            return Ok(false);
        }
        if *entity_type == "EventLogEntry" {
            return Err(Fault::data(method, "EventLogEntry can not be deleted."));
        }
        if entity_type.is_connection() {
            return Err(not_simulated(format!("delete of {entity_type}")));
        }
        if *entity_type == "Project" && self.has_entities(key) {
            return Err(not_simulated("delete of a Project that has entities"));
        }
        self.retire_tree(key, None);
        Ok(true)
    }

    fn has_entities(&self, project: Key) -> bool {
        let layout = &self.world.layout;
        layout.types.iter().enumerate().any(|(ty, info)| {
            let ty = ty as TypeId;
            let rows = info.project.map(|field| self.world.referrers(ty, field, project)).unwrap_or_default();
            rows.iter().any(|id| self.world.is_active(Key { ty, id: *id }))
        })
    }

    fn retire_tree(&mut self, key: Key, parent: Option<Key>) {
        for child in self.children(key) {
            self.retire_tree(child, Some(key));
        }
        if parent.is_some() {
            self.world.set_retired_with(key, parent);
        }
        let logs = self.actor.logs;
        self.actor.logs &= parent.is_none() || !self.world.readings.second(Reading::ChildrenLog);
        self.retire_one(key);
        self.actor.logs = logs;
    }

    /// Retires one row and logs it.
    pub(super) fn retire_one(&mut self, key: Key) {
        let entries =
            [Entry::retirement_date(self.world, key, None, Some(self.now)), Entry::retired(self.world, key, self.now)];
        if self.world.retire(key, true) {
            entries.into_iter().for_each(|entry| self.log(entry));
        }
    }

    /// Returns the active rows that go along when `key` is retired.
    fn children(&self, key: Key) -> Vec<Key> {
        let links: &[(&str, &str)] = match self.world.layout.ty(key.ty).name.as_str() {
            "Shot" => &[("Version", "entity"), ("Task", "entity")],
            "Asset" | "Sequence" | "Episode" | "Scene" | "Element" | "Level" => &[("Task", "entity")],
            "Task" => &[("TaskDependency", "task"), ("TaskDependency", "dependent_task")],
            "TaskTemplate" => &[("Task", "task_template")],
            _ => &[],
        };
        let mut children = Vec::new();
        for (name, field) in links {
            let Some((ty, field)) = self.link(name, field) else { continue };
            let ids = self.world.referrers(ty, field, key).iter();
            children.extend(ids.map(|id| Key { ty, id: *id }).filter(|child| self.world.is_active(*child)));
        }
        // Tasks made from a template live on; those of the template itself go.
        if self.world.layout.ty(key.ty).name == "TaskTemplate" {
            children.retain(|task| self.world.named(*task, "entity").keys().is_empty());
        }
        if self.world.readings.second(Reading::TasksOfRetired) && self.world.layout.ty(key.ty).name != "TaskTemplate" {
            let tasks = self.world.layout.type_id("Task");
            children.retain(|child| Some(child.ty) != tasks);
        }
        if self.world.readings.second(Reading::ConnectionsOfRetired) {
            children.extend(self.connections(key));
        }
        children.dedup();
        children
    }

    /// Returns the active rows of connections that have `key` as one end.
    fn connections(&self, key: Key) -> Vec<Key> {
        let mut rows = Vec::new();
        let fields = self.world.layout.types.iter().flat_map(|info| &info.fields);
        for connection in fields.filter_map(|field| field.connection.as_ref()) {
            let ty = connection.entity_type;
            for end in [connection.near, connection.far] {
                let ids = self.world.referrers(ty, end, key).iter();
                rows.extend(ids.map(|id| Key { ty, id: *id }).filter(|row| self.world.is_active(*row)));
            }
        }
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn link(&self, entity_type: &str, field: &str) -> Option<(TypeId, FieldId)> {
        let ty = self.world.layout.type_id(entity_type)?;
        Some((ty, self.world.layout.field_id(ty, field)?))
    }

    /// Revives an entity; false when it is not retired.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when it never existed.
    pub fn revive(&mut self, entity_type: &EntityType, id: i64) -> Result<bool, Fault> {
        let ty = self.type_of("revive", entity_type)?;
        let key = self.existing("revive", ty, id)?;
        if self.world.is_active(key) {
            return Ok(false);
        }
        self.revive_tree(key);
        let entry = Entry::revived(self.world, key);
        self.log(entry);
        Ok(true)
    }

    fn revive_tree(&mut self, key: Key) {
        for child in self.world.retired_with(key) {
            self.revive_tree(child);
        }
        self.world.set_retired_with(key, None);
        if self.world.retire(key, false) {
            let entry = Entry::retirement_date(self.world, key, Some(self.now), None);
            self.log(entry);
        }
    }
}
