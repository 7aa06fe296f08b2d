//! What happens together, recorded together.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::table::{Source, Store, Sync};
use super::{Gauges, seconds};

impl Source {
    /// Records a request that the site answered.
    pub fn answered(&self, method: &str, took: Duration, bytes: u64) {
        self.up.set(1.0);
        self.requests.inc(&[method]);
        self.duration.observe(&[method], took.as_secs_f64());
        self.received.inc_by(bytes);
    }

    /// Records a request that failed.
    pub fn failed(&self, method: &str, reason: &str, took: Duration) {
        self.up.set(0.0);
        self.requests.inc(&[method]);
        self.errors.inc(&[method, reason]);
        self.duration.observe(&[method], took.as_secs_f64());
    }
}

impl Sync {
    /// Records a poll that worked and was committed, with the number of events it
    /// brought.
    pub fn polled(&self, at: DateTime<Utc>, events: usize) {
        self.polls.inc();
        self.last_poll_success.set(seconds(at));
        self.checkpoint.set(seconds(at));
        self.events_received.inc_by(events as u64);
        if events > 0 {
            self.batch_events.observe(events as f64);
        }
    }

    /// Records a poll that failed.
    pub fn poll_failed(&self, reason: &str) {
        self.polls.inc();
        self.poll_errors.inc(&[reason]);
    }
}

impl Store {
    /// Records an operation that worked.
    pub fn worked(&self, operation: &str, took: Duration) {
        self.operations.inc(&[operation]);
        self.duration.observe(&[operation], took.as_secs_f64());
    }

    /// Records an operation that failed.
    pub fn failed(&self, operation: &str, reason: &str, took: Duration) {
        self.worked(operation, took);
        self.errors.inc(&[operation, reason]);
    }
}

impl Gauges {
    /// Sets a `_timestamp_seconds` gauge.
    pub fn set_moment(&self, values: &[&str], moment: DateTime<Utc>) {
        self.set(values, seconds(moment));
    }
}
