//! From ids to rows: documents, links with names, fields of linked entities.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

use super::super::{Fields, Found, Result, Row, StoreError, StoreErrorKind};
use super::layouts::{Layouts, Tables};
use super::order::Page;
use super::put;
use crate::entity::{EntityRef, Link, Shape, pick};
use crate::filter::{FieldPath, Hop, Query};

/// Returns the rows of a page that was planned. See [`super::super::Store::find`].
pub(super) fn page(reader: &Connection, layouts: &Layouts, query: &Query, page: Page) -> Result<Found> {
    let tables = layouts.tables(&query.entity_type)?;
    let projection = Projection::new(tables, &query.fields);
    let mut fetcher = Fetcher::new(reader, layouts);
    let mut rows = Vec::with_capacity(page.ids.len());
    for id in page.ids {
        let missing = || StoreError::new(StoreErrorKind::Corrupt, format!("{} lacks {id}", tables.docs()));
        let body = fetcher.body(tables, id)?.ok_or_else(missing)?;
        rows.push(fetcher.row(tables, id, &body, &projection)?);
    }
    Ok(Found { rows, has_next_page: page.has_next })
}

/// See [`super::super::Store::get`].
pub(super) fn get(reader: &Connection, layouts: &Layouts, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
    let mut projections: HashMap<&str, Projection> = HashMap::new();
    let mut fetcher = Fetcher::new(reader, layouts);
    let mut rows = Vec::new();
    for key in keys {
        let tables = layouts.tables(&key.entity_type)?;
        let projection = match projections.entry(key.entity_type.as_str()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Projection::of(layouts, tables, fields)?),
        };
        if let Some(body) = fetcher.document(tables, key.id)? {
            rows.push(fetcher.row(tables, key.id, &body, projection)?);
        }
    }
    Ok(rows)
}

/// Which fields to take from a document and how to write them.
struct Projection {
    /// The fields of the row itself that are needed, sorted.
    wanted: Vec<String>,
    outputs: Vec<Output>,
}

/// One field of the answer.
struct Output {
    /// The path as a JSON text, with a colon.
    key: String,
    /// The place of the first field of the path in `wanted`.
    place: usize,
    /// The hops and the field at their end.
    path: FieldPath,
}

impl Projection {
    fn of(layouts: &Layouts, tables: &Tables, fields: &Fields) -> Result<Self> {
        match fields {
            Fields::All => {
                let cached = tables.layout.cached.fields.iter();
                let paths: Vec<_> = cached.map(|(name, data_type)| FieldPath::local(name, *data_type)).collect();
                Ok(Self::new(tables, &paths))
            }
            Fields::Only(paths) => {
                for path in paths.iter().filter(|path| !path.is_multi()) {
                    layouts.catalogue.check_path(tables.entity_type(), path)?;
                }
                Ok(Self::new(tables, paths))
            }
        }
    }

    fn new(tables: &Tables, paths: &[FieldPath]) -> Self {
        let first = |path: &FieldPath| path.hops.first().map_or(&path.field, |hop| &hop.field).clone();
        // `id` is in every row; the site leaves paths through lists out.
        let mut paths: Vec<_> = paths.iter().filter(|path| !path.is_multi()).collect();
        paths.retain(|path| tables.column(&first(path)).is_some());
        paths.sort();
        paths.dedup();
        let mut wanted: Vec<_> = paths.iter().map(|path| first(path)).collect();
        wanted.sort();
        wanted.dedup();
        let output = |path: &FieldPath| {
            let place = wanted.binary_search(&first(path)).unwrap_or_default();
            Output { key: format!("{}:", Value::String(path.to_string())), place, path: path.clone() }
        };
        Self { outputs: paths.into_iter().map(output).collect(), wanted }
    }
}

/// Returns the text of fields of a document; `wanted` is sorted.
fn picked<'a>(body: &'a [u8], wanted: &[String]) -> Result<Vec<Option<&'a str>>> {
    let damaged = |error| StoreError::new(StoreErrorKind::Corrupt, "a document of the store is damaged").because(error);
    let place = |name: &str| wanted.binary_search_by(|wanted| wanted.as_str().cmp(name)).ok();
    pick(put::decode(body)?, wanted.len(), place).map_err(damaged)
}

/// What links show of a target.
#[derive(Clone)]
struct Target {
    name: Option<String>,
    dead: bool,
}

/// Reads documents and targets, each once for a page.
struct Fetcher<'a> {
    reader: &'a Connection,
    layouts: &'a Layouts,
    targets: HashMap<EntityRef, Option<Target>>,
    documents: HashMap<EntityRef, Option<Rc<Vec<u8>>>>,
}

impl<'a> Fetcher<'a> {
    fn new(reader: &'a Connection, layouts: &'a Layouts) -> Self {
        Self { reader, layouts, targets: HashMap::new(), documents: HashMap::new() }
    }

