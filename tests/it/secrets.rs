//! No secret reaches a diagnostic: `config.yaml` is broken at, and around, a secret in
//! every way that a person may break it, and what the program prints is searched.

use crate::program::Place;

const KEY: &str = "kEy-of-the-script-7f3a";
/// A secret that YAML takes for a number.
const NUMBER: &str = "73300012345";

/// Every way to write a secret wrongly; the diagnostics point into the file.
#[test]
fn a_configuration_with_errors_shows_no_secret() {
    for (from, to) in [
        ("key: { value: sgcache-sim }", format!("key: {{ valu: {KEY} }}")),
        ("key: { value: sgcache-sim }", format!("key: {KEY}")),
        ("key: { value: sgcache-sim }", format!("key: {{ value: {KEY}, env: NONE }}")),
        ("key: { value: sgcache-sim }", format!("key: {{ value: [{KEY}] }}")),
        ("key: { value: sgcache-sim }", format!("key: {{ value: {KEY} }}, nothing: {{")),
        ("key: { value: sgcache-sim }", format!("kye: {{ value: {KEY} }}")),
        ("key: { value: sgcache-sim }", format!("key: {{ value: {KEY} }}\n  key: {{ value: {KEY} }}")),
        ("shotgun:\n", format!("secrets: {{ a: {KEY} }}\nshotgun:\n")),
        ("site: http://", format!("site: http://sgcache:{KEY}@")),
        ("site: http://", format!("site: sgcache:{KEY}@")),
        ("key: { value: sgcache-sim }", format!("key: {{ value: {NUMBER} }}")),
        ("listen:\n", format!("notifiers: {{ a: {{ type: slak, url: {{ value: 'http://a/{KEY}' }} }} }}\nlisten:\n")),
    ] {
        let place = Place::new();
        place.edit("config.yaml", from, &to);
        for args in [&["pipelines", "validate"][..], &["job", "validateCounts"], &["find", "Shot"]] {
            let ended = place.run(args);
            assert_ne!(ended.code, Some(0), "`{to}` was accepted: {ended:?}");
            let said = ended.stdout + &ended.stderr;
            assert!(!said.contains(KEY) && !said.contains(NUMBER), "`{to}` shows the secret:\n{said}");
        }
    }
}
