//! Writing pipelines: from a template, through what applies to it and what differs from
//! what runs, to its runs.

use serde_json::Value;

use crate::program::Place;

#[test]
fn every_template_is_valid_and_meets_its_own_expectations() {
    let place = Place::new();
    for template in ["minimal", "counts", "samples", "rebuild"] {
        let name = format!("my-{template}");
        let new = place.run(&["pipelines", "new", &name, "--template", template]).expect_code(0);
        assert!(new.stdout.trim_end().ends_with(&format!("pipelines/{name}.yaml")), "{}", new.stdout);
        place.run(&["pipelines", "validate", "--deny-warnings"]).expect_code(0);
        place.run(&["pipelines", "test", &name]).expect_code(0);
        assert!(place.run(&["pipelines", "explain", &name]).expect_code(0).stdout.starts_with(&name));
    }
    let written = std::fs::read_to_string(place.path("pipelines/my-minimal.yaml")).expect("a file");
    place.run(&["pipelines", "new", "my-minimal"]).expect_code(2).says(&["there is a pipeline `my-minimal`"]);
    assert_eq!(std::fs::read_to_string(place.path("pipelines/my-minimal.yaml")).expect("a file"), written);
    place.run(&["pipelines", "new", "other", "--template", "cuonts"]).expect_code(2).says(&["did you mean `counts`?"]);
    place.run(&["pipelines", "new", "../other"]).expect_code(2).says(&["is not a name"]);
}

/// Returns the setting of a key from `pipelines show -o json`.
fn setting(settings: &Value, key: &str) -> (Value, String) {
    let found = settings.as_array().expect("a list").iter().find(|one| one["key"] == key);
    let found = found.unwrap_or_else(|| panic!("{key} is not in {settings}"));
    let origin = match &found["origin"] {
        Value::String(word) => word.clone(),
        place => place["file"].as_str().expect("a place").to_owned(),
    };
    (found["value"].clone(), origin)
}

#[test]
fn what_applies_to_a_pipeline_is_shown_with_its_origin() {
    let place = Place::new();
    place.edit("config.yaml", "timeout: 1h", "timeout: 50m");
    let text = "name: mine\nschedule: { cron: '0 6 * * *' }\nparams: { most: { type: integer, default: 3 } }\n\
        steps:\n  - { id: a, job: validateCounts, fail_when: result.missing > params.most }\n\
        \x20 - { id: b, job: validateData, with: { limit: '${{ params.most }}', types: '${{ steps.a.status }}' } }\n";
    let text = text.replace(", types: '${{ steps.a.status }}'", "");
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    let show = |extra: &[&str]| {
        let args = [&["pipelines", "show", "mine", "-o", "json"], extra].concat();
        place.run(&args).expect_code(0).json()
    };
    let written = show(&[]);
    let (value, origin) = setting(&written, "schedule.cron");
    assert!(value == "0 6 * * *" && origin.ends_with("pipelines/mine.yaml:2:19"), "{value} {origin}");
    let (value, origin) = setting(&written, "timeout");
    assert!(value == "50m" && origin.contains("config.yaml:"), "{value} {origin}");
    let (value, origin) = setting(&written, "schedule.timezone");
    assert!(value == "Europe/Paris" && origin.contains("config.yaml:11:"), "{value} {origin}");
    assert_eq!(setting(&written, "concurrency.policy"), ("skip".into(), "built_in".to_owned()));
    assert_eq!(setting(&written, "steps.b.with.limit").0, "${{ params.most }}");
    assert_eq!(setting(&show(&["--rendered"]), "steps.b.with.limit").0, 3);
    let set = show(&["--rendered", "--set", "most=7"]);
    assert_eq!(setting(&set, "steps.b.with.limit").0, 7);
    assert_eq!(setting(&set, "params.most.value"), (7.into(), "set".to_owned()));
    let table = place.run(&["pipelines", "show", "mine", "--origin"]).expect_code(0).stdout;
    assert!(table.contains("built in") && table.contains("mine.yaml:2:19"), "{table}");
    place.run(&["pipelines", "show", "mien"]).expect_code(2).says(&["did you mean `mine`?"]);
    let chart = place.run(&["pipelines", "graph", "mine", "--format", "mermaid"]).expect_code(0).stdout;
    assert!(chart.starts_with("flowchart LR\n  subgraph p0 [\"mine\"]\n"), "{chart}");
    assert!(place.run(&["pipelines", "graph"]).expect_code(0).stdout.contains("nightly-counts  At 03:30."));
}

