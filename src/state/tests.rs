//! Tests of the state file: each promise of a table, across handles and restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::entity::{EntityRef, EntityType, EventId, RowHash};

struct Fixture {
    _directory: tempfile::TempDir,
    state: State,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path()).expect("a new state");
    state.begin_stream("http://site", EventId(100), None, &[], None, SiteTime(0)).expect("a stream");
    Fixture { _directory: directory, state }
}

fn shot() -> EntityType {
    EntityType::new("Shot")
}

fn request(id: i64, kinds: Kinds) -> MarkRequest {
    MarkRequest::new(EntityRef::new("Shot", id), kinds)
}

impl Fixture {
    /// Polls at a moment; entries with these ids ask for these shots.
    fn poll(&self, at: i64, ids: &[i64], shots: &[i64]) -> PollCommitted {
        let now = SiteTime(at);
        let poll = self.state.begin_poll(now, 200).expect("a poll").expect("a stream");
        let commit = PollCommit {
            poll: &poll,
            ids,
            full: false,
            newest: None,
            event_created: Some(now),
            marks: shots.iter().map(|id| request(*id, Kinds::CHANGE)).collect(),
            dead: Vec::new(),
            sweeps: Vec::new(),
            schema_due: false,
            now,
        };
        self.state.commit_poll(&commit).expect("a commit")
    }

    fn ticket(&self) -> Ticket {
        self.state.begin_read(&shot(), SiteTime(0)).expect("a ticket")
    }

    fn finish(&self, ticket: Ticket, rows: Vec<RowDone>) -> Finished {
        let finish = Finish { rows, ..Finish::new(ticket, SiteTime(0)) };
        self.state.finish(&finish).expect("a finish")
    }

    fn live(&self) {
        let import = ImportState { lo_rv: 0, segments: Vec::new(), rows: 0, expected: None, confirm_until: None };
        self.state.begin_import(&shot(), "layout", &import).expect("an import");
        self.state.set_live(&shot()).expect("a live type");
    }

    fn marked(&self) -> Vec<i64> {
        self.state.marked_ids(&shot()).expect("marks")
    }
}

fn row(id: i64, hash: u32) -> RowDone {
    let hash = RowHash(u128::from(hash) << 96);
    RowDone { id, outcome: RowOutcome::Written, state: RowState::Active, updated_at: None, hash, name: 0 }
}

#[test]
fn a_mark_is_cleared_only_by_a_read_that_began_after_it() {
    let test = fixture();
    test.poll(1_000, &[101], &[7]);
    let early = test.ticket();
    test.poll(2_000, &[102], &[7]);
    let late = test.ticket();
    test.finish(early, vec![row(7, 1)]);
    assert_eq!(test.marked(), [7]);
    let finished = test.finish(late, vec![row(7, 2)]);
    assert_eq!(test.marked(), [0; 0]);
    assert_eq!(finished.cleared[0].events, 0);
}

#[test]
fn a_key_marked_again_after_it_was_cleared_is_not_cleared_by_an_older_read() {
    let test = fixture();
    test.poll(1_000, &[101], &[7]);
    let slow = test.ticket();
    let fast = test.ticket();
    test.finish(fast, vec![row(7, 1)]);
    test.poll(2_000, &[102], &[7]);
    test.finish(slow, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 0) }]);
    assert_eq!(test.marked(), [7]);
}

#[test]
fn freshness_stands_still_at_the_poll_before_the_oldest_open_mark() {
    let test = fixture();
    test.live();
    let fresh = || test.state.fresh_as_of_type(&shot()).expect("a moment");
    assert_eq!(fresh(), None);
    test.poll(1_000, &[], &[]);
    assert_eq!(fresh(), Some(SiteTime(1_000)));
    test.poll(3_000, &[101], &[7]);
    assert_eq!(fresh(), Some(SiteTime(1_000)));
    let ticket = test.ticket();
    test.poll(5_000, &[102], &[7, 8]);
    test.finish(ticket, vec![row(7, 1)]);
    assert_eq!(fresh(), Some(SiteTime(3_000)), "what entry 102 tells of happened after that");
    let ticket = test.ticket();
    test.finish(ticket, vec![row(7, 1), row(8, 1)]);
    assert_eq!(fresh(), Some(SiteTime(5_000)));
    assert_eq!(test.state.fresh_as_of().expect("a moment"), fresh());
}

