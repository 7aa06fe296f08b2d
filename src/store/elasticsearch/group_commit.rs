//! What has to happen after rows are written and before `put` returns, done once
//! for all puts that wait for it.
//!
//! A refresh costs the server about as much as indexing a page of rows, and a
//! small segment costs a merge later. So puts that run side by side gather: while
//! one group is committed the next one assembles, and its first member commits it.
//! A lone put does not wait.
//!
//! First the refresh, then the consequences: links to what was found retired are
//! taken out of their fields, links to what was found alive are put back, names
//! that no row tells are remembered. Looking for consequences after the refresh
//! makes two concurrent writers see each other, also those of two processes:
//! whichever refreshes second finds the other.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::super::{LinkTarget, Result, RowState, StoreError, StoreErrorKind};
use super::search::{Hit, Search, msearch, refresh};
use super::seen_names::SeenName;
use super::targets::Entry as NameEntry;
use super::{Inner, dsl};
use crate::entity::{EntityRef, EntityType};

/// How many ids one search of a group names.
const IDS_AT_ONCE: usize = 10_000;

/// How many rows make a put a large one.
const LARGE: usize = 200;

/// How long a large put waits for others.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// How long after a large put an import is taken to go on, and the names that its links showed wait for rows.
const NAMES_AFTER: Duration = Duration::from_secs(2);

/// What one put leaves to be done after the refresh.
#[derive(Default)]
pub(super) struct Share {
    /// How many rows were given.
    pub(super) rows: usize,
    /// The types that were written to.
    pub(super) types: BTreeSet<EntityType>,
    /// Rows that are there and not retired.
    pub(super) living: BTreeSet<EntityRef>,
    /// Entities that may be retired and linked to: targets of links, and retired rows.
    pub(super) targets: BTreeSet<EntityRef>,
    /// Names that links showed.
    pub(super) shown: HashMap<EntityRef, SeenName>,
}

impl Share {
    fn join(&mut self, other: Self) {
        self.rows += other.rows;
        self.types.extend(other.types);
        self.living.extend(other.living);
        self.targets.extend(other.targets);
        for (key, (name, rv)) in other.shown {
            match self.shown.entry(key) {
                Entry::Occupied(newest) if newest.get().1 >= rv => {}
                Entry::Occupied(mut newest) => drop(newest.insert((name, rv))),
                Entry::Vacant(free) => drop(free.insert((name, rv))),
            }
        }
    }
}

/// How a group ended, sent to each member.
type Outcome = std::result::Result<(), (StoreErrorKind, String)>;

/// Puts that wait to be committed together.
#[derive(Default)]
struct Group {
    share: Share,
    members: Vec<oneshot::Sender<Outcome>>,
}

/// The group that assembles, and the turn of the one that is committed.
#[derive(Default)]
pub(super) struct GroupCommit {
    assembling: Mutex<Group>,
    turn: tokio::sync::Mutex<()>,
    /// Puts that have not returned.
    present: AtomicUsize,
    /// Notifies those that wait for others that one came or went.
    moved: Notify,
    /// When the last large put was committed.
    large_at: Mutex<Option<Instant>>,
    /// Whether a task will look at the names that wait.
    names_later: AtomicBool,
}

/// A put that has not returned.
pub(super) struct Present<'a>(&'a GroupCommit);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::Relaxed);
        self.0.moved.notify_one();
    }
}

impl GroupCommit {
    /// Notes a put that begins.
    pub(super) fn enter(&self) -> Present<'_> {
        self.present.fetch_add(1, Ordering::Relaxed);
        Present(self)
    }

    fn join(&self, share: Share) -> oneshot::Receiver<Outcome> {
        let (sender, outcome) = oneshot::channel();
        let mut group = self.assembling.lock();
        group.share.join(share);
        group.members.push(sender);
        drop(group);
        self.moved.notify_one();
        outcome
    }

    /// Notes whether a group is large, and tells whether an import goes on.
    fn is_import(&self, rows: usize) -> bool {
        let mut large_at = self.large_at.lock();
        if rows >= LARGE {
            *large_at = Some(Instant::now());
        }
        large_at.is_some_and(|large_at| large_at.elapsed() < NAMES_AFTER)
    }

    fn is_complete(&self) -> bool {
        let members = self.assembling.lock().members.len();
        members >= self.present.load(Ordering::Relaxed)
    }

    /// Waits a moment for the puts that are on their way.
    async fn assemble(&self) {
        let complete = async {
            while !self.is_complete() {
                self.moved.notified().await;
            }
        };
        // Late ones are in the next group.
        let _ = tokio::time::timeout(LONGEST_WAIT, complete).await;
    }

    fn take(&self) -> Group {
        std::mem::take(&mut self.assembling.lock())
    }
}

