//! The Prometheus rules and the exposition, judged by promtool.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use sgcache::metrics::{Labels, Metrics};

use crate::metrics_dashboard::{metric_names, registry};
use crate::prometheus::{program, repository};

fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let program = program("SGCACHE_TEST_PROMTOOL", "checks by promtool")?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(repository("metrics/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[track_caller]
fn check(arguments: &[&str], input: &str) {
    let Some(output) = promtool(arguments, input) else { return };
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "promtool {arguments:?}: {}", said.concat());
}

#[test]
fn the_rules_are_valid() {
    check(&["check", "rules", "sgcache.rules.yml"], "");
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    check(&["test", "rules", "sgcache.rules.test.yml"], "");
}

#[test]
fn promtool_finds_nothing_in_our_exposition() {
    let labels = Labels::new(["Shot", "Asset"]).with_task("nightly-counts", "counts");
    let Some(output) = promtool(&["check", "metrics"], &Metrics::new(&labels).render()) else {
        return;
    };
    let said = String::from_utf8(output.stderr).unwrap();
    let ours: Vec<_> = said.lines().filter(|line| line.starts_with("sgcache_")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    assert!(said.lines().all(|line| line.starts_with("process_")), "{said}");
}

#[test]
fn every_rule_speaks_of_metrics_that_exist() {
    let known: BTreeSet<_> = registry().into_iter().map(|declared| declared.name).collect();
    let recorded = "sgcache_sync_lag_seconds:p99_5m sgcache_source_request_errors:ratio_rate5m";
    for file in ["sgcache.rules.yml", "sgcache.rules.test.yml"] {
        let path = repository("metrics/prometheus").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        for name in metric_names(&text) {
            let exists = known.contains(name.as_str()) || recorded.contains(&name);
            assert!(exists, "{file}: there is no metric {name}");
        }
    }
}

#[test]
fn every_alert_has_a_test_a_severity_and_says_what_to_do() {
    let folder = repository("metrics/prometheus");
    let text = std::fs::read_to_string(folder.join("sgcache.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(folder.join("sgcache.rules.test.yml")).unwrap();
    let rules: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let mut alerts = 0;
    for group in rules["groups"].as_sequence().unwrap() {
        for rule in group["rules"].as_sequence().unwrap() {
            let Some(alert) = rule["alert"].as_str() else { continue };
            alerts += 1;
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["warning", "critical"].contains(&severity), "{alert}: {severity}");
            for annotation in ["summary", "description"] {
                assert!(rule["annotations"][annotation].is_string(), "{alert}: {annotation}");
            }
            let quiet = format!("alertname: {alert}, exp_alerts: []");
            assert!(tests.contains(&quiet), "{alert}: no test in which it is quiet");
            let fires = format!("alertname: {alert}\n    exp_alerts:\n    - exp_labels");
            assert!(tests.contains(&fires), "{alert}: no test in which it fires");
        }
    }
    assert!(alerts > 20, "only {alerts} alerts");
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let text = std::fs::read_to_string(repository("metrics/prometheus").join("sgcache.rules.yml")).unwrap();
    let alerts: BTreeSet<String> =
        text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    for alert in &alerts {
        let address = format!("runbook_url: docs/runbooks/{alert}.md");
        assert!(text.contains(&address), "{alert}: no {address}");
    }
    let files = std::fs::read_dir(repository("docs/runbooks")).unwrap();
    let pages: BTreeSet<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(pages, alerts);
    for alert in &alerts {
        let page = std::fs::read_to_string(repository("docs/runbooks").join(format!("{alert}.md"))).unwrap();
        for part in [&format!("# {alert}\n"), "\n## Look at\n", "\n## Do\n", "\n## When to ignore it\n"] {
            assert!(page.contains(part), "{alert}: no {part:?}");
        }
    }
}
