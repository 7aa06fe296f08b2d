//! Codes of diagnostics: every code that the program uses is explained, the examples of
//! the reference are what they say, and programs can read what `validate` finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sgcache::config::Config;
use sgcache::entity_config::EntityConfigFile;
use sgcache::entity_config_files;
use sgcache::pipeline::{
    Blackout, Defaults, EntityCatalog, LintFacts, Loaded, ResolveContext, Schedule, Site, lint, load,
};
use sgcache::sim::stock_schema;
use sgcache::yaml::{Document, Problems, Templates};

use crate::program::Place;
use crate::prometheus::repository;
use crate::source_files::{all_sources, is_test};

/// An example of the reference.
struct Example {
    code: String,
    kind: String,
    is_right: bool,
    text: String,
}

fn reference() -> String {
    std::fs::read_to_string(repository("docs/reference/errors.md")).expect("the reference")
}

fn sections(reference: &str) -> Vec<(String, String)> {
    let section = |text: &str| {
        let (heading, body) = text.split_once('\n').expect("a heading");
        (heading.split_once(": ").expect("a code and a title").0.to_owned(), body.to_owned())
    };
    reference.split("\n## ").skip(1).map(section).collect()
}

fn examples(reference: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    for (code, body) in sections(reference) {
        for block in body.split("\n```yaml ").skip(1) {
            let (info, rest) = block.split_once('\n').expect("a block");
            let (kind, word) = info.split_once(' ').expect("a kind, and whether it is right");
            let text = rest.split("```").next().unwrap_or_default().to_owned();
            examples.push(Example { code: code.clone(), kind: kind.to_owned(), is_right: word == "right", text });
        }
    }
    examples
}

pub fn resolve_context() -> ResolveContext {
    let begins = Schedule::new(vec!["0 10 * * MON-FRI".to_owned()], false, chrono_tz::UTC).expect("a schedule");
    let (duration, action) = (Duration::from_secs(5400), sgcache::pipeline::BlackoutAction::Defer);
    let dailies = Blackout { name: "dailies".to_owned(), begins, duration, action };
    let (files, _) = entity_config_files::read_all(&repository("entityConfig")).expect("entity configs");
    let fields = |file: &EntityConfigFile| file.config.fields.keys().cloned().collect();
    let cached = files.iter().map(|file| (file.entity_type.to_string(), fields(file))).collect();
    ResolveContext {
        timezone: chrono_tz::UTC,
        defaults: Defaults::default(),
        site: Site { name: "studio".to_owned(), url: "https://studio.example".to_owned() },
        blackouts: [("dailies".to_owned(), dailies)].into(),
        notifiers: ["td-slack".to_owned()].into(),
        entities: Some(Arc::new(EntityCatalog::new(cached, stock_schema(), false))),
        templates: Templates::new(&BTreeMap::new()),
    }
}

/// Everything that is found in an example.
fn problems_of(example: &Example) -> Problems {
    let document = match Document::yaml("example.yaml", example.text.as_bytes()) {
        Ok(document) => document,
        Err(problems) => return problems,
    };
    match example.kind.as_str() {
        "pipeline" => {
            let (documents, context) = ([document], resolve_context());
            let Loaded { pipelines, mut problems } = load(&documents, "example.yaml", &context, Problems::new());
            let now = "2026-01-10T00:00:00Z".parse().expect("an instant");
            let facts = LintFacts { now, durations: &BTreeMap::new(), templates: &context.templates };
            lint(&documents, &pipelines, &facts, &mut problems);
            problems
        }
        "config" => match Config::resolve(&document, Path::new("example.yaml"), &BTreeMap::new()) {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems,
        },
        other => panic!("{}: there are no examples of kind `{other}`", example.code),
    }
}

#[test]
fn the_examples_of_the_reference_are_what_they_say() {
    let examples = examples(&reference());
    assert!(examples.len() > 50, "only {} examples were found", examples.len());
    for example in examples {
        let problems = problems_of(&example);
        let codes: BTreeSet<&str> = problems.sorted().iter().map(|problem| problem.code).collect();
        let expected: BTreeSet<&str> = if example.is_right { BTreeSet::new() } else { [example.code.as_str()].into() };
        assert_eq!(codes, expected, "{} {}:\n{}\n{problems}", example.code, example.kind, example.text);
    }
}

