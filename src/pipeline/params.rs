//! [`Params`]: the typed parameters of a pipeline.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::yaml::{Document, Problems, Shape, did_you_mean, join, optional, parse_duration, required};

/// The declared parameters of a pipeline, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params(BTreeMap<String, Param>);

/// One declared parameter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// The type of the items of a list.
    #[serde(default)]
    pub items: Option<ParamType>,
    /// The value when none is given; without one a value must be given.
    #[serde(default)]
    pub default: Option<Value>,
    /// The least number allowed.
    #[serde(default)]
    pub min: Option<f64>,
    /// The greatest number allowed.
    #[serde(default)]
    pub max: Option<f64>,
    /// The words of an enum.
    #[serde(default)]
    pub values: Vec<String>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// The types a parameter can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ParamType {
    Integer,
    Number,
    Boolean,
    String,
    Duration,
    List,
    Enum,
}

const TYPE_NAMES: &[&str] = &["integer", "number", "boolean", "string", "duration", "list", "enum"];
const ITEM_NAMES: &[&str] = &["integer", "number", "boolean", "string", "duration"];

/// What a declaration may contain.
pub(super) const PARAM: Shape = Shape::Object(&[
    required("type", Shape::Choice(TYPE_NAMES)),
    optional("items", Shape::Choice(ITEM_NAMES)),
    optional("default", Shape::Any),
    optional("min", Shape::Number),
    optional("max", Shape::Number),
    optional("values", Shape::List(&Shape::Text)),
    optional("description", Shape::Text),
]);

/// A value that does not fit its parameter, or a parameter that is not declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{name}`: {reason}")]
pub struct ParamError {
    /// The parameter.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl Params {
    /// Checks declarations that were decoded from `/params` of a document.
    pub(super) fn declare(
        document: &Document,
        declared: BTreeMap<String, Param>,
        runs_by_itself: bool,
        problems: &mut Problems,
    ) -> Params {
        for (name, param) in &declared {
            let pointer = join("/params", name);
            if let Some((at, reason)) = param.objection(runs_by_itself) {
                let place = if at.is_empty() { pointer } else { join(&pointer, at) };
                let diagnostic = document.at(&place, "SG0204", format!("parameter `{name}`: {reason}"));
                document.report(problems, diagnostic);
            }
        }
        Params(declared)
    }

    /// Returns the declarations.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// Returns the value of every parameter: the overrides, typed by the
    /// declarations, over the defaults.
    ///
    /// # Errors
    ///
    /// One per parameter that is unknown, does not fit or has no value.
    pub fn resolve(&self, overrides: &BTreeMap<String, String>) -> Result<BTreeMap<String, Value>, Vec<ParamError>> {
        let mut values = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, param) in &self.0 {
            let value = match (overrides.get(name), &param.default) {
                (Some(text), _) => param.read(text),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) => Err("has no default: give it with --set".to_owned()),
            };
            match value {
                Ok(value) => drop(values.insert(name.clone(), value)),
                Err(reason) => errors.push(ParamError { name: name.clone(), reason }),
            }
        }
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        for name in overrides.keys().filter(|name| !self.0.contains_key(*name)) {
            let help = did_you_mean(name, &names).map_or(String::new(), |help| format!("; {help}"));
            errors.push(ParamError { name: name.clone(), reason: format!("is not declared{help}") });
        }
        if errors.is_empty() { Ok(values) } else { Err(errors) }
    }

    /// Returns those of the overrides that are declared here.
    pub fn declared(&self, overrides: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let declared = overrides.iter().filter(|(name, _)| self.0.contains_key(*name));
        declared.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Returns a value for every parameter, for checks before there is a run.
    pub(super) fn sample(&self) -> BTreeMap<String, Value> {
        let value = |param: &Param| param.default.clone().unwrap_or_else(|| param.example());
        self.0.iter().map(|(name, param)| (name.clone(), value(param))).collect()
    }
}

impl Param {
    /// Says what is wrong with the declaration, and at which of its keys.
    fn objection(&self, runs_by_itself: bool) -> Option<(&'static str, String)> {
        if self.kind == ParamType::Enum && self.values.is_empty() {
            return Some(("", "an enum needs `values`".to_owned()));
        }
        match &self.default {
            None if runs_by_itself => {
                let reason = "needs a `default`, because a schedule starts runs without arguments";
                Some(("", reason.to_owned()))
            }
            None => None,
            Some(default) => self.check(default).err().map(|reason| ("default", reason)),
        }
    }

    /// Reads a value from the command line.
    fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self.kind {
            ParamType::List if text.trim_start().starts_with('[') => {
                serde_json::from_str(text).map_err(|error| format!("`{text}` is not JSON: {error}"))?
            }
            ParamType::List => text
                .split(',')
                .filter(|item| !item.trim().is_empty())
                .map(|item| scalar(self.items.unwrap_or(ParamType::String), item.trim()))
                .collect(),
            kind => scalar(kind, text),
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Checks that a value fits the declaration.
    fn check(&self, value: &Value) -> Result<(), String> {
        match self.kind {
            ParamType::List => {
                let items = value.as_array().ok_or_else(|| format!("{value} is not a list"))?;
                let kind = self.items.unwrap_or(ParamType::String);
                items.iter().try_for_each(|item| self.check_scalar(kind, item))
            }
            kind => self.check_scalar(kind, value),
        }
    }

    fn check_scalar(&self, kind: ParamType, value: &Value) -> Result<(), String> {
        let (fits, wanted) = match kind {
            ParamType::Integer => (value.is_i64(), "a whole number"),
            ParamType::Number => (value.is_number(), "a number"),
            ParamType::Boolean => (value.is_boolean(), "true or false"),
            _ => (value.is_string(), "text"),
        };
        if !fits {
            return Err(format!("{value} is not {wanted}"));
        }
        if let Some(number) = value.as_f64() {
            if self.min.is_some_and(|min| number < min) {
                return Err(format!("{value} is less than {}", self.min.unwrap_or_default()));
            }
            if self.max.is_some_and(|max| number > max) {
                return Err(format!("{value} is more than {}", self.max.unwrap_or_default()));
            }
        }
        match (kind, value.as_str()) {
            (ParamType::Duration, Some(text)) => parse_duration(text).map(drop),
            (ParamType::Enum, Some(text)) if !self.values.iter().any(|v| v == text) => {
                Err(format!("`{text}` is not one of: {}", self.values.join(", ")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn example(&self) -> Value {
        match self.kind {
            ParamType::Integer => Value::from(self.min.unwrap_or(1.0) as i64),
            ParamType::Number => Value::from(self.min.unwrap_or(1.0)),
            ParamType::Boolean => Value::from(false),
            ParamType::Duration => Value::from("1s"),
            ParamType::List => Value::Array(Vec::new()),
            ParamType::String => Value::from(""),
            ParamType::Enum => Value::from(self.values.first().cloned().unwrap_or_default()),
        }
    }
}

/// Reads one typed word; what does not read stays text and fails its check.
fn scalar(kind: ParamType, text: &str) -> Value {
    let parsed = match kind {
        ParamType::Integer => text.parse::<i64>().ok().map(Value::from),
        ParamType::Number => text.parse::<f64>().ok().map(Value::from),
        ParamType::Boolean => text.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}
