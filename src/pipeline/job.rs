//! [`JobSpec`]: one job with its typed arguments, as a step or the command
//! line asks for it. What a job does is not known here.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::job_arguments::{
    DEAD_LETTERS, DeadLettersArgs, EXPORT, ExportArgs, FilterOperator, SCAN, ScanArgs, field_list, one_or_many,
};
use crate::entity::EntityRef;
use crate::yaml::{self, Document, Key, Problems, Shape, optional};

/// One job to run, with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub enum JobSpec {
    /// Follow the event log and apply every change.
    Sync(SyncArgs),
    /// Fill configured types that are not complete yet.
    Import(ImportArgs),
    /// Fill types again beside what is there.
    Rebuild(RebuildArgs),
    /// Compare the numbers of entities with the site.
    ValidateCounts(ValidateCountsArgs),
    /// Compare field values with the site.
    ValidateData(ValidateDataArgs),
    /// Read again what earlier steps found different.
    Repair(RepairArgs),
    /// Write, or compare, the entity configs that fit the site's schema.
    GenerateEntityConfigs(GenerateArgs),
    /// Remove old tombstones and untracked types from the store.
    Purge(PurgeArgs),
    /// Remove old run reports and logs of runs.
    PruneReports(PruneReportsArgs),
    /// Find what no event reports, and read it again.
    Scan(ScanArgs),
    /// Count dead letters, or try them again.
    DeadLetters(DeadLettersArgs),
    /// Write stored rows to files.
    Export(ExportArgs),
}

impl JobSpec {
    /// Every job, in the spelling of YAML and the command line.
    pub const NAMES: [&'static str; 12] = [
        "sync",
        "import",
        "rebuild",
        "validateCounts",
        "validateData",
        "repair",
        "generateEntityConfigs",
        "purge",
        "pruneReports",
        "scan",
        "deadLetters",
        "export",
    ];

