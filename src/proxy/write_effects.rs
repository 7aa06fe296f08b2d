//! What a write may have changed, as far as its request and its answer tell: keys,
//! and the fields of each.
//!
//! Pure. What only the cached rows know (which entities a link leaves behind, what
//! goes along with a retirement) is named here as a [`Lookup`] and found by
//! `effect_lookup`. What nothing but the event log can tell makes the effects
//! [`WriteEffects::unlisted`]: they last until a poll that began after the write.
//!
//! Facts about the site that shape this file:
//!
//! - an update also moves `updated_at` and `updated_by`, and what the site derives
//!   from the written fields of the same entity: names, dates from durations, frame
//!   ranges, and fields that no program may write;
//! - both sides of a link change, also those that nobody named;
//! - a template creates Tasks, and a moved Task moves the ones that depend on it;
//! - a revived entity appears again in every link to it, and so does what is revived
//!   with it: `revival` asks the site for them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::answered_values::{Answered, Part};
use super::catalogue::Catalogue;
use super::written_values::WrittenValues;
use crate::api3::{BatchItem, Create, Delete, FieldWrite, Revive, Update, UpdateMode};
use crate::entity::{DataType, EntityRef, EntityType, Shape};
use crate::schema::display_name_field;

/// The entities of one type that a write may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Any.
    All,
    /// This one and those with higher ids: they did not exist before the write.
    From(i64),
    /// These.
    Only(BTreeSet<i64>),
}

/// The fields that a write may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Any.
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl Fields {
    /// Tells whether the field is among them. An id never changes.
    pub fn touch(&self, field: &str) -> bool {
        match self {
            Self::All => field != "id",
            Self::Only(fields) => fields.contains(field),
        }
    }

    /// Tells whether a field may be among both.
    pub fn meet(&self, others: &Self) -> bool {
        match (self, others) {
            (Self::All, others) => *others != Self::Only(BTreeSet::new()),
            (one, Self::All) => *one != Self::Only(BTreeSet::new()),
            (Self::Only(one), Self::Only(other)) => !one.is_disjoint(other),
        }
    }

    /// Tells whether the display name may have changed.
    pub fn touch_name(&self, entity_type: &EntityType) -> bool {
        self.touch(display_name_field(entity_type)) || NAME_FIELDS.iter().any(|field| self.touch(field))
    }
}

/// What a write may have changed of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The type.
    pub entity_type: EntityType,
    /// Which entities of it.
    pub ids: Ids,
    /// Which fields of them.
    pub fields: Fields,
    /// What is known of the new values.
    pub values: WrittenValues,
    /// Whether they may have appeared or vanished.
    pub lifecycle: bool,
}

impl Effect {
    /// Tells whether an entity is among those that may have changed.
    pub fn touches(&self, key: &EntityRef) -> bool {
        let among = match &self.ids {
            Ids::All => true,
            Ids::From(first) => key.id >= *first,
            Ids::Only(ids) => ids.contains(&key.id),
        };
        key.entity_type == self.entity_type && among
    }
}

/// Something that the cached rows have to be asked, before the write is sent and
/// again after it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Entities of these types that show a link to `key`: the write may take it away.
    LeftBehind {
        /// The entity that was written.
        key: EntityRef,
        /// The types on the other side.
        types: BTreeSet<EntityType>,
    },
    /// Entities that `key` links to: what they show is derived from it.
    Targets {
        /// The entity that was written.
        key: EntityRef,
    },
    /// Entities that are retired together with `key`.
    Cascade {
        /// The entity that is retired.
        key: EntityRef,
    },
    /// Tasks whose dates follow from those of `key`.
    Downstream {
        /// The Task whose dates were written.
        key: EntityRef,
    },
    /// The id from which on entities of a type are new.
    NewIds {
        /// The type.
        entity_type: EntityType,
        /// What is known of the new entities.
        values: WrittenValues,
    },
}

impl Lookup {
    /// The types of the rows that are asked.
    pub fn types(&self, catalogue: &Catalogue) -> BTreeSet<EntityType> {
        match self {
            Self::LeftBehind { key, types } => types.iter().chain([&key.entity_type]).cloned().collect(),
            Self::Targets { .. } => catalogue.stored.types.keys().cloned().collect(),
            Self::Cascade { key } => cascade_of(&key.entity_type).iter().map(|ty| EntityType::new(*ty)).collect(),
            Self::Downstream { key } => [key.entity_type.clone()].into(),
            // What the state knows, no row.
            Self::NewIds { .. } => BTreeSet::new(),
        }
    }
}

