//! Writing rows: versions compared, only what differs written.
//!
//! SQLite writes every index whose column a statement names, also with the same
//! value; so an update names the changed columns and no others.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Transaction, params, params_from_iter};
use serde_json::{Map, Value};

use super::super::{FetchedRow, PutOutcome, ReadVersion, Result, RowState, StoreError, StoreErrorKind};
use super::column::{self, Column};
use super::layouts::{Layouts, Numbers, Tables};
use super::targets::{self, Learned};
use crate::entity::{EntityRef, FieldValue, Link, Shape};

/// The first byte of a document: what follows is JSON text.
const PLAIN_JSON: u8 = 1;

/// The elements of lists of links: number of the field, number of the type, id.
type Elements = BTreeSet<(i64, i64, i64)>;

/// Writes rows.
pub(super) fn put(transaction: &Transaction<'_>, layouts: &Layouts, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
    for row in rows {
        layouts.tables(&row.key().entity_type)?;
    }
    let mut batch =
        Batch { transaction, layouts, numbers: Numbers::new(transaction, layouts), learned: BTreeMap::new() };
    let outcomes = rows.iter().map(|row| batch.put(row)).collect::<Result<Vec<_>>>()?;
    targets::learn(transaction, &batch.learned)?;
    Ok(outcomes)
}

/// What a row becomes in the tables.
#[derive(Default)]
struct Cells {
    values: Vec<(String, Sql)>,
    elements: Elements,
}

struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    layouts: &'a Layouts,
    numbers: Numbers<'a>,
    learned: Learned,
}

impl Batch<'_> {
    fn put(&mut self, row: &FetchedRow) -> Result<PutOutcome> {
        let tables = self.layouts.tables(&row.key().entity_type)?;
        let id = row.key().id;
        let sql = format!("SELECT rv FROM {} WHERE id = ?1", tables.rows());
        let known: Option<i64> = self.transaction.prepare_cached(&sql)?.query_row([id], |r| r.get(0)).optional()?;
        if known.is_some_and(|rv| ReadVersion(rv) >= row.rv()) {
            return Ok(PutOutcome::Stale);
        }
        if let Some(problem) = row.problem(&tables.layout.cached) {
            return Ok(PutOutcome::Refused(problem));
        }
        let mut cells = self.cells(tables.columns(), row.doc())?;
        cells.values.extend([
            ("rv".to_owned(), Sql::Integer(row.rv().0)),
            ("state".to_owned(), Sql::Integer(number_of(row.state()))),
            ("hash".to_owned(), Sql::Blob(row.hash().0.to_be_bytes().to_vec())),
            ("fetched".to_owned(), Sql::Integer(row.fetched_at().0)),
            ("event".to_owned(), row.last_event().map_or(Sql::Null, |event| Sql::Integer(event.0))),
        ]);
        match known {
            None => insert(self.transaction, tables, id, &cells.values)?,
            Some(_) => update(self.transaction, tables, id, &cells.values)?,
        }
        write_elements(self.transaction, tables, id, &cells.elements)?;
        write_document(self.transaction, tables, id, row)?;
        targets::own_row(self.transaction, tables, row)?;
        self.learn_names(row)?;
        Ok(PutOutcome::Written)
    }

    fn cells(&mut self, columns: impl Iterator<Item = Column>, doc: &Map<String, Value>) -> Result<Cells> {
        cells(&mut self.numbers, columns, doc)
    }

    fn learn_names(&mut self, row: &FetchedRow) -> Result<()> {
        let tables = self.layouts.tables(&row.key().entity_type)?;
        for column in tables.columns().filter(|column| matches!(column.shape(), Shape::Link | Shape::Links)) {
            let Some(value) = row.doc().get(&column.field) else { continue };
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for link in items.iter().filter_map(Link::from_json) {
                let Some(name) = link.name else { continue };
                let target = (self.numbers.of(link.target.entity_type.as_str())?, link.target.id);
                let newest = self.learned.entry(target).or_insert_with(|| (name.clone(), row.rv()));
                if newest.1 < row.rv() {
                    *newest = (name, row.rv());
                }
            }
        }
        Ok(())
    }
}

