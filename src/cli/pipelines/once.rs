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
use super::super::{daemon, job_report};
use crate::pipeline::{self, Pipeline, RunOrder, worst_exit_code};
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
    /// Output format of the reports of --once
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: RunArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = selected(load(&config).await?, &args.names)?;
    let overrides = pipeline::parse_overrides(&args.set).map_err(Failure::usage)?;
    daemon::check_overrides(&pipelines, &overrides)?;
    // All of them are checked before the first one runs.
    let mut orders = Vec::new();
    for pipeline in &pipelines {
        let declared = pipeline.params.declared(&overrides);
        orders.push((Arc::new(pipeline.once()), resolve_params(pipeline, &declared)?));
    }
    let engine = Engine::new(Online::open(config, SiteAtStart::Required).await?, crate::sync::Settings::default())?;
    let signals = StopSignals::listen(engine.shutdown.clone())?;
    let mut reports: Vec<RunReport> = Vec::new();
    for (pipeline, params) in orders {
        let cancel = signals.cancel.clone();
        let report = engine.run(&pipeline, RunOrder { params, cancel, ..RunOrder::new(Trigger::Cli) }).await?;
        if !signals.hung_up() {
            job_report::print(&report, args.output)?;
        }
        reports.push(report);
        if signals.stopped() {
            break;
        }
    }
    engine.finish().await;
    Ok(worst_exit_code(&reports, false))
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
