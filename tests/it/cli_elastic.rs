//! Faults of Elasticsearch, met at the command line: each is named with its
//! remedy, and what is stored stays.

use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings};

use crate::elastic_proxy::Proxy;
use crate::program::Place;
use crate::servers::{TestIndices, elasticsearch};
use crate::waiting::until;

const SUITE: &str = "cli_elastic";

/// A place whose rows are kept on a server, and a site in this process.
async fn place(url: &str, prefix: &str) -> (Place, SimHandle) {
    let place = Place::new();
    let store = format!("store:\n  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0");
    place.edit("config.yaml", "store:\n  kind: embedded", &store);
    let settings =
        SimSettings { listen: place.site.parse().expect("an address"), entities: 1500, ..Default::default() };
    (place, Sim::start(settings).await.expect("a site"))
}

async fn send(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("an answer").error_for_status().expect("a good answer");
    answer.json().await.expect("JSON")
}

async fn ask(url: &str) -> Value {
    send(reqwest::Client::new().get(url)).await
}

async fn put(url: &str, body: &Value) -> Value {
    send(reqwest::Client::new().put(url).json(body)).await
}

async fn count(url: &str, index: &str) -> u64 {
    ask(&format!("{url}/{index}/_refresh")).await;
    ask(&format!("{url}/{index}/_count")).await["count"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_that_name_that_is_not_ours_is_left_alone() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let (place, _site) = place(url, indices.prefix()).await;
    let foreign = indices.name("entity-shot");
    let document = json!({"owner": "somebody else"});
    put(&format!("{url}/{foreign}/_doc/1?refresh=true"), &document).await;
    let said = [foreign.as_str(), "was not made by sgcache", "choose another `prefix`"];
    place.run(&["job", "import"]).expect_code(69).says(&said);
    let kept = ask(&format!("{url}/{foreign}/_doc/1")).await;
    assert_eq!(kept["_source"], document);
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_of_a_newer_version_are_left_alone() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let (place, _site) = place(url, indices.prefix()).await;
    place.run(&["job", "import"]).expect_code(0);
    let alias = indices.name("entity-shot");
    let before = count(url, &alias).await;
    let mapping = ask(&format!("{url}/{alias}/_mapping")).await;
    let (index, described) = mapping.as_object().and_then(|map| map.iter().next()).expect("an index");
    let mut meta = described["mappings"]["_meta"].clone();
    let format = meta.pointer_mut("/sgcache/format").expect("a format");
    *format = json!(9999);
    put(&format!("{url}/{index}/_mapping"), &json!({"_meta": meta})).await;
    let said = [index.as_str(), "newer sgcache", "format 9999", "use that version"];
    place.run(&["job", "validateCounts"]).expect_code(78).says(&said);
    assert_eq!(count(url, &alias).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_document_that_is_refused_holds_up_no_other_and_is_named() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let (place, site) = place(url, indices.prefix()).await;
    // The longest text that a keyword can hold is 32,766 bytes.
    let config = place.path("entityConfig/Shot.json");
    let mut shot: Value = serde_json::from_str(&std::fs::read_to_string(&config).expect("a file")).expect("JSON");
    shot["fields"]["description"] = json!({"mapping": {"type": "keyword"}});
    std::fs::write(&config, shot.to_string()).expect("a file");
    let id = site.site().read("Shot", &json!([]), &["id"]).expect("shots")[0]["id"].as_i64().expect("an id");
    site.site().update("Shot", id, json!({"description": "x".repeat(40_000)})).expect("an update");

    let name = format!("Shot:{id}");
    let said = [name.as_str(), "immense term", "description"];
    place.run(&["job", "import"]).expect_code(0).says(&said);
    let stored = count(url, &indices.name("entity-shot")).await;
    assert_eq!(stored + 1, site.site().count("Shot") as u64);

    // Mended on the site, it is stored with the next event.
    site.site().update("Shot", id, json!({"description": "short"})).expect("an update");
    place.run(&["job", "sync"]).expect_code(0);
    assert_eq!(count(url, &indices.name("entity-shot")).await, stored + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_later_is_named_and_what_happened_meanwhile_is_not_lost() {
    let Some(url) = elasticsearch(SUITE) else { return };
    let indices = TestIndices::new(url);
    let proxy = Proxy::before(url).await;
    let (place, site) = place(&proxy.url, indices.prefix()).await;
    let daemon = tokio::task::block_in_place(|| place.daemon());

    let id = site.site().read("Shot", &json!([]), &["id"]).expect("shots")[0]["id"].as_i64().expect("an id");
    proxy.set_away(true);
    site.site().update("Shot", id, json!({"description": "while it was away"})).expect("an update");
    let address = proxy.url.trim_start_matches("http://").to_owned();
    let reasons = tokio::task::block_in_place(|| place.until("/readyz", |status, _| status == 503));
    assert!(reasons.contains("store_down") && reasons.contains(&address), "{reasons}");
    let said = [address.as_str()];
    let asked = tokio::task::block_in_place(|| place.run(&["find", "Shot", "--limit", "1"]));
    asked.expect_code(69).says(&said);

    proxy.set_away(false);
    tokio::task::block_in_place(|| place.until("/readyz", |status, _| status == 200));
    let filter = format!("[['id','is',{id}]]");
    let args = ["find", "Shot", "--filters", &filter, "--fields", "description", "-o", "json"];
    let caught_up = || place.run(&args).expect_code(0).json()[0]["description"] == "while it was away";
    until(async || tokio::task::block_in_place(caught_up)).await;
    place.run(&["job", "validateData"]).expect_code(0);
    let (code, said) = tokio::task::block_in_place(|| daemon.terminate());
    assert_eq!(code, Some(0), "{said}");
}
