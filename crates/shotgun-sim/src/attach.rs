//! What an upload means for the rows: an attachment, its links, the field that
//! shows it, and the pictures of entities.
//!
//! A picture makes two entries in the event log: one while it is a placeholder and
//! one when it is made. Both hold the id of its attachment.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cell::{Cell, Key};
use super::event::{Change, Entry};
use super::files::{File, Pending};
use super::schema::FieldId;
use super::write::{Writer, plain};
use shotgun_model::api3::{Create, Fault, UpdateMode};
use shotgun_model::entity::{DataType, EntityType, Timestamp};

/// A file that was uploaded.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its name.
    pub name: String,
    /// What it is.
    pub content_type: String,
    /// What it holds.
    pub bytes: Arc<[u8]>,
    /// What people call it.
    pub display_name: Option<String>,
    /// The names of its tags.
    pub tags: Vec<String>,
    /// When it was made, if that is not now.
    pub created_at: Option<Timestamp>,
}

impl Writer<'_> {
    /// Attaches a file to an entity, and shows it in a field if one is named.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the field does not exist or cannot hold a file.
    pub fn attach(&mut self, entity: Key, field: Option<&str>, file: Incoming) -> Result<Key, Fault> {
        let owner = self.world.layout.ty(entity.ty).name.clone();
        let field = field.map(|name| self.file_field(entity, &owner, name)).transpose()?;
        let attachment = self.attachment(entity, true, file)?;
        match field {
            Some((field, DataType::Url)) => {
                let this_file = self.world.named(attachment, "this_file").clone();
                self.write_value(entity, field, this_file, false);
            }
            Some((field, _)) => drop(self.write_list(entity, field, &[attachment], UpdateMode::Add, false)),
            None => return Ok(attachment),
        }
        self.stamp(entity, ["updated_at"; 1], ["updated_by"; 1]);
        Ok(attachment)
    }

    fn file_field(&self, entity: Key, owner: &EntityType, name: &str) -> Result<(FieldId, DataType), Fault> {
        let field = self.world.layout.field_id(entity.ty, name);
        let field = field.ok_or_else(|| Fault::data("upload", format!("{owner}.{name} doesn't exist")))?;
        let data_type = self.world.layout.field(entity.ty, field).data_type;
        match data_type {
            DataType::Url | DataType::MultiEntity => Ok((field, data_type)),
            _ => Err(Fault::data("upload", format!("{owner}.{name} is not a file field"))),
        }
    }

    /// Makes the attachment of a file.
    fn attachment(&mut self, entity: Key, linked: bool, file: Incoming) -> Result<Key, Fault> {
        let Incoming { name, content_type, bytes, display_name, tags, created_at } = file;
        let reference = |key: Key| serde_json::to_value(self.world.reference(key)).unwrap_or_default();
        let project =
            if self.world.layout.ty(entity.ty).name == "Project" { Some(entity) } else { self.world.project(entity) };
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_owned();
        let mut writes = vec![
            plain("display_name", display_name.unwrap_or_else(|| name.clone()).into()),
            plain("filename", name.clone().into()),
            plain("original_fname", name.clone().into()),
            plain("file_extension", extension.into()),
            plain("file_size", bytes.len().into()),
        ];
        writes.extend(project.map(|project| plain("project", reference(project))));
        writes.extend(linked.then(|| plain("attachment_links", Value::Array(vec![reference(entity)]))));
        writes.extend(created_at.map(|moment| plain("created_at", moment.to_string().into())));
        let tags = tags.iter().map(|tag| self.tag(tag)).collect::<Result<Vec<_>, _>>()?;
        let reference = |key: &Key| serde_json::to_value(self.world.reference(*key)).unwrap_or_default();
        let tags: Vec<Value> = tags.iter().map(reference).collect();
        if !tags.is_empty() {
            writes.push(plain("tags", tags.into()));
        }
        let request = Create { entity_type: EntityType::new("Attachment"), fields: writes, return_fields: Vec::new() };
        let key = self.create(&request, None)?;
        let shown = json!({
            "url": format!("/file_serve/attachment/{}", key.id), "name": name, "content_type": content_type,
            "link_type": "upload", "type": "Attachment", "id": key.id});
        if let Some(field) = self.world.layout.field_id(key.ty, "this_file") {
            self.write_value(key, field, Cell::Json(shown.to_string().into()), true);
        }
        self.world.kept.files.stored.insert(i64::from(key.id), File { name, content_type, bytes });
        Ok(key)
    }

    /// Makes the attachment that stands for a link to the web or to a local file.
    pub(super) fn note_link(&mut self, entity: Key, link: &Cell) -> Result<(), Fault> {
        let Cell::Json(text) = link else { return Ok(()) };
        let shown: Value = serde_json::from_str(text).unwrap_or_default();
        let id = shown["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        // The link of an attachment is its own.
        let (Some(id), false) = (id, self.world.layout.ty(entity.ty).name == "Attachment") else { return Ok(()) };
        let reference = |key: Key| serde_json::to_value(self.world.reference(key)).unwrap_or_default();
        let mut writes = vec![
            plain("display_name", shown["name"].clone()),
            plain("attachment_links", Value::Array(vec![reference(entity)])),
        ];
        writes.extend(self.world.project(entity).map(|project| plain("project", reference(project))));
        let request = Create { entity_type: EntityType::new("Attachment"), fields: writes, return_fields: Vec::new() };
        let key = self.create(&request, Some(id))?;
        if let Some(field) = self.world.layout.field_id(key.ty, "this_file") {
            self.write_value(key, field, link.clone(), true);
        }
        Ok(())
    }

    /// Finds a tag by its name, or makes it.
    fn tag(&mut self, name: &str) -> Result<Key, Fault> {
        let request = Create {
            entity_type: EntityType::new("Tag"),
            fields: vec![plain("name", name.into())],
            return_fields: vec![],
        };
        let Some(ty) = self.world.layout.type_id("Tag") else { return self.create(&request, None) };
        let tags = self.world.table(ty).range(0, u32::MAX).filter(|(_, row)| !row.retired);
        let found =
            tags.map(|(id, _)| Key { ty, id }).find(|tag| self.world.named(*tag, "name").as_text() == Some(name));
        found.map_or_else(|| self.create(&request, None), Ok)
    }

    /// Makes a file the picture of an entity; it is there at `ready_at`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when entities of this type have no such picture.
    pub fn picture(&mut self, entity: Key, field: &str, file: Incoming, ready_at: Timestamp) -> Result<Key, Fault> {
        let field = self.picture_field(entity, field)?;
        let attachment = self.attachment(entity, false, file)?;
        let pending = Pending { ready_at, shown: (entity, field), actor: self.actor.clone() };
        self.show_picture(entity, field, Some(attachment.id), true);
        self.world.kept.files.pending.insert(i64::from(attachment.id), pending);
        Ok(attachment)
    }

    /// Gives an entity the picture that another one has; none clears it.
    ///
    /// # Errors
    ///
    /// As [`Self::picture`].
    pub fn share_picture(&mut self, entity: Key, field: &str, attachment: Option<u32>) -> Result<(), Fault> {
        let field = self.picture_field(entity, field)?;
        self.show_picture(entity, field, attachment, false);
        Ok(())
    }

    /// Makes a placeholder the picture that it stands for.
    pub fn finish_picture(&mut self, attachment: i64) {
        let Some(Pending { shown: (entity, field), .. }) = self.world.kept.files.pending.remove(&attachment) else {
            return;
        };
        // Another request may have changed the picture meanwhile.
        if self.world.cell(entity, field) == &Cell::Int(attachment) {
            self.log_picture(entity, field, Value::Null, attachment.into(), false);
        }
    }

    fn picture_field(&self, entity: Key, name: &str) -> Result<FieldId, Fault> {
        let owner = &self.world.layout.ty(entity.ty).name;
        let field = self.world.layout.field_id(entity.ty, name);
        field.ok_or_else(|| Fault::data("upload", format!("{owner}.{name} doesn't exist")))
    }

    fn show_picture(&mut self, entity: Key, field: FieldId, attachment: Option<u32>, transient: bool) {
        let old = match self.world.cell(entity, field) {
            Cell::Int(old) if !self.world.kept.files.is_pending(*old) => Value::from(*old),
            _ => Value::Null,
        };
        let cell = attachment.map_or(Cell::Null, |id| Cell::Int(i64::from(id)));
        self.world.set(entity, field, cell);
        self.log_picture(entity, field, old, attachment.into(), transient);
        self.stamp(entity, ["updated_at"; 1], ["updated_by"; 1]);
    }

    fn log_picture(&mut self, entity: Key, field: FieldId, old: Value, new: Value, transient: bool) {
        let name = &self.world.layout.field(entity.ty, field).name;
        let change = Change::Value(old, new);
        let entry = Entry::changed(self.world, entity, name, DataType::Image, &change, false);
        self.log(entry.noting("is_transient", transient.into()));
    }
}
