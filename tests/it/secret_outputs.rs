//! No secret reaches an output. A real daemon and its commands run through failures while
//! callers show every kind of credential, good and bad; then everything that they wrote
//! or showed is searched for everything that they must keep to themselves.
//!
//! The worst peer is a server that quotes the request in its error, as debug pages and
//! some gateways do: [`QuotingServer`] stands in for the site, for Elasticsearch and for
//! a webhook.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use base64::Engine;
use serde_json::{Value, json};
use sgcache::sim::{Sim, SimHandle, SimSettings, Site, SiteSettings};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cli_faults::on_a_small_disk;
use crate::program::{Place, Running, get};
use crate::servers::{TestIndices, elasticsearch};
use crate::waiting::{Wait, until};

const KEY: &str = "kEy-of-the-script-7f3a";
const WRONG_KEY: &str = "wRong-key-91bc";
const PASSWORD: &str = "pAssword-2e4d";
const SESSION: &str = "sEssion-token-5a6b";
const FACTOR: &str = "fActor-token-8c9d";
const BEARER: &str = "bEarer-token-0e1f";
const COOKIE: &str = "cOokie-of-a-browser-1d2c";
const UPLOAD_KEY: &str = "uPload-key-3c2b";
const OPS_TOKEN: &str = "oPs-token-6d7e";
const WEBHOOK: &str = "wEbhook-address-4b5c";
const REPORTS_PASSWORD: &str = "rEports-password-9e8f";
const STORE_API_KEY: &str = "sTore-api-key-7c6d";
/// The site signs the addresses of pictures; a signature opens the file for anyone.
const SIGNATURE: &str = "X-Amz-Signature=";

/// Where the key of the script is read from.
const KEY_VARIABLE: &str = "SGCACHE_TEST_SCRIPT_KEY";
const CONFIGURED_KEY: &str = "key: { value: sgcache-sim }";

/// Names and bytes of what was written or shown.
type Outputs = Vec<(String, Vec<u8>)>;

/// What no output may hold, in every form in which it is sent.
fn secrets() -> Vec<String> {
    let plain = [
        KEY,
        WRONG_KEY,
        PASSWORD,
        SESSION,
        FACTOR,
        BEARER,
        COOKIE,
        UPLOAD_KEY,
        OPS_TOKEN,
        WEBHOOK,
        REPORTS_PASSWORD,
        STORE_API_KEY,
    ];
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("sgcache:{REPORTS_PASSWORD}"));
    plain.into_iter().map(str::to_owned).chain([basic]).collect()
}

/// How a [`QuotingServer`] fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Status500,
    Fault,
    RefusedCredential,
    NotJson,
    Reason,
}

impl Failure {
    const ALL: [Self; 5] = [Self::Status500, Self::Fault, Self::RefusedCredential, Self::NotJson, Self::Reason];

    fn answer(self, quoted: &str) -> (StatusCode, String) {
        let fault = |code| json!({"exception": true, "error_code": code, "message": quoted}).to_string();
        match self {
            Self::Status500 => (StatusCode::INTERNAL_SERVER_ERROR, quoted.to_owned()),
            Self::Fault => (StatusCode::OK, fault(104)),
            Self::RefusedCredential => (StatusCode::OK, fault(102)),
            Self::NotJson => (StatusCode::OK, quoted.to_owned()),
            Self::Reason => {
                let error = json!({"error": {"type": "illegal_argument_exception", "reason": quoted}, "status": 400});
                (StatusCode::BAD_REQUEST, error.to_string())
            }
        }
    }
}

/// Answers every request with a failure that quotes it.
struct QuotingServer {
    address: String,
    task: JoinHandle<()>,
    requests: Arc<AtomicUsize>,
}

impl QuotingServer {
    /// Fails in one way, or in each of them in turn.
    async fn start(address: &str, only: Option<Failure>) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let answer = async move |State(requests): State<Arc<AtomicUsize>>, request: Request| {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            let (head, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
            let authorization = head.headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
            let quoted = format!("{authorization:?} {} {}", head.uri, String::from_utf8_lossy(&body));
            only.unwrap_or(Failure::ALL[number % Failure::ALL.len()]).answer(&quoted)
        };
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&requests));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
        Self { address, task, requests }
    }
}

