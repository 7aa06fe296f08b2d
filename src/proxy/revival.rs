//! Has the site name what a revival changed, before its caller learns that it worked.
//!
//! Rows that were read while an entity was retired lack their links to it, so neither
//! the request nor the cache tells which of them show it again. Every list of its type,
//! and every read that shows such a link, would have to wait until that is known. So
//! the acknowledgement waits: meanwhile these reads are answered as of before the
//! revival, which is no news to any caller yet. What was revived is read first, and
//! that read asks which rows link to it; only those are pending afterwards.
//!
//! What the site does not name within `api.upstream_retry_timeout`, or before it shows
//! the revival itself, is pending for whole types until the event log has named it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::freshness::{FreshnessTracker, LeaderPlace};
use super::pending_writes::PendingWrites;
use super::write_effects::{Ids, WriteEffects, cascade_of, other_side};
use crate::entity::{EntityRef, EntityType, ids_by_type};
use crate::state::DirtyReasons;
use crate::store;
use crate::sync::Tracked;

/// More keys of one type than this are not named one by one.
const MAX_LISTED: usize = 500;

/// What a revival changed.
struct Revival {
    /// The types of the entities that were revived: one, and what goes along with it.
    types: BTreeSet<EntityType>,
    /// The rows that may lack a link to one of them in the cache.
    holders: BTreeMap<EntityType, BTreeSet<i64>>,
}

impl FreshnessTracker {
    /// Adds what a revival changed to its effects.
    pub(super) async fn name_revived(self: &Arc<Self>, effects: &mut WriteEffects) {
        let Some(key) = effects.revived.take() else { return };
        let catalogue = self.catalogue(PendingWrites::default(), 0, false);
        let named = match effects.is_unanswered {
            true => None,
            false => tokio::time::timeout(self.max_delay(), self.read_revived(&key)).await.ok().flatten(),
        };
        let Some(Revival { types, holders }) = named else {
            return effects.revive_unlisted(&key, &catalogue);
        };
        for (holder, ids) in holders {
            for target in &types {
                let fields = other_side(&holder, target, &catalogue);
                effects.push(holder.clone(), Ids::Only(ids.clone()), fields, false);
            }
        }
    }

    /// Reads an entity and what was revived with it, and names the rows that link to
    /// them; `None` where the site cannot name them all.
    async fn read_revived(self: &Arc<Self>, key: &EntityRef) -> Option<Revival> {
        let LeaderPlace::Here(wake) = self.leader_place() else { return None };
        // A retirement that the event log told of lately makes an active row look old.
        wake();
        let tracked = self.replica().tracked();
        let types = revived_types(key, &tracked)?;
        let children: BTreeSet<EntityType> = types.iter().filter(|ty| **ty != key.entity_type).cloned().collect();
        let mut read = BTreeSet::new();
        let mut next = BTreeSet::from([key.clone()]);
        while !next.is_empty() {
            let keys: Vec<EntityRef> = next.into_iter().collect();
            self.mark(&keys, DirtyReasons::WRITE | DirtyReasons::REVIVE).await.ok()?;
            self.refetcher().read(keys.clone()).await;
            read.extend(keys);
            // Whatever else is dirty of these types is read as well.
            next = self.dirty(&children).await?;
            next.retain(|child| !read.contains(child));
        }
        let fields = store::Fields::Only(Vec::new());
        if self.replica().store().get(std::slice::from_ref(key), &fields).await.ok()?.is_empty() {
            return None;
        }
        let linking: BTreeSet<EntityType> = types.iter().flat_map(|ty| tracked.holders(ty)).collect();
        let holders = ids_by_type(self.dirty(&linking).await?);
        Some(Revival { types, holders })
    }

    /// Returns the dirty keys of some types that can be read now, `None` for very many.
    async fn dirty(&self, types: &BTreeSet<EntityType>) -> Option<BTreeSet<EntityRef>> {
        let mut keys = BTreeSet::new();
        for ty in types {
            let ids = self.replica().state().due_ids(ty, self.replica().now(), MAX_LISTED).await.ok()?;
            if ids.len() == MAX_LISTED {
                return None;
            }
            keys.extend(ids.into_iter().map(|id| EntityRef::new(ty.clone(), id)));
        }
        Some(keys)
    }
}

/// Returns the types that are revived with an entity and whose rows or names are cached;
/// `None` where these rows do not show what they belong to.
fn revived_types(key: &EntityRef, tracked: &Tracked) -> Option<BTreeSet<EntityType>> {
    let children = cascade_of(&key.entity_type).iter().map(EntityType::new);
    let children = children.filter(|child| tracked.follows(child) || tracked.names(child));
    let types: BTreeSet<EntityType> = children.chain([key.entity_type.clone()]).collect();
    let is_shown = |ty: &EntityType| {
        let links = types.iter().any(|target| ty != target && tracked.may_link(ty, target));
        tracked.follows(ty) && (*ty == key.entity_type || links)
    };
    types.iter().all(is_shown).then_some(types)
}
