//! [`effective_settings`]: everything that applies to a pipeline, written or not, and
//! where it comes from.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::context::{Context, RunFacts};
use super::{CatchUp, Pipeline, ResolveContext, Start, fingerprint};
use crate::yaml::{Document, Templates, format_duration, has_template, join};

/// One thing that applies to a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its keys, joined by dots; steps are named by their ids.
    pub key: String,
    /// What applies.
    pub value: Value,
    /// Where that comes from.
    pub origin: Origin,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The pipeline file, or `config.yaml`: file and line.
    File(String),
    /// `--set`.
    Set,
    /// It is written in no file.
    BuiltIn,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(place) => f.write_str(place),
            Origin::Set => f.write_str("--set"),
            Origin::BuiltIn => f.write_str("built in"),
        }
    }
}

/// One value of a file that is not a container, or a list of such.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// Its keys, joined by dots; entries with an `id` are named by it.
    pub key: String,
    /// Where it stands.
    pub pointer: String,
    /// What is written.
    pub value: Value,
}

/// Returns every value of a file, in the order of its keys.
pub fn leaves(value: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect("", "", value, &mut found);
    found
}

fn collect(key: &str, pointer: &str, value: &Value, found: &mut Vec<Leaf>) {
    let dotted = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(name, value)| collect(&dotted(name), &join(pointer, name), value, found));
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, item) in items.iter().enumerate() {
                let name = item.get("id").and_then(Value::as_str).map_or_else(|| at.to_string(), str::to_owned);
                collect(&dotted(&name), &join(pointer, &at.to_string()), item, found);
            }
        }
        _ => found.push(Leaf { key: key.to_owned(), pointer: pointer.to_owned(), value: value.clone() }),
    }
}

/// Returns what a file says with the addresses of pings covered: they are often secrets.
/// What covers an address differs for different ones.
pub fn without_addresses(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value.as_str().filter(|text| key == "ping" && !has_template(text)) {
                Some(address) => (key.clone(), format!("*** ({:08x})", fingerprint(address) >> 32).into()),
                None => (key.clone(), without_addresses(value)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(without_addresses).collect(),
        other => other.clone(),
    }
}

/// What settings are made from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The pipeline file.
    pub document: &'a Document,
    /// `config.yaml`.
    pub config: &'a Document,
    /// What the file was resolved to.
    pub pipeline: &'a Pipeline,
    /// What it was resolved against.
    pub context: &'a ResolveContext,
    /// The parameters of `--set`, typed.
    pub set: &'a std::collections::BTreeMap<String, Value>,
}

/// Returns everything that applies to a pipeline. With `rendered`, expressions that need
/// no run are replaced by their values.
pub fn effective_settings(sources: &Sources<'_>, rendered: bool) -> Vec<Setting> {
    let document = sources.document;
    let known = known_context(sources);
    let templates = &sources.context.templates;
    let mut settings: Vec<Setting> = leaves(&without_addresses(document.value()))
        .into_iter()
        .filter(|leaf| leaf.key.split('.').next() != Some("tests"))
        .map(|leaf| Setting {
            origin: Origin::File(document.place(&leaf.pointer).to_string()),
            // An address that comes from the environment is a secret, too.
            value: match rendered && !leaf.key.ends_with(".ping") {
                true => rendered_value(templates, &leaf.value, &known),
                false => leaf.value,
            },
            key: leaf.key,
        })
        .collect();
    for setting in unwritten(sources) {
        if document.value().pointer(&pointer_of(&setting.key)).is_none() {
            settings.push(setting);
        }
    }
    for (name, value) in sources.set {
        let key = format!("params.{name}.value");
        settings.push(Setting { key, value: value.clone(), origin: Origin::Set });
    }
    settings.sort_by_key(|setting| rank(&setting.key));
    settings
}

/// The order of sections in a listing; within one, that of the file.
fn rank(key: &str) -> usize {
    const SECTIONS: [&str; 14] = [
        "name",
        "description",
        "labels",
        "enabled",
        "continuous",
        "schedule",
        "blackout",
        "concurrency",
        "timeout",
        "retry",
        "params",
        "steps",
        "on_drift",
        "on_error",
    ];
    let section = key.split('.').next().unwrap_or_default();
    SECTIONS.iter().position(|name| *name == section).unwrap_or(SECTIONS.len())
}

