//! Makes calls: picks a node, waits no longer than allowed, judges the answer,
//! repeats what may be repeated.
//!
//! Facts about the crate that shape this code: it has no connect timeout, so a
//! call is bounded from outside; one `Transport` per node, because its own lists
//! of nodes know nothing of dead ones; status first, then bytes, then a lenient
//! parse, because its shortcuts drop the server's reason or panic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use parking_lot::{Mutex, MutexGuard};
use reqwest::Url;

use super::answer::{Answer, kind_of_status, looks_like_json};
use super::call::{Call, Patience};
use super::endpoints::Endpoints;
use super::error::{Error, ErrorKind, Result};
use super::limits::BulkLimits;
use super::settings::{Auth, RetryLimits, Settings, Timeouts};
use crate::redaction::Redaction;
use crate::retry::retry_after;
use crate::supervisor;

/// What everything around one wait may take before a loop counts as stuck.
const SLACK: Duration = Duration::from_secs(60);
/// An answer that says it is longer is not read: the largest page that is asked for has a
/// few ten MiB. One that does not say its length is bounded by time alone, because the
/// transport gives a body in no other way than whole.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// Tells whether this process may write to the cluster now; the error says why not.
pub type WriteGuard = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// A client of one cluster. Cheap to clone; clones share what they learn about it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    guard: Option<WriteGuard>,
}

struct Inner {
    nodes: Vec<Node>,
    endpoints: Mutex<Endpoints>,
    bulk_limits: Mutex<BulkLimits>,
    timeouts: Timeouts,
    retry: RetryLimits,
    headers: HeaderMap,
    redaction: Redaction,
}

struct Node {
    url: String,
    transport: Transport,
}

/// Why one attempt failed and what may be done about it.
struct Failure {
    error: Error,
    again: Again,
    node_is_dead: bool,
    asked_pause: Option<Duration>,
}

/// Whether the same call may be made again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// The server may have done it: only when twice is the same as once.
    IfRepeatable,
    /// The server certainly has not done it.
    Always,
}

impl Failure {
    fn fatal(error: Error) -> Self {
        Self { error, again: Again::Never, node_is_dead: false, asked_pause: None }
    }
}

