//! Whole explanations, as they are printed at a fixed time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::pipeline::{Blackout, Defaults, Pause, Pipeline, PlanEntry, ResolveContext, Schedule, Site, resolve};
use crate::report::{RunReport, RunStart, Status, StepReport, StepResult, Trigger};
use crate::yaml::{Document, Problems, Templates};

const NIGHTLY: &str = "name: nightly
description: Compare the number of entities per type.
schedule: { cron: '30 2 * * *', jitter: 10m, catch_up_window: 6h }
concurrency: { policy: queue, group: heavy-reads }
steps: [{ id: counts, job: validateCounts }]
";
const REBUILD: &str = "name: rebuild
schedule: { cron: '0 1 * * SUN' }
concurrency: { policy: queue, group: heavy-reads }
steps: [{ id: rebuild, job: rebuild }]
";
const SAMPLES: &str = "name: samples
description: Compare field values, and name every single one that differs, in three samples.
schedule: { cron: ['15 10 * * MON-FRI', '15 */6 * * SAT,SUN'], catch_up: skip }
concurrency: { policy: skip, group: heavy-reads }
blackout: dailies
steps: [{ id: recent, job: validateData }]
";

fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("an instant")
}

fn pipelines(texts: &[&str]) -> Vec<Arc<Pipeline>> {
    let paris = chrono_tz::Europe::Paris;
    let begins = Schedule::new(vec!["0 10 * * MON-FRI".to_owned()], false, paris).expect("a schedule");
    let duration = std::time::Duration::from_secs(5400);
    let dailies =
        Blackout { name: "dailies".to_owned(), begins, duration, action: crate::pipeline::BlackoutAction::Defer };
    let context = ResolveContext {
        timezone: paris,
        defaults: Defaults::default(),
        site: Site { name: "studio".to_owned(), url: "https://studio.example".to_owned() },
        blackouts: [("dailies".to_owned(), dailies)].into(),
        notifiers: Default::default(),
        entities: None,
        templates: Templates::new(&BTreeMap::new()),
    };
    let resolved = |text: &&str| {
        let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
        let mut problems = Problems::new();
        let pipeline = resolve(&document, &context, &mut problems);
        Arc::new(pipeline.unwrap_or_else(|| panic!("{problems}")))
    };
    texts.iter().map(resolved).collect()
}

fn run(pipeline: &str, scheduled_for: &str, late: i64, took: i64, status: Status) -> RunReport {
    let scheduled_for = at(scheduled_for);
    let started_at = scheduled_for + TimeDelta::seconds(late);
    let mut report = RunReport::begin(RunStart {
        run_id: format!("01K0000000000000000000{}", scheduled_for.format("%d%H%M")),
        pipeline: pipeline.to_owned(),
        trigger: Trigger::Cron,
        scheduled_for: Some(scheduled_for),
        started_at,
        attempt: 1,
        params: BTreeMap::new(),
        instance: "host:1".to_owned(),
        definition_hash: String::new(),
    });
    let result = StepResult { requests: 340, ..StepResult::default() };
    let step = StepReport {
        id: "a".to_owned(),
        job: "validateCounts".to_owned(),
        status,
        attempts: 1,
        duration_seconds: took as f64,
        reason: None,
        error: None,
        result,
    };
    report.finish(started_at + TimeDelta::seconds(took), vec![step]);
    report
}

fn skipped(pipeline: &str, scheduled_for: &str, reason: &str) -> RunReport {
    let due = at(scheduled_for);
    RunReport::skipped_occurrence(pipeline, due, reason.to_owned(), due, "host:1".to_owned())
}

fn known(now: &str) -> PipelineOutlook {
    PipelineOutlook::unknown(chrono_tz::Europe::Paris, at(now))
}

fn shown(known: &PipelineOutlook, pipelines: &[Arc<Pipeline>], name: &str, starts: usize) -> String {
    let pipeline = crate::pipeline::find(pipelines, name).expect("a pipeline");
    let text = text(&known.explain(pipeline, pipelines, starts), known.now);
    for line in text.lines() {
        assert!(line.chars().count() <= output::COLUMNS, "{} columns: {line}", line.chars().count());
    }
    text
}