    /// Returns in one line what a job does, for lists.
    pub fn summary(name: &str) -> Option<&'static str> {
        Some(match name {
            "sync" => "follow the event log; alone: apply what it holds, then stop",
            "import" => "import the types that are not complete yet",
            "rebuild" => "read every entity of types again, in place",
            "validateCounts" => "compare the numbers of entities with the site",
            "validateData" => "compare field values with the site",
            "repair" => "refetch what a validation found different, and compare it again",
            "generateEntityConfigs" => "write, or compare, the entity configs that fit the schema of the site",
            "purge" => "remove old tombstones from the store",
            "pruneReports" => "remove old runs from the history, and their logs",
            "scan" => "find what no event reports, and refetch it",
            "deadLetters" => "count dead letters, or refetch their entities",
            "export" => "write stored rows to NDJSON, CSV or Parquet files",
            _ => return None,
        })
    }

    /// Returns the name of the job.
    pub fn name(&self) -> &'static str {
        match self {
            JobSpec::Sync(_) => "sync",
            JobSpec::Import(_) => "import",
            JobSpec::Rebuild(_) => "rebuild",
            JobSpec::ValidateCounts(_) => "validateCounts",
            JobSpec::ValidateData(_) => "validateData",
            JobSpec::Repair(_) => "repair",
            JobSpec::GenerateEntityConfigs(_) => "generateEntityConfigs",
            JobSpec::Purge(_) => "purge",
            JobSpec::PruneReports(_) => "pruneReports",
            JobSpec::Scan(_) => "scan",
            JobSpec::DeadLetters(_) => "deadLetters",
            JobSpec::Export(_) => "export",
        }
    }

    /// Returns the name a person meant: `validate-counts` is `validateCounts`.
    pub fn canonical_name(written: &str) -> Option<&'static str> {
        let plain = |name: &str| name.replace(['-', '_'], "").to_lowercase();
        JobSpec::NAMES.into_iter().find(|name| plain(name) == plain(written))
    }

    /// Returns the arguments that a job takes, for checks and for help.
    pub fn arguments(name: &str) -> Option<&'static [Key]> {
        Some(match name {
            "sync" => SYNC,
            "import" => IMPORT,
            "rebuild" => REBUILD,
            "validateCounts" => VALIDATE_COUNTS,
            "validateData" => VALIDATE_DATA,
            "repair" => REPAIR,
            "generateEntityConfigs" => GENERATE,
            "purge" => PURGE,
            "pruneReports" => PRUNE_REPORTS,
            "scan" => SCAN,
            "deadLetters" => DEAD_LETTERS,
            "export" => EXPORT,
            _ => return None,
        })
    }

    /// Returns the expression that makes drift of a result when a step has no
    /// `fail_when` of its own.
    pub fn default_fail_when(name: &str) -> Option<&'static str> {
        match name {
            "validateCounts" | "validateData" => Some("result.drift > 0"),
            "repair" | "deadLetters" => Some("result.unresolved > 0"),
            _ => None,
        }
    }

    /// Makes a job of rendered arguments that stand at `pointer`. Every
    /// problem is reported with its place.
    pub fn parse(
        name: &str,
        document: &Document,
        pointer: &str,
        arguments: &Value,
        problems: &mut Problems,
    ) -> Option<JobSpec> {
        let keys = JobSpec::arguments(name)?;
        if !Shape::Object(keys).check(document, pointer, arguments, problems) {
            return None;
        }
        JobSpec::decode(name, (document, pointer, arguments), problems)
    }

    /// Does the same, and returns a job also when some arguments are wrong, without
    /// those: for checks of the others.
    pub fn parse_fitting(
        name: &str,
        document: &Document,
        pointer: &str,
        arguments: &Value,
        problems: &mut Problems,
    ) -> Option<JobSpec> {
        let shape = Shape::Object(JobSpec::arguments(name)?);
        shape.check(document, pointer, arguments, problems);
        let fitting = shape.fitting(arguments)?;
        let before = problems.errors();
        let spec = JobSpec::decode(name, (document, pointer, &fitting), problems);
        match &spec {
            _ if problems.errors() > before => {}
            Some(JobSpec::ValidateData(args)) => args.check_sample(document, pointer, problems),
            Some(JobSpec::Scan(args)) => args.check(document, pointer, problems),
            Some(JobSpec::Export(args)) => args.check(document, pointer, problems),
            _ => {}
        }
        spec
    }

    fn decode(name: &str, document: (&Document, &str, &Value), problems: &mut Problems) -> Option<JobSpec> {
        Some(match name {
            "sync" => JobSpec::Sync(decode(document, problems)?),
            "import" => JobSpec::Import(decode(document, problems)?),
            "rebuild" => JobSpec::Rebuild(decode(document, problems)?),
            "validateCounts" => JobSpec::ValidateCounts(decode(document, problems)?),
            "validateData" => JobSpec::ValidateData(decode(document, problems)?),
            "repair" => JobSpec::Repair(decode(document, problems)?),
            "generateEntityConfigs" => JobSpec::GenerateEntityConfigs(decode(document, problems)?),
            "purge" => JobSpec::Purge(decode(document, problems)?),
            "pruneReports" => JobSpec::PruneReports(decode(document, problems)?),
            "scan" => JobSpec::Scan(decode(document, problems)?),
            "deadLetters" => JobSpec::DeadLetters(decode(document, problems)?),
            "export" => JobSpec::Export(decode(document, problems)?),
            _ => return None,
        })
    }
}

fn decode<T: serde::de::DeserializeOwned>(
    (document, pointer, arguments): (&Document, &str, &Value),
    problems: &mut Problems,
) -> Option<T> {
    document.decode(pointer, arguments, problems)
}

/// Arguments of `sync`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncArgs {
    /// Whether to stop at the end of the event log instead of following it.
    pub once: bool,
}

/// Arguments of `import`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportArgs {
    /// Entity types; empty means every configured type that is not complete.
    pub types: Vec<String>,
}

/// Arguments of `rebuild`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RebuildArgs {
    /// Entity types; empty means every configured type.
    pub types: Vec<String>,
}

/// Arguments of `validateCounts`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidateCountsArgs {
    /// Entity types; empty means every configured type.
    pub types: Vec<String>,
    /// Entities changed within this time are left out.
    #[serde(deserialize_with = "yaml::duration")]
    pub settle: Duration,
    /// Ids that are named at most when numbers differ; 0 names none.
    pub locate: u32,
    /// Whether what is found is refetched and checked again at once.
    pub repair: bool,
}

impl Default for ValidateCountsArgs {
    fn default() -> ValidateCountsArgs {
        ValidateCountsArgs { types: Vec::new(), settle: Duration::from_secs(60), locate: 200, repair: false }
    }
}