#[test]
fn a_gap_that_is_not_asked_for_holds_freshness_back() {
    let test = fixture();
    test.live();
    test.poll(1_000, &[102, 104], &[]);
    let poll = test.state.begin_poll(SiteTime(2_000), 1).expect("a poll").expect("a stream");
    assert_eq!(poll.gaps.len(), 1);
    let commit = PollCommit {
        poll: &poll,
        ids: &[],
        full: false,
        newest: None,
        event_created: None,
        marks: Vec::new(),
        dead: Vec::new(),
        sweeps: Vec::new(),
        schema_due: false,
        now: SiteTime(2_000),
    };
    test.state.commit_poll(&commit).expect("a commit");
    assert_eq!(test.state.stream().expect("a stream").complete_as_of, Some(SiteTime(1_000)));
    let poll = test.state.begin_poll(SiteTime(3_000), 1).expect("a poll").expect("a stream");
    assert_ne!(poll.gaps, commit.poll.gaps, "the other one has its turn");
}

#[test]
fn a_settle_or_inverse_mark_does_not_hold_freshness_back() {
    let test = fixture();
    test.live();
    test.poll(1_000, &[], &[]);
    test.state.mark(&[request(7, Kinds::SETTLE), request(8, Kinds::INVERSE)], SiteTime(1_500)).expect("marks");
    test.poll(2_000, &[], &[]);
    assert_eq!(test.state.fresh_as_of().expect("a moment"), Some(SiteTime(2_000)));
    assert_eq!(test.state.due_marks(SiteTime(2_000), 10).expect("marks").len(), 2);
}

#[test]
fn rows_keep_their_newest_version_and_buckets_follow() {
    let test = fixture();
    let (older, newer) = (test.ticket(), test.ticket());
    test.finish(newer, vec![row(7, 10), row(1_007, 20)]);
    let finished = test.finish(older, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 99) }]);
    assert!(finished.changed.is_empty());
    let buckets = |test: &Fixture| test.state.buckets(&shot()).expect("buckets");
    let expected = [BucketCount { bucket: 0, count: 1, sum: 10 }, BucketCount { bucket: 1, count: 1, sum: 20 }];
    assert_eq!(buckets(&test), expected);
    let ticket = test.ticket();
    test.finish(ticket, vec![RowDone { state: RowState::Retired, ..row(7, 0) }]);
    assert_eq!(buckets(&test), expected[1..]);
    assert_eq!(test.state.active_count(&shot()).expect("a count"), 1);
}

#[test]
fn a_row_stored_over_a_newer_state_that_was_not_written_is_read_again() {
    let test = fixture();
    let first = test.ticket();
    test.finish(first, vec![row(7, 1)]);
    let slow = test.ticket();
    let fast = test.ticket();
    assert!(test.state.may_suppress(&fast, &[7]).expect("rows").is_empty(), "the slow read may still write");
    test.finish(fast, vec![RowDone { outcome: RowOutcome::Unchanged, ..row(7, 1) }]);
    let finished = test.finish(slow, vec![row(7, 2)]);
    assert_eq!(finished.conflicts, [7]);
    assert_eq!(test.marked(), [7]);
}

#[test]
fn an_unchanged_row_may_stay_unwritten_when_no_other_read_is_open() {
    let test = fixture();
    let first = test.ticket();
    test.finish(first, vec![row(7, 1)]);
    let lost = test.ticket();
    let second = test.ticket();
    assert!(test.state.may_suppress(&second, &[7]).expect("rows").is_empty());
    test.state.abandon(&lost).expect("an end");
    assert_eq!(test.state.may_suppress(&second, &[7, 8]).expect("rows").len(), 1);
}

