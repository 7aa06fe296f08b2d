//! Small mixtures that once diverged, each by a fault of its own.

use std::time::Duration;

use super::divergence;
use super::mixture::Happening::{self, *};
use super::mixture::Moment;

#[tokio::test(flavor = "multi_thread")]
async fn mixtures_that_once_diverged_do_not() {
    let at = |happenings: Vec<Happening>, millis| Moment { happenings, step: Duration::from_millis(millis) };
    // A dirty row that cannot be proven newer than its entries, over an older store.
    let unproven = vec![at(vec![Edit(2)], 300_000), at(vec![OlderFile("store")], 700)];
    assert_eq!(divergence(18, unproven).await, None);
    // A version that the store has as retired is there again when the state is lost, and its
    // filter hides it: no import finds it, and links to it stayed hidden.
    let unknown = vec![
        at(vec![Begin { ids: 17 }], 700),
        at(vec![Begin { ids: 23 }, Begin { ids: 1 }], 30_000),
        at(vec![Begin { ids: 29 }], 5_000),
        at(vec![Edit(10)], 2_000),
        at(vec![Begin { ids: 11 }], 1_300),
        at(vec![Begin { ids: 3 }], 1_400),
        at(vec![Edit(21)], 300_000),
        at(vec![End { newest: true, commits: true }], 30_000),
        at(vec![Trouble { number: 1, chance: 0.25 }], 700),
        at(vec![LoseState], 2_000),
        at(vec![Edit(16), Edit(11)], 300_000),
        at(vec![Edit(16), Edit(2), Edit(13)], 300_000),
        at(vec![Kill { point: 8 }, EndTrouble], 700),
        at(vec![Edit(15), Edit(11), Lag { of: "events", millis: 0 }], 30_000),
    ];
    assert_eq!(divergence(14, unknown).await, None);
    // One refusal had the retired shot given up as unreadable, and links to it stayed.
    let busy = vec![at(vec![Trouble { number: 6, chance: 0.05 }, Edit(10)], 700)];
    assert_eq!(divergence(45, busy).await, None);
    // The store is lost while rows are behind their events: what those announced was lost too.
    let behind =
        vec![at(vec![Lag { of: "rows", millis: 6_000 }], 5_000), at(vec![Edit(3)], 1_300), at(vec![LoseStore], 2_000)];
    assert_eq!(divergence(45, behind).await, None);
    // Every answer of the site is empty or no rows at all: the event log seemed to be quiet.
    let empty = vec![
        at(vec![Trouble { number: 8, chance: 0.25 }, Trouble { number: 7, chance: 1.0 }], 30_000),
        at(vec![], 300_000),
        at(vec![], 300_000),
        at(vec![], 5_000),
        at(vec![Edit(2)], 300_000),
    ];
    assert_eq!(divergence(40, empty).await, None);
    // More rows vanish with a restored site than may without an operator.
    let vanished = vec![at(vec![Edit(9)], 700), at(vec![Storm(51)], 300_000), at(vec![Restore], 700)];
    assert_eq!(divergence(23, vanished).await, None);
    // An older store under an import that was copied and not confirmed yet.
    let copied = vec![
        at(vec![], 30_000),
        at(vec![Edit(18), HideProject], 700),
        at(vec![], 700),
        at(vec![], 300_000),
        at(vec![OlderFile("store")], 5_000),
    ];
    assert_eq!(divergence(159, copied).await, None);
    // What was gone when the site was restored is there again, and its filter hides it.
    let restored = vec![
        at(vec![Edit(17)], 1_300),
        at(vec![Backup], 700),
        at(vec![], 300_000),
        at(vec![], 700),
        at(vec![Edit(18)], 5_000),
        at(vec![Restore, Edit(21)], 1_300),
    ];
    assert_eq!(divergence(189, restored).await, None);
    // The damage is in the definition of a table, which SQLite takes for another one.
    let damaged = vec![
        at(vec![Edit(10)], 2_000),
        at(vec![], 2_000),
        at(vec![Damage { at: 0.5587398990443138 }], 700),
        at(vec![Edit(11)], 300_000),
    ];
    assert_eq!(divergence(176, damaged).await, None);
}
