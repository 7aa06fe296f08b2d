//! [`Pipeline`]: what a file was resolved to, ready to be planned and run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::{Blackout, Hooks, JobSpec, Params, Retry, Schedule};

/// One pipeline, checked: names are known, expressions evaluate, arguments fit.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its name, unique among the pipelines.
    pub name: String,
    /// The file it was read from, as named in messages; empty for a single job.
    pub file: String,
    /// What its file says, without its tests; `null` for a single job.
    pub written: Arc<Value>,
    /// What it is for.
    pub description: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it starts by itself.
    pub enabled: bool,
    /// What makes it start.
    pub start: Start,
    /// What happens when it is due and something is in the way.
    pub policy: Policy,
    /// Pipelines of one group never run at the same time.
    pub group: Option<String>,
    /// The longest a run may take; `None` for continuous ones.
    pub timeout: Option<Duration>,
    /// How steps are tried again.
    pub retry: Retry,
    /// Its parameters.
    pub params: Params,
    /// What it does, in the order in which steps are run.
    pub steps: Vec<Step>,
    /// What is run when a step drifted.
    pub on_drift: Vec<Step>,
    /// The hooks that run after it.
    pub hooks: Hooks,
    /// Hours in which it does not start.
    pub blackouts: Vec<Blackout>,
    /// What each of its runs may ask of the site.
    pub budget: RunBudget,
    /// Where its results go.
    pub outputs: Outputs,
    /// Changes whenever the file, or what it takes over from `config.yaml`, says
    /// something else.
    pub hash: String,
    /// Changes whenever it would be due, or held back, at other times.
    pub schedule_hash: String,
}

/// What makes a pipeline start.
#[derive(Debug, Clone)]
pub enum Start {
    /// It runs all the time.
    Continuous(Continuous),
    /// It runs when it is due.
    Scheduled(Schedule),
    /// It runs on request only.
    Manual,
}

/// How a continuous pipeline waits and is restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuous {
    /// The wait after a poll that found nothing.
    pub interval: Duration,
    /// The longest wait while nothing happens.
    pub max_interval: Duration,
    /// Without a poll that worked for so long the daemon is not ready.
    pub stall_after: Duration,
    /// The wait before the first restart; doubles with each one.
    pub restart_initial: Duration,
    /// The longest wait before a restart.
    pub restart_max: Duration,
    /// After so long without a failure the wait starts small again.
    pub reset_after: Duration,
}

impl Default for Continuous {
    fn default() -> Continuous {
        Continuous {
            interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(2),
            stall_after: Duration::from_secs(60),
            restart_initial: Duration::from_secs(1),
            restart_max: Duration::from_secs(60),
            reset_after: Duration::from_secs(300),
        }
    }
}

/// What happens when a pipeline is due while it or its group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The occurrence is left out.
    #[default]
    Skip,
    /// It waits; of several the newest.
    Queue,
    /// The run that goes on is stopped and it starts. For one of its group it waits.
    Replace,
}

impl Policy {
    /// Every policy, in the spelling of YAML.
    pub const NAMES: [&'static str; 3] = ["skip", "queue", "replace"];

    /// Returns the word used in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Skip => "skip",
            Policy::Queue => "queue",
            Policy::Replace => "replace",
        }
    }
}

/// What one run may ask of the site; `None` is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunBudget {
    /// Requests in all; after them the run ends as `warn`.
    pub max_requests: Option<u64>,
    /// Requests per second.
    pub max_rps: Option<f64>,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// Into `/metrics`.
    pub prometheus: bool,
    /// What of them goes to the reports cluster, when there is one.
    pub elasticsearch: Detail,
    /// What its documents are called there, below `{prefix}-{stream}-`; `None` for those
    /// that all pipelines share.
    pub index: Option<String>,
}

impl Default for Outputs {
    fn default() -> Outputs {
        Outputs { prometheus: true, elasticsearch: Detail::Drift, index: None }
    }
}

/// How much of a run is sent to the reports cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The run, and its mismatches.
    #[default]
    Drift,
    /// The run alone.
    Summary,
}

