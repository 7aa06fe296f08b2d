//! Why sync stopped, by what can be done about it.

use std::time::Duration;

use crate::entity::{EntityType, EventId};
use crate::shotgun;
use crate::state::StateError;
use crate::store::{StoreError, StoreErrorKind};

use super::cluster::ClusterError;
use super::lease::NotLeader;
use super::steps::Stopped;

/// Why a step of sync failed. What was committed before stays; the same step can
/// be tried again.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The site gave no usable answer.
    #[error(transparent)]
    Site(#[from] shotgun::Error),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another process leads and alone writes to the cluster.
    #[error(transparent)]
    NotLeader(Box<NotLeader>),
    /// The cluster gave no answer about its leader.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The data directory belongs to another site.
    #[error("this data directory follows {known}, not {configured}: use another data_dir, or restore shotgun.site")]
    OtherSite {
        /// The site that it follows.
        known: String,
        /// The site that the configuration names.
        configured: String,
    },
    /// The site's answer is not what the schema says; nothing was written.
    #[error("{entity_type} on the site is not as configured: {message}")]
    Schema {
        /// The type.
        entity_type: EntityType,
        /// What differs.
        message: String,
    },
    /// The site answered a page without rows where it counts some.
    #[error("the site showed no {entity_type} above id {after}, and counts {count}: the answer is not believed")]
    EmptyPage {
        /// The type.
        entity_type: EntityType,
        /// The page is the one after this id.
        after: i64,
        /// The rows that the site counts there.
        count: u64,
    },
    /// An answer shows no row at all, and nothing else says that there is none: neither a count,
    /// which a site in trouble refuses, nor, of rows that the filter of their entity config
    /// hides, another row.
    #[error("the site showed no {0}, and nothing else says that there is none: the answer is not believed")]
    Unconfirmed(EntityType),
    /// The event log of the site is not the one that was followed.
    #[error(
        "event log entry {0}, the last one seen, is missing on the site or another one: nothing counts as fresh until \
         the next poll shows it, or the site is found to be restored from a backup and everything is read again"
    )]
    History(EventId),
    /// No entity config names the type.
    #[error("`{0}` is not cached: no entity config names it")]
    NotTracked(EntityType),
    /// A wait took too long.
    #[error("{0}")]
    TimedOut(String),
    /// A test stopped here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl SyncError {
    /// Returns the word for the label `reason` of poll errors.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Site(error) => error.kind().label(),
            Self::State(_) => "state",
            Self::History(_) => "history",
            _ => "other",
        }
    }

    /// Tells whether store or state take no writes until somebody acts.
    pub fn is_write_refused(&self) -> bool {
        match self {
            Self::Store(error) => matches!(error.kind(), StoreErrorKind::Full | StoreErrorKind::Refused),
            Self::State(error) => error.is_write_refused(),
            _ => false,
        }
    }

    /// Returns how long the site asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Site(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Tells whether the credentials were refused.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Site(error) if error.kind() == shotgun::ErrorKind::Denied)
    }
}
