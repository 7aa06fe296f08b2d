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

#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// End by itself after this time, such as 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "until")]
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
pub fn pause(args: &PauseArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let now = Utc::now();
    let until = match (args.duration, args.until) {
        (Some(duration), _) => Some(now + TimeDelta::from_std(duration).map_err(|_| too_long())?),
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
}

/// Lets pipelines start again.
pub fn resume(args: &ResumeArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let now = Utc::now();
    change(&args.chosen, config, |pauses, name| {
        let words = if pauses.end(name, now) { "resumed" } else { "was not paused" };
        println!("{name}: {words}");
    })
}

fn too_long() -> Failure {
    Failure::usage("the pause is too long: leave `--for` out for one without an end")
}

fn change(chosen: &Chosen, config: Option<&Path>, mut change: impl FnMut(&mut Pauses, &str)) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let pipelines = load(&config)?;
    let mut names = Vec::new();
    for name in &chosen.names {
        names.push(pipeline::find(&pipelines, name).map_err(Failure::usage)?.name.clone());
    }
    if chosen.all {
        names.extend(pipelines.iter().map(|pipeline| pipeline.name.clone()));
    }
    let state = State::open(&config.data_dir)?;
    let mut pauses = Pauses::load(&state)?;
    for name in &names {
        change(&mut pauses, name);
    }
    pauses.save(&state)?;
    Ok(0)
}
