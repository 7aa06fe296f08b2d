//! The demo, as a user starts it.

use crate::program::{Place, free_address};

#[test]
fn an_outage_that_is_played_ends_with_every_count_of_the_site() {
    let place = Place::new();
    let listen = free_address();
    let addresses = ["--listen", &listen, "--ops", &place.ops, "--api", &place.api];
    let scale = ["--entities", "2000", "--latency", "0ms", "--edits", "20"];
    let args: Vec<&str> = [&["demo", "--outage", "4s"][..], &addresses, &scale].concat();
    let ended = place.run(&args).expect_code(0);
    let words = [
        " types live; a read takes ",
        "the site stops answering",
        "amber: a poll failed",
        " stale from the cache",
        "fails; a read of it says `stale; age=",
        "the daemon was restarted",
        "the site answers again",
        " counts match the site",
        " 0 by the site, 0 failed",
    ];
    for word in words {
        assert!(ended.stderr.contains(word), "`{word}` is not in:\n{}", ended.stderr);
    }
}

#[test]
fn the_end_of_a_demo_says_how_long_both_sides_took() {
    let place = Place::new();
    let demo = place.answering_demo(&["--entities", "1000", "--latency", "5ms"]);
    let ended = demo.signalled("TERM");
    for words in
        ["asked of the site", "find_one Shot by id", "summarize Tasks by number", "since the types were complete"]
    {
        assert!(ended.stderr.contains(words), "`{words}` is not in:\n{}", ended.stderr);
    }
    assert!(ended.stdout.contains("waiting saved"), "{}", ended.stdout);
    assert!(ended.stderr.lines().filter(|line| line.contains(" ms")).all(|line| line.chars().count() <= 80));
}
