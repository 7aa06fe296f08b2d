//! Reads the argument of `read` or `summarize` strictly: a query, and everything
//! that its answer depends on.
//!
//! The scope of the caller comes first, by names alone: whether something hidden is
//! cached, or exists, a caller does not learn from the reason of a pass either.
//!
//! Strict where `api3` is lenient: a parameter, a key or a value that nothing here
//! knows may change the answer, so it ends the attempt. The site ignores unknown
//! return fields and sort fields without a word. A return field that has the form of a
//! declared one and that the schema lacks is left out here, too, as long as no change of
//! the schema was noticed since it was read; unknown sort fields end the attempt.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::catalogue::Catalogue;
use super::decide::Scope;
use super::reason::{Advice, Pass, Reason};
use super::settings::Semantics;
use super::supported_filters;
use super::visibility;
use crate::api3::{Fault, Read};
use crate::entity::{DataType, EntityType, Shape};
use crate::filter::{FieldPath, Filter, Only, Page, Query, RawFilter, RawLeaf, RawSort, Relation, Sort};
use crate::schema::{Derivation, FaultKind, FilterFault};

/// What an answer depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Types whose rows are looked at.
    pub rows: BTreeSet<EntityType>,
    /// Types whose entities are seen as targets of links: their names, and
    /// whether they are retired.
    pub names: BTreeSet<EntityType>,
    /// Every path that is shown, tested or sorted by.
    pub paths: BTreeSet<FieldPath>,
}

/// A query with what its answer depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The rows.
    pub query: Query,
    /// What it depends on.
    pub needs: Needs,
    /// Fields with addresses (files, images): a row with a signed one makes the request
    /// pass, rows without are answered.
    pub addresses: Vec<String>,
    /// Whether the query is about this very moment: it asked for the last two days, say.
    pub of_now: bool,
    /// Whether fields were left out because the schema lacks them: the answer then depends
    /// on the schema being current.
    pub omits_unknown: bool,
}

const READ_KEYS: &[&str] = &[
    "type",
    "return_fields",
    "filters",
    "return_only",
    "paging",
    "sorts",
    "include_archived_projects",
    "additional_filter_presets",
    "api_return_image_urls",
    "return_paging_info",
    "return_paging_info_without_counts",
];
const FLAGS: &[&str] =
    &["include_archived_projects", "api_return_image_urls", "return_paging_info", "return_paging_info_without_counts"];

/// Reads the argument of `read`.
pub(super) fn read(argument: &Value, scope: &Scope, catalogue: &Catalogue) -> Result<(Read, Question), Pass> {
    let object = strict(argument, READ_KEYS)?;
    for flag in FLAGS.iter().filter_map(|flag| object.get(*flag)) {
        if !flag.is_boolean() {
            return Err(unknown(format!("{flag} is no flag")));
        }
    }
    let read = Read::from_wire(argument).map_err(malformed)?;
    check_forms(object, &read)?;
    if read.presets.is_some() {
        return Err(Pass::new(Reason::Preset, "`additional_filter_presets` is the site's own logic"));
    }
    let mut reader = Reader::new(&read.entity_type, scope, catalogue)?;
    if read.only == Only::Retired {
        let detail = "what retired rows link to changes without an event";
        return Err(Pass::new(Reason::Retired, detail));
    }
    if read.paging.entities_per_page > catalogue.max_page {
        let detail = format!("{} rows per page; the site gives {}", read.paging.entities_per_page, catalogue.max_page);
        return Err(Pass::new(Reason::TooLarge, detail));
    }
    let filter = reader.filter(&read.filter)?;
    let order = reader.order(&read.order)?;
    let fields = reader.fields(&read.fields)?;
    reader.archived(read.include_archived_projects)?;
    let query = Query {
        entity_type: read.entity_type.clone(),
        filter,
        fields,
        order,
        page: Page { size: read.paging.entities_per_page, number: read.paging.current_page },
        only: Only::Active,
        include_archived_projects: read.include_archived_projects,
    };
    let question = reader.question(query)?;
    Ok((read, question))
}

