//! The unmodified Python client through the proxy: the calls of every day, random
//! queries against the site itself, and reads of its own writes.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.
//! SGCACHE_TEST_QUERIES and SGCACHE_TEST_SECONDS make the runs longer.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sgcache::proxy::{CallerName, CallerRule, Limits, Semantics, Settings};
use sgcache::sim::{Edits, Site, SiteSettings, Trouble};

use crate::proxy_rig::{Rig, shipped};
use crate::servers::{python, skipped};

const SUITE: &str = "proxy_python";

fn wanted(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

/// Runs a program of `tests/python`.
pub async fn run(python: String, script: &'static str, arguments: Vec<String>) -> (Output, String) {
    run_with(python, script, arguments, &[]).await
}

/// Runs a program of Python with more in its environment.
async fn run_with(
    python: String,
    script: &'static str,
    arguments: Vec<String>,
    environment: &[(&str, String)],
) -> (Output, String) {
    let path = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(python);
    command.arg(path).args(arguments).envs(environment.iter().map(|(name, value)| (*name, value.clone())));
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = run.await.expect("the run").expect("the Python runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    (output, said)
}

fn hits(rig: &Rig) -> f64 {
    ["read", "summarize"]
        .iter()
        .map(|method| rig.counted("sgcache_proxy_cache_hits_total", &[("method", method)]))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_works_through_the_proxy() {
    let Some(python) = python(SUITE) else { return };
    let rig = Rig::start(Site::generated(1, 2000), shipped(), Settings::default()).await;
    let (output, said) = run(python, "test_client.py", vec![rig.url.clone()]).await;
    assert!(output.status.success() && said.contains("OK"), "{said}");
    assert!(hits(&rig) > 0.0);
}

/// Starts a proxy before a site whose thumbnails are ready at once, as these programs
/// want them.
async fn quick_site() -> Rig {
    let settings = SiteSettings { thumbnail_delay: Duration::ZERO, ..SiteSettings::default() };
    Rig::start(Site::filled(&settings, 1, 600), shipped(), Settings::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_public_method_of_the_client_works_through_the_proxy() {
    let Some(python) = python(SUITE) else { return };
    let rig = quick_site().await;
    let (output, said) = run(python, "test_methods.py", vec![rig.url.clone(), rig.site_url.clone()]).await;
    assert!(output.status.success() && said.contains("OK"), "{said}");
    assert!(hits(&rig) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_client_works_through_the_proxy() {
    let Some(python) = python(SUITE) else { return };
    let Ok(older) = std::env::var("SGCACHE_TEST_OLDER_CLIENT") else {
        return skipped(SUITE, "SGCACHE_TEST_OLDER_CLIENT is not set (eval \"$(tests/setup)\")");
    };
    let rig = quick_site().await;
    let urls = vec![rig.url.clone(), rig.site_url.clone()];
    for (script, urls) in [("test_methods.py", urls.clone()), ("test_client.py", urls[..1].to_vec())] {
        let environment = [("PYTHONPATH", older.clone())];
        let (output, said) = run_with(python.clone(), script, urls, &environment).await;
        assert!(output.status.success() && said.contains("OK"), "{said}");
    }
    assert!(hits(&rig) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_on_top_of_the_client_works_through_the_proxy() {
    let Some(python) = python(SUITE) else { return };
    let rig = quick_site().await;
    let (output, said) = run(python, "test_pyshotgrid.py", vec![rig.url.clone()]).await;
    assert!(output.status.success() && said.contains("OK"), "{said}");
    assert!(hits(&rig) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_the_official_client_are_answered_from_the_cache() {
    let Some(python) = python(SUITE) else { return };
    let site = Site::generated(3, 600);
    let person = serde_json::json!({"login": "artist", "password_proxy": "a word", "name": "A B"});
    site.create("HumanUser", person).expect("a person");
    let callers = vec![CallerRule { name: CallerName::Login("artist".into()), limits: Limits::default() }];
    let rig = Rig::start(site, shipped(), Settings { callers, ..Settings::default() }).await;
    let arguments = [&rig.url, &rig.site_url, "artist", "a word"].map(str::to_owned).to_vec();
    let (output, said) = run(python, "test_sessions.py", arguments).await;
    assert!(output.status.success() && said.contains("OK"), "{said}");
}

/// Starts a proxy that assumes every reading which the site has.
async fn assuming() -> Rig {
    let semantics = Semantics::EVERY.iter().copied().collect();
    let settings = Settings { semantics, ..Settings::default() };
    Rig::start(Site::generated(7, 2500), shipped(), settings).await
}

/// Asks random queries of both, and fails when hardly any is served.
async fn differ(rig: &Rig, python: String, usual: u64, how: &[&str]) {
    let before = hits(rig);
    let (queries, seed) = (wanted("SGCACHE_TEST_QUERIES", usual), wanted("SGCACHE_TEST_SEED", 1));
    let arguments = [&rig.site_url, &rig.url].map(String::clone).into_iter();
    let arguments = arguments.chain([queries.to_string(), seed.to_string()]);
    let arguments = arguments.chain(how.iter().map(|word| (*word).to_owned())).collect();
    let (output, said) = run(python, "differential.py", arguments).await;
    assert!(output.status.success(), "{said}");
    let served = (hits(rig) - before) / queries as f64;
    println!("{:.0} % of the queries were answered from the cache", served * 100.0);
    assert!(served > 0.2, "hardly any query was answered from the cache: {served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_have_the_answers_of_the_site() {
    let Some(python) = python(SUITE) else { return };
    differ(&assuming().await, python, 400, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_have_the_answers_of_a_site_that_moves() {
    let Some(python) = python(SUITE) else { return };
    let rig = assuming().await;
    let mut edits = Edits::new(Arc::clone(rig.site()), 9);
    let working = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            edits.step();
        }
    });
    differ(&rig, python, 250, &["moving"]).await;
    assert!(!working.is_finished(), "the site stood still");
    working.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_misses_a_write_that_was_acknowledged() {
    let Some(python) = python(SUITE) else { return };
    let rig = Rig::start(Site::generated(2, 1000), shipped(), Settings::default()).await;
    let seconds = wanted("SGCACHE_TEST_SECONDS", 12);
    let site = rig.site().clone();
    let faults = tokio::spawn(async move {
        let mut random = SmallRng::seed_from_u64(5);
        // The script makes its entities undisturbed.
        while site.requests.of("update Shot") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(random.random_range(20..200))).await;
            let trouble = match random.random_range(0..3) {
                0 => Trouble::Status(503),
                1 => Trouble::Truncated,
                _ => Trouble::Dropped,
            };
            let method = ["read", "update", "read EventLogEntry", "read Shot", "create"][random.random_range(0..5)];
            site.troubles.next_of(method, 1, trouble);
        }
    });
    let (output, said) = run(python, "read_your_writes.py", vec![rig.url.clone(), seconds.to_string()]).await;
    faults.abort();
    assert!(output.status.success(), "{said}");
    println!("{} reads from the cache", hits(&rig));
    assert!(hits(&rig) > 0.0, "every read went to the site");
}
