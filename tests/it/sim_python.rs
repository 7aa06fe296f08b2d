//! The unmodified Python client against the simulated site.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::path::Path;
use std::process::Command;

use sgcache::sim::{Sim, SimSettings};

use crate::servers::python;

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works_unchanged() {
    let Some(python) = python("sim_python") else { return };
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

/// Returns the block of `docs/SIM.md` that is introduced as a file of this name.
fn documented(file: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SIM.md")).expect("docs/SIM.md");
    let (_, rest) = page.split_once(&format!("`{file}`:\n\n```")).unwrap_or_else(|| panic!("no block `{file}`"));
    let (_, rest) = rest.split_once('\n').expect("a block");
    rest.split_once("```").expect("the end of a block").0.to_owned()
}

#[test]
fn the_fixture_of_the_docs_works_as_it_is_printed() {
    let Some(python) = python("sim_python") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["conftest.py", "seed.yaml", "test_tools.py"] {
        std::fs::write(dir.path().join(file), documented(file)).expect("a file");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_sgcache")).parent().expect("a folder").display();
    let path = format!("{program}:{}", std::env::var("PATH").unwrap_or_default());
    let run = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(dir.path())
        .env("PATH", path)
        .output();
    let run = run.expect("the Python runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("2 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
}
