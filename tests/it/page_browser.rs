//! The status page in a real Chromium, over a real daemon: at rest, under drift, with the
//! site away, and after the daemon itself is gone. `tests/browser/page.mjs` opens it and
//! says what is there; axe-core looks for what keeps people out.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use sgcache::state::State;

use crate::program::Place;
use crate::prometheus::program;
use crate::proxy_rig::{call_with_status, find};

struct Browser {
    chromium: PathBuf,
    modules: String,
}

impl Browser {
    fn find() -> Option<Self> {
        let chromium = program("SGCACHE_TEST_CHROMIUM", "page_browser")?;
        Some(Self { chromium, modules: std::env::var("SGCACHE_TEST_BROWSER_MODULES").expect("set by tests/setup") })
    }

    /// Opens the page of a daemon, and fails when anything is wrong with it as such.
    fn open(&self, place: &Place, options: &[&str]) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.mjs");
        let url = format!("http://{}/", place.ops);
        let mut node = Command::new("node");
        node.arg(script).arg(&self.chromium).args([&self.modules, &url]).args(options);
        let output = node.output().expect("node runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(page["findings"], json!([]), "axe-core");
        assert_eq!(page["cut"], json!([]), "the page scrolls sideways at these widths");
        assert_eq!(page["errors"], json!([]));
        assert_eq!(page["addresses"], json!([format!("http://{}", place.ops)]), "nothing from anywhere else");
        let states = page["states"].as_array().expect("states");
        assert_eq!(states.len(), 4, "each shipped pipeline: {states:?}");
        assert!(states.iter().all(|state| state[1] == true), "in view at 1280 px: {states:?}");
        assert_eq!(page["focused"], "pipelines", "by key");
        page
    }
}

fn text(page: &Value) -> &str {
    page["text"].as_str().expect("text")
}

async fn read_shots(place: &Place, times: usize) {
    for _ in 0..times {
        let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
        let argument = find("Shot", json!([]), &["code"]);
        let (status, ..) = call_with_status(&format!("http://{}", place.api), auth, "read", argument).await;
        assert_eq!(status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_is_the_matter_at_every_stage_of_a_bad_day() {
    let Some(browser) = Browser::find() else { return };
    let place = Place::new();
    let sim = place.sim(600, 0.0);
    let daemon = place.daemon();
    place.until("/api/v1/status", |_, body| body.contains("\"code\":\"ok\""));
    read_shots(&place, 17).await;
    place.until("/api/v1/status", |_, body| body.contains("\"reads\":17,"));
    let page = browser.open(&place, &["--until", "Healthy. All"]);
    assert!(text(&page).contains("Reads answered today\n17\n"), "{}", text(&page));
    assert!(page["title"].as_str().is_some_and(|title| title.starts_with("sgcache ")), "{}", page["title"]);
    assert!(page["live"].as_str().is_some_and(|live| live.starts_with("live, ")), "{}", page["live"]);

    place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    let report = place.run(&["job", "validateData", "--limit", "5000", "-o", "json"]).expect_code(10).json();
    let page = browser.open(&place, &["--until", "rows differ from the site"]);
    let steps = report["steps"].as_array().expect("steps");
    let mismatches: Vec<&Value> =
        steps.iter().flat_map(|step| step["result"]["mismatches"].as_array().expect("a list")).collect();
    assert!(!mismatches.is_empty());
    for mismatch in mismatches {
        let row = format!("{} {}", mismatch["type"].as_str().expect("a type"), mismatch["id"]);
        assert!(text(&page).contains(&row), "no card of {row}: {}", text(&page));
    }
    assert!(page["title"].as_str().is_some_and(|title| title.starts_with("! ")), "{}", page["title"]);

    sim.kill();
    let page = browser.open(&place, &["--until", "The site does not answer"]);
    assert!(text(&page).contains("fail while the site does not answer"), "{}", text(&page));
    assert!(text(&page).contains("not known: the site does not answer"), "the lag: {}", text(&page));

    let page = browser.open(&place, &["--stop", &daemon.pid().to_string()]);
    assert_eq!((&page["heading"], &page["gone"]), (&json!("sgcache does not answer."), &json!("gone")));
    assert_eq!(page["live"], "no answer, data is old");
    assert!(text(&page).contains("All below is as of "), "{}", text(&page));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_freshness_of_the_last_day_survives_a_restart() {
    let place = Place::new();
    let _sim = place.sim(300, 0.0);
    let daemon = place.daemon();
    // The daemon has looked at least once, and kept it.
    let strip = |body: &str| -> Option<String> {
        let status: Value = serde_json::from_str(body).ok()?;
        let shot = status["types"].as_array()?.iter().find(|ty| ty["type"] == "Shot")?.clone();
        Some(shot["strip"].as_str()?.to_owned())
    };
    place
        .until("/api/v1/status", |_, body| strip(body).is_some_and(|strip| strip.len() == 96 && !strip.ends_with('6')));
    daemon.kill();
    let state = State::open(&place.path("data")).await.expect("a state");
    let mut kept: Value = state.kept("freshness/day").await.expect("a value").expect("one");
    let shot = kept["types"]["Shot"].as_object_mut().expect("levels");
    let newest: i64 = shot.keys().filter_map(|quarter| quarter.parse().ok()).max().expect("a quarter");
    // Not served an hour ago, says the past.
    shot.insert((newest - 4).to_string(), json!("4"));
    state.keep("freshness/day", &kept).await.expect("a write");
    drop(state);
    let _daemon = place.daemon();
    place.until("/api/v1/status", |_, body| {
        // The hour may turn during the test.
        strip(body).is_some_and(|strip| strip[90..93].contains('4'))
    });
}
