//! Whole-output snapshots of what users and their programs see: every `--help`, the
//! metrics, the headers of the read proxy, `status`, `pipelines list`, the summary of the
//! demo, and error messages. They pin the words; what the numbers are, other tests prove.
//!
//! The expected outputs are the files of `tests/it/snapshots/`. They change by intent only:
//! `INSTA_UPDATE=always cargo test --test it output_snapshots` writes them anew, and the
//! diff belongs to the commit that changed the output.
//!
//! What differs from run to run is replaced by the rules of [`MASKS`], in their order.

use std::collections::BTreeSet;
use std::path::Path;

use regex_lite::Regex;
use serde_json::{Value, json};
use sgcache::proxy::{Reason, Settings};
use sgcache::sim::Site;

use crate::program::Place;
use crate::proxy_rig::{self, Rig, find, written};
use crate::waiting::until;

/// Name of what is replaced, its pattern, and the text that stands for it.
const MASKS: &[(&str, &str, &str)] = &[
    ("address on loopback", r"127\.0\.0\.1:\d+", "<address>"),
    ("instance", r" on [\w.-]+:\d+, store", " on <instance>, store"),
    ("local time with the zone", r"[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d\d:\d\d [A-Z]{3,4}", "<time>"),
    ("time with the name of the zone", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d Europe/Paris", "<time>"),
    ("size of a file", r"\d+(\.\d+)? MB", "<size>"),
    ("share of calls", r"\d+(\.\d+)? %", "<share>"),
    ("span of time", r"\d+(\.\d+)? (ms|s|min|h|d)( \d+ (s|min|h))?\b", "<span>"),
    ("seconds in a header", r"age=\d+(\.\d+)?", "age=<seconds>"),
    ("version of this program", r"sgcache 0\.\d+\.\d+", "sgcache <version>"),
    ("number of the operating system for an error", r" \(os error \d+\)", ""),
];

/// Replaces what differs from run to run, and the directory of the test.
fn masked(text: &str, directory: &Path) -> String {
    let mut text = text.replace(&directory.display().to_string(), "<directory>");
    for (name, pattern, replacement) in MASKS {
        let pattern = Regex::new(pattern).unwrap_or_else(|error| panic!("the mask `{name}`: {error}"));
        text = pattern.replace_all(&text, *replacement).into_owned();
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// As [`masked`], for tables whose columns are as wide as what is masked: spaces are folded.
fn masked_table(text: &str, directory: &Path) -> String {
    let spaces = Regex::new(" {2,}").expect("a pattern");
    spaces.replace_all(&masked(text, directory), "  ").into_owned()
}

/// Replaces every number that is left, where counts depend on how far a run got.
fn without_counts(text: &str) -> String {
    Regex::new(r"\b\d[\d ]*\b").expect("a pattern").replace_all(text, "<count>").into_owned()
}

#[track_caller]
fn check(name: &str, text: &str) {
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, text);
    });
}

/// The help of a command and of all below it, in the order in which the help lists them.
fn help(place: &Place, command: &[&str], found: &mut String) {
    let ended = Place::run(place, &[command, &["--help"]].concat()).expect_code(0);
    found.push_str(&format!("$ sgcache {}\n{}\n", [command, &["--help"]].concat().join(" "), ended.stdout));
    let listed = ended.stdout.split_once("Commands:\n").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    let listed = listed.split("\n\n").next().unwrap_or_default();
    for line in listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let name = line.split_whitespace().next().expect("a command");
        if name != "help" {
            help(place, &[command, &[name]].concat(), found);
        }
    }
}

#[test]
fn the_help_of_every_command() {
    let place = Place::new();
    let mut found = String::new();
    help(&place, &[], &mut found);
    check("help", &masked(&found, place.dir.path()));
}

/// Labels whose values come from the configuration or from the build.
const OPEN_LABELS: [&str; 8] = ["config_hash", "entity_type", "le", "pipeline", "revision", "rustc", "task", "version"];

