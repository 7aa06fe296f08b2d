//! Tests of the state file: each promise of a table, across handles and restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::entity::{EntityRef, EntityType, EventId, RowHash};

pub(super) struct Fixture {
    _directory: tempfile::TempDir,
    pub(super) state: State,
}

pub(super) async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let state = State::open(directory.path()).await.expect("a new state");
    state.begin_stream("http://site", EventId(100), None, &[], None, SiteTime(0)).await.expect("a stream");
    Fixture { _directory: directory, state }
}

fn shot() -> EntityType {
    EntityType::new("Shot")
}

fn request(id: i64, kinds: DirtyReasons) -> NewDirtyKey {
    NewDirtyKey::new(EntityRef::new("Shot", id), kinds)
}

impl Fixture {
    /// Polls at a moment; entries with these ids ask for these shots.
    async fn poll(&self, at: i64, ids: &[i64], shots: &[i64]) -> PollCommitted {
        let commit = self.commit(at, ids, shots).await;
        self.state.commit_poll(commit).await.expect("a commit")
    }

    /// What such a poll would commit.
    async fn commit(&self, at: i64, ids: &[i64], shots: &[i64]) -> PollCommit {
        let now = SiteTime(at);
        let poll = self.state.begin_poll(now, 200).await.expect("a poll").expect("a stream");
        PollCommit {
            poll,
            ids: ids.to_vec(),
            full: false,
            newest: None,
            late_entry: None,
            event_created: Some(now),
            marks: shots.iter().map(|id| request(*id, DirtyReasons::CHANGE)).collect(),
            dead: Vec::new(),
            sweeps: Vec::new(),
            schema_due: false,
            now,
        }
    }

    async fn token(&self) -> ReadToken {
        self.state.begin_read(&shot(), SiteTime(0)).await.expect("a token")
    }

    async fn finish(&self, token: ReadToken, rows: Vec<RowDone>) -> Finished {
        let finish = Finish { rows, ..Finish::new(token, SiteTime(0)) };
        self.state.finish(finish).await.expect("a finish")
    }

    async fn live(&self) {
        let import = ImportState { lo_rv: 0, segments: Vec::new(), rows: 0, expected: None, confirm_poll: None };
        self.state.begin_import(&shot(), "layout", &import).await.expect("an import");
        self.state.set_live(&shot()).await.expect("a live type");
    }

    async fn marked(&self) -> Vec<i64> {
        self.state.marked_ids(&shot()).await.expect("marks")
    }
}

fn row(id: i64, hash: u32) -> RowDone {
    let hash = RowHash(u128::from(hash) << 96);
    RowDone { id, outcome: RowOutcome::Written, state: RowState::Active, updated_at: None, hash, name: 0 }
}

#[tokio::test]
async fn a_locked_file_does_not_hold_up_the_thread_of_the_caller() {
    let test = fixture().await;
    let path = test.state.directory().join("state.sqlite");
    let mut other = rusqlite::Connection::open(path).expect("another connection");
    let lock = other.transaction_with_behavior(TransactionBehavior::Immediate).expect("the write lock");
    // One thread: were it to wait for the file, the lock would never be released.
    let release = async {
        tokio::task::yield_now().await;
        drop(lock);
    };
    let requests = [request(7, DirtyReasons::CHANGE)];
    let (marked, ()) = tokio::join!(test.state.mark(&requests, SiteTime(0)), release);
    marked.expect("a mark");
}

#[tokio::test]
async fn a_write_that_is_not_waited_for_is_committed_whole() {
    let test = fixture().await;
    for id in 0..50 {
        let requests: Vec<_> = (0..10).map(|n| request(id * 10 + n, DirtyReasons::CHANGE)).collect();
        let mut write = Box::pin(test.state.mark(&requests, SiteTime(0)));
        assert!(futures::poll!(&mut write).is_pending());
    }
    // Writes are made one after the other, so those before this one have ended.
    test.state.next_rv().await.expect("a version");
    let marked = test.marked().await;
    assert!(!marked.is_empty(), "the first one began");
    assert_eq!(marked.len() % 10, 0, "{marked:?}");
}

