//! [`Diagnostic`], one thing to tell about a file, and [`Problems`], all of
//! them together with the texts they point into.
//!
//! Codes are stable: SG01xx YAML syntax, SG02xx structure and unknown names,
//! SG03xx templates and expressions, SG04xx schedules, SG05xx steps and their
//! order, SG06xx references and settings, SG08xx security, SG09xx tests of pipelines.
//! Each has a section in `docs/reference/errors.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// The most diagnostics that one rendering shows; the rest is counted.
const SHOWN: usize = 50;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and probably does not do what was meant.
    Warning,
}

/// One thing that is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnostic {
    /// A stable code, such as `SG0201`.
    pub code: &'static str,
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// The file, under the name by which it was loaded.
    pub file: String,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// The bytes of the file that are meant.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one line.
    pub message: String,
    /// Two or three words that stand under the place.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Returns an error about a whole file, for files that cannot be read.
    pub fn about_file(code: &'static str, file: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            span: None,
            message: message.into(),
            label: String::new(),
            help: None,
        }
    }

    /// Sets the words under the place.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// Sets the advice; `None` leaves what is there.
    pub fn help(mut self, help: impl Into<Option<String>>) -> Diagnostic {
        if let Some(help) = help.into() {
            self.help = Some(help);
        }
        self
    }

    /// Makes a warning of it.
    pub fn warning(mut self) -> Diagnostic {
        self.severity = Severity::Warning;
        self
    }
}

impl fmt::Display for Diagnostic {
    /// Writes one line: `file:line:column: error[SG0201]: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {word}[{}]: {}", self.code, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Every diagnostic of one pass over any number of files.
///
/// It keeps the texts of the files it points into, so it can be drawn long
/// after they were loaded. As an error it displays one line per diagnostic.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    list: Vec<Diagnostic>,
    texts: BTreeMap<String, Arc<str>>,
}

impl Problems {
    /// Returns an empty collection.
    pub fn new() -> Problems {
        Problems::default()
    }

    /// Adds one diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Makes the text of a file known, so that places in it can be drawn.
    pub fn know(&mut self, file: &str, text: &Arc<str>) {
        self.texts.entry(file.to_owned()).or_insert_with(|| text.clone());
    }

    /// Draws another text in the place of that of a file. It must have the same length in
    /// bytes, so that the places stay right.
    pub fn with_text(mut self, file: &str, other: impl FnOnce(&str) -> String) -> Problems {
        if let Some(text) = self.texts.get_mut(file) {
            let drawn = other(text);
            debug_assert_eq!(drawn.len(), text.len(), "places are bytes");
            *text = drawn.into();
        }
        self
    }

    /// Takes over everything from another collection.
    pub fn extend(&mut self, other: Problems) {
        self.texts.extend(other.texts);
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    /// Returns all diagnostics, in the order of files and places.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.list.iter().collect();
        all.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        all
    }

    /// Tells whether there is nothing to say at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Tells whether any diagnostic is an error.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Returns the number of errors.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// Returns the number of warnings.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// Returns `value` with what are then only warnings, or itself as the error.
    pub fn finish<T>(self, value: Option<T>) -> Result<(T, Problems), Problems> {
        match value {
            Some(value) if !self.has_errors() => Ok((value, self)),
            _ => Err(self),
        }
    }

    /// Draws every diagnostic with the lines it points at, as rustc does.
    pub fn render(&self, colour: bool) -> String {
        let renderer = match colour {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        let sorted = self.sorted();
        let mut drawn: Vec<String> =
            sorted.iter().take(SHOWN).map(|diagnostic| self.draw(diagnostic, &renderer)).collect();
        if sorted.len() > SHOWN {
            drawn.push(format!("... and {} more", sorted.len() - SHOWN));
        }
        drawn.join("\n\n")
    }

    fn draw(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
        let text = self.texts.get(&diagnostic.file);
        let mut group = match (text, &diagnostic.span) {
            (Some(text), Some(span)) => {
                let annotation = AnnotationKind::Primary.span(span.clone()).label(diagnostic.label.as_str());
                title.element(Snippet::source(&**text).path(diagnostic.file.as_str()).annotation(annotation))
            }
            _ => title.element(annotate_snippets::Origin::path(diagnostic.file.as_str())),
        };
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let groups: [Group<'_>; 1] = [group];
        renderer.render(&groups)
    }

    /// Returns all diagnostics as JSON, for programs.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.sorted()).unwrap_or_default()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.sorted().iter().map(|d| d.to_string()).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}

impl From<Diagnostic> for Problems {
    fn from(diagnostic: Diagnostic) -> Problems {
        Problems { list: vec![diagnostic], texts: BTreeMap::new() }
    }
}
