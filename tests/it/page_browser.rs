//! The status page in a real Chromium, over a real daemon: at rest, under drift, with the
//! site away, and after the daemon itself is gone. `tests/browser/page.mjs` opens it and
//! says what is there; axe-core looks for what keeps people out.

use std::path::PathBuf;
use std::process::Command;

use chrono::Utc;
use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::metrics::Metrics;
use sgcache::report::Status;
use sgcache::server::details::{DeadLetter, HeldDeletions, Outcome, Quarantine};
use sgcache::server::{Bound, Control, Ops, PipelineStatus, StatusSnapshot, TypeState, TypeStatus};
use sgcache::state::{DirtyReasons, NewDirtyKey, SiteTime, State};
use tokio_util::sync::CancellationToken;

use crate::control_api::leave_dead_letter;
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
        self.open_address(&place.ops, 5, options)
    }

    /// Opens the page at an address; `pipelines` is the number of those that it shows.
    fn open_address(&self, ops: &str, pipelines: usize, options: &[&str]) -> Value {
        let page = self.look_at(ops, options);
        let states = page["states"].as_array().expect("states");
        assert_eq!(states.len(), pipelines, "{states:?}");
        assert!(states.iter().all(|state| state[1] == true), "in view at 1280 px: {states:?}");
        assert_eq!(page["focused"], "pipelines", "by key");
        page
    }

    /// Does what a person does on the page of a daemon, and looks at what is open then.
    fn act(&self, place: &Place, steps: &Value) -> Value {
        self.look_at(&place.ops, &["--steps", &steps.to_string()])
    }

    fn look_at(&self, ops: &str, options: &[&str]) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.mjs");
        let url = format!("http://{ops}/");
        let mut node = Command::new("node");
        node.arg(script).arg(&self.chromium).args([&self.modules, &url]).args(options);
        let output = node.output().expect("node runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(page["findings"], json!([]), "axe-core");
        assert_eq!(page["cut"], json!([]), "the page scrolls sideways at these widths");
        assert_eq!(page["errors"], json!([]));
        assert_eq!(page["addresses"], json!([format!("http://{ops}")]), "nothing from anywhere else");
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

/// Steps that show the token of a running daemon when the page asks for it.
fn with_token(place: &Place) -> Vec<Value> {
    let token = Control::read(&place.path("data")).expect("a daemon runs").token;
    vec![json!(["type", "#ask-token", token]), json!(["click", "#ask-submit"])]
}

fn steps(parts: &[&[Value]]) -> Value {
    Value::from(parts.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_starts_pauses_and_stops_runs_on_the_page() {
    let Some(browser) = Browser::find() else { return };
    let place = Place::new();
    let sim = place.sim(600, 0.0);
    let slow = "name: slow\nsteps: [{ id: rebuild, job: rebuild, with: { types: [Task] } }]\n";
    std::fs::write(place.path("pipelines/slow.yaml"), slow).expect("a file");
    let _daemon = place.daemon();
    // By keyboard, with a token that is wrong at first; then the run is opened.
    let wrong = [
        json!(["focus", "#trigger-nightly-counts"]),
        json!(["key", "Enter"]),
        json!(["see", "Run nightly-counts now?"]),
        json!(["key", "Enter"]),
        json!(["type", "#ask-token", "guess"]),
        json!(["key", "Enter"]),
        json!(["see", "That token is not the one of this daemon"]),
    ];
    let opened = [
        json!(["see", "nightly-counts runs: "]),
        json!(["click", "#last-nightly-counts"]),
        json!(["see", "nightly-counts, ok"]),
        json!(["see", "step ended"]),
    ];
    let page = browser.act(&place, &steps(&[&wrong, &with_token(&place), &opened]));
    let history = place.run(&["pipelines", "history", "nightly-counts", "-o", "json"]).expect_code(0).json();
    assert_eq!(history.as_array().map(Vec::len), Some(1), "{history}");
    assert_eq!((&history[0]["status"], &history[0]["trigger"]), (&json!("ok"), &json!("api")));
    let checked = history[0]["steps"][0]["result"]["checked"].as_u64().expect("a count");
    assert!(checked > 0 && text(&page).contains("nightly-counts, ok"), "{}", text(&page));

    let pause = [
        json!(["click", "#pause-nightly-counts"]),
        json!(["click", "#ask-submit"]),
        json!(["see", "say why"]),
        json!(["type", "#ask-reason", "maintenance"]),
        json!(["type", "#ask-length", "2h"]),
        json!(["click", "#ask-submit"]),
    ];
    let paused =
        [json!(["see", "nightly-counts is paused."]), json!(["click", "#notice-close"]), json!(["gone", "#notice"])];
    let resumed = [json!(["click", "#resume-nightly-counts"]), json!(["see", "nightly-counts is resumed."])];
    browser.act(&place, &steps(&[&pause, &with_token(&place), &paused]));
    let listed = place.run(&["pipelines", "list"]).expect_code(0).stdout;
    assert!(listed.contains("paused"), "{listed}");
    // A new tab asks again; within it once.
    let again =
        [json!(["click", "#pause-sampled-data"]), json!(["type", "#ask-reason", "x"]), json!(["click", "#ask-submit"])];
    let first = [json!(["click", "#resume-nightly-counts"])];
    let seen = [json!(["see", "sampled-data is paused."])];
    browser.act(&place, &steps(&[&first, &with_token(&place), &resumed[1..], &again, &seen]));
    let explained = place.run(&["pipelines", "list", "-o", "json"]).expect_code(0).json();
    let paused: Vec<&str> = explained
        .as_array()
        .expect("a list")
        .iter()
        .filter(|one| one["state"] == "paused" || one["paused"] == true)
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(paused, ["sampled-data"], "{explained}");

    // A run that waits for a site that hangs is watched and stopped.
    sim.signal("STOP");
    let run_id = place.run(&["pipelines", "trigger", "slow", "--detach"]).expect_code(0).stdout.trim().to_owned();
    let watched = [
        json!(["click", "#open-slow"]),
        json!(["see", "slow, running"]),
        json!(["click", "#run-cancel"]),
        json!(["click", "#ask-submit"]),
    ];
    let stopped = [json!(["see", "was asked to stop"]), json!(["see", "slow, cancelled"])];
    browser.act(&place, &steps(&[&watched, &with_token(&place), &stopped]));
    let report = place.run(&["pipelines", "history", "slow", "-o", "json"]).expect_code(0).json();
    assert_eq!((&report[0]["run_id"], &report[0]["status"]), (&json!(run_id), &json!("cancelled")));
    sim.signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_decides_about_dead_letters_and_deletions_on_the_page() {
    let Some(browser) = Browser::find() else { return };
    let place = Place::new();
    let sim = place.sim(600, 0.0);
    let _daemon = place.daemon();
    let shots = place.run(&["find", "Shot", "--fields", "code", "-o", "json"]).expect_code(0).json();
    let ids: Vec<i64> = shots.as_array().expect("rows").iter().filter_map(|shot| shot["id"].as_i64()).collect();
    // Nothing is read again by itself while the site is away.
    sim.signal("STOP");
    let state = State::open(&place.path("data")).await.expect("a state");
    for id in &ids[..2] {
        leave_dead_letter(&state, &EntityRef::new("Shot", *id), "Fault 104").await;
    }
    let stopped = |id: &i64| NewDirtyKey::new(EntityRef::new("Shot", *id), DirtyReasons::DELETION_STOPPED);
    state.mark(&ids[2..5].iter().map(stopped).collect::<Vec<_>>(), SiteTime(5_000)).await.expect("dirty keys");
    state.open_breaker(&EntityType::new("Shot"), SiteTime(5_000)).await.expect("an open circuit breaker");
    let serials: Vec<i64> = state.dead(10).await.expect("dead letters").iter().map(|letter| letter.serial).collect();
    let dropped = [json!(["click", format!("#drop-{}", serials[0])]), json!(["click", "#ask-submit"])];
    let confirmed = [
        json!(["see", "1 dropped."]),
        json!(["click", "#confirm-Shot"]),
        json!(["type", "#ask-rows", "2"]),
        json!(["click", "#ask-submit"]),
        json!(["see", "type 3, the number of rows"]),
        json!(["key", "Backspace"]),
        json!(["type", "#ask-rows", "3"]),
        json!(["click", "#ask-submit"]),
        json!(["see", "3 deletions of Shot are applied."]),
        // The list below it has moved up.
        json!(["gone", "#confirm-Shot"]),
        json!(["click", format!("#retry-{}", serials[1])]),
        json!(["see", "1 rows are refetched"]),
    ];
    browser.act(&place, &steps(&[&dropped, &with_token(&place), &confirmed]));
    let left = place.run(&["deadLetters", "list", "-o", "json"]).expect_code(0).json();
    assert_eq!((left.as_array().map(Vec::len), &left[0]["serial"]), (Some(1), &json!(serials[1])), "{left}");
    assert_eq!(place.run(&["breaker", "show", "-o", "json"]).expect_code(0).json(), json!([]));
    sim.signal("CONT");
    // The site shows the rows: the letter goes, and no row is deleted.
    browser.act(&place, &json!([["gone", format!("#retry-{}", serials[1])], ["see", "no dead letter"]]));
    assert_eq!(place.run(&["find", "Shot", "--fields", "code", "-o", "json"]).expect_code(0).json(), shots);
}

/// A daemon of a large studio, with something of every kind in every list.
fn large() -> StatusSnapshot {
    let now = Utc::now();
    let mut status = StatusSnapshot::empty(now);
    status.site = "https://studio.example".into();
    status.store.up = true;
    (status.sync.last_poll_at, status.sync.lag_seconds) = (Some(now), Some(0.4));
    status.strips_until = Some(now);
    let ty = |index: usize| TypeStatus {
        entity_type: format!("CustomNonProjectEntity{index:03}"),
        state: [TypeState::Live, TypeState::Degraded, TypeState::Unhealthy][index % 40 / 19],
        rows: 1_234_567,
        fresh_as_of: Some(now),
        lag_seconds: Some(0.4),
        problem: (index.is_multiple_of(19)).then(|| "`sg_a_field` is not cached: the site has no such field".into()),
        drift_ratio: index.is_multiple_of(3).then_some(0.001 * (index % 2) as f64),
        validated_at: index.is_multiple_of(3).then_some(now),
        strip: "0123456".chars().cycle().skip(index).take(96).collect(),
        ..TypeStatus::default()
    };
    status.types = (0..200).map(ty).collect();
    let statuses = [Status::Ok, Status::Repaired, Status::Drift, Status::Error, Status::Timeout, Status::Interrupted];
    let outcome = |index: usize| Outcome {
        run_id: index.to_string(),
        status: statuses[index % statuses.len()],
        started_at: now,
        seconds: Some(12.0),
    };
    let pipeline = |index: usize| PipelineStatus {
        name: format!("a-pipeline-with-a-long-name-{index:03}"),
        schedule: Some("15 */2 * * MON-FRI +1".into()),
        enabled: true,
        paused: index.is_multiple_of(7),
        next_run: Some(now),
        last_status: Some(statuses[index % statuses.len()]),
        last_finished_at: Some(now),
        outcomes: (0..30).map(outcome).collect(),
        ..PipelineStatus::default()
    };
    status.pipelines = (0..100).map(pipeline).collect();
    let dead = |serial: i64| DeadLetter {
        serial,
        kind: "event".into(),
        entity_type: "EventLogEntry".into(),
        id: 1_014_702,
        error: "x".repeat(200),
        attempts: 2,
        first_at: now,
    };
    status.set_apart.dead = (0..20).map(dead).collect();
    status.sync.dead_letters = [("event".to_owned(), 20)].into();
    status.set_apart.quarantine = vec![Quarantine { entity_type: "Shot".into(), rows: 3 }];
    let held = HeldDeletions { entity_type: "Shot".into(), since: now, held: 900, active: 18_000 };
    status.set_apart.breakers = vec![held];
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_holds_a_large_studio() {
    let Some(browser) = Browser::find() else { return };
    let bound = Bound::open("listen.ops", "127.0.0.1:0").await.expect("a port");
    let (ops, stop) = (bound.address().to_string(), CancellationToken::new());
    let control = Control::new(bound.address());
    let router = Ops::new(Metrics::default(), control, || std::future::ready(large())).router();
    let until = stop.clone();
    let served = tokio::spawn(async move { bound.serve(router, &Metrics::default(), until).await });
    let page = browser.open_address(&ops, 100, &["--expand"]);
    let folded = page["folded"].as_str().expect("text");
    assert!(folded.contains("Show the other 186 types: ") && folded.contains("Show the other 88"), "{folded}");
    assert!(text(&page).contains("CustomNonProjectEntity199") && text(&page).contains("900 of 18,000 rows of Shot"));
    stop.cancel();
    served.await.expect("an end");
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
