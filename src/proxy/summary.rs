//! `summarize`: what of it the cache may compute.
//!
//! Numbers of rows, sums, the smallest and the greatest value, without groups: in
//! what order a site lists groups and how it rounds an average no source tells.

use std::sync::Arc;

use serde_json::Value;

use super::catalogue::Catalogue;
use super::decide::{Scope, Writes};
use super::question::{self, Question, Reader};
use super::reason::{Pass, Reason};
use crate::api3::{Summarize, SummaryField};
use crate::entity::{DataType, Shape};
use crate::filter::{FieldPath, Only, Page, Query};
use crate::state::SiteTime;

/// How to answer a `summarize`.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryPlan {
    /// The rows, and what they depend on.
    pub question: Arc<Question>,
    /// What to compute, by field.
    pub columns: Arc<[Column]>,
    /// Everything visible at this moment is in the answer.
    pub fresh_as_of: SiteTime,
    /// What pending writes mean for it.
    pub writes: Writes,
}

/// One value to compute.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The key in the answer.
    pub name: String,
    /// The field.
    pub path: FieldPath,
    /// What of it.
    pub aggregate: Aggregate,
}

/// What is computed of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The number of rows.
    Rows,
    /// The number of rows with a value.
    Values,
    /// The number of rows whose checkbox is set, or is not.
    Checked(bool),
    /// The sum of whole numbers.
    Sum,
    /// The smallest value.
    Least,
    /// The greatest value.
    Greatest,
}

/// Reads the argument of `summarize`.
pub(super) fn plan(argument: &Value, scope: &Scope, catalogue: &Catalogue) -> Result<(Vec<Column>, Question), Pass> {
    let known = ["type", "filters", "summaries", "grouping", "include_archived_projects"];
    let object = question::strict(argument, &known)?;
    if object.get("include_archived_projects").is_some_and(|flag| !flag.is_boolean()) {
        return Err(question::unknown("`include_archived_projects` is no flag"));
    }
    let asked = Summarize::from_wire(argument).map_err(question::malformed)?;
    question::check_filter(object, &asked.filter)?;
    let mut reader = Reader::new(&asked.entity_type, scope, catalogue)?;
    if !asked.grouping.is_empty() {
        return Err(Pass::new(Reason::UnsupportedFilter, "the order of groups is not known"));
    }
    let filter = reader.filter(&asked.filter)?;
    let listed = object.get("summaries").and_then(Value::as_array).map_or(0, Vec::len);
    if listed == 0 || listed != asked.summaries.len() {
        return Err(question::unknown("`summaries` is no list of fields and types"));
    }
    let columns = asked.summaries.iter().map(|summary| column(&mut reader, summary)).collect::<Result<Vec<_>, _>>()?;
    reader.archived(asked.include_archived_projects)?;
    let query = Query {
        entity_type: asked.entity_type,
        filter,
        fields: Vec::new(),
        order: Vec::new(),
        page: Page::first(1),
        only: Only::Active,
        include_archived_projects: asked.include_archived_projects,
    };
    Ok((columns, reader.question(query)?))
}

fn column(reader: &mut Reader<'_>, summary: &SummaryField) -> Result<Column, Pass> {
    let path = reader.path(&summary.field)?;
    let unproven = || {
        let detail = format!("`{}` of `{}` ({}) is not proven", summary.summary, summary.field, path.data_type);
        Pass::new(Reason::UnsupportedFilter, detail)
    };
    if summary.value.is_some() || !path.is_local() {
        return Err(unproven());
    }
    let shape = path.data_type.shape();
    let moment = matches!(shape, Shape::Date | Shape::DateTime);
    let aggregate = match summary.summary.as_str() {
        "record_count" => Aggregate::Rows,
        "count" if path.field == "id" => Aggregate::Rows,
        "count" if !matches!(shape, Shape::Opaque | Shape::Bool | Shape::Presence) => Aggregate::Values,
        "sum" if shape == Shape::Int && path.data_type != DataType::Integer => Aggregate::Sum,
        "minimum" if shape == Shape::Int => Aggregate::Least,
        "maximum" if shape == Shape::Int => Aggregate::Greatest,
        "earliest" if moment => Aggregate::Least,
        "latest" if moment => Aggregate::Greatest,
        "checked" if shape == Shape::Bool => Aggregate::Checked(true),
        "unchecked" if shape == Shape::Bool => Aggregate::Checked(false),
        _ => return Err(unproven()),
    };
    if aggregate != Aggregate::Rows {
        reader.cached(&path)?;
    }
    if matches!(shape, Shape::Link | Shape::Links) {
        reader.sees_targets(&path);
    }
    reader.looks_at(path.clone());
    Ok(Column { name: summary.field.clone(), path, aggregate })
}
