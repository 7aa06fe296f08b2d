//! [`ClusterLease`]: which of several processes over one cluster leads, and writes.
//!
//! Only a holder of the lease writes to the store. It renews the lease every third of its
//! length (15 s unless configured) and stops by itself when two thirds have passed since
//! it *began* the last renewal that worked. Others take the lease over when they have
//! *seen* it unchanged for its whole length. Both measure with their own monotonic clock,
//! so a third of the length lies between the last write of the one and the first of the
//! other, whatever the clocks on the walls say. A lease that was given back, or that
//! belongs to the own data directory, is taken at once.
//!
//! A process that was stopped in the middle of a request does not know that its time is
//! over, so time alone does not fence it. Epochs do: who takes the lease over reserves, in
//! the same compare-and-set, an epoch above that of the lease before, above the own one
//! and above all that the store and the status of the leader hold. Every read version of
//! a holder has its epoch in the upper bits, and no process of a data directory takes a
//! version above the epoch that the lease gave it. Thus a late write
//!
//! - of a row, a name, or the status of the leader has a lower external version than all
//!   that the new leader has written since, and loses;
//! - of a row that the new leader has not written since is of a read before the take-over.
//!   Whatever changed on the site after that read stands in the part of the event log that
//!   the new leader reads, so it reads the row again, and it leaves no row unwritten that it
//!   did not write in its own epoch (`Replica::suppress`);
//! - to aliases and mappings has no version. The guard of the transport is asked directly
//!   before every attempt, so only a process that is stopped between that and the socket
//!   could make one; the running comparison of the store with the state finds what it
//!   would do to rows.
//!
//! The lease belongs to a data directory, not to a process: jobs beside a daemon share its
//! state, and with it the order of versions. Each of them renews the lease while it writes.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::cluster::ClusterChannel;
use super::lease_document::{ConfiguredTypes, LeaseDocument, LeaseHolder, Revision, differences};
use super::{Replica, Result, SyncError};
use crate::elastic::WriteGuard;
use crate::state::State;
use crate::store::{ReadVersion, Store};
use crate::supervisor::{meet_on_thread, panic_text};

/// How many parts the length of a lease has: after one it is renewed, after two it no
/// longer holds for its holder, after three it is free for others.
const PARTS: u32 = 3;
/// The share of the length after which a waiting process looks again, and a failed renewal is
/// repeated.
const LOOKS: u32 = 15;
/// It does so at least this often: a lease that was given back is taken at once.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How often a write of the lease is repeated because another process of the same data
/// directory was faster.
const ATTEMPTS: u32 = 5;

/// The lease of the cluster, as this process sees and holds it; clones share everything.
#[derive(Clone)]
pub struct ClusterLease(Arc<Inner>);

struct Inner {
    channel: ClusterChannel,
    me: LeaseHolder,
    owner: String,
    length: Duration,
    view: Mutex<View>,
    /// Held while the document is written.
    writing: tokio::sync::Mutex<()>,
    held: Mutex<Weak<LeaseRenewal>>,
}

#[derive(Default)]
struct View {
    /// Until when this process may write.
    valid_until: Option<Instant>,
    /// What this process wrote or took over last.
    written: Option<(Revision, LeaseDocument)>,
    /// What it has seen of others.
    observed: Option<Observed>,
    /// Why it does not lead, besides that another one does.
    problem: Option<String>,
    configured: ConfiguredTypes,
    /// Which [`LeaseRenewal`] the lease is held by.
    holding: u64,
}

/// A lease that was seen.
struct Observed {
    revision: Revision,
    document: LeaseDocument,
    /// When this revision was seen first.
    since: Instant,
    /// Whether its holder has renewed it since it was seen first.
    is_renewed: bool,
}

/// Who leads, as far as this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This process does.
    Here,
    /// Another one does, or none: then this one will as soon as it can.
    Elsewhere(NotLeader),
}

/// Why this process may not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLeader {
    /// Who holds the lease, where that is known.
    pub holder: Option<LeaseHolder>,
    /// Whether the holder has renewed the lease since this process looks at it. Until then
    /// it may be gone.
    pub is_alive: bool,
    /// Why this process lost the lease or cannot take it.
    pub problem: Option<String>,
    /// How its entity configs differ from those of the holder.
    pub differences: Vec<String>,
}

impl std::error::Error for NotLeader {}

