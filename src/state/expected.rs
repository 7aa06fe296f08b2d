//! What event log entries announced about the row of a dirty key.
//!
//! A read of the site may be answered from a replica that is behind the event log.
//! What the entries announced is therefore kept with the dirty key, and a read that
//! does not show it is no proof that the row is newer than the entries. Here the
//! announcements are only kept and merged; `sync::recheck` compares them with rows.
//!
//! Entries are ordered by `created_at` and then by id: ids are reserved early and used
//! late, so that their order alone says nothing. `created_at` has whole seconds, and the
//! stamp of an entry may lie a second after that of the edit: of entries so close to each
//! other, the one that begins with the value that another ends with is the later one. Those
//! that contradict each other, and of which nothing tells that, are both kept open
//! ([`ExpectedField::ambiguous`]).
//!
//! A value that the field had before one of the merged entries is in older rows, too:
//! every such value is kept, so that only a value that no older row can have is a proof.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{SiteTime, Unreadable};
use crate::entity::{EntityRef, EventId};

/// More announced fields than this share one entry, [`OTHER_FIELDS`].
const MAX_FIELDS: usize = 16;
/// More announced elements of one list than this are not compared one by one.
const MAX_LINKS: usize = 100;
/// With more values before than this a value proves nothing: not all of them are kept.
pub const MAX_VALUES: usize = 16;
/// The name under which fields beyond [`MAX_FIELDS`] are announced together.
const OTHER_FIELDS: &str = "*";
/// The name under which retirement and revival are announced, and whether the entity
/// exists at all.
pub const LIFE: &str = "retirement_date";

/// Seconds after which a row is read once more when what it should show is not known any
/// more; replicas of the site are rarely so far behind.
const UNREADABLE_AGAIN_AFTER: u64 = 60;

/// When the site wrote an entry, in seconds since 1970, and the id of the entry.
pub type EntryTime = (i64, EventId);

/// What the entries that made a key dirty announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Expected {
    /// By field.
    pub fields: BTreeMap<String, ExpectedField>,
    /// The newest second in which the row itself was edited, and how many entries say so.
    pub newest_edit: Option<(i64, u32)>,
    /// Seconds after which the row is read once more in any case.
    pub read_again_after: Option<u64>,
}

/// What is announced about one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedField {
    /// The newest entry about the field.
    pub at: EntryTime,
    /// What it announced.
    pub announced: Announcement,
    /// Whether the row itself was edited, so that its `updated_at` moves. The other
    /// side of a link keeps its `updated_at`.
    pub own: bool,
    /// Whether an entry became visible long after it was written: its transaction was
    /// long, and `updated_at` may be older than changes that were seen before.
    pub late: bool,
    /// Whether two entries contradict each other so that a row from before both looks
    /// like one from after both, or nothing tells which of them was the last.
    pub ambiguous: bool,
    /// How many reads did not show it since the first of the merged entries.
    #[serde(default)]
    pub reads: u32,
    /// When the first read after the newest entry did not show it.
    #[serde(default)]
    pub unproven_since: Option<SiteTime>,
}

/// What an entry announced about a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// A change of a cached field whose value cannot be compared.
    Change,
    /// An edit of which nothing is cached but its moment.
    Edit,
    /// A new value, and those before it.
    Value {
        /// The value that the row must show.
        value: Value,
        /// The values before each of the merged entries, which older rows show; where
        /// `value` is among them it proves nothing.
        before: Vec<Value>,
    },
    /// Elements of a list of links: which must be there and which must not.
    Links(Vec<ExpectedLink>),
    /// No link of the row may show this entity any more: it was retired.
    NoLinkTo(EntityRef),
    /// Whether the entity is active.
    Active(bool),
}

/// One element of a list of links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedLink {
    /// The element.
    pub target: EntityRef,
    /// Whether it must be there.
    pub present: bool,
    /// The newest entry about it.
    pub at: EntryTime,
    /// Whether it came and went in the merged entries, so that older rows look alike.
    #[serde(default)]
    pub returned: bool,
}

