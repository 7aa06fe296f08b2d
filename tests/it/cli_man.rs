//! The manual: every command that `--help` names has a page, which names its options.

use std::collections::BTreeSet;

use crate::program::Place;

/// The commands below one, as its help lists them, and its options.
fn listed(place: &Place, path: &[String]) -> (Vec<String>, Vec<String>) {
    let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = place.run(&args).expect_code(0).stdout;
    let section = |title: &str| {
        let lines = help.lines().skip_while(move |line| *line != title).skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = section("Commands:");
    let named = commands.iter().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let options = section("Options:");
    let long = options.iter().filter_map(|line| {
        let option = line.trim_start().split([' ', '=', '[']).find(|word| word.starts_with("--"))?;
        line.trim_start().starts_with('-').then(|| option.trim_end_matches([',', '.']).to_owned())
    });
    (names.map(str::to_owned).collect(), long.collect())
}

#[test]
fn every_command_has_a_page_that_names_its_options() {
    let place = Place::new();
    let directory = place.path("pages/man1");
    let written = directory.display().to_string();
    place.run(&["man", &written]).expect_code(0).says(&["sgcache.1"]);
    let mut expected = BTreeSet::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let (commands, options) = listed(&place, &path);
        let name = ["sgcache"].into_iter().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let page =
            std::fs::read_to_string(directory.join(format!("{name}.1"))).unwrap_or_else(|_| panic!("no {name}.1"));
        let page = page.replace("\\-", "-");
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
        for option in options {
            assert!(page.contains(&option), "{name}.1 does not name {option}");
        }
        expected.insert(format!("{name}.1"));
        waiting.extend(commands.into_iter().map(|command| path.iter().cloned().chain([command]).collect()));
    }
    assert!(expected.len() > 40, "{} commands", expected.len());
    let pages = std::fs::read_dir(&directory).expect("the pages").map(|page| page.expect("a page").file_name());
    let pages: BTreeSet<String> = pages.map(|name| name.to_string_lossy().into_owned()).collect();
    // Commands that help does not list have no page.
    assert_eq!(pages, expected);
    let printed = place.run(&["man"]).expect_code(0).stdout;
    assert_eq!(printed, std::fs::read_to_string(directory.join("sgcache.1")).expect("the page"));
    std::fs::write(place.path("file"), "").expect("a file");
    let below_a_file = place.path("file/pages").display().to_string();
    place.run(&["man", &below_a_file]).expect_code(2).says(&["file/pages"]);
}
