//! A process that has no files left for a new connection: those that do the least yield.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::program::{Place, Running};
use crate::proxy_rig::{find, said};
use crate::waiting::until;

/// The files that the process may have open; it needs about half of them for itself.
const FILES: u32 = 256;
const CONNECTIONS: usize = 400;

/// Reads a Shot over a connection of its own.
async fn read(place: &Place) -> String {
    // Only a bound on a test that fails: nothing waits so long.
    let client = reqwest::Client::builder().timeout(Duration::from_secs(120)).build().expect("a client");
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let argument = find("Shot", json!([["id", "less_than", 6]]), &["code"]);
    let body = json!({"method_name": "read", "params": [auth, argument]});
    let answer = client.post(format!("http://{}/api3/json", place.api)).json(&body).send().await.expect("an answer");
    let did = said(answer.headers());
    let answer: Value = answer.json().await.expect("JSON");
    assert!(answer["results"]["entities"].is_array(), "{answer}");
    did
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_nothing_yield_when_the_process_has_no_files_left() {
    let place = Place::new();
    place.edit("config.yaml", "listen:\n", "api: { head_timeout: 1h }\nlisten:\n");
    let _site = place.sim(300, 0.0);
    let script = format!("ulimit -n {FILES} && exec \"$0\" pipelines run");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_sgcache")]).current_dir(place.dir.path());
    let _daemon = Running::spawn(&mut command);
    place.until("/readyz", |status, _| status == 200);
    // The credential is proved, and the proxy sees that the type is live.
    until(async || read(&place).await == "hit").await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&place.api).await.expect("a connection, accepted or not");
        // It may have been closed for the next one already.
        let _ = stream.write_all(b"POST /api3/json HTTP/1.1\r\nhost: loc").await;
        idle.push(stream);
    }
    assert_eq!(read(&place).await, "hit");
}
