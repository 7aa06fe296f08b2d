//! Delivers what hooks of pipelines say: to notifiers, to addresses, and into files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::metrics::Metrics;
use crate::pipeline::{Deliver, Delivered, HookMessage, HookTarget, fingerprint};
use crate::report::{Notification, Notifiers, RunReport};
use crate::state::State;
use crate::yaml;

/// The messages about one pipeline of which is kept when a notifier received them. One that
/// is pushed out is sent again, so it is far above what a pipeline says within `dedupe`.
const MAX_KEPT_MESSAGES: usize = 200;

/// When a notifier received which messages about one pipeline, by [`digest`].
type Received = BTreeMap<String, DateTime<Utc>>;

/// Returns the function by which hooks deliver. Paths of files begin at `directory`.
pub(super) fn deliver(notifiers: &Notifiers, state: &State, metrics: &Metrics, directory: &Path) -> Deliver {
    let (notifiers, state, directory) = (notifiers.clone(), state.clone(), directory.to_owned());
    let metrics = metrics.clone();
    std::sync::Arc::new(move |message| {
        let (notifiers, state, directory) = (notifiers.clone(), state.clone(), directory.clone());
        let metrics = metrics.clone();
        Box::pin(async move {
            match &message.target {
                HookTarget::Notify(name) => {
                    let delivered = notify(&notifiers, &state, name, &message).await;
                    let result = match &delivered {
                        Ok(Delivered::Sent) => "sent",
                        Ok(Delivered::Duplicate) => "duplicate",
                        Err(_) => "failed",
                    };
                    metrics.reports.notifications.inc(&[result]);
                    delivered
                }
                HookTarget::Ping(address) => notifiers.ping(address).await.map(|()| Delivered::Sent),
                HookTarget::File(path) => write(&directory.join(path), &message.report).await.map(|()| Delivered::Sent),
            }
        })
    })
}

async fn notify(notifiers: &Notifiers, state: &State, name: &str, hook: &HookMessage) -> Result<Delivered, String> {
    let place = format!("notified/{name}/{}", hook.report.pipeline);
    let digest = digest(hook);
    let dedupe = notifiers.dedupe(name);
    if let Some(within) = dedupe
        && received(state, &place, within).await.contains_key(&digest)
    {
        return Ok(Delivered::Duplicate);
    }
    let HookMessage { message, report, context, .. } = hook;
    notifiers.notify(name, Notification { message, report, context }).await?;
    // Only what arrived is not said again.
    if let Some(within) = dedupe
        && let Err(error) = keep(state, &place, within, digest).await
    {
        tracing::warn!(%error, name, "when a notifier was notified could not be kept: it may be notified again");
    }
    Ok(Delivered::Sent)
}

/// Returns what tells a message from another one about the same pipeline: the status, and
/// the text. Id and times of the run stand in every message anew (the default one names the
/// run), so they do not make it another one.
fn digest(hook: &HookMessage) -> String {
    let run = &hook.context["run"];
    let of_run_alone = ["id", "started_at", "scheduled_for"].into_iter().filter_map(|key| run[key].as_str());
    let text = of_run_alone
        .filter(|text| !text.is_empty())
        .fold(hook.message.clone(), |message, text| message.replace(text, ""));
    format!("{:016x}", fingerprint(&format!("{} {text}", run["status"])))
}

/// Returns what a notifier received within this time. A moment that lies in the future is
/// left out, and so is all when it cannot be read: one message too many is better than one
/// too few.
async fn received(state: &State, place: &str, within: Duration) -> Received {
    let mut received: Received = state.cursor(place).await.ok().flatten().unwrap_or_default();
    let now = Utc::now();
    received.retain(|_, at| (now - *at).to_std().is_ok_and(|since| since < within));
    received
}

async fn keep(state: &State, place: &str, within: Duration, digest: String) -> crate::state::Result<()> {
    let mut received = received(state, place, within).await;
    while received.len() >= MAX_KEPT_MESSAGES
        && let Some(oldest) = received.iter().min_by_key(|(_, at)| **at).map(|(digest, _)| digest.clone())
    {
        received.remove(&oldest);
    }
    received.insert(digest, Utc::now());
    state.keep(place, &received).await
}

