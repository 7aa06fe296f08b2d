//! [`Templates`]: `${{ expression }}` in values, and bare expressions.
//!
//! A text that is exactly one expression takes the value of the expression
//! with its type; anything else becomes text. Nothing is guessed from how a
//! rendered text looks. There are no blocks and no includes.
//!
//! Three facts about minijinja shape this file:
//!
//! - in strict mode an undefined name still evaluates to "undefined" without
//!   an error, and `default()` hides a typo, so the names of an expression are
//!   looked up before it is evaluated;
//! - with its debug output an error prints the values of variables, so that
//!   stays off; the range of an error in the expression works without it;
//! - fuel is the only bound on a loop inside an expression.

use std::collections::BTreeMap;
use std::ops::Range;

use chrono::{DateTime, SecondsFormat, TimeDelta};
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior};
use serde_json::Value;

use super::{Diagnostic, Document, join, nearest};

/// Steps that one expression may take.
const FUEL: u64 = 20_000;
/// The largest number of days that `days_ago` goes back.
const MAX_DAYS: f64 = 36_500.0;
/// Environment variables that expressions may read start with this.
const PUBLIC_PREFIX: &str = "SGCACHE_";

/// Renders values and evaluates expressions.
#[derive(Debug, Clone)]
pub struct Templates {
    environment: Environment<'static>,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// A stable code, SG03xx.
    pub code: &'static str,
    /// What is wrong, in one line. Never holds values of variables.
    pub message: String,
    /// The bytes of the text (with its `${{ }}`) that are meant.
    pub range: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
}

impl TemplateError {
    /// Returns this error as a diagnostic about the text at `pointer`.
    pub fn at(self, document: &Document, pointer: &str) -> Diagnostic {
        let diagnostic = match self.range {
            Some(range) => document.within(pointer, range, self.code, self.message),
            None => document.at(pointer, self.code, self.message),
        };
        diagnostic.label("here").help(self.help)
    }

    fn moved_by(mut self, offset: usize) -> TemplateError {
        self.range = self.range.map(|range| range.start + offset..range.end + offset);
        self
    }
}

/// Tells whether a text holds an expression.
pub fn has_template(text: &str) -> bool {
    text.contains("${{")
}

/// Returns any serializable value as JSON; `null` when it has no JSON form.
pub fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

impl Templates {
    /// Returns a renderer whose `env(name[, default])` reads `environment`,
    /// and of that only the names that start with `SGCACHE_`.
    pub fn new(environment: &BTreeMap<String, String>) -> Templates {
        let public: BTreeMap<String, String> = environment
            .iter()
            .filter(|(name, _)| name.starts_with(PUBLIC_PREFIX))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut engine = Environment::new();
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.set_fuel(Some(FUEL));
        engine.set_debug(false);
        engine.add_filter("isoformat", isoformat);
        engine.add_filter("days_ago", days_ago);
        engine.add_function("env", move |name: String, default: Option<String>| read_public(&public, &name, default));
        Templates { environment: engine }
    }

    /// Returns the dotted names and the functions that a bare expression looks at; none when
    /// it cannot be read.
    pub fn names_of(&self, expression: &str) -> Vec<String> {
        let compiled = self.environment.compile_expression_owned(expression.to_owned());
        let mut names: Vec<String> = compiled.map(|one| one.undeclared_variables(true)).into_iter().flatten().collect();
        names.sort();
        names
    }

    /// Evaluates a bare expression, such as `result.missing > params.max`.
    ///
    /// # Errors
    ///
    /// `SG0301` for an undefined name, `SG0302` for anything else.
    pub fn evaluate(&self, expression: &str, context: &Value) -> Result<Value, TemplateError> {
        let compiled =
            self.environment.compile_expression_owned(expression.to_owned()).map_err(|error| engine_error(&error))?;
        let mut names: Vec<String> = compiled.undeclared_variables(true).into_iter().collect();
        names.sort();
        for name in names {
            self.look_up(expression, &name, context)?;
        }
        let value = compiled.eval(minijinja::Value::from(Serde(context))).map_err(|error| engine_error(&error))?;
        if value.is_undefined() {
            return Err(TemplateError {
                code: "SG0301",
                message: format!("`{}` is not defined", expression.trim()),
                range: Some(trimmed_range(expression)),
                help: None,
            });
        }
        serde_json::to_value(&value).map_err(|error| TemplateError {
            code: "SG0302",
            message: format!("the result has no JSON form: {error}"),
            range: Some(trimmed_range(expression)),
            help: None,
        })
    }