#[test]
fn a_stale_row_without_a_newer_one_on_record_keeps_its_mark() {
    let test = fixture();
    test.poll(1_000, &[101], &[7]);
    let ticket = test.ticket();
    test.finish(ticket, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 1) }]);
    assert_eq!(test.marked(), [7]);
}

#[test]
fn touched_keys_are_remembered_after_they_were_read() {
    let test = fixture();
    let before = test.state.generation().expect("a generation");
    test.poll(1_000, &[101], &[7]);
    let ticket = test.ticket();
    test.finish(ticket, vec![row(7, 1)]);
    test.state.mark(&[request(9, Kinds::REPAIR)], SiteTime(1_000)).expect("a mark");
    assert_eq!(test.state.touched_since(&shot(), before).expect("ids"), [7]);
    let after = test.state.generation().expect("a generation");
    assert!(test.state.touched_since(&shot(), after).expect("ids").is_empty());
    test.poll(1_000 + 4 * 3_600_000, &[], &[]);
    assert!(test.state.touched_since(&shot(), before).expect("ids").is_empty(), "the log is cut");
}

#[test]
fn versions_grow_over_processes_epochs_and_lost_files() {
    let test = fixture();
    let other = State::open(test.state.directory()).expect("a second handle");
    let first = test.ticket().rv;
    let second = other.begin_read(&shot(), SiteTime(0)).expect("a ticket").rv;
    assert!(second > first);
    other.begin_epoch(SiteTime(0)).expect("an epoch");
    assert!(test.ticket().rv >> 40 > second >> 40);
    let now = SiteTime(1_790_000_000_000);
    let new = fixture();
    assert!(new.state.begin_epoch(now).expect("an epoch") > 350_000, "a new file starts above an old one");
}

#[test]
fn one_process_leads_at_a_time() {
    let test = fixture();
    let lead = test.state.lead().expect("the lead");
    let refused = test.state.lead().expect_err("it is taken");
    assert!(refused.to_string().starts_with("another sgcache follows this data directory"), "{refused}");
    assert!(test.state.is_led());
    drop(lead);
    assert!(!test.state.is_led());
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let test = fixture();
    let path = test.state.directory().join("state.sqlite");
    let connection = rusqlite::Connection::open(&path).expect("the file");
    connection.pragma_update(None, "user_version", 99).expect("a version");
    let refused = State::open(test.state.directory()).expect_err("it is newer");
    assert!(refused.to_string().contains("written by a newer sgcache (format 99, this one knows 1)"), "{refused}");
}

#[test]
fn an_import_goes_on_where_it_was() {
    let test = fixture();
    let segment = |last_id, end| Segment { last_id, end, done: false, retired: false };
    let import = ImportState {
        lo_rv: 5,
        segments: vec![segment(0, Some(50)), segment(50, None)],
        rows: 0,
        expected: Some(3),
        confirm_until: None,
    };
    test.state.begin_import(&shot(), "layout", &import).expect("an import");
    let ticket = test.ticket();
    let step = Some(SegmentStep { index: 1, last_id: 70, done: true });
    let finish = Finish { rows: vec![row(60, 1), row(70, 1)], segment: step, ..Finish::new(ticket, SiteTime(0)) };
    let finished = test.state.finish(&finish).expect("a finish");
    let reopened = State::open(test.state.directory()).expect("the same file");
    let record = reopened.type_record(&shot()).expect("a record").expect("a type");
    assert_eq!((record.state, record.import.clone()), (TypeState::Importing, finished.import));
    let import = record.import.expect("it runs");
    assert_eq!((import.rows, import.segments[1].last_id, import.segments[1].done), (2, 70, true));
}

