//! The main job as a user sees it: site and daemon as two processes with the
//! shipped configuration, and every command of the README beside them.

use serde_json::{Value, json};

use crate::program::{Place, get};

fn counts(place: &Place) -> Value {
    place.run(&["job", "validateCounts", "-o", "json"]).expect_code(0).json()
}

#[test]
fn every_command_works_beside_a_running_daemon() {
    let place = Place::new();
    let _sim = place.sim(3000, 2.0);
    let daemon = place.daemon();

    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    assert_eq!(status["ready"], json!(true), "{status}");
    assert!(status["types"].as_array().is_some_and(|types| types.len() == 30), "{status}");

    let filters = r#"[["sg_status_list","is","ip"]]"#;
    let args = [
        "find",
        "Shot",
        "--filters",
        filters,
        "--fields",
        "code,sg_status_list,assets",
        "--order",
        "-updated_at",
        "--limit",
        "5",
        "-o",
        "json",
    ];
    let found = place.run(&args).expect_code(0).json();
    let rows = found.as_array().expect("an array");
    assert!(!rows.is_empty() && rows.len() <= 5, "{found}");
    assert!(
        rows.iter().all(|row| row["sg_status_list"] == "ip" && row["type"] == "Shot" && row["id"].is_i64()),
        "{found}"
    );
    assert!(rows.iter().all(|row| row["assets"].is_array() && row["code"].is_string()), "{found}");

    let (status, _) = get(&format!("http://{}/no/such/page", place.api)).expect("the api listener");
    assert_eq!(status, 404, "the site's own answer");
    let request = json!({"method_name": "read", "params": [{}, {"type": "Shot", "return_fields": ["open_notes_count"],
        "filters": {"logical_operator": "and", "conditions": []}, "return_only": "active",
        "paging": {"entities_per_page": 1, "current_page": 1}}]});
    std::fs::write(place.path("request.json"), request.to_string()).expect("a file");
    let explained = place.run(&["explain", "--request", "request.json"]).expect_code(0).stdout;
    assert!(explained.starts_with("read Shot\n  goes to the site: computed\n"), "{explained}");

    let report = counts(&place);
    assert_eq!(report["schema"], "sgcache.run/1");
    assert_eq!(report["steps"][0]["result"]["drift"], json!(0), "{report}");
    assert!(report["steps"][0]["result"]["checked"].as_u64().is_some_and(|checked| checked > 1000), "{report}");

    place.run(&["job", "validateData", "--limit", "1000"]).expect_code(0);
    let filters = "[['id','greater_than',10],['id','less_than',4000]]";
    let order = "[{'field_name':'created_at','direction':'asc'}]";
    let args = [
        "job",
        "validateData",
        "Shot",
        "Asset",
        "--filters",
        filters,
        "--order",
        order,
        "--fields",
        "['id','code']",
        "--limit",
        "50",
        "--page",
        "2",
    ];
    place.run(&args).expect_code(0);
    place.run(&["job", "rebuild", "Asset", "Shot"]).expect_code(0).says(&["Asset: imported, ", "Shot: imported, "]);
    let rebuilt = place.run(&["job", "rebuild", "Asset", "-o", "json"]).expect_code(0).json();
    assert!(rebuilt["steps"][0]["result"]["requests"].as_u64() >= Some(3), "{rebuilt}");
    place.run(&["pipelines", "list"]).expect_code(0);
    place.run(&["pipelines", "trigger", "nightly-counts"]).expect_code(0);
    let history = place.run(&["pipelines", "history", "nightly-counts", "-o", "json"]).expect_code(0).json();
    assert_eq!(history[0]["status"], "ok", "{history}");
    // The daemon takes the new files over and reads both types anew: nothing is compared now.
    place.run(&["job", "generateEntityConfigs", "Asset", "Shot"]).expect_code(0);

    let (_, metrics) = get(&format!("http://{}/metrics", place.ops)).expect("metrics");
    assert!(metrics.contains("sgcache_sync_polls_total"), "{metrics}");
    let second = place.run(&["pipelines", "run"]).expect_code(75);
    assert!(second.stderr.contains("another sgcache follows this data directory"), "{}", second.stderr);

    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    place.run(&["status"]).expect_code(69);
}

#[test]
fn a_fault_made_by_hand_is_found_named_and_mended() {
    let place = Place::new();
    let _sim = place.sim(3000, 0.0);
    let _daemon = place.daemon();

    let spoiled = place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    let mut expected: Vec<String> = spoiled.stdout.lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(expected.len(), 3, "{spoiled:?}");

    let report = place.run(&["job", "validateData", "-o", "json"]).expect_code(10).json();
    assert_eq!(report["status"], "drift");
    let result = &report["steps"][0]["result"];
    assert_eq!([&result["differs"], &result["missing"], &result["extra"]], [&json!(3), &json!(0), &json!(0)]);
    let mismatches = result["mismatches"].as_array().expect("an array");
    let mut found: Vec<String> = mismatches
        .iter()
        .map(|m| format!("{}:{} {}", m["type"].as_str().unwrap(), m["id"], m["field"].as_str().unwrap()))
        .collect();
    found.sort();
    assert_eq!(found, expected);
    assert!(
        mismatches
            .iter()
            .all(|m| m["cached"].as_str().is_some_and(|v| v.starts_with("corrupted")) && m["kind"] == "differs")
    );

    let mended = place.run(&["job", "validateData", "--repair", "-o", "json"]).expect_code(0).json();
    assert_eq!(mended["steps"][0]["result"]["repaired"], json!(3), "{mended}");
    place.run(&["job", "validateData"]).expect_code(0);
}
