//! An entity config checked against the schema of the site.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{EntityConfigFile, FieldConfig};
use crate::entity::{DataType, EntityType, RowHash, row_hash};
use crate::filter::{FieldPath, Filter, RawFilter};
use crate::schema::{Derivation, Schema};

/// What is cached of one entity type, and how its rows look.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeLayout {
    /// The type.
    pub entity_type: EntityType,
    /// The cached fields, sorted by name, without `type` and `id`. `updated_at`
    /// and `cached_display_name` are always among them where the site has them.
    pub fields: Arc<[LayoutField]>,
    /// Which entities are cached.
    pub filter: Filter,
    /// The same filter for the wire.
    pub raw_filter: RawFilter,
    /// Changes when the fields, their data types, the hints or the filter change.
    pub hash: String,
}

/// One cached field.
#[derive(Clone, Debug, PartialEq)]
pub struct LayoutField {
    /// The name of the field.
    pub name: String,
    /// Its data type.
    pub data_type: DataType,
    /// The types that a link in it may point to.
    pub valid_types: Vec<EntityType>,
    /// A user's Elasticsearch mapping in place of ours.
    pub mapping: Option<Value>,
}

/// The type that is never cached as an ordinary one.
pub(super) const EVENT_LOG: &str = "EventLogEntry";

/// Says why the event log cannot be an entity config.
pub(super) fn event_log_problem() -> String {
    format!(
        "`{EVENT_LOG}` cannot be cached: it is the log that the cache follows, and no entry is about a new entry, so \
         every answer would lack the newest ones; reads of it go to the site. Remove the file"
    )
}

/// Something in an entity config that the site does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct LayoutProblem {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, with the nearest name that exists.
    pub message: String,
}

impl TypeLayout {
    /// Returns the configured fields that are left out of the layout, because the site
    /// derives them from other entities without an event.
    pub fn derived_fields(file: &EntityConfigFile, schema: &Schema) -> Vec<LayoutProblem> {
        let Some(entity) = schema.entity(&file.entity_type) else { return Vec::new() };
        let names = file.config.fields.keys().filter(|name| entity.derivation(name) == Some(Derivation::Unannounced));
        let problem = |name: &String| LayoutProblem {
            path: file.path.display().to_string(),
            line: file.line_of(name),
            message: format!(
                "{}.{name} is not cached: the site derives it from other entities and writes no event when it changes; \
                 requests for it go to the site",
                file.entity_type
            ),
        };
        names.map(problem).collect()
    }

    /// Returns what the site lacks of a config that is `optional`: the type, or fields.
    pub fn lacking_fields(file: &EntityConfigFile, schema: &Schema) -> Vec<LayoutProblem> {
        let problem = |word: &str, what: String| LayoutProblem {
            path: file.path.display().to_string(),
            line: file.line_of(word),
            message: format!("the site has no {what}: it is not cached"),
        };
        match schema.entity(&file.entity_type) {
            _ if !file.config.optional => Vec::new(),
            None => vec![problem("", format!("entity type `{}`", file.entity_type))],
            Some(entity) => {
                let names = file.config.fields.keys().filter(|name| !entity.fields.contains_key(*name));
                names.map(|name| problem(name, format!("field `{}.{name}`", file.entity_type))).collect()
            }
        }
    }

    /// Tells whether a config is `optional` and the site does not have its type.
    pub fn is_left_out(file: &EntityConfigFile, schema: &Schema) -> bool {
        file.config.optional && schema.entity(&file.entity_type).is_none()
    }