#[test]
fn a_night_of_changing_clocks_behind_a_long_rebuild_is_explained() {
    let pipelines = pipelines(&[NIGHTLY, REBUILD]);
    let mut known = known("2027-03-27T12:00:00Z");
    known.add("rebuild", vec![run("rebuild", "2027-03-21T00:00:00Z", 0, 7_200, Status::Ok)]);
    let mut history = vec![
        run("nightly", "2027-03-27T01:37:14Z", 1_500, 125, Status::Ok),
        skipped("nightly", "2027-03-25T01:37:14Z", "it was missed too long ago"),
        run("nightly", "2027-03-23T01:37:14Z", 0, 130, Status::Drift),
    ];
    history[0].reason = None;
    history[0].waited_for = Some("rebuild".to_owned());
    history[2].reason = Some("counts: `result.missing > params.max_missing` holds".to_owned());
    known.add("nightly", history);
    insta::assert_snapshot!(shown(&known, &pipelines, "nightly", 3), @r"
    nightly: Compare the number of entities per type.
      starts      At 02:30. (Europe/Paris)
      jitter      always 7m 14s after the cron line, a fixed part of 10m
      catch_up    once: one run makes up for what was missed in the last 6h
      concurrency queue: waits while it or another of the group `heavy-reads`
                  (`rebuild`) runs
      state       idle
      typical     2 min, at most 2 min, and 340 requests (median of 2 runs)

    next
      Sun 2027-03-28 03:07:14 +02:00  01:07:14 UTC  in 13 h
        clocks go forward: 02:30 does not exist, runs at 03:00
        waits for `rebuild`, which usually ends by 04:00:00
      Mon 2027-03-29 02:37:14 +02:00  00:37:14 UTC  in 37 h
      Tue 2027-03-30 02:37:14 +02:00  00:37:14 UTC  in 3 d

    past
      Sat 2027-03-27 02:37:14 +01:00  ok           took 2 min
        started 25m late: it waited for `rebuild`
      Fri 2027-03-26 02:37:14 +01:00  no run
        no daemon ran; run 01K0000000000000000000270137 made up for it
      Thu 2027-03-25 02:37:14 +01:00  skipped
        it was missed too long ago
      Wed 2027-03-24 02:37:14 +01:00  no run
        no daemon ran, or the schedule was another one
      Tue 2027-03-23 02:37:14 +01:00  drift        took 2 min
        counts: `result.missing > params.max_missing` holds
    ");
}

#[test]
fn blackouts_pauses_and_policies_are_explained() {
    let pipelines = pipelines(&[NIGHTLY, REBUILD, SAMPLES]);
    let mut known = known("2026-11-26T12:00:00Z");
    let pause = Pause {
        since: at("2026-11-26T11:00:00Z"),
        until: Some(at("2026-11-28T08:00:00Z")),
        reason: "storage is moved".to_owned(),
    };
    known.pauses.set("samples", pause);
    insta::assert_snapshot!(shown(&known, &pipelines, "samples", 7), @r"
    samples: Compare field values, and name every single one that differs, in three
    samples.
      starts      At 10:15, on Monday, Tuesday, Wednesday, Thursday, and Friday. At
                  minute 15, of every 6 hours, on Sunday and Saturday.
                  (Europe/Paris)
      catch_up    skip: what was missed while no daemon ran is skipped
      concurrency skip: skipped while it or another of the group `heavy-reads`
                  (`nightly`, `rebuild`) runs
      blackout    `dailies`: At 10:00, on Monday, Tuesday, Wednesday, Thursday, and
                  Friday. (Europe/Paris) for 1h 30m; starts after it
      state       paused until 2026-11-28 08:00:00 UTC: storage is moved

    next
      Fri 2026-11-27 10:15:00 +01:00  09:15:00 UTC  in 21 h
        skipped: it is paused
        so are the 2 after it, until Sat 2026-11-28 06:15:00 +01:00
      Sat 2026-11-28 12:15:00 +01:00  11:15:00 UTC  in 47 h
      Sat 2026-11-28 18:15:00 +01:00  17:15:00 UTC  in 2 d
      Sun 2026-11-29 00:15:00 +01:00  23:15:00 UTC  in 2 d
      Sun 2026-11-29 06:15:00 +01:00  05:15:00 UTC  in 3 d
      Sun 2026-11-29 12:15:00 +01:00  11:15:00 UTC  in 3 d
      Sun 2026-11-29 18:15:00 +01:00  17:15:00 UTC  in 3 d
      Mon 2026-11-30 10:15:00 +01:00  09:15:00 UTC  in 4 d
        starts at 11:30:00, after the blackout `dailies`
    ");
}

#[test]
fn what_a_stopped_daemon_left_and_what_is_disabled_is_explained() {
    let disabled = REBUILD.replace("steps:", "enabled: false\nsteps:");
    let manual = "name: by-hand\nsteps: [{ id: purge, job: purge }]\n";
    let pipelines = pipelines(&[NIGHTLY, &disabled, manual]);
    let mut known = known("2026-11-26T05:00:00Z");
    known.add("nightly", vec![run("nightly", "2026-11-24T01:37:14Z", 0, 61, Status::Ok)]);
    let due = Some(at("2026-11-25T01:37:14Z"));
    let stored = PlanEntry { hash: pipelines[0].schedule_hash.clone(), next_at: due, last_handled_at: None };
    known.plan.pipelines.insert("nightly".to_owned(), stored);
    insta::assert_snapshot!(shown(&known, &pipelines, "nightly", 1), @r"
    nightly: Compare the number of entities per type.
      starts      At 02:30. (Europe/Paris)
      jitter      always 7m 14s after the cron line, a fixed part of 10m
      catch_up    once: one run makes up for what was missed in the last 6h
      concurrency queue: waits while it or another pipeline of the group
                  `heavy-reads` runs
      state       idle
      typical     61 s, at most 61 s, and 340 requests (median of 1 run)

    next
      Thu 2026-11-26 02:37:14 +01:00  01:37:14 UTC  3 h ago
        was due and has not run: a daemon that runs starts it now

    past
      Thu 2026-11-26 02:37:14 +01:00  no run
        no daemon has run since
      Wed 2026-11-25 02:37:14 +01:00  no run
        no daemon has run since
      Tue 2026-11-24 02:37:14 +01:00  ok           took 61 s
    ");
    // What waits in the queue of a daemon is due, too.
    known.running.insert("rebuild".to_owned(), at("2026-11-26T05:30:00Z"));
    let waiting = shown(&known, &pipelines, "nightly", 1);
    assert!(waiting.contains("    waits for `rebuild`, which runs now\n"), "{waiting}");
    known.running.clear();
    insta::assert_snapshot!(shown(&known, &pipelines, "rebuild", 1), @r"
    rebuild
      starts      At 01:00, on Sunday. (Europe/Paris)
      catch_up    once: one run makes up for what was missed in the last 6h
      concurrency queue: waits while it or another of the group `heavy-reads`
                  (`nightly`) runs
      state       disabled: `enabled: false` in its file; it starts on request only
                  with `run --once`
    ");
    insta::assert_snapshot!(shown(&known, &pipelines, "by-hand", 1), @r"
    by-hand
      starts      on request
      state       idle: it has no schedule and starts on request
    ");
}
