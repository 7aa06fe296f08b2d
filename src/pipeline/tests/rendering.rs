//! Tests of what is rendered when a file is loaded: labels, defaults and outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::resolve_context;
use crate::pipeline::*;
use crate::yaml::{Document, Problems, Templates};

const FILE: &str = "name: mine
labels: { team: \"${{ env('SGCACHE_TEAM', 'td') }}\", where: 'at ${{ site.name }}', plain: x }
params:
  limit: { type: integer, default: \"${{ env('SGCACHE_LIMIT', '5') | int }}\", max: 9 }
  types: { type: list, items: string, default: [Shot, \"${{ pipeline.labels.team }}\"] }
steps:
  - { id: a, job: validateData, with: { types: '${{ params.types }}', limit: '${{ params.limit }}' } }
always: [{ notify: td-slack, message: '${{ pipeline.labels.where }} ${{ params.limit }}' }]
outputs: { elasticsearch: { index: 'of_${{ pipeline.labels.team }}' } }
";

fn context(environment: &[(&str, &str)]) -> ResolveContext {
    let environment: BTreeMap<_, _> =
        environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    ResolveContext { templates: Templates::new(&environment), ..resolve_context() }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Pipeline, String> {
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    let mut problems = Problems::new();
    let pipeline = resolve(&document, &context(environment), &mut problems);
    pipeline.filter(|_| problems.is_empty()).ok_or_else(|| problems.to_string())
}

#[test]
fn labels_defaults_and_outputs_are_rendered_with_what_is_known_before_a_run() {
    let pipeline = load(FILE, &[]).expect("a valid file");
    let labels: Vec<_> = pipeline.labels.iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(labels, ["plain=x", "team=td", "where=at studio"]);
    let params = pipeline.params.resolve(&BTreeMap::new()).expect("defaults");
    assert_eq!((&params["limit"], &params["types"]), (&json!(5), &json!(["Shot", "td"])));
    assert_eq!(pipeline.outputs.index.as_deref(), Some("of_td"));

    let other = load(FILE, &[("SGCACHE_TEAM", "fx"), ("SGCACHE_LIMIT", "7")]).expect("a valid file");
    assert_eq!((other.labels["team"].as_str(), other.outputs.index.as_deref()), ("fx", Some("of_fx")));
    assert_eq!(other.params.resolve(&BTreeMap::new()).expect("defaults")["limit"], 7);
    assert_ne!(pipeline.hash, other.hash, "a reload takes it over");
    assert_eq!(pipeline.hash, load(FILE, &[]).expect("a valid file").hash);
}

#[test]
fn what_is_rendered_before_a_run_is_checked_when_the_file_is_loaded() {
    for (from, to, expected) in [
        ("site.name", "site.nam", "error[SG0301]: `site.nam` is not defined"),
        ("at ${{ site.name }}", "${{ pipeline.labels.plain }}", "error[SG0301]: `pipeline.labels` is not defined"),
        ("at ${{ site.name }}", "${{ params.limit }}", "error[SG0301]: `params` is not defined"),
        ("at ${{ site.name }}", "${{ none }}", "error[SG0303]"),
        ("'5') | int }}", "'5') }}", "error[SG0204]: parameter `limit`: \"5\" is not a whole number"),
        ("'5') | int }}", "'50') | int }}", "error[SG0204]: parameter `limit`: 50 is more than 9"),
        ("'5') | int }}", "'5') | imt }}", "error[SG0302]"),
        ("pipeline.labels.team }}\"]", "run.id }}\"]", "error[SG0301]: `run` is not defined"),
        ("of_${{", "of-${{", "error[SG0202]: `of-td` is not the name of an index"),
        ("of_${{ pipeline.labels.team", "of_${{ params.limit", "error[SG0301]: `params` is not defined"),
        ("', 'td') }}", "') }}", "the environment variable `SGCACHE_TEAM` is not set"),
    ] {
        assert!(FILE.contains(from), "{from}");
        let problems = load(&FILE.replace(from, to), &[]).expect_err("a problem");
        assert!(problems.contains(expected), "{to}: no {expected} in\n{problems}");
    }
}

#[test]
fn a_rehearsal_renders_them_in_the_environment_of_the_test() {
    let text = format!(
        "{FILE}tests:
  - {{ name: as it is, expect: {{ messages: ['at studio 5'] }} }}
  - {{ name: elsewhere, env: {{ SGCACHE_LIMIT: '8' }}, expect: {{ messages: ['at studio 8'] }} }}
  - {{ name: too many, env: {{ SGCACHE_LIMIT: '80' }}, expect: {{ status: ok }} }}
"
    );
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    // The environment of the test, not this one, counts.
    let context = context(&[("SGCACHE_LIMIT", "9")]);
    let mut problems = Problems::new();
    let pipeline = Arc::new(resolve(&document, &context, &mut problems).expect("a valid file"));
    let found = rehearse(&document, &pipeline, &context, "");
    let differences: Vec<String> = found.iter().map(|one| one.differences.to_string()).collect();
    assert_eq!((differences[0].as_str(), differences[1].as_str()), ("", ""));
    assert!(differences[2].contains("80 is more than 9"), "{}", differences[2]);
}

#[test]
fn days_ago_counts_from_the_start_of_the_run() {
    let text = "name: p
steps: [{ id: a, job: validateData, with: { filters: [[updated_at, greater_than, '${{ 7 | days_ago }}']] } }]
always: [{ notify: td-slack, message: '${{ 1.5 | days_ago }} ${{ run.started_at | isoformat }}' }]
tests:
  - name: a run
    now: 2026-03-02T12:00:00+01:00
    expect: { messages: ['2026-02-28T23:00:00Z 2026-03-02T11:00:00Z'] }
";
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    let mut problems = Problems::new();
    let pipeline = resolve(&document, &resolve_context(), &mut problems).unwrap_or_else(|| panic!("{problems}"));
    let found = rehearse(&document, &Arc::new(pipeline), &resolve_context(), "");
    assert!(found[0].differences.is_empty(), "{}", found[0].differences);
    let wrong = text.replace("1.5 | days_ago", "site.name | days_ago");
    let problems = load(&wrong, &[]).expect_err("a problem");
    assert!(problems.contains("`days_ago` needs a number of days, 0 to 36500"), "{problems}");
}
