//! What every store must do, whatever it is made of: one function over
//! `&dyn Store`.
//!
//! [`run`] may be called on a store that holds other types; it makes and removes
//! `Shot` and `Sequence`.

use serde_json::{Map, Value, json};
use sgcache::entity::{DataType, EntityRef, EventId, Timestamp};
use sgcache::entity_config::{LayoutField, TypeLayout};
use sgcache::filter::{FieldPath, Filter, Hop, Leaf, Only, Page, Query, RawFilter, Sort, Test, TextMatch};
use sgcache::store::{
    Bucket, FetchedRow, Fields, LinkTarget, PurgeScope, PutOutcome, ReadVersion, RowState, Store, StoreErrorKind,
};

use crate::store_world::ids;

/// Runs every check, each on an empty store.
pub async fn run(store: &dyn Store) {
    a_row_is_overwritten_only_by_a_higher_version(store).await;
    a_write_of_the_past_does_not_bring_a_deleted_row_back(store).await;
    outcomes_are_per_row(store).await;
    pages_cover_a_result_without_overlap(store).await;
    rows_come_back_as_they_were_read(store).await;
    links_show_the_name_of_their_target(store).await;
    a_rename_shows_and_an_old_one_loses(store).await;
    retired_targets_vanish_from_links_and_return(store).await;
    referrers_are_found_through_every_kind_of_link(store).await;
    digests_and_scans_agree_with_what_was_put(store).await;
    a_new_field_joins_without_losing_rows(store).await;
    tombstones_are_purged_by_age(store).await;
    corruption_shows_in_answers_and_not_in_hashes(store).await;
    unknown_types_are_named(store).await;
    clear(store).await;
}

async fn clear(store: &dyn Store) {
    for stored in store.types().await.expect("the types") {
        if ["Shot", "Sequence"].contains(&stored.entity_type.as_str()) {
            store.purge(&PurgeScope::Type(stored.entity_type)).await.expect("a purge");
        }
    }
}

async fn fresh(store: &dyn Store) {
    clear(store).await;
    store.ensure_type(&shots(&[])).await.expect("a type");
    store.ensure_type(&sequences()).await.expect("a type");
}

