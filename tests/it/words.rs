//! Retired words stay retired: names in the source and texts that people read use the terms
//! of docs/GLOSSARY.md and plain technical English, one word for one thing.
//!
//! Files that are not converted yet stand in `words_allowed.txt` with the number of retired
//! names and phrases that each still has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use crate::prometheus::repository;
use crate::shrinking_list;
use crate::source_files::{all_sources, is_test};

/// Types, functions, constants and modules that had a name of our own.
const RETIRED_NAMES: &[&str] = &[
    "Arrivals",
    "Board",
    "CALM",
    "Desk",
    "Door",
    "FOR_EVER",
    "Flight",
    "Gone",
    "Heard",
    "Held",
    "Island",
    "Kept",
    "Kinds",
    "LAST",
    "MOST",
    "Mark",
    "Notice",
    "Said",
    "SILENCE",
    "Settling",
    "Shown",
    "Sorted",
    "Standing",
    "TOLD",
    "Tell",
    "Ticket",
    "Told",
    "Verdicted",
    "Whole",
    "Written",
    "greet",
    "hand_over",
    "let_go",
    "may_show",
    "obey",
    "patiently",
    "put_aside",
    "released",
    "tell",
];

/// Parts of a name (`settle` in `settle_row`) that say too little or too many things.
const RETIRED_PARTS: &[&str] = &[
    "anybody",
    "aside",
    "buried",
    "bury",
    "desk",
    "door",
    "frontier",
    "heard",
    "hurry",
    "island",
    "mend",
    "mended",
    "mends",
    "nobody",
    "poke",
    "poked",
    "reins",
    "risen",
    "said",
    "settle",
    "settled",
    "settling",
    "somebody",
    "surroundings",
    "told",
    "unsettled",
    "verdicted",
    "vouch",
    "vouched",
    "whoever",
];

/// Words and phrases that no text uses: messages, help, comments and documentation.
const RETIRED_PHRASES: &[&str] = &[
    r"nobody",
    r"somebody",
    r"anybody",
    r"whoever",
    r"mends?",
    r"mended",
    r"mending",
    r"hurry",
    r"pokes?",
    r"poked",
    r"bury",
    r"buried",
    r"risen",
    r"frontier",
    r"vouch(es|ed)?",
    r"puts? aside",
    r"worked off",
    r"bears",
    r"told",
    r"heard",
    r"says of itself",
    r"is no object",
    r"is no list",
    r"at most so many",
    r"holes?",
    r"field_diff",
    r"missing_in_cache",
    r"missing_in_source",
    r"say more",
    r"say only what",
    r"the form of the output",
    r"a call broke",
    r"broke off",
    r"none is every",
    r"entities vanish at once",
    r"stranger",
];

/// Module files whose name was retired, below the `src` of a crate.
const RETIRED_FILES: &[&str] = &[
    "cli/bars.rs",
    "cli/shipped.rs",
    "cli/snapshot.rs",
    "cli/tasks.rs",
    "config/quiet.rs",
    "proxy/audit.rs",
    "proxy/desk.rs",
    "proxy/door.rs",
    "proxy/effects.rs",
    "proxy/heard.rs",
    "proxy/memo.rs",
    "proxy/proven.rs",
    "proxy/raw.rs",
    "form.rs",
    "kept.rs",
    "readings.rs",
    "upset.rs",
    "state/dead.rs",
    "state/marks.rs",
    "store/elasticsearch/island.rs",
    "store/elasticsearch/settle.rs",
    "store/elasticsearch/shown.rs",
    "store/embedded/answers.rs",
    "store/embedded/passes.rs",
    "sync/advance.rs",
    "sync/audit.rs",
    "sync/board.rs",
    "sync/fitting.rs",
    "sync/settle.rs",
    "sync/steps.rs",
    "sync/upkeep.rs",
];

/// Where people read, besides the source.
const TEXTS: &[(&str, &[&str])] = &[
    ("README.md", &["md"]),
    ("CONTRIBUTING.md", &["md"]),
    ("SECURITY.md", &["md"]),
    ("config.yaml", &["yaml"]),
    ("docs", &["md", "json"]),
    ("entityConfig", &["json"]),
    ("metrics", &["yml", "yaml", "json", "ndjson"]),
    ("pipelines", &["yaml"]),
    ("src/server/page", &["html", "js"]),
];

const ALLOWED: &str = "tests/it/words_allowed.txt";

