//! A daemon that starts while its site is away, hangs, or refuses the script: with a
//! replica it comes up and follows once it can; without one it ends and says why.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sgcache::sim::{Sim, SimHandle, SimSettings, Site, Trouble};

use crate::program::{Place, get};

/// Serves a site at the address that the place is configured for.
async fn serve(place: &Place, site: &Arc<Site>) -> SimHandle {
    let listen = place.site.parse().expect("an address");
    let settings = SimSettings { listen, ..SimSettings::default() };
    Sim::serve(Arc::clone(site), &settings).await.expect("the port is free")
}

/// A place with a replica of a site, which stands still.
async fn replicated() -> (Place, Arc<Site>, SimHandle) {
    let place = Place::new();
    // A request that hangs is over soon enough for a test.
    place.edit("config.yaml", "timeout: 60s", "timeout: 2s");
    let site = Site::generated(1, 600);
    let sim = serve(&place, &site).await;
    place.run(&["job", "import"]).expect_code(0);
    (place, site, sim)
}

fn until_unready(place: &Place, words: &str) {
    place.until("/readyz", |status, body| status == 503 && body.contains("never_polled") && body.contains(words));
}

/// Changes a shot on the site and waits until the cache shows it.
fn until_followed(place: &Place, site: &Site, code: &str) {
    place.until("/readyz", |status, _| status == 200);
    site.update("Shot", 1, json!({"code": code})).expect("an update");
    place.until("/readyz", |_, _| {
        let found = place.run(&["find", "Shot", "--filters", r#"[["id","is",1]]"#, "--fields", "code", "-o", "json"]);
        found.expect_code(0).json()[0]["code"] == code
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_replica_starts_while_the_site_is_away() {
    let (place, site, sim) = replicated().await;
    sim.shutdown().await;
    let daemon = place.start(&["pipelines", "run"]);
    until_unready(&place, "refused");
    assert!(get(&format!("http://{}/", place.api)).is_some(), "the api listener is up");
    let _sim = serve(&place, &site).await;
    until_followed(&place, &site, "seen after the outage");
    assert_eq!(daemon.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_replica_starts_while_the_site_hangs() {
    let (place, site, _sim) = replicated().await;
    site.troubles.next(u32::MAX, Trouble::Slow(Duration::from_secs(3600).into()));
    let daemon = place.start(&["pipelines", "run"]);
    until_unready(&place, "timed out");
    site.troubles.clear();
    until_followed(&place, &site, "seen after the silence");
    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0));
    // Callers wait as long as the start does, so it does not wait for the retries of a job.
    assert!(said.contains("no answer within 2 s"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_replica_starts_while_the_site_refuses_its_script() {
    let (place, site, _sim) = replicated().await;
    let refused = || Trouble::Fault(102, "Can't authenticate script 'sgcache'".to_owned());
    site.troubles.next_of("schema_read", 1, refused());
    // One more refusal would be taken for one that lasts.
    site.troubles.next_of("read EventLogEntry", 2, refused());
    let daemon = place.start(&["pipelines", "run"]);
    until_followed(&place, &site, "seen after the refusal");
    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0));
    assert!(said.contains("Can't authenticate script") && said.contains("serving what is stored"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_complete_type_ends_when_the_site_refuses_its_script() {
    let place = Place::new();
    let site = Site::generated(1, 100);
    let _sim = serve(&place, &site).await;
    let refused = || Trouble::Fault(102, "Can't authenticate script 'sgcache'".to_owned());
    site.troubles.next(u32::MAX, refused());
    place.run(&["pipelines", "run"]).expect_code(77).says(&["Can't authenticate script", "shotgun.key"]);
    // The schema alone serves nobody.
    site.troubles.clear();
    place.run(&["job", "validateCounts"]);
    assert!(place.path("data/state.sqlite").exists());
    site.troubles.next(u32::MAX, refused());
    place.run(&["pipelines", "run"]).expect_code(77).says(&["Can't authenticate script"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_site_is_not_served_while_the_configured_one_is_away() {
    let (place, _, _sim) = replicated().await;
    let other = crate::program::free_address();
    place.edit("config.yaml", &place.site, &other);
    place.run(&["pipelines", "run"]).expect_code(69).says(&[&other, "shotgun.site"]);
}

#[cfg(unix)]
#[test]
fn a_variable_of_the_environment_that_is_no_text_stops_nothing() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    for args in [&["pipelines", "validate"][..], &["find", "Shot"]] {
        let mut command = place.command(args);
        command.env("SGCACHE_ODD", OsStr::from_bytes(b"\xff\xfe")).env(OsStr::from_bytes(b"\xfd"), "odd");
        let output = command.output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
}
