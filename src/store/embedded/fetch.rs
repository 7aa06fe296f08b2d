//! From ids to rows: documents, links with names, fields of linked entities.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;
use std::rc::Rc;

use rusqlite::{Connection, OptionalExtension};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::{Fields, Found, Result, Row, StoreError, StoreErrorKind};
use super::layouts::{Layouts, Tables};
use super::memory::{Named, Names, NewNames, Target};
use super::order::Page;
use super::plan::Finder;
use super::put;
use crate::entity::{EntityRef, Link, Shape, pick};
use crate::filter::{FieldPath, Hop, Query};

/// Returns the rows of a page that was planned. See [`super::super::Store::find`].
///
/// Returns also the names that were not in memory.
pub(super) fn page(finder: &Finder<'_>, query: &Query, page: Page) -> Result<(Found, NewNames)> {
    let tables = finder.layouts.tables(&query.entity_type)?;
    let projection = Projection::new(tables, &query.fields);
    let mut fetcher = Fetcher { names: Some(finder.names()), ..Fetcher::new(finder.reader, finder.layouts) };
    let mut rows = Vec::with_capacity(page.ids.len());
    for id in page.ids {
        let body = fetcher.body(tables, id)?.ok_or_else(|| {
            let key = EntityRef { entity_type: tables.entity_type().clone(), id };
            StoreError::damaged(&key, "its document is missing")
        })?;
        rows.push(fetcher.row(tables, id, &body, &projection)?);
    }
    Ok((Found { rows, has_next_page: page.has_next }, fetcher.new_names))
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
    usual: Usual,
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
        Self { outputs: paths.into_iter().map(output).collect(), wanted, usual: Usual::default() }
    }
}

/// Returns the text of fields of a document; `wanted` is sorted.
fn picked<'a>(key: &EntityRef, body: &'a [u8], wanted: &[String], usual: &Usual) -> Result<Vec<Option<&'a str>>> {
    let text = put::decode(key, body)?;
    let mut nth = 0;
    let mut usual = usual.borrow_mut();
    let place = |name: &str| {
        nth += 1;
        if let Some((known, place)) = usual.get(nth - 1)
            && **known == *name
        {
            return *place;
        }
        let place = wanted.binary_search_by(|wanted| wanted.as_str().cmp(name)).ok();
        usual.truncate(nth - 1);
        usual.push((name.into(), place));
        place
    };
    pick(text, wanted.len(), place).map_err(|error| StoreError::damaged(key, error))
}

/// The keys of the document before, with their places among the wanted ones: those
/// of the next one are nearly always the same.
type Usual = RefCell<Vec<(Box<str>, Option<usize>)>>;

/// A link as the site usually writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsualLink<'a> {
    #[serde(rename = "type", borrow)]
    entity_type: Cow<'a, str>,
    id: i64,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
}

/// Reads documents and targets, each once for a page.
struct Fetcher<'a> {
    reader: &'a Connection,
    layouts: &'a Layouts,
    names: Option<&'a Names>,
    targets: FxHashMap<Target, Option<Named>>,
    new_names: NewNames,
    documents: HashMap<EntityRef, Option<Rc<Vec<u8>>>>,
}

impl<'a> Fetcher<'a> {
    fn new(reader: &'a Connection, layouts: &'a Layouts) -> Self {
        Self {
            reader,
            layouts,
            names: None,
            targets: FxHashMap::default(),
            new_names: NewNames::new(),
            documents: HashMap::new(),
        }
    }

    /// Returns the document of a row in any state.
    fn body(&self, tables: &Tables, id: i64) -> Result<Option<Vec<u8>>> {
        let sql = format!("SELECT body FROM {} WHERE id = ?1", tables.docs());
        Ok(self.reader.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?)
    }

    /// Returns the document of an active row.
    fn document(&self, tables: &Tables, id: i64) -> Result<Option<Vec<u8>>> {
        let (rows, docs) = (tables.rows(), tables.docs());
        let sql =
            format!("SELECT d.body FROM {rows} r LEFT JOIN {docs} d ON d.id = r.id WHERE r.id = ?1 AND r.state = 0");
        let found: Option<Option<Vec<u8>>> =
            self.reader.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?;
        match found {
            Some(None) => {
                let key = EntityRef { entity_type: tables.entity_type().clone(), id };
                Err(StoreError::damaged(&key, "its document is missing"))
            }
            found => Ok(found.flatten()),
        }
    }

