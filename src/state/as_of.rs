//! Up to where rows are complete.

use super::SiteTime;

/// How far rows are known to be complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AsOf {
    /// Everything that was visible at this moment is in the rows; only shown.
    pub at: SiteTime,
    /// So is everything that the poll of this number and earlier ones saw; 0 before
    /// the first complete poll.
    pub poll: i64,
}

impl AsOf {
    /// Returns the earlier of both, each by itself.
    pub fn min(self, other: Self) -> Self {
        Self { at: self.at.min(other.at), poll: self.poll.min(other.poll) }
    }
}
