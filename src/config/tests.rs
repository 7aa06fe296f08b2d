//! Tests of `config.yaml`: what is read, and what is refused with its place.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::entity_config::Exclusions;
use crate::store::embedded::DEFAULT_MEMORY;
use crate::yaml::{Document, Problems};

const MINIMAL: &str = "shotgun: { site: https://a.example, script: s, key: { env: KEY } }\n";

fn environment() -> BTreeMap<String, String> {
    BTreeMap::from([("KEY".to_owned(), "hush".to_owned())])
}

fn load(text: &str) -> Result<(Config, Problems), Problems> {
    let document = Document::yaml("config.yaml", text.as_bytes())?;
    Config::resolve(&document, Path::new("etc/config.yaml"), &environment())
}

fn problems(text: &str) -> Vec<String> {
    match load(text) {
        Ok((_, warnings)) => warnings.sorted().iter().map(|d| d.to_string()).collect(),
        Err(problems) => problems.sorted().iter().map(|d| d.to_string()).collect(),
    }
}

#[test]
fn everything_but_the_site_has_a_safe_default() {
    let (config, warnings) = load(MINIMAL).expect("a valid file");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config.timezone, chrono_tz::UTC);
    assert_eq!(config.data_dir, Path::new("etc/data"));
    assert_eq!(config.store, StoreSettings::Embedded { memory: DEFAULT_MEMORY });
    assert_eq!(config.shotgun.max_rps, 8.0);
    assert_eq!(config.shotgun.key.expose(), "hush");
    let client = config.shotgun.client();
    assert_eq!((client.site.as_str(), client.max_rps), ("https://a.example", 8.0));
    assert!(!format!("{client:?}").contains("hush"));
    assert!(config.listen.ops.ip().is_loopback() && config.listen.api.ip().is_loopback());
    assert_eq!(config.entity_config_dir(), Path::new("etc/entityConfig"));
    assert_eq!(config.pipelines.defaults.retry.attempts, 3);
}

#[test]
fn the_shipped_file_fits_the_simulated_site_and_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml");
    let (config, warnings) = Config::load(&path, &BTreeMap::new()).expect("the shipped file");
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config.shotgun.site, "http://127.0.0.1:8190");
    assert_eq!(config.shotgun.script, "sgcache");
    assert_eq!(config.shotgun.key.expose(), "sgcache-sim");
    assert_eq!(config.data_dir, config.directory.join("data"));
    assert_eq!(config.store, StoreSettings::Embedded { memory: DEFAULT_MEMORY });
    assert_eq!(config.listen.ops.to_string(), "127.0.0.1:9187");
    assert_eq!(config.listen.api.to_string(), "127.0.0.1:8010");
    assert_eq!(config.generate, Exclusions::default());
    assert_eq!(config.pipelines, PipelineSettings::default());
}

#[test]
fn an_elasticsearch_store_takes_nodes_prefix_auth_and_certificate() {
    let text = format!(
        "{MINIMAL}secrets: {{ es: {{ value: pw }} }}\nstore:\n  kind: elasticsearch\n  \
         url: [https://a:9200/, https://b:9200]\n  prefix: show-x\n  \
         auth: {{ user: sgcache, password: {{ secret: es }} }}\n\
         reports: {{ elasticsearch: {{ url: http://c:9200 }} }}\n"
    );
    let (config, _) = load(&text).expect("a valid file");
    let StoreSettings::Elasticsearch(cluster) = config.store else {
        panic!("not an Elasticsearch store");
    };
    assert_eq!(cluster.urls, ["https://a:9200", "https://b:9200"]);
    assert_eq!(cluster.prefix, "show-x");
    let auth = Auth::Basic { user: "sgcache".into(), password: crate::elastic::Secret::new("pw") };
    assert_eq!(cluster.auth, auth);
    let transport = cluster.transport();
    assert_eq!(transport.urls, cluster.urls);
    let built_in = crate::elastic::Timeouts::default();
    assert_eq!(format!("{:?}", transport.timeouts), format!("{built_in:?}"));
    let reports = config.reports.elasticsearch.expect("a cluster for reports");
    assert_eq!((reports.urls.len(), reports.prefix.as_str()), (1, "sgcache"));
}

