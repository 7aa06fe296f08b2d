//! `sgcache pipelines show`: everything that applies to a pipeline and where it comes
//! from, or everything that is known about a run.

use std::path::Path;

use chrono_tz::Tz;
use serde_json::Value;

use super::super::context::{environment, load_config};
use super::super::output::{self, Output};
use super::super::pipeline_files::{in_zone, open_state, resolve_context_with_entities};
use super::super::{Failure, job_report};
use super::test::chosen;
use crate::config::{self, Config};
use crate::pipeline::{Setting, Sources, effective_settings, parse_overrides};
use crate::report::{RunReport, history};
use crate::server::Span;
use crate::yaml::{self, Document};

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// A pipeline, or the id of a run
    #[arg(add = super::super::completion::pipelines())]
    #[arg(value_name = "NAME|RUN")]
    name: String,
    /// Replace expressions that need no run by their values
    #[arg(long)]
    rendered: bool,
    /// Show where each value comes from
    #[arg(long)]
    origin: bool,
    /// A parameter, for --rendered
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &ShowArgs, chosen_config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(chosen_config)?;
    if let Some(report) = find_run(&config, &args.name).await? {
        return print_run(&report, config.timezone, args.output);
    }
    let context = resolve_context_with_entities(&config).await;
    let files = chosen(std::slice::from_ref(&args.name), &config.pipelines_dir(), &context)?;
    let path = config::locate(chosen_config, &environment());
    let config_document = Document::read(&path, &path.display().to_string()).map_err(Failure::problems)?;
    let overrides = parse_overrides(&args.set).map_err(Failure::usage)?;
    for (document, pipeline) in &files {
        let typed = pipeline.params.resolve(&overrides).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::usage(all.join("\n"))
        })?;
        let set = typed.into_iter().filter(|(name, _)| overrides.contains_key(name)).collect();
        let sources = Sources { document, config: &config_document, pipeline, context: &context, set: &set };
        print_settings(&effective_settings(&sources, args.rendered), args);
    }
    Ok(0)
}

fn print_settings(settings: &[Setting], args: &ShowArgs) {
    match (args.output, args.origin) {
        (Output::Json, _) => println!("{}", settings.iter().map(yaml::to_json).collect::<Value>()),
        (Output::Ndjson, _) => settings.iter().for_each(|one| println!("{}", yaml::to_json(one))),
        (Output::Table, true) => {
            let mut table = output::table(["key", "value", "from"]);
            for one in settings {
                table.add_row([one.key.clone(), output::cell(&one.value), one.origin.to_string()]);
            }
            println!("{table}");
        }
        (Output::Table, false) => {
            let mut table = output::table(["key", "value"]);
            for one in settings {
                table.add_row([one.key.clone(), output::cell(&one.value)]);
            }
            println!("{table}");
        }
    }
}

/// Returns the run of an id; `None` for what is not the id of a run.
pub(super) async fn find_run(config: &Config, id: &str) -> Result<Option<RunReport>, Failure> {
    let Some(state) = open_state(config).await? else { return Ok(None) };
    history::close_abandoned(&state).await?;
    Ok(history::run(&state, id).await?)
}

fn print_run(report: &RunReport, zone: Tz, form: Output) -> Result<u8, Failure> {
    if form != Output::Table {
        println!("{}", yaml::to_json(report));
        return Ok(0);
    }
    println!("{}", run_lines(report, zone).join("\n"));
    job_report::print(report, form)?;
    Ok(0)
}

/// What a report says beside the results of its steps.
fn run_lines(report: &RunReport, zone: Tz) -> Vec<String> {
    let status = if report.is_running() { "running".to_owned() } else { report.status.to_string() };
    let mut lines = vec![format!("{} of {}: {status}", report.run_id, report.pipeline)];
    let mut add = |name: &str, text: String| lines.push(format!("  {name:<10}{text}"));
    if let Some(reason) = &report.reason {
        add("reason", reason.clone());
    }
    let due = report.scheduled_for.map(|due| format!(", due {}", in_zone(Some(due), zone)));
    add("trigger", format!("{}{}", report.trigger, due.unwrap_or_default()));
    if let Some(other) = &report.waited_for {
        add("waited", format!("for {other}"));
    }
    add("started", in_zone(Some(report.started_at), zone));
    if !report.is_running() {
        add("took", format!("{}, {} requests", Span(report.duration_seconds()), output::number(report.requests)));
    }
    add("by", format!("{}, sgcache {}", report.instance, report.version));
    add("log", format!("sgcache pipelines logs {}", report.run_id));
    for (name, value) in &report.params {
        add("param", format!("{name} = {value}"));
    }
    for step in &report.steps {
        let error = step.error.as_ref().map(|error| format!(": {} ({})", error.message, error.class));
        let tried = if step.attempts > 1 { format!(", {} attempts", step.attempts) } else { String::new() };
        let reason = step.reason.as_ref().filter(|_| step.error.is_none()).map(|reason| format!(": {reason}"));
        let took = Span(step.duration_seconds);
        let why = error.or(reason).unwrap_or_default();
        add("step", format!("{} ({}) {} in {took}{tried}{why}", step.id, step.job, step.status));
    }
    for hook in &report.hooks {
        let end = hook.error.as_ref().map_or_else(|| hook.message.clone(), |error| format!("failed: {error}"));
        add("hook", format!("{}: {end}", hook.target));
    }
    lines
}
