//! The embedded store from outside: conformance, files it must refuse, a full
//! disk, crashes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use sgcache::entity::{DataType, EntityRef, FieldValue, Timestamp};
use sgcache::entity_config::{LayoutField, TypeLayout};
use sgcache::filter::{FieldPath, Filter, Hop, Leaf, Query, RawFilter, Sort, Test};
use sgcache::store::embedded::{EmbeddedSettings, EmbeddedStore};
use sgcache::store::{
    FetchedRow, Fields, LinkTarget, PurgeScope, PutOutcome, ReadVersion, RowState, Store, StoreErrorKind,
};

fn settings(dir: &Path) -> EmbeddedSettings {
    EmbeddedSettings { busy_timeout: Duration::from_millis(50), ..EmbeddedSettings::new(dir.join("store.sqlite")) }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(settings(dir)).expect("an embedded store")
}

fn field(name: &str, data_type: DataType) -> LayoutField {
    LayoutField { name: name.into(), data_type, valid_types: vec![], mapping: None }
}

fn target(entity_type: &str, rv: i64, state: RowState) -> LinkTarget {
    LinkTarget { key: EntityRef::new(entity_type, 1), name: None, state, rv: ReadVersion(rv) }
}

/// The path of a text of a linked entity.
fn through(link: &str, entity_type: &str, end: &str) -> FieldPath {
    let hop = Hop { field: link.into(), multi: false, entity_type: entity_type.into() };
    FieldPath { hops: vec![hop], field: end.into(), data_type: DataType::Text }
}

fn layout() -> TypeLayout {
    TypeLayout {
        entity_type: "Shot".into(),
        fields: [field("code", DataType::Text), field("sg_cut_in", DataType::Number)].into(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: "1".into(),
    }
}

fn row(id: i64, rv: i64, code: &str) -> FetchedRow {
    let doc = json!({"code": code, "sg_cut_in": rv});
    let doc = doc.as_object().expect("an object").clone();
    let key = EntityRef::new("Shot", id);
    FetchedRow::from_site(&layout(), key, ReadVersion(rv), RowState::Active, doc, Timestamp(0), None).expect("whole")
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    crate::store_conformance::run(&open(dir.path())).await;
}

#[tokio::test]
async fn rows_and_layouts_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.ensure_type(&layout()).await.expect("a type");
    store.put(&[row(1, 5, "kept")]).await.expect("a put");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.types().await.expect("types").len(), 1);
    let rows = store.get(&[EntityRef::new("Shot", 1)], &Fields::All).await.expect("a get");
    assert_eq!(rows[0].get("code"), Some(json!("kept")));
    assert_eq!(store.put(&[row(1, 5, "again")]).await.expect("a put"), [PutOutcome::Stale]);
}

#[tokio::test]
async fn two_processes_see_each_others_types_and_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let (daemon, job) = (open(dir.path()), open(dir.path()));
    daemon.ensure_type(&layout()).await.expect("a type");
    assert_eq!(job.put(&[row(1, 5, "of the job")]).await.expect("a put"), [PutOutcome::Written]);
    assert_eq!(daemon.count(&Query::all("Shot")).await.expect("a count"), 1);
    assert_eq!(daemon.put(&[row(1, 4, "late")]).await.expect("a put"), [PutOutcome::Stale]);
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()));
    let file = dir.path().join("store.sqlite");
    Connection::open(&file).and_then(|c| c.pragma_update(None, "user_version", 99)).expect("a newer file");
    let error = EmbeddedStore::open(settings(dir.path())).err().expect("too new");
    assert_eq!(error.kind(), StoreErrorKind::Newer);
    assert!(error.to_string().contains("newer sgcache (format 99, this one knows 3)"), "{error}");

    std::fs::write(&file, b"this is no database, and it is long enough to be read as one".repeat(100)).expect("a file");
    let error = EmbeddedStore::open(settings(dir.path())).err().expect("no database");
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");

    std::fs::remove_file(&file).expect("removed");
    Connection::open(&file).and_then(|c| c.execute_batch("CREATE TABLE other (x)")).expect("another database");
    Connection::open(&file).and_then(|c| c.pragma_update(None, "application_id", 7)).expect("another database");
    let error = EmbeddedStore::open(settings(dir.path())).err().expect("not ours");
    assert_eq!(
        (error.kind(), error.to_string().contains("another program")),
        (StoreErrorKind::Refused, true),
        "{error}"
    );
}

