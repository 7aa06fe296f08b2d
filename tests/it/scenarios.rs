//! Runs `tests/scenarios/*.yaml`: rows, a filter, an order, a page and the ids
//! that a site would answer.
//!
//! What is expected stands in the files and was written from the text that the
//! `evidence` of each case names: the sections of the reference of the protocol.
//! [`run`] holds any store against it; local evaluation is held against it at
//! the same time, with every field of every row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sgcache::entity::{DataType, EntityRef, EntityType, Shape, Timestamp};
use sgcache::filter::{FieldPath, Only, Page, Query, RawFilter, RawLeaf, RawSort, Relation};
use sgcache::proxy::{self, Asked, Catalogue, Decision, PendingWrites, Reason, Scope, Semantics, Serve};
use sgcache::state::{ReplicationStatus, SiteTime, TypeReplicationStatus, TypeState};
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::store::{PurgeScope, RowState, Store, StoreErrorKind};

use crate::store_world::{World, WorldRow, ids};

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Fields with their data types, by type.
    types: BTreeMap<String, BTreeMap<String, String>>,
    /// The names of entities whose types the site has and the stores have not.
    #[serde(default)]
    pub uncached: BTreeMap<String, BTreeMap<i64, String>>,
    /// Rows by type and id; fields that are left out are empty. Links are written
    /// `Type:id`. `retired: true` makes a retired row.
    rows: BTreeMap<String, BTreeMap<i64, Map<String, Value>>>,
    /// The time of the site.
    now: Option<String>,
    /// The type that the cases ask for.
    pub of: String,
    pub cases: Vec<Case>,
}

/// One query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// A sentence.
    pub it: String,
    /// Where the reference says so.
    pub evidence: String,
    pub of: Option<String>,
    #[serde(default)]
    pub filter: Option<Value>,
    /// Joins the conditions by `or`.
    #[serde(default)]
    pub any: bool,
    #[serde(default)]
    pub order: Option<String>,
    /// Size and number.
    pub page: Option<(u32, u32)>,
    #[serde(default)]
    pub retired_only: bool,
    pub include_archived_projects: Option<bool>,
    /// Fields to read besides those of the row itself.
    #[serde(default)]
    pub fields: Vec<String>,
    pub ids: Option<Vec<i64>>,
    /// Whether there is a next page.
    #[serde(default)]
    more: bool,
    /// Values that rows must have, by id.
    #[serde(default)]
    values: BTreeMap<i64, Map<String, Value>>,
    /// The reason why stores pass the query on.
    unsupported: Option<String>,
}

/// Holds a store against every scenario. Types of the scenarios are removed from
/// it before and after.
pub async fn run(store: &dyn Store) {
    for (index, path) in paths().into_iter().enumerate() {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let file = read(&path);
        let world = file.world();
        clear(store, &world).await;
        world.ensure_types(store).await;
        world.put_rows(store, index as i64 + 1).await;
        for case in &file.cases {
            println!("{name}: {}", case.it);
            case.run(store, &world, &file.of).await;
        }
        clear(store, &world).await;
    }
}

async fn clear(store: &dyn Store, world: &World) {
    for stored in store.types().await.expect("the types") {
        if world.schema.types.contains_key(&stored.entity_type) {
            store.purge(&PurgeScope::Type(stored.entity_type)).await.expect("a purge");
        }
    }
}

pub fn paths() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("tests/scenarios").expect("the scenarios");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths
}

