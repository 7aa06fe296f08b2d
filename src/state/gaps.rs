//! Ids of event log entries that were skipped and may still appear.
//!
//! Ids are handed out early and used late: entry 41 may become visible after
//! entry 45, seconds or hours later. A skipped id is asked for until it appears.
//! The clock alone never ends a gap; only gaps that are a day old and far below
//! the high-water mark are given up, and counted.
//!
//! Pure: ranges in, ranges out.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Transaction, params};

use super::{AsOf, Result, SiteTime};

const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);
const GIVE_UP_BELOW: i64 = 20_000;

/// A range of ids not seen yet, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first id.
    pub lo: i64,
    /// The last id.
    pub hi: i64,
    /// When the range was skipped.
    pub first_seen: SiteTime,
    /// By which poll it was last asked for, and when.
    pub last_asked: AsOf,
}

/// The open gaps: disjoint, sorted, all below the high-water mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(BTreeMap<i64, Gap>);

impl Gaps {
    /// Returns the gaps in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Gap> {
        self.0.values()
    }

    /// Returns the number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether no id is missing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of ids in all ranges.
    pub fn ids(&self) -> i64 {
        self.0.values().map(|gap| gap.hi - gap.lo + 1).sum()
    }

    /// Tells whether an id is missing.
    pub fn contains(&self, id: i64) -> bool {
        self.0.range(..=id).next_back().is_some_and(|(_, gap)| gap.hi >= id)
    }

    /// Adds a range; nothing when it is empty.
    pub fn open(&mut self, lo: i64, hi: i64, poll: AsOf) {
        if lo <= hi {
            self.0.insert(lo, Gap { lo, hi, first_seen: poll.at, last_asked: poll });
        }
    }

    /// Takes a seen id out and returns how long it was missing; `None` when it was
    /// not.
    pub fn fill(&mut self, id: i64, now: SiteTime) -> Option<Duration> {
        let gap = *self.0.range(..=id).next_back()?.1;
        if gap.hi < id {
            return None;
        }
        self.0.remove(&gap.lo);
        for (lo, hi) in [(gap.lo, id - 1), (id + 1, gap.hi)] {
            if lo <= hi {
                self.0.insert(lo, Gap { lo, hi, ..gap });
            }
        }
        Some(now.since(gap.first_seen))
    }

    /// Takes in the ids of one answer: fills gaps, opens those between the ids
    /// above the high-water mark and returns the new one.
    ///
    /// `ids` ascend and are the complete prefix of what was asked for: everything
    /// above `high_water_mark` and every open gap.
    pub fn advance(&mut self, high_water_mark: i64, ids: &[i64], poll: AsOf) -> (i64, Vec<Duration>) {
        let mut head = high_water_mark;
        let mut lifetimes = Vec::new();
        for &id in ids {
            if id <= head {
                lifetimes.extend(self.fill(id, poll.at));
                continue;
            }
            self.open(head + 1, id - 1, poll);
            head = id;
        }
        (head, lifetimes)
    }

    /// Notes that a poll asked for the ranges that begin at `los`.
    pub fn asked(&mut self, los: &[i64], poll: AsOf) {
        for lo in los {
            // A range that was cut keeps its poll: it is asked for again soon.
            if let Some(gap) = self.0.get_mut(lo) {
                gap.last_asked = poll;
            }
        }
    }

    /// Chooses at most `limit` ranges for the next poll: those that waited longest,
    /// and of them the youngest first.
    pub fn turn(&self, limit: usize) -> Vec<Gap> {
        let mut all: Vec<Gap> = self.0.values().copied().collect();
        if all.len() > limit {
            all.sort_by_key(|gap| (gap.last_asked.poll, std::cmp::Reverse(gap.lo)));
            all.truncate(limit);
            all.sort_by_key(|gap| gap.lo);
        }
        all
    }

    /// Drops the ranges that are both a day old and far below the high-water mark, and
    /// returns how many.
    pub fn give_up(&mut self, high_water_mark: i64, now: SiteTime) -> usize {
        let before = self.0.len();
        self.0.retain(|_, gap| gap.hi > high_water_mark - GIVE_UP_BELOW || now.since(gap.first_seen) <= GIVE_UP_AFTER);
        before - self.0.len()
    }

    /// Returns the earliest poll that was the last one to ask for a range outside of
    /// `asked`: entries in it may have become visible since.
    pub fn oldest_question(&self, asked: &[i64]) -> Option<AsOf> {
        let left_out = self.0.values().filter(|gap| asked.binary_search(&gap.lo).is_err());
        left_out.map(|gap| gap.last_asked).reduce(AsOf::min)
    }

    pub(super) fn load(connection: &rusqlite::Connection) -> Result<Self> {
        let mut statement = connection.prepare_cached("SELECT lo, hi, first_seen, last_asked, asked_poll FROM gaps")?;
        let rows = statement.query_map([], |row| {
            Ok(Gap {
                lo: row.get(0)?,
                hi: row.get(1)?,
                first_seen: SiteTime(row.get(2)?),
                last_asked: AsOf { at: SiteTime(row.get(3)?), poll: row.get(4)? },
            })
        })?;
        let gaps = rows.map(|gap| gap.map(|gap| (gap.lo, gap))).collect::<rusqlite::Result<_>>()?;
        Ok(Self(gaps))
    }

    /// Writes what changed since `old`.
    pub(super) fn store(&self, old: &Self, transaction: &Transaction<'_>) -> Result<()> {
        let mut delete = transaction.prepare_cached("DELETE FROM gaps WHERE lo = ?1")?;
        for lo in old.0.keys().filter(|lo| !self.0.contains_key(lo)) {
            delete.execute([lo])?;
        }
        let sql = "INSERT OR REPLACE INTO gaps (lo, hi, first_seen, last_asked, asked_poll)
            VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = transaction.prepare_cached(sql)?;
        for gap in self.0.values().filter(|gap| old.0.get(&gap.lo) != Some(gap)) {
            let asked = gap.last_asked;
            insert.execute(params![gap.lo, gap.hi, gap.first_seen.0, asked.at.0, asked.poll])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: AsOf = asked_at(1, 1_000);

    const fn asked_at(poll: i64, at: i64) -> AsOf {
        AsOf { at: SiteTime(at), poll }
    }

    #[test]
    fn a_skipped_id_is_open_until_it_appears() {
        let mut gaps = Gaps::default();
        let (high_water_mark, _) = gaps.advance(40, &[42, 45], NOW);
        assert_eq!(high_water_mark, 45);
        assert_eq!(gaps.iter().map(|gap| (gap.lo, gap.hi)).collect::<Vec<_>>(), [(41, 41), (43, 44)]);
        let (high_water_mark, lifetimes) = gaps.advance(45, &[41, 43, 46], asked_at(2, 6_000));
        assert_eq!((high_water_mark, lifetimes), (46, vec![Duration::from_secs(5); 2]));
        assert_eq!(gaps.iter().map(|gap| (gap.lo, gap.hi)).collect::<Vec<_>>(), [(44, 44)]);
    }

    #[test]
    fn neither_age_nor_depth_alone_ends_a_gap() {
        let mut gaps = Gaps::default();
        gaps.open(10, 20, asked_at(1, 0));
        let two_days = SiteTime(2 * 24 * 3_600_000);
        assert_eq!(gaps.clone().give_up(20_019, two_days), 0);
        assert_eq!(gaps.clone().give_up(90_000, SiteTime(3_600_000)), 0);
        assert_eq!(gaps.give_up(90_000, two_days), 1);
    }

    #[test]
    fn a_poll_asks_for_those_that_waited_longest() {
        let mut gaps = Gaps::default();
        for lo in [10, 20, 30] {
            gaps.open(lo, lo, asked_at(1, 0));
        }
        gaps.asked(&[20], asked_at(2, 5));
        let turn = gaps.turn(2);
        assert_eq!(turn.iter().map(|gap| gap.lo).collect::<Vec<_>>(), [10, 30]);
        assert_eq!(gaps.oldest_question(&[10, 30]), Some(asked_at(2, 5)));
    }

    proptest! {
        /// Ids become visible in any order; each answer is a prefix, of any
        /// length, of what is visible and was asked for. Every visible id at or
        /// below the high-water mark was seen or lies in a gap, and in the end all were
        /// seen exactly once.
        #[test]
        fn whatever_the_order_every_id_is_seen_once(
            order in Just((1..=60i64).collect::<Vec<_>>()).prop_shuffle(),
            burned in proptest::collection::btree_set(1..=60i64, 0..10),
            steps in proptest::collection::vec((0usize..8, 1usize..6), 1..60),
        ) {
            let mut gaps = Gaps::default();
            let (mut high_water_mark, mut visible, mut seen) = (0, BTreeSet::new(), BTreeSet::new());
            let mut coming = order.into_iter().filter(|id| !burned.contains(id));
            let rest = std::iter::repeat_n((60, 4), 100);
            for (appear, page) in steps.into_iter().chain(rest) {
                visible.extend(coming.by_ref().take(appear));
                let asked = |id: &&i64| **id > high_water_mark || gaps.contains(**id);
                let answer: Vec<i64> = visible.iter().filter(asked).take(page).copied().collect();
                let before = high_water_mark;
                (high_water_mark, _) = gaps.advance(high_water_mark, &answer, NOW);
                prop_assert!(high_water_mark >= before);
                for id in answer {
                    prop_assert!(seen.insert(id), "{id} came twice");
                }
                for id in 1..=high_water_mark {
                    prop_assert_eq!(gaps.contains(id), !seen.contains(&id), "id {}", id);
                }
                let ranges: Vec<_> = gaps.iter().map(|gap| (gap.lo, gap.hi)).collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
                prop_assert!(ranges.iter().all(|(lo, hi)| 1 <= *lo && lo <= hi && *hi < high_water_mark));
            }
            prop_assert_eq!(seen, visible);
        }
    }
}
