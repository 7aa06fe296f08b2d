//! `sgcache pipelines pause` and `resume`: with or without a running daemon, which
//! looks at the pauses of its data directory every second.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Failure;
use super::context::load_config;
use super::pipeline_files::{load_what_fits, warn_about_files};
use super::status;
use crate::config::Config;
use crate::pipeline::{Pause, Pauses};
use crate::state::State;
use crate::yaml;

#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// End by itself after this time, such as 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = yaml::parse_duration, conflicts_with = "until")]
    duration: Option<Duration>,
    /// End by itself at this instant, such as 2026-11-24T08:00:00+01:00
    #[arg(long, value_name = "TIME")]
    until: Option<DateTime<Utc>>,
    /// Why; shown wherever the pause is
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    chosen: Chosen,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// The pipelines
    #[arg(add = super::completion::pipelines())]
    names: Vec<String>,
    /// Every pipeline
    #[arg(long)]
    all: bool,
}

/// Keeps pipelines from starting by themselves.
pub async fn pause(args: &PauseArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let now = Utc::now();
    let until = match (args.duration, args.until) {
        (Some(duration), _) => Some(end_of(now, duration)?),
        (None, until) => until,
    };
    if until.is_some_and(|until| until <= now) {
        return Err(Failure::usage("the end of the pause lies in the past"));
    }
    let pause = Pause { since: now, until, reason: args.reason.clone() };
    change(&args.chosen, config, |pauses, name| {
        pauses.set(name, pause.clone());
        println!("{name}: {}", pause.describe());
    })
    .await
}

/// Lets pipelines start again.
pub async fn resume(args: &ResumeArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let now = Utc::now();
    change(&args.chosen, config, |pauses, name| {
        let words = if pauses.end(name, now) { "resumed" } else { "was not paused" };
        println!("{name}: {words}");
    })
    .await
}

/// Returns when a pause of this length ends. The parser has bounded it; a clock
/// close to the end of the calendar is the only way to fail.
fn end_of(now: DateTime<Utc>, duration: Duration) -> Result<DateTime<Utc>, Failure> {
    let end = TimeDelta::from_std(duration).ok().and_then(|duration| now.checked_add_signed(duration));
    end.ok_or_else(|| Failure::usage("the pause is too long: leave `--for` out for one without an end"))
}

async fn change(
    chosen: &Chosen,
    config: Option<&Path>,
    mut change: impl FnMut(&mut Pauses, &str),
) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let known = known_names(&config).await;
    if let Some(name) = chosen.names.iter().find(|name| !known.contains(*name)) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let help = yaml::did_you_mean(name, &known).map_or(String::new(), |help| format!(" ({help})"));
        return Err(Failure::usage(format!("there is no pipeline `{name}`{help}")));
    }
    let state = State::open(&config.data_dir).await?;
    let mut pauses = Pauses::load(&state).await?;
    let all = known.iter().filter(|_| chosen.all);
    for name in chosen.names.iter().chain(all) {
        change(&mut pauses, name);
    }
    pauses.save(&state).await?;
    Ok(0)
}

/// The pipelines of the files and, when some of these have errors, those that the
/// daemon runs.
async fn known_names(config: &Config) -> BTreeSet<String> {
    let loaded = load_what_fits(config).await;
    warn_about_files(&loaded);
    let mut names: BTreeSet<String> = loaded.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
    if loaded.problems.has_errors()
        && let Some(status) = status::of_daemon(config).await
    {
        names.extend(status.pipelines.into_iter().map(|pipeline| pipeline.name));
    }
    names
}
