//! Edits lists below `api` in the text of `config.yaml`, so that comments and everything
//! else in the file stay as they are.
//!
//! Line by line, for the two forms that people write: `key: [a, b]` on one line, and one
//! `- item` per line. The caller checks that the result can be loaded.

/// Sets a list of words, in place of the one that is there.
pub fn set_api_list(text: &str, key: &str, items: &[&str]) -> String {
    let mut lines = with_api(text);
    let line = format!("  {key}: [{}]", items.join(", "));
    match find(&lines, key) {
        Some(at) => {
            let end = end_of_block(&lines, at);
            lines.splice(at..end, [line]);
        }
        None => lines.insert(api(&lines) + 1, line),
    }
    joined(&lines)
}

/// Adds an item to a list of mappings.
pub fn add_api_item(text: &str, key: &str, item: &str) -> String {
    let mut lines = with_api(text);
    match find(&lines, key) {
        // `key: [...]`: the item goes before the bracket that ends the list.
        Some(at) if lines[at].trim_end().ends_with(']') => {
            let list = lines[at].trim_end().trim_end_matches(']').trim_end().to_owned();
            let comma = if list.ends_with('[') { "" } else { ", " };
            lines[at] = format!("{list}{comma}{item}]");
        }
        Some(at) => lines.insert(end_of_block(&lines, at), format!("    - {item}")),
        None => {
            let at = api(&lines) + 1;
            lines.splice(at..at, [format!("  {key}:"), format!("    - {item}")]);
        }
    }
    joined(&lines)
}

fn with_api(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if !lines.iter().any(|line| is_key(line, "api")) {
        lines.extend([String::new(), "api:".to_owned()]);
    }
    lines
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn is_key(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
}

/// The line `api:`; [`with_api`] has seen to it that there is one.
fn api(lines: &[String]) -> usize {
    lines.iter().position(|line| is_key(line, "api")).unwrap_or_default()
}

/// The line of a key directly below `api`.
fn find(lines: &[String], key: &str) -> Option<usize> {
    let begin = api(lines) + 1;
    let is_outside = |line: &&String| line.starts_with(|first: char| !first.is_whitespace() && first != '#');
    let length = lines[begin..].iter().position(|line| is_outside(&line)).unwrap_or(lines.len() - begin);
    let found = lines[begin..begin + length].iter().position(|line| is_key(line.trim_start(), key));
    found.map(|at| begin + at)
}

/// The line after the last one that belongs to the key at a line.
fn end_of_block(lines: &[String], at: usize) -> usize {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let own = depth(&lines[at]);
    let belongs = |line: &&String| depth(line) > own || (depth(line) == own && line.trim_start().starts_with("- "));
    at + 1 + lines[at + 1..].iter().take_while(belongs).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_edited_in_every_form_that_people_write() {
        let none = "data_dir: ./data\n# api:\n#   callers:\n";
        assert_eq!(
            add_api_item(none, "callers", "{ script: a }"),
            format!("{none}\napi:\n  callers:\n    - {{ script: a }}\n")
        );
        let some =
            "api:\n  max_age: 30s   # why\n  callers:\n    - { script: a }   # one\n  mode: serve\nlisten:\n  api: x\n";
        let expected = "api:\n  max_age: 30s   # why\n  callers:\n    - { script: a }   # one\n    - { script: b }\n  mode: serve\nlisten:\n  api: x\n";
        assert_eq!(add_api_item(some, "callers", "{ script: b }"), expected);
        assert_eq!(
            add_api_item("api:\n  callers: []\n", "callers", "{ login: b }"),
            "api:\n  callers: [{ login: b }]\n"
        );
        let expected = "api:\n  semantics: [week]\n  max_age: 1s\n";
        assert_eq!(set_api_list("api:\n  max_age: 1s\n", "semantics", &["week"]), expected);
        let block = "api:\n  semantics:\n    - text_order\n  max_age: 1s\n";
        assert_eq!(set_api_list(block, "semantics", &["week"]), expected);
        assert_eq!(set_api_list("api:\n  semantics: [a]\n  max_age: 1s\n", "semantics", &["week"]), expected);
    }
}
