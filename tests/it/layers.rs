//! The order of the modules: a module may use those declared above it in
//! `src/lib.rs` and never those below. The table is that file itself.

use std::fs;
use std::path::{Path, PathBuf};

/// Imports that the design forbids although the order would allow them.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("sim", &["shotgun", "store", "state", "elastic"]),
    ("store", &["shotgun", "state"]),
    ("state", &["shotgun", "elastic"]),
    ("shotgun", &["elastic", "yaml"]),
    ("elastic", &["yaml"]),
    ("report", &["sync", "shotgun", "sim"]),
    ("sync", &["sim", "yaml"]),
    ("validate", &["sim"]),
    ("pipeline", &["sim"]),
];

fn modules() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs");
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files_of(module: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let file = PathBuf::from(format!("src/{module}.rs"));
    if file.exists() {
        files.push(file);
    }
    let dir = PathBuf::from(format!("src/{module}"));
    if dir.exists() {
        rust_files(&dir, &mut files);
    }
    files
}

/// Returns the modules of ours that a text uses, by the path after `crate::`.
fn uses<'a>(text: &'a str, modules: &'a [String]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(module) = modules.iter().find(|module| **module == name) {
                found.push((index + 1, module.as_str()));
            }
        }
    }
    found
}

/// Tests may use anything: what follows `#[cfg(test)]` does not count.
fn is_test(path: &Path) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with("tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn modules_use_only_those_above_them() {
    let modules = modules();
    assert!(modules.len() > 15, "src/lib.rs lists the modules, found {modules:?}");
    let mut wrong = Vec::new();
    for (rank, module) in modules.iter().enumerate() {
        let forbidden = FORBIDDEN.iter().find(|(name, _)| name == module).map_or(&[][..], |(_, names)| names);
        for path in files_of(module).iter().filter(|path| !is_test(path)) {
            let text = fs::read_to_string(path).expect("a file");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for (line, used) in uses(text, &modules) {
                let below = modules.iter().position(|name| name == used).is_some_and(|other| other > rank);
                if below || forbidden.contains(&used) {
                    wrong.push(format!("{}:{line}: `{module}` must not use `{used}`", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_small_and_say_what_they_own() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches"].iter().filter(|dir| Path::new(dir).exists()) {
        rust_files(Path::new(dir), &mut files);
    }
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        let lines = text.lines().count();
        if lines > 600 {
            wrong.push(format!("{}: {lines} lines, look for the second noun", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: no header", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// SQLite waits for disks and for other processes, so it is used only in these
/// places, and each of them hands its work to a thread of the blocking pool.
const SQLITE: &[&str] = &["src/state/", "src/store/embedded/"];

#[test]
fn sqlite_is_used_only_where_it_has_threads_of_its_own() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for path in files {
        let allowed = SQLITE.iter().any(|place| path.starts_with(place));
        let text = fs::read_to_string(&path).expect("a file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let uses = text.lines().any(|line| line.split("//").next().unwrap_or_default().contains("rusqlite"));
        if uses && !allowed {
            wrong.push(format!("{}: uses SQLite on the thread of its caller", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Metrics are shown; what a program decides or reports by is counted where it happens.
#[test]
fn nothing_reads_a_metric() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !is_test(path) && !path.starts_with("src/metrics")) {
        let text = fs::read_to_string(path).expect("a file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let dense: String = text.split_whitespace().collect();
        if [".value(\"sgcache_", "metrics().value(", "metrics.value("].iter().any(|call| dense.contains(call)) {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these read a metric: {wrong:?}");
}

/// Where the local clock is read below the command line, and why no decision hangs on it.
/// Everything else goes by numbers, by the clock of the site, or by the monotonic clock.
const LOCAL_CLOCK: &[(&str, &str)] = &[
    ("src/sync/clock.rs", "before the first answer of the site, and to show how far apart the clocks are"),
    ("src/sync/lease.rs", "shown: since when a host holds the lease"),
    ("src/proxy/outcome.rs", "the time of a line of the access log"),
    ("src/proxy/ledger_feed.rs", "shown: the hour in which a call is counted"),
    ("src/report/history.rs", "shown: when a run whose process died has ended"),
];
const NO_LOCAL_CLOCK: &[&str] = &[
    "api3",
    "entity",
    "entity_config",
    "filter",
    "proxy",
    "report",
    "schema",
    "shotgun",
    "state",
    "store",
    "sync",
    "validate",
];

#[test]
fn the_local_clock_decides_nothing() {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for path in NO_LOCAL_CLOCK.iter().flat_map(|module| files_of(module)).filter(|path| !is_test(path)) {
        let text = fs::read_to_string(&path).expect("a file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        if !["SystemTime::now(", "Utc::now(", "Local::now("].iter().any(|call| text.contains(call)) {
            continue;
        }
        match LOCAL_CLOCK.iter().find(|(place, _)| path.starts_with(place)) {
            Some((place, _)) => found.push(*place),
            None => wrong.push(path.display().to_string()),
        }
    }
    assert!(wrong.is_empty(), "these read the local clock: {wrong:?}");
    assert_eq!(found.len(), LOCAL_CLOCK.len(), "only {found:?} read it");
}

#[test]
fn every_function_of_the_state_is_asynchronous() {
    let mut files = Vec::new();
    rust_files(Path::new("src/state"), &mut files);
    let (mut functions, mut wrong) = (0, Vec::new());
    for path in files.iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).expect("a file");
        let Some((_, rest)) = text.split_once("\nimpl State {\n") else { continue };
        let body = rest.split_once("\n}\n").map_or(rest, |(body, _)| body);
        for line in body.lines().filter(|line| line.starts_with("    pub fn ") || line.starts_with("    pub async fn "))
        {
            functions += 1;
            if !line.contains("async") && !line.contains("pub fn directory(") {
                wrong.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(functions > 50, "found only {functions} functions");
    assert!(wrong.is_empty(), "these wait on the thread of their caller:\n{}", wrong.join("\n"));
}
