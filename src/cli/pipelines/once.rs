//! `sgcache pipelines run`: its arguments, and `--once`, which runs pipelines in this
//! process and ends with their exit code.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::super::Failure;
use super::super::context::{Online, SiteAtStart, load_config};
use super::super::engine::Engine;
use super::super::output::Output;
use super::super::pipeline_files::{load, selected};
use super::super::signals::StopSignals;
use super::super::{daemon, dry_run, job_report, minute_reports, run_progress};
use crate::pipeline::{self, Pipeline, RunOrder, StepChoice, worst_exit_code};
use crate::report::{RunReport, Trigger};

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Only these pipelines
    #[arg(add = super::super::completion::pipelines())]
    pub(super) names: Vec<String>,
    /// Run them now, one after the other, and end with their exit code
    #[arg(long)]
    pub(super) once: bool,
    /// A parameter of the pipelines that have it
    #[arg(long = "set", value_name = "K=V")]
    pub(super) set: Vec<String>,
    /// A parameter whose value is the content of a file
    #[arg(long = "set-file", value_name = "K=PATH")]
    pub(super) set_file: Vec<String>,
    /// Run only these steps of the one pipeline; separate several by commas
    #[arg(long, value_name = "STEP", value_delimiter = ',', requires = "once", conflicts_with = "from")]
    only: Vec<String>,
    /// Run this step of the one pipeline and those after it
    #[arg(long, value_name = "STEP", requires = "once")]
    from: Option<String>,
    /// Show what would be asked and done, and do nothing
    #[arg(long, requires = "once")]
    dry_run: bool,
    /// Output format of the reports of --once
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: RunArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = selected(load(&config).await?, &args.names)?;
    let overrides = overrides(&args.set, &args.set_file)?;
    daemon::check_overrides(&pipelines, &overrides)?;
    let chosen = chosen_steps(&args, &pipelines)?;
    // All of them are checked before the first one runs.
    let mut orders = Vec::new();
    for pipeline in &pipelines {
        let declared = pipeline.params.declared(&overrides);
        let params = resolve_params(pipeline, &declared)?;
        let steps = chosen.clone();
        orders.push((Arc::new(pipeline.once()), RunOrder { params, steps, ..RunOrder::new(Trigger::Cli) }));
    }
    if args.dry_run {
        return dry_run::print(&config, orders, args.output).await;
    }
    let engine = Engine::new(Online::open(config, SiteAtStart::Required).await?, crate::sync::Settings::default())?
        .with_observer(run_progress::observer(args.output, false));
    let signals = StopSignals::listen(engine.shutdown.clone())?;
    let mut reports: Vec<RunReport> = Vec::new();
    for (pipeline, order) in orders {
        let cancel = signals.cancel.clone();
        let report = engine.run(&pipeline, RunOrder { cancel, ..order }).await?;
        // As a stream of events its report was the last one.
        if !signals.hung_up() && args.output != Output::Ndjson {
            job_report::print(&report, args.output)?;
        }
        reports.push(report);
        if signals.stopped() {
            break;
        }
    }
    minute_reports::put_imports(&engine).await;
    engine.finish().await;
    Ok(worst_exit_code(&reports, false))
}

/// Returns the parameters that the command line sets.
///
/// # Errors
///
/// Words about a text without `=`, or a file that cannot be read.
pub(super) fn overrides(set: &[String], set_file: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut overrides = pipeline::parse_overrides(set).map_err(Failure::usage)?;
    for (name, path) in pipeline::parse_overrides(set_file).map_err(Failure::usage)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::usage(format!("--set-file {name}: {path} cannot be read: {error}")))?;
        if overrides.insert(name.clone(), text.trim_end().to_owned()).is_some() {
            return Err(Failure::usage(format!("--set and --set-file both give `{name}`")));
        }
    }
    Ok(overrides)
}

fn chosen_steps(args: &RunArgs, pipelines: &[Arc<Pipeline>]) -> Result<StepChoice, Failure> {
    let is_chosen = args.from.is_some() || !args.only.is_empty();
    let [pipeline] = pipelines else {
        let words = "--only and --from are about the steps of one pipeline: name it";
        return if is_chosen { Err(Failure::usage(words)) } else { Ok(StepChoice::default()) };
    };
    let choice = match &args.from {
        Some(step) => StepChoice::starting_at(pipeline, step),
        None if args.only.is_empty() => return Ok(StepChoice::default()),
        None => StepChoice::only(pipeline, &args.only),
    };
    choice.map_err(Failure::usage)
}

fn resolve_params(
    pipeline: &Pipeline,
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, Failure> {
    pipeline.params.resolve(overrides).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(|error| format!("error: {}: {error}", pipeline.name)).collect();
        Failure::usage(lines.join("\n"))
    })
}
