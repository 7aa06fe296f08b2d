//! What a write means: defaults, uniqueness, stamps, both sides of links, events.
//!
//! A [`Writer`] works inside a transaction of the [`World`]; when it refuses, the
//! caller rolls the world back. Its entries become rows at commit.

use super::cell::{Cell, Key};
use super::event::{Actor, Change, Entry, meta_value};
use super::readings::Reading;
use super::schema::{FieldId, Role, TypeId};
use super::table::Row;
use super::value;
use super::world::World;
use shotgun_model::api3::{Create, Fault, FieldWrite, Update, UpdateMode};
use shotgun_model::entity::{DataType, EntityType, Shape, Timestamp, fold};

/// A run of writes in one transaction.
pub struct Writer<'w> {
    /// The rows.
    pub world: &'w mut World,
    /// Who writes.
    pub actor: Actor,
    /// When, by the clock of the site.
    pub now: Timestamp,
    /// What will be logged at commit.
    pub entries: Vec<Entry>,
}

/// The start of the words with which the site refuses what it does not simulate.
pub const NOT_SIMULATED: &str = "not simulated: ";

/// Makes a fault about something that this site does not simulate.
pub fn not_simulated(what: impl std::fmt::Display) -> Fault {
    Fault::new(Fault::DATA, format!("{NOT_SIMULATED}{what}"))
}

impl<'w> Writer<'w> {
    /// Makes a writer.
    pub fn new(world: &'w mut World, actor: Actor, now: Timestamp) -> Self {
        Self { world, actor, now, entries: Vec::new() }
    }

    pub(super) fn log(&mut self, entry: Entry) {
        if self.actor.logs {
            self.entries.push(entry);
        }
    }

    /// Creates an entity, under a given id if one was taken before.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of the site.
    pub fn create(&mut self, request: &Create, id: Option<u32>) -> Result<Key, Fault> {
        let method = "create";
        let ty = self.type_of(method, &request.entity_type)?;
        if ty == self.world.event_type {
            return Err(not_simulated("create of EventLogEntry"));
        }
        if self.world.layout.ty(ty).name.is_connection() {
            return Err(not_simulated(format!("create of {}", request.entity_type)));
        }
        let id = id.unwrap_or_else(|| self.world.take_id(ty));
        let key = Key { ty, id };
        self.world.insert(key, Row::default());
        self.stamp(key, ["created_at", "updated_at"], ["created_by", "updated_by"]);
        self.identify(key);
        let mut writes = Vec::new();
        for write in &request.fields {
            writes.push((self.field(method, ty, &write.field)?, write.clone()));
        }
        self.check_project(ty, &writes)?;
        self.add_defaults(key, &mut writes);
        let new_first = self.world.readings.second(Reading::NewEntry);
        if new_first {
            let entry = Entry::created(self.world, key);
            self.log(entry);
        }
        for (field, write) in &writes {
            self.assign(method, key, *field, write, true)?;
        }
        self.finish_write(key, &writes, true);
        if !new_first {
            let entry = Entry::created(self.world, key);
            self.log(entry);
        }
        self.apply_template(key)?;
        Ok(key)
    }

    /// Gives a new row the uuid that only the site sets.
    fn identify(&mut self, key: Key) {
        if let Some(field) = self.world.layout.field_id(key.ty, "uuid") {
            let uuid = format!("{:08x}-0000-4000-8000-{:012x}", key.ty, key.id);
            self.world.set(key, field, Cell::text(&uuid));
        }
    }

    /// Makes a row of connections, which have no stamps.
    pub(super) fn new_row(&mut self, ty: TypeId) -> Key {
        let key = Key { ty, id: self.world.take_id(ty) };
        self.world.insert(key, Row::default());
        key
    }

    /// Changes an entity.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of the site.
    pub fn update(&mut self, request: &Update) -> Result<Key, Fault> {
        let method = "update";
        let ty = self.type_of(method, &request.entity_type)?;
        if ty == self.world.event_type {
            return Err(Fault::data(method, "EventLogEntry can not be updated."));
        }
        let key = self.existing(method, ty, request.id)?;
        if !self.world.is_active(key) && !self.world.readings.second(Reading::UpdateOfRetired) {
            return Err(missing(method, &request.entity_type, request.id));
        }
        let mut writes = Vec::new();
        for write in &request.fields {
            let field = self.field(method, ty, &write.field)?;
            if matches!(write.field.as_str(), "created_at" | "created_by") {
                return Err(Fault::data(
                    method,
                    format!("{}.{} is editable on create only.", request.entity_type, write.field),
                ));
            }
            writes.push((field, write.clone()));
        }
        let mut changed = false;
        for (field, write) in &writes {
            changed |= self.assign(method, key, *field, write, false)?;
        }
        if changed {
            self.finish_write(key, &writes, false);
            self.stamp(key, ["updated_at"; 1], ["updated_by"; 1]);
        }
        Ok(key)
    }

