//! The transport against a real server, with a proxy that makes faults between them.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::elastic::{BulkOp, Call, Client, ErrorKind, Flavour, ItemOutcome, Settings, VersionType};

use crate::elastic_proxy::{Fault, Proxy};
use crate::servers::{TestIndices, elasticsearch};

const SUITE: &str = "elastic_transport";
/// Nothing listens on the discard port.
const CLOSED: &str = "http://127.0.0.1:9";

fn client<const N: usize>(urls: [&str; N]) -> Client {
    let mut settings = Settings::new(urls);
    settings.retry.first_pause = Duration::from_millis(1);
    settings.retry.longest_pause = Duration::from_millis(5);
    Client::new(&settings).unwrap()
}

fn write(index: &str, id: i64, version: i64) -> BulkOp {
    let source = json!({"id": id, "code": format!("shot {id}")}).to_string();
    BulkOp::index(index, &id.to_string(), version, VersionType::External, source)
}

fn writes(index: &str, ids: std::ops::Range<i64>) -> Vec<BulkOp> {
    ids.map(|id| write(index, id, 1)).collect()
}

/// Creates an index with a strict mapping of `id` and `code`.
async fn create(client: &Client, index: &str) {
    let body = json!({"settings": {"number_of_replicas": 0},
        "mappings": {"dynamic": "strict", "properties": {"id": {"type": "long"}, "code": {"type": "keyword"}}}});
    client.send(&Call::put(format!("/{index}")).json(&body)).await.unwrap();
}

async fn count(client: &Client, index: &str) -> u64 {
    client.send(&Call::post(format!("/{index}/_refresh"))).await.unwrap();
    let answer = client.send(&Call::get(format!("/{index}/_count"))).await.unwrap();
    answer.value().unwrap()["count"].as_u64().unwrap()
}

fn bulk_sizes(proxy: &Proxy) -> Vec<usize> {
    let bulks = proxy.log().into_iter().filter(|line| line.contains("/_bulk"));
    bulks.map(|line| line.split(' ').nth(2).unwrap().parse::<usize>().unwrap() / 2).collect()
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_reason() {
    let error = client([CLOSED]).send(&Call::get("/_cluster/health")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let text = error.to_string();
    assert!(text.starts_with("GET http://127.0.0.1:9/_cluster/health: "), "{text}");
    assert!(text.contains("Connection refused") && text.ends_with("(after 5 attempts)"), "{text}");
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let server = client([url]).server().await.unwrap();
    let folder = std::env::var("SGCACHE_TEST_ELASTICSEARCH").unwrap();
    let (name, version) = folder.rsplit('/').next().unwrap().split_once('-').unwrap();
    let expected = if name == "opensearch" { Flavour::OpenSearch } else { Flavour::Elasticsearch };
    assert_eq!(server.flavour, expected);
    // Test builds of some versions add -SNAPSHOT.
    assert!(server.version.as_deref().unwrap().starts_with(version), "{server}");
}

#[tokio::test]
async fn a_dead_node_is_passed_over() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let client = client([CLOSED, url]);
    for _ in 0..4 {
        assert!(client.send(&Call::get("/_cluster/health")).await.is_ok());
    }
}

#[tokio::test]
async fn a_gateway_error_and_a_login_page_are_tried_again() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let proxy = Proxy::before(url).await;
    let client = client([proxy.url.as_str()]);
    let html = "<html>Please log in</html>";
    for (status, body) in [(503, "{}"), (200, html), (502, html)] {
        proxy.plan("/_cluster", 1, Fault::Answer { status, headers: vec![], body });
        assert!(client.send(&Call::get("/_cluster/health")).await.is_ok(), "{status} {body}");
    }
    assert_eq!(proxy.log().len(), 6);
}

