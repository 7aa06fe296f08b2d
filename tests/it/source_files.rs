//! Where the sources of the workspace are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::prometheus::repository;

/// Returns the folders with the sources of each crate, below the repository: `src` and
/// `crates/*/src`.
///
/// # Panics
///
/// When a folder of `crates` holds no `src`.
pub fn source_folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("src")];
    for entry in fs::read_dir(repository("crates")).expect("the crates") {
        let folder = Path::new("crates").join(entry.expect("a crate").file_name()).join("src");
        assert!(repository("").join(&folder).is_dir(), "{} is not there", folder.display());
        folders.push(folder);
    }
    folders.sort();
    folders
}

/// Adds every Rust file below a folder.
pub fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns every Rust file of the sources, by its path in the repository.
pub fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = repository("");
    source_folders().iter().for_each(|folder| rust_files(&root.join(folder), &mut found));
    found.iter().map(|path| path.strip_prefix(&root).expect("a path below the root").to_owned()).collect()
}

/// Tells whether a file holds only tests.
pub fn is_test(path: &Path) -> bool {
    path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with("tests"))
        || path.components().any(|part| part.as_os_str() == "tests")
}
