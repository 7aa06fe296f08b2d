//! What the ledger says of real reads through a real daemon, against what their callers
//! counted: by the header of each answer, and by the access log for times. A daemon that
//! is killed loses at most what came since its last write.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::program::Place;
use crate::proxy_rig::{call_with_status, find, said};
use crate::waiting::Wait;

/// What callers saw, by what the proxy said of each answer.
type Seen = BTreeMap<String, u64>;

async fn read(place: &Place, seen: &mut Seen, ty: &str, fields: &[&str], times: usize) {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let url = format!("http://{}", place.api);
    for _ in 0..times {
        let argument = find(ty, json!([["id", "greater_than", 0]]), fields);
        let (status, headers, answer) = call_with_status(&url, auth.clone(), "read", argument).await;
        assert_eq!(status, 200, "{answer}");
        *seen.entry(said(&headers)).or_default() += 1;
    }
}

/// Reads until the cache answers: right after a start some types are not complete yet.
async fn read_until_hit(place: &Place, seen: &mut Seen, ty: &str, fields: &[&str]) {
    let hits = seen.get("hit").copied();
    while seen.get("hit").copied() == hits {
        read(place, seen, ty, fields, 1).await;
    }
}

/// Sets the code of a shot, and returns whether the site took it.
async fn write(place: &Place, id: i64) -> bool {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let fields = json!([{"field_name": "code", "value": "renamed"}]);
    let argument = json!({"type": "Shot", "id": id, "fields": fields});
    let (_, _, answer) = call_with_status(&format!("http://{}", place.api), auth, "update", argument).await;
    answer["results"]["id"].is_number()
}

fn report(place: &Place) -> Value {
    place.run(&["proxy", "report", "--since", "1h", "-o", "json"]).expect_code(0).json()
}

/// Asks until the report holds as many reads as were made: it is written every few seconds.
fn written(place: &Place, seen: &Seen, writes: u64) -> Value {
    let wait = Wait::begin();
    loop {
        let found = report(place);
        let reads = found["reads"].as_u64().expect("a number");
        assert!(reads <= seen.values().sum(), "more than was read: {found}");
        if reads == seen.values().sum::<u64>() && found["writes"]["visible_max_seconds"].is_number() == (writes > 0) {
            return found;
        }
        wait.pause(|| found.to_string());
    }
}

fn assert_counts(ledger: &Value, seen: &Seen) {
    let hits = seen.get("hit").copied().unwrap_or_default();
    let all: u64 = seen.values().sum();
    assert_eq!((ledger["hits"].as_u64(), ledger["passes"].as_u64()), (Some(hits), Some(all - hits)), "{ledger}");
    let ratio = ledger["hit_ratio"].as_f64().expect("a ratio");
    assert!((ratio - hits as f64 / all as f64).abs() < 1e-9, "{ledger}");
    let mut reasons = Seen::new();
    for one in ledger["reasons"].as_array().expect("reasons") {
        let reason = one["reason"].as_str().expect("a word").to_owned();
        *reasons.entry(reason).or_default() += one["calls"].as_u64().expect("a number");
    }
    let passed = seen.iter().filter(|(how, _)| *how != "hit").map(|(how, count)| (how.clone(), *count));
    assert_eq!(reasons, passed.collect(), "{ledger}");
}

