//! Where finished reports go.
//!
//! No sink can fail a run: what goes wrong here is logged and counted.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::documents::{Wording, documents};
use super::outbox::Outbox;
use super::prometheus;
use super::run::{RunReport, Status};
use crate::metrics::Metrics;

/// One place where finished reports go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// One line in the log.
    Log,
    /// The metrics.
    Prometheus(Metrics),
    /// The outbox, and from there Elasticsearch.
    Elasticsearch(Arc<Outbox>, Wording),
}

impl Sink {
    /// Hands a finished report over. `index` is what its pipeline calls its documents in
    /// Elasticsearch.
    pub async fn deliver(&self, report: &RunReport, index: Option<&str>) {
        match self {
            Sink::Log => log(report),
            Sink::Prometheus(metrics) => prometheus::record(metrics, report),
            Sink::Elasticsearch(outbox, wording) => {
                if let Err(error) = outbox.put(&documents(report, wording, index)).await {
                    error!(%error, run_id = %report.run_id, "a report is lost to Elasticsearch");
                }
            }
        }
    }
}

fn log(report: &RunReport) {
    let RunReport { run_id, pipeline, trigger, status, .. } = report;
    let reason = report.reason.as_deref().unwrap_or_default();
    let seconds = report.duration_seconds();
    let drift: u64 = report.steps.iter().map(|step| step.result.drift).sum();
    let checked: u64 = report.steps.iter().map(|step| step.result.checked).sum();
    match status {
        Status::Error | Status::Timeout => {
            let failed = report.steps.iter().find_map(|step| step.error.as_ref());
            let message = failed.map_or(reason, |error| &error.message);
            error!(%run_id, pipeline, %trigger, %status, seconds, message, "run failed");
        }
        Status::Drift | Status::Warn => {
            warn!(%run_id, pipeline, %trigger, %status, seconds, checked, drift, reason, "run ended");
        }
        _ => info!(%run_id, pipeline, %trigger, %status, seconds, checked, drift, reason, "run ended"),
    }
}
