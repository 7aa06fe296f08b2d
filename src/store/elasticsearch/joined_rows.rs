//! A few rows in memory, with everything that their answers and orders need.
//!
//! The server cannot follow a link. So the rows of a page are fetched, then the
//! entities their paths lead through, then the names of the entities their links
//! point to; on these joined rows the rules of `filter::eval` hold as they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{Result, Row, RowState, StoreError};
use super::Inner;
use super::damage::unreadable;
use super::document::{self, Document};
use super::search::{Wanted, get_many};
use super::targets::Target;
use super::types::OpenTypes;
use crate::entity::{DataType, EntityRef, EntityType, FieldValue, Link, Shape};
use crate::filter::{FieldPath, Rows};

/// Rows, the rows they lead to, and what is known of what they point to.
pub(super) struct JoinedRows {
    types: Arc<OpenTypes>,
    rows: Vec<(EntityRef, Document)>,
    positions: HashMap<EntityRef, usize>,
    /// What is known of what links point to, by their `_ref`.
    targets: HashMap<String, Target>,
}

/// The fields of an answer, in the order of their names, each with its path; `id` and `type` have none.
pub(super) struct Projection<'p>(BTreeMap<String, Option<&'p FieldPath>>);

impl<'p> Projection<'p> {
    pub(super) fn of(paths: &'p [FieldPath]) -> Self {
        let paths = paths.iter().filter(|path| !path.is_multi()).map(|path| (path.to_string(), Some(path)));
        Self(paths.chain([("id".to_owned(), None), ("type".to_owned(), None)]).collect())
    }
}

impl JoinedRows {
    /// Joins these rows and fetches what the paths need beyond them.
    pub(super) async fn around(store: &Inner, rows: Vec<(EntityRef, Document)>, paths: &[&FieldPath]) -> Result<Self> {
        let count = rows.len();
        let mut joined =
            Self { types: store.open_types(), rows: Vec::new(), positions: HashMap::new(), targets: HashMap::new() };
        for (key, document) in rows {
            joined.add(key, document)?;
        }
        let start: Vec<usize> = (0..count).collect();
        let (mut named, mut refs) = (BTreeSet::new(), HashSet::new());
        for path in paths.iter().filter(|path| !path.is_multi()) {
            let ends = joined.walk(store, &start, path).await?;
            if matches!(path.data_type.shape(), Shape::Link | Shape::Links) {
                for link in ends.iter().flat_map(|&row| joined.items(row, &path.field)) {
                    let Some(reference) = link.get("_ref").and_then(Value::as_str) else { continue };
                    if !refs.contains(reference) {
                        refs.insert(reference.to_owned());
                        named.extend(EntityRef::from_json(link));
                    }
                }
            }
        }
        let known = store.targets(&named).await?;
        joined.targets = known.into_iter().map(|(key, target)| (key.to_string(), target)).collect();
        Ok(joined)
    }

    /// Takes a row in; what it holds can be read from here on.
    fn add(&mut self, key: EntityRef, document: Document) -> Result<()> {
        let cached = self.types.get(&key.entity_type).map(|open| &open.cached);
        if let Some(reason) = cached.and_then(|cached| unreadable(cached, &document)) {
            return Err(StoreError::damaged(&key, reason));
        }
        self.positions.insert(key.clone(), self.rows.len());
        self.rows.push((key, document));
        Ok(())
    }

    /// Fetches the rows along a path and returns those at its end.
    async fn walk(&mut self, store: &Inner, start: &[usize], path: &FieldPath) -> Result<Vec<usize>> {
        let mut here = start.to_vec();
        for hop in &path.hops {
            let links = here.iter().flat_map(|&row| self.links(row, &hop.field));
            let keys: BTreeSet<EntityRef> = links.filter(|target| target.entity_type == hop.entity_type).collect();
            let missing: Vec<&EntityRef> = keys.iter().filter(|key| !self.positions.contains_key(*key)).collect();
            for (key, document) in store.active_documents(&missing, &json!(true)).await? {
                self.add(key, document)?;
            }
            here = keys.iter().filter_map(|key| self.positions.get(key).copied()).collect();
        }
        Ok(here)
    }

    /// Returns the links in a field, or whatever else is in it.
    fn items(&self, row: usize, field: &str) -> &[Value] {
        match self.rows[row].1.get(field) {
            Some(Value::Array(items)) => items,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        }
    }

    fn links(&self, row: usize, field: &str) -> Vec<EntityRef> {
        self.items(row, field).iter().filter_map(EntityRef::from_json).collect()
    }

    fn data_type(&self, entity_type: &EntityType, field: &str) -> Option<DataType> {
        self.types.get(entity_type)?.cached.data_type(field)
    }