/// Checks what a lenient reader would read as something else.
fn check_forms(object: &Map<String, Value>, read: &Read) -> Result<(), Pass> {
    let listed = object.get("return_fields").and_then(Value::as_array);
    if listed.is_none_or(|listed| listed.len() != read.fields.len()) {
        return Err(unknown("`return_fields` is no list of names"));
    }
    check_filter(object, &read.filter)?;
    if !matches!(object.get("return_only").and_then(Value::as_str), Some("active" | "retired")) {
        return Err(unknown("`return_only` is neither `active` nor `retired`"));
    }
    if object.get("paging").and_then(Value::as_object).is_none_or(|paging| paging.len() != 2) {
        return Err(unknown("`paging` has other keys than `entities_per_page` and `current_page`"));
    }
    let sorts = object.get("sorts").map_or(Some(&[][..]), |sorts| sorts.as_array().map(Vec::as_slice));
    let same = sorts.is_some_and(|sorts| {
        sorts.len() == read.order.len() && sorts.iter().zip(&read.order).all(|(sort, key)| *sort == key.to_wire())
    });
    if same { Ok(()) } else { Err(unknown("`sorts` has a form that the client does not send")) }
}

/// Checks that a filter has no key that was not read.
pub(super) fn check_filter(object: &Map<String, Value>, filter: &RawFilter) -> Result<(), Pass> {
    if object.get("filters") == Some(&filter.to_wire()) {
        return Ok(());
    }
    Err(unknown("`filters` has a form that the client does not send"))
}

/// Returns the argument as an object with none but the known keys.
pub(super) fn strict<'a>(argument: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>, Pass> {
    let Some(object) = argument.as_object() else {
        return Err(Pass::new(Reason::Malformed, "the argument is no object"));
    };
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown(format!("`{key}` is not known here"))),
        None => Ok(object),
    }
}

pub(super) fn unknown(detail: impl Into<String>) -> Pass {
    Pass::new(Reason::UnknownParameter, detail)
}

pub(super) fn malformed(fault: Fault) -> Pass {
    Pass::new(Reason::Malformed, fault.message)
}

/// Reads the parts of a question about rows of one type.
pub(super) struct Reader<'c> {
    catalogue: &'c Catalogue,
    scope: &'c Scope,
    entity_type: EntityType,
    needs: Needs,
    addresses: Vec<String>,
    omits_unknown: bool,
}

impl<'c> Reader<'c> {
    /// Begins; the type must be cached, and whole.
    pub fn new(entity_type: &EntityType, scope: &'c Scope, catalogue: &'c Catalogue) -> Result<Self, Pass> {
        visibility::check_type(scope, entity_type)?;
        if catalogue.schema.entity(entity_type).is_none() {
            return Err(Pass::new(Reason::UnknownField, format!("the site has no entity type `{entity_type}`")));
        }
        let needs = Needs { rows: [entity_type.clone()].into(), ..Needs::default() };
        let entity_type = entity_type.clone();
        let reader = Self { catalogue, scope, entity_type, needs, addresses: Vec::new(), omits_unknown: false };
        reader.whole(&reader.entity_type)?;
        Ok(reader)
    }

    /// Ends: windows around now become absolute, and the store's own check has the
    /// last word.
    pub fn question(self, asked: Query) -> Result<Question, Pass> {
        let filter = asked.filter.at(self.catalogue.now.timestamp());
        let of_now = filter != asked.filter;
        let query = Query { filter, ..asked };
        self.catalogue.stored.check(&query).map_err(|error| Pass::new(Reason::Store, error.to_string()))?;
        let Self { needs, addresses, omits_unknown, .. } = self;
        Ok(Question { query, needs, addresses, of_now, omits_unknown })
    }

    fn whole(&self, entity_type: &EntityType) -> Result<(), Pass> {
        match self.catalogue.stored.types.get(entity_type) {
            None if *entity_type == *"EventLogEntry" => {
                Err(Pass::new(Reason::UncachedType, "the event log is never answered from the cache"))
            }
            None => {
                let pass = Pass::new(Reason::UncachedType, format!("`{entity_type}` is not cached"));
                Err(pass.advise(Advice::AddType(entity_type.clone())))
            }
            Some(cached) if cached.partial => {
                let pass = Pass::new(Reason::PartialType, format!("`{entity_type}` is cached in part only"));
                Err(pass.advise(Advice::DropFilter(entity_type.clone())))
            }
            Some(_) => Ok(()),
        }
    }

    /// Checks a filter and notes what it looks at.
    pub fn filter(&mut self, raw: &RawFilter) -> Result<Filter, Pass> {
        visibility::check_filter(self.scope, &self.entity_type, raw)?;
        let filter = self.catalogue.schema.filter(&self.entity_type, raw).map_err(refused)?;
        self.conditions(raw)?;
        Ok(filter)
    }

