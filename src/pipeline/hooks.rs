//! [`Hooks`]: what is delivered to whom when a run has ended.
//!
//! Which hooks fire follows from how the run ended alone. Delivery is passed in as
//! a function ([`Deliver`]), as running a job is: there is no HTTP here. A hook that
//! fails never changes how the run ended; the report says what became of it.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;

use super::Previous;
use super::context::Context;
use crate::report::{HookReport, RunReport, Status};
use crate::yaml::Templates;

/// The hooks of a pipeline, by what makes them fire.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Drift was found, repaired since or not.
    pub on_drift: Vec<Hook>,
    /// A step broke or ran out of its time.
    pub on_error: Vec<Hook>,
    /// The run did its work and nothing is left to repair.
    pub on_success: Vec<Hook>,
    /// The run came to an end, whatever it was.
    pub always: Vec<Hook>,
    /// The pipeline is stalled.
    pub on_stalled: Vec<Hook>,
    /// It is not stalled any more.
    pub on_recovered: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// The receiver.
    pub target: HookTarget,
    /// What is delivered, with expressions; `None` for a sentence about the run.
    pub message: Option<String>,
    /// How often.
    pub every: Every,
}

/// The receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// A notifier of `config.yaml`, by name.
    Notify(String),
    /// An address that is fetched, with expressions; an empty one is left out.
    Ping(String),
    /// A file that the report is written to, with expressions, from the directory of
    /// `config.yaml` on.
    File(String),
}

impl HookTarget {
    /// Returns what reports call it: `notify:NAME`, `ping` or `file`.
    pub fn label(&self) -> String {
        match self {
            HookTarget::Notify(name) => format!("notify:{name}"),
            // The address is often the secret.
            HookTarget::Ping(_) => "ping".to_owned(),
            HookTarget::File(_) => "file".to_owned(),
        }
    }
}

/// How often a hook fires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// With every run.
    #[default]
    Run,
    /// When the run before ended otherwise.
    Change,
}

/// A hook that fires, rendered.
#[derive(Debug, Clone)]
pub struct HookMessage {
    /// The receiver; addresses and paths are complete.
    pub target: HookTarget,
    /// The text.
    pub message: String,
    /// The run.
    pub report: Box<RunReport>,
    /// What expressions see, with `message`.
    pub context: Value,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It arrived.
    Sent,
    /// It was left out: the receiver got one like it not long ago.
    Duplicate,
}

/// Delivers the message; the error is for the report and holds no secret.
pub type Deliver = Arc<dyn Fn(HookMessage) -> BoxFuture<'static, Result<Delivered, String>> + Send + Sync>;

impl Hooks {
    /// Returns every hook that runs fire, with the key it stands under.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Hook)> {
        let lists = [
            ("on_drift", &self.on_drift),
            ("on_error", &self.on_error),
            ("on_success", &self.on_success),
            ("always", &self.always),
        ];
        lists.into_iter().flat_map(|(key, hooks)| hooks.iter().map(move |hook| (key, hook)))
    }

    /// Returns the hooks that fire after a run that ended like this.
    pub fn after(&self, status: Status, previous: Option<&Previous>) -> Vec<&Hook> {
        let fires = |key: &str| match key {
            "on_drift" => matches!(status, Status::Drift | Status::Repaired),
            "on_error" => matches!(status, Status::Error | Status::Timeout),
            "on_success" => matches!(status, Status::Ok | Status::Warn | Status::Repaired),
            // A process that stops does not wait.
            _ => status != Status::Interrupted,
        };
        let changed = previous.is_none_or(|before| before.status != status);
        let wanted = |hook: &Hook| hook.every == Every::Run || changed;
        self.all().filter(|(key, hook)| fires(key) && wanted(hook)).map(|(_, hook)| hook).collect()
    }
}

impl Hook {
    /// Renders the hook and delivers it; `None` without a receiver, and for a message that
    /// was left out.
    pub(super) async fn fire(
        &self,
        deliver: &Deliver,
        templates: &Templates,
        context: &Context,
        report: &RunReport,
    ) -> Option<HookReport> {
        let target = self.target.label();
        let delivered = match self.rendered(templates, context, report) {
            Ok((HookTarget::Ping(address), _)) if address.is_empty() => return None,
            Ok((receiver, message)) => {
                let context = context.with_message(&message);
                let reported = match &receiver {
                    HookTarget::File(path) => path.clone(),
                    _ => message.clone(),
                };
                let report = Box::new(report.clone());
                match deliver(HookMessage { target: receiver, message, report, context }).await {
                    Ok(Delivered::Duplicate) => {
                        tracing::info!(target, "a message was left out, the last one is not long ago");
                        return None;
                    }
                    Ok(Delivered::Sent) => Ok(reported),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &delivered {
            tracing::warn!(pipeline = %report.pipeline, run_id = %report.run_id, target, error, "a hook failed");
        }
        let (message, error) = match delivered {
            Ok(message) => (message, None),
            Err(error) => (String::new(), Some(error)),
        };
        Some(HookReport { target, message, error })
    }

    fn rendered(
        &self,
        templates: &Templates,
        context: &Context,
        report: &RunReport,
    ) -> Result<(HookTarget, String), String> {
        let render = |text: &str| {
            let rendered = templates.render_text(text, context.value()).map_err(|error| error.to_string())?;
            Ok::<_, String>(match rendered {
                Value::String(text) => text,
                Value::Null => String::new(),
                other => other.to_string(),
            })
        };
        let target = match &self.target {
            HookTarget::Ping(address) => HookTarget::Ping(render(address)?),
            HookTarget::File(path) => HookTarget::File(render(path)?),
            named => named.clone(),
        };
        let message = match &self.message {
            Some(message) => render(message)?,
            None => match context.alarm_words() {
                Some(words) => format!("{}: {words}", report.pipeline),
                None => sentence(report),
            },
        };
        Ok((target, message))
    }
}

fn sentence(report: &RunReport) -> String {
    let reason = report.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}: {}{reason}, run {}", report.pipeline, report.status, report.run_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_run_ended_decides_which_hooks_fire() {
        let hook = |name: &str, every| Hook { target: HookTarget::Notify(name.into()), message: None, every };
        let hooks = Hooks {
            on_drift: vec![hook("drift", Every::Change)],
            on_error: vec![hook("error", Every::Run)],
            on_success: vec![hook("success", Every::Run)],
            always: vec![hook("always", Every::Run)],
            ..Hooks::default()
        };
        let before = |status| Previous { status, finished_at: chrono::DateTime::UNIX_EPOCH };
        let fired = |status, previous: Option<Status>| {
            let previous = previous.map(before);
            let names: Vec<_> = hooks
                .after(status, previous.as_ref())
                .into_iter()
                .map(|hook| match &hook.target {
                    HookTarget::Notify(name) | HookTarget::Ping(name) | HookTarget::File(name) => name.as_str(),
                })
                .collect();
            names.join(" ")
        };
        assert_eq!(fired(Status::Ok, None), "success always");
        assert_eq!(fired(Status::Repaired, None), "drift success always");
        assert_eq!(fired(Status::Drift, Some(Status::Ok)), "drift always");
        assert_eq!(fired(Status::Drift, Some(Status::Drift)), "always");
        assert_eq!(fired(Status::Timeout, None), "error always");
        assert_eq!(fired(Status::Skipped, None), "always");
        assert_eq!(fired(Status::Interrupted, None), "");
    }
}
