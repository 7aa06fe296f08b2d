//! Tables for a type, made or changed in place.
//!
//! The narrow table has no index but its key: filters look at columns in memory
//! (`memory`), and every index would be paid for by each write. The column of a
//! field that left the layout stays, unused: removing it would write the whole
//! table anew.

use rusqlite::{Transaction, params};

use super::super::{CachedType, Result};
use super::column::Column;
use super::definitions;
use super::layouts::{Layouts, Numbers, StoredLayout, Tables, bump};
use super::put;
use crate::entity::Shape;

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
    transaction.execute_batch(&definitions::of_type(&tables))?;
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
    if column.shape() == Shape::Links {
        transaction.execute(&format!("DELETE FROM {} WHERE field = ?1", tables.links()), params![column.number])?;
    }
    Ok(())
}

fn save(transaction: &Transaction<'_>, tables: &Tables) -> Result<()> {
    let text = serde_json::to_string(&tables.layout)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction.execute("UPDATE types SET layout = ?2 WHERE number = ?1", params![tables.number, text])?;
    Ok(())
}
