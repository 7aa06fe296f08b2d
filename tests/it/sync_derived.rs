//! Fields that the site derives from other entities: a change of these shows in no
//! event of the row and not in its `updated_at`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sgcache::entity::EntityRef;
use sgcache::sync::Steps;

use crate::sync_cache::{CONFIGS, Cache, create, empty_site, to};

const SHOT: (&str, &str) = ("Shot", r#"{"fields": {"code": {}, "open_notes": {}}}"#);
/// Without the fields that `open_notes` is derived from.
const NOTE: (&str, &str) = ("Note", r#"{"fields": {"subject": {}}}"#);

async fn following(configs: &[(&str, &str)]) -> Cache {
    let mut cache = Cache::of(empty_site()).await;
    cache.configure(configs).await;
    cache.start(Steps::default()).await.expect("a start");
    for code in ["a", "b"] {
        create(cache.site(), "Shot", json!({"code": code}));
    }
    cache.follower().import_pending().await.expect("an import");
    cache.quiesce().await;
    cache
}

/// The notes that the cache shows as open, by shot.
async fn cached_open(cache: &Cache) -> Vec<(i64, BTreeSet<i64>)> {
    let rows = cache.cached(cache.layout("Shot")).await;
    let ids = |notes: &Value| -> BTreeSet<i64> {
        notes.as_array().into_iter().flatten().filter_map(EntityRef::from_json).map(|key| key.id).collect()
    };
    rows.iter().map(|(id, row)| (*id, ids(&row["open_notes"]))).collect()
}

/// The same from what was written: the status and the links of every note.
fn written_open(notes: &[(i64, &str, &[i64])]) -> Vec<(i64, BTreeSet<i64>)> {
    let is_open = |status: &str| matches!(status, "opn" | "ip");
    let of = |shot: i64| notes.iter().filter(move |(_, status, links)| is_open(status) && links.contains(&shot));
    [1, 2].map(|shot| (shot, of(shot).map(|(id, ..)| *id).collect())).to_vec()
}

async fn follow_notes(configs: &[(&str, &str)]) {
    let cache = following(configs).await;
    let fields =
        |status: &str, shot: i64| json!({"subject": "n", "sg_status_list": status, "note_links": [to("Shot", shot)]});
    let first = create(cache.site(), "Note", fields("opn", 1));
    let second = create(cache.site(), "Note", fields("clsd", 1));
    let check = async |notes: &[(i64, &str, &[i64])]| {
        // Two steps: the note is read, then what follows from it.
        for _ in 0..2 {
            cache.step().await.expect("a step");
        }
        assert_eq!(cached_open(&cache).await, written_open(notes), "{notes:?}");
    };
    check(&[(first, "opn", &[1]), (second, "clsd", &[1])]).await;
    for status in ["clsd", "ip", "clsd", "opn"] {
        cache.site().update("Note", first, json!({"sg_status_list": status})).expect("an update");
        check(&[(first, status, &[1]), (second, "clsd", &[1])]).await;
    }
    cache.site().update("Note", second, json!({"sg_status_list": "opn"})).expect("an update");
    check(&[(first, "opn", &[1]), (second, "opn", &[1])]).await;
    cache.site().update("Note", first, json!({"note_links": [to("Shot", 2)]})).expect("an update");
    check(&[(first, "opn", &[2]), (second, "opn", &[1])]).await;
    cache.site().update("Note", first, json!({"sg_status_list": "clsd"})).expect("an update");
    check(&[(first, "clsd", &[2]), (second, "opn", &[1])]).await;
    cache.site().retire("Note", second).expect("a retirement");
    check(&[(first, "clsd", &[2])]).await;
    cache.quiesce().await;
    cache.assert_equal_to_site().await;
}

#[tokio::test]
async fn open_notes_follow_notes_that_are_not_cached() {
    follow_notes(&[CONFIGS[0], SHOT]).await;
}

#[tokio::test]
async fn open_notes_follow_cached_notes_without_their_status() {
    follow_notes(&[CONFIGS[0], SHOT, NOTE]).await;
}
