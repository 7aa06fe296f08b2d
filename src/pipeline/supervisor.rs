//! Keeps a continuous pipeline running: a loop with a growing wait.
//!
//! A continuous pipeline ends only by shutdown. When it ends otherwise, also
//! by a panic, it is started again; each end leaves a report. While it is paused
//! it does not run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Continuous, Pipeline, RunOrder, Runner};
use crate::report::{RunReport, Trigger};
use crate::retry::doubled;

/// What a supervised pipeline listens to.
#[derive(Debug, Clone)]
pub struct SupervisorControl {
    /// Ends it for good; the shutdown of the runner does too.
    pub stop: CancellationToken,
    /// Whether it is paused.
    pub paused: watch::Receiver<bool>,
}

/// Runs a continuous pipeline until it is stopped. `started` and
/// `ended` are called for each run; the first gets the report as it is while the
/// run goes on.
pub async fn supervise(
    runner: &Runner,
    pipeline: &Arc<Pipeline>,
    params: &std::collections::BTreeMap<String, Value>,
    mut control: SupervisorControl,
    mut started: impl FnMut(RunReport),
    mut ended: impl FnMut(RunReport),
) {
    let settings = pipeline.continuous().cloned().unwrap_or_default();
    let mut failures = 0;
    let ends = |control: &SupervisorControl| runner.shutdown().is_cancelled() || control.stop.is_cancelled();
    while control.wait_until_resumed(runner).await && !ends(&control) {
        let mut order = RunOrder::new(Trigger::Continuous);
        order.params = params.clone();
        let began = Instant::now();
        started(runner.begin(pipeline, &order));
        let cancel = order.cancel.clone();
        let run = runner.run(pipeline, order);
        tokio::pin!(run);
        let (report, stopped) = tokio::select! {
            report = &mut run => (report, false),
            () = control.wait_until_held() => {
                cancel.cancel();
                (run.await, true)
            }
        };
        failures = if stopped || began.elapsed() >= settings.reset_after { 1 } else { failures + 1 };
        let wait = wait_after(&settings, failures);
        let (name, status) = (pipeline.name.as_str(), report.status);
        ended(report);
        if ends(&control) {
            return;
        }
        if stopped {
            continue;
        }
        tracing::warn!(pipeline = name, %status, ?wait, "a continuous pipeline ended and is started again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = runner.shutdown().cancelled() => return,
            () = control.stop.cancelled() => return,
        }
    }
}

impl SupervisorControl {
    /// Waits while it is paused; false when it is to end instead.
    async fn wait_until_resumed(&mut self, runner: &Runner) -> bool {
        tokio::select! {
            // An error means that the sender of pauses is gone.
            _ = self.paused.wait_for(|paused| !paused) => true,
            () = self.stop.cancelled() => false,
            () = runner.shutdown().cancelled() => false,
        }
    }

    /// Waits until it is paused or stopped.
    async fn wait_until_held(&mut self) {
        let paused = async {
            if self.paused.wait_for(|paused| *paused).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = paused => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Returns the wait after so many ends in a row.
fn wait_after(settings: &Continuous, failures: u32) -> Duration {
    doubled(settings.restart_initial, failures.saturating_sub(1), settings.restart_max)
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