#[tokio::test]
async fn a_page_that_stays_is_named_and_not_shown() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let proxy = Proxy::before(url).await;
    proxy.plan("/", 99, Fault::Answer { status: 502, headers: vec![], body: "<html>Bad gateway</html>" });
    let error = client([proxy.url.as_str()]).send(&Call::get("/_cluster/health")).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Malformed, Some(502)));
    assert!(
        error.to_string().contains("a page of HTML (after 5 attempts)") && !error.to_string().contains("gateway<"),
        "{error}"
    );
}

#[tokio::test]
async fn a_call_that_may_not_be_repeated_is_made_once() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let proxy = Proxy::before(url).await;
    proxy.plan("/_search", 1, Fault::LoseReply);
    assert!(client([proxy.url.as_str()]).send(&Call::post("/_search")).await.is_err());
    assert_eq!(proxy.log().len(), 1);
}

#[tokio::test]
async fn no_answer_in_time_is_a_failure_of_that_attempt_only() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let proxy = Proxy::before(url).await;
    proxy.plan("/_cluster", 1, Fault::Hang);
    let mut settings = Settings::new([proxy.url.as_str(), url]);
    settings.timeouts.other = Duration::from_millis(500);
    let answer = Client::new(&settings).unwrap().send(&Call::get("/_cluster/health")).await;
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let proxy = Proxy::before(url).await;
    proxy.plan("/_cluster", 2, Fault::CutReply);
    assert!(client([proxy.url.as_str()]).send(&Call::get("/_cluster/health")).await.is_ok());
    assert_eq!(proxy.log().len(), 3);
}

#[tokio::test]
async fn a_lost_reply_of_a_bulk_is_found_done_the_second_time() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("lost");
    let proxy = Proxy::before(url).await;
    let client = client([proxy.url.as_str()]);
    create(&client, &index).await;
    proxy.plan("/_bulk", 1, Fault::LoseReply);

    let outcomes = client.bulk(&writes(&index, 0..3), false).await.unwrap();

    assert_eq!(outcomes, vec![ItemOutcome::Stale; 3]);
    assert_eq!(count(&client, &index).await, 3);
}

#[tokio::test]
async fn only_the_refused_items_of_a_bulk_are_sent_again() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("busy");
    let proxy = Proxy::before(url).await;
    let client = client([proxy.url.as_str()]);
    create(&client, &index).await;
    proxy.plan("/_bulk", 1, Fault::RefuseItems(4));

    let outcomes = client.bulk(&writes(&index, 0..10), false).await.unwrap();

    assert_eq!(outcomes, vec![ItemOutcome::Done; 10]);
    assert_eq!(bulk_sizes(&proxy), [10, 4]);
    assert_eq!(count(&client, &index).await, 10);
}

#[tokio::test]
async fn items_refused_for_ever_are_a_fault_of_the_store() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("full");
    let client = client([url]);
    create(&client, &index).await;
    let full_disk = json!({"index.blocks.read_only_allow_delete": true});
    client.send(&Call::put(format!("/{index}/_settings")).json(&full_disk)).await.unwrap();

    let outcomes = client.bulk(&writes(&index, 0..1), false).await.unwrap();

    assert!(matches!(&outcomes[0], ItemOutcome::StoreFault(reason) if reason.contains("429")), "{outcomes:?}");
}

#[tokio::test]
async fn an_answer_with_too_many_items_is_not_believed() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("extra");
    let proxy = Proxy::before(url).await;
    let client = client([proxy.url.as_str()]);
    create(&client, &index).await;
    proxy.plan("/_bulk", 1, Fault::ExtraItem);
    let outcomes = client.bulk(&writes(&index, 0..2), false).await.unwrap();
    assert_eq!(outcomes, vec![ItemOutcome::Stale; 2]);
}

