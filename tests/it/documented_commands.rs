//! Every command that a message, an alert, a runbook or a page of the documentation
//! names is one that the program accepts.
//!
//! The program itself judges: each command is run with `--help` behind it, which
//! clap answers only after it has accepted everything that stands before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prometheus::repository;

/// Stands for a placeholder (`{ty}`, `{{ $labels.entity_type }}`) of a message.
const EXAMPLE: &str = "Shot";

/// Returns every file below a folder, or the file itself.
fn files(path: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            files(&entry.expect("an entry").path(), endings, found);
        }
    } else if endings.iter().any(|ending| path.extension().is_some_and(|extension| extension == *ending)) {
        found.push(path.to_owned());
    }
}

/// Returns the commands in a text: those between backticks, and in documentation the
/// lines that begin with the program's name.
fn commands(text: &str, with_lines: bool) -> Vec<String> {
    let quoted = text.split("`sgcache ").skip(1).filter_map(|rest| rest.split_once('`').map(|(command, _)| command));
    let mut found: Vec<String> = quoted.filter(|command| !command.contains('\n')).map(str::to_owned).collect();
    // Scripts of the page make an element of a command.
    let elements = text.split("el(\"code\", \"\", \"sgcache ").skip(1);
    found.extend(elements.filter_map(|rest| rest.split_once('"').map(|(command, _)| command.to_owned())));
    if with_lines {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().filter_map(|line| line.strip_prefix("sgcache "));
        found.extend(lines.map(|line| line.split("  #").next().unwrap_or(line).to_owned()));
    }
    found
}

/// Splits a command as a shell does; `None` for a synopsis, which is not a command.
fn words(command: &str) -> Option<Vec<String>> {
    if command.contains("...") || command.contains('[') && !command.contains('\'') || command.contains(" | ") {
        return None;
    }
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for character in command.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            None if character == '\'' || character == '"' => quote = Some(character),
            None if character == ' ' => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            _ => word.push(character),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    Some(words)
}

/// Replaces what stands in braces outside of quoted arguments.
fn without_placeholders(command: &str) -> String {
    let (mut text, mut depth) = (String::new(), 0);
    for character in command.chars() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    text.push_str(EXAMPLE);
                }
            }
            _ if depth == 0 => text.push(character),
            _ => {}
        }
    }
    text
}

#[test]
fn every_command_that_is_named_somewhere_is_one_that_the_program_accepts() {
    let root = repository("");
    let mut places = Vec::new();
    for (path, endings) in [
        ("src", &["rs", "html", "js"][..]),
        ("crates", &["rs", "md"]),
        ("metrics", &["yml", "yaml", "json", "ndjson"]),
        ("docs", &["md"]),
        ("pipelines", &["yaml"]),
        ("README.md", &["md"]),
        ("config.yaml", &["yaml"]),
    ] {
        files(&root.join(path), endings, &mut places);
    }
    let mut named: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for place in places {
        let text = std::fs::read_to_string(&place).expect("text");
        let with_lines = place.extension().is_some_and(|extension| extension == "md");
        for command in commands(&text, with_lines) {
            if let Some(words) = words(&without_placeholders(&command)) {
                let place = place.strip_prefix(&root).unwrap_or(&place);
                named.entry(words).or_insert_with(|| format!("{}: `sgcache {command}`", place.display()));
            }
        }
    }
    assert!(named.len() > 20, "only {} commands were found", named.len());
    let refused = named.into_iter().filter_map(|(words, place)| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sgcache"));
        let output = program.args(&words).arg("--help").output().expect("the program runs");
        let error = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        (!output.status.success()).then(|| format!("{place}: {error}"))
    });
    let refused: Vec<String> = refused.collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
