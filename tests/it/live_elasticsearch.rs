//! The main job with rows and reports in a real Elasticsearch: site and daemon as
//! two processes, and the commands beside them.

use serde_json::{Value, json};

use crate::program::Place;
use crate::servers::{TestIndices, elasticsearch};

const SUITE: &str = "live_elasticsearch";
/// Nothing listens on the discard port.
const CLOSED: &str = "http://127.0.0.1:9";

/// Puts the rows of a place into a server.
fn store_in(place: &Place, url: &str, prefix: &str) {
    let store = format!("store:\n  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0");
    place.edit("config.yaml", "store:\n  kind: embedded", &store);
}

/// Sends the reports of a place to a server.
fn report_to(place: &Place, url: &str, prefix: &str) {
    let reports = format!("reports:\n  elasticsearch:\n    url: {url}\n    prefix: {prefix}\n\n# Where `sgcache");
    place.edit("config.yaml", "# Where `sgcache", &reports);
}

async fn ask(url: &str) -> Value {
    let client = reqwest::Client::new();
    let answer = client.get(url).send().await.expect("an answer").error_for_status().expect("a good answer");
    answer.json().await.expect("JSON")
}

/// Returns the documents of a report stream.
async fn documents(url: &str, stream: &str) -> Vec<Value> {
    ask(&format!("{url}/{stream}/_refresh")).await;
    let found = ask(&format!("{url}/{stream}/_search?size=100")).await;
    let hits = found["hits"]["hits"].as_array().expect("hits");
    hits.iter().map(|hit| hit["_source"].clone()).collect()
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn the_two_processes_keep_rows_and_reports_in_elasticsearch() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let place = Place::new();
    store_in(&place, url, indices.prefix());
    report_to(&place, url, indices.prefix());
    let _sim = place.sim(3000, 0.0);
    let daemon = place.daemon();

    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    assert_eq!((&status["ready"], &status["store"]["kind"]), (&json!(true), &json!("elasticsearch")), "{status}");
    let types = status["types"].as_array().expect("types");
    let shots = types.iter().find(|ty| ty["type"] == "Shot").expect("shots")["rows"].as_u64().expect("a number");
    let alias = indices.name("entity-shot");
    ask(&format!("{url}/{alias}/_refresh")).await;
    let counted = ask(&format!("{url}/{alias}/_count")).await;
    assert!(shots > 0 && counted["count"] == json!(shots), "{shots} shots, {counted}");

    let filters = r#"[["sg_status_list","is","ip"]]"#;
    let args = ["find", "Shot", "--filters", filters, "--fields", "code,sg_status_list", "--limit", "5", "-o", "json"];
    let found = place.run(&args).expect_code(0).json();
    let rows = found.as_array().expect("an array");
    assert!(!rows.is_empty() && rows.iter().all(|row| row["sg_status_list"] == "ip"), "{found}");

    let spoiled = place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    let spoiled = sorted(spoiled.stdout.lines().map(str::to_owned));
    assert_eq!(spoiled.len(), 3);
    let report = place.run(&["job", "validateData", "-o", "json"]).expect_code(10).json();
    let result = &report["steps"][0]["result"];
    let found = result["mismatches"].as_array().expect("mismatches").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |m: &Value| format!("{}:{} {}", text(&m["type"]), m["id"], text(&m["field"]));
    assert_eq!(sorted(found.map(named)), spoiled, "{report}");

    let mended = place.run(&["job", "validateData", "--repair", "-o", "json"]).expect_code(0).json();
    assert_eq!(mended["steps"][0]["result"]["repaired"], json!(3), "{mended}");
    place.run(&["job", "validateData"]).expect_code(0);

    let runs = documents(url, &indices.name("runs")).await;
    let status_of = |id: &Value| {
        let run = runs.iter().find(|run| run["sgcache"]["run"]["id"] == *id);
        run.map(|run| run["sgcache"]["run"]["status"].clone())
    };
    assert_eq!(status_of(&report["run_id"]), Some(json!("drift")), "{runs:?}");
    assert_eq!(status_of(&mended["run_id"]), Some(json!("repaired")), "{runs:?}");
    let mismatches = documents(url, &indices.name("mismatch")).await;
    let of_run = mismatches.iter().filter(|one| one["sgcache"]["run"]["id"] == report["run_id"]);
    let named = |one: &Value| {
        let text = |pointer: &str| one.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}", text("/sgcache/entity/ref"), text("/sgcache/mismatch/field"))
    };
    assert_eq!(sorted(of_run.map(named)), spoiled, "{mismatches:?}");

    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_dead_report_cluster_fails_no_run_and_loses_no_record() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let place = Place::new();
    report_to(&place, CLOSED, indices.prefix());
    let _sim = place.sim(1500, 0.0);
    let daemon = place.daemon();

    let lost = place.run(&["job", "validateCounts", "-o", "json"]).expect_code(0).json();
    assert_eq!(lost["status"], "ok", "{lost}");
    let triggered = place.run(&["pipelines", "trigger", "nightly-counts", "-o", "json"]).expect_code(0).json();
    let history = place.run(&["pipelines", "history", "nightly-counts", "-o", "json"]).expect_code(0).json();
    assert_eq!(history[0]["run_id"], triggered["run_id"], "{history}");
    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    assert!(status["store"]["reports_waiting"].as_u64() >= Some(2), "{status}");
    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0), "{said}");

    // The cluster is back: what waited arrives with the next run.
    place.edit("config.yaml", CLOSED, url);
    let _daemon = place.daemon();
    let next = place.run(&["job", "validateCounts", "-o", "json"]).expect_code(0).json();
    let runs = documents(url, &indices.name("runs")).await;
    for one in [&lost, &triggered, &next] {
        assert!(runs.iter().any(|run| run["sgcache"]["run"]["id"] == one["run_id"]), "{} in {runs:?}", one["run_id"]);
    }
}
