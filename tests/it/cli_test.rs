//! `sgcache pipelines test`: the shipped pipelines meet their own expectations, in every
//! zone, and a wrong expectation is an exit code and a line.

use std::collections::BTreeSet;

use crate::program::Place;

#[test]
fn the_shipped_pipelines_meet_their_own_expectations_in_every_zone() {
    for zone in ["Europe/Paris", "America/Los_Angeles", "Asia/Kolkata", "Pacific/Auckland"] {
        let place = Place::new();
        std::fs::copy("pipelines/scans.yaml", place.path("pipelines/scans.yaml")).expect("a file");
        place.edit("config.yaml", "timezone: Europe/Paris", &format!("timezone: {zone}"));
        let rehearsed = place.run(&["pipelines", "test", "-o", "json"]).expect_code(0).json();
        let tests = rehearsed.as_array().expect("a list");
        let tested: BTreeSet<&str> = tests.iter().filter_map(|test| test["pipeline"].as_str()).collect();
        assert_eq!(
            tested,
            ["nightly-counts", "sampled-data", "scans", "sync", "tidy-up", "weekly-rebuild"].into(),
            "{zone}"
        );
        assert!(tests.iter().all(|test| test["passed"] == true), "{zone}: {rehearsed}");
    }
}

#[test]
fn a_wrong_expectation_is_shown_at_its_place_and_ends_with_78() {
    let place = Place::new();
    place.edit("pipelines/nightly-counts.yaml", "status: repaired, actions", "status: drift, actions");
    let file = "pipelines/nightly-counts.yaml";
    let words = ["SG0901", "nightly-counts.yaml:", "`status` is `repaired`, not `drift`"];
    let ended = place.run(&["pipelines", "test", "nightly-counts"]).expect_code(78).says(&words);
    assert!(ended.stdout.contains("  FAIL  what is missing is repaired\n"), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("6 passed, 1 failed\n"), "{}", ended.stdout);
    place.run(&["pipelines", "test", file, "--filter", "without findings"]).expect_code(0);
    place.run(&["pipelines", "test", "sync"]).expect_code(0);
    place.run(&["pipelines", "test", "nihgtly-counts"]).expect_code(2).says(&["did you mean `nightly-counts`?"]);
    place.run(&["pipelines", "test", "--filter", "no such test"]).expect_code(12);
}
