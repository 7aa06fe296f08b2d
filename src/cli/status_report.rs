//! What the daemon says about itself, collected from its parts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::{Mutex, MutexGuard};

use super::engine::Engine;
use super::freshness_history::{FreshnessHistory, FreshnessLevel};
use super::instance::instance;
use super::leadership;
use super::repairs;
use crate::entity_config::TypeLayout;
use crate::pipeline::{Event, Pipeline, PlanState};
use crate::report::ledger::{self, Window};
use crate::report::{RunReport, Status, history};
use crate::server::details::{
    self, DriftCard, HeldDeletions, MAX_CARDS, MAX_DEAD, MAX_OUTCOMES, Outcome, Quarantine, SetApart,
};
use crate::server::{
    ImportProgress, LagPoint, PipelineStatus, RunEvents, RunSummary, Serving, StatusSnapshot, StoreStatus, SyncStatus,
    TypeState, TypeStatus,
};
use crate::state::{self, StateError, TypeRecord};
use crate::store::Health;
use crate::sync::{PollStatus, WHOLE};

/// Where the history of freshness is kept in the state.
const FRESHNESS: &str = "freshness/day";
/// Runs that the status shows.
const RUNS: usize = 30;
/// A request without an answer for so long means that the site is silent.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Points of the lag that the status shows.
const LAGS: usize = 300;

/// Collects snapshots.
pub struct StatusReporter {
    engine: Arc<Engine>,
    started_at: DateTime<Utc>,
    stall_after: Duration,
    noted: Mutex<Recorded>,
    freshness: Mutex<FreshnessHistory>,
    events: RunEvents,
}

/// What only passes by once.
struct Recorded {
    defined: Vec<Arc<Pipeline>>,
    pipelines: BTreeMap<String, PipelineStatus>,
    runs: VecDeque<RunSummary>,
    drift: BTreeMap<String, (f64, DateTime<Utc>)>,
    lags: VecDeque<LagPoint>,
    cards: VecDeque<DriftCard>,
    config_problem: Option<String>,
}

impl StatusReporter {
    /// Begins to collect.
    ///
    /// # Errors
    ///
    /// When the state cannot be read; a single run that cannot be is left out, and counted.
    pub async fn new(engine: Arc<Engine>, pipelines: &[Arc<Pipeline>], plan: &PlanState) -> Result<Self, StateError> {
        let named = pipelines.iter().map(|pipeline| (pipeline.name.clone(), first_status(pipeline)));
        let mut noted = Recorded {
            defined: pipelines.to_vec(),
            pipelines: named.collect(),
            runs: VecDeque::new(),
            drift: BTreeMap::new(),
            lags: VecDeque::new(),
            cards: VecDeque::new(),
            config_problem: None,
        };
        let state = &engine.online.state;
        for report in history::runs(state, RUNS, None).await?.iter().rev() {
            noted.ended(report);
        }
        for pipeline in pipelines {
            let runs = history::runs(state, MAX_OUTCOMES, Some(&pipeline.name)).await?;
            let ended = runs.iter().rev().filter(|report| report.finished_at.is_some());
            if let Some(status) = noted.pipelines.get_mut(&pipeline.name) {
                status.outcomes = ended.map(Outcome::from).collect();
            }
        }
        noted.planned(plan);
        let freshness = state.cursor(FRESHNESS).await?.unwrap_or_default();
        let mut enabled = pipelines.iter().filter(|pipeline| pipeline.enabled);
        let continuous = enabled.find_map(|pipeline| pipeline.continuous().cloned()).unwrap_or_default();
        Ok(Self {
            engine,
            started_at: Utc::now(),
            stall_after: continuous.stall_after,
            noted: Mutex::new(noted),
            freshness: Mutex::new(freshness),
            events: RunEvents::default(),
        })
    }

