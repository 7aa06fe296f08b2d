//! [`EntityCatalog`]: the entity types and fields that pipelines may name, and the
//! check of arguments against them.
//!
//! Offline, the entity configs say what is cached, and the last known schema of the
//! site, or that of a stock site, which data type a field has. A field that only an
//! entity config knows has no data type here, so that its relations are checked by
//! name alone. Online, the schema is the site's own and decides everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::job::ValidateDataArgs;
use super::resolver::Resolver;
use super::{FilterOperator, JobSpec};
use crate::entity::EntityType;
use crate::filter::{RawFilter, RawLeaf, RawSort, Relation, parse_order};
use crate::schema::{FaultKind, Schema};
use crate::yaml::{Diagnostic, Document, Problems, did_you_mean, join, nearest};

/// The entity types and fields that there are.
#[derive(Debug, Clone, Default)]
pub struct EntityCatalog {
    cached: BTreeMap<String, BTreeSet<String>>,
    schema: Schema,
    is_of_site: bool,
}

/// What is wrong with a name, and what to do about it.
type Objection = (&'static str, String, Option<String>);

impl EntityCatalog {
    /// Returns a catalog of the cached fields by entity type, and a schema.
    /// `is_of_site` says that the site has shown it just now.
    pub fn new(cached: BTreeMap<String, BTreeSet<String>>, schema: Schema, is_of_site: bool) -> EntityCatalog {
        EntityCatalog { cached, schema, is_of_site }
    }

    /// Returns the configured entity types.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.cached.keys().map(String::as_str)
    }

    /// Returns what is wrong with the types, fields, filters and orders of a job that
    /// was given on the command line, in words.
    pub fn objections(&self, spec: &JobSpec) -> Vec<String> {
        let mut problems = Problems::new();
        // There is no file to point into.
        if let Ok(document) = Document::json("the command line", b"{}") {
            Check { document: &document, catalog: self }.spec("", spec, &mut problems);
            match spec {
                JobSpec::Scan(args) => args.check(&document, "", &mut problems),
                JobSpec::Export(args) => args.check(&document, "", &mut problems),
                _ => {}
            }
        }
        let words = |problem: &&Diagnostic| match &problem.help {
            Some(help) => format!("{} ({help})", problem.message),
            None => problem.message.clone(),
        };
        problems.sorted().iter().map(words).collect()
    }

    fn object_to_type(&self, name: &str) -> Option<Objection> {
        if self.cached.contains_key(name) {
            return None;
        }
        let known: Vec<&str> = self.types().collect();
        let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let help =
            near.or_else(|| Some(format!("`sgcache job generateEntityConfigs {name}` adds it, if the site has it")));
        Some(("SG0610", format!("`{name}` is not a configured entity type"), help))
    }

    fn object_to_site_type(&self, name: &str) -> Option<Objection> {
        if self.cached.contains_key(name) || self.schema.entity(&EntityType::new(name)).is_some() {
            return None;
        }
        let near = nearest(name, self.schema.type_names()).map(|near| format!("did you mean `{near}`?"));
        Some(("SG0610", format!("the site has no entity type `{name}`"), near))
    }

    fn object_to_cached_field(&self, entity_type: &str, field: &str) -> Option<Objection> {
        let cached = self.cached.get(entity_type)?;
        if matches!(field, "id" | "type") || cached.contains(field) {
            return None;
        }
        let known: Vec<&str> = cached.iter().map(String::as_str).collect();
        Some(("SG0611", format!("{entity_type}.{field} is not cached"), did_you_mean(field, &known)))
    }

    /// Objects to a path that leads nowhere: to `code`, or to `entity.Shot.code`.
    fn object_to_path(&self, entity_type: &str, path: &str) -> Option<Objection> {
        if matches!(path, "id" | "type") || self.schema.path(&EntityType::new(entity_type), path).is_some() {
            return None;
        }
        let cached = self.cached.get(entity_type)?;
        let mut parts = path.splitn(3, '.');
        let field = parts.next().unwrap_or_default();
        let knows_field = cached.contains(field) || self.schema.field(&EntityType::new(entity_type), field).is_some();
        if knows_field && !self.is_of_site {
            return match (parts.next(), parts.next()) {
                (None, _) => None,
                (Some(target), Some(rest)) if self.cached.contains_key(target) => self.object_to_path(target, rest),
                (Some(target), _) => self.object_to_site_type(target),
            };
        }
        let of_schema = self.schema.entity(&EntityType::new(entity_type)).map(|entity| entity.fields.keys());
        let known: BTreeSet<&str> =
            cached.iter().map(String::as_str).chain(of_schema.into_iter().flatten().map(String::as_str)).collect();
        let known: Vec<&str> = known.into_iter().collect();
        Some(("SG0611", format!("{entity_type} has no field `{path}`"), did_you_mean(field, &known)))
    }

    /// Objects to a condition that the type cannot be asked.
    fn object_to_condition(&self, entity_type: &str, leaf: &RawLeaf) -> Option<Objection> {
        if let Some(objection) = self.object_to_path(entity_type, &leaf.path) {
            return Some(objection);
        }
        let ty = EntityType::new(entity_type);
        let Some(path) = self.schema.path(&ty, &leaf.path) else {
            // The data type is not known, only the words that relations have.
            let known: Vec<&str> = Relation::EVERY.iter().map(|relation| relation.as_str()).collect();
            let unknown = leaf.relation.parse::<Relation>().is_err();
            let message = format!("there is no relation `{}`", leaf.relation);
            return unknown.then(|| ("SG0613", message, did_you_mean(&leaf.relation, &known)));
        };
        let fault = self.schema.filter(&ty, &RawFilter::Leaf(leaf.clone())).err()?;
        let help = match fault.kind {
            // A site has an answer to this; what it is, it will say itself.
            FaultKind::Unproven => return None,
            FaultKind::Relation => {
                let allowed: Vec<&str> =
                    Relation::allowed(path.data_type).iter().map(|relation| relation.as_str()).collect();
                did_you_mean(&leaf.relation, &allowed)
            }
            FaultKind::UnknownPath | FaultKind::Operand => None,
        };
        Some(("SG0613", fault.message, help))
    }
}

