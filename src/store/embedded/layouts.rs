//! Which tables and columns there are for which type, read once and kept until
//! this process or another changes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::super::{CachedType, Catalogue, Result, StoreError, StoredType};
use super::column::{Column, plain};
use crate::entity::EntityType;

/// The tables of one type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tables {
    /// The number that stands for the type in links.
    pub number: i64,
    /// The layout, and the numbers of its columns.
    pub layout: StoredLayout,
    columns: Vec<Column>,
    /// The statements that every written row needs.
    pub statements: Statements,
}

/// SQL that is the same for all rows of a type.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Statements {
    /// The version of a row.
    pub version: String,
    /// Puts a new row in: the id, then a value for each of `names`.
    pub insert: String,
    /// The columns of all fields, then those of [`FIXED`].
    pub names: Vec<String>,
    /// Reads what stands in `names`.
    pub select: String,
    /// Reads the elements of lists of links of a row.
    pub elements: String,
    /// Puts one of them in.
    pub link: String,
    /// Takes one of them away.
    pub unlink: String,
    /// Puts a document in or over the one that was there.
    pub document: String,
    /// Takes it away.
    pub drop_document: String,
}

/// What the narrow table holds beside the id and the fields.
pub(super) const FIXED: [&str; 5] = ["rv", "state", "hash", "fetched", "event"];

/// What `types.layout` holds as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredLayout {
    /// The layout that `ensure_type` got.
    pub cached: CachedType,
    /// The number of each field; never used again for another field.
    pub columns: BTreeMap<String, i64>,
    /// The next number.
    pub next: i64,
}

impl Tables {
    /// Puts together what follows from a layout.
    pub(super) fn new(number: i64, layout: StoredLayout) -> Self {
        let fields = layout.cached.fields.iter();
        let columns: Vec<_> = fields
            .filter_map(|(field, data_type)| {
                let number = *layout.columns.get(field)?;
                Some(Column { field: field.clone(), number, data_type: *data_type })
            })
            .collect();
        let mut tables = Self { number, layout, columns, statements: Statements::default() };
        tables.statements = Statements::of(&tables);
        tables
    }

    /// The narrow table.
    pub(super) fn rows(&self) -> String {
        self.name("row")
    }

    /// The documents.
    pub(super) fn docs(&self) -> String {
        self.name("doc")
    }

    /// The elements of lists of links.
    pub(super) fn links(&self) -> String {
        self.name("link")
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.number, plain(self.entity_type().as_str()))
    }

    /// The type.
    pub(super) fn entity_type(&self) -> &EntityType {
        &self.layout.cached.entity_type
    }

    /// Returns the column of a cached field.
    pub(super) fn column(&self, field: &str) -> Option<&Column> {
        let index = self.columns.binary_search_by(|column| column.field.as_str().cmp(field)).ok()?;
        self.columns.get(index)
    }

    /// Returns the columns of all cached fields, by field.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }
}

impl Statements {
    fn of(tables: &Tables) -> Self {
        let (rows, docs, links) = (tables.rows(), tables.docs(), tables.links());
        let fields = tables.columns.iter().flat_map(Column::names);
        let names: Vec<_> = fields.chain(FIXED.map(str::to_owned)).collect();
        let (list, places) = (names.join(", "), ", ?".repeat(names.len()));
        Self {
            version: format!("SELECT rv FROM {rows} WHERE id = ?1"),
            insert: format!("INSERT INTO {rows} (id, {list}) VALUES (?{places})"),
            select: format!("SELECT {list} FROM {rows} WHERE id = ?1"),
            elements: format!("SELECT field, type, target FROM {links} WHERE id = ?1"),
            link: format!("INSERT OR IGNORE INTO {links} (field, type, target, id) VALUES (?1, ?2, ?3, ?4)"),
            unlink: format!("DELETE FROM {links} WHERE field = ?1 AND type = ?2 AND target = ?3 AND id = ?4"),
            document: format!(
                "INSERT INTO {docs} (id, body) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET body = excluded.body WHERE body <> excluded.body"
            ),
            drop_document: format!("DELETE FROM {docs} WHERE id = ?1"),
            names,
        }
    }
}