#[tokio::test]
async fn a_mark_is_cleared_only_by_a_read_that_began_after_it() {
    let test = fixture().await;
    test.poll(1_000, &[101], &[7]).await;
    let early = test.token().await;
    test.poll(2_000, &[102], &[7]).await;
    let late = test.token().await;
    test.finish(early, vec![row(7, 1)]).await;
    assert_eq!(test.marked().await, [7]);
    let finished = test.finish(late, vec![row(7, 2)]).await;
    assert_eq!(test.marked().await, [0; 0]);
    assert_eq!(finished.cleared[0].events, 0);
}

#[tokio::test]
async fn a_key_marked_again_after_it_was_cleared_is_not_cleared_by_an_older_read() {
    let test = fixture().await;
    test.poll(1_000, &[101], &[7]).await;
    let slow = test.token().await;
    let fast = test.token().await;
    test.finish(fast, vec![row(7, 1)]).await;
    test.poll(2_000, &[102], &[7]).await;
    test.finish(slow, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 0) }]).await;
    assert_eq!(test.marked().await, [7]);
}

#[tokio::test]
async fn freshness_stands_still_at_the_poll_before_the_oldest_open_mark() {
    let test = fixture().await;
    test.live().await;
    let fresh = async || test.state.fresh_as_of_type(&shot()).await.expect("a moment");
    assert_eq!(fresh().await, None);
    test.poll(1_000, &[], &[]).await;
    assert_eq!(fresh().await, Some(SiteTime(1_000)));
    test.poll(3_000, &[101], &[7]).await;
    assert_eq!(fresh().await, Some(SiteTime(1_000)));
    let token = test.token().await;
    test.poll(5_000, &[102], &[7, 8]).await;
    test.finish(token, vec![row(7, 1)]).await;
    assert_eq!(fresh().await, Some(SiteTime(3_000)), "what entry 102 tells of happened after that");
    let token = test.token().await;
    test.finish(token, vec![row(7, 1), row(8, 1)]).await;
    assert_eq!(fresh().await, Some(SiteTime(5_000)));
    assert_eq!(test.state.fresh_as_of().await.expect("a moment"), fresh().await);
}

#[tokio::test]
async fn a_gap_that_is_not_asked_for_holds_freshness_back() {
    let test = fixture().await;
    test.live().await;
    test.poll(1_000, &[102, 104], &[]).await;
    let poll = test.state.begin_poll(SiteTime(2_000), 1).await.expect("a poll").expect("a stream");
    assert_eq!(poll.gaps.len(), 1);
    let commit = PollCommit {
        poll: poll.clone(),
        ids: Vec::new(),
        full: false,
        newest: None,
        late_entry: None,
        event_created: None,
        marks: Vec::new(),
        dead: Vec::new(),
        sweeps: Vec::new(),
        schema_due: false,
        now: SiteTime(2_000),
    };
    test.state.commit_poll(commit).await.expect("a commit");
    assert_eq!(test.state.stream().await.expect("a stream").complete_as_of, Some(SiteTime(1_000)));
    let second = test.state.begin_poll(SiteTime(3_000), 1).await.expect("a poll").expect("a stream");
    assert_ne!(second.gaps, poll.gaps, "the other one has its turn");
}

#[tokio::test]
async fn a_recheck_or_inverse_mark_does_not_hold_freshness_back() {
    let test = fixture().await;
    test.live().await;
    test.poll(1_000, &[], &[]).await;
    test.state
        .mark(&[request(7, DirtyReasons::RECHECK), request(8, DirtyReasons::INVERSE)], SiteTime(1_500))
        .await
        .expect("marks");
    test.poll(2_000, &[], &[]).await;
    assert_eq!(test.state.fresh_as_of().await.expect("a moment"), Some(SiteTime(2_000)));
    assert_eq!(test.state.due_marks(SiteTime(2_000), 10).await.expect("marks").len(), 2);
}