#[test]
fn all_problems_of_a_file_come_in_one_pass_with_their_places() {
    let text = "timezon: UTC\ntimezone: Europe/Pariss\nshotgun:\n  site: studio.example\n  \
                script: 5\n  key: { env: NOT_SET }\n  max_rsp: 3\nstore:\n  kind: elastik\n\
                listen:\n  ops: nowhere\n";
    assert_eq!(
        problems(text),
        [
            "config.yaml:1:1: error[SG0201]: unknown key `timezon` (did you mean `timezone`?)",
            "config.yaml:2:11: error[SG0402]: there is no time zone `Europe/Pariss` (did you mean `Europe/Paris`?)",
            "config.yaml:5:11: error[SG0202]: expected text, found the number 5",
            "config.yaml:7:3: error[SG0201]: unknown key `max_rsp` (did you mean `max_rps`?)",
            "config.yaml:9:9: error[SG0202]: `elastik` is not one of: embedded, elasticsearch (did you mean `elasticsearch`?)",
            "config.yaml:11:8: error[SG0602]: `nowhere` is not an address to listen on (write an IP address and a port: `127.0.0.1:9187`)",
        ]
    );
    let text = "timezone: Mars\nshotgun: { site: a.example, script: s, key: { env: NOT_SET }, max_rps: 0 }\n\
                store: { kind: elasticsearch, prefix: Big, url: [http://a:1, 'ftp://b'] }\n\
                reports: { elasticsearch: { auth: { user: x } } }\n";
    assert_eq!(
        problems(text),
        [
            "config.yaml:1:11: error[SG0402]: there is no time zone `Mars`",
            "config.yaml:2:18: error[SG0602]: `a.example` is not a URL: relative URL without a base (write `https://a.example`)",
            "config.yaml:2:40: error[SG0601]: the environment variable `NOT_SET` is not set (export NOT_SET=...)",
            "config.yaml:2:72: error[SG0202]: 0 is less than the least allowed, 0.01",
            "config.yaml:3:39: error[SG0602]: `Big` cannot start index names (use lower case letters, digits, `-` and `_`, a letter first)",
            "config.yaml:3:62: error[SG0602]: `ftp://b` is not an http or https URL",
            "config.yaml:4:12: error[SG0203]: the key `url` is missing (for example `url: http://127.0.0.1:9200`, or a list of nodes)",
            "config.yaml:4:29: error[SG0602]: is not one way to authenticate (give `user` and `password`, or `api_key`, or `bearer`)",
        ]
    );
}

#[test]
fn no_duration_or_rate_is_beyond_what_time_can_hold() {
    for (text, reason) in [
        ("blackouts: { a: { cron: '0 1 * * *', duration: 99999999999d } }", "longer than 3650d"),
        ("blackouts: { a: { cron: '0 1 * * *', duration: 40d } }", "40d is more than the most allowed, 31d"),
        ("blackouts: { a: { cron: [], duration: 1h } }", "the list is empty"),
        ("pipelines: { defaults: { timeout: 99999999999d } }", "longer than 3650d"),
        ("pipelines: { defaults: { catch_up_window: 999d } }", "999d is more than the most allowed, 366d"),
        ("reports: { elasticsearch: { url: 'http://a:1', timeout: 99999999999d } }", "longer than 3650d"),
        ("api: { max_age: 99999999999d }", "longer than 3650d"),
        ("api: { verify_every: 9h }", "it is at most 8h"),
    ] {
        let said = problems(&format!("{MINIMAL}{text}\n"));
        assert!(said[0].starts_with("config.yaml:2:") && said[0].contains(reason), "{text}: {said:?}");
    }
    for rps in ["0", "-1", "1.0e-300", "1.0e300"] {
        let said = problems(&MINIMAL.replace("script: s", &format!("script: s, max_rps: {rps}")));
        assert!(said[0].contains("allowed"), "{rps}: {said:?}");
    }
}

