//! Programs that nobody here wrote, unmodified, against the simulated site: the
//! official client in two versions with every public method, a library on top of
//! it, and the client's own Mockgun as a second opinion.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has them.

use std::process::Command;
use std::time::Duration;

use sgcache::sim::{Sim, SimSettings};

use crate::servers::skipped;

/// Runs a test program of Python against a site of its own; `older` puts the older
/// client before the other one.
async fn passes(script: &str, settings: SimSettings, older: bool) {
    let variable = if older { "SGCACHE_TEST_OLDER_CLIENT" } else { "SGCACHE_TEST_PYTHON" };
    let (Ok(python), Ok(path)) = (std::env::var("SGCACHE_TEST_PYTHON"), std::env::var(variable)) else {
        return skipped("sim_programs", &format!("{variable} is not set (eval \"$(tests/setup)\")"));
    };
    let sim = Sim::start(settings).await.expect("a free port");
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"))).arg(sim.url());
    if older {
        command.env("PYTHONPATH", path);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.expect("the run").expect("the Python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("OK"), "{said}");
    sim.shutdown().await;
}

fn at_once() -> SimSettings {
    SimSettings { entities: 600, thumbnail_delay: Duration::ZERO, ..SimSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_public_method_of_the_client_answers_in_its_shape() {
    passes("test_methods.py", at_once(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_may_go_to_the_storage_without_passing_the_site() {
    passes("test_methods.py", SimSettings { direct_uploads: true, ..at_once() }, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_client_works_unchanged() {
    passes("test_methods.py", at_once(), true).await;
    passes("test_client.py", at_once(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_on_top_of_the_client_works_unchanged() {
    passes("test_pyshotgrid.py", at_once(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_mean_what_the_mock_of_the_client_takes_them_for() {
    passes("test_mockgun.py", at_once(), false).await;
}
