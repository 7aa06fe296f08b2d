//! Writing rows: versions compared, only what differs written.
//!
//! A row that is known is read first, so that an update names the changed columns
//! and no others.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::Value as Sql;
use rusqlite::{OptionalExtension, Transaction, params, params_from_iter};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::super::{FetchedRow, PutOutcome, ReadVersion, Result, RowState, StoreError, StoreErrorKind};
use super::changes;
use super::column::{self, Column};
use super::layouts::{Layouts, Numbers, Tables};
use super::targets::{self, Learned};
use crate::entity::{EntityRef, EntityType, FieldValue, Shape};

/// The first byte of a document: what follows is JSON text.
const PLAIN_JSON: u8 = 1;
/// The first byte of a document: eight bytes of XXH3 of the text follow, then the
/// text. A flipped bit in a value still is JSON; only a checksum shows it.
const CHECKED_JSON: u8 = 2;

/// The elements of lists of links: number of the field, number of the type, id.
pub(super) type Elements = BTreeSet<(i64, i64, i64)>;

/// Writes rows.
pub(super) fn put(transaction: &Transaction<'_>, layouts: &Layouts, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
    for row in rows {
        layouts.tables(&row.key().entity_type)?;
    }
    let mut batch =
        Batch { transaction, layouts, numbers: Numbers::new(transaction, layouts), learned: BTreeMap::new() };
    let outcomes = rows.iter().map(|row| batch.put(row)).collect::<Result<Vec<_>>>()?;
    targets::learn(transaction, &batch.learned)?;
    let mut written: BTreeMap<&EntityType, Vec<i64>> = BTreeMap::new();
    for (row, _) in rows.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == PutOutcome::Written) {
        written.entry(&row.key().entity_type).or_default().push(row.key().id);
    }
    for (entity_type, ids) in written {
        changes::note(transaction, layouts.tables(entity_type)?.number, ids.into_iter())?;
    }
    Ok(outcomes)
}

/// What a row becomes in the tables.
#[derive(Default)]
pub(super) struct Cells {
    /// What stands in the columns of the fields, in their order.
    pub(super) values: Vec<Sql>,
    pub(super) elements: Elements,
}

struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    layouts: &'a Layouts,
    numbers: Numbers<'a>,
    learned: Learned<'a>,
}

impl<'a> Batch<'a> {
    fn put(&mut self, row: &'a FetchedRow) -> Result<PutOutcome> {
        let tables = self.layouts.tables(&row.key().entity_type)?;
        let id = row.key().id;
        let mut version = self.transaction.prepare_cached(&tables.statements.version)?;
        let known: Option<i64> = version.query_row([id], |r| r.get(0)).optional()?;
        if known.is_some_and(|rv| ReadVersion(rv) >= row.rv()) {
            return Ok(PutOutcome::Stale);
        }
        let fields = if row.state().has_document() {
            match row.values(&tables.layout.cached) {
                Ok(fields) => fields,
                Err(problem) => return Ok(PutOutcome::Refused(problem)),
            }
        } else {
            tables.columns().iter().map(|_| Cow::Owned(FieldValue::Null)).collect()
        };
        let mut cells = Cells::default();
        for (column, field) in tables.columns().iter().zip(&fields) {
            cells.take(&mut self.numbers, column, field)?;
        }
        cells.values.extend([
            Sql::Integer(row.rv().0),
            Sql::Integer(number_of(row.state())),
            Sql::Blob(row.hash().0.to_be_bytes().to_vec()),
            Sql::Integer(row.fetched_at().0),
            row.last_event().map_or(Sql::Null, |event| Sql::Integer(event.0)),
        ]);
        if known.is_some() {
            update(self.transaction, tables, id, &cells.values)?;
        } else {
            let values = std::iter::once(Sql::Integer(id)).chain(cells.values);
            self.transaction.prepare_cached(&tables.statements.insert)?.execute(params_from_iter(values))?;
        }
        write_elements(self.transaction, tables, id, &cells.elements, known.is_some())?;
        write_document(self.transaction, tables, id, row)?;
        targets::own_row(self.transaction, tables, row)?;
        fields.into_iter().try_for_each(|field| self.learn_names(field, row.rv()))?;
        Ok(PutOutcome::Written)
    }

