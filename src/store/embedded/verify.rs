//! Compares what queries look at with the documents, row by row, and the file with
//! what SQLite and the file system say of it.
//!
//! A document has a checksum; its columns and elements of lists have none, but all
//! of them follow from the document. So a row is whole when its document is, and
//! when the columns are those that the document gives.

use std::collections::BTreeSet;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};
use serde_json::{Map, Value};

use super::super::{Result, StoreError, StoreErrorKind, Verified};
use super::column::{self, Column};
use super::definitions;
use super::layouts::{Layouts, Tables};
use super::put::{self, state_of};
use crate::entity::{EntityRef, FieldValue, RowState, Shape};

/// The elements of lists of links of a row: number of the field, number of the type,
/// id.
type Elements = BTreeSet<(i64, i64, i64)>;

/// See [`super::super::Store::verify`].
pub(super) fn verify(
    reader: &Connection,
    layouts: &Layouts,
    tables: &Tables,
    after_id: i64,
    limit: usize,
) -> Result<Verified> {
    let (rows, docs) = (tables.rows(), tables.docs());
    let names: Vec<String> = tables.columns().iter().flat_map(Column::names).collect();
    let list: String = names.iter().map(|name| format!(", r.{name}")).collect();
    let sql = format!(
        "SELECT r.id, r.state, d.body{list} FROM {rows} r LEFT JOIN {docs} d ON d.id = r.id
         WHERE r.id > ?1 ORDER BY r.id LIMIT ?2"
    );
    let mut statement = reader.prepare_cached(&sql)?;
    let mut found = statement.query(params![after_id, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut verified = Verified::default();
    while let Some(row) = found.next()? {
        let key = EntityRef { entity_type: tables.entity_type().clone(), id: row.get(0)? };
        verified.last = Some(key.id);
        verified.rows += 1;
        let values = (0..names.len()).map(|index| row.get(index + 3)).collect::<rusqlite::Result<Vec<Sql>>>()?;
        let body: Option<Vec<u8>> = row.get(2).unwrap_or_default();
        let state = state_of(row.get(1)?);
        let damage = damage(reader, layouts, tables, &key, state, body.as_deref(), &values)?;
        verified.damaged.extend(damage.map(|reason| (key.id, reason)));
    }
    Ok(verified)
}

/// Returns what is wrong with a row.
fn damage(
    reader: &Connection,
    layouts: &Layouts,
    tables: &Tables,
    key: &EntityRef,
    state: Option<RowState>,
    body: Option<&[u8]>,
    values: &[Sql],
) -> Result<Option<String>> {
    let Some(state) = state else { return Ok(Some("its state is unknown".into())) };
    if !state.has_document() {
        return Ok(None);
    }
    let Some(body) = body else { return Ok(Some("its document is missing".into())) };
    let doc = match put::parse(key, body) {
        Ok(doc) => doc,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let (expected, elements) = expected(layouts, tables, &doc);
    if expected != values {
        return Ok(Some("its columns are not those of its document".into()));
    }
    let mut select = reader.prepare_cached(&tables.statements.elements)?;
    let stored = select.query_map([key.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let stored: Elements = stored.collect::<rusqlite::Result<_>>()?;
    Ok((stored != elements).then(|| "its lists of links are not those of its document".into()))
}

/// Returns the columns and elements that a document gives. A field that was
/// configured after the row was read has no value in either.
fn expected(layouts: &Layouts, tables: &Tables, doc: &Map<String, Value>) -> (Vec<Sql>, Elements) {
    let (mut values, mut elements) = (Vec::new(), Elements::new());
    for column in tables.columns() {
        let value = doc.get(&column.field).map(|value| FieldValue::from_json(column.data_type, value));
        // A document of an older layout may hold a value of another data type.
        let value = value.and_then(std::result::Result::ok).unwrap_or_default();
        match column.shape() {
            Shape::Opaque => {}
            Shape::Links => elements.extend(value.links().iter().map(|link| {
                let ty = layouts.number(link.target.entity_type.as_str());
                (column.number, ty, link.target.id)
            })),
            Shape::Link => match &value {
                FieldValue::Link(link) => {
                    let ty = layouts.number(link.target.entity_type.as_str());
                    values.extend([Sql::Integer(ty), Sql::Integer(link.target.id)]);
                }
                _ => values.extend([Sql::Null, Sql::Null]),
            },
            _ => values.push(column::stored(column.data_type, &value)),
        }
    }
    (values, elements)
}

/// Asks SQLite whether the structure of the file is whole, and compares the definitions of
/// its tables: every page is read, at about a gigabyte in a second.
pub(super) fn check_file(reader: &Connection, layouts: &Layouts) -> Result<()> {
    let words: String = reader.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if words != "ok" {
        return Err(StoreError::new(StoreErrorKind::Corrupt, format!("the file of the store is damaged: {words}")));
    }
    definitions::check(reader, layouts.all())
}
