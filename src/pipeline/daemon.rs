//! [`Daemon`]: beats in, runs out. The one loop of `sgcache pipelines run`.
//!
//! It owns the [`Planner`] and feeds it beats, starts what it says, supervises
//! continuous pipelines, and tells an observer everything that happened; the
//! observer keeps history, plan and metrics. Beats come over a channel: from a
//! [`super::Heartbeat`] in the daemon, from a test otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    Decision, Pauses, Pipeline, PlanState, Planner, RunOrder, Runner, SkipReason, StepChoice, SupervisorControl, find,
    supervise,
};
use crate::report::{RunReport, Status, Trigger};
use crate::supervisor::{beat, panic_text};

/// How long the loop may take for what one beat starts: it only decides, runs are tasks.
const ROUND_BOUND: Duration = Duration::from_secs(90);

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A run has started; its report as it is while it goes on.
    Started(Box<RunReport>),
    /// A run has ended.
    Ended(Box<RunReport>),
    /// An occurrence was left out.
    Skipped {
        /// The pipeline.
        pipeline: String,
        /// The occurrence.
        scheduled_for: DateTime<Utc>,
        /// Why.
        reason: SkipReason,
    },
    /// An occurrence waits.
    Queued {
        /// The pipeline.
        pipeline: String,
        /// The occurrence.
        scheduled_for: DateTime<Utc>,
        /// What it waits for.
        behind: String,
    },
    /// The clock jumped, by so many milliseconds.
    ClockJump(i64),
    /// A pipeline is paused from now on, or no longer.
    Paused {
        /// The pipeline.
        pipeline: String,
        /// Whether it is.
        paused: bool,
    },
    /// Other definitions apply from now on.
    Reloaded(Vec<Arc<Pipeline>>),
    /// A beat was handled: the scheduler is alive.
    Beat(DateTime<Utc>),
    /// The plan has changed; store it.
    Planned(PlanState),
}

/// Takes events. It must not block for long: the loop waits for it.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// Says who is paused; `None` when that cannot be found out now.
pub type PauseSource = Arc<dyn Fn() -> Option<Pauses> + Send + Sync>;

/// Claims a pipeline among the processes of the data directory; what it returns is
/// dropped when the run has ended.
pub type ClaimSource =
    Arc<dyn Fn(Arc<Pipeline>) -> BoxFuture<'static, Result<Box<dyn Send>, SkipReason>> + Send + Sync>;

/// Why a pipeline is not started on request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// There is none of this name.
    #[error("{0}")]
    Unknown(String),
    /// It cannot run now.
    #[error("{0}")]
    Refused(String),
    /// A parameter does not fit.
    #[error("{0}")]
    Params(String),
}

/// Something that is asked of a running daemon.
#[derive(Debug)]
pub enum Command {
    /// Start a pipeline now. Answered with the run id.
    Trigger {
        /// The pipeline.
        pipeline: String,
        /// `name -> value` as written; typed by the declarations.
        set: BTreeMap<String, String>,
        /// Who asks.
        trigger: Trigger,
        /// The step at which an ended run goes on, with the report of that run.
        resumed: Option<(String, Box<RunReport>)>,
        /// Takes the answer.
        answer: oneshot::Sender<Result<String, TriggerError>>,
    },
    /// Stop a run. Answered with whether there was one.
    Cancel {
        /// Its id.
        run_id: String,
        /// Takes the answer.
        answer: oneshot::Sender<bool>,
    },
    /// Take over other definitions; what runs goes on under the old ones.
    Reload {
        /// All pipelines from now on.
        pipelines: Vec<Arc<Pipeline>>,
    },
}

/// A continuous pipeline that is kept running.
struct Supervised {
    hash: String,
    stop: CancellationToken,
    paused: watch::Sender<bool>,
    task: Option<Id>,
}

/// The loop of `sgcache pipelines run`.
pub struct Daemon {
    runner: Runner,
    pipelines: Vec<Arc<Pipeline>>,
    planner: Planner,
    plan: PlanState,
    observer: Observer,
    claims: ClaimSource,
    overrides: BTreeMap<String, String>,
    /// The runs that go on, by id.
    running: BTreeMap<String, CancellationToken>,
    tasks: JoinSet<Option<RunReport>>,
    /// The runs of the tasks, as they began: what is known of one whose task panics.
    begun: HashMap<Id, RunReport>,
    continuous: BTreeMap<String, Supervised>,
    /// The runs that were stopped for a newer occurrence, by id, with that.
    replaced: BTreeMap<String, DateTime<Utc>>,
    /// The occurrences that wait, by pipeline, and what each waits for.
    queued: BTreeMap<String, (DateTime<Utc>, String)>,
    pauses: PauseSource,
    /// Who was paused at the last beat.
    paused: BTreeSet<String>,
    /// The last beat.
    now: DateTime<Utc>,
}

