//! Tests of the `tests` in pipeline files.

use std::sync::Arc;

use super::{resolve_context, resolved};
use crate::pipeline::*;
use crate::yaml::{Document, Problems};

const PIPELINE: &str = "name: p
schedule: { cron: '30 2 * * *', timezone: Europe/Paris, jitter: 10m }
timeout: 1h
retry: { attempts: 3, initial: 30s, max: 5m, on: [unavailable] }
blackout: dailies
params: { most: { type: integer, default: 0 } }
steps:
  - { id: counts, job: validateCounts, warn_when: result.extra > 0, fail_when: result.missing > params.most }
  - { id: late, job: validateData, when: run.hour == 2, needs: counts, timeout: 10m }
on_drift:
  - { job: repair, with: { from: counts } }
  - { notify: td-slack, every: change, message: '${{ steps.counts.result.missing }} missing, run ${{ run.id }}' }
on_error: [{ notify: td-slack }]
on_success: [{ ping: \"${{ env('SGCACHE_PING', '') }}\" }]
tests:
";

/// Runs the tests that stand below [`PIPELINE`]; returns what differs, drawn.
fn rehearsed(tests: &str) -> String {
    let text = format!("{PIPELINE}{tests}");
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    let mut problems = Problems::new();
    let pipeline = resolve(&document, &resolve_context(), &mut problems).unwrap_or_else(|| panic!("{problems}"));
    let mut all = Problems::new();
    let rehearsals = rehearse(&document, &Arc::new(pipeline), &resolve_context(), "");
    assert_eq!(rehearsals.len(), tests.matches("- name:").count());
    rehearsals.into_iter().for_each(|one| all.extend(one.differences));
    all.render(false)
}

#[test]
fn expectations_about_a_night_are_met_by_the_real_planner_and_the_real_runner() {
    let tests = "
  - name: the gap night runs once, at three
    now: 2026-03-28T12:00:00Z
    expect: { next_runs: ['2026-03-29T03:00:00+02:00', '2026-03-30 02:30'], ignore_jitter: true }
  - name: drift that is not repaired notifies once
    results: { counts: { checked: 90000, missing: 3 } }
    previous: ok
    expect:
      status: drift
      actions: [repair, 'notify:td-slack']
      messages: ['3 missing, run 00000000000000000000000000']
      exit_code: 10
      reason: 'counts: `result.missing > params.most` holds'
  - name: and not again
    results: { counts: { checked: 90000, missing: 3 } }
    previous: drift
    expect: { status: drift, actions: [repair], messages: [] }
  - name: repaired
    results: { counts: { by_type: { Shot: { checked: 9, missing: 2 } } }, on_drift: { repaired: 2 } }
    expect: { status: repaired, actions: [repair, 'notify:td-slack'] }
  - name: a tolerance, and a dead-man switch
    set: { most: 5 }
    env: { SGCACHE_PING: 'http://ping.example/token' }
    results: { counts: { missing: 3 } }
    expect: { status: ok, actions: [ping], steps: { late: skipped } }
  - name: the hour decides, and it is that of the schedule
    now: 2026-06-01T00:30:00Z
    expect: { steps: { counts: ok, late: ok } }
  - name: two failures are tried again
    results: { counts: { error: unavailable, fails: 2 } }
    expect: { status: ok }
  - name: three are too many
    results: { counts: { error: unavailable, message: no answer } }
    expect: { status: error, reason: 'counts: no answer', actions: ['notify:td-slack'], exit_code: 69, steps: { late: skipped } }
  - name: a step has its time
    now: '2026-06-01 02:30'
    results: { late: { takes: 11m } }
    expect: { status: timeout, steps: { counts: ok, late: timeout }, exit_code: 124 }
  - name: so has the run
    now: '2026-06-01 02:30'
    results: { counts: { takes: 61m } }
    expect: { status: timeout, steps: { counts: timeout } }
  - name: hours pass on the clock of the run
    now: '2026-06-01 01:45'
    results: { counts: { takes: 55m } }
    expect: { steps: { late: skipped } }
";
    assert_eq!(rehearsed(tests), "");
}

#[test]
fn what_differs_is_drawn_at_the_expectation() {
    let tests = "
  - name: wrong everywhere
    now: '2026-03-28 12:00'
    results: { counts: { missing: 3 } }
    expect:
      next_runs: ['2026-03-29 02:30']
      ignore_jitter: true
      status: ok
      actions: [ping]
      steps: { late: ok }
      messages: [all is well]
";
    insta::assert_snapshot!(rehearsed(tests), @r"
    error[SG0901]: the test `wrong everywhere` fails: run 1 starts at 2026-03-29T03:00:00+02:00, not at 2026-03-29 02:30:00
      --> p.yaml:21:19
       |
    21 |       next_runs: ['2026-03-29 02:30']
       |                   ^^^^^^^^^^^^^^^^^^ starts at 2026-03-29T03:00:00+02:00

    error[SG0901]: the test `wrong everywhere` fails: `status` is `drift`, not `ok`
      --> p.yaml:23:15
       |
    23 |       status: ok
       |               ^^ found `drift`
       |
       = help: the reason: counts: `result.missing > params.most` holds

    error[SG0901]: the test `wrong everywhere` fails: `actions` is `[repair, notify:td-slack]`, not `[ping]`
      --> p.yaml:24:16
       |
    24 |       actions: [ping]
       |                ^ found `[repair, notify:td-slack]`
       |
       = help: the reason: counts: `result.missing > params.most` holds

    error[SG0901]: the test `wrong everywhere` fails: `steps.late` is `skipped`, not `ok`
      --> p.yaml:25:22
       |
    25 |       steps: { late: ok }
       |                      ^^ found `skipped`
       |
       = help: the reason: `run.hour == 2` does not hold

    error[SG0901]: the test `wrong everywhere` fails: message 1 is `3 missing, run 00000000000000000000000000`, not `all is well`
      --> p.yaml:26:18
       |
    26 |       messages: [all is well]
       |                  ^^^^^^^^^^^
    ");
}

#[test]
fn a_test_that_cannot_work_is_found_when_the_file_is_loaded() {
    let table = [
        ("expect: {}", "the test expects nothing"),
        ("expect: { status: fine }", "`fine` is not one of"),
        ("expect: { next_runs: [tomorrow] }", "is not a time such as"),
        ("expect: { steps: { count: ok } }", "no step has the id `count`"),
        ("results: { count: { missing: 1 } }, expect: { status: ok }", "did you mean `counts`?"),
        ("results: { counts: { misssing: 1 } }, expect: { status: ok }", "unknown key `misssing`"),
        ("set: { mots: 1 }, expect: { status: ok }", "parameter `mots`: is not declared"),
        ("set: { most: many }, expect: { status: ok }", "parameter `most`: "),
    ];
    for (test, words) in table {
        let found = resolved(&format!("{PIPELINE}  - {{ name: t, {test} }}\n")).expect_err(test);
        assert!(found.contains(words), "{test}: {found}");
    }
    let manual =
        "name: p\nsteps: [{ id: a, job: purge }]\ntests: [{ name: t, expect: { next_runs: ['2026-03-29 02:30'] } }]\n";
    assert!(resolved(manual).expect_err("no schedule").contains("without a schedule has no next runs"));
}

#[test]
fn a_changed_test_is_no_change_of_the_pipeline() {
    let with = |tests: &str| resolved(&format!("{PIPELINE}{tests}")).expect("a file").hash;
    let one = with("  - { name: t, expect: { status: ok } }\n");
    assert_eq!(one, with("  - { name: t, expect: { status: drift } }\n"));
    let other = PIPELINE.replace("timeout: 1h", "timeout: 2h") + "  - { name: t, expect: { status: ok } }\n";
    assert_ne!(one, resolved(&other).expect("a file").hash);
}

#[test]
fn the_budget_of_a_run_bounds_its_requests_and_their_pace() {
    let text = "name: p
schedule: { cron: '30 2 * * *', timezone: Europe/Paris }
budget: { max_requests: 100, max_rps: 0.1 }
timeout: 1h
steps:
  - { id: counts, job: validateCounts }
  - { id: data, job: validateData }
tests:
  - name: within the budget
    results: { counts: { requests: 60 }, data: { requests: 40 } }
    expect: { status: ok }
  - name: beyond it the run ends with what it has found
    results: { counts: { requests: 101, checked: 5 } }
    expect:
      status: warn
      exit_code: 0
      reason: 'counts: budget: the run has used up its 100 requests'
      steps: { counts: warn, data: skipped }
  - name: a request every ten seconds
    results: { counts: { requests: 80 } }
    expect: { status: ok }
";
    assert_eq!(all_differences(text, &resolve_context()), "");
    let slower = text.replace("max_rps: 0.1", "max_rps: 0.02");
    let differences = all_differences(&slower, &resolve_context());
    assert!(differences.contains("`status` is `timeout`, not `ok`"), "{differences}");
}

#[test]
fn a_blackout_that_pauses_holds_the_requests_of_what_runs() {
    let mut context = resolve_context();
    let text = "name: p
schedule: { cron: '50 9 * * *', timezone: Europe/Paris }
blackout: dailies
timeout: 1h
steps: [{ id: counts, job: validateCounts }]
tests:
  - name: begins before the dailies
    now: 2026-01-12 09:50
    results: { counts: { takes: 20m, requests: 1 } }
    expect: { status: ok }
";
    assert_eq!(all_differences(text, &context), "");
    // Until half past eleven it waits, and its hour is over before.
    context.blackouts.get_mut("dailies").expect("dailies").action = BlackoutAction::Pause;
    let differences = all_differences(text, &context);
    assert!(differences.contains("`status` is `timeout`, not `ok`"), "{differences}");
    assert_eq!(all_differences(&text.replace("timeout: 1h", "timeout: 2h"), &context), "");
}

/// Runs the tests of a whole file; returns what differs, drawn.
fn all_differences(text: &str, context: &ResolveContext) -> String {
    let document = Document::yaml("p.yaml", text.as_bytes()).expect("YAML");
    let mut problems = Problems::new();
    let pipeline = resolve(&document, context, &mut problems).unwrap_or_else(|| panic!("{problems}"));
    let mut all = Problems::new();
    for one in rehearse(&document, &Arc::new(pipeline), context, "") {
        all.extend(one.differences);
    }
    all.render(false)
}

#[test]
fn an_alarm_is_rehearsed_with_its_end() {
    let text = "name: p
schedule: { cron: '30 2 * * *', timezone: Europe/Paris, overdue_after: 26h }
steps: [{ id: counts, job: validateCounts }]
on_stalled: [{ notify: td-slack, message: '${{ site.name }} silent for ${{ run.lag_seconds }} s' }]
on_recovered: [{ notify: td-slack }, { ping: 'https://alarm.example/${{ run.status }}' }]
outputs: { file: { path: 'reports/${{ pipeline.name }}-${{ run.date }}.json' } }
tests:
  - name: a night that is missed
    stalled_for: 26h
    expect:
      actions: ['notify:td-slack', 'notify:td-slack', ping]
      messages: ['studio silent for 93600 s', 'p: recovered']
  - name: a late night
    stalled_for: 25h
    expect: { actions: [] }
  - name: the report of a run is a file
    expect: { status: ok, actions: [file], messages: [] }
";
    assert_eq!(all_differences(text, &resolve_context()), "");
}

#[test]
fn what_alarms_and_files_say_is_checked_when_the_file_is_loaded() {
    let text = "name: p
schedule: { cron: '30 2 * * *', overdue_after: 26h }
steps: [{ id: counts, job: validateCounts }]
on_stalled: [{ notify: td-slack, message: '${{ run.lag_second }}' }]
always: [{ notify: td-slack, message: '${{ run.lag_seconds }}' }]
outputs: { file: { path: 'reports/${{ run.dat }}.json' } }
";
    let refused = resolved(text).expect_err("problems");
    for expected in [
        "4:48: error[SG0301]: `run.lag_second` is",
        "5:44: error[SG0301]: `run.lag_seconds` is",
        "6:39: error[SG0301]: `run.dat` is",
    ] {
        assert!(refused.contains(expected), "no {expected} in {refused}");
    }
}
