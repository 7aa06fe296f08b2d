//! A server with TLS by a private CA and a user with the least rights.
//!
//! Part of the compatibility run (`tests/servers/compatibility`), since it starts
//! a server of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use sgcache::elastic::{Auth, BulkOp, Call, Client, ErrorKind, ItemOutcome, Secret, Settings, VersionType};

use crate::servers::{Elasticsearch, run_directory, skipped};

fn settings(url: &str, ca_certificate: Option<&Path>, password: &str) -> Settings {
    let mut settings = Settings::new([url]);
    settings.ca_certificate = ca_certificate.map(Path::to_owned);
    settings.auth = Auth::Basic { user: "sgcache".into(), password: Secret::new(password) };
    settings.retry.first_pause = Duration::from_millis(1);
    settings
}

fn index(name: &str) -> BulkOp {
    BulkOp::index(name, "1", 1, VersionType::External, json!({"id": 1}).to_string())
}

#[tokio::test]
async fn a_user_with_the_least_rights_can_do_what_is_needed_and_no_more() {
    let is_opensearch = std::env::var("SGCACHE_TEST_ELASTICSEARCH").is_ok_and(|folder| folder.contains("opensearch"));
    if std::env::var_os("SGCACHE_TEST_COMPATIBILITY").is_none() || is_opensearch {
        skipped("elastic_secured", "runs with tests/servers/compatibility, on Elasticsearch");
        return;
    }
    let run = run_directory();
    let server = Elasticsearch::start(&run, &["--secured"]);
    let ca = run.join("config/certs/ca.pem");
    let client = Client::new(&settings(&server.url, Some(&ca), "sgcache-test")).unwrap();

    assert!(client.server().await.unwrap().version.is_some());
    let health = Call::get("/_cluster/health").param("wait_for_status", "yellow").param("timeout", "30s").search();
    client.send(&health).await.unwrap();
    let body = json!({"mappings": {"properties": {"id": {"type": "long"}}}, "aliases": {"sgcache-entity-shot": {}}});
    client.send(&Call::put("/sgcache-entity-shot-000001").json(&body)).await.unwrap();
    let outcomes = client.bulk(&[index("sgcache-entity-shot-000001"), index("other")], false).await.unwrap();
    assert_eq!(outcomes[0], ItemOutcome::Done);
    assert!(
        matches!(&outcomes[1], ItemOutcome::StoreFault(why) if why.contains("403") && why.contains("sgcache")),
        "{outcomes:?}"
    );

    let refused = client.send(&Call::put("/other")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::Denied, Some(403)));

    let wrong = Client::new(&settings(&server.url, Some(&ca), "wrong")).unwrap().server().await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.status()), (ErrorKind::Denied, Some(401)));
    assert!(!wrong.to_string().contains("wrong"), "{wrong}");

    let no_ca = Client::new(&settings(&server.url, None, "sgcache-test")).unwrap().server().await.unwrap_err();
    assert_eq!(no_ca.kind(), ErrorKind::Tls);
    assert!(no_ca.to_string().contains("put the CA's PEM file into `ca_certificate`"), "{no_ca}");
}

#[tokio::test]
async fn a_server_that_shows_a_ca_certificate_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("ca.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("elastic_secured", "openssl is not installed");
        return;
    }
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert"])
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines
        .find_map(|line| line.ok()?.strip_prefix("ACCEPT ")?.rsplit(':').next().map(str::to_owned))
        .expect("openssl says where it listens");
    // Reading on keeps the pipe open, which openssl writes to.
    let reader = std::thread::spawn(move || lines.count());

    let url = format!("https://127.0.0.1:{port}");
    let error = Client::new(&settings(&url, Some(&certificate), "x")).unwrap().server().await;
    server.kill().unwrap();
    server.wait().unwrap();
    reader.join().unwrap();

    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    assert!(error.to_string().contains("give the server a certificate signed by that CA"), "{error}");
}
