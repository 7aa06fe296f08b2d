//! A second copy of the rows that is behind the first one.
//!
//! A real site reads from replicas of its database: an event can be seen before
//! the row that it is about, or a row before its event. One copy answers for the
//! event log and the other for everything else.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard};
use serde::Deserialize;

use crate::cell::Key;
use crate::site::Site;
use crate::table::Row;
use crate::world::World;
use config_file::duration;

/// What is shown late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lagging {
    /// Everything but the event log.
    Rows,
    /// The event log.
    Events,
}

/// How far a part of the site is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lag {
    /// The part.
    pub of: Lagging,
    /// How far, by the clock of the site; zero ends the lag.
    #[serde(deserialize_with = "duration")]
    pub by: Duration,
}

/// One row as it is after a transaction: its values and with what it was retired.
type Copied = (Key, Option<Row>, Option<Key>);

/// The copy that is behind.
#[derive(Default)]
pub(crate) struct Replica {
    active: AtomicBool,
    behind: RwLock<Option<Behind>>,
}

pub(crate) struct Behind {
    lag: Lag,
    world: World,
    /// Transactions that the copy does not know yet, with their time in milliseconds.
    waiting: VecDeque<(i64, Vec<Copied>)>,
}

impl Behind {
    fn catch_up(&mut self, now: i64) {
        let by = i64::try_from(self.lag.by.as_millis()).unwrap_or(i64::MAX);
        while self.waiting.front().is_some_and(|(at, _)| at.saturating_add(by) <= now) {
            for (key, row, parent) in self.waiting.pop_front().map(|(_, rows)| rows).unwrap_or_default() {
                self.world.replace(key, row, parent);
            }
        }
    }
}

impl Replica {
    /// Begins a lag from the present state, or ends it.
    pub fn set(&self, lag: Lag, world: &World) {
        let behind = (!lag.by.is_zero()).then(|| Behind { lag, world: world.clone(), waiting: VecDeque::new() });
        self.active.store(behind.is_some(), Ordering::Relaxed);
        *self.behind.write() = behind;
    }

    /// Ends the lag.
    pub fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
        *self.behind.write() = None;
    }

    /// Begins anew from a state that no transaction led to.
    pub fn start_over(&self, world: &World) {
        if self.active.load(Ordering::Relaxed)
            && let Some(behind) = &mut *self.behind.write()
        {
            behind.world = world.clone();
            behind.waiting.clear();
        }
    }

    /// Takes note of a transaction that was committed at a moment in milliseconds.
    pub fn note(&self, world: &World, keys: &[Key], at: i64) {
        if !self.active.load(Ordering::Relaxed) {
            return;
        }
        if let Some(behind) = &mut *self.behind.write() {
            let copy = |key: &Key| (*key, world.row(*key).cloned(), world.parent_in_retirement(*key));
            behind.waiting.push_back((at, keys.iter().map(copy).collect()));
        }
    }
}

/// The rows that a question is answered from.
pub(crate) enum View<'s> {
    /// The rows as they are.
    Present(RwLockReadGuard<'s, World>),
    /// The rows of the copy that is behind.
    Past(RwLockReadGuard<'s, Option<Behind>>),
}

impl Deref for View<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        match self {
            Self::Present(world) => world,
            Self::Past(behind) => &behind.as_ref().expect("a view is made only of a copy that exists").world,
        }
    }
}

impl Site {
    /// Returns the rows that questions about a type are answered from.
    pub(crate) fn view(&self, entity_type: &str) -> View<'_> {
        let replica = &self.scenario.replica;
        if replica.active.load(Ordering::Relaxed) {
            if let Some(behind) = &mut *replica.behind.write() {
                behind.catch_up(self.clock.now_millis());
            }
            let behind = replica.behind.read();
            let log = entity_type == "EventLogEntry";
            if behind.as_ref().is_some_and(|behind| (behind.lag.of == Lagging::Events) == log) {
                return View::Past(behind);
            }
        }
        View::Present(self.rows())
    }
}
