//! Tests of the daemon loop: beats and commands in, events out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{at, pipeline, resolve_context};
use crate::pipeline::*;
use crate::report::*;

/// A daemon whose purge jobs wait for a permit, and the ends of its channels.
struct Bench {
    beats: mpsc::Sender<chrono::DateTime<chrono::Utc>>,
    commands: mpsc::Sender<Command>,
    events: mpsc::UnboundedReceiver<String>,
    permits: Arc<tokio::sync::Semaphore>,
    pauses: Arc<std::sync::Mutex<Pauses>>,
    shutdown: CancellationToken,
    daemon: JoinHandle<bool>,
}

fn said(event: &Event) -> Option<String> {
    Some(match event {
        Event::Started(report) => {
            let waited = report.waited_for.as_ref().map(|other| format!(" after {other}"));
            format!("started {} by {}{}", report.pipeline, report.trigger, waited.unwrap_or_default())
        }
        Event::Ended(report) => {
            let reason = report.reason.as_ref().filter(|reason| reason.starts_with("replaced"));
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("ended {} {}{reason}", report.pipeline, report.status)
        }
        Event::Skipped { pipeline, reason, .. } => format!("skipped {pipeline}: {reason}"),
        Event::Queued { pipeline, behind, .. } => format!("queued {pipeline} behind {behind}"),
        Event::Paused { pipeline, paused: true } => format!("paused {pipeline}"),
        Event::Paused { pipeline, paused: false } => format!("resumed {pipeline}"),
        Event::Reloaded(_) => "reloaded".to_owned(),
        Event::ClockJump(_) | Event::Beat(_) | Event::Planned(_) => return None,
    })
}

fn bench(files: &[&str]) -> Bench {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = permits.clone();
    let execute: Execute = Arc::new(move |spec, context| {
        let gate = gate.clone();
        async move {
            match spec {
                JobSpec::Sync(_) => context.cancel.cancelled().await,
                JobSpec::Import(_) => return Err(JobError::new(ErrorClass::Internal, "broken")),
                _ => {
                    tokio::select! {
                        permit = gate.acquire() => permit.expect("open").forget(),
                        () = context.cancel.cancelled() => return Err(JobError::stopped(StepResult::default())),
                    }
                }
            }
            Ok(StepResult::default())
        }
        .boxed()
    });
    let shutdown = CancellationToken::new();
    let runner = Runner::new(execute, &resolve_context(), "test", shutdown.clone());
    let (told, events) = mpsc::unbounded_channel();
    let observer: Observer = Arc::new(move |event| {
        if let Some(line) = said(&event) {
            told.send(line).expect("the test listens");
        }
    });
    let pipelines: Vec<_> = files.iter().map(|text| pipeline(text)).collect();
    let start = at("2026-01-10T00:59:50Z");
    let pauses = Arc::new(std::sync::Mutex::new(Pauses::default()));
    let looked_up = pauses.clone();
    let daemon = Daemon::new(runner, pipelines, &PlanState::default(), start, BTreeMap::new(), observer)
        .with_pauses(Arc::new(move || Some(looked_up.lock().expect("no panic").clone())));
    let (beats, mut beat_source) = mpsc::channel(8);
    let (commands, mut command_source) = mpsc::channel(8);
    let daemon =
        tokio::spawn(async move { daemon.run(&mut beat_source, &mut command_source, Duration::from_secs(5)).await });
    Bench { beats, commands, events, permits, pauses, shutdown, daemon }
}

impl Bench {
    async fn beat(&self, now: &str) {
        self.beats.send(at(now)).await.expect("the daemon runs");
    }

    async fn next(&mut self) -> String {
        self.events.recv().await.expect("an event")
    }

    async fn trigger(&self, pipeline: &str, set: &[&str]) -> Result<String, TriggerError> {
        let (answer, answered) = oneshot::channel();
        let set: Vec<String> = set.iter().map(|pair| (*pair).to_owned()).collect();
        let set = parse_overrides(&set).expect("pairs");
        let pipeline = pipeline.to_owned();
        let command = Command::Trigger { pipeline, set, trigger: Trigger::Api, resumed: None, answer };
        self.commands.send(command).await.expect("the daemon runs");
        answered.await.expect("an answer")
    }
}

