//! [`Jobs`]: what each job does, with the site, the store and the state at hand.
//!
//! The only place where pipelines meet sync and validation. A job of a schedule
//! and one of the command line come through here alike.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    ErrorClass, Execute, FilterOperator, GenerateArgs, GenerateMode, JobContext, JobError, JobSpec, PruneReportsArgs,
    PurgeArgs, RepairArgs, SampleMode, ValidateDataArgs,
};
use crate::entity::{EntityType, Timestamp};
use crate::entity_config::{Exclusions, TypeLayout, derived_fields};
use crate::entity_config_files::refresh;
use crate::filter::{Page, RawFilter, RawSort};
use crate::report::{Delivery, Mismatch, StepResult, history, run_log};
use crate::schema::Schema;
use crate::shotgun::{self, Purpose};
use crate::state::{StateError, TypeState};
use crate::store::{PurgeScope, StoreError, StoreErrorKind};
use crate::supervisor::{LoopFailed, Supervisor};
use crate::sync::{ClusterLease, Follower, JobLease, Progress, Replica, SyncError};
use crate::validate::{DataCheck, Sample, Selection, SoFar, ValidateError, Validator};

/// Entities of a type that `validateData` compares when nothing is said.
pub(super) const LATEST: u32 = 500;
/// How often the lead is asked for while a job of this process has it.
const LOOK_FOR_LEAD_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for a poll and for the refetches that it caused.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Everything that jobs work with.
pub struct Jobs {
    /// The site, the store and the state as one.
    pub replica: Replica,
    /// The follower, while this process follows the site.
    pub following: Following,
    /// Keeps its loops running.
    pub supervisor: Supervisor,
    /// Compares with the site.
    pub validator: Validator,
    /// The schema of the site.
    pub schema: Arc<Schema>,
    /// What generated entity configs leave out.
    pub exclusions: Exclusions,
    /// Where entity configs are.
    pub entity_config_dir: PathBuf,
    /// The directory of `config.yaml`; paths in pipelines start there.
    pub directory: PathBuf,
    /// How many runs of a pipeline are kept, whatever their age.
    pub keep_runs: usize,
    /// How long runs are kept.
    pub keep_runs_for: Duration,
    /// How long runs that ended badly are kept.
    pub keep_failed_runs_for: Duration,
    /// The way of reports to a cluster, where one is configured.
    pub reports: Option<Arc<Delivery>>,
    /// Receives the progress of a rebuild.
    pub progress: Option<Progress>,
}

/// Where the follower of this process can be found while it works.
#[derive(Clone, Default)]
pub struct Following(Arc<Mutex<Option<Arc<Follower>>>>);

impl Following {
    /// Returns the follower, if this process follows the site now.
    pub fn follower(&self) -> Option<Arc<Follower>> {
        self.0.lock().clone()
    }

    /// Shows the follower to others until the returned guard is dropped.
    fn set(&self, follower: &Arc<Follower>) -> FollowingGuard<'_> {
        *self.0.lock() = Some(Arc::clone(follower));
        FollowingGuard(self)
    }
}

/// Ends the time in which the follower can be found.
struct FollowingGuard<'a>(&'a Following);

impl Drop for FollowingGuard<'_> {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

impl Jobs {
    /// Returns the function that a runner calls.
    pub fn execute(self: &Arc<Self>) -> Execute {
        let jobs = Arc::clone(self);
        Arc::new(move |spec, context| {
            let jobs = Arc::clone(&jobs);
            Box::pin(async move { jobs.run(spec, context).await })
        })
    }

    async fn run(&self, spec: JobSpec, context: JobContext) -> Result<StepResult, JobError> {
        // Following gives up no batch half done, so it ends by itself.
        if matches!(&spec, JobSpec::Sync(args) if !args.once) {
            return self.follow(&context).await;
        }
        // All other work may be dropped between any two requests, pages and writes,
        // as a crash would do it: nothing is lost, and what was found is reported.
        let so_far = context.so_far.clone();
        let work = async {
            let _lease = self.lease_for(&spec).await?;
            self.work(spec, &context, &so_far).await
        };
        let outcome = context.cancel.run_until_cancelled(work).await;
        self.release_lease().await;
        outcome.unwrap_or_else(|| Err(JobError::stopped(so_far.take())))
    }

