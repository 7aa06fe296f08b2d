//! A few rows in memory, with everything that their answers and orders need.
//!
//! The server cannot follow a link. So the rows of a page are fetched, then the
//! entities their paths lead through, then the names of the entities their links
//! point to; on that island the rules of `filter::eval` hold as they are.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::{Result, Row, RowState};
use super::Inner;
use super::document::{self, Document, read_value};
use super::search::{Wanted, get_many};
use super::targets::Target;
use super::types::OpenTypes;
use crate::entity::{DataType, EntityRef, EntityType, FieldValue, Link, Shape};
use crate::filter::{FieldPath, Rows};

/// Rows, the rows they lead to, and what is known of what they point to.
pub(super) struct Island {
    types: Arc<OpenTypes>,
    rows: Vec<(EntityRef, Document)>,
    positions: HashMap<EntityRef, usize>,
    targets: HashMap<EntityRef, Target>,
}

impl Island {
    /// Makes an island of these rows and fetches what the paths need beyond them.
    pub(super) async fn around(store: &Inner, rows: Vec<(EntityRef, Document)>, paths: &[&FieldPath]) -> Result<Self> {
        let count = rows.len();
        let mut island =
            Self { types: store.open_types(), rows: Vec::new(), positions: HashMap::new(), targets: HashMap::new() };
        for (key, document) in rows {
            island.add(key, document);
        }
        let start: Vec<usize> = (0..count).collect();
        let mut named = BTreeSet::new();
        for path in paths.iter().filter(|path| !path.is_multi()) {
            let ends = island.walk(store, &start, path).await?;
            if matches!(path.data_type.shape(), Shape::Link | Shape::Links) {
                named.extend(ends.iter().flat_map(|&row| island.links(row, &path.field)).map(|link| link.target));
            }
        }
        island.targets = store.targets(&named).await?;
        Ok(island)
    }

    fn add(&mut self, key: EntityRef, document: Document) {
        self.positions.insert(key.clone(), self.rows.len());
        self.rows.push((key, document));
    }

    /// Fetches the rows along a path and returns those at its end.
    async fn walk(&mut self, store: &Inner, start: &[usize], path: &FieldPath) -> Result<Vec<usize>> {
        let mut here = start.to_vec();
        for hop in &path.hops {
            let links = here.iter().flat_map(|&row| self.links(row, &hop.field));
            let keys: BTreeSet<EntityRef> =
                links.map(|link| link.target).filter(|target| target.entity_type == hop.entity_type).collect();
            let missing: Vec<&EntityRef> = keys.iter().filter(|key| !self.positions.contains_key(*key)).collect();
            for (key, document) in store.active_documents(&missing, &json!(true)).await? {
                self.add(key, document);
            }
            here = keys.iter().filter_map(|key| self.positions.get(key).copied()).collect();
        }
        Ok(here)
    }

    fn links(&self, row: usize, field: &str) -> Vec<Link> {
        let value = self.rows[row].1.get(field).unwrap_or(&Value::Null);
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        items.iter().filter_map(Link::from_json).collect()
    }

    fn data_type(&self, entity_type: &EntityType, field: &str) -> Option<DataType> {
        self.types.get(entity_type)?.cached.data_type(field)
    }

    /// Returns the answer for row number `row`, with the values of these paths.
    pub(super) fn answer(&self, row: usize, paths: &[FieldPath]) -> Row {
        let mut fields = Map::new();
        for path in paths.iter().filter(|path| !path.is_multi()) {
            fields.insert(path.to_string(), self.path_value(row, path));
        }
        Row::new(self.rows[row].0.clone(), fields)
    }

    fn path_value(&self, row: usize, path: &FieldPath) -> Value {
        let mut here = row;
        for hop in &path.hops {
            let link = self.links(here, &hop.field).into_iter().next();
            let target = link.map(|link| link.target).filter(|target| target.entity_type == hop.entity_type);
            let Some(next) = target.and_then(|target| self.row(&target)) else { return Value::Null };
            here = next;
        }
        let value = self.rows[here].1.get(&path.field).unwrap_or(&Value::Null);
        let value = read_value(path.data_type, value);
        match path.data_type.shape() {
            Shape::Link => self.named(value).unwrap_or(Value::Null),
            Shape::Links => match value {
                Value::Array(links) => links.into_iter().filter_map(|link| self.named(link)).collect(),
                _ => json!([]),
            },
            _ => value,
        }
    }

    /// Returns a link with the present name of its target; `None` for a dead one.
    fn named(&self, mut link: Value) -> Option<Value> {
        let target = EntityRef::from_json(&link)?;
        if let Some(known) = self.targets.get(&target) {
            if known.is_dead() {
                return None;
            }
            if known.by_own_row || known.name.is_some() {
                link["name"] = known.name.clone().map_or(Value::Null, Value::String);
            }
        }
        Some(link)
    }
}

impl<'a> Rows<'a> for &'a Island {
    type Row = usize;

    fn row(&self, target: &EntityRef) -> Option<usize> {
        self.positions.get(target).copied()
    }

    fn key(&self, row: usize) -> EntityRef {
        self.rows[row].0.clone()
    }

    fn value(&self, row: usize, field: &str) -> Cow<'a, FieldValue> {
        let (key, document) = &self.rows[row];
        let data_type = self.data_type(&key.entity_type, field);
        let value = document.get(field).unwrap_or(&Value::Null);
        let parsed = data_type.and_then(|data_type| FieldValue::from_json(data_type, value).ok());
        Cow::Owned(parsed.unwrap_or_default())
    }

    fn is_retired(&self, target: &EntityRef) -> bool {
        self.targets.get(target).is_some_and(Target::is_dead)
    }

    fn display_name(&self, link: &Link) -> Option<Cow<'a, str>> {
        match self.targets.get(&link.target) {
            Some(known) if known.by_own_row || known.name.is_some() => known.name.as_deref().map(Cow::Borrowed),
            _ => link.name.clone().map(Cow::Owned),
        }
    }
}

impl Island {
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