impl Client {
    /// Returns a client for the cluster that `settings` name. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] for a bad URL, an unreadable certificate file or a
    /// key that cannot stand in a header.
    pub fn new(settings: &Settings) -> Result<Self> {
        let (urls, auth) = settings.resolve()?;
        let nodes = urls.iter().map(|url| node(url, &auth, settings)).collect::<Result<Vec<_>>>()?;
        let mut headers = HeaderMap::new();
        let opaque_id = HeaderValue::try_from(&settings.opaque_id)
            .map_err(|_| Error::settings("the opaque id must be printable ASCII"))?;
        headers.insert(HeaderName::from_static("x-opaque-id"), opaque_id);
        // Left alone, every answer is compressed: on a network of a studio that costs both sides more than it saves.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let inner = Inner {
            endpoints: Mutex::new(Endpoints::new(nodes.len())),
            bulk_limits: Mutex::default(),
            nodes,
            timeouts: settings.timeouts.clone(),
            retry: settings.retry.clone(),
            headers,
            redaction: auth.redaction(),
        };
        Ok(Self { inner: Arc::new(inner), guard: None })
    }

    /// Returns a client that asks the guard directly before every attempt of a call that
    /// may change what the cluster holds.
    #[must_use]
    pub fn guarded(self, guard: WriteGuard) -> Self {
        Self { guard: Some(guard), ..self }
    }

    /// Returns the URLs of the nodes, without credentials.
    pub fn urls(&self) -> Vec<&str> {
        self.inner.nodes.iter().map(|node| node.url.as_str()).collect()
    }

    /// Makes `call`, on other nodes and again where that is allowed.
    ///
    /// A success and any status that the call accepts is an answer.
    ///
    /// # Errors
    ///
    /// The last failure, with the number of attempts; see [`ErrorKind`].
    pub async fn send(&self, call: &Call) -> Result<Answer> {
        if let Some(reason) = &call.invalid {
            return Err(Error::new(ErrorKind::Settings, format!("{}: {reason}", call.path)));
        }
        let mut attempt = 1;
        loop {
            let picked = lock(&self.inner.endpoints).pick(Instant::now());
            let failure = match self.attempt(picked, call).await {
                Ok(answer) => {
                    lock(&self.inner.endpoints).worked(picked);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.note(picked, &failure);
            let may_repeat = match failure.again {
                Again::Never => false,
                Again::IfRepeatable => call.repeatable,
                Again::Always => true,
            };
            if !may_repeat || attempt >= self.inner.retry.attempts {
                return Err(failure.error.with_attempts(attempt));
            }
            tracing::debug!(attempt, error = %failure.error, "elasticsearch call failed, trying again");
            self.rest(attempt, &failure).await;
            attempt += 1;
        }
    }

    fn note(&self, picked: usize, failure: &Failure) {
        let mut endpoints = lock(&self.inner.endpoints);
        if failure.node_is_dead {
            endpoints.failed(picked, Instant::now(), rand::random());
        } else {
            endpoints.worked(picked);
        }
    }

    /// Waits before the next attempt; not at all when another node can be asked at once.
    async fn rest(&self, attempt: u32, failure: &Failure) {
        let other_node = failure.node_is_dead && lock(&self.inner.endpoints).any_live(Instant::now());
        if !other_node {
            self.pause(attempt, failure.asked_pause).await;
        }
    }

    pub(super) async fn pause(&self, attempt: u32, asked: Option<Duration>) {
        let pause = self.inner.retry.pause(attempt, asked, rand::random());
        supervisor::working(pause + SLACK);
        tokio::time::sleep(pause).await;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.inner.retry.attempts
    }

    pub(super) fn bulk_limits(&self) -> MutexGuard<'_, BulkLimits> {
        lock(&self.inner.bulk_limits)
    }

    async fn attempt(&self, picked: usize, call: &Call) -> std::result::Result<Answer, Failure> {
        let node = &self.inner.nodes[picked];
        let name = format!("{} {}{}", call.method_name(), node.url, call.path);
        if let Some(guard) = self.guard.as_ref().filter(|_| call.writes()) {
            guard().map_err(|reason| Failure::fatal(Error::new(ErrorKind::ReadOnly, reason)))?;
        }
        let limit = match call.patience {
            Patience::Search => self.inner.timeouts.search,
            Patience::Bulk => self.inner.timeouts.bulk,
            Patience::Other => self.inner.timeouts.other,
        };
        supervisor::working(limit + SLACK);
        match tokio::time::timeout(limit, self.exchange(node, call, &name)).await {
            Ok(result) => result,
            Err(_) => Err(Failure {
                error: Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")).with_call(name),
                again: Again::IfRepeatable,
                node_is_dead: true,
                asked_pause: None,
            }),
        }
    }

    async fn exchange(&self, node: &Node, call: &Call, name: &str) -> std::result::Result<Answer, Failure> {
        let query = (!call.query.is_empty()).then_some(&call.query);
        let headers = self.inner.headers.clone();
        let sent = node.transport.send(call.method, &call.path, headers, query, call.body.clone(), None).await;
        let response = sent.map_err(|error| broken(&error, name))?;
        let status = response.status_code().as_u16();
        let asked_pause = retry_after(response.headers());
        let is_elasticsearch = response.headers().contains_key("x-elastic-product");
        if response.content_length().is_some_and(|length| length > MAX_ANSWER_BYTES) {
            let words = format!("the answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20);
            return Err(Failure::fatal(Error::new(ErrorKind::Malformed, words).with_call(name.to_owned())));
        }
        let body = response.bytes().await.map_err(|error| broken(&error, name))?;
        let redaction = self.inner.redaction.clone();
        let answer = Answer { status, body, call: name.to_owned(), is_elasticsearch, redaction };
        judge(answer, call, asked_pause)
    }
}

/// Decides whether what came back is an answer.
fn judge(answer: Answer, call: &Call, asked_pause: Option<Duration>) -> std::result::Result<Answer, Failure> {
    let status = answer.status;
    if !looks_like_json(&answer.body) && !matches!(status, 401 | 403 | 413) {
        return Err(foreign(answer, asked_pause));
    }
    if answer.is_success() || call.accepted.contains(&status) {
        return Ok(answer);
    }
    let (error_type, reason) = answer.reason();
    let error = Error::new(kind_of_status(status), reason).with_call(answer.call).with_status(status, error_type);
    Err(match status {
        408 | 429 => Failure { error, again: Again::Always, node_is_dead: false, asked_pause },
        502..=504 => Failure { error, again: Again::IfRepeatable, node_is_dead: true, asked_pause },
        _ => Failure::fatal(error),
    })
}

/// An answer that no Elasticsearch gives: a proxy or a login page speaks.
fn foreign(answer: Answer, asked_pause: Option<Duration>) -> Failure {
    let reason = format!("the answer is not JSON, a proxy may have given it: {}", answer.excerpt());
    Failure {
        error: Error::new(ErrorKind::Malformed, reason).with_call(answer.call).with_status(answer.status, None),
        again: Again::IfRepeatable,
        node_is_dead: answer.status >= 500,
        asked_pause,
    }
}

/// A connection that could not be made, or broke.
fn broken(error: &elasticsearch::Error, name: &str) -> Failure {
    let described = Error::transport(error).with_call(name.to_owned());
    // Nothing has been sent yet when connecting failed.
    let again = match described.kind() {
        ErrorKind::Tls => Again::Never,
        _ if is_connect(error) => Again::Always,
        _ => Again::IfRepeatable,
    };
    Failure { error: described, again, node_is_dead: true, asked_pause: None }
}

fn is_connect(error: &elasticsearch::Error) -> bool {
    let mut current: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = current {
        if cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) {
            return true;
        }
        current = cause.source();
    }
    false
}

