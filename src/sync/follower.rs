//! The one process that follows the site: its lead, its start, its status.
//!
//! `loops` polls, fetches, imports and maintains for as long as it leads;
//! [`Follower::step`] does the same work once, for tests and single runs.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::import::Progress;
use super::lease::LeaseGuard;
use super::maintenance::MaintenanceSchedule;
use super::{Fetched, PollStatus, Polled, Replica, Result, Status};
use crate::state::{LeaderLock, SiteTime};
use crate::supervisor::Loop;

/// Follows the site; at most one per data directory.
pub struct Follower {
    pub(super) replica: Replica,
    lead: Lead,
    pub(super) progress: Option<Progress>,
    /// Whether the site has shown that its event log can be continued.
    pub(super) checked: watch::Sender<bool>,
    pub(super) poll_status: Mutex<PollStatus>,
    /// Why writes were refused, by the loop that met it, until one of its writes works.
    pub(super) refused_writes: Mutex<BTreeMap<Loop, RefusedWrite>>,
    /// Wakes the fetch loop: there are dirty keys.
    pub(super) marked: Notify,
    /// Wakes the poll loop: a caller waits for what it will read.
    pub(super) poked: Notify,
    stepped: tokio::sync::Mutex<MaintenanceSchedule>,
}

/// A write that was refused.
pub(super) struct RefusedWrite {
    /// Whether the state refused it, and not the store.
    pub by_state: bool,
    /// Why.
    pub message: String,
}

/// The right to follow the site for a data directory, and to write to its store.
pub(super) struct Lead {
    /// Given back last: what shares the data directory waits for it.
    lease: Option<LeaseGuard>,
    _lock: LeaderLock,
}

impl Lead {
    /// Takes both; `new_epoch` begins an epoch of versions where the store is shared.
    ///
    /// # Errors
    ///
    /// [`crate::state::StateError::Locked`] or [`super::SyncError::NotLeader`] when
    /// another process has one of them.
    pub(super) async fn take(replica: &Replica, new_epoch: bool) -> Result<Self> {
        let lock = replica.state().lead().await?;
        Ok(Self { lease: replica.acquire_lease(new_epoch).await?, _lock: lock })
    }
}

/// What a single step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The poll.
    pub polled: Polled,
    /// The fetching after it.
    pub fetched: Fetched,
}

impl Follower {
    /// Takes the lead, checks that the event log can be followed from where the
    /// state stands, and makes room for the types.
    ///
    /// # Errors
    ///
    /// [`crate::state::StateError::Locked`] or [`super::SyncError::NotLeader`] when
    /// another process leads, on this host or on another one;
    /// [`super::SyncError::OtherSite`] when the directory belongs to another site.
    pub async fn start_up(replica: Replica, progress: Option<Progress>) -> Result<Self> {
        let lead = Lead::take(&replica, true).await?;
        replica.check_stream().await?;
        Self::lead(replica, lead, progress, true).await
    }

    /// Does the same without the site: [`Follower::run`] checks the event log as soon
    /// as the site answers. For a process that serves what it has in the meantime.
    ///
    /// # Errors
    ///
    /// As [`Follower::start_up`].
    pub async fn take_lead(replica: Replica, progress: Option<Progress>) -> Result<Self> {
        let lead = Lead::take(&replica, true).await?;
        replica.check_site().await?;
        Self::lead(replica, lead, progress, false).await
    }

    async fn lead(replica: Replica, lead: Lead, progress: Option<Progress>, checked: bool) -> Result<Self> {
        replica.metrics().leader.active.set(1.0);
        // Before the versions in the store count for anything.
        replica.check_store_at_start().await?;
        let epoch = replica.begin_epoch().await?;
        replica.metrics().leader.epoch.set(epoch as f64);
        replica.step("start: led")?;
        // What the site lost while nothing ran is left out before anything is imported.
        if let Some(schema) = replica.state().kept_schema(replica.client().site()).await? {
            replica.fit_layouts(&schema, BTreeMap::new()).await?;
        }
        replica.make_room().await?;
        replica.forget_untracked().await?;
        Ok(Self {
            replica,
            lead,
            progress,
            checked: watch::Sender::new(checked),
            poll_status: Mutex::default(),
            refused_writes: Mutex::default(),
            marked: Notify::new(),
            poked: Notify::new(),
            stepped: tokio::sync::Mutex::default(),
        })
    }

    /// Returns what is followed.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Waits until the right to write to a shared store is lost; for ever where it is
    /// not shared.
    pub async fn lease_lost(&self) {
        match &self.lead.lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Makes the loop poll and fetch at once: something was written.
    pub fn wake(&self) {
        self.poked.notify_one();
        self.marked.notify_one();
    }

    /// Returns what can be said about the cache and the loop now.
    ///
    /// # Errors
    ///
    /// Only when the state cannot be read.
    pub async fn status(&self) -> Result<Status> {
        Ok(Status { poll: Some(self.poll_status()), ..self.replica.status().await? })
    }

    /// Returns how polling goes.
    pub fn poll_status(&self) -> PollStatus {
        self.poll_status.lock().clone()
    }

    /// Returns why nothing can be written now; `None` as far as is known.
    pub fn write_problem(&self) -> Option<String> {
        self.refused_writes.lock().values().next().map(|refused| refused.message.clone())
    }

    /// Tells whether the state takes what sync must remember, as far as is known. The store may
    /// refuse its rows meanwhile.
    pub fn is_state_writable(&self) -> bool {
        !self.refused_writes.lock().values().any(|refused| refused.by_state)
    }

    /// Imports everything that is not complete; returns the number of types.
    ///
    /// # Errors
    ///
    /// The first error; the next call goes on where it was.
    pub async fn import_pending(&self) -> Result<usize> {
        let pending = self.replica.pending_imports().await?;
        for entity_type in &pending {
            self.replica.import(entity_type, self.progress.clone()).await?;
        }
        Ok(pending.len())
    }

    /// Polls once, fetches what is due and does the maintenance, at the given moment of
    /// the site; the clock stands still there.
    ///
    /// # Errors
    ///
    /// The first one; the same step can be made again.
    pub async fn step(&self, now: SiteTime) -> Result<Step> {
        self.replica.clock().hold(now);
        let polled = self.replica.poll().await?;
        let mut schedule = self.stepped.lock().await;
        self.replica.maintain(&mut schedule).await?;
        let fetched = self.replica.fetch_due().await?;
        self.replica.conclude_imports().await?;
        Ok(Step { polled, fetched })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.replica.metrics().leader.active.set(0.0);
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Follower({:?})", self.replica)
    }
}