/// Arguments of `validateData`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidateDataArgs {
    /// Entity types; empty means every configured type.
    pub types: Vec<String>,
    /// Entity types that are left out of `types`, for example those without a field
    /// that the filters name.
    pub exclude_types: Vec<String>,
    /// Filters in the form of `shotgun_api3.find`; null means none.
    pub filters: Value,
    /// `all` or `any`.
    pub filter_operator: FilterOperator,
    /// The order in the form of `shotgun_api3.find`, or `-updated_at,id`; null
    /// means the entities updated last come first.
    pub order: Value,
    /// Fields to compare; empty means every cached field.
    #[serde(deserialize_with = "field_list")]
    pub fields: Vec<String>,
    /// Fields that are not compared.
    pub ignore_fields: Vec<String>,
    /// Entities per type; `None` means 500.
    pub limit: Option<u32>,
    /// The page of `limit` entities that is compared; `None` means the first.
    pub page: Option<u32>,
    /// How entities are chosen; `None` means by filters, order, limit and page.
    pub sample: Option<Sample>,
    /// Entities changed within this time are left out.
    #[serde(deserialize_with = "yaml::duration")]
    pub settle: Duration,
    /// Mismatches that are named at most.
    pub locate: u32,
    /// Whether what is found is refetched and checked again at once.
    pub repair: bool,
}

impl ValidateDataArgs {
    /// Reports arguments that have no effect beside a sample that chooses by id.
    fn check_sample(&self, document: &Document, pointer: &str, problems: &mut Problems) {
        let Some(sample) = &self.sample else { return };
        let mode = match sample.mode {
            SampleMode::Latest => "latest",
            SampleMode::Rotate => "rotate",
            SampleMode::RandomPages => "random_pages",
        };
        let by_id = sample.mode != SampleMode::Latest;
        let given = [
            ("filters", by_id && !self.filters.is_null()),
            ("order", by_id && !self.order.is_null()),
            ("limit", self.limit.is_some()),
            ("page", self.page.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = format!("`{name}` has no effect beside `sample: {{ mode: {mode} }}`");
            let diagnostic = document.at_key(&yaml::join(pointer, name), "SG0210", message);
            let help = match name {
                "limit" | "page" => "`rows`, or `pages` and `page_size`, say how many a sample takes",
                _ => "remove it, or choose by `filters`, `order` and `limit` alone",
            };
            document.report(problems, diagnostic.label("no effect").help(help.to_owned()));
        }
    }
}

impl Default for ValidateDataArgs {
    fn default() -> ValidateDataArgs {
        ValidateDataArgs {
            types: Vec::new(),
            exclude_types: Vec::new(),
            filters: Value::Null,
            filter_operator: FilterOperator::All,
            order: Value::Null,
            fields: Vec::new(),
            ignore_fields: Vec::new(),
            limit: None,
            page: None,
            sample: None,
            settle: Duration::from_secs(30),
            locate: 10_000,
            repair: false,
        }
    }
}

/// How the entities of a validation are chosen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The way.
    pub mode: SampleMode,
    /// Entities per type, for `latest` and `rotate`.
    #[serde(default = "sample_rows")]
    pub rows: u32,
    /// Pages per type, for `random_pages`.
    #[serde(default = "sample_pages")]
    pub pages: u32,
    /// Entities per page, for `random_pages`.
    #[serde(default = "sample_page_size")]
    pub page_size: u32,
    /// What makes a random choice repeatable; a new one each time when absent.
    #[serde(default, deserialize_with = "seed")]
    pub seed: Option<String>,
}

impl Sample {
    /// Returns the seed as a number, the same for the same text on every machine.
    pub fn seed_number(&self) -> Option<u64> {
        self.seed.as_deref().map(super::fingerprint)
    }
}

/// The ways to choose entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SampleMode {
    /// Those updated last.
    Latest,
    /// The next ones by id after those of the last time, and round again.
    Rotate,
    /// Whole pages drawn at random from all ids.
    RandomPages,
}

/// Arguments of `repair`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepairArgs {
    /// Steps whose mismatches are repaired; empty means every step that drifted.
    #[serde(deserialize_with = "one_or_many")]
    pub from: Vec<String>,
    /// Entities that are read again at most.
    pub max_rows: u32,
    /// Whether each repaired entity is compared once more.
    pub verify: bool,
    /// Entities that are repaired besides, as `Shot 1286`.
    #[serde(deserialize_with = "entity_refs")]
    pub entities: Vec<EntityRef>,
    /// The run of the history whose mismatches are repaired besides.
    pub run: Option<String>,
}

