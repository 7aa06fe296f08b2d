//! Tables, and how values look in them.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// The form of what goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Ndjson,
}

/// Makes a plain table that reads well without colour and fits the terminal.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// Draws problems with the lines that they point at, in colour on a terminal.
pub fn drawn(problems: &crate::yaml::Problems) -> String {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    problems.render(colour)
}

/// Shows a field value in a cell: links by name, lists joined, nothing as a dash.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(link) => match (link.get("name").and_then(Value::as_str), link.get("type"), link.get("id")) {
            (Some(name), Some(_), Some(_)) => name.to_owned(),
            (None, Some(Value::String(ty)), Some(id)) => format!("{ty} {id}"),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// Names a step and its job: `nightly: validateData`, or one of them where they are the same.
pub fn step_words(id: &str, job: &str) -> String {
    if id == job { id.to_owned() } else { format!("{id}: {job}") }
}

/// The width that texts for people fit.
pub const COLUMNS: usize = 80;

/// A text behind its lead; further lines are indented as far.
pub fn wrapped(lead: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(lead.chars().count());
    let options = textwrap::Options::new(COLUMNS).initial_indent(lead).subsequent_indent(&indent);
    let options = options.word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Shortens a text to so many characters.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Writes a number with thin separators: `1 234 567`.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn links_show_their_names() {
        assert_eq!(
            cell(&json!([{"type": "Asset", "id": 1, "name": "Bunny"}, {"type": "Asset", "id": 2}])),
            "Bunny, Asset 2"
        );
        assert_eq!(cell(&Value::Null), "-");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([number(7), number(1234), number(1_234_567)], ["7", "1 234", "1 234 567"]);
    }
}
