//! Queries: pages, counts, gets by id.
//!
//! The server sorts by what a row holds itself. An order by the name of a link, by
//! a field of a linked entity or by texts that are too long for the index is made
//! here, over at most 10,000 rows; beyond that the query is passed on.

use serde_json::{Value, json};

use super::super::{Fields, Found, Result, Row, StoreError};
use super::document::Document;
use super::joined_rows::{JoinedRows, Projection};
use super::search::{Hit, WINDOW, count, search};
use super::{Inner, dsl};
use crate::entity::{DataType, EntityRef, EntityType, Shape};
use crate::filter::{FieldPath, Only, Query, Sort, compare};

/// The most rows that are sorted here.
const MOST_SORTED: usize = 10_000;

impl Inner {
    pub(super) async fn get(&self, keys: &[EntityRef], fields: &Fields) -> Result<Vec<Row>> {
        for key in keys {
            let open = self.open_type(&key.entity_type)?;
            if let Fields::Only(paths) = fields {
                for path in paths.iter().filter(|path| !path.is_multi()) {
                    self.catalogue().check_path(&open.cached.entity_type, path)?;
                }
            }
        }
        let wanted: Vec<&EntityRef> = keys.iter().collect();
        let rows = self.active_documents(&wanted, &json!(true)).await?;
        match fields {
            Fields::Only(paths) => self.answers(rows, paths).await,
            Fields::All => self.whole_answers(rows).await,
        }
    }

    /// Answers with every cached field; rows of several types have several lists of fields.
    async fn whole_answers(&self, rows: Vec<(EntityRef, Document)>) -> Result<Vec<Row>> {
        let paths: Vec<Vec<FieldPath>> =
            rows.iter().map(|(key, _)| self.all_paths(&key.entity_type)).collect::<Result<_>>()?;
        let mut every: Vec<&FieldPath> = paths.iter().flatten().collect();
        every.sort_unstable();
        every.dedup();
        let joined = JoinedRows::around(self, rows, &every).await?;
        Ok(paths.iter().enumerate().map(|(row, paths)| joined.answer(row, &Projection::of(paths))).collect())
    }

    fn all_paths(&self, entity_type: &EntityType) -> Result<Vec<FieldPath>> {
        let open = self.open_type(entity_type)?;
        let path = |(name, data_type): (&String, &DataType)| FieldPath::local(name.clone(), *data_type);
        Ok(open.cached.fields.iter().map(path).collect())
    }

    async fn answers(&self, rows: Vec<(EntityRef, Document)>, paths: &[FieldPath]) -> Result<Vec<Row>> {
        let count = rows.len();
        let joined = JoinedRows::around(self, rows, &paths.iter().collect::<Vec<_>>()).await?;
        let projection = Projection::of(paths);
        Ok((0..count).map(|row| joined.answer(row, &projection)).collect())
    }

    pub(super) async fn count(&self, query: &Query) -> Result<u64> {
        let (index, body) = self.planned(query).await?;
        count(&self.client, &index, &body).await
    }

    pub(super) async fn find(&self, query: &Query) -> Result<Found> {
        let (index, filter) = self.planned(query).await?;
        let order: Vec<&Sort> =
            query.order.iter().filter(|key| key.path.data_type.is_sortable() && !key.path.is_multi()).collect();
        if self.server_can_sort(&query.entity_type, &order).await? {
            return self.sorted_by_server(query, &index, &filter, &order).await;
        }
        self.sorted_here(query, &index, &filter, &order).await
    }

    /// Returns where to search and what for.
    async fn planned(&self, query: &Query) -> Result<(String, Value)> {
        let filter = self.catalogue().check(query)?;
        let wanted = self.plan(&query.entity_type, &filter).await?;
        Ok(match query.only {
            Only::Active => (self.names.read(&query.entity_type), wanted),
            Only::Retired => {
                let retired = json!({"term": {"_sg.state": "retired"}});
                (self.names.write(&query.entity_type), dsl::all(vec![retired, wanted]))
            }
        })
    }

    async fn server_can_sort(&self, entity_type: &EntityType, order: &[&Sort]) -> Result<bool> {
        let open = self.open_type(entity_type)?;
        let is_own = |key: &&Sort| {
            key.path.is_local()
                && key.path.data_type.shape() != Shape::Link
                && !open.own_mapping.contains(&key.path.field)
        };
        if !order.iter().all(is_own) {
            return Ok(false);
        }
        let texts: Vec<&str> = order
            .iter()
            .filter(|key| matches!(key.path.data_type.shape(), Shape::Text | Shape::ExactText))
            .map(|key| key.path.field.as_str())
            .collect();
        if texts.is_empty() {
            return Ok(true);
        }
        let long = json!({"terms": {"_sg.unindexed": texts}});
        Ok(count(&self.client, &self.names.write(entity_type), &long).await? == 0)
    }