    /// Checks a config against the schema. Fields that the site derives from other
    /// entities are left out ([`TypeLayout::derived_fields`]), and those that the site
    /// lacks where the config is `optional` ([`TypeLayout::lacking_fields`]).
    ///
    /// # Errors
    ///
    /// Every problem of the file: a type, a field or a filter that the site does
    /// not have, a field that cannot be cached.
    pub fn check(file: &EntityConfigFile, schema: &Schema) -> Result<Self, Vec<LayoutProblem>> {
        let problem = |word: &str, message: String| LayoutProblem {
            path: file.path.display().to_string(),
            line: file.line_of(word),
            message,
        };
        let entity_type = &file.entity_type;
        if *entity_type == *EVENT_LOG {
            return Err(vec![problem("", event_log_problem())]);
        }
        let Some(entity) = schema.entity(entity_type) else {
            let hint = nearest(entity_type.as_str(), schema.type_names());
            return Err(vec![problem("", format!("the site has no entity type `{entity_type}`{hint}"))]);
        };
        let mut problems = Vec::new();
        for name in file.config.fields.keys() {
            match entity.fields.get(name) {
                None if file.config.optional => {}
                None => {
                    let hint = nearest(name, entity.fields.keys().map(String::as_str));
                    problems.push(problem(name, format!("{entity_type} has no field `{name}` on the site{hint}")));
                }
                Some(field) if field.data_type.is_volatile() => problems.push(problem(
                    name,
                    format!(
                        "{entity_type}.{name} cannot be cached: the site computes a `{}` field at every read",
                        field.data_type
                    ),
                )),
                Some(_) => {}
            }
        }
        let filters = Value::from(file.config.filters.clone());
        let raw_filter = RawFilter::from_lists(&filters, false);
        let filter = match &raw_filter {
            Ok(raw) => schema.filter(entity_type, raw).map_err(|fault| fault.message),
            Err(error) => Err(error.message.clone()),
        };
        match (filter, raw_filter) {
            (Ok(filter), Ok(raw_filter)) if problems.is_empty() => {
                Ok(Self::build(entity_type, schema, &file.config.fields, filter, raw_filter))
            }
            (Err(message), _) => {
                problems.push(problem("filters", message));
                Err(problems)
            }
            _ => Err(problems),
        }
    }

    fn build(
        entity_type: &EntityType,
        schema: &Schema,
        configs: &std::collections::BTreeMap<String, FieldConfig>,
        filter: Filter,
        raw_filter: RawFilter,
    ) -> Self {
        let mut configs = configs.clone();
        for always in ["updated_at", "cached_display_name"] {
            configs.entry(always.to_owned()).or_default();
        }
        let derived = |name: &str| {
            let entity = schema.entity(entity_type);
            entity.is_some_and(|entity| entity.derivation(name) == Some(Derivation::Unannounced))
        };
        let known = configs.into_iter().filter(|(name, _)| !matches!(name.as_str(), "id" | "type") && !derived(name));
        let fields: Arc<[_]> = known
            .filter_map(|(name, config)| {
                let field = schema.field(entity_type, &name)?;
                let valid_types = field.valid_types.clone();
                Some(LayoutField { name, data_type: field.data_type, valid_types, mapping: config.mapping })
            })
            .collect();
        let hash = layout_hash(&fields, &raw_filter);
        Self { entity_type: entity_type.clone(), fields, filter, raw_filter, hash }
    }

    /// Returns every field that the layout needs of the site: those of the rows and
    /// those on the paths of the filter.
    pub fn needed_fields(&self) -> Vec<(EntityType, String)> {
        let mut needed: Vec<_> =
            self.fields.iter().map(|field| (self.entity_type.clone(), field.name.clone())).collect();
        for leaf in self.filter.leaves() {
            let mut owner = self.entity_type.clone();
            for hop in &leaf.path.hops {
                needed.push((owner, hop.field.clone()));
                owner = hop.entity_type.clone();
            }
            needed.push((owner, leaf.path.field.clone()));
        }
        needed
    }

    /// Returns a cached field.
    pub fn field(&self, name: &str) -> Option<&LayoutField> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|index| &self.fields[index])
    }

    /// Returns the names of the cached fields, sorted.
    pub fn field_names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name.clone()).collect()
    }

    /// Returns the cached fields as paths of a query.
    pub fn paths(&self) -> Vec<FieldPath> {
        self.fields.iter().map(|field| FieldPath::local(&field.name, field.data_type)).collect()
    }

    /// Returns the hash of a row as the site answered it.
    pub fn row_hash(&self, row: &Map<String, Value>) -> RowHash {
        row_hash(self.fields.iter().map(|field| (field.name.as_str(), field.data_type)), row)
    }
}

pub(super) fn layout_hash(fields: &[LayoutField], filter: &RawFilter) -> String {
    let mut described = Map::new();
    for field in fields {
        described.insert(field.name.clone(), serde_json::json!([field.data_type.as_str(), field.mapping]));
    }
    described.insert(" filter".into(), filter.to_wire());
    let field = [("layout", DataType::Serializable)];
    let mut row = Map::new();
    row.insert("layout".into(), described.into());
    row_hash(field.into_iter(), &row).to_string()
}

/// Returns `; did you mean ...?` with the most similar name, or nothing.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> String {
    let scored = names.map(|name| (strsim::jaro_winkler(word, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= 0.8);
    best.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}