impl Daemon {
    /// Returns a daemon of these pipelines that continues a stored plan.
    /// `overrides` apply to every pipeline that declares such a parameter.
    pub fn new(
        runner: Runner,
        pipelines: Vec<Arc<Pipeline>>,
        stored: &PlanState,
        now: DateTime<Utc>,
        overrides: BTreeMap<String, String>,
        observer: Observer,
    ) -> Daemon {
        Daemon {
            planner: Planner::new(&pipelines, stored, now),
            plan: stored.clone(),
            runner,
            pipelines,
            observer,
            claims: Arc::new(|_| Box::pin(async { Ok(Box::new(()) as Box<dyn Send>) })),
            overrides,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            begun: HashMap::new(),
            continuous: BTreeMap::new(),
            replaced: BTreeMap::new(),
            queued: BTreeMap::new(),
            pauses: Arc::new(|| None),
            paused: BTreeSet::new(),
            now,
        }
    }

    /// Looks up who is paused with every beat.
    pub fn with_pauses(mut self, pauses: PauseSource) -> Daemon {
        self.pauses = pauses;
        self
    }

    /// Claims pipelines among all processes before it starts them.
    pub fn with_claims(mut self, claims: ClaimSource) -> Daemon {
        self.claims = claims;
        self
    }

    /// Runs until the runner is shut down, then waits for what still runs, at
    /// most `patience`. Returns whether everything ended by itself.
    pub async fn run(
        mut self,
        beats: &mut mpsc::Receiver<DateTime<Utc>>,
        commands: &mut mpsc::Receiver<Command>,
        patience: Duration,
    ) -> bool {
        self.take_pauses();
        self.start_continuous();
        self.emit_plan();
        let shutdown = self.runner.shutdown().clone();
        loop {
            beat(ROUND_BOUND).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(now) = beats.recv() => self.tick(now).await,
                Some(command) = commands.recv() => self.handle_command(command).await,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
        }
        self.drain(patience).await
    }

    fn start_continuous(&mut self) {
        let all = self.pipelines.clone();
        for pipeline in all.into_iter().filter(|p| p.enabled && p.continuous().is_some()) {
            if self.continuous.contains_key(&pipeline.name) {
                continue;
            }
            let params = match self.params_of(&pipeline, &self.overrides) {
                Ok(params) => params,
                Err(reason) => {
                    tracing::error!(pipeline = %pipeline.name, reason, "not started");
                    continue;
                }
            };
            let (paused, watched) = watch::channel(self.paused.contains(&pipeline.name));
            let stop = CancellationToken::new();
            let control = SupervisorControl { stop: stop.clone(), paused: watched };
            let supervised = Supervised { hash: pipeline.hash.clone(), stop, paused, task: None };
            self.continuous.insert(pipeline.name.clone(), supervised);
            let (runner, observer) = (self.runner.clone(), self.observer.clone());
            let name = pipeline.name.clone();
            let task = self.tasks.spawn(async move {
                let started = |report| observer(Event::Started(Box::new(report)));
                let ended = |report| observer(Event::Ended(Box::new(report)));
                supervise(&runner, &pipeline, &params, control, started, ended).await;
                None
            });
            if let Some(supervised) = self.continuous.get_mut(&name) {
                supervised.task = Some(task.id());
            }
        }
    }

    /// Learns who is paused, and lets continuous pipelines know.
    fn take_pauses(&mut self) {
        let Some(pauses) = (self.pauses)() else { return };
        let now = self.now;
        let is_paused = |pipeline: &&Arc<Pipeline>| pauses.of(&pipeline.name, now).is_some();
        let paused: BTreeSet<String> = self.pipelines.iter().filter(is_paused).map(|p| p.name.clone()).collect();
        for pipeline in paused.symmetric_difference(&self.paused) {
            let is_paused = paused.contains(pipeline);
            tracing::info!(pipeline, is_paused, "a pipeline was paused or resumed");
            self.emit(Event::Paused { pipeline: pipeline.clone(), paused: is_paused });
            if let Some(supervised) = self.continuous.get(pipeline) {
                supervised.paused.send_replace(is_paused);
            }
        }
        self.paused = paused;
        self.planner.set_pauses(pauses);
    }

