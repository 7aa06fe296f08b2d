//! Filters, orders and field lists as people and programs write them.
//!
//! Three spellings of a filter: the wire form (`logical_operator`, `conditions`),
//! the lists of the Python client, and the same lists with single quotes as the
//! 2015 tool documented them; JSON5 reads the last two. Nothing here knows which
//! fields exist.

use serde_json::{Value, json};

/// A filter as it was written, not yet checked against a schema.
#[derive(Clone, Debug, PartialEq)]
pub enum RawFilter {
    /// Conditions joined by `and` or, when `any` is set, by `or`.
    Group {
        /// Whether one condition is enough.
        any: bool,
        /// The conditions; none at all matches every row.
        conditions: Vec<RawFilter>,
    },
    /// One condition.
    Leaf(RawLeaf),
}

/// One condition as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct RawLeaf {
    /// The path, such as `entity.Shot.code`.
    pub path: String,
    /// The relation, such as `is_not`.
    pub relation: String,
    /// Its operands.
    pub values: Vec<Value>,
}

/// One key of an order as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSort {
    /// The path of the field.
    pub path: String,
    /// Whether greater values come first.
    pub descending: bool,
}

/// Why a text is no filter, order or list of fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong, with the offending part; several lines when it points into
    /// the text.
    pub message: String,
}

fn wrong<T>(message: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError { message: message.into() })
}

impl RawFilter {
    /// The filter that every row passes.
    pub fn everything() -> Self {
        Self::Group { any: false, conditions: Vec::new() }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    ///
    /// When a group has another operator than `and` or `or`, or a leaf lacks its
    /// path, relation or values.
    pub fn from_wire(value: &Value) -> Result<Self, SyntaxError> {
        let Some(object) = value.as_object() else {
            return wrong(format!("a filter is an object, found {value}"));
        };
        if let Some(conditions) = object.get("conditions") {
            let any = match object.get("logical_operator").and_then(Value::as_str) {
                Some("and") => false,
                Some("or") => true,
                _ => return wrong(format!("'logical_operator' must be 'and' or 'or': {value}")),
            };
            let Some(conditions) = conditions.as_array() else {
                return wrong(format!("'conditions' must be an array: {value}"));
            };
            let conditions = conditions.iter().map(Self::from_wire).collect::<Result<_, _>>()?;
            return Ok(Self::Group { any, conditions });
        }
        let path = object.get("path").and_then(Value::as_str);
        let relation = object.get("relation").and_then(Value::as_str);
        let values = object.get("values").and_then(Value::as_array);
        match (path, relation, values) {
            (Some(path), Some(relation), Some(values)) => {
                Ok(Self::Leaf(RawLeaf { path: path.into(), relation: relation.into(), values: values.clone() }))
            }
            _ => wrong(format!("a condition has 'path', 'relation' and 'values': {value}")),
        }
    }

    /// Returns the wire form.
    pub fn to_wire(&self) -> Value {
        match self {
            Self::Group { any, conditions } => json!({
                "logical_operator": if *any { "or" } else { "and" },
                "conditions": conditions.iter().map(Self::to_wire).collect::<Vec<_>>(),
            }),
            Self::Leaf(leaf) => json!({"path": leaf.path, "relation": leaf.relation, "values": leaf.values}),
        }
    }

    /// Reads the lists that `shotgun_api3.find` takes, joined by `and` or, when
    /// `any` is set, by `or`.
    ///
    /// # Errors
    ///
    /// When a condition is not a list of a path, a relation and operands, or a group
    /// has an unknown `filter_operator`.
    pub fn from_lists(value: &Value, any: bool) -> Result<Self, SyntaxError> {
        if value.get("conditions").is_some() {
            return Self::from_wire(value);
        }
        let Some(items) = value.as_array() else {
            return wrong(format!("filters are a list of conditions, found {value}"));
        };
        // One condition without the outer list is what people write first.
        if items.len() >= 3 && items[0].is_string() && items[1].is_string() {
            return Ok(Self::Group { any, conditions: vec![Self::condition(value)?] });
        }
        let conditions = items.iter().map(Self::condition).collect::<Result<_, _>>()?;
        Ok(Self::Group { any, conditions })
    }

    fn condition(value: &Value) -> Result<Self, SyntaxError> {
        if let Some(object) = value.as_object() {
            let any = match object.get("filter_operator").and_then(Value::as_str) {
                Some("all" | "and") | None => false,
                Some("any" | "or") => true,
                Some(other) => return wrong(format!("unknown filter_operator `{other}`: use `all` or `any`")),
            };
            return Self::from_lists(object.get("filters").unwrap_or(&Value::Null), any);
        }
        let parts = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match parts {
            [Value::String(path), Value::String(relation), operands @ ..] => {
                // One list is unwrapped, as the client does.
                let values = match operands {
                    [Value::Array(values)] => values.clone(),
                    other => other.to_vec(),
                };
                Ok(Self::Leaf(RawLeaf { path: path.clone(), relation: relation.clone(), values }))
            }
            _ => wrong(format!("a condition is a list of field, relation and value, found {value}")),
        }
    }

    /// Reads the text of `--filters`: JSON, or the single-quoted lists of Python.
    ///
    /// # Errors
    ///
    /// With the place of the first mistake in the text.
    pub fn parse(text: &str, any: bool) -> Result<Self, SyntaxError> {
        Self::from_lists(&parse_json5(text)?, any)
    }
}

/// Reads the text of `--order`: `-updated_at,id`, or a list of
/// `{"field_name", "direction"}` in JSON or with single quotes.
///
/// # Errors
///
/// With the place of the first mistake.
pub fn parse_order(text: &str) -> Result<Vec<RawSort>, SyntaxError> {
    if text.trim_start().starts_with(['[', '{']) {
        return RawSort::list(&parse_json5(text)?);
    }
    let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
    Ok(keys.map(RawSort::short).collect())
}

impl RawSort {
    fn short(key: &str) -> Self {
        match key.strip_prefix('-') {
            Some(path) => Self { path: path.into(), descending: true },
            None => Self { path: key.strip_prefix('+').unwrap_or(key).into(), descending: false },
        }
    }

