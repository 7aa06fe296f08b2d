//! The command line: what can be typed, and what is said in return.
//!
//! One file per command; the wiring of a site, a store and a state from
//! `config.yaml` is in `context`. Data goes to stdout, everything said to a person
//! to stderr. No rule of the business is decided here.

mod alarm_watch;
mod progress;
mod breaker;
mod completion;
mod config_edit;
mod context;
mod corrupt;
mod daemon;
mod dead_letters;
mod demo;
mod demo_caller;
mod demo_outage;
mod dry_run;
mod diagnostic_formats;
mod demo_readers;
mod engine;
mod explain;
mod explain_error;
mod failure;
mod find;
mod freshness_history;
mod hook_delivery;
mod instance;
mod job;
mod job_args;
mod job_report;
mod leadership;
mod man;
mod minute_reports;
mod operations;
mod output;
mod pause;
mod pipeline_files;
mod pipeline_outlook;
mod pipelines;
mod proxy;
mod proxy_advise;
mod proxy_report;
mod recorder;
mod run_log_layer;
mod run_progress;
mod reload;
mod repairs;
mod scheduler;
mod schema;
mod serve;
mod service_manager;
mod shadow;
mod sim;
mod signals;
mod since;
mod status_report;
mod status;
mod task_gauges;
mod task_series;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

pub use failure::Failure;

/// A live, checked, queryable replica of a Shotgun site.
#[derive(Debug, Parser)]
#[command(name = "sgcache", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    /// The directory with config.yaml, or that file [default: the working directory]
    #[arg(short, long, global = true, env = "SGCACHE_CONFIG", value_name = "DIR|FILE")]
    config: Option<PathBuf>,
    /// Log more; -vv for debug
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Format of log lines
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Pretty)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Pretty,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a demo: a simulated site, a cache that follows it, its pipelines
    Demo(demo::Args),
    /// Answer programs from the Elasticsearch that a daemon on another host keeps up to date
    Serve,
    /// Run and inspect pipelines
    #[command(subcommand)]
    Pipelines(pipelines::Command),
    /// Run one job now
    Job(job::Args),
    /// Read the cache, printed as shotgun_api3.find would return it
    Find(find::Args),
    /// Explain how the proxy would answer a request, why, and what to change
    Explain(explain::Args),
    /// Report the hit ratio of the read proxy, the waiting saved, and pass-through reasons
    #[command(subcommand)]
    Proxy(proxy::Command),
    /// Explain a diagnostic code: cause and remedy
    ExplainError(explain_error::Args),
    /// Print the JSON Schema of a kind of file, for editors
    Schema(schema::Args),
    /// Show the results of shadow comparisons (`api.mode: shadow`)
    #[command(subcommand)]
    Shadow(shadow::Command),
    /// Show, confirm or re-check deletions that the circuit breaker stopped
    #[command(subcommand)]
    Breaker(breaker::Command),
    /// List, refetch or drop dead letters
    #[command(subcommand, name = "deadLetters", alias = "dead-letters")]
    DeadLetters(dead_letters::Command),
    /// Show what the daemon is doing
    Status(status::Args),
    /// Run a simulated Shotgun site
    Sim(sim::Args),
    /// Print the manual page, or write one per command
    Man(man::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How long work on other threads, such as a commit, may take to end with the process.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    end_quietly_on_a_closed_pipe();
    completion::answer_shell(<Cli as clap::CommandFactory>::command);
    let cli = Cli::parse();
    start_log(&cli);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::internal(format!("cannot start the runtime: {error}")).report(),
    };
    let code = match runtime.block_on(run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    };
    // A thread that never comes back must not keep the process.
    runtime.shutdown_timeout(LAST_WORK);
    code
}

/// A reader that goes away early (`| head`) has what it wanted: no panic, and the
/// code that a shell shows for a closed pipe.
fn end_quietly_on_a_closed_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload().downcast_ref::<String>().map(String::as_str).unwrap_or_default();
        if words.starts_with("failed printing to stdout") && words.contains("Broken pipe") {
            std::process::exit(141);
        }
        usual(panic);
    }));
}

async fn run(cli: Cli) -> Result<u8, Failure> {
    let config = cli.config.as_deref();
    match cli.command {
        Command::Demo(args) => demo::run(args).await,
        Command::Serve => serve::run(config).await,
        Command::Pipelines(command) => pipelines::run(command, config).await,
        Command::Job(args) => job::run(args, config).await,
        Command::Find(args) => find::run(args, config).await,
        Command::Proxy(command) => proxy::run(command, config).await,
        Command::Shadow(command) => shadow::run(&command, config).await,
        Command::Breaker(command) => breaker::run(&command, config).await,
        Command::DeadLetters(command) => dead_letters::run(command, config).await,
        Command::Explain(args) => explain::run(args, config).await,
        Command::Schema(args) => schema::run(&args),
        Command::ExplainError(args) => explain_error::run(&args),
        Command::Status(args) => status::run(args, config).await,
        Command::Sim(args) => sim::run(args).await,
        Command::Man(args) => man::run(&args, <Cli as clap::CommandFactory>::command()),
        Command::Completions { shell } => completion::print_script(shell),
    }
}

fn start_log(cli: &Cli) {
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    let level = match (cli.quiet, cli.verbose, &cli.command) {
        (true, ..) => "error",
        (_, 0, Command::Pipelines(pipelines::Command::Run(_))) => "sgcache=info,shotgun_sim=info,warn",
        (_, 0, _) => "error",
        (_, 1, _) => "sgcache=info,shotgun_sim=info,warn",
        _ => "sgcache=debug,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("SGCACHE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // A file and a journal do not know colours.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    let registry = tracing_subscriber::registry().with(run_log_layer::layer());
    match cli.log_format {
        LogFormat::Pretty => registry.with(lines.with_filter(filter)).init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).init(),
    }
}
