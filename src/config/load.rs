//! Resolves a written `config.yaml` into a [`Config`], with every problem in
//! one pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono_tz::Tz;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::api::{self, ApiFile};
use super::file::{
    AuthFile, ConfigFile, ElasticsearchFile, ListenFile, OneOrMany, PipelinesFile, ReportsFile, SHAPE, SecretRef,
    ShotgunFile,
};
use super::redaction;
use super::{
    Auth, Config, ElasticsearchSettings, HistorySettings, ListenSettings, PipelineSettings, ReportSettings, Secret,
    ShotgunSettings, StoreSettings,
};
use crate::elastic;
use crate::entity::DataType;
use crate::pipeline::{Blackout, Defaults};
use crate::server::{OpsAccess, OpsToken, Tls};
use crate::store::embedded::DEFAULT_MEMORY;
use crate::yaml::{Document, Problems, Shape, did_you_mean, join, nearest};

/// The name of the file in its directory.
pub const FILE_NAME: &str = "config.yaml";
/// A leader that is gone is replaced within 20 s: the lease, and a look at it.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);
/// The environment variable that chooses the file, as `-c` does.
const CHOICE: &str = "SGCACHE_CONFIG";
/// The variable in which systemd names the directory of credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Returns the file to read: `-c DIR|FILE`, else `SGCACHE_CONFIG`, else
/// `config.yaml` in the working directory.
pub fn locate(chosen: Option<&Path>, environment: &BTreeMap<String, String>) -> PathBuf {
    let named = environment.get(CHOICE).filter(|path| !path.is_empty());
    let path = match (chosen, named) {
        (Some(chosen), _) => chosen.to_owned(),
        (None, Some(named)) => PathBuf::from(named),
        (None, None) => return PathBuf::from(FILE_NAME),
    };
    match path.is_dir() {
        true => path.join(FILE_NAME),
        false => path,
    }
}

impl Config {
    /// Reads a file. With the config come the warnings there are about it.
    ///
    /// # Errors
    ///
    /// All problems of the file, if one of them is an error.
    pub fn load(path: &Path, environment: &BTreeMap<String, String>) -> Result<(Config, Problems), Problems> {
        // Problems are drawn with the lines that they point at.
        let hidden = |problems: Problems| problems.with_text(&path.display().to_string(), redaction::hide_values);
        let loaded = Config::load_file(path, environment);
        loaded.map(|(config, problems)| (config, hidden(problems))).map_err(hidden)
    }

    fn load_file(path: &Path, environment: &BTreeMap<String, String>) -> Result<(Config, Problems), Problems> {
        let document = Document::read(path, &path.display().to_string()).map_err(|problems| match path.exists() {
            true => problems,
            false => advise_init(path, problems),
        })?;
        Config::resolve(&document, path, environment)
    }

    /// Resolves a parsed file as if it had been read from `path`.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn resolve(
        document: &Document,
        path: &Path,
        environment: &BTreeMap<String, String>,
    ) -> Result<(Config, Problems), Problems> {
        let mut problems = Problems::new();
        // Keys that are wrong in shape are reported, and what can be decoded
        // all the same is still checked further, so that one pass finds all.
        let fits =
            SHAPE.check(document, "", document.value(), &mut problems) & check_data_types(document, &mut problems);
        if !fits {
            check_parts(document, path, environment, &mut problems);
            return Err(problems);
        }
        let Some(file) = document.decode::<ConfigFile>("", document.value(), &mut problems) else {
            return Err(problems);
        };
        let config = Resolver::new(document, path, environment, &file.secrets).config(file, &mut problems);
        problems.finish(config)
    }
}

fn advise_init(path: &Path, _unreadable: Problems) -> Problems {
    let name = path.display().to_string();
    crate::yaml::Diagnostic::about_file("SG0100", &name, "there is no such file")
        .help("choose it with `-c DIR|FILE` or SGCACHE_CONFIG".to_owned())
        .into()
}

/// What can be read of a `config.yaml` that has errors: enough to check pipelines
/// without repeating its errors there.
#[derive(Debug, Default)]
pub struct Readable {
    /// The time zone of schedules that name none.
    pub timezone: Tz,
    /// What applies to pipelines that do not say otherwise.
    pub defaults: Defaults,
    /// The blackouts by name; one with an error has hours of no meaning.
    pub blackouts: BTreeMap<String, Blackout>,
    /// The names of the notifiers, those with an error included.
    pub notifiers: BTreeSet<String>,
}

