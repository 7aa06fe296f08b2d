//! Counts what the proxy does, and writes it to the state every few seconds.
//!
//! What was counted since the last write is added to the stored buckets in one
//! transaction, so a restart, another process and a clock that is set back lose and
//! count nothing twice. A crash loses at most what came within [`FLUSH_INTERVAL`] and the
//! duration of one write.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::{Mutex, MutexGuard};

use super::bucket::{Bucket, Read};
use super::examples::{Example, Examples};
use crate::state::{State, StateError};

/// How often counts are written.
pub const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// Hours with calls that are kept: 14 days of them. By number, so that a clock that is
/// wrong for a while removes nothing.
const HOURS_KEPT: usize = 14 * 24;
/// Days with calls that are kept.
const DAYS_KEPT: usize = 400;
/// Days of which the requests that advice is made from are kept.
const EXAMPLE_DAYS_KEPT: usize = 14;

/// Where buckets are kept in the state: the names of one kind sort like their times.
pub(super) const HOURS: &str = "ledger/hour/";
pub(super) const DAYS: &str = "ledger/day/";
pub(super) const EXAMPLES: &str = "ledger/examples/";

/// Names the bucket of the hour that a moment is in.
pub(super) fn hour_name(at: DateTime<Utc>) -> String {
    format!("{HOURS}{}", at.format("%Y-%m-%dT%H"))
}

/// Names the bucket of the day, in UTC, that a moment is in.
pub(super) fn day_name(at: DateTime<Utc>) -> String {
    format!("{DAYS}{}", at.format("%Y-%m-%d"))
}

/// Names the requests of the day, in UTC, that a moment is in.
pub(super) fn examples_name(at: DateTime<Utc>) -> String {
    format!("{EXAMPLES}{}", at.format("%Y-%m-%d"))
}

/// Counts calls; every handle of a process shares one.
#[derive(Debug, Default)]
pub struct Recorder {
    counted: Mutex<Counted>,
    /// What came since it was taken last.
    minute: Mutex<Bucket>,
    /// Held while counts move from here to the state, so that a reader of both sees
    /// each of them once.
    moving: tokio::sync::Mutex<()>,
}

/// What is not in the state yet, by the names there.
#[derive(Debug, Default)]
struct Counted {
    buckets: BTreeMap<String, Bucket>,
    examples: BTreeMap<String, Examples>,
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.buckets.is_empty() && self.examples.is_empty()
    }

    fn merge(&mut self, other: Self) {
        for (name, bucket) in other.buckets {
            self.buckets.entry(name).or_default().merge(&bucket);
        }
        for (name, examples) in other.examples {
            self.examples.entry(name).or_default().merge(&examples);
        }
    }
}

impl Recorder {
    /// Counts a read, with the request itself where a change of the configuration could
    /// let the cache answer it.
    pub fn read(&self, read: &Read<'_>, example: Option<&Example>) {
        self.minute().add(read);
        let mut counted = self.counted();
        for name in [hour_name(read.at), day_name(read.at)] {
            counted.buckets.entry(name).or_default().add(read);
        }
        if let Some(example) = example {
            counted.examples.entry(examples_name(read.at)).or_default().add(example, 1);
        }
    }

    /// Counts a write that the site has made or may have made, once every read from the
    /// cache shows it; `delay` is the time from its acknowledgement until then.
    pub fn write_visible(&self, at: DateTime<Utc>, delay: Duration) {
        self.count(at, |bucket| bucket.writes.visible.add(delay.as_secs_f64() * 1e3));
    }

    /// Counts a write that the site has made or may have made.
    pub fn write_made(&self, at: DateTime<Utc>) {
        self.count(at, |bucket| bucket.writes.count += 1);
    }

    /// Counts a write that the site refused or did not answer.
    pub fn write_failed(&self, at: DateTime<Utc>) {
        self.count(at, |bucket| bucket.writes.failed += 1);
    }

    /// Counts calls that came too fast to be counted one by one.
    pub fn uncounted(&self, at: DateTime<Utc>, calls: u64) {
        self.count(at, |bucket| bucket.uncounted += calls);
    }

    fn count(&self, at: DateTime<Utc>, add: impl Fn(&mut Bucket)) {
        add(&mut self.minute());
        let mut counted = self.counted();
        for name in [hour_name(at), day_name(at)] {
            add(counted.buckets.entry(name).or_default());
        }
    }

    /// Adds what was counted to the state, and removes what is too old.
    ///
    /// # Errors
    ///
    /// When the state cannot be written; the counts stay here for the next time.
    pub async fn flush(&self, state: &State) -> Result<(), StateError> {
        let _moving = self.moving.lock().await;
        let counted = std::mem::take(&mut *self.counted());
        if counted.is_empty() {
            return Ok(());
        }
        let written = write(state, &counted).await;
        if written.is_err() {
            self.counted().merge(counted);
        }
        written
    }

    /// Reads the stored buckets whose names lie from `from` to `to`, together with what
    /// is not stored yet.
    pub(super) async fn buckets(
        &self,
        state: &State,
        from: &str,
        to: &str,
    ) -> Result<BTreeMap<String, Bucket>, StateError> {
        let _moving = self.moving.lock().await;
        let mut buckets: BTreeMap<String, Bucket> = state.kept_between(from, to).await?;
        for (name, bucket) in &self.counted().buckets {
            if (from..=to).contains(&name.as_str()) {
                buckets.entry(name.clone()).or_default().merge(bucket);
            }
        }
        Ok(buckets)
    }

    /// Returns what was counted since the last call.
    pub fn take_minute(&self) -> Bucket {
        std::mem::take(&mut *self.minute())
    }

    fn minute(&self) -> MutexGuard<'_, Bucket> {
        self.minute.lock()
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Counts: a panic elsewhere leaves at most one call half counted.
        self.counted.lock()
    }
}

async fn write(state: &State, counted: &Counted) -> Result<(), StateError> {
    let (buckets, examples) = (counted.buckets.clone(), counted.examples.clone());
    state
        .update_kept(move |kept| {
            for (name, bucket) in &buckets {
                kept.update(name, |stored: &mut Bucket| stored.merge(bucket))?;
            }
            for (name, examples) in &examples {
                kept.update(name, |stored: &mut Examples| stored.merge(examples))?;
            }
            kept.keep_newest(HOURS, HOURS_KEPT)?;
            kept.keep_newest(DAYS, DAYS_KEPT)?;
            kept.keep_newest(EXAMPLES, EXAMPLE_DAYS_KEPT)
        })
        .await
}
