//! [`Document`], one parsed file that still knows where everything stands.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::spans::{SpanIndex, join};
use super::{Diagnostic, MAX_BYTES, MAX_DEPTH, Problems, Severity, did_you_mean};

/// One file: its name, its text, its meaning, and on demand its places.
///
/// Places are asked for by JSON pointer (`/steps/0/with/limit`); [`join`]
/// builds them.
#[derive(Debug)]
pub struct Document {
    name: String,
    text: Arc<str>,
    value: Value,
    spans: OnceLock<SpanIndex>,
}

/// A place in a file: `pipelines/sync.yaml:3:9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, under the name by which it was loaded.
    pub file: String,
    /// The line, from 1; 0 when the place is not known.
    pub line: usize,
    /// The column in characters, from 1; 0 when the place is not known.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            _ => write!(f, "{}:{}:{}", self.file, self.line, self.column),
        }
    }
}

impl Document {
    /// Reads a file; its name in messages is `name`. Files that end in `.json`
    /// are read as JSON, all others as YAML.
    ///
    /// # Errors
    ///
    /// `SG0100` when it cannot be read, otherwise those of [`Document::yaml`].
    pub fn read(path: &Path, name: &str) -> Result<Document, Problems> {
        let bytes = std::fs::read(path)
            .map_err(|error| Diagnostic::about_file("SG0100", name, format!("cannot be read: {error}")))?;
        match path.extension().is_some_and(|end| end == "json") {
            true => Document::json(name, &bytes),
            false => Document::yaml(name, &bytes),
        }
    }

    /// Parses YAML: one document, at most 256 KiB and 32 levels.
    ///
    /// # Errors
    ///
    /// `SG0101` (size, depth, encoding) and `SG0102` (syntax, duplicate keys).
    pub fn yaml(name: &str, bytes: &[u8]) -> Result<Document, Problems> {
        let text = checked_text(name, bytes)?;
        let parsed =
            serde_yaml::from_str::<serde_yaml::Value>(&text).and_then(|mut value| value.apply_merge().map(|()| value));
        let value = match parsed {
            Ok(value) => value,
            Err(error) => return Err(yaml_problem(name, &text, &error)),
        };
        let json = serde_json::to_value(&value).map_err(|_| key_problem(name, &text))?;
        Document::checked(name, text, json)
    }

    /// Parses JSON with the same limits.
    ///
    /// # Errors
    ///
    /// As [`Document::yaml`].
    pub fn json(name: &str, bytes: &[u8]) -> Result<Document, Problems> {
        let text = checked_text(name, bytes)?;
        let value = serde_json::from_str(&text).map_err(|error| {
            let message = error.to_string();
            let reason = message.split(" at line ").next().unwrap_or(&message);
            syntax_problem(name, &text, error.line(), error.column(), reason, None)
        })?;
        Document::checked(name, text, value)
    }

    fn checked(name: &str, text: Arc<str>, value: Value) -> Result<Document, Problems> {
        if depth(&value) > MAX_DEPTH {
            let message = format!("values are nested deeper than {MAX_DEPTH} levels");
            return Err(Diagnostic::about_file("SG0101", name, message).into());
        }
        Ok(Document { name: name.to_owned(), text, value, spans: OnceLock::new() })
    }

    /// Returns the name of the file in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of the file.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Returns what the file says.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Makes a typed value of `value`, which stands at `pointer`.
    ///
    /// `value` may be the rendered form of what is written there. A failure
    /// goes to `problems` as `SG0202` with its place.
    pub fn decode<T: DeserializeOwned>(&self, pointer: &str, value: &Value, problems: &mut Problems) -> Option<T> {
        let error = match serde_path_to_error::deserialize(value) {
            Ok(typed) => return Some(typed),
            Err(error) => error,
        };
        let mut place = pointer.to_owned();
        for segment in error.path().iter() {
            place = match segment {
                Segment::Seq { index } => join(&place, &index.to_string()),
                Segment::Map { key } | Segment::Enum { variant: key } => join(&place, key),
                Segment::Unknown => place,
            };
        }
        self.report(problems, self.at(&place, "SG0202", error.inner().to_string()));
        None
    }

    /// Adds a diagnostic about this file to `problems`, with its text.
    pub fn report(&self, problems: &mut Problems, diagnostic: Diagnostic) {
        problems.know(&self.name, &self.text);
        problems.push(diagnostic);
    }

