//! The jobs `scan`, `deadLetters`, `export` and `repair` on the command line, against what
//! the simulated site holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use sgcache::entity::EntityRef;
use sgcache::sim::SimHandle;
use sgcache::state::{DeadKind, Finish, NewDead, SiteTime, State};

use crate::program::Place;
use crate::servers::{python, skipped};
use crate::sync_cache::happen;

/// The values of a field on the site, by id.
fn on_site(site: &SimHandle, entity_type: &str, field: &str) -> BTreeMap<i64, Value> {
    let rows = site.site().read(entity_type, &json!([]), &["id", field]).expect("rows");
    rows.iter().map(|row| (row["id"].as_i64().expect("an id"), row[field].clone())).collect()
}

/// The values of a field in the cache, by id.
fn in_cache(place: &Place, entity_type: &str, field: &str) -> BTreeMap<i64, Value> {
    let rows = place.run(&["find", entity_type, "--fields", field, "--limit", "100000", "-o", "json"]);
    let rows = rows.expect_code(0).json();
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| (row["id"].as_i64().expect("an id"), row[field].clone())).collect()
}

/// Runs a job that ends like this, and returns the result of its step.
fn result(place: &Place, args: &[&str], code: i32) -> Value {
    let all: Vec<&str> = ["job"].into_iter().chain(args.iter().copied()).chain(["-o", "json"]).collect();
    place.run(&all).expect_code(code).json()["steps"][0]["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_finds_what_no_event_reports_and_has_it_read_again() {
    let (place, site) = Place::imported(600).await;
    let ids: Vec<i64> = on_site(&site, "Shot", "sg_cut_in").into_keys().take(3).collect();
    for id in &ids[..2] {
        site.site().update_silently("Shot", *id, json!({"sg_cut_in": 4711})).expect("an update");
    }
    happen(site.site(), json!({"purge": {"type": "Shot", "id": ids[2]}}));
    assert_ne!(in_cache(&place, "Shot", "sg_cut_in"), on_site(&site, "Shot", "sg_cut_in"));

    let shots = &result(&place, &["scan", "Shot"], 0)["by_type"]["Shot"];
    assert_eq!((&shots["extra"], &shots["differs"], &shots["drift"]), (&json!(1), &json!(2), &json!(3)));
    assert_eq!(shots["checked"], on_site(&site, "Shot", "code").len());
    let (cache, there) = (in_cache(&place, "Shot", "sg_cut_in"), on_site(&site, "Shot", "sg_cut_in"));
    // An absence is believed after three reads at three times.
    assert_eq!(cache.iter().filter(|(id, _)| **id != ids[2]).collect::<BTreeMap<_, _>>(), there.iter().collect());
    assert_eq!(result(&place, &["scan", "Asset"], 0)["drift"], 0);
    place.run(&["job", "scan", "Shott"]).expect_code(2).says(&["`Shott`", "did you mean `Shot`?"]);
    place.run(&["job", "scan", "--rows", "5"]).expect_code(2).says(&["`rows` has no effect"]);
    place.run(&["job", "scan", "Shot", "--mode", "full"]).expect_code(2).says(&["`types` has no effect"]);
}

/// Removes the document of a shot from the file of the store.
fn lose_a_row(place: &Place, id: i64) {
    let file = rusqlite::Connection::open(place.path("data/store.sqlite")).expect("the store");
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'doc_*_Shot'";
    let table: String = file.query_row(sql, [], |row| row.get(0)).expect("a table of shots");
    file.execute(&format!("DELETE FROM {table} WHERE id = ?1"), [id]).expect("a removal");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_of_a_scan_compares_what_it_names() {
    let (place, site) = Place::imported(600).await;
    let ids: Vec<i64> = on_site(&site, "Shot", "sg_cut_in").into_keys().collect();
    // This one has neither an event nor a new `updated_at`: only whole rows differ.
    let updated = on_site(&site, "Shot", "updated_at")[&ids[0]].clone();
    site.site().update_silently("Shot", ids[0], json!({"sg_cut_in": 815})).expect("an update");
    site.site().update_silently("Shot", ids[0], json!({"updated_at": updated})).expect("an update");
    assert_eq!(on_site(&site, "Shot", "updated_at")[&ids[0]], updated);
    assert_eq!(result(&place, &["scan", "--mode", "light"], 0)["drift"], 0);
    assert_eq!(result(&place, &["scan", "--mode", "retired"], 0)["drift"], 0);
    let full = result(&place, &["scan", "--mode", "full", "--rows", "100000"], 0);
    assert_eq!((&full["drift"], &full["outputs"]["damaged"]), (&json!(1), &json!(0)));
    assert_eq!(in_cache(&place, "Shot", "sg_cut_in"), on_site(&site, "Shot", "sg_cut_in"));

    // The store is changed behind the back of sync.
    place.run(&["job", "corrupt", "--rows", "3"]).expect_code(0);
    assert_eq!(result(&place, &["scan", "--mode", "full", "--rows", "100000"], 0)["outputs"]["damaged"], 3);
    // A row is lost from its file; the site is not asked about it.
    assert_eq!(result(&place, &["scan", "--mode", "columns"], 0)["drift"], 0);
    lose_a_row(&place, ids[1]);
    let columns = result(&place, &["scan", "--mode", "columns"], 0);
    assert_eq!((&columns["drift"], &columns["requests"]), (&json!(1), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_the_site_holds() {
    let (place, site) = Place::imported(600).await;
    let id = *on_site(&site, "Shot", "code").keys().next().expect("a shot");
    site.site().update("Shot", id, json!({"code": "a, \"b\"\nc"})).expect("an update");
    place.run(&["job", "sync"]).expect_code(0);
    let there = on_site(&site, "Shot", "code");

    let rows = place.run(&["job", "export", "Shot", "--fields", "code"]).expect_code(0).stdout;
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let exported: Vec<(i64, Value)> =
        rows.iter().map(|row| (row["id"].as_i64().expect("an id"), row["code"].clone())).collect();
    assert_eq!(exported, there.clone().into_iter().collect::<Vec<_>>(), "by id, and all");

    let report = result(&place, &["export", "Shot", "Asset", "--format", "csv", "--file", "out/{type}.csv"], 0);
    let counts = ["Shot", "Asset"].map(|ty| report["by_type"][ty]["written"].as_u64().expect("a number") as usize);
    assert_eq!(counts, [there.len(), on_site(&site, "Asset", "code").len()]);
    let names: BTreeSet<_> =
        std::fs::read_dir(place.path("out")).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(names, ["Asset.csv", "Shot.csv"].map(std::ffi::OsString::from).into());
    // A reader of its own: the standard library of Python.
    let script =
        "import csv,json,sys; print(json.dumps([[int(r['id']), r['code']] for r in csv.DictReader(sys.stdin)]))";
    let file = std::fs::File::open(place.path("out/Shot.csv")).expect("the file");
    let read = std::process::Command::new("python3").args(["-c", script]).stdin(file).output().expect("python3");
    let read: Vec<(i64, Value)> = serde_json::from_slice(&read.stdout).expect("JSON");
    assert_eq!(read, there.into_iter().collect::<Vec<_>>());

    let some = ["job", "export", "Shot", "--filters", &format!("[['id','is',{id}]]"), "--fields", "code"];
    assert_eq!(place.run(&some).expect_code(0).stdout.lines().count(), 1);
    place.run(&["job", "export", "Shot", "--fields", "cod"]).expect_code(2).says(&["did you mean `code`?"]);
    let several = ["job", "export", "Shot", "Asset", "--format", "csv", "--file", "all.csv"];
    place.run(&several).expect_code(2).says(&["one CSV file holds one entity type", "{type}"]);
}

/// Reads a Parquet file with pyarrow: its columns with their types, and its rows.
fn read_with_pyarrow(path: &Path) -> Option<Value> {
    let python = python("cli_jobs")?;
    let script = "
import json, sys
try:
    import pyarrow.parquet as parquet
except ImportError:
    sys.exit(3)
table = parquet.read_table(sys.argv[1])
compressions = {parquet.ParquetFile(sys.argv[1]).metadata.row_group(0).column(0).compression}
print(json.dumps({'columns': {field.name: str(field.type) for field in table.schema},
                  'compressions': sorted(compressions), 'rows': table.to_pylist()}, default=str))
";
    let read = std::process::Command::new(python).args(["-c", script]).arg(path).output().expect("Python");
    if read.status.code() == Some(3) {
        skipped("cli_jobs", "Python has no pyarrow (eval \"$(tests/setup)\")");
        return None;
    }
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    Some(serde_json::from_slice(&read.stdout).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_has_typed_columns_and_keeps_nulls() {
    let (place, site) = Place::imported(600).await;
    let id = *on_site(&site, "Shot", "code").keys().next().expect("a shot");
    let values = json!({"code": "a < \"b\"", "sg_cut_in": null, "sg_cut_out": 7, "description": null});
    site.site().update("Shot", id, values).expect("an update");
    place.run(&["job", "sync"]).expect_code(0);
    let csv = ["job", "export", "Shot", "Task", "--file", "out/{type}.ndjson"];
    place.run(&csv).expect_code(0);
    let args = ["export", "Shot", "Task", "--format", "parquet", "--file", "out/{type}.parquet"];
    let report = result(&place, &args, 0);
    for ty in ["Shot", "Task"] {
        let text = std::fs::read_to_string(place.path(&format!("out/{ty}.ndjson"))).expect("the rows");
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(report["by_type"][ty]["written"], rows.len());
        let path = place.path(&format!("out/{ty}.parquet"));
        let file = SerializedFileReader::new(std::fs::File::open(&path).expect("the file")).expect("a Parquet file");
        assert_eq!(file.metadata().file_metadata().num_rows(), rows.len() as i64);
        let Some(read) = read_with_pyarrow(&path) else { continue };
        assert_eq!(read["compressions"], json!(["SNAPPY"]));
        let found = read["rows"].as_array().expect("rows");
        assert_eq!(found.len(), rows.len());
        for (found, row) in found.iter().zip(&rows) {
            for (name, value) in row.as_object().expect("a row") {
                assert_eq!(as_json(&found[name], &read["columns"][name]), comparable(value), "{ty} {name}");
            }
        }
        let types = |names: &[&str]| names.iter().map(|name| read["columns"][*name].clone()).collect::<Vec<_>>();
        if ty == "Shot" {
            let expected = ["int64", "string", "int64", "timestamp[us, tz=UTC]", "string", "string"];
            assert_eq!(types(&["id", "type", "sg_cut_in", "updated_at", "project", "assets"]), expected);
            let row = found.iter().find(|row| row["id"] == id).expect("the shot");
            assert_eq!(
                (&row["code"], &row["sg_cut_in"], &row["sg_cut_out"]),
                (&json!("a < \"b\""), &Value::Null, &json!(7))
            );
        } else {
            assert_eq!(types(&["start_date", "duration", "milestone"]), ["date32[day]", "int64", "bool"]);
        }
    }
    let left = std::fs::read_dir(place.path("out")).expect("a folder").map(|file| file.expect("a file").file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().contains("partial")).count(), 0);
    // On the standard output, too; and a table without a row is one.
    let none = ["job", "export", "Shot", "--format", "parquet", "--filters", "[['id','is',0]]"];
    let printed = place.command(&none).output().expect("the program").stdout;
    let empty = SerializedFileReader::new(bytes::Bytes::from(printed)).expect("a Parquet file").metadata().clone();
    let columns = empty.file_metadata().schema().get_fields().len();
    assert!(empty.file_metadata().num_rows() == 0 && columns > 10, "{columns} columns");
    let several = ["job", "export", "Shot", "Task", "--format", "parquet", "--file", "all.parquet"];
    place.run(&several).expect_code(2).says(&["one Parquet file holds one entity type", "{type}.parquet"]);
}

/// What pyarrow read, as `find()` has it.
fn as_json(value: &Value, column: &Value) -> Value {
    match (value, column.as_str().unwrap_or_default()) {
        (Value::String(text), kind) if kind.starts_with("timestamp") => {
            text.replace(' ', "T").replace("+00:00", "Z").into()
        }
        _ => comparable(value),
    }
}

/// A value as it stands in a table: links and lists as JSON.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => value.to_string().into(),
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_takes_what_the_last_validation_left_or_what_is_named() {
    let (place, site) = Place::imported(600).await;
    place.run(&["job", "repair"]).expect_code(12).says(&["left a mismatch"]);
    let ids: Vec<i64> = on_site(&site, "Shot", "sg_cut_in").into_keys().collect();
    let change = |id: i64, frame: i64| {
        let updated = on_site(&site, "Shot", "updated_at")[&id].clone();
        site.site().update_silently("Shot", id, json!({"sg_cut_in": frame})).expect("an update");
        site.site().update_silently("Shot", id, json!({"updated_at": updated})).expect("an update");
    };
    let equal = || in_cache(&place, "Shot", "sg_cut_in") == on_site(&site, "Shot", "sg_cut_in");
    change(ids[0], 815);
    let found = result(&place, &["validateData", "Shot"], 10);
    assert_eq!(found["drift"], 1);
    let repaired = result(&place, &["repair"], 0);
    assert_eq!((&repaired["repaired"], &repaired["unresolved"], equal()), (&json!(1), &json!(0), true));

    change(ids[1], 816);
    assert!(!equal());
    let repaired = result(&place, &["repair", "Shot", &ids[1].to_string()], 0);
    assert_eq!((&repaired["repaired"], equal()), (&json!(1), true));
    place.run(&["job", "repair", "Shot", "x"]).expect_code(2).says(&["one entity type, then ids"]);
    place.run(&["job", "repair", "Shott", "1"]).expect_code(2).says(&["`Shott`"]);
    place.run(&["job", "repair", "--run", "01K00000000000000000000000"]).expect_code(78).says(&["there is no run"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_and_tried_again() {
    let (place, site) = Place::imported(600).await;
    assert_eq!(result(&place, &["deadLetters"], 0)["unresolved"], 0);
    let id = *on_site(&site, "Shot", "code").keys().next().expect("a shot");
    let state = State::open(&place.path("data")).await.expect("the state");
    let now = SiteTime(chrono::Utc::now().timestamp_millis());
    let letter = |kind, key: EntityRef| NewDead { kind, key, payload: "{}".into(), error: "a reason".into() };
    let read = state.begin_read(&"Shot".into(), now).await.expect("a read");
    let dead = vec![
        letter(DeadKind::Read, EntityRef::new("Shot", id)),
        letter(DeadKind::Event, EntityRef::new("EventLogEntry", 9)),
    ];
    state.finish(Finish { dead, ..Finish::new(read, now) }).await.expect("a finish");

    let counted = result(&place, &["deadLetters"], 10);
    let outputs = &counted["outputs"];
    assert_eq!((&outputs["read"], &outputs["event"], &counted["unresolved"]), (&json!(1), &json!(1), &json!(2)));
    let retried = result(&place, &["deadLetters", "--retry"], 10);
    assert_eq!((&retried["repaired"], &retried["unresolved"]), (&json!(1), &json!(1)), "an entry has no key to read");
}

#[test]
fn the_jobs_are_listed_with_what_they_do() {
    let place = Place::new();
    let jobs = place.run(&["job", "--list", "-o", "json"]).expect_code(0).json();
    let names: Vec<_> =
        jobs.as_array().expect("a list").iter().map(|job| job["job"].as_str().expect("a name")).collect();
    assert_eq!(names, sgcache::pipeline::JobSpec::NAMES);
    let help = place.run(&["job", "--help"]).expect_code(0).stdout;
    for job in jobs.as_array().expect("a list") {
        let (name, summary) = (job["job"].as_str().expect("a name"), job["summary"].as_str().unwrap_or_default());
        assert!(summary.len() > 10, "{name}");
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name} in {help}");
    }
}
