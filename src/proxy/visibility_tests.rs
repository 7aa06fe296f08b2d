//! The property of a scope: a caller's answers are the same over two caches that differ
//! only in what the caller may not see.
//!
//! Two stores are filled with the same random rows, apart from hidden types, hidden fields
//! and rows of hidden projects; what is cached, how fresh it is and what is quarantined
//! differs for hidden types, too. Random requests of the caller are decided and answered
//! over both.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::tests::{catalogue, find};
use super::*;
use crate::entity::{DataType, EntityRef, EntityType, Timestamp};
use crate::entity_config::{LayoutField, TypeLayout};
use crate::filter::{Filter, RawFilter};
use crate::schema::display_name_field;
use crate::store::embedded::{EmbeddedSettings, EmbeddedStore};
use crate::store::{FetchedRow, ReadVersion, RowState, Store};

const SCOPES: u64 = 30;
const REQUESTS: usize = 100;
const WORDS: &[&str] = &["a", "ab", "b", "ba", "c"];

type World = Vec<(EntityRef, Map<String, Value>)>;

/// The paths that requests name, of whatever type.
const PATHS: &[&str] = &[
    "id",
    "code",
    "name",
    "cut_in",
    "done",
    "secret",
    "nothing",
    "sg_sequence",
    "sg_sequence.Sequence.code",
    "sg_sequence.Sequence.done",
    "sg_sequence.Sequence.secret",
    "sg_sequence.Sequence.project",
    "sg_sequence.Sequence.project.Project.name",
    "assets",
    "assets.Asset.code",
    "project",
    "project.Project.name",
    "project.Project.archived",
    "created_by",
    "created_by.HumanUser.login",
    "created_at",
];