fn node(url: &Url, auth: &Auth, settings: &Settings) -> Result<Node> {
    let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url.clone())).enable_meta_header(false);
    if let Some(credentials) = credentials(auth)? {
        builder = builder.auth(credentials);
    }
    if let Some(path) = &settings.ca_certificate {
        builder = builder.cert_validation(CertificateValidation::Full(certificates(path)?));
    }
    if is_loopback(url) {
        // A proxy for the way out must not be asked for this machine.
        builder = builder.disable_proxy();
    }
    let transport = builder.build().map_err(|error| Error::settings(format!("{url}: {error}")))?;
    Ok(Node { url: url.as_str().trim_end_matches('/').to_owned(), transport })
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

fn credentials(auth: &Auth) -> Result<Option<Credentials>> {
    Ok(Some(match auth {
        Auth::None => return Ok(None),
        Auth::Basic { user, password } => Credentials::Basic(user.clone(), password.reveal().to_owned()),
        Auth::ApiKey(key) => Credentials::EncodedApiKey(header_safe("API key", key.reveal())?),
        Auth::Bearer(token) => Credentials::Bearer(header_safe("bearer token", token.reveal())?),
    }))
}

/// The crate panics on a key that cannot stand in a header, for instance with a line break at its end.
fn header_safe(what: &str, secret: &str) -> Result<String> {
    let secret = secret.trim();
    HeaderValue::try_from(secret)
        .map_err(|_| Error::settings(format!("the {what} holds characters that cannot be sent")))?;
    Ok(secret.to_owned())
}

fn certificates(path: &std::path::Path) -> Result<Certificate> {
    let unusable = |reason: String| Error::settings(format!("ca_certificate {}: {reason}", path.display()));
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(unusable("there is no `-----BEGIN CERTIFICATE-----` in it".to_owned()));
    }
    Certificate::from_pem(&pem).map_err(|error| unusable(error.to_string()))
}

/// Locks, also after a panic elsewhere: what is locked here is valid at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Returns bytes of `lines`, each ended by a line break, as a bulk body.
pub(super) fn join_lines(lines: &[&str]) -> Bytes {
    let mut body = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        body.extend_from_slice(line.as_bytes());
        body.push(b'\n');
    }
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elastic::Secret;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            body: Bytes::from(body.to_owned()),
            call: "GET http://es:9200/x".into(),
            is_elasticsearch: true,
            redaction: Redaction::default(),
        }
    }

    fn failure(status: u16, body: &str) -> Failure {
        judge(answer(status, body), &Call::get("/x"), None).expect_err("a failure")
    }

    #[test]
    fn the_message_names_url_call_status_and_the_servers_reason() {
        let failure =
            failure(404, r#"{"error":{"type":"index_not_found_exception","reason":"no such index [x]"},"status":404}"#);
        assert_eq!(
            failure.error.to_string(),
            "GET http://es:9200/x: status 404: index_not_found_exception: no such index [x]"
        );
        assert_eq!(failure.error.kind(), ErrorKind::NotFound);
        assert!(failure.again == Again::Never && !failure.node_is_dead);
    }

    #[test]
    fn an_accepted_status_is_an_answer() {
        assert!(judge(answer(404, "{}"), &Call::get("/x").accept(&[404]), None).is_ok());
    }

    #[test]
    fn html_is_a_failure_even_at_200_and_is_not_shown() {
        let failure = failure(200, "<html>Please log in</html>");
        assert_eq!(failure.error.kind(), ErrorKind::Malformed);
        assert!(failure.error.to_string().ends_with("a proxy may have given it: a page of HTML"));
        assert!(failure.again == Again::IfRepeatable);
    }

    #[test]
    fn a_gateway_error_marks_the_node_dead_and_too_many_requests_does_not() {
        assert!(failure(503, "{}").node_is_dead);
        let busy = failure(429, r#"{"error":{"type":"es_rejected_execution_exception","reason":"queue full"}}"#);
        assert!(!busy.node_is_dead && busy.again == Again::Always);
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_refused_and_not_shown() {
        let mut settings = Settings::new(["http://es:9200"]);
        settings.auth = Auth::ApiKey(Secret::new("abc\ndef"));
        let error = Client::new(&settings).err().expect("a failure");
        assert_eq!(error.to_string(), "the API key holds characters that cannot be sent");
        settings.auth = Auth::ApiKey(Secret::new("abcdef\n"));
        assert!(Client::new(&settings).is_ok());
    }

    #[test]
    fn a_certificate_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let mut settings = Settings::new(["https://es:9200"]);
        settings.ca_certificate = Some(path.clone());
        let error = Client::new(&settings).err().expect("a failure").to_string();
        assert_eq!(
            error,
            format!("ca_certificate {}: there is no `-----BEGIN CERTIFICATE-----` in it", path.display())
        );
    }
}
