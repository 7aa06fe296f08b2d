//! Tests of what proves that a row is newer than an entry, and of the rereads without
//! proof.

use serde_json::json;

use super::*;
use crate::entity::RowHash;
use crate::state::{AsOf, LIFE};

/// The second in which the entry of the tests was written.
const WRITTEN: i64 = 1_000;

fn at(id: i64) -> (i64, EventId) {
    (WRITTEN, EventId(id))
}

fn value(before: Value, value: Value) -> ExpectedField {
    ExpectedField::new(at(1), Announcement::Value { value, before: vec![before] })
}

fn link(present: bool) -> ExpectedField {
    let link = ExpectedLink { target: EntityRef::new("Asset", 7), present, at: at(1), returned: false };
    ExpectedField { own: false, ..ExpectedField::new(at(1), Announcement::Links(vec![link])) }
}

fn expected(name: &str, field: ExpectedField) -> Expected {
    let mut expected = Expected::default();
    if field.own {
        expected.note_edit(field.at.0);
    }
    expected.announce(name, field);
    expected
}

fn meta(updated_at: i64, read_at: i64) -> RowMeta {
    RowMeta {
        rv: 1,
        state: RowState::Active,
        updated_at: Some(Timestamp(updated_at)),
        hash: RowHash(0),
        name: 0,
        last_event: None,
        read_at: SiteTime(read_at * 1000),
    }
}

fn types(name: &str) -> Option<DataType> {
    match name {
        "code" => Some(DataType::Text),
        "image" => Some(DataType::Image),
        "sg_sequence" => Some(DataType::Entity),
        "assets" => Some(DataType::MultiEntity),
        _ => None,
    }
}

/// When a row was read, unless a test says otherwise.
const READ_AT: SiteTime = SiteTime((WRITTEN + 10) * 1000);

/// A read ten seconds after the entry, of a row that was known as of an hour before.
struct Read {
    state: RowState,
    row: Value,
    updated_at: i64,
    before: Option<RowMeta>,
    gone: BTreeSet<EntityRef>,
    now: SiteTime,
}

impl Read {
    fn of(row: Value, updated_at: i64) -> Self {
        let before = Some(meta(WRITTEN - 3600, WRITTEN - 3600));
        Self { state: RowState::Active, row, updated_at, before, gone: BTreeSet::new(), now: READ_AT }
    }

    fn prove(&self, expected: &Expected) -> Proof {
        let shown = Shown {
            state: self.state,
            row: self.row.as_object(),
            updated_at: self.row.is_object().then_some(Timestamp(self.updated_at)),
            before: self.before.as_ref(),
            now: self.now,
        };
        shown.prove(expected, &types, &self.gone)
    }

    fn proves(&self, expected: &Expected) -> bool {
        self.prove(expected).unproven.fields.is_empty()
    }
}

#[test]
fn a_row_that_shows_the_new_value_is_newer() {
    let renamed = expected("code", value(json!("a"), json!("b")));
    assert!(Read::of(json!({"code": "b"}), 1).proves(&renamed));
    assert!(!Read::of(json!({"code": "a"}), 1).proves(&renamed));
    assert!(Read::of(json!({"code": "c"}), WRITTEN + 1).proves(&renamed), "it was edited again");
    assert!(!Read::of(json!({"code": "c"}), WRITTEN).proves(&renamed), "something else was edited in that second");
}

#[test]
fn a_value_that_was_changed_back_proves_nothing() {
    let returned = expected("code", value(json!("b"), json!("b")));
    assert!(!Read::of(json!({"code": "b"}), 1).proves(&returned));
    assert!(Read::of(json!({"code": "b"}), WRITTEN).proves(&returned));
}

#[test]
fn a_value_of_an_earlier_entry_proves_nothing() {
    let mut changed = expected("code", value(json!("a"), json!("b")));
    let again = |id, before, next| ExpectedField { at: at(id), ..value(before, next) };
    changed.announce("code", again(2, json!("b"), json!("c")));
    changed.announce("code", again(3, json!("c"), json!("b")));
    assert!(!Read::of(json!({"code": "b"}), WRITTEN - 1).proves(&changed), "it may be that of the first entry");
    assert!(Read::of(json!({"code": "b"}), WRITTEN + 1).proves(&changed));
}

