//! How a store fails, by what the caller can do about it.

use std::error::Error as StdError;

use crate::entity::{EntityRef, EntityType};

/// The result of a call to a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why a store gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    row: Option<EntityRef>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of failure it was, for code that decides on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// An answer, not a failure: the site must be asked instead.
    Unsupported,
    /// The type was never given to `ensure_type`.
    UnknownType,
    /// The store cannot be reached now; try again.
    Unavailable,
    /// Another process holds the store; try again.
    Locked,
    /// There is no room left; an operator must act.
    Full,
    /// The store says no: lost rights, a write block, a read-only file.
    Refused,
    /// Another process leads, and it alone writes; this one may only read.
    NotLeader,
    /// The store was written by a newer version of this program.
    Newer,
    /// The stored data are damaged; rebuild them from the site.
    Corrupt,
    /// Anything else: the store itself is broken.
    Fault,
}

impl StoreErrorKind {
    /// Returns the word for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::UnknownType => "unknown_type",
            Self::Unavailable => "unavailable",
            Self::Locked => "locked",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::NotLeader => "not_leader",
            Self::Newer => "newer",
            Self::Corrupt => "corrupt",
            Self::Fault => "fault",
        }
    }

    /// Tells whether the same call can succeed later without any intervention.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unavailable | Self::Locked)
    }
}

impl StoreError {
    /// Makes an error.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), row: None, source: None }
    }

    /// Makes the answer that the site must be asked instead.
    pub fn unsupported(reason: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unsupported, reason)
    }

    /// Makes the error for a type that the store does not have.
    pub fn unknown_type(entity_type: &EntityType) -> Self {
        Self::new(StoreErrorKind::UnknownType, format!("the store has no entity type `{entity_type}`"))
    }

    /// Makes the error for a stored row that cannot be read as it was written.
    pub fn damaged(row: &EntityRef, reason: impl std::fmt::Display) -> Self {
        let message = format!("the stored row of {row} is damaged ({reason}); it has to be read again from the site");
        Self { row: Some(row.clone()), ..Self::new(StoreErrorKind::Corrupt, message) }
    }

    /// Returns the damaged row, where the failure is one row's and not the store's.
    pub fn row(&self) -> Option<&EntityRef> {
        self.row.as_ref()
    }

    /// Adds the error behind this one.
    pub fn because(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}