impl ExpectedField {
    /// Makes an announcement of one entry about the row that it edits.
    pub fn new(at: EntryTime, announced: Announcement) -> Self {
        Self { at, announced, own: true, late: false, ambiguous: false, reads: 0, unproven_since: None }
    }

    /// Takes in another announcement about the same field. What was waited for an older
    /// entry says nothing about a newer one, so the waiting begins anew with it; the
    /// reads go on being counted, because a field that changes all the time has an end,
    /// too.
    fn merge(&mut self, other: &Self) {
        let (newer, is_open) = self.order(other);
        self.ambiguous |= is_open;
        if newer {
            self.unproven_since = other.unproven_since;
        } else if other.at == self.at {
            self.unproven_since = self.unproven_since.or(other.unproven_since);
        }
        self.reads = self.reads.max(other.reads);
        self.ambiguous |= other.ambiguous;
        self.late |= other.late;
        self.own &= other.own;
        let known = std::mem::replace(&mut self.announced, Announcement::Change);
        self.announced = match (known, other.announced.clone()) {
            (Announcement::Value { value, before }, Announcement::Value { value: next, before: prior }) => {
                let (value, replaced) = match newer {
                    true => (next, Some(value)),
                    false => (value, Some(next).filter(|_| other.at != self.at)),
                };
                let before = merge_values(before, prior.into_iter().chain(replaced));
                Announcement::Value { value, before }
            }
            (Announcement::Links(known), Announcement::Links(links)) => {
                let (merged, ambiguous) = merge_links(known, links);
                self.ambiguous |= ambiguous;
                merged
            }
            (Announcement::Active(known), Announcement::Active(active)) => {
                // An entity that was retired and revived looks as before.
                self.ambiguous |= known != active;
                Announcement::Active(if newer { active } else { known })
            }
            (known, announced) => match newer {
                true => announced,
                false => known,
            },
        };
        if newer {
            self.at = other.at;
        }
    }

    /// Tells whether the other entry is the newer one, and whether that is open.
    fn order(&self, other: &Self) -> (bool, bool) {
        let newer = other.at > self.at;
        let (Announcement::Value { value, before }, Announcement::Value { value: next, before: prior }) =
            (&self.announced, &other.announced)
        else {
            return (newer, false);
        };
        if value == next || self.at.0.abs_diff(other.at.0) > 1 {
            return (newer, false);
        }
        match (prior.contains(value), before.contains(next)) {
            (true, false) => (true, false),
            (false, true) => (false, false),
            _ => (newer, is_order_open(self.at, other.at)),
        }
    }
}

/// Tells whether the entry that was written first by its stamp may have been the last: by its
/// id it was, and the stamps differ by no more than those of one edit may.
fn is_order_open(one: EntryTime, other: EntryTime) -> bool {
    let (earlier, later) = if one < other { (one, other) } else { (other, one) };
    later.0 - earlier.0 == 1 && earlier.1 > later.1
}

/// Adds values that a field had before; the first beyond [`MAX_VALUES`] stands for all.
fn merge_values(mut known: Vec<Value>, more: impl Iterator<Item = Value>) -> Vec<Value> {
    for before in more {
        if known.len() <= MAX_VALUES && !known.contains(&before) {
            known.push(before);
        }
    }
    known
}

/// Merges elements of one list; the second value tells whether two entries of the
/// same second contradict each other.
fn merge_links(mut known: Vec<ExpectedLink>, links: Vec<ExpectedLink>) -> (Announcement, bool) {
    let mut ambiguous = false;
    for link in links {
        let Some(same) = known.iter_mut().find(|one| one.target == link.target) else {
            known.push(link);
            continue;
        };
        let is_open = same.at.0 == link.at.0 || is_order_open(same.at, link.at);
        ambiguous |= is_open && same.present != link.present;
        let returned = same.returned || link.returned || same.present != link.present;
        if link.at > same.at {
            *same = link;
        }
        same.returned = returned;
    }
    match known.len() > MAX_LINKS {
        true => (Announcement::Change, ambiguous),
        false => (Announcement::Links(known), ambiguous),
    }
}

