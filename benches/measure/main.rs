//! What the cache achieves: `cargo bench --bench measure -- SECTION ...`.
//!
//! Each section prints one line per figure, with a ratio to a floor of the same
//! run: the same requests without a store, or the latency alone. Every section
//! has a process of its own, so that its peak memory is its own; the site that is
//! imported from is another process. `docs/BENCHMARKS.md` keeps what was seen.

mod counts;
mod find;
mod import;
mod lag;
mod proxy;
mod rig;
mod scheduler;
mod served;
mod work;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Parser, ValueEnum};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Rows per second and memory of an import from a site without latency.
    Import,
    /// How much of an import from a site with 150 ms latency the site explains.
    Latency,
    /// From a commit on the site to the row in the store.
    Lag,
    /// False and missed alarms of `validateCounts`.
    Counts,
    /// Queries of the store.
    Find,
    /// Calls of the Python client through the proxy.
    Proxy,
    /// Reads through the proxy while others write through it.
    Work,
    /// A thousand pipelines due at once, and the check of as many files.
    Scheduler,
}

#[derive(Clone, Debug, Parser)]
struct Options {
    /// What to measure; nothing lists the sections
    sections: Vec<Section>,
    /// Entities of the site that is imported
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Keeps the imported store here, and lets `find` use one that is here
    #[arg(long)]
    data: Option<PathBuf>,
    /// Imports into this Elasticsearch; tests/servers/elasticsearch starts one
    #[arg(long, value_name = "URL")]
    elasticsearch: Option<String>,
    /// How long `lag`, and each rate of `work`, makes changes
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often `counts` validates
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Returns the rows that a section imports; only `import` and `find` need all.
    fn at_most(&self, rows: usize) -> usize {
        self.rows.min(rows)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    match options.sections[..] {
        [] => {
            let names: Vec<_> = Section::value_variants().iter().filter_map(Section::to_possible_value).collect();
            let names: Vec<_> = names.iter().map(clap::builder::PossibleValue::get_name).collect();
            println!("sections: {}", names.join(" "));
            Ok(ExitCode::SUCCESS)
        }
        [section] => {
            tokio::runtime::Runtime::new()?.block_on(run(section, &options))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => run_apart(&options),
    }
}

async fn run(section: Section, options: &Options) -> anyhow::Result<()> {
    match section {
        Section::Import => import::run(options).await,
        Section::Latency => import::run_with_latency(options).await,
        Section::Lag => lag::run(options).await,
        Section::Counts => counts::run(options).await,
        Section::Find => find::run(options).await,
        Section::Proxy => proxy::run(options).await,
        Section::Work => work::run(options).await,
        Section::Scheduler => scheduler::run(),
    }
}

/// Runs each section in a process of its own.
fn run_apart(options: &Options) -> anyhow::Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let data = options.data.clone().unwrap_or_else(|| directory.path().to_owned());
    for section in &options.sections {
        let name = section.to_possible_value().context("a section has a name")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(name.get_name()).arg("--rows").arg(options.rows.to_string()).arg("--data").arg(&data);
        command.args(["--seconds", &options.seconds.to_string(), "--runs", &options.runs.to_string()]);
        if let Some(url) = &options.elasticsearch {
            command.args(["--elasticsearch", url]);
        }
        if !command.status()?.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
