//! Tests of reading, rendering and pointing into YAML files.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn parse(text: &str) -> Document {
    Document::yaml("demo.yaml", text.as_bytes()).expect("valid YAML")
}

fn refused(text: &str) -> String {
    let problems = Document::yaml("demo.yaml", text.as_bytes()).expect_err("invalid YAML");
    problems.to_string()
}

fn templates() -> Templates {
    let environment = [("SGCACHE_SHOW", "SPIDER"), ("HOME", "/root")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Templates::new(&BTreeMap::from(environment))
}

fn context() -> serde_json::Value {
    json!({
        "params": { "limit": 5, "types": ["Shot", "Task"], "on": true, "none": null },
        "site": { "name": "studio" },
    })
}

fn rendered(text: &str) -> Result<serde_json::Value, String> {
    templates().render_text(text, &context()).map_err(|error| match (&error.range, &error.help) {
        (Some(range), Some(help)) => format!("{error} at `{}`; {help}", &text[range.clone()]),
        (Some(range), None) => format!("{error} at `{}`", &text[range.clone()]),
        (None, _) => error.to_string(),
    })
}

#[test]
fn a_sole_expression_keeps_its_type() {
    assert_eq!(rendered("${{ params.limit }}"), Ok(json!(5)));
    assert_eq!(rendered("${{ params.limit * 2 }}"), Ok(json!(10)));
    assert_eq!(rendered("${{ params.types }}"), Ok(json!(["Shot", "Task"])));
    assert_eq!(rendered("${{ params.on }}"), Ok(json!(true)));
    assert_eq!(rendered("${{ {'a': {'b': 1}} }}"), Ok(json!({"a": {"b": 1}})));
}

#[test]
fn an_expression_inside_text_becomes_text() {
    assert_eq!(rendered("on ${{ site.name }}!"), Ok(json!("on studio!")));
    assert_eq!(rendered("${{ params.limit }}0"), Ok(json!("50")));
    assert_eq!(rendered("${{ params.on }} "), Ok(json!("true ")));
    assert_eq!(rendered("plain {{ text }}"), Ok(json!("plain {{ text }}")));
}

#[test]
fn an_undefined_name_is_found_with_its_place_and_the_nearest_one() {
    assert_eq!(
        rendered("${{ params.lmit }}"),
        Err("`params.lmit` is not defined at `params.lmit`; did you mean `params.limit`?".into())
    );
    // Neither a default nor a branch that is not taken hides a typo.
    assert!(rendered("${{ params.lmit|default(5) }}").is_err());
    assert!(rendered("${{ 1 if params.on else parms.limit }}").is_err());
}

#[test]
fn broken_and_endless_expressions_are_refused() {
    assert_eq!(rendered("a ${{ params.limit"), Err("`${{` has no closing `}}` at `${{`".into()));
    assert!(rendered("${{ params.limit + }}").is_err());
    assert!(rendered("${{ params.limit|nosuch }}").is_err());
    assert!(rendered("x${{ params.none }}").is_err());
    let long = rendered("${{ range(100000)|map('string')|join }}");
    assert!(long.is_err(), "{long:?}");
}

#[test]
fn moments_are_written_as_the_site_wants_them() {
    let context = serde_json::json!({"run": {"started_at": "2026-11-24T03:00:00.5+01:00"}, "n": 2, "text": "soon"});
    let render = |text: &str| templates().render_text(text, &context).map_err(|error| error.to_string());
    assert_eq!(render("${{ run.started_at | isoformat }}"), Ok("2026-11-24T02:00:00Z".into()));
    assert_eq!(render("${{ 0 | isoformat }}"), Ok("1970-01-01T00:00:00Z".into()));
    assert_eq!(render("${{ n | days_ago }}"), Ok("2026-11-22T02:00:00Z".into()));
    assert_eq!(render("${{ (0.5 | days_ago)[:10] }}"), Ok("2026-11-23".into()));
    for wrong in ["text | isoformat", "(-1) | days_ago", "36501 | days_ago", "'2' | days_ago"] {
        let error = render(&format!("${{{{ {wrong} }}}}")).expect_err(wrong);
        assert!(error.contains("needs a") && !error.contains("soon"), "{wrong}: {error}");
    }
    let error = templates().render_text("${{ 7 | days_ago }}", &serde_json::json!({})).expect_err("no run");
    assert!(error.to_string().contains("counts from the start of a run"), "{error}");
}

#[test]
fn only_public_environment_variables_can_be_read() {
    assert_eq!(rendered("${{ env('SGCACHE_SHOW') }}"), Ok(json!("SPIDER")));
    assert_eq!(rendered("${{ env('SGCACHE_NONE', '') }}"), Ok(json!("")));
    let refused = rendered("${{ env('HOME') }}").expect_err("HOME is not public");
    assert!(refused.contains("start with SGCACHE_"), "{refused}");
}

#[test]
fn places_are_those_of_the_text() {
    let document = parse("steps:\n  - id: a\n    with: { limit: \"x\" }\nname: 'ü b'\n");
    assert_eq!(document.place("/steps/0/id").to_string(), "demo.yaml:2:9");
    assert_eq!(document.key_place("/steps/0/id").to_string(), "demo.yaml:2:5");
    assert_eq!(document.place("/steps/0/with/limit").to_string(), "demo.yaml:3:20");
    assert_eq!(document.within("/name", 3..4, "SG0000", "").column, 10);
    // What has no place of its own is shown at what is around it.
    assert_eq!(document.place("/steps/0/with/page").to_string(), "demo.yaml:3:11");
}

#[test]
fn json_files_have_places_too() {
    let text = "{\n  \"fields\": {\n    \"codee\": {}\n  }\n}\n";
    let document = Document::json("Shot.json", text.as_bytes()).expect("valid JSON");
    assert_eq!(document.key_place("/fields/codee").to_string(), "Shot.json:3:5");
    let broken = Document::json("Shot.json", b"{\n  \"a\": 1,\n}").expect_err("a comma too many");
    assert_eq!(broken.to_string(), "Shot.json:3:1: error[SG0102]: trailing comma");
}

#[test]
fn merge_keys_are_applied_and_duplicate_keys_refused() {
    let document = parse("a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\n");
    assert_eq!(document.value()["b"], json!({ "x": 1, "y": 3 }));
    let twice = "the key `a` stands twice in one mapping";
    for (text, place, first) in [
        ("a: 1\na: 2\n", "2:1", 1),
        ("b:\n  - a: 1\n    c: 2\n    a: 3\n", "4:5", 2),
        ("b: { 'a': 1, ca: 3, \"a\": 2 }\n", "1:22", 1),
        ("ba: { a: 1 }\nc:\n  a: 1\n  b: {}\n  a: 2\n", "5:3", 3),
    ] {
        let expected =
            format!("{place}: error[SG0102]: {twice} (the first one is on line {first}: remove one of them)");
        assert!(refused(text).contains(&expected), "{text}: {}", refused(text));
    }
}

#[test]
fn syntax_errors_name_the_place_and_the_classic_mistake() {
    for (text, help) in [
        ("a:\n\t- b\n", "spaces, never with tabs"),
        ("schedule:\n  cron: * * * * *\n", "put quotes around it"),
        ("with: [${{ params.x }}]\n", "needs quotes"),
        ("limit: {{ params.x }}\n", "with a dollar sign"),
        ("a: 1\n---\nb: 2\n", "one file is one document"),
    ] {
        let message = refused(text);
        assert!(message.contains(help), "{text:?} gave {message}");
    }
}

#[test]
fn oversized_deep_and_binary_files_are_refused() {
    let large = format!("a: \"{}\"\n", "x".repeat(MAX_BYTES));
    assert!(refused(&large).contains("at most 262144"));
    let deep = format!("a: {}{}\n", "[".repeat(40), "]".repeat(40));
    assert!(refused(&deep).contains("nested deeper"));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    assert!(refused(bomb).contains("SG0102"));
    let binary = Document::yaml("demo.yaml", b"a: \xff").expect_err("not UTF-8");
    assert!(binary.to_string().contains("not UTF-8"));
}

const SHAPE: Shape = Shape::Object(&[
    required("name", Shape::Text),
    optional("timeout", Shape::Duration),
    optional("limit", Shape::Integer(1, 500)),
    optional("enabled", Shape::Bool),
    optional("mode", Shape::Choice(&["check", "write"])),
    optional("cron", Shape::OneOrMany(&Shape::Text)),
]);

fn objections(text: &str) -> Vec<String> {
    let document = parse(text);
    let mut problems = Problems::new();
    SHAPE.check(&document, "", document.value(), &mut problems);
    problems.sorted().iter().map(|d| d.to_string()).collect()
}

#[test]
fn every_mistake_of_a_file_is_found_in_one_pass() {
    assert_eq!(objections("name: a\ntimeout: 1h 30m\ncron: [a, b]\n"), [""; 0]);
    let all = objections("nme: a\ntimeout: 5\nlimit: 0\nenabled: yes\nmode: chek\ncron: [1]\ntimeuot: 5s\n");
    assert_eq!(
        all,
        [
            "demo.yaml:1:1: error[SG0201]: unknown key `nme` (did you mean `name`?)",
            "demo.yaml:1:1: error[SG0203]: the key `name` is missing",
            "demo.yaml:2:10: error[SG0202]: expected a duration, found the number 5 (a duration needs a unit: `5s`)",
            "demo.yaml:3:8: error[SG0202]: 0 is less than the least allowed, 1",
            "demo.yaml:4:10: error[SG0202]: expected true or false, found the text `yes` (write `true` or `false`)",
            "demo.yaml:5:7: error[SG0202]: `chek` is not one of: check, write (did you mean `check`?)",
            "demo.yaml:6:8: error[SG0202]: expected text, found the number 1",
            "demo.yaml:7:1: error[SG0201]: unknown key `timeuot` (did you mean `timeout`?)",
        ]
    );
}

#[test]
fn a_problem_is_drawn_with_its_line() {
    let document = parse("name: a\ntimeuot: 5s\n");
    let mut problems = Problems::new();
    SHAPE.check(&document, "", document.value(), &mut problems);
    insta::assert_snapshot!(problems.render(false), @r"
    error[SG0201]: unknown key `timeuot`
     --> demo.yaml:2:1
      |
    2 | timeuot: 5s
      | ^^^^^^^ unknown key
      |
      = help: did you mean `timeout`?
    ");
}

#[test]
fn durations_need_a_unit_and_no_calendar() {
    assert_eq!(parse_duration("1h 30m").map(|d| d.as_secs()), Ok(5400));
    assert_eq!(parse_duration("7d").map(|d| d.as_secs()), Ok(604_800));
    for bad in ["5", "1M", "2 months", "1y", "soon", ""] {
        assert!(parse_duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_decoding_error_has_a_place() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[expect(dead_code, reason = "only its type matters here")]
        ports: Vec<u16>,
    }
    let document = parse("ports:\n  - 80\n  - 70000\n");
    let mut problems = Problems::new();
    let decoded: Option<Settings> = document.decode("", document.value(), &mut problems);
    assert!(decoded.is_none());
    assert!(problems.to_string().starts_with("demo.yaml:3:5: error[SG0202]"), "{problems}");
}
