//! The daemon behind `pipelines run` and `demo`: follower, scheduler, ops
//! listener, reports; put together here and stopped in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::context::{Online, SiteAtStart, entity_config_files};
use super::engine::{Engine, differences};
use super::instance::instance;
use super::leadership;
use super::minute_reports;
use super::operations::Operator;
use super::pipeline_files::{among, load};
use super::recorder::Recorder;
use super::reload::{self, Reloader};
use super::scheduler::{Inputs, Scheduler, give_instants, read_pauses, restore, stored_plan};
use super::service_manager;
use super::status_report::StatusReporter;
use super::task_series::labels;
use crate::config::{Config, StoreSettings};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::proxy::{ApiListener, ApiListenerError, Leader, Parts, Proxy, Wake};
use crate::report::{RunReport, history};
use crate::server::{Bound, Control, Ops, RunsQuery};
use crate::sim::command::interrupted;
use crate::state::{State, StateError};
use crate::supervisor::{Loop, beat, ending};
use crate::sync;

/// How long a daemon that ends goes on delivering reports; what is left waits for the next one.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// How often the store is asked how it is.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Measurements from one document of a minute to the next.
const ROUNDS_PER_MINUTE: u32 = 6;

/// How long one measurement may take, and the pause after it.
const MEASURE_BOUND: Duration = Duration::from_secs(120);

/// Everything that a daemon consists of.
pub struct Daemon {
    /// The parts that run jobs.
    pub engine: Arc<Engine>,
    /// What the status is made of.
    pub snapshots: Arc<StatusReporter>,
    /// Where metrics and status are shown.
    pub ops: std::net::SocketAddr,
    /// Where programs read as if it were the site.
    pub api: std::net::SocketAddr,
    control: Control,
    tasks: Vec<JoinHandle<()>>,
    scheduling: JoinHandle<()>,
    /// Whether every run had ended by itself.
    drained: Arc<AtomicBool>,
}

impl Daemon {
    /// Takes the lead over the data directory and starts everything. `names` are
    /// the pipelines to run, an empty list means every enabled one; `overrides` are parameters
    /// for those that declare them.
    ///
    /// # Errors
    ///
    /// When another daemon leads, an address is taken, the site cannot be reached
    /// for the first time, or the store is away.
    pub async fn start(
        config: Config,
        names: Vec<String>,
        overrides: BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let pipelines = among(load(&config).await?, &names)?;
        check_overrides(&pipelines, &overrides)?;
        let files = entity_config_files(&config)?;
        check_lead(&config).await?;
        let bound = Bound::open("listen.ops", &config.listen.ops.to_string())
            .await
            .map_err(|error| Failure::new(Failure::LOCKED, error.to_string()))?
            .with_tls(config.listen.ops_access.tls.as_ref())
            .map_err(|error| Failure::config(format!("`listen.ops_tls`: {error}")))?;
        let metrics = Metrics::new(&labels(files.iter().map(|file| file.entity_type.as_str()), &pipelines));
        let settings = follow_settings(&pipelines);
        let listener = ApiListener::bind(config.listen.api, &config.api).await.map_err(closed)?;
        let online = Online::with(config, files, metrics, SiteAtStart::OptionalWithTypes).await?;
        let engine = Arc::new(Engine::new(online, settings)?);
        Self::launch(engine, pipelines, names, overrides, bound, listener).await
    }

