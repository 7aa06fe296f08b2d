//! Walks through a type page by page, in the order of ids.
//!
//! A walk ends with the first page that has no successor. Under faults a site answers
//! an empty one in the middle, so an empty page counts only when the site counts
//! nothing there either.

use serde_json::Value;

use super::{Replica, Result, SyncError};
use crate::api3::{AnswerRow, Read, Summarize};
use crate::entity::EntityType;
use crate::filter::{Only, RawFilter, RawLeaf};
use crate::shotgun::{Answer, ErrorKind, Purpose};

/// Not every type can be summarized: a site that refuses the same count this number of times is
/// taken to be right, not to be in trouble.
const REFUSALS: u32 = 3;

impl Replica {
    /// Reads the page that follows an id.
    ///
    /// # Errors
    ///
    /// [`SyncError::EmptyPage`] for a page without rows where the site counts some.
    pub(super) async fn page_after<R: AnswerRow>(
        &self,
        read: &Read,
        after: i64,
        purpose: Purpose,
    ) -> Result<Answer<R>> {
        let page: Answer<R> = self.heard(self.client().read_after(read, after, purpose).await?);
        if !page.rows.is_empty() {
            return Ok(page);
        }
        if read.only == Only::Retired {
            // No summary counts retired rows: the page itself is asked for again.
            return Ok(self.heard(self.client().read_after(read, after, purpose).await?));
        }
        let above = RawLeaf { path: "id".into(), relation: "greater_than".into(), values: vec![after.into()] };
        let conditions = vec![RawFilter::Leaf(above), read.filter.clone()];
        let filter = RawFilter::Group { any: false, conditions };
        match self.count_rows(&read.entity_type, filter, purpose).await? {
            Some(count) if count > 0 => {
                Err(SyncError::EmptyPage { entity_type: read.entity_type.clone(), after, count })
            }
            _ => Ok(page),
        }
    }

    /// Returns how many active rows the site counts; `None` for a type that it never counts.
    ///
    /// # Errors
    ///
    /// [`SyncError::Unconfirmed`] when it refuses to count a type that it has counted before:
    /// such a site is in trouble, and its empty answers prove nothing.
    pub(super) async fn count_rows(
        &self,
        entity_type: &EntityType,
        filter: RawFilter,
        purpose: Purpose,
    ) -> Result<Option<u64>> {
        let summarize = Summarize::count(entity_type.clone(), filter);
        for _ in 0..REFUSALS {
            match self.client().summarize(&summarize, purpose).await {
                Ok(answer) => match answer.get("summaries").and_then(|sums| sums.get("id")).and_then(Value::as_u64) {
                    Some(count) => {
                        self.counted_types().lock().insert(entity_type.clone());
                        return Ok(Some(count));
                    }
                    // Taken for a type without counts, it would let an empty page pass as an empty type.
                    None => {
                        let message = "the site answered a count without its number".to_owned();
                        return Err(SyncError::Schema { entity_type: entity_type.clone(), message });
                    }
                },
                Err(error) if matches!(error.kind(), ErrorKind::Fault | ErrorKind::Rejected) => {
                    if self.counted_types().lock().contains(entity_type) {
                        return Err(SyncError::Unconfirmed(entity_type.clone()));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}
