//! Entity configs that change while the daemon runs.

use serde_json::Value;

use crate::program::Place;

/// The state of a type in the status of the daemon; empty when it is not followed.
fn state_of(status: &str, name: &str) -> String {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let types = status["types"].as_array().into_iter().flatten();
    let found = types.filter(|ty| ty["type"] == name).find_map(|ty| ty["state"].as_str());
    found.unwrap_or_default().to_owned()
}

#[test]
fn a_type_that_is_configured_while_the_daemon_runs_is_followed_without_a_restart() {
    let place = Place::new();
    let config = std::fs::read(place.path("entityConfig/Step.json")).expect("a config");
    std::fs::remove_file(place.path("entityConfig/Step.json")).expect("a removal");
    let _sim = place.sim(200, 0.0);
    let _daemon = place.daemon();
    assert_eq!(state_of(&place.until("/api/v1/status", |status, _| status == 200), "Step"), "");
    std::fs::write(place.path("entityConfig/Step.json"), config).expect("a file");
    place.until("/api/v1/status", |_, body| state_of(body, "Step") == "live");
    let found = place.run(&["find", "Step", "--fields", "code", "-o", "json"]).expect_code(0).json();
    assert!(!found.as_array().expect("rows").is_empty());
    // A mistake changes nothing: the old configs stay in use.
    std::fs::write(place.path("entityConfig/Step.json"), "{\"fields\": {\"cod\": {}}}").expect("a file");
    place.until("/metrics", |_, body| body.contains("sgcache_config_last_reload_successful 0"));
    let status = place.until("/api/v1/status", |status, _| status == 200);
    assert_eq!(state_of(&status, "Step"), "live");
}
