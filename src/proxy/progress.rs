//! Whether what a caller sends still moves: one rule for its memory and for its slot.

use std::time::{Duration, Instant};

/// What has not progressed for this long may be cut off when others need what it holds.
const MIN_STALL: Duration = Duration::from_secs(1);
/// Fewer new bytes than this are no progress.
const MIN_PROGRESS_BYTES: usize = 64 << 10;

/// The progress of a body that is arriving.
pub(super) struct Progress {
    /// When it last progressed.
    pub since: Instant,
    /// The bytes that have arrived since.
    arrived: usize,
}

impl Progress {
    /// Begins at a moment.
    pub fn begin(now: Instant) -> Self {
        Self { since: now, arrived: 0 }
    }

    /// Notes bytes that have arrived.
    pub fn arrived(&mut self, bytes: usize, now: Instant) {
        self.arrived += bytes;
        if self.arrived >= MIN_PROGRESS_BYTES {
            *self = Self::begin(now);
        }
    }

    /// Tells whether it hardly moves.
    pub fn has_stalled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= MIN_STALL
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// So long that a body which has not moved since counts as stalled.
    pub const STALLED: Duration = MIN_STALL.saturating_mul(2);
    /// So many bytes are progress.
    pub const MOVES: usize = MIN_PROGRESS_BYTES;
}
