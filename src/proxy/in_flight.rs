//! [`InFlightRequests`]: identical reads that are at the site at the same time are one.
//!
//! A request goes on as long as a caller waits for it: when its first caller leaves, for the
//! others; when all have left it ends, and gives its slot back. It leaves the list when it
//! ends, also by a panic, so that no later caller joins it or waits for it for ever.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

use super::credential::Digest;
use super::upstream::{BufferedResponse, Unreachable};

type Answer = Result<Arc<BufferedResponse>, Unreachable>;
/// A request on its way; it ends with the last of those who wait for it.
pub(super) type InFlight = Shared<BoxFuture<'static, Answer>>;

#[derive(Default)]
struct Requests {
    by_key: HashMap<Digest, (u64, WeakShared<BoxFuture<'static, Answer>>)>,
    started: u64,
}

/// The reads that are at the site; clones share the list.
#[derive(Clone, Default)]
pub(super) struct InFlightRequests(Arc<Mutex<Requests>>);

impl InFlightRequests {
    /// Joins the request of this key, or starts it; tells whether it was joined.
    pub fn join<F>(&self, key: Digest, start: impl FnOnce() -> F) -> (bool, InFlight)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut requests = lock(&self.0);
        if let Some(request) = requests.by_key.get(&key).and_then(|(_, request)| request.upgrade()) {
            return (true, request);
        }
        requests.started += 1;
        let number = requests.started;
        let request = guarded(start(), Landed { requests: Arc::clone(&self.0), key, number });
        if let Some(weak) = request.downgrade() {
            requests.by_key.insert(key, (number, weak));
        }
        (false, request)
    }
}

/// Makes a request that many can wait for; one that panics fails for all of them.
fn guarded(request: impl Future<Output = Answer> + Send + 'static, landed: Landed) -> InFlight {
    let request = async move {
        let _landed = landed;
        AssertUnwindSafe(request).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("a request to the site panicked");
            Err(Unreachable::unknown("the request panicked inside of sgcache"))
        })
    };
    request.boxed().shared()
}

/// Takes a request out of those that others may join.
struct Landed {
    requests: Arc<Mutex<Requests>>,
    key: Digest,
    number: u64,
}

impl Drop for Landed {
    fn drop(&mut self) {
        let mut requests = lock(&self.requests);
        // Another one may have begun between the last caller's leave and this.
        if requests.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            requests.by_key.remove(&self.key);
        }
    }
}

fn lock(requests: &Mutex<Requests>) -> MutexGuard<'_, Requests> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Digest = [3; 32];

    #[tokio::test]
    async fn a_request_that_panics_ends_for_all_who_wait_and_is_not_joined_any_more() {
        let requests = InFlightRequests::default();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (joined, first) = requests.join(KEY, || async move {
            wait.await.expect("a signal");
            panic!("a fault of the request")
        });
        let (also, second) = requests.join(KEY, std::future::pending::<Answer>);
        assert!(!joined && also);
        go.send(()).expect("it waits");
        for waiting in [first.boxed(), second.boxed()] {
            let error = waiting.await.expect_err("no answer").to_string();
            assert!(error.contains("panicked"), "{error}");
        }
        let (joined, next) = requests.join(KEY, || async { Err(Unreachable::unknown("another request")) });
        assert!(!joined, "a request that has ended is not joined");
        assert_eq!(next.await.expect_err("no answer").to_string(), "another request");
    }

    #[tokio::test]
    async fn a_request_goes_on_when_its_first_caller_leaves() {
        let requests = InFlightRequests::default();
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (_, first) = requests.join(KEY, || async move {
            wait.await.expect("a signal");
            Err(Unreachable::unknown("the answer"))
        });
        let (joined, second) = requests.join(KEY, std::future::pending::<Answer>);
        drop(first);
        go.send(()).expect("it waits");
        assert!(joined);
        assert_eq!(second.await.expect_err("no answer").to_string(), "the answer");
    }

    #[tokio::test]
    async fn a_request_without_callers_ends_and_is_not_joined() {
        let requests = InFlightRequests::default();
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let (_, first) = requests.join(KEY, || async move {
            let _held = held;
            std::future::pending().await
        });
        assert!(first.clone().now_or_never().is_none(), "it was begun");
        drop(first);
        assert!(ended.await.is_err(), "what it held is given back");
        assert!(lock(&requests.0).by_key.is_empty());
        let (joined, _) = requests.join(KEY, std::future::pending::<Answer>);
        assert!(!joined);
    }
}