pub fn read(path: &PathBuf) -> File {
    let text = std::fs::read_to_string(path).expect("a scenario");
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl File {
    pub fn world(&self) -> World {
        let mut world = World { now: self.now.as_deref().and_then(Timestamp::parse), ..World::default() };
        for (name, fields) in &self.types {
            world.add_type(name, fields.clone());
        }
        for (name, rows) in &self.rows {
            for (id, fields) in rows {
                let row = self.row(&world, name, *id, fields);
                world.rows.insert(row.key.clone(), row);
            }
        }
        let mut names = BTreeMap::new();
        for (name, entities) in &self.uncached {
            world.add_type(name, [("name".to_owned(), "text".to_owned())]);
            world.cached.retain(|cached| cached != name.as_str());
            for (id, shown) in entities {
                names.insert(EntityRef::new(name.as_str(), *id), shown.clone());
            }
        }
        world.name_links(&names);
        world
    }

    fn row(&self, world: &World, name: &str, id: i64, given: &Map<String, Value>) -> WorldRow {
        let mut given = given.clone();
        let retired = given.remove("retired") == Some(Value::Bool(true));
        let mut fields = Map::new();
        for (field, data_type) in &self.types[name] {
            let data_type: DataType = data_type.parse().expect("a data type");
            let value = given.remove(field).unwrap_or(Value::Null);
            let value = match data_type.shape() {
                Shape::Link => link(&value),
                Shape::Links => value.as_array().into_iter().flatten().map(link).collect(),
                Shape::Bool => json!(value == true),
                _ => value,
            };
            fields.insert(field.clone(), value);
        }
        assert!(given.is_empty(), "{name}:{id} has fields that its type lacks: {given:?}");
        assert!(world.schema.types.contains_key(&EntityType::new(name)), "{name} is no type");
        let state = if retired { RowState::Retired } else { RowState::Active };
        WorldRow { key: EntityRef::new(name, id), state, fields }
    }
}

fn link(text: &Value) -> Value {
    match text.as_str().and_then(|text| text.split_once(':')) {
        Some((name, id)) => json!({"type": name, "id": id.parse::<i64>().expect("an id"), "name": null}),
        None => Value::Null,
    }
}

impl Case {
    fn raw_filter(&self) -> RawFilter {
        let lists = self.filter.clone().unwrap_or_else(|| json!([]));
        RawFilter::from_lists(&lists, self.any).unwrap_or_else(|error| panic!("{}: {error}", self.it))
    }

    pub fn query(&self, world: &World, of: &str) -> Query {
        let entity_type = EntityType::new(self.of.as_deref().unwrap_or(of));
        let filter = world.schema.filter(&entity_type, &self.raw_filter());
        let filter = filter.unwrap_or_else(|fault| panic!("{}: {fault}", self.it));
        let order: Vec<RawSort> = self.order.as_deref().map_or_else(Vec::new, |text| {
            sgcache::filter::parse_order(text).unwrap_or_else(|error| panic!("{}: {error}", self.it))
        });
        let layout = world.layout(&entity_type);
        let mut fields: Vec<FieldPath> = layout.paths();
        fields.extend(world.schema.fields(&entity_type, &self.fields));
        let (size, number) = self.page.unwrap_or((500, 1));
        Query {
            filter: world.now.map_or_else(|| filter.clone(), |now| filter.at(now)),
            order: world.schema.order(&entity_type, &order),
            fields,
            page: Page { size, number },
            only: if self.retired_only { Only::Retired } else { Only::Active },
            include_archived_projects: self.include_archived_projects.unwrap_or(true),
            entity_type,
        }
    }

    async fn run(&self, store: &dyn Store, world: &World, of: &str) {
        let query = self.query(world, of);
        self.decide(world, &query);
        if let Some(reason) = &self.unsupported {
            let error = store.find(&query).await.err().unwrap_or_else(|| panic!("{}: the store answered", self.it));
            assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{}: {error}", self.it);
            assert!(error.to_string().contains(reason), "{}: {error}", self.it);
            return;
        }
        let expected = self.ids.as_ref().unwrap_or_else(|| panic!("{}: `ids` is missing", self.it));
        let page = query.page;
        let all = world.all_ids(&query);
        let (skip, take) = (page.offset() as usize, page.size as usize);
        let evaluated: Vec<_> = all.iter().copied().skip(skip).take(take).collect();
        assert_eq!(&evaluated, expected, "{} (local evaluation; {})", self.it, self.evidence);
        let found = store.find(&query).await.unwrap_or_else(|error| panic!("{}: {error}", self.it));
        assert_eq!(&ids(&found), expected, "{} ({})", self.it, self.evidence);
        assert_eq!(found.has_next_page, self.more, "{}: the next page", self.it);
        for (id, values) in &self.values {
            let row = found.rows.iter().find(|row| row.key.id == *id).expect("a row that was found");
            for (path, value) in values {
                // Absent keys are written as the word that JSON has not.
                let shown = row.get(path).unwrap_or_else(|| json!("absent"));
                assert_eq!(shown, *value, "{}: {path} of {}", self.it, row.key);
            }
        }
        world.check(store, &query).await;
    }
}

impl Case {
    /// Checks that the proxy answers exactly what the stores answer, with the very
    /// query that is held against them here.
    fn decide(&self, world: &World, query: &Query) {
        match self.decision(world, query) {
            Decision::Serve(serve) => {
                let Serve::Read(plan) = *serve else { panic!("{}: not a read", self.it) };
                assert!(self.unsupported.is_none(), "{}: the proxy would answer", self.it);
                let planned = &plan.question.query;
                assert_eq!(planned.filter, query.filter, "{}", self.it);
                assert_eq!((&planned.order, planned.page), (&query.order, query.page), "{}", self.it);
            }
            Decision::Pass(pass) => {
                let known = [Reason::UnsupportedFilter, Reason::UnknownField, Reason::Retired, Reason::Malformed];
                let expected = self.unsupported.is_some() || known.contains(&pass.reason);
                assert!(expected, "{}: the proxy passes it on: {pass:?}", self.it);
            }
        }
    }

    /// Returns what the proxy decides when everything is live.
    pub fn decision(&self, world: &World, query: &Query) -> Decision {
        let fields: Vec<_> = self.fields.iter().filter(|path| !path.contains("image")).collect();
        let sorts: Vec<_> = match self.order.as_deref() {
            Some(text) => sgcache::filter::parse_order(text).expect("an order").iter().map(RawSort::to_wire).collect(),
            None => Vec::new(),
        };
        let mut argument = json!({"type": query.entity_type.as_str(), "return_fields": fields,
            "filters": self.raw_filter().to_wire(), "return_only": query.only.as_str(), "sorts": sorts,
            "paging": {"entities_per_page": query.page.size, "current_page": query.page.number}});
        if let Some(include) = self.include_archived_projects {
            argument["include_archived_projects"] = include.into();
        }
        let body = json!({"method_name": "read", "params": [{"script_name": "s", "script_key": "k"}, argument]});
        let asked = Asked::parse(body.to_string().as_bytes()).expect("a request");
        proxy::decide(&asked, &Scope::Full, &catalogue(world))
    }
}

/// The world as the proxy sees it when everything is live.
fn catalogue(world: &World) -> Catalogue {
    let layouts: Vec<_> = world.cached.iter().map(|ty| world.layout(ty)).collect();
    let now = SiteTime::from(world.now.unwrap_or(Timestamp(1_700_000_000)));
    let standing = |layout: &sgcache::entity_config::TypeLayout| TypeReplicationStatus {
        state: TypeState::Live,
        layout_hash: layout.hash.clone(),
        breaker: false,
        quarantined: BTreeSet::new(),
    };
    let types = layouts.iter().map(|layout| (layout.entity_type.clone(), standing(layout))).collect();
    let semantics = Semantics::EVERY.iter().copied().collect();
    Catalogue {
        schema: Arc::new(world.schema.clone()),
        schema_is_current: true,
        stored: Arc::new(proxy::catalogue::stored(&layouts)),
        standing: Arc::new(ReplicationStatus { complete_as_of: Some(now), types, ..ReplicationStatus::default() }),
        pending_writes: PendingWrites::default(),
        now,
        settings: Arc::new(proxy::Settings { semantics, ..proxy::Settings::default() }),
        max_page: 500,
        site_is_down: false,
    }
}

#[tokio::test]
async fn the_embedded_store_answers_every_scenario() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = EmbeddedStore::open(EmbeddedSettings::new(dir.path().join("store.sqlite"))).expect("a store");
    run(&store).await;
}

