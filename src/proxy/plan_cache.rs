//! The plan cache: requests that were parsed and authorised before.
//!
//! Programs on a farm repeat themselves, and parsing a request takes longer than
//! answering it. What is kept is what a request asks ([`Planned`]) and who asks it, by
//! a keyed hash of its bytes, credentials included; the credentials themselves are
//! not kept. A plan holds as long as what it was made from: the schema, the cached
//! types, and the largest page. Whether the caller's credential is good and whether the
//! rows are fresh enough is not part of a plan: both are decided for every request.
//!
//! Bounded by bytes. What is used least gives way, so a caller who never repeats a
//! request cannot push out the plans of those who do. When the schema or the cached types
//! change, all plans are forgotten: none of them keeps an old schema in memory.

use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::callers::{Caller, Digest};
use super::catalogue::Catalogue;
use super::decide::{Asked, Planned};
use crate::schema::Schema;
use crate::store;

/// The memory that plans may take, as [`Weight`] estimates it.
const MAX_CACHED_PLAN_BYTES: u64 = 32 << 20;
/// The number of plans that the cache is sized for at its start.
const EXPECTED_PLANS: usize = 1_024;
/// Longer requests are not remembered.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;
/// A parsed request and its plan take about this many times the bytes of its argument.
const BYTES_PER_REQUEST_BYTE: u64 = 8;
/// The rest of a plan: what it depends on, the caller, and the entry itself.
const BYTES_PER_PLAN: u64 = 4 << 10;

/// A request that was parsed before.
pub(super) struct CachedPlan {
    /// Without credentials.
    pub asked: Arc<Asked>,
    pub caller: Arc<Caller>,
    planned: Planned,
    basis: Basis,
    bytes: u64,
}

/// What the meaning of a request depends on.
#[derive(Clone)]
struct Basis {
    schema: Arc<Schema>,
    stored: Arc<store::Catalogue>,
    max_page: u32,
}

impl CachedPlan {
    /// Returns what the request asks, if it still means the same.
    pub fn planned(&self, catalogue: &Catalogue) -> Option<Planned> {
        self.basis.holds(catalogue).then(|| self.planned.clone())
    }
}

impl Basis {
    fn of(catalogue: &Catalogue) -> Self {
        let Catalogue { schema, stored, max_page, .. } = catalogue;
        Self { schema: Arc::clone(schema), stored: Arc::clone(stored), max_page: *max_page }
    }

    fn holds(&self, catalogue: &Catalogue) -> bool {
        Arc::ptr_eq(&self.schema, &catalogue.schema)
            && Arc::ptr_eq(&self.stored, &catalogue.stored)
            && self.max_page == catalogue.max_page
    }
}

/// Estimates the memory of an entry.
#[derive(Clone)]
struct Weight;

impl Weighter<Digest, Arc<CachedPlan>> for Weight {
    fn weight(&self, _: &Digest, plan: &Arc<CachedPlan>) -> u64 {
        plan.bytes
    }
}

/// The requests that were parsed before.
pub(super) struct PlanCache {
    plans: Cache<Digest, Arc<CachedPlan>, Weight>,
    /// What the newest plan depends on.
    basis: Mutex<Option<Basis>>,
}

impl Default for PlanCache {
    fn default() -> Self {
        let plans = Cache::with_weighter(EXPECTED_PLANS, MAX_CACHED_PLAN_BYTES, Weight);
        Self { plans, basis: Mutex::default() }
    }
}

impl PlanCache {
    /// Returns what these bytes were parsed as.
    pub fn get(&self, digest: &Digest) -> Option<Arc<CachedPlan>> {
        self.plans.get(digest)
    }

    /// Remembers what a request asks. A request about the present moment asks something
    /// else each time and is left out.
    pub fn insert(&self, digest: Digest, asked: &Asked, caller: &Arc<Caller>, planned: &Planned, by: &Catalogue) {
        match planned {
            Planned::Read(question, _) | Planned::Summarize(question, _) if !question.of_now => {}
            _ => return,
        }
        let basis = self.begin(by);
        let mut asked = asked.clone();
        asked.request.auth = None;
        let argument = asked.request.argument.to_string().len() as u64;
        let bytes = BYTES_PER_PLAN + BYTES_PER_REQUEST_BYTE * argument;
        let (asked, caller) = (Arc::new(asked), Arc::clone(caller));
        let plan = CachedPlan { asked, caller, planned: planned.clone(), basis, bytes };
        self.plans.insert(digest, Arc::new(plan));
    }

    /// Forgets the plans that depend on something else.
    fn begin(&self, catalogue: &Catalogue) -> Basis {
        let mut newest = self.basis.lock();
        match &*newest {
            Some(basis) if basis.holds(catalogue) => basis.clone(),
            _ => {
                self.plans.clear();
                newest.insert(Basis::of(catalogue)).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::decide::{self, Scope};
    use super::super::tests::{asked, catalogue, find};
    use super::*;

    #[test]
    fn plans_take_no_more_memory_than_they_may() {
        let (known, plans) = (catalogue(), PlanCache::default());
        let caller = Caller { digest: [0; 32], name: "s".into(), scope: Scope::Full, owner: None, is_session: false };
        let long = asked("read", find("Shot", json!([["code", "is", "x".repeat(MAX_REQUEST_BYTES - 500)]]), json!([])));
        let planned = decide::plan(&long, &Scope::Full, &known).expect("a plan");
        let caller = Arc::new(caller);
        for number in 0..2_000_u64 {
            let mut digest = Digest::default();
            digest[..8].copy_from_slice(&number.to_le_bytes());
            plans.insert(digest, &long, &caller, &planned, &known);
            assert!(plans.plans.weight() <= MAX_CACHED_PLAN_BYTES, "{}", plans.plans.weight());
        }
        assert!(plans.plans.len() > 100 && plans.plans.len() < 2_000, "{}", plans.plans.len());
    }

    #[test]
    fn no_plan_keeps_an_old_schema_in_memory() {
        let (mut known, plans) = (catalogue(), PlanCache::default());
        let caller = Caller { digest: [0; 32], name: "s".into(), scope: Scope::Full, owner: None, is_session: false };
        let caller = Arc::new(caller);
        let read = asked("read", find("Shot", json!([]), json!(["code"])));
        for number in 0..10 {
            let planned = decide::plan(&read, &Scope::Full, &known).expect("a plan");
            plans.insert([number; 32], &read, &caller, &planned, &known);
            let before = std::mem::replace(&mut known, catalogue());
            drop(planned);
            let planned = decide::plan(&read, &Scope::Full, &known).expect("a plan");
            plans.insert([number + 100; 32], &read, &caller, &planned, &known);
            assert_eq!(Arc::strong_count(&before.schema), 1);
            assert!(plans.get(&[number; 32]).is_none() && plans.get(&[number + 100; 32]).is_some());
        }
    }
}
