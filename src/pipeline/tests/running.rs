//! Tests of the runner: jobs are functions that answer at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{pipeline, resolve_context};
use crate::pipeline::*;
use crate::report::*;

/// A runner whose jobs are answered by `answer`.
fn runner<F>(answer: F) -> Runner
where
    F: Fn(JobSpec, JobContext) -> Result<StepResult, JobError> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let execute: Execute = Arc::new(move |spec, context| {
        let answer = answer.clone();
        async move { answer(spec, context) }.boxed()
    });
    Runner::new(execute, &resolve_context(), "test", CancellationToken::new())
}

fn found(checked: u64, ids: &[i64]) -> StepResult {
    let mut result = StepResult { checked, ..StepResult::default() };
    for id in ids {
        let mismatch = json!({ "type": "Shot", "id": id, "field": null, "kind": "missing",
            "class": null, "cached": null, "shotgun": null, "updated_at": null,
            "updated_by": null, "cache_rv": null, "action": "reported" });
        let mismatch = serde_json::from_value(mismatch).expect("a mismatch");
        result.push_mismatch(mismatch, 100);
    }
    result.missing = ids.len() as u64;
    result.drift = result.missing;
    result
}

fn repaired(repaired: u64, unresolved: u64) -> StepResult {
    StepResult { repaired, unresolved, ..StepResult::default() }
}

/// One line per step, then the run: `counts drift 1`, `run drift: counts: ...`.
fn told(report: &RunReport) -> Vec<String> {
    let step = |step: &StepReport| format!("{} {} {}", step.id, step.status, step.attempts);
    let mut lines: Vec<String> = report.steps.iter().map(step).collect();
    lines.push(match &report.reason {
        Some(reason) => format!("run {}: {reason}", report.status),
        None => format!("run {}", report.status),
    });
    lines
}

async fn run(runner: &Runner, text: &str) -> RunReport {
    let pipeline = pipeline(text);
    let mut order = RunOrder::new(Trigger::Cli);
    order.params = pipeline.params.resolve(&BTreeMap::new()).expect("defaults");
    runner.run(&pipeline, order).await
}

const COUNTS: &str = "name: p
retry: { attempts: 3, initial: 1ms, max: 2ms }
params: { most: { type: integer, default: 0 } }
steps:
  - id: counts
    job: validateCounts
    warn_when: result.extra > 0
    fail_when: result.missing > params.most
on_drift:
  - { job: repair, with: { from: counts } }
";

#[tokio::test]
async fn a_run_without_findings_is_ok() {
    let runner = runner(|_, _| Ok(found(10, &[])));
    let report = run(&runner, COUNTS).await;
    assert_eq!(told(&report), ["counts ok 1", "run ok"]);
    assert_eq!(exit_code(&report, true), 0);
    assert!(!report.is_running() && report.instance == "test");
}

#[tokio::test]
async fn drift_that_is_repaired_and_verified_ends_as_repaired() {
    let runner = runner(|spec, context| match spec {
        JobSpec::Repair(repair) => {
            assert_eq!(repair.from, ["counts"]);
            assert_eq!(context.results["counts"].mismatches.len(), 2);
            Ok(repaired(2, 0))
        }
        _ => Ok(found(10, &[3, 4])),
    });
    let report = run(&runner, COUNTS).await;
    assert_eq!(
        told(&report),
        ["counts repaired 1", "on_drift ok 1", "run repaired: counts: `result.missing > params.most` holds",]
    );
    assert_eq!(exit_code(&report, false), 0);
}

#[tokio::test]
async fn drift_that_is_not_wholly_repaired_stays_drift() {
    for (mended, unresolved) in [(1, 1), (1, 0)] {
        let runner = runner(move |spec, _| match spec {
            JobSpec::Repair(_) => Ok(repaired(mended, unresolved)),
            _ => Ok(found(10, &[3, 4])),
        });
        let report = run(&runner, COUNTS).await;
        assert_eq!(report.status, Status::Drift);
        assert_eq!(exit_code(&report, false), 10);
    }
    // An unverified repair proves nothing.
    let runner = runner(|spec, _| match spec {
        JobSpec::Repair(_) => Ok(repaired(2, 0)),
        _ => Ok(found(10, &[3, 4])),
    });
    let text = COUNTS.replace("from: counts", "from: counts, verify: false");
    assert_eq!(run(&runner, &text).await.status, Status::Drift);
}