/// Returns the ids of shots with a code, newest first.
async fn coded(store: &EmbeddedStore, code: &str) -> Vec<i64> {
    let path = FieldPath::local("code", DataType::Text);
    let test = Test::OneOf(vec![FieldValue::text(code)]);
    let order = vec![Sort { path: FieldPath::local("sg_cut_in", DataType::Number), descending: true }];
    let query = Query::all("Shot").filter(Filter::Leaf(Leaf { path, negated: false, test })).order(order);
    store.find(&query).await.expect("a find").rows.iter().map(|row| row.key.id).collect()
}

#[tokio::test]
async fn columns_in_memory_follow_what_other_processes_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let (writer, reader) = (open(dir.path()), open(dir.path()));
    writer.ensure_type(&layout()).await.expect("a type");
    writer.put(&[row(5, 1, "a"), row(7, 2, "a"), row(9, 3, "b")]).await.expect("a put");
    assert_eq!(coded(&reader, "a").await, [7, 5]);

    // A change, a row whose id is below the others, one behind them.
    writer.put(&[row(5, 4, "b"), row(3, 5, "a"), row(11, 6, "a")]).await.expect("a put");
    assert_eq!(coded(&reader, "a").await, [11, 3, 7]);
    assert_eq!(reader.count(&Query::all("Shot")).await.expect("a count"), 5);
    let all = reader.find(&Query::all("Shot")).await.expect("a find");
    assert_eq!(all.rows.iter().map(|row| row.key.id).collect::<Vec<_>>(), [3, 5, 7, 9, 11]);

    // What was told of the changes is not kept for ever.
    writer.put(&[row(7, 7, "c")]).await.expect("a put");
    writer.put(&[row(9, 8, "a")]).await.expect("a put");
    let file = Connection::open(dir.path().join("store.sqlite")).expect("a connection");
    file.execute("DELETE FROM changes WHERE seq < (SELECT max(seq) FROM changes)", []).expect("forgotten");
    assert_eq!(coded(&reader, "a").await, [9, 11, 3]);

    writer.purge(&PurgeScope::Type("Shot".into())).await.expect("a purge");
    writer.ensure_type(&layout()).await.expect("a type");
    assert_eq!(coded(&reader, "a").await, [0_i64; 0]);
    writer.put(&[row(9, 9, "a")]).await.expect("a put");
    assert_eq!(coded(&reader, "a").await, [9]);
}

