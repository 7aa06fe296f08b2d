//! [`Ops`]: everything that the ops listener shows, and where it hands on what it is asked
//! to do. Its answers are in `routes`, `control_api` and `events`.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::access::OpsAccess;
use super::control::Control;
use super::operation::{Operation, Refusal, RefusalKind};
use super::run_events::RunEvents;
use super::status::StatusSnapshot;
use crate::metrics::Metrics;
use crate::report::{RunReport, Status};
use crate::supervisor::Supervisor;

type StatusSource = Arc<dyn Fn() -> BoxFuture<'static, StatusSnapshot> + Send + Sync>;
type RunsSource = Arc<dyn Fn(RunsQuery) -> BoxFuture<'static, Vec<RunReport>> + Send + Sync>;
type Performed = BoxFuture<'static, Result<Value, Refusal>>;
type OperationSink = Arc<dyn Fn(Operation) -> Performed + Send + Sync>;

/// Which runs are asked for; all parts have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunsQuery {
    /// Of this pipeline or job.
    pub pipeline: Option<String>,
    /// That ended like this.
    pub status: Option<Status>,
    /// At most this many, newest first; 50 unless said otherwise.
    pub limit: Option<usize>,
    /// Only this run.
    #[serde(skip)]
    pub run_id: Option<String>,
}

/// Everything that the ops listener shows and hands on.
#[derive(Clone)]
pub struct Ops {
    pub(super) metrics: Metrics,
    pub(super) control: Control,
    pub(super) access: Arc<OpsAccess>,
    pub(super) supervisor: Option<Supervisor>,
    status: StatusSource,
    pub(super) runs: RunsSource,
    /// Where the logs of runs are; `None` where no runs are.
    pub(super) data_dir: Option<PathBuf>,
    operations: OperationSink,
    events: RunEvents,
}

impl Ops {
    /// Returns a listener that shows `metrics` and whatever `status` returns.
    pub fn new<F>(metrics: Metrics, control: Control, status: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = StatusSnapshot> + Send + 'static,
    {
        let nothing = "this process does not run pipelines";
        Self {
            metrics,
            control,
            access: Arc::default(),
            supervisor: None,
            status: Arc::new(move || Box::pin(status())),
            data_dir: None,
            runs: Arc::new(|_| Box::pin(async { Vec::new() })),
            operations: Arc::new(move |_| {
                Box::pin(async move { Err(Refusal::new(RefusalKind::Unavailable, nothing)) })
            }),
            events: RunEvents::default(),
        }
    }

    /// Makes `/livez` know every loop of a supervisor.
    #[must_use]
    pub fn with_supervisor(mut self, supervisor: Supervisor) -> Self {
        self.supervisor = Some(supervisor);
        self
    }

    /// Asks this of requests; without it, only that they name this machine.
    #[must_use]
    pub fn with_access(mut self, access: OpsAccess) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// Answers `/api/v1/runs` from here.
    #[must_use]
    pub fn with_runs<F>(mut self, runs: impl Fn(RunsQuery) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<RunReport>> + Send + 'static,
    {
        self.runs = Arc::new(move |query| Box::pin(runs(query)));
        self
    }

    /// Answers with the logs of runs that are kept in this data directory.
    #[must_use]
    pub fn with_run_logs(mut self, data_dir: PathBuf) -> Self {
        self.data_dir = Some(data_dir);
        self
    }

    /// Hands what is asked for to `perform`, which returns the document of the answer.
    #[must_use]
    pub fn with_operations<F>(mut self, perform: impl Fn(Operation) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, Refusal>> + Send + 'static,
    {
        self.operations = Arc::new(move |operation| Box::pin(perform(operation)));
        self
    }

    /// Streams the runs that are published here.
    #[must_use]
    pub fn with_events(mut self, events: RunEvents) -> Self {
        self.events = events;
        self
    }

    pub(super) fn events(&self) -> &RunEvents {
        &self.events
    }

    pub(super) async fn perform(&self, operation: Operation) -> Result<Value, Refusal> {
        (self.operations)(operation).await
    }

    pub(super) async fn snapshot(&self) -> StatusSnapshot {
        let mut snapshot = (self.status)().await;
        snapshot.judge();
        snapshot
    }
}
