//! Writes rows: whole documents, versions decided by the server.
//!
//! After the rows themselves come their consequences, in the same call, so that
//! the next search sees them: links to what was found retired are taken out of
//! their fields, links to what was found alive are put back, names that links
//! showed are remembered. Looking for consequences after the refresh, and not
//! before the write, makes two concurrent writes see each other: whichever
//! refreshes second finds the other.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::super::{CachedType, FetchedRow, PutOutcome, ReadVersion, Result};
use super::document::{self, LinkChange};
use super::{Inner, OpenType, dsl, fault, links};
use crate::elastic::{BulkOp, ItemOutcome, VersionType};
use crate::entity::{EntityRef, EntityType, Link};

impl Inner {
    pub(super) async fn put(&self, rows: &[FetchedRow]) -> Result<Vec<PutOutcome>> {
        let mut types: HashMap<&EntityType, OpenType> = HashMap::new();
        for row in rows {
            let entity_type = &row.key().entity_type;
            if !types.contains_key(entity_type) {
                types.insert(entity_type, self.open_type(entity_type)?);
            }
        }
        let outcomes = self.write_rows(rows, &types).await?;
        let written = select(rows, &outcomes, |outcome| *outcome == PutOutcome::Written);
        let shown = shown_names(&written, &types);
        let names = shown.into_iter().filter_map(|(key, (name, rv))| Some((key, (name?, rv)))).collect();

        let mut touched: BTreeSet<String> = types.keys().map(|entity_type| self.names.write(entity_type)).collect();
        if self.learn_names(names).await? {
            touched.insert(self.names.display_names());
        }
        super::search::refresh(&self.client, touched).await?;
        // Stale rows too: an earlier attempt may have written them and got no further.
        let looked_at = select(rows, &outcomes, |outcome| !matches!(outcome, PutOutcome::Refused(_)));
        let mut targets: BTreeSet<EntityRef> = shown_names(&looked_at, &types).into_keys().collect();
        targets.extend(looked_at.iter().filter(|row| row.state().is_dead()).map(|row| row.key().clone()));
        self.follow_up(&looked_at, &targets).await?;
        Ok(outcomes)
    }

    /// Writes the rows in their order; reads of one entity are compared by the server like any others.
    async fn write_rows(&self, rows: &[FetchedRow], types: &HashMap<&EntityType, OpenType>) -> Result<Vec<PutOutcome>> {
        let mut outcomes = Vec::with_capacity(rows.len());
        let (mut writes, mut positions) = (Vec::new(), Vec::new());
        for (position, row) in rows.iter().enumerate() {
            let cached = &types[&row.key().entity_type].cached;
            match row.problem(cached) {
                Some(problem) => outcomes.push(PutOutcome::Refused(problem)),
                None => {
                    outcomes.push(PutOutcome::Stale);
                    positions.push(position);
                    writes.push(self.write_of(row, cached));
                }
            }
        }
        for (position, outcome) in positions.into_iter().zip(self.client.bulk(&writes, true).await?) {
            outcomes[position] = match outcome {
                ItemOutcome::Done => PutOutcome::Written,
                ItemOutcome::Stale => PutOutcome::Stale,
                ItemOutcome::Refused(reason) => PutOutcome::Refused(format!("{}: {reason}", rows[position].key())),
                ItemOutcome::StoreFault(reason) => return Err(fault::item_fault(&reason)),
            };
        }
        Ok(outcomes)
    }

    fn write_of(&self, row: &FetchedRow, cached: &CachedType) -> BulkOp {
        let index = self.names.write(&row.key().entity_type);
        let source = Value::Object(document::of_row(row, cached)).to_string();
        BulkOp::index(&index, &row.key().id.to_string(), row.rv().0, VersionType::External, source)
    }

    /// Brings links in line with what the rows show.
    async fn follow_up(&self, rows: &[&FetchedRow], targets: &BTreeSet<EntityRef>) -> Result<()> {
        let (dead, risen) = futures::future::try_join(self.dead_among(targets), self.risen_among(rows)).await?;
        let bury = dead.into_iter().map(|target| LinkChange { target, name: None, dead: true });
        let raise = risen.into_iter().map(|target| LinkChange { target, name: None, dead: false });
        self.rewrite(bury.chain(raise).collect()).await?;
        Ok(())
    }

    /// Returns those of the living rows to which some link is still out of its field.
    async fn risen_among(&self, rows: &[&FetchedRow]) -> Result<Vec<EntityRef>> {
        let living: BTreeSet<EntityRef> =
            rows.iter().filter(|row| !row.state().is_dead()).map(|row| row.key().clone()).collect();
        let all_types = format!("{}-write", self.names.any_entity_index());
        let mut risen = BTreeSet::new();
        let refs: Vec<String> = living.iter().map(ToString::to_string).collect();
        for some in refs.chunks(dsl::MOST_TERMS) {
            let body = serde_json::json!({"query": {"terms": {"_sg.retired_refs": some}}, "size": 10_000,
                "_source": ["_sg.retired_refs"]});
            for hit in super::search::search(&self.client, &all_types, &body).await? {
                let refs = hit.source.get("_sg").and_then(|sg| sg.get("retired_refs")).and_then(Value::as_array);
                risen.extend(refs.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
            }
        }
        let candidates: BTreeSet<EntityRef> =
            living.into_iter().filter(|key| risen.contains(&key.to_string())).collect();
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        // The row at hand may have lost to a newer one that is dead.
        let known = self.targets(&candidates).await?;
        Ok(candidates.into_iter().filter(|key| known.get(key).is_some_and(|target| !target.is_dead())).collect())
    }
}

fn select<'a>(rows: &'a [FetchedRow], outcomes: &[PutOutcome], wanted: fn(&PutOutcome) -> bool) -> Vec<&'a FetchedRow> {
    rows.iter().zip(outcomes).filter(|(_, outcome)| wanted(outcome)).map(|(row, _)| row).collect()
}

/// Returns every entity that the rows link to, with the newest name that a link showed.
fn shown_names(
    rows: &[&FetchedRow],
    types: &HashMap<&EntityType, OpenType>,
) -> HashMap<EntityRef, (Option<String>, ReadVersion)> {
    let mut shown: HashMap<EntityRef, (Option<String>, ReadVersion)> = HashMap::new();
    for row in rows {
        for field in links::link_fields(&types[&row.key().entity_type].cached) {
            let Some(value) = row.doc().get(field) else { continue };
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for link in items.iter().filter_map(Link::from_json) {
                let newest = shown.entry(link.target).or_insert_with(|| (link.name.clone(), row.rv()));
                if newest.0.is_none() || newest.1 < row.rv() && link.name.is_some() {
                    *newest = (link.name, row.rv());
                }
            }
        }
    }
    shown
}
