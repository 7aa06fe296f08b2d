//! `sgcache pipelines list`: every pipeline with its state, its last outcome and its
//! next start.

use std::path::Path;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::super::context::load_config;
use super::super::output::{self, Output};
use super::super::pipeline_files::{in_zone, load_what_fits, open_state, warn_about_files};
use super::super::{Failure, status};
use crate::config::Config;
use crate::pipeline::{Loaded, Pause, Pauses, Pipeline};
use crate::report::{RunReport, history};
use crate::server::{PipelineStatus, Span};
use crate::state::RunFilter;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Show how the last ten occurrences ended, as a strip
    #[arg(short, long)]
    long: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Occurrences of which the outcome is shown.
const OUTCOMES: usize = 10;
const RUNNING: &str = "running";

/// The sign of an outcome in a strip.
fn sign(outcome: &str) -> char {
    match outcome {
        RUNNING => '>',
        "ok" => '.',
        "drift" | "error" | "timeout" => outcome.chars().next().map_or('?', |first| first.to_ascii_uppercase()),
        other => other.chars().next().unwrap_or('?'),
    }
}

/// Explains the signs of a strip.
const LEGEND: &str = "last ten, oldest first: . ok, r repaired, w warn, D drift, E error, T timeout,
s skipped, c cancelled, i interrupted, > running
`sgcache pipelines explain NAME` says why";

fn print_long(rows: &[Listed]) {
    let mut table = output::table(["pipeline", "last ten", "state", "took", "next"]);
    for row in rows {
        let strip: String = row.outcomes().into_iter().map(sign).collect();
        let took = row.last.as_ref().filter(|last| !last.is_running());
        let took = took.map_or_else(|| "-".to_owned(), |last| Span(last.duration_seconds()).to_string());
        let next = in_zone(row.next, row.zone);
        table.add_row([row.name.clone(), strip, row.state().to_owned(), took, next]);
    }
    println!("{table}");
    eprintln!("{LEGEND}");
}

/// One line of the list.
struct Listed {
    name: String,
    starts: String,
    description: String,
    enabled: bool,
    zone: Tz,
    next: Option<DateTime<Utc>>,
    last: Option<RunReport>,
    /// The last occurrences and runs, newest first.
    recent: Vec<RunReport>,
    pause: Option<Pause>,
}

impl Listed {
    fn of_file(pipeline: &Pipeline, zone: Tz, now: DateTime<Utc>) -> Listed {
        Listed {
            name: pipeline.name.clone(),
            starts: pipeline.starts_short(),
            description: pipeline.description.clone(),
            enabled: pipeline.enabled,
            zone: pipeline.schedule().map_or(zone, |schedule| schedule.timezone),
            next: pipeline.next_runs(now, 1).first().copied(),
            last: None,
            recent: Vec::new(),
            pause: None,
        }
    }

    fn of_daemon(pipeline: PipelineStatus, zone: Tz) -> Listed {
        Listed {
            zone: pipeline.timezone.as_deref().and_then(|zone| zone.parse().ok()).unwrap_or(zone),
            name: pipeline.name,
            starts: pipeline.schedule.unwrap_or_default(),
            description: "its file has errors; the daemon runs it as it was".to_owned(),
            enabled: pipeline.enabled,
            next: pipeline.next_run,
            last: None,
            recent: Vec::new(),
            pause: None,
        }
    }

    /// The word for what the pipeline does now.
    fn state(&self) -> &'static str {
        match &self.last {
            Some(last) if last.is_running() => "running",
            _ if self.pause.is_some() => "paused",
            _ if !self.enabled => "disabled",
            _ => "idle",
        }
    }

    /// How the last occurrences ended, oldest first.
    fn outcomes(&self) -> Vec<&'static str> {
        let word = |report: &RunReport| if report.is_running() { RUNNING } else { report.status.as_str() };
        self.recent.iter().rev().map(word).collect()
    }
}

pub async fn run(args: &ListArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let loaded = load_what_fits(&config).await;
    warn_about_files(&loaded);
    let rows = listed(&config, &loaded).await?;
    if args.output != Output::Table {
        let of = |row: &Listed| {
            serde_json::json!({"name": row.name, "enabled": row.enabled, "starts": row.starts, "state": row.state(),
                "timezone": row.zone.name(), "description": row.description, "next_run": row.next,
                "last_run": row.last, "paused": row.pause, "outcomes": row.outcomes()})
        };
        println!("{}", rows.iter().map(of).collect::<Value>());
        return Ok(0);
    }
    if args.long {
        print_long(&rows);
        return Ok(0);
    }
    let mut table = output::table(["pipeline", "starts", "state", "last", "next", "what it does"]);
    for row in rows {
        let ended = row.last.as_ref().filter(|last| !last.is_running());
        let last = ended.map_or_else(|| "-".to_owned(), |report| report.status.to_string());
        let state = row.pause.as_ref().map_or_else(|| row.state().to_owned(), Pause::describe);
        let next = in_zone(row.next, row.zone);
        table.add_row([row.name, row.starts, state, last, next, row.description]);
    }
    println!("{table}");
    Ok(0)
}

/// Collects the pipelines of the files, and those of a running daemon whose files
/// have errors now.
async fn listed(config: &Config, loaded: &Loaded) -> Result<Vec<Listed>, Failure> {
    let state = open_state(config).await?;
    let mut pauses = Pauses::default();
    if let Some(state) = &state {
        history::close_abandoned(state).await?;
        pauses = Pauses::load(state).await?;
    }
    let now = Utc::now();
    let mut rows: Vec<Listed> =
        loaded.pipelines.iter().map(|pipeline| Listed::of_file(pipeline, config.timezone, now)).collect();
    let running = if loaded.problems.has_errors() { status::of_daemon(config).await } else { None };
    for pipeline in running.into_iter().flat_map(|status| status.pipelines) {
        if rows.iter().all(|row| row.name != pipeline.name) {
            rows.push(Listed::of_daemon(pipeline, config.timezone));
        }
    }
    for row in &mut rows {
        row.pause = pauses.of(&row.name, now).cloned();
        if let Some(state) = &state {
            row.last = history::runs(state, 1, Some(&row.name)).await?.into_iter().next();
            let filter =
                RunFilter { pipeline: Some(row.name.clone()), skipped_occurrences: true, ..RunFilter::default() };
            row.recent = history::find(state, OUTCOMES, filter).await?;
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}
