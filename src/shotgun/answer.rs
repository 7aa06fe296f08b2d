//! What a site answered, with the moment at which it did.

use serde_json::{Map, Value};

use crate::api3::AnswerRow;
use crate::entity::Timestamp;

/// The rows of one page.
#[derive(Clone, Debug)]
pub struct Answer<R = Map<String, Value>> {
    /// The rows, each with `type` and `id`.
    pub rows: Vec<R>,
    /// Whether a further page exists; without paging information from the site,
    /// whether the page is full.
    pub has_next_page: bool,
    /// The time of the site, from the `Date` header; `None` when it sent none.
    pub server_time: Option<Timestamp>,
}

impl<R> Default for Answer<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), has_next_page: false, server_time: None }
    }
}

impl Answer {
    /// Returns the id of a row.
    pub fn id(row: &Map<String, Value>) -> Option<i64> {
        row.get("id").and_then(Value::as_i64)
    }
}

impl<R: AnswerRow> Answer<R> {
    /// Returns the highest id of the page.
    pub fn last_id(&self) -> Option<i64> {
        self.rows.iter().filter_map(R::id).max()
    }
}

/// What `info` tells about a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// The version, `[8, 89, 0]`.
    pub version: Vec<i64>,
    /// The largest page, where the site says so.
    pub max_page: Option<u32>,
    /// Whether the site is our own simulated one.
    pub simulated: bool,
    /// The whole answer.
    pub raw: Value,
}

impl Info {
    pub(super) fn from_wire(raw: Value) -> Option<Self> {
        let numbers = raw.get("version")?.as_array()?.iter();
        Some(Self {
            version: numbers.map_while(Value::as_i64).collect(),
            max_page: raw.get("api_max_entities_per_page").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()),
            simulated: raw.get("sgcache_sim").and_then(Value::as_bool).unwrap_or(false),
            raw,
        })
    }
}
