//! Fault points of loops, for tests that watch a real process lose one.
//!
//! Every beat is one, and so is each round of a thread or task that calls [`meet_on_thread`]. In a
//! debug build, `SGCACHE_LOOP_FAULTS` may name a directory; a file there that is named
//! like a loop, thread or task holds the word of what it meets next, and is taken away by that.
//! A release build has none of this.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Where faults are ordered.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults(Option<Arc<PathBuf>>);

/// What a loop meets.
enum Fault {
    /// It panics.
    Panic,
    /// It waits for something that never comes.
    Hang,
    /// The same, and nothing shows it before the bound of the loop.
    Stall,
    /// It holds its thread for ever, as a lock that is never released makes it.
    Block,
}

/// Lets a thread or task that is no loop meet what was ordered for its name.
pub fn meet_on_thread(name: &'static str) {
    static FAULTS: OnceLock<Faults> = OnceLock::new();
    match FAULTS.get_or_init(Faults::from_environment).take(name) {
        None => {}
        Some(Fault::Panic) => panic!("fault point of the {name} thread"),
        Some(Fault::Hang | Fault::Stall | Fault::Block) => loop {
            std::thread::park();
        },
    }
}

impl Faults {
    /// Returns those that the environment orders.
    pub fn from_environment() -> Self {
        let directory = std::env::var_os("SGCACHE_LOOP_FAULTS").filter(|_| cfg!(debug_assertions));
        Self(directory.map(|directory| Arc::new(directory.into())))
    }

    /// Lets a loop meet what was ordered for it; `beat` moves its next sign of life.
    pub async fn meet(&self, name: &str, beat: impl FnOnce(Duration)) {
        let Some(fault) = self.take(name) else { return };
        // Soon late, so that a test does not wait for the bound.
        if !matches!(fault, Fault::Stall) {
            beat(Duration::ZERO);
        }
        match fault {
            Fault::Panic => panic!("fault point of the {name} loop"),
            Fault::Hang | Fault::Stall => std::future::pending().await,
            Fault::Block => loop {
                std::thread::park();
            },
        }
    }

    /// Takes the order for a loop; one that says `always` stays.
    fn take(&self, name: &str) -> Option<Fault> {
        let path = self.0.as_ref()?.join(name);
        let order = std::fs::read_to_string(&path).ok()?;
        let mut words = order.split_whitespace();
        let fault = match words.next()? {
            "panic" => Fault::Panic,
            "hang" => Fault::Hang,
            "stall" => Fault::Stall,
            "block" => Fault::Block,
            _ => return None,
        };
        if words.next() != Some("always") {
            std::fs::remove_file(path).ok()?;
        }
        Some(fault)
    }
}
