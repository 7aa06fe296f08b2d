//! [`Notifiers`]: sends what pipelines have to say to people, to programs and to dead-man
//! switches.
//!
//! An address is often a secret of its own, so no error repeats more of it than
//! the host.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use serde_json::{Value, json};

use super::RunReport;
use super::mail::Mail;
use crate::retry::{RetryPolicy, retry_after};
use crate::yaml::Templates;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a notifier is sent, and where to.
#[derive(Clone, PartialEq, Eq)]
pub enum NotifierKind {
    /// `{"text": message}` to this address, as Slack and Mattermost want it.
    Slack(String),
    /// The message and the run report, for a program.
    Webhook(Webhook),
    /// The message, for people.
    Email(Box<Mail>),
}

/// How a program is notified.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where to; not shown.
    pub url: String,
    /// The HTTP method; `None` is POST.
    pub method: Option<String>,
    /// What is sent, with expressions; `None` is the message and the report as JSON.
    pub body: Option<String>,
}

/// One notifier of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Notifier {
    /// What it is sent, and where to.
    pub kind: NotifierKind,
    /// Within this time the same message about a pipeline is sent once.
    pub dedupe: Option<Duration>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.kind {
            NotifierKind::Slack(_) => "slack",
            NotifierKind::Webhook(_) => "webhook",
            NotifierKind::Email(_) => "email",
        };
        f.debug_struct("Notifier").field("kind", &kind).finish_non_exhaustive()
    }
}

/// What is said to a notifier.
#[derive(Debug, Clone, Copy)]
pub struct Notification<'a> {
    /// The text.
    pub message: &'a str,
    /// The run that it is about.
    pub report: &'a RunReport,
    /// What expressions see: `run`, `pipeline`, `site`, `steps` and `message`.
    pub context: &'a Value,
}

/// Posts to notifiers and fetches the addresses of pings; clones share connections.
#[derive(Debug, Clone)]
pub struct Notifiers {
    named: Arc<RwLock<BTreeMap<String, Notifier>>>,
    http: reqwest::Client,
    templates: Templates,
    retry: RetryPolicy,
}

impl Notifiers {
    /// Makes them ready; nothing is sent.
    pub fn new(named: BTreeMap<String, Notifier>, templates: Templates) -> Notifiers {
        let retry = RetryPolicy { attempts: 3, initial: Duration::from_secs(2), max: Duration::from_secs(10) };
        // A server that a webhook redirects to must not learn the address that led there.
        let http = reqwest::Client::builder().referer(false).build().expect("the TLS library starts");
        Notifiers { named: Arc::new(RwLock::new(named)), http, templates, retry }
    }

    /// Takes over other notifiers.
    pub fn replace(&self, named: BTreeMap<String, Notifier>) {
        *self.named.write() = named;
    }

    /// Returns within which time a notifier is sent the same message about a pipeline once.
    pub fn dedupe(&self, name: &str) -> Option<Duration> {
        self.named.read().get(name)?.dedupe
    }

    /// Sends a message about a run to a notifier.
    ///
    /// # Errors
    ///
    /// Why it did not arrive, in words without secrets.
    pub async fn notify(&self, name: &str, notification: Notification<'_>) -> Result<(), String> {
        let known = self.named.read().get(name).cloned();
        let Some(notifier) = known else { return Err(format!("there is no notifier `{name}`")) };
        let Notification { message, report, .. } = notification;
        match &notifier.kind {
            NotifierKind::Slack(url) => {
                let body = json!({ "text": message });
                self.send(|| self.http.post(url).json(&body)).await
            }
            NotifierKind::Webhook(webhook) => self.post(webhook, notification).await,
            NotifierKind::Email(mail) => {
                let subject = format!("sgcache: {} {}", report.pipeline, report.status);
                mail.send(&subject, message).await
            }
        }
    }

