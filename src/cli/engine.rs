//! Everything that runs jobs, put together: follower, validator, runner, and the
//! places where reports go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::Online;
use super::instance::instance;
use super::{hook_delivery, leadership, run_log_layer};
use crate::config::Config;
use crate::elastic;
use crate::pipeline::{
    self, Detail, Following, Jobs, Outputs, Pipeline, Policy, Previous, PreviousSource, ResolveContext, RunEvent,
    RunObserver, RunOrder, Runner, Site, SkipReason,
};
use crate::proxy::shadow::{Difference, OnDifference};
use crate::report::ledger::Recorder;
use crate::report::{Delivery, Notifiers, Outbox, RunReport, ShadowDifference, Sink, Wording, history};
use crate::state::{ProcessLock, State, StateError};
use crate::supervisor::Supervisor;
use crate::sync::{self, Replica};
use crate::validate::Validator;
use crate::yaml::Templates;

/// Documents that wait at most while the report cluster is away.
const OUTBOX_LIMIT: u64 = 100_000;

/// A site, a store, and what runs jobs over them.
pub struct Engine {
    /// The site, the store, the state.
    pub online: Online,
    /// The site, the store and the state as one.
    pub replica: Replica,
    /// The follower, while this process follows the site.
    pub following: Following,
    /// Keeps the loops of this process running.
    pub supervisor: Supervisor,
    /// Runs pipelines.
    pub runner: Runner,
    /// Cancelled when everything is to stop.
    pub shutdown: CancellationToken,
    /// Sends reports to a cluster, where one is configured.
    pub delivery: Option<Arc<Delivery>>,
    /// Counts what the read proxy does.
    pub ledger: Arc<Recorder>,
    /// Whom hooks may notify.
    pub notifiers: Notifiers,
    sinks: Vec<Sink>,
    /// The runs of this process: what their locks prove to other processes.
    owned: Mutex<HashMap<String, ProcessLock>>,
}

/// How often a run that waits for another process looks whether its turn has come.
const LOOK_FOR_TURN_EVERY: Duration = Duration::from_millis(200);

/// Leaves out of a report what its pipeline does not want in the cluster.
fn shortened(report: &RunReport, detail: Detail) -> RunReport {
    let mut report = report.clone();
    if detail == Detail::Summary {
        report.steps.iter_mut().for_each(|step| step.result.mismatches.clear());
    }
    report
}

/// Returns what pipelines are resolved against.
pub fn resolve_context(config: &Config) -> ResolveContext {
    let site = Site { name: config.shotgun.name().to_owned(), url: config.shotgun.site.clone() };
    let templates = Templates::new(&super::context::environment());
    ResolveContext {
        timezone: config.timezone,
        defaults: config.pipelines.defaults.clone(),
        site,
        blackouts: config.blackouts.clone(),
        notifiers: config.notifiers.keys().cloned().collect(),
        entities: None,
        templates,
    }
}

impl Engine {
    /// Puts everything together; nothing runs yet.
    ///
    /// # Errors
    ///
    /// When the settings of the report cluster cannot work, or its outbox cannot
    /// be opened.
    pub fn new(online: Online, settings: sync::Settings) -> Result<Self, Failure> {
        Self::with_progress(online, settings, None)
    }

