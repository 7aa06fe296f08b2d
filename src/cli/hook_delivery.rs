//! Delivers what hooks of pipelines say: to notifiers, to addresses, and into files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::pipeline::{Deliver, Delivered, HookMessage, HookTarget};
use crate::report::{Notification, Notifiers, RunReport};
use crate::state::State;
use crate::yaml;

/// Returns the function by which hooks deliver. Paths of files begin at `directory`.
pub(super) fn deliver(notifiers: &Notifiers, state: &State, directory: &Path) -> Deliver {
    let (notifiers, state, directory) = (notifiers.clone(), state.clone(), directory.to_owned());
    std::sync::Arc::new(move |message| {
        let (notifiers, state, directory) = (notifiers.clone(), state.clone(), directory.clone());
        Box::pin(async move {
            match &message.target {
                HookTarget::Notify(name) => notify(&notifiers, &state, name, &message).await,
                HookTarget::Ping(address) => notifiers.ping(address).await.map(|()| Delivered::Sent),
                HookTarget::File(path) => write(&directory.join(path), &message.report).await.map(|()| Delivered::Sent),
            }
        })
    })
}

async fn notify(notifiers: &Notifiers, state: &State, name: &str, hook: &HookMessage) -> Result<Delivered, String> {
    let place = format!("notified/{name}/{}/{}", hook.report.pipeline, hook.report.status);
    let dedupe = notifiers.dedupe(name);
    if let Some(dedupe) = dedupe
        && was_notified(state, &place, dedupe).await
    {
        return Ok(Delivered::Duplicate);
    }
    let HookMessage { message, report, context, .. } = hook;
    notifiers.notify(name, Notification { message, report, context }).await?;
    // Only what arrived is not said again.
    if dedupe.is_some()
        && let Err(error) = state.keep(&place, &Utc::now()).await
    {
        tracing::warn!(%error, name, "when a notifier was notified could not be kept: it may be notified again");
    }
    Ok(Delivered::Sent)
}

/// Tells whether a notifier was notified within this time. A moment that cannot be read, or
/// that lies in the future, is none: one message too many is better than one too few.
async fn was_notified(state: &State, place: &str, within: Duration) -> bool {
    let last: Option<DateTime<Utc>> = state.cursor(place).await.ok().flatten();
    last.and_then(|last| (Utc::now() - last).to_std().ok()).is_some_and(|since| since < within)
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
