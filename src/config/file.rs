//! `config.yaml` as it is written: serde types and the shape to check it by.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::entity_config::Exclusions;
use crate::pipeline::{BLACKOUT_KEYS, BlackoutFile, DEFAULTS_KEYS, DefaultsFile};
use crate::yaml::{self, Key, Shape, optional, required};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ConfigFile {
    pub timezone: Option<String>,
    pub data_dir: Option<PathBuf>,
    pub shotgun: ShotgunFile,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretRef>,
    pub store: Option<ElasticsearchFile>,
    pub listen: Option<ListenFile>,
    pub api: Option<super::api::ApiFile>,
    pub reports: Option<ReportsFile>,
    pub generate: Option<Exclusions>,
    #[serde(default)]
    pub notifiers: BTreeMap<String, NotifierFile>,
    #[serde(default)]
    pub blackouts: BTreeMap<String, BlackoutFile>,
    pub pipelines: Option<PipelinesFile>,
}

/// `shotgun`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ShotgunFile {
    pub site: String,
    pub script: String,
    pub key: SecretRef,
    pub max_rps: Option<f64>,
    pub max_concurrency: Option<usize>,
    pub page_size: Option<usize>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub timeout: Option<Duration>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub connect_timeout: Option<Duration>,
    pub ca_certificate: Option<PathBuf>,
}

/// Where a secret comes from; exactly one of the four is set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretRef {
    /// An environment variable.
    pub env: Option<String>,
    /// A file, of which trailing line ends are dropped.
    pub file: Option<PathBuf>,
    /// A name under `secrets`, or a file in `$CREDENTIALS_DIRECTORY`.
    pub secret: Option<String>,
    /// The secret itself; for keys that are none, such as the simulated site's.
    pub value: Option<String>,
}

/// `reports`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ReportsFile {
    pub elasticsearch: Option<ElasticsearchFile>,
}

/// `store` and `reports.elasticsearch`; only the first has a `kind`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ElasticsearchFile {
    pub kind: Option<String>,
    pub url: Option<yaml_list::OneOrMany>,
    pub prefix: Option<String>,
    pub auth: Option<AuthFile>,
    pub ca_certificate: Option<PathBuf>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub timeout: Option<Duration>,
    pub shards: Option<u32>,
    pub replicas: Option<u32>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub lease: Option<Duration>,
    pub memory_mib: Option<u32>,
}

/// `auth`: `user` and `password`, or `api_key`, or `bearer`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct AuthFile {
    pub user: Option<String>,
    pub password: Option<SecretRef>,
    pub api_key: Option<SecretRef>,
    pub bearer: Option<SecretRef>,
}

/// One entry of `notifiers` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct NotifierFile {
    #[serde(rename = "type")]
    pub kind: String,
    pub url: SecretRef,
    pub method: Option<String>,
    pub body: Option<String>,
    pub from: Option<String>,
    #[serde(default)]
    pub to: Vec<String>,
    #[serde(default, deserialize_with = "yaml::optional_duration")]
    pub dedupe: Option<Duration>,
}

/// `listen`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ListenFile {
    pub ops: Option<String>,
    pub api: Option<String>,
    pub ops_hosts: Vec<String>,
    pub ops_token: Option<SecretRef>,
    pub ops_tls: Option<super::api::TlsFile>,
    pub ops_insecure: bool,
}

/// `pipelines`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct PipelinesFile {
    pub defaults: Option<DefaultsFile>,
    pub history: Option<HistoryFile>,
}

/// `pipelines.history`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct HistoryFile {
    pub keep_runs: Option<u32>,
    pub keep_days: Option<u32>,
    pub keep_failed_days: Option<u32>,
}

pub use yaml_list::OneOrMany;

mod yaml_list {
    use serde::Deserialize;
    use serde_json::Value;

    /// One text or a list of texts; [`super::SHAPE`] has seen that it is.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(from = "Value")]
    pub struct OneOrMany(pub Vec<String>);

    impl From<Value> for OneOrMany {
        fn from(value: Value) -> OneOrMany {
            let text = |item: &Value| item.as_str().map(str::to_owned);
            match &value {
                Value::Array(items) => OneOrMany(items.iter().filter_map(text).collect()),
                other => OneOrMany(text(other).into_iter().collect()),
            }
        }
    }
}