#[test]
fn a_sweep_asked_for_again_while_it_ran_stays() {
    let test = fixture();
    test.live();
    test.poll(1_000, &[], &[]);
    test.state.request_sweep(&shot(), SiteTime(2_000)).expect("a sweep");
    let due = test.state.due_sweeps(SiteTime(2_000)).expect("sweeps");
    test.state.request_sweep(&shot(), SiteTime(3_000)).expect("a sweep");
    test.state.finish_sweep(&due[0], &[], SiteTime(3_000)).expect("an end");
    let again = test.state.due_sweeps(SiteTime(3_000)).expect("sweeps");
    assert_eq!(test.state.fresh_as_of().expect("a moment"), Some(SiteTime(1_000)));
    test.state.finish_sweep(&again[0], &[request(3, Kinds::SCAN)], SiteTime(3_000)).expect("an end");
    assert!(test.state.due_sweeps(SiteTime(9_000)).expect("sweeps").is_empty());
    assert_eq!(test.marked(), [3]);
}

#[test]
fn a_dead_letter_ends_with_a_successful_read() {
    let test = fixture();
    test.poll(1_000, &[101], &[7]);
    let key = EntityRef::new("Shot", 7);
    let dead = NewDead { kind: DeadKind::Read, key: key.clone(), payload: "{}".into(), error: "it fails".into() };
    let postponed = vec![Postponed { key, delay: Duration::from_secs(60), add: Kinds::QUARANTINED }];
    let finish = Finish { dead: vec![dead], postponed, ..Finish::new(test.ticket(), SiteTime(1_000)) };
    test.state.finish(&finish).expect("a finish");
    assert_eq!(test.state.quarantined(&shot()).expect("ids"), [7]);
    assert!(test.state.due_marks(SiteTime(60_999), 10).expect("marks").is_empty());
    assert_eq!(test.state.due_marks(SiteTime(61_000), 10).expect("marks")[0].attempts, 1);
    let ticket = test.ticket();
    test.finish(ticket, vec![row(7, 1)]);
    assert!(test.state.dead(10).expect("dead letters").is_empty());
}

#[test]
fn a_mass_disappearance_is_held_until_somebody_accepts_it() {
    let test = fixture();
    test.live();
    let allowed = |count, at| test.state.may_vanish(&shot(), count, SiteTime(at)).expect("an answer");
    assert!(allowed(40, 0) && !allowed(11, 1_000) && allowed(10, 2_000));
    assert!(allowed(40, 601_000), "the first forty are ten minutes old");
    test.state.mark(&[request(7, Kinds::CHANGE | Kinds::HELD)], SiteTime(0)).expect("a mark");
    test.state.set_breaker(&shot(), Some(SiteTime(0))).expect("a breaker");
    assert_eq!(test.state.accept_deletions(&shot(), SiteTime(601_000)).expect("a number"), 1);
    assert!(allowed(1, 601_000));
    assert_eq!(test.state.held(&shot()).expect("a number"), 0);
}

#[test]
fn announced_values_are_merged_by_the_order_of_events() {
    let test = fixture();
    let announced = |event, value: &str| {
        let expected = [("code".to_owned(), (EventId(event), serde_json::json!(value)))].into();
        MarkRequest { expected, ..request(7, Kinds::CHANGE) }
    };
    test.state.mark(&[announced(5, "new")], SiteTime(0)).expect("a mark");
    test.state.mark(&[announced(4, "old")], SiteTime(0)).expect("a mark");
    test.state.mark(&[request(7, Kinds::CHANGE)], SiteTime(0)).expect("a mark");
    let marks = test.state.marks(10).expect("marks");
    assert_eq!(marks[0].expected["code"], (EventId(5), serde_json::json!("new")));
}

