//! Every row of the site, and who points to whom.
//!
//! Changes go through three primitives (insert a row, set a cell, retire), which
//! keep the index of links right and, while a transaction runs, can be undone.
//! What a write means (inverse links, cascades, events) is decided in `write`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::auxiliary_state::AuxiliaryState;
use super::cell::{Cell, Key};
use super::journal::{Journal, Savepoint, Undo};
use super::readings::Readings;
use super::schema::{FieldId, Layout, Role, SiteSchema, TypeId};
use super::table::{Row, Table};
use shotgun_model::entity::{DataType, EntityRef, FieldValue, Link};
use shotgun_model::filter::Rows;
use shotgun_model::schema::{FieldSchema, Schema};

/// Who points to a row through one link field: ids in order.
type Referrers = HashMap<Key, Vec<u32>>;

/// The rows of the site.
#[derive(Clone)]
pub struct World {
    /// What the site tells about its types.
    pub schema: Schema,
    /// How rows are laid out.
    pub layout: Layout,
    tables: Vec<Table>,
    /// Per type and field, for the links that are followed backwards.
    referrers: Vec<Vec<Referrers>>,
    /// Rows that were retired together with another one.
    retired_with: HashMap<Key, Key>,
    journal: Journal,
    /// What is no row.
    pub kept: AuxiliaryState,
    /// The type of the event log.
    pub event_type: TypeId,
    /// How the site behaves where sources disagree.
    pub readings: Readings,
    /// Where pictures are said to be.
    pub media_host: String,
    /// The number of addresses that were signed.
    pub signatures: Arc<AtomicU64>,
}

/// The id of the first entry of the event log.
pub const FIRST_EVENT: u32 = 1_000_001;

