//! No secret reaches an output: after calls of every kind, with good and bad
//! credentials, while the site answers and while it is away, everything that the
//! program wrote or shows is searched for everything that it must keep to itself.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::program::{Place, get};

const KEY: &str = "kEy-of-the-script-7f3a";
const WRONG_KEY: &str = "wRong-key-91bc";
const PASSWORD: &str = "pAssword-2e4d";
const SESSION: &str = "sEssion-token-5a6b";
const FACTOR: &str = "fActor-token-8c9d";
const BEARER: &str = "bEarer-token-0e1f";
const UPLOADED: &str = "uPload-key-3c2b";

/// The site signs the addresses of pictures; a signature opens the file for anyone.
const SIGNATURE: &str = "X-Amz-Signature=";

/// A process that is killed, by its id, when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(place: &Place, args: &[&str], log: &str) -> Killed {
    let log = File::create(place.path(log)).expect("a file");
    let mut command = place.command(args);
    command.env("SGCACHE_LOG", "sgcache=debug,info").stdout(Stdio::null()).stderr(log);
    Killed(command.spawn().expect("the program runs"))
}

fn call(method: &str, auth: &Value, argument: Value) -> String {
    json!({"method_name": method, "params": [auth, argument]}).to_string()
}

fn read(fields: &[&str]) -> Value {
    json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []}, "return_fields": fields,
        "paging": {"entities_per_page": 50, "current_page": 1}})
}

/// Calls the api listener in every way that carries a credential.
async fn call_everything(place: &Place) {
    let client = reqwest::Client::new();
    let url = format!("http://{}/api3/json", place.api);
    let good = json!({"script_name": "sgcache", "script_key": KEY});
    let credentials = [
        good.clone(),
        json!({"script_name": "sgcache", "script_key": WRONG_KEY}),
        json!({"user_login": "someone", "user_password": PASSWORD}),
        json!({"user_login": "someone", "user_password": PASSWORD, "auth_token": FACTOR}),
        json!({"session_token": SESSION}),
        json!({"script_name": "sgcache", "script_key": KEY, "sudo_as_login": "someone"}),
    ];
    let mut bodies = vec![format!("{{\"params\": [{{\"script_key\": \"{WRONG_KEY}\"")];
    for auth in &credentials {
        bodies.push(call("read", auth, read(&["code", "image"])));
        bodies.push(call("read", auth, read(&["no_such_field"])));
        bodies.push(call("update", auth, json!({"type": "Shot", "id": 1, "fields": []})));
        bodies.push(call("no_such_method", auth, json!({})));
    }
    for body in bodies {
        // The answer belongs to the caller; only what stays behind is looked at.
        let _ = client.post(&url).header("content-type", "application/json").body(body).send().await;
    }
    let site = format!("http://{}", place.api);
    let rest = client.get(format!("{site}/api/v1/entity/shots?filter[code]=x")).bearer_auth(BEARER);
    let _ = rest.send().await;
    let form = format!("script_name=sgcache&script_key={UPLOADED}&entity_type=Shot&entity_id=1");
    let _ = client.post(format!("{site}/upload/upload_file")).body(form).send().await;
}

/// Returns what the operator can see.
fn shown(place: &Place) -> Vec<(String, Vec<u8>)> {
    let pages = ["/", "/metrics", "/readyz", "/livez", "/api/v1/status", "/api/v1/runs"];
    let mut seen: Vec<_> = pages
        .map(|path| (path.to_owned(), get(&format!("http://{}{path}", place.ops)).unwrap_or_default().1.into_bytes()))
        .into();
    for args in [
        &["status"][..],
        &["pipelines", "history"],
        &["deadLetters", "list", "-o", "json"],
        &["find", "Shot", "--fields", "code,image", "--limit", "100", "-o", "json"],
        &["job", "validateData", "Shot", "--limit", "50", "-o", "json"],
    ] {
        let ended = place.run(args);
        seen.push((format!("{args:?}"), [ended.stdout, ended.stderr].concat().into_bytes()));
    }
    seen
}

/// Reads every file below a folder.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push((path.display().to_string(), fs::read(&path).expect("a file"))),
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_an_output() {
    let place = Place::new();
    place.edit("config.yaml", "value: sgcache-sim", &format!("value: {KEY}"));
    let site =
        start(&place, &["sim", "--listen", &place.site, "--entities", "500", "--edits", "0", "--key", KEY], "site.log");
    let daemon = start(&place, &["pipelines", "run"], "daemon.log");
    place.until("/readyz", |status, _| status == 200);

    call_everything(&place).await;
    let mut outputs = shown(&place);
    drop(site);
    call_everything(&place).await;
    outputs.extend(shown(&place));
    drop(daemon);
    files(&place.path("data"), &mut outputs);
    outputs.push(("daemon.log".to_owned(), fs::read(place.path("daemon.log")).expect("a log")));

    // What is searched really holds what was done.
    assert!(outputs.iter().any(|(_, bytes)| holds(bytes, "login someone")), "the access log is not among them");
    assert!(outputs.iter().any(|(name, bytes)| name.contains("store.sqlite") && holds(bytes, "/thumbnails/")));
    for (name, bytes) in &outputs {
        for secret in [KEY, WRONG_KEY, PASSWORD, SESSION, FACTOR, BEARER, UPLOADED, SIGNATURE] {
            assert!(!holds(bytes, secret), "`{secret}` is in {name}");
        }
    }
}