impl Resolver<'_> {
    /// Checks the entity types, fields, filters and orders among the arguments of a
    /// step, which stand at `pointer`.
    pub(super) fn check_entities(&self, pointer: &str, spec: &JobSpec, problems: &mut Problems) {
        if let Some(catalog) = &self.context.entities {
            Check { document: self.document, catalog }.spec(pointer, spec, problems);
        }
    }
}

/// A catalog, and the document that arguments stand in.
struct Check<'a> {
    document: &'a Document,
    catalog: &'a EntityCatalog,
}

impl Check<'_> {
    fn spec(&self, pointer: &str, spec: &JobSpec, problems: &mut Problems) {
        let catalog = self.catalog;
        let types = match spec {
            JobSpec::Import(args) => &args.types,
            JobSpec::Rebuild(args) => &args.types,
            JobSpec::ValidateCounts(args) => &args.types,
            JobSpec::ValidateData(args) => &args.types,
            JobSpec::GenerateEntityConfigs(args) => {
                let object = |name: &str| catalog.object_to_site_type(name);
                return self.list(&join(pointer, "types"), &args.types, object, problems);
            }
            JobSpec::Scan(args) => &args.types,
            JobSpec::Export(args) => &args.types,
            JobSpec::Repair(args) => {
                let types: Vec<String> = args.entities.iter().map(|key| key.entity_type.to_string()).collect();
                let object = |name: &str| catalog.object_to_type(name);
                return self.list(&join(pointer, "entities"), &types, object, problems);
            }
            JobSpec::Sync(_) | JobSpec::Purge(_) | JobSpec::PruneReports(_) | JobSpec::DeadLetters(_) => return,
        };
        self.list(&join(pointer, "types"), types, |name| catalog.object_to_type(name), problems);
        match spec {
            JobSpec::ValidateData(args) => self.selection(pointer, args, problems),
            JobSpec::Export(args) => {
                // What both have in common is checked alike.
                let selection = ValidateDataArgs {
                    types: args.types.clone(),
                    filters: args.filters.clone(),
                    filter_operator: args.filter_operator,
                    fields: args.fields.clone(),
                    ..ValidateDataArgs::default()
                };
                self.selection(pointer, &selection, problems);
            }
            _ => {}
        }
    }

    fn selection(&self, pointer: &str, args: &ValidateDataArgs, problems: &mut Problems) {
        let catalog = self.catalog;
        let known = |name: &&str| catalog.cached.contains_key(*name);
        let types: Vec<&str> = match args.types.is_empty() {
            true => catalog.types().collect(),
            false => args.types.iter().map(String::as_str).filter(known).collect(),
        };
        let is_taken = |name: &&str| !args.exclude_types.iter().any(|excluded| excluded == name);
        let types: Vec<&str> = types.into_iter().filter(is_taken).collect();
        let excluded = |name: &str| catalog.object_to_site_type(name);
        self.list(&join(pointer, "exclude_types"), &args.exclude_types, excluded, problems);
        // One type that lacks a field is enough to break the step.
        let field = |name: &str| types.iter().find_map(|ty| catalog.object_to_cached_field(ty, name));
        self.list(&join(pointer, "fields"), &args.fields, field, problems);
        self.list(&join(pointer, "ignore_fields"), &args.ignore_fields, field, problems);
        self.filters(&types, &join(pointer, "filters"), args, problems);
        self.order(&types, &join(pointer, "order"), &args.order, problems);
    }

    fn list(
        &self,
        pointer: &str,
        names: &[String],
        object: impl Fn(&str) -> Option<Objection>,
        problems: &mut Problems,
    ) {
        for (at, name) in names.iter().enumerate() {
            if let Some(objection) = object(name) {
                self.object(&self.document.entry(pointer, at), objection, problems);
            }
        }
    }

    fn filters(&self, types: &[&str], pointer: &str, args: &ValidateDataArgs, problems: &mut Problems) {
        let any = args.filter_operator == FilterOperator::Any;
        let conditions: Vec<(String, Value)> = match &args.filters {
            Value::Null => return,
            Value::Array(items) if items.len() >= 3 && items[0].is_string() && items[1].is_string() => {
                vec![(pointer.to_owned(), args.filters.clone())]
            }
            // Each condition is read alone, so that it can be pointed at.
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, item)| (join(pointer, &at.to_string()), item.clone())).collect()
            }
            other => vec![(pointer.to_owned(), other.clone())],
        };
        for (place, condition) in conditions {
            let read = match &condition {
                Value::String(text) if place == pointer => RawFilter::parse(text, any),
                one => RawFilter::from_lists(&Value::Array(vec![one.clone()]), any),
            };
            let filter = match read {
                Ok(filter) => filter,
                Err(error) => {
                    let help = "a condition is [field, relation, value, ..]".to_owned();
                    self.object(&place, ("SG0612", error.to_string(), Some(help)), problems);
                    continue;
                }
            };
            for leaf in leaves(&filter) {
                if let Some(objection) = types.iter().find_map(|ty| self.catalog.object_to_condition(ty, leaf)) {
                    let part = if objection.0 == "SG0611" { "0" } else { "1" };
                    let exact = join(&place, part);
                    let is_plain = condition.get(0).and_then(Value::as_str) == Some(leaf.path.as_str());
                    self.object(if is_plain { &exact } else { &place }, objection, problems);
                }
            }
        }
    }

    fn order(&self, types: &[&str], pointer: &str, order: &Value, problems: &mut Problems) {
        let read = match order {
            Value::Null => return,
            Value::String(text) => parse_order(text),
            list => RawSort::list(list),
        };
        match read {
            Err(error) => self.object(pointer, ("SG0612", error.to_string(), None), problems),
            Ok(keys) => {
                for (at, key) in keys.iter().enumerate() {
                    if let Some(objection) = types.iter().find_map(|ty| self.catalog.object_to_path(ty, &key.path)) {
                        self.object(&join(pointer, &at.to_string()), objection, problems);
                    }
                }
            }
        }
    }

    fn object(&self, pointer: &str, (code, message, help): Objection, problems: &mut Problems) {
        // The words of a site can have several lines.
        let message = message.replace('\n', " ");
        self.document.report(problems, self.document.at(pointer, code, message).help(help));
    }
}

fn leaves(filter: &RawFilter) -> Vec<&RawLeaf> {
    match filter {
        RawFilter::Leaf(leaf) => vec![leaf],
        RawFilter::Group { conditions, .. } => conditions.iter().flat_map(leaves).collect(),
    }
}