#[test]
fn files_are_compared_with_what_the_daemon_has_loaded_and_a_run_is_shown_and_repeated() {
    let place = Place::new();
    let _sim = place.sim(60, 0.0);
    place.run(&["pipelines", "diff"]).expect_code(69).says(&["no daemon has loaded pipelines"]);
    let text = "name: mine\nparams: { days: { type: integer, default: 90 } }\n\
        steps: [{ id: prune, job: pruneReports, with: { keep_days: '${{ params.days }}' } }]\n\
        on_error: [{ ping: 'http://127.0.0.1:9/token-of-mine' }]\n";
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    let daemon = place.daemon();
    let same = place.run(&["pipelines", "diff", "--exit-code"]).expect_code(0).stdout;
    assert_eq!(same, "the files are what is loaded\n");

    // What has an error is not loaded, so the difference stays.
    place.edit("pipelines/sync.yaml", "job: sync", "job: snyc");
    place.edit("pipelines/nightly-counts.yaml", "timeout: 30m", "timeout: 45m");
    let args = ["pipelines", "diff", "--exit-code", "-o", "json"];
    let found = place.run(&args).expect_code(10).says(&["snyc"]).json();
    let nightly = found.as_array().expect("a list").iter().find(|one| one["pipeline"] == "nightly-counts");
    let expected = serde_json::json!([{"key": "timeout", "loaded": "30m", "file": "45m"}]);
    assert_eq!(nightly.expect("a difference")["keys"], expected, "{found}");
    let shown = place.run(&["pipelines", "diff"]).expect_code(0).stdout;
    assert!(shown.contains("nightly-counts: changed\n  - timeout: 30m\n  + timeout: 45m\n"), "{shown}");

    let first = place.run(&["pipelines", "trigger", "mine", "--set", "days=30", "-o", "json"]).expect_code(0).json();
    let run_id = first["run_id"].as_str().expect("an id");
    let shown = place.run(&["pipelines", "show", run_id]).expect_code(0).stdout;
    assert!(shown.starts_with(&format!("{run_id} of mine: ok\n")), "{shown}");
    for words in ["param     days = 30", "step      prune (pruneReports) ok in", "trigger   api"] {
        assert!(shown.contains(words), "`{words}` is not in {shown}");
    }
    let again = place.run(&["pipelines", "retry", run_id, "-o", "json"]).expect_code(0).json();
    assert_ne!(again["run_id"], first["run_id"]);
    assert_eq!((&again["params"], &again["pipeline"]), (&first["params"], &first["pipeline"]));
    place.run(&["pipelines", "retry", "01K00000000000000000000000"]).expect_code(2).says(&["there is no run"]);
    // The address of a ping is often a secret: no command shows it, and it is not kept.
    place.edit("pipelines/mine.yaml", "default: 90", "default: 80");
    place.edit("pipelines/mine.yaml", "token-of-mine", "token-of-mine-too");
    for args in [&["show", "mine", "--rendered"][..], &["graph", "mine"], &["diff"], &["explain", "mine"]] {
        let ended = place.run(&[&["pipelines"], args].concat());
        assert!(!format!("{ended:?}").contains("token-of-mine"), "{args:?}: {ended:?}");
    }
    let shown = place.run(&["pipelines", "diff"]).expect_code(0).stdout;
    assert!(shown.contains("  - on_error.0.ping: *** (") && shown.contains("  + params.days.default: 80"), "{shown}");
    assert_eq!(daemon.terminate().0, Some(0));
    let state = std::fs::read(place.path("data/state.sqlite")).expect("the state");
    assert!(!state.windows(13).any(|part| part == b"token-of-mine"), "the address is in the state");
    let last = place.run(&["pipelines", "diff", "--exit-code"]).expect_code(10);
    last.says(&["compared with what the last one had loaded"]);
}
