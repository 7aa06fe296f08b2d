//! Counts log lines by level, so that a burst of errors shows on a graph.

use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Metrics;

/// A layer of the log subscriber that counts what passes.
#[derive(Debug)]
pub struct CountLog(Metrics);

impl CountLog {
    /// Returns a layer that counts into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl<S: tracing::Subscriber> Layer<S> for CountLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        self.0.about.log_messages.inc(&[level]);
    }
}