pub(super) fn layout(entity_type: &EntityType, known: &Catalogue) -> TypeLayout {
    let cached = &known.stored.types[entity_type];
    let field = |(name, data_type): (&String, &DataType)| LayoutField {
        name: name.clone(),
        data_type: *data_type,
        valid_types: Vec::new(),
        mapping: None,
    };
    TypeLayout {
        entity_type: entity_type.clone(),
        fields: cached.fields.iter().filter(|(name, _)| name.as_str() != "id").map(field).collect(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: "h".into(),
    }
}

/// Draws a value; links carry no names yet.
fn value(rng: &mut StdRng, field: &str, data_type: DataType) -> Value {
    let link = |ty: &str, id: i64| json!({"type": ty, "id": id});
    match (field, data_type) {
        ("sg_sequence", _) => link("Sequence", rng.random_range(10..13)),
        ("assets", _) => json!([link("Asset", rng.random_range(20..23))]),
        ("project", _) => link("Project", rng.random_range(1..3)),
        ("created_by", _) => link("HumanUser", rng.random_range(30..32)),
        (_, DataType::Text) => (*WORDS.choose(rng).expect("words")).into(),
        (_, DataType::Number | DataType::Currency) => rng.random_range(0..5).into(),
        (_, DataType::Checkbox) => rng.random::<bool>().into(),
        (_, DataType::DateTime) => format!("2024-01-0{}T00:00:00Z", rng.random_range(1..9)).into(),
        _ => Value::Null,
    }
}

fn row(rng: &mut StdRng, entity_type: &EntityType, known: &Catalogue) -> Map<String, Value> {
    let fields = layout(entity_type, known).fields;
    fields.iter().map(|field| (field.name.clone(), value(rng, &field.name, field.data_type))).collect()
}

fn world(rng: &mut StdRng, known: &Catalogue) -> World {
    let ids = [("Project", 1..3), ("Sequence", 10..13), ("Asset", 20..23), ("Shot", 100..110)];
    let keys = ids.into_iter().flat_map(|(ty, ids)| ids.map(move |id| EntityRef::new(ty, id)));
    keys.map(|key| (key.clone(), row(rng, &key.entity_type, known))).collect()
}

fn project_of(key: &EntityRef, row: &Map<String, Value>) -> Option<i64> {
    if key.entity_type == "Project" { Some(key.id) } else { row.get("project")?["id"].as_i64() }
}

/// Returns the same world with other values wherever the caller may not look.
fn changed(rng: &mut StdRng, before: &World, limits: &Limits, known: &Catalogue) -> World {
    let mut after = Vec::new();
    for (key, fields) in before {
        let ty = &key.entity_type;
        let project = project_of(key, fields);
        let outside = limits.projects.as_ref().is_some_and(|seen| project.is_none_or(|id| !seen.contains(&id)));
        let mut other = row(rng, ty, known);
        if limits.sees_type(ty) && !outside {
            let seen = |field: &str| limits.sees_field(ty, field) || (limits.projects.is_some() && field == "project");
            other = fields
                .iter()
                .map(|(name, old)| (name.clone(), if seen(name) { old.clone() } else { other[name].clone() }))
                .collect();
        } else if rng.random_bool(0.3) {
            continue;
        } else if let Some(project) = fields.get("project").filter(|_| outside) {
            other.insert("project".into(), project.clone());
        }
        after.push((key.clone(), other));
    }
    after
}

/// Gives links the names of their targets.
fn named(world: &World) -> World {
    let name = |link: &Value| {
        let key = EntityRef::from_json(link)?;
        let (_, row) = world.iter().find(|(other, _)| *other == key)?;
        row.get(display_name_field(&key.entity_type)).cloned()
    };
    let with_name = |link: &Value| {
        let mut link = link.clone();
        let found = name(&link).unwrap_or_else(|| "someone".into());
        link["name"] = found;
        link
    };
    let fill = |value: &Value| match value {
        Value::Object(_) => with_name(value),
        Value::Array(links) => links.iter().map(with_name).collect(),
        other => other.clone(),
    };
    let row = |fields: &Map<String, Value>| fields.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
    world.iter().map(|(key, fields)| (key.clone(), row(fields))).collect()
}

async fn store(directory: &Path, world: &World, known: &Catalogue) -> EmbeddedStore {
    let store = EmbeddedStore::open(EmbeddedSettings::new(directory.join("store.sqlite"))).expect("a store");
    for ty in known.stored.types.keys() {
        store.ensure_type(&layout(ty, known)).await.expect("a type");
    }
    let fetched = |(key, fields): (EntityRef, Map<String, Value>)| {
        let layout = layout(&key.entity_type, known);
        // The same in both stores: of what is seen the state is, too.
        let state = if key.id % 5 == 2 { RowState::Retired } else { RowState::Active };
        let row = FetchedRow::from_site(&layout, key, ReadVersion(1), state, fields, Timestamp(0), None);
        row.expect("a whole row")
    };
    let rows: Vec<_> = named(world).into_iter().map(fetched).collect();
    store.put(&rows).await.expect("the rows");
    store
}

/// Makes the hidden types of a catalogue old, quarantined, or not cached at all.
fn unsettled(rng: &mut StdRng, mut known: Catalogue, limits: &Limits) -> Catalogue {
    let types: Vec<_> = known.stored.types.keys().cloned().collect();
    let (stored, status) = (Arc::make_mut(&mut known.stored), Arc::make_mut(&mut known.standing));
    for ty in types {
        if limits.sees_type(&ty) {
            let fields = &mut stored.types.get_mut(&ty).expect("a type").fields;
            fields.retain(|name, _| limits.sees_field(&ty, name) || name == "project" || name == "archived");
            continue;
        }
        match rng.random_range(0..3) {
            0 => drop(stored.types.remove(&ty)),
            1 => drop(status.marked.insert(ty, known.now.before(Duration::from_secs(3600)))),
            _ => status.types.get_mut(&ty).expect("a type").breaker = true,
        }
    }
    known
}

fn limits(rng: &mut StdRng) -> Limits {
    let all = ["Shot", "Sequence", "Asset", "Project", "HumanUser"];
    let some = |rng: &mut StdRng, names: &[&str], chance: f64| -> BTreeSet<String> {
        names.iter().filter(|_| rng.random_bool(chance)).map(|name| (*name).to_owned()).collect()
    };
    let types = rng.random_bool(0.7).then(|| some(rng, &all, 0.85).into_iter().map(EntityType::new).collect());
    let mut fields = std::collections::BTreeMap::new();
    for ty in all.iter().filter(|_| rng.random_bool(0.25)).collect::<Vec<_>>() {
        let local: Vec<_> = PATHS.iter().copied().filter(|path| !path.contains('.')).collect();
        fields.insert(EntityType::new(ty), some(rng, &local, 0.8));
    }
    Limits { types, fields, projects: rng.random_bool(0.3).then(|| [1].into()) }
}

fn condition(rng: &mut StdRng) -> Value {
    let word = *WORDS.choose(rng).expect("words");
    let choices = [
        json!(["code", "contains", word]),
        json!(["sg_sequence.Sequence.code", "is", word]),
        json!(["sg_sequence.Sequence.done", "is", true]),
        json!(["sg_sequence.Sequence.secret", "is", word]),
        json!(["sg_sequence", "is", {"type": "Sequence", "id": 10, "name": word}]),
        json!(["sg_sequence", "name_contains", word]),
        json!(["sg_sequence", "is", null]),
        json!(["assets", "name_contains", word]),
        json!(["assets.Asset.code", "is", word]),
        json!(["project", "is", {"type": "Project", "id": 2}]),
        json!(["project.Project.name", "starts_with", word]),
        json!(["created_by", "name_contains", word]),
        json!(["cut_in", "greater_than", 2]),
        json!(["done", "is", true]),
        json!(["name", "contains", word]),
        json!(["id", "in", [10, 21, 101, 105]]),
        json!(["id", "not_in", [1, 102]]),
        json!(["cut_in", "between", 1, 3]),
        json!(["code", "is_not", word]),
        json!(["sg_sequence", "is_not", {"type": "Sequence", "id": 11}]),
        json!(["project", "in", {"type": "Project", "id": 1}, {"type": "Project", "id": 2}]),
        json!(["created_at", "greater_than", "2024-01-04T00:00:00Z"]),
    ];
    choices.choose(rng).expect("conditions").clone()
}

/// Draws a condition, or a group of them.
fn filter(rng: &mut StdRng, depth: usize) -> Value {
    if depth == 0 || rng.random_bool(0.7) {
        return condition(rng);
    }
    let operator = *["any", "all"].choose(rng).expect("operators");
    let parts: Vec<Value> = (0..2).map(|_| filter(rng, depth - 1)).collect();
    json!({"filter_operator": operator, "filters": parts})
}

fn request(rng: &mut StdRng) -> Asked {
    // Mostly about shots: they have the links.
    let ty =
        *["Shot", "Shot", "Shot", "Sequence", "Asset", "Project", "HumanUser", "Nothing"].choose(rng).expect("types");
    let filters: Vec<Value> = (0..rng.random_range(0..2)).map(|_| filter(rng, 2)).collect();
    let paths = |rng: &mut StdRng, up_to: usize| {
        (0..rng.random_range(0..=up_to)).map(|_| *PATHS.choose(rng).expect("paths")).collect::<Vec<_>>()
    };
    let mut argument = find(ty, json!(filters), json!(paths(rng, 2)));
    let mut method = "read";
    if rng.random_bool(0.2) {
        method = "summarize";
        let kind = *["count", "record_count", "maximum"].choose(rng).expect("kinds");
        let field = *PATHS.choose(rng).expect("paths");
        argument = json!({"type": ty, "filters": argument["filters"], "summaries": [{"field": field, "type": kind}]});
    } else {
        let sorts = paths(rng, 1).into_iter().map(|path| json!({"field_name": path, "direction": "asc"}));
        argument["sorts"] = sorts.collect();
        argument["paging"]["entities_per_page"] = rng.random_range(1..6).into();
        argument["paging"]["current_page"] = rng.random_range(1..3).into();
        argument["return_only"] = (*["active", "active", "retired"].choose(rng).expect("lists")).into();
        argument["return_paging_info"] = rng.random::<bool>().into();
        argument["return_paging_info_without_counts"] = (argument["return_paging_info"] == false).into();
        argument["include_archived_projects"] = rng.random_bool(0.9).into();
    }
    let body = json!({"method_name": method, "params": [{"script_name": "s", "script_key": "k"}, argument]});
    Asked::parse(body.to_string().as_bytes()).expect("a request")
}

/// Everything that a caller sees of an answer.
async fn answered(asked: &Asked, scope: &Scope, known: &Catalogue, store: &dyn Store) -> (String, bool) {
    let serve = match decide(asked, scope, known) {
        Decision::Pass(pass) => return (format!("{pass:?}"), false),
        Decision::Serve(serve) => serve,
    };
    let (answered, fresh) = match &*serve {
        Serve::Read(plan) => (answer::read(store, plan, None).await, plan.fresh_as_of),
        Serve::Summarize(plan) => (answer::summarize(store, plan).await, plan.fresh_as_of),
        other => panic!("{other:?}"),
    };
    match answered {
        Ok(answered) => (format!("{} {fresh:?}", String::from_utf8_lossy(&answered.body)), true),
        Err(pass) => (format!("{pass:?}"), false),
    }
}

#[tokio::test]
async fn answers_depend_only_on_what_the_caller_may_see() {
    let known = catalogue();
    let (mut served, mut passed, mut would_differ) = (0, 0, 0);
    for seed in 0..SCOPES {
        let rng = &mut StdRng::seed_from_u64(seed);
        let limits = limits(rng);
        let before = world(rng, &known);
        let after = changed(rng, &before, &limits, &known);
        let directories = [(), ()].map(|()| tempfile::tempdir().expect("a directory"));
        let one = store(directories[0].path(), &before, &known).await;
        let other = store(directories[1].path(), &after, &known).await;
        let elsewhere = unsettled(rng, known.clone(), &limits);
        let scope = Scope::Limited(limits.clone());
        for _ in 0..REQUESTS {
            let asked = request(rng);
            let (here, is_served) = answered(&asked, &scope, &known, &one).await;
            let (there, _) = answered(&asked, &scope, &elsewhere, &other).await;
            assert_eq!(here, there, "seed {seed}, {limits:?}, {:?}", asked.request);
            *if is_served { &mut served } else { &mut passed } += 1;
            let all = [&one, &other].map(|store| answered(&asked, &Scope::Full, &known, store));
            let [here, there] = all;
            would_differ += usize::from(here.await.0 != there.await.0);
        }
    }
    assert!(served > 100 && passed > 100 && would_differ > 100, "{served} {passed} {would_differ}");
}

/// Decides on a read of one field of Shots by a caller with these fields of types.
fn reason_of(known: &Catalogue, field: &str, fields: &[(&str, &[&str])]) -> Option<Reason> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let fields = fields.iter().map(|(ty, fields)| (EntityType::new(ty), names(fields))).collect();
    let scope = Scope::Limited(Limits { fields, ..Limits::default() });
    let asked = super::tests::asked("read", find("Shot", json!([]), json!([field])));
    match decide(&asked, &scope, known) {
        Decision::Serve(_) => None,
        Decision::Pass(pass) => Some(pass.reason),
    }
}

