//! The scenario files over HTTP: the unmodified Python client asks the simulated site
//! and the proxy before it, and both answer what stands in the files.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, stream};
use serde_json::{Map, Value, json};
use sgcache::entity::{DataType, EntityType};
use sgcache::proxy::{Decision, Semantics, Settings};
use sgcache::schema::display_name_field;
use sgcache::sim::{Rows, Site};
use sgcache::store::RowState;

use crate::proxy_python::run;
use crate::proxy_rig::{Rig, written};
use crate::scenarios::{Case, File, paths, read};
use crate::servers::python;
use crate::store_world::{World, WorldRow};

/// What one query was answered.
#[derive(serde::Deserialize)]
struct Answers {
    site: Value,
    proxy: Value,
    said: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_gets_what_every_scenario_says_from_site_and_proxy() {
    let Some(python) = python("proxy_scenarios") else { return };
    // Most of the time is spent waiting for the cache to follow.
    stream::iter(paths()).for_each_concurrent(4, |path| hold(&python, path)).await;
}

async fn hold(python: &str, path: PathBuf) {
    let (name, file) = (path.file_name().expect("a file").to_string_lossy().into_owned(), read(&path));
    let world = file.world();
    let rig = rig(&file, &world).await;
    let cases: Vec<_> = file.cases.iter().map(|case| arguments(case, &world, &file.of)).collect();
    let answers = ask(python, &rig, &Value::from(cases)).await;
    assert_eq!(answers.len(), file.cases.len());
    for (case, answers) in file.cases.iter().zip(answers) {
        compare(&name, case, &world, &file.of, &answers);
    }
}

fn compare(name: &str, case: &Case, world: &World, of: &str, answers: &Answers) {
    let what = format!("{name}: {} ({})", case.it, case.evidence);
    assert_eq!(answers.site, answers.proxy, "{what}");
    let query = case.query(world, of);
    match case.decision(world, &query) {
        Decision::Serve(_) => assert!(answers.said.starts_with("hit"), "{what}: {}", answers.said),
        Decision::Pass(pass) => assert_eq!(answers.said, format!("pass; reason={}", pass.reason), "{what}"),
    }
    let Some(expected) = &case.ids else { return };
    let ids: Vec<_> = answers.site.as_array().into_iter().flatten().filter_map(|row| row["id"].as_i64()).collect();
    assert_eq!(&ids, expected, "{what}: {}", answers.site);
}

/// Starts a site with the rows of a file, and the cache with its types.
async fn rig(file: &File, world: &World) -> Rig {
    let site = Site::empty();
    if let Some(now) = world.now {
        site.clock.run(now.0 - chrono::Utc::now().timestamp());
    }
    site.set_reading("tasks_of_retired", "stay").expect("a reading");
    let schemas = world.schema.types.iter().map(|(ty, entity)| (ty.to_string(), entity.fields_to_wire(None)));
    site.add_fields(&Value::Object(schemas.collect())).expect("fields");
    let named = |(name, entities): (&String, &BTreeMap<i64, String>)| {
        let field = display_name_field(&EntityType::new(name));
        let row = |(id, shown)| Map::from_iter([("id".into(), json!(id)), (field.into(), json!(shown))]);
        Rows { entity_type: name.clone(), rows: entities.iter().map(row).collect() }
    };
    site.load(&file.uncached.iter().map(named).collect::<Vec<_>>()).expect("names");
    // A project is retired before it has entities: what becomes of them is not simulated.
    let (projects, others) = world.cached.iter().partition::<Vec<_>, _>(|ty| **ty == "Project");
    for types in [projects, others] {
        let mut retired = Vec::new();
        let rows = types.iter().map(|ty| {
            let of_type = world.rows.values().filter(|row| row.key.entity_type == **ty);
            let with_id = |row: &WorldRow| {
                if row.state == RowState::Retired {
                    retired.push(row.key.clone());
                }
                row.fields.clone().into_iter().chain([("id".into(), row.key.id.into())]).collect()
            };
            Rows { entity_type: ty.to_string(), rows: of_type.map(with_id).collect() }
        });
        let loaded = site.load(&rows.collect::<Vec<_>>()).expect("the rows of the scenario");
        assert!(loaded.unknown_fields.is_empty(), "{loaded:?}");
        for key in retired {
            site.retire(key.entity_type.as_str(), key.id).expect("a retirement");
        }
    }
    let configs: Vec<_> = world.cached.iter().map(|ty| (ty.to_string(), config(world, ty))).collect();
    let configs: Vec<_> = configs.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let semantics = Semantics::EVERY.iter().copied().collect();
    Rig::start(Arc::clone(&site), written(&configs), Settings { semantics, ..Settings::default() }).await
}

fn config(world: &World, ty: &EntityType) -> String {
    let fields: Map<_, _> = world.layout(ty).fields.iter().map(|field| (field.name.clone(), json!({}))).collect();
    json!({"fields": fields}).to_string()
}

/// The arguments of `find`.
fn arguments(case: &Case, world: &World, of: &str) -> Value {
    let ty = EntityType::new(case.of.as_deref().unwrap_or(of));
    let layout = world.layout(&ty);
    let own = layout.fields.iter().filter(|field| field.data_type != DataType::Image).map(|field| field.name.as_str());
    let deep = case.fields.iter().map(String::as_str).filter(|path| !path.contains("image"));
    let mut find = json!({
        "entity_type": ty, "filters": case.filter.clone().unwrap_or_else(|| json!([])),
        "fields": own.chain(deep).collect::<Vec<_>>(), "order": order(case),
        "filter_operator": if case.any { "any" } else { "all" }, "retired_only": case.retired_only,
        "include_archived_projects": case.include_archived_projects.unwrap_or(true),
    });
    if let Some((size, number)) = case.page {
        (find["limit"], find["page"]) = (size.into(), number.into());
    }
    find
}

fn order(case: &Case) -> Vec<Value> {
    let keys =
        case.order.as_deref().map_or_else(Vec::new, |text| sgcache::filter::parse_order(text).expect("an order"));
    let direction = |descending| if descending { "desc" } else { "asc" };
    keys.iter().map(|key| json!({"field_name": key.path, "direction": direction(key.descending)})).collect()
}

async fn ask(python: &str, rig: &Rig, cases: &Value) -> Vec<Answers> {
    let file = rig.directory.path().join("cases.json");
    std::fs::write(&file, cases.to_string()).expect("the cases");
    let arguments = vec![rig.site_url.clone(), rig.url.clone(), file.display().to_string()];
    let (output, said) = run(python.to_owned(), "scenarios.py", arguments).await;
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("answers")).collect()
}
