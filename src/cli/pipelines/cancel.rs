//! `sgcache pipelines cancel`: stops a run of the daemon, over its control API.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::context::load_config;
use super::super::{Failure, status};
use super::show::find_run;
use crate::config::Config;
use crate::report::RunReport;
use crate::server::Control;

/// The exit code when there was nothing to stop.
const NOTHING_RAN: u8 = 12;

#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// The id of a run
    #[arg(value_name = "RUN")]
    run_id: String,
    /// Return at once, without waiting for the end of the run
    #[arg(long)]
    detach: bool,
}

pub async fn run(args: &CancelArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let report = known(&config, &args.run_id).await?;
    if !report.is_running() {
        let message = format!("run {} has ended: {}", report.run_id, report.status);
        return Err(Failure::new(NOTHING_RAN, message));
    }
    request(&config, &report).await?;
    if args.detach {
        println!("{}: asked to stop", report.run_id);
        return Ok(0);
    }
    loop {
        let report = known(&config, &args.run_id).await?;
        if !report.is_running() {
            println!("{}: {}", report.run_id, report.status);
            return Ok(0);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn known(config: &Config, run_id: &str) -> Result<RunReport, Failure> {
    let unknown = || Failure::usage(format!("there is no run `{run_id}`: see `sgcache pipelines history`"));
    find_run(config, run_id).await?.ok_or_else(unknown)
}

async fn request(config: &Config, report: &RunReport) -> Result<(), Failure> {
    let elsewhere = || {
        let (run_id, owner) = (&report.run_id, &report.instance);
        Failure::new(NOTHING_RAN, format!("run {run_id} is not one of the daemon: stop its process ({owner})"))
    };
    let control = Control::read(&config.data_dir).map_err(|error| match error.is_missing() {
        true => elsewhere(),
        false => Failure::new(Failure::UNAVAILABLE, error.to_string()),
    })?;
    let away = |error: reqwest::Error| {
        Failure::new(Failure::UNAVAILABLE, format!("the daemon does not answer: {}", error.without_url()))
    };
    let client = status::ops_client(&control, Duration::from_secs(30)).map_err(away)?;
    let url = control.url(&format!("/api/v1/runs/{}/cancel", report.run_id));
    let answer = client.post(url).bearer_auth(&control.token).send().await.map_err(away)?;
    let code = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("the daemon refused");
    match code {
        200..300 => Ok(()),
        404 | 409 => Err(elsewhere()),
        401 | 403 => Err(Failure::new(Failure::DENIED, message)),
        _ => Err(Failure::new(Failure::UNAVAILABLE, message)),
    }
}
