//! The tables that every file has, and whether the definitions of all tables are those that
//! they were made with.
//!
//! A definition is text in the file. If it is damaged, SQLite takes other names in it for other
//! columns and the structure of the file for whole, and every write fails that names the lost
//! ones.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::super::{Result, StoreError, StoreErrorKind};
use super::changes;
use super::column::Column;
use super::layouts::Tables;

/// The tables that every file has, beside [`changes::TABLE`].
pub(super) const TABLES: &str = "
CREATE TABLE generation (value INTEGER NOT NULL);
INSERT INTO generation VALUES (1);
-- Every type name that occurs; layout is null for types that only links mention.
CREATE TABLE types (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, layout TEXT);
-- What links show of an entity. kept: its own row is stored and decides whether it
-- is dead; own: its own row decides its name.
CREATE TABLE targets (
  type INTEGER NOT NULL, id INTEGER NOT NULL,
  name TEXT, folded TEXT, name_rv INTEGER NOT NULL, own INTEGER NOT NULL,
  dead INTEGER NOT NULL, state_rv INTEGER NOT NULL, kept INTEGER NOT NULL,
  PRIMARY KEY (type, id)
) WITHOUT ROWID;
-- Nearly everything is alive: asking whether a target is dead costs one look into
-- an index that stays in memory.
CREATE INDEX targets_dead ON targets (type, id) WHERE dead = 1;
";

/// Returns the statements that make the tables of a type.
pub(super) fn of_type(tables: &Tables) -> String {
    let definitions: Vec<_> = tables.columns().iter().flat_map(Column::definitions).collect();
    let more: String = definitions.iter().map(|definition| format!(", {definition}")).collect();
    let (rows, docs, links) = (tables.rows(), tables.docs(), tables.links());
    format!(
        "CREATE TABLE {rows} (id INTEGER PRIMARY KEY, rv INTEGER NOT NULL, state INTEGER NOT NULL,
           hash BLOB NOT NULL, fetched INTEGER NOT NULL, event INTEGER{more});
         CREATE INDEX {rows}_not_active ON {rows} (state) WHERE state <> 0;
         CREATE TABLE {docs} (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
         CREATE TABLE {links} (field INTEGER NOT NULL, type INTEGER NOT NULL, target INTEGER NOT NULL,
           id INTEGER NOT NULL, PRIMARY KEY (field, type, target, id)) WITHOUT ROWID;
         CREATE INDEX {links}_of_row ON {links} (id, field, type, target);"
    )
}

/// Compares the definitions of these tables, and of those that every file has, with those that
/// they were made with. There may be more columns: those of fields that left a layout stay.
pub(super) fn check<'a>(connection: &Connection, mut of_types: impl Iterator<Item = &'a Tables>) -> Result<()> {
    let made = Connection::open_in_memory()?;
    made.execute_batch(TABLES)?;
    made.execute_batch(changes::TABLE)?;
    of_types.try_for_each(|tables| made.execute_batch(&of_type(tables)))?;
    let mut names = made.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let names = names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names {
        if !columns(&made, &name)?.is_subset(&columns(connection, &name)?) {
            let words = format!("the file of the store is damaged: the definition of {name} is another one");
            return Err(StoreError::new(StoreErrorKind::Corrupt, words));
        }
    }
    Ok(())
}

/// Returns name, type, whether it must have a value, and place in the key, of each column.
fn columns(connection: &Connection, table: &str) -> Result<BTreeSet<(String, String, bool, i64)>> {
    let mut statement = connection
        .prepare("SELECT CAST(name AS BLOB), CAST(type AS BLOB), \"notnull\", pk FROM pragma_table_info(?1)")?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let column = |row: &rusqlite::Row<'_>| Ok((text(row.get(0)?), text(row.get(1)?), row.get(2)?, row.get(3)?));
    Ok(statement.query_map([table], column)?.collect::<rusqlite::Result<_>>()?)
}