/// Every way in which an answer can change: whoever asked before gets the new one.
#[tokio::test]
async fn no_answer_outlives_the_write_that_changes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (asked, other) = (open(dir.path()), open(dir.path()));
    let link = |ty: &str, id: i64, name: &str| json!({"type": ty, "id": id, "name": name});
    let layout = |ty: &str, fields: &[(&str, DataType)]| TypeLayout {
        entity_type: ty.into(),
        fields: fields.iter().map(|(name, data_type)| field(name, *data_type)).collect(),
        hash: format!("{fields:?}"),
        ..layout()
    };
    let shot =
        layout("Shot", &[("code", DataType::Text), ("sg_sequence", DataType::Entity), ("user", DataType::Entity)]);
    let (sequence, narrow) = (layout("Sequence", &[("code", DataType::Text)]), layout("Sequence", &[]));
    let row = |layout: &TypeLayout, rv: i64, state: RowState, doc: Value| {
        let (key, doc) = (EntityRef::new(layout.entity_type.clone(), 1), doc.as_object().expect("an object").clone());
        FetchedRow::from_site(layout, key, ReadVersion(rv), state, doc, Timestamp(0), None).expect("whole")
    };
    let shot_of = |rv: i64, code: &str, user: &str| {
        let doc = json!({"code": code, "sg_sequence": link("Sequence", 1, "s"), "user": link("HumanUser", 1, user)});
        row(&shot, rv, RowState::Active, doc)
    };
    let fields = shot.paths().into_iter().chain([through("sg_sequence", "Sequence", "code")]).collect();
    let query = Query::all("Shot").filter(Filter::ids([1])).fields(fields);
    let mut seen = Vec::new();
    macro_rules! after {
        ($what:literal, $write:expr) => {
            $write.await.expect($what);
            let (first, again) = (asked.find(&query).await, asked.find(&query).await);
            let fresh = open(dir.path()).find(&query).await;
            assert_eq!(format!("{first:?}"), format!("{fresh:?}"), "the first answer after {}", $what);
            assert_eq!(format!("{again:?}"), format!("{fresh:?}"), "the second answer after {}", $what);
            assert!(!seen.contains(&format!("{fresh:?}")), "{} changes nothing: {fresh:?}", $what);
            seen.push(format!("{fresh:?}"));
        };
    }
    asked.ensure_type(&sequence).await.expect("a type");
    after!("an empty type", asked.ensure_type(&shot));
    after!("the first put", asked.put(&[shot_of(1, "a", "Ann")]));
    after!("a put", asked.put(&[shot_of(2, "b", "Ann")]));
    after!("a put by another process", other.put(&[shot_of(3, "c", "Ann")]));
    after!("a name that a link showed", other.put(&[shot_of(4, "c", "Bob")]));
    let user = LinkTarget { name: Some("Cid".into()), ..target("HumanUser", 5, RowState::Active) };
    after!("a relink", other.relink(&user));
    after!("a linked row", other.put(&[row(&sequence, 6, RowState::Active, json!({"code": "q"}))]));
    after!("a new name of it", other.put(&[row(&sequence, 7, RowState::Active, json!({"code": "r"}))]));
    after!("its retirement", other.put(&[row(&sequence, 8, RowState::Retired, json!({"code": "r"}))]));
    after!("its return", other.put(&[row(&sequence, 9, RowState::Active, json!({"code": "t"}))]));
    after!("a damage", other.corrupt(&EntityRef::new("Shot", 1), "code", json!("bad")));
    after!("a dead target of a type that is not cached", other.relink(&target("HumanUser", 10, RowState::Retired)));
    after!("a layout without the field", other.ensure_type(&narrow));
    after!("the end of the type", other.purge(&PurgeScope::Type("Shot".into())));
}

#[tokio::test]
async fn a_file_of_the_first_format_goes_on_without_its_indexes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.ensure_type(&layout()).await.expect("a type");
    store.put(&[row(1, 1, "a"), row(2, 2, "b")]).await.expect("a put");
    drop(store);
    let file = Connection::open(dir.path().join("store.sqlite")).expect("a connection");
    let table: String = file
        .query_row("SELECT name FROM sqlite_schema WHERE name LIKE 'row_%_Shot'", [], |row| row.get(0))
        .expect("the narrow table");
    file.execute_batch(&format!(
        "CREATE INDEX {table}_by_1_x ON {table} (rv); DROP TABLE changes; PRAGMA user_version = 1;"
    ))
    .expect("a file as it was");
    let store = open(dir.path());
    assert_eq!(coded(&store, "b").await, [2]);
    let indexes = file
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'row_%_by_%'", [], |row| row.get::<_, i64>(0));
    assert_eq!(indexes.expect("a count"), 0);
}

#[tokio::test]
async fn a_store_that_another_process_holds_is_locked_for_writers_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path());
    store.ensure_type(&layout()).await.expect("a type");
    let other = Connection::open(dir.path().join("store.sqlite")).expect("a connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let error = store.put(&[row(1, 1, "x")]).await.expect_err("locked");
    assert_eq!((error.kind(), error.kind().is_passing()), (StoreErrorKind::Locked, true), "{error}");
    assert_eq!(store.count(&Query::all("Shot")).await.expect("readers go on"), 0);
    other.execute_batch("COMMIT").expect("unlocked");
    assert_eq!(store.put(&[row(1, 1, "x")]).await.expect("a put"), [PutOutcome::Written]);
}

