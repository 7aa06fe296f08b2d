//! `sgcache pipelines test`: runs the `tests` of pipeline files, offline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::Failure;
use super::super::context::load_config;
use super::super::output::{Output, drawn};
use super::super::pipeline_files::resolve_context_with_entities;
use crate::pipeline::{self, Pipeline, Rehearsal, ResolveContext, load, read_documents, rehearse};
use crate::yaml::{Document, Problems, did_you_mean};

/// The exit code when there was no test to run.
const NOTHING_RAN: u8 = 12;

#[derive(Debug, clap::Args)]
pub struct TestArgs {
    /// Pipelines by name, pipeline files, or directories of them [default: all pipelines]
    #[arg(value_name = "NAME|PATH")]
    chosen: Vec<String>,
    /// Run only tests whose name contains this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &TestArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let context = resolve_context_with_entities(&config).await;
    let mut rehearsals = Vec::new();
    for (document, pipeline) in chosen(&args.chosen, &config.pipelines_dir(), &context)? {
        rehearsals.extend(rehearse(&document, &pipeline, &context, &args.filter));
    }
    match args.output {
        Output::Table => print(&rehearsals),
        Output::Json => println!("{}", rehearsals.iter().map(to_json).collect::<Value>()),
        Output::Ndjson => rehearsals.iter().for_each(|one| println!("{}", to_json(one))),
    }
    let mut differences = Problems::new();
    rehearsals.iter().for_each(|one| differences.extend(one.differences.clone()));
    if !differences.is_empty() {
        eprintln!("{}", drawn(&differences));
        return Ok(Failure::CONFIG);
    }
    if rehearsals.is_empty() {
        eprintln!("there is no such test: a pipeline file holds them under `tests`");
        return Ok(NOTHING_RAN);
    }
    Ok(0)
}

/// Returns the files that are chosen, with their pipelines. Files beside them may have
/// errors.
pub(super) fn chosen(
    chosen: &[String],
    pipelines_dir: &Path,
    context: &ResolveContext,
) -> Result<Vec<(Document, Arc<Pipeline>)>, Failure> {
    let mut files = Vec::new();
    if chosen.is_empty() {
        files.extend(resolved(pipelines_dir, context, |_| true)?);
    }
    for word in chosen {
        let path = PathBuf::from(word);
        if path.exists() {
            files.extend(resolved(&path, context, |_| true)?);
            continue;
        }
        let of_name = resolved(pipelines_dir, context, |document| named(document) == Some(word))?;
        if of_name.is_empty() {
            return Err(unknown(word, pipelines_dir));
        }
        files.extend(of_name);
    }
    Ok(files)
}

fn resolved(
    path: &Path,
    context: &ResolveContext,
    wanted: impl Fn(&Document) -> bool,
) -> Result<Vec<(Document, Arc<Pipeline>)>, Failure> {
    let (documents, problems) = read_documents(path);
    let documents: Vec<Document> = documents.into_iter().filter(wanted).collect();
    let loaded = load(&documents, &path.display().to_string(), context, problems);
    if loaded.problems.has_errors() {
        return Err(Failure::problems(loaded.problems));
    }
    let pipeline_of = |document: Document| {
        let pipeline = pipeline::find(&loaded.pipelines, named(&document)?).ok()?.clone();
        Some((document, pipeline))
    };
    Ok(documents.into_iter().filter_map(pipeline_of).collect())
}

fn named(document: &Document) -> Option<&str> {
    document.value().get("name").and_then(Value::as_str)
}

fn unknown(word: &str, pipelines_dir: &Path) -> Failure {
    let (documents, _) = read_documents(pipelines_dir);
    let names: Vec<&str> = documents.iter().filter_map(named).collect();
    let help = did_you_mean(word, &names).map_or(String::new(), |help| format!(" ({help})"));
    Failure::usage(format!("there is no pipeline and no file `{word}`{help}"))
}

fn print(rehearsals: &[Rehearsal]) {
    let mut of = None;
    for rehearsal in rehearsals {
        if of.replace(&rehearsal.pipeline) != Some(&rehearsal.pipeline) {
            println!("{}", rehearsal.pipeline);
        }
        let word = if rehearsal.differences.is_empty() { "ok" } else { "FAIL" };
        println!("  {word:<5} {}", rehearsal.test);
    }
    let failed = rehearsals.iter().filter(|one| !one.differences.is_empty()).count();
    println!("{} passed, {failed} failed", rehearsals.len() - failed);
}

fn to_json(rehearsal: &Rehearsal) -> Value {
    json!({
        "pipeline": rehearsal.pipeline,
        "test": rehearsal.test,
        "passed": rehearsal.differences.is_empty(),
        "differences": rehearsal.differences.to_json(),
    })
}
