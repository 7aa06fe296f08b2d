//! Sends requests: budget, deadline, retries, classification.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Answer, Error, ErrorKind, Info, Purpose, Settings, SiteHealth};
use crate::api3::{self, AnswerRow, PagingInfo, Read, ReadAnswer, Request, Summarize};
use crate::budget::{self, Budget};
use crate::entity::{EntityType, Timestamp};
use crate::filter::{Only, RawFilter, RawLeaf, RawSort};
use crate::metrics::Metrics;
use crate::redaction::Redaction;
use crate::retry::{RetryPolicy, retry_after};
use crate::schema::Schema;
use crate::supervisor;

/// How long a request may wait for the budget before its loop counts as stuck.
const BUDGET_WAIT: Duration = Duration::from_secs(600);
/// An answer that is longer is not read on: a page of 500 rows has a few MiB, and an answer
/// that never ends would take all the memory there is.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// What everything around one wait may take.
const SLACK: Duration = Duration::from_secs(60);

/// A client of one site with one script's credentials; clones share connections
/// and budget.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    settings: Settings,
    redaction: Redaction,
    endpoint: String,
    http: reqwest::Client,
    budget: Budget,
    health: SiteHealth,
    metrics: Metrics,
    /// Requests sent so far, by purpose: metrics are shown and never read.
    requests: [AtomicU64; Purpose::COUNT],
}

/// What an answer holds, and when it was given.
struct Reply<T> {
    results: T,
    server_time: Option<Timestamp>,
}

impl Client {
    /// Prepares a client; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when the certificate authority cannot be read.
    pub fn new(settings: Settings, metrics: Metrics) -> Result<Self, Error> {
        let site = settings.site.trim_end_matches('/');
        let endpoint = format!("{site}{}", api3::PATH);
        let http = http_client(&settings, |builder| builder.timeout(settings.timeout))?;
        let budget = Budget::new(settings.max_concurrency, settings.max_rps);
        let (health, requests) = (SiteHealth::default(), Default::default());
        let redaction = Redaction::of(settings.auth.secrets());
        Ok(Self(Arc::new(Inner { redaction, endpoint, http, budget, health, metrics, settings, requests })))
    }

    /// Returns the address of the site.
    pub fn site(&self) -> &str {
        &self.0.settings.site
    }

    /// Returns whether the site answers, as this client and those who share it find out.
    pub fn health(&self) -> &SiteHealth {
        &self.0.health
    }

    /// Returns how many requests for a purpose this client and its clones have sent,
    /// repeated ones included.
    pub fn requests(&self, purpose: Purpose) -> u64 {
        self.0.requests[purpose as usize].load(Ordering::Relaxed)
    }

    /// Returns the rows per page that reads ask for.
    pub fn page_size(&self) -> u32 {
        self.0.settings.page_size
    }

    /// Asks what the site is. Needs no credentials.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] when the answer names no version: not a Shotgun
    /// site.
    pub async fn info(&self) -> Result<Info, Error> {
        let reply = self.call("info", Value::Null, Purpose::Info).await?;
        let malformed = || Error::new(ErrorKind::Malformed, "the answer names no version").at(self.site(), "info", 1);
        Info::from_wire(reply.results).ok_or_else(malformed)
    }

    /// Reads one page, its rows as trees or as texts.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`]; transient ones only after the last attempt.
    pub async fn read<R: AnswerRow>(&self, read: &Read, purpose: Purpose) -> Result<Answer<R>, Error> {
        let reply = self.call_with("read", read.to_wire(), purpose, read_answer::<R>).await?;
        let answer = reply.results;
        let full = answer.entities.len() >= read.paging.entities_per_page as usize;
        let has_next_page = answer.has_next_page().unwrap_or(full);
        Ok(Answer { rows: answer.entities, has_next_page, server_time: reply.server_time })
    }

