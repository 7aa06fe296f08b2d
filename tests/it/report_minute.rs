//! The documents of each minute, as a daemon with a cluster for reports leaves them in its
//! outbox: against what callers were answered, and against the rows and events of the site.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sgcache::metrics::Metrics;
use sgcache::report::{Outbox, Stream};
use sgcache::state::State;

use crate::program::Place;
use crate::proxy_rig::{call_with_status, find, said};

/// A place whose documents wait where a test finds them: no server is there.
fn place_with_reports() -> Place {
    let place = Place::new();
    let reports = "\nreports:\n  elasticsearch:\n    url: http://127.0.0.1:1\n    prefix: test\n";
    let config = std::fs::read_to_string(place.path("config.yaml")).expect("a file");
    std::fs::write(place.path("config.yaml"), config + reports).expect("a file");
    place
}

/// The documents that wait in the outbox of a place, by their stream.
async fn waiting(place: &Place) -> impl Fn(Stream) -> Vec<Value> {
    let state = State::open(&place.path("data")).await.expect("a state");
    let waiting = Outbox::new(state, 1000, Metrics::default()).waiting(1000).await.expect("documents");
    move |stream| {
        let found = waiting.iter().filter(|one| one.stream == stream);
        found.map(|one| serde_json::from_str(&one.source).expect("JSON")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_minute_of_a_daemon_is_in_the_outbox() {
    let place = place_with_reports();
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

    let of = waiting(&place).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_imported_and_what_was_followed_is_in_the_outbox() {
    let place = place_with_reports();
    let site = place.site_here(600).await;
    let daemon = place.daemon();
    let body = place.until("/api/v1/status", |_, body| body.contains("\"code\":\"ok\""));
    let status: Value = serde_json::from_str(&body).expect("JSON");
    let types = status["types"].as_array().expect("types").iter();
    let rows: BTreeMap<_, _> = types.map(|ty| (ty["type"].clone().to_string(), ty["rows"].clone())).collect();
    let before = site.site().last_event_id().0;
    let shots = site.site().read("Shot", &json!([]), &["id"]).expect("shots");
    assert!(!shots.is_empty(), "a site without shots");
    for shot in &shots {
        let id = shot["id"].as_i64().expect("an id");
        site.site().update("Shot", id, json!({"description": "followed"})).expect("an update");
    }
    let last = site.site().last_event_id().0;
    let entries = site.site().read("EventLogEntry", &json!([["id", "greater_than", before]]), &["id"]);
    place.until("/api/v1/status", |_, body| {
        let status: Value = serde_json::from_str(body).unwrap_or_default();
        status["sync"]["visible_event_id"].as_i64() >= Some(last)
    });
    daemon.terminate();
    // A process of its own, that ends before a minute does.
    place.run(&["job", "rebuild", "Shot"]).expect_code(0);

    let of = waiting(&place).await;
    let imports = of(Stream::Import);
    let entities = |import: &Value| {
        let own = &import["sgcache"];
        (own["entity"]["type"].clone().to_string(), own["import"]["entities"].clone())
    };
    let (rebuilt, imported): (Vec<&Value>, Vec<&Value>) =
        imports.iter().partition(|import| import["event"]["action"] == "rebuild");
    assert_eq!(imported.iter().map(|import| entities(import)).collect::<BTreeMap<_, _>>(), rows);
    let [rebuilt] = rebuilt[..] else { panic!("{rebuilt:?}") };
    assert_eq!(entities(rebuilt), ("\"Shot\"".to_owned(), shots.len().into()));
    assert!(rebuilt["sgcache"]["import"]["rate_per_s"].as_f64() > Some(0.0), "{rebuilt}");

    let minutes = of(Stream::Sync);
    let values = |name: &'static str| minutes.iter().filter_map(move |one| one["sgcache"]["sync"][name].as_i64());
    assert_eq!(values("last_event_id").max(), Some(last), "{minutes:?}");
    // Entries from before the stream began, which may still come, are read as well.
    let (events, followed) = (values("events").sum::<i64>(), entries.expect("entries").len() as i64);
    assert!(events >= followed, "{events}, not {followed}: {minutes:?}");
    assert!(values("written").sum::<i64>() >= shots.len() as i64, "{minutes:?}");
    let lag = minutes.iter().map(|one| &one["sgcache"]["sync"]["lag_ms"]).find(|lag| lag.is_object());
    let lag = lag.unwrap_or_else(|| panic!("no lag: {minutes:?}"));
    let [min, p95, max] = ["min", "p95", "max"].map(|name| lag[name].as_u64().expect("a number"));
    // Nothing is known of how late those were seen.
    assert!(min <= p95 && p95 <= max && max < 60_000, "{lag}");
}