const HOURLY: &str = "name: hourly\nschedule: { cron: '0 * * * *', timezone: UTC }\n\
    params: { n: { type: integer, default: 1 } }\n\
    steps: [{ id: a, job: purge, when: params.n > 0 }]\n";
const SYNC: &str = "name: sync\ncontinuous: { restart: { initial: 1ms, max: 1ms } }\nsteps: [{ id: a, job: sync }]\n";

#[tokio::test]
async fn a_beat_starts_what_is_due_and_its_end_is_told() {
    let mut bench = bench(&[HOURLY]);
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "started hourly by cron");
    bench.beat("2026-01-10T02:00:00Z").await;
    assert_eq!(bench.next().await, "skipped hourly: the run before it has not ended");
    bench.permits.add_permits(1);
    assert_eq!(bench.next().await, "ended hourly ok");
    bench.beat("2026-01-10T03:00:00Z").await;
    assert_eq!(bench.next().await, "started hourly by cron");
}

#[tokio::test]
async fn a_run_says_what_it_waited_for() {
    let file = |name: &str| {
        format!(
            "name: {name}\nschedule: {{ cron: '0 * * * *', timezone: UTC }}\n\
             concurrency: {{ policy: queue, group: g }}\nsteps: [{{ id: a, job: purge }}]\n"
        )
    };
    let mut bench = bench(&[&file("first"), &file("second")]);
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "started first by cron");
    assert_eq!(bench.next().await, "queued second behind first");
    bench.permits.add_permits(1);
    assert_eq!(bench.next().await, "ended first ok");
    bench.beat("2026-01-10T01:05:00Z").await;
    assert_eq!(bench.next().await, "started second by cron after first");
    bench.permits.add_permits(1);
    assert_eq!(bench.next().await, "ended second ok");
    bench.beat("2026-01-10T02:00:00Z").await;
    assert_eq!(bench.next().await, "started first by cron");
    bench.shutdown.cancel();
}

#[tokio::test]
async fn a_pipeline_can_be_triggered_and_cancelled() {
    let mut bench = bench(&[HOURLY, SYNC]);
    assert_eq!(bench.next().await, "started sync by continuous");
    let run_id = bench.trigger("hourly", &["n=2"]).await.expect("a run id");
    assert_eq!(bench.next().await, "started hourly by api");
    let busy = bench.trigger("hourly", &[]).await;
    assert_eq!(busy, Err(TriggerError::Refused("`hourly` cannot start: the run before it has not ended".into())));
    let unknown = bench.trigger("hourli", &[]).await;
    assert!(
        matches!(&unknown, Err(TriggerError::Unknown(why)) if why.contains("did you mean `hourly`?")),
        "{unknown:?}"
    );
    let all_the_time = bench.trigger("sync", &[]).await;
    assert!(matches!(&all_the_time, Err(TriggerError::Refused(why)) if why.contains("all the time")));
    let (answer, answered) = oneshot::channel();
    bench.commands.send(Command::Cancel { run_id, answer }).await.expect("the daemon runs");
    assert_eq!(answered.await, Ok(true));
    assert_eq!(bench.next().await, "ended hourly cancelled");
    let wrong = bench.trigger("hourly", &["n=many"]).await;
    assert_eq!(wrong, Err(TriggerError::Params("parameter `n`: \"many\" is not a whole number".into())));
}

#[tokio::test]
async fn a_disabled_pipeline_is_refused_as_such() {
    let off = HOURLY.replace("name: hourly", "name: off\nenabled: false");
    let bench = bench(&[HOURLY, &off]);
    let refused = bench.trigger("off", &[]).await;
    assert!(matches!(&refused, Err(TriggerError::Refused(why)) if why.contains("is disabled")), "{refused:?}");
}

