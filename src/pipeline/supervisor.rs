//! Keeps a continuous pipeline running: a loop with a growing wait.
//!
//! A continuous pipeline ends only by shutdown. When it ends otherwise, also
//! by a panic, it is started again; each end leaves a report.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Continuous, Pipeline, RunOrder, Runner};
use crate::report::{RunReport, Trigger};

/// Runs a continuous pipeline until the runner is shut down. `started` and
/// `ended` are told of each run; the first gets the report as it is while the
/// run goes on.
pub async fn supervise(
    runner: &Runner,
    pipeline: &Arc<Pipeline>,
    params: &std::collections::BTreeMap<String, Value>,
    mut started: impl FnMut(RunReport),
    mut ended: impl FnMut(RunReport),
) {
    let settings = pipeline.continuous().cloned().unwrap_or_default();
    let mut failures = 0;
    while !runner.shutdown().is_cancelled() {
        let mut order = RunOrder::new(Trigger::Continuous);
        order.params = params.clone();
        let began = Instant::now();
        started(runner.begin(pipeline, &order));
        let report = runner.run(pipeline, order).await;
        failures = if began.elapsed() >= settings.reset_after { 1 } else { failures + 1 };
        let wait = wait_after(&settings, failures);
        let (name, status) = (pipeline.name.as_str(), report.status);
        ended(report);
        if runner.shutdown().is_cancelled() {
            return;
        }
        tracing::warn!(pipeline = name, %status, ?wait, "a continuous pipeline ended and is started again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = runner.shutdown().cancelled() => return,
        }
    }
}

/// Returns the wait after so many ends in a row.
fn wait_after(settings: &Continuous, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    settings.restart_initial.saturating_mul(1 << doublings).min(settings.restart_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_a_restart_doubles_up_to_its_limit() {
        let settings = Continuous::default();
        let waits: Vec<u64> = (1..=8).map(|n| wait_after(&settings, n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
