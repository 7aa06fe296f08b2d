//! Runs that are stopped or killed: what the history says of them, and what is kept
//! of their work.

use std::time::Duration;

use serde_json::Value;
use sgcache::entity::Timestamp;
use sgcache::sim::{Rule, SimHandle, Trouble};

use crate::program::{Place, Running};
use crate::servers::skipped;
use crate::waiting::block_until;

/// Tells whether this process, and so each that it starts, ignores SIGHUP (Linux).
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1)
}

/// The newest run as `pipelines history` prints it.
fn newest(place: &Place) -> Value {
    place.run(&["pipelines", "history", "--limit", "1", "-o", "json"]).expect_code(0).json()[0].clone()
}

/// Lets the next read of tasks hang, far longer than any test takes.
fn hang(site: &SimHandle) {
    site.site().troubles.next_of("read Task", 1, Trouble::Slow(Duration::from_secs(50).into()));
}

/// Starts a rebuild of two types of which the second one hangs at the site, and
/// waits until it does.
fn hanging_rebuild(place: &Place, site: &SimHandle) -> Running {
    hang(site);
    let running = place.start(&["job", "rebuild", "Shot", "Task", "-o", "json"]);
    block_until(|| site.site().troubles.waiting() == 0);
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_daemon_is_cancelled_and_others_are_not() {
    let (place, site) = Place::imported(600).await;
    let text = "name: slow\nsteps: [{ id: rebuild, job: rebuild, with: { types: [Task] } }]\n";
    std::fs::write(place.path("pipelines/slow.yaml"), text).expect("a file");
    let daemon = place.daemon();
    hang(&site);
    let run_id = place.run(&["pipelines", "trigger", "slow", "--detach"]).expect_code(0).stdout.trim().to_owned();
    block_until(|| site.site().troubles.waiting() == 0);
    let cancelled = place.run(&["pipelines", "cancel", &run_id]).expect_code(0).stdout;
    assert_eq!(cancelled, format!("{run_id}: cancelled\n"));
    let ended = newest(&place);
    assert_eq!((&ended["run_id"], &ended["status"]), (&run_id.clone().into(), &"cancelled".into()));
    place.run(&["pipelines", "cancel", &run_id]).expect_code(12).says(&["has ended: cancelled"]);
    place.run(&["pipelines", "cancel", "01K00000000000000000000000"]).expect_code(2).says(&["there is no run"]);
    assert_eq!(daemon.terminate().0, Some(0));

    // A run beside the daemon is stopped by its own process only.
    let running = hanging_rebuild(&place, &site);
    let beside = newest(&place)["run_id"].as_str().expect("an id").to_owned();
    place.run(&["pipelines", "cancel", &beside]).expect_code(12).says(&["stop its process"]);
    running.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_process_was_killed_is_interrupted_for_every_reader() {
    let (place, site) = Place::imported(600).await;
    let running = hanging_rebuild(&place, &site);
    let before = newest(&place);
    assert_eq!((&before["pipeline"], &before["finished_at"]), (&Value::from("rebuild"), &Value::Null));
    running.kill();
    let after = newest(&place);
    assert_eq!((&after["run_id"], &after["status"]), (&before["run_id"], &Value::from("interrupted")));
    assert!(after["reason"].as_str().is_some_and(|reason| reason.contains("process ended")), "{after}");
    assert!(!after["finished_at"].is_null(), "{after}");
    let table = place.run(&["pipelines", "history"]).expect_code(0).stdout;
    assert!(table.contains("interrupted") && !table.contains("running"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_any_kind_that_is_killed_is_interrupted_and_can_be_run_again() {
    let (place, site) = Place::imported(600).await;
    let tasks = site.site().read("Task", &serde_json::json!([]), &["id"]).expect("tasks");
    let task = tasks[0]["id"].to_string();
    let kinds: [(&str, &[&str]); 6] = [
        ("summarize Task", &["job", "validateCounts", "Task"]),
        ("read Task", &["job", "validateData", "Task"]),
        ("read Task", &["job", "rebuild", "Task"]),
        ("read Task", &["job", "repair", "Task", &task]),
        ("read Task", &["job", "scan", "Task"]),
        ("read EventLogEntry", &["job", "sync"]),
    ];
    for (request, args) in kinds {
        site.site().troubles.next_of(request, 1, Trouble::Slow(Duration::from_secs(50).into()));
        let running = place.start(args);
        block_until(|| site.site().troubles.waiting() == 0);
        let before = newest(&place);
        assert_eq!((&before["pipeline"], &before["finished_at"]), (&Value::from(args[1]), &Value::Null), "{request}");
        running.kill();
        assert_eq!(newest(&place)["status"], "interrupted", "{args:?}");
        site.site().troubles.clear();
        place.run(args).expect_code(0);
    }
    place.run(&["job", "validateData"]).expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_job_in_order_with_its_result_so_far() {
    let (place, site) = Place::imported(600).await;
    for (signal, code, status) in [("INT", 130, "cancelled"), ("TERM", 143, "interrupted"), ("HUP", 143, "interrupted")]
    {
        if signal == "HUP" && hangups_are_ignored() {
            return skipped("cli_runs", "the tests run under nohup, where SIGHUP means nothing");
        }
        let ended = hanging_rebuild(&place, &site).signalled(signal);
        assert_eq!(ended.code, Some(code), "{signal}: {ended:?}");
        let run = newest(&place);
        assert_eq!(run["status"], status, "{signal}: {run}");
        assert!(!run["finished_at"].is_null(), "{signal}: {run}");
        let result = &run["steps"][0]["result"]["by_type"];
        assert!(result["Shot"]["written"].as_u64().is_some_and(|written| written > 0), "{signal}: {run}");
        if signal != "HUP" {
            // After a hangup there is no terminal to print to.
            assert_eq!(ended.json()["run_id"], run["run_id"], "{signal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_a_job_that_waits_for_the_site_at_once() {
    let (place, site) = Place::imported(600).await;
    let slow = "name: slow\nsteps:\n  - { id: all, job: rebuild, with: { types: [Shot, Task] }, timeout: 1500ms }\n  \
                - { id: never, job: purge, needs: all }\n";
    std::fs::write(place.path("pipelines/slow.yaml"), slow).expect("a file");
    hang(&site);
    let report = place.run(&["pipelines", "run", "--once", "slow", "-o", "json"]).expect_code(124).json();
    assert_eq!((&report["steps"][0]["status"], &report["steps"][1]["status"]), (&"timeout".into(), &"skipped".into()));
    let took = report["steps"][0]["duration_seconds"].as_f64().expect("seconds");
    // The grace of ten seconds is for jobs that do not look; the site hangs for fifty.
    assert!(took < 9.0, "{report}");
    assert!(
        report["steps"][0]["result"]["by_type"]["Shot"]["written"].as_u64().is_some_and(|rows| rows > 0),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_runs_is_not_run_twice() {
    let (place, site) = Place::imported(600).await;
    let running = hanging_rebuild(&place, &site);
    let ended = place.run(&["job", "rebuild", "Shot"]).expect_code(12);
    assert!(ended.stderr.contains("another process runs it"), "{}", ended.stderr);
    running.kill();
    place.run(&["job", "rebuild", "Shot"]).expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parameters_are_checked_before_the_first_pipeline_runs() {
    let (place, _site) = Place::imported(600).await;
    let runs = || place.run(&["pipelines", "history", "-o", "json"]).json().as_array().map(Vec::len);
    let before = runs();
    let args = ["pipelines", "run", "--once", "nightly-counts", "sampled-data"];
    let with = |set: &[&str]| {
        let all: Vec<&str> = args.iter().copied().chain(set.iter().flat_map(|pair| ["--set", *pair])).collect();
        place.run(&all)
    };
    with(&["limit=none"]).expect_code(2).says(&["sampled-data", "`limit`"]);
    with(&["limt=5"]).expect_code(2).says(&["limt"]);
    assert_eq!(runs(), before);
    // A parameter is for those that declare it.
    let one =
        place.run(&["pipelines", "run", "--once", "nightly-counts", "sync", "--set", "max_missing=5", "-o", "ndjson"]);
    let lines = one.expect_code(0).stdout;
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // What is continuous ends after one complete pass.
    let runs = events.iter().filter(|event| event["event"] == "run.finished");
    let ended: Vec<_> = runs.map(|run| (run["pipeline"].as_str(), run["status"].as_str())).collect();
    assert_eq!(ended, [(Some("nightly-counts"), Some("ok")), (Some("sync"), Some("ok"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rebuild_goes_on_where_it_was() {
    let place = Place::new();
    let site = place.site_here(600).await;
    place.edit("config.yaml", "page_size: 500", "page_size: 20");
    place.run(&["job", "import"]).expect_code(0);
    let rebuild = || place.run(&["job", "rebuild", "Task", "-o", "json"]).expect_code(0).json();
    let whole = rebuild();
    let requests = |report: &Value| report["requests"].as_u64().expect("a number");
    let rows = |report: &Value| report["steps"][0]["result"]["by_type"]["Task"]["written"].clone();

    // Half of its requests are answered, then the site hangs.
    let trouble = Trouble::Slow(Duration::from_secs(50).into());
    let method = Some("read Task".to_owned());
    let half = Rule { method, skip: requests(&whole) / 2, times: Some(4), ..Rule::always(trouble) };
    site.site().troubles.order(half, Timestamp(0));
    let running = place.start(&["job", "rebuild", "Task", "-o", "json"]);
    let kept = || {
        let file = place.path("data/state.sqlite");
        let connection = rusqlite::Connection::open(file).expect("the state");
        let sql = "SELECT value FROM kept WHERE name = 'rebuild/Task'";
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap_or_default()
    };
    let copied = |text: &str| {
        let rebuild: Value = serde_json::from_str(text).unwrap_or_default();
        rebuild["import"]["rows"].as_u64().unwrap_or_default()
    };
    block_until(|| copied(&kept()) >= 20);
    assert_eq!(running.signalled("TERM").code, Some(143));
    site.site().troubles.clear();
    let rest = rebuild();
    assert!(requests(&rest) < requests(&whole), "{} of {} requests", requests(&rest), requests(&whole));
    assert_eq!(rows(&rest), rows(&whole));
    // The next one begins anew.
    assert_eq!(requests(&rebuild()), requests(&whole));
    place.run(&["job", "validateData", "Task"]).expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_that_looked_at_nothing_says_so() {
    let (place, _site) = Place::imported(600).await;
    let none = ["job", "validateData", "Shot", "--filters", "[['code','is','no such shot']]"];
    place.run(&none).expect_code(12).says(&["nothing was compared"]);
    let judged: Vec<&str> = none.into_iter().chain(["--fail-when", "result.checked == 0"]).collect();
    place.run(&judged).expect_code(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_line_names_wrongly_is_2_and_in_a_file_78() {
    let (place, _site) = Place::imported(600).await;
    let data = |more: &[&str]| {
        let all: Vec<&str> = ["job", "validateData", "Shot"].into_iter().chain(more.iter().copied()).collect();
        place.run(&all)
    };
    place.run(&["job", "rebuild", "Shott"]).expect_code(2).says(&["`Shott`", "did you mean `Shot`?"]);
    place.run(&["job", "import", "Shott"]).expect_code(2).says(&["`Shott`"]);
    data(&["--fields", "cod"]).expect_code(2).says(&["Shot.cod is not cached", "did you mean `code`?"]);
    data(&["--filters", "[['codee','is','x']]"]).expect_code(2).says(&["no field `codee`"]);
    data(&["--filters", "[['code','greater_than','x']]"]).expect_code(2).says(&["'greater_than'", "starts_with"]);
    let file = "name: wrong\nsteps: [{ id: a, job: rebuild, with: { types: [Shott] } }]\n";
    std::fs::write(place.path("pipelines/wrong.yaml"), file).expect("a file");
    place.run(&["pipelines", "run", "--once", "wrong"]).expect_code(78).says(&["wrong.yaml:2", "did you mean `Shot`?"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_types_are_imported() {
    let place = Place::new();
    let _site = place.site_here(600).await;
    let report = place.run(&["job", "import", "Shot", "-o", "json"]).expect_code(0).json();
    let types: Vec<&String> = report["steps"][0]["result"]["by_type"].as_object().expect("types").keys().collect();
    assert_eq!(types, ["Shot"]);
    let rows = |entity_type: &str| {
        let found = place.run(&["find", entity_type, "-o", "json", "--limit", "100000"]).expect_code(0).json();
        found.as_array().expect("rows").len()
    };
    assert_ne!(rows("Shot"), 0);
    // What the latest events name is read, whatever its type.
    let named = rows("Task");
    place.run(&["job", "import", "Task"]).expect_code(0);
    assert!(named < rows("Task"), "all {named} tasks were there before they were imported");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_of_changes_knows_the_runs_of_other_processes() {
    let (place, _site) = Place::imported(600).await;
    let text = "name: mine\nsteps: [{ id: a, job: validateCounts, with: { types: [Shot] } }]\n\
                on_success: [{ ping: 'http://127.0.0.1:1/x', every: change }]\n";
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    let hooks = || {
        let report = place.run(&["pipelines", "run", "--once", "mine", "-o", "json"]).expect_code(0).json();
        report["hooks"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((hooks(), hooks()), (1, 0));
}
