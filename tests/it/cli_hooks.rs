//! What hooks of pipelines deliver, by the real program: webhooks without duplicates, the
//! file of a report, and the alarms of a daemon.

use std::sync::Arc;

use axum::extract::Request;
use parking_lot::Mutex;
use serde_json::Value;
use sgcache::sim::{Sim, SimHandle, SimSettings};

use crate::program::Place;
use crate::waiting::block_until;

async fn start_site(place: &Place) -> SimHandle {
    let settings = SimSettings { listen: place.site.parse().expect("an address"), entities: 300, ..Default::default() };
    Sim::start(settings).await.expect("a site")
}

/// A server that collects the texts of webhooks.
async fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&received);
    let app = axum::Router::new().fallback(async move |request: Request| {
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        seen.lock().push(body["text"].as_str().expect("a text").to_owned());
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
    (url, received)
}

/// A place with a notifier `board`.
fn place(url: &str, options: &str) -> Place {
    let place = Place::new();
    let config = std::fs::read_to_string(place.path("config.yaml")).expect("a file");
    let notifiers = format!("notifiers:\n  board: {{ type: webhook, url: {{ value: '{url}' }}{options} }}\n");
    std::fs::write(place.path("config.yaml"), format!("{config}\n{notifiers}")).expect("a file");
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notifier_is_not_told_the_same_again_and_the_report_is_a_file() {
    let (url, received) = receiver().await;
    let place = place(&url, ", dedupe: 1h");
    let _site = start_site(&place).await;
    let text = "name: mine\nparams: { end: { type: string, default: ok } }\n\
                steps: [{ id: a, job: deadLetters, fail_when: \"params.end == 'drift'\" }]\n\
                always: [{ notify: board, message: 'run ${{ run.id }}' }, { notify: board, message: \"${{ params.end }}\" }]\n\
                outputs: { file: { path: 'reports/${{ pipeline.name }}-${{ run.status }}.json' } }\n";
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    let run = |end: &str, code| {
        let set = format!("end={end}");
        let args = ["pipelines", "run", "--once", "mine", "--set", &set, "-o", "json"];
        let report = place.run(&args).expect_code(code).json();
        let hooks = report["hooks"].as_array().expect("hooks").iter();
        let targets: Vec<String> = hooks.map(|hook| hook["target"].as_str().expect("a target").to_owned()).collect();
        (report["run_id"].as_str().expect("an id").to_owned(), targets)
    };
    let (first, targets) = run("ok", 0);
    assert_eq!(targets, ["notify:board", "notify:board", "file"], "two messages");
    let (second, targets) = run("ok", 0);
    assert_eq!(targets, ["file"], "the same messages within an hour, in another process");
    let (third, targets) = run("drift", 10);
    assert_eq!(targets, ["notify:board", "notify:board", "file"], "that is news");
    let (first, third) = (format!("run {first}"), format!("run {third}"));
    assert_eq!(*received.lock(), [first.as_str(), "ok", third.as_str(), "drift"]);
    let file = std::fs::read_to_string(place.path("reports/mine-ok.json")).expect("the report");
    let report: Value = serde_json::from_str(&file).expect("JSON");
    assert_eq!((&report["run_id"], &report["status"]), (&second.into(), &"ok".into()));
    assert!(!place.path("reports/mine-ok.json.partial").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_site_is_silent_says_so_once_and_says_when_it_goes_on() {
    let (url, received) = receiver().await;
    let place = place(&url, "");
    let site = start_site(&place).await;
    place.edit("pipelines/sync.yaml", "  max_interval: 2s", "  stall_after: 2s\n  max_interval: 1s");
    place.edit(
        "pipelines/sync.yaml",
        "tests:\n",
        "on_stalled: [{ notify: board }]\non_recovered: [{ notify: board }]\ntests:\n",
    );
    let daemon = place.daemon();
    let wait_for = |count: usize| {
        block_until(|| received.lock().len() >= count);
        received.lock().clone()
    };
    site.shutdown().await;
    let stalled = wait_for(1);
    assert!(stalled[0].starts_with("sync: stalled: no successful poll for "), "{stalled:?}");
    // A restart while the site is away does not repeat it.
    assert_eq!(daemon.terminate().0, Some(0));
    let daemon = place.start(&["pipelines", "run"]);
    place.until("/api/v1/status", |_, body| body.contains("\"following\":true"));
    let _site = start_site(&place).await;
    let both = wait_for(2);
    assert_eq!(both[1], "sync: recovered");
    assert_eq!(daemon.signalled("TERM").code, Some(0));
    assert_eq!(received.lock().len(), 2);
}
