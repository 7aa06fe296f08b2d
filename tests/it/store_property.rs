//! Random rows and random queries: a store answers what local evaluation does.
//!
//! [`agree`] takes any store, and others that look at the same rows. The types stay
//! the same and every world overwrites the rows of the one before, so that changes in
//! place are tested along the way.

use std::cell::{Cell, RefCell};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use sgcache::entity::{DataType, EntityRef, Timestamp};
use sgcache::filter::{FieldPath, Filter, Only, Page, Query, RawFilter, RawLeaf, RawSort, Relation};
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::store::{RowState, Store};
use tokio::runtime::Runtime;

use crate::store_world::{World, WorldRow};

const TYPES: [(&str, &[(&str, &str)]); 3] = [
    ("Project", &[("name", "text"), ("archived", "checkbox")]),
    ("Sequence", &[("code", "text"), ("project", "entity"), ("status", "status_list"), ("shots", "multi_entity")]),
    (
        "Shot",
        &[
            ("about", "entity_type"),
            ("assets", "multi_entity"),
            ("code", "text"),
            ("created_by", "entity"),
            ("cut_in", "number"),
            ("description", "text"),
            ("done", "checkbox"),
            ("due", "date"),
            ("fps", "float"),
            ("image", "image"),
            ("parent", "entity"),
            ("project", "entity"),
            ("ratio", "currency"),
            ("sg_sequence", "entity"),
            ("status", "status_list"),
            ("uid", "uuid"),
            ("updated_at", "date_time"),
        ],
    ),
];

/// How many rows a type has; links also point one id further.
const COUNTS: [(&str, i64); 3] = [("Project", 3), ("Sequence", 4), ("Shot", 9)];

const TEXTS: [&str; 17] =
    ["a", "A", "ab", "aB", "ba", "%", "_", "a%", "é", "É", "ß", "ẞ", "İ", "i", "it's", "\u{10ffff}", "日本"];

