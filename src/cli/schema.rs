//! `sgcache schema`: JSON Schemas of the files that people edit, made from the shapes that
//! the program itself checks them by.

use serde_json::{Value, json};

use super::Failure;
use crate::config;
use crate::pipeline::{JobSpec, file};
use crate::yaml::{SchemaOptions, Shape};

/// The descriptions of keys: `docs/reference/`.
const PIPELINE_KEYS: &str = include_str!("../../docs/reference/pipeline.md");
const CONFIG_KEYS: &str = include_str!("../../docs/reference/config.md");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The kind of file
    #[arg(value_enum)]
    kind: Kind,
}

/// What files there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// config.yaml
    Config,
    /// A file in pipelines/
    Pipeline,
    /// A file in entityConfig/
    EntityConfig,
}

/// Prints the schema of a kind of file.
///
/// # Errors
///
/// Never in practice: a schema is plain data.
pub fn run(args: &Args) -> Result<u8, Failure> {
    let schema = match args.kind {
        Kind::Config => config_schema(),
        Kind::Pipeline => pipeline_schema(),
        Kind::EntityConfig => entity_config_schema(),
    };
    let text = serde_json::to_string_pretty(&schema).map_err(|error| Failure::internal(error.to_string()))?;
    println!("{text}");
    Ok(0)
}

/// Returns what a reference says about a key: the text of its entry, on one line.
fn described(reference: &str, path: &str) -> Option<String> {
    let entry = format!("\n- `{path}`: ");
    let (_, rest) = reference.split_once(&entry)?;
    let lines = rest.lines().enumerate().take_while(|(at, line)| *at == 0 || line.starts_with("  "));
    let words: Vec<&str> = lines.map(|(_, line)| line.trim()).collect();
    Some(words.join(" "))
}

fn describe(path: &str) -> Option<String> {
    described(PIPELINE_KEYS, path)
}

/// Returns the same of a key of `config.yaml`. What a secret and a cluster are is described
/// once, for all places that take one.
fn describe_setting(path: &str) -> Option<String> {
    let alike = path.strip_prefix("reports.elasticsearch.").map(|key| format!("store.{key}"));
    let last = path.rsplit('.').next().filter(|last| matches!(*last, "env" | "file" | "secret" | "value"));
    let of_secret = || described(CONFIG_KEYS, &format!("secrets.*.{}", last?));
    described(CONFIG_KEYS, path).or_else(|| described(CONFIG_KEYS, &alike?)).or_else(of_secret)
}

fn titled(mut schema: Value, title: &str) -> Value {
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(title);
    schema
}

/// Returns the schema of a file in `pipelines/`.
pub fn pipeline_schema() -> Value {
    let mut schema = file::SHAPE.json_schema("", SchemaOptions { describe: &describe, expressions: false });
    let jobs = JobSpec::NAMES.into_iter().map(|job| {
        let is_job = json!({ "properties": { "job": { "const": job } } });
        json!({ "if": is_job, "then": { "properties": { "with": arguments(job) } } })
    });
    let all_of: Vec<Value> = jobs.collect();
    let steps = &mut schema["properties"]["steps"]["items"];
    steps["properties"]["job"]["enum"] = json!(JobSpec::NAMES);
    steps["allOf"] = json!(all_of);
    schema["properties"]["on_drift"]["items"]["properties"]["with"] = arguments("repair");
    titled(schema, "sgcache pipeline")
}

/// The arguments of a job, whose values may be expressions.
fn arguments(job: &str) -> Value {
    let keys = JobSpec::arguments(job).unwrap_or_default();
    let options = SchemaOptions { describe: &describe, expressions: true };
    Shape::Object(keys).json_schema(&format!("with.{job}"), options)
}

fn config_schema() -> Value {
    titled(
        config::file::SHAPE.json_schema("", SchemaOptions { describe: &describe_setting, expressions: false }),
        "sgcache config.yaml",
    )
}

fn entity_config_schema() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["fields"],
        "additionalProperties": false,
        "properties": {
            "fields": {
                "type": "object",
                "description": "the cached fields by name",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "mapping": { "description": "an Elasticsearch mapping in place of the one for the data type" },
                    },
                },
            },
            "filters": {
                "type": "array",
                "description": "conditions, as find() of shotgun_api3 takes them; only entities that pass are cached",
            },
            "optional": {
                "type": "boolean",
                "description": "whether what the site lacks of it is left out with a warning (default false)",
            },
        },
    });
    titled(schema, "sgcache entity config")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The keys that the entries of a reference are about.
    fn entries(reference: &str) -> BTreeSet<String> {
        let entries = reference.lines().filter_map(|line| line.strip_prefix("- `"));
        entries.filter_map(|entry| entry.split_once("`: ")).map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn every_setting_is_described_and_no_other() {
        let known: BTreeSet<String> = config::file::SHAPE.paths("").into_iter().collect();
        let silent: Vec<&String> = known.iter().filter(|path| describe_setting(path).is_none()).collect();
        let entries = entries(CONFIG_KEYS);
        let unknown: Vec<&String> = entries.difference(&known).collect();
        assert!(silent.is_empty() && unknown.is_empty(), "not described: {silent:?}, unknown: {unknown:?}");
        assert!(known.len() > 100, "only {} keys", known.len());
    }

    #[test]
    fn the_reference_describes_every_key_and_no_other() {
        let mut known: BTreeSet<String> = file::SHAPE.paths("").into_iter().collect();
        for job in JobSpec::NAMES {
            let keys = JobSpec::arguments(job).expect("a job");
            known.extend(Shape::Object(keys).paths(&format!("with.{job}")));
        }
        let described = entries(PIPELINE_KEYS);
        let missing: Vec<&String> = known.difference(&described).collect();
        let unknown: Vec<&String> = described.difference(&known).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, unknown: {unknown:?}");
        assert!(known.len() > 100, "only {} keys", known.len());
    }

    #[test]
    fn an_entry_of_several_lines_is_one_description() {
        let fail_when = describe("steps[].fail_when").expect("an entry");
        assert!(fail_when.ends_with("validations, `result.unresolved > 0` for repairs)"), "{fail_when}");
    }
}
