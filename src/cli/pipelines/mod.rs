//! `sgcache pipelines`: runs and inspects what is in `pipelines/`.

mod cancel;
pub(super) mod diff;
mod explain;
mod graph;
mod history;
mod list;
mod logs;
mod new;
mod once;
mod show;
mod test;
mod trigger;

use std::path::Path;

use super::Failure;
use super::context::load_config;
use super::daemon::Daemon;
use super::pause::{self, PauseArgs, ResumeArgs};
use super::validate::{self, ValidateArgs};
use crate::sim::command::interrupted;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Follow the site and run the pipelines, until stopped
    Run(once::RunArgs),
    /// List the pipelines, how they last ended and when they start next
    List(list::ListArgs),
    /// Explain when pipelines start next, and why past occurrences did not run
    Explain(explain::ExplainArgs),
    /// Show the effective definition of a pipeline and its origin, or a run
    Show(show::ShowArgs),
    /// Draw the steps of pipelines in their order
    Graph(graph::GraphArgs),
    /// Write a pipeline file to begin with
    New(new::NewArgs),
    /// Compare the pipeline files with those that the daemon has loaded
    Diff(diff::DiffArgs),
    /// Check config.yaml, the entity configs and every pipeline
    Validate(ValidateArgs),
    /// Run the `tests` of pipeline files: given results of jobs, a given clock, no site
    Test(test::TestArgs),
    /// List runs, newest first
    History(history::HistoryArgs),
    /// Print what was logged during a run
    Logs(logs::LogsArgs),
    /// Start a pipeline in the running daemon
    Trigger(trigger::TriggerArgs),
    /// Stop a run of the daemon
    Cancel(cancel::CancelArgs),
    /// Start the pipeline of a run again in the running daemon, with the same parameters
    Retry(trigger::RetryArgs),
    /// Pause the schedules of pipelines; occurrences during a pause are skipped
    Pause(PauseArgs),
    /// End a pause
    Resume(ResumeArgs),
}

pub async fn run(command: Command, config: Option<&Path>) -> Result<u8, Failure> {
    match command {
        Command::Run(args) if args.once => once::run(args, config).await,
        Command::Run(args) => {
            let overrides = once::overrides(&args.set, &args.set_file)?;
            let daemon = Daemon::start(load_config(config)?, args.names, overrides).await?;
            daemon.run_until(interrupted()).await?;
            Ok(0)
        }
        Command::List(args) => list::run(&args, config).await,
        Command::Explain(args) => explain::run(&args, config).await,
        Command::Show(args) => show::run(&args, config).await,
        Command::Graph(args) => graph::run(&args, config).await,
        Command::New(args) => new::run(&args, config).await,
        Command::Diff(args) => diff::run(&args, config).await,
        Command::Validate(args) => validate::run(&args, config).await,
        Command::Test(args) => test::run(&args, config).await,
        Command::History(args) => history::run(&args, config).await,
        Command::Logs(args) => logs::run(&args, config).await,
        Command::Trigger(args) => trigger::run(args, config).await,
        Command::Cancel(args) => cancel::run(&args, config).await,
        Command::Retry(args) => trigger::retry(args, config).await,
        Command::Pause(args) => pause::pause(&args, config).await,
        Command::Resume(args) => pause::resume(&args, config).await,
    }
}
