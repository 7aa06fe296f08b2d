//! What the job `export` does: it writes stored rows to files, type by type, by id.
//!
//! A file appears whole or not at all: it is written beside its place and renamed. Rows
//! are as `shotgun_api3.find` returns them.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, BufWriter};

use super::job_arguments::{ExportArgs, ExportFormat, ExportTarget};
use super::jobs::{Jobs, invalid};
use super::parquet_table::{ParquetTable, TableError};
use super::runner::JobError;
use super::{ErrorClass, FilterOperator};
use crate::api3::decoded_value;
use crate::entity_config::TypeLayout;
use crate::filter::{FieldPath, Filter, Page, Query, RawFilter, RawSort};
use crate::report::StepResult;
use crate::store::Row;
use crate::validate::SoFar;

/// Rows that are read from the store at once.
const PAGE_ROWS: u32 = 1000;
/// What messages call it.
const STDOUT: &str = "the standard output";

/// How the rows of a type are written.
enum Form {
    /// One after the other.
    Lines(fn(&Row, &[String]) -> String),
    /// Column by column.
    Table(Box<ParquetTable>),
}

/// A file, or the standard output, that rows are written to.
struct Output {
    writer: BufWriter<File>,
    /// Where it is written, and its place when it is whole.
    paths: Option<(PathBuf, PathBuf)>,
}

impl Jobs {
    pub(super) async fn export(&self, args: &ExportArgs, so_far: &SoFar) -> Result<StepResult, JobError> {
        let mut result = StepResult::default();
        let mut files: Vec<String> = Vec::new();
        let mut shared: Option<Output> = None;
        for layout in self.types(&args.types)? {
            let layout = self.replica.current(&layout);
            let target = args.file.for_type(&self.directory, layout.entity_type.as_str());
            let mut output = match shared.take() {
                Some(shared) => shared,
                None => Output::open(target.as_deref()).await?,
            };
            let rows = self.export_type(&layout, args, &mut output).await?;
            if args.file.has_place_of_type() {
                files.extend(output.finish().await?);
            } else {
                shared = Some(output);
            }
            result.by_type.entry(layout.entity_type.to_string()).or_default().written = rows;
            result.sum_up();
            so_far.set(result.clone());
        }
        if let Some(shared) = shared {
            files.extend(shared.finish().await?);
        }
        if !files.is_empty() {
            result.outputs.insert("files".into(), files.into());
        }
        Ok(result)
    }

