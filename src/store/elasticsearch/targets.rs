//! What is known of the entities that links point to: name and state.
//!
//! Three sources, one document each at most:
//!
//! - the entity's own row, where its type is cached;
//! - what a link to it showed, written with the version of the row that held the
//!   link: a name and nothing else;
//! - what `relink` received: name and state.
//!
//! The own row holds, also when it gives no name, unless `relink` received something
//! newer. Without an own row the newer of the other two gives the name, and
//! `relink` alone the state.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::super::{LinkTarget, ReadVersion, Result, RowState, display_name};
use super::document::{self, Document};
use super::search::{Hit, Search, Wanted, get_many, msearch, refresh, scan_step};
use super::types::OpenType;
use super::{Inner, dsl, fault};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{DataType, EntityRef, EntityType, Shape};
use crate::schema;

/// What is known of an entity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: Option<String>,
    /// Whether the entity's own row gives the name, or that it has none.
    pub(super) by_own_row: bool,
    pub(super) state: Option<RowState>,
    /// `None` where it cannot be read: everything else that is known is newer then.
    pub(super) rv: Option<i64>,
}

impl Target {
    pub(super) fn is_dead(&self) -> bool {
        self.state.is_some_and(RowState::is_dead)
    }

    fn of_row(entity_type: &EntityType, row: &Document) -> Self {
        let name = display_name(entity_type, row).map(str::to_owned);
        let state = document::state(row);
        Self { name, by_own_row: state.is_some_and(RowState::has_document), state, rv: document::rv(row) }
    }

    fn of_entry(entry: &Document) -> Self {
        let text = |field: &str| entry.get(field).and_then(Value::as_str);
        Self {
            name: text("name").map(str::to_owned),
            by_own_row: false,
            state: text("state").and_then(RowState::parse),
            rv: entry.get("rv").and_then(Value::as_i64),
        }
    }

    /// Returns what holds when all three sources are looked at.
    fn merged(row: Option<Self>, shown: Option<Self>, relinked: Option<Self>) -> Option<Self> {
        let news = relinked.clone().filter(|relinked| row.as_ref().is_none_or(|row| relinked.rv > row.rv));
        let state = news.as_ref().or(row.as_ref()).and_then(|source| source.state);
        let by_own_row = row.as_ref().is_some_and(|row| row.by_own_row);
        let mut others: Vec<&Self> = shown.iter().chain(&relinked).collect();
        others.sort_by_key(|source| std::cmp::Reverse(source.rv));
        let own = row.as_ref().and_then(|row| row.name.clone());
        let name = match news.as_ref().filter(|_| row.is_some()).and_then(|news| news.name.clone()) {
            Some(relinked) => Some(relinked),
            None if by_own_row => own,
            None => others.into_iter().find_map(|source| source.name.clone()),
        };
        let rv = [&row, &shown, &relinked].into_iter().flatten().map(|source| source.rv).max()?;
        Some(Self { name, by_own_row, state, rv })
    }
}

/// What a document of the index of names holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// What a link showed.
    Shown,
    /// What `relink` received.
    Relinked,
}

impl Entry {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Relinked => "told",
        }
    }

    pub(super) fn id(self, key: &EntityRef) -> String {
        format!("{}:{key}", self.as_str())
    }
}

/// Returns the fields that may hold the display name of a type, the first one first.
pub(super) fn name_fields(entity_type: &EntityType) -> [&'static str; 2] {
    let own = schema::display_name_field(entity_type);
    match entity_type.as_str() {
        "ApiUser" | "Delivery" => ["cached_display_name", own],
        _ => [own, "cached_display_name"],
    }
}

/// How many entities one search asks for.
const AT_ONCE: usize = 10_000;

