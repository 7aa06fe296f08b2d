//! `--dry-run`: what runs would ask and do. Neither the site nor the store is touched.

use std::sync::Arc;

use serde_json::Value;

use super::Failure;
use super::context::entity_config_files;
use super::output::{Output, number, step_words, wrapped};
use super::pipeline_files::{open_state, resolve_context_with_entities, usual_runs};
use crate::config::Config;
use crate::pipeline::{DryRun, DryStep, Pipeline, RunOrder, Typical};
use crate::yaml::{self, format_duration};

/// Prints what these runs would do.
///
/// # Errors
///
/// When the entity configs cannot be read.
pub async fn print(config: &Config, orders: Vec<(Arc<Pipeline>, RunOrder)>, output: Output) -> Result<u8, Failure> {
    let context = resolve_context_with_entities(config).await;
    let files = entity_config_files(config)?;
    let types: Vec<String> = files.iter().map(|file| file.entity_type.to_string()).collect();
    // What usually happens is no more than an addition.
    let state = open_state(config).await.ok().flatten();
    let mut documents = Vec::new();
    for (pipeline, order) in orders {
        let run = DryRun::of(&pipeline, &context, order, &types).await;
        let usual = match &state {
            Some(state) => usual_runs(state, &pipeline.name).await,
            None => None,
        };
        match output {
            Output::Table => print_text(&run, usual.as_ref(), types.len()),
            Output::Ndjson => println!("{}", document(&run, usual.as_ref())),
            Output::Json => documents.push(document(&run, usual.as_ref())),
        }
    }
    if output == Output::Json {
        println!("{}", Value::Array(documents));
    }
    Ok(0)
}

fn document(run: &DryRun, usual: Option<&Typical>) -> Value {
    let mut document = yaml::to_json(run);
    if let Some(map) = document.as_object_mut() {
        map.insert("typical".to_owned(), yaml::to_json(&usual));
    }
    document
}

fn print_text(run: &DryRun, usual: Option<&Typical>, configured: usize) {
    println!("{}: nothing is asked and nothing is written", run.pipeline);
    for step in &run.steps {
        print_step(step, configured);
    }
    if !run.on_drift.is_empty() {
        println!("  after drift: {}", run.on_drift.join(", "));
    }
    for (key, hooks) in &run.hooks {
        println!("  {key}: {}", hooks.join(", "));
    }
    match usual {
        Some(usual) => {
            let (requests, takes) = (number(usual.median_requests), usual.duration().to_std().unwrap_or_default());
            println!("  usually: {requests} requests in {} ({} runs)", format_duration(takes), usual.runs);
        }
        None => println!("  usually: not known before its first run"),
    }
}

fn print_step(step: &DryStep, configured: usize) {
    let name = step_words(&step.id, &step.job);
    if let Some(reason) = &step.left_out {
        return println!("  {name}  does not run: {reason}");
    }
    let requests = step.least_requests.map(|requests| format!("  at least {} requests", number(requests)));
    println!("  {name}{}", requests.unwrap_or_default());
    let types = match step.types.len() {
        0 => String::new(),
        all if all == configured => format!("all {all}"),
        _ => step.types.join(", "),
    };
    if !types.is_empty() {
        wrapped("      types  ", &types).iter().for_each(|line| println!("{line}"));
    }
    for (name, value) in step.with.as_object().into_iter().flatten().filter(|(name, _)| *name != "types") {
        let words = match value {
            Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        wrapped(&format!("      {name}  "), &words).iter().for_each(|line| println!("{line}"));
    }
}
