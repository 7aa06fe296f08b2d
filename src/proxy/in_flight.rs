//! [`InFlightRequests`]: identical reads that are at the site at the same time are one.
//!
//! A request is a task of its own: it goes on when its first caller leaves, and it leaves
//! the list when it ends, also by a panic, so that no later caller joins it or waits for
//! it for ever.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::credential::Digest;
use super::upstream::{BufferedResponse, Unreachable};

type Answer = Result<Arc<BufferedResponse>, Unreachable>;
/// A request on its way; dropping it does not end it.
pub(super) type InFlight = Shared<BoxFuture<'static, Answer>>;
type Requests = Mutex<HashMap<Digest, InFlight>>;

/// The reads that are at the site; clones share the list.
#[derive(Clone, Default)]
pub(super) struct InFlightRequests(Arc<Requests>);

impl InFlightRequests {
    /// Joins the request of this key, or starts it; tells whether it was joined.
    pub fn join<F>(&self, key: Digest, start: impl FnOnce() -> F) -> (bool, InFlight)
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut requests = lock(&self.0);
        if let Some(request) = requests.get(&key) {
            return (true, request.clone());
        }
        let (request, landed) = (start(), Landed { requests: Arc::clone(&self.0), key });
        let task = tokio::spawn(async move {
            let _landed = landed;
            request.await
        });
        let failed = |error: tokio::task::JoinError| Err(Unreachable::unknown(error.to_string()));
        let request = task.map(move |answer| answer.unwrap_or_else(failed)).boxed().shared();
        requests.insert(key, request.clone());
        (false, request)
    }
}

/// Takes a request out of those that others may join.
struct Landed {
    requests: Arc<Requests>,
    key: Digest,
}

impl Drop for Landed {
    fn drop(&mut self) {
        lock(&self.requests).remove(&self.key);
    }
}

fn lock(requests: &Requests) -> MutexGuard<'_, HashMap<Digest, InFlight>> {
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
}
