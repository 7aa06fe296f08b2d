//! Tests of what cannot be seen through the trait.

use serde_json::json;

use super::*;
use crate::entity::{DataType, Timestamp};
use crate::entity_config::LayoutField;
use crate::filter::{Filter, Page, RawFilter};
use crate::schema::{EntitySchema, FieldSchema, Schema};
use crate::store::{ReadVersion, RowState};

const SHOT: [(&str, DataType); 8] = [
    ("id", DataType::Number),
    ("code", DataType::Text),
    ("description", DataType::Text),
    ("project", DataType::Entity),
    ("sg_sequence", DataType::Entity),
    ("sg_status_list", DataType::StatusList),
    ("tags", DataType::MultiEntity),
    ("updated_at", DataType::DateTime),
];

fn schema() -> Schema {
    let entity = |name: &str, fields: &[(&str, DataType)]| EntitySchema {
        entity_type: name.into(),
        display_name: name.into(),
        visible: true,
        fields: fields.iter().map(|(name, ty)| ((*name).to_owned(), FieldSchema::new(*ty, *name))).collect(),
    };
    let types = [entity("Shot", &SHOT), entity("Sequence", &[("code", DataType::Text)])];
    Schema { types: types.into_iter().map(|entity| (entity.entity_type.clone(), entity)).collect() }
}

fn layout(entity_type: &str) -> TypeLayout {
    let schema = schema();
    let entity = schema.entity(&entity_type.into()).expect("a type");
    let field = |(name, field): (&String, &FieldSchema)| LayoutField {
        name: name.clone(),
        data_type: field.data_type,
        valid_types: vec![],
        mapping: None,
    };
    TypeLayout {
        entity_type: entity_type.into(),
        fields: entity.fields.iter().filter(|(name, _)| name.as_str() != "id").map(field).collect(),
        filter: Filter::everything(),
        raw_filter: RawFilter::everything(),
        hash: "1".into(),
    }
}

async fn store(dir: &std::path::Path) -> EmbeddedStore {
    let store = EmbeddedStore::open(EmbeddedSettings::new(dir.join("store.sqlite"))).expect("a store");
    for entity_type in ["Shot", "Sequence"] {
        store.ensure_type(&layout(entity_type)).await.expect("a type");
    }
    store
}

#[tokio::test]
async fn a_list_of_thousands_of_operands_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let doc = json!({"code": "A", "description": null, "project": null, "sg_sequence": null, "sg_status_list": null,
        "tags": [], "updated_at": null});
    let (key, doc) = (EntityRef::new("Shot", 39_999), doc.as_object().expect("an object").clone());
    let row = FetchedRow::from_site(&layout("Shot"), key, ReadVersion(1), RowState::Active, doc, Timestamp(0), None);
    store.put(&[row.expect("a whole row")]).await.expect("a put");
    let query = Query::all("Shot").filter(Filter::ids(0..40_000));
    assert_eq!(store.count(&query).await.expect("a count"), 1);
}

/// What is remembered of the answer to a query, at the present moment.
async fn remembered(store: &EmbeddedStore, query: &Query) -> Option<Arc<Found>> {
    let (query, results) = (query.clone(), Arc::clone(&store.results));
    store.on_reader(move |reader| Ok(results.get(AsOf::now(reader)?, &query))).await.expect("a reader")
}

#[tokio::test]
async fn the_answer_to_a_query_is_remembered_until_anything_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let pages = [1, 2].map(|number| Query::all("Shot").page(Page { size: 5, number }));
    assert!(remembered(&store, &pages[0]).await.is_none());
    let found = store.find(&pages[0]).await.expect("an answer");
    assert_eq!(remembered(&store, &pages[0]).await.as_deref(), Some(&found));
    assert!(remembered(&store, &pages[1]).await.is_none(), "another question");
    store.ensure_type(&TypeLayout { hash: "2".into(), ..layout("Shot") }).await.expect("a change");
    assert!(remembered(&store, &pages[0]).await.is_none(), "another moment");
}

