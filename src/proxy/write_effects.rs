//! What a write may have changed, as far as its request and its answer tell.
//!
//! Pure. The keys that a write names are marked; the types that it may have
//! changed are held until a poll of the event log that began after the write was
//! acknowledged has seen everything. The event log tells the rest: what a template
//! created, which side of a link was left behind.

use std::collections::BTreeSet;

use serde_json::Value;

use super::catalogue::Catalogue;
use crate::api3::{BatchItem, Create, Delete, FieldWrite, Revive, Update, UpdateMode};
use crate::entity::{EntityRef, EntityType, Shape};
use crate::schema::{dependencies_on, display_name_field};

/// What a write may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteEffects {
    /// Entities that it named or returned.
    pub keys: BTreeSet<EntityRef>,
    /// Types whose rows it may have changed.
    pub rows: BTreeSet<EntityType>,
    /// Types whose display names, or whose retirements, it may have changed.
    pub names: BTreeSet<EntityType>,
    /// Whether it may have changed anything.
    pub all: bool,
    /// Whether it may have changed the schema.
    pub schema: bool,
}

/// Fields that display names are made of, besides the one that the type has.
const NAME_FIELDS: &[&str] = &["cached_display_name", "name", "firstname", "lastname", "code", "title", "filename"];

impl WriteEffects {
    /// Returns the effects of something that nobody understands.
    pub fn anything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Returns what a request may change, whatever comes of it.
    pub fn of_request(method: &str, argument: &Value, catalogue: &Catalogue) -> Self {
        let mut effects = Self::default();
        let known = match method {
            "create" => Create::from_wire(argument).map(|create| effects.create(&create, catalogue)),
            "update" => Update::from_wire(argument).map(|update| effects.update(&update, catalogue)),
            "delete" => Delete::from_wire(argument).map(|delete| effects.end(delete.entity_type, delete.id)),
            "revive" => Revive::from_wire(argument).map(|revive| effects.end(revive.entity_type, revive.id)),
            "batch" => {
                BatchItem::list(argument).map(|items| items.iter().for_each(|item| effects.item(item, catalogue)))
            }
            _ => {
                effects = Self { all: true, schema: method.starts_with("schema_field_"), ..Self::default() };
                Ok(())
            }
        };
        // The site refuses what cannot be read here, or understands more than we do.
        if known.is_ok() { effects } else { Self::anything() }
    }

    /// Adds the keys that the site returned.
    #[must_use]
    pub fn with_results(mut self, results: &Value) -> Self {
        match results {
            Value::Array(items) => items.iter().for_each(|item| self.keys.extend(EntityRef::from_json(item))),
            other => self.keys.extend(EntityRef::from_json(other)),
        }
        self
    }

    /// Returns what a new file of an entity may have changed.
    pub fn of_upload(key: EntityRef) -> Self {
        let rows = [key.entity_type.clone(), EntityType::new("Attachment")].into();
        Self { keys: [key].into(), rows, ..Self::default() }
    }

    fn item(&mut self, item: &BatchItem, catalogue: &Catalogue) {
        match item {
            BatchItem::Create(create) => self.create(create, catalogue),
            BatchItem::Update(update) => self.update(update, catalogue),
            BatchItem::Delete(delete) => self.end(delete.entity_type.clone(), delete.id),
        }
    }

    fn create(&mut self, create: &Create, catalogue: &Catalogue) {
        self.rows.insert(create.entity_type.clone());
        for field in &create.fields {
            self.field(&create.entity_type, field, false, catalogue);
        }
    }

    fn update(&mut self, update: &Update, catalogue: &Catalogue) {
        let ty = &update.entity_type;
        self.rows.insert(ty.clone());
        self.keys.insert(EntityRef::new(ty.clone(), update.id));
        for field in &update.fields {
            let name = field.field.as_str();
            if name == display_name_field(ty) || NAME_FIELDS.contains(&name) {
                self.names.insert(ty.clone());
            }
            self.field(ty, field, field.mode != UpdateMode::Add, catalogue);
        }
    }

    /// A retirement or a revival takes other entities along, and links to them.
    fn end(&mut self, entity_type: EntityType, id: i64) {
        self.keys.insert(EntityRef::new(entity_type, id));
        self.all = true;
    }

    /// Notes the other sides of a link that is written: those named, and, where
    /// something is taken away, those that nobody names.
    fn field(&mut self, ty: &EntityType, field: &FieldWrite, takes_away: bool, catalogue: &Catalogue) {
        if field.field == "task_template" {
            self.rows.insert(EntityType::new("Task"));
        }
        for dependency in dependencies_on(ty, &field.field) {
            let cached = catalogue.stored.types.iter();
            let derived = cached.filter(|(_, cached)| cached.data_type(dependency.field).is_some());
            self.rows.extend(derived.map(|(holder, _)| holder.clone()));
        }
        let Some(schema) = catalogue.schema.field(ty, &field.field) else { return };
        if !matches!(schema.data_type.shape(), Shape::Link | Shape::Links) {
            return;
        }
        let one = std::slice::from_ref(&field.value);
        let named = field.value.as_array().map_or(one, Vec::as_slice).iter().filter_map(EntityRef::from_json);
        for target in named.filter(|target| shows(&target.entity_type, ty, catalogue)) {
            self.rows.insert(target.entity_type.clone());
            self.keys.insert(target);
        }
        if takes_away {
            let every: Vec<_> = catalogue.stored.types.keys().cloned().collect();
            let valid = if schema.valid_types.is_empty() { &every } else { &schema.valid_types };
            self.rows.extend(valid.iter().filter(|target| shows(target, ty, catalogue)).cloned());
        }
    }
}

/// Tells whether cached rows of `holder` may show a link to entities of `target`.
fn shows(holder: &EntityType, target: &EntityType, catalogue: &Catalogue) -> bool {
    let Some(cached) = catalogue.stored.types.get(holder) else { return false };
    let mut links =
        cached.fields.iter().filter(|(_, data_type)| matches!(data_type.shape(), Shape::Link | Shape::Links));
    links.any(|(name, _)| {
        let field = catalogue.schema.field(holder, name);
        field.is_none_or(|field| field.valid_types.is_empty() || field.valid_types.contains(target))
    })
}

/// Finds the entity of an upload in the beginning of its form: one of parts, or
/// one of `key=value`.
pub fn upload_target(form: &[u8]) -> Option<EntityRef> {
    let text = String::from_utf8_lossy(form);
    let value = |name: &str| {
        let part = text.split_once(&format!("name=\"{name}\"\r\n")).map(|(_, rest)| rest);
        let in_parts = part.and_then(|rest| rest.split_once("\r\n").map(|(_, rest)| rest)?.split("\r\n").next());
        let in_pairs = || text.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        in_parts.or_else(in_pairs).map(str::to_owned)
    };
    let (ty, id) = (value("entity_type")?, value("entity_id")?.parse().ok()?);
    let plain = !ty.is_empty() && ty.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then(|| EntityRef::new(ty.as_str(), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entity_of_an_upload_is_in_its_form() {
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let form = part("script_key", "x") + &part("entity_type", "Version") + &part("entity_id", "12") + "--b";
        assert_eq!(upload_target(form.as_bytes()), Some(EntityRef::new("Version", 12)));
        assert_eq!(upload_target(b"a=b&entity_type=Shot&entity_id=3"), Some(EntityRef::new("Shot", 3)));
        assert_eq!(upload_target(b"entity_id=3"), None);
    }
}
