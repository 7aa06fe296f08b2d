//! No file imports, over however many others of its module, itself: who reads a file can
//! read what it uses first.
//!
//! The `use` lines and the paths in the code are resolved to the files that own the names:
//! a re-export of a parent leads to the child that declares the name. Re-exports themselves
//! are no imports. Files that are still in a circle stand in `circles_allowed.txt` with the
//! number of their imports within it; the list only shrinks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex_lite::Regex;

use crate::prometheus::repository;
use crate::shrinking_list;
use crate::source_files::{is_test, rust_files, source_folders};

const ALLOWED: &str = "tests/it/circles_allowed.txt";

/// The path of a module: `["proxy", "decide"]`, with the name of its crate in front when
/// that stands in `crates`: `["shotgun-model", "filter", "eval"]`. What counts as one module
/// is its first part, so such a crate is one.
type Module = Vec<String>;

/// A source file as a module, and what it names.
struct Source {
    file: String,
    /// The root of its crate: empty, or the name of the crate.
    root: Module,
    /// Paths of `use` lines, each with whether it is a re-export.
    imports: Vec<(bool, String)>,
    children: BTreeSet<String>,
}

/// Splits the branches of a use tree at the commas of its outermost level.
fn branches(tree: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0);
    for character in tree.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        found.last_mut().expect("a branch").push(character);
    }
    found.retain(|branch| !branch.is_empty());
    found
}

/// Returns the paths of a use tree without spaces: `super::{a::B,c}` is `super::a::B`, `super::c`.
fn paths(tree: &str) -> Vec<String> {
    match tree.split_once('{') {
        Some((prefix, rest)) => {
            let inner = rest.strip_suffix('}').unwrap_or(rest);
            let inner = branches(inner).into_iter().flat_map(|branch| paths(&branch));
            inner.map(|path| format!("{prefix}{path}")).collect()
        }
        None => vec![tree.to_owned()],
    }
}

fn source(file: String, root: &[String], text: &str) -> Source {
    let pattern = |text: &str| Regex::new(text).expect("a pattern");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let text = pattern(r"//[^\n]*").replace_all(text, "");
    let used = pattern(r"(?m)^[ \t]*(pub(?:\([^)]*\))? )?use ([^;]+);");
    let mut imports = Vec::new();
    for found in used.captures_iter(&text) {
        let tree = pattern(r"\s+as\s+\w+").replace_all(&found[2], "").into_owned();
        let tree: String = tree.split_whitespace().collect();
        imports.extend(paths(&tree).into_iter().map(|path| (found.get(1).is_some(), path)));
    }
    let children = pattern(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);");
    let children: BTreeSet<String> = children.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    let body = used.replace_all(&text, "");
    let inline = pattern(r"\b(?:super|crate)(?:::\w+)+");
    imports.extend(inline.find_iter(&body).map(|found| (false, found.as_str().to_owned())));
    let of_child = pattern(r"(?:^|[^\w:])(\w+)::(\w+)");
    let of_child = of_child.captures_iter(&body).filter(|found| children.contains(&found[1]));
    imports.extend(of_child.map(|found| (false, format!("self::{}::{}", &found[1], &found[2]))));
    Source { file, root: root.to_vec(), imports, children }
}

/// Returns the sources of a crate, without tests, by module.
fn sources(folder: &Path) -> BTreeMap<Module, Source> {
    let root: Module = match folder.strip_prefix("crates") {
        Ok(below) => below.iter().take(1).map(|part| part.to_string_lossy().into_owned()).collect(),
        Err(_) => Module::new(),
    };
    let mut files = Vec::new();
    rust_files(&repository("").join(folder), &mut files);
    let mut found = BTreeMap::new();
    for path in files {
        let below = path.strip_prefix(repository("").join(folder)).expect("a file below the folder");
        let parts = below.with_extension("");
        let mut module = root.clone();
        module.extend(parts.iter().map(|part| part.to_string_lossy().into_owned()));
        let name = module.last().expect("a name").clone();
        if is_test(below) || name == "main" {
            continue;
        }
        if name == "mod" || name == "lib" {
            module.pop();
        }
        let text = std::fs::read_to_string(&path).expect("text");
        found.insert(module, source(folder.join(below).display().to_string(), &root, &text));
    }
    found
}

