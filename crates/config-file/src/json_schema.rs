//! A [`Shape`] as a JSON Schema (draft 7), for editors.
//!
//! Draft 7 is what yaml-language-server knows best. A schema says less than the program
//! checks: names of jobs, steps and types are checked by `pipelines validate`.

use serde_json::{Map, Value, json};

use super::{Key, Shape, format_duration};

/// What `${{ expression }}` looks like in place of a value.
const EXPRESSION: &str = r"\$\{\{";
/// What a duration looks like.
const DURATION: &str = r"^(0|\d+ *[a-z]+( *\d+ *[a-z]+)*)$";

/// How a schema is made.
#[derive(Clone, Copy)]
pub struct SchemaOptions<'a> {
    /// Describes the key at a path such as `steps[].id` or `params.*.type`.
    pub describe: &'a dyn Fn(&str) -> Option<String>,
    /// Whether values may be expressions.
    pub expressions: bool,
}

impl Shape {
    /// Returns the schema of what may stand at `path`.
    pub fn json_schema(&self, path: &str, options: SchemaOptions<'_>) -> Value {
        let plain = self.plain_schema(path, options);
        let is_text = matches!(self, Shape::Any | Shape::Text | Shape::Object(_) | Shape::Map(_));
        match options.expressions && !is_text {
            true => json!({ "anyOf": [plain, { "type": "string", "pattern": EXPRESSION }] }),
            false => plain,
        }
    }

    fn plain_schema(&self, path: &str, options: SchemaOptions<'_>) -> Value {
        match self {
            Shape::Any => json!({}),
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Integer(low, high) => bounded("integer", json!(low), json!(high)),
            Shape::Number => json!({ "type": "number" }),
            Shape::NumberBetween(low, high) => bounded("number", json!(low), json!(high)),
            Shape::Text | Shape::Secret | Shape::Moment => json!({ "type": "string" }),
            Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Shape::Duration => json!({ "type": "string", "pattern": DURATION }),
            Shape::DurationBetween(low, high) => {
                let bounds = format!("{} to {}", format_duration(*low), format_duration(*high));
                json!({ "type": "string", "pattern": DURATION, "$comment": bounds })
            }
            Shape::Choice(words) => json!({ "enum": words }),
            Shape::List(inner) => json!({ "type": "array", "items": inner.json_schema(&format!("{path}[]"), options) }),
            Shape::OneOrMany(inner) => {
                let one = inner.json_schema(path, options);
                json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
            }
            Shape::Map(inner) => {
                json!({ "type": "object", "additionalProperties": inner.json_schema(&format!("{path}.*"), options) })
            }
            Shape::Object(keys) => object(keys, path, options),
            // The new name is among the keys, and no other is allowed.
            Shape::Renamed(_) => json!(false),
        }
    }

    /// Returns the path of every key below `path`, as descriptions name them.
    pub fn paths(&self, path: &str) -> Vec<String> {
        match self {
            Shape::List(inner) => inner.paths(&format!("{path}[]")),
            Shape::OneOrMany(inner) => inner.paths(path),
            Shape::Map(Shape::Any) => Vec::new(),
            Shape::Map(inner) => {
                let entry = format!("{path}.*");
                let below = inner.paths(&entry);
                std::iter::once(entry).chain(below).collect()
            }
            Shape::Object(keys) => current(keys)
                .flat_map(|key| {
                    let child = child_of(path, key.name);
                    let below = key.shape.paths(&child);
                    std::iter::once(child).chain(below)
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// The keys that have no newer name.
fn current(keys: &'static [Key]) -> impl Iterator<Item = &'static Key> {
    keys.iter().filter(|key| !matches!(key.shape, Shape::Renamed(_)))
}

fn child_of(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn object(keys: &'static [Key], path: &str, options: SchemaOptions<'_>) -> Value {
    let mut properties = Map::new();
    for key in current(keys) {
        let child = child_of(path, key.name);
        let mut schema = key.shape.json_schema(&child, options);
        if let (Some(description), Some(schema)) = ((options.describe)(&child), schema.as_object_mut()) {
            schema.insert("description".to_owned(), description.into());
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Bounds as far as a reader can use them: those of the number type say nothing.
fn bounded(kind: &str, low: Value, high: Value) -> Value {
    let mut schema = json!({ "type": kind });
    if low != json!(i64::MIN) {
        schema["minimum"] = low;
    }
    if high != json!(i64::MAX) && high != json!(f64::MAX) {
        schema["maximum"] = high;
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{optional, renamed, required};
    use super::*;

    const STEP: Shape =
        Shape::Object(&[required("id", Shape::Text), optional("needs", Shape::OneOrMany(&Shape::Text))]);
    const FILE: Shape = Shape::Object(&[
        required("steps", Shape::List(&STEP)),
        optional("limits", Shape::Map(&Shape::Integer(0, i64::MAX))),
        optional("free", Shape::Map(&Shape::Any)),
        optional("wait", Shape::DurationBetween(Duration::ZERO, Duration::from_secs(60))),
        renamed("old", "steps"),
    ]);

    #[test]
    fn a_shape_is_a_schema_whose_descriptions_come_by_path() {
        let describe = |path: &str| (path == "steps[].id").then(|| "names the step".to_owned());
        let schema = FILE.json_schema("", SchemaOptions { describe: &describe, expressions: false });
        assert_eq!(schema["required"], json!(["steps"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"].as_object().map(Map::len), Some(4), "the old name is not offered");
        let id = &schema["properties"]["steps"]["items"]["properties"]["id"];
        assert_eq!(*id, json!({ "type": "string", "description": "names the step" }));
        let limits = &schema["properties"]["limits"]["additionalProperties"];
        assert_eq!(*limits, json!({ "type": "integer", "minimum": 0 }));
        let templated = FILE.json_schema("", SchemaOptions { describe: &|_| None, expressions: true });
        let wait = &templated["properties"]["wait"]["anyOf"];
        assert_eq!((&wait[0]["$comment"], &wait[1]["pattern"]), (&json!("0s to 1m"), &json!(EXPRESSION)));
    }

    #[test]
    fn paths_name_every_key_once() {
        let paths = FILE.paths("");
        assert_eq!(paths, ["steps", "steps[].id", "steps[].needs", "limits", "limits.*", "free", "wait"]);
    }
}
