//! `sgcache pipelines history`: what ran, and what was due and did not run.

use std::path::Path;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::super::Failure;
use super::super::context::load_config;
use super::super::output::{self, Output};
use super::super::pipeline_files::{in_zone, open_state};
use crate::entity::Timestamp;
use crate::report::{RunReport, Status, StepResult, history};
use crate::state::{RunFilter, SKIPPED_OCCURRENCE};
use crate::yaml;

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Only runs of this pipeline or job
    #[arg(add = super::super::completion::pipelines())]
    pipeline: Option<String>,
    /// Only runs with this status; separate several by commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<Status>,
    /// Only runs that started in this time until now, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = yaml::parse_duration)]
    since: Option<Duration>,
    /// List up to this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &HistoryArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let reports = match open_state(&config).await? {
        Some(state) => {
            history::close_abandoned(&state).await?;
            history::find(&state, args.limit as usize, filter(args)).await?
        }
        None => Vec::new(),
    };
    if args.output == Output::Json {
        println!("{}", reports.iter().map(yaml::to_json).collect::<Value>());
        return Ok(0);
    }
    if args.output == Output::Ndjson {
        reports.iter().for_each(|report| println!("{}", yaml::to_json(report)));
        return Ok(0);
    }
    print(&reports, config.timezone);
    Ok(0)
}

fn print(reports: &[RunReport], zone: Tz) {
    let mut table =
        output::table(["run", "pipeline", "by", "started", "took", "status", "checked", "drift", "repaired"]);
    for report in reports {
        let sum = |of: fn(&StepResult) -> u64| output::number(report.steps.iter().map(|step| of(&step.result)).sum());
        let took = report
            .finished_at
            .filter(|_| !report.is_skipped_occurrence())
            .map(|end| format!("{:.1} s", (end - report.started_at).as_seconds_f64()));
        table.add_row([
            report.run_id.clone(),
            report.pipeline.clone(),
            report.trigger.to_string(),
            in_zone(Some(report.started_at), zone),
            took.unwrap_or_else(|| "-".to_owned()),
            if report.is_running() { "running".to_owned() } else { report.status.to_string() },
            sum(|result| result.checked),
            sum(|result| result.drift),
            sum(|result| result.repaired),
        ]);
    }
    println!("{table}");
}

fn filter(args: &HistoryArgs) -> RunFilter {
    let since = args.since.and_then(|since| Utc::now().checked_sub_signed(TimeDelta::from_std(since).ok()?));
    let mut statuses: Vec<String> = args.status.iter().map(ToString::to_string).collect();
    if args.status.contains(&Status::Skipped) {
        statuses.push(SKIPPED_OCCURRENCE.to_owned());
    }
    RunFilter {
        pipeline: args.pipeline.clone(),
        statuses,
        since: since.map(Timestamp::from),
        skipped_occurrences: true,
    }
}