#[test]
fn runs_are_listed_newest_first_and_pruned_by_age() {
    let test = fixture();
    let runs =
        [("a", "nightly", 1, "ok"), ("b", "sync", 2, "ok"), ("c", "nightly", 3, "drift"), ("d", "nightly", 4, "ok")];
    for (run_id, pipeline, started_at, status) in runs {
        let report = serde_json::json!({"run_id": run_id});
        let (run_id, pipeline, status) = (run_id.to_owned(), pipeline.to_owned(), status.to_owned());
        let started_at = Timestamp(started_at);
        let run = RunRow { run_id, pipeline, status, started_at, finished_at: None, report };
        test.state.insert_run(&run).expect("a run");
    }
    let ids = |pipeline| -> Vec<String> {
        test.state.runs(10, pipeline).expect("runs").into_iter().map(|run| run.run_id).collect()
    };
    assert_eq!(ids(None), ["d", "c", "b", "a"]);
    assert_eq!(ids(Some("nightly")), ["d", "c", "a"]);
    assert_eq!(test.state.prune_runs(Timestamp(10), Timestamp(3), 1).expect("a number"), 1);
    assert_eq!(ids(None), ["d", "c", "b"]);
    assert_eq!(test.state.prune_runs(Timestamp(10), Timestamp(10), 1).expect("a number"), 1);
    assert_eq!(ids(None), ["d", "b"]);
}

/// One step of a random history of one type.
#[derive(Clone, Debug)]
enum Step {
    Mark(i64),
    Begin,
    Finish { read: usize, id: i64, hash: u32, active: bool, outcome: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let finish = (0usize..6, 1i64..4, 0u32..4, any::<bool>(), 0u8..3)
        .prop_map(|(read, id, hash, active, outcome)| Step::Finish { read, id: id * 700, hash, active, outcome });
    let step = prop_oneof![(1i64..4).prop_map(|id| Step::Mark(id * 700)), Just(Step::Begin), finish];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Versions never fall, marks outlive every read that began before them, and
    /// buckets are always the sums over the rows.
    #[test]
    fn the_state_holds_its_invariants_in_any_order_of_reads(steps in steps()) {
        let test = fixture();
        let mut open: Vec<Ticket> = Vec::new();
        let mut marks: BTreeMap<i64, i64> = BTreeMap::new();
        let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Mark(id) => {
                    test.state.mark(&[request(id, Kinds::CHANGE)], SiteTime(0)).expect("a mark");
                    marks.insert(id, test.state.generation().expect("a generation"));
                }
                Step::Begin => open.push(test.ticket()),
                Step::Finish { read, id, hash, active, outcome } => {
                    if read >= open.len() {
                        continue;
                    }
                    let ticket = open.remove(read);
                    let outcome = [RowOutcome::Written, RowOutcome::Unchanged, RowOutcome::Stale][usize::from(outcome)];
                    let state = if active { RowState::Active } else { RowState::Retired };
                    let newest = versions.get(&id).is_none_or(|rv| *rv < ticket.rv);
                    let finished = test.finish(ticket.clone(), vec![RowDone { outcome, state, ..row(id, hash) }]);
                    let settled = !(newest && outcome == RowOutcome::Stale);
                    if settled && marks.get(&id).is_some_and(|generation| *generation <= ticket.generation) {
                        marks.remove(&id);
                    }
                    if finished.conflicts.contains(&id) {
                        marks.insert(id, test.state.generation().expect("a generation"));
                    }
                }
            }
            prop_assert_eq!(test.marked(), marks.keys().copied().collect::<Vec<_>>());
            let rows = test.state.active_rows(&shot(), 0, i64::MAX, 100).expect("rows");
            let mut sums: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
            for (id, meta) in &rows {
                let sum = sums.entry(id / 1000).or_default();
                *sum = (sum.0 + 1, sum.1 + i64::from(meta.hash.short()));
            }
            let buckets = test.state.buckets(&shot()).expect("buckets");
            prop_assert_eq!(buckets.iter().map(|b| (b.bucket, (b.count, b.sum))).collect::<BTreeMap<_, _>>(), sums);
            for id in [700, 1400, 2100] {
                let rv = test.state.row(&shot(), id).expect("a row").map_or(0, |meta| meta.rv);
                prop_assert!(rv >= versions.get(&id).copied().unwrap_or(0));
                versions.insert(id, rv);
            }
        }
    }
}
