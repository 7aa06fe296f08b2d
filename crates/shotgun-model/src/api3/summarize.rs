//! `summarize`: counts, sums and groups.

use serde_json::{Value, json};

use super::Fault;
use super::read::entity_type;
use crate::entity::EntityType;
use crate::filter::RawFilter;

/// The argument of `summarize`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summarize {
    /// The type of the rows.
    pub entity_type: EntityType,
    /// Which rows.
    pub filter: RawFilter,
    /// What to compute; of two on one field the site keeps the last.
    pub summaries: Vec<SummaryField>,
    /// How to group, outermost first.
    pub grouping: Vec<Grouping>,
    /// Whether entities of archived projects count.
    pub include_archived_projects: bool,
}

/// One value to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryField {
    /// The field.
    pub field: String,
    /// The aggregate, such as `count`.
    pub summary: String,
    /// The operand of the aggregates that have one.
    pub value: Option<String>,
}

/// One level of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// The field.
    pub field: String,
    /// How values are grouped, such as `exact` or `thousands`.
    pub grouping: String,
    /// Whether greater groups come first.
    pub descending: bool,
}

impl Summarize {
    /// Asks for the number of rows.
    pub fn count(entity_type: impl Into<EntityType>, filter: RawFilter) -> Self {
        let summary = SummaryField { field: "id".into(), summary: "count".into(), value: None };
        Self {
            entity_type: entity_type.into(),
            filter,
            summaries: vec![summary],
            grouping: Vec::new(),
            include_archived_projects: true,
        }
    }

    /// Asks for the number of rows per thousand ids.
    pub fn count_by_thousands(entity_type: impl Into<EntityType>, filter: RawFilter) -> Self {
        let grouping = Grouping { field: "id".into(), grouping: "thousands".into(), descending: false };
        Self { grouping: vec![grouping], ..Self::count(entity_type, filter) }
    }

    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] for a missing type, summaries without a field or type, or a
    /// filter of another form.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        let bad = |words: String| Fault::malformed("summarize", words);
        let filter = match argument.get("filters") {
            None | Some(Value::Null) => RawFilter::everything(),
            Some(filters) => RawFilter::from_wire(filters).map_err(|error| bad(error.to_string()))?,
        };
        let list = |key: &str| argument.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |item: &Value, key: &str| {
            let text = item.get(key).and_then(Value::as_str).map(str::to_owned);
            text.ok_or_else(|| bad(format!("invalid/missing string '{key}': {item}")))
        };
        let mut summaries = Vec::new();
        for item in list("summaries") {
            let value = item.get("value").and_then(Value::as_str).map(str::to_owned);
            summaries.push(SummaryField { field: text(&item, "field")?, summary: text(&item, "type")?, value });
        }
        let mut grouping = Vec::new();
        for item in list("grouping") {
            let descending = item.get("direction").and_then(Value::as_str) == Some("desc");
            grouping.push(Grouping { field: text(&item, "field")?, grouping: text(&item, "type")?, descending });
        }
        Ok(Self {
            entity_type: entity_type("summarize", argument)?,
            filter,
            summaries,
            grouping,
            include_archived_projects: argument.get("include_archived_projects") != Some(&Value::Bool(false)),
        })
    }

    /// Returns the argument to send.
    pub fn to_wire(&self) -> Value {
        let summaries = self.summaries.iter().map(|summary| json!({"field": summary.field, "type": summary.summary}));
        let mut argument = json!({
            "type": self.entity_type.as_str(),
            "filters": self.filter.to_wire(),
            "summaries": summaries.collect::<Vec<_>>(),
        });
        if !self.grouping.is_empty() {
            let group = |group: &Grouping| {
                let direction = if group.descending { "desc" } else { "asc" };
                json!({"field": group.field, "type": group.grouping, "direction": direction})
            };
            argument["grouping"] = self.grouping.iter().map(group).collect();
        }
        if !self.include_archived_projects {
            argument["include_archived_projects"] = false.into();
        }
        argument
    }
}
