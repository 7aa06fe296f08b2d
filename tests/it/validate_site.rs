//! Validations of a cache against the site that it follows: faults made behind
//! the back of sync are found by name, and work going on meanwhile is no fault.
//!
//! The validator polls and fetches by itself, on a clock that the test moves.
//! Whoever edits the site does so right after requests of the validation, so that
//! changes fall between its reads.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{EntityRef, Timestamp};
use sgcache::filter::{Page, RawFilter, RawSort};
use sgcache::report::{Action, Mismatch, MismatchClass, MismatchKind, StepResult, Verdict};
use sgcache::schema::Schema;
use sgcache::sim::{Edits, Site};
use sgcache::store::{FetchedRow, ReadVersion, RowState};
use sgcache::sync::{Replica, Steps};
use sgcache::validate::{DataCheck, Sample, Selection, Settings, ValidateError, Validator, stale_ratio_upper95};

use crate::sync_cache::{CONFIGS, Cache, create, empty_site, to};

/// A complete cache that nothing follows but the validator.
struct Checked {
    cache: Cache,
    replica: Replica,
    validator: Validator,
    schema: Arc<Schema>,
}

impl Checked {
    async fn of(site: Arc<Site>) -> Self {
        Self::seen(Cache::live(site).await).await
    }

    async fn seen(mut cache: Cache) -> Self {
        let replica = cache.replica().clone();
        cache.stop();
        let settings = Settings { confirm_pause: Duration::ZERO, ..Settings::default() };
        let validator = Validator::new(replica.clone()).with_settings(settings);
        let schema = Arc::new(cache.client().schema().await.expect("a schema"));
        Self { cache, replica, validator, schema }
    }

    /// A cache of this many shots.
    async fn of_shots(count: usize) -> (Self, Vec<i64>) {
        let site = empty_site();
        let shots = (0..count).map(|index| create(&site, "Shot", json!({"code": format!("{index:04}")}))).collect();
        (Self::of(site).await, shots)
    }

    fn site(&self) -> &Arc<Site> {
        self.cache.site()
    }

    async fn counts(&self, types: &[&str], repair: bool) -> StepResult {
        let layouts: Vec<_> = types.iter().map(|name| self.cache.layout(name).clone()).collect();
        self.validator.counts(&layouts, repair).await.expect("a validation")
    }

    fn check(&self, sample: Sample) -> DataCheck {
        DataCheck { sample, fields: None, ignored: Vec::new(), repair: false, schema: Arc::clone(&self.schema) }
    }

    async fn data(&self, types: &[&str], check: &DataCheck) -> StepResult {
        let layouts: Vec<_> = types.iter().map(|name| self.cache.layout(name).clone()).collect();
        self.validator.data(&layouts, check).await.expect("a validation")
    }

