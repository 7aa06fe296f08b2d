//! Every key of a pipeline file and every argument of a job changes what is done: two files
//! that differ in this key alone are two pipelines.

use std::collections::BTreeSet;

use super::resolved;
use crate::pipeline::{JobSpec, Pipeline, file};
use crate::yaml::{Document, Problems, Shape};

const STEPS: &str = "steps: [{ id: a, job: purge }]\n";
const SCHEDULE: &str = "schedule: { cron: '0 3 * * *' ";

/// A key, and a file with two values of it: `<one|other>`.
const KEYS: &[(&str, &str)] = &[
    ("name", "name: <p|q>\nS"),
    ("description", "N\ndescription: <one|other>\nS"),
    ("labels.*", "N\nlabels: { team: <a|b> }\nS"),
    ("enabled", "N\nenabled: <true|false>\nS"),
    ("timeout", "N\ntimeout: <1m|2m>\nS"),
    ("schedule.cron", "N\nschedule: { cron: '0 <3|4> * * *' }\nS"),
    ("schedule.timezone", "N\nT, timezone: <UTC|Asia/Tokyo> }\nS"),
    ("schedule.seconds", "N\nschedule: { <cron: '0 0 3 * * *', seconds: true|cron: '0 3 * * *', seconds: false> }\nS"),
    ("schedule.jitter", "N\nT, jitter: <10m|20m> }\nS"),
    ("schedule.catch_up", "N\nT, catch_up: <once|skip> }\nS"),
    ("schedule.catch_up_window", "N\nT, catch_up_window: <1h|2h> }\nS"),
    ("schedule.overdue_after", "N\nT, overdue_after: <25h|26h> }\nS"),
    ("continuous.interval", "N\ncontinuous: { interval: <1s|2s> }\nS"),
    ("continuous.max_interval", "N\ncontinuous: { max_interval: <5s|6s> }\nS"),
    ("continuous.stall_after", "N\ncontinuous: { stall_after: <5s|6s> }\nS"),
    ("continuous.restart.initial", "N\ncontinuous: { restart: { initial: <5s|6s> } }\nS"),
    ("continuous.restart.max", "N\ncontinuous: { restart: { max: <70s|80s> } }\nS"),
    ("continuous.restart.reset_after", "N\ncontinuous: { restart: { reset_after: <70s|80s> } }\nS"),
    ("blackout", "N\n<blackout: [dailies]|>\nS"),
    ("concurrency.policy", "N\nconcurrency: { policy: <queue|replace> }\nS"),
    ("concurrency.group", "N\nconcurrency: { group: <a|b> }\nS"),
    ("params.*.type", "N\nparams: { n: { type: <integer|number>, default: 1 } }\nU"),
    ("params.*.items", "N\nparams: { n: { type: list, items: <integer|number>, default: [] } }\nU"),
    ("params.*.default", "N\nparams: { n: { type: integer, default: <1|2> } }\nU"),
    ("params.*.min", "N\nparams: { n: { type: integer, default: 5, min: <1|2> } }\nU"),
    ("params.*.max", "N\nparams: { n: { type: integer, default: 5, max: <7|8> } }\nU"),
    ("params.*.values", "N\nparams: { n: { type: enum, default: a, values: [a, <b|c>] } }\nU"),
    ("params.*.description", "N\nparams: { n: { type: integer, default: 5, description: <a|b> } }\nU"),
    ("steps[].id", "N\nsteps: [{ id: <a|b>, job: purge }]\n"),
    ("steps[].job", "N\nsteps: [{ id: a, job: <purge|import> }]\n"),
    ("steps[].with", "N\nsteps: [{ id: a, job: purge, with: { older_than: <1d|2d> } }]\n"),
    ("steps[].needs", "N\nsteps: [{ id: a, job: purge }, { id: b, job: purge, needs: [<a|>] }]\n"),
    ("steps[].when", "N\nsteps: [{ id: a, job: purge, when: run.hour == <1|2> }]\n"),
    ("steps[].timeout", "N\nsteps: [{ id: a, job: purge, timeout: <1m|2m> }]\n"),
    ("steps[].warn_when", "N\nsteps: [{ id: a, job: validateCounts, warn_when: result.extra >= <1|2> }]\n"),
    ("steps[].fail_when", "N\nsteps: [{ id: a, job: validateCounts, fail_when: result.extra >= <1|2> }]\n"),
    ("budget.max_requests", "N\nbudget: { max_requests: <5|6> }\nS"),
    ("budget.max_rps", "N\nbudget: { max_rps: <5|6> }\nS"),
    ("retry.attempts", "N\nretry: { attempts: <5|6> }\nS"),
    ("retry.initial", "N\nretry: { initial: <6s|7s> }\nS"),
    ("retry.max", "N\nretry: { max: <6m|7m> }\nS"),
    ("retry.on", "N\nretry: { on: [<store|invalid>] }\nS"),
    ("on_drift[].job", "N\nS\non_drift: [{ <job: repair|notify: td-slack> }]"),
    ("on_drift[].with", "N\nS\non_drift: [{ job: repair, with: { max_rows: <5|6> } }]"),
    ("on_drift[].notify", "N\nS\n<on_drift: [{ notify: td-slack }]|>"),
    ("on_drift[].ping", "N\nS\non_drift: [{ ping: 'http://<a|b>.example/' }]"),
    ("on_drift[].message", "N\nS\non_drift: [{ notify: td-slack, message: <a|b> }]"),
    ("on_drift[].every", "N\nS\non_drift: [{ notify: td-slack, every: <run|change> }]"),
    ("on_error[].notify", "N\nS\n<on_error: [{ notify: td-slack }]|>"),
    ("on_error[].ping", "N\nS\non_error: [{ ping: 'http://<a|b>.example/' }]"),
    ("on_error[].message", "N\nS\non_error: [{ notify: td-slack, message: <a|b> }]"),
    ("on_error[].every", "N\nS\non_error: [{ notify: td-slack, every: <run|change> }]"),
    ("on_success[].notify", "N\nS\n<on_success: [{ notify: td-slack }]|>"),
    ("on_success[].ping", "N\nS\non_success: [{ ping: 'http://<a|b>.example/' }]"),
    ("on_success[].message", "N\nS\non_success: [{ notify: td-slack, message: <a|b> }]"),
    ("on_success[].every", "N\nS\non_success: [{ notify: td-slack, every: <run|change> }]"),
    ("always[].notify", "N\nS\n<always: [{ notify: td-slack }]|>"),
    ("always[].ping", "N\nS\nalways: [{ ping: 'http://<a|b>.example/' }]"),
    ("always[].message", "N\nS\nalways: [{ notify: td-slack, message: <a|b> }]"),
    ("always[].every", "N\nS\nalways: [{ notify: td-slack, every: <run|change> }]"),
    ("on_stalled[].notify", "N\nT, overdue_after: 1d }\nS\n<on_stalled: [{ notify: td-slack }]|>"),
    ("on_stalled[].ping", "N\nT, overdue_after: 1d }\nS\non_stalled: [{ ping: 'http://<a|b>.example/' }]"),
    ("on_stalled[].message", "N\nT, overdue_after: 1d }\nS\non_stalled: [{ notify: td-slack, message: <a|b> }]"),
    ("on_recovered[].notify", "N\nT, overdue_after: 1d }\nS\n<on_recovered: [{ notify: td-slack }]|>"),
    ("on_recovered[].ping", "N\nT, overdue_after: 1d }\nS\non_recovered: [{ ping: 'http://<a|b>.example/' }]"),
    ("on_recovered[].message", "N\nT, overdue_after: 1d }\nS\non_recovered: [{ notify: td-slack, message: <a|b> }]"),
    ("outputs.prometheus", "N\nS\noutputs: { prometheus: <true|false> }"),
    ("outputs.elasticsearch.detail", "N\nS\noutputs: { elasticsearch: { detail: <drift|summary> } }"),
    ("outputs.elasticsearch.index", "N\nS\noutputs: { elasticsearch: { index: <a|b> } }"),
    ("outputs.file.path", "N\nS\noutputs: { file: { path: <a|b> } }"),
];

