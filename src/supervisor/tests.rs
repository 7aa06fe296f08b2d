//! A loop that fails in each way, with time that stands still where it can.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn supervisor() -> (Supervisor, CancellationToken, Metrics) {
    let (metrics, stop) = (Metrics::default(), CancellationToken::new());
    (Supervisor::new(metrics.clone(), stop.clone()), stop, metrics)
}

fn restarts(metrics: &Metrics, name: &str, reason: &str) -> f64 {
    let labels = [("loop", name), ("reason", reason)];
    metrics.value("sgcache_loop_restarts_total", &labels).expect("the series is there from the start")
}

/// A body that does something else each time; the last of them for ever.
fn in_turn(bodies: Vec<fn()>, runs: Arc<AtomicU32>) -> impl Fn() -> futures::future::BoxFuture<'static, ()> {
    move || {
        let run = runs.fetch_add(1, Ordering::SeqCst) as usize;
        let body = bodies.get(run).copied();
        Box::pin(async move {
            beat(Duration::from_secs(10)).await;
            match body {
                Some(body) => body(),
                None => {
                    beat(Duration::MAX).await;
                    std::future::pending().await
                }
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_panics_or_ends_is_started_again_and_counted() {
    let (supervisor, stop, metrics) = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let task = supervisor.spawn(Loop::Outbox, in_turn(vec![|| panic!("out of order"), || ()], Arc::clone(&runs)));
    while runs.load(Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(restarts(&metrics, "outbox", "panic"), 1.0);
    assert_eq!(restarts(&metrics, "outbox", "ended"), 1.0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = supervisor.status();
    assert_eq!((status[0].state, status[0].restarts), (LoopState::Running, 2));
    assert_eq!(status[0].last_failure.as_deref(), Some("it ended by itself"));
    stop.cancel();
    // A loop that does not listen to the shutdown is not waited for here.
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_keeps_failing_is_given_up_with_its_last_reason() {
    let (supervisor, _stop, metrics) = supervisor();
    let task = supervisor.spawn(Loop::Poll, || async { panic!("always") });
    let failed = supervisor.failed().await;
    assert_eq!((failed.name, failed.failures), (Loop::Poll, MAX_FAILURES));
    assert_eq!(failed.to_string(), "the poll loop was given up after 6 failures, the last: it panicked: always");
    assert_eq!(restarts(&metrics, "poll", "panic"), f64::from(MAX_FAILURES));
    task.await.expect("the supervisor does not panic");
    assert_eq!(supervisor.status(), []);
}

#[tokio::test(start_paused = true)]
async fn a_loop_without_a_sign_of_life_is_stuck_and_started_again() {
    let (supervisor, stop, metrics) = supervisor();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let body = move || {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            beat(if first { Duration::ZERO } else { Duration::MAX }).await;
            std::future::pending().await
        }
    };
    let task = supervisor.spawn(Loop::Fetch, body);
    let mut was_stuck = false;
    while runs.load(Ordering::SeqCst) < 2 {
        was_stuck |= supervisor.status().iter().any(|one| one.state == LoopState::Stuck);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(was_stuck, "nothing showed that it was stuck");
    assert_eq!(restarts(&metrics, "fetch", "stuck"), 1.0);
    stop.cancel();
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_announced_as_slow_is_not_stuck() {
    let (supervisor, _stop, _) = supervisor();
    let task = supervisor.spawn(Loop::Fetch, || async {
        beat(Duration::ZERO).await;
        working(Duration::from_secs(600));
        // A shorter wait beside it does not take the longer one back.
        working(Duration::from_secs(1));
        std::future::pending().await
    });
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!((supervisor.status()[0].state, supervisor.status()[0].restarts), (LoopState::Running, 0));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(supervisor.status()[0].restarts, 1);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_ends_early_ends_the_process() {
    let (supervisor, _stop, metrics) = supervisor();
    let task = supervisor.spawn_once(Loop::ApiListener, async {});
    assert_eq!(supervisor.failed().await.name, Loop::ApiListener);
    assert_eq!(restarts(&metrics, "api_listener", "ended"), 1.0);
    task.await.expect("the supervisor does not panic");
}

#[tokio::test(start_paused = true)]
async fn an_end_after_the_shutdown_is_no_failure() {
    let (supervisor, stop, metrics) = supervisor();
    let until = stop.clone();
    let task = supervisor.spawn(Loop::Reload, move || until.clone().cancelled_owned());
    let once = supervisor.spawn_once(Loop::OpsListener, stop.clone().cancelled_owned());
    tokio::task::yield_now().await;
    stop.cancel();
    task.await.expect("an end");
    once.await.expect("an end");
    assert_eq!(restarts(&metrics, "reload", "ended") + restarts(&metrics, "ops_listener", "ended"), 0.0);
}

#[test]
fn every_loop_has_a_series_from_the_start() {
    let metrics = Metrics::default();
    for name in Loop::ALL {
        assert_eq!(restarts(&metrics, name.name(), "stuck"), 0.0);
    }
}
