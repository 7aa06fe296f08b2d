//! Keeps a store equal to the site.
//!
//! An event is a hint, never a value: `extract` turns entries of the event log
//! into marked keys, `poll` commits them, `fetch` reads marked keys again and
//! `write` brings the rows into the store under the version of their read.
//! `import` fills a type, `scan` finds what no event told, `scrub` compares everything
//! in the course of a day, `audit` proves that no event was missed. All of them write rows
//! in the same way and may overlap freely.
//!
//! [`Replica`] is the site, the store and the state as one; jobs use it beside
//! the daemon. [`Follower`] is the loop of the one process that leads. Pipelines,
//! listeners and schedules are not known here.

mod absence;
mod activity;
mod announcement;
mod audit;
mod catch_up;
mod clock;
mod cluster;
mod damage;
mod dependents;
mod error;
mod event_page;
mod extract;
mod fetch;
mod scheduled_scans;
mod schema_drift;
mod follower;
mod import;
mod key_change;
mod integrity;
mod lease;
mod lease_document;
mod loops;
mod name_hash;
mod names;
mod pages;
mod periods;
mod poll;
mod quarantine;
mod recheck;
mod replica;
mod scan;
mod scrub;
mod settings;
mod startup;
mod status;
mod steps;
mod tracked;
mod types;
mod maintenance;
mod write;
mod reads_in_flight;
mod writes_in_progress;

pub use activity::{Durations, FinishedImport, Lags, SyncActivity};
pub use clock::SiteClock;
pub use cluster::{ClusterChannel, ClusterError, LeaderStatus};
pub use damage::WatchedStore;
pub use error::SyncError;
pub use extract::{Extracted, extract};
pub use fetch::Fetched;
pub use follower::{Follower, Step};
pub use import::{ImportProgress, Imported, Progress};
pub use integrity::Integrity;
pub use key_change::{KeyChange, KeyOutcome};
pub use lease::{ClusterLease, JobLease, Leadership, NotLeader};
pub use lease_document::{ConfiguredType, ConfiguredTypes, LeaseHolder, configured_types};
pub use poll::Polled;
pub use replica::Replica;
pub use scan::{ScanKind, Scanned};
pub use scheduled_scans::ScheduledScans;
pub use schema_drift::{Lacking, WHOLE};
pub use scrub::Scrubbed;
pub use settings::Settings;
pub use status::{PollStatus, Status, TypeStatus};
pub use steps::{Steps, Stopped};
pub use tracked::Tracked;

/// The result of everything here.
pub type Result<T, E = SyncError> = std::result::Result<T, E>;