    /// Takes over other definitions.
    fn reload(&mut self, pipelines: Vec<Arc<Pipeline>>) {
        let goes_on = |name: &str, supervised: &Supervised| {
            pipelines.iter().any(|pipeline| pipeline.name == name && pipeline.hash == supervised.hash)
        };
        self.continuous.retain(|name, supervised| {
            let keep = goes_on(name, supervised);
            if !keep {
                supervised.stop.cancel();
            }
            keep
        });
        self.planner.reload(&pipelines, self.now);
        self.pipelines = pipelines.clone();
        self.emit(Event::Reloaded(pipelines));
        self.paused.clear();
        self.take_pauses();
        self.start_continuous();
        self.emit_plan();
    }

    async fn tick(&mut self, now: DateTime<Utc>) {
        self.now = now;
        self.take_pauses();
        self.start_continuous();
        for decision in self.planner.tick(now) {
            self.follow(decision).await;
        }
        self.emit_plan();
        self.emit(Event::Beat(now));
    }

    async fn follow(&mut self, decision: Decision) {
        match decision {
            Decision::Start { pipeline, scheduled_for } => {
                if let Some(decision) = self.start_due(&pipeline, scheduled_for).await {
                    self.report(decision);
                }
            }
            other => self.report(other),
        }
    }

    fn report(&mut self, decision: Decision) {
        match decision {
            // Only the planner starts something, and that was followed.
            Decision::Start { .. } => {}
            Decision::Skip { pipeline, scheduled_for, reason } => {
                tracing::warn!(pipeline, %scheduled_for, %reason, "left out a run");
                self.emit(Event::Skipped { pipeline, scheduled_for, reason });
            }
            Decision::Queue { pipeline, scheduled_for, behind } => {
                tracing::info!(pipeline, %scheduled_for, behind, "a run waits");
                self.queued.insert(pipeline.clone(), (scheduled_for, behind.clone()));
                self.emit(Event::Queued { pipeline, scheduled_for, behind });
            }
            Decision::Replace { pipeline, scheduled_for } => self.replace(pipeline, scheduled_for),
            Decision::ClockJump { milliseconds } => {
                tracing::warn!(milliseconds, "the clock jumped, or this process stood still");
                self.emit(Event::ClockJump(milliseconds));
            }
        }
    }

    /// Stops the run of a pipeline, whose place a newer occurrence takes.
    fn replace(&mut self, pipeline: String, scheduled_for: DateTime<Utc>) {
        let runs = self.begun.values().filter(|run| run.pipeline == pipeline);
        for run_id in runs.map(|run| run.run_id.clone()) {
            tracing::info!(pipeline, run_id, %scheduled_for, "a run is stopped: a newer occurrence takes its place");
            self.running.get(&run_id).inspect(|token| token.cancel());
            self.replaced.insert(run_id, scheduled_for);
        }
        self.queued.insert(pipeline.clone(), (scheduled_for, pipeline.clone()));
        self.emit(Event::Queued { pipeline: pipeline.clone(), scheduled_for, behind: pipeline });
    }

    /// Starts what is due; returns what becomes of the occurrence when another
    /// process keeps it from starting.
    async fn start_due(&mut self, name: &str, scheduled_for: DateTime<Utc>) -> Option<Decision> {
        let Ok(pipeline) = find(&self.pipelines, name).cloned() else {
            self.planner.finished(name);
            return None;
        };
        let params = match self.params_of(&pipeline, &self.overrides) {
            Ok(params) => params,
            Err(reason) => {
                tracing::error!(pipeline = name, reason, "not started");
                self.planner.finished(name);
                return None;
            }
        };
        let claimed = (self.claims)(pipeline.clone()).await;
        match claimed {
            Ok(claim) => {
                let mut order = RunOrder::new(Trigger::Cron);
                order.scheduled_for = Some(scheduled_for);
                let waited = self.queued.remove(name).filter(|(queued, _)| *queued == scheduled_for);
                order.waited_for = waited.map(|(_, behind)| behind);
                order.params = params;
                self.start(pipeline, order, claim);
                None
            }
            Err(reason) => self.planner.put_back(name, scheduled_for, reason),
        }
    }

    async fn handle_command(&mut self, command: Command) {
        // The caller may have ended meanwhile; the command counts all the same.
        match command {
            Command::Trigger { pipeline, set, trigger, resumed, answer } => {
                let _ = answer.send(self.trigger(&pipeline, &set, trigger, resumed).await);
            }
            Command::Reload { pipelines } => self.reload(pipelines),
            Command::Cancel { run_id, answer } => {
                let token = self.running.get(&run_id);
                token.inspect(|token| token.cancel());
                let _ = answer.send(token.is_some());
            }
        }
    }

