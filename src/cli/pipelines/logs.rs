//! `sgcache pipelines logs`: what was logged while a run ran, in whichever process.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::Value;

use super::super::Failure;
use super::super::context::load_config;
use super::super::output::{self, Output};
use super::show::find_run;
use crate::config::Config;
use crate::report::{LogLine, run_log};
use crate::yaml;

/// How often a log that is followed is read.
const READ_INTERVAL: Duration = Duration::from_millis(200);
/// Lines that are read at once.
const PAGE_LINES: usize = 1000;

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The id of a run
    #[arg(value_name = "RUN")]
    run_id: String,
    /// Print new lines until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub async fn run(args: &LogsArgs, config: Option<&Path>) -> Result<u8, Failure> {
    let config = load_config(config)?;
    let mut printer = LogPrinter::new(&config, args.output);
    let out = &mut std::io::stdout();
    // Looked up before the log is read: what a run logs before its end is in it then.
    let mut run = find_run(&config, &args.run_id).await?;
    let found = printer.print_new(&config, &args.run_id, out).await?;
    if run.is_none() && !found {
        let message = format!("there is no run `{}`: see `sgcache pipelines history`", args.run_id);
        return Err(Failure::usage(message));
    }
    while args.follow && run.as_ref().is_none_or(|report| report.is_running()) {
        tokio::time::sleep(READ_INTERVAL).await;
        run = find_run(&config, &args.run_id).await?;
        let found = printer.print_new(&config, &args.run_id, out).await?;
        if run.is_none() && !found {
            // A log whose run is not in the history (any more) has no end to wait for.
            break;
        }
    }
    printer.finish();
    Ok(0)
}

/// Prints the log of a run, from where it stopped the last time.
pub(super) struct LogPrinter {
    zone: Tz,
    output: Output,
    /// The number of the line to print next.
    next: u64,
    /// The lines of the one JSON document.
    collected: Vec<LogLine>,
}

impl LogPrinter {
    /// Begins with the first line.
    pub fn new(config: &Config, output: Output) -> Self {
        Self { zone: config.timezone, output, next: 0, collected: Vec::new() }
    }

    /// Prints the lines that came since the last time; tells whether there were any.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub async fn print_new(
        &mut self,
        config: &Config,
        run_id: &str,
        out: &mut (impl Write + Send),
    ) -> Result<bool, Failure> {
        let mut found = false;
        loop {
            let page = run_log::read(&config.data_dir, run_id, self.next, PAGE_LINES).await.map_err(|error| {
                let directory = config.data_dir.join(run_log::RUN_LOG_DIRECTORY);
                Failure::internal(format!("the log of {run_id} in {} cannot be read: {error}", directory.display()))
            })?;
            if page.lines.is_empty() {
                return Ok(found);
            }
            found = true;
            for line in page.lines {
                self.print(line, out);
            }
        }
    }

    fn print(&mut self, line: LogLine, out: &mut impl Write) {
        if line.number > self.next {
            eprintln!("({} lines before this are not kept)", output::number(line.number - self.next));
        }
        self.next = line.number + 1;
        // A reader that has gone away has seen enough.
        let _ = match self.output {
            Output::Json => return self.collected.push(line),
            Output::Ndjson => writeln!(out, "{}", yaml::to_json(&line)),
            Output::Table => writeln!(out, "{}", text(&line, self.zone)),
        };
    }

    fn finish(&self) {
        if self.output == Output::Json {
            println!("{}", self.collected.iter().map(yaml::to_json).collect::<Value>());
        }
    }
}

/// One line for people: `2026-11-29 02:30:01.250 INFO  counts: step ended drift=0`.
fn text(line: &LogLine, zone: Tz) -> String {
    let at = line.at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S%.3f");
    let step = line.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
    let fields = line.fields.iter().map(|(name, value)| format!(" {name}={}", output::cell(value)));
    let fields: String = fields.collect();
    format!("{at} {:<5} {step}{}{fields}", line.level.to_uppercase(), line.message)
}