impl Drop for QuotingServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a site whose script has this key, at the address that the place is configured for.
async fn serve(place: &Place, entities: usize, key: &str) -> SimHandle {
    let site = Site::filled(&SiteSettings { key: key.to_owned(), ..SiteSettings::default() }, 1, entities);
    let settings = SimSettings { listen: place.site.parse().expect("an address"), ..SimSettings::default() };
    Sim::serve(site, &settings).await.expect("the port is free")
}

/// A place whose configuration holds a secret of every kind, from every source.
fn place(reports: &str, webhook: &str) -> Place {
    let place = Place::new();
    place.edit("config.yaml", CONFIGURED_KEY, &format!("key: {{ env: {KEY_VARIABLE} }}"));
    place.edit("config.yaml", "timeout: 60s", "timeout: 2s");
    place.edit("config.yaml", "retry: { attempts: 3,", "retry: { attempts: 1,");
    place.edit("config.yaml", "listen:\n", "listen:\n  ops_token: { file: ops-token }\n");
    fs::write(place.path("ops-token"), format!("{OPS_TOKEN}\n")).expect("a file");
    let added = format!(
        "secrets: {{ webhook: {{ value: 'http://{webhook}/{WEBHOOK}?token={WEBHOOK}' }} }}\n\
         api: {{ patience: 20ms, upstream_retry_timeout: 20ms, callers: [{{ login: someone }}] }}\n\
         notifiers:\n  quoting: {{ type: webhook, url: {{ secret: webhook }} }}\n\
         reports:\n  elasticsearch:\n    url: http://{reports}\n    prefix: sgcache\n    \
         auth: {{ user: sgcache, password: {{ value: {REPORTS_PASSWORD} }} }}\n"
    );
    let config = fs::read_to_string(place.path("config.yaml")).expect("a file");
    fs::write(place.path("config.yaml"), config + &added).expect("a file");
    let steps = "timeout: 3s\nsteps:\n  - { id: rebuild, job: rebuild, with: { types: [Shot] } }\n";
    let hooks = "on_error:\n  - notify: quoting\n";
    fs::write(place.path("pipelines/plain.yaml"), format!("name: plain\n{steps}")).expect("a file");
    fs::write(place.path("pipelines/hooked.yaml"), format!("name: hooked\n{steps}{hooks}")).expect("a file");
    fs::create_dir(place.path("faults")).expect("a directory");
    place
}

fn with_environment(mut command: Command) -> Command {
    command.env(KEY_VARIABLE, KEY).env("SGCACHE_LOG", "trace").env("SGCACHE_LOOP_FAULTS", "faults");
    command
}

fn call(method: &str, auth: &Value, argument: &Value) -> String {
    json!({"method_name": method, "params": [auth, argument]}).to_string()
}

/// Calls that carry every kind of credential, good and bad.
fn bodies() -> Vec<String> {
    let credentials = [
        json!({"script_name": "sgcache", "script_key": KEY}),
        json!({"script_name": "sgcache", "script_key": WRONG_KEY}),
        json!({"user_login": "someone", "user_password": PASSWORD}),
        json!({"user_login": "someone", "user_password": PASSWORD, "auth_token": FACTOR}),
        json!({"session_token": SESSION}),
        json!({"script_name": "sgcache", "script_key": KEY, "sudo_as_login": "someone"}),
    ];
    let read = |field: &str| {
        json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []}, "return_fields": [field],
            "paging": {"entities_per_page": 50, "current_page": 1}})
    };
    let mut bodies = vec![format!("{{\"params\": [{{\"script_key\": \"{WRONG_KEY}\"")];
    for auth in &credentials {
        bodies.push(call("read", auth, &read("code")));
        bodies.push(call("read", auth, &read("no_such_field")));
        bodies.push(call("update", auth, &json!({"type": "Shot", "id": 1, "fields": []})));
        bodies.push(call("no_such_method", auth, &json!({})));
    }
    bodies
}