/// An entity that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    entity_type: EntityType,
    values: WrittenValues,
    /// Whether it has Tasks from a template.
    has_tasks: bool,
}

/// What a write may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteEffects {
    /// What is known of it.
    pub effects: Vec<Effect>,
    /// What the cached rows have to be asked.
    pub lookups: Vec<Lookup>,
    /// Entities that were created and whose ids the answer tells.
    pub created: Vec<Creation>,
    /// The entity that was revived.
    pub revived: Option<EntityRef>,
    /// What is written, in the order of the answer.
    pub parts: Vec<Part>,
    /// What the answer says of it.
    pub answered: Vec<Answered>,
    /// Whether no answer says what became of the write.
    pub is_unanswered: bool,
    /// Whether only the event log names some of the entities.
    pub unlisted: bool,
    /// Whether anything at all may have changed.
    pub everything: bool,
    /// Whether the schema may have changed.
    pub schema: bool,
}

/// Fields that display names are made of, besides the one that the type has.
const NAME_FIELDS: &[&str] = &["cached_display_name", "name", "firstname", "lastname", "code", "title", "filename"];
/// What a key takes that is waited for: in the effect, and until it is read.
const KEY_BYTES: usize = 64;
/// Fields that every update moves.
const UPDATE_FIELDS: &[&str] = &["updated_at", "updated_by"];
/// Fields that the site sets once.
const CREATION_FIELDS: &[&str] = &["id", "type", "created_at", "created_by"];
/// Fields of a Task whose change moves the Tasks that depend on it.
const SCHEDULE_FIELDS: &[&str] =
    &["start_date", "due_date", "duration", "est_in_mins", "pinned", "milestone", "splits"];
/// Fields of a Task that a template may fill and that something may show from the other
/// side, besides its entity and its neighbours.
const TEMPLATE_LINKS: &[&str] = &["project", "step", "task_assignees", "task_reviewers"];
/// Types of which the entities that they link to show something derived: open notes,
/// logged time, dependencies.
const DERIVED_FROM: &[&str] = &["Note", "Reply", "TimeLog", "TaskDependency"];
/// What is retired and revived with an entity of a type.
pub(super) const CASCADES: &[(&str, &[&str])] = &[
    ("Shot", &["Version", "Task", "TaskDependency"]),
    ("Asset", &["Task", "TaskDependency"]),
    ("Sequence", &["Task", "TaskDependency"]),
    ("Episode", &["Task", "TaskDependency"]),
    ("Scene", &["Task", "TaskDependency"]),
    ("Element", &["Task", "TaskDependency"]),
    ("Level", &["Task", "TaskDependency"]),
    ("Task", &["TaskDependency"]),
    ("TaskTemplate", &["Task", "TaskDependency"]),
];

impl WriteEffects {
    /// Returns the effects of something that nothing here understands.
    pub fn anything() -> Self {
        Self { everything: true, unlisted: true, ..Self::default() }
    }

    /// Returns roughly what is remembered of it until it is visible, in bytes.
    pub fn bytes(&self) -> usize {
        let ids = |effect: &Effect| if let Ids::Only(ids) = &effect.ids { ids.len() } else { 0 };
        let effects =
            self.effects.iter().map(|effect| size_of::<Effect>() + KEY_BYTES * ids(effect) + effect.values.bytes());
        let answered = self.answered.iter().flat_map(|answered| &answered.values);
        effects.sum::<usize>() + answered.map(|(name, value)| name.len() + value.to_string().len()).sum::<usize>()
    }

    /// Leaves only what takes no memory: anything may have changed, and the event log says what.
    pub fn forget_details(&mut self) {
        *self = Self { schema: self.schema, ..Self::anything() };
    }

    /// Returns what a request may change, whatever comes of it.
    pub fn of_request(method: &str, argument: &Value, catalogue: &Catalogue) -> Self {
        let mut effects = Self::default();
        let known = match method {
            "create" => Create::from_wire(argument).map(|create| effects.create(&create, catalogue)),
            "update" => Update::from_wire(argument).map(|update| effects.update(&update, catalogue)),
            "delete" => Delete::from_wire(argument).map(|delete| effects.delete(&delete)),
            "revive" => Revive::from_wire(argument).map(|revive| effects.revive(&revive)),
            "batch" => {
                BatchItem::list(argument).map(|items| items.iter().for_each(|item| effects.item(item, catalogue)))
            }
            _ => {
                effects = Self { schema: method.starts_with("schema_field_"), ..Self::anything() };
                Ok(())
            }
        };
        // The site refuses what cannot be read here, or understands more than we do.
        if known.is_ok() { effects } else { Self::anything() }
    }