    /// Reads a list of `{"field_name" (or "column"), "direction"}` or of short
    /// forms.
    ///
    /// # Errors
    ///
    /// When an item has no field name or a direction other than `asc` and `desc`.
    pub fn list(value: &Value) -> Result<Vec<Self>, SyntaxError> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => items.iter().map(Self::from_json).collect(),
            other => Ok(vec![Self::from_json(other)?]),
        }
    }

    fn from_json(value: &Value) -> Result<Self, SyntaxError> {
        if let Some(key) = value.as_str() {
            return Ok(Self::short(key));
        }
        let name = value.get("field_name").or_else(|| value.get("column")).and_then(Value::as_str);
        let Some(path) = name else {
            return wrong(format!("an order is a list of {{\"field_name\", \"direction\"}}, found {value}"));
        };
        let descending = match value.get("direction").and_then(Value::as_str).unwrap_or("asc") {
            "asc" => false,
            "desc" => true,
            other => return wrong(format!("unknown direction `{other}` for `{path}`: use `asc` or `desc`")),
        };
        Ok(Self { path: path.into(), descending })
    }

    /// Returns the wire form.
    pub fn to_wire(&self) -> Value {
        json!({"field_name": self.path, "direction": if self.descending { "desc" } else { "asc" }})
    }
}

/// Reads the text of `--fields`: `a,b`, or a list in JSON or with single quotes.
///
/// # Errors
///
/// With the place of the first mistake.
pub fn parse_fields(text: &str) -> Result<Vec<String>, SyntaxError> {
    if !text.trim_start().starts_with('[') {
        return Ok(text.split(',').map(str::trim).filter(|f| !f.is_empty()).map(str::to_owned).collect());
    }
    let value = parse_json5(text)?;
    let names = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    names.ok_or_else(|| SyntaxError { message: format!("fields are a list of names, found {value}") })
}

/// Reads JSON5 with Python's `None`, `True` and `False`, and points at the
/// mistake.
fn parse_json5(text: &str) -> Result<Value, SyntaxError> {
    json5::from_str(&without_python_words(text)).map_err(|error| {
        let json5::Error::Message { msg, location } = error;
        let (line, column) = location.map_or((1, 1), |place| (place.line.max(1), place.column.max(1)));
        let shown = text.lines().nth(line - 1).unwrap_or_default();
        let reason = msg.lines().last().map(|last| last.trim_start_matches([' ', '=']).to_owned()).unwrap_or_default();
        SyntaxError { message: format!("{reason}\n  {shown}\n  {}^ here", " ".repeat(column - 1)) }
    })
}

/// Replaces the Python words outside of quotes by words of the same length or by
/// padding, so that columns stay true.
fn without_python_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if quote.is_none() {
            let word = [("None", "null"), ("True", "true"), ("False", "false")]
                .into_iter()
                .find(|(python, _)| rest.starts_with(python));
            if let Some((python, json)) = word {
                out.push_str(json);
                rest = &rest[python.len()..];
                continue;
            }
        }
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            Some(_) if c == '\\' => {
                out.push(c);
                rest = &rest[1..];
                if let Some(escaped) = rest.chars().next() {
                    out.push(escaped);
                    rest = &rest[escaped.len_utf8()..];
                }
                continue;
            }
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_quotes_and_python_words_are_read_like_json() {
        let python = RawFilter::parse("[['code','is','None'],['sg_sequence','is',None]]", false);
        let json = RawFilter::parse(r#"[["code","is","None"],["sg_sequence","is",null]]"#, false);
        assert!(python.is_ok());
        assert_eq!(python, json);
    }

    #[test]
    fn lists_become_the_wire_form_that_the_client_sends() {
        let lists =
            json!([["id", "between", [1, 5]], {"filter_operator": "any", "filters": [["code", "in", "a", "b"]]}]);
        let wire = RawFilter::from_lists(&lists, false).map(|filter| filter.to_wire());
        let expected = json!({"logical_operator": "and", "conditions": [
            {"path": "id", "relation": "between", "values": [1, 5]},
            {"logical_operator": "or", "conditions": [{"path": "code", "relation": "in", "values": ["a", "b"]}]}]});
        assert_eq!(wire, Ok(expected.clone()));
        assert_eq!(RawFilter::from_wire(&expected).map(|filter| filter.to_wire()), Ok(expected));
    }

    #[test]
    fn a_mistake_is_pointed_at() {
        let error = RawFilter::parse("[['id','is',]", false).expect_err("the list is open");
        assert!(error.message.contains("[['id','is',]\n"), "{}", error.message);
        assert!(error.message.ends_with("^ here"), "{}", error.message);
        let error = RawFilter::parse("[['id']]", false).expect_err("no relation");
        assert_eq!(error.message, r#"a condition is a list of field, relation and value, found ["id"]"#);
    }

    #[test]
    fn orders_and_fields_have_a_short_form() {
        let long = parse_order("[{'field_name':'updated_at','direction':'desc'},{'column':'id'}]");
        assert_eq!(parse_order("-updated_at,id"), long);
        assert_eq!(parse_fields("id, code"), parse_fields("['id','code']"));
        assert!(parse_order("[{'field_name':'id','direction':'down'}]").is_err());
    }
}