impl Inner {
    /// Waits until what a put wrote is visible and its consequences are.
    pub(super) async fn commit(self: &Arc<Self>, share: Share) -> Result<()> {
        let is_large = share.rows >= LARGE;
        let mut outcome_of_group = self.group_commit.join(share);
        let turn = self.group_commit.turn.lock().await;
        let outcome = match outcome_of_group.try_recv() {
            Ok(outcome) => outcome,
            Err(_) => {
                if is_large {
                    self.group_commit.assemble().await;
                }
                // In a task of its own: the others wait for it even when this put is given up.
                let (inner, group) = (Arc::clone(self), self.group_commit.take());
                let committed = tokio::spawn(async move { inner.commit_group(group).await }).await;
                committed.map_err(|error| StoreError::new(StoreErrorKind::Fault, error.to_string()))?;
                outcome_of_group
                    .await
                    .unwrap_or_else(|_| Err((StoreErrorKind::Unavailable, "a put was given up".to_owned())))
            }
        };
        drop(turn);
        outcome.map_err(|(kind, message)| StoreError::new(kind, message))
    }

    async fn commit_group(self: &Arc<Self>, group: Group) {
        let others_write = self.group_commit.present.load(Ordering::Relaxed) > group.members.len();
        let more_may_come = self.group_commit.is_import(group.share.rows) || others_write;
        let committed = self.commit_share(group.share, more_may_come).await;
        if more_may_come {
            self.write_due_names_later();
        }
        let outcome = committed.map_err(|error| (error.kind(), error.to_string()));
        for member in group.members {
            // One that was given up does not listen any more.
            let _ = member.send(outcome.clone());
        }
    }