    async fn sorted_by_server(&self, query: &Query, index: &str, filter: &Value, order: &[&Sort]) -> Result<Found> {
        let size = query.page.size as usize;
        let offset = usize::try_from(query.page.offset()).unwrap_or(usize::MAX);
        let reach = offset.saturating_add(size);
        let source = needed_source(&query.fields);
        if reach >= WINDOW && offset == 0 && order.is_empty() {
            // By id any number of rows can be walked through.
            let hits = super::search::scan(&self.client, index, filter, &source, -1, size.saturating_add(1)).await?;
            return self.page_of(query, hits, size).await;
        }
        if offset >= WINDOW {
            return Err(StoreError::unsupported(format!("pages end at row {WINDOW}")));
        }
        let room = size.saturating_add(1).min(WINDOW - offset);
        let body = json!({"query": filter, "_source": source, "from": offset, "size": room, "sort": sort_keys(order)});
        let hits = search(&self.client, index, &body).await?;
        if hits.len() == room && room <= size {
            return Err(StoreError::unsupported(format!("pages end at row {WINDOW}")));
        }
        self.page_of(query, hits, size).await
    }

    async fn page_of(&self, query: &Query, mut hits: Vec<Hit>, size: usize) -> Result<Found> {
        let has_next_page = hits.len() > size;
        hits.truncate(size);
        let rows = keyed(&query.entity_type, hits)?;
        Ok(Found { rows: self.answers(rows, &query.fields).await?, has_next_page })
    }

    async fn sorted_here(&self, query: &Query, index: &str, filter: &Value, order: &[&Sort]) -> Result<Found> {
        let source = json!(true);
        let hits = super::search::scan(&self.client, index, filter, &source, -1, MOST_SORTED + 1).await?;
        if hits.len() > MOST_SORTED {
            let keys: Vec<String> = order.iter().map(|key| key.path.to_string()).collect();
            let reason = format!("more than {MOST_SORTED} rows would have to be sorted by `{}` here", keys.join(", "));
            return Err(StoreError::unsupported(reason));
        }
        let rows = keyed(&query.entity_type, hits)?;
        let count = rows.len();
        let keys: Vec<Sort> = order.iter().map(|key| (*key).clone()).collect();
        let paths: Vec<&FieldPath> = keys.iter().map(|key| &key.path).collect();
        let joined = JoinedRows::around(self, rows.clone(), &paths).await?;
        let mut positions: Vec<usize> = (0..count).collect();
        positions.sort_by(|&a, &b| compare(&keys, &&joined, a, b));
        let offset = usize::try_from(query.page.offset()).unwrap_or(usize::MAX);
        let size = query.page.size as usize;
        let page = positions.iter().skip(offset).take(size).map(|&position| rows[position].clone()).collect();
        let has_next_page = count > offset.saturating_add(size);
        Ok(Found { rows: self.answers(page, &query.fields).await?, has_next_page })
    }
}

fn keyed(entity_type: &EntityType, hits: Vec<Hit>) -> Result<Vec<(EntityRef, Document)>> {
    hits.into_iter().map(|hit| Ok((hit.key(entity_type)?, hit.source))).collect()
}

/// Returns which fields of a row the answer needs.
///
/// A path through a link may lead back to a row of the page, to any field of it.
fn needed_source(paths: &[FieldPath]) -> Value {
    let needed: Vec<&FieldPath> = paths.iter().filter(|path| !path.is_multi()).collect();
    if !needed.iter().all(|path| path.is_local()) {
        return json!(true);
    }
    // Picking many fields costs the server more than sending all.
    if needed.len() > 20 {
        return json!(true);
    }
    // An empty list would mean every field.
    let names: Vec<&str> = needed.iter().map(|path| path.field.as_str()).chain(["id"]).collect();
    json!(names)
}

/// Rows without a value come last in both directions, and the id decides in the end.
fn sort_keys(order: &[&Sort]) -> Vec<Value> {
    let mut keys: Vec<Value> = order
        .iter()
        .map(|key| {
            let field = &key.path.field;
            let name = if key.path.data_type.shape() == Shape::Text { format!("{field}.ci") } else { field.clone() };
            let direction = if key.descending { "desc" } else { "asc" };
            json!({name: {"order": direction, "missing": "_last"}})
        })
        .collect();
    keys.push(json!({"id": "asc"}));
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sort_folded_with_missing_values_last_and_the_id_as_tiebreak() {
        let sort = Sort { path: FieldPath::local("code", DataType::Text), descending: true };
        assert_eq!(
            sort_keys(&[&sort]),
            [json!({"code.ci": {"order": "desc", "missing": "_last"}}), json!({"id": "asc"})]
        );
    }
}
