//! [`ParquetTable`]: rows of one entity type as a Parquet file.
//!
//! The type of a column follows from the data type of its field, so a file without a row,
//! or with nulls alone, has the same columns as any other. Links and lists are JSON text, as
//! in CSV: readers of nested columns disagree about lists that are null.

use std::fs::File;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use serde_json::Value;

use crate::api3::decoded_value;
use crate::entity::Shape;
use crate::entity_config::TypeLayout;
use crate::store::Row;

/// Rows of one row group: what is in memory before it is written.
const GROUP_ROWS: usize = 10_000;

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    /// A value that its column cannot hold.
    #[error("{0}")]
    Value(String),
    /// The file.
    #[error(transparent)]
    File(#[from] ParquetError),
    /// The thread that writes ended before it was done.
    #[error("the writer ended early")]
    Broken,
}

/// A file that rows are written to.
pub(super) struct ParquetTable {
    columns: Arc<[Column]>,
    /// `None` while a thread writes with it.
    writer: Option<SerializedFileWriter<File>>,
    waiting: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    kind: Kind,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Bool,
    Date,
    Moment,
    Text,
}

/// The values of a column that are not null, and for each row whether there is one.
#[derive(Debug, Default)]
struct Cells {
    levels: Vec<i16>,
    ints: Vec<i64>,
    days: Vec<i32>,
    floats: Vec<f64>,
    bools: Vec<bool>,
    texts: Vec<ByteArray>,
}

impl ParquetTable {
    /// Begins a file with the columns `id`, `type` and those of the fields.
    pub fn begin(file: File, layout: &TypeLayout, names: &[String]) -> Result<ParquetTable, TableError> {
        let kind = |name: &String| layout.field(name).map_or(Kind::Text, |field| Kind::of(field.data_type.shape()));
        let columns: Arc<[Column]> = names.iter().map(|name| Column { name: name.clone(), kind: kind(name) }).collect();
        let mut fields = vec![
            Arc::new(Kind::Int.column("id", Repetition::REQUIRED)?),
            Arc::new(Kind::Text.column("type", Repetition::REQUIRED)?),
        ];
        for Column { name, kind } in columns.iter() {
            fields.push(Arc::new(kind.column(name, Repetition::OPTIONAL)?));
        }
        let schema = Type::group_type_builder(layout.entity_type.as_str()).with_fields(fields).build()?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("sgcache ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))?;
        Ok(ParquetTable { columns, writer: Some(writer), waiting: Vec::new() })
    }

    /// Adds rows.
    pub async fn write(&mut self, rows: Vec<Row>) -> Result<(), TableError> {
        self.waiting.extend(rows);
        if self.waiting.len() >= GROUP_ROWS { self.write_group(false).await } else { Ok(()) }
    }

    /// Writes what is left and the end of the file.
    pub async fn finish(mut self) -> Result<(), TableError> {
        self.write_group(true).await
    }

    /// Encodes on a thread that may wait: a group takes tens of milliseconds.
    async fn write_group(&mut self, is_last: bool) -> Result<(), TableError> {
        let (rows, columns) = (std::mem::take(&mut self.waiting), Arc::clone(&self.columns));
        let mut writer = self.writer.take().ok_or(TableError::Broken)?;
        let written = tokio::task::spawn_blocking(move || {
            if !rows.is_empty() {
                write_rows(&mut writer, &columns, &rows)?;
            }
            if is_last {
                writer.finish()?;
            }
            Ok::<_, TableError>(writer)
        });
        self.writer = Some(written.await.map_err(|_| TableError::Broken)??);
        Ok(())
    }
}

fn write_rows(writer: &mut SerializedFileWriter<File>, columns: &[Column], rows: &[Row]) -> Result<(), TableError> {
    let mut ids = Cells::default();
    let mut types = Cells::default();
    let mut cells: Vec<Cells> = columns.iter().map(|_| Cells::default()).collect();
    for row in rows {
        ids.ints.push(row.key.id);
        types.texts.push(row.key.entity_type.as_str().into());
        let mut fields = row.fields();
        for (column, cells) in columns.iter().zip(&mut cells) {
            let value = decoded_value(fields.remove(&column.name).unwrap_or_default());
            cells.push(column.kind, value).map_err(|value| {
                let (key, name) = (&row.key, &column.name);
                let what = column.kind.words();
                TableError::Value(format!("{key}: {name} is {value}, not {what}; leave it out with `fields`"))
            })?;
        }
    }
    let mut group = writer.next_row_group()?;
    for cells in [ids, types].iter().chain(&cells) {
        let mut column = group.next_column()?.ok_or(TableError::Broken)?;
        cells.write(column.untyped())?;
        column.close()?;
    }
    group.close()?;
    Ok(())
}

impl Kind {
    fn of(shape: Shape) -> Kind {
        match shape {
            Shape::Int => Kind::Int,
            Shape::Float => Kind::Float,
            Shape::Bool => Kind::Bool,
            Shape::Date => Kind::Date,
            Shape::DateTime => Kind::Moment,
            Shape::Text | Shape::ExactText | Shape::Link | Shape::Links | Shape::Presence | Shape::Opaque => Kind::Text,
        }
    }

