//! Bad input, named: what a user reads when something is wrong. In none of these
//! cases may stored data be lost.

use std::net::TcpListener;

use crate::program::{Place, free_address};

#[track_caller]
fn check(place: &Place, args: &[&str], code: i32, words: &[&str]) {
    place.run(args).expect_code(code).says(words);
}

#[test]
fn a_missing_config_says_where_it_looked() {
    let place = Place::new();
    std::fs::remove_file(place.path("config.yaml")).expect("a file");
    check(&place, &["pipelines", "validate"], 78, &["config.yaml"]);
}

#[test]
fn every_problem_of_every_file_is_shown_in_one_pass() {
    let place = Place::new();
    place.edit("pipelines/sync.yaml", "job: sync", "job: snyc");
    place.edit("pipelines/nightly-counts.yaml", "timeout:", "timeuot:");
    std::fs::write(place.path("entityConfig/Shot.json"), "{\"feilds\": {}}").expect("a file");
    let words =
        ["snyc", "sync.yaml", "did you mean `sync`", "timeuot", "nightly-counts.yaml", "Shot.json:1:9", "feilds"];
    check(&place, &["pipelines", "validate"], 78, &words);
}

#[test]
fn a_mistake_in_config_yaml_hides_none_of_a_pipeline() {
    let place = Place::new();
    place.edit("config.yaml", "timezone: Europe/Paris", "timezone: Europe/Pariss\ntimezoen: UTC");
    place.edit("pipelines/nightly-counts.yaml", "timeout:", "timeuot:");
    let text =
        "name: mine\nsteps:\n  - { id: a, job: validateData, with: { types: [Shott], filters: [[cod, is, x]] } }\n";
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    let words = ["Europe/Pariss", "timezoen", "timeuot", "`Shott`", "did you mean `Shot`?", "3 | ", "SG0610"];
    check(&place, &["pipelines", "validate"], 78, &words);
}

#[test]
fn types_and_fields_are_checked_against_the_site_when_it_may_be_asked() {
    let place = Place::new();
    let online = ["pipelines", "validate", "--online"];
    check(&place, &online, 69, &[&place.site]);
    let _sim = place.sim(50, 0.0);
    check(&place, &online, 0, &["fine, with 5 pipelines"]);
    // An entity config may hold a field that only the site can know.
    place.edit("entityConfig/Shot.json", "\"fields\": {", "\"fields\": {\n    \"sg_ours\": {},");
    let text =
        "name: mine\nsteps:\n  - { id: a, job: validateData, with: { types: [Shot], filters: [[sg_ours, is, x]] } }\n";
    std::fs::write(place.path("pipelines/mine.yaml"), text).expect("a file");
    check(&place, &["pipelines", "validate"], 0, &["fine"]);
    check(&place, &online, 78, &["Shot.json:", "Shot has no field `sg_ours`", "mine.yaml:3:67"]);
}

#[test]
fn a_malformed_config_is_pointed_at() {
    let place = Place::new();
    place.edit("config.yaml", "timezone: Europe/Paris", "timezone: Europe/Pariss");
    check(&place, &["pipelines", "validate"], 78, &["config.yaml:", "Europe/Pariss", "Europe/Paris"]);
}

#[test]
fn malformed_filters_are_pointed_into() {
    let place = Place::new();
    check(&place, &["job", "validateData", "--filters", "[['id','is',"], 2, &["--filters", "[['id','is',", "^ here"]);
}

#[test]
fn limits_of_nothing_or_less_are_refused() {
    let place = Place::new();
    check(&place, &["job", "validateData", "--limit", "0"], 2, &["--limit"]);
    check(&place, &["find", "Shot", "--limit", "-1"], 2, &["limit"]);
}

#[test]
fn a_site_that_is_not_there_is_named_with_the_key_to_change() {
    let place = Place::new();
    check(&place, &["job", "validateCounts"], 69, &[&place.site, "refused", "shotgun.site"]);
}

#[test]
fn a_wrong_key_ends_with_77_and_is_not_printed() {
    let place = Place::new();
    let _sim = place.sim(200, 0.0);
    place.edit("config.yaml", "{ value: sgcache-sim }", "{ value: some-wrong-key }");
    check(&place, &["job", "validateCounts"], 77, &["Can't authenticate script 'sgcache'", "shotgun.key"]);
    let ended = place.run(&["job", "validateCounts"]);
    assert!(!ended.stderr.contains("some-wrong-key"), "{}", ended.stderr);
}

#[test]
fn a_page_of_html_is_not_taken_for_a_site() {
    let place = Place::new();
    let listener = TcpListener::bind(&place.site).expect("the port is free");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let page = "<html><title>Welcome</title></html>";
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}", page.len());
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    check(&place, &["job", "validateCounts"], 69, &["HTML instead of JSON", "Welcome", "shotgun.site"]);
}

#[test]
fn fields_and_types_that_the_site_lacks_are_named_with_the_nearest() {
    let place = Place::new();
    let _sim = place.sim(200, 0.0);
    std::fs::write(place.path("entityConfig/Shot.json"), "{\"fields\": {\n  \"cod\": {}\n}}").expect("a file");
    std::fs::write(place.path("entityConfig/Shott.json"), "{\"fields\": {}}").expect("a file");
    let words = [
        "Shot.json:2: Shot has no field `cod`",
        "did you mean `code`?",
        "no entity type `Shott`",
        "did you mean `Shot`?",
    ];
    check(&place, &["job", "validateCounts"], 78, &words);
}

#[test]
fn an_unknown_type_on_the_command_line_is_answered_with_the_nearest() {
    let place = Place::new();
    let _sim = place.sim(200, 0.0);
    check(
        &place,
        &["job", "validateCounts", "Shott"],
        2,
        &["`Shott` is not a configured entity type", "did you mean `Shot`?"],
    );
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let place = Place::new();
    let _sim = place.sim(200, 0.0);
    std::fs::create_dir_all(place.path("data")).expect("a directory");
    let path = place.path("data/state.sqlite");
    let connection = rusqlite::Connection::open(&path).expect("a file");
    connection.pragma_update(None, "user_version", 9999).expect("a version");
    drop(connection);
    let before = std::fs::read(&path).expect("a file");
    check(&place, &["job", "validateCounts"], 78, &["state.sqlite", "newer sgcache", "9999"]);
    assert_eq!(std::fs::read(&path).expect("a file"), before);
}

#[test]
fn an_elasticsearch_that_is_down_at_the_start_is_named() {
    let place = Place::new();
    let _sim = place.sim(200, 0.0);
    let address = free_address();
    place.edit(
        "config.yaml",
        "store:\n  kind: embedded",
        &format!("store:\n  kind: elasticsearch\n  url: http://{address}"),
    );
    check(&place, &["job", "validateCounts"], 69, &[&address]);
}

#[test]
fn a_reader_that_goes_away_early_is_no_failure_of_ours() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = place.command(&["pipelines", "list"]).stdout(writer).output().expect("the program runs");
    let said = String::from_utf8(ended.stderr).expect("text");
    assert_eq!(ended.status.code(), Some(141), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