/// What hits were worth: their number times the median of the site's answers, less the
/// time that they took, from the lines of the access log.
fn saved_by_access_log(place: &Place) -> f64 {
    let text = std::fs::read_to_string(place.path("data/audit.ndjson")).expect("the access log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let times = |decision: &str| -> Vec<f64> {
        let of = lines.clone().filter(|line| line["method"] == "read" && line["decision"] == decision);
        of.map(|line| line["milliseconds"].as_f64().expect("a time")).collect()
    };
    let (hits, mut passes) = (times("hit"), times("pass"));
    passes.sort_by(f64::total_cmp);
    let median = passes[(passes.len() - 1) / 2];
    (hits.len() as f64 * median - hits.iter().sum::<f64>()) / 1e3
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_counts_what_callers_saw_and_survives_a_kill() {
    let place = Place::new();
    place.edit("entityConfig/Shot.json", "    \"description\": {},\n", "");
    let _sim = place.sim(600, 0.0);
    let daemon = place.daemon();
    let mut seen = Seen::new();
    read(&place, &mut seen, "Shot", &["code"], 25).await;
    read(&place, &mut seen, "Shot", &["description"], 7).await;
    read(&place, &mut seen, "Scene", &["code"], 4).await;
    read_until_hit(&place, &mut seen, "Shot", &["code"]).await;
    assert!(seen["uncached_field"] == 7 && seen["uncached_type"] == 4, "{seen:?}");
    assert!(write(&place, 1).await && !write(&place, 999_999).await);

    let ledger = written(&place, &seen, 1);
    assert_counts(&ledger, &seen);
    let reasons = ledger["reasons"].as_array().expect("reasons");
    // On a busy machine more reads may have come before the types were complete.
    let field = reasons.iter().find(|one| one["reason"] == "uncached_field").expect("a row of that reason");
    assert_eq!(field["label"], "`Shot.description` is not cached");
    assert_eq!(field["remedy"], "add \"description\": {} to `fields` in entityConfig/Shot.json");
    assert_eq!(field["change"], json!({"change": "cache_field", "entity_type": "Shot", "field": "description"}));
    let expected = saved_by_access_log(&place);
    let saved = ledger["saved_seconds"].as_f64().expect("known");
    // A median from a histogram is exact to 6 %.
    let hits = ledger["hits"].as_f64().expect("a number");
    let median = ledger["methods"][0]["site_p50_ms"].as_f64().expect("known");
    assert!((saved - expected).abs() <= 0.07 * hits * median / 1e3, "{saved} is not {expected}");
    assert_eq!(ledger["callers"][0]["caller"], "script sgcache");
    assert_eq!(ledger["callers"][0]["reads"], ledger["reads"]);
    assert_eq!((&ledger["writes"]["count"], &ledger["writes"]["failed"]), (&json!(1), &json!(1)));

    daemon.kill();
    assert_counts(&report(&place), &seen);
    let _daemon = place.daemon();
    read(&place, &mut seen, "Scene", &["code"], 3).await;
    read(&place, &mut seen, "Shot", &["code"], 5).await;
    assert_counts(&written(&place, &seen, 1), &seen);

    // The same from the daemon and in words.
    let status: Value = serde_json::from_str(&place.until("/api/v1/status", |code, _| code == 200)).expect("JSON");
    assert_counts(&status["ledger"], &seen);
    let words = place.run(&["proxy", "report"]).expect_code(0).stdout;
    let all: u64 = seen.values().sum();
    assert!(words.starts_with(&format!("{all} reads answered, ")), "{words}");
    assert!(words.contains("Why ") && words.contains("entityConfig/Shot.json"), "{words}");
    assert!(words.lines().all(|line| line.chars().count() <= 80), "{words}");
    let status = place.run(&["status"]).expect_code(0).stdout;
    assert!(status.contains(&format!("reads answered {all:>10}")), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advised_brings_the_hit_ratio_that_was_promised() {
    let place = Place::new();
    place.edit("entityConfig/Shot.json", "    \"description\": {},\n", "");
    place.edit("entityConfig/Shot.json", "    \"sg_cut_order\": {},\n", "");
    let _sim = place.sim(600, 0.0);
    let daemon = place.daemon();
    let mut seen = Seen::new();
    read_until_hit(&place, &mut seen, "Shot", &["code", "project.Project.name"]).await;
    read(&place, &mut seen, "Shot", &["code"], 10).await;
    // Two fields are lacking: one alone changes nothing.
    read(&place, &mut seen, "Shot", &["description", "sg_cut_order"], 6).await;
    read(&place, &mut seen, "Scene", &["code", "project.Project.name"], 4).await;
    // No configuration makes these the cache's.
    read(&place, &mut seen, "Shot", &["open_notes_count"], 3).await;
    written(&place, &seen, 0);
    let before: Vec<(String, String)> = ["entityConfig/Shot.json", "config.yaml"]
        .map(|file| (file.into(), std::fs::read_to_string(place.path(file)).expect("a file")))
        .into();

    let advice = place.run(&["proxy", "advise", "-o", "json"]).expect_code(0).json();
    let (hits, all) = (seen["hit"], seen.values().sum::<u64>());
    let expected = (hits + 10) as f64 / all as f64;
    assert!((advice["hit_ratio_after"].as_f64().expect("a ratio") - expected).abs() < 1e-9, "{advice} {seen:?}");
    let files: Vec<_> =
        advice["changes"].as_array().expect("changes").iter().map(|one| (&one["file"], &one["calls"])).collect();
    let (shot, scene) = (json!("entityConfig/Shot.json"), json!("entityConfig/Scene.json"));
    assert_eq!(files, [(&shot, &json!(6)), (&scene, &json!(4))]);
    for (file, text) in &before {
        assert_eq!(std::fs::read_to_string(place.path(file)).expect("a file"), *text, "{file} was changed");
    }

    // The diff alone is on stdout, and does what it says.
    let diff = place.run(&["proxy", "advise"]).expect_code(0).says(&["Nothing was changed"]).stdout;
    std::fs::write(place.path("advice.diff"), diff).expect("a file");
    let mut git = std::process::Command::new("git");
    let applied = git.args(["apply", "-p1", "advice.diff"]).current_dir(place.dir.path()).output().expect("git");
    assert!(applied.status.success(), "{applied:?}");
    daemon.kill();
    let _daemon = place.daemon();
    for (ty, fields) in [("Shot", ["description", "sg_cut_order"]), ("Scene", ["code", "project.Project.name"])] {
        read_until_hit(&place, &mut seen, ty, &fields).await;
    }
    let mut after = Seen::new();
    read(&place, &mut after, "Shot", &["description", "sg_cut_order"], 6).await;
    read(&place, &mut after, "Scene", &["code", "project.Project.name"], 4).await;
    read(&place, &mut after, "Shot", &["open_notes_count"], 3).await;
    assert_eq!((after["hit"], after.values().sum::<u64>()), (10, 13), "{after:?}");
}