#[tokio::test]
async fn names_that_differ_in_case_only_are_two_fields() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let field =
        |name: &str| LayoutField { name: name.into(), data_type: DataType::Text, valid_types: vec![], mapping: None };
    let layout =
        TypeLayout { fields: [field("sg_X"), field("sg_x")].into(), entity_type: "shot".into(), ..layout("Shot") };
    store.ensure_type(&layout).await.expect("a type beside `Shot`");
    assert_eq!(store.types().await.expect("types").len(), 3);
}

#[tokio::test]
async fn a_write_that_breaks_off_leaves_nothing_and_the_next_one_works() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let broken = store.writer.run(|transaction, _| -> Result<()> {
        transaction.execute("DELETE FROM types", [])?;
        panic!("a defect")
    });
    assert_eq!(broken.await.map_err(|error| error.kind()), Err(StoreErrorKind::Fault));
    store.ensure_type(&layout("Shot")).await.expect("the thread goes on");
    assert_eq!(store.types().await.expect("types").len(), 2);
}

#[tokio::test]
async fn jobs_that_share_a_transaction_undo_only_their_own_work() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let name = |transaction: &rusqlite::Transaction<'_>, name: &str| -> Result<()> {
        transaction.execute("INSERT INTO types (name) VALUES (?1)", [name])?;
        super::layouts::bump(transaction)?;
        Ok(())
    };
    let first = store.writer.run_grouped(move |transaction, _| {
        // The others are in the queue when this ends.
        let _ = wait.recv();
        name(transaction, "First")
    });
    let failing = store.writer.run_grouped(move |transaction, _| -> Result<()> {
        name(transaction, "Failing")?;
        Err(StoreError::new(StoreErrorKind::Refused, "no"))
    });
    let breaking = store.writer.run_grouped(move |transaction, _| -> Result<()> {
        name(transaction, "Breaking")?;
        panic!("a defect")
    });
    let last = store.writer.run_grouped(move |transaction, layouts| {
        assert!(layouts.number("First") > 0 && layouts.number("Failing") < 0 && layouts.number("Breaking") < 0);
        name(transaction, "Last")
    });
    let released = async {
        go.send(()).expect("the first job waits");
    };
    let (first, failing, breaking, last, ()) = futures::join!(first, failing, breaking, last, released);
    assert_eq!((first.is_ok(), last.is_ok()), (true, true));
    assert_eq!(failing.map_err(|error| error.kind()), Err(StoreErrorKind::Refused));
    assert_eq!(breaking.map_err(|error| error.kind()), Err(StoreErrorKind::Fault));
    let numbers =
        store.read(|_, layouts| Ok(["First", "Failing", "Breaking", "Last"].map(|name| layouts.number(name))));
    assert_eq!(numbers.await.expect("numbers").map(|number| number > 0), [true, false, false, true]);
}

#[tokio::test]
async fn a_disk_that_fills_up_fails_every_job_of_the_transaction() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path()).await;
    let pages = store.writer.run(|transaction, _| {
        let pages: i64 = transaction.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        Ok(transaction.query_row(&format!("PRAGMA max_page_count = {}", pages + 4), [], |row| row.get::<_, i64>(0))?)
    });
    pages.await.expect("a limit");
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let small = store.writer.run_grouped(move |transaction, _| {
        let _ = wait.recv();
        transaction.execute("INSERT INTO types (name) VALUES ('Small')", [])?;
        Ok(())
    });
    let large = store.writer.run_grouped(|transaction, _| {
        transaction.execute("INSERT INTO types (name) VALUES (hex(zeroblob(100000)))", [])?;
        Ok(())
    });
    let released = async { go.send(()).expect("the first job waits") };
    let (small, large, ()) = futures::join!(small, large, released);
    assert_eq!(large.map_err(|error| error.kind()), Err(StoreErrorKind::Full));
    // Either all of it was given up, and then it is said so, or only the large part.
    let stored = store.read(|reader, _| {
        let sql = "SELECT count(*) FROM types WHERE name = 'Small'";
        Ok(reader.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(stored.await.expect("a count") == 1, small.is_ok());
    store.ensure_type(&layout("Shot")).await.expect("the store goes on");
}
