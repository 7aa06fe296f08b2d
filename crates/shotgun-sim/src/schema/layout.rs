//! Numbers for types and fields, and what the site knows about each field.
//!
//! Rows hold field numbers instead of names; a million rows with names in each
//! would not fit.

use std::collections::HashMap;

use super::standard::{Pair, StandardError};
use shotgun_model::entity::{DataType, EntityType, Shape};
use shotgun_model::schema::{Schema, display_name_field};

/// The number of an entity type.
pub type TypeId = u16;
/// The number of a field within its type.
pub type FieldId = u16;

/// Where the value of a field comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is stored in the row.
    Stored,
    /// It is the list of rows of that type that point here through that field.
    Back(TypeId, FieldId),
    /// It is the id of the row.
    Id,
    /// It is the display name of the row.
    DisplayName,
    /// The notes of the row that are open, or their number.
    OpenNotes,
    /// It is stored and never shown.
    Secret,
    /// The site lists it in its schema and never answers it.
    Unserved,
}

/// The connection type that shows a many-to-many link as rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The connection type.
    pub entity_type: TypeId,
    /// Its link to the row that stores the list.
    pub near: FieldId,
    /// Its link to the element of the list.
    pub far: FieldId,
}

/// One field of a type.
#[derive(Clone, Debug)]
pub struct FieldInfo {
    /// The name.
    pub name: String,
    /// The data type.
    pub data_type: DataType,
    /// Where its value comes from.
    pub role: Role,
    /// Whether the site keeps a list of who points where through this link.
    pub indexed: bool,
    /// The other sides of this link, by type of target.
    pub inverses: Vec<(TypeId, FieldId)>,
    /// The connection rows that mirror this list.
    pub connection: Option<Connection>,
}

/// One entity type.
#[derive(Clone, Debug)]
pub struct TypeInfo {
    /// The name.
    pub name: EntityType,
    /// Its fields, by number.
    pub fields: Vec<FieldInfo>,
    by_name: HashMap<String, FieldId>,
    /// The field that holds the display name.
    pub display: Option<FieldId>,
    /// The link to the project.
    pub project: Option<FieldId>,
    /// Whether a project must be given in `create`.
    pub needs_project: bool,
}

/// Every type of the site.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The types, sorted by name.
    pub types: Vec<TypeInfo>,
    by_name: HashMap<EntityType, TypeId>,
}

/// Project types whose rows may live without a project.
const PROJECT_OPTIONAL: [&str; 6] =
    ["EventLogEntry", "Page", "Attachment", "PipelineConfiguration", "FilesystemLocation", "ActionMenuItem"];

/// Links that are not followed backwards; their lists would be as long as the site.
const NOT_INDEXED: [&str; 3] = ["created_by", "updated_by", "image_source_entity"];

impl Layout {
    pub(super) fn new(schema: &Schema, pairs: &[Pair]) -> Result<Self, StandardError> {
        let mut layout = Self::default();
        for (index, (name, entity)) in schema.types.iter().enumerate() {
            layout.by_name.insert(name.clone(), index as TypeId);
            let fields: Vec<_> = entity.fields.iter().map(|(field, info)| plain(name, field, info.data_type)).collect();
            let by_name: HashMap<_, _> =
                fields.iter().enumerate().map(|(i, f)| (f.name.clone(), i as FieldId)).collect();
            let project = by_name.get("project").copied();
            let optional = PROJECT_OPTIONAL.contains(&name.as_str()) || name.is_connection();
            layout.types.push(TypeInfo {
                name: name.clone(),
                display: by_name.get(display_name_field(name)).copied(),
                project,
                needs_project: project.is_some() && !optional,
                fields,
                by_name,
            });
        }
        for pair in pairs {
            layout.join(schema, pair).ok_or_else(|| StandardError {
                line: 0,
                message: format!("no such pair: {}.{} {:?}", pair.stored.0, pair.stored.1, pair.derived),
            })?;
        }
        Ok(layout)
    }