    /// Returns the pointer to an entry of what may be a list or one entry alone.
    pub fn entry(&self, pointer: &str, index: usize) -> String {
        match self.value.pointer(pointer).is_some_and(Value::is_array) {
            true => join(pointer, &index.to_string()),
            false => pointer.to_owned(),
        }
    }

    /// Returns an error that points at the value at `pointer`.
    pub fn at(&self, pointer: &str, code: &'static str, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(code, message.into(), self.value_span(pointer))
    }

    /// Returns an error that points at the key that leads to `pointer`.
    pub fn at_key(&self, pointer: &str, code: &'static str, message: impl Into<String>) -> Diagnostic {
        let span = self.spans().key(pointer).or_else(|| self.value_span(pointer));
        self.diagnostic(code, message.into(), span)
    }

    /// Returns an error that points at a part of the text at `pointer`.
    ///
    /// `part` counts bytes of the parsed text. In block scalars and in texts
    /// with escapes the whole value is pointed at.
    pub fn within(
        &self,
        pointer: &str,
        part: Range<usize>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        let span = self.part_span(pointer, part);
        self.diagnostic(code, message.into(), span)
    }

    /// Returns an unknown-name error at a value, with the nearest valid name.
    pub fn unknown(
        &self,
        pointer: &str,
        code: &'static str,
        message: impl Into<String>,
        written: &str,
        candidates: &[&str],
    ) -> Diagnostic {
        self.at(pointer, code, message).label("unknown").help(did_you_mean(written, candidates))
    }

    /// Returns where the value at `pointer` stands.
    pub fn place(&self, pointer: &str) -> Place {
        self.place_of(self.value_span(pointer))
    }

    /// Returns where the key that leads to `pointer` stands.
    pub fn key_place(&self, pointer: &str) -> Place {
        let span = self.spans().key(pointer).or_else(|| self.value_span(pointer));
        self.place_of(span)
    }

    fn spans(&self) -> &SpanIndex {
        self.spans.get_or_init(|| SpanIndex::of(&self.text))
    }

    /// The bytes of a value, or of the nearest thing around it that has a place.
    fn value_span(&self, pointer: &str) -> Option<Range<usize>> {
        let mut at = pointer;
        loop {
            if let Some(span) = self.spans().value(at) {
                return Some(self.first_line_of(span));
            }
            if let Some(span) = self.spans().key(at) {
                return Some(span);
            }
            at = &at[..at.rfind('/')?];
        }
    }

    fn part_span(&self, pointer: &str, part: Range<usize>) -> Option<Range<usize>> {
        let span = self.value_span(pointer)?;
        let written = self.text.get(span.clone())?;
        let parsed = self.value.pointer(pointer)?.as_str()?;
        let quoted = written.starts_with(['"', '\'']);
        let start = span.start + usize::from(quoted) + part.start;
        let end = start + part.len();
        let same = self.text.get(start..end) == parsed.get(part);
        match same && end > start {
            true => Some(start..end),
            false => Some(span),
        }
    }

    fn first_line_of(&self, span: Range<usize>) -> Range<usize> {
        let written = self.text.get(span.clone()).unwrap_or("");
        let first = written.split('\n').next().unwrap_or("").trim_end();
        let length = match first.len() {
            0 => usize::from(span.start < self.text.len()),
            length => length,
        };
        span.start..span.start + length
    }

    fn place_of(&self, span: Option<Range<usize>>) -> Place {
        let (line, column) = match span {
            Some(span) => line_and_column(&self.text, span.start),
            None => (0, 0),
        };
        Place { file: self.name.clone(), line, column }
    }

    fn diagnostic(&self, code: &'static str, message: String, span: Option<Range<usize>>) -> Diagnostic {
        let place = self.place_of(span.clone());
        Diagnostic {
            code,
            severity: Severity::Error,
            file: place.file,
            line: place.line,
            column: place.column,
            span,
            message,
            label: String::new(),
            help: None,
        }
    }
}

