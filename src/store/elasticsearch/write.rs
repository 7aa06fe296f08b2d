//! Writes rows: whole documents, versions decided by the server.
//!
//! What follows from a write, and makes it visible, is in `settle`.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::{CachedType, FetchedRow, PutOutcome, Result, StoreError, StoreErrorKind};
use super::group_commit::Share;
use super::types::OpenType;
use super::{Inner, document, fault, version};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{EntityType, FieldValue};

/// The types of the rows of a put.
type Types<'a> = HashMap<&'a EntityType, Arc<OpenType>>;

impl Inner {
    pub(super) async fn put(self: &Arc<Self>, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        let _present = self.group_commit.enter();
        let names: BTreeSet<&EntityType> = rows.iter().map(|row| &row.key().entity_type).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.know(names.iter().copied()).await?;
        let types: Types = names.into_iter().map(|name| Ok((name, self.open_type(name)?))).collect::<Result<_>>()?;
        let outcomes = self.write_rows(rows, &types).await?;
        self.commit(self.share_of(rows, &outcomes, &types)).await?;
        Ok(outcomes)
    }

    /// Writes the rows in their order; reads of one entity are compared by the server like any others.
    async fn write_rows(&self, rows: &[FetchedRow], types: &Types<'_>) -> Result<Vec<PutOutcome>> {
        let mut outcomes = Vec::with_capacity(rows.len());
        let (mut writes, mut positions) = (Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let cached = &types[&row.key().entity_type].cached;
            match values_of(row, cached) {
                Err(problem) => outcomes.push(PutOutcome::Refused(problem)),
                Ok(values) => {
                    outcomes.push(PutOutcome::Stale);
                    positions.push(position);
                    let source = document::of_row(row, cached, &values);
                    writes.push(self.write_of(row, source)?);
                }
            }
        }
        for (position, outcome) in positions.into_iter().zip(self.client.bulk(&writes, true).await?) {
            outcomes[position] = match outcome {
                ItemOutcome::Done => PutOutcome::Written,
                ItemOutcome::Stale => PutOutcome::Stale,
                // Not the fault of the row when another process has changed the layout.
                ItemOutcome::Refused(reason) if fault::is_mapping(&reason) && self.load_types().await? => {
                    let message = format!("the layout of a type was changed meanwhile: {reason}");
                    return Err(StoreError::new(StoreErrorKind::Unavailable, message));
                }
                ItemOutcome::Refused(reason) => PutOutcome::Refused(format!("{}: {reason}", rows[position].key())),
                ItemOutcome::StoreFault(reason) => return Err(fault::item_fault(&reason)),
            };
        }
        Ok(outcomes)
    }

    fn write_of(&self, row: &FetchedRow, source: String) -> Result<BulkOp> {
        let index = self.names.write(&row.key().entity_type);
        let version = version::of_read(row.rv())?;
        Ok(BulkOp::index(&index, &row.key().id.to_string(), version, VersionType::External, source))
    }

    /// Returns what has to be settled after a write.
    fn share_of(&self, rows: &[FetchedRow], outcomes: &[PutOutcome], types: &Types<'_>) -> Share {
        let mut share =
            Share { rows: rows.len(), types: types.keys().map(|name| (*name).clone()).collect(), ..Share::default() };
        for (row, outcome) in rows.iter().zip(outcomes) {
            // Stale rows too: an earlier attempt may have written them and got no further.
            let written = match outcome {
                PutOutcome::Written => true,
                PutOutcome::Stale => false,
                PutOutcome::Refused(_) => continue,
            };
            let key = row.key();
            if row.state().is_dead() {
                share.targets.insert(key.clone());
            } else {
                share.living.insert(key.clone());
            }
            note_links(row, &types[&key.entity_type].cached, written, &mut share);
        }
        let with_document = rows
            .iter()
            .zip(outcomes)
            .filter(|(row, outcome)| **outcome == PutOutcome::Written && row.state().has_document());
        self.shown.named_by_rows(with_document.map(|(row, _)| row.key()));
        share
    }
}

/// Returns the values of a row in the order of the cached fields; none of a row without a document.
///
/// # Errors
///
/// Why the row cannot be stored.
fn values_of<'a>(row: &'a FetchedRow, cached: &CachedType) -> std::result::Result<Vec<Cow<'a, FieldValue>>, String> {
    if row.state().has_document() { row.values(cached) } else { Ok(Vec::new()) }
}

/// Notes every entity that a row links to, and the newest name that a link showed.
fn note_links(row: &FetchedRow, cached: &CachedType, written: bool, share: &mut Share) {
    // A row that cannot be stored was refused before.
    for value in values_of(row, cached).unwrap_or_default() {
        let links = match &*value {
            FieldValue::Link(link) => std::slice::from_ref(link),
            FieldValue::Links(links) => links.as_slice(),
            _ => &[],
        };
        for link in links {
            if let Some(name) = link.name.as_ref().filter(|_| written) {
                match share.shown.get_mut(&link.target) {
                    Some((_, rv)) if *rv >= row.rv() => {}
                    Some(newest) => *newest = (name.clone(), row.rv()),
                    None => {
                        share.shown.insert(link.target.clone(), (name.clone(), row.rv()));
                    }
                }
            }
            if !share.targets.contains(&link.target) {
                share.targets.insert(link.target.clone());
            }
        }
    }
}
