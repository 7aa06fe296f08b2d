//! Writes rows as the JSON of an answer, straight from the stored cells.
//!
//! An import asks for a million rows; a tree of values for each would cost more
//! than finding them.

use std::io::Write;
use std::sync::atomic::Ordering;

use super::cell::{Cell, Key};
use super::schema::{FieldId, Role, TypeId};
use super::upload::PLACEHOLDER;
use super::world::World;
use shotgun_model::entity::{DataType, EntityType};

/// One field of an answer.
#[derive(Clone, Debug)]
pub struct Column {
    /// The name as it is written: `"code":`.
    label: String,
    /// The links to follow, with the type that each must lead to.
    hops: Vec<(FieldId, TypeId)>,
    /// The type that holds the field.
    ty: TypeId,
    field: FieldId,
    /// Whether everybody sees a value of their own.
    personal: bool,
}

/// Makes the columns of an answer: fields that exist, each once, without `type`
/// and `id`, which every row has. What the site never answers is left out.
pub fn columns(world: &World, ty: TypeId, names: &[String]) -> Vec<Column> {
    let owner = &world.layout.ty(ty).name;
    let mut columns: Vec<Column> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if !names[..index].contains(name) {
            columns.extend(column(world, ty, owner, name));
        }
    }
    columns
}

fn column(world: &World, ty: TypeId, owner: &EntityType, name: &str) -> Option<Column> {
    if matches!(name, "type" | "id") {
        return None;
    }
    let path = world.schema.path(owner, name)?;
    if path.is_multi() {
        return None;
    }
    let mut here = ty;
    let mut hops = Vec::new();
    for hop in &path.hops {
        let next = world.layout.type_id(hop.entity_type.as_str())?;
        hops.push((world.layout.field_id(here, &hop.field)?, next));
        here = next;
    }
    let field = world.layout.field_id(here, &path.field)?;
    let served = world.layout.field(here, field).role != Role::Unserved;
    let personal = path.field == "last_accessed_by_current_user" && world.layout.ty(here).name == "Project";
    let label = format!("{}:", serde_json::Value::from(name));
    served.then_some(Column { label, hops, ty: here, field, personal })
}

/// Writes rows of one answer.
pub struct Encoder<'w> {
    world: &'w World,
    /// Whether links say that they are valid, as in the answers of writes.
    valid: bool,
    /// Who asks.
    viewer: Option<Key>,
}

impl<'w> Encoder<'w> {
    /// Makes the encoder of `read`.
    pub fn new(world: &'w World) -> Self {
        Self { world, valid: false, viewer: None }
    }

    /// Shows what this person sees.
    pub fn seen_by(self, viewer: Option<Key>) -> Self {
        Self { viewer, ..self }
    }

    /// Makes the encoder of `update` and of groups.
    pub fn with_valid_links(world: &'w World) -> Self {
        Self { world, valid: true, viewer: None }
    }

    /// Writes a row as an object.
    pub fn row(&self, out: &mut Vec<u8>, key: Key, columns: &[Column]) {
        out.push(b'{');
        for column in columns {
            out.extend_from_slice(column.label.as_bytes());
            match self.reach(key, column) {
                Some(row) if column.personal => self.accessed(out, row),
                Some(row) => self.field(out, row, column.ty, column.field),
                None => out.extend_from_slice(b"null"),
            }
            out.push(b',');
        }
        self.identity(out, key);
        out.push(b'}');
    }

    /// Writes when the viewer was last in a project.
    fn accessed(&self, out: &mut Vec<u8>, project: Key) {
        let moment = self.viewer.and_then(|viewer| self.world.kept.accesses.get(&(project, viewer)));
        json(out, &moment);
    }

    fn identity(&self, out: &mut Vec<u8>, key: Key) {
        let name = self.world.layout.ty(key.ty).name.as_str();
        let _ = write!(out, "\"id\":{},\"type\":\"{name}\"", key.id);
    }