fn checked_text(name: &str, bytes: &[u8]) -> Result<Arc<str>, Problems> {
    if bytes.len() > MAX_BYTES {
        let message = format!("has {} bytes, at most {MAX_BYTES} are read", bytes.len());
        return Err(Diagnostic::about_file("SG0101", name, message).into());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.trim_start_matches('\u{feff}').into()),
        Err(error) => {
            let message = format!("is not UTF-8 (at byte {})", error.valid_up_to());
            Err(Diagnostic::about_file("SG0101", name, message).into())
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (line, before[start..].chars().count() + 1)
}

fn yaml_problem(name: &str, text: &Arc<str>, error: &serde_yaml::Error) -> Problems {
    let message = error.to_string();
    if message.contains("more than one document") {
        let problem = Diagnostic::about_file("SG0102", name, "holds more than one document")
            .help("one file is one document: remove the line `---`".to_owned());
        return problem.into();
    }
    if let Some(problem) = duplicate_problem(name, text, &message) {
        return problem;
    }
    let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
    // The position is drawn, so it is not repeated in words.
    let reason = message.split(" at line ").next().unwrap_or(&message);
    let help = yaml_help(text, line);
    syntax_problem(name, text, line, column, reason, help)
}

/// A key that stands twice in one mapping, at its second place with the first one in words:
/// the parser names the mapping alone.
fn duplicate_problem(name: &str, text: &Arc<str>, message: &str) -> Option<Problems> {
    let key = message.split_once("duplicate entry with key \"")?.1.split_once('"')?.0;
    let is_key = |at: &usize| {
        let before = text[..*at].trim_end_matches(['"', '\'']);
        let after = text[*at + key.len()..].trim_start_matches(['"', '\'', ' ']);
        let begins = before.trim().is_empty() || before.trim_end_matches(' ').ends_with(['\n', '{', ',', '-']);
        begins && after.starts_with(':')
    };
    let places: Vec<usize> = text.match_indices(key).map(|(at, _)| at).filter(is_key).collect();
    let place = |at: usize| line_and_column(text, at);
    // In one mapping they stand in one column, or in one line.
    let are_siblings = |two: &&[usize]| {
        let (one, other) = (place(two[0]), place(two[1]));
        one.1 == other.1 || one.0 == other.0
    };
    let two = places.windows(2).find(are_siblings)?;
    let (line, column) = place(two[1]);
    let reason = format!("the key `{key}` stands twice in one mapping");
    let help = format!("the first one is on line {}: remove one of them", place(two[0]).0);
    Some(syntax_problem(name, text, line, column, &reason, Some(help)))
}

/// A mapping as a key: nearly always `{{ x }}` where `${{ x }}` was meant.
fn key_problem(name: &str, text: &Arc<str>) -> Problems {
    let message = "a key must be text";
    let braces = text.match_indices("{{").map(|(at, _)| at);
    let mut bare = braces.filter(|at| !text[..*at].ends_with('$'));
    let Some(at) = bare.next() else {
        return Diagnostic::about_file("SG0102", name, message).into();
    };
    let (line, column) = line_and_column(text, at);
    let help = "an expression is written ${{ ... }}, with a dollar sign";
    syntax_problem(name, text, line, column, message, Some(help.to_owned()))
}

/// Advice for the classics, judged by the line where the parser gave up and
/// the one before it.
fn yaml_help(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let from = line.saturating_sub(2);
    let near = lines.get(from..line.min(lines.len()))?.join("\n");
    let advice = if near.lines().any(|l| l.trim_start_matches(' ').starts_with('\t')) {
        "YAML is indented with spaces, never with tabs"
    } else if near.contains(": *") {
        "a value that starts with `*` is an alias: put quotes around it (\"* * * * *\")"
    } else if near.contains("${{") {
        "inside `[...]` and `{...}`, and with `: ` inside, an expression needs quotes: \"${{ ... }}\""
    } else {
        return None;
    };
    Some(advice.to_owned())
}

fn syntax_problem(
    name: &str,
    text: &Arc<str>,
    line: usize,
    column: usize,
    reason: &str,
    help: Option<String>,
) -> Problems {
    let span = byte_span(text, line, column);
    let mut problems = Problems::new();
    problems.know(name, text);
    problems.push(Diagnostic {
        code: "SG0102",
        severity: Severity::Error,
        file: name.to_owned(),
        line,
        column,
        span,
        message: reason.to_owned(),
        label: "here".to_owned(),
        help,
    });
    problems
}

fn byte_span(text: &str, line: usize, column: usize) -> Option<Range<usize>> {
    let index = line.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let rest = text.get(start..)?;
    let within = rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at);
    let from = (start + within).min(text.len());
    let length = text[from..].chars().next().map_or(0, char::len_utf8);
    Some(from..from + length)
}
