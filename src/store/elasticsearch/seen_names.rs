//! Names that links showed, on their way into the index of names.
//!
//! Every entity is linked from somewhere, so an import shows the name of each of
//! them. Most have a row of their own that tells it, or get one a little later:
//! writing all these names would double what an import writes. So the names of
//! entities whose type is cached wait here, readable, until no other put is
//! writing or too many wait; then only those without a row are written. After a
//! crash such a link shows the name that its own row was read with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parking_lot::{Mutex, MutexGuard};

use super::super::{LinkTarget, ReadVersion, RowState};
use crate::entity::{EntityRef, EntityType};

/// How many names are remembered as written already.
const MOST_KNOWN: usize = 100_000;

/// How many names wait, at most, for rows that may come.
const MOST_WAITING: usize = 1_000_000;

/// A name and the version of the row whose link showed it.
pub(super) type SeenName = (String, ReadVersion);

/// The names that this process has seen.
#[derive(Default)]
pub(super) struct SeenNames {
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// What the index holds already, so that it is not written again and again.
    written: HashMap<EntityRef, SeenName>,
    /// Names of entities whose own row may be there, or may come.
    waiting: BTreeMap<EntityType, HashMap<i64, SeenName>>,
}

impl Names {
    fn waiting_count(&self) -> usize {
        self.waiting.values().map(HashMap::len).sum()
    }
}

impl SeenNames {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock()
    }

    /// Takes names that links showed and returns those to be written at once: of types that are not `cached`.
    pub(super) fn offer(
        &self,
        shown: HashMap<EntityRef, SeenName>,
        cached: impl Fn(&EntityType) -> bool,
    ) -> Vec<LinkTarget> {
        let mut names = self.lock();
        let mut news = Vec::new();
        for (key, (name, rv)) in shown {
            match names.written.get_mut(&key) {
                Some((_, known_rv)) if *known_rv >= rv => continue,
                Some((known, known_rv)) if *known == name => {
                    *known_rv = rv;
                    continue;
                }
                _ => {}
            }
            if !cached(&key.entity_type) {
                news.push(target(key, name, rv));
                continue;
            }
            let waiting = names.waiting.entry(key.entity_type).or_default();
            let newest = waiting.entry(key.id).or_insert_with(|| (name.clone(), rv));
            if newest.1 < rv {
                *newest = (name, rv);
            }
        }
        news
    }

    /// Tells whether any name waits.
    pub(super) fn any_waiting(&self) -> bool {
        self.lock().waiting_count() > 0
    }

    /// Forgets the names of entities whose own row tells them.
    pub(super) fn named_by_rows<'a>(&self, keys: impl Iterator<Item = &'a EntityRef>) {
        let mut names = self.lock();
        for key in keys {
            if let Some(waiting) = names.waiting.get_mut(&key.entity_type) {
                waiting.remove(&key.id);
            }
        }
    }

    /// Returns the entities whose names wait, by type, when they should not wait any longer.
    pub(super) fn due(&self, more_may_come: bool) -> BTreeMap<EntityType, Vec<i64>> {
        let names = self.lock();
        if more_may_come && names.waiting_count() < MOST_WAITING {
            return BTreeMap::new();
        }
        let ids = |waiting: &HashMap<i64, SeenName>| waiting.keys().copied().collect::<Vec<_>>();
        let due = names.waiting.iter().filter(|(_, waiting)| !waiting.is_empty());
        due.map(|(entity_type, waiting)| (entity_type.clone(), ids(waiting))).collect()
    }

    /// Returns what waits of these entities, to be written. It waits until [`Self::written`].
    pub(super) fn waiting(&self, keys: &[EntityRef]) -> Vec<LinkTarget> {
        let names = self.lock();
        let waits = |key: &EntityRef| names.waiting.get(&key.entity_type)?.get(&key.id).cloned();
        keys.iter().filter_map(|key| waits(key).map(|(name, rv)| target(key.clone(), name, rv))).collect()
    }

    /// Returns the newest name of an entity that waits here.
    pub(super) fn name_of(&self, key: &EntityRef) -> Option<SeenName> {
        self.lock().waiting.get(&key.entity_type)?.get(&key.id).cloned()
    }

    /// Returns the entities of a type whose waiting name fits.
    pub(super) fn named(&self, entity_type: &EntityType, fits: impl Fn(&str) -> bool) -> BTreeSet<EntityRef> {
        let names = self.lock();
        let waiting = names.waiting.get(entity_type).into_iter().flatten().filter(|(_, (name, _))| fits(name));
        waiting.map(|(id, _)| EntityRef::new(entity_type.clone(), *id)).collect()
    }

    /// Notes names that the index holds now.
    pub(super) fn written(&self, targets: Vec<LinkTarget>) {
        let mut names = self.lock();
        if names.written.len() > MOST_KNOWN {
            names.written.clear();
        }
        for target in targets {
            let Some(name) = target.name else { continue };
            if let Some(waiting) = names.waiting.get_mut(&target.key.entity_type)
                && waiting.get(&target.key.id).is_some_and(|(_, rv)| *rv <= target.rv)
            {
                waiting.remove(&target.key.id);
            }
            names.written.insert(target.key, (name, target.rv));
        }
    }
}

fn target(key: EntityRef, name: String, rv: ReadVersion) -> LinkTarget {
    LinkTarget { key, name: Some(name), state: RowState::Active, rv }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &SeenNames, id: i64, name: &str, rv: i64) -> Vec<LinkTarget> {
        let key = EntityRef::new(if id < 100 { "Shot" } else { "Reply" }, id);
        let shown = HashMap::from([(key, (name.to_owned(), ReadVersion(rv)))]);
        names.offer(shown, |entity_type| *entity_type == "Shot")
    }

    #[test]
    fn names_of_other_types_are_written_once_and_those_of_cached_types_wait() {
        let names = SeenNames::default();
        let news = offered(&names, 100, "a", 5);
        assert_eq!(news.len(), 1);
        names.written(news);
        assert_eq!(offered(&names, 100, "a", 6), [], "the same name");
        assert_eq!(offered(&names, 100, "b", 4), [], "an older one");
        assert_eq!(offered(&names, 100, "b", 7).len(), 1);

        assert_eq!(offered(&names, 1, "shot", 5), []);
        assert_eq!(offered(&names, 2, "other", 5), []);
        assert_eq!(names.name_of(&EntityRef::new("Shot", 1)), Some(("shot".to_owned(), ReadVersion(5))));
        assert!(names.due(true).is_empty());
        names.named_by_rows([EntityRef::new("Shot", 1)].iter());
        assert_eq!(names.due(false), BTreeMap::from([("Shot".into(), vec![2])]));
    }

    #[test]
    fn a_name_waits_until_it_is_written_and_a_newer_one_goes_on_waiting() {
        let names = SeenNames::default();
        offered(&names, 1, "first", 5);
        let key = EntityRef::new("Shot", 1);
        let to_write = names.waiting(std::slice::from_ref(&key));
        offered(&names, 1, "second", 6);
        offered(&names, 1, "zeroth", 4);
        names.written(to_write);
        assert_eq!(names.name_of(&key), Some(("second".to_owned(), ReadVersion(6))));
        assert_eq!(names.named(&"Shot".into(), |name| name == "second").len(), 1);
    }
}