    /// Takes note of what happened in the loop.
    pub async fn note(&self, event: &Event) {
        let lag = if let Event::Beat(_) = event { self.lag(&self.poll()).await } else { None };
        let mut noted = self.noted();
        match event {
            Event::Started(report) => {
                noted.started(report);
                self.events.publish(RunSummary::from(&**report));
            }
            Event::Ended(report) => {
                noted.ended(report);
                self.events.publish(RunSummary::from(&**report));
            }
            Event::Planned(plan) => noted.planned(plan),
            Event::Beat(now) => {
                // An unknown lag is left out.
                noted.lags.extend(lag.map(|seconds| LagPoint { at: *now, seconds }));
                if noted.lags.len() > LAGS {
                    noted.lags.pop_front();
                }
            }
            Event::Paused { pipeline, paused } => {
                if let Some(status) = noted.pipelines.get_mut(pipeline) {
                    status.paused = *paused;
                }
            }
            Event::Reloaded(pipelines) => noted.reloaded(pipelines),
            Event::Skipped { .. } | Event::Queued { .. } | Event::ClockJump(_) => {}
        }
    }

    /// Returns where runs are published as they begin and end.
    pub fn run_events(&self) -> &RunEvents {
        &self.events
    }

    /// Returns the pipelines in use.
    pub fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        self.noted().defined.clone()
    }

    /// Takes note of how a reload went: what is wrong with the files, if anything.
    pub fn reloaded(&self, problem: Option<String>) {
        self.noted().config_problem = problem;
    }

    /// Returns a snapshot of now.
    pub async fn take(&self) -> StatusSnapshot {
        let now = Utc::now();
        let mut snapshot = StatusSnapshot::empty(now);
        snapshot.started_at = self.started_at;
        snapshot.instance = instance();
        snapshot.timezone = Some(self.engine.online.config.timezone.name().to_owned());
        self.engine.online.client.site().clone_into(&mut snapshot.site);
        snapshot.store = self.store().await;
        snapshot.loops = self.engine.supervisor.status();
        snapshot.waiting = leadership::waiting(&self.engine.replica);
        if let Err(error) = self.fill(&mut snapshot).await {
            snapshot.sync.last_error = Some(error.to_string());
        }
        {
            let noted = self.noted();
            snapshot.config_problem.clone_from(&noted.config_problem);
            snapshot.pipelines = noted.pipelines.values().cloned().collect();
            snapshot.runs = noted.runs.iter().rev().cloned().collect();
            snapshot.drift_cards = noted.cards.iter().rev().cloned().collect();
            snapshot.sync.lag_history = noted.lags.iter().copied().collect();
            let freshness = self.freshness.lock();
            snapshot.strips_until = Some(FreshnessHistory::strip_end(now));
            for ty in &mut snapshot.types {
                ty.strip = freshness.strip(&ty.entity_type, now);
                let drift = noted.drift.get(&ty.entity_type);
                ty.drift_ratio = drift.map(|(ratio, _)| *ratio);
                ty.validated_at = drift.map(|(_, at)| *at);
            }
        }
        snapshot.judge();
        snapshot
    }

    async fn fill(&self, snapshot: &mut StatusSnapshot) -> Result<(), StateError> {
        let state = &self.engine.online.state;
        let metrics = &self.engine.online.metrics;
        let stream = state.stream().await?;
        let poll = self.poll();
        let site_now = self.engine.replica.now();
        let age = |at: state::SiteTime| TimeDelta::from_std(site_now.since(at)).unwrap_or_default();
        let write_problem = match self.engine.following.follower().and_then(|follower| follower.write_problem()) {
            Some(problem) => Some(problem),
            None => state.lost_file().await,
        };
        snapshot.sync = SyncStatus {
            following: self.engine.following.follower().is_some(),
            last_poll_at: poll.last_success.map(|at| snapshot.now - age(at)),
            poll_failures: poll.failures,
            failing_since: poll.failing_since.map(|at| snapshot.now - age(at)),
            denied: poll.denied,
            write_problem,
            lag_seconds: self.lag(&poll).await,
            last_error: poll.error,
            lag_history: Vec::new(),
            stall_after_seconds: self.stall_after.as_secs(),
            event_id: stream.high_water_mark.map(|id| id.0),
            visible_event_id: state.visible_event().await?.map(|id| id.0),
            events_received: metrics.sync.events_received.get(),
            marks: state.mark_counts().await?.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
            gaps_open: state.gaps().await?.len() as u64,
            dead_letters: state
                .dead_counts()
                .await?
                .into_iter()
                .map(|(kind, n)| (kind.as_str().to_owned(), n))
                .collect(),
            epoch: stream.epoch,
        };
        let records = state.types().await?;
        for layout in &self.engine.replica.configured() {
            let record = records.iter().find(|record| record.entity_type == layout.entity_type);
            let mut ty = self.type_status(layout, record).await?;
            ty.lag_seconds = ty.lag_seconds.filter(|_| snapshot.sync.lag_seconds.is_some());
            snapshot.types.push(ty);
        }
        let api = &self.engine.online.config.api;
        snapshot.serving = Some(Serving {
            max_age_seconds: api.max_age.as_secs(),
            stale_if_error_seconds: api.stale_if_error.as_secs(),
        });
        let today = Window::today(snapshot.now, self.engine.online.config.timezone);
        snapshot.set_apart = self.set_apart().await?;
        snapshot.ledger = Some(ledger::ledger(&self.engine.ledger, state, today).await?);
        Ok(())
    }

    async fn type_status(&self, layout: &TypeLayout, record: Option<&TypeRecord>) -> Result<TypeStatus, StateError> {
        let state = &self.engine.online.state;
        let fresh = state.fresh_as_of_type(&layout.entity_type).await?;
        let newest = state.stream().await?.complete_as_of;
        let lag = fresh.zip(newest).map(|(fresh, newest)| newest.since(fresh).as_secs_f64());
        let import = record.and_then(|record| record.import.as_ref());
        let progress =
            import.map(|import| ImportProgress { done: import.rows, total: import.expected.unwrap_or(import.rows) });
        let breaker = record.and_then(|record| record.breaker_since);
        let held = breaker
            .map(|_| "deletions are held, too many entities vanished at once: `sgcache breaker show`".to_owned());
        let lacking = self.engine.replica.lacking().remove(&layout.entity_type).unwrap_or_default();
        Ok(TypeStatus {
            entity_type: layout.entity_type.to_string(),
            state: type_state(record, &lacking),
            rows: state.active_count(&layout.entity_type).await?,
            fresh_as_of: fresh.map(|fresh| fresh.timestamp().to_chrono()),
            lag_seconds: lag,
            import: progress,
            drift_ratio: None,
            validated_at: None,
            problem: held.or_else(|| problem_of(&lacking)),
            strip: String::new(),
        })
    }

    async fn set_apart(&self) -> Result<SetApart, StateError> {
        let state = &self.engine.online.state;
        let dead = state.dead(MAX_DEAD).await?.into_iter().map(repairs::shown);
        let status = state.replication_status().await?;
        let quarantined = status.types.iter().filter(|(_, known)| !known.quarantined.is_empty());
        let breakers = match status.types.values().any(|known| known.breaker) {
            true => state.open_breakers().await?,
            false => Vec::new(),
        };
        Ok(SetApart {
            dead: dead.collect(),
            quarantine: quarantined
                .map(|(ty, known)| Quarantine { entity_type: ty.to_string(), rows: known.quarantined.len() as u64 })
                .collect(),
            breakers: breakers
                .into_iter()
                .map(|one| HeldDeletions {
                    entity_type: one.entity_type.to_string(),
                    since: one.since.timestamp().to_chrono(),
                    held: one.held.len() as u64,
                    active: one.active,
                })
                .collect(),
        })
    }

    /// Measures whether the data directory can be written, for `/metrics`.
    pub async fn measure_state(&self) {
        let refused = self.engine.following.follower().is_some_and(|follower| !follower.is_state_writable());
        let writable = !refused && self.engine.online.state.lost_file().await.is_none();
        self.engine.online.metrics.sync.state_writable.set(f64::from(u8::from(writable)));
    }

    /// Takes note of how fresh every type is, and keeps it where that is news.
    pub async fn measure_freshness(&self) -> Result<(), StateError> {
        let state = &self.engine.online.state;
        let (status, now) = (state.replication_status().await?, self.engine.replica.now());
        let limits = &self.engine.online.config.api;
        let level = |layout: &TypeLayout| {
            let ty = &layout.entity_type;
            match status.types.get(ty).map(|known| known.state) {
                Some(state::TypeState::Live) => match status.fresh_as_of(ty).map(|fresh| now.since(fresh)) {
                    Some(age) if age <= limits.stale_if_error(ty) => FreshnessLevel::Age(age),
                    _ => FreshnessLevel::NotServed,
                },
                None | Some(state::TypeState::Absent | state::TypeState::Importing) => FreshnessLevel::Importing,
                Some(_) => FreshnessLevel::NotServed,
            }
        };
        let configured = self.engine.replica.configured();
        let levels: Vec<_> = configured.iter().map(|layout| (layout.entity_type.clone(), level(layout))).collect();
        let news = {
            let mut freshness = self.freshness.lock();
            freshness.retain(|name| levels.iter().any(|(ty, _)| ty.as_str() == name));
            let at = Utc::now();
            let news = levels.iter().filter(|(ty, level)| freshness.note(ty.as_str(), at, *level)).count();
            (news > 0).then(|| freshness.clone())
        };
        match news {
            Some(history) => state.keep(FRESHNESS, &history).await,
            None => Ok(()),
        }
    }

    async fn store(&self) -> StoreStatus {
        let health = self.measure_store().await;
        let config = &self.engine.online.config;
        let (kind, location) = match &config.store {
            crate::config::StoreSettings::Embedded { .. } => ("embedded", config.data_dir.display().to_string()),
            crate::config::StoreSettings::Elasticsearch(settings) => ("elasticsearch", settings.urls.join(", ")),
        };
        StoreStatus {
            kind: kind.to_owned(),
            location,
            version: String::new(),
            up: health.ok,
            problem: (!health.ok).then_some(health.message),
            write_problem: health.write_problem,
            size_bytes: health.bytes,
            reports_waiting: self.engine.reports_waiting().await,
        }
    }

    /// Asks the store how it is and shows it in the metrics.
    pub async fn measure_store(&self) -> Health {
        let health = self.engine.online.store.health().await;
        let metrics = &self.engine.online.metrics.store;
        metrics.up.set(if health.ok { 1.0 } else { 0.0 });
        if let Some(bytes) = health.bytes {
            metrics.size.set(bytes as f64);
        }
        if let Ok(stored) = self.engine.online.store.types().await {
            for layout in &self.engine.replica.configured() {
                let other =
                    stored.iter().any(|one| one.entity_type == layout.entity_type && one.layout_hash != layout.hash);
                let ty = layout.entity_type.as_str();
                metrics.schema_mismatch.set(&[ty], f64::from(u8::from(other)));
            }
        }
        health
    }

    /// Returns the age of the oldest event whose row is not stored yet; `None` while the
    /// site does not say what is newer.
    async fn lag(&self, poll: &PollStatus) -> Option<f64> {
        poll.last_success.filter(|_| poll.error.is_none())?;
        let oldest = self.engine.online.state.oldest_open_event().await.ok()?;
        Some(oldest.map_or(0.0, |created| self.engine.replica.now().since(created).as_secs_f64()))
    }

    /// Returns how polling goes. Silence of the site counts before a request has timed out.
    fn poll(&self) -> PollStatus {
        let mut poll = self.engine.following.follower().map(|follower| follower.poll_status()).unwrap_or_default();
        let silent = self.engine.online.client.health().open_since(SILENT_AFTER);
        if let (Some(since), None) = (silent, &poll.error) {
            let seconds = since.elapsed();
            poll.error = Some(format!("no answer for {:.0} s", seconds.as_secs_f64()));
            poll.failing_since = Some(self.engine.replica.now().before(seconds));
        }
        poll
    }

    fn noted(&self) -> MutexGuard<'_, Recorded> {
        // Plain data: a panic elsewhere cannot leave it torn.
        self.noted.lock()
    }
}

