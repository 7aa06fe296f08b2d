//! Whether a row that was read is newer than the entries that made its key dirty.
//!
//! A site may answer reads from a replica that is seconds behind its event log, and may
//! show an event before the row that it is about. A read counts as newer than an entry
//! only with proof; without it the key is read again, with growing pauses
//! ([`REREADS`]), and the freshness of its type does not pass the entry before. Two minutes
//! after the newest entry, or after [`MAX_UNPROVEN_READS`] reads of a field that changes
//! all the time, the row is taken as it is, counted, and left to the scans.
//!
//! What proves that a row is newer than an entry:
//!
//! - it shows what the entry announced: a value that the field did not have before,
//!   elements that were added or removed and not the reverse before, on either side of a
//!   link (removed ones only in a row that was not edited before the entry), or that the
//!   entity is active or retired;
//! - its `updated_at` is later than the entry's `created_at`; both are of the site's
//!   clock and have whole seconds. The same second is a proof for the only known edit of
//!   that second, or when an earlier read, two seconds before, showed that second: a
//!   replica that had reached it then has passed it now. The other side of a link keeps
//!   its `updated_at`, and an entry of a long transaction is older than it looks.
//!
//! Links to retired entities are not shown by the site, so their absence proves nothing
//! and contradicts nothing.
//!
//! Pure, except for what is learned: a field of a type whose announcements never show
//! (a script with authored stamps, values in another form) does not hold freshness up
//! for ever ([`Unprovable`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::entity::{DataType, EntityRef, EntityType, EventId, Timestamp, canonical_json};
use crate::state::{
    Announcement, DirtyKey, DirtyReasons, Expected, ExpectedField, ExpectedLink, MAX_VALUES, NewDirtyKey, RowMeta,
    RowState, SiteTime,
};

/// When a row without proof is read again, in seconds after the first such read. They are
/// times and no count of reads, because other entries have the row read in between.
const REREADS: [u64; 7] = [1, 3, 7, 15, 30, 60, 120];
/// So long after the first read without proof weaker evidence will do: an `updated_at`
/// that fits although the value was never seen, a value that older rows may show too, or
/// that the row is in no list. A replica may be so far behind and no farther. It is a time
/// and no number of reads, because entries about other fields have the row read, too.
const WEAK_EVIDENCE_AFTER: Duration = Duration::from_secs(7);
/// A field is read so often without proof, however often it changes meanwhile.
const MAX_UNPROVEN_READS: u32 = 60;
/// A replica that showed a second has passed it after this time.
const SECOND_HAS_PASSED: Duration = Duration::from_secs(2);
/// After so many announcements in a row that never showed, a field does not hold
/// freshness up.
const UNPROVABLE_AFTER: u32 = 3;

/// What a read showed of a key.
pub(super) struct Shown<'a> {
    /// In which list it is.
    pub(super) state: RowState,
    /// Its fields; `None` without a row.
    pub(super) row: Option<&'a Map<String, Value>>,
    /// Its `updated_at`, where the type has it.
    pub(super) updated_at: Option<Timestamp>,
    /// What was known of it before the read.
    pub(super) before: Option<&'a RowMeta>,
    /// When it was read.
    pub(super) now: SiteTime,
}

/// The fields of a type by which a row is compared.
pub(super) type DataTypes<'a> = dyn Fn(&str) -> Option<DataType> + 'a;

/// What a read proves.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Proof {
    /// What was announced and not proven.
    pub(super) unproven: Expected,
    /// Whether anything that was announced shows: then the row is newer than what was
    /// known before, if not as new as it must be.
    advanced: bool,
    /// Fields whose announcement was proven.
    proven: Vec<String>,
    /// Fields that are believed after a while, with weak evidence or none.
    slow: Vec<String>,
    /// Fields that are not waited for any longer.
    pub(super) given_up: usize,
    /// How long the next read of what is not proven waits.
    pause: Option<Duration>,
}