    /// Returns what a new file of an entity may have changed.
    pub fn of_upload(key: EntityRef) -> Self {
        let mut effects = Self { unlisted: true, ..Self::default() };
        effects.push(key.entity_type, Ids::Only([key.id].into()), Fields::All, false);
        effects.push(EntityType::new("Attachment"), Ids::All, Fields::All, true);
        effects
    }

    /// Adds the entities that the site says it created. Without an answer nothing
    /// names them but the event log.
    #[must_use]
    pub fn with_results(mut self, results: Option<&Value>) -> Self {
        self.is_unanswered = results.is_none();
        let one = results.map(std::slice::from_ref).unwrap_or_default();
        let items = results.and_then(Value::as_array).map_or(one, Vec::as_slice);
        self.answered = Answered::of(&self.parts, items);
        let returned: Vec<EntityRef> = items.iter().filter_map(EntityRef::from_json).collect();
        for Creation { entity_type, values, has_tasks } in std::mem::take(&mut self.created) {
            let keys: Vec<_> = returned.iter().filter(|key| key.entity_type == entity_type).cloned().collect();
            let is_named = !keys.is_empty();
            if is_named {
                let ids = Ids::Only(keys.iter().map(|key| key.id).collect());
                let effect = Effect { entity_type, ids, fields: Fields::All, values, lifecycle: true };
                self.add(effect);
            } else {
                self.unlisted = true;
                self.lookups.push(Lookup::NewIds { entity_type, values });
            }
            if has_tasks {
                self.tasks_of_template(if is_named { WrittenValues::link("entity", keys) } else { Default::default() });
            }
        }
        self
    }

    /// Returns every entity that the effects name.
    pub fn keys(&self) -> BTreeSet<EntityRef> {
        let listed = self.effects.iter().filter_map(|effect| match &effect.ids {
            Ids::Only(ids) => Some((&effect.entity_type, ids)),
            Ids::All | Ids::From(_) => None,
        });
        let listed = listed.flat_map(|(ty, ids)| ids.iter().map(|id| EntityRef::new(ty.clone(), *id)));
        listed.chain(self.revived.clone()).collect()
    }

    /// Adds an effect, unless it changes nothing.
    pub(super) fn push(&mut self, entity_type: EntityType, ids: Ids, fields: Fields, lifecycle: bool) {
        self.add(Effect { entity_type, ids, fields, values: WrittenValues::default(), lifecycle });
    }