/// Runs so many worlds, each with a few dozen queries, against a store; `others`
/// are asked the same.
pub fn agree(runtime: &Runtime, store: &dyn Store, others: &[&dyn Store], worlds: u32) {
    let empty = empty_world();
    runtime.block_on(empty.ensure_types(store));
    let epoch = Cell::new(runtime.block_on(last_epoch(store)));
    let config = Config { cases: worlds, max_shrink_iters: 400, failure_persistence: None, ..Config::default() };
    let strategy = (rows(), prop::collection::vec(query(), 25));
    let before = RefCell::new(Vec::new());
    let outcome = TestRunner::new(config).run(&strategy, |(rows, queries)| {
        let mut world = empty.clone();
        world.rows = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
        let names = [(1, "Ann"), (2, "bob")].map(|(id, name)| (EntityRef::new("HumanUser", id), name.to_owned()));
        world.name_links(&names.into());
        epoch.set(epoch.get() + 1);
        runtime.block_on(async {
            world.put_rows(store, epoch.get()).await;
            // What was asked before may have other answers now; what is asked again has not.
            let before = before.replace(queries.clone());
            for query in before.iter().chain(&queries).chain(&queries[..5]) {
                for store in std::iter::once(&store).chain(others) {
                    world.check(*store, &query.of(&world)).await;
                }
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Another test may have written to the same store.
async fn last_epoch(store: &dyn Store) -> i64 {
    let mut last = 0;
    for (name, _) in TYPES {
        let versions = store.scan(&name.into(), 0, 100).await.expect("a scan");
        last = versions.iter().map(|version| version.rv.epoch()).fold(last, i64::max);
    }
    last
}

fn empty_world() -> World {
    let mut world = World { now: Timestamp::parse("2024-03-13T15:30:00Z"), ..World::default() };
    for (name, fields) in TYPES {
        world.add_type(name, fields.iter().map(|(field, ty)| ((*field).to_owned(), (*ty).to_owned())));
    }
    world
}

fn rows() -> impl Strategy<Value = Vec<WorldRow>> {
    let mut all = Vec::new();
    for (name, fields) in TYPES {
        let count = COUNTS.iter().find(|(counted, _)| *counted == name).map_or(0, |(_, count)| *count);
        for id in 1..=count {
            let values: Vec<_> = fields.iter().map(|(field, ty)| value(field, data_type(ty))).collect();
            let state = prop_oneof![
                8 => Just(RowState::Active), 2 => Just(RowState::Retired), 1 => Just(RowState::Absent)];
            all.push((state, values).prop_map(move |(state, values)| {
                let named = fields.iter().map(|(field, _)| (*field).to_owned());
                let fields: Map<String, Value> = named.zip(values).collect();
                WorldRow { key: EntityRef::new(name, id), state, fields }
            }));
        }
    }
    all
}

fn data_type(name: &str) -> DataType {
    name.parse().expect("the names of data types never fail")
}

fn value(field: &str, data_type: DataType) -> BoxedStrategy<Value> {
    let null = || Just(Value::Null);
    match data_type {
        DataType::Checkbox => any::<bool>().prop_map(Value::from).boxed(),
        DataType::MultiEntity => prop::collection::vec(link(field), 0..4).prop_map(Value::from).boxed(),
        DataType::Entity => prop_oneof![1 => null(), 4 => link(field)].boxed(),
        other => prop_oneof![1 => null(), 4 => scalar(other)].boxed(),
    }
}

fn link(field: &str) -> BoxedStrategy<Value> {
    let of = |name: &'static str, last: i64| {
        (1..=last).prop_map(move |id| json!({"type": name, "id": id, "name": null})).boxed()
    };
    match field {
        "project" => of("Project", 4),
        "sg_sequence" => of("Sequence", 5),
        "shots" => of("Shot", 10),
        "created_by" => of("HumanUser", 2),
        _ => prop_oneof![of("Shot", 10), of("Sequence", 5), of("HumanUser", 2)].boxed(),
    }
}

fn scalar(data_type: DataType) -> BoxedStrategy<Value> {
    let texts = |words: &'static [&'static str]| select(words).prop_map(Value::from).boxed();
    match data_type {
        DataType::Number => (-2..4_i64).prop_map(Value::from).boxed(),
        DataType::Float | DataType::Currency => select(&[-1.5, 0.0, 0.25, 3.0][..]).prop_map(Value::from).boxed(),
        DataType::Date => texts(&["2024-03-13", "2024-03-12", "2024-02-28", "2023-12-31", "2024-04-01"]),
        DataType::DateTime => texts(&[
            "2024-03-13T15:30:00Z",
            "2024-03-13T00:00:00Z",
            "2024-03-12T23:59:59Z",
            "2024-03-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
        ]),
        DataType::StatusList => texts(&["ip", "IP", "wtg", "fin"]),
        DataType::EntityType => texts(&["Shot", "shot", "Asset"]),
        DataType::Uuid => texts(&["de305d54", "DE305D54", "0"]),
        DataType::Image => texts(&["https://m/1.jpg?x=1", "https://m/images/status/transient/a.png"]),
        _ => select(&TEXTS[..]).prop_map(Value::from).boxed(),
    }
}

/// A query before it meets the schema.
#[derive(Clone, Debug)]
struct Drawn {
    entity_type: &'static str,
    filter: RawFilter,
    order: Vec<RawSort>,
    fields: Vec<String>,
    page: Page,
    retired: bool,
    archived: bool,
}

impl Drawn {
    fn of(&self, world: &World) -> Query {
        let entity_type = self.entity_type.into();
        let mut fields = world.layout(&entity_type).paths();
        fields.extend(world.schema.fields(&entity_type, &self.fields));
        Query {
            filter: resolved(world, self.entity_type, &self.filter).at(world.now.expect("a time")),
            order: world.schema.order(&entity_type, &self.order),
            fields,
            page: self.page,
            only: if self.retired { Only::Retired } else { Only::Active },
            include_archived_projects: self.archived,
            entity_type,
        }
    }
}

/// Checks the conditions one by one; those that a site would refuse, or whose
/// meaning nobody knows, match every row.
fn resolved(world: &World, entity_type: &str, raw: &RawFilter) -> Filter {
    match raw {
        RawFilter::Group { any, conditions } => {
            let conditions = conditions.iter().map(|raw| resolved(world, entity_type, raw)).collect();
            if *any { Filter::any(conditions) } else { Filter::All(conditions) }
        }
        leaf => world.schema.filter(&entity_type.into(), leaf).unwrap_or_default(),
    }
}

fn query() -> impl Strategy<Value = Drawn> {
    prop_oneof![4 => Just("Shot"), 1 => Just("Sequence")].prop_flat_map(|entity_type| {
        let all = paths(entity_type);
        let names: Vec<_> = all.iter().map(ToString::to_string).collect();
        let sort = (select(names.clone()), any::<bool>()).prop_map(|(path, descending)| RawSort { path, descending });
        let page = prop_oneof![2 => Just((100, 1)), 3 => (1..6_u32, 1..4_u32)];
        (
            filter(all),
            prop::collection::vec(sort, 0..3),
            prop::collection::vec(select(names), 0..4),
            page,
            prop::bool::weighted(0.15),
            prop::bool::weighted(0.8),
        )
            .prop_map(move |(filter, order, fields, (size, number), retired, archived)| {
                let page = Page { size, number };
                Drawn { entity_type, filter, order, fields, page, retired, archived }
            })
    })
}

fn filter(paths: Vec<FieldPath>) -> impl Strategy<Value = RawFilter> {
    let leaf = select(paths).prop_flat_map(|path| {
        let relations = Relation::allowed(path.data_type);
        select(relations).prop_flat_map(move |relation| {
            let path = path.clone();
            operands(&path, relation).prop_map(move |values| {
                RawFilter::Leaf(RawLeaf { path: path.to_string(), relation: relation.to_string(), values })
            })
        })
    });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let conditions = prop::collection::vec(inner, 0..4);
        (any::<bool>(), conditions).prop_map(|(any, conditions)| RawFilter::Group { any, conditions })
    })
}

fn operands(path: &FieldPath, relation: Relation) -> BoxedStrategy<Vec<Value>> {
    let single = |strategy: BoxedStrategy<Value>| prop::collection::vec(strategy, 1).boxed();
    let texts = || prop_oneof![9 => select(&TEXTS[..]).prop_map(Value::from), 1 => Just(Value::from(""))].boxed();
    let links = matches!(path.data_type, DataType::Entity | DataType::MultiEntity);
    let one = if links { link(&path.field) } else { operand(path.data_type) };
    match relation {
        Relation::Is | Relation::IsNot => single(prop_oneof![1 => Just(Value::Null), 4 => one].boxed()),
        Relation::In | Relation::NotIn => prop::collection::vec(one, 1..4).boxed(),
        Relation::Between => prop::collection::vec(one, 2).boxed(),
        Relation::InLast | Relation::NotInLast | Relation::InNext | Relation::NotInNext => {
            let unit = select(&["HOUR", "DAY", "WEEK", "MONTH", "YEAR"][..]);
            (1..4_i64, unit).prop_map(|(count, unit)| vec![count.into(), unit.into()]).boxed()
        }
        Relation::InCalendarDay | Relation::InCalendarWeek | Relation::InCalendarMonth | Relation::InCalendarYear => {
            single((-2..2_i64).prop_map(Value::from).boxed())
        }
        Relation::TypeIs | Relation::TypeIsNot => {
            single(select(&["Shot", "Sequence", "HumanUser", "Nothing"][..]).prop_map(Value::from).boxed())
        }
        Relation::NameIs | Relation::NameContains | Relation::NameNotContains => single(texts()),
        _ if path.data_type == DataType::Text => single(texts()),
        _ => single(one),
    }
}

fn operand(data_type: DataType) -> BoxedStrategy<Value> {
    match data_type {
        DataType::Checkbox => any::<bool>().prop_map(Value::from).boxed(),
        other => scalar(other),
    }
}

/// Returns every path of up to two hops over cached types.
fn paths(entity_type: &str) -> Vec<FieldPath> {
    let schema = empty_world().schema;
    let mut texts = vec![(String::new(), entity_type.to_owned())];
    let mut found = Vec::new();
    for _ in 0..3 {
        let mut next = Vec::new();
        for (prefix, owner) in texts {
            let entity = schema.entity(&owner.as_str().into()).expect("a type of the world");
            for (name, field) in &entity.fields {
                found.extend(schema.path(&entity_type.into(), &format!("{prefix}{name}")));
                if matches!(field.data_type, DataType::Entity | DataType::MultiEntity) {
                    next.extend(targets(name).iter().map(|ty| (format!("{prefix}{name}.{ty}."), (*ty).to_owned())));
                }
            }
        }
        texts = next;
    }
    found
}

fn targets(field: &str) -> &'static [&'static str] {
    match field {
        "project" => &["Project"],
        "sg_sequence" => &["Sequence"],
        "shots" => &["Shot"],
        "created_by" => &[],
        _ => &["Shot", "Sequence"],
    }
}

#[test]
fn the_embedded_store_agrees_with_local_evaluation() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = EmbeddedSettings::new(dir.path().join("store.sqlite"));
    let store = EmbeddedStore::open(settings.clone()).expect("a store");
    // As other processes would see it, one without room for columns between two queries.
    let other = EmbeddedStore::open(settings.clone()).expect("a store");
    let cramped = EmbeddedStore::open(EmbeddedSettings { memory: 0, ..settings }).expect("a store");
    let runtime = Runtime::new().expect("a runtime");
    let worlds = std::env::var("SGCACHE_TEST_WORLDS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    agree(&runtime, &store, &[&other, &cramped], worlds);
}