/// Calls the api listener in every way that carries a credential. What it answers may be the
/// words of the site to this caller; its headers are the proxy's own.
async fn call_everything(place: &Place) -> Outputs {
    let client = reqwest::Client::new();
    let site = format!("http://{}", place.api);
    let json = bodies().into_iter().map(|body| client.post(format!("{site}/api3/json")).body(body));
    let form = format!("script_name=sgcache&script_key={UPLOAD_KEY}&entity_type=Shot&entity_id=1");
    let grant = format!("grant_type=password&username=someone&password={PASSWORD}");
    let others = [
        client.get(format!("{site}/api/v1/entity/shots?filter[code]=x")).bearer_auth(BEARER),
        client.get(format!("{site}/file_serve/attachment/1?session_token={SESSION}")),
        client.get(format!("{site}/detail/Shot/1")).header("cookie", format!("_session_id={COOKIE}")),
        client.post(format!("{site}/api/v1/auth/access_token")).body(grant),
        client.post(format!("{site}/upload/upload_file")).body(form),
    ];
    let sent = json.chain(others).enumerate().map(|(index, request)| async move {
        let answer = request.send().await.expect("the proxy answers");
        (format!("headers of answer {index}"), format!("{:?}", answer.headers()).into_bytes())
    });
    futures::future::join_all(sent).await
}

/// Returns what the ops listener shows, with the token and without.
async fn pages(place: &Place) -> Outputs {
    let client = reqwest::Client::new();
    let mut seen = Outputs::new();
    for path in ["/", "/metrics", "/readyz", "/livez", "/api/v1/status", "/api/v1/runs", "/nothing"] {
        let url = format!("http://{}{path}", place.ops);
        seen.push((format!("{path} without a token"), get(&url).expect("an answer").1.into_bytes()));
        let answer = client.get(url).bearer_auth(OPS_TOKEN).send().await.expect("an answer");
        seen.push((path.to_owned(), answer.bytes().await.expect("a body").to_vec()));
    }
    seen
}

/// Runs commands at the same time, since some of them wait for what is away; returns what
/// they printed.
fn run(place: &Place, commands: &[Vec<String>]) -> Outputs {
    let start = |args: &Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = with_environment(place.command(&args));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        (format!("sgcache {}", args.join(" ")), child)
    };
    let running: Vec<_> = commands.iter().map(start).collect();
    let ended = running.into_iter().map(|(name, child)| {
        let ended = child.wait_with_output().expect("the program ends");
        (name, [ended.stdout, ended.stderr].concat())
    });
    ended.collect()
}

