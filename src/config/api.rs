//! `api` of `config.yaml`: as it is written, and resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::entity::EntityType;
use crate::proxy::{CallerName, CallerRule, ConnectionBounds, Limits, Mode, OnDirty, Semantics, Settings, Tls};
use crate::yaml::{self, Document, Problems, Shape, optional, renamed, required};

/// The longest `api.verify_every`.
const LONGEST_VERIFY_EVERY: Duration = Duration::from_secs(8 * 3600);

/// `api`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct ApiFile {
    pub mode: Option<String>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub max_age: Option<Duration>,
    pub on_dirty: Option<String>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub wait: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub stale_if_error: Option<Duration>,
    pub stale_if_error_of: BTreeMap<String, Value>,
    pub semantics: Option<Vec<String>>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub patience: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub upstream_retry_timeout: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub verify_every: Option<Duration>,
    pub max_upstream: Option<usize>,
    pub max_uploads: Option<usize>,
    pub max_memory_mib: Option<usize>,
    pub max_connections: Option<usize>,
    pub max_peer_connections: Option<usize>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub head_timeout: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub body_timeout: Option<Duration>,
    #[serde(deserialize_with = "yaml::optional_duration")]
    pub idle_timeout: Option<Duration>,
    pub max_request_mib: Option<usize>,
    pub shadow_share: Option<f64>,
    pub insecure: bool,
    pub tls: Option<TlsFile>,
    pub callers: Vec<CallerFile>,
}

/// `api.tls`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct TlsFile {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// One of `api.callers`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented in the shipped config.yaml")]
pub struct CallerFile {
    pub script: Option<String>,
    pub login: Option<String>,
    pub types: Option<Vec<String>>,
    pub fields: BTreeMap<String, Vec<String>>,
    pub projects: Option<Vec<i64>>,
}

/// What `api` may contain.
pub const SHAPE: Shape = Shape::Object(&[
    optional("mode", Shape::Choice(Mode::NAMES)),
    optional("max_age", Shape::Duration),
    optional("on_dirty", Shape::Choice(OnDirty::NAMES)),
    optional("wait", Shape::Duration),
    optional("stale_if_error", Shape::Duration),
    optional("stale_if_error_of", Shape::Map(&Shape::Duration)),
    optional("semantics", Shape::List(&Shape::Choice(Semantics::NAMES))),
    optional("patience", Shape::Duration),
    optional("upstream_retry_timeout", Shape::Duration),
    renamed("on_marked", "on_dirty"),
    renamed("assume", "semantics"),
    renamed("absorb", "upstream_retry_timeout"),
    optional("verify_every", Shape::Duration),
    optional("max_upstream", Shape::Integer(1, 4096)),
    optional("max_uploads", Shape::Integer(1, 4096)),
    optional("max_memory_mib", Shape::Integer(64, 1 << 20)),
    optional("max_connections", Shape::Integer(1, 65_536)),
    optional("max_peer_connections", Shape::Integer(1, 65_536)),
    optional("head_timeout", Shape::Duration),
    optional("body_timeout", Shape::Duration),
    optional("idle_timeout", Shape::Duration),
    optional("max_request_mib", Shape::Integer(1, 1024)),
    optional("shadow_share", Shape::Number),
    optional("insecure", Shape::Bool),
    optional("tls", Shape::Object(&[required("certificate", Shape::Text), required("key", Shape::Text)])),
    optional(
        "callers",
        Shape::List(&Shape::Object(&[
            optional("script", Shape::Text),
            optional("login", Shape::Text),
            optional("types", Shape::List(&Shape::Text)),
            optional("fields", Shape::Map(&Shape::List(&Shape::Text))),
            optional("projects", Shape::List(&Shape::Integer(1, i64::MAX))),
        ])),
    ),
]);

