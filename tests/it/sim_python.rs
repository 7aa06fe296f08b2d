//! The unmodified Python client against the simulated site.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::process::Command;

use sgcache::sim::{Sim, SimSettings};

use crate::servers::skipped;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works_unchanged() {
    let Ok(python) = std::env::var("SGCACHE_TEST_PYTHON") else {
        return skipped("sim_python", "SGCACHE_TEST_PYTHON is not set (eval \"$(tests/setup)\")");
    };
    let sim = Sim::start(SimSettings { entities: 2_000, ..SimSettings::default() }).await.expect("a free port");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/test_client.py");
    let url = sim.url();
    let run = tokio::task::spawn_blocking(move || Command::new(python).arg(script).arg(url).output());
    let output = run.await.expect("the run").expect("the Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("OK"), "{said}");
    sim.shutdown().await;
}