/// The keys of an entry of `notifiers`.
const NOTIFIER_KEYS: &[Key] = &[
    required("type", Shape::Choice(&["slack", "webhook", "email"])),
    required("url", SECRET),
    optional("method", Shape::Choice(&["POST", "PUT", "PATCH"])),
    optional("body", Shape::Text),
    optional("from", Shape::Text),
    optional("to", Shape::List(&Shape::Text)),
    optional("dedupe", Shape::DurationBetween(Duration::from_secs(1), Duration::from_secs(31 * 86_400))),
];

const SECRET: Shape = Shape::Object(&[
    optional("env", Shape::Text),
    optional("file", Shape::Text),
    optional("secret", Shape::Text),
    optional("value", Shape::Secret),
]);

const AUTH: Shape = Shape::Object(&[
    optional("user", Shape::Text),
    optional("password", SECRET),
    optional("api_key", SECRET),
    optional("bearer", SECRET),
]);

const URL: Key = optional("url", Shape::OneOrMany(&Shape::Text));
const PREFIX: Key = optional("prefix", Shape::Text);
const CERTIFICATE: Key = optional("ca_certificate", Shape::Text);
const TIMEOUT: Key = optional("timeout", REQUEST_TIMEOUT);
const REQUEST_TIMEOUT: Shape = Shape::DurationBetween(Duration::from_millis(100), Duration::from_secs(3600));
const SHARDS: Key = optional("shards", Shape::Integer(1, 1024));
const REPLICAS: Key = optional("replicas", Shape::Integer(0, 20));

/// What the file may contain.
pub const SHAPE: Shape = Shape::Object(&[
    optional("timezone", Shape::Text),
    optional("data_dir", Shape::Text),
    required(
        "shotgun",
        Shape::Object(&[
            required("site", Shape::Text),
            required("script", Shape::Text),
            required("key", SECRET),
            optional("max_rps", Shape::NumberBetween(0.01, 10_000.0)),
            optional("max_concurrency", Shape::Integer(1, 64)),
            optional("page_size", Shape::Integer(1, 500)),
            TIMEOUT,
            optional("connect_timeout", REQUEST_TIMEOUT),
            CERTIFICATE,
        ]),
    ),
    optional("secrets", Shape::Map(&SECRET)),
    optional(
        "store",
        Shape::Object(&[
            required("kind", Shape::Choice(&["embedded", "elasticsearch"])),
            URL,
            PREFIX,
            optional("auth", AUTH),
            CERTIFICATE,
            TIMEOUT,
            SHARDS,
            REPLICAS,
            optional("lease", Shape::DurationBetween(Duration::from_secs(1), Duration::from_secs(600))),
            optional("memory_mib", Shape::Integer(0, 1 << 20)),
        ]),
    ),
    optional(
        "listen",
        Shape::Object(&[
            optional("ops", Shape::Text),
            optional("api", Shape::Text),
            optional("ops_hosts", Shape::List(&Shape::Text)),
            optional("ops_token", SECRET),
            optional("ops_tls", Shape::Object(&[required("certificate", Shape::Text), required("key", Shape::Text)])),
            optional("ops_insecure", Shape::Bool),
        ]),
    ),
    optional("api", super::api::SHAPE),
    optional(
        "reports",
        Shape::Object(&[optional(
            "elasticsearch",
            Shape::Object(&[URL, PREFIX, optional("auth", AUTH), CERTIFICATE, TIMEOUT, SHARDS, REPLICAS]),
        )]),
    ),
    optional("notifiers", Shape::Map(&Shape::Object(NOTIFIER_KEYS))),
    optional("blackouts", Shape::Map(&Shape::Object(BLACKOUT_KEYS))),
    optional(
        "generate",
        Shape::Object(&[
            optional("exclude_types", Shape::List(&Shape::Text)),
            optional("exclude_fields", Shape::List(&Shape::Text)),
            optional("exclude_data_types", Shape::List(&Shape::Text)),
        ]),
    ),
    optional(
        "pipelines",
        Shape::Object(&[
            optional("defaults", Shape::Object(DEFAULTS_KEYS)),
            optional(
                "history",
                Shape::Object(&[
                    optional("keep_runs", Shape::Integer(1, 1_000_000)),
                    optional("keep_days", Shape::Integer(1, 36_500)),
                    optional("keep_failed_days", Shape::Integer(1, 36_500)),
                ]),
            ),
        ]),
    ),
]);
