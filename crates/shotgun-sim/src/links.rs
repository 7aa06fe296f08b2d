//! Links with two sides: writing one side changes the other, in the same
//! transaction, and each side has an entry in the event log.
//!
//! A link is stored on one side only; the other one is a list that is derived.
//! A list that the site also shows as connection rows has them kept in step.

use super::cell::{Cell, Key};
use super::event::{Change, Entry, meta_value};
use super::readings::Reading;
use super::schema::{FieldId, Role, TypeId};
use super::write::Writer;
use shotgun_model::api3::UpdateMode;
use shotgun_model::entity::DataType;

/// The field that was really written.
#[derive(Clone, Copy)]
struct Origin {
    key: Key,
    field: FieldId,
    entry: usize,
    in_create: bool,
}

impl Writer<'_> {
    /// Writes a single link and tells whether it changed.
    pub(super) fn write_link(&mut self, key: Key, field: FieldId, cell: Cell, in_create: bool) -> bool {
        let old = self.world.cell(key, field).clone();
        if old == cell {
            return false;
        }
        let values = Change::Value(self.shown(DataType::Entity, &old), self.shown(DataType::Entity, &cell));
        self.world.set(key, field, cell.clone());
        let origin = self.log_change(key, field, &values, in_create);
        for target in old.keys() {
            self.follow_back(origin, *target, Vec::new(), vec![key]);
        }
        for target in cell.keys() {
            self.follow_back(origin, *target, vec![key], Vec::new());
        }
        true
    }

    fn shown(&self, data_type: DataType, cell: &Cell) -> serde_json::Value {
        let live = cell.keys().iter().all(|key| self.world.is_active(*key));
        if live { meta_value(self.world, data_type, cell) } else { serde_json::Value::Null }
    }

    /// Writes a list of links and tells whether it changed.
    pub(super) fn write_list(
        &mut self,
        key: Key,
        field: FieldId,
        keys: &[Key],
        mode: UpdateMode,
        in_create: bool,
    ) -> bool {
        match self.world.layout.field(key.ty, field).role {
            Role::Back(owner, forward) => self.write_derived(key, field, (owner, forward), keys, mode, in_create),
            _ => self.write_stored(key, field, keys, mode, in_create),
        }
    }

    fn write_stored(&mut self, key: Key, field: FieldId, keys: &[Key], mode: UpdateMode, in_create: bool) -> bool {
        let old = self.world.cell(key, field).keys().to_vec();
        let (added, mut removed) = difference(&old, keys, mode);
        if self.world.readings.second(Reading::SetAndRetiredLinks) {
            removed.retain(|target| self.world.is_active(*target));
        }
        if added.is_empty() && removed.is_empty() {
            return false;
        }
        let kept = old.iter().filter(|target| !removed.contains(target)).chain(&added).copied().collect();
        self.world.set(key, field, Cell::links(kept));
        let seen: Vec<_> = removed.iter().copied().filter(|target| self.world.is_active(*target)).collect();
        let origin = self.log_change(key, field, &Change::Links(added.clone(), seen), in_create);
        for target in &added {
            self.follow_back(origin, *target, vec![key], Vec::new());
            self.connect(key, field, *target);
        }
        for target in &removed {
            self.follow_back(origin, *target, Vec::new(), vec![key]);
            self.disconnect(key, field, *target);
        }
        true
    }

    fn write_derived(
        &mut self,
        key: Key,
        field: FieldId,
        forward: (TypeId, FieldId),
        keys: &[Key],
        mode: UpdateMode,
        in_create: bool,
    ) -> bool {
        let (owner, stored) = forward;
        let old = self.world.live_links(key, field);
        let wanted: Vec<_> = keys.iter().copied().filter(|target| target.ty == owner).collect();
        let (added, removed) = difference(&old, &wanted, mode);
        if added.is_empty() && removed.is_empty() {
            return false;
        }
        let origin = self.log_change(key, field, &Change::Links(added.clone(), removed.clone()), in_create);
        for row in &added {
            self.point(origin, *row, stored, true);
        }
        for row in &removed {
            self.point(origin, *row, stored, false);
        }
        true
    }

    /// Makes a stored link of `row` lead to the edited entity, or no longer.
    fn point(&mut self, origin: Origin, row: Key, stored: FieldId, to_it: bool) {
        let target = origin.key;
        let old = self.world.cell(row, stored).clone();
        let single = self.world.layout.field(row.ty, stored).data_type == DataType::Entity;
        let new = match (single, to_it) {
            (true, true) => Cell::Link(target),
            (true, false) => Cell::Null,
            (false, true) => Cell::links(old.keys().iter().copied().chain([target]).collect()),
            (false, false) => Cell::links(old.keys().iter().copied().filter(|key| *key != target).collect()),
        };
        let change = if single {
            Change::Value(self.shown(DataType::Entity, &old), self.shown(DataType::Entity, &new))
        } else if to_it {
            Change::Links(vec![target], Vec::new())
        } else {
            Change::Links(Vec::new(), vec![target])
        };
        self.world.set(row, stored, new);
        self.log_followed(origin, row, stored, &change);
        if !single {
            if to_it { self.connect(row, stored, target) } else { self.disconnect(row, stored, target) }
        }
        // A shot that goes to a second sequence leaves the first one.
        for former in old.keys().iter().filter(|former| single && to_it && **former != target) {
            self.follow_back_of((row.ty, stored), origin, *former, Vec::new(), vec![row]);
        }
    }

    /// Logs what the link that was written means for the list on its other side.
    fn follow_back(&mut self, origin: Origin, target: Key, added: Vec<Key>, removed: Vec<Key>) {
        self.follow_back_of((origin.key.ty, origin.field), origin, target, added, removed);
    }

    fn follow_back_of(
        &mut self,
        stored: (TypeId, FieldId),
        origin: Origin,
        target: Key,
        added: Vec<Key>,
        removed: Vec<Key>,
    ) {
        let inverses = &self.world.layout.field(stored.0, stored.1).inverses;
        let back = inverses.iter().find(|(ty, _)| *ty == target.ty).map(|(_, field)| *field);
        if let Some(back) = back.filter(|_| self.world.is_active(target)) {
            self.log_followed(origin, target, back, &Change::Links(added, removed));
        }
    }

    fn log_change(&mut self, key: Key, field: FieldId, change: &Change, in_create: bool) -> Origin {
        let entry = self.entries.len();
        let info = self.world.layout.field(key.ty, field);
        let logged = Entry::changed(self.world, key, &info.name, info.data_type, change, in_create);
        self.log(logged);
        Origin { key, field, entry, in_create }
    }

    fn log_followed(&mut self, origin: Origin, key: Key, field: FieldId, change: &Change) {
        if self.world.readings.second(Reading::OtherSideUpdatedAt) {
            self.stamp(key, ["updated_at"], ["updated_by"]);
        }
        let written = self.world.layout.field(origin.key.ty, origin.field);
        let name = &self.world.layout.field(key.ty, field).name;
        let edited = (origin.key, written.name.as_str(), written.data_type);
        let entry = Entry::followed(self.world, key, name, edited, change, origin.entry, origin.in_create);
        self.log(entry);
    }

    /// Adds the connection row of a new element.
    fn connect(&mut self, key: Key, field: FieldId, target: Key) {
        let Some(connection) = self.world.layout.field(key.ty, field).connection.clone() else { return };
        let row = self.new_row(connection.entity_type);
        self.world.set(row, connection.near, Cell::Link(key));
        self.world.set(row, connection.far, Cell::Link(target));
        let entry = Entry::created(self.world, row);
        self.log(entry);
    }

    /// Retires the connection row of an element that went.
    fn disconnect(&mut self, key: Key, field: FieldId, target: Key) {
        let Some(connection) = self.world.layout.field(key.ty, field).connection.clone() else { return };
        let ids = self.world.referrers(connection.entity_type, connection.near, key).to_vec();
        let rows = ids.into_iter().map(|id| Key { ty: connection.entity_type, id });
        let leads = |row: &Key| self.world.cell(*row, connection.far).keys() == [target] && self.world.is_active(*row);
        for row in rows.filter(leads).collect::<Vec<_>>() {
            self.retire_one(row);
        }
    }
}

/// Returns what is added to and removed from a list.
fn difference(old: &[Key], given: &[Key], mode: UpdateMode) -> (Vec<Key>, Vec<Key>) {
    let new = |key: &&Key| !old.contains(key);
    match mode {
        UpdateMode::Add => (given.iter().filter(new).copied().collect(), Vec::new()),
        UpdateMode::Remove => (Vec::new(), old.iter().filter(|key| given.contains(key)).copied().collect()),
        UpdateMode::Set => (
            given.iter().filter(new).copied().collect(),
            old.iter().filter(|key| !given.contains(key)).copied().collect(),
        ),
    }
}
