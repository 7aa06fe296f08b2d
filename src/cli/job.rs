//! `sgcache job`: one job now, over the same state and store and through the
//! same runner as a scheduled one.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::{Online, SiteAtStart, load_config};
use super::corrupt;
use super::engine::Engine;
use super::find::Selection;
use super::output::{self, Output};
use super::progress;
use super::signals::StopSignals;
use crate::entity_config::TypeLayout;
use crate::pipeline::{
    EntityCatalog, FilterOperator, GenerateArgs, GenerateMode, ImportArgs, JobSpec, Pipeline, PruneReportsArgs,
    PurgeArgs, RebuildArgs, RunOrder, Sample, SampleMode, SyncArgs, ValidateCountsArgs, ValidateDataArgs, exit_code,
};
use crate::report::{RunReport, Status, StepReport, Trigger};
use crate::sync;

/// The exit code when nothing was done, here: nothing compared.
const NOTHING_RAN: u8 = 12;
/// Dead letters that are named after a job.
const SHOWN_DEAD_LETTERS: usize = 10;

#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    job: Job,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Output,
    /// Exit with 11 if `--warn-when` is true
    #[arg(long, global = true)]
    deny_warnings: bool,
}

#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "camelCase")]
enum Job {
    /// Compare the numbers of entities with the site
    #[command(alias = "validate-counts")]
    ValidateCounts(Counts),
    /// Compare field values with the site: by default the 500 entities of each type updated last
    #[command(alias = "validate-data", alias = "validateFields", alias = "validate-fields")]
    ValidateData(Box<Data>),
    /// Read every entity of these types again, in place
    Rebuild(Types),
    /// Import the types that are not complete yet
    Import(Types),
    /// Apply what the event log holds, then stop
    Sync,
    /// Write entity configs that fit the schema of the site
    #[command(alias = "generate-entity-configs", alias = "createEntityConfigs", alias = "create-entity-configs")]
    GenerateEntityConfigs(Generate),
    /// Remove rows that were deleted on the site more than a week ago
    Purge,
    /// Remove old run reports
    #[command(alias = "prune-reports", alias = "resetStats")]
    PruneReports,
    /// Change stored rows behind the back of the cache (simulated site only)
    #[command(hide = true)]
    Corrupt {
        /// How many rows
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rows: u32,
    },
}