    fn reach(&self, key: Key, column: &Column) -> Option<Key> {
        let mut here = key;
        for (field, ty) in &column.hops {
            here = *self.world.links(here, *field).first()?;
            if here.ty != *ty || !self.world.is_active(here) {
                return None;
            }
        }
        Some(here)
    }

    /// Writes the value of a field.
    pub fn field(&self, out: &mut Vec<u8>, key: Key, ty: TypeId, field: FieldId) {
        let info = self.world.layout.field(ty, field);
        match (&info.role, info.data_type) {
            (Role::Stored | Role::Back(..), DataType::Entity) => match self.world.links(key, field).first() {
                Some(target) if self.world.is_active(*target) => self.link(out, *target),
                _ => out.extend_from_slice(b"null"),
            },
            (_, DataType::MultiEntity | DataType::Addressing) => self.list(out, &self.world.links(key, field)),
            (Role::Secret, DataType::Password) => out.extend_from_slice(b"\"*******\""),
            (Role::Stored, data_type) => self.cell(out, self.world.cell(key, field), data_type),
            _ => json(out, &self.world.value(key, field).to_json()),
        }
    }

    fn cell(&self, out: &mut Vec<u8>, cell: &Cell, data_type: DataType) {
        match cell {
            Cell::Null if data_type == DataType::Checkbox => out.extend_from_slice(b"false"),
            Cell::Null if data_type == DataType::TagList => out.extend_from_slice(b"[]"),
            Cell::Null | Cell::Link(_) | Cell::Links(_) => out.extend_from_slice(b"null"),
            Cell::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Cell::Int(attachment) if data_type == DataType::Image => self.image(out, *attachment),
            Cell::Int(number) => drop(write!(out, "{number}")),
            Cell::Float(number) => json(out, number),
            Cell::Text(text) => json(out, text),
            Cell::Date(day) => drop(write!(out, "\"{day}\"")),
            Cell::Moment(moment) => drop(write!(out, "\"{moment}\"")),
            Cell::Json(text) if data_type == DataType::Url => self.address(out, text),
            Cell::Json(text) => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// Writes a link to an active row.
    pub fn link(&self, out: &mut Vec<u8>, key: Key) {
        let _ = write!(out, "{{\"id\":{},\"name\":", key.id);
        match self.world.display_name(key) {
            Some(name) => json(out, &*name),
            None => out.extend_from_slice(b"null"),
        }
        let _ = write!(out, ",\"type\":\"{}\"", self.world.layout.ty(key.ty).name);
        out.extend_from_slice(if self.valid { b",\"valid\":\"valid\"}" } else { b"}" });
    }

    fn list(&self, out: &mut Vec<u8>, keys: &[Key]) {
        out.push(b'[');
        let mut first = true;
        for key in keys.iter().filter(|key| self.world.is_active(**key)) {
            if !first {
                out.push(b',');
            }
            first = false;
            self.link(out, *key);
        }
        out.push(b']');
    }

    /// Writes a file or link; those of the site's own files begin with its host.
    fn address(&self, out: &mut Vec<u8>, text: &str) {
        match text.split_once("\"url\":\"/") {
            Some((before, after)) => drop(write!(out, "{before}\"url\":\"{}/{after}", self.world.media_host)),
            None => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// An address that is signed anew at every read, so that two reads of one
    /// picture are not equal.
    fn image(&self, out: &mut Vec<u8>, attachment: i64) {
        if self.world.kept.files.is_pending(attachment) {
            return json(out, &format!("{}{PLACEHOLDER}", self.world.media_host));
        }
        let signature = self.world.signatures.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let host = &self.world.media_host;
        let _ =
            write!(out, "\"{host}/thumbnails/{attachment}.jpg?X-Amz-Expires=900&X-Amz-Signature={signature:016x}\"");
    }
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing to memory cannot fail, and what is written is always JSON.
    let _ = serde_json::to_writer(out, value);
}
