//! Everything that runs jobs, put together: follower, validator, runner, and the
//! places where reports go.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::Online;
use crate::config::Config;
use crate::elastic;
use crate::pipeline::{
    Detail, Following, HookTarget, Jobs, Outputs, Pipeline, ResolveContext, RunOrder, Runner, Site, Tell,
};
use crate::proxy::shadow::{Difference, OnDifference};
use crate::report::{Delivery, Notifiers, Outbox, RunReport, ShadowDifference, Sink, Wording};
use crate::state::{RunRow, State};
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
    /// Why changed files were not taken over, the last time.
    pub reload_problem: Mutex<Option<String>>,
    /// Keeps the loops of this process running.
    pub supervisor: Supervisor,
    /// Runs pipelines.
    pub runner: Runner,
    /// Cancelled when everything is to stop.
    pub shutdown: CancellationToken,
    /// Sends reports to a cluster, where one is configured.
    pub delivery: Option<Arc<Delivery>>,
    /// Whom hooks may notify.
    pub notifiers: Notifiers,
    sinks: Vec<Sink>,
}

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
        templates,
    }
}

/// Names host and process in reports.
pub fn instance() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    let host = host.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    format!("{}:{}", host.unwrap_or_else(|| "localhost".to_owned()), std::process::id())
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

    /// Does the same; `progress` is told how far a rebuild is.
    ///
    /// # Errors
    ///
    /// As [`Engine::new`].
    pub fn with_progress(
        online: Online,
        settings: sync::Settings,
        progress: Option<sync::Progress>,
    ) -> Result<Self, Failure> {
        let shutdown = CancellationToken::new();
        let replica = Replica::new(
            online.client.clone(),
            Arc::clone(&online.store),
            online.state.clone(),
            online.layouts.clone(),
            online.metrics.clone(),
            settings,
        );
        let following = Following::default();
        let supervisor = Supervisor::new(online.metrics.clone(), shutdown.clone());
        let config = &online.config;
        let jobs = Arc::new(Jobs {
            validator: Validator::new(replica.clone()),
            replica: replica.clone(),
            following: following.clone(),
            supervisor: supervisor.clone(),
            schema: Arc::new(online.schema.clone()),
            exclusions: config.generate.clone(),
            entity_config_dir: config.entity_config_dir(),
            keep_runs: config.pipelines.history.keep_runs as usize,
            keep_runs_for: days(config.pipelines.history.keep_days),
            keep_failed_runs_for: days(config.pipelines.history.keep_failed_days),
            progress,
        });
        let notifiers = Notifiers::new(config.notifiers.clone());
        let runner = Runner::new(jobs.execute(), &resolve_context(config), instance(), shutdown.clone());
        let runner = runner.with_tell(tell(notifiers.clone()));
        let delivery = delivery(&online)?;
        let sinks = sinks(&online, delivery.as_deref());
        let reload_problem = Mutex::default();
        Ok(Self {
            online,
            replica,
            following,
            reload_problem,
            supervisor,
            runner,
            shutdown,
            delivery,
            notifiers,
            sinks,
        })
    }

    /// Runs a pipeline, and keeps and sends its report.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub async fn run(&self, pipeline: &Arc<Pipeline>, order: RunOrder) -> Result<RunReport, Failure> {
        self.remember(&self.runner.begin(pipeline, &order)).await?;
        let report = self.runner.run(pipeline, order).await;
        self.keep(&report, pipeline.outputs).await?;
        Ok(report)
    }

    /// Writes a report into the history.
    ///
    /// # Errors
    ///
    /// When the state cannot be written.
    pub async fn remember(&self, report: &RunReport) -> Result<(), Failure> {
        remember(&self.online.state, report).await
    }

    /// Writes a finished report into the history and hands it to every sink.
    ///
    /// # Errors
    ///
    /// When the state cannot be written; the sinks have it all the same.
    pub async fn keep(&self, report: &RunReport, outputs: Outputs) -> Result<(), Failure> {
        for sink in &self.sinks {
            match sink {
                Sink::Prometheus(_) if !outputs.prometheus => {}
                Sink::Elasticsearch(..) => sink.deliver(&shortened(report, outputs.elasticsearch)),
                _ => sink.deliver(report),
            }
        }
        self.remember(report).await
    }

    /// Returns how many documents about runs wait to be delivered, those of jobs
    /// beside this process included.
    pub fn reports_waiting(&self) -> u64 {
        let waiting = self.delivery.as_ref().map(|delivery| delivery.outbox().len());
        waiting
            .transpose()
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the outbox of reports cannot be read");
                None
            })
            .unwrap_or_default()
    }

    /// Stops, and sends the reports that wait, for a few seconds.
    pub async fn finish(&self) {
        self.shutdown.cancel();
        if let Some(delivery) = &self.delivery {
            delivery.flush(Duration::from_secs(5)).await;
        }
    }
}

/// Lets hooks speak.
fn tell(notifiers: Notifiers) -> Tell {
    Arc::new(move |notice| {
        let notifiers = notifiers.clone();
        Box::pin(async move {
            match &notice.target {
                HookTarget::Notify(name) => notifiers.notify(name, &notice.message, &notice.report).await,
                HookTarget::Ping(address) => notifiers.ping(address).await,
            }
        })
    })
}

async fn remember(state: &State, report: &RunReport) -> Result<(), Failure> {
    let text = serde_json::to_value(report).map_err(|error| Failure::internal(error.to_string()))?;
    let row = RunRow {
        run_id: report.run_id.clone(),
        pipeline: report.pipeline.clone(),
        status: report.finished_at.map_or_else(|| "running".to_owned(), |_| report.status.to_string()),
        started_at: report.started_at.into(),
        finished_at: report.finished_at.map(Into::into),
        report: text,
    };
    Ok(state.insert_run(&row).await?)
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
    Some(Arc::new(move |difference: &Difference| {
        let Difference { class, method, argument, site, cache } = difference;
        let seen = ShadowDifference { instance: &instance, class, method, argument, site, cache };
        if let Err(error) = outbox.put(&[seen.document(Utc::now(), &wording)]) {
            tracing::error!(%error, "a difference is lost to Elasticsearch");
        }
    }))
}

/// The way of reports to a cluster, where one is configured.
fn delivery(online: &Online) -> Result<Option<Arc<Delivery>>, Failure> {
    let Some(settings) = &online.config.reports.elasticsearch else { return Ok(None) };
    let path = online.config.data_dir.join("state.sqlite");
    let outbox = Outbox::open(&path, OUTBOX_LIMIT, online.metrics.clone())
        .map_err(|error| Failure::internal(format!("the outbox of reports in {}: {error}", path.display())))?;
    let client = elastic::Client::new(&settings.transport())
        .map_err(|error| Failure::config(format!("reports.elasticsearch: {error}")))?;
    Ok(Some(Arc::new(Delivery::new(client, &settings.prefix, Arc::new(outbox)))))
}

fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 86_400)
}