    fn conditions(&mut self, raw: &RawFilter) -> Result<(), Pass> {
        match raw {
            RawFilter::Group { conditions, .. } => conditions.iter().try_for_each(|raw| self.conditions(raw)),
            RawFilter::Leaf(leaf) => self.condition(leaf),
        }
    }

    fn condition(&mut self, leaf: &RawLeaf) -> Result<(), Pass> {
        let path = self.path(&leaf.path)?;
        self.cached(&path)?;
        let shown = || format!("`{} {}` ({})", leaf.path, leaf.relation, path.data_type);
        let relation: Relation =
            leaf.relation.parse().map_err(|_| Pass::new(Reason::Malformed, format!("{} is no relation", shown())))?;
        if !supported_filters::is_supported(path.data_type, relation, &leaf.values) {
            return Err(Pass::new(
                Reason::UnsupportedFilter,
                format!("{} with these operands is not supported", shown()),
            ));
        }
        self.assumed(supported_filters::semantics(&path, relation, &leaf.values), shown)?;
        if matches!(path.data_type.shape(), Shape::Link | Shape::Links) {
            self.sees_targets(&path);
        }
        self.looks_at(path);
        Ok(())
    }

    fn assumed(&self, reading: Option<Semantics>, shown: impl Fn() -> String) -> Result<(), Pass> {
        match reading {
            Some(reading) if !self.catalogue.settings.semantics.contains(&reading) => {
                let detail = format!("{}: sources disagree on what it means", shown());
                Err(Pass::new(Reason::AmbiguousSemantics, detail).advise(Advice::ChooseSemantics(reading)))
            }
            _ => Ok(()),
        }
    }

    /// Checks an order; keys without an effect are left out, as on the site.
    pub fn order(&mut self, raw: &[RawSort]) -> Result<Vec<Sort>, Pass> {
        let mut order = Vec::new();
        for key in raw {
            let path = self.path(&key.path)?;
            if !path.data_type.is_sortable() || path.is_multi() {
                continue;
            }
            self.cached(&path)?;
            self.assumed(supported_filters::order_semantics(path.data_type), || format!("an order by `{path}`"))?;
            if path.data_type.shape() == Shape::Link {
                self.sees_targets(&path);
            }
            self.looks_at(path.clone());
            order.push(Sort { path, descending: key.descending });
        }
        Ok(order)
    }

    /// Checks the fields to return.
    pub fn fields(&mut self, names: &[String]) -> Result<Vec<FieldPath>, Pass> {
        let mut fields = Vec::new();
        for name in names.iter().filter(|name| !matches!(name.as_str(), "type" | "id")) {
            let path = match self.path(name) {
                Err(pass) if pass.reason == Reason::UnknownField && self.is_undeclared(name) => {
                    self.omits_unknown = true;
                    continue;
                }
                found => found?,
            };
            // The site leaves fields that are reached through a list out of the row.
            if path.is_multi() || fields.contains(&path) {
                continue;
            }
            self.servable(&path)?;
            if matches!(path.data_type.shape(), Shape::Link | Shape::Links) {
                self.sees_targets(&path);
            }
            if matches!(path.data_type, DataType::Url | DataType::Image) {
                self.addresses.push(path.to_string());
            }
            self.looks_at(path.clone());
            fields.push(path);
        }
        Ok(fields)
    }

    /// Tells whether a name looks like that of a field that the schema would declare: a
    /// custom one (`sg_`), or one that another type has. Sites answer some fields that no
    /// schema declares (`read_by_current_user`), and others (`$FROM$...`) are no fields.
    fn is_undeclared(&self, name: &str) -> bool {
        let (owner, field) = match name.rsplit_once('.') {
            None => (Some(self.entity_type.clone()), name),
            Some((before, field)) => {
                let id = self.catalogue.schema.path(&self.entity_type, &format!("{before}.id"));
                (id.and_then(|path| path.hops.last().map(|hop| hop.entity_type.clone())), field)
            }
        };
        let is_word = field.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let is_elsewhere = || self.catalogue.schema.types.values().any(|entity| entity.fields.contains_key(field));
        owner.is_some_and(|owner| self.catalogue.schema.field(&owner, field).is_none())
            && is_word
            && (field.starts_with("sg_") || is_elsewhere())
    }

