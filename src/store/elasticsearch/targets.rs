//! What is known of the entities that links point to: name and state.
//!
//! Three sources, one document each at most:
//!
//! - the entity's own row, where its type is cached;
//! - what a link to it showed, written with the version of the row that held the
//!   link: a name and nothing else;
//! - what `relink` was told: name and state.
//!
//! The own row holds, also when it gives no name, unless `relink` was told something
//! newer. Without an own row the newer of the other two gives the name, and
//! `relink` alone the state.

use std::collections::{BTreeSet, HashMap};
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::super::{LinkTarget, ReadVersion, Result, RowState, display_name};
use super::document::{self, Document};
use super::search::{Wanted, get_many};
use super::{Inner, fault};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{EntityRef, EntityType};
use crate::schema;

/// How many names are remembered as written already.
const MOST_KNOWN: usize = 100_000;

/// What is known of an entity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: Option<String>,
    /// Whether the entity's own row gives the name, or that it has none.
    pub(super) by_own_row: bool,
    pub(super) state: Option<RowState>,
    pub(super) rv: i64,
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
            rv: entry.get("rv").and_then(Value::as_i64).unwrap_or_default(),
        }
    }

    /// Returns what holds when all three sources are looked at.
    fn merged(row: Option<Self>, shown: Option<Self>, told: Option<Self>) -> Option<Self> {
        let news = told.clone().filter(|told| row.as_ref().is_none_or(|row| told.rv > row.rv));
        let state = news.as_ref().or(row.as_ref()).and_then(|source| source.state);
        let by_own_row = row.as_ref().is_some_and(|row| row.by_own_row);
        let mut others: Vec<&Self> = shown.iter().chain(&told).collect();
        others.sort_by_key(|source| std::cmp::Reverse(source.rv));
        let own = row.as_ref().and_then(|row| row.name.clone());
        let name = match news.as_ref().filter(|_| row.is_some()).and_then(|news| news.name.clone()) {
            Some(told) => Some(told),
            None if by_own_row => own,
            None => others.into_iter().find_map(|source| source.name.clone()),
        };
        let rv = [&row, &shown, &told].into_iter().flatten().map(|source| source.rv).max()?;
        Some(Self { name, by_own_row, state, rv })
    }
}

/// What a document of the index of names holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// What a link showed.
    Shown,
    /// What `relink` was told.
    Told,
}

impl Entry {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Told => "told",
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

impl Inner {
    /// Returns what is known of these entities, as of now; nothing for those that nobody has seen.
    pub(super) async fn targets(&self, keys: &BTreeSet<EntityRef>) -> Result<HashMap<EntityRef, Target>> {
        let mut wanted = Vec::with_capacity(keys.len() * 3);
        for key in keys {
            let [first, second] = name_fields(&key.entity_type);
            let own = self.is_open(&key.entity_type).then(|| Wanted {
                index: self.names.write(&key.entity_type),
                id: key.id.to_string(),
                source: json!([first, second, "_sg.state", "_sg.rv"]),
            });
            wanted.extend(own);
            for entry in [Entry::Shown, Entry::Told] {
                wanted.push(Wanted { index: self.names.display_names(), id: entry.id(key), source: json!(true) });
            }
        }
        let mut got = get_many(&self.client, &wanted).await?.into_iter();
        let mut known = HashMap::new();
        for key in keys {
            let own = if self.is_open(&key.entity_type) { got.next().flatten() } else { None };
            let row = own.map(|row| Target::of_row(&key.entity_type, &row));
            let mut entry = || got.next().flatten().map(|entry| Target::of_entry(&entry));
            let (shown, told) = (entry(), entry());
            if let Some(target) = Target::merged(row, shown, told) {
                known.insert(key.clone(), target);
            }
        }
        Ok(known)
    }

    /// Remembers names that links of an answer of the site showed, and tells whether any was new.
    ///
    /// They are not visible to searches before the next refresh of the index of names.
    pub(super) async fn learn_names(&self, shown: HashMap<EntityRef, (String, ReadVersion)>) -> Result<bool> {
        let news = self.not_known_yet(shown);
        if news.is_empty() {
            return Ok(false);
        }
        self.write_names(&news, Entry::Shown).await?;
        let mut known = self.known_names.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MOST_KNOWN {
            known.clear();
        }
        known.extend(news.into_iter().filter_map(|target| Some((target.key, (target.name?, target.rv)))));
        Ok(true)
    }

    /// Leaves out what the index holds already, and remembers that it was shown again.
    fn not_known_yet(&self, shown: HashMap<EntityRef, (String, ReadVersion)>) -> Vec<LinkTarget> {
        let mut known = self.known_names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = Vec::new();
        for (key, (name, rv)) in shown {
            match known.get_mut(&key) {
                Some((_, known_rv)) if *known_rv >= rv => {}
                Some((known_name, known_rv)) if *known_name == name => *known_rv = rv,
                _ => news.push(LinkTarget { key, name: Some(name), state: RowState::Active, rv }),
            }
        }
        news
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, state: RowState, rv: i64) -> Option<Target> {
        Some(Target { name: Some(name.to_owned()), by_own_row: name == "row", state: Some(state), rv })
    }

    #[track_caller]
    fn check(sources: [Option<Target>; 3], name: &str, dead: bool) {
        let [row, shown, told] = sources;
        let merged = Target::merged(row, shown, told).expect("something is known");
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
        let row = Some(Target { name: None, by_own_row: true, state: Some(RowState::Active), rv: 1 });
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
