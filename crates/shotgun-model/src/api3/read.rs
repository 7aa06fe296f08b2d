//! `read`: what `find` and `find_one` send.

use serde_json::{Map, Value, json};

use super::Fault;
use crate::entity::EntityType;
use crate::filter::{Only, RawFilter, RawSort};

/// The argument of `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// The type of the rows.
    pub entity_type: EntityType,
    /// The fields to return; `type` and `id` always are.
    pub fields: Vec<String>,
    /// Which rows.
    pub filter: RawFilter,
    /// Active or retired rows.
    pub only: Only,
    /// The order.
    pub order: Vec<RawSort>,
    /// Which part.
    pub paging: Paging,
    /// What the answer says about the paging.
    pub paging_info: PagingInfo,
    /// Whether entities of archived projects are wanted.
    pub include_archived_projects: bool,
    /// Filter presets, as they came; nothing here understands them.
    pub presets: Option<Value>,
}

/// The page that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Rows per page.
    pub entities_per_page: u32,
    /// The number of the page, from 1.
    pub current_page: u32,
}

/// What the answer is to say about the paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PagingInfo {
    /// Nothing.
    #[default]
    None,
    /// Whether a next page exists.
    WithoutCounts,
    /// The number of rows and pages.
    WithCounts,
}

impl Read {
    /// Asks for rows of a type, ids only.
    pub fn new(entity_type: impl Into<EntityType>, filter: RawFilter, page_size: u32) -> Self {
        Self {
            entity_type: entity_type.into(),
            fields: vec!["id".to_owned()],
            filter,
            only: Only::Active,
            order: Vec::new(),
            paging: Paging { entities_per_page: page_size, current_page: 1 },
            paging_info: PagingInfo::None,
            include_archived_projects: true,
            presets: None,
        }
    }

    /// Asks for these fields.
    pub fn fields(self, fields: Vec<String>) -> Self {
        Self { fields, ..self }
    }

    /// Reads the argument.
    ///
    /// # Errors
    ///
    /// A [`Fault`] in the words of a site for a missing type, a page that is no
    /// integer, or a filter of another form.
    pub fn from_wire(argument: &Value) -> Result<Self, Fault> {
        let filter = match argument.get("filters") {
            None | Some(Value::Null) => RawFilter::everything(),
            Some(filters) => RawFilter::from_wire(filters).map_err(|error| Fault::malformed("read", error))?,
        };
        let order = RawSort::list(argument.get("sorts").unwrap_or(&Value::Null));
        let only = match argument.get("return_only").and_then(Value::as_str) {
            Some("retired") => Only::Retired,
            _ => Only::Active,
        };
        Ok(Self {
            entity_type: entity_type("read", argument)?,
            fields: names(argument.get("return_fields")),
            filter,
            only,
            order: order.map_err(|error| Fault::malformed("read", error))?,
            paging: Paging::from_wire(argument)?,
            paging_info: PagingInfo::from_wire(argument),
            include_archived_projects: argument.get("include_archived_projects") != Some(&Value::Bool(false)),
            presets: argument.get("additional_filter_presets").filter(|presets| !presets.is_null()).cloned(),
        })
    }

    /// Returns the argument to send.
    pub fn to_wire(&self) -> Value {
        let mut argument = json!({
            "type": self.entity_type.as_str(),
            "return_fields": self.fields,
            "filters": self.filter.to_wire(),
            "return_only": self.only.as_str(),
            "paging": {
                "entities_per_page": self.paging.entities_per_page,
                "current_page": self.paging.current_page,
            },
            "api_return_image_urls": true,
        });
        if !self.order.is_empty() {
            argument["sorts"] = self.order.iter().map(RawSort::to_wire).collect();
        }
        if !self.include_archived_projects {
            argument["include_archived_projects"] = false.into();
        }
        if let Some(presets) = &self.presets {
            argument["additional_filter_presets"] = presets.clone();
        }
        let (counted, uncounted) = match self.paging_info {
            PagingInfo::None => (false, false),
            PagingInfo::WithoutCounts => (false, true),
            PagingInfo::WithCounts => (true, false),
        };
        if counted {
            argument["return_paging_info"] = true.into();
        } else {
            argument["return_paging_info_without_counts"] = uncounted.into();
        }
        argument
    }
}

impl Paging {
    fn from_wire(argument: &Value) -> Result<Self, Fault> {
        let paging = argument.get("paging").cloned().unwrap_or_default();
        let number = |key: &str| {
            let number = paging.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            let words = || format!("invalid/missing integer 'paging' '{key}':\n{}", ruby(&paging));
            number.ok_or_else(|| Fault::malformed("read", words()))
        };
        Ok(Self { entities_per_page: number("entities_per_page")?, current_page: number("current_page")? })
    }
}

impl PagingInfo {
    fn from_wire(argument: &Value) -> Self {
        let set = |key: &str| argument.get(key) == Some(&Value::Bool(true));
        if set("return_paging_info") {
            Self::WithCounts
        } else if set("return_paging_info_without_counts") {
            Self::WithoutCounts
        } else {
            Self::None
        }
    }
}

/// The answer of `read`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ReadAnswer<R = Map<String, Value>> {
    /// The rows, each with `type` and `id`.
    pub entities: Vec<R>,
    /// What was said about the paging.
    pub paging_info: Option<Value>,
}

impl ReadAnswer {
    /// Reads the results.
    ///
    /// # Errors
    ///
    /// Words about results that hold no list of objects.
    pub fn from_wire(results: Value) -> Result<Self, String> {
        let Value::Object(mut results) = results else {
            return Err("the results of read are no object".into());
        };
        let entities = match results.remove("entities") {
            Some(Value::Array(entities)) => entities,
            other => return Err(format!("the results of read hold no list of entities but {}", kind(other.as_ref()))),
        };
        let rows = entities.into_iter().map(|row| match row {
            Value::Object(row) if row.contains_key("id") => Ok(row),
            other => Err(format!("an entity in the results is {}", kind(Some(&other)))),
        });
        Ok(Self { entities: rows.collect::<Result<_, _>>()?, paging_info: results.remove("paging_info") })
    }
}

impl<R> ReadAnswer<R> {
    /// Tells whether a further page exists, as far as the site said so.
    pub fn has_next_page(&self) -> Option<bool> {
        self.paging_info.as_ref()?.get("has_next_page")?.as_bool()
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Object(_)) => "an object without an id",
        Some(_) => "another value",
    }
}

/// Reads the type of an argument.
pub(super) fn entity_type(method: &str, argument: &Value) -> Result<EntityType, Fault> {
    let name = argument.get("type").and_then(Value::as_str).filter(|name| !name.is_empty());
    name.map(EntityType::new).ok_or_else(|| Fault::malformed(method, "invalid/missing string entity 'type'"))
}

/// Reads a list of names; what is no name is left out.
pub(super) fn names(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn ruby(value: &Value) -> String {
    value.to_string().replace("\":", "\"=>").replace(",\"", ", \"")
}
