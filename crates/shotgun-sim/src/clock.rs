//! The clock of the site: real, shifted, or standing still until a test moves it.
//!
//! What the site shows has whole seconds; a replica may be behind by parts of one.

use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;

use shotgun_model::entity::Timestamp;

/// What the site believes the time is.
#[derive(Debug, Default)]
pub struct SiteClock(Mutex<Mode>);

/// How the clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The clock of the machine, so many milliseconds ahead.
    Real(i64),
    /// Standing still, in milliseconds since 1970.
    Still(i64),
}

impl Default for Mode {
    fn default() -> Self {
        Self::Real(0)
    }
}

impl SiteClock {
    fn held(&self) -> parking_lot::MutexGuard<'_, Mode> {
        self.0.lock()
    }

    /// Returns how the clock goes.
    pub(super) fn mode(&self) -> Mode {
        *self.held()
    }

    /// Lets the clock go as it went before.
    pub(super) fn set_mode(&self, mode: Mode) {
        *self.held() = mode;
    }

    /// Returns the time of the site.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.now_millis().div_euclid(1000))
    }

    /// Returns the time of the site in milliseconds since 1970.
    pub fn now_millis(&self) -> i64 {
        match self.mode() {
            Mode::Real(ahead) => Utc::now().timestamp_millis() + ahead,
            Mode::Still(now) => now,
        }
    }

    /// Stops the clock at a moment.
    pub fn set(&self, now: Timestamp) {
        self.set_mode(Mode::Still(now.0.saturating_mul(1000)));
    }

    /// Moves the clock on, whether it runs or stands still.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(0);
        let mut mode = self.held();
        *mode = match *mode {
            Mode::Real(ahead) => Mode::Real(ahead + millis),
            Mode::Still(now) => Mode::Still(now + millis),
        };
    }

    /// Lets the clock run again, with the real time and this many seconds.
    pub fn run(&self, ahead_seconds: i64) {
        self.set_mode(Mode::Real(ahead_seconds.saturating_mul(1000)));
    }
}