    async fn launch(
        engine: Arc<Engine>,
        pipelines: Vec<Arc<Pipeline>>,
        names: Vec<String>,
        overrides: BTreeMap<String, String>,
        bound: Bound,
        listener: ApiListener,
    ) -> Result<Self, Failure> {
        describe(&engine);
        engine.supervisor.guard_process().map_err(|error| Failure::internal(format!("no watchdog: {error}")))?;
        let state = engine.online.state.clone();
        let control = Control::new(bound.address()).with_tls(engine.online.config.listen.ops_access.tls.is_some());
        control.write(state.directory()).map_err(|error| Failure::internal(error.to_string()))?;
        let stored = stored_plan(&state).await?;
        restore(&engine, &pipelines).await?;
        let snapshots = Arc::new(StatusReporter::new(Arc::clone(&engine), &pipelines, &stored).await?);
        let (observer, recorder) = Recorder::new(&engine, &pipelines, &stored, &snapshots).await?;
        let (commands, command_receiver) = mpsc::channel(16);
        let (beat_sender, beats) = mpsc::channel(1);
        let (looked_up, pauses) = watch::channel(read_pauses(&state).await);
        let inputs = Inputs { pauses, beats, commands: command_receiver };
        let (scheduler, drained) = Scheduler::new(&engine, pipelines, overrides, observer, inputs);
        let (ops, api) = (bound.address(), listener.address());
        let reloader = Reloader::new(&engine, &snapshots, names, commands.clone());
        let operator = Operator::new(&engine, &snapshots, &reloader, commands);
        let router = router(&engine, &snapshots, &control, operator);

        let (supervisor, stop) = (engine.supervisor.clone(), engine.shutdown.clone());
        let mut tasks =
            vec![supervisor.spawn(Loop::Recorder, move || sharing(&recorder, |it| async move { it.run().await }))];
        let heart = (stop.clone(), state.clone(), beat_sender, looked_up);
        tasks.push(supervisor.spawn(Loop::Heartbeat, move || {
            let (stop, state, beats, pauses) = heart.clone();
            give_instants(beats, pauses, state, stop)
        }));
        tasks.push(supervisor.spawn(Loop::Reload, move || sharing(&reloader, |it| async move { it.watch().await })));
        let (bound, until, metrics) = (Arc::new(bound), stop.clone(), engine.online.metrics.clone());
        tasks.push(supervisor.spawn(Loop::OpsListener, move || {
            let (router, metrics, until) = (router.clone(), metrics.clone(), until.clone());
            sharing(&bound, |it| async move { it.serve(router, &metrics, until).await })
        }));
        let until = stop.clone();
        let measured = (Arc::clone(&engine), Arc::clone(&snapshots));
        tasks.push(supervisor.spawn(Loop::StoreHealth, move || measure(measured.clone(), until.clone())));
        tasks.extend(open(listener, &engine).await?);
        tasks.extend(lead(&engine)?);
        if let Some(delivery) = engine.delivery.clone() {
            tasks.push(supervisor.spawn(Loop::Outbox, move || {
                let stop = stop.clone();
                sharing(&delivery, |it| async move { it.run(stop, LAST_REPORTS).await })
            }));
        }
        let scheduling =
            supervisor.spawn(Loop::Scheduler, move || sharing(&scheduler, |it| async move { it.run().await }));
        tracing::info!(site = engine.online.client.site(), %ops, %api, "the daemon runs");
        service_manager::ready(engine.online.client.site());
        Ok(Self { engine, snapshots, ops, api, control, tasks, scheduling, drained })
    }

    /// Runs until `stop` is done or a loop is given up, then ends what runs, in order.
    ///
    /// # Errors
    ///
    /// Code 143 when something had to be broken off, 1 when a loop was given up, 78 when
    /// another host leads with other entity configs.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        let failed = tokio::select! {
            () = stop => None,
            failed = self.engine.supervisor.failed() => Some(Failure::internal(failed.to_string())),
            refused = leadership::refusal(self.engine.online.lease.clone()) => Some(refused),
        };
        let stopped = self.stop().await;
        failed.map_or(stopped, Err)
    }

    /// Ends what runs, in order.
    ///
    /// # Errors
    ///
    /// Code 143 when something had to be broken off.
    pub async fn stop(self) -> Result<(), Failure> {
        tracing::info!("stopping");
        service_manager::stopping();
        self.engine.shutdown.cancel();
        let ended = tokio::select! {
            _ = self.scheduling => self.drained.load(Ordering::Relaxed),
            () = interrupted() => false,
        };
        for task in self.tasks {
            // A task that panicked has said so; there is nothing left to undo.
            let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        self.control.remove(self.engine.online.state.directory());
        if ended { Ok(()) } else { Err(Failure::new(143, "stopped before every run had ended")) }
    }
}

