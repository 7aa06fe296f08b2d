//! JSON Schemas: what is checked in is what the program prints.

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
