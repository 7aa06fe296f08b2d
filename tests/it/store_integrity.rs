//! A store that is not what was written into it: flipped bytes, an older copy, files
//! that are gone. The rows of the simulated site are the truth.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;
use sgcache::entity::{EntityRef, EntityType};
use sgcache::filter::Query;
use sgcache::state::DeadKind;
use sgcache::store::StoreErrorKind;
use sgcache::sync::Steps;

use crate::sync_cache::{Cache, create, empty_site};

const SCRUB: Duration = Duration::from_secs(601);

fn shot() -> EntityType {
    EntityType::new("Shot")
}

async fn of_shots(count: usize) -> (Cache, Vec<i64>) {
    let site = empty_site();
    let ids = (0..count).map(|n| create(&site, "Shot", json!({"code": format!("shot{n}")}))).collect();
    (Cache::live(site).await, ids)
}

/// The file as another program has it.
fn file(cache: &Cache) -> Connection {
    Connection::open(cache.directory().join("store.sqlite")).expect("the file of the store")
}

fn table(file: &Connection, kind: &str) -> String {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB ?1";
    file.query_row(sql, [format!("{kind}_*_Shot")], |row| row.get(0)).expect("a table of shots")
}

/// Changes one letter in the document of a shot; it is still JSON.
fn flip(cache: &Cache, id: i64) {
    let file = file(cache);
    let docs = table(&file, "doc");
    let read = format!("SELECT body FROM {docs} WHERE id = ?1");
    let mut body: Vec<u8> = file.query_row(&read, [id], |row| row.get(0)).expect("a document");
    let at = body.windows(4).position(|four| four == b"shot").expect("its code");
    body[at] ^= 1;
    file.execute(&format!("UPDATE {docs} SET body = ?2 WHERE id = ?1"), (id, body)).expect("a change");
}

fn store_files(cache: &Cache) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.directory()).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.to_string_lossy().contains("store.sqlite")).collect()
}

async fn stored_dead_letters(cache: &Cache) -> Vec<EntityRef> {
    let dead = cache.state().dead(100).await.expect("dead letters");
    dead.into_iter().filter(|dead| dead.kind == DeadKind::Stored).map(|dead| dead.key).collect()
}

#[tokio::test]
async fn a_flipped_letter_in_a_document_is_an_error_that_names_its_row_which_is_read_again() {
    let (cache, ids) = of_shots(3).await;
    flip(&cache, ids[1]);
    let store = cache.replica().store();
    let query = Query::all("Shot").fields(cache.replica().tracked().layout(&shot()).expect("shots").paths());
    let error = store.find(&query).await.expect_err("the row is damaged");
    assert_eq!((error.kind(), error.row()), (StoreErrorKind::Corrupt, Some(&EntityRef::new("Shot", ids[1]))));
    assert!(error.to_string().contains(&format!("Shot:{}", ids[1])), "{error}");
    assert_eq!(cache.state().quarantined(&shot()).await.expect("ids"), [ids[1]], "no answer shows it");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(cache.state().quarantined(&shot()).await.expect("ids").is_empty());
}