#[tokio::test]
async fn rows_keep_their_newest_version_and_buckets_follow() {
    let test = fixture().await;
    let (older, newer) = (test.token().await, test.token().await);
    test.finish(newer, vec![row(7, 10), row(1_007, 20)]).await;
    let finished = test.finish(older, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 99) }]).await;
    assert!(finished.changed.is_empty());
    let buckets = async |test: &Fixture| test.state.buckets(&shot()).await.expect("buckets");
    let expected = [BucketCount { bucket: 0, count: 1, sum: 10 }, BucketCount { bucket: 1, count: 1, sum: 20 }];
    assert_eq!(buckets(&test).await, expected);
    let token = test.token().await;
    test.finish(token, vec![RowDone { state: RowState::Retired, ..row(7, 0) }]).await;
    assert_eq!(buckets(&test).await, expected[1..]);
    assert_eq!(test.state.active_count(&shot()).await.expect("a count"), 1);
}

#[tokio::test]
async fn a_row_stored_over_a_newer_state_that_was_not_written_is_read_again() {
    let test = fixture().await;
    let first = test.token().await;
    test.finish(first, vec![row(7, 1)]).await;
    let slow = test.token().await;
    let fast = test.token().await;
    assert!(test.state.may_suppress(&fast, &[7]).await.expect("rows").is_empty(), "the slow read may still write");
    test.finish(fast, vec![RowDone { outcome: RowOutcome::Unchanged, ..row(7, 1) }]).await;
    let finished = test.finish(slow, vec![row(7, 2)]).await;
    assert_eq!(finished.conflicts, [7]);
    assert_eq!(test.marked().await, [7]);
}

#[tokio::test]
async fn an_unchanged_row_may_stay_unwritten_when_no_other_read_is_open() {
    let test = fixture().await;
    let first = test.token().await;
    test.finish(first, vec![row(7, 1)]).await;
    let lost = test.token().await;
    let second = test.token().await;
    assert!(test.state.may_suppress(&second, &[7]).await.expect("rows").is_empty());
    test.state.abandon(&lost).await.expect("an end");
    assert_eq!(test.state.may_suppress(&second, &[7, 8]).await.expect("rows").len(), 1);
}

#[tokio::test]
async fn a_stale_row_without_a_newer_one_on_record_keeps_its_mark() {
    let test = fixture().await;
    test.poll(1_000, &[101], &[7]).await;
    let token = test.token().await;
    test.finish(token, vec![RowDone { outcome: RowOutcome::Stale, ..row(7, 1) }]).await;
    assert_eq!(test.marked().await, [7]);
}

#[tokio::test]
async fn touched_keys_are_remembered_after_they_were_read() {
    let test = fixture().await;
    let before = test.state.generation().await.expect("a generation");
    test.poll(1_000, &[101], &[7]).await;
    let token = test.token().await;
    test.finish(token, vec![row(7, 1)]).await;
    test.state.mark(&[request(9, DirtyReasons::REPAIR)], SiteTime(1_000)).await.expect("a mark");
    assert_eq!(test.state.touched_since(&shot(), before).await.expect("ids"), [7]);
    let after = test.state.generation().await.expect("a generation");
    assert!(test.state.touched_since(&shot(), after).await.expect("ids").is_empty());
    test.poll(1_000 + 4 * 3_600_000, &[], &[]).await;
    assert!(test.state.touched_since(&shot(), before).await.expect("ids").is_empty(), "the log is cut");
}

#[tokio::test]
async fn versions_grow_over_processes_epochs_and_lost_files() {
    let test = fixture().await;
    let other = State::open(test.state.directory()).await.expect("a second handle");
    let first = test.token().await.rv;
    let second = other.begin_read(&shot(), SiteTime(0)).await.expect("a token").rv;
    assert!(second > first);
    other.begin_epoch(0).await.expect("an epoch");
    assert!(test.token().await.rv >> 40 > second >> 40);
    let new = fixture().await;
    new.state.begin_epoch(second).await.expect("an epoch");
    assert!(new.token().await.rv > second, "a new file starts above what the store has");
}

