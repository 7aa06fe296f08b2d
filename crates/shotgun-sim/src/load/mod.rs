//! Rows from files: a seed for tests, or a dump of a real site.
//!
//! Rows keep the ids that they bring. They are put in their places without
//! entries in the event log, as if they had always been there; the other sides of
//! links and the rows of connections follow from them. A link may be written as
//! `{type, id}`, as `{type, name}`, or as the name alone.

mod csv;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};

pub(super) use rows::by_type;
pub(super) use rows::read_schema;
pub use rows::{Rows, read};

use super::cell::{Cell, Key};
use super::schema::{FieldId, Role, TypeId};
use super::site::Site;
use super::table::Row;
use super::world::World;
use shotgun_model::entity::{DataType, EntityRef, FieldValue, Shape, Timestamp, fold};
use shotgun_model::schema::EntitySchema;

/// Why rows cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct LoadError {
    /// The file, or the row within it.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl LoadError {
    fn of(path: &Path, error: impl std::fmt::Display) -> Self {
        Self { place: path.display().to_string(), message: error.to_string() }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The rows that were put in their places.
    pub rows: usize,
    /// Fields that the site does not have, and how often they had a value.
    pub unknown_fields: BTreeMap<String, usize>,
    /// Links to rows that are not there; they read as empty.
    pub links_to_nothing: usize,
}

impl Site {
    /// Adds the fields of another site to the types that both have, and returns how
    /// many there were.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with the type whose fields cannot be read.
    pub fn add_fields(&self, schema: &Value) -> Result<usize, LoadError> {
        let mut world = self.rows_mut();
        let mut added = 0;
        for (entity_type, blocks) in schema.as_object().into_iter().flatten() {
            let Some(ty) = world.layout.type_id(entity_type) else { continue };
            let place = |error: shotgun_model::schema::SchemaError| LoadError {
                place: format!("schema of {entity_type}"),
                message: error.to_string(),
            };
            for (name, field) in EntitySchema::fields_from_wire(entity_type, blocks).map_err(place)? {
                if world.layout.field_id(ty, &name).is_none() {
                    world.add_field(ty, &name, field);
                    added += 1;
                }
            }
        }
        Ok(added)
    }

    /// Puts rows in their places: all of them, or none.
    ///
    /// # Errors
    ///
    /// [`LoadError`] with the row: an unknown type, an id that is taken, a value
    /// that the field cannot hold, a name that nothing has.
    pub fn load(&self, rows: &[Rows]) -> Result<Loaded, LoadError> {
        let mut world = self.rows_mut();
        world.begin();
        let mut loader =
            Loader { world: &mut world, now: self.clock.now(), names: HashMap::new(), loaded: Loaded::default() };
        let outcome = loader.load(rows);
        let loaded = std::mem::take(&mut loader.loaded);
        match outcome {
            Ok(()) => drop(world.keep()),
            Err(error) => {
                world.roll_back();
                return Err(error);
            }
        }
        let last = world.table(world.event_type).next - 1;
        self.event_ids().pass(last);
        self.scenario.replica.start_over(&world);
        Ok(loaded)
    }
}

struct Loader<'w> {
    world: &'w mut World,
    now: Timestamp,
    /// The rows of a type by their folded names.
    names: HashMap<TypeId, HashMap<String, Key>>,
    loaded: Loaded,
}

