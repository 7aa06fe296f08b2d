//! Pipelines that explain themselves at the command line: next starts, and why past
//! occurrences did not run.

use serde_json::Value;

use crate::program::{Place, get};

#[test]
fn occurrences_that_did_not_run_are_in_the_history_with_their_reason() {
    let place = Place::new();
    let _sim = place.sim(60, 0.0);
    let every_second = "name: ticking\nschedule: { cron: '* * * * * *', seconds: true }\n\
        steps: [{ id: purge, job: purge }]\n";
    std::fs::write(place.path("pipelines/ticking.yaml"), every_second).expect("a file");
    place.run(&["pipelines", "pause", "ticking", "--reason", "storage is moved"]).expect_code(0);
    let daemon = place.daemon();
    let metric = "sgcache_task_skipped_total{pipeline=\"ticking\",reason=\"paused\",task=\"purge\"} ";
    let skipped_twice = |text: &str| {
        let count = text.lines().find_map(|line| line.strip_prefix(metric)).and_then(|count| count.parse().ok());
        count.is_some_and(|count: u64| count >= 2)
    };
    place.until("/metrics", |_, text| skipped_twice(text));

    let history = |status: &str| {
        let args = ["pipelines", "history", "ticking", "--status", status, "--since", "1h", "-o", "json"];
        place.run(&args).expect_code(0).json().as_array().cloned().expect("a list")
    };
    let skipped = history("skipped");
    assert!(skipped.len() >= 2, "{skipped:?}");
    for occurrence in &skipped {
        assert_eq!((&occurrence["status"], &occurrence["reason"]), (&"skipped".into(), &"it is paused".into()));
        assert_eq!(occurrence["steps"], Value::Array(Vec::new()));
    }
    assert_eq!(history("ok,drift"), Vec::<Value>::new());
    // They are no runs: neither for the page and its API nor for the last status.
    let (_, runs) = get(&format!("http://{}/api/v1/runs?pipeline=ticking", place.ops)).expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&runs).expect("JSON")["runs"], Value::Array(Vec::new()), "{runs}");
    let listed = place.run(&["pipelines", "list", "-o", "json"]).expect_code(0).json();
    let listed = listed.as_array().expect("a list").iter().find(|one| one["name"] == "ticking").expect("it").clone();
    assert_eq!((&listed["last_run"], &listed["outcomes"][0]), (&Value::Null, &"skipped".into()), "{listed}");
    let long = place.run(&["pipelines", "list", "--long"]).expect_code(0).says(&["s skipped"]).stdout;
    let line = long.lines().find(|line| line.contains("ticking")).expect("a line");
    assert!(line.contains(" ss") && line.contains("paused") && line.trim_end().len() <= 80, "{line}");

    let args = ["pipelines", "explain", "ticking", "--next", "1", "-o", "json"];
    let explained = place.run(&args).expect_code(0).json()[0].clone();
    assert_eq!(explained["state"], "paused: storage is moved");
    // The occurrence of this very second may not be in the history yet.
    let past = explained["past"].as_array().expect("a list");
    let skipped = past.iter().find(|one| one["status"] == "skipped").expect("one that was skipped");
    assert_eq!(skipped["remarks"][0], "it is paused", "{skipped}");
    assert_eq!(explained["next"][0]["remarks"][0], "skipped: it is paused", "{explained}");
    assert_eq!(daemon.terminate().0, Some(0));
}

#[test]
fn the_next_starts_are_explained_without_a_site_and_without_a_daemon() {
    let place = Place::new();
    let args = ["pipelines", "explain", "weekly-rebuild", "--next", "2", "--at", "2026-10-24T12:00:00Z"];
    let explained = place.run(&args).expect_code(0).stdout;
    assert!(explained.contains("Sun 2026-10-25 04:00:00 +01:00  03:00:00 UTC  in 15 h"), "{explained}");
    assert!(explained.contains("another of the group `heavy-reads`"), "{explained}");
    assert!(explained.lines().all(|line| line.chars().count() <= 80), "{explained}");
    let all = place.run(&["pipelines", "explain"]).expect_code(0).says(&["no daemon runs on"]).stdout;
    for name in ["nightly-counts:", "sampled-data:", "sync:", "weekly-rebuild:"] {
        assert!(all.contains(name), "{all}");
    }
    place.run(&["pipelines", "explain", "weekyl"]).expect_code(2).says(&["did you mean"]);
}
