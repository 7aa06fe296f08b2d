//! What may happen to a site and its follower, and the mixture of a seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sgcache::sim::Site;

use crate::edits::{EDITS, Made};
use crate::sync_cache::to;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// One of [`EDITS`].
    Edit(usize),
    /// One of [`silent_writes`], by a script whose events are off.
    SilentWrite(usize),
    /// Creations of one transaction.
    Storm(usize),
    /// A transaction that writes and stays open, with event ids that it holds.
    Begin {
        ids: usize,
    },
    /// The end of the oldest or newest open transaction.
    End {
        newest: bool,
        commits: bool,
    },
    /// Ids of the event log that are never seen.
    BurnIds(usize),
    /// Rows, or events, are seen later than they are written.
    Lag {
        of: &'static str,
        millis: u64,
    },
    /// One of [`TROUBLES`] for a share of the requests.
    Trouble {
        number: usize,
        chance: f64,
    },
    EndTrouble,
    HideProject,
    ShowProjects,
    Backup,
    Restore,
    /// A row is gone as if it had never been.
    Purge(usize),
    /// Entries of the event log that are older than these seconds are gone.
    Retention(u64),
    /// One of [`ODD_EVENTS`].
    OddEvent(usize),
    /// The process dies within the next step, at one of its crash points.
    Kill {
        point: i64,
    },
    /// The process dies and what it stored is gone.
    LoseStore,
    LoseState,
    /// The process dies and an older copy of its store, or its state, is put back.
    OlderFile(&'static str),
    /// Bytes of the store are overwritten while the process is down.
    Damage {
        at: f64,
    },
}

/// What requests meet, in the words of the admin endpoint.
pub(super) fn troubles() -> Vec<Value> {
    vec![
        json!({"status": 503}),
        json!({"busy": {"status": 429, "retry_after": "2s"}}),
        json!("html"),
        json!("truncated"),
        json!("dropped_after_commit"),
        json!("dropped_before"),
        json!({"fault": [104, "the site is busy"]}),
        json!({"answer": {"status": 200, "body": "{\"results\": null}"}}),
        json!("no_rows"),
    ]
}

const TROUBLES: usize = 9;

pub(super) fn silent_writes(made: &Made) -> Vec<Value> {
    let update = |kind: &str, id: i64, fields: Value| json!({"update": {"type": kind, "id": id, "fields": fields}});
    let shot = made.shots[1];
    vec![
        update("Shot", shot, json!({"code": "changed silently"})),
        update("Shot", shot, json!({"sg_sequence": to("Sequence", made.sequences[3])})),
        update("Asset", made.assets[1], json!({"shots": [to("Shot", shot)]})),
        update("Asset", made.assets[0], json!({"sg_status_list": "omt"})),
        update("Sequence", made.sequences[0], json!({"sg_status_list": "omt"})),
        json!({"create": {"type": "Version", "fields": {"code": "silent", "project": to("Project", 1), "entity": to("Shot", shot)}}}),
        json!({"retire": to("Task", made.tasks[2])}),
        json!({"revive": to("Task", made.tasks[2])}),
        json!({"retire": to("Asset", made.assets[2])}),
    ]
}

const SILENT_WRITES: usize = 9;

/// Makes something happen; what the site refuses did not happen.
pub(super) fn perform(site: &Arc<Site>, action: Value) {
    drop(site.perform(&serde_json::from_value(action).expect("an action")));
}

/// Entries of shapes that no documentation knows.
pub(super) fn odd_events() -> Vec<Value> {
    vec![
        json!({"event_type": "Shotgun_Shot_Change"}),
        json!({"event_type": "Shotgun_Shot_Change", "meta": {"type": "attribute_change"}, "entity": to("Shot", 3)}),
        json!({"event_type": "Shotgun_Shot_New", "entity": to("Shot", 999_999)}),
        json!({"event_type": "Shotgun_Shot_Retirement_Of_Some_Other_Kind", "entity": to("Shot", 1)}),
        json!({"event_type": "x", "meta": [], "entity": null}),
    ]
}

const ODD_EVENTS: usize = 5;

/// What happens at one moment, and the step after it.
#[derive(Clone)]
pub(super) struct Moment {
    pub(super) happenings: Vec<Happening>,
    pub(super) step: Duration,
}

impl fmt::Debug for Moment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} then {:?}", self.happenings, self.step)
    }
}

fn pick<T: Copy>(rng: &mut SmallRng, choices: &[T]) -> T {
    *choices.choose(rng).expect("a choice")
}

fn happening(rng: &mut SmallRng) -> Happening {
    match rng.random_range(0..100) {
        0..50 => Happening::Edit(rng.random_range(0..EDITS.len())),
        50..54 => Happening::SilentWrite(rng.random_range(0..SILENT_WRITES)),
        54..56 => Happening::Storm(rng.random_range(5..60)),
        56..61 => Happening::Begin { ids: rng.random_range(0..30) },
        61..66 => Happening::End { newest: rng.random(), commits: rng.random_bool(0.8) },
        66..68 => Happening::BurnIds(rng.random_range(1..300)),
        68..73 => Happening::Lag {
            of: pick(rng, &["rows", "rows", "events"]),
            millis: pick(rng, &[0, 700, 1_500, 3_000, 6_000]),
        },
        73..79 => {
            Happening::Trouble { number: rng.random_range(0..TROUBLES), chance: pick(rng, &[0.05, 0.25, 0.5, 1.0]) }
        }
        79..86 => Happening::EndTrouble,
        86 => Happening::HideProject,
        87..89 => Happening::ShowProjects,
        89 => Happening::Backup,
        90 => Happening::Restore,
        91 => Happening::Purge(rng.random_range(0..4)),
        92 => Happening::Retention(pick(rng, &[60, 600])),
        93 => Happening::OddEvent(rng.random_range(0..ODD_EVENTS)),
        94..97 => Happening::Kill { point: rng.random_range(0..40) },
        97 => pick_file_fault(rng),
        98 => Happening::OlderFile(pick(rng, &["store", "state"])),
        _ => Happening::Damage { at: rng.random() },
    }
}

fn pick_file_fault(rng: &mut SmallRng) -> Happening {
    if rng.random() { Happening::LoseStore } else { Happening::LoseState }
}

/// The mixture of a seed, which lasts at least `length` in the time of the site.
pub(super) fn mixture(seed: u64, length: Duration) -> Vec<Moment> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut moments = Vec::new();
    let mut passed = Duration::ZERO;
    while passed < length {
        let happenings = (0..rng.random_range(0..4)).map(|_| happening(&mut rng)).collect();
        // Busy minutes with short steps, quiet ones with long ones.
        let step = Duration::from_millis(pick(&mut rng, &[700, 700, 1_300, 2_000, 2_000, 5_000, 30_000, 300_000]));
        passed += step;
        moments.push(Moment { happenings, step });
    }
    moments
}