fn layout(entity_type: &str, fields: &[(&str, DataType)], hash: &str) -> TypeLayout {
    let field = |(name, data_type): &(&str, DataType)| LayoutField {
        name: (*name).to_owned(),
        data_type: *data_type,
        valid_types: vec![],
        mapping: None,
    };
    let mut fields: Vec<_> = fields.iter().map(field).collect();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    TypeLayout {
        entity_type: entity_type.into(),
        fields: fields.into(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: hash.into(),
    }
}

fn shots(more: &[(&str, DataType)]) -> TypeLayout {
    let mut fields = vec![
        ("assets", DataType::MultiEntity),
        ("code", DataType::Text),
        ("created_by", DataType::Entity),
        ("sg_sequence", DataType::Entity),
        ("splits", DataType::Serializable),
        ("updated_at", DataType::DateTime),
    ];
    fields.extend(more);
    layout("Shot", &fields, if more.is_empty() { "1" } else { "2" })
}

fn sequences() -> TypeLayout {
    layout("Sequence", &[("code", DataType::Text)], "1")
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn shot(id: i64, rv: i64, changes: Value) -> FetchedRow {
    shot_as(RowState::Active, id, rv, changes)
}

fn shot_as(state: RowState, id: i64, rv: i64, changes: Value) -> FetchedRow {
    let mut row =
        object(json!({"type": "Shot", "id": id, "assets": [], "code": format!("shot {id}"), "created_by": null,
        "sg_sequence": null, "splits": null, "updated_at": "2024-03-01T10:00:00Z"}));
    row.extend(object(changes));
    let key = EntityRef::new("Shot", id);
    let event = Some(EventId(rv));
    FetchedRow::from_site(&shots(&[]), key, ReadVersion(rv), state, row, Timestamp(rv), event).expect("a whole row")
}

fn sequence_as(state: RowState, id: i64, rv: i64, code: &str) -> FetchedRow {
    let (key, row) = (EntityRef::new("Sequence", id), object(json!({"code": code})));
    FetchedRow::from_site(&sequences(), key, ReadVersion(rv), state, row, Timestamp(rv), None).expect("a whole row")
}

fn sequence(id: i64, rv: i64, code: &str) -> FetchedRow {
    sequence_as(RowState::Active, id, rv, code)
}

fn link(entity_type: &str, id: i64, name: &str) -> Value {
    json!({"id": id, "name": name, "type": entity_type})
}

async fn put(store: &dyn Store, rows: &[FetchedRow]) -> Vec<PutOutcome> {
    store.put(rows).await.expect("a put")
}

async fn put_all(store: &dyn Store, rows: &[FetchedRow]) {
    assert_eq!(put(store, rows).await, vec![PutOutcome::Written; rows.len()]);
}

async fn field(store: &dyn Store, id: i64, field: &str) -> Option<Value> {
    let rows = store.get(&[EntityRef::new("Shot", id)], &Fields::All).await.expect("a get");
    rows.first().and_then(|row| row.get(field))
}

fn leaf(path: FieldPath, test: Test) -> Filter {
    Filter::Leaf(Leaf { path, negated: false, test })
}

fn local(field: &str, data_type: DataType) -> FieldPath {
    FieldPath::local(field, data_type)
}

async fn find(store: &dyn Store, filter: Filter) -> Vec<i64> {
    let query = Query::all("Shot").filter(filter);
    let found = ids(&store.find(&query).await.expect("a find"));
    assert_eq!(store.count(&query).await.expect("a count"), found.len() as u64);
    found
}

async fn a_row_is_overwritten_only_by_a_higher_version(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[shot(1, 20, json!({"code": "new"}))]).await;
    for rv in [19, 20] {
        assert_eq!(put(store, &[shot(1, rv, json!({"code": "old"}))]).await, [PutOutcome::Stale], "rv {rv}");
    }
    assert_eq!(field(store, 1, "code").await, Some(json!("new")));
    put_all(store, &[shot(1, 21, json!({"code": "newer"}))]).await;
    assert_eq!(field(store, 1, "code").await, Some(json!("newer")));
    assert_eq!(find(store, leaf(local("code", DataType::Text), Test::Text(TextMatch::Is, "new".into()))).await, [0; 0]);
    let scanned = store.scan(&"Shot".into(), 0, 10).await.expect("a scan");
    assert_eq!(scanned.iter().map(|v| (v.id, v.rv.0)).collect::<Vec<_>>(), [(1, 21)]);
}

async fn a_write_of_the_past_does_not_bring_a_deleted_row_back(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[shot(1, 10, json!({})), shot(2, 10, json!({})), shot(3, 10, json!({}))]).await;
    let key = |id| EntityRef::new("Shot", id);
    put_all(
        store,
        &[
            shot_as(RowState::Retired, 1, 12, json!({})),
            FetchedRow::absent(key(2), ReadVersion(12), Timestamp(0), None),
            FetchedRow::filtered(key(3), ReadVersion(12), Timestamp(0), None),
        ],
    )
    .await;
    let late = [shot(1, 11, json!({})), shot(2, 11, json!({})), shot(3, 11, json!({}))];
    assert_eq!(put(store, &late).await, vec![PutOutcome::Stale; 3]);
    assert_eq!(find(store, Filter::everything()).await, [0; 0]);
    assert_eq!(store.get(&[key(1), key(2), key(3)], &Fields::All).await.expect("a get"), []);
    let retired = Query { only: Only::Retired, ..Query::all("Shot") };
    assert_eq!(ids(&store.find(&retired).await.expect("a find")), [1]);
    let states: Vec<_> = store.scan(&"Shot".into(), 0, 10).await.expect("a scan").iter().map(|v| v.state).collect();
    assert_eq!(states, [RowState::Retired, RowState::Absent, RowState::Filtered]);
    put_all(store, &[shot(1, 13, json!({})), shot(2, 13, json!({})), shot(3, 13, json!({}))]).await;
    assert_eq!(find(store, Filter::everything()).await, [1, 2, 3]);
}