    /// Reads the page that follows an id, in the order of ids: the walk that rows
    /// created or retired meanwhile cannot disturb.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn read_after<R: AnswerRow>(
        &self,
        read: &Read,
        after: i64,
        purpose: Purpose,
    ) -> Result<Answer<R>, Error> {
        let mut page = read.clone();
        page.filter = both(id_condition("greater_than", vec![after.into()]), read.filter.clone());
        page.order = vec![RawSort { path: "id".into(), descending: false }];
        page.paging_info = PagingInfo::WithoutCounts;
        self.read(&page, purpose).await
    }

    /// Reads the rows of these ids that pass the filter, at most a page of them.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn read_ids<R: AnswerRow>(
        &self,
        entity_type: &EntityType,
        ids: &[i64],
        filter: &RawFilter,
        fields: Vec<String>,
        only: Only,
        purpose: Purpose,
    ) -> Result<Answer<R>, Error> {
        if ids.is_empty() {
            return Ok(Answer::default());
        }
        let wanted = id_condition("in", ids.iter().map(|id| Value::from(*id)).collect());
        let size = u32::try_from(ids.len()).unwrap_or(u32::MAX).max(1);
        let mut read = Read::new(entity_type.clone(), both(wanted, filter.clone()), size).fields(fields);
        read.only = only;
        self.read(&read, purpose).await
    }

    /// Asks for a summary; returns `{"summaries", "groups"}`.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn summarize(&self, summarize: &Summarize, purpose: Purpose) -> Result<Value, Error> {
        Ok(self.call("summarize", summarize.to_wire(), purpose).await?.results)
    }

    /// Reads the whole schema, some megabytes on a large site.
    ///
    /// # Errors
    ///
    /// See [`ErrorKind`].
    pub async fn schema(&self) -> Result<Schema, Error> {
        let fields = self.call("schema_read", Value::Null, Purpose::Schema).await?.results;
        let entities = self.call("schema_entity_read", Value::Null, Purpose::Schema).await?.results;
        let malformed = |error: crate::schema::SchemaError| {
            Error::new(ErrorKind::Malformed, error.to_string()).at(self.site(), "schema_read", 1)
        };
        Schema::from_wire(&fields, &entities).map_err(malformed)
    }

    async fn call(&self, method: &str, argument: Value, purpose: Purpose) -> Result<Reply<Value>, Error> {
        self.call_with(method, argument, purpose, results).await
    }

    /// Calls a method and takes what it needs from the body of the answer.
    async fn call_with<T>(
        &self,
        method: &str,
        argument: Value,
        purpose: Purpose,
        take: fn(&[u8]) -> Result<T, Error>,
    ) -> Result<Reply<T>, Error> {
        let Inner { settings, metrics, .. } = &*self.0;
        let auth = (method != "info").then(|| settings.auth.clone());
        let body = Request { method: method.to_owned(), auth, argument }.to_wire().to_string();
        let policy = if purpose.retries() { settings.retry.clone() } else { RetryPolicy::once() };
        let mut attempt = 1;
        loop {
            let error = match self.send(&body, purpose, take).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let pause = policy.pause_after(attempt, error.retry_after).filter(|_| error.kind().is_transient());
            let Some(pause) = pause else {
                return Err(error.at(self.site(), method, attempt));
            };
            tracing::warn!(method, attempt, reason = error.kind().label(), "the site failed, trying again");
            metrics.source.retries.inc(&[purpose.label()]);
            supervisor::working(pause + SLACK);
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn send<T>(
        &self,
        body: &str,
        purpose: Purpose,
        take: fn(&[u8]) -> Result<T, Error>,
    ) -> Result<Reply<T>, Error> {
        let Inner { budget, metrics, settings, .. } = &*self.0;
        budget::admit().await;
        supervisor::working(BUDGET_WAIT);
        let permit = budget.acquire(purpose.priority()).await;
        supervisor::working(settings.timeout + SLACK);
        metrics.source.throttle_wait.inc_by(permit.waited.as_secs_f64());
        metrics.source.in_flight.set(budget.in_flight() as f64);
        let started = Instant::now();
        self.0.requests[purpose as usize].fetch_add(1, Ordering::Relaxed);
        let outcome = self.exchange(body, purpose, take).await;
        drop(permit);
        metrics.source.in_flight.set(budget.in_flight() as f64);
        match &outcome {
            Ok((_, bytes)) => metrics.source.answered(purpose.label(), started.elapsed(), *bytes),
            Err(error) => metrics.source.failed(purpose.label(), error.kind().label(), started.elapsed()),
        }
        outcome.map(|(reply, _)| reply)
    }

    async fn exchange<T>(
        &self,
        body: &str,
        purpose: Purpose,
        take: fn(&[u8]) -> Result<T, Error>,
    ) -> Result<(Reply<T>, u64), Error> {
        let mut request = self.0.http.post(&self.0.endpoint).body(body.to_owned());
        if let Some(longest) = purpose.longest() {
            request = request.timeout(longest.min(self.0.settings.timeout));
        }
        let attempt = self.0.health.begin();
        let sent = request.header("content-type", "application/json; charset=utf-8").send().await;
        match &sent {
            Ok(response) if !matches!(response.status().as_u16(), 502..=504) => attempt.answered(),
            _ => attempt.failed(),
        }
        let response = sent.map_err(|error| Error::from_reqwest(&error))?;
        let status = response.status();
        let server_time = date_header(&response);
        let retry_after = retry_after(response.headers());
        let bytes = read_body(response, MAX_ANSWER_BYTES).await?;
        if !status.is_success() {
            let mut error = status_error(status, &self.0.redaction.apply(&bytes));
            error.retry_after = retry_after;
            return Err(error);
        }
        let results = take(&bytes).map_err(|error| self.without_secrets(error, &bytes, take))?;
        Ok((Reply { results, server_time }, bytes.len() as u64))
    }

    /// Makes the error about an answer anew where the answer quotes the credentials.
    fn without_secrets<T>(&self, error: Error, answer: &[u8], take: fn(&[u8]) -> Result<T, Error>) -> Error {
        match self.0.redaction.apply(answer) {
            Cow::Borrowed(_) => error,
            Cow::Owned(clean) => take(&clean)
                .err()
                .unwrap_or_else(|| Error::new(ErrorKind::Malformed, "the answer quotes the credentials")),
        }
    }
}

/// Reads an answer, as it is once unpacked, up to a length.
pub(super) async fn read_body(mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Error::from_reqwest(&error))? {
        if body.len() + chunk.len() > most {
            return Err(Error::new(ErrorKind::Malformed, format!("the answer is longer than {} MiB", most >> 20)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Returns the results of an answer.
fn results(body: &[u8]) -> Result<Value, Error> {
    let parsed: Value = serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
    api3::results(parsed).map_err(Error::from_fault)
}

/// Returns the rows of an answer.
fn read_answer<R: AnswerRow>(body: &[u8]) -> Result<ReadAnswer<R>, Error> {
    if let Some(answer) = R::from_body(body) {
        return Ok(answer);
    }
    let answer = ReadAnswer::from_wire(results(body)?).map_err(|words| Error::new(ErrorKind::Malformed, words))?;
    let entities = answer.entities.into_iter().map(R::from_map).collect();
    Ok(ReadAnswer { entities, paging_info: answer.paging_info })
}

/// Returns the address of a site.
///
/// # Errors
///
/// [`ErrorKind::Settings`] when it is not one.
pub fn address(settings: &Settings) -> Result<reqwest::Url, Error> {
    let wrong = |words: String| Error::new(ErrorKind::Settings, words).at(&settings.site, "connect", 1);
    reqwest::Url::parse(settings.site.trim_end_matches('/')).map_err(|error| wrong(error.to_string()))
}

/// Makes an HTTP client for a site: its certificate authority, no redirects.
/// `change` adds what one use of it wants.
///
/// # Errors
///
/// [`ErrorKind::Settings`] when the certificate authority cannot be read.
pub fn http_client(
    settings: &Settings,
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, Error> {
    let wrong = |words: String| Error::new(ErrorKind::Settings, words).at(&settings.site, "connect", 1);
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("sgcache/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &settings.ca_certificate {
        let place = path.display();
        let pem = std::fs::read(path).map_err(|error| wrong(format!("cannot read {place}: {error}")))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| wrong(format!("{place} holds no certificate in PEM form: {error}")))?;
        builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
    }
    change(builder).build().map_err(|error| wrong(error.to_string()))
}

fn status_error(status: reqwest::StatusCode, body: &[u8]) -> Error {
    let words = match page_title(body) {
        Some(title) => format!("HTTP {status} with a page of HTML{title}"),
        None => format!("HTTP {status}: {}", beginning(body)),
    };
    let kind = match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        // A gateway that gave up waiting says 504.
        408 | 504 => ErrorKind::Timeout,
        429 => ErrorKind::RateLimited,
        500.. => ErrorKind::Server,
        _ => ErrorKind::Rejected,
    };
    Error::new(kind, words)
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Error {
    if let Some(title) = page_title(body) {
        return Error::new(ErrorKind::Malformed, format!("a page of HTML instead of JSON{title}"));
    }
    if error.is_eof() {
        return Error::new(ErrorKind::Malformed, format!("the answer breaks off after {} bytes", body.len()));
    }
    Error::new(ErrorKind::Malformed, format!("not JSON ({error}): {}", beginning(body)))
}

/// Returns the title of a page of HTML, which nothing else of it is as short and as
/// telling as; `None` when the body is something else.
fn page_title(body: &[u8]) -> Option<String> {
    if !body.trim_ascii_start().starts_with(b"<") {
        return None;
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
    let folded = text.to_ascii_lowercase();
    let inner = folded.find("<title>").map(|at| at + "<title>".len());
    let title = inner.and_then(|at| text[at..].split('<').next()).unwrap_or_default();
    let words: Vec<_> = title.split_whitespace().collect();
    let title: String = words.join(" ").chars().take(80).collect();
    Some(if title.is_empty() { String::new() } else { format!(", titled `{title}`") })
}

fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(800)]);
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(200).collect()
}

fn date_header(response: &reqwest::Response) -> Option<Timestamp> {
    let text = response.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    let moment = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    Some(Timestamp(moment.timestamp()))
}

fn id_condition(relation: &str, values: Vec<Value>) -> RawFilter {
    RawFilter::Leaf(RawLeaf { path: "id".into(), relation: relation.into(), values })
}

fn both(first: RawFilter, second: RawFilter) -> RawFilter {
    let mut conditions = vec![first];
    match second {
        RawFilter::Group { any: false, conditions: more } => conditions.extend(more),
        other => conditions.push(other),
    }
    RawFilter::Group { any: false, conditions }
}
