//! What the compiler does not enforce about the order of the code. Between crates it does;
//! within a crate, a module may use those declared above it in the `lib.rs` of the crate and
//! never those below. The table is that file itself.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source_files::{all_sources, is_test, rust_files, source_folders};

/// Imports of modules and crates that the design forbids although the order would allow them.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("store", &["shotgun", "state"]),
    ("state", &["shotgun", "elastic"]),
    ("shotgun", &["elastic", "yaml", "config_file"]),
    ("elastic", &["yaml", "config_file"]),
    ("report", &["sync", "shotgun", "sim", "shotgun_sim"]),
    ("sync", &["sim", "yaml", "config_file", "shotgun_sim"]),
    ("validate", &["sim", "shotgun_sim"]),
    ("pipeline", &["sim", "shotgun_sim"]),
];

/// Packages that a crate must not have below it, over however many others.
const FOREIGN: &[(&str, &[&str])] = &[
    ("config-file", &["axum", "hyper", "reqwest", "rusqlite", "shotgun-model", "shotgun-sim", "tokio"]),
    ("shotgun-model", &["axum", "hyper", "libsqlite3-sys", "reqwest", "rusqlite", "tokio"]),
    ("shotgun-sim", &["elasticsearch", "libsqlite3-sys", "prometheus", "reqwest", "rusqlite"]),
];

/// The crates whose `lib.rs` declares its modules in the order of their dependencies.
const ORDERED: &[(&str, usize)] = &[("src", 15), ("crates/shotgun-model/src", 5)];

fn modules(sources: &str) -> Vec<String> {
    let lib = fs::read_to_string(format!("{sources}/lib.rs")).expect("lib.rs");
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

fn files_of(sources: &str, module: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let file = PathBuf::from(format!("{sources}/{module}.rs"));
    if file.exists() {
        files.push(file);
    }
    let dir = PathBuf::from(format!("{sources}/{module}"));
    if dir.exists() {
        rust_files(&dir, &mut files);
    }
    files
}

/// Returns the names that follow `crate::` in a text, and the crates of ours that it names,
/// each with its line.
fn uses(text: &str) -> Vec<(usize, String)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            found.push((index + 1, rest.chars().take_while(|c| is_word(*c)).collect()));
        }
        for name in ["config_file", "shotgun_model", "shotgun_sim"] {
            let mut parts = code.split(name);
            let mut before = parts.next().unwrap_or_default();
            for after in parts {
                if !before.ends_with(is_word) && !after.starts_with(is_word) {
                    found.push((index + 1, name.to_owned()));
                }
                before = after;
            }
        }
    }
    found
}

#[test]
fn modules_use_only_those_above_them() {
    let mut wrong = Vec::new();
    for (sources, least) in ORDERED {
        let modules = modules(sources);
        assert!(modules.len() >= *least, "{sources}/lib.rs lists the modules, found {modules:?}");
        for (rank, module) in modules.iter().enumerate() {
            let forbidden = FORBIDDEN.iter().find(|(name, _)| name == module).map_or(&[][..], |(_, names)| names);
            for path in files_of(sources, module).iter().filter(|path| !is_test(path)) {
                let text = fs::read_to_string(path).expect("a file");
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                for (line, used) in uses(text) {
                    let below = modules.iter().position(|name| *name == used).is_some_and(|other| other > rank);
                    if below || forbidden.contains(&used.as_str()) {
                        wrong.push(format!("{}:{line}: `{module}` must not use `{used}`", path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns every package that one has below it in `Cargo.lock`. It lists more than what is
/// compiled (other platforms, what tests need), never less.
fn packages_below(lock: &str, package: &str) -> BTreeSet<String> {
    let sections: Vec<&str> = lock.split("[[package]]").skip(1).collect();
    let named = |section: &str, name: &str| section.lines().any(|line| line == format!("name = \"{name}\""));
    let (mut found, mut open) = (BTreeSet::new(), vec![package.to_owned()]);
    while let Some(name) = open.pop() {
        let mut sections = sections.iter().filter(|section| named(section, &name)).peekable();
        assert!(sections.peek().is_some(), "`{name}` is in Cargo.lock");
        // Of a package with two versions, both count.
        for line in sections.filter_map(|section| section.split_once("dependencies = [")).flat_map(|(_, l)| l.lines()) {
            let Some(dependency) = line.strip_prefix(" \"") else { continue };
            let name: String = dependency.chars().take_while(|c| !" \"".contains(*c)).collect();
            if found.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    found
}

#[test]
fn crates_do_not_bring_what_they_must_not_know() {
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock");
    let all = packages_below(&lock, "sgcache");
    for (package, foreign) in FOREIGN {
        let below = packages_below(&lock, package);
        assert!(below.len() > 5, "{package} has only {below:?} below it");
        let found: Vec<_> = foreign.iter().filter(|name| below.contains(**name)).collect();
        assert!(found.is_empty(), "{package} has {found:?} below it: `cargo tree -p {package} -i {}`", found[0]);
        let known: Vec<_> = foreign.iter().filter(|name| !all.contains(**name)).collect();
        assert!(known.is_empty(), "there are no packages {known:?}: a list that names them proves nothing");
    }
}

/// What a program does beside computing. `shotgun-model` has nothing of it.
const INPUT_AND_OUTPUT: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "fs::",
    "println!",
    "SystemTime",
    "Instant",
    "now(",
];

#[test]
fn the_model_only_computes() {
    let mut wrong = Vec::new();
    let mut files = Vec::new();
    rust_files(Path::new("crates/shotgun-model/src"), &mut files);
    assert!(files.len() > 30, "found only {} files", files.len());
    for path in files.iter().filter(|path| !is_test(path)) {
        let text = fs::read_to_string(path).expect("a file");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code: String = code.flat_map(|line| [line, "\n"]).collect();
        wrong.extend(INPUT_AND_OUTPUT.iter().filter(|name| code.contains(**name)).map(|name| (path, name)));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn files_stay_small_and_say_what_they_own() {
    let mut files = Vec::new();
    let folders = source_folders();
    let crates = folders.iter().filter_map(|folder| folder.parent()).filter(|folder| folder.starts_with("crates"));
    for dir in ["src", "tests", "benches"].iter().map(Path::new).chain(crates) {
        rust_files(dir, &mut files);
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
    let mut wrong = Vec::new();
    for path in all_sources() {
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
    let mut wrong = Vec::new();
    for path in all_sources().iter().filter(|path| !is_test(path) && !path.starts_with("src/metrics")) {
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
/// Of `shotgun-model`, `the_model_only_computes` says the same and more.
const NO_LOCAL_CLOCK: &[&str] = &["proxy", "report", "shotgun", "state", "store", "sync", "validate"];

#[test]
fn the_local_clock_decides_nothing() {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let files = NO_LOCAL_CLOCK.iter().flat_map(|module| files_of("src", module));
    for path in files.filter(|path| !is_test(path)) {
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