#[test]
fn a_name_that_the_site_makes_of_several_fields_needs_all_of_them() {
    let mut known = catalogue();
    let schema = Arc::make_mut(&mut known.schema);
    let shot = schema.types.get_mut(&EntityType::new("Shot")).expect("a type");
    shot.fields.get_mut("created_by").expect("a field").valid_types = vec!["ApiUser".into()];
    for (fields, expected) in [
        (&["firstname"][..], Some(Reason::Scope)),
        (&["cached_display_name"], Some(Reason::Scope)),
        (&["firstname", "cached_display_name"], None),
    ] {
        assert_eq!(reason_of(&known, "created_by", &[("ApiUser", fields)]), expected, "{fields:?}");
    }
}

#[test]
fn a_link_that_may_lead_to_anything_needs_the_names_of_every_type() {
    let mut known = catalogue();
    let schema = Arc::make_mut(&mut known.schema);
    let shot = schema.types.get_mut(&EntityType::new("Shot")).expect("a type");
    shot.fields.get_mut("sg_sequence").expect("a field").valid_types = Vec::new();
    assert_eq!(reason_of(&known, "sg_sequence", &[]), None);
    assert_eq!(reason_of(&known, "sg_sequence", &[("Asset", &["id"])]), Some(Reason::Scope));
}

#[test]
fn a_caller_without_a_scope_has_one_answer_whatever_it_asks() {
    let unmapped = Scope::Nothing(Pass::new(Reason::UnknownCaller, "not in `api.callers`"));
    let auth = json!({"script_name": "s", "script_key": "k"});
    let filters = json!([["nothing", "is", "x"]]);
    let arguments = [
        find("Shot", json!([]), json!(["code"])),
        find("HumanUser", json!([]), json!([])),
        find("Nothing", json!([]), json!([])),
        find("Shot", filters, json!(["secret"])),
        json!({"unknown": 1}),
        json!([]),
    ];
    for argument in arguments {
        for method in ["read", "summarize", "schema_read", "schema_entity_read", "schema_field_read"] {
            for more in [json!([auth, argument]), json!([auth, argument, {}])] {
                let body = json!({"method_name": method, "params": more}).to_string();
                for asked in [Asked::parse(body.as_bytes()), Asked::parse_if(body.as_bytes(), |_, _| false)] {
                    let Decision::Pass(pass) = decide(&asked.expect("a request"), &unmapped, &catalogue()) else {
                        panic!("{body} is served");
                    };
                    assert_eq!(pass.reason, Reason::UnknownCaller, "{body}");
                }
            }
        }
    }
}