    /// As [`Self::push`].
    pub(super) fn add(&mut self, effect: Effect) {
        let nothing = matches!(&effect.fields, Fields::Only(fields) if fields.is_empty()) && !effect.lifecycle;
        if !nothing && !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    fn item(&mut self, item: &BatchItem, catalogue: &Catalogue) {
        match item {
            BatchItem::Create(create) => self.create(create, catalogue),
            BatchItem::Update(update) => self.update(update, catalogue),
            BatchItem::Delete(delete) => self.delete(delete),
        }
    }

    /// Notes a creation.
    pub(super) fn create(&mut self, create: &Create, catalogue: &Catalogue) {
        let entity_type = create.entity_type.clone();
        let values = WrittenValues::of(&entity_type, &create.fields, catalogue);
        let has_tasks = has_template(&create.fields);
        self.parts.push(Part::Created);
        self.created.push(Creation { entity_type, values, has_tasks });
        for field in &create.fields {
            self.link(&create.entity_type, None, field, catalogue);
        }
        if has_tasks {
            self.linked_by_template(catalogue);
        }
    }

    /// Notes an update.
    pub(super) fn update(&mut self, update: &Update, catalogue: &Catalogue) {
        let ty = &update.entity_type;
        let key = EntityRef::new(ty.clone(), update.id);
        self.parts.push(Part::Updated);
        let written: BTreeSet<&str> = update.fields.iter().map(|field| field.field.as_str()).collect();
        let (ids, fields) = (Ids::Only([update.id].into()), Fields::Only(touched(ty, &written, catalogue)));
        let values = WrittenValues::of(ty, &update.fields, catalogue);
        self.add(Effect { entity_type: ty.clone(), ids, fields, values, lifecycle: false });
        for field in &update.fields {
            self.link(ty, Some(&key), field, catalogue);
        }
        if *ty == *"Task" && written.iter().any(|field| SCHEDULE_FIELDS.contains(field)) {
            self.lookups.push(Lookup::Downstream { key: key.clone() });
        }
        self.derived(&key);
        if has_template(&update.fields) {
            let shown = Fields::Only(link_fields(ty, &EntityType::new("Task"), catalogue));
            self.push(ty.clone(), Ids::Only([update.id].into()), shown, false);
            self.tasks_of_template(WrittenValues::link("entity", [key]));
            self.linked_by_template(catalogue);
        }
    }

    /// Notes a retirement. Links to a retired entity vanish with its own row, so only
    /// what is retired along is looked for.
    pub(super) fn delete(&mut self, delete: &Delete) {
        let key = EntityRef::new(delete.entity_type.clone(), delete.id);
        self.parts.push(Part::Retired(key.clone()));
        self.push(key.entity_type.clone(), Ids::Only([key.id].into()), Fields::Only(BTreeSet::new()), true);
        if !cascade_of(&key.entity_type).is_empty() {
            self.lookups.push(Lookup::Cascade { key: key.clone() });
        }
        self.derived(&key);
    }

    /// Notes a revival: rows that were read while the entity was retired lack the link
    /// to it, so only the site can name them.
    pub(super) fn revive(&mut self, revive: &Revive) {
        let key = EntityRef::new(revive.entity_type.clone(), revive.id);
        self.parts.push(Part::Revived(key.clone()));
        self.derived(&key);
        self.revived = Some(key);
    }

    /// Notes everything that a revival may have changed, where the site did not name it:
    /// it lasts until the event log has.
    pub(super) fn revive_unlisted(&mut self, key: &EntityRef, catalogue: &Catalogue) {
        let ty = &key.entity_type;
        self.unlisted = true;
        self.push(ty.clone(), Ids::Only([key.id].into()), Fields::All, true);
        let mut revived = vec![ty.clone()];
        for child in cascade_of(ty) {
            let child = EntityType::new(child);
            self.push(child.clone(), Ids::All, Fields::All, true);
            revived.push(child);
        }
        for target in revived {
            self.holders(&target, catalogue);
        }
    }

    /// Notes every cached row that may show a link to entities of a type.
    fn holders(&mut self, target: &EntityType, catalogue: &Catalogue) {
        for holder in catalogue.stored.types.keys() {
            self.push(holder.clone(), Ids::All, Fields::Only(link_fields(holder, target, catalogue)), false);
        }
    }

    fn derived(&mut self, key: &EntityRef) {
        if DERIVED_FROM.contains(&key.entity_type.as_str()) || key.entity_type.is_connection() {
            self.lookups.push(Lookup::Targets { key: key.clone() });
        }
    }

    /// A template creates Tasks, whose ids no answer tells.
    fn tasks_of_template(&mut self, values: WrittenValues) {
        self.unlisted = true;
        self.lookups.push(Lookup::NewIds { entity_type: EntityType::new("Task"), values });
    }

    /// Notes what the Tasks of a template link to, which may show them.
    fn linked_by_template(&mut self, catalogue: &Catalogue) {
        let task = EntityType::new("Task");
        let linked = TEMPLATE_LINKS.iter().filter_map(|field| catalogue.schema.field(&task, field));
        let types: BTreeSet<_> = linked.flat_map(|field| &field.valid_types).collect();
        for ty in types {
            self.push(ty.clone(), Ids::All, other_side(ty, &task, catalogue), false);
        }
    }

    /// Notes the other sides of a link that is written: those named, and, where
    /// something is taken away, those that the cached rows know. `key` is the entity
    /// that is written, `None` where it is new.
    fn link(&mut self, ty: &EntityType, key: Option<&EntityRef>, field: &FieldWrite, catalogue: &Catalogue) {
        let Some(schema) = catalogue.schema.field(ty, &field.field) else { return };
        if !matches!(schema.data_type.shape(), Shape::Link | Shape::Links) {
            return;
        }
        let one = std::slice::from_ref(&field.value);
        for target in field.value.as_array().map_or(one, Vec::as_slice).iter().filter_map(EntityRef::from_json) {
            let fields = other_side(&target.entity_type, ty, catalogue);
            self.push(target.entity_type, Ids::Only([target.id].into()), fields, false);
        }
        if let Some(key) = key.filter(|_| field.mode != UpdateMode::Add) {
            let every: Vec<_> = catalogue.stored.types.keys().cloned().collect();
            let valid = if schema.valid_types.is_empty() { &every } else { &schema.valid_types };
            let types: BTreeSet<_> =
                valid.iter().filter(|target| !link_fields(target, ty, catalogue).is_empty()).cloned().collect();
            if !types.is_empty() {
                self.lookups.push(Lookup::LeftBehind { key: key.clone(), types });
            }
        }
    }
}

fn has_template(fields: &[FieldWrite]) -> bool {
    fields.iter().any(|field| field.field == "task_template" && !field.value.is_null())
}

/// Returns the types that are retired and revived with entities of a type.
pub(super) fn cascade_of(entity_type: &EntityType) -> &'static [&'static str] {
    CASCADES.iter().find(|(ty, _)| *ty == entity_type.as_str()).map_or(&[], |(_, types)| types)
}