fn words(commands: &[&str]) -> Vec<Vec<String>> {
    commands.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Calls, looks at and orders everything while one thing is wrong.
async fn observe(place: &Place, commands: &[&str]) -> Outputs {
    let mut outputs = call_everything(place).await;
    outputs.extend(run(place, &words(commands)));
    outputs.extend(pages(place).await);
    outputs
}

/// Runs commands whose site, or whose store, quotes each request in its failure: every way
/// to fail, in a data directory of its own.
async fn run_with_quoting_servers(place: &Place) -> Outputs {
    let config = fs::read_to_string(place.path("config.yaml")).expect("a file");
    let (mut servers, mut commands) = (Vec::new(), Vec::new());
    for failure in Failure::ALL {
        let server = QuotingServer::start("127.0.0.1:0", Some(failure)).await;
        let store = format!(
            "  kind: elasticsearch\n  url: http://{}\n  prefix: sgcache\n  auth: {{ api_key: {{ value: {STORE_API_KEY} }} }}",
            server.address
        );
        let changes = [
            ("site", config.replace(&place.site, &server.address)),
            ("store", config.replace("  kind: embedded", &store)),
        ];
        // A fault is a thing of sites.
        let taken = if matches!(failure, Failure::Fault | Failure::RefusedCredential) { 1 } else { 2 };
        for (what, config) in changes.into_iter().take(taken) {
            let name = format!("{what}-{failure:?}.yaml");
            let config = config.replace("data_dir: ./data", &format!("data_dir: ./data-{what}-{failure:?}"));
            fs::write(place.path(&name), config).expect("a file");
            commands.push(vec!["-c".to_owned(), name, "job".to_owned(), "import".to_owned(), "Shot".to_owned()]);
        }
        servers.push(server);
    }
    let outputs = run(place, &commands);
    for server in servers {
        assert!(server.requests.load(Ordering::Relaxed) > 0, "{} was not asked", server.address);
    }
    outputs
}

/// Waits until the ops listener, which wants the token, gives this answer.
async fn until_answered(place: &Place, path: &str, enough: impl Fn(u16, &str) -> bool) {
    let (client, url) = (reqwest::Client::new(), format!("http://{}{path}", place.ops));
    let wait = Wait::begin();
    loop {
        if let Ok(answer) = client.get(&url).bearer_auth(OPS_TOKEN).send().await {
            let status = answer.status().as_u16();
            if enough(status, &answer.text().await.unwrap_or_default()) {
                return;
            }
        }
        wait.again(|| path.to_owned()).await;
    }
}

/// Lets loops of the daemon panic, and waits until they have.
async fn panic_loops(place: &Place) {
    let faults = ["poll", "scheduler", "outbox", "api_listener"].map(|name| place.path("faults").join(name));
    for path in &faults {
        fs::write(path, "panic").expect("a file");
    }
    until(async || !faults.iter().any(|path| path.exists())).await;
    until_answered(place, "/readyz", |status, _| status == 200).await;
}

/// Reads every file below a folder.
fn files(folder: &Path, found: &mut Outputs) {
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

/// Fails with every place that holds a secret.
#[track_caller]
fn check(outputs: &Outputs) {
    let mut leaks = Vec::new();
    for (name, bytes) in outputs {
        for secret in secrets().iter().map(String::as_str).chain([SIGNATURE]) {
            if let Some(at) = memchr::memmem::find(bytes, secret.as_bytes()) {
                let around = &bytes[at.saturating_sub(160)..bytes.len().min(at + 80)];
                leaks.push(format!("`{secret}` is in {name}: {}", String::from_utf8_lossy(around)));
            }
        }
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

/// Returns what the daemon has drawn itself: the token of `control.json`, and the key of
/// `credentials.key` in every form in which it may be written.
fn drawn(place: &Place) -> Vec<Vec<u8>> {
    let control: Value =
        serde_json::from_slice(&fs::read(place.path("data/control.json")).expect("a file")).expect("JSON");
    let token = control["token"].as_str().expect("a token").to_owned();
    let key = fs::read(place.path("data/credentials.key")).expect("a file");
    assert!(token.len() >= 16 && key.len() >= 16, "too short to be looked for");
    let base64 = base64::engine::general_purpose::STANDARD.encode(&key);
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    // As a list of numbers, which is how bytes are debugged.
    let numbers = format!("{key:?}").trim_matches(['[', ']']).to_owned();
    vec![token.into_bytes(), key, base64.into_bytes(), hex.into_bytes(), numbers.into_bytes()]
}

/// Fails where what the daemon has drawn is in another file than its own.
#[track_caller]
fn check_drawn(outputs: &Outputs, drawn: &[Vec<u8>]) {
    let is_own = |name: &str| name.ends_with("control.json") || name.ends_with("credentials.key");
    for (name, bytes) in outputs.iter().filter(|(name, _)| !is_own(name)) {
        assert!(drawn.iter().all(|one| memchr::memmem::find(bytes, one).is_none()), "{name} holds a drawn secret");
    }
}

fn start_daemon(place: &Place) -> Running {
    Running::spawn(with_environment(place.command(&["pipelines", "run"])).stdout(Stdio::piped()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_an_output() {
    let reports = QuotingServer::start("127.0.0.1:0", None).await;
    let webhook = QuotingServer::start("127.0.0.1:0", Some(Failure::Status500)).await;
    let place = place(&reports.address, &webhook.address);
    let sim = serve(&place, 600, KEY).await;
    let daemon = start_daemon(&place);
    until_answered(&place, "/readyz", |status, _| status == 200).await;

    let drawn = drawn(&place);
    let shown = ["status", "pipelines history -o json", "deadLetters list -o json"];
    let pictures = "find Shot --fields code,image --limit 100 -o json";
    let compare = "job validateData Shot --limit 50 -o json";
    let trigger = "pipelines trigger plain -o json";
    let mut outputs = observe(&place, &[shown[0], pictures, trigger]).await;
    panic_loops(&place).await;
    outputs.extend(run_with_quoting_servers(&place).await);

    // The site refuses the key of the replica.
    sim.shutdown().await;
    let sim = serve(&place, 600, "another key").await;
    outputs.extend(observe(&place, &[shown[0], compare, trigger]).await);
    // The site quotes what it is asked; so does the webhook that is to hear of the failed run.
    sim.shutdown().await;
    let quoting_site = QuotingServer::start(&place.site, None).await;
    outputs.extend(observe(&place, &[compare, "pipelines trigger hooked -o json"]).await);
    // The site is away.
    drop(quoting_site);
    let schema = "job generateEntityConfigs --check Shot";
    outputs.extend(observe(&place, &[shown[0], shown[1], shown[2], schema, trigger]).await);
    // The configuration is wrong beside its secrets.
    place.edit("config.yaml", "quoting: { type: webhook", "quoting: { type: webhok");
    daemon.hang_up();
    until_answered(&place, "/metrics", |_, body| body.contains("sgcache_config_last_reload_successful 0")).await;
    outputs.extend(observe(&place, &[shown[0], "find Shot", "pipelines validate"]).await);

    let ended = daemon.signalled("TERM");
    outputs.push(("stdout of the daemon".to_owned(), ended.stdout.into_bytes()));
    outputs.push(("stderr of the daemon".to_owned(), ended.stderr.into_bytes()));
    files(&place.path("data"), &mut outputs);
    // What is searched holds what was done.
    let is_in = |part: &str, text: &str| outputs.iter().any(|(name, bytes)| name.contains(part) && holds(bytes, text));
    for (part, text) in [
        ("audit.ndjson", "someone"),
        ("store.sqlite", "/thumbnails/"),
        ("stderr of the daemon", "notify:quoting"),
        ("stderr of the daemon", "fault point of the poll loop"),
        ("state.sqlite", "hooked"),
    ] {
        assert!(is_in(part, text), "`{text}` is not in {part}");
    }
    check(&outputs);
    check_drawn(&outputs, &drawn);
}

/// Runs `sgcache serve` on another host, calls it in every way, and returns what it writes.
async fn serve_beside(leader: &Place, store: &str) -> Outputs {
    let host = place("127.0.0.1:9", "127.0.0.1:9");
    host.edit("config.yaml", "  kind: embedded", store);
    host.edit("config.yaml", &host.site, &leader.site);
    let serving = Running::spawn(with_environment(host.command(&["serve"])).stdout(Stdio::piped()));
    until_answered(&host, "/readyz", |status, _| status == 200).await;
    let mut outputs = call_everything(&host).await;
    outputs.extend(pages(&host).await);
    let ended = serving.signalled("TERM");
    outputs.push(("output of `serve`".to_owned(), (ended.stdout + &ended.stderr).into_bytes()));
    files(&host.path("data"), &mut outputs);
    outputs
}

/// What commands write that find the disk full.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_an_output_on_a_full_disk() {
    let place = place("127.0.0.1:9", "127.0.0.1:9");
    let sim = serve(&place, 1500, KEY).await;
    let script = format!(
        r#"export {KEY_VARIABLE}={KEY} SGCACHE_LOG=trace
        "$SGCACHE" job import Shot > import.txt 2>&1 || exit 90
        dd if=/dev/zero of=data/filler bs=4096 2>/dev/null
        truncate -s -196608 data/filler
        "$SGCACHE" job rebuild Shot > full.txt 2>&1 && exit 91
        exit 0"#
    );
    let Some(ended) = on_a_small_disk(&place, &script) else { return };
    let ended = ended.expect_code(0);
    let mut outputs = vec![("the script".to_owned(), (ended.stdout + &ended.stderr).into_bytes())];
    for name in ["import.txt", "full.txt"] {
        outputs.push((name.to_owned(), fs::read(place.path(name)).expect("a file")));
    }
    assert!(holds(&outputs[2].1, "no room left"), "the disk was not full");
    check(&outputs);
    sim.shutdown().await;
}

/// The documents of rows, runs, mismatches and of the leader.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_elasticsearch() {
    let Some(url) = elasticsearch("secret_outputs") else { return };
    let indices = TestIndices::new(url);
    let prefix = indices.prefix();
    let quoting = QuotingServer::start("127.0.0.1:0", None).await;
    let place = place(&quoting.address, &quoting.address);
    let auth = format!("auth: {{ user: sgcache, password: {{ value: {REPORTS_PASSWORD} }} }}");
    let store = format!("  kind: elasticsearch\n  url: {url}\n  prefix: {prefix}\n  replicas: 0\n  {auth}");
    place.edit("config.yaml", "  kind: embedded", &store);
    place.edit(
        "config.yaml",
        &format!("url: http://{}\n    prefix: sgcache", quoting.address),
        &format!("url: {url}\n    prefix: {prefix}"),
    );
    let sim = serve(&place, 2000, KEY).await;
    let daemon = start_daemon(&place);
    until_answered(&place, "/readyz", |status, _| status == 200).await;
    let mut outputs = run(&place, &words(&["pipelines trigger plain"]));
    outputs.extend(serve_beside(&place, &store).await);
    // The cluster takes no rows for a while.
    let client = reqwest::Client::new();
    for blocked in [true, false] {
        let settings = client.put(format!("{url}/{prefix}-entity-*/_settings"));
        let settings = settings.json(&json!({"index.blocks.write": blocked})).send().await.expect("an answer");
        assert_eq!(settings.status(), 200);
        outputs.extend(run(&place, &words(&["job rebuild Shot"])));
    }
    // Rows that differ are quoted in the documents of mismatches.
    outputs.extend(run(&place, &words(&["job corrupt --rows 5"])));
    outputs.extend(run(&place, &words(&["job validateData"])));
    sim.shutdown().await;
    let quoting_site = QuotingServer::start(&place.site, None).await;
    outputs.extend(run(&place, &words(&["pipelines trigger plain", "job validateData Shot"])));
    drop(quoting_site);
    until_answered(&place, "/metrics", |_, body| body.contains("sgcache_report_outbox_documents 0")).await;
    outputs.push(("stderr of the daemon".to_owned(), daemon.signalled("TERM").stderr.into_bytes()));

    for path in ["_mapping", "_search?size=10000&expand_wildcards=all"] {
        client.post(format!("{url}/{prefix}-*/_refresh")).send().await.expect("a refresh");
        let answer = client.get(format!("{url}/{prefix}-*/{path}")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        outputs.push((path.to_owned(), answer.bytes().await.expect("a body").to_vec()));
    }
    let documents = &outputs.last().expect("documents").1;
    for text in ["/thumbnails/", "rebuild", "differs"] {
        assert!(holds(documents, text), "no document holds `{text}`");
    }
    check(&outputs);
}

/// A webhook that is away.
#[tokio::test]
async fn the_address_of_a_webhook_that_cannot_be_reached_is_not_in_the_error() {
    let notifiers = notifiers();
    let error = notifiers.ping(&format!("http://127.0.0.1:9/{WEBHOOK}")).await.expect_err("no server is there");
    assert!(error.contains("cannot be reached"), "{error}");
    check(&vec![("the error".to_owned(), error.into_bytes())]);
}

/// A webhook that moved: where it leads to does not learn the address that led there.
#[tokio::test]
async fn the_address_of_a_webhook_is_not_shown_to_the_server_that_it_redirects_to() {
    let (seen, headers) = tokio::sync::oneshot::channel();
    let seen = Arc::new(std::sync::Mutex::new(Some(seen)));
    let target = axum::Router::new().fallback(async move |request: Request| {
        if let Some(seen) = seen.lock().expect("a sender").take() {
            seen.send(format!("{:?}", request.headers())).expect("a receiver");
        }
    });
    let target = serve_at_any_port(target).await;
    let webhook = axum::Router::new().fallback(async move || axum::response::Redirect::temporary(&target));
    let webhook = serve_at_any_port(webhook).await;
    let notifiers = notifiers();
    notifiers.ping(&format!("{webhook}/{WEBHOOK}")).await.expect("an answer");
    check(&vec![("headers of the redirected request".to_owned(), headers.await.expect("a request").into_bytes())]);
}

async fn serve_at_any_port(app: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
    url
}

/// Notifiers that none is among: what they fetch are addresses.
fn notifiers() -> sgcache::report::Notifiers {
    let templates = sgcache::yaml::Templates::new(&std::collections::BTreeMap::new());
    sgcache::report::Notifiers::new(std::collections::BTreeMap::new(), templates)
}