    /// Lets `work` run while `people` do something after each request that the
    /// site was asked; they are told how many times they were called before.
    async fn amid<T>(&self, work: impl Future<Output = T>, mut people: impl FnMut(u64)) -> T {
        let site = self.site();
        let asked = || site.requests.all().values().sum::<u64>();
        let edits = async {
            let (mut seen, mut calls) = (asked(), 0);
            loop {
                if asked() != seen {
                    seen = asked();
                    self.replica.clock().hold(self.cache.tick(Duration::from_secs(1)));
                    people(calls);
                    calls += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = edits => { let never: Infallible = never; match never {} }
        }
    }

    async fn put(&self, row: FetchedRow) {
        self.replica.store().put(&[row]).await.expect("a write");
    }

    async fn version(&self) -> (ReadVersion, Timestamp) {
        let rv = self.replica.state().next_rv().await.expect("a version");
        (ReadVersion(rv), self.replica.now().timestamp())
    }

    /// Takes a row out of the store, unknown to everybody else.
    async fn lose(&self, key: EntityRef) {
        let (rv, now) = self.version().await;
        self.put(FetchedRow::absent(key, rv, now, None)).await;
    }

    /// Stores a copy of a row of the site under another id.
    async fn invent(&self, like: EntityRef, id: i64) {
        let layout = self.cache.layout(like.entity_type.as_str());
        let row = self.cache.shown(layout).await.remove(&like.id).expect("a row");
        let (rv, now) = self.version().await;
        let key = EntityRef::new(like.entity_type, id);
        let row = FetchedRow::from_site(layout, key, rv, RowState::Active, row, now, None).expect("a whole row");
        self.put(row).await;
    }

    async fn corrupt(&self, key: EntityRef, field: &str, value: Value) {
        self.replica.store().corrupt(&key, field, value).await.expect("a corruption");
    }

    /// Follows until nothing is left to do, and compares every row.
    async fn assert_equal_to_site(mut self) {
        self.cache.start(Steps::default()).await.expect("a start");
        self.cache.quiesce().await;
        self.cache.assert_equal_to_site().await;
    }
}

fn shot(id: i64) -> EntityRef {
    EntityRef::new("Shot", id)
}

/// The newest ids: an order that no edit changes.
fn latest(rows: u32) -> Sample {
    Sample::Query(Selection::latest(rows))
}

fn everything() -> Sample {
    latest(500)
}

/// Says what was found in one line each.
fn said(result: &StepResult) -> Vec<String> {
    let line = |found: &Mismatch| {
        let field = found.field.as_deref().map(|field| format!(" {field}")).unwrap_or_default();
        format!("{} {}:{}{field}", found.kind.as_str(), found.entity_type, found.id)
    };
    let mut lines: Vec<_> = result.mismatches.iter().map(line).collect();
    lines.sort();
    lines
}

#[track_caller]
fn assert_clean(result: &StepResult, when: &str) {
    assert_eq!((said(result), result.drift, result.unresolved), (vec![], 0, 0), "{when}");
}

/// Row 54: at no moment of a busy day does a correct cache look wrong.
#[tokio::test]
async fn a_correct_cache_raises_no_alarm_while_people_work() {
    let site = Site::generated(54, 2_000);
    site.clock.set(Timestamp(1_700_000_000));
    let mut cache = Cache::of(Arc::clone(&site)).await;
    cache.tick(Duration::from_secs(3 * 365 * 24 * 3600));
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    let checked = Checked::seen(cache).await;
    let mut edits = Edits::new(Arc::clone(&site), 54);
    let (layouts, mut touched) = (checked.cache.layouts().to_vec(), 0);
    let before = site.last_event_id();
    for round in 0..20 {
        let counted = checked.validator.counts(&layouts, false);
        let counted = checked.amid(counted, |_| edits.step()).await.expect("a validation");
        assert_clean(&counted, &format!("counts, round {round}"));
        assert!(counted.by_type.values().all(|ty| ty.verdict == Verdict::Ok && ty.checked > 0), "{counted:?}");
        let check = checked.check(latest(40));
        let compared = checked.validator.data(&layouts, &check);
        let compared = checked.amid(compared, |_| edits.step()).await.expect("a validation");
        assert_clean(&compared, &format!("data, round {round}"));
        touched += counted.touched + compared.touched;
    }
    assert!(touched > 100, "the edits did not fall between the reads: {touched}");
    assert!(site.last_event_id().0 > before.0 + 500, "hardly anything happened");
    checked.assert_equal_to_site().await;
}

/// The most edits during one check: on a busy machine they would never end.
const EDITS: u64 = 90;

/// Row 55: one lost row is found in every run, however busy its neighbours are.
#[tokio::test]
async fn a_lost_row_is_found_among_others_that_come_and_go() {
    let (checked, shots) = Checked::of_shots(40).await;
    let site = Arc::clone(checked.site());
    let (victims, others) = shots.split_at(20);
    for victim in victims {
        checked.lose(shot(*victim)).await;
        let people = |call: u64| {
            // Every request of the check brings an edit, and an edit more requests.
            if call >= EDITS {
                return;
            }
            let other = others[call as usize % others.len()];
            match call % 3 {
                0 => site.retire("Shot", other).map(|_| ()).expect("a retirement"),
                1 => drop(create(&site, "Shot", json!({"code": format!("new_{call}")}))),
                _ => site.revive("Shot", others[(call as usize - 2) % others.len()]).map(|_| ()).expect("a revival"),
            }
        };
        let result = checked.amid(checked.counts(&["Shot"], true), people).await;
        assert_eq!(said(&result), [format!("missing Shot:{victim}")]);
        assert_eq!((result.drift, result.repaired, result.unresolved), (1, 1, 0));
    }
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_row_that_vanished_from_the_store_is_found_with_its_id_and_mended() {
    let (checked, shots) = Checked::of_shots(12).await;
    assert_clean(&checked.counts(&["Shot", "Project"], false).await, "before");
    checked.lose(shot(shots[4])).await;

    let result = checked.counts(&["Shot", "Project"], false).await;
    assert_eq!(said(&result), [format!("missing Shot:{}", shots[4])]);
    let ty = &result.by_type["Shot"];
    assert_eq!((ty.site_count, ty.cache_count, ty.missing, ty.verdict), (Some(12), Some(11), 1, Verdict::Drift));
    assert_eq!(result.by_type["Project"].verdict, Verdict::Ok);
    let found = &result.mismatches[0];
    assert_eq!((&found.shotgun, &found.cached, found.action), (&json!("0004"), &Value::Null, Action::Reported));

    let result = checked.counts(&["Shot"], true).await;
    assert_eq!((result.missing, result.drift, result.repaired, result.unresolved), (1, 1, 1, 0));
    assert_eq!(result.mismatches[0].action, Action::Repaired);
    assert_clean(&checked.counts(&["Shot"], false).await, "after the repair");
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_row_that_the_site_never_had_is_found_and_removed() {
    let (checked, shots) = Checked::of_shots(6).await;
    let id = shots[5] + 100;
    checked.invent(shot(shots[0]), id).await;
    for result in [checked.counts(&["Shot"], false).await, checked.data(&["Shot"], &checked.check(everything())).await]
    {
        assert_eq!(said(&result), [format!("extra Shot:{id}")]);
        assert_eq!((&result.mismatches[0].cached, &result.mismatches[0].shotgun), (&json!("0000"), &Value::Null));
    }
    let result = checked.counts(&["Shot"], true).await;
    assert_eq!((result.extra, result.repaired, result.unresolved), (1, 1, 0));
    checked.assert_equal_to_site().await;
}

/// Row 56: the number is right and the rows are not.
#[tokio::test]
async fn one_missing_and_one_extra_row_in_a_bucket_do_not_cancel_out() {
    let (checked, shots) = Checked::of_shots(8).await;
    let extra = shots[7] + 50;
    checked.invent(shot(shots[2]), extra).await;
    checked.lose(shot(shots[3])).await;

    let result = checked.counts(&["Shot"], true).await;
    let ty = &result.by_type["Shot"];
    assert_eq!(ty.site_count, ty.cache_count, "the numbers agree");
    assert_eq!(said(&result), [format!("extra Shot:{extra}"), format!("missing Shot:{}", shots[3])]);
    assert_eq!((result.drift, result.repaired), (2, 2));
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_corrupted_row_is_found_field_by_field_and_called_silent() {
    let (checked, shots) = Checked::of_shots(10).await;
    checked.corrupt(shot(shots[1]), "code", json!("spoiled")).await;
    checked.corrupt(shot(shots[1]), "sg_cut_in", json!(7)).await;
    checked.corrupt(shot(shots[6]), "description", json!("spoiled, too")).await;

    let result = checked.data(&["Shot", "Project"], &checked.check(everything())).await;
    let (one, two) = (shots[1], shots[6]);
    let expected = [format!("differs Shot:{one} code"), format!("differs Shot:{one} sg_cut_in")];
    assert_eq!(said(&result), [&expected[..], &[format!("differs Shot:{two} description")]].concat());
    assert_eq!((result.checked, result.differs, result.drift), (11, 2, 2), "entities, not fields");
    assert!(result.mismatches.iter().all(|found| found.class == Some(MismatchClass::Silent)), "{result:?}");
    let code = result.mismatches.iter().find(|found| found.field.as_deref() == Some("code")).expect("the code");
    assert_eq!((&code.cached, &code.shotgun), (&json!("spoiled"), &json!("0001")));
    assert!(code.cache_rv.is_some() && code.updated_at.is_some(), "{code:?}");

    let only_codes = DataCheck { fields: Some(vec!["id".into(), "code".into()]), ..checked.check(everything()) };
    assert_eq!(said(&checked.data(&["Shot"], &only_codes).await), expected[..1]);

    // `name` is a field of projects only.
    let ignored = vec!["code".into(), "sg_cut_in".into(), "name".into()];
    let others = DataCheck { ignored, ..checked.check(everything()) };
    assert_eq!(said(&checked.data(&["Shot", "Project"], &others).await), [format!("differs Shot:{two} description")]);

    let repair = DataCheck { repair: true, ..checked.check(everything()) };
    let result = checked.data(&["Shot"], &repair).await;
    assert_eq!((result.drift, result.repaired, result.unresolved), (2, 2, 0));
    assert!(result.mismatches.iter().all(|found| found.action == Action::Repaired));
    assert_clean(&checked.data(&["Shot"], &repair).await, "after the repair");
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_change_of_which_no_event_tells_is_called_so() {
    let (checked, shots) = Checked::of_shots(3).await;
    checked.cache.tick(Duration::from_secs(60));
    checked.site().update_silently("Shot", shots[1], json!({"description": "unheard"})).expect("an update");
    let result = checked.data(&["Shot"], &checked.check(everything())).await;
    let found = result.mismatches.iter().find(|found| found.field.as_deref() == Some("description"));
    let found = found.expect("the description");
    assert_eq!((found.id, found.class), (shots[1], Some(MismatchClass::NoEvent)));
    assert_eq!(result.differs, 1);
    // A count looks at no field.
    assert_clean(&checked.counts(&["Shot"], false).await, "counts");
}

/// A change after any request of a validation, whichever it is.
#[tokio::test]
async fn a_change_between_the_reads_is_never_reported() {
    let (checked, shots) = Checked::of_shots(60).await;
    let site = Arc::clone(checked.site());
    let mut rows = shots.iter().copied();
    let mut fell_between = 0;
    for moment in 0..12 {
        for change in ["retire", "create", "update"] {
            for counts in [true, false] {
                let victim = rows.next().unwrap_or(shots[moment as usize]);
                let people = |call: u64| {
                    if call != moment {
                        return;
                    }
                    match change {
                        "retire" => site.retire("Shot", victim).map(|_| ()).expect("a retirement"),
                        "create" => drop(create(&site, "Shot", json!({"code": format!("late_{victim}")}))),
                        _ => {
                            let words = json!({"description": format!("{moment}"), "sg_cut_in": moment});
                            // Retired ones among the first are no longer edited.
                            let _ = site.update("Shot", victim, words);
                        }
                    }
                };
                let check = checked.check(everything());
                let result = if counts {
                    checked.amid(checked.counts(&["Shot"], false), people).await
                } else {
                    checked.amid(checked.data(&["Shot"], &check), people).await
                };
                assert_clean(&result, &format!("{change} after request {moment}, counts: {counts}"));
                fell_between += result.touched;
            }
        }
    }
    assert!(fell_between > 0, "no change fell between the reads");
    checked.assert_equal_to_site().await;
}

/// A row that is another one at each look cannot be told to be wrong.
#[tokio::test]
async fn a_row_that_never_stands_still_is_unverifiable_and_no_drift() {
    let (checked, shots) = Checked::of_shots(5).await;
    let (site, restless) = (Arc::clone(checked.site()), shots[2]);
    let check = checked.check(everything());
    let result = checked
        .amid(checked.data(&["Shot"], &check), |call| {
            site.update("Shot", restless, json!({"sg_cut_in": call})).expect("an update");
        })
        .await;
    assert_clean(&result, "data");
    assert_eq!((result.checked, result.touched, result.unverifiable), (4, 1, 1));

    let result = checked
        .amid(checked.counts(&["Shot"], false), |call| {
            let changed = if call % 2 == 0 { site.retire("Shot", restless) } else { site.revive("Shot", restless) };
            changed.expect("a change");
        })
        .await;
    assert_clean(&result, "counts");
    assert_eq!(result.touched, 1);
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn random_pages_say_how_much_may_be_stale_at_most() {
    let (checked, shots) = Checked::of_shots(300).await;
    let pages = |seed| Sample::RandomPages { pages: 6, page_size: 40, seed };
    let result = checked.data(&["Shot"], &checked.check(pages(7))).await;
    assert!(result.checked >= 40 && result.checked <= 240, "{result:?}");
    assert_eq!(result.stale_ratio_upper95, stale_ratio_upper95(0, result.checked));

    for id in &shots {
        checked.corrupt(shot(*id), "code", json!("spoiled")).await;
    }
    let spoiled = checked.data(&["Shot"], &checked.check(pages(7))).await;
    assert_eq!(spoiled.checked, result.checked, "the same seed draws the same rows");
    assert_eq!((spoiled.drift, spoiled.stale_ratio_upper95), (result.checked, Some(1.0)));
    let other = checked.data(&["Shot"], &checked.check(pages(8))).await;
    assert_ne!(by_id(&other), by_id(&spoiled), "another seed draws others");

    let latest = checked.data(&["Shot"], &checked.check(latest(5))).await;
    assert_eq!((latest.drift, latest.stale_ratio_upper95), (5, None), "no random sample, no bound");
}

fn by_id(result: &StepResult) -> BTreeMap<i64, MismatchKind> {
    result.mismatches.iter().map(|found| (found.id, found.kind)).collect()
}

#[tokio::test]
async fn rotation_walks_through_all_rows_and_starts_again() {
    let (checked, shots) = Checked::of_shots(25).await;
    let (extra, lost) = (shots[24] + 9, shots[24]);
    checked.corrupt(shot(shots[3]), "code", json!("spoiled")).await;
    checked.corrupt(shot(shots[13]), "code", json!("spoiled")).await;
    checked.lose(shot(lost)).await;
    checked.invent(shot(shots[0]), extra).await;
    let next = checked.check(Sample::Rotate { rows: 10, name: "sampled/rotate".into() });
    let first = vec![format!("differs Shot:{} code", shots[3])];
    let second = vec![format!("differs Shot:{} code", shots[13])];
    let third = vec![format!("extra Shot:{extra}"), format!("missing Shot:{lost}")];
    for expected in [(10, &first), (10, &second), (6, &third), (10, &first)] {
        let result = checked.data(&["Shot"], &next).await;
        assert_eq!((result.checked, &said(&result)), expected);
    }
    let another = checked.check(Sample::Rotate { rows: 10, name: "nightly/rotate".into() });
    assert_eq!(said(&checked.data(&["Shot"], &another).await), first, "each step has a place of its own");
}

#[tokio::test]
async fn pages_of_a_selection_follow_each_other() {
    let (checked, shots) = Checked::of_shots(30).await;
    checked.corrupt(shot(shots[14]), "code", json!("spoiled")).await;
    let by_id = vec![RawSort { path: "id".into(), descending: false }];
    let filter = RawFilter::parse(r#"[["id", "greater_than", 0]]"#, false).expect("a filter");
    for (number, drift) in [(1, 0), (2, 1), (3, 0)] {
        let page = Page { size: 10, number };
        let selection = Selection { filter: filter.clone(), order: by_id.clone(), page };
        let result = checked.data(&["Shot"], &checked.check(Sample::Query(selection))).await;
        assert_eq!((result.checked, result.drift), (10, drift), "page {number}");
    }
}

#[tokio::test]
async fn a_type_that_is_not_imported_is_an_error_that_says_what_to_do() {
    let mut cache = Cache::of(empty_site()).await;
    cache.start(Steps::default()).await.expect("a start");
    let checked = Checked::seen(cache).await;
    let shots = [checked.cache.layout("Shot").clone()];
    let check = checked.check(everything());
    for error in [
        checked.validator.counts(&shots, false).await.expect_err("nothing to compare"),
        checked.validator.data(&shots, &check).await.expect_err("nothing to compare"),
    ] {
        assert!(matches!(error, ValidateError::NotImported), "{error:?}");
        assert!(error.to_string().contains("`sgcache job import`"), "{error}");
    }
}

#[tokio::test]
async fn a_type_that_is_not_imported_beside_others_is_named_with_the_remedy() {
    let mut cache = Cache::of(empty_site()).await;
    let shots: Vec<_> = CONFIGS.iter().copied().filter(|(name, _)| *name == "Shot").collect();
    cache.configure(&shots).await;
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.configure(CONFIGS).await;
    cache.start(Steps::default()).await.expect("a start");
    let checked = Checked::seen(cache).await;
    let check = checked.check(everything());
    for result in [checked.counts(&["Shot", "Task"], false).await, checked.data(&["Shot", "Task"], &check).await] {
        assert_eq!((result.by_type["Shot"].verdict, &result.by_type["Shot"].problem), (Verdict::Ok, &None));
        let task = &result.by_type["Task"];
        assert_eq!(task.verdict, Verdict::Inconclusive);
        let problem = task.problem.as_deref().expect("a problem");
        assert!(
            problem.starts_with("not imported yet: ") && problem.contains("`sgcache job import Task`"),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_name_that_links_show_wrongly_is_found_once_at_its_target_and_mended() {
    let site = empty_site();
    let person = site.create("HumanUser", json!({"name": "Ann", "login": "ann"})).expect("a person");
    for n in 0..3 {
        create(&site, "Task", json!({"content": format!("t{n}"), "task_assignees": [to("HumanUser", person)]}));
    }
    let checked = Checked::of(site).await;
    let check = checked.check(everything());
    assert_clean(&checked.data(&["Task"], &check).await, "before");
    checked.site().update_silently("HumanUser", person, json!({"name": "Anna"})).expect("a rename");
    let result = checked.data(&["Task", "Shot"], &check).await;
    assert_eq!(said(&result), [format!("name HumanUser:{person} name")]);
    assert_eq!((result.names, result.differs, result.drift), (1, 0, 1));
    let found = &result.mismatches[0];
    assert_eq!(
        (&found.cached, &found.shotgun, found.class),
        (&json!("Ann"), &json!("Anna"), Some(MismatchClass::Name))
    );
    assert_clean(&checked.counts(&["Task"], false).await, "a count looks at no name");

    let repair = DataCheck { repair: true, ..check.clone() };
    let result = checked.data(&["Task"], &repair).await;
    assert_eq!((result.names, result.repaired, result.unresolved), (1, 1, 0));
    assert_clean(&checked.data(&["Task"], &check).await, "after the repair");
    let layouts = [checked.cache.layout("Task").clone()];
    checked.site().update_silently("HumanUser", person, json!({"name": "Annie"})).expect("a rename");
    let found = checked.data(&["Task"], &check).await.mismatches;
    let repaired = checked.validator.repair_found(&layouts, &found, 10, true).await.expect("a repair");
    assert_eq!((repaired.repaired, repaired.unresolved), (1, 0));
    assert_clean(&checked.data(&["Task"], &check).await, "after the repair of what was found");
}

#[tokio::test]
async fn a_wrong_name_whose_row_is_found_wrong_itself_is_not_told_twice() {
    let site = empty_site();
    let asset = create(&site, "Asset", json!({"code": "tree"}));
    create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let checked = Checked::of(site).await;
    let check = checked.check(everything());
    checked.site().update_silently("Asset", asset, json!({"code": "oak"})).expect("a rename");
    let both = checked.data(&["Shot", "Asset"], &check).await;
    assert!(said(&both).iter().all(|line| line.starts_with(&format!("differs Asset:{asset}"))), "{:?}", said(&both));
    assert_eq!((both.names, both.drift), (0, 1));
    let shots = checked.data(&["Shot"], &DataCheck { repair: true, ..check }).await;
    assert_eq!(said(&shots), [format!("name Asset:{asset} code")]);
    assert_eq!((shots.repaired, shots.unresolved), (1, 0));
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn renames_during_a_comparison_are_never_reported() {
    let site = empty_site();
    let person = site.create("HumanUser", json!({"name": "Ann", "login": "ann"})).expect("a person");
    let asset = create(&site, "Asset", json!({"code": "tree"}));
    create(&site, "Task", json!({"content": "t", "task_assignees": [to("HumanUser", person)]}));
    create(&site, "Shot", json!({"code": "a", "assets": [to("Asset", asset)]}));
    let checked = Checked::of(site).await;
    let (site, check) = (Arc::clone(checked.site()), checked.check(everything()));
    for round in 0..4 {
        let people = |call: u64| {
            let name = format!("name {round} {call}");
            site.update("HumanUser", person, json!({"name": name})).expect("a rename");
            site.update("Asset", asset, json!({"code": name})).expect("a rename");
        };
        let result = checked.amid(checked.data(&["Shot", "Task"], &check), people).await;
        assert_clean(&result, &format!("round {round}"));
    }
    checked.assert_equal_to_site().await;
}

#[tokio::test]
async fn a_field_or_filter_that_does_not_fit_is_named_with_the_nearest_one() {
    let (checked, _) = Checked::of_shots(1).await;
    let shots = [checked.cache.layout("Shot").clone()];
    let fields = DataCheck { fields: Some(vec!["code".into(), "sg_cut_inn".into()]), ..checked.check(everything()) };
    let error = checked.validator.data(&shots, &fields).await.expect_err("an unknown field").to_string();
    assert!(error.starts_with("Shot.sg_cut_inn is not cached; did you mean `sg_cut_in`?"), "{error}");

    let filter = RawFilter::parse(r#"[["sg_cut_inn", "is", 1]]"#, false).expect("a filter");
    let selection = Selection { filter, ..Selection::latest(5) };
    let check = checked.check(Sample::Query(selection));
    let error = checked.validator.data(&shots, &check).await.expect_err("an unknown field").to_string();
    assert!(error.contains("sg_cut_inn") && error.contains("Shot"), "{error}");
}

#[tokio::test]
async fn a_repair_verifies_what_the_check_compared_and_no_other_field() {
    let (mut checked, shots) = Checked::of_shots(3).await;
    let settings = Settings { confirm_pause: Duration::ZERO, settle: Duration::ZERO, ..Settings::default() };
    checked.validator = Validator::new(checked.replica.clone()).with_settings(settings);
    let site = Arc::clone(checked.site());
    // A field that is another one at each read, which is why the check leaves it out.
    let moving = |call: u64| {
        site.update_silently("Shot", shots[1], json!({"description": format!("{call}")})).expect("an update");
    };
    let check = |repair| DataCheck {
        ignored: vec!["description".into(), "updated_at".into()],
        repair,
        ..checked.check(everything())
    };

    checked.corrupt(shot(shots[1]), "code", json!("spoiled")).await;
    let result = checked.amid(checked.data(&["Shot"], &check(true)), moving).await;
    assert_eq!((result.drift, result.repaired, result.unresolved), (1, 1, 0), "{result:?}");

    checked.corrupt(shot(shots[1]), "code", json!("spoiled again")).await;
    let found = checked.amid(checked.data(&["Shot"], &check(false)), moving).await;
    let layouts = [checked.cache.layout("Shot").clone()];
    let repairing = checked.validator.repair_found(&layouts, &found.mismatches, 10, true);
    let result = checked.amid(repairing, moving).await.expect("a repair");
    assert_eq!((found.drift, result.repaired, result.unresolved), (1, 1, 0), "{result:?}");
}