/// Returns what the fields of a document become. A value that its data type does
/// not allow, possible only in a document of an older layout, becomes null.
fn cells(numbers: &mut Numbers<'_>, columns: impl Iterator<Item = Column>, doc: &Map<String, Value>) -> Result<Cells> {
    let mut cells = Cells::default();
    for column in columns {
        let value = doc.get(&column.field).map(|value| FieldValue::from_json(column.data_type, value));
        let value = value.and_then(|parsed| parsed.ok()).unwrap_or_default();
        match column.shape() {
            Shape::Opaque => {}
            Shape::Links => {
                for link in value.links() {
                    let ty = numbers.of(link.target.entity_type.as_str())?;
                    cells.elements.insert((column.number, ty, link.target.id));
                }
            }
            Shape::Link => {
                let (ty_name, id_name) = column.link_names();
                let (mut ty, mut id) = (Sql::Null, Sql::Null);
                if let FieldValue::Link(link) = &value {
                    ty = Sql::Integer(numbers.of(link.target.entity_type.as_str())?);
                    id = Sql::Integer(link.target.id);
                }
                cells.values.extend([(ty_name, ty), (id_name, id)]);
            }
            _ => cells.values.push((column.name(), column::stored(column.data_type, &value))),
        }
    }
    Ok(cells)
}

fn insert(transaction: &Transaction<'_>, tables: &Tables, id: i64, values: &[(String, Sql)]) -> Result<()> {
    let names: String = values.iter().map(|(name, _)| format!(", {name}")).collect();
    let places = ", ?".repeat(values.len());
    let sql = format!("INSERT INTO {} (id{names}) VALUES (?{places})", tables.rows());
    let id = Sql::Integer(id);
    let parameters = std::iter::once(&id).chain(values.iter().map(|(_, value)| value));
    transaction.prepare_cached(&sql)?.execute(params_from_iter(parameters))?;
    Ok(())
}

/// Writes the values that differ from those of the row.
fn update(transaction: &Transaction<'_>, tables: &Tables, id: i64, values: &[(String, Sql)]) -> Result<()> {
    let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
    let sql = format!("SELECT {} FROM {} WHERE id = ?1", names.join(", "), tables.rows());
    let old: Vec<Sql> = transaction
        .prepare_cached(&sql)?
        .query_row([id], |row| (0..values.len()).map(|index| row.get(index)).collect())?;
    let changed: Vec<_> = values.iter().zip(&old).filter(|((_, new), old)| new != *old).map(|(new, _)| new).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let assignments: Vec<_> = changed.iter().map(|(name, _)| format!("{name} = ?")).collect();
    let sql = format!("UPDATE {} SET {} WHERE id = ?", tables.rows(), assignments.join(", "));
    let id = Sql::Integer(id);
    let parameters = changed.iter().map(|(_, value)| value).chain(std::iter::once(&id));
    transaction.prepare_cached(&sql)?.execute(params_from_iter(parameters))?;
    Ok(())
}

fn write_elements(transaction: &Transaction<'_>, tables: &Tables, id: i64, elements: &Elements) -> Result<()> {
    let links = tables.links();
    let sql = format!("SELECT field, type, target FROM {links} WHERE id = ?1");
    let old: Elements = transaction
        .prepare_cached(&sql)?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let delete = format!("DELETE FROM {links} WHERE field = ?1 AND type = ?2 AND target = ?3 AND id = ?4");
    for (field, ty, target) in old.difference(elements) {
        transaction.prepare_cached(&delete)?.execute([*field, *ty, *target, id])?;
    }
    let insert = format!("INSERT INTO {links} (field, type, target, id) VALUES (?1, ?2, ?3, ?4)");
    for (field, ty, target) in elements.difference(&old) {
        transaction.prepare_cached(&insert)?.execute([*field, *ty, *target, id])?;
    }
    Ok(())
}

fn write_document(transaction: &Transaction<'_>, tables: &Tables, id: i64, row: &FetchedRow) -> Result<()> {
    let docs = tables.docs();
    if !row.state().has_document() {
        transaction.prepare_cached(&format!("DELETE FROM {docs} WHERE id = ?1"))?.execute([id])?;
        return Ok(());
    }
    let body = encode(row.doc())?;
    let sql = format!(
        "INSERT INTO {docs} (id, body) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET body = excluded.body WHERE body <> excluded.body"
    );
    transaction.prepare_cached(&sql)?.execute(params![id, body])?;
    Ok(())
}