impl Default for RepairArgs {
    fn default() -> RepairArgs {
        RepairArgs { from: Vec::new(), max_rows: 500, verify: true, entities: Vec::new(), run: None }
    }
}

/// Arguments of `generateEntityConfigs`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateArgs {
    /// Entity types; empty means every type that the settings keep.
    pub types: Vec<String>,
    /// What is done with the result.
    pub mode: GenerateMode,
}

/// What `generateEntityConfigs` does with what it generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerateMode {
    /// Compares it with the files and reports the differences.
    #[default]
    Check,
    /// Writes the files.
    Write,
}

/// Arguments of `purge`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeArgs {
    /// Tombstones older than this go.
    #[serde(deserialize_with = "yaml::duration")]
    pub older_than: Duration,
}

impl Default for PurgeArgs {
    fn default() -> PurgeArgs {
        PurgeArgs { older_than: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Arguments of `pruneReports`; what is left out comes from `pipelines.history`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PruneReportsArgs {
    /// Runs kept per pipeline; `None` means what `config.yaml` says.
    pub keep_runs: Option<u32>,
    /// Days that runs are kept; `None` means what `config.yaml` says.
    pub keep_days: Option<u32>,
}

const TYPES: Key = optional("types", Shape::List(&Shape::Text));
const GRACE_PERIOD: Key = optional("settle", Shape::Duration);
const REPAIR_FOUND: Key = optional("repair", Shape::Bool);
const LOCATE: Key = optional("locate", Shape::Integer(0, 1_000_000));

const SYNC: &[Key] = &[optional("once", Shape::Bool)];
const IMPORT: &[Key] = &[TYPES];
const REBUILD: &[Key] = &[TYPES];
const VALIDATE_COUNTS: &[Key] = &[TYPES, GRACE_PERIOD, LOCATE, REPAIR_FOUND];
const VALIDATE_DATA: &[Key] = &[
    TYPES,
    optional("exclude_types", Shape::List(&Shape::Text)),
    optional("filters", Shape::Any),
    optional("filter_operator", Shape::Choice(&["all", "any"])),
    optional("order", Shape::Any),
    optional("fields", Shape::OneOrMany(&Shape::Text)),
    optional("ignore_fields", Shape::List(&Shape::Text)),
    optional("limit", Shape::Integer(1, 1_000_000)),
    optional("page", Shape::Integer(1, 1_000_000)),
    optional(
        "sample",
        Shape::Object(&[
            yaml::required("mode", Shape::Choice(&["latest", "rotate", "random_pages"])),
            optional("rows", Shape::Integer(1, 1_000_000)),
            optional("pages", Shape::Integer(1, 10_000)),
            optional("page_size", Shape::Integer(1, 500)),
            optional("seed", Shape::Scalar),
        ]),
    ),
    GRACE_PERIOD,
    LOCATE,
    REPAIR_FOUND,
];
const REPAIR: &[Key] = &[
    optional("from", Shape::OneOrMany(&Shape::Text)),
    optional("max_rows", Shape::Integer(1, 1_000_000)),
    optional("verify", Shape::Bool),
    optional("entities", Shape::OneOrMany(&Shape::Text)),
    optional("run", Shape::Text),
];
const GENERATE: &[Key] = &[TYPES, optional("mode", Shape::Choice(&["check", "write"]))];
const PURGE: &[Key] = &[optional("older_than", Shape::Duration)];
const PRUNE_REPORTS: &[Key] =
    &[optional("keep_runs", Shape::Integer(1, 1_000_000)), optional("keep_days", Shape::Integer(1, 36_500))];

fn sample_rows() -> u32 {
    2000
}

fn sample_pages() -> u32 {
    4
}

fn sample_page_size() -> u32 {
    250
}

/// Reads `Shot 1286`, or a list of such texts.
fn entity_refs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<EntityRef>, D::Error> {
    let parse = |text: &String| {
        let parts = text.trim().split_once(char::is_whitespace);
        let key = parts.and_then(|(ty, id)| Some(EntityRef::new(ty, id.trim().parse().ok().filter(|id| *id > 0)?)));
        key.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a type and an id, such as `Shot 1286`")))
    };
    one_or_many(from)?.iter().map(parse).collect()
}

fn seed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}
