//! The arguments of the jobs that look after the cache: `scan`, `deadLetters`, `export`; and
//! the forms of arguments that several jobs have.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::yaml::{self, Document, Key, Problems, Shape, optional, required};

/// Arguments of `scan`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScanArgs {
    /// Entity types; empty means every type that is complete.
    pub types: Vec<String>,
    /// What is compared.
    pub mode: ScanMode,
    /// Rows that `full` and `columns` look at; `None` means as many as the daemon does at
    /// once by itself.
    pub rows: Option<u32>,
}

/// What a scan compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanMode {
    /// With the site: the rows updated last and the newest ids.
    Fast,
    /// With the site: every id, `updated_at` and name.
    #[default]
    Light,
    /// With the site: every field of the retired rows.
    Retired,
    /// With the site: every field of the next rows by id, all types in turn.
    Full,
    /// The stored rows with themselves and with what sync remembers; the site is not asked.
    Columns,
}

impl ScanMode {
    /// Every mode, in the spelling of YAML and the command line.
    pub const NAMES: [&'static str; 5] = ["fast", "light", "retired", "full", "columns"];

    /// Tells whether it goes through all types in turn, a number of rows each time.
    pub fn is_rotating(self) -> bool {
        matches!(self, ScanMode::Full | ScanMode::Columns)
    }
}

impl ScanArgs {
    /// Reports arguments that have no effect in this mode.
    pub(super) fn check(&self, document: &Document, pointer: &str, problems: &mut Problems) {
        let (name, help) = match self.mode.is_rotating() {
            true if !self.types.is_empty() => ("types", "it goes through all types in turn"),
            false if self.rows.is_some() => ("rows", "it looks at all rows; `full` and `columns` look at some"),
            _ => return,
        };
        let message = format!("`{name}` has no effect in this mode");
        let diagnostic = document.at_key(&yaml::join(pointer, name), "SG0210", message);
        document.report(problems, diagnostic.label("no effect").help(help.to_owned()));
    }
}

/// Arguments of `deadLetters`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersArgs {
    /// Whether their entities are read again before the rest is counted.
    pub retry: bool,
}

/// Arguments of `export`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportArgs {
    /// Entity types; empty means every configured type.
    #[serde(default)]
    pub types: Vec<String>,
    /// How rows are written.
    #[serde(default)]
    pub format: ExportFormat,
    /// Where to.
    pub file: ExportTarget,
    /// Fields; empty means every cached field.
    #[serde(default, deserialize_with = "field_list")]
    pub fields: Vec<String>,
    /// Filters in the form of `shotgun_api3.find`; null means none.
    #[serde(default)]
    pub filters: Value,
    /// `all` or `any`.
    #[serde(default)]
    pub filter_operator: FilterOperator,
}

impl ExportArgs {
    /// Reports one file for several tables, which have columns of their own.
    pub(super) fn check(&self, document: &Document, pointer: &str, problems: &mut Problems) {
        let (name, end) = match self.format {
            ExportFormat::Ndjson => return,
            ExportFormat::Csv => ("CSV", "csv"),
            ExportFormat::Parquet => ("Parquet", "parquet"),
        };
        if self.types.len() != 1 && !self.file.has_place_of_type() {
            let message = format!("one {name} file holds one entity type");
            let diagnostic = document.at(&yaml::join(pointer, "file"), "SG0211", message);
            let help = format!("name one type in `types`, or write a file per type: `exports/{{type}}.{end}`");
            document.report(problems, diagnostic.label("several types").help(help));
        }
    }
}

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum ExportTarget {
    /// The standard output of the process; of the command line only.
    Stdout,
    /// A path, from the directory of `config.yaml` on. `{type}` stands for the entity type.
    File(String),
}

impl From<String> for ExportTarget {
    fn from(path: String) -> ExportTarget {
        ExportTarget::File(path)
    }
}

impl ExportTarget {
    /// Tells whether there is a file per type.
    pub(super) fn has_place_of_type(&self) -> bool {
        matches!(self, ExportTarget::File(path) if path.contains("{type}"))
    }
}

/// How an export writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// One JSON object per line, as `shotgun_api3.find` returns rows.
    #[default]
    Ndjson,
    /// A table: `id`, `type`, then the fields. Links and lists are JSON.
    Csv,
    /// A table with typed columns. Links and lists are JSON.
    Parquet,
}

impl ExportFormat {
    /// Every format, in the spelling of YAML and the command line.
    pub const NAMES: [&'static str; 3] = ["ndjson", "csv", "parquet"];
}

/// How the filters of a list are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterOperator {
    /// All of them hold.
    #[default]
    All,
    /// At least one of them holds.
    Any,
}

const TYPES: Key = optional("types", Shape::List(&Shape::Text));

pub(super) const SCAN: &[Key] =
    &[TYPES, optional("mode", Shape::Choice(&ScanMode::NAMES)), optional("rows", Shape::Integer(1, 10_000_000))];
pub(super) const DEAD_LETTERS: &[Key] = &[optional("retry", Shape::Bool)];
pub(super) const EXPORT: &[Key] = &[
    TYPES,
    optional("format", Shape::Choice(&ExportFormat::NAMES)),
    required("file", Shape::Text),
    optional("fields", Shape::OneOrMany(&Shape::Text)),
    optional("filters", Shape::Any),
    optional("filter_operator", Shape::Choice(&["all", "any"])),
];

/// Reads `a`, or `[a, b]`.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => Err(serde::de::Error::custom(format!("expected text, found {other}"))),
    };
    match Value::deserialize(from)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.into_iter().map(text).collect(),
        single => Ok(vec![text(single)?]),
    }
}

/// Reads `all`, `a,b` or `[a, b]`; all is the empty list.
pub(super) fn field_list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let written = one_or_many(from)?;
    if written == ["all"] {
        return Ok(Vec::new());
    }
    let fields = written.iter().flat_map(|text| text.split(','));
    Ok(fields.map(|field| field.trim().to_owned()).collect())
}
