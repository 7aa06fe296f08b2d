//! `sgcache pipelines pause` and `resume`: with or without a running daemon, which
//! looks at the pauses of its data directory every second.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Failure;
use super::context::load_config;
use super::pipelines::load;
use crate::pipeline::{self, Pause, Pauses};
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
    let pipelines = load(&config)?;
    let mut names = Vec::new();
    for name in &chosen.names {
        names.push(pipeline::find(&pipelines, name).map_err(Failure::usage)?.name.clone());
    }
    if chosen.all {
        names.extend(pipelines.iter().map(|pipeline| pipeline.name.clone()));
    }
    let state = State::open(&config.data_dir).await?;
    let mut pauses = Pauses::load(&state).await?;
    for name in &names {
        change(&mut pauses, name);
    }
    pauses.save(&state).await?;
    Ok(0)
}