impl Expected {
    /// Reads what a dirty key expects. What cannot be read proves nothing about the row,
    /// so the row is read now and once more later, when a replica has caught up.
    pub(super) fn parse(key: &EntityRef, text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::default() };
        serde_json::from_str(text).unwrap_or_else(|error| {
            Unreadable::Expected.note(key, error);
            Self { read_again_after: Some(UNREADABLE_AGAIN_AFTER), ..Self::default() }
        })
    }

    /// Tells whether nothing was announced.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether the entity is active, as the last entry about its life says.
    pub fn active(&self) -> Option<bool> {
        match self.fields.get(LIFE)?.announced {
            Announcement::Active(active) => Some(active),
            _ => None,
        }
    }

    /// Adds what one entry announced about a field.
    pub fn announce(&mut self, name: &str, field: ExpectedField) {
        let full = self.fields.len() >= MAX_FIELDS && !self.fields.contains_key(name);
        let (name, field) = match full {
            true => (OTHER_FIELDS, ExpectedField { announced: Announcement::Change, ..field }),
            false => (name, field),
        };
        match self.fields.get_mut(name) {
            Some(known) => known.merge(&field),
            None => drop(self.fields.insert(name.to_owned(), field)),
        }
    }

    /// Notes an entry that edits the row itself.
    pub fn note_edit(&mut self, second: i64) {
        self.merge_newest(Some((second, 1)));
    }

    fn merge_newest(&mut self, other: Option<(i64, u32)>) {
        self.newest_edit = match (self.newest_edit, other) {
            (Some((known, count)), Some((second, more))) if known == second => Some((known, count + more)),
            (known, other) => known.max(other),
        };
    }

    /// Notes that the entries became visible long after they were written.
    pub fn set_late(&mut self) {
        self.fields.values_mut().for_each(|field| field.late = true);
    }

    /// Takes in what other entries announced.
    pub fn merge(&mut self, other: &Self) {
        for (name, field) in &other.fields {
            self.announce(name, field.clone());
        }
        self.merge_newest(other.newest_edit);
        self.read_again_after = self.read_again_after.max(other.read_again_after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(at: i64, id: i64, before: Value, value: Value) -> ExpectedField {
        ExpectedField::new((at, EventId(id)), Announcement::Value { value, before: vec![before] })
    }

    fn link(at: i64, id: i64, present: bool) -> ExpectedField {
        let target = EntityRef::new("Asset", 7);
        let at = (at, EventId(id));
        ExpectedField::new(at, Announcement::Links(vec![ExpectedLink { target, present, at, returned: false }]))
    }

    fn merged(fields: &[ExpectedField]) -> ExpectedField {
        let mut expected = Expected::default();
        fields.iter().for_each(|field| expected.announce("code", field.clone()));
        expected.fields.remove("code").expect("a field")
    }

    #[test]
    fn the_entry_that_was_written_last_decides_whatever_its_id() {
        let field = merged(&[value(20, 5, json!("a"), json!("c")), value(10, 9, json!("x"), json!("a"))]);
        assert_eq!(field.announced, Announcement::Value { value: json!("c"), before: vec![json!("a"), json!("x")] });
        assert_eq!(field.at, (20, EventId(5)));
    }

    #[test]
    fn of_entries_close_to_each_other_the_one_that_begins_where_another_ends_is_the_last() {
        // The stamp of the first one is a second late; the id of the second one is older.
        for (first, last) in [((11, 5), (10, 9)), ((10, 9), (10, 5)), ((10, 5), (10, 9)), ((10, 5), (11, 9))] {
            let first = value(first.0, first.1, json!({}), json!("wtg"));
            let last = value(last.0, last.1, json!("wtg"), json!("ip"));
            for steps in [[first.clone(), last.clone()], [last.clone(), first.clone()]] {
                let field = merged(&steps);
                let Announcement::Value { value, before } = &field.announced else { panic!("no value") };
                assert_eq!((value, field.at, field.ambiguous), (&json!("ip"), last.at, false), "{steps:?}");
                assert!(!before.contains(&json!("ip")), "{before:?}: an older row may show it");
                // An entry that is read once more changes nothing.
                assert_eq!(merged(&[field.clone(), first.clone()]).at, last.at);
            }
        }
    }

    #[test]
    fn close_entries_of_which_nothing_tells_the_order_are_ambiguous() {
        let first = value(11, 5, json!("a"), json!("b"));
        for (at, is_open) in [(9, false), (10, true), (11, false), (12, false)] {
            assert_eq!(merged(&[first.clone(), value(at, 9, json!("x"), json!("y"))]).ambiguous, is_open, "{at}");
        }
        // There and back.
        assert!(merged(&[first.clone(), value(10, 9, json!("b"), json!("a"))]).ambiguous);
        assert!(!merged(&[first, value(12, 9, json!("b"), json!("a"))]).ambiguous);
        assert!(merged(&[link(11, 5, true), link(10, 9, false)]).ambiguous);
        assert!(!merged(&[link(11, 9, true), link(10, 5, false)]).ambiguous);
    }

    #[test]
    fn every_value_that_older_rows_may_show_is_kept() {
        let steps = [value(10, 1, json!("a"), json!("b")), value(11, 2, json!("b"), json!("c"))];
        let field = merged(&[steps[0].clone(), steps[1].clone(), value(12, 3, json!("c"), json!("b"))]);
        let before = vec![json!("a"), json!("b"), json!("c")];
        assert_eq!(field.announced, Announcement::Value { value: json!("b"), before });
        let twice = merged(&[steps[0].clone(), steps[0].clone()]);
        assert_eq!(twice.announced, steps[0].announced, "the same entry again");
        let many: Vec<_> = (0..40).map(|n| value(n, n, json!(n), json!(n + 1))).collect();
        let Announcement::Value { before, .. } = merged(&many).announced else { panic!("no value") };
        assert_eq!(before.len(), MAX_VALUES + 1);
    }

    #[test]
    fn what_was_waited_for_an_older_entry_says_nothing_about_a_newer_one() {
        let waited = |field: ExpectedField| ExpectedField { reads: 9, unproven_since: Some(SiteTime(5)), ..field };
        let known = waited(value(10, 1, json!("a"), json!("b")));
        let field = merged(&[known.clone(), value(11, 2, json!("b"), json!("c"))]);
        assert_eq!((field.reads, field.unproven_since), (9, None));
        let field = merged(&[known, value(9, 3, json!("x"), json!("a"))]);
        assert_eq!((field.reads, field.unproven_since), (9, Some(SiteTime(5))));
    }

    #[test]
    fn elements_of_one_second_that_contradict_each_other_are_ambiguous() {
        assert!(merged(&[link(10, 5, true), link(10, 6, false)]).ambiguous);
        let field = merged(&[link(10, 5, true), link(12, 3, false)]);
        assert!(!field.ambiguous);
        assert!(matches!(&field.announced, Announcement::Links(links) if !links[0].present && links[0].returned));
    }

    #[test]
    fn edits_of_the_newest_second_are_counted() {
        let mut expected = Expected::default();
        [10, 12, 11, 12].into_iter().for_each(|second| expected.note_edit(second));
        assert_eq!(expected.newest_edit, Some((12, 2)));
    }

    #[test]
    fn many_fields_share_one_announcement() {
        let mut expected = Expected::default();
        for number in 0..40 {
            expected.announce(&format!("field_{number}"), value(number, 1, json!(0), json!(1)));
        }
        assert_eq!(expected.fields.len(), MAX_FIELDS + 1);
        let other = &expected.fields[OTHER_FIELDS];
        assert_eq!((other.at, &other.announced), ((39, EventId(1)), &Announcement::Change));
    }
}