/// Returns the path from the root of the crate that a path in a module means; `None` for
/// one into another crate.
fn absolute(module: &Module, source: &Source, path: &str) -> Option<Module> {
    let mut parts = path.split("::").map(str::to_owned).peekable();
    let mut start = match parts.peek().map(String::as_str) {
        Some("crate") => source.root.clone(),
        Some("self" | "super") => module.clone(),
        Some(first) if source.children.contains(first) => module.clone(),
        _ => return None,
    };
    while let Some(part) = parts.next_if(|part| ["crate", "self", "super"].contains(&part.as_str())) {
        if part == "super" {
            start.pop();
        }
    }
    start.extend(parts);
    Some(start)
}

/// Returns the module that owns what a path from the root names, through re-exports.
fn owner(sources: &BTreeMap<Module, Source>, path: &[String], depth: usize) -> Option<Module> {
    let length = (0..=path.len()).rev().find(|length| sources.contains_key(&path[..*length]))?;
    let module = path[..length].to_vec();
    let Some(name) = path.get(length).filter(|_| depth < 5) else { return Some(module) };
    let source = &sources[&module];
    let reexport = source.imports.iter().filter(|(public, _)| *public).find(|(_, import)| {
        import.rsplit("::").next() == Some(name) || import.strip_suffix("::self").is_some_and(|of| of.ends_with(name))
    });
    let target = reexport.and_then(|(_, import)| absolute(&module, source, import)).filter(|target| target != path);
    target.and_then(|target| owner(sources, &target, depth + 1)).or(Some(module))
}

/// Returns which modules each one imports within its top module.
fn imports(sources: &BTreeMap<Module, Source>) -> BTreeMap<&Module, BTreeSet<Module>> {
    let mut found: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in sources.iter().filter(|(module, _)| !module.is_empty()) {
        let is_parent = source.file.ends_with("/mod.rs") || source.file.ends_with("/lib.rs");
        for (public, path) in &source.imports {
            let target = absolute(module, source, path).and_then(|path| owner(sources, &path, 0));
            let Some(target) = target.filter(|target| target != module && target.first() == module.first()) else {
                continue;
            };
            if !(is_parent && *public) {
                found.entry(module).or_default().insert(target);
            }
        }
    }
    found
}

/// Returns everything that a module reaches.
fn reached<'a>(edges: &'a BTreeMap<&Module, BTreeSet<Module>>, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for next in edges.get(module).into_iter().flatten() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}

/// Returns, of each file in a circle, what it imports within it.
fn circles(sources: &BTreeMap<Module, Source>) -> BTreeMap<String, Vec<String>> {
    let edges = imports(sources);
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        edges.keys().map(|module| (*module, reached(&edges, module))).collect();
    let mut found = BTreeMap::new();
    for (module, targets) in &edges {
        let back = |target: &&Module| reached.get(*target).is_some_and(|reached| reached.contains(module));
        let within: Vec<String> = targets.iter().filter(back).map(|target| target.join("::")).collect();
        found.insert(sources[*module].file.clone(), within);
    }
    found.retain(|_, within| !within.is_empty());
    found
}

#[test]
fn files_of_a_module_do_not_import_each_other_in_circles() {
    let sources: BTreeMap<_, _> = source_folders().iter().flat_map(|folder| sources(folder)).collect();
    assert!(sources.len() > 300, "only {} modules were found", sources.len());
    let remedy = "move what both need into a file below both, and import from the file that owns a name";
    shrinking_list::check(ALLOWED, &circles(&sources), remedy);
}

#[test]
fn a_circle_over_a_reexport_and_a_path_in_the_code_is_found() {
    let files = [
        (vec!["store"], "store/mod.rs", "mod a;\nmod b;\nmod c;\npub use a::{First, Second as Other};\n"),
        (vec!["store", "a"], "store/a.rs", "use super::b::{self, Third};\npub struct First;\n"),
        (vec!["store", "b"], "store/b.rs", "fn f() -> super::First { todo!() }\nuse serde::Serialize;\n"),
        (vec!["store", "c"], "store/c.rs", "use super::{First, b};\nuse crate::entity::EntityRef;\n"),
    ];
    let module = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Module>();
    let sources = files.iter().map(|(path, file, text)| (module(path), source(format!("src/{file}"), &[], text)));
    let found = circles(&sources.collect());
    let names: Vec<(&str, &str)> = found.iter().map(|(file, within)| (file.as_str(), within[0].as_str())).collect();
    assert_eq!(names, [("src/store/a.rs", "store::b"), ("src/store/b.rs", "store::a")]);
}
