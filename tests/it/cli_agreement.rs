//! What the commands, the API and the log say of one daemon, and with which exit code: they
//! agree, and a program can rely on the words.

use std::time::Duration;

use serde_json::{Value, json};
use sgcache::sim::Trouble;

use crate::program::{Place, get};
use crate::waiting::block_until;

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_the_same_of_a_run_that_goes_on() {
    let place = Place::new();
    let site = place.site_here(300).await;
    let step = "steps: [{ id: all, job: rebuild, with: { types: [Task] } }]\n";
    let schedule = "schedule: { cron: '0 0 1 1 *', timezone: Asia/Tokyo }\n";
    std::fs::write(place.path("pipelines/slow.yaml"), format!("name: slow\n{schedule}{step}")).expect("a file");
    std::fs::write(place.path("pipelines/off.yaml"), format!("name: off\nenabled: false\n{step}")).expect("a file");
    let daemon = place.daemon();
    site.site().troubles.next_of("read Task", 1, Trouble::Slow(Duration::from_secs(50).into()));
    let run_id = place.run(&["pipelines", "trigger", "slow", "--detach"]).expect_code(0).stdout.trim().to_owned();
    block_until(|| site.site().troubles.waiting() == 0);

    let listed = place.run(&["pipelines", "list", "-o", "json"]).expect_code(0).json();
    let slow = named(&listed, "slow");
    assert_eq!((&slow["state"], &slow["timezone"]), (&json!("running"), &json!("Asia/Tokyo")));
    let (_, status) = get(&format!("http://{}/api/v1/status", place.ops)).expect("an answer");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let slow = named(&status["pipelines"], "slow");
    assert_eq!((&slow["running"], &slow["timezone"]), (&json!(true), &json!("Asia/Tokyo")));
    let history = place.run(&["pipelines", "history", "slow", "-o", "json"]).expect_code(0).json();
    assert_eq!((&history[0]["run_id"], &history[0]["finished_at"]), (&json!(run_id), &Value::Null));
    for command in [vec!["pipelines", "history", "slow"], vec!["pipelines", "show", &run_id], vec!["pipelines", "list"]]
    {
        let shown = place.run(&command).expect_code(0).stdout;
        assert!(shown.contains("running") && !shown.contains("interrupted"), "{command:?}: {shown}");
    }

    // What keeps a pipeline from starting is not a wrong command line.
    place.run(&["pipelines", "trigger", "slow"]).expect_code(12).says(&["`slow` cannot start", "has not ended"]);
    place.run(&["pipelines", "trigger", "off"]).expect_code(12).says(&["`off` is disabled", "enabled: true"]);
    place.run(&["pipelines", "trigger", "slwo"]).expect_code(2).says(&["did you mean `slow`?"]);
    place.run(&["pipelines", "cancel", &run_id]).expect_code(0);
    assert_eq!(daemon.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_down_or_busy_has_its_own_class_of_failure_and_shows_no_html() {
    let place = Place::new();
    place.edit("config.yaml", "retry: { attempts: 3,", "retry: { attempts: 1,");
    let site = place.site_here(300).await;
    place.run(&["job", "import"]).expect_code(0);
    for (status, class) in [(503, "unavailable"), (502, "unavailable"), (429, "rate_limited")] {
        site.site().troubles.next_of("read Shot", u32::MAX, Trouble::Status(status));
        let report = place.run(&["job", "rebuild", "Shot", "-o", "json"]).expect_code(69).json();
        let error = &report["steps"][0]["error"];
        assert_eq!(error["class"], class, "{report}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(&status.to_string()) && !message.contains('<'), "{message}");
        site.site().troubles.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_stays_json_also_where_a_reload_fails_and_no_lock_of_our_own_is_blamed() {
    let place = Place::new();
    let site = place.site_here(300).await;
    place.run(&["job", "import"]).expect_code(0);
    site.shutdown().await;
    let daemon = place.start(&["pipelines", "run", "--log-format", "json"]);
    place.until("/readyz", |status, _| status == 503);
    std::fs::write(place.path("pipelines/wrong.yaml"), "name: wrong\nsteps: [{ id: a, job: prug }]\n").expect("a file");
    place.until("/metrics", |_, text| text.contains("sgcache_config_last_reload_successful 0"));
    let (code, log) = daemon.terminate();
    assert_eq!(code, Some(0), "{log}");
    let mut problems = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        problems += usize::from(line.to_string().contains("prug"));
    }
    assert!(problems > 0 && !log.contains("another sgcache"), "{log}");
}
