//! [`Shape`]: what a file may contain, said in data.
//!
//! serde stops at the first mistake and names no place. A shape is walked over
//! the whole value instead, so every unknown key, missing key and wrong type
//! of a file is found in one pass, each with its place. Serde still decides
//! what is accepted: a shape that allowed too much would only make the message
//! worse, never let anything through.

use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;

use super::{Document, Moment, Problems, did_you_mean, format_duration, has_template, join, parse_duration};

/// What may stand at one place of a file.
#[derive(Debug)]
pub enum Shape {
    /// Any value; the reader checks it.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number between two bounds, both included.
    Integer(i64, i64),
    /// Any number.
    Number,
    /// A number between two bounds, both included.
    NumberBetween(f64, f64),
    /// A [`Moment`].
    Moment,
    /// Text.
    Text,
    /// Text that no message repeats.
    Secret,
    /// Text, a number or a boolean.
    Scalar,
    /// A duration such as `30s`, at most [`super::MAX_DURATION`].
    Duration,
    /// A duration between two bounds, both included.
    DurationBetween(Duration, Duration),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list.
    List(&'static Shape),
    /// One value, or a list of them.
    OneOrMany(&'static Shape),
    /// A mapping whose keys are free.
    Map(&'static Shape),
    /// A mapping with these keys.
    Object(&'static [Key]),
    /// Nothing any more: the key has another name now.
    Renamed(&'static str),
}

/// One key of [`Shape::Object`].
#[derive(Debug)]
pub struct Key {
    /// How it is written.
    pub name: &'static str,
    /// What its value may be.
    pub shape: Shape,
    /// Whether it may be left out.
    pub required: bool,
}

/// Returns a key that must be there.
pub const fn required(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: true }
}

/// Returns a key that may be left out; `null` counts as left out.
pub const fn optional(name: &'static str, shape: Shape) -> Key {
    Key { name, shape, required: false }
}

/// Returns a key that had this name before and is refused in favour of the new one.
pub const fn renamed(name: &'static str, new: &'static str) -> Key {
    Key { name, shape: Shape::Renamed(new), required: false }
}

impl Shape {
    /// Compares `value`, which stands at `pointer`, and reports every
    /// difference. Returns whether there was none.
    pub fn check(&self, document: &Document, pointer: &str, value: &Value, problems: &mut Problems) -> bool {
        let before = problems.errors();
        self.walk(document, pointer, value, problems);
        problems.errors() == before
    }

    /// Returns what of a value fits, so that it can be checked further: unknown keys
    /// and values of a wrong form are left out. Mappings in a list that do not fit
    /// are `null`, so that the places of the others stay right. `None` when nothing
    /// is left that fits.
    pub fn fitting(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Shape::Object(keys), Value::Object(map)) => fitting_object(keys, map),
            (Shape::Map(inner), Value::Object(map)) => {
                let items = map.iter().filter_map(|(key, item)| Some((key.clone(), inner.fitting(item)?)));
                Some(Value::Object(items.collect()))
            }
            (Shape::List(inner @ Shape::Object(_)), Value::Array(items)) => {
                Some(items.iter().map(|item| inner.fitting(item).unwrap_or_default()).collect())
            }
            (Shape::List(inner) | Shape::OneOrMany(inner), Value::Array(items)) => {
                items.iter().map(|item| inner.fitting(item)).collect::<Option<Vec<_>>>().map(Value::Array)
            }
            (Shape::OneOrMany(inner), _) => inner.fitting(value),
            _ => self.objection(value).is_none().then(|| value.clone()),
        }
    }

    fn walk(&self, document: &Document, pointer: &str, value: &Value, problems: &mut Problems) {
        match (self, value) {
            (Shape::Object(keys), Value::Object(map)) => {
                walk_object(keys, document, pointer, map, problems);
            }
            (Shape::Map(inner), Value::Object(map)) => {
                for (key, item) in map {
                    inner.walk(document, &join(pointer, key), item, problems);
                }
            }
            (Shape::List(inner) | Shape::OneOrMany(inner), Value::Array(items)) => {
                for (at, item) in items.iter().enumerate() {
                    inner.walk(document, &join(pointer, &at.to_string()), item, problems);
                }
            }
            (Shape::OneOrMany(inner), _) => inner.walk(document, pointer, value, problems),
            _ => self.walk_scalar(document, pointer, value, problems),
        }
    }

    fn walk_scalar(&self, document: &Document, pointer: &str, value: &Value, problems: &mut Problems) {
        let Some((message, help)) = self.objection(value) else {
            return;
        };
        let diagnostic = document.at(pointer, "SG0202", message).label(self.expected()).help(help);
        document.report(problems, diagnostic);
    }

    /// Says what is wrong with a value that is not a container.
    fn objection(&self, value: &Value) -> Option<(String, Option<String>)> {
        let fits = match self {
            Shape::Any => true,
            Shape::Bool => value.is_boolean(),
            Shape::Integer(..) => value.is_i64(),
            Shape::Number | Shape::NumberBetween(..) => value.is_number(),
            Shape::Text
            | Shape::Moment
            | Shape::Secret
            | Shape::Choice(_)
            | Shape::Duration
            | Shape::DurationBetween(..) => value.is_string(),
            Shape::Scalar => !value.is_array() && !value.is_object() && !value.is_null(),
            Shape::List(_) | Shape::OneOrMany(_) => value.is_array(),
            Shape::Map(_) | Shape::Object(_) => value.is_object(),
            Shape::Renamed(_) => false,
        };
        if !fits {
            let found = if self.may_quote() { found(value) } else { kind(value).to_owned() };
            let message = format!("expected {}, found {found}", self.expected());
            return Some((message, self.advice(value)));
        }
        match (self, value) {
            (Shape::Integer(low, high), _) => {
                let number = value.as_i64().unwrap_or_default();
                out_of_bounds(number < *low, number > *high, number, low, high)
            }
            (Shape::Choice(words), Value::String(text)) if !words.contains(&text.as_str()) => {
                let message = format!("`{text}` is not one of: {}", words.join(", "));
                Some((message, did_you_mean(text, words)))
            }
            (Shape::NumberBetween(low, high), _) => {
                let number = value.as_f64().unwrap_or_default();
                out_of_bounds(number < *low, number > *high, value, low, high)
            }
            (Shape::Moment, Value::String(text)) => Moment::parse(text).err().map(|message| (message, None)),
            (Shape::Duration, Value::String(text)) => parse_duration(text).err().map(|message| (message, None)),
            (Shape::DurationBetween(low, high), Value::String(text)) => match parse_duration(text) {
                Ok(duration) => {
                    let (least, most) = (format_duration(*low), format_duration(*high));
                    out_of_bounds(duration < *low, duration > *high, text, least, most)
                }
                Err(message) => Some((message, None)),
            },
            _ => None,
        }
    }

    /// Tells whether a message may repeat what stands here. Text in the place of a mapping
    /// is often a secret whose writer forgot to say where it comes from.
    fn may_quote(&self) -> bool {
        !matches!(self, Shape::Secret | Shape::Object(_) | Shape::Map(_))
    }

    fn advice(&self, value: &Value) -> Option<String> {
        let text = match value {
            Value::String(text) => text,
            Value::Number(number) if matches!(self, Shape::Duration | Shape::DurationBetween(..)) => {
                return Some(format!("a duration needs a unit: `{number}s`"));
            }
            _ => return None,
        };
        if has_template(text) {
            return Some("expressions are rendered only in the values under `with`".to_owned());
        }
        let yes_or_no = ["yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
        match self {
            Shape::Bool if yes_or_no => Some("write `true` or `false`".to_owned()),
            Shape::Integer(..) | Shape::Number | Shape::NumberBetween(..) if text.parse::<f64>().is_ok() => {
                Some("remove the quotes".to_owned())
            }
            _ => None,
        }
    }

    fn expected(&self) -> String {
        let words = match self {
            Shape::Any => "a value",
            Shape::Bool => "true or false",
            Shape::Integer(..) => "a whole number",
            Shape::Number | Shape::NumberBetween(..) => "a number",
            Shape::Text | Shape::Secret => "text",
            Shape::Moment => "a time",
            Shape::Scalar => "one value",
            Shape::Duration | Shape::DurationBetween(..) => "a duration",
            Shape::Choice(words) => return format!("one of {}", words.join(", ")),
            Shape::List(_) => "a list",
            Shape::OneOrMany(inner) => return format!("{} or a list", inner.expected()),
            Shape::Map(_) | Shape::Object(_) => "a mapping",
            Shape::Renamed(new) => return format!("the key `{new}`"),
        };
        words.to_owned()
    }
}

fn fitting_object(keys: &'static [Key], map: &serde_json::Map<String, Value>) -> Option<Value> {
    let mut fitting = serde_json::Map::new();
    for (name, value) in map {
        let Some(key) = keys.iter().find(|key| key.name == name) else { continue };
        match value {
            Value::Null if !key.required => drop(fitting.insert(name.clone(), Value::Null)),
            value => drop(key.shape.fitting(value).map(|value| fitting.insert(name.clone(), value))),
        }
    }
    let complete = keys.iter().all(|key| !key.required || fitting.contains_key(key.name));
    complete.then_some(Value::Object(fitting))
}

fn walk_object(
    keys: &'static [Key],
    document: &Document,
    pointer: &str,
    map: &serde_json::Map<String, Value>,
    problems: &mut Problems,
) {
    for (name, value) in map {
        let child = join(pointer, name);
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let current = keys.iter().filter(|key| !matches!(key.shape, Shape::Renamed(_)));
            let names: Vec<&str> = current.map(|key| key.name).collect();
            let diagnostic = document
                .at_key(&child, "SG0201", format!("unknown key `{name}`"))
                .label("unknown key")
                .help(did_you_mean(name, &names));
            document.report(problems, diagnostic);
            continue;
        };
        if let Shape::Renamed(new) = key.shape {
            let message = format!("the key `{name}` is called `{new}` now");
            let diagnostic = document.at_key(&child, "SG0201", message).label("old name");
            document.report(problems, diagnostic.help(format!("write `{new}`; the values are the same")));
            continue;
        }
        if value.is_null() && !key.required {
            continue;
        }
        key.shape.walk(document, &child, value, problems);
    }
    for key in keys.iter().filter(|key| key.required) {
        if !map.contains_key(key.name) {
            let message = format!("the key `{}` is missing", key.name);
            let diagnostic = match pointer.is_empty() {
                true => document.at(pointer, "SG0203", message),
                false => document.at_key(pointer, "SG0203", message),
            };
            document.report(problems, diagnostic.label(format!("`{}` missing here", key.name)));
        }
    }
}

fn out_of_bounds(
    below: bool,
    above: bool,
    written: impl Display,
    least: impl Display,
    most: impl Display,
) -> Option<(String, Option<String>)> {
    let message = match (below, above) {
        (true, _) => format!("{written} is less than the least allowed, {least}"),
        (_, true) => format!("{written} is more than the most allowed, {most}"),
        _ => return None,
    };
    Some((message, None))
}

fn found(value: &Value) -> String {
    match value {
        Value::Bool(flag) => format!("`{flag}`"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text `{text}`"),
        other => kind(other).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
