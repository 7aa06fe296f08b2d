//! The daemon under systemd: what it says over the notification socket.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;

use sgcache::sim::{Sim, SimSettings};

use crate::program::{Place, Running};

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_says_that_it_is_ready_lives_and_stops() {
    let place = Place::new();
    let settings = SimSettings { listen: place.site.parse().expect("an address"), entities: 100, ..Default::default() };
    let _site = Sim::start(settings).await.expect("a site");
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let daemon = Running::spawn(place.command(&["pipelines", "run"]).env("NOTIFY_SOCKET", &path));
    let mut texts = BTreeSet::new();
    let mut receive_until = |wanted: &str| {
        let mut buffer = [0; 4096];
        while !texts.contains(wanted) {
            let length = socket.recv(&mut buffer).expect("a datagram");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            texts.extend(text.lines().map(str::to_owned));
        }
        texts.clone()
    };
    let ready = receive_until("READY=1");
    assert!(ready.iter().any(|line| line.starts_with("STATUS=following http://127.0.0.1:")), "{ready:?}");
    assert!(place.run(&["status"]).code.is_some_and(|code| code != 69), "it answers when it says that it is ready");
    receive_until("WATCHDOG=1");
    assert_eq!(daemon.terminate().0, Some(0));
    receive_until("STOPPING=1");
}

#[test]
fn the_shipped_unit_runs_a_command_that_there_is() {
    let unit = std::fs::read_to_string("docs/systemd/sgcache.service").expect("the unit");
    let value = |key: &str| {
        let lines: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
        assert_eq!(lines.len(), 1, "{key}");
        lines[0].to_owned()
    };
    assert_eq!(value("Type"), "notify");
    let command = value("ExecStart");
    let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--help"]).collect();
    Place::new().run(&words).expect_code(0);
}