    /// Does the same; `progress` receives the progress of a rebuild.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn with_progress(
        online: Online,
        settings: sync::Settings,
        progress: Option<sync::Progress>,
    ) -> Result<Self, Failure> {
        run_log_layer::write_below(&online.config.data_dir);
        let shutdown = CancellationToken::new();
        let replica = Replica::new(
            online.client.clone(),
            Arc::clone(&online.store),
            online.state.clone(),
            online.layouts.clone(),
            online.metrics.clone(),
            settings,
        );
        let replica = leadership::sharing(replica, online.lease.as_ref());
        let following = Following::default();
        let supervisor = Supervisor::new(online.metrics.clone(), shutdown.clone());
        let config = &online.config;
        let delivery = delivery(&online)?;
        let jobs = Arc::new(Jobs {
            validator: Validator::new(replica.clone()),
            replica: replica.clone(),
            following: following.clone(),
            supervisor: supervisor.clone(),
            schema: Arc::new(online.schema.clone()),
            exclusions: config.generate.clone(),
            entity_config_dir: config.entity_config_dir(),
            directory: config.directory.clone(),
            keep_runs: config.pipelines.history.keep_runs as usize,
            keep_runs_for: days(config.pipelines.history.keep_days),
            keep_failed_runs_for: days(config.pipelines.history.keep_failed_days),
            reports: delivery.clone(),
            progress,
        });
        let notifiers = Notifiers::new(config.notifiers.clone(), Templates::new(&super::context::environment()));
        let runner = Runner::new(jobs.execute(), &resolve_context(config), instance(), shutdown.clone());
        let runner = runner
            .with_delivery(hook_delivery::deliver(&notifiers, &online.state, &online.metrics, &config.directory))
            .with_previous(previous(&online.state));
        let sinks = sinks(&online, delivery.as_deref());
        let owned = Mutex::default();
        Ok(Self {
            online,
            replica,
            following,
            supervisor,
            runner,
            shutdown,
            delivery,
            ledger: Arc::default(),
            notifiers,
            sinks,
            owned,
        })
    }

    /// Says to `observer` what happens during runs.
    #[must_use]
    pub fn with_observer(mut self, observer: Option<RunObserver>) -> Self {
        if let Some(observer) = observer {
            self.runner = self.runner.with_observer(observer);
        }
        self
    }

    /// Runs a pipeline, and keeps and sends its report. While another process runs
    /// it, or a pipeline of its group, it waits or is skipped, as its concurrency
    /// policy says; a skipped run leaves no trace in the history.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub async fn run(&self, pipeline: &Arc<Pipeline>, order: RunOrder) -> Result<RunReport, Failure> {
        history::close_abandoned(&self.online.state).await?;
        let mut report = self.runner.begin(pipeline, &order);
        let _claim = match self.await_turn(pipeline, &order.cancel).await {
            Ok(claim) => claim,
            Err(reason) => {
                report.finish(Utc::now(), Vec::new());
                report.reason = Some(reason.to_string());
                self.runner.observed(&RunEvent::RunFinished { report: &report });
                return Ok(report);
            }
        };
        self.begin(&report).await?;
        let report = self.runner.run(pipeline, order).await;
        self.keep(&report, &pipeline.outputs).await?;
        Ok(report)
    }

    async fn await_turn(&self, pipeline: &Pipeline, cancel: &CancellationToken) -> Result<Claim, SkipReason> {
        let mut announced = false;
        loop {
            let reason = match claim(&self.online.state, pipeline).await {
                Ok(claim) => return Ok(claim),
                Err(reason) if pipeline.policy == Policy::Skip => return Err(reason),
                Err(reason) if cancel.is_cancelled() || self.shutdown.is_cancelled() => return Err(reason),
                Err(reason) => reason,
            };
            if !announced {
                announced = true;
                eprintln!("{} waits: {reason}", pipeline.name);
            }
            // Locks of other processes tell nothing when they are freed.
            tokio::select! {
                () = tokio::time::sleep(LOOK_FOR_TURN_EVERY) => {}
                () = cancel.cancelled() => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    /// Writes a run that starts into the history, and shows other processes that
    /// its owner lives.
    ///
    /// # Errors
    ///
    /// When the data directory cannot be written.
    pub async fn begin(&self, report: &RunReport) -> Result<(), Failure> {
        let lock = self.online.state.own_run(&report.run_id).await?;
        self.owned.lock().insert(report.run_id.clone(), lock);
        Ok(history::remember(&self.online.state, report).await?)
    }

    /// Writes a finished report into the history and hands it to every sink.
    ///
    /// # Errors
    ///
    /// When the state cannot be written; the sinks have it all the same.
    pub async fn keep(&self, report: &RunReport, outputs: &Outputs) -> Result<(), Failure> {
        for sink in &self.sinks {
            match sink {
                Sink::Prometheus(_) if !outputs.prometheus => {}
                Sink::Elasticsearch(..) => {
                    sink.deliver(&shortened(report, outputs.elasticsearch), outputs.index.as_deref()).await;
                }
                _ => sink.deliver(report, None).await,
            }
        }
        let remembered = history::remember(&self.online.state, report).await;
        // Only now: until the end is written, the run must not look abandoned.
        self.owned.lock().remove(&report.run_id);
        Ok(remembered?)
    }

    /// Returns how many documents about runs wait to be delivered, those of jobs
    /// beside this process included.
    pub async fn reports_waiting(&self) -> u64 {
        let Some(delivery) = &self.delivery else { return 0 };
        delivery.outbox().len().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the number of waiting reports is unknown, shown as 0");
            0
        })
    }

    /// Stops, and sends the reports that wait, for a few seconds.
    pub async fn finish(&self) {
        self.shutdown.cancel();
        leadership::release(self.online.lease.as_ref()).await;
        if let Some(delivery) = &self.delivery {
            delivery.flush(Duration::from_secs(5)).await;
        }
    }
}

