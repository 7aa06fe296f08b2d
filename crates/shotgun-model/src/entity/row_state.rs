//! What the site says of an entity: the word that sync, stores and reports share.

use serde::{Deserialize, Serialize};

/// What the site says of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowState {
    /// It is there.
    Active,
    /// It is retired; the site answers it to those who ask for retired rows.
    Retired,
    /// The site has it in neither list.
    Absent,
    /// It is there, but the filter of the entity config leaves it out.
    Filtered,
}

impl RowState {
    /// Returns the word for documents and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Absent => "absent",
            Self::Filtered => "filtered",
        }
    }

    /// Reads the word that [`RowState::as_str`] returns.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Active, Self::Retired, Self::Absent, Self::Filtered].into_iter().find(|state| state.as_str() == word)
    }

    /// Tells whether links to the entity count as no links.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Retired | Self::Absent)
    }

    /// Tells whether a row in this state has fields.
    pub fn has_document(self) -> bool {
        matches!(self, Self::Active | Self::Retired)
    }
}
