//! [`Notifiers`]: posts what pipelines have to say to people and to dead-man
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
use crate::retry::{RetryPolicy, retry_after};

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a notifier is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifierKind {
    /// `{"text": message}`, as Slack and Mattermost want it.
    Slack,
    /// The message and the run report, for a program.
    Webhook,
}

/// One notifier of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Notifier {
    /// What it is sent.
    pub kind: NotifierKind,
    /// Where to; not shown.
    pub url: String,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Posts to notifiers and fetches the addresses of pings; clones share connections.
#[derive(Debug, Clone)]
pub struct Notifiers {
    named: Arc<RwLock<BTreeMap<String, Notifier>>>,
    http: reqwest::Client,
    retry: RetryPolicy,
}

impl Notifiers {
    /// Makes them ready; nothing is sent.
    pub fn new(named: BTreeMap<String, Notifier>) -> Notifiers {
        let retry = RetryPolicy { attempts: 3, initial: Duration::from_secs(2), max: Duration::from_secs(10) };
        // A server that a webhook redirects to must not learn the address that led there.
        let http = reqwest::Client::builder().referer(false).build().expect("the TLS library starts");
        Notifiers { named: Arc::new(RwLock::new(named)), http, retry }
    }

    /// Takes over other notifiers.
    pub fn replace(&self, named: BTreeMap<String, Notifier>) {
        *self.named.write() = named;
    }

    /// Posts a message about a run to a notifier.
    ///
    /// # Errors
    ///
    /// Why it did not arrive, in words without secrets.
    pub async fn notify(&self, name: &str, message: &str, report: &RunReport) -> Result<(), String> {
        let known = self.named.read().get(name).cloned();
        let Some(notifier) = known else { return Err(format!("there is no notifier `{name}`")) };
        let body = body(notifier.kind, message, report);
        self.send(|| self.http.post(&notifier.url).json(&body)).await
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

fn body(kind: NotifierKind, message: &str, report: &RunReport) -> Value {
    match kind {
        NotifierKind::Slack => json!({ "text": message }),
        NotifierKind::Webhook => json!({
            "text": message,
            "pipeline": report.pipeline,
            "status": report.status,
            "run_id": report.run_id,
            "report": report,
        }),
    }
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
        let error = Notifiers::new(BTreeMap::new()).ping(&url).await.expect_err("it is refused");
        assert!(error.contains("429"), "{error}");
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }
}