    pub(super) fn type_of(&self, method: &str, name: &EntityType) -> Result<TypeId, Fault> {
        self.world.layout.type_id(name.as_str()).ok_or_else(|| unknown_type(self.world, method))
    }

    pub(super) fn existing(&self, method: &str, ty: TypeId, id: i64) -> Result<Key, Fault> {
        let key = u32::try_from(id).ok().map(|id| Key { ty, id }).filter(|key| self.world.row(*key).is_some());
        key.ok_or_else(|| missing(method, &self.world.layout.ty(ty).name, id))
    }

    fn field(&self, method: &str, ty: TypeId, name: &str) -> Result<FieldId, Fault> {
        let owner = &self.world.layout.ty(ty).name;
        self.world.layout.field_id(ty, name).ok_or_else(|| Fault::data(method, format!("{owner}.{name} doesn't exist")))
    }

    fn check_project(&self, ty: TypeId, writes: &[(FieldId, FieldWrite)]) -> Result<(), Fault> {
        let info = self.world.layout.ty(ty);
        let given = |name: &str| writes.iter().any(|(_, write)| write.field == name && !write.value.is_null());
        // The tasks of a template belong to no project.
        if !info.needs_project || given("project") || (info.name == "Task" && given("task_template")) {
            return Ok(());
        }
        let fields: serde_json::Map<_, _> =
            writes.iter().map(|(_, write)| (write.field.clone(), write.value.clone())).collect();
        Err(Fault::data("create", format!("missing 'project' attribute: {}", serde_json::Value::Object(fields))))
    }

    /// Adds the defaults of the schema and a name when none was given.
    fn add_defaults(&self, key: Key, writes: &mut Vec<(FieldId, FieldWrite)>) {
        let info = self.world.layout.ty(key.ty);
        let Some(entity) = self.world.schema.entity(&info.name) else { return };
        let named = |writes: &[(FieldId, FieldWrite)], name: &str| writes.iter().any(|(_, w)| w.field == name);
        for (name, field) in &entity.fields {
            if !field.default.is_null() && !named(writes, name) {
                writes.extend(
                    self.world.layout.field_id(key.ty, name).map(|id| (id, plain(name, field.default.clone()))),
                );
            }
        }
        let Some(display) = info.display else { return };
        let name = &info.fields[usize::from(display)].name;
        let person = info.name == "HumanUser" || info.name == "ClientUser";
        if !named(writes, name) && !person && info.name != "Attachment" {
            writes.push((display, plain(name, format!("New {} {}", entity.display_name, key.id).into())));
        }
    }

    /// Writes one field and tells whether it changed.
    fn assign(
        &mut self,
        method: &str,
        key: Key,
        field: FieldId,
        write: &FieldWrite,
        in_create: bool,
    ) -> Result<bool, Fault> {
        let info = self.world.layout.field(key.ty, field);
        let data_type = info.data_type;
        match info.role {
            // Written and ignored, as on the site.
            Role::DisplayName => return Ok(false),
            Role::Id => {
                return Err(Fault::data(method, format!("{}.id is not editable.", self.world.layout.ty(key.ty).name)));
            }
            _ => {}
        }
        let refuse = |words: String| Fault::data(method, words);
        if data_type.shape() == Shape::Links {
            let keys = value::many(self.world, key.ty, field, &write.value).map_err(refuse)?;
            return Ok(self.write_list(key, field, &keys, write.mode, in_create));
        }
        let cell = value::read(self.world, key.ty, field, &write.value).map_err(refuse)?;
        self.check_unique(method, key, field, &cell)?;
        let stamp = matches!(write.field.as_str(), "created_at" | "created_by" | "updated_at" | "updated_by");
        if stamp {
            self.world.set(key, field, cell);
            return Ok(false);
        }
        if data_type == DataType::Entity {
            return Ok(self.write_link(key, field, cell, in_create));
        }
        match data_type {
            DataType::Url => self.note_link(key, &cell)?,
            DataType::Image if cell == Cell::Null && write.field == "image" => self.clear_filmstrip(key, in_create),
            _ => {}
        }
        Ok(self.write_value(key, field, cell, in_create))
    }

    /// A picture that is taken away takes its filmstrip along.
    fn clear_filmstrip(&mut self, key: Key, in_create: bool) {
        if let Some(field) = self.world.layout.field_id(key.ty, "filmstrip_image") {
            self.write_value(key, field, Cell::Null, in_create);
        }
    }

    pub(super) fn write_value(&mut self, key: Key, field: FieldId, cell: Cell, in_create: bool) -> bool {
        let old = self.world.cell(key, field).clone();
        if old == cell {
            return false;
        }
        self.world.set(key, field, cell.clone());
        let info = self.world.layout.field(key.ty, field);
        let shown = |cell| meta_value(self.world, info.data_type, cell);
        let change = Change::Value(if in_create { serde_json::Value::Null } else { shown(&old) }, shown(&cell));
        let entry = Entry::changed(self.world, key, &info.name, info.data_type, &change, in_create);
        self.log(entry);
        true
    }