#[tokio::test]
async fn a_document_that_is_missing_is_damage_and_not_an_absent_row() {
    let (cache, ids) = of_shots(2).await;
    let open = file(&cache);
    open.execute(&format!("DELETE FROM {} WHERE id = ?1", table(&open, "doc")), [ids[0]]).expect("a removal");
    let key = EntityRef::new("Shot", ids[0]);
    let read = cache.replica().store().get(std::slice::from_ref(&key), &sgcache::store::Fields::All).await;
    assert_eq!(read.expect_err("the row is damaged").row(), Some(&key));
    let query = Query::all("Shot").fields(cache.replica().tracked().layout(&shot()).expect("shots").paths());
    let found = cache.replica().store().find(&query).await;
    assert_eq!(found.expect_err("the row is damaged").row(), Some(&key), "no answer leaves it out");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn the_scrub_finds_damage_that_nobody_reads() {
    let (cache, ids) = of_shots(5).await;
    cache.step().await.expect("a step");
    flip(&cache, ids[0]);
    let open = file(&cache);
    let rows = table(&open, "row");
    let code: String = open
        .query_row("SELECT name FROM pragma_table_info(?1) WHERE name GLOB 'c*_code'", [&rows], |row| row.get(0))
        .expect("a column");
    open.execute(&format!("UPDATE {rows} SET {code} = 'other' WHERE id = ?1"), [ids[1]]).expect("a change");
    open.execute(&format!("DELETE FROM {rows} WHERE id = ?1"), [ids[2]]).expect("a removal");
    cache.tick(SCRUB);
    cache.step().await.expect("a step");
    assert_eq!(cache.metrics().value("sgcache_sync_damaged_rows_total", &[("entity_type", "other")]), Some(3.0));
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(stored_dead_letters(&cache).await.is_empty());
    let by_code = sgcache::filter::Filter::ids(ids.clone());
    assert_eq!(cache.store().count(&Query::all("Shot").filter(by_code)).await.expect("a count"), 5);
}

#[tokio::test]
async fn an_older_store_that_is_put_back_is_found_at_the_start() {
    let (mut cache, ids) = of_shots(4).await;
    cache.stop();
    let older = fs::read(cache.directory().join("store.sqlite")).expect("the file of the store");
    cache.start(Steps::default()).await.expect("a start");
    let site = cache.site().clone();
    site.update("Shot", ids[0], json!({"code": "newer"})).expect("an update");
    site.retire("Shot", ids[1]).expect("a retirement");
    let created = create(&site, "Shot", json!({"code": "created"}));
    cache.quiesce().await;
    cache.stop();
    store_files(&cache).iter().for_each(|path| fs::remove_file(path).expect("a removal"));
    fs::write(cache.directory().join("store.sqlite"), older).expect("an older file");
    cache.start(Steps::default()).await.expect("a start");
    let mut suspects = cache.state().quarantined(&shot()).await.expect("ids");
    suspects.sort_unstable();
    assert_eq!(suspects, [ids[0], ids[1], created], "before anything is answered");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn files_that_are_removed_under_a_running_follower_are_made_again_without_a_restart() {
    let (cache, _) = of_shots(4).await;
    cache.step().await.expect("a step");
    store_files(&cache).iter().for_each(|path| fs::remove_file(path).expect("a removal"));
    cache.tick(SCRUB);
    cache.step().await.expect("a step");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(cache.directory().join("store.sqlite").exists());
}

#[tokio::test]
async fn a_file_with_a_broken_structure_is_put_aside_and_everything_read_again() {
    let (mut cache, _) = of_shots(4).await;
    cache.stop();
    let path = cache.directory().join("store.sqlite");
    let mut bytes = fs::read(&path).expect("the file of the store");
    let open = Connection::open(&path).expect("the file of the store");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let page: u32 = open.query_row(root, [table(&open, "doc")], |row| row.get(0)).expect("a page");
    let page = page as usize;
    drop(open);
    bytes[(page - 1) * 4096..page * 4096].fill(0xab);
    fs::write(&path, bytes).expect("a broken file");
    cache.start(Steps::default()).await.expect("a start");
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
    assert!(cache.directory().join("store.sqlite.damaged").exists());
}

/// Overwrites text in the definition of a table, as a damaged page has it.
fn damage_definition(cache: &Cache, table: &str, text: &str) {
    let path = cache.directory().join("store.sqlite");
    drop(file(cache));
    let mut bytes = fs::read(&path).expect("the file of the store");
    let begin = format!("CREATE TABLE {table} ");
    let from = bytes.windows(begin.len()).position(|some| some == begin.as_bytes()).expect("a definition");
    let at = bytes[from..].windows(text.len()).position(|some| some == text.as_bytes()).expect("the text") + from;
    bytes[at..at + text.len()].fill(0xab);
    fs::write(path, bytes).expect("a damaged file");
}

/// SQLite takes them for other columns, and the structure of the file for whole.
#[tokio::test]
async fn a_store_whose_tables_lost_their_columns_begins_anew() {
    for of_type in [true, false] {
        let (mut cache, ids) = of_shots(2).await;
        let rows = if of_type { table(&file(&cache), "row") } else { "types".to_owned() };
        cache.stop();
        damage_definition(&cache, &rows, if of_type { "fetched" } else { "layout" });
        cache.start(Steps::default()).await.expect("a start");
        cache.follower().import_pending().await.expect("an import");
        cache.site().update("Shot", ids[0], json!({"code": "newer"})).expect("an update");
        cache.quiesce().await;
        cache.assert_equal_to_site().await;
    }
}