impl Loader<'_> {
    /// Rows first, links second: a row may point to one that comes later.
    fn load(&mut self, groups: &[Rows]) -> Result<(), LoadError> {
        let mut keys = Vec::new();
        for group in groups {
            let ty = self.world.layout.type_id(&group.entity_type).ok_or_else(|| LoadError {
                place: group.entity_type.clone(),
                message: "the site has no such entity type".into(),
            })?;
            let least = group.rows.iter().filter_map(given_id).min().unwrap_or(1);
            self.world.make_room(ty, u32::try_from(least).unwrap_or(1));
            for row in &group.rows {
                let place = |message| LoadError { place: described(&group.entity_type, row), message };
                keys.push((self.put(ty, row).map_err(place)?, group, row));
            }
        }
        for (key, group, row) in &keys {
            let place = |message| LoadError { place: described(&group.entity_type, row), message };
            self.link(*key, row).map_err(place)?;
        }
        for (key, ..) in &keys {
            self.connect(*key);
        }
        let log = self.world.event_type;
        let entries = keys.iter().filter(|(key, ..)| key.ty == log).map(|(key, ..)| key.id);
        self.world.kept.committed.extend(entries);
        self.loaded.rows = keys.len();
        Ok(())
    }

    /// Makes the row with everything that is no link.
    fn put(&mut self, ty: TypeId, fields: &Map<String, Value>) -> Result<Key, String> {
        let id = match given_id(fields) {
            Some(id) => u32::try_from(id).ok().filter(|id| *id > 0).ok_or("the id is out of range")?,
            None => self.world.take_id(ty),
        };
        let key = Key { ty, id };
        if self.world.row(key).is_some() {
            return Err("the id is taken".into());
        }
        let mut row = self.defaults(ty, fields);
        for (name, value) in fields {
            let Some(field) = self.field(ty, name) else {
                if !matches!(name.as_str(), "type" | "id") && !value.is_null() {
                    let name = format!("{}.{name}", self.world.layout.ty(ty).name);
                    *self.loaded.unknown_fields.entry(name).or_default() += 1;
                }
                continue;
            };
            let info = self.world.layout.field(ty, field);
            if matches!(info.data_type.shape(), Shape::Link | Shape::Links)
                || !matches!(info.role, Role::Stored | Role::Secret)
            {
                continue;
            }
            row.set(field, plain(info.data_type, value).map_err(|words| format!("{name}: {words}"))?);
        }
        row.shrink();
        self.world.insert(key, row);
        Ok(key)
    }

    /// The values of the schema for fields that the row does not name.
    fn defaults(&self, ty: TypeId, fields: &Map<String, Value>) -> Row {
        let mut row = Row::default();
        let info = self.world.layout.ty(ty);
        if let Some(entity) = self.world.schema.entity(&info.name).filter(|_| !fields.contains_key("id")) {
            for (name, field) in entity.fields.iter().filter(|(name, _)| !fields.contains_key(*name)) {
                if let (Some(id), Ok(cell)) =
                    (self.world.layout.field_id(ty, name), plain(field.data_type, &field.default))
                {
                    row.set(id, cell);
                }
            }
        }
        for name in ["created_at", "updated_at"] {
            if let Some(field) = self.world.layout.field_id(ty, name) {
                row.set(field, Cell::Moment(self.now));
            }
        }
        row
    }

    /// Finds a field by its name, or by the name that a page shows.
    fn field(&self, ty: TypeId, name: &str) -> Option<FieldId> {
        let layout = &self.world.layout;
        layout.field_id(ty, name).or_else(|| {
            let entity = self.world.schema.entity(&layout.ty(ty).name)?;
            let shown = entity.fields.iter().find(|(_, field)| field.display_name == name)?;
            layout.field_id(ty, shown.0)
        })
    }

    fn link(&mut self, key: Key, fields: &Map<String, Value>) -> Result<(), String> {
        for (name, value) in fields {
            let Some(field) = self.field(key.ty, name) else { continue };
            let info = self.world.layout.field(key.ty, field);
            let (data_type, role) = (info.data_type, info.role.clone());
            if !matches!(data_type.shape(), Shape::Link | Shape::Links)
                || !matches!(role, Role::Stored | Role::Back(..))
            {
                continue;
            }
            let targets = self.targets(key.ty, name, value).map_err(|words| format!("{name}: {words}"))?;
            self.loaded.links_to_nothing += targets.iter().filter(|target| self.world.row(**target).is_none()).count();
            match (role, data_type.shape()) {
                (Role::Back(owner, stored), _) => {
                    targets
                        .iter()
                        .filter(|target| target.ty == owner)
                        .for_each(|target| self.point(*target, stored, key));
                }
                (_, Shape::Link) => {
                    drop(self.world.set(key, field, targets.first().map_or(Cell::Null, |key| Cell::Link(*key))))
                }
                _ => {
                    // The other side of a list may have been read before.
                    let mut all = self.world.cell(key, field).keys().to_vec();
                    targets.iter().for_each(|target| {
                        if !all.contains(target) {
                            all.push(*target)
                        }
                    });
                    self.world.set(key, field, Cell::links(all));
                }
            }
        }
        Ok(())
    }

    /// Makes the stored side of a link lead to `key`.
    fn point(&mut self, row: Key, stored: FieldId, key: Key) {
        if self.world.row(row).is_none() {
            return;
        }
        let old = self.world.cell(row, stored).clone();
        let single = self.world.layout.field(row.ty, stored).data_type == DataType::Entity;
        if single && old == Cell::Null {
            self.world.set(row, stored, Cell::Link(key));
        } else if !single && !old.keys().contains(&key) {
            self.world.set(row, stored, Cell::links(old.keys().iter().copied().chain([key]).collect()));
        }
    }

    fn targets(&mut self, ty: TypeId, name: &str, value: &Value) -> Result<Vec<Key>, String> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::String(text) if text.is_empty() => Ok(Vec::new()),
            Value::Array(items) => {
                let mut keys = Vec::new();
                for item in items {
                    keys.extend(self.targets(ty, name, item)?);
                }
                Ok(keys)
            }
            Value::Object(object) => {
                if let Some(target) = EntityRef::from_json(value) {
                    let known = self.world.key(&target);
                    self.loaded.links_to_nothing += usize::from(known.is_none());
                    return Ok(known.into_iter().collect());
                }
                let text = |key: &str| object.get(key).and_then(Value::as_str);
                let (Some(target), Some(shown)) = (text("type"), text("name")) else {
                    return Err(format!("expected `type` with `id` or `name`, found {value}"));
                };
                let target = self.world.layout.type_id(target).ok_or_else(|| format!("no entity type `{target}`"))?;
                self.named(&[target], shown).map(|key| vec![key])
            }
            Value::String(text) => {
                let owner = &self.world.layout.ty(ty).name;
                let valid =
                    self.world.schema.field(owner, name).map(|field| field.valid_types.clone()).unwrap_or_default();
                let types: Vec<_> = valid.iter().filter_map(|ty| self.world.layout.type_id(ty.as_str())).collect();
                match self.named(&types, text) {
                    Ok(key) => Ok(vec![key]),
                    // A page exports a list as names with commas.
                    Err(words) if !text.contains(", ") => Err(words),
                    Err(_) => text.split(", ").map(|name| self.named(&types, name)).collect(),
                }
            }
            other => Err(format!("expected a link, found {other}")),
        }
    }

    fn named(&mut self, types: &[TypeId], name: &str) -> Result<Key, String> {
        let wanted = fold(name);
        for ty in types {
            if let Some(key) = self.names(*ty).get(&wanted) {
                return Ok(*key);
            }
        }
        let shown: Vec<_> = types.iter().map(|ty| self.world.layout.ty(*ty).name.as_str()).collect();
        Err(format!("no {} has the name `{name}`", shown.join(" or ")))
    }

    fn names(&mut self, ty: TypeId) -> &HashMap<String, Key> {
        let world = &*self.world;
        self.names.entry(ty).or_insert_with(|| {
            let keys = world.table(ty).range(0, u32::MAX).map(|(id, _)| Key { ty, id });
            // Of several with one name the oldest is meant.
            keys.rev().filter_map(|key| Some((fold(&world.display_name(key)?), key))).collect()
        })
    }

    /// Makes the rows of connections that were not brought.
    fn connect(&mut self, key: Key) {
        let fields = self.world.layout.ty(key.ty).fields.len();
        for field in 0..fields as FieldId {
            let Some(connection) = self.world.layout.field(key.ty, field).connection.clone() else { continue };
            for target in self.world.cell(key, field).keys().to_vec() {
                let ids = self.world.referrers(connection.entity_type, connection.near, key).iter();
                let mut rows = ids.map(|id| Key { ty: connection.entity_type, id: *id });
                if !rows.any(|row| self.world.cell(row, connection.far).keys() == [target]) {
                    let row = Key { ty: connection.entity_type, id: self.world.take_id(connection.entity_type) };
                    self.world.insert(row, Row::default());
                    self.world.set(row, connection.near, Cell::Link(key));
                    self.world.set(row, connection.far, Cell::Link(target));
                }
            }
        }
    }
}