#[tokio::test]
async fn a_full_store_says_so_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let limited = EmbeddedSettings { max_bytes: Some(400_000), ..settings(dir.path()) };
    let store = EmbeddedStore::open(limited).expect("a store");
    store.ensure_type(&layout()).await.expect("a type");
    store.put(&[row(1, 1, "first")]).await.expect("there is room");
    let large = "x".repeat(100_000);
    let rows: Vec<_> = (2..20).map(|id| row(id, 1, &large)).collect();
    let error = store.put(&rows).await.expect_err("no room");
    assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
    assert_eq!(store.count(&Query::all("Shot")).await.expect("a count"), 1, "all or nothing");
    assert_eq!(store.put(&[row(1, 2, "second")]).await.expect("small rows fit"), [PutOutcome::Written]);
}

const CRASH_DIR: &str = "SGCACHE_TEST_CRASH_DIR";
const ROWS: i64 = 40;

/// What `kill -9` strikes: writes all rows anew, again and again, and says after
/// each call what was acknowledged. Does nothing unless the test below starts it.
#[test]
fn crash_writer() {
    let Ok(dir) = std::env::var(CRASH_DIR) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        store.ensure_type(&layout()).await.expect("a type");
        let known = store.scan(&"Shot".into(), 0, 1).await.expect("a scan");
        let mut rv = known.first().map_or(0, |version| version.rv.0);
        loop {
            rv += 1;
            let rows: Vec<_> = (1..=ROWS).map(|id| row(id, rv, &format!("rv {rv}"))).collect();
            let outcomes = store.put(&rows).await.expect("a put");
            assert!(outcomes.iter().all(|outcome| *outcome == PutOutcome::Written), "{outcomes:?}");
            println!("ack {rv}");
        }
    });
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..6 {
        let acknowledged = strike(dir.path(), 3 + 4 * round);
        let file = Connection::open(dir.path().join("store.sqlite")).expect("the file");
        let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(verdict, "ok");
        drop(file);
        let store = open(dir.path());
        let versions = store.scan(&"Shot".into(), 0, 1000).await.expect("a scan");
        assert_eq!(versions.len(), ROWS as usize);
        let rv = versions[0].rv.0;
        // The last commit may have been made and not been told.
        assert!((acknowledged..=acknowledged + 1).contains(&rv), "stored {rv}, acknowledged {acknowledged}");
        assert!(versions.iter().all(|version| version.rv.0 == rv), "a put is all or nothing");
        let path = FieldPath::local("sg_cut_in", DataType::Number);
        let test = Test::OneOf(vec![FieldValue::Int(rv)]);
        let query = Query::all("Shot").filter(Filter::Leaf(Leaf { path, negated: false, test }));
        let found = store.find(&query.fields(vec![FieldPath::local("code", DataType::Text)])).await.expect("a find");
        let codes: Vec<_> = found.rows.iter().filter_map(|row| row.get("code")).collect();
        assert_eq!(codes, vec![Value::from(format!("rv {rv}")); ROWS as usize], "columns and documents agree");
    }
}

/// Starts the writer, kills it after so many acknowledgements and returns the
/// last one.
fn strike(dir: &Path, acknowledgements: usize) -> i64 {
    let program = std::env::current_exe().expect("this test");
    let mut child = Command::new(program)
        .args(["--exact", "store_embedded::crash_writer", "--nocapture", "--test-threads=1"])
        .env(CRASH_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the writer");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut acknowledged = 0;
    let mut note = |line: String| {
        let number = line.rsplit("ack ").next().and_then(|number| number.trim().parse().ok());
        acknowledged = number.unwrap_or(acknowledged);
        number.is_some()
    };
    let seen = lines.by_ref().filter_map(|line| note(line).then_some(())).take(acknowledgements).count();
    assert_eq!(seen, acknowledgements, "the writer ended by itself");
    child.kill().expect("kill -9");
    child.wait().expect("the end of the writer");
    for line in lines {
        note(line);
    }
    acknowledged
}