impl Inner {
    /// Returns what is known of these entities, as of the last refresh; nothing for those that were never seen.
    pub(super) async fn targets(&self, keys: &BTreeSet<EntityRef>) -> Result<HashMap<EntityRef, Target>> {
        let open = self.open_types();
        let mut by_type: BTreeMap<&EntityType, Vec<i64>> = BTreeMap::new();
        for key in keys.iter().filter(|key| open.contains_key(&key.entity_type)) {
            by_type.entry(&key.entity_type).or_default().push(key.id);
        }
        let (mut searches, mut owners) = (Vec::new(), Vec::new());
        for (entity_type, ids) in by_type {
            for some in ids.chunks(AT_ONCE) {
                let body = own_rows(&open[entity_type], some);
                searches.push(Search { index: self.names.write(entity_type), body });
                owners.push(entity_type);
            }
        }
        let entries: Vec<String> = [Entry::Shown, Entry::Relinked]
            .into_iter()
            .flat_map(|entry| keys.iter().map(move |key| entry.id(key)))
            .collect();
        for some in entries.chunks(AT_ONCE) {
            let body = json!({"query": {"ids": {"values": some}}, "size": some.len(), "sort": ["_doc"]});
            searches.push(Search { index: self.names.display_names(), body });
        }
        let mut answers = msearch(&self.client, &searches).await?.into_iter();
        let mut found: HashMap<EntityRef, Sources> = HashMap::new();
        for (entity_type, hits) in owners.into_iter().zip(answers.by_ref()) {
            for (id, row) in self.own_documents(entity_type, hits).await? {
                let key = EntityRef::new(entity_type.clone(), id);
                found.entry(key).or_default().row = Some(Target::of_row(entity_type, &row));
            }
        }
        for hit in answers.flatten() {
            let Some(key) = EntityRef::from_json(&Value::Object(hit.source.clone())) else { continue };
            let sources = found.entry(key).or_default();
            match hit.source.get("entry").and_then(Value::as_str) {
                Some(entry) if entry == Entry::Relinked.as_str() => {
                    sources.relinked = Some(Target::of_entry(&hit.source))
                }
                _ => sources.shown = Some(Target::of_entry(&hit.source)),
            }
        }
        for key in keys {
            let Some((name, rv)) = self.shown.name_of(key) else { continue };
            let sources = found.entry(key.clone()).or_default();
            if sources.shown.as_ref().is_none_or(|shown| shown.rv < Some(rv.0)) {
                let state = Some(RowState::Active);
                sources.shown = Some(Target { name: Some(name), by_own_row: false, state, rv: Some(rv.0) });
            }
        }
        let known = found.into_iter();
        Ok(known.filter_map(|(key, from)| Some((key, Target::merged(from.row, from.shown, from.relinked)?))).collect())
    }

    /// Returns what the hits tell of rows, by id; a name that is too long for its column is fetched.
    async fn own_documents(&self, entity_type: &EntityType, hits: Vec<Hit>) -> Result<Vec<(i64, Document)>> {
        let fields = name_fields(entity_type);
        let is_long =
            |hit: &Hit| hit.column("_sg.unindexed").iter().any(|field| fields.iter().any(|name| *field == *name));
        let (long, short): (Vec<Hit>, Vec<Hit>) = hits.into_iter().partition(is_long);
        let short = short.into_iter().map(|hit| Ok((hit.entity_id()?, document_of(hit, fields))));
        let mut documents = short.collect::<Result<Vec<_>>>()?;
        let long: Vec<i64> = long.iter().map(Hit::entity_id).collect::<Result<_>>()?;
        let source = json!([fields[0], fields[1], "_sg.state", "_sg.rv"]);
        let index = self.names.write(entity_type);
        let wanted = |id: &i64| Wanted { index: index.clone(), id: id.to_string(), source: source.clone() };
        if !long.is_empty() {
            let got = get_many(&self.client, &long.iter().map(wanted).collect::<Vec<_>>()).await?;
            documents.extend(long.into_iter().zip(got).filter_map(|(id, document)| Some((id, document?))));
        }
        Ok(documents)
    }

    /// Writes entries of the index of names; older ones lose. Not visible before a refresh.
    pub(super) async fn write_names(&self, targets: &[LinkTarget], entry: Entry) -> Result<()> {
        let index = self.names.display_names();
        let writes: Vec<BulkOp> = targets
            .iter()
            .map(|target| {
                let source = json!({"type": target.key.entity_type.as_str(), "id": target.key.id,
                    "name": target.name, "state": target.state.as_str(), "rv": target.rv.0,
                    "entry": entry.as_str()});
                let id = entry.id(&target.key);
                BulkOp::index(&index, &id, target.rv.0, VersionType::ExternalGte, source.to_string())
            })
            .collect();
        for outcome in self.client.bulk(&writes, false).await? {
            if let ItemOutcome::Refused(reason) | ItemOutcome::StoreFault(reason) = outcome {
                return Err(fault::item_fault(&reason));
            }
        }
        Ok(())
    }