#[derive(Debug, clap::Args)]
struct Types {
    /// Entity types [default: all configured]
    types: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// Entity types [default: all configured]
    types: Vec<String>,
    /// Only print what would change
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
struct Judgement {
    /// Repair mismatches and check them again
    #[arg(long)]
    repair: bool,
    /// Condition for the status drift [default: result.drift > 0]
    #[arg(long, value_name = "EXPR")]
    fail_when: Option<String>,
    /// Condition for the status warn
    #[arg(long, value_name = "EXPR")]
    warn_when: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Counts {
    /// Entity types [default: all configured]
    types: Vec<String>,
    #[command(flatten)]
    judgement: Judgement,
}

#[derive(Debug, clap::Args)]
struct Data {
    /// Entity types [default: all configured]
    types: Vec<String>,
    /// Entity types to skip
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    exclude_types: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Fields to leave out of the comparison
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    ignore_fields: Vec<String>,
    /// Choose by id instead of by a query: the next ones, or pages drawn at random
    #[arg(long, value_name = "rotate|random_pages", value_parser = ["rotate", "random_pages"])]
    sample: Option<String>,
    /// The same seed draws the same pages
    #[arg(long, value_name = "TEXT", requires = "sample")]
    seed: Option<String>,
    #[command(flatten)]
    judgement: Judgement,
}

pub async fn run(args: Args, config: Option<&Path>) -> Result<u8, Failure> {
    if let Job::Corrupt { rows } = args.job {
        return corrupt::run(config, rows).await;
    }
    let (spec, fail_when, warn_when) = args.job.into_spec()?;
    let config = load_config(config)?;
    let generates = matches!(spec, JobSpec::GenerateEntityConfigs(_));
    let online = if generates {
        Online::without_layouts(config).await?
    } else {
        Online::open(config, SiteAtStart::Required).await?
    };
    refuse_unknown(&spec, &online)?;
    let progress = matches!(spec, JobSpec::Rebuild(_)).then(progress::progress);
    let engine = Engine::with_progress(online, sync::Settings::default(), progress)?;
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
    engine.finish().await;
    if !signals.hung_up() {
        print(&report, args.output)?;
        name_dead_letters(&engine).await?;
    }
    let nothing = report.status == Status::Ok && report.steps.iter().any(|step| step.result.looked_at_nothing());
    Ok(if nothing { NOTHING_RAN } else { exit_code(&report, args.deny_warnings) })
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

impl Job {
    fn into_spec(self) -> Result<(JobSpec, Option<String>, Option<String>), Failure> {
        let plain = |spec| Ok((spec, None, None));
        match self {
            Self::ValidateCounts(Counts { types, judgement }) => {
                let args = ValidateCountsArgs { types, repair: judgement.repair, ..ValidateCountsArgs::default() };
                Ok((JobSpec::ValidateCounts(args), judgement.fail_when, judgement.warn_when))
            }
            Self::ValidateData(data) => data.into_spec(),
            Self::Rebuild(Types { types }) => plain(JobSpec::Rebuild(RebuildArgs { types })),
            Self::Import(Types { types }) => plain(JobSpec::Import(ImportArgs { types })),
            Self::Sync => plain(JobSpec::Sync(SyncArgs { once: true })),
            Self::GenerateEntityConfigs(Generate { types, check }) => {
                let mode = if check { GenerateMode::Check } else { GenerateMode::Write };
                plain(JobSpec::GenerateEntityConfigs(GenerateArgs { types, mode }))
            }
            Self::Purge => plain(JobSpec::Purge(PurgeArgs::default())),
            Self::PruneReports => plain(JobSpec::PruneReports(PruneReportsArgs::default())),
            Self::Corrupt { .. } => Err(Failure::internal("corrupt is no job of a runner")),
        }
    }
}

impl Data {
    fn into_spec(self) -> Result<(JobSpec, Option<String>, Option<String>), Failure> {
        // Read once here, so that a mistake points into what was typed.
        self.selection.raw_filter()?;
        self.selection.raw_order()?;
        let fields = self.selection.field_names()?.unwrap_or_default();
        let any = self.selection.filter_operator == "any";
        let sample = self.sample.as_deref().map(|mode| Sample {
            mode: if mode == "rotate" { SampleMode::Rotate } else { SampleMode::RandomPages },
            rows: self.selection.limit.unwrap_or(2000),
            pages: self.selection.limit.unwrap_or(1000).div_ceil(250),
            page_size: 250,
            seed: self.seed.clone(),
        });
        let args = ValidateDataArgs {
            types: self.types,
            exclude_types: self.exclude_types,
            filters: self.selection.filters.map_or(Value::Null, Value::String),
            filter_operator: if any { FilterOperator::Any } else { FilterOperator::All },
            order: self.selection.order.map_or(Value::Null, Value::String),
            fields,
            ignore_fields: self.ignore_fields,
            limit: self.selection.limit,
            page: self.selection.page,
            sample,
            repair: self.judgement.repair,
            ..ValidateDataArgs::default()
        };
        Ok((JobSpec::ValidateData(args), self.judgement.fail_when, self.judgement.warn_when))
    }
}

/// Prints the report of a run.
///
/// # Errors
///
/// Never in practice: a report is plain data.
pub fn print(report: &RunReport, form: Output) -> Result<(), Failure> {
    if form != Output::Table {
        let text = serde_json::to_string(report).map_err(|error| Failure::internal(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    for step in &report.steps {
        print_step(step);
    }
    let took = report.finished_at.map_or(0.0, |end| (end - report.started_at).as_seconds_f64());
    eprintln!(
        "{}: {} in {took:.1} s, {} requests (run {})",
        report.pipeline, report.status, report.requests, report.run_id
    );
    if let (true, Some(reason)) = (report.steps.is_empty(), &report.reason) {
        eprintln!("{}: {}: {reason}", report.pipeline, report.status);
    }
    Ok(())
}

fn print_step(step: &StepReport) {
    let result = &step.result;
    if result.kind.is_some() || result.repaired + result.unresolved > 0 {
        print_types(step);
    } else if !result.by_type.is_empty() {
        let mut table = output::table(["type", "rows written"]);
        for (name, ty) in &result.by_type {
            table.add_row([name.clone(), output::number(ty.written)]);
        }
        println!("{table}");
    }
    for (name, value) in &result.outputs {
        println!("{name}: {}", output::cell(value));
    }
    if !result.mismatches.is_empty() {
        print_mismatches(step);
    }
    if let Some(bound) = result.stale_ratio_upper95 {
        eprintln!("with 95 % confidence at most {:.3} % of the rows are stale", bound * 100.0);
    }
    match (&step.error, &step.reason) {
        (Some(error), _) => eprintln!("error: {}: {}", step.id, error.message),
        (None, Some(reason)) => eprintln!("{}: {}: {reason}", step.id, step.status),
        (None, None) => {}
    }
}

fn print_types(step: &StepReport) {
    let types = &step.result.by_type;
    let counts = types.values().any(|ty| ty.site_count.is_some());
    let names = types.values().any(|ty| ty.names > 0);
    let numbers = if counts { ["site", "cache"].as_slice() } else { &["checked"] };
    let names_header = if names { ["names"].as_slice() } else { &[] };
    let header =
        [&["type", "verdict"], numbers, &["missing", "extra", "differs"], names_header, &["touched", "repaired"]];
    let mut table = output::table(["type"]);
    table.set_header(header.concat());
    for (name, ty) in types {
        let verdict = serde_json::to_value(ty.verdict).ok().and_then(|v| v.as_str().map(str::to_owned));
        let mut cells = vec![name.clone(), verdict.unwrap_or_default()];
        if counts {
            let shown = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), output::number);
            cells.extend([shown(ty.site_count), shown(ty.cache_count)]);
        } else {
            cells.push(output::number(ty.checked));
        }
        cells.extend([ty.missing, ty.extra, ty.differs].map(output::number));
        cells.extend(names.then(|| output::number(ty.names)));
        cells.extend([ty.touched, ty.repaired].map(output::number));
        table.add_row(cells);
    }
    println!("{table}");
    for (name, problem) in types.iter().filter_map(|(name, ty)| Some((name, ty.problem.as_ref()?))) {
        eprintln!("{name}: {problem}");
    }
}

fn print_mismatches(step: &StepReport) {
    let mut table = output::table(["entity", "field", "cache", "shotgun", "class", "action"]);
    for mismatch in &step.result.mismatches {
        table.add_row([
            format!("{} {}", mismatch.entity_type, mismatch.id),
            mismatch.field.clone().unwrap_or_else(|| mismatch.kind.as_str().to_owned()),
            output::short(&output::cell(&mismatch.cached), 60),
            output::short(&output::cell(&mismatch.shotgun), 60),
            mismatch.class.map_or("-", |class| class.as_str()).to_owned(),
            mismatch.action.as_str().to_owned(),
        ]);
    }
    println!("{table}");
    if step.result.truncated {
        eprintln!("there are more mismatches than these");
    }
}
