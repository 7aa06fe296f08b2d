//! A site in a file, and back.
//!
//! The file is lines of JSON: a head that names types and fields by their numbers,
//! a line for each row, and one for what the site keeps beside its rows. Numbers of another version of the program are
//! translated by name; what has no name any more is refused, because a snapshot
//! that is loaded in part is another site.

mod auxiliary_state;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::auxiliary_state::AuxiliaryLine;
use super::cell::{Cell, Key, Slot};
use super::schema::{FieldId, FieldInfo, SiteSchema, TypeId};
use super::table::Row;
use super::world::World;
use shotgun_model::entity::EntityType;
use shotgun_model::schema::EntitySchema;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {message}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// The form of the file.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    sgcache_snapshot: u32,
    types: Vec<TypeHead>,
}

/// Fields that differ from those of a stock site, as `schema_field_read` shows them.
#[derive(Default, Serialize, Deserialize)]
struct Edited {
    added: BTreeMap<String, Value>,
    removed: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct TypeHead {
    name: String,
    /// The id that the next row gets.
    next: u32,
    /// The names by number; an empty one was removed.
    fields: Vec<String>,
    #[serde(default)]
    edited: Edited,
}

/// A row: type, id, whether it is retired, with what it was retired, its values.
#[derive(Deserialize)]
struct Line(TypeId, u32, bool, Option<(TypeId, u32)>, Vec<(FieldId, Cell)>);

#[derive(Serialize)]
struct LineOut<'w>(TypeId, u32, bool, Option<(TypeId, u32)>, Vec<(FieldId, &'w Cell)>);

/// Writes every row, and what is kept beside them.
///
/// # Errors
///
/// When `out` cannot be written.
pub(super) fn save(world: &World, out: &mut impl Write) -> Result<(), SnapshotError> {
    let stock = SiteSchema::standard();
    let types = world.layout.types.iter().enumerate().map(|(ty, info)| {
        let ty = ty as TypeId;
        let named = |(number, field): (usize, &FieldInfo)| {
            let here = world.layout.field_id(ty, &field.name) == Some(number as FieldId);
            if here { field.name.clone() } else { String::new() }
        };
        let fields: Vec<_> = info.fields.iter().enumerate().map(named).collect();
        let edited = edited(world, &stock, &info.name, &fields);
        TypeHead { name: info.name.to_string(), next: world.table(ty).next, fields, edited }
    });
    write_line(out, &Head { sgcache_snapshot: FORM, types: types.collect() })?;
    for ty in 0..world.layout.types.len() as TypeId {
        for (id, row) in world.table(ty).range(0, u32::MAX) {
            let parent = world.parent_in_retirement(Key { ty, id }).map(|key| (key.ty, key.id));
            let shown = |slot: &&Slot| {
                let name = &world.layout.field(ty, slot.field).name;
                world.layout.field_id(ty, name) == Some(slot.field)
            };
            let cells = row.slots().iter().filter(shown).map(|slot| (slot.field, &slot.cell)).collect();
            write_line(out, &LineOut(ty, id, row.retired, parent, cells))?;
        }
    }
    write_line(out, &AuxiliaryLine::of(&world.kept))?;
    out.flush()?;
    Ok(())
}