    /// Renders one text.
    ///
    /// # Errors
    ///
    /// As [`Templates::evaluate`], and `SG0303` for an expression that is not
    /// closed or has no text form.
    pub fn render_text(&self, text: &str, context: &Value) -> Result<Value, TemplateError> {
        let parts = split(text)?;
        if let [Part::Expression(range)] = parts.as_slice() {
            return self.evaluate_part(text, range, context);
        }
        let mut rendered = String::new();
        for part in parts {
            match part {
                Part::Literal(range) => rendered.push_str(&text[range]),
                Part::Expression(range) => {
                    let value = self.evaluate_part(text, &range, context)?;
                    rendered.push_str(&as_text(&value, range)?);
                }
            }
        }
        Ok(Value::String(rendered))
    }

    /// Renders every text in a value; keys are left alone.
    ///
    /// # Errors
    ///
    /// Every error found, each with the JSON pointer of its text, which starts
    /// with `pointer`.
    pub fn render(&self, pointer: &str, value: &Value, context: &Value) -> Result<Value, Vec<(String, TemplateError)>> {
        let mut errors = Vec::new();
        let rendered = self.render_all(pointer, value, context, &mut errors);
        match errors.is_empty() {
            true => Ok(rendered),
            false => Err(errors),
        }
    }

    fn render_all(
        &self,
        pointer: &str,
        value: &Value,
        context: &Value,
        errors: &mut Vec<(String, TemplateError)>,
    ) -> Value {
        match value {
            Value::String(text) if has_template(text) => self.render_text(text, context).unwrap_or_else(|error| {
                errors.push((pointer.to_owned(), error));
                Value::Null
            }),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.render_all(&join(pointer, &at.to_string()), item, context, errors))
                .collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| {
                    let rendered = self.render_all(&join(pointer, key), item, context, errors);
                    (key.clone(), rendered)
                })
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn evaluate_part(&self, text: &str, range: &Range<usize>, context: &Value) -> Result<Value, TemplateError> {
        self.evaluate(&text[range.clone()], context).map_err(|error| error.moved_by(range.start))
    }

    /// Checks that a dotted name leads somewhere in the context.
    fn look_up(&self, expression: &str, name: &str, context: &Value) -> Result<(), TemplateError> {
        let mut at = context;
        let mut walked = String::new();
        for segment in name.split('.') {
            let Value::Object(map) = at else {
                return Ok(());
            };
            let Some(next) = map.get(segment) else {
                if walked.is_empty() && self.is_global(segment) {
                    return Ok(());
                }
                let near = nearest(segment, map.keys().map(String::as_str));
                return Err(undefined(expression, name, &walked, segment, near, map));
            };
            walked.push_str(segment);
            walked.push('.');
            at = next;
        }
        Ok(())
    }

    fn is_global(&self, name: &str) -> bool {
        self.environment.globals().any(|(global, _)| global == name)
    }
}

/// A moment in UTC and whole seconds, as `2026-11-24T02:00:00Z`. Takes
/// RFC 3339, and seconds since 1970.
fn isoformat(moment: minijinja::Value) -> Result<String, minijinja::Error> {
    let read = match moment.as_str() {
        Some(text) => DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc()),
        None => f64::try_from(moment.clone()).ok().and_then(|seconds| DateTime::from_timestamp(seconds as i64, 0)),
    };
    let at = read.ok_or_else(|| unfit(format!("`isoformat` needs a moment, not {}", quoted(&moment))))?;
    Ok(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// The moment this number of days before the run started. Not before now: an attempt of a step
/// asks the same as the one before, and a rehearsal has a time of its own.
fn days_ago(state: &State, days: minijinja::Value) -> Result<String, minijinja::Error> {
    let start = state.lookup("run").and_then(|run| run.get_attr("started_at").ok());
    let start = start.filter(|start| !start.is_undefined());
    let start = start.ok_or_else(|| unfit("`days_ago` counts from the start of a run, and here is none".to_owned()))?;
    let start = start.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let number = f64::try_from(days.clone()).ok().filter(|days| (0.0..=MAX_DAYS).contains(days));
    let number = number.filter(|_| days.as_str().is_none());
    let Some(number) = number else {
        return Err(unfit(format!("`days_ago` needs a number of days, 0 to {MAX_DAYS}, not {}", quoted(&days))));
    };
    let at = start.and_then(|start| start.checked_sub_signed(TimeDelta::seconds((number * 86_400.0) as i64)));
    let at = at.ok_or_else(|| unfit("the start of the run is not a moment".to_owned()))?;
    Ok(at.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true))
}