    /// Looks at the names that wait as soon as no put is left.
    fn write_due_names_later(self: &Arc<Self>) {
        if !self.shown.any_waiting() || self.group_commit.names_later.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(NAMES_AFTER).await;
                // The readers of the names ended together with the store.
                let Some(inner) = inner.upgrade() else { return };
                if inner.group_commit.present.load(Ordering::Relaxed) > 0 || inner.group_commit.is_import(0) {
                    continue;
                }
                inner.group_commit.names_later.store(false, Ordering::Relaxed);
                if let Err(error) = inner.write_due_names(false).await {
                    tracing::warn!(%error, "names that links showed are kept for the next write");
                }
                return;
            }
        });
    }

    async fn write_due_names(&self, more_may_come: bool) -> Result<()> {
        let due = self.shown.due(more_may_come);
        let found = self.look(&BTreeSet::new(), &BTreeSet::new(), &due).await?;
        self.write_due(due, &found.rows).await
    }

    async fn commit_share(&self, share: Share, more_may_come: bool) -> Result<()> {
        let open = self.open_types();
        let is_whole = |entity_type: &EntityType| open.get(entity_type).is_some_and(|open| !open.cached.partial);
        let news = self.shown.offer(share.shown, is_whole);
        let mut touched: BTreeSet<String> = share.types.iter().map(|name| self.names.write(name)).collect();
        if !news.is_empty() {
            self.write_names(&news, NameEntry::Shown).await?;
            touched.insert(self.names.display_names());
        }
        refresh(&self.client, touched).await?;
        self.shown.written(news);

        let due = self.shown.due(more_may_come);
        let found = self.look(&share.living, &share.targets, &due).await?;
        self.write_due(due, &found.rows).await?;
        let mut suspects = found.dead;
        suspects.extend(found.revived);
        self.bring_in_line(&suspects, false).await?;
        Ok(())
    }

    /// Writes the names that waited in vain for a row, and lets go of the others.
    async fn write_due(&self, due: BTreeMap<EntityType, Vec<i64>>, rows: &BTreeSet<EntityRef>) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        self.shown.named_by_rows(rows.iter());
        let keys: Vec<EntityRef> = due
            .into_iter()
            .flat_map(|(entity_type, ids)| ids.into_iter().map(move |id| EntityRef::new(entity_type.clone(), id)))
            .collect();
        let names: Vec<LinkTarget> = self.shown.waiting(&keys);
        if !names.is_empty() {
            self.write_names(&names, NameEntry::Shown).await?;
            refresh(&self.client, [self.names.display_names()]).await?;
            self.shown.written(names);
        }
        Ok(())
    }

    /// Asks everything that has to be known after a refresh, in one call.
    async fn look(
        &self,
        living: &BTreeSet<EntityRef>,
        targets: &BTreeSet<EntityRef>,
        due: &BTreeMap<EntityType, Vec<i64>>,
    ) -> Result<LookupResult> {
        let open = self.open_types();
        let (mut searches, mut asked) = (Vec::new(), Vec::new());
        let mut by_type: BTreeMap<&EntityType, Vec<i64>> = BTreeMap::new();
        for key in targets.iter().filter(|key| open.contains_key(&key.entity_type)) {
            by_type.entry(&key.entity_type).or_default().push(key.id);
        }
        let dead = [RowState::Retired, RowState::Absent];
        let there = [RowState::Active, RowState::Retired];
        let of_dead = by_type.iter().map(|(name, ids)| (Lookup::Dead, *name, ids, dead));
        let of_rows = due.iter().map(|(name, ids)| (Lookup::Rows, name, ids, there));
        for (what, entity_type, ids, states) in of_dead.chain(of_rows) {
            for some in ids.chunks(IDS_AT_ONCE) {
                searches.push(Search { index: self.names.write(entity_type), body: rows_in(some, states) });
                asked.push((what, entity_type));
            }
        }
        let any_type = EntityType::new("");
        let relinked: Vec<String> = targets.iter().map(|key| NameEntry::Relinked.id(key)).collect();
        for some in relinked.chunks(IDS_AT_ONCE) {
            searches.push(Search { index: self.names.display_names(), body: dead_entries(some, dead) });
            asked.push((Lookup::Relinked, &any_type));
        }
        let refs: Vec<String> = living.iter().map(ToString::to_string).collect();
        for some in refs.chunks(IDS_AT_ONCE) {
            let index = format!("{}-write", self.names.any_entity_index());
            searches.push(Search { index, body: rows_with_retired_links(some) });
            asked.push((Lookup::Revived, &any_type));
        }
        let mut found = LookupResult::default();
        for ((what, entity_type), hits) in asked.into_iter().zip(msearch(&self.client, &searches).await?) {
            let keys = || hits.iter().map(|hit| hit.key(entity_type)).collect::<Result<Vec<_>>>();
            match what {
                Lookup::Dead => found.dead.extend(keys()?),
                Lookup::Rows => found.rows.extend(keys()?),
                Lookup::Relinked => {
                    let entries = hits.iter().map(|hit| Value::Object(hit.source.clone()));
                    found.dead.extend(entries.filter_map(|entry| EntityRef::from_json(&entry)));
                }
                Lookup::Revived => {
                    let refs: BTreeSet<&str> = hits.iter().flat_map(Hit::retired_refs).collect();
                    found.revived.extend(living.iter().filter(|key| refs.contains(key.to_string().as_str())).cloned());
                }
            }
        }
        Ok(found)
    }
}

/// What a search of [`Inner::look`] is about.
#[derive(Clone, Copy)]
enum Lookup {
    Dead,
    Rows,
    Relinked,
    Revived,
}

/// What [`Inner::look`] found.
#[derive(Default)]
struct LookupResult {
    /// Targets of links that may be dead.
    dead: BTreeSet<EntityRef>,
    /// Rows to which some link is still out of its field.
    revived: BTreeSet<EntityRef>,
    /// Entities whose own row is there.
    rows: BTreeSet<EntityRef>,
}

fn rows_in(ids: &[i64], states: [RowState; 2]) -> Value {
    let query = dsl::all(vec![json!({"terms": {"_sg.state": states.map(RowState::as_str)}}), dsl::ids(ids)]);
    dsl::ids_only(query, ids.len())
}

fn dead_entries(ids: &[String], states: [RowState; 2]) -> Value {
    let dead = json!({"terms": {"state": states.map(RowState::as_str)}});
    let query = dsl::all(vec![dead, json!({"ids": {"values": ids}})]);
    json!({"query": query, "_source": ["type", "id"], "size": ids.len()})
}

/// Rows of any type with a link out of its field to one of these.
fn rows_with_retired_links(refs: &[String]) -> Value {
    json!({"query": {"terms": {"_sg.retired_refs": refs}}, "_source": ["_sg.retired_refs"], "size": 10_000})
}