#[tokio::test]
async fn a_bulk_that_is_too_large_is_split_and_one_document_that_is_too_large_is_refused() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("large");
    let proxy = Proxy::before(url).await;
    let client = client([proxy.url.as_str()]);
    create(&client, &index).await;
    proxy.plan("/_bulk", 999, Fault::RefuseBodiesAbove(2000));
    let mut operations = writes(&index, 0..50);
    let long = json!({"id": 50, "code": "x".repeat(3000)}).to_string();
    operations.push(BulkOp::index(&index, "50", 1, VersionType::External, long));

    let outcomes = client.bulk(&operations, false).await.unwrap();

    assert_eq!(outcomes[..50], vec![ItemOutcome::Done; 50]);
    assert!(matches!(&outcomes[50], ItemOutcome::Refused(reason) if reason.contains("413")), "{:?}", outcomes[50]);
    assert_eq!(count(&client, &index).await, 50);
}

#[tokio::test]
async fn a_bad_document_costs_only_itself() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("bad");
    let client = client([url]);
    create(&client, &index).await;
    let mut operations = writes(&index, 0..3);
    let unknown = json!({"id": 1, "surprise": true}).to_string();
    operations[1] = BulkOp::index(&index, "1", 1, VersionType::External, unknown);

    let outcomes = client.bulk(&operations, false).await.unwrap();

    assert_eq!((&outcomes[0], &outcomes[2]), (&ItemOutcome::Done, &ItemOutcome::Done));
    let ItemOutcome::Refused(reason) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(reason.contains("strict_dynamic_mapping_exception") && reason.contains("surprise"), "{reason}");
}

#[tokio::test]
async fn a_closed_a_blocked_and_a_missing_index_are_faults_of_the_store() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let client = client([url]);
    let (closed, blocked) = (indices.name("closed"), indices.name("blocked"));
    create(&client, &closed).await;
    create(&client, &blocked).await;
    client.send(&Call::post(format!("/{closed}/_close"))).await.unwrap();
    let block = json!({"index.blocks.write": true});
    client.send(&Call::put(format!("/{blocked}/_settings")).json(&block)).await.unwrap();
    let operations = [write(&closed, 1, 1), write(&blocked, 1, 1)];

    let outcomes = client.bulk(&operations, false).await.unwrap();
    assert!(matches!(&outcomes[0], ItemOutcome::StoreFault(reason) if reason.contains("index_closed")), "{outcomes:?}");
    assert!(
        matches!(&outcomes[1], ItemOutcome::StoreFault(reason) if reason.contains("cluster_block")),
        "{outcomes:?}"
    );

    let missing = client.bulk(&[write(&indices.name("missing"), 1, 1)], true).await.unwrap();
    assert!(
        matches!(&missing[0], ItemOutcome::StoreFault(reason) if reason.contains("index_not_found")),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_lower_version_loses_and_a_delete_needs_the_version_it_saw() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let indices = TestIndices::new(url);
    let index = indices.name("versions");
    let client = client([url]);
    create(&client, &index).await;
    let one = |operation: BulkOp| {
        let client = client.clone();
        async move { client.bulk(&[operation], false).await.unwrap().remove(0) }
    };
    assert_eq!(one(write(&index, 7, 5)).await, ItemOutcome::Done);
    assert_eq!(one(write(&index, 7, 5)).await, ItemOutcome::Stale);
    assert_eq!(one(write(&index, 7, 4)).await, ItemOutcome::Stale);
    let rewrite = BulkOp::index(&index, "7", 5, VersionType::ExternalGte, json!({"id": 7}).to_string());
    assert_eq!(one(rewrite).await, ItemOutcome::Done);
    assert_eq!(one(BulkOp::delete(&index, "7", 4)).await, ItemOutcome::Stale);
    assert_eq!(one(BulkOp::delete(&index, "7", 5)).await, ItemOutcome::Done);
    assert_eq!(one(BulkOp::delete(&index, "8", 5)).await, ItemOutcome::Done);
}

#[tokio::test]
async fn the_servers_reason_is_kept_in_the_error() {
    let Some(url) = elasticsearch(SUITE) else {
        return;
    };
    let query: Value = json!({"query": {"no_such_query": {}}});
    let error = client([url]).send(&Call::post("/_search").json(&query).search()).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Refused, Some(400)));
    assert!(error.to_string().contains("unknown query [no_such_query]"), "{error}");
}
