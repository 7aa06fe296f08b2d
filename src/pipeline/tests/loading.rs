//! Tests of loading pipeline files.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{at, resolve_context, resolved};
use crate::pipeline::*;
use crate::yaml::{Document, Problems};

fn refused(text: &str) -> Vec<String> {
    let message = resolved(text).expect_err("a problem");
    message.lines().map(str::to_owned).collect()
}

const COUNTS: &str = "name: nightly
schedule: { cron: '30 2 * * *', jitter: 10m }
params:
  types: { type: list, items: string, default: [] }
  max_missing: { type: integer, default: 0, min: 0 }
steps:
  - id: counts
    job: validateCounts
    with: { types: '${{ params.types }}', settle: 60s, locate: 200 }
    fail_when: result.missing > params.max_missing
on_drift:
  - { job: repair, with: { from: counts, max_rows: 500, verify: true } }
";

#[test]
fn a_file_is_resolved_with_its_defaults() {
    let pipeline = resolved(COUNTS).expect("a valid file");
    assert_eq!(pipeline.name, "nightly");
    assert_eq!(pipeline.timeout, Some(Defaults::default().timeout));
    assert_eq!(pipeline.steps[0].job, "validateCounts");
    assert_eq!(pipeline.on_drift[0].job, "repair");
    let schedule = pipeline.schedule().expect("a schedule");
    assert_eq!(schedule.timezone, chrono_tz::Europe::Paris);
    assert!(schedule.offset.as_secs() < 600);
    assert_eq!(schedule.catch_up_window.as_secs(), 6 * 3600);
}

#[test]
fn unknown_names_are_errors_with_a_place_and_a_suggestion() {
    let text = COUNTS
        .replace("job: validateCounts", "job: validateCuonts")
        .replace("locate: 200 }", "locate: 200 }\n    fial_when: true");
    assert_eq!(
        refused(&text),
        [
            "p.yaml:8:10: error[SG0205]: no job is named `validateCuonts` (did you mean `validateCounts`?)",
            "p.yaml:10:5: error[SG0201]: unknown key `fial_when` (did you mean `fail_when`?)",
        ]
    );
    let text = COUNTS
        .replace("settle: 60s", "settel: 60s")
        .replace("${{ params.types }}", "${{ params.typs }}")
        .replace("from: counts", "from: [count]");
    assert_eq!(
        refused(&text),
        [
            "p.yaml:9:25: error[SG0301]: `params.typs` is not defined (did you mean `params.types`?)",
            "p.yaml:9:42: error[SG0201]: unknown key `settel` (did you mean `settle`?)",
            "p.yaml:12:35: error[SG0503]: no step has the id `count` (did you mean `counts`?)",
        ]
    );
    let text = COUNTS.replace("settle: 60s", "settel: 60s").replace("params.max_missing", "result.mising");
    assert_eq!(refused(&text)[0], "p.yaml:9:43: error[SG0201]: unknown key `settel` (did you mean `settle`?)");
    assert_eq!(
        refused(&text)[1],
        "p.yaml:10:33: error[SG0301]: `result.mising` is not defined (did you mean `result.missing`?)"
    );
}