#[tokio::test]
async fn one_process_leads_at_a_time() {
    let test = fixture().await;
    let lead = test.state.lead().await.expect("the lead");
    let refused = test.state.lead().await.expect_err("it is taken");
    assert!(refused.to_string().starts_with("another sgcache follows this data directory"), "{refused}");
    assert!(test.state.is_led_here().await, "the other handle is one of this process");
    assert!(test.state.is_led().await);
    drop(lead);
    assert!(!test.state.is_led().await);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let test = fixture().await;
    let path = test.state.directory().join("state.sqlite");
    let connection = rusqlite::Connection::open(&path).expect("the file");
    connection.pragma_update(None, "user_version", 99).expect("a version");
    let refused = State::open(test.state.directory()).await.expect_err("it is newer");
    assert!(refused.to_string().contains("written by a newer sgcache (format 99, this one knows "), "{refused}");
}

#[tokio::test]
async fn an_import_goes_on_where_it_was() {
    let test = fixture().await;
    let segment = |last_id, end| Segment { last_id, end, done: false, retired: false };
    let import = ImportState {
        lo_rv: 5,
        segments: vec![segment(0, Some(50)), segment(50, None)],
        rows: 0,
        expected: Some(3),
        confirm_poll: None,
    };
    test.state.begin_import(&shot(), "layout", &import).await.expect("an import");
    let token = test.token().await;
    let step = Some(SegmentStep { index: 1, last_id: 70, done: true });
    let finish = Finish { rows: vec![row(60, 1), row(70, 1)], segment: step, ..Finish::new(token, SiteTime(0)) };
    let finished = test.state.finish(finish).await.expect("a finish");
    let reopened = State::open(test.state.directory()).await.expect("the same file");
    let record = reopened.type_record(&shot()).await.expect("a record").expect("a type");
    assert_eq!((record.state, record.import.clone()), (TypeState::Importing, finished.import));
    let import = record.import.expect("it runs");
    assert_eq!((import.rows, import.segments[1].last_id, import.segments[1].done), (2, 70, true));
}

#[tokio::test]
async fn a_sweep_answers_only_requests_that_were_due_when_it_began() {
    let test = fixture().await;
    test.live().await;
    test.poll(1_000, &[], &[]).await;
    let ask = async |at: i64| {
        let mut commit = test.commit(at, &[], &[]).await;
        commit.sweeps.push((shot(), Duration::from_secs(5)));
        test.state.commit_poll(commit).await.expect("a poll");
    };
    ask(2_000).await;
    ask(6_000).await;
    let first = test.state.due_sweeps(SiteTime(10_000)).await.expect("sweeps");
    assert_eq!(first.len(), 1, "the first is due, five seconds after it was asked for");
    test.state.finish_sweep(&first[0], &[], SiteTime(10_000)).await.expect("an end");
    assert!(test.state.due_sweeps(SiteTime(10_900)).await.expect("sweeps").is_empty());
    // Freshness waits for the second, and only for that.
    assert_eq!(test.state.fresh_as_of().await.expect("a moment"), Some(SiteTime(2_000)));
    let second = test.state.due_sweeps(SiteTime(15_000)).await.expect("sweeps");
    test.state.finish_sweep(&second[0], &[], SiteTime(15_000)).await.expect("an end");
    assert!(test.state.due_sweeps(SiteTime(99_000)).await.expect("sweeps").is_empty());
}

#[tokio::test]
async fn a_sweep_asked_for_again_while_it_ran_stays() {
    let test = fixture().await;
    test.live().await;
    test.poll(1_000, &[], &[]).await;
    test.state.request_sweep(&shot(), SiteTime(2_000)).await.expect("a sweep");
    let due = test.state.due_sweeps(SiteTime(2_000)).await.expect("sweeps");
    test.state.request_sweep(&shot(), SiteTime(3_000)).await.expect("a sweep");
    test.state.finish_sweep(&due[0], &[], SiteTime(3_000)).await.expect("an end");
    let again = test.state.due_sweeps(SiteTime(3_000)).await.expect("sweeps");
    assert_eq!(test.state.fresh_as_of().await.expect("a moment"), Some(SiteTime(1_000)));
    test.state.finish_sweep(&again[0], &[request(3, DirtyReasons::SCAN)], SiteTime(3_000)).await.expect("an end");
    assert!(test.state.due_sweeps(SiteTime(9_000)).await.expect("sweeps").is_empty());
    assert_eq!(test.marked().await, [3]);
}