#[tokio::test]
async fn a_job_that_broke_is_an_error_and_not_drift() {
    let runner = runner(|_, _| Err(JobError::new(ErrorClass::Denied, "no such key")));
    let report = run(&runner, COUNTS).await;
    assert_eq!(told(&report), ["counts error 1", "run error: counts: no such key"]);
    assert_eq!(exit_code(&report, false), 77);
    let error = report.steps[0].error.as_ref().expect("an error");
    assert_eq!((error.class.as_str(), error.message.as_str()), ("denied", "no such key"));
}

#[tokio::test]
async fn warnings_are_told_apart_from_drift() {
    let runner = runner(|_, _| Ok(StepResult { extra: 1, ..StepResult::default() }));
    let report = run(&runner, COUNTS).await;
    assert_eq!(told(&report), ["counts warn 1", "run warn: counts: `result.extra > 0` holds"]);
    assert_eq!((exit_code(&report, false), exit_code(&report, true)), (0, 11));
}

#[tokio::test]
async fn a_check_that_could_not_tell_is_a_warning() {
    let runner = runner(|_, _| {
        let mut result = StepResult::default();
        let unclear = TypeResult { verdict: Verdict::Inconclusive, ..TypeResult::default() };
        result.by_type.insert("Shot".to_owned(), unclear);
        Ok(result)
    });
    assert_eq!(run(&runner, COUNTS).await.status, Status::Warn);
}

#[tokio::test]
async fn only_listed_failures_are_tried_again() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let flaky = runner(move |_, context| match seen.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(JobError::new(ErrorClass::Unavailable, "no answer")),
        _ => {
            assert_eq!(context.attempt, 3);
            Ok(found(1, &[]))
        }
    });
    assert_eq!(told(&run(&flaky, COUNTS).await), ["counts ok 3", "run ok"]);
    assert_eq!(calls.load(Ordering::SeqCst), 3);

    let gone = runner(|_, _| Err(JobError::new(ErrorClass::Unavailable, "no answer")));
    let report = run(&gone, COUNTS).await;
    assert_eq!(told(&report), ["counts error 3", "run error: counts: no answer"]);
    assert_eq!(exit_code(&report, false), 69);

    let wrong = runner(|_, _| Err(JobError::new(ErrorClass::Invalid, "no such field")));
    let report = run(&wrong, COUNTS).await;
    assert_eq!((report.steps[0].attempts, exit_code(&report, false)), (1, 78));
}

#[tokio::test]
async fn a_panic_ends_the_step_and_not_the_process() {
    let runner = runner(|_, _| panic!("index out of range"));
    let report = run(&runner, COUNTS).await;
    assert_eq!(told(&report), ["counts error 1", "run error: counts: panicked: index out of range"]);
    assert_eq!(exit_code(&report, false), 1);
}

/// A runner whose jobs end only when they are told to, or never.
fn stubborn(obeys: bool, shutdown: &CancellationToken) -> Runner {
    let execute: Execute = Arc::new(move |_, context| {
        async move {
            match obeys {
                true => context.cancel.cancelled().await,
                false => std::future::pending().await,
            }
            Ok(found(7, &[]))
        }
        .boxed()
    });
    Runner::new(execute, &resolve_context(), "test", shutdown.clone()).with_grace(Duration::from_millis(20))
}

const SLOW: &str = "name: p\ntimeout: 1h\nsteps:\n  - { id: a, job: purge, timeout: 5ms }\n  \
                    - { id: b, job: purge, needs: a }\n";

#[tokio::test]
async fn a_step_that_takes_too_long_is_told_to_stop_and_then_dropped() {
    let never = CancellationToken::new();
    let report = run(&stubborn(true, &never), SLOW).await;
    assert_eq!(told(&report), ["a timeout 1", "b skipped 0", "run timeout: a: ran out of its time"]);
    // What it found until then is kept.
    assert_eq!(report.steps[0].result.checked, 7);
    assert_eq!(exit_code(&report, false), 124);
    let report = run(&stubborn(false, &never), SLOW).await;
    assert_eq!((report.status, report.steps[0].result.checked), (Status::Timeout, 0));
}

