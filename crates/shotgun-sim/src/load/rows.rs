//! Rows as they stand in a file: JSON, YAML or CSV.
//!
//! Three shapes are read: an object of lists by entity type, which is the form of
//! a seed; a list of rows that each name their type, which is what `find` returns;
//! and a table whose file is named after its type, which is what a page exports.

use std::path::Path;

use serde_json::{Map, Value};

use super::{LoadError, csv};
use config_file::Document;

/// The file of a folder that holds the answer of `schema_read`, and no rows.
const SCHEMA: &str = "schema.json";

/// Reads what `schema_read` answered on the site whose rows a folder holds.
///
/// # Errors
///
/// [`LoadError`] with the file.
pub fn read_schema(path: &Path) -> Result<Option<Value>, LoadError> {
    let path = path.join(SCHEMA);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(|error| LoadError::of(&path, error))?;
    let mut schema: Value = serde_json::from_slice(&bytes).map_err(|error| LoadError::of(&path, error))?;
    // The answer itself, or what the client returns of it.
    let results = schema.get_mut("results").map(Value::take);
    Ok(Some(results.unwrap_or(schema)))
}

/// The rows of one type, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The entity type.
    pub entity_type: String,
    /// The fields of each row.
    pub rows: Vec<Map<String, Value>>,
}

/// Reads a file, or every file of a folder in the order of their names.
///
/// # Errors
///
/// [`LoadError`] with the file.
pub fn read(path: &Path) -> Result<Vec<Rows>, LoadError> {
    if !path.is_dir() {
        return read_file(path);
    }
    let entries = std::fs::read_dir(path).map_err(|error| LoadError::of(path, error))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|file| matches!(extension(file), "json" | "yaml" | "yml" | "csv"));
    files.retain(|file| !file.ends_with(SCHEMA));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(read_file(&file)?);
    }
    Ok(all)
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|end| end.to_str()).unwrap_or_default()
}

fn read_file(path: &Path) -> Result<Vec<Rows>, LoadError> {
    let wrong = |words: String| LoadError::of(path, words);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    match extension(path) {
        "csv" => {
            let text = std::fs::read_to_string(path).map_err(|error| LoadError::of(path, error))?;
            let rows = csv::parse(&text).map_err(|line| wrong(format!("line {line}: a quote is never closed")))?;
            Ok(vec![Rows { entity_type: stem, rows: table(rows) }])
        }
        "json" => {
            // A dump may be larger than anything that a person writes.
            let bytes = std::fs::read(path).map_err(|error| LoadError::of(path, error))?;
            let value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            by_type(value, &stem).map_err(wrong)
        }
        _ => {
            let document = Document::read(path, &path.display().to_string());
            let document = document.map_err(|problems| wrong(problems.render(false)))?;
            by_type(document.value().clone(), &stem).map_err(wrong)
        }
    }
}

fn table(rows: Vec<Vec<String>>) -> Vec<Map<String, Value>> {
    let mut rows = rows.into_iter();
    let Some(names) = rows.next() else { return Vec::new() };
    let object = |cells: Vec<String>| names.iter().cloned().zip(cells.into_iter().map(Value::String)).collect();
    rows.map(object).collect()
}

/// Sorts rows by their types. A list of rows without types has the type that its
/// file is named after.
pub fn by_type(value: Value, stem: &str) -> Result<Vec<Rows>, String> {
    match value {
        Value::Object(types) => {
            types.into_iter().map(|(entity_type, rows)| Ok(Rows { rows: objects(rows)?, entity_type })).collect()
        }
        Value::Array(_) => {
            let mut all: Vec<Rows> = Vec::new();
            for row in objects(value)? {
                let entity_type = row.get("type").and_then(Value::as_str).unwrap_or(stem).to_owned();
                match all.iter_mut().find(|rows| rows.entity_type == entity_type) {
                    Some(rows) => rows.rows.push(row),
                    None => all.push(Rows { entity_type, rows: vec![row] }),
                }
            }
            Ok(all)
        }
        other => Err(format!("expected rows by entity type, or a list of rows, found {other}")),
    }
}

fn objects(value: Value) -> Result<Vec<Map<String, Value>>, String> {
    let Value::Array(rows) = value else { return Err(format!("expected a list of rows, found {value}")) };
    let object = |row| match row {
        Value::Object(fields) => Ok(fields),
        other => Err(format!("expected a row, found {other}")),
    };
    rows.into_iter().map(object).collect()
}