#[test]
fn problems_are_drawn_with_their_lines() {
    let text = COUNTS.replace("params.types }}", "params.typs }}").replace("result.missing >", "result.mising >");
    let document = Document::yaml("pipelines/nightly.yaml", text.as_bytes()).expect("valid YAML");
    let mut problems = Problems::new();
    assert!(resolve(&document, &resolve_context(), &mut problems).is_none());
    insta::assert_snapshot!(problems.render(false), @r"
    error[SG0301]: `params.typs` is not defined
     --> pipelines/nightly.yaml:9:25
      |
    9 |     with: { types: '${{ params.typs }}', settle: 60s, locate: 200 }
      |                         ^^^^^^^^^^^ here
      |
      = help: did you mean `params.types`?

    error[SG0301]: `result.mising` is not defined
      --> pipelines/nightly.yaml:10:16
       |
    10 |     fail_when: result.mising > params.max_missing
       |                ^^^^^^^^^^^^^ here
       |
       = help: did you mean `result.missing`?
    ");
}

#[test]
fn arguments_are_checked_with_the_defaults_of_parameters() {
    let text = COUNTS.replace("type: list, items: string, default: []", "type: string, default: a");
    assert_eq!(refused(&text), ["p.yaml:9:20: error[SG0202]: expected a list, found the text `a`"]);
    let text = COUNTS.replace("default: 0, min: 0", "default: -1, min: 0");
    assert!(refused(&text)[0].contains("-1 is less than 0"), "{:?}", refused(&text));
}

#[test]
fn wrong_schedules_say_why() {
    for (cron, reason) in [
        ("'30 2 * *'", "has 4 fields, 5 are needed"),
        ("'0 30 2 * * *'", "set `seconds: true`"),
        ("'61 2 * * *'", "the cron line"),
        ("'0 0 30 2 *'", "names a date that never comes"),
        ("[\"0 1 * * *\", \"0 25 * * *\"]", "p.yaml:2:33"),
    ] {
        let all = refused(&COUNTS.replace("'30 2 * * *'", cron));
        assert!(all[0].contains(reason) && all[0].contains("SG0401"), "{cron}: {all:?}");
    }
    let text = COUNTS.replace("jitter: 10m", "timezone: Europe/Pari");
    assert!(refused(&text)[0].ends_with("(did you mean `Europe/Paris`?)"));
    let text = COUNTS.replace("params:", "continuous: { interval: 2s }\nparams:");
    assert!(refused(&text)[0].contains("either `continuous` or has a `schedule`"));
}

#[test]
fn nicknames_and_seconds_are_understood() {
    for cron in ["'@daily'", "'@hourly'", "'*/10 * * * * *', seconds: true"] {
        assert!(resolved(&COUNTS.replace("'30 2 * * *'", cron)).is_ok(), "{cron}");
    }
}

#[test]
fn steps_run_after_what_they_need_and_never_in_circles() {
    let text = "name: a\nsteps:\n  - { id: c, job: repair, needs: [b] }\n  - { id: a, job: purge }\n  \
                - { id: b, job: validateData, needs: a }\n";
    let ids: Vec<String> = resolved(text).expect("a valid file").steps.into_iter().map(|step| step.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let circle = text.replace("job: purge", "job: purge, needs: [c]");
    assert!(refused(&circle)[0].contains("these steps wait for each other: c, a, b"));
    let text = text.replace("needs: a }", "needs: x }\n  - { id: a, job: import }");
    let all = refused(&text);
    assert!(all[0].contains("SG0503") && all[1].contains("SG0502"), "{all:?}");
}

#[test]
fn a_step_sees_only_the_steps_before_it() {
    let text = "name: a\nsteps:\n  - { id: b, job: purge, when: steps.c.status == 'ok' }\n  \
                - { id: c, job: purge, when: steps.b.result.requests == 0 }\n";
    assert_eq!(refused(text), ["p.yaml:3:32: error[SG0301]: `steps.c` is not defined"]);
}

#[test]
fn conditions_are_bare_and_give_true_or_false() {
    let text = COUNTS.replace("result.missing > params.max_missing", "result.missing");
    assert!(refused(&text)[0].contains("gives 0, not true or false"));
    let text = COUNTS.replace("fail_when: result.missing >", "fail_when: ${{ result.missing }} >");
    assert!(refused(&text)[0].contains("write it without ${{ }}"));
}

#[test]
fn an_unused_parameter_is_a_warning() {
    let text = COUNTS.replace("> params.max_missing", "> 0");
    assert_eq!(refused(&text), ["p.yaml:5:3: warning[SG0305]: the parameter `max_missing` is never used"]);
}

#[test]
fn overrides_take_the_declared_type() {
    let text = "name: a\nparams:\n  n: { type: integer, default: 1, max: 5 }\n  \
                l: { type: list, items: string, default: [] }\n  b: { type: boolean }\n  \
                d: { type: duration, default: 5s }\n  e: { type: enum, values: [x, y], default: x }\n\
                steps:\n  - id: s\n    job: validateData\n    when: params.b and params.d and params.e == 'x'\n    \
                with: { types: '${{ params.l }}', limit: '${{ params.n }}' }\n";
    let text = text.replace("params.d and", "params.d == '5s' and");
    let pipeline = resolved(&text).expect("a valid file");
    let set = |pairs: &[&str]| {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let overrides = parse_overrides(&pairs).expect("pairs");
        pipeline.params.resolve(&overrides).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let values = set(&["n=5", "l=Shot,Task", "b=true", "e=y"]).expect("values");
    assert_eq!(values["n"], json!(5));
    assert_eq!(values["l"], json!(["Shot", "Task"]));
    assert_eq!(values["b"], json!(true));
    assert_eq!(
        set(&["n=6", "d=5", "e=z", "m=1"]),
        Err(vec![
            "parameter `b`: has no default: give it with --set".to_owned(),
            "parameter `d`: `5` has no unit: write `5s`, `5m`, ...".to_owned(),
            "parameter `e`: `z` is not one of: x, y".to_owned(),
            "parameter `n`: 6 is more than 5".to_owned(),
            "parameter `m`: is not declared; expected one of: b, d, e, l, n".to_owned(),
        ])
    );
    // Nobody is there to give a value when a schedule starts the run.
    let scheduled = text.replace("name: a\n", "name: a\nschedule: { cron: '@daily' }\n");
    assert!(refused(&scheduled)[0].contains("needs a `default`"));
}

#[test]
fn job_arguments_become_types() {
    let text = "name: a\nsteps:\n  - id: s\n    job: validateData\n    with:\n      \
                filters: [[updated_at, in_last, 2, HOUR]]\n      order: -updated_at\n      fields: all\n      \
                sample: { mode: random_pages, pages: 2, seed: 7 }\n";
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("valid");
    let written = document.value().pointer("/steps/0/with").expect("arguments");
    let mut problems = Problems::new();
    let spec = JobSpec::parse("validateData", &document, "/steps/0/with", written, &mut problems);
    let Some(JobSpec::ValidateData(args)) = spec else {
        panic!("{problems}");
    };
    assert_eq!(args.filters, json!([["updated_at", "in_last", 2, "HOUR"]]));
    assert_eq!(args.fields, [""; 0]);
    let sample = args.sample.expect("a sample");
    assert_eq!((sample.mode, sample.pages, sample.page_size), (SampleMode::RandomPages, 2, 250));
    assert_eq!(sample.seed_number(), Some(fingerprint("7")));
    let all = refused(&text.replace("mode: random_pages", "mode: lastest"));
    assert!(all[0].contains("did you mean `latest`?"), "{all:?}");
    for (written, reason) in [
        ("limit: 0", "0 is less than the least allowed, 1"),
        ("limit: -5", "-5 is less than"),
        ("settle: 1M", "no fixed length"),
    ] {
        let all = refused(&text.replace("fields: all", written));
        assert!(all.iter().any(|line| line.contains(reason)), "{written}: {all:?}");
    }
}

#[test]
fn old_and_new_spellings_of_jobs_are_known_on_the_command_line() {
    assert_eq!(JobSpec::canonical_name("validate-counts"), Some("validateCounts"));
    assert_eq!(JobSpec::canonical_name("validateData"), Some("validateData"));
    assert_eq!(JobSpec::canonical_name("validate"), None);
    for name in JobSpec::NAMES {
        assert!(JobSpec::arguments(name).is_some(), "{name}");
    }
}

#[test]
fn problems_of_all_files_come_in_one_pass() {
    let files = [
        ("a.yaml", COUNTS.replace("locate", "locte")),
        ("b.yaml", COUNTS.replace("60s", "60")),
        ("c.yaml", COUNTS.to_owned()),
        ("d.yaml", COUNTS.to_owned()),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in &files {
        std::fs::write(directory.path().join(name), text).expect("written");
    }
    std::fs::write(directory.path().join("e.yml"), "name: [").expect("written");
    std::fs::write(directory.path().join("notes.txt"), "not a pipeline").expect("written");
    let problems = load_directory(directory.path(), &resolve_context()).expect_err("problems");
    let codes: Vec<&str> = problems.sorted().iter().map(|d| d.code).collect();
    // All four have one name, also those that are wrong.
    assert_eq!(codes, ["SG0201", "SG0206", "SG0202", "SG0206", "SG0206", "SG0102"]);
    let none = load_directory(&directory.path().join("none"), &resolve_context());
    assert!(none.expect_err("no directory").to_string().contains("cannot be read"));
}

#[test]
fn a_directory_where_nothing_runs_is_a_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let off = COUNTS.replace("schedule:", "enabled: false\nschedule:");
    std::fs::write(directory.path().join("a.yaml"), off).expect("written");
    let (pipelines, warnings) = load_directory(directory.path(), &resolve_context()).expect("loaded");
    assert_eq!(pipelines.len(), 1);
    assert!(pipelines[0].next_runs(at("2026-01-01T00:00:00Z"), 3).is_empty());
    assert!(warnings.to_string().contains("no pipeline is enabled (1 files seen)"));
    assert!(find(&pipelines, "nightli").expect_err("unknown").contains("did you mean `nightly`?"));
}

fn runs(cron: &str, from: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::new(vec![cron.to_owned()], false, chrono_tz::Europe::Paris);
    let schedule = schedule.expect("a valid cron line");
    let local = |run: &DateTime<Utc>| run.with_timezone(&schedule.timezone).to_rfc3339();
    schedule.next_runs(at(from), count).iter().map(local).collect()
}

#[test]
fn a_time_in_the_spring_gap_runs_at_the_first_valid_instant() {
    assert_eq!(
        runs("30 2 * * *", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
}

#[test]
fn a_time_in_the_autumn_overlap_runs_once_and_an_interval_twice() {
    assert_eq!(
        runs("30 2 * * *", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    );
    assert_eq!(
        runs("*/30 * * * *", "2026-10-25T00:00:00Z", 4),
        [
            "2026-10-25T02:30:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:30:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ]
    );
}

#[test]
fn the_latest_missed_occurrence_is_found_after_any_time_off() {
    let latest = |cron: &str, from: &str, until: &str| {
        let schedule = Schedule::new(vec![cron.to_owned()], false, chrono_tz::UTC).expect("valid");
        schedule.latest_between(at(from), at(until)).to_rfc3339()
    };
    let from = "2026-01-04T04:00:00Z";
    assert_eq!(latest("0 4 * * SUN", from, "2026-01-05T00:00:00Z"), "2026-01-04T04:00:00+00:00");
    assert_eq!(latest("0 4 * * SUN", from, "2026-07-01T00:00:00Z"), "2026-06-28T04:00:00+00:00");
    assert_eq!(latest("* * * * *", from, "2036-01-01T00:00:30Z"), "2036-01-01T00:00:00+00:00");
}

#[test]
fn jitter_is_fixed_for_a_site_and_a_pipeline() {
    let schedule = || Schedule::new(vec!["0 1 * * *".into()], false, chrono_tz::UTC).expect("valid");
    let spread = |key: &str| schedule().with_jitter(std::time::Duration::from_secs(600), key).offset;
    assert_eq!(spread("site nightly"), spread("site nightly"));
    let keys: Vec<_> = (0..20).map(|n| spread(&format!("site {n}"))).collect();
    assert!(keys.iter().any(|offset| *offset != keys[0]));
    let moved = schedule().with_jitter(std::time::Duration::from_secs(600), "site nightly");
    let plain = schedule().next_after(at("2026-01-01T00:30:00Z")).expect("a run");
    let next = moved.next_after(at("2026-01-01T00:30:00Z")).expect("a run");
    assert_eq!((next - plain).to_std(), Ok(moved.offset));
}

#[test]
fn hooks_and_blackouts_name_what_config_yaml_defines() {
    let text = format!(
        "{COUNTS}  - {{ notify: td-slack, every: change }}\nalways: [{{ ping: 'https://x' }}]\nblackout: [dailies]\n"
    );
    let pipeline = resolved(&text).expect("a valid file");
    assert_eq!((pipeline.on_drift.len(), pipeline.hooks.on_drift.len(), pipeline.hooks.always.len()), (1, 1, 1));
    assert_eq!(pipeline.hooks.on_drift[0].every, Every::Change);
    assert_eq!(pipeline.blackouts[0].name, "dailies");

    let text = format!(
        "{COUNTS}on_error: [{{ notify: td-slak }}, {{ message: hello }}]\n\
         on_success: [{{ ping: '${{{{ run.statu }}}}' }}]\nblackout: [daylies]\n"
    );
    assert_eq!(
        refused(&text),
        [
            "p.yaml:13:22: error[SG0605]: there is no notifier `td-slak` (did you mean `td-slack`?)",
            "p.yaml:13:33: error[SG0208]: an entry does one thing (give `notify: NAME` or `ping: URL`, or below `on_drift` also `job: repair`)",
            "p.yaml:14:27: error[SG0301]: `run.statu` is not defined (did you mean `run.status`?)",
            "p.yaml:15:12: error[SG0606]: there is no blackout `daylies` (did you mean `dailies`?)",
        ]
    );
}

#[test]
fn what_is_not_built_yet_is_an_error_and_not_silently_left_out() {
    for key in ["shards: 2", "on_missed: []"] {
        let name = key.split(':').next().expect("a key");
        let said = refused(&format!("{COUNTS}{key}\n"));
        assert!(said[0].starts_with(&format!("p.yaml:13:1: error[SG0201]: unknown key `{name}`")), "{said:?}");
    }
}

#[test]
fn no_duration_of_a_file_is_longer_than_what_time_can_hold() {
    for (key, reason) in [
        ("jitter: 9999999999d", "longer than 3650d"),
        ("jitter: 2d", "2d is more than the most allowed, 1d"),
        ("jitter: 10m, catch_up_window: 400d", "400d is more than the most allowed, 366d"),
        ("jitter: 99999999999999999999999999d", "longer than 3650d"),
    ] {
        let all = refused(&COUNTS.replace("jitter: 10m", key));
        assert!(all[0].contains(reason) && all[0].contains("p.yaml:2:"), "{key}: {all:?}");
    }
    for key in ["timeout: 0s", "timeout: 3000d", "retry: { initial: 99999999999d }"] {
        assert!(refused(&format!("{COUNTS}{key}\n"))[0].starts_with("p.yaml:13:"), "{key}");
    }
    for key in ["interval: 0s", "stall_after: 999d", "restart: { max: 99999999999d }"] {
        let text = COUNTS.replace("schedule: { cron: '30 2 * * *', jitter: 10m }", &format!("continuous: {{ {key} }}"));
        assert!(refused(&text)[0].starts_with("p.yaml:2:"), "{key}");
    }
    // The command line comes through the same parser.
    let text = COUNTS.replace("type: list, items: string, default: []", "type: duration, default: 5s");
    let text = text.replace("types: '${{ params.types }}', settle: 60s", "settle: '${{ params.types }}'");
    let pipeline = resolved(&text).expect("a valid file");
    let overrides = parse_overrides(&["types=99999999999d".to_owned()]).expect("a pair");
    assert!(pipeline.params.resolve(&overrides).expect_err("too long")[0].reason.contains("longer than"));
}

/// Problems against entity configs of two types, with the schema of a stock site.
fn refused_with_entities(text: &str) -> Vec<String> {
    let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let cached = [
        ("Shot".to_owned(), fields(&["code", "sg_status_list", "updated_at", "sg_sequence", "sg_ours"])),
        ("Task".to_owned(), fields(&["content", "entity", "updated_at"])),
    ];
    let catalog = EntityCatalog::new(cached.into(), crate::sim::stock_schema(), false);
    let context = ResolveContext { entities: Some(std::sync::Arc::new(catalog)), ..resolve_context() };
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("valid YAML");
    let mut problems = Problems::new();
    resolve(&document, &context, &mut problems);
    problems.sorted().iter().map(ToString::to_string).collect()
}

#[test]
fn types_fields_filters_and_orders_are_checked_against_the_entity_configs() {
    let step = |with: &str| format!("name: a\nsteps:\n  - id: s\n    job: validateData\n    with:\n      {with}\n");
    for (with, said) in [
        ("types: [Shott]", "6:15: error[SG0610]: `Shott` is not a configured entity type (did you mean `Shot`?)"),
        ("types: [Shot]\n      fields: [code, cod]", "7:22: error[SG0611]: Shot.cod is not cached"),
        ("types: [Task]\n      ignore_fields: [code]", "7:23: error[SG0611]: Task.code is not cached"),
        ("types: [Shot]\n      filters: [[cod, is, x]]", "7:18: error[SG0611]: Shot has no field `cod`"),
        ("types: [Shot]\n      filters: [[code, is_nott, x]]", "7:24: error[SG0613]: "),
        ("types: [Shot]\n      filters: [[sg_status_list, greater_than, x]]", "7:34: error[SG0613]: "),
        ("types: [Shot]\n      filters: [[updated_at, in_last, 2]]", "7:30: error[SG0613]: "),
        ("types: [Shot]\n      filters: [[sg_ours, iss, 2]]", "there is no relation `iss` (did you mean `is`?)"),
        ("types: [Shot]\n      filters: [code]", "7:17: error[SG0612]: "),
        ("types: [Shot]\n      filters: [[sg_sequence.Sequense.code, is, x]]", "`Sequense`"),
        ("types: [Shot]\n      order: -cod", "7:14: error[SG0611]: "),
        ("exclude_types: [Taks]", "6:23: error[SG0610]: the site has no entity type `Taks`"),
        // Without types, every configured one must have the field.
        ("filters: [[code, is, x]]", "6:18: error[SG0611]: Task has no field `code`"),
        (
            "sample: { mode: rotate }\n      filters: [[updated_at, is, null]]",
            "7:7: error[SG0210]: `filters` has no effect",
        ),
        ("sample: { mode: rotate }\n      limit: 5", "7:7: error[SG0210]: `limit` has no effect"),
    ] {
        let all = refused_with_entities(&step(with));
        assert!(all.len() == 1 && all[0].contains(said), "{with}: {all:?}");
    }
    for with in [
        "types: [Shot]\n      filters: [[sg_ours, is, 2], [sg_sequence.Sequence.code, is, x]]",
        "types: [Shot, Task]\n      filters: [[updated_at, in_last, 2, DAY]]\n      order: -updated_at,id\n      fields: [updated_at]",
        "exclude_types: [Task]\n      filters: [[code, is, x]]",
        "types: [Shot]\n      filters: [{ filter_operator: any, filters: [[code, is, a], [code, contains, b]] }]",
    ] {
        assert_eq!(refused_with_entities(&step(with)), [""; 0], "{with}");
    }
}

#[test]
fn conditions_know_what_the_result_of_each_job_holds() {
    let with = |job: &str, condition: &str| {
        let steps = format!("  - {{ id: a, job: {job}, fail_when: \"{condition}\" }}");
        refused_with_entities(&format!("name: a\nsteps:\n{steps}\n"))
    };
    for (job, condition) in [
        ("validateCounts", "result.by_type.Shot.drift > 0"),
        ("validateData", "result.differs > 0 and result.checked == 0"),
        ("validateData", "result.by_type.Task.differs > 0"),
        ("purge", "result.outputs.purged > 5"),
        ("rebuild", "result.by_type.Shot.written == 0"),
        ("repair", "result.unresolved > 0"),
    ] {
        assert_eq!(with(job, condition), [""; 0], "{job}: {condition}");
    }
    for (job, condition, said) in [
        ("validateCounts", "result.differs > 0", "`result.differs` is not defined"),
        ("purge", "result.missing > 0", "`result.missing` is not defined"),
        ("rebuild", "result.drift > 0", "`result.drift` is not defined"),
        ("validateCounts", "result.by_type.Shott.drift > 0", "did you mean `result.by_type.Shot`?"),
    ] {
        let all = with(job, condition);
        assert!(all.len() == 1 && all[0].contains(said), "{job}: {condition}: {all:?}");
    }
}

#[test]
fn all_problems_of_a_file_come_in_one_pass() {
    let text = "naem: a\nschedule: { cron: '61 2 * * *', timezone: Europe/Pariss }\n\
                params: { n: { type: integer, default: many } }\nsteps:\n  \
                - { id: a, job: purge, timeout: 5, when: params.m > 0 }\n  \
                - { id: b, job: prune }\n  \
                - { job: purge }\n  \
                - { id: d, job: validateData, needs: [x], with: { limit: 0, types: [Shott, Shot], filters: [[cod, is, x]] } }\n\
                on_error: [{ notify: nobody, message: 'a {% if x %}' }]\nblackout: [lunch]\n";
    let found: Vec<(String, String)> = refused_with_entities(text)
        .iter()
        .map(|line| (line.split(": error").next().unwrap_or_default().to_owned(), line.clone()))
        .map(|(place, line)| (place, line.split(['[', ']']).nth(1).unwrap_or_default().to_owned()))
        .collect();
    let expected = [
        ("p.yaml:1:1", "SG0201"),
        ("p.yaml:1:1", "SG0203"),
        ("p.yaml:2:19", "SG0401"),
        ("p.yaml:2:43", "SG0402"),
        ("p.yaml:3:40", "SG0204"),
        ("p.yaml:5:35", "SG0202"),
        ("p.yaml:5:44", "SG0301"),
        ("p.yaml:6:19", "SG0205"),
        ("p.yaml:7:5", "SG0203"),
        ("p.yaml:8:41", "SG0503"),
        ("p.yaml:8:60", "SG0202"),
        ("p.yaml:8:71", "SG0610"),
        ("p.yaml:8:96", "SG0611"),
        ("p.yaml:9:22", "SG0605"),
        ("p.yaml:9:42", "SG0306"),
        ("p.yaml:10:12", "SG0606"),
    ];
    let expected: Vec<(String, String)> =
        expected.iter().map(|(place, code)| ((*place).to_owned(), (*code).to_owned())).collect();
    assert_eq!(found, expected);
}

#[test]
fn two_pipelines_cannot_follow_the_site() {
    let sync =
        |name: &str, more: &str| format!("name: {name}\n{more}continuous: {{}}\nsteps: [{{ id: a, job: sync }}]\n");
    let load_both = |second: &str| {
        let documents = [
            Document::yaml("a.yaml", sync("a", "").as_bytes()).expect("valid YAML"),
            Document::yaml("b.yaml", second.as_bytes()).expect("valid YAML"),
        ];
        load(&documents, "pipelines", &resolve_context(), Problems::new()).problems.to_string()
    };
    let said = load_both(&sync("b", ""));
    assert!(said.contains("b.yaml:2:1: error[SG0209]") && said.contains("a.yaml:1:7"), "{said}");
    assert_eq!(load_both(&sync("b", "enabled: false\n")), "");
}

#[test]
fn every_argument_of_every_job_changes_what_the_job_is() {
    let values = [
        ("sync", "once", json!(true)),
        ("import", "types", json!(["Shot"])),
        ("rebuild", "types", json!(["Shot"])),
        ("validateCounts", "types", json!(["Shot"])),
        ("validateCounts", "settle", json!("7s")),
        ("validateCounts", "locate", json!(7)),
        ("validateCounts", "repair", json!(true)),
        ("validateData", "types", json!(["Shot"])),
        ("validateData", "exclude_types", json!(["Shot"])),
        ("validateData", "filters", json!([["code", "is", "x"]])),
        ("validateData", "filter_operator", json!("any")),
        ("validateData", "order", json!("-id")),
        ("validateData", "fields", json!(["code"])),
        ("validateData", "ignore_fields", json!(["code"])),
        ("validateData", "limit", json!(7)),
        ("validateData", "page", json!(7)),
        ("validateData", "sample", json!({ "mode": "rotate" })),
        ("validateData", "settle", json!("7s")),
        ("validateData", "locate", json!(7)),
        ("validateData", "repair", json!(true)),
        ("repair", "from", json!("a")),
        ("repair", "max_rows", json!(7)),
        ("repair", "verify", json!(false)),
        ("generateEntityConfigs", "types", json!(["Shot"])),
        ("generateEntityConfigs", "mode", json!("write")),
        ("purge", "older_than", json!("9d")),
        ("pruneReports", "keep_runs", json!(7)),
        ("pruneReports", "keep_days", json!(7)),
        ("repair", "entities", json!("Shot 7")),
        ("repair", "run", json!("01K00000000000000000000000")),
        ("scan", "types", json!(["Shot"])),
        ("scan", "mode", json!("retired")),
        ("scan", "rows", json!(7)),
        ("deadLetters", "retry", json!(true)),
        ("export", "types", json!(["Shot"])),
        ("export", "format", json!("csv")),
        ("export", "file", json!("other")),
        ("export", "fields", json!(["code"])),
        ("export", "filters", json!([["id", "is", 7]])),
        ("export", "filter_operator", json!("any")),
    ];
    let document = Document::json("p.json", b"{}").expect("valid JSON");
    let parsed = |job: &str, arguments: serde_json::Value| {
        JobSpec::parse(job, &document, "", &arguments, &mut Problems::new()).expect("arguments that fit")
    };
    for job in JobSpec::NAMES {
        for key in JobSpec::arguments(job).expect("a job") {
            let value = values.iter().find(|(of, name, _)| (*of, *name) == (job, key.name));
            let (.., value) = value.unwrap_or_else(|| panic!("no value for {job}.{}", key.name));
            // What must be there has some value beside each other argument.
            let without = || if job == "export" { json!({ "file": "a" }) } else { json!({}) };
            let mut with = without();
            with[key.name] = value.clone();
            assert_ne!(parsed(job, with), parsed(job, without()), "{job}.{}", key.name);
        }
    }
}