/// Returns every file below a folder, or the file itself, by its path in the repository.
fn files(path: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a folder") {
            files(&entry.expect("an entry").path(), endings, found);
        }
    } else if path.exists() && endings.iter().any(|ending| path.extension().is_some_and(|found| found == *ending)) {
        found.push(path.to_owned());
    }
}

/// A source text, taken apart.
#[derive(Default)]
struct Source {
    code: String,
    /// Comments and string literals.
    texts: String,
}

/// Takes a Rust source apart. Raw strings and escapes are known; what a macro makes is not.
fn source(text: &str) -> Source {
    // In the order of the alternatives: comments, raw strings, strings, characters.
    let literal = r##"//[^\n]*|(?s:/\*.*?\*/)|\br#"(?s:.*?)"#|\br"[^"]*"|b?"(?s:\\.|[^"\\])*"|'(\\[^']+|[^'\\])'"##;
    let literal = Regex::new(literal).expect("a pattern");
    let (mut source, mut end) = (Source::default(), 0);
    for found in literal.find_iter(text) {
        source.code.push_str(&text[end..found.start()]);
        source.code.push(' ');
        source.texts.push_str(found.as_str());
        source.texts.push('\n');
        end = found.end();
    }
    source.code.push_str(&text[end..]);
    source
}

/// Returns the retired names that a code declares, and its identifiers with a retired part,
/// each once.
fn names(code: &str) -> BTreeSet<String> {
    let declared = Regex::new(r"\b(?:fn|struct|enum|trait|type|const|static|mod)\s+(\w+)").expect("a pattern");
    let identifier = Regex::new(r"[A-Za-z_][A-Za-z0-9_]*").expect("a pattern");
    let part = Regex::new(r"[A-Z]?[a-z]+|[A-Z]+").expect("a pattern");
    let declared = declared.captures_iter(code).map(|found| found[1].to_owned());
    let has_retired_part =
        |name: &&str| part.find_iter(name).any(|part| RETIRED_PARTS.contains(&part.as_str().to_lowercase().as_str()));
    let parts = identifier.find_iter(code).map(|found| found.as_str()).filter(has_retired_part);
    declared.filter(|name| RETIRED_NAMES.contains(&name.as_str())).chain(parts.map(str::to_owned)).collect()
}

/// Returns the retired phrases of a text, as often as they occur. Line breaks, and the
/// marks of comments behind them, are no borders.
fn phrases(text: &str) -> Vec<String> {
    let folded = Regex::new(r"\s+(//[/!]?\s+)?").expect("a pattern").replace_all(text, " ");
    let retired = format!(r"(?i)\b({})\b", RETIRED_PHRASES.join("|"));
    let retired = Regex::new(&retired).expect("a pattern");
    retired.find_iter(&folded).map(|found| found.as_str().to_lowercase()).collect()
}

/// Returns every retired word by file: names, phrases, and the name of the file.
fn retired() -> BTreeMap<String, Vec<String>> {
    let root = repository("");
    let mut texts = Vec::new();
    for (path, endings) in TEXTS {
        files(&root.join(path), endings, &mut texts);
    }
    let mut found = BTreeMap::new();
    for path in all_sources().iter().filter(|path| !is_test(path)) {
        let text = std::fs::read_to_string(root.join(path)).expect("text");
        let source = source(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        let name = path.display().to_string();
        let mut words: Vec<String> = names(&source.code).into_iter().collect();
        words.extend(phrases(&source.texts));
        words.extend(
            RETIRED_FILES.iter().filter(|file| name.ends_with(&format!("src/{file}"))).map(|file| (*file).to_owned()),
        );
        found.insert(name, words);
    }
    for path in texts {
        let text = std::fs::read_to_string(&path).expect("text");
        let name = path.strip_prefix(&root).expect("a path below the root").display().to_string();
        found.insert(name, phrases(&text));
    }
    found
}

#[test]
fn retired_words_do_not_come_back() {
    shrinking_list::check(ALLOWED, &retired(), "see docs/GLOSSARY.md for the terms");
}

#[test]
fn a_retired_word_is_found_in_each_kind_of_place() {
    let text = r##"
        // Nobody reads a lifetime &'a str as a literal.
        fn settle_row<'a>(kind: &'a str) -> Kept { log("put
            aside", 'x', r#"a "frontier" here"#, "settled \" told"); let island = ["//"]; let board = 1; } struct Ticket;
        /// Is worked
        /// off.
    "##;
    let source = source(text);
    assert_eq!(names(&source.code).into_iter().collect::<Vec<_>>(), ["Ticket", "island", "settle_row"]);
    assert_eq!(phrases(&source.texts), ["nobody", "put aside", "frontier", "told", "worked off"]);
}
