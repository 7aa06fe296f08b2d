//! [`DryRun`]: what a run would do, without doing it.
//!
//! The real [`Runner`] goes through the steps, over jobs that find nothing: conditions are
//! evaluated and arguments rendered as they would be, nothing is asked and nothing written.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::jobs::LATEST;
use super::run_events::RunEvent;
use super::{HookTarget, JobSpec, Pipeline, ResolveContext, RunOrder, Runner, SampleMode};
use crate::report::StepResult;

/// Rows that one request of a site returns at most.
const PAGE: u64 = 500;

/// What a run would do.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The pipeline, or the job.
    pub pipeline: String,
    /// Its steps, in their order.
    pub steps: Vec<DryStep>,
    /// Jobs that would follow drift.
    pub on_drift: Vec<String>,
    /// Hooks by the key that they stand under, without addresses.
    pub hooks: BTreeMap<&'static str, Vec<String>>,
}

/// What a step would do.
#[derive(Debug, Serialize)]
pub struct DryStep {
    /// Its id.
    pub id: String,
    /// Its job.
    pub job: String,
    /// Why it would not run; `None` when it would.
    pub left_out: Option<String>,
    /// Its arguments, rendered; `null` when it does not run or has none.
    pub with: Value,
    /// The entity types that it works on.
    pub types: Vec<String>,
    /// Requests that it sends at least, if that is known before.
    pub least_requests: Option<u64>,
}

impl DryRun {
    /// Goes through a run. `configured` are all entity types.
    pub async fn of(
        pipeline: &Arc<Pipeline>,
        context: &ResolveContext,
        order: RunOrder,
        configured: &[String],
    ) -> DryRun {
        let (specs, arguments) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(Mutex::new(BTreeMap::new())));
        let (noted, rendered) = (Arc::clone(&specs), Arc::clone(&arguments));
        let execute = move |spec: JobSpec, job: super::JobContext| {
            noted.lock().insert(job.step, spec);
            async { Ok(StepResult::default()) }.boxed()
        };
        let observer = move |event: &RunEvent<'_>| {
            if let RunEvent::StepStarted { step, with, .. } = event {
                rendered.lock().insert((*step).to_owned(), (*with).clone());
            }
        };
        let runner = Runner::new(Arc::new(execute), context, "dry run", CancellationToken::new());
        // Nothing of it happens, so nothing is logged.
        let run = runner.with_observer(Arc::new(observer));
        let report = run.run(pipeline, order).with_subscriber(NoSubscriber::default()).await;
        let (specs, mut arguments) = (specs.lock(), arguments.lock());
        let is_step = |id: &str| pipeline.steps.iter().any(|step| step.id == id);
        // How an empty result is judged says nothing about a real one.
        let steps = report.steps.into_iter().filter(|step| is_step(&step.id)).map(|step| {
            let spec = specs.get(&step.id);
            let types = spec.map(|spec| types_of(spec, configured)).unwrap_or_default();
            DryStep {
                least_requests: spec.and_then(|spec| least_requests(spec, types.len() as u64)),
                left_out: step.reason.filter(|_| spec.is_none()),
                with: arguments.remove(&step.id).unwrap_or_default(),
                types,
                id: step.id,
                job: step.job,
            }
        });
        let mut hooks: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for (key, hook) in pipeline.hooks.all() {
            hooks.entry(key).or_default().push(match &hook.target {
                HookTarget::File(path) => format!("file:{path}"),
                other => other.label(),
            });
        }
        DryRun {
            pipeline: pipeline.name.clone(),
            steps: steps.collect(),
            on_drift: pipeline.on_drift.iter().map(|step| step.job.to_owned()).collect(),
            hooks,
        }
    }
}

/// The entity types that a job works on.
fn types_of(spec: &JobSpec, configured: &[String]) -> Vec<String> {
    let named = match spec {
        JobSpec::Import(args) => &args.types,
        JobSpec::Rebuild(args) => &args.types,
        JobSpec::ValidateCounts(args) => &args.types,
        JobSpec::ValidateData(args) => &args.types,
        JobSpec::GenerateEntityConfigs(args) => &args.types,
        JobSpec::Scan(args) => &args.types,
        JobSpec::Export(args) => &args.types,
        JobSpec::Sync(_) => return configured.to_vec(),
        JobSpec::Repair(_) | JobSpec::Purge(_) | JobSpec::PruneReports(_) | JobSpec::DeadLetters(_) => {
            return Vec::new();
        }
    };
    let mut types = if named.is_empty() { configured.to_vec() } else { named.clone() };
    if let JobSpec::ValidateData(args) = spec {
        types.retain(|name| !args.exclude_types.contains(name));
    }
    types
}

/// What a comparison asks even when nothing differs: a count per type, or the pages of its
/// entities. What other jobs ask depends on what they find.
fn least_requests(spec: &JobSpec, types: u64) -> Option<u64> {
    match spec {
        JobSpec::ValidateCounts(_) => Some(types),
        JobSpec::ValidateData(args) => {
            let of_type = match &args.sample {
                Some(sample) if sample.mode == SampleMode::RandomPages => u64::from(sample.pages),
                Some(sample) => u64::from(sample.rows).div_ceil(PAGE),
                None => u64::from(args.limit.unwrap_or(LATEST)).div_ceil(PAGE),
            };
            Some(types * of_type)
        }
        JobSpec::Purge(_) | JobSpec::PruneReports(_) | JobSpec::Export(_) => Some(0),
        _ => None,
    }
}