    /// Keeps the names in links for the end of the batch.
    fn learn_names(&mut self, field: Cow<'a, FieldValue>, rv: ReadVersion) -> Result<()> {
        match field {
            Cow::Borrowed(field) => field.links().iter().try_for_each(|link| {
                let name = link.name.as_deref().map(Cow::Borrowed);
                self.learn_name(&link.target, name, rv)
            }),
            Cow::Owned(field) => field.links().iter().try_for_each(|link| {
                let name = link.name.clone().map(Cow::Owned);
                self.learn_name(&link.target, name, rv)
            }),
        }
    }

    fn learn_name(&mut self, target: &EntityRef, name: Option<Cow<'a, str>>, rv: ReadVersion) -> Result<()> {
        if let Some(name) = name {
            let newest = self.learned.entry((self.numbers.of(target.entity_type.as_str())?, target.id));
            match newest {
                Entry::Vacant(place) => drop(place.insert((name, rv))),
                Entry::Occupied(mut known) if known.get().1 < rv => drop(known.insert((name, rv))),
                Entry::Occupied(_) => {}
            }
        }
        Ok(())
    }
}

impl Cells {
    /// Takes in what a field becomes: one value for each of its columns.
    fn take(&mut self, numbers: &mut Numbers<'_>, column: &Column, field: &FieldValue) -> Result<()> {
        match column.shape() {
            Shape::Opaque => {}
            Shape::Links => {
                for link in field.links() {
                    let ty = numbers.of(link.target.entity_type.as_str())?;
                    self.elements.insert((column.number, ty, link.target.id));
                }
            }
            Shape::Link => {
                let (mut ty, mut id) = (Sql::Null, Sql::Null);
                if let FieldValue::Link(link) = field {
                    ty = Sql::Integer(numbers.of(link.target.entity_type.as_str())?);
                    id = Sql::Integer(link.target.id);
                }
                self.values.extend([ty, id]);
            }
            _ => self.values.push(column::stored(column.data_type, field)),
        }
        Ok(())
    }

    /// Takes in a field of a document. A value that its data type does not allow,
    /// possible only in a document of an older layout, becomes null.
    fn take_from(&mut self, numbers: &mut Numbers<'_>, column: &Column, doc: &Map<String, Value>) -> Result<()> {
        let value = doc.get(&column.field).map(|value| FieldValue::from_json(column.data_type, value));
        self.take(numbers, column, &value.and_then(|parsed| parsed.ok()).unwrap_or_default())
    }
}

/// Writes the values that differ from those of the row; `values` belong to the
/// first of the names.
fn update(transaction: &Transaction<'_>, tables: &Tables, id: i64, values: &[Sql]) -> Result<()> {
    let names = &tables.statements.names;
    let old: Vec<Sql> = transaction
        .prepare_cached(&tables.statements.select)?
        .query_row([id], |row| (0..values.len()).map(|index| row.get(index)).collect())?;
    let changed: Vec<_> = names.iter().zip(values).zip(&old).filter(|((_, new), old)| new != old).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let assignments: Vec<_> = changed.iter().map(|((name, _), _)| format!("{name} = ?")).collect();
    let sql = format!("UPDATE {} SET {} WHERE id = ?", tables.rows(), assignments.join(", "));
    let id = Sql::Integer(id);
    let parameters = changed.iter().map(|((_, value), _)| *value).chain(std::iter::once(&id));
    transaction.prepare_cached(&sql)?.execute(params_from_iter(parameters))?;
    Ok(())
}

/// Writes the elements that are new and removes those that are gone; a row that
/// was not known has none.
fn write_elements(
    transaction: &Transaction<'_>,
    tables: &Tables,
    id: i64,
    elements: &Elements,
    known: bool,
) -> Result<()> {
    let statements = &tables.statements;
    let mut old = Elements::new();
    if known {
        let mut select = transaction.prepare_cached(&statements.elements)?;
        let found = select.query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        old = found.collect::<rusqlite::Result<_>>()?;
    }
    for (field, ty, target) in old.difference(elements) {
        transaction.prepare_cached(&statements.unlink)?.execute([*field, *ty, *target, id])?;
    }
    for (field, ty, target) in elements.difference(&old) {
        transaction.prepare_cached(&statements.link)?.execute([*field, *ty, *target, id])?;
    }
    Ok(())
}