impl fmt::Display for NotLeader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = self.problem.as_deref();
        match (&self.holder, self.is_alive) {
            (Some(holder), true) => write!(out, "another process leads and alone writes to the cluster: {holder}")?,
            (Some(holder), false) => write!(out, "another process led when it was last heard of: {holder}")?,
            (None, _) => {
                write!(out, "this process does not lead: {}", problem.unwrap_or("it has not taken the lease"))?
            }
        }
        if let (Some(problem), Some(_)) = (problem, &self.holder) {
            write!(out, " ({problem})")?;
        }
        if !self.differences.is_empty() {
            write!(out, "; its entity configs are not those of this host: {}", self.differences.join("; "))?;
        }
        Ok(())
    }
}

/// The right to write to the cluster, until it is dropped or lost.
pub(super) type LeaseGuard = Arc<LeaseRenewal>;

/// The lease of a shared store, as long as a job needs it; nothing where it is not shared.
#[derive(Default)]
pub struct JobLease {
    _guard: Option<LeaseGuard>,
}

impl Replica {
    /// Takes the lease of a shared store for a job, or joins the one that this data
    /// directory has. Waits while a holder that may be gone is watched.
    ///
    /// # Errors
    ///
    /// [`SyncError::NotLeader`] when another data directory leads.
    pub async fn lease_for_job(&self) -> Result<JobLease> {
        loop {
            match (self.acquire_lease(false).await, self.lease()) {
                (Err(SyncError::NotLeader(why)), Some(lease)) if !why.is_alive => {
                    tracing::debug!(reason = %why, "a job waits for the lease");
                    tokio::time::sleep(lease.look_interval()).await;
                }
                (taken, _) => return Ok(JobLease { _guard: taken? }),
            }
        }
    }
}

/// Keeps the lease renewed.
pub(super) struct LeaseRenewal {
    lease: ClusterLease,
    number: u64,
    lost: CancellationToken,
    _renewal: AbortOnDropHandle<()>,
}

impl LeaseRenewal {
    /// Waits until the lease is lost.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for LeaseRenewal {
    fn drop(&mut self) {
        self.lease.give_up(self.number, None);
    }
}

impl ClusterLease {
    /// Makes the lease that `me` may take; nothing is sent.
    pub fn new(channel: ClusterChannel, me: LeaseHolder, length: Duration) -> Self {
        let owner = ulid::Ulid::new().to_string();
        let (view, writing, held) = Default::default();
        Self(Arc::new(Inner { channel, me, owner, length, view, writing, held }))
    }

    /// Returns the guard of a client that may write only while the lease is held.
    pub fn write_guard(&self) -> WriteGuard {
        let lease = self.clone();
        Arc::new(move || match lease.leadership() {
            Leadership::Here => Ok(()),
            Leadership::Elsewhere(why) => Err(why.to_string()),
        })
    }

    /// Returns how often a process that waits should look.
    pub fn look_interval(&self) -> Duration {
        (self.0.length / LOOKS).min(LONGEST_LOOK)
    }

    /// Tells whether this process may write now.
    pub fn is_held(&self) -> bool {
        self.view().valid_until.is_some_and(|until| Instant::now() < until)
    }

    /// Tells who leads.
    pub fn leadership(&self) -> Leadership {
        if self.is_held() { Leadership::Here } else { Leadership::Elsewhere(self.not_leader()) }
    }

    /// Says from now on with the lease what is configured here.
    pub fn set_configured(&self, configured: ConfiguredTypes) {
        self.view().configured = configured;
    }

