//! `sgcache proxy`: what the read proxy of this data directory gives.

use std::path::Path;

use super::Failure;
use super::{proxy_advise, proxy_report};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show how many reads were answered, how much waiting that saved, and why the rest
    /// went to the site
    Report(proxy_report::Args),
    /// Print changes of the configuration that would let the cache answer more reads
    Advise(proxy_advise::Args),
}

pub async fn run(command: Command, config: Option<&Path>) -> Result<u8, Failure> {
    match command {
        Command::Report(args) => proxy_report::run(&args, config).await,
        Command::Advise(args) => proxy_advise::run(&args, config).await,
    }
}
