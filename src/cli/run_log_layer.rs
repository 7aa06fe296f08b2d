//! Hands what is logged within a run to the log of that run.
//!
//! The runner logs within a span `run` with the id of the run, and each step within a
//! span `step`; whatever the code below logs on the way is a line of that run. Where the
//! data directory is becomes known after logging has begun, so it is set later.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, OnceLock};

use chrono::Utc;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::report::{LogLine, RunLogWriter};

/// The data directory of this process, for the one logger that a process has.
static DATA_DIR: LazyLock<Arc<OnceLock<PathBuf>>> = LazyLock::new(Arc::default);

/// Has the logs of runs written below a data directory, the first one that is named.
pub(super) fn write_below(data_dir: &Path) {
    // A second engine of this process works over the same directory.
    let _ = DATA_DIR.set(data_dir.to_owned());
}

/// Returns the layer for the logger of this process, with its filter: logs of runs say
/// the same whatever the terminal shows.
pub(super) fn layer<S: Subscriber + for<'span> LookupSpan<'span>>() -> impl Layer<S> {
    RunLogLayer { data_dir: Arc::clone(&DATA_DIR) }.with_filter(Targets::new().with_target("sgcache", Level::INFO))
}

struct RunLogLayer {
    data_dir: Arc<OnceLock<PathBuf>>,
}

/// What a span `run` carries.
struct RunLog(Mutex<RunLogWriter>);

/// What a span `step` carries.
struct StepName(String);

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for RunLogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut values = Values::default();
        match span.name() {
            "run" => {
                attributes.record(&mut values);
                let writer = values.text("run_id").zip(self.data_dir.get());
                if let Some(writer) = writer.and_then(|(run_id, data_dir)| RunLogWriter::new(data_dir, run_id)) {
                    span.extensions_mut().insert(RunLog(Mutex::new(writer)));
                }
            }
            "step" => {
                attributes.record(&mut values);
                if let Some(step) = values.text("step") {
                    span.extensions_mut().insert(StepName(step.to_owned()));
                }
            }
            _ => {}
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(scope) = context.event_scope(event) else { return };
        let mut step = None;
        for span in scope {
            let extensions = span.extensions();
            if let Some(StepName(name)) = extensions.get() {
                step.get_or_insert_with(|| name.clone());
            }
            if let Some(RunLog(writer)) = extensions.get() {
                writer.lock().write(line(event, step));
                return;
            }
        }
    }
}

fn line(event: &Event<'_>, step: Option<String>) -> LogLine {
    let mut values = Values::default();
    event.record(&mut values);
    let message = match values.0.remove("message") {
        Some(Value::String(message)) => message,
        _ => String::new(),
    };
    let level = event.metadata().level().as_str().to_lowercase();
    // What the log is of needs not stand in each line.
    values.0.remove("run_id");
    LogLine { number: 0, at: Utc::now(), level, step, message, fields: values.0 }
}

/// The values of a span or an event, by name.
#[derive(Default)]
struct Values(Map<String, Value>);

impl Values {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Values {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::report::{new_run_id, run_log};

    #[tokio::test]
    async fn what_is_logged_within_a_run_is_in_its_log_with_the_step_and_nothing_else_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let data_dir = Arc::new(OnceLock::from(directory.path().to_owned()));
        let subscriber = tracing_subscriber::registry().with(RunLogLayer { data_dir });
        let [one, other] = [new_run_id(), new_run_id()];
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("outside");
            for run_id in [&one, &other] {
                let _run = tracing::info_span!("run", run_id).entered();
                tracing::info!(run_id, "begun");
                let _step = tracing::info_span!("step", step = "counts").entered();
                tracing::warn!(rows = 5, ratio = 0.5, %run_id, "found {} of {}", 1, 2);
            }
        });
        for run_id in [&one, &other] {
            let lines = run_log::read(directory.path(), run_id, 0, 10).await.expect("a log").lines;
            let texts: Vec<_> =
                lines.iter().map(|line| (line.level.as_str(), line.step.as_deref(), line.message.as_str())).collect();
            assert_eq!(texts, [("info", None, "begun"), ("warn", Some("counts"), "found 1 of 2")]);
            assert_eq!(Value::from(lines[1].fields.clone()), serde_json::json!({"rows": 5, "ratio": 0.5}));
        }
    }
}
