//! Which scans pipelines do on a schedule of their own: the follower leaves those to them,
//! and does the others by itself.

/// The scans that a schedule takes care of, all types each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduledScans {
    /// [`super::ScanKind::Fast`].
    pub fast: bool,
    /// [`super::ScanKind::Light`].
    pub light: bool,
    /// [`super::ScanKind::Retired`].
    pub retired: bool,
    /// The comparison of whole rows with the site ([`super::Replica::scrub`]).
    pub full: bool,
    /// The check of stored rows ([`super::Replica::verify_rows`]).
    pub columns: bool,
}