#[tokio::test]
async fn a_run_ends_when_its_own_time_is_up() {
    let never = CancellationToken::new();
    let text = "name: p\ntimeout: 5ms\nsteps:\n  - { id: a, job: purge }\n  - { id: b, job: purge }\n";
    let report = run(&stubborn(true, &never), text).await;
    assert_eq!(told(&report), ["a timeout 1", "b timeout 0", "run timeout: a: ran out of its time"]);
}

#[tokio::test]
async fn a_run_can_be_cancelled_and_a_shutdown_interrupts_it() {
    let text = "name: p\nsteps:\n  - { id: a, job: purge }\n  - { id: b, job: purge }\n";
    let shutdown = CancellationToken::new();
    let order = RunOrder::new(Trigger::Cli);
    order.cancel.cancel();
    let report = stubborn(true, &shutdown).run(&pipeline(text), order).await;
    assert_eq!(told(&report), ["a cancelled 0", "b cancelled 0", "run cancelled: a: the run was stopped"]);
    let runner = stubborn(true, &shutdown);
    let pipeline = pipeline(text);
    let running = runner.run(&pipeline, RunOrder::new(Trigger::Cli));
    let (report, ()) = tokio::join!(running, async { shutdown.cancel() });
    assert_eq!(report.status, Status::Interrupted);
    assert_eq!(exit_code(&report, false), 143);
}

#[tokio::test]
async fn conditions_and_needs_decide_what_runs() {
    let text = "name: p
retry: { attempts: 1 }
steps:
  - { id: counts, job: validateCounts }
  - { id: broken, job: import }
  - { id: after, job: purge, needs: broken }
  - { id: never, job: purge, when: run.hour == 99 }
  - id: repair
    needs: [counts]
    when: steps.counts.status == 'drift'
    job: repair
    with: { max_rows: '${{ steps.counts.result.missing }}' }
";
    let runner = runner(|spec, _| match spec {
        JobSpec::Import(_) => Err(JobError::new(ErrorClass::Store, "disk full")),
        JobSpec::Repair(repair) => {
            assert_eq!((repair.max_rows, repair.from), (2, vec!["counts".to_owned()]));
            Ok(repaired(2, 0))
        }
        _ => Ok(found(10, &[3, 4])),
    });
    // With a sample of empty results `max_rows` would be 0, which is refused.
    let text = text.replace("result.missing }}", "result.missing or 1 }}");
    let report = run(&runner, &text).await;
    assert_eq!(
        told(&report),
        [
            "counts repaired 1",
            "broken error 1",
            "after skipped 0",
            "never skipped 0",
            "repair ok 1",
            "run error: broken: disk full",
        ]
    );
}

#[tokio::test]
async fn expressions_see_the_run_before() {
    let text = "name: p\nsteps:\n  - { id: a, job: purge, when: previous.status == 'drift' }\n";
    let runner = runner(|_, _| Ok(found(0, &[])));
    assert_eq!(run(&runner, text).await.status, Status::Skipped);
    let before = Previous { status: Status::Drift, finished_at: super::at("2026-01-01T00:00:00Z") };
    let runner = runner.with_previous(Arc::new(move |name| async move { (name == "p").then_some(before) }.boxed()));
    let report = runner.run(&pipeline(text), RunOrder::new(Trigger::Cron)).await;
    assert_eq!(report.status, Status::Ok);
}

#[tokio::test]
async fn a_value_that_is_wrong_only_now_is_an_error_of_that_step() {
    let text = "name: p\nparams: { n: { type: integer, default: 1 } }\nsteps:\n  \
                - { id: a, job: validateData, with: { limit: '${{ params.n }}' } }\n";
    let runner = runner(|_, _| Ok(found(0, &[])));
    let pipeline = pipeline(text);
    let mut order = RunOrder::new(Trigger::Cli);
    let set = parse_overrides(&["n=0".to_owned()]).expect("a pair");
    order.params = pipeline.params.resolve(&set).expect("an integer");
    let report = runner.run(&pipeline, order).await;
    let error = report.steps[0].error.as_ref().expect("an error");
    assert_eq!(error.class, "invalid");
    assert!(error.message.contains("0 is less than the least allowed"), "{error:?}");
}