fn pointer_of(key: &str) -> String {
    key.split('.').fold(String::new(), |pointer, name| join(&pointer, name))
}

/// What an expression sees that needs no run.
fn known_context(sources: &Sources<'_>) -> Value {
    let pipeline = sources.pipeline;
    let mut params = pipeline.params.sample();
    params.extend(sources.set.clone());
    let facts = RunFacts::sample();
    let named = (pipeline.name.as_str(), &pipeline.labels);
    let context = Context::new(named, &sources.context.site, &params, &facts, chrono_tz::UTC);
    let mut known = context.value().clone();
    for of_run in ["run", "previous", "steps"] {
        known.as_object_mut().map(|map| map.remove(of_run));
    }
    known
}

fn rendered_value(templates: &Templates, value: &Value, known: &Value) -> Value {
    let is_template = |value: &Value| value.as_str().is_some_and(has_template);
    match value {
        Value::Array(items) => items.iter().map(|item| rendered_value(templates, item, known)).collect(),
        text if is_template(text) => templates.render("", text, known).unwrap_or_else(|_| text.clone()),
        other => other.clone(),
    }
}

/// What applies although the pipeline file does not say it.
fn unwritten(sources: &Sources<'_>) -> Vec<Setting> {
    let pipeline = sources.pipeline;
    let mut settings = Vec::new();
    let mut add = |key: &str, value: Value, default: Option<&str>| {
        let place = default.filter(|at| sources.config.value().pointer(at).is_some());
        let origin = place.map_or(Origin::BuiltIn, |at| Origin::File(sources.config.place(at).to_string()));
        settings.push(Setting { key: key.to_owned(), value, origin });
    };
    add("enabled", pipeline.enabled.into(), None);
    add_start(&pipeline.start, &mut add);
    add("concurrency.policy", pipeline.policy.as_str().into(), None);
    if let Some(timeout) = pipeline.timeout {
        add("timeout", duration(timeout), Some("/pipelines/defaults/timeout"));
    }
    let retry = &pipeline.retry;
    add("retry.attempts", retry.attempts.into(), Some("/pipelines/defaults/retry/attempts"));
    add("retry.initial", duration(retry.initial), Some("/pipelines/defaults/retry/initial"));
    add("retry.max", duration(retry.max), Some("/pipelines/defaults/retry/max"));
    let classes: Vec<&str> = retry.on.iter().map(|class| class.as_str()).collect();
    add("retry.on", json!(classes), Some("/pipelines/defaults/retry/on"));
    for step in pipeline.steps.iter().filter(|step| step.fail_when.is_some()) {
        let is_written = sources.document.value()["steps"].as_array().into_iter().flatten();
        let mut is_written = is_written.filter(|written| written["id"] == step.id.as_str());
        if !is_written.any(|written| written.get("fail_when").is_some()) {
            add(&format!("steps.{}.fail_when", step.id), json!(step.fail_when), None);
        }
    }
    add("outputs.prometheus", pipeline.outputs.prometheus.into(), None);
    settings
}

fn duration(duration: Duration) -> Value {
    Value::from(format_duration(duration))
}

/// Adds what decides about starts.
fn add_start(start: &Start, add: &mut impl FnMut(&str, Value, Option<&str>)) {
    match start {
        Start::Scheduled(schedule) => {
            add("schedule.timezone", schedule.timezone.name().into(), Some("/timezone"));
            add("schedule.jitter", duration(schedule.jitter), None);
            let catch_up = if schedule.catch_up == CatchUp::Once { "once" } else { "skip" };
            add("schedule.catch_up", catch_up.into(), Some("/pipelines/defaults/catch_up"));
            let window = Some("/pipelines/defaults/catch_up_window");
            add("schedule.catch_up_window", duration(schedule.catch_up_window), window);
        }
        Start::Continuous(continuous) => {
            add("continuous.interval", duration(continuous.interval), None);
            add("continuous.max_interval", duration(continuous.max_interval), None);
            add("continuous.stall_after", duration(continuous.stall_after), None);
            add("continuous.restart.initial", duration(continuous.restart_initial), None);
            add("continuous.restart.max", duration(continuous.restart_max), None);
            add("continuous.restart.reset_after", duration(continuous.reset_after), None);
        }
        Start::Manual => {}
    }
}
