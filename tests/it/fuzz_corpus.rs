//! The kept corpus of every fuzz target, replayed: what once was found stays found.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/decoders.rs"]
mod decoders;

#[test]
fn the_kept_corpus_neither_panics_nor_overflows() {
    for (target, decode) in decoders::DECODERS {
        let corpus = Path::new("fuzz/corpus").join(target);
        let mut replayed = 0;
        for entry in fs::read_dir(&corpus).expect("a corpus") {
            decode(&fs::read(entry.expect("an entry").path()).expect("a file"));
            replayed += 1;
        }
        assert!(replayed >= 3, "{target} has a corpus");
        let named = fs::read_to_string("fuzz/Cargo.toml").expect("a manifest");
        assert!(named.contains(&format!("name = \"{target}\"")), "{target} is a target of cargo-fuzz");
    }
}