    async fn trigger(
        &mut self,
        name: &str,
        set: &BTreeMap<String, String>,
        trigger: Trigger,
        resumed: Option<(String, Box<RunReport>)>,
    ) -> Result<String, TriggerError> {
        let pipeline = find(&self.pipelines, name).map_err(TriggerError::Unknown)?.clone();
        if !pipeline.enabled {
            let remedy = "set `enabled: true` in its file, or run it with `sgcache pipelines run --once`";
            return Err(TriggerError::Refused(format!("`{name}` is disabled: {remedy}")));
        }
        if pipeline.continuous().is_some() {
            return Err(TriggerError::Refused(format!("`{name}` runs all the time")));
        }
        let refused = |reason: SkipReason| TriggerError::Refused(format!("`{name}` cannot start: {reason}"));
        let mut order = RunOrder::new(trigger);
        let mut overrides = pipeline.params.declared(&self.overrides);
        overrides.extend(set.clone());
        order.params = resolve_params(&pipeline, &overrides).map_err(TriggerError::Params)?;
        if let Some((step, report)) = resumed {
            order.steps = StepChoice::resuming(&pipeline, &step, *report).map_err(TriggerError::Params)?;
        }
        self.planner.begin(&pipeline).map_err(refused)?;
        let claimed = (self.claims)(pipeline.clone()).await;
        let claim = claimed.map_err(|reason| {
            self.planner.finished(name);
            refused(reason)
        })?;
        let run_id = order.run_id.clone();
        self.start(pipeline, order, claim);
        Ok(run_id)
    }

    fn start(&mut self, pipeline: Arc<Pipeline>, order: RunOrder, claim: Box<dyn Send>) {
        self.running.insert(order.run_id.clone(), order.cancel.clone());
        let begun = self.runner.begin(&pipeline, &order);
        self.emit(Event::Started(Box::new(begun.clone())));
        let runner = self.runner.clone();
        let task = self.tasks.spawn(async move {
            let report = runner.run(&pipeline, order).await;
            drop(claim);
            Some(report)
        });
        self.begun.insert(task.id(), begun);
    }

    fn ended(&mut self, ended: Result<(Id, Option<RunReport>), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let begun = self.begun.remove(&id);
        let report = match ended {
            Ok((_, report)) => report,
            Err(error) => self.broken(id, begun, error),
        };
        let Some(mut report) = report else { return };
        let replaced_by = self.replaced.remove(&report.run_id).filter(|_| report.status == Status::Cancelled);
        if let Some(due) = replaced_by {
            report.reason = Some(format!("replaced by the occurrence of {}", due.format("%Y-%m-%d %H:%M:%S UTC")));
        }
        self.planner.finished(&report.pipeline);
        self.running.remove(&report.run_id);
        self.emit(Event::Ended(Box::new(report)));
    }

    /// Returns the report of a run whose task panicked: hooks and reports run there,
    /// jobs in tasks of their own. A continuous pipeline is started again by the next
    /// beat.
    fn broken(&mut self, id: Id, begun: Option<RunReport>, error: JoinError) -> Option<RunReport> {
        let words = error.try_into_panic().map_or_else(|error| error.to_string(), |panic| panic_text(&*panic));
        tracing::error!(reason = words, "run aborted");
        self.continuous.retain(|_, supervised| supervised.task != Some(id));
        begun.map(|report| RunReport {
            status: Status::Error,
            finished_at: Some(Utc::now()),
            reason: Some(format!("the run panicked: {words}")),
            ..report
        })
    }

    async fn drain(&mut self, patience: Duration) -> bool {
        let drained = tokio::time::timeout(patience, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
        });
        let all = drained.await.is_ok();
        self.tasks.shutdown().await;
        self.emit_plan();
        all
    }

    fn params_of(
        &self,
        pipeline: &Pipeline,
        overrides: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Value>, String> {
        resolve_params(pipeline, &pipeline.params.declared(overrides))
    }

    fn emit(&self, event: Event) {
        (self.observer)(event);
    }

    fn emit_plan(&mut self) {
        let plan = self.planner.state();
        if plan != self.plan {
            self.plan = plan.clone();
            self.emit(Event::Planned(plan));
        }
    }
}

fn resolve_params(
    pipeline: &Pipeline,
    overrides: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Value>, String> {
    pipeline.params.resolve(overrides).map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        all.join("; ")
    })
}