async fn outcomes_are_per_row(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[shot(2, 20, json!({}))]).await;
    let rows = [
        shot(1, 10, json!({})),
        shot(2, 10, json!({})),
        shot(3, 10, json!({"updated_at": "no moment"})),
        shot(4, 10, json!({})),
        shot(4, 9, json!({"code": "older, same call"})),
    ];
    let outcomes = put(store, &rows).await;
    assert_eq!(outcomes[..2], [PutOutcome::Written, PutOutcome::Stale]);
    let PutOutcome::Refused(reason) = &outcomes[2] else { panic!("a row that does not fit was taken") };
    assert!(reason.contains("updated_at"), "{reason}");
    assert_eq!(outcomes[3..], [PutOutcome::Written, PutOutcome::Stale]);
    assert_eq!(find(store, Filter::everything()).await, [1, 2, 4]);
    assert_eq!(put(store, &[]).await, []);
}

async fn pages_cover_a_result_without_overlap(store: &dyn Store) {
    fresh(store).await;
    let codes = ["b", "a", "C", "c", "B"];
    let rows: Vec<_> = (1..).zip(codes).map(|(id, code)| shot(id, 1, json!({"code": code}))).collect();
    put_all(store, &rows).await;
    let order = vec![Sort { path: local("code", DataType::Text), descending: true }];
    let mut pages = Vec::new();
    for number in 1..=4 {
        let query = Query::all("Shot").order(order.clone()).page(Page { size: 2, number });
        let found = store.find(&query).await.expect("a page");
        assert_eq!(store.count(&query).await.expect("a count"), 5);
        pages.push((ids(&found), found.has_next_page));
    }
    assert_eq!(pages, [(vec![3, 4], true), (vec![1, 5], true), (vec![2], false), (vec![], false)]);
}

async fn rows_come_back_as_they_were_read(store: &dyn Store) {
    fresh(store).await;
    let splits = json!({"b": [1, {"x": null}], "a": "é \"quoted\""});
    put_all(store, &[shot(1, 1, json!({"code": "A\u{1F3AC}", "splits": splits}))]).await;
    let fields = Fields::Only(vec![local("code", DataType::Text), local("splits", DataType::Serializable)]);
    let keys = [EntityRef::new("Shot", 9), EntityRef::new("Shot", 1)];
    let rows = store.get(&keys, &fields).await.expect("a get");
    let shown: Value = serde_json::from_str(rows[0].json()).expect("JSON");
    assert_eq!(shown, json!({"type": "Shot", "id": 1, "code": "A\u{1F3AC}", "splits": splits}));
    assert_eq!(rows.len(), 1);
    let everything = store.get(&keys[1..], &Fields::All).await.expect("a get");
    assert_eq!(everything[0].fields().len(), 6);
    assert_eq!(everything[0].get("updated_at"), Some(json!("2024-03-01T10:00:00Z")));
}

async fn links_show_the_name_of_their_target(store: &dyn Store) {
    fresh(store).await;
    let linked = json!({"sg_sequence": link("Sequence", 11, "seen"), "created_by": link("HumanUser", 11, "Ann"),
        "assets": [link("Asset", 11, "Tree"), link("Sequence", 11, "seen")]});
    put_all(store, &[shot(1, 5, linked)]).await;
    assert_eq!(field(store, 1, "sg_sequence").await, Some(link("Sequence", 11, "seen")));
    put_all(store, &[sequence(11, 4, "Own name")]).await;
    assert_eq!(field(store, 1, "sg_sequence").await, Some(link("Sequence", 11, "Own name")));
    let assets = json!([link("Asset", 11, "Tree"), link("Sequence", 11, "Own name")]);
    assert_eq!(field(store, 1, "assets").await, Some(assets));
    let named = |field, data_type, how, needle: &str| leaf(local(field, data_type), Test::LinkName(how, needle.into()));
    assert_eq!(find(store, named("sg_sequence", DataType::Entity, TextMatch::Is, "own name")).await, [1]);
    assert_eq!(find(store, named("sg_sequence", DataType::Entity, TextMatch::Is, "seen")).await, [0; 0]);
    assert_eq!(find(store, named("created_by", DataType::Entity, TextMatch::Contains, "nn")).await, [1]);
    assert_eq!(find(store, named("assets", DataType::MultiEntity, TextMatch::StartsWith, "tr")).await, [1]);
    // A newer answer shows that the user has another name by now.
    put_all(store, &[shot(2, 6, json!({"created_by": link("HumanUser", 11, "Anna")}))]).await;
    assert_eq!(field(store, 1, "created_by").await, Some(link("HumanUser", 11, "Anna")));
    put_all(store, &[shot(3, 3, json!({"created_by": link("HumanUser", 11, "A.")}))]).await;
    assert_eq!(field(store, 1, "created_by").await, Some(link("HumanUser", 11, "Anna")));
}

