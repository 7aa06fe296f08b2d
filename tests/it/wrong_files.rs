//! Files with one mistake each: what is drawn for it, with its code, its place and its
//! remedy. The snapshot is read as a person would read the messages.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use sgcache::config::Config;
use sgcache::pipeline::load;
use sgcache::yaml::{Document, Problems};

use crate::cli_diagnostics::resolve_context;

const PIPELINE: &str = "name: nightly
description: Compare.
labels: { severity: ticket }
schedule: { cron: '30 3 * * *', timezone: Europe/Paris, jitter: 10m, catch_up: once }
concurrency: { policy: queue, group: heavy }
timeout: 30m
retry: { attempts: 3, initial: 30s, on: [unavailable] }
blackout: [dailies]
budget: { max_requests: 2000, max_rps: 2 }
params:
  most: { type: integer, default: 0, min: 0 }
steps:
  - id: counts
    job: validateCounts
    with: { types: [Shot], settle: 60s, locate: 200 }
    fail_when: result.missing > params.most
  - id: data
    job: validateData
    needs: [counts]
    with: { types: [Shot], filters: [[code, is, a]], limit: 500 }
on_drift:
  - { job: repair, with: { from: [counts], max_rows: 500 } }
  - { notify: td-slack, every: change, message: \"${{ steps.counts.result.missing }} missing\" }
always: [{ ping: \"${{ env('SGCACHE_PING', '') }}\" }]
outputs: { prometheus: true, elasticsearch: { detail: drift } }
tests:
  - name: ok
    expect: { status: ok }
";

/// What is written in place of what, once.
const IN_PIPELINES: &[(&str, &str)] = &[
    // Syntax.
    ("description:", "\tdescription:"),
    ("description: Compare.", "description: Compare: all"),
    ("cron: '30 3 * * *'", "cron: * 3 * * *"),
    ("blackout: [dailies]", "blackout: [dailies"),
    ("timeout: 30m", "timeout: 30m\ntimeout: 20m"),
    ("limit: 500", "limit: {{ params.most }}"),
    ("limit: 500", "limit: ${{ params.most"),
    ("name: nightly", "name: nightly\n---\nname: other"),
    ("labels: {", "labels: *unknown\nparams2: {"),
    // Keys and their values.
    ("timeout:", "timeuot:"),
    ("steps:", "step:"),
    ("name: nightly\n", ""),
    ("name: nightly", "name: 7"),
    ("name: nightly", "name: night shift"),
    ("timeout: 30m", "timeout: 30"),
    ("timeout: 30m", "timeout: 30 minuts"),
    ("timeout: 30m", "timeout: 99999999999d"),
    ("attempts: 3", "attempts: 0"),
    ("attempts: 3", "attempts: many"),
    ("on: [unavailable]", "on: [unavailible]"),
    ("policy: queue", "policy: wait"),
    ("max_requests: 2000", "max_requests: -1"),
    ("max_rps: 2", "max_rps: 0"),
    ("labels: { severity: ticket }", "labels: [ticket]"),
    ("prometheus: true", "prometheus: yes"),
    ("detail: drift", "detail: all"),
    ("description: Compare.", "enabled: 1"),
    // Schedules.
    ("30 3 * * *", "30 25 * * *"),
    ("30 3 * * *", "30 3 * *"),
    ("30 3 * * *", "0 30 3 * * *"),
    ("30 3 * * *", "30 3 31 2 *"),
    ("30 3 * * *", "30 3 * * FRIDAY"),
    ("cron: '30 3 * * *'", "cron: []"),
    ("cron: '30 3 * * *', ", ""),
    ("Europe/Paris", "Europe/Pari"),
    ("Europe/Paris", "CEST"),
    ("jitter: 10m", "jitter: 1M"),
    ("catch_up: once", "catch_up: all"),
    ("schedule:", "continuous: { interval: 2s }\nschedule:"),
    ("catch_up: once", "catch_up_windw: 1h"),
    // Parameters.
    ("type: integer", "type: int"),
    ("default: 0", "default: none"),
    ("default: 0, min: 0", "default: 1, min: 2"),
    ("type: integer, default: 0, min: 0", "type: enum, default: a"),
    ("type: integer, default: 0, min: 0", "type: list, items: map, default: []"),
    (", default: 0", ""),
    ("params.most", "0"),
    // Steps.
    ("job: validateCounts", "job: validateCount"),
    ("job: validateCounts\n", "\n"),
    ("id: data", "id: counts"),
    ("needs: [counts]", "needs: [count]"),
    ("needs: [counts]", "needs: [data]"),
    ("locate: 200", "locat: 200"),
    ("locate: 200", "locate: lots"),
    ("settle: 60s", "settle: 60"),
    ("limit: 500", "limit: 0"),
    ("types: [Shot], settle", "types: [Shoot], settle"),
    ("types: [Shot], filters", "types: Shot, filters"),
    ("[[code, is, a]]", "[code, is]"),
    ("[[code, is, a]]", "[[cod, is, a]]"),
    ("[[code, is, a]]", "[[code, greater_than, a]]"),
    ("[[code, is, a]]", "[[code, iss, a]]"),
    ("limit: 500 }", "limit: 500, fields: [code, sg_nothing] }"),
    ("limit: 500 }", "order: -updated_att }"),
    ("filters: [[code, is, a]], limit: 500", "sample: { mode: rotate, rows: 10 }, limit: 500"),
    ("filters: [[code, is, a]], limit: 500", "sample: { mode: rotat }"),
    ("from: [counts]", "from: [cuonts]"),
    ("job: repair", "job: repiar"),
    // Expressions.
    ("result.missing > params.most", "result.mising > params.most"),
    ("result.missing > params.most", "result.missing > params.mots"),
    ("result.missing > params.most", "result.missing >"),
    ("result.missing > params.most", "result.missing"),
    ("result.missing > params.most", "${{ result.missing > params.most }}"),
    ("steps.counts.result.missing", "steps.count.result.missing"),
    ("${{ steps.counts.result.missing }} missing", "{% if true %}x{% endif %}"),
    ("env('SGCACHE_PING', '')", "env('HOME')"),
    ("env('SGCACHE_PING', '')", "env('SGCACHE_PING')"),
    // References and hooks.
    ("blackout: [dailies]", "blackout: [daily]"),
    ("notify: td-slack", "notify: td-slak"),
    ("every: change", "every: day"),
    ("{ notify: td-slack, every", "{ every"),
    ("always: [{ ping", "always: [{ notify: td-slack, ping"),
    ("always:", "on_stalled: [{ notify: td-slack }]\nalways:"),
    // Tests of the file.
    ("status: ok }", "status: fine }"),
    ("status: ok }", "stauts: ok }"),
    ("    expect:", "    results: { cuonts: { missing: 1 } }\n    expect:"),
    ("    expect:", "    now: tomorrow\n    expect:"),
];

const CONFIG: &str = "timezone: Europe/Paris
data_dir: ./data
shotgun:
  site: http://127.0.0.1:8190
  script: sgcache
  key: { value: sgcache-sim }
  max_rps: 8
secrets: { es: { env: SGCACHE_ES } }
store: { kind: embedded }
listen: { ops: 127.0.0.1:9187, api: 127.0.0.1:8010 }
api: { mode: serve, max_age: 30s, callers: [{ script: farm }] }
notifiers: { td-slack: { type: slack, url: { value: 'http://127.0.0.1:9/' } } }
blackouts: { dailies: { cron: '0 10 * * *', duration: 90m } }
pipelines: { defaults: { timeout: 1h }, history: { keep_runs: 200 } }
";

const IN_CONFIG: &[(&str, &str)] = &[
    ("shotgun:", "shotgn:"),
    ("  script: sgcache\n", ""),
    ("Europe/Paris", "Paris"),
    ("site: http://127.0.0.1:8190", "site: studio"),
    ("key: { value: sgcache-sim }", "key: sgcache-sim"),
    ("key: { value: sgcache-sim }", "key: { env: SGCACHE_A, file: b }"),
    ("key: { value: sgcache-sim }", "key: { secret: shotgn }"),
    ("key: { value: sgcache-sim }", "key: { env: SGCACHE_NOT_SET }"),
    ("max_rps: 8", "max_rps: 0"),
    ("max_rps: 8", "page_size: 5000"),
    ("kind: embedded", "kind: sqlite"),
    ("kind: embedded", "kind: elasticsearch"),
    ("kind: embedded", "kind: embedded, url: 'http://127.0.0.1:9200'"),
    ("ops: 127.0.0.1:9187", "ops: localhost"),
    ("ops: 127.0.0.1:9187", "ops: 0.0.0.0:9187"),
    ("api: 127.0.0.1:8010", "api: 0.0.0.0:8010"),
    ("mode: serve", "mode: server"),
    ("max_age: 30s", "max_age: 30"),
    ("max_age: 30s", "max_memory_mib: 1"),
    ("script: farm", "script: farm, login: jane"),
    ("script: farm", "scrpt: farm"),
    ("type: slack", "type: slak"),
    ("type: slack", "type: email"),
    ("cron: '0 10 * * *'", "cron: '0 10 * *'"),
    ("duration: 90m", "duration: 90"),
    ("keep_runs: 200", "keep_runs: 0"),
];

fn changed(text: &str, (from, to): (&str, &str)) -> String {
    text.replacen(from, to, 1)
}

/// Draws what is wrong with a file.
fn drawn(text: &str, check: impl Fn(&Document) -> Problems) -> String {
    let problems = match Document::yaml("file.yaml", text.as_bytes()) {
        Ok(document) => check(&document),
        Err(problems) => problems,
    };
    problems.render(false)
}

#[test]
fn each_mistake_is_shown_with_its_place_and_remedy() {
    let context = resolve_context();
    let pipeline =
        |document: &Document| load(std::slice::from_ref(document), "file.yaml", &context, Problems::new()).problems;
    let environment = BTreeMap::from([("SGCACHE_ES".to_owned(), "x".to_owned())]);
    let config = |document: &Document| match Config::resolve(document, Path::new("file.yaml"), &environment) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    assert_eq!((drawn(PIPELINE, pipeline), drawn(CONFIG, config)), (String::new(), String::new()), "without a mistake");
    let mut all = String::new();
    let mut accepted = Vec::new();
    let mut draw = |(from, to): (&'static str, &'static str), shown: String| {
        if shown.is_empty() {
            accepted.push((from, to));
        }
        let to = to.replace('\n', "⏎").replace('\t', "⇥");
        // Writing into a String cannot fail.
        let _ = writeln!(all, "### {} -> {to}\n{}\n", from.trim(), shown.trim_end());
    };
    for change in IN_PIPELINES {
        draw(*change, drawn(&changed(PIPELINE, *change), pipeline));
    }
    for change in IN_CONFIG {
        draw(*change, drawn(&changed(CONFIG, *change), config));
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
    assert!(IN_PIPELINES.len() + IN_CONFIG.len() > 100);
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("wrong_files", all);
    });
}