#[test]
fn unreadable_and_malformed_files_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("config.yaml");
    let problems = Config::load(&missing, &environment()).expect_err("no such file");
    assert!(problems.to_string().contains("there is no such file"), "{problems}");
    let unreadable = Config::load(directory.path(), &environment()).expect_err("a directory");
    assert!(unreadable.to_string().contains("cannot be read"), "{unreadable}");
    let malformed = super::tests::problems("shotgun:\n  site: [\n");
    assert!(malformed[0].starts_with("config.yaml:"), "{malformed:?}");
    assert_eq!(super::tests::problems("").len(), 1);
}

#[test]
fn secrets_come_from_files_names_and_credentials_and_never_show() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("key"), "from-file\n").expect("written");
    let mut environment = environment();
    let credentials = directory.path().display().to_string();
    environment.insert("CREDENTIALS_DIRECTORY".to_owned(), credentials);
    for (reference, expected) in [
        ("{ file: key }", "from-file"),
        ("{ secret: key }", "from-file"),
        ("{ secret: named }", "hush"),
        ("{ value: plain }", "plain"),
    ] {
        let text = format!(
            "secrets: {{ named: {{ env: KEY }} }}\n\
             shotgun: {{ site: http://127.0.0.1:1, script: s, key: {reference} }}\n"
        );
        let path = directory.path().join("config.yaml");
        std::fs::write(&path, text).expect("written");
        let (config, _) = Config::load(&path, &environment).expect("a valid file");
        assert_eq!(config.shotgun.key.expose(), expected);
        assert!(!format!("{config:?}").contains(expected));
    }
    let unknown =
        problems("shotgun: { site: http://a, script: s, key: { secret: nmaed } }\nsecrets: { named: { env: KEY } }\n");
    assert_eq!(
        unknown,
        ["config.yaml:1:39: error[SG0601]: there is no secret `nmaed` under `secrets` (did you mean `named`?)"]
    );
    let both = problems("shotgun: { site: http://a, script: s, key: { env: KEY, value: x } }\n");
    assert!(both[0].contains("exactly one of"), "{both:?}");
}

#[test]
fn the_key_of_a_real_site_in_the_file_is_a_warning() {
    let text = "shotgun: { site: https://a.example, script: s, key: { value: abc } }\n";
    let all = problems(text);
    assert!(all[0].contains("warning[SG0801]") && !all[0].contains("abc"), "{all:?}");
}

#[test]
fn the_file_is_chosen_by_option_then_environment_then_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let inside = directory.path().join("config.yaml");
    let chosen = BTreeMap::from([("SGCACHE_CONFIG".to_owned(), directory.path().display().to_string())]);
    assert_eq!(locate(None, &BTreeMap::new()), Path::new("config.yaml"));
    assert_eq!(locate(None, &chosen), inside);
    assert_eq!(locate(Some(Path::new("x/my.yaml")), &chosen), Path::new("x/my.yaml"));
    assert_eq!(locate(Some(directory.path()), &BTreeMap::new()), inside);
}

#[test]
fn a_misspelt_data_type_in_the_exclusions_is_an_error() {
    let all = problems(&format!("{MINIMAL}generate: {{ exclude_data_types: [url, serialisable] }}\n"));
    assert_eq!(
        all,
        ["config.yaml:2:39: error[SG0604]: there is no field data type `serialisable` (did you mean `serializable`?)"]
    );
    let (config, _) = load(&format!("{MINIMAL}generate: {{ exclude_types: [Page] }}\n")).expect("valid");
    assert_eq!(config.generate.exclude_types, ["Page"]);
    assert_eq!(config.generate.exclude_fields, Exclusions::default().exclude_fields);
}

#[test]
fn a_site_is_named_by_its_studio() {
    let (config, _) = load(&MINIMAL.replace("a.example", "spi.shotgrid.autodesk.com")).expect("valid");
    assert_eq!(config.shotgun.name(), "spi");
    let (config, _) = load(&MINIMAL.replace("a.example", "127.0.0.1:8190/")).expect("valid");
    assert_eq!(config.shotgun.name(), "127.0.0.1");
}