    /// Takes the lease or joins the one that this data directory has, and keeps it renewed
    /// until the guard is dropped. With `new_epoch` it begins an epoch in any case.
    ///
    /// # Errors
    ///
    /// [`SyncError::NotLeader`] while another data directory has it.
    pub(super) async fn acquire(&self, state: &State, store: &dyn Store, new_epoch: bool) -> Result<LeaseGuard> {
        let _one_at_a_time = self.0.writing.lock().await;
        let held = self.0.held.lock().upgrade().filter(|_| self.is_held());
        if let Some(held) = held.as_ref().filter(|_| !new_epoch) {
            return Ok(Arc::clone(held));
        }
        for _ in 0..ATTEMPTS {
            let found = self.look().await?;
            if found.is_none() {
                self.0.channel.prepare().await?;
            }
            if found.as_ref().is_some_and(|(_, document)| !self.may_take(document)) {
                break;
            }
            let own = state.stream().await?.epoch;
            let continued = found
                .as_ref()
                .map(|(_, document)| document)
                .filter(|document| !new_epoch && document.holder.shares_directory(&self.0.me) && document.epoch == own);
            let document = match continued {
                Some(document) if !document.released => {
                    LeaseDocument { renewals: document.renewals + 1, ..document.clone() }
                }
                Some(document) => self.document(document.epoch),
                None => self.document(self.next_epoch(found.as_ref().map(|(_, known)| known.epoch), own, store).await?),
            };
            let asked = Instant::now();
            let replaced = found.as_ref().map(|(revision, _)| *revision);
            if let Some(revision) = self.0.channel.write_lease(&document, replaced).await? {
                // No version of the epoch is taken before it is reserved in the cluster.
                state.enter_epoch(document.epoch).await?;
                if let Some((_, before)) = found.filter(|(_, before)| !before.holder.shares_directory(&self.0.me)) {
                    self.log_take_over(&before);
                }
                let held = held.unwrap_or_else(|| self.hold());
                self.renewed(asked, revision, document);
                return Ok(held);
            }
        }
        Err(SyncError::NotLeader(Box::new(self.not_leader())))
    }

    /// Gives the lease back, so that another process can take it at once, unless it is
    /// still used here or belongs to another process of the data directory.
    pub async fn release(&self) {
        let _one_at_a_time = self.0.writing.lock().await;
        if self.0.held.lock().upgrade().is_some() {
            return;
        }
        let Some(written) = self.view().written.take() else { return };
        let problem = match tokio::time::timeout(self.0.length / PARTS, self.write_release(written)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!(problem, length = ?self.0.length, "the lease could not be given back: others wait for its length");
    }

    async fn write_release(&self, written: (Revision, LeaseDocument)) -> Result<()> {
        let mut known = Some(written);
        while let Some((revision, document)) = known {
            if document.owner != self.0.owner || document.released {
                break;
            }
            let released = LeaseDocument { released: true, ..document };
            if self.0.channel.write_lease(&released, Some(revision)).await?.is_some() {
                tracing::info!("the lease is given back");
                break;
            }
            // A job beside this process may have renewed it since.
            known = self.0.channel.read_lease().await?;
        }
        Ok(())
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.0.view.lock()
    }

    /// Reads the lease and takes note of it.
    async fn look(&self) -> Result<Option<(Revision, LeaseDocument)>> {
        let found = self.0.channel.read_lease().await;
        let mut view = self.view();
        view.problem = found.as_ref().err().map(ToString::to_string);
        let found = found?;
        match &found {
            Some((revision, document)) => view.observe(*revision, document),
            None => view.observed = None,
        }
        Ok(found)
    }

    /// Tells whether a lease that was seen just now is free for this process.
    fn may_take(&self, document: &LeaseDocument) -> bool {
        let is_over = |seen: &Observed| seen.since.elapsed() >= document.length();
        document.released
            || document.holder.shares_directory(&self.0.me)
            || self.view().observed.as_ref().is_some_and(is_over)
    }

    fn document(&self, epoch: i64) -> LeaseDocument {
        LeaseDocument {
            holder: LeaseHolder { since: Utc::now(), ..self.0.me.clone() },
            owner: self.0.owner.clone(),
            epoch,
            renewals: 0,
            length_ms: u64::try_from(self.0.length.as_millis()).unwrap_or(u64::MAX),
            released: false,
            configured: self.view().configured.clone(),
        }
    }

    /// Returns an epoch above all that was ever written with, and may still be.
    async fn next_epoch(&self, leased: Option<i64>, own: i64, store: &dyn Store) -> Result<i64> {
        let stored = store.highest_version().await?.epoch();
        // The lease may have been lost with its index, and an early leader has no row yet.
        let published = self.0.channel.read().await?.map_or(0, |(version, _)| ReadVersion(version).epoch());
        Ok(leased.unwrap_or(0).max(own).max(stored).max(published) + 1)
    }

    fn log_take_over(&self, before: &LeaseDocument) {
        let differences = differences(&self.view().configured, &before.configured).join("; ");
        if !before.released {
            tracing::warn!(before = %before.holder, "the leader is gone: this process takes over");
        }
        if !differences.is_empty() {
            tracing::warn!(differences, "the entity configs of this host are used from now on");
        }
    }

    fn renewed(&self, asked: Instant, revision: Revision, document: LeaseDocument) {
        let mut view = self.view();
        view.valid_until = Some(asked + self.0.length * (PARTS - 1) / PARTS);
        view.written = Some((revision, document));
        (view.observed, view.problem) = (None, None);
    }

    /// Writes no more, unless a successor of this [`LeaseRenewal`] holds the lease already.
    fn give_up(&self, number: u64, problem: Option<String>) {
        let mut view = self.view();
        if view.holding == number {
            view.valid_until = None;
            view.problem = problem.or(view.problem.take());
        }
    }

    /// Begins to renew the lease.
    ///
    /// The task needs no supervisor: however it ends, the lease counts as lost, and is
    /// taken again by the loop that follows the site.
    fn hold(&self) -> LeaseGuard {
        let number = {
            let mut view = self.view();
            view.holding += 1;
            view.holding
        };
        let lost = CancellationToken::new();
        let (lease, ended) = (self.clone(), lost.clone());
        let renewal = tokio::spawn(async move {
            let _ended = ended.drop_guard();
            let renewed = AssertUnwindSafe(lease.keep_renewed()).catch_unwind().await;
            let reason = renewed.unwrap_or_else(|panic| format!("its renewal panicked: {}", panic_text(&*panic)));
            tracing::error!(reason, "the lease is lost: this process writes nothing until it leads again");
            lease.give_up(number, Some(reason));
        });
        let _renewal = AbortOnDropHandle::new(renewal);
        let held = Arc::new(LeaseRenewal { lease: self.clone(), number, lost, _renewal });
        *self.0.held.lock() = Arc::downgrade(&held);
        held
    }

    /// Renews the lease until it is lost; returns why it is.
    async fn keep_renewed(&self) -> String {
        loop {
            tokio::time::sleep(self.0.length / PARTS).await;
            meet_on_thread("lease_renewal");
            let Some(until) = self.view().valid_until else { return "it was given up".to_owned() };
            match tokio::time::timeout_at(until.into(), self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(taken)) => return taken,
                Err(_) => {
                    let problem = self.view().problem.clone();
                    let problem = problem.unwrap_or_else(|| "no answer".to_owned());
                    return format!("the cluster did not take its renewal in time: {problem}");
                }
            }
        }
    }