    fn servable(&self, path: &FieldPath) -> Result<(), Pass> {
        if path.data_type.is_volatile() {
            let detail = format!("`{path}` ({}) is computed by the site at every read", path.data_type);
            return Err(Pass::new(Reason::Computed, detail));
        }
        self.cached(path)
    }

    /// Checks that the cache can tell which projects are archived.
    pub fn archived(&mut self, include: bool) -> Result<(), Pass> {
        if include {
            return Ok(());
        }
        if self.entity_type == "Project" {
            let detail = "whether archived projects themselves are left out is not known";
            return Err(Pass::new(Reason::UnsupportedFilter, detail));
        }
        visibility::check_path(self.scope, &self.entity_type, "project.Project.archived")?;
        let Some(path) = self.catalogue.schema.path(&self.entity_type, "project.Project.archived") else {
            let detail = format!("`{}` has no project", self.entity_type);
            return Err(Pass::new(Reason::UnsupportedFilter, detail));
        };
        self.cached(&path)?;
        self.looks_at(path);
        Ok(())
    }

    /// Finds a path in the schema.
    pub fn path(&self, text: &str) -> Result<FieldPath, Pass> {
        visibility::check_path(self.scope, &self.entity_type, text)?;
        if text.contains("current_user") {
            return Err(Pass::new(Reason::PerUser, format!("`{text}` differs from user to user")));
        }
        let found = self.catalogue.schema.path(&self.entity_type, text);
        found.ok_or_else(|| {
            Pass::new(Reason::UnknownField, format!("the site, as last seen, has no `{}.{text}`", self.entity_type))
        })
    }

    /// Checks that every field of a path is cached.
    pub fn cached(&self, path: &FieldPath) -> Result<(), Pass> {
        let mut owner = &self.entity_type;
        for hop in &path.hops {
            self.cached_field(owner, &hop.field, path)?;
            self.whole(&hop.entity_type)?;
            owner = &hop.entity_type;
        }
        self.cached_field(owner, &path.field, path)
    }

    fn cached_field(&self, owner: &EntityType, field: &str, path: &FieldPath) -> Result<(), Pass> {
        let cached = self.catalogue.stored.types.get(owner).and_then(|cached| cached.data_type(field));
        if cached.is_some() {
            return Ok(());
        }
        let derived = self.catalogue.schema.entity(owner).and_then(|entity| entity.derivation(field));
        if derived == Some(Derivation::Unannounced) {
            let detail = format!("the site derives `{owner}.{field}` from other entities, without an event");
            return Err(Pass::new(Reason::DerivedField, detail));
        }
        let whole = if path.is_local() { String::new() } else { format!(" (path `{path}`)") };
        let pass = Pass::new(Reason::UncachedField, format!("`{owner}.{field}` is not cached{whole}"));
        Err(pass.advise(Advice::AddField(owner.clone(), field.to_owned())))
    }

    /// Notes a path that the answer depends on.
    pub fn looks_at(&mut self, path: FieldPath) {
        for hop in &path.hops {
            self.needs.rows.insert(hop.entity_type.clone());
            self.needs.names.insert(hop.entity_type.clone());
        }
        self.needs.paths.insert(path);
    }

    /// Notes that the targets of a link field are seen.
    pub fn sees_targets(&mut self, path: &FieldPath) {
        let targets = targets(self.catalogue, &self.entity_type, path);
        self.needs.names.extend(targets);
    }
}

/// Returns the types that a link at the end of a path may point to.
pub(super) fn targets(catalogue: &Catalogue, entity_type: &EntityType, path: &FieldPath) -> Vec<EntityType> {
    let owner = path.hops.last().map_or(entity_type, |hop| &hop.entity_type);
    let valid = catalogue.schema.field(owner, &path.field).map(|field| field.valid_types.clone()).unwrap_or_default();
    // Without a list, any type is valid.
    if valid.is_empty() { catalogue.stored.types.keys().cloned().collect() } else { valid }
}

fn refused(fault: FilterFault) -> Pass {
    let reason = match fault.kind {
        FaultKind::UnknownPath => Reason::UnknownField,
        FaultKind::Relation | FaultKind::Operand => Reason::Malformed,
        FaultKind::Unproven => Reason::UnsupportedFilter,
    };
    Pass::new(reason, fault.message)
}