/// Looks up in the history how the run before ended, whichever process ran it.
fn previous(state: &State) -> PreviousSource {
    let state = state.clone();
    Arc::new(move |pipeline| {
        let state = state.clone();
        Box::pin(async move {
            let report = history::last_finished(&state, &pipeline).await.unwrap_or_else(|error| {
                tracing::warn!(%error, pipeline, "how the last run ended could not be read");
                None
            })?;
            Some(Previous { status: report.status, finished_at: report.finished_at? })
        })
    })
}

/// The locks that a run holds: its pipeline's and its group's.
pub type Claim = Vec<ProcessLock>;

/// Claims a pipeline and its group among all processes of the data directory.
///
/// # Errors
///
/// What another process runs.
pub async fn claim(state: &State, pipeline: &Pipeline) -> Result<Claim, SkipReason> {
    let group = pipeline.group.as_deref();
    // A group may be called anything, a file may not.
    let of_group = group.map(|group| format!("group-{:016x}", pipeline::fingerprint(group)));
    let names = [Some(format!("pipeline-{}", pipeline.name)), of_group];
    let mut claim = Claim::new();
    for (name, group) in names.into_iter().zip([None, group]).filter_map(|(name, group)| Some((name?, group))) {
        match state.try_lock(&name).await {
            Ok(Some(lock)) => claim.push(lock),
            Ok(None) => return Err(SkipReason::OtherProcess(group.map(str::to_owned))),
            // A process that cannot write there cannot run anything either, and fails then.
            Err(error) => log_unlocked(&name, &error),
        }
    }
    Ok(claim)
}

fn log_unlocked(name: &str, error: &StateError) {
    tracing::warn!(%error, name, "other processes cannot see what runs here");
}

fn sinks(online: &Online, delivery: Option<&Delivery>) -> Vec<Sink> {
    let mut sinks = vec![Sink::Log, Sink::Prometheus(online.metrics.clone())];
    if let Some(delivery) = delivery {
        let wording = Wording::new(online.config.shotgun.name());
        sinks.push(Sink::Elasticsearch(Arc::clone(delivery.outbox()), wording));
    }
    sinks
}

/// What becomes of differences that shadow mode sees: documents for the cluster
/// that reports go to.
pub fn differences(online: &Online, delivery: Option<&Delivery>) -> Option<OnDifference> {
    let outbox = Arc::clone(delivery?.outbox());
    let wording = Wording::new(online.config.shotgun.name());
    let instance = instance();
    Some(Arc::new(move |difference: Difference| {
        let Difference { class, method, argument, site, cache } = &difference;
        let seen = ShadowDifference { instance: &instance, class, method, argument, site, cache };
        let (document, outbox) = (seen.document(Utc::now(), &wording), Arc::clone(&outbox));
        Box::pin(async move {
            if let Err(error) = outbox.put(&[document]).await {
                tracing::error!(%error, "a difference is lost to Elasticsearch");
            }
        })
    }))
}

/// The way of reports to a cluster, where one is configured.
fn delivery(online: &Online) -> Result<Option<Arc<Delivery>>, Failure> {
    let Some(settings) = &online.config.reports.elasticsearch else { return Ok(None) };
    let outbox = Outbox::new(online.state.clone(), OUTBOX_LIMIT, online.metrics.clone());
    let client = elastic::Client::new(&settings.transport())
        .map_err(|error| Failure::config(format!("reports.elasticsearch: {error}")))?;
    Ok(Some(Arc::new(Delivery::new(client, &settings.prefix, Arc::new(outbox)))))
}

fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 86_400)
}