async fn relink(store: &dyn Store, key: EntityRef, name: &str, state: RowState, rv: i64) -> bool {
    let name = Some(name.to_owned());
    let outcome = store.relink(&LinkTarget { key, name, state, rv: ReadVersion(rv) }).await.expect("a relink");
    assert_eq!(outcome.pending, 0, "few rows are rewritten at once");
    !outcome.stale
}

async fn a_rename_shows_and_an_old_one_loses(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[sequence(12, 5, "first")]).await;
    let linked = json!({"sg_sequence": link("Sequence", 12, "first"), "created_by": link("HumanUser", 12, "Bob")});
    put_all(store, &[shot(1, 6, linked)]).await;
    let before = store.scan(&"Shot".into(), 0, 10).await.expect("a scan");

    put_all(store, &[sequence(12, 10, "second")]).await;
    assert!(relink(store, EntityRef::new("Sequence", 12), "second", RowState::Active, 10).await);
    assert!(!relink(store, EntityRef::new("Sequence", 12), "zeroth", RowState::Active, 7).await);
    assert!(relink(store, EntityRef::new("HumanUser", 12), "Robert", RowState::Active, 10).await);
    assert!(!relink(store, EntityRef::new("HumanUser", 12), "Bobby", RowState::Active, 9).await);

    assert_eq!(field(store, 1, "sg_sequence").await, Some(link("Sequence", 12, "second")));
    assert_eq!(field(store, 1, "created_by").await, Some(link("HumanUser", 12, "Robert")));
    let named =
        |needle: &str| leaf(local("sg_sequence", DataType::Entity), Test::LinkName(TextMatch::Is, needle.into()));
    assert_eq!(find(store, named("second")).await, [1]);
    assert_eq!(find(store, named("first")).await, [0; 0]);
    assert_eq!(store.scan(&"Shot".into(), 0, 10).await.expect("a scan"), before, "a rename raises no version");
    assert_eq!(put(store, &[shot(1, 6, json!({}))]).await, [PutOutcome::Stale]);
    put_all(store, &[shot(1, 7, json!({}))]).await;
}

async fn retired_targets_vanish_from_links_and_return(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[sequence(13, 1, "here")]).await;
    let (to_sequence, to_user) = (link("Sequence", 13, "here"), link("HumanUser", 13, "Eve"));
    let linked = json!({"sg_sequence": to_sequence, "created_by": to_user, "assets": [to_sequence, to_user]});
    put_all(store, &[shot(1, 2, linked), shot(2, 2, json!({}))]).await;
    let empty = |field, data_type| leaf(local(field, data_type), Test::Empty);
    assert_eq!(find(store, empty("sg_sequence", DataType::Entity)).await, [2]);

    put_all(store, &[sequence_as(RowState::Retired, 13, 3, "here")]).await;
    relink(store, EntityRef::new("Sequence", 13), "here", RowState::Retired, 3).await;
    assert_eq!(field(store, 1, "sg_sequence").await, Some(Value::Null));
    assert_eq!(field(store, 1, "assets").await, Some(json!([to_user])));
    assert_eq!(find(store, empty("sg_sequence", DataType::Entity)).await, [1, 2]);
    let to = |id| leaf(local("sg_sequence", DataType::Entity), Test::LinkTo(vec![EntityRef::new("Sequence", id)]));
    assert_eq!(find(store, to(13)).await, [0; 0]);
    let hop = Hop { field: "sg_sequence".into(), multi: false, entity_type: "Sequence".into() };
    let deep = FieldPath { hops: vec![hop], field: "code".into(), data_type: DataType::Text };
    assert_eq!(find(store, leaf(deep.clone(), Test::Text(TextMatch::Is, "here".into()))).await, [0; 0]);

    assert!(relink(store, EntityRef::new("HumanUser", 13), "Eve", RowState::Absent, 3).await);
    assert_eq!(field(store, 1, "created_by").await, Some(Value::Null));
    assert_eq!(find(store, empty("assets", DataType::MultiEntity)).await, [1, 2]);

    put_all(store, &[sequence(13, 4, "here")]).await;
    relink(store, EntityRef::new("Sequence", 13), "here", RowState::Active, 4).await;
    relink(store, EntityRef::new("HumanUser", 13), "Eve", RowState::Active, 4).await;
    assert_eq!(find(store, to(13)).await, [1]);
    assert_eq!(find(store, leaf(deep, Test::Text(TextMatch::Is, "here".into()))).await, [1]);
    assert_eq!(field(store, 1, "assets").await, Some(json!([to_sequence, to_user])));
}

