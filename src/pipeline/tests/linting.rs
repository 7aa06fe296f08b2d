//! Lints: what is found suspicious, and what is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use super::{at, resolve_context};
use crate::pipeline::{LintFacts, Pipeline, lint, load, unused_notifiers};
use crate::yaml::{Document, Problems, Templates};

const NOW: &str = "2026-01-10T00:00:00Z";

fn documents(files: &[String]) -> Vec<Document> {
    let parse = |(at, text): (usize, &String)| Document::yaml(&format!("{at}.yaml"), text.as_bytes()).expect("YAML");
    files.iter().enumerate().map(parse).collect()
}

fn pipelines(documents: &[Document]) -> Vec<Arc<Pipeline>> {
    let loaded = load(documents, "pipelines", &resolve_context(), Problems::new());
    assert!(loaded.problems.is_empty(), "{}", loaded.problems);
    loaded.pipelines
}

/// The codes and messages of files, of which runs of `p0` take this long.
fn found(files: &[String], takes: TimeDelta) -> Vec<String> {
    let documents = documents(files);
    let durations = BTreeMap::from([("p0".to_owned(), takes)]);
    let templates = Templates::new(&BTreeMap::new());
    let mut problems = Problems::new();
    lint(
        &documents,
        &pipelines(&documents),
        &LintFacts { now: at(NOW), durations: &durations, templates: &templates },
        &mut problems,
    );
    assert!(!problems.has_errors());
    problems.sorted().iter().map(|one| format!("{}:{} {} {}", one.line, one.column, one.code, one.message)).collect()
}

fn scheduled(number: usize, schedule: &str) -> String {
    format!("name: p{number}\nschedule: {{ {schedule} }}\nsteps: [{{ id: purge, job: purge }}]\n")
}

fn of_schedule(schedule: &str) -> Vec<String> {
    found(&[scheduled(0, schedule)], TimeDelta::zero())
}

#[test]
fn a_time_that_clocks_move_is_named_with_its_day() {
    let spring = "2:19 SG0404 2026-03-29 02:30 does not exist in Europe/Paris: the clocks go forward";
    assert_eq!(of_schedule("cron: '30 2 * * *', timezone: Europe/Paris"), [spring]);
    let autumn = "2:19 SG0404 01:30 comes twice on 2026-11-01 in America/New_York: the clocks go back";
    assert_eq!(of_schedule("cron: '30 1 * * *', timezone: America/New_York"), [autumn]);
    let second = of_schedule("cron: ['0 9 * * MON-FRI', '30 2 * * *'], timezone: Europe/Paris");
    assert_eq!(second, [spring.replace("2:19", "2:39")]);
    // On these days it does not start, starts more often, or the clocks do not move it.
    for quiet in ["30 2 * * MON-FRI", "30 2,14 * * *", "15 */2 * * *", "*/15 * * * *", "30 3 * * *", "0 4 * * SUN"] {
        assert_eq!(of_schedule(&format!("cron: '{quiet}', timezone: Europe/Paris")), [""; 0], "{quiet}");
    }
    assert_eq!(of_schedule("cron: '30 2 * * *', timezone: UTC"), [""; 0]);
}

#[test]
fn every_minute_of_chosen_hours_is_hardly_meant() {
    let said = "2:19 SG0403 this is due in every minute of the chosen hours";
    assert_eq!(of_schedule("cron: '* 3 * * *'"), [said]);
    assert_eq!(of_schedule("cron: '* */2 * * *'"), [said]);
    assert_eq!(of_schedule("seconds: true, cron: '0 * 3 * * *'"), [said.replace("2:19", "2:34")]);
    for quiet in ["* * * * *", "*/5 3 * * *", "0 3 * * *"] {
        assert_eq!(of_schedule(&format!("cron: '{quiet}'")), [""; 0], "{quiet}");
    }
}

#[test]
fn times_are_compared_with_how_often_it_is_due() {
    let often = |minutes: i64| found(&[scheduled(0, "cron: '*/10 * * * *'")], TimeDelta::minutes(minutes));
    assert_eq!(often(25), ["2:19 SG0405 it is due again after 10m, and a run usually takes 25m"]);
    assert_eq!(often(10), [""; 0]);
    let window = "2:50 SG0406 a missed start is never older than 1h: then the next one is due";
    assert_eq!(of_schedule("cron: '20 * * * *', catch_up_window: 61m"), [window]);
    assert_eq!(of_schedule("cron: '20 * * * *', catch_up_window: 60m"), [""; 0]);
    assert_eq!(of_schedule("cron: '20 * * * *'"), [""; 0], "the default is for all pipelines");
    assert_eq!(of_schedule("cron: '20 * * * *', catch_up: skip, catch_up_window: 6h"), [""; 0]);
    // The longest time between starts counts: from Friday to Monday.
    assert_eq!(of_schedule("cron: '0 9 * * MON-FRI', catch_up_window: 2d"), [""; 0]);
}

#[test]
fn a_crowd_is_reported_once() {
    let crowd: Vec<String> = (0..6).map(|number| scheduled(number, "cron: ['0 5 * * *', '0 17 * * *']")).collect();
    let said = "2:1 SG0407 it starts in the same minute as `p0`, `p1`, `p2` and 2 more: 2026-01-10 05:00 CET";
    assert_eq!(found(&crowd, TimeDelta::zero()), [said]);
    assert_eq!(found(&crowd[..2], TimeDelta::zero()), [""; 0], "two are no crowd");
    let jitter: Vec<String> = (0..6).map(|number| scheduled(number, "cron: '0 5 * * *', jitter: 10m")).collect();
    assert_eq!(found(&jitter, TimeDelta::zero()), [""; 0]);
    let disabled: Vec<String> = crowd.iter().map(|text| format!("{text}enabled: false\n")).collect();
    assert_eq!(found(&[&crowd[..2], &disabled[2..]].concat(), TimeDelta::zero()), [""; 0]);
}

#[test]
fn a_condition_that_names_nothing_is_constant() {
    let step = |condition: &str| {
        let text = format!(
            "name: p0\nparams: {{ n: {{ type: integer, default: 0 }} }}\nsteps:\n  - id: counts\n    job: validateCounts\n    with: {{ locate: '${{{{ params.n }}}}' }}\n    {condition}\n"
        );
        found(&[text], TimeDelta::zero())
    };
    assert_eq!(step("fail_when: 1 > 0"), ["7:16 SG0307 `fail_when` looks at nothing, so it is always the same"]);
    assert_eq!(step("when: 'false'"), ["7:11 SG0307 `when` looks at nothing, so it is always the same"]);
    for quiet in [
        "fail_when: result.missing > 0",
        "fail_when: 'false'",
        "when: params.n > 0",
        "warn_when: env('SGCACHE_X', 'a') == 'b'",
    ] {
        assert_eq!(step(quiet), [""; 0], "{quiet}");
    }
}

#[test]
fn a_notifier_that_no_hook_names_is_unused() {
    let text =
        "notifiers:\n  td-slack: { type: slack, url: { value: x } }\n  other: { type: slack, url: { value: x } }\n";
    let config = Document::yaml("config.yaml", text.as_bytes()).expect("YAML");
    let hook = "name: p0\nsteps: [{ id: purge, job: purge }]\non_error: [{ notify: td-slack }]\n";
    let mut problems = Problems::new();
    unused_notifiers(&config, &pipelines(&documents(&[hook.to_owned()])), &mut problems);
    let found: Vec<String> = problems.sorted().iter().map(|one| format!("{} {}", one.line, one.message)).collect();
    assert_eq!(found, ["3 no pipeline uses the notifier `other`"]);
}