    /// Writes the rows of a type; returns how many.
    async fn export_type(&self, layout: &TypeLayout, args: &ExportArgs, output: &mut Output) -> Result<u64, JobError> {
        let names = export_fields(layout, args)?;
        let filter = self.export_filter(layout, args)?.at(self.replica.now().timestamp());
        let fields: Vec<FieldPath> = self.schema.fields(&layout.entity_type, &names);
        let by_id = [RawSort { path: "id".to_owned(), descending: false }];
        let order = self.schema.order(&layout.entity_type, &by_id);
        if args.format == ExportFormat::Csv {
            let header = ["id", "type"].into_iter().chain(names.iter().map(String::as_str));
            output.write(&csv_line(header.map(str::to_owned))).await?;
        }
        let mut form = match args.format {
            ExportFormat::Ndjson => Form::Lines(json_row),
            ExportFormat::Csv => Form::Lines(csv_row),
            ExportFormat::Parquet => Form::Table(Box::new(output.table(layout, &names).await?)),
        };
        let (mut after, mut written) = (0, 0);
        loop {
            let query = Query::all(layout.entity_type.clone())
                .filter(Filter::id_after(after).and(filter.clone()))
                .fields(fields.clone())
                .order(order.clone())
                .page(Page::first(PAGE_ROWS));
            let found = self.replica.store().find(&query).await?;
            written += found.rows.len() as u64;
            let last = found.rows.last().filter(|_| found.has_next_page).map(|last| last.key.id);
            match &mut form {
                Form::Table(table) => table.write(found.rows).await.map_err(|error| output.table_failed(error))?,
                Form::Lines(line) => {
                    for row in &found.rows {
                        output.write(&line(row, &names)).await?;
                    }
                }
            }
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
        if let Form::Table(table) = form {
            table.finish().await.map_err(|error| output.table_failed(error))?;
        }
        Ok(written)
    }

    fn export_filter(&self, layout: &TypeLayout, args: &ExportArgs) -> Result<Filter, JobError> {
        let any = args.filter_operator == FilterOperator::Any;
        let raw = match &args.filters {
            Value::Null => return Ok(Filter::everything()),
            Value::String(text) => RawFilter::parse(text, any),
            lists => RawFilter::from_lists(lists, any),
        };
        let raw = raw.map_err(|error| invalid(format!("filters: {error}")))?;
        self.schema
            .filter(&layout.entity_type, &raw)
            .map_err(|fault| invalid(format!("filters: {}: {}", layout.entity_type, fault.message)))
    }
}

/// Returns the fields to write, `id` and `type` left out: they are in each row.
fn export_fields(layout: &TypeLayout, args: &ExportArgs) -> Result<Vec<String>, JobError> {
    let cached: Vec<String> = layout.field_names().into_iter().filter(|name| !is_key(name)).collect();
    if args.fields.is_empty() {
        return Ok(cached);
    }
    let unknown = args.fields.iter().find(|name| !is_key(name) && !cached.contains(name));
    if let Some(name) = unknown {
        return Err(invalid(format!("{}.{name} is not cached", layout.entity_type)));
    }
    let mut names: Vec<String> = Vec::new();
    for name in args.fields.iter().filter(|name| !is_key(name)) {
        // A table has each column once.
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    Ok(names)
}

fn is_key(name: &str) -> bool {
    matches!(name, "id" | "type")
}

fn json_row(row: &Row, names: &[String]) -> String {
    let mut fields = row.fields();
    let mut value = |name: &String| decoded_value(fields.remove(name).unwrap_or_default());
    let mut record: Map<String, Value> = names.iter().map(|name| (name.clone(), value(name))).collect();
    record.insert("id".into(), row.key.id.into());
    record.insert("type".into(), row.key.entity_type.as_str().into());
    format!("{}\n", Value::Object(record))
}

fn csv_row(row: &Row, names: &[String]) -> String {
    let mut fields = row.fields();
    let value = |name: &String| decoded_value(fields.remove(name).unwrap_or_default());
    let key = [row.key.id.to_string(), row.key.entity_type.as_str().to_owned()];
    csv_line(key.into_iter().chain(names.iter().map(value).map(cell)))
}

fn cell(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Returns one line as RFC 4180 has it, ended by a line feed as other programs here do.
fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    };
    format!("{}\n", cells.map(quoted).collect::<Vec<_>>().join(","))
}

impl ExportTarget {
    /// Returns the file for the rows of a type; `None` is the standard output.
    fn for_type(&self, directory: &Path, entity_type: &str) -> Option<PathBuf> {
        match self {
            ExportTarget::Stdout => None,
            ExportTarget::File(path) => Some(directory.join(path.replace("{type}", entity_type))),
        }
    }
}

impl Output {
    async fn open(path: Option<&Path>) -> Result<Output, JobError> {
        let Some(path) = path else {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            let stdout = stdout.map_err(|error| failed(Path::new(STDOUT), &error))?;
            return Ok(Output { writer: BufWriter::new(File::from_std(stdout.into())), paths: None });
        };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(invalid(format!("{} is not the name of a file", path.display())));
        };
        let partial = path.with_file_name(format!(".{name}.partial"));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).await.map_err(|error| failed(directory, &error))?;
        }
        let file = File::create(&partial).await.map_err(|error| failed(&partial, &error))?;
        Ok(Output { writer: BufWriter::new(file), paths: Some((partial, path.to_owned())) })
    }

    async fn write(&mut self, text: &str) -> Result<(), JobError> {
        self.writer.write_all(text.as_bytes()).await.map_err(|error| failed(self.path(), &error))
    }

    /// Begins a table at the beginning of the file.
    async fn table(&self, layout: &TypeLayout, names: &[String]) -> Result<ParquetTable, JobError> {
        let file = self.writer.get_ref().try_clone().await.map_err(|error| failed(self.path(), &error))?;
        ParquetTable::begin(file.into_std().await, layout, names).map_err(|error| self.table_failed(error))
    }

    fn table_failed(&self, error: TableError) -> JobError {
        match error {
            TableError::Value(reason) => invalid(reason),
            other => JobError::new(ErrorClass::Store, format!("{} cannot be written: {other}", self.path().display())),
        }
    }

    /// Puts a file that is whole in its place, and returns that.
    async fn finish(mut self) -> Result<Option<String>, JobError> {
        self.writer.flush().await.map_err(|error| failed(self.path(), &error))?;
        let Some((partial, path)) = &self.paths else { return Ok(None) };
        fs::rename(partial, path).await.map_err(|error| failed(path, &error))?;
        Ok(Some(path.display().to_string()))
    }

    fn path(&self) -> &Path {
        self.paths.as_ref().map_or(Path::new(STDOUT), |(_, path)| path)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.paths {
            // It is gone when the export was finished; what is left of another is of no use.
            let _ = std::fs::remove_file(partial);
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> JobError {
    JobError::new(ErrorClass::Store, format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_separators_are_quoted() {
        let cells = ["1", "a,b", "say \"no\"", "two\nlines", ""].map(str::to_owned);
        assert_eq!(csv_line(cells.into_iter()), "1,\"a,b\",\"say \"\"no\"\"\",\"two\nlines\",\n");
    }
}