/// One step of a pipeline.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its id, unique in the pipeline.
    pub id: String,
    /// The job it runs.
    pub job: &'static str,
    /// Steps that must have a result first.
    pub needs: Vec<String>,
    /// The expression that decides whether it runs.
    pub when: Option<String>,
    /// The arguments of the job.
    pub arguments: Arguments,
    /// The longest it may take, all attempts together.
    pub timeout: Option<Duration>,
    /// The expression that makes a warning of the result.
    pub warn_when: Option<String>,
    /// The expression that makes drift of the result.
    pub fail_when: Option<String>,
}

/// The arguments of a step.
#[derive(Debug, Clone)]
pub enum Arguments {
    /// As written, with expressions to render when the step starts.
    Written(Value),
    /// Given by a program.
    Given(Box<JobSpec>),
}

impl Pipeline {
    /// Returns a pipeline of one job, as `sgcache job` runs it.
    pub fn single(spec: JobSpec, fail_when: Option<String>, warn_when: Option<String>) -> Pipeline {
        let name = spec.name();
        let step = Step {
            id: name.to_owned(),
            job: name,
            needs: Vec::new(),
            when: None,
            fail_when: fail_when.or(JobSpec::default_fail_when(name).map(str::to_owned)),
            warn_when,
            timeout: None,
            arguments: Arguments::Given(Box::new(spec)),
        };
        Pipeline {
            name: name.to_owned(),
            file: String::new(),
            written: Arc::default(),
            description: String::new(),
            labels: BTreeMap::new(),
            enabled: true,
            start: Start::Manual,
            policy: Policy::Skip,
            group: None,
            timeout: None,
            retry: Retry::default(),
            params: Params::default(),
            steps: vec![step],
            on_drift: Vec::new(),
            hooks: Hooks::default(),
            blackouts: Vec::new(),
            budget: RunBudget::default(),
            outputs: Outputs::default(),
            hash: String::new(),
            schedule_hash: String::new(),
        }
    }

    /// Returns the pipeline for one run now: what is continuous makes one complete
    /// pass and ends.
    pub fn once(&self) -> Pipeline {
        let mut pipeline = self.clone();
        if pipeline.continuous().is_none() {
            return pipeline;
        }
        pipeline.start = Start::Manual;
        for step in pipeline.steps.iter_mut().filter(|step| step.job == "sync") {
            if let Arguments::Written(Value::Object(arguments)) = &mut step.arguments {
                arguments.insert("once".to_owned(), Value::Bool(true));
            }
        }
        pipeline
    }

    /// Returns its schedule, if it has one.
    pub fn schedule(&self) -> Option<&Schedule> {
        match &self.start {
            Start::Scheduled(schedule) => Some(schedule),
            _ => None,
        }
    }

    /// Returns how it waits and is restarted, if it is continuous.
    pub fn continuous(&self) -> Option<&Continuous> {
        match &self.start {
            Start::Continuous(continuous) => Some(continuous),
            _ => None,
        }
    }

    /// Returns when it will start next, at most `count` times; nothing when it
    /// does not start by itself.
    pub fn next_runs(&self, now: DateTime<Utc>, count: usize) -> Vec<DateTime<Utc>> {
        match self.schedule() {
            Some(schedule) if self.enabled => schedule.next_runs(now, count),
            _ => Vec::new(),
        }
    }

    /// Returns when it starts, short enough for a table: its first cron line and how many
    /// more there are.
    pub fn starts_short(&self) -> String {
        let Start::Scheduled(schedule) = &self.start else { return self.starts() };
        match schedule.written.as_slice() {
            [one] => one.clone(),
            [first, more @ ..] => format!("{first} +{}", more.len()),
            [] => "on request".to_owned(),
        }
    }

    /// Returns in words when it starts: `At 02:30. (Europe/Paris)`.
    pub fn starts(&self) -> String {
        match &self.start {
            Start::Continuous(_) => "all the time".to_owned(),
            Start::Scheduled(schedule) => schedule.describe(),
            Start::Manual => "on request".to_owned(),
        }
    }
}
