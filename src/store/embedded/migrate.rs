//! Tables for a type, made or changed in place.
//!
//! Which columns have an index:
//!
//! - the id, which is the key of the table;
//! - links, since "everything of this shot" is what tools ask most, and because
//!   joins over deep paths and `referrers` go through them (null links take no
//!   room);
//! - statuses and `updated_at`, newest first, which is how dashboards sort;
//! - the field that names the entity, together with the project, so that a search
//!   inside of a project reads the index alone (33 ms become 7.5 at a million
//!   rows).
//!
//! Every index is paid for by each write that changes its column, so other fields
//! have none: a filter on one of them scans the narrow table (52-76 ms at a
//! million rows). The column of a field that left the layout stays, unused:
//! removing it would write the whole table anew.

use std::collections::BTreeSet;

use rusqlite::{Transaction, params};

use super::super::{CachedType, Result};
use super::column::Column;
use super::layouts::{Layouts, Numbers, StoredLayout, Tables, bump, plain};
use super::put;
use crate::entity::{DataType, Shape};
use crate::schema;

/// Makes or changes the tables of a type.
pub(super) fn ensure_type(transaction: &Transaction<'_>, layouts: &Layouts, cached: &CachedType) -> Result<()> {
    let entity_type = &cached.entity_type;
    match layouts.tables(entity_type) {
        Ok(tables) if tables.layout.cached == *cached => return Ok(()),
        Ok(tables) => change(transaction, layouts, tables, cached)?,
        Err(_) => {
            let number = Numbers::new(transaction, layouts).of(entity_type.as_str())?;
            create(transaction, number, cached)?;
        }
    }
    Ok(bump(transaction)?)
}

fn create(transaction: &Transaction<'_>, number: i64, cached: &CachedType) -> Result<()> {
    let mut layout = StoredLayout { cached: cached.clone(), columns: Default::default(), next: 0 };
    layout.number_fields();
    let tables = Tables::new(number, layout);
    let definitions: Vec<_> = tables.columns().iter().flat_map(Column::definitions).collect();
    let more: String = definitions.iter().map(|definition| format!(", {definition}")).collect();
    let (rows, docs, links) = (tables.rows(), tables.docs(), tables.links());
    transaction.execute_batch(&format!(
        "CREATE TABLE {rows} (id INTEGER PRIMARY KEY, rv INTEGER NOT NULL, state INTEGER NOT NULL,
           hash BLOB NOT NULL, fetched INTEGER NOT NULL, event INTEGER{more});
         CREATE INDEX {rows}_not_active ON {rows} (state) WHERE state <> 0;
         CREATE TABLE {docs} (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
         CREATE TABLE {links} (field INTEGER NOT NULL, type INTEGER NOT NULL, target INTEGER NOT NULL,
           id INTEGER NOT NULL, PRIMARY KEY (field, type, target, id)) WITHOUT ROWID;
         CREATE INDEX {links}_of_row ON {links} (id, field, type, target);"
    ))?;
    create_indexes(transaction, &tables)?;
    save(transaction, &tables)
}

fn change(transaction: &Transaction<'_>, layouts: &Layouts, old: &Tables, cached: &CachedType) -> Result<()> {
    let mut layout = StoredLayout { cached: cached.clone(), ..old.layout.clone() };
    let was = |field: &str| old.layout.cached.fields.get(field).copied();
    layout.columns.retain(|field, _| cached.fields.get(field).copied() == was(field));
    for gone in old.columns().iter().filter(|column| !layout.columns.contains_key(&column.field)) {
        remove(transaction, old, gone)?;
    }
    layout.number_fields();
    let tables = Tables::new(old.number, layout);
    let added: Vec<&Column> =
        tables.columns().iter().filter(|column| old.column(&column.field) != Some(column)).collect();
    for definition in added.iter().flat_map(|column| column.definitions()) {
        transaction.execute(&format!("ALTER TABLE {} ADD COLUMN {definition}", tables.rows()), [])?;
    }
    create_indexes(transaction, &tables)?;
    save(transaction, &tables)?;
    put::fill(transaction, layouts, &tables, &added)
}

impl StoredLayout {
    /// Gives every field without a number the next one.
    fn number_fields(&mut self) {
        for field in self.cached.fields.keys() {
            if !self.columns.contains_key(field) {
                self.columns.insert(field.clone(), self.next);
                self.next += 1;
            }
        }
    }
}

fn remove(transaction: &Transaction<'_>, tables: &Tables, column: &Column) -> Result<()> {
    for index in indexes(tables).into_iter().filter(|index| index.fields.contains(&column.field)) {
        transaction.execute(&format!("DROP INDEX IF EXISTS {}", index.name), [])?;
    }
    if column.shape() == Shape::Links {
        transaction.execute(&format!("DELETE FROM {} WHERE field = ?1", tables.links()), params![column.number])?;
    }
    Ok(())
}

fn create_indexes(transaction: &Transaction<'_>, tables: &Tables) -> Result<()> {
    let wanted = indexes(tables);
    let names: BTreeSet<_> = wanted.iter().map(|index| index.name.clone()).collect();
    let mut statement = transaction
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND name LIKE ?2")?;
    let pattern = format!("{}_by%", tables.rows());
    let present = statement
        .query_map(params![tables.rows(), pattern], |row| row.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for name in present.into_iter().filter(|name| !names.contains(name)) {
        transaction.execute(&format!("DROP INDEX {name}"), [])?;
    }
    for index in wanted {
        let Index { name, on, .. } = index;
        transaction.execute(&format!("CREATE INDEX IF NOT EXISTS {name} ON {} {on}", tables.rows()), [])?;
    }
    Ok(())
}

struct Index {
    name: String,
    fields: Vec<String>,
    on: String,
}

/// Returns the indexes that the header of this file gives reasons for.
fn indexes(tables: &Tables) -> Vec<Index> {
    let naming = schema::display_name_field(tables.entity_type());
    let named = tables.column(naming).or_else(|| tables.column("code")).filter(|column| column.shape() == Shape::Text);
    let project = tables.column("project").filter(|column| column.shape() == Shape::Link);
    let index = |columns: &[&Column], on: String| {
        let parts: String =
            columns.iter().map(|column| format!("_{}_{}", column.number, plain(&column.field))).collect();
        let fields = columns.iter().map(|column| column.field.clone()).collect();
        Index { name: format!("{}_by{parts}", tables.rows()), fields, on }
    };
    let mut wanted = Vec::new();
    for column in tables.columns() {
        let name = column.name();
        match (column.data_type, &named) {
            (_, Some(named)) if *named == column => wanted.push(index(&[column], format!("({name})"))),
            (_, Some(named)) if project == Some(column) => {
                let (ty, id) = column.link_names();
                wanted.push(index(&[column, named], format!("({ty}, {id}, {})", named.name())));
            }
            (DataType::Entity, _) => {
                let (ty, id) = column.link_names();
                wanted.push(index(&[column], format!("({ty}, {id}) WHERE {ty} IS NOT NULL")));
            }
            (DataType::StatusList, _) => wanted.push(index(&[column], format!("({name})"))),
            (DataType::DateTime, _) if column.field == "updated_at" => {
                wanted.push(index(&[column], format!("({name} DESC)")));
            }
            _ => {}
        }
    }
    wanted
}

fn save(transaction: &Transaction<'_>, tables: &Tables) -> Result<()> {
    let text = serde_json::to_string(&tables.layout)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction.execute("UPDATE types SET layout = ?2 WHERE number = ?1", params![tables.number, text])?;
    Ok(())
}