/// Compares the fields of a type with those of a stock site.
fn edited(world: &World, stock: &SiteSchema, name: &EntityType, fields: &[String]) -> Edited {
    let mut edited = Edited::default();
    let (Some(stock), Some(here)) = (stock.public.entity(name), world.schema.entity(name)) else { return edited };
    for field in fields.iter().filter(|field| here.fields.contains_key(*field)) {
        if !stock.fields.contains_key(field) {
            edited.added.insert(field.clone(), here.fields_to_wire(Some(field))[field].clone());
        }
    }
    edited.removed = stock.fields.keys().filter(|field| !fields.contains(field)).cloned().collect();
    edited
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> Result<(), SnapshotError> {
    serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Fills a site that has no rows.
///
/// # Errors
///
/// [`SnapshotError`] with the line that is wrong.
pub(super) fn load(world: &mut World, input: &mut impl BufRead) -> Result<(), SnapshotError> {
    let mut text = String::new();
    let mut number = 1;
    input.read_line(&mut text)?;
    let wrong = |line: usize, message: String| SnapshotError::Line { line, message };
    let head: Head = serde_json::from_str(&text).map_err(|error| wrong(1, format!("no snapshot: {error}")))?;
    if head.sgcache_snapshot != FORM {
        return Err(wrong(1, format!("the snapshot has form {}, this program reads {FORM}", head.sgcache_snapshot)));
    }
    edit_fields(world, &head).map_err(|message| wrong(1, message))?;
    let numbers = Numbers::of(world, &head).map_err(|message| wrong(1, message))?;
    for (old, one) in head.types.iter().enumerate() {
        let first = if numbers.types[old] == world.event_type { 0 } else { 1 };
        world.begin_ids(numbers.types[old], first, one.next);
    }
    loop {
        text.clear();
        number += 1;
        if input.read_line(&mut text)? == 0 {
            return Ok(());
        }
        if text.starts_with('{') {
            let line: AuxiliaryLine = serde_json::from_str(&text).map_err(|error| wrong(number, error.to_string()))?;
            world.kept = line.read(&numbers).map_err(|message| wrong(number, message))?;
            continue;
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| wrong(number, error.to_string()))?;
        put(world, &numbers, line)
            .ok_or_else(|| wrong(number, "a type or field that the head does not name".into()))?;
    }
}

/// Adds and removes the fields in which the saved site differed from a stock one.
fn edit_fields(world: &mut World, head: &Head) -> Result<(), String> {
    for one in &head.types {
        let Some(ty) = world.layout.type_id(&one.name) else { continue };
        let added = Value::Object(one.edited.added.clone().into_iter().collect());
        let added = EntitySchema::fields_from_wire(&one.name, &added).map_err(|error| error.to_string())?;
        for (name, field) in added {
            if world.layout.field_id(ty, &name).is_none() {
                world.add_field(ty, &name, field);
            }
        }
        one.edited.removed.iter().for_each(|name| world.remove_field(ty, name));
    }
    Ok(())
}

fn put(world: &mut World, numbers: &Numbers, line: Line) -> Option<()> {
    let Line(ty, id, retired, parent, cells) = line;
    let key = numbers.key(Key { ty, id })?;
    let fields = numbers.fields.get(usize::from(ty))?;
    let mut slots = Vec::with_capacity(cells.len());
    for (field, mut cell) in cells {
        numbers.translate(&mut cell)?;
        slots.push(Slot { field: *fields.get(usize::from(field))?, cell });
    }
    if numbers.moved {
        slots.sort_unstable_by_key(|slot| slot.field);
    }
    world.insert(key, Row::of(slots, retired));
    if let Some((ty, id)) = parent {
        world.set_retired_with(key, Some(numbers.key(Key { ty, id })?));
    }
    Some(())
}

/// From the numbers of the file to those of this program.
struct Numbers {
    types: Vec<TypeId>,
    fields: Vec<Vec<FieldId>>,
    /// Whether any number differs.
    moved: bool,
}

impl Numbers {
    fn of(world: &World, head: &Head) -> Result<Self, String> {
        let mut numbers = Self { types: Vec::new(), fields: Vec::new(), moved: false };
        for (old, one) in head.types.iter().enumerate() {
            let ty = world.layout.type_id(&one.name).ok_or_else(|| format!("unknown entity type `{}`", one.name))?;
            let field = |name: &String| {
                if name.is_empty() {
                    return Ok(FieldId::MAX);
                }
                world.layout.field_id(ty, name).ok_or_else(|| format!("unknown field `{}.{name}`", one.name))
            };
            let fields: Vec<_> = one.fields.iter().map(field).collect::<Result<_, _>>()?;
            let same = fields.iter().enumerate().all(|(old, new)| old == usize::from(*new));
            numbers.moved |= !same || old != usize::from(ty);
            numbers.types.push(ty);
            numbers.fields.push(fields);
        }
        Ok(numbers)
    }

    fn key(&self, key: Key) -> Option<Key> {
        Some(Key { ty: *self.types.get(usize::from(key.ty))?, id: key.id })
    }

    fn field(&self, ty: TypeId, field: FieldId) -> Option<FieldId> {
        self.fields.get(usize::from(ty))?.get(usize::from(field)).copied()
    }

    fn translate(&self, cell: &mut Cell) -> Option<()> {
        if !self.moved {
            return Some(());
        }
        match cell {
            Cell::Link(key) => *key = self.key(*key)?,
            Cell::Links(keys) => {
                for key in keys.iter_mut() {
                    *key = self.key(*key)?;
                }
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Site;
    use crate::files::{File, Pending};
    use crate::schema::SiteSchema;
    use shotgun_model::entity::DataType;
    use shotgun_model::schema::FieldSchema;

    fn saved(world: &World) -> Vec<u8> {
        let mut bytes = Vec::new();
        save(world, &mut bytes).expect("a snapshot");
        bytes
    }

    #[test]
    fn a_site_comes_back_as_it_was() {
        let site = Site::generated(3, 2_000);
        site.retire("Shot", 1).expect("a retirement");
        let before = saved(&site.rows());
        let mut world = World::new(SiteSchema::standard());
        load(&mut world, &mut before.as_slice()).expect("a site");
        assert_eq!(saved(&world), before);
        let again = Site::of_world(world);
        assert!(again.revive("Shot", 1).expect("a revival"), "what went along is known");
        let shot = json!([["id", "is", 1]]);
        site.revive("Shot", 1).expect("a revival");
        assert_eq!(again.count("Task"), site.count("Task"));
        let fields = ["code", "tasks", "assets", "sg_sequence"];
        assert_eq!(again.read("Shot", &shot, &fields), site.read("Shot", &shot, &fields));
        assert_eq!(again.create("Tag", json!({"name": "x"})), site.create("Tag", json!({"name": "x"})));
    }

    #[test]
    fn what_is_kept_beside_the_rows_comes_back() {
        let site = crate::tests::site();
        let ask = |site: &Site, method: &str, argument: Value| crate::tests::call(site, method, argument);
        let user = site.create("HumanUser", json!({"name": "Ada B", "login": "ada", "password_proxy": "pw"}));
        let user = json!({"type": "HumanUser", "id": user.expect("a person")});
        let shot = crate::tests::shot(&site, "010");
        let both = json!({"user": user, "entity": {"type": "Shot", "id": shot}});
        let day = json!({"date": "2024-03-13", "working": false, "description": "off", "user": user});
        let field =
            json!({"type": "Shot", "data_type": "text", "properties": [{"property_name": "name", "value": "Mood"}]});
        for (method, argument) in [("follow", both), ("work_schedule_update", day), ("schema_field_create", field)] {
            assert!(ask(&site, method, argument).get("exception").is_none(), "{method}");
        }
        let bytes = b"\x00JPEG\xff".as_slice();
        let picture = File { name: "a.jpg".into(), content_type: "image/jpeg".into(), bytes: bytes.into() };
        let pending = Pending { ready_at: site.clock.now(), shown: (Key { ty: 0, id: 1 }, 1), actor: site.script() };
        {
            let files = &mut site.rows_mut().kept.files;
            files.stored.insert(7, picture);
            files.pending.insert(7, pending);
        }
        let before = saved(&site.rows());
        let mut world = World::new(SiteSchema::standard());
        load(&mut world, &mut before.as_slice()).expect("a site");
        assert_eq!(String::from_utf8(saved(&world)), String::from_utf8(before));
        let again = Site::of_world(world);
        assert_eq!(&*again.rows().kept.files.stored[&7].bytes, bytes);
        let stream = json!({"type": "Shot", "id": shot});
        for (method, argument) in [
            ("following", json!({"user": user})),
            ("work_schedule_read", json!({"start_date": "2024-03-13", "end_date": "2024-03-13", "user": user})),
            ("activity_stream", stream),
        ] {
            assert_eq!(ask(&again, method, argument.clone()), ask(&site, method, argument), "{method}");
        }
        let deleted = json!({"type": "Shot", "field_name": "sg_mood"});
        assert_eq!(ask(&again, "schema_field_delete", deleted)["results"], true, "it is still one that was made");
    }

    #[test]
    fn fields_that_were_added_and_removed_are_remembered() {
        let site = Site::empty();
        let spaceship = FieldSchema::new(DataType::Text, "Spaceship");
        {
            let mut world = site.rows_mut();
            let shot = world.layout.type_id("Shot").expect("Shot");
            world.add_field(shot, "sg_gone", spaceship.clone());
            world.add_field(shot, "sg_spaceship", spaceship);
        }
        site.create("Project", json!({"name": "Demo"})).expect("a project");
        let fields =
            json!({"code": "a", "sg_gone": "x", "sg_spaceship": "Nostromo", "project": {"type": "Project", "id": 1}});
        site.create("Shot", fields).expect("a shot");
        {
            let mut world = site.rows_mut();
            let shot = world.layout.type_id("Shot").expect("Shot");
            world.remove_field(shot, "sg_gone");
            world.remove_field(shot, "description");
        }
        let mut world = World::new(SiteSchema::standard());
        load(&mut world, &mut saved(&site.rows()).as_slice()).expect("a site");
        let again = Site::of_world(world);
        let shots = again.read("Shot", &json!([]), &["code", "sg_spaceship", "sg_gone", "description"]).expect("shots");
        assert_eq!(
            Value::from(shots[0].clone()),
            json!({"type": "Shot", "id": 1, "code": "a", "sg_spaceship": "Nostromo"})
        );
    }

    #[test]
    fn what_is_no_snapshot_is_refused_with_its_line() {
        let mut world = World::new(SiteSchema::standard());
        let error = load(&mut world, &mut "[]\n".as_bytes()).expect_err("no head");
        assert!(error.to_string().starts_with("line 1: no snapshot:"), "{error}");
        let head = json!({"sgcache_snapshot": 1, "types": [{"name": "Spaceship", "next": 1, "fields": []}]});
        let error = load(&mut world, &mut head.to_string().as_bytes()).expect_err("an unknown type");
        assert_eq!(error.to_string(), "line 1: unknown entity type `Spaceship`");
        let head = json!({"sgcache_snapshot": 1, "types": [{"name": "Shot", "next": 1, "fields": ["code"]}]});
        let error = load(&mut world, &mut format!("{head}\n[0,1,false,null,[[7,null]]]\n").as_bytes());
        assert!(error.expect_err("an unknown field").to_string().starts_with("line 2: "));
    }
}
