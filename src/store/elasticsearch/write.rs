//! Writes rows: whole documents, versions decided by the server.
//!
//! What follows from a write, and makes it visible, is in `settle`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::super::{CachedType, FetchedRow, PutOutcome, Result, StoreError, StoreErrorKind};
use super::settle::Share;
use super::types::OpenType;
use super::{Inner, document, fault, links, version};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{EntityType, Link};

/// The types of the rows of a put.
type Types<'a> = HashMap<&'a EntityType, Arc<OpenType>>;

impl Inner {
    pub(super) async fn put(self: &Arc<Self>, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        let _present = self.settling.enter();
        let names: BTreeSet<&EntityType> = rows.iter().map(|row| &row.key().entity_type).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.know(names.iter().copied()).await?;
        let types: Types = names.into_iter().map(|name| Ok((name, self.open_type(name)?))).collect::<Result<_>>()?;
        let outcomes = self.write_rows(rows, &types).await?;
        self.settle(self.share_of(rows, &outcomes, &types)).await?;
        Ok(outcomes)
    }

    /// Writes the rows in their order; reads of one entity are compared by the server like any others.
    async fn write_rows(&self, rows: &[FetchedRow], types: &Types<'_>) -> Result<Vec<PutOutcome>> {
        let mut outcomes = Vec::with_capacity(rows.len());
        let (mut writes, mut positions) = (Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let cached = &types[&row.key().entity_type].cached;
            match row.problem(cached) {
                Some(problem) => outcomes.push(PutOutcome::Refused(problem)),
                None => {
                    outcomes.push(PutOutcome::Stale);
                    positions.push(position);
                    writes.push(self.write_of(row, cached)?);
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

    fn write_of(&self, row: &FetchedRow, cached: &CachedType) -> Result<BulkOp> {
        let index = self.names.write(&row.key().entity_type);
        let source = Value::Object(document::of_row(row, cached)).to_string();
        let version = version::of_read(row.rv())?;
        Ok(BulkOp::index(&index, &row.key().id.to_string(), version, VersionType::External, source))
    }

    /// Returns what has to be settled after a write.
    fn share_of(&self, rows: &[FetchedRow], outcomes: &[PutOutcome], types: &Types<'_>) -> Share {
        let mut share = Share { types: types.keys().map(|name| (*name).clone()).collect(), ..Share::default() };
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
        self.shown.told_by_rows(with_document.map(|(row, _)| row.key()));
        share
    }
}

/// Notes every entity that a row links to, and the newest name that a link showed.
fn note_links(row: &FetchedRow, cached: &CachedType, written: bool, share: &mut Share) {
    for field in links::link_fields(cached) {
        let Some(value) = row.doc().get(field) else { continue };
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for link in items.iter().filter_map(Link::from_json) {
            if let Some(name) = link.name.filter(|_| written) {
                let newest = share.shown.entry(link.target.clone()).or_insert_with(|| (name.clone(), row.rv()));
                if newest.1 < row.rv() {
                    *newest = (name, row.rv());
                }
            }
            share.targets.insert(link.target);
        }
    }
}