    /// Writes the names that the rows of a type tell into the index of names, where they stay without the rows.
    pub(super) async fn keep_names(&self, entity_type: &EntityType) -> Result<()> {
        let index = self.names.write(entity_type);
        let fields = name_fields(entity_type);
        let source = json!([fields[0], fields[1], "_sg.state", "_sg.rv"]);
        let there = json!({"terms": {"_sg.state": [RowState::Active.as_str(), RowState::Retired.as_str()]}});
        let mut after = -1;
        loop {
            let hits = scan_step(&self.client, &index, &there, &source, after, AT_ONCE).await?;
            let Some(last) = hits.last() else { break };
            after = last.entity_id()?;
            let mut names = Vec::with_capacity(hits.len());
            for hit in &hits {
                let row = Target::of_row(entity_type, &hit.source);
                // A row that cannot be read is found by the scrub, and read again.
                let (Some(name), Some(rv)) = (row.name, row.rv) else { continue };
                let (key, rv) = (hit.key(entity_type)?, ReadVersion(rv));
                names.push(LinkTarget { key, name: Some(name), state: RowState::Active, rv });
            }
            self.write_names(&names, Entry::Shown).await?;
        }
        refresh(&self.client, [self.names.display_names()]).await
    }
}

/// What is known of one entity from each of the sources.
#[derive(Default)]
struct Sources {
    row: Option<Target>,
    shown: Option<Target>,
    relinked: Option<Target>,
}

/// Returns the search for what rows tell of themselves: from columns where they have it, because opening a document
/// costs the server ten times as much.
fn own_rows(open: &OpenType, ids: &[i64]) -> Value {
    let fields = name_fields(&open.cached.entity_type);
    let cached = fields.into_iter().filter(|field| open.cached.fields.contains_key(*field));
    let has_column = |field: &&str| {
        let shape = open.cached.data_type(field).map(DataType::shape);
        matches!(shape, Some(Shape::Text | Shape::ExactText)) && !open.own_mapping.contains(*field)
    };
    let mut columns = vec!["id", "_sg.state", "_sg.rv", "_sg.unindexed"];
    let names: Vec<&str> = cached.collect();
    let mut body = json!({"query": dsl::ids(ids), "size": ids.len(), "sort": ["_doc"]});
    if names.iter().all(has_column) {
        columns.extend(names);
        body["_source"] = false.into();
        body["stored_fields"] = "_none_".into();
    } else {
        columns = vec!["id"];
        body["_source"] = json!([fields[0], fields[1], "_sg.state", "_sg.rv"]);
    }
    body["docvalue_fields"] = json!(columns);
    body
}

/// Returns the part of a document that tells name, state and version, whichever way it was found.
fn document_of(mut hit: Hit, names: [&str; 2]) -> Document {
    let mut document = std::mem::take(&mut hit.source);
    if document.is_empty() {
        let first = |field: &str| hit.column(field).first().cloned().unwrap_or_default();
        for name in names {
            document.insert(name.to_owned(), first(name));
        }
        document.insert("_sg".to_owned(), json!({"state": first("_sg.state"), "rv": first("_sg.rv")}));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, state: RowState, rv: i64) -> Option<Target> {
        Some(Target { name: Some(name.to_owned()), by_own_row: name == "row", state: Some(state), rv: Some(rv) })
    }

    #[track_caller]
    fn check(sources: [Option<Target>; 3], name: &str, dead: bool) {
        let [row, shown, relinked] = sources;
        let merged = Target::merged(row, shown, relinked).expect("something is known");
        assert_eq!((merged.name.as_deref(), merged.is_dead()), (Some(name), dead));
    }

    #[test]
    fn the_own_row_holds_unless_something_newer_was_told() {
        use RowState::{Active, Retired};
        check([source("row", Active, 5), source("shown", Active, 9), None], "row", false);
        check([source("row", Active, 5), None, source("told", Retired, 4)], "row", false);
        check([source("row", Active, 5), None, source("told", Retired, 6)], "told", true);
        check([source("row", Retired, 5), source("shown", Active, 9), None], "row", true);
    }

    #[test]
    fn an_own_row_without_a_name_says_that_there_is_none() {
        let row = Some(Target { name: None, by_own_row: true, state: Some(RowState::Active), rv: Some(1) });
        let merged = Target::merged(row, source("shown", RowState::Active, 9), None).expect("something is known");
        assert_eq!(merged.name, None);
    }

    #[test]
    fn without_an_own_row_the_newest_name_holds() {
        use RowState::{Active, Retired};
        check([None, source("shown", Active, 9), source("told", Active, 4)], "shown", false);
        check([None, source("shown", Active, 9), source("told", Retired, 4)], "shown", true);
        check([None, source("shown", Active, 3), source("told", Active, 4)], "told", false);
        assert_eq!(Target::merged(None, None, None), None);
    }
}