impl Shown<'_> {
    /// Compares the row with what was announced. `gone` are link targets that are
    /// known to be retired or absent.
    pub(super) fn prove(&self, expected: &Expected, types: &DataTypes<'_>, gone: &BTreeSet<EntityRef>) -> Proof {
        let mut proof = Proof::default();
        for (name, field) in &expected.fields {
            let shows = self.shows(name, field, expected, types, gone);
            // A list that shows the last of its entries is no worse than the stored one,
            // although that alone does not tell how new its row is.
            let is_list = matches!(field.announced, Announcement::Links(_));
            let is_new = shows && !returned(name, field, types, gone);
            proof.advanced |= is_new || shows && is_list;
            let pause = self.next_reread(field);
            let worn_out = pause.is_none() || field.reads >= MAX_UNPROVEN_READS;
            if self.proves(field, shows, is_new, expected) {
                proof.proven.push(name.clone());
            } else if self.has_waited(field) && self.suggests(field, shows) || worn_out {
                proof.given_up += usize::from(worn_out);
                // A row that shows it could be proven at another time.
                proof.slow.extend(Some(name.clone()).filter(|_| !shows));
            } else {
                let unproven_since = field.unproven_since.or(Some(self.now));
                proof.pause = proof.pause.into_iter().chain(pause).min();
                let field = ExpectedField { reads: field.reads + 1, unproven_since, ..field.clone() };
                proof.unproven.fields.insert(name.clone(), field);
            }
        }
        if !proof.unproven.fields.is_empty() {
            proof.unproven.newest_edit = expected.newest_edit;
        }
        proof
    }

    /// Tells whether the row is newer than the entry. `shows` says that it has what was
    /// announced, `is_new` that no older row can have it.
    fn proves(&self, field: &ExpectedField, shows: bool, is_new: bool, expected: &Expected) -> bool {
        if is_new {
            return !field.ambiguous && !self.is_from_before(field) || self.has_waited(field);
        }
        if field.ambiguous || matches!(field.announced, Announcement::NoLinkTo(_)) {
            // A target may have been revived since, or be in the second half of a swap.
            return self.has_waited(field);
        }
        let stamped = field.own && (!field.late || self.has_waited(field));
        let without_stamp = self.row.is_some() && self.updated_at.is_none();
        stamped && self.is_newer(field, shows, expected)
            || without_stamp && field.announced == Announcement::Change && self.has_waited(field)
    }

    /// Returns how long the next read waits; `None` after the last of [`REREADS`].
    fn next_reread(&self, field: &ExpectedField) -> Option<Duration> {
        let waited = field.unproven_since.map_or(Duration::ZERO, |since| self.now.since(since));
        REREADS.into_iter().find_map(|at| Duration::from_secs(at).checked_sub(waited).filter(|pause| !pause.is_zero()))
    }

    /// Tells whether a row that only lacks removed elements was last edited before the
    /// entry: it may lack them because their entities were retired then. The two stamps of
    /// one edit may lie on either side of a second.
    fn is_from_before(&self, field: &ExpectedField) -> bool {
        let Announcement::Links(links) = &field.announced else { return false };
        let edited_before = self.updated_at.is_some_and(|at| at.0 + 1 < field.at.0);
        field.own && edited_before && links.iter().all(|link| !link.present)
    }

    /// Tells whether a replica that was behind the first read has caught up since.
    fn has_waited(&self, field: &ExpectedField) -> bool {
        field.unproven_since.is_some_and(|since| self.now.since(since) >= WEAK_EVIDENCE_AFTER)
    }

    /// Tells whether there is weak evidence: an `updated_at` that fits, no row at all, or
    /// a value that cannot be told from the one before. A value that returned shows in
    /// any row; where there is an `updated_at`, it tells them apart.
    fn suggests(&self, field: &ExpectedField, shows: bool) -> bool {
        let reached = self.updated_at.is_some_and(|at| at.0 >= field.at.0);
        let told_apart = field.own && self.updated_at.is_some();
        field.own && reached || self.state == RowState::Absent || !told_apart && shows
    }

    /// Tells whether `updated_at` proves that the row is newer than the entry.
    fn is_newer(&self, field: &ExpectedField, shows: bool, expected: &Expected) -> bool {
        let Some(updated_at) = self.updated_at else {
            return false;
        };
        if updated_at.0 != field.at.0 {
            return updated_at.0 > field.at.0;
        }
        let known = self.before.and_then(|before| before.updated_at);
        let comparable = matches!(field.announced, Announcement::Value { .. } | Announcement::Links(_));
        let only_edit = expected.newest_edit == Some((updated_at.0, 1)) && known < Some(updated_at);
        let passed = self.before.is_some_and(|before| self.now.since(before.read_at) >= SECOND_HAS_PASSED);
        only_edit && (shows || !comparable) || known == Some(updated_at) && passed
    }

    fn shows(
        &self,
        name: &str,
        field: &ExpectedField,
        expected: &Expected,
        types: &DataTypes<'_>,
        gone: &BTreeSet<EntityRef>,
    ) -> bool {
        if let Announcement::Active(active) = field.announced {
            return match self.state {
                RowState::Active | RowState::Filtered => active,
                RowState::Retired => !active,
                RowState::Absent => false,
            };
        }
        let Some(row) = self.row else {
            return false;
        };
        let value = row.get(name).unwrap_or(&Value::Null);
        match &field.announced {
            Announcement::Value { value: announced, .. } => {
                let Some(data_type) = types(name) else { return true };
                let target = EntityRef::from_json(announced);
                let hidden = self.hides_links(expected) || target.is_some_and(|target| gone.contains(&target));
                let link = matches!(data_type, DataType::Entity);
                link && value.is_null() && hidden
                    || canonical_json(data_type, value) == canonical_json(data_type, announced)
            }
            Announcement::Links(links) => {
                let shown: BTreeSet<EntityRef> = listed(value).collect();
                let right = |link: &ExpectedLink| {
                    link.present == shown.contains(&link.target) || link.present && gone.contains(&link.target)
                };
                self.hides_links(expected) || types(name).is_none() || links.iter().all(right)
            }
            Announcement::NoLinkTo(target) => !row.values().flat_map(listed).any(|link| link == *target),
            Announcement::Edit => self.updated_at.is_some_and(|at| at.0 >= field.at.0),
            Announcement::Change | Announcement::Active(_) => false,
        }
    }

    /// A retired row may show its links or not. One that was revived since will show them.
    fn hides_links(&self, expected: &Expected) -> bool {
        self.state == RowState::Retired && expected.active() != Some(true)
    }

    /// Returns what a read without any announcement must show: no `updated_at` before
    /// the one that is stored. A replica that is far behind would take the row back.
    pub(super) fn not_older(&self) -> Expected {
        let mut expected = Expected::default();
        let known = self.before.and_then(|before| before.updated_at);
        if let (Some(known), Some(shown)) = (known, self.updated_at)
            && shown < known
        {
            let field = ExpectedField::new((known.0, EventId(0)), Announcement::Change);
            expected.announce("updated_at", field);
        }
        expected
    }

    /// Tells whether the stored row should stay, because this one may be older.
    pub(super) fn keeps_stored(&self, proof: &Proof) -> bool {
        let known = self.before.and_then(|before| before.updated_at);
        let may_be_older = match self.state {
            // A replica that is behind a retirement shows the row among the active ones.
            RowState::Absent => proof.unproven.active() != Some(false) || self.before.is_none(),
            _ => self.before.is_some() && self.updated_at <= known,
        };
        !proof.unproven.fields.is_empty() && !proof.advanced && may_be_older
    }
}

