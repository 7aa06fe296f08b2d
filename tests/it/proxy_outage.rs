//! The unmodified Python client through bad days: the site goes away and comes back,
//! and the daemon is killed under its readers and writers.
//!
//! Runs when SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sgcache::proxy::Settings;
use sgcache::sim::{Site, Trouble};

use crate::program::Place;
use crate::proxy_rig::{Rig, shipped};
use crate::servers::python;

const SUITE: &str = "proxy_outage";

/// A program of Python that is spoken to line by line.
struct Spoken {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Spoken {
    /// Starts a program.
    fn start(python: &str, script: &str, arguments: &[&str]) -> Self {
        let path = format!("{}/tests/python/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(python);
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the Python runs");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Self { child, lines }
    }

    /// Waits for a line; everything that is said before is shown.
    fn expect(&mut self, word: &str) {
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            println!("{line}");
            if line == word {
                return;
            }
        }
        panic!("it ended before it said `{word}`");
    }

    fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().expect("stdin")).expect("a line");
    }

    /// Waits for the end, which must be a good one, and returns what was said.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let said: Vec<String> = self.lines.map(|line| line.expect("text")).collect();
        let said = said.join("\n");
        let status = self.child.wait().expect("an end");
        assert!(status.success(), "{status}: {said}");
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_works_on_while_the_site_is_away() {
    let Some(python) = python(SUITE) else { return };
    // Every answer is too old at once, unless the site cannot be asked.
    let settings = Settings { max_age: Duration::ZERO, ..Settings::default() };
    let rig = Rig::start(Site::generated(3, 1000), shipped(), settings).await;
    let url = rig.url.clone();
    let start = tokio::task::spawn_blocking(move || {
        let mut client = Spoken::start(&python, "outage.py", &[&url]);
        client.expect("ready");
        client
    });
    let mut client = start.await.expect("a client");
    rig.site().troubles.next(u32::MAX, Trouble::Status(503));
    let away = tokio::task::spawn_blocking(move || {
        client.go_on();
        client.expect("away");
        client
    });
    let mut client = away.await.expect("a client without a site");
    rig.site().troubles.clear();
    // A cache that follows again has made up for what it could not ask.
    rig.followed().await;
    let back = tokio::task::spawn_blocking(move || {
        client.go_on();
        client.expect("back");
        client.go_on();
        client.end()
    });
    back.await.expect("a client with a site");
}

#[test]
fn a_daemon_that_is_killed_loses_no_write_that_was_acknowledged() {
    let Some(python) = python(SUITE) else { return };
    let place = Place::new();
    let _sim = place.sim(600, 0.0);
    let mut daemon = place.daemon();
    let seconds = std::env::var("SGCACHE_TEST_SECONDS").unwrap_or_else(|_| "12".to_owned());
    let until = Instant::now() + Duration::from_secs(seconds.parse().expect("seconds"));
    let url = format!("http://{}", place.api);
    let mut client = Spoken::start(&python, "read_your_writes.py", &[&url, &seconds]);
    client.expect("ready");
    let mut kills = 0;
    while Instant::now() < until {
        // SIGKILL, in the middle of whatever eight threads have asked for.
        drop(daemon);
        daemon = place.daemon();
        kills += 1;
        let served = |_: u16, text: &str| {
            let hits = text.lines().filter(|line| line.starts_with("sgcache_proxy_cache_hits_total{"));
            hits.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() > 200.0
                || Instant::now() > until
        };
        place.until("/metrics", served);
    }
    println!("killed {kills} times: {}", client.end());
}