/// An argument, and all arguments with two values of it.
const ARGUMENTS: &[(&str, &str)] = &[
    ("sync.once", "once: <true|false>"),
    ("import.types", "types: [<Shot|Task>]"),
    ("rebuild.types", "types: [<Shot|Task>]"),
    ("validateCounts.types", "types: [<Shot|Task>]"),
    ("validateCounts.settle", "settle: <1s|2s>"),
    ("validateCounts.locate", "locate: <1|2>"),
    ("validateCounts.repair", "repair: <true|false>"),
    ("validateData.types", "types: [<Shot|Task>]"),
    ("validateData.exclude_types", "exclude_types: [<Shot|Task>]"),
    ("validateData.filters", "filters: [[code, is, <a|b>]]"),
    ("validateData.filter_operator", "filter_operator: <all|any>"),
    ("validateData.order", "order: <id|-id>"),
    ("validateData.fields", "fields: [<code|id>]"),
    ("validateData.ignore_fields", "ignore_fields: [<code|id>]"),
    ("validateData.limit", "limit: <1|2>"),
    ("validateData.page", "page: <1|2>"),
    ("validateData.sample.mode", "sample: { mode: <rotate|random_pages> }"),
    ("validateData.sample.rows", "sample: { mode: rotate, rows: <1|2> }"),
    ("validateData.sample.pages", "sample: { mode: random_pages, pages: <1|2> }"),
    ("validateData.sample.page_size", "sample: { mode: random_pages, page_size: <1|2> }"),
    ("validateData.sample.seed", "sample: { mode: random_pages, seed: <a|b> }"),
    ("validateData.settle", "settle: <1s|2s>"),
    ("validateData.locate", "locate: <1|2>"),
    ("validateData.repair", "repair: <true|false>"),
    ("repair.from", "from: <a|b>"),
    ("repair.max_rows", "max_rows: <1|2>"),
    ("repair.verify", "verify: <true|false>"),
    ("repair.entities", "entities: [Shot <1|2>]"),
    ("repair.run", "run: <01M8PQTVS8E2KWHE2Y44AT17BP|01M8PQTVS83TYYBGWRT24PHQ53>"),
    ("generateEntityConfigs.types", "types: [<Shot|Task>]"),
    ("generateEntityConfigs.mode", "mode: <check|write>"),
    ("purge.older_than", "older_than: <1d|2d>"),
    ("pruneReports.keep_runs", "keep_runs: <1|2>"),
    ("pruneReports.keep_days", "keep_days: <1|2>"),
    ("scan.types", "types: [<Shot|Task>]"),
    ("scan.mode", "mode: <fast|light>"),
    ("scan.rows", "{ mode: full, rows: <1|2> }"),
    ("deadLetters.retry", "retry: <true|false>"),
    ("export.types", "{ file: a, types: [<Shot|Task>] }"),
    ("export.format", "{ file: '{type}', format: <ndjson|csv> }"),
    ("export.file", "file: <a|b>"),
    ("export.fields", "{ file: a, fields: [<code|id>] }"),
    ("export.filters", "{ file: a, filters: [[code, is, <a|b>]] }"),
    ("export.filter_operator", "{ file: a, filter_operator: <all|any> }"),
];