impl World {
    /// Makes a site without rows.
    pub fn new(schema: SiteSchema) -> Self {
        let SiteSchema { public, layout } = schema;
        let event_type = layout.type_id("EventLogEntry").expect("the standard schema has an event log");
        let mut tables: Vec<_> = layout.types.iter().map(|_| Table::default()).collect();
        tables[usize::from(event_type)] = Table::starting_at(FIRST_EVENT);
        let referrers = layout.types.iter().map(|ty| vec![Referrers::new(); ty.fields.len()]).collect();
        Self {
            schema: public,
            layout,
            tables,
            referrers,
            retired_with: HashMap::new(),
            journal: Journal::default(),
            kept: AuxiliaryState::default(),
            event_type,
            readings: Readings::default(),
            media_host: "https://media.example.com".to_owned(),
            signatures: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Returns the rows of a type.
    pub fn table(&self, ty: TypeId) -> &Table {
        &self.tables[usize::from(ty)]
    }

    /// Returns a row, retired or not.
    pub fn row(&self, key: Key) -> Option<&Row> {
        self.table(key.ty).get(key.id)
    }

    /// Tells whether a row exists and is not retired.
    pub fn is_active(&self, key: Key) -> bool {
        self.row(key).is_some_and(|row| !row.retired)
    }

    /// Returns the rows of a type that are not retired, by id.
    pub fn active_keys(&self, ty: TypeId) -> impl Iterator<Item = Key> {
        let rows = self.table(ty).range(0, u32::MAX).filter(|(_, row)| !row.retired);
        rows.map(move |(id, _)| Key { ty, id })
    }

    /// Returns a stored value.
    pub fn cell(&self, key: Key, field: FieldId) -> &Cell {
        self.row(key).map_or(Cell::null(), |row| row.cell(field))
    }

    /// Returns a stored value by the name of its field.
    pub fn named(&self, key: Key, field: &str) -> &Cell {
        self.layout.field_id(key.ty, field).map_or(Cell::null(), |field| self.cell(key, field))
    }

    /// Makes a key of a reference; `None` for an unknown type or a wild id.
    pub fn key(&self, target: &EntityRef) -> Option<Key> {
        let ty = self.layout.type_id(target.entity_type.as_str())?;
        Some(Key { ty, id: u32::try_from(target.id).ok()? })
    }

    /// Makes the reference of a key.
    pub fn reference(&self, key: Key) -> EntityRef {
        EntityRef { entity_type: self.layout.ty(key.ty).name.clone(), id: i64::from(key.id) }
    }

    /// Returns the project of a row.
    pub fn project(&self, key: Key) -> Option<Key> {
        let field = self.layout.ty(key.ty).project?;
        self.cell(key, field).keys().first().copied()
    }

    /// Returns who points to `target` through a link field, retired rows
    /// included, in the order of ids.
    pub fn referrers(&self, ty: TypeId, field: FieldId, target: Key) -> &[u32] {
        self.referrers[usize::from(ty)][usize::from(field)].get(&target).map_or(&[], Vec::as_slice)
    }

    /// Returns the keys that a link field leads to, retired targets included.
    pub fn links(&self, key: Key, field: FieldId) -> Cow<'_, [Key]> {
        match self.layout.field(key.ty, field).role {
            Role::Back(ty, forward) => {
                let ids = self.referrers(ty, forward, key).iter();
                Cow::Owned(ids.map(|id| Key { ty, id: *id }).collect())
            }
            Role::OpenNotes => Cow::Owned(self.open_notes(key)),
            _ => Cow::Borrowed(self.cell(key, field).keys()),
        }
    }

    /// Returns the keys of active targets.
    pub fn live_links(&self, key: Key, field: FieldId) -> Vec<Key> {
        self.links(key, field).iter().copied().filter(|target| self.is_active(*target)).collect()
    }

    fn open_notes(&self, key: Key) -> Vec<Key> {
        let Some(notes) = self.layout.field_id(key.ty, "notes") else {
            return Vec::new();
        };
        let open = |note: &Key| matches!(self.named(*note, "sg_status_list").as_text(), Some("opn" | "ip" | "rdy"));
        self.live_links(key, notes).into_iter().filter(open).collect()
    }

    /// Returns the value of a field as filters and sorts see it; links to retired
    /// rows are in it.
    pub fn value(&self, key: Key, field: FieldId) -> FieldValue {
        let info = self.layout.field(key.ty, field);
        match (&info.role, info.data_type) {
            (Role::Id, _) => FieldValue::Int(i64::from(key.id)),
            (Role::DisplayName, _) => self.shown_name(key).map_or(FieldValue::Null, FieldValue::text),
            (Role::OpenNotes, DataType::Summary) => FieldValue::Int(self.open_notes(key).len() as i64),
            (Role::Secret | Role::Unserved, _) => FieldValue::Null,
            (_, DataType::Entity) => {
                self.links(key, field).first().map_or(FieldValue::Null, |target| FieldValue::Link(self.bare(*target)))
            }
            (_, DataType::MultiEntity | DataType::Addressing) => {
                FieldValue::Links(self.links(key, field).iter().map(|target| self.bare(*target)).collect())
            }
            (_, data_type) => self.cell(key, field).to_value(data_type),
        }
    }

    fn bare(&self, target: Key) -> Link {
        Link { target: self.reference(target), name: None }
    }

    /// Returns the field `cached_display_name`: on a Step it is empty, although
    /// links to it show its code.
    fn shown_name(&self, key: Key) -> Option<Cow<'_, str>> {
        if self.layout.ty(key.ty).name == "Step" { None } else { self.display_name(key) }
    }