/// Returns the fields that the site may change when these are written.
pub(super) fn touched(ty: &EntityType, written: &BTreeSet<&str>, catalogue: &Catalogue) -> BTreeSet<String> {
    let mut fields: BTreeSet<String> = written.iter().chain(UPDATE_FIELDS).map(|field| (*field).to_owned()).collect();
    fields.extend(derived_fields(ty, catalogue));
    if written.iter().any(|field| *field == display_name_field(ty) || NAME_FIELDS.contains(field)) {
        fields.insert(display_name_field(ty).to_owned());
        fields.extend(NAME_FIELDS.iter().map(|field| (*field).to_owned()));
    }
    // Dates follow from durations, frame ranges from cuts, and the other way round.
    let measures = |field: &str| catalogue.schema.field(ty, field).is_some_and(|schema| is_measure(schema.data_type));
    if written.iter().any(|field| measures(field)) {
        let stored = catalogue.stored.types.get(ty).into_iter().flat_map(|cached| &cached.fields);
        let measured = stored.filter(|(_, data_type)| is_measure(**data_type)).map(|(name, _)| name.to_string());
        fields.extend(measured.filter(|field| !CREATION_FIELDS.contains(&field.as_str())));
    }
    fields
}

fn is_measure(data_type: DataType) -> bool {
    matches!(
        data_type,
        DataType::Date
            | DataType::DateTime
            | DataType::Duration
            | DataType::Number
            | DataType::Float
            | DataType::Percent
            | DataType::Timecode
    )
}

/// Returns the cached fields that programs cannot write: the site derives them.
fn derived_fields(ty: &EntityType, catalogue: &Catalogue) -> BTreeSet<String> {
    let stored = catalogue.stored.types.get(ty).into_iter().flat_map(|cached| &cached.fields);
    let derived = stored.filter(|(name, _)| {
        let editable = catalogue.schema.field(ty, name).is_none_or(|schema| schema.editable);
        !editable && !CREATION_FIELDS.contains(&name.as_str())
    });
    derived.map(|(name, _)| name.to_string()).collect()
}

/// Returns what changes of an entity when a link between it and one of type `ty`
/// does: the fields that show the link, and what is derived from them. Nothing where
/// no cached field shows it.
pub(super) fn other_side(holder: &EntityType, ty: &EntityType, catalogue: &Catalogue) -> Fields {
    // Both ends of a connection show each other, not the connection.
    if ty.is_connection() {
        return Fields::All;
    }
    let mut fields = link_fields(holder, ty, catalogue);
    if !fields.is_empty() || DERIVED_FROM.contains(&ty.as_str()) {
        fields.extend(derived_fields(holder, catalogue));
        fields.extend(UPDATE_FIELDS.iter().map(|field| (*field).to_owned()));
    }
    Fields::Only(fields)
}

/// Returns the cached fields of `holder` that may link to entities of `target`.
pub(super) fn link_fields(holder: &EntityType, target: &EntityType, catalogue: &Catalogue) -> BTreeSet<String> {
    let stored = catalogue.stored.types.get(holder).into_iter().flat_map(|cached| &cached.fields);
    let links = stored.filter(|(name, data_type)| {
        let may_link = |valid: &Vec<EntityType>| valid.is_empty() || valid.contains(target);
        matches!(data_type.shape(), Shape::Link | Shape::Links)
            && catalogue.schema.field(holder, name).is_none_or(|field| may_link(&field.valid_types))
    });
    links.map(|(name, _)| name.to_string()).collect()
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