async fn referrers_are_found_through_every_kind_of_link(store: &dyn Store) {
    fresh(store).await;
    let target = link("Sequence", 14, "x");
    put_all(store, &[shot(1, 1, json!({"sg_sequence": target})), shot(2, 1, json!({"assets": [target]}))]).await;
    put_all(store, &[shot_as(RowState::Retired, 3, 1, json!({"sg_sequence": target})), shot(4, 1, json!({}))]).await;
    let key = |id| EntityRef::new("Shot", id);
    let all = store.referrers(&EntityRef::new("Sequence", 14), 10).await.expect("referrers");
    assert_eq!((all.keys, all.more), (vec![key(1), key(2), key(3)], false));
    let some = store.referrers(&EntityRef::new("Sequence", 14), 2).await.expect("referrers");
    assert_eq!((some.keys.len(), some.more), (2, true));
    put_all(store, &[shot(1, 2, json!({}))]).await;
    let fewer = store.referrers(&EntityRef::new("Sequence", 14), 10).await.expect("referrers");
    assert_eq!(fewer.keys, [key(2), key(3)]);
    assert_eq!(store.referrers(&EntityRef::new("Nothing", 1), 10).await.expect("referrers").keys, []);
}

async fn digests_and_scans_agree_with_what_was_put(store: &dyn Store) {
    fresh(store).await;
    let rows: Vec<_> = [1, 2, 999, 1000, 1001, 5000].map(|id| shot(id, 1, json!({}))).into();
    put_all(store, &rows).await;
    put_all(store, &[shot_as(RowState::Retired, 2, 2, json!({})), shot(999, 2, json!({"code": "changed"}))]).await;
    let mut expected: Vec<Bucket> = Vec::new();
    let current = [&rows[0], &shot(999, 2, json!({"code": "changed"})), &rows[3], &rows[4], &rows[5]];
    for row in current {
        let number = Bucket::of(row.key().id);
        if expected.last().is_none_or(|last| last.number != number) {
            expected.push(Bucket { number, count: 0, sum: 0 });
        }
        let bucket = expected.last_mut().expect("a bucket");
        bucket.count += 1;
        bucket.sum += u64::from(row.hash().short());
    }
    assert_eq!(store.digest(&"Shot".into()).await.expect("a digest"), expected);
    let first = store.scan(&"Shot".into(), 0, 2).await.expect("a scan");
    assert_eq!(
        first.iter().map(|v| (v.id, v.state)).collect::<Vec<_>>(),
        [(1, RowState::Active), (2, RowState::Retired)]
    );
    assert_eq!(first[0].hash, rows[0].hash());
    assert_eq!(first[0].updated_at, Timestamp::parse("2024-03-01T10:00:00Z"));
    let rest = store.scan(&"Shot".into(), 2, 100).await.expect("a scan");
    assert_eq!(rest.iter().map(|v| v.id).collect::<Vec<_>>(), [999, 1000, 1001, 5000]);
    assert_eq!(store.digest(&"Sequence".into()).await.expect("a digest"), []);
}

