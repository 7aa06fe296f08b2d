//! `sgcache pipelines`: runs and inspects what is in `pipelines/`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Failure;
use super::context::{Online, SiteAtStart, entity_config_files, load_config};
use super::daemon::{Daemon, interrupted};
use super::engine::resolve_context;
use super::output::{self, Output};
use super::pause::{self, PauseArgs, ResumeArgs};
use crate::config::Config;
use crate::pipeline::{self, Pauses, Pipeline, RunOrder, worst_exit_code};
use crate::report::{RunReport, Trigger};
use crate::server::Control;
use crate::state::State;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow the site and run the pipelines, until told to stop
    Run(RunArgs),
    /// List the pipelines, how they last ended and when they start next
    List(OutputArgs),
    /// Check config.yaml, the entity configs and every pipeline; nothing is asked of the site
    Validate,
    /// List runs, newest first
    History(HistoryArgs),
    /// Start a pipeline in the running daemon
    Trigger(TriggerArgs),
    /// Keep pipelines from starting by themselves; what is due meanwhile is left out
    Pause(PauseArgs),
    /// End a pause
    Resume(ResumeArgs),
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Only these pipelines
    names: Vec<String>,
    /// Run them now, one after the other, and end with their exit code
    #[arg(long)]
    once: bool,
    /// A parameter of the pipelines that have it
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// The form of the reports of --once
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct OutputArgs {
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Only runs of this pipeline or job
    pipeline: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The pipeline
    name: String,
    /// A parameter
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// Return once it runs, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// The form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(command: Command, config: Option<&Path>) -> Result<u8, Failure> {
    match command {
        Command::Run(args) if args.once => once(args, config).await,
        Command::Run(args) => {
            let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
            let daemon = Daemon::start(load_config(config)?, args.names, overrides).await?;
            daemon.run_until(interrupted()).await?;
            Ok(0)
        }
        Command::List(args) => list(&args, config).await,
        Command::Validate => validate(config),
        Command::History(args) => history(&args, config).await,
        Command::Trigger(args) => trigger(args, config).await,
        Command::Pause(args) => pause::pause(&args, config).await,
        Command::Resume(args) => pause::resume(&args, config).await,
    }
}

/// Loads every pipeline beside `config.yaml`.
///
/// # Errors
///
/// All problems of all files, drawn.
pub fn load(config: &Config) -> Result<Vec<Arc<Pipeline>>, Failure> {
    match pipeline::load_directory(&config.pipelines_dir(), &resolve_context(config)) {
        Ok((pipelines, warnings)) => {
            if !warnings.is_empty() {
                eprintln!("{warnings}");
            }
            Ok(pipelines)
        }
        Err(problems) => Err(Failure::config(problems.to_string())),
    }
}

/// Chooses pipelines by name; no name is every enabled one.
///
/// # Errors
///
/// Words about a name that is not there.
pub fn selected(pipelines: Vec<Arc<Pipeline>>, names: &[String]) -> Result<Vec<Arc<Pipeline>>, Failure> {
    if names.is_empty() {
        return Ok(pipelines.into_iter().filter(|pipeline| pipeline.enabled).collect());
    }
    names.iter().map(|name| pipeline::find(&pipelines, name).cloned().map_err(Failure::usage)).collect()
}

async fn once(args: RunArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = selected(load(&config)?, &args.names)?;
    let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
    let engine = super::engine::Engine::new(
        Online::open(config, SiteAtStart::Required).await?,
        crate::sync::Settings::default(),
    )?;
    let mut reports: Vec<RunReport> = Vec::new();
    for pipeline in &pipelines {
        let params = resolve_params(pipeline, &overrides)?;
        let report = engine.run(pipeline, RunOrder { params, ..RunOrder::new(Trigger::Cli) }).await?;
        super::job::print(&report, args.output)?;
        reports.push(report);
    }
    engine.finish().await;
    Ok(worst_exit_code(&reports, false))
}

fn resolve_params(
    pipeline: &Pipeline,
    overrides: &std::collections::BTreeMap<String, String>,
) -> Result<std::collections::BTreeMap<String, Value>, Failure> {
    pipeline.params.resolve(overrides).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(|error| format!("error: {}: {error}", pipeline.name)).collect();
        Failure::usage(lines.join("\n"))
    })
}

async fn list(args: &OutputArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = load(&config)?;
    let state = open_state(&config).await?;
    let pauses = match &state {
        Some(state) => Pauses::load(state).await?,
        None => Pauses::default(),
    };
    let now = Utc::now();
    let mut rows = Vec::new();
    for pipeline in &pipelines {
        let last = match &state {
            Some(state) => last_run(state, &pipeline.name).await?,
            None => None,
        };
        rows.push((pipeline, last, pipeline.next_runs(now, 1).first().copied()));
    }
    if args.output != Output::Table {
        let list: Vec<Value> = rows
            .iter()
            .map(|(pipeline, last, next)| {
                serde_json::json!({"name": pipeline.name, "enabled": pipeline.enabled, "starts": pipeline.starts(),
                    "description": pipeline.description, "next_run": next, "last_run": last,
                    "paused": pauses.of(&pipeline.name, now)})
            })
            .collect();
        println!("{}", Value::Array(list));
        return Ok(0);
    }
    let mut table = output::table(["pipeline", "starts", "last", "next", "what it does"]);
    for (pipeline, last, next) in rows {
        let last = last.map_or_else(|| "-".to_owned(), |report| report.status.to_string());
        let starts = match pauses.of(&pipeline.name, now) {
            _ if !pipeline.enabled => "disabled".to_owned(),
            Some(pause) => pause.describe(),
            None => pipeline.starts(),
        };
        table.add_row([pipeline.name.clone(), starts, last, moment(next), pipeline.description.clone()]);
    }
    println!("{table}");
    Ok(0)
}

