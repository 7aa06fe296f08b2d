//! The commands that ask the ops listener of their own daemon, where that listener
//! speaks TLS and asks for a token.

use std::process::{Command, Stdio};

use crate::program::Place;
use crate::servers::skipped;
use crate::waiting::Wait;

#[test]
fn status_and_trigger_reach_an_ops_listener_with_tls_and_a_token() {
    let place = Place::new();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=farm.studio"])
        .args(["-keyout", "ops.key", "-out", "ops.pem"])
        .current_dir(place.dir.path())
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return skipped("cli_ops_tls", "openssl is not installed");
    }
    let listen = "listen:\n  ops_tls: { certificate: ops.pem, key: ops.key }\n  ops_token: { value: opened }\n";
    place.edit("config.yaml", "listen:\n", listen);
    let _site = place.sim(200, 0.0);
    let _daemon = place.start(&["pipelines", "run"]);
    let wait = Wait::begin();
    let status = loop {
        let status = place.run(&["status"]);
        if status.code == Some(0) && status.stdout.starts_with("Healthy.") {
            break status;
        }
        wait.pause(|| format!("{status:?}"));
    };
    assert!(status.stdout.contains("nightly-counts"), "{}", status.stdout);
    place.run(&["pipelines", "trigger", "nightly-counts"]).expect_code(0);
}