    fn check_unique(&self, method: &str, key: Key, field: FieldId, cell: &Cell) -> Result<(), Fault> {
        let (ty, info) = (self.world.layout.ty(key.ty), self.world.layout.field(key.ty, field));
        let schema = self.world.schema.field(&ty.name, &info.name);
        let Some(schema) = schema.filter(|schema| schema.unique) else { return Ok(()) };
        let Some(text) = cell.as_text().map(fold) else { return Ok(()) };
        let same = |row: &Row| !row.retired && row.cell(field).as_text().map(fold).as_ref() == Some(&text);
        let taken = self.world.table(key.ty).range(0, u32::MAX).any(|(id, row)| id != key.id && same(row));
        if !taken {
            return Ok(());
        }
        let words = format!("The value for the {} field is required to be unique. <br>", schema.display_name);
        Err(Fault::data(
            method,
            if method == "create" {
                format!("CRUD ERROR #61: Create failed for [{}]. {words}", ty.name)
            } else {
                format!("CRUD ERROR #51: Update failed for [{}.{}]. {words} ", ty.name, info.name)
            },
        ))
    }

    /// Sets stamps that the request did not bring.
    pub(super) fn stamp<const N: usize>(&mut self, key: Key, times: [&str; N], users: [&str; N]) {
        for (time, user) in times.into_iter().zip(users) {
            if let Some(field) = self.world.layout.field_id(key.ty, time) {
                self.world.set(key, field, Cell::Moment(self.now));
            }
            if let Some(field) = self.world.layout.field_id(key.ty, user) {
                self.world.set(key, field, Cell::Link(self.actor.user));
            }
        }
    }

    /// Keeps fields in step that the site computes from others when they change.
    fn finish_write(&mut self, key: Key, writes: &[(FieldId, FieldWrite)], in_create: bool) {
        let info = self.world.layout.ty(key.ty);
        if info.name != "HumanUser" && info.name != "ClientUser" {
            return;
        }
        let wrote = |name: &str| writes.iter().any(|(_, write)| write.field == name);
        let Some(name) = info.display else { return };
        if wrote("firstname") || wrote("lastname") {
            let part = |field| self.world.named(key, field).as_text().unwrap_or_default();
            let full = format!("{} {}", part("firstname"), part("lastname"));
            self.write_value(key, name, Cell::text(full.trim()), in_create);
        } else if wrote("name") {
            let full = self.world.cell(key, name).as_text().unwrap_or_default().to_owned();
            let (first, last) = full.split_once(' ').unwrap_or((&full, ""));
            for (field, part) in [("firstname", first), ("lastname", last)] {
                if let Some(field) = self.world.layout.field_id(key.ty, field) {
                    self.world.set(key, field, Cell::text(part));
                }
            }
        }
    }

    /// Makes the tasks of the template that a new entity was given.
    fn apply_template(&mut self, key: Key) -> Result<(), Fault> {
        let layout = &self.world.layout;
        if layout.ty(key.ty).name == "Task" {
            return Ok(());
        }
        let Some(template) = self.world.named(key, "task_template").keys().first().copied() else { return Ok(()) };
        let (Some(task), Some(project)) = (layout.type_id("Task"), self.world.project(key)) else { return Ok(()) };
        let Some(field) = layout.field_id(task, "task_template") else { return Ok(()) };
        let ids = self.world.referrers(task, field, template).to_vec();
        for id in ids {
            let model = Key { ty: task, id };
            if !self.world.is_active(model) || !self.world.named(model, "entity").keys().is_empty() {
                continue;
            }
            let reference = |key: Key| serde_json::to_value(self.world.reference(key)).unwrap_or_default();
            let mut fields = vec![
                plain("project", reference(project)),
                plain("entity", reference(key)),
                plain("template_task", reference(model)),
                plain("content", self.world.named(model, "content").as_text().into()),
            ];
            fields.extend(self.world.named(model, "step").keys().first().map(|step| plain("step", reference(*step))));
            let request = Create { entity_type: EntityType::new("Task"), fields, return_fields: Vec::new() };
            self.create(&request, None)?;
        }
        Ok(())
    }
}

/// Makes a write that replaces a value.
pub fn plain(field: &str, value: serde_json::Value) -> FieldWrite {
    FieldWrite { field: field.to_owned(), value, mode: UpdateMode::Set }
}

/// The refusal of a type that the site does not have.
pub fn unknown_type(world: &World, method: &str) -> Fault {
    let names: Vec<_> = world.schema.type_names().collect();
    Fault::malformed(method, format!("invalid/missing string entity 'type': Valid entity types: {names:?}"))
}

fn missing(method: &str, entity_type: &EntityType, id: i64) -> Fault {
    Fault::data(method, format!("CRUD ERROR #3: Entity of type [{entity_type}] with id={id} does not exist."))
}