#[test]
fn every_code_in_use_is_explained_and_means_one_thing() {
    let mut used = BTreeSet::new();
    for file in all_sources().iter().filter(|file| !is_test(file)) {
        let text = std::fs::read_to_string(repository("").join(file)).expect("a file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        for rest in text.split("\"SG0").skip(1) {
            used.insert(format!("SG0{}", rest.split('"').next().unwrap_or_default()));
        }
    }
    let sections = sections(&reference());
    let explained: BTreeSet<String> =
        sections.iter().map(|(code, _)| code.clone()).filter(|code| code.starts_with("SG")).collect();
    assert_eq!(used, explained);
    assert_eq!(
        sections.len(),
        sections.iter().map(|(code, _)| code).collect::<BTreeSet<_>>().len(),
        "codes are unique"
    );
    for (code, body) in &sections {
        assert!(body.contains("**Remedy:**"), "{code} has no remedy");
    }
    for class in sgcache::pipeline::ErrorClass::NAMES {
        assert!(sections.iter().any(|(code, _)| code == class), "`{class}` is not explained");
    }
}

#[test]
fn a_code_is_explained_at_the_command_line() {
    let place = Place::new();
    let text = place.run(&["explain-error", "sg0205"]).expect_code(0).stdout;
    assert!(text.starts_with("SG0205: unknown job\n") && text.contains("Remedy:") && text.contains("wrong:\n    name"));
    assert!(place.run(&["explain-error", "unavailable"]).expect_code(0).stdout.contains("exit code is 69"));
    assert!(place.run(&["explain-error"]).expect_code(0).stdout.contains("SG0901"));
    place.run(&["explain-error", "SG9999"]).expect_code(2).says(&["there is no code `SG9999`"]);
}

#[test]
fn programs_can_read_what_validate_finds() {
    let place = Place::new();
    place.edit("pipelines/sync.yaml", "job: sync", "job: snyc");
    std::fs::write(place.path("entityConfig/Shot.json"), "{\"feilds\": {}}").expect("a file");
    let json = place.run(&["pipelines", "validate", "--format", "json"]).expect_code(78).json();
    let found = json["diagnostics"].as_array().expect("a list");
    let of = |code: &str| found.iter().find(|one| one["code"] == code).unwrap_or_else(|| panic!("{code}: {json}"));
    assert_eq!((&json["errors"], &of("SG0102")["line"], &of("SG0102")["column"]), (&2.into(), &1.into(), &9.into()));
    assert!(of("SG0205")["file"].as_str().is_some_and(|file| file.ends_with("pipelines/sync.yaml")));

    let sarif = place.run(&["pipelines", "validate", "--format", "sarif"]).expect_code(78).json();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(sarif["runs"][0]["results"].as_array().map(Vec::len), Some(2), "{sarif}");
    let annotations = place.run(&["pipelines", "validate", "--format", "github"]).expect_code(78).stdout;
    assert!(annotations.lines().all(|line| line.starts_with("::error file=")), "{annotations}");

    // A path chooses what is checked, and warnings can be denied.
    let place = Place::new();
    place.edit("pipelines/sync.yaml", "job: sync", "job: snyc");
    place.run(&["pipelines", "validate", "pipelines/nightly-counts.yaml"]).expect_code(0).says(&["fine, with 1 "]);
    place.run(&["pipelines", "validate", "pipelines/sync.yaml"]).expect_code(78).says(&["snyc"]);
    let unused = "name: mine\nparams: { most: { type: integer, default: 0 } }\nsteps: [{ id: a, job: purge }]\n";
    std::fs::write(place.path("mine.yaml"), unused).expect("a file");
    place.run(&["pipelines", "validate", "mine.yaml"]).expect_code(0).says(&["SG0305"]);
    place.run(&["pipelines", "validate", "mine.yaml", "--deny-warnings"]).expect_code(11);
    place.run(&["pipelines", "validate", "no-such.yaml"]).expect_code(78).says(&["SG0100", "no-such.yaml"]);
}
