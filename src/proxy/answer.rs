//! Carries out a plan over the store and writes the answer as a site would.
//!
//! Rows are put into the answer as the bytes that the store has; nothing is parsed
//! again, but rows with an address that expires.

use serde_json::{Map, Value, json};

use super::address_cache::{AddressCache, complete};
use super::decide::{ReadPlan, SummaryPlan};
use super::reason::{Pass, Reason};
use super::summary::{Aggregate, Column};
use crate::api3::PagingInfo;
use crate::entity::FieldValue;
use crate::filter::{Filter, Leaf, Page, Query, Sort, Test};
use crate::store::{Store, StoreError};

/// More rows than this are not summed up.
const MOST_SUMMED: u32 = 20_000;

/// What the cache answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// The body.
    pub body: Vec<u8>,
    /// For the access log.
    pub rows: usize,
}

/// How often an answer of several parts is begun again because rows were written
/// between them.
const ATTEMPTS: u32 = 5;

/// Makes an answer of several reads of the store, all of them of one moment.
///
/// A store that counts its moments is asked for the moment before and after. One that does
/// not, as a cluster, is read twice: where both answers are the same, each part was the same
/// from its first read to its second, and all of these spans share the moment between the
/// two rounds (the double collect of Afek and others, Atomic Snapshots of Shared Memory).
async fn at_one_moment<F>(store: &dyn Store, answer: impl Fn() -> F) -> Result<Answered, Pass>
where
    F: Future<Output = Result<Answered, Pass>>,
{
    let moment = async || store.moment().await.map_err(|error| passed(&error));
    let mut before = moment().await?;
    let mut last = answer().await?;
    for _ in 0..ATTEMPTS {
        match before {
            Some(_) => {
                let after = moment().await?;
                if before == after {
                    return Ok(last);
                }
                before = after;
                last = answer().await?;
            }
            None => {
                let again = answer().await?;
                if last == again {
                    return Ok(again);
                }
                last = again;
            }
        }
    }
    Err(Pass::new(Reason::Store, format!("rows were written between the parts of the answer, {ATTEMPTS} times")))
}

/// Answers a `read`.
pub(super) async fn read(
    store: &dyn Store,
    plan: &ReadPlan,
    addresses: Option<&AddressCache>,
) -> Result<Answered, Pass> {
    match plan.paging_info {
        PagingInfo::WithCounts => at_one_moment(store, || read_parts(store, plan, addresses)).await,
        PagingInfo::None | PagingInfo::WithoutCounts => read_parts(store, plan, addresses).await,
    }
}

async fn read_parts(store: &dyn Store, plan: &ReadPlan, addresses: Option<&AddressCache>) -> Result<Answered, Pass> {
    let found = store.find(&plan.question.query).await.map_err(|error| passed(&error))?;
    let rows = found.rows.iter().map(|row| complete(row, &plan.question.addresses, addresses));
    let rows: Vec<_> = rows.collect::<Result<_, Pass>>()?;
    let info = match plan.paging_info {
        PagingInfo::None => None,
        PagingInfo::WithoutCounts => Some(json!({
            "current_page": plan.question.query.page.number, "entities_per_page": plan.question.query.page.size,
            "has_next_page": found.has_next_page})),
        PagingInfo::WithCounts => Some(counted(store, &plan.question.query).await?),
    };
    let length: usize = rows.iter().map(|row| row.len() + 1).sum();
    let mut body = Vec::with_capacity(length + 160);
    body.extend_from_slice(b"{\"results\":{\"entities\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(row.as_bytes());
    }
    body.push(b']');
    if let Some(info) = info {
        body.extend_from_slice(b",\"paging_info\":");
        body.extend_from_slice(info.to_string().as_bytes());
    }
    body.extend_from_slice(b"}}");
    Ok(Answered { body, rows: rows.len() })
}

