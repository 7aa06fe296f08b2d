//! Which types are stored, as their indices say.
//!
//! Other processes make, change and remove types too. So what is known here is
//! compared with the server when it is older than [`CHECK_AFTER`], when a type is
//! missing, and when the server answers with an error that a changed layout would
//! explain. A type that this process ensured stays known when its index is gone:
//! that is an error, not a type that was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use serde_json::Value;

use super::super::{CachedType, Catalogue, Result, StoreError};
use super::{Inner, generation};
use crate::elastic::Call;
use crate::entity::EntityType;

/// How old what is known of the types may be.
const CHECK_AFTER: Duration = Duration::from_secs(2);

/// A type that has an index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OpenType {
    pub(super) cached: CachedType,
    /// Fields with a mapping of the user's own.
    pub(super) own_mapping: BTreeSet<String>,
    /// Whether this process made room for it.
    ensured: bool,
}

/// The types by name.
pub(super) type OpenTypes = BTreeMap<EntityType, Arc<OpenType>>;

/// Our record in the `_meta` of an index.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Meta {
    pub(super) format: u64,
    pub(super) cached: CachedType,
    #[serde(default)]
    pub(super) own_mapping: BTreeSet<String>,
}

impl Meta {
    /// Reads the record of an index, given its mapping; `None` when the index is not ours.
    pub(super) fn of(mapping: &Value) -> Option<Self> {
        serde_json::from_value(mapping.pointer("/_meta/sgcache")?.clone()).ok()
    }
}

/// What is known of the types, and since when.
#[derive(Default)]
pub(super) struct Known {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Arc<OpenTypes>,
    catalogue: Arc<Catalogue>,
    /// Counts the changes that this process made.
    changes: u64,
    checked: Option<Instant>,
}

impl State {
    fn set(&mut self, open: OpenTypes) {
        let types = open.iter().map(|(name, open)| (name.clone(), open.cached.clone()));
        self.catalogue = Arc::new(Catalogue { types: types.collect() });
        self.open = Arc::new(open);
    }

    /// Takes over what the server says.
    fn compare(&mut self, metas: Vec<Meta>) {
        let mut open = OpenTypes::new();
        for meta in metas {
            let ensured = self.open.get(&meta.cached.entity_type).is_some_and(|known| known.ensured);
            let ty = OpenType { cached: meta.cached, own_mapping: meta.own_mapping, ensured };
            open.insert(ty.cached.entity_type.clone(), Arc::new(ty));
        }
        for (name, known) in self.open.iter().filter(|(_, known)| known.ensured) {
            open.entry(name.clone()).or_insert_with(|| Arc::clone(known));
        }
        if open != *self.open {
            self.set(open);
        }
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Inner {
    /// Looks at the server when what is known is old, or lacks one of these types.
    pub(super) async fn know<'a>(&self, mut types: impl Iterator<Item = &'a EntityType>) -> Result<()> {
        {
            let mut state = self.types.lock();
            let fresh = state.checked.is_some_and(|checked| checked.elapsed() < CHECK_AFTER);
            if fresh && types.all(|entity_type| state.open.contains_key(entity_type)) {
                return Ok(());
            }
            // Callers that come meanwhile need not ask as well.
            state.checked = Some(Instant::now());
        }
        let loaded = self.load_types().await;
        if loaded.is_err() {
            self.types.lock().checked = None;
        }
        loaded.map(|_| ())
    }

    /// Reads which types there are from the indices themselves, and tells whether that was news.
    pub(super) async fn load_types(&self) -> Result<bool> {
        let (before, changes) = {
            let state = self.types.lock();
            (Arc::clone(&state.open), state.changes)
        };
        let call = Call::get(format!("/{}-write/_mapping", self.names.any_entity_index()))
            .param("allow_no_indices", true)
            .param("filter_path", "*.mappings._meta.sgcache")
            .accept(&[404]);
        let answer = self.client.send(&call).await?;
        let mut metas = Vec::new();
        if answer.is_success() {
            let indices: BTreeMap<String, Value> = answer.json()?;
            for (index, description) in indices {
                let Some(meta) = Meta::of(&description["mappings"]) else { continue };
                generation::check_format(&index, &meta)?;
                metas.push(meta);
            }
        }
        let mut state = self.types.lock();
        // This process has changed a type meanwhile: the answer may be older than that.
        if state.changes == changes {
            state.compare(metas);
            state.checked = Some(Instant::now());
        }
        Ok(before != state.open)
    }

    /// Notes a type that this process made room for.
    pub(super) fn opened(&self, meta: Meta) {
        let mut state = self.types.lock();
        let mut open = OpenTypes::clone(&state.open);
        let name = meta.cached.entity_type.clone();
        open.insert(name, Arc::new(OpenType { cached: meta.cached, own_mapping: meta.own_mapping, ensured: true }));
        state.set(open);
        state.changes += 1;
    }

    /// Notes that this process removed a type.
    pub(super) fn closed(&self, entity_type: &EntityType) {
        let mut state = self.types.lock();
        let mut open = OpenTypes::clone(&state.open);
        open.remove(entity_type);
        state.set(open);
        state.changes += 1;
    }

    pub(super) fn open_types(&self) -> Arc<OpenTypes> {
        Arc::clone(&self.types.lock().open)
    }

    pub(super) fn open_type(&self, entity_type: &EntityType) -> Result<Arc<OpenType>> {
        self.types.lock().open.get(entity_type).cloned().ok_or_else(|| StoreError::unknown_type(entity_type))
    }

    pub(super) fn is_open(&self, entity_type: &EntityType) -> bool {
        self.types.lock().open.contains_key(entity_type)
    }

    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.types.lock().catalogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(entity_type: &str, hash: &str) -> Meta {
        let cached =
            CachedType { entity_type: entity_type.into(), fields: BTreeMap::new(), partial: false, hash: hash.into() };
        Meta { format: 1, cached, own_mapping: BTreeSet::new() }
    }

    #[test]
    fn what_others_changed_is_taken_over_and_what_we_ensured_is_never_forgotten() {
        let mut state = State::default();
        state.compare(vec![meta("Shot", "1"), meta("Task", "1")]);
        let mut open = OpenTypes::clone(&state.open);
        let ensured = OpenType { ensured: true, ..OpenType::clone(&open[&EntityType::from("Task")]) };
        open.insert("Task".into(), Arc::new(ensured));
        state.set(open);

        state.compare(vec![meta("Note", "1")]);
        let names = |state: &State| state.open.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&state), ["Note", "Task"], "the index of an ensured type is missing, which is a fault");
        state.compare(vec![meta("Task", "2")]);
        assert_eq!((names(&state), state.catalogue.types.len()), (vec!["Task".to_owned()], 1));
        assert_eq!(state.open[&EntityType::from("Task")].cached.hash, "2");
    }
}
