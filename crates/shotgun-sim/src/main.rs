//! The `shotgun-sim` program: a simulated Shotgun site and nothing else. All behaviour
//! lives in the library.

use std::process::ExitCode;

use clap::Parser;
use shotgun_sim::command::{self, Args};
use tracing::Level;

/// Run a simulated Shotgun site
#[derive(Debug, Parser)]
#[command(name = "shotgun-sim", version, max_term_width = 100)]
struct Cli {
    /// Log more; -vv for debug
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = [Level::ERROR, Level::INFO, Level::DEBUG][usize::from(cli.verbose.min(2))];
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).with_max_level(level).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command::run(cli.args, command::interrupted())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = error.to_string();
            // Diagnostics have words of their own for how bad they are.
            let prefix = if message.starts_with("error") { "" } else { "error: " };
            eprintln!("{prefix}{}", message.trim_end());
            ExitCode::from(error.exit_code())
        }
    }
}
