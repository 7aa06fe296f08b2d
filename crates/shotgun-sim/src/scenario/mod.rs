//! What is made to happen to the data of a site, and when.
//!
//! A [`Plan`] is the content of `sgcache sim --faults FILE`: troubles of requests,
//! which `faults` knows, and steps with their times. The same steps are what the
//! admin endpoint receives. A step is made when the clock of the site reaches it:
//! before the next request is answered, or on the way when the clock is moved.

mod action;
mod agenda;
mod past;
mod perform;
mod replica;
mod rights;

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;

pub use action::{Action, Begin, Call, IdBlocks, Offset, RawEvent, Retention, WriteSpec, Writes};
pub(super) use past::remembered;
pub use perform::ActionError;
pub(super) use perform::types_with_rows;
pub use replica::{Lag, Lagging};
pub use rights::Permissions;

use self::agenda::Agenda;
use self::past::Past;
use self::replica::Replica;
use self::rights::Rights;
use super::faults::{Latency, RateLimit, Rule};
use super::transaction::Transaction;
use config_file::{Document, Problems, duration};

/// What goes wrong on a site, and when.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// What everything that is left to chance is drawn from.
    pub seed: Option<u64>,
    /// The delay of every answer.
    pub latency: Option<Latency>,
    /// The limit on the rate of requests.
    pub rate_limit: Option<RateLimit>,
    /// The troubles of requests.
    pub requests: Vec<Rule>,
    /// What happens to the data.
    pub steps: Vec<Step>,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How long after the plan began, by the clock of the site.
    #[serde(default, deserialize_with = "duration")]
    pub at: Duration,
    /// What happens, in order.
    #[serde(rename = "do")]
    pub actions: Vec<Action>,
}

impl Plan {
    /// Makes a plan of what a file says.
    ///
    /// # Errors
    ///
    /// Every problem with its place in the file.
    pub fn of(document: &Document) -> Result<Self, Problems> {
        let mut problems = Problems::new();
        let plan = document.decode("", document.value(), &mut problems);
        problems.finish(plan).map(|(plan, _)| plan)
    }
}

/// What was ordered and is not over.
#[derive(Default)]
pub(super) struct Scenario {
    pub agenda: Agenda,
    pub rights: Rights,
    pub replica: Replica,
    pub past: Past,
    open: Mutex<BTreeMap<String, Transaction>>,
}

impl Scenario {
    /// Returns the transactions that were begun by name.
    pub fn open(&self) -> MutexGuard<'_, BTreeMap<String, Transaction>> {
        self.open.lock()
    }
}
