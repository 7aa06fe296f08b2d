//! `sgcache shadow`: what shadow mode has found.

use std::path::Path;

use super::Failure;
use super::context::load_config;
use super::output::{self, Output};
use crate::proxy::shadow::{self, ShadowRecord};
use crate::state::State;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show how often the cache would have answered as the site did, and where not
    Report(Args),
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(command: &Command, chosen: Option<&Path>) -> Result<u8, Failure> {
    let Command::Report(args) = command;
    let config = load_config(chosen)?;
    let record = shadow::kept(&State::open(&config.data_dir).await?).await?;
    match args.output {
        Output::Table => print(&record),
        Output::Json | Output::Ndjson => {
            let text = serde_json::to_string(&record).map_err(|error| Failure::internal(error.to_string()))?;
            println!("{text}");
        }
    }
    Ok(if record.classes.is_empty() { 0 } else { 10 })
}

fn print(record: &ShadowRecord) {
    if record.results.is_empty() {
        eprintln!(
            "nothing was compared yet: set `api.mode: shadow` in config.yaml and let programs read through the proxy"
        );
        return;
    }
    let mut table = output::table(["comparisons", "number"]);
    for (result, count) in &record.results {
        table.add_row([result.clone(), output::number(*count)]);
    }
    for (class, count) in &record.classes {
        table.add_row([format!("different: {class}"), output::number(*count)]);
    }
    println!("{table}");
    for example in record.examples.iter().rev().take(5) {
        println!("{} {}\n  asked: {}", example.method, example.class, example.argument);
        println!("  site:  {}\n  cache: {}", output::short(&example.site, 300), output::short(&example.cache, 300));
    }
}
