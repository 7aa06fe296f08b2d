//! `sgcache deadLetters`, run as an operator runs it, over a state file that holds one
//! row that cannot be read and one event log entry that names no entity.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sgcache::entity::{EntityRef, EntityType};
use sgcache::state::{DeadKind, DirtyReasons, Finish, NewDead, NewDirtyKey, Postponed, SiteTime, State};

use crate::program::Place;

const NOW: SiteTime = SiteTime(1_000_000);

async fn letters(directory: &Path) -> State {
    let state = State::open(directory).await.expect("a state");
    let (shot, entry) = (EntityRef::new("Shot", 7), EntityRef::new("EventLogEntry", 99));
    state.mark(&[NewDirtyKey::new(shot.clone(), DirtyReasons::CHANGE)], NOW).await.expect("a dirty key");
    let ticket = state.begin_read(&EntityType::new("Shot"), NOW).await.expect("a read");
    let letter = |kind, key, error: &str| NewDead { kind, key, payload: r#"{"id":1}"#.into(), error: error.into() };
    let dead = vec![
        letter(DeadKind::Read, shot.clone(), "the site answers with Fault 104"),
        letter(DeadKind::Event, entry, "it has no entity"),
    ];
    let postponed = vec![Postponed { key: shot, delay: Duration::from_secs(3600), add: DirtyReasons::QUARANTINED }];
    state.finish(Finish { dead, postponed, ..Finish::new(ticket, NOW) }).await.expect("a finish");
    assert!(state.due_marks(NOW, 10).await.expect("dirty keys").is_empty(), "the next attempt is an hour away");
    state
}

fn json(place: &Place, args: &[&str]) -> Value {
    let ended = place.run(args);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[tokio::test]
async fn dead_letters_are_listed_shown_retried_and_dropped() {
    let place = Place::new();
    let before = place.run(&["deadLetters", "list"]);
    assert_eq!(before.code, Some(78), "{}", before.stderr);
    assert!(before.stderr.contains("sgcache pipelines run"), "{}", before.stderr);
    assert!(!place.path("data").exists(), "a list creates nothing");
    let state = letters(&place.path("data")).await;

    let all = json(&place, &["deadLetters", "list", "-o", "json"]);
    let kinds: Vec<_> = all.as_array().expect("a list").iter().map(|letter| letter["kind"].clone()).collect();
    assert_eq!(kinds, [json!("read"), json!("event")]);
    let serial = all[0]["serial"].to_string();
    let table = place.run(&["deadLetters", "list"]);
    assert!(table.stdout.contains("Shot:7") && table.stdout.contains("Fault 104"), "{}", table.stdout);
    assert_eq!(json(&place, &["deadLetters", "list", "--kind", "event", "-o", "json"])[0]["key"]["id"], 99);
    assert_eq!(json(&place, &["deadLetters", "show", &serial])["payload"], r#"{"id":1}"#);

    let unknown = place.run(&["deadLetters", "retry", "4711"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    let retried = place.run(&["deadLetters", "retry", "--all"]);
    assert_eq!(retried.code, Some(0), "{}", retried.stderr);
    assert!(retried.stderr.contains("1 entities") && retried.stderr.contains("1 event log entries"));
    let due = state.due_marks(NOW, 10).await.expect("dirty keys");
    assert_eq!(due.iter().map(|mark| mark.key.id).collect::<Vec<_>>(), [7]);

    assert_eq!(place.run(&["deadLetters", "drop", "--kind", "event"]).code, Some(0));
    assert_eq!(state.dead(10).await.expect("dead letters").len(), 1);
    assert_eq!(place.run(&["deadLetters", "drop", &serial]).code, Some(0));
    assert!(state.dead(10).await.expect("dead letters").is_empty());
    assert_eq!(place.run(&["deadLetters", "drop", "--all"]).code, Some(12), "there is nothing to drop");
}