fn moment(moment: Option<DateTime<Utc>>) -> String {
    moment.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

async fn open_state(config: &Config) -> Result<Option<State>, Failure> {
    let exists = config.data_dir.join("state.sqlite").exists();
    Ok(if exists { Some(State::open(&config.data_dir).await?) } else { None })
}

async fn last_run(state: &State, pipeline: &str) -> Result<Option<RunReport>, Failure> {
    let rows = state.runs(1, Some(pipeline)).await?;
    Ok(rows.into_iter().next().and_then(|row| serde_json::from_value(row.report).ok()))
}

fn validate(config: Option<&Path>) -> Result<u8, Failure> {
    // Every file is read, so that one pass shows every problem.
    let config = load_config(config)?;
    let pipelines = load(&config);
    let files = entity_config_files(&config);
    match (pipelines, files) {
        (Ok(pipelines), Ok(files)) => {
            eprintln!(
                "{}: fine, with {} pipelines and {} entity configs",
                config.path.display(),
                pipelines.len(),
                files.len()
            );
            Ok(0)
        }
        (Err(first), Err(second)) => Err(Failure::config(format!("{first}\n{second}"))),
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

async fn history(args: &HistoryArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let rows = match open_state(&config).await? {
        Some(state) => state.runs(args.limit as usize, args.pipeline.as_deref()).await?,
        None => Vec::new(),
    };
    if args.output == Output::Json {
        println!("{}", Value::from_iter(rows.into_iter().map(|row| row.report)));
        return Ok(0);
    }
    if args.output == Output::Ndjson {
        rows.into_iter().for_each(|row| println!("{}", row.report));
        return Ok(0);
    }
    let reports = rows.into_iter().filter_map(|row| serde_json::from_value::<RunReport>(row.report).ok());
    let mut table =
        output::table(["run", "pipeline", "by", "started", "took", "status", "checked", "drift", "repaired"]);
    for report in reports {
        let sum = |of: fn(&crate::report::StepResult) -> u64| {
            output::number(report.steps.iter().map(|step| of(&step.result)).sum())
        };
        let took = report.finished_at.map(|end| format!("{:.1} s", (end - report.started_at).as_seconds_f64()));
        table.add_row([
            report.run_id.clone(),
            report.pipeline.clone(),
            report.trigger.to_string(),
            moment(Some(report.started_at)),
            took.unwrap_or_else(|| "-".to_owned()),
            if report.is_running() { "running".to_owned() } else { report.status.to_string() },
            sum(|result| result.checked),
            sum(|result| result.drift),
            sum(|result| result.repaired),
        ]);
    }
    println!("{table}");
    Ok(0)
}

async fn trigger(args: TriggerArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = load(&config)?;
    let pipeline = pipeline::find(&pipelines, &args.name).map_err(Failure::usage)?;
    let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
    let params = resolve_params(pipeline, &overrides)?;
    let changed: serde_json::Map<String, Value> =
        params.into_iter().filter(|(name, _)| overrides.contains_key(name)).collect();
    let control = Control::read(&config.data_dir).map_err(|error| {
        let dir = config.data_dir.display();
        let words = if error.is_missing() { format!("no daemon runs on {dir}") } else { error.to_string() };
        Failure::new(
            Failure::UNAVAILABLE,
            format!("{words}; `sgcache pipelines run --once {}` runs it here", args.name),
        )
    })?;
    let run_id = post_trigger(&control, &args.name, &changed).await?;
    if args.detach {
        println!("{run_id}");
        return Ok(0);
    }
    let state = State::open(&config.data_dir).await?;
    loop {
        let report = state.run(&run_id).await?.and_then(|row| serde_json::from_value::<RunReport>(row.report).ok());
        if let Some(report) = report.filter(|report| report.finished_at.is_some()) {
            super::job::print(&report, args.output)?;
            return Ok(pipeline::exit_code(&report, false));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn post_trigger(
    control: &Control,
    name: &str,
    params: &serde_json::Map<String, Value>,
) -> Result<String, Failure> {
    let url = control.url(&format!("/api/v1/pipelines/{name}/trigger"));
    let away = |error: reqwest::Error| {
        Failure::new(Failure::UNAVAILABLE, format!("the daemon does not answer: {}", error.without_url()))
    };
    let client = super::status::ops_client(control, Duration::from_secs(30)).map_err(away)?;
    let body = serde_json::json!({"params": params});
    let answer = client.post(url).bearer_auth(&control.token).json(&body).send().await.map_err(away)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(away)?;
    if let Some(run_id) = body.get("run_id").and_then(Value::as_str).filter(|_| status.is_success()) {
        return Ok(run_id.to_owned());
    }
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("the daemon refused");
    let code = if status.as_u16() == 409 { 12 } else { Failure::USAGE };
    Err(Failure::new(code, message))
}