/// All tables at one moment.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    generation: i64,
    numbers: HashMap<String, i64>,
    tables: BTreeMap<EntityType, Tables>,
    /// The same, for checking queries.
    pub catalogue: Catalogue,
}

impl Layouts {
    fn load(connection: &Connection, generation: i64) -> rusqlite::Result<Self> {
        let mut layouts = Self { generation, ..Self::default() };
        let mut statement = connection.prepare("SELECT number, name, layout FROM types")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (number, name): (i64, String) = (row.get(0)?, row.get(1)?);
            if let Some(text) = row.get::<_, Option<String>>(2)? {
                let layout: StoredLayout = serde_json::from_str(&text).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
                })?;
                let entity_type = EntityType::new(&name);
                layouts.catalogue.types.insert(entity_type.clone(), layout.cached.clone());
                layouts.tables.insert(entity_type, Tables::new(number, layout));
            }
            layouts.numbers.insert(name, number);
        }
        Ok(layouts)
    }

    /// Returns the number that every change of a layout makes greater.
    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// Returns the tables of a type.
    pub(super) fn tables(&self, entity_type: &EntityType) -> Result<&Tables> {
        self.tables.get(entity_type).ok_or_else(|| StoreError::unknown_type(entity_type))
    }

    /// Returns the tables of all types.
    pub(super) fn all(&self) -> impl Iterator<Item = &Tables> {
        self.tables.values()
    }

    /// Returns the number of a type, or a number that nothing has.
    pub(super) fn number(&self, entity_type: &str) -> i64 {
        self.numbers.get(entity_type).copied().unwrap_or(-1)
    }

    /// Returns the types for [`super::super::Store::types`].
    pub(super) fn stored(&self) -> Vec<StoredType> {
        let stored = |tables: &Tables| StoredType {
            entity_type: tables.entity_type().clone(),
            layout_hash: tables.layout.cached.hash.clone(),
        };
        self.all().map(stored).collect()
    }
}

/// The newest layouts that this process has seen.
#[derive(Default)]
pub(super) struct Shared(RwLock<Arc<Layouts>>);

impl Shared {
    /// Returns the layouts as the transaction of `connection` sees them.
    pub(super) fn current(&self, connection: &Connection) -> rusqlite::Result<Arc<Layouts>> {
        let generation: i64 =
            connection.prepare_cached("SELECT value FROM generation")?.query_row([], |row| row.get(0))?;
        let known = Arc::clone(&self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if known.generation == generation {
            return Ok(known);
        }
        let loaded = Arc::new(Layouts::load(connection, generation)?);
        let mut newest = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if newest.generation < generation {
            *newest = Arc::clone(&loaded);
        }
        Ok(loaded)
    }
}

impl Shared {
    /// Drops what was read inside of a transaction that came to nothing.
    pub(super) fn forget(&self) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::default();
    }
}

/// Makes every process read the layouts anew after this transaction.
pub(super) fn bump(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE generation SET value = value + 1", []).map(|_| ())
}

/// Numbers of types during a write, which may meet types that no link named
/// before.
pub(super) struct Numbers<'a> {
    connection: &'a Connection,
    layouts: &'a Layouts,
    fresh: HashMap<String, i64>,
}

impl<'a> Numbers<'a> {
    /// Begins with what is known.
    pub(super) fn new(connection: &'a Connection, layouts: &'a Layouts) -> Self {
        Self { connection, layouts, fresh: HashMap::new() }
    }

    /// Returns the number of a type, a new one when it has none.
    pub(super) fn of(&mut self, entity_type: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.layouts.numbers.get(entity_type).or_else(|| self.fresh.get(entity_type)) {
            return Ok(*number);
        }
        self.connection.execute("INSERT INTO types (name) VALUES (?1)", params![entity_type])?;
        let number = self.connection.last_insert_rowid();
        bump(self.connection)?;
        self.fresh.insert(entity_type.to_owned(), number);
        Ok(number)
    }
}