    fn row(&mut self, tables: &Tables, id: i64, body: &[u8], projection: &Projection) -> Result<Row> {
        let key = EntityRef { entity_type: tables.entity_type().clone(), id };
        let picked = picked(&key, body, &projection.wanted, &projection.usual)?;
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
        Ok(Row::from_text(key, text))
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
        let picked = picked(&target, &body, std::slice::from_ref(next), &Usual::default())?;
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
        let shape = path.data_type.shape();
        let plain = !matches!(shape, Shape::Link | Shape::Links) || matches!(raw, "null" | "[]");
        if !plain && self.usual_links(text, raw, shape)? {
            return Ok(());
        }
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

    /// Writes links of the usual form, without a tree in between; false when they
    /// have another one, and nothing is written.
    fn usual_links(&mut self, text: &mut String, raw: &str, shape: Shape) -> Result<bool> {
        if shape == Shape::Link {
            let Ok(link) = serde_json::from_str::<UsualLink<'_>>(raw) else { return Ok(false) };
            if !self.usual_link(text, &link)? {
                text.push_str("null");
            }
            return Ok(true);
        }
        let Ok(links) = serde_json::from_str::<Vec<UsualLink<'_>>>(raw) else { return Ok(false) };
        text.push('[');
        let begin = text.len();
        for link in &links {
            let end = text.len();
            text.push_str(if end == begin { "" } else { "," });
            if !self.usual_link(text, link)? {
                text.truncate(end);
            }
        }
        text.push(']');
        Ok(true)
    }

    /// Writes one link; false when its target is dead.
    fn usual_link(&mut self, text: &mut String, link: &UsualLink<'_>) -> Result<bool> {
        let number = self.layouts.number(&link.entity_type);
        let known = self.target_of(number, link.id)?;
        if known.is_some_and(|known| known.dead) {
            return Ok(false);
        }
        let name = match known {
            Some(known) => known.name.as_deref().unwrap_or("null"),
            None => link.name.map_or("null", RawValue::get),
        };
        let written =
            write!(text, "{{\"id\":{},\"name\":{name},\"type\":{}}}", link.id, Value::from(&*link.entity_type));
        written.map_err(|error| StoreError::new(StoreErrorKind::Fault, "a text has no end").because(error))?;
        Ok(true)
    }

    /// Returns a link with the present name of its target, or null when the
    /// target is dead.
    fn link(&mut self, mut link: Value) -> Result<Value> {
        let Some(target) = EntityRef::from_json(&link) else {
            return Ok(link);
        };
        match self.target(&target)? {
            Some(known) if known.dead => return Ok(Value::Null),
            Some(known) => {
                link["name"] =
                    known.name.as_deref().map_or(Ok(Value::Null), serde_json::from_str).map_err(unreadable_name)?
            }
            None => {}
        }
        Ok(link)
    }

    fn target(&mut self, target: &EntityRef) -> Result<Option<&Named>> {
        self.target_of(self.layouts.number(target.entity_type.as_str()), target.id)
    }

    fn target_of(&mut self, number: i64, id: i64) -> Result<Option<&Named>> {
        if let Some(known) = self.names.and_then(|names| names.get((number, id))) {
            return Ok(Some(known));
        }
        let known = match self.targets.entry((number, id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let mut statement =
                    self.reader.prepare_cached("SELECT name, dead, own FROM targets WHERE type = ?1 AND id = ?2")?;
                let target = |row: &rusqlite::Row<'_>| {
                    let name = row.get_ref(0)?.as_str_or_null()?.map(|name| Value::from(name).to_string().into());
                    Ok((Named { name, dead: row.get(1)? }, row.get(2)?))
                };
                let found: Option<(Named, bool)> = statement.query_row([number, id], target).optional()?;
                if let Some((named, true)) = &found {
                    self.new_names.push(((number, id), named.clone()));
                }
                place.insert(found.map(|(named, _)| named))
            }
        };
        Ok(known.as_ref())
    }
}

fn unreadable_name(error: serde_json::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, "the name of a link cannot be read").because(error)
}
