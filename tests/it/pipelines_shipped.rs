//! The pipelines and the `config.yaml` that are shipped, as a user would load
//! them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use sgcache::config::Config;
use sgcache::pipeline::{
    Execute, JobSpec, Pipeline, ResolveContext, RunOrder, Runner, SampleMode, Site, load_directory,
};
use sgcache::report::{Status, StepResult, Trigger};
use sgcache::yaml::Templates;
use tokio_util::sync::CancellationToken;

fn shipped() -> (Config, ResolveContext, Vec<Arc<Pipeline>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let environment = BTreeMap::new();
    let (config, warnings) = Config::load(&root.join("config.yaml"), &environment)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert!(warnings.is_empty(), "{}", warnings.render(false));
    let resolve_context = ResolveContext {
        timezone: config.timezone,
        defaults: config.pipelines.defaults.clone(),
        site: Site { name: config.shotgun.name().to_owned(), url: config.shotgun.site.clone() },
        blackouts: Default::default(),
        notifiers: Default::default(),
        entities: None,
        templates: Templates::new(&environment),
    };
    let (pipelines, warnings) = load_directory(&config.pipelines_dir(), &resolve_context)
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert!(warnings.is_empty(), "{}", warnings.render(false));
    (config, resolve_context, pipelines)
}

/// Runs a shipped pipeline with its defaults; every job finds nothing.
async fn run(name: &str) -> (Vec<JobSpec>, Vec<(String, Status)>) {
    let (_, resolve_context, pipelines) = shipped();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let jobs = seen.clone();
    let execute: Execute = Arc::new(move |spec, _| {
        jobs.lock().expect("unpoisoned").push(spec);
        async { Ok(StepResult::default()) }.boxed()
    });
    let runner = Runner::new(execute, &resolve_context, "test", CancellationToken::new());
    let pipeline = sgcache::pipeline::find(&pipelines, name).expect("a shipped pipeline");
    let mut order = RunOrder::new(Trigger::Cli);
    order.params = pipeline.params.resolve(&BTreeMap::new()).expect("defaults");
    let report = runner.run(pipeline, order).await;
    let steps = report.steps.into_iter().map(|step| (step.id, step.status)).collect();
    let jobs = seen.lock().expect("unpoisoned").clone();
    (jobs, steps)
}

#[test]
fn the_shipped_pipelines_load_without_a_warning() {
    let (config, _, pipelines) = shipped();
    let names: Vec<&str> = pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["nightly-counts", "sampled-data", "scans", "sync", "tidy-up", "weekly-rebuild"]);
    for pipeline in &pipelines {
        assert!(pipeline.enabled && !pipeline.description.is_empty(), "{}", pipeline.name);
        if let Some(schedule) = pipeline.schedule() {
            assert_eq!(schedule.timezone, config.timezone, "{}", pipeline.name);
            // Scans and pruning wait for no long read.
            let is_light = matches!(pipeline.name.as_str(), "scans" | "tidy-up");
            assert_eq!(pipeline.group.as_deref(), (!is_light).then_some("heavy-reads"));
        }
    }
    assert!(pipelines[3].continuous().is_some());
    // What they do on a schedule, the follower leaves to them.
    let scans = sgcache::pipeline::scheduled_scans(&pipelines);
    assert_eq!((scans.fast, scans.light, scans.retired, scans.full, scans.columns), (false, true, true, false, true));
}

#[tokio::test]
async fn every_step_of_the_shipped_pipelines_gets_arguments_that_fit() {
    let ok = |ids: &[&str]| -> Vec<(String, Status)> { ids.iter().map(|id| ((*id).to_owned(), Status::Ok)).collect() };
    let (jobs, steps) = run("sampled-data").await;
    assert_eq!(steps, ok(&["recent", "rotating", "random"]));
    let modes: Vec<Option<SampleMode>> = jobs
        .iter()
        .map(|job| match job {
            JobSpec::ValidateData(args) => args.sample.as_ref().map(|sample| sample.mode),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(modes, [None, Some(SampleMode::Rotate), Some(SampleMode::RandomPages)]);

    assert_eq!(run("nightly-counts").await.1, ok(&["counts"]));
    assert_eq!(run("sync").await.1, ok(&["follow"]));
    let (_, mut steps) = run("weekly-rebuild").await;
    // Nothing drifted, so there is nothing to repair.
    assert_eq!(steps.pop(), Some(("repair".to_owned(), Status::Skipped)));
    assert_eq!(steps, ok(&["schema", "rebuild", "counts", "sample"]));
}

#[test]
fn the_next_runs_of_a_shipped_pipeline_are_in_the_zone_of_the_config() {
    let (_, _, pipelines) = shipped();
    let weekly = sgcache::pipeline::find(&pipelines, "weekly-rebuild").expect("shipped");
    let from = "2026-10-24T12:00:00Z".parse().expect("an instant");
    let zone = weekly.schedule().expect("a schedule").timezone;
    let runs: Vec<String> = weekly.next_runs(from, 2).iter().map(|run| run.with_timezone(&zone).to_rfc3339()).collect();
    // The clocks change in the first of these nights.
    assert_eq!(runs, ["2026-10-25T04:00:00+01:00", "2026-11-01T04:00:00+01:00"]);
}