#[test]
fn an_element_that_came_and_went_proves_nothing_but_a_new_one_beside_it_does() {
    let assets = |ids: &[i64]| ids.iter().map(|id| json!({"type": "Asset", "id": id})).collect::<Value>();
    let entry = |id, links: &[(i64, bool)]| {
        let link = |(target, present): &(i64, bool)| ExpectedLink {
            target: EntityRef::new("Asset", *target),
            present: *present,
            at: (WRITTEN + id, EventId(id)),
            returned: false,
        };
        ExpectedField::new((WRITTEN + id, EventId(id)), Announcement::Links(links.iter().map(link).collect()))
    };
    let mut changed = expected("assets", entry(1, &[(7, true)]));
    changed.announce("assets", entry(2, &[(7, false)]));
    let row = |ids: &[i64]| Read::of(json!({"assets": assets(ids)}), WRITTEN - 1);
    assert!(!row(&[]).proves(&changed), "so it was before both");
    changed.announce("assets", entry(3, &[(8, true)]));
    assert!(row(&[8]).proves(&changed) && !row(&[]).proves(&changed));
    changed.announce("assets", entry(4, &[(7, true)]));
    assert!(!row(&[7, 8]).proves(&changed), "nothing proves the last entry");
}

#[test]
fn reads_because_of_other_entries_do_not_shorten_the_wait() {
    let mut other_side = expected("assets", link(true));
    other_side.announce("assets", ExpectedField { at: at(2), ..link(false) });
    let row = Read::of(json!({"assets": []}), 1);
    for _ in 0..6 {
        other_side = row.prove(&other_side).unproven;
        assert!(!other_side.fields.is_empty(), "no time has passed");
    }
    let field = other_side.fields.get_mut("assets").expect("a field");
    field.unproven_since = Some(SiteTime((WRITTEN + 3) * 1000));
    assert!(row.proves(&other_side), "seven seconds have");
}

#[test]
fn a_field_that_changes_all_the_time_is_given_up_in_the_end() {
    let stale = Read::of(json!({"code": "a"}), 1);
    let mut changing = expected("code", value(json!("a"), json!("b")));
    let mut reads = 0;
    while !changing.fields.is_empty() {
        let next = ExpectedField { at: (WRITTEN + reads, EventId(2)), ..value(json!("b"), json!(reads)) };
        changing.announce("code", next);
        changing = stale.prove(&changing).unproven;
        reads += 1;
    }
    assert_eq!(reads, i64::from(MAX_UNPROVEN_READS) + 1);
}

#[test]
fn the_second_of_the_entry_proves_only_its_only_edit() {
    let mut changed = expected("image", ExpectedField::new(at(1), Announcement::Change));
    assert!(Read::of(json!({"image": null}), WRITTEN).proves(&changed));
    assert!(!Read::of(json!({"image": null}), WRITTEN - 1).proves(&changed));
    changed.note_edit(WRITTEN);
    assert!(!Read::of(json!({"image": null}), WRITTEN).proves(&changed), "there were two");
    let known = |read_at| Read { before: Some(meta(WRITTEN, read_at)), ..Read::of(json!({"image": null}), WRITTEN) };
    assert!(!known(WRITTEN + 9).proves(&changed), "a read a second ago showed that second");
    assert!(known(WRITTEN + 8).proves(&changed), "a read two seconds ago did");
}

#[test]
fn an_edit_of_a_field_that_is_not_cached_shows_in_its_second() {
    let mut edited = expected("color", ExpectedField::new(at(1), Announcement::Edit));
    edited.note_edit(WRITTEN);
    assert!(Read::of(json!({}), WRITTEN).proves(&edited));
    assert!(!Read::of(json!({}), WRITTEN - 1).proves(&edited));
}

#[test]
fn the_other_side_of_a_link_must_show_it() {
    let with = json!({"assets": [{"type": "Asset", "id": 7}]});
    let without = json!({"assets": []});
    assert!(Read::of(with.clone(), 1).proves(&expected("assets", link(true))));
    assert!(!Read::of(without.clone(), WRITTEN + 5).proves(&expected("assets", link(true))));
    assert!(Read::of(without.clone(), 1).proves(&expected("assets", link(false))));
    assert!(!Read::of(with, WRITTEN + 5).proves(&expected("assets", link(false))));
    let retired = Read { gone: [EntityRef::new("Asset", 7)].into(), ..Read::of(without, 1) };
    assert!(retired.proves(&expected("assets", link(true))), "links to retired entities are not shown");
}

#[test]
fn an_entry_of_a_long_transaction_is_not_proven_by_a_later_edit() {
    let late = ExpectedField { late: true, ..value(json!("a"), json!("b")) };
    assert!(!Read::of(json!({"code": "c"}), WRITTEN + 30).proves(&expected("code", late.clone())));
    let again = ExpectedField { unproven_since: Some(SiteTime((WRITTEN + 3) * 1000)), ..late };
    assert!(Read::of(json!({"code": "c"}), WRITTEN + 30).proves(&expected("code", again)));
}

