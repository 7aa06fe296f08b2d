//! Finds in the cached rows what a write may have changed besides what it names.
//!
//! Asked before the write is sent and again after the acknowledgement: between the
//! two a row may arrive in the cache that shows the link still, or no longer. What the
//! cache cannot tell becomes an effect on the whole type, which lasts until the event
//! log has told the rest.

use std::collections::BTreeSet;

use super::catalogue::Catalogue;
use super::pending_writes::{self, PendingWrites};
use super::write_effects::{self, Effect, Fields, Ids, Lookup, WriteEffects, cascade_of, link_fields, other_side};
use super::written_values::WrittenValues;
use crate::entity::{EntityRef, EntityType, Shape, ids_by_type};
use crate::filter::FieldPath;
use crate::state::State;
use crate::store::{self, Store};

/// More entities than this are not listed one by one.
const MAX_LISTED: usize = 500;

/// What the cache knows.
pub(super) struct EffectLookup<'a> {
    pub store: &'a dyn Store,
    pub state: &'a State,
    pub catalogue: &'a Catalogue,
    /// What the cached rows may lack.
    pub pending: PendingWrites,
    /// Whether the site may show rows that are older than its writes: then also those that
    /// are read later on may show what was left behind.
    pub may_lag: bool,
}

impl EffectLookup<'_> {
    /// Adds what the lookups of a write find to its effects.
    pub async fn resolve(&self, effects: &mut WriteEffects) {
        for lookup in effects.lookups.clone() {
            match lookup {
                Lookup::LeftBehind { key, types } => self.left_behind(&key, &types, effects).await,
                Lookup::Targets { key } => self.targets(&key, effects).await,
                Lookup::Cascade { key } => self.cascade(&key, effects).await,
                Lookup::Downstream { key } => self.downstream(&key, effects).await,
                Lookup::NewIds { entity_type, values } => self.new_ids(entity_type, values, effects).await,
            }
        }
    }

    /// Entities that show a link to the key, and those that its own row shows; or that will
    /// show one when a write is visible that is not yet.
    async fn left_behind(&self, key: &EntityRef, types: &BTreeSet<EntityType>, effects: &mut WriteEffects) {
        for ty in types {
            let fields = other_side(ty, &key.entity_type, self.catalogue);
            for ids in self.pending.changed(ty, &fields) {
                effects.unlisted |= !matches!(ids, Ids::Only(_));
                effects.push(ty.clone(), ids, fields.clone(), false);
            }
        }
        let known = if self.may_lag { None } else { self.neighbours(key).await };
        let Some(others) = known else {
            for ty in types {
                effects.unlisted = true;
                effects.push(ty.clone(), Ids::All, other_side(ty, &key.entity_type, self.catalogue), false);
            }
            return;
        };
        for (ty, ids) in ids_by_type(others.into_iter().filter(|other| types.contains(&other.entity_type))) {
            let fields = other_side(&ty, &key.entity_type, self.catalogue);
            effects.push(ty, Ids::Only(ids), fields, false);
        }
    }

    /// Entities that the key links to, of which something is derived from it.
    async fn targets(&self, key: &EntityRef, effects: &mut WriteEffects) {
        let ty = &key.entity_type;
        if self.catalogue.stored.types.contains_key(ty) {
            let Some(others) = self.neighbours(key).await else { return self.any_neighbour(ty, effects) };
            for (other, ids) in ids_by_type(others) {
                let fields = other_side(&other, ty, self.catalogue);
                effects.push(other, Ids::Only(ids), fields, false);
            }
            return;
        }
        let fields = self.catalogue.schema.entity(ty).into_iter().flat_map(|entity| entity.fields.values());
        let linked: BTreeSet<_> = fields.flat_map(|field| &field.valid_types).collect();
        for other in linked.into_iter().filter(|other| self.catalogue.stored.types.contains_key(*other)) {
            effects.unlisted = true;
            effects.push(other.clone(), Ids::All, other_side(other, ty, self.catalogue), false);
        }
    }

    /// Any row of a type that may show a link to or from one of type `ty`.
    fn any_neighbour(&self, ty: &EntityType, effects: &mut WriteEffects) {
        effects.unlisted = true;
        for other in self.catalogue.stored.types.keys() {
            let fields = other_side(other, ty, self.catalogue);
            let links = [link_fields(other, ty, self.catalogue), link_fields(ty, other, self.catalogue)];
            if links.iter().any(|fields| !fields.is_empty()) {
                effects.push(other.clone(), Ids::All, fields, false);
            }
        }
    }

    /// Entities that go along with a retirement: those of the fitting types that link
    /// to it.
    async fn cascade(&self, key: &EntityRef, effects: &mut WriteEffects) {
        let types = cascade_of(&key.entity_type);
        let goes_along = |other: &EntityRef| types.contains(&other.entity_type.as_str());
        let Some(others) = self.referrers(key).await else {
            for ty in types {
                effects.unlisted = true;
                effects.push(EntityType::new(ty), Ids::All, Fields::Only(BTreeSet::new()), true);
            }
            return;
        };
        for (ty, ids) in ids_by_type(others.into_iter().filter(goes_along)) {
            effects.push(ty, Ids::Only(ids), Fields::Only(BTreeSet::new()), true);
        }
    }

    /// Tasks that depend on the key, directly or not, may have their dates moved.
    async fn downstream(&self, key: &EntityRef, effects: &mut WriteEffects) {
        let moved: BTreeSet<&str> = ["start_date", "due_date", "duration"].into();
        let fields = Fields::Only(write_effects::touched(&key.entity_type, &moved, self.catalogue));
        let ids = match self.dependents(key, effects).await {
            Some(ids) if ids.is_empty() => return,
            Some(ids) => Ids::Only(ids),
            None => {
                effects.unlisted = true;
                Ids::All
            }
        };
        effects.push(key.entity_type.clone(), ids, fields, false);
    }

    /// Returns the Tasks that may depend on one, by the cached rows and by what these may
    /// lack; `None` where that may be any.
    async fn dependents(&self, key: &EntityRef, effects: &WriteEffects) -> Option<BTreeSet<i64>> {
        const FIELD: &str = "downstream_tasks";
        let mut found = pending_writes::moved_dependencies(&effects.effects)?;
        found.extend(self.pending.moved_dependencies()?);
        let task = |id: &i64| EntityRef::new(key.entity_type.clone(), *id);
        let mut next: Vec<EntityRef> = found.iter().map(task).chain([key.clone()]).collect();
        while !next.is_empty() {
            let rows = self.rows(&next, &[FIELD]).await?;
            // A row that is not there yet has links in those that are pending.
            if found.len() > MAX_LISTED || !rows.iter().any(|row| row.key == *key) && next.contains(key) {
                return None;
            }
            next.clear();
            for row in rows {
                let linked = row.get(FIELD)?;
                let linked = linked.as_array()?.iter().filter_map(EntityRef::from_json);
                next.extend(linked.filter(|task| found.insert(task.id)));
            }
        }
        found.remove(&key.id);
        Some(found)
    }

    /// New entities have higher ids than any that was seen before.
    async fn new_ids(&self, entity_type: EntityType, values: WrittenValues, effects: &mut WriteEffects) {
        let ids = match self.state.newest(&entity_type).await {
            Ok((highest, _)) => Ids::From(highest + 1),
            _ => Ids::All,
        };
        effects.add(Effect { entity_type, ids, fields: Fields::All, values, lifecycle: true });
    }

    /// Returns the rows that link to an entity, `None` when the store cannot list
    /// them.
    async fn referrers(&self, key: &EntityRef) -> Option<Vec<EntityRef>> {
        let found = self.store.referrers(key, MAX_LISTED).await.ok()?;
        (!found.more).then_some(found.keys)
    }

    /// Returns the rows that link to an entity and those that it links to; `None` when the
    /// store cannot list them.
    async fn neighbours(&self, key: &EntityRef) -> Option<Vec<EntityRef>> {
        let mut others = self.referrers(key).await?;
        others.extend(self.linked(key).await?);
        Some(others)
    }

    /// Returns what the cached row of an entity links to, through any field that may
    /// show it back; `None` when the store cannot tell.
    async fn linked(&self, key: &EntityRef) -> Option<Vec<EntityRef>> {
        let Some(cached) = self.catalogue.stored.types.get(&key.entity_type) else { return Some(Vec::new()) };
        let links = cached.fields.iter().filter(|(_, ty)| matches!(ty.shape(), Shape::Link | Shape::Links));
        let names: Vec<&str> = links.map(|(name, _)| name.as_str()).collect();
        let rows = self.rows(std::slice::from_ref(key), &names).await?;
        let Some(row) = rows.first() else { return Some(Vec::new()) };
        let values = names.iter().filter_map(|name| row.get(name));
        let mut linked = Vec::new();
        for value in values {
            let one = std::slice::from_ref(&value);
            linked.extend(value.as_array().map_or(one, Vec::as_slice).iter().filter_map(EntityRef::from_json));
        }
        linked.retain(|other| !link_fields(&other.entity_type, &key.entity_type, self.catalogue).is_empty());
        Some(linked)
    }

    /// Returns the active rows among keys of one type, with the cached ones of the fields.
    async fn rows(&self, keys: &[EntityRef], fields: &[&str]) -> Option<Vec<store::Row>> {
        let cached = self.catalogue.stored.types.get(&keys.first()?.entity_type)?;
        let known = fields.iter().filter_map(|field| Some(FieldPath::local(*field, cached.data_type(field)?)));
        let fields = store::Fields::Only(known.collect());
        self.store.get(keys, &fields).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::tests::catalogue;
    use super::super::visibility_tests::layout;
    use super::*;
    use crate::entity::Timestamp;
    use crate::store::embedded::{EmbeddedSettings, EmbeddedStore};
    use crate::store::{FetchedRow, ReadVersion, RowState};

    /// A cache with one Shot in one Sequence.
    struct Cache {
        directory: tempfile::TempDir,
        store: EmbeddedStore,
        state: State,
        catalogue: Catalogue,
    }

    impl Cache {
        async fn new() -> Self {
            let (directory, catalogue) = (tempfile::tempdir().expect("a directory"), catalogue());
            let state = State::open(directory.path()).await.expect("a state");
            let settings = EmbeddedSettings::new(directory.path().join("store.sqlite"));
            let store = EmbeddedStore::open(settings).expect("a store");
            for ty in catalogue.stored.types.keys() {
                store.ensure_type(&layout(ty, &catalogue)).await.expect("a type");
            }
            let cache = Self { directory, store, state, catalogue };
            cache.put("Sequence", 10, "code", json!("a")).await;
            cache.put("Shot", 100, "sg_sequence", json!({"type": "Sequence", "id": 10, "name": "a"})).await;
            cache
        }

        async fn put(&self, ty: &str, id: i64, field: &str, value: Value) {
            let layout = layout(&EntityType::new(ty), &self.catalogue);
            let mut fields: Map<_, _> = layout.fields.iter().map(|field| (field.name.clone(), Value::Null)).collect();
            fields.insert(field.to_owned(), value);
            let (key, state) = (EntityRef::new(ty, id), RowState::Active);
            let row = FetchedRow::from_site(&layout, key, ReadVersion(1), state, fields, Timestamp(0), None);
            self.store.put(&[row.expect("a row")]).await.expect("it is stored");
        }

        /// Takes tables away from a file that is in use.
        fn lose(&self, file: &str, tables: &str) {
            let connection = rusqlite::Connection::open(self.directory.path().join(file)).expect("a file");
            let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB ?1";
            let mut found = connection.prepare(sql).expect("a query");
            let names = found.query_map([tables], |row| row.get::<_, String>(0)).expect("tables");
            let names: Vec<_> = names.collect::<Result<_, _>>().expect("names");
            assert!(!names.is_empty(), "{file} has no {tables}");
            for name in names {
                connection.execute_batch(&format!("DROP TABLE {name}")).expect("it is lost");
            }
        }

        async fn resolve(&self, lookup: Lookup) -> WriteEffects {
            let (store, state, pending) = (&self.store, &self.state, PendingWrites::default());
            let lookup_of = EffectLookup { store, state, catalogue: &self.catalogue, pending, may_lag: false };
            let mut effects = WriteEffects { lookups: vec![lookup], ..WriteEffects::default() };
            lookup_of.resolve(&mut effects).await;
            effects
        }
    }

    fn ids(effects: &WriteEffects, ty: &str) -> Vec<Ids> {
        effects.effects.iter().filter(|effect| effect.entity_type == *ty).map(|effect| effect.ids.clone()).collect()
    }

    fn sequence() -> EntityRef {
        EntityRef::new("Sequence", 10)
    }

    /// What is asked of the rows that link to one, and the types of which it finds rows.
    fn of_rows() -> [(Lookup, &'static [&'static str]); 3] {
        let (key, types) = (sequence(), [EntityType::new("Shot")].into());
        [
            (Lookup::LeftBehind { key: key.clone(), types }, &["Shot"]),
            (Lookup::Targets { key: key.clone() }, &["Shot"]),
            (Lookup::Cascade { key }, &["Task", "TaskDependency"]),
        ]
    }

    #[tokio::test]
    async fn rows_that_the_store_cannot_list_may_be_any() {
        let cache = Cache::new().await;
        for (lookup, types) in of_rows() {
            let effects = cache.resolve(lookup.clone()).await;
            assert!(!effects.unlisted, "{lookup:?}: {effects:?}");
            let listed = if types == ["Shot"] { vec![Ids::Only([100].into())] } else { Vec::new() };
            assert_eq!(ids(&effects, types[0]), listed, "{lookup:?}");
        }
        cache.lose("store.sqlite", "link*");
        for (lookup, types) in of_rows() {
            let effects = cache.resolve(lookup.clone()).await;
            assert!(effects.unlisted, "{lookup:?}: {effects:?}");
            for ty in types {
                assert_eq!(ids(&effects, ty), [Ids::All], "{lookup:?}, {ty}");
            }
        }
    }

    /// The links of its own row say what it leaves behind, too.
    #[tokio::test]
    async fn what_a_row_that_cannot_be_read_links_to_may_be_any() {
        let cache = Cache::new().await;
        let types = [EntityType::new("Sequence")].into();
        let lookup = Lookup::Targets { key: EntityRef::new("Shot", 100) };
        assert!(!cache.resolve(lookup.clone()).await.unlisted);
        let left = Lookup::LeftBehind { key: EntityRef::new("Shot", 100), types };
        assert!(!cache.resolve(left.clone()).await.unlisted);
        cache.lose("store.sqlite", "doc*");
        for lookup in [lookup, left] {
            assert!(cache.resolve(lookup.clone()).await.unlisted, "{lookup:?}");
        }
    }

    #[tokio::test]
    async fn new_entities_may_have_any_id_where_the_state_cannot_tell_the_highest() {
        let cache = Cache::new().await;
        let lookup = Lookup::NewIds { entity_type: EntityType::new("Shot"), values: WrittenValues::default() };
        assert_eq!(ids(&cache.resolve(lookup.clone()).await, "Shot"), [Ids::From(1)]);
        cache.lose("state.sqlite", "rowmeta");
        assert_eq!(ids(&cache.resolve(lookup).await, "Shot"), [Ids::All]);
    }
}