#[test]
fn the_memory_of_an_embedded_store_can_be_set_and_has_no_meaning_elsewhere() {
    let of = |store: &str| load(&format!("{MINIMAL}store: {{ {store} }}\n"));
    let (config, _) = of("kind: embedded, memory_mib: 3").expect("a configuration");
    assert_eq!(config.store, StoreSettings::Embedded { memory: 3 << 20 });
    let refused = of("kind: elasticsearch, url: 'http://127.0.0.1:9200', memory_mib: 3").expect_err("a refusal");
    assert!(refused.to_string().contains("an Elasticsearch store has no `memory_mib`"), "{refused}");
}

#[test]
fn an_old_name_of_a_key_is_an_error_that_names_the_new_one() {
    let old = [
        ("on_marked: wait", "on_dirty"),
        ("assume: [week]", "semantics"),
        ("absorb: 30s", "upstream_retry_timeout"),
        // Also without a value, which otherwise counts as left out.
        ("absorb:", "upstream_retry_timeout"),
    ];
    for (line, new) in old {
        let found = problems(&format!("{MINIMAL}api:\n  {line}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("`{new}`")), "{found:?}");
    }
    let typo = problems(&format!("{MINIMAL}api: {{ assum: [week] }}\n"));
    assert!(!typo[0].contains("`assume`"), "an old name is not suggested: {typo:?}");
}

#[test]
fn a_listener_beyond_this_machine_needs_encryption_or_a_word_of_consent() {
    let with = |rest: &str| problems(&format!("{MINIMAL}{rest}"));
    let tls = "{ certificate: c.pem, key: k.pem }";
    for (listener, refused, code) in [
        ("api", "listen: { api: '0.0.0.0:8010' }\n".to_owned(), "SG0607"),
        ("ops", "listen: { ops: '0.0.0.0:9187' }\n".to_owned(), "SG0615"),
        ("ops", format!("listen: {{ ops: '0.0.0.0:9187', ops_tls: {tls} }}\n"), "SG0615"),
        ("ops", "listen: { ops: '0.0.0.0:9187', ops_token: { env: KEY } }\n".to_owned(), "SG0615"),
    ] {
        let said = with(&refused).join("\n");
        assert!(said.contains(code) && said.contains("can be reached from other machines"), "{listener}: {said}");
    }
    for allowed in [
        format!("listen: {{ api: '0.0.0.0:8010' }}\napi: {{ tls: {tls} }}\n"),
        "listen: { api: '0.0.0.0:8010' }\napi: { insecure: true }\n".to_owned(),
        format!("listen: {{ ops: '0.0.0.0:9187', ops_tls: {tls}, ops_token: {{ env: KEY }} }}\n"),
        "listen: { ops: '0.0.0.0:9187', ops_insecure: true }\n".to_owned(),
    ] {
        assert_eq!(with(&allowed), [""; 0], "{allowed}");
    }
}

#[test]
fn the_body_of_a_webhook_is_checked_when_it_is_loaded() {
    let with = |body: &str| {
        let notifier = format!("board: {{ type: webhook, url: {{ value: 'https://b.example' }}, body: '{body}' }}");
        problems(&format!("{MINIMAL}notifiers:\n  {notifier}\n"))
    };
    let good = "${{ message|tojson }} ${{ run.status }} ${{ pipeline.name }} ${{ site.name }} ${{ steps|tojson }}";
    assert_eq!(with(good), [""; 0]);
    let found = with("${{ messag }}");
    assert!(found.len() == 1 && found[0].contains("SG0301") && found[0].contains("message"), "{found:?}");
    let found = with("{% if message %}");
    assert!(found.len() == 1 && found[0].contains("SG0306"), "{found:?}");
    let found = with("${{ message | tojsn }}");
    assert!(found.len() == 1 && found[0].contains("SG0302"), "{found:?}");
}