#[test]
fn the_lists_prove_retirement_and_revival() {
    let life = |active| {
        let field = ExpectedField::new(at(1), Announcement::Active(active));
        expected(LIFE, ExpectedField { own: false, ..field })
    };
    let in_list = |state| Read { state, ..Read::of(json!({}), 1) };
    assert!(in_list(RowState::Retired).proves(&life(false)) && !in_list(RowState::Active).proves(&life(false)));
    assert!(in_list(RowState::Active).proves(&life(true)) && !in_list(RowState::Retired).proves(&life(true)));
    let absent = Read { state: RowState::Absent, ..Read::of(Value::Null, 1) };
    assert!(!absent.proves(&life(true)) && !absent.proves(&life(false)));
}

#[test]
fn rereads_end_after_two_minutes_and_are_counted() {
    let unprovable = Unprovable::default();
    let key = EntityRef::new("Shot", 1);
    let mark = DirtyKey {
        key: key.clone(),
        generation: 1,
        kinds: DirtyReasons::CHANGE,
        since: AsOf { at: SiteTime(5), poll: 3 },
        last_event: None,
        event_created: None,
        events: 1,
        expected: Expected::default(),
        attempts: 0,
        due_at: SiteTime(0),
    };
    for round in 0..4 {
        let mut announced = expected("assets", link(true));
        let (mut stale, mut reads) = (Read::of(json!({"assets": []}), 1), Vec::new());
        loop {
            let proof = stale.prove(&announced);
            unprovable.learn(&key.entity_type, &proof);
            let given_up = proof.given_up;
            let Some(request) = unprovable.reread(&key, Some(&mark), &announced, proof) else {
                assert_eq!((given_up, reads.as_slice()), (1, REREADS.as_slice()));
                break;
            };
            // What never shows holds freshness up three times, and then no more.
            assert_eq!(request.kinds, if round < 3 { DirtyReasons::UNPROVEN } else { DirtyReasons::RECHECK });
            assert_eq!(request.since, Some(mark.since), "freshness does not pass the entry");
            stale.now = stale.now.after(request.delay);
            reads.push(stale.now.since(READ_AT).as_secs());
            announced = request.expected;
        }
    }
    let proof = Read::of(json!({"assets": [{"type": "Asset", "id": 7}]}), 1).prove(&expected("assets", link(true)));
    unprovable.learn(&key.entity_type, &proof);
    assert!(unprovable.holds(&key.entity_type, &expected("assets", link(true))), "it can be proven after all");
}

#[test]
fn a_removed_element_that_an_older_row_lacks_too_proves_nothing() {
    let own = ExpectedField { own: true, ..link(false) };
    let removed = expected("assets", own);
    assert!(Read::of(json!({"assets": []}), WRITTEN).proves(&removed));
    assert!(Read::of(json!({"assets": []}), WRITTEN - 1).proves(&removed), "stamps of one edit");
    let older = Read::of(json!({"assets": []}), WRITTEN - 5);
    assert!(!older.proves(&removed));
    // The other side of a link is not stamped by the edit.
    assert!(older.proves(&expected("assets", link(false))));
}

#[test]
fn a_retired_row_that_was_revived_since_proves_nothing_about_its_links() {
    let mut removed = expected("assets", link(false));
    let retired = Read { state: RowState::Retired, ..Read::of(json!({"assets": [{"type": "Asset", "id": 7}]}), 1) };
    assert!(retired.proves(&removed), "it may show its links or not");
    removed.announce(LIFE, ExpectedField { own: false, ..ExpectedField::new(at(2), Announcement::Active(true)) });
    assert!(retired.prove(&removed).unproven.fields.contains_key("assets"));
}

#[test]
fn reads_for_other_reasons_put_no_reread_off() {
    let unprovable = Unprovable::default();
    let key = EntityRef::new("Shot", 1);
    let mut announced = expected("assets", link(true));
    let mut stale = Read::of(json!({"assets": []}), 1);
    for half_seconds in 0..5 {
        stale.now = READ_AT.after(Duration::from_millis(half_seconds * 500));
        let proof = stale.prove(&announced);
        let request = unprovable.reread(&key, None, &announced, proof).expect("a reread");
        let due = stale.now.after(request.delay).since(READ_AT).as_millis();
        assert_eq!(due, if half_seconds < 2 { 1_000 } else { 3_000 }, "after {half_seconds} half seconds");
        announced = request.expected;
    }
}

#[test]
fn a_row_that_may_be_older_does_not_replace_the_stored_one() {
    let stale = Read { before: Some(meta(WRITTEN, WRITTEN)), ..Read::of(json!({"code": "a"}), WRITTEN - 5) };
    let shown = Shown {
        state: RowState::Active,
        row: stale.row.as_object(),
        updated_at: Some(Timestamp(WRITTEN - 5)),
        before: stale.before.as_ref(),
        now: SiteTime(0),
    };
    let proof = shown.prove(&shown.not_older(), &types, &BTreeSet::new());
    assert!(shown.keeps_stored(&proof));
    let newer = Shown { updated_at: Some(Timestamp(WRITTEN)), ..shown };
    assert!(newer.not_older().is_empty());
}
