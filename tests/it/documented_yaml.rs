//! Every block of YAML that the documents show is a file that sgcache takes, without an
//! error and without a warning. (Those of `docs/reference/errors.md` are in
//! `cli_diagnostics`, those of `docs/SIM.md` in `sim_python` and below.)

use serde_json::Value;

use crate::program::Place;
use crate::prometheus::repository;

/// Every page of the documents, but those whose blocks other tests read.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned).to_vec();
    for folder in ["docs", "docs/reference", "docs/runbooks"] {
        let files = std::fs::read_dir(repository(folder)).expect("a folder").filter_map(Result::ok);
        let names = files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| name.ends_with(".md"));
        pages.extend(names.map(|name| format!("{folder}/{name}")));
    }
    pages.retain(|page| !["docs/reference/errors.md", "docs/SIM.md"].contains(&page.as_str()));
    pages
}

/// The blocks of YAML of a page.
fn blocks(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(page)).expect("a page");
    let blocks = text.split("\n```yaml\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap_or_default().to_owned() + "\n").collect()
}

#[test]
fn pipelines_in_the_documents_are_fine() {
    let place = Place::new();
    let own = std::fs::read_to_string(place.path("pipelines/nightly-counts.yaml")).expect("a file");
    assert!(own.contains("name: nightly-counts"));
    let config = std::fs::read_to_string(place.path("config.yaml")).expect("a file");
    // What the examples name is in the shipped file as a comment.
    let named = "notifiers:\n  td-slack: { type: slack, url: { value: 'http://127.0.0.1:9/' } }\n\
                 blackouts:\n  dailies: { cron: '0 10 * * MON-FRI', duration: 90m }\n";
    std::fs::write(place.path("config.yaml"), config + named).expect("a file");
    let user = "name: user\nsteps: [{ id: purge, job: purge }]\non_error: [{ notify: td-slack }]\n";
    std::fs::write(place.path("pipelines/user.yaml"), user).expect("a file");
    let mut checked = 0;
    for page in pages() {
        let mut pipeline = String::new();
        for block in blocks(&page) {
            // What does not begin a file goes on with the one before.
            pipeline = if block.contains("name: ") && block.contains("steps:") { block } else { pipeline + &block };
            std::fs::write(place.path("pipelines/nightly-counts.yaml"), &pipeline).expect("a file");
            let args = ["pipelines", "validate", "--deny-warnings", "--format", "json"];
            let ended = place.run(&args);
            assert_eq!(ended.code, Some(0), "{page}:\n{pipeline}\n{}{}", ended.stdout, ended.stderr);
            let tests = place.run(&["pipelines", "test", "nightly-counts"]);
            assert_eq!(
                tests.code,
                Some(if pipeline.contains("tests:") { 0 } else { 12 }),
                "{page}:\n{pipeline}\n{}{}",
                tests.stdout,
                tests.stderr
            );
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} blocks were found");
}

#[test]
fn what_is_shipped_has_no_warnings() {
    let place = Place::new();
    place.run(&["pipelines", "validate", "--deny-warnings"]).expect_code(0);
    place.edit(
        "config.yaml",
        "# blackouts:",
        "notifiers:\n  td-slack: { type: slack, url: { value: 'http://127.0.0.1:9/' } }\n# blackouts:",
    );
    place.edit("pipelines/nightly-counts.yaml", "30 3 * * *", "30 2 * * *");
    let found = place.run(&["pipelines", "validate", "--format", "json"]).expect_code(0).json();
    let problems = found["diagnostics"].as_array().expect("a list").iter();
    let shown: Vec<(&Value, &Value)> = problems.map(|one| (&one["code"], &one["severity"])).collect();
    assert_eq!(shown, [(&"SG0404".into(), &"warning".into()), (&"SG0614".into(), &"warning".into())], "{found}");
    place.run(&["pipelines", "validate", "--deny-warnings"]).expect_code(11);
    // Warnings about what was decided are said where they are asked for, not by each command.
    let listed = place.run(&["pipelines", "list"]).expect_code(0);
    assert!(!listed.stderr.contains("SG0"), "{}", listed.stderr);
}