    /// Takes or joins the lease of a shared store for a job that works on it. Jobs that
    /// compare poll the site, too, so they write as well.
    async fn lease_for(&self, spec: &JobSpec) -> Result<JobLease, JobError> {
        match spec {
            JobSpec::GenerateEntityConfigs(_) | JobSpec::PruneReports(_) | JobSpec::Export(_) => {
                Ok(JobLease::default())
            }
            _ => Ok(self.replica.lease_for_job().await?),
        }
    }

    /// Gives the lease of a shared store back, unless the site is still followed here.
    async fn release_lease(&self) {
        if let Some(lease) = self.replica.lease() {
            lease.release().await;
        }
    }

    async fn work(&self, spec: JobSpec, context: &JobContext, so_far: &SoFar) -> Result<StepResult, JobError> {
        match spec {
            JobSpec::Sync(_) => self.catch_up(&self.replica.configured(), so_far).await,
            JobSpec::Import(args) => self.catch_up(&self.types(&args.types)?, so_far).await,
            JobSpec::Rebuild(args) => self.rebuild(&self.types(&args.types)?, so_far).await,
            JobSpec::ValidateCounts(args) => {
                let validator = self.validator.limited(args.settle, args.locate).noting(so_far);
                Ok(validator.counts(&self.types(&args.types)?, args.repair).await?)
            }
            JobSpec::ValidateData(args) => self.validate_data(args, context, so_far).await,
            JobSpec::Repair(args) => self.repair(&args, context).await,
            JobSpec::GenerateEntityConfigs(args) => self.generate(&args),
            JobSpec::Purge(args) => self.purge(&args).await,
            JobSpec::PruneReports(args) => self.prune_reports(&args).await,
            JobSpec::Scan(args) => self.scan(&args, so_far).await,
            JobSpec::DeadLetters(args) => self.dead_letters(&args).await,
            JobSpec::Export(args) => self.export(&args, so_far).await,
        }
    }

    /// Finds configured types by name; none named means all.
    pub(super) fn types(&self, names: &[String]) -> Result<Vec<TypeLayout>, JobError> {
        if names.is_empty() {
            return Ok(self.replica.configured());
        }
        names.iter().map(|name| self.layout(name)).collect()
    }

