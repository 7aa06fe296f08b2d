//! What can be typed after `sgcache job`, one variant per job, and the [`JobSpec`] that it
//! means.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::completion::entity_types;
use super::find::Selection;
use crate::entity::EntityRef;
use crate::filter::parse_fields;
use crate::pipeline::{
    DeadLettersArgs, ExportArgs, ExportFormat, ExportTarget, FilterOperator, GenerateArgs, GenerateMode, ImportArgs,
    JobSpec, PruneReportsArgs, PurgeArgs, RebuildArgs, RepairArgs, Sample, SampleMode, ScanArgs, ScanMode, SyncArgs,
    ValidateCountsArgs, ValidateDataArgs,
};
use crate::yaml;

#[derive(Debug, clap::Subcommand)]
#[command(rename_all = "camelCase")]
pub(super) enum Job {
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
    /// Refetch entities and compare them again: those of the last run that left mismatches, or named ones
    Repair(Repair),
    /// Find what no event reports, and refetch it
    Scan(Scan),
    /// Count dead letters; exit with 10 if there are any
    #[command(alias = "dead-letters")]
    DeadLetters {
        /// Refetch their entities first
        #[arg(long)]
        retry: bool,
    },
    /// Write cached rows to NDJSON, CSV or Parquet files
    Export(Box<Export>),
    /// Remove rows that were deleted on the site a while ago
    Purge {
        /// The age from which they are removed
        #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = yaml::parse_duration)]
        older_than: Duration,
    },
    /// Remove old run reports, also from Elasticsearch, and logs of runs
    #[command(alias = "prune-reports", alias = "resetStats")]
    PruneReports {
        /// Days that runs are kept [default: `pipelines.history.keep_days`]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        keep_days: Option<u32>,
        /// Runs that are kept per pipeline [default: `pipelines.history.keep_runs`]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        keep_runs: Option<u32>,
    },
    /// Change stored rows behind the back of the cache (simulated site only)
    #[command(hide = true)]
    Corrupt {
        /// How many rows
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rows: u32,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Types {
    /// Entity types [default: all configured]
    #[arg(add = entity_types())]
    types: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Generate {
    /// Entity types [default: all configured]
    #[arg(add = entity_types())]
    types: Vec<String>,
    /// Only print what would change
    #[arg(long)]
    check: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Judgement {
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
pub(super) struct Counts {
    /// Entity types [default: all configured]
    #[arg(add = entity_types())]
    types: Vec<String>,
    #[command(flatten)]
    judgement: Judgement,
}

#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// Entity types [default: all configured]
    #[arg(add = entity_types())]
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

#[derive(Debug, clap::Args)]
pub(super) struct Repair {
    /// An entity type, and the ids of its entities
    #[arg(value_name = "TYPE ID", num_args = 2.., conflicts_with = "run")]
    entities: Vec<String>,
    /// The run whose mismatches are repaired [default: the last one that left any]
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Refetch up to this many entities
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_rows: u32,
    /// Do not compare the entities again
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Scan {
    /// Entity types [default: all that are complete]
    #[arg(add = entity_types())]
    types: Vec<String>,
    /// What is compared
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// Rows that `full` and `columns` look at [default: as many as the daemon at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rows: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Mode {
    /// With the site: the rows updated last and the newest ids
    Fast,
    /// With the site: every id, updated_at and name
    #[default]
    Light,
    /// With the site: every field of the retired rows
    Retired,
    /// With the site: every field of the next rows, all types in turn
    Full,
    /// The stored rows with what was written; the site is not asked
    Columns,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Entity types [default: all configured]
    #[arg(add = entity_types())]
    types: Vec<String>,
    /// How rows are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The file; `{type}` stands for the entity type [default: standard output]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Fields: `a,b` or a list [default: all cached]
    #[arg(long, value_name = "FIELDS")]
    fields: Option<String>,
    /// Conditions as shotgun_api3.find takes them, in JSON or with single quotes
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    filters: Option<String>,
    /// How the conditions are joined
    #[arg(long, value_name = "all|any", value_parser = ["all", "any"], default_value = "all")]
    filter_operator: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object per line
    #[default]
    Ndjson,
    /// A table; links and lists are JSON
    Csv,
    /// A table with typed columns; links and lists are JSON
    Parquet,
}

impl Job {
    /// Returns the job with its conditions for drift and for a warning.
    ///
    /// # Errors
    ///
    /// When an argument cannot be read.
    pub fn into_spec(self) -> Result<(JobSpec, Option<String>, Option<String>), Failure> {
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
            Self::Purge { older_than } => plain(JobSpec::Purge(PurgeArgs { older_than })),
            Self::PruneReports { keep_days, keep_runs } => {
                plain(JobSpec::PruneReports(PruneReportsArgs { keep_runs, keep_days }))
            }
            Self::Repair(repair) => plain(JobSpec::Repair(repair.into_args()?)),
            Self::Scan(Scan { types, mode, rows }) => plain(JobSpec::Scan(ScanArgs { types, mode: mode.into(), rows })),
            Self::DeadLetters { retry } => plain(JobSpec::DeadLetters(DeadLettersArgs { retry })),
            Self::Export(export) => plain(JobSpec::Export(export.into_args()?)),
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
            filter_operator: operator_of(&self.selection.filter_operator),
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

impl Repair {
    fn into_args(self) -> Result<RepairArgs, Failure> {
        let mut named = self.entities.iter();
        let ty = named.next();
        let parse = |id: &String| {
            let id = id.parse().ok().filter(|id| *id > 0);
            id.and_then(|id| Some(EntityRef::new(ty?.as_str(), id)))
        };
        let entities: Option<Vec<EntityRef>> = named.map(parse).collect();
        let entities = entities.ok_or_else(|| Failure::usage("give one entity type, then ids: `Shot 1286 1290`"))?;
        Ok(RepairArgs { from: Vec::new(), max_rows: self.max_rows, verify: !self.no_verify, entities, run: self.run })
    }
}

impl Export {
    fn into_args(self) -> Result<ExportArgs, Failure> {
        let read = |text: &String| parse_fields(text);
        let fields = self.fields.as_ref().map(read).transpose();
        let fields = fields.map_err(|error| Failure::usage(format!("--fields: {error}")))?;
        // From the working directory on, as every path that is typed.
        let absolute = |path: PathBuf| {
            let path = std::path::absolute(&path)
                .map_err(|error| Failure::usage(format!("--file {}: {error}", path.display())))?;
            Ok::<_, Failure>(ExportTarget::File(path.display().to_string()))
        };
        Ok(ExportArgs {
            types: self.types,
            format: match self.format {
                Format::Ndjson => ExportFormat::Ndjson,
                Format::Csv => ExportFormat::Csv,
                Format::Parquet => ExportFormat::Parquet,
            },
            file: self.file.map_or(Ok(ExportTarget::Stdout), absolute)?,
            fields: fields.unwrap_or_default(),
            filters: self.filters.map_or(Value::Null, Value::String),
            filter_operator: operator_of(&self.filter_operator),
        })
    }
}

/// Returns the operator of a word that the parser has let through: `all` or `any`.
fn operator_of(word: &str) -> FilterOperator {
    if word == "any" { FilterOperator::Any } else { FilterOperator::All }
}

impl From<Mode> for ScanMode {
    fn from(mode: Mode) -> ScanMode {
        match mode {
            Mode::Fast => ScanMode::Fast,
            Mode::Light => ScanMode::Light,
            Mode::Retired => ScanMode::Retired,
            Mode::Full => ScanMode::Full,
            Mode::Columns => ScanMode::Columns,
        }
    }
}
