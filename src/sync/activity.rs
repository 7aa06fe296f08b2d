//! [`SyncActivity`]: what following the site did since it was last asked, for the documents of
//! each minute.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::entity::EntityType;

/// Up to this many lags are kept for their quantile; the others only count.
const MAX_LAGS: usize = 10_000;
/// Up to this many imports are kept, where nothing takes them away.
const MAX_IMPORTS: usize = 1_000;

/// What following the site did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncActivity {
    /// The lowest event id that came.
    pub first_event: Option<i64>,
    /// The highest event id that came.
    pub last_event: Option<i64>,
    /// Event log entries that came.
    pub events: u64,
    /// Entries that ask for nothing here.
    pub skipped: u64,
    /// Entries that became dead letters.
    pub failed: u64,
    /// Keys that became dirty, or dirty again.
    pub marked: u64,
    /// Rows read by what became of them, in the words of `sgcache_sync_rows_total`; without
    /// those of imports.
    pub rows: BTreeMap<&'static str, u64>,
    /// From the creation of an event to its row in the cache.
    pub lag: Lags,
    /// Polls, from the request to the commit.
    pub polls: Durations,
    /// Fetches, from the request to the commit.
    pub fetches: Durations,
    /// Writes of rows into the store.
    pub stored: Durations,
    /// Imports and rebuilds that came to their end.
    pub imports: Vec<FinishedImport>,
}

/// How often something was done, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How often.
    pub count: u64,
    /// All of it.
    pub total: Duration,
}

/// Lags in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lags {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
    sum_ms: u64,
    kept: Vec<u64>,
}

/// An import of a type that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedImport {
    /// The type.
    pub entity_type: EntityType,
    /// Whether the type was live meanwhile.
    pub rebuild: bool,
    /// Whether it went on where another one was interrupted.
    pub resumed: bool,
    /// Rows read and written, those before the interruption included.
    pub rows: u64,
    /// Rows read and written since then.
    pub new_rows: u64,
    /// Pages read since then.
    pub pages: u64,
    /// The largest page.
    pub page_size: u32,
    /// Rows that were known before and not met: they are read again.
    pub unmet: u64,
    /// The read version above which every row of the import is.
    pub lo_rv: i64,
    /// How long it took, since an interruption.
    pub took: Duration,
}

impl SyncActivity {
    /// Takes note of the ids of entries that came.
    pub(super) fn note_events(&mut self, ids: impl Iterator<Item = i64>) {
        for id in ids {
            self.events += 1;
            self.first_event = Some(self.first_event.map_or(id, |first| first.min(id)));
            self.last_event = Some(self.last_event.map_or(id, |last| last.max(id)));
        }
    }

    /// Takes note of an import.
    pub(super) fn note_import(&mut self, import: FinishedImport) {
        if self.imports.len() < MAX_IMPORTS {
            self.imports.push(import);
        }
    }
}

impl Durations {
    /// Returns how long it took on average, in milliseconds; `None` where it was never done.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.total.as_secs_f64() * 1000.0 / self.count as f64)
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
    }
}

impl Lags {
    /// Returns their mean in milliseconds; `None` where there is none.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ms as f64 / self.count as f64)
    }

    /// Returns what 95 of 100 do not exceed, in milliseconds; `None` where there is none.
    pub fn p95_ms(&self) -> Option<u64> {
        let mut kept = self.kept.clone();
        kept.sort_unstable();
        let rank = (kept.len() * 95).div_ceil(100);
        kept.get(rank.checked_sub(1)?).copied()
    }

    pub(super) fn add(&mut self, lag: Duration) {
        let ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.min_ms = if self.count == 0 { ms } else { self.min_ms.min(ms) };
        self.max_ms = self.max_ms.max(ms);
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.count += 1;
        if self.kept.len() < MAX_LAGS {
            self.kept.push(ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_have_exact_ends_and_quantiles() {
        let mut lags = Lags::default();
        assert_eq!((lags.mean_ms(), lags.p95_ms()), (None, None));
        for ms in (1..=100).rev() {
            lags.add(Duration::from_millis(ms));
        }
        assert_eq!((lags.min_ms, lags.max_ms, lags.p95_ms(), lags.mean_ms()), (1, 100, Some(95), Some(50.5)));
    }

    #[test]
    fn the_range_of_events_is_that_of_all_that_came() {
        let mut activity = SyncActivity::default();
        activity.note_events([7, 9].into_iter());
        activity.note_events([3].into_iter());
        assert_eq!((activity.first_event, activity.last_event, activity.events), (Some(3), Some(9), 3));
    }
}
