//! `sgcache breaker`, beside nothing but a data directory.

use serde_json::json;
use sgcache::entity::{EntityRef, EntityType};
use sgcache::state::{DirtyReasons, ImportState, NewDirtyKey, SiteTime, State};

use crate::program::Place;

#[tokio::test]
async fn held_deletions_are_shown_and_an_operator_decides() {
    let place = Place::new();
    let shot = EntityType::new("Shot");
    let state = State::open(&place.path("data")).await.expect("a state");
    let import = ImportState { lo_rv: 0, segments: Vec::new(), rows: 0, expected: None, confirm_poll: None };
    state.begin_import(&shot, "layout", &import).await.expect("a type");
    let ended = place.run(&["breaker", "confirm", "Shot"]).expect_code(2);
    assert!(ended.stderr.contains("no deletion of `Shot` waits"), "{}", ended.stderr);

    let held = |id| NewDirtyKey::new(EntityRef::new("Shot", id), DirtyReasons::DELETION_STOPPED);
    let hold = async |ids: [i64; 2]| {
        state.mark(&ids.map(held), SiteTime(5_000)).await.expect("marks");
        state.open_breaker(&shot, SiteTime(5_000)).await.expect("a breaker");
    };
    hold([3, 7]).await;
    let shown = place.run(&["breaker", "show", "-o", "json"]).expect_code(0).json();
    let since = "1970-01-01T00:00:05Z";
    assert_eq!(shown, json!([{"entity_type": "Shot", "since": since, "held": [3, 7], "suspected": 0, "active": 0}]));
    let table = place.run(&["breaker", "show"]).expect_code(0);
    assert!(table.stdout.contains("3, 7") && table.stderr.contains("sgcache breaker confirm"), "{}", table.stdout);

    place.run(&["breaker", "confirm", "Shot"]).expect_code(0);
    assert!(state.open_breakers().await.expect("breakers").is_empty());
    assert_eq!(state.quarantined(&shot).await.expect("keys"), [3, 7], "until they are read");
    hold([8, 9]).await;
    place.run(&["breaker", "reset", "Shot"]).expect_code(0);
    assert!(state.open_breakers().await.expect("breakers").is_empty());
    assert!(state.quarantined(&shot).await.expect("keys").is_empty());
    assert_eq!(state.due_marks(SiteTime(5_000), 10).await.expect("marks").len(), 4);
}