/// The families of a scrape: name, type, help, and of each label the values that come from
/// fixed sets, or the name alone where they come from the configuration.
fn families(scrape: &str) -> String {
    let label = Regex::new(r#"(\w+)="([^"]*)""#).expect("a pattern");
    let (mut lines, mut labels): (Vec<String>, Vec<(String, Vec<String>)>) = (Vec::new(), Vec::new());
    let put = |lines: &mut Vec<String>, labels: &mut Vec<(String, Vec<String>)>| {
        for (name, values) in labels.drain(..) {
            let open = OPEN_LABELS.contains(&name.as_str());
            lines.push(if open { format!("    {name}") } else { format!("    {name}: {}", values.join(", ")) });
        }
    };
    for line in scrape.lines() {
        if line.starts_with("# HELP ") {
            put(&mut lines, &mut labels);
        }
        if let Some(rest) = line.strip_prefix("# ") {
            lines.push(rest.to_owned());
            continue;
        }
        for found in label.captures_iter(line) {
            let (name, value) = (found[1].to_owned(), found[2].to_owned());
            match labels.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => labels.push((name, vec![value])),
            }
        }
    }
    put(&mut lines, &mut labels);
    lines.join("\n")
}

#[test]
fn status_pipelines_and_metrics_of_a_daemon() {
    let place = Place::new();
    // On a 29 February only, so that no pipeline starts while the outputs are taken.
    for (file, schedule, day) in [
        ("nightly-counts", "30 3 * * *", "30 3 29 2 *"),
        ("sampled-data", "15 */2 * * MON-FRI", "15 2 29 2 *"),
        ("weekly-rebuild", "0 4 * * SUN", "0 4 29 2 *"),
    ] {
        place.edit(&format!("pipelines/{file}.yaml"), schedule, day);
    }
    let _sim = place.sim(600, 0.0);
    let daemon = place.daemon();
    place.until("/api/v1/status", |_, body| body.contains(r#""code":"ok""#));
    let status = place.run(&["status"]).expect_code(0);
    check("status", &masked_table(&status.stdout, place.dir.path()));
    let list = place.run(&["pipelines", "list"]).expect_code(0);
    check("pipelines_list", &masked(&list.stdout, place.dir.path()));
    let scrape = place.until("/metrics", |status, _| status == 200);
    check("metrics", &families(&scrape));
    daemon.terminate();
}

#[test]
fn the_summary_of_the_demo() {
    let place = Place::new();
    let demo = place.answering_demo(&["--entities", "600", "--edits", "0"]);
    let ended = demo.signalled("TERM").expect_code(0);
    let summary = without_counts(&masked_table(&ended.stdout, place.dir.path()));
    // Which requests went to the site, and whether a validation has ended, depends on the
    // speed of the machine; so does the number of lines of progress.
    let head = summary.lines().take_while(|line| !line.starts_with(" type"));
    let head = head.filter(|line| !line.contains("  Drift  ") && !line.contains("  to the site  "));
    check("demo_stdout", &head.collect::<Vec<_>>().join("\n"));
    // A dash stands where a question had no answer before the end.
    let said = masked_table(&ended.stderr, place.dir.path()).replace("  -", "  <span>");
    let said = without_counts(&said);
    let lines = said.lines().filter(|line| !line.contains("last validation: "));
    check("demo_stderr", &lines.collect::<Vec<_>>().join("\n"));
}

/// A proxy before types of which one is cached whole, one in part, and the rest not at all.
async fn proxy() -> Rig {
    let configs = [
        ("Project", r#"{"fields": {"name": {}}}"#),
        ("Shot", r#"{"fields": {"code": {}, "project": {}, "sg_status_list": {}, "image": {}, "created_at": {}}}"#),
        ("Version", r#"{"filters": [["code", "starts_with", "a"]], "fields": {"code": {}}}"#),
    ];
    let site = Site::generated(5, 600);
    let settings = Settings { semantics: BTreeSet::new(), ..Settings::default() };
    let rig = Rig::begin(site, written(&configs), settings).await;
    rig.followed().await;
    until(async || proxy_rig::said(&rig.call("read", find("Shot", json!([]), &["code"])).await.0) == "hit").await;
    // Field names are checked against the schema once it was read through the proxy.
    until(async || proxy_rig::said(&rig.call("schema_read", Value::Null).await.0) == "hit").await;
    rig
}

fn with(mut read: Value, key: &str, value: Value) -> Value {
    read[key] = value;
    read
}

/// Requests and what they are about, each of which shows another header.
fn requests() -> Vec<(&'static str, &'static str, Value)> {
    let shots = || find("Shot", json!([]), &["code"]);
    let where_ = |filter: Value| find("Shot", json!([filter]), &["code"]);
    let page = json!({"entities_per_page": 100_000, "current_page": 1});
    vec![
        ("a cached type", "read", shots()),
        (
            "a number of rows",
            "summarize",
            json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []},
            "summaries": [{"field": "id", "type": "count"}]}),
        ),
        ("the schema", "schema_read", Value::Null),
        ("a type that is not cached", "read", find("Task", json!([]), &["content"])),
        ("a field that is not cached", "read", find("Shot", json!([]), &["description"])),
        ("a type cached in part", "read", find("Version", json!([]), &["code"])),
        ("a field that the site lacks", "read", where_(json!(["sg_money", "is", 1]))),
        ("a preset", "read", with(shots(), "additional_filter_presets", json!([{"preset_name": "LATEST"}]))),
        ("retired rows", "read", with(shots(), "return_only", json!("retired"))),
        ("a page above the limit", "read", with(shots(), "paging", page)),
        ("a parameter of the future", "read", with(shots(), "sg_new", json!(1))),
        ("a relation that does not exist", "read", where_(json!(["code", "is_nott", "a"]))),
        ("markup in a text", "read", where_(json!(["code", "is", "a<b"]))),
        ("the last three days", "read", where_(json!(["created_at", "in_last", 3, "DAY"]))),
        ("a method of the future", "frobnicate", Value::Null),
        ("a method of the site alone", "nav_expand", json!({"path": "/"})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_headers_of_the_read_proxy() {
    let mut rig = proxy().await;
    let mut lines = Vec::new();
    let shown = |about: &str, headers: &reqwest::header::HeaderMap| {
        let named = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-sgcache"));
        let named: Vec<String> =
            named.map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        format!("{about}\n    {}", named.join("\n    "))
    };
    let own = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    for (about, method, argument) in requests() {
        let (_, headers, _) = proxy_rig::call_with_status(&rig.url, own.clone(), method, argument).await;
        lines.push(shown(about, &headers));
    }
    let stranger = json!({"script_name": "other", "script_key": "unknown"});
    let shots = find("Shot", json!([]), &["code"]);
    let (_, headers, _) = proxy_rig::call_with_status(&rig.url, stranger, "read", shots.clone()).await;
    lines.push(shown("credentials without a scope", &headers));
    let page = reqwest::get(format!("{}/page/1", rig.url)).await.expect("an answer");
    lines.push(shown("a page for a browser", page.headers()));
    rig.stop_following().await;
    let shot = json!({"type": "Shot", "fields": [{"field_name": "code", "value": "SH1"},
        {"field_name": "project", "value": {"type": "Project", "id": 1}}]});
    let (headers, _) = rig.call("create", shot).await;
    lines.push(shown("a write", &headers));
    lines.push(shown("a read of what was written", &rig.call("read", shots).await.0));
    let reasons: Vec<String> = Reason::EVERY.iter().map(|reason| format!("    {reason}")).collect();
    lines.push(format!("every reason\n{}", reasons.join("\n")));
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").expect("a pattern");
    let text = masked(&lines.join("\n"), rig.directory.path());
    check("headers", &time.replace_all(&text, "<time>"));
    rig.shutdown().await;
}

/// What is changed in a place before a command is run: a file, a text in it, and another.
type Edit = (&'static str, &'static str, &'static str);

/// Commands that fail without a site.
const OFFLINE: &[(&[Edit], &[&str])] = &[
    (&[("config.yaml", "timezone: Europe/Paris", "timezone: Europe/Pariss")], &["pipelines", "validate"]),
    (&[("config.yaml", "timezone:", "timezoen:")], &["pipelines", "validate"]),
    (&[("config.yaml", "# api:\n", "api:\n  assume: [text_order]\n# api:\n")], &["pipelines", "validate"]),
    (&[("pipelines/sync.yaml", "job: sync", "job: snyc")], &["pipelines", "validate"]),
    (&[("pipelines/nightly-counts.yaml", "timeout:", "timeuot:")], &["pipelines", "validate"]),
    (&[("entityConfig/Shot.json", "\"fields\"", "\"feilds\"")], &["pipelines", "validate"]),
    (&[], &["--config", "nowhere", "pipelines", "validate"]),
    (&[], &["job", "validateCounts"]),
    (&[], &["job", "validateData", "--filters", "[['id','is',"]),
    (&[], &["job", "validateData", "--limit", "0"]),
    (&[], &["job", "validateDat"]),
    (&[], &["find", "Shot"]),
    (&[], &["status"]),
    (&[], &["serve"]),
    (&[], &["schema", "nope"]),
    (&[], &["explain-error", "SG9999"]),
    (&[], &["pipelines", "explain", "nope"]),
    (&[], &["pipelines", "show", "nope"]),
    (&[], &["pipelines", "trigger", "sync"]),
    (&[], &["pipelines", "cancel", "nope"]),
    (&[], &["pipelines", "pause", "sync"]),
    (&[], &["breaker", "confirm", "Shot"]),
    (&[], &["demo", "--outage", "nope"]),
];

/// Commands that fail with a site that answers.
const ONLINE: &[(&[Edit], &[&str])] = &[
    (&[("config.yaml", "{ value: sgcache-sim }", "{ value: some-wrong-key }")], &["job", "validateCounts"]),
    (&[("entityConfig/Shot.json", "\"code\"", "\"cod\"")], &["job", "validateCounts"]),
    (&[], &["job", "validateCounts", "Shott"]),
    (&[], &["job", "validateData", "Shot", "--filters", "[['sg_status_list','is_nott','ip']]"]),
    (&[], &["job", "validateData", "Shot", "--filters", "[['cod','is','ip']]"]),
    (
        &[("config.yaml", "store:\n  kind: embedded", "store:\n  kind: elasticsearch\n  url: http://127.0.0.1:1")],
        &["job", "validateCounts"],
    ),
];

/// Runs each command in a place where its edits alone are made, and returns what was said.
fn failures(cases: &[(&[Edit], &[&str])], place: &Place) -> String {
    let mut text = String::new();
    for (edits, args) in cases {
        for (file, from, to) in *edits {
            place.edit(file, from, to);
            text.push_str(&format!("# {file}: {to:?} for {from:?}\n"));
        }
        let ended = place.run(args);
        let code = ended.code.expect("an exit code");
        assert_ne!(code, 0, "{args:?} was to fail: {ended:?}");
        text.push_str(&format!("$ sgcache {}\n{}exit code {code}\n\n", args.join(" "), ended.stderr));
        for (file, from, to) in edits.iter().rev() {
            place.edit(file, to, from);
        }
    }
    masked(&text, place.dir.path())
}

#[test]
fn the_words_of_errors() {
    let place = Place::new();
    check("errors_offline", &failures(OFFLINE, &place));
    let _sim = place.sim(200, 0.0);
    check("errors_online", &failures(ONLINE, &place));
}