    /// Marks the two sides of a link; `None` when a type or field is missing.
    fn join(&mut self, schema: &Schema, pair: &Pair) -> Option<()> {
        let (owner, stored) = (self.type_id(&pair.stored.0)?, &pair.stored.1);
        let stored = self.field_id(owner, stored)?;
        if let Some((ty, near, far)) = &pair.connection {
            let entity_type = self.type_id(ty)?;
            let (near, far) = (self.field_id(entity_type, near)?, self.field_id(entity_type, far)?);
            self.field_mut(owner, stored).connection = Some(Connection { entity_type, near, far });
        }
        let Some((other, field)) = &pair.derived else {
            return Some(());
        };
        let targets: Vec<TypeId> = if other == "*" {
            let valid = &schema.field(&EntityType::new(&pair.stored.0), &pair.stored.1)?.valid_types;
            valid.iter().filter_map(|ty| self.type_id(ty.as_str())).collect()
        } else {
            vec![self.type_id(other)?]
        };
        for target in targets {
            let Some(back) = self.field_id(target, field) else { continue };
            // A pair that names its types was written first and wins.
            if self.field(target, back).role == Role::Stored {
                self.field_mut(target, back).role = Role::Back(owner, stored);
                self.field_mut(owner, stored).inverses.push((target, back));
            }
        }
        (!self.field(owner, stored).inverses.is_empty()).then_some(())
    }

    /// Returns the number of a type.
    pub fn type_id(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// Returns a type.
    pub fn ty(&self, ty: TypeId) -> &TypeInfo {
        &self.types[usize::from(ty)]
    }

    /// Returns the number of a field.
    pub fn field_id(&self, ty: TypeId, name: &str) -> Option<FieldId> {
        self.ty(ty).by_name.get(name).copied()
    }

    /// Returns a field.
    pub fn field(&self, ty: TypeId, field: FieldId) -> &FieldInfo {
        &self.types[usize::from(ty)].fields[usize::from(field)]
    }

    /// Adds a field, after those that are there.
    pub fn add_field(&mut self, ty: TypeId, name: &str, data_type: DataType) {
        let info = &mut self.types[usize::from(ty)];
        let field = plain(&info.name, name, data_type);
        info.by_name.insert(name.to_owned(), info.fields.len() as FieldId);
        info.fields.push(field);
    }

    /// Takes away the name of a field. Its number stays, as rows may hold it.
    pub fn remove_field(&mut self, ty: TypeId, name: &str) {
        self.types[usize::from(ty)].by_name.remove(name);
    }

    /// Exchanges the two links of a connection type in every list that it shows.
    pub fn turn_connection(&mut self, entity_type: TypeId) {
        let fields = self.types.iter_mut().flat_map(|info| &mut info.fields);
        for connection in fields.filter_map(|field| field.connection.as_mut()) {
            if connection.entity_type == entity_type {
                std::mem::swap(&mut connection.near, &mut connection.far);
            }
        }
    }

    fn field_mut(&mut self, ty: TypeId, field: FieldId) -> &mut FieldInfo {
        &mut self.types[usize::from(ty)].fields[usize::from(field)]
    }
}

fn plain(entity_type: &EntityType, name: &str, data_type: DataType) -> FieldInfo {
    let role = match (name, data_type) {
        ("id", _) => Role::Id,
        ("cached_display_name", _) => Role::DisplayName,
        ("open_notes" | "open_notes_count", _) => Role::OpenNotes,
        ("salted_password", _) | (_, DataType::Password) => Role::Secret,
        (_, DataType::PivotColumn | DataType::Jsonb) => Role::Unserved,
        _ => Role::Stored,
    };
    let link = matches!(data_type.shape(), Shape::Link | Shape::Links);
    let log = *entity_type == "EventLogEntry";
    FieldInfo {
        name: name.to_owned(),
        data_type,
        indexed: link && role == Role::Stored && !log && !NOT_INDEXED.contains(&name),
        role,
        inverses: Vec::new(),
        connection: None,
    }
}