    /// Returns the document of a row in any state.
    fn body(&self, tables: &Tables, id: i64) -> Result<Option<Vec<u8>>> {
        let sql = format!("SELECT body FROM {} WHERE id = ?1", tables.docs());
        Ok(self.reader.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?)
    }

    /// Returns the document of an active row.
    fn document(&self, tables: &Tables, id: i64) -> Result<Option<Vec<u8>>> {
        let (rows, docs) = (tables.rows(), tables.docs());
        let sql = format!("SELECT d.body FROM {rows} r JOIN {docs} d ON d.id = r.id WHERE r.id = ?1 AND r.state = 0");
        Ok(self.reader.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?)
    }

    fn row(&mut self, tables: &Tables, id: i64, body: &[u8], projection: &Projection) -> Result<Row> {
        let picked = picked(body, &projection.wanted)?;
        let mut text = String::with_capacity(256);
        text.push('{');
        for output in &projection.outputs {
            text.push_str(&output.key);
            // A field that was configured after the row was read has no value yet.
            let raw = picked[output.place].unwrap_or("null");
            self.value(&mut text, raw, &output.path.hops, &output.path)?;
            text.push(',');
        }
        let name = Value::from(tables.entity_type().as_str());
        text.push_str(&format!("\"id\":{id},\"type\":{name}}}"));
        Ok(Row::from_text(EntityRef { entity_type: tables.entity_type().clone(), id }, text))
    }

    /// Writes the value that a path leads to. `raw` is the value of the first
    /// field of what is left of the path.
    fn value(&mut self, text: &mut String, raw: &str, hops: &[Hop], path: &FieldPath) -> Result<()> {
        let Some((hop, rest)) = hops.split_first() else {
            return self.end(text, raw, path);
        };
        let link = serde_json::from_str(raw).ok().as_ref().and_then(Link::from_json);
        let Some(target) = link.map(|link| link.target).filter(|target| target.entity_type == hop.entity_type) else {
            text.push_str("null");
            return Ok(());
        };
        let Some(body) = self.linked(&target)? else {
            text.push_str("null");
            return Ok(());
        };
        let next = rest.first().map_or(&path.field, |hop| &hop.field);
        if rest.is_empty() && next == "id" {
            text.push_str(&target.id.to_string());
            return Ok(());
        }
        let picked = picked(&body, std::slice::from_ref(next))?;
        self.value(text, picked.first().copied().flatten().unwrap_or("null"), rest, path)
    }

    /// Returns the document of a live target of a link.
    fn linked(&mut self, target: &EntityRef) -> Result<Option<Rc<Vec<u8>>>> {
        if self.target(target)?.is_some_and(|known| known.dead) {
            return Ok(None);
        }
        if let Some(known) = self.documents.get(target) {
            return Ok(known.clone());
        }
        let document = self.document(self.layouts.tables(&target.entity_type)?, target.id)?.map(Rc::new);
        self.documents.insert(target.clone(), document.clone());
        Ok(document)
    }

    fn end(&mut self, text: &mut String, raw: &str, path: &FieldPath) -> Result<()> {
        let plain = !matches!(path.data_type.shape(), Shape::Link | Shape::Links) || matches!(raw, "null" | "[]");
        let value: Option<Value> = if plain { None } else { serde_json::from_str(raw).ok() };
        let Some(value) = value else {
            text.push_str(raw);
            return Ok(());
        };
        let shown = match value {
            Value::Array(links) => {
                let shown = links.into_iter().map(|link| self.link(link)).collect::<Result<Vec<_>>>()?;
                shown.into_iter().filter(|link| !link.is_null()).collect()
            }
            link => self.link(link)?,
        };
        text.push_str(&shown.to_string());
        Ok(())
    }

    /// Returns a link with the present name of its target, or null when the
    /// target is dead.
    fn link(&mut self, mut link: Value) -> Result<Value> {
        let Some(target) = EntityRef::from_json(&link) else {
            return Ok(link);
        };
        match self.target(&target)? {
            Some(known) if known.dead => return Ok(Value::Null),
            Some(known) => link["name"] = known.name.map_or(Value::Null, Value::String),
            None => {}
        }
        Ok(link)
    }

    fn target(&mut self, target: &EntityRef) -> Result<Option<Target>> {
        if let Some(known) = self.targets.get(target) {
            return Ok(known.clone());
        }
        let number = self.layouts.number(target.entity_type.as_str());
        let found = self
            .reader
            .prepare_cached("SELECT name, dead FROM targets WHERE type = ?1 AND id = ?2")?
            .query_row([number, target.id], |row| Ok(Target { name: row.get(0)?, dead: row.get(1)? }))
            .optional()?;
        self.targets.insert(target.clone(), found.clone());
        Ok(found)
    }
}