    /// Returns what a link to the row shows as `name`.
    pub fn display_name(&self, key: Key) -> Option<Cow<'_, str>> {
        let info = self.layout.ty(key.ty);
        let own = info.display.and_then(|field| self.cell(key, field).as_text());
        match info.name.as_str() {
            "ApiUser" => match (own, self.named(key, "lastname").as_text()) {
                (Some(name), Some(version)) => Some(format!("{name} {version}").into()),
                (name, _) => name.map(Cow::Borrowed),
            },
            "Delivery" => Some(format!("#{}: {}", key.id, own.unwrap_or_default()).into()),
            "Attachment" => own.or_else(|| self.named(key, "filename").as_text()).map(Cow::Borrowed),
            _ => own.map(Cow::Borrowed),
        }
    }

    /// Lets the ids of a type begin at `first` while it has no rows.
    pub(super) fn make_room(&mut self, ty: TypeId, first: u32) {
        self.tables[usize::from(ty)].make_room(first);
    }

    /// Lets the ids of a type that has no rows begin at `first` and go on at `next`.
    pub(super) fn begin_ids(&mut self, ty: TypeId, first: u32, next: u32) {
        let table = &mut self.tables[usize::from(ty)];
        table.make_room(first);
        table.next = next;
    }

    /// Adds a field to a type.
    pub fn add_field(&mut self, ty: TypeId, name: &str, field: FieldSchema) {
        self.layout.add_field(ty, name, field.data_type);
        self.referrers[usize::from(ty)].push(Referrers::new());
        if let Some(entity) = self.schema.types.get_mut(&self.layout.ty(ty).name) {
            entity.fields.insert(name.to_owned(), field);
        }
    }

    /// Takes a field away. Rows keep its values, unseen.
    pub fn remove_field(&mut self, ty: TypeId, name: &str) {
        self.layout.remove_field(ty, name);
        if let Some(entity) = self.schema.types.get_mut(&self.layout.ty(ty).name) {
            entity.fields.remove(name);
        }
    }

    /// Takes the id for a new row.
    pub fn take_id(&mut self, ty: TypeId) -> u32 {
        let table = &mut self.tables[usize::from(ty)];
        table.next += 1;
        table.next - 1
    }

    /// Puts a new row in its place.
    pub fn insert(&mut self, key: Key, row: Row) {
        for slot in row.slots() {
            if self.layout.field(key.ty, slot.field).indexed {
                for target in slot.cell.keys() {
                    add_referrer(&mut self.referrers[usize::from(key.ty)][usize::from(slot.field)], *target, key.id);
                }
            }
        }
        self.tables[usize::from(key.ty)].insert(key.id, row);
        self.remember(Undo::Inserted(key));
    }

    /// Sets a stored value and returns the former one.
    pub fn set(&mut self, key: Key, field: FieldId, cell: Cell) -> Cell {
        let new: Vec<Key> = cell.keys().to_vec();
        let Some(row) = self.tables[usize::from(key.ty)].get_mut(key.id) else {
            return Cell::Null;
        };
        let old = row.set(field, cell);
        if self.layout.field(key.ty, field).indexed {
            let referrers = &mut self.referrers[usize::from(key.ty)][usize::from(field)];
            for gone in old.keys().iter().filter(|target| !new.contains(target)) {
                drop_referrer(referrers, *gone, key.id);
            }
            for added in new.iter().filter(|target| !old.keys().contains(target)) {
                add_referrer(referrers, *added, key.id);
            }
        }
        self.remember(Undo::Set(key, field, old.clone()));
        old
    }

    /// Retires or revives a row; tells whether that changed it.
    pub fn retire(&mut self, key: Key, retired: bool) -> bool {
        let changed = self.tables[usize::from(key.ty)].retire(key.id, retired);
        if changed {
            self.remember(Undo::Retired(key, !retired));
        }
        changed
    }

    /// Notes, or forgets, that a row was retired together with another one.
    pub fn set_retired_with(&mut self, key: Key, parent: Option<Key>) {
        let old = match parent {
            Some(parent) => self.retired_with.insert(key, parent),
            None => self.retired_with.remove(&key),
        };
        self.remember(Undo::RetiredWith(key, old));
    }

    /// Returns the rows that were retired together with `parent`, in order.
    pub fn retired_with(&self, parent: Key) -> Vec<Key> {
        let mut rows: Vec<_> =
            self.retired_with.iter().filter(|(_, with)| **with == parent).map(|(key, _)| *key).collect();
        rows.sort_unstable();
        rows
    }

    fn remember(&mut self, change: Undo) {
        self.journal.note(change);
    }

    /// Begins to note every change.
    pub fn begin(&mut self) {
        self.journal.begin();
    }

    /// Keeps the changes since [`Self::begin`] and returns the rows they touched.
    pub fn keep(&mut self) -> Vec<Key> {
        self.journal.end()
    }

    /// Takes back the changes since [`Self::begin`]. Ids that were taken stay so.
    pub fn roll_back(&mut self) {
        let changes = self.journal.abandon();
        self.take_back(changes);
    }

    /// Marks this moment, to return to it later.
    pub(super) fn mark(&mut self) -> Savepoint {
        self.journal.keeps = true;
        let schema = SiteSchema { public: self.schema.clone(), layout: self.layout.clone() };
        let next = self.tables.iter().map(|table| table.next).collect();
        Savepoint { at: self.journal.len(), next, kept: self.kept.clone(), schema }
    }

    /// Makes it as if nothing had happened since a mark: ids are used again.
    pub(super) fn rewind(&mut self, mark: &Savepoint) {
        let changes = self.journal.take_from(mark.at);
        self.take_back(changes);
        for (table, next) in self.tables.iter_mut().zip(&mark.next) {
            table.next = *next;
        }
        self.kept = mark.kept.clone();
        (self.schema, self.layout) = (mark.schema.public.clone(), mark.schema.layout.clone());
    }

    /// Returns the number of changes that are remembered.
    pub(super) fn changes(&self) -> usize {
        self.journal.len()
    }

    /// Takes back changes, newest first, without noting that.
    fn take_back(&mut self, changes: Vec<Undo>) {
        let mut journal = std::mem::take(&mut self.journal);
        for change in changes {
            match change {
                Undo::Inserted(key) => drop(self.remove(key)),
                Undo::Removed(key, row) => self.insert(key, *row),
                Undo::Set(key, field, old) => drop(self.set(key, field, old)),
                Undo::Retired(key, retired) => drop(self.retire(key, retired)),
                Undo::RetiredWith(key, parent) => self.set_retired_with(key, parent),
            }
        }
        std::mem::swap(&mut self.journal, &mut journal);
    }

    /// Makes it as if the row had never been, but for its id; returns the row.
    pub fn remove(&mut self, key: Key) -> Option<Row> {
        let row = self.tables[usize::from(key.ty)].take(key.id)?;
        for slot in row.slots() {
            for target in slot.cell.keys() {
                drop_referrer(&mut self.referrers[usize::from(key.ty)][usize::from(slot.field)], *target, key.id);
            }
        }
        self.remember(Undo::Removed(key, Box::new(row.clone())));
        Some(row)
    }

    /// Puts the row of another state of the site in the place of this one.
    pub(super) fn replace(&mut self, key: Key, row: Option<Row>, retired_with: Option<Key>) {
        self.remove(key);
        if let Some(row) = row {
            self.insert(key, row);
        }
        self.set_retired_with(key, retired_with);
    }

    /// Returns with what a row was retired.
    pub(super) fn parent_in_retirement(&self, key: Key) -> Option<Key> {
        self.retired_with.get(&key).copied()
    }

    /// Returns the number of rows that are not retired.
    pub fn active_rows(&self) -> usize {
        self.tables.iter().map(|table| table.active).sum()
    }
}

