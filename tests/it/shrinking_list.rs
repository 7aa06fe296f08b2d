//! Lists of what is still wrong in which file, which may only become shorter.
//!
//! A list is a file with a line `NUMBER FILE` for each file that is not converted yet. A file
//! with more findings than its number fails the test, and so does a line of a file that has
//! none any more. `SGCACHE_TEST_LISTS=write cargo test --test it NAME` writes the present
//! numbers.

use std::collections::BTreeMap;

use crate::prometheus::repository;

/// Compares the findings by file with the list at a path of the repository.
///
/// # Panics
///
/// When a file has more findings than the list allows, or fewer than one and a line in it;
/// `remedy` ends the message.
#[track_caller]
pub fn check(list: &str, found: &BTreeMap<String, Vec<String>>, remedy: &str) {
    let found: BTreeMap<_, _> = found.iter().filter(|(_, findings)| !findings.is_empty()).collect();
    let path = repository(list);
    if std::env::var("SGCACHE_TEST_LISTS").is_ok_and(|what| what == "write") {
        let lines = found.iter().map(|(file, findings)| format!("{} {file}\n", findings.len()));
        std::fs::write(&path, lines.collect::<String>()).expect("the list is written");
    }
    let text = std::fs::read_to_string(&path).expect("the list");
    let mut allowed: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines() {
        let (count, file) = line.split_once(' ').expect("a number and a file");
        allowed.insert(file, count.parse().expect("a number"));
    }
    let mut wrong = Vec::new();
    for (file, findings) in found {
        let limit = allowed.remove(file.as_str()).unwrap_or_default();
        if findings.len() > limit {
            wrong.push(format!("{file}: {} where {limit} are allowed: {}", findings.len(), findings.join(", ")));
        }
    }
    wrong.extend(allowed.keys().map(|file| format!("{file}: nothing is left: remove its line from {list}")));
    assert!(wrong.is_empty(), "{}\n{remedy}", wrong.join("\n"));
}