/// Writes a report as JSON. The file appears when it is whole.
async fn write(path: &Path, report: &RunReport) -> Result<(), String> {
    let failed = |path: &Path, error: &std::io::Error| format!("{} cannot be written: {error}", path.display());
    if let Some(directory) = path.parent() {
        tokio::fs::create_dir_all(directory).await.map_err(|error| failed(directory, &error))?;
    }
    let partial = PathBuf::from(format!("{}.partial", path.display()));
    let text = format!("{}\n", yaml::to_json(report));
    tokio::fs::write(&partial, text).await.map_err(|error| failed(&partial, &error))?;
    tokio::fs::rename(&partial, path).await.map_err(|error| failed(path, &error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::http::StatusCode;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;
    use crate::metrics::Labels;
    use crate::report::{Notifier, NotifierKind};
    use crate::yaml::Templates;

    /// A receiver of messages that can refuse them.
    struct Receiver {
        url: String,
        texts: Arc<Mutex<Vec<String>>>,
        is_refusing: Arc<AtomicBool>,
    }

    impl Receiver {
        async fn start() -> Receiver {
            let (texts, is_refusing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
            let (seen, refusing) = (Arc::clone(&texts), Arc::clone(&is_refusing));
            let app = axum::Router::new().fallback(async move |body: axum::Json<serde_json::Value>| {
                if refusing.load(Ordering::Relaxed) {
                    // So long a pause is not waited for.
                    return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")]);
                }
                seen.lock().push(body["text"].as_str().expect("a text").to_owned());
                (StatusCode::OK, [("retry-after", "0")])
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/", listener.local_addr().expect("an address"));
            tokio::spawn(async move { axum::serve(listener, app).await.expect("a server") });
            Receiver { url, texts, is_refusing }
        }

        fn notifiers(&self) -> Notifiers {
            let notifier =
                Notifier { kind: NotifierKind::Slack(self.url.clone()), dedupe: Some(Duration::from_secs(3600)) };
            let named = ["board", "other"].map(|name| (name.to_owned(), notifier.clone())).into();
            Notifiers::new(named, Templates::new(&BTreeMap::new()))
        }
    }

    fn hook(notifier: &str, pipeline: &str, message: &str) -> HookMessage {
        let report = RunReport::of_schedule(pipeline);
        let context = json!({ "run": { "id": report.run_id, "started_at": report.started_at, "status": "ok" } });
        let message = message.replace("RUN", &report.run_id);
        HookMessage { target: HookTarget::Notify(notifier.into()), message, report: Box::new(report), context }
    }

    #[tokio::test]
    async fn the_same_message_is_left_out_and_counted_also_by_another_process() {
        let receiver = Receiver::start().await;
        let directory = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::new(&Labels::new(["Shot"]));
        let open = async || {
            let state = State::open(directory.path()).await.expect("a state");
            deliver(&receiver.notifiers(), &state, &metrics, directory.path())
        };
        let deliver = open().await;
        let said = async |deliver: &Deliver, notifier, pipeline, message| {
            deliver(hook(notifier, pipeline, message)).await.expect("a delivery")
        };
        assert_eq!(said(&deliver, "board", "a", "3 rows, run RUN").await, Delivered::Sent);
        assert_eq!(said(&deliver, "board", "a", "3 rows, run RUN").await, Delivered::Duplicate);
        assert_eq!(said(&deliver, "board", "a", "4 rows, run RUN").await, Delivered::Sent, "another message");
        assert_eq!(said(&deliver, "board", "b", "3 rows, run RUN").await, Delivered::Sent, "another pipeline");
        assert_eq!(said(&deliver, "other", "a", "3 rows, run RUN").await, Delivered::Sent, "another notifier");
        let deliver = open().await;
        assert_eq!(said(&deliver, "board", "a", "3 rows, run RUN").await, Delivered::Duplicate, "after a restart");
        assert_eq!(receiver.texts.lock().len(), 4);
        let counted = |result| metrics.value("sgcache_report_notifications_total", &[("result", result)]);
        assert_eq!((counted("sent"), counted("duplicate"), counted("failed")), (Some(4.0), Some(2.0), Some(0.0)));
    }

    #[tokio::test]
    async fn a_message_that_did_not_arrive_is_sent_again() {
        let receiver = Receiver::start().await;
        let directory = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::new(&Labels::new(["Shot"]));
        let state = State::open(directory.path()).await.expect("a state");
        let deliver = deliver(&receiver.notifiers(), &state, &metrics, directory.path());
        receiver.is_refusing.store(true, Ordering::Relaxed);
        deliver(hook("board", "a", "3 rows")).await.expect_err("it is refused");
        receiver.is_refusing.store(false, Ordering::Relaxed);
        assert_eq!(deliver(hook("board", "a", "3 rows")).await, Ok(Delivered::Sent));
        assert_eq!(metrics.value("sgcache_report_notifications_total", &[("result", "failed")]), Some(1.0));
    }

    #[tokio::test]
    async fn what_is_kept_about_a_pipeline_is_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::open(directory.path()).await.expect("a state");
        let within = Duration::from_secs(3600);
        let old = Utc::now() - chrono::TimeDelta::minutes(1);
        let mut received: Received = (1..MAX_KEPT_MESSAGES).map(|at| (format!("{at}"), old)).collect();
        received.insert("oldest".to_owned(), old - chrono::TimeDelta::minutes(1));
        received.insert("over".to_owned(), old - chrono::TimeDelta::hours(2));
        state.keep("place", &received).await.expect("it is kept");
        keep(&state, "place", within, "new".to_owned()).await.expect("it is kept");
        let kept: Received = state.cursor("place").await.expect("a state").expect("a value");
        assert_eq!(kept.len(), MAX_KEPT_MESSAGES);
        assert!(kept.contains_key("new") && !kept.contains_key("oldest") && !kept.contains_key("over"));
    }
}