/// Returns the bytes of a document.
fn encode(doc: &Map<String, Value>) -> Result<Vec<u8>> {
    let mut body = vec![PLAIN_JSON];
    serde_json::to_writer(&mut body, doc)
        .map_err(|error| StoreError::new(StoreErrorKind::Fault, "a document cannot be written").because(error))?;
    Ok(body)
}

/// Returns the JSON text of a document.
pub(super) fn decode(body: &[u8]) -> Result<&[u8]> {
    match body.split_first() {
        Some((&PLAIN_JSON, text)) => Ok(text),
        _ => Err(StoreError::new(StoreErrorKind::Corrupt, "a document of the store has an unknown encoding")),
    }
}

fn parse(body: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(decode(body)?)
        .map_err(|error| StoreError::new(StoreErrorKind::Corrupt, "a document of the store is damaged").because(error))
}

/// Fills new columns from the documents that have their fields.
pub(super) fn fill(
    transaction: &Transaction<'_>,
    layouts: &Layouts,
    tables: &Tables,
    columns: &[Column],
) -> Result<()> {
    if columns.is_empty() {
        return Ok(());
    }
    let mut numbers = Numbers::new(transaction, layouts);
    let mut statement = transaction.prepare(&format!("SELECT id, body FROM {}", tables.docs()))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (id, doc) = (row.get(0)?, parse(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?);
        let present = columns.iter().filter(|column| doc.contains_key(&column.field)).cloned();
        let cells = cells(&mut numbers, present, &doc)?;
        if !cells.values.is_empty() {
            update(transaction, tables, id, &cells.values)?;
        }
        let sql = format!("INSERT OR IGNORE INTO {} (field, type, target, id) VALUES (?1, ?2, ?3, ?4)", tables.links());
        for (field, ty, target) in &cells.elements {
            transaction.prepare_cached(&sql)?.execute([*field, *ty, *target, id])?;
        }
    }
    Ok(())
}

/// See [`super::super::Store::corrupt`].
pub(super) fn corrupt(
    transaction: &Transaction<'_>,
    layouts: &Layouts,
    key: &EntityRef,
    field: &str,
    value: Value,
) -> Result<()> {
    let tables = layouts.tables(&key.entity_type)?;
    let refuse = |message: String| StoreError::new(StoreErrorKind::Refused, message);
    let data_type = tables.column(field).map(|column| column.data_type);
    let data_type = data_type.ok_or_else(|| refuse(format!("`{}.{field}` is not cached", key.entity_type)))?;
    FieldValue::from_json(data_type, &value).map_err(|error| refuse(format!("{key}.{field}: {error}")))?;
    let sql = format!("SELECT body FROM {} WHERE id = ?1", tables.docs());
    let body: Option<Vec<u8>> = transaction.query_row(&sql, [key.id], |row| row.get(0)).optional()?;
    let mut doc = parse(&body.ok_or_else(|| refuse(format!("{key} is not stored")))?)?;
    doc.insert(field.to_owned(), value);
    let cells = cells(&mut Numbers::new(transaction, layouts), tables.columns(), &doc)?;
    update(transaction, tables, key.id, &cells.values)?;
    write_elements(transaction, tables, key.id, &cells.elements)?;
    let sql = format!("UPDATE {} SET body = ?2 WHERE id = ?1", tables.docs());
    transaction.execute(&sql, params![key.id, encode(&doc)?])?;
    Ok(())
}

/// Returns the number that stands for a state in the narrow table.
pub(super) fn number_of(state: RowState) -> i64 {
    match state {
        RowState::Active => 0,
        RowState::Retired => 1,
        RowState::Absent => 2,
        RowState::Filtered => 3,
    }
}

/// Returns the state that a number stands for.
pub(super) fn state_of(number: i64) -> Option<RowState> {
    [RowState::Active, RowState::Retired, RowState::Absent, RowState::Filtered]
        .into_iter()
        .find(|state| number_of(*state) == number)
}