    async fn post(&self, webhook: &Webhook, notification: Notification<'_>) -> Result<(), String> {
        let method = webhook.method.as_deref().and_then(|name| name.parse().ok()).unwrap_or(reqwest::Method::POST);
        let request = || self.http.request(method.clone(), &webhook.url);
        let Some(body) = &webhook.body else {
            let body = whole_body(notification);
            return self.send(|| request().json(&body)).await;
        };
        let rendered =
            self.templates.render_text(body, notification.context).map_err(|error| format!("body: {error}"))?;
        let text = match rendered {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let kind = match serde_json::from_str::<Value>(&text) {
            Ok(_) => "application/json",
            Err(_) => "text/plain; charset=utf-8",
        };
        self.send(|| request().header("content-type", kind).body(text.clone())).await
    }

    /// Fetches an address.
    ///
    /// # Errors
    ///
    /// Why it was not answered, in words without secrets.
    pub async fn ping(&self, url: &str) -> Result<(), String> {
        self.send(|| self.http.get(url)).await
    }

    async fn send(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<(), String> {
        let mut attempt = 1;
        loop {
            let (error, asked) = match request().timeout(TIMEOUT).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let error = format!("{} answered {}", host(answer.url()), answer.status());
                    (error, retry_after(answer.headers()))
                }
                Err(error) => {
                    let place = error.url().map_or_else(|| "the address".to_owned(), host);
                    (format!("{place} cannot be reached: {}", error.without_url()), None)
                }
            };
            // The run waits for its hooks, so a long pause is not waited for; and a server
            // that is asked earlier refuses again.
            let is_too_long = asked.is_some_and(|asked| asked > self.retry.max);
            match self.retry.pause_after(attempt, asked).filter(|_| !is_too_long) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            }
            attempt += 1;
        }
    }
}

fn host(url: &reqwest::Url) -> String {
    url.host_str().unwrap_or("the address").to_owned()
}

fn whole_body(Notification { message, report, .. }: Notification<'_>) -> Value {
    json!({
        "text": message,
        "pipeline": report.pipeline,
        "status": report.status,
        "run_id": report.run_id,
        "report": report,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_server_that_asks_for_a_long_pause_is_not_asked_again_before() {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let app = axum::Router::new().fallback(async move || {
            counted.fetch_add(1, Ordering::Relaxed);
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")])
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
        let error = Notifiers::new(BTreeMap::new(), Templates::new(&BTreeMap::new()))
            .ping(&url)
            .await
            .expect_err("it is refused");
        assert!(error.contains("429"), "{error}");
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_webhook_is_sent_its_own_body_by_its_own_method() {
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 10_000).await.expect("a body");
            let kind = head.headers["content-type"].to_str().expect("text").to_owned();
            sender.send((head.method, kind, String::from_utf8_lossy(&body).into_owned())).expect("the test listens");
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
        let webhook = |method: Option<&str>, body: Option<&str>| {
            let (url, method, body) = (url.clone(), method.map(str::to_owned), body.map(str::to_owned));
            Notifier { kind: NotifierKind::Webhook(Webhook { url, method, body }), dedupe: None }
        };
        let named = [
            ("json", webhook(Some("PUT"), Some("{\"note\": ${{ message|tojson }}, \"run\": ${{ run.id|tojson }}}"))),
            ("text", webhook(None, Some("status=${{ run.status }}"))),
            ("whole", webhook(Some("PATCH"), None)),
            ("broken", webhook(None, Some("${{ nothing }}"))),
        ];
        let named = named.map(|(name, notifier)| (name.to_owned(), notifier)).into();
        let notifiers = Notifiers::new(named, Templates::new(&BTreeMap::new()));
        let report = RunReport::of_schedule("nightly");
        let context = json!({"message": "3 \"rows\"", "run": {"id": "R", "status": "drift"}});
        let notification = Notification { message: "3 \"rows\"", report: &report, context: &context };
        for name in ["json", "text", "whole"] {
            notifiers.notify(name, notification).await.expect("it arrives");
        }
        let (method, kind, body) = received.recv().await.expect("a request");
        let expected = ("PUT", "application/json", "{\"note\": \"3 \\\"rows\\\"\", \"run\": \"R\"}");
        assert_eq!((method.as_str(), kind.as_str(), body.as_str()), expected);
        let (method, kind, body) = received.recv().await.expect("a request");
        assert_eq!((method.as_str(), kind.starts_with("text/plain"), body.as_str()), ("POST", true, "status=drift"));
        let (method, _, body) = received.recv().await.expect("a request");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((method.as_str(), &body["pipeline"]), ("PATCH", &json!("nightly")));
        let error = notifiers.notify("broken", notification).await.expect_err("an expression without a value");
        assert!(error.contains("`nothing` is not defined"), "{error}");
    }
}