    fn layout(&self, name: &str) -> Result<TypeLayout, JobError> {
        let layouts = self.replica.configured();
        let found = layouts.iter().find(|layout| layout.entity_type == *name);
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = layouts.iter().map(|layout| layout.entity_type.as_str()).collect();
            let hint = crate::yaml::did_you_mean(name, &known).map(|hint| format!("; {hint}")).unwrap_or_default();
            invalid(format!("`{name}` is not a configured entity type{hint}"))
        })
    }

    /// Follows the site until it is cancelled. The follower is dropped however this
    /// ends, also by a panic, so that the next one can take the lead.
    async fn follow(&self, context: &JobContext) -> Result<StepResult, JobError> {
        while let Some(follower) = self.take_lead(context).await? {
            let ended = self.follow_while_leading(Arc::new(follower), &context.cancel).await;
            self.release_lease().await;
            ended.map_err(|failed| JobError::new(ErrorClass::Internal, failed.to_string()))?;
        }
        Ok(StepResult::default())
    }

    /// Follows until it is cancelled, or until the lease of a shared store is lost.
    async fn follow_while_leading(
        &self,
        follower: Arc<Follower>,
        cancel: &CancellationToken,
    ) -> Result<(), LoopFailed> {
        let _visible = self.following.set(&follower);
        let stop = cancel.child_token();
        let run = follower.run(&self.supervisor, stop.clone());
        tokio::pin!(run);
        tokio::select! {
            ended = &mut run => ended,
            () = follower.lease_lost() => {
                stop.cancel();
                run.await
            }
        }
    }

    /// Takes the lead. A job of this process may have it, because it polls for itself
    /// until the site is followed, or another host, or the cluster may be away: then this
    /// waits. `None` when it is to stop instead.
    async fn take_lead(&self, context: &JobContext) -> Result<Option<Follower>, JobError> {
        let mut is_announced = false;
        while !context.cancel.is_cancelled() {
            let taken = context.cancel.run_until_cancelled(Follower::take_lead(self.replica.clone(), None));
            let pause = match taken.await {
                None => break,
                Some(Ok(follower)) => return Ok(Some(follower)),
                Some(Err(SyncError::State(StateError::Locked { .. }))) if self.replica.state().is_led_here().await => {
                    LOOK_FOR_LEAD_EVERY
                }
                Some(Err(error @ (SyncError::NotLeader(_) | SyncError::Cluster(_)))) => {
                    if !is_announced {
                        is_announced = true;
                        tracing::warn!(reason = %error, "this process waits to lead");
                    }
                    self.replica.lease().map_or(LOOK_FOR_LEAD_EVERY, ClusterLease::look_interval)
                }
                Some(Err(error)) => return Err(error.into()),
            };
            context.cancel.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(None)
    }

    /// Imports what of these types is not complete and applies what the event log
    /// holds; where a daemon does that already, waits for it.
    async fn catch_up(&self, layouts: &[TypeLayout], so_far: &SoFar) -> Result<StepResult, JobError> {
        let (before, asked) = (self.rows(layouts).await?, self.import_requests());
        let note = async || -> Result<(), JobError> {
            so_far.set(self.written_since(&before, asked).await?);
            Ok(())
        };
        match Follower::start_up(self.replica.clone(), None).await {
            Ok(follower) => {
                for layout in layouts {
                    if self.replica.pending_imports().await?.contains(&layout.entity_type) {
                        self.replica.import(&layout.entity_type, None).await?;
                        note().await?;
                    }
                }
                while !self.all_live(layouts).await? {
                    follower.step(self.replica.now()).await?;
                    note().await?;
                }
            }
            Err(SyncError::State(StateError::Locked { .. })) => {
                while !self.all_live(layouts).await? {
                    self.replica.advance(PATIENCE).await?;
                    note().await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.replica.advance(PATIENCE).await?;
        self.written_since(&before, asked).await
    }

    /// Returns the rows that types have more than before, and the requests since.
    async fn written_since(&self, before: &[(EntityType, u64)], asked: u64) -> Result<StepResult, JobError> {
        let mut result = StepResult::default();
        for (entity_type, known) in before {
            let rows = self.replica.state().active_count(entity_type).await?;
            result.by_type.entry(entity_type.to_string()).or_default().written = rows.saturating_sub(*known);
        }
        result.sum_up();
        result.requests = self.import_requests() - asked;
        Ok(result)
    }

    /// Returns how many requests imports of this process have made so far.
    fn import_requests(&self) -> u64 {
        self.replica.client().requests(Purpose::Import)
    }

    async fn rows(&self, layouts: &[TypeLayout]) -> Result<Vec<(EntityType, u64)>, JobError> {
        let mut rows = Vec::new();
        for layout in layouts {
            let count = self.replica.state().active_count(&layout.entity_type).await?;
            rows.push((layout.entity_type.clone(), count));
        }
        Ok(rows)
    }

    async fn all_live(&self, layouts: &[TypeLayout]) -> Result<bool, JobError> {
        let records = self.replica.state().types().await?;
        let live = |layout: &TypeLayout| {
            let found = records.iter().find(|record| record.entity_type == layout.entity_type);
            found.is_some_and(|record| record.state == TypeState::Live && record.layout_hash == layout.hash)
        };
        Ok(layouts.iter().all(live))
    }

    /// Reads every entity of live types again, in place.
    async fn rebuild(&self, layouts: &[TypeLayout], so_far: &SoFar) -> Result<StepResult, JobError> {
        let mut result = StepResult::default();
        let asked = self.import_requests();
        so_far.expect(layouts.len());
        for layout in layouts {
            let record = self.replica.state().type_record(&layout.entity_type).await?;
            if !record.is_some_and(|record| matches!(record.state, TypeState::Live | TypeState::Degraded)) {
                let ty = &layout.entity_type;
                return Err(invalid(format!(
                    "{ty} is not imported yet: `sgcache pipelines run` or `sgcache job import` does that"
                )));
            }
            let imported = self.replica.rebuild(&layout.entity_type, self.progress.clone()).await?;
            let ty = result.by_type.entry(layout.entity_type.to_string()).or_default();
            ty.written = imported.rows;
            result.sum_up();
            result.requests = self.import_requests() - asked;
            so_far.set(result.clone());
        }
        self.replica.advance(PATIENCE).await?;
        result.sum_up();
        result.requests = self.import_requests() - asked;
        Ok(result)
    }

    async fn validate_data(
        &self,
        args: ValidateDataArgs,
        context: &JobContext,
        so_far: &SoFar,
    ) -> Result<StepResult, JobError> {
        let mut layouts = self.types(&args.types)?;
        layouts.retain(|layout| !args.exclude_types.iter().any(|excluded| layout.entity_type == *excluded.as_str()));
        let check = DataCheck {
            sample: sample(&args, context)?,
            fields: (!args.fields.is_empty()).then(|| args.fields.clone()),
            ignored: args.ignore_fields.clone(),
            repair: args.repair,
            schema: Arc::clone(&self.schema),
        };
        let validator = self.validator.limited(args.settle, args.locate).noting(so_far);
        Ok(validator.data(&layouts, &check).await?)
    }

    async fn repair(&self, args: &RepairArgs, context: &JobContext) -> Result<StepResult, JobError> {
        let steps = context.results.iter().filter(|(step, _)| args.from.is_empty() || args.from.contains(step));
        let mut found: Vec<_> = steps.flat_map(|(_, result)| result.mismatches.iter().cloned()).collect();
        found.extend(args.entities.iter().map(Mismatch::suspected));
        if let Some(run_id) = &args.run {
            let run = history::run(self.replica.state(), run_id).await?;
            let run = run.ok_or_else(|| invalid(format!("there is no run `{run_id}` in the history")))?;
            found.extend(run.open_mismatches().cloned());
        }
        let most = usize::try_from(args.max_rows).unwrap_or(usize::MAX);
        Ok(self.validator.repair_found(&self.replica.configured(), &found, most, args.verify).await?)
    }

    fn generate(&self, args: &GenerateArgs) -> Result<StepResult, JobError> {
        let named: Vec<EntityType> = args.types.iter().map(EntityType::new).collect();
        let types = if named.is_empty() {
            self.replica.configured().into_iter().map(|l| l.entity_type).collect()
        } else {
            named
        };
        let write = args.mode == GenerateMode::Write;
        let mut result = StepResult::default();
        for entity_type in &types {
            let change = refresh(&self.entity_config_dir, &self.schema, entity_type, &self.exclusions, write)
                .map_err(|error| invalid(error.to_string()))?;
            result.outputs.insert(entity_type.to_string(), Value::from(change.to_string()));
        }
        let derived: Vec<String> = types.iter().flat_map(|ty| derived_fields(&self.schema, ty)).collect();
        if !derived.is_empty() {
            result.outputs.insert("left out, derived by the site".into(), derived.join(", ").into());
        }
        Ok(result)
    }

    async fn purge(&self, args: &PurgeArgs) -> Result<StepResult, JobError> {
        let keep = args.older_than;
        let now = self.replica.now();
        let older_than = now.before(keep).timestamp();
        let purged = self.replica.store().purge(&PurgeScope::Tombstones { older_than }).await?;
        self.replica.state().purge_tombstones(now, keep).await?;
        let mut result = StepResult::default();
        result.outputs.insert("purged".into(), purged.into());
        Ok(result)
    }

    async fn prune_reports(&self, args: &PruneReportsArgs) -> Result<StepResult, JobError> {
        let keep = args.keep_days.map_or(self.keep_runs_for, |days| Duration::from_secs(u64::from(days) * 86_400));
        let keep_runs = args.keep_runs.map_or(self.keep_runs, |runs| runs as usize);
        let now = Timestamp::from(chrono::Utc::now()).0;
        let before = |keep: Duration| Timestamp(now.saturating_sub(i64::try_from(keep.as_secs()).unwrap_or(i64::MAX)));
        let failed = before(keep.max(self.keep_failed_runs_for));
        let pruned = self.replica.state().prune_runs(before(keep), failed, keep_runs).await?;
        let mut result = StepResult::default();
        result.outputs.insert("pruned".into(), pruned.into());
        let logs = run_log::prune(self.replica.state(), before(keep)).await?;
        result.outputs.insert("pruned_logs".into(), logs.into());
        if let Some(reports) = &self.reports {
            // Whole indices hold runs of all kinds, so what is kept longest decides.
            let cutoff = chrono::DateTime::from_timestamp(failed.0, 0).unwrap_or_default();
            // A cluster that is away is an alert of its own, and the next run finds these again.
            let removed = reports.prune(cutoff).await.inspect_err(|error| {
                tracing::warn!(%error, "old reports stay in the cluster until the next run");
            });
            result.outputs.insert("removed_indices".into(), removed.ok().map(|removed| removed.len()).into());
        }
        Ok(result)
    }
}

fn sample(args: &ValidateDataArgs, context: &JobContext) -> Result<Sample, JobError> {
    let any = args.filter_operator == FilterOperator::Any;
    let written = |what: &str, error: crate::filter::SyntaxError| invalid(format!("{what}: {error}"));
    let filter = match &args.filters {
        Value::Null => RawFilter::everything(),
        Value::String(text) => RawFilter::parse(text, any).map_err(|error| written("filters", error))?,
        lists => RawFilter::from_lists(lists, any).map_err(|error| written("filters", error))?,
    };
    let order = match &args.order {
        Value::Null => Selection::latest(LATEST).order,
        Value::String(text) => crate::filter::parse_order(text).map_err(|error| written("order", error))?,
        list => RawSort::list(list).map_err(|error| written("order", error))?,
    };
    let page = Page { size: args.limit.unwrap_or(LATEST), number: args.page.unwrap_or(1) };
    let query = |page| Sample::Query(Selection { filter: filter.clone(), order: order.clone(), page });
    Ok(match &args.sample {
        None => query(page),
        Some(sample) => match sample.mode {
            SampleMode::Latest => query(Page::first(sample.rows)),
            SampleMode::Rotate => {
                Sample::Rotate { rows: sample.rows, name: format!("{}/{}", context.pipeline.name, context.step) }
            }
            SampleMode::RandomPages => Sample::RandomPages {
                pages: sample.pages,
                page_size: sample.page_size,
                seed: sample.seed_number().unwrap_or_else(rand::random),
            },
        },
    })
}

pub(super) fn invalid(message: impl Into<String>) -> JobError {
    JobError::new(ErrorClass::Invalid, message)
}

fn site_class(error: &shotgun::Error) -> ErrorClass {
    use shotgun::ErrorKind;
    match error.kind() {
        _ if error.is_forbidden() => ErrorClass::Denied,
        ErrorKind::RateLimited => ErrorClass::RateLimited,
        ErrorKind::Timeout => ErrorClass::Timeout,
        ErrorKind::Denied => ErrorClass::Denied,
        ErrorKind::Fault | ErrorKind::Rejected | ErrorKind::Settings | ErrorKind::Tls => ErrorClass::Invalid,
        ErrorKind::Unreachable | ErrorKind::Server | ErrorKind::Malformed => ErrorClass::Unavailable,
    }
}

fn store_class(kind: StoreErrorKind) -> ErrorClass {
    match kind {
        StoreErrorKind::Unavailable | StoreErrorKind::Locked | StoreErrorKind::NotLeader => ErrorClass::Unavailable,
        StoreErrorKind::Unsupported | StoreErrorKind::UnknownType => ErrorClass::Invalid,
        _ => ErrorClass::Store,
    }
}

fn state_class(error: &StateError) -> ErrorClass {
    if error.is_locked() { ErrorClass::Unavailable } else { ErrorClass::Store }
}

impl From<StateError> for JobError {
    fn from(error: StateError) -> Self {
        Self::new(state_class(&error), error.to_string())
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::new(store_class(error.kind()), error.to_string())
    }
}

impl From<SyncError> for JobError {
    fn from(error: SyncError) -> Self {
        let class = match &error {
            SyncError::Site(error) => site_class(error),
            SyncError::Store(error) => store_class(error.kind()),
            SyncError::State(error) => state_class(error),
            SyncError::NotLeader(_) | SyncError::Cluster(_) => ErrorClass::Unavailable,
            SyncError::EmptyPage { .. } | SyncError::Unconfirmed(_) | SyncError::History(_) => ErrorClass::Unavailable,
            SyncError::TimedOut(_) => ErrorClass::Timeout,
            _ => ErrorClass::Internal,
        };
        Self::new(class, error.to_string())
    }
}

impl From<ValidateError> for JobError {
    fn from(error: ValidateError) -> Self {
        match error {
            ValidateError::Site(error) => Self::new(site_class(&error), error.to_string()),
            ValidateError::Store(error) => error.into(),
            ValidateError::State(error) => error.into(),
            ValidateError::Sync(error) => error.into(),
            error @ (ValidateError::Selection(_) | ValidateError::NotImported) => invalid(error.to_string()),
        }
    }
}
