//! Hides what may be secret in the text of a `config.yaml` before lines of it are drawn.
//!
//! A diagnostic shows the line it points at, and that line may hold a key, also at a place
//! where no key belongs: under a mistyped name, or where the braces do not match. So this
//! works on the text and needs no structure: shown are comments' marks, names, and the
//! values of names that nowhere stand for a secret. Everything else becomes `*`, byte for
//! byte, so that places in the text stay where they are.

use std::collections::BTreeSet;

use super::file::SHAPE;
use crate::yaml::Shape;

/// Returns the text with everything hidden that may be secret.
pub(super) fn hide_values(text: &str) -> String {
    let mut names = Names::default();
    names.collect(&SHAPE);
    let mut scanner = Scanner { names: &names, is_shown: false, flow_depth: 0, hidden: String::new() };
    text.split_inclusive('\n').for_each(|line| scanner.line(line));
    scanner.hidden
}

/// The names of the file, by whether their values may be shown.
#[derive(Default)]
struct Names {
    harmless: BTreeSet<&'static str>,
    secret: BTreeSet<&'static str>,
}

impl Names {
    fn collect(&mut self, shape: &Shape) {
        match shape {
            Shape::Object(keys) => {
                for key in *keys {
                    match &key.shape {
                        Shape::Secret => drop(self.secret.insert(key.name)),
                        inner if is_source(inner) => drop(self.secret.insert(key.name)),
                        Shape::Object(_) | Shape::Map(_) | Shape::Any => {}
                        _ => drop(self.harmless.insert(key.name)),
                    }
                    self.collect(&key.shape);
                }
            }
            Shape::Map(inner) | Shape::List(inner) | Shape::OneOrMany(inner) => self.collect(inner),
            _ => {}
        }
    }

    /// Tells whether the values of a name may be shown: it is known, and nowhere a secret.
    fn shows(&self, name: &str) -> bool {
        self.harmless.contains(name) && !self.secret.contains(name)
    }
}

/// Tells whether a mapping says where a secret comes from.
fn is_source(shape: &Shape) -> bool {
    let Shape::Object(keys) = shape else { return false };
    keys.iter().any(|key| matches!(key.shape, Shape::Secret))
}

struct Scanner<'a> {
    names: &'a Names,
    /// Whether the value of the last name may be shown; it may go on over several lines.
    is_shown: bool,
    flow_depth: usize,
    hidden: String,
}

impl Scanner<'_> {
    fn line(&mut self, line: &str) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let used = match first {
                '#' if self.hidden.is_empty() || self.hidden.ends_with(char::is_whitespace) => {
                    self.copy("#");
                    self.hide(&rest[1..]);
                    rest.len()
                }
                '{' | '[' => {
                    self.flow_depth += 1;
                    self.copy(&rest[..1])
                }
                '}' | ']' => {
                    self.flow_depth = self.flow_depth.saturating_sub(1);
                    self.copy(&rest[..1])
                }
                first if first.is_whitespace() || matches!(first, ',' | '-') => self.copy(&rest[..first.len_utf8()]),
                _ => self.name_or_value(rest),
            };
            rest = &rest[used..];
        }
    }

    fn name_or_value(&mut self, rest: &str) -> usize {
        let end = self.end_of_scalar(rest);
        let name_end = rest[..end]
            .char_indices()
            .find(|(at, char)| *char == ':' && rest[at + 1..].chars().next().is_none_or(|next| next.is_whitespace()));
        match name_end {
            Some((at, _)) => {
                let name = rest[..at].trim_matches(['"', '\'']);
                self.is_shown = self.names.shows(name);
                self.copy(&rest[..=at])
            }
            None if self.is_shown => self.show(&rest[..end]),
            None => self.hide(&rest[..end]),
        }
    }

    /// Returns where a scalar ends that begins here, quoted or not.
    fn end_of_scalar(&self, rest: &str) -> usize {
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\''));
        if let Some(end) = quote.and_then(|quote| rest[1..].find(quote)) {
            return end + 2;
        }
        let mut before = ' ';
        for (at, char) in rest.char_indices() {
            let ends = match char {
                '\n' | '\r' => true,
                ',' | '}' | ']' => self.flow_depth > 0,
                '#' => before.is_whitespace(),
                _ => false,
            };
            if ends && at > 0 {
                return at;
            }
            before = char;
        }
        rest.len()
    }

    fn copy(&mut self, text: &str) -> usize {
        self.hidden.push_str(text);
        text.len()
    }

    /// Copies a value but for a user and password in an address.
    fn show(&mut self, text: &str) -> usize {
        let from = text.find("://").map_or(0, |at| at + 3);
        let user = text[from..].rfind('@').map(|length| (from, from + length));
        match user {
            Some((from, to)) => {
                self.copy(&text[..from]);
                self.hide(&text[from..to]);
                self.copy(&text[to..]);
            }
            None => drop(self.copy(text)),
        }
        text.len()
    }

    fn hide(&mut self, text: &str) -> usize {
        for char in text.chars() {
            match char.is_whitespace() {
                true => self.hidden.push(char),
                false => (0..char.len_utf8()).for_each(|_| self.hidden.push('*')),
            }
        }
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::hide_values;

    #[test]
    fn only_values_of_names_that_are_nowhere_secret_are_shown() {
        let table = [
            ("timezone: Europe/Pariss", "timezone: Europe/Pariss"),
            ("  key: { value: abc, env: NAME }  # x y", "  key: { value: ***, env: NAME }  # * *"),
            ("  key: { valu: abc }", "  key: { valu: *** }"),
            ("  kye: abc # d", "  kye: *** # *"),
            ("  key: \"a, b}\"", "  key: *** ***"),
            ("  key: >\n    abc d\n  max_rps: 5", "  key: *\n    *** *\n  max_rps: 5"),
            ("secrets: { a: \u{e9}b }", "secrets: { a: *** }"),
            ("  site: http://me:abc@site/x", "  site: http://******@site/x"),
            ("  site: me:abc@site", "  site: ******@site"),
            ("generate:\n  exclude_types:\n    - Banner*", "generate:\n  exclude_types:\n    - Banner*"),
            ("  key: { value: abc }}, nothing: {", "  key: { value: *** }}, nothing: {"),
            ("abc", "***"),
            ("", ""),
        ];
        for (text, expected) in table {
            let hidden = hide_values(text);
            assert_eq!(hidden, expected);
            assert_eq!(hidden.len(), text.len());
        }
    }
}
