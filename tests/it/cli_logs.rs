//! `sgcache pipelines logs`: the log of a run, whichever process runs or reads it.

use std::time::Duration;

use serde_json::Value;
use sgcache::sim::Trouble;

use crate::program::Place;
use crate::waiting::block_until;

/// The lines of a log, as step and message.
fn lines(log: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    log.as_array().expect("a list").iter().map(|line| (text(&line["step"]), text(&line["message"]))).collect()
}

#[track_caller]
fn expect(log: &Value, expected: &[(&str, &str)]) {
    let lines = lines(log);
    let mut rest = lines.iter();
    for (step, message) in expected {
        assert!(rest.any(|line| line.0 == *step && line.1 == *message), "no `{message}` of `{step}` in {lines:#?}");
    }
}

const BEGINNING: [(&str, &str); 2] = [("", "run started"), ("all", "step started")];
const END: [(&str, &str); 2] = [("all", "step ended"), ("", "run ended")];

#[tokio::test(flavor = "multi_thread")]
async fn every_process_that_runs_something_leaves_a_log_that_every_other_reads() {
    let (place, site) = Place::imported(300).await;
    let text = "name: all\nsteps: [{ id: all, job: validateCounts, with: { types: [Shot] } }]\n\
                retry: { attempts: 2, initial: 0s, max: 0s, on: [rate_limited] }\n";
    std::fs::write(place.path("pipelines/all.yaml"), text).expect("a file");
    let log = |run_id: &Value| {
        let run_id = run_id.as_str().expect("an id");
        place.run(&["pipelines", "logs", run_id, "-o", "json"]).expect_code(0).json()
    };

    let job = place.run(&["job", "validateCounts", "Shot", "-o", "json"]).expect_code(0).json();
    expect(&log(&job["run_id"]), &[("", "run started"), ("validateCounts", "step ended"), ("", "run ended")]);

    let once = place.run(&["pipelines", "run", "--once", "all", "-o", "json"]).expect_code(0).json();
    expect(&log(&once["run_id"]), &[BEGINNING, END].concat());
    assert_eq!(log(&once["run_id"]).as_array().map(Vec::len), Some(4));

    let daemon = place.daemon();
    let run = place.run(&["pipelines", "trigger", "all", "-o", "json"]).expect_code(0).json();
    expect(&log(&run["run_id"]), &[BEGINNING, END].concat());
    let run_id = run["run_id"].as_str().expect("an id");
    let table = place.run(&["pipelines", "logs", run_id]).expect_code(0).stdout;
    assert!(table.contains(" INFO  all: step ended ") && table.contains(" drift=0"), "{table}");
    let shown = place.run(&["pipelines", "show", run_id]).expect_code(0).stdout;
    assert!(shown.contains(&format!("sgcache pipelines logs {run_id}\n")), "{shown}");
    assert_eq!(daemon.terminate().0, Some(0));
    site.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_followed_ends_with_its_run() {
    let (place, site) = Place::imported(300).await;
    site.site().troubles.next_of("read Task", 1, Trouble::Slow(Duration::from_secs(50).into()));
    let text = "name: all\nsteps: [{ id: all, job: rebuild, with: { types: [Shot, Task] } }]\n";
    std::fs::write(place.path("pipelines/all.yaml"), text).expect("a file");
    let running = place.start(&["pipelines", "run", "--once", "all"]);
    block_until(|| site.site().troubles.waiting() == 0);
    let history = place.run(&["pipelines", "history", "--limit", "1", "-o", "json"]).expect_code(0).json();
    let run_id = history[0]["run_id"].as_str().expect("an id").to_owned();
    let beginning = place.run(&["pipelines", "logs", &run_id, "-o", "json"]).expect_code(0).json();
    expect(&beginning, &BEGINNING);
    assert!(!lines(&beginning).iter().any(|(_, message)| message == "run ended"), "{beginning}");

    let following = place
        .command(&["pipelines", "logs", &run_id, "--follow", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    assert_eq!(running.signalled("INT").code, Some(130));
    let ended = following.wait_with_output().expect("it ends");
    let log: Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    expect(&log, &[BEGINNING, END].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_outlives_its_process_and_an_unknown_run_is_refused() {
    let (place, site) = Place::imported(300).await;
    site.site().troubles.next_of("read Task", 1, Trouble::Slow(Duration::from_secs(50).into()));
    let running = place.start(&["job", "rebuild", "Shot", "Task"]);
    block_until(|| site.site().troubles.waiting() == 0);
    running.kill();
    let history = place.run(&["pipelines", "history", "--limit", "1", "-o", "json"]).expect_code(0).json();
    let run_id = history[0]["run_id"].as_str().expect("an id").to_owned();
    let log = place.run(&["pipelines", "logs", &run_id, "-f", "-o", "json"]).expect_code(0).json();
    expect(&log, &[("", "run started"), ("rebuild", "step started")]);
    place.run(&["pipelines", "logs", "01K00000000000000000000000"]).expect_code(2).says(&["there is no run"]);
    place.run(&["pipelines", "logs", "../state"]).expect_code(2).says(&["there is no run"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_continuous_pipeline_holds_what_following_the_site_logs() {
    let (place, site) = Place::imported(300).await;
    let daemon = place.daemon();
    let history = place.run(&["pipelines", "history", "sync", "--limit", "1", "-o", "json"]).expect_code(0).json();
    let run_id = history[0]["run_id"].as_str().expect("an id").to_owned();
    // The loops of the follower are tasks of their own.
    site.shutdown().await;
    let has_failure = || {
        let log = place.run(&["pipelines", "logs", &run_id, "-o", "json"]).expect_code(0).json();
        log.as_array().expect("a list").iter().any(|line| line["level"] == "warn" && line["step"] == "follow")
    };
    block_until(has_failure);
    assert_eq!(daemon.terminate().0, Some(0));
}
