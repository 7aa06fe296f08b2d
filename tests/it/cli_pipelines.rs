//! Pipelines at the command line while the daemon runs: pausing, changed files,
//! and whom they tell.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::program::{Place, free_address};

/// Listens for notifications; sends the text of each request.
fn listener(address: &str) -> mpsc::Receiver<String> {
    let listener = TcpListener::bind(address).expect("the port is free");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = Vec::new();
            let mut part = [0; 65_536];
            loop {
                let read = stream.read(&mut part).expect("a request");
                request.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                if read == 0 || text.starts_with("GET ") || text.ends_with('}') {
                    break;
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").expect("an answer");
            if sender.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn hooks_reach_notifiers_and_a_dead_one_fails_no_run() {
    let place = Place::new();
    let _sim = place.sim(300, 0.0);
    place.run(&["job", "import"]).expect_code(0);
    let (heard, dead) = (free_address(), free_address());
    let notifiers = format!(
        "notifiers:\n  slack: {{ type: slack, url: {{ value: 'http://{heard}/hook' }} }}\n  \
         dead: {{ type: webhook, url: {{ value: 'http://{dead}/token-of-mine' }} }}\n\n# What applies to every file"
    );
    place.edit("config.yaml", "# What applies to every file", &notifiers);
    let hooks = format!(
        "\non_success:\n  - ping: http://{heard}/alive\n  - notify: slack\n    \
         message: ${{{{ pipeline.name }}}} is ${{{{ run.status }}}}, ${{{{ steps.counts.result.missing }}}} missing\n  \
         - notify: dead\n"
    );
    let path = place.path("pipelines/nightly-counts.yaml");
    let text = std::fs::read_to_string(&path).expect("a file") + &hooks;
    std::fs::write(path, text).expect("a file");
    let requests = listener(&heard);

    let ended = place.run(&["pipelines", "run", "--once", "nightly-counts", "-o", "json"]).expect_code(0);
    let report = ended.json();
    let targets: Vec<&Value> = report["hooks"].as_array().expect("hooks").iter().map(|hook| &hook["target"]).collect();
    assert_eq!(targets, [&json!("ping"), &json!("notify:slack"), &json!("notify:dead")]);
    assert_eq!((&report["hooks"][0]["error"], &report["hooks"][1]["error"]), (&Value::Null, &Value::Null));
    assert!(report["hooks"][2]["error"].as_str().is_some_and(|error| error.contains("cannot be reached")), "{report}");
    assert!(!format!("{ended:?}").contains("token-of-mine"), "{ended:?}");
    assert!(requests.recv().expect("a request").starts_with("GET /alive "));
    let posted = requests.recv().expect("a request");
    assert!(posted.starts_with("POST /hook ") && posted.contains("nightly-counts is ok, 0 missing"), "{posted}");
}

#[test]
fn a_pause_that_is_too_long_is_refused_in_words() {
    let place = Place::new();
    for length in ["9999999999d", "99999999999999999999999d", "5000d"] {
        let args = ["pipelines", "pause", "nightly-counts", "--for", length, "--reason", "x"];
        place.run(&args).expect_code(2).says(&["longer than 3650d"]);
    }
}

#[test]
fn pauses_and_changed_files_reach_the_running_daemon() {
    let place = Place::new();
    let _sim = place.sim(300, 0.0);
    let daemon = place.daemon();
    let status_of = |status: &str, name: &str| {
        let status: Value = serde_json::from_str(status).unwrap_or_default();
        let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
        pipelines.into_iter().find(|pipeline| pipeline["name"] == name)
    };
    let is_paused = |paused: bool| {
        place.until("/api/v1/status", |_, status| {
            status_of(status, "nightly-counts").is_some_and(|pipeline| pipeline["paused"] == json!(paused))
        });
    };
    // Without a changed file only the signal makes it read them again.
    let read_at = |text: &str| {
        let name = "sgcache_config_last_reload_success_timestamp_seconds ";
        text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    let (_, metrics) = crate::program::get(&format!("http://{}/metrics", place.ops)).expect("an answer");
    let first = read_at(&metrics).expect("a moment");
    daemon.hang_up();
    place.until("/metrics", |_, text| read_at(text).is_some_and(|moment| moment != first));

    let args = ["pipelines", "pause", "nightly-counts", "--for", "2h", "--reason", "storage is moved"];
    assert!(place.run(&args).expect_code(0).stdout.contains("nightly-counts: paused until "));
    is_paused(true);
    assert!(place.run(&["pipelines", "list"]).expect_code(0).stdout.contains("storage is moved"));
    let metric = "sgcache_task_paused{pipeline=\"nightly-counts\",task=\"counts\"} 1";
    place.until("/metrics", |_, text| text.contains(metric));
    place.run(&["pipelines", "resume", "nightly-counts"]).expect_code(0);
    is_paused(false);
    place.run(&["pipelines", "pause", "nihgtly", "--reason", "x"]).expect_code(2).says(&["did you mean"]);

    let text = "name: hourly-purge\nschedule: { cron: '0 * * * *' }\nsteps: [{ id: purge, job: purge }]\n";
    std::fs::write(place.path("pipelines/hourly-purge.yaml"), text).expect("a file");
    place.until("/api/v1/status", |_, status| status_of(status, "hourly-purge").is_some());
    place.run(&["pipelines", "trigger", "hourly-purge"]).expect_code(0);

    std::fs::write(place.path("pipelines/hourly-purge.yaml"), text.replace("purge }", "prug }")).expect("a file");
    place.until("/metrics", |_, text| text.contains("sgcache_config_last_reload_successful 0"));
    // Commands go on with what runs, and say that a file has errors.
    let listed = place.run(&["pipelines", "list"]).expect_code(0).says(&["hourly-purge.yaml:3", "prug", "errors"]);
    assert!(listed.stdout.contains("hourly-purge"), "{}", listed.stdout);
    place.run(&["pipelines", "trigger", "hourly-purge"]).expect_code(0);
    place.run(&["pipelines", "pause", "hourly-purge", "--reason", "x"]).expect_code(0);
    place.run(&["pipelines", "resume", "hourly-purge"]).expect_code(0);
    let (_, ready) = crate::program::get(&format!("http://{}/readyz", place.ops)).expect("an answer");
    assert!(ready.contains("config_invalid") && ready.contains("prug"), "{ready}");
    let shown = place.run(&["status"]).expect_code(0).stdout;
    assert!(shown.contains("files on disk have errors") && shown.contains("prug"), "{shown}");
    let (_, status) = crate::program::get(&format!("http://{}/api/v1/status", place.ops)).expect("an answer");
    assert!(status_of(&status, "hourly-purge").is_some(), "the old set stays: {status}");

    std::fs::remove_file(place.path("pipelines/hourly-purge.yaml")).expect("a file");
    place.until("/api/v1/status", |_, status| status_of(status, "hourly-purge").is_none());
    place.until("/metrics", |_, text| text.contains("sgcache_config_last_reload_successful 1"));
    let (code, said) = daemon.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("prug"), "{said}");
}