fn unfit(reason: String) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, reason)
}

/// The kind of a value: its text could be a secret of the environment.
fn quoted(value: &minijinja::Value) -> String {
    format!("a {}", value.kind())
}

fn read_public(
    public: &BTreeMap<String, String>,
    name: &str,
    default: Option<String>,
) -> Result<String, minijinja::Error> {
    if let Some(value) = public.get(name).cloned().or(default) {
        return Ok(value);
    }
    let reason = match name.starts_with(PUBLIC_PREFIX) {
        true => format!("the environment variable `{name}` is not set and has no default"),
        false => {
            format!("`env` reads only variables that start with {PUBLIC_PREFIX}, not `{name}`")
        }
    };
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
}

fn undefined(
    expression: &str,
    name: &str,
    walked: &str,
    segment: &str,
    near: Option<&str>,
    siblings: &serde_json::Map<String, Value>,
) -> TemplateError {
    let help = match near {
        Some(near) => Some(format!("did you mean `{walked}{near}`?")),
        None if (1..=12).contains(&siblings.len()) => {
            let names: Vec<String> = siblings.keys().map(|k| format!("{walked}{k}")).collect();
            Some(format!("defined are: {}", names.join(", ")))
        }
        None => None,
    };
    let missing = format!("{walked}{segment}");
    let range =
        position_of(expression, name).map(|start| start..start + missing.len()).or(Some(trimmed_range(expression)));
    TemplateError { code: "SG0301", message: format!("`{missing}` is not defined"), range, help }
}

/// Finds a dotted name in an expression, as a whole word.
fn position_of(expression: &str, name: &str) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    expression.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = expression[..*at].chars().next_back();
        let after = expression[*at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(|c| is_word(c) && c != '.')
    })
}

fn trimmed_range(expression: &str) -> Range<usize> {
    let start = expression.len() - expression.trim_start().len();
    start..start + expression.trim().len()
}

fn engine_error(error: &minijinja::Error) -> TemplateError {
    let reason = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("the expression takes more than {FUEL} steps"),
        ErrorKind::UndefinedError => format!("a name is not defined: {reason}"),
        _ => format!("the expression cannot be evaluated: {reason}"),
    };
    TemplateError { code: "SG0302", message, range: error.range(), help: None }
}

fn as_text(value: &Value, range: Range<usize>) -> Result<String, TemplateError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Err(TemplateError {
            code: "SG0303",
            message: "nothing to put into the text: the expression is null".to_owned(),
            range: Some(range),
            help: None,
        }),
        other => Ok(other.to_string()),
    }
}

/// A piece of a text: what stands between expressions, or the inside of one.
#[derive(Debug, PartialEq)]
enum Part {
    Literal(Range<usize>),
    Expression(Range<usize>),
}

fn split(text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${{") {
        let open = at + found;
        let Some(close) = closing(text, open + 3) else {
            return Err(TemplateError {
                code: "SG0303",
                message: "`${{` has no closing `}}`".to_owned(),
                range: Some(open..open + 3),
                help: None,
            });
        };
        if open > at {
            parts.push(Part::Literal(at..open));
        }
        parts.push(Part::Expression(open + 3..close));
        at = close + 2;
    }
    if at < text.len() {
        parts.push(Part::Literal(at..text.len()));
    }
    Ok(parts)
}

/// Finds the `}}` that ends an expression, past quotes and inner braces.
fn closing(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    let mut braces = 0;
    let mut quote = None;
    while at < bytes.len() {
        let byte = bytes[at];
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'{') => braces += 1,
            (None, b'}') if braces > 0 => braces -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}