impl Recorded {
    fn started(&mut self, report: &RunReport) {
        if let Some(status) = self.pipelines.get_mut(&report.pipeline) {
            status.running = true;
            status.run_id = Some(report.run_id.clone());
        }
    }

    fn ended(&mut self, report: &RunReport) {
        if let Some(status) = self.pipelines.get_mut(&report.pipeline) {
            status.running = false;
            status.run_id = None;
            status.last_status = Some(report.status);
            status.last_finished_at = report.finished_at;
            status.outcomes.retain(|outcome| outcome.run_id != report.run_id);
            status.outcomes.push(Outcome::from(report));
            let surplus = status.outcomes.len().saturating_sub(MAX_OUTCOMES);
            status.outcomes.drain(..surplus);
        }
        let Some(finished_at) = report.finished_at else { return };
        for step in report.steps.iter().filter(|step| step.result.kind.is_some()) {
            for (name, ty) in step.result.by_type.iter().filter(|(_, ty)| ty.checked > 0) {
                let open = if step.status == Status::Repaired { 0.0 } else { ty.drift_ratio };
                self.drift.insert(name.clone(), (open, finished_at));
            }
        }
        for card in details::drift_cards(report, finished_at) {
            self.cards.retain(|known| (known.id, &known.entity_type) != (card.id, &card.entity_type));
            self.cards.push_back(card);
        }
        let surplus = self.cards.len().saturating_sub(MAX_CARDS);
        self.cards.drain(..surplus);
        self.runs.push_back(RunSummary::from(report));
        if self.runs.len() > RUNS {
            self.runs.pop_front();
        }
    }

