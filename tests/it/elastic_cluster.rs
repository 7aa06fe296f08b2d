//! A cluster of three, one node of which is killed under a stream of writes.
//!
//! Part of the compatibility run: three servers need 2.5 GB.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use sgcache::elastic::{BulkOp, Call, Client, ItemOutcome, Settings, VersionType};

use crate::servers::{Elasticsearch, run_directory, skipped};

const WRITES: i64 = 20_000;

/// Ports that were free a moment ago; a cluster must know them beforehand.
fn free_ports() -> [u16; 6] {
    let listeners: [TcpListener; 6] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn start(ports: &[u16; 6]) -> Vec<Elasticsearch> {
    let seeds: Vec<String> = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let is_opensearch = std::env::var("SGCACHE_TEST_ELASTICSEARCH").unwrap().contains("opensearch");
    let masters = if is_opensearch { "cluster.initial_cluster_manager_nodes" } else { "cluster.initial_master_nodes" };
    let mut handles = Vec::new();
    for node in 0..3 {
        let settings = [
            format!("node.name=n{node}"),
            format!("http.port={}", ports[node]),
            format!("transport.port={}", ports[node + 3]),
            format!("discovery.seed_hosts={}", seeds.join(",")),
            format!("{masters}=n0,n1,n2"),
        ];
        handles.push(std::thread::spawn(move || {
            let options: Vec<&str> = settings.iter().flat_map(|setting| ["-E", setting.as_str()]).collect();
            // This thread ends at once, and the servers must not end with it.
            Elasticsearch::start_unbound(&run_directory(), &options)
        }));
    }
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_under_writes_loses_nothing() {
    if std::env::var_os("SGCACHE_TEST_COMPATIBILITY").is_none() {
        skipped("elastic_cluster", "runs with tests/servers/compatibility");
        return;
    }
    let mut nodes = tokio::task::spawn_blocking(|| start(&free_ports())).await.unwrap();
    let mut settings = Settings::new(nodes.iter().map(|node| node.url.clone()));
    settings.retry.attempts = 10;
    settings.timeouts.bulk = Duration::from_secs(20);
    let client = Client::new(&settings).unwrap();
    let index = "sgcache-cluster";
    let body = json!({"settings": {"number_of_shards": 2, "number_of_replicas": 1}});
    client.send(&Call::put(format!("/{index}")).json(&body)).await.unwrap();
    let green =
        Call::get(format!("/_cluster/health/{index}")).param("wait_for_status", "green").param("timeout", "25s");
    client.send(&green.search()).await.unwrap();

    let mut acknowledged = 0;
    for start in (0..WRITES).step_by(1000) {
        if start == WRITES / 2 {
            nodes.remove(1).kill();
        }
        let writes: Vec<BulkOp> = (start..start + 1000)
            .map(|id| BulkOp::index(index, &id.to_string(), 1, VersionType::External, json!({"id": id}).to_string()))
            .collect();
        let outcomes = client.bulk(&writes, false).await.unwrap();
        // Stale: the reply of a first attempt was lost with the node.
        acknowledged +=
            outcomes.iter().filter(|outcome| matches!(outcome, ItemOutcome::Done | ItemOutcome::Stale)).count();
    }
    client.send(&Call::post(format!("/{index}/_refresh")).repeatable()).await.unwrap();
    let counted = client.send(&Call::get(format!("/{index}/_count"))).await.unwrap().value().unwrap();

    assert_eq!(acknowledged, WRITES as usize);
    assert_eq!(counted["count"], WRITES);
}