#[tokio::test]
async fn a_continuous_pipeline_that_breaks_is_started_again() {
    let broken = SYNC.replace("job: sync", "job: import");
    let mut bench = bench(&[&broken]);
    for _ in 0..3 {
        assert_eq!(bench.next().await, "started sync by continuous");
        assert_eq!(bench.next().await, "ended sync error");
    }
}

#[tokio::test]
async fn a_shutdown_stops_everything_and_says_how_it_ended() {
    let mut bench = bench(&[HOURLY, SYNC]);
    assert_eq!(bench.next().await, "started sync by continuous");
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "started hourly by cron");
    bench.shutdown.cancel();
    let mut ends = [bench.next().await, bench.next().await];
    ends.sort();
    assert_eq!(ends, ["ended hourly interrupted", "ended sync ok"]);
    assert!(bench.daemon.await.expect("no panic"));
}

#[tokio::test]
async fn a_continuous_pipeline_rests_while_it_is_paused() {
    let mut bench = bench(&[SYNC]);
    assert_eq!(bench.next().await, "started sync by continuous");
    let pause = Pause { since: at("2026-01-10T01:00:00Z"), until: None, reason: "move".into() };
    bench.pauses.lock().expect("no panic").set("sync", pause);
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "paused sync");
    assert_eq!(bench.next().await, "ended sync ok");
    bench.beat("2026-01-10T01:00:01Z").await;
    bench.pauses.lock().expect("no panic").end("sync", at("2026-01-10T01:00:02Z"));
    bench.beat("2026-01-10T01:00:02Z").await;
    assert_eq!(bench.next().await, "resumed sync");
    assert_eq!(bench.next().await, "started sync by continuous");
}

#[tokio::test]
async fn a_reload_restarts_what_changed_and_leaves_the_rest_alone() {
    let mut bench = bench(&[HOURLY, SYNC]);
    assert_eq!(bench.next().await, "started sync by continuous");
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "started hourly by cron");

    let daily =
        pipeline("name: daily\nschedule: { cron: '0 2 * * *', timezone: UTC }\nsteps: [{ id: a, job: purge }]\n");
    bench.commands.send(Command::Reload { pipelines: vec![daily.clone(), pipeline(SYNC)] }).await.expect("a daemon");
    assert_eq!(bench.next().await, "reloaded");
    bench.permits.add_permits(1);
    assert_eq!(bench.next().await, "ended hourly ok");
    bench.beat("2026-01-10T02:00:00Z").await;
    assert_eq!(bench.next().await, "started daily by cron");

    let slower = pipeline(&SYNC.replace("max: 1ms", "max: 2ms"));
    bench.commands.send(Command::Reload { pipelines: vec![daily, slower] }).await.expect("a daemon");
    assert_eq!(bench.next().await, "reloaded");
    let mut both = [bench.next().await, bench.next().await];
    both.sort();
    assert_eq!(both, ["ended sync ok", "started sync by continuous"]);
}

#[tokio::test]
async fn a_run_that_is_replaced_says_by_what_and_the_next_one_starts() {
    let replacing = HOURLY.replace("name: hourly\n", "name: hourly\nconcurrency: { policy: replace }\n");
    let mut bench = bench(&[&replacing]);
    bench.beat("2026-01-10T01:00:00Z").await;
    assert_eq!(bench.next().await, "started hourly by cron");
    bench.beat("2026-01-10T02:00:00Z").await;
    assert_eq!(bench.next().await, "queued hourly behind hourly");
    assert_eq!(bench.next().await, "ended hourly cancelled: replaced by the occurrence of 2026-01-10 02:00:00 UTC");
    bench.beat("2026-01-10T02:00:01Z").await;
    assert_eq!(bench.next().await, "started hourly by cron after hourly");
    bench.permits.add_permits(1);
    assert_eq!(bench.next().await, "ended hourly ok");
    bench.shutdown.cancel();
    assert!(bench.daemon.await.expect("it ends"));
}