    fn reloaded(&mut self, pipelines: &[Arc<Pipeline>]) {
        self.defined = pipelines.to_vec();
        let mut known = std::mem::take(&mut self.pipelines);
        for pipeline in pipelines {
            let fresh = first_status(pipeline);
            let status = match known.remove(&pipeline.name) {
                Some(old) => PipelineStatus {
                    running: old.running,
                    run_id: old.run_id,
                    paused: old.paused,
                    last_status: old.last_status,
                    last_finished_at: old.last_finished_at,
                    outcomes: old.outcomes,
                    ..fresh
                },
                None => fresh,
            };
            self.pipelines.insert(pipeline.name.clone(), status);
        }
    }

    fn planned(&mut self, plan: &PlanState) {
        for (name, entry) in &plan.pipelines {
            if let Some(status) = self.pipelines.get_mut(name) {
                status.next_run = entry.next_at;
            }
        }
    }
}

fn first_status(pipeline: &Arc<Pipeline>) -> PipelineStatus {
    PipelineStatus {
        name: pipeline.name.clone(),
        schedule: Some(pipeline.starts_short()),
        schedule_words: Some(pipeline.starts()),
        enabled: pipeline.enabled,
        timezone: pipeline.schedule().map(|schedule| schedule.timezone.name().to_owned()),
        next_run: pipeline.next_runs(Utc::now(), 1).first().copied(),
        ..PipelineStatus::default()
    }
}

fn type_state(record: Option<&TypeRecord>, lacking: &BTreeMap<String, String>) -> TypeState {
    let Some(record) = record else { return TypeState::New };
    match record.state {
        state::TypeState::Absent => TypeState::New,
        state::TypeState::Importing => TypeState::Importing,
        state::TypeState::Live if !lacking.is_empty() => TypeState::Degraded,
        state::TypeState::Live => TypeState::Live,
        state::TypeState::Degraded => TypeState::Unhealthy,
        state::TypeState::Untracked => TypeState::Untracked,
    }
}

/// Says which configured fields are not cached, and why.
fn problem_of(lacking: &BTreeMap<String, String>) -> Option<String> {
    let part = |(field, reason): (&String, &String)| match field.as_str() {
        WHOLE => reason.clone(),
        field => format!("`{field}` is not cached: {reason}"),
    };
    let parts: Vec<_> = lacking.iter().map(part).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
