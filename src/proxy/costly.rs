//! Limits how many costly queries the store evaluates at the same time. A filter of thousands
//! of conditions occupies a connection of the store for seconds; without a limit a few such
//! requests would occupy all of them.

use std::sync::Arc;
use std::time::Duration;

use super::address_cache::AddressCache;
use super::answer::{self, Answered};
use super::decide::{ReadPlan, SummaryPlan};
use super::reason::{Pass, Reason};
use super::slots::Slots;
use crate::filter::Query;
use crate::server::Peer;
use crate::store::Store;

/// A query with more conditions is costly.
const COSTLY_CONDITIONS: usize = 50;
/// So many of them at the same time; the other connections of the store are for the rest.
const MAX_COSTLY: usize = 1;

/// The limit; clones share it.
#[derive(Clone)]
pub(super) struct Turns {
    slots: Slots,
    /// How long a costly query waits, before the site is asked instead.
    wait: Duration,
}

impl Turns {
    pub fn new(wait: Duration) -> Self {
        Self { slots: Slots::new(MAX_COSTLY), wait }
    }

    /// Answers a `read`.
    pub async fn read(
        &self,
        peer: Option<Peer>,
        store: &Arc<dyn Store>,
        plan: &ReadPlan,
        addresses: Option<&Arc<AddressCache>>,
    ) -> Result<Answered, Pass> {
        if !is_costly(&plan.question.query) {
            return answer::read(store.as_ref(), plan, addresses.map(AsRef::as_ref)).await;
        }
        let (store, plan, addresses) = (Arc::clone(store), plan.clone(), addresses.cloned());
        self.in_turn(peer, async move { answer::read(store.as_ref(), &plan, addresses.as_deref()).await }).await
    }

    /// Answers a `summarize`.
    pub async fn summarize(
        &self,
        peer: Option<Peer>,
        store: &Arc<dyn Store>,
        plan: &SummaryPlan,
    ) -> Result<Answered, Pass> {
        if !is_costly(&plan.question.query) {
            return answer::summarize(store.as_ref(), plan).await;
        }
        let (store, plan) = (Arc::clone(store), plan.clone());
        self.in_turn(peer, async move { answer::summarize(store.as_ref(), &plan).await }).await
    }

    async fn in_turn(
        &self,
        peer: Option<Peer>,
        answer: impl Future<Output = Result<Answered, Pass>> + Send + 'static,
    ) -> Result<Answered, Pass> {
        let busy = || {
            let words = format!("other reads of over {COSTLY_CONDITIONS} conditions are being answered");
            Pass::new(Reason::Store, words)
        };
        let turn = self.slots.take(peer, self.wait).await.ok_or_else(busy)?;
        // The connection is in use until the end, also when the caller has left.
        let answering = tokio::spawn(async move {
            let _turn = turn;
            answer.await
        });
        answering.await.unwrap_or_else(|_| Err(Pass::new(Reason::Store, "the answer broke inside of sgcache")))
    }
}

fn is_costly(query: &Query) -> bool {
    query.filter.leaves().len() > COSTLY_CONDITIONS
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::entity::EntityType;
    use crate::filter::Filter;

    async fn let_others_run() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_read_of_many_conditions_waits_until_the_one_before_has_ended() {
        let turns = Turns::new(Duration::from_secs(30));
        let (finish, finished) = tokio::sync::oneshot::channel();
        let begin = |answer: BoxFuture<'static, Result<Answered, Pass>>| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.in_turn(None, answer).await })
        };
        let answered = || Ok(Answered { body: Vec::new(), rows: 0 });
        let first = begin(Box::pin(async move {
            finished.await.expect("it may end");
            answered()
        }));
        let_others_run().await;
        // Its caller leaves.
        first.abort();
        let second = begin(Box::pin(async move { answered() }));
        let_others_run().await;
        assert!(!second.is_finished(), "the first is at work");
        finish.send(()).expect("it waits");
        assert!(second.await.expect("no panic").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_turn_in_time_the_site_is_asked() {
        let turns = Turns::new(Duration::from_secs(30));
        let endless = turns.in_turn(None, std::future::pending());
        assert!(endless.now_or_never().is_none());
        let second = tokio::time::timeout(Duration::from_secs(60), turns.in_turn(None, std::future::pending()));
        let passed = second.await.expect("it ends").expect_err("no turn");
        assert_eq!(passed.reason, Reason::Store);
    }

    #[test]
    fn only_many_conditions_are_costly() {
        let query = |conditions| {
            let filter = Filter::any((0..conditions).map(Filter::id_after).collect());
            is_costly(&Query { filter, ..Query::all(EntityType::new("Shot")) })
        };
        assert!(!query(50) && query(51));
        let filter = Filter::ids(0..10_000);
        assert!(!is_costly(&Query { filter, ..Query::all(EntityType::new("Shot")) }), "a list is one condition");
    }
}