fn write_document(transaction: &Transaction<'_>, tables: &Tables, id: i64, row: &FetchedRow) -> Result<()> {
    if !row.state().has_document() {
        transaction.prepare_cached(&tables.statements.drop_document)?.execute([id])?;
        return Ok(());
    }
    transaction.prepare_cached(&tables.statements.document)?.execute(params![id, encode(row.text())])?;
    Ok(())
}

/// Returns the bytes of a document.
fn encode(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 9);
    body.push(CHECKED_JSON);
    body.extend(xxh3_64(text.as_bytes()).to_le_bytes());
    body.extend(text.as_bytes());
    body
}

/// Returns the JSON text of the document of a row.
///
/// # Errors
///
/// [`StoreError::damaged`] when it is not the text that was written. Documents of
/// earlier versions have no checksum.
pub(super) fn decode<'a>(key: &EntityRef, body: &'a [u8]) -> Result<&'a [u8]> {
    match body.split_first() {
        // Such a text was not read value by value when it was taken in.
        Some((&PLAIN_JSON, text)) => match serde_json::from_slice::<Map<String, Value>>(text) {
            Ok(_) => Ok(text),
            Err(error) => Err(StoreError::damaged(key, error)),
        },
        Some((&CHECKED_JSON, rest)) => match rest.split_first_chunk::<8>() {
            Some((sum, text)) if u64::from_le_bytes(*sum) == xxh3_64(text) => Ok(text),
            _ => Err(StoreError::damaged(key, "its checksum differs")),
        },
        _ => Err(StoreError::damaged(key, "its encoding is unknown")),
    }
}

/// Returns the fields of the document of a row.
pub(super) fn parse(key: &EntityRef, body: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(decode(key, body)?).map_err(|error| StoreError::damaged(key, error))
}

/// Fills new columns from the documents that have their fields.
pub(super) fn fill(
    transaction: &Transaction<'_>,
    layouts: &Layouts,
    tables: &Tables,
    columns: &[&Column],
) -> Result<()> {
    if columns.is_empty() {
        return Ok(());
    }
    let mut numbers = Numbers::new(transaction, layouts);
    let mut statement = transaction.prepare(&format!("SELECT id, body FROM {}", tables.docs()))?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let id = row.get(0)?;
        let key = EntityRef { entity_type: tables.entity_type().clone(), id };
        let doc = match parse(&key, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?) {
            Ok(doc) => doc,
            // A layout that changed leads to a read of every row: this one has its
            // values then, and until then the type is not served.
            Err(error) => {
                tracing::error!(%error, "new columns stay empty for a row");
                continue;
            }
        };
        let mut cells = Cells::default();
        let mut names = Vec::new();
        for column in columns.iter().filter(|column| doc.contains_key(&column.field)) {
            cells.take_from(&mut numbers, column, &doc)?;
            names.extend(column.names());
        }
        if !names.is_empty() {
            let assignments: Vec<_> = names.iter().map(|name| format!("{name} = ?")).collect();
            let sql = format!("UPDATE {} SET {} WHERE id = ?", tables.rows(), assignments.join(", "));
            let values = cells.values.into_iter().chain(std::iter::once(Sql::Integer(id)));
            transaction.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        }
        for (field, ty, target) in &cells.elements {
            transaction.prepare_cached(&tables.statements.link)?.execute([*field, *ty, *target, id])?;
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
    let mut doc = parse(key, &body.ok_or_else(|| refuse(format!("{key} is not stored")))?)?;
    doc.insert(field.to_owned(), value);
    let mut cells = Cells::default();
    let mut numbers = Numbers::new(transaction, layouts);
    tables.columns().iter().try_for_each(|column| cells.take_from(&mut numbers, column, &doc))?;
    update(transaction, tables, key.id, &cells.values)?;
    write_elements(transaction, tables, key.id, &cells.elements, true)?;
    let sql = format!("UPDATE {} SET body = ?2 WHERE id = ?1", tables.docs());
    transaction.execute(&sql, params![key.id, encode(&Value::Object(doc).to_string())])?;
    changes::note(transaction, tables.number, std::iter::once(key.id))
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
