//! What can be set about sync.

use std::time::Duration;

/// What can be set about sync; the defaults fit a site that others use too.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The shortest pause between polls, used after a poll that brought entries.
    pub poll_min: Duration,
    /// The longest pause between polls of a quiet site.
    pub poll_max: Duration,
    /// The longest pause after failures.
    pub backoff_max: Duration,
    /// Ranges of missing event ids asked for in one poll.
    pub max_gaps: usize,
    /// Ids below the newest event that are searched for missing ones at the first
    /// start.
    pub gap_search: i64,
    /// Reads of marked keys in flight.
    pub fetches_in_flight: usize,
    /// Pages of imports in flight, all types together.
    pub imports_in_flight: usize,
    /// Types that are imported side by side.
    pub imports_at_once: usize,
    /// How long a type without an entity config keeps its rows.
    pub forget_untracked_after: Duration,
    /// How often every id and `updated_at` of a type is compared; zero is never.
    pub light_scan_every: Duration,
    /// How often the newest `updated_at` are compared; zero is never.
    pub fast_scan_every: Duration,
    /// How often the list of retired rows of a type is compared; zero is never.
    pub retired_scan_every: Duration,
    /// How often the next rows are compared in full, with the site and with what
    /// the store holds; zero is never.
    pub scrub_every: Duration,
    /// How many rows that is each time, all types together.
    pub scrub_rows: u32,
    /// How many rows of the store are compared with themselves each time, without the
    /// site, all types together: 10 minutes for 100,000 rows.
    pub verify_rows: u32,
    /// How often the latest part of the event log is read once more, to prove that
    /// nothing in it was missed; zero is never.
    pub audit_every: Duration,
    /// How often the schema is read.
    pub schema_every: Duration,
    /// How long tombstones are kept.
    pub keep_tombstones: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(2),
            backoff_max: Duration::from_secs(60),
            max_gaps: 200,
            gap_search: 20_000,
            fetches_in_flight: 4,
            imports_in_flight: 4,
            imports_at_once: 2,
            forget_untracked_after: Duration::from_secs(24 * 3600),
            light_scan_every: Duration::from_secs(3600),
            fast_scan_every: Duration::from_secs(300),
            retired_scan_every: Duration::from_secs(6 * 3600),
            scrub_every: Duration::from_secs(600),
            scrub_rows: 1_000,
            verify_rows: 100_000,
            audit_every: Duration::from_secs(300),
            schema_every: Duration::from_secs(600),
            keep_tombstones: Duration::from_secs(7 * 24 * 3600),
        }
    }
}