/// Tells whether any row of a query passes one more filter. A store that cannot tell
/// counts as one that has such a row.
pub(super) async fn has_any(store: &dyn Store, query: &Query, filter: &Filter) -> bool {
    let query = Query {
        filter: query.filter.clone().and(filter.clone()),
        fields: Vec::new(),
        order: Vec::new(),
        page: Page::first(1),
        ..query.clone()
    };
    store.find(&query).await.map_or(true, |found| !found.rows.is_empty())
}

async fn counted(store: &dyn Store, query: &Query) -> Result<Value, Pass> {
    let total = store.count(query).await.map_err(|error| passed(&error))?;
    let current = if total == 0 { 0 } else { query.page.number };
    let pages = total.div_ceil(u64::from(query.page.size.max(1)));
    Ok(json!({
        "current_page": current, "page_count": pages, "entity_count": total, "entities_per_page": query.page.size}))
}

/// Answers a `summarize`.
pub(super) async fn summarize(store: &dyn Store, plan: &SummaryPlan) -> Result<Answered, Pass> {
    match plan.columns.len() {
        0 | 1 => summarize_parts(store, plan).await,
        _ => at_one_moment(store, || summarize_parts(store, plan)).await,
    }
}

async fn summarize_parts(store: &dyn Store, plan: &SummaryPlan) -> Result<Answered, Pass> {
    let mut values = Map::new();
    for column in plan.columns.iter() {
        values.insert(column.name.clone(), value(store, &plan.question.query, column).await?);
    }
    let body = json!({"results": {"groups": [], "summaries": values}}).to_string().into_bytes();
    Ok(Answered { body, rows: 1 })
}

async fn value(store: &dyn Store, query: &Query, column: &Column) -> Result<Value, Pass> {
    let with = |negated, test| {
        let leaf = Filter::Leaf(Leaf { path: column.path.clone(), negated, test });
        Query { filter: query.filter.clone().and(leaf), ..query.clone() }
    };
    let count = match column.aggregate {
        Aggregate::Rows => store.count(query).await,
        Aggregate::Values => store.count(&with(true, Test::Empty)).await,
        Aggregate::Checked(set) => store.count(&with(false, Test::OneOf(vec![FieldValue::Bool(set)]))).await,
        Aggregate::Sum => return sum(store, with(true, Test::Empty), column).await,
        Aggregate::Least => return first(store, with(true, Test::Empty), column, false).await,
        Aggregate::Greatest => return first(store, with(true, Test::Empty), column, true).await,
    };
    count.map(Value::from).map_err(|error| passed(&error))
}

async fn sum(store: &dyn Store, query: Query, column: &Column) -> Result<Value, Pass> {
    let query = query.fields(vec![column.path.clone()]).page(Page::first(MOST_SUMMED));
    let found = store.find(&query).await.map_err(|error| passed(&error))?;
    if found.has_next_page {
        return Err(Pass::new(Reason::Store, format!("more than {MOST_SUMMED} rows would have to be summed up")));
    }
    let mut sum = 0_i64;
    for row in &found.rows {
        let number = row.get(&column.name).as_ref().and_then(Value::as_i64);
        let next = number.and_then(|number| sum.checked_add(number));
        sum = next
            .ok_or_else(|| Pass::new(Reason::Store, format!("`{}` of {} is no whole number", column.name, row.key)))?;
    }
    Ok(sum.into())
}

async fn first(store: &dyn Store, query: Query, column: &Column, descending: bool) -> Result<Value, Pass> {
    let sort = Sort { path: column.path.clone(), descending };
    let query = query.fields(vec![column.path.clone()]).order(vec![sort]).page(Page::first(1));
    let found = store.find(&query).await.map_err(|error| passed(&error))?;
    let id = |row: &crate::store::Row| {
        if column.path.field == "id" { Some(row.key.id.into()) } else { row.get(&column.name) }
    };
    let value = found.rows.first().and_then(id);
    value.ok_or_else(|| {
        Pass::new(
            Reason::UnsupportedFilter,
            format!("what a site answers for `{}` of nothing is not known", column.name),
        )
    })
}

fn passed(error: &StoreError) -> Pass {
    Pass::new(Reason::Store, error.to_string())
}