async fn a_new_field_joins_without_losing_rows(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[shot(1, 1, json!({"code": "kept"}))]).await;
    let wider = shots(&[("sg_cut_in", DataType::Number)]);
    store.ensure_type(&wider).await.expect("a wider layout");
    let types = store.types().await.expect("the types");
    assert!(types.iter().any(|stored| stored.entity_type == "Shot" && stored.layout_hash == "2"), "{types:?}");
    assert_eq!(field(store, 1, "code").await, Some(json!("kept")));
    assert_eq!(find(store, leaf(local("code", DataType::Text), Test::Text(TextMatch::Is, "kept".into()))).await, [1]);
    // Read under the old layout, so it cannot be filtered by the new one.
    assert!(matches!(put(store, &[shot(2, 2, json!({}))]).await[..], [PutOutcome::Refused(_)]));
    let mut row = shot(1, 1, json!({})).doc().clone();
    row.insert("sg_cut_in".into(), json!(7));
    let (key, rv) = (EntityRef::new("Shot", 1), ReadVersion(3));
    let read_again = FetchedRow::from_site(&wider, key, rv, RowState::Active, row, Timestamp(0), None);
    put_all(store, &[read_again.expect("a whole row")]).await;
    let cut_in = leaf(local("sg_cut_in", DataType::Number), Test::Greater(sgcache::entity::FieldValue::Int(6)));
    assert_eq!(find(store, cut_in.clone()).await, [1]);
    store.ensure_type(&shots(&[])).await.expect("the old layout");
    let gone = store.find(&Query::all("Shot").filter(cut_in)).await.map_err(|error| error.kind());
    assert_eq!(gone, Err(StoreErrorKind::Unsupported));
    assert_eq!(field(store, 1, "sg_cut_in").await, None);
}

async fn tombstones_are_purged_by_age(store: &dyn Store) {
    fresh(store).await;
    let key = |id| EntityRef::new("Shot", id);
    let rows = [
        shot(1, 1, json!({})),
        shot_as(RowState::Retired, 2, 1, json!({})),
        FetchedRow::absent(key(3), ReadVersion(1), Timestamp(100), None),
        FetchedRow::filtered(key(4), ReadVersion(1), Timestamp(100), None),
        FetchedRow::absent(key(5), ReadVersion(1), Timestamp(300), None),
    ];
    put_all(store, &rows).await;
    let scope = PurgeScope::Tombstones { older_than: Timestamp(200) };
    assert_eq!(store.purge(&scope).await.expect("a purge"), 2);
    let left: Vec<_> = store.scan(&"Shot".into(), 0, 10).await.expect("a scan").iter().map(|v| v.id).collect();
    assert_eq!(left, [1, 2, 5]);
    assert_eq!(store.purge(&PurgeScope::Type("Shot".into())).await.expect("a purge"), 3);
    let gone = store.find(&Query::all("Shot")).await.map_err(|error| error.kind());
    assert_eq!(gone, Err(StoreErrorKind::UnknownType));
    store.ensure_type(&shots(&[])).await.expect("a type");
    assert_eq!(find(store, Filter::everything()).await, [0; 0]);
}

async fn corruption_shows_in_answers_and_not_in_hashes(store: &dyn Store) {
    fresh(store).await;
    put_all(store, &[shot(1, 1, json!({"code": "true"}))]).await;
    let (scan, digest) = (store.scan(&"Shot".into(), 0, 9).await, store.digest(&"Shot".into()).await);
    store.corrupt(&EntityRef::new("Shot", 1), "code", json!("false")).await.expect("a corruption");
    assert_eq!(field(store, 1, "code").await, Some(json!("false")));
    assert_eq!(find(store, leaf(local("code", DataType::Text), Test::Text(TextMatch::Is, "false".into()))).await, [1]);
    assert_eq!(store.scan(&"Shot".into(), 0, 9).await.ok(), scan.ok());
    assert_eq!(store.digest(&"Shot".into()).await.ok(), digest.ok());
    put_all(store, &[shot(1, 2, json!({"code": "true"}))]).await;
    assert_eq!(field(store, 1, "code").await, Some(json!("true")));
}

async fn unknown_types_are_named(store: &dyn Store) {
    fresh(store).await;
    clear(store).await;
    let put = store.put(&[shot(1, 1, json!({}))]).await.map(|_| ());
    let find = store.find(&Query::all("Shot")).await.map(|_| ());
    let get = store.get(&[EntityRef::new("Shot", 1)], &Fields::All).await.map(|_| ());
    let digest = store.digest(&"Shot".into()).await.map(|_| ());
    for answer in [put, find, get, digest] {
        let error = answer.expect_err("the type is unknown");
        assert_eq!(error.kind(), StoreErrorKind::UnknownType);
        assert!(error.to_string().contains("`Shot`"), "{error}");
    }
    assert!(store.health().await.ok);
}
