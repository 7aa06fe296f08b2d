//! Pipelines: YAML files that say what runs when, and what its results mean.
//!
//! The way of a pipeline: a [`PipelineFile`] is what is written, a [`Pipeline`]
//! what was resolved from it, a [`JobSpec`] one job with its arguments. The
//! [`Planner`] decides, from nothing but the time, what starts; the [`Runner`]
//! runs steps and makes a report of each run. What a job does is not known
//! here: it is handed in as an [`Execute`] function. No HTTP, no terminal.

mod defaults;

pub use defaults::{CatchUp, DEFAULTS_KEYS, Defaults, DefaultsFile, ErrorClass, RETRY_KEYS, Retry, RetryFile};
