//! Comparing the cache with the site.

mod bound;
mod diff;

pub use bound::stale_ratio_upper95;
pub use diff::{FieldDiff, differences};
