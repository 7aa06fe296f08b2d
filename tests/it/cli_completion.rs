//! Completion in shells: the program is asked as the script of a shell asks it.

use crate::program::Place;

/// What may stand in place of the last word.
fn candidates(place: &Place, words: &[&str]) -> Vec<String> {
    let mut command = place.command(&["--", "sgcache"]);
    command.args(words).env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
    command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_COMPLETE_COMP_TYPE", "9");
    let ended = command.output().expect("the program runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn names_of_pipelines_and_entity_types_are_completed() {
    let place = Place::new();
    assert_eq!(candidates(&place, &["pipelines", "trigger", "night"]), ["nightly-counts"]);
    assert_eq!(candidates(&place, &["pipelines", "explain", "weekly"]), ["weekly-rebuild"]);
    assert_eq!(candidates(&place, &["pipelines", "pause", "sam"]), ["sampled-data"]);
    assert_eq!(candidates(&place, &["find", "Publ"]), ["PublishedFile", "PublishedFileType"]);
    assert_eq!(candidates(&place, &["job", "rebuild", "Sho"]), ["Shot"]);
    assert!(candidates(&place, &["job", ""]).contains(&"validateData".to_owned()));
    // Where nothing is configured nothing fails.
    std::fs::remove_dir_all(place.path("pipelines")).expect("a directory");
    assert_eq!(candidates(&place, &["pipelines", "trigger", "night"]), Vec::<String>::new());
}

#[test]
fn each_shell_gets_a_script_that_asks_the_program() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).expect_code(0).stdout;
        assert!(script.contains("COMPLETE") && script.contains("sgcache"), "{shell}: {script}");
    }
}
