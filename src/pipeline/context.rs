//! What expressions can see: `params`, `pipeline`, `run`, `steps`, `site`,
//! `previous`, and `result` where a result is judged.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Datelike, Timelike, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::report::{Status, StepResult, Trigger};

/// The site, as expressions see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// A short name.
    pub name: String,
    /// Its URL.
    pub url: String,
}

/// How the run before this one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Its status.
    pub status: Status,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
}

/// The facts about a run that expressions see.
#[derive(Debug, Clone)]
pub(super) struct RunFacts {
    pub run_id: String,
    pub trigger: Trigger,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub previous: Option<Previous>,
}

impl RunFacts {
    /// Returns facts of the kind that every run has, for checks of expressions.
    pub fn sample() -> Self {
        let (run_id, started_at) = (String::new(), DateTime::UNIX_EPOCH);
        Self { run_id, trigger: Trigger::Cron, scheduled_for: None, started_at, previous: None }
    }
}

/// The context of a run, to which results are added as steps end.
#[derive(Debug, Clone)]
pub(super) struct Context(Value);

impl Context {
    /// Returns the context of a run of the pipeline with this name and these labels.
    pub fn new(
        (name, labels): (&str, &BTreeMap<String, String>),
        site: &Site,
        params: &BTreeMap<String, Value>,
        facts: &RunFacts,
        zone: Tz,
    ) -> Context {
        let local = facts.started_at.with_timezone(&zone);
        let previous = facts.previous;
        Context(json!({
            "params": params,
            "pipeline": { "name": name, "labels": labels },
            "site": { "name": site.name, "url": site.url },
            "run": {
                "id": facts.run_id,
                "trigger": facts.trigger.as_str(),
                "attempt": 1,
                "scheduled_for": facts.scheduled_for.map(|at| at.to_rfc3339()),
                "started_at": facts.started_at.to_rfc3339(),
                "date": local.date_naive().to_string(),
                "hour": local.hour(),
                // 1 is Monday, 7 is Sunday.
                "weekday": local.weekday().number_from_monday(),
            },
            "previous": {
                "status": previous.map(|run| run.status.as_str()),
                "finished_at": previous.map(|run| run.finished_at.to_rfc3339()),
            },
            "steps": {},
        }))
    }

    /// Adds the [`visible`] result of a step, under `steps` and its id.
    pub fn add_step(&mut self, id: &str, status: Status, result: Value) {
        let seen = json!({ "status": status.as_str(), "result": result });
        if let Some(steps) = self.0["steps"].as_object_mut() {
            steps.insert(id.to_owned(), seen);
        }
    }

    /// Adds how the run ended, for hooks.
    pub fn ended(&mut self, status: Status, reason: Option<&str>) {
        self.0["run"]["status"] = status.as_str().into();
        self.0["run"]["reason"] = reason.unwrap_or_default().into();
    }

    /// Adds for how long the pipeline has done nothing, for the hooks of alarms.
    pub fn stalled(&mut self, status: &str, words: &str, silence: Duration) {
        self.0["run"]["status"] = status.into();
        self.0["run"]["reason"] = words.into();
        self.0["run"]["lag_seconds"] = silence.as_secs().into();
    }

    /// Returns what the hooks of an alarm say without a message; `None` for those of runs.
    pub fn alarm_words(&self) -> Option<&str> {
        self.0["run"].get("lag_seconds")?;
        self.0["run"]["reason"].as_str()
    }

    /// Returns what a notifier sees.
    pub fn with_message(&self, message: &str) -> Value {
        let mut value = self.0.clone();
        value["message"] = message.into();
        value
    }

    /// Returns what `when` and arguments see.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Returns what `warn_when` and `fail_when` see of a [`visible`] result.
    pub fn judging(&self, result: Value) -> Value {
        let mut value = self.0.clone();
        value["result"] = result;
        value
    }
}

/// Returns what the texts of notifiers can see of any run, for checks.
pub fn sample_hook_context() -> Value {
    let facts = RunFacts::sample();
    let (site, nothing) = (Site::default(), BTreeMap::new());
    let mut context = Context::new(("", &BTreeMap::new()), &site, &nothing, &facts, Tz::UTC);
    context.ended(Status::Ok, None);
    context.with_message("")
}

/// Returns a result without its mismatches: there can be thousands of them.
pub(super) fn visible(result: &StepResult) -> Value {
    let mut small = result.clone();
    small.mismatches.clear();
    let mut value = crate::yaml::to_json(&small);
    if let Some(map) = value.as_object_mut() {
        map.remove("mismatches");
        map.entry("outputs").or_insert_with(|| json!({}));
    }
    value
}
