//! Pipelines: YAML files that say what runs when, and what its results mean.
//!
//! The way of a pipeline: a [`file::PipelineFile`] is what is written, a
//! [`Pipeline`] what was resolved from it, a [`JobSpec`] one job with its
//! arguments. The [`Planner`] decides, from nothing but the time, what starts;
//! the [`Runner`] runs steps and makes a report of each run. What a job does is
//! not known here: it is handed in as an [`Execute`] function. No HTTP, no terminal.

mod alarm;
mod before_run;
mod blackout;
mod care_jobs;
mod context;
mod cron;
mod daemon;
mod defaults;
mod definition;
mod dry_run;
mod entities;
mod explanation;
mod export_job;
mod expressions;
pub mod file;
mod fingerprint;
mod forecast;
mod heartbeat;
mod hooks;
mod job;
mod job_arguments;
mod jobs;
mod lints;
mod load;
mod params;
mod parquet_table;
mod pause;
mod planner;
mod reactions;
mod rehearsal;
mod resolver;
mod results;
mod run_events;
mod runner;
mod schedule;
mod scheduled_scans;
mod settings;
mod steps;
mod supervisor;
mod test_checks;
mod test_file;

pub use alarm::{Alarm, Alarms};
pub use blackout::{BLACKOUT_KEYS, Blackout, BlackoutAction, BlackoutFile};
pub use context::{Previous, Site, sample_hook_context};
pub use cron::ClockChange;
pub use daemon::{ClaimSource, Command, Daemon, Event, Observer, PauseSource, TriggerError};
pub use defaults::{
    CATCH_UP_WINDOW, CatchUp, DEFAULTS_KEYS, Defaults, DefaultsFile, ErrorClass, LIMIT, RETRY_KEYS, Retry, RetryFile,
};
pub use definition::{Arguments, Continuous, Detail, Outputs, Pipeline, Policy, RunBudget, Start, Step};
pub use dry_run::{DryRun, DryStep};
pub use entities::EntityCatalog;
pub use explanation::{Explanation, Facts, NextOccurrence, PastOccurrence, Rule, Typical};
pub use fingerprint::fingerprint;
pub use forecast::{Expected, Outlook};
pub use heartbeat::Heartbeat;
pub use hooks::{Deliver, Delivered, Every, Hook, HookMessage, HookTarget, Hooks};
pub use job::{
    GenerateArgs, GenerateMode, ImportArgs, JobSpec, PruneReportsArgs, PurgeArgs, RebuildArgs, RepairArgs, Sample,
    SampleMode, SyncArgs, ValidateCountsArgs, ValidateDataArgs,
};
pub use job_arguments::{DeadLettersArgs, ExportArgs, ExportFormat, ExportTarget, FilterOperator, ScanArgs, ScanMode};
pub use jobs::{Following, Jobs};
pub use lints::{LintFacts, lint, unused_notifiers};
pub use load::{
    Loaded, ResolveContext, find, load, load_directory, load_what_fits, parse_overrides, read_documents, resolve,
};
pub use params::{Param, ParamError, ParamType, Params};
pub use pause::{Pause, Pauses};
pub use planner::{Decision, PlanEntry, PlanState, Planner, SkipReason};
pub use reactions::check_blocks;
pub use rehearsal::{Rehearsal, rehearse};
pub use run_events::{Progress, RunEvent, RunObserver};
pub use runner::{
    Clock, Execute, JobContext, JobError, PreviousSource, RunOrder, Runner, StepChoice, exit_code, worst_exit_code,
};
pub use schedule::Schedule;
pub use scheduled_scans::scheduled_scans;
pub use settings::{Leaf, Origin, Setting, Sources, effective_settings, leaves, without_addresses};
pub use supervisor::{SupervisorControl, supervise};

#[cfg(test)]
mod tests;