/// Resolves `api`; `relative` makes paths of files, `listen` is `listen.api`.
pub(super) fn resolve(
    file: ApiFile,
    document: &Document,
    relative: impl Fn(PathBuf) -> PathBuf,
    listen: SocketAddr,
    problems: &mut Problems,
) -> Option<Settings> {
    let usual = Settings::default();
    let before = problems.errors();
    if !listen.ip().is_loopback() && file.tls.is_none() && !file.insecure {
        let message = format!("`{listen}` can be reached from other machines, and callers send their keys there");
        let help = "set `api.tls`, or `api.insecure: true` where something else encrypts";
        document.report(problems, document.at("/listen/api", "SG0607", message).help(help.to_owned()));
    }
    let mut callers = Vec::new();
    for (index, caller) in file.callers.into_iter().enumerate() {
        let name = match (caller.script, caller.login) {
            (Some(script), None) => CallerName::Script(script),
            (None, Some(login)) => CallerName::Login(login),
            _ => {
                let at = format!("/api/callers/{index}");
                let message = "a caller is either a `script` or a `login`";
                document.report(problems, document.at(&at, "SG0608", message.to_owned()));
                continue;
            }
        };
        let fields = caller.fields.into_iter().map(|(ty, names)| (EntityType::new(ty), names.into_iter().collect()));
        let limits = Limits {
            types: caller.types.map(|types| types.iter().map(EntityType::new).collect()),
            fields: fields.collect(),
            projects: caller.projects.map(|ids| ids.into_iter().collect()),
        };
        callers.push(CallerRule { name, limits });
    }
    let verify_every = file.verify_every.unwrap_or(usual.verify_every);
    if verify_every > LONGEST_VERIFY_EVERY {
        let message = "it is at most 8h: for so long a revoked key is answered from the cache".to_owned();
        document.report(problems, document.at("/api/verify_every", "SG0609", message));
    }
    let share = file.shadow_share.unwrap_or(usual.shadow_share);
    if !(0.0..=1.0).contains(&share) {
        let message = format!("`{share}` is no share: it lies between 0 and 1");
        document.report(problems, document.at("/api/shadow_share", "SG0609", message));
    }
    // The shape has checked every word and every duration.
    let duration = |value: &Value| value.as_str().and_then(|text| yaml::parse_duration(text).ok()).unwrap_or_default();
    let of = file.stale_if_error_of.iter().map(|(ty, value)| (EntityType::new(ty), duration(value)));
    let readings =
        |words: Vec<String>| words.iter().filter_map(|word| word.parse().ok()).collect::<BTreeSet<Semantics>>();
    let settings = Settings {
        mode: file.mode.and_then(|word| word.parse().ok()).unwrap_or_default(),
        max_age: file.max_age.unwrap_or(usual.max_age),
        on_dirty: file.on_dirty.and_then(|word| word.parse().ok()).unwrap_or_default(),
        wait: file.wait.unwrap_or(usual.wait),
        stale_if_error: file.stale_if_error.unwrap_or(usual.stale_if_error),
        stale_if_error_of: of.collect(),
        semantics: file.semantics.map_or(usual.semantics, readings),
        patience: file.patience.unwrap_or(usual.patience),
        upstream_retry_timeout: file.upstream_retry_timeout.unwrap_or(usual.upstream_retry_timeout),
        max_upstream: file.max_upstream.unwrap_or(usual.max_upstream),
        max_uploads: file.max_uploads.unwrap_or(usual.max_uploads),
        max_slot_wait: usual.max_slot_wait,
        max_reading_wait: usual.max_reading_wait,
        max_answer_silence: usual.max_answer_silence,
        max_answer_bytes: usual.max_answer_bytes,
        max_memory_bytes: file.max_memory_mib.map_or(usual.max_memory_bytes, |mib| mib << 20),
        connections: ConnectionBounds {
            max_connections: file.max_connections.unwrap_or(usual.connections.max_connections),
            max_peer_connections: file.max_peer_connections.unwrap_or(usual.connections.max_peer_connections),
            head_timeout: file.head_timeout.unwrap_or(usual.connections.head_timeout),
            body_timeout: file.body_timeout.unwrap_or(usual.connections.body_timeout),
            idle_timeout: file.idle_timeout.unwrap_or(usual.connections.idle_timeout),
        },
        max_request_bytes: file.max_request_mib.map_or(usual.max_request_bytes, |mib| mib << 20),
        shadow_share: share,
        verify_every,
        insecure: file.insecure,
        tls: file.tls.map(|tls| Tls { certificate: relative(tls.certificate), key: relative(tls.key) }),
        callers,
    };
    (problems.errors() == before).then_some(settings)
}