impl Readable {
    /// Reads what can be read of a file.
    pub fn of(path: &Path, environment: &BTreeMap<String, String>) -> Readable {
        match Document::read(path, &path.display().to_string()) {
            Ok(document) => check_parts(&document, path, environment, &mut Problems::new()),
            // Without any structure there is nothing to read.
            Err(_) => Readable::default(),
        }
    }
}

/// Checks the values of a file whose shape is wrong somewhere: of each part, what
/// fits its shape is resolved.
fn check_parts(
    document: &Document,
    path: &Path,
    environment: &BTreeMap<String, String>,
    problems: &mut Problems,
) -> Readable {
    let secrets = part(document, "secrets").unwrap_or_default();
    let resolver = Resolver::new(document, path, environment, &secrets);
    let zone = part::<String>(document, "timezone");
    let timezone = resolver.timezone(zone.as_deref(), problems);
    if let Some(file) = part(document, "shotgun") {
        resolver.shotgun(file, problems);
    }
    if let Some(file) = part(document, "store") {
        resolver.store(Some(file), problems);
    }
    if let Some(file) = part(document, "listen") {
        resolver.listen(file, problems);
    }
    if let Some(file) = part(document, "api") {
        resolver.api(file, None, problems);
    }
    if let Some(file) = part::<ReportsFile>(document, "reports").and_then(|reports| reports.elasticsearch) {
        resolver.elasticsearch("/reports/elasticsearch", file, problems);
    }
    resolver.notifiers(part(document, "notifiers").unwrap_or_default(), problems);
    let mut blackouts = resolver.blackouts(part(document, "blackouts").unwrap_or_default(), timezone, problems);
    for name in names(document, "blackouts") {
        blackouts.entry(name.clone()).or_insert_with(|| Blackout::unreadable(name));
    }
    let file = part::<PipelinesFile>(document, "pipelines").unwrap_or_default();
    Readable {
        timezone: timezone.unwrap_or(Tz::UTC),
        defaults: pipelines(file).defaults,
        blackouts,
        notifiers: names(document, "notifiers").collect(),
    }
}

/// Decodes what fits of one key of the file. What does not was reported by its shape.
fn part<T: DeserializeOwned>(document: &Document, name: &str) -> Option<T> {
    let Shape::Object(keys) = &SHAPE else { return None };
    let shape = &keys.iter().find(|key| key.name == name)?.shape;
    let value = document.value().get(name).filter(|value| !value.is_null())?;
    document.decode(&join("", name), &shape.fitting(value)?, &mut Problems::new())
}

/// The keys of a mapping of the file.
fn names(document: &Document, name: &str) -> impl Iterator<Item = String> {
    let map = document.value().get(name).and_then(Value::as_object);
    map.into_iter().flatten().map(|(name, _)| name.clone())
}

/// Checks the names of data types in `generate`. Returns whether all are known.
fn check_data_types(document: &Document, problems: &mut Problems) -> bool {
    let before = problems.errors();
    let written = document.value().pointer("/generate/exclude_data_types");
    let known: Vec<&str> = DataType::names().collect();
    for (index, name) in written.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let Some(name) = name.as_str().filter(|name| !known.contains(name)) else {
            continue;
        };
        let at = format!("/generate/exclude_data_types/{index}");
        let message = format!("there is no field data type `{name}`");
        document.report(problems, document.unknown(&at, "SG0604", message, name, &known));
    }
    problems.errors() == before
}

/// The parts of resolving, with what all of them need.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    directory: PathBuf,
    pub(super) environment: &'a BTreeMap<String, String>,
    secrets: BTreeMap<String, SecretRef>,
    path: &'a Path,
}

