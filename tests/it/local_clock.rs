//! No decision depends on the clock of this machine: a daemon whose local clock jumps by
//! years, back and forth, while others write, serves what the site has, and the times it
//! shows are those of the site.
//!
//! Runs when SGCACHE_TEST_FAKETIME names the library libfaketime.

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::program::Place;
use crate::proxy_rig::{self, find, said};
use crate::servers;
use crate::waiting::Wait;

const SUITE: &str = "local_clock";
/// What the local clock is moved by, one after the other.
const JUMPS: [&str; 3] = ["+400d", "-400d", "-90s"];

async fn call(place: &Place, method: &str, argument: Value) -> (HeaderMap, Value) {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    proxy_rig::call(&format!("http://{}", place.api), auth, method, argument).await
}

async fn read_code(place: &Place) -> (HeaderMap, Value) {
    let (headers, answer) = call(place, "read", find("Shot", json!([["id", "is", 1]]), &["code"])).await;
    (headers, answer["results"]["entities"][0]["code"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_clock_that_jumps_by_years_changes_no_answer() {
    let Some(library) = servers::named(SUITE, "SGCACHE_TEST_FAKETIME") else { return };
    let place = Place::new();
    let _site = place.sim(600, 5.0);
    let (file, written) = (place.path("local-time"), place.path("local-time.new"));
    // The library reads the file at every look at the clock: it is replaced whole.
    let jump = |by: &str| {
        std::fs::write(&written, by).expect("a file");
        std::fs::rename(&written, &file).expect("a file");
    };
    jump("+0");
    let file_name = file.to_str().expect("text");
    let faked = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", file_name),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let _daemon = place.daemon_with(&faked);
    for (round, by) in JUMPS.iter().enumerate() {
        jump(by);
        let begun = Utc::now();
        let code = format!("round {round}");
        let fields = json!([{"field_name": "code", "value": code}]);
        call(&place, "update", json!({"type": "Shot", "id": 1, "fields": fields})).await;
        assert_eq!(read_code(&place).await.1, *code, "read back after a jump by {by}");
        let wait = Wait::begin();
        let headers = loop {
            let (headers, read) = read_code(&place).await;
            assert_eq!(read, *code, "after a jump by {by}");
            if said(&headers) == "hit" {
                break headers;
            }
            wait.again(|| said(&headers)).await;
        };
        let fresh = headers["x-sgcache-fresh-as-of"].to_str().expect("text");
        let fresh: DateTime<Utc> = fresh.parse().unwrap_or_else(|error| panic!("`{fresh}`: {error}"));
        // The `Date` of an answer has whole seconds.
        assert!(fresh > begun - TimeDelta::minutes(1), "{fresh} is long before {begun}, after a jump by {by}");
        assert!(fresh < Utc::now() + TimeDelta::seconds(1), "{fresh} is in the future, after a jump by {by}");
        place.until("/readyz", |status, _| status == 200);
        // The comparison has another local clock than the daemon, and finds nothing wrong.
        place.run(&["job", "validateData", "Shot", "--limit", "200"]).expect_code(0);
    }
}