/// Reads the id that a row brings; a table has it as text.
fn given_id(fields: &Map<String, Value>) -> Option<i64> {
    let id = fields.get("id").or_else(|| fields.get("Id"))?;
    id.as_i64().or_else(|| id.as_str()?.trim().parse().ok())
}

fn described(entity_type: &str, fields: &Map<String, Value>) -> String {
    let name = ["id", "code", "name", "content"].iter().find_map(|name| Some((name, fields.get(*name)?)));
    name.map_or_else(|| entity_type.to_owned(), |(name, value)| format!("{entity_type} with {name} {value}"))
}

/// Reads a value that is no link; a table has everything as text.
fn plain(data_type: DataType, value: &Value) -> Result<Cell, String> {
    let text = value.as_str().map(str::trim);
    let parsed = match (data_type, data_type.shape(), text) {
        (_, _, Some("")) => return Ok(Cell::Null),
        // The picture itself is not in a dump; that there is one is.
        (DataType::Image, ..) => return Ok(if value.is_null() { Cell::Null } else { Cell::Int(1) }),
        (DataType::Url | DataType::Serializable | DataType::Jsonb | DataType::TagList, _, None) => {
            return Ok(if value.is_null() { Cell::Null } else { Cell::Json(value.to_string().into()) });
        }
        (DataType::Password, _, Some(text)) => return Ok(Cell::text(text)),
        (_, Shape::Int | Shape::Float, Some(text)) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        (_, Shape::Bool, Some(text)) => Value::Bool(matches!(fold(text).as_str(), "true" | "yes" | "1")),
        _ => value.clone(),
    };
    FieldValue::from_json(data_type, &parsed).map(Cell::from_value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