    /// Returns the answer for row number `row`.
    pub(super) fn answer(&self, row: usize, projection: &Projection<'_>) -> Row {
        let key = &self.rows[row].0;
        let mut text = String::with_capacity(1024);
        for (name, path) in &projection.0 {
            text.push(if text.is_empty() { '{' } else { ',' });
            // Names of fields and types are words; the site has no others.
            text.extend(["\"", name, "\":"]);
            match path {
                Some(path) => self.push_value(&mut text, row, path),
                None if name == "id" => text.push_str(&key.id.to_string()),
                None => text.extend(["\"", key.entity_type.as_str(), "\""]),
            }
        }
        text.push('}');
        Row::from_text(key.clone(), text)
    }

    /// Appends the value at the end of a path.
    fn push_value(&self, text: &mut String, row: usize, path: &FieldPath) {
        let mut here = row;
        for hop in &path.hops {
            let target = self.links(here, &hop.field).into_iter().next();
            let target = target.filter(|target| target.entity_type == hop.entity_type);
            let Some(next) = target.and_then(|target| self.row(&target)) else { return text.push_str("null") };
            here = next;
        }
        let value = self.rows[here].1.get(&path.field).unwrap_or(&Value::Null);
        match (path.data_type.shape(), value) {
            (Shape::Link, link) => {
                if !self.push_link(text, link) {
                    text.push_str("null");
                }
            }
            (Shape::Links, Value::Array(links)) => {
                text.push('[');
                let begin = text.len();
                for link in links {
                    let end = text.len();
                    text.push_str(if end == begin { "" } else { "," });
                    if !self.push_link(text, link) {
                        text.truncate(end);
                    }
                }
                text.push(']');
            }
            (Shape::Links, _) => text.push_str("[]"),
            _ => text.push_str(&value.to_string()),
        }
    }

    /// Appends a link with the present name of its target; not a dead one, and nothing that is no link.
    fn push_link(&self, text: &mut String, link: &Value) -> bool {
        let (Some(entity_type), Some(id)) = (link["type"].as_str(), link["id"].as_i64()) else { return false };
        let mut name = link["name"].as_str();
        if let Some(known) = link["_ref"].as_str().and_then(|reference| self.targets.get(reference)) {
            if known.is_dead() {
                return false;
            }
            if known.by_own_row || known.name.is_some() {
                name = known.name.as_deref();
            }
        }
        text.push_str(&format!("{{\"id\":{id},\"name\":{},\"type\":\"{entity_type}\"}}", Value::from(name)));
        true
    }
}

impl<'a> Rows<'a> for &'a JoinedRows {
    type Row = usize;

    fn row(&self, target: &EntityRef) -> Option<usize> {
        self.positions.get(target).copied()
    }

    fn key(&self, row: usize) -> EntityRef {
        self.rows[row].0.clone()
    }

    fn value(&self, row: usize, field: &str) -> Cow<'a, FieldValue> {
        let (key, document) = &self.rows[row];
        // A field that is not cached, or not yet, holds nothing.
        let Some((data_type, value)) = self.data_type(&key.entity_type, field).zip(document.get(field)) else {
            return Cow::Owned(FieldValue::Null);
        };
        Cow::Owned(FieldValue::from_json(data_type, value).expect("it was read when the row was taken in"))
    }

    fn is_retired(&self, target: &EntityRef) -> bool {
        self.targets.get(&target.to_string()).is_some_and(Target::is_dead)
    }

    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>> {
        match self.targets.get(&link.target.to_string()) {
            Some(known) if known.by_own_row || known.name.is_some() => known.name.as_deref().map(Cow::Borrowed),
            _ => link.name.clone().map(Cow::Owned),
        }
    }
}

impl JoinedRows {
    fn row(&self, target: &EntityRef) -> Option<usize> {
        self.positions.get(target).copied()
    }
}

impl Inner {
    /// Returns the active ones of these entities, as they are now.
    pub(super) async fn active_documents(
        &self,
        keys: &[&EntityRef],
        source: &Value,
    ) -> Result<Vec<(EntityRef, Document)>> {
        let wanted: Vec<Wanted> = keys
            .iter()
            .map(|key| Wanted {
                index: self.names.write(&key.entity_type),
                id: key.id.to_string(),
                source: source.clone(),
            })
            .collect();
        let found = get_many(&self.client, &wanted).await?.into_iter().zip(keys);
        let active = found.filter_map(|(document, key)| {
            // An alias does not filter what is got by id.
            document.filter(|document| document::state(document) == Some(RowState::Active)).map(|d| ((*key).clone(), d))
        });
        Ok(active.collect())
    }
}