#[tokio::test]
async fn a_dead_letter_ends_with_a_successful_read() {
    let test = fixture().await;
    test.poll(1_000, &[101], &[7]).await;
    let key = EntityRef::new("Shot", 7);
    let signed = |text: &str| format!("{text} https://files/a.jpg?X-Amz-Signature=5ecret");
    let dead = NewDead { kind: DeadKind::Read, key: key.clone(), payload: signed("{}"), error: signed("it fails") };
    let postponed = vec![Postponed { key, delay: Duration::from_secs(60), add: DirtyReasons::QUARANTINED }];
    let finish = Finish { dead: vec![dead], postponed, ..Finish::new(test.token().await, SiteTime(1_000)) };
    test.state.finish(finish).await.expect("a finish");
    let kept = test.state.dead(10).await.expect("dead letters").remove(0);
    assert!(kept.payload.contains("a.jpg") && !kept.payload.contains("5ecret"), "{}", kept.payload);
    assert!(kept.error.contains("a.jpg") && !kept.error.contains("5ecret"), "{}", kept.error);
    assert_eq!(test.state.quarantined(&shot()).await.expect("ids"), [7]);
    assert!(test.state.due_marks(SiteTime(60_999), 10).await.expect("marks").is_empty());
    assert_eq!(test.state.due_marks(SiteTime(61_000), 10).await.expect("marks")[0].attempts, 1);
    let token = test.token().await;
    test.finish(token, vec![row(7, 1)]).await;
    assert!(test.state.dead(10).await.expect("dead letters").is_empty());
}

#[tokio::test]
async fn a_mass_disappearance_is_held_until_an_operator_confirms_it() {
    let test = fixture().await;
    test.live().await;
    let allowed = async |count, at| test.state.may_vanish(&shot(), count, SiteTime(at)).await.expect("an answer");
    assert!(allowed(40, 0).await && !allowed(11, 1_000).await && allowed(10, 2_000).await);
    assert!(allowed(40, 601_000).await, "the first forty are ten minutes old");
    test.state
        .mark(&[request(7, DirtyReasons::CHANGE | DirtyReasons::DELETION_STOPPED)], SiteTime(0))
        .await
        .expect("a mark");
    assert!(test.state.open_breaker(&shot(), SiteTime(0)).await.expect("a breaker"));
    assert!(!test.state.close_breaker(&shot(), SiteTime(1)).await.expect("a breaker"), "a deletion waits");
    assert_eq!(test.state.confirm_deletions(&shot(), SiteTime(601_000)).await.expect("a number"), 1);
    assert!(allowed(1, 601_000).await);
    assert_eq!(test.state.held(&shot()).await.expect("a number"), 0);
}

#[tokio::test]
async fn announced_values_are_kept_with_the_mark_and_merged() {
    let test = fixture().await;
    let announced = |second: i64, event: i64, value: &str| {
        let value = Announcement::Value { value: value.into(), before: vec!["start".into()] };
        let mut expected = Expected::default();
        expected.announce("code", ExpectedField::new((second, EventId(event)), value));
        NewDirtyKey { expected, ..request(7, DirtyReasons::CHANGE) }
    };
    test.state.mark(&[announced(20, 4, "new")], SiteTime(0)).await.expect("a mark");
    test.state.mark(&[announced(10, 5, "old")], SiteTime(0)).await.expect("a mark");
    test.state.mark(&[request(7, DirtyReasons::CHANGE)], SiteTime(0)).await.expect("a mark");
    let marks = test.state.marks_of(&shot(), &[6, 7]).await.expect("marks");
    let field = &marks[0].expected.fields["code"];
    assert_eq!(field.at, (20, EventId(4)));
    assert_eq!(
        field.announced,
        Announcement::Value { value: "new".into(), before: vec!["start".into(), "old".into()] }
    );
}

