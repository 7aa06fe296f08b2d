//! `sgcache pipelines trigger`: starts a pipeline in the running daemon, over its
//! control API.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::Failure;
use super::super::context::load_config;
use super::super::output::Output;
use super::super::{job_report, status};
use super::logs::LogPrinter;
use super::once::overrides;
use super::show::find_run;
use crate::config::Config;
use crate::pipeline;
use crate::report::history;
use crate::server::Control;
use crate::state::State;

#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The pipeline
    #[arg(add = super::super::completion::pipelines())]
    name: String,
    /// A parameter
    #[arg(long = "set", value_name = "K=V")]
    set: Vec<String>,
    /// A parameter whose value is the content of a file
    #[arg(long = "set-file", value_name = "K=PATH")]
    set_file: Vec<String>,
    /// Name this request: repeated with the same key it starts nothing again, and its run is shown
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Return once it runs, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// The id of a run
    #[arg(value_name = "RUN")]
    run_id: String,
    /// Go on at this step; the results of the run stand for the steps before
    #[arg(long, value_name = "STEP")]
    from: Option<String>,
    /// Return once it runs, without waiting for its end
    #[arg(long)]
    detach: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: TriggerArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let overrides = overrides(&args.set, &args.set_file)?;
    // The daemon gives them their types: it knows what it runs, the files may say
    // something else by now.
    let changed: serde_json::Map<_, _> =
        overrides.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    let order = Order {
        pipeline: args.name.clone(),
        path: format!("/api/v1/pipelines/{}/trigger", args.name),
        body: serde_json::json!({"params": changed}),
        idempotency_key: args.idempotency_key,
    };
    start(&config, &order, (args.detach, args.output)).await
}

/// Starts the pipeline of a run again, with the parameters of that run.
pub async fn retry(args: RetryArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let Some(report) = find_run(&config, &args.run_id).await? else {
        return Err(Failure::usage(format!("there is no run `{}`: see `sgcache pipelines history`", args.run_id)));
    };
    if report.definition_hash.is_empty() {
        let (run_id, job) = (&args.run_id, &report.pipeline);
        return Err(Failure::usage(format!("run {run_id} is one of the job `{job}` alone, not of a pipeline")));
    }
    let order = Order {
        path: format!("/api/v1/runs/{}/retry", args.run_id),
        body: serde_json::json!({"from": args.from}),
        pipeline: report.pipeline,
        idempotency_key: None,
    };
    start(&config, &order, (args.detach, args.output)).await
}

/// A request that starts a run.
struct Order {
    pipeline: String,
    path: String,
    body: Value,
    idempotency_key: Option<String>,
}

/// Starts a run in the daemon, and waits for its end unless it is detached.
async fn start(config: &Config, order: &Order, (detach, output): (bool, Output)) -> Result<u8, Failure> {
    let control = Control::read(&config.data_dir).map_err(|error| {
        let dir = config.data_dir.display();
        let words = if error.is_missing() { format!("no daemon runs on {dir}") } else { error.to_string() };
        let name = &order.pipeline;
        Failure::new(Failure::UNAVAILABLE, format!("{words}; `sgcache pipelines run --once {name}` runs it here"))
    })?;
    let run_id = post(&control, order).await?;
    if detach {
        println!("{run_id}");
        return Ok(0);
    }
    let state = State::open(&config.data_dir).await?;
    // Someone who looks on sees what happens; a program gets the report alone.
    let looks_on = output == Output::Table && std::io::stderr().is_terminal();
    let mut log = LogPrinter::new(config, Output::Table);
    loop {
        if looks_on {
            log.print_new(config, &run_id, &mut std::io::stderr()).await?;
        }
        // Also when the daemon dies, the wait comes to an end.
        history::close_abandoned(&state).await?;
        if let Some(report) = history::run(&state, &run_id).await?.filter(|report| !report.is_running()) {
            job_report::print(&report, output)?;
            return Ok(pipeline::exit_code(&report, false));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn post(control: &Control, order: &Order) -> Result<String, Failure> {
    let away = |error: reqwest::Error| {
        Failure::new(Failure::UNAVAILABLE, format!("the daemon does not answer: {}", error.without_url()))
    };
    let client = status::ops_client(control, Duration::from_secs(30)).map_err(away)?;
    let mut request = client.post(control.url(&order.path)).bearer_auth(&control.token).json(&order.body);
    if let Some(key) = &order.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = request.send().await.map_err(away)?;
    let status = answer.status();
    let body: Value = answer.json().await.map_err(away)?;
    if let Some(run_id) = body.get("run_id").and_then(Value::as_str).filter(|_| status.is_success()) {
        return Ok(run_id.to_owned());
    }
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("the daemon refused");
    let code = match status.as_u16() {
        409 => 12,
        401 | 403 => Failure::DENIED,
        500.. => Failure::UNAVAILABLE,
        _ => Failure::USAGE,
    };
    Err(Failure::new(code, message))
}
