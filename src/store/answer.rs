//! What is asked of a store besides queries, and what it answers.

use crate::entity::{EntityRef, EntityType, RowHash, Timestamp};
use crate::filter::FieldPath;

use super::{ReadVersion, Row, RowState};

/// How many ids share one bucket of a digest.
pub const BUCKET_SIZE: i64 = 1000;

/// The fields of a row that `get` returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Fields {
    /// Every cached field.
    All,
    /// These, besides `type` and `id`.
    Only(Vec<FieldPath>),
}

/// A page of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The rows, in the order of the query.
    pub rows: Vec<Row>,
    /// Whether there are rows after this page.
    pub has_next_page: bool,
}

/// What became of one row of a `put`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The row is stored.
    Written,
    /// The store has a version that is as new or newer.
    Stale,
    /// The row cannot be stored, however often it is tried.
    Refused(String),
}

/// The active rows of [`BUCKET_SIZE`] ids in two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket: the id divided by [`BUCKET_SIZE`].
    pub number: i64,
    /// How many active rows there are.
    pub count: u64,
    /// The sum of their [`RowHash::short`].
    pub sum: u64,
}

impl Bucket {
    /// Returns the number of the bucket that holds an id.
    pub fn of(id: i64) -> i64 {
        id.div_euclid(BUCKET_SIZE)
    }
}

/// What [`super::Store::verify`] found in a range of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The last id that was looked at; `None` when there was no row.
    pub last: Option<i64>,
    /// How many rows were looked at.
    pub rows: u64,
    /// The ids of rows that are not as they were written, with what is wrong.
    pub damaged: Vec<(i64, String)>,
}

/// The moment of a store that an answer belongs to: two answers of one moment are
/// of the same rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreMoment {
    /// Grows with every write of rows.
    pub writes: i64,
    /// Grows with every change of a layout.
    pub layouts: i64,
}

/// What a store knows of a row without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowVersion {
    /// The id.
    pub id: i64,
    /// The version of the read that brought the row.
    pub rv: ReadVersion,
    /// The state.
    pub state: RowState,
    /// The hash; of rows without a document, that of nothing.
    pub hash: RowHash,
    /// The field `updated_at`, where the type has it.
    pub updated_at: Option<Timestamp>,
}

/// An entity as links show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkTarget {
    /// The entity.
    pub key: EntityRef,
    /// Its display name; `None` leaves the known one alone.
    pub name: Option<String>,
    /// Its state; retired and absent entities vanish from links.
    pub state: RowState,
    /// The version of the read that showed this.
    pub rv: ReadVersion,
}

/// Rows that hold a link to an entity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    /// The rows, each once, by type and id.
    pub keys: Vec<EntityRef>,
    /// Whether there are more than the limit let through.
    pub more: bool,
}

/// What a `relink` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relinked {
    /// Whether something newer was known, so that nothing changed.
    pub stale: bool,
    /// How many stored rows were rewritten; none where names are joined at read
    /// time.
    pub rewritten: u64,
    /// How many rows still carry the old name in a copy for filters and sorts.
    pub pending: u64,
}

/// What to remove for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeScope {
    /// A type with every row; it is unknown afterwards. What is known of its
    /// entities as targets of links stays.
    Type(EntityType),
    /// Rows, of every type, that are absent or filtered since before the given
    /// moment of the site. Retired rows stay: the site still answers them.
    Tombstones {
        /// Rows fetched earlier than this go.
        older_than: Timestamp,
    },
}

/// A type in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredType {
    /// The type.
    pub entity_type: EntityType,
    /// The hash of the layout that it was last ensured with.
    pub layout_hash: String,
}

/// Whether a store works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether it does.
    pub ok: bool,
    /// What to tell a person: versions when it works, the reason when not.
    pub message: String,
    /// The size on disk, where it is known.
    pub bytes: Option<u64>,
    /// Why it takes no writes, although it answers; `None` as far as is known.
    pub write_problem: Option<String>,
    /// Whether this process can never write again: it must end.
    pub is_lost: bool,
}
