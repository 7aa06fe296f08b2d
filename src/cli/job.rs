//! `sgcache job`: one job now, over the same state and store and through the
//! same runner as a scheduled one.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::{Online, SiteAtStart, load_config};
use super::corrupt;
use super::dry_run;
use super::engine::Engine;
use super::job_args::Job;
use super::job_report::{print, print_end};
use super::minute_reports;
use super::output::{self, Output};
use super::progress;
use super::run_progress;
use super::signals::StopSignals;
use crate::entity_config::TypeLayout;
use crate::pipeline::{EntityCatalog, ExportTarget, JobSpec, Pipeline, RunOrder, exit_code};
use crate::report::{RunReport, Status, Trigger, history};
use crate::state::State;
use crate::sync;

/// The exit code when nothing was done, here: nothing compared.
const NOTHING_RAN: u8 = 12;
/// Runs among which one that left mismatches is looked for.
const RECENT_RUNS: usize = 100;
/// Dead letters that are named after a job.
const SHOWN_DEAD_LETTERS: usize = 10;

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    job: Option<Job>,
    /// List the jobs; --help behind the name of one shows its arguments
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    /// Show what would be asked and done, and do nothing
    #[arg(long, global = true)]
    dry_run: bool,
    /// Exit with 11 if `--warn-when` is true
    #[arg(long, global = true)]
    deny_warnings: bool,
}

pub async fn run(args: Args, config: Option<&Path>) -> Result<u8, Failure> {
    let job = match args.job {
        Some(Job::Corrupt { .. }) if args.dry_run => {
            return Err(Failure::usage("`job corrupt` damages rows, which cannot be tried without doing it"));
        }
        Some(Job::Corrupt { rows }) => return corrupt::run(config, rows).await,
        Some(job) if !args.list => job,
        _ => return list(args.output),
    };
    let (mut spec, fail_when, warn_when) = job.into_spec()?;
    let config = load_config(config)?;
    if args.dry_run {
        let pipeline = Arc::new(Pipeline::single(spec, fail_when, warn_when));
        return dry_run::print(&config, vec![(pipeline, RunOrder::new(Trigger::Cli))], args.output).await;
    }
    let generates = matches!(spec, JobSpec::GenerateEntityConfigs(_));
    let online = if generates {
        Online::without_layouts(config).await?
    } else {
        Online::open(config, SiteAtStart::Required).await?
    };
    refuse_unknown(&spec, &online)?;
    choose_run(&mut spec, &online.state).await?;
    let prints_rows = matches!(&spec, JobSpec::Export(export) if export.file == ExportTarget::Stdout);
    let progress = matches!(spec, JobSpec::Rebuild(_)).then(progress::progress);
    let has_bars = matches!(spec, JobSpec::Rebuild(_) | JobSpec::Import(_)) || prints_rows;
    let output = if prints_rows { Output::Table } else { args.output };
    let engine = Engine::with_progress(online, sync::Settings::default(), progress)?
        .with_observer(run_progress::observer(output, has_bars));
    let imports = CancellationToken::new();
    let watch = matches!(spec, JobSpec::Import(_))
        .then(|| tokio::spawn(progress::watch_imports(engine.online.state.clone(), imports.clone())));
    let pipeline = Arc::new(Pipeline::single(spec, fail_when, warn_when));
    let signals = StopSignals::listen(engine.shutdown.clone())?;
    let order = RunOrder { cancel: signals.cancel.clone(), ..RunOrder::new(Trigger::Cli) };
    let report = engine.run(&pipeline, order).await?;
    imports.cancel();
    if let Some(watch) = watch {
        // Only the last drawing could be missing.
        let _ = watch.await;
    }
    minute_reports::put_imports(&engine).await;
    engine.finish().await;
    if !signals.hung_up() {
        // Rows are the data then, and nothing else belongs to them.
        match prints_rows {
            true => print_failure(&report),
            // As a stream of events its report was the last one.
            false if args.output == Output::Ndjson => {}
            false => print(&report, args.output)?,
        }
        name_dead_letters(&engine).await?;
    }
    let nothing = report.status == Status::Ok && report.steps.iter().any(|step| step.result.looked_at_nothing());
    Ok(if nothing { NOTHING_RAN } else { exit_code(&report, args.deny_warnings) })
}

/// Lists the jobs.
fn list(form: Output) -> Result<u8, Failure> {
    let jobs = JobSpec::NAMES.into_iter().map(|name| (name, JobSpec::summary(name).unwrap_or_default()));
    let object = |(name, summary)| serde_json::json!({ "job": name, "summary": summary });
    match form {
        Output::Json => println!("{}", jobs.map(object).collect::<serde_json::Value>()),
        Output::Ndjson => jobs.for_each(|job| println!("{}", object(job))),
        Output::Table => {
            let mut table = output::table(["job", "what it does"]);
            for (name, summary) in jobs {
                table.add_row([name, summary]);
            }
            println!("{table}");
        }
    }
    Ok(0)
}

/// Lets a repair that names nothing repair what the last run that left mismatches found.
async fn choose_run(spec: &mut JobSpec, state: &State) -> Result<(), Failure> {
    let JobSpec::Repair(repair) = spec else { return Ok(()) };
    if repair.run.is_some() || !repair.entities.is_empty() {
        return Ok(());
    }
    let runs = history::runs(state, RECENT_RUNS, None).await?;
    let Some(run) = runs.iter().find(|run| run.open_mismatches().next().is_some()) else {
        let message = format!("none of the last {RECENT_RUNS} runs left a mismatch: name a type and ids, or a run");
        return Err(Failure::new(NOTHING_RAN, message));
    };
    eprintln!("repairing what run {} of {} found", run.run_id, run.pipeline);
    repair.run = Some(run.run_id.clone());
    Ok(())
}

fn print_failure(report: &RunReport) {
    for error in report.steps.iter().filter_map(|step| step.error.as_ref()) {
        eprintln!("error: {}", error.message);
    }
    print_end(report);
}

/// Refuses entity types, fields and filters that the site or the cache does not have.
fn refuse_unknown(spec: &JobSpec, online: &Online) -> Result<(), Failure> {
    let fields = |layout: &TypeLayout| layout.field_names().into_iter().collect();
    let cached = online.layouts.iter().map(|layout| (layout.entity_type.to_string(), fields(layout)));
    let unknown = EntityCatalog::new(cached.collect(), online.schema.clone(), true).objections(spec);
    if unknown.is_empty() { Ok(()) } else { Err(Failure::usage(unknown.join("\n"))) }
}

/// Names what the cache does not hold, because it cannot be read or written.
async fn name_dead_letters(engine: &Engine) -> Result<(), Failure> {
    let state = &engine.online.state;
    let dead = state.dead(SHOWN_DEAD_LETTERS).await?;
    for one in &dead {
        eprintln!("warning: {} is a dead letter and tried again later: {}", one.key, one.error);
    }
    let all: u64 = state.dead_counts().await?.iter().map(|(_, count)| count).sum();
    if all > dead.len() as u64 {
        eprintln!("warning: {all} dead letters in all");
    }
    Ok(())
}
