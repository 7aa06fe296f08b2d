//! JSON Schemas: what is checked in is what the program prints.

use std::collections::BTreeSet;

use crate::program::Place;
use crate::prometheus::repository;

#[test]
fn the_schemas_that_are_checked_in_are_those_of_the_program() {
    let place = Place::new();
    for kind in ["config", "pipeline", "entity-config"] {
        let printed = place.run(&["schema", kind]).expect_code(0).stdout;
        let path = repository(&format!("docs/schemas/{kind}.schema.json"));
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(printed == kept, "write it anew: `sgcache schema {kind} > docs/schemas/{kind}.schema.json`");
    }
}

#[test]
fn a_schema_knows_jobs_their_arguments_and_what_keys_are_for() {
    let place = Place::new();
    let schema = place.run(&["schema", "pipeline"]).expect_code(0).json();
    let step = &schema["properties"]["steps"]["items"];
    assert!(step["properties"]["job"]["enum"].as_array().is_some_and(|jobs| jobs.contains(&"validateData".into())));
    let of_job = step["allOf"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["if"]["properties"]["job"]["const"] == "validateData");
    let arguments = &of_job.expect("the job")["then"]["properties"]["with"];
    assert_eq!(arguments["additionalProperties"], false);
    assert_eq!(arguments["properties"]["limit"]["anyOf"][0]["minimum"], 1);
    let cron = schema["properties"]["schedule"]["properties"]["cron"]["description"].as_str();
    assert!(cron.is_some_and(|words| words.starts_with("a cron line of five fields")), "{cron:?}");
}

/// The schema that the first line of a file names, from the directory of the file on.
fn named_schema(path: &std::path::Path) -> std::path::PathBuf {
    let text = std::fs::read_to_string(path).expect("a file");
    let first = text.lines().next().unwrap_or_default();
    let schema = first.strip_prefix("# yaml-language-server: $schema=");
    let schema = schema.unwrap_or_else(|| panic!("{} begins with {first}", path.display()));
    path.parent().expect("a directory").join(schema)
}

#[test]
fn every_shipped_file_and_every_new_one_names_its_schema() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("a schema");
    let of_pipelines = read(&root.join("docs/schemas/pipeline.schema.json"));
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("pipelines")).expect("a directory") {
        let path = entry.expect("an entry").path();
        assert_eq!(read(&named_schema(&path)), of_pipelines, "{}", path.display());
        count += 1;
    }
    assert!(count >= 6, "{count} pipelines");
    let config = read(&named_schema(&root.join("config.yaml")));
    assert_eq!(config, read(&root.join("docs/schemas/config.schema.json")));

    let place = Place::new();
    for template in ["minimal", "counts", "samples", "rebuild", "scans"] {
        let name = format!("my-{template}");
        place.run(&["pipelines", "new", &name, "--template", template]).expect_code(0);
        let path = place.path(&format!("pipelines/{name}.yaml"));
        assert_eq!(read(&named_schema(&path)), of_pipelines, "{template}");
        place.run(&["pipelines", "test", &name]).expect_code(0);
    }
}

/// The exit codes of a table: every second cell of rows of numbers.
fn exit_codes(page: &str) -> BTreeSet<u8> {
    let text = std::fs::read_to_string(repository(page)).expect("a page");
    let table = text.lines().skip_while(|line| !line.starts_with("| exit code |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.flat_map(|row| row.split('|').skip(1).step_by(2).map(str::trim).collect::<Vec<_>>());
    cells.flat_map(|cell| cell.split(", ").filter_map(|code| code.parse().ok()).collect::<Vec<u8>>()).collect()
}

#[test]
fn the_reference_and_the_readme_list_every_exit_code() {
    let used = BTreeSet::from([0, 1, 2, 10, 11, 12, 69, 75, 77, 78, 124, 130, 143]);
    assert_eq!(exit_codes("docs/reference/pipeline.md"), used);
    assert_eq!(exit_codes("README.md"), used);
}