#[tokio::test]
async fn a_single_job_goes_the_same_way() {
    let args = ValidateDataArgs { types: vec!["Shot".to_owned()], ..ValidateDataArgs::default() };
    let single = Pipeline::single(JobSpec::ValidateData(args.clone()), None, None);
    let drifting = runner(|_, _| Ok(found(10, &[3])));
    let report = drifting.run_job(single.clone(), RunOrder::new(Trigger::Cli)).await;
    assert_eq!(told(&report), ["validateData drift 1", "run drift: validateData: `result.drift > 0` holds"]);
    assert_eq!(worst_exit_code(&[report], false), 10);
    let mending = runner(|_, _| Ok(StepResult { repaired: 1, ..found(10, &[3]) }));
    let report = mending.run_job(single, RunOrder::new(Trigger::Cli)).await;
    assert_eq!((report.status, exit_code(&report, false)), (Status::Repaired, 0));
    let tolerant = "result.drift_ratio > 0.5".to_owned();
    let tolerant = Pipeline::single(JobSpec::ValidateData(args), Some(tolerant), None);
    let report = drifting.run_job(tolerant, RunOrder::new(Trigger::Cli)).await;
    assert_eq!(report.status, Status::Ok);
}

const HOOKS: &str = "
on_error:
  - notify: td-slack
    message: '${{ pipeline.name }} broke: ${{ run.reason }}'
on_success:
  - ping: 'https://ping.example/${{ run.status }}'
  - ping: ''
";

#[tokio::test]
async fn hooks_say_how_the_run_ended_and_the_report_says_what_became_of_them() {
    let said = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = said.clone();
    let tell: Deliver = Arc::new(move |notice| {
        let (HookTarget::Notify(target) | HookTarget::Ping(target) | HookTarget::File(target)) = &notice.target;
        heard.lock().expect("no panic").push(format!("{target}: {}", notice.message));
        let failed = matches!(notice.target, HookTarget::Notify(_)).then_some(Err("nobody is there".to_owned()));
        async move { failed.unwrap_or(Ok(Delivered::Sent)) }.boxed()
    });
    let text = format!("{}{HOOKS}", COUNTS.replace("name: p", "name: nightly"));
    let told_by = |runner: Runner| runner.with_delivery(tell.clone());

    let broken = told_by(runner(|_, _| Err(JobError::new(ErrorClass::Denied, "no rights"))));
    let report = run(&broken, &text).await;
    assert_eq!(report.status, Status::Error);
    let hook =
        HookReport { target: "notify:td-slack".into(), message: String::new(), error: Some("nobody is there".into()) };
    assert_eq!(report.hooks, [hook]);

    let fine = run(&told_by(runner(|_, _| Ok(found(10, &[])))), &text).await;
    assert_eq!((fine.status, fine.hooks.len()), (Status::Ok, 1));
    assert_eq!(fine.hooks[0].target, "ping", "the address may be a secret");
    let said = said.lock().expect("no panic").clone();
    assert_eq!(said[0], "td-slack: nightly broke: counts: no rights");
    assert!(said[1].starts_with("https://ping.example/ok: nightly: ok, run "), "{said:?}");
    assert_eq!(said.len(), 2, "{said:?}");
}

#[tokio::test]
async fn a_step_that_does_not_run_says_why() {
    let runner = runner(|_, _| Ok(found(10, &[])));
    let report = run(&runner, "name: p\nsteps: [{ id: a, job: purge, when: run.hour > 99 }]\n").await;
    assert_eq!(report.steps[0].reason.as_deref(), Some("`run.hour > 99` does not hold"));
}

#[tokio::test]
async fn a_job_that_is_stopped_leaves_what_it_found_and_one_that_is_done_is_judged() {
    let text = "name: p\nsteps: [{ id: a, job: validateData, fail_when: result.drift > 0 }]\n";
    let stopped = |done: bool| async move {
        let shutdown = CancellationToken::new();
        let execute: Execute = Arc::new(move |_, context| {
            async move {
                context.cancel.cancelled().await;
                let result = found(9, &[1]);
                if done { Ok(result) } else { Err(JobError::stopped(result)) }
            }
            .boxed()
        });
        let runner = Runner::new(execute, &resolve_context(), "test", shutdown.clone());
        let pipeline = pipeline(text);
        let running = runner.run(&pipeline, RunOrder::new(Trigger::Cli));
        let (report, ()) = tokio::join!(running, async { shutdown.cancel() });
        (report.steps[0].status, report.steps[0].result.checked)
    };
    assert_eq!(stopped(false).await, (Status::Interrupted, 9));
    assert_eq!(stopped(true).await, (Status::Drift, 9));
}
