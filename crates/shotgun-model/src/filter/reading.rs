//! How deep paths are read where sources about real sites disagree.
//!
//! The default is what the cache assumes. A simulated site can be set to read
//! them the other way, so that it shows whether the cache depends on it.

/// The other reading of each disputed rule, when it is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// A path through a retired entity matches nothing, not even `is null`.
    pub no_match_through_retired: bool,
    /// `is_not null` through a list wants an element with a value.
    pub not_null_needs_value: bool,
    /// `is false` on a checkbox holds behind an empty link.
    pub false_behind_empty_link: bool,
    /// `is_not true` on a checkbox does not hold behind an empty link.
    pub not_true_needs_link: bool,
}