/// Both texts of `..<one|other>..`.
fn both(text: &str) -> [String; 2] {
    let (before, rest) = text.split_once('<').expect("two values");
    let (values, after) = rest.rsplit_once('>').expect("their end");
    let (one, other) = values.split_once('|').expect("two values");
    [one, other].map(|value| format!("{before}{value}{after}"))
}

/// What a pipeline does, without the text of its file.
fn done(pipeline: Pipeline) -> String {
    format!(
        "{:?}",
        Pipeline { written: Default::default(), hash: String::new(), schedule_hash: String::new(), ..pipeline }
    )
}

#[test]
fn every_key_changes_the_pipeline() {
    for (key, text) in KEYS {
        let text = text.replace("N\n", "name: p\n").replace("\nS", &format!("\n{STEPS}"));
        let text = text.replace("\nT", &format!("\n{SCHEDULE}"));
        let used = "steps: [{ id: a, job: purge, when: params.n != 77 }]\n";
        let [one, other] = both(&text.replace("\nU", &format!("\n{used}")))
            .map(|text| done(resolved(&text).unwrap_or_else(|error| panic!("{key}: {error}"))));
        assert_ne!(one, other, "{key} changes nothing");
    }
    // Groups of keys are no keys of their own; what `tests` say is tested by rehearsals.
    let all: BTreeSet<String> = file::SHAPE.paths("").into_iter().filter(|path| !path.starts_with("tests")).collect();
    let is_group = |path: &String| all.iter().any(|other| other.len() > path.len() && other.starts_with(path.as_str()));
    let covered: BTreeSet<&str> = KEYS.iter().map(|(key, _)| *key).collect();
    let missing: Vec<&String> = all.iter().filter(|path| !covered.contains(path.as_str()) && !is_group(path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_argument_changes_the_job() {
    let spec = |job: &str, text: &str| {
        let document = Document::yaml("with.yaml", text.as_bytes()).expect("YAML");
        let mut problems = Problems::new();
        let spec = JobSpec::parse(job, &document, "", document.value(), &mut problems);
        spec.unwrap_or_else(|| panic!("{job} {text}: {problems}"))
    };
    for (path, text) in ARGUMENTS {
        let (job, _) = path.split_once('.').expect("a job and an argument");
        let [one, other] = both(text).map(|text| spec(job, &text));
        assert_ne!(one, other, "{path} changes nothing");
    }
    let covered: BTreeSet<&str> = ARGUMENTS.iter().map(|(path, _)| *path).collect();
    for job in JobSpec::NAMES {
        let keys = Shape::Object(JobSpec::arguments(job).expect("a job")).paths(job);
        let is_group = |path: &String| keys.iter().any(|other| other.starts_with(&format!("{path}.")));
        for path in keys.iter().filter(|path| !is_group(path)) {
            assert!(covered.contains(path.as_str()), "{path} is not tried");
        }
    }
}