/// Tells whether rows from before the newest entry may show the same, because the field
/// was changed and changed back: then what it shows is no proof.
fn returned(name: &str, field: &ExpectedField, types: &DataTypes<'_>, gone: &BTreeSet<EntityRef>) -> bool {
    match (&field.announced, types(name)) {
        (Announcement::Value { value, before }, Some(data_type)) => {
            let value = canonical_json(data_type, value);
            before.len() > MAX_VALUES || before.iter().any(|before| canonical_json(data_type, before) == value)
        }
        (Announcement::Links(links), _) => {
            let last = links.iter().filter(|link| link.returned).map(|link| link.at).max();
            // An element that was never there before proves its entry and all before it.
            let tells = |link: &ExpectedLink| !link.returned && Some(link.at) >= last && !gone.contains(&link.target);
            last.is_some() && !links.iter().any(tells)
        }
        _ => false,
    }
}

/// The entities in a link or a list of links.
fn listed(value: &Value) -> impl Iterator<Item = EntityRef> {
    let one = std::slice::from_ref(value);
    value.as_array().map_or(one, Vec::as_slice).iter().filter_map(EntityRef::from_json)
}

/// Returns the targets that must be in links; some of them may be gone.
pub(super) fn expected_targets(expected: &Expected) -> Vec<EntityRef> {
    let mut targets = Vec::new();
    for field in expected.fields.values() {
        match &field.announced {
            Announcement::Value { value, .. } => targets.extend(EntityRef::from_json(value)),
            Announcement::Links(links) => {
                targets.extend(links.iter().filter(|link| link.present).map(|link| link.target.clone()));
            }
            Announcement::Change | Announcement::Edit | Announcement::NoLinkTo(_) | Announcement::Active(_) => {}
        }
    }
    targets
}

