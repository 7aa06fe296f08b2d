//! Backups of the site, and the return to its start.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};

use super::Plan;
use crate::clock::Mode;
use crate::event::EventIds;
use crate::faults::{DEFAULT_SEED, Latency};
use crate::journal::Savepoint;
use crate::site::Site;
use crate::world::World;

/// A moment to which the site can return.
struct Moment {
    rows: Savepoint,
    event_ids: EventIds,
}

/// The moments that were kept.
#[derive(Default)]
pub(crate) struct Past {
    moments: Mutex<BTreeMap<String, Moment>>,
    start: Mutex<Option<Start>>,
}

/// What a reset restores besides the rows.
struct Start {
    clock: Mode,
    plan: Plan,
}

/// The name of the moment at which the site started.
const START: &str = "start";

impl Past {
    fn moments(&self) -> MutexGuard<'_, BTreeMap<String, Moment>> {
        self.moments.lock()
    }

    fn start(&self) -> MutexGuard<'_, Option<Start>> {
        self.start.lock()
    }
}

impl Site {
    /// Keeps the state of this moment under a name. Everything that changes from
    /// now on is remembered, so that it can be taken back.
    pub fn backup(&self, name: &str) {
        let mut world = self.rows_mut();
        let moment = Moment { rows: world.mark(), event_ids: self.event_ids().clone() };
        self.scenario.past.moments().insert(name.to_owned(), moment);
    }

    /// Makes the rows and the event log what they were at a backup, and tells
    /// whether there is such a backup. The clock goes on and logins end; ids are
    /// used again, and backups that were made later are gone.
    pub fn restore(&self, name: &str) -> bool {
        self.roll_back_open();
        let mut world = self.rows_mut();
        let mut moments = self.scenario.past.moments();
        let Some(moment) = moments.get(name) else { return false };
        let at = moment.rows.at;
        world.rewind(&moment.rows);
        *self.event_ids() = moment.event_ids.clone();
        moments.retain(|_, moment| moment.rows.at <= at);
        self.scenario.replica.start_over(&world);
        self.end_sessions();
        true
    }

    /// Makes this moment the one that [`Self::reset`] returns to, with the plan
    /// that begins there.
    pub(crate) fn set_start(&self, plan: Plan) {
        self.backup(START);
        *self.scenario.past.start() = Some(Start { clock: self.clock.mode(), plan });
    }

    /// Makes the site what it was when it started: rows, ids, event log, clock,
    /// faults. Returns false when that moment was not recorded.
    pub fn reset(&self) -> bool {
        self.forget_scenario();
        let restored = self.restore(START);
        let plan = {
            let start = self.scenario.past.start();
            let Some(start) = start.as_ref().filter(|_| restored) else { return false };
            self.clock.set_mode(start.clock);
            start.plan.clone()
        };
        self.requests.reset();
        self.rows().signatures.store(1, std::sync::atomic::Ordering::Relaxed);
        self.follow(plan);
        true
    }

    /// Ends everything that was ordered: troubles, open transactions, lag, rights.
    fn forget_scenario(&self) {
        self.troubles.clear();
        self.troubles.reseed(DEFAULT_SEED);
        self.troubles.delay(Latency::NONE);
        self.scenario.agenda.clear();
        self.scenario.rights.clear();
        self.scenario.replica.end();
        self.roll_back_open();
    }

    /// A transaction does not outlive the database that it was begun in.
    fn roll_back_open(&self) {
        let open = std::mem::take(&mut *self.scenario.open());
        open.into_values().for_each(super::super::Transaction::roll_back);
    }
}

/// Tells how many changes could be taken back.
pub(crate) fn remembered(world: &World) -> usize {
    world.changes()
}