    fn column(self, name: &str, repetition: Repetition) -> Result<Type, ParquetError> {
        let (physical, logical) = match self {
            Kind::Int => (Physical::INT64, None),
            Kind::Float => (Physical::DOUBLE, None),
            Kind::Bool => (Physical::BOOLEAN, None),
            Kind::Date => (Physical::INT32, Some(LogicalType::Date)),
            Kind::Moment => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        let column = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        column.with_logical_type(logical).build()
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Int => "a whole number",
            Kind::Float => "a number",
            Kind::Bool => "true or false",
            Kind::Date => "a date",
            Kind::Moment => "a moment",
            Kind::Text => "a text",
        }
    }
}

impl Cells {
    /// Adds a value; one that the column cannot hold comes back.
    fn push(&mut self, kind: Kind, value: Value) -> Result<(), Value> {
        self.levels.push(i16::from(!value.is_null()));
        match (kind, &value) {
            (_, Value::Null) => {}
            (Kind::Int, value) if value.is_i64() => self.ints.extend(value.as_i64()),
            (Kind::Float, value) if value.is_number() => self.floats.extend(value.as_f64()),
            (Kind::Bool, Value::Bool(value)) => self.bools.push(*value),
            (Kind::Date, Value::String(text)) => match text.parse::<NaiveDate>() {
                Ok(day) => self.days.push(day.to_epoch_days()),
                Err(_) => return Err(value),
            },
            (Kind::Moment, Value::String(text)) => match DateTime::parse_from_rfc3339(text) {
                Ok(at) => self.ints.push(at.timestamp_micros()),
                Err(_) => return Err(value),
            },
            (Kind::Text, Value::String(text)) => self.texts.push(text.as_str().into()),
            (Kind::Text, other) => self.texts.push(other.to_string().into_bytes().into()),
            _ => return Err(value),
        }
        Ok(())
    }

    fn write(&self, column: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        // `id` and `type` are in every row: nothing says so again.
        let levels = Some(self.levels.as_slice()).filter(|levels| !levels.is_empty());
        let written = match column {
            ColumnWriter::Int64ColumnWriter(column) => column.write_batch(&self.ints, levels, None),
            ColumnWriter::Int32ColumnWriter(column) => column.write_batch(&self.days, levels, None),
            ColumnWriter::DoubleColumnWriter(column) => column.write_batch(&self.floats, levels, None),
            ColumnWriter::BoolColumnWriter(column) => column.write_batch(&self.bools, levels, None),
            ColumnWriter::ByteArrayColumnWriter(column) => column.write_batch(&self.texts, levels, None),
            _ => Err(ParquetError::General("a column of another type".to_owned())),
        };
        written.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_its_column_cannot_hold_is_no_null() {
        let wrong = [
            (Kind::Int, json!(1.5)),
            (Kind::Int, json!("1")),
            (Kind::Float, json!(true)),
            (Kind::Bool, json!(0)),
            (Kind::Date, json!("2026-02-30")),
            (Kind::Moment, json!("2026-02-03 04:05")),
        ];
        for (kind, value) in wrong {
            assert_eq!(Cells::default().push(kind, value.clone()), Err(value), "{kind:?}");
        }
        let mut cells = Cells::default();
        for value in [json!("1970-01-02"), Value::Null, json!("1969-12-31")] {
            cells.push(Kind::Date, value).expect("a date");
        }
        assert_eq!((cells.days, cells.levels), (vec![1, -1], vec![1, 0, 1]));
    }
}