    /// Renews the lease once, however often that has to be tried.
    ///
    /// # Errors
    ///
    /// Why it cannot be renewed any more.
    async fn renew(&self) -> Result<(), String> {
        let _one_at_a_time = self.0.writing.lock().await;
        loop {
            let (written, configured) = {
                let view = self.view();
                (view.written.clone(), view.configured.clone())
            };
            let Some((revision, document)) = written else { return Err("it was given up".to_owned()) };
            let renewals = document.renewals + 1;
            let next = LeaseDocument { renewals, released: false, configured, ..document };
            let asked = Instant::now();
            let failed = match self.0.channel.write_lease(&next, Some(revision)).await {
                Ok(Some(revision)) => {
                    self.renewed(asked, revision, next);
                    return Ok(());
                }
                // The own write whose answer was lost, or that of a process beside this one.
                Ok(None) => match self.0.channel.read_lease().await {
                    Ok(Some((revision, found))) if found.holder.shares_directory(&self.0.me) => {
                        self.view().written = Some((revision, found));
                        continue;
                    }
                    Ok(Some((_, found))) => return Err(format!("it was taken over: {}", found.holder)),
                    Ok(None) => return Err("its document is gone from the cluster".to_owned()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tracing::warn!(error = %failed, "the lease could not be renewed, trying again");
            self.view().problem = Some(failed.to_string());
            tokio::time::sleep(self.look_interval()).await;
        }
    }

    fn not_leader(&self) -> NotLeader {
        let view = self.view();
        let other = view.observed.as_ref().filter(|seen| !seen.document.released);
        NotLeader {
            holder: other.map(|seen| seen.document.holder.clone()),
            is_alive: other.is_some_and(|seen| seen.is_renewed),
            problem: view.problem.clone(),
            differences: other.map_or_else(Vec::new, |seen| differences(&view.configured, &seen.document.configured)),
        }
    }
}

impl View {
    fn observe(&mut self, revision: Revision, document: &LeaseDocument) {
        let before = self.observed.take();
        let is_known = before.as_ref().is_some_and(|before| before.document.epoch == document.epoch);
        self.observed = Some(match before {
            Some(before) if before.revision == revision => before,
            _ => Observed { revision, document: document.clone(), since: Instant::now(), is_renewed: is_known },
        });
    }
}