/// Fails when another daemon follows the site for this directory. A job that
/// polls for itself holds the lead only for moments, so it is waited for.
async fn check_lead(config: &Config) -> Result<(), Failure> {
    let state = State::open(&config.data_dir).await?;
    let mut tries = 0;
    loop {
        match state.lead().await {
            Ok(_) => return Ok(()),
            Err(StateError::Locked { .. }) if tries < 30 => tries += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Shows what runs here in the metrics.
fn describe(engine: &Engine) {
    let config = &engine.online.config;
    let metrics = &engine.online.metrics;
    reload::show_config(engine, config);
    let backend = match &config.store {
        StoreSettings::Embedded { .. } => "embedded",
        StoreSettings::Elasticsearch(_) => "elasticsearch",
    };
    metrics.store.info.set_info(&[backend, "", ""]);
}

/// Fails when a parameter is declared by none of the pipelines.
pub fn check_overrides(pipelines: &[Arc<Pipeline>], overrides: &BTreeMap<String, String>) -> Result<(), Failure> {
    for name in overrides.keys() {
        let declares = |pipeline: &&Arc<Pipeline>| pipeline.params.iter().any(|(declared, _)| declared == name);
        if pipelines.iter().find(declares).is_none() {
            return Err(Failure::usage(format!("--set {name}: none of the pipelines has this parameter")));
        }
    }
    Ok(())
}

/// The continuous pipeline says how the event log is followed.
fn follow_settings(pipelines: &[Arc<Pipeline>]) -> sync::Settings {
    let mut settings = sync::Settings::default();
    let mut enabled = pipelines.iter().filter(|pipeline| pipeline.enabled);
    if let Some(continuous) = enabled.find_map(|pipeline| pipeline.continuous()) {
        settings.poll_min = continuous.interval;
        settings.poll_max = continuous.max_interval;
    }
    settings
}

/// Shows in the metrics how the store is, also while no status is asked for, and puts the
/// documents of each minute; ends when the store is lost to this process.
async fn measure((engine, snapshots): (Arc<Engine>, Arc<StatusReporter>), stop: CancellationToken) {
    for round in 1_u32.. {
        beat(MEASURE_BOUND).await;
        let Some(health) = stop.run_until_cancelled(snapshots.measure_store()).await else { break };
        snapshots.measure_state().await;
        if let Err(error) = snapshots.measure_freshness().await {
            tracing::warn!(%error, "how fresh the types are could not be kept");
        }
        if health.is_lost {
            // A loop that ends again and again is given up, and with it the process.
            return ending(health.message);
        }
        if round.is_multiple_of(ROUNDS_PER_MINUTE) {
            minute_reports::put(&engine, &snapshots.take().await).await;
        }
        if stop.run_until_cancelled(tokio::time::sleep(MEASURE_EVERY)).await.is_none() {
            break;
        }
    }
    // What the last, shorter minute has seen.
    minute_reports::put(&engine, &snapshots.take().await).await;
}

/// Starts the read proxy at the bound api listener.
async fn open(listener: ApiListener, engine: &Arc<Engine>) -> Result<[JoinHandle<()>; 2], Failure> {
    let following = engine.following.clone();
    let wake = move || {
        if let Some(follower) = following.follower() {
            follower.wake();
        }
    };
    let online = &engine.online;
    let wake: Wake = Arc::new(wake);
    let leader = match &online.config.store {
        StoreSettings::Embedded { .. } => Leader::Here(wake),
        StoreSettings::Elasticsearch(settings) => Leader::Leased(wake, Arc::new(leadership::channel(settings)?)),
    };
    let parts = Parts {
        replica: engine.replica.clone(),
        schema: online.schema.clone(),
        site: &online.config.shotgun.client(),
        settings: online.config.api.clone(),
        leader,
        access_log: Some(&online.config.data_dir),
        ledger: Arc::clone(&engine.ledger),
        differences: differences(online, engine.delivery.as_deref()),
    };
    let proxy = Proxy::new(parts).await.map_err(|error| Failure::internal(error.to_string()))?;
    let (router, stop, supervisor) = (proxy.router(), engine.shutdown.clone(), &engine.supervisor);
    let (proxy, until) = (Arc::new(proxy), stop.clone());
    let kept = supervisor.spawn(Loop::Freshness, move || {
        let until = until.clone();
        sharing(&proxy, |it| async move { it.run(until).await })
    });
    let (listener, metrics) = (Arc::new(listener), online.metrics.clone());
    let served = supervisor.spawn(Loop::ApiListener, move || {
        let (router, metrics, stop) = (router.clone(), metrics.clone(), stop.clone());
        sharing(&listener, |it| async move { it.serve(router, &metrics, stop).await })
    });
    Ok([kept, served])
}

/// Tells processes on other hosts how fresh the rows are, where they can see them.
fn lead(engine: &Arc<Engine>) -> Result<Option<JoinHandle<()>>, Failure> {
    let StoreSettings::Elasticsearch(settings) = &engine.online.config.store else { return Ok(None) };
    let channel = leadership::channel(settings)?;
    let publisher = Arc::new((channel, Arc::clone(engine)));
    Ok(Some(engine.supervisor.spawn(Loop::ClusterPublisher, move || {
        sharing(&publisher, |it| async move {
            let (channel, engine) = &*it;
            let wake = || engine.following.follower().iter().for_each(|follower| follower.wake());
            channel.lead(&engine.replica, &instance(), wake, engine.shutdown.clone()).await;
        })
    })))
}

pub(super) fn closed(error: ApiListenerError) -> Failure {
    match error {
        ApiListenerError::Bind { .. } => Failure::new(Failure::LOCKED, error.to_string()),
        ApiListenerError::Insecure(_) | ApiListenerError::Tls(_) => Failure::config(error.to_string()),
    }
}

/// Begins one life of a loop over something that outlives it.
pub(super) fn sharing<T, F: Future>(shared: &Arc<T>, body: impl FnOnce(Arc<T>) -> F) -> F {
    body(Arc::clone(shared))
}

fn router(
    engine: &Arc<Engine>,
    snapshots: &Arc<StatusReporter>,
    control: &Control,
    operator: Arc<Operator>,
) -> axum::Router {
    let events = snapshots.run_events().clone();
    let snapshots = Arc::clone(snapshots);
    let state = engine.online.state.clone();
    Ops::new(engine.online.metrics.clone(), control.clone(), move || {
        let snapshots = Arc::clone(&snapshots);
        async move { snapshots.take().await }
    })
    .with_access(engine.online.config.listen.ops_access.clone())
    .with_supervisor(engine.supervisor.clone())
    .with_runs(move |query| {
        let state = state.clone();
        async move { runs(&state, &query).await }
    })
    .with_run_logs(engine.online.config.data_dir.clone())
    .with_events(events)
    .with_operations(move |operation| sharing(&operator, |it| async move { it.perform(operation).await }))
    .router()
}

async fn runs(state: &State, query: &RunsQuery) -> Vec<RunReport> {
    let reports = found_runs(state, query).await.unwrap_or_else(|error| {
        tracing::error!(%error, "the history could not be read");
        Vec::new()
    });
    let wanted = reports.into_iter().filter(|report| query.status.is_none_or(|status| report.status == status));
    wanted.take(query.limit.unwrap_or(50)).collect()
}

async fn found_runs(state: &State, query: &RunsQuery) -> Result<Vec<RunReport>, StateError> {
    history::close_abandoned(state).await?;
    match &query.run_id {
        Some(run_id) => Ok(history::run(state, run_id).await?.into_iter().collect()),
        None => history::runs(state, 1000, query.pipeline.as_deref()).await,
    }
}
