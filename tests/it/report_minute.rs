//! The documents of each minute, as a daemon with a cluster for reports leaves them in its
//! outbox: against what callers were answered, and against the rows of the site.

use serde_json::{Value, json};
use sgcache::metrics::Metrics;
use sgcache::report::{Outbox, Stream};
use sgcache::state::State;

use crate::program::Place;
use crate::proxy_rig::{call_with_status, find, said};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_minute_of_a_daemon_is_in_the_outbox() {
    let place = Place::new();
    // No server is there, so documents wait where the test finds them.
    let reports = "\nreports:\n  elasticsearch:\n    url: http://127.0.0.1:1\n    prefix: test\n";
    let config = std::fs::read_to_string(place.path("config.yaml")).expect("a file");
    std::fs::write(place.path("config.yaml"), config + reports).expect("a file");
    let _sim = place.sim(300, 0.0);
    let daemon = place.daemon();
    place.until("/api/v1/status", |_, body| body.contains("\"code\":\"ok\""));
    let (mut hits, mut passes) = (0, 0);
    for ty in ["Shot", "Shot", "Scene", "Shot", "Level"] {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let argument = find(ty, json!([]), &["code"]);
        let (_, headers, _) = call_with_status(&format!("http://{}", place.api), auth, "read", argument).await;
        *if said(&headers) == "hit" { &mut hits } else { &mut passes } += 1;
    }
    let body = place.until("/api/v1/status", |_, body| body.contains("\"reads\":5,"));
    let status: Value = serde_json::from_str(&body).expect("JSON");
    let rows: u64 = status["types"].as_array().expect("types").iter().filter_map(|ty| ty["rows"].as_u64()).sum();
    daemon.terminate();

    let state = State::open(&place.path("data")).await.expect("a state");
    let waiting = Outbox::new(state, 1000, Metrics::default()).waiting(1000).await.expect("documents");
    let of = |stream| {
        let found = waiting.iter().filter(move |one| one.stream == stream);
        found.map(|one| serde_json::from_str::<Value>(&one.source).expect("JSON")).collect::<Vec<_>>()
    };
    let minutes = of(Stream::Proxy);
    let sum = |name: &str| minutes.iter().filter_map(|one| one["sgcache"]["proxy"][name].as_u64()).sum::<u64>();
    assert_eq!((sum("hits"), sum("passes"), sum("reads")), (hits, passes, 5), "{minutes:?}");
    let uncached = |one: &Value| one["sgcache"]["proxy"]["reasons"]["uncached_type"].as_u64();
    assert_eq!(minutes.iter().filter_map(uncached).sum::<u64>(), 2);
    let beats = of(Stream::Heartbeat);
    let last = beats.last().expect("a heartbeat");
    assert_eq!(last["sgcache"]["heartbeat"]["entities"], json!(rows), "{last}");
    assert_eq!(last["event"]["dataset"], "sgcache.heartbeat");
}