#[test]
fn every_relation_that_a_site_accepts_has_a_scenario() {
    let mut used: BTreeSet<(DataType, Relation)> = BTreeSet::new();
    for path in paths() {
        let file = read(&path);
        let world = file.world();
        for case in &file.cases {
            let entity_type = EntityType::new(case.of.as_deref().unwrap_or(&file.of));
            for leaf in leaves(&case.raw_filter()) {
                let path = world.schema.path(&entity_type, &leaf.path).expect("a path of the schema");
                used.insert((path.data_type, leaf.relation.parse().expect("a relation")));
            }
        }
    }
    // One data type for each column of the matrix whose relations are proven.
    let proven = [
        DataType::Text,
        DataType::Number,
        DataType::Float,
        DataType::Date,
        DataType::DateTime,
        DataType::Checkbox,
        DataType::Image,
        DataType::List,
        DataType::StatusList,
        DataType::EntityType,
        DataType::Uuid,
        DataType::Color,
        DataType::Entity,
        DataType::MultiEntity,
    ];
    for data_type in proven {
        for relation in Relation::allowed(data_type) {
            assert!(used.contains(&(data_type, *relation)), "no scenario for `{relation}` on `{data_type}`");
        }
    }
}

#[test]
fn the_proxy_answers_nothing_that_no_scenario_proves() {
    use sgcache::proxy::supported_filters::{Column, Form, is_supported_form};
    let mut shown = BTreeSet::new();
    for path in paths() {
        let file = read(&path);
        let world = file.world();
        for case in &file.cases {
            let entity_type = EntityType::new(case.of.as_deref().unwrap_or(&file.of));
            for leaf in leaves(&case.raw_filter()) {
                let path = world.schema.path(&entity_type, &leaf.path).expect("a path of the schema");
                let relation: Relation = leaf.relation.parse().expect("a relation");
                let column = Column::of(path.data_type);
                shown.extend(leaf.values.iter().map(|value| (column, relation, Form::of(value))));
            }
        }
    }
    let columns = DataType::names().filter_map(|name| Column::of(name.parse().expect("a name")));
    let forms = [Form::Null, Form::Empty, Form::Text, Form::Number, Form::Bool, Form::Link, Form::Other];
    let mut missing = BTreeSet::new();
    for column in columns {
        for relation in Relation::EVERY {
            let claimed = forms.iter().filter(|form| is_supported_form(column, *relation, **form));
            let unshown = claimed.filter(|form| !shown.contains(&(Some(column), *relation, **form)));
            missing.extend(unshown.map(|form| format!("{relation} on {column:?} with {form:?}")));
        }
    }
    assert!(missing.is_empty(), "no scenario for: {missing:#?}");
}

fn leaves(filter: &RawFilter) -> Vec<RawLeaf> {
    match filter {
        RawFilter::Group { conditions, .. } => conditions.iter().flat_map(leaves).collect(),
        RawFilter::Leaf(leaf) => vec![leaf.clone()],
    }
}

#[test]
fn every_case_names_its_evidence() {
    for path in paths() {
        for case in read(&path).cases {
            let begins = ["1.7", "2.2", "3.", "4.", "9 #"].iter().any(|section| case.evidence.starts_with(section));
            assert!(begins, "{}: {}: {}", path.display(), case.it, case.evidence);
        }
    }
}
