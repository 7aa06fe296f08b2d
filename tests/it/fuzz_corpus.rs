//! The kept corpus of every fuzz target, replayed: what once was found stays found. Where
//! `tests/run` has built the targets, each searches on for a while.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::servers;

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

/// Runs with the lowest priority, so that the tests beside it do not wait.
#[test]
fn no_decoder_fails_on_what_a_search_finds() {
    let Some(targets) = servers::named("fuzz", "SGCACHE_TEST_FUZZ") else { return };
    let seconds = std::env::var("SGCACHE_TEST_FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned());
    for (target, _) in decoders::DECODERS {
        let new = tempfile::tempdir().expect("a directory");
        let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        fs::create_dir_all(&found).expect("a directory");
        let mut search = Command::new("nice");
        search.args(["-n", "19"]).arg(Path::new(&targets).join(target));
        search.arg(format!("-max_total_time={seconds}")).arg("-max_len=65536").arg("-timeout=60");
        search.arg(format!("-artifact_prefix={}/{target}-", found.display()));
        // What is new goes to the first directory: the kept corpus changes by hand only.
        search.arg(new.path()).arg(Path::new("fuzz/corpus").join(target));
        let ended = search.output().expect("the target runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{target} fails, its input is in {}:\n{said}", found.display());
    }
}