/// Fields whose announcements do not show, by type and name.
#[derive(Debug, Default)]
pub(super) struct Unprovable(Mutex<BTreeMap<(EntityType, String), u32>>);

impl Unprovable {
    /// Takes note of what a read proved.
    pub(super) fn learn(&self, entity_type: &EntityType, proof: &Proof) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &proof.slow {
            *known.entry((entity_type.clone(), name.clone())).or_default() += 1;
        }
        for name in proof.proven.iter().filter(|_| !known.is_empty()).cloned().collect::<Vec<_>>() {
            known.remove(&(entity_type.clone(), name));
        }
    }

    /// Tells whether freshness waits for the proof.
    fn holds(&self, entity_type: &EntityType, unproven: &Expected) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |name: &String| known.get(&(entity_type.clone(), name.clone())).copied().unwrap_or(0);
        unproven.fields.keys().any(|name| count(name) < UNPROVABLE_AFTER)
    }

    /// Returns how a key is read again, if it is.
    pub(super) fn reread(
        &self,
        key: &EntityRef,
        mark: Option<&DirtyKey>,
        expected: &Expected,
        proof: Proof,
    ) -> Option<NewDirtyKey> {
        let since = mark.map(|mark| mark.since);
        if let Some(delay) = proof.pause {
            let holds = self.holds(&key.entity_type, &proof.unproven);
            let unproven = Expected { read_again_after: expected.read_again_after, ..proof.unproven };
            return Some(NewDirtyKey {
                delay,
                expected: unproven,
                since,
                events: mark.and_then(|mark| mark.last_event).map(|event| (event, event)),
                event_created: mark.and_then(|mark| mark.event_created),
                ..NewDirtyKey::new(key.clone(), if holds { DirtyReasons::UNPROVEN } else { DirtyReasons::RECHECK })
            });
        }
        let after = expected.read_again_after?;
        Some(NewDirtyKey { delay: Duration::from_secs(after), ..NewDirtyKey::new(key.clone(), DirtyReasons::RECHECK) })
    }
}

#[cfg(test)]
#[path = "recheck_tests.rs"]
mod tests;