impl<'a> Resolver<'a> {
    fn new(
        document: &'a Document,
        path: &'a Path,
        environment: &'a BTreeMap<String, String>,
        secrets: &BTreeMap<String, SecretRef>,
    ) -> Resolver<'a> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Resolver {
            document,
            directory: parent.map_or_else(|| PathBuf::from("."), Path::to_owned),
            environment,
            secrets: secrets.clone(),
            path,
        }
    }

    fn config(&self, file: ConfigFile, problems: &mut Problems) -> Option<Config> {
        let timezone = self.timezone(file.timezone.as_deref(), problems);
        let shotgun = self.shotgun(file.shotgun, problems);
        let store = self.store(file.store, problems);
        let listen = self.listen(file.listen.unwrap_or_default(), problems);
        let api = self.api(file.api.unwrap_or_default(), listen.as_ref(), problems);
        let reports = match file.reports.and_then(|reports| reports.elasticsearch) {
            Some(cluster) => self.elasticsearch("/reports/elasticsearch", cluster, problems).map(Some),
            None => Some(None),
        };
        let notifiers = self.notifiers(file.notifiers, problems);
        let blackouts = self.blackouts(file.blackouts, timezone, problems);
        Some(Config {
            path: self.path.to_owned(),
            directory: self.directory.clone(),
            timezone: timezone?,
            data_dir: self.relative(file.data_dir.unwrap_or_else(|| "data".into())),
            shotgun: shotgun?,
            store: store?,
            listen: listen?,
            api: api?,
            reports: ReportSettings { elasticsearch: reports? },
            notifiers,
            blackouts,
            generate: file.generate.unwrap_or_default(),
            pipelines: pipelines(file.pipelines.unwrap_or_default()),
        })
    }

    fn relative(&self, path: PathBuf) -> PathBuf {
        match path.strip_prefix(".") {
            Ok(rest) => self.directory.join(rest),
            Err(_) => self.directory.join(path),
        }
    }

    fn timezone(&self, name: Option<&str>, problems: &mut Problems) -> Option<Tz> {
        self.zone("/timezone", name, problems)
    }

    pub(super) fn zone(&self, at: &str, name: Option<&str>, problems: &mut Problems) -> Option<Tz> {
        let Some(name) = name else {
            return Some(Tz::UTC);
        };
        if let Ok(zone) = name.parse() {
            return Some(zone);
        }
        let near = nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        let diagnostic = self
            .document
            .at(at, "SG0402", format!("there is no time zone `{name}`"))
            .label("unknown time zone")
            .help(help);
        self.document.report(problems, diagnostic);
        None
    }

    fn shotgun(&self, file: ShotgunFile, problems: &mut Problems) -> Option<ShotgunSettings> {
        let site = self.url("/shotgun/site", &file.site, problems);
        let key = self.secret("/shotgun/key", &file.key, problems);
        let certificate = self.certificate("/shotgun/ca_certificate", file.ca_certificate, problems);
        let (site, key) = (site?, key?);
        if file.key.value.is_some() && !is_local(&site) {
            let diagnostic = self
                .document
                .at("/shotgun/key", "SG0801", "the key of a real site stands in the file")
                .help("use `key: { env: NAME }` or `key: { file: PATH }`".to_owned())
                .warning();
            self.document.report(problems, diagnostic);
        }
        Some(ShotgunSettings {
            site,
            script: file.script,
            key,
            max_rps: file.max_rps.unwrap_or(8.0),
            max_concurrency: file.max_concurrency.unwrap_or(6),
            page_size: file.page_size.unwrap_or(500),
            timeout: file.timeout.unwrap_or(Duration::from_secs(60)),
            connect_timeout: file.connect_timeout.unwrap_or(Duration::from_secs(10)),
            ca_certificate: certificate?,
        })
    }

    fn store(&self, file: Option<ElasticsearchFile>, problems: &mut Problems) -> Option<StoreSettings> {
        let Some(file) = file else {
            return Some(StoreSettings::Embedded { memory: DEFAULT_MEMORY });
        };
        match file.kind.as_deref() {
            Some("elasticsearch") if file.memory_mib.is_some() => {
                let diagnostic = self
                    .document
                    .at_key("/store/memory_mib", "SG0602", "an Elasticsearch store has no `memory_mib`")
                    .help("remove the line".to_owned());
                self.document.report(problems, diagnostic);
                None
            }
            Some("elasticsearch") => self.elasticsearch("/store", file, problems).map(StoreSettings::Elasticsearch),
            Some("embedded") if file.url.is_some() => {
                let diagnostic = self
                    .document
                    .at_key("/store/url", "SG0602", "an embedded store has no `url`")
                    .help("set `kind: elasticsearch`, or remove the line".to_owned());
                self.document.report(problems, diagnostic);
                None
            }
            Some("embedded") => Some(StoreSettings::Embedded {
                memory: file.memory_mib.map_or(DEFAULT_MEMORY, |mib| (mib as usize) << 20),
            }),
            // The shape has reported any other word.
            _ => None,
        }
    }

    fn elasticsearch(
        &self,
        at: &str,
        file: ElasticsearchFile,
        problems: &mut Problems,
    ) -> Option<ElasticsearchSettings> {
        let auth = self.auth(&format!("{at}/auth"), file.auth.unwrap_or_default(), problems);
        let certificate = self.certificate(&format!("{at}/ca_certificate"), file.ca_certificate, problems);
        let prefix = file.prefix.unwrap_or_else(|| "sgcache".to_owned());
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let valid = prefix.chars().all(allowed) && prefix.starts_with(|c: char| c.is_ascii_lowercase());
        if !valid {
            let diagnostic = self
                .document
                .at(&format!("{at}/prefix"), "SG0602", format!("`{prefix}` cannot start index names"))
                .help("use lower case letters, digits, `-` and `_`, a letter first".to_owned());
            self.document.report(problems, diagnostic);
        }
        let urls = self.urls(at, file.url, problems);
        Some(ElasticsearchSettings {
            urls: urls?,
            prefix,
            auth: auth?,
            ca_certificate: certificate?,
            timeout: file.timeout.unwrap_or(Duration::from_secs(60)),
            shards: file.shards.unwrap_or(1),
            replicas: file.replicas,
            lease: file.lease.unwrap_or(DEFAULT_LEASE),
        })
    }

    fn urls(&self, at: &str, written: Option<OneOrMany>, problems: &mut Problems) -> Option<Vec<String>> {
        let Some(written) = written.filter(|urls| !urls.0.is_empty()) else {
            let diagnostic = self
                .document
                .at_key(at, "SG0203", "the key `url` is missing")
                .help("for example `url: http://127.0.0.1:9200`, or a list of nodes".to_owned());
            self.document.report(problems, diagnostic);
            return None;
        };
        let pointer = format!("{at}/url");
        let single = self.document.value().pointer(&pointer).is_some_and(|v| v.is_string());
        let mut urls = Vec::new();
        for (index, url) in written.0.iter().enumerate() {
            let place = match single {
                true => pointer.clone(),
                false => format!("{pointer}/{index}"),
            };
            urls.push(self.url(&place, url, problems));
        }
        urls.into_iter().collect()
    }

    /// Checks a URL; what comes back has no slash at its end.
    fn url(&self, at: &str, written: &str, problems: &mut Problems) -> Option<String> {
        let objection = match reqwest::Url::parse(written) {
            // Before anything repeats it.
            _ if written.contains('@') => "credentials do not belong into a URL".to_owned(),
            Ok(url) if !["http", "https"].contains(&url.scheme()) => {
                format!("`{written}` is not an http or https URL")
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => {
                format!("`{written}` names no host")
            }
            Ok(_) => return Some(written.trim_end_matches('/').to_owned()),
            Err(error) => format!("`{written}` is not a URL: {error}"),
        };
        let help = (!written.contains("://") && !written.contains('@')).then(|| format!("write `https://{written}`"));
        let diagnostic = self.document.at(at, "SG0602", objection).label("not a usable URL").help(help);
        self.document.report(problems, diagnostic);
        None
    }

    fn auth(&self, at: &str, file: AuthFile, problems: &mut Problems) -> Option<Auth> {
        match (file.user, file.password, file.api_key, file.bearer) {
            (None, None, None, None) => Some(Auth::None),
            (Some(user), Some(password), None, None) => {
                let password = self.password(&format!("{at}/password"), &password, problems)?;
                Some(Auth::Basic { user, password })
            }
            (None, None, Some(key), None) => self.password(&format!("{at}/api_key"), &key, problems).map(Auth::ApiKey),
            (None, None, None, Some(token)) => {
                self.password(&format!("{at}/bearer"), &token, problems).map(Auth::Bearer)
            }
            _ => {
                let diagnostic = self
                    .document
                    .at_key(at, "SG0602", "is not one way to authenticate")
                    .help("give `user` and `password`, or `api_key`, or `bearer`".to_owned());
                self.document.report(problems, diagnostic);
                None
            }
        }
    }

    fn password(&self, at: &str, written: &SecretRef, problems: &mut Problems) -> Option<elastic::Secret> {
        self.secret(at, written, problems).map(|secret| elastic::Secret::new(secret.expose()))
    }

    /// Checks that a certificate file is there; its content is read by the module that
    /// opens the connection.
    fn certificate(&self, at: &str, written: Option<PathBuf>, problems: &mut Problems) -> Option<Option<PathBuf>> {
        let Some(path) = written.map(|path| self.relative(path)) else {
            return Some(None);
        };
        match std::fs::File::open(&path) {
            Ok(_) => Some(Some(path)),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                self.document.report(problems, self.document.at(at, "SG0603", message));
                None
            }
        }
    }

    fn listen(&self, file: ListenFile, problems: &mut Problems) -> Option<ListenSettings> {
        let ops = self.address("/listen/ops", file.ops, 9187, problems);
        let api = self.address("/listen/api", file.api, 8010, problems);
        let token = file.ops_token.map(|written| self.secret("/listen/ops_token", &written, problems));
        let tls =
            file.ops_tls.map(|tls| Tls { certificate: self.relative(tls.certificate), key: self.relative(tls.key) });
        let ops_access = OpsAccess {
            hosts: file.ops_hosts,
            token: token.flatten().map(|token| OpsToken(token.expose().to_owned())),
            tls,
            insecure: file.ops_insecure,
        };
        if let Some(address) = ops.filter(|address| !ops_access.is_enough_for(*address)) {
            let message = format!("`{address}` can be reached from other machines, and shows what the cache holds");
            let help = "set `listen.ops_tls` and `listen.ops_token`, or `listen.ops_insecure: true` where something else protects it";
            let diagnostic = self.document.at("/listen/ops", "SG0615", message).help(help.to_owned());
            self.document.report(problems, diagnostic);
            return None;
        }
        Some(ListenSettings { ops: ops?, api: api?, ops_access })
    }

    fn api(
        &self,
        file: ApiFile,
        listen: Option<&ListenSettings>,
        problems: &mut Problems,
    ) -> Option<crate::proxy::Settings> {
        let address = listen.map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |listen| listen.api);
        api::resolve(file, self.document, |path| self.relative(path), address, problems)
    }

    fn address(&self, at: &str, written: Option<String>, port: u16, problems: &mut Problems) -> Option<SocketAddr> {
        let Some(written) = written else {
            return Some(SocketAddr::from(([127, 0, 0, 1], port)));
        };
        match written.replace("localhost", "127.0.0.1").parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let diagnostic = self
                    .document
                    .at(at, "SG0602", format!("`{written}` is not an address to listen on"))
                    .label("not an address")
                    .help(format!("write an IP address and a port: `127.0.0.1:{port}`"));
                self.document.report(problems, diagnostic);
                None
            }
        }
    }

    pub(super) fn secret(&self, at: &str, written: &SecretRef, problems: &mut Problems) -> Option<Secret> {
        match self.read_secret(written, true) {
            Ok(text) if text.is_empty() => {
                let diagnostic = self.document.at_key(at, "SG0601", "the secret is empty");
                self.document.report(problems, diagnostic);
                None
            }
            Ok(text) => Some(Secret::new(text)),
            Err((message, help)) => {
                let diagnostic = self.document.at_key(at, "SG0601", message).label("no secret").help(help);
                self.document.report(problems, diagnostic);
                None
            }
        }
    }

    /// Reads a secret; the error is a message and what to do.
    fn read_secret(&self, written: &SecretRef, named: bool) -> Result<String, (String, Option<String>)> {
        let one_of = "give exactly one of `env`, `file`, `secret` and `value`";
        match (&written.env, &written.file, &written.secret, &written.value) {
            (Some(name), None, None, None) => self.environment.get(name).cloned().ok_or_else(|| {
                let message = format!("the environment variable `{name}` is not set");
                (message, Some(format!("export {name}=...")))
            }),
            (None, Some(path), None, None) => read_trimmed(&self.relative(path.clone())),
            (None, None, Some(name), None) if named => self.named_secret(name),
            (None, None, None, Some(value)) => Ok(value.clone()),
            _ => Err(("is not one source of a secret".to_owned(), Some(one_of.to_owned()))),
        }
    }

    fn named_secret(&self, name: &str) -> Result<String, (String, Option<String>)> {
        if let Some(written) = self.secrets.get(name) {
            return self.read_secret(written, false);
        }
        if let Some(directory) = self.environment.get(CREDENTIALS) {
            let path = Path::new(directory).join(name);
            if path.is_file() {
                return read_trimmed(&path);
            }
        }
        let known: Vec<&str> = self.secrets.keys().map(String::as_str).collect();
        let help =
            did_you_mean(name, &known).unwrap_or_else(|| format!("add it: `secrets: {{ {name}: {{ env: NAME }} }}`"));
        Err((format!("there is no secret `{name}` under `secrets`"), Some(help)))
    }
}

fn read_trimmed(path: &Path) -> Result<String, (String, Option<String>)> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(error) => Err((format!("{} cannot be read: {error}", path.display()), None)),
    }
}

fn is_local(site: &str) -> bool {
    ["://127.", "://localhost", "://[::1]"].iter().any(|local| site.contains(local))
}

fn pipelines(file: PipelinesFile) -> PipelineSettings {
    let built_in = HistorySettings::default();
    let history = file.history.unwrap_or_default();
    PipelineSettings {
        defaults: file.defaults.unwrap_or_default().resolve(),
        history: HistorySettings {
            keep_runs: history.keep_runs.unwrap_or(built_in.keep_runs),
            keep_days: history.keep_days.unwrap_or(built_in.keep_days),
            keep_failed_days: history.keep_failed_days.unwrap_or(built_in.keep_failed_days),
        },
    }
}