#[tokio::test]
async fn a_type_is_no_fresher_than_the_key_whose_consequences_it_waits_for() {
    let test = fixture().await;
    let (version, key) = (EntityType::new("Version"), EntityRef::new("Shot", 7));
    test.live().await;
    test.poll(1_000, &[], &[]).await;
    let cause = NewDirtyKey { affects: vec![version.clone()], ..request(7, DirtyReasons::REVIVE) };
    let started = test.state.mark(&[cause], SiteTime(1_500)).await.expect("a mark");
    test.poll(2_000, &[], &[]).await;
    let through = async |ty: &EntityType| test.state.replication_status().await.expect("a status").read_through(ty);
    assert_eq!(started, 1);
    assert_eq!([through(&version).await, through(&shot()).await, through(&EntityType::new("Task")).await], [1, 1, 2]);
    // The read of the cause makes its consequence in the same transaction.
    let token = test.token().await;
    let since = test.state.marks(1).await.expect("marks")[0].since;
    let consequence = NewDirtyKey {
        since: Some(since),
        ..NewDirtyKey::new(EntityRef::new(version.clone(), 9), DirtyReasons::CHANGE)
    };
    let finish = Finish { seen: vec![key.id], marks: vec![consequence], ..Finish::new(token, SiteTime(2_500)) };
    test.state.finish(finish).await.expect("a finish");
    test.poll(3_000, &[], &[]).await;
    assert_eq!([through(&version).await, through(&shot()).await], [1, 3], "it was made before the second poll");
    let token = test.state.begin_read(&version, SiteTime(0)).await.expect("a token");
    test.state.finish(Finish { seen: vec![9], ..Finish::new(token, SiteTime(0)) }).await.expect("a finish");
    assert_eq!(through(&version).await, 3);
}

#[tokio::test]
async fn kept_moments_move_with_the_clock_of_the_site() {
    let test = fixture().await;
    test.live().await;
    let noon = 43_200_000;
    test.poll(noon, &[101], &[7]).await;
    test.state.defer(&[EntityRef::new("Shot", 7)], Duration::from_secs(60), SiteTime(noon)).await.expect("a pause");
    let two_hours_back = -7_200_000;
    test.state.move_moments(two_hours_back).await.expect("a move");
    let now = SiteTime(noon + two_hours_back);
    assert_eq!(test.state.stream().await.expect("a stream").complete_as_of, Some(now));
    assert!(test.state.due_marks(now.after(Duration::from_secs(59)), 9).await.expect("marks").is_empty());
    assert_eq!(test.state.due_marks(now.after(Duration::from_secs(60)), 9).await.expect("marks").len(), 1);
}

#[tokio::test]
async fn order_is_decided_by_the_number_of_a_poll_and_not_by_its_moment() {
    let test = fixture().await;
    test.live().await;
    test.poll(9_000_000, &[], &[]).await;
    test.poll(1_000, &[], &[]).await;
    let stream = test.state.stream().await.expect("a stream");
    assert_eq!((stream.complete_poll, stream.complete_as_of), (2, Some(SiteTime(1_000))), "the clock was set back");
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_pruned_by_age() {
    let test = fixture().await;
    let runs =
        [("a", "nightly", 1, "ok"), ("b", "sync", 2, "ok"), ("c", "nightly", 3, "drift"), ("d", "nightly", 4, "ok")];
    for (run_id, pipeline, started_at, status) in runs {
        let report = serde_json::json!({"run_id": run_id});
        let (run_id, pipeline, status) = (run_id.to_owned(), pipeline.to_owned(), status.to_owned());
        let started_at = Timestamp(started_at);
        let run = RunRow { run_id, pipeline, status, started_at, finished_at: Some(started_at), report };
        test.state.insert_run(&run).await.expect("a run");
    }
    let ids = async |pipeline| -> Vec<String> {
        test.state.runs(10, pipeline).await.expect("runs").into_iter().map(|run| run.run_id).collect()
    };
    assert_eq!(ids(None).await, ["d", "c", "b", "a"]);
    assert_eq!(ids(Some("nightly")).await, ["d", "c", "a"]);
    assert_eq!(test.state.prune_runs(Timestamp(10), Timestamp(3), 1).await.expect("a number"), 1);
    assert_eq!(ids(None).await, ["d", "c", "b"]);
    assert_eq!(test.state.prune_runs(Timestamp(10), Timestamp(10), 1).await.expect("a number"), 1);
    assert_eq!(ids(None).await, ["d", "b"]);
}

#[tokio::test]
async fn occurrences_that_did_not_run_are_found_when_they_are_asked_for_and_displace_no_run() {
    let test = fixture().await;
    let rows = [("a", 1, "ok"), ("b", 2, "drift"), ("c", 3, SKIPPED_OCCURRENCE), ("d", 4, SKIPPED_OCCURRENCE)];
    for (run_id, moment, status) in rows {
        let (run_id, pipeline, status) = (run_id.to_owned(), "nightly".to_owned(), status.to_owned());
        let (started_at, report) = (Timestamp(moment), serde_json::json!({"run_id": run_id}));
        let run = RunRow { run_id, pipeline, status, started_at, finished_at: Some(started_at), report };
        test.state.insert_run(&run).await.expect("a run");
    }
    let ids = async |filter: RunFilter| -> Vec<String> {
        test.state.find_runs(10, filter).await.expect("runs").into_iter().map(|run| run.run_id).collect()
    };
    let all = RunFilter { skipped_occurrences: true, ..RunFilter::default() };
    assert_eq!(ids(RunFilter::default()).await, ["b", "a"]);
    assert_eq!(test.state.finished_run_ids(10).await.expect("ids"), ["b", "a"]);
    assert_eq!(ids(all.clone()).await, ["d", "c", "b", "a"]);
    assert_eq!(ids(RunFilter { since: Some(Timestamp(2)), ..all.clone() }).await, ["d", "c", "b"]);
    let statuses = vec!["drift".to_owned(), SKIPPED_OCCURRENCE.to_owned()];
    assert_eq!(ids(RunFilter { statuses, ..all.clone() }).await, ["d", "c", "b"]);
    assert_eq!(test.state.prune_runs(Timestamp(10), Timestamp(10), 1).await.expect("a number"), 2);
    assert_eq!(ids(all).await, ["d", "b"]);
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(check_history(steps))?;
    }
}