fn add_referrer(referrers: &mut Referrers, target: Key, id: u32) {
    let ids = referrers.entry(target).or_default();
    match ids.last() {
        Some(last) if *last >= id => {
            if let Err(at) = ids.binary_search(&id) {
                ids.insert(at, id);
            }
        }
        _ => ids.push(id),
    }
}

fn drop_referrer(referrers: &mut Referrers, target: Key, id: u32) {
    if let Some(ids) = referrers.get_mut(&target)
        && let Ok(at) = ids.binary_search(&id)
    {
        ids.remove(at);
    }
}

impl<'a> Rows<'a> for &'a World {
    type Row = Key;

    fn row(&self, target: &EntityRef) -> Option<Key> {
        World::key(self, target).filter(|key| self.is_active(*key))
    }

    fn key(&self, row: Key) -> EntityRef {
        self.reference(row)
    }

    fn value(&self, row: Key, field: &str) -> Cow<'a, FieldValue> {
        let field = self.layout.field_id(row.ty, field);
        Cow::Owned(field.map_or(FieldValue::Null, |field| World::value(self, row, field)))
    }

    fn is_retired(&self, target: &EntityRef) -> bool {
        World::key(self, target).is_none_or(|key| !self.is_active(key))
    }

    fn readings(&self) -> shotgun_model::filter::Readings {
        self.readings.of_filters()
    }

    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>> {
        let world: &'a World = self;
        world.display_name(World::key(world, &link.target)?)
    }
}
