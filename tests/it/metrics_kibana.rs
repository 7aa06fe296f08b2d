//! The objects for Kibana: that they hold together, and that a real Elasticsearch
//! answers what they ask over the documents of real deliveries.
//!
//! The file was made for Kibana 7.10 and later, and OpenSearch Dashboards; neither is
//! to be had here, so what they would ask is put together from the objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::prometheus::repository;
use crate::report_elastic::{Case, report};

/// Every object of the file.
fn objects() -> Vec<Value> {
    let text = std::fs::read_to_string(repository("metrics/kibana/sgcache.ndjson")).expect("the objects");
    text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

/// Reads a part of an object that is JSON in a text.
fn inner(object: &Value, path: &str) -> Value {
    let text = object.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("{path} is no text: {object}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn of_type<'o>(objects: &'o [Value], wanted: &str) -> impl Iterator<Item = &'o Value> {
    objects.iter().filter(move |object| object["type"] == wanted)
}

/// The pattern of the indices that an object looks at.
fn pattern(objects: &[Value], object: &Value) -> String {
    let source = inner(object, "/attributes/kibanaSavedObjectMeta/searchSourceJSON");
    let references = object["references"].as_array().expect("references");
    let view = references.iter().find(|reference| reference["name"] == source["indexRefName"]).expect("a data view");
    let view = objects.iter().find(|object| object["id"] == view["id"]).expect("it is there");
    view["attributes"]["title"].as_str().expect("a pattern").to_owned()
}

/// The fields that an object looks at.
fn fields(object: &Value) -> BTreeSet<String> {
    if object["type"] == "search" {
        let columns = object["attributes"]["columns"].as_array().expect("columns");
        return columns.iter().map(|column| column.as_str().expect("a field").to_owned()).collect();
    }
    let aggregations = inner(object, "/attributes/visState")["aggs"].take();
    let used = aggregations.as_array().into_iter().flatten();
    used.filter_map(|one| one["params"]["field"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_objects_refer_to_each_other_and_fill_the_dashboard() {
    let objects = objects();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let ids: BTreeMap<_, _> = objects.iter().map(|object| (text(&object["id"]), text(&object["type"]))).collect();
    assert_eq!(ids.len(), objects.len(), "ids are unique");
    for reference in objects.iter().flat_map(|object| object["references"].as_array().expect("references")) {
        assert_eq!(ids.get(&text(&reference["id"])), Some(&text(&reference["type"])), "{reference}");
    }
    let dashboard = of_type(&objects, "dashboard").next().expect("a dashboard");
    let panels = inner(dashboard, "/attributes/panelsJSON");
    let panels = panels.as_array().expect("panels");
    let shown: BTreeSet<_> = panels.iter().map(|panel| panel["panelRefName"].as_str()).collect();
    let referred: BTreeSet<_> =
        dashboard["references"].as_array().expect("references").iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(shown, referred);
    assert_eq!(panels.len() + 1 + of_type(&objects, "index-pattern").count(), objects.len(), "nothing is left over");

    let mut taken = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridData"][side].as_u64().expect("a number"));
        assert!(x + w <= 48, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "two panels at {cell:?}");
        }
    }
    for object in of_type(&objects, "visualization") {
        assert_eq!(inner(object, "/attributes/visState")["title"], object["attributes"]["title"]);
        assert!(object["attributes"]["description"].as_str().is_some_and(|words| !words.is_empty()), "{object}");
        inner(object, "/attributes/uiStateJSON");
    }
    inner(dashboard, "/attributes/optionsJSON");
}

/// The aggregations of a visualization: buckets from the outermost in, and numbers by id.
fn aggregations(object: &Value) -> (Vec<Value>, Map<String, Value>) {
    let all = inner(object, "/attributes/visState")["aggs"].take();
    let all = all.as_array().expect("aggregations").clone();
    let (metrics, buckets): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one["schema"] == "metric");
    let number = |one: &Value| {
        let ty = one["type"].as_str().expect("a type");
        (one["id"].as_str().expect("an id").to_owned(), json!({ty: {"field": one["params"]["field"]}}))
    };
    (buckets, metrics.iter().filter(|one| one["type"] != "count").map(number).collect())
}

/// What Kibana asks: buckets within each other, the numbers in each.
fn asked(buckets: &[Value], metrics: &Map<String, Value>) -> Map<String, Value> {
    let mut level = metrics.clone();
    let Some((outer, rest)) = buckets.split_first() else { return level };
    let (params, field) = (&outer["params"], &outer["params"]["field"]);
    let mut bucket = match outer["type"].as_str() {
        Some("date_histogram") => json!({"date_histogram": {"field": field, "fixed_interval": "1d"}}),
        Some("terms") => {
            let by = params["orderBy"].as_str().filter(|id| metrics.contains_key(*id)).unwrap_or("_count");
            json!({"terms": {"field": field, "size": params["size"], "order": {by: params["order"]}}})
        }
        other => panic!("{other:?} is not known here"),
    };
    bucket["aggs"] = asked(rest, metrics).into();
    level.insert(outer["id"].as_str().expect("an id").to_owned(), bucket);
    level
}

/// Demands a bucket on every level, and numbers in the innermost.
fn check(what: &Value, found: &Value, buckets: &[Value], metrics: &Map<String, Value>) {
    match buckets.split_first() {
        Some((outer, rest)) => {
            let id = outer["id"].as_str().expect("an id");
            check(what, &found[id]["buckets"][0], rest, metrics);
        }
        None => {
            assert!(found.is_object(), "{what} finds nothing");
            for id in metrics.keys() {
                assert!(found[id]["value"].is_number(), "{what}: {id} of {found}");
            }
        }
    }
}

#[tokio::test]
async fn elasticsearch_answers_what_every_visualization_asks() {
    let Some(case) = Case::start().await else { return };
    let mut counted = report("RUN2");
    let shot = counted.steps[0].result.by_type.get_mut("Shot").expect("a type");
    (shot.site_count, shot.cache_count, shot.stale_ratio_upper95) = (Some(1_000), Some(999), Some(0.003));
    case.report(&report("RUN1")).await;
    case.report(&counted).await;
    case.delivery(case.url).drain().await.expect("documents");
    let objects = objects();
    for object in of_type(&objects, "visualization").chain(of_type(&objects, "search")) {
        let title = &object["attributes"]["title"];
        let stream = pattern(&objects, object).trim_start_matches("sgcache-").trim_end_matches('*').to_owned();
        let known = case.mappings(&stream).await;
        for field in fields(object) {
            assert_eq!(known.get(&field), Some(&true), "{title}: `{field}` cannot be summed or sorted");
        }
        if object["type"] == "search" {
            continue;
        }
        let (buckets, metrics) = aggregations(object);
        let found = case.search(&stream, json!({"size": 0, "aggs": asked(&buckets, &metrics)})).await;
        // One without buckets and numbers counts documents.
        let nothing = json!({});
        check(title, found.get("aggregations").unwrap_or(&nothing), &buckets, &metrics);
    }
}