/// Checks the invariants after every step.
async fn check_history(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let test = fixture().await;
    let mut open: Vec<ReadToken> = Vec::new();
    let mut marks: BTreeMap<i64, i64> = BTreeMap::new();
    let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Mark(id) => {
                test.state.mark(&[request(id, DirtyReasons::CHANGE)], SiteTime(0)).await.expect("a mark");
                marks.insert(id, test.state.generation().await.expect("a generation"));
            }
            Step::Begin => open.push(test.token().await),
            Step::Finish { read, id, hash, active, outcome } => {
                if read >= open.len() {
                    continue;
                }
                let token = open.remove(read);
                let outcome = [RowOutcome::Written, RowOutcome::Unchanged, RowOutcome::Stale][usize::from(outcome)];
                let state = if active { RowState::Active } else { RowState::Retired };
                let newest = versions.get(&id).is_none_or(|rv| *rv < token.rv);
                let finished = test.finish(token.clone(), vec![RowDone { outcome, state, ..row(id, hash) }]).await;
                let settled = !(newest && outcome == RowOutcome::Stale);
                if settled && marks.get(&id).is_some_and(|generation| *generation <= token.generation) {
                    marks.remove(&id);
                }
                if finished.conflicts.contains(&id) {
                    marks.insert(id, test.state.generation().await.expect("a generation"));
                }
            }
        }
        prop_assert_eq!(test.marked().await, marks.keys().copied().collect::<Vec<_>>());
        let rows = test.state.active_rows(&shot(), 0, i64::MAX, 100).await.expect("rows");
        let mut sums: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
        for (id, meta) in &rows {
            let sum = sums.entry(id / 1000).or_default();
            *sum = (sum.0 + 1, sum.1 + i64::from(meta.hash.short()));
        }
        let buckets = test.state.buckets(&shot()).await.expect("buckets");
        prop_assert_eq!(buckets.iter().map(|b| (b.bucket, (b.count, b.sum))).collect::<BTreeMap<_, _>>(), sums);
        for id in [700, 1400, 2100] {
            let rv = test.state.row(&shot(), id).await.expect("a row").map_or(0, |meta| meta.rv);
            prop_assert!(rv >= versions.get(&id).copied().unwrap_or(0));
            versions.insert(id, rv);
        }
    }
    Ok(())
}
